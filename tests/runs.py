"""Runs of a network so small that only the machinery around it takes time."""

import sys

from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from derainzoo import config
from derainzoo.files import config_dir

TINY = [
    "model=elf_lw",
    "model.dim=8",
    "model.blocks=1",
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
    "test=false",
]


def compose_run(output, *overrides):
    config.register()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", [*TINY, *overrides, f"hydra.run.dir={output}"], return_hydra_config=True)
    with open_dict(cfg):
        cfg.paths.output = str(output)
        cfg.pop("hydra")
    return cfg


def command(*overrides):
    return [sys.executable, "-m", "derainzoo", *TINY, *overrides]
