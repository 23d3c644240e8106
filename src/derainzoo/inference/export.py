"""A network as a file for use elsewhere: ONNX, a program of `torch.export`, or its weights alone.

A program takes any batch, height and width, whatever it was traced with. Before a file is kept it is read back and must give
what the network gives, at three sizes; it carries its origin and how it is used as a JSON object under `derainzoo`.
"""

import copy
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import derainzoo
from derainzoo.config import chosen_model
from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.files import whole_file
from derainzoo.inference.convert import print_facts
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
        **(facts or {}),
    }
    try:
        json.dumps(card)
    except TypeError as error:
        raise DerainzooError(f"{path}: arguments and facts must be plain values (numbers, strings, lists): {error}") from None
    with whole_file(path) as partial:
        run = _WRITERS[format](net, partial, card)
        difference, smallest = _compare(run, net, multiple, path.name)
        size = partial.stat().st_size
    return {"path": str(path), "format": format, "bytes": size, "difference": difference, "smallest_side": smallest, **card}


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


# Each writer returns what runs the file that it wrote.


def _trace(net: nn.Module) -> tuple[tuple[Tensor], tuple[dict[int, Any]]]:
    """Example image and free dimensions. Two images, as one alone would freeze what sorts or scatters over the batch."""
    auto = torch.export.Dim.AUTO
    return (torch.rand(2, 3, 40, 56),), ({0: auto, 2: auto, 3: auto},)


def _write_onnx(net: nn.Module, path: Path, card: Mapping[str, Any]) -> Run:
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
    program.model.metadata_props["derainzoo"] = json.dumps({**card, "opset": OPSET})
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _write_program(net: nn.Module, path: Path, card: Mapping[str, Any]) -> Run:
    example, free = _trace(net)
    program = torch.export.export(net, example, dynamic_shapes=free)
    torch.export.save(program, path, extra_files={"derainzoo.json": json.dumps(card)})
    return torch.export.load(path).module()


def _write_weights(net: nn.Module, path: Path, card: Mapping[str, Any]) -> Run:
    facts = {k: v for k, v in card.items() if k not in ("derainzoo", "name", "arguments")}
    save_weights(path, net, card["name"], card["arguments"], **facts)
    return load_model(path)


_WRITERS = {"onnx": _write_onnx, "torch_export": _write_program, "safetensors": _write_weights}


def _compare(run: Run, net: nn.Module, multiple: int, where: str) -> tuple[float, int]:
    """Largest difference between file and network at three sizes, and the smallest side of an image that the file takes."""
    m = max(multiple, 8)
    generator = torch.Generator().manual_seed(0)

    def differ(batch: int, h: int, w: int) -> float:
        image = torch.rand(batch, 3, h, w, generator=generator)
        with torch.no_grad():
            expected, found = net(image), run(image)
        if found.shape != expected.shape:
            return float("inf")
        return ((found - expected).abs().max() / expected.abs().max().clamp_min(1)).item()

    largest = 0.0
    for batch, h, w in [(1, 2 * m + 1, 3 * m + 5), (3, 4 * m, 2 * m + 7), (2, 3 * m + 2, 2 * m + 8)]:
        try:
            difference = differ(batch, h, w)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise DerainzooError(f"{where} is not kept: it does not take {batch} x 3 x {h} x {w} ({reason})") from None
        if not difference <= TOLERANCE:
            raise DerainzooError(
                f"{where} is not kept: at {batch} x 3 x {h} x {w} it differs from the network by {difference:.2g}, "
                f"more than {TOLERANCE:g}"
            )
        largest = max(largest, difference)
    # torch.export takes a side of one pixel, at any depth of the network, for another program
    for side in (1, multiple + 1):
        try:
            if max(differ(1, h, w) for h, w in [(side, side), (side, 2 * m), (2 * m, side)]) <= TOLERANCE:
                return largest, side
        except Exception as error:
            log.debug("%s does not take a side of %d: %s", where, side, error)
    return largest, 2 * m + 1


# --- the task ---------------------------------------------------------------------------------------------------------------


def export(cfg: "DictConfig") -> None:
    """Write the network that `weights` hold, and say what was written."""
    name, arguments = chosen_model(cfg)
    if cfg.weights is not None:
        opened = open_weights(cfg.weights, name=name, arguments=arguments)
        net, name, arguments, facts = opened.net, opened.name, opened.arguments, origin(cfg.weights, opened)
    elif name and cfg.allow_random:
        log.warning("network '%s' has random weights: none were given (weights=PATH)", name)
        torch.manual_seed(cfg.seed)
        net, facts = create_model(name, **arguments), {"source": "random weights", "licence": "none needed"}
    else:
        raise DerainzooError(
            "give a file of weights, as in `derainzoo export best.ckpt net.onnx`; or model=... allow_random=true"
        )
    format = cfg.format or (None if cfg.output else "onnx")
    output = cfg.output or name + FORMATS.get(format or "", "")
    report = export_network(net, output, name=name, arguments=arguments, format=format, facts=facts, overwrite=cfg.overwrite)
    report["bytes"] = f"{report['bytes'] / 2**20:.2f} MiB"
    report["difference"] = f"{report['difference']:.1e} from the network, at three sizes"
    print_facts(report)
