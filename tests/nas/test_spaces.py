"""Supernets of both systems: the published one of MANAS to the last digit, derivation, costs."""

import csv
import re

import numpy as np
import pytest
import torch

from derainzoo import create_model
from derainzoo.engine.searcher import make_architecture, make_space
from derainzoo.errors import DerainzooError
from derainzoo.losses import many_to_one
from derainzoo.models import autoderain, manas
from derainzoo.nas.architecture import Relaxed
from derainzoo.nas.cost import count_parameters
from derainzoo.nas.genotype import Genotype
from derainzoo.nas.slots import Slot, slots_of
from derainzoo.nas.spaces import SPACES, AutoDerainSpace, ManasSpace
from golden import GOLDEN, fill
from runs import compose_words

SMALL = {"manas": {"width": 8}, "autoderain": {"width": 8, "blocks": [1, 2, 1]}}


def published_supernet(space):
    """Ours with the recording's weights. Its keys are those of the derived network, cells under a name of their own."""
    shapes = {}
    with (GOLDEN / "manas" / "state_dict.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["present"] != "release":
                key = re.sub(r"^(stage[234]\.\d\.)(branches|fuse_layers)", _cell_key, row["key"])
                shapes[key] = tuple(int(n) for n in row["shape"].split("x") if n)
    assert len(shapes) == 2449
    net = space.supernet()
    state = {re.sub(r"\.(horizontal|fuse)\.", ".", key): tensor for key, tensor in fill(shapes).items()}
    net.load_state_dict({manas.OFFICIAL.rename(key): tensor for key, tensor in state.items()})
    return net.double().eval()


def _cell_key(match):
    return match[1] + {"branches": "horizontal.branches", "fuse_layers": "fuse.fuse_layers"}[match[2]]


def settings_of(mode):
    """`search` of a configured search of MANAS; the published code has its complexity term commented out."""
    return compose_words("unused", "search", "model=manas", f"search.mode={mode}", "search.complexity=0").search


def test_the_published_supernet_its_losses_and_gradients():
    """What `search.mode=faithful` searches, against recordings of the published code in float64."""
    recorded = {key: torch.from_numpy(a) for key, a in np.load(GOLDEN / "manas" / "supernet.npz").items()}
    settings = settings_of("faithful")
    space = make_space("manas", {"stem": True}, settings)
    net = published_supernet(space)
    architecture = make_architecture(space, net, settings, seed=0).double()
    for kind, alpha in architecture.alphas.items():
        alpha.data.copy_(recorded[kind])
    architecture.settle()
    with torch.no_grad():
        output = net(torch.from_numpy(np.random.default_rng(7).random((1, 3, 64, 64), dtype=np.float32)).double())
    assert (output[..., ::4, ::4] - recorded["output"]).abs().max() < 1e-8
    g = np.random.default_rng(17)
    x, y = (torch.from_numpy(g.random((n, 3, 32, 32), dtype=np.float32)).double() for n in (3, 1))
    net.requires_grad_(False)
    for epoch in (0, 5):
        architecture.probe(0)
        loss = many_to_one.restoration(net(x), y, epoch)
        loss = loss + sum(weight * value for weight, value in architecture.terms().values())
        loss.backward()
        assert (loss - recorded[f"loss{epoch}"]).abs() < 1e-8
        for kind, alpha in architecture.alphas.items():
            assert (alpha.grad - recorded[f"{kind}{epoch}"]).abs().max() < 1e-8


def test_edges_are_weighed_by_softmax_unless_faithful():
    alphas = torch.linspace(-1, 2, 9)
    for mode, weights in (("fixed", alphas.softmax(0)), ("faithful", alphas)):
        settings = settings_of(mode)
        space = make_space("manas", SMALL["manas"], settings)
        net = space.supernet()
        architecture = make_architecture(space, net, settings, seed=0)
        for alpha in architecture.alphas.values():
            alpha.data.copy_(torch.linspace(-1, 2, alpha.shape[1]))
        architecture.settle()
        slots = slots_of(net)
        for slot in slots["edge"].values():
            torch.testing.assert_close(slot.weights, weights)
        for slot in slots["cell"].values():  # softmax in both
            torch.testing.assert_close(slot.weights, torch.tensor([-1.0, 2.0]).softmax(0))


@pytest.mark.parametrize(
    ("space", "same"),
    [
        (AutoDerainSpace(SMALL["autoderain"]), True),
        (ManasSpace(SMALL["manas"]), True),
        (ManasSpace(SMALL["manas"], published=True), False),  # its fusion sees what the parallel cell returned
    ],
)
def test_a_mixture_that_has_decided_is_the_derived_network(space, same):
    torch.manual_seed(0)
    net = space.supernet().eval()
    chosen = choose(net)
    assert "fusion" in chosen.values() or space.system == "autoderain"
    x = torch.rand(1, 3, 16, 24)
    outputs = []
    for mixed in (False, True):
        for slots in slots_of(net).values():
            for name, slot in slots.items():
                k = slot.names.index(chosen[name])
                if mixed:
                    slot.blend(torch.eye(len(slot.names))[k])
                else:
                    slot.take(k)
        with torch.inference_mode():
            outputs.append(net(x))
    assert torch.allclose(*outputs, rtol=0, atol=1e-5) == same


def test_complexity_is_the_published_term():
    for published in (False, True):
        space = ManasSpace({"width": 8}, published)
        net = space.supernet()
        architecture = Relaxed(net, space.costs(net), seed=0, complexity=1.0)
        for alpha in architecture.alphas.values():
            alpha.data.normal_()
        cells, edges = architecture.alphas["cell"], architecture.alphas["edge"]
        torch.testing.assert_close(architecture.terms()["complexity"][1], many_to_one.complexity(cells, edges, published))


def choose(net, seed=0):
    """Any candidates, in the order of the network."""
    rng = np.random.default_rng(seed)
    return {name: str(rng.choice(slot.names)) for name, slot in net.named_modules() if isinstance(slot, Slot)}


@pytest.mark.parametrize("system", SPACES)
def test_the_derived_network_is_the_supernet_on_its_path(system):
    torch.manual_seed(0)
    space = SPACES[system](SMALL[system])
    net = space.supernet().eval()
    chosen = choose(net)
    for slots in slots_of(net).values():
        for name, slot in slots.items():
            slot.take(slot.names.index(chosen[name]))
    genotype = space.genotype(chosen, seed=3, steps=5)
    assert (genotype.seed, genotype.search) == (3, {"steps": 5})
    derived = create_model(system, **genotype.model_arguments()).eval()
    everything = net.state_dict()
    derived.load_state_dict({key: everything[key] for key in derived.state_dict()})
    x = torch.rand(1, 3, 19, 24)
    with torch.inference_mode():
        assert torch.equal(derived(x), net(x))


def test_published_derivation_takes_three_rows_for_all():
    fixed, published = ManasSpace({"width": 8}), ManasSpace({"width": 8}, published=True)
    chosen = choose(fixed.supernet())
    rows = fixed.derive(chosen)["operations"]
    assert len(rows) == 9
    genotype = published.genotype(chosen)
    # branches of stages 2, 3, 4 get what was searched for stage 2 branch 0, stage 2 branch 1, stage 3 branch 0
    assert genotype.choices["operations"] == [rows[0]] * 2 + [rows[1]] * 3 + [rows[2]] * 4
    assert genotype.choices["cells"] == fixed.genotype(chosen).choices["cells"]


def test_costs_are_shares_of_parameters():
    space = AutoDerainSpace({"width": 32, "blocks": [1, 1, 1]})
    net = space.supernet()
    costs = space.costs(net)
    assert costs["conv"].shape == (10, 6)
    torch.testing.assert_close(costs["conv"].sum(1), torch.ones(10))
    counted = [9_248, 25_632, 9_248, 9_248, 1_344, 1_856]
    torch.testing.assert_close(costs["conv"][0], torch.tensor(counted) / sum(counted))
    torch.testing.assert_close(costs["se"][0], torch.tensor([0, 292]) / sum(counted))
    assert (costs["se"] < 0.01).all()


def test_sizes_of_supernets():
    with torch.device("meta"):
        assert round(count_parameters(AutoDerainSpace({}).supernet()) / 1e6, 2) == 9.53
        # the published one has 128 cells in its second stage and uses four of them; counted with four, it is as large
        assert count_parameters(ManasSpace({"stem": True}).supernet()) == 13_296_167


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        (["conv3", "conv7"], "unknown candidate convolution of autoderain 'conv7'"),
        (["conv3"], "two or more different"),
        (["conv3", "conv3"], "two or more different"),
    ],
)
def test_errors_of_candidates(candidates, words):
    with pytest.raises(DerainzooError, match=words):
        AutoDerainSpace({}, candidates)


def test_what_is_searched_for_does_not_count():
    space = AutoDerainSpace({"width": 8, "blocks": [1, 1, 1], "operations": "sep3+sep3+id"}, ["dil2", "dil4"])
    net = space.supernet()
    assert {tuple(slot.names) for slot in slots_of(net)["conv"].values()} == {("dil2", "dil4")}
    assert set(autoderain.ATTENTIONS) == set(next(iter(slots_of(net)["se"].values())).names)
    genotype = space.genotype({name: "dil2" if "conv" in name else "id" for name in choose(net)})
    assert genotype == Genotype("autoderain", {"width": 8, "blocks": [1, 1, 1], "operations": "dil2+dil2+id"})
