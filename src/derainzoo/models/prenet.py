"""PReNet, "Progressive Image Deraining Networks: A Better and Simpler Baseline".

One shallow residual network is applied to the rainy image again and again, each time beside its own last result; a
convolutional LSTM carries features from stage to stage. All stages share their weights (section 3).

    x^0 = y,    (h^t, s^t) = f_recurrent(f_in(y, x^(t-1)), s^(t-1)),    x^t = y + f_out(f_res(h^t))

The variants of the paper: without the recurrent layer it is PRN; `_r` also shares the weights of the residual blocks within a
stage, i.e. applies one block five times (section 3.3). In training the last stage alone is returned, as the paper's loss, the
negative SSIM of x^6, needs no other.

Written from the paper; the published code settled what it leaves open: a residual block applies ReLU after each of its
convolutions and after its sum; the networks of the ablation study (GRU among them) predict x^t without adding y; those for
photographs do so too, and have four stages and the recurrent layer behind the residual blocks.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.models.checkpoints import Official, Shapes
from derainzoo.models.registry import Paper, register

PAPER = Paper(
    title="Progressive Image Deraining Networks: A Better and Simpler Baseline",
    authors="D. Ren, W. Zuo, Q. Hu, P. Zhu, D. Meng",
    venue="CVPR",
    year=2019,
    url="https://arxiv.org/abs/1901.09221",
    code="https://github.com/csdwren/PReNet",
    code_licence="none stated",
)

Recurrence = Literal["lstm", "gru", "none"]


def conv3(c_in: int, c_out: int) -> nn.Conv2d:
    """3x3 convolution, same size: the only layer there is."""
    return nn.Conv2d(c_in, c_out, 3, padding=1)


class ConvLSTM(nn.Module):
    """Hidden state h and cell c; both are zero before the first stage."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.input, self.forget, self.candidate, self.output = (conv3(2 * features, features) for _ in range(4))

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = state or (torch.zeros_like(x), torch.zeros_like(x))
        xh = torch.cat([x, h], 1)
        c = self.forget(xh).sigmoid() * c + self.input(xh).sigmoid() * self.candidate(xh).tanh()
        return self.output(xh).sigmoid() * c.tanh(), c


class ConvGRU(nn.Module):
    """Hidden state h alone."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.update, self.reset, self.candidate = (conv3(2 * features, features) for _ in range(3))

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = state or (torch.zeros_like(x),)
        xh = torch.cat([x, h], 1)
        z = self.update(xh).sigmoid()
        candidate = self.candidate(torch.cat([self.reset(xh).sigmoid() * h, x], 1)).tanh()
        return ((1 - z) * h + z * candidate,)


class Stateless(nn.Module):
    """What stands in the place of the recurrent layer in PRN."""

    def __init__(self, features: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (x,)


_RECURRENT = {"lstm": ConvLSTM, "gru": ConvGRU, "none": Stateless}


class ResidualBlock(nn.Module):
    """Two convolutions and a sum, a ReLU after each of the three."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3(features, features), conv3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + F.relu(self.conv2(F.relu(self.conv1(x)))))


class PReNet(nn.Module):
    """The whole: y -> x^T.

    Args:
        features: width of every layer.
        blocks: residual blocks in a stage.
        iterations: stages T; not a property of the weights, and `net.iterations` may be changed at any time.
        recurrence: the layer that carries features between stages.
        recursive: the blocks of a stage share their weights.
        residual: each stage predicts the difference to the rainy image, not the image.
        late: the recurrent layer comes after the residual blocks instead of before them.
    """

    def __init__(
        self,
        features: int,
        blocks: int,
        iterations: int,
        recurrence: Recurrence,
        recursive: bool = False,
        residual: bool = True,
        late: bool = False,
    ) -> None:
        super().__init__()
        if recurrence not in _RECURRENT:
            raise unknown_name("recurrence", recurrence, _RECURRENT)
        self.iterations, self.residual, self.late = iterations, residual, late
        self.repeats = blocks if recursive else 1
        self.head = conv3(6, features)
        self.recurrent = _RECURRENT[recurrence](features)
        self.blocks = nn.Sequential(*(ResidualBlock(features) for _ in range(1 if recursive else blocks)))
        self.tail = conv3(features, 3)

    def forward(self, y: Tensor) -> Tensor:
        x, state = y, cast(tuple[Tensor, ...], ())
        for _ in range(self.iterations):
            f = F.relu(self.head(torch.cat([y, x], 1)))  # (B, features, H, W), as everything until the tail
            if self.late:
                state = self.recurrent(self.residual_blocks(f), state)
                f = state[0]
            else:
                state = self.recurrent(f, state)
                f = self.residual_blocks(state[0])
            x = self.tail(f) + y if self.residual else self.tail(f)
        return x

    def residual_blocks(self, x: Tensor) -> Tensor:
        for _ in range(self.repeats):
            x = self.blocks(x)
        return x


@register(
    tasks=("derain",),
    params=168_963,
    macs=66_249_031_680,
    multiple_of=1,
    tiny={"features": 8, "blocks": 2, "iterations": 2},
)
def prenet(
    features: int = 32,
    blocks: int = 5,
    iterations: int = 6,
    recurrence: Recurrence = "lstm",
    recursive: bool = False,
    residual: bool = True,
    late: bool = False,
) -> PReNet:
    """PReNet: six stages of five residual blocks behind a convolutional LSTM."""
    return PReNet(features, blocks, iterations, recurrence, recursive, residual, late)


@register(
    tasks=("derain",),
    params=168_963,
    macs=44_166_021_120,
    multiple_of=1,
    tiny={"features": 8, "blocks": 2, "iterations": 2},
)
def prenet_real(features: int = 32, blocks: int = 5, iterations: int = 4) -> PReNet:
    """The authors' form for photographs: four stages, the LSTM behind the blocks, and each stage predicts the image."""
    return PReNet(features, blocks, iterations, "lstm", residual=False, late=True)


@register(
    tasks=("derain",),
    params=94_979,
    macs=66_249_031_680,
    multiple_of=1,
    tiny={"features": 8, "blocks": 2, "iterations": 2},
)
def prenet_r(features: int = 32, blocks: int = 5, iterations: int = 6) -> PReNet:
    """PReNet_r: PReNet whose five residual blocks are one."""
    return PReNet(features, blocks, iterations, "lstm", recursive=True)


@register(
    tasks=("derain",),
    params=150_499,
    macs=59_001_274_368,
    multiple_of=1,
    tiny={"features": 8, "blocks": 2, "iterations": 2},
)
def prenet_gru(features: int = 32, blocks: int = 5, iterations: int = 6) -> PReNet:
    """The paper's ablation with a GRU, whose stages predict the image itself."""
    return PReNet(features, blocks, iterations, "gru", residual=False)


@register(
    tasks=("derain",),
    params=95_107,
    macs=37_258_002_432,
    multiple_of=1,
    tiny={"features": 8, "blocks": 2, "iterations": 2},
)
def prn(features: int = 32, blocks: int = 5, iterations: int = 6) -> PReNet:
    """PRN: PReNet without the recurrent layer."""
    return PReNet(features, blocks, iterations, "none")


@register(
    tasks=("derain",),
    params=21_123,
    macs=37_258_002_432,
    multiple_of=1,
    tiny={"features": 8, "blocks": 2, "iterations": 2},
)
def prn_r(features: int = 32, blocks: int = 5, iterations: int = 6) -> PReNet:
    """PRN_r: PRN whose five residual blocks are one; the smallest of the family."""
    return PReNet(features, blocks, iterations, "none", recursive=True)


def _infer(shapes: Shapes) -> tuple[str, dict[str, object]]:
    features, inputs = shapes["conv0.0.weight"][:2]
    if inputs != 6:
        raise DerainzooError(
            f"PReNet stages see the rainy image beside the last result, 6 channels; this one sees {inputs} "
            "(the ablation without the rainy image is not in the zoo)"
        )
    arguments: dict[str, object] = {"features": features}
    # Iterations, order of layers and what is predicted leave no trace in the shapes: the paper's are assumed.
    blocks = sum(k.startswith("res_conv") and k.endswith(".0.weight") for k in shapes)
    if blocks == 1:  # shared within the stage; how often it is applied leaves no trace either
        return ("prenet_r" if "conv_i.0.weight" in shapes else "prn_r"), arguments
    arguments["blocks"] = blocks
    return ("prenet" if "conv_i.0.weight" in shapes else "prenet_gru" if "conv_z.0.weight" in shapes else "prn"), arguments


OFFICIAL = Official(
    signature=("conv0.0.weight", "res_conv1.0.weight", "res_conv1.2.weight", "conv.0.weight"),
    infer=_infer,
    rules=(
        (r"^conv0\.0\.", "head."),
        (r"^conv\.0\.", "tail."),
        (r"^res_conv(\d+)\.", lambda m: f"blocks.{int(m[1]) - 1}."),
        (r"^(blocks\.\d+)\.0\.", r"\1.conv1."),
        (r"^(blocks\.\d+)\.2\.", r"\1.conv2."),
        (r"^conv_i\.0\.", "recurrent.input."),
        (r"^conv_f\.0\.", "recurrent.forget."),
        (r"^conv_g\.0\.", "recurrent.candidate."),
        (r"^conv_o\.0\.", "recurrent.output."),
        (r"^conv_z\.0\.", "recurrent.update."),
        (r"^conv_b\.0\.", "recurrent.reset."),
    ),
)
