"""Lets libraries that need torchvision be imported next to a torch of another build.

A torchvision wheel built for another torch (a CUDA torchvision beside a CPU torch, say) raises `operator torchvision::nms does
not exist` at import, and with it fail timm, torchmetrics and pytorch_lightning. Nothing here needs torchvision's compiled
operators, so stand-ins for the two that its Python code refers to are enough. They are defined when somebody imports
torchvision and the import fails; where it succeeds nothing happens.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_stand_ins: object = None  # must outlive every use of the operators


class _Guard(MetaPathFinder, Loader):
    """Sees the first import of torchvision, takes itself out of the way, and does that import with care."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        try:
            self.module = importlib.import_module(name)
        except ModuleNotFoundError:
            return None
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            _define_stand_ins()
            self.module = importlib.import_module(name)
        self.spec = self.module.__spec__
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # has been executed; the import system put our spec in its place


def _define_stand_ins() -> None:
    global _stand_ins
    import torch

    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _stand_ins = library


def prepare_imports() -> None:
    """Called when derainzoo is imported, hence before any of its modules imports Lightning, timm or albumentations."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations would look for a newer release on the network
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _Guard())
