"""Slots: the places of a supernet where several candidates stand side by side.

A slot runs in one of three ways, which searches switch between from step to step:

    path      y = o_a(x)                          the active candidate; the others cost nothing
    echo      the same y, and backward also finds dL/dg_k = <o_k(x), dL/dy> for the gates g of the candidates
    mixture   y = sum_k w_k o_k(x)                all candidates, in the graph and in memory

A gate g_k is the factor that candidate k would have in a mixture; on a path it is one for the active candidate, else zero.
A slot is a ModuleDict: what was not chosen left out, the state dict of a supernet is that of the derived network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Echo(torch.autograd.Function):
    """Returns y as it is; its backward runs the probed candidates on x, one at a time and without a graph.

    So the gates get the very gradient that a mixture at the one-hot point would give them, in the memory of a path and one
    candidate's inference. The active candidate stays an ordinary node of the graph. Candidates run twice: they must do nothing
    but compute (no dropout; batch normalisation in evaluation mode).
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, x: Tensor, y: Tensor, slot: "Slot") -> Tensor:
        """Only x is kept, not y: there are no two feature maps of a slot in memory."""
        ctx.save_for_backward(x)
        ctx.slot, ctx.probes, ctx.gates = slot, tuple(slot.probes), gates.new_zeros(gates.shape)
        device = x.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, Tensor, None]:
        """One inner product a probe, added up in the precision of the gates."""
        (x,), (wanted,) = ctx.saved_tensors, grad_outputs
        device, dtype, enabled = ctx.autocast
        gradient = ctx.gates
        with torch.no_grad(), torch.autocast(device, dtype, enabled):
            for k in ctx.probes:
                gradient[k] = (ctx.slot.candidate(k)(x) * wanted).sum(dtype=gradient.dtype)
        return gradient, None, wanted, None


class Slot(nn.ModuleDict):
    """Candidates by name, each from a tensor to a tensor of its size.

    Args:
        kind: slots of one kind choose among the same candidates.
        candidates: name -> module.
    """

    def __init__(self, kind: str, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__(candidates)
        self.kind = kind
        self.names = list(candidates)
        self.active = 0
        self.gates: Tensor | None = None
        """Where echoes are collected; None for a plain path."""
        self.probes: Sequence[int] = ()
        """Candidates whose echo is wanted."""
        self.weights: Tensor | None = None
        """Of the mixture; None for a path."""

    def candidate(self, k: int) -> nn.Module:
        """By number."""
        return self[self.names[k]]

    def take(self, active: int, gates: Tensor | None = None, probes: Sequence[int] = ()) -> None:
        """Run one candidate from now on, with echoes if there are gates to take them."""
        self.active, self.gates, self.probes, self.weights = active, gates, probes, None

    def blend(self, weights: Tensor) -> None:
        """Run all candidates from now on."""
        self.weights, self.gates = weights, None

    def forward(self, x: Any) -> Any:
        if self.weights is not None:
            return self.mixture(x, self.weights)
        y = self.candidate(self.active)(x)
        return y if self.gates is None else Echo.apply(self.gates, x, y, self)

    def mixture(self, x: Any, weights: Tensor) -> Any:
        """The weighted sum."""
        first, *others = (w * self.candidate(k)(x) for k, w in enumerate(weights))
        return sum(others, first)


class CellSlot(Slot):
    """The same for modules from the list of a network's branches to such a list.

    Args:
        kind, candidates: as in `Slot`.
        chained: every candidate gets what the one before it returned, instead of the slot's input.
    """

    def __init__(self, kind: str, candidates: Mapping[str, nn.Module], chained: bool = False) -> None:
        super().__init__(kind, candidates)
        self.chained = chained

    def mixture(self, x: list[Tensor], weights: Tensor) -> list[Tensor]:
        """The weighted sum, branch by branch."""
        mixed: list[Tensor] = []
        y = x
        for k, w in enumerate(weights):
            y = self.candidate(k)(y if self.chained else x)
            mixed = [m + w * b for m, b in zip(mixed, y, strict=True)] if mixed else [w * b for b in y]
        return mixed


def slots_of(net: nn.Module) -> dict[str, dict[str, Slot]]:
    """Kind -> name of the module -> slot, in the order of the network."""
    kinds: dict[str, dict[str, Slot]] = {}
    for name, module in net.named_modules():
        if isinstance(module, Slot):
            kinds.setdefault(module.kind, {})[name] = module
    return kinds
