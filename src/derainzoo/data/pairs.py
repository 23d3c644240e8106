"""Rainy images with their backgrounds, read as patches or whole, from files or synthesised."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from derainzoo.data.batch import Sample
from derainzoo.data.layouts import Pair
from derainzoo.data.rain import RainSynthesiser
from derainzoo.data.schedule import Draw
from derainzoo.data.stores import Store, Window
from derainzoo.data.transforms import JointGeometry
from derainzoo.errors import DerainzooError

Pixels = NDArray[Any]
DENSITIES = ("light", "medium", "heavy")


class Source(Protocol):
    """Scenes by index: `versions` rainy images and the background of each."""

    names: list[str]
    """Unique, stable; keys of per-image results."""
    backgrounds: list[str]

    def read(self, index: int, patch: int | None, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Rainy (versions, H, W, 3) and clean (H, W, 3); a random patch of that side, or whole images for None."""

    def files(self) -> list[tuple[str, Path]]:
        """Every file that is read, with the name of the pair that it belongs to."""


def files_of(pairs: Iterable[Pair]) -> list[tuple[str, Path]]:
    """Every file of these pairs, with the name of the pair."""
    return [(p.name, file) for p in pairs for file in (p.rainy, p.clean) if file is not None]


def random_window(size: tuple[int, int], patch: int, rng: np.random.Generator) -> Window:
    """A window inside the image; an image smaller than the patch is taken whole and padded by `fit`."""
    height, width = min(patch, size[0]), min(patch, size[1])
    top, left = (int(rng.integers(s - n + 1)) for s, n in zip(size, (height, width), strict=True))
    return Window(top, left, height, width)


def fit(image: Pixels, patch: int | None) -> Pixels:
    """Mirror at bottom and right up to the patch."""
    if patch is None or min(image.shape[:2]) >= patch:
        return image
    return np.pad(image, [(0, max(0, patch - n)) for n in image.shape[:2]] + [(0, 0)], mode="symmetric")


class PairSource:
    """Pairs of a data set. With several versions a scene is a background and that many of its rainy images.

    Versions come in the order light, medium, heavy where the set says which is which and three are asked for; otherwise they
    are drawn from the background's rainy images.
    """

    def __init__(self, pairs: Sequence[Pair], store: Store, versions: int = 1) -> None:
        self.store, self.versions = store, versions
        if versions == 1:
            self.scenes = [[p] for p in pairs]
        else:
            groups: dict[str, list[Pair]] = defaultdict(list)
            for pair in pairs:
                groups[pair.background].append(pair)
            self.scenes = [g for g in groups.values() if len(g) >= versions]
            if not self.scenes:
                most = max(map(len, groups.values()), default=0)
                raise DerainzooError(
                    f"data.versions={versions} needs backgrounds with that many rainy versions; this set has at most {most}. "
                    "Use DID-MDN, DDN, or synthetic rain (data=synthetic, data.root=FOLDER of clean pictures)."
                )
        self.names = [g[0].name if versions == 1 else g[0].background for g in self.scenes]
        self.backgrounds = [g[0].background for g in self.scenes]

    def __len__(self) -> int:
        return len(self.scenes)

    def files(self) -> list[tuple[str, Path]]:
        """See `Source`."""
        return files_of(pair for scene in self.scenes for pair in scene)

    def _choose(self, scene: list[Pair], rng: np.random.Generator) -> list[Pair]:
        if len(scene) == self.versions == 1:
            return scene
        by_density: dict[str | None, Pair] = {p.density: p for p in scene}
        if self.versions == len(DENSITIES) and all(d in by_density for d in DENSITIES):
            return [by_density[d] for d in DENSITIES]
        return [scene[i] for i in sorted(rng.choice(len(scene), self.versions, replace=False))]

    def read(self, index: int, patch: int | None, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """See `Source`."""
        chosen = self._choose(self.scenes[index], rng)
        height, width = self.store.size(chosen[0].rainy)
        if chosen[0].side:
            width //= 2
        window = Window(0, 0, height, width) if patch is None else random_window((height, width), patch, rng)
        rainy = np.stack([fit(self._part(p, window, width, rainy=True), patch) for p in chosen])
        clean = fit(self._part(chosen[0], window, width, rainy=False), patch)
        if rainy.dtype != clean.dtype or rainy.shape[1:] != clean.shape:
            raise DerainzooError(
                f"{chosen[0].rainy} and {chosen[0].clean} do not match: {rainy.shape[1:]} {rainy.dtype} against {clean.shape} "
                f"{clean.dtype}. Run `derainzoo data verify` on the set."
            )
        return rainy, clean

    def _part(self, pair: Pair, window: Window, width: int, rainy: bool) -> Pixels:
        path = pair.rainy if rainy else pair.clean
        if path is None:
            raise DerainzooError(
                f"{pair.rainy} has no ground truth; sets of real pictures can be restored, not trained on or measured"
            )
        if pair.side is not None and (pair.side == "left") != rainy:
            window = window._replace(left=window.left + width)
        return self.store.read(path, window)


class RainSource:
    """Clean pictures with synthetic rain.

    In training every draw rains anew. For validation and test the generator follows from the picture, so that its rain is
    always the same; `densities` then shows each picture in light, medium and heavy rain.
    """

    def __init__(
        self, pictures: Sequence[Pair], store: Store, rain: RainSynthesiser, versions: int = 1, densities: bool = False
    ) -> None:
        self.store, self.rain, self.versions = store, rain, versions
        shown: tuple[str | None, ...] = DENSITIES if densities else (None,)
        self.items = [(p.clean or p.rainy, d) for p in pictures for d in shown]
        self.names = [f"{p.name}-{d}" if d else p.name for p in pictures for d in shown]
        self.backgrounds = [p.background for p in pictures for _ in shown]

    def __len__(self) -> int:
        return len(self.items)

    def files(self) -> list[tuple[str, Path]]:
        """See `Source`."""
        return [(name, path) for name, (path, _) in zip(self.names, self.items, strict=True)]

    def read(self, index: int, patch: int | None, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """See `Source`."""
        path, density = self.items[index]
        window = None if patch is None else random_window(self.store.size(path), patch, rng)
        clean = fit(self.store.read(path, window), patch)
        if self.versions > 1:
            return np.stack(self.rain.versions(clean, rng, DENSITIES[: self.versions])), clean
        return self.rain(clean, rng, density)[None], clean


def _tensor(pixels: Pixels) -> torch.Tensor:
    """Channels first, contiguous: (..., H, W, 3) -> (..., 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3)))


class TrainSet(Dataset[Sample]):
    """Random patches; every decision follows from the seed and the draw's ordinal."""

    def __init__(self, source: Source, seed: int, geometry: JointGeometry | None) -> None:
        self.source, self.seed, self.geometry = source, seed, geometry

    def __getitem__(self, draw: Draw) -> Sample:
        rng = np.random.default_rng((self.seed, draw.ordinal))
        rainy, clean = self.source.read(draw.scene, draw.patch, rng)
        if self.geometry is not None:
            stack = self.geometry(np.concatenate([rainy, clean[None]]), rng)
            rainy, clean = stack[:-1], stack[-1]
        return Sample(_tensor(rainy), _tensor(clean), self.source.names[draw.scene])


class WholeSet(Dataset[Sample]):
    """Whole images in order, always the same, for validation and test."""

    def __init__(self, source: Source, seed: int, limit: int | None = None) -> None:
        self.source, self.seed = source, seed
        self.count = len(source.names) if limit is None else min(limit, len(source.names))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rainy, clean = self.source.read(index, None, np.random.default_rng((self.seed, index)))
        return Sample(_tensor(rainy), _tensor(clean), self.source.names[index])
