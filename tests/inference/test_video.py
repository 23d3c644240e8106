"""Videos keep their times, sound, turn and codec; what is damaged ends early instead of being lost."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from derainzoo.errors import DerainzooError
from derainzoo.inference import video
from derainzoo.inference.predictor import Predictor
from derainzoo.inference.video import restore_video

av = pytest.importorskip("av")

W, H, FRAMES = 64, 48, 10
EVEN = [40 * i for i in range(FRAMES)]
UNEVEN = [0, 40, 80, 200, 240, 300, 340, 400, 600, 640]  # in ms, as telephones film
MILLI = Fraction(1, 1000)


class Same(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape[-2:]))
        return x


def frame(i: int) -> np.ndarray:
    """Smooth, so that codecs keep it; darker to the right and brighter from frame to frame."""
    y, x = np.mgrid[:H, :W]
    return np.stack([200 - 2 * x + 4 * i, 30 + 3 * y, 0 * x + 100 + 5 * i], 2).astype(np.uint8)


def film(
    path, codec="libx264", *, times=EVEN, unit=MILLI, layout="yuv420p", sound="aac", rotation=0, colours=None, options=None
):
    with av.open(str(path), "w", options=options or {}) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, layout
        stream.codec_context.time_base = unit
        stream.codec_context.gop_size = 5
        for name, value in (colours or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        audio = output.add_stream(sound, rate=44100, layout="stereo") if sound else None
        for i, time in enumerate(times):
            rgb = av.VideoFrame.from_ndarray(frame(i), "rgb24")
            matrix = {"dst_colorspace": colours["colorspace"], "dst_color_range": colours["color_range"]} if colours else {}
            picture = rgb.reformat(format=layout, **matrix)
            picture.pts, picture.time_base = time, unit
            output.mux(stream.encode(picture))
        if audio:
            for start in range(0, 16 * 1024, 1024):
                wave = np.sin(np.arange(start, start + 1024) / 20, dtype=np.float32) * 0.3
                samples = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
                samples.sample_rate, samples.pts = 44100, start
                output.mux(audio.encode(samples))
            output.mux(audio.encode(None))
        output.mux(stream.encode(None))
    return path


class Seen:
    """A video as a player shows it."""

    def __init__(self, path):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            context = stream.codec_context
            self.codec, self.layout = context.codec.canonical_name, frames[0].format.name
            self.rate, self.metadata = stream.average_rate, dict(container.metadata)
            self.colours = [getattr(context, n) for n in ("colorspace", "color_range", "color_trc", "color_primaries")]
            self.times = [f.pts * f.time_base for f in frames]
            self.pixels = [np.rot90(f.to_ndarray(format="rgb24"), round(f.rotation / 90)).astype(int) for f in frames]
        with av.open(str(path)) as container:
            sound = list(container.decode(audio=0)) if container.streams.audio else []
            self.sound = np.concatenate([f.to_ndarray() for f in sound], 1) if sound else None
            self.sound_begins = sound[0].pts * sound[0].time_base if sound else None


@pytest.fixture
def same():
    return Predictor(Same(), "cpu", tile=None)


def check(before: Seen, after: Seen, difference: float = 3):
    assert after.codec == before.codec
    assert after.layout == before.layout
    assert [t - after.times[0] for t in after.times] == [t - before.times[0] for t in before.times]
    assert after.colours == before.colours
    for a, b in zip(before.pixels, after.pixels, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).mean() < difference
    if before.sound is not None:
        assert np.array_equal(after.sound, before.sound)  # copied, not encoded again
        assert after.sound_begins - after.times[0] == before.sound_begins - before.times[0]


CLIPS = {
    "phone.mp4": {"times": UNEVEN},
    "tall.mov": {"times": UNEVEN, "rotation": 90},
    "screen.mkv": {"times": UNEVEN, "layout": "yuv444p", "sound": "mp3"},
    "archive.mkv": {"codec": "ffv1", "times": UNEVEN, "sound": "pcm_s16le"},
    "camera.avi": {
        "codec": "mjpeg",
        "times": range(FRAMES),
        "unit": Fraction(1, 25),
        "layout": "yuvj422p",
        "sound": "pcm_s16le",
    },
    "old.avi": {"codec": "mpeg4", "times": range(FRAMES), "unit": Fraction(1, 25), "sound": "mp3"},
    "disc.mpg": {"codec": "mpeg2video", "times": range(FRAMES), "unit": Fraction(1, 25), "sound": "mp2"},
    "antenna.ts": {"times": UNEVEN, "sound": "mp2"},
    "deep.mov": {"codec": "libx265", "times": UNEVEN, "layout": "yuv420p10le"},
    "web.webm": {"codec": "libvpx-vp9", "times": UNEVEN, "sound": None},
    "web8.webm": {"codec": "libvpx", "times": UNEVEN, "sound": None},
    "new.mp4": {"codec": "libsvtav1", "times": UNEVEN},
    "studio.mov": {"codec": "prores_ks", "times": UNEVEN, "layout": "yuv422p10le", "sound": "pcm_s16le"},
}


@pytest.mark.parametrize("name", CLIPS)
def test_what_is_kept(tmp_path, same, name):
    settings = dict(CLIPS[name])
    source = film(tmp_path / name, settings.pop("codec", "libx264"), **settings)
    steps = []
    report = restore_video(source, tmp_path / "out" / name, same, lambda done, total: steps.append((done, total)))
    assert report.frames == FRAMES
    assert not report.damage
    assert not report.notes
    assert [done for done, _ in steps] == list(range(1, FRAMES + 1))
    before, after = Seen(source), Seen(tmp_path / "out" / name)
    check(before, after)
    if settings["times"] is not UNEVEN:
        assert after.rate == before.rate == 25
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]


def test_the_network_changes_frames_and_sees_them_upright(tmp_path):
    class Dark(Same):
        def forward(self, x):
            return super().forward(x) / 2

    net = Dark()
    source = film(tmp_path / "tall.mp4", rotation=-90, sound=None)
    restore_video(source, tmp_path / "out.mp4", Predictor(net, "cpu", tile=None))
    assert set(net.shapes) == {(W, H)}
    before, after = Seen(source), Seen(tmp_path / "out.mp4")
    assert after.pixels[0].shape == (W, H, 3)
    for a, b in zip(before.pixels, after.pixels, strict=True):
        assert np.abs(a / 2 - b).mean() < 3


@pytest.mark.parametrize(
    ("matrix", "span"), [(1, 1), (1, 2), (5, 1), (9, 1)]
)  # BT.709, BT.601, BT.2020; limited and full range
def test_colours_come_back_by_the_way_they_went(tmp_path, same, matrix, span):
    tags = {"colorspace": matrix, "color_range": span, "color_trc": matrix, "color_primaries": matrix}
    source = film(tmp_path / "a.mkv", "ffv1", sound=None, colours=tags)
    restore_video(source, tmp_path / "b.mkv", same)
    before, after = Seen(source), Seen(tmp_path / "b.mkv")
    check(before, after, 1.5)
    assert after.colours[:2] == [matrix, span]
    assert np.abs(before.pixels[0] - frame(0)).mean() < 2  # the clip itself is right


def test_deep_video_goes_through_in_sixteen_bits(tmp_path):
    seen = []

    class Peek(Predictor):
        def restore(self, images):
            seen.append(images.dtype)
            return super().restore(images)

    source = film(tmp_path / "a.mkv", "ffv1", layout="yuv420p10le", sound=None)
    restore_video(source, tmp_path / "b.mkv", Peek(Same(), "cpu", tile=None))
    assert set(seen) == {torch.uint16}
    assert Seen(tmp_path / "b.mkv").layout == "yuv420p10le"


def test_metadata_and_subtitles_are_kept(tmp_path, same):
    source = film(tmp_path / "a.mkv")
    with av.open(str(source)) as container, av.open(str(tmp_path / "b.mkv"), "w") as output:
        output.metadata["title"] = "Rain"
        copies = {s: output.add_stream_from_template(s) for s in container.streams}
        words = output.add_mux_stream("subrip")
        words.time_base = MILLI
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream]
                output.mux(packet)
        line = av.Packet(b"It rains.")
        line.stream, line.pts, line.dts, line.duration, line.time_base = words, 40, 40, 200, MILLI
        output.mux(line)
    report = restore_video(tmp_path / "b.mkv", tmp_path / "c.mkv", same)
    assert not report.notes
    assert Seen(tmp_path / "c.mkv").metadata["title"] == "Rain"
    with av.open(str(tmp_path / "c.mkv")) as container:
        texts = [bytes(p) for p in container.demux(container.streams.subtitles[0]) if p.size]
    assert texts == [b"It rains."]


def test_a_codec_without_encoder_is_replaced_with_a_note(tmp_path, same, monkeypatch):
    source = film(tmp_path / "a.mkv", "ffv1", sound=None)
    encoder = video._encoder
    monkeypatch.setattr(video, "_encoder", lambda name: None if name == "ffv1" else encoder(name))
    report = restore_video(source, tmp_path / "b.mkv", same)
    assert report.notes == ["ffv1 became h264, as there is no encoder for it"]
    assert Seen(tmp_path / "b.mkv").codec == "h264"


# --- hostile ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_a_damaged_tail_keeps_what_was_done(tmp_path, same, name):
    source = film(tmp_path / name, "libx264", sound="mp2", times=EVEN)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 6 // 10])
    report = restore_video(source, tmp_path / f"out-{name}", same)
    after = Seen(tmp_path / f"out-{name}")
    assert 2 <= report.frames == len(after.times) < FRAMES
    assert np.abs(after.pixels[0] - frame(0)).mean() < 4


def spoil(path, index):
    """Overwrite one frame of a video with zeros, but for its head."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        at, size = packets[index].pos + 8, packets[index].size
    data = bytearray(path.read_bytes())
    data[at + 20 : at + size - 20] = bytes(size - 40)
    path.write_bytes(data)


def test_damage_in_the_middle_is_said_and_the_rest_is_done(tmp_path, same):
    source = film(tmp_path / "a.avi", "mjpeg", times=range(FRAMES), unit=Fraction(1, 25), layout="yuvj422p", sound=None)
    spoil(source, 4)
    report = restore_video(source, tmp_path / "b.avi", same)
    assert report.frames == FRAMES - 1
    assert "frames are missing behind frame 4" in report.damage


@pytest.mark.parametrize("data", [b"", b"no video at all" * 100, b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"])
def test_what_is_no_video_is_refused(tmp_path, same, data):
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(DerainzooError, match=r"a\.mp4: not a video that can be read"):
        restore_video(tmp_path / "a.mp4", tmp_path / "b.mp4", same)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_sound_alone_is_no_video(tmp_path, same):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=44100, layout="stereo")
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        samples.sample_rate = 44100
        output.mux(stream.encode(samples))
        output.mux(stream.encode(None))
    with pytest.raises(DerainzooError, match="there is no video in it"):
        restore_video(tmp_path / "a.mp4", tmp_path / "b.mp4", same)


def test_without_pyav_it_says_what_to_install(tmp_path, same, monkeypatch):
    monkeypatch.setattr(video, "av", None)
    with pytest.raises(DerainzooError, match=r"pip install 'derainzoo\[video\]'"):
        restore_video(tmp_path / "a.mp4", tmp_path / "b.mp4", same)


def test_a_container_that_does_not_take_the_codec(tmp_path, same):
    source = film(tmp_path / "a.mp4", sound=None)
    with pytest.raises(DerainzooError, match=r"h264, which does not go into a file of the kind webm; name the output \.mkv"):
        restore_video(source, tmp_path / "b.webm", same)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_an_interrupted_video_leaves_nothing(tmp_path):
    class Interrupted(Same):
        def forward(self, x):
            if len(self.shapes) == 4:
                raise KeyboardInterrupt
            return super().forward(x)

    source = film(tmp_path / "a.mp4")
    with pytest.raises(KeyboardInterrupt):
        restore_video(source, tmp_path / "out/b.mp4", Predictor(Interrupted(), "cpu", tile=None))
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_no_damaged_video(tmp_path, same, monkeypatch):
    class Full:
        def __init__(self, *args):
            raise av.error.OSError(28, "No space left on device", "b.mp4")

    source = film(tmp_path / "a.mp4", sound=None)
    monkeypatch.setattr(video._Writer, "finish", Full)
    with pytest.raises(DerainzooError, match=r"cannot write .*b\.mp4: No space left") as error:
        restore_video(source, tmp_path / "b.mp4", same)
    assert error.value.__cause__.errno == 28
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_only_a_few_frames_exist_at_a_time(tmp_path, monkeypatch):
    source = film(tmp_path / "a.mkv", "ffv1", times=[40 * i for i in range(60)], sound=None)
    read, restored = [0], [0]
    to_array = video._to_array

    def count(*args):
        read[0] += 1
        assert read[0] - restored[0] <= 2 * video.WAITING + 2
        return to_array(*args)

    class Slow(Same):
        def forward(self, x):
            restored[0] += 1
            return x

    monkeypatch.setattr(video, "_to_array", count)
    report = restore_video(source, tmp_path / "b.mkv", Predictor(Slow(), "cpu", tile=None))
    assert report.frames == 60


# --- in the task ------------------------------------------------------------------------------------------------------------


def test_an_error_that_nobody_foresaw_ends_one_video(tmp_path, monkeypatch, caplog):
    from test_predict import run

    from derainzoo import config

    class Odd(Same):
        def forward(self, x):
            return super().forward(x) if x.is_meta or x.shape[-1] != W else {}["frame"]

    config.register()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("derainzoo.inference.predict.load_network", lambda *a, **k: Odd())
    (tmp_path / "wet").mkdir()
    film(tmp_path / "wet/a.mkv", "ffv1", sound=None)
    film(tmp_path / "wet/b.mkv", "ffv1", sound=None, rotation=90)
    assert run("wet", "-o", "dry") == 1
    assert [p.name for p in (tmp_path / "dry").iterdir()] == ["b.mkv"]
    assert "failed: wet/a.mkv: KeyError: 'frame'" in caplog.text


def test_the_task_does_videos_beside_pictures_and_reports_damage(tmp_path, monkeypatch, caplog):
    from test_predict import run

    from derainzoo import config
    from derainzoo.images import write_png

    config.register()
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("derainzoo.inference.predict.load_network", lambda *a, **k: Same())
    (tmp_path / "wet").mkdir()
    write_png(tmp_path / "wet/a.png", frame(0))
    film(tmp_path / "wet/good.mkv", "ffv1", sound=None)
    film(tmp_path / "wet/bad.avi", "mjpeg", times=range(FRAMES), unit=Fraction(1, 25), layout="yuvj422p", sound=None)
    spoil(tmp_path / "wet/bad.avi", 4)
    (tmp_path / "wet/worse.mp4").write_bytes(b"nothing")
    assert run("wet", "-o", "dry") == 1
    assert sorted(p.name for p in (tmp_path / "dry").iterdir()) == ["a.png", "bad.avi", "good.mkv"]
    assert "failed: wet/bad.avi: frames are missing behind frame 4" in caplog.text
    assert f"dry/bad.avi holds the {FRAMES - 1} frames that could be read" in caplog.text
    assert "failed: wet/worse.mp4: not a video that can be read" in caplog.text
    assert "2 done; 2 failed" in caplog.text
