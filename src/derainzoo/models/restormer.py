"""Restormer, "Efficient Transformer for High-Resolution Image Restoration".

A U-shaped network of Transformer blocks in which attention runs between channels (MDTA, section 3.1) and the feed-forward
layer gates itself (GDFN, section 3.2), so that the cost is linear in the number of pixels. Level l works at 1/2^l of the size
with 2^l times the width; the top decoder level and the refinement keep twice the width, as nothing reduces their concatenation.

Written from the paper; the published code is under a non-commercial licence and was only compared with. This network pads
itself (the published one leaves that to its test script), and images are RGB, so that weights for grey images or pairs of
half-pixel views do not load.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import Official, Shapes, shortest_expansion
from derainzoo.models.layers import ChannelSelfAttention, GatedFeedForward, LayerNorm2d, conv1, conv3, crop, pad_to_multiple
from derainzoo.models.registry import Paper, register

PAPER = Paper(
    title="Restormer: Efficient Transformer for High-Resolution Image Restoration",
    authors="S. W. Zamir, A. Arora, S. Khan, M. Hayat, F. S. Khan, M.-H. Yang",
    venue="CVPR",
    year=2022,
    url="https://arxiv.org/abs/2111.09881",
    code="https://github.com/swz30/Restormer",
    code_licence="Academic Public License (non-commercial)",
)


class BiasFreeNorm2d(nn.Module):
    """Divide by the standard deviation over channels: the mean stays in, and there is no bias (the denoisers' choice)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.var(1, keepdim=True, correction=0) + 1e-5) * self.weight[:, None, None]


class TransformerBlock(nn.Module):
    """MDTA and GDFN, both pre-norm and residual."""

    def __init__(self, channels: int, heads: int, expansion: float, bias_free: bool) -> None:
        super().__init__()
        norm = BiasFreeNorm2d if bias_free else LayerNorm2d
        self.norm1, self.attention = norm(channels), ChannelSelfAttention(channels, heads)
        self.norm2, self.feed_forward = norm(channels), GatedFeedForward(channels, int(channels * expansion), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class Restormer(nn.Module):
    """The whole.

    Args:
        dim: width of the first level; it doubles at each.
        blocks: Transformer blocks per level, the last being the bottom; decoder levels have as many as encoder levels.
        refinement: blocks at full resolution after the last decoder level.
        heads: attention heads per level.
        expansion: width of the feed-forward layer as a multiple of the block's, rounded down.
        bias_free: normalisation without mean and bias.
    """

    def __init__(
        self,
        dim: int,
        blocks: Sequence[int],
        refinement: int,
        heads: Sequence[int],
        expansion: float,
        bias_free: bool,
    ) -> None:
        super().__init__()
        if len(blocks) != len(heads):
            raise DerainzooError(f"restormer: one number of heads per level expected, got blocks {blocks}, heads {heads}")
        levels = len(blocks) - 1  # above the bottom
        self.multiple_of = 2**levels

        def stage(width: int, level: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(width, heads[level], expansion, bias_free) for _ in range(count)))

        widths = [dim * 2**level for level in range(levels + 1)]
        self.embed = conv3(3, dim)
        self.encoders = nn.ModuleList(stage(widths[i], i, blocks[i]) for i in range(levels))
        self.downs = nn.ModuleList(nn.Sequential(conv3(w, w // 2), nn.PixelUnshuffle(2)) for w in widths[:-1])
        self.bottom = stage(widths[-1], levels, blocks[-1])
        # index 0 is the lowest decoder level
        self.ups = nn.ModuleList(nn.Sequential(conv3(w, 2 * w), nn.PixelShuffle(2)) for w in reversed(widths[1:]))
        self.reduces = nn.ModuleList(conv1(2 * w, w) for w in reversed(widths[1:-1]))
        self.reduces.append(nn.Identity())  # the top level keeps both halves
        self.decoders = nn.ModuleList(stage(max(widths[i], 2 * dim), i, blocks[i]) for i in reversed(range(levels)))
        self.refinement = stage(2 * dim, 0, refinement)
        self.tail = conv3(2 * dim, 3)

    def forward(self, image: Tensor) -> Tensor:
        h, w = image.shape[-2:]
        image = pad_to_multiple(image, self.multiple_of)
        x, skips = self.embed(image), []  # (B, dim, H, W)
        for encode, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encode(x))
            x = down(skips[-1])  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        x = self.bottom(x)
        for up, reduce, decode in zip(self.ups, self.reduces, self.decoders, strict=True):
            x = decode(reduce(torch.cat([up(x), skips.pop()], 1)))  # (B, 2C, H/2, W/2) -> (B, C, H, W); top: (B, 2C, H, W)
        return crop(image + self.tail(self.refinement(x)), h, w)


@register(
    tasks=("derain", "deblur", "denoise"),
    params=26_126_644,
    macs=148_026_949_632,
    multiple_of=8,
    tiny={"dim": 8, "blocks": [1, 1, 1, 1], "refinement": 1},
)
def restormer(
    dim: int = 48,
    blocks: Sequence[int] = (4, 6, 6, 8),
    refinement: int = 4,
    heads: Sequence[int] = (1, 2, 4, 8),
    expansion: float = 2.66,
    bias_free: bool = False,
) -> Restormer:
    """Restormer as it was trained for deraining."""
    return Restormer(dim, blocks, refinement, heads, expansion, bias_free)


def _infer(shapes: Shapes) -> tuple[str, dict[str, object]]:
    dim, channels = shapes["patch_embed.proj.weight"][:2]
    if channels != 3:
        raise DerainzooError(f"Restormer takes RGB images here; these weights take {channels} channels")
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")

    def count(stage: str) -> int:
        return sum(k.startswith(f"{stage}.") and k.endswith(".attn.temperature") for k in shapes)

    projections = (shapes[f"{level}.0.ffn.project_out.weight"] for level in levels)  # (C, hidden, 1, 1)
    return "restormer", {
        "dim": dim,
        "blocks": [count(level) for level in levels],
        "refinement": count("refinement"),
        "heads": [shapes[f"{level}.0.attn.temperature"][0] for level in levels],
        "expansion": shortest_expansion({p[0]: p[1] for p in projections}),
        "bias_free": "encoder_level1.0.norm1.body.bias" not in shapes,
    }


OFFICIAL = Official(
    signature=("patch_embed.proj.weight", "encoder_level1.0.ffn.dwconv.weight", "reduce_chan_level3.weight", "output.weight"),
    infer=_infer,
    rules=(
        (r"^patch_embed\.proj\.", "embed."),
        (r"^encoder_level(\d)\.", lambda m: f"encoders.{int(m[1]) - 1}."),
        (r"^down(\d)_\d\.body\.", lambda m: f"downs.{int(m[1]) - 1}."),
        (r"^latent\.", "bottom."),
        # decoder levels are numbered from the top there, from the bottom here
        (r"^up\d_(\d)\.body\.", lambda m: f"ups.{3 - int(m[1])}."),
        (r"^reduce_chan_level(\d)\.", lambda m: f"reduces.{3 - int(m[1])}."),
        (r"^decoder_level(\d)\.", lambda m: f"decoders.{3 - int(m[1])}."),
        (r"^output\.", "tail."),
        (r"\.(norm\d)\.body\.", r".\1."),
        (r"\.attn\.qkv_dwconv\.", ".attention.qkv_depthwise."),
        (r"\.attn\.project_out\.", ".attention.project."),
        (r"\.attn\.", ".attention."),
        (r"\.ffn\.project_in\.", ".feed_forward.expand."),
        (r"\.ffn\.dwconv\.", ".feed_forward.depthwise."),
        (r"\.ffn\.project_out\.", ".feed_forward.project."),
    ),
)
