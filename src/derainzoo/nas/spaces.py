"""Search spaces: what may stand in the places of a searched network, as a supernet of slots, and what each candidate costs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.losses.many_to_one import CELL_COST, OPERATION_COST, PUBLISHED_OPERATION_COST
from derainzoo.models import autoderain, manas
from derainzoo.nas.cost import count_parameters
from derainzoo.nas.genotype import Genotype
from derainzoo.nas.slots import CellSlot, Slot, slots_of


class Space(ABC):
    """A system that can be searched.

    Args:
        arguments: of its network; those that are searched for do not count.
    """

    system: str

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = dict(Genotype(self.system, arguments).choices)

    @abstractmethod
    def supernet(self) -> nn.Module:
        """The network with a slot in every searched place, weights at random."""

    @abstractmethod
    def costs(self, net: nn.Module) -> dict[str, Tensor]:
        """Kind -> (slots, candidates): shares of parameters, about one for a slot's candidates together."""

    @abstractmethod
    def derive(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        """Arguments of the derived network, given the chosen candidate of every slot in the order of the network."""

    def genotype(self, chosen: Mapping[str, str], seed: int | None = None, **search: Any) -> Genotype:
        """What was chosen, and how (`search`: plain JSON values)."""
        return Genotype(self.system, self.arguments | self.derive(chosen), seed, search)


class AutoDerainSpace(Space):
    """Every block chooses both its convolutions and whether it has squeeze-and-excitation.

    Args:
        arguments: width and blocks.
        candidates: convolutions to choose among.
    """

    system = "autoderain"

    def __init__(self, arguments: Mapping[str, Any], candidates: Sequence[str] = autoderain.SEARCHED) -> None:
        super().__init__(arguments)
        for name in candidates:
            if name not in autoderain.CONVOLUTIONS:
                raise unknown_name("candidate convolution of autoderain", name, autoderain.CONVOLUTIONS)
        if len(candidates) < 2 or len(set(candidates)) < len(candidates):
            raise DerainzooError(f"search.candidates: expected two or more different convolutions, found {list(candidates)}")
        self.candidates = list(candidates)

    def supernet(self) -> autoderain.AutoDerain:
        def slot(kind: str, names: Sequence[str], channels: int) -> Slot:
            return Slot(kind, {name: autoderain.make_op(name, channels) for name in names})

        def block(place: int, channels: int) -> autoderain.Block:
            conv_a, conv_b = (slot("conv", self.candidates, channels) for _ in range(2))
            return autoderain.Block(conv_a, conv_b, slot("se", list(autoderain.ATTENTIONS), channels))

        return autoderain.AutoDerain(self.arguments["width"], self.arguments["blocks"], block)

    def costs(self, net: nn.Module) -> dict[str, Tensor]:
        """Squeeze-and-excitation is measured by the convolutions beside it; alone in its slot, its share would be all."""
        slots = slots_of(net)
        parameters = {
            kind: torch.tensor([[count_parameters(m) for m in s.values()] for s in slots[kind].values()]) for kind in slots
        }
        total = parameters["conv"].sum(1, keepdim=True)
        return {"conv": parameters["conv"] / total, "se": parameters["se"] / total[1::2]}

    def derive(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        return {"operations": _texts(list(chosen.values()))}


class ManasSpace(Space):
    """Every cell is parallel or fusion, every edge of an attention one of nine operations.

    Args:
        arguments: width and stem.
        published: as in the published code, the cells' fusion sees what parallel returned, the first three attentions decide
            for all (one for each stage), and costs stand at other operations than those they were counted for.
    """

    system = "manas"

    def __init__(self, arguments: Mapping[str, Any], published: bool = False) -> None:
        super().__init__(arguments)
        self.published = published

    def supernet(self) -> manas.MANAS:
        def cell(place: int, widths: Sequence[int]) -> nn.Module:
            candidates = {"parallel": manas.Parallel(widths), "fusion": manas.Fusion(widths)}
            return CellSlot("cell", candidates, chained=self.published)

        def edge(place: int, channels: int) -> nn.Module:
            return Slot("edge", {name: manas.make_op(name, channels) for name in manas.OPERATIONS})

        return manas.MANAS(self.arguments["width"], self.arguments["stem"], cell, edge)

    def costs(self, net: nn.Module) -> dict[str, Tensor]:
        """The rounded shares of MANAS's complexity term, the same at every width."""
        tables = {"cell": CELL_COST, "edge": PUBLISHED_OPERATION_COST if self.published else OPERATION_COST}
        return {kind: torch.tensor(tables[kind]).repeat(len(slots), 1) for kind, slots in slots_of(net).items()}

    def derive(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        letters = {"parallel": "P", "fusion": "F"}
        cells = "".join(letters[name] for name in chosen.values() if name in letters)
        rows = _texts([name for name in chosen.values() if name not in letters])
        return {"cells": cells, "operations": rows[: len(manas.STAGES)] if self.published else rows}


def _texts(names: Sequence[str]) -> list[str]:
    return ["+".join(names[i : i + 3]) for i in range(0, len(names), 3)]


SPACES: dict[str, type[Space]] = {space.system: space for space in (AutoDerainSpace, ManasSpace)}
