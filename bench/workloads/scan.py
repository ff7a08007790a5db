"""Reading a whole collection, and counting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measure import Side, compare
from bench.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run import Run


def scan(run: Run) -> Iterator[Row]:
    """Iterate over all entries in order; count them."""
    pair = run.pair(run.scale.reference)
    ours, theirs = pair.steady()
    times: list[tuple[()]] = [()] * (run.scale.passes * 5 + 1)
    timing = compare(Side(ours.scan, times), Side(theirs.scan, times), block=1, warmup=1)
    each, other = (median / pair.entries for median in timing.medians)
    what = f"each of {pair.entries:,} entries in items()"
    yield Row("scan/items", what, "ns", each, other, ratio=timing.ratio())
    times *= 10
    timing = compare(Side(ours.count, times), Side(theirs.count, times), block=10, warmup=10)
    each, other = timing.medians
    yield Row("scan/len", f"len() of {pair.entries:,} entries", "ns", each, other, "count(*)", timing.ratio())
