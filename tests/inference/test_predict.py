"""The task: everything that can be done is done, nothing is half-written, and what failed is said."""

import logging
import os
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

import derainzoo
from derainzoo import cli, config
from derainzoo.engine.predict import predict
from derainzoo.errors import DerainzooError
from derainzoo.files import config_dir
from derainzoo.images import read_image, write_png
from derainzoo.inference import progress
from derainzoo.inference.predict import make_predictor
from derainzoo.inference.stages import ahead
from derainzoo.models.checkpoints import save_weights
from derainzoo.models.layers import GlobalPool
from tasks import configured

TINY = {"dim": 8, "blocks": 1}


class Inverse(torch.nn.Module):
    def __init__(self, stop_after=None):
        super().__init__()
        self.left = stop_after

    def forward(self, x):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        return 1 - x


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    config.register()
    return tmp_path


@pytest.fixture
def network(monkeypatch):
    """Puts a network in the place of the one that the task would load."""

    def use(net):
        monkeypatch.setattr("derainzoo.inference.predict.load_network", lambda *args, **kwargs: net)

    use(Inverse())
    return use


def run(*words):
    """The task as the command composes and calls it; returns the exit status."""
    overrides = cli.canonical(["predict", *(str(w) for w in words)])
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    try:
        predict(cfg)
    except SystemExit as end:
        return end.code
    return 0


def pictures(folder, *names, size=(12, 17)):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder(folder, network, caplog):
    pictures(folder / "wet", "a.png", "sub dir/ü.webp", "c.bmp")
    (folder / "wet/notes.txt").touch()
    assert run("wet", "-o", "dry") == 0
    assert tree(folder / "dry") == ["a.png", "c.bmp", "sub dir/ü.webp"]
    for name in tree(folder / "dry"):
        assert np.array_equal(read_image(folder / "dry" / name), 255 - read_image(folder / "wet" / name))
    assert "3 done; passed over, as neither picture nor video: 1" in caplog.text
    assert sorted(p.name for p in folder.iterdir()) == ["dry", "wet"]  # no folder of a run


def test_results_are_left_alone_unless_asked(folder, network, caplog):
    pictures(folder / "wet", "a.png", "b.png")
    pictures(folder / "dry", "a.png")
    old = (folder / "dry/a.png").read_bytes()
    assert run("wet", "-o", "dry") == 0
    assert (folder / "dry/a.png").read_bytes() == old
    assert "1 done; 1 had results already (--overwrite does them again)" in caplog.text
    assert run("wet", "-o", "dry", "--overwrite") == 0
    assert (folder / "dry/a.png").read_bytes() != old


def test_nothing_is_loaded_if_all_is_done(folder, monkeypatch):
    pictures(folder, "wet/a.png", "dry/a.png")
    monkeypatch.setattr("derainzoo.inference.predict.load_network", lambda *a, **k: pytest.fail("loaded"))
    assert run("wet", "-o", "dry") == 0


def bomb() -> bytes:
    """A PNG of a kilobyte that says it has 40,000 x 40,000 pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(10**6))),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_broken_files_are_reported_and_the_rest_is_done(folder, network, caplog):
    pictures(folder / "wet", "a.png", "z.png")
    whole = (folder / "wet/a.png").read_bytes()
    (folder / "wet/cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "wet/empty.jpg").touch()
    (folder / "wet/page.jpg").write_text("<!DOCTYPE html><title>404</title>")
    (folder / "wet/bomb.png").write_bytes(bomb())
    (folder / "wet/dangling.png").symlink_to("nowhere.png")
    Image.new("L", (4, 4)).save(folder / "wet/moving.webp", save_all=True, append_images=[Image.new("L", (4, 4), 9)])
    Image.new("L", (4, 4)).save(folder / "one.gif")
    assert run("wet", "one.gif", "nowhere.png", "-o", "dry") == 1
    assert tree(folder / "dry") == ["a.png", "z.png"]
    failures = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert len(failures) == 8
    for text in (
        "failed: nowhere.png: no such file or folder",
        "failed: wet/cut.png: damaged PNG",
        "failed: wet/empty.jpg: expected a PNG, JPEG, WebP or BMP picture, but it is empty",
        "it is a web page",
        "failed: wet/bomb.png: 40000 x 40000 is 1600 megapixels, more than the limit of 200",
        "failed: no such picture: wet/dangling.png",
        "failed: wet/moving.webp: an animated WebP of 2 frames",
        "failed: one.gif: expected a PNG, JPEG, WebP or BMP picture, but it is a GIF",
    ):
        assert any(text in failure for failure in failures), text
    assert "2 done; 8 failed" in caplog.text


def test_the_limit_of_pixels_is_an_option(folder, network):
    pictures(folder, "a.png")
    assert run("a.png", "max_pixels=100") == 1
    assert run("a.png", "max_pixels=1000") == 0


def test_an_interrupted_run_leaves_whole_files_and_goes_on(folder, network, caplog):
    names = [f"{i}.png" for i in range(8)]
    pictures(folder / "wet", *names)
    network(Inverse(stop_after=4))
    assert run("wet", "-o", "dry") == 130
    assert "interrupted" in caplog.text
    done = tree(folder / "dry")
    assert 1 <= len(done) <= 4
    assert not [name for name in done if name not in names]  # no temporary file is left
    for name in done:
        assert np.array_equal(read_image(folder / "dry" / name), 255 - read_image(folder / "wet" / name))
    stamps = {name: (folder / "dry" / name).stat().st_mtime_ns for name in done}
    network(Inverse())
    assert run("wet", "-o", "dry") == 0
    assert tree(folder / "dry") == names
    assert stamps == {name: (folder / "dry" / name).stat().st_mtime_ns for name in done}


def test_a_full_disk_stops_everything(folder, network, monkeypatch):
    pictures(folder / "wet", *[f"{i}.png" for i in range(30)])

    def full(path, data):
        with open(path, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(DerainzooError, match=r"No space left on device .*the same command goes on"):
        run("wet", "-o", "dry")
    assert tree(folder / "dry") == []


def test_one_file_that_cannot_be_written_stops_nothing(folder, network, caplog):
    pictures(folder / "wet", "a.png", "b/c.png")
    (folder / "dry").mkdir()
    (folder / "dry/b").touch()  # a file where a folder is needed
    assert run("wet", "-o", "dry") == 1
    assert tree(folder / "dry") == ["a.png", "b"]
    assert "failed: wet/b/c.png:" in caplog.text


@pytest.mark.parametrize("output", ["wet/a.png/dry", "/proc/dry"])
def test_an_output_that_cannot_be_written_is_said_before_anything_is_loaded(folder, monkeypatch, output):
    pictures(folder, "wet/a.png", "b.png")
    monkeypatch.setattr("derainzoo.inference.predict.load_network", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(DerainzooError, match=f"cannot write into {output}"):
        run("b.png", "wet", "-o", output)


def test_a_read_only_output(folder, network, monkeypatch):
    pictures(folder, "a.png")

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(DerainzooError, match="Read-only file system"):
        run("a.png", "-o", "dry")


def test_mistakes_leave_no_folder_behind(folder):
    pictures(folder, "a.png")
    with pytest.raises(DerainzooError, match="no weights for restormer"):
        run("a.png", "-o", "dry", "--model=restormer")
    for words, message in ((["format=tiff"], "format must be one of png"), (["quality=0"], "quality must be from 1 to 100")):
        with pytest.raises(DerainzooError, match=message):
            run("a.png", "-o", "dry", "--allow-random", *words)
    assert tree(folder) == ["a.png"]
    assert not (folder / "dry").exists()


def test_formats_and_quality(folder, network):
    pictures(folder / "wet", "a.png", "b.jpg", size=(64, 64))
    assert run("wet", "-o", "low", "--format=jpg", "--quality=40") == 0
    assert run("wet", "-o", "high", "--format=jpg") == 0
    assert tree(folder / "low") == ["a.jpg", "b.jpg"]
    assert all((folder / "low" / n).stat().st_size < (folder / "high" / n).stat().st_size / 1.5 for n in ("a.jpg", "b.jpg"))
    assert run("wet/a.png", "-o", "one.webp") == 0
    assert Image.open(folder / "one.webp").format == "WEBP"


def test_notes_are_told(folder, network, caplog):
    write_png(folder / "deep.png", np.full((4, 4, 3), 1000, np.uint16))
    assert run("deep.png", "-o", "dry", "--format=jpg") == 0
    assert "deep.png: 16 bits became 8" in caplog.text


def test_sheets_show_both(folder, network):
    pictures(folder / "wet", "a.png", size=(40, 50))
    write_png(folder / "wet/deep.png", np.full((40, 50), 20_000, np.uint16))
    assert run("wet", "-o", "dry", "--compare") == 0
    assert tree(folder / "dry") == ["a.png", "compare/a.jpg", "compare/deep.jpg", "deep.png"]
    sheet = np.asarray(Image.open(folder / "dry/compare/deep.jpg")).astype(int)
    assert sheet.shape == (40, 50 + 8 + 50)
    assert abs(sheet[:, :50] - 20_000 / 257).max() < 3
    assert abs(sheet[:, 58:] - 45_535 / 257).max() < 3


def test_sheets_of_wide_pictures_are_scaled(folder, network):
    write_png(folder / "wide.png", np.zeros((10, 20_000, 3), np.uint8))
    assert run("wide.png", "-o", "dry", "--compare", "tile=null") == 0
    assert Image.open(folder / "dry/compare/wide.jpg").size == (16_384, 4)


def test_weights_and_model_of_the_command_line(folder, caplog):
    pictures(folder, "a.png")
    net = derainzoo.create_model("elf_lw", **TINY).eval()
    save_weights(folder / "w.safetensors", net, "elf_lw", TINY)
    for i, words in enumerate((["-w", "w.safetensors"], ["--weights", "w.safetensors", "--model", "elf_lw"])):
        assert run("a.png", "-o", f"dry{i}", *words) == 0
        assert np.array_equal(read_image(folder / f"dry{i}/a.png"), derainzoo.derain(read_image(folder / "a.png"), net))
    with pytest.raises(DerainzooError, match="holds a network 'elf_lw', not 'elf'"):
        run("a.png", "-o", "dry3", "--weights", "w.safetensors", "--model", "elf")


def test_random_weights_are_the_same_in_every_run(folder):
    pictures(folder, "a.png")
    for name in ("one", "two"):
        assert run("a.png", "-o", name, "--allow-random", "model=elf_lw", "model.dim=8", "model.blocks=1") == 0
    assert (folder / "one/a.png").read_bytes() == (folder / "two/a.png").read_bytes()


# --- stages and progress ----------------------------------------------------------------------------------------------------


def test_stages_keep_the_order_and_stay_only_so_far_ahead():
    started, lock = [], threading.Lock()

    def work(i):
        with lock:
            started.append(i)
        time.sleep(0.001 * (i % 3))
        return i

    results = ahead(work, range(50), threads=3, depth=4)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(started) <= 5
    assert list(results) == list(range(1, 50))


def test_reading_computing_and_writing_overlap():
    """Each takes 10 ms an item: together not 30."""
    running, most = set(), [0]

    def stage(name):
        def run(item):
            running.add(name)
            most[0] = max(most[0], len(running))
            time.sleep(0.01)
            running.discard(name)
            return item

        return run

    began = time.perf_counter()
    chain = ahead(stage("write"), (stage("compute")(i) for i in ahead(stage("read"), range(30), 1)), 1)
    assert list(chain) == list(range(30))
    assert most[0] == 3
    assert time.perf_counter() - began < 30 * 0.03 * 0.8


def test_an_error_in_a_stage_comes_out_and_the_threads_end():
    def work(i):
        if i == 3:
            raise ValueError("three")
        return i

    results = ahead(work, range(10), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor") and t.is_alive()]


def test_progress_tells_speed_and_time_left_in_lines(monkeypatch, caplog):
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.Progress(10, "images") as bar:
        bar.step(worked=False)
        for _ in range(8):
            bar.step()
    lines = [r.message for r in caplog.records]
    assert 2 <= len(lines) < 9
    assert lines[0] == "3/10 images, 0.2 images/s, 0:35 left"  # two in ten seconds, as one took no work


def test_clock():
    assert [progress.clock(s) for s in (0.4, 65, 3723)] == ["0:00", "1:05", "1:02:03"]


# --- as a process -----------------------------------------------------------------------------------------------------------


def command(folder, *words):
    return subprocess.run([sys.executable, "-m", "derainzoo", *words], cwd=folder, capture_output=True, text=True, check=False)


def test_the_command_ends_with_a_status_and_imports_no_lightning(folder):
    pictures(folder / "wet", "a.png")
    (folder / "wet/bad.png").touch()
    net = ["--allow-random", "model=elf_lw", "model.dim=8", "model.blocks=1"]
    code = (
        "import sys\nfrom derainzoo.cli import main\n"
        "try: main()\nfinally: assert 'pytorch_lightning' not in sys.modules and 'torchvision' not in sys.modules\n"
    )
    words = [sys.executable, "-c", code, "predict", "wet", "-o", "dry", *net]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "failed: wet/bad.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(folder) == ["dry/a.png", "wet/a.png", "wet/bad.png"]


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_processes_share_a_folder(folder):
    names = [f"{i}.png" for i in range(5)]
    pictures(folder / "wet", *names)
    (folder / "wet/bad.png").touch()
    net = ["--allow-random", "model=elf_lw", "model.dim=8", "model.blocks=1"]
    done = command(folder, "predict", "wet", "-o", "dry", "device=cpu", "trainer.devices=2", *net)
    assert done.returncode == 1, done.stderr
    assert "5 done; 1 failed" in done.stderr
    assert tree(folder / "dry") == names
    assert command(folder, "predict", "wet", "-o", "alone", "device=cpu", *net).returncode == 1
    for name in names:
        assert (folder / "dry" / name).read_bytes() == (folder / "alone" / name).read_bytes()
    assert sorted(os.listdir(folder)) == ["alone", "dry", "wet"]


def test_pooling_over_windows_is_asked_for_by_the_size_of_training_patches():
    words = [
        "predict",
        "input=-",
        "model=nafnet",
        "model.width=8",
        "model.encoder=[1]",
        "model.decoder=[1]",
        "allow_random=true",
    ]
    for local_pool, windows in (("null", {None}), ("64", {(96, 96), (48, 48)}), ("[64,32]", {(96, 48), (48, 24)})):
        net = make_predictor(configured(*words, "device=cpu", f"local_pool={local_pool}")).net
        assert {m.window for m in net.modules() if isinstance(m, GlobalPool)} == windows
    with pytest.raises(DerainzooError, match="no global pooling"):
        make_predictor(configured("predict", "input=-", "model=prn", "allow_random=true", "device=cpu", "local_pool=64"))
