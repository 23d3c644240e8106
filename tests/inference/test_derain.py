"""`derain` gives back what it was given: type, size, dtype and range; and what a Predictor does when memory runs out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import nn

import derainzoo
from derainzoo.errors import DerainzooError
from derainzoo.inference.predictor import Predictor, load_network
from derainzoo.models.checkpoints import save_weights

TINY = {"dim": 8, "blocks": 1}


class Inverse(nn.Module):
    """1 - x, so that it shows whether pixels went through."""

    def forward(self, x):
        assert not self.training
        assert x.shape[1] == 3
        return 1 - x


class Greedy(Inverse):
    """Runs out of memory with more than so many pixels."""

    def __init__(self, pixels, error=None):
        super().__init__()
        self.pixels, self.error = pixels, error or torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, x):
        if x.shape[0] * x.shape[-2] * x.shape[-1] > self.pixels:
            raise self.error
        return super().forward(x)


def noise(*shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.random(shape).astype(dtype) if np.dtype(dtype).kind == "f" else rng.integers(0, np.iinfo(dtype).max, shape, dtype)
    )


# --- arrays and tensors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(20, 31), (20, 31, 1), (20, 31, 3), (1, 1, 3)])
@pytest.mark.parametrize("tile", [None, 16])
def test_arrays(dtype, shape, tile):
    array = noise(*shape, dtype=dtype)
    kept = array.copy()
    result = derainzoo.derain(array, Inverse(), tile=tile)
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    top = 1 if array.dtype.kind == "f" else np.iinfo(dtype).max
    tolerance = {"f": 1e-3 if dtype is np.float16 else 1e-6}.get(array.dtype.kind, 0)
    assert np.abs(result.astype(float) - (top - array.astype(float))).max() <= tolerance
    assert np.array_equal(array, kept)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_passes_by(channels):
    array = noise(20, 31, channels)
    result = derainzoo.derain(array, Inverse())
    assert np.array_equal(result[..., -1], array[..., -1])
    assert np.array_equal(result[..., :-1], 255 - array[..., :-1])


def test_views_and_read_only_arrays():
    array = noise(20, 31, 3)
    assert np.array_equal(derainzoo.derain(array[::-1, ::2], Inverse()), 255 - array[::-1, ::2])
    array.flags.writeable = False
    assert np.array_equal(derainzoo.derain(array, Inverse()), 255 - array)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 20, 31), (2, 3, 20, 31), (1, 20, 31), (2, 4, 20, 31)])
def test_tensors(dtype, shape):
    tensor = torch.from_numpy(noise(*shape)) if dtype == torch.uint8 else torch.rand(shape).to(dtype)
    result = derainzoo.derain(tensor, Inverse())
    assert (result.dtype, result.shape, result.device) == (tensor.dtype, tensor.shape, tensor.device)
    colours = 3 if shape[-3] == 4 else shape[-3]
    expected = (255 if dtype == torch.uint8 else 1) - tensor.double()
    assert (result.double() - expected)[..., :colours, :, :].abs().max() <= (1e-2 if dtype.itemsize == 2 else 1e-6)


def test_what_leaves_the_range_is_cut_off():
    class Loud(nn.Module):
        def forward(self, x):
            return x * 3 - 1

    assert set(np.unique(derainzoo.derain(np.array([[[0, 255, 128]]], np.uint8), Loud()))) == {0, 255, 129}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 20, 30), np.uint8), "channels come last"),
        (np.zeros((0, 30, 3), np.uint8), r"got \(0, 30, 3\)"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.full((4, 4), 255.0), "floats from 0 to 1, got 255 to 255"),
        (np.full((4, 4), np.nan), "floats from 0 to 1"),
        (torch.zeros(20, 30), r"\(C, H, W\)"),
        (torch.zeros(1, 5, 20, 30), "1 to 4 channels"),
        (torch.zeros(1, 3, 0, 30), "pixels in them"),
        (torch.zeros(3, 20, 30, dtype=torch.int32), "got int32"),
        ([[1, 2]], "got list"),
        (Image.new("I", (4, 4)), "mode I"),
    ],
)
def test_what_is_no_picture_is_refused(image, message):
    with pytest.raises(DerainzooError, match=message):
        derainzoo.derain(image, Inverse())


# --- PIL images and paths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "result"),
    [("L", "L"), ("RGB", "RGB"), ("LA", "LA"), ("RGBA", "RGBA"), ("1", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("I;16", "I;16")],
)
def test_pil_images(mode, result):
    if mode == "I;16":
        image = Image.fromarray(noise(20, 31, dtype=np.uint16))
    else:
        image = Image.fromarray(noise(20, 31, 3)).convert(mode)
    image.info["dpi"] = (72, 72)
    done = derainzoo.derain(image, Inverse())
    assert isinstance(done, Image.Image)
    assert (done.mode, done.size, done.info["dpi"]) == (result, image.size, (72, 72))
    colours = len(result.rstrip("A")) if result != "I;16" else 1
    before = np.asarray(image.convert(result)).reshape(20, 31, -1)[..., :colours]
    assert np.array_equal(np.asarray(done).reshape(20, 31, -1)[..., :colours], np.iinfo(before.dtype).max - before)


def test_the_network_sees_a_pil_image_upright():
    class Left(nn.Module):
        def forward(self, x):
            return torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:]], 3)

    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6  # what lies below in the file is left as seen
    image = Image.fromarray(np.full((20, 30, 3), 200, np.uint8))
    image.info["exif"] = tags.tobytes()
    done = np.asarray(derainzoo.derain(image, Left()))
    assert (done[-1] == 0).all()
    assert (done[:-1] == 200).all()


def test_a_path_gives_an_upright_image(tmp_path):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    pixels = noise(20, 31, 3)
    Image.fromarray(pixels).save(tmp_path / "wet.png", exif=tags, icc_profile=b"a profile", dpi=(300, 300))
    done = derainzoo.derain(tmp_path / "wet.png", Inverse())
    assert np.array_equal(np.asarray(done), 255 - np.rot90(pixels, -1))
    assert done.info["icc_profile"] == b"a profile"
    assert ExifTags.Base.Orientation not in done.getexif()


def test_a_deep_file_gives_an_array(tmp_path):
    from derainzoo.images import write_png

    pixels = noise(20, 31, 3, dtype=np.uint16)
    write_png(tmp_path / "deep.png", pixels)
    assert np.array_equal(derainzoo.derain(str(tmp_path / "deep.png"), Inverse()), 65535 - pixels)


# --- networks and weights ---------------------------------------------------------------------------------------------------


def test_weights_say_which_network_they_are_for(tmp_path):
    net = derainzoo.create_model("elf_lw", **TINY).eval()
    save_weights(tmp_path / "w.safetensors", net, "elf_lw", TINY)
    array = noise(20, 31, 3)
    expected = derainzoo.derain(array, net)
    assert np.array_equal(derainzoo.derain(array, weights=tmp_path / "w.safetensors"), expected)
    assert np.array_equal(derainzoo.derain(array, "elf_lw", tmp_path / "w.safetensors"), expected)
    with pytest.raises(DerainzooError, match="holds a network 'elf_lw', not 'elf'"):
        derainzoo.derain(array, "elf", tmp_path / "w.safetensors")


def test_weights_that_change_are_loaded_again(tmp_path):
    array, path, results = noise(20, 31, 3), tmp_path / "w.safetensors", []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_weights(path, derainzoo.create_model("elf_lw", **TINY), "elf_lw", TINY)
        import os

        os.utime(path, ns=(seed, seed))
        results.append(derainzoo.derain(array, weights=path))
    assert not np.array_equal(*results)


def test_random_weights_are_refused_unless_allowed(caplog):
    with pytest.raises(DerainzooError, match=r"no weights for restormer:.*weights=FILE.*train model=restormer`.*convert"):
        derainzoo.derain(noise(4, 4, 3), "restormer")
    load_network("elf_lw", arguments=TINY, allow_random=True)
    assert "random weights" in caplog.text
    with pytest.raises(DerainzooError, match="a file of weights expected, found nothing"):
        derainzoo.derain(noise(4, 4, 3), weights="nowhere.ckpt")
    with pytest.raises(DerainzooError, match="already made"):
        derainzoo.derain(noise(4, 4, 3), Inverse(), "w.safetensors")


def test_a_network_that_was_trained_meanwhile_is_put_back(tmp_path):
    net = Inverse()
    derainzoo.derain(noise(4, 4, 3), net)
    net.train()
    derainzoo.derain(noise(4, 4, 3), net)


@pytest.mark.parametrize("settings", [{"precision": "fp8"}, {"tile": 4}, {"tile": 2.5}, {"overlap": -1}, {"device": "abacus"}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(DerainzooError, match=next(iter(settings))):
        Predictor(Inverse(), **settings)


def test_a_missing_gpu_is_said(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(DerainzooError, match="device=cuda is not to be had here"):
        Predictor(Inverse(), "cuda")


def test_precision_reaches_the_network():
    seen = []

    class Conv(nn.Conv2d):
        def forward(self, x):
            y = super().forward(x)
            seen.append(y.dtype)
            return y

    array = noise(20, 31, 3)
    results = [Predictor(Conv(3, 3, 1), precision=p, tile=None)(array) for p in ("fp32", "bf16")]
    assert seen == [torch.float32, torch.bfloat16]
    assert results[1].dtype == np.uint8


def test_no_numbers_are_no_picture():
    class Broken(nn.Module):
        def forward(self, x):
            return x / 0 * 0

    with pytest.raises(DerainzooError, match="no numbers"):
        derainzoo.derain(noise(20, 31, 3), Broken())


def test_networks_get_channels_last_memory():
    class Layout(nn.Module):
        def forward(self, x):
            assert x.is_contiguous(memory_format=torch.channels_last)
            return x

    for tile in (None, 16):
        derainzoo.derain(noise(20, 31, 3), Layout(), tile=tile)
        derainzoo.derain(noise(20, 31), Layout(), tile=tile)


# --- memory -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")],
)
def test_out_of_memory_halves_the_tile_and_goes_on(caplog, error):
    array = noise(300, 400, 3)
    predictor = Predictor(Greedy(120 * 120, error), tile=None)
    assert np.array_equal(predictor(array), 255 - array)
    assert [r.message for r in caplog.records] == [
        "out of memory on cpu with tiles of 400 pixels: going on with 200",
        "out of memory on cpu with tiles of 200 pixels: going on with 100",
    ]
    caplog.clear()
    predictor(array)
    assert predictor.tile_for(50, 50) == 100
    assert not caplog.records  # learned


def test_out_of_memory_ends_where_tiles_cannot_help():
    with pytest.raises(DerainzooError, match=r"even suffice for tiles of 64 pixels.*lighter network"):
        Predictor(Greedy(100), tile=256)(noise(300, 400, 3))


def test_other_errors_are_not_mistaken_for_it():
    with pytest.raises(RuntimeError, match="size mismatch"):
        Predictor(Greedy(100, RuntimeError("size mismatch")))(noise(300, 400, 3))


def test_auto_takes_whole_what_fits_and_tiles_what_does_not(monkeypatch):
    predictor = Predictor(derainzoo.create_model("elf_lw", **TINY))
    monkeypatch.setattr("derainzoo.inference.predictor.free_memory", lambda device: 10**9)
    assert predictor.tile_for(480, 640) is None
    tile = predictor.tile_for(8000, 12000)
    assert tile % 64 == 0
    assert 512 <= tile <= 8000
    monkeypatch.setattr("derainzoo.inference.predictor.free_memory", lambda device: 10**7)
    assert predictor.tile_for(8000, 12000) < tile / 5


# --- what it costs to have it -----------------------------------------------------------------------------------------------


def test_inference_stands_on_models_alone():
    code = (
        "import sys, derainzoo.engine.predict, derainzoo.inference.predict, derainzoo.inference.kinds\n"
        "above = [m for m in sys.modules if m.split('.')[0] in ('pytorch_lightning', 'torchmetrics', 'torchvision', 'timm')\n"
        "         or m.startswith(('derainzoo.data', 'derainzoo.losses', 'derainzoo.metrics', 'derainzoo.nas'))\n"
        "         or (m.startswith('derainzoo.engine.') and m != 'derainzoo.engine.predict')]\n"
        "assert not above, above\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
