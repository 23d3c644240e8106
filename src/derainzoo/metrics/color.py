"""From an image to the plane that is measured: 8 bits, and the lumas that papers call "Y".

Studio-swing luma (ITU-R BT.601, MATLAB's `rgb2ycbcr`) spans 16 to 235; full-range luma (OpenCV, JPEG, kornia) spans 0 to 255.
The same grey error is therefore 219/255 as large in the first and its PSNR 20 log10(255/219) = 1.32 dB higher.
"""

import torch
from torch import Tensor

STUDIO_WEIGHTS = (65.481, 128.553, 24.966)
FULL_RANGE_WEIGHTS = (0.299, 0.587, 0.114)
MATLAB_GREY_WEIGHTS = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # first row of its inverted YIQ matrix
LUMINANCE_WEIGHTS = (0.2125, 0.7154, 0.0721)  # BT.709's, to the digits that scikit-image uses


def quantise(image: Tensor) -> Tensor:
    """Floats in [0, 1] to uint8, as saving a PNG does: clamp, times 255 in float32, round half to even.

    This is what `skimage.img_as_ubyte` does, by which the published test scripts write their results. Half and bfloat16 go
    through float32, for half a float cannot tell the 256 levels from their ties.
    """
    return image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)


def _weighted(rgb: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """`(..., 3, H, W)` to `(..., H, W)`."""
    r, g, b = rgb.unbind(-3)
    return weights[0] * r + weights[1] * g + weights[2] * b


def studio_luma(rgb: Tensor) -> Tensor:
    """Luma between 16 and 235 of float64 RGB in 0..255, not rounded: 255 times MATLAB's `rgb2ycbcr(im2double(image))`."""
    return _weighted(rgb, STUDIO_WEIGHTS) / 255 + 16


def studio_luma_rounded(rgb: Tensor) -> Tensor:
    """Luma of 8-bit RGB (held as float64) rounded half up to integers: MATLAB's `rgb2ycbcr(image)`.

    194 of the 2^24 colours lie exactly between two integers, and a sum of products with 65.481 errs to either side there.
    Thousandths make every term an integer, which float64 holds exactly: the result is the same on any machine.
    """
    thousandths = _weighted(rgb, (65481, 128553, 24966))
    return torch.floor((thousandths + 127_500) / 255_000) + 16


def full_range_luma(rgb: Tensor) -> Tensor:
    """Luma between 0 and 255 of float64 RGB in 0..255: what no deraining protocol uses, for comparison."""
    return _weighted(rgb, FULL_RANGE_WEIGHTS)


def matlab_grey(rgb: Tensor) -> Tensor:
    """Full-range luma of 8-bit RGB, rounded half up to integers: MATLAB's `rgb2gray(image)`, which NIQE's release calls."""
    return torch.floor(_weighted(rgb, MATLAB_GREY_WEIGHTS) + 0.5)


def luminance(rgb: Tensor) -> Tensor:
    """Luminance as scikit-image's `rgb2gray` weighs it, which the package `brisque` calls."""
    return _weighted(rgb, LUMINANCE_WEIGHTS)
