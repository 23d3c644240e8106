"""PReNet, Restormer and NAFNet: exact against recordings of the published code, and fit for everything a network must do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import derainzoo
from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import officials
from golden import GOLDEN, fill
from official_keys import as_published

PEERS = [n for n in derainzoo.list_models() if derainzoo.model_info(n).system in ("prenet", "restormer", "nafnet")]

# recording -> the network that must reproduce it
RECORDED: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in ("prenet", "prenet_r", "prenet_gru", "prenet_real", "prn", "prn_r")},
    **{name: (name, {}) for name in ("restormer", "nafnet", "nafnet_sidd")},
    "prenet_ablation": ("prenet", {"residual": False}),
    "restormer_odd": (
        "restormer",
        {"dim": 12, "blocks": [1, 2, 1, 3], "refinement": 2, "heads": [1, 2, 3, 4], "expansion": 2.1, "bias_free": True},
    ),
    "nafnet_odd": ("nafnet", {"width": 6, "encoder": [1, 2, 3], "middle": 2, "decoder": [2, 1, 3]}),
}


def image(h: int, w: int, batch: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(7).random((batch, 3, h, w)))


def tiny(name: str) -> nn.Module:
    """A small network in evaluation mode with every parameter random (as built, a block of NAFNet is the identity)."""
    torch.manual_seed(0)
    net = derainzoo.create_model(name, **derainzoo.model_info(name).tiny).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


@pytest.mark.parametrize("recording", RECORDED)
def test_reproduces_the_published_code(recording: str) -> None:
    name, arguments = RECORDED[recording]
    expected = np.load(GOLDEN / "peers.npz")[recording]
    net = derainzoo.create_model(name, **arguments).double().eval()
    known, system = net.state_dict(), derainzoo.model_info(name).system
    shapes = {key: tuple(tensor.shape) for key, tensor in as_published(system, known).items()}
    weights, dead = officials()[system].translate(
        fill(shapes, near_one=lambda key: key.endswith(("temperature", "beta", "gamma"))), known
    )
    assert not dead
    net.load_state_dict(weights)
    with torch.no_grad():
        found = net(image(*expected.shape[-2:])).numpy()
    assert np.abs(found - expected).max() <= 1e-9 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", PEERS)
def test_facts_are_exact(name: str) -> None:
    info = derainzoo.model_info(name)
    with torch.device("meta"):
        net, x = derainzoo.create_model(name).eval(), torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert sum(p.numel() for p in net.parameters()) == info.params
    assert counter.get_total_flops() // 2 == info.macs
    assert getattr(net, "multiple_of", 1) == info.multiple_of


@pytest.mark.parametrize("name", PEERS)
def test_takes_any_size_alone_or_in_a_batch(name: str) -> None:
    net = tiny(name).double()
    with torch.no_grad():
        for h, w in [(1, 1), (1, 9), (7, 2), (17, 23)]:
            x = image(h, w, batch=2)
            y = net(x)
            assert y.shape == x.shape
            assert torch.equal(y, net(x))
            assert torch.allclose(y[1:], net(x[1:]), atol=1e-10)


@pytest.mark.parametrize("name", PEERS)
def test_takes_other_types_and_memory_formats(name: str) -> None:
    net, x = tiny(name).double(), image(13, 18)
    with torch.no_grad():
        exact = net(x)
        scale = exact.abs().max()
        assert torch.allclose(net.to(memory_format=torch.channels_last)(x), exact, atol=1e-10)
        for dtype, tolerance in [(torch.float32, 1e-4), (torch.bfloat16, 0.2)]:
            y = net.to(dtype)(x.to(dtype))
            assert y.dtype == dtype
            assert (y - exact).abs().max() <= tolerance * scale


@pytest.mark.parametrize("name", PEERS)
def test_every_parameter_learns_and_survives_a_round_trip(name: str) -> None:
    net, x = tiny(name).train(), image(16, 16).float()
    net(x).square().mean().backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    other = derainzoo.create_model(name, **derainzoo.model_info(name).tiny).eval()
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(other(x), net.eval()(x))


@pytest.mark.parametrize("name", [n if n.startswith("pr") else pytest.param(n, marks=pytest.mark.slow) for n in PEERS])
def test_compiles_without_a_break_and_exports_for_other_sizes(name: str) -> None:
    net, x = tiny(name), image(40, 56).float()
    with torch.no_grad():
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        assert torch.allclose(compiled(x), net(x), atol=1e-5)
        auto = torch.export.Dim.AUTO
        program = torch.export.export(net, (x,), dynamic_shapes=({2: auto, 3: auto},)).module()
        # torch takes a dimension of size 1 for another program: above the bottom level's single pixel, any size will do
        for h, w in [(40, 56), (33, 64), (17, 99)]:
            x = image(h, w).float()
            assert torch.allclose(program(x), net(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_onnx_agrees(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, x = tiny(name), image(40, 56).float()
    auto = torch.export.Dim.AUTO
    torch.onnx.export(net, (x,), tmp_path / "net.onnx", dynamo=True, dynamic_shapes=({2: auto, 3: auto},), input_names=["x"])
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for h, w in [(40, 56), (33, 64), (19, 13), (1, 1)]:
        x = image(h, w).float()
        with torch.no_grad():
            assert np.abs(session.run(None, {"x": x.numpy()})[0] - net(x).numpy()).max() <= 1e-4


def test_prenet_stages_are_not_part_of_the_weights() -> None:
    net, x = tiny("prenet"), image(9, 9).float()
    longer = derainzoo.create_model("prenet", **{**derainzoo.model_info("prenet").tiny, "iterations": 5}).eval()
    longer.load_state_dict(net.state_dict())
    net.iterations = 5
    with torch.no_grad():
        assert torch.equal(net(x), longer(x))


def test_arguments_that_contradict_each_other_are_named() -> None:
    with pytest.raises(DerainzooError, match="one number of heads per level"):
        derainzoo.create_model("restormer", blocks=[1, 1], heads=[1, 2, 4])
    with pytest.raises(DerainzooError, match="as many encoder as decoder levels"):
        derainzoo.create_model("nafnet", encoder=[1, 1], decoder=[1])
    with pytest.raises(DerainzooError, match=r"unknown recurrence 'lstn'. Did you mean 'lstm'"):
        derainzoo.create_model("prenet", recurrence="lstn")
