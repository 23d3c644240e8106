"""Losses in the frequency domain."""

import torch
from torch import Tensor


def fft(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the real and imaginary parts of the 2-D spectra (MIMO-UNet's frequency loss)."""
    difference = torch.fft.rfft2(output) - torch.fft.rfft2(target)
    return torch.view_as_real(difference).abs().mean()
