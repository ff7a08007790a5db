"""The table that this project grew out of: 100 writes, plain and atomic."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from bench.baselines import BASELINES
from bench.entries import entries_of
from bench.measure import Side, in_turns, spread
from bench.report import Cell, Sheet, of_spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.baselines import Entry
    from bench.run import Run

_WRITES: Final = 100
_ROUNDS: Final = 5  # at most


def original(run: Run) -> Iterator[Sheet]:
    """Write 100 entries into an empty store of each kind."""
    took: dict[str, list[list[int]]] = {}
    for number in range(min(_ROUNDS, run.scale.rounds)):
        names = [name for name, kind in BASELINES.items() if not kind.missing]
        start = number % len(names)
        for name in names[start:] + names[:start]:
            took.setdefault(name, []).append(_writes(run, name, entries_of(range(_WRITES), run.rng)))
    sheet = Sheet("original", f"{_WRITES} writes into an empty store", ("average", "all", "overhead"))
    direct = [sum(turn) for turn in took["direct"]]
    for name, kind in BASELINES.items():
        if name not in took:
            sheet.lines[kind.title] = [Cell("missing")] * 3
            continue
        totals = [sum(turn) for turn in took[name]]
        over = spread([100 * (total / other - 1) for total, other in zip(totals, direct, strict=True)])
        average = spread([total / _WRITES for total in totals])
        cells = [of_spread(average, "ns"), Cell(spread(totals).median, "ns")]
        sheet.lines[kind.title] = [*cells, Cell("" if name == "direct" else f"{over.median:+,.0f} %")]
    yield sheet


def _writes(run: Run, name: str, entries: list[Entry]) -> list[int]:
    path = run.folder / f"original-{name}"
    store = BASELINES[name].make(path)
    store.open()
    try:
        times = in_turns({name: Side(store.put, entries)}, 1)[name].calls
    finally:
        store.close()
    for file in run.folder.glob(f"original-{name}*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return times
