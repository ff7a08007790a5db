"""Calls of fsync and fdatasync for each put, counted from outside with strace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import puts
from bench.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run import Run

_PUTS: Final = 50
_ROOT: Final = Path(__file__).parents[2]


def sync(run: Run) -> Iterator[Row]:
    """Count the syncs of one put."""
    ours, theirs = (_syncs_of_a_put(run.folder, name) for name in ("sqlstate", "raw"))
    yield Row("sync/put", "syncs of a put, counted by strace", "syncs", ours, theirs, goal=run.goal(1, "figure"))


def _syncs_of_a_put(folder: Path, baseline: str) -> float | None:
    """Return the syncs of one put, or None where strace is not there or not allowed to trace."""
    counts = [_syncs(folder, baseline, number) for number in (_PUTS, 2 * _PUTS)]
    once, twice = counts
    # Opening and closing sync too: what twice the puts do more is what the puts do.
    return None if once is None or twice is None else (twice - once) / _PUTS


def _syncs(folder: Path, baseline: str, number: int) -> int | None:
    strace = shutil.which("strace")
    if strace is None:
        return None
    trace = folder / "strace.txt"
    path = folder / f"{baseline}-{number}-puts.db"
    command = [strace, "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-o", str(trace)]
    command += [sys.executable, "-m", puts.__name__, baseline, str(path), str(number)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, timeout=60, check=False)
    return len(trace.read_text().splitlines()) if done.returncode == 0 else None
