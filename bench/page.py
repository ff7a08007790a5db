"""Measures the report: `python -m bench.page FOLDER [ENTRIES [COMMITS]]`.

The store gets its entries in one commit, and then one put a commit. Printed are what the program takes, from its start
to its end, and the size of the page, with a full check and with a quick one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Final

import sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRIES: Final = 100_000
COMMITS: Final = 10_000
COLLECTIONS: Final = 7
ROUNDS: Final = 5


def fill(store: sqlstate.Store, entries: int, commits: int) -> None:
    """Make the entries and commits of a new store."""

    def entry(number: int, age: int) -> tuple[str, str, dict[str, object]]:
        person = {"name": f"name {number}", "age": age, "tags": ["a", "b"]}
        return f"c{number % COLLECTIONS}", f"key{number:07}", person

    with store.transaction() as txn:
        for number in range(entries):
            txn.put(*entry(number, 30))
    for number in range(1, commits):
        collection, key, value = entry(number * 7919 % entries, number)
        store[collection][key] = value


def reports(path: Path, *options: str) -> Iterator[tuple[float, float, int]]:
    """Yield the seconds and the CPU seconds of each run, and the bytes of its page."""
    page = path.with_suffix(".html")
    for _ in range(ROUNDS):
        before, began = os.times(), perf_counter()
        command = [sys.executable, "-m", "sqlstate", "report", str(path), "-o", str(page), "--quiet", *options]
        subprocess.run(command, check=True)
        took, after = perf_counter() - began, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        yield took, cpu, page.stat().st_size


def main(folder: Path, entries: int = ENTRIES, commits: int = COMMITS) -> None:
    """Print the figures."""
    path = folder / "report.db"
    with sqlstate.open(path) as store:
        fill(store, entries, commits)
    print(f"{entries:,} entries, {commits:,} commits, {path.stat().st_size:,} bytes; median and least of {ROUNDS}")
    for label, options in (("full check", ()), ("quick check", ("--quick",))):
        times, cpu, sizes = zip(*reports(path, *options), strict=True)
        print(
            f"{label:<11}  {median(times):.2f} s, {min(times):.2f} s; {median(cpu):.2f} s of CPU, {min(cpu):.2f} s; "
            f"{max(sizes):,} bytes"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:4]))
