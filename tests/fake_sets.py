"""Tiny fake copies of every data set in every layout of the catalog.

The paths are written out here by hand, as the sets' own files are called, and not made from the catalog's patterns: a wrong
pattern finds other files than these. What a file shows is a code of its scene, so that a wrong partner can be seen.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from derainzoo.images import write_png

HEIGHT, WIDTH = 24, 32
NUMBERS = (1, 2, 10)  # 10 sorts before 2 as text


@dataclass(frozen=True)
class Fake:
    """One pair and what a reader must make of it."""

    name: str
    rainy: str
    clean: str | None
    background: str
    side: Literal["left", "right"] | None = None
    density: str | None = None


Copy = dict[str, list[Fake]]  # split -> its pairs


def scene(background: str) -> np.ndarray:
    """A flat picture whose colour says which scene it is; the largest level is kept for rain."""
    code = 1 + sum(ord(c) * 31**i for i, c in enumerate(background)) % 250**3
    return np.full((HEIGHT, WIDTH, 3), [code % 250, code // 250 % 250, code // 250**2], np.uint8)


def rain(clean: np.ndarray) -> np.ndarray:
    """White streaks on every fourth row."""
    rainy = clean.copy()
    rainy[::4] = 255
    return rainy


def landscape(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A random picture with structure at all scales, as photographs have."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for size in (4, 8, 16, 32, 64):
        noise = rng.normal(size=(size, size, 3)).astype(np.float32)
        layers = [Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        picture += np.dstack(layers) * 32 / size**0.5
    return np.clip(picture * 2 + 128, 0, 255).astype(np.uint8)


def write(folder: Path, fakes: Iterable[Fake]) -> None:
    """Make the files of a copy. They are PNG data under whatever name, because codes must survive."""
    for fake in fakes:
        clean = scene(fake.background)
        rainy = rain(clean)
        if fake.side is not None:
            halves = [rainy, clean] if fake.side == "left" else [clean, rainy]
            write_png(folder / fake.rainy, np.concatenate(halves, axis=1))
            continue
        write_png(folder / fake.rainy, rainy)
        if fake.clean is not None:
            write_png(folder / fake.clean, clean)


def _pairs(rainy: str, clean: str | None, **more: str) -> list[Fake]:
    """Pairs named by their number, which stands where `#` is (`###`: with leading zeros)."""
    return [_fake(str(n), n, rainy, clean, **more) for n in NUMBERS]


def _fake(name: str, number: int, rainy: str, clean: str | None, background: str = "#", **more: str) -> Fake:
    def fill(text: str) -> str:
        for zeros in (5, 4, 3, 1):
            text = text.replace("#" * zeros, f"{number:0{zeros}d}")
        return text

    return Fake(name, fill(rainy), None if clean is None else fill(clean), fill(background), **more)


def _halves(file: str, side: str) -> list[Fake]:
    return _pairs(file, file, side=side)


def _two(place: str, file: str = "#.png", rainy: str = "input", clean: str = "target") -> list[Fake]:
    return _pairs(f"{place}{rainy}/{file}", f"{place}{clean}/{file}")


def _texts(
    place: str, rainy: str = "input", clean: str = "target", names: tuple[str, ...] = ("a-2", "a-10", "b")
) -> list[Fake]:
    return [Fake(n, f"{place}{rainy}/{n}.png", f"{place}{clean}/{n}.png", n) for n in names]


def _rain100(letter: str) -> dict[str, Copy]:
    return {
        "PReNet": {
            "train": _pairs(f"RainTrain{letter}/rain-#.png", f"RainTrain{letter}/norain-#.png"),
            "test": _pairs(f"Rain100{letter}/rainy/rain-###.png", f"Rain100{letter}/norain-###.png"),
        },
        "RCDNet": {s: _two(f"{s}/small/", "norain-#.png", "rain", "norain") for s in ("train", "test")},
        "two folders a split": {s: _two(f"{s}/", "norain-#.png", "rain", "norain") for s in ("train", "test")},
    }


def _rain200(letter: str, word: str) -> dict[str, Copy]:
    folders = {
        "train": f"rain_data_train_{word}",
        "test": f"rain_{word.lower()}_test" if letter == "H" else f"rain_data_test_{word}",
    }
    return {
        "original": {s: _pairs(f"{f}/rain/norain-#x2.png", f"{f}/norain/norain-#.png") for s, f in folders.items()},
        "original, rain in X2": {
            s: _pairs(f"{f}/rain/X2/norain-#x2.png", f"{f}/norain/norain-#.png") for s, f in folders.items()
        },
        "DRSformer": {s: _two(f"{s}/Rain200{letter}/") for s in ("train", "test")},
        "NeRD-Rain": {s: _two(f"{s}/") for s in ("train", "test")},
    }


def _versions(rainy: str, clean: str, scenes: tuple[int, ...]) -> list[Fake]:
    """Three rainy versions of each scene, as `N_K`."""
    return [Fake(f"{n}_{k}", rainy.format(n=n, k=k), clean.format(n=n, k=k), str(n)) for n in scenes for k in (1, 2, 14)]


_DDN = {"train": (1, 2, 900), "test": (901, 1000)}


def _rain13k_tests(above: str) -> Copy:
    return {
        **{t.lower(): _texts(f"{above}{t}/") for t in ("Test100", "Rain100H", "Rain100L", "Test1200")},
        "test2800": _versions(above + "Test2800/input/{n}_{k}.jpg", above + "Test2800/target/{n}_{k}.jpg", (5, 40)),
    }


def _densities(rainy: str, clean: str, side: str | None = None) -> list[Fake]:
    return [
        _fake(f"{d.lower()}_{n}", n, rainy.replace("DENSITY", d), clean.replace("DENSITY", d), side=side, density=d.lower())  # type: ignore[arg-type]
        for d in ("Heavy", "Light", "Medium")
        for n in NUMBERS
    ]


def _rainds() -> Copy:
    names = {"raindrop": "rd-", "rainstreak": "rain-", "rainstreak_raindrop": "rd-rain-"}
    suffixes = {"raindrop": "_raindrop", "rainstreak": "_streak", "rainstreak_raindrop": "_both"}
    copy: Copy = {}
    for part in ("train", "test"):
        for kind, prefix in names.items():
            real, syn = f"RainDS_real/{part}_set", f"RainDS_syn/{part}"
            copy[f"real_{part}{suffixes[kind]}"] = [
                Fake(f"{kind}/{n}", f"{real}/{kind}/{n}.png", f"{real}/gt/{n}.png", str(n)) for n in NUMBERS
            ]
            copy[f"syn_{part}{suffixes[kind]}"] = [
                Fake(f"{kind}/{pie}{n}", f"{syn}/{kind}/{pie}{prefix}{n}.png", f"{syn}/gt/{pie}norain-{n}.png", f"{pie}{n}")
                for pie in ("", "pie-")
                for n in NUMBERS
            ]
        for whole in (f"real_{part}", f"syn_{part}"):
            copy[whole] = [fake for suffix in suffixes.values() for fake in copy[whole + suffix]]
    return copy


def _gt_rain(split: str) -> list[Fake]:
    top = f"GT-RAIN_{split}"
    plain = [
        Fake(
            f"Oinari_2-1/{n}",
            f"{top}/Oinari_2-1/Oinari_2-1-Webcam-R-{n:03d}.png",
            f"{top}/Oinari_2-1/Oinari_2-1-Webcam-C-000.png",
            "Oinari_2-1",
        )
        for n in (0, 1, 12)
    ]
    frames = [
        Fake(
            f"Gurutto_1-2/{n}",
            f"{top}/Gurutto_1-2/Gurutto_1-2-Webcam-R-{n:03d}.png",
            f"{top}/Gurutto_1-2/Gurutto_1-2-Webcam-C-{n:03d}.png",
            "Gurutto_1-2",
        )
        for n in (0, 7)
    ]
    return frames + plain


def _sequences(folders: dict[str, str], truth: bool) -> list[Fake]:
    """Folder of the rainy frames -> sequence."""
    return [
        Fake(f"{seq}/{n}", f"{folder}/{n:05d}.jpg", f"{seq}_GT/{n:05d}.jpg" if truth else None, seq)
        for folder, seq in folders.items()
        for n in NUMBERS
    ]


def _spa_train() -> list[Fake]:
    names = [("000", "000-3_0_0"), ("000", "000-12_0_256"), ("017", "017-1_0_0")]
    return [Fake(name, f"real_world/{s}/{name[:5]}/{name}.png", f"real_world_gt/{s}/{s}-gt/{name}.png", s) for s, name in names]


def _gopro(place: str) -> list[Fake]:
    seq = "GOPR0372_07_00"
    return [Fake(f"{seq}/{n}", f"{place}input/{seq}-{n:06d}.png", f"{place}target/{seq}-{n:06d}.png", seq) for n in (47, 100)]


# data set -> layout's title -> split -> pairs
FAKES: dict[str, dict[str, Copy]] = {
    "rain100l": _rain100("L"),
    "rain100h": _rain100("H"),
    "rain200l": _rain200("L", "Light"),
    "rain200h": _rain200("H", "Heavy"),
    "rain12": {
        "PReNet": {"test": _pairs("rainy/#.png", "gt/#.png")},
        "side by side": {"test": _halves("rain12_test/#.png", "left")},
        "original": {"test": _pairs("rain/###_rain.png", "gt/###_GT.png")},
        "original, one folder": {"test": _pairs("###_in.png", "###_GT.png")},
        "two folders in test": {"test": _two("test/")},
    },
    "rain800": {
        "original": {
            "train": _halves("rain/training/#.jpg", "right"),
            "test": _halves("rain/test_syn/#.jpg", "right"),
            "real": _pairs("rain/test_nature/#.jpg", None, side="right"),
        },
        "original, without its outer folder": {
            "train": _halves("training/#.jpg", "right"),
            "test": _halves("test_syn/#.jpg", "right"),
            "real": _pairs("test_nature/#.jpg", None, side="right"),
        },
        "cut in two, one folder": {s: _pairs(f"{s}/rain-###.png", f"{s}/norain-###.png") for s in ("train", "test")},
        "cut in two": {s: _two(f"{s}/") for s in ("train", "test")},
    },
    "rain1400": {
        "PReNet": {
            "train": _versions("Rain12600/rainy_image/{n}_{k}.jpg", "Rain12600/ground_truth/{n}.jpg", _DDN["train"]),
            "test": _versions("Rain1400/rainy_image/{n}_{k}.jpg", "Rain1400/ground_truth/{n}.jpg", _DDN["test"]),
        },
        "both splits in one folder": {
            s: _versions("rainy image/{n}_{k}.jpg", "ground truth/{n}.jpg", scenes) for s, scenes in _DDN.items()
        },
        "original": {
            s: _versions(f"{s}ing/rainy_image/{{n}}_{{k}}.jpg", f"{s}ing/ground_truth/{{n}}.jpg", scenes)
            for s, scenes in (("train", _DDN["train"]), ("test", _DDN["test"]))
        },
        "DRSformer": {
            s: _versions(f"{s}/DDN-Data/input/{{n}}_{{k}}.png", f"{s}/DDN-Data/target/{{n}}_{{k}}.png", scenes)
            for s, scenes in _DDN.items()
        },
        "a target for every version": {
            s: _versions(f"{s}/input/{{n}}_{{k}}.png", f"{s}/target/{{n}}_{{k}}.png", scenes) for s, scenes in _DDN.items()
        },
    },
    "did_mdn": {
        "original": {
            "train": _densities(*["DID-MDN-training/Rain_DENSITY/train2018new/#.jpg"] * 2, side="left"),
            "test": _halves("DID-MDN-test/#.jpg", "left"),
        },
        "cut in two, by density": {
            s: _densities(f"{s}/Rain_DENSITY/rainy/#.png", f"{s}/Rain_DENSITY/clean/#.png") for s in ("train", "test")
        },
        "DRSformer": {s: _texts(f"{s}/DID-Data/") for s in ("train", "test")},
        "cut in two": {s: _texts(f"{s}/", "rainy", "clean") for s in ("train", "test")},
    },
    "rain13k": {
        "Restormer": {"train": _texts("train/Rain13K/"), **_rain13k_tests("test/")},
        "MPRNet": {"train": _texts("train/")},
        "tests by themselves": _rain13k_tests(""),
    },
    "outdoor_rain": {
        "original": {
            "train": [
                Fake(f"{n}_{s}_{a}", f"train/in/im_{n:04d}_s{s}_a{a:02d}.png", f"train/gt/im_{n:04d}.png", str(n))
                for n in (1, 20)
                for s, a in ((80, 4), (100, 6))
            ],
            "test": [Fake("1_80_4", "Test1/in/im_0001_s80_a04.png", "Test1/gt/im_0001.png", "1")],
        },
    },
    "nturain": {
        "original": {
            "train": _sequences({"t2_Rain": "t2", "t10_Rain": "t10"}, truth=True),
            "test": _sequences({"a1_Rain": "a1", "b4_Rain": "b4"}, truth=True),
            "real": _sequences({"ra1_Rain": "ra1", "rb3": "rb3"}, truth=False),
        },
    },
    "spa_data": {
        "original": {
            "train": _spa_train(),
            "test": _pairs("real_test_1000/rain/###.png", "real_test_1000/gt/###gt.png"),
            "real": [Fake(n, f"Real_Internet/{n}.png", None, n) for n in ("street", "x2")],
        },
        "RCDNet": {"test": _two("test/small/", "norain-#.png", "rain", "norain")},
        "numbered": {"test": _pairs("rain/rain-#.png", "norain/norain-#.png")},
        "DRSformer": {s: _texts(f"{s}/SPA-Data/") for s in ("train", "test")},
        "two folders a split": {s: _texts(f"{s}/") for s in ("train", "test")},
    },
    "gt_rain": {"original": {s: _gt_rain(s) for s in ("train", "val", "test")}},
    "realrain_1k": {
        "original": {
            f"{density}_{s}": _texts(f"RealRain-1k-{letter}/{s}/")
            for density, letter in (("light", "L"), ("heavy", "H"))
            for s in ("train", "val", "test")
        },
    },
    "lhp_rain": {"as derived code reads it": {s: _texts(f"{s}/", names=("0001", "2701")) for s in ("train", "test")}},
    "raindrop": {
        "original": {
            "train": _pairs("train/data/#_rain.png", "train/gt/#_clean.png"),
            "test_a": _pairs("test_a/data/#_rain.png", "test_a/gt/#_clean.png"),
            "test_b": _pairs("test_b/data/#_rain.jpg", "test_b/gt/#_clean.jpg"),
        },
        "two folders a split": {s: _texts(f"{s}/") for s in ("train", "test_a", "test_b")},
    },
    "rainds": {"original": _rainds()},
    "lol": {
        "original": {"train": _two("our485/", "#.png", "low", "high"), "test": _two("eval15/", "#.png", "low", "high")},
        "two folders a split": {s: _two(f"{s}/") for s in ("train", "test")},
    },
    "uieb": {
        "original": {
            "all": [Fake(n, f"raw-890/{n}.png", f"reference-890/{n}.png", n) for n in ("2_img_", "15_img_", "100_img_")],
            "challenge": [Fake("7", "challenging-60/7.png", None, "7")],
        },
    },
    "gopro": {
        "original": {
            s: [
                Fake(
                    f"GOPR0372_07_{k}/{n}",
                    f"{s}/GOPR0372_07_{k}/blur/{n:06d}.png",
                    f"{s}/GOPR0372_07_{k}/sharp/{n:06d}.png",
                    f"GOPR0372_07_{k}",
                )
                for k in ("00", "01")
                for n in (47, 100)
            ]
            for s in ("train", "test")
        },
        "MPRNet": {s: _gopro(f"{s}/GoPro/") for s in ("train", "test")},
        "MPRNet, in the set's folder": {s: _gopro(f"{s}/") for s in ("train", "test")},
        "two folders a split": {s: _texts(f"{s}/") for s in ("train", "test")},
    },
    "hide": {
        "MPRNet": {"test": _texts("test/HIDE/")},
        "original": {
            "train": [Fake(n, f"train/{n}.png", f"GT/{n}.png", n) for n in ("3fromGOPR0950", "12fromGOPR0950")],
            "test": [
                Fake("1fromGOPR1096", "test/test-close-ups/1fromGOPR1096.png", "GT/1fromGOPR1096.png", "1fromGOPR1096"),
                Fake("9fromGOPR1089", "test/test-long-shot/9fromGOPR1089.png", "GT/9fromGOPR1089.png", "9fromGOPR1089"),
            ],
        },
        "two folders a split": {s: _texts(f"{s}/") for s in ("train", "test")},
    },
    "folder": {
        "two folders": {"all": _texts("", "rainy", "clean")},
        "two folders a split": {s: _texts(f"{s}/", "rain", "gt") for s in ("train", "val", "test")},
    },
    "pictures": {
        "any folder": {"all": [Fake(n, f"{n}.png", None, n) for n in ("img2", "img10", "trip/day 1/wet")]},
    },
}


def make(folder: Path, dataset: str, layout: str) -> Copy:
    """Write one fake copy into `folder` and return what a reader must find there."""
    copy = FAKES[dataset][layout]
    for fakes in copy.values():
        write(folder, fakes)
    if (dataset, layout) == ("spa_data", "original"):
        lines = [f"./{f.rainy} /{f.clean}\n" for f in copy["train"]]
        (folder / "real_world.txt").write_text("".join(lines))
    return copy
