"""How far the slowest puts are from the usual ones, checkpoints included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.baselines import BASELINES
from bench.measure import percentile, spread
from bench.report import Cell, Row, Sheet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run import Run

_NAMES: Final = ("sqlstate", "raw")
_PERCENTS: Final = (50, 90, 99, 99.9, 100)
_ROUNDS: Final = 10


def tail(run: Run) -> Iterator[Row | Sheet]:
    """Put so often that many checkpoints fall into it, in a few long turns."""
    fleet = run.fleet(run.scale.reference)
    rounds = min(_ROUNDS, run.scale.tail)
    sides = {name: store.put for name, store in fleet.open(*_NAMES).items()}
    took = fleet.measure(sides, fleet.changes(run.scale.tail), rounds, float("inf"))
    columns = [*(f"{percent:g} %" for percent in _PERCENTS), "99 % / 50 %"]
    sheet = Sheet("tail", f"Percentiles of {run.scale.tail:,} single puts, {fleet.entries:,} entries", columns)
    for name, blocks in took.items():
        every = blocks.calls
        cells = [Cell(percentile(every, percent), "ns") for percent in _PERCENTS]
        ratio = percentile(every, 99) / percentile(every, 50)
        sheet.lines[BASELINES[name].title] = [*cells, Cell(f"{ratio:.2f}")]
    yield sheet
    ours = took["sqlstate"]
    high, usual = percentile(ours.calls, 99), percentile(ours.calls, 50)
    within = spread([percentile(turn, 99) / percentile(turn, 50) for turn in ours.turns])
    what = f"99 % of {run.scale.tail:,} single puts are as fast as this, {fleet.entries:,} entries"
    goal = run.goal(3)
    yield Row("tail/p99", what, "ns", high, usual, "median", within._replace(median=high / usual), goal)
