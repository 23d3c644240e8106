"""How large a tile may be: what a network needs for a pixel, and what memory is free."""

import copy
import logging
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

log = logging.getLogger(__name__)

HEADROOM = 2
"""What convolutions borrow to work comes on top of the tensors that are counted: measured, 1.0 to 1.8 times these in all."""

CPU_BUDGET = 2304 * 2**20
"""Bytes for one pass on a CPU at most: enough for elf_lw on a whole 1080p frame; larger tiles are no faster."""

_UNKNOWN = 4000  # bytes a pixel, for networks that cannot be counted


class LiveBytes(TorchDispatchMode):
    """Adds up the tensors that operators make, from when they are made until nobody holds them any more."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if (key := storage._cdata) not in self.known:  # views share their storage
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    self.known[key] = weakref.finalize(storage, self._forget, key, storage.nbytes())
        return made

    def _forget(self, key: int, size: int) -> None:
        del self.known[key]
        self.now -= size


def bytes_per_pixel(net: nn.Module) -> float:
    """What the tensors of one pass need at their peak, in float32, by a pass of tensors without memory behind them."""
    # a multiple of what networks pad to; what does not grow with the area, as matrices of channels, hardly counts at this size
    side = 512
    try:
        shadow = copy.deepcopy(net).to("meta").eval()
        with torch.no_grad(), LiveBytes() as live:
            shadow(torch.empty(1, 3, side, side, device="meta"))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        log.debug("cannot count the memory of %s: %s", type(net).__name__, error)
        return _UNKNOWN
    return live.peak / side**2


def free_memory(device: torch.device) -> int:
    """Bytes that one pass may take on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.8 * (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)))
    return min(CPU_BUDGET, _free_main_memory() // 2)


def _free_main_memory() -> int:
    """What the machine has, and what the container that we may be in is allowed."""
    limits = []
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # no such file, or no number but `max`
        group = Path("/sys/fs/cgroup")
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(min(limits, default=8 * 2**30), 0)


def largest_tile(needed: float, free: int, height: int, width: int) -> int | None:
    """The side of the largest tile that fits into memory; None if the whole picture does.

    In steps of 64, so that a little more or less free memory does not change the picture.
    """
    area = free / needed
    if height * width <= area:
        return None
    return max(64, int(math.sqrt(area)) // 64 * 64)
