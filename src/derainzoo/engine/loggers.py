"""Loggers: CSV always; W&B without ever waiting for a login."""

import netrc
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from derainzoo.metrics.protocol import get_protocol


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


def make_loggers(cfg: DictConfig, name: str | None = None, part: str = "", identity: str | None = None) -> list[Logger]:
    """The loggers of a run, as `conf/logger` describes them.

    Args:
        cfg: configuration of the run.
        name: stands in for the run's own.
        part: of a task that is several runs: sub-folder of the logs of this one, about which W&B then says less.
        identity: the run's id in W&B, where a run of the same id is replaced; None for a new one.
    """
    folder = Path(cfg.paths.output)
    # a run that is resumed in its folder gets the next version: CSVLogger would overwrite
    loggers: list[Logger] = [CSVLogger(folder / "logs", name=part)]
    if cfg.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=part, default_hp_metric=False))
    if cfg.logger.wandb.enabled:
        loggers.append(_wandb(cfg, folder, name or cfg.name, quiet=bool(part), identity=identity))
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger):  # gets them with the outcome (`records.outcome`)
            logger.log_hyperparams(plain)
    return loggers


def _wandb(cfg: DictConfig, folder: Path, name: str, quiet: bool, identity: str | None) -> Logger:
    settings = cfg.logger.wandb
    logger = WandbLogger(
        name=name,
        id=identity,
        save_dir=folder,
        project=settings.project,
        entity=settings.entity,
        group=settings.group or name,
        job_type=cfg.task,
        tags=list(settings.tags),
        mode=wandb_mode(),
        log_model=False,
        settings={"quiet": True} if quiet else None,
    )
    logger.experiment.define_metric("*", step_metric="trainer/global_step")
    for protocol in map(get_protocol, cfg.protocol.names):
        best = "max" if protocol.higher_is_better else "min"
        for metric in protocol.metrics:  # a run is summed up by its best validation, not by its last
            logger.experiment.define_metric(f"val/{metric}", step_metric="trainer/global_step", summary=best)
    return logger


def finish(loggers: list[Logger]) -> None:
    """Close what stays open: W&B would count the next run of this process to this one."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
