"""Lets the rest of the package import torchvision-dependent libraries next to a torch of another build.

A torchvision wheel that was built for another torch (a CUDA torchvision beside a CPU torch, say) raises
`operator torchvision::nms does not exist` at import, and with it fail timm, torchmetrics and pytorch_lightning.
Nothing here needs torchvision's compiled operators, so stand-ins for the two that its Python code refers to are enough.
"""

import os
import sys

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations would look for a newer release on the network

_stand_ins: object = None  # must outlive every use of the operators


def ensure_torchvision_importable() -> bool:
    """Try the real import first; define the stand-ins only where it fails. Returns whether they were needed."""
    global _stand_ins
    try:
        import torchvision

        return False
    except ModuleNotFoundError:
        return False
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import torch

    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _stand_ins = library
    import torchvision  # noqa: F401

    return True
