"""Profiles of networks: counts are exact, times are of the runs alone, memory is that of the tensors."""

import csv
import dataclasses

import pytest
import torch

from derainzoo import model_info
from derainzoo.bench import profile as profiling
from derainzoo.bench.profile import ProfileRow, profile_network
from derainzoo.errors import DerainzooError
from derainzoo.inference.memory import LiveBytes
from derainzoo.nas.cost import count
from tasks import configured

QUICK = {"warmup": 0, "repeats": 2, "device": "cpu"}
PRN = dict(model_info("prn").tiny)


def test_counts_are_those_of_the_registry():
    info = model_info("prn")
    assert count("prn", None, (256, 256)) == (info.params, info.macs)
    row = profile_network("prn", PRN, size=(20, 30), training=False, **QUICK)
    assert (row.params, row.macs) == count("prn", PRN, (20, 30))
    assert (row.height, row.width, row.device, row.precision) == (20, 30, "cpu", "fp32")


def test_rows_are_consistent():
    row = profile_network("prn", PRN, size=(32, 32), batch=2, **QUICK)
    assert row.images_per_s == pytest.approx(2000 / row.forward_ms)
    assert row.training_ms > row.forward_ms
    assert row.training_memory > row.forward_memory > 2 * 3 * 32 * 32 * 4
    without = profile_network("prn", PRN, size=(32, 32), training=False, **QUICK)
    assert (without.training_ms, without.training_spread_ms, without.training_memory) == (None, None, None)


def test_memory_grows_with_the_batch_and_shrinks_with_the_precision():
    one, two = (profile_network("prn", PRN, size=(32, 32), batch=n, training=False, **QUICK) for n in (1, 2))
    assert two.forward_memory == 2 * one.forward_memory
    half = profile_network("prn", PRN, size=(32, 32), training=False, precision="bf16", **QUICK)
    assert half.forward_memory < one.forward_memory


def test_live_bytes_are_counted_until_nobody_holds_them():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a + 1  # 8,000 bytes in two tensors
        view = b[:10]
        del a, b
        c = torch.zeros(500)  # b lives on in its view
    assert live.peak == 8000
    assert live.now == 4000 + 2000
    del view, c
    assert live.now == 0


def test_gradients_and_saved_tensors_are_counted():
    x = torch.ones(1000, requires_grad=True)
    with LiveBytes() as live:
        y = x.exp()  # saved for backward
        z = y.sum()
        del y
        z.backward()
    assert live.peak >= 8000  # the saved result and the gradient
    assert live.now == 4000 + 4  # the gradient and z
    assert x.grad is not None


def test_warm_up_does_not_count(monkeypatch):
    now, lengths = [0.0], iter([9, 9, 1, 2, 3])

    def run():
        now[0] += next(lengths)

    monkeypatch.setattr(profiling.time, "perf_counter", lambda: now[0])
    assert profiling._times(run, torch.device("cpu"), warmup=2, repeats=3) == [1000, 2000, 3000]
    assert profiling._spread([1000, 2000, 3000]) == 1000
    assert profiling._spread([5.0]) == 0


def test_random_numbers_of_others_are_not_touched():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    profile_network("prn", PRN, size=(8, 8), training=False, **QUICK)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"device": "cpx"}, "device=cpx is not to be had here"),
        ({"repeats": 0}, "positive numbers expected.*repeats=0"),
        ({"size": (0, 8)}, r"positive numbers expected.*size=\(0, 8\)"),
        ({"size": (1_000_000, 1_000_000)}, "prn does not fit into the memory of cpu with 1 image of 1000000 x 1000000"),
    ],
)
def test_mistakes_are_explained(arguments, words):
    with pytest.raises(DerainzooError, match=words):
        profile_network("prn", PRN, **{**QUICK, "size": (8, 8), **arguments})


def test_task_measures_every_combination(tmp_path, capsys):
    table = tmp_path / "new" / "table.csv"
    words = [
        "profile",
        "models=[prn,prn_r]",
        "size=[[8,8],[9,12]]",
        "devices=[cpu]",
        "precisions=[fp32,bf16]",
        "training=false",
    ]
    result = profiling.profile(configured(*words, "repeats=1", "warmup=0", f"csv={table}"))
    assert [(r["network"], r["height"], r["precision"]) for r in result["rows"]] == [
        (name, height, precision) for name in ("prn", "prn_r") for height in (8, 9) for precision in ("fp32", "bf16")
    ]
    assert result["machine"]["threads"] == torch.get_num_threads()
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == [f.name for f in dataclasses.fields(ProfileRow)]
    assert [float(r["forward_ms"]) for r in rows] == [r["forward_ms"] for r in result["rows"]]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["network", "size", "device", "precision"]
    assert lines[2].split()[:6] == ["prn", "8x8", "cpu", "fp32", "0.095", "M"]
    assert len(lines) == 2 + 8


def test_task_takes_one_network_with_its_arguments():
    result = profiling.profile(configured("profile", "prn", "model.features=8", "size=[8,8]", "repeats=1", "warmup=0"))
    (row,) = result["rows"]
    assert row["params"] == count("prn", {"features": 8}, (8, 8))[0]
    with pytest.raises(DerainzooError, match="height and width expected"):
        profiling.profile(configured("profile", "prn", "size=[8]"))


@pytest.mark.slow
def test_compiled_networks_are_measured():
    row = profile_network("prn_r", dict(model_info("prn_r").tiny), size=(16, 16), compile=True, **{**QUICK, "warmup": 1})
    assert row.compiled
    assert row.forward_ms > 0
    assert row.forward_memory is None  # compiled code does not pass by the operators that are counted


@pytest.mark.gpu
def test_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    row = profile_network("prn", PRN, size=(64, 64), precision="fp16", warmup=2, repeats=5, device="cuda")
    assert row.forward_ms > 0
    assert row.training_memory > row.forward_memory > 0
