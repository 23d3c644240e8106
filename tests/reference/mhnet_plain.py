"""MHNet's two published networks, one operation after the other, under the published key names and with the dead weights.

The yardstick of `derainzoo.models.mhnet`; see `drsformer_plain`. Height and width must be multiples of 16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.drsformer_plain import Attention as SparseAttention
from reference.drsformer_plain import conv


def biased(c_in: int, c_out: int, k: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, k, padding=k // 2, groups=groups)


def gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a * b


class LayerNorm(nn.Module):
    def __init__(self, c: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = nn.Parameter(torch.zeros(c))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (variance + self.eps).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class NAFBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(c), LayerNorm(c)
        self.conv1, self.conv2, self.conv3 = biased(c, 2 * c), biased(2 * c, 2 * c, 3, groups=2 * c), biased(c, c)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), biased(c, c))
        self.conv4, self.conv5 = biased(c, 2 * c), biased(c, c)
        self.beta, self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1)), nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(y * self.sca(y)) * self.beta
        return x + self.conv5(gate(self.conv4(self.norm2(x)))) * self.gamma


class FullAttention(nn.Module):
    """Attention between channels with one softmax over all scores."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.qkv_dwconv, self.project_out = conv(c, 3 * c), conv(3 * c, 3 * c, 3, groups=3 * c), conv(c, c)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = (t.reshape(b, self.heads, c // self.heads, h * w) for t in self.qkv_dwconv(self.qkv(x)).chunk(3, 1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.project_out((scores.softmax(-1) @ v).reshape(b, c, h, w))


class UNet(nn.Module):
    def __init__(self, w: int, blocks: tuple[int, int, int, int], middle: nn.Module) -> None:
        super().__init__()
        self.intro, self.ending = biased(3, w, 3), biased(w, 3, 3)
        widths = [w, 2 * w, 4 * w, 8 * w]
        self.encoders = nn.ModuleList(
            nn.Sequential(*(NAFBlock(c) for _ in range(n))) for c, n in zip(widths, blocks, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in widths)
        self.middle_blks = nn.Sequential(middle)
        self.ups = nn.ModuleList(nn.Sequential(conv(2 * c, 4 * c), nn.PixelShuffle(2)) for c in reversed(widths))
        self.decoders = nn.ModuleList(nn.Sequential(NAFBlock(c)) for c in reversed(widths))

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        x = self.intro(image)
        encoded, decoded = [], []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            encoded.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(encoded), strict=True):
            x = decoder(up(x) + skip)
            decoded.append(x)
        return encoded, decoded, self.ending(x) + image


class ShuffleUp(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.up = nn.Sequential(conv(c, 2 * c), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class Fusion(nn.Module):
    """AFFM: for each of three features a softmax over its own channels, from the mean of their sum."""

    def __init__(self, c: int) -> None:
        super().__init__()
        r = max(c // 8, 4)
        self.conv_du = nn.Sequential(conv(c, r))
        self.fcs = nn.ModuleList(conv(r // 2, c) for _ in range(3))

    def forward(self, *features: Tensor) -> Tensor:
        z = gate(self.conv_du((features[0] + features[1] + features[2]).mean((2, 3), keepdim=True)))
        a, b, c = (fc(z).softmax(1) * f for fc, f in zip(self.fcs, features, strict=True))
        return a + b + c


class FullResolution(nn.Module):
    def __init__(self, w: int, count: int) -> None:
        super().__init__()
        for g in range(1, 5):
            self.add_module(f"norm{g}", LayerNorm(w))
            self.add_module(f"CABG{g}", nn.Sequential(*(NAFBlock(w) for _ in range(count))))
            self.add_module(f"skff{g}", Fusion(w))
            self.add_module(f"conv_enc{g}", conv(w, w))
            self.add_module(f"conv_dnc{g}", conv(w, w))
        for side in ("enc", "dec"):
            self.add_module(f"up_{side}1", ShuffleUp(2 * w))
            self.add_module(f"up_{side}2", nn.Sequential(ShuffleUp(4 * w), ShuffleUp(2 * w)))
            self.add_module(f"up_{side}3", nn.Sequential(ShuffleUp(8 * w), ShuffleUp(4 * w), ShuffleUp(2 * w)))

    def forward(self, f: Tensor, encoded: list[Tensor], decoded: list[Tensor]) -> Tensor:
        for g in range(1, 5):
            e, d = encoded[g - 1], decoded[4 - g]
            if g > 1:
                e, d = self.get_submodule(f"up_enc{g - 1}")(e), self.get_submodule(f"up_dec{g - 1}")(d)
            e, d = self.get_submodule(f"conv_enc{g}")(e), self.conv_dnc1(d)
            f = self.get_submodule(f"norm{g}")(f)
            f = self.get_submodule(f"CABG{g}")(f) + f
            f = self.get_submodule(f"skff{g}")(f, e, d)
        return f


class PlainHead(nn.Module):
    """The later form."""

    def __init__(
        self, width: int = 64, blocks: tuple[int, int, int, int] = (1, 1, 1, 28), count: int = 8, heads: int = 8
    ) -> None:
        super().__init__()
        self.intro, self.intro2 = conv(3, width, 3), conv(3, width, 3)
        self.stage1 = UNet(width, blocks, SparseAttention(16 * width, heads))
        self.concat12 = conv(2 * width, width)
        self.stage2 = FullResolution(width, count)
        self.ending = conv(width, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        encoded, decoded, _ = self.stage1(x)
        f = self.concat12(torch.cat([self.intro2(x), decoded[3]], 1))
        return self.ending(self.stage2(f, encoded, decoded)) + x


class SpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Module()
        self.spatial.conv = conv(2, 1, 5)

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial.conv(summary))


class ChannelGate(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(conv(c, c // 4), nn.ReLU(), conv(c // 4, c), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean((2, 3), keepdim=True))


class SimpleGate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return gate(x)


class DualAttention(nn.Module):
    """DAU."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(c, c, 3), SimpleGate(), conv(c // 2, c, 3))
        self.SA, self.CA = SpatialGate(), ChannelGate(c)
        self.conv1x1 = conv(2 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        r = self.body(x)
        return self.conv1x1(torch.cat([self.SA(r), self.CA(r)], 1)) + x


class Separable(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.depth_conv, self.point_conv = biased(c_in, c_in, 3, groups=c_in), biased(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(x))


class Attended(nn.Module):
    """SCAB."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Separable(c, c), SimpleGate(), Separable(c // 2, c))
        self.SCA = nn.Module()
        self.SCA.conv_du = nn.Sequential(biased(c, c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y * self.SCA.conv_du(y.mean((2, 3), keepdim=True)) + x


class Group(nn.Module):
    """CABG."""

    def __init__(self, c: int, count: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(Attended(c) for _ in range(count)), conv(c, c, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class BilinearUp(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), conv(c_in, c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class Cascade(nn.Module):
    """CASNet."""

    def __init__(self, w: int, n: int, count: int) -> None:
        super().__init__()
        self.info = conv(w, n)
        for g in range(1, 5):
            self.add_module(f"norm{g}", LayerNorm(n))
            self.add_module(f"CABG{g}", Group(n, count))
            self.add_module(f"conv_enc{g}", conv(w if g == 1 else n, n))
            self.add_module(f"conv_dec{g}", conv(w if g == 1 else n, n))
        for side in ("enc", "dec"):
            self.add_module(f"up_{side}1", BilinearUp(2 * w, n))
            self.add_module(f"up_{side}2", nn.Sequential(BilinearUp(4 * w, 2 * w), BilinearUp(2 * w, n)))
            self.add_module(
                f"up_{side}3", nn.Sequential(BilinearUp(8 * w, 4 * w), BilinearUp(4 * w, 2 * w), BilinearUp(2 * w, n))
            )

    def forward(self, f: Tensor, encoded: list[Tensor], decoded: list[Tensor]) -> Tensor:
        f = self.info(f)
        for g in range(1, 5):
            e, d = encoded[g - 1], decoded[4 - g]
            if g > 1:
                e, d = self.get_submodule(f"up_enc{g - 1}")(e), self.get_submodule(f"up_dec{g - 1}")(d)
            f = self.get_submodule(f"CABG{g}")(self.get_submodule(f"norm{g}")(f))
            f = f + self.get_submodule(f"conv_enc{g}")(e) + self.get_submodule(f"conv_dec{g}")(d)
        return f


class PlainV1(nn.Module):
    """The form of the paper's first versions."""

    def __init__(
        self,
        width: int = 32,
        features: int = 40,
        blocks: tuple[int, int, int, int] = (1, 1, 1, 28),
        count: int = 8,
        heads: int = 8,
    ) -> None:
        super().__init__()
        self.shallow_feat1 = nn.Sequential(conv(3, width, 3), DualAttention(width))
        self.stage1 = UNet(width, blocks, FullAttention(16 * width, heads))
        self.concat12 = conv(2 * width, width, 3)
        self.info = biased(width, features)  # never used
        self.stage2 = Cascade(width, features, count)
        self.tail = conv(features, 3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s = self.shallow_feat1(x)
        encoded, decoded, image = self.stage1(x)
        f = self.concat12(torch.cat([s, decoded[3]], 1))
        return self.tail(self.stage2(f, encoded, decoded)) + x, image
