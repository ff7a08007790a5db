"""Opening a cleanly closed store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.baselines import Sqlstate
from bench.entries import key
from bench.measure import Side, compare
from bench.report import timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.measure import Timing
    from bench.report import Row
    from bench.run import Pair, Run


def opening(run: Run) -> Iterator[Row]:
    """Open and close a large store against a small one, with and without a first read."""
    large, small = run.pair(run.scale.large), run.pair(run.scale.tiny)
    large.close()
    small.close()
    what = f"a store of {large.entries:,} entries, against {small.entries:,}"
    number = max(run.scale.operations // 20, 20)
    for name, does, call in (
        ("close", "open and close", _open_and_close),
        ("read", "open, read one entry and close", _open_and_read),
    ):
        timing = _compare(call, large, small, number)
        yield timed(f"open/{name}", f"{does} {what}", timing, against="small", goal=run.goal(1.3))


def _compare(call: Callable[[Sqlstate], None], large: Pair, small: Pair, number: int) -> Timing:
    warmup = number // 4
    ours, theirs = (Side(call, [(Sqlstate(pair.ours.path),)] * (number + warmup)) for pair in (large, small))
    return compare(ours, theirs, block=20, warmup=warmup)


def _open_and_close(store: Sqlstate) -> None:
    store.open()
    store.close()


def _open_and_read(store: Sqlstate) -> None:
    store.open()
    store.get(key(0))
    store.close()
