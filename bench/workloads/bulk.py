"""Loading many entries into a new file."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from bench.baselines import RawSQLite, Sqlstate
from bench.entries import batches
from bench.measure import Side, Timing, compare
from bench.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run import Run

_TRANSACTIONS_PER_BLOCK: Final = 5


def bulk(run: Run) -> Iterator[Row]:
    """Load in the order of keys, and in random order."""
    rng = random.Random(0)
    numbers = range(run.scale.bulk)
    for name, order in (("ordered", "in key order"), ("random", "in random order")):
        ours: list[int] = []
        theirs: list[int] = []
        for _ in range(run.scale.passes):
            timing = _load(run, numbers if name == "ordered" else rng.sample(numbers, len(numbers)), rng)
            ours += timing.ours
            theirs += timing.theirs
        timing = Timing(ours, theirs, _TRANSACTIONS_PER_BLOCK)
        each, other = (mean / run.scale.batch for mean in timing.means)
        what = f"each of {run.scale.bulk:,} entries loaded {order}, {run.scale.batch:,} a transaction"
        yield Row(f"bulk/{name}", what, "ns", each, other, ratio=timing.ratio(sum), goal=run.goal(2.0))


def _load(run: Run, numbers: range | list[int], rng: random.Random) -> Timing:
    ours, theirs = Sqlstate(run.folder / "sqlstate-bulk.db"), RawSQLite(run.folder / "raw-bulk.db")
    arguments = batches(numbers, run.scale.batch, rng)
    ours.open()
    theirs.open()
    try:
        return compare(Side(ours.bulk, arguments), Side(theirs.bulk, arguments), block=_TRANSACTIONS_PER_BLOCK)
    finally:
        for baseline in (ours, theirs):
            baseline.close()
            baseline.path.unlink()
