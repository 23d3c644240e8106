"""What happens beside the loop: checkpoints, pictures, speed, warnings, progress."""

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import (
    Callback,
    Checkpoint,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from derainzoo.data.batch import Batch
from derainzoo.errors import DerainzooError
from derainzoo.images import write_png
from derainzoo.metrics.color import quantise

log = logging.getLogger(__name__)


def make_callbacks(cfg: DictConfig, monitor: str) -> list[Callback]:
    """The callbacks of a training run, as `conf/callbacks` describes them."""
    checkpoints = Path(cfg.paths.output) / "checkpoints"
    # the best by validation; Lightning renames finished files into place
    best = ModelCheckpoint(checkpoints, filename="best", monitor=monitor, mode="max", enable_version_counter=False)
    ema = [EMAWeightAveraging(decay=cfg.callbacks.ema)] if cfg.callbacks.ema else []
    frozen = [] if cfg.callbacks.freeze_norm is None else [FreezeNorm(cfg.callbacks.freeze_norm)]
    return [best, *common_callbacks(cfg), *ema, *frozen]


def common_callbacks(cfg: DictConfig) -> list[Callback]:
    """Those of trainings and searches alike."""
    settings, folder = cfg.callbacks, Path(cfg.paths.output)
    callbacks: list[Callback] = [
        # the newest checkpoint, which a killed run goes on from
        LastCheckpoint(folder / "checkpoints" / "last.ckpt", settings.checkpoint_every),
        LearningRateMonitor("step"),
        Throughput(),
    ]
    if settings.pictures:
        callbacks.append(PicturePanels(folder / "pictures", settings.pictures))
        callbacks.append(PictureSheet(folder / "sheet.png", settings.pictures))
    if settings.progress:
        callbacks.append(RichProgressBar(theme=RichProgressBarTheme(metrics_format=".4g"), leave=True))
    return callbacks


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` every so many steps and at the end of the run."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every, self.written = path, every, -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        if trainer.global_step not in (0, self.written):  # the first micro-batch of the next step ends at the same one
            self.written = trainer.global_step
            trainer.save_checkpoint(self.path)


class FreezeNorm(Callback):
    """From step `start` on batch normalisation takes and keeps its running statistics; its scale and shift go on learning.

    An average of the weights begins anew there: of the one before, statistics and weights do not belong together any more.
    """

    def __init__(self, start: int) -> None:
        self.start = start

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not self._norms(pl_module):
            raise DerainzooError(
                f"callbacks.freeze_norm={self.start} expects a network with batch normalisation; this one has none. "
                "Leave it at null"
            )

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step >= self.start:  # at every batch, for Lightning sets the training mode after each validation
            for norm in self._norms(pl_module):
                norm.eval()
        if trainer.global_step == self.start:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging) and callback._average_model is not None:
                    callback._average_model.n_averaged.zero_()  # the next update copies the weights

    @staticmethod
    def _norms(module: pl.LightningModule) -> list[torch.nn.Module]:
        return [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


class Throughput(Callback):
    """Rainy images a second, of all processes together, since the last log; validation does not count."""

    def __init__(self) -> None:
        self.images, self.seconds, self.began = 0, 0.0, 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Batch, index: int) -> None:
        self.began = self.began or time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.images += sum(len(b.input) for b in (batch.values() if isinstance(batch, dict) else [batch]))
        self.seconds += now - self.began
        self.began = now
        if trainer.fit_loop.epoch_loop._should_accumulate() or trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        module.log("train/images_per_s", self.images * trainer.world_size / self.seconds, prog_bar=True)
        self.images, self.seconds = 0, 0.0

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.began = 0.0


def panel(rainy: Tensor, output: Tensor, clean: Tensor, gain: float = 4.0) -> Tensor:
    """Rainy, restored, clean and the error (times `gain`) side by side: float (3, H, W) each -> uint8 (3, H, 4 W)."""
    parts = [rainy, output.clamp(0, 1), clean, ((output - clean).abs() * gain).clamp(0, 1)]
    return (torch.cat([p.float() for p in parts], -1) * 255).round().byte().cpu()


class SavePictures(Callback):
    """Keeps what the network makes of every test image, as PNG under the image's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        data = trainer.datamodule.test_names[dataloader_idx]  # type: ignore[attr-defined]
        for name, output in zip(batch.names, outputs, strict=True):
            write_png(self.folder / data / f"{name}.png", quantise(output).permute(1, 2, 0).cpu().numpy())


class PictureSheet(Callback):
    """The first test images as one picture, a row each: rainy | restored | clean | error."""

    def __init__(self, file: Path, count: int) -> None:
        self.file, self.count = file, count
        self.rows: list[Tensor] = []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.is_global_zero and len(self.rows) < self.count:
            self.rows.append(panel(batch.input[0], outputs[0], batch.target[0]))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.rows:
            width = max(r.shape[-1] for r in self.rows)
            padded = [torch.nn.functional.pad(r, (0, width - r.shape[-1], 0, 8), value=255) for r in self.rows]
            write_png(self.file, torch.cat(padded, 1).permute(1, 2, 0).numpy())


class PicturePanels(Callback):
    """The first validation images at every validation: as files, and in the loggers that take pictures."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.panels: dict[str, Tensor] = {}

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        for i, name in enumerate(batch.names):
            if len(self.panels) < self.count:
                self.panels[name] = panel(batch.input[i * batch.versions], outputs[i * batch.versions], batch.target[i])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        for name, picture in self.panels.items():
            file = self.folder / f"step-{step:07d}" / f"{Path(name).as_posix().replace('/', '_')}.png"
            write_png(file, picture.permute(1, 2, 0).numpy())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                images = [p.permute(1, 2, 0).numpy() for p in self.panels.values()]
                captions = [f"{name}: rainy | restored | clean | error x4" for name in self.panels]
                logger.log_image("val/pictures", images=images, caption=captions, step=step)
            elif isinstance(logger, TensorBoardLogger):
                for name, picture in self.panels.items():
                    logger.experiment.add_image(f"val/{name}", picture, step)
        self.panels.clear()
