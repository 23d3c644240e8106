"""Losses by name and weight."""

import math
from typing import NamedTuple

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from derainzoo.errors import DerainzooError
from derainzoo.losses.weighted import GROUP_TERMS, TERMS, WeightedLoss


class TwoSizes(NamedTuple):
    image: Tensor
    half: Tensor


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 24, 20, generator=g), torch.rand(2, 3, 24, 20, generator=g)


def value(name, output, target, **settings):
    return WeightedLoss({name: {"weight": 1.0, **settings}})(output, target)[0].item()


def test_pixel_losses_are_their_formulas(pair):
    x, y = pair
    d = x - y
    assert value("l1", x, y) == pytest.approx(d.abs().mean().item())
    assert value("mse", x, y) == pytest.approx((d * d).mean().item())
    assert value("charbonnier", x, y, eps=0.1) == pytest.approx((d * d + 0.01).sqrt().mean().item())
    each = [-10 * math.log10((d[i] ** 2).mean().item() + 1e-8) for i in range(2)]
    assert value("psnr", x, y) == pytest.approx(-sum(each) / 2, rel=1e-5)
    vertical, horizontal = (x[..., 1:, :] - x[..., :-1, :]) ** 2, (x[..., 1:] - x[..., :-1]) ** 2
    assert value("tv", x, y) == pytest.approx(2 * (vertical.mean() + horizontal.mean()).item(), rel=1e-5)
    spectrum = torch.fft.rfft2(x) - torch.fft.rfft2(y)
    expected = torch.cat([spectrum.real.flatten(), spectrum.imag.flatten()]).abs().mean().item()
    assert value("fft", x, y) == pytest.approx(expected, rel=1e-5)


def test_ssim_inside_the_image_equals_scikit_image(pair):
    x, y = pair
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1, "channel_axis": 0}
    maps = [
        structural_similarity(a.numpy(), b.numpy(), full=True, **options)[1][:, 5:-5, 5:-5] for a, b in zip(x, y, strict=True)
    ]
    assert value("ssim", x, y, border="valid") == pytest.approx(sum(m.mean() for m in maps) / 2, rel=1e-4)
    assert value("dssim", x, y) == pytest.approx(1 - value("ssim", x, y))


@pytest.mark.parametrize("name", TERMS)
def test_every_term_is_best_where_both_agree_and_has_a_gradient(pair, name):
    x, y = pair
    sign = -1 if name == "ssim" else 1
    if name != "tv":  # which does not look at the target
        assert sign * value(name, y, y) < sign * value(name, x, y)
    x = x.clone().requires_grad_()
    WeightedLoss({name: {"weight": 1.0}})(x, y)[0].backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_terms_are_weighted_and_reported_unweighted(pair):
    total, terms = WeightedLoss({"l1": {"weight": 2.0}, "again": {"name": "l1", "weight": -0.5}})(*pair)
    assert terms["l1"] == terms["again"]
    assert total.item() == pytest.approx(1.5 * terms["l1"].item())


def test_a_term_may_look_at_another_field_at_its_own_size(pair):
    x, y = pair
    half = torch.rand(2, 3, 12, 10)
    loss = WeightedLoss({"l1": {"field": "half"}})
    small = y.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    assert loss(TwoSizes(x, half), y)[0].item() == pytest.approx((half - small).abs().mean().item(), rel=1e-5)
    with pytest.raises(DerainzooError, match="unknown output of the network .*'half'.*There are: image"):
        loss(x, y)


def test_a_term_starts_at_its_step(pair):
    loss = WeightedLoss({"l1": {}, "mse": {"start": 10}})
    assert set(loss(*pair, step=9)[1]) == {"l1"}
    assert set(loss(*pair, step=10)[1]) == {"l1", "mse"}


def test_versions_share_their_background():
    target = torch.rand(2, 3, 16, 16)
    output = target.repeat_interleave(3, 0)
    assert WeightedLoss({"l1": {}})(output, target, versions=3)[0] == 0
    total, terms = WeightedLoss({"external": {}, "internal": {}})(output, target, versions=3)
    assert terms["internal"] == 0
    assert set(GROUP_TERMS) == {"external", "internal"}
    assert total == terms["external"]


@pytest.mark.parametrize("name", [*TERMS, *GROUP_TERMS])
def test_autocast_does_not_reach_the_losses(pair, name):
    """Convolutions of bfloat16 would make variances of SSIM negative and the loss infinite."""
    x = pair[0].repeat_interleave(3, 0)
    y = (x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).requires_grad_()
    loss = WeightedLoss({name: {"weight": 1.0}})

    def graded():
        total = loss(y, pair[0], 3)[0]
        return total, *torch.autograd.grad(total, y)

    expected = graded()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, graded(), expected))


def test_losses_are_formed_in_the_precision_of_the_target(pair):
    x, y = pair
    assert WeightedLoss({"l1": {}})(x.bfloat16(), y)[0].dtype == torch.float32
    assert WeightedLoss({"l1": {}})(x.double(), y.double())[0].dtype == torch.float64


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "has no terms"),
        ({"l2": {}}, "unknown loss 'l2'. Did you mean 'l1'"),
        ({"charbonnier": {"epsilon": 1}}, "unknown setting of loss 'charbonnier' 'epsilon'. Did you mean 'eps'"),
    ],
)
def test_mistakes_are_answered(terms, message):
    with pytest.raises(DerainzooError, match=message):
        WeightedLoss(terms)
