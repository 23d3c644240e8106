import json

import numpy as np
import pytest
from PIL import Image

import fake_sets
from derainzoo.data.layouts import Files
from derainzoo.data.verify import verify
from derainzoo.errors import DerainzooError
from derainzoo.images import write_png
from fake_sets import landscape


def rainy(clean: np.ndarray, seed: int = 0) -> np.ndarray:
    streaks = np.random.default_rng(seed).random((1, clean.shape[1], 1)) > 0.9
    return np.where(streaks, 255, clean).astype(np.uint8)


def make_pairs(folder, scenes: range) -> None:
    for i in scenes:
        clean = landscape(i, 48, 64)
        write_png(folder / "input" / f"{i}.png", rainy(clean, i))
        write_png(folder / "target" / f"{i}.png", clean)


def texts(report, level: str) -> list[str]:
    return [f.text for f in report.all_findings() if f.level == level]


def test_a_sound_copy(tmp_path):
    make_pairs(tmp_path / "train", range(6))
    make_pairs(tmp_path / "test", range(6, 9))
    report = verify("folder", tmp_path)
    assert report.sound
    assert texts(report, "error") == texts(report, "warning") == []
    assert [(s.split, s.pairs, s.scenes, s.examined) for s in report.splits] == [("train", 6, 6, 6), ("test", 3, 3, 3)]
    assert report.splits[0].sizes == {"64x48": 6}
    assert json.loads(json.dumps(report.to_dict()))["sound"] is True
    text = "\n".join(report.lines())
    assert "train: 6 pairs" in text
    assert "sound: 0 errors, 0 warnings" in text


def test_the_input_psnr(tmp_path):
    make_pairs(tmp_path, range(3))
    clean = landscape(3, 48, 64)
    write_png(tmp_path / "input/3.png", clean)
    write_png(tmp_path / "target/3.png", clean)
    report = verify("folder", tmp_path, ["all"])
    expected = []
    for i in range(3):
        a, b = (
            np.round(im @ [65.481, 128.553, 24.966] / 255 + 16) for im in (landscape(i, 48, 64), rainy(landscape(i, 48, 64), i))
        )
        expected.append(20 * np.log10(255 / np.sqrt(((a - b) ** 2).mean())))
    assert report.splits[0].input_psnr == pytest.approx(np.mean(expected), abs=1e-3)
    assert texts(report, "warning") == ["rainy equals clean in 1 of 4 pairs: 3"]
    assert verify("folder", tmp_path, ["all"], psnr=lambda rain, clean: 7.0).splits[0].input_psnr == 7.0


def test_the_input_psnr_is_compared_with_the_published_one(tmp_path):
    make_pairs(tmp_path / "Rain12", range(1, 13))
    report = verify("rain12", tmp_path, psnr=lambda rain, clean: 30.135)
    assert report.sound
    report = verify("rain12", tmp_path, psnr=lambda rain, clean: 30.5)
    assert not report.sound
    assert texts(report, "error") == ["the input has 30.50 dB instead of 30.14: other pictures, or paired wrongly"]
    (tmp_path / "Rain12/input/1.png").unlink()
    (tmp_path / "Rain12/target/1.png").unlink()
    report = verify("rain12", tmp_path, psnr=lambda rain, clean: 30.5)  # a part of a set has another mean
    assert texts(report, "error") == []
    assert texts(report, "warning") == ["11 pairs, where 12 were published"]


def test_what_is_broken(tmp_path):
    make_pairs(tmp_path, range(5))
    write_png(tmp_path / "target/1.png", landscape(1, 48, 60))
    (tmp_path / "input/2.png").write_bytes((tmp_path / "input/2.png").read_bytes()[:500])
    (tmp_path / "target/4.png").unlink()
    report = verify("folder", tmp_path)
    assert not report.sound
    errors = "\n".join(texts(report, "error"))
    assert "1 rainy picture with no clean partner" in errors
    assert "2 of 4 pairs cannot be used: 1 is 64x48, its clean picture 60x48; " in errors
    assert "damaged PNG picture" in errors
    assert "NOT SOUND: 2 errors" in report.lines()[-1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_halves_the_wrong_way_round(tmp_path, side):
    for i in range(4):
        clean = landscape(i, 48, 64)
        halves = [rainy(clean, i), clean] if side == "left" else [clean, rainy(clean, i)]
        write_png(tmp_path / f"{i}.png", np.hstack(halves))
    assert verify("folder", tmp_path, ["all"], files=Files("{n}", "{n}", side=side)).sound
    other = "right" if side == "left" else "left"
    report = verify("folder", tmp_path, ["all"], files=Files("{n}", "{n}", side=other))
    assert [
        f"the {other} half should be the rainy one, but in 4 of 4 it has less detail" in t for t in texts(report, "error")
    ] == [True]


def test_lossy_ground_truth(tmp_path):
    make_pairs(tmp_path, range(3))
    for i in range(2):
        Image.fromarray(landscape(i, 48, 64)).save(tmp_path / "target" / f"{i}.png", "JPEG", quality=90)
    report = verify("folder", tmp_path)
    assert texts(report, "warning") == ["the ground truth of 2 of 3 pairs is lossy (JPEG), 2 of them in files named .png"]
    assert report.sound


def test_scenes_common_to_train_and_test(tmp_path):
    make_pairs(tmp_path / "train", range(6))
    make_pairs(tmp_path / "test", range(10, 13))
    clean = np.ascontiguousarray(np.rot90(landscape(4, 48, 64)))
    write_png(tmp_path / "test/input/99.png", rainy(clean))
    write_png(tmp_path / "test/target/99.png", clean)
    report = verify("folder", tmp_path)
    assert report.overlaps == {"train/test": [("4", "99", 0)]}
    assert "1 of the pictures of test show scenes of train: 4 and 99" in texts(report, "warning")
    assert verify("folder", tmp_path, overlap=False).overlaps == {}


def test_a_part_of_a_large_set(tmp_path):
    make_pairs(tmp_path, range(20))
    seen: list[np.ndarray] = []
    report = verify("folder", tmp_path, at_most=4, psnr=lambda rain, clean: seen.append(clean) or 1.0)
    assert (report.splits[0].pairs, report.splits[0].examined) == (20, 4)
    for i in (0, 5, 10, 15):
        assert any(np.array_equal(landscape(i, 48, 64), clean) for clean in seen)


def test_known_overlaps_are_told(tmp_path):
    fake_sets.make(tmp_path, "rain12", "side by side")
    assert "test and rain13k/train show common scenes: all 12 pictures" in texts(verify("rain12", tmp_path), "note")


def test_pictures_without_ground_truth(tmp_path):
    for i in range(3):
        write_png(tmp_path / "trip" / f"{i}.png", landscape(i))
    (report,) = verify("pictures", tmp_path).splits
    assert (report.pairs, report.input_psnr, report.sizes) == (3, None, {"160x120": 3})


def test_sixteen_bits(tmp_path):
    clean = landscape(0).astype(np.uint16) * 257
    write_png(tmp_path / "input/1.png", np.where(np.arange(160)[:, None] % 9 == 0, 65535, clean).astype(np.uint16))
    write_png(tmp_path / "target/1.png", clean)
    assert verify("folder", tmp_path).splits[0].input_psnr < 30


def test_nothing_there(tmp_path):
    with pytest.raises(DerainzooError, match="no pictures of rain800"):
        verify("rain800", tmp_path)
    make_pairs(tmp_path / "train", range(1))
    with pytest.raises(DerainzooError, match=r"no pictures of folder \(test\)"):
        verify("folder", tmp_path, ["train", "test"])


@pytest.mark.shared
def test_real_samples(shared):
    data = shared / "data"
    report = verify("rain12", data / "pairs")
    assert report.sound
    assert report.splits[0].input_psnr == pytest.approx(30.14, abs=0.005)
    for name, psnr in (("Rain200H", 12.93), ("Rain800-train", 23.70), ("OutdoorRain", 15.57), ("SPA", 22.62)):
        (split,) = verify("folder", data / "pairs" / name).splits
        assert split.input_psnr == pytest.approx(psnr, abs=0.005)
    (split,) = verify("folder", data / "Rain100L-train").splits
    assert split.sizes == {"481x321": 134, "321x481": 66}
    assert split.findings == ()
