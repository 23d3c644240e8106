"""Weights of unknown origin -> one of our networks: unwrap, recognise, derive the arguments from shapes, rename strictly.

Nothing here unpickles code: `.safetensors`, and `torch.load(weights_only=True)` for the rest. Every tensor of a file is used or
is named as dead weight; a tensor left over, missing or of another shape is an error that names it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Official:
    """How the published state dict of one system maps onto our network. Stands at the end of that network's file."""

    signature: tuple[str, ...]
    """Keys that are all present in the system's files and not all in any other's."""
    infer: Callable[[Shapes], tuple[str, dict[str, object]]]
    """Shapes -> name of a registered network and its arguments."""
    rules: tuple[tuple[str, str], ...]
    """Substitutions (regular expression, replacement), all applied in order to every key."""
    dead: tuple[str, ...] = ()
    """Regular expressions of published keys that may be left over because nothing ever reads them."""

    def rename(self, key: str) -> str:
        """The key in our network."""
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key

    def translate(self, state: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Rename a whole state dict against our network's own; returns it and the dead keys.

        Where one tensor was published under several keys the last one counts, as it does when such a file is loaded.
        """
        renamed: dict[str, Tensor] = {}
        dead: list[str] = []
        for key, tensor in state.items():
            ours = self.rename(key)
            if ours in known:
                renamed[ours] = tensor
            elif any(re.search(pattern, key) for pattern in self.dead):
                dead.append(key)
            else:
                renamed[ours] = tensor  # left for the strict comparison to name
        return renamed, dead
