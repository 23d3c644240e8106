"""`derainzoo convert`: a file of weights of any origin becomes one of ours."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from derainzoo.config import chosen_model
from derainzoo.models import checkpoints

if TYPE_CHECKING:
    from omegaconf import DictConfig


def convert(cfg: "DictConfig") -> None:
    """Convert, and say what was found."""
    name, arguments = chosen_model(cfg)
    found = checkpoints.convert(
        cfg.source,
        cfg.target,
        name=name,
        arguments=arguments,
        licence=cfg.licence,
        note=cfg.note,
        overwrite=cfg.overwrite,
    )
    unused = found.pop("unused")
    origin = f"published weights of {found['system']}" if found.pop("published") else "weights of derainzoo"
    dead = f", {len(unused)} that nothing reads left out: {', '.join(unused)}" if unused else ", all there are"
    print_facts({"found": origin, **found, "tensors": f"{found['tensors']}{dead}", "parameters": f"{found['parameters']:,}"})


def print_facts(facts: Mapping[str, Any]) -> None:
    """A line each, without those that are not known."""
    width = max(map(len, facts))
    for key, value in facts.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{k}={v}" for k, v in value.items()) or "the usual ones"
        if value is not None:
            print(f"{key.replace('_', ' '):{width}}  {value}")
