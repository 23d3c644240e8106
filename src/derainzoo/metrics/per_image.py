"""Metrics of a whole test set, kept image by image.

Averaging over batches, pooling squared errors, and the repeated images of a distributed sampler all yield another mean than
the papers' (mean over images). So every image's values are kept under its name; means are computed at the end, from the table.
"""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from derainzoo.errors import DerainzooError
from derainzoo.files import whole_file
from derainzoo.metrics.measuring import float64_device
from derainzoo.metrics.protocol import get_protocol, measure_each, metric_names

Row = dict[str, str | float]

# An image restored twice, on two devices or in two batches, may differ in a few pixels; two images differ by far more.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-2


class PerImageMetrics(Metric):
    """Measures images under one or several protocols and remembers every value by the image's name.

    `compute()` gives the means over distinct images, `table()` the values. Images that equal their target have an infinite
    PSNR: they stay in the table, are left out of the PSNR's mean and counted as `identical_images`. In a distributed run
    `compute`, `table` and the writers gather from all processes, so all processes must call them.

    Args:
        protocols: Names in `derainzoo.metrics.PROTOCOLS`.
    """

    is_differentiable = False
    full_state_update = False
    # One (n, K) float64 tensor an update, and the bytes of the names, each closed by a zero: tensors, so that torchmetrics can
    # gather, save and move them. Rows and names stay in the same order.
    values: list[Tensor]
    names: list[Tensor]

    def __init__(self, protocols: Sequence[str] = ("y8",)) -> None:
        super().__init__()
        self.protocols = tuple(protocols)
        self.metrics = metric_names(self.protocols)
        self.needs_target = any(get_protocol(name).needs_target for name in self.protocols)
        self.add_state("values", [], dist_reduce_fx="cat")
        self.add_state("names", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, target: Tensor | None, names: Sequence[str]) -> None:
        """Measure a batch `(B, 3, H, W)` of floats in [0, 1]; `target` may be None if no protocol looks at it."""
        if output.ndim != 4 or len(names) != len(output):
            raise DerainzooError(
                f"expected a batch (B, 3, H, W) and a name for each image, found {tuple(output.shape)} and {len(names)} names"
            )
        rows: list[list[float]] = [[] for _ in names]
        for protocol in self.protocols:
            for row, measured in zip(rows, measure_each(protocol, output, target), strict=True):
                row.extend(measured.values())
        self._remember(rows, b"".join(os.fsencode(name) + b"\0" for name in names))

    def _remember(self, rows: list[list[float]], names: bytes) -> None:
        device = float64_device(self.device)
        self.values.append(torch.tensor(rows, dtype=torch.float64, device=device).view(-1, len(self.metrics)))
        self.names.append(torch.tensor(list(names), dtype=torch.uint8, device=device))

    def sync(self, *arguments: Any, **options: Any) -> None:
        """Gather the states; a process that saw no image has to join in with empty ones of the right type."""
        if isinstance(self.values, list) and not self.values:
            self._remember([], b"")
        super().sync(*arguments, **options)

    def _rows(self) -> list[Row]:
        """A row for every distinct name, sorted by name."""
        if len(self.values) == 0:
            return []
        values = dim_zero_cat(self.values).tolist()  # lists of tensors, or one tensor each while synchronised
        names = bytes(dim_zero_cat(self.names).tolist())
        distinct: dict[str, list[float]] = {}
        for name, row in zip(map(os.fsdecode, names.split(b"\0")[:-1]), values, strict=True):
            first = distinct.setdefault(name, row)
            for metric, a, b in zip(self.metrics, first, row, strict=True):
                if not (math.isclose(a, b, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE) or (math.isnan(a) and math.isnan(b))):
                    raise DerainzooError(
                        f"image '{name}' was measured twice, with {metric} = {a:.6g} and {b:.6g}. If these are two "
                        "images, give them distinct names (put the folder or the version into the name)"
                    )
        return [{"name": name, **dict(zip(self.metrics, distinct[name], strict=True))} for name in sorted(distinct)]

    def compute(self) -> dict[str, float]:
        """Mean of every metric over distinct images, their number `images`, and `identical_images`.

        A PSNR's mean leaves out identical images, any mean leaves out values that do not exist (NIQE of a flat picture); where
        nothing is left it is NaN.
        """
        rows = self._rows()
        means: dict[str, float] = {}
        for metric in self.metrics:
            finite = [value for row in rows if math.isfinite(value := float(row[metric]))]
            means[metric] = math.fsum(finite) / len(finite) if finite else math.nan
        identical = sum(any(math.isinf(float(row[metric])) for metric in self.metrics) for row in rows)
        return {**means, "images": len(rows), "identical_images": identical}

    def table(self) -> list[Row]:
        """A row `{"name": ..., metric: value, ...}` for every distinct image of all processes, sorted by name."""
        with self.sync_context(should_sync=not self._is_synced, should_unsync=not self._is_synced):
            return self._rows()

    def write_csv(self, path: str | Path) -> None:
        """Write the table; in a distributed run every process calls this and the first one writes."""
        rows = self.table()
        if _is_first():
            write_csv(Path(path), rows, ["name", *self.metrics])

    def write_parquet(self, path: str | Path) -> None:
        """The same as Parquet, which keeps every bit and the columns' types; needs pyarrow."""
        rows = self.table()
        if _is_first():
            write_parquet(Path(path), rows, ["name", *self.metrics])


def write_csv(path: Path, rows: Sequence[Row], columns: Sequence[str] | None = None) -> None:
    """Write rows of one kind; the columns are those of the first row unless given (a table without rows has a header)."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[Row]:
    """The rows of a per-image table: its `name`, and every other column as a number."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [{k: v if k == "name" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def write_parquet(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """The same as Parquet, whose columns are of one type each: text where the first row has text, else float64."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise DerainzooError("writing Parquet needs pyarrow: pip install 'derainzoo[parquet]', or write CSV") from None
    text = {"name", *(k for k, v in (rows[0] if rows else {}).items() if isinstance(v, str))}
    schema = [(column, pyarrow.string() if column in text else pyarrow.float64()) for column in columns]
    table = pyarrow.Table.from_pylist(list(rows), schema=pyarrow.schema(schema))
    with whole_file(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def _is_first() -> bool:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0
