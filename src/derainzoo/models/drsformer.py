"""DRSformer: a U-shaped Transformer whose channel attention keeps only the largest scores.

Three parts (names of the paper): TKSA, top-k sparse channel attention; MSFN, a feed-forward network at two scales; MEFC, a
mixture of eight convolutions weighted from the picture's mean, before and behind the Transformer levels.

    x <- x + TKSA(LN(x))        x <- x + MSFN(LN(x))                                             (2, 3)

Written from the paper and from a description of the published code, none of which is used: it carries no licence. Published
weights load (`OFFICIAL`). The published code is followed where it differs from the paper's figures: MSFN has one 1x1
convolution at its entrance, whose output goes through both depthwise convolutions; its second pair of convolutions sees two
*neighbouring* channels per group, mostly of one scale; the branch weights of TKSA are not normalised.

The same function is computed in a cheaper way than the paper writes it; each place names its identity. All of it works in
channels_last memory, in which layer norm, 1x1 convolutions and the attention's products read pixels as rows without a copy.
`tests/reference/drsformer_plain.py` holds the literal formulation, with which outputs and gradients are compared.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import Official, Shapes, shortest_expansion
from derainzoo.models.layers import (
    DepthwiseConv,
    LayerNorm2d,
    SparseChannelAttention,
    conv1,
    conv3,
    crop,
    depthwise_conv2d,
    pad_to_multiple,
)
from derainzoo.models.registry import Paper, register

PAPER = Paper(
    title="Learning A Sparse Transformer Network for Effective Image Deraining",
    authors="X. Chen, H. Li, M. Li, J. Pan",
    venue="CVPR",
    year=2023,
    url="https://arxiv.org/abs/2303.11950",
    code="https://github.com/cschenxiang/DRSformer",
    code_licence="none stated",
)


def pair_conv(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Convolution of [u, v] with two neighbouring channels a group, as a depthwise convolution and a sum of neighbours.

    y[g] = K[g, 0] * x[2g] + K[g, 1] * x[2g + 1], so the weight (n, 2, k, k) is a depthwise one if viewed as (2n, 1, k, k). The
    grouped convolution itself takes a slow path on the CPU, and this way u and v need not be concatenated.
    """
    weight_u, weight_v = weight.flatten(0, 1).unsqueeze(1).chunk(2)
    u, v = depthwise_conv2d(u, weight_u), depthwise_conv2d(v, weight_v)
    return pair_sum(u, v) if torch.compiler.is_exporting() else _PairSum.apply(u, v)


def pair_sum(u: Tensor, v: Tensor) -> Tensor:
    """Sums of the neighbouring channels (0, 1), (2, 3), ... of [u, v]; where n is odd one pair lies across the two."""
    odd = u.shape[1] % 2
    pairs_u = u[:, 0 : u.shape[1] - odd : 2] + u[:, 1::2]
    pairs_v = v[:, odd::2] + v[:, odd + 1 :: 2]
    return torch.cat([pairs_u, u[:, -1:] + v[:, :1], pairs_v] if odd else [pairs_u, pairs_v], 1)


class _PairSum(torch.autograd.Function):
    """`pair_sum`; left to itself, autograd would write a whole gradient for each slice."""

    @staticmethod
    def forward(u: Tensor, v: Tensor) -> Tensor:
        return pair_sum(u, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        n = g.shape[1]
        half = n // 2
        grad_u, grad_v = torch.empty_like(g), torch.empty_like(g)
        grad_u[:, 0::2], grad_u[:, 1::2] = g[:, : n - half], g[:, :half]
        grad_v[:, 0::2], grad_v[:, 1::2] = g[:, half:], g[:, n - half :]
        return grad_u, grad_v


class FeedForward(nn.Module):
    """MSFN: a 3x3 and a 5x5 depthwise convolution side by side, twice; the second time on pairs of channels.

    The first half of the hidden channels goes to the 3x3 pairs, the second to the 5x5 pairs, and they meet only in the sum at
    the end, so they are computed one after the other and the wide features are never concatenated or split.
    """

    def __init__(self, c: int, expansion: float) -> None:
        super().__init__()
        n = int(expansion * c)
        self.expand = conv1(c, 2 * n)
        self.depthwise3, self.depthwise5 = DepthwiseConv(2 * n, 3), DepthwiseConv(2 * n, 5)
        self.pair3, self.pair5 = (nn.Conv2d(2 * n, n, k, groups=n, bias=False) for k in (3, 5))
        self.project = conv1(2 * n, c)

    def forward(self, x: Tensor) -> Tensor:
        halves = zip(
            self.expand.weight.chunk(2),
            self.depthwise3.weight.chunk(2),
            self.depthwise5.weight.chunk(2),
            (self.pair3.weight, self.pair5.weight),
            self.project.weight.chunk(2, 1),
            strict=True,
        )
        out = []
        for expand, depthwise3, depthwise5, pair, project in halves:
            hidden = F.conv2d(x, expand)
            u = F.relu_(depthwise_conv2d(hidden, depthwise3))
            v = F.relu_(depthwise_conv2d(hidden, depthwise5))
            out.append(F.conv2d(F.relu_(pair_conv(u, v, pair)), project))
        return out[0] + out[1]


class Block(nn.Module):
    """STB: attention and feed-forward, both pre-norm."""

    def __init__(self, c: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1, self.attention = LayerNorm2d(c), SparseChannelAttention(c, heads)
        self.norm2, self.feed_forward = LayerNorm2d(c), FeedForward(c, expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class Expert(nn.Module):
    """One convolutional operation of MEFC, except the 1x1 convolution at its end: `ExpertStep` merges that with its own."""

    project: nn.Conv2d

    def matrix(self) -> Tensor:
        """The 1x1 convolution at the end."""
        return self.project.weight.flatten(1)


class Separable(Expert):
    """Depthwise, 1x1, ReLU, depthwise, 1x1."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.depthwise1, self.mix = DepthwiseConv(c, k), conv1(c, c)
        self.depthwise2, self.project = DepthwiseConv(c, k), conv1(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise2(F.relu_(self.mix(self.depthwise1(x))))


class PointwiseSeparable(Separable):
    """The same for k = 1, where the depthwise convolutions are factors of channels and merge with the 1x1 ones."""

    def __init__(self, c: int) -> None:
        super().__init__(c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(F.conv2d(x, self.mix.weight * self.depthwise1.weight.transpose(0, 1)))

    def matrix(self) -> Tensor:
        return super().matrix() * self.depthwise2.weight.flatten()


class Dilated(Expert):
    """Depthwise with dilation 2, 1x1."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.depthwise, self.project = DepthwiseConv(c, k, dilation=2), conv1(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise(x)


class ExpertStep(nn.Module):
    """Seven convolutional experts and a 3x3 mean, each weighted for the picture, fused by a 1x1 convolution W.

    ReLU(x + ReLU(sum_j (w_j W_j P_j) f_j(x))) with the features f_j of expert j, its 1x1 convolution P_j and its weight w_j.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            [PointwiseSeparable(c), *(Separable(c, k) for k in (3, 5, 7)), *(Dilated(c, k) for k in (3, 5, 7))]
        )
        self.fuse = conv1(8 * c, c)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        b, c, h, w = x.shape
        fuse = self.fuse.weight.view(c, 8, c).unbind(1)  # W_j

        def rows(features: Tensor) -> Tensor:
            return features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, HW, C)

        def matrix(j: int, linear: Tensor) -> Tensor:
            return weights[:, j, None, None] * linear.mT  # one for each picture, (B, C, C)

        y = rows(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)) @ matrix(7, fuse[7])
        for j, expert in enumerate(cast("Iterable[Expert]", self.experts)):
            y = torch.baddbmm(y, rows(expert(x)), matrix(j, fuse[j] @ expert.matrix()))
        return F.relu_(x + F.relu_(y).view(b, h, w, c).permute(0, 3, 1, 2))


class Compensator(nn.Module):
    """MEFC: four steps of experts, whose weights all come from the mean of the features at the entrance."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(c, 64), nn.ReLU(), nn.Linear(64, 32))
        self.enter = conv1(c, c)
        self.steps = nn.ModuleList(ExpertStep(c) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weigh(x.mean((2, 3))).view(-1, 4, 8).softmax(-1)
        x = F.relu_(self.enter(x))
        for step, w in zip(self.steps, weights.unbind(1), strict=True):
            x = step(x, w)
        return x


class DRSformer(nn.Module):
    """Encoder of three levels, latent level, decoder of three levels whose last one keeps the width of the concatenation.

    Args:
        dim: width C of the first level; it doubles with each level.
        blocks: Transformer blocks of levels 1 to 3 (encoder and decoder each) and of the latent level.
        heads: attention heads of these levels.
        expansion: hidden width of MSFN over its input width.
        compensate: with MEFC at both ends (the published choice for Rain200H, DID-Data and DDN-Data) or without.
        checkpoint: keep only the blocks' inputs for the backward pass and compute the rest again.
    """

    multiple_of = 8

    def __init__(
        self, dim: int, blocks: Sequence[int], heads: Sequence[int], expansion: float, compensate: bool, checkpoint: bool
    ) -> None:
        super().__init__()
        if not len(blocks) == len(heads) == 4:
            raise DerainzooError(f"DRSformer has 4 levels, found blocks={list(blocks)} and heads={list(heads)}; give 4 of each")
        self.checkpoint = checkpoint
        c1, c2, c3, c4 = (dim * 2**level for level in range(4))

        def level(width: int, index: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, heads[index], expansion) for _ in range(blocks[index]))

        self.embed, self.enter = conv3(3, c1), Compensator(c1) if compensate else nn.Identity()
        self.encoder1, self.down1 = level(c1, 0), conv3(c1, c1 // 2)
        self.encoder2, self.down2 = level(c2, 1), conv3(c2, c2 // 2)
        self.encoder3, self.down3 = level(c3, 2), conv3(c3, c3 // 2)
        self.latent, self.up3 = level(c4, 3), conv3(c4, 2 * c4)
        self.reduce3, self.decoder3, self.up2 = conv1(2 * c3, c3), level(c3, 2), conv3(c3, 2 * c3)
        self.reduce2, self.decoder2, self.up1 = conv1(2 * c2, c2), level(c2, 1), conv3(c2, 2 * c2)
        self.decoder1 = level(c2, 0)
        self.leave, self.output = Compensator(c2) if compensate else nn.Identity(), conv3(c2, 3)

    def run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpoint and self.training else block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        image = pad_to_multiple(x, self.multiple_of).contiguous(memory_format=torch.channels_last)
        e1 = self.run(self.encoder1, self.enter(self.embed(image)))  # C, 1/1
        e2 = self.run(self.encoder2, F.pixel_unshuffle(self.down1(e1), 2))  # 2C, 1/2
        e3 = self.run(self.encoder3, F.pixel_unshuffle(self.down2(e2), 2))  # 4C, 1/4
        y = self.run(self.latent, F.pixel_unshuffle(self.down3(e3), 2))  # 8C, 1/8
        y = self.run(self.decoder3, self.reduce3(torch.cat([F.pixel_shuffle(self.up3(y), 2), e3], 1)))  # 4C
        y = self.run(self.decoder2, self.reduce2(torch.cat([F.pixel_shuffle(self.up2(y), 2), e2], 1)))  # 2C
        y = self.run(self.decoder1, torch.cat([F.pixel_shuffle(self.up1(y), 2), e1], 1))  # 2C, 1/1
        return crop(self.output(self.leave(y)) + image, h, w)


@register(
    tasks=("derain",),
    params=33_655_424,
    macs=203_760_612_352,
    multiple_of=8,
    tiny={"dim": 8, "blocks": (1, 1, 1, 1), "heads": (1, 2, 2, 4)},
)
def drsformer(
    dim: int = 48,
    blocks: Sequence[int] = (4, 6, 6, 8),
    heads: Sequence[int] = (1, 2, 4, 8),
    expansion: float = 2.66,
    checkpoint: bool = False,
) -> DRSformer:
    """DRSformer with MEFC, as published for Rain200H, DID-Data and DDN-Data."""
    return DRSformer(dim, blocks, heads, expansion, compensate=True, checkpoint=checkpoint)


@register(
    tasks=("derain",),
    params=32_610_304,
    macs=157_339_533_312,
    multiple_of=8,
    tiny={"dim": 8, "blocks": (1, 1, 1, 1), "heads": (1, 2, 2, 4)},
)
def drsformer_plain(
    dim: int = 48,
    blocks: Sequence[int] = (4, 6, 6, 8),
    heads: Sequence[int] = (1, 2, 4, 8),
    expansion: float = 2.66,
    checkpoint: bool = False,
) -> DRSformer:
    """DRSformer without MEFC, as published for Rain200L and SPA-Data."""
    return DRSformer(dim, blocks, heads, expansion, compensate=False, checkpoint=checkpoint)


def _infer(shapes: Shapes) -> tuple[str, dict[str, object]]:
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    projections = (shapes[f"{level}.0.ffn.project_out.weight"] for level in levels)  # (C, 2 hidden, 1, 1)
    name = "drsformer" if "encoder_level0.layers.0.ca_fc.0.weight" in shapes else "drsformer_plain"
    return name, {
        "dim": shapes["patch_embed.proj.weight"][0],
        "blocks": [sum(k.startswith(f"{v}.") and k.endswith(".attn.temperature") for k in shapes) for v in levels],
        "heads": [shapes[f"{level}.0.attn.temperature"][0] for level in levels],
        "expansion": shortest_expansion({p[0]: p[1] // 2 for p in projections}),
    }


OFFICIAL = Official(
    signature=("patch_embed.proj.weight", "encoder_level1.0.attn.attn1", "encoder_level1.0.ffn.dwconv5x5_1.weight"),
    infer=_infer,
    rules=(
        (r"^patch_embed\.proj\.", "embed."),
        (r"^encoder_level0\.", "enter."),
        (r"^refinement\.", "leave."),
        (r"^(en|de)coder_level(\d)\.", r"\1coder\2."),
        (r"^down(\d)_\d\.body\.0\.", r"down\1."),
        (r"^up\d_(\d)\.body\.0\.", r"up\1."),
        (r"^reduce_chan_level", "reduce"),
        (r"\.(norm\d)\.body\.", r".\1."),
        (r"\.attn\.attn1$", ".attention.mix.0"),
        (r"\.attn\.attn2$", ".attention.mix.1"),
        (r"\.attn\.attn3$", ".attention.mix.2"),
        (r"\.attn\.attn4$", ".attention.mix.3"),
        (r"\.attn\.qkv_dwconv\.", ".attention.qkv_depthwise."),
        (r"\.attn\.project_out\.", ".attention.project."),
        (r"\.attn\.", ".attention."),
        (r"\.ffn\.project_in\.", ".feed_forward.expand."),
        (r"\.ffn\.project_out\.", ".feed_forward.project."),
        (r"\.ffn\.dwconv(\d)x\d\.", r".feed_forward.depthwise\1."),
        (r"\.ffn\.dwconv(\d)x\d_1\.", r".feed_forward.pair\1."),
        (r"\.layers\.0\.ca_fc\.", ".weigh."),
        (r"\.layers\.1\.preprocess\.op\.0\.", ".enter."),
        (r"\.layers\.1\._ops\.(\d)\._out\.0\.", r".steps.\1.fuse."),
        (r"\.layers\.1\._ops\.(\d)\._ops\.(\d)\.op\.", r".steps.\1.experts.\2."),
        (r"\.experts\.([0-3])\.0\.", r".experts.\1.depthwise1."),
        (r"\.experts\.([0-3])\.1\.", r".experts.\1.mix."),
        (r"\.experts\.([0-3])\.3\.", r".experts.\1.depthwise2."),
        (r"\.experts\.([0-3])\.4\.", r".experts.\1.project."),
        (r"\.experts\.([4-6])\.0\.", r".experts.\1.depthwise."),
        (r"\.experts\.([4-6])\.1\.", r".experts.\1.project."),
    ),
)
