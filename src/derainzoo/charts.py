"""Small charts as the text of an SVG file: lines over steps, values against costs, and shares of a whole."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from derainzoo.svg import INK, PALE, Canvas

PALETTE = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac")

Points = Sequence[tuple[float, float]]
Groups = Mapping[str, Mapping[str, Mapping[str, Points]]]
"""Group -> panel -> line -> its points. Lines of one name have one colour within a group, and stand in one legend."""


def line_panels(title: str, groups: Groups, columns: int = 6, size: tuple[int, int] = (150, 84)) -> str:
    """A small chart for each panel, all of a group on the same scale.

    Args:
        title: above everything.
        groups: what is drawn.
        columns: panels beside each other.
        size: of a panel.
    """
    canvas = Canvas()
    width, height = size
    canvas.text(24, 30, title, size=15, anchor="start", bold=True)
    y = 44.0
    for group, panels in groups.items():
        everything = [point for lines in panels.values() for points in lines.values() for point in points]
        if not everything:
            continue
        colours = _legend(canvas, 24, y + 16, group, (line for lines in panels.values() for line in lines))
        area = _bounds(everything)
        for i, (panel, lines) in enumerate(panels.items()):
            left, top = 60 + (i % columns) * (width + 46), y + 46 + (i // columns) * (height + 44)
            _axes(canvas, left, top, size, area, panel)
            for line, points in lines.items():
                if len(points) > 1:
                    canvas.line(*(_place(p, left, top, size, area) for p in points), colour=colours[line])
        y += 46 + math.ceil(len(panels) / columns) * (height + 44)
    return canvas.svg(60 + columns * (width + 46), y + 10, title)


Bounds = tuple[float, float, float, float]


def _bounds(points: Iterable[tuple[float, float]]) -> Bounds:
    xs, ys = zip(*points, strict=True)
    (x0, x1), (y0, y1) = (min(xs), max(xs)), (min(ys), max(ys))
    return x0, x1 if x1 > x0 else x0 + 1, y0, y1 if y1 > y0 else y0 + 1


def _place(point: tuple[float, float], left: float, top: float, size: tuple[int, int], area: Bounds) -> tuple[float, float]:
    x0, x1, y0, y1 = area
    return left + (point[0] - x0) / (x1 - x0) * size[0], top + (y1 - point[1]) / (y1 - y0) * size[1]


def _axes(canvas: Canvas, left: float, top: float, size: tuple[int, int], area: Bounds, title: str) -> None:
    x0, x1, y0, y1 = area
    width, height = size
    canvas.line((left, top), (left, top + height), (left + width, top + height), colour=PALE)
    canvas.text(left, top - 5, title, size=10, anchor="start")
    for y, value in ((top + 8, y1), (top + height, y0)):
        canvas.text(left - 4, y, f"{value:.3g}", size=9, anchor="end", colour=INK)
    for x, value, anchor in ((left, x0, "start"), (left + width, x1, "end")):
        canvas.text(x, top + height + 12, f"{value:g}", size=9, anchor=anchor, colour=INK)


def _legend(canvas: Canvas, x: float, y: float, group: str, names: Iterable[str]) -> dict[str, str]:
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}
    canvas.text(x, y, group, size=12, anchor="start", bold=True)
    x += 9 * len(group) + 14
    for name, colour in colours.items():
        canvas.box(x, y - 9, 10, 10, fill=colour, edge=colour)
        canvas.text(x + 14, y, name, anchor="start")
        x += 7 * len(name) + 30
    return colours


@dataclass(frozen=True)
class Tradeoff:
    """Values against costs; only members of one group compare."""

    title: str
    points: Mapping[str, Mapping[str, tuple[float, float]]]
    """Group -> label -> (cost, value). Costs are above zero."""
    higher_is_better: bool = True


def front(points: Points, higher_is_better: bool = True) -> list[tuple[float, float]]:
    """The Pareto front of (cost, value), cheapest first: whoever wants a better value must pay more."""
    sign = 1 if higher_is_better else -1
    found: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda p: (p[0], -sign * p[1])):
        if not found or sign * value > sign * found[-1][1]:
            found.append((cost, value))
    return found


def tradeoffs(title: str, charts: Sequence[Tradeoff], unit: str, size: tuple[int, int] = (560, 220)) -> str:
    """A chart for each, one below the other, costs on a logarithmic axis; the steps of a line are a group's Pareto front."""
    canvas = Canvas()
    width, height = size
    left, y = 70.0, 44.0
    canvas.text(24, 30, title, size=15, anchor="start", bold=True)
    for chart in charts:
        colours = _legend(canvas, 24, y + 16, chart.title, chart.points)
        everything = [p for points in chart.points.values() for p in points.values()]
        if not everything:
            continue
        area, top = _bounds((math.log10(cost), value) for cost, value in everything), y + 46
        low, high = (float(f"{10**x:.3g}") for x in area[:2])
        _axes(canvas, left, top, size, (low, high, *area[2:]), "")
        canvas.text(left + width / 2, top + height + 14, unit, size=10, colour=INK)
        for group, points in chart.points.items():
            best = front(list(points.values()), chart.higher_is_better)
            # in steps: what lies between two prices buys what the lower one does
            steps = [*best[:1], *(corner for a, b in pairwise(best) for corner in ((b[0], a[1]), b))]
            if len(best) > 1:
                canvas.line(*(_place((math.log10(c), v), left, top, size, area) for c, v in steps), colour=colours[group])
            for label, (cost, value) in points.items():
                at_x, at_y = _place((math.log10(cost), value), left, top, size, area)
                canvas.dot(at_x, at_y, colours[group])
                canvas.text(at_x, at_y - 7, label, anchor="end" if at_x > left + width / 2 else "start")
        y = top + height + 34
    return canvas.svg(left + width + 40, y + 10, title)


def share_bars(title: str, groups: Mapping[str, Mapping[str, Mapping[str, float]]], width: int = 460) -> str:
    """Group -> row -> part -> share, as a bar a row that is divided among its parts; shares of a row add up to one."""
    canvas = Canvas()
    canvas.text(24, 30, title, size=15, anchor="start", bold=True)
    label = 24 + 6.2 * max((len(row) for rows in groups.values() for row in rows), default=0)
    y = 44.0
    for group, rows in groups.items():
        colours = _legend(canvas, 24, y + 16, group, (part for parts in rows.values() for part in parts))
        y += 34
        for row, parts in rows.items():
            canvas.text(label, y + 10, row, size=10, anchor="end")
            x = label + 8
            for part, share in parts.items():
                canvas.box(x, y, share * width, 13, fill=colours[part], edge="#ffffff")
                if share * width > 6 * len(part) + 6:
                    canvas.text(x + share * width / 2, y + 10, part, size=9, colour="#ffffff")
                x += share * width
            y += 17
        y += 12
    return canvas.svg(max(label + width + 34, 760), y + 10, title)
