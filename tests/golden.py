"""The deterministic weight fill under which the official networks' outputs were recorded (tests/golden/README.md)."""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
Shape = tuple[int, ...]


def read_shapes(table: Path) -> dict[str, Shape]:
    """A table of `key <tab> shape` lines with a header, shapes written as 48x3x3x3."""
    rows = [line.split("\t") for line in table.read_text().splitlines()[1:] if line and not line.startswith("#")]
    return {row[0]: tuple(int(n) for n in row[1].split("x") if n) for row in rows}


def fill(
    shapes: Mapping[str, Shape],
    near_one: Callable[[str], bool] = lambda key: False,
    float64_factor: bool = False,
) -> dict[str, Tensor]:
    """A tensor for every key, drawn from the key's own name.

    `near_one` names keys of two or more dimensions that get 1 + 0.1 x (temperatures and the like); `float64_factor` forms the
    product with the fan-in factor in float64 before rounding, as one of the recordings did.
    """
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.long)
            continue
        x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
        if key.endswith("running_var"):
            x = 1 + np.float32(0.1) * np.abs(x)
        elif len(shape) <= 1:
            x = np.float32(0.1) * x + (1 if key.endswith("weight") else 0)
        elif near_one(key):
            x = 1 + np.float32(0.1) * x
        else:
            factor = np.sqrt(1 / np.prod(shape[1:]))
            x = x * (factor if float64_factor else np.float32(factor))
        state[key] = torch.from_numpy(np.asarray(x, dtype=np.float32))
    return state
