"""Tiles: the same picture as without them, up to what a network sees beyond a tile's edge."""

import pytest
import torch
from torch import nn

import derainzoo
from derainzoo.inference.tiler import Axis, bands, restore


class Local(nn.Module):
    """Halves and doubles the size like a U-net, so that it matters where a tile begins; sees 15 pixels around."""

    multiple_of = 4

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 8, 4, 4)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 3, 4, 4)
        self.largest, self.passes = 0, 0

    def forward(self, x):
        self.largest, self.passes = max(self.largest, *x.shape[-2:]), self.passes + 1
        h, w = x.shape[-2:]
        x = nn.functional.pad(x, (0, -w % 4, 0, -h % 4), mode="reflect")
        return self.up(self.conv(self.down(x)).relu())[..., :h, :w]


def psnr(a, b):
    return -10 * torch.log10(((a - b) ** 2).mean()).item()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 157, 202, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tile", [None, 202, 500])
def test_without_tiles_it_is_the_network_to_the_bit(images, tile):
    net = derainzoo.create_model("elf_lw", dim=8, blocks=1).eval()
    with torch.no_grad():
        assert torch.equal(restore(net, images, tile), net(images))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 32), (100, 48), (160, 64), (61, 29)])
def test_tiles_of_a_local_network_are_the_whole(images, tile, overlap, batch):
    net = Local().eval()
    whole = net(images)
    net.largest = 0
    tiled = restore(net, images, tile, overlap, batch)
    assert net.largest <= tile
    assert tiled.shape == whole.shape
    assert psnr(tiled, whole) > 60
    assert not tiled.requires_grad


def test_tiles_begin_at_the_steps_of_the_network(images):
    """Shifted by a pixel, a network that halves its input gives something else."""
    net = Local().eval()
    whole = net(images)
    assert psnr(restore(net, images, 61, 16, multiple=1), whole) < psnr(restore(net, images, 61, 16), whole) - 10


def test_a_network_of_one_layer_differs_at_the_edges_only(images):
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 7, padding=3)
    assert psnr(restore(net, images, 50, 16), net(images)) > 60


@pytest.mark.parametrize("name", ["prenet", "manas", "autoderain"])
def test_networks_of_convolutions_reach_50_db_at_the_default_overlap(name):
    torch.manual_seed(0)
    net = derainzoo.create_model(name, **derainzoo.model_info(name).tiny).eval()
    image = torch.rand(1, 3, 200, 330)
    with torch.no_grad():
        assert psnr(restore(net, image, 192), net(image)) > 50


def test_the_result_is_gathered_where_the_picture_is(images):
    def elsewhere(tiles):
        return torch.zeros(tiles.shape, dtype=torch.bfloat16) if tiles.device.type == "cpu" else tiles

    result = restore(elsewhere, images, 64)
    assert result.device == images.device
    assert result.dtype == torch.float32  # half precision is added up in more


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 63, 64, 65, 100, 1000])
@pytest.mark.parametrize(("tile", "overlap", "multiple"), [(64, 32, 16), (64, 0, 1), (16, 64, 16), (50, 10, 8), (33, 32, 1)])
def test_an_axis_is_covered_with_weights_that_add_up_to_one(size, tile, overlap, multiple):
    axis = Axis(size, tile, overlap, multiple, torch.device("cpu"))
    assert axis.tile % multiple == 0
    assert axis.tile <= max(tile // multiple, 1) * multiple
    assert all(start % multiple == 0 for start in axis.starts)
    assert len(set(axis.starts)) == len(axis.starts)
    total = torch.zeros(len(axis.mirror))
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert (weights > 0).all()
        total[start : start + axis.tile] += weights
    assert torch.allclose(total, torch.ones(()), atol=1e-6)
    shared = [a + axis.tile - b for a, b in zip(axis.starts, axis.starts[1:], strict=False)]
    assert all(s >= min(overlap, axis.tile // 2 // multiple * multiple) for s in shared)


def test_a_picture_that_just_does_not_fit_costs_little_more():
    axis = Axis(600, 512, 64, 16, torch.device("cpu"))
    assert len(axis.starts) * axis.tile <= 600 + 64 + 16


def test_bands_come_one_after_the_other_and_early(images):
    """That is what keeps the memory for a large picture small."""
    net = Local().eval()
    pieces = bands(net, images, 64, 32)
    first = next(pieces)
    assert net.passes == len(Axis(202, 64, 32, 4, images.device).starts)
    rest = list(pieces)
    assert first.shape[-2] + sum(r.shape[-2] for r in rest) == images.shape[-2]
    assert torch.equal(torch.cat([first, *rest], -2), restore(net, images, 64, 32))


def test_integers_reach_the_network_as_they_are():
    seen = []

    def net(tiles):
        seen.append(tiles.dtype)
        return tiles.float()

    image = torch.arange(3 * 70 * 90).reshape(1, 3, 70, 90).to(torch.uint16)
    assert torch.allclose(restore(net, image, 32, 8), image.float())
    assert set(seen) == {torch.uint16}
