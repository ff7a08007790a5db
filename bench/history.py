"""Measures the index for histories: `python -m bench.history FOLDER`.

Two copies of one store of 10,000 entries and 1,000,000 records of the log, one with the index, get the same random
puts by turns. Printed are what a history costs, what a put costs, and what the file takes, without it and with it.
"""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path
from statistics import median
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Final

import sqlstate
from bench.entries import entries_of, key
from bench.measure import Side, compare, percentile

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES: Final = 10_000
RECORDS: Final = 1_000_000
PUTS: Final = 6_000
HISTORIES: Final = 25


def fill(path: Path, rng: random.Random) -> None:
    """Make the store: a BEGIN, a PUT and a COMMIT for each of its random puts."""
    numbers = [*range(ENTRIES), *rng.choices(range(ENTRIES), k=RECORDS // 3 - ENTRIES)]
    with sqlstate.open(path) as store:
        for start in range(0, len(numbers), 100):
            with store.batch() as batch:
                for name, value in entries_of(numbers[start : start + 100], rng):
                    batch["c"][name] = value


def history(store: sqlstate.Store, rng: random.Random) -> str:
    """Return what the history of an entry costs."""
    took, changes = [], []
    for number in rng.sample(range(ENTRIES), k=HISTORIES):
        began = perf_counter_ns()
        changes.append(sum(1 for _ in store["c"].history(key(number))))
        took.append(perf_counter_ns() - began)
    return f"{median(took) / 1e6:7.2f} ms for {median(changes):.0f} changes"


def put(store: sqlstate.Store) -> Callable[[str, bytes], None]:
    """Return what puts an entry."""
    return store["c"].__setitem__


def main(folder: Path) -> None:
    """Print the figures."""
    rng = random.Random(8)
    paths = folder / "without.db", folder / "with.db"
    fill(paths[0], rng)
    shutil.copy(*paths)
    with sqlstate.open(paths[1]) as store:
        began = perf_counter()
        store.index_history()
        print(f"made in {perf_counter() - began:.2f} s, {store.stats().records:,} records")
    sizes = [path.stat().st_size for path in paths]
    print(f"file     {sizes[0]:,} bytes; {sizes[1]:,} with it")
    with sqlstate.open(paths[0]) as without, sqlstate.open(paths[1]) as indexed:
        for label, store in (("without", without), ("with", indexed)):
            print(f"history  {history(store, rng)} {label} it")
        puts = entries_of(rng.choices(range(ENTRIES), k=PUTS), rng)
        frames = [store.stats().counters.frames for store in (indexed, without)]
        timing = compare(Side(put(indexed), puts), Side(put(without), puts), warmup=PUTS // 10)
        each = [
            (store.stats().counters.frames - before) / PUTS
            for store, before in zip((indexed, without), frames, strict=True)
        ]
        for label, times, pages in (("without", timing.theirs, each[1]), ("with", timing.ours, each[0])):
            p50, p99 = (percentile(times, percent) / 1e3 for percent in (50, 99))
            print(f"put      p50 {p50:.0f} µs, p99 {p99:.0f} µs, {pages:.2f} pages {label} it")
        print(f"put      {timing.ratio().median:.3f} times as long with it")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
