"""The benchmark: each combination is measured once, with the numbers of `evaluate`, and ranked where it can be compared."""

import csv
import json
import subprocess
import sys

import pytest

from benchmarks import QUICK, benchmark, cells, write_pairs, write_weights
from derainzoo.bench import benchmark as benchmarking
from derainzoo.bench.contest import BenchmarkSet, Contestant, _training, contestants, warnings_about
from derainzoo.bench.leaderboard import Result, ranks
from derainzoo.engine.evaluate import evaluate
from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import open_weights
from offline import runs
from runs import SMALL, compose_words
from tasks import configured


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Two files of weights and a set."""
    folder = tmp_path_factory.mktemp("ground")
    write_weights(folder / "a.safetensors", seed=1, trained_on="rain100l/train")
    write_weights(folder / "b.safetensors", seed=2, trained_on="rain100l/train")
    write_pairs(folder / "pairs")
    return folder


def two(ground):
    return [f"weights=[{ground}/a.safetensors,{ground}/b.safetensors]", f"sets={{mine: {{root: {ground}/pairs}}}}"]


@pytest.fixture(scope="module")
def done(ground, tmp_path_factory):
    """A finished benchmark of both, and what it returned."""
    folder = tmp_path_factory.mktemp("done")
    return folder, benchmark(folder, *two(ground), "protocols=[y8,rgb]")


@pytest.fixture
def counted(monkeypatch):
    """The jobs that are really run."""
    jobs = []
    whole = benchmarking.run
    monkeypatch.setattr(benchmarking, "run", lambda job, *rest: (jobs.append(job), whole(job, *rest)))
    return jobs


def test_every_combination_is_a_cell_with_its_circumstances(done):
    folder, result = done
    found = cells(folder).values()
    assert (result["measured_now"], result["measured_before"], len(found)) == (4, 0, 4)
    assert {(c["protocol"], c["weights_sha256"]) for c in found} == {
        (p, row["weights_sha256"]) for p in ("y8", "rgb") for row in result["rows"]
    }
    for cell in found:
        assert {"torch", "cpu", "derainzoo", "python"} <= set(cell["environment"])
        assert [row["name"] for row in cell["rows"]] == ["0", "1", "2"]
    assert not (folder / "out" / "running").exists() or not any((folder / "out" / "running").iterdir())


def test_the_numbers_are_those_of_evaluate(done, ground, tmp_path):
    folder, _ = done
    words = ["evaluate", *SMALL, f"weights={ground}/a.safetensors", "data=folder", f"data.root={ground}/pairs"]
    evaluate(compose_words(tmp_path, *words))
    with (tmp_path / "results" / "folder-all.csv").open() as file:
        expected = {row["name"]: (float(row["psnr_y8"]), float(row["input_psnr_y8"])) for row in csv.DictReader(file)}
    with (folder / "out" / "leaderboard.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if r["label"] == "a" and r["protocol"] == "y8")
    (cell,) = (c for c in cells(folder).values() if c["protocol"] == "y8" and c["weights_sha256"] == row["weights_sha256"])
    assert {r["name"]: (r["psnr_y8"], r["input_psnr_y8"]) for r in cell["rows"]} == expected
    assert float(row["psnr_y8"]) == pytest.approx(sum(v for v, _ in expected.values()) / 3)
    assert int(row["params"]) > 0
    assert int(row["macs"]) > 0
    assert float(row["forward_ms"]) > 0


def test_a_finished_cell_is_not_run_again(done, ground, counted):
    folder, first = done
    again = benchmark(folder, *two(ground), "protocols=[y8,rgb]")
    assert not counted
    assert (again["measured_now"], again["measured_before"]) == (0, 4)
    assert again["rows"] == first["rows"]


def test_a_missing_cell_alone_is_run_again(ground, tmp_path, counted):
    benchmark(tmp_path, *two(ground), "protocols=[y8]")
    assert [(job.contestant.label, job.protocols) for job in counted] == [("a", ("y8",)), ("b", ("y8",))]
    counted.clear()
    lost = next(name for name, cell in cells(tmp_path).items() if cell["weights_sha256"] != "")
    (tmp_path / "cells" / f"{lost}.json").unlink()
    benchmark(tmp_path, *two(ground), "protocols=[y8,rgb]")
    # one pass over the pictures measures all that is missing
    assert sorted(job.protocols for job in counted) == [("rgb",), ("y8", "rgb")]


def test_other_pictures_are_another_revision(ground, tmp_path, counted):
    pairs = write_pairs(tmp_path / "pairs", 2)
    words = [f"weights={ground}/a.safetensors", f"sets={{mine: {{root: {pairs}}}}}"]
    benchmark(tmp_path, *words)
    write_pairs(tmp_path / "pairs", 1, size=(24, 34))
    benchmark(tmp_path, *words)
    assert len(counted) == 2
    assert len({cell["revision"] for cell in cells(tmp_path).values()}) == 2


def test_weights_are_known_by_what_they_hold(ground, tmp_path, counted):
    (tmp_path / "copy.safetensors").write_bytes((ground / "a.safetensors").read_bytes())
    words = [f"sets={{mine: {{root: {ground}/pairs}}}}", "cost.latency=false"]
    benchmark(tmp_path, f"weights={ground}/a.safetensors", *words)
    result = benchmark(tmp_path, f"weights={{renamed: {tmp_path}/copy.safetensors}}", *words)
    assert len(counted) == 1
    assert result["rows"][0]["label"] == "renamed"
    assert result["rows"][0]["forward_ms"] == ""


def test_per_image_rows_are_written_as_parquet(done):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(done[0] / "out" / "per_image.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 3 * 2  # networks, protocols, pictures, metrics
    assert {row["metric"] for row in rows} == {"psnr_y8", "ssim_y8", "psnr_rgb", "ssim_rgb"}
    assert all(isinstance(row["value"], float) for row in rows)


def test_without_pyarrow_they_are_csv(done, ground, tmp_path, monkeypatch):
    monkeypatch.setattr("derainzoo.bench.leaderboard.find_spec", lambda name: None)
    benchmark(tmp_path, f"weights={ground}/a.safetensors", two(ground)[1], f"cells={done[0]}/cells")
    with (tmp_path / "out" / "per_image.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def test_scenes_seen_in_training_are_said(ground, tmp_path):
    words = [f"weights=[{ground}/a.safetensors,{ground}/b.safetensors]", "trained_on={b: rain13k/train}", "cost.latency=false"]
    result = benchmark(tmp_path, *words, f"sets={{samples: {{root: {ground}/pairs, shows: rain200h/test}}}}", "pictures=0")
    warnings = {row["label"]: row["warnings"] for row in result["rows"]}
    assert warnings["a"] == "rain100l/train: the same 200 scenes (BSDS500 test)"
    assert not warnings["b"]
    assert "a on samples: rain100l/train: the same 200 scenes" in (tmp_path / "out" / "leaderboard.md").read_text()
    assert not (tmp_path / "cells" / "pictures").exists()


def test_trained_on_the_test_set_itself(ground, tmp_path):
    words = [
        f"sets={{mine: {{root: {ground}/pairs, shows: rain12/test}}}}",
        "trained_on={a: rain12/test}",
        "cost.latency=false",
    ]
    assert (
        benchmark(tmp_path, f"weights={ground}/a.safetensors", *words)["rows"][0]["warnings"] == "trained on rain12/test itself"
    )


@pytest.mark.parametrize(
    ("division", "said"),
    [([1, 20, None], ""), ([2, 20, None], "was divided in another way"), (None, "how rain100l/train was divided is not known")],
)
def test_weights_say_which_pictures_they_held_out(tmp_path, division, said):
    facts = {"division": division} if division else {}
    file = write_weights(tmp_path / "a.safetensors", trained_on="rain100l/train", **facts)
    opened = open_weights(file)
    contestant = Contestant("a", opened, file, "", _training(None, opened))
    held_out = BenchmarkSet("held out", "rain100l/train", None, "", (1, 20, None))
    found = warnings_about(contestant, held_out)
    assert len(found) == bool(said)
    assert all(f"{said} (seed, val_images)" in warning for warning in found)
    (seen,) = warnings_about(contestant, BenchmarkSet("all", "rain100l/train", None, ""))
    assert seen == "trained on rain100l/train itself"


def test_weights_say_whose_scenes_came_into_training_by_another_way(tmp_path):
    said = {"rain200h/test": "119 of the 200 scenes"}
    opened = open_weights(write_weights(tmp_path / "a.safetensors", trained_on="synthetic rain over photographs", seen=said))
    contestant = Contestant("a", opened, None, "", _training(None, opened))
    assert warnings_about(contestant, BenchmarkSet("h", "rain200h/test", None, "")) == [
        "seen in training: 119 of the 200 scenes"
    ]
    assert not warnings_about(contestant, BenchmarkSet("12", "rain12/test", None, ""))


def result(label, value, trained_on, protocol="y8", dataset="s", revision="r"):
    metric = {"y8": "psnr_y8", "noref": "niqe_official"}[protocol]
    rows = [{"name": "1", "scene": "1", metric: value, f"input_{metric}": 0.0}]
    return Result(label, "elf", "", "", trained_on, "", dataset, revision, protocol, (), {}, rows)


def test_ranks_never_cross_training_sets_protocols_or_revisions():
    x, y = ("rain100l/train",), ("rain13k/train",)
    shown = [
        result("a", 30.0, x),
        result("b", 31.0, x),
        result("c", 40.0, y),
        result("d", 50.0, None),
        result("e", 60.0, ()),
        result("f", 35.0, x, revision="other"),
        result("g", 5.0, x, protocol="noref"),
        result("h", 4.0, x, protocol="noref"),
        result("i", float("nan"), x),
    ]
    assert ranks(shown) == [2, 1, 1, None, None, 1, 2, 1, None]


def test_names_without_weights_are_refused_unless_random_ones_are_allowed(ground, tmp_path):
    sets = f"sets={{mine: {{root: {ground}/pairs}}}}"
    with pytest.raises(DerainzooError, match=r"no weights for prn\. Give a file by weights=\{prn: FILE\}.*allow_random=true"):
        benchmark(tmp_path, "models=[prn]", sets)
    with pytest.raises(DerainzooError, match="unknown network 'prm'"):
        benchmark(tmp_path, "models=[prm]", "allow_random=true", sets)
    with pytest.raises(DerainzooError, match="benchmark needs networks"):
        benchmark(tmp_path, sets)
    row = benchmark(tmp_path, "models=[prn_r]", "allow_random=true", sets, "cost.latency=false")["rows"][0]
    assert (row["label"], row["trained_on"], row["rank"]) == ("prn_r (random)", "random weights", "")


def test_weights_that_ship_keep_their_whole_name():
    cfg = configured("benchmark", "weights=[nafnet.anyrain]", "models=[elf_lw]", "sets=[synthetic]")
    assert [c.label for c in contestants(cfg)] == ["nafnet.anyrain", "elf_lw.rain100l"]


def test_a_model_that_is_among_the_weights_needs_no_other(ground, tmp_path):
    words = [f"weights={{mine: {ground}/a.safetensors}}", "models=[nafnet]", f"sets={{x: {{root: {ground}/pairs}}}}"]
    assert [row["label"] for row in benchmark(tmp_path, *words, "cost.latency=false")["rows"]] == ["mine"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["protocols=[y9]"], "unknown metric protocol 'y9'"),
        (["protocols=[]"], "at least one of"),
        (["sets=[rain999]"], "unknown data set 'rain999'"),
        (["sets={x: {rot: there}}"], "x may say root, set, shows; found rot"),
        (["sets=[rain12]", "paths.data=/nowhere"], r"no pictures of rain12 \(test\)"),
        (["weights=[/nowhere/a.ckpt]"], "a file of weights expected, found nothing"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(words, message, ground, tmp_path, counted):
    with pytest.raises(DerainzooError, match=message):
        benchmark(tmp_path, *[w for w in two(ground) if not any(w.split("=")[0] == v.split("=")[0] for v in words)], *words)
    assert not counted


def run_folder(folder, ground, finished=True):
    """What a training leaves behind, as far as a benchmark looks at it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    data = {"name": "rain100l", "train": "train", "batch_size": 8, "patch_size": 64, "val_images": 16, "val": None}
    trainer = {"max_steps": 10000, "max_epochs": None}
    cfg = {"name": "fair_nafnet", "seed": 1234, "data": data, "trainer": trainer}
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(cfg))  # which is YAML, too
    (folder / "checkpoints" / "best.ckpt").write_bytes((ground / "a.safetensors").read_bytes())
    if finished:
        (folder / "result.json").write_text("{}")


def test_finished_runs_say_themselves_what_they_are(ground, tmp_path, caplog):
    run_folder(tmp_path / "runs" / "fair_nafnet" / "one", ground)
    run_folder(tmp_path / "runs" / "fair_nafnet" / "two", ground, finished=False)
    words = [f"sets={{mine: {{root: {ground}/pairs}}}}", "cost.latency=false"]
    with caplog.at_level("WARNING"):
        (row,) = benchmark(tmp_path, f"weights='{tmp_path}/runs/fair_*'", *words)["rows"]
    assert (row["label"], row["trained_on"], row["rank"]) == ("fair_nafnet", "rain100l/train", 1)
    assert row["budget"] == "10,000 steps of 8 patches of 64 x 64"
    assert "not finished, left out" in caplog.text
    with pytest.raises(DerainzooError, match="no finished run"):
        benchmark(tmp_path, f"weights={tmp_path}/runs/fair_nafnet/two", *words)


@pytest.mark.multiprocess
def test_several_processes_share_the_pictures_of_a_cell(done, ground, tmp_path, offline):
    """And the processes go on together from one cell to the next. The first one records what came of it."""
    words = [sys.executable, "-m", "derainzoo", "benchmark", *QUICK, *two(ground), "protocols=[y8,rgb]", "trainer.devices=2"]
    words.append("logger=default")
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads((tmp_path / "runs" / "benchmark" / "leaderboard" / "result.json").read_text())
    assert result["measured_now"] == 4
    one = {(r["label"], r["protocol"]): r.get(f"psnr_{r['protocol']}") for r in done[1]["rows"]}
    two_ = {(r["label"], r["protocol"]): r.get(f"psnr_{r['protocol']}") for r in result["rows"]}
    assert two_ == pytest.approx(one, abs=1e-6)
    recorded = runs(tmp_path / "runs" / "benchmark" / "leaderboard")
    assert sorted(run.facts["display_name"] for run in recorded) == ["a", "b", "leaderboard"]
    assert len(next(run for run in recorded if run.facts["display_name"] == "a").table("test/mine/images")) == 3
