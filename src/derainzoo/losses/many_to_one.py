"""MANAS's losses: several rainy versions of one background share one target ("multi-to-one").

Outputs are ordered as in a batch: row i * versions + k restores version k of background i. With y_1..y_V the outputs for one
background t, averaged over the backgrounds:

    external = sum_k MSE(y_k, t) + sum_k (1 - SSIM(y_k, t)) + 1e-4 TV(y_1..y_V)
    internal = sum_(j<k) MSE(y_j, y_k)                     the versions must agree; added from the sixth epoch on
    restoration = external + internal

The search adds two terms on the architecture's parameters: their entropy, which asks for decisions, and the complexity of what
they choose. The paper's text could not be obtained; the definitions are those of its published code.
"""

import math
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from derainzoo.errors import DerainzooError
from derainzoo.losses.pixel import total_variation
from derainzoo.losses.structure import similarity

VERSIONS = 3
"""Light, medium and heavy rain over each background."""

CELL_COST = (0.7, 0.3)
"""Share of the parameters that parallel and fusion have of their sum."""
OPERATION_COST = (0.0, 0.0, 0.5, 0.2, 0.0, 0.0, 0.1, 0.1, 0.1)
"""The same of the nine operations: none, skip, sep, dil, sep_spatial, dil_spatial, se, se_max, cbam."""
PUBLISHED_OPERATION_COST = (0.0, 0.0, 0.0, 0.0, 0.5, 0.2, 0.1, 0.1, 0.1)
"""As published, where the costs of the two convolutions stand at the two spatial operations, of 42 and 19 parameters."""


def _gaussian(device: torch.device) -> Tensor:
    """11 x 11, sigma 1.5; formed in float32 whatever the images are, as published."""
    x = torch.tensor([math.exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(11)], device=device)
    x = (x / x.sum())[:, None]
    return x @ x.T


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of two batches of images in [0, 1], by channel; the window reaches over the border into zeros.

    `structure.ssim` but for the last bits: here the two-dimensional window is rounded to float32, as it is in the recordings.
    """
    channels = a.shape[1]
    window = _gaussian(a.device).to(a.dtype).expand(channels, 1, -1, -1)
    return similarity(a, b, lambda x: F.conv2d(x, window, padding=5, groups=channels)).mean()


def _check_rows(output: Tensor, backgrounds: int | None, versions: int) -> None:
    rows = output.shape[0]
    if rows % versions or (backgrounds is not None and rows != backgrounds * versions):
        of = "" if backgrounds is None else f" of {backgrounds} backgrounds"
        raise DerainzooError(
            f"many-to-one loss: expected {versions} rainy versions{of}, found {rows} outputs; set `versions` as in the data"
        )


def external(
    output: Tensor, target: Tensor, versions: int = VERSIONS, ssim_weight: float = 1.0, tv_weight: float = 1e-4
) -> Tensor:
    """Every version against its background: output (B * versions, C, H, W), target (B, C, H, W)."""
    _check_rows(output, target.shape[0], versions)
    target = target.repeat_interleave(versions, 0)
    loss = versions * F.mse_loss(output, target) + tv_weight * total_variation(output)
    return loss + ssim_weight * versions * (1 - ssim(output, target)) if ssim_weight else loss


def internal(output: Tensor, versions: int = VERSIONS, ssim_weight: float = 0.0) -> Tensor:
    """The versions of each background against one another; `ssim_weight` adds their SSIM (the published "improved" form)."""
    _check_rows(output, None, versions)
    y = output.unflatten(0, (-1, versions))
    loss = output.new_zeros(())
    for j, k in combinations(range(versions), 2):
        loss = loss + F.mse_loss(y[:, j], y[:, k])
        if ssim_weight:
            loss = loss + ssim_weight * (1 - ssim(y[:, j], y[:, k]))
    return loss


def restoration(output: Tensor, target: Tensor, epoch: int, versions: int = VERSIONS, internal_from: int = 5) -> Tensor:
    """What trains the derived network and the weights of the supernet; `epoch` counts from 0."""
    loss = external(output, target, versions)
    return loss + internal(output, versions) if epoch >= internal_from else loss


def architecture_entropy(alpha: Tensor) -> Tensor:
    """Mean binary entropy (base 10) of the entries of softmax(alpha), rows being decisions.

    Finite for decided rows too, where the published form is NaN.
    """
    w = alpha.softmax(-1)
    # 0 log 0 = 0; the floor, far below any probability that counts, keeps its gradient finite
    floor = torch.finfo(w.dtype).tiny
    return -(w * w.clamp_min(floor).log10() + (1 - w) * (1 - w).clamp_min(floor).log10()).mean()


def complexity(cells: Tensor, operations: Tensor, published: bool = False) -> Tensor:
    """Expected cost of an architecture, from the parameters (12, 2) of its cells and (27, 9) of its operations.

    `published` puts the costs of operations where the published code has them, which looks like a slip there.
    """
    operation_cost = operations.new_tensor(PUBLISHED_OPERATION_COST if published else OPERATION_COST)
    cell_cost = cells.new_tensor(CELL_COST)
    return (cells.softmax(-1) @ cell_cost).mean() + (operations.softmax(-1) @ operation_cost).mean()
