"""`derainzoo models`: the table of networks, without importing any of them."""

import shutil
from typing import TYPE_CHECKING

from derainzoo.models.pretrained import Shipped, shipped
from derainzoo.models.registry import list_models, model_info

if TYPE_CHECKING:
    from omegaconf import DictConfig


def rows(pattern: str = "*", task: str | None = None) -> list[tuple[str, ...]]:
    """Header and a row a network; operations are multiply-adds of one 3 x 256 x 256 image."""
    out: list[tuple[str, ...]] = [("network", "for", "parameters", "MACs 256²", "pads to", "weights", "paper", "what it is")]
    for name in list_models(pattern, task=task):
        info = model_info(name)
        size = (f"{info.params / 1e6:.2f} M", f"{info.macs / 1e9:.2f} G", f"x{info.multiple_of}")
        weights = ",".join(_what_for(trained, info.params) for trained in shipped().values() if trained.model == name) or "-"
        out.append((name, ",".join(info.tasks), *size, weights, f"{info.paper.venue} {info.paper.year}", info.summary))
    return out


def _what_for(trained: Shipped, usual: int) -> str:
    """What weights are for, and how large their network is if it is not the usual one."""
    parameters = trained.facts.get("parameters", usual)
    return trained.name.partition(".")[2] + (f" ({parameters / 1e6:.2f} M)" if parameters != usual else "")


def models(cfg: "DictConfig") -> None:
    """Print the table, cut to the width of the terminal."""
    table = rows(cfg.pattern, cfg.for_task)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    width = shutil.get_terminal_size((160, 24)).columns
    for row in table:
        cells = (c.rjust(w) if 2 <= i <= 4 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        print("  ".join(cells).rstrip()[:width])
    if len(table) == 1:
        print(f"no network matches '{cfg.pattern}'" + (f" for the task '{cfg.for_task}'" if cfg.for_task else ""))
