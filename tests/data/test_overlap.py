import csv

import numpy as np
import pytest
from PIL import Image

from derainzoo.data.catalog import find_pairs
from derainzoo.data.layouts import Pair
from derainzoo.data.overlap import find_overlap, group_scenes, match_thumbnails, thumbnail
from derainzoo.images import write_png
from fake_sets import landscape


def save(folder, name: str, pixels: np.ndarray, **options: object) -> Pair:
    path = folder / name
    if options:
        Image.fromarray(pixels).save(path, **options)
    else:
        write_png(path, pixels)
    return Pair(path.stem, path, path, path.stem)


@pytest.fixture
def originals(tmp_path) -> list[Pair]:
    return [save(tmp_path, f"scene{i}.png", landscape(i)) for i in range(12)]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_all_orientations_are_found(tmp_path, originals, mirror, quarters):
    pixels = np.rot90(landscape(5)[:, ::-1] if mirror else landscape(5), quarters)
    copy = save(tmp_path, "copy.png", np.ascontiguousarray(pixels))
    assert find_overlap(originals, [copy]) == [("scene5", "copy", 0)]


def test_crops_and_compression_are_found(tmp_path, originals):
    turned = np.ascontiguousarray(np.rot90(landscape(3)[:-1, :-3]))
    copies = [
        save(tmp_path, "cropped.png", landscape(7)[:118, :158]),
        save(tmp_path, "compressed.jpg", landscape(8), quality=30),
        save(tmp_path, "both.jpg", turned, quality=50),
        save(tmp_path, "darker.png", (landscape(2) * 0.6).astype(np.uint8)),
        save(tmp_path, "other.png", landscape(100)),
    ]
    found = {(a, b) for a, b, _ in find_overlap(originals, copies)}
    assert found == {("scene7", "cropped"), ("scene8", "compressed"), ("scene3", "both"), ("scene2", "darker")}


def test_pictures_that_only_share_their_light_are_not_the_same(tmp_path):
    """The hash sees low frequencies alone; equal ones with other detail must not pass the second step."""
    base = np.asarray(Image.fromarray(landscape(1)).resize((8, 8)).resize((160, 120), Image.Resampling.BICUBIC)).astype(float)
    rng = np.random.default_rng(0)
    a, b = (
        (base * 0.8 + 24 * rng.normal(size=(30, 40, 1)).repeat(4, 0).repeat(4, 1)).clip(0, 255).astype(np.uint8) for _ in "ab"
    )
    signs = match_thumbnails([thumbnail(a)], [thumbnail(b)])
    assert signs == []
    assert match_thumbnails([thumbnail(a)], [thumbnail(a)]) == [(0, 0, 0)]


def test_empty_pictures_and_empty_lists():
    black = np.zeros((30, 40, 3), np.uint8)
    assert match_thumbnails([thumbnail(black)], [thumbnail(black)]) == []
    assert match_thumbnails([], [thumbnail(black)]) == []
    assert find_overlap([], []) == []


def test_depth_does_not_matter():
    deep = landscape(4).astype(np.uint16) * 257
    assert np.allclose(thumbnail(deep), thumbnail(landscape(4)), atol=0.6)


def test_versions_of_one_clean_picture_count_once(tmp_path, originals):
    clean = originals[0].clean
    versions = [Pair(f"{k}", tmp_path / f"never read {k}.png", clean, "0", None) for k in range(3)]
    for pair in versions:
        write_png(pair.rainy, landscape(50))
    assert find_overlap(versions, originals) == [("0", "scene0", 0)]


def test_scenes_are_grouped_by_what_they_show(tmp_path, originals):
    twins = [
        save(tmp_path, "a.png", np.ascontiguousarray(landscape(2)[:, ::-1])),
        save(tmp_path, "b.jpg", landscape(2), quality=60),
        save(tmp_path, "c.jpg", landscape(9), quality=60),
    ]
    grouped = group_scenes([*originals, *twins])
    expected = {pair.name: pair.name for pair in originals} | {"a": "scene2", "b": "scene2", "c": "scene9"}
    assert {pair.name: pair.background for pair in grouped} == expected
    assert [(p.name, p.rainy, p.clean) for p in grouped] == [(p.name, p.rainy, p.clean) for p in [*originals, *twins]]


@pytest.mark.shared
@pytest.mark.slow
def test_real_overlaps(shared):
    """Precision and recall of the numbers in the docstring, on everything whose truth is known."""
    data = shared / "data"
    train = find_pairs("folder", "all", data / "Rain100L-train")
    rain200h = find_pairs("folder", "all", data / "pairs/Rain200H")
    rain12 = find_pairs("rain12", "test", data / "pairs/Rain12")
    # both are numbered by the same list of BSDS500 test pictures
    assert {(a, b) for a, b, _ in find_overlap(train, rain200h)} == {(p.name, p.name) for p in rain200h}
    assert len({b for _, b, _ in find_overlap(train, rain12)}) == len(find_overlap(train, rain12)) == 8
    backgrounds = find_pairs("pictures", "all", data / "backgrounds")
    with (data / "backgrounds/manifest.tsv").open() as file:
        bsds_test = {
            r["file"].removesuffix(".jpg") for r in csv.DictReader(file, delimiter="\t") if "/test/" in r["source_path"]
        }
    found = find_overlap(train, backgrounds)
    assert {b for _, b, _ in found} == bsds_test
    assert len(found) == len(bsds_test) == 134
    folders = [folder for folder in sorted((data / "pairs").iterdir()) if folder.is_dir()]
    others = [p for f in folders if f.name not in ("Rain200H", "Rain12") for p in find_pairs("folder", "all", f)]
    assert len(others) == 31
    assert find_overlap(others, [*train, *backgrounds]) == []
    assert find_overlap([*rain200h, *rain12], backgrounds) == []
