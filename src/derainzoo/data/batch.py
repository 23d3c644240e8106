"""What passes from the data to the networks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    """One background with its rainy versions, 8- or 16-bit, channels first."""

    input: Tensor
    """(versions, 3, H, W)"""
    target: Tensor
    """(3, H, W)"""
    name: str


class Batch(NamedTuple):
    """`input` row `i * versions + k` is rainy version `k` of background `i`; `target` has a row a background."""

    input: Tensor
    target: Tensor
    names: list[str]
    versions: int


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples, still as integers: a quarter of the bytes of floats on the way to the device."""
    return Batch(
        torch.cat([s.input for s in samples]),
        torch.stack([s.target for s in samples]),
        [s.name for s in samples],
        len(samples[0].input),
    )


def to_float(x: Tensor) -> Tensor:
    """8- or 16-bit integers to [0, 1]."""
    return x.float() / (255 if x.dtype == torch.uint8 else 65535)
