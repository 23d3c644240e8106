"""The arithmetic behind the protocols: one implementation for numpy and torch, for the CPU and the GPU."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from derainzoo.errors import DerainzooError
from derainzoo.metrics.brisque import brisque
from derainzoo.metrics.color import quantise, studio_luma, studio_luma_rounded
from derainzoo.metrics.niqe import niqe
from derainzoo.metrics.protocol import Protocol
from derainzoo.metrics.psnr import psnr
from derainzoo.metrics.ssim import downsample_box, downsampling_factor, ssim


def float64_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU where it has no float64 (Apple's GPUs)."""
    return torch.device("cpu") if device.type == "mps" else device


def _eight_bits(image: np.ndarray | Tensor, what: str) -> Tensor:
    """`(B, 3, H, W)` float64 that holds integers from 0 to 255."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DerainzooError(
                f"{what}: expected a uint8 array (H, W, 3), RGB; found {image.dtype} {image.shape}. Repeat a grey picture "
                "three times, divide 16 bits by 257 and round, or hand floats over as a tensor (3, H, W) in [0, 1]"
            )
        # a copy, for numpy's array may be read-only or have negative strides
        return torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1).unsqueeze(0)
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or not (image.is_floating_point() or image.dtype == torch.uint8):
        raise DerainzooError(
            f"{what}: expected a tensor (3, H, W) or (B, 3, H, W), floats in [0, 1] or uint8; found {image.dtype} "
            f"{tuple(image.shape)}. Repeat a grey picture three times"
        )
    if image.is_floating_point():
        if image.isnan().any():
            raise DerainzooError(f"{what}: expected numbers, found NaN, which no protocol can measure. Has training diverged?")
        image = quantise(image)
    return image.reshape(-1, *image.shape[-3:]).to(float64_device(image.device)).double()


def _y8(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    output, target = studio_luma_rounded(output), studio_luma_rounded(target)
    return psnr(output, target), ssim(output, target)


def _y(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    output, target = studio_luma(output), studio_luma(target)
    factor = downsampling_factor(*output.shape[-2:])
    return psnr(output, target), ssim(downsample_box(output, factor), downsample_box(target, factor))


def _rgb(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return psnr(output, target), ssim(output, target)


def _mhnet_cal(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    output, target = studio_luma(output.flip(1)), studio_luma(target.flip(1))
    return psnr(output, target), ssim(output, target, border="replicate")


_WITH_TARGET: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, ...]]] = {
    "y8": _y8,
    "y": _y,
    "rgb": _rgb,
    "mhnet_cal": _mhnet_cal,
}


def _noref(output: Tensor) -> tuple[Tensor, ...]:
    return torch.stack([niqe(image) for image in output]), torch.stack([brisque(image) for image in output])


def measure_tensors(
    protocol: Protocol, output: np.ndarray | Tensor, target: np.ndarray | Tensor | None
) -> list[dict[str, float]]:
    """See `protocol.measure_each`."""
    out = _eight_bits(output, "output")
    if not protocol.needs_target:
        columns = _noref(out)
    elif target is None:
        raise DerainzooError(
            f"protocol '{protocol.name}' compares with a clean image, found no target; without one measure with 'noref'"
        )
    else:
        clean = _eight_bits(target, "target").to(out.device)
        if out.shape != clean.shape:
            raise DerainzooError(
                f"output and target must have the same size, found {tuple(out.shape)} and {tuple(clean.shape)} (B, 3, H, W). "
                "Are they the same picture, and was padding cropped away?"
            )
        columns = _WITH_TARGET[protocol.name](out, clean)
    rows = torch.stack(columns, 1).tolist()
    return [dict(zip(protocol.metrics, row, strict=True)) for row in rows]
