"""Pictures to try the page with: photographs that ship with the package, in rain that nobody trained on."""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np

from derainzoo.data.rain import RainSynthesiser
from derainzoo.data.synthetic import BACKGROUNDS, embedded_manifest
from derainzoo.images import read_image

# photographs of the validation and test splits, and how hard it rains on them
_RAIN = {"dogs-0": "heavy", "mountains-0": "heavy", "autumn-0": "medium", "mountains-2": "heavy"}


@dataclass(frozen=True)
class Example:
    """What the page says about one of them; licences that ask for it get their author named."""

    name: str
    author: str
    licence: str


@cache
def examples() -> dict[str, Example]:
    """By name, in the order of the page."""
    shipped = {entry.file.removesuffix(".webp"): entry for entry in embedded_manifest()}
    return {name: Example(name, shipped[name].author, shipped[name].licence) for name in _RAIN}


@cache
def rainy_png(name: str) -> bytes:
    """One of `examples` in its rain, the same at every start."""
    from PIL import Image

    clean = read_image(BACKGROUNDS / f"{name}.webp")
    rainy = RainSynthesiser(_RAIN[name])(clean, np.random.default_rng((7, 0)))
    file = io.BytesIO()
    Image.fromarray(rainy).save(file, "PNG")
    return file.getvalue()
