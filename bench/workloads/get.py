"""Reading one entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.measure import Side, compare
from bench.report import Row, timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run import Run

_GETS_PER_PUT: Final = 5


def get(run: Run) -> Iterator[Row]:
    """Get a random key that is there."""
    for size in sorted({run.scale.reference, run.scale.large}):
        pair = run.pair(size)
        ours, theirs = pair.steady()
        number = run.scale.operations * _GETS_PER_PUT
        warmup = number // 4
        keys = pair.keys(number + warmup)
        timing = compare(Side(ours.get, keys), Side(theirs.get, keys), warmup=warmup)
        goal = run.goal(2.0) if size == run.scale.reference else None
        yield timed(f"get/{size}", f"get, {size:,} entries", timing, goal=goal)
