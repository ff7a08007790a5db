"""Calls of fsync and fdatasync, counted from outside with strace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import puts

if TYPE_CHECKING:
    from collections.abc import Sequence

_PUTS: Final = 40
_ROOT: Final = Path(__file__).parents[1]


def syncs_of_a_put(folder: Path, baseline: str, threads: int = 1) -> float | None:
    """Return the syncs of one put, or None where strace is not there or not allowed to trace.

    With several threads a put has a part of a sync.
    """
    number = _PUTS if threads == 1 else _PUTS * threads * 2
    path = folder / f"traced-{baseline}-{threads}"
    count = _between_marks(folder, [baseline, str(path), str(number), "--threads", str(threads)])
    return None if count is None else count / (number - number % threads)


def _between_marks(folder: Path, arguments: Sequence[str]) -> int | None:
    """Count the syncs between the two calls of puts.mark(), so that those of opening and closing are left out."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    trace = folder / "strace.txt"
    # With seccomp-bpf only syncs stop for strace; else every call would, and threads would wait for each other.
    command = [
        strace,
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        "signal=none",
        "-o",
        str(trace),
    ]
    command += [sys.executable, "-m", puts.__name__, *arguments, "--marks"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, timeout=120, check=False)
    if done.returncode:
        return None
    # A call that another thread's interrupts has a second line, "<... fsync resumed>".
    calls = [line for line in trace.read_text().splitlines() if "resumed>" not in line]
    marks = [at for at, line in enumerate(calls) if f"({puts.MARK}" in line]
    return marks[1] - marks[0] - 1 if len(marks) == 2 else None
