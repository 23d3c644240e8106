"""How choices are searched: the continuous variables of a supernet's slots, where their gradients come from, how they step.

One row of `alphas` a slot, one column a candidate. Two families:

**Proximal** ("MDARTS-style"). Alphas lie in [0, 1]; what runs is always one path, that of the largest ones. A step takes the
gradient at this one-hot point, that of the gates (see `slots`), accumulates it in the alphas, and projects:

    gates = prox_1(alphas)                                    the largest of each row becomes one, the others zero
    alphas <- prox_2(alphas - lr (u + complexity * cost))     u: the gates' gradient on one scale a slot; prox_2: clip to [0, 1]

All that is known of MDARTS, the abstract of its paper, says "proximal gradient" and "memory of one network". Which candidates
get a gradient is open, hence the readings:

    echo    all, found one at a time in backward        NASP's gradient in the memory of one network (default)
    active  the active one alone                        the plainest reading; nearly blind once weights have converged
    pair    the active one and another drawn at random  less work than echo, more noise
    nasp    all, in one graph                           as NASP's released code; the memory of DARTS

**Relaxed** (DARTS, MANAS). Every slot runs the mixture of all its candidates under the softmax of its row.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from derainzoo.errors import unknown_name
from derainzoo.losses.many_to_one import architecture_entropy
from derainzoo.nas.slots import Slot, slots_of

NOISE = 1e-3
"""Standard deviation of the first alphas: they differ, but by nothing that a step would not outdo."""
READINGS = ("echo", "active", "pair", "nasp")

Choices = Mapping[str, Tensor]
"""Kind of slot -> number of a candidate for each slot."""


class Architecture(nn.Module, ABC):
    """The alphas of a supernet; sets up its slots for each kind of step.

    A step of the alphas is `probe`, forward, backward, `collect`, the optimiser's step, `project`; `settle` then sets the slots
    for the weights. Every random decision follows from (seed, step): processes agree, and resuming needs no generator's state.

    Args:
        net: a supernet.
        costs: kind -> (slots, candidates).
        seed: of the first alphas and of all draws.
        start: where the alphas begin.
    """

    rate: float
    """Learning rate of the alphas unless another is asked for."""

    def __init__(self, net: nn.Module, costs: Mapping[str, Tensor], seed: int, start: float) -> None:
        super().__init__()
        self.slots = slots_of(net)  # in plain dictionaries, so that they stay modules of the network alone
        self.order = [name for name, module in net.named_modules() if isinstance(module, Slot)]
        self.costs = dict(costs)
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        self.alphas = nn.ParameterDict()
        for kind, slots in self.slots.items():
            noise = torch.randn(len(slots), len(self.candidates(kind)), generator=generator)
            self.alphas[kind] = nn.Parameter(start + NOISE * noise)

    def candidates(self, kind: str) -> list[str]:
        """Names of the columns of `alphas[kind]`."""
        return next(iter(self.slots[kind].values())).names

    def rows(self) -> Iterator[tuple[str, int, Slot]]:
        """Kind, row and module of each slot."""
        for kind, slots in self.slots.items():
            for row, slot in enumerate(slots.values()):
                yield kind, row, slot

    def chosen(self, choices: Choices | None = None) -> dict[str, str]:
        """Name of each slot -> name of its candidate, in the order of the network."""
        choices = self.choices() if choices is None else choices
        names = {
            name: slot.names[int(k)]
            for kind, slots in self.slots.items()
            for (name, slot), k in zip(slots.items(), choices[kind], strict=True)
        }
        return {name: names[name] for name in self.order}

    @abstractmethod
    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """That of the alphas."""

    @abstractmethod
    def choices(self) -> dict[str, Tensor]:
        """What would be kept if the search ended now."""

    @abstractmethod
    def explore(self, step: int) -> None:
        """Set the slots for a step of the weights during warm-up, which is to teach all candidates alike."""

    @abstractmethod
    def probe(self, step: int) -> None:
        """Set the slots for a step of the alphas."""

    @abstractmethod
    def settle(self) -> None:
        """Set the slots for a step of the weights after warm-up, and for validation."""

    def terms(self) -> dict[str, tuple[float, Tensor]]:
        """What the loss of the alphas has besides restoration: name -> weight and value."""
        return {}

    def collect(self) -> None:
        """After backward: see to it that the alphas have their gradients."""

    def project(self, lr: float) -> None:
        """After the optimiser's step."""


class SlotNormalised(torch.optim.Optimizer):
    """Momentum on gradients that are divided by one running scale for each row.

    Adam has a scale for every entry, and so forgets which candidate of a slot gains most: with it, several climb to the bound
    alike, and the choice between them is luck.

    Args:
        params: matrices with a row a slot.
        lr: the step of an entry whose gradient is as large as is usual in its slot.
        momentum, decay: of the running means of the gradient and of its square.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.5, decay: float = 0.99) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step for every matrix with a gradient."""
        for group in self.param_groups:
            lr, momentum, decay = group["lr"], group["momentum"], group["decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state |= {"step": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p[:, :1])}
                state["step"] += 1
                mean = state["mean"].lerp_(p.grad, 1 - momentum)
                square = state["square"].lerp_(p.grad.square().mean(1, keepdim=True), 1 - decay)
                scale = (square / (1 - decay ** state["step"])).sqrt() + 1e-12
                p.sub_(lr * mean / (1 - momentum ** state["step"]) / scale)


class Proximal(Architecture):
    """One path, the alphas' gradient at it, two projections: MDARTS-style and NASP.

    Args:
        net, costs, seed: as in `Architecture`.
        reading: one of `READINGS`.
        complexity: how strongly cost pulls, in units of a slot's usual gradient. NASP's own term falls on the active candidate
            alone, whatever the others cost, which drives slots round in circles; ours is the linear cost, felt by all.
    """

    rate = 0.01

    def __init__(
        self, net: nn.Module, costs: Mapping[str, Tensor], seed: int, reading: str = "echo", complexity: float = 0.0
    ) -> None:
        super().__init__(net, costs, seed, start=0.5)
        if reading not in READINGS:
            raise unknown_name("reading of MDARTS", reading, READINGS)
        self.reading, self.complexity = reading, complexity
        self.gates: dict[str, Tensor] = {}
        for kind, alpha in self.alphas.items():
            self.register_buffer(f"active_{kind}", alpha.detach().argmax(1))
        self.settle()

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        return SlotNormalised(self.alphas.values(), lr)

    def choices(self) -> dict[str, Tensor]:
        return {kind: self.get_buffer(f"active_{kind}") for kind in self.alphas}

    def explore(self, step: int) -> None:
        rng = np.random.default_rng((self.seed, step))
        for _, _, slot in self.rows():
            slot.take(int(rng.integers(len(slot.names))))

    def settle(self) -> None:
        active = {kind: chosen.tolist() for kind, chosen in self.choices().items()}
        for kind, row, slot in self.rows():
            slot.take(active[kind][row])

    def probe(self, step: int) -> None:
        self.settle()
        self.gates = {
            kind: nn.functional.one_hot(chosen, self.alphas[kind].shape[1]).to(self.alphas[kind].dtype).requires_grad_()
            for kind, chosen in self.choices().items()
        }
        rng = np.random.default_rng((self.seed, step))
        for kind, row, slot in self.rows():
            gates, count = self.gates[kind][row], len(slot.names)
            if self.reading == "nasp":
                slot.blend(gates)
            else:
                other = (slot.active + 1 + int(rng.integers(count - 1))) % count
                probes = {"echo": range(count), "active": [slot.active], "pair": [slot.active, other]}
                slot.take(slot.active, gates, probes[self.reading])

    @torch.no_grad()
    def collect(self) -> None:
        """Only differences within a slot matter, so gradients are centred there, over the candidates that were probed."""
        for kind, alpha in self.alphas.items():
            alpha.grad = self.gates[kind].grad
        for kind, row, slot in self.rows():
            probed = list(range(len(slot.names))) if self.reading == "nasp" else list(slot.probes)
            gradient = self.alphas[kind].grad
            if len(probed) > 1 and gradient is not None:
                gradient[row, probed] -= gradient[row, probed].mean()

    @torch.no_grad()
    def project(self, lr: float) -> None:
        """The proximal steps of cost and box, then of the one-hot set: the largest alpha, in a tie the one that was active."""
        for kind, alpha in self.alphas.items():
            cost = self.costs[kind].to(alpha)
            alpha.sub_(lr * self.complexity * (cost - cost.mean(1, keepdim=True))).clamp_(0, 1)
            active = self.get_buffer(f"active_{kind}")
            holds = alpha.gather(1, active[:, None])[:, 0] >= alpha.amax(1)
            active.copy_(torch.where(holds, active, alpha.argmax(1)))


class Relaxed(Architecture):
    """Mixtures of all candidates: DARTS, and MANAS with its two regularisers.

    Args:
        net, costs, seed: as in `Architecture`.
        complexity: weight of the expected cost in the loss of the alphas.
        entropy: weight of the mean entropy of the decisions of each kind, which asks for decisions.
        raw: kinds whose mixture takes the alphas as they are, without a softmax (the published MANAS's edges).
    """

    rate = 3e-4

    def __init__(
        self,
        net: nn.Module,
        costs: Mapping[str, Tensor],
        seed: int,
        complexity: float = 0.0,
        entropy: float = 0.0,
        raw: tuple[str, ...] = (),
    ) -> None:
        super().__init__(net, costs, seed, start=0.0)
        self.complexity, self.entropy, self.raw = complexity, entropy, raw
        self.settle()

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Adam with DARTS's settings, which are MANAS's too."""
        return torch.optim.Adam(self.alphas.values(), lr, betas=(0.5, 0.999), weight_decay=1e-3)

    def choices(self) -> dict[str, Tensor]:
        return {kind: alpha.detach().argmax(1) for kind, alpha in self.alphas.items()}

    def _blend(self, alphas: Mapping[str, Tensor]) -> None:
        weights = {kind: a if kind in self.raw else a.softmax(1) for kind, a in alphas.items()}
        for kind, row, slot in self.rows():
            slot.blend(weights[kind][row])

    def explore(self, step: int) -> None:
        self.settle()

    def settle(self) -> None:
        self._blend({kind: alpha.detach() for kind, alpha in self.alphas.items()})

    def probe(self, step: int) -> None:
        for alpha in self.alphas.values():
            alpha.grad = None
        self._blend(dict(self.alphas.items()))

    def terms(self) -> dict[str, tuple[float, Tensor]]:
        expected = [(alpha.softmax(1) * self.costs[kind].to(alpha)).sum(1).mean() for kind, alpha in self.alphas.items()]
        terms = {"complexity": (self.complexity, torch.stack(expected).sum())}
        return terms | {f"entropy_{kind}": (self.entropy, architecture_entropy(alpha)) for kind, alpha in self.alphas.items()}
