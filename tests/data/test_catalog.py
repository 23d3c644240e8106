import json
import subprocess
import sys
from pathlib import Path

import pytest

import fake_sets
from derainzoo.data import catalog, layouts
from derainzoo.data.catalog import find, find_pairs, find_root, split_by_background, two_halves
from derainzoo.data.layouts import Files, Pair, Pattern, natural_key, read_pair
from derainzoo.data.sets import DATASETS, OVERLAPS
from derainzoo.errors import DerainzooError
from derainzoo.images import write_png
from fake_sets import FAKES

LAYOUTS = [(dataset, layout) for dataset, copies in FAKES.items() for layout in copies]


def home(dataset: str) -> str:
    return (DATASETS[dataset].folders or (dataset,))[0]


def check(pairs: list[Pair], fakes: list[fake_sets.Fake], folder: Path) -> None:
    assert [pair.name for pair in pairs] == [fake.name for fake in fakes]
    for pair, fake in zip(pairs, fakes, strict=True):
        assert pair.rainy == folder / fake.rainy
        assert pair.clean == (folder / fake.clean if fake.clean else None)
        assert (pair.background, pair.side, pair.density) == (fake.background, fake.side, fake.density)
        rainy, clean = read_pair(pair)
        assert (rainy == fake_sets.rain(fake_sets.scene(fake.background))).all()
        if fake.clean is not None:
            assert clean is not None
            assert (clean == fake_sets.scene(fake.background)).all()
        else:
            assert clean is None


# ---------------------------------------------------------------------------------------------------------- every layout


def test_there_is_a_fake_copy_of_everything():
    known = {(d, layout.title, split) for d, info in DATASETS.items() for layout in info.layouts for split in layout.splits}
    assert known == {(d, title, split) for d, copies in FAKES.items() for title, copy in copies.items() for split in copy}


@pytest.mark.parametrize(("dataset", "layout"), LAYOUTS)
def test_every_layout_is_read(tmp_path, dataset, layout):
    folder = tmp_path / home(dataset)
    copy = fake_sets.make(folder, dataset, layout)
    for split, fakes in copy.items():
        found = find(dataset, split, folder)
        assert found.match.layout.title == layout
        assert not any("fits no pattern" in note for note in found.notes)
        check(find_pairs(dataset, split, folder), fakes, folder)


@pytest.mark.parametrize(("dataset", "layout"), [case for case in LAYOUTS if DATASETS[case[0]].folders])
def test_the_parent_and_another_case_will_do(tmp_path, dataset, layout):
    folder = tmp_path / "data" / home(dataset).upper().replace("-", "_")
    copy = fake_sets.make(folder, dataset, layout)
    root = find_root(dataset, tmp_path / "data")
    assert root is not None
    for split, fakes in copy.items():
        check(find_pairs(dataset, split, tmp_path / "data"), fakes, folder)
        check(find_pairs(dataset, split, root), fakes, folder)


@pytest.mark.parametrize(
    ("dataset", "layout", "split", "root"),
    [
        ("rain100h", "PReNet", "train", "RainTrainH"),
        ("rain100h", "PReNet", "test", "Rain100H"),
        ("rain200h", "DRSformer", "train", "train"),
        ("rain200h", "DRSformer", "train", "train/Rain200H"),
        ("rain200h", "DRSformer", "train", "train/Rain200H/input"),
        ("rain13k", "tests by themselves", "rain100l", "Rain100L"),
        ("rain800", "original", "train", "rain"),
        ("rain800", "original", "test", "rain/test_syn"),
    ],
)
def test_a_folder_inside_will_do(tmp_path, dataset, layout, split, root):
    copy = fake_sets.make(tmp_path, dataset, layout)
    check(find_pairs(dataset, split, tmp_path / root), copy[split], tmp_path)


def test_a_folder_inside_is_not_taken_for_another_split(tmp_path):
    fake_sets.make(tmp_path, "rain200h", "DRSformer")
    with pytest.raises(DerainzooError, match="no pictures of rain200h"):
        find_pairs("rain200h", "test", tmp_path / "train" / "Rain200H")


def test_sets_side_by_side_are_kept_apart(tmp_path):
    fake_sets.make(tmp_path, "rain200l", "DRSformer")
    for dataset in ("rain200h", "rain100l", "gopro", "did_mdn"):
        fake_sets.make(
            tmp_path / home(dataset), dataset, "two folders a split" if dataset in ("rain100l", "gopro") else "DRSformer"
        )
    fake_sets.write(tmp_path, [fake_sets.Fake("x", "train/input/x.png", "train/target/x.png", "somebody else's")])
    for dataset in ("rain200h", "rain100l", "gopro", "did_mdn"):
        found = find(dataset, "train", tmp_path).match
        assert found.folder == tmp_path / home(dataset)
        assert find_root(dataset, tmp_path) == tmp_path / home(dataset)
    assert find("rain200l", "train", tmp_path).match.folder == tmp_path
    assert find_root("hide", tmp_path) is None
    assert find_root("lhp_rain", tmp_path) is None


# ----------------------------------------------------------------------------------------------- when something is wrong


def test_a_missing_folder_is_explained(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(DerainzooError) as error:
        find_pairs("rain200h", "test", tmp_path / "absent" / "deep")
    text = str(error.value)
    assert "does not exist" in text
    assert "there/" in text
    assert "rain_data_test_Heavy/rain/X2/norain-1x2.png" in text
    assert "test/Rain200H/input/1.png with test/Rain200H/target/1.png" in text
    assert "github.com/cschenxiang/DRSformer" in text


def test_an_empty_and_a_wrong_folder_are_explained(tmp_path):
    with pytest.raises(DerainzooError, match="found: nothing"):
        find_pairs("raindrop", "test_a", tmp_path)
    for n in range(3):
        write_png(tmp_path / "photos" / f"{n}.png", fake_sets.scene("x"))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DerainzooError, match=r"found: photos/, 1 file \.txt, e\.g\. notes\.txt"):
        find_pairs("raindrop", "test_a", tmp_path)
    with pytest.raises(DerainzooError, match="a file, not a folder"):
        find_pairs("raindrop", "test_a", tmp_path / "notes.txt")


def test_unknown_names_are_explained(tmp_path):
    with pytest.raises(DerainzooError, match=r"Did you mean.*'rain200h'"):
        find_pairs("rain200", "test", tmp_path)
    with pytest.raises(DerainzooError, match=r"unknown split of raindrop 'test'.*test_a"):
        find_pairs("raindrop", "test", tmp_path)
    assert catalog.dataset_info("DDN-Data").name == "rain1400"


def test_missing_partners_are_named(tmp_path, caplog):
    fake_sets.make(tmp_path, "rain200h", "NeRD-Rain")
    (tmp_path / "train/target/2.png").unlink()
    (tmp_path / "train/input/10.png").unlink()
    with pytest.raises(DerainzooError) as error:
        find_pairs("rain200h", "train", tmp_path)
    assert "1 rainy picture with no clean partner" in str(error.value)
    assert str(tmp_path / "train/input/2.png") in str(error.value)
    assert str(tmp_path / "train/target/10.png") in str(error.value)
    assert [p.name for p in find_pairs("rain200h", "train", tmp_path, strict=False)] == ["1"]
    assert "no clean partner" in caplog.text


def test_numbers_that_prenet_took_out_are_no_error(tmp_path):
    fake_sets.make(tmp_path, "rain100h", "PReNet")
    (tmp_path / "RainTrainH/rain-2.png").unlink()
    assert [p.name for p in find_pairs("rain100h", "train", tmp_path)] == ["1", "10"]
    (tmp_path / "RainTrainH/norain-10.png").unlink()
    with pytest.raises(DerainzooError, match=r"rain-10\.png"):
        find_pairs("rain100h", "train", tmp_path)


def test_a_stray_file_is_left_out_and_told(tmp_path):
    copy = fake_sets.make(tmp_path, "rain13k", "Restormer")
    write_png(tmp_path / "test/Test2800/input/926_10(1).jpg", fake_sets.scene("stray"))
    (tmp_path / "test/Test2800/input/Thumbs.db").write_text("")
    (tmp_path / "test/Test2800/input/._5_1.jpg").write_text("")
    found = find("rain13k", "test2800", tmp_path)
    assert len(found.match.pairs) == len(copy["test2800"])
    assert any("926_10(1).jpg" in note and "1 picture with" in note for note in found.notes)


def test_counts_are_compared_with_the_published_ones(tmp_path):
    fake_sets.make(tmp_path, "rain200h", "NeRD-Rain")
    assert "3 pairs, where 200 were published" in find("rain200h", "test", tmp_path).notes
    fake_sets.write(tmp_path / "Rain12", fake_sets._two("", rainy="rainy", clean="gt"))
    assert find("rain12", "test", tmp_path).notes == ("3 pairs, where 12 were published",)


def test_two_copies_in_one_folder_are_told(tmp_path):
    fake_sets.make(tmp_path, "rain800", "cut in two")
    fake_sets.make(tmp_path, "rain800", "original, without its outer folder")
    fake_sets.write(tmp_path, [fake_sets.Fake("11", "training/11.jpg", "training/11.jpg", "11", side="right")])
    found = find("rain800", "train", tmp_path)
    assert found.match.layout.title == "original, without its outer folder"
    assert any("layout 'cut in two' matches too, with 3 pairs" in n and "most pairs" in n for n in found.notes)


def test_two_files_of_one_name(tmp_path):
    for folder in ("input", "target"):
        write_png(tmp_path / folder / "1.png", fake_sets.scene("a"))
        write_png(tmp_path / folder / "1.jpg", fake_sets.scene("b"))
    pairs = find_pairs("folder", "all", tmp_path)
    assert [(p.name, p.rainy.suffix, p.clean.suffix) for p in pairs] == [("1.jpg", ".jpg", ".jpg"), ("1.png", ".png", ".png")]
    write_png(tmp_path / "clean" / "1.png", fake_sets.scene("c"))
    with pytest.raises(DerainzooError, match="could belong to"):
        find_pairs("folder", "all", tmp_path)


def test_an_extension_may_differ_between_the_two_sides(tmp_path):
    write_png(tmp_path / "input/1.JPG", fake_sets.scene("a"))
    write_png(tmp_path / "target/1.webp", fake_sets.scene("a"))
    assert [p.name for p in find_pairs("folder", "all", tmp_path)] == ["1"]


def test_a_list_that_does_not_fit_is_explained(tmp_path):
    fake_sets.make(tmp_path, "spa_data", "original")
    (tmp_path / "real_world.txt").write_text("./real_world/000/000-3/000-3_0_0.png\n")
    with pytest.raises(DerainzooError, match=r"real_world\.txt, line 1: expected .* found"):
        find_pairs("spa_data", "train", tmp_path)
    (tmp_path / "real_world.txt").write_text("./real_world/001/a/b.png ./real_world_gt/001/a/b.png\n")
    with pytest.raises(DerainzooError, match="not there"):
        find_pairs("spa_data", "train", tmp_path)


# ---------------------------------------------------------------------------------------------------- patterns of a user


def test_two_folders_of_any_name(tmp_path):
    fake_sets.write(tmp_path, [fake_sets.Fake("7", "wet/img7.png", "dry/img7.png", "7")])
    assert [p.name for p in find_pairs("folder", "all", tmp_path, files=Files("wet/{name}", "dry/{name}"))] == ["img7"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_folder_of_side_by_side_pictures(tmp_path, side):
    fakes = [fake_sets.Fake(n, f"{n}.png", f"{n}.png", n, side=side) for n in ("u", "v")]
    fake_sets.write(tmp_path, fakes)
    check(find_pairs("folder", "all", tmp_path, files=Files("{name}", "{name}", side=side)), fakes, tmp_path)


def test_an_odd_width_cannot_be_cut_in_two(tmp_path):
    write_png(tmp_path / "1.png", fake_sets.scene("x")[:, :31])
    with pytest.raises(DerainzooError, match="odd width of 31"):
        read_pair(find_pairs("folder", "all", tmp_path, files=Files("{n}", "{n}", side="left"))[0])


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("a/{n}.png", "a/007.jpeg", {"n": "7"}),
        ("a_b/{n}_{k}.png", "A B/3_14.png", {"n": "3", "k": "14"}),
        ("{scene}/{scene}-R-{n}.png", "x-1/x-1-R-003.png", {"scene": "x-1", "n": "3"}),
        ("{density:Heavy|Light}/{name}.png", "LIGHT/Foo.png", {"density": "light", "name": "Foo"}),
        ("{*:|pre-}{n}.png", "pre-4.png", {"n": "4"}),
        ("{*}-{n}.png", "x-y-4.png", {"n": "4"}),
        ("{path}", "p/q/r.png", {"path": "p/q/r"}),
    ],
)
def test_patterns(tmp_path, pattern, path, fields):
    write_png(tmp_path / path, fake_sets.scene("x"))
    assert list(Pattern.parse(pattern).walk(layouts.Tree(), tmp_path)) == [(tmp_path / path, fields)]


def test_mistakes_in_patterns_are_explained(tmp_path):
    fake_sets.make(tmp_path, "folder", "two folders")
    with pytest.raises(DerainzooError, match=r"unknown field in '\{nmae\}' 'nmae'\. Did you mean 'name'"):
        find_pairs("folder", "all", tmp_path, files=Files("rainy/{name}", "clean/{name}", name="{nmae}"))
    with pytest.raises(DerainzooError, match="has no field"):
        find_pairs("folder", "all", tmp_path, files=Files("rainy/b.png", "clean/b.png"))
    with pytest.raises(DerainzooError, match="'left' or 'right', not 'top'"):
        Files("{name}", "{name}", side="top")


def test_a_link_that_leads_round_is_no_trap(tmp_path):
    write_png(tmp_path / "a/1.png", fake_sets.scene("x"))
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert [p.name for p in find_pairs("pictures", "all", tmp_path)] == ["a/1"]


@pytest.mark.parametrize("pattern", ["{n}.png", "{scene}/{scene}-{n}.png", "rain-{n}.png", "{*:x|y}-a.png"])
def test_patterns_that_do_not_match(tmp_path, pattern):
    for path in ("a.png", "norain-1.png", "s/t-1.png", "z-a.png", "1.txt", "1.png.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    assert list(Pattern.parse(pattern).walk(layouts.Tree(), tmp_path)) == []


def test_clean_patterns_have_no_fields_of_their_own():
    for info in DATASETS.values():
        for layout in info.layouts:
            for files in layout.splits.values():
                for clean in files.clean_patterns:
                    assert set(Pattern.parse(clean).fields) <= set(Pattern.parse(files.rainy).fields)


# ----------------------------------------------------------------------------------------------- dividing a training set


def some_pairs(scenes: int, versions: int = 3) -> list[Pair]:
    return [Pair(f"{s}_{v}", Path(f"{s}_{v}.png"), Path(f"{s}.png"), str(s)) for s in range(scenes) for v in range(versions)]


def test_a_scene_is_never_divided():
    pairs = some_pairs(40)
    rest, held = split_by_background(pairs, 0.25, seed=3)
    assert len({p.background for p in held}) == 10
    assert not {p.background for p in rest} & {p.background for p in held}
    assert sorted(rest + held, key=pairs.index) == pairs
    assert rest == [p for p in pairs if p in rest]


def test_dividing_does_not_depend_on_the_order_and_hardly_on_additions():
    pairs = some_pairs(100)
    held = {p.background for p in split_by_background(pairs, 0.2, seed=0)[1]}
    assert {p.background for p in split_by_background(pairs[::-1], 0.2, seed=0)[1]} == held
    assert {p.background for p in split_by_background(pairs, 20, seed=0)[1]} == held
    assert {p.background for p in split_by_background(pairs, 0.2, seed=1)[1]} != held
    more = {p.background for p in split_by_background(some_pairs(105), 0.2, seed=0)[1]}
    assert len(held - more) <= 5
    # for good: the scenes 0 to 9 whose "SEED SCENE" has the smallest sha256
    assert {p.background for p in split_by_background(some_pairs(10), 3, seed=0)[1]} == {"6", "4", "2"}


def test_two_halves():
    first, second = two_halves(some_pairs(20), seed=0)
    assert len(first) == len(second) == 30
    assert not {p.background for p in first} & {p.background for p in second}


@pytest.mark.parametrize("held_out", [0, 0.01, 1.0, 5, 7])
def test_nothing_left_is_an_error(held_out):
    pairs = some_pairs(5) if held_out != 1.0 else some_pairs(1)
    with pytest.raises(DerainzooError, match="scenes"):
        split_by_background(pairs, held_out, seed=0)


# ----------------------------------------------------------------------------------------------------------------- facts


def test_facts_are_consistent():
    for name, info in DATASETS.items():
        assert info.name == name
        assert info.task in {"derain", "raindrop", "deblur", "lowlight", "underwater", "any"}
        assert {split for layout in info.layouts for split in layout.splits} == set(info.splits)
        if info.task != "any":
            assert info.url.startswith("https://")
            assert info.sources
            assert info.folders
    aliases = [alias for info in DATASETS.values() for alias in (info.name, *info.aliases)]
    assert len(aliases) == len(set(aliases))
    for overlap in OVERLAPS:
        for side in (overlap.a, overlap.b):
            name, split = side.split("/")
            assert split in DATASETS[name].splits


def test_known_overlaps_are_found_from_both_sides():
    (found,) = catalog.known_overlaps("rain100l/train", "rain200h/test")
    assert catalog.known_overlaps("rain200h/test", "Rain100L/train") == [found]
    assert found in catalog.known_overlaps("rain200h/test")
    assert catalog.known_overlaps("rain200h/test", "gopro/test") == []


def test_importing_the_catalog_is_cheap():
    code = "import sys, json, derainzoo.data.catalog; print(json.dumps(sorted(sys.modules)))"
    loaded = set(
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=python_path()).stdout)
    )
    assert not loaded & {"torch", "numpy", "cv2", "PIL", "pytorch_lightning", "hydra"}


def python_path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(catalog.__file__).parents[2])}


def test_listing(tmp_path):
    fake_sets.make(tmp_path / "Rain200H", "rain200h", "NeRD-Rain")
    lines = catalog.format_listing(tmp_path).splitlines()
    assert len(lines) == len(DATASETS) + 2
    (line,) = (text for text in lines if text.startswith("rain200h"))
    assert str(tmp_path / "Rain200H") in line
    assert "train 1800, test 200" in line
    assert "found" not in catalog.format_listing()


def test_the_page_shows_the_catalog():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert catalog.markdown_table() in page
    assert catalog.markdown_notes() in page
    assert catalog.markdown_overlaps() in page


def test_natural_order():
    assert sorted(["10", "2", "1", "a10", "a9", "B1"], key=natural_key) == ["1", "2", "10", "a9", "a10", "B1"]


# ------------------------------------------------------------------------------------------------------------ real files


@pytest.mark.shared
def test_real_samples(shared):
    assert len(find_pairs("folder", "all", shared / "data/Rain100L-train")) == 200
    rain12 = find_pairs("rain12", "test", shared / "data/pairs")
    assert [p.name for p in rain12] == [str(n) for n in range(1, 13)]
    assert find("rain12", "test", shared / "data/pairs").notes == ()
    assert find_root("rain12", shared / "data/pairs") == shared / "data/pairs/Rain12"
    names = [p.name for p in find_pairs("folder", "all", shared / "data/pairs/Rain200H")]
    assert names[:4] == ["2", "3", "15", "23"]
    assert len(find_pairs("pictures", "all", shared / "data/backgrounds")) == 610
