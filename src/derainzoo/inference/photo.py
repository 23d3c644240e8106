"""A picture file in, a picture file out: other pixels, everything else as it was.

Kept are size, depth, grey or colour, alpha channel, ICC profile, EXIF (to the byte), XMP and resolution; within one format also
IPTC, comments, text and JPEG's chroma resolution. Pixels stay as they lie in the file, beside the orientation tag that says how
to turn them; `Photo.upright` is what a viewer shows, and what a network should see. The one thing taken out is the thumbnail
inside EXIF: it would still show the rain.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from derainzoo.errors import DerainzooError
from derainzoo.files import whole_file
from derainzoo.images import MAX_PIXELS, read_stored, turn

WITHOUT_ALPHA = frozenset({"JPEG", "BMP"})
"""Kinds that are written without an alpha channel."""
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".bmp": "BMP"}
"""How a file is called -> in which format it is written."""

_GREY = {"1", "L", "LA", "I;16", "I"}  # Pillow's modes without colour; 16-bit grey PNG is one of the last two
# PNG chunks that say nothing about how pixels are stored, and so are as true of other pixels
_PNG_CHUNKS = {b"eXIf", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs", b"tEXt", b"zTXt", b"iTXt"}
_LARGEST_SIDE = {"JPEG": 65_500, "WebP": 16_383}
_DOTS = (1, 65_535)  # an inch, which JPEG can state; damaged EXIF states any number


@dataclass(frozen=True)
class Photo:
    """A decoded picture file."""

    pixels: np.ndarray
    """`(H, W, C)` of `uint8` or `uint16`; C: grey, grey and alpha, RGB, or RGBA."""
    format: str
    """`PNG`, `JPEG`, `WebP` or `BMP`."""
    lossy: bool = False
    orientation: int = 1
    exif: bytes | None = None
    """A TIFF block, without `Exif\\0\\0` in front."""
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    """None also where the file states what no picture can have."""
    segments: tuple[bytes, ...] = ()
    """Of a JPEG: IPTC, comments and long XMP, as they stood in the file."""
    subsampling: int = 0
    """Of a JPEG: chroma at full resolution (0), half as wide (1), or half as wide and high (2)."""
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Of a PNG: name and content of everything that describes the picture."""
    notes: tuple[str, ...] = ()
    """What could not be kept, in words."""

    @property
    def upright(self) -> np.ndarray:
        """The pixels as they are meant to be seen."""
        return np.ascontiguousarray(turn(self.pixels, self.orientation))

    def with_upright(self, pixels: np.ndarray) -> "Photo":
        """The same photograph with other pixels, given as they are meant to be seen."""
        return replace(self, pixels=np.ascontiguousarray(turn(pixels, self.orientation, back=True)))


# --- reading ----------------------------------------------------------------------------------------------------------------


def read_photo(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a file, or its content, and keep what is not pixels; a picture of more than `max_pixels` is refused."""
    stored = read_stored(source, max_pixels=max_pixels)
    kind, info = stored.header.format, stored.info
    pixels = stored.pixels[..., :1] if stored.mode in _GREY else stored.pixels
    if stored.alpha is not None:
        pixels = np.concatenate([pixels, stored.alpha[..., None]], axis=2)
    exif = info.get("exif")
    segments: list[bytes] = []
    subsampling, chunks = 0, []
    if kind == "JPEG":
        for marker, content in jpeg_segments(stored.data):
            if marker in (0xFE, 0xED) or content.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
                segments.append(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content)
            elif marker in (0xC0, 0xC1, 0xC2) and content[5:6] == b"\3":
                subsampling = {0x11: 0, 0x21: 1}.get(content[7], 2)
    elif kind == "PNG":
        chunks = [(name, content) for name, content in png_chunks(stored.data) if name in _PNG_CHUNKS]
        exif = exif or dict(chunks).get(b"eXIf")  # may stand behind the pixels
    xmp = info.get("xmp")
    return Photo(
        pixels=pixels,
        format=kind,
        lossy=stored.header.lossy,
        orientation=stored.orientation,
        exif=without_thumbnail(exif.removeprefix(b"Exif\0\0")) if exif else None,
        icc=info.get("icc_profile"),
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        dpi=_resolution(info.get("dpi")),
        segments=tuple(segments),
        subsampling=subsampling,
        chunks=tuple(chunks),
        notes=("CMYK became RGB by the plain formula, not by its ICC profile",) if stored.mode == "CMYK" else (),
    )


def _resolution(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    return dpi if dpi and all(_DOTS[0] <= dots <= _DOTS[1] for dots in dpi) else None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of every segment in front of the pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and (marker := data[at + 1]) != 0xDA:
        if marker == 0xFF:  # padding
            at += 1
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + size


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of every chunk but those of the pixels."""
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if name != b"IDAT":
            yield name, data[at + 8 : at + 8 + size]
        at += 12 + size


def without_thumbnail(exif: bytes) -> bytes:
    """The TIFF block with its second directory, which is the thumbnail's, cut off; nothing else moves.

    Rewriting the block would be no better: makers' notes hold offsets that only their makers know how to correct.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return exif
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, first)
        link = first + 2 + 12 * count
        struct.unpack_from(order + "I", exif, link)
    except struct.error:  # nonsense that no reader will make sense of
        return exif
    return exif[:link] + b"\0\0\0\0" + exif[link + 4 :]


# --- writing ----------------------------------------------------------------------------------------------------------------


def write_photo(path: Path, photo: Photo, quality: int = 95) -> tuple[str, ...]:
    """Write the file, whole or not at all, in the format that its suffix names; returns notes on what could not be kept.

    Args:
        path: with a suffix of `SUFFIXES`, else the photo's own format is kept.
        photo: what to write.
        quality: of JPEG and of lossy WebP, 1 to 100.
    """
    data, notes = encode(photo, SUFFIXES.get(path.suffix.lower(), photo.format), quality)
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return notes


def encode(photo: Photo, kind: str, quality: int = 95) -> tuple[bytes, tuple[str, ...]]:
    """The file in memory, and notes on what could not be kept."""
    notes = list(photo.notes)
    if kind in WITHOUT_ALPHA:
        photo = _opaque(photo, kind)
    height, width, channels = photo.pixels.shape
    if max(height, width) > _LARGEST_SIDE.get(kind, max(height, width)):
        raise DerainzooError(f"{width} x {height} pixels are more than {kind} can hold a side; choose format=png")
    if kind == "PNG":
        return _encode_png(photo), tuple(notes)

    from PIL import Image

    pixels = photo.upright if kind == "BMP" else photo.pixels  # BMP has no tag that says how to turn them
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        notes.append(f"16 bits became 8, as {kind} holds no more")
    if channels == 2:
        pixels = pixels[..., [0, 0, 0, 1]]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    options: dict[str, Any] = {"exif": photo.exif, "icc_profile": _icc(photo, image.mode == "L"), "xmp": photo.xmp}
    if kind == "WebP":
        options |= {"quality": quality, "lossless": not photo.lossy, "exact": True}
        if photo.dpi and not photo.exif:
            options["exif"] = _exif_of(photo.dpi)
        elif photo.dpi and photo.exif and not _states_resolution(photo.exif):
            notes.append("its resolution was left out: WebP has no place for it but EXIF, and its EXIF metadata state none")
    else:
        options["dpi"] = photo.dpi or (0, 0)  # which says that it is unknown; Pillow would make up one for BMP
    if kind == "JPEG":
        options |= {"quality": quality, "subsampling": photo.subsampling, "extra": b"".join(photo.segments)}
        if photo.exif:
            options["exif"] = b"Exif\0\0" + photo.exif
        for name in ("exif", "xmp"):
            if len(options[name] or b"") > 65_000:
                notes.append(f"its {name.upper()} metadata are larger than JPEG can hold, and were left out")
                options[name] = None
    elif kind == "BMP":
        names = {"exif": "EXIF metadata", "icc_profile": "ICC profile", "xmp": "XMP metadata"}
        if lost := [text for name, text in names.items() if options.pop(name)]:
            notes.append(f"left out, as BMP has no place for it: {', '.join(lost)}")
    file = io.BytesIO()
    image.save(file, kind, **{name: value for name, value in options.items() if value is not None})
    return file.getvalue(), tuple(notes)


def is_transparent(photo: Photo) -> bool:
    """Whether there is an alpha channel that is not opaque everywhere, which files `WITHOUT_ALPHA` cannot hold."""
    return photo.pixels.shape[2] in (2, 4) and bool((photo.pixels[..., -1] != np.iinfo(photo.pixels.dtype).max).any())


def _opaque(photo: Photo, kind: str) -> Photo:
    """Without an alpha channel, which is no loss if it is opaque everywhere."""
    if photo.pixels.shape[2] in (1, 3):
        return photo
    if is_transparent(photo):
        raise DerainzooError(
            f"has an alpha channel, which {kind} cannot hold, and transparent pixels; choose format=png or format=webp"
        )
    return replace(photo, pixels=np.ascontiguousarray(photo.pixels[..., :-1]))


def _exif_of(dpi: tuple[float, float]) -> bytes:
    """An EXIF block that states a resolution and nothing else."""
    from PIL import ExifTags, Image

    exif = Image.Exif()
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = dpi
    exif[ExifTags.Base.ResolutionUnit] = 2  # an inch
    return exif.tobytes()


def _states_resolution(exif: bytes) -> bool:
    from PIL import ExifTags, Image

    tags = Image.Exif()
    try:
        tags.load(exif)
        return ExifTags.Base.XResolution in tags
    except Exception:  # metadata that cannot be read state nothing
        return False


def _icc(photo: Photo, grey: bool) -> bytes | None:
    """The profile, if it is one for the colours that are written."""
    space = photo.icc[16:20] if photo.icc else b"none"
    return None if space in (b"none", b"CMYK") or (space == b"GRAY" and not grey) else photo.icc


def _encode_png(photo: Photo) -> bytes:
    """OpenCV encodes, because Pillow has no 16-bit colour; metadata are put in behind the header."""
    import cv2

    channels = photo.pixels.shape[2]
    order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]  # OpenCV: BGR, and no grey with alpha
    file = cv2.imencode(".png", np.ascontiguousarray(photo.pixels[..., order]), [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
    icc = _icc(photo, channels == 1)
    if photo.chunks:
        chunks = [(name, photo.exif if name == b"eXIf" and photo.exif else content) for name, content in photo.chunks]
        chunks = [(name, content) for name, content in chunks if name != b"iCCP" or icc]
    else:
        chunks = []
        if icc:
            chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
        if photo.dpi:
            chunks.append((b"pHYs", struct.pack(">IIB", *(round(dots / 0.0254) for dots in photo.dpi), 1)))
        if photo.exif:
            chunks.append((b"eXIf", photo.exif))
        if photo.xmp:
            chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + photo.xmp))
    middle = b"".join(struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks)
    header = 8 + 12 + 13  # signature, IHDR
    return file[:header] + middle + file[header:]
