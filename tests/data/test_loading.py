"""Pairs from files, caches and synthetic rain; batches of the data module."""

import json
import os

import numpy as np
import pytest
import torch

from derainzoo.data.batch import to_float
from derainzoo.data.datamodule import DerainDataModule
from derainzoo.data.layouts import Pair
from derainzoo.data.pairs import PairSource, RainSource, TrainSet, WholeSet
from derainzoo.data.rain import RainSynthesiser
from derainzoo.data.schedule import Draw
from derainzoo.data.stores import CacheStore, FileStore, MemoryStore, Window, prepare
from derainzoo.data.transforms import JointGeometry
from derainzoo.errors import DerainzooError
from derainzoo.images import write_png

RNG = np.random.default_rng


def picture(number, height=40, width=56, rainy=0, depth=np.uint8):
    """Pixels that tell where they are: row, column, and which picture."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number * 10 + rainy)], -1).astype(depth)


@pytest.fixture
def pairs(tmp_path):
    """Six rainy versions of two backgrounds."""
    out = []
    for scene in range(2):
        clean = tmp_path / "target" / f"{scene}.png"
        write_png(clean, picture(scene))
        for version, density in enumerate(("light", "medium", "heavy"), 1):
            rainy = tmp_path / "input" / f"{scene}_{version}.png"
            write_png(rainy, picture(scene, rainy=version))
            out.append(Pair(f"{scene}_{version}", rainy, clean, str(scene), density=density))
    return out


def test_patches_of_rainy_and_clean_are_from_one_place(pairs):
    source = PairSource(pairs, FileStore())
    for seed in range(10):
        rainy, clean = source.read(3, 16, RNG(seed))
        assert rainy.shape == (1, 16, 16, 3)
        assert (rainy[0, ..., :2] == clean[..., :2]).all()
        assert (rainy[0, ..., 2] == 11).all()
        assert (clean[..., 2] == 10).all()
    assert len({source.read(3, 16, RNG(s))[1][0, 0].tobytes() for s in range(20)}) > 5


def test_versions_of_a_background_come_together_in_order(pairs):
    source = PairSource(pairs[::-1], FileStore(), versions=3)
    assert sorted(source.names) == ["0", "1"]
    rainy, clean = source.read(source.names.index("1"), 16, RNG(0))
    assert [int(r[0, 0, 2]) for r in rainy] == [11, 12, 13]
    assert (rainy[..., :2] == clean[..., :2]).all()
    two = PairSource(pairs, FileStore(), versions=2)
    drawn = {tuple(int(r[0, 0, 2]) for r in two.read(0, 8, RNG(s))[0]) for s in range(30)}
    assert drawn == {(1, 2), (1, 3), (2, 3)}
    with pytest.raises(DerainzooError, match="at most 3"):
        PairSource(pairs, FileStore(), versions=4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_halves_of_one_file_are_cut_apart(tmp_path, side):
    halves = [picture(1, rainy=5), picture(1)]
    write_png(tmp_path / "1.png", np.concatenate(halves if side == "left" else halves[::-1], 1))
    source = PairSource([Pair("1", tmp_path / "1.png", tmp_path / "1.png", "1", side=side)], FileStore())
    for patch in (16, None):
        rainy, clean = source.read(0, patch, RNG(1))
        assert (rainy[..., 2] == 15).all()
        assert (clean[..., 2] == 10).all()
        assert (rainy[0, ..., :2] == clean[..., :2]).all()


def test_images_smaller_than_the_patch_are_mirrored(pairs):
    rainy, clean = PairSource(pairs, FileStore()).read(0, 64, RNG(0))
    assert clean.shape == (64, 64, 3)
    assert (clean[40:, :56] == clean[39:15:-1, :56]).all()
    assert (rainy[0, ..., :2] == clean[..., :2]).all()


def test_cache_gives_the_pixels_of_the_files(pairs, tmp_path):
    paths = [p for pair in pairs for p in (pair.rainy, pair.clean)]
    deep = tmp_path / "deep.png"
    write_png(deep, picture(1, depth=np.uint16) * 1000)
    steps = list(prepare([*paths, deep], tmp_path, tmp_path / "cache"))
    assert steps[-1] == (9, 9)
    cache, files = CacheStore(tmp_path / "cache", tmp_path), FileStore()
    cache.check(paths)
    for path in [*paths, deep]:
        assert cache.size(path) == files.size(path) == (40, 56)
        window = Window(3, 5, 10, 12)
        for w in (None, window):
            ours, theirs = cache.read(path, w), files.read(path, w)
            assert ours.dtype == theirs.dtype
            assert (ours == theirs).all()
    assert (MemoryStore().read(deep, window) == files.read(deep, window)).all()


def test_cache_that_is_out_of_date_is_an_error(pairs, tmp_path):
    list(prepare([pairs[0].rainy], tmp_path, tmp_path / "cache"))
    cache = CacheStore(tmp_path / "cache", tmp_path)
    with pytest.raises(DerainzooError, match="does not hold.*data prepare"):
        cache.check([pairs[1].rainy])
    os.utime(pairs[0].rainy, ns=(1, 1))
    with pytest.raises(DerainzooError, match="has changed since.*data prepare"):
        cache.check([pairs[0].rainy])


def test_cache_that_breaks_off_leaves_the_old_one(pairs, tmp_path):
    list(prepare([pairs[0].rainy], tmp_path, tmp_path / "cache"))
    before = (tmp_path / "cache" / "index.json").read_text()
    (tmp_path / "broken.png").write_bytes(pairs[0].rainy.read_bytes()[:100])
    with pytest.raises(DerainzooError):
        list(prepare([pairs[0].rainy, tmp_path / "broken.png"], tmp_path, tmp_path / "cache"))
    assert (tmp_path / "cache" / "index.json").read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.png", "cache", "input", "target"]


def test_a_sample_follows_from_seed_and_ordinal_alone(pairs):
    data = TrainSet(PairSource(pairs, FileStore()), seed=3, geometry=JointGeometry(["D4"]))
    first = data[Draw(2, 17, 16)]
    data[Draw(1, 18, 16)]
    again = data[Draw(2, 17, 16)]
    assert torch.equal(first.input, again.input)
    assert first.name == "0_3"
    assert not torch.equal(first.input, data[Draw(2, 19, 16)].input)
    other = TrainSet(PairSource(pairs, FileStore()), seed=4, geometry=JointGeometry(["D4"]))
    assert not torch.equal(first.input, other[Draw(2, 17, 16)].input)


def test_geometry_is_shared_and_reaches_all_eight_forms(pairs):
    data = TrainSet(PairSource(pairs, FileStore()), seed=3, geometry=JointGeometry(["D4"]))
    corners = set()
    for ordinal in range(60):
        sample = data[Draw(0, ordinal, 16)]
        assert torch.equal(sample.input[0, :2], sample.target[:2])
        rows, columns = sample.target[0].int(), sample.target[1].int()
        corners.add((int(rows[0, 0] - rows[0, 1]), int(rows[0, 0] - rows[1, 0]), int(columns[0, 0] - columns[0, 1])))
    assert len(corners) >= 6


def test_photometric_transforms_are_refused():
    with pytest.raises(DerainzooError, match="changes colours, not geometry"):
        JointGeometry(["RandomRain"])
    with pytest.raises(DerainzooError, match="unknown albumentations transform 'D5'. Did you mean 'D4'"):
        JointGeometry(["D5"])
    rotate = JointGeometry([{"Rotate": {"limit": 5, "p": 1.0}}])
    stack = np.stack([picture(1), picture(1)])
    turned = rotate(stack, RNG(0))
    assert (turned[0] == turned[1]).all()
    assert (turned[0] != stack[0]).any()


def test_mismatched_pair_names_both_files(tmp_path):
    write_png(tmp_path / "a.png", picture(1))
    write_png(tmp_path / "b.png", picture(1, height=30))
    with pytest.raises(DerainzooError, match=r"a.png and .*b.png do not match.*data verify"):
        PairSource([Pair("a", tmp_path / "a.png", tmp_path / "b.png", "a")], FileStore()).read(0, None, RNG(0))


def test_sixteen_bits_keep_their_depth(tmp_path):
    deep = picture(1, depth=np.uint16) * 1000
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", deep)
    data = TrainSet(PairSource([Pair("a", tmp_path / "a.png", tmp_path / "b.png", "a")], FileStore()), 0, JointGeometry(["D4"]))
    sample = data[Draw(0, 0, 16)]
    assert sample.target.dtype == torch.uint16
    assert to_float(sample.target).max() == pytest.approx(int(sample.target.int().max()) / 65535)


def test_synthetic_rain_is_anew_in_training_and_fixed_in_validation(tmp_path):
    write_png(tmp_path / "a.png", np.full((64, 64, 3), 90, np.uint8))
    pictures = [Pair("a", tmp_path / "a.png", tmp_path / "a.png", "a")]
    train = TrainSet(RainSource(pictures, MemoryStore(), RainSynthesiser("medium"), versions=3), 0, None)
    one, two = train[Draw(0, 0, 32)], train[Draw(0, 1, 32)]
    assert one.input.shape == (3, 3, 32, 32)
    assert not torch.equal(one.input, two.input)
    errors = [(v.float() - one.target.float()).abs().mean() for v in one.input]
    assert errors[0] < errors[1] < errors[2]
    whole = WholeSet(RainSource(pictures, FileStore(), RainSynthesiser("any"), densities=True), seed=1)
    assert [whole[i].name for i in range(3)] == ["a-light", "a-medium", "a-heavy"]
    assert torch.equal(whole[2].input, whole[2].input)


# --- the data module ------------------------------------------------------------------------------------------------------


def module(**settings):
    return DerainDataModule(**{"batch_size": 4, "patch_size": 16, "num_workers": 0, "steps": 3, **settings})


def test_batches_of_the_embedded_set():
    data = module(name="synthetic", versions=3)
    data.setup()
    batches = list(data.train_dataloader())
    assert [len(b.names) for b in batches] == [4, 4, 4]
    batch = data.on_after_batch_transfer(batches[0], 0)
    assert batch.input.shape == (12, 3, 16, 16)
    assert batch.target.shape == (4, 3, 16, 16)
    assert batch.input.min() >= 0
    assert batch.input.max() <= 1
    names = [n for b in data.val_dataloader() for n in b.names]
    assert len(names) == len(set(names)) == 9  # three pictures in three rains
    photographs = [
        {n.rsplit("-", 1)[0] for n in (p.background + "-" for p in part)} for part in (data.train_pairs, data.val_pairs)
    ]
    assert not photographs[0] & photographs[1]


def test_workers_change_nothing():
    batches = []
    for workers in (0, 2):
        data = module(name="synthetic", num_workers=workers)
        data.setup("fit")
        batches.append(list(data.train_dataloader()))
    for a, b in zip(*batches, strict=True):
        assert a.names == b.names
        assert torch.equal(a.input, b.input)


def test_halves_share_no_background():
    data = module(name="synthetic", halves=True, steps=8)
    data.setup("fit")
    loaders = data.train_dataloader()
    seen = {k: {n.rpartition("-")[0] for b in loader for n in b.names} for k, loader in loaders.items()}
    assert set(seen) == {"weights", "alphas"}
    assert seen["weights"]
    assert seen["alphas"]
    assert not seen["weights"] & seen["alphas"]


def test_halves_validation_and_test_share_no_background_of_several_rains(tmp_path):
    """Weights, choices, validation and test of a search, on a set with many rainy pictures of each background."""
    for split, scenes in (("training", range(1, 31)), ("testing", range(31, 34))):
        for scene in scenes:
            write_png(tmp_path / split / "ground_truth" / f"{scene}.jpg", picture(scene % 25))
            for k in range(1, 4):
                write_png(tmp_path / split / "rainy_image" / f"{scene}_{k}.jpg", picture(scene % 25, rainy=k))
    data = module(name="rain1400", root=str(tmp_path), halves=True, steps=12, val_images=6)
    data.setup()
    parts = {half: list(loader) for half, loader in data.train_dataloader().items()}
    parts |= {"val": list(data.val_dataloader()), "test": [batch for loader in data.test_dataloader() for batch in loader]}
    scenes_of = {part: {name.split("_")[0] for batch in batches for name in batch.names} for part, batches in parts.items()}
    assert {part: len(scenes) for part, scenes in scenes_of.items()} == {"weights": 12, "alphas": 12, "val": 6, "test": 3}
    assert len(set.union(*scenes_of.values())) == 33


@pytest.fixture
def copy(tmp_path):
    """A small Rain200H in DRSformer's layout, and a flat folder."""
    for split, count in (("train", 12), ("test", 3)):
        for i in range(1, count + 1):
            for kind, rainy in (("input", 3), ("target", 0)):
                write_png(tmp_path / "Rain200H" / split / kind / f"{i}.png", picture(i, rainy=rainy))
    return tmp_path


def test_a_set_is_found_below_the_folder_of_all_sets(copy):
    data = module(name="rain200h", data_dir=str(copy), val_images=2)
    data.setup()
    assert (len(data.train_pairs), len(data.val_pairs)) == (10, 2)
    assert not {p.name for p in data.train_pairs} & {p.name for p in data.val_pairs}
    assert data.test_names == ["rain200h"]
    assert len(list(data.test_dataloader()[0])) == 3
    data = module(name="rain200h", data_dir=str(copy), test=["rain200h/train"])
    data.setup("test")
    assert data.test_names == ["rain200h-train"]


def test_prepare_makes_the_cache_that_training_reads(copy):
    data = module(name="rain200h", data_dir=str(copy), cache=str(copy / "cache"), val_images=2)
    paths, root = data.files_to_prepare()
    assert len(paths) == 24
    list(prepare(paths, root, copy / "cache"))
    cached = module(name="rain200h", data_dir=str(copy), cache=str(copy / "cache"), val_images=2)
    cached.setup("fit")
    assert isinstance(cached._store(), CacheStore)
    for a, b in zip(data.train_dataloader(), cached.train_dataloader(), strict=True):
        assert torch.equal(a.input, b.input)
    (copy / "Rain200H/train/input/1.png").write_bytes((copy / "Rain200H/train/input/2.png").read_bytes())
    with pytest.raises(DerainzooError, match="data prepare"):
        cached.train_dataloader()


def test_scenes_that_names_hide_are_told_by_the_cache(copy, caplog):
    settings = {"name": "rain200h", "data_dir": str(copy), "cache": str(copy / "cache"), "val_images": 1}
    module(**settings).setup("fit")
    assert "data prepare" in caplog.text
    (copy / "cache").mkdir()
    (copy / "cache" / "scenes.json").write_text(json.dumps({str(i): str(i % 6) for i in range(1, 13)}))
    data = module(**settings)
    data.setup("fit")
    assert len(data.val_pairs) == 1
    assert len(data.train_pairs) == 10  # the other picture of that scene is not trained on


def test_a_folder_of_ones_own(tmp_path):
    for i in range(1, 7):
        write_png(tmp_path / "wet" / f"{i}.png", picture(i, rainy=1))
        write_png(tmp_path / "dry" / f"{i}.png", picture(i))
    with pytest.raises(DerainzooError, match="looked for"):
        module(name="folder", root=str(tmp_path)).setup("fit")
    data = module(name="folder", root=str(tmp_path), files={"rainy": "wet/{name}.png", "clean": "dry/{name}.png"})
    data.setup()
    assert len(data.train_pairs) + len(data.val_pairs) == 6
    assert data.test_names == []
    measured = module(name="folder", root=str(tmp_path), files={"rainy": "wet/{name}.png", "clean": "dry/{name}.png"})
    measured.setup("test")
    assert len(measured.tests["folder-all"].names) == 6


def test_clean_pictures_of_ones_own_are_rained_on(tmp_path):
    for i in range(1, 7):
        write_png(tmp_path / f"{i}.png", picture(i))
    data = module(name="synthetic", root=str(tmp_path), rain="heavy")
    data.setup("fit")
    assert len(data.train_pairs) == 5
    batch = next(iter(data.train_dataloader()))
    assert not torch.equal(batch.input, batch.target)
