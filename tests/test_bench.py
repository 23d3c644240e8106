"""The comparison with the papers' formulations makes its table, and compares like with like."""

import pytest
import torch
from torch import nn

import bench
from derainzoo import model_info

SMALL = {"size": (32, 48), "patch": (32, 32), "repeats": 1}


@pytest.mark.parametrize("name", bench.NETWORKS)
def test_both_sides_compute_the_same(name):
    rows = list(bench.compare(name, dict(model_info(name).tiny), **SMALL))
    assert [(r.run, r.size) for r in rows[:2]] == [("forward", (32, 48)), ("training", (32, 32))]
    for row in rows:
        assert row.difference < 1e-4
        assert min(row.paper_s, row.here_s, row.paper_memory, row.here_memory) > 0


def test_checkpointing_is_a_row_of_its_own():
    _, training, checkpointed = bench.compare("drsformer", dict(model_info("drsformer").tiny), **SMALL)
    assert (checkpointed.network, checkpointed.run) == ("drsformer checkpoint", "training")
    assert checkpointed.paper_s == training.paper_s  # measured once, both beside it
    assert checkpointed.here_memory < training.here_memory < training.paper_memory


def test_runs_take_turns_and_the_best_counts(monkeypatch):
    clock, turns = 0.0, []

    def run(name, durations):
        def go():
            nonlocal clock
            turns.append(name)
            clock += next(durations)
            return torch.zeros(1)

        return go

    monkeypatch.setattr(bench.time, "process_time", lambda: clock)
    runs = [run("a", iter([9, 3, 2])), run("b", iter([9, 1, 5]))]
    (a, _, _), (b, _, _) = bench.measure(runs, torch.device("cpu"), repeats=2, compiled=False, clock=False)
    assert turns == ["a", "b", "a", "b", "a", "b"]
    assert (a, b) == (2, 1)


def test_precision_is_that_of_our_side_alone(monkeypatch):
    dtypes = []

    def noted(self, x):
        dtypes.append(nn.functional.conv2d(x, self.weight, self.bias, padding=1).dtype)
        return x

    monkeypatch.setattr(bench, "create_model", lambda *_, **__: nn.Conv2d(3, 3, 3, padding=1))
    monkeypatch.setattr(bench, "literal", lambda name, net, arguments: nn.Conv2d(3, 3, 3, padding=1))
    monkeypatch.setattr(nn.Conv2d, "forward", noted)
    next(bench.compare("nafnet", precision="bf16", **SMALL))
    assert set(dtypes[::2]) == {torch.float32}
    assert set(dtypes[1::2]) == {torch.bfloat16}


def test_table_has_a_line_for_each_row(capsys):
    bench.main(["nafnet", "drsformer_plain", "--tiny", "--size", "32", "32", "--patch", "16", "16", "--repeats", "1"])
    machine, header, *lines = capsys.readouterr().out.splitlines()
    assert "torch" in machine
    assert header.split() == list(bench.HEADER)
    assert [tuple(text.split()[:2]) for text in lines[:3]] == [
        ("nafnet", "forward"),
        ("nafnet", "training"),
        ("drsformer_plain", "forward"),
    ]
    assert len(lines) == 5
    assert all("x " in text and "%" in text for text in lines)


def test_network_without_a_literal_formulation_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["prenet"])
    assert "no literal formulation of prenet" in capsys.readouterr().err
