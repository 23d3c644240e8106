"""Clean pictures: what ships is free and accounted for, and folders are split by content."""

import hashlib
import shutil

import cv2
import numpy as np
import pytest

from derainzoo.data.synthetic import BACKGROUNDS, clean_pictures, embedded_backgrounds, embedded_manifest
from derainzoo.errors import DerainzooError


def test_every_shipped_file_is_accounted_for():
    manifest = embedded_manifest()
    files = {path.name for path in BACKGROUNDS.iterdir()} - {"manifest.json", "LICENCES.md"}
    assert files == {entry.file for entry in manifest}
    assert len(manifest) == len(files)
    for entry in manifest:
        data = (BACKGROUNDS / entry.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry.sha256, entry.file
        assert len(data) == entry.bytes
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (entry.height, entry.width, 3)
    assert sum(entry.bytes for entry in manifest) <= 2_000_000


def test_every_shipped_photograph_is_free_and_attributed():
    words = (BACKGROUNDS / "LICENCES.md").read_text(encoding="utf-8")
    rows = [line for line in words.splitlines() if line.startswith("| `")]
    assert len(rows) == len({entry.photograph for entry in embedded_manifest()})
    for entry in embedded_manifest():
        assert entry.licence in {"CC0-1.0", "CC-BY-4.0"}
        (row,) = (row for row in rows if f"`{entry.photograph}-*`" in row)
        assert entry.author in row
        assert entry.licence in row
        assert "lomiri-wallpapers-16.04" in entry.source


def test_splits_share_no_photograph():
    splits = {split: embedded_backgrounds(split) for split in ("train", "val", "test")}
    photographs = {split: {path.stem.rsplit("-", 1)[0] for path in paths} for split, paths in splits.items()}
    assert {split: len(names) for split, names in photographs.items()} == {"train": 6, "val": 1, "test": 2}
    assert not photographs["train"] & (photographs["val"] | photographs["test"])
    assert not photographs["val"] & photographs["test"]
    assert all(path.is_file() for paths in splits.values() for path in paths)
    with pytest.raises(DerainzooError, match=r"'valid'\. Did you mean 'val'"):
        embedded_backgrounds("valid")


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures in three formats at two depths, under misleading names, with other files between them."""
    rng = np.random.default_rng(0)
    for number in range(20):
        where = tmp_path / "photos" / ("deep/er" if number % 2 else ".")
        where.mkdir(parents=True, exist_ok=True)
        data = cv2.imencode((".png", ".jpg", ".webp")[number % 3], rng.integers(0, 255, (9, 12, 3), np.uint8))[1]
        (where / f"{number}.dat").write_bytes(data.tobytes())
    (tmp_path / "photos" / "notes.png").write_text("no picture")
    (tmp_path / "photos" / ".hidden.png").write_bytes(data.tobytes())
    return tmp_path / "photos"


def test_a_folder_is_split_whole(folder):
    train, val = clean_pictures(folder, "train", 0.2), clean_pictures(folder, "val", 0.2)
    assert len(val) == 4
    assert sorted(train + val) == sorted(folder.rglob("*.dat"))
    assert train == sorted(train)
    assert len(clean_pictures(str(folder), "train", 0)) == 20
    assert clean_pictures(folder, "val", 0) == []
    assert len(clean_pictures(folder, "val", 0.001)) == 1


def test_content_decides_the_split(folder, tmp_path):
    def contents(where, seed=0):
        return {path.read_bytes() for path in clean_pictures(where, "val", 0.2, seed)}

    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, path in enumerate(folder.rglob("*.dat")):
        shutil.copy(path, renamed / f"{number:03d}.jpg")
    assert contents(renamed) == contents(folder)
    assert contents(folder, seed=1) != contents(folder)
    for path in clean_pictures(folder, "val", 0.2):
        shutil.copy(path, folder / f"copy-{path.name}")
    assert len(clean_pictures(folder, "val", 0.2)) == 8
    assert len(clean_pictures(folder, "train", 0.2)) == 16


def test_folder_mistakes_are_named(folder, tmp_path):
    with pytest.raises(DerainzooError, match="check the path"):
        clean_pictures(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DerainzooError, match="no PNG, JPEG, WebP or BMP"):
        clean_pictures(tmp_path / "empty", "train")
    with pytest.raises(DerainzooError, match="unknown split"):
        clean_pictures(folder, "test")
    with pytest.raises(DerainzooError, match="val_fraction"):
        clean_pictures(folder, "train", 1.0)
    single = tmp_path / "single"
    single.mkdir()
    shutil.copy(next(folder.rglob("*.dat")), single)
    with pytest.raises(DerainzooError, match="none is left to train on"):
        clean_pictures(single, "train")
