"""LangGraph's checkpoints in a store and in its own SQLite saver, on the same disk.

    python -m bench.savers --processes 8 --checkpoints 1000
    python -m bench.savers --tasks 50 --checkpoints 1000

Processes, or the tasks of one event loop, put at once. Each has a thread of LangGraph of its own, and puts a checkpoint
of 2 KB and one write after the other. Both savers sync each commit; for tasks the store has mode="group". Afterwards a
new saver reads all of it back. It needs the extra `langgraph` and langgraph-checkpoint-sqlite.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections import Counter
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

import sqlstate
from sqlstate.integrations.langgraph import SqlstateSaver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PATIENCE: Final = 60.0  # seconds that a store waits for others; the other saver waits for 5, as it comes
_VALUES: Final = {"messages": [f"{number:04} " + "x" * 95 for number in range(20)]}


@contextmanager
def _ours(path: Path) -> Iterator[Any]:
    with sqlstate.open(path, timeout=_PATIENCE) as store:
        yield SqlstateSaver(store)


@contextmanager
def _theirs(path: Path) -> Iterator[Any]:
    with SqliteSaver.from_conn_string(str(path)) as saver:
        yield saver


SAVERS: Final[dict[str, Callable[[Path], AbstractContextManager[Any]]]] = {"sqlstate": _ours, "sqlite": _theirs}


def _config(who: int) -> dict[str, Any]:
    return {"configurable": {"thread_id": f"{who}", "checkpoint_ns": ""}}


def _put(kind: str, path: Path, who: int, count: int, start: Any, results: Any) -> None:
    """Put *count* checkpoints, and report the errors."""
    errors: Counter[str] = Counter()
    with SAVERS[kind](path) as saver:
        start.wait()
        at = _config(who)
        for number in range(count):
            try:
                at = saver.put(at, {**empty_checkpoint(), "channel_values": _VALUES}, {"step": number}, {})
                saver.put_writes(at, [("messages", number)], "task")
            except Exception as error:  # noqa: BLE001, what it is, is what is counted
                errors[f"{type(error).__name__}: {error}"] += 1
    results.put((who, errors))


def measure(kind: str, path: Path, processes: int, count: int) -> tuple[float, int, Counter[str]]:
    """Return seconds, checkpoints that are missing or lack their write, and the errors."""
    with SAVERS[kind](path) as saver:  # the file is there before they begin
        saver.put(_config(-1), empty_checkpoint(), {}, {})
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes + 1), context.Queue()
    workers = [context.Process(target=_put, args=(kind, path, who, count, start, results)) for who in range(processes)]
    for worker in workers:
        worker.start()
    start.wait()
    begun = time.perf_counter()
    errors: Counter[str] = Counter()
    for _ in workers:
        errors += results.get()[1]
    seconds = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    return seconds, processes * count - _whole(kind, path, processes), errors


def _whole(kind: str, path: Path, writers: int) -> int:
    """Return how many checkpoints are there with their write."""
    with SAVERS[kind](path) as saver:
        return sum(len(each.pending_writes or []) == 1 for who in range(writers) for each in saver.list(_config(who)))


def measure_tasks(kind: str, path: Path, tasks: int, count: int) -> tuple[float, int, Counter[str]]:
    """Return the same as measure() of tasks of one event loop."""
    errors: Counter[str] = Counter()

    async def put(saver: Any, who: int) -> None:
        at = _config(who)
        for number in range(count):
            try:
                at = await saver.aput(at, {**empty_checkpoint(), "channel_values": _VALUES}, {"step": number}, {})
                await saver.aput_writes(at, [("messages", number)], "task")
            except Exception as error:  # noqa: BLE001, what it is, is what is counted
                errors[f"{type(error).__name__}: {error}"] += 1

    async def put_all(saver: Any) -> float:
        await saver.aput(_config(-1), empty_checkpoint(), {}, {})
        begun = time.perf_counter()
        await asyncio.gather(*(put(saver, who) for who in range(tasks)))
        return time.perf_counter() - begun

    async def put_into_theirs() -> float:
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            return await put_all(saver)

    if kind == "sqlite":
        seconds = asyncio.run(put_into_theirs())
    else:
        with sqlstate.open(path, mode="group") as store:
            seconds = asyncio.run(put_all(SqlstateSaver(store)))
    return seconds, tasks * count - _whole(kind, path, tasks), errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both in turns, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.savers")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--tasks", type=int, help="of one event loop, instead of processes")
    parser.add_argument("--checkpoints", type=int, default=1000, help="of all together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    run, writers = (measure, options.processes) if options.tasks is None else (measure_tasks, options.tasks)
    count = options.checkpoints // writers
    rates: dict[str, list[float]] = {kind: [] for kind in SAVERS}
    lost: Counter[str] = Counter()
    errors: dict[str, Counter[str]] = {kind: Counter() for kind in SAVERS}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for turn in range(options.rounds):
            for kind in SAVERS:
                seconds, missing, failed = run(kind, Path(folder) / f"{turn}-{kind}.db", writers, count)
                rates[kind].append(writers * count / seconds)
                lost[kind] += missing
                errors[kind] += failed
    for kind in SAVERS:
        print(f"{kind:9} {statistics.median(rates[kind]):8,.0f} checkpoints/s, {lost[kind]} lost, {dict(errors[kind])}")
    ratios = [ours / theirs for ours, theirs in zip(rates["sqlstate"], rates["sqlite"], strict=True)]
    print(f"ratio     {statistics.median(ratios):8.2f} in the median of {len(ratios)} rounds")


if __name__ == "__main__":
    main()
