"""What a run says at its end: a table, where everything lies, and what to type next."""

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derainzoo.files import write_text
from derainzoo.metrics.per_image import read_csv

log = logging.getLogger(__name__)

_DENSITIES = ("light", "medium", "heavy")


def _group(name: str) -> str:
    """Synthetic test images are named after their rain."""
    return name.rpartition("-")[2] if name.endswith(_DENSITIES) else "all"


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table of a test set's means: the rainy input, the restored image, the difference."""
    metrics = [c for c in rows[0] if c != "name" and not c.startswith("input_")]
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[_group(row["name"])].append(row)
    if len(groups) > 1:
        groups = {d: groups[d] for d in _DENSITIES if d in groups} | {"all": list(rows)}
    out = [f"| {name} | images | metric | rainy | restored | gain |", "|---|---|---|---|---|---|"]
    for group, members in groups.items():
        for metric in metrics:
            before, after = (sum(v) / len(v) for v in ([r[p + metric] for r in members] for p in ("input_", "")))
            digits = 2 if metric.startswith("psnr") else 4
            values = f"{before:.{digits}f} | {after:.{digits}f} | {after - before:+.{digits}f}"
            out.append(f"| {group} | {len(members)} | {metric} | {values} |")
    return out


def _seen_from(folder: Path, weights: str) -> str:
    """The way to a file of weights; the name of weights that come with the package stays what it is."""
    return os.path.relpath(weights, folder) if Path(weights).exists() else weights


def report(folder: Path, network: str, weights: str, sets: list[str]) -> None:
    """Write `report.md` and say it on the terminal."""
    tables = "\n\n".join("\n".join(table(name, read_csv(folder / "results" / f"{name}.csv"))) for name in sets)
    lines = [f"# {network}", "", f"weights: `{_seen_from(folder, weights)}`", "", tables]
    if (folder / "sheet.png").exists():
        lines += ["", "![rainy, restored, clean, error x4](sheet.png)"]
    write_text(folder / "report.md", "\n".join(lines) + "\n")
    here = Path(os.path.relpath(folder))
    shown = _seen_from(Path(), weights)
    say = [tables, "", f"weights     {shown}"]
    if (folder / "sheet.png").exists():
        say.append(f"pictures    {here}/sheet.png   (rainy | restored | clean | error x4)")
    say.append(f"per image   {here}/results/   logs {here}/logs/   summary {here}/report.md")
    say += ["", "next", f"  derainzoo predict photo.jpg -o dry/ weights={shown}"]
    say += [f"  derainzoo evaluate weights={shown} data=rain200h data.root=FOLDER"]
    log.info("\n%s", "\n".join(say))
