"""The task `demo`: a page in the browser that takes the rain out of pictures."""

import logging
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from derainzoo.errors import DerainzooError
from derainzoo.inference.predict import make_predictor
from derainzoo.inference.predictor import Predictor
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
    networks = make_networks(cfg)
    for predictor in networks.values():
        predictor(np.zeros((64, 64, 3), np.uint8))  # what only the first picture costs; and the first visitor meets no surprise
    max_bytes = int(cfg.max_mb * 1e6)
    facts = {
        "networks": [{"key": key, "label": _label(key, predictor)} for key, predictor in networks.items()],
        "examples": [vars(example) for example in examples().values()],
        "max_bytes": max_bytes,
        "local": cfg.host in ("127.0.0.1", "localhost", "::1"),
        "random": not _files(cfg),
    }
    desk = Desk(networks, cfg.places, cfg.max_pixels, cfg.quality)
    return Server(desk, facts, max_bytes, cfg.host, cfg.port)


def make_networks(cfg: DictConfig) -> dict[str, Predictor]:
    """By the name that the page shows: a file's, with as much of its path as tells it from others."""
    weights = _files(cfg)
    if not weights:
        return {"random weights": make_predictor(cfg)}  # which refuses, unless they are allowed
    return {key: make_predictor(_with_weights(cfg, file)) for key, file in zip(_short(weights), weights, strict=True)}


def _files(cfg: DictConfig) -> list[Path]:
    named = [Path(file) for file in cfg.files] or ([Path(cfg.weights)] if cfg.weights is not None else [])
    return list(dict.fromkeys(file.absolute() for file in named))


def _with_weights(cfg: DictConfig, file: Path) -> Any:
    return OmegaConf.merge(cfg, {"weights": str(file)})


def _short(paths: list[Path]) -> list[str]:
    """`best.ckpt`, or with the folders that tell it from another of that name."""
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = [str(Path(*path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _label(key: str, predictor: Predictor) -> str:
    return f"{type(predictor.net).__name__} · {key}"
