"""Who takes part in a benchmark and on what: networks with their weights, and test sets with their revision.

Both are known by what they hold. A network's digest covers its name, arguments and tensors, so that a checkpoint and the
.safetensors file made from it are the same network; a set's revision covers every file that is measured.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from derainzoo.config import plain
from derainzoo.data.catalog import dataset_info, known_overlaps
from derainzoo.data.datamodule import DerainDataModule, make_data
from derainzoo.data.pairs import RainSource, Source
from derainzoo.errors import DerainzooError
from derainzoo.models.checkpoints import Opened, open_weights
from derainzoo.models.pretrained import default, shipped
from derainzoo.models.registry import create_model, model_info

log = logging.getLogger(__name__)

_BEST = "checkpoints/best.ckpt"
_OPTIONS = {"set", "root", "shows"}


@dataclass(frozen=True)
class Training:
    """What is known about how weights came to be. `sets` is None where nobody said, and empty for random weights."""

    sets: tuple[str, ...] | None = None
    budget: str = ""
    """Steps, batch and patch, for people to read."""
    division: tuple[Any, ...] = ()
    """What decides which pictures the run held out."""
    seen: Mapping[str, str] = field(default_factory=dict)
    """Splits of which scenes came into training by another way, and how many: `rain200h/test` -> `119 of the 200 scenes`."""


@dataclass(frozen=True)
class Contestant:
    """A network with weights."""

    label: str
    opened: Opened
    file: Path | None
    """None: random weights."""
    digest: str
    training: Training

    @property
    def network(self) -> str:
        """Its name in the zoo."""
        return self.opened.name


def digest(name: str, arguments: Mapping[str, Any], net: nn.Module) -> str:
    """A hash of a network with its weights, wherever they are stored and in which format."""
    found = hashlib.sha256(json.dumps([name, arguments], sort_keys=True).encode())
    for key, tensor in sorted(net.state_dict().items()):
        found.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


# ---------------------------------------------------------------------------------------------------------------- networks


def contestants(cfg: DictConfig) -> list[Contestant]:
    """Those of `weights`, then those of `models` that have none there but come with weights, with distinct labels."""
    taking_part = [_open(label, file, cfg) for label, file in _files(plain(cfg.weights))]
    for name in plain(cfg.models) or []:
        model_info(name)  # a name that does not exist is said first
        if any(name in (c.label, c.network) for c in taking_part):
            continue
        if ours := default(name):
            taking_part.append(_open(ours, Path(ours), cfg))
            continue
        if not cfg.allow_random:
            raise DerainzooError(
                f"benchmark: no weights for {name}. Give a file by weights={{{name}: FILE}}: a checkpoint (`derainzoo train "
                f"model={name}` makes one, checkpoints/best.ckpt in the folder of its run), a .safetensors file, or the file "
                "that its authors published. To try out the command without any: allow_random=true."
            )
        taking_part.append(_random(name, cfg.seed))
    if not taking_part:
        raise DerainzooError(
            "benchmark needs networks: weights=[FILE, ...], weights={label: FILE} or weights='runs/train/*'; "
            "or models=[elf,mhnet] allow_random=true to try it out"
        )
    return _distinct(taking_part)


def _files(weights: Any) -> Iterator[tuple[str | None, Path]]:
    if weights is None:
        return
    entries: Iterable[tuple[str | None, str]]
    if isinstance(weights, Mapping):
        entries = weights.items()
    else:
        entries = ((None, w) for w in ([weights] if isinstance(weights, str) else weights))
    for label, text in entries:
        paths = sorted(map(Path, glob(text))) if glob(text) else [Path(text)]
        files = [file for path in paths for file in (_finished(path) if path.is_dir() else [path])]
        if not files:
            raise DerainzooError(f"weights: no finished run in {text} (a run that is finished has {_BEST} and result.json)")
        if label and len(files) > 1:
            raise DerainzooError(
                f"weights: {label} must be one file, {text} stands for {len(files)}, the first being {files[0]}"
            )
        yield from ((label, file) for file in files)


def _finished(folder: Path) -> list[Path]:
    """The best checkpoint of every finished run at or below a folder."""
    found = []
    for file in sorted(folder.rglob(_BEST)):
        if (file.parents[1] / "result.json").exists():
            found.append(file)
        else:
            log.warning("not finished, left out: %s", file.parents[1])
    return found


def _open(label: str | None, file: Path, cfg: DictConfig) -> Contestant:
    opened = open_weights(file)
    run = _run_of(file)
    if label is None:
        generic = file.stem in {"best", "last"}
        whole = str(file) in shipped()  # a name of weights that come with the package has a dot, but no suffix
        label = str(file) if whole else str(run.name) if run and generic else opened.name if generic else file.stem
    training = _training(run, opened)
    if said := (plain(cfg.trained_on) or {}).get(label):
        training = replace(training, sets=tuple([said] if isinstance(said, str) else said))
    return Contestant(label, opened, file, digest(opened.name, opened.arguments, opened.net), training)


def _random(name: str, seed: int) -> Contestant:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = create_model(name).eval()
    arguments = dict(model_info(name).arguments)
    log.warning("%s has random weights: its numbers mean nothing", name)
    opened = Opened(net, name, arguments, {}, published=False, unused=())
    return Contestant(f"{name} (random)", opened, None, digest(name, arguments, net), Training(sets=()))


def _run_of(file: Path) -> DictConfig | None:
    """The configuration of the run that wrote a checkpoint, if it still lies in the run's folder."""
    config = file.resolve().parents[1] / ".hydra" / "config.yaml"
    if file.parent.name != "checkpoints" or not config.exists():
        return None
    loaded = OmegaConf.load(config)
    return loaded if isinstance(loaded, DictConfig) else None


def _training(run: DictConfig | None, opened: Opened) -> Training:
    if run is None:
        said = opened.facts.get("trained_on")
        return Training(
            tuple([said] if isinstance(said, str) else said) if said else None,
            division=tuple(opened.facts.get("division", ())),
            seen=opened.facts.get("seen", {}),
        )
    data = run.data
    steps = f"{run.trainer.max_steps:,} steps" if run.trainer.max_epochs is None else f"{run.trainer.max_epochs:,} epochs"
    budget = f"{steps} of {data.batch_size} patches of {data.patch_size} x {data.patch_size}"
    return Training((f"{data.name}/{data.train}",), budget, (run.seed, data.val_images, data.val))


def _distinct(taking_part: Sequence[Contestant]) -> list[Contestant]:
    """The same weights under the same label once; different ones under the same label get a part of their hash."""
    unique = list({(c.label, c.digest): c for c in taking_part}.values())
    labels = [c.label for c in unique]
    return [
        c if labels.count(c.label) == 1 else Contestant(f"{c.label} {c.digest[:6]}", c.opened, c.file, c.digest, c.training)
        for c in unique
    ]


# -------------------------------------------------------------------------------------------------------------------- sets


@dataclass(frozen=True)
class BenchmarkSet:
    """A test set, found."""

    label: str
    split: str
    """`set/split` in the catalog, by which its scenes are known; empty for a user's own pictures."""
    data: DerainDataModule = field(repr=False)
    revision: str
    held_out: tuple[Any, ...] = ()
    """For pictures that training holds out: what decides which these are."""

    @property
    def images(self) -> int:
        """How many pictures it has."""
        return len(next(iter(self.data.tests.values())).names)


def find_sets(cfg: DictConfig) -> list[BenchmarkSet]:
    """Every set that is asked for; one that is absent is an error before anything is measured."""
    asked = plain(cfg.sets) or ["synthetic"]
    entries = (
        asked if isinstance(asked, dict) else {name: {"set": name} for name in ([asked] if isinstance(asked, str) else asked)}
    )
    return [_find_set(label, {"set": e} if isinstance(e, str) else e, cfg) for label, e in entries.items()]


def _find_set(label: str, entry: Mapping[str, str], cfg: DictConfig) -> BenchmarkSet:
    if unknown := entry.keys() - _OPTIONS:
        raise DerainzooError(f"sets: {label} may say {', '.join(sorted(_OPTIONS))}; found {', '.join(sorted(unknown))}")
    name, _, split = entry.get("set", "folder").partition("/")
    split = split or "test"
    synthetic = name == "synthetic"
    own = deepcopy(cfg)
    own.data.name = name if synthetic else dataset_info(name).name
    own.data.root = entry.get("root")
    own.data.test = [split]
    data = make_data(own)
    held_out: tuple[Any, ...] = ()
    if split == "val" and (synthetic or "val" not in dataset_info(name).splits):
        data.choose_tests("val")
        held_out = (cfg.seed, cfg.data.val_images, cfg.data.val)
    data.setup("test")
    revision = hashlib.sha256(json.dumps([name, split, held_out and list(held_out)]).encode())
    for source in data.tests.values():
        _add_files(revision, source, cfg)
    shows = entry.get("shows") or ("" if name == "folder" else f"{own.data.name}/{'train' if held_out else split}")
    if shows and not synthetic:
        known_overlaps(shows)  # a set that does not exist is said here
    return BenchmarkSet(label, shows, data, revision.hexdigest(), held_out)


def _add_files(digest: Any, source: Source, cfg: DictConfig) -> None:
    """Names and bytes of all that is measured."""
    if isinstance(source, RainSource):
        # the pictures of the first one stand for the code that draws rain
        rainy, _ = source.read(0, None, np.random.default_rng((cfg.seed, 0)))
        digest.update(json.dumps([cfg.data.rain, cfg.seed]).encode() + rainy.tobytes())
    seen: dict[Path, bytes] = {}
    for name, path in source.files():
        if path not in seen:
            with path.open("rb") as file:
                seen[path] = hashlib.file_digest(file, "sha256").digest()
        digest.update(name.encode(errors="surrogateescape") + b"\0" + seen[path])


# ---------------------------------------------------------------------------------------------------------- known scenes


def warnings_about(contestant: Contestant, test: BenchmarkSet) -> list[str]:
    """Why a network's number on a set deserves less trust: it may have seen the scenes."""
    training = contestant.training
    found = [f"seen in training: {training.seen[test.split]}"] if test.split in training.seen else []
    for split in training.sets or ():
        if test.held_out:
            if split == test.split and training.division != test.held_out:
                how = f"{split} was divided in another way" if training.division else f"how {split} was divided is not known"
                found.append(f"{how} (seed, val_images): these pictures may have been trained on")
        elif split == test.split:
            found.append(f"trained on {split} itself")
        if test.split and not test.split.startswith("synthetic") and not split.startswith("synthetic"):
            found += [f"{split}: {overlap.what}" for overlap in known_overlaps(split, test.split) if split != test.split]
    return found
