"""Files keep everything but their pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from derainzoo.errors import DerainzooError
from derainzoo.images import read_image
from derainzoo.inference.photo import Photo, encode, jpeg_segments, png_chunks, read_photo, without_thumbnail, write_photo

H, W = 20, 27
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_ICC = ICC[:16] + b"GRAY" + ICC[20:]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tag>rain</tag></x:xmpmeta>'


def ramp(channels: int, dtype: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    planes = [x * 8, y * 11, x * 3 + y * 4, 255 - x * 2]
    pixels = np.stack(planes[:channels] if channels > 2 else [planes[0], planes[3]][:channels], 2)
    return pixels.astype(np.uint8) if dtype is np.uint8 else (pixels.astype(np.uint16) * 250 + 77)


def exif(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.Make] = "Rainmaker"
    tags[ExifTags.Base.DateTime] = "2024:05:01 12:00:00"
    return tags.tobytes()


def picture(channels: int = 3) -> Image.Image:
    pixels = ramp(channels)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def other(photo: Photo) -> Photo:
    """The photo as a network may leave it."""
    return photo.with_upright(255 - photo.upright if photo.pixels.dtype == np.uint8 else 65535 - photo.upright)


# --- what is kept -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp"])
def test_metadata_survive_in_every_format(tmp_path, suffix, target):
    file = tmp_path / f"in{suffix}"
    options = {"dpi": (300, 300)} if suffix != ".webp" else {}
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    options |= {"pnginfo": info} if suffix == ".png" else {"xmp": XMP}
    picture().save(file, exif=exif(6), icc_profile=ICC, **options)
    write_photo(tmp_path / f"out{target}", other(read_photo(file)))
    with Image.open(tmp_path / f"out{target}") as result:
        result.load()
        assert result.info["icc_profile"] == ICC
        assert result.getexif()[ExifTags.Base.Orientation] == 6
        assert result.getexif()[ExifTags.Base.Make] == "Rainmaker"
        assert result.info["xmp"] == XMP
        if ".webp" not in (suffix, target):
            assert [round(v) for v in result.info["dpi"]] == [300, 300]


def test_exif_stays_to_the_byte(tmp_path):
    block = exif(3)
    picture().save(tmp_path / "in.jpg", exif=block)
    write_photo(tmp_path / "out.jpg", other(read_photo(tmp_path / "in.jpg")))
    with Image.open(tmp_path / "out.jpg") as result:
        assert result.info["exif"] == block


def test_jpeg_keeps_comment_iptc_and_sampling(tmp_path):
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\x00\x00\x00\x04rain"
    segment = b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc
    for sampling in (0, 1, 2):
        picture().save(tmp_path / "in.jpg", comment=b"wet", extra=segment, subsampling=sampling)
        write_photo(tmp_path / "out.jpg", other(read_photo(tmp_path / "in.jpg")))
        with Image.open(tmp_path / "in.jpg") as before, Image.open(tmp_path / "out.jpg") as after:
            assert after.info["comment"] == b"wet"
            assert ("APP13", iptc) in after.applist
            assert after.layer == before.layer


def test_png_keeps_text_and_colour_chunks_but_not_what_described_the_old_pixels(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Rain", zip=True)
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add(b"bKGD", b"\0\0")
    picture(1).save(tmp_path / "in.png", pnginfo=info, transparency=8)
    write_photo(tmp_path / "out.png", other(read_photo(tmp_path / "in.png")))
    chunks = dict(png_chunks((tmp_path / "out.png").read_bytes()))
    assert {b"zTXt", b"gAMA"} <= chunks.keys()
    assert not {b"bKGD", b"tRNS"} & chunks.keys()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_orientation_is_kept_and_the_network_sees_upright_pixels(tmp_path, orientation, suffix):
    picture().save(tmp_path / f"in{suffix}", exif=exif(orientation), lossless=True)
    photo = read_photo(tmp_path / f"in{suffix}")
    with Image.open(tmp_path / f"in{suffix}") as image:
        seen = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(photo.upright, seen)
    marked = photo.upright.copy()
    marked[0, 0] = (1, 2, 3)  # top left, as seen
    write_photo(tmp_path / f"out{suffix}", photo.with_upright(marked))
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.getexif()[ExifTags.Base.Orientation] == orientation
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), marked)


# --- kinds of pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_keeps_depth_grey_and_alpha(tmp_path, channels, dtype):
    pixels = ramp(channels, dtype)
    write_photo(tmp_path / "a.png", Photo(pixels, "PNG"))
    photo = read_photo(tmp_path / "a.png")
    expected = pixels[..., [0, 0, 0, 1]] if channels == 2 else pixels  # OpenCV writes no grey with alpha
    assert photo.pixels.dtype == dtype
    assert np.array_equal(photo.pixels, expected)
    write_photo(tmp_path / "b.png", other(photo))
    assert read_photo(tmp_path / "b.png").pixels.dtype == dtype


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_is_carried_over(tmp_path, mode, suffix):
    picture(len(mode)).save(tmp_path / f"in{suffix}", lossless=True, exact=True)
    photo = read_photo(tmp_path / f"in{suffix}")
    write_photo(tmp_path / f"out{suffix}", photo)
    with Image.open(tmp_path / f"out{suffix}") as result:
        assert result.mode == "RGBA"
        assert np.array_equal(np.asarray(result)[..., 3], 255 - np.mgrid[:H, :W][1] * 2)
        assert np.array_equal(np.asarray(result)[..., :3], np.asarray(picture(len(mode)).convert("RGBA"))[..., :3])


def test_grey_stays_grey(tmp_path):
    for suffix in (".jpg", ".png", ".bmp"):
        picture(1).save(tmp_path / f"in{suffix}")
        write_photo(tmp_path / f"out{suffix}", read_photo(tmp_path / f"in{suffix}"))
        with Image.open(tmp_path / f"out{suffix}") as result:
            assert result.mode == "L"


def test_palettes_become_rgb(tmp_path):
    picture().quantize(16).save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    assert photo.pixels.shape == (H, W, 3)
    write_photo(tmp_path / "out.png", photo)
    assert np.array_equal(read_image(tmp_path / "out.png"), read_image(tmp_path / "in.png"))


def test_cmyk_becomes_rgb_with_a_note_and_without_its_profile(tmp_path):
    picture().convert("CMYK").save(tmp_path / "in.jpg", icc_profile=ICC[:16] + b"CMYK" + ICC[20:])
    notes = write_photo(tmp_path / "out.jpg", read_photo(tmp_path / "in.jpg"))
    assert "CMYK" in notes[0]
    with Image.open(tmp_path / "out.jpg") as result:
        assert result.mode == "RGB"
        assert "icc_profile" not in result.info


def test_a_profile_of_grey_does_not_join_colours(tmp_path):
    for channels, kept in ((1, True), (2, False)):
        picture(channels).save(tmp_path / "in.png", icc_profile=GREY_ICC)
        write_photo(tmp_path / "out.png", read_photo(tmp_path / "in.png"))
        with Image.open(tmp_path / "out.png") as result:
            assert ("icc_profile" in result.info) == kept


def test_sixteen_bits_become_eight_with_a_note_where_a_format_has_no_more(tmp_path):
    photo = Photo(ramp(3, np.uint16), "PNG")
    for kind in ("JPEG", "WebP", "BMP"):
        data, notes = encode(photo, kind)
        assert "16 bits became 8" in notes[0]
        with Image.open(io.BytesIO(data)) as result:
            assert abs(np.asarray(result).astype(int) - np.round(photo.pixels / 257)).max() <= (0 if kind != "JPEG" else 12)


def test_quality_counts_and_lossless_stays_lossless(tmp_path):
    rng = np.random.default_rng(0)
    photo = Photo(rng.integers(0, 255, (64, 64, 3), np.uint8), "PNG")
    for kind in ("JPEG", "WebP"):
        lossy = Photo(photo.pixels, kind, lossy=True)
        assert len(encode(lossy, kind, 95)[0]) > 1.5 * len(encode(lossy, kind, 50)[0])
    with Image.open(io.BytesIO(encode(photo, "WebP", 50)[0])) as result:
        assert np.array_equal(np.asarray(result), photo.pixels)


# --- the format of the result -----------------------------------------------------------------------------------------------


def test_the_suffix_decides_and_where_it_says_nothing_the_input(tmp_path):
    picture().save(tmp_path / "in.jpg")
    photo = read_photo(tmp_path / "in.jpg")
    for name, magic in {
        "a.png": b"\x89PNG",
        "b.webp": b"RIFF",
        "c.JPEG": b"\xff\xd8",
        "d.bmp": b"BM",
        "e": b"\xff\xd8",
    }.items():
        write_photo(tmp_path / name, photo)
        assert (tmp_path / name).read_bytes().startswith(magic)


def test_what_a_format_cannot_hold_is_refused():
    with pytest.raises(DerainzooError, match="alpha channel, which JPEG cannot hold"):
        encode(Photo(ramp(4), "PNG"), "JPEG")
    with pytest.raises(DerainzooError, match=r"16384 x 1 pixels .* WebP"):
        encode(Photo(np.zeros((1, 16384, 3), np.uint8), "PNG"), "WebP")


@pytest.mark.parametrize("kind", ["JPEG", "BMP"])
@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_refused_where_a_format_has_none_but_an_opaque_channel_is_no_loss(kind, channels):
    with pytest.raises(DerainzooError, match=f"alpha channel, which {kind} cannot hold"):
        encode(Photo(ramp(channels), "PNG"), kind)
    pixels = ramp(channels)
    pixels[..., -1] = 255
    data, notes = encode(Photo(pixels, "PNG"), kind)
    assert notes == ()
    assert read_photo(data).pixels.shape == (H, W, channels - 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bmp_has_no_tag_and_is_written_upright(tmp_path, orientation):
    picture().save(tmp_path / "in.png", exif=exif(orientation), icc_profile=ICC)
    photo = read_photo(tmp_path / "in.png")
    data, notes = encode(photo, "BMP")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), photo.upright)
    assert notes == ("left out, as BMP has no place for it: EXIF metadata, ICC profile",)


def test_bmp_keeps_a_resolution_and_makes_up_none():
    for dpi in ((300, 200), None):
        again = read_photo(encode(Photo(ramp(3), "PNG", dpi=dpi), "BMP")[0])
        assert (again.dpi and tuple(map(round, again.dpi))) == dpi


def test_webp_keeps_a_resolution_in_exif_or_says_that_it_does_not():
    data, notes = encode(Photo(ramp(3), "PNG", dpi=(300, 200)), "WebP")
    tags = Image.open(io.BytesIO(data)).getexif()
    assert (tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution]) == (300, 200)
    assert notes == ()
    assert "resolution was left out" in encode(Photo(ramp(3), "PNG", dpi=(300, 200), exif=exif()), "WebP")[1][0]
    stated = read_photo(data).exif
    assert encode(Photo(ramp(3), "PNG", dpi=(300, 200), exif=stated), "WebP")[1] == ()


def test_metadata_too_large_for_jpeg_are_left_out_with_a_note():
    photo = Photo(ramp(3), "PNG", exif=b"II*\0" + bytes(70_000), xmp=XMP)
    data, notes = encode(photo, "JPEG")
    assert "EXIF" in notes[0]
    with Image.open(io.BytesIO(data)) as result:
        assert result.info["xmp"] == XMP


# --- the thumbnail ----------------------------------------------------------------------------------------------------------


def with_thumbnail() -> bytes:
    """A TIFF block of a directory with one entry, and a second directory for a thumbnail."""
    first = struct.pack("<HHHII", 1, 0x0112, 3, 1, 6) + struct.pack("<I", 26)
    second = struct.pack("<HHHII", 1, 0x0201, 4, 1, 44) + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8) + first + second + b"thumbnail"


def test_the_rainy_thumbnail_goes_and_nothing_else_moves(tmp_path):
    block = with_thumbnail()
    picture().save(tmp_path / "in.jpg", exif=b"Exif\0\0" + block)
    with Image.open(tmp_path / "in.jpg") as before:
        assert before.getexif().get_ifd(ExifTags.IFD.IFD1)
    photo = read_photo(tmp_path / "in.jpg")
    assert sum(a != b for a, b in zip(photo.exif, block, strict=True)) == 1  # of the four bytes of the link three were zero
    write_photo(tmp_path / "out.jpg", photo)
    with Image.open(tmp_path / "out.jpg") as after:
        assert not after.getexif().get_ifd(ExifTags.IFD.IFD1)
        assert after.getexif()[ExifTags.Base.Orientation] == 6


@pytest.mark.parametrize("block", [b"", b"II", b"XX*\0\x08\0\0\0", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff"])
def test_nonsense_in_exif_is_left_alone(block):
    assert without_thumbnail(block) == block


# --- hostile ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_cut_files_are_refused(tmp_path, suffix):
    picture().save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DerainzooError, match="damaged"):
        read_photo(tmp_path / f"a{suffix}")


def test_segments_and_chunks_of_nonsense_end():
    assert list(jpeg_segments(b"\xff\xd8\xff")) == []
    assert list(jpeg_segments(b"\xff\xd8\xff\xe1\0\0\xff\xe1\0\0\xff\xda")) == [(0xE1, b"")]
    assert list(png_chunks(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31) + b"tEXtxxxx")) == [(b"tEXt", b"xxxx")]


def test_a_mislabelled_file_becomes_what_its_name_says(tmp_path):
    picture().save(tmp_path / "in.png", format="JPEG")
    photo = read_photo(tmp_path / "in.png")
    assert photo.format == "JPEG"
    write_photo(tmp_path / "out.png", photo)
    with Image.open(tmp_path / "out.png") as result:
        assert result.format == "PNG"


def test_one_pixel_will_do_and_none_will_not(tmp_path):
    picture().crop((0, 0, 1, 1)).save(tmp_path / "one.png")
    assert read_photo(tmp_path / "one.png").pixels.shape == (1, 1, 3)
    header = struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    (tmp_path / "none.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(DerainzooError, match=r"none\.png: damaged"):
        read_photo(tmp_path / "none.png")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(path, data):
        with open(path, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(DerainzooError, match="No space"):
        write_photo(tmp_path / "a.png", Photo(ramp(3), "PNG"))
    assert not list(tmp_path.iterdir())
