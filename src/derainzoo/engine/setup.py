"""From the composed configuration to data module, network module and trainer: what training, evaluation and search share."""

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from derainzoo.config import check_batch, plain
from derainzoo.data.datamodule import DerainDataModule
from derainzoo.engine.restorer import Restorer
from derainzoo.errors import DerainzooError
from derainzoo.nas.genotype import Genotype

log = logging.getLogger(__name__)

# keys of conf/trainer that are ours, not Lightning's
_OURS = {"max_steps", "max_epochs", "val_every"}


def count_steps(cfg: DictConfig, data: DerainDataModule) -> int:
    """Optimiser steps of the run: `max_steps`, or `max_epochs` passes over the training set."""
    if cfg.trainer.max_epochs is None:
        return int(cfg.trainer.max_steps)
    scenes = len({p.background for p in data.train_pairs}) if data.versions > 1 else len(data.train_pairs)
    return int(cfg.trainer.max_epochs) * math.ceil(scenes / data.stages[0].batch)


def network(cfg: DictConfig) -> dict[str, Any]:
    """Name and arguments of the run's network, as checkpoints keep them; a genotype file is read into arguments here."""
    name, arguments = cfg.model.name, {k: v for k, v in plain(cfg.model).items() if k != "name"}
    if cfg.get("genotype"):
        arguments = Genotype.load(cfg.genotype).arguments_for(name, arguments, cfg.genotype)
    return {"name": name, "arguments": arguments}


def module_settings(cfg: DictConfig, model: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the modules for training and for searching take alike; `model` stands in for the configured network."""
    return {
        "model": model or network(cfg),
        "loss": plain(cfg.loss.terms),
        "optim": plain(cfg.optim),
        "scheduler": plain(cfg.scheduler),
        "protocols": plain(cfg.protocol.names),
        "channels_last": cfg.channels_last,
    }


def make_restorer(cfg: DictConfig, model: dict[str, Any] | None = None) -> Restorer:
    """The network module of a run; `model` (name and arguments) stands in for the configured network."""
    return Restorer(**module_settings(cfg, model))


def _quiet() -> None:
    """Leave out what Lightning says to everybody at every start, and warnings that mean nothing here."""
    for logger in (
        "pytorch_lightning.utilities.rank_zero",
        "lightning_fabric.utilities.rank_zero",
        "pytorch_lightning.trainer.connectors.checkpoint_connector",
    ):
        logging.getLogger(logger).setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.* is deprecated",
        "The number of training batches .* is smaller than the logging interval",
        ".*does not have many workers",
        "The dirpath has changed from",
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message)


def make_trainer(cfg: DictConfig, steps: int, callbacks: list[Callback], loggers: list[Logger], **replaced: Any) -> pl.Trainer:
    """Lightning's trainer. The run is one long epoch: restoration is trained, scheduled and validated by steps.

    `replaced` are arguments of the trainer that stand in for those of the configuration.
    """
    _quiet()
    settings = {k: v for k, v in plain(cfg.trainer).items() if k not in _OURS} | replaced
    every = min(cfg.trainer.val_every, steps)
    if steps % every:
        log.warning(
            "the last %d of %d steps come after the last validation (trainer.val_every=%d)", steps % every, steps, every
        )
    trainer = pl.Trainer(
        **settings,
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=every * cfg.trainer.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=cfg.paths.output,
        callbacks=callbacks,
        logger=loggers,
        enable_progress_bar=cfg.callbacks.progress,
        enable_model_summary=False,
    )
    for stage in cfg.data.progressive or [{"batch": cfg.data.batch_size}]:
        check_batch(stage["batch"], trainer.num_devices, trainer.num_nodes, cfg.trainer.accumulate_grad_batches)
    return trainer


def find_resume(cfg: DictConfig) -> Path | None:
    """The checkpoint to go on from: a file, a run's folder, or for `auto` this folder's newest (see `config.continued`)."""
    if cfg.resume is None:
        return None
    path = Path(cfg.paths.output if cfg.resume == "auto" else cfg.resume)
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if path.is_file():
        log.info("going on from %s", path)
        return path
    if cfg.resume == "auto":
        log.info("there is no unfinished run with these settings to go on from: a new one begins")
        return None
    raise DerainzooError(f"resume={cfg.resume}: there is no checkpoint at {path}; give a .ckpt file, a run's folder, or auto")


def load_start(module: Restorer, weights: str | None) -> None:
    """Start from a file's weights instead of random ones; the file must hold this very network."""
    if weights is None:
        return
    from derainzoo.models.checkpoints import open_weights

    loaded = open_weights(weights).net
    missing = module.net.load_state_dict(loaded.state_dict(), strict=False)
    if missing.missing_keys or missing.unexpected_keys:
        raise DerainzooError(
            f"{weights} holds another network than model={module.hparams['model']['name']}: "
            f"{len(missing.missing_keys)} tensors missing, {len(missing.unexpected_keys)} unknown, "
            f"first {[*missing.missing_keys, *missing.unexpected_keys][0]}"
        )


def compile_network(module: Restorer, wanted: bool) -> None:
    """torch.compile in place: names in checkpoints stay as they are."""
    if wanted:
        module.net.compile()
        torch.set_float32_matmul_precision("high")
