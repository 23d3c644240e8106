"""Parameters and multiply-adds are the papers', part by part, where the networks are computed as the papers write them.

What the registry states is recounted in `test_registry`; it is that of our formulations, which compute less (identities) or
more (channels filled up), and `test_drsformer` and `test_mhnet` derive one count from the other.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from derainzoo.models.registry import create_model, model_info
from reference.drsformer_plain import PlainDRSformer
from reference.mhnet_plain import PlainHead, PlainV1
from reference.plain import plain

aten = torch.ops.aten


class Operations(TorchDispatchMode):
    """Multiply-adds of convolutions by kind and of matrix products; besides them what the counter of ELF's authors adds."""

    def __init__(self) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        y = func(*args, **(kwargs or {}))
        if func is aten.convolution.default:
            weight, bias, groups = args[1], args[2], args[8]
            k = weight.shape[-1]
            self.macs["grouped" if groups > 1 else f"{k}x{k}"] += y.numel() * weight[0].numel()
            self.others["biases"] += 0 if bias is None else y.numel()
        elif func in (aten.bmm.default, aten.mm.default):
            self.macs["products"] += y.numel() * args[0].shape[-1]
        elif func is aten.addmm.default:
            self.macs["linear"] += y.numel() * args[1].shape[-1]
        elif func.overloadpacket is aten.upsample_bilinear2d:
            self.others["resizing"] += 11 * y.numel()
        elif func is aten.mean.dim and sorted(d % 4 for d in args[1]) == [2, 3]:
            self.others["pooling"] += args[0].numel() + y.numel()
        return y


def operations(net: nn.Module, size: int) -> Operations:
    with torch.no_grad(), Operations() as counted:
        net.eval()(torch.empty(1, 3, size, size, device="meta"))
    return counted


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# the literal formulation, parameters, giga multiply-adds at 256 x 256 in all and by kind
PUBLISHED: dict[str, tuple[Callable[[], nn.Module], int, float, dict[str, float]]] = {
    "drsformer": (
        PlainDRSformer,
        33_655_424,
        242.980,
        {"1x1": 173.556, "3x3": 10.447, "grouped": 36.328, "products": 22.649},
    ),
    "drsformer_plain": (
        lambda: PlainDRSformer(compensate=False),
        32_610_304,
        175.372,
        {"1x1": 115.423, "3x3": 10.447, "grouped": 26.853, "products": 22.649},
    ),
    "mhnet": (PlainV1, 16_696_605, 30.85, {}),
    "mhnet_deblur": (lambda: PlainV1(features=64), 17_028_093, 47.05, {}),
    "mhnet_head_w32": (lambda: PlainHead(32), 17_042_319, 32.41, {}),
    "mhnet_head": (PlainHead, 67_543_311, 126.11, {"1x1": 120.27, "grouped": 2.96, "2x2": 2.15, "3x3": 0.57, "products": 0.17}),
}
UNREAD = {"mhnet_head": 27 * 64 * 256**2, "mhnet_head_w32": 27 * 32 * 256**2}
"""A convolution that the published network computes and never reads; the literal formulation holds its weights alone."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_literal_formulation_costs_what_is_published(name: str) -> None:
    build, expected_parameters, total, kinds = PUBLISHED[name]
    with torch.device("meta"):
        net = build()
    assert parameters(net) == expected_parameters
    macs = operations(net, 256).macs
    macs["3x3"] += UNREAD.get(name, 0)
    digits = 3 if "drs" in name else 2
    assert round(macs.total() / 1e9, digits) == total
    for kind, giga in kinds.items():
        # given rounded so that they add up to the whole
        assert macs[kind] / 1e9 == pytest.approx(giga, abs=10**-digits), kind


# size, multiply-adds and more by the rule of ELF's authors (known to the unit but for elf_lw), parameters in all and in
# convolutions
ELF = {
    "elf": (512, 66_399_780_912, 1_536_785, 1_532_106),
    "elf_head": (256, 11_506_851_888, 1_223_972, 1_221_246),
    "elf_lw": (512, 21_534_000_000, 568_308, 566_498),
}


@pytest.mark.parametrize("name", ELF)
def test_elf_costs_what_its_authors_counted(name: str) -> None:
    size, total, expected_parameters, in_convolutions = ELF[name]
    with torch.device("meta"):
        net = plain(create_model(name))
    assert parameters(net) == model_info(name).params == expected_parameters
    assert sum(parameters(m) for m in net.modules() if isinstance(m, nn.Conv2d)) == in_convolutions
    counted = operations(net, size)
    del counted.macs["products"]  # which their counter does not see
    found = counted.macs.total() + counted.others.total()
    assert (round(found, -6) if name == "elf_lw" else found) == total
