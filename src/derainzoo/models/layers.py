"""Blocks that two or more networks share."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def mirror_indices(size: int, multiple: int, device: torch.device) -> Tensor:
    """Indices that extend `size` at its end to a multiple by reflection (edge not repeated), bouncing as often as needed."""
    period = torch.full((), max(2 * (size - 1), 1), device=device)  # a tensor: ONNX knows no remainder by a symbolic number
    i = torch.arange(size + -size % multiple, device=device) % period
    return torch.minimum(i, period - i)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Reflect right and bottom until height and width are multiples; images smaller than the padding bounce.

    `F.pad(mode="reflect")` refuses paddings as large as the image, so that a 1 x 1 image could not be restored. An index
    has no such limit, and no branch on sizes that would get in the way of export with dynamic shapes.
    """
    h, w = x.shape[-2:]
    if not torch.compiler.is_compiling() and h % multiple == 0 and w % multiple == 0:
        return x
    x = x.index_select(-2, mirror_indices(h, multiple, x.device))
    return x.index_select(-1, mirror_indices(w, multiple, x.device))


def crop(x: Tensor, h: int, w: int) -> Tensor:
    """Undo `pad_to_multiple`.

    A slice asks whether there is anything to cut, and the answer for the example image would hold for every image that an
    exported program takes; an index does not ask.
    """
    if not torch.compiler.is_compiling():
        return x[..., :h, :w]
    x = x.index_select(-2, torch.arange(h, device=x.device))
    return x.index_select(-1, torch.arange(w, device=x.device))


class LayerNorm2d(nn.Module):
    """Normalise over channels at each pixel (biased variance).

    `F.layer_norm` on the NHWC view: free of copies when the memory is channels_last, one copy otherwise.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def covariance_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """Attention between channels instead of pixels (Restormer's MDTA): q, k, v (B, C, H, W), temperature (heads, 1, 1)."""
    h, w = q.shape[-2:]
    q, k, v = (rearrange(t, "b (n c) h w -> b n c (h w)", n=temperature.shape[0]) for t in (q, k, v))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)  # (B, heads, C/heads, C/heads)
    return rearrange((scores * temperature).softmax(-1) @ v, "b n c (h w) -> b (n c) h w", h=h, w=w)


class ChannelSelfAttention(nn.Module):
    """q, k, v by a 1x1 and a depthwise 3x3 convolution, then `covariance_attention`, then a 1x1 convolution."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_depthwise(self.qkv(x)).chunk(3, dim=1)
        return self.project(covariance_attention(q, k, v, self.temperature))


class GatedFeedForward(nn.Module):
    """1x1 out to two halves, depthwise 3x3, one half gates the other, 1x1 back (Restormer's GDFN)."""

    def __init__(self, channels: int, hidden: int, gate: nn.Module) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.gate = gate
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.depthwise(self.expand(x)).chunk(2, dim=1)
        return self.project(self.gate(a) * b)
