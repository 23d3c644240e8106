"""What runs leave in W&B and TensorBoard, read back from what they wrote offline."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from derainzoo.data import datamodule
from derainzoo.data.layouts import Pair
from derainzoo.data.synthetic import embedded_backgrounds
from derainzoo.engine import records
from derainzoo.engine.evaluate import evaluate
from derainzoo.engine.train import train
from runs import compose_run, compose_words

QUICK = ("trainer.max_steps=2", "trainer.val_every=1", "test=true", "callbacks.pictures=1", "protocol=all")


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch):
    monkeypatch.setattr(datamodule, "embedded_backgrounds", lambda split: embedded_backgrounds(split)[:2])


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Nothing goes to the network or into the home folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def written(folder, kind):
    """The records of one kind in the only offline run of a folder, as `wandb sync` would read them."""
    (file,) = Path(folder).glob("wandb/offline-run-*/*.wandb")
    done = subprocess.run(["wandb", "leet", "inspect", "--json", file], capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [record[kind] for record in found if record["type"] == kind]


def artifacts(folder):
    """Type -> artifact, without the tables."""
    return {a["type"]: a for a in written(folder, "artifact") if a["type"] != "run_table"}


@pytest.mark.slow
def test_a_run_offline_holds_everything_that_a_dashboard_needs(tmp_path, offline):
    folder = tmp_path / "train"
    train(compose_run(folder, "logger=default", "name=mine", "logger.wandb.entity=team", *QUICK))

    (run,) = written(folder, "run")
    assert (run["run_group"], run["job_type"], run["display_name"]) == ("mine", "train", "mine")
    assert {m["name"]: m["summary"] for m in written(folder, "metric") if "summary" in m}["val/psnr_y8"] == {"max": True}

    summary = {}
    for record in written(folder, "summary"):
        summary |= record["update"]
    assert {"val/psnr_rgb", "test/synthetic/psnr_y8", "test/synthetic/ssim_y", "test/synthetic/input_psnr_y8"} <= set(summary)
    assert not any(key.endswith("/psnr") for key in summary)
    assert summary["cost/parameters"] > 1000
    assert 0 < summary["cost/gmacs"] < 1

    # the table: every image with its values, as many pictures as were asked for
    (file,) = (folder / "wandb").rglob("media/table/test/synthetic/images*.json")
    table = json.loads(file.read_text())
    assert table["columns"][:4] == ["name", "rainy", "restored", "clean"]
    with (folder / "results" / "synthetic.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row[0] for row in table["data"]] == [row["name"] for row in rows]
    column = table["columns"].index("psnr_y8")
    assert [row[column] for row in table["data"]] == pytest.approx([float(row["psnr_y8"]) for row in rows])
    assert sum(row[1] is not None for row in table["data"]) == 1

    # lineage: data is used, weights are made and stay where they are
    found = artifacts(folder)
    assert found["dataset"]["name"] == "synthetic"
    assert found["dataset"]["use_after_commit"]
    assert json.loads(found["dataset"]["metadata"])["splits"]["train"]["pairs"] > 1
    assert "use_after_commit" not in found["model"]
    (entry,) = found["model"]["manifest"]["contents"]
    assert entry["ref"].endswith("checkpoints/best.ckpt")

    # measuring these weights uses the same version of them, under the name of the network that they hold
    second = tmp_path / "evaluate"
    words = f"evaluate weights={folder}/checkpoints/best.ckpt data=synthetic logger=default callbacks.progress=false"
    evaluate(compose_words(second, *words.split(), "trainer.accelerator=cpu", "data.num_workers=0"))
    (run,) = written(second, "run")
    assert (run["display_name"], run["job_type"]) == ("elf_lw-synthetic", "evaluate")
    used = artifacts(second)["model"]
    assert used["use_after_commit"]
    assert (used["name"], used["digest"]) == (found["model"]["name"], found["model"]["digest"])


def test_weights_that_come_with_the_package_are_known_by_their_name(tmp_path, offline):
    words = "evaluate weights=nafnet.anyrain data=synthetic logger=default callbacks.progress=false callbacks.pictures=0"
    evaluate(compose_words(tmp_path, *words.split(), "trainer.accelerator=cpu", "data.num_workers=0"))
    (entry,) = artifacts(tmp_path)["model"]["manifest"]["contents"]
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
    pair = Pair("a", tmp_path / "a.png", None, "a")
    digest = records._digest([pair])
    assert records._digest([pair]) == digest
    (tmp_path / "a.png").write_bytes(b"12345")
    assert records._digest([pair]) != digest
    assert records._digest([Pair("b", tmp_path / "a.png", None, "a")]) != digest


def test_facts_of_the_data(tmp_path):
    data = datamodule.make_data(compose_run(tmp_path, "data=synthetic"))
    data.setup("fit")
    facts = records.data_facts(data)
    assert facts["set"] == "synthetic"
    assert facts["splits"]["train"]["pairs"] == len(data.train_pairs)
    assert facts["splits"]["train"]["digest"] != facts["splits"]["val"]["digest"]


def test_without_wandb_nothing_is_asked_of_it(tmp_path):
    from pytorch_lightning.loggers import TensorBoardLogger

    logger = TensorBoardLogger(tmp_path)
    records.used_weights([logger], "elf_lw", tmp_path / "no such file")
    records.made_genotype([logger], tmp_path / "no such file")
    assert not list(tmp_path.rglob("*genotype*"))
