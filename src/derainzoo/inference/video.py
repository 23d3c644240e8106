"""Videos: every frame through the network by itself, everything else as it was.

Kept are time stamps (uneven ones too), codec family, pixel format and depth, colour description, sound, subtitles and metadata.
Frames that the input wants turned are written upright: a network should see rain fall downwards.

A video is a stream. One thread decodes, the caller's computes, another encodes, and only a few frames exist at a time.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import repeat, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from derainzoo.errors import DerainzooError
from derainzoo.files import whole_file
from derainzoo.inference.predictor import Predictor
from derainzoo.inference.stages import ahead

os.environ.setdefault("SVT_LOG", "1")  # or the encoder of AV1 writes its settings onto the terminal
av: Any
try:
    import av
except ImportError:  # an extra; `restore_video` says so
    av = None

WAITING = 4
"""Frames that may wait between two stages."""

# family -> encoders in order of preference, and options that lose next to nothing; other families are encoded by bit rate
_ENCODERS: dict[str, tuple[list[str], dict[str, str]]] = {
    "h264": (["libx264", "h264"], {"crf": "17"}),
    "hevc": (["libx265", "hevc"], {"crf": "19", "x265-params": "log-level=error"}),
    "vp8": (["libvpx"], {"crf": "8", "b": "20M", "deadline": "good", "cpu-used": "4"}),
    "vp9": (["libvpx-vp9"], {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}),
    "av1": (["libsvtav1", "libaom-av1"], {"crf": "22", "preset": "8"}),
    "ffv1": (["ffv1"], {}),
}
_COLOURS = ("colorspace", "color_range", "color_trc", "color_primaries")


@dataclass
class VideoReport:
    """What came of a video."""

    frames: int = 0
    notes: list[str] = field(default_factory=list)
    """What could not be kept, in words."""
    damage: str = ""
    """Why the input could not be read to its end, or not completely."""


@dataclass(frozen=True)
class _Look:
    """What the first frame says about all of them."""

    height: int
    width: int
    quarters: int
    """Quarter turns counter-clockwise that make it upright."""
    layout: str
    """Pixel format: `yuv420p`, `yuv420p10le`, ..."""
    deep: bool
    interlaced: bool
    colours: dict[str, int]
    """Matrix, range, transfer and primaries, as numbers of FFmpeg's."""

    @property
    def rgb(self) -> str:
        """The layout in which frames become arrays."""
        return "rgb48le" if self.deep else "rgb24"


@dataclass(frozen=True)
class _Frame:
    pixels: np.ndarray
    time: Fraction | None
    """In seconds, as the next; not every container knows it."""
    duration: Fraction


def restore_video(
    source: Path, target: Path, predictor: Predictor, progress: Callable[[int, int], None] = lambda done, total: None
) -> VideoReport:
    """Restore a video file; the result appears when it is complete.

    An input that breaks off gives a result that ends there, and the report says so.

    Args:
        source: whatever FFmpeg reads.
        target: its suffix decides about the container.
        predictor: restores the frames.
        progress: called after each frame with the number done, and the number there are or 0 if that is unknown.
    """
    if av is None:
        raise DerainzooError(f"{source}: videos need PyAV; install it by pip install 'derainzoo[video]'")
    report = VideoReport()
    try:
        look = _look(source)
        with av.open(str(source)) as container, whole_file(target) as temporary, av.open(str(temporary), "w") as output:
            video = _video_stream(container)
            total = video.frames or int((video.duration or 0) * (video.time_base or 0) * (video.average_rate or 0))
            writer = _Writer(output, container, look, report)
            items = _read(container, [video, *writer.copies], look, report)
            # one thread, as frames depend on those before; None comes after the last
            with closing(ahead(lambda _: next(items, None), repeat(0), 1, WAITING)) as read:
                restored = (_restored(item, predictor) for item in takewhile(lambda item: item is not None, read))
                with closing(ahead(writer.write, restored, 1, WAITING)) as written:
                    for item in written:
                        if isinstance(item, _Frame):
                            report.frames += 1
                            progress(report.frames, total)
            writer.finish()
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):  # the disk's fault, not the file's
            raise
        raise DerainzooError(
            f"{source}: not a video that can be read ({error.strerror}); copy it again, or convert it"
        ) from None
    return report


def _restored(item: Any, predictor: Predictor) -> Any:
    """Frames go through the network, packets of other streams pass."""
    if not isinstance(item, _Frame):
        return item
    pixels = predictor.restore(torch.from_numpy(item.pixels).permute(2, 0, 1)[None])
    return replace(item, pixels=np.ascontiguousarray(pixels[0].permute(1, 2, 0).numpy()))


# --- reading ----------------------------------------------------------------------------------------------------------------


def _video_stream(container: Any) -> Any:
    """The first one that is no cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise DerainzooError(f"{container.name}: there is no video in it")


def _look(source: Path) -> _Look:
    with av.open(str(source)) as container:
        video = _video_stream(container)
        for frame in container.decode(video):
            quarters = round(frame.rotation / 90)
            height, width = (frame.width, frame.height) if quarters % 2 else (frame.height, frame.width)
            return _Look(
                height=height,
                width=width,
                quarters=quarters,
                layout=frame.format.name,
                deep=frame.format.components[0].bits > 8,
                interlaced=frame.interlaced_frame,
                colours={name: int(getattr(video.codec_context, name)) for name in _COLOURS},
            )
    raise DerainzooError(f"{source}: not one frame in it can be read; copy it again")


def _read(container: Any, streams: list[Any], look: _Look, report: VideoReport) -> Iterator[Any]:
    """Frames of the first stream as arrays and packets of the others, in the order of the file."""
    video, count = streams[0], 0
    packets = container.demux(*streams)
    ended = False
    while not ended:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            report.damage = f"it breaks off behind frame {count} ({error.strerror})"
            packet = None
        ended = packet is None
        if packet is not None and packet.stream.index != video.index:
            if packet.dts is not None:  # the empty one at the end of a stream
                yield packet
            continue
        try:
            for frame in video.decode(packet):
                count += 1
                if frame.is_corrupt:
                    report.damage = report.damage or f"frame {count} is damaged"
                yield _to_array(frame, look)
        except av.error.EOFError:  # ended already
            pass
        except av.error.FFmpegError as error:
            report.damage = report.damage or f"frames are missing behind frame {count} ({error.strerror})"


def _to_array(frame: Any, look: _Look) -> _Frame:
    height, width = (look.width, look.height) if look.quarters % 2 else (look.height, look.width)  # scales if they change
    pixels = np.rot90(frame.to_ndarray(format=look.rgb, width=width, height=height), look.quarters)
    time = None if frame.pts is None else frame.pts * frame.time_base
    return _Frame(np.ascontiguousarray(pixels), time, (frame.duration or 0) * frame.time_base)


# --- writing ----------------------------------------------------------------------------------------------------------------


class _Writer:
    """The output: new frames in one stream, and copies of the streams that hold sound and subtitles."""

    def __init__(self, output: Any, container: Any, look: _Look, report: VideoReport) -> None:
        video = _video_stream(container)
        self.output, self.look = output, look
        self.stream = _add_video(output, video, look, report)
        self.unit = Fraction(self.stream.codec_context.time_base)
        self.fine = Fraction(video.time_base)
        self.origin: Fraction | None = None  # what is left of the first frame's time when units are taken away
        self.next = 0  # the earliest time that the next frame can have, in units
        self.copies: dict[Any, Any] = {}
        """Stream of the input -> its copy."""
        for stream in container.streams:
            if stream.type in ("audio", "subtitle"):
                try:
                    self.copies[stream] = output.add_stream_from_template(stream)
                except (av.error.FFmpegError, ValueError) as error:
                    report.notes.append(f"its {stream.type} ({stream.codec_context.name}) cannot be copied: {error}")
        output.metadata.update(container.metadata)

    def write(self, item: Any) -> Any:
        """Take in what `_read` found, its frames restored."""
        if isinstance(item, _Frame):
            self._mux(self.stream.encode(self._frame(item)))
        else:
            item.stream = self.copies[item.stream]
            self.output.mux(item)
        return item

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._mux(self.stream.encode(None))

    def _mux(self, packets: list[Any]) -> None:
        """Some encoders count whole frames: what was taken away for them is put back, or sound would be early or late by it."""
        for packet in packets if self.origin else ():
            times = [round((time * self.unit + (self.origin or 0)) / self.fine) for time in (packet.pts, packet.dts)]
            packet.pts, packet.dts = times
            packet.duration = round(packet.duration * self.unit / self.fine)
            packet.time_base = self.fine
        self.output.mux(packets)

    def _frame(self, item: _Frame) -> Any:
        frame = av.VideoFrame.from_ndarray(item.pixels, format=self.look.rgb)
        # the way back of the conversion to RGB, with the same matrix and range
        colours = self.look.colours
        frame = frame.reformat(
            format=self.stream.pix_fmt, dst_colorspace=colours["colorspace"], dst_color_range=colours["color_range"] or None
        )
        # damaged files have times that are missing, or do not rise; encoders accept neither
        if self.origin is None:
            self.origin = (item.time or Fraction(0)) % self.unit
        time = self.next if item.time is None else round((item.time - self.origin) / self.unit)
        frame.pts, frame.time_base = max(time, self.next), self.unit
        frame.duration = round(item.duration / self.unit)
        self.next = frame.pts + 1
        return frame


def _add_video(output: Any, video: Any, look: _Look, report: VideoReport) -> Any:
    """A stream for frames like those of the input."""
    family = video.codec_context.codec.canonical_name
    names, options = _ENCODERS.get(family, ([family], {}))
    codec = next((codec for name in names if (codec := _encoder(name))), None)
    if codec is None:
        report.notes.append(f"{family} became h264, as there is no encoder for it")
        family = "h264"
        codec, options = _encoder("libx264"), _ENCODERS["h264"][1]
    rate = video.average_rate or video.guessed_rate or Fraction(25)
    try:
        stream = output.add_stream(codec.name, rate=rate, options=options)
    except ValueError:
        raise DerainzooError(
            f"the video is {family}, which does not go into a file of the kind {output.format.name}; "
            "name the output .mkv, or as the input is named"
        ) from None
    stream.width, stream.height = look.width, look.height
    stream.pix_fmt = look.layout
    layouts = [layout.name for layout in codec.video_formats or []]
    if layouts and look.layout not in layouts:
        stream.pix_fmt = next(name for name in ("yuv420p10le" if look.deep else "yuv420p", *layouts) if name in layouts)
        report.notes.append(f"pixel format {look.layout} became {stream.pix_fmt}")
    context = stream.codec_context
    context.time_base = video.time_base
    coarse = {"mpeg1video": 0, "mpeg2video": 0, "mpeg4": 65535}.get(family)  # the finest clock they know; 0: that of the frames
    if output.format.name == "avi" or (coarse is not None and video.time_base.denominator > coarse):
        context.time_base = 1 / rate
    if "crf" not in options:
        known = video.codec_context.bit_rate or 0
        context.bit_rate = max(2 * known, int(0.3 * look.width * look.height * rate))
    context.flags |= av.codec.context.Flags.frame_duration  # or nothing says how long the last one is seen
    for name, value in look.colours.items():
        setattr(context, name, value)
    if ratio := video.sample_aspect_ratio:
        context.sample_aspect_ratio = 1 / ratio if look.quarters % 2 else ratio
    stream.metadata.update(video.metadata)
    if look.interlaced:
        report.notes.append(
            "it is interlaced, and both half-frames went through the network as one picture; deinterlace it first"
        )
    return stream


def _encoder(name: str) -> Any:
    try:
        return av.codec.Codec(name, "w")
    except ValueError:
        return None
