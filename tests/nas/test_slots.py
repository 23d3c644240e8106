"""Slots: echoes are the gradients of a mixture at the one-hot point, in the memory of a path."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from derainzoo import create_model
from derainzoo.models.autoderain import SEARCHED, make_op
from derainzoo.models.manas import Fusion, Parallel
from derainzoo.nas.architecture import Proximal, Relaxed
from derainzoo.nas.cost import saved_bytes
from derainzoo.nas.slots import CellSlot, Slot, slots_of
from derainzoo.nas.spaces import AutoDerainSpace

SMALL = {"width": 8, "blocks": [1, 1, 1]}


def supernet(arguments=SMALL):
    torch.manual_seed(0)
    space = AutoDerainSpace(arguments)
    net = space.supernet()
    return space, net, space.costs(net)


def gate_gradients(net, costs, reading, x, y, step=0):
    """Of one step of the alphas, before they are centred."""
    architecture = Proximal(net, costs, seed=3, reading=reading)
    net.requires_grad_(False)
    architecture.probe(step)
    loss = F.mse_loss(net(x), y)
    loss.backward()
    net.requires_grad_(True)
    return loss.detach(), architecture


def test_echoes_are_the_gradients_of_the_mixture():
    _, net, costs = supernet()
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    loss, echo = gate_gradients(net, costs, "echo", x, y)
    mixed_loss, nasp = gate_gradients(net, costs, "nasp", x, y)
    torch.testing.assert_close(loss, mixed_loss)
    for kind, gates in echo.gates.items():
        truth = nasp.gates[kind].grad
        assert truth.abs().min() > 0
        assert (gates.grad - truth).abs().max() < 1e-5 * truth.abs().max()


def test_echoes_of_some_candidates_are_a_part_of_all():
    _, net, costs = supernet()
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    _, everything = gate_gradients(net, costs, "echo", x, y)
    active = everything.choices()
    for reading, probed in (("active", 1), ("pair", 2)):
        _, some = gate_gradients(net, costs, reading, x, y)
        for kind, gates in some.gates.items():
            assert ((gates.grad != 0).sum(1) == probed).all()
            assert gates.grad.gather(1, active[kind][:, None]).ne(0).all()
            there = gates.grad != 0
            assert torch.equal(gates.grad[there], everything.gates[kind].grad[there])
    drawn = {
        tuple(tuple(s.probes) for _, _, s in gate_gradients(net, costs, "pair", x, y, step)[1].rows()) for step in range(3)
    }
    assert len(drawn) == 3  # another partner at every step


def test_an_echoing_path_is_the_path_and_the_derived_network():
    space, net, costs = supernet()
    x = torch.rand(2, 3, 20, 12)
    architecture = Proximal(net, costs, seed=5)
    path = net(x)
    architecture.probe(0)
    assert torch.equal(net(x), path)
    derived = create_model("autoderain", **space.genotype(architecture.chosen()).model_arguments())
    everything, chosen = net.state_dict(), derived.state_dict()
    assert len(everything) > 2 * len(chosen)
    derived.load_state_dict({key: everything[key] for key in chosen})
    assert torch.equal(derived(x), path)


def test_weights_off_the_path_have_no_gradient_no_state_and_do_not_move():
    _, net, costs = supernet()
    architecture = Proximal(net, costs, seed=1)
    before = {name: p.clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.Adam(net.parameters(), 1e-2, weight_decay=0.1)
    for step in range(3):
        architecture.explore(step if step else 7)
        optimizer.zero_grad(set_to_none=True)
        net(torch.rand(1, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    used = set()
    for step in (7, 1, 2):
        architecture.explore(step)
        used |= {f"{name}.{slot.names[slot.active]}" for slots in slots_of(net).values() for name, slot in slots.items()}
    idle = 0
    for name, p in net.named_parameters():
        place = next((slot for slots in slots_of(net).values() for slot in slots if name.startswith(slot + ".")), None)
        if place is None or any(name.startswith(u + ".") for u in used):
            assert not torch.equal(p, before[name]), name
        else:
            idle += 1
            assert p.grad is None
            assert p not in optimizer.state
            assert torch.equal(p, before[name]), name
    assert idle > 20


def test_memory_of_a_search_step_is_that_of_one_network():
    """Saved for backward: fixed network, MDARTS's two steps and DARTS's. `se` on, as in the network made by hand."""
    space, net, costs = supernet({"width": 8, "blocks": [2, 2, 4]})
    x, y = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    fixed = create_model("autoderain", **space.arguments)

    def saved(network):
        return saved_bytes(network, lambda: F.l1_loss(network(x), y))

    architecture = Proximal(net, costs, seed=0)
    for kind, alpha in architecture.alphas.items():
        architecture.get_buffer(f"active_{kind}").fill_(
            architecture.candidates(kind).index({"conv": "conv3", "se": "se"}[kind])
        )
        assert alpha.shape[0] == {"conv": 24, "se": 12}[kind]
    architecture.settle()
    one = saved(fixed)
    assert saved(net) == one  # the weight step
    net.requires_grad_(False)
    architecture.probe(0)
    assert saved(net) <= 1.05 * one
    net.requires_grad_(True)
    relaxed = Relaxed(net, costs, seed=0)
    relaxed.probe(0)
    assert saved(net) >= 3 * one


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the resident set is Linux's account")
def test_the_tool_that_measures_memory():
    """Its table is in docs/search.md: a step of MDARTS takes at most 1.05 times one network, a step of DARTS three times."""
    file = Path(__file__).parents[2] / "tools" / "search_memory.py"
    spec = importlib.util.spec_from_file_location("search_memory", file)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    saved = {case: tool.measure(method, path, 8, 32, 2) for case, (method, path) in tool.CASES.items()}
    one, resident = saved["one network, conv3+conv3+se"]
    assert resident >= 0
    for case in ("weights, MDARTS (conv3+conv3+se)", "alphas, echo (conv3+conv3+se)", "alphas, pair", "alphas, active"):
        assert saved[case][0] <= 1.05 * one
    # without squeeze-and-excitation a path must keep what it would be given, but no more than with it
    assert saved["one network, conv3+conv3+id"][0] < saved["alphas, echo (conv3+conv3+id)"][0] <= 1.05 * one
    assert saved["alphas, echo (sep3+sep3+se)"][0] <= 1.05 * saved["one network, sep3+sep3+se"][0]
    for case in ("alphas, nasp", "alphas, DARTS"):
        assert saved[case][0] >= 3 * one


def test_the_meter_counts_what_is_kept():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    x = torch.rand(4, 8)
    # the input, and what the ReLU returned, which the second layer shares with it
    assert saved_bytes(net, lambda: net(x).sum()) == 4 * 8 * 4 * 2


@pytest.mark.parametrize("enabled", [True, False])
def test_echoes_under_autocast_use_the_same_arithmetic(enabled):
    torch.manual_seed(0)
    slot = Slot("conv", {name: make_op(name, 8) for name in SEARCHED})
    x, wanted = torch.rand(2, 8, 16, 16), torch.randn(2, 8, 16, 16)
    seen = []
    slot["dil2"].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    gates = F.one_hot(torch.tensor(0), len(SEARCHED)).float().requires_grad_()
    slot.take(0, gates, range(len(SEARCHED)))
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        y = slot(x)
    y.float().backward(wanted)
    assert seen == [torch.bfloat16 if enabled else torch.float32]
    assert gates.grad.dtype == torch.float32
    slot.take(0)
    truth = torch.stack([(slot.candidate(k)(x) * wanted).sum() for k in range(len(SEARCHED))])
    torch.testing.assert_close(gates.grad, truth, rtol=3e-2 if enabled else 1e-4, atol=1.0 if enabled else 1e-4)


@pytest.mark.parametrize("chained", [False, True])
def test_cells_mix_branch_by_branch(chained):
    torch.manual_seed(0)
    widths = [4, 8]
    slot = CellSlot("cell", {"parallel": Parallel(widths), "fusion": Fusion(widths)}, chained).eval()
    branches = [torch.rand(1, 4, 8, 8), torch.rand(1, 8, 4, 4)]
    weights = torch.tensor([0.3, 0.7])
    slot.blend(weights)
    p = slot["parallel"](branches)
    f = slot["fusion"](p if chained else branches)
    for got, a, b in zip(slot(branches), p, f, strict=True):
        torch.testing.assert_close(got, 0.3 * a + 0.7 * b)
    slot.take(1)
    assert all(map(torch.equal, slot(branches), slot["fusion"](branches)))


def test_se_is_neutral_when_the_search_meets_it_first():
    _, net, _ = supernet()
    for slot in slots_of(net)["se"].values():
        x = torch.randn(2, slot["se"].squeeze.in_channels, 16, 16)
        assert (slot["se"](x) - slot["id"](x)).norm() < 0.1 * x.norm()
