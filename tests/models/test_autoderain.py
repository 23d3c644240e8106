"""AutoDerain against its description written out with functions, its table of sizes, and the places that a supernet fills."""

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

from derainzoo import create_model, model_info
from derainzoo.errors import DerainzooError
from derainzoo.models.autoderain import ATTENTIONS, CONVOLUTIONS, AutoDerain, Block, SqueezeExcite, make_op
from searched import Candidates, check_derivation, create_on_meta, macs, parameters

MIXED = ["conv3+conv5+se", "dil2+dil3+id", "sep3+sep5+se", "conv1+dil4+se", "conv5+sep3+id"]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("conv1", (1_056, 4_160, 16_512)),
        ("conv3", (9_248, 36_928, 147_584)),
        ("dil2", (9_248, 36_928, 147_584)),
        ("dil3", (9_248, 36_928, 147_584)),
        ("dil4", (9_248, 36_928, 147_584)),
        ("conv5", (25_632, 102_464, 409_728)),
        ("sep3", (1_344, 4_736, 17_664)),
        ("sep5", (1_856, 5_760, 19_712)),
        ("se", (292, 1_096, 4_240)),
        ("id", (0, 0, 0)),
    ],
)
def test_parameters_of_candidates(name, counts):
    assert tuple(parameters(make_op(name, c)) for c in (32, 64, 128)) == counts


@pytest.mark.parametrize(
    ("width", "blocks", "millions", "giga"),
    [
        # parameters with conv3 and se, conv3, conv5 and se, sep3 and se, sep5 and se; multiplications with conv3, conv5, sep3
        (16, (2, 2, 4), (0.431, 0.425, 1.12, 0.095, 0.110), (3.97, 10.4, 0.88)),
        (32, (2, 2, 4), (1.718, 1.696, 4.47, 0.358, 0.387), (15.7, 41.5, 3.1)),
        (48, (2, 2, 4), (3.862, 3.812, 10.1, 0.790, 0.833), (35.4, 93.3, 6.8)),
        (64, (1, 1, 3), (4.918, 4.857, 12.5, 1.137, 1.174), (38.6, 98.7, 8.8)),
    ],
)
def test_sizes(width, blocks, millions, giga):
    texts = ("conv3+conv3+se", "conv3+conv3+id", "conv5+conv5+se", "sep3+sep3+se", "sep5+sep5+se")
    nets = [create_on_meta("autoderain", width=width, blocks=blocks, operations=text) for text in texts]
    for net, million in zip(nets, millions, strict=True):
        assert parameters(net) / 1e6 == pytest.approx(million, rel=5e-3)
    for net, g in zip((nets[0], nets[2], nets[3]), giga, strict=True):
        assert macs(net) / 1e9 == pytest.approx(g, rel=1e-2)


def test_facts_of_the_registry():
    net, info = create_on_meta("autoderain"), model_info("autoderain")
    assert (parameters(net), macs(net)) == (info.params, info.macs) == (1_718_387, 15_749_633_024)
    assert info.multiple_of == AutoDerain.multiple_of


def written_out(state, x, n, operations):
    """The whole network as functions of a state dict."""
    kernels = {"conv1": (0, 1), "conv3": (1, 1), "conv5": (2, 1), "dil2": (2, 2), "dil3": (3, 3), "dil4": (4, 4)}
    texts = iter(operations)

    def conv(key, x, **how):
        return F.conv2d(x, state[f"{key}.weight"], state.get(f"{key}.bias"), **how)

    def slot(key, name, x):
        key = f"{key}.{name}"
        if name == "id":
            return x
        if name == "se":
            s = torch.relu(conv(f"{key}.squeeze", x.mean((2, 3), keepdim=True)))
            return 2 * torch.sigmoid(conv(f"{key}.excite", s)) * x
        if name.startswith("sep"):
            return conv(f"{key}.1", conv(f"{key}.0", x, padding=int(name[-1]) // 2, groups=x.shape[1]))
        padding, dilation = kernels[name]
        return conv(key, x, padding=padding, dilation=dilation)

    def chain(key, x, count):
        for i in range(count):
            a, b, se = next(texts).split("+")
            y = slot(f"{key}.{i}.conv_b", b, torch.relu(slot(f"{key}.{i}.conv_a", a, x)))
            x = x + slot(f"{key}.{i}.se", se, y)
        return x

    def up(key, deep, skip):
        return conv(f"{key}.fuse", torch.cat([F.pixel_shuffle(conv(f"{key}.expand", deep), 2), skip], 1))

    h, w = x.shape[-2:]
    padded = F.pad(x, (0, -w % 4, 0, -h % 4), mode="reflect")
    e1 = chain("encoder1", conv("stem", padded, padding=1), n[0])
    e2 = chain("encoder2", conv("down1", e1, stride=2, padding=1), n[1])
    m = chain("middle", conv("down2", e2, stride=2, padding=1), n[2])
    d2 = chain("decoder2", up("up2", m, e2), n[1])
    d1 = chain("decoder1", up("up1", d2, e1), n[0])
    return x - conv("head", d1, padding=1)[..., :h, :w]


@pytest.mark.parametrize(("blocks", "operations"), [((1, 1, 1), MIXED), ((2, 1, 3), [*MIXED, *MIXED[:4]])])
def test_output_is_the_description_written_out(blocks, operations):
    torch.manual_seed(0)
    net = create_model("autoderain", width=8, blocks=blocks, operations=operations).double().eval()
    x = torch.rand(2, 3, 21, 30, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), written_out(net.state_dict(), x, blocks, operations), rtol=0, atol=1e-12)


def test_one_text_counts_for_all_blocks():
    torch.manual_seed(0)
    one = create_model("autoderain", width=8, operations="sep3+dil2+se")
    torch.manual_seed(0)
    each = create_model("autoderain", width=8, operations=["sep3 + dil2 + se"] * 12)
    assert one.state_dict().keys() == each.state_dict().keys()
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(one(x), each(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"operations": ["conv3+conv3+se"] * 11}, r"1 \(for all blocks\) or 12 \(.*\), found 11"),
        ({"operations": "conv3+se"}, "expected 3 names like 'conv3.conv3.id', found 'conv3.se'"),
        ({"operations": "conv3+conv7+se"}, "unknown conv_b of autoderain 'conv7'"),
        ({"operations": "conv3+conv3+conv3"}, "unknown se of autoderain 'conv3'.*There are: id, se"),
        ({"width": 0}, "positive number, found 0"),
        ({"blocks": (2, 2)}, r"three positive numbers .* found \[2, 2\]"),
        ({"blocks": (2, 0, 1)}, r"three positive numbers .* found \[2, 0, 1\]"),
    ],
)
def test_errors_say_what_was_expected(arguments, words):
    with pytest.raises(DerainzooError, match=words):
        create_model("autoderain", **arguments)


def test_unknown_operation():
    with pytest.raises(DerainzooError, match="'conv3'"):
        make_op("konv3", 16)


def test_squeeze_excitation_is_neutral_at_the_start_and_learns_from_the_first_step():
    torch.manual_seed(0)
    for c in (8, 32, 128):
        gate, x = SqueezeExcite(c), torch.randn(2, c, 16, 16)
        y = gate(x)
        assert (y - x).norm() < 0.1 * x.norm()
        y.square().mean().backward()
        assert all(p.grad.abs().sum() > 0 for p in gate.parameters())


def test_derived_network_is_the_supernet_less_what_was_not_chosen():
    torch.manual_seed(0)

    def block(place, channels):
        slots = zip((CONVOLUTIONS, CONVOLUTIONS, ATTENTIONS), MIXED[place].split("+"), strict=True)
        return Block(*(Candidates({n: make_op(n, channels) for n in names}, active) for names, active in slots))

    derived = create_model("autoderain", width=8, blocks=(1, 1, 1), operations=MIXED)
    check_derivation(AutoDerain(8, (1, 1, 1), block), derived, torch.rand(1, 3, 12, 20))


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (4, 4), (5, 9), (16, 11)])
def test_any_size_in_training_and_evaluation(size):
    net = create_model("autoderain", width=8, blocks=(1, 1, 1), operations=MIXED)
    x = torch.rand(1, 3, *size)
    y = net.train()(x)
    assert y.shape == x.shape
    y.mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    with torch.inference_mode():
        assert torch.equal(net.eval()(x), y)


@pytest.mark.parametrize("example", [(40, 48), (37, 43)])
def test_exported_network_takes_multiples_and_others_whatever_the_example_was(example):
    net = create_model("autoderain", width=4, blocks=(1, 1, 1)).eval()
    exported = torch.export.export(net, (torch.rand(1, 3, *example),), dynamic_shapes=({2: Dim.AUTO, 3: Dim.AUTO},)).module()
    for size in ((40, 48), (33, 70), (17, 9), (64, 9)):
        x = torch.rand(1, 3, *size)
        with torch.inference_mode():
            torch.testing.assert_close(exported(x), net(x), rtol=0, atol=1e-6)
