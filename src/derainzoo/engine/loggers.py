"""Loggers: CSV always; W&B without ever waiting for a login."""

import netrc
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger


def wandb_mode() -> str:
    """What WANDB_MODE says; else online if somebody is logged in, offline if not (wandb would ask, or wait 90 s)."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return "online" if netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc").authenticators(host) else "offline"
    except (FileNotFoundError, netrc.NetrcParseError):
        return "offline"


def make_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers of a run, as `conf/logger` describes them."""
    folder = Path(cfg.paths.output)
    # a run that is resumed in its folder gets the next version: CSVLogger would overwrite
    loggers: list[Logger] = [CSVLogger(folder, name="logs")]
    if cfg.logger.tensorboard:
        from pytorch_lightning.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    if cfg.logger.wandb.enabled:
        loggers.append(_wandb(cfg, folder))
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for logger in loggers:
        logger.log_hyperparams(plain)
    return loggers


def _wandb(cfg: DictConfig, folder: Path) -> Logger:
    settings = cfg.logger.wandb
    logger = WandbLogger(
        name=cfg.name,
        save_dir=folder,
        project=settings.project,
        group=settings.group or cfg.name,
        job_type=cfg.task,
        tags=list(settings.tags),
        mode=wandb_mode(),
        log_model=False,
    )
    logger.experiment.define_metric("*", step_metric="trainer/global_step")
    return logger


def finish(loggers: list[Logger]) -> None:
    """Close what stays open: W&B would count the next run of this process to this one."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
