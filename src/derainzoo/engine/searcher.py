"""The Lightning module that searches: a supernet's weights and its choices, step by step in turn."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from derainzoo.data.batch import Batch
from derainzoo.engine.optim import make_optimizer, make_schedule, named
from derainzoo.engine.restorer import Restorer
from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.nas.architecture import READINGS, Architecture, Proximal, Relaxed
from derainzoo.nas.genotype import Genotype
from derainzoo.nas.history import History
from derainzoo.nas.spaces import SPACES, AutoDerainSpace, ManasSpace, Space

log = logging.getLogger(__name__)

RECORDS = 100
"""About how many records of the choices a search leaves: as many as a chart can show."""


def make_space(system: str, arguments: Mapping[str, Any], search: Mapping[str, Any]) -> Space:
    """What is searched over."""
    if system == "autoderain":
        return AutoDerainSpace(arguments, search["candidates"])
    if system == "manas":
        if search["mode"] not in ("fixed", "faithful"):
            raise unknown_name("search.mode", search["mode"], ["fixed", "faithful"])
        return ManasSpace(arguments, published=search["mode"] == "faithful")
    raise unknown_name("network to search (model)", system, SPACES)


def make_architecture(space: Space, net: nn.Module, search: Mapping[str, Any], seed: int) -> Architecture:
    """How it is searched."""
    method, costs = search["method"], space.costs(net)
    if isinstance(space, ManasSpace) and method != "darts":
        raise DerainzooError(f"manas is searched with search.method=darts (its cells have no echo), found {method}")
    if method in READINGS:
        return Proximal(net, costs, seed, method, search["complexity"])
    if method != "darts":
        raise unknown_name("search.method", method, [*READINGS, "darts"])
    raw = ("edge",) if isinstance(space, ManasSpace) and space.published else ()
    return Relaxed(net, costs, seed, search["complexity"], search["entropy"], raw)


class Searcher(Restorer):
    """Warm-up (weights alone), search (alphas, then weights), freeze (weights alone, at the choices made).

    Validation measures what the weights are being trained for: the chosen path, or the mixture.

    Args:
        model: {"name", "arguments"}; arguments that are searched for do not count.
        search: {"method", "candidates", "warmup", "freeze", "every", ...} as in `conf/search`.
        seed: of the first alphas and of every path that is drawn.
        steps: of the whole search, in weight steps.
        clip: largest norm of the weights' gradient.
        loss, optim, scheduler, protocols, channels_last: as in `Restorer`; the loss is that of weights and alphas.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        search: Mapping[str, Any],
        seed: int,
        steps: int,
        loss: Mapping[str, Mapping[str, Any]],
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        protocols: Sequence[str],
        channels_last: bool = True,
        clip: float | None = None,
    ) -> None:
        super().__init__(model, loss, optim, scheduler, protocols, channels_last)
        self.automatic_optimization = False
        self.architecture = make_architecture(self.space, self.net, search, seed)
        self.history = History(self.architecture)
        self.rate = search["alpha_lr"] or self.architecture.rate
        self.every, self.steps, self.clip = search["every"], steps, clip
        self.begins, self.ends = round(search["warmup"] * steps), steps - round(search["freeze"] * steps)
        if not 0 <= self.begins < self.ends:
            raise DerainzooError(
                f"search.warmup={search['warmup']} and search.freeze={search['freeze']} are shares of {steps} steps, and leave "
                "none to search in"
            )
        self.recorded_every = max(1, (self.ends - self.begins) // RECORDS)

    def make_network(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        self.space = make_space(name, arguments, self.hparams["search"])
        return self.space.supernet()

    def configure_optimizers(self) -> Any:
        """The weights' first: it is the one that Lightning counts steps of."""
        name, settings = named(self.hparams["optim"])
        weights = make_optimizer(self.net.parameters(), name, **settings)
        name, settings = named(self.hparams["scheduler"])
        return [weights, self.architecture.optimizer(self.rate)], [make_schedule(weights, name, **settings)]

    def phase(self, step: int) -> str:
        """Of a weight step, counted from 0."""
        return "warm-up" if step < self.begins else "search" if step < self.ends else "freeze"

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> None:  # type: ignore[override]
        step = self.global_step
        phase = self.phase(step)
        if step in (0, self.begins, self.ends):
            log.info("step %d: %s", step, phase)
            self.check_agreement()
        if phase == "search" and (step - self.begins) % self.every == 0:
            self._step_alphas(batch["alphas"], step)
        if phase == "warm-up":
            self.architecture.explore(step)
        else:
            self.architecture.settle()
        self._step_weights(batch["weights"])
        if phase == "search":
            self.history.watch()
            if (step + 1 - self.begins) % self.recorded_every == 0 or step + 1 == self.ends:
                figures = self.history.record(step + 1)
                self.log_dict({f"search/{name}": value for name, value in figures.items()})
                self.check_agreement()

    def _loss(self, batch: Batch, prefix: str) -> Tensor:
        total, terms = self.lost(batch)
        self.log_dict({f"{prefix}/loss_{label}": value for label, value in terms.items()})
        return total

    def _step_alphas(self, batch: Batch, step: int) -> None:
        """The weights are constants here: none gets a gradient. Batch normalisation uses, and keeps, its running statistics."""
        optimizer = self._optimizers()[1]
        self.net.requires_grad_(False).eval()
        self.architecture.probe(step)
        total = self._loss(batch, "alphas")
        for name, (weight, value) in self.architecture.terms().items():
            total = total + weight * value
            self.log(f"alphas/loss_{name}", value)
        self.manual_backward(total)
        self.architecture.collect()
        self.net.requires_grad_(True).train()
        average([alpha.grad for alpha in self.architecture.alphas.values()])
        optimizer.step()
        self.architecture.project(self.rate)
        self.log("alphas/loss", total.detach())

    def _step_weights(self, batch: Batch) -> None:
        """Only what the path or the mixture used has a gradient; the rest stays as it is, without even an optimiser's state."""
        optimizer = self.optimizers()[0]  # type: ignore[index]
        optimizer.zero_grad(set_to_none=True)
        total = self._loss(batch, "train")
        self.manual_backward(total)
        # running statistics travel with the gradients: all processes evaluate, and save, the same network
        average([p.grad for p in self.net.parameters()] + [b for b in self.net.buffers() if b.is_floating_point()])
        if self.clip:
            nn.utils.clip_grad_norm_([p for p in self.net.parameters() if p.grad is not None], self.clip)
        optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        self.log("train/loss", total.detach(), prog_bar=True)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return self.optimizers(use_pl_optimizer=False)  # type: ignore[return-value]

    def on_validation_start(self) -> None:
        """The last training step may have left a random path."""
        self.architecture.settle()

    def check_agreement(self) -> None:
        """Raise if the processes hold different weights, alphas or paths: from then on they would search apart."""
        if _processes() == 1:
            return
        digest = hashlib.sha256(repr([slot.active for _, _, slot in self.architecture.rows()]).encode())
        for tensor in self.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        found: list[str] = [""] * _processes()
        dist.all_gather_object(found, digest.hexdigest())
        if len(set(found)) > 1:
            raise RuntimeError(f"step {self.global_step}: the processes of this search have come apart: {found}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Alphas and optimisers are in Lightning's part; phase, paths and the order of samples follow from the step."""
        checkpoint["history"] = self.history.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history.load_state_dict(checkpoint["history"])

    def genotype(self, longest: bool = False, **search: Any) -> Genotype:
        """What the search chose: in the end, or for the `longest` of its last part."""
        chosen = self.architecture.chosen(self.history.longest_active() if longest else None)
        return self.space.genotype(chosen, self.hparams["seed"], **search)


class SearchStrategy(DDPStrategy):
    """Several processes without DistributedDataParallel around the network.

    DDP would reduce the gradients of the whole supernet at every step, used or not, and keep buffers for them. The searcher
    averages what a step has used, in one piece.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is."""


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def average(tensors: Sequence[Tensor | None]) -> None:
    """Replace tensors by their means over all processes, in one exchange; all must have None at the same places."""
    present = [t for t in tensors if t is not None]
    if _processes() == 1 or not present:
        return
    flat = torch.cat([t.detach().reshape(-1) for t in present])
    dist.all_reduce(flat)
    flat /= _processes()
    for tensor, mean in zip(present, flat.split([t.numel() for t in present]), strict=True):
        tensor.detach().copy_(mean.view(tensor.shape))
