"""A finished benchmark in W&B and TensorBoard: a run for every network, and one for the leaderboard.

The runs of networks look like those of `derainzoo evaluate`, so that both stand in one chart. All is written at the end, from
the cells: a network that was measured last week is as complete as one that was measured now.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from derainzoo.bench.contest import BenchmarkSet, Contestant
from derainzoo.bench.dashboard import CHART, LEADERBOARD, PAGE
from derainzoo.bench.leaderboard import Result, notable, of_one_protocol, table, table_columns
from derainzoo.config import plain
from derainzoo.data.batch import to_float
from derainzoo.engine import records
from derainzoo.engine.loggers import finish, make_loggers
from derainzoo.images import read_image


def record(
    cfg: DictConfig,
    who: Sequence[Contestant],
    tests: Sequence[BenchmarkSet],
    results: Sequence[Result],
    downstream: Mapping[str, Any] | None = None,
) -> None:
    """Write the runs, when the leaderboard itself is written.

    Args:
        cfg: configuration of the benchmark.
        who: the networks.
        tests: the sets.
        results: of each network on each set under each protocol.
        downstream: `metrics` and `rows` of a measurement by another network.
    """
    folder = Path(cfg.paths.output)
    if cfg.logger.tensorboard:  # would show what an earlier benchmark wrote here beside this one
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    judged = {row["pictures"]: row for row in downstream["rows"]} if downstream else {}
    for contestant in who:
        own = [r for r in results if r.label == contestant.label]
        values = {f"downstream/{m}": v for m, v in judged.get(contestant.label, {}).items() if m != "pictures"}
        with _run(_settings(cfg, contestant, own), own, contestant.label) as (loggers, settings):
            _network(loggers, settings, contestant, tests, results, values)
    with _run(cfg, results) as (loggers, _):
        _leaderboard(loggers, results, folder)


@contextmanager
def _run(cfg: DictConfig, results: Sequence[Result], label: str = "") -> Iterator[tuple[list[Logger], Any]]:
    """The loggers of a run, and its settings; without a label it is that of the benchmark itself."""
    # the id follows from what is in the run: a benchmark that is started again replaces its runs in W&B
    parts = [cfg.logger.wandb.group or cfg.name, label, *(r.cell for r in results)]
    identity = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    loggers = make_loggers(cfg, label or None, re.sub(r"[^\w.() -]", "_", label), identity)
    try:
        yield loggers, plain(cfg)
        for logger in loggers:
            logger.finalize("success")
    finally:
        finish(loggers)


def _settings(cfg: DictConfig, contestant: Contestant, results: Sequence[Result]) -> DictConfig:
    """The configuration as that of a run with this network alone, and what is known about its weights."""
    own = deepcopy(cfg)
    with open_dict(own):
        own.model = {"name": contestant.network, **plain(contestant.opened.arguments)}
        own.label, own.models, own.weights = contestant.label, None, str(contestant.file) if contestant.file else None
        own.weights_sha256, own.trained_on, own.budget = contestant.digest, results[0].training, results[0].budget
        own.warnings = {shown_name(r.set): list(r.warnings) for r in results if r.warnings}
        own.revisions = {shown_name(r.set): r.revision for r in results}
        own.data.name, own.data.test = None, list(own.revisions)  # not the configured set
        own.logger.wandb.group = cfg.logger.wandb.group or cfg.name
    return own


def shown_name(label: str) -> str:
    """What `derainzoo evaluate` calls a set of the catalog: `rain12/test` is rain12, `rain100l/val` is rain100l-val."""
    return label.replace("/", "-").removesuffix("-test")


def _network(
    loggers: Sequence[Logger],
    settings: Mapping[str, Any],
    contestant: Contestant,
    tests: Sequence[BenchmarkSet],
    results: Sequence[Result],
    values: Mapping[str, float],
) -> None:
    """Means, costs, tables with pictures, lineage: what an evaluation leaves, too."""
    own = [r for r in results if r.label == contestant.label]
    cost = {k: v for k in ("forward_ms", "forward_memory") if (v := own[0].cost.get(k)) is not None}
    metrics = {f"test/{shown_name(r.set)}/{column}": r.mean(column) for r in own for column in r.columns}
    metrics |= {f"cost/{k}": v for k, v in cost.items()} | dict(values)
    for logger in loggers:
        logger.log_metrics(metrics, 0)
    for test in tests:
        here = [r for r in results if r.set == test.label]
        mine = [r for r in here if r.label == contestant.label]
        # the same pictures for every network, so that they can be compared
        names = notable(of_one_protocol(here), settings["pictures"])
        records.show_test(loggers, shown_name(test.label), _rows(mine), _pictures(mine[0], names))
        records.used_data(loggers, test.data)
    if contestant.file:
        records.used_weights(loggers, contestant.network, contestant.file)
    model = {"name": contestant.network, "arguments": contestant.opened.arguments}
    records.outcome(loggers, model, settings, metrics)


def _rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The values of all protocols, an image a row."""
    joined = []
    for rows in zip(*(result.rows for result in results), strict=True):
        values = {c: row[c] for result, row in zip(results, rows, strict=True) for c in result.columns}
        joined.append({"name": rows[0]["name"], **values})
    return joined


def _pictures(result: Result, names: Iterable[str]) -> records.Pictures:
    """Those of these pictures that were kept when they were measured."""
    assert result.references is not None
    assert result.pictures is not None
    folders = (result.references / "rainy", result.pictures, result.references / "clean")
    found = {}
    for name in names:
        files = [folder / f"{name}.webp" for folder in folders]
        if all(file.exists() for file in files):
            rainy, restored, clean = (to_float(torch.from_numpy(read_image(file)).permute(2, 0, 1)) for file in files)
            found[name] = (rainy, restored, clean)
    return found


def _leaderboard(loggers: Sequence[Logger], results: Sequence[Result], folder: Path) -> None:
    """Its table, its page and the chart."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            shown = table_columns(results)
            # a column of W&B has one type: what is not there is None
            data = [[None if row.get(c, "") == "" else row[c] for c in shown] for row in table(results)]
            logger.log_table(LEADERBOARD, columns=shown, data=data, step=0)
            texts = {PAGE: _read(folder / "leaderboard.html"), CHART: _read(folder / "quality_cost.svg")}
            # as they are, without W&B's style
            pages: dict[str, Any] = {key: wandb.Html(text, inject=False) for key, text in texts.items()}
            logger.log_metrics(pages, 0)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("leaderboard", _read(folder / "leaderboard.md"), 0)


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")
