"""Many random puts with one durability point."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Final, cast

from bench.baselines import BASELINES
from bench.measure import Side, Spread, in_turns
from bench.report import Cell, Row, Sheet, of_spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.baselines import Sqlstate
    from bench.measure import Blocks
    from bench.run import Run

_SIZES: Final = (10, 100, 1_000)
_BATCH: Final = "sqlstate, batch of transactions"
_CALLS: Final = 6  # of one turn
_NAMED: Final = {"sqlstate": "sqlstate, one transaction"}


def batch(run: Run) -> Iterator[Row | Sheet]:
    """Put 10, 100 and 1,000 random entries: in one transaction, and ours also in a batch of transactions."""
    fleet = run.fleet(run.scale.reference)
    took: dict[int, dict[str, Blocks]] = {}
    names = [name for name in fleet.stores if name != "sqlstate-group"]
    stores = fleet.open(*names)
    for size in _SIZES:
        calls = [(fleet.changes(size),) for _ in range(run.scale.rounds * _CALLS)]
        sides = {name: Side(store.bulk, calls) for name, store in stores.items()}
        # Other entries: a value that is there already is no change to our store.
        others = [(fleet.changes(size),) for _ in calls]
        sides["batch"] = Side(cast("Sqlstate", stores["sqlstate"]).batch, others)
        took[size] = in_turns(sides, run.scale.rounds, seconds=run.scale.turn)
    sheet = Sheet("batch", f"Each put of a batch, {fleet.entries:,} entries", [f"{size:,} puts" for size in _SIZES])
    for name, title in _titles().items():
        cells = [of_spread(_each(took[size][name], size), "ns") for size in _SIZES if name in took[size]]
        sheet.lines[title] = cells or [Cell("missing")] * len(_SIZES)
    yield sheet
    size = max(_SIZES)
    raw = took[size]["raw"]
    for name, what in (("sqlstate", "one transaction"), ("batch", "a batch of as many transactions")):
        blocks = took[size][name]
        ours_mean, raw_mean = fmean(blocks.calls), fmean(raw.calls)
        text = f"{size:,} random puts in {what}, {fleet.entries:,} entries"
        ratio = blocks.ratio(raw, fmean)
        yield Row(f"batch/{name}", text, "ns", ours_mean, raw_mean, "executemany", ratio, run.goal(4))


def _titles() -> dict[str, str]:
    """Return the lines of the sheet: a batch comes after our own transaction."""
    titles = {}
    for name, kind in BASELINES.items():
        if name != "sqlstate-group":
            titles[name] = _NAMED.get(name, kind.title)
        if name == "sqlstate":
            titles["batch"] = _BATCH
    return titles


def _each(blocks: Blocks, size: int) -> Spread:
    return Spread(*(value / size for value in blocks.usual))
