import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from derainzoo.errors import DerainzooError
from derainzoo.images import image_size, read_header, read_image, write_png

H, W = 24, 31


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Smooth enough that lossy formats stay near it, different in every channel and under every turn."""
    y, x = np.mgrid[:H, :W]
    return np.stack([x * 8, y * 10, (x + 2 * y) * 3], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def deep(picture) -> np.ndarray:
    return picture.astype(np.uint16) * 250 + 77


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(samples: np.ndarray, colour: int, extra: bytes = b"", size: tuple[int, int] | None = None) -> bytes:
    """A PNG file of any depth and colour type, made without a library."""
    height, width = size or samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, samples.itemsize * 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encoded(picture: np.ndarray, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(file, **options)
    return file.getvalue()


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# -------------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA"])
@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "PNG", "optimize": True}])
def test_png_is_exact(tmp_path, picture, mode, options):
    data = encoded(picture, mode, **options)
    (tmp_path / "a.png").write_bytes(data)
    pixels = read_image(tmp_path / "a.png")
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.array_equal(pixels, pillow(data))


def test_sixteen_bits_are_exact(tmp_path, deep):
    grey, opaque = deep[..., :1], np.full((H, W, 1), 65535, np.uint16)
    for samples, colour in ((deep, 2), (grey, 0), (np.dstack([deep, opaque]), 6), (np.dstack([grey, opaque]), 4)):
        (tmp_path / "a.png").write_bytes(png(samples, colour))
        pixels = read_image(tmp_path / "a.png")
        assert pixels.dtype == np.uint16
        assert np.array_equal(pixels, deep if samples.shape[2] > 2 else np.repeat(grey, 3, axis=2))
        assert read_header(tmp_path / "a.png").bits == 16


@pytest.mark.parametrize("options", [{"quality": 40}, {"quality": 95, "subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg(tmp_path, picture, mode, options):
    data = encoded(picture, mode, format="JPEG", **options)
    (tmp_path / "a.jpg").write_bytes(data)
    pixels = read_image(tmp_path / "a.jpg").astype(int)
    # libjpeg builds may round differently; the one in the wheels of OpenCV and Pillow is the same
    assert np.abs(pixels - pillow(data)).max() <= 1
    assert read_header(tmp_path / "a.jpg").lossy


def test_cmyk_jpeg(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "CMYK", format="JPEG", quality=98))
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - picture).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_and_bmp(tmp_path, picture, mode):
    (tmp_path / "a.webp").write_bytes(encoded(picture, mode, format="WEBP", lossless=True))
    assert np.array_equal(read_image(tmp_path / "a.webp"), picture)
    assert not read_header(tmp_path / "a.webp").lossy
    (tmp_path / "b.webp").write_bytes(encoded(picture, mode, format="WEBP", quality=90))
    assert np.abs(read_image(tmp_path / "b.webp").astype(int) - picture).mean() < 6
    assert read_header(tmp_path / "b.webp").lossy
    (tmp_path / "c.bmp").write_bytes(encoded(picture, format="BMP"))
    assert np.array_equal(read_image(tmp_path / "c.bmp"), picture)


def test_content_counts_and_not_the_name(tmp_path, picture):
    data = encoded(picture, format="JPEG")
    (tmp_path / "a.png").write_bytes(data)
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - pillow(data)).max() <= 1
    header = read_header(tmp_path / "a.png")
    assert (header.format, header.lossy) == ("JPEG", True)


def test_bytes_behind_the_end_do_not_matter(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(encoded(picture, format="JPEG") + b"\0" * 50)
    (tmp_path / "a.png").write_bytes(encoded(picture, format="PNG") + b"tail")
    assert read_image(tmp_path / "a.jpg").shape == (H, W, 3)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)


# ------------------------------------------------------------------------------------------------------------- transparency


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_refused(tmp_path, picture, mode):
    image = Image.fromarray(picture).convert(mode)
    image.putpixel((3, 3), (*image.getpixel((3, 3))[:-1], 254))
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True})):
        image.save(tmp_path / name, **options)
        with pytest.raises(DerainzooError, match=r"a\.\w+: a picture with transparent pixels"):
            read_image(tmp_path / name)


def test_a_transparent_colour_is_refused_only_where_it_occurs(tmp_path, picture):
    for colour, occurs in ((picture[0, 0], True), ((1, 2, 3), False)):
        (tmp_path / "a.png").write_bytes(png(picture, 2, chunk(b"tRNS", struct.pack(">HHH", *map(int, colour)))))
        if occurs:
            with pytest.raises(DerainzooError, match="transparent"):
                read_image(tmp_path / "a.png")
        else:
            assert np.array_equal(read_image(tmp_path / "a.png"), picture)


def test_transparent_deep_pixels_are_refused(tmp_path, deep):
    alpha = np.full((H, W, 1), 65535, np.uint16)
    alpha[5, 5] = 65534
    (tmp_path / "a.png").write_bytes(png(np.dstack([deep, alpha]), 6))
    with pytest.raises(DerainzooError, match="transparent"):
        read_image(tmp_path / "a.png")


# ------------------------------------------------------------------------------------------------------------- orientation

# what the tag says about the first row and column of the file, from the EXIF standard
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_exif_orientation(tmp_path, picture, orientation, name):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"a.png": {}, "a.webp": {"lossless": True}, "a.jpg": {"quality": 98, "subsampling": 0}}[name]
    Image.fromarray(picture).save(tmp_path / name, exif=exif, **options)
    turned = TURNS[orientation](picture)
    pixels = read_image(tmp_path / name)
    assert pixels.shape == turned.shape
    assert np.abs(pixels.astype(int) - turned).max() <= (4 if name == "a.jpg" else 0)
    assert image_size(tmp_path / name) == turned.shape[:2]
    assert np.abs(read_image(tmp_path / name, orient=False).astype(int) - picture).max() <= (4 if name == "a.jpg" else 0)
    assert image_size(tmp_path / name, orient=False) == (H, W)


def test_broken_exif_turns_nothing(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=b"Exif\0\0garbage")
    assert read_image(tmp_path / "a.jpg").shape == (H, W, 3)


# ------------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("form", ["PNG", "PNG16", "JPEG", "JPEG progressive", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_cut_files(tmp_path, picture, deep, form, share):
    form, *progressive = form.split()
    noise = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
    data = png(deep, 2) if form == "PNG16" else encoded(noise, format=form, **({"progressive": True} if progressive else {}))
    (tmp_path / "cut.png").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DerainzooError, match=r"cut\.png: (damaged|expected)"):
        read_image(tmp_path / "cut.png")


@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_changed_bytes_are_noticed(tmp_path, picture, deep, depth):
    data = bytearray(png(picture, 2) if depth == "shallow" else png(deep, 2))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DerainzooError, match=r"a\.png: damaged PNG picture"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"GIF89a" + b"\0" * 20, "it is a GIF"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, data, says):
    (tmp_path / "a.png").write_bytes(data)
    for read in (read_image, image_size):
        with pytest.raises(DerainzooError, match=rf"a\.png: expected a PNG, JPEG, WebP or BMP picture, but .*{says}"):
            read(tmp_path / "a.png")


def test_absent_files_and_folders(tmp_path):
    with pytest.raises(DerainzooError, match=r"no such picture: .*none\.png"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DerainzooError, match="found a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_animations(tmp_path, picture, form):
    Image.fromarray(picture).save(tmp_path / "a", form, save_all=True, append_images=[Image.fromarray(picture[::-1])])
    with pytest.raises(DerainzooError, match=r"animated .* of 2 frames"):
        read_image(tmp_path / "a")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(np.zeros((1, 100), np.uint8), 2, size=(60000, 60000)))
    assert image_size(tmp_path / "bomb.png") == (60000, 60000)
    with pytest.raises(DerainzooError, match="60000 x 60000 is 3600 megapixels, more than the limit of 200; raise max_pixels"):
        read_image(tmp_path / "bomb.png")


def test_the_limit_can_be_moved(tmp_path, picture):
    write_png(tmp_path / "a.png", picture)
    assert read_image(tmp_path / "a.png", max_pixels=H * W).shape == (H, W, 3)
    with pytest.raises(DerainzooError, match="limit"):
        read_image(tmp_path / "a.png", max_pixels=H * W - 1)


# -------------------------------------------------------------------------------------------------------------------- writing


def test_writing_and_reading(tmp_path, picture, deep):
    for pixels in (picture, deep, picture[..., 0], deep[..., 0], picture[:1, :1]):
        write_png(tmp_path / "new" / "a.png", pixels)
        expected = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        assert np.array_equal(read_image(tmp_path / "new" / "a.png"), expected)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path, picture, monkeypatch):
    write_png(tmp_path / "a.png", picture)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DerainzooError, match=r"cannot write .*a\.png: No space left"):
        write_png(tmp_path / "a.png", picture[::-1])
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_other_arrays_are_not_written(tmp_path, pixels):
    with pytest.raises(ValueError, match="expected uint8 or uint16"):
        write_png(tmp_path / "a.png", pixels)


@pytest.mark.shared
def test_jpeg_data_named_png(shared):
    path = shared / "data/metric_pairs/DID-DDN/target/1.png"
    assert read_header(path).format == "JPEG"
    assert read_image(path).shape == (512, 512, 3)
