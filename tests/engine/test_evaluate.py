"""What is measured is what `derainzoo predict` writes."""

import csv

import numpy as np
import pytest
import torch

from derainzoo.engine.evaluate import evaluate
from derainzoo.engine.predict import predict
from derainzoo.images import read_image, write_png
from derainzoo.metrics.protocol import measure
from derainzoo.models.checkpoints import save_weights
from derainzoo.models.registry import create_model
from pictures import picture, rainy
from runs import SMALL, compose_words
from tasks import configured

ARGUMENTS = {"dim": 8, "blocks": 1}
NAMES = ("a", "b c", "ü")


@pytest.fixture
def pairs(tmp_path):
    for i, name in enumerate(NAMES):
        clean = picture(i, 80 + 7 * i, 96)
        write_png(tmp_path / "set/target" / f"{name}.png", clean)
        write_png(tmp_path / "set/input" / f"{name}.png", rainy(i, clean, 40))
    return tmp_path / "set"


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(5)
    net = create_model("elf_lw", **ARGUMENTS).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.02 * torch.randn_like(p))
    save_weights(tmp_path / "w.safetensors", net, "elf_lw", ARGUMENTS)
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(("tile", "local_pool"), [("null", "null"), ("32", "null"), ("null", "16")])
def test_evaluating_a_folder_measures_the_files_that_predict_writes(tmp_path, pairs, weights, tile, local_pool):
    words = [f"weights={weights}", f"tile={tile}", "overlap=8", f"local_pool={local_pool}"]
    run = tmp_path / "run"
    folder = [w for w in SMALL if not w.startswith("trainer.val_every")]
    cfg = compose_words(
        run, "evaluate", *folder, "data=folder", f"data.root={pairs}", "save_images=true", "protocol.names=[y8,rgb]", *words
    )
    result = evaluate(cfg)
    predict(configured("predict", str(pairs / "input"), "-o", str(tmp_path / "dry"), "device=cpu", *words))

    rows = {row["name"]: row for row in csv.DictReader(next((run / "results").glob("*.csv")).open())}
    assert sorted(rows) == sorted(NAMES)
    saved = next((run / "restored").iterdir())
    for name, row in rows.items():
        dry, clean = read_image(tmp_path / "dry" / f"{name}.png"), read_image(pairs / "target" / f"{name}.png")
        assert np.array_equal(dry, read_image(saved / f"{name}.png"))
        for protocol in ("y8", "rgb"):
            for metric, value in measure(protocol, dry, clean).items():
                assert float(row[metric]) == value
    mean = np.mean([float(row["psnr_y8"]) for row in rows.values()])
    assert result["objective"] == pytest.approx(mean, rel=1e-6)  # Lightning keeps floats
