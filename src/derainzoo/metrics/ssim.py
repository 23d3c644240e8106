"""Structural similarity (Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", TIP 2004).

    SSIM = (2 mu_x mu_y + C1) (2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (sigma_x^2 + sigma_y^2 + C2)), averaged over the map,

with C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2 and means, variances and covariance under an 11 x 11 Gaussian of sigma 1.5. The
moments are biased (E[x^2] - mu^2). Where the field disagrees is the border: the authors' script and all its MATLAB copies
average only where the window fits in (`valid`); ports that keep the size continue the image first, which moves the third digit.
"""

from typing import Literal

import torch
from torch import Tensor

from derainzoo.errors import DerainzooError
from derainzoo.metrics.filters import correlate, gaussian_taps, pad

WINDOW = 11
_TAPS = gaussian_taps(WINDOW, 1.5)
_BAND = 64
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def downsampling_factor(height: int, width: int) -> int:
    """The factor by which the 2009 script shrinks an image before measuring, so that its short side is about 256."""
    return max(1, int(min(height, width) / 256 + 0.5))


def downsample_box(x: Tensor, factor: int) -> Tensor:
    """Mean over `factor` x `factor` with mirrored border around every `factor`-th pixel.

    An even window has no centre; it then reaches one pixel further right and down (as MATLAB's `imfilter` does).
    """
    if factor == 1:
        return x
    return correlate(pad(x, (factor - 1) // 2, factor // 2, "symmetric"), [1 / factor] * factor, stride=factor)


def _map_sum(x: Tensor, y: Tensor) -> Tensor:
    # only the sum of the two variances is needed: four filtered maps, not five
    mu_x, mu_y, squares, product = correlate(torch.stack((x, y, x * x + y * y, x * y)), _TAPS)
    mu_xy = mu_x * mu_y
    mu_squares = mu_x.square() + mu_y.square()
    structure = (2 * (product - mu_xy) + _C2) / (squares - mu_squares + _C2)
    return ((2 * mu_xy + _C1) / (mu_squares + _C1) * structure).sum()


def _plane(x: Tensor, y: Tensor) -> Tensor:
    """Mean of the map of `(H, W)`, made in bands of rows: they stay in the processor's cache, and memory stays small."""
    rows, columns = (size - WINDOW + 1 for size in x.shape)
    bands = [slice(top, top + _BAND + WINDOW - 1) for top in range(0, rows, _BAND)]
    return torch.stack([_map_sum(x[band], y[band]) for band in bands]).sum() / (rows * columns)


def ssim(output: Tensor, target: Tensor, border: Literal["valid", "replicate"] = "valid") -> Tensor:
    """SSIM of every image of a batch of float64 planes `(B, H, W)` or `(B, C, H, W)` in 0..255; the mean over channels."""
    height, width = output.shape[-2:]
    if border == "replicate":
        output, target = (pad(image, WINDOW // 2, WINDOW // 2, "replicate") for image in (output, target))
    elif min(height, width) < WINDOW:
        raise DerainzooError(
            f"SSIM expects at least {WINDOW} x {WINDOW} pixels, the size of its window; found {height} x {width}. "
            "Leave out images this small"
        )
    planes = [_plane(x, y) for x, y in zip(output.flatten(0, -3), target.flatten(0, -3), strict=True)]
    return torch.stack(planes).view(len(output), -1).mean(1)
