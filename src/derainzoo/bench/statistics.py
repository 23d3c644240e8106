"""Is one network better than another on these pictures? Paired by picture, because pictures differ far more than networks do.

    compare(values_a, values_b)      # of the same pictures, in the same order

Pictures of one scene (its light, medium and heavy rain) are no independent witnesses: given `scenes`, whole scenes are drawn
for the interval, and a scene counts once in the sign test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from derainzoo.errors import DerainzooError

_ROWS = 4_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class Paired:
    """Differences a - b over the pictures where both have a finite value."""

    images: int
    scenes: int
    left_out: int
    """Pictures where one of the two is infinite (equal to its target) or does not exist."""
    mean: float
    low: float
    high: float
    """Of the interval that covers the mean difference with probability `level`, by bootstrap percentiles."""
    level: float
    wins: int
    """Scenes where a is larger."""
    losses: int
    ties: int
    p_value: float
    """Two-sided sign test: how often wins and losses are so uneven if neither network is better."""


def compare(
    a: Sequence[float],
    b: Sequence[float],
    scenes: Sequence[str] | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Paired:
    """The difference between two networks.

    Args:
        a, b: a value for each picture, of the same pictures in the same order.
        scenes: which pictures show the same scene; by default each shows its own.
        resamples: bootstrap draws.
        level: of the interval.
        seed: of the draws.
    """
    if len(a) != len(b) or (scenes is not None and len(scenes) != len(a)):
        raise DerainzooError(f"paired values expected, found {len(a)} and {len(b)}; measure both on the same pictures")
    differences = np.subtract(a, b, dtype=np.float64, where=np.isfinite(a) & np.isfinite(b), out=np.full(len(a), np.nan))
    usable = np.isfinite(differences)
    if not usable.any():
        raise DerainzooError("no picture has a finite value of both")
    names = np.arange(len(a)) if scenes is None else np.asarray(scenes)
    _, of_scene = np.unique(names[usable], return_inverse=True)
    sums, counts = np.bincount(of_scene, differences[usable]), np.bincount(of_scene)
    low, high = bootstrap(sums, counts, resamples, level, seed)
    wins, losses = int((sums > 0).sum()), int((sums < 0).sum())
    return Paired(
        images=int(usable.sum()),
        scenes=len(sums),
        left_out=int((~usable).sum()),
        mean=float(differences[usable].mean()),
        low=low,
        high=high,
        level=level,
        wins=wins,
        losses=losses,
        ties=len(sums) - wins - losses,
        p_value=sign_test(wins, losses),
    )


def bootstrap(sums: NDArray, counts: NDArray, resamples: int, level: float, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean over pictures, when scenes (sum and count of their pictures) are drawn anew."""
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _ROWS // len(sums))
    for start in range(0, resamples, step):
        drawn = rng.integers(len(sums), size=(min(step, resamples - start), len(sums)))
        means[start : start + step] = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided and exact: twice the binomial probability of the smaller number or less, ties left aside."""
    n = wins + losses
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)
