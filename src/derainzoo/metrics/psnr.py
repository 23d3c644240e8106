"""Peak signal-to-noise ratio."""

import torch
from torch import Tensor


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """20 log10(255 / RMSE) of every image of a batch of float64 planes in 0..255; no border is cut off.

    Identical images give infinity. MATLAB scripts that divide everything by 255 first and use the peak 1 get the same number.
    """
    mean_squared_error = (output - target).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / mean_squared_error)
