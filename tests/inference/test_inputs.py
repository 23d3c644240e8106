"""Which files become which."""

import os

import pytest

from derainzoo.errors import DerainzooError
from derainzoo.inference.inputs import find_jobs


@pytest.fixture
def wet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("wet/a.png", "wet/B.JPG", "wet/sub dir/ü.webp", "wet/sub dir/clip.MP4", "wet/notes.txt", "wet/.hidden.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "wet/.cache").mkdir()
    (tmp_path / "wet/.cache/a.png").touch()
    return tmp_path / "wet"


def table(*inputs, output="dry", **options):
    from pathlib import Path

    found = find_jobs([str(i) for i in inputs], Path(output), **options)
    return {str(job.source): str(job.target) for job in found.jobs}, found


def test_folders_keep_their_structure(wet):
    jobs, found = table("wet")
    assert jobs == {
        "wet/B.JPG": "dry/B.JPG",
        "wet/a.png": "dry/a.png",
        "wet/sub dir/clip.MP4": "dry/sub dir/clip.MP4",
        "wet/sub dir/ü.webp": "dry/sub dir/ü.webp",
    }
    assert {str(path) for path in found.ignored} == {"wet/notes.txt"}
    assert [job.is_video for job in found.jobs] == [False, False, True, False]
    assert not found.missing


def test_files_lose_their_folder(wet):
    assert table("wet/a.png", wet / "sub dir" / "ü.webp")[0] == {
        "wet/a.png": "dry/a.png",
        str(wet / "sub dir" / "ü.webp"): "dry/ü.webp",
    }


def test_patterns_keep_what_is_behind_their_fixed_part(wet):
    assert table("wet/*.png")[0] == {"wet/a.png": "dry/a.png"}
    assert table("wet/**/*.webp")[0] == {"wet/sub dir/ü.webp": "dry/sub dir/ü.webp"}
    jobs, found = table("w*/*")
    assert jobs == {
        "wet/B.JPG": "dry/wet/B.JPG",
        "wet/a.png": "dry/wet/a.png",
        "wet/sub dir/clip.MP4": "dry/wet/sub dir/clip.MP4",
        "wet/sub dir/ü.webp": "dry/wet/sub dir/ü.webp",
    }
    assert len(found.ignored) == 1
    assert table("wet/**")[0] == {k: v.replace("dry/wet", "dry") for k, v in jobs.items()}


def test_a_file_whose_name_looks_like_a_pattern(wet):
    (wet / "a[1].png").touch()
    assert table("wet/a[1].png")[0] == {"wet/a[1].png": "dry/a[1].png"}


def test_what_is_named_twice_is_done_once(wet):
    assert len(table("wet/a.png", "./wet/a.png", "wet", "wet/*.png")[1].jobs) == 4


def test_missing_inputs_are_listed_and_the_others_done(wet):
    jobs, found = table("nowhere.png", "wet/a.png", "nowhere/*.jpg")
    assert list(jobs) == ["wet/a.png"]
    assert found.missing == ["nowhere.png: no such file or folder", "nowhere/*.jpg: no file matches"]


def test_another_format_changes_the_suffix_of_pictures_only(wet):
    jobs, _ = table("wet", suffix=".webp")
    assert sorted(jobs.values()) == ["dry/B.webp", "dry/a.webp", "dry/sub dir/clip.MP4", "dry/sub dir/ü.webp"]


def test_sheets_have_a_folder_of_their_own(wet):
    found = table("wet", sheets=True)[1]
    assert [job.sheet and str(job.sheet) for job in found.jobs] == [
        "dry/compare/B.jpg",
        "dry/compare/a.jpg",
        None,
        "dry/compare/sub dir/ü.jpg",
    ]


def test_one_file_can_be_given_a_name(wet):
    assert table("wet/a.png", output="dry/better.jpg")[0] == {"wet/a.png": "dry/better.jpg"}
    (wet.parent / "odd.jpg").mkdir()
    assert table("wet/a.png", output="odd.jpg")[0] == {"wet/a.png": "odd.jpg/a.png"}


def test_a_format_that_the_name_of_the_output_says_too_changes_nothing(wet):
    assert table("wet/a.png", output="dry/o.jpeg", suffix=".jpg")[0] == {"wet/a.png": "dry/o.jpeg"}
    assert table("wet/a.png", output="dry/o.PNG", suffix=".png")[0] == {"wet/a.png": "dry/o.PNG"}
    clip = "wet/sub dir/clip.MP4"
    assert table(clip, output="dry/o.mkv", suffix=".png")[0] == {clip: "dry/o.mkv"}


@pytest.mark.parametrize(
    ("source", "output", "suffix", "message"),
    [
        ("wet/a.png", "o.mp4", None, r"taken for a picture, .*named \.bmp, .*found o\.mp4, the name of a video"),
        ("wet/sub dir/clip.MP4", "o.png", None, r"taken for a video, .*\.mkv, .*found o\.png, the name of a picture"),
        ("wet/a.png", "o1.png", ".jpg", r"format=jpg and the output o1\.png contradict .* -o o1\.jpg"),
        ("wet/B.JPG", "o.jpeg", ".webp", "format=webp and the output"),
        ("wet/a.png", "out.tif", None, r"found out\.tif, a kind that is not written"),
        ("wet", "out.HEIC", None, "make a folder of that name first"),
        ("wet", "out.png", None, r"a folder for wet; found out\.png, the name of a file, .* -o out, or make one"),
        ("wet/*.png", "out.mp4", None, r"a folder for wet/\*\.png; found out\.mp4"),
        ("wet/sub dir/clip.MP4", "out.gif", None, r"found out\.gif"),
    ],
)
def test_a_name_that_promises_something_else_is_refused(wet, source, output, suffix, message):
    with pytest.raises(DerainzooError, match=message):
        table(source, output=output, suffix=suffix)
    os.mkdir(output)  # whoever has such a folder means it
    assert all(target.startswith(f"{output}/") for target in table(source, output=output, suffix=suffix)[0].values())


def test_several_files_are_not_written_under_the_name_of_one(wet):
    with pytest.raises(DerainzooError, match=r"a folder for wet/a\.png wet/B\.JPG; found o\.png"):
        table("wet/a.png", "wet/B.JPG", output="o.png")
    assert not os.path.exists("o.png")


def test_an_output_inside_the_input_is_no_input(wet):
    (wet / "dry").mkdir()
    (wet / "dry/a.png").touch()
    for word in ("wet", "wet/*", "wet/**/*.png"):
        assert "wet/dry/a.png" not in table(word, output="wet/dry")[0], word
    assert table("wet/dry/a.png", output="wet/dry/more")[0]  # said in so many words it is


def test_an_output_around_the_input_does_no_harm(wet):
    assert table("wet/*.png", output=".")[0] == {"wet/a.png": "a.png"}


@pytest.mark.parametrize(
    ("inputs", "output", "options", "message"),
    [
        (["wet"], "wet", {}, "is itself an input"),
        (["wet/a.png"], "wet", {}, "is itself an input"),
        (["wet/a.png"], "wet/a.png", {}, "is itself an input"),
        (["wet/a.png", "other/a.png"], "dry", {}, "wet/a.png and other/a.png would both become dry/a.png"),
        (["wet/a.png", "other/a.jpg"], "dry", {"suffix": ".png"}, "would both become"),
        (["wet/a.png", "other/a.jpg"], "dry", {"sheets": True}, "both become dry/compare/a.jpg"),
    ],
)
def test_collisions_are_refused_before_anything_is_done(wet, inputs, output, options, message):
    os.makedirs("other")
    for name in ("other/a.png", "other/a.jpg"):
        open(name, "w").close()
    with pytest.raises(DerainzooError, match=message):
        table(*inputs, output=output, **options)


def test_a_result_that_is_a_link_to_its_input_is_refused(wet):
    os.makedirs("dry")
    os.symlink(wet / "a.png", "dry/a.png")
    with pytest.raises(DerainzooError, match="is itself an input"):
        table("wet/a.png")


def test_circles_of_links_end(wet):
    os.symlink(wet, wet / "sub dir" / "again")
    os.symlink("nowhere.png", wet / "dangling.png")
    jobs, _ = table("wet")
    assert len(jobs) == 5
    assert "wet/dangling.png" in jobs  # reported when its turn comes


def test_folders_that_cannot_be_read_are_listed(wet, monkeypatch):
    from pathlib import Path

    iterdir = Path.iterdir

    def locked(path):
        if path.name == "sub dir":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", locked)
    jobs, found = table("wet")
    assert len(jobs) == 2
    assert found.missing == ["wet/sub dir: Permission denied"]
