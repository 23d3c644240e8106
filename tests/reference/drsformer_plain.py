"""DRSformer as its paper and published weights describe it, one operation after the other, under the published key names.

The yardstick of `derainzoo.models.drsformer`, which computes the same function another way: outputs and gradients are compared
with this file, and so are speed and memory. Nothing here is clever on purpose.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(c_in: int, c_out: int, k: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Same-size convolution; none in the network has a bias."""
    return nn.Conv2d(c_in, c_out, k, padding=k // 2 * dilation, groups=groups, dilation=dilation, bias=False)


class Affine(nn.Module):
    """The learned part of a layer norm; a module of its own because the published key is `norm1.body.weight`."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = nn.Parameter(torch.zeros(c))


class LayerNorm(nn.Module):
    """Over channels at each pixel, on the flattened picture."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = Affine(c)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        mean = x.mean(-1, keepdim=True)
        variance = x.var(-1, keepdim=True, unbiased=False)
        x = (x - mean) / torch.sqrt(variance + 1e-5) * self.body.weight + self.body.bias
        return x.transpose(1, 2).reshape(b, c, h, w)


class Attention(nn.Module):
    """TKSA: four masked softmaxes, four products with the values, a weighted sum."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.qkv_dwconv, self.project_out = conv(c, 3 * c), conv(3 * c, 3 * c, 3, groups=3 * c), conv(c, c)
        self.attn1, self.attn2, self.attn3, self.attn4 = (nn.Parameter(torch.tensor([0.2])) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = (t.reshape(b, self.heads, c // self.heads, h * w) for t in self.qkv_dwconv(self.qkv(x)).chunk(3, 1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        n = c // self.heads
        out = torch.zeros_like(v)
        keep = (int(n / 2), int(n * 2 / 3), int(n * 3 / 4), int(n * 4 / 5))
        for weight, count in zip((self.attn1, self.attn2, self.attn3, self.attn4), keep, strict=True):
            kept = torch.zeros_like(scores).scatter_(-1, scores.topk(count, -1).indices, 1.0)
            probability = torch.where(kept > 0, scores, float("-inf")).softmax(-1)
            out = out + weight * (probability @ v)
        return self.project_out(out.reshape(b, c, h, w))


class FeedForward(nn.Module):
    """MSFN with its grouped convolutions of two inputs a group."""

    def __init__(self, c: int, factor: float) -> None:
        super().__init__()
        n = int(c * factor)
        self.project_in = conv(c, 2 * n)
        self.dwconv3x3, self.dwconv5x5 = conv(2 * n, 2 * n, 3, groups=2 * n), conv(2 * n, 2 * n, 5, groups=2 * n)
        self.dwconv3x3_1, self.dwconv5x5_1 = conv(2 * n, n, 3, groups=n), conv(2 * n, n, 5, groups=n)
        self.project_out = conv(2 * n, c)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project_in(x)
        u1, u2 = F.relu(self.dwconv3x3(x)).chunk(2, 1)
        v1, v2 = F.relu(self.dwconv5x5(x)).chunk(2, 1)
        p = F.relu(self.dwconv3x3_1(torch.cat([u1, v1], 1)))
        q = F.relu(self.dwconv5x5_1(torch.cat([u2, v2], 1)))
        return self.project_out(torch.cat([p, q], 1))


class Block(nn.Module):
    """STB."""

    def __init__(self, c: int, heads: int, factor: float) -> None:
        super().__init__()
        self.norm1, self.attn = LayerNorm(c), Attention(c, heads)
        self.norm2, self.ffn = LayerNorm(c), FeedForward(c, factor)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Expert(nn.Module):
    """One convolutional operation of MEFC."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def separable(c: int, k: int) -> Expert:
    return Expert(conv(c, c, k, groups=c), conv(c, c), nn.ReLU(), conv(c, c, k, groups=c), conv(c, c))


def dilated(c: int, k: int) -> Expert:
    return Expert(conv(c, c, k, groups=c, dilation=2), conv(c, c))


class Step(nn.Module):
    """The eight operations side by side, each scaled for its picture, then fused."""

    def __init__(self, c: int) -> None:
        super().__init__()
        pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        operations = [separable(c, k) for k in (1, 3, 5, 7)] + [dilated(c, k) for k in (3, 5, 7)]
        self._ops = nn.ModuleList([*operations, pool])
        self._out = nn.Sequential(conv(8 * c, c), nn.ReLU())

    def forward(self, s: Tensor, weights: Tensor) -> Tensor:
        y = [weights[:, j].view(-1, 1, 1, 1) * op(s) for j, op in enumerate(self._ops)]
        return F.relu(s + self._out(torch.cat(y, 1)))


class Weighting(nn.Module):
    """Which operation counts how much at which step, from the mean of the picture's features."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.ca_fc = nn.Sequential(nn.Linear(c, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.ca_fc(x.mean((2, 3))).view(-1, 4, 8).softmax(-1)


class Steps(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.preprocess = Expert(conv(c, c), nn.ReLU())
        self._ops = nn.ModuleList(Step(c) for _ in range(4))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = self.preprocess(x)
        for i, step in enumerate(self._ops):
            x = step(x, weights[:, i])
        return x


class Compensator(nn.Module):
    """MEFC."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Weighting(c), Steps(c)])

    def forward(self, x: Tensor) -> Tensor:
        weighting, steps = self.layers
        return steps(x, weighting(x))


class Embed(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.proj = conv(3, c, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Resample(nn.Module):
    """3x3 convolution and pixel (un)shuffle."""

    def __init__(self, c_in: int, c_out: int, shuffle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(c_in, c_out, 3), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def down(c: int) -> Resample:
    return Resample(c, c // 2, nn.PixelUnshuffle(2))


def up(c: int) -> Resample:
    return Resample(c, 2 * c, nn.PixelShuffle(2))


class PlainDRSformer(nn.Module):
    """Height and width must be multiples of 8."""

    def __init__(
        self,
        dim: int = 48,
        blocks: tuple[int, int, int, int] = (4, 6, 6, 8),
        heads: tuple[int, int, int, int] = (1, 2, 4, 8),
        expansion: float = 2.66,
        compensate: bool = True,
    ) -> None:
        super().__init__()
        c = dim

        def level(width: int, index: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, heads[index], expansion) for _ in range(blocks[index])))

        self.patch_embed = Embed(c)
        self.encoder_level0 = Compensator(c) if compensate else nn.Identity()
        self.encoder_level1, self.down1_2 = level(c, 0), down(c)
        self.encoder_level2, self.down2_3 = level(2 * c, 1), down(2 * c)
        self.encoder_level3, self.down3_4 = level(4 * c, 2), down(4 * c)
        self.latent = level(8 * c, 3)
        self.up4_3, self.reduce_chan_level3, self.decoder_level3 = up(8 * c), conv(8 * c, 4 * c), level(4 * c, 2)
        self.up3_2, self.reduce_chan_level2, self.decoder_level2 = up(4 * c), conv(4 * c, 2 * c), level(2 * c, 1)
        self.up2_1, self.decoder_level1 = up(2 * c), level(2 * c, 0)
        self.refinement = Compensator(2 * c) if compensate else nn.Identity()
        self.output = conv(2 * c, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.encoder_level1(self.encoder_level0(self.patch_embed(x)))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        y = self.latent(self.down3_4(e3))
        y = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(y), e3], 1)))
        y = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(y), e2], 1)))
        y = self.decoder_level1(torch.cat([self.up2_1(y), e1], 1))
        return self.output(self.refinement(y)) + x
