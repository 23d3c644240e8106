"""Which samples a step trains on, and how large their patches are.

Everything follows from the number of the optimiser step: a run on other devices, with other workers, or resumed in the middle
sees the same samples in the same steps with the same crops. Patch and batch may change with the steps (progressive training);
only what a step uses is ever loaded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from derainzoo.errors import DerainzooError


class Draw(NamedTuple):
    """An order to the data set: which background, the how-manieth sample of the run this is, and how large."""

    scene: int
    ordinal: int
    patch: int


@dataclass(frozen=True)
class Stage:
    """From step `start` on: square patches of this side, this many backgrounds in a (global) batch."""

    start: int
    patch: int
    batch: int


def make_stages(patch: int, batch: int, progressive: Sequence[dict[str, int]] | None) -> list[Stage]:
    """One stage for the whole run, or the given ones: [{start: 0, patch: 128, batch: 64}, {start: 92000, ...}]."""
    if not progressive:
        return [Stage(0, patch, batch)]
    stages = [Stage(**stage) for stage in progressive]
    starts = [s.start for s in stages]
    if starts[0] != 0 or starts != sorted(set(starts)):
        raise DerainzooError(f"data.progressive must start at step 0 and go up, found starts {starts}")
    return stages


class StepSampler(Sampler[list[Draw]]):
    """Yields the micro-batches of one process, `accumulate` of them a step, from `start` on.

    Args:
        count: how many backgrounds there are; every pass over them is a permutation of its own.
        stages: patch and batch by step.
        steps: optimiser steps of the whole run.
        seed: of the permutations.
        rank, world: this process among all.
        accumulate: micro-batches a step.
        start: the first step (where a resumed run goes on).
    """

    def __init__(
        self,
        count: int,
        stages: Sequence[Stage],
        steps: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        start: int = 0,
    ) -> None:
        self.count, self.stages, self.steps, self.seed = count, list(stages), steps, seed
        self.rank, self.world, self.accumulate, self.start = rank, world, accumulate, start
        if not count:
            raise DerainzooError("there is nothing to train on: the training split is empty")
        for stage in self.stages:
            if stage.batch % (world * accumulate):
                raise DerainzooError(
                    f"a batch of {stage.batch} cannot be divided among {world} processes x {accumulate} accumulation steps"
                )

    def __len__(self) -> int:
        """Micro-batches of the whole run, those before `start` included: Lightning counts from the run's beginning."""
        return self.steps * self.accumulate

    def stage(self, step: int) -> Stage:
        """What step `step` uses."""
        return [s for s in self.stages if s.start <= step][-1]

    def drawn_before(self, step: int) -> int:
        """Samples drawn by all steps before `step`."""
        ends = [s.start for s in self.stages[1:]] + [step]
        return sum(max(0, min(end, step) - s.start) * s.batch for s, end in zip(self.stages, ends, strict=True))

    def __iter__(self) -> Iterator[list[Draw]]:
        ordinal = self.drawn_before(self.start)
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.steps):
            stage = self.stage(step)
            draws = []
            for _ in range(stage.batch):
                if ordinal // self.count != epoch:
                    epoch = ordinal // self.count
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
                draws.append(Draw(int(order[ordinal % self.count]), ordinal, stage.patch))
                ordinal += 1
            mine = draws[self.rank :: self.world]
            size = len(mine) // self.accumulate
            for part in range(self.accumulate):
                yield mine[part * size : (part + 1) * size]


class ShareSampler(Sampler[int]):
    """Every `world`-th index from `rank` on: each image is measured once, whatever the number of processes."""

    def __init__(self, count: int, rank: int = 0, world: int = 1) -> None:
        self.indices = range(rank, count, world)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
