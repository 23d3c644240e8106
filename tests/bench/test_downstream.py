"""A judging network on rainy, derained and clean pictures. It is made here: it finds what is bright, and rain is bright."""

import csv
import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from benchmarks import benchmark, write_pairs, write_weights
from derainzoo.bench import downstream
from derainzoo.errors import DerainzooError
from derainzoo.images import write_png

SIZE = (24, 32)
BOX = (8, 6, 20, 16)  # x0, y0, x1, y1 of the bright thing in every picture


class Bright(nn.Module):
    """Class 1 where it is bright."""

    def __init__(self, level: float = 0.5) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, images):
        bright = (images.mean(1, keepdim=True) > self.level).float()
        return {"out": torch.cat([1 - bright, bright], 1)}


class BrightBox(nn.Module):
    """A box around all that is bright."""

    def forward(self, images):
        found = []
        for image in images:
            rows, columns = torch.nonzero(image.mean(0) > 0.5, as_tuple=True)
            box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
            found.append({"boxes": box[None], "scores": torch.ones(1), "labels": torch.ones(1, dtype=torch.int64)})
        return found


def wrong():
    return "no module"


@pytest.fixture
def scene(tmp_path):
    """Two pictures of a bright thing, once in rain, with mask and box."""
    for i in range(2):
        clean = np.full((*SIZE, 3), 40, np.uint8)
        clean[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 200
        rainy = clean.copy()
        rainy[:, 1::4] = 220
        mask = (clean[..., 0] > 100).astype(np.uint8)
        mask[0] = 255  # does not count
        write_png(tmp_path / "rainy" / f"{i}.png", rainy)
        write_png(tmp_path / "clean" / f"{i}.png", clean)
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "labels" / f"{i}.png")
        (tmp_path / "labels" / f"{i}.json").write_text(json.dumps({"boxes": [BOX], "labels": [1]}))
    return tmp_path


def settings(scene, network="test_downstream:Bright", **more):
    values = {"kind": "segment", "classes": 2, "root": str(scene), "arguments": None, "weights": None, "ignore": 255, **more}
    return OmegaConf.create({"network": network, **values})


def test_a_segmenter_sees_worse_in_rain(scene):
    found = downstream.judge([], settings(scene), "cpu")
    rainy, clean = found["rows"]
    assert (rainy["pictures"], clean["pictures"], clean["mIoU"]) == ("rainy", "clean", 1.0)
    # worked out by hand: below the row that does not count, every fourth column is taken for the thing
    thing, ground = 12 * 10, 23 * 32 - 12 * 10
    wrong = 23 * 8 - 3 * 10
    assert rainy["mIoU"] == pytest.approx((thing / (thing + wrong) + (ground - wrong) / ground) / 2)


def test_a_detector_sees_worse_in_rain(scene):
    pytest.importorskip("pycocotools")
    rainy, clean = downstream.judge([], settings(scene, "test_downstream:BrightBox", kind="detect"), "cpu")["rows"]
    assert clean["mAP"] == pytest.approx(1.0)
    assert rainy["mAP"] == pytest.approx(0.0)


def test_without_the_coco_code_detection_says_what_to_install(scene, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(DerainzooError, match=r"pip install 'derainzoo\[detect\]'"):
        downstream.check(settings(scene, kind="detect"))


def test_it_is_part_of_a_benchmark(scene, tmp_path):
    weights = write_weights(tmp_path / "net.safetensors")
    pairs = write_pairs(tmp_path / "pairs", 1)
    words = [f"weights={weights}", f"sets={{mine: {{root: {pairs}}}}}", "cost.latency=false"]
    judge = {"network": "test_downstream:Bright", "kind": "segment", "classes": 2, "root": scene}
    result = benchmark(tmp_path, *words, *(f"downstream.{k}={v}" for k, v in judge.items()))
    rows = {row["pictures"]: row["mIoU"] for row in result["downstream"]["rows"]}
    assert list(rows) == ["rainy", "net", "clean"]
    assert rows["rainy"] < rows["clean"] == 1.0
    assert "## Downstream" in (tmp_path / "out" / "leaderboard.md").read_text()
    assert '"pictures":"net","mIoU"' in (tmp_path / "out" / "leaderboard.html").read_text()
    with (tmp_path / "out" / "logs" / "net" / "version_0" / "metrics.csv").open() as file:
        (recorded,) = csv.DictReader(file)
    assert float(recorded["downstream/mIoU"]) == pytest.approx(rows["net"])


def test_weights_of_the_judge_are_loaded(scene, tmp_path):
    torch.save({"level": torch.tensor(2.0)}, tmp_path / "judge.pt")
    found = downstream.judge([], settings(scene, weights=str(tmp_path / "judge.pt")), "cpu")
    assert found["rows"][1]["mIoU"] < 0.6  # nothing is so bright


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kind": None}, "segment or detect expected"),
        ({"classes": None}, "number of classes"),
        ({"root": None}, "rainy/, clean/ and labels/"),
        ({"network": "test_downstream:Nothing"}, "package.module:function expected"),
        ({"network": "test_downstream:wrong"}, "returned a str"),
        ({"network": "test_downstream:Bright", "arguments": {"colour": 1}}, "cannot be built"),
        ({"weights": "/nowhere.pt"}, "downstream.weights=/nowhere.pt"),
        ({"classes": 3}, "the segmenter must return"),
    ],
)
def test_mistakes_are_explained(scene, more, message):
    with pytest.raises(DerainzooError, match=message):
        downstream.judge([], settings(scene, **more), "cpu")


def test_a_picture_without_labels_is_named(scene):
    (scene / "labels" / "1.png").unlink()
    with pytest.raises(DerainzooError, match=r"1 has no .*labels/1\.png"):
        downstream.check(settings(scene))
