"""A genotype: what an architecture search chose, in a small JSON file.

    genotype = Genotype.load("genotype.json")
    net = create_model(genotype.system, **genotype.model_arguments())

builds the network again, with random weights.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.files import write_text
from derainzoo.models import autoderain, manas

VERSION = 1
"""Of the file's layout; a file of a later one is refused."""


@dataclass(frozen=True)
class Genotype:
    """The architecture, and how it was found.

    Two genotypes of one architecture have one `hash`, however their choices were written: short forms are written out, and what
    is not said gets the network's default, so that a file keeps its meaning when defaults change.
    """

    system: str
    """Name of the registered network."""
    choices: Mapping[str, Any]
    """All arguments of that network, in full form."""
    seed: int | None = None
    """Of the search."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration and whatever else it wants to remember; plain JSON values."""

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise unknown_name("system of a genotype", self.system, SYSTEMS)
        object.__setattr__(self, "choices", SYSTEMS[self.system].complete(self.choices))

    def __hash__(self) -> int:
        return int(self.hash, 16)

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits of SHA-256 over the architecture alone.

        Hashed is the UTF-8 JSON of {"choices", "system"} with sorted keys and without blanks: the same in every process,
        on every machine, for every version of Python.
        """
        text = json.dumps({"system": self.system, "choices": self.choices}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def model_arguments(self) -> dict[str, Any]:
        """Keyword arguments for `create_model(genotype.system, ...)`; a copy, plain JSON values."""
        return json.loads(json.dumps(self.choices))

    def arguments_for(self, name: str, arguments: Mapping[str, Any], where: str = "genotype") -> dict[str, Any]:
        """Those of `model_arguments`, for a network that was configured as `name` with `arguments`.

        The genotype decides all of them; what was configured otherwise, and is no default either, is a contradiction.
        """
        if name != self.system:
            raise DerainzooError(f"{where} is of {self.system}, but the network is {name}; say model={self.system}")
        configured = Genotype(name, arguments).choices
        plain = {k: v for k, v in arguments.items() if k not in SYSTEMS[name].searched}
        # the default of what is searched has a form that follows from the rest: as many texts as there are blocks
        defaults = {k: Genotype(name, plain if k in SYSTEMS[name].searched else {}).choices[k] for k in configured}
        for key, value in configured.items():
            if value != self.choices[key] and value != defaults[key]:
                raise DerainzooError(
                    f"model.{key}={value} contradicts {where}, which has {self.choices[key]}; leave model.{key} out"
                )
        return self.model_arguments()

    def to_json(self) -> str:
        """The text of a genotype file. The hash in it is for the reader, and lets `from_json` notice a slip of an editor."""
        fields = {
            "version": VERSION,
            "system": self.system,
            "hash": self.hash,
            "choices": self.choices,
            "seed": self.seed,
            "search": self.search,
        }
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "genotype") -> "Genotype":
        """Read and check the text of a genotype file; `where` names it in errors."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise DerainzooError(f"{where}: expected a genotype in JSON, found a syntax error ({error})") from None
        missing = {"version", "system", "choices"} - set(fields if isinstance(fields, dict) else ())
        if missing:
            raise DerainzooError(
                f"{where}: expected a genotype (a JSON object), found none of the keys {', '.join(sorted(missing))}"
            )
        if fields["version"] != VERSION:
            raise DerainzooError(
                f"{where}: expected a genotype of version {VERSION}, found {fields['version']}; a newer derainzoo may read it"
            )
        genotype = cls(fields["system"], fields["choices"], fields.get("seed"), fields.get("search") or {})
        untold = set(genotype.choices) - set(fields["choices"])
        if untold:
            raise DerainzooError(f"{where}: expected all choices of {genotype.system}, found no {', '.join(sorted(untold))}")
        if fields.get("hash", genotype.hash) != genotype.hash:
            raise DerainzooError(
                f"{where}: its hash is {fields['hash']}, but its choices hash to {genotype.hash}; if it was edited on purpose, "
                "take the line with the hash out"
            )
        return genotype

    def save(self, path: str | Path) -> None:
        """Write a genotype file; it appears whole or not at all."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Genotype":
        """Read a genotype file."""
        if not Path(path).is_file():
            raise DerainzooError(f"expected a genotype file, found nothing at {path}")
        return cls.from_json(Path(path).read_text(encoding="utf-8"), str(path))

    @classmethod
    def random(
        cls, system: str, rng: np.random.Generator, candidates: Sequence[str] | None = None, **settings: Any
    ) -> "Genotype":
        """A uniform draw, the baseline that a search has to beat.

        Args:
            system: which search space.
            rng: where the draws come from.
            candidates: operations to draw from; all nine of manas, the six of autoderain that are searched by default.
            settings: arguments that are not drawn, such as `width`.
        """
        if system not in SYSTEMS:
            raise unknown_name("system of a genotype", system, SYSTEMS)
        choices = SYSTEMS[system].complete(settings)
        drawn = SYSTEMS[system].draw(rng, candidates, choices)
        return cls(system, choices | drawn | settings, search={"method": "random"})


KINDS: dict[str, type] = {"width": int, "stem": bool, "blocks": Sequence, "cells": str, "operations": Sequence}
"""What the arguments of networks have to be before they can be read any closer; a text is a sequence too."""


@dataclass(frozen=True)
class System:
    """What a genotype has to know of a network: its function, the full form of its choices, how to draw some."""

    network: Callable[..., Any]
    write_out: Callable[[dict[str, Any]], dict[str, Any]]
    draw: Callable[[np.random.Generator, Sequence[str] | None, Mapping[str, Any]], dict[str, Any]]
    searched: tuple[str, ...]
    """Arguments that a search decides."""

    def complete(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments in full form, checked."""
        defaults = {name: p.default for name, p in inspect.signature(self.network).parameters.items()}
        for name in choices:
            if name not in defaults:
                raise unknown_name(f"choice of {self.network.__name__}", name, defaults)
        arguments = defaults | dict(choices)
        for name, value in arguments.items():
            if not isinstance(value, KINDS[name]):
                expected = KINDS[name].__name__.replace("Sequence", "list")
                raise DerainzooError(f"{name} of {self.network.__name__}: expected {expected}, found {value!r}")
        return self.write_out(arguments)


def _write_out_manas(arguments: dict[str, Any]) -> dict[str, Any]:
    cells = manas.parse_cells(arguments["cells"])
    n = manas.CELLS_PER_STAGE
    return arguments | {
        "cells": " ".join(cells[i : i + n] for i in range(0, len(cells), n)),
        "operations": ["+".join(row) for row in manas.expand_operations(arguments["operations"])],
    }


def _draw_manas(rng: np.random.Generator, candidates: Sequence[str] | None, _: Mapping[str, Any]) -> dict[str, Any]:
    rows = rng.choice(list(candidates or manas.OPERATIONS), (sum(manas.STAGES), manas.EDGES))
    return {
        "cells": "".join(rng.choice(["P", "F"], manas.CELLS_PER_STAGE * len(manas.STAGES))),
        "operations": ["+".join(row) for row in rows],
    }


def _write_out_autoderain(arguments: dict[str, Any]) -> dict[str, Any]:
    rows = autoderain.expand_operations(arguments["operations"], arguments["blocks"])
    return arguments | {"blocks": list(arguments["blocks"]), "operations": ["+".join(row) for row in rows]}


def _draw_autoderain(
    rng: np.random.Generator, candidates: Sequence[str] | None, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    names = list(candidates or autoderain.SEARCHED)
    slots = [list(autoderain.ATTENTIONS) if slot == "se" else names for slot in autoderain.SLOTS]
    count = autoderain.count_blocks(arguments["blocks"])
    return {"operations": ["+".join(rng.choice(candidates) for candidates in slots) for _ in range(count)]}


SYSTEMS = {
    "manas": System(manas.manas, _write_out_manas, _draw_manas, ("cells", "operations")),
    "autoderain": System(autoderain.autoderain, _write_out_autoderain, _draw_autoderain, ("operations",)),
}
