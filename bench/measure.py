"""Times several sides against each other in one run, and says how far a ratio can be trusted."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from statistics import fmean, median, quantiles
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

BLOCK: Final = 200

Name = TypeVar("Name", bound="Hashable")


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
    with _as_a_user_has_it():
        for turn, pair in enumerate(zip(ours.arguments, theirs.arguments, strict=True)):
            for side in (0, 1) if turn % 2 else (1, 0):
                call, arguments = calls[side], pair[side]
                began = perf_counter_ns()
                call(*arguments)
                times[side].append(perf_counter_ns() - began - clock)
    return Timing(times[0][warmup:], times[1][warmup:], block)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Nanoseconds of every call of one of several sides, one list for each of its turns."""

    turns: Sequence[Sequence[int]]

    @property
    def calls(self) -> list[int]:
        """Every call."""
        return [each for turn in self.turns for each in turn]

    @property
    def usual(self) -> Spread:
        """The median call of a turn, as a median with quartiles over the turns."""
        return spread([median(turn) for turn in self.turns])

    def ratio(self, theirs: Blocks, statistic: Callable[[Sequence[int]], float] = median) -> Spread:
        """Return ours / theirs of each round, as a median with quartiles over the rounds."""
        pairs = zip(self.turns, theirs.turns, strict=True)
        return spread([statistic(ours) / statistic(other) for ours, other in pairs])


def percentile(values: Sequence[int], percent: float) -> float:
    """Return the value that *percent* of the values do not exceed."""
    ranked = sorted(values)
    return ranked[min(int(len(ranked) * percent / 100), len(ranked) - 1)]


def in_turns(
    sides: Mapping[Name, Side], rounds: int, *, seconds: float = float("inf"), rest: float = 0
) -> dict[Name, Blocks]:
    """Give each side a turn in each round, and time every call.

    A turn is a block of calls of one side, so that its code and data are in the processor's caches as they are in
    a program that uses one store. Each round begins with another side.

    Args:
        sides: what to call; a turn makes an equal part of a side's calls.
        rounds: turns of each side.
        seconds: a turn that has lasted so long ends; it has one call at least.
        rest: seconds to wait before each turn, for work that the side before left in the background.
    """
    names = list(sides)
    turns: dict[Name, list[list[int]]] = {name: [] for name in names}
    clock = _clock_cost()
    with _as_a_user_has_it():
        for number in range(rounds):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                time.sleep(rest)
                side = sides[name]
                block = len(side.arguments) // rounds
                arguments = side.arguments[number * block : (number + 1) * block]
                turns[name].append(_turn(side.call, arguments, clock, seconds))
    return {name: Blocks(each) for name, each in turns.items()}


def _turn(call: Callable[..., object], calls: Sequence[tuple[Any, ...]], clock: int, seconds: float) -> list[int]:
    times = []
    end = time.monotonic() + seconds
    for arguments in calls:
        began = perf_counter_ns()
        call(*arguments)
        times.append(perf_counter_ns() - began - clock)
        if time.monotonic() > end:
            break
    return times


@contextmanager
def _as_a_user_has_it() -> Iterator[None]:
    """Let the garbage collector run as it would for a user, without a walk through the benchmark's own lists."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@cache
def _clock_cost() -> int:
    """Return the nanoseconds that an empty measurement shows."""
    samples = []
    for _ in range(1001):
        began = perf_counter_ns()
        samples.append(perf_counter_ns() - began)
    return int(median(samples))
