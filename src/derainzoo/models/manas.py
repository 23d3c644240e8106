"""MANAS: a multi-scale deraining network whose cells and attentions were chosen by architecture search.

Four branches, of widths C, 2C, 4C, 8C at 1, 1/2, 1/4, 1/8 of the resolution, join one after the other as in HRNet. Between two
joins the branches pass four *cells*, each either parallel (every branch for itself) or fusion (all exchange), and then every
branch passes an *attention* of three edges, each of which carries one of nine operations:

    branches <- cells(branches, new branch)                       4 cells of P | F a stage           12 choices
    a, b = halves of x;  u0 = e0(a),  u1 = e1(b) + e2(u0)         e0, e1, e2 of nine operations      27 choices
    attention(x) = SE(x + project[u0, u1, SE(a + b)])
    image = conv1x1(fusion to branch 0)                           the image itself: no skip, no clamp

Written from a description of the published code, none of which is used. **The published architecture is unknown**: it lies in
a pickled module that could not be obtained, and neither could the paper's text. The default of `manas` below is therefore ours,
chosen by hand; `nas` is there to find better ones. What we do differently, on purpose:

- only the chosen operations are built; the published network builds, stores and never trains the other eight of every edge;
- every branch may have operations of its own (nine times three), which is what the search learns; the published derivation
  keeps three times three, shared by the branches of a stage, and takes them from the wrong branches;
- any image size goes in: padded to a multiple of 8 and cropped back, where the published test cuts the image.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor, nn

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.models.checkpoints import Official, Shapes
from derainzoo.models.choices import chosen, parse_choices
from derainzoo.models.layers import DepthwiseConv, crop, pad_to_multiple
from derainzoo.models.registry import Paper, register

PAPER = Paper(
    title="Multi-scale Attentive Image De-raining Networks via Neural Architecture Search",
    authors="L. Cai, Y. Fu, W. Huo, Y. Xiang, T. Zhu, Y. Zhang, H. Zeng, D. Zeng",
    venue="IEEE TCSVT 33(2)",
    year=2023,
    url="https://arxiv.org/abs/2207.00728",
    code="https://github.com/lcai-gz/MANAS",
    code_licence="none stated",
)

STAGES = (2, 3, 4)
"""Branches of each stage."""
CELLS_PER_STAGE = 4
EDGES = 3
"""Edges of an attention."""


class ConvBN(nn.Sequential):
    """Convolution of the same size without bias, batch normalisation, and ReLU where asked for."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, relu: bool = False) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out))
        if relu:
            self.append(nn.ReLU())


class Bottleneck(nn.Module):
    """1x1 to c, 3x3, 1x1 to 4c, residual. Only the stem is made of it."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = ConvBN(c_in, c, 1, relu=True), ConvBN(c, c, 3, relu=True), ConvBN(c, 4 * c, 1)
        self.shortcut = nn.Identity() if c_in == 4 * c else ConvBN(c_in, 4 * c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, residual."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvBN(c, c, 3, relu=True), ConvBN(c, c, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(self.conv1(x)) + x)


class Parallel(nn.Module):
    """Cell P: one residual block per branch."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(c) for c in widths)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        return [block(x) for block, x in zip(self.blocks, branches, strict=True)]


class Fusion(nn.Module):
    """Cell F: every branch becomes the sum of all, each brought to its size and width.

    Upwards a 1x1 convolution, then nearest neighbours (so the convolution runs on the small side); downwards a strided 3x3
    convolution a halving, of which the last one changes the width. `outputs` counts the branches wanted, from branch 0 on.
    """

    def __init__(self, widths: Sequence[int], outputs: int | None = None) -> None:
        super().__init__()
        self.outputs = outputs or len(widths)
        self.paths = nn.ModuleDict()
        for target in range(self.outputs):
            for source, c in enumerate(widths):
                if source > target:
                    path = [ConvBN(c, widths[target], 1), nn.Upsample(scale_factor=2 ** (source - target))]
                else:
                    path = [ConvBN(c, c, 3, stride=2, relu=True) for _ in range(target - source - 1)]
                    path += [ConvBN(c, widths[target], 3, stride=2)]
                if source != target:
                    self.paths[f"{source}to{target}"] = nn.Sequential(*path)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        fused = []
        for i in range(self.outputs):
            first, *others = (x if i == j else self.paths[f"{j}to{i}"](x) for j, x in enumerate(branches))
            fused.append(torch.relu(sum(others, first)))
        return fused


def channel_pool(x: Tensor) -> Tensor:
    """Maximum and mean over the channels: (B, C, H, W) -> (B, 2, H, W)."""
    return torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)


class Zero(nn.Module):
    """Operation `none`: the edge is cut."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class PixelGate(nn.Module):
    """x * sigmoid(logits(x)), or with `pool` the logits of the channel pool: one weight for all channels of a pixel."""

    def __init__(self, *logits: nn.Module, pool: bool = False) -> None:
        super().__init__()
        self.logits, self.pool = nn.Sequential(*logits), pool

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.logits(channel_pool(x) if self.pool else x))


class ChannelGate(nn.Module):
    """Squeeze and excitation by the mean, with `maximum` by the maximum too: the logits of both are added."""

    def __init__(self, c: int, reduction: int, maximum: bool = False, bias: bool = False) -> None:
        super().__init__()
        hidden = max(c // reduction, 2)
        self.fc = nn.Sequential(nn.Linear(c, hidden, bias), nn.ReLU(), nn.Linear(hidden, c, bias))
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc(x.mean((2, 3)))
        if self.maximum:
            logits = logits + self.fc(x.amax((2, 3)))
        return x * torch.sigmoid(logits)[:, :, None, None]


def separable(c_in: int, c_out: int, dilation: int = 1, depthwise: bool = True) -> tuple[nn.Module, ...]:
    """3x3, 1x1, and a normalisation without parameters (in the final network too, unlike in DARTS)."""
    c = c_in if depthwise else c_out
    wide = (
        DepthwiseConv(c, 3, dilation) if depthwise else nn.Conv2d(c_in, c, 3, padding=dilation, dilation=dilation, bias=False)
    )
    return (
        wide,
        nn.Conv2d(c, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out, affine=False),
    )


def cbam(c: int) -> nn.Module:
    """Operation `cbam`: channels gated first, then pixels."""
    spatial = PixelGate(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1, momentum=0.01), pool=True)
    return nn.Sequential(OrderedDict(channel=ChannelGate(c, 4, maximum=True, bias=True), spatial=spatial))


OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda c: Zero(),
    "skip": lambda c: nn.Identity(),
    "sep": lambda c: PixelGate(*separable(c, c), nn.ReLU(), *separable(c, c)),
    "dil": lambda c: PixelGate(*separable(c, c, dilation=2)),
    "sep_spatial": lambda c: PixelGate(*separable(2, 2), nn.ReLU(), *separable(2, 1), pool=True),
    "dil_spatial": lambda c: PixelGate(*separable(2, 1, dilation=2, depthwise=False), pool=True),
    "se": lambda c: ChannelGate(c, 4),
    "se_max": lambda c: ChannelGate(c, 4, maximum=True),
    "cbam": cbam,
}
"""The nine candidates of an edge; their order is the index that the published code gives them."""


def make_op(name: str, channels: int) -> nn.Module:
    """The candidate operation `name` for `channels` channels: what stands on an edge of an attention."""
    if name not in OPERATIONS:
        raise unknown_name("operation of manas", name, OPERATIONS)
    return OPERATIONS[name](channels)


class Attention(nn.Module):
    """Two nodes over the halves of a branch beside a squeeze-excitation of their sum.

    `edges` are first half -> node 0, second half -> node 1, node 0 -> node 1, each from c / 2 to c / 2 channels.
    """

    def __init__(self, c: int, edges: Sequence[nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edges)
        self.gate = ChannelGate(c // 2, 4)
        self.project = nn.Sequential(ConvBN(3 * c // 2, c, 1, relu=True), ConvBN(c, c, 1))
        self.gate_out = ChannelGate(c, 16)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        u0 = self.edges[0](a)
        u1 = self.edges[1](b) + self.edges[2](u0)
        return self.gate_out(self.project(torch.cat([u0, u1, self.gate(a + b)], 1)) + x)  # no ReLU: may be negative


class Stage(nn.Module):
    """Four cells, then an attention on every branch."""

    def __init__(self, cells: Sequence[nn.Module], attentions: Sequence[nn.Module]) -> None:
        super().__init__()
        self.cells, self.attentions = nn.ModuleList(cells), nn.ModuleList(attentions)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        for cell in self.cells:
            branches = cell(branches)
        return [attention(x) for attention, x in zip(self.attentions, branches, strict=True)]


class MANAS(nn.Module):
    """The skeleton that the derived network and a supernet share: what stands in its places is made by the caller.

    Args:
        width: channels C of branch 0; branch b has C * 2^b at 1/2^b of the resolution.
        stem: run two bottlenecks before the first join; without them the image itself goes there.
        cell: (place 0..11, widths of its branches) -> module from list of branches to list of branches.
        edge: (place 0..26, channels) -> module; place = 3 * attention + edge, attentions counted stage by stage, then branch.
    """

    multiple_of = 8

    def __init__(
        self,
        width: int,
        stem: bool,
        cell: Callable[[int, Sequence[int]], nn.Module],
        edge: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise DerainzooError(f"width of manas: expected an even number (its branches are halved), found {width}")
        widths = [width * 2**b for b in range(STAGES[-1])]
        self.stem = nn.Sequential(Bottleneck(3, width), Bottleneck(4 * width, width)) if stem else nn.Identity()
        c_in = 4 * width if stem else 3
        self.enter = ConvBN(c_in, width, 3, relu=True)
        # branch 1 grows out of what branch 0 enters by, the later ones out of the last branch there is
        self.grow = nn.ModuleList(
            ConvBN(c, 2 * w, 3, stride=2, relu=True) for c, w in zip([c_in, *widths[1:-1]], widths[:-1], strict=True)
        )
        self.stages = nn.ModuleList()
        cell_places, edge_places = count(), count()
        for branches in STAGES:
            cells = [cell(next(cell_places), widths[:branches]) for _ in range(CELLS_PER_STAGE)]
            attentions = [Attention(c, [edge(next(edge_places), c // 2) for _ in range(EDGES)]) for c in widths[:branches]]
            self.stages.append(Stage(cells, attentions))
        self.fuse = Fusion(widths, outputs=1)
        self.tail = nn.Conv2d(width, 3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        last = self.stem(pad_to_multiple(x, self.multiple_of))
        branches = [self.enter(last)]
        for grow, stage in zip(self.grow, self.stages, strict=True):
            branches = stage([*branches, grow(last)])
            last = branches[-1]
        return crop(self.tail(self.fuse(branches)[0]), h, w)


def parse_cells(text: str) -> str:
    """Twelve letters P and F, stage by stage; blanks are for the reader."""
    cells = "".join(text.split()).upper()
    wrong = sorted(set(cells) - {"P", "F"})
    if wrong or len(cells) != CELLS_PER_STAGE * len(STAGES):
        found = f"the letters {', '.join(wrong)}" if wrong else f"{len(cells)}"
        raise DerainzooError(
            f"cells of manas: expected 12 letters P (parallel) or F (fusion) like 'PFPF PFPF PFPF', found {found}: '{text}'"
        )
    return cells


def expand_operations(operations: str | Sequence[str]) -> list[list[str]]:
    """Three operations for each of the nine attentions, out of one text for all, one a stage, or one an attention."""
    if not operations:
        raise DerainzooError(
            "operations of manas: expected texts like sep+dil+skip, found none. Published weights hold all nine candidates of "
            "every edge and do not tell which were chosen: say so, as in operations=[sep+dil+skip, ...]"
        )
    counts = {1: "for all", len(STAGES): "one a stage", sum(STAGES): "one an attention"}
    slots = {f"edge {k}": OPERATIONS for k in range(EDGES)}
    rows = parse_choices(operations, slots, counts, "manas")
    if len(rows) == 1:
        rows = rows * len(STAGES)
    if len(rows) == len(STAGES):
        rows = [row for row, branches in zip(rows, STAGES, strict=True) for _ in range(branches)]
    return rows


@register(
    tasks=("derain",),
    params=6_814_384,
    macs=31_089_651_456,
    multiple_of=8,
    tiny={"width": 8},
    limits={"train_small": "batch normalisation at 1/8 resolution: one padded image of 8 x 8 cannot be trained on alone"},
)
def manas(
    cells: str = "PFPF PFPF PFPF",
    operations: str | Sequence[str] = "sep+dil+skip",
    stem: bool = False,
    width: int = 32,
) -> MANAS:
    """MANAS with a given architecture; the default one is ours, the published one is unknown.

    By hand: every residual block is followed by an exchange; one half of an attention weighs near pixels, the other far ones,
    and the second node sees both.

    Args:
        cells: twelve letters, four a stage: P parallel, F fusion.
        operations: `edge0+edge1+edge2` with names of `OPERATIONS`: a text for all attentions, one a stage, or one an attention.
        stem: run the two bottlenecks of the earlier published commit; the later one builds them but does not run them.
        width: channels of the first branch; 32 as published.
    """
    letters = parse_cells(cells)
    names = [name for row in expand_operations(operations) for name in row]

    def cell(place: int, widths: Sequence[int]) -> nn.Module:
        return chosen("parallel", Parallel(widths)) if letters[place] == "P" else chosen("fusion", Fusion(widths))

    def edge(place: int, channels: int) -> nn.Module:
        return chosen(names[place], make_op(names[place], channels))

    return MANAS(width, stem, cell, edge)


def _infer(shapes: Shapes) -> tuple[str, dict[str, object]]:
    places = [f"stage{s}.{p}." for s in (2, 3, 4) for p in range(CELLS_PER_STAGE)]
    cells = "".join("P" if f"{place}branches.0.0.conv1.weight" in shapes else "F" for place in places)
    width, c_in = shapes["transition1.transition_layers.0.0.weight"][:2]
    # all nine candidates of every edge are in the file, chosen or not: no operations, so that building says what is missing
    return "manas", {"cells": cells, "operations": [], "stem": c_in != 3, "width": width}


OFFICIAL = Official(
    signature=(
        "transition1.transition_layers.0.0.weight",
        "auto1.0.channel_back.0.weight",
        "final_fuse.fuse_layers.0.1.0.weight",
    ),
    infer=_infer,
    rules=(
        (r"^stage1\.", "stem."),
        (r"^stem\.(\d)\.downsample\.", r"stem.\1.shortcut."),
        (r"^transition1\.transition_layers\.0\.", "enter."),
        (r"^transition1\.transition_layers\.1\.0\.", "grow.0."),
        (r"^transition2\.transition_layers\.2\.0\.", "grow.1."),
        (r"^transition3\.transition_layers\.3\.0\.", "grow.2."),
        (r"^stage2\.", "stages.0.cells."),
        (r"^stage3\.", "stages.1.cells."),
        (r"^stage4\.", "stages.2.cells."),
        (r"\.branches\.(\d)\.0\.", r".parallel.blocks.\1."),
        (r"\.conv(\d)\.", r".conv\1.0."),
        (r"\.bn(\d)\.", r".conv\1.1."),
        (r"^final_fuse\.", "fuse."),
        (r"^(stages.*)\.fuse_layers\.", r"\1.fusion.fuse_layers."),
        # [target][source][step of a way down][convolution or norm]; the ways up have no steps
        (r"\.fuse_layers\.(\d)\.(\d)\.(\d)\.(\d)\.", r".paths.\2to\1.\3.\4."),
        (r"\.fuse_layers\.(\d)\.(\d)\.(\d)\.", r".paths.\2to\1.0.\3."),
        (r"^auto1\.", "stages.0.attentions."),
        (r"^auto2\.", "stages.1.attentions."),
        (r"^auto3\.", "stages.2.attentions."),
        (r"(\.attentions\.\d)\.se\.", r"\1.gate."),
        (r"(\.attentions\.\d)\.se2\.", r"\1.gate_out."),
        (r"\.ops\.(\d)\.ops\.2\.op\.", r".edges.\1.sep.logits."),
        (r"\.ops\.(\d)\.ops\.3\.op\.", r".edges.\1.dil.logits."),
        (r"\.ops\.(\d)\.ops\.4\.op\.", r".edges.\1.sep_spatial.logits."),
        (r"\.ops\.(\d)\.ops\.5\.op\.", r".edges.\1.dil_spatial.logits."),
        (r"\.ops\.(\d)\.ops\.6\.", r".edges.\1.se."),
        (r"\.ops\.(\d)\.ops\.7\.", r".edges.\1.se_max."),
        (r"\.ops\.(\d)\.ops\.8\.", r".edges.\1.cbam."),
        (r"\.ChannelGate\.mlp\.1\.", ".channel.fc.0."),
        (r"\.ChannelGate\.mlp\.3\.", ".channel.fc.2."),
        (r"\.SpatialGate\.spatial\.conv\.", ".spatial.logits.0."),
        (r"\.SpatialGate\.spatial\.bn\.", ".spatial.logits.1."),
        (r"\.channel_back\.(0|1)\.", r".project.0.\1."),
        (r"\.channel_back\.3\.", ".project.1.0."),
        (r"\.channel_back\.4\.", ".project.1.1."),
        (r"^final_conv\.0\.", "tail."),
    ),
    dead=(
        r"^auto\d\.\d\.ops\.\d\.ops\.\d\.",  # candidates that were not chosen
        r"^stage1\.",  # the stem, where the published forward leaves it out
    ),
)
