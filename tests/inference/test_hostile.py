"""Folders that somebody made to do harm, or that a disk made on its own: all that can be done is done, and it ends."""

import logging
import os

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from derainzoo.engine.predict import predict
from derainzoo.errors import DerainzooError
from derainzoo.images import read_image, write_png
from pictures import picture
from tasks import configured
from web_server import Inverse


@pytest.fixture
def wet(tmp_path, monkeypatch, caplog):
    """A folder with one good picture, and a network that turns colours around."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("derainzoo.inference.predict.load_network", lambda *args, **kwargs: Inverse())
    caplog.set_level(logging.INFO)
    write_png(tmp_path / "wet/good.png", picture(1, 20, 30))
    return tmp_path / "wet"


def run(*words):
    try:
        predict(configured("predict", *words, "-o", "dry", "device=cpu"))
    except SystemExit as end:
        return end.code
    return 0


def results(wet):
    return sorted(os.fsencode(p.relative_to(wet.parent / "dry")) for p in (wet.parent / "dry").rglob("*") if p.is_file())


@pytest.mark.timeout(60)
def test_pipes_links_in_circles_and_folders_that_are_called_pictures(wet, caplog):
    os.mkfifo(wet / "pipe.png")  # whoever opens it waits for ever
    (wet / "loop.png").symlink_to("loop.png")
    (wet / "ping.png").symlink_to("pong.png")
    (wet / "pong.png").symlink_to("ping.png")
    (wet / "below").symlink_to(wet, target_is_directory=True)
    (wet / "folder.png").mkdir()
    write_png(wet / "folder.png/inside.png", picture(2, 20, 30))
    assert run("wet") == 1
    assert results(wet) == [b"folder.png/inside.png", b"good.png"]
    for name in ("pipe.png", "loop.png", "ping.png", "pong.png"):
        assert f"wet/{name}" in caplog.text
    assert run(*(f"wet/{name}" for name in ("loop.png", "pipe.png"))) == 1


def test_names_of_all_kinds(wet):
    names = [b"caf\xe9.png", b"-o.png", b"a=b.png", b"[x].png", b"$(touch x).png", b"new\nline.png", "雨 ☔.png".encode()]
    names += [b"." + b"n" * 200 + b".png", b"n" * 240 + b".png"]  # hidden; nearly as long as names may be
    for i, name in enumerate(names):
        write_png(wet / "plain.png", picture(i, 20, 30))
        os.rename(wet / "plain.png", os.path.join(os.fsencode(wet), name))
    assert run("wet") == 0
    assert results(wet) == sorted([b"good.png", *(name for name in names if not name.startswith(b"."))])
    assert sorted(os.listdir(wet.parent)) == ["dry", "wet"]
    folder = os.fsencode(wet)
    for name in results(wet):
        dry, before = (read_image(os.fsdecode(os.path.join(f, name))) for f in (os.fsencode(wet.parent / "dry"), folder))
        assert np.array_equal(dry, 255 - before)


def test_mislabelled_truncated_and_tiny_pictures(wet, caplog):
    Image.fromarray(picture(3, 20, 30)).save(wet / "jpeg.png", "JPEG")
    Image.fromarray(picture(3, 20, 30)).save(wet / "png.jpg", "PNG")
    Image.new("RGB", (1, 1), (10, 20, 30)).save(wet / "pixel.png")
    whole = (wet / "good.png").read_bytes()
    empty = whole.replace((30).to_bytes(4, "big") + (20).to_bytes(4, "big"), bytes(8))  # 0 x 0, as its header says
    for name, data in {"cut.png": whole[:-200], "head.png": whole[:30], "zero.png": empty, "text.png": b"no picture"}.items():
        (wet / name).write_bytes(data)
    assert run("wet") == 1
    assert results(wet) == [b"good.png", b"jpeg.png", b"pixel.png", b"png.jpg"]
    assert read_image("dry/pixel.png").tolist() == [[[245, 235, 225]]]
    assert Image.open("dry/jpeg.png").format == "PNG"  # what its name promises
    assert "4 done; 4 failed" in caplog.text


@pytest.mark.parametrize("form", ["png", "bmp", "jpg", "webp"])
def test_a_resolution_that_no_format_can_state(wet, form):
    tags = Image.Exif()
    tags[ExifTags.Base.XResolution] = tags[ExifTags.Base.YResolution] = TiffImagePlugin.IFDRational(2**31, 1)
    tags[ExifTags.Base.ResolutionUnit] = 2
    Image.fromarray(picture(4, 20, 30)).save(wet / "odd.jpg", exif=tags)
    assert run("wet", f"--format={form}") == 0
    assert results(wet) == [f"good.{form}".encode(), f"odd.{form}".encode()]


def test_an_error_that_nobody_foresaw_ends_one_file(wet, caplog, monkeypatch):
    class Odd(Inverse):
        def forward(self, x):
            return super().forward(x) if x.shape[-1] < 50 or x.is_meta else {}["wide"]

    monkeypatch.setattr("derainzoo.inference.predict.load_network", lambda *args, **kwargs: Odd())
    caplog.set_level(logging.DEBUG)
    write_png(wet / "before.png", picture(5, 20, 60))
    assert run("wet") == 1
    assert results(wet) == [b"good.png"]
    assert "failed: wet/before.png: KeyError: 'wide'" in caplog.text
    assert "1 done; 1 failed" in caplog.text
    (said,) = [record for record in caplog.records if record.exc_info]
    assert said.levelno == logging.DEBUG
    assert "in forward" in caplog.text  # the traceback


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_disk_that_is_really_full(wet, monkeypatch):
    """Every byte that is written goes where there is no space."""

    def write(path, data):
        with open("/dev/full", "wb") as file:
            file.write(data)

    monkeypatch.setattr("pathlib.Path.write_bytes", write)
    with pytest.raises(DerainzooError, match="No space left"):
        run("wet/good.png")
    assert results(wet) == []
