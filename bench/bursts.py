"""Puts of many threads, or of many tasks, for a while."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from bench.baselines import Entry


@dataclass(frozen=True, slots=True)
class Burst:
    """What happened in it."""

    waits: Sequence[int]
    """Nanoseconds of every put."""
    seconds: float

    @property
    def rate(self) -> float:
        """Puts a second."""
        return len(self.waits) / self.seconds


def of_threads(
    put: Callable[[str, bytes], object],
    number: int,
    seconds: float,
    changes: Sequence[Entry],
    lock: AbstractContextManager[object] | None = None,
) -> Burst:
    """Let so many threads put, each again as soon as its last put is durable.

    Args:
        put: what each calls.
        number: of threads.
        seconds: how long new puts are begun.
        changes: what they put; each thread has its own part.
        lock: what each holds around a put.
    """
    held = lock or nullcontext()
    waits: list[list[int]] = [[] for _ in range(number)]
    errors: list[BaseException] = []
    start = threading.Barrier(number + 1)

    def work(at: int) -> None:
        own = cycle(changes[at::number])
        took = waits[at]
        start.wait()
        end = time.monotonic() + seconds
        try:
            while True:
                key, value = next(own)
                began = perf_counter_ns()
                with held:
                    if time.monotonic() >= end:
                        return
                    put(key, value)
                took.append(perf_counter_ns() - began)
        except Exception as e:  # noqa: BLE001, raised again below
            errors.append(e)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(number)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    if errors:
        raise errors[0]
    return Burst([each for own in waits for each in own], took)


async def of_tasks(
    put: Callable[[str, bytes], Awaitable[object]], number: int, seconds: float, changes: Sequence[Entry]
) -> Burst:
    """Let so many asyncio tasks put, each again as soon as its last put is durable; else as *of_threads*."""
    waits: list[int] = []
    began = time.monotonic()
    end = began + seconds

    async def work(at: int) -> None:
        own = cycle(changes[at::number])
        while time.monotonic() < end:
            key, value = next(own)
            put_at = perf_counter_ns()
            await put(key, value)
            waits.append(perf_counter_ns() - put_at)

    async with asyncio.TaskGroup() as tasks:
        for at in range(number):
            tasks.create_task(work(at))
    return Burst(waits, time.monotonic() - began)
