"""Pictures as arrays: `(H, W, 3)` RGB of `uint8` or `uint16`, whatever the file is, and PNG files from arrays.

A file is what its content says, not what its name says: some data sets hold JPEG data in files named `.png`. PNG, JPEG, WebP
and BMP are read. Grey is repeated over the three channels; palettes and CMYK are converted (CMYK by Pillow's formula); colour
profiles are ignored, as in every published deraining measurement. An alpha channel that is opaque everywhere is dropped, any
other is refused: what stands under transparent pixels is no picture.

OpenCV decodes 8-bit RGB and grey, because it is faster and lets other threads run (JPEG is thus decoded by libjpeg-turbo with
its accurate integer DCT), and 16-bit PNG, because Pillow has no 16-bit colour. Pillow reads the headers and decodes the rest.
For PNG and lossless WebP the two agree to the bit. Both are imported by the first call that needs them.
"""

import io
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from derainzoo.errors import DerainzooError
from derainzoo.files import whole_file

if TYPE_CHECKING:
    import numpy as np
    from PIL.ImageFile import ImageFile

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
"""What counts as a picture when a folder is listed (lower case)."""

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before they are decoded: a few kB of PNG can unpack to any size."""


@dataclass(frozen=True)
class Header:
    """What a file says about its picture before it is decoded."""

    format: str
    """`PNG`, `JPEG`, `WebP` or `BMP`."""
    height: int
    width: int
    """Both as seen: after the EXIF orientation, where that is applied."""
    bits: int
    """Per channel: 8 or 16."""
    lossy: bool
    """JPEG, or WebP in its lossy mode: the pixels differ from those that were encoded."""


# How to undo the eight values of EXIF's orientation tag: turn by k quarters counter-clockwise, then mirror left-right.
_ORIENTATIONS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (-1, True), 6: (-1, False), 7: (1, True), 8: (1, False)}


@dataclass(frozen=True)
class Stored:
    """A picture as it lies in its file: not turned, and with its alpha channel."""

    header: Header
    """Height and width are those of the pixels here."""
    pixels: "np.ndarray"
    """`(H, W, 3)` RGB."""
    alpha: "np.ndarray | None"
    """`(H, W)`, where the file has an alpha channel or a transparent colour."""
    mode: str
    """What Pillow calls the kind of pixels in the file: `L`, `P`, `CMYK`, ..."""
    orientation: int
    """EXIF's number, 1 to 8, for `turn`."""
    info: Mapping[Any, Any]
    """Metadata, as Pillow reads them."""
    data: bytes
    """The whole file."""


def read_stored(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Stored:
    """Decode one picture, and keep everything else that its file says; refuse more pixels than `max_pixels`.

    Bytes are the content of a file; errors call it `the picture`.
    """
    path = Path("the picture") if isinstance(source, bytes) else Path(source)
    with _opened(path, source if isinstance(source, bytes) else None) as (file, picture, kind):
        width, height = picture.size
        if width * height > max_pixels:
            raise DerainzooError(
                f"{path}: {width} x {height} is {width * height / 1e6:.0f} megapixels, more than the limit of "
                f"{max_pixels / 1e6:.0f}; raise max_pixels if you trust the file and have the memory"
            )
        header = _header(file, picture, kind)
        orientation = exif_orientation(picture.info.get("exif"))
        try:
            file.seek(0)
            data = file.read()
            pixels = _decode(data, picture, kind)
        except Exception as error:  # see _opened
            raise _damaged(path, kind, error) from error
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
    return Stored(header, pixels[..., :3], alpha, picture.mode, orientation, picture.info, data)


def read_image(path: str | Path, *, orient: bool = True, max_pixels: int = MAX_PIXELS) -> "np.ndarray":
    """Decode one picture to `(H, W, 3)` RGB, `uint8` or `uint16`.

    Args:
        path: a PNG, JPEG, WebP or BMP file, under whatever name.
        orient: turn it as its EXIF orientation says (cameras store portraits lying on their side).
        max_pixels: refuse anything larger.
    """
    import numpy as np

    stored = read_stored(path, max_pixels=max_pixels)
    if stored.alpha is not None and (stored.alpha != np.iinfo(stored.alpha.dtype).max).any():
        raise DerainzooError(f"{path}: a picture with transparent pixels; flatten it onto a background first")
    return np.ascontiguousarray(turn(stored.pixels, stored.orientation) if orient else stored.pixels)


def turn(pixels: "np.ndarray", orientation: int, *, back: bool = False) -> "np.ndarray":
    """A view of `(H, W, ...)` pixels as an EXIF orientation wants them seen; `back` undoes it."""
    import numpy as np

    quarters, mirror = _ORIENTATIONS.get(orientation, (0, False))
    if not back:
        pixels = np.rot90(pixels, quarters)
    pixels = pixels[:, ::-1] if mirror else pixels
    return np.rot90(pixels, -quarters) if back else pixels


def read_header(path: str | Path, *, orient: bool = True) -> Header:
    """Format, size, depth and lossiness, without decoding."""
    with _opened(Path(path)) as (file, picture, kind):
        header = _header(file, picture, kind)
        turned = orient and exif_orientation(picture.info.get("exif")) >= 5
    return replace(header, height=header.width, width=header.height) if turned else header


def _header(file: IO[bytes], picture: "ImageFile", kind: str) -> Header:
    width, height = picture.size
    file.seek(0)
    bits = _bits(file.read(32), kind)
    return Header(kind, height, width, bits, kind == "JPEG" or (kind == "WebP" and _lossy_webp(file)))


def image_size(path: str | Path, *, orient: bool = True) -> tuple[int, int]:
    """Height and width, from the header alone."""
    header = read_header(path, orient=orient)
    return header.height, header.width


def write_png(path: str | Path, image: "np.ndarray") -> None:
    """Write `(H, W, 3)` RGB or `(H, W)` grey, `uint8` or `uint16`; the file is there completely or not at all."""
    import cv2
    import numpy as np

    path = Path(path)
    if image.dtype not in (np.uint8, np.uint16) or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"expected uint8 or uint16 of (H, W, 3) or (H, W), got {image.dtype} of {image.shape}")
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
    with whole_file(path) as partial:
        partial.write_bytes(encoded)


@contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[tuple[IO[bytes], "ImageFile", str]]:
    """The open file, Pillow's view of its header, and its format; whatever goes wrong inside names the file."""
    file: IO[bytes]
    if content is None and path.exists() and not (path.is_file() or path.is_dir()):
        raise DerainzooError(
            f"expected a picture file, found a pipe, socket or device: {path}"
        )  # to open it could wait for ever
    try:
        file = path.open("rb") if content is None else io.BytesIO(content)
    except FileNotFoundError:
        raise DerainzooError(f"no such picture: {path}") from None
    except IsADirectoryError:
        raise DerainzooError(f"expected a picture file, found a folder: {path}") from None
    except OSError as error:
        raise DerainzooError(f"cannot open {path}: {error.strerror or error}") from error
    with file:
        kind = _sniff(path, file.read(32))
        file.seek(0)
        try:
            picture = _plugin(kind)(file)
            frames = getattr(picture, "n_frames", 1)
        except Exception as error:  # decoders meet arbitrary bytes here and raise nearly everything
            raise _damaged(path, kind, error) from error
        if frames > 1:
            raise DerainzooError(f"{path}: an animated {kind} of {frames} frames; expected one picture, so extract its frames")
        yield file, picture, kind


def _sniff(path: Path, start: bytes) -> str:
    """The format by the first bytes; if it is none of ours, an error that says what the file seems to be."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP"
    if start.startswith(b"BM"):
        return "BMP"
    if not start:
        found = "it is empty (0 bytes); copy or download it again"
    elif start.startswith(b"version https://git-lfs"):
        found = "it is a Git LFS pointer; run `git lfs pull` where it comes from"
    elif start.lstrip().startswith(b"<"):
        found = "it is a web page or XML, as failed downloads leave behind; download it again"
    elif start.startswith(b"GIF8"):
        found = "it is a GIF, often animated and never of more than 256 colours; save the frame that you mean as PNG"
    else:
        found = f"it begins with {start[:12]!r}; convert it to PNG"
    raise DerainzooError(f"{path}: expected a PNG, JPEG, WebP or BMP picture, but {found}")


def _plugin(kind: str) -> Any:
    """Pillow's reader of one format, by itself.

    `Image.open` would add a limit that is global to the process, and would show the preview and depth map that telephones
    append to a JPEG as further frames.
    """
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    return {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
    }[kind]


def _damaged(path: Path, kind: str, reason: object) -> DerainzooError:
    return DerainzooError(f"{path}: damaged {kind} picture ({reason}); copy or download it again")


def exif_orientation(block: bytes | None) -> int:
    """The orientation that an EXIF block states; 1, which is upright, if it states none.

    Takes what Pillow keeps as `picture.info["exif"]`: `picture.getexif()` would decode a whole PNG in search of metadata behind
    the pixels.
    """
    from PIL import ExifTags, Image

    if not block:
        return 1
    exif = Image.Exif()
    try:
        exif.load(block)
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # metadata that cannot be read turns no picture
        return 1


def _bits(start: bytes, kind: str) -> int:
    return 16 if kind == "PNG" and start[24] == 16 else 8


def _lossy_webp(file: IO[bytes]) -> bool:
    """Walk the chunks to the one that holds the pixels, which is called VP8 or VP8L (lossless)."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name in (b"VP8 ", b"VP8L"):
            return bool(name == b"VP8 ")
        file.seek(size + size % 2, os.SEEK_CUR)
    return True


def _is_whole(data: bytes, kind: str) -> bool:
    """Whether the file ends as its format says. OpenCV fills what a cut file lacks, older releases without a word."""
    if kind == "PNG":
        return data.rfind(b"IEND\xaeB`\x82") > 0  # the last chunk is always these bytes
    if kind == "JPEG":
        return data.endswith(b"\xff\xd9")
    return kind == "WebP" and int.from_bytes(data[4:8], "little") + 8 == len(data)


def _decode(data: bytes, picture: "ImageFile", kind: str) -> "np.ndarray":
    """RGB or RGBA: by OpenCV where that is exact, else, or if it refuses, by Pillow, which also knows the reason."""
    import cv2
    import numpy as np

    deep = _bits(data, kind) == 16
    clear = "transparency" in picture.info  # one colour or palette entry
    if _is_whole(data, kind) and (deep or (picture.mode in ("RGB", "L") and not clear)):
        flags = cv2.IMREAD_UNCHANGED if deep else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None and pixels.ndim == 2:
            return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
        if pixels is not None and pixels.shape[2] == 3:
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        if pixels is not None:
            return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
    if deep:
        picture.load()  # Pillow would keep 8 of the 16 bits; it is asked only for what is wrong
        raise ValueError("its data cannot be decoded")
    if clear or picture.mode in ("RGBA", "LA", "PA"):
        return np.array(picture.convert("RGBA"))
    return np.array(picture.convert("RGB"))
