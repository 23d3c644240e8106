"""How far a long task is: a bar where somebody watches, now and then a line where a file or another program does."""

import logging
import sys
import time
from types import TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two lines."""


class Progress:
    """Counts things done and tells about speed and time left.

    Args:
        total: how many there are; 0: unknown.
        unit: what they are, in the plural.
        label: of which task.
    """

    def __init__(self, total: int, unit: str, label: str = "") -> None:
        self.total, self.unit, self.label = total, unit, label
        self.done = self.passed = 0
        self.began = self.told = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Self:
        self.began = self.told = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}")
            self.bar = Bar(*columns, console=Console(file=sys.stderr))
            self.task = self.bar.add_task(self.label or "restoring", total=self.total or None, speed="")
            self.bar.start()  # from here on sys.stderr leads above the bar
            self.streams = [(h, h.setStream(sys.stderr)) for h in _handlers()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar:
            for handler, stream in self.streams:
                handler.setStream(stream)
            self.bar.stop()

    def step(self, worked: bool = True) -> None:
        """One more is done; one that took no work says nothing about the speed."""
        self.done += 1
        self.passed += not worked
        if self.bar:
            self.bar.update(self.task, completed=self.done, speed=self.speed())
        elif time.monotonic() - self.told >= EVERY:
            self.told = time.monotonic()
            of = f"/{self.total}" if self.total else ""
            log.info(f"{self.label + ': ' if self.label else ''}{self.done}{of} {self.unit}, {self.speed()}")

    def speed(self) -> str:
        """`1.42 images/s, 0:44 left`."""
        worked, seconds = self.done - self.passed, time.monotonic() - self.began
        if not worked:
            return ""
        left = f", {clock((self.total - self.done) * seconds / worked)} left" if self.total > self.done else ""
        return f"{worked / seconds:.3g} {self.unit}/s{left}"


def _handlers() -> list[logging.StreamHandler]:
    """Those that write to the terminal."""
    return [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler) and h.stream is sys.__stderr__]


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
