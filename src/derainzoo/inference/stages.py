"""Reading, computing and writing at the same time."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

THREADS = min(4, os.cpu_count() or 1)


def ahead(function: Callable[[A], B], items: Iterable[A], threads: int = THREADS, depth: int | None = None) -> Generator[B]:
    """`map(function, items)` in order, where threads are up to `depth` items ahead of whoever takes the results.

    The items are taken in the caller's thread. So stages can be chained, and what is not wrapped in `ahead` runs there:

        for written in ahead(write, (compute(x) for x in ahead(read, paths))): ...

    An exception in `function` is raised where its result would have come. When the caller stops early, what runs is finished,
    and what waits is dropped.
    """
    depth = depth or threads
    pool = ThreadPoolExecutor(threads)
    running: deque[Future[B]] = deque()
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > depth:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
