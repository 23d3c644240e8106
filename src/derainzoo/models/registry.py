"""Names of networks: what there is, and how to build one.

A network is a module-level function under `@register(...)` in a file of this folder, beside that file's `PAPER`. The facts in
both are plain literals: they are read from the source text, so that listing the zoo imports no network and no torch.
A package outside derainzoo adds networks by the entry-point group `derainzoo.models`, whose values name such modules.
"""

import ast
import fnmatch
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derainzoo.errors import DerainzooError, unknown_name

if TYPE_CHECKING:
    from torch import nn

# files of this folder that hold machinery, not networks
_MACHINERY = {"__init__", "registry", "layers", "checkpoints"}


@dataclass(frozen=True)
class Paper:
    """Where a network comes from. `code_licence` is that of the authors' code, of which nothing is used here."""

    title: str
    authors: str
    venue: str
    year: int
    url: str
    code: str = ""
    code_licence: str = ""


@dataclass(frozen=True)
class ModelInfo:
    """Facts of one registered network. `params` and `macs` (at 3 x 256 x 256) are exact; a test recounts them."""

    name: str
    system: str
    module: str
    paper: Paper
    summary: str
    tasks: tuple[str, ...]
    params: int
    macs: int
    multiple_of: int
    """Height and width are padded inside the network to a multiple of this."""
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that make the network small enough for a test."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of its function, with their defaults."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """What it cannot do (`export`, `compile`, `onnx`, `tiles`, ...) -> why."""


def register(
    *,
    tasks: tuple[str, ...],
    params: int,
    macs: int,
    multiple_of: int,
    tiny: Mapping[str, Any],
    limits: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., "nn.Module"]], Callable[..., "nn.Module"]]:
    """Mark a function as a network of the zoo; its name is the network's name, its first docstring line the summary.

    The arguments are read from the source by `_read_module`, hence literals only; at run time the mark does nothing.
    """

    def mark(function: Callable[..., "nn.Module"]) -> Callable[..., "nn.Module"]:
        return function

    return mark


def _literals(call: ast.Call, where: str) -> dict[str, Any]:
    try:
        return {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except ValueError as error:
        raise DerainzooError(f"{where}: the registry reads literals only, found an expression ({error})") from None


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _read_module(module: str, path: Path) -> list[ModelInfo]:
    paper: Paper | None = None
    infos: list[ModelInfo] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _calls(node.value, "Paper"):
            paper = Paper(**_literals(node.value, f"{path.name}: PAPER"))
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and _calls(mark, "register"):
                if paper is None:
                    raise DerainzooError(f"{path}: @register before PAPER = Paper(...); put the paper first")
                summary = (ast.get_docstring(node) or "").split("\n")[0]
                facts = _literals(mark, f"{path.name}: @register of {node.name}")
                facts["arguments"] = _defaults(node.args, f"{path.name}: {node.name}")
                infos.append(ModelInfo(node.name, module.rsplit(".", 1)[-1], module, paper, summary, **facts))
    return infos


def _defaults(arguments: ast.arguments, where: str) -> dict[str, Any]:
    names = [a.arg for a in arguments.args]
    if len(arguments.defaults) != len(names) or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
        raise DerainzooError(f"{where}: a registered function takes plain arguments, all with defaults")
    return {n: ast.literal_eval(d) for n, d in zip(names, arguments.defaults, strict=True)}


@cache
def _index() -> dict[str, ModelInfo]:
    here = Path(__file__).parent
    files = {f"derainzoo.models.{p.stem}": p for p in sorted(here.glob("*.py")) if p.stem not in _MACHINERY}
    for plugin in entry_points(group="derainzoo.models"):
        spec = importlib.util.find_spec(plugin.value)
        if spec is None or spec.origin is None:
            raise DerainzooError(f"entry point derainzoo.models:{plugin.name} names no module '{plugin.value}'")
        files[plugin.value] = Path(spec.origin)
    index: dict[str, ModelInfo] = {}
    for module, path in files.items():
        for info in _read_module(module, path):
            if info.name in index:
                raise DerainzooError(f"network '{info.name}' is registered by {index[info.name].module} and by {module}")
            index[info.name] = info
    return index


def list_models(pattern: str = "*", *, task: str | None = None, pretrained: bool = False) -> list[str]:
    """Names that match a shell pattern, optionally only those for a task (`derain`, `deblur`, `lowlight`, ...).

    With `pretrained` the names are those of the trained weights that come with the package, such as `elf_lw.rain100l`.
    """
    networks = {name: name for name in _index()}
    if pretrained:
        from derainzoo.models.pretrained import shipped

        networks = {name: weights.model for name, weights in shipped().items()}
    fitting = ((name, model) for name, model in networks.items() if fnmatch.fnmatch(name, pattern))
    return sorted(name for name, model in fitting if task is None or task in _index()[model].tasks)


def model_info(name: str) -> ModelInfo:
    """The facts of one network."""
    if name not in _index():
        raise unknown_name("network", name, _index())
    return _index()[name]


def model_arguments(name: str) -> dict[str, Any]:
    """The arguments of a network, with their defaults."""
    return dict(model_info(name).arguments)


def create_model(name: str, **arguments: Any) -> "nn.Module":
    """Build a network by name, with random weights; `arguments` are those of its function (see `model_arguments`)."""
    info = model_info(name)
    for argument in arguments:
        if argument not in info.arguments:
            raise unknown_name(f"argument of network '{name}'", argument, info.arguments)
    return getattr(importlib.import_module(info.module), name)(**arguments)
