"""The task `evaluate`: measure weights on test sets, image by image."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from derainzoo.config import plain
from derainzoo.data.datamodule import DerainDataModule, make_data
from derainzoo.engine import records, setup
from derainzoo.engine.callbacks import PictureSheet, SavePictures
from derainzoo.engine.loggers import finish, make_loggers
from derainzoo.engine.report import report
from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import Opened, open_weights
from derainzoo.models.layers import set_pool_window

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Measure `weights` on the test splits of `data`, or on its validation images. Returns all means."""
    if cfg.weights is None:
        raise DerainzooError(
            "evaluate needs weights: derainzoo evaluate weights=FILE data=... (a checkpoint of a training run, a .safetensors "
            "file, or published weights; the file says which network it holds)"
        )
    opened = open_weights(cfg.weights)
    log.info("%s: %s %s", cfg.weights, opened.name, opened.arguments)
    data = make_data(cfg)
    data.choose_tests(cfg.split)
    data.setup("test")

    loggers = make_loggers(cfg, f"{opened.name}-{cfg.data.name}")
    records.used_data(loggers, data)
    records.used_weights(loggers, opened.name, cfg.weights)
    folder = Path(cfg.paths.output)
    shown = cfg.callbacks.pictures
    callbacks: list[Callback] = [PictureSheet(folder / "sheet.png", shown), records.TestTables(folder, shown)]
    if cfg.save_images:
        callbacks.append(SavePictures(folder / "restored"))
    try:
        trainer = run_tests(cfg, opened, data, callbacks, loggers, cfg.local_pool)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        records.outcome(loggers, {"name": opened.name, "arguments": opened.arguments}, plain(cfg), metrics)
    finally:
        finish(loggers)
    if trainer.is_global_zero:
        report(folder, opened.name, str(cfg.weights), data.test_names)
    monitored = [v for k, v in metrics.items() if k.endswith(f"/{cfg.protocol.monitor}")]
    return {"objective": sum(monitored) / len(monitored), "metrics": metrics, "weights": str(cfg.weights)}


def run_tests(
    cfg: DictConfig,
    opened: Opened,
    data: DerainDataModule,
    callbacks: list[Callback],
    loggers: list[Logger],
    local_pool: int | Sequence[int] | None = None,
) -> pl.Trainer:
    """Measure an opened network on the test sets of `data`; a row per image goes to `results/SET.csv` in `paths.output`."""
    module = setup.make_restorer(cfg, {"name": opened.name, "arguments": opened.arguments})
    module.net.load_state_dict(opened.net.state_dict())
    if local_pool is not None:
        set_pool_window(module.net, local_pool)
    module.tile, module.overlap = cfg.tile, cfg.overlap
    setup.compile_network(module, cfg.compile)
    trainer = setup.make_trainer(cfg, 1, callbacks, loggers)
    trainer.test(module, data, verbose=False)
    return trainer
