"""Where pixels come from: image files, or a cache of decoded pixels from which crops are cut without decoding anything.

The cache is one file of raw pixels and an index. Measured against LMDB and against losslessly compressed tiles (docs/data.md),
raw pixels cut 128 x 128 crops as fast as LMDB, without another dependency, and nearly a hundred times faster than the tiles.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from derainzoo.errors import DerainzooError
from derainzoo.files import write_text
from derainzoo.images import image_size, read_image

Pixels = NDArray[Any]
_VERSION = 1


class Window(NamedTuple):
    """A part of an image."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Pixels) -> Pixels:
        """The part of `image`, as a copy."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width].copy()


class Store(Protocol):
    """Gives (a part of) the RGB pixels of a file."""

    def size(self, path: Path) -> tuple[int, int]:
        """Height and width."""

    def read(self, path: Path, window: Window | None = None) -> Pixels:
        """(H, W, 3), 8 or 16 bit."""


class FileStore:
    """Decodes whole files, then cuts."""

    def size(self, path: Path) -> tuple[int, int]:
        """From the header alone."""
        return image_size(path)

    def read(self, path: Path, window: Window | None = None) -> Pixels:
        """Decode, then cut."""
        image = read_image(path)
        return image if window is None else window.cut(image)


class MemoryStore(FileStore):
    """Decodes each file once and keeps its pixels; for sets that are small beside the machine's memory."""

    def __init__(self) -> None:
        self.kept: dict[Path, Pixels] = {}

    def read(self, path: Path, window: Window | None = None) -> Pixels:
        """Cut from what is kept."""
        if path not in self.kept:
            self.kept[path] = read_image(path)
        image = self.kept[path]
        return image.copy() if window is None else window.cut(image)


@dataclass(frozen=True)
class _Entry:
    offset: int
    shape: tuple[int, int, int]
    dtype: str
    bytes: int
    changed: int


class CacheStore:
    """Cuts from decoded pixels on disk (memory-mapped: the operating system keeps what is used in memory).

    A file that changed since `prepare`, or that was never prepared, is an error rather than a silent slow path.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if index["version"] != _VERSION:
            raise DerainzooError(f"{folder} was written by another version of derainzoo; run `derainzoo data prepare` again")
        self.entries = {k: _Entry(v[0], tuple(v[1]), v[2], v[3], v[4]) for k, v in index["files"].items()}
        self.pixels: Pixels | None = None  # opened in the process that reads

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "pixels": None}

    def _entry(self, path: Path) -> _Entry:
        entry = self.entries.get(_key(path, self.root))
        if entry is None:
            raise DerainzooError(f"the cache {self.folder} does not hold {path}; run `derainzoo data prepare` again")
        return entry

    def check(self, paths: Sequence[Path]) -> None:
        """Raise if a file is missing from the cache or has changed since."""
        for path in paths:
            entry, stat = self._entry(path), path.stat()
            if (entry.bytes, entry.changed) != (stat.st_size, stat.st_mtime_ns):
                raise DerainzooError(f"{path} has changed since {self.folder} was prepared; run `derainzoo data prepare` again")

    def size(self, path: Path) -> tuple[int, int]:
        """From the index."""
        return self._entry(path).shape[:2]

    def read(self, path: Path, window: Window | None = None) -> Pixels:
        """Cut from the mapped file."""
        if self.pixels is None:
            self.pixels = np.memmap(self.folder / "pixels.bin", np.uint8, "r")
        entry = self._entry(path)
        size = math.prod(entry.shape) * np.dtype(entry.dtype).itemsize
        image = self.pixels[entry.offset : entry.offset + size].view(entry.dtype).reshape(entry.shape)
        return np.array(image if window is None else window.cut(image))


def _key(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def known_scenes(folder: Path | None) -> dict[str, str]:
    """Pair -> scene, as `remember_scenes` left it in a cache; empty if it did not."""
    file = None if folder is None else folder / "scenes.json"
    return json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}


def remember_scenes(folder: Path, scenes: Mapping[str, str]) -> None:
    """Keep which pairs show one scene beside the pixels."""
    write_text(folder / "scenes.json", json.dumps(scenes))


def prepare(paths: Sequence[Path], root: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Write the cache of `paths` to `folder`; yields (files done, files in all). Nothing is left behind if it breaks off."""
    paths = sorted(set(paths))
    needed = sum(math.prod(image_size(p)) * 3 for p in paths)  # 16-bit files take twice that; refused below if they do not fit
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise DerainzooError(f"the cache needs {needed / 1e9:.1f} GB, {folder.parent} has {free / 1e9:.1f} GB free")
    scratch = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        files: dict[str, list[Any]] = {}
        with (scratch / "pixels.bin").open("wb") as blob:
            for done, path in enumerate(paths, 1):
                stat, image = path.stat(), read_image(path)
                offset = blob.tell()
                blob.write(np.ascontiguousarray(image).data)
                files[_key(path, root)] = [offset, image.shape, image.dtype.name, stat.st_size, stat.st_mtime_ns]
                blob.write(b"\0" * (-blob.tell() % 2))  # 16-bit images start at even offsets
                yield done, len(paths)
        write_text(scratch / "index.json", json.dumps({"version": _VERSION, "files": files}))
        shutil.rmtree(folder, ignore_errors=True)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
