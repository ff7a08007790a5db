"""Several processes that change one entry."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from bench import counting
from bench.report import Cell, Row, Sheet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run import Run

_PROCESSES: Final = 4
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class _Counted:
    final: int
    least: float
    """Share of the process that had the fewest increments when the first one had all of its own."""
    worst: float
    """Seconds of the longest increment."""
    seconds: float


def processes(run: Run) -> Iterator[Row | Sheet]:
    """Increment one counter from four processes at once."""
    each = run.scale.increments
    columns = ("at the end", "smallest share", "longest wait", "increments a second")
    sheet = Sheet("processes", f"{_PROCESSES} processes, {each:,} increments each", columns)
    found = {name: _count(run.folder, name, each) for name in counting.COUNTERS}
    for name, counted in found.items():
        cells = [Cell(counted.final), Cell(counted.least, "share"), Cell(counted.worst, "seconds")]
        sheet.lines[counting.COUNTERS[name].title] = [*cells, Cell(counted.final / counted.seconds, "commits/s")]
    yield sheet
    ours = found["sqlstate"]
    total = _PROCESSES * each
    what = f"{_PROCESSES} processes increment one counter {each:,} times each:"
    exact = run.goal(total, "figure", least=True)
    yield Row("processes/final", f"{what} at the end", "number", ours.final, None, goal=exact)
    fair = run.goal(0.15, "figure", least=True)
    yield Row("processes/share", f"{what} smallest share", "share", ours.least, None, goal=fair)
    soon = run.goal(0.5, "figure")
    yield Row("processes/wait", f"{what} longest wait", "seconds", ours.worst, None, goal=soon)


def _count(folder: Path, name: str, each: int) -> _Counted:
    path = folder / f"counting-{name}.db"
    counter = counting.COUNTERS[name](path)
    counter.close()
    command = [sys.executable, "-m", counting.__name__, name, str(path), str(each)]
    children = [
        subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(_PROCESSES)
    ]
    for child in children:
        cast("IO[str]", child.stdout).readline()  # it has opened the store
    for child in children:
        stdin = cast("IO[str]", child.stdin)
        stdin.write("go\n")
        stdin.flush()
    spans: list[list[tuple[float, float]]] = [json.loads(child.communicate(timeout=600)[0]) for child in children]
    counter = counting.COUNTERS[name](path)
    final = counter.value()
    counter.close()
    if final > _PROCESSES * each:
        raise RuntimeError(f"{name} counted {final}, which is more than was asked for")
    first = min(own[-1][1] for own in spans)
    done = [sum(end <= first for _, end in own) for own in spans]
    began, ended = min(own[0][0] for own in spans), max(own[-1][1] for own in spans)
    worst = max(end - begin for own in spans for begin, end in own)
    return _Counted(final, min(done) / sum(done), worst, ended - began)
