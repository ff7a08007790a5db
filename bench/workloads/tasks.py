"""Durable puts of asyncio tasks, beside those of threads."""

from __future__ import annotations

import asyncio
import shutil
import time
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import bursts
from bench.baselines import COLLECTION
from bench.measure import spread
from bench.report import Row
from bench.workloads.threads import CHANGES
from sqlstate import aio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.fleet import Fleet
    from bench.run import Run, Scale

_TASKS: Final = 64
_THREADS: Final = (16, 64)
_REST: Final = 0.02


def tasks(run: Run) -> Iterator[Row]:
    """Let 64 tasks put, and 16 and 64 threads, in turns."""
    fleet = run.fleet(run.scale.reference)
    fleet.close()
    copy = run.folder / "tasks.db"
    shutil.copy(fleet.stores["sqlstate-group"].path, copy)
    of_tasks, of_threads = asyncio.run(_bursts(fleet, copy, run.scale))
    for number, rates in of_threads.items():
        ratio = spread([each / other for each, other in zip(of_tasks, rates, strict=True)])
        what = f'durable puts a second, {_TASKS} asyncio tasks, beside {number} threads in mode="group"'
        goal = run.goal(0.7, least=True)
        yield Row(f"tasks/{number}", what, "commits/s", median(of_tasks), median(rates), "threads", ratio, goal)


async def _bursts(fleet: Fleet, path: Path, scale: Scale) -> tuple[list[float], dict[int, list[float]]]:
    """Return the puts a second of the tasks, whose store is at *path*, and of so many threads."""
    threads_store = fleet.open("sqlstate-group")["sqlstate-group"]
    of_tasks: list[float] = []
    of_threads: dict[int, list[float]] = {number: [] for number in _THREADS}
    async with aio.open(path) as store:

        async def put(key: str, value: bytes) -> None:
            await store.put(COLLECTION, key, value)

        for turn in range(scale.rounds + 1):
            burst = await bursts.of_tasks(put, _TASKS, scale.burst, fleet.changes(CHANGES))
            if turn == 0:
                continue  # the threads' store is worn in as well
            of_tasks.append(burst.rate)
            for number, rates in of_threads.items():
                time.sleep(_REST)  # no task has anything to do meanwhile
                burst = bursts.of_threads(threads_store.put, number, scale.burst, fleet.changes(CHANGES))
                rates.append(burst.rate)
            time.sleep(_REST)
    return of_tasks, of_threads
