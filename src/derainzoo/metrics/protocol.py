"""Named protocols: which colour, which window, which border stand behind a number.

Papers print "PSNR" for at least four different computations (docs/metrics.md shows them side by side), so a number here always
carries its protocol's name. The facts are plain data that a configuration check can read without importing torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from derainzoo.errors import DerainzooError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Image: TypeAlias = np.ndarray | Tensor


@dataclass(frozen=True)
class Protocol:
    """One way to measure; `metrics` are the keys that `measure` returns."""

    name: str
    metrics: tuple[str, ...]
    colour: str
    summary: str
    source: str
    """Whose script defines it."""
    needs_target: bool = True
    higher_is_better: bool = True


_ALL = (
    Protocol(
        name="y8",
        metrics=("psnr_y8", "ssim_y8"),
        colour="studio-swing luma, rounded to integers",
        summary="Rain200L/H, SPA-Data, Rain100L/H, Test100, Test1200, Test2800; SSIM on the valid region",
        source="evaluate_PSNR_SSIM.m of MPRNet, Restormer and DRSformer",
    ),
    Protocol(
        name="y",
        metrics=("psnr_y", "ssim_y"),
        colour="studio-swing luma, not rounded",
        summary="DID-Data, DDN-Data; SSIM on the valid region after down-sampling to about 256 pixels",
        source="statistic.m of RCDNet, also used by DRSformer",
    ),
    Protocol(
        name="rgb",
        metrics=("psnr_rgb", "ssim_rgb"),
        colour="RGB",
        summary="all three channels, as in deblurring and in early deraining papers; SSIM per channel on the valid region",
        source="calculate_psnr and calculate_ssim of BasicSR and its descendants, derain-toolbox among them",
    ),
    Protocol(
        name="mhnet_cal",
        metrics=("psnr_mhnet_cal", "ssim_mhnet_cal"),
        colour="studio-swing luma, not rounded, red and blue exchanged",
        summary="only to reproduce MHNet's own numbers; SSIM on the full size with replicated border",
        source="cal.py of MHNet",
    ),
    Protocol(
        name="noref",
        metrics=("niqe_official", "brisque_pypi"),
        colour="luma",
        summary="real rain, where no clean picture exists; looks at the output alone",
        source="NIQE as released by its authors; BRISQUE with arithmetic and model of brisque 0.2.0",
        needs_target=False,
        higher_is_better=False,
    ),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name."""
    if name not in PROTOCOLS:
        raise unknown_name("metric protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def metric_names(protocols: Iterable[str]) -> list[str]:
    """The keys that measuring under these protocols yields, in their order."""
    return [metric for name in protocols for metric in get_protocol(name).metrics]


def measure_each(protocol: str, output: "Image", target: "Image | None" = None) -> list[dict[str, float]]:
    """One dictionary of metrics for every image of a batch.

    Args:
        protocol: A name in `PROTOCOLS`.
        output: `(B, 3, H, W)` or `(3, H, W)` tensor, floats in [0, 1] (clamped and quantised here: that is part of every
            protocol) or uint8; or an `(H, W, 3)` uint8 array, RGB.
        target: The same for the clean image; a protocol without reference ignores it.
    """
    from derainzoo.metrics.measuring import measure_tensors

    return measure_tensors(get_protocol(protocol), output, target)


def measure(protocol: str, output: "Image", target: "Image | None" = None) -> dict[str, float]:
    """The metrics of one image; arguments as for `measure_each`, a batch may hold one image only."""
    results = measure_each(protocol, output, target)
    if len(results) != 1:
        raise DerainzooError(
            f"measure() expects one image, found a batch of {len(results)}; use measure_each(), which keeps images apart"
        )
    return results[0]
