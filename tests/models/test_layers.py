"""Shared blocks against plain restatements."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from derainzoo.errors import DerainzooError
from derainzoo.inference.memory import LiveBytes
from derainzoo.models.layers import (
    DepthwiseConv,
    GatedFeedForward,
    GlobalPool,
    SparseChannelAttention,
    cosine_gram,
    depthwise_conv2d,
    global_mean,
    set_pool_window,
)
from derainzoo.models.registry import create_model, model_info
from reference.drsformer_plain import Attention


def random(*shape):
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("k", "dilation"), [(1, 1), (3, 1), (5, 1), (7, 1), (3, 2), (5, 2), (7, 2), (3, 3)])
@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 3)])
def test_depthwise_convolution_has_the_gradients_of_the_native_one(k, dilation, size, layout):
    torch.manual_seed(0)
    x, weight, g = random(2, 3, *size), random(3, 1, k, k), random(2, 3, *size)
    native = F.conv2d(x, weight, padding=k // 2 * dilation, dilation=dilation, groups=3)
    ours = depthwise_conv2d(x.contiguous(memory_format=layout), weight, dilation)
    torch.testing.assert_close(ours, native, rtol=0, atol=1e-12)
    expected = torch.autograd.grad(native, (x, weight), g)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, weight), g), expected, rtol=0, atol=1e-12)


def test_depthwise_convolution_in_single_precision_trains_alike():
    """In float32 the native gradient runs through oneDNN, in float64 it does not."""
    torch.manual_seed(0)
    x, weight, g = (t.float().detach() for t in (random(2, 20, 13, 15), random(20, 1, 5, 5), random(2, 20, 13, 15)))
    weight.requires_grad_()
    native = torch.autograd.grad(F.conv2d(x, weight, padding=2, groups=20), weight, g)
    ours = torch.autograd.grad(depthwise_conv2d(x, weight), weight, g)
    torch.testing.assert_close(ours, native, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "heads"), [(6, 1), (16, 2), (15, 3)])
def test_sparse_attention_equals_four_masked_softmaxes(channels, heads):
    torch.manual_seed(0)
    plain, ours = Attention(channels, heads).double(), SparseChannelAttention(channels, heads).double()
    with torch.no_grad():
        plain.temperature.copy_(torch.rand(heads, 1, 1) + 0.5)
        for i, p in enumerate((plain.attn1, plain.attn2, plain.attn3, plain.attn4)):
            p.fill_(0.3 * i - 0.2)
    names = {"qkv_dwconv": "qkv_depthwise", "project_out": "project", **{f"attn{i}": f"mix.{i - 1}" for i in range(1, 5)}}
    ours.load_state_dict({".".join(names.get(part, part) for part in k.split(".")): v for k, v in plain.state_dict().items()})
    x = random(2, channels, 5, 7)
    torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=1e-12)
    g = random(2, channels, 5, 7)
    expected = torch.autograd.grad(plain(x), x, g)
    torch.testing.assert_close(torch.autograd.grad(ours(x), x, g), expected, rtol=0, atol=1e-11)


def test_cosines_of_empty_features_are_zero_and_have_a_finite_gradient():
    q, k = random(1, 2, 9, 4), random(1, 2, 9, 4)
    with torch.no_grad():
        q[..., 1] = 0
    cosines = cosine_gram(q, k)
    assert not cosines[..., 1, :].any()
    expected = F.normalize(q, dim=-2).mT @ F.normalize(k, dim=-2)
    torch.testing.assert_close(cosines, expected)
    g = torch.rand_like(cosines)
    torch.testing.assert_close(torch.autograd.grad(cosines, (q, k), g), torch.autograd.grad(expected, (q, k), g))
    torch.testing.assert_close(cosine_gram(q.half(), k.half()).double(), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("heads", [1, 2])
def test_gradients_of_cosines_are_exact_and_keep_the_memory_layout(heads):
    """Layout decides whether the convolutions before the attention must turn whole pictures."""
    torch.manual_seed(0)
    q, k, g = random(2, 12, 6), random(2, 12, 6), random(2, heads, 6 // heads, 6 // heads)

    def split(rows):
        return rows.unflatten(2, (heads, -1)).transpose(1, 2)

    ours = cosine_gram(split(q), split(k))
    expected = F.normalize(split(q), dim=-2).mT @ F.normalize(split(k), dim=-2)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    found = torch.autograd.grad(ours, (q, k), g)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (q, k), g), rtol=0, atol=1e-12)
    assert all(grad.is_contiguous() for grad in found)


def test_cosines_train_in_half_precision():
    torch.manual_seed(0)
    q, k = random(1, 2, 50, 4), random(1, 2, 50, 4)
    g = torch.randn(1, 2, 4, 4)
    expected = torch.autograd.grad(cosine_gram(q, k), (q, k), g.double())
    with torch.autocast("cpu", torch.bfloat16):
        cosines = cosine_gram(q.bfloat16(), k.bfloat16())
    found = torch.autograd.grad(cosines, (q, k), g.to(cosines.dtype))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * max(e.abs().max().item() for e in expected))


def test_gated_feed_forward_never_holds_four_maps_of_its_hidden_width():
    net, x = GatedFeedForward(4, 64, nn.GELU()), torch.rand(1, 4, 64, 64)
    with torch.inference_mode(), LiveBytes() as live:
        net(x)
    hidden = 64 * x[0, 0].nbytes
    assert 3 * hidden <= live.peak < 3.5 * hidden


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_global_mean_neither_overflows_nor_writes_its_gradient_out(dtype):
    x = torch.full((2, 3, 300, 400), 0.5, dtype=dtype, requires_grad=True)
    assert (global_mean(x) == 0.5).all()
    with torch.no_grad():
        assert (global_mean(x) == 0.5).all()
    (grad,) = torch.autograd.grad(global_mean(x).sum(), x)
    torch.testing.assert_close(grad, torch.full_like(x, 1 / 120_000))
    if dtype == torch.float32:
        assert grad.stride()[2:] == (0, 0)


def brute_force_pool(x, window):
    """Means of all windows that lie within the picture; the border repeats the outermost."""
    h, w = x.shape[-2:]
    kh, kw = min(h, window[0]), min(w, window[1])
    y = F.avg_pool2d(x, (kh, kw), stride=1)
    rows = (torch.arange(h) - (kh - 1) // 2).clamp(0, h - kh)
    columns = (torch.arange(w) - (kw - 1) // 2).clamp(0, w - kw)
    return y[..., rows, :][..., columns]


@pytest.mark.parametrize("window", [(3, 5), (4, 4), (1, 1), (6, 20), (20, 7)])
def test_local_pool(window):
    x = random(2, 3, 9, 14)
    pool = GlobalPool()
    torch.testing.assert_close(pool(x), x.mean((2, 3), keepdim=True))
    pool.window = window
    torch.testing.assert_close(pool(x), brute_force_pool(x, window))
    assert torch.autograd.gradcheck(pool, random(1, 1, 9, 8))


def test_window_that_covers_the_picture_is_the_global_pool():
    x = torch.rand(1, 2, 6, 8)
    pool = GlobalPool()
    exact = pool(x)
    pool.window = (6, 8)
    assert torch.equal(pool(x), exact)


def test_local_pool_sums_half_precision_in_single():
    pool = GlobalPool()
    pool.window = (2, 2)
    x = torch.full((1, 1, 3, 5000), 0.7, dtype=torch.bfloat16)
    assert torch.equal(pool(x), x)


@pytest.mark.parametrize("name", ["mhnet", "mhnet_head", "elf", "nafnet", "autoderain"])
def test_windows_leave_training_sizes_alone_and_change_larger_ones(name):
    torch.manual_seed(0)
    net = create_model(name, **model_info(name).tiny).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))  # NAF blocks start as the identity
        small, large = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 64, 48)
        before = net(small), net(large)
        set_pool_window(net, 32)
        assert torch.equal(net(small), before[0])
        local = net(large)
        assert local.shape == large.shape
        assert (local - before[1]).abs().max() > 1e-5
        set_pool_window(net, None)
        assert torch.equal(net(large), before[1])
    assert all(p.device.type == "cpu" for p in net.parameters())


def test_windows_follow_the_resolution():
    net = create_model("mhnet", width=8, features=10, encoder=(1, 1, 1, 1), blocks=1)
    set_pool_window(net, (64, 32))
    windows = {n: m.window for n, m in net.named_modules() if isinstance(m, GlobalPool)}
    assert windows["shallow.1.pool"] == (96, 48)
    assert windows["unet.encoders.2.0.pool"] == (24, 12)


@pytest.mark.parametrize("size", [0, (64,), (64, "a"), "256"])
def test_windows_for_no_size_are_refused(size):
    with pytest.raises(DerainzooError, match="side of training patches expected"):
        set_pool_window(create_model("nafnet", **model_info("nafnet").tiny), size)


def test_network_without_global_pooling_has_no_windows():
    with pytest.raises(DerainzooError, match="no global pooling"):
        set_pool_window(nn.Conv2d(3, 3, 1), 256)


@pytest.mark.parametrize("dilation", [1, 2])
def test_depthwise_gradients_in_half_precision(dilation):
    """oneDNN's own, in channels_last and with a dilation, are wrong."""
    torch.manual_seed(0)
    conv = DepthwiseConv(12, 3, dilation).to(torch.bfloat16)
    x = torch.randn(4, 12, 32, 32).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = conv(x)
    g = torch.randn_like(y)
    y.backward(g)
    weight = conv.weight.detach().double().requires_grad_()
    torch.nn.functional.conv2d(x.double(), weight, padding=dilation, dilation=dilation, groups=12).backward(g.double())
    assert conv.weight.grad.double() == pytest.approx(weight.grad, abs=0.02 * weight.grad.abs().max().item())
