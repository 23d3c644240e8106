"""Losses that look at pixels one by one (or, for total variation, at neighbours)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(output, target)


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference."""
    return F.mse_loss(output, target)


def charbonnier(output: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + eps^2): L1 with a round bottom."""
    return torch.sqrt((output - target) ** 2 + eps**2).mean()


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """-PSNR of each image (range 1), averaged: 10 / ln 10 * mean ln(MSE + 1e-8), the "PSNRLoss" of HINet, NAFNet and MHNet."""
    error = ((output - target) ** 2).mean(dim=(1, 2, 3))
    return 10 / math.log(10) * torch.log(error + 1e-8).mean()


def total_variation(x: Tensor) -> Tensor:
    """Twice the mean squared difference of vertical neighbours plus that of horizontal ones."""
    return 2 * (x.diff(dim=-2).square().mean() + x.diff(dim=-1).square().mean())


def tv(output: Tensor, target: Tensor) -> Tensor:
    """Total variation of the output. The target is not looked at: this term pulls towards smoothness."""
    return total_variation(output)
