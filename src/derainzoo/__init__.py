"""derainzoo: image-deraining networks, each written from its paper, behind one command and three lines of Python.

    import derainzoo
    net = derainzoo.create_model("elf")
    net = derainzoo.load_model("weights.safetensors")
    dry = derainzoo.derain("photo.jpg", weights="weights.safetensors")
    derainzoo.list_models("drs*")

Importing this module is cheap: torch and everything heavier are imported by the first call that needs them.
"""

from typing import TYPE_CHECKING, Any

from derainzoo._compat import prepare_imports

prepare_imports()

__version__ = "0.1.0"

if TYPE_CHECKING:
    from derainzoo.inference.kinds import derain
    from derainzoo.models.checkpoints import from_official, load_model
    from derainzoo.models.registry import ModelInfo, create_model, list_models, model_info

# public name -> the module that holds it
_PUBLIC = {
    "ModelInfo": "derainzoo.models.registry",
    "create_model": "derainzoo.models.registry",
    "derain": "derainzoo.inference.kinds",
    "from_official": "derainzoo.models.checkpoints",
    "list_models": "derainzoo.models.registry",
    "load_model": "derainzoo.models.checkpoints",
    "model_info": "derainzoo.models.registry",
}

__all__ = ["ModelInfo", "__version__", "create_model", "derain", "from_official", "list_models", "load_model", "model_info"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'derainzoo' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
