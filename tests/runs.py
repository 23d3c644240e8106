"""Runs inside a test: the configuration of the command, composed for small networks and few steps."""

import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from derainzoo import cli, config
from derainzoo.files import config_dir

SMALL = [
    "data.batch_size=2",
    "data.patch_size=32",
    "data.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.val_every=5",
    "trainer.log_every_n_steps=1",
    "callbacks.checkpoint_every=5",
    "callbacks.pictures=0",
    "callbacks.progress=false",
    "logger=csv",
]
TINY = [*SMALL, "model=elf_lw", "model.dim=8", "model.blocks=1", "test=false"]


def compose_words(output, *words):
    """What a task function gets for these words of the command line."""
    config.register()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", [*cli.canonical(words), f"hydra.run.dir={output}"], return_hydra_config=True)
    with open_dict(cfg):
        cfg.paths.output = str(output)
        cfg.pop("hydra")
    return cfg


def compose_run(output, *overrides):
    """A training of a network so small that only the machinery around it takes time."""
    return compose_words(output, *TINY, *overrides)


def command(*overrides):
    """The same as words for a process."""
    return [sys.executable, "-m", "derainzoo", *TINY, *overrides]


def last_checkpoint(folder):
    return torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)


def keep_checkpoint(monkeypatch, step, path):
    """Copy the checkpoint of one step aside, as if the run had been killed after it."""
    from derainzoo.engine.callbacks import LastCheckpoint

    write = LastCheckpoint._write

    def write_and_keep(self, trainer):
        before = self.written
        write(self, trainer)
        if self.written == step != before:
            trainer.save_checkpoint(path)

    monkeypatch.setattr(LastCheckpoint, "_write", write_and_keep)
