"""The shared blocks of Restormer, ELF and NAFNet exactly as their papers write them, one operation after the other.

`plain(net)` gives the same network, with the same weights under the same names, made of these blocks. It is the yardstick of
`derainzoo.models.layers`, which computes the same function another way. Nothing here is clever on purpose.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derainzoo.models.elf import MultiInputAttention
from derainzoo.models.layers import ChannelSelfAttention, GatedFeedForward, LayerNorm2d, NAFBlock


class Norm(LayerNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = x.var(1, keepdim=True, correction=0)
        return (x - mean) / torch.sqrt(variance + self.eps) * self.weight[:, None, None] + self.bias[:, None, None]


def attend(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    b, c, h, w = q.shape
    heads = temperature.shape[0]
    q, k, v = (t.reshape(b, heads, c // heads, h * w) for t in (q, k, v))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * temperature
    return (scores.softmax(-1) @ v).reshape(b, c, h, w)


class Attention(ChannelSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_depthwise(self.qkv(x)).chunk(3, 1)
        return self.project(attend(q, k, v, self.temperature))


class Association(MultiInputAttention):
    def forward(self, image: Tensor, rain: Tensor, background: Tensor) -> Tensor:
        rain, texture = self.embed_rain(rain), self.embed_image(image)
        q = self.query(self.norm_rain(rain))
        k = self.key(self.norm_key(texture))
        v = self.value(self.norm_value(texture))
        texture = texture + self.project(attend(q, k, v, self.temperature))
        texture = texture + self.feed_forward(self.norm2(texture))
        return self.fuse(self.embed_background(background), texture)


class FeedForward(GatedFeedForward):
    def forward(self, x: Tensor) -> Tensor:
        a, b = self.depthwise(self.expand(x)).chunk(2, 1)
        return self.project(self.gate(a) * b)


class Block(NAFBlock):
    def forward(self, x: Tensor) -> Tensor:
        a, b = self.depthwise(self.expand1(self.norm1(x))).chunk(2, 1)
        y = a * b
        x = x + self.beta * self.project1(y * self.attend(y.mean((2, 3), keepdim=True)))
        a, b = self.expand2(self.norm2(x)).chunk(2, 1)
        return x + self.gamma * self.project2(a * b)


LITERAL: dict[type[nn.Module], type[nn.Module]] = {
    LayerNorm2d: Norm,
    ChannelSelfAttention: Attention,
    MultiInputAttention: Association,
    GatedFeedForward: FeedForward,
    NAFBlock: Block,
}


def plain(net: nn.Module) -> nn.Module:
    """The same network as the paper writes it."""
    net = copy.deepcopy(net)
    for module in net.modules():
        module.__class__ = LITERAL.get(type(module), type(module))
    return net
