"""Small separable filters in float64, shared by SSIM and the no-reference metrics."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["replicate", "symmetric", "zero"]


def gaussian_taps(size: int, sigma: float) -> list[float]:
    """A sampled Gaussian with sum 1; its outer product with itself is MATLAB's `fspecial('gaussian', size, sigma)`."""
    taps = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return [tap / sum(taps) for tap in taps]


def pad(x: Tensor, before: int, after: int, border: Border) -> Tensor:
    """Extend height and width; `symmetric` mirrors with the edge repeated, which torch does not offer."""
    if border == "zero":
        return F.pad(x, (before, after, before, after))
    for dim in (-2, -1):
        n = x.shape[dim]
        index = torch.arange(-before, n + after, device=x.device)
        if border == "replicate":
            index = index.clamp(0, n - 1)
        else:
            index = index % (2 * n)
            index = torch.minimum(index, 2 * n - 1 - index)
        x = x.index_select(dim, index)
    return x


def correlate(x: Tensor, taps: Sequence[float], stride: int = 1) -> Tensor:
    """Filter rows and columns of `(..., H, W)` where the taps fit wholly in, keeping every `stride`-th result.

    Adding up shifted copies is twenty times faster on a CPU than `conv2d`, which has no vectorised float64 path.
    """
    for dim in (-2, -1):
        last = x.shape[dim] - len(taps)
        x = x.movedim(dim, -1)
        shifted = [x[..., i : i + last + 1 : stride] for i in range(len(taps))]
        total = shifted[0] * taps[0]
        for tap, part in zip(taps[1:], shifted[1:], strict=True):
            total.add_(part, alpha=tap)
        x = total.movedim(-1, dim)
    return x
