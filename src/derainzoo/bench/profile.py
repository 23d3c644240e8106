"""What a network costs: parameters, operations, time and memory.

    row = profile_network("elf", size=(480, 320), device="cuda", precision="bf16")

Weights are random: they do not change the cost. Times are medians of single runs, with the middle half's width as their spread.
Memory is what a run's tensors take at their peak, beyond the weights and the images that were there before: what the allocator
of a GPU reports, and on a CPU the sum of all tensors that operators made and that are still held (what libraries borrow inside
an operator is not seen there).
"""

import csv
import io
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.files import write_text
from derainzoo.inference.memory import LiveBytes
from derainzoo.inference.predictor import PRECISIONS, choose_device, out_of_memory
from derainzoo.models.registry import create_model
from derainzoo.nas.cost import count

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class ProfileRow:
    """One network at one size on one device. Times are in milliseconds and of the whole batch, memory is in bytes."""

    network: str
    height: int
    width: int
    batch: int
    device: str
    precision: str
    channels_last: bool
    compiled: bool
    params: int
    macs: int
    """Multiply-adds of one image."""
    forward_ms: float
    forward_spread_ms: float
    """Between the quartiles of the repetitions."""
    images_per_s: float
    forward_memory: int | None
    """None where the device does not tell."""
    training_ms: float | None
    """Forward in training mode, and backward; None if it was not asked for."""
    training_spread_ms: float | None
    training_memory: int | None


def profile_network(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    size: tuple[int, int] = (256, 256),
    batch: int = 1,
    device: str = "auto",
    precision: str = "fp32",
    channels_last: bool = True,
    compile: bool = False,
    training: bool = True,
    warmup: int = 2,
    repeats: int = 10,
) -> ProfileRow:
    """Measure one network.

    Args:
        name: of the network.
        arguments: of the network, where they are not the default.
        size: height and width of the images.
        batch: images in a run; those in a second are counted with it.
        device: auto (a CUDA GPU if there is one), cpu, cuda, cuda:1.
        precision: fp32, bf16 or fp16.
        channels_last: memory layout of weights and images.
        compile: by `torch.compile`; compilation is part of the warm-up.
        training: also measure forward and backward.
        warmup: runs that do not count.
        repeats: runs that do.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if min(*size, batch, repeats) < 1 or warmup < 0:
        raise DerainzooError(f"positive numbers expected, got size={size}, batch={batch}, repeats={repeats}, warmup={warmup}")
    where = choose_device("cpu" if device == "auto" and not torch.cuda.is_available() else device)
    params, macs = count(name, arguments, size)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    half = PRECISIONS[precision]
    autocast = torch.autocast(where.type, half) if half else nullcontext()

    def use() -> None:
        with torch.inference_mode(), autocast:
            net(images)

    def train() -> None:
        with autocast:
            outputs = net(images)
            means = [o.mean() for o in ([outputs] if isinstance(outputs, Tensor) else outputs)]
        torch.stack(means).sum().backward()
        net.zero_grad(set_to_none=True)

    def measure(run: Callable[[], None]) -> tuple[float, float, int | None]:
        times = _times(run, where, warmup, repeats)
        return statistics.median(times), _spread(times), _peak(run, where, compile)

    try:
        with torch.random.fork_rng():
            net = create_model(name, **(arguments or {})).to(where).to(memory_format=layout)  # type: ignore[call-overload]
            images = torch.rand(batch, 3, *size).to(where).contiguous(memory_format=layout)
        if compile:
            net.compile()
        net.eval()
        forward_ms, forward_spread, forward_memory = measure(use)
        net.train()
        training_ms, training_spread, training_memory = measure(train) if training else (None, None, None)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        what = f"{batch} image{'s' if batch > 1 else ''} of {size[0]} x {size[1]}"
        raise DerainzooError(f"{name} does not fit into the memory of {where} with {what}; give less of either") from None
    return ProfileRow(
        network=name,
        height=size[0],
        width=size[1],
        batch=batch,
        device=str(where),
        precision=precision,
        channels_last=channels_last,
        compiled=compile,
        params=params,
        macs=macs,
        forward_ms=forward_ms,
        forward_spread_ms=forward_spread,
        images_per_s=1000 * batch / forward_ms,
        forward_memory=forward_memory,
        training_ms=training_ms,
        training_spread_ms=training_spread,
        training_memory=training_memory,
    )


def _times(run: Callable[[], None], device: torch.device, warmup: int, repeats: int) -> list[float]:
    """Milliseconds of each run; on a GPU by its own clock, so that the queue in front of it does not count."""
    for _ in range(warmup):
        run()
    if device.type != "cuda":
        moments = [time.perf_counter()]
        for _ in range(repeats):
            run()
            moments.append(time.perf_counter())
        return [1000 * (b - a) for a, b in pairwise(moments)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    with torch.cuda.device(device):
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
    torch.cuda.synchronize(device)
    return [a.elapsed_time(b) for a, b in pairwise(events)]


def _spread(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return high - low


def _peak(run: Callable[[], None], device: torch.device, compiled: bool) -> int | None:
    """Bytes of a run at their peak, beyond those held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or compiled:  # what a compiled network takes passes by PyTorch's operators
        return None
    with LiveBytes() as live:
        run()
    return live.peak


# --- the task ---------------------------------------------------------------------------------------------------------------

_HEADER = (
    "network",
    "size",
    "device",
    "precision",
    "parameters",
    "MACs",
    "forward",
    "images/s",
    "memory",
    "+backward",
    "memory",
)
_WIDTHS = (16, 11, 7, 9, 10, 9, 17, 8, 9, 17, 9)


def profile(cfg: "DictConfig") -> dict[str, Any]:
    """Measure every network x size x device x precision asked for; a row of the table appears as soon as it is known."""
    own = {k: v for k, v in cfg.model.items() if k != "name"}
    networks = [(name, {}) for name in cfg.models] if cfg.models else [(cfg.model.name, own)]
    sizes = [cfg.size] if isinstance(cfg.size[0], int) else cfg.size
    facts = machine()
    rows: list[dict[str, Any]] = []
    for (name, arguments), size, device, precision in product(networks, sizes, cfg.devices, cfg.precisions):
        row = profile_network(
            name,
            arguments,
            size=_pair(size),
            batch=cfg.batch,
            device=device,
            precision=precision,
            channels_last=cfg.channels_last,
            compile=cfg.compile,
            training=cfg.training,
            warmup=cfg.warmup,
            repeats=cfg.repeats,
        )
        if not rows:
            print(", ".join(f"{key} {value}" for key, value in facts.items()))
            print(_line(_HEADER))
        print(_line(_cells(row)), flush=True)
        rows.append(asdict(row))
    if cfg.csv:
        text = io.StringIO()
        table = csv.DictWriter(text, [f.name for f in fields(ProfileRow)])
        table.writeheader()
        table.writerows(rows)
        write_text(Path(cfg.csv), text.getvalue())
    return {"machine": facts, "rows": rows}


def _pair(size: Any) -> tuple[int, int]:
    try:
        height, width = size
        return int(height), int(width)
    except (TypeError, ValueError):
        raise DerainzooError(
            f"size={size}: height and width expected, or several such pairs: [[256, 256], [480, 320]]"
        ) from None


def machine() -> dict[str, Any]:
    """What every row has in common."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError):  # Linux tells the model here alone
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), processor)
    facts: dict[str, Any] = {"cpu": processor, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _cells(row: ProfileRow) -> tuple[str, ...]:
    def duration(median: float | None, spread: float | None) -> str:
        return "-" if median is None or spread is None else f"{median:.4g} ±{spread / 2:.2g} ms"

    def memory(size: int | None) -> str:
        return "-" if size is None else f"{size / 2**20:.4g} MiB"

    return (
        row.network,
        f"{row.height}x{row.width}" + (f"x{row.batch}" if row.batch > 1 else ""),
        row.device,
        row.precision,
        f"{row.params / 1e6:.3f} M",
        f"{row.macs / 1e9:.4g} G",
        duration(row.forward_ms, row.forward_spread_ms),
        f"{row.images_per_s:.3g}",
        memory(row.forward_memory),
        duration(row.training_ms, row.training_spread_ms),
        memory(row.training_memory),
    )


def _line(cells: tuple[str, ...]) -> str:
    """Names to the left, numbers to the right; the widths are fixed, as the first row is printed before the last is known."""
    places = zip(cells, _WIDTHS, "<<<<>>>>>>>", strict=True)
    return "  ".join(f"{cell:{side}{width}}" for cell, width, side in places).rstrip()
