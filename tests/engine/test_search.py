"""Searching through the real task: files, logs, exact resuming, several processes, hand-over to training, comparison."""

import csv
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from derainzoo import config, create_model
from derainzoo.cli import canonical
from derainzoo.data.synthetic import embedded_backgrounds
from derainzoo.engine.search import search
from derainzoo.engine.searcher import Searcher
from derainzoo.engine.setup import make_restorer, network
from derainzoo.engine.train import train
from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import load_model
from derainzoo.nas.genotype import Genotype
from runs import SMALL, compose_words, keep_checkpoint, last_checkpoint

ONCE = [*SMALL, "trainer.val_every=1000"]  # one validation, at the end
AUTODERAIN = [*ONCE, "model=autoderain", "model.width=4", "model.blocks=[1,1,1]"]
MANAS = [*ONCE, "model=manas", "model.width=4", "data.patch_size=16", "search.warmup=0.2", "loss.terms.internal.start=3"]
SYSTEMS = {"autoderain": AUTODERAIN, "manas": MANAS}


def run(output, *words):
    return search(compose_words(output, "search", *words))


def read(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_search_leaves_a_genotype_pictures_and_logs(system, tmp_path):
    result = run(tmp_path, *SYSTEMS[system], "trainer.max_steps=5", "search.freeze=0.2", "seed=3")
    genotype = Genotype.load(tmp_path / "genotype.json")
    assert (genotype.system, genotype.hash, genotype.seed) == (system, result["hash"], 3)
    assert genotype.search["steps"] == 5
    assert genotype.search["settings"]["method"] == {"autoderain": "echo", "manas": "darts"}[system]
    assert genotype.search["supernet"]["psnr_y8"] == result["metrics"]["val/psnr_y8"]
    assert Genotype.load(tmp_path / "genotype-longest-active.json").system == system
    for name in ("genotype", "alphas", "active", "course"):
        assert ET.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
    slots, alphas = {"autoderain": (15, 10 * 6 + 5 * 2), "manas": (39, 12 * 2 + 27 * 9)}[system]
    rows = read(tmp_path / "alphas.csv")
    assert sorted({int(row["step"]) for row in rows}) == [2, 3, 4]  # after warm-up and before freeze
    assert len({row["slot"] for row in rows}) == slots
    assert len(rows) == 3 * alphas
    # the genotype is what the last alphas say
    last = sorted((row for row in rows if row["step"] == "4"), key=lambda row: float(row["alpha"]))
    best = {row["slot"]: row["candidate"] for row in last}
    chosen = "+".join(genotype.choices["operations"]).split("+")
    assert sorted(name for slot, name in best.items() if "cells" not in slot) == sorted(chosen)
    logged = read(tmp_path / "logs" / "version_0" / "metrics.csv")
    share = {"autoderain": "search/share_conv/dil2", "manas": "search/share_edge/cbam"}[system]
    for key in ("train/loss", "alphas/loss", "search/flips", share, "val/psnr_y8"):
        assert any(row[key] for row in logged), key


@pytest.mark.parametrize("method", ["active", "pair", "nasp", "darts"])
def test_every_method_searches_under_one_interface(method, tmp_path):
    run(tmp_path, *AUTODERAIN, "search.candidates=[conv3,sep3]", f"search.method={method}", "trainer.max_steps=3")
    genotype = Genotype.load(tmp_path / "genotype.json")
    assert genotype.search["settings"]["method"] == method
    before, *_, after = ({r["candidate"]: r["alpha"] for r in read(tmp_path / "alphas.csv") if r["step"] == n} for n in "23")
    assert before != after


def test_tensorboard_has_a_curve_of_every_alpha_and_of_its_time_in_use(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, *AUTODERAIN, "logger=tensorboard", "search.candidates=[conv3,sep3]", "trainer.max_steps=5")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = read(tmp_path / "alphas.csv")
    assert rows
    for curve, column in (("alphas", "alpha"), ("active", "active")):
        for row in rows:
            points = {event.step: event.value for event in events.Scalars(f"{curve}/{row['slot']}/{row['candidate']}")}
            assert points[int(row["step"])] == pytest.approx(float(row[column]), rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_wandb_has_the_charts(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(tmp_path, *AUTODERAIN, "logger=default", "trainer.max_steps=5")
    pages = {
        page.name.split(".svg")[0]: page.read_text() for page in tmp_path.glob("wandb/offline-run-*/files/media/html/**/*.html")
    }
    assert set(pages) == {"alphas", "active", "course"}
    for name, page in pages.items():
        assert (tmp_path / f"{name}.svg").read_text().strip() in page


def test_the_four_losses_of_manas_are_logged_and_add_up(tmp_path):
    run(tmp_path, *MANAS, "search.complexity=0.5", "search.entropy=0.25", "trainer.max_steps=5")
    logged = read(tmp_path / "logs" / "version_0" / "metrics.csv")

    def first(key):
        return min(int(row["step"]) for row in logged if row.get(key))

    assert (first("train/loss_external"), first("train/loss_internal")) == (0, 3)
    assert (first("alphas/loss_external"), first("alphas/loss_internal")) == (1, 3)
    for row in (row for row in logged if row["alphas/loss"]):
        values = {k.removeprefix("alphas/loss_"): float(v) for k, v in row.items() if k.startswith("alphas/loss_") and v}
        total = values["external"] + values.get("internal", 0) + 0.5 * values["complexity"]
        total += 0.25 * (values["entropy_cell"] + values["entropy_edge"])
        assert float(row["alphas/loss"]) == pytest.approx(total, rel=1e-5)


def test_warm_up_and_freeze_leave_the_choices_alone(tmp_path, monkeypatch):
    seen = []
    step = Searcher.training_step

    def watch(self, batch, batch_idx):
        before = {kind: alpha.detach().clone() for kind, alpha in self.architecture.alphas.items()}
        weights = {name: p.clone() for name, p in self.net.named_parameters()}
        step(self, batch, batch_idx)
        moved = {kind: not torch.equal(alpha, before[kind]) for kind, alpha in self.architecture.alphas.items()}
        path = tuple(slot.active for _, _, slot in self.architecture.rows())
        trained = {name for name, p in self.net.named_parameters() if not torch.equal(p, weights[name])}
        names = {half: set(b.names) for half, b in batch.items()}
        seen.append((self.phase(self.global_step - 1), any(moved.values()), path, trained, names))

    monkeypatch.setattr(Searcher, "training_step", watch)
    run(tmp_path, *AUTODERAIN, "search.warmup=0.4", "search.freeze=0.2", "trainer.max_steps=10")
    assert [phase for phase, *_ in seen] == ["warm-up"] * 4 + ["search"] * 4 + ["freeze"] * 2
    assert [moved for _, moved, *_ in seen] == [False] * 4 + [True] * 4 + [False] * 2
    assert len({path for phase, _, path, *_ in seen if phase == "warm-up"}) == 4
    assert len({path for phase, _, path, *_ in seen if phase == "freeze"}) == 1
    for *_, trained, _ in seen:  # of a block, one candidate of each convolution, and at most one squeeze-and-excitation
        assert len({name.split(".")[3] for name in trained if name.startswith("middle.0.conv_a.")}) == 1
        assert "head.weight" in trained
    photographs = {half: {n.rpartition("-")[0] for *_, names in seen for n in names[half]} for half in ("weights", "alphas")}
    assert photographs["weights"]
    assert not photographs["weights"] & photographs["alphas"]


def test_manas_steps_weights_and_alphas_on_triplets_of_different_training_photographs(tmp_path, monkeypatch):
    """Row 3 i + k of the outputs is version k of background i, in both steps; the test photographs are in neither."""
    batches = []
    loss = Searcher._loss

    def watch(self, batch, prefix):
        batches.append((prefix, self.net.training, batch))
        return loss(self, batch, prefix)

    monkeypatch.setattr(Searcher, "_loss", watch)
    run(tmp_path, *MANAS, "data.patch_size=48", "trainer.max_steps=4")
    assert [prefix for prefix, *_ in batches] == ["train", *["alphas", "train"] * 3]
    rain = torch.zeros(3)
    for prefix, training, batch in batches:
        assert training == (prefix == "train")  # the alphas see the running statistics
        assert (batch.versions, len(batch.input), len(batch.target)) == (3, 6, 2)
        versions = batch.input.unflatten(0, (2, 3))
        own, other = ((versions - t[:, None]).abs().mean((2, 3, 4)) for t in (batch.target, batch.target.flip(0)))
        assert (own < other).all()
        rain += own.sum(0)
    assert rain[0] < rain[1] < rain[2]  # light, medium, heavy
    names = {
        prefix: {n.rpartition("-")[0] for p, _, b in batches if p == prefix for n in b.names} for prefix in ("train", "alphas")
    }
    held_out = {path.stem.rpartition("-")[0] for split in ("val", "test") for path in embedded_backgrounds(split)}
    assert names["alphas"]
    assert not names["train"] & names["alphas"]
    assert not (names["train"] | names["alphas"]) & held_out


@pytest.mark.parametrize("system", ["autoderain", pytest.param("manas", marks=pytest.mark.slow)])
def test_going_on_from_the_middle_changes_nothing(system, tmp_path, monkeypatch):
    settings = [*SYSTEMS[system], "trainer.max_steps=9", "search.freeze=0.2"]
    keep_checkpoint(monkeypatch, 5, tmp_path / "middle.ckpt")
    run(tmp_path / "whole", *settings)
    run(tmp_path / "rest", *settings, f"resume={tmp_path}/middle.ckpt")
    whole, parts = (last_checkpoint(tmp_path / name) for name in ("whole", "rest"))
    assert whole["global_step"] == parts["global_step"] == 9
    assert any(key.startswith("architecture.alphas.") for key in whole["state_dict"])
    assert same_state(whole["state_dict"], parts["state_dict"])
    for one, other in zip(whole["optimizer_states"], parts["optimizer_states"], strict=True):
        assert one["state"].keys() == other["state"].keys()
        for i, state in one["state"].items():
            assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(other["state"][i][k])) for k, v in state.items())
    for name in ("alphas.csv", "alphas.svg", "active.svg", "course.svg", "genotype.svg"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "rest" / name).read_text()
    assert Genotype.load(tmp_path / "whole/genotype.json").hash == Genotype.load(tmp_path / "rest/genotype.json").hash


@pytest.mark.slow
def test_a_killed_search_goes_on_in_its_folder_and_ends_as_if_nothing_had_happened(tmp_path):
    settings = [*AUTODERAIN, "trainer.max_steps=60", "data.patch_size=64"]
    words = [sys.executable, "-m", "derainzoo", "search", *settings]
    run(tmp_path / "whole", *settings)
    killed = subprocess.Popen([*words, "resume=auto"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (last := list(tmp_path.glob("runs/search/*/*/checkpoints/last.ckpt"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert 0 < torch.load(last[0], weights_only=True)["global_step"] < 60
    done = subprocess.run([*words, "resume=auto"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "going on from" in done.stderr
    folder = last[0].parents[1]
    assert same_state(last_checkpoint(tmp_path / "whole")["state_dict"], last_checkpoint(folder)["state_dict"])
    for name in ("alphas.csv", "active.svg", "genotype.svg"):
        assert (tmp_path / "whole" / name).read_text() == (folder / name).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=elf"], "'elf' cannot be searched; say model=autoderain or model=manas"),
        (["model=autoderain", "compile=true"], "compile=True does not go with a search"),
        (["model=autoderain", "trainer.accumulate_grad_batches=2"], "Leave it at 1"),
        (["model=manas", "callbacks.ema=0.9"], "callbacks.ema=0.9 does not go with a search"),
        (["model=manas", "callbacks.freeze_norm=9"], "callbacks.freeze_norm=9 does not go with a search"),
        (["model=manas", "callbacks.freeze_norm=soon"], "callbacks.freeze_norm=soon: expected the number of a step"),
        (["model=manas", "trainer.precision=16-mixed"], "32-true or bf16-mixed"),
        (["model=manas", "genotype=nowhere.json"], "genotype=nowhere.json: there is no such file"),
        (["model=autoderain", "search.candidates=conv3"], "search.candidates must be a list such as"),
    ],
)
def test_mistakes_are_found_before_torch_is_imported(words, message):
    config.register()
    with pytest.raises(DerainzooError) as error:
        config.check(canonical(["search", *words]))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*AUTODERAIN, "search.method=dart"], "unknown search.method 'dart'. Did you mean 'darts'"),
        ([*AUTODERAIN, "search.candidates=[conv3,dil9]"], "unknown candidate convolution of autoderain 'dil9'"),
        ([*AUTODERAIN, "search.warmup=0.9", "search.freeze=0.2"], "leave none to search in"),
        ([*MANAS, "search.mode=mended"], "unknown search.mode 'mended'"),
        ([*MANAS, "search.method=echo"], "manas is searched with search.method=darts"),
        ([*AUTODERAIN, "search.compare=rnd:4"], "expected random:4 or a genotype file, found 'rnd:4'"),
        ([*AUTODERAIN, "trainer.devices=2", "trainer.strategy=fsdp"], "a search runs on several devices by"),
    ],
)
def test_mistakes_of_a_search(words, message, tmp_path):
    with pytest.raises(DerainzooError) as error:
        run(tmp_path, *words, "trainer.max_steps=10")
    assert message in str(error.value)


def test_a_genotype_decides_the_arguments_and_checkpoints_hold_them(tmp_path):
    path = tmp_path / "genotype.json"
    Genotype("autoderain", {"width": 4, "blocks": [1, 1, 1], "operations": "sep3+dil2+id"}).save(path)
    cfg = compose_words(tmp_path, "train", *SMALL, "model=autoderain", f"genotype={path}")
    module = make_restorer(cfg)
    arguments = module.hparams["model"]["arguments"]
    assert arguments == {"width": 4, "blocks": [1, 1, 1], "operations": ["sep3+dil2+id"] * 5}
    assert hasattr(module.net.middle[0].conv_a, "sep3")
    # said twice is no contradiction, said otherwise is one
    assert (
        network(compose_words(tmp_path, *SMALL, "model=autoderain", f"genotype={path}", "model.width=4"))["arguments"]
        == arguments
    )
    with pytest.raises(
        DerainzooError, match=r"model\.width=16 contradicts .*genotype\.json, which has 4; leave model\.width out"
    ):
        network(compose_words(tmp_path, *SMALL, "model=autoderain", f"genotype={path}", "model.width=16"))
    with pytest.raises(DerainzooError, match="is of autoderain, but the network is manas; say model=autoderain"):
        network(compose_words(tmp_path, *SMALL, "model=manas", f"genotype={path}"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_was_found_is_handed_to_training(system, tmp_path):
    """By `derainzoo train model=SYSTEM genotype=FILE`: the derived network, from new weights, in a checkpoint of its own."""
    run(tmp_path / "search", *SYSTEMS[system], "trainer.max_steps=3", "seed=7")
    path = tmp_path / "search" / "genotype.json"
    loss = "loss=manas" if system == "manas" else "loss=ssim"
    versions = 3 if system == "manas" else 1
    words = [*SMALL, f"model={system}", f"genotype={path}", loss, f"data.versions={versions}", "test=false"]
    result = train(compose_words(tmp_path / "train", "train", *words, "trainer.max_steps=2", "trainer.val_every=2"))
    assert result["steps"] == 2
    genotype = Genotype.load(path)
    saved = torch.load(result["checkpoint"], weights_only=True)["hyper_parameters"]["model"]
    assert saved == {"name": system, "arguments": genotype.model_arguments()}
    trained = load_model(result["checkpoint"]).state_dict()
    fresh = create_model(system, **genotype.model_arguments()).state_dict()
    assert {key: t.shape for key, t in trained.items()} == {key: t.shape for key, t in fresh.items()}


def test_runs_of_one_genotype_have_one_fingerprint(tmp_path):
    found = Genotype("autoderain", {"width": 4})
    for name in ("a.json", "b.json"):
        found.save(tmp_path / name)
    Genotype("autoderain", {"width": 8}).save(tmp_path / "c.json")
    prints = [
        config.fingerprint(compose_words(tmp_path, "train", "model=autoderain", f"genotype={tmp_path / name}"))
        for name in ("a.json", "b.json", "c.json")
    ]
    assert prints[0] == prints[1] != prints[2]


def test_what_was_found_is_ranked_beside_chance_under_one_budget(tmp_path):
    words = [*AUTODERAIN, "search.candidates=[conv3,sep3]", "trainer.max_steps=6", "search.compare=random:2"]
    words += ["search.retrain.steps=2", "search.retrain.seeds=2"]
    result = run(tmp_path, *words)
    rows = result["compare"]
    names = " ".join(row["name"] for row in rows)
    assert all(name in names for name in ("found", "longest active", "by hand", "random 1", "random 2"))
    assert [row["mean"] for row in rows] == sorted((row["mean"] for row in rows), reverse=True)
    for row in rows:
        assert len(set(row["values"])) == 2
        assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
        assert row["spread"] == pytest.approx(abs(row["values"][0] - row["values"][1]) / 2**0.5)
    assert {row["hash"] for row in read(tmp_path / "compare.csv")} == {row["hash"] for row in rows}
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("compare/*/result.json")}
    assert len(kept) == 2 * len(rows)
    # compared again, now as a given genotype: nothing is searched, and nothing is trained twice
    again = run(tmp_path, *words, f"genotype={tmp_path}/genotype.json")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("compare/*/result.json")} == kept
    assert any("given" in row["name"] for row in again["compare"])
    # another budget is another comparison
    run(tmp_path, *words, f"genotype={tmp_path}/genotype.json", "search.retrain.steps=1", "search.retrain.seeds=1")
    assert {file: file.stat().st_mtime_ns for file in kept} != kept
    with pytest.raises(DerainzooError, match="there is nothing to search; say search.compare=random:4"):
        run(tmp_path, *words, f"genotype={tmp_path}/genotype.json", "search.compare=null")


def run_command(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "derainzoo", "search", *words, f"hydra.run.dir={folder}"],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(t, other[key]) for key, t in one.items())


@pytest.mark.multiprocess
@pytest.mark.parametrize("system", SYSTEMS)
def test_two_processes_search_as_one(system, tmp_path):
    """That their paths, alphas and weights agree is checked as they run; a disagreement would have ended them."""
    settings = [*SYSTEMS[system], "data.batch_size=4", "scheduler.total=12", "search.freeze=0"]
    twelve = [*settings, "trainer.max_steps=12", "search.warmup=0.2"]
    run_command(tmp_path / "two", *twelve, "trainer.devices=2")
    assert json.loads((tmp_path / "two" / "result.json").read_text())["hash"]
    two = last_checkpoint(tmp_path / "two")
    assert two["global_step"] == 12
    if system == "autoderain":  # the batch statistics of manas are each process's own
        run(tmp_path / "one", *twelve)
        one = last_checkpoint(tmp_path / "one")["state_dict"]
        for key, tensor in one.items():
            torch.testing.assert_close(two["state_dict"][key], tensor, rtol=0, atol=1e-3)
        for key in ("architecture.alphas.conv", "architecture.alphas.se"):
            torch.testing.assert_close(two["state_dict"][key], one[key], rtol=0, atol=1e-4)
    # six steps and then the rest, the phases being where they were
    run_command(tmp_path / "six", *settings, "trainer.max_steps=6", "search.warmup=0.4", "trainer.devices=2")
    run_command(tmp_path / "rest", *twelve, "trainer.devices=2", f"resume={tmp_path}/six")
    assert same_state(last_checkpoint(tmp_path / "rest")["state_dict"], two["state_dict"])


@pytest.mark.multiprocess
def test_two_processes_compare(tmp_path):
    words = [*AUTODERAIN, "data.batch_size=4", "search.candidates=[conv3,sep3]", "trainer.max_steps=6", "trainer.devices=2"]
    words += ["search.compare=random:1", "search.retrain.steps=2", "search.retrain.seeds=1"]
    run_command(tmp_path / "two", *words)
    ranking = json.loads((tmp_path / "two" / "result.json").read_text())["compare"]
    assert {"by hand", "random 1"} <= {row["name"] for row in ranking}
    again = run(tmp_path / "two", *words, f"genotype={tmp_path}/two/genotype.json", "trainer.devices=1")["compare"]
    assert [row["hash"] for row in again] == [row["hash"] for row in ranking]


def test_processes_that_come_apart_end_the_search(tmp_path, monkeypatch):
    from derainzoo.engine import searcher

    def gather(found, own):
        found[:] = [own, "another"]

    monkeypatch.setattr(searcher, "_processes", lambda: 2)
    monkeypatch.setattr(searcher.dist, "all_reduce", lambda tensor: tensor.mul_(2))
    monkeypatch.setattr(searcher.dist, "all_gather_object", gather)
    with pytest.raises(RuntimeError, match="step 0: the processes of this search have come apart"):
        run(tmp_path, *AUTODERAIN, "trainer.max_steps=2", "search.warmup=0")
