"""A benchmark in W&B, TensorBoard and CSV files: complete, whether its cells were measured now or before."""

import csv
import json

import pytest

from benchmarks import benchmark, cells, write_pairs, write_weights
from derainzoo.bench import benchmark as benchmarking
from derainzoo.bench import dashboard
from derainzoo.bench.recording import shown_name
from derainzoo.charts import Tradeoff, front, tradeoffs
from derainzoo.data import datamodule
from derainzoo.data.synthetic import embedded_backgrounds
from derainzoo.engine.evaluate import evaluate
from derainzoo.images import read_image
from offline import only, runs
from runs import SMALL, compose_words


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Weights of two networks and a set whose scenes one of them has seen."""
    folder = tmp_path_factory.mktemp("ground")
    write_weights(folder / "a.safetensors", trained_on="rain100l/train")
    write_weights(folder / "b.safetensors", "elf_lw", trained_on="rain13k/train")
    write_pairs(folder / "pairs", 4)
    return folder


def words(ground):
    weights = f"weights=[{ground}/a.safetensors,{ground}/b.safetensors]"
    return [weights, f"sets={{mine: {{root: {ground}/pairs, shows: rain200h/test}}}}", "pictures=1", "name=samples"]


def by_name(found):
    return {run.facts["display_name"]: run for run in found}


def check_network(run, ground, stored):
    """All that a chart, a table or a graph of lineage needs of the network `a`."""
    assert (run.facts["run_group"], run.facts["job_type"]) == ("samples", "benchmark")
    values = {row["name"]: {} for row in stored[0]["rows"]}
    for cell in stored:
        for row in cell["rows"]:
            values[row["name"]] |= row
    metrics = [f"{part}{m}_{p}" for p in ("y8", "rgb") for m in ("psnr", "ssim") for part in ("", "input_")]
    for metric in metrics:
        assert run.summary[f"test/mine/{metric}"] == pytest.approx(sum(row[metric] for row in values.values()) / 4)
    assert run.summary["cost/parameters"] > 1000
    assert run.summary["cost/forward_ms"] > 0
    assert 0 < run.summary["cost/gmacs"] < 1

    table = run.table("test/mine/images")
    assert [[row[c] for c in ("name", *metrics)] for row in table] == [
        [name, *(row[c] for c in metrics)] for name, row in values.items()
    ]
    for row in table:
        if row["rainy"]:
            assert {read_image(row[kind]).shape for kind in ("rainy", "restored", "clean")} == {(24, 32, 3)}

    (data,), (weights,) = run.artifacts("dataset"), run.artifacts("model")
    assert data["use_after_commit"]
    assert weights["use_after_commit"]
    assert json.loads(data["metadata"])["tests"]["folder-all"]["pairs"] == 4
    assert weights["name"] == "nafnet-weights"
    assert weights["manifest"]["contents"][0]["ref"] == (ground / "a.safetensors").as_uri()

    config = run.config
    assert config["model"]["name"] == "nafnet"
    assert config["model"]["width"] == 8
    assert config["weights"] == str(ground / "a.safetensors")
    assert config["trained_on"] == "rain100l/train"
    assert config["warnings"] == {"mine": ["rain100l/train: the same 200 scenes (BSDS500 test)"]}
    assert config["revisions"] == {"mine": stored[0]["revision"]}


@pytest.mark.slow
def test_networks_measured_now_and_before_are_recorded_alike(ground, tmp_path, offline, monkeypatch):
    """The second benchmark measures nothing, the third one network of two; all three leave the same."""
    jobs = []
    whole = benchmarking.run
    monkeypatch.setattr(benchmarking, "run", lambda job, *rest: (jobs.append(job.contestant.label), whole(job, *rest)))
    seen, ids = set(), []
    for measured in (["a", "b"], [], ["b"]):
        if measured == ["b"]:
            for name, cell in cells(tmp_path).items():
                if cell["network"] == "elf_lw":
                    (tmp_path / "cells" / f"{name}.json").unlink()
        jobs.clear()
        benchmark(tmp_path, *words(ground), "protocols=[y8,rgb]", "logger=default")
        assert jobs == measured
        three = by_name(run for run in runs(tmp_path / "out") if run.folder not in seen)
        seen |= {run.folder for run in three.values()}
        assert set(three) == {"a", "b", "samples"}
        stored = [cell for cell in cells(tmp_path).values() if cell["network"] == "nafnet"]
        check_network(three["a"], ground, sorted(stored, key=lambda cell: cell["protocol"] != "y8"))
        check_leaderboard(three["samples"], tmp_path / "out")
        # the pictures are the same for both, so that they can be compared
        shown = [{row["name"] for row in three[label].table("test/mine/images") if row["rainy"]} for label in "ab"]
        assert shown[0] == shown[1] != set()
        ids.append({name: run.facts["run_id"] for name, run in three.items()})
    # done again, it replaces what is there
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids[0].values())) == 3


def check_leaderboard(run, folder):
    """Table, page and chart."""
    with (folder / "leaderboard.csv").open() as file:
        written = list(csv.DictReader(file))
    table = run.table(dashboard.LEADERBOARD)
    assert [{c: "" if v is None else str(v) for c, v in row.items()} for row in table] == written
    for key, name in ((dashboard.PAGE, "leaderboard.html"), (dashboard.CHART, "quality_cost.svg")):
        sent = run.folder / "files" / run.summary[f"{key}.path"]
        assert sent.read_text().strip() == (folder / name).read_text().strip()
    assert not any(key.startswith("test/") for key in run.summary)


def test_everything_that_the_workspace_shows_of_a_set_is_recorded(ground, tmp_path, offline):
    pytest.importorskip("wandb_workspaces")
    benchmark(tmp_path, *words(ground), "protocols=[y8,rgb]", "logger=default", "cost.latency=false")
    found = by_name(runs(tmp_path / "out"))
    sections = {s.name: s.panels for s in dashboard.workspace("me", "rain", ["mine"], ["y8", "rgb"]).sections}
    shown = {m for panel in sections["Test: mine"] for m in getattr(panel, "metrics", [])}
    shown |= {axis.name for panel in sections["Test: mine"] if hasattr(panel, "log_x") for axis in (panel.x, panel.y)}
    assert len(shown) == 5
    assert shown <= set(found["a"].summary)
    assert found["a"].table(sections["Test: mine"][-1].table_name)
    *pages, table = sections["Leaderboards"]
    assert all(f"{key}.path" in found["samples"].summary for page in pages for key in page.media_keys)
    assert found["samples"].table(table.table_name)
    assert "cost/forward_ms" not in found["a"].summary


@pytest.mark.slow
def test_a_benchmark_and_an_evaluation_stand_in_one_chart(ground, tmp_path, offline, monkeypatch):
    """The same names, the same numbers, the same versions of weights and data."""
    monkeypatch.setattr(datamodule, "embedded_backgrounds", lambda split: embedded_backgrounds(split)[:1])
    told = [*SMALL, "logger=default", f"weights={ground}/a.safetensors", "data=synthetic", "callbacks.pictures=1"]
    evaluate(compose_words(tmp_path / "one", "evaluate", *told))
    benchmark(tmp_path, words(ground)[0], "sets=[synthetic]", "logger=default", "cost.latency=false")
    one, other = only(tmp_path / "one"), by_name(runs(tmp_path / "out"))["a"]
    compared = {k: v for k, v in one.summary.items() if k.startswith(("test/", "cost/")) and "images" not in k}
    assert len(compared) == 6
    assert {k: other.summary[k] for k in compared} == pytest.approx(compared)
    for kind in ("model", "dataset"):
        (a,), (b,) = one.artifacts(kind), other.artifacts(kind)
        assert (a["name"], a["digest"]) == (b["name"], b["digest"])


def test_sets_are_called_as_an_evaluation_calls_them():
    asked = ["rain12", "rain200h/test", "rain100l/val", "rain800/train", "mine"]
    assert [shown_name(name) for name in asked] == ["rain12", "rain200h", "rain100l-val", "rain800-train", "mine"]


def test_tensorboard_compares_the_networks(ground, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import plugin_data_pb2

    told = [*words(ground), "logger=tensorboard"]
    for _ in range(2):  # what an earlier one wrote is not shown beside the later one
        benchmark(tmp_path, *told)
        found = {}
        for folder in ("a", "b", ""):
            assert len(list((tmp_path / "out" / "tensorboard" / folder).glob("events.*"))) == 1
            found[folder] = event_accumulator.EventAccumulator(str(tmp_path / "out" / "tensorboard" / folder))
            found[folder].Reload()
        for label, network in (("a", "nafnet"), ("b", "elf_lw")):
            tags = found[label].Tags()
            assert {"test/mine/psnr_y8", "test/mine/input_ssim_y8", "cost/gmacs", "cost/forward_ms"} <= set(tags["scalars"])
            assert any(tag.startswith("test/mine/") for tag in tags["images"])
            assert "test/mine/text_summary" in tags["tensors"]
            content = found[label].summary_metadata["_hparams_/session_start_info"].plugin_data.content
            hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
            assert hparams["model/name"].string_value == network
        text = found[""].Tensors("leaderboard/text_summary")[0].tensor_proto.string_val[0].decode()
        assert text == (tmp_path / "out" / "leaderboard.md").read_text()
    assert not (tmp_path / "out" / "wandb").exists()


def test_csv_files_alone(ground, tmp_path):
    benchmark(tmp_path, *words(ground), "logger=csv", "pictures=0")
    with (tmp_path / "out" / "logs" / "a" / "version_0" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    with (tmp_path / "out" / "leaderboard.csv").open() as file:
        (expected,) = (r for r in csv.DictReader(file) if r["label"] == "a")
    assert float(row["test/mine/psnr_y8"]) == pytest.approx(float(expected["psnr_y8"]))
    assert not list(tmp_path.rglob("wandb"))
    assert not list(tmp_path.rglob("tensorboard"))


def test_a_label_may_be_any_text(ground, tmp_path, offline):
    """Also the benchmark's own name, and one that is no name of a file."""
    label = "samples"
    weights = f"weights={{{label}: {ground}/a.safetensors, of/2024: {ground}/b.safetensors}}"
    benchmark(tmp_path, weights, *words(ground)[1:], "logger=default", "cost.latency=false")
    found = runs(tmp_path / "out")
    assert sorted(run.facts["display_name"] for run in found) == ["of/2024", "samples", "samples"]
    assert len({run.facts["run_id"] for run in found}) == 3
    assert {folder.name for folder in (tmp_path / "out" / "logs").iterdir()} == {"samples", "of_2024", "version_0"}


def test_the_front_is_what_no_other_beats():
    points = [(4.0, 31.0), (1.0, 30.0), (2.0, 29.0), (1.0, 28.0), (8.0, 31.0), (16.0, 33.0)]
    assert front(points) == [(1.0, 30.0), (4.0, 31.0), (16.0, 33.0)]
    assert front(points, higher_is_better=False) == [(1.0, 28.0)]
    assert front([]) == []


def test_the_chart_has_a_front_for_every_training_set():
    both = {"x": {"a": (1.0, 30.0), "b": (100.0, 31.0)}, "y": {"c": (10.0, 25.0)}}
    drawn = tradeoffs("t", [Tradeoff("rain12", both)], "GMACs", size=(200, 60))
    lines = [line.split('"')[1] for line in drawn.splitlines() if line.startswith("<polyline")]
    # two axes, then the front of x: the lower price buys the lower value as far as the higher one; y is one point
    assert lines == ["70,90 70,150 270,150", "70,100 270,100 270,90"]
    assert drawn.count("<circle") == 3
