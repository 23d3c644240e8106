"""What the shared blocks compute in another way than their papers write it is the same, gradients included."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from derainzoo import create_model
from networks import image, small, train_step
from reference.plain import LITERAL, plain


@pytest.mark.parametrize("name", ["elf", "elf_lw", "elf_head", "restormer", "nafnet"])
def test_outputs_and_gradients_are_those_of_the_literal_formulation(name):
    net = small(name).double()
    literal = plain(net)
    assert sum(type(m) in LITERAL.values() for m in literal.modules()) > 5
    x = image(37, 50, batch=2, dtype=torch.float64)
    for expected, found in zip(train_step(literal, x), train_step(net, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    for (key, p), q in zip(net.named_parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-8, atol=1e-10, msg=key)


@pytest.mark.parametrize(
    ("name", "size", "convolutions"),
    [
        # 66.40 G at 512 x 512 is ELF's published figure; its counting rule reduces to this number for the convolutions
        ("elf", 512, 66_128_164_992),
        # Restormer's published figure is 140.99 G at 256 x 256
        ("restormer", 256, 140_990_496_768),
    ],
)
def test_multiply_adds_of_the_literal_convolutions_are_the_published_ones(name, size, convolutions):
    with torch.device("meta"):
        net, x = plain(create_model(name).eval()), torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert counter.get_flop_counts()["Global"][torch.ops.aten.convolution] // 2 == convolutions
