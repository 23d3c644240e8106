"""Hydra launcher `subprocess`: every job of a sweep is a fresh `python -m derainzoo ...` process.

So jobs share neither GPU memory nor logger runs, each may use several devices (Lightning starts the further processes of a job
from that job's own command line), a job that fails does not stop the others, and a sweep that is started again skips the jobs
whose `result.json` was written for the same configuration. Lives here because Hydra takes launchers from `hydra_plugins` only.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

# what ties a process to another run's group of processes
_RANKS = {"LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # a sweep has no log file of its own; its jobs have


class SubprocessLauncher(Launcher):
    """Runs jobs one after another, or `parallel` at a time, each with its share of `gpus` if those are given."""

    def __init__(self, parallel: int = 1, gpus: Sequence[int] | None = None, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.shares: SimpleQueue[list[int] | None] = SimpleQueue()
        for slot in range(parallel):
            self.shares.put(None if gpus is None else list(gpus[slot::parallel]))
        self.parallel = parallel

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composing the jobs needs."""
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """All jobs; a failed one is told at the end and by the exit status."""
        jobs = [self._compose(list(overrides), initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        with ThreadPoolExecutor(self.parallel) as pool:
            returns = list(pool.map(self._run, jobs))
        failed = [r for r in returns if r.status == JobStatus.FAILED]
        for job in failed:
            _say(f"failed: {' '.join(job.overrides or [])} (see {job.working_dir})")
        _say(f"{len(returns) - len(failed)} of {len(returns)} jobs done")
        return returns

    def _compose(self, overrides: list[str], number: int) -> JobReturn:
        cfg = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.id, cfg.hydra.job.num = f"{cfg.hydra.job.name}_{number}", number
        HydraConfig.instance().set_config(cfg)
        folder = str(Path(str(cfg.hydra.sweep.dir)) / str(cfg.hydra.sweep.subdir))
        return JobReturn(overrides, cfg, cfg.hydra, folder, cfg.hydra.job.name)

    def _run(self, job: JobReturn) -> JobReturn:
        overrides, folder = list(job.overrides or []), Path(job.working_dir or ".")
        name = " ".join(overrides) or "(no overrides)"
        finished = _result(folder, job.cfg)
        if finished is not None:
            _say(f"skipped, finished before: {name} ({folder})")
            job.status, job.return_value = JobStatus.COMPLETED, finished.get("objective")
            return job
        _say(f"starts: {name}")
        command = [sys.executable, "-m", "derainzoo", *overrides, f"hydra.run.dir='{folder}'", "hydra.mode=RUN"]
        env = {k: v for k, v in os.environ.items() if k not in _RANKS}
        gpus = self.shares.get()
        if gpus is not None:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        try:
            status = subprocess.run(command, env=env, timeout=self.timeout, check=False).returncode
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            self.shares.put(gpus)
        result = _result(folder, job.cfg) if status == 0 else None
        job.status = JobStatus.COMPLETED if status == 0 else JobStatus.FAILED
        # Hydra raises what a failed job returned once all are through: an exit status, not a traceback
        job.return_value = (result or {}).get("objective") if status == 0 else SystemExit(1)
        return job


def _result(folder: Path, cfg: DictConfig | None) -> dict[str, Any] | None:
    """The result of a finished job of the same configuration, if there is one."""
    from derainzoo.config import fingerprint

    file = folder / "result.json"
    if cfg is None or not file.exists():
        return None
    plain = cfg.copy()
    with open_dict(plain):
        plain.pop("hydra", None)
    result = json.loads(file.read_text(encoding="utf-8"))
    return result if result.get("fingerprint") == fingerprint(plain) else None


@dataclass
class SubprocessConfig:
    """What `hydra.launcher` holds."""

    _target_: str = "hydra_plugins.derainzoo_launcher.SubprocessLauncher"
    # jobs at a time
    parallel: int = 1
    # GPUs to deal out among them; null: every job sees all
    gpus: list[int] | None = field(default=None)
    # seconds after which a job counts as failed
    timeout: float | None = None


ConfigStore.instance().store(group="hydra/launcher", name="subprocess", node=SubprocessConfig, provider="derainzoo")
