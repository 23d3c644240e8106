"""What computing a network another way than its paper writes it is worth. `python -m tests.bench [network ...]`, `make bench`

    make bench ARGS="drsformer elf --repeats 5"
    make bench ARGS="drsformer mhnet --device cuda --precision bf16 --compile --size 1024 1024 --patch 256 256"

Each network stands beside the literal formulation of its paper (`tests/reference`), with the same weights and the same image:
forward as in use, and forward with backward as in training. The two run in turn, in one process, so that the ratio holds on a
busy machine too. On the CPU time is processor time, the sum of all threads, or with `--clock` what a user waits, for which the
machine must be idle; the best of the repetitions counts, since whatever else runs can only add. Memory is the peak of a run's
tensors beyond the weights (see `derainzoo.bench.profile`).

The paper's side is always eager float32 in the default memory layout; `--precision` and `--compile` are for ours alone. A
top-k that meets two nearly equal scores may choose differently on the two sides, so that outputs in float32 can differ by more
than rounding; the tests compare in float64.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))  # where pytest finds the helpers of the tests, too

from derainzoo import create_model, list_models, model_info
from derainzoo.bench.profile import _peak, machine
from derainzoo.inference.predictor import PRECISIONS
from derainzoo.models.checkpoints import officials
from derainzoo.models.registry import model_arguments
from networks import image, outputs
from reference.drsformer_plain import PlainDRSformer
from reference.mhnet_plain import PlainHead, PlainV1
from reference.plain import plain

SYSTEMS = ("drsformer", "elf", "mhnet", "nafnet", "restormer")
NETWORKS = [name for name in list_models() if model_info(name).system in SYSTEMS]
"""The others are computed as their papers write them."""

HEADER = ("network", "run", "size", "paper", "here", "ratio", "paper", "here", "share", "difference")
WIDTHS = (26, 8, 11, 9, 9, 7, 10, 10, 6, 10)


@dataclass(frozen=True)
class Row:
    """One network in one kind of run. Seconds and bytes are those of a run."""

    network: str
    run: str
    """forward, or training: forward and backward."""
    size: tuple[int, int]
    paper_s: float
    here_s: float
    paper_memory: int | None
    here_memory: int | None
    difference: float
    """Largest, between the outputs."""


def literal(name: str, net: nn.Module, arguments: dict[str, Any]) -> nn.Module:
    """The same network as its paper writes it, with the same weights."""
    system, given = model_info(name).system, {**model_arguments(name), **arguments}
    if system == "drsformer":
        del given["checkpoint"]
        form: nn.Module = PlainDRSformer(**given, compensate=name == "drsformer")
    elif system == "mhnet":
        given["count"], given["blocks"] = given["blocks"], given.pop("encoder")
        form = PlainV1(**given) if "features" in given else PlainHead(**given)
    else:
        return plain(net)
    known, rename = net.state_dict(), officials()[system].rename
    form.load_state_dict({key: known.get(rename(key), dead) for key, dead in form.state_dict().items()})
    return form


def measure(
    runs: Sequence[Callable[[], Tensor]], device: torch.device, repeats: int, compiled: bool, clock: bool
) -> list[tuple[float, int | None, Tensor]]:
    """Seconds, peak memory and output of each; the first comes first in every turn."""
    memory, found = [], []
    for i, run in enumerate(runs):
        for _ in range(2 if device.type == "cuda" else 0):  # compilation, choice of kernels
            run()
        # elsewhere this is the run that warms up
        memory.append(_peak(lambda run=run: found.append(run()), device, compiled and i > 0))
        if len(memory) > len(found):
            found.append(run())
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, times, strict=True):
            taken.append(seconds(run, device, clock))
    return [(min(t), m, y) for t, m, y in zip(times, memory, found, strict=True)]


def seconds(run: Callable[[], Tensor], device: torch.device, clock: bool) -> float:
    """Of the clock, if it is asked or on a device of its own, else of the processor."""
    now = time.perf_counter if clock or device.type == "cuda" else time.process_time
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    wait()
    began = now()
    run()
    wait()
    return now() - began


def compare(
    name: str,
    arguments: dict[str, Any] | None = None,
    *,
    size: tuple[int, int] = (256, 256),
    patch: tuple[int, int] = (128, 128),
    device: torch.device = torch.device("cpu"),  # noqa: B008
    precision: str = "fp32",
    compile: bool = False,
    repeats: int = 3,
    clock: bool = False,
) -> Iterator[Row]:
    """The rows of one network: forward at `size`, training at `patch`; training again with activation checkpointing."""
    torch.manual_seed(0)
    arguments = arguments or {}
    nets = {name: create_model(name, **arguments)}
    with torch.no_grad():
        for p in nets[name].parameters():
            p.add_(0.02 * torch.randn_like(p))  # some blocks start as the identity
    paper = literal(name, nets[name], arguments).to(device)
    if "checkpoint" in model_arguments(name):
        nets[f"{name} checkpoint"] = create_model(name, **arguments, checkpoint=True)
        nets[f"{name} checkpoint"].load_state_dict(nets[name].state_dict())
    for net in nets.values():
        net.to(device, memory_format=torch.channels_last)
        if compile:
            net.compile()
    half = PRECISIONS[precision]
    autocast = torch.autocast(device.type, half) if half else nullcontext()

    def use(net: nn.Module, x: Tensor) -> Tensor:
        with nullcontext() if net is paper else autocast, torch.inference_mode():
            return outputs(net.eval(), x)[0]

    def train(net: nn.Module, x: Tensor) -> Tensor:
        with nullcontext() if net is paper else autocast:
            found = outputs(net.train(), x)
            loss = sum(y.float().mean() for y in found)
        loss.backward()
        net.zero_grad(set_to_none=True)
        return found[0].detach()

    def rows(kind: str, run: Callable[[nn.Module, Tensor], Tensor], hw: tuple[int, int], names: list[str]) -> Iterator[Row]:
        x = image(*hw).to(device)
        ours = x.contiguous(memory_format=torch.channels_last)
        runs = [lambda: run(paper, x), *(lambda n=n: run(nets[n], ours) for n in names)]
        (paper_s, paper_memory, expected), *found = measure(runs, device, repeats, compile, clock)
        for n, (here_s, here_memory, y) in zip(names, found, strict=True):
            difference = (y.float() - expected).abs().max().item()
            yield Row(n, kind, hw, paper_s, here_s, paper_memory, here_memory, difference)

    yield from rows("forward", use, size, [name])
    yield from rows("training", train, patch, list(nets))


def line(cells: Sequence[str]) -> str:
    """Names to the left, numbers to the right."""
    places = zip(cells, WIDTHS, "<<" + ">" * 8, strict=True)
    return "  ".join(f"{cell:{side}{width}}" for cell, width, side in places).rstrip()


def cells(row: Row) -> tuple[str, ...]:
    memory = [row.paper_memory, row.here_memory]
    mib = ["-" if m is None else f"{m / 2**20:.0f} MiB" for m in memory]
    return (
        row.network,
        row.run,
        f"{row.size[0]}x{row.size[1]}",
        f"{row.paper_s:.3g} s",
        f"{row.here_s:.3g} s",
        f"{row.paper_s / row.here_s:.2f}x",
        *mib,
        "-" if None in memory else f"{memory[1] / memory[0]:.0%}",
        f"{row.difference:.1e}",
    )


def main(words: Sequence[str] | None = None) -> None:
    """Print the table; a row appears as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Networks against their literal formulations.")
    parser.add_argument("networks", nargs="*", metavar="network", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--size", nargs=2, type=int, default=(256, 256), metavar=("H", "W"), help="image for forward")
    # DRSformer as its paper writes it holds 5 GiB of tensors in a training step on 128 x 128, the paper's patch
    parser.add_argument("--patch", nargs=2, type=int, default=(128, 128), metavar=("H", "W"), help="image for training")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="of our side")
    parser.add_argument("--compile", action="store_true", help="our side by torch.compile")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", action="store_true", help="seconds by the clock on the CPU, too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="small networks, to see the table quickly")
    given = vars(parser.parse_args(words))
    networks, tiny = given.pop("networks") or NETWORKS, given.pop("tiny")
    if unknown := [name for name in networks if name not in NETWORKS]:
        parser.error(f"no literal formulation of {', '.join(unknown)}; there is one of {', '.join(NETWORKS)}")
    torch.set_num_threads(given.pop("threads"))
    given.update(size=tuple(given["size"]), patch=tuple(given["patch"]))
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(line(HEADER))
    for name in networks:
        for row in compare(name, dict(model_info(name).tiny) if tiny else {}, **given):
            print(line(cells(row)), flush=True)


if __name__ == "__main__":
    main()
