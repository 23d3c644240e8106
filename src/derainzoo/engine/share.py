"""`predict` on several devices: Lightning starts a process for each, and each does its share of the files."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader

from derainzoo.config import plain
from derainzoo.errors import DerainzooError
from derainzoo.inference.inputs import Job
from derainzoo.inference.predict import Tally, conclude, make_predictor, make_settings, plan, work

# One process may be given a long video where another has small pictures, and is waited for at the end.
_PATIENCE = timedelta(days=30)


class Share(pl.LightningModule):
    """Does every n-th of the jobs, n being the number of processes, in a single step."""

    def __init__(self, cfg: DictConfig, jobs: Sequence[Job]) -> None:
        super().__init__()
        self.cfg, self.jobs = cfg, jobs
        self.total = Tally()

    def predict_step(self, batch: object) -> Tally:
        rank, count = self.global_rank, self.trainer.world_size
        predictor = make_predictor(self.cfg, self.device)
        tally = work(self.jobs[rank::count], predictor, make_settings(self.cfg), f"process {rank + 1} of {count}")
        tallies = [tally] * count
        torch.distributed.all_gather_object(tallies, tally)
        self.total = Tally(
            done=sum(t.done for t in tallies),
            there=sum(t.there for t in tallies),
            failed=[text for t in tallies for text in t.failed],
        )
        return self.total


def predict_together(cfg: DictConfig) -> None:
    """Run the task in `trainer.devices` x `trainer.num_nodes` processes, every file in one of them."""
    began = monotonic()
    if cfg.trainer.strategy not in ("auto", "ddp"):
        raise DerainzooError(
            f"predict knows trainer.strategy=auto and ddp, which are the same to it, not {cfg.trainer.strategy}"
        )
    if cfg.device not in ("auto", "cpu", "cuda"):
        raise DerainzooError(f"device={cfg.device} is a single one; for several say device=auto and trainer.devices=[0,1]")
    # every process finds the same list: none begins before all have it, and results are never inputs
    found = plan(cfg)
    trainer = pl.Trainer(
        accelerator={"cpu": "cpu", "cuda": "gpu"}.get(cfg.device, cfg.trainer.accelerator),
        devices=plain(cfg.trainer.devices),
        num_nodes=cfg.trainer.num_nodes,
        strategy=DDPStrategy(timeout=_PATIENCE),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    module = Share(cfg, found.jobs)
    trainer.predict(module, DataLoader(range(1)), return_predictions=False)  # type: ignore[arg-type]  # one step
    if trainer.is_global_zero:
        conclude(module.total, found, Path(cfg.output), monotonic() - began)
