"""Times two sides against each other in one run, and says how far the ratio can be trusted."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import cache
from statistics import fmean, median, quantiles
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCK: Final = 200


class Side(NamedTuple):
    """One of the two: what is called, and the arguments of each call."""

    call: Callable[..., object]
    arguments: Sequence[tuple[Any, ...]]


class Spread(NamedTuple):
    """A median with its quartiles."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Nanoseconds of every call of both sides, in the order in which they ran."""

    ours: Sequence[int]
    theirs: Sequence[int]
    block: int

    @property
    def medians(self) -> tuple[float, float]:
        """Median call of each side."""
        return median(self.ours), median(self.theirs)

    @property
    def means(self) -> tuple[float, float]:
        """Mean call of each side."""
        return fmean(self.ours), fmean(self.theirs)

    def ratio(self, statistic: Callable[[Sequence[int]], float] = median) -> Spread:
        """Return ours / theirs of each block, as a median with quartiles over the blocks.

        The two sides of a block ran within the same second, so what else the machine did met both.
        """
        starts = range(0, len(self.ours), self.block)
        blocks = [slice(start, start + self.block) for start in starts]
        return spread([statistic(self.ours[block]) / statistic(self.theirs[block]) for block in blocks])


def spread(values: Sequence[float]) -> Spread:
    """Return the median of *values* with its quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*quantiles(values, n=4, method="inclusive"))


def compare(ours: Side, theirs: Side, *, block: int = BLOCK, warmup: int = 0) -> Timing:
    """Call both sides in turn, each first as often as the other, and time every call.

    Args:
        ours: one side.
        theirs: the other, with as many calls.
        block: calls of each side that make one ratio.
        warmup: calls of each side that are made first and not counted.
    """
    calls = ours.call, theirs.call
    times: tuple[list[int], list[int]] = [], []
    clock = _clock_cost()
    gc.collect()
    gc.freeze()  # the collector runs as it would for a user, but does not walk through the benchmark's own lists
    try:
        for turn, pair in enumerate(zip(ours.arguments, theirs.arguments, strict=True)):
            for side in (0, 1) if turn % 2 else (1, 0):
                call, arguments = calls[side], pair[side]
                began = perf_counter_ns()
                call(*arguments)
                times[side].append(perf_counter_ns() - began - clock)
    finally:
        gc.unfreeze()
    return Timing(times[0][warmup:], times[1][warmup:], block)


@cache
def _clock_cost() -> int:
    """Return the nanoseconds that an empty measurement shows."""
    samples = []
    for _ in range(1001):
        began = perf_counter_ns()
        samples.append(perf_counter_ns() - began)
    return int(median(samples))
