"""Pictures that tests make for themselves, the same on every machine: integer arithmetic only."""

import numpy as np

Picture = np.ndarray


def _blur(field: np.ndarray, size: int) -> np.ndarray:
    """Sum over `size` x `size`, wrapped around."""
    for axis in (0, 1):
        field = sum(np.roll(field, shift, axis) for shift in range(size))
    return field


def picture(seed: int, height: int, width: int, roughness: int = 1) -> Picture:
    """`(H, W, 3)` uint8 with structure at all scales, as photographs have; `roughness` strengthens the fine ones."""
    rng = np.random.default_rng(seed)
    channels = rng.integers(2, 5, (3, 6))
    total = np.zeros((height, width, 3), dtype=np.int64)
    for octave in range(6):
        cell = 2**octave
        coarse = rng.integers(-128, 128, (-(-height // cell), -(-width // cell)))
        field = _blur(np.kron(coarse, np.ones((cell, cell), dtype=np.int64))[:height, :width], cell)
        strength = roughness if octave < 2 else octave  # fields of 2^(2 octave) summands
        total += (field * strength // cell**2)[..., None] * channels[:, octave]
    return np.clip(128 + total // 24, 0, 255).astype(np.uint8)


def rainy(seed: int, clean: Picture, amount: int = 12) -> Picture:
    """The picture with noise added, at every pixel up to `amount` grey levels."""
    noise = np.random.default_rng(seed).integers(-amount, amount + 1, clean.shape)
    return np.clip(clean.astype(np.int64) + noise, 0, 255).astype(np.uint8)
