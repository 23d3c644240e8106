"""Trained weights that come with the package: `NETWORK.WHAT_IT_WAS_TRAINED_FOR`, as in `elf_lw.rain100l`.

Such a name stands wherever a file of weights can. `weights/manifest.json` says of each what it was trained on, for how long, on
what hardware, from which revision of the code, how well it does by which protocol, and under which terms it may be used.

Importing this module is cheap: it does not need torch.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derainzoo.errors import DerainzooError

FOLDER = Path(__file__).resolve().parents[1] / "weights"


@dataclass(frozen=True)
class Shipped:
    """One file of the package."""

    name: str
    model: str
    """The registered network."""
    file: str
    sha256: str
    facts: dict[str, Any]
    """Data, budget, hardware, revision, metrics, licence, limits: all that the manifest says."""

    @property
    def path(self) -> Path:
        """The file, once its content is what the manifest says."""
        path = FOLDER / self.file
        if not path.is_file():
            raise DerainzooError(f"the weights {self.name} belong at {path}, but there is nothing; install derainzoo again")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise DerainzooError(
                f"{path}: expected sha256 {self.sha256[:12]}..., found {found[:12]}...; the file was changed or damaged, "
                "install derainzoo again"
            )
        return path


@functools.cache
def _manifest() -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def shipped() -> dict[str, Shipped]:
    """All weights of the package, by name."""
    return {
        name: Shipped(name, facts["model"], facts["file"], facts["sha256"], facts)
        for name, facts in _manifest()["weights"].items()
    }


def default(model: str | None = None, arguments: Mapping[str, Any] | None = None) -> str | None:
    """The weights to take when none are named: those for unknown rain, or for a network the first in the manifest.

    For a network with arguments of its own there are none.
    """
    if arguments:
        return None
    if model is None:
        name: str | None = _manifest()["default"]
        return name
    return next((name for name, weights in shipped().items() if weights.model == model), None)


def locate(weights: str | Path) -> Path:
    """The file that is meant by a path or by a name of `shipped`; a file in the working directory goes before a name."""
    path = Path(weights)
    known = shipped()
    return known[str(weights)].path if str(weights) in known and not path.exists() else path
