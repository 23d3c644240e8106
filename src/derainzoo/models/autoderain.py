"""AutoDerain: a U-shaped network of residual squeeze-and-excitation blocks whose convolutions were chosen by search.

    stem  3 -> C                                                  head: C -> 3
      blocks(C)  ------------------- e1 --------------------> fuse, blocks(C)          1
        blocks(2C)  ----------------- e2 -----------------> fuse, blocks(2C)           1/2
          blocks(4C) ----------------------------------------^                         1/4

    block(x) = x + SE?(conv_b(relu(conv_a(x))))               clean = rainy - head(...)

Three choices a block: either convolution, and whether there is squeeze-and-excitation. That a U of such blocks is searched over
the types of its convolutions and the use of SE is all that could be had of the paper, its abstract. Scales, widths, numbers of
blocks, candidates and the absence of batch normalisation are ours, guided by the abstract of the authors' earlier RSEN; the
genotype that the paper's search found was never published. The default, conv3+conv3+se everywhere, is the network that one
would make by hand.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.models.choices import chosen, parse_choices
from derainzoo.models.layers import GlobalPool, crop, pad_to_multiple
from derainzoo.models.registry import Paper, register

PAPER = Paper(
    title="AutoDerain: Memory-efficient Neural Architecture Search for Image Deraining",
    authors="J. Fu, C. Hou, Z. Chen",
    venue="VCIP",
    year=2021,
    url="https://doi.org/10.1109/VCIP53242.2021.9675339",
)


class SqueezeExcite(nn.Module):
    """Channel attention of reduction 8 whose weights lie in (0, 2), near 1 at the start.

    With the usual sigmoid, switching it on would halve the branch, and a search would first of all measure that.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        hidden = max(c // 8, 4)
        self.pool, self.squeeze, self.excite = GlobalPool(), nn.Conv2d(c, hidden, 1), nn.Conv2d(hidden, c, 1)
        # both layers learn from the first step on: few units start switched off, and `excite` is small but not zero
        nn.init.constant_(self.squeeze.get_parameter("bias"), 0.1)
        for parameter in self.excite.parameters():
            nn.init.normal_(parameter, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        s = torch.relu(self.squeeze(self.pool(x)))
        return x * (2 * torch.sigmoid(self.excite(s)))


def conv(c: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A dense convolution of the same size."""
    return nn.Conv2d(c, c, kernel, padding=dilation * (kernel // 2), dilation=dilation)


def separable(c: int, kernel: int) -> nn.Sequential:
    """Depthwise, then 1x1."""
    return nn.Sequential(nn.Conv2d(c, c, kernel, padding=kernel // 2, groups=c, bias=False), nn.Conv2d(c, c, 1))


CONVOLUTIONS: dict[str, Callable[[int], nn.Module]] = {
    "conv3": lambda c: conv(c, 3),
    "conv5": lambda c: conv(c, 5),
    "dil2": lambda c: conv(c, 3, dilation=2),
    "dil3": lambda c: conv(c, 3, dilation=3),
    "sep3": lambda c: separable(c, 3),
    "sep5": lambda c: separable(c, 5),
    "conv1": lambda c: conv(c, 1),
    "dil4": lambda c: conv(c, 3, dilation=4),
}
SEARCHED = ("conv3", "conv5", "dil2", "dil3", "sep3", "sep5")
"""Those among which a search chooses unless told otherwise."""
ATTENTIONS: dict[str, Callable[[int], nn.Module]] = {"id": lambda c: nn.Identity(), "se": SqueezeExcite}
SLOTS = {"conv_a": CONVOLUTIONS, "conv_b": CONVOLUTIONS, "se": ATTENTIONS}
"""The choices of a block, in the order of its text, and their candidates."""


def make_op(name: str, channels: int) -> nn.Module:
    """The candidate `name` of a slot, from `channels` to as many channels, ready to stand in a block."""
    candidates = CONVOLUTIONS | ATTENTIONS
    if name not in candidates:
        raise unknown_name("operation of autoderain", name, candidates)
    return candidates[name](channels)


class Block(nn.Module):
    """RSEB: two convolutions, squeeze-and-excitation or not, residual. The three modules keep the size and the channels."""

    def __init__(self, conv_a: nn.Module, conv_b: nn.Module, se: nn.Module) -> None:
        super().__init__()
        self.conv_a, self.conv_b, self.se = conv_a, conv_b, se

    def forward(self, x: Tensor) -> Tensor:
        return x + self.se(self.conv_b(torch.relu(self.conv_a(x))))


class Up(nn.Module):
    """Double the resolution and merge what the encoder had there: (2c, h, w), (c, 2h, 2w) -> (c, 2h, 2w)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.expand, self.shuffle = nn.Conv2d(2 * c, 4 * c, 1), nn.PixelShuffle(2)
        self.fuse = nn.Conv2d(2 * c, c, 1)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return self.fuse(torch.cat([self.shuffle(self.expand(deep)), skip], 1))


class AutoDerain(nn.Module):
    """The U that the derived network and a supernet share: its blocks are made by the caller.

    Args:
        width: channels C at full resolution; 2C at half, 4C at a quarter.
        blocks: number of blocks at the three scales, in the encoder as in the decoder.
        block: (place, channels) -> block; places count encoder 1, encoder 2, middle, decoder 2, decoder 1.
    """

    multiple_of = 4

    def __init__(self, width: int, blocks: Sequence[int], block: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        if width < 1:
            raise DerainzooError(f"width of autoderain: expected a positive number, found {width}")
        places = iter(range(count_blocks(blocks)))
        c1, c2, c3 = width, 2 * width, 4 * width
        n1, n2, n3 = blocks

        def chain(n: int, c: int) -> nn.Sequential:
            return nn.Sequential(*(block(next(places), c) for _ in range(n)))

        self.stem = nn.Conv2d(3, c1, 3, padding=1)
        self.encoder1, self.down1 = chain(n1, c1), nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.encoder2, self.down2 = chain(n2, c2), nn.Conv2d(c2, c3, 3, stride=2, padding=1)
        self.middle = chain(n3, c3)
        self.up2, self.decoder2 = Up(c2), chain(n2, c2)
        self.up1, self.decoder1 = Up(c1), chain(n1, c1)
        self.head = nn.Conv2d(c1, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        padded = pad_to_multiple(x, self.multiple_of)
        e1 = self.encoder1(self.stem(padded))  # (B, C, H, W)
        e2 = self.encoder2(self.down1(e1))  # (B, 2C, H/2, W/2)
        m = self.middle(self.down2(e2))  # (B, 4C, H/4, W/4)
        d2 = self.decoder2(self.up2(m, e2))
        d1 = self.decoder1(self.up1(d2, e1))
        return x - crop(self.head(d1), h, w)


def count_blocks(blocks: Sequence[int]) -> int:
    """Blocks of the whole U: those of the first two scales stand in the encoder and in the decoder."""
    if len(blocks) != 3 or not all(isinstance(n, int) and n > 0 for n in blocks):
        raise DerainzooError(f"blocks of autoderain: expected three positive numbers like [2, 2, 4], found {list(blocks)}")
    n1, n2, n3 = blocks
    return 2 * (n1 + n2) + n3


def expand_operations(operations: str | Sequence[str], blocks: Sequence[int]) -> list[list[str]]:
    """[conv_a, conv_b, se] of each block, out of one text for all blocks or a text for each."""
    count = count_blocks(blocks)
    counts = {1: "for all blocks", count: "encoder 1, encoder 2, middle, decoder 2, decoder 1"}
    rows = parse_choices(operations, SLOTS, counts, "autoderain")
    return rows * count if len(rows) == 1 else rows


@register(
    tasks=("derain",),
    params=1_718_387,
    macs=15_749_633_024,
    multiple_of=4,
    tiny={"width": 8, "blocks": (1, 1, 1)},
)
def autoderain(
    width: int = 32,
    blocks: Sequence[int] = (2, 2, 4),
    operations: str | Sequence[str] = "conv3+conv3+se",
) -> AutoDerain:
    """AutoDerain with a given architecture; the default one is the hand-made network, the published one is unknown.

    Args:
        width: channels at full resolution.
        blocks: number of blocks at full, half and quarter resolution.
        operations: `conv_a+conv_b+se` with names of `CONVOLUTIONS` and `se` or `id`: one text for all blocks, or one each.
    """
    choices = expand_operations(operations, blocks)

    def block(place: int, channels: int) -> Block:
        return Block(*(chosen(name, make_op(name, channels)) for name in choices[place]))

    return AutoDerain(width, blocks, block)
