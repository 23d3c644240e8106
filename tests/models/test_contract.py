"""What every network of the zoo can do, checked on a small instance of each.

A network that cannot do something says so and why in `limits` of its registration, under the name of the check. Such a check
must then really fail, so that no exemption outlives its cause.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from derainzoo import create_model, list_models, model_info
from networks import image, restored, small, train_step

DYNAMIC = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
CHECKS: dict[str, tuple[Callable[[nn.Module], None], bool]] = {}

SLOW = (pytest.mark.slow, pytest.mark.timeout(1200))  # a busy core takes five minutes for the export of DRSformer


def check(slow: bool = False) -> Callable[[Callable[[nn.Module], None]], Callable[[nn.Module], None]]:
    def mark(function: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
        CHECKS[function.__name__] = function, slow
        return function

    return mark


@check()
def any_size(net: nn.Module) -> None:
    """From 1 x 1 up, in any batch; one tensor, the same each time."""
    for h, w in [(1, 1), (1, 9), (7, 2), (17, 23)]:
        x = image(h, w, batch=2)
        y = restored(net, x)
        assert isinstance(y, Tensor)
        assert y.shape == x.shape
        assert y.isfinite().all()
        assert torch.equal(y, restored(net, x))


@check()
def batch_mates(net: nn.Module) -> None:
    """They change nothing. (Where the lowest scale has one pixel all cosines are 1 or -1, and a top-k is a lottery.)"""
    net.double()
    for h, w in [(17, 23), (1, 40)]:
        x = image(h, w, batch=3, dtype=torch.float64)
        for i, y in enumerate(restored(net, x)):
            assert torch.allclose(restored(net, x[i : i + 1])[0], y, rtol=0, atol=1e-10)


@check()
def channels_last(net: nn.Module) -> None:
    net.double()
    x = image(13, 18, batch=2, dtype=torch.float64)
    expected = restored(net, x)
    found = restored(net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last))
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)


@check()
def float32(net: nn.Module) -> None:
    close_to_float64(net, torch.float32, 1e-4)


@check()
def bfloat16(net: nn.Module) -> None:
    close_to_float64(net, torch.bfloat16, 0.2)


def close_to_float64(net: nn.Module, dtype: torch.dtype, tolerance: float) -> None:
    x = image(13, 18, dtype=torch.float64)
    exact = restored(net.double(), x)
    y = restored(net.to(dtype), x.to(dtype))
    assert y.dtype == dtype
    assert (y - exact).abs().max() <= tolerance * exact.abs().max()


@check()
def gradients(net: nn.Module) -> None:
    """They reach every parameter. Where a ReLU is shut they may be zero, which is not the same as none."""
    x = image(32, 32, batch=2)
    assert train_step(net, x)[0].shape == x.shape
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    shut = [n for n, p in net.named_parameters() if not p.grad.any()]
    assert len(shut) < 0.1 * len(list(net.parameters()))


@check()
def train_small(net: nn.Module) -> None:
    """Training takes one image of 8 x 8."""
    train_step(net, image(8, 8))
    assert all(p.grad.isfinite().all() for p in net.parameters())


@check(slow=True)
def compile(net: nn.Module) -> None:
    """One graph without a break, for use and for training."""
    torch.compiler.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = image(40, 56, batch=2)
    assert torch.allclose(restored(compiled, x), restored(net, x), atol=1e-5)
    grads = []
    for module in (net, compiled):
        net.zero_grad()
        train_step(module, x)
        grads.append([p.grad.clone() for p in net.parameters()])
    for eager, found in zip(*grads, strict=True):
        assert torch.allclose(found, eager, rtol=1e-3, atol=1e-4 * eager.abs().max().item())


@check(slow=True)
def export(net: nn.Module) -> None:
    """`torch.export` with free batch, height and width. Its guards tell sides of one pixel apart, at any depth."""
    program = torch.export.export(net, (image(40, 56, batch=2),), dynamic_shapes=DYNAMIC).module()
    for batch, h, w in [(2, 40, 56), (1, 33, 64), (3, 35, 99)]:
        x = image(h, w, batch)
        assert torch.allclose(restored(program, x), restored(net, x), rtol=0, atol=1e-4)


@check(slow=True)
def onnx(net: nn.Module) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        x = image(40, 56, batch=2)
        torch.onnx.export(net, (x,), path, dynamo=True, dynamic_shapes=DYNAMIC, input_names=["image"], external_data=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, h, w in [(2, 40, 56), (1, 33, 64), (3, 19, 13), (1, 1, 40)]:
        x = image(h, w, batch)
        assert np.abs(session.run(None, {"image": x.numpy()})[0] - restored(net, x).numpy()).max() <= 1e-4
    lone = session.run(None, {"image": image(1, 1, 1).numpy()})[0]  # a top-k among equals, as `batch_mates` says
    assert lone.shape == (1, 3, 1, 1)
    assert np.isfinite(lone).all()


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("what", [pytest.param(n, marks=SLOW) if slow else n for n, (_, slow) in CHECKS.items()])
def test_every_network_can(what: str, name: str) -> None:
    function, _ = CHECKS[what]
    if what not in model_info(name).limits:
        function(small(name))
        return
    assert len(model_info(name).limits[what].split()) > 3, "a limit gives its reason"
    with pytest.raises(Exception):  # noqa: B017, PT011  (whatever it is that does not work)
        function(small(name))


@pytest.mark.parametrize("name", list_models())
def test_limits_are_those_that_are_checked(name: str) -> None:
    assert set(model_info(name).limits) <= set(CHECKS) | {"tiles"}


@pytest.mark.parametrize("name", list_models())
def test_the_padding_is_the_stated_one(name: str) -> None:
    assert getattr(small(name), "multiple_of", 1) == model_info(name).multiple_of


@pytest.mark.parametrize("name", list_models())
def test_weights_survive_a_round_trip(name: str) -> None:
    net, other = small(name), create_model(name, **model_info(name).tiny).eval()
    x = image(11, 20)
    assert not torch.equal(restored(other, x), restored(net, x))
    other.load_state_dict(net.state_dict())
    assert torch.equal(restored(other, x), restored(net, x))
