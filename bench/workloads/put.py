"""Single durable writes."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from bench.measure import Side, compare
from bench.report import Row, timed
from bench.run import wal_pages
from sqlstate.sqlite.checkpoints import CHECKPOINT_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Timing
    from bench.run import Run

# So many commits of up to a dozen pages each, and SQLite's WAL still grows with every one.
_GROWING: Final = CHECKPOINT_PAGES // 12


def put(run: Run) -> Iterator[Row]:
    """Put a changed value, at several sizes; insert and delete; pages written; cost against size."""
    for size in run.scale.sizes:
        timing = _at(run, size)
        goal = run.goal(1.5) if size == run.scale.reference else None
        yield timed(f"put/{size}", f"put a changed value, {size:,} entries", timing, goal=goal)
        if size == run.scale.reference:
            ours, theirs = timing.means
            ratio = timing.ratio(fmean)
            yield Row("put/mean", "the same, mean: with checkpoints", "ns", ours, theirs, ratio=ratio)
    yield _growing(run)
    yield from _frames(run)
    yield _against_size(run)
    yield from _insert_and_delete(run)


def _at(run: Run, size: int) -> Timing:
    pair = run.pair(size)
    ours, theirs = pair.steady()
    warmup = run.scale.operations // 4
    changes = pair.changes(run.scale.operations + warmup)
    timing = compare(Side(ours.put, changes), Side(theirs.put, changes), warmup=warmup)
    for name, value in dict(changes).items():
        if not ours.get(name) == theirs.get(name) == value:
            raise RuntimeError(f"{name} does not hold what was put: the figures are of different work")
    return timing


def _growing(run: Run) -> Row:
    pair = run.pair(run.scale.reference)
    ours, theirs = pair.fresh()
    changes = pair.changes(min(run.scale.operations, _GROWING))
    timing = compare(Side(ours.put, changes), Side(theirs.put, changes), block=50)
    return timed("put/growing", f"the first {len(changes)} puts after opening, {pair.entries:,} entries", timing)


def _frames(run: Run) -> Iterator[Row]:
    pair = run.pair(run.scale.reference)
    changes = pair.changes(min(run.scale.operations, _GROWING))
    frames: list[list[int]] = []
    for baseline in pair.fresh():
        pages = [0]
        for name, value in changes:
            baseline.put(name, value)
            pages.append(wal_pages(baseline.path))
        frames.append([after - before for before, after in pairwise(pages)])
    what = f"pages written to SQLite's WAL by a put, {pair.entries:,} entries"
    ours, theirs = frames
    yield Row("put/frames", what, "frames", median(ours), median(theirs), goal=run.goal(6, "figure"))
    yield Row("put/frames-mean", "the same, mean", "frames", fmean(ours), fmean(theirs))


def _against_size(run: Run) -> Row:
    large, small = run.pair(run.scale.large), run.pair(run.scale.small)
    number = run.scale.operations
    warmup = number // 4
    timing = compare(
        Side(large.steady()[0].put, large.changes(number + warmup)),
        Side(small.steady()[0].put, small.changes(number + warmup)),
        warmup=warmup,
    )
    what = f"put a changed value, {large.entries:,} entries, against {small.entries:,}"
    return timed("put/size", what, timing, against="small", goal=run.goal(1.3))


def _insert_and_delete(run: Run) -> Iterator[Row]:
    pair = run.pair(run.scale.reference)
    ours, theirs = pair.steady()
    warmup = run.scale.operations // 10
    additions = pair.additions(run.scale.operations // 2 + warmup)
    timing = compare(Side(ours.put, additions), Side(theirs.put, additions), warmup=warmup)
    yield timed("put/insert", f"put a new key, {pair.entries:,} entries", timing)
    removals = pair.shuffled(additions)
    timing = compare(Side(ours.delete, removals), Side(theirs.delete, removals), warmup=warmup)
    yield timed("put/delete", f"delete a key, {pair.entries:,} entries", timing)
