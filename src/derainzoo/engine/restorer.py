"""The one Lightning module that trains, validates and tests every restoration network."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from derainzoo.data.batch import Batch
from derainzoo.engine.optim import make_optimizer, make_schedule, named
from derainzoo.errors import DerainzooError
from derainzoo.inference.predictor import Predictor
from derainzoo.inference.tiler import OVERLAP
from derainzoo.losses.weighted import WeightedLoss
from derainzoo.metrics.per_image import PerImageMetrics, write_csv
from derainzoo.models.layers import has_dilated_convolutions
from derainzoo.models.registry import create_model

log = logging.getLogger(__name__)

_PRECISION = {"bf16-mixed": "bf16", "16-mixed": "fp16"}  # Lightning's words for them -> the predictor's


class NonFiniteLoss(DerainzooError):
    """The loss or its gradient is NaN or infinite; nothing was learned from the batch."""


class Restorer(pl.LightningModule):
    """Network, loss, optimiser, metrics. Everything it is made of is plain data, so that a checkpoint rebuilds it.

    Args:
        model: {"name": registered network, "arguments": {...}}.
        loss: the terms of `WeightedLoss`.
        optim: {"name": ..., "lr": ..., ...}.
        scheduler: {"name": ..., ...}.
        protocols: named protocols of validation and test.
        channels_last: memory layout of network and images.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        loss: Mapping[str, Mapping[str, Any]],
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        protocols: Sequence[str],
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = self.make_network(model["name"], model["arguments"])
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.loss = WeightedLoss(loss)
        self.protocols = list(protocols)
        self.metrics = nn.ModuleDict()  # per-image results by data set
        self.tile: int | Literal["auto"] | None = None  # of test images, as of the predictor; None: whole, as papers measure
        self.overlap = OVERLAP
        self.input_values: dict[str, float] = {}  # what the rainy validation images themselves measure
        self.unchanged = 0
        self.names: Sequence[str] = ()  # of the images of the last training batch

    def make_network(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        """The network that is trained."""
        return create_model(name, **arguments)

    def forward(self, images: Tensor) -> Any:
        return self.net(images.contiguous(memory_format=self.memory_format))

    def configure_optimizers(self) -> Any:
        name, settings = named(self.hparams["optim"])
        optimizer = make_optimizer((p for p in self.net.parameters() if p.requires_grad), name, **settings)
        name, settings = named(self.hparams["scheduler"])
        schedule = make_schedule(optimizer, name, **settings)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        total, terms = self.lost(batch)
        self.log("train/loss", total, prog_bar=True)
        if len(terms) > 1:
            self.log_dict({f"train/loss_{label}": value for label, value in terms.items()})
        return total

    def lost(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a training batch and its terms."""
        self.names = batch.names
        total, terms = self.loss(self(batch.input), batch.target, batch.versions, self.global_step)
        if not torch.isfinite(total):
            values = ", ".join(f"{label}={value.item():g}" for label, value in terms.items())
            inputs = "finite" if bool(torch.isfinite(batch.input).all()) else "NOT finite"
            raise self._broken("loss", f"{values}; input pixels {inputs}")
        return total, terms

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """A gradient that is not a number would reach every weight by way of its norm, and from there a checkpoint."""
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return  # of fp16: it leaves such steps out itself, and looks for the scale at which they are rare
        gradients = {name: p.grad for name, p in self.net.named_parameters() if p.grad is not None}
        norms = torch.stack(torch._foreach_norm(list(gradients.values())))
        if not torch.isfinite(norms.sum()):
            bad = [name for name, norm in zip(gradients, norms, strict=True) if not torch.isfinite(norm)]
            raise self._broken("gradient", f"{len(bad)} of {len(gradients)} parameters, the first {bad[0]}")

    def _broken(self, what: str, where: str) -> NonFiniteLoss:
        return NonFiniteLoss(
            f"the {what} is not a number at step {self.global_step} ({where}). The batch held: {', '.join(self.names)}. "
            "Nothing was learned from it; the last checkpoints are whole. A smaller optim.lr, trainer.gradient_clip_val or "
            "trainer.precision=32-true usually mends this; then go on with resume=auto."
        )

    # --- validation and test -------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """A table for each data set; torchmetrics moves them between devices and keeps them out of checkpoints."""
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        if stage == "fit" and on_cpu and self.trainer.precision == "bf16-mixed" and has_dilated_convolutions(self.net):
            log.info(
                "images contiguous, not channels_last: in that layout oneDNN's bf16 gradients of dilated convolutions are wrong"
            )
            self.memory_format = torch.contiguous_format
            self.net.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        tests = self.trainer.datamodule.test_names if stage == "test" else []  # type: ignore[attr-defined]
        for name in ["val", "val_input", *tests, *(f"{t}_input" for t in tests)]:
            if name not in self.metrics:
                self.metrics[name] = PerImageMetrics(self.protocols)

    def table(self, name: str) -> PerImageMetrics:
        """The per-image results of a data set."""
        metrics = self.metrics[name]
        assert isinstance(metrics, PerImageMetrics)
        return metrics

    def _means(self, name: str) -> dict[str, float]:
        table = self.table(name)
        values = table.compute()
        return {metric: values[metric] for metric in table.metrics}

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output: Tensor = self(batch.input)
        self.table("val").update(output, batch.target, batch.names)
        if not self.input_values:
            self.table("val_input").update(batch.input, batch.target, batch.names)
        return output

    def on_validation_epoch_end(self) -> None:
        values = self._means("val")
        self.table("val").reset()
        self.log_dict({f"val/{k}": v for k, v in values.items()}, prog_bar=True)
        if not self.input_values:
            self.input_values = self._means("val_input")
            self.table("val_input").reset()
            log.info("rainy validation images: %s", show(self.input_values))
        log.info("step %d: %s", self.global_step, show(values))
        same = all(abs(v - self.input_values[k]) < 1e-6 for k, v in values.items())
        self.unchanged = self.unchanged + 1 if same else 0
        if self.unchanged == 3:
            log.warning("the network has returned its input unchanged in three validations: is the learning rate too small?")

    def on_test_start(self) -> None:
        """What `derainzoo predict` restores with, so that its pictures are those that are measured here."""
        precision = _PRECISION.get(str(self.trainer.precision), "fp32")
        self.predictor = Predictor(self.net, self.device, precision, self.tile, self.overlap)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        output = self.predictor.restore(batch.input)
        name = self.trainer.datamodule.test_names[dataloader_idx]  # type: ignore[attr-defined]
        self.table(name).update(output, batch.target, batch.names)
        self.table(f"{name}_input").update(batch.input, batch.target, batch.names)
        return output

    def on_test_epoch_end(self) -> None:
        """Log the means and write every image's values to `results/SET.csv` (each process has measured its share)."""
        for name in self.trainer.datamodule.test_names:  # type: ignore[attr-defined]
            self.log_dict({f"test/{name}/{k}": v for k, v in self._means(name).items()})
            self.log_dict({f"test/{name}/input_{k}": v for k, v in self._means(f"{name}_input").items()})
            rows, rainy = self.table(name).table(), self.table(f"{name}_input").table()
            if self.trainer.is_global_zero:
                inputs = [{f"input_{k}": v for k, v in row.items() if k != "name"} for row in rainy]
                joined = [{**a, **b} for a, b in zip(rows, inputs, strict=True)]
                write_csv(Path(self.trainer.default_root_dir) / "results" / f"{name}.csv", joined)


def show(values: Mapping[str, float]) -> str:
    """`psnr_y8 31.42, ssim_y8 0.9312`."""
    return ", ".join(f"{k} {v:.2f}" if k.startswith("psnr") else f"{k} {v:.4f}" for k, v in values.items())
