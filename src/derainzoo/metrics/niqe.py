"""NIQE: how far a picture's statistics lie from those of pristine photographs; lower is better.

A. Mittal, R. Soundararajan, A. C. Bovik, "Making a 'completely blind' image quality analyzer", IEEE SPL 2013.

The variant is that of the authors' release: MATLAB's `rgb2gray`, 96 x 96 blocks without overlap, borders repeated, and the
release's own parameters of pristine photographs (taken from basicsr 1.4.2, Apache-2.0). MATLAB's built-in `niqe` has other
parameters, and basicsr measures the studio-swing luma: their numbers are others.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from derainzoo.errors import DerainzooError
from derainzoo.metrics.color import matlab_grey
from derainzoo.metrics.filters import correlate, pad
from derainzoo.metrics.nss import moments, normalise_contrast, ratio_of_shape, scale_of_shape

BLOCK = 96
# MATLAB's imresize(x, 0.5): the cubic kernel stretched to twice its width, as an antialiasing filter
_HALVE = tuple(weight / 256 for weight in (-3, -9, 29, 111, 111, 29, -9, -3))
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


@cache
def _pristine(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean (36) and covariance (36, 36) of the features of pristine photographs."""
    with np.load(Path(__file__).parent / "parameters" / "niqe.npz") as file:
        return torch.from_numpy(file["mean"]).to(device), torch.from_numpy(file["covariance"]).to(device)


@cache
def _shape_grid(device: torch.device) -> tuple[Tensor, Tensor]:
    shapes = 0.2 + 0.001 * torch.arange(9801, dtype=torch.float64, device=device)
    return shapes, ratio_of_shape(shapes)


def _nearest_shape(ratio: Tensor) -> Tensor:
    """The shape on the release's grid of thousandths whose ratio comes closest; NaN gets the first, as in the release."""
    shapes, ratios = _shape_grid(ratio.device)
    above = torch.searchsorted(ratios, ratio).clamp(1, len(ratios) - 1)
    nearest = torch.where(ratio - ratios[above - 1] <= ratios[above] - ratio, above - 1, above)
    return shapes[torch.where(ratio.isnan(), 0, nearest)]


def _fit(samples: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shape, mean, and the scales of both tails, of every row."""
    left, right, ratio = moments(samples, zeros_right=False)
    shape = _nearest_shape(ratio)
    mean = (right - left) * ratio_of_shape(shape).sqrt()
    scale = scale_of_shape(shape)
    return shape, mean, left * scale, right * scale


def _features(blocks: Tensor) -> Tensor:
    """18 features of every block: `(N, size, size)` to `(N, 18)`."""
    shape, _, left, right = _fit(blocks.flatten(1))
    features = [shape, (left + right) / 2]
    for neighbour in _NEIGHBOURS:
        # rolled, so that a block's last column meets its first: the release does the same
        features += _fit((blocks * blocks.roll(neighbour, (1, 2))).flatten(1))
    return torch.stack(features, 1)


def niqe(rgb: Tensor) -> Tensor:
    """NIQE of one 8-bit image `(3, H, W)`, held as float64; NaN for a picture that is flat almost everywhere."""
    rows, columns = (size // BLOCK for size in rgb.shape[-2:])
    if rows * columns < 2:
        raise DerainzooError(
            f"NIQE expects at least two blocks of {BLOCK} x {BLOCK} pixels, found {rgb.shape[-2]} x {rgb.shape[-1]}. "
            "Leave out images this small; enlarging them would measure the enlargement"
        )
    luma = matlab_grey(rgb)[: rows * BLOCK, : columns * BLOCK]
    scales = []
    for size in (BLOCK, BLOCK // 2):
        normalised = normalise_contrast(luma, constant=1, border="replicate")
        blocks = normalised.view(rows, size, columns, size).transpose(1, 2).reshape(-1, size, size)
        scales.append(_features(blocks))
        luma = correlate(pad(luma, 3, 3, "symmetric"), _HALVE, stride=2)
    features = torch.cat(scales, 1)

    mean, covariance = _pristine(rgb.device)
    difference = mean - features.nanmean(0)
    whole = features[~features.isnan().any(1)]
    if len(whole) < 2:
        return difference.new_tensor(float("nan"))
    joint = torch.linalg.pinv((covariance + whole.T.cov()) / 2)
    return (difference @ joint @ difference).sqrt()
