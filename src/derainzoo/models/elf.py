"""ELF, "Magic ELF": rain removal and background recovery learned in association.

The rainy image is halved; IDN predicts the rain there, whose subtraction leaves a half-resolution background. MAM lets that
rain query the full image for the texture that the background lost; BRN recovers the full-resolution image (section names
follow the paper: RTB and EDB are the two branches of the hybrid fusion network, HFB merges them).

    I_R,S = IDN(down2(I))        I_B,S = down2(I) - I_R,S                                    (1, 2)
    f     = HFB(E(I_B,S), SA(Q = I_R,S; K, V = I))                                           (3)
    I_B   = BRN(f) + up2(I_B,S)                                                              (4)

Written from the paper and from descriptions of the published code, none of which is used: it carries no licence. Published
weights do not exist; key names of that code load all the same (`OFFICIAL`). Points where the published code differs from what
one would guess, all kept because the network is otherwise another one: the second input of IDN stacks the four *quadrants* of
the image; the pixel shuffle of BRN has the column offset slow; the skip of HFB is its first argument.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derainzoo.models.checkpoints import Official, Shapes
from derainzoo.models.layers import (
    ChannelSelfAttention,
    GatedFeedForward,
    GlobalPool,
    LayerNorm2d,
    SeparableConv,
    conv1,
    conv3,
    covariance_attention,
    crop,
    pad_to_multiple,
)
from derainzoo.models.registry import Paper, register

PAPER = Paper(
    title="Magic ELF: Image Deraining Meets Association Learning and Transformer",
    authors="K. Jiang, Z. Wang, C. Chen, Z. Wang, L. Cui, C.-W. Lin",
    venue="ACM MM",
    year=2022,
    url="https://arxiv.org/abs/2207.10455",
    code="https://github.com/kuijiang94/Magic-ELF",
    code_licence="none stated",
)

Gate = Literal["prelu", "gelu"]


class ElfOutput(NamedTuple):
    """What training needs: the restored image and the half-resolution background, both unclamped."""

    image: Tensor
    half: Tensor


def resize(x: Tensor, scale: float) -> Tensor:
    """Bilinear, half-pixel centres, no anti-aliasing: halving is the 2x2 mean."""
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


class ChannelGate(nn.Module):
    """Squeeze and excitation with reduction 4."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.pool, self.squeeze = GlobalPool(), conv1(c, c // 4)
        self.excite = conv1(c // 4, c)

    def forward(self, x: Tensor) -> Tensor:
        s = F.relu(self.squeeze(self.pool(x)))
        return x * torch.sigmoid(self.excite(s))


class HybridFusion(nn.Module):
    """HFB: `a` and `b` through a separable convolution and a channel gate, plus `a`."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = SeparableConv(2 * c, c)
        self.gate = ChannelGate(c)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.gate(self.conv(torch.cat([a, b], 1))) + a


class FourWayFusion(nn.Module):
    """HFB of four inputs, folded from the last to the first."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv_cd, self.conv_b, self.conv_a = (SeparableConv(2 * c, c) for _ in range(3))
        self.gate = ChannelGate(c)

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        u = self.conv_cd(torch.cat([c, d], 1))
        u = self.conv_b(torch.cat([b, u], 1))
        u = self.conv_a(torch.cat([a, u], 1))
        return self.gate(u) + u


class AttentionBlock(nn.Module):
    """CAB: two 3x3 convolutions and a channel gate, residual. `slope` is the PReLU that a whole network shares."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3(c, c), conv3(c, c)
        self.gate = ChannelGate(c)

    def forward(self, x: Tensor, slope: nn.PReLU) -> Tensor:
        return x + self.gate(self.conv2(slope(self.conv1(x))))


class SeparableAttentionBlock(nn.Module):
    """CAB of separable convolutions; its residual is an HFB whose skip is the attended branch, not the input."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = SeparableConv(c, c), SeparableConv(c, c)
        self.gate = ChannelGate(c)
        self.fuse = HybridFusion(c)

    def forward(self, x: Tensor, slope: nn.PReLU) -> Tensor:
        return self.fuse(self.gate(self.conv2(slope(self.conv1(x)))), x)


def feed_forward(c: int, gate: Gate) -> GatedFeedForward:
    """Gated depthwise feed-forward of width int(2.66 c); each has a gate of its own."""
    return GatedFeedForward(c, int(2.66 * c), nn.PReLU() if gate == "prelu" else nn.GELU())


class TransformerBlock(nn.Module):
    """TB: channel self-attention and gated feed-forward, both pre-norm."""

    def __init__(self, c: int, heads: int, gate: Gate) -> None:
        super().__init__()
        self.norm1, self.attention = LayerNorm2d(c), ChannelSelfAttention(c, heads)
        self.norm2, self.feed_forward = LayerNorm2d(c), feed_forward(c, gate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class TransformerBranch(nn.Module):
    """RTB: Transformer blocks at constant width, one convolution, residual."""

    def __init__(self, c: int, blocks: int, heads: int, gate: Gate) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TransformerBlock(c, heads, gate) for _ in range(blocks)))
        self.conv = conv3(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.blocks(x)) + x


class Encoder(nn.Module):
    """One scale of EDB's encoder: halve, then attend."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.down = conv1(c, c)
        self.block = SeparableAttentionBlock(c)
        self.fuse = HybridFusion(c)

    def forward(self, x: Tensor, slope: nn.PReLU) -> Tensor:
        z = self.down(resize(x, 0.5))
        return self.fuse(z, self.block(z, slope))


class Decoder(nn.Module):
    """One scale of EDB's decoder: fuse four features of this size, then attend."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gather = FourWayFusion(c)
        self.block = AttentionBlock(c)
        self.fuse = HybridFusion(c)

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, slope: nn.PReLU) -> Tensor:
        u = self.gather(a, b, c, d)
        return self.fuse(u, self.block(u, slope))


class EncoderDecoderBranch(nn.Module):
    """EDB: three scales of constant width; each decoder scale sees the encoder features of all others."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(Encoder(c) for _ in range(3))
        self.decoders = nn.ModuleList(Decoder(c) for _ in range(3))
        # resize first, then 1x1; "2to3" carries features of scale 2 to the size of scale 3
        paths = ("1to3", "2to3", "1to2", "3to2", "d3to2", "2to1", "3to1", "d2to1", "d1to0")
        self.carry = nn.ModuleDict({p: conv1(c, c) for p in paths})

    def forward(self, x: Tensor, slope: nn.PReLU) -> Tensor:
        def carry(path: str, features: Tensor, scale: float) -> Tensor:
            return self.carry[path](resize(features, scale))

        encode1, encode2, encode3 = self.encoders
        decode1, decode2, decode3 = self.decoders
        e1 = encode1(x, slope)  # 1/2 of the branch's input
        e2 = encode2(e1, slope)  # 1/4
        e3 = encode3(e2, slope)  # 1/8
        d3 = decode3(e3, e3, carry("2to3", e2, 0.5), carry("1to3", e1, 0.25), slope)
        d2 = decode2(carry("d3to2", d3, 2), e2, carry("1to2", e1, 0.5), carry("3to2", e3, 2), slope)
        d1 = decode1(carry("d2to1", d2, 2), e1, carry("2to1", e2, 2), carry("3to1", e3, 4), slope)
        return carry("d1to0", d1, 2)


class HybridNetwork(nn.Module):
    """RTB and EDB side by side, merged by HFB."""

    def __init__(self, c: int, blocks: int, heads: int, gate: Gate) -> None:
        super().__init__()
        self.transformer = TransformerBranch(c, blocks, heads, gate)
        self.pyramid = EncoderDecoderBranch(c)
        self.fuse = HybridFusion(c)

    def forward(self, x: Tensor, slope: nn.PReLU) -> Tensor:
        return self.fuse(self.transformer(x), self.pyramid(x, slope))


class RainNetwork(nn.Module):
    """IDN: the rain layer at half resolution."""

    def __init__(self, c: int, blocks: int, heads: int, gate: Gate) -> None:
        super().__init__()
        self.slope = nn.PReLU()
        self.embed_half, self.block_half = conv3(3, c), AttentionBlock(c)
        self.embed_quadrants, self.block_quadrants = conv3(12, c), AttentionBlock(c)
        self.transformer = TransformerBlock(c, 1, gate)
        self.merge = conv3(2 * c, c)
        self.backbone = HybridNetwork(c, blocks, heads, gate)
        self.tail = conv3(c, 3)

    def forward(self, x: Tensor, half: Tensor) -> Tensor:
        h, w = half.shape[-2:]
        # left-top, right-top, left-bottom, right-bottom quarter of the image side by side: not a pixel-unshuffle
        quadrants = torch.cat([x[..., :h, :w], x[..., :h, w:], x[..., h:, :w], x[..., h:, w:]], 1)
        a = self.block_half(self.embed_half(half), self.slope)
        b = self.transformer(self.block_quadrants(self.embed_quadrants(quadrants), self.slope))
        return self.tail(self.backbone(self.merge(torch.cat([a, b], 1)), self.slope))


class MultiInputAttention(nn.Module):
    """MAM: the predicted rain queries the full-resolution image; the answer joins the half-resolution background."""

    def __init__(self, c: int, heads: int, gate: Gate) -> None:
        super().__init__()
        self.embed_rain, self.embed_background = conv3(3, c), conv3(3, c)
        self.embed_image = conv3(3, c, stride=2)
        self.norm_rain, self.norm_key, self.norm_value = LayerNorm2d(c), LayerNorm2d(c), LayerNorm2d(c)
        self.query, self.key, self.value = (nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False) for _ in range(3))
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.project = conv1(c, c)
        self.norm2, self.feed_forward = LayerNorm2d(c), feed_forward(c, gate)
        self.fuse = HybridFusion(c)

    def forward(self, image: Tensor, rain: Tensor, background: Tensor) -> Tensor:
        rain, texture = self.embed_rain(rain), self.embed_image(image)
        q, k, v = (
            self.query(self.norm_rain(rain)),
            self.key(self.norm_key(texture)),
            self.value(self.norm_value(texture)),
        )
        texture = texture + covariance_attention(q, k, v, self.temperature, self.project.weight)
        texture = texture + self.feed_forward(self.norm2(texture))
        return self.fuse(self.embed_background(background), texture)


class BackgroundNetwork(nn.Module):
    """BRN: doubles the resolution. The single Transformer block comes after the backbone, or first (`early`)."""

    def __init__(self, c: int, blocks: int, heads: int, gate: Gate, early: bool) -> None:
        super().__init__()
        self.slope = nn.PReLU()
        self.transformer, self.early = TransformerBlock(c, 1, gate), early
        self.backbone = HybridNetwork(c, blocks, heads, gate)
        self.expand, self.tail = conv3(c, 2 * c), conv3(c // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.early:
            x = self.backbone(self.transformer(x), self.slope)
        else:
            x = self.transformer(self.backbone(x, self.slope))
        return self.tail(column_major_shuffle(self.expand(x)))  # (B, 2C, h, w) -> (B, C/2, 2h, 2w) -> (B, 3, 2h, 2w)


def column_major_shuffle(x: Tensor) -> Tensor:
    """Pixel shuffle by 2 whose slow index is the *column* offset: PixelShuffle with channels 4c+1 and 4c+2 swapped."""
    b, c, h, w = x.shape
    return F.pixel_shuffle(x.view(b, c // 4, 2, 2, h, w).transpose(2, 3).reshape(b, c, h, w), 2)


class ELF(nn.Module):
    """The whole: I -> (I_B, I_B,S) in training, I_B in evaluation.

    Args:
        dim: width C of every feature.
        blocks: Transformer blocks in each of the two RTBs.
        gate: activation of the feed-forward gates.
        residual_rain: the repository head's form, in which BRN predicts full-resolution rain and its Transformer block comes
            first; the paper's form adds the up-sampled background (eq. 4).
        heads: attention heads of the RTB blocks.
        association_heads: attention heads of MAM.
    """

    multiple_of = 16

    def __init__(self, dim: int, blocks: int, gate: Gate, residual_rain: bool, heads: int, association_heads: int) -> None:
        super().__init__()
        self.residual_rain = residual_rain
        self.rain = RainNetwork(dim, blocks, heads, gate)
        self.association = MultiInputAttention(dim, association_heads, gate)
        self.background = BackgroundNetwork(dim, blocks, heads, gate, early=residual_rain)

    def forward(self, x: Tensor) -> ElfOutput | Tensor:
        h, w = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple_of)
        half = resize(x, 0.5)
        rain_half = self.rain(x, half)  # I_R,S
        clean_half = half - rain_half  # I_B,S
        detail = self.background(self.association(x, rain_half, clean_half))
        if self.residual_rain:
            image = x - (detail + resize(rain_half, 2))
        else:
            image = detail + resize(clean_half, 2)
        image = crop(image, h, w)
        return ElfOutput(image, crop(clean_half, (h + 1) // 2, (w + 1) // 2)) if self.training else image


@register(
    tasks=("derain", "lowlight", "underwater"),
    params=1_536_785,
    macs=16_995_853_440,
    multiple_of=16,
    tiny={"dim": 8, "blocks": 1},
)
def elf(
    dim: int = 48,
    blocks: int = 10,
    gate: Gate = "prelu",
    residual_rain: bool = False,
    heads: int = 2,
    association_heads: int = 4,
) -> ELF:
    """ELF of the paper: the published variant whose size, cost and topology agree with its text (elf3)."""
    return ELF(dim, blocks, gate, residual_rain, heads, association_heads)


@register(
    tasks=("derain", "lowlight", "underwater"),
    params=568_308,
    macs=5_543_326_208,
    multiple_of=16,
    tiny={"dim": 8, "blocks": 1},
)
def elf_lw(
    dim: int = 32,
    blocks: int = 5,
    gate: Gate = "gelu",
    residual_rain: bool = False,
    heads: int = 1,
    association_heads: int = 4,
) -> ELF:
    """ELF-LW, the paper's light variant."""
    return ELF(dim, blocks, gate, residual_rain, heads, association_heads)


@register(
    tasks=("derain", "lowlight", "underwater"),
    params=1_223_972,
    macs=11_741_821_056,
    multiple_of=16,
    tiny={"dim": 8, "blocks": 1},
)
def elf_head(
    dim: int = 48,
    blocks: int = 5,
    gate: Gate = "prelu",
    residual_rain: bool = True,
    heads: int = 2,
    association_heads: int = 1,
) -> ELF:
    """The form that stands in the authors' repository today: smaller, and BRN predicts rain."""
    return ELF(dim, blocks, gate, residual_rain, heads, association_heads)


def _infer(shapes: Shapes) -> tuple[str, dict[str, object]]:
    dim = shapes["dsnet.tail.weight"][1]
    blocks = sum(k.startswith("dsnet.orsnet.orb.modules_body.") and k.endswith(".norm1.body.weight") for k in shapes)
    arguments: dict[str, object] = {
        "dim": dim,
        "blocks": blocks,
        "heads": shapes["dsnet.orsnet.orb.modules_body.0.attn.temperature"][0],
        "association_heads": shapes["ssnet.stem.former.attn.temperature"][0],
    }
    # The topology leaves no trace in the shapes; among the published variants one association head means the head's form.
    name = "elf_lw" if dim == 32 else "elf_head" if arguments["association_heads"] == 1 else "elf"
    if "dsnet.orsnet.orb.modules_body.0.ffn.act1.weight" not in shapes:
        arguments["gate"] = "gelu"
    return name, arguments


OFFICIAL = Official(
    signature=("dsnet.shallow_feat1.0.weight", "ssnet.stem.conv_stem0.weight", "dsnet.S2FB_fuse.DSC.depth_conv.weight"),
    infer=_infer,
    rules=(
        (r"^dsnet\.", "rain."),
        (r"^ssnet\.stem\.(former\.)?", "association."),
        (r"^ssnet\.", "background."),
        (r"^(rain|background)\..*\.body\.1\.weight$", r"\1.slope.weight"),  # one PReLU under many keys
        (r"\.body\.0\.", ".conv1."),
        (r"\.body\.2\.", ".conv2."),
        (r"\.(CA|CA_fea)\.conv_du\.0\.", ".gate.squeeze."),
        (r"\.(CA|CA_fea)\.conv_du\.2\.", ".gate.excite."),
        (r"\.(norm\w+)\.body\.", r".\1."),
        (r"\.depth_conv\.", ".0."),
        (r"\.point_conv\.", ".1."),
        (r"\.DSC\.", ".conv."),
        # MAM: what the published code calls key is the query and the other way round
        (r"^association\.norm_key\.", "association.norm_rain."),
        (r"^association\.norm_query\.", "association.norm_key."),
        (r"^association\.attn\.q\.", "association.query."),
        (r"^association\.attn\.k\.", "association.key."),
        (r"^association\.attn\.v\.", "association.value."),
        (r"^association\.attn\.project_out\.", "association.project."),
        (r"^association\.attn\.", "association."),
        (r"^association\.conv_stem0\.", "association.embed_image."),
        (r"^association\.conv_stem2\.", "association.embed_rain."),
        (r"^association\.conv_stem3\.", "association.embed_background."),
        (r"^association\.S2FB\.", "association.fuse."),
        (r"\.attn\.qkv_dwconv\.", ".attention.qkv_depthwise."),
        (r"\.attn\.project_out\.", ".attention.project."),
        (r"\.attn\.", ".attention."),
        (r"\.ffn\.act1\.", ".feed_forward.gate."),
        (r"\.ffn\.project_in\.", ".feed_forward.expand."),
        (r"\.ffn\.dwconv\.", ".feed_forward.depthwise."),
        (r"\.ffn\.project_out\.", ".feed_forward.project."),
        (r"\.former\.0\.", ".transformer."),
        (r"\.orsnet\.orb\.modules_body\.", ".backbone.transformer.blocks."),
        (r"\.orsnet\.orb\.conv\.", ".backbone.transformer.conv."),
        (r"\.S2FB_fuse\.", ".backbone.fuse."),
        (r"\.shallow_feat1\.0\.", ".embed_half."),
        (r"\.shallow_feat2\.0\.", ".embed_quadrants."),
        (r"\.shallow_feat1\.1\.", ".block_half."),
        (r"\.shallow_feat2\.1\.", ".block_quadrants."),
        (r"\.fuse_conv\.", ".merge."),
        (r"\.deep_conv\.", ".expand."),
        (r"\.(ds|ss)nnet_(en|de)coder\.", ".backbone.pyramid."),
        (r"\.encoder_level1\.", ".encoders.0."),
        (r"\.encoder_level2\.", ".encoders.1."),
        (r"\.encoder_level3\.", ".encoders.2."),
        (r"\.decoder_level1\.", ".decoders.0."),
        (r"\.decoder_level2\.", ".decoders.1."),
        (r"\.decoder_level3\.", ".decoders.2."),
        (r"\.S2FB0\.DSC1\.", ".gather.conv_cd."),
        (r"\.S2FB0\.DSC2\.", ".gather.conv_b."),
        (r"\.S2FB0\.DSC3\.", ".gather.conv_a."),
        (r"\.S2FB0\.", ".gather."),
        (r"\.S2FB2\.", ".fuse."),
        (r"\.CAB1\.", ".block."),
        (r"\.down_stage1\.down\.1\.", ".encoders.0.down."),
        (r"\.down_stage2\.down\.1\.", ".encoders.1.down."),
        (r"\.down_stage3\.down\.1\.", ".encoders.2.down."),
        (r"\.down_(\d)(\d)\.down\.1\.", r".carry.\1to\2."),
        (r"\.up_(\d)(\d)\.up\.1\.", r".carry.\1to\2."),
        (r"\.up_stage3\.up\.1\.", ".carry.d3to2."),
        (r"\.up_stage2\.up\.1\.", ".carry.d2to1."),
        (r"\.up_stage1\.up\.1\.", ".carry.d1to0."),
    ),
    dead=(r"\.ffn\.act1\.weight$",),  # the GELU variants carry slopes that nothing reads
)
