"""Several processes: the same run as one process, every image measured once; sweeps of several runs."""

import csv
import json
import subprocess
import sys

import pytest
import torch

from runs import TINY, command

pytestmark = pytest.mark.multiprocess


def results(folder):
    rows = list(csv.DictReader((folder / "results" / "synthetic.csv").open()))
    return {row["name"]: float(row["psnr_y8"]) for row in rows}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of one process to compare with."""
    folder = tmp_path_factory.mktemp("one")
    run(folder)
    return folder


def run(folder, *overrides, prefix=None):
    settings = ["trainer.max_steps=4", "trainer.val_every=2", "test=true", f"hydra.run.dir={folder}", *overrides]
    words = command(*settings) if prefix is None else [*prefix, "-m", "derainzoo", *TINY, *settings]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def compare(one, two):
    first, second = results(one), results(two)
    assert sorted(first) == sorted(second)
    assert len(second) == 18
    assert second == pytest.approx(first, abs=2e-3)
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (one, two)]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=1e-3)


def test_two_processes_give_the_results_of_one(one, tmp_path):
    run(tmp_path, "trainer.devices=2")
    compare(one, tmp_path)
    assert not list(tmp_path.glob("runs/*"))


def test_torchrun_gives_the_results_of_one(one, tmp_path):
    run(
        tmp_path,
        "trainer.devices=2",
        "trainer.strategy=ddp",
        prefix=[sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"],
    )
    compare(one, tmp_path)


def test_a_sweep_runs_every_job_and_skips_the_finished_ones(tmp_path):
    settings = ["trainer.max_steps=2", "trainer.val_every=2"]
    sweep = [*command(*settings), "-m", "seed=1,2", "optim.lr=0.001,1e30"]  # such a rate breaks the second step
    first = subprocess.run(sweep, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    finished = sorted(p.parent.name for p in tmp_path.glob("runs/sweep/train/*/result.json"))
    assert first.returncode == 1
    assert len(finished) == 2, first.stderr[-2000:]
    assert "2 of 4 jobs done" in first.stderr
    again = subprocess.run(sweep, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert again.stderr.count("skipped, finished before") == 2


def test_a_sweep_of_jobs_with_two_processes_each(tmp_path):
    settings = ["trainer.max_steps=2", "trainer.val_every=2", "trainer.devices=2"]
    done = subprocess.run(
        [*command(*settings), "-m", "seed=1,2"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    objectives = [json.loads(p.read_text())["objective"] for p in tmp_path.glob("runs/sweep/train/*/result.json")]
    assert len(objectives) == 2
    assert len(list(tmp_path.glob("runs/*/*/*/"))) == 2


def test_a_sweep_through_submitit(tmp_path):
    """The path that Slurm takes, in local processes."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = command("trainer.max_steps=1", "trainer.val_every=1", "hydra/launcher=slurm_local", "-m", "seed=1,2")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("runs/sweep/train/*/result.json"))) == 2


def test_a_process_that_breaks_takes_the_others_with_it(tmp_path):
    code = (
        "import os, sys\nfrom derainzoo.engine import restorer\n"
        "whole = restorer.Restorer.training_step\n"
        "def step(self, batch, index):\n"
        "    if self.global_step == 1 and int(os.environ.get('LOCAL_RANK', 0)) == 1: raise restorer.NonFiniteLoss('broken')\n"
        "    return whole(self, batch, index)\n"
        "restorer.Restorer.training_step = step\n"
        "from derainzoo.cli import main\nmain()\n"
    )
    script = tmp_path / "breaks.py"
    script.write_text(code)
    words = [sys.executable, str(script), *TINY, "trainer.max_steps=4", "trainer.devices=2", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode != 0
    assert "error: broken" in done.stderr
