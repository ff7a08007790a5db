"""What else a store does: load, get, scan, open, open after a kill; and its size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import fmean
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from bench import puts
from bench.baselines import BASELINES
from bench.entries import key
from bench.measure import Spread, spread
from bench.report import Cell, Sheet, of_spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.baselines import Baseline
    from bench.fleet import Fleet
    from bench.run import Run

_COLUMNS: Final = (
    "load, an entry",
    "get",
    "scan, an entry",
    "open, read, close",
    "open after a kill",
    "size, an entry",
)
_GETS: Final = 500  # of one turn
_KILLED_PUTS: Final = 100
_ROOT: Final = Path(__file__).parents[2]


def others(run: Run) -> Iterator[Sheet]:
    """Measure all of it, for every kind."""
    fleet = run.fleet(run.scale.reference)
    cells: dict[str, list[Cell]] = {}
    for name, blocks in fleet.loads.items():
        each = fmean(blocks.calls) * len(blocks.calls) / fleet.entries
        cells[name] = [Cell(each, "ns")]
    rounds = run.scale.rounds
    stores = fleet.open(worn=False)
    keys = [(name,) for name, _ in fleet.changes(_GETS * rounds)]
    gets = fleet.measure({name: store.get for name, store in stores.items()}, keys, rounds, run.scale.turn)
    none: list[tuple[object, ...]] = [()] * rounds
    few = max(rounds // 4, 1)  # one scan takes seconds in some
    scans = fleet.measure({name: store.scan for name, store in stores.items()}, none[:few], few, run.scale.turn)
    fleet.close()
    opens = fleet.measure({name: _Opening(store) for name, store in fleet.stores.items()}, none, rounds, run.scale.turn)
    killed = {name: _after_kill(fleet, name, run.scale.kills) for name in fleet.stores}
    for name, line in cells.items():
        line.append(of_spread(gets[name].usual, "ns"))
        line.append(of_spread(Spread(*(value / fleet.entries for value in scans[name].usual)), "ns"))
        line.append(of_spread(opens[name].usual, "ns"))
        line.append(of_spread(killed[name], "ns"))
        line.append(Cell(fleet.sizes[name] / fleet.entries, "bytes"))
    sheet = Sheet("others", f"What else a store does, {fleet.entries:,} entries", _COLUMNS)
    sheet.lines.update(fleet.lines(cells))
    yield sheet


class _Opening:
    """Opening a store that was closed cleanly, reading one entry, and closing it."""

    def __init__(self, store: Baseline) -> None:
        self._store: Final = store

    def __call__(self) -> None:
        self._store.open()
        self._store.get(key(0))
        self._store.close()


def _after_kill(fleet: Fleet, name: str, times: int) -> Spread:
    """Return what opening takes, up to the first read, after a process was killed that had just put entries.

    Raises:
        RuntimeError: a put that had returned is not there; a kill may lose none of any kind measured here.
    """
    took = []
    store = fleet.stores[name]
    number = min(_KILLED_PUTS if BASELINES[name].threads == "own" else _KILLED_PUTS // 10, fleet.entries)
    for _ in range(times):
        arguments = [name, str(store.path), str(number), "--kill"]
        subprocess.run([sys.executable, "-m", puts.__name__, *arguments], cwd=_ROOT, check=False, timeout=600)
        began = perf_counter_ns()
        store.open()
        value = store.get(key(number - 1))
        took.append(perf_counter_ns() - began)
        store.close()
        if value != puts.value(number - 1):
            raise RuntimeError(f"{BASELINES[name].title} lost a put in a kill: the figures are of different work")
    return spread(took)
