"""Facts of the public data sets: what they are, where they come from, and every customary way in which they lie on a disk.

To add a set, add one `Dataset` to `DATASETS` at the end. What the patterns mean is said at the top of `layouts.py`.
A number that nobody confirmed is not here; a layout that nobody confirmed is called a hint.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from derainzoo.data.layouts import Evidence, Files, Layout, Side


@dataclass(frozen=True)
class Split:
    """A part of a set that is used as a whole."""

    pairs: int | None
    """As published; None where copies differ or nobody counted."""
    also: tuple[int, ...] = ()
    """Other counts of well-known copies."""
    input_psnr: float | None = None
    """Mean PSNR (protocol y8) of the rainy pictures themselves: a copy and a loader that give this number are right."""
    note: str = ""

    def published(self, count: int) -> bool:
        """Whether a complete copy has so many pairs, as far as anybody counted."""
        return self.pairs is None or count in (self.pairs, *self.also)


@dataclass(frozen=True)
class Dataset:
    """What is known about one set."""

    name: str
    title: str
    task: str
    paper: str
    url: str
    sources: tuple[str, ...]
    """Where copies come from."""
    splits: Mapping[str, Split]
    layouts: tuple[Layout, ...]
    """The more particular ones first."""
    folders: tuple[str, ...] = ()
    """Names of folders that belong to this set alone; case, spaces, hyphens and underscores do not count."""
    aliases: tuple[str, ...] = ()
    licence: str = "see its page"
    lossy: bool = False
    """Published as JPEG, ground truth included."""
    hidden_scenes: bool = False
    """Several pictures show one scene and their names do not tell: only looking at them does (`data prepare`)."""
    notes: tuple[str, ...] = ()

    @property
    def whole_splits(self) -> dict[str, Split]:
        """Without those that are a part of another, as `real_test_streak` is of `real_test`."""
        return {n: split for n, split in self.splits.items() if not any(n.startswith(f"{whole}_") for whole in self.splits)}


@dataclass(frozen=True)
class Overlap:
    """Two splits, each written `set/split`, that show the same scenes: training on one spoils a measurement on the other."""

    a: str
    b: str
    what: str


# ----------------------------------------------------------------------------------------- what many layouts are made of

_SPLITS = {"train": "{*:train|training}", "val": "{*:val|valid|validation}", "test": "{*:test|testing}"}
# names that the two folders of a copy go by
_INPUT = "{*:input|rainy|rain|rainy_image|in|lq|data|low|blur}"
_TARGET = "{*:target|clean|norain|ground_truth|gt|label|hq|high|sharp}"
# 1.png, rain-001.png, norain-1x2.png; also norain-1.png, which some copies call the rainy pictures, too
_NUMBERED = "{*:|rain-|norain-}{n}{*:|x2}.png"


def _two_folders(place: str, file: str = "{name}.png", name: str | None = None, background: str | None = None) -> Files:
    """Rainy and clean pictures of one name in two folders at `place`."""
    return Files(f"{place}/{_INPUT}/{file}", f"{place}/{_TARGET}/{file}", name=name, background=background)


def _halves(pattern: str, rainy: Side, background: str | None = None) -> Files:
    """Both pictures side by side in one file."""
    return Files(pattern, pattern, side=rainy, background=background)


def _each(title: str, evidence: Evidence, place: str, splits: tuple[str, ...] = ("train", "test"), **files: str) -> Layout:
    """Two folders for each split; `SPLIT` in `place` stands for the split's own folder."""
    return Layout(title, evidence, {split: _two_folders(place.replace("SPLIT", _SPLITS[split]), **files) for split in splits})


# ------------------------------------------------------------------------------------------------- rain, synthetic pairs

_JORDER = "Yang et al., Deep Joint Rain Detection and Removal from a Single Image, CVPR 2017"
_JORDER_URL = "https://arxiv.org/abs/1609.07769"


def _first_release(letter: str, train: Split, input_psnr: float, *notes: str) -> Dataset:
    """Rain100L and Rain100H as first published."""
    prenet = {
        "train": Files(f"RainTrain{letter}/rain-{{n}}.png", f"RainTrain{letter}/norain-{{n}}.png", spare_clean=letter == "H"),
        "test": Files(f"Rain100{letter}/rainy/rain-{{n}}.png", f"Rain100{letter}/norain-{{n}}.png"),
    }
    return Dataset(
        name=f"rain100{letter.lower()}",
        title=f"Rain100{letter} (first release)",
        task="derain",
        paper=_JORDER,
        url=_JORDER_URL,
        sources=(
            "https://github.com/csdwren/PReNet (datasets/readme.txt)",
            "https://github.com/hongwang01/RCDNet",
            "https://github.com/nnUyi/DerainZoo",
        ),
        splits={"train": train, "test": Split(100, input_psnr=input_psnr, note="91 scenes, 9 of them twice")},
        layouts=(
            Layout("PReNet", "loader", prenet),
            _each("RCDNet", "verified", "SPLIT/small", file=_NUMBERED),
            _each("two folders a split", "verified", "SPLIT", file=_NUMBERED),
        ),
        folders=(f"Rain100{letter}", f"RainTrain{letter}"),
        licence="none stated",
        hidden_scenes=letter == "H",
        notes=("481x321 or 321x481 pixels. Rain13K's test set of this name is cropped to 480x320: see rain13k.", *notes),
    )


def _second_release(letter: str, word: str, input_psnr: float | None) -> Dataset:
    """Rain200L and Rain200H, which replaced Rain100L and Rain100H."""
    folders = {split: (f"rain_data_{split}_{word}", f"rain_{word.lower()}_{split}") for split in ("train", "test")}

    def original(rainy: str) -> Mapping[str, Files]:
        above = {split: f"{{*:{'|'.join(names)}}}" for split, names in folders.items()}
        return {split: Files(f"{a}/{rainy}/norain-{{n}}x2.png", f"{a}/norain/norain-{{n}}.png") for split, a in above.items()}

    return Dataset(
        name=f"rain200{letter.lower()}",
        title=f"Rain200{letter} (second release of Rain100{letter})",
        task="derain",
        paper=_JORDER,
        url=_JORDER_URL,
        sources=(
            "https://github.com/cschenxiang/DRSformer",
            "https://github.com/cschenxiang/NeRD-Rain",
            "https://github.com/csdwren/RecDerain",
        ),
        splits={"train": Split(1800), "test": Split(200, input_psnr=input_psnr)},
        layouts=(
            Layout("original", "loader", original("rain")),
            Layout("original, rain in X2", "loader", original("rain/X2")),
            _each("DRSformer", "verified", f"SPLIT/Rain200{letter}", file=_NUMBERED),
            _each("NeRD-Rain", "verified", "SPLIT", file=_NUMBERED),
        ),
        folders=(f"Rain200{letter}", *folders["train"], *folders["test"]),
        licence="none stated",
        hidden_scenes=True,
        notes=("All pictures are 481x321: portraits are stored lying on their side.",),
    )


_RAIN12 = Dataset(
    name="rain12",
    title="Rain12",
    task="derain",
    paper="Li et al., Rain Streak Removal Using Layer Priors, CVPR 2016",
    url="https://openaccess.thecvf.com/content_cvpr_2016/html/Li_Rain_Streak_Removal_CVPR_2016_paper.html",
    sources=("https://github.com/csdwren/PReNet (datasets/readme.txt)", "https://github.com/nnUyi/DerainZoo"),
    splits={"test": Split(12, input_psnr=30.14)},
    layouts=(
        Layout("side by side", "verified", {"test": _halves("rain12_test/{n}.png", "left")}),
        Layout("PReNet", "loader", {"test": Files(f"{_INPUT}/{{n}}.png", f"{_TARGET}/{{n}}.png")}),
        Layout("original", "hint", {"test": Files(f"{_INPUT}/{{n}}_{{*:rain|in}}.png", f"{_TARGET}/{{n}}_GT.png")}),
        Layout("original, one folder", "hint", {"test": Files("{n}_{*:in|rain}.png", "{n}_GT.png")}),
        _each("two folders in test", "hint", "SPLIT", ("test",), file="{n}.png"),
    ),
    folders=("Rain12", "rain12_test"),
    licence="none stated",
    notes=("481x321. Networks trained on Rain13K have seen all 12 pictures.",),
)


def _rain800(above: str) -> Mapping[str, Files]:
    return {
        "train": _halves(f"{above}training/{{n}}.jpg", "right"),
        "test": _halves(f"{above}test_syn/{{n}}.jpg", "right"),
        "real": Files(f"{above}test_nature/{{n}}.jpg", side="right"),
    }


_RAIN800 = Dataset(
    name="rain800",
    title="Rain800 (ID-CGAN)",
    task="derain",
    paper="Zhang, Sindagi, Patel, Image De-raining Using a Conditional Generative Adversarial Network, TCSVT 2019",
    url="https://arxiv.org/abs/1701.05957",
    sources=("https://github.com/hezhangsprinter/ID-CGAN", "https://github.com/nnUyi/DerainZoo"),
    splits={
        "train": Split(700, note="368 scenes"),
        "test": Split(100),
        "real": Split(None, note="real rain, no ground truth; copies hold 50 to 92"),
    },
    layouts=(
        Layout("original", "verified", _rain800("rain/")),
        Layout("original, without its outer folder", "verified", _rain800("")),
        Layout(
            "cut in two, one folder",
            "loader",
            {s: Files(f"{_SPLITS[s]}/rain-{{n}}.png", f"{_SPLITS[s]}/norain-{{n}}.png") for s in ("train", "test")},
        ),
        _each("cut in two", "hint", "SPLIT", file=_NUMBERED),
    ),
    folders=("Rain800", "ID-CGAN"),
    licence="none stated",
    hidden_scenes=True,
    lossy=True,
    notes=("JPEG of many sizes, clean half left, rainy half right.",),
)

_RAIN1400 = Dataset(
    name="rain1400",
    title="Rain14000 / Rain1400 (DDN-Data)",
    task="derain",
    paper="Fu et al., Removing Rain from Single Images via a Deep Detail Network, CVPR 2017",
    url="https://openaccess.thecvf.com/content_cvpr_2017/html/Fu_Removing_Rain_From_CVPR_2017_paper.html",
    sources=("https://github.com/XMU-smartdsp/Removing_Rain", "https://github.com/jinnovation/rainy-image-dataset"),
    splits={
        "train": Split(12600, note="900 scenes, 14 rainy versions of each"),
        "test": Split(1400, note="100 scenes, 14 rainy versions of each"),
    },
    layouts=(
        Layout(
            "PReNet",
            "loader",
            {
                "train": Files("Rain12600/rainy_image/{n}_{k}.jpg", "Rain12600/ground_truth/{n}.jpg"),
                "test": Files("Rain1400/rainy_image/{n}_{k}.jpg", "Rain1400/ground_truth/{n}.jpg"),
            },
        ),
        Layout(
            "both splits in one folder",
            "verified",
            {
                "train": Files("rainy image/{n}_{k}.jpg", "ground truth/{n}.jpg", only={"n": (1, 900)}),
                "test": Files("rainy image/{n}_{k}.jpg", "ground truth/{n}.jpg", only={"n": (901, 1000)}),
            },
        ),
        Layout(
            "original",
            "hint",
            {
                s: Files(f"{_SPLITS[s]}/{_INPUT}/{{n}}_{{k}}.jpg", f"{_SPLITS[s]}/{_TARGET}/{{n}}.jpg")
                for s in ("train", "test")
            },
        ),
        _each("DRSformer", "hint", "SPLIT/DDN-Data", file="{n}_{k}.png", background="{n}"),
        _each("a target for every version", "hint", "SPLIT", file="{n}_{k}.png", background="{n}"),
    ),
    folders=("rainy_image_dataset", "Rain14000", "Rain12600", "Rain1400", "DDN-Data", "DDN"),
    licence="none stated",
    aliases=("ddn", "ddn_data", "rain14000"),
    lossy=True,
)

_DID_MDN = Dataset(
    name="did_mdn",
    title="DID-MDN (DID-Data, Rain1200)",
    task="derain",
    paper="Zhang, Patel, Density-aware Single Image De-raining using a Multi-stream Dense Network, CVPR 2018",
    url="https://arxiv.org/abs/1802.07412",
    sources=("https://github.com/hezhangsprinter/DID-MDN", "https://github.com/cschenxiang/DRSformer"),
    splits={
        "train": Split(12000, note="4000 of each density: light, medium, heavy"),
        "test": Split(1200, note="TestA, known as Test1200"),
    },
    layouts=(
        Layout(
            "original",
            "loader",
            {
                "train": _halves(
                    "DID-MDN-training/Rain_{density:Heavy|Medium|Light}/train2018new/{n}.jpg", "left", background="{n}"
                ),
                "test": _halves("DID-MDN-test/{n}.jpg", "left"),
            },
        ),
        _each("cut in two, by density", "loader", "SPLIT/Rain_{density:Heavy|Medium|Light}", file="{n}.png", background="{n}"),
        _each("DRSformer", "hint", "SPLIT/DID-Data"),
        _each("cut in two", "loader", "SPLIT"),
    ),
    folders=("DID-MDN", "DID-MDN-training", "DID-MDN-test", "DID-Data", "Rain1200"),
    aliases=("did", "did_data", "rain1200"),
    lossy=True,
    notes=(
        "The rainy half is left in the original; copies with the rainy half right exist, which `verify` recognises.",
        "Copies without the density in their paths do not say which pictures show one scene.",
        "Some copies hold JPEG data in files named .png.",
    ),
)


def _rain13k_tests(above: str) -> Mapping[str, Files]:
    tests = {name.lower(): _two_folders(above + name) for name in ("Test100", "Rain100H", "Rain100L", "Test1200")}
    return tests | {"test2800": _two_folders(f"{above}Test2800", "{n}_{k}.png", background="{n}")}


_RAIN13K = Dataset(
    name="rain13k",
    title="Rain13K (MSPFN, MPRNet, Restormer)",
    task="derain",
    paper="Jiang et al., Multi-Scale Progressive Fusion Network for Single Image Deraining, CVPR 2020",
    url="https://arxiv.org/abs/2003.10985",
    sources=(
        "https://github.com/swz30/Restormer (Deraining)",
        "https://github.com/swz30/MPRNet (Deraining)",
        "https://github.com/kuijiang94/MSPFN",
    ),
    splits={
        "train": Split(13711, also=(13712,), note="13712 in the paper; one pair of unequal size was removed"),
        "test100": Split(98, also=(100,), note="98 of the 100 test pictures of Rain800 are on disk"),
        "rain100h": Split(100, note="480x320, cut from the top left of the first release"),
        "rain100l": Split(100, note="480x320, cut from the top left of the first release"),
        "test2800": Split(2800, note="200 scenes, 14 rainy versions of each"),
        "test1200": Split(1200, note="the test set of DID-MDN"),
    },
    layouts=(
        Layout("Restormer", "loader", {"train": _two_folders("train/Rain13K"), **_rain13k_tests("test/")}),
        Layout("MPRNet", "readme", {"train": _two_folders("train")}),
        Layout("tests by themselves", "hint", _rain13k_tests("")),
    ),
    folders=("Rain13K", "Synthetic_Rain_Datasets", "Test100", "Test1200", "Test2800"),
    licence="none stated",
    hidden_scenes=True,
    lossy=True,
    notes=(
        "For training: 800 scenes x 14 of Rain14000, 1800 pictures of Rain1800, 700 of Rain800, all 12 of Rain12; the names do "
        "not say which of them show one scene.",
        "PNG and JPEG mixed. An old copy of Test2800 holds a stray `926_10(1).jpg`, which is left out.",
    ),
)

_OUTDOOR_RAIN = Dataset(
    name="outdoor_rain",
    title="Outdoor-Rain (Heavy Rain)",
    task="derain",
    paper="Li, Cheong, Tan, Heavy Rain Image Restoration: Physics Model and Conditional Adversarial Learning, CVPR 2019",
    url="https://arxiv.org/abs/1904.05050",
    sources=("https://github.com/liruoteng/HeavyRainRemoval",),
    splits={"train": Split(9000, note="count not confirmed"), "test": Split(750, note="Test1; count not confirmed")},
    layouts=(
        Layout(
            "original",
            "verified",
            {
                "train": Files("train/in/im_{n}_s{s}_a{a}.png", "train/gt/im_{n}.png"),
                "test": Files("Test1/in/im_{n}_s{s}_a{a}.png", "Test1/gt/im_{n}.png"),
            },
        ),
    ),
    folders=("Outdoor-Rain", "HeavyRain", "Test1"),
    notes=("Streaks and haze together, 720x480; up to 15 versions of a scene, by strength (s) and airlight (a) of the haze.",),
)

_NTURAIN = Dataset(
    name="nturain",
    title="NTURain (SPAC)",
    task="derain",
    paper="Chen et al., Robust Video Content Alignment and Compensation for Rain Removal in a CNN Framework, CVPR 2018",
    url="https://arxiv.org/abs/1803.10433",
    sources=("https://github.com/hotndy/SPAC-SupplementaryMaterials",),
    splits={
        "train": Split(None, note="25 sequences"),
        "test": Split(None, note="8 sequences, a1 to a4 and b1 to b4"),
        "real": Split(None, note="real sequences, no ground truth"),
    },
    layouts=(
        Layout(
            "original",
            "verified",
            {
                "train": Files("t{t}_Rain/{n}.jpg", "t{t}_GT/{n}.jpg", name="t{t}/{n}", background="t{t}"),
                "test": Files(
                    "{camera:a|b}{s}_Rain/{n}.jpg",
                    "{camera:a|b}{s}_GT/{n}.jpg",
                    name="{camera}{s}/{n}",
                    background="{camera}{s}",
                ),
                "real": Files("{camera:ra|rb}{s}{*:_Rain|}/{n}.jpg", name="{camera}{s}/{n}", background="{camera}{s}"),
            },
        ),
    ),
    folders=("NTURain", "NTU-Rain"),
    licence="none stated",
    lossy=True,
    notes=("Video frames, 640x480; all frames of a sequence count as one scene.",),
)

# ------------------------------------------------------------------------------------------------------ rain, real pairs

_SPA_DATA = Dataset(
    name="spa_data",
    title="SPA-Data (SPANet)",
    task="derain",
    paper="Wang et al., Spatial Attentive Single-Image Deraining with a High Quality Real Rain Dataset, CVPR 2019",
    url="https://arxiv.org/abs/1904.01538",
    sources=(
        "https://github.com/stevewongv/SPANet",
        "https://github.com/hongwang01/RCDNet",
        "https://github.com/cschenxiang/DRSformer",
    ),
    splits={
        "train": Split(638492, also=(638464,), note="256x256 pieces of video frames"),
        "test": Split(1000, note="512x512"),
        "real": Split(None, note="from the web, no ground truth"),
    },
    layouts=(
        Layout(
            "original",
            "readme",
            {
                "train": Files(
                    "real_world/{scene}/{*}/{name}.png",
                    "real_world_gt/{scene}/{*}/{name}.png",
                    name="{name}",
                    background="{scene}",
                    listing="real_world.txt",
                ),
                "test": Files("real_test_1000/rain/{n}.png", "real_test_1000/gt/{n}{*:|gt}.png"),
                "real": Files("Real_Internet/{name}.png"),
            },
        ),
        Layout("RCDNet", "verified", {"test": _two_folders("test/small", _NUMBERED)}),
        Layout("numbered", "loader", {"test": Files("rain/rain-{n}.png", "norain/norain-{n}.png")}),
        _each("DRSformer", "loader", "SPLIT/SPA-Data"),
        _each("two folders a split", "hint", "SPLIT"),
    ),
    folders=("SPA-Data", "real_test_1000", "real_world", "Real_Internet"),
    aliases=("spa", "spanet"),
    licence="see License.txt in the download",
)

_GT_RAIN = Dataset(
    name="gt_rain",
    title="GT-RAIN",
    task="derain",
    paper="Ba et al., Not Just Streaks: Towards Ground Truth for Single Image Deraining, ECCV 2022",
    url="https://arxiv.org/abs/2206.10779",
    sources=("https://github.com/UCLA-VMG/GT-RAIN",),
    splits={
        "train": Split(26124, note="89 scenes"),
        "val": Split(3300, note="5 scenes"),
        "test": Split(2100, note="7 scenes"),
    },
    layouts=(
        Layout(
            "original",
            "loader",
            {
                # a scene has one clean frame, number 000; only Gurutto_1-2 has one for each rainy frame
                split: Files(
                    f"GT-RAIN_{split}/{{scene}}/{{*}}-R-{{n}}.png",
                    (f"GT-RAIN_{split}/{{scene}}/{{*}}-C-{{n}}.png", f"GT-RAIN_{split}/{{scene}}/{{*}}-C-000.png"),
                    name="{scene}/{n}",
                    background="{scene}",
                    spare_clean=True,
                )
                for split in ("train", "val", "test")
            },
        ),
    ),
    folders=("GT-RAIN", "GT-RAIN_train", "GT-RAIN_val", "GT-RAIN_test"),
    licence="research only",
    notes=("31524 pairs of 101 scenes; how they divide over the splits is not confirmed.",),
)

_REALRAIN_1K = Dataset(
    name="realrain_1k",
    title="RealRain-1k",
    task="derain",
    paper="Li et al., Toward Real-world Single Image Deraining: A New Benchmark and Beyond, 2022",
    url="https://arxiv.org/abs/2206.05514",
    sources=("https://github.com/hiker-lw/RealRain-1k",),
    splits={f"{d}_{s}": Split(n) for d in ("light", "heavy") for s, n in (("train", 784), ("val", 112), ("test", 224))},
    layouts=(
        Layout(
            "original",
            "loader",
            {f"light_{s}": _two_folders(f"RealRain-1k-L/{folder}") for s, folder in _SPLITS.items()}
            | {f"heavy_{s}": _two_folders(f"RealRain-1k-H/{folder}") for s, folder in _SPLITS.items()},
        ),
    ),
    folders=("RealRain-1k", "RealRain-1k-L", "RealRain-1k-H"),
    notes=("`light` is RealRain-1k-L, `heavy` RealRain-1k-H.",),
)

_LHP_RAIN = Dataset(
    name="lhp_rain",
    title="LHP-Rain",
    task="derain",
    paper="Guo et al., From Sky to the Ground: A Large-scale Benchmark and Baseline Towards Real Rain Removal, ICCV 2023",
    url="https://arxiv.org/abs/2308.03867",
    sources=("https://yunguo224.github.io/LHP-Rain.github.io/",),
    splits={"train": Split(None), "test": Split(None)},
    layouts=(_each("as derived code reads it", "hint", "SPLIT"),),
    folders=("LHP-Rain",),
    notes=("3000 sequences, a million pairs of 1920x1080; there is a simple version, too. Its layout is not confirmed.",),
)

# --------------------------------------------------------------------------------------------------- drops on the camera

_RAINDROP = Dataset(
    name="raindrop",
    title="Raindrop (AttentiveGAN)",
    task="raindrop",
    paper="Qian et al., Attentive Generative Adversarial Network for Raindrop Removal from a Single Image, CVPR 2018",
    url="https://arxiv.org/abs/1711.10098",
    sources=("https://github.com/rui1996/DeRaindrop",),
    splits={
        "train": Split(861),
        "test_a": Split(58, note="the one that most papers report"),
        "test_b": Split(249, note="JPEG, ground truth included"),
    },
    layouts=(
        Layout(
            "original",
            "loader",
            {s: Files(f"{s}/data/{{n}}_rain.png", f"{s}/gt/{{n}}_clean.png") for s in ("train", "test_a", "test_b")},
        ),
        Layout("two folders a split", "hint", {s: _two_folders(s) for s in ("train", "test_a", "test_b")}),
    ),
    folders=("Raindrop", "raindrop_data", "DeRaindrop"),
    licence="none stated",
    notes=("720x480. Say which of the two test sets a number is from.",),
)

# every scene was taken with drops, with streaks and with both: a split is one of these, or all three
_RAINDS_KINDS = {
    "": "raindrop|rainstreak|rainstreak_raindrop",
    "_raindrop": "raindrop",
    "_streak": "rainstreak",
    "_both": "rainstreak_raindrop",
}


def _rainds() -> Mapping[str, Files]:
    splits = {}
    for suffix, kinds in _RAINDS_KINDS.items():
        for part in ("train", "test"):
            real = f"RainDS_real/{{*:{part}_set|{part}}}"
            splits[f"real_{part}{suffix}"] = Files(
                f"{real}/{{kind:{kinds}}}/{{n}}.png", f"{real}/gt/{{n}}.png", name="{kind}/{n}", background="{n}"
            )
            # pictures called pie-... have numbers of their own
            syn = f"RainDS_syn/{{*:{part}|{part}_set}}"
            splits[f"syn_{part}{suffix}"] = Files(
                f"{syn}/{{kind:{kinds}}}/{{pie:|pie-}}{{*:rd-rain-|rd-|rain-}}{{n}}.png",
                f"{syn}/gt/{{pie:|pie-}}norain-{{n}}.png",
                name="{kind}/{pie}{n}",
                background="{pie}{n}",
            )
    return splits


_RAINDS = Dataset(
    name="rainds",
    title="RainDS",
    task="raindrop",
    paper="Quan et al., Removing Raindrops and Rain Streaks in One Go, CVPR 2021",
    url="https://openaccess.thecvf.com/content/CVPR2021/html/Quan_Removing_Raindrops_and_Rain_Streaks_in_One_Go_CVPR_2021_paper.html",
    sources=("https://github.com/Songforrr/RainDS_CCN",),
    splits={f"{part}{kind}": Split(None) for part in ("syn_train", "syn_test") for kind in _RAINDS_KINDS}
    | {
        f"{part}{kind}": Split(n if kind else 3 * n)
        for part, n in (("real_train", 150), ("real_test", 98))
        for kind in _RAINDS_KINDS
    },
    layouts=(Layout("original", "loader", _rainds()),),
    folders=("RainDS", "RainDS_syn", "RainDS_real"),
    notes=(
        "Splits end in _raindrop, _streak or _both; without an ending they hold all three versions of every scene.",
        "`RainDS_real/test_set/rainstreak/IMG_7435.png` has no partner and is left out.",
    ),
)

# --------------------------------------------------------------------------------------------------------- other weather

_LOL = Dataset(
    name="lol",
    title="LOL",
    task="lowlight",
    paper="Wei et al., Deep Retinex Decomposition for Low-Light Enhancement, BMVC 2018",
    url="https://arxiv.org/abs/1808.04560",
    sources=("https://daooshee.github.io/BMVC2018website/",),
    splits={"train": Split(485), "test": Split(15)},
    layouts=(
        Layout("original", "hint", {"train": _two_folders("our485", "{n}.png"), "test": _two_folders("eval15", "{n}.png")}),
        _each("two folders a split", "hint", "SPLIT", file="{n}.png"),
    ),
    folders=("LOL", "LOLdataset", "LOL-v1", "our485", "eval15"),
)

_UIEB = Dataset(
    name="uieb",
    title="UIEB",
    task="underwater",
    paper="Li et al., An Underwater Image Enhancement Benchmark Dataset and Beyond, TIP 2020",
    url="https://arxiv.org/abs/1901.05495",
    sources=("https://li-chongyi.github.io/proj_benchmark.html",),
    splits={"all": Split(890, note="no official split"), "challenge": Split(60, note="no reference")},
    layouts=(
        Layout(
            "original",
            "hint",
            {"all": Files("raw-890/{name}.png", "reference-890/{name}.png"), "challenge": Files("challenging-60/{name}.png")},
        ),
    ),
    folders=("UIEB", "raw-890"),
    notes=("The references are chosen among enhanced pictures, not photographed.",),
)

_GOPRO = Dataset(
    name="gopro",
    title="GoPro",
    task="deblur",
    paper="Nah, Kim, Lee, Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring, CVPR 2017",
    url="https://arxiv.org/abs/1612.02177",
    sources=("https://seungjunnah.github.io/Datasets/gopro", "https://github.com/swz30/MPRNet (Deblurring)"),
    splits={"train": Split(2103), "test": Split(1111)},
    layouts=(
        Layout(
            "original",
            "hint",
            {
                s: Files(
                    f"{s}/{{scene}}/blur/{{n}}.png", f"{s}/{{scene}}/sharp/{{n}}.png", name="{scene}/{n}", background="{scene}"
                )
                for s in ("train", "test")
            },
        ),
        *(
            _each(title, "hint", place, file="{scene}-{n}.png", name="{scene}/{n}", background="{scene}")
            for title, place in (("MPRNet", "SPLIT/GoPro"), ("MPRNet, in the set's folder", "SPLIT"))
        ),
        _each("two folders a split", "hint", "SPLIT"),
    ),
    folders=("GoPro", "GOPRO_Large"),
)

_HIDE = Dataset(
    name="hide",
    title="HIDE",
    task="deblur",
    paper="Shen et al., Human-Aware Motion Deblurring, ICCV 2019",
    url="https://arxiv.org/abs/2001.06816",
    sources=("https://github.com/joanshen0508/HA_deblur", "https://github.com/swz30/MPRNet (Deblurring)"),
    splits={"train": Split(6397), "test": Split(2025)},
    layouts=(
        _each("MPRNet", "hint", "SPLIT/HIDE", ("test",)),
        Layout(
            "original",
            "hint",
            {
                "train": Files("train/{name}.png", "GT/{name}.png", spare_clean=True),
                "test": Files("test/{*:test-close-ups|test-long-shot}/{name}.png", "GT/{name}.png", spare_clean=True),
            },
        ),
        _each("two folders a split", "hint", "SPLIT"),
    ),
    folders=("HIDE", "HIDE_dataset"),
)

# -------------------------------------------------------------------------------------------------------------- your own

_FOLDER = Dataset(
    name="folder",
    title="Your own pairs",
    task="any",
    paper="",
    url="",
    sources=(),
    splits={split: Split(None) for split in ("all", "train", "val", "test")},
    layouts=(
        Layout("two folders", "verified", {"all": Files(f"{_INPUT}/{{name}}.png", f"{_TARGET}/{{name}}.png")}),
        _each("two folders a split", "verified", "SPLIT", ("train", "val", "test")),
    ),
    licence="your own",
    notes=("Two folders with the same file names in both, e.g. input and target; anything else by a pattern of your own.",),
)

_PICTURES = Dataset(
    name="pictures",
    title="Your own pictures, without ground truth",
    task="any",
    paper="",
    url="",
    sources=(),
    splits={"all": Split(None)},
    layouts=(Layout("any folder", "verified", {"all": Files("{path}")}),),
    licence="your own",
    notes=("All pictures in a folder and the folders in it; measured by NIQE and BRISQUE only.",),
)

DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        _first_release(
            "L", Split(200), 26.90, "Trained on it, a network knows every scene of the Rain200L and Rain200H test sets."
        ),
        _first_release(
            "H",
            Split(1800, also=(1254,), note="546 share a scene with the test pictures; PReNet trains on the other 1254"),
            13.56,
            "Where those 546 were taken out, their clean pictures remain.",
        ),
        _second_release("L", "Light", None),
        _second_release("H", "Heavy", 13.08),
        _RAIN12,
        _RAIN800,
        _RAIN1400,
        _DID_MDN,
        _RAIN13K,
        _OUTDOOR_RAIN,
        _NTURAIN,
        _SPA_DATA,
        _GT_RAIN,
        _REALRAIN_1K,
        _LHP_RAIN,
        _RAINDROP,
        _RAINDS,
        _LOL,
        _UIEB,
        _GOPRO,
        _HIDE,
        _FOLDER,
        _PICTURES,
    )
}

OVERLAPS = (
    Overlap("rain100l/train", "rain200l/test", "the same 200 scenes (BSDS500 test)"),
    Overlap("rain100l/train", "rain200h/test", "the same 200 scenes (BSDS500 test)"),
    Overlap("rain100l/train", "rain12/test", "8 of the 12 scenes"),
    Overlap("rain100l/test", "rain100h/test", "the same 100 pictures in the same order under other rain"),
    Overlap("rain100h/train", "rain100h/test", "546 of the 1800 training pictures show a test scene"),
    Overlap("rain100h/train", "rain100l/test", "546 of the 1800 training pictures show a test scene"),
    Overlap("rain200l/train", "rain100l/test", "the training scenes are BSDS500 train and val, which hold the test scenes"),
    Overlap("rain200l/train", "rain100h/test", "the training scenes are BSDS500 train and val, which hold the test scenes"),
    Overlap("rain200h/train", "rain100l/test", "the training scenes are BSDS500 train and val, which hold the test scenes"),
    Overlap("rain200h/train", "rain100h/test", "the training scenes are BSDS500 train and val, which hold the test scenes"),
    Overlap("rain200l/test", "rain200h/test", "the same 200 scenes under other rain"),
    Overlap("rain200l/test", "rain12/test", "8 of the 12 scenes"),
    Overlap("rain200h/test", "rain12/test", "8 of the 12 scenes"),
    Overlap("rain800/train", "rain800/test", "train/460 shows the scene of test_syn/6"),
    Overlap("rain800/train", "rain100l/train", "90 scenes"),
    Overlap("rain800/train", "rain200l/test", "90 scenes"),
    Overlap("rain800/train", "rain200h/test", "90 scenes"),
    Overlap("rain800/test", "rain100l/train", "36 scenes"),
    Overlap("rain800/test", "rain200l/test", "36 scenes"),
    Overlap("rain800/test", "rain200h/test", "36 scenes"),
    Overlap("rain800/train", "rain100l/test", "files 12, 13, 52, 81, 150, 166, 181, 185, 237, 261, 305, 376 and 458"),
    Overlap("rain800/train", "rain100h/test", "files 12, 13, 52, 81, 150, 166, 181, 185, 237, 261, 305, 376 and 458"),
    Overlap("rain800/train", "rain12/test", "5 of the 12 scenes"),
    Overlap("rain13k/train", "rain12/test", "all 12 pictures"),
    Overlap("rain13k/train", "rain800/train", "all 700 pictures"),
    Overlap("rain13k/train", "rain1400/train", "800 of the 1000 scenes of both splits"),
    Overlap("rain13k/train", "rain1400/test", "800 of the 1000 scenes of both splits"),
    Overlap("rain13k/train", "rain100l/test", "13 scenes through Rain800"),
    Overlap("rain13k/train", "rain100h/test", "13 scenes through Rain800"),
    Overlap("rain13k/train", "rain13k/rain100l", "13 scenes through Rain800"),
    Overlap("rain13k/train", "rain13k/rain100h", "13 scenes through Rain800"),
    Overlap("rain13k/test100", "rain800/test", "the same pictures"),
    Overlap("rain13k/rain100l", "rain100l/test", "the same pictures, cropped to 480x320"),
    Overlap("rain13k/rain100h", "rain100h/test", "the same pictures, cropped to 480x320"),
    Overlap("rain13k/test1200", "did_mdn/test", "the same pictures"),
)
