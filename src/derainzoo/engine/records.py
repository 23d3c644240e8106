"""What a run leaves in W&B and TensorBoard besides its curves: tables of pictures, what it used and made, what it costs.

All of it also lies in the run's folder as plain files; nobody needs an account to look at a result. Everything works offline:
`wandb sync` sends it later, lineage included.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from derainzoo.data.batch import Batch
from derainzoo.data.datamodule import DerainDataModule
from derainzoo.data.pairs import files_of
from derainzoo.engine.callbacks import panel
from derainzoo.engine.report import table
from derainzoo.metrics.color import quantise
from derainzoo.metrics.per_image import read_csv
from derainzoo.models.pretrained import locate
from derainzoo.nas.cost import count

COST_SIZE = (256, 256)

Pictures = Mapping[str, tuple[Tensor, Tensor, Tensor]]
"""An image's name -> rainy, restored and clean: (3, H, W) floats in [0, 1]."""


class TestTables(Callback):
    """Every test image with its values, as a table a set; the first `count` also as rainy, restored and clean picture.

    Args:
        folder: of the run, where the per-image results are.
        count: pictures of each set.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.pictures: dict[str, dict[str, tuple[Tensor, Tensor, Tensor]]] = {}

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        kept = self.pictures.setdefault(trainer.datamodule.test_names[dataloader_idx], {})  # type: ignore[attr-defined]
        if trainer.is_global_zero and len(kept) < self.count:
            kept[batch.names[0]] = (batch.input[0].cpu(), outputs[0].float().cpu(), batch.target[0].cpu())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for name, pictures in self.pictures.items():
            show_test(trainer.loggers, name, read_csv(self.folder / "results" / f"{name}.csv"), pictures, trainer.global_step)


def show_test(
    loggers: Iterable[Logger], name: str, rows: Sequence[Mapping[str, Any]], pictures: Pictures, step: int = 0
) -> None:
    """A test set's table.

    Args:
        loggers: of the run.
        name: of the set.
        rows: for every image its `name` and its values.
        pictures: those to be seen.
        step: at which it was measured.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _wandb_table(logger, name, rows, pictures, step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(f"test/{name}", "\n".join(table(name, rows)), step)
            for image, parts in pictures.items():
                logger.experiment.add_image(f"test/{name}/{image}", panel(*parts), step)


def _wandb_table(logger: WandbLogger, name: str, rows: Sequence[Mapping[str, Any]], pictures: Pictures, step: int) -> None:
    import wandb

    metrics = [column for column in rows[0] if column != "name"]
    data: list[list[Any]] = []
    for row in rows:
        shown: list[Any] = [wandb.Image(_pixels(part)) for part in pictures.get(row["name"], ())] or [None] * 3
        data.append([row["name"], *shown, *(row[metric] for metric in metrics)])
    logger.log_table(f"test/{name}/images", columns=["name", "rainy", "restored", "clean", *metrics], data=data, step=step)


def _pixels(image: Tensor) -> np.ndarray:
    return quantise(image).permute(1, 2, 0).numpy()


# --- lineage -----------------------------------------------------------------------------------------------------------------


@rank_zero_only
def used_data(loggers: Iterable[Logger], data: DerainDataModule) -> None:
    """The splits that a run reads, as an artifact of W&B that it uses."""
    for run in _runs(loggers):
        facts = data_facts(data)
        _use(run, _artifact(data.set_name, "dataset", facts, {"splits.json": json.dumps(facts, indent=2) + "\n"}))


@rank_zero_only
def used_weights(loggers: Iterable[Logger], network: str, weights: str | Path) -> None:
    """Weights that a run begins with or measures: a file, or a name of those that come with the package."""
    for run in _runs(loggers):
        _use(run, _weights(network, locate(weights), {}, upload=False))


@rank_zero_only
def made_weights(loggers: Iterable[Logger], network: str, file: Path, upload: bool, facts: Mapping[str, Any]) -> None:
    """Weights that a run has made. They stay where they are, and W&B knows their place and checksum; `upload` sends them."""
    for run in _runs(loggers):
        run.log_artifact(_weights(network, file, facts, upload))


@rank_zero_only
def used_genotype(loggers: Iterable[Logger], file: Path) -> None:
    """The genotype that a run trains or compares."""
    for run in _runs(loggers):
        _use(run, _genotype(file))


@rank_zero_only
def made_genotype(loggers: Iterable[Logger], file: Path) -> None:
    """The genotype that a search has found."""
    for run in _runs(loggers):
        run.log_artifact(_genotype(file))


def data_facts(data: DerainDataModule) -> dict[str, Any]:
    """Set, and for each split how many pairs it has and a digest of names and file sizes, which another copy would change."""
    splits = {"train": data.train_pairs, "val": data.val_pairs}
    facts = {name: {"pairs": len(pairs), "digest": _digest(files_of(pairs))} for name, pairs in splits.items() if pairs}
    tests = {name: {"pairs": len(source.names), "digest": _digest(source.files())} for name, source in data.tests.items()}
    return {"set": data.set_name, "splits": facts, "tests": tests}


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    lines = (f"{name} {file.stat().st_size}\n" for name, file in files)
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]


def _runs(loggers: Iterable[Logger]) -> list[Any]:
    return [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]


def _artifact(name: str, kind: str, facts: Mapping[str, Any], texts: Mapping[str, str]) -> Any:
    import wandb

    artifact = wandb.Artifact(name, type=kind, metadata=dict(facts))
    for file, text in texts.items():
        with artifact.new_file(file, mode="w", encoding="utf-8") as opened:
            opened.write(text)
    return artifact


def _weights(network: str, file: Path, facts: Mapping[str, Any], upload: bool) -> Any:
    """Versions of one artifact a network. The entry's name is fixed, so that the same weights are the same version anywhere."""
    artifact = _artifact(f"{network}-weights", "model", {"network": network, **facts}, {})
    if upload:
        artifact.add_file(str(file), name="weights")
    else:
        artifact.add_reference(file.absolute().as_uri(), name="weights")
    return artifact


def _genotype(file: Path) -> Any:
    fields = json.loads(file.read_text(encoding="utf-8"))
    artifact = _artifact(f"{fields['system']}-genotype", "genotype", {"hash": fields.get("hash")}, {})
    artifact.add_file(str(file), name="genotype.json")
    return artifact


def _use(run: Any, artifact: Any) -> None:
    """`run.use_artifact`, which refuses to work offline although the record that it would write is all that a sync needs."""
    if getattr(run, "offline", False):
        run._log_artifact(artifact, aliases=[], is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)


# --- the outcome -------------------------------------------------------------------------------------------------------------


@rank_zero_only
def outcome(
    loggers: Iterable[Logger], model: Mapping[str, Any], settings: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """What runs are compared by: what the network costs, and what was measured in the end.

    Args:
        loggers: of the run.
        model: the network's name and arguments.
        settings: the configuration.
        metrics: names with their protocols, and values.
    """
    parameters, macs = count(model["name"], model["arguments"], COST_SIZE)
    cost = {"cost/parameters": parameters, "cost/gmacs": macs / 1e9}
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update(cost)
        elif isinstance(logger, TensorBoardLogger):
            # now, not at the start: the HPARAMS page shows the values that it is given together with the settings
            logger.log_hyperparams(dict(settings), {**metrics, **cost})
