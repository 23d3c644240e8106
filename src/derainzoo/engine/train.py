"""The task `train`: a straight list from the configuration to the tested checkpoint."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint

from derainzoo.config import plain
from derainzoo.data.datamodule import make_data
from derainzoo.engine import records, setup
from derainzoo.engine.callbacks import make_callbacks
from derainzoo.engine.loggers import finish, make_loggers
from derainzoo.engine.report import report

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train, then test the best checkpoint. Returns the best validation value as `objective`, and all metrics."""
    resume = setup.find_resume(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)

    data = make_data(cfg)
    data.setup("fit")
    if cfg.test:
        data.setup("test")  # before hours of training, not after
    data.steps = steps = setup.count_steps(cfg, data)

    module = setup.make_restorer(cfg)
    setup.load_start(module, cfg.weights)
    setup.compile_network(module, cfg.compile)

    monitor = f"val/{cfg.protocol.monitor}"
    loggers = make_loggers(cfg)
    records.used_data(loggers, data)
    if cfg.get("genotype"):
        records.used_genotype(loggers, Path(cfg.genotype))
    if cfg.weights:
        records.used_weights(loggers, cfg.model.name, cfg.weights)
    callbacks = [*make_callbacks(cfg, monitor), records.TestTables(Path(cfg.paths.output), cfg.callbacks.pictures)]
    trainer = setup.make_trainer(cfg, steps, callbacks, loggers)
    log.info("%s: %.2f M parameters, %d steps", cfg.name, sum(p.numel() for p in module.net.parameters()) / 1e6, steps)
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        best = trainer.checkpoint_callback
        assert isinstance(best, ModelCheckpoint)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        if cfg.test and data.tests:
            trainer.test(module, data, ckpt_path=best.best_model_path or None, weights_only=True, verbose=False)
            metrics |= {k: float(v) for k, v in trainer.callback_metrics.items()}
        records.outcome(loggers, module.hparams["model"], plain(cfg), metrics)
        if best.best_model_path:
            facts = {"run": cfg.name, "arguments": module.hparams["model"]["arguments"], "metrics": metrics}
            upload = cfg.logger.wandb.upload_weights
            records.made_weights(loggers, cfg.model.name, Path(best.best_model_path), upload, facts)
    finally:
        finish(loggers)
    if trainer.is_global_zero:
        report(Path(cfg.paths.output), cfg.model.name, best.best_model_path, data.test_names)
    objective = float(best.best_model_score or 0)
    return {"objective": objective, "metrics": metrics, "checkpoint": best.best_model_path, "steps": steps}
