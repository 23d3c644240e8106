"""A genotype as a picture: SVG text, with nothing but strings."""

from collections.abc import Sequence
from itertools import count

from derainzoo import svg
from derainzoo.models import autoderain, manas
from derainzoo.nas.genotype import Genotype
from derainzoo.svg import INK, PALE

COLOURS = {
    # plain
    "none": "#ffffff", "id": "#ffffff", "skip": "#eceff1", "conv1": "#cfd8dc", "conv3": "#bbdefb", "conv5": "#64b5f6",
    # far-reaching, cheap
    "dil": "#a5d6a7", "dil2": "#c8e6c9", "dil3": "#a5d6a7", "dil4": "#81c784",
    "sep": "#ffe082", "sep3": "#ffecb3", "sep5": "#ffd54f",
    # attention over pixels, over channels, over both
    "sep_spatial": "#b2ebf2", "dil_spatial": "#80deea", "se": "#e1bee7", "se_max": "#ce93d8", "cbam": "#f48fb1",
}  # fmt: skip


class Canvas(svg.Canvas):
    """With what drawings of networks need besides."""

    def chip(self, x: float, y: float, w: float, name: str) -> None:
        """An operation: its name on its colour, pale where it does nothing."""
        absent = name in ("none", "id")
        self.box(x, y, w, 17, fill=COLOURS[name], edge=PALE if absent else INK)
        self.text(x + w / 2, y + 12, name, colour=PALE if absent else "#000000")


def draw(genotype: Genotype) -> str:
    """The derived network with the chosen operations, as the text of an SVG file."""
    return {"manas": _draw_manas, "autoderain": _draw_autoderain}[genotype.system](genotype)


def _title(canvas: Canvas, genotype: Genotype, facts: str) -> str:
    title = f"{genotype.system} {genotype.hash}"
    canvas.text(24, 30, title, size=15, anchor="start", bold=True)
    canvas.text(24, 48, facts, size=11, anchor="start", colour=INK)
    return title


def _draw_manas(genotype: Genotype) -> str:
    """Branches from top to bottom; each stage is four cells and an attention on every branch."""
    arguments = genotype.model_arguments()
    cells = manas.parse_cells(arguments["cells"])
    rows = iter(manas.expand_operations(arguments["operations"]))
    canvas = Canvas()
    stem = "two bottlenecks first" if arguments["stem"] else "no stem"
    title = _title(canvas, genotype, f"{arguments['width']} channels, {stem}, cells {arguments['cells']}")

    def height(branch: int) -> float:
        return 110 + 104 * branch

    place = count()
    canvas.box(24, height(0) - 12, 46, 24, "image")
    x = 70.0
    for branches in manas.STAGES:
        new = branches - 1
        for b in range(new):
            canvas.line((x, height(b)), (x + 30, height(b)))
        # the new branch grows out of the last one, the first of them out of the image
        canvas.line((x + 12, height(new - 1)), (x + 12, height(new)), (x + 30, height(new)), arrow=True)
        x += 30
        canvas.text(x + 4, 78, f"stage {branches}", anchor="start", colour=INK, bold=True, size=11)
        for _ in range(manas.CELLS_PER_STAGE):
            _cell(canvas, x, cells[next(place)], [height(b) for b in range(branches)])
            x += 52
        for b in range(branches):
            _attention(canvas, x, height(b), next(rows))
        x += 206
    for b in range(manas.STAGES[-1]):
        canvas.line((x, height(b)), (x + 44, height(0)))
    canvas.node(x + 44, height(0), "+")
    canvas.line((x + 44, height(0)), (x + 78, height(0)), arrow=True)
    canvas.box(x + 78, height(0) - 12, 46, 24, "clean")
    bottom = height(manas.STAGES[-1]) - 30
    legend = (
        "Cells: a box is a residual block, + the sum of all branches. Attention: what is done to the halves a, b of a branch, "
        "and to node 0 (o) on its way to node 1 (+)."
    )
    canvas.text(24, bottom, legend, anchor="start", colour=INK)
    return canvas.svg(x + 148, bottom + 24, title)


def _cell(canvas: Canvas, x: float, kind: str, heights: Sequence[float]) -> None:
    for y in heights:
        if kind == "P":
            canvas.line((x, y), (x + 52, y))
            canvas.box(x + 11, y - 13, 30, 26, "3×3", fill="#e3f2fd")
        else:
            for source in heights:
                canvas.line((x, source), (x + 36, y), colour=INK if source == y else PALE)
            canvas.line((x + 36, y), (x + 52, y))
            canvas.node(x + 36, y, "+")


def _attention(canvas: Canvas, x: float, y: float, row: Sequence[str]) -> None:
    """A frame 188 x 84: edges 0 and 1 above each other, edge 2 between their ends."""
    left, right, top, bottom = x + 12, x + 136, y - 24, y + 24
    canvas.line((x, y), (left - 4, y), (left - 4, top), (right, top), (right, bottom), (left - 4, bottom), (left - 4, y))
    canvas.line((right, top), (x + 176, top), (x + 176, y), (x + 206, y))
    canvas.line((right, bottom), (x + 176, bottom), (x + 176, y))
    canvas.lines.append(
        f'<rect x="{x + 2:g}" y="{y - 42:g}" width="188" height="84" rx="6" fill="#fafafa" stroke="{PALE}" stroke-width="1"/>'
    )
    canvas.lines.insert(0, canvas.lines.pop())  # the frame lies beneath its lines
    for name, middle, chip_x in zip(row, (top, bottom, y), (left + 10, left + 10, right - 35), strict=True):
        canvas.chip(chip_x, middle - 8.5, 70, name)
    canvas.text(left + 4, top - 5, "a", size=9, colour=INK)
    canvas.text(left + 4, bottom + 12, "b", size=9, colour=INK)
    canvas.node(right, top)
    canvas.node(right, bottom, "+")


def _draw_autoderain(genotype: Genotype) -> str:
    """The U: encoder going down on the left, decoder coming up on the right; a block is its three choices."""
    arguments = genotype.model_arguments()
    blocks, width = arguments["blocks"], arguments["width"]
    rows = iter(autoderain.expand_operations(arguments["operations"], blocks))
    canvas = Canvas()
    title = _title(canvas, genotype, f"{width} channels, blocks {blocks}")
    heights = [124, 238, 352]
    canvas.box(24, heights[0] - 12, 46, 24, "rainy")
    x = 70.0
    canvas.line((x, heights[0]), (x + 24, heights[0]))
    x += 24
    ends: dict[int, float] = {}
    scales = (0, 1, 2, 1, 0)
    for step, scale in enumerate(scales):
        y = heights[scale]
        if step in (1, 2):  # down
            canvas.line((x, heights[scale - 1]), (x + 14, heights[scale - 1]), (x + 14, y), (x + 40, y), arrow=True)
        elif step > 2:  # up, and what the encoder had there
            canvas.line((x, heights[scale + 1]), (x + 14, heights[scale + 1]), (x + 14, y), (x + 40, y), arrow=True)
            canvas.line((ends[scale], y), (x + 14, y), colour=PALE)
            canvas.node(x + 14, y, "c")
        x += 40 if step else 16
        canvas.line((x - 16, y), (x, y))
        for _ in range(blocks[scale]):
            _block(canvas, x, y, next(rows))
            x += 76
        ends.setdefault(scale, x)
        if step < 3:
            canvas.text(x - 76 * blocks[scale] + 4, y - 48, f"{width * 2**scale} channels", size=10, anchor="start", colour=INK)
    canvas.line((x, heights[0]), (x + 23, heights[0]), arrow=True)
    canvas.line((82, heights[0]), (82, 64), (x + 30, 64), (x + 30, heights[0] - 7), colour=PALE)
    canvas.node(x + 30, heights[0], "−")
    canvas.line((x + 30, heights[0]), (x + 60, heights[0]), arrow=True)
    canvas.box(x + 60, heights[0] - 12, 46, 24, "clean")
    bottom = heights[-1] + 74
    legend = "a block, from top to bottom: convolution a, ReLU, convolution b, squeeze-excitation or none (id); plus its input"
    canvas.text(24, bottom, legend, anchor="start", colour=INK)
    return canvas.svg(x + 130, bottom + 24, title)


def _block(canvas: Canvas, x: float, y: float, names: Sequence[str]) -> None:
    canvas.line((x, y), (x + 76, y))
    canvas.box(x + 4, y - 38, 68, 76, fill="#fafafa", edge=PALE)
    for i, name in enumerate(names):
        canvas.chip(x + 10, y - 32 + 23.5 * i, 56, name)
