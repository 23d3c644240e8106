"""Losses that look at local structure: SSIM and edges."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["zero", "valid"]


def gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    """A normalised 1-D window."""
    x = torch.arange(size, device=like.device, dtype=like.dtype) - size // 2
    weights = torch.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def blur(x: Tensor, window: Tensor, padding: int = 0) -> Tensor:
    """Filter every channel with the outer product of `window`, as two 1-D convolutions; zeros outside."""
    c, n = x.shape[1], len(window)
    x = F.conv2d(x, window.view(1, 1, n, 1).expand(c, 1, n, 1), padding=(padding, 0), groups=c)
    return F.conv2d(x, window.view(1, 1, 1, n).expand(c, 1, 1, n), padding=(0, padding), groups=c)


def similarity(a: Tensor, b: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """The SSIM map of images in [0, 1], for a local mean; variances are biased (E[x^2] - E[x]^2)."""
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * covariance + c2) / (var_a + var_b + c2)


def ssim(output: Tensor, target: Tensor, border: Border = "zero") -> Tensor:
    """Mean structural similarity (range 1, 11 x 11 Gaussian of sigma 1.5, every channel): 1 is best, so its weight is negative.

    `zero` pads with zeros to the same size, as the training codes of ELF, MANAS and PReNet do; `valid` stays inside the image.
    """
    window = gaussian(11, 1.5, output)
    return similarity(output, target, lambda x: blur(x, window, 5 if border == "zero" else 0)).mean()


def dssim(output: Tensor, target: Tensor, border: Border = "zero") -> Tensor:
    """1 - SSIM."""
    return 1 - ssim(output, target, border)


def laplacian(x: Tensor) -> Tensor:
    """x minus its blurred, down- and up-sampled self (MPRNet's edge operator)."""
    kernel = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05], device=x.device, dtype=x.dtype)

    def smooth(z: Tensor) -> Tensor:
        return blur(F.pad(z, (2, 2, 2, 2), mode="replicate"), kernel)

    kept = torch.zeros_like(x)
    kept[..., ::2, ::2] = 4 * smooth(x)[..., ::2, ::2]
    return x - smooth(kept)


def edge(output: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Charbonnier distance of the Laplacians."""
    return torch.sqrt((laplacian(output) - laplacian(target)) ** 2 + eps**2).mean()
