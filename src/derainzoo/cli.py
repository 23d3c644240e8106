"""The command: `derainzoo TASK [overrides]`, the same as `python -m derainzoo task=TASK [overrides]`.

Only this file knows Hydra's entry point. Nothing here imports torch: help, listings and configuration errors answer before
anything heavy is loaded. The words of the command line are first turned into Hydra overrides (`canonical`), then the
configuration is composed once ahead of Hydra (`config.check`), so that a mistake in any job of a sweep is found before the
first job starts, and is explained by what exists and what is close.
"""

import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from derainzoo import __version__
from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.files import config_dir


@dataclass(frozen=True)
class Task:
    """What a task runs and how its bare words and flags become keys of the configuration."""

    help: str
    target: str
    """`module:function`, called with the composed configuration; what it returns goes to `result.json`."""
    words: tuple[str, ...] = ()
    """Keys that bare words fill in this order; a last key that ends in `...` takes all that are left, as a list."""
    flags: tuple[str, ...] = ()
    """Keys that `--key` without a value sets to true."""
    preset: str = ""
    """Group of which the option that is named like the model is chosen, unless another is asked for."""
    example: str = ""


TASKS = {
    "train": Task(
        "train a network, then test its best checkpoint (the default)",
        "derainzoo.engine.train:train",
        example="derainzoo train model=elf data=rain200h trainer.devices=4",
    ),
    "evaluate": Task(
        "measure weights on test sets, a row per image",
        "derainzoo.engine.evaluate:evaluate",
        example="derainzoo evaluate weights=best.ckpt data=rain200h protocol=y8",
    ),
    "predict": Task(
        "remove rain from pictures, folders or videos",
        "derainzoo.engine.predict:predict",
        words=("input...",),
        flags=("compare", "overwrite", "allow_random"),
        example="derainzoo predict photo.jpg -o dry/",
    ),
    "demo": Task(
        "the same on a page in the browser",
        "derainzoo.web.demo:demo",
        words=("files...",),
        flags=("allow_random", "open"),
        example="derainzoo demo best.ckpt --open",
    ),
    "search": Task(
        "search an architecture, then derive and draw it",
        "derainzoo.engine.search:search",
        preset="search",
        example="derainzoo search model=autoderain data=rain100l",
    ),
    "benchmark": Task(
        "networks x data sets x protocols, with a leaderboard",
        "derainzoo.bench.benchmark:benchmark",
        example="derainzoo benchmark weights=[elf_lw.rain100l,nafnet.anyrain] sets=[rain12] protocols=[y8,rgb]",
    ),
    "dashboard": Task(
        "W&B's workspace and report for a project, as code",
        "derainzoo.bench.dashboard:dashboard",
        flags=("publish",),
        example="derainzoo dashboard sets=[rain100l,rain12] logger.wandb.entity=me publish=true",
    ),
    "profile": Task(
        "parameters, operations, latency and memory of a network",
        "derainzoo.bench.profile:profile",
        words=("model",),
        example="derainzoo profile drsformer size=[256,256]",
    ),
    "export": Task(
        "write a network for use elsewhere: onnx, torch_export or safetensors",
        "derainzoo.inference.export:export",
        words=("weights", "output"),
        flags=("overwrite", "allow_random"),
        example="derainzoo export best.ckpt elf.onnx",
    ),
    "convert": Task(
        "published or own weights to safetensors",
        "derainzoo.inference.convert:convert",
        words=("source", "target"),
        flags=("overwrite",),
        example="derainzoo convert official.pth drsformer.safetensors",
    ),
    "data": Task(
        "list, verify or prepare data sets",
        "derainzoo.data.commands:data",
        words=("action", "data"),
        example="derainzoo data verify rain200h data.root=/data/Rain200H",
    ),
    "models": Task(
        "the networks there are, with size, cost and paper",
        "derainzoo.models.listing:models",
        words=("pattern",),
        example="derainzoo models 'drs*'",
    ),
}

_SHORT = {"-o": "output", "-w": "weights"}
# Hydra's own flags; those in the second set are followed by a value
_HYDRA_FLAGS = {"-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "--shell-completion", "-sc"}
_HYDRA_VALUES = {"-c", "--cfg", "-i", "--info", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"}
_HYDRA_VALUES |= {"-cd", "--config-dir", "--experimental-rerun"}
# set to other than 0 in every process of a run but the first: by Lightning, torchrun, Slurm, submitit
_RANKS = ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID", "SUBMITIT_LOCAL_GLOBALID")
_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w./@-]*(=|$)")


def quote(word: str) -> str:
    """A word of the command line as a Hydra value that is read back as that very text."""
    if re.fullmatch(r"[A-Za-z./][A-Za-z0-9_./+-]*", word) and word.lower() not in {"true", "false", "null", "nan", "inf"}:
        return word
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), word) + "'"


def value_of_flag(word: str) -> str:
    """The same for `--key VALUE`, where numbers, true, false and null mean themselves."""
    return word if re.fullmatch(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?|true|false|null|\[.*\]", word) else quote(word)


def canonical(arguments: Sequence[str]) -> list[str]:
    """`predict a.jpg -o dry --overwrite` -> `task=predict input=[a.jpg] output=dry overwrite=true`; overrides stay."""
    if not arguments:
        return []
    rest = list(arguments)
    flags: list[str] = []  # Hydra wants its own before all overrides
    out: list[str] = []
    name = "train"
    if re.fullmatch(r"[A-Za-z_]\w*", rest[0]):
        name = rest.pop(0)
        if name not in TASKS:
            raise unknown_name("task", name, TASKS, "See `derainzoo --help`.")
        out.append(f"task={name}")
    task, words = TASKS[name], []
    while rest:
        word = rest.pop(0)
        if word in _HYDRA_FLAGS:
            flags.append(word)
        elif word.split("=")[0] in _HYDRA_VALUES:
            flags.append(word)
            if "=" not in word:
                flags += rest[:1]
                rest = rest[1:]
        elif word.startswith("--") or word in _SHORT:
            key, _, value = (_SHORT.get(word) or word[2:]).partition("=")
            key = key.replace("-", "_")  # not in the value, which may be a path
            if value:
                out.append(f"{key}={value_of_flag(value)}")
            elif key in task.flags:
                out.append(f"{key}=true")
            elif rest:
                out.append(f"{key}={value_of_flag(rest.pop(0))}")
            else:
                raise DerainzooError(f"{word} needs a value: {word} VALUE. See `derainzoo {name} --help`.")
        elif ("=" in word or word[0] in "+~") and _OVERRIDE.match(word) and not Path(word).exists():
            out.append(word)
        else:
            words.append(word)
    return flags + _with_preset(out + _fill(name, task, words))


def _with_preset(overrides: list[str]) -> list[str]:
    last = {word.partition("=")[0]: word.partition("=")[2] for word in overrides}
    task, model = TASKS.get(last.get("task", "train")), last.get("model", "")
    if task and task.preset and task.preset not in last and (Path(config_dir()) / task.preset / f"{model}.yaml").exists():
        return [*overrides, f"{task.preset}={model}"]
    return overrides


def _fill(name: str, task: Task, words: list[str]) -> list[str]:
    out = []
    for key in task.words:
        if key.endswith("..."):
            if words:
                out.append(f"{key[:-3]}=[{','.join(quote(w) for w in words)}]")
            return out
        if words:
            out.append(f"{key}={quote(words.pop(0))}")
    if words:
        takes = f"takes {' and '.join(task.words)}" if task.words else "takes no bare words"
        raise DerainzooError(
            f"`derainzoo {name}` does not know what to do with '{words[0]}': it {takes}, and settings as key=value.\n"
            f"For example: {task.example}"
        )
    return out


def help_text() -> str:
    """What `derainzoo --help` prints."""
    width = max(map(len, TASKS))
    tasks = "\n".join(f"  {name:<{width}}  {task.help}" for name, task in TASKS.items())
    return f"""derainzoo {__version__}: a zoo of image-deraining networks

usage: derainzoo TASK [key=value ...]        the same as: python -m derainzoo task=TASK [key=value ...]

tasks
{tasks}

  derainzoo TASK --help      what a task can be told
  derainzoo models           the networks       derainzoo data list      the data sets
  derainzoo --cfg job        the whole configuration, after all overrides
  derainzoo -m model=a,b     several runs, each in a process of its own

examples
  derainzoo model=elf_lw trainer.max_steps=500            train on the embedded data, no download
  derainzoo model=drsformer data=rain200h trainer.devices=4
  derainzoo experiment=drsformer_rain200h                 a paper's own recipe
  derainzoo predict photo.jpg -o dry/                     remove rain from a picture
"""


def task_help(name: str) -> str:
    """What `derainzoo TASK --help` prints: the task's part of the configuration, with its comments."""
    task = TASKS[name]
    keys = _keys(Path(config_dir()) / "task" / f"{name}.yaml")
    for preset in sorted((Path(config_dir()) / task.preset).glob("*.yaml")) if task.preset else []:
        keys += f"\n\nand with model={preset.stem}\n{_keys(preset)}"
    groups = ", ".join(sorted(p.name for p in Path(config_dir()).iterdir() if p.is_dir() and p.name not in {"hydra", "task"}))
    return f"""derainzoo {name}: {task.help}

example: {task.example}

its keys, with their defaults
{keys}

besides, the groups of the whole configuration (`derainzoo {name} --cfg job` prints them): {groups}
"""


def _keys(file: Path) -> str:
    """A part of the configuration with its comments, without what is Hydra's."""
    text = file.read_text(encoding="utf-8")
    text = re.sub(r"^(# @package.*|task:.*|(defaults|hydra):\n(  .*\n?)*)\n?", "", text, flags=re.MULTILINE)
    return "\n".join(f"  {line}".rstrip() for line in text.strip().splitlines())


def fail(message: str) -> NoReturn:
    """Say what is wrong on the error stream and end with status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def run(cfg: Any) -> Any:
    """What Hydra calls with the composed configuration: import the task's module, run it, keep its result."""
    task = TASKS[cfg.task]
    module, function = task.target.split(":")
    try:
        result = getattr(importlib.import_module(module), function)(cfg)
    except DerainzooError as error:
        fail(str(error))
    if result is None or any(int(os.environ.get(rank, 0)) for rank in _RANKS):
        return None
    from derainzoo.config import fingerprint
    from derainzoo.files import write_text

    result = {"fingerprint": fingerprint(cfg), **result}
    write_text(Path(cfg.paths.output) / "result.json", json.dumps(result, indent=2) + "\n")
    return result.get("objective")


def main(argv: Sequence[str] | None = None) -> Any:
    """Entry point of `derainzoo` and `python -m derainzoo`; tests call it with a list of words."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"help", "-h", "--help"}:
        print(help_text())
        return None
    if words[0] == "--version":
        print(__version__)
        return None
    try:
        if ("--help" in words or "-h" in words) and words[0] in TASKS:
            print(task_help(words[0]))
            return None
        words = canonical(words)
        from derainzoo import config

        config.register()
        if "LOCAL_RANK" not in os.environ:  # further processes of one run were checked with the first
            config.check(words)
            words += config.continued(words)
    except DerainzooError as error:
        fail(str(error))
    import hydra

    # Lightning starts the other processes of a run from sys.argv: it must hold the same run in words that Hydra reads.
    sys.argv = [sys.argv[0], *words]
    return hydra.main(config_path=config_dir(), config_name="config", version_base="1.3")(run)()
