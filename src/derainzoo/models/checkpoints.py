"""Weights of any origin -> one of our networks, and our own file format.

A file is read without ever running code from it: `.safetensors`, and `torch.load(weights_only=True)` for the rest. Published
weights are recognised by their keys, the network's arguments are derived from their shapes, and every tensor must be used or be
named as dead: one left over, missing or of another shape is an error that names it, and no network is returned.

Our own format is `.safetensors` whose header says under `derainzoo` how to build the network:

    {"format": 1, "derainzoo": "0.1.0", "name": "restormer", "arguments": {"dim": 48}, "licence": ..., "source": ..., ...}
"""

import hashlib
import importlib
import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import derainzoo
from derainzoo.errors import DerainzooError, closest, unknown_name
from derainzoo.files import whole_file
from derainzoo.models.pretrained import default, locate, shipped
from derainzoo.models.registry import create_model, list_models, model_arguments, model_info

Shapes = Mapping[str, tuple[int, ...]]
State = dict[str, Tensor]

FORMAT = 1
_CARD = "derainzoo"  # the entry of a file's metadata that makes it one of ours

# Where training codes put a state dict inside a checkpoint; averaged weights come first, as they are the ones meant for use.
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "generator")
# What wrappers prepend to every key: DataParallel, torch.compile, GAN and Lightning modules.
_PREFIXES = ("module.", "_orig_mod.", "netG.", "net.", "generator.", "model.")

_TRUST = (
    "Nothing was run. If you trust the file, open it once where it was written and keep the tensors alone: "
    "torch.save(torch.load(path, weights_only=False)['state_dict'], 'tensors.pth'), with the entry that it has."
)


# --- how published weights map onto a network -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Official:
    """How the published state dict of one system maps onto our network. Stands at the end of that network's file."""

    signature: tuple[str, ...]
    """Keys that are all present in the system's files and not all in any other's."""
    infer: Callable[[Shapes], tuple[str, dict[str, object]]]
    """Shapes -> name of a registered network and its arguments."""
    rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    """Substitutions (regular expression, replacement as in `re.sub`), all applied in order to every key."""
    dead: tuple[str, ...] = ()
    """Regular expressions of published keys that may be left over because nothing ever reads them."""

    def rename(self, key: str) -> str:
        """The key in our network."""
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key

    def translate(self, state: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> tuple[State, list[str]]:
        """Rename a whole state dict against our network's own; returns it and the dead keys.

        Where one tensor was published under several keys the last one counts, as it does when such a file is loaded.
        """
        renamed: State = {}
        dead: list[str] = []
        for key, tensor in state.items():
            ours = self.rename(key)
            if ours in known:
                renamed[ours] = tensor
            elif any(re.search(pattern, key) for pattern in self.dead):
                dead.append(key)
            else:
                renamed[ours] = tensor  # left for the strict comparison to name
        return renamed, dead


def shortest_expansion(widths: Mapping[int, int]) -> float:
    """The decimal of fewest digits that rounds down to all these feed-forward widths, block width -> feed-forward width."""
    lowest = max(hidden / width for width, hidden in widths.items())
    for digits in range(1, 7):
        expansion = math.ceil(lowest * 10**digits) / 10**digits
        if all(int(width * expansion) == hidden for width, hidden in widths.items()):
            return expansion
    raise DerainzooError(f"no common expansion explains the feed-forward widths {widths} (block width: feed-forward width)")


def officials() -> dict[str, Official]:
    """System -> its `OFFICIAL`, for every registered system that has one."""
    modules = {model_info(name).system: model_info(name).module for name in list_models()}
    found = {system: getattr(importlib.import_module(module), "OFFICIAL", None) for system, module in modules.items()}
    return {system: official for system, official in found.items() if official is not None}


# --- reading ----------------------------------------------------------------------------------------------------------------


def read_weights(path: str | Path) -> tuple[State, dict[str, Any]]:
    """The tensors of a file and what its header says; the file's content decides the format, not its suffix.

    Wrappers around the state dict are taken off, and what is not a tensor is left behind. If the file is one of ours, the
    metadata have an entry `derainzoo` with at least `name` and `arguments`. The name of weights that come with the package
    (`models.pretrained`) stands for their file.
    """
    path = locate(path)
    if not path.is_file():
        known = closest(str(path), shipped())
        guess = f"; did you mean the weights {' or '.join(known)}?" if known else ""
        raise DerainzooError(f"{path}: a file of weights expected, found {'a folder' if path.is_dir() else 'nothing'}{guess}")
    with path.open("rb") as file:
        head = file.read(256)
    if head[5:9] == b"\0\0\0{":  # the length of a JSON header in 8 bytes, then the header
        return _read_safetensors(path)
    if head.startswith((b"PK", b"\x80")):
        return _read_pickle(path)
    raise DerainzooError(
        f"{path}: no file of weights (.safetensors, .pth, .pt, .ckpt expected): {_what_instead(head)}; fetch it again"
    )


def _what_instead(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file that it points to (git lfs pull)"
    if head.lstrip()[:1] == b"<":
        return "it is a web page, as a failed download leaves behind"
    return f"it begins with {head[:24]!r}"


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = dict(file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except SafetensorError as error:
        raise DerainzooError(f"{path}: damaged or incomplete .safetensors file ({error}); fetch or write it again") from None
    if _CARD not in metadata:
        return _unwrap(state, str(path)), metadata
    try:
        card = json.loads(metadata[_CARD])
        version, _, _ = card["format"], card["name"], card["arguments"]
    except (ValueError, TypeError, KeyError):
        raise DerainzooError(f"{path}: its header's entry '{_CARD}' is not what derainzoo writes; convert it again") from None
    if version != FORMAT:
        raise DerainzooError(f"{path}: written in format {version}, this derainzoo reads format {FORMAT}; update derainzoo")
    return state, {**metadata, _CARD: card}


def _read_pickle(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        # only the zip format of torch >= 1.6 can be mapped instead of read
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # damaged files raise nearly anything, from EOFError to UnicodeDecodeError
        raise _unreadable(path, error) from None
    if not isinstance(loaded, Mapping):
        raise DerainzooError(f"{path}: a state dict or a checkpoint around one expected, found a {type(loaded).__name__}")

    metadata: dict[str, Any] = {}
    hyper = loaded.get("hyper_parameters")
    model = hyper.get("model") if isinstance(hyper, Mapping) else None
    if isinstance(model, Mapping) and {"name", "arguments"} <= model.keys():
        metadata[_CARD] = {"format": FORMAT, "name": model["name"], "arguments": dict(model["arguments"] or {})}
    return _unwrap(loaded, str(path)), metadata


def _unreadable(path: Path, error: Exception) -> DerainzooError:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and (code := re.search(r"GLOBAL ([\w.]+)", text)):
        return DerainzooError(f"{path}: refused, because reading '{code[1]}' from it would mean to run code. {_TRUST}")
    if "TorchScript" in text:
        return DerainzooError(f"{path}: refused, because it is a TorchScript program, not a state dict. {_TRUST}")
    detail = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    reason = detail[1] if detail else text.partition("\n")[0][:120]
    return DerainzooError(
        f"{path}: not what torch.save writes, or damaged or cut off ({type(error).__name__}: {reason}); fetch or write it again"
    )


def _unwrap(loaded: Mapping[Any, Any], where: str) -> State:
    """The state dict inside nested checkpoint dictionaries, without what is no tensor and without common prefixes."""
    top, lightning = list(loaded), "pytorch-lightning_version" in loaded
    while inner := next((loaded[w] for w in _WRAPPERS if isinstance(loaded.get(w), Mapping) and loaded[w]), None):
        loaded = inner
    state = {k: v for k, v in loaded.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if lightning:  # the module holds the network as `net`, beside losses and metrics that may have tensors of their own
        state = {k: v for k, v in state.items() if k.startswith("net.")} or state
    if not state:
        raise DerainzooError(f"{where}: no tensors found; a state dict expected, found {_few(map(repr, top)) or 'nothing'}")
    return _strip(state)


def _strip(state: State) -> State:
    """Take off prefixes that all keys share, however many."""
    while state and (prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None)):
        state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


# --- recognising ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A file of weights, opened."""

    net: nn.Module
    """In evaluation mode, on the CPU."""
    name: str
    arguments: dict[str, Any]
    facts: dict[str, Any]
    """What else one of our own files says: licence, source, training facts."""
    published: bool
    """Read by a system's published names; if not, the weights come from derainzoo."""
    unused: tuple[str, ...]
    """Published tensors that nothing reads."""


def recognise(
    state: Mapping[str, Tensor], where: str = "these weights", system: str | None = None
) -> tuple[str, str, dict[str, Any]]:
    """System, name and arguments of the network whose published weights these are.

    Args:
        state: an unwrapped state dict, as `read_weights` gives it.
        where: what errors call it.
        system: the only system to consider.
    """
    candidates = {s: official for s, official in officials().items() if system in (None, s)}
    found = {s: official for s, official in candidates.items() if all(key in state for key in official.signature)}
    if not found:
        raise _unrecognised(state, where, candidates)
    if len(found) > 1:
        raise DerainzooError(f"{where}: could be weights of {' or '.join(found)}; say which by load_model(name, weights=...)")
    ((system, official),) = found.items()
    try:
        name, arguments = official.infer({key: tuple(tensor.shape) for key, tensor in state.items()})
    except DerainzooError as error:
        raise DerainzooError(f"{where}: {error}") from None
    except (KeyError, IndexError, ValueError) as error:  # a key or an axis that every complete file of the system has
        raise DerainzooError(
            f"{where}: looks like {system}, but its shapes do not tell the network's arguments "
            f"({type(error).__name__}: {error}); is the file complete?"
        ) from None
    return system, name, arguments


def _unrecognised(state: Mapping[str, Tensor], where: str, candidates: Mapping[str, Official]) -> DerainzooError:
    """Says which systems come closest and where they part from the file."""
    reports: list[tuple[float, str]] = []
    for system, official in candidates.items():
        known = _layout(next(n for n in list_models() if model_info(n).system == system), {}, where)
        if state.keys() <= known.keys():
            return DerainzooError(
                f"{where}: has derainzoo's own names of {system}, but does not say which network it is for; "
                "say it by load_model(name, weights=..., arguments=...)"
            )
        strange = [key for key in state if official.rename(key) not in known]
        lacking = [key for key in official.signature if key not in state]
        share = 1 - len(strange) / len(state)
        text = f"{system}: {int(100 * share)}% of the names fit; the file lacks {_few(lacking)}"
        reports.append((share, text + (f"; {system} does not know {_few(strange)}" if strange else "")))
    close = "".join(f"\n  {text}" for share, text in sorted(reports, reverse=True)[:3] if share > 0)
    return DerainzooError(
        f"{where}: {len(state)} tensors that are no known system's published weights. First keys: {_few(state)}."
        + (f" Closest:{close}" if close else f" No name fits {' or '.join(candidates) or 'ours'}.")
    )


def _create(name: str, arguments: Mapping[str, Any], where: str) -> nn.Module:
    try:
        return create_model(name, **arguments)
    except DerainzooError as error:
        raise DerainzooError(f"{where}: {error}") from None


def _layout(name: str, arguments: Mapping[str, Any], where: str) -> State:
    """Our network's state dict without memory behind it."""
    with torch.device("meta"):
        return _create(name, arguments, where).state_dict()


def _few(items: Iterable[str], count: int = 3) -> str:
    items = list(items)
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")


def _compare(state: Mapping[str, Tensor], known: Mapping[str, Tensor], where: str) -> None:
    """Raise unless the two have the same keys and shapes."""

    def shape(tensor: Tensor) -> str:
        return "x".join(map(str, tensor.shape)) or "a scalar"

    problems = [f"{k}: expected {shape(known[k])}, found none" for k in known if k not in state]
    problems += [f"{k}: expected none, found {shape(state[k])}" for k in state if k not in known]
    problems += [
        f"{k}: expected {shape(known[k])}, found {shape(state[k])}"
        for k in known
        if k in state and known[k].shape != state[k].shape
    ]
    if problems:
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise DerainzooError(f"{where}: tensors that do not fit: {len(problems)}\n  " + "\n  ".join(problems[:8]) + more)


def _build(name: str, arguments: dict[str, Any], state: Mapping[str, Tensor], where: str) -> nn.Module:
    net = _create(name, arguments, where)
    _compare(state, net.state_dict(), f"{where} as {name}({', '.join(f'{k}={v}' for k, v in arguments.items())})")
    net.load_state_dict(state)  # copies, so that half-precision files end in float32
    return net.eval()


def _open(
    state: State, metadata: Mapping[str, Any], where: str, arguments: Mapping[str, Any] | None, name: str | None = None
) -> Opened:
    """The network that a file holds; with a `name` it must be that one."""
    arguments, facts, unused = dict(arguments or {}), {}, list[str]()
    card, published = metadata.get(_CARD), False
    if card:
        found, arguments = card["name"], {**card["arguments"], **arguments}
        facts = {k: v for k, v in card.items() if k not in ("format", "derainzoo", "name", "arguments")}
    elif name and 2 * len(state.keys() & _layout(name, arguments, where).keys()) > len(state):
        found = name  # a bare state dict of our own
    else:
        published = True
        system, found, inferred = recognise(state, where, model_info(name).system if name else None)
        if name:  # may say what shapes do not tell; what they do is compared below
            found, inferred = name, {k: v for k, v in inferred.items() if k in model_arguments(name)}
        arguments = {**inferred, **arguments}
        state, unused = officials()[system].translate(state, _layout(found, arguments, where))
    if name not in (None, found):
        raise DerainzooError(f"{where}: holds a network '{found}', not '{name}'; load it under its own name or without one")
    return Opened(_build(found, arguments, state, where), found, arguments, facts, published, tuple(unused))


def open_weights(path: str | Path, *, name: str | None = None, arguments: Mapping[str, Any] | None = None) -> Opened:
    """Open a file of any kind that `load_model` takes, and say what it holds; with a `name` it must be that network."""
    state, metadata = read_weights(path)
    return _open(state, metadata, str(path), arguments, name)


def from_official(source: str | Path | Mapping[str, Any], *, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """The network whose published weights these are, in evaluation mode.

    Args:
        source: a file, or a state dict (or a checkpoint around one) that is already in memory.
        arguments: what the shapes of weights do not tell, such as PReNet's number of iterations; they override what they do.
    """
    if not isinstance(source, Mapping):
        return open_weights(source, arguments=arguments).net
    where = "the given state dict"
    return _open(_unwrap(source, where), {}, where, arguments).net


def load_model(
    name_or_path: str | Path,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    *,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network ready for use, in evaluation mode.

        load_model("dry.safetensors")                       our own file, a checkpoint of our training, or published weights
        load_model("elf_lw.rain100l")                       weights that come with the package, `list_models(pretrained=True)`
        load_model("restormer", weights="dry.safetensors")  the same, and it must be this network
        load_model("restormer")                             the weights that come with it; if there are none, random ones, and
                                                            a warning that they are

    Args:
        name_or_path: a registered name, a name of weights, or a file.
        weights: the file that goes with a name; here a bare state dict of `create_model(name, **arguments)` will do, too.
        device: where the network shall be.
        arguments: of the network; they override what the file says or its shapes tell.
    """
    name = str(name_or_path)
    if name in list_models():
        weights = weights or default(name, arguments)
        if weights is None:
            warnings.warn(f"network '{name}' has random weights: none were given (weights=PATH)", stacklevel=2)
            return create_model(name, **(arguments or {})).eval().to(device)
        return open_weights(weights, name=name, arguments=arguments).net.to(device)
    if weights is not None or not locate(name).exists():
        raise unknown_name("network", name, [*list_models(), *shipped()], "Nor is there a file of this name.")
    return open_weights(name, arguments=arguments).net.to(device)


# --- writing ----------------------------------------------------------------------------------------------------------------


def save_weights(
    path: str | Path, net: nn.Module, name: str, arguments: Mapping[str, Any], *, half: bool = False, **facts: Any
) -> None:
    """Write our own format: `load_model(path)` builds `create_model(name, **arguments)` and fills it.

    `facts` join the header and must be plain values: `licence`, `source`, anything about the training. The file appears whole
    or not at all. A network that `name` and `arguments` do not describe is refused. `half` stores 16 bits a number.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DerainzooError(f"{path}: weights are written as .safetensors; give the file this suffix")
    state = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in _strip(net.state_dict()).items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    _compare(state, _layout(name, arguments, str(path)), f"{path}: not written, as the network is no {name} of these arguments")
    card = {"format": FORMAT, "derainzoo": derainzoo.__version__, "name": name, "arguments": dict(arguments)}
    try:
        header = json.dumps({**card, **facts, **card})  # the card stands first and facts cannot change it
    except TypeError as error:
        raise DerainzooError(f"{path}: arguments and facts must be plain values (numbers, strings, lists): {error}") from None
    with whole_file(path) as partial:
        # not by save_file, which makes files that only their owner can read
        partial.write_bytes(save(state, metadata={"format": "pt", _CARD: header}))


def origin(source: str | Path, opened: Opened) -> dict[str, Any]:
    """Where opened weights come from and under which licence; what one of our own files already says about it stays."""
    with locate(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    code_licence = f" (authors' code: {model_info(opened.name).paper.code_licence or 'not stated'})"
    return {
        "source": Path(source).name,
        "source_sha256": digest,
        "licence": f"not stated{code_licence if opened.published else ''}",
        **opened.facts,
    }


def convert(
    source: str | Path,
    target: str | Path,
    *,
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    licence: str | None = None,
    note: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Turn a file of weights of any origin into one of ours; returns what there is to say about it.

    Args:
        source: whatever `load_model` reads.
        target: the `.safetensors` to write.
        name: of the network, where `source` does not tell it.
        arguments: of the network, where `source` does not tell them.
        licence: of the weights. Unless given, the header says that it is not stated, and for published weights the licence of
            the authors' code.
        note: anything that belongs in the header.
        overwrite: replace an existing `target`.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not overwrite:
        raise DerainzooError(f"{target} exists; allow overwriting or choose another name")
    opened = open_weights(source, name=name, arguments=arguments)
    facts = {**origin(source, opened), **({"licence": licence} if licence else {}), **({"note": note} if note else {})}
    save_weights(target, opened.net, opened.name, opened.arguments, **facts)
    return {
        "target": str(target),
        "system": model_info(opened.name).system,
        "name": opened.name,
        "arguments": opened.arguments,
        "published": opened.published,
        "tensors": len(opened.net.state_dict()),
        "parameters": sum(p.numel() for p in opened.net.parameters()),
        "unused": list(opened.unused),
        **facts,
    }
