"""What happened to the choices during a search: alphas, time that each candidate was active, changes of mind."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from derainzoo.charts import line_panels, share_bars
from derainzoo.files import whole_file
from derainzoo.nas.architecture import Architecture, Choices, Relaxed


class History:
    """Records of a search, each over the steps since the one before it. Its state is plain data that a checkpoint keeps.

    Args:
        architecture: whose choices are watched.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.records: list[dict[str, Any]] = []
        self.last: dict[str, Tensor] = {}
        self._clear()

    def _clear(self) -> None:
        self.flips = 0
        self.active = {kind: torch.zeros(alpha.shape, dtype=torch.int64) for kind, alpha in self.architecture.alphas.items()}

    def watch(self) -> None:
        """After every step of the search."""
        choices = {kind: chosen.cpu().clone() for kind, chosen in self.architecture.choices().items()}
        for kind, chosen in choices.items():
            self.active[kind].scatter_add_(1, chosen[:, None], torch.ones_like(chosen)[:, None])
            if self.last:
                self.flips += int((chosen != self.last[kind]).sum())
        self.last = choices

    def record(self, step: int) -> dict[str, float]:
        """Close a record; returns its figures for the loggers.

        `entropy` lies between 0 (decided) and 1, and is that of a mixture's weights, or on paths of the time that a slot's
        candidates were active. `share` is how many of the slots of a kind would keep a candidate now.
        """
        alphas = {kind: alpha.detach().cpu().clone() for kind, alpha in self.architecture.alphas.items()}
        figures: dict[str, float] = {"flips": float(self.flips)}
        for kind, alpha in alphas.items():
            mixed = isinstance(self.architecture, Relaxed)
            weights = alpha.softmax(1) if mixed else self.active[kind] / self.active[kind].sum(1, keepdim=True).clamp_min(1)
            entropy = torch.special.entr(weights).sum(1).mean() / torch.tensor(alpha.shape[1]).log()
            figures[f"entropy_{kind}"] = float(entropy)
            shares = torch.nn.functional.one_hot(self.last[kind], alpha.shape[1]).float().mean(0)
            figures |= {
                f"share_{kind}/{name}": float(share)
                for name, share in zip(self.architecture.candidates(kind), shares, strict=True)
            }
        self.records.append({"step": step, "flips": self.flips, "figures": figures, "alphas": alphas, "active": self.active})
        self._clear()
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, and dictionaries of them."""
        return {"records": self.records, "last": self.last, "flips": self.flips, "active": self.active}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.records, self.last = list(state["records"]), dict(state["last"])
        self.flips, self.active = state["flips"], dict(state["active"])

    def longest_active(self, share: float = 0.2) -> Choices:
        """The candidates that were active for most of the last part of the search: less a matter of luck than its last step."""
        recent = self.records[-max(1, round(share * len(self.records))) :]
        return {kind: sum(r["active"][kind] for r in recent).argmax(1) for kind in self.architecture.alphas}

    # --- for readers ---------------------------------------------------------------------------------------------------------

    def _cells(self) -> Iterator[tuple[str, int, str, int, str]]:
        """Kind, row, name of the slot, column, name of the candidate: everything that there is an alpha of."""
        for kind, slots in self.architecture.slots.items():
            for row, slot in enumerate(slots):
                for k, name in enumerate(self.architecture.candidates(kind)):
                    yield kind, row, slot, k, name

    def curves(self, record: Mapping[str, Any]) -> dict[str, float]:
        """`alphas/slot/candidate` -> alpha, and `active/slot/candidate` -> share of the steps since the record before."""
        values: dict[str, float] = {}
        for kind, row, slot, k, name in self._cells():
            counts = record["active"][kind][row]
            values[f"alphas/{slot}/{name}"] = float(record["alphas"][kind][row, k])
            values[f"active/{slot}/{name}"] = float(counts[k] / counts.sum())
        return values

    def write_csv(self, path: Path) -> None:
        """A row for every record, slot and candidate; `active` is a share of the steps since the record before."""
        with whole_file(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "slot", "candidate", "alpha", "active"])
            for record in self.records:
                values = self.curves(record)
                for _, _, slot, _, name in self._cells():
                    alpha, active = (values[f"{curve}/{slot}/{name}"] for curve in ("alphas", "active"))
                    writer.writerow([record["step"], slot, name, f"{alpha:.6g}", f"{active:.4g}"])

    def charts(self, title: str) -> dict[str, str]:
        """File name -> SVG: alphas of every slot over the steps, its time with each candidate, flips and entropies."""
        alphas: dict[str, dict[str, dict[str, Any]]] = {}
        active: dict[str, dict[str, dict[str, float]]] = {}
        for kind, row, slot, k, name in self._cells():
            curve = [(r["step"], float(r["alphas"][kind][row, k])) for r in self.records]
            alphas.setdefault(kind, {}).setdefault(slot, {})[name] = curve
            counts = sum(r["active"][kind][row] for r in self.records)
            active.setdefault(kind, {}).setdefault(slot, {})[name] = float(counts[k] / counts.sum())
        flips = {"of all slots": [(r["step"], r["figures"]["flips"]) for r in self.records]}
        entropies = {kind: [(r["step"], r["figures"][f"entropy_{kind}"]) for r in self.records] for kind in alphas}
        course = {"flips": {"changes of choice since the last record": flips}, "entropy": {"0: decided, 1: even": entropies}}
        return {
            "alphas.svg": line_panels(f"{title}: alphas", alphas),
            "active.svg": share_bars(f"{title}: time that each candidate was active", active),
            "course.svg": line_panels(f"{title}: course of the search", course, columns=1, size=(560, 150)),
        }
