"""Compares this checkout with another revision of it: both do the same, in turn, in one run, on the same disk.

A figure of one machine and day says little, a ratio of two sides that took turns says how the code changed.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).parents[1]
ROUNDS: Final = 11
# What is done, and how often in one round of a full run.
OPERATIONS: Final = {
    "get": 3000, "items": 50_000, "put": 100, "new": 60, "delete": 60, "transaction": 1000, "batch": 1000,
    "load": 10_000, "shuffled": 10_000, "threads": 320, "tasks": 320,
}  # fmt: skip


class Ratio(NamedTuple):
    """How long an operation takes, beside the other revision: quartiles of the rounds' ratios, this to that."""

    operation: str
    seconds: float
    """The median of one, here."""
    wall: tuple[float, float, float]
    processor: tuple[float, float, float]


class Side:
    """A process with the sqlstate of one tree."""

    def __init__(self, tree: Path, folder: Path, entries: int) -> None:
        folder.mkdir()
        worker = [sys.executable, "-P", str(ROOT / "bench" / "beside_worker.py"), str(folder), str(entries)]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        self._process = subprocess.Popen(
            worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def take(self, operation: str, times: int) -> tuple[float, float]:
        """Do an operation so often; return the seconds of the clock and of the processor."""
        print(operation, times, file=self._process.stdin, flush=True)
        wall, processor = self._answer().split()
        return float(wall), float(processor)

    def _answer(self) -> str:
        line = next(iter(self._process.stdout or ()), "")
        if not line:
            raise RuntimeError("a side ended before its time; what it said stands above")
        return line


def export(revision: str, folder: Path) -> Path:
    """Put the package of a revision into *folder*, and return that.

    Raises:
        ValueError: git knows no such revision.
    """
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", revision, "sqlstate", "migrations"]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode:
        raise ValueError(f"--beside {revision}: {found.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def compare(revision: str, folder: Path, entries: int, share: float, rounds: int = ROUNDS) -> Iterator[Ratio]:
    """Yield the ratio of each operation; *share* is the part of OPERATIONS that a round does."""
    there = export(revision, folder / "there")
    with ExitStack() as stack:
        ours = stack.enter_context(Side(ROOT, folder / "this", entries))
        theirs = stack.enter_context(Side(there, folder / "that", entries))
        for operation, most in OPERATIONS.items():
            times = max(1, int(most * share))
            for side in (ours, theirs):
                side.take(operation, times)  # the first one is not counted
            found = []
            for number in range(rounds):
                sides = (ours, theirs) if number % 2 else (theirs, ours)
                taken = {side: side.take(operation, times) for side in sides}
                found.append((taken[ours], taken[theirs]))
            walls, processors = ([this[part] / max(that[part], 1e-9) for this, that in found] for part in (0, 1))
            median = sorted(this[0] for this, _ in found)[len(found) // 2]
            yield Ratio(operation, median / times, _quartiles(walls), _quartiles(processors))


def table(revision: str, ratios: Sequence[Ratio]) -> str:
    """Return the ratios as a table in Markdown."""
    lines = [
        f"| operation | here, µs each | time beside {revision} | of the processor |",
        "|---|---|---|---|",
    ]
    for each in ratios:
        parts = (f"{middle:.2f} ({low:.2f} to {high:.2f})" for low, middle, high in (each.wall, each.processor))
        lines.append(f"| {each.operation} | {each.seconds * 1e6:,.1f} | {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def _quartiles(ratios: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    return low, middle, high
