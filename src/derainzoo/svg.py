"""Pictures of lines, boxes and words as the text of an SVG file."""

from html import escape

INK, PALE = "#37474f", "#90a4ae"


class Canvas:
    """Collects SVG elements; lines are drawn beneath everything else."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shapes: list[str] = []

    def line(self, *points: tuple[float, float], arrow: bool = False, colour: str = INK) -> None:
        """A polyline."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{end}/>')

    def box(self, x: float, y: float, w: float, h: float, text: str = "", fill: str = "#ffffff", edge: str = INK) -> None:
        """A rounded rectangle with a text in its middle."""
        place = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="4"'
        self.shapes.append(f'<rect {place} fill="{fill}" stroke="{edge}"/>')
        if text:
            self.text(x + w / 2, y + h / 2 + 3.5, text)

    def node(self, x: float, y: float, text: str = "") -> None:
        """A small circle."""
        self.shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="7" fill="#ffffff" stroke="{INK}" stroke-width="1"/>')
        if text:
            self.text(x, y + 4, text, size=12)

    def dot(self, x: float, y: float, colour: str) -> None:
        """A point of a chart."""
        self.shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{colour}"/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 10.5,
        anchor: str = "middle",
        colour: str = "#000000",
        bold: bool = False,
    ) -> None:
        """A line of text."""
        font = f'font-size="{size:g}"' + (' font-weight="bold"' if bold else "")
        self.shapes.append(f'<text x="{x:g}" y="{y:g}" {font} text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>')

    def svg(self, width: float, height: float, title: str) -> str:
        """The document."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
            'font-family="Helvetica, Arial, sans-serif">'
            f"<title>{escape(title)}</title>"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>'
            '<rect width="100%" height="100%" fill="#ffffff"/>'
        )
        return "\n".join([head, *self.lines, *self.shapes, "</svg>"]) + "\n"
