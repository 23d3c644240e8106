"""The task `benchmark`: networks x sets x protocols, each combination measured once, and a leaderboard of what was measured.

A cell is one network on one set under one protocol. It is stored under a key made of what decides its numbers (weights, data,
protocol, precision), so a benchmark that is started again, or another one that asks for the same, does not measure it again.
Which label a network has, what it was trained on and how rows are ranked is not part of a cell: that is said anew every time.
"""

import hashlib
import json
import logging
import platform
import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only

import derainzoo
from derainzoo.bench import downstream
from derainzoo.bench.contest import BenchmarkSet, Contestant, contestants, find_sets, warnings_about
from derainzoo.bench.leaderboard import Result, table, write_tables
from derainzoo.bench.page import write_page
from derainzoo.bench.profile import machine, profile_network
from derainzoo.bench.recording import record
from derainzoo.config import plain
from derainzoo.data.batch import Batch
from derainzoo.engine.evaluate import run_tests
from derainzoo.errors import DerainzooError
from derainzoo.files import whole_file, write_text
from derainzoo.metrics.per_image import read_csv
from derainzoo.metrics.protocol import get_protocol
from derainzoo.nas.cost import count

log = logging.getLogger(__name__)

_LARGEST = 640  # side of the pictures on the page, in pixels
_QUALITY = 88


@dataclass(frozen=True)
class Job:
    """A network and a set, with those protocols under which it is yet to be measured: one pass over the pictures does all."""

    contestant: Contestant
    test: BenchmarkSet
    protocols: tuple[str, ...]


def benchmark(cfg: DictConfig) -> dict[str, Any]:
    """Measure what has not been measured yet, then write the leaderboard."""
    protocols = [get_protocol(name).name for name in cfg.protocols]
    if not protocols:
        raise DerainzooError("protocols: at least one of y8, y, rgb, mhnet_cal, noref is needed")
    if cfg.downstream.network is not None:
        downstream.check(cfg.downstream)
    who, tests = contestants(cfg), find_sets(cfg)
    store = Path(cfg.cells)
    # every process makes the same plan: nothing is finished before all of them take part in the first job
    jobs = plan(who, tests, protocols, cfg, store)
    everything = len(who) * len(tests) * len(protocols)
    missing = sum(len(job.protocols) for job in jobs)
    log.info("%d measurements, %d of them done before", everything, everything - missing)
    for number, job in enumerate(jobs, 1):
        log.info("%d of %d: %s on %s, %s", number, len(jobs), job.contestant.label, job.test.label, ", ".join(job.protocols))
        run(job, cfg, store)
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return {}
    costs = {c.digest: cost(c, cfg, store) for c in who}
    results = [
        Result(
            label=c.label,
            network=c.network,
            weights=str(c.file) if c.file else "random",
            digest=c.digest,
            trained_on=c.training.sets,
            budget=c.training.budget,
            set=test.label,
            revision=test.revision,
            protocol=protocol,
            warnings=tuple(warnings_about(c, test)),
            pictures=_pictures_of(c, test, cfg, store),
            references=store / "pictures" / test.revision[:16],
            cost=costs[c.digest],
            cell=(cell := key(c, test, protocol, cfg)),
            **_measured(json.loads((store / f"{cell}.json").read_text())),
        )
        for c in who
        for test in tests
        for protocol in protocols
    ]
    folder = Path(cfg.paths.output)
    judged = downstream.judge(who, cfg.downstream, cfg.trainer.accelerator) if cfg.downstream.network is not None else None
    text = write_tables(folder, results, judged)
    page = folder / "leaderboard.html"
    write_page(page, results, environment(), pictures=cfg.pictures, resamples=cfg.resamples, downstream=judged)
    record(cfg, who, tests, results, judged)
    log.info("\n%s\n%s", text, page)
    return {"measured_now": missing, "measured_before": everything - missing, "rows": table(results), "downstream": judged}


def _measured(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell[name] for name in ("rows", "measured", "environment")}


# ------------------------------------------------------------------------------------------------------------------- cells


def key(contestant: Contestant, test: BenchmarkSet, protocol: str, cfg: DictConfig) -> str:
    """What decides a cell's numbers, as a name for its file."""
    return _hash(contestant.digest, test.revision, protocol, *_way(cfg))


def _way(cfg: DictConfig) -> tuple[Any, ...]:
    """How the network is run, as far as that changes its pictures."""
    return (cfg.trainer.precision, *((cfg.tile, cfg.overlap) if cfg.tile else ()))


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def plan(
    who: Sequence[Contestant], tests: Sequence[BenchmarkSet], protocols: Sequence[str], cfg: DictConfig, store: Path
) -> list[Job]:
    """What is left to do."""
    jobs = []
    for contestant in who:
        for test in tests:
            missing = tuple(p for p in protocols if not (store / f"{key(contestant, test, p, cfg)}.json").exists())
            if missing:
                jobs.append(Job(contestant, test, missing))
    return jobs


def run(job: Job, cfg: DictConfig, store: Path) -> None:
    """Measure with the code of `derainzoo evaluate`, and store a cell for each protocol."""
    pictures = _pictures_of(job.contestant, job.test, cfg, store)
    scratch = Path(cfg.paths.output) / "running" / pictures.name
    own = deepcopy(cfg)
    own.paths.output = str(scratch)
    own.protocol.names = list(job.protocols)
    keep: list[Callback] = []
    if cfg.pictures:
        keep = [KeepPictures(pictures, store / "pictures" / job.test.revision[:16])]
    trainer = run_tests(own, job.contestant.opened, job.test.data, keep, [])
    if not trainer.is_global_zero:
        return
    ((name, source),) = job.test.data.tests.items()
    scenes = dict(zip(source.names, source.backgrounds, strict=True))
    measured = read_csv(scratch / "results" / f"{name}.csv")
    for protocol in job.protocols:
        columns = [c for metric in get_protocol(protocol).metrics for c in (metric, f"input_{metric}")]
        cell = {
            "network": job.contestant.network,
            "arguments": plain(job.contestant.opened.arguments),
            "weights_sha256": job.contestant.digest,
            "set": job.test.label,
            "revision": job.test.revision,
            "protocol": protocol,
            "precision": cfg.trainer.precision,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(),
            "rows": [
                {"name": row["name"], "scene": scenes[str(row["name"])], **{c: row[c] for c in columns}} for row in measured
            ],
        }
        write_text(store / f"{key(job.contestant, job.test, protocol, cfg)}.json", json.dumps(cell))
    shutil.rmtree(scratch, ignore_errors=True)


def environment() -> dict[str, Any]:
    """What numbers may depend on besides weights and data."""
    facts = {"derainzoo": derainzoo.__version__, "python": platform.python_version(), **machine()}
    return {**facts, "cuda": torch.version.cuda} if torch.cuda.is_available() else facts


# ---------------------------------------------------------------------------------------------------------------- pictures


def _pictures_of(contestant: Contestant, test: BenchmarkSet, cfg: DictConfig, store: Path) -> Path:
    return store / "pictures" / _hash(contestant.digest, test.revision, *_way(cfg))[:16]


class KeepPictures(Callback):
    """Keeps what the network makes of every picture, small enough for a page; the rainy and clean ones once for all."""

    def __init__(self, restored: Path, references: Path) -> None:
        self.restored, self.references = restored, references

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for i, name in enumerate(batch.names):
            self._write(self.restored / f"{name}.webp", outputs[i])
            for kind, image in (("rainy", batch.input[i]), ("clean", batch.target[i])):
                if not (file := self.references / kind / f"{name}.webp").exists():
                    self._write(file, image)

    def _write(self, file: Path, image: torch.Tensor) -> None:
        from PIL import Image

        pixels = (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        picture = Image.fromarray(pixels)
        picture.thumbnail((_LARGEST, _LARGEST))
        with whole_file(file) as temporary:
            picture.save(temporary, "WEBP", quality=_QUALITY)


# -------------------------------------------------------------------------------------------------------------------- cost


def cost(contestant: Contestant, cfg: DictConfig, store: Path) -> dict[str, Any]:
    """What the network costs on this machine; measured once, too, as long as the machine is the same."""
    name, arguments = contestant.network, contestant.opened.arguments
    size = (int(cfg.cost.size[0]), int(cfg.cost.size[1]))
    if not cfg.cost.latency:
        params, macs = count(name, arguments, size)
        return {"params": params, "macs": macs, "height": size[0], "width": size[1]}
    device = {"gpu": "cuda"}.get(cfg.trainer.accelerator, cfg.trainer.accelerator)
    file = store / "cost" / f"{_hash(name, plain(arguments), size, cfg.cost.repeats, device, environment())}.json"
    if not file.exists():
        log.info("what %s costs at %d x %d", contestant.label, *size)
        row = profile_network(name, arguments, size=size, device=device, training=False, repeats=cfg.cost.repeats, warmup=1)
        write_text(file, json.dumps(asdict(row)))
    measured: dict[str, Any] = json.loads(file.read_text())
    return measured
