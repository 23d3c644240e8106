"""Clean pictures to rain on: the photographs that ship with the package, or any folder."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from derainzoo.errors import DerainzooError, unknown_name

BACKGROUNDS = Path(__file__).parent / "backgrounds"
SPLITS = ("train", "val", "test")

# by content, because some data sets hold JPEG data in files named .png: JPEG, PNG, BMP, and WebP further down
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")


@dataclass(frozen=True)
class Background:
    """One shipped crop; crops of one photograph are always in one split."""

    file: str
    sha256: str
    bytes: int
    width: int
    height: int
    photograph: str
    split: str
    author: str
    year: int
    licence: str
    source: str
    done: str


def embedded_manifest() -> list[Background]:
    """What ships, with authors and licences (in plain words: backgrounds/LICENCES.md)."""
    return [Background(**entry) for entry in json.loads((BACKGROUNDS / "manifest.json").read_text(encoding="utf-8"))]


def embedded_backgrounds(split: str) -> list[Path]:
    """The shipped clean pictures of `train`, `val` or `test`, sorted by name."""
    if split not in SPLITS:
        raise unknown_name("split of the embedded pictures", split, SPLITS)
    return sorted(BACKGROUNDS / background.file for background in embedded_manifest() if background.split == split)


def clean_pictures(folder: str | Path, split: str, val_fraction: float = 0.1, seed: int = 0) -> list[Path]:
    """The pictures of `train` or `val` below `folder`, however deep, sorted by path.

    Which are set aside for validation follows from their content and `seed`, not from their names or place: a copy of the
    folder, or renamed files, are split alike, and a picture that is there twice is on one side both times.

    Args:
        folder: PNG, JPEG, WebP and BMP files are found by their first bytes; hidden files and anything else are passed over.
        split: `train` or `val`.
        val_fraction: share of the pictures set aside, at least one unless it is 0.
        seed: another seed sets others aside.
    """
    folder = Path(folder)
    if split not in ("train", "val"):
        raise unknown_name("split of a folder", split, ("train", "val"))
    if not 0 <= val_fraction < 1:
        raise DerainzooError(f"expected 0 <= val_fraction < 1, found {val_fraction}")
    if not folder.is_dir():
        raise DerainzooError(f"expected a folder of clean pictures, found nothing at {folder}; check the path")
    pictures: dict[bytes, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and (digest := _digest(path, seed)):
            pictures.setdefault(digest, []).append(path)
    if not pictures:
        raise DerainzooError(f"found no PNG, JPEG, WebP or BMP picture below {folder}; check the path")
    held_out = max(1, round(val_fraction * len(pictures))) if val_fraction else 0
    if held_out == len(pictures):
        raise DerainzooError(
            f"found {len(pictures)} different pictures below {folder}; with {held_out} set aside for validation (val_fraction="
            f"{val_fraction}) none is left to train on; add pictures or set val_fraction to 0"
        )
    order = sorted(pictures)
    chosen = order[:held_out] if split == "val" else order[held_out:]
    return sorted(path for digest in chosen for path in pictures[digest])


def _digest(path: Path, seed: int) -> bytes | None:
    """Bytes as good as random that belong to the picture and the seed; None if the file is no picture.

    The length and the first 64 KiB stand for the content, so that a folder of large photographs is listed in seconds.
    """
    with path.open("rb") as file:
        start = file.read(2**16)
    if not start.startswith(_MAGIC) and not (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return None
    return hashlib.sha256(f"{seed} {path.stat().st_size} ".encode() + start).digest()
