"""Optimisers by name, and learning-rate schedules as functions of the step."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from derainzoo.errors import DerainzooError, unknown_name

Factor = Callable[[int], float]


def make_optimizer(parameters: Iterable[nn.Parameter], name: str, **settings: Any) -> torch.optim.Optimizer:
    """`adam`, `adamw`, `sgd` and their like are torch's; any other name is looked up in timm (`lion`, `adan`, `lamb`, ...)."""
    own = {n.lower(): c for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)}
    own.pop("optimizer")
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    try:
        if name.lower() in own:
            return own[name.lower()](parameters, **settings)
        from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]

        more = [str(n) for n in list_optimizers()]
        if name not in more:
            raise unknown_name("optimiser", name, {*own, *more})
        return create_optimizer_v2(list(parameters), opt=name, **settings)
    except TypeError as error:
        raise DerainzooError(f"optimiser '{name}' does not take these settings: {error}") from None


def constant(warmup: int = 0) -> Factor:
    """One, after a linear warm-up."""
    return lambda step: min(1.0, (step + 1) / warmup) if warmup else 1.0


def cosine(total: int, floor: float, warmup: int = 0, hold: int = 0, every: int = 1) -> Factor:
    """Linear warm-up, then the full rate until step `hold`, then half a cosine down to `floor` (a factor) at step `total`.

    `every` makes stairs of that many steps: schedules that papers give by epoch change only between epochs.
    """

    def factor(step: int) -> float:
        step = step // every * every
        if step < warmup:
            return (step // every + 1) * every / warmup
        start = max(hold, warmup)
        if step <= start:
            return 1.0
        return floor + (1 - floor) / 2 * (1 + math.cos(math.pi * min(1.0, (step - start) / max(1, total - start))))

    return factor


def step(every: int, gamma: float) -> Factor:
    """Times `gamma` every `every` steps."""
    return lambda at: gamma ** (at // every)


def multistep(milestones: list[int], gamma: float) -> Factor:
    """Times `gamma` at each milestone."""
    return lambda at: gamma ** sum(at >= m for m in milestones)


SCHEDULES: dict[str, Callable[..., Factor]] = {"constant": constant, "cosine": cosine, "step": step, "multistep": multistep}


def make_schedule(optimizer: torch.optim.Optimizer, name: str, **settings: Any) -> torch.optim.lr_scheduler.LambdaLR:
    """A schedule by name; it is stepped after every optimiser step."""
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    try:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, SCHEDULES[name](**settings))
    except TypeError as error:
        raise DerainzooError(f"schedule '{name}' does not take these settings: {error}") from None


def named(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split {"name": ..., settings} as the configuration writes it."""
    rest = {k: v for k, v in settings.items() if k != "name"}
    return settings["name"], rest
