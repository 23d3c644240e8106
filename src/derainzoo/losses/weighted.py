"""The loss of a run: named terms, each with a weight, a field of the network's output it looks at, and a step it starts at."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.losses import frequency, many_to_one, pixel, structure

TERMS: dict[str, Callable[..., Tensor]] = {
    "l1": pixel.l1,
    "mse": pixel.mse,
    "charbonnier": pixel.charbonnier,
    "psnr": pixel.psnr,
    "tv": pixel.tv,
    "ssim": structure.ssim,
    "dssim": structure.dssim,
    "edge": structure.edge,
    "fft": frequency.fft,
}
"""(output, target) of one shape -> scalar."""


def _internal(output: Tensor, target: Tensor, versions: int, ssim_weight: float = 0.0) -> Tensor:
    return many_to_one.internal(output, versions, ssim_weight)


GROUP_TERMS: dict[str, Callable[..., Tensor]] = {
    "external": many_to_one.external,
    "internal": _internal,
}
"""(output of all rainy versions, target of each background, versions) -> scalar."""


class Term(NamedTuple):
    """One addend of a loss."""

    function: Callable[..., Tensor]
    weight: float
    field: str
    start: int
    grouped: bool
    arguments: dict[str, Any]


class WeightedLoss:
    """Sum of weighted terms.

    Args:
        terms: label -> {name, weight, field, start, ...}; `name` is the label where absent, `field` of the network's output
            (`image`), `start` the first step the term counts at; anything else goes to the term's function.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        if not terms:
            raise DerainzooError("the loss has no terms; for example loss=l1, or +loss.terms.l1.weight=1")
        self.terms = {label: _term(label, **settings) for label, settings in terms.items()}

    def __call__(self, output: Any, target: Tensor, versions: int = 1, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and every term's value before its weight.

        `output` is the network's: a tensor, or a NamedTuple whose fields the terms name. With several rainy versions of each
        background the target counts for each of them.

        Losses are formed in the target's precision, whatever the network ran in, and without autocast: SSIM takes small
        differences of large means, which in half precision come out as noise, below zero or infinite.
        """
        with torch.autocast(target.device.type, enabled=False):
            return self._sum(output, target, versions, step)

    def _sum(self, output: Any, target: Tensor, versions: int, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        repeated = target.repeat_interleave(versions, 0) if versions > 1 else target
        values: dict[str, Tensor] = {}
        total = target.new_zeros(())
        for label, term in self.terms.items():
            if step < term.start:
                continue
            field = _field(output, term.field, label).to(target.dtype)
            if term.grouped:
                values[label] = term.function(field, target, versions, **term.arguments)
            else:
                like = repeated if field.shape == repeated.shape else F.interpolate(repeated, field.shape[-2:], mode="area")
                values[label] = term.function(field, like, **term.arguments)
            total = total + term.weight * values[label]
        return total, values


def _term(
    label: str, weight: float = 1.0, name: str | None = None, field: str = "image", start: int = 0, **arguments: Any
) -> Term:
    name = name or label
    known = {**TERMS, **GROUP_TERMS}
    if name not in known:
        raise unknown_name("loss", name, known)
    settings = inspect.signature(known[name]).parameters.values()
    takes = [p.name for p in settings if p.default is not p.empty and p.name != "versions"]
    for argument in arguments:
        if argument not in takes:
            raise unknown_name(f"setting of loss '{label}'", argument, [*takes, "weight", "name", "field", "start"])
    return Term(known[name], weight, field, start, name in GROUP_TERMS, arguments)


def _field(output: Any, name: str, label: str) -> Tensor:
    if isinstance(output, Tensor):
        fields = {"image": output}
    else:
        fields = output._asdict()
    if name not in fields:
        raise unknown_name(f"output of the network (loss.terms.{label}.field)", name, fields)
    return fields[name]
