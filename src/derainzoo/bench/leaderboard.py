"""What a benchmark measured, as leaderboard.csv, leaderboard.md, quality_cost.svg and per_image.parquet (.csv without pyarrow).

Numbers are ranked only where they can be compared: one set of one revision, one protocol, one training set. Networks whose
training set nobody stated, and random weights, are shown without a rank.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from derainzoo.charts import Tradeoff, tradeoffs
from derainzoo.files import write_text
from derainzoo.metrics.per_image import Row, write_csv, write_parquet
from derainzoo.metrics.protocol import get_protocol


@dataclass(frozen=True)
class Result:
    """One network on one set under one protocol."""

    label: str
    network: str
    weights: str
    digest: str
    trained_on: tuple[str, ...] | None
    """None where nobody said, empty for random weights."""
    budget: str
    set: str
    revision: str
    protocol: str
    warnings: tuple[str, ...]
    cost: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    """Per image: `name`, `scene`, each metric, and `input_METRIC` of the rainy picture."""
    cell: str = ""
    """Name of the measurement where it is kept, which follows from all that decides its numbers."""
    measured: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    pictures: Path | None = None
    """Folder with what the network made of every picture."""
    references: Path | None = None
    """Folder with the rainy and the clean pictures."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the protocol measures; the first one ranks."""
        return get_protocol(self.protocol).metrics

    @property
    def higher_is_better(self) -> bool:
        """Of all metrics of the protocol."""
        return get_protocol(self.protocol).higher_is_better

    @property
    def training(self) -> str:
        """What it was trained on, for people."""
        if self.trained_on is None:
            return "not stated"
        return " + ".join(self.trained_on) or "random weights"

    @property
    def columns(self) -> list[str]:
        """Of every row: each metric, and what the rainy picture itself measures."""
        return [c for m in self.metrics for c in (m, f"input_{m}")]

    def mean(self, column: str) -> float:
        """Over the images where it exists: one that equals its target has no finite PSNR."""
        finite = [v for row in self.rows if math.isfinite(v := row[column])]
        return math.fsum(finite) / len(finite) if finite else math.nan


def ranks(results: Sequence[Result]) -> list[int | None]:
    """The place of each result among those that it can be compared with; None where its training is not known."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        if result.trained_on:
            groups[result.set, result.revision, result.protocol, tuple(sorted(result.trained_on))].append(i)
    places: list[int | None] = [None] * len(results)
    for members in groups.values():
        sign = 1 if results[members[0]].higher_is_better else -1
        values = {i: sign * results[i].mean(results[i].metrics[0]) for i in members}
        for i in members:
            places[i] = None if math.isnan(values[i]) else 1 + sum(other > values[i] for other in values.values())
    return places


def table(results: Sequence[Result]) -> list[Row]:
    """A row for every result, as in leaderboard.csv: in groups of what can be compared, best first."""
    rows = []
    for result, rank in zip(results, ranks(results), strict=True):
        means = {m: result.mean(m) for m in result.metrics}
        rainy = {f"input_{m}": result.mean(f"input_{m}") for m in result.metrics}
        row: dict[str, Any] = {
            "set": result.set,
            "protocol": result.protocol,
            "trained_on": result.training,
            "rank": "" if rank is None else rank,
            "label": result.label,
            "network": result.network,
            **means,
            **rainy,
            "images": len(result.rows),
            **{k: result.cost.get(k, "") for k in ("params", "macs", "forward_ms", "forward_memory", "height", "width")},
            "warnings": "; ".join(result.warnings),
            "budget": result.budget,
            "weights": result.weights,
            "weights_sha256": result.digest,
            "data_revision": result.revision,
            "measured": result.measured,
        }
        rows.append(row)
    return sorted(rows, key=lambda r: (r["set"], r["protocol"], not r["rank"], r["trained_on"], r["rank"] or 0))


def table_columns(results: Sequence[Result]) -> list[str]:
    """Of the table: networks, then the metrics of all protocols, then everything else."""
    found = list(dict.fromkeys(column for row in table(results) for column in row))
    metrics = [c for c in found if c.removeprefix("input_") in {m for r in results for m in r.metrics}]
    first = found.index(metrics[0])
    return [*found[:first], *metrics, *(c for c in found[first:] if c not in metrics)]


def of_one_protocol(results: Sequence[Result]) -> list[Result]:
    """Each network once. The pictures are the same under every protocol: which ones are worst is decided by the first."""
    return [result for result in results if result.protocol == results[0].protocol]


def notable(results: Sequence[Result], count: int) -> dict[str, list[tuple[str, str]]]:
    """Worst and best pictures of each network, on one set under one protocol: name -> (worst or best, label of the network)."""
    why: dict[str, list[tuple[str, str]]] = {}
    for which in ("worst", "best"):
        for result in results:
            metric, sign = result.metrics[0], 1 if result.higher_is_better else -1
            rows = sorted((r for r in result.rows if math.isfinite(r[metric])), key=lambda r: sign * r[metric])
            for row in rows[:count] if which == "worst" else rows[::-1][:count]:
                why.setdefault(row["name"], []).append((which, result.label))
    return why


def per_image(results: Sequence[Result]) -> list[Row]:
    """A row for every image, network, set and metric."""
    return [
        {
            "name": row["name"],
            "scene": row["scene"],
            "set": result.set,
            "protocol": result.protocol,
            "label": result.label,
            "weights_sha256": result.digest,
            "metric": metric,
            "value": row[metric],
            "input": row[f"input_{metric}"],
        }
        for result in results
        for row in result.rows
        for metric in result.metrics
    ]


def write_tables(folder: Path, results: Sequence[Result], downstream: Mapping[str, Any] | None = None) -> str:
    """Write all but the page; returns the Markdown. `downstream` are its `note`, `metrics` and `rows`."""
    write_csv(folder / "leaderboard.csv", table(results), table_columns(results))
    write_text(folder / "quality_cost.svg", quality_cost(results))
    images = per_image(results)
    if find_spec("pyarrow"):
        write_parquet(folder / "per_image.parquet", images, list(images[0]))
    else:
        write_csv(folder / "per_image.csv", images)
    text = markdown(results)
    if downstream:
        metrics = downstream["metrics"]
        text += f"\n## Downstream\n\n{downstream['note']}\n\n{_line(['pictures', *metrics])}\n|---|{'---:|' * len(metrics)}\n"
        text += "".join(_line([row["pictures"], *(f"{row[m]:.4f}" for m in metrics)]) + "\n" for row in downstream["rows"])
    write_text(folder / "leaderboard.md", text)
    return text


def quality_cost(results: Sequence[Result]) -> str:
    """A chart for every set and protocol, with a Pareto front for every training set."""
    points: dict[str, dict[str, dict[str, tuple[float, float]]]] = defaultdict(lambda: defaultdict(dict))
    higher = {}
    for result in results:
        title = f"{result.set}, {result.metrics[0]}"
        higher[title] = result.higher_is_better
        if math.isfinite(value := result.mean(result.metrics[0])) and result.cost["macs"]:
            points[title][result.training][result.label] = (result.cost["macs"] / 1e9, value)
    charts = [Tradeoff(title, points[title], higher[title]) for title in higher]
    cost = results[0].cost
    return tradeoffs("Quality against cost", charts, f"GMACs of a picture of {cost['height']} x {cost['width']} pixels")


# ---------------------------------------------------------------------------------------------------------------- Markdown


def number(value: float, metric: str) -> str:
    """As papers print them: PSNR with two digits, what is between 0 and 1 with four."""
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if metric.startswith("ssim") else f"{value:.2f}"


def markdown(results: Sequence[Result]) -> str:
    """A table for every set, protocol and training set; what is not stated comes last, without a rank."""
    groups: dict[tuple[str, str, bool, str], list[tuple[int, Result]]] = defaultdict(list)
    for rank, result in zip(ranks(results), results, strict=True):
        groups[result.set, result.protocol, not result.trained_on, result.training].append((rank or 0, result))
    lines, notes = ["# Leaderboard", ""], list[str]()
    for (dataset, protocol, _, training), members in sorted(groups.items()):
        first = members[0][1]
        metrics = first.metrics
        header = ["", "network", *metrics, f"{metrics[0]} gain", "parameters", "GMACs", "ms"]
        lines += [f"## {dataset}, protocol {protocol}, trained on: {training}", "", _line(header)]
        lines += ["|---|---|" + "---:|" * (len(header) - 2)]
        for rank, result in sorted(members, key=lambda member: member[0]):
            label = result.label
            if result.warnings:
                notes.append(f"{label} on {dataset}: {'; '.join(result.warnings)}")
                label += f" [{len(notes)}]"
            lines.append(_line([str(rank or ""), label, *_numbers(result)]))
        rainy = [number(first.mean(f"input_{m}"), m) for m in metrics]
        lines += [_line(["", "*rainy pictures*", *rainy, "", "", "", ""]), "", f"{len(first.rows)} images.", ""]
    if notes:
        lines += ["## Scenes that a network has seen", "", *(f"{i}. {note}" for i, note in enumerate(notes, 1)), ""]
    cost = results[0].cost
    lines += ["Ranks hold within a table: one set, one protocol, one training set."]
    lines += [f"GMACs and ms are those of a picture of {cost['height']} x {cost['width']} pixels."]
    return "\n".join(lines) + "\n"


def _numbers(result: Result) -> list[str]:
    first, cost = result.metrics[0], result.cost
    values = [number(result.mean(m), m) for m in result.metrics]
    gain = result.mean(first) - result.mean(f"input_{first}")
    duration = f"{cost['forward_ms']:.4g}" if "forward_ms" in cost else "-"
    return [*values, f"{gain:+.2f}", f"{cost['params']:,}", f"{cost['macs'] / 1e9:.4g}", duration]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
