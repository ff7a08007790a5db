"""Durable puts of many threads at once."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Final, cast

from bench import bursts
from bench.baselines import BASELINES
from bench.fleet import lock_of
from bench.measure import spread
from bench.report import Row, Sheet, of_spread
from bench.tracing import syncs_of_a_put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.baselines import Baseline, Sqlstate
    from bench.bursts import Burst
    from bench.report import Cell
    from bench.run import Run

JUDGED: Final = 16
"""Threads that the goals are for."""
CHANGES: Final = 10_000
"""Different puts of one burst."""

_TIMES: Final = {"lmdb": 3, "sqlstate": 3, "custom-wal": 10}
_REST: Final = 0.02


def threads(run: Run) -> Iterator[Row | Sheet]:
    """Measure every durable kind with 1 to 64 threads."""
    numbers = run.scale.threads
    judged = JUDGED if JUDGED in numbers else max(numbers)
    fleet = run.fleet(run.scale.reference)
    names = [name for name in fleet.stores if BASELINES[name].durable]
    stores = fleet.open(*names)
    locks = {name: lock_of(name) for name in names}
    counted = _Counted(stores["sqlstate-group"])
    found: dict[tuple[str, int], list[Burst]] = {(name, number): [] for number in numbers for name in names}
    for turn in range(run.scale.rounds):
        sides = list(found)
        start = turn * len(sides) // run.scale.rounds
        for name, number in sides[start:] + sides[:start]:
            changes = fleet.changes(CHANGES)
            time.sleep(_REST)
            counted.begin()
            burst = bursts.of_threads(stores[name].put, number, run.scale.burst, changes, locks[name])
            found[name, number].append(burst)
            if (name, number) == ("sqlstate-group", judged):
                counted.end()
    rates = {side: [burst.rate for burst in each] for side, each in found.items()}
    columns = [f"{each} thread{'s' if each > 1 else ''}" for each in numbers]
    sheet = Sheet("threads", f"Durable puts a second, {fleet.entries:,} entries", columns)
    cells: dict[str, list[Cell]] = {}
    for name in names:
        cells[name] = [of_spread(spread(rates[name, number]), "commits/s") for number in numbers]
        sheet.curves[BASELINES[name].title] = [(number, median(rates[name, number])) for number in numbers]
    sheet.lines.update(fleet.lines(cells, every=False))
    yield sheet
    yield from _judged(run, rates, judged)
    yield from _waits(found["sqlstate-group", judged], judged)
    yield from _syncs(run, judged, counted)


class _Counted:
    """What the store's own counters say of the bursts that it is told of."""

    def __init__(self, store: Baseline) -> None:
        self._store: Final = cast("Sqlstate", store).store
        self._before = (0, 0)
        self.syncs = self.transactions = 0

    def begin(self) -> None:
        counters = self._store.stats().counters
        self._before = counters.syncs, counters.transactions

    def end(self) -> None:
        counters = self._store.stats().counters
        self.syncs += counters.syncs - self._before[0]
        self.transactions += counters.transactions - self._before[1]


def _judged(run: Run, rates: dict[tuple[str, int], list[float]], number: int) -> Iterator[Row]:
    ours = rates["sqlstate-group", number]
    for name, times in _TIMES.items():
        kind = BASELINES[name]
        what = f'durable puts a second, {number} threads, mode="group", beside {kind.title}'
        goal = run.goal(times, least=True)
        theirs = rates.get((name, number))
        if theirs is None:
            yield Row(f"threads/{name}", what, "commits/s", None, None, goal=goal)
            continue
        ratio = spread([each / other for each, other in zip(ours, theirs, strict=True)])
        against = 'mode="full"' if name == "sqlstate" else name
        yield Row(f"threads/{name}", what, "commits/s", median(ours), median(theirs), against, ratio, goal)


def _waits(burst: list[Burst], number: int) -> Iterator[Row]:
    longest = spread([max(each.waits) for each in burst])
    usual = [median(each.waits) for each in burst]
    ratio = spread([max(each.waits) / median(each.waits) for each in burst])
    what = f"the longest put of a burst, {number} threads, beside the median one"
    yield Row("threads/wait", what, "ns", longest.median, median(usual), "median", ratio)


def _syncs(run: Run, number: int, counted: _Counted) -> Iterator[Row]:
    goal = run.goal(1 / 8, "figure")
    what = f'syncs of a put, {number} threads, mode="group"'
    traced = syncs_of_a_put(run.folder, "sqlstate-group", number)
    yield Row("threads/syncs", f"{what}, counted by strace", "syncs", traced, None, goal=goal)
    own = counted.syncs / counted.transactions if counted.transactions else None
    yield Row("threads/counted", f"{what}, by the store's counters, without strace", "syncs", own, None, goal=goal)
