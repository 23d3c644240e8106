"""MANAS against recordings of the published network, and the places that a supernet fills."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from derainzoo import create_model, model_info
from derainzoo.errors import DerainzooError
from derainzoo.losses import many_to_one
from derainzoo.models.manas import MANAS, OFFICIAL, OPERATIONS, Fusion, Parallel, make_op
from golden import GOLDEN, fill
from searched import Candidates, check_derivation, create_on_meta, macs, parameters

FOLDER = GOLDEN / "manas"
NAMES = list(OPERATIONS)
RECORDED = np.load(FOLDER / "derived.npz")
NETWORKS = sorted({key.split("/")[0] for key in RECORDED.files})
MIX = ["sep+dil+sep_spatial", "dil_spatial+se+se_max", "cbam+skip+none"]
INPUTS = {
    key: torch.from_numpy(np.random.default_rng(7).random(shape, dtype=np.float32))
    for key, shape in (("A", (1, 3, 64, 64)), ("B", (2, 3, 48, 80)))
}


def published_shapes(bits: Iterable[int], commit: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the published state dict of an architecture."""
    cells = "".join("PF"[bit] for bit in bits)
    shapes = {}
    with (FOLDER / "state_dict.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            cell = re.match(r"stage([234])\.(\d)\.", row["key"])
            here = cells[4 * (int(cell[1]) - 2) + int(cell[2])] if cell else ""
            if row["present"] in ("always", here, commit):
                shapes[row["key"]] = tuple(int(n) for n in row["shape"].split("x") if n)
    return shapes


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """All published tensors, filled once; they depend on their names alone. Keys of the `stage1` commit have it in front."""
    shapes = published_shapes([0] * 12, "release") | published_shapes([1] * 12, "release")
    other = published_shapes([0] * 12, "stage1")
    tensors = fill(shapes)
    return tensors | {f"stage1:{k}": t for k, t in fill({k: s for k, s in other.items() if s != shapes[k]}).items()}


def load(name: str, weights: dict[str, Tensor]) -> tuple[MANAS, dict[str, Tensor], list[str]]:
    """The recorded network as ours, the published state dict, and its keys that nothing reads."""
    commit = name.split("_")[0]
    shapes = published_shapes(RECORDED[f"{name}/arch"], commit)
    state = {key: weights.get(f"{commit}:{key}", weights[key]) for key in shapes}
    model, arguments = OFFICIAL.infer(shapes)
    rows = RECORDED[f"{name}/rows"].reshape(3, 3)
    net = create_model(model, **(arguments | {"operations": ["+".join(NAMES[i] for i in row) for row in rows]}))
    ours, dead = OFFICIAL.translate(state, net.state_dict())
    net.load_state_dict(ours)
    return net.eval(), state, dead


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_recordings(name, weights):
    net, _, _ = load(name, weights)
    for key, x in INPUTS.items():
        truth = torch.from_numpy(RECORDED[f"{name}/{key}"])
        with torch.inference_mode():
            single, double = net.float()(x), net.double()(x.double())
        assert (double[..., ::8, ::8] - truth).abs().max() < 1e-10
        assert (single - double).abs().max() < 1e-5 * double.abs().max()


@pytest.mark.shared
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_full_recordings(name, weights, shared: Path):
    net, _, _ = load(name, weights)
    recorded = np.load(shared / "golden" / "manas" / f"{name}.npz")
    for key, x in INPUTS.items():
        with torch.inference_mode():
            single, double = net.float()(x), net.double()(x.double())
        assert np.abs(double.numpy() - recorded[f"out64_{key}"]).max() < 1e-10
        assert np.abs(single.numpy() - recorded[f"out32_{key}"]).max() < 1e-5 * double.abs().max()


def test_training_equals_the_recording(weights):
    recorded = np.load(FOLDER / "train.npz")
    g = np.random.default_rng(13)
    images, targets = (torch.from_numpy(g.random((n, 3, 32, 32), dtype=np.float32)).double() for n in (6, 2))
    net, _, _ = load("release_mix", weights)
    net.double().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step, epoch in enumerate((0, 5, 5)):
        output = net(images)
        loss = many_to_one.restoration(output, targets, epoch)
        optimizer.zero_grad()
        loss.backward()
        assert abs(loss.item() - recorded["losses"][step]) < 1e-10
        if step == 0:
            assert (output[..., ::4, ::4].detach() - torch.from_numpy(recorded["output"])).abs().max() < 1e-10
            norms = {OFFICIAL.rename(str(k)): n for k, n in zip(recorded["grad_keys"], recorded["grad_norms"], strict=True)}
            parameters = dict(net.named_parameters())
            assert norms.keys() == parameters.keys()  # what trains there trains here, and there is nothing else
            for key, norm in norms.items():
                assert abs(parameters[key].grad.norm().item() - norm) < 1e-10 * max(norm, 1), key
            state = net.state_dict()
            for key in recorded.files:
                if key.startswith("bn|"):
                    assert (state[OFFICIAL.rename(key[3:])] - torch.from_numpy(recorded[key])).abs().max() < 1e-12
        optimizer.step()


def is_parameter(key: str) -> bool:
    return not key.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.mark.parametrize(
    ("name", "published"),
    [("release_allF_cbam", 4_991_559), ("release_allH_skip", 9_353_287), ("stage1_mix", 7_280_423)],
)
def test_published_parameters_are_ours_and_the_dead_ones(name, published, weights):
    net, state, dead = load(name, weights)
    assert parameters(net) + sum(state[k].numel() for k in dead if is_parameter(k)) == published
    # what is dead is what the forward of the published code never reaches
    assert all(k.startswith("auto") or (k.startswith("stage1.") and name.startswith("release")) for k in dead)
    cells = "".join("PF"[bit] for bit in RECORDED[f"{name}/arch"])
    per_cell = {"P": (92_544, 387_968, 1_568_640), "F": (20_672, 153_536, 784_512)}
    fixed = 1_156_679 if name.startswith("release") else 1_264_679
    assert published == fixed + sum(per_cell[cell][i // 4] for i, cell in enumerate(cells))


@pytest.mark.parametrize(
    ("arguments", "giga"),
    [
        ({"cells": "PFPF FPFP PFFP"}, 30.65),
        ({"cells": "PPPP PPPP PPPP"}, 45.91),
        ({"cells": "FFFF FFFF FFFF"}, 15.39),
        ({"cells": "PFPF FPFP PFFP", "stem": True}, 36.23),
    ],
)
def test_macs_are_the_published_ones(arguments, giga):
    assert round(macs(create_on_meta("manas", operations=MIX, **arguments)) / 1e9, 2) == giga


def test_facts_of_the_registry():
    net, info = create_on_meta("manas"), model_info("manas")
    assert (parameters(net), macs(net)) == (info.params, info.macs)
    assert info.multiple_of == MANAS.multiple_of


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("none", (0, 0, 0, 0)),
        ("skip", (0, 0, 0, 0)),
        ("sep", (800, 2624, 9344, 35072)),
        ("dil", (400, 1312, 4672, 17536)),
        ("sep_spatial", (42,) * 4),
        ("dil_spatial", (19,) * 4),
        ("se", (128, 512, 2048, 8192)),
        ("se_max", (128, 512, 2048, 8192)),
        ("cbam", (248, 652, 2228, 8452)),
    ],
)
def test_parameters_of_operations(name, counts):
    assert tuple(parameters(make_op(name, c)) for c in (16, 32, 64, 128)) == counts


def test_operations_in_short_form_are_spread_over_branches():
    keys = _keys(MIX)
    assert keys == _keys([MIX[0]] * 2 + [MIX[1]] * 3 + [MIX[2]] * 4)
    assert any(k.startswith("stages.2.attentions.3.edges.0.cbam.") for k in keys)
    one = _keys("se+none+skip")
    assert sum(".edges." in k for k in one) == 9 * 2  # two matrices on the first edge of nine attentions, nothing elsewhere


def _keys(operations) -> list[str]:
    return list(create_on_meta("manas", width=8, operations=operations).state_dict())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cells": "PFPF"}, "expected 12 letters .* found 4"),
        ({"cells": "PFPF PFPF PFPX"}, "found the letters X"),
        ({"operations": "sep+dil"}, "expected 3 names"),
        ({"operations": ["sep+dil+skip"] * 4}, r"1 \(for all\) or 3 \(one a stage\) or 9 \(one an attention\), found 4"),
        ({"operations": "sep+dill+skip"}, "unknown edge 1 of manas 'dill'. Did you mean 'dil'"),
        ({"width": 7}, "even number .* found 7"),
    ],
)
def test_errors_say_what_was_expected(arguments, words):
    with pytest.raises(DerainzooError, match=words):
        create_model("manas", **arguments)


def test_published_weights_do_not_tell_the_operations():
    name, arguments = OFFICIAL.infer(published_shapes([0, 1] * 6, "stage1"))
    assert (arguments["cells"], arguments["stem"], arguments["width"]) == ("PFPFPFPFPFPF", True, 32)
    with pytest.raises(DerainzooError, match="do not tell which were chosen"):
        create_model(name, **arguments)


def test_unknown_operation():
    with pytest.raises(DerainzooError, match="'cbam'"):
        make_op("cbma", 16)


def test_derived_network_is_the_supernet_less_what_was_not_chosen():
    torch.manual_seed(0)
    cells, rows = "FPPF PFFP PPFF", [f"{NAMES[i]}+{NAMES[i - 3]}+{NAMES[2 * i % 9]}" for i in range(9)]
    letters, names = cells.replace(" ", ""), "+".join(rows).split("+")

    def cell(place, widths):
        active = "parallel" if letters[place] == "P" else "fusion"
        return Candidates({"parallel": Parallel(widths), "fusion": Fusion(widths)}, active)

    def edge(place, channels):
        return Candidates({name: make_op(name, channels) for name in NAMES}, names[place])

    derived = create_model("manas", width=8, cells=cells, operations=rows)
    check_derivation(MANAS(8, False, cell, edge), derived, torch.rand(1, 3, 24, 40))


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (8, 8), (9, 17), (24, 13)])
def test_any_size(size):
    net = create_model("manas", width=8, operations=MIX).eval()
    x = torch.rand(2, 3, *size)
    with torch.inference_mode():
        y = net(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_padding_mirrors_right_and_bottom():
    net = create_model("manas", width=8).eval()
    x = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():
        # 33 rows and columns grow to 40
        padded = torch.nn.functional.pad(x[..., :33, :33], (0, 7, 0, 7), mode="reflect")
        assert torch.equal(net(x[..., :33, :33]), net(padded)[..., :33, :33])


def test_smallest_image_that_trains():
    net = create_model("manas", width=8).train()
    net(torch.rand(2, 3, 8, 8)).mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(torch.rand(1, 3, 8, 8))
