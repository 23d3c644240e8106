"""Is a search worth more than chance? Networks retrained under one budget, measured on training images that are held out."""

import copy
import csv
import json
import logging
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from derainzoo.config import fingerprint, plain
from derainzoo.data.datamodule import make_data
from derainzoo.engine import setup
from derainzoo.errors import DerainzooError
from derainzoo.files import whole_file, write_text
from derainzoo.nas.cost import count_parameters
from derainzoo.nas.genotype import SYSTEMS, Genotype

log = logging.getLogger(__name__)


def contenders(cfg: DictConfig) -> dict[str, Genotype]:
    """Whom `search.compare` asks for, besides what was found: the hand-made default, random draws, genotype files."""
    wanted = cfg.search.compare
    wanted = list(wanted) if isinstance(wanted, ListConfig) else [wanted] if wanted else []
    if not wanted:
        return {}
    system = cfg.model.name
    settings = {k: v for k, v in setup.network(cfg)["arguments"].items() if k not in SYSTEMS[system].searched}
    named = {"by hand": Genotype(system, settings)}
    for text in wanted:
        if found := re.fullmatch(r"random:(\d+)", text):
            for i in range(int(found[1])):
                rng = np.random.default_rng((cfg.seed, i))
                candidates = plain(cfg.search.get("candidates"))
                named[f"random {i + 1}"] = Genotype.random(system, rng, candidates, **settings)
        elif Path(text).is_file():
            named[text] = Genotype.load(text)
            named[text].arguments_for(system, settings, text)
        else:
            raise DerainzooError(f"search.compare: expected random:4 or a genotype file, found '{text}'")
    return named


def compare(cfg: DictConfig, genotypes: Mapping[str, Genotype]) -> list[dict[str, Any]]:
    """Train every network from several first weights, all in the same way; rows from the best mean to the worst.

    All see the same batches, and are measured on the images that the search held out. Each training's result is kept in
    `compare/`, so that a killed comparison goes on where it was.
    """
    metric = f"val/{cfg.protocol.monitor}"
    rows: dict[str, dict[str, Any]] = {}
    for name, genotype in genotypes.items():
        if genotype.hash in rows:
            rows[genotype.hash]["name"] += f" = {name}"
            continue
        results = [_retrain(cfg, genotype, cfg.seed + i, metric) for i in range(cfg.search.retrain.seeds)]
        values = [result["value"] for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else None
        rows[genotype.hash] = {
            "name": name,
            "hash": genotype.hash,
            "parameters": results[0]["parameters"],
            "mean": statistics.fmean(values),
            "spread": spread,
            "values": values,
        }
        log.info("%s: %s %.3f", name, cfg.protocol.monitor, rows[genotype.hash]["mean"])
    ranked = sorted(rows.values(), key=lambda row: -row["mean"])
    with whole_file(Path(cfg.paths.output) / "compare.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "hash", "parameters", "mean", "spread", "values"])
        writer.writerows([*list(row.values())[:-1], " ".join(f"{v:.4f}" for v in row["values"])] for row in ranked)
    return ranked


def table(rows: list[dict[str, Any]], metric: str) -> str:
    """The ranking for the terminal, with what chance does on average."""
    lines = [f"{'network':<28} {'parameters':>10}  {metric}"]
    for row in rows:
        spread = "" if row["spread"] is None else f" ± {row['spread']:.3f}"
        name = row["name"] if len(row["name"]) <= 28 else "..." + row["name"][-25:]  # of a path its end tells most
        lines.append(f"{name:<28} {row['parameters']:>10,}  {row['mean']:.3f}{spread}")
    if drawn := [row["mean"] for row in rows if row["name"].startswith("random ")]:
        lines.append(f"{'random, all':<28} {'':>10}  {statistics.fmean(drawn):.3f}, best {max(drawn):.3f}")
    return "\n".join(lines)


def _retrain(cfg: DictConfig, genotype: Genotype, seed: int, metric: str) -> dict[str, Any]:
    retrain = cfg.search.retrain
    job = copy.deepcopy(cfg)
    OmegaConf.resolve(job)
    with open_dict(job):
        job.task, job.genotype = "train", None
        job.model = {"name": genotype.system, **genotype.model_arguments()}
        job.optim, job.scheduler = plain(retrain.optim), plain(retrain.scheduler)
        job.trainer.max_steps = job.trainer.val_every = retrain.steps
        job.trainer.max_epochs = None
        job.callbacks.progress = False
        job.paths.output = str(Path(cfg.paths.output) / "compare" / f"{genotype.hash}-{seed}")
        del job["search"]
    file = Path(job.paths.output) / "result.json"
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["fingerprint"] == fingerprint(job):
            return dict(kept)
    log.info("training %s from seed %d for %d steps", genotype.hash, seed, retrain.steps)
    pl.seed_everything(seed, workers=True, verbose=False)
    module = setup.make_restorer(job)
    trainer = setup.make_trainer(job, retrain.steps, [], [], enable_checkpointing=False)
    trainer.fit(module, make_data(job, steps=retrain.steps))
    value = float(trainer.callback_metrics[metric])
    result = {"fingerprint": fingerprint(job), "parameters": count_parameters(module.net), "metric": metric, "value": value}
    if trainer.is_global_zero:
        write_text(file, json.dumps(result, indent=2) + "\n")
    return result
