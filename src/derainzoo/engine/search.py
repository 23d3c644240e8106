"""The task `search`: search, derive, draw, and on demand retrain what was found beside what chance finds."""

import logging
import shlex
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from derainzoo.config import fingerprint, plain
from derainzoo.data.datamodule import make_data
from derainzoo.engine import records, setup
from derainzoo.engine.callbacks import common_callbacks
from derainzoo.engine.compare import compare, contenders, table
from derainzoo.engine.loggers import finish, make_loggers
from derainzoo.engine.restorer import show
from derainzoo.engine.searcher import Searcher, SearchStrategy
from derainzoo.errors import DerainzooError
from derainzoo.files import write_text
from derainzoo.nas.cost import count_parameters
from derainzoo.nas.drawing import draw
from derainzoo.nas.genotype import Genotype

log = logging.getLogger(__name__)


def search(cfg: DictConfig) -> dict[str, Any]:
    """Search, unless a genotype is given; then compare, if asked to. Returns the genotype's hash and what was measured."""
    others = contenders(cfg)  # a wrong name comes out before hours of searching, not after
    if cfg.genotype and not others:
        raise DerainzooError("with genotype=... there is nothing to search; say search.compare=random:4 to compare it")
    found, metrics = ({"given": Genotype.load(cfg.genotype)}, {}) if cfg.genotype else _search(cfg)
    genotype = next(iter(found.values()))
    result: dict[str, Any] = {"hash": genotype.hash, "choices": genotype.model_arguments(), "metrics": metrics}
    if others:
        ranking = compare(cfg, found | others)
        result["compare"] = ranking
        log.info("after %d steps on all training images:\n%s", cfg.search.retrain.steps, table(ranking, cfg.protocol.monitor))
    if not cfg.genotype:
        path = Path(cfg.paths.output) / "genotype.json"
        words = ["derainzoo", "train", f"model={genotype.system}", f"data={cfg.data.name}", f"genotype={path}"]
        log.info("to train this network from the start:\n  %s", shlex.join(words))
    return result


def _search(cfg: DictConfig) -> tuple[dict[str, Genotype], dict[str, float]]:
    """What was found, in the end and by the time that candidates were active; and the last metrics."""
    folder = Path(cfg.paths.output)
    resume = setup.find_resume(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)

    data = make_data(cfg, halves=True)
    data.setup("fit")
    data.steps = steps = setup.count_steps(cfg, data)

    settings = {k: v for k, v in plain(cfg.search).items() if k not in ("compare", "retrain")}
    clip = cfg.trainer.gradient_clip_val  # in the searcher's hands, like all of its optimisation
    module = Searcher(**setup.module_settings(cfg), search=settings, seed=cfg.seed, steps=steps, clip=clip)
    loggers = make_loggers(cfg)
    records.used_data(loggers, data)
    callbacks = [Portraits(folder, cfg.name), *common_callbacks(cfg)]
    trainer = setup.make_trainer(cfg, steps, callbacks, loggers, gradient_clip_val=None, **_strategy(cfg))
    log.info("%s: supernet of %.2f M parameters, %d steps", cfg.name, count_parameters(module.net) / 1e6, steps)
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        validated = {k.removeprefix("val/"): v for k, v in metrics.items() if k.startswith("val/")}
        facts = {
            "settings": settings,
            "steps": steps,
            "data": cfg.data.name,
            "fingerprint": fingerprint(cfg),
            "supernet": validated,
        }
        found = {"found": module.genotype(**facts), "longest active": module.genotype(longest=True, **facts)}
        if trainer.is_global_zero:
            found["found"].save(folder / "genotype.json")
            found["longest active"].save(folder / "genotype-longest-active.json")
            write_text(folder / "genotype.svg", draw(found["found"]))
            log.info("found %s (supernet: %s), drawn in %s", found["found"].hash, show(validated), folder / "genotype.svg")
            records.made_genotype(loggers, folder / "genotype.json")
    finally:
        finish(loggers)
    return found, metrics


def _strategy(cfg: DictConfig) -> dict[str, Any]:
    """Ours where there may be several processes, started as the configuration says."""
    if str(cfg.trainer.devices) == "1" and cfg.trainer.num_nodes == 1:
        return {}
    strategies = {
        "auto": SearchStrategy(),
        "ddp": SearchStrategy(),
        "ddp_fork": SearchStrategy(start_method="fork"),
        "ddp_spawn": SearchStrategy(start_method="spawn"),
    }
    name = cfg.trainer.strategy
    if name not in strategies:
        raise DerainzooError(f"trainer.strategy={name}: a search runs on several devices by {', '.join(strategies)}")
    return {"strategy": strategies[name]}


class Portraits(Callback):
    """At every validation and in the end: the course of the choices as files, and in the loggers that take it.

    W&B gets the charts, TensorBoard two curves for every candidate: its alpha, and its share of the steps. The figures of a
    search (flips, entropies, shares) go to all loggers from the searcher itself.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.shown = 0  # records

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Searcher)
        if not trainer.is_global_zero or len(module.history.records) == self.shown:
            return
        module.history.write_csv(self.folder / "alphas.csv")
        charts = module.history.charts(self.name)
        for file, chart in charts.items():
            write_text(self.folder / file, chart)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb

                pages: dict[str, Any] = {f"search/{file}": wandb.Html(chart) for file, chart in charts.items()}
                logger.log_metrics(pages, trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                for record in module.history.records[self.shown :]:
                    logger.log_metrics(module.history.curves(record), record["step"])
        self.shown = len(module.history.records)
