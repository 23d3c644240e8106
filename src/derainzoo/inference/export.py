"""A network as a file for use elsewhere: ONNX, a program of `torch.export`, or its weights alone.

A program takes any batch, height and width, whatever it was traced with. Before a file is kept it is read back and must give
what the network gives, at three sizes; it carries its origin and how it is used as a JSON object under `derainzoo`.
"""

import copy
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import derainzoo
from derainzoo.config import chosen_model
from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.files import whole_file
from derainzoo.inference.convert import print_facts
from derainzoo.models import pretrained
from derainzoo.models.checkpoints import load_model, open_weights, origin, save_weights
from derainzoo.models.registry import create_model, model_info

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

FORMATS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
OPSET = 20
"""Of ONNX: the newest that torch translates to directly; onnxruntime reads it since 1.17."""
TOLERANCE = 1e-4
"""Largest difference between the file and the network, for images in [0, 1]."""

Run = Callable[[Tensor], Tensor]


def export_network(
    net: nn.Module,
    path: str | Path,
    *,
    name: str,
    arguments: Mapping[str, Any],
    format: str | None = None,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a network, check the file, and return what there is to say about it.

    Args:
        net: what `create_model(name, **arguments)` built; stays as it is.
        path: of the file. It appears whole and checked, or not at all.
        name: of the network.
        arguments: of the network.
        format: one of `FORMATS`; by default what the suffix says.
        facts: plain values that join the file's metadata: source, licence, anything about the training.
        overwrite: replace an existing file.
    """
    path = Path(path)
    format = _format(path, format)
    if path.exists() and not overwrite:
        raise DerainzooError(f"{path} exists; allow overwriting (--overwrite) or choose another name")
    for kind in {"onnx": ("onnx", "export"), "torch_export": ("export",), "safetensors": ()}[format]:
        if reason := model_info(name).limits.get(kind):
            raise DerainzooError(f"{name} cannot be written as {format}: {reason}")

    net = copy.deepcopy(net).float().cpu().eval()
    multiple = model_info(name).multiple_of
    card = {
        "derainzoo": derainzoo.__version__,
        "name": name,
        "arguments": dict(arguments),
        "input": "image: float32 (batch, 3, height, width), RGB in [0, 1]",
        "output": "restored: of the same shape; clamp it to [0, 1]",
        "size": "any height and width" + (f"; padded inside to multiples of {multiple}" if multiple > 1 else ""),
        **({"opset": OPSET} if format == "onnx" else {}),
        **(facts or {}),
    }
    try:
        json.dumps(card)
    except TypeError as error:
        raise DerainzooError(f"{path}: arguments and facts must be plain values (numbers, strings, lists): {error}") from None
    with whole_file(path) as partial, _quiet():
        artefact = _WRITERS[format](net)
        artefact.save(partial, card)
        run = artefact.read(partial)
        card["largest_difference"] = _check_sizes(run, net, multiple, path.name)
        card["smallest_side"] = _smallest_side(run, net, multiple)
        artefact.save(partial, card)
        size = partial.stat().st_size
    return {"path": str(path), "format": format, "bytes": size, **card}


def _format(path: Path, format: str | None) -> str:
    by_suffix = {suffix: known for known, suffix in FORMATS.items()}
    format = format or by_suffix.get(path.suffix)
    if format is None:
        expected = ", ".join(f"{suffix} ({known})" for known, suffix in FORMATS.items())
        raise DerainzooError(f"{path}: the suffix tells no format; give one of {expected}, or say format=...")
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if path.suffix != FORMATS[format]:
        raise DerainzooError(
            f"{path}: a file in format {format} ends in {FORMATS[format]}; give it this suffix or another format"
        )
    return format


def _trace(net: nn.Module) -> tuple[tuple[Tensor], tuple[dict[int, Any]]]:
    """Example image and free dimensions. Two images, as one alone would freeze what sorts or scatters over the batch."""
    auto = torch.export.Dim.AUTO
    return (torch.rand(2, 3, 40, 56),), ({0: auto, 2: auto, 3: auto},)


class _Onnx:
    def __init__(self, net: nn.Module) -> None:
        try:
            import onnxruntime
            import onnxscript  # noqa: F401
        except ModuleNotFoundError as error:
            raise DerainzooError(f"ONNX files need the package '{error.name}': pip install 'derainzoo[onnx]'") from None
        example, free = _trace(net)
        program = torch.onnx.export(
            net,
            example,
            dynamo=True,
            dynamic_shapes=free,
            input_names=["image"],
            output_names=["restored"],
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        for value in (*program.model.graph.inputs, *program.model.graph.outputs):
            assert value.shape is not None
            value.shape[0], value.shape[2], value.shape[3] = "batch", "height", "width"  # instead of s40, s73, s6
        self.program, self.start = program, onnxruntime.InferenceSession

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        self.program.model.metadata_props["derainzoo"] = json.dumps(card)
        self.program.save(path, external_data=False)

    def read(self, path: Path) -> Run:
        session = self.start(path, providers=["CPUExecutionProvider"])
        return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


class _Program:
    def __init__(self, net: nn.Module) -> None:
        example, free = _trace(net)
        self.program = torch.export.export(net, example, dynamic_shapes=free)

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        torch.export.save(self.program, path, extra_files={"derainzoo.json": json.dumps(card)})

    def read(self, path: Path) -> Run:
        return torch.export.load(path).module()


class _Weights:
    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        facts = {k: v for k, v in card.items() if k not in ("derainzoo", "name", "arguments")}
        save_weights(path, self.net, card["name"], card["arguments"], **facts)

    def read(self, path: Path) -> Run:
        return load_model(path)


_WRITERS: dict[str, Callable[[nn.Module], _Onnx | _Program | _Weights]] = {
    "onnx": _Onnx,
    "torch_export": _Program,
    "safetensors": _Weights,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' reports about their own work."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _difference(run: Run, net: nn.Module, batch: int, h: int, w: int) -> float:
    """Largest difference of the two, for values up to 1 absolute, beyond that relative."""
    image = torch.rand(batch, 3, h, w, generator=torch.Generator().manual_seed(h * w))
    with torch.no_grad():
        expected, found = net(image), run(image)
    if found.shape != expected.shape:
        return math.inf
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1)).item()


def _check_sizes(run: Run, net: nn.Module, multiple: int, where: str) -> float:
    """Raise unless the file does what the network does, at three sizes; returns by how much it differs at most."""
    m, largest = max(multiple, 8), 0.0
    for batch, h, w in [(1, 2 * m + 1, 3 * m + 5), (3, 4 * m, 2 * m + 7), (2, 3 * m + 2, 2 * m + 8)]:
        size = f"{batch} x 3 x {h} x {w}"
        try:
            difference = _difference(run, net, batch, h, w)
        except Exception as error:  # runtimes have errors of their own kinds
            raise DerainzooError(f"{where} is not kept, as it refuses {size}: {str(error).strip().splitlines()[0]}") from None
        if not difference <= TOLERANCE:
            raise DerainzooError(
                f"{where} is not kept: at {size} it differs from the network by {difference:.2g}, more than {TOLERANCE:g}"
            )
        largest = max(largest, difference)
    return largest


def _smallest_side(run: Run, net: nn.Module, multiple: int) -> int:
    """torch.export takes a side of one pixel, wherever in the network, for another program, and refuses it later."""
    larger = 2 * max(multiple, 8)
    for side in (1, multiple + 1):
        try:
            if all(_difference(run, net, 1, h, w) <= TOLERANCE for h, w in [(side, side), (side, larger), (larger, side)]):
                return side
        except Exception as error:
            log.debug("a side of %d is refused: %s", side, error)
    return larger + 1


# --- the task ---------------------------------------------------------------------------------------------------------------


def export(cfg: "DictConfig") -> None:
    """Write the network that `weights` hold, and say what was written."""
    name, arguments = chosen_model(cfg)
    weights = cfg.weights or (pretrained.default(name, arguments) if name else None)
    if weights is not None:
        opened = open_weights(weights, name=name, arguments=arguments)
        net, name, arguments, facts = opened.net, opened.name, opened.arguments, origin(weights, opened)
    elif name and cfg.allow_random:
        log.warning("network '%s' has random weights: none were given (weights=PATH)", name)
        torch.manual_seed(cfg.seed)
        net, facts = create_model(name, **arguments), {"source": "random weights", "licence": "none needed"}
    else:
        raise DerainzooError(
            "give a file of weights, as in `derainzoo export best.ckpt net.onnx`, or a name of those that come with derainzoo "
            f"({', '.join(pretrained.shipped()) or 'none'}); or model=... allow_random=true"
        )
    format = cfg.format or (None if cfg.output else "onnx")
    output = cfg.output or name + FORMATS.get(format or "", "")
    report = export_network(net, output, name=name, arguments=arguments, format=format, facts=facts, overwrite=cfg.overwrite)
    size, difference = f"{report['bytes'] / 2**20:.2f} MiB", f"{report['largest_difference']:.1e}"
    print_facts({**report, "bytes": size, "largest_difference": f"{difference} between file and network, at three sizes"})
