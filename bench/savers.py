"""LangGraph's checkpoints in a store and in its own SQLite saver: processes that put at once, on the same disk.

    python -m bench.savers --processes 8 --checkpoints 1000

Each process has a thread of its own, and puts a checkpoint of 2 KB and one write after the other. Both savers sync each
commit. Afterwards a new saver reads all of it back. It needs the extra `langgraph` and langgraph-checkpoint-sqlite.
"""

from __future__ import annotations

import argparse
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
    with SAVERS[kind](path) as saver:
        whole = sum(
            len(each.pending_writes or []) == 1 for who in range(processes) for each in saver.list(_config(who))
        )
    return seconds, processes * count - whole, errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both in turns, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.savers")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--checkpoints", type=int, default=1000, help="of all processes together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args(arguments)
    count = options.checkpoints // options.processes
    rates: dict[str, list[float]] = {kind: [] for kind in SAVERS}
    lost: Counter[str] = Counter()
    errors: dict[str, Counter[str]] = {kind: Counter() for kind in SAVERS}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for turn in range(options.rounds):
            for kind in SAVERS:
                seconds, missing, failed = measure(kind, Path(folder) / f"{turn}-{kind}.db", options.processes, count)
                rates[kind].append(options.processes * count / seconds)
                lost[kind] += missing
                errors[kind] += failed
    for kind in SAVERS:
        print(f"{kind:9} {statistics.median(rates[kind]):8,.0f} checkpoints/s, {lost[kind]} lost, {dict(errors[kind])}")
    print(f"ratio     {statistics.median(rates['sqlstate']) / statistics.median(rates['sqlite']):8.2f}")


if __name__ == "__main__":
    main()
