"""What runs leave in W&B and TensorBoard, read back from what they wrote offline."""

import csv
import json

import pytest

from benchmarks import write_pairs
from derainzoo.data import datamodule
from derainzoo.data.synthetic import embedded_backgrounds
from derainzoo.engine import records
from derainzoo.engine.evaluate import evaluate
from derainzoo.engine.train import train
from derainzoo.images import read_image
from offline import only
from runs import compose_run, compose_words

QUICK = ("trainer.max_steps=2", "trainer.val_every=1", "test=true", "callbacks.pictures=1", "protocol=all")


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch):
    monkeypatch.setattr(datamodule, "embedded_backgrounds", lambda split: embedded_backgrounds(split)[:2])


@pytest.mark.slow
def test_a_run_offline_holds_everything_that_a_dashboard_needs(tmp_path, offline):
    folder = tmp_path / "train"
    train(compose_run(folder, "logger=default", "name=mine", "logger.wandb.entity=team", *QUICK))

    run = only(folder)
    assert (run.facts["run_group"], run.facts["job_type"], run.facts["display_name"]) == ("mine", "train", "mine")
    assert {m["name"]: m["summary"] for m in run.written("metric") if "summary" in m}["val/psnr_y8"] == {"max": True}

    summary = run.summary
    assert {"val/psnr_rgb", "test/synthetic/psnr_y8", "test/synthetic/ssim_y", "test/synthetic/input_psnr_y8"} <= set(summary)
    assert not any(key.endswith("/psnr") for key in summary)
    assert summary["cost/parameters"] > 1000
    assert 0 < summary["cost/gmacs"] < 1

    # the table: every image with its values, as many pictures as were asked for
    table = run.table("test/synthetic/images")
    assert list(table[0])[:4] == ["name", "rainy", "restored", "clean"]
    with (folder / "results" / "synthetic.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["name"] for row in table] == [row["name"] for row in rows]
    assert [row["psnr_y8"] for row in table] == pytest.approx([float(row["psnr_y8"]) for row in rows])
    (shown,) = (row for row in table if row["rainy"])
    assert read_image(shown["restored"]).shape == read_image(shown["clean"]).shape

    # lineage: data is used, weights are made and stay where they are
    (data,), (made,) = run.artifacts("dataset"), run.artifacts("model")
    assert data["name"] == "synthetic"
    assert data["use_after_commit"]
    assert json.loads(data["metadata"])["splits"]["train"]["pairs"] > 1
    assert "use_after_commit" not in made
    (entry,) = made["manifest"]["contents"]
    assert entry["ref"].endswith("checkpoints/best.ckpt")

    # measuring these weights uses the same version of them, under the name of the network that they hold
    second = tmp_path / "evaluate"
    words = f"evaluate weights={folder}/checkpoints/best.ckpt data=synthetic logger=default callbacks.progress=false"
    evaluate(compose_words(second, *words.split(), "trainer.accelerator=cpu", "data.num_workers=0"))
    run = only(second)
    assert (run.facts["display_name"], run.facts["job_type"]) == ("elf_lw-synthetic", "evaluate")
    (used,) = run.artifacts("model")
    assert used["use_after_commit"]
    assert (used["name"], used["digest"]) == (made["name"], made["digest"])


def test_weights_that_come_with_the_package_are_known_by_their_name(tmp_path, offline):
    words = "evaluate weights=nafnet.anyrain data=synthetic logger=default callbacks.progress=false callbacks.pictures=0"
    evaluate(compose_words(tmp_path, *words.split(), "trainer.accelerator=cpu", "data.num_workers=0"))
    (used,) = only(tmp_path).artifacts("model")
    (entry,) = used["manifest"]["contents"]
    assert entry["ref"].endswith("/nafnet.anyrain.safetensors")
    assert "weights: `nafnet.anyrain`" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_tensorboard_holds_the_same(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(compose_run(tmp_path, "logger=tensorboard", *QUICK))
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"val/psnr_y8", "test/synthetic/psnr_y8", "cost/gmacs"} <= set(tags["scalars"])
    assert any(tag.startswith("test/synthetic/") for tag in tags["images"])
    assert b"psnr_y8" in events.Tensors("test/synthetic/text_summary")[0].tensor_proto.string_val[0]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_other_data_is_another_version(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1234")
    files = [("a", tmp_path / "a.png")]
    digest = records._digest(files)
    assert records._digest(files) == digest
    (tmp_path / "a.png").write_bytes(b"12345")
    assert records._digest(files) != digest
    assert records._digest([("b", tmp_path / "a.png")]) != digest


def test_facts_of_the_data(tmp_path):
    data = datamodule.make_data(compose_run(tmp_path, "data=synthetic"))
    data.setup("fit")
    facts = records.data_facts(data)
    assert facts["set"] == "synthetic"
    assert facts["splits"]["train"]["pairs"] == len(data.train_pairs)
    assert facts["splits"]["train"]["digest"] != facts["splits"]["val"]["digest"]


def test_folders_of_ones_own_are_told_apart(tmp_path):
    """They have one name and may have as many pictures."""
    found = []
    for start in (0, 3):
        root = write_pairs(tmp_path / str(start), start=start)
        data = datamodule.make_data(compose_run(tmp_path, "data=folder", f"data.root={root}"))
        data.setup("test")
        found.append(records.data_facts(data))
    assert [facts["tests"]["folder-all"]["pairs"] for facts in found] == [3, 3]
    assert found[0]["tests"] != found[1]["tests"]


def test_without_wandb_nothing_is_asked_of_it(tmp_path):
    from pytorch_lightning.loggers import TensorBoardLogger

    logger = TensorBoardLogger(tmp_path)
    records.used_weights([logger], "elf_lw", tmp_path / "no such file")
    records.made_genotype([logger], tmp_path / "no such file")
    assert not list(tmp_path.rglob("*genotype*"))
