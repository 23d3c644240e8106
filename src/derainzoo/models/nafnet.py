"""NAFNet, "Simple Baselines for Image Restoration".

A U-shaped network of blocks without any nonlinear activation: a product of two halves stands for the gate, and a pooled
product for channel attention (section 4; the block is `layers.NAFBlock`, which others use too).

Written from the paper and its figures; the published code (MIT) was compared with. Images whose size is no multiple of 16 are
reflected here and padded with zeros there, so that their last rows and columns differ slightly. For deblurring the authors test
with local instead of global pooling, which adds no weights: the same files load.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import Official, Shapes
from derainzoo.models.layers import NAFBlock, ShuffleUp, crop, pad_to_multiple
from derainzoo.models.registry import Paper, register

PAPER = Paper(
    title="Simple Baselines for Image Restoration",
    authors="L. Chen, X. Chu, X. Zhang, J. Sun",
    venue="ECCV",
    year=2022,
    url="https://arxiv.org/abs/2204.04676",
    code="https://github.com/megvii-research/NAFNet",
    code_licence="MIT",
)


class NAFNet(nn.Module):
    """The whole.

    Args:
        width: channels at full resolution; they double at each level.
        encoder: blocks per encoder level, from full resolution down.
        middle: blocks at the bottom.
        decoder: blocks per decoder level, from the bottom up.
    """

    def __init__(self, width: int, encoder: Sequence[int], middle: int, decoder: Sequence[int]) -> None:
        super().__init__()
        if len(encoder) != len(decoder):
            raise DerainzooError(f"nafnet: as many encoder as decoder levels expected, got {encoder} and {decoder}")
        self.multiple_of = 2 ** len(encoder)

        def stage(channels: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))

        widths = [width * 2**level for level in range(len(encoder))]
        bottom = width * self.multiple_of
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList(stage(c, n) for c, n in zip(widths, encoder, strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths)
        self.middle = stage(bottom, middle)
        self.ups = nn.ModuleList(ShuffleUp(2 * c) for c in reversed(widths))
        self.decoders = nn.ModuleList(stage(c, n) for c, n in zip(reversed(widths), decoder, strict=True))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        h, w = image.shape[-2:]
        image = pad_to_multiple(image, self.multiple_of)
        x, skips = self.intro(image), []  # (B, width, H, W)
        for encode, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encode(x))
            x = down(skips[-1])  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        x = self.middle(x)
        for up, decode in zip(self.ups, self.decoders, strict=True):
            x = decode(up(x) + skips.pop())  # (B, 2C, H/2, W/2) -> (B, C, H, W)
        return crop(image + self.ending(x), h, w)


@register(
    tasks=("derain", "deblur", "denoise"),
    params=17_111_907,
    macs=15_956_027_392,
    multiple_of=16,
    tiny={"width": 8, "encoder": [1, 1, 1, 2]},
)
def nafnet(
    width: int = 32,
    encoder: Sequence[int] = (1, 1, 1, 28),
    middle: int = 1,
    decoder: Sequence[int] = (1, 1, 1, 1),
) -> NAFNet:
    """NAFNet in the shape of the deblurring networks: nearly all blocks at 1/8 of the size; `width=64` is the large one."""
    return NAFNet(width, encoder, middle, decoder)


@register(
    tasks=("derain", "deblur", "denoise"),
    params=29_159_715,
    macs=16_045_035_520,
    multiple_of=16,
    tiny={"width": 8, "encoder": [1, 1, 1, 1], "middle": 1, "decoder": [1, 1, 1, 1]},
)
def nafnet_sidd(
    width: int = 32,
    encoder: Sequence[int] = (2, 2, 4, 8),
    middle: int = 12,
    decoder: Sequence[int] = (2, 2, 2, 2),
) -> NAFNet:
    """NAFNet in the shape of the denoising networks: blocks spread over all levels; `width=64` is the large one."""
    return NAFNet(width, encoder, middle, decoder)


def _infer(shapes: Shapes) -> tuple[str, dict[str, object]]:
    width, channels = shapes["intro.weight"][:2]
    if channels != 3:
        raise DerainzooError(f"NAFNet takes RGB images here; these weights take {channels} channels")
    levels = sum(k.startswith("downs.") and k.endswith(".weight") for k in shapes)

    def count(stage: str) -> int:
        return sum(k.startswith(f"{stage}.") and k.endswith(".beta") for k in shapes)

    encoder = [count(f"encoders.{level}") for level in range(levels)]
    decoder = [count(f"decoders.{level}") for level in range(levels)]
    name = "nafnet_sidd" if encoder == [2, 2, 4, 8] else "nafnet"
    return name, {"width": width, "encoder": encoder, "middle": count("middle_blks"), "decoder": decoder}


BLOCK_RULES = (
    (r"\.conv1\.", ".expand1."),
    (r"\.conv2\.", ".depthwise."),
    (r"\.sca\.1\.", ".attend."),
    (r"\.conv3\.", ".project1."),
    (r"\.conv4\.", ".expand2."),
    (r"\.conv5\.", ".project2."),
)
"""Published names of what is in a NAF block; others who took the block kept them."""

OFFICIAL = Official(
    signature=("intro.weight", "ending.weight", "middle_blks.0.sca.1.weight", "ups.0.0.weight"),
    infer=_infer,
    rules=(
        (r"^middle_blks\.", "middle."),
        *BLOCK_RULES,
    ),
)
