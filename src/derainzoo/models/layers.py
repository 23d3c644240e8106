"""Blocks that two or more networks share."""

import itertools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from derainzoo.errors import DerainzooError


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


def conv1(c_in: int, c_out: int) -> nn.Conv2d:
    """1x1 convolution without bias."""
    return nn.Conv2d(c_in, c_out, 1, bias=False)


def conv3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias, padded by a pixel."""
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, then 1x1, both with bias."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in), nn.Conv2d(c_in, c_out, 1))


class ShuffleUp(nn.Sequential):
    """1x1 convolution and pixel shuffle: C channels to C / 2 at twice the size."""

    def __init__(self, c: int) -> None:
        super().__init__(conv1(c, 2 * c), nn.PixelShuffle(2))


def own_backward(x: Tensor) -> bool:
    """Whether an operation takes the backward pass written here: on the CPU, where it is faster, if there can be one."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_exporting()


def global_mean(x: Tensor) -> Tensor:
    """Mean of every channel, (B, C, 1, 1).

    Autograd writes the gradient of a mean as a picture in the default memory layout, and adding it to others in channels_last
    costs more than the pooling. That of a sum is a view of one number per channel.
    """
    if not own_backward(x):
        return x.mean((2, 3), keepdim=True)
    # in at least float32: sums leave the range of half precision
    sums = x.sum((2, 3), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    return (sums / (x.shape[-2] * x.shape[-1])).to(x.dtype)


class GlobalPool(nn.Module):
    """Mean over the whole picture, (B, C, 1, 1), or over a window around each pixel, (B, C, H, W).

    A network trained on small patches meets other means in large pictures; windows of about the patches' size keep them alike
    (test-time local converter, arXiv 2112.04491). `set_pool_window` sets them for a whole network.
    """

    window: tuple[int, int] | None = None
    """Height and width; an axis that is no longer than its window is averaged whole."""

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        if self.window is None or (self.window[0] >= h and self.window[1] >= w):
            return global_mean(x)
        x = box_mean(box_mean(x, min(h, self.window[0]), -2), min(w, self.window[1]), -1)
        top, left = (h - x.shape[-2]) // 2, (w - x.shape[-1]) // 2
        # pixels whose window would leave the picture take the nearest whole window's mean
        return F.pad(x, (left, w - x.shape[-1] - left, top, h - x.shape[-2] - top), mode="replicate")


def box_mean(x: Tensor, size: int, dim: int) -> Tensor:
    """Mean of every `size` neighbours along an axis, from running sums in at least float32."""
    sums = x.cumsum(dim, dtype=torch.promote_types(x.dtype, torch.float32))
    n = x.shape[dim] - size + 1
    ends = sums.narrow(dim, size - 1, n)
    starts = torch.cat([torch.zeros_like(sums.narrow(dim, 0, 1)), sums.narrow(dim, 0, n - 1)], dim)
    return ((ends - starts) / size).to(x.dtype)


def set_pool_window(net: nn.Module, train_size: int | Sequence[int] | None, factor: float = 1.5) -> None:
    """Give every `GlobalPool` of a network a window of `factor` times what it sees of a training patch; None takes them away.

    Pictures up to `factor` times the training patch are restored as before, larger ones by local means. The sizes come from one
    forward pass without memory or arithmetic behind it.
    """
    pools = [m for m in net.modules() if isinstance(m, GlobalPool)]
    if not pools:
        raise DerainzooError(
            f"{type(net).__name__} has no global pooling to make local; networks that have it: mhnet, elf, nafnet, autoderain"
        )
    for pool in pools:
        pool.window = None
    if train_size is None:
        return
    size = (train_size, train_size) if isinstance(train_size, int) else tuple(train_size)
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise DerainzooError(
            f"the side of training patches expected, or height and width, got {train_size}; a usual one is 256"
        )
    seen: dict[GlobalPool, tuple[int, int]] = {}
    hooks = [p.register_forward_hook(lambda p, x, _: seen.update({p: tuple(x[0].shape[-2:])})) for p in pools]
    tensors = {k: v.to("meta") for k, v in itertools.chain(net.named_parameters(), net.named_buffers())}
    dtype = next(iter(tensors.values())).dtype
    try:
        with torch.no_grad():
            torch.func.functional_call(net, tensors, torch.empty(1, 3, *size, dtype=dtype, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    for module, (h, w) in seen.items():
        module.window = (h * int(factor * size[0]) // size[0], w * int(factor * size[1]) // size[1])


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


def depthwise_conv2d(x: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """Depthwise convolution of the same size by an odd kernel (C, 1, k, k); on the CPU with a backward pass of its own."""
    slow_natively = weight.shape[-1] > 3 or dilation > 1
    if slow_natively and own_backward(x):
        return _DepthwiseConv2d.apply(x, weight, dilation)
    return _depthwise_conv2d(x, weight, dilation)


def _depthwise_conv2d(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2 * dilation, dilation=dilation, groups=len(weight))


class DepthwiseConv(nn.Conv2d):
    """Depthwise k x k convolution of the same size, without bias: `depthwise_conv2d` as a layer."""

    def __init__(self, c: int, k: int, dilation: int = 1) -> None:
        super().__init__(c, c, k, dilation=dilation, groups=c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.dilation[0])


def has_dilated_convolutions(net: nn.Module) -> bool:
    """Whether there are some whose backward pass is oneDNN's.

    In bfloat16 and channels_last its gradients of their weights are wrong, up to NaN: seen with torch 2.13 on processors that
    have AVX512-BF16. In the default layout, in float32, and in the backward pass of `DepthwiseConv` they are right.
    """
    return any(isinstance(m, nn.Conv2d) and max(m.dilation) > 1 and not isinstance(m, DepthwiseConv) for m in net.modules())


class _DepthwiseConv2d(torch.autograd.Function):
    """oneDNN's gradients of depthwise convolutions are fast up to 3 columns and without dilation, else about ten times slower.

    The gradient of the input is therefore taken as the convolution with the mirrored kernel. That of the weight comes from
    kernels of 3 columns: the columns at -d, 0 and d of a kernel are neighbours once d columns of the picture are one, with d
    times the channels. A dilated convolution is first split into the dense ones that it consists of.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        return _depthwise_conv2d(x, weight, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.dilation = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        c, _, k, _ = weight.shape
        grad_x = _depthwise_conv2d(g, weight.flip(2, 3).to(g.dtype), ctx.dilation)
        if ctx.dilation > 1:
            x, g = _lattices(x, ctx.dilation), _lattices(g, ctx.dilation)
        columns: dict[int, Tensor] = {}
        for d in range(1, k // 2 + 1):
            size = (d * c, 1, k, 3)
            grad = conv2d_weight(_fold_columns(x.to(g.dtype), d), size, _fold_columns(g, d), padding=(k // 2, 1), groups=d * c)
            columns[-d], columns[0], columns[d] = grad.view(d, c, k, 3).sum(0).unbind(-1)
        grad_weight = torch.stack([columns[j] for j in sorted(columns)], -1).unsqueeze(1)
        return grad_x, grad_weight.to(weight.dtype), None


def _fold_columns(x: Tensor, d: int) -> Tensor:
    """(B, C, H, W) -> (B, d C, H, W / d); in channels_last memory another view of the same numbers."""
    if x.shape[-1] % d:
        x = F.pad(x, (0, -x.shape[-1] % d))
    return x.permute(0, 2, 3, 1).unflatten(2, (-1, d)).flatten(3).permute(0, 3, 1, 2)


def _lattices(x: Tensor, d: int) -> Tensor:
    """Every d-th pixel of both directions as a picture of its own: (B, C, H, W) -> (B d^2, C, H / d, W / d)."""
    x = F.pad(x, (0, -x.shape[-1] % d, 0, -x.shape[-2] % d))
    return rearrange(x, "b c (h i) (w j) -> (b i j) c h w", i=d, j=d).contiguous(memory_format=torch.channels_last)


def pointwise_depthwise(
    x: Tensor, pointwise: Tensor, depthwise: Tensor, parts: int, multiple: int = 1
) -> Generator[Tensor, None, None]:
    """A 1x1 and a depthwise 3x3 convolution, the output in `parts`, each filled up with zeros to a `multiple` of channels.

    Each part is computed for itself, when it is asked for: slices of one wide output would lie scattered in channels_last
    memory, and their gradients would have to be joined again.
    """
    fill = -(len(pointwise) // parts) % multiple
    for p, d in zip(pointwise.chunk(parts), depthwise.chunk(parts), strict=True):
        if fill:
            p, d = (F.pad(weight, (0, 0, 0, 0, 0, 0, 0, fill)) for weight in (p, d))
        yield F.conv2d(F.conv2d(x, p), d, padding=1, groups=len(d))


def cosine_gram(q: Tensor, k: Tensor) -> Tensor:
    """Cosines between the columns of q and of k, both (B, heads, pixels, C): normalised after the product, which is small."""
    if q.dtype == torch.float16:  # a sum over all pixels would leave its range
        return F.normalize(q, dim=-2, eps=1e-6).mT @ F.normalize(k, dim=-2, eps=1e-6)
    return _CosineGram.apply(q, k) if own_backward(q) else _cosine_gram(q, k)


def _cosine_gram(q: Tensor, k: Tensor) -> Tensor:
    return q.mT @ k / _norms(q).unsqueeze(-1) / _norms(k).unsqueeze(-2)


def _norms(x: Tensor) -> Tensor:
    """Of the columns: (B, heads, pixels, C) -> (B, heads, C)."""
    return x.square().sum(-2).clamp_min(1e-24).sqrt()


class _CosineGram(torch.autograd.Function):
    """Gradients of cosines in the memory layout of q and k.

    Autograd's for q has its pixels innermost, so that all that came before must turn it, and the norms take passes over q and k
    of their own. Here the norms' part is what the products are added to in place:

        dq = k M^T - q diag(r)    M: gradient of q^T k; r: row sums of gradient * cosines / |q|^2
        dk = q M   - k diag(c)                          c: column sums of gradient * cosines / |k|^2
    """

    @staticmethod
    def forward(q: Tensor, k: Tensor) -> Tensor:
        return _cosine_gram(q, k)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        q, k, cosines = ctx.saved_tensors
        norm_q, norm_k = _norms(q), _norms(k)
        product = (g / norm_q.unsqueeze(-1) / norm_k.unsqueeze(-2)).to(q.dtype)
        g = g * cosines
        grad_q = q * (-g.sum(-1) / norm_q.square()).unsqueeze(-2).to(q.dtype)
        grad_k = k * (-g.sum(-2) / norm_k.square()).unsqueeze(-2).to(k.dtype)
        for head in range(q.shape[1]):  # one after the other, as a product for all heads would first copy q and k
            grad_q[:, head].baddbmm_(k[:, head], product[:, head].mT)
            grad_k[:, head].baddbmm_(q[:, head], product[:, head])
        return grad_q, grad_k


def row_softmax(scores: Tensor) -> Tensor:
    """What dense attention makes of its scores."""
    return scores.softmax(-1)


def covariance_attention(
    q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, project: Tensor, weigh: Callable[[Tensor], Tensor] = row_softmax
) -> Tensor:
    """Attention between channels instead of pixels (Restormer's MDTA), with the 1x1 convolution that follows it.

        project weigh(q k^T / (|q| |k|) * temperature) v

    Whatever can be done to matrices of C x C is done there: the norms divide the product instead of the long rows of q and k,
    and the convolution's matrix joins the attention, so that the picture is multiplied once. In channels_last memory pixels are
    read as rows, without a copy.

    Args:
        q, k, v: (B, C, H, W).
        temperature: (heads, 1, 1).
        project: weight of the convolution, (C_out, C, 1, 1).
        weigh: scores (B, heads, C / heads, C / heads) -> weights of the same shape.
    """
    h, w = q.shape[-2:]
    heads = temperature.shape[0]
    q, k = (rearrange(t, "b (n c) h w -> b n (h w) c", n=heads) for t in (q, k))
    attention = weigh(cosine_gram(q, k) * temperature)
    matrix = attention.mT @ rearrange(project, "o (n c) 1 1 -> n c o", n=heads)
    v = rearrange(v, "b c h w -> b (h w) c")
    return rearrange(v @ matrix.flatten(1, 2), "b (h w) c -> b c h w", h=h, w=w)


class ChannelSelfAttention(nn.Module):
    """q, k, v by a 1x1 and a depthwise 3x3 convolution, then `covariance_attention` with its 1x1 convolution."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = conv1(channels, 3 * channels)
        self.qkv_depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project = conv1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = pointwise_depthwise(x, self.qkv.weight, self.qkv_depthwise.weight, 3)
        return covariance_attention(q, k, v, self.temperature, self.project.weight, self.weigh)

    def weigh(self, scores: Tensor) -> Tensor:
        """What the scores (B, heads, C / heads, C / heads) become before they multiply v."""
        return row_softmax(scores)


class SparseChannelAttention(ChannelSelfAttention):
    """Top-k sparse channel attention: four softmaxes, over the k largest scores of each row, mixed by learned weights.

    The paper computes, for k of (1/2, 2/3, 3/4, 4/5) C and with S = q k^T / (|q| |k|) * temperature,

        out = W sum_j a_j softmax(top_kj(S)) v

    The four kept sets are beginnings of one sorted list, so one sparse matrix holds their sum, and v is multiplied once.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        n = channels // heads
        if channels % heads or n < 2:
            raise DerainzooError(
                f"sparse attention: heads that divide the width into 2 or more channels each expected, "
                f"found {heads} heads for width {channels}"
            )
        self.keep = (n // 2, 2 * n // 3, 3 * n // 4, 4 * n // 5)
        self.mix = nn.ParameterList(nn.Parameter(torch.full((1,), 0.2)) for _ in self.keep)

    def weigh(self, scores: Tensor) -> Tensor:
        top, indices = scores.topk(self.keep[-1], dim=-1)
        e = (top - top[..., :1]).exp()
        sums = e.cumsum(-1)
        rank = torch.arange(self.keep[-1], device=e.device)
        # a score of rank r counts in every branch that keeps more than r of them
        weights = e * sum(a / sums[..., k - 1 : k] * (rank < k) for a, k in zip(self.mix, self.keep, strict=True))
        return torch.zeros_like(scores).scatter(-1, indices, weights.to(scores.dtype))


class GatedFeedForward(nn.Module):
    """1x1 out to two halves, depthwise 3x3, one half gates the other, 1x1 back (Restormer's GDFN)."""

    def __init__(self, channels: int, hidden: int, gate: nn.Module) -> None:
        super().__init__()
        self.expand = conv1(channels, 2 * hidden)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.gate = gate
        self.project = conv1(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        # halves are often odd, as int(2.66 * 48) = 127 is, which libraries for CPUs compute at half the speed of 128
        multiple = 16 if x.device.type == "cpu" else 1
        halves = pointwise_depthwise(x, self.expand.weight, self.depthwise.weight, 2, multiple)
        a = self.gate(next(halves))  # what it was before need not be kept while the other half is computed
        fill = a.shape[1] - self.project.in_channels
        return F.conv2d(a * next(halves), F.pad(self.project.weight, (0, 0, 0, 0, 0, fill)))


def simple_gate(x: Tensor) -> Tensor:
    """One half of the channels times the other: NAFNet's stand-in for an activation."""
    a, b = x.chunk(2, dim=1)
    return a * b


def scaled_conv1(conv: nn.Conv2d, scale: Tensor, x: Tensor) -> Tensor:
    """`scale * conv(x)` for a 1x1 convolution and a factor (1, C, 1, 1); scaling its weights instead saves a pass."""
    scale = scale.flatten()
    return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), None if conv.bias is None else conv.bias * scale)


class NAFBlock(nn.Module):
    """NAFNet's block: a depthwise convolution with simplified channel attention, then two 1x1 convolutions; no activations.

    `beta` and `gamma` weigh the two residual branches; they start at zero, where the block is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.expand1 = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.pool, self.attend = GlobalPool(), nn.Conv2d(channels, channels, 1)
        self.project1 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.norm2 = LayerNorm2d(channels, eps=1e-6)
        self.expand2 = nn.Conv2d(channels, 2 * channels, 1)
        self.project2 = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = simple_gate(self.depthwise(self.expand1(self.norm1(x))))
        y = y * self.attend(self.pool(y))
        x = x + scaled_conv1(self.project1, self.beta, y)
        return x + scaled_conv1(self.project2, self.gamma, simple_gate(self.expand2(self.norm2(x))))
