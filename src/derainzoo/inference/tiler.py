"""A network on pictures of any size in bounded memory: overlapping tiles, computed one after the other and blended.

Tiles start at multiples of the network's own step, and beyond the right and bottom border they see the mirror image that the
network would have added itself. So inside a tile a network of convolutions gives what it gives on the whole picture, but for a
rim as wide as its field of view, and the blend leaves most of that rim out.

A picture is worked off from top to bottom in bands, each a row of tiles. The rows of a band that no later tile can change are
handed out at once: only one band ever exists as floats.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor

from derainzoo.models.layers import mirror_indices

OVERLAP = 64
"""Pixels that neighbouring tiles share, unless somebody says otherwise; docs/predict.md has the measurements."""

Network = Callable[[Tensor], Tensor]
"""`(B, C, H, W)` to floats of the same height and width."""


def fits(images: Tensor, tile: int | None) -> bool:
    """Whether the images are no larger than one tile."""
    return tile is None or max(images.shape[-2:]) <= tile


@torch.no_grad()
def restore(
    net: Network, images: Tensor, tile: int | None = None, overlap: int = OVERLAP, batch: int = 1, multiple: int | None = None
) -> Tensor:
    """`net(images)`, computed in tiles if the images are larger than one; if they are not it is `net(images)` to the bit.

    The result is put together where the images are: a `net` that takes what it is given to a GPU and images in main memory make
    pictures possible that the GPU could not hold.

    Args:
        net: a network, or a function around one.
        images: `(B, C, H, W)`.
        tile: largest side of a tile in pixels; None: no tiles.
        overlap: pixels that neighbouring tiles share at least, but no more than half a tile.
        batch: tiles that go through the network together.
        multiple: tiles start at multiples of it; None: what the network says of itself (`multiple_of`), or 1.
    """
    pieces = list(bands(net, images, tile, overlap, batch, multiple))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-2)


@torch.no_grad()
def bands(
    net: Network, images: Tensor, tile: int | None, overlap: int = OVERLAP, batch: int = 1, multiple: int | None = None
) -> Iterator[Tensor]:
    """What `restore` returns, in pieces from top to bottom, each as soon as it is ready."""
    if tile is None or fits(images, tile):
        yield net(images)
        return
    height, width = images.shape[-2:]
    step = multiple or int(getattr(net, "multiple_of", 1))
    rows, columns = (Axis(size, tile, overlap, step, images.device) for size in (height, width))
    unfinished: Tensor | None = None  # rows of the band above that tiles of this one have a share in
    for top, row_weights, end in zip(rows.starts, rows.weights, [*rows.starts[1:], height], strict=True):
        strip = images.index_select(-2, rows.mirror[top : top + rows.tile])
        band = _band(net, strip, columns, max(1, batch // len(images))) * row_weights[:, None]
        if unfinished is not None:
            band[..., : unfinished.shape[-2], :] += unfinished
        yield band[..., : end - top, :width]
        unfinished = band[..., end - top :, :]


def _band(net: Network, strip: Tensor, columns: "Axis", batch: int) -> Tensor:
    """One row of tiles, blended: `(B, C, tile, W)` to the same in floats, W rounded up to the multiple."""
    parts = []
    for first in range(0, len(columns.starts), batch):
        starts = columns.starts[first : first + batch]
        tiles = [strip.index_select(-1, columns.mirror[left : left + columns.tile]) for left in starts]
        parts += net(torch.cat(tiles)).to(strip.device).split(len(strip))
    floats = torch.promote_types(parts[0].dtype, torch.float32)  # at least: half precision does not add up
    band = parts[0].new_zeros(*parts[0].shape[:-1], len(columns.mirror), dtype=floats)
    for left, weights, part in zip(columns.starts, columns.weights, parts, strict=True):
        band[..., left : left + columns.tile] += part * weights
    return band


class Axis:
    """Where tiles lie along one side of a picture, and how much each counts at each of its pixels.

    As many tiles as the largest allowed size makes necessary, no larger than needed: two tiles that a picture just does not fit
    into would else compute most of it twice.
    """

    def __init__(self, size: int, tile: int, overlap: int, multiple: int, device: torch.device) -> None:
        self.mirror = mirror_indices(size, multiple, device)
        """What stands at each position, those that padding adds included."""
        # all in steps of `multiple` from here on
        length, largest = len(self.mirror) // multiple, max(tile // multiple, 1)
        shared = min(ceil(overlap / multiple), largest // 2)  # more would only cost time
        count = max(1, ceil((length - shared) / (largest - shared)))
        tile = min(ceil((length + (count - 1) * shared) / count), length)
        gaps = max(count - 1, 1)
        steps = [i * (length - tile) // gaps for i in range(count)]
        self.tile = tile * multiple
        self.starts = [step * multiple for step in steps]
        profiles = self._profiles(device)
        total = torch.zeros(len(self.mirror), dtype=torch.float64, device=device)
        for start, profile in zip(self.starts, profiles, strict=True):
            total[start : start + self.tile] += profile
        self.weights = [
            (profile / total[start : start + self.tile]).float() for start, profile in zip(self.starts, profiles, strict=True)
        ]
        """Of each tile; at every pixel of the picture they add up to one."""

    def _profiles(self, device: torch.device) -> list[Tensor]:
        """1 inside; towards a neighbour half a Gaussian, as wide as what the two share and next to nothing at the edge."""
        distance = torch.arange(self.tile, dtype=torch.float64, device=device) + 0.5  # from the first edge
        shared = [start + self.tile - following for start, following in pairwise(self.starts)]

        def slope(width: int) -> Tensor:
            return torch.exp(-8 * (1 - distance / max(width, 0.5)).clamp(min=0) ** 2)  # a standard deviation of width / 4

        return [slope(before) * slope(after).flip(0) for before, after in pairwise([0, *shared, 0])]
