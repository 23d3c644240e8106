"""ELF against recordings of the published network."""

import json

import numpy as np
import pytest
import torch

from derainzoo.losses.weighted import WeightedLoss
from derainzoo.models.elf import OFFICIAL, column_major_shuffle
from derainzoo.models.registry import create_model
from golden import GOLDEN, fill, read_shapes

# published file -> our name
VARIANTS = {"elf3": "elf", "elf_lw": "elf_lw", "elf_head": "elf_head"}
LOSS = {
    "charbonnier": {"weight": 0.3},
    "charbonnier_half": {"name": "charbonnier", "weight": 0.24, "field": "half"},
    "edge": {"weight": 0.2},
    "edge_half": {"name": "edge", "weight": 0.16, "field": "half"},
    "ssim": {"weight": -0.15},
}


def published(variant):
    shapes = read_shapes(GOLDEN / "elf" / f"{variant}.keys.tsv")
    name, arguments = OFFICIAL.infer(shapes)
    net = create_model(name, **arguments)
    state, dead = OFFICIAL.translate(fill(shapes, float64_factor=True), net.state_dict())
    net.load_state_dict(state)
    return name, net, dead


def image(seed, shape):
    return torch.from_numpy(np.random.default_rng(seed).random(shape, np.float32))


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_equal_the_recorded_ones(variant):
    name, net, dead = published(variant)
    assert name == VARIANTS[variant]
    assert not dead
    golden = np.load(GOLDEN / "elf" / f"{variant}.npz")
    with torch.no_grad():
        full32 = net(image(7, (1, 3, 64, 64))).image
        net.double()
        one = net(image(7, (1, 3, 64, 64)).double())
        two = net(image(7, (2, 3, 48, 80)).double())
    np.testing.assert_allclose(full32, golden["full32"], rtol=0, atol=5e-4)
    for ours, theirs in [(one, ("full", "half")), (two, ("batch_full", "batch_half"))]:
        for output, key in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(output[-1:], golden[key], rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_equal_the_recorded_ones(variant):
    _, net, _ = published(variant)
    recorded = json.loads((GOLDEN / "elf" / f"{variant}.loss.json").read_text())
    total, terms = WeightedLoss(LOSS)(net(image(7, (1, 3, 64, 64))), image(8, (1, 3, 64, 64)))
    total.backward()
    assert total.item() == pytest.approx(recorded["total"], rel=1e-5)
    theirs = ["char_full", "char_half", "edge_full", "edge_half", "ssim_full"]
    assert [t.item() for t in terms.values()] == pytest.approx([recorded[k] for k in theirs], rel=1e-5)
    norms = {k: p.grad.norm().item() for k, p in net.named_parameters()}
    for key, norm in recorded["grad_l2"].items():
        assert norms[OFFICIAL.rename(key)] == pytest.approx(norm, rel=1e-3, abs=1e-5), key


def test_shuffle_has_the_column_offset_slow():
    x = torch.arange(4.0).view(1, 4, 1, 1)
    assert column_major_shuffle(x).flatten().tolist() == [0, 2, 1, 3]


def test_training_returns_both_resolutions_of_any_size():
    net = create_model("elf_lw", dim=8, blocks=1)
    output = net(torch.rand(2, 3, 37, 50))
    assert output.image.shape == (2, 3, 37, 50)
    assert output.half.shape == (2, 3, 19, 25)
    assert net.eval()(torch.rand(1, 3, 37, 50)).shape == (1, 3, 37, 50)
