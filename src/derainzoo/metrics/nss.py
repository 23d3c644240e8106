"""Natural scene statistics: what NIQE and BRISQUE have in common.

Divided by its local contrast, the luma of an undistorted photograph follows a generalised Gaussian, and so, with two unequal
tails, do products of neighbours. Distortion moves the parameters: shape alpha and the standard deviation of each tail.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from derainzoo.metrics.filters import Border, correlate, gaussian_taps, pad

_TAPS = gaussian_taps(7, 7 / 6)


def normalise_contrast(luma: Tensor, constant: float, border: Border) -> Tensor:
    """(I - mu) / (sigma + constant) of `(H, W)`, with mu and sigma under a 7 x 7 Gaussian.

    Where the picture is flat the numerator is rounding noise, whose random sign would be taken for statistics: it is set to 0.
    """
    around = pad(luma, 3, 3, border)
    mean = correlate(around, _TAPS)
    deviation = (correlate(around.square(), _TAPS) - mean.square()).abs().sqrt()
    difference = luma - mean
    return torch.where(difference.abs() < 1e-9, 0.0, difference) / (deviation + constant)


class Tails(NamedTuple):
    """Moments of samples with two unequal tails."""

    left: Tensor
    right: Tensor
    ratio: Tensor
    """What E|x|^2 / E[x^2] would be if both tails were the same; it determines the shape."""


def moments(samples: Tensor, zeros_right: bool) -> Tails:
    """Of every row of `(N, n)`; a row without a left or a right tail gives NaN. Zeros count to the right tail or to none."""
    squares = samples.square()
    negative = samples < 0
    positive = ~negative if zeros_right else samples > 0
    left = ((squares * negative).sum(1) / negative.sum(1)).sqrt()
    right = ((squares * positive).sum(1) / positive.sum(1)).sqrt()
    skew = left / right
    ratio = samples.abs().mean(1).square() / squares.mean(1)
    return Tails(left, right, ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2)


def ratio_of_shape(shape: Tensor) -> Tensor:
    """E|x|^2 / E[x^2] of a generalised Gaussian: rises with its shape, 2/pi for a normal distribution, 3/4 at most."""
    # logarithms, because the gamma function itself overflows for small shapes
    return torch.exp(2 * torch.lgamma(2 / shape) - torch.lgamma(1 / shape) - torch.lgamma(3 / shape))


def scale_of_shape(shape: Tensor) -> Tensor:
    """The scale beta, in standard deviations, of a generalised Gaussian exp(-(|x| / beta)^shape)."""
    return torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
