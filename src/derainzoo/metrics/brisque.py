"""BRISQUE: a regression from a picture's statistics to the opinion of viewers; 0 is good, 100 is bad, both can be exceeded.

A. Mittal, A. K. Moorthy, A. C. Bovik, "No-reference image quality assessment in the spatial domain", IEEE TIP 2012.

A score belongs to the trained regression and to the arithmetic that it was trained with. Both are here those of the Python
package `brisque` 0.2.0 (Apache-2.0), hence the metric's name `brisque_pypi`. The authors' MATLAB release, MATLAB's built-in and
OpenCV have a regression of their own each; docs/metrics.md shows how far apart they are.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from derainzoo.metrics.color import luminance
from derainzoo.metrics.filters import correlate, pad
from derainzoo.metrics.nss import moments, normalise_contrast, ratio_of_shape

_GAMMA = 0.05  # of the radial basis functions
# OpenCV's bicubic halving: a cubic of a = -0.75 between the middle two of four pixels, without antialiasing
_HALVE = (-0.09375, 0.59375, 0.59375, -0.09375)


class _Regression(NamedTuple):
    """Support vectors (770, 36), their coefficients, the offset, and the range that features are scaled from."""

    vectors: Tensor
    coefficients: Tensor
    offset: Tensor
    lowest: Tensor
    highest: Tensor


@cache
def _regression(device: torch.device) -> _Regression:
    with np.load(Path(__file__).parent / "parameters" / "brisque.npz") as file:
        return _Regression(*(torch.from_numpy(file[name]).to(device) for name in _Regression._fields))


def _shape(ratio: Tensor) -> Tensor:
    """The shape whose ratio this is, by bisection between 0.05 and 100."""
    low, high = torch.full_like(ratio, 0.05), torch.full_like(ratio, 100)
    for _ in range(60):
        middle = (low + high) / 2
        too_low = ratio_of_shape(middle) < ratio
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    return (low + high) / 2


def _scale_features(luma: Tensor) -> Tensor:
    """18 features of `(H, W)` in 0..1: of the normalised luma and of its products with four neighbours."""
    x = normalise_contrast(luma, constant=1 / 255, border="zero")
    products = (x[:, :-1] * x[:, 1:], x[:-1] * x[1:], x[:-1, :-1] * x[1:, 1:], x[1:, :-1] * x[:-1, 1:])
    each = [moments(samples.reshape(1, -1), zeros_right=True) for samples in (x, *products)]
    left, right, ratio = (torch.cat(values) for values in zip(*each, strict=True))
    shape = _shape(ratio)
    mean = (right - left) * ratio_of_shape(shape).sqrt()
    pairs = torch.stack((shape, mean, left.square(), right.square()), 1)[1:]
    return torch.cat((shape[:1], (left[:1].square() + right[:1].square()) / 2, pairs.flatten()))


def features(rgb: Tensor) -> Tensor:
    """The 36 features of an 8-bit image `(3, H, W)`: 18 at full and 18 at half size."""
    luma = luminance(rgb / 255)
    height, width = (round(size / 2) for size in luma.shape)  # OpenCV rounds half to even too
    half = correlate(pad(luma, 1, 2, "replicate"), _HALVE, stride=2)[:height, :width]
    return torch.cat((_scale_features(luma), _scale_features(half)))


def predict(features: Tensor) -> Tensor:
    """Epsilon support-vector regression with radial basis functions."""
    model = _regression(features.device)
    scaled = 2 * (features - model.lowest) / (model.highest - model.lowest) - 1
    distances = (model.vectors - scaled).square().sum(1)
    return model.coefficients @ torch.exp(-_GAMMA * distances) - model.offset


def brisque(rgb: Tensor) -> Tensor:
    """BRISQUE of one 8-bit image `(3, H, W)`, held as float64."""
    return predict(features(rgb))
