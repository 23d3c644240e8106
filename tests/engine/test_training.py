"""Training through the real command: exact resuming, killing, broken losses, results."""

import csv
import signal
import subprocess
import time

import pytest
import torch

from derainzoo.engine.train import train
from derainzoo.errors import DerainzooError
from runs import SMALL, command, compose_run, compose_words, keep_checkpoint


def weights(path, key="state_dict"):
    return torch.load(path, weights_only=True)[key]


@pytest.mark.parametrize("ema", ["null", "0.9"])
def test_five_steps_and_five_more_equal_ten(tmp_path, ema):
    extra = [f"callbacks.ema={ema}", "data.num_workers=1" if ema == "0.9" else "data.num_workers=0"]
    train(compose_run(tmp_path / "ten", "trainer.max_steps=10", *extra))
    train(compose_run(tmp_path / "five", "trainer.max_steps=5", "scheduler.total=10", *extra))
    five = tmp_path / "five" / "checkpoints" / "last.ckpt"
    assert torch.load(five, weights_only=True)["global_step"] == 5
    train(compose_run(tmp_path / "rest", "trainer.max_steps=10", f"resume={five}", *extra))
    whole, parts = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("ten", "rest"))
    assert whole["global_step"] == parts["global_step"] == 10
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, parts["state_dict"][name]), name
    first, second = (c["optimizer_states"][0]["state"] for c in (whole, parts))
    assert all(torch.equal(first[i]["exp_avg_sq"], second[i]["exp_avg_sq"]) for i in first)


@pytest.mark.slow
def test_a_killed_run_goes_on_in_its_folder_and_ends_as_if_nothing_had_happened(tmp_path):
    settings = ["trainer.max_steps=40", "trainer.val_every=40", "data.patch_size=64"]
    subprocess.run(command(*settings, f"hydra.run.dir={tmp_path}/whole"), cwd=tmp_path, check=True, capture_output=True)
    killed = subprocess.Popen(command(*settings, "resume=auto"), cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (last := list(tmp_path.glob("runs/train/*/*/checkpoints/last.ckpt"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    at = torch.load(last[0], weights_only=True)["global_step"]
    assert 0 < at < 40
    done = subprocess.run(command(*settings, "resume=auto"), cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "going on from" in done.stderr
    assert len(list(tmp_path.glob("runs/train/*/*"))) == 1
    for name in ("last", "best"):
        whole, parts = (
            torch.load(f / "checkpoints" / f"{name}.ckpt", weights_only=True) for f in (tmp_path / "whole", last[0].parents[1])
        )
        assert whole["global_step"] == parts["global_step"] == 40
        assert all(torch.equal(t, parts["state_dict"][k]) for k, t in whole["state_dict"].items())
    # finished: asked again, a new run begins
    again = subprocess.run(
        command(*settings, "resume=auto", "trainer.max_steps=1", "trainer.val_every=1"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "a new one begins" in again.stderr


def test_a_broken_loss_names_its_files_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    from derainzoo.engine import restorer

    class Breaks(restorer.WeightedLoss):
        def __call__(self, output, target, versions=1, step=0):
            total, terms = super().__call__(output, target, versions, step)
            return (total * float("nan"), terms) if step == 7 else (total, terms)

    monkeypatch.setattr(restorer, "WeightedLoss", Breaks)
    with pytest.raises(restorer.NonFiniteLoss, match=r"not a number at step 7 .*The batch held: \w+-\d, \w+-\d\."):
        train(compose_run(tmp_path, "trainer.max_steps=10"))
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 5
    assert all(torch.isfinite(t).all() for t in kept["state_dict"].values())


def test_a_broken_gradient_reaches_no_weight(tmp_path, monkeypatch):
    from derainzoo.engine import restorer

    class Spoils(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * float("nan")

    class Breaks(restorer.WeightedLoss):
        def __call__(self, output, target, versions=1, step=0):
            total, terms = super().__call__(output, target, versions, step)
            return (Spoils.apply(total) if step == 7 else total), terms

    monkeypatch.setattr(restorer, "WeightedLoss", Breaks)
    with pytest.raises(restorer.NonFiniteLoss, match=r"gradient is not a number at step 7 \(\d+ of \d+ parameters, the first "):
        train(compose_run(tmp_path, "trainer.max_steps=10", "callbacks.checkpoint_every=1"))
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 7
    assert all(torch.isfinite(t).all() for t in kept["state_dict"].values())


def test_frozen_normalisations_keep_their_statistics_and_learn_on(tmp_path):
    def trained(name, steps, start):
        words = ["model=manas", "model.width=8", "test=false", "trainer.val_every=1", "scheduler.total=4"]
        settings = [f"trainer.max_steps={steps}", f"callbacks.freeze_norm={start}"]
        train(compose_words(tmp_path / name, *SMALL, *words, *settings))
        return weights(tmp_path / name / "checkpoints" / "last.ckpt")

    begun, frozen, free = trained("begun", 2, "null"), trained("frozen", 4, 2), trained("free", 4, "null")
    running = [name for name in begun if name.endswith("running_mean")]
    assert running
    assert all(torch.equal(frozen[name], begun[name]) for name in running)
    assert not any(torch.equal(frozen[name], free[name]) for name in running)
    scales = [scale for name in running if (scale := name.replace("running_mean", "weight")) in begun]
    assert scales
    assert not any(torch.equal(frozen[name], begun[name]) for name in scales)


def test_an_average_begins_anew_with_frozen_normalisations(tmp_path):
    """Of statistics from before and after one would be validated, and kept, that fit no weights."""
    words = ["model=manas", "model.width=8", "test=false", "trainer.max_steps=3", "trainer.val_every=3"]
    train(compose_words(tmp_path, *SMALL, *words, "callbacks.freeze_norm=2", "callbacks.ema=0.9"))
    last = tmp_path / "checkpoints" / "last.ckpt"
    average, current = weights(last), weights(last, "current_model_state")
    assert all(torch.equal(average[name], current[name]) for name in average)  # of one step


def test_a_network_without_normalisation_has_nothing_to_freeze(tmp_path):
    with pytest.raises(DerainzooError, match="batch normalisation; this one has none"):
        train(compose_run(tmp_path, "callbacks.freeze_norm=2"))


@pytest.mark.parametrize("operation", ["conv3", "dil2"])
def test_dilated_convolutions_learn_in_half_precision(tmp_path, monkeypatch, operation):
    """In channels_last their gradients would be what lay in memory."""
    from derainzoo.engine import restorer

    layouts = []
    whole = restorer.Restorer.forward
    monkeypatch.setattr(restorer.Restorer, "forward", lambda self, x: (layouts.append(self.memory_format), whole(self, x))[1])
    words = ["model=autoderain", "model.width=16", "model.blocks=[1,1,1]", f"model.operations=[{operation}+conv3+se]"]
    train(compose_words(tmp_path, *SMALL, *words, "test=false", "trainer.max_steps=3", "trainer.precision=bf16-mixed"))
    assert set(layouts) == {torch.contiguous_format if operation == "dil2" else torch.channels_last}


def test_a_run_leaves_results_logs_and_pictures(tmp_path):
    cfg = compose_run(tmp_path, "trainer.max_steps=4", "trainer.val_every=2", "test=true", "callbacks.pictures=2")
    result = train(cfg)
    assert result["objective"] == pytest.approx(max(result["metrics"]["val/psnr_y8"], result["objective"]))
    assert result["metrics"]["test/synthetic/psnr_y8"] > 5
    rows = list(csv.DictReader((tmp_path / "results" / "synthetic.csv").open()))
    assert len(rows) == 18  # six pictures in three rains
    mean = sum(float(r["psnr_y8"]) for r in rows) / len(rows)
    assert result["metrics"]["test/synthetic/psnr_y8"] == pytest.approx(mean)
    logged = list(csv.DictReader((tmp_path / "logs" / "version_0" / "metrics.csv").open()))
    assert any(row["train/images_per_s"] for row in logged)
    assert sum(bool(row["val/psnr_y8"]) for row in logged) == 2
    assert len(list((tmp_path / "pictures" / "step-0000004").glob("*.png"))) == 2


def test_a_checkpoint_is_plain_data_that_rebuilds_its_network(tmp_path):
    from derainzoo.models.checkpoints import load_model

    train(compose_run(tmp_path, "trainer.max_steps=2", "trainer.val_every=2"))
    net = load_model(tmp_path / "checkpoints" / "best.ckpt")
    state = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["hyper_parameters"]["model"]["arguments"]["dim"] == 8
    assert all(torch.equal(t, state["state_dict"][f"net.{k}"]) for k, t in net.state_dict().items())
    # and another run may start from it
    train(
        compose_run(
            tmp_path / "next", "trainer.max_steps=1", "trainer.val_every=1", f"weights={tmp_path}/checkpoints/best.ckpt"
        )
    )


def test_accumulated_batches_give_the_same_steps(tmp_path):
    one = train(compose_run(tmp_path / "one", "trainer.max_steps=3", "trainer.val_every=3"))
    two = train(
        compose_run(tmp_path / "two", "trainer.max_steps=3", "trainer.val_every=3", "trainer.accumulate_grad_batches=2")
    )
    assert two["metrics"]["val/psnr_y8"] == pytest.approx(one["metrics"]["val/psnr_y8"], abs=1e-3)
    states = [torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for n in ("one", "two")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=2e-3)


@pytest.mark.parametrize("extra", [(), ("trainer.accumulate_grad_batches=2",), ("callbacks.ema=0.9",)])
def test_going_on_from_the_middle_changes_nothing(tmp_path, monkeypatch, extra):
    keep_checkpoint(monkeypatch, 5, tmp_path / "middle.ckpt")
    settings = ["trainer.max_steps=9", "trainer.val_every=4", "callbacks.checkpoint_every=5", *extra]
    train(compose_run(tmp_path / "whole", *settings))
    train(compose_run(tmp_path / "rest", *settings, f"resume={tmp_path}/middle.ckpt"))
    whole, parts = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("whole", "rest"))
    assert whole["global_step"] == parts["global_step"] == 9
    assert all(torch.equal(t, parts["state_dict"][k]) for k, t in whole["state_dict"].items())
    logs = [list(csv.DictReader((tmp_path / n / "logs/version_0/metrics.csv").open())) for n in ("whole", "rest")]
    validations = [{r["step"]: r["val/psnr_y8"] for r in log if r["val/psnr_y8"]} for log in logs]
    assert validations[1] == {k: v for k, v in validations[0].items() if int(k) >= 5}
