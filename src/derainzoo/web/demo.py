"""The task `demo`: a page in the browser that takes the rain out of pictures."""

import logging
import webbrowser
from pathlib import Path
from typing import cast

import numpy as np
from omegaconf import DictConfig, OmegaConf

from derainzoo.config import chosen_model
from derainzoo.errors import DerainzooError
from derainzoo.inference.predict import make_predictor
from derainzoo.inference.predictor import Predictor
from derainzoo.models import pretrained
from derainzoo.web.desk import Desk
from derainzoo.web.examples import examples
from derainzoo.web.server import Server

log = logging.getLogger(__name__)


def demo(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C."""
    with make_server(cfg) as server:
        log.info("the page is at %s (Ctrl-C ends it)", server.address)
        if not server.facts["local"]:
            log.warning(
                "host=%s: everybody who reaches this machine can use the page; that is meant for a network that you trust",
                cfg.host,
            )
        if cfg.open:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("the page is closed")


def make_server(cfg: DictConfig) -> Server:
    """Load the networks and listen. Raises, before anything is loaded, what is wrong with the settings."""
    for name in ("max_mb", "max_pixels", "places"):
        if cfg[name] < 1:
            raise DerainzooError(f"{name} must be at least 1, not {cfg[name]}")
    if not 1 <= cfg.quality <= 100:
        raise DerainzooError(f"quality must be from 1 to 100, not {cfg.quality}")
    weights = choose_weights(cfg)
    networks = make_networks(cfg, weights)
    for predictor in networks.values():
        predictor(np.zeros((64, 64, 3), np.uint8))  # what only the first picture costs; and the first visitor meets no surprise
    max_bytes = int(cfg.max_mb * 1e6)
    facts = {
        "networks": [{"key": key, "label": _label(key, predictor)} for key, predictor in networks.items()],
        "examples": [vars(example) for example in examples().values()],
        "max_bytes": max_bytes,
        "local": cfg.host in ("127.0.0.1", "localhost", "::1"),
        "random": not weights,
    }
    desk = Desk(networks, cfg.places, cfg.max_pixels, cfg.quality)
    return Server(desk, facts, max_bytes, cfg.host, cfg.port)


def make_networks(cfg: DictConfig, weights: list[str]) -> dict[str, Predictor]:
    """By the name that the page shows: a file's, with as much of its path as tells it from others."""
    if not weights:
        return {"random weights": make_predictor(cfg)}  # which refuses, unless they are allowed
    keys = _short([Path(name).absolute() for name in weights])
    return {
        key: make_predictor(cast(DictConfig, OmegaConf.merge(cfg, {"weights": name})))
        for key, name in zip(keys, weights, strict=True)
    }


def choose_weights(cfg: DictConfig) -> list[str]:
    """Files, or names of weights that come with the package: those that were said, or all, or all of the network that was."""
    if cfg.files or cfg.weights is not None:
        named = [str(name) for name in cfg.files or [cfg.weights]]
        return list({Path(name).absolute(): name for name in named}.values())
    model, arguments = chosen_model(cfg)
    if arguments:  # there are none for such a network
        return []
    first = pretrained.default(model)
    names = [name for name, weights in pretrained.shipped().items() if model in (None, weights.model)]
    return sorted(names, key=lambda name: name != first)


def _short(paths: list[Path]) -> list[str]:
    """`best.ckpt`, or with the folders that tell it from another of that name."""
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = [str(Path(*path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _label(key: str, predictor: Predictor) -> str:
    return f"{type(predictor.net).__name__} · {key}"
