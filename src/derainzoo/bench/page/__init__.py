"""The page leaderboard.html: one file with its data, pictures, style and script, which asks the network for nothing."""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from derainzoo.bench.leaderboard import Result, notable, of_one_protocol, ranks
from derainzoo.bench.statistics import compare
from derainzoo.config import plain
from derainzoo.errors import DerainzooError
from derainzoo.files import write_text
from derainzoo.images import read_header
from derainzoo.metrics.protocol import get_protocol

_HERE = Path(__file__).parent
_COSTS = ("params", "macs", "forward_ms", "forward_memory", "height", "width", "device", "precision")


def write_page(
    file: Path,
    results: Sequence[Result],
    environment: Mapping[str, Any],
    *,
    pictures: int = 2,
    resamples: int = 10_000,
    downstream: Mapping[str, Any] | None = None,
) -> None:
    """Write the page of these results.

    Args:
        file: to write.
        results: what is shown, the same sets and protocols for every network.
        environment: said at the end of the page.
        pictures: worst and best ones of each network to show.
        resamples: bootstrap draws of the comparison of two networks.
        downstream: `note`, `metrics` and `rows` of a measurement by another network.
    """
    by_set = {result.set: [r for r in results if r.set == result.set] for result in results}
    data = {
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "environment": dict(environment),
        "labels": list(dict.fromkeys(r.label for r in results)),
        "protocols": {r.protocol: asdict(get_protocol(r.protocol)) for r in results},
        "results": list(_results(results)),
        "sets": {
            name: {
                "names": [row["name"] for row in members[0].rows],
                "revision": members[0].revision,
                "pictures": list(_pictures(of_one_protocol(members), pictures)),
            }
            for name, members in by_set.items()
        },
        "pairs": list(_pairs(results, resamples)),
        "reported": reported(),
        "downstream": downstream,
    }
    write_text(file, page(data))


def page(data: Mapping[str, Any]) -> str:
    """The document: the template with style, script and data in their places."""
    # what is not a number in JSON becomes null; nothing in the data can end the script element
    text = json.dumps(_plain(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    document = (_HERE / "page.html").read_text(encoding="utf-8")
    for place, file in (("/*STYLE*/", "page.css"), ("/*SCRIPT*/", "page.js")):
        document = document.replace(place, (_HERE / file).read_text(encoding="utf-8"))
    return document.replace("/*DATA*/", text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def reported() -> list[dict[str, Any]]:
    """The tables of papers, each with its source."""
    tables: Any = plain(OmegaConf.load(_HERE.parent / "reported.yaml"))
    return list(tables)


def _results(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    for result, rank in zip(results, ranks(results), strict=True):
        yield {
            "label": result.label,
            "network": result.network,
            "weights": result.weights,
            "digest": result.digest,
            "training": result.training,
            "budget": result.budget,
            "set": result.set,
            "protocol": result.protocol,
            "rank": rank,
            "warnings": result.warnings,
            "cost": {k: result.cost[k] for k in _COSTS if k in result.cost},
            "means": {m: result.mean(m) for m in result.metrics},
            "input": {m: result.mean(f"input_{m}") for m in result.metrics},
            "values": {c: [_rounded(row[c]) for row in result.rows] for c in result.columns},
        }


def _rounded(value: float) -> float:
    return round(value, 5)  # for drawing: the tables keep every digit


def _pairs(results: Sequence[Result], resamples: int) -> Iterator[dict[str, Any]]:
    """Statistics of every two networks on one set under one protocol."""
    for a, b in combinations(results, 2):
        if (a.set, a.revision, a.protocol) != (b.set, b.revision, b.protocol):
            continue
        metric = a.metrics[0]
        first, second = ([row[metric] for row in r.rows] for r in (a, b))
        try:
            found = compare(first, second, [row["scene"] for row in a.rows], resamples=resamples)
        except DerainzooError:  # no picture has finite values of both
            continue
        yield {"set": a.set, "protocol": a.protocol, "a": a.label, "b": b.label, **asdict(found)}


def _pictures(results: Sequence[Result], count: int) -> Iterator[dict[str, Any]]:
    """Worst and best ones of each network, every one as every network restored it."""
    for name, reasons in notable(results, count).items():
        references = results[0].references
        if references is None or not (rainy := references / "rainy" / f"{name}.webp").exists():
            continue  # measured when no pictures were kept
        header = read_header(rainy)
        restored = {r.label: uri for r in results if r.pictures and (uri := _embedded(r.pictures / f"{name}.webp"))}
        yield {
            "name": name,
            "why": ", ".join(f"{which} of {label}" for which, label in reasons),
            "of": reasons[0][1],
            "width": header.width,
            "height": header.height,
            "rainy": _embedded(rainy),
            "clean": _embedded(references / "clean" / f"{name}.webp"),
            "restored": restored,
        }


def _embedded(file: Path) -> str | None:
    if not file.exists():
        return None
    return "data:image/webp;base64," + base64.b64encode(file.read_bytes()).decode()
