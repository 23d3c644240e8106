"""The configuration of a task, from the words of its command line."""

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from derainzoo import cli, config
from derainzoo.files import config_dir


def configured(*words: str) -> DictConfig:
    config.register()
    overrides = cli.canonical(words)
    config.check(overrides)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", overrides)
