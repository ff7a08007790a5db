"""A single durable put in every kind of store, at several sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.baselines import BASELINES
from bench.measure import percentile
from bench.report import Cell, Sheet, in_turn, of_spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Blocks
    from bench.report import Row
    from bench.run import Run

_FASTER_THAN: Final = ("sqlitedict", "zodb", "custom-wal")
_CURVE: Final = (0, 1, 5, 10, 25, 40, 50, 60, 75, 80, 85, 90, 93, 95, 97, 98, 99, 99.5, 99.9)
_SHOWN: Final = (50, 90, 99)


def peers(run: Run) -> Iterator[Row | Sheet]:
    """Put changed values, and show the cost over the size and the distribution."""
    took: dict[int, dict[str, Blocks]] = {}
    for size in run.scale.sizes:
        fleet = run.fleet(size)
        changes = fleet.changes(run.scale.rounds * run.scale.puts)
        sides = {name: store.put for name, store in fleet.open().items()}
        took[size] = fleet.measure(sides, changes, run.scale.rounds, run.scale.turn)
    yield _sizes(took)
    reference = took[run.scale.reference]
    yield _latency(run.scale.reference, reference)
    ours = reference["sqlstate"]
    for name in _FASTER_THAN:
        what = f"put a changed value, {run.scale.reference:,} entries, beside {BASELINES[name].title}"
        yield in_turn(f"peers/{name}", what, ours, reference.get(name), name, run.goal(1))
    group = reference["sqlstate-group"]
    yield in_turn("peers/group", 'the same put of one thread in mode="group", beside mode="full"', group, ours, "full")


def _sizes(took: dict[int, dict[str, Blocks]]) -> Sheet:
    columns = [f"{size:,} entries" for size in took]
    sheet = Sheet("sizes", "A single put", [*columns, "of sqlstate's"])
    last = max(took)
    for name, kind in BASELINES.items():
        if kind.missing:
            sheet.lines[kind.title] = [Cell("missing")] * (len(columns) + 1)
            continue
        medians = {size: each[name].usual for size, each in took.items()}
        ratio = took[last][name].ratio(took[last]["sqlstate"]).median
        sheet.lines[kind.title] = [*(of_spread(each, "ns") for each in medians.values()), Cell(f"{ratio:.2f}")]
        if kind.durable:
            sheet.curves[kind.title] = [(size, each.median / 1000) for size, each in medians.items()]
    return sheet


def _latency(size: int, took: dict[str, Blocks]) -> Sheet:
    sheet = Sheet("latency", f"Percentiles of single puts, {size:,} entries", [f"{percent} %" for percent in _SHOWN])
    for name, kind in BASELINES.items():
        if not kind.durable:
            continue
        if name not in took:
            sheet.lines[kind.title] = [Cell("missing")] * len(_SHOWN)
            continue
        every = took[name].calls
        sheet.lines[kind.title] = [Cell(percentile(every, percent), "ns") for percent in _SHOWN]
        sheet.curves[kind.title] = [(percent, percentile(every, percent) / 1000) for percent in _CURVE]
    return sheet
