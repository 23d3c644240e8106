"""Steps of the alphas: projections, scales, readings, and whether a planted operation is found."""

import pytest
import torch
from torch import nn

from derainzoo.errors import DerainzooError
from derainzoo.models.autoderain import make_op
from derainzoo.nas.architecture import READINGS, Proximal, Relaxed, SlotNormalised
from derainzoo.nas.slots import Slot

NAMES = ("conv3", "dil2", "dil3", "dil4")


def architecture(rows=3, **settings):
    net = nn.Sequential(*(Slot("conv", {name: make_op(name, 4) for name in NAMES}) for _ in range(rows)))
    costs = torch.tensor([0.1, 0.2, 0.3, 0.4]).repeat(rows, 1)
    return net, Proximal(net, {"conv": costs}, seed=0, **settings)


def put(arch, rows):
    arch.alphas["conv"].data.copy_(torch.tensor(rows))
    arch.project(0.0)


def test_projections_are_one_hot_in_the_box_and_repeat_themselves():
    _, arch = architecture()
    put(arch, [[1.7, 0.2, -0.4, 0.1], [0.1, 0.2, 0.3, 0.9], [-1.0, -0.5, -2.0, -0.1]])
    alphas, chosen = arch.alphas["conv"].detach().clone(), arch.choices()["conv"].clone()
    assert alphas.min() >= 0
    assert alphas.max() <= 1
    assert chosen.tolist()[:2] == [0, 3]
    arch.probe(0)
    gates = arch.gates["conv"]
    assert torch.equal(gates.sum(1), torch.ones(3))
    assert set(gates.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(gates.argmax(1), chosen)
    arch.project(0.0)
    assert torch.equal(arch.alphas["conv"], alphas)
    assert torch.equal(arch.choices()["conv"], chosen)


def test_a_tie_keeps_what_was_active():
    _, arch = architecture()
    put(arch, [[0.1, 0.2, 0.9, 0.3], [0.9, 0.1, 0.1, 0.1], [0.3, 0.1, 0.1, 0.8]])
    put(arch, [[0.5, 0.5, 0.5, 0.1], [0.2, 0.2, 0.2, 0.2], [1.4, 1.2, 0.5, 2.0]])  # the last row is a tie once it is clipped
    assert arch.choices()["conv"].tolist() == [2, 0, 3]
    put(arch, [[0.5, 0.6, 0.5, 0.1], [0.2, 0.2, 0.2, 0.21], [1.4, 1.2, 0.5, 0.9]])
    assert arch.choices()["conv"].tolist() == [1, 3, 0]


def test_a_slot_has_one_scale():
    """The first step of a slot moves by lr times its gradient over its root mean square, however large the gradient is."""
    gradient = torch.tensor([[1.0, -1.0, 2.0, -2.0], [1e-6, -1e-6, 2e-6, -2e-6]])
    alphas = nn.Parameter(torch.zeros(2, 4))
    optimizer = SlotNormalised([alphas], lr=0.1)
    alphas.grad = gradient.clone()
    optimizer.step()
    expected = -0.1 * torch.tensor([1.0, -1.0, 2.0, -2.0]) / 2.5**0.5
    torch.testing.assert_close(alphas.detach(), expected.repeat(2, 1), rtol=1e-4, atol=0)
    # and after many steps the means forget where they began: a steady gradient still moves by as much
    before = alphas.detach().clone()
    for _ in range(50):
        before = alphas.detach().clone()
        optimizer.step()
    torch.testing.assert_close(alphas.detach() - before, expected.repeat(2, 1), rtol=1e-4, atol=0)


def test_cost_pulls_towards_cheap_candidates_and_leaves_the_sum():
    _, arch = architecture(complexity=0.5)
    put(arch, [[0.5, 0.5, 0.5, 0.5]] * 3)
    arch.project(0.1)
    torch.testing.assert_close(arch.alphas["conv"][0].detach() - 0.5, -0.05 * (arch.costs["conv"][0] - 0.25))
    assert arch.choices()["conv"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("reading", READINGS)
def test_gradients_are_centred_over_what_was_probed(reading):
    net, arch = architecture(reading=reading)
    arch.probe(4)
    net(torch.rand(1, 4, 8, 8)).square().sum().backward()
    raw = arch.gates["conv"].grad.clone()
    arch.collect()
    gradient = arch.alphas["conv"].grad
    for row, slot in enumerate(net):
        probed = list(range(4)) if reading == "nasp" else list(slot.probes)
        shift = raw[row, probed].mean() if len(probed) > 1 else 0
        torch.testing.assert_close(gradient[row, probed], raw[row, probed] - shift)
        assert gradient[row].any()
        assert not gradient[row, [k for k in range(4) if k not in probed]].any()
    with pytest.raises(DerainzooError, match="unknown reading of MDARTS 'ehco'. Did you mean 'echo'"):
        architecture(reading="ehco")


def test_paths_follow_from_seed_and_step():
    net, arch = architecture(rows=20)

    def path(step):
        arch.explore(step)
        return [slot.active for slot in net]

    assert path(3) == path(3)
    paths = [path(step) for step in range(100)]
    assert len({tuple(p) for p in paths}) == 100
    counts = torch.tensor(paths).flatten().bincount(minlength=4)
    assert (counts - 500).abs().max() < 5 * 500**0.5
    before = arch.choices()["conv"].clone()
    arch.settle()  # warm-up has decided nothing
    assert [slot.active for slot in net] == before.tolist() == arch.choices()["conv"].tolist()


def test_a_relaxed_slot_runs_the_mixture_that_its_alphas_say():
    torch.manual_seed(0)
    net = nn.Sequential(Slot("conv", {name: make_op(name, 4) for name in NAMES}))
    costs = {"conv": torch.tensor([[0.1, 0.2, 0.3, 0.4]])}
    arch = Relaxed(net, costs, seed=0, complexity=2.0, entropy=0.5)
    arch.alphas["conv"].data.copy_(torch.tensor([[0.0, 1.0, 2.0, -1.0]]))
    x = torch.rand(1, 4, 8, 8)
    arch.settle()
    weights = torch.tensor([0.0, 1.0, 2.0, -1.0]).softmax(0)
    expected = sum(w * net[0][name](x) for w, name in zip(weights, NAMES, strict=True))
    torch.testing.assert_close(net(x), expected)
    assert arch.chosen() == {"0": "dil3"}
    arch.probe(0)
    net(x).sum().backward()
    assert arch.alphas["conv"].grad.abs().min() > 0
    terms = arch.terms()
    assert terms["complexity"][0] == 2.0
    torch.testing.assert_close(terms["complexity"][1], (weights * costs["conv"][0]).sum())
    assert terms["entropy_conv"][0] == 0.5


class Planted:
    """One slot that is to imitate one of its own candidates."""

    def __init__(self, seed, size=16, c=8):
        torch.manual_seed(1000 + seed)
        self.truth = NAMES[seed % 4]
        self.teacher = make_op(self.truth, c).requires_grad_(False)
        torch.manual_seed(seed)
        self.net = nn.Sequential(Slot("conv", {name: make_op(name, c) for name in NAMES}))
        self.generator = torch.Generator().manual_seed(7 + seed)
        self.shape = (8, c, size, size)

    def loss(self):
        x = torch.randn(self.shape, generator=self.generator)
        y = self.teacher(x)
        noisy = y + 0.05 * torch.randn(y.shape, generator=self.generator)
        return (self.net(x) - noisy).square().mean()


def search(planted, arch, warmup=200, steps=300, every=1):
    weights = torch.optim.Adam(planted.net.parameters(), 4e-3)
    optimizer = arch.optimizer(0.02)
    flips, last = 0, None
    for step in range(warmup + steps):
        if step < warmup:
            arch.explore(step)
        else:
            planted.net.requires_grad_(False)
            arch.probe(step)
            planted.loss().backward()
            planted.net.requires_grad_(True)
            arch.collect()
            optimizer.step()
            arch.project(0.02)
            arch.settle()
            flips += last is not None and last != arch.chosen()
            last = arch.chosen()
        weights.zero_grad(set_to_none=True)
        planted.loss().backward()
        weights.step()
    return arch.chosen()["0"] == planted.truth, flips


@pytest.mark.slow
@pytest.mark.parametrize("method", ["echo", "pair", "nasp", "darts"])  # `active` finds five of eight (docs/search.md)
def test_a_planted_operation_is_found(method):
    found, flips = 0, 0
    for seed in range(8):
        planted = Planted(seed)
        costs = {"conv": torch.zeros(1, 4)}
        arch = Relaxed(planted.net, costs, seed) if method == "darts" else Proximal(planted.net, costs, seed, method)
        right, changes = search(planted, arch)
        found += right
        flips += changes
    print(f"{method}: {found} of 8 found, {flips / 8:.1f} changes of mind each")
    assert found >= 7
