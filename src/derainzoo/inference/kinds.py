"""`derainzoo.derain`: a picture of any kind that Python code holds, restored, as the same kind.

import derainzoo
dry = derainzoo.derain("photo.jpg", weights="elf.safetensors")  # a PIL image
dry = derainzoo.derain(array, weights="elf.safetensors")        # an array of the same shape, dtype and range
"""

from collections.abc import Callable
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from derainzoo.errors import DerainzooError
from derainzoo.images import exif_orientation, turn
from derainzoo.inference.photo import read_photo
from derainzoo.inference.predictor import Predictor, load_network
from derainzoo.inference.tiler import OVERLAP

# Pillow's modes that are taken as they are, and what becomes of others
_MODES = {mode: mode for mode in ("L", "LA", "RGB", "RGBA", "I;16", "F")}
_MODES |= {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}


def derain(
    image: Any,
    model: str | nn.Module | None = None,
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "fp32",
    tile: int | Literal["auto"] | None = "auto",
    overlap: int = OVERLAP,
) -> Any:
    """Remove rain from a picture.

    The network stays loaded for the next call with the same one.

    Args:
        image: a path, a PIL image, an array of `(H, W)` or `(H, W, C)`, or a tensor of `(C, H, W)` or `(B, C, H, W)`. Integers
            are `uint8` or `uint16` and use their whole range; floats are in [0, 1]. An alpha channel is passed on.
        model: a registered name, or a network of your own making; by default what `weights` hold.
        weights: any file that `load_model` reads.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: fp32, or on GPUs bf16 or fp16.
        tile: largest side of a tile in pixels; auto: as large as free memory allows; None: the picture whole.
        overlap: pixels that neighbouring tiles share.

    Returns:
        The kind of thing that was given, of the same size, dtype and range. For a path a PIL image, turned as it is meant to be
        seen; if the file has 16 bits, which Pillow has no colour images for, an array.
    """
    if isinstance(model, nn.Module) and weights is not None:
        raise DerainzooError("weights were given beside a network that is already made; give its name, or no weights")
    version = Path(weights).stat().st_mtime_ns if weights is not None and Path(weights).exists() else 0
    return _predictor(model, weights, version, device, precision, tile, overlap)(image)


@lru_cache(maxsize=1)
def _predictor(model: str | nn.Module | None, weights: str | Path | None, version: int, *settings: Any) -> Predictor:
    return Predictor(model if isinstance(model, nn.Module) else load_network(model, weights), *settings)


def unpack(image: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """A picture as `(B, C, H, W)`, and what makes the same kind of thing out of such a tensor."""
    if isinstance(image, str | PathLike):
        return _from_path(Path(image))
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Tensor):
        if image.ndim not in (3, 4):
            raise DerainzooError(f"expected a tensor of (C, H, W) or (B, C, H, W), got {tuple(image.shape)}")
        return (image, lambda t: t) if image.ndim == 4 else (image[None], lambda t: t[0])
    raise DerainzooError(f"expected a path, a PIL image, a numpy array or a tensor, got {type(image).__name__}")


def _from_array(array: np.ndarray) -> tuple[Tensor, Callable[[Tensor], np.ndarray]]:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)) or 0 in array.shape:
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; channels come last in arrays: array.transpose(1, 2, 0)" if channels_first else ""
        raise DerainzooError(f"expected an array of (H, W) or (H, W, C) with 1 to 4 channels, got {array.shape}{hint}")
    if array.dtype not in (np.uint8, np.uint16, np.float16, np.float32, np.float64):
        raise DerainzooError(f"expected an array of uint8, uint16 or floats, got {array.dtype}")
    owned = np.require(array, requirements=["C", "W"])  # torch takes neither negative strides nor what must not be written to
    images = torch.from_numpy(owned.reshape(*array.shape[:2], -1)).permute(2, 0, 1)[None]
    return images, lambda t: np.ascontiguousarray(t[0].permute(1, 2, 0).numpy()).reshape(array.shape)


def _from_pil(image: Image.Image) -> tuple[Tensor, Callable[[Tensor], Image.Image]]:
    mode = _MODES.get(image.mode)
    if image.mode == "P":
        mode = "RGBA" if "transparency" in image.info else "RGB"
    if mode is None:
        raise DerainzooError(
            f"cannot restore a PIL image of mode {image.mode}; convert it, for example by image.convert('RGB')"
        )
    info = {k: v for k, v in image.info.items() if k != "transparency" and not (k == "icc_profile" and image.mode == "CMYK")}
    orientation = exif_orientation(info.get("exif"))
    images, pack = _from_array(turn(np.array(image.convert(mode)), orientation))

    def back(restored: Tensor) -> Image.Image:
        result = Image.fromarray(np.ascontiguousarray(turn(pack(restored), orientation, back=True)))
        result.info = info
        return result

    return images, back


def _from_path(path: Path) -> tuple[Tensor, Callable[[Tensor], Image.Image | np.ndarray]]:
    photo = read_photo(path)
    images, pack = _from_array(photo.upright)

    def back(restored: Tensor) -> Image.Image | np.ndarray:
        pixels = pack(restored)
        if pixels.dtype != np.uint8:
            return pixels
        result = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        result.info = {k: v for k, v in {"icc_profile": photo.icc, "dpi": photo.dpi}.items() if v}
        return result

    return images, back
