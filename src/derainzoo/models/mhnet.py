"""MHNet, "Mixed Hierarchy Network": a U-Net for context below, a network at full resolution for detail above.

Two different networks bear the name, both here. The *first form* (the paper's versions 1 to 3, and its reported deraining
results) has a dual attention unit (DAU) for shallow features and a cascade of channel attention groups (CABG, CASNet) at full
resolution, into which the U-Net's features are added. The *later form* (version 4) has top-k sparse attention (SMAM) at the
bottom of the U-Net, groups of NAF blocks (NAFG) in its full-resolution network FRSNet, and fuses by attention (AFFM).

Written from descriptions of the published code, none of which is used: its licence is non-commercial. Published weights load
(`OFFICIAL`). Kept as published, because the network is otherwise another one: the middle block of the U-Net has neither norm
nor residual; AFFM takes its softmax over the channels of each branch, not over the branches; one convolution (`shared`) serves
the decoder features of all four groups. Not kept: weights that nothing reads, 15,747 in the later form (so 67,527,564 instead
of 67,543,311 parameters; 17,037,516 instead of 17,042,319 at width 32), and 1,320 (2,112 for deblurring) in the first.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import Official, Shapes
from derainzoo.models.layers import (
    ChannelSelfAttention,
    GlobalPool,
    LayerNorm2d,
    NAFBlock,
    SeparableConv,
    ShuffleUp,
    SparseChannelAttention,
    conv1,
    conv3,
    crop,
    pad_to_multiple,
    simple_gate,
)
from derainzoo.models.nafnet import BLOCK_RULES
from derainzoo.models.registry import Paper, register

PAPER = Paper(
    title="Mixed Hierarchy Network for Image Restoration",
    authors="H. Gao, D. Dang",
    venue="Pattern Recognition",
    year=2025,
    url="https://arxiv.org/abs/2302.09554",
    code="https://github.com/Tombs98/MHNet",
    code_licence="Academic Public License (non-commercial)",
)


class MHNetOutput(NamedTuple):
    """What the first form gives in training: the restored image, and the one that its U-Net alone restores."""

    image: Tensor
    stage1: Tensor


class UNet(nn.Module):
    """Four levels of NAF blocks around a middle block; gives the features of every level.

    Args:
        width: channels at full resolution; they double at each level.
        encoder: NAF blocks per encoder level; a decoder level has one.
        middle: what stands at 1/16 of the size, 16 times the width.
    """

    def __init__(self, width: int, encoder: Sequence[int], middle: nn.Module) -> None:
        super().__init__()
        if len(encoder) != 4:
            raise DerainzooError(f"MHNet has 4 encoder levels, found encoder={list(encoder)}; give 4 numbers of blocks")
        widths = [width * 2**level for level in range(4)]
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList(
            nn.Sequential(*(NAFBlock(c) for _ in range(n))) for c, n in zip(widths, encoder, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths)
        self.middle = middle
        self.ups = nn.ModuleList(ShuffleUp(2 * c) for c in reversed(widths))
        self.decoders = nn.ModuleList(NAFBlock(c) for c in reversed(widths))

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Encoder and decoder features, both from full size down: (B, C, H, W), (B, 2C, H/2, W/2), ..."""
        x, encoded, decoded = self.intro(image), [], []
        for encode, down in zip(self.encoders, self.downs, strict=True):
            encoded.append(encode(x))
            x = down(encoded[-1])
        x = self.middle(x)  # (B, 16C, H/16, W/16)
        for up, decode, skip in zip(self.ups, self.decoders, reversed(encoded), strict=True):
            x = decode(up(x) + skip)
            decoded.append(x)
        return encoded, decoded[::-1]


# --- the first form ---------------------------------------------------------------------------------------------------------


class DualAttentionUnit(nn.Module):
    """DAU: pixels and channels gated side by side, merged, residual."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3(c, c), conv3(c // 2, c)
        self.pixels = nn.Conv2d(2, 1, 5, padding=2, bias=False)
        self.pool, self.squeeze, self.excite = GlobalPool(), conv1(c, c // 4), conv1(c // 4, c)
        self.merge = conv1(2 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        r = self.conv2(simple_gate(self.conv1(x)))
        pixels = torch.sigmoid(self.pixels(torch.cat([r.amax(1, keepdim=True), r.mean(1, keepdim=True)], 1)))
        channels = torch.sigmoid(self.excite(F.relu(self.squeeze(self.pool(r)))))
        return self.merge(torch.cat([r * pixels, r * channels], 1)) + x


class ChannelAttentionBlock(nn.Module):
    """SCAB: two separable convolutions with a gate between, times a linear map of its own mean, residual."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = SeparableConv(c, c), SeparableConv(c // 2, c)
        self.pool, self.attend = GlobalPool(), nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(simple_gate(self.conv1(x)))
        return y * self.attend(self.pool(y)) + x


class ChannelAttentionGroup(nn.Module):
    """CABG: SCABs and a closing convolution, residual."""

    def __init__(self, c: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ChannelAttentionBlock(c) for _ in range(blocks)))
        self.close = conv3(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.close(self.blocks(x))


def bring_up(encoded: Tensor, decoded: Tensor, encoded_chain: nn.Module, decoded_chain: nn.Module) -> Tensor:
    """Encoder and decoder features of one level, through a chain of 1x1 convolutions each, summed at full size.

    As published, each of the two is doubled bilinearly before every convolution but the last. Convolutions of size 1 without
    bias commute with interpolation, so here they come first, merged into one matrix P = P_m ... P_1 at the small size, and
    the sum is interpolated once: up(P e + Q d).
    """

    def merged(chain: nn.Module) -> tuple[Tensor, int]:
        matrix, *others = (weight.flatten(1) for weight in chain.parameters())
        for other in others:
            matrix = other @ matrix
        return matrix[..., None, None], len(others)

    (p, doublings), (q, _) = merged(encoded_chain), merged(decoded_chain)
    x = F.conv2d(encoded, p) + F.conv2d(decoded, q)
    for _ in range(doublings):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return x


class CascadeNetwork(nn.Module):
    """CASNet: four groups (CABG), each followed by the U-Net's features of one level."""

    def __init__(self, width: int, features: int, blocks: int) -> None:
        super().__init__()
        self.enter = conv1(width, features)
        self.norms = nn.ModuleList(LayerNorm2d(features, eps=1e-6) for _ in range(4))
        self.groups = nn.ModuleList(ChannelAttentionGroup(features, blocks) for _ in range(4))

        def chain(level: int) -> nn.Sequential:
            widths = [width * 2**i for i in range(level, 0, -1)] or [width]
            return nn.Sequential(*(conv1(a, b) for a, b in pairwise([*widths, features, features][: level + 2])))

        self.encoded, self.decoded = (nn.ModuleList(chain(level) for level in range(4)) for _ in range(2))

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        x = self.enter(x)
        for level in range(4):
            up = bring_up(encoded[level], decoded[level], self.encoded[level], self.decoded[level])
            x = self.groups[level](self.norms[level](x)) + up
        return x


class MHNet(nn.Module):
    """The first form: I -> (image, stage1) in training, image in evaluation.

    Args:
        width: channels C of the U-Net at full resolution.
        features: channels of CASNet.
        encoder: NAF blocks per encoder level.
        blocks: SCABs in each of the four groups.
        heads: attention heads in the middle of the U-Net.
    """

    multiple_of = 16

    def __init__(self, width: int, features: int, encoder: Sequence[int], blocks: int, heads: int) -> None:
        super().__init__()
        self.shallow = nn.Sequential(conv3(3, width), DualAttentionUnit(width))
        self.unet = UNet(width, encoder, ChannelSelfAttention(16 * width, heads))
        self.unet_image = nn.Conv2d(width, 3, 3, padding=1)
        self.merge = conv3(2 * width, width)
        self.detail = CascadeNetwork(width, features, blocks)
        self.tail = conv3(features, 3)

    def forward(self, x: Tensor) -> MHNetOutput | Tensor:
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of).contiguous(memory_format=torch.channels_last)
        encoded, decoded = self.unet(x)
        features = self.merge(torch.cat([self.shallow(x), decoded[0]], 1))
        image = crop(self.tail(self.detail(features, encoded, decoded)) + x, h, w)
        return MHNetOutput(image, crop(self.unet_image(decoded[0]) + x, h, w)) if self.training else image


# --- the later form ---------------------------------------------------------------------------------------------------------


class AdaptiveFusion(nn.Module):
    """AFFM: a_0 f + a_1 e + a_2 d, each a a softmax over channels, from the mean of f + e + d."""

    def __init__(self, c: int) -> None:
        super().__init__()
        r = max(c // 8, 4)
        self.pool, self.squeeze = GlobalPool(), conv1(c, r)
        self.excite = nn.ModuleList(conv1(r // 2, c) for _ in range(3))

    def forward(self, f: Tensor, e: Tensor, d: Tensor) -> Tensor:
        z = simple_gate(self.squeeze(self.pool(f + e + d)))
        a = [excite(z).softmax(1) for excite in self.excite]
        return a[0] * f + a[1] * e + a[2] * d


class FullResolutionNetwork(nn.Module):
    """FRSNet: four groups of NAF blocks (NAFG), each fused with the U-Net's features of one level."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm2d(width, eps=1e-6) for _ in range(4))
        self.groups = nn.ModuleList(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))) for _ in range(4))
        self.fusions = nn.ModuleList(AdaptiveFusion(width) for _ in range(4))

        def ups(level: int) -> list[nn.Module]:
            return [ShuffleUp(width * 2**i) for i in range(level, 0, -1)]

        self.encoded = nn.ModuleList(nn.Sequential(*ups(level), conv1(width, width)) for level in range(4))
        self.decoded = nn.ModuleList(nn.Sequential(*ups(level)) for level in range(4))
        self.shared = conv1(width, width)  # published with one for each level, of which the first serves all

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        for level in range(4):
            x = self.norms[level](x)
            x = x + self.groups[level](x)
            x = self.fusions[level](x, self.encoded[level](encoded[level]), self.shared(self.decoded[level](decoded[level])))
        return x


class MHNetHead(nn.Module):
    """The later form.

    Args:
        width: channels C at full resolution.
        encoder: NAF blocks per encoder level of the U-Net.
        blocks: NAF blocks in each of the four groups.
        heads: attention heads in the middle of the U-Net.
    """

    multiple_of = 16

    def __init__(self, width: int, encoder: Sequence[int], blocks: int, heads: int) -> None:
        super().__init__()
        self.unet = UNet(width, encoder, SparseChannelAttention(16 * width, heads))
        self.shallow, self.merge = conv3(3, width), conv1(2 * width, width)
        self.detail = FullResolutionNetwork(width, blocks)
        self.tail = conv3(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of).contiguous(memory_format=torch.channels_last)
        encoded, decoded = self.unet(x)
        features = self.merge(torch.cat([self.shallow(x), decoded[0]], 1))
        return crop(self.tail(self.detail(features, encoded, decoded)) + x, h, w)


@register(
    tasks=("derain",),
    params=16_695_285,
    macs=28_516_700_672,
    multiple_of=16,
    tiny={"width": 8, "features": 10, "encoder": (1, 1, 1, 2), "blocks": 1},
)
def mhnet(
    width: int = 32,
    features: int = 40,
    encoder: Sequence[int] = (1, 1, 1, 28),
    blocks: int = 8,
    heads: int = 8,
) -> MHNet:
    """MHNet in the form whose deraining results are published (versions 1 to 3 of the paper)."""
    return MHNet(width, features, encoder, blocks, heads)


@register(
    tasks=("deblur",),
    params=17_025_981,
    macs=43_221_756_416,
    multiple_of=16,
    tiny={"width": 8, "features": 10, "encoder": (1, 1, 1, 2), "blocks": 1},
)
def mhnet_deblur(
    width: int = 32,
    features: int = 64,
    encoder: Sequence[int] = (1, 1, 1, 28),
    blocks: int = 8,
    heads: int = 8,
) -> MHNet:
    """The first form as published for deblurring: a wider full-resolution network."""
    return MHNet(width, features, encoder, blocks, heads)


@register(
    tasks=("derain", "deblur"),
    params=67_527_564,
    macs=125_882_905_600,
    multiple_of=16,
    tiny={"width": 8, "encoder": (1, 1, 1, 2), "blocks": 1},
)
def mhnet_head(
    width: int = 64,
    encoder: Sequence[int] = (1, 1, 1, 28),
    blocks: int = 8,
    heads: int = 8,
) -> MHNetHead:
    """The later form, which stands in the authors' repository today (version 4 of the paper), at its default width."""
    return MHNetHead(width, encoder, blocks, heads)


@register(
    tasks=("derain", "deblur"),
    params=17_037_516,
    macs=32_279_112_960,
    multiple_of=16,
    tiny={"width": 8, "encoder": (1, 1, 1, 2), "blocks": 1},
)
def mhnet_head_w32(
    width: int = 32,
    encoder: Sequence[int] = (1, 1, 1, 28),
    blocks: int = 8,
    heads: int = 8,
) -> MHNetHead:
    """The later form at half the width."""
    return MHNetHead(width, encoder, blocks, heads)


def _infer(shapes: Shapes) -> tuple[str, dict[str, object]]:
    def count(beginning: str, end: str) -> int:
        return sum(k.startswith(beginning) and k.endswith(end) for k in shapes)

    width = shapes["stage1.intro.weight"][0]
    arguments: dict[str, object] = {
        "width": width,
        "encoder": [count(f"stage1.encoders.{level}.", ".beta") for level in range(4)],
        "heads": shapes["stage1.middle_blks.0.temperature"][0],
    }
    if "stage2.skff1.conv_du.0.weight" in shapes:
        name = "mhnet_head_w32" if width == 32 else "mhnet_head"
        return name, {**arguments, "blocks": count("stage2.CABG1.", ".beta")}
    features = shapes["tail.weight"][1]
    blocks = count("stage2.CABG1.", ".SCA.conv_du.0.weight")
    return "mhnet_deblur" if features == 64 else "mhnet", {**arguments, "features": features, "blocks": blocks}


def _from_zero(template: str) -> Callable[[re.Match[str]], str]:
    """Replacement for a match whose first number counts from one: it fills `template` counted from zero, the rest follows."""
    return lambda m: template.format(int(m["n"]) - 1, **m.groupdict())


OFFICIAL = Official(
    signature=("stage1.middle_blks.0.temperature", "stage1.ups.0.0.weight", "stage2.norm1.weight", "concat12.weight"),
    infer=_infer,
    rules=(
        # NAF blocks and attention, wherever they stand
        *BLOCK_RULES,
        (r"\.qkv_dwconv\.", ".qkv_depthwise."),
        (r"\.project_out\.", ".project."),
        (r"\.attn(?P<n>\d)$", _from_zero(".mix.{}")),
        # the U-Net
        (r"^stage1\.ending\.", "unet_image."),
        (r"^stage1\.middle_blks\.0\.", "unet.middle."),
        (r"^stage1\.decoders\.(\d)\.0\.", r"unet.decoders.\1."),
        (r"^stage1\.", "unet."),
        # shallow features and the ends
        (r"^shallow_feat1\.", "shallow."),
        (r"^shallow\.1\.body\.0\.", "shallow.1.conv1."),
        (r"^shallow\.1\.body\.2\.", "shallow.1.conv2."),
        (r"^shallow\.1\.SA\.spatial\.conv\.", "shallow.1.pixels."),
        (r"^shallow\.1\.CA\.conv_du\.0\.", "shallow.1.squeeze."),
        (r"^shallow\.1\.CA\.conv_du\.2\.", "shallow.1.excite."),
        (r"^shallow\.1\.conv1x1\.", "shallow.1.merge."),
        (r"^intro2\.", "shallow."),
        (r"^concat12\.", "merge."),
        (r"^ending\.", "tail."),
        # full resolution
        (r"^stage2\.info\.", "detail.enter."),
        (r"^stage2\.norm(?P<n>\d)\.", _from_zero("detail.norms.{}.")),
        (r"^stage2\.CABG(?P<n>\d)\.body\.\d+\.weight$", _from_zero("detail.groups.{}.close.weight")),
        (r"^stage2\.CABG(?P<n>\d)\.body\.", _from_zero("detail.groups.{}.blocks.")),
        (r"^stage2\.CABG(?P<n>\d)\.", _from_zero("detail.groups.{}.")),
        (r"^(detail\.groups\.\d\.blocks\.\d+)\.body\.0\.", r"\1.conv1."),
        (r"^(detail\.groups\.\d\.blocks\.\d+)\.body\.2\.", r"\1.conv2."),
        (r"\.depth_conv\.", ".0."),
        (r"\.point_conv\.", ".1."),
        (r"\.SCA\.conv_du\.0\.", ".attend."),
        (r"^stage2\.skff(?P<n>\d)\.conv_du\.0\.", _from_zero("detail.fusions.{}.squeeze.")),
        (r"^stage2\.skff(?P<n>\d)\.fcs\.", _from_zero("detail.fusions.{}.excite.")),
        (r"^stage2\.conv_(?P<side>enc|dec)(?P<n>\d)\.", _from_zero("detail.{side}oded.{0}.{0}.")),
        (r"^stage2\.conv_dnc1\.", "detail.shared."),
        (r"^stage2\.up_(enc|dec)1\.up\.", r"stage2.up_\g<1>1.0.up."),
        (r"^stage2\.up_(enc|dec)(\d)\.(\d)\.up\.0\.", r"detail.\1oded.\2.\3.0."),  # later form: convolution, shuffle
        (r"^stage2\.up_(enc|dec)(\d)\.(\d)\.up\.1\.", r"detail.\1oded.\2.\3."),  # first form: interpolation, convolution
    ),
    dead=(r"^intro\.", r"^stage1\.ending\.", r"^stage2\.conv_dnc[234]\.", r"^info\."),
)
