"""Our networks as published files: the renaming of `Official` turned round by the names in golden/official_keys."""

import itertools
import re
from collections.abc import Mapping

from torch import Tensor

from derainzoo.models.checkpoints import officials
from golden import GOLDEN


def expand(line: str) -> list[str]:
    """`{0-2,tail}.weight` -> 0.weight, 1.weight, 2.weight, tail.weight."""

    def choices(braces: str) -> list[str]:
        parts = [re.fullmatch(r"(\d+)-(\d+)", part) or part for part in braces.split(",")]
        return [n for p in parts for n in ([p] if isinstance(p, str) else map(str, range(int(p[1]), int(p[2]) + 1)))]

    pieces = re.split(r"\{(.*?)\}", line)  # outside, inside, outside, ...
    return ["".join(p) for p in itertools.product(*(choices(p) if i % 2 else [p] for i, p in enumerate(pieces)))]


def as_published(system: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ours under its published names; a tensor that was published under several has them all."""
    rename = officials()[system].rename
    files = sorted(p for p in (GOLDEN / "official_keys").glob("*.txt") if p.stem.split("-")[0] == system)
    assert files, f"list the published names of {system} in tests/golden/official_keys/{system}.txt"
    missing: set[str] = set()
    for file in files:
        names = [key for line in file.read_text().splitlines() for key in expand(line)]
        published = {key: state[ours] for key in names if (ours := rename(key)) in state}
        missing = set(state) - {rename(key) for key in published}
        if not missing:
            return published
    raise AssertionError(f"{system}: no published name leads to {sorted(missing)[:5]}")
