"""What the configuration must be, checked before anything heavy is imported.

Hydra says where a key is wrong; this module also says what was meant, finds values of the wrong kind by comparing them with the
defaults (the yaml files are the only schema), and the contradictions that a run would meet only after minutes.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from derainzoo.errors import DerainzooError, closest, unknown_name
from derainzoo.files import config_dir
from derainzoo.models.registry import list_models, model_info

# what may differ between two runs that continue one another or count as the same job of a sweep
_INCIDENTAL = (
    "paths",
    "name",
    "resume",
    "logger",
    "callbacks.checkpoint_every",
    "callbacks.pictures",
    "callbacks.progress",
    "data.cache",
    "data.num_workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.accumulate_grad_batches",
    "trainer.log_every_n_steps",
    "trainer.max_time",
    "trainer.deterministic",
    "trainer.benchmark",
    "search.compare",
    "search.retrain",
)


def register() -> None:
    """Make known to Hydra what stands in no yaml file: networks of other packages, and our resolvers."""
    for name in list_models():
        if (Path(config_dir()) / "model" / f"{name}.yaml").exists():
            continue
        ConfigStore.instance().store(group="model", name=name, node={"name": name, **model_info(name).arguments})
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def job_folder(overrides: str) -> str:
    """The overrides of a sweep's job as a name that every file system takes."""
    name = re.sub(r"[^\w=.,+-]", "_", overrides) or "default"
    return name if len(name) <= 120 else f"{name[:100]}-{hashlib.sha256(overrides.encode()).hexdigest()[:12]}"


def plain(node: Any) -> Any:
    """A part of the configuration as dictionaries and lists, as checkpoints keep it."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def fingerprint(cfg: DictConfig) -> str:
    """A short hash of everything that decides a run's result."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    if (genotype := plain.get("genotype")) and Path(genotype).is_file():
        plain["genotype"] = hashlib.sha256(Path(genotype).read_bytes()).hexdigest()  # wherever the file lies
    for path in _INCIDENTAL:
        *parents, last = path.split(".")
        node = plain
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def chosen_model(cfg: DictConfig) -> tuple[str | None, dict[str, Any]]:
    """Name of the network and those of its arguments that were said, for tasks whose weights usually tell both.

    Such tasks have no model unless one is chosen; the usual arguments come with the choice, and a file may know others.
    """
    if not cfg.get("model"):
        return None, {}
    usual = model_info(cfg.model.name).arguments
    said: Any = OmegaConf.to_container(cfg.model, resolve=True)
    return said.pop("name"), {k: v for k, v in said.items() if cfg.model[k] != usual[k]}  # ListConfig equals list and tuple


def check(words: Sequence[str]) -> None:
    """Compose the configuration (for a sweep: with every value of every swept key) and raise what is wrong with it."""
    overrides = [w for w in words if not w.startswith("-")]
    if overrides != list(words) and not {"-m", "--multirun"} >= {w for w in words if w.startswith("-")}:
        return  # --cfg, --info, --config-dir and the like: Hydra answers itself, and has other places to look in
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise DerainzooError(f"cannot read '{error.override}': {str(error).splitlines()[0]}") from None
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for job in _jobs(parsed):
            _check_job(job)


def continued(words: Sequence[str]) -> list[str]:
    """For `resume=auto`: the words that make Hydra use the folder of the newest unfinished run of these settings.

    A run goes on in its own folder, because that is where its best checkpoint so far, its logs and its pictures are.
    """
    overrides = [w for w in words if not w.startswith("-")]
    if "resume=auto" not in words or len(overrides) < len(words) or any(w.startswith("hydra.run.dir=") for w in words):
        return []
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=overrides, return_hydra_config=True)
    runs = Path(cfg.hydra.run.dir).parent
    with open_dict(cfg):
        cfg.pop("hydra")
    for folder in sorted(runs.iterdir(), reverse=True) if runs.is_dir() else []:
        config = folder / ".hydra" / "config.yaml"
        if (folder / "checkpoints" / "last.ckpt").exists() and config.exists() and not (folder / "result.json").exists():
            if fingerprint(OmegaConf.load(config)) == fingerprint(cfg):  # type: ignore[arg-type]
                return [f"hydra.run.dir='{folder}'"]
            print(f"not continued, other settings: {folder}", file=sys.stderr)
    return []


def _jobs(overrides: list[Override]) -> Iterator[list[str]]:
    """One job for every value of every swept key, the other swept keys at their first value."""
    first: list[str] = []
    others: list[tuple[int, str]] = []
    for position, override in enumerate(overrides):
        if override.is_sweep_override() and not override.is_hydra_override():
            values = [f"{override.key_or_group}={v}" for v in override.sweep_string_iterator()]  # type: ignore[no-untyped-call]
            first.append(values[0])
            others += [(position, v) for v in values[1:]]
        else:
            first.append(override.input_line or "")
    yield first
    for position, value in others:
        yield [*first[:position], value, *first[position + 1 :]]


def _check_job(overrides: list[str]) -> None:
    try:
        cfg = compose("config", overrides=overrides)
    except MissingConfigException as error:
        raise _missing_option(error) from None
    except ConfigCompositionException as error:
        raise _bad_key(error, overrides) from None
    except OmegaConfBaseException as error:
        raise DerainzooError(str(error).splitlines()[0]) from None
    _check_kinds(cfg, overrides)
    check_sense(cfg)


def _missing_option(error: MissingConfigException) -> DerainzooError:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if option.startswith("submitit"):
        return DerainzooError("Slurm needs Hydra's submitit launcher: pip install 'derainzoo[slurm]'")
    return (
        unknown_name(group, option, set(error.options or []) - {"base"}, f"See conf/{group}/.")
        if group
        else DerainzooError(str(error))
    )


def _bad_key(error: ConfigCompositionException, overrides: list[str]) -> DerainzooError:
    message = str(error)
    found = re.search(r"Could not (?:override|delete|append to config\. An item is already at|append) '([^']+)'", message)
    if not found:
        return DerainzooError(message)
    key = found[1]
    others = [o for o in overrides if o.lstrip("+~").split("=")[0] != key]
    cfg = compose("config", overrides=others)
    known = sorted(_leaves(cfg)) + sorted(str(k) for k in cfg)
    parent = key.rpartition(".")[0]
    siblings = sorted(str(k) for k in (OmegaConf.select(cfg, parent) or {})) if parent else sorted(str(k) for k in cfg)
    last = key.rpartition(".")[2]
    near = [f"{parent}.{c}" if parent else c for c in closest(last, siblings)]
    near += [k for k in known if k.rpartition(".")[2] == last and k not in near] or [
        k for k in closest(key, known) if k not in near
    ]
    guess = f" Did you mean {' or '.join(near[:3])}?" if near else ""
    inside = f" '{parent}' has: {', '.join(siblings)}." if parent and siblings else ""
    return DerainzooError(f"there is no setting '{key}'.{guess}{inside} (`+{key}=...` adds a new one.)")


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(node, DictConfig):
        return
    for key in node:
        path = f"{prefix}{key!s}"
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from _leaves(child, path + ".")
        else:
            yield path


def _check_kinds(cfg: DictConfig, overrides: list[str]) -> None:
    """Compare every overridden value with the default in its place: the yaml files say what kind of thing a key holds."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    groups, values = [], []
    for text, override in zip(overrides, parsed, strict=True):
        plain = not (override.is_add() or override.is_delete() or override.is_hydra_override())
        is_value = plain and "/" not in override.key_or_group and OmegaConf.select(cfg, override.key_or_group) is not None
        is_value = is_value and not OmegaConf.is_dict(OmegaConf.select(cfg, override.key_or_group))
        is_value = is_value and override.key_or_group != "task"  # a group, whose name is a key as well
        values.append(override.key_or_group) if is_value else groups.append(text)
    if not values:
        return
    defaults = compose("config", overrides=groups)
    for key in values:
        default = OmegaConf.select(defaults, key, throw_on_resolution_failure=False)  # None where a value is mandatory
        found = OmegaConf.select(cfg, key)
        if expected := _mismatch(default, found):
            raise DerainzooError(f"{key} must be {expected} such as {_show(default)} (the default), not {_show(found)}.")


def _mismatch(default: Any, found: Any) -> str | None:
    """What kind was expected, if `found` is of another; null is allowed wherever the default may be null."""
    if default is None or found is None:
        return None
    if isinstance(default, bool):
        return None if isinstance(found, bool) else "true or false"
    if isinstance(default, int):
        return None if (isinstance(found, int) and not isinstance(found, bool)) or found == "auto" else "a whole number"
    if isinstance(default, float):
        return None if isinstance(found, int | float) and not isinstance(found, bool) else "a number"
    if isinstance(default, str):
        return None if not isinstance(found, DictConfig | bool) else "a word"
    if isinstance(default, ListConfig):
        return None if isinstance(found, ListConfig) else "a list"
    return None


def _show(value: Any) -> str:
    return json.dumps(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)


def check_sense(cfg: DictConfig) -> None:
    """What is missing, and contradictions between settings that are each fine alone."""
    if missing := [str(key) for key in cfg if OmegaConf.is_missing(cfg, key)]:
        raise DerainzooError(f"`derainzoo {cfg.task}` needs {' and '.join(missing)}; see `derainzoo {cfg.task} --help`.")
    if cfg.task in {"train", "search", "evaluate"}:
        check_data(cfg.data, cfg.paths.data)
    if cfg.task in {"train", "search"}:
        check_batch(cfg.data.batch_size, cfg.trainer.devices, cfg.trainer.num_nodes, cfg.trainer.accumulate_grad_batches)
    if cfg.get("genotype") and not Path(cfg.genotype).is_file():
        raise DerainzooError(f"genotype={cfg.genotype}: there is no such file; `derainzoo search` writes genotype.json")
    start = OmegaConf.select(cfg, "callbacks.freeze_norm")
    if start is not None and (not isinstance(start, int) or isinstance(start, bool) or start < 0):
        raise DerainzooError(f"callbacks.freeze_norm={start}: expected the number of a step, such as 500, or null for never")
    if cfg.task == "search":
        _check_search(cfg)


def _check_search(cfg: DictConfig) -> None:
    if "search" not in cfg:
        known = sorted(p.stem for p in (Path(config_dir()) / "search").glob("*.yaml"))
        raise DerainzooError(f"'{cfg.model.name}' cannot be searched; say {' or '.join(f'model={name}' for name in known)}.")
    for key, wanted, why in (
        ("weights", None, "its weights begin at random"),
        ("compile", False, "every path would be compiled anew"),
        ("callbacks.ema", None, "weights of candidates that rest have no average"),
        ("callbacks.freeze_norm", None, "statistics of candidates that were not on the path yet would be frozen too"),
        ("trainer.accumulate_grad_batches", 1, "a step of the weights is one path; MDARTS needs no more memory than training"),
    ):
        if (found := OmegaConf.select(cfg, key)) != wanted:
            raise DerainzooError(f"{key}={found} does not go with a search: {why}. Leave it at {_show(wanted)}.")
    if str(cfg.trainer.precision).startswith("16"):
        raise DerainzooError(f"trainer.precision={cfg.trainer.precision}: searches run in 32-true or bf16-mixed")


def check_data(data: DictConfig, data_dir: str) -> None:
    """Whether the set is where it is said to be; what exactly lies there is looked at when the run starts."""
    from derainzoo.data.catalog import find, find_root

    if data.root is not None:
        if not Path(data.root).expanduser().is_dir():
            raise DerainzooError(f"data.root={data.root}: there is no such folder")
    elif data.name != "synthetic" and find_root(data.name, data_dir) is None:
        find(data.name, data.train, data_dir)  # says what was looked for, what was found, and where the set comes from


def check_batch(batch_size: int, devices: Any, nodes: int, accumulate: int) -> int:
    """The batch of one device and accumulation step. The configured one is global, so that a run means the same anywhere."""
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    count = len(devices) if isinstance(devices, list | ListConfig) else devices
    if not isinstance(count, int) or count < 1:  # auto, -1: known only when the devices are counted
        return 0
    parts = count * nodes * accumulate
    if batch_size % parts:
        close = sorted({max(1, batch_size // parts) * parts, (batch_size // parts + 1) * parts})
        raise DerainzooError(
            f"data.batch_size={batch_size} is the batch of all devices together and cannot be divided among {count} devices x "
            f"{nodes} nodes x {accumulate} accumulation steps = {parts}. Use {' or '.join(map(str, close))}."
        )
    return batch_size // parts
