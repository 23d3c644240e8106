"""Optimisers by name, schedules at the steps that papers and their codes state."""

import math

import pytest
import torch
from torch import nn

from derainzoo.engine.optim import make_optimizer, make_schedule
from derainzoo.errors import DerainzooError


def rates(count, name, lr=1.0, **settings):
    """The rates of optimiser steps 0, 1, ... ."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make_schedule(optimizer, name, **settings)
    out = []
    for _ in range(count):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out


def rate_at(step, name, lr=1.0, **settings):
    from derainzoo.engine.optim import SCHEDULES

    return lr * SCHEDULES[name](**settings)(step)


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (1, 3e-4),
        (92001, 3e-4),
        (92002, 2.9999999998e-4),
        (100000, 2.98910e-4),
        (196001, 1.505e-4),
        (250000, 4.16445e-5),
        (300000, 1.0000000171e-6),
    ],
)
def test_drsformer_schedule_at_recorded_iterations(iteration, rate):
    found = rate_at(iteration - 1, "cosine", lr=3e-4, total=300000, floor=1 / 300, hold=92000)
    assert found == pytest.approx(rate, rel=1e-5)


def test_cosine_with_warmup_that_changes_by_the_epoch():
    epoch = 10
    found = rates(100, "cosine", total=100, floor=0.1, warmup=30, every=epoch)
    assert found[0] == pytest.approx(1 / 3)
    assert found[10] == pytest.approx(2 / 3)
    assert found[20] == found[29] == found[30] == 1
    assert all(found[i] == found[i // epoch * epoch] for i in range(100))
    assert found[90] == pytest.approx(0.1 + 0.9 / 2 * (1 + math.cos(math.pi * 60 / 70)))


def test_steps_and_milestones():
    assert rates(7, "step", every=3, gamma=0.5) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert rates(5, "multistep", milestones=[2, 4], gamma=0.2) == pytest.approx([1, 1, 0.2, 0.2, 0.04])
    assert rates(4, "constant", warmup=2) == [0.5, 1, 1, 1]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion", "adan"])
def test_optimisers_of_torch_and_timm(name):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make_optimizer([parameter], name, lr=0.1)
    parameter.sum().backward()
    optimizer.step()
    assert (parameter < 1).all()


def test_settings_arrive():
    optimizer = make_optimizer([nn.Parameter(torch.ones(1))], "adam", lr=0.1, betas=[0.5, 0.999], weight_decay=0.01)
    assert optimizer.defaults["betas"] == (0.5, 0.999)
    assert optimizer.defaults["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: make_optimizer(p, "adm", lr=1), "unknown optimiser 'adm'. Did you mean 'adam'"),
        (lambda p: make_optimizer(p, "adam", lr=1, momentum=0.9), "does not take these settings.*momentum"),
        (lambda p: make_schedule(torch.optim.SGD(p, lr=1), "cosin"), "unknown schedule 'cosin'. Did you mean 'cosine'"),
        (lambda p: make_schedule(torch.optim.SGD(p, lr=1), "step", every=3), "does not take these settings.*gamma"),
    ],
)
def test_mistakes_are_answered(make, message):
    with pytest.raises(DerainzooError, match=message):
        make([nn.Parameter(torch.ones(1))])
