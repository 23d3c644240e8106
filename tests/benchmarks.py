"""A small benchmark for tests: pictures, weights and the command's configuration."""

import json
from pathlib import Path

import torch

from derainzoo import model_info
from derainzoo.images import write_png
from derainzoo.models.checkpoints import save_weights
from networks import small
from pictures import picture, rainy
from runs import SMALL, compose_words

QUICK = [*SMALL, "cost.size=[16,16]", "cost.repeats=1"]


def write_pairs(folder, count=3, start=0, size=(24, 32)):
    """A folder of one's own: `input/` and `target/`."""
    for i in range(start, start + count):
        clean = picture(i, *size)
        write_png(folder / "target" / f"{i}.png", clean)
        write_png(folder / "input" / f"{i}.png", rainy(i, clean, 4 * (i + 1)))
    return folder


def write_weights(file, name="nafnet", seed=0, **facts):
    """A tiny network's weights; another seed, other weights."""
    net = small(name)
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.1).add_(0.001 * torch.randn_like(p))
    save_weights(file, net, name, dict(model_info(name).tiny), **facts)
    return file


def benchmark(folder, *words):
    """Run the task; returns what it returns. What it keeps is in `folder`."""
    from derainzoo.bench.benchmark import benchmark as task

    return task(compose_words(Path(folder) / "out", "benchmark", *QUICK, f"cells={folder}/cells", *words))


def cells(folder):
    """The stored cells by their file's name."""
    return {file.stem: json.loads(file.read_text()) for file in sorted((Path(folder) / "cells").glob("*.json"))}
