"""The frame of the campaigns: their register, how their work is spread over processes, their table.

A campaign is a function that takes a Plan and returns a Result, registered by number:

    @campaign(6, "random kill -9", bar="0 lost", ci=100, long=10_000)
    def kills(plan: Plan) -> Result:
        return merged(spread(plan, one_kill, cases(plan)))

One run is fixed by its case: text that the campaign makes up, such as the run's seed, and takes back by
`--case`. A failure names its case, so that `python -m tests.crash --only 6 --case TEXT` replays just it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shlex
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

SEED: Final = 20_260_101
FAILURES_SHOWN: Final = 10
FAILURES_KEPT: Final = 200

# The module that registers each campaign.
MODULES: Final = {
    1: "powercut",
    2: "powercut",
    3: "powercut",
    4: "teeth",
    5: "sweep",
    6: "processes",
    7: "injected",
    8: "rot",
    9: "journals",
    10: "damaged",
    11: "processes",
    12: "sequences",
    13: "changed",
    14: "peeks",
    15: "left_scans",
    16: "left_scans",
    17: "interrupts",
    18: "raised_lines",
    19: "forks",
    20: "copies",
    21: "faults",
    22: "edits",
    23: "lost_sectors",
    24: "shared",
    25: "upkeep",
    26: "compacting",
}


class Miss(AssertionError):
    """A run missed the bar."""


def expect(holds: object, what: str) -> None:
    """Raise Miss if it does not hold."""
    if not holds:
        raise Miss(what)


def where(error: BaseException) -> str:
    """Return the lines of the traceback that lead to an error that no check of ours raised."""
    return "" if isinstance(error, Miss) else "\n" + "".join(traceback.format_tb(error.__traceback__)[-3:])


class Failure(NamedTuple):
    """A run that missed the bar."""

    case: str
    """What `--case` takes to run it again."""
    what: str


@dataclass
class Result:
    """What a campaign, or a part of one, found."""

    runs: int = 0
    failures: list[Failure] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """Figures by name, added up over the parts."""
    found: str = ""
    """The table's words; without it, the number of failures."""
    skipped: str = ""
    """Why the campaign could not be run here; it is no miss."""

    def miss(self, case: str, what: str) -> None:
        """Note a failure; of very many, only that there were more."""
        self.counts["failures"] += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append(Failure(case, what))


@dataclass(frozen=True)
class Plan:
    """What to run."""

    count: int
    """How many runs; what a run is, is the campaign's matter."""
    seed: int = SEED
    jobs: int = 1
    case: str = ""
    """Run only this one."""
    long: bool = False


class Campaign(NamedTuple):
    """One line of the table."""

    number: int
    title: str
    bar: str
    ci: int
    long: int
    run: Callable[[Plan], Result]


REGISTER: Final[dict[int, Campaign]] = {}


def campaign(
    number: int, title: str, *, bar: str, ci: int, long: int
) -> Callable[[Callable[[Plan], Result]], Callable[[Plan], Result]]:
    """Register a campaign.

    Args:
        number: its place in the table.
        title: what it does, in a few words.
        bar: what it must show.
        ci: its count of runs for each change; 0 where the campaign itself knows.
        long: its count of runs by hand.
    """

    def register(run: Callable[[Plan], Result]) -> Callable[[Plan], Result]:
        REGISTER[number] = Campaign(number, title, bar, ci, long, run)
        return run

    return register


def find(number: int) -> Campaign:
    """Return a campaign.

    Raises:
        KeyError: there is none of that number.
    """
    importlib.import_module(f"tests.crash.{MODULES[number]}")
    return REGISTER[number]


def default_jobs() -> int:
    """Return how many processes may work at once: the cores, or this test process's share of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def spread(plan: Plan, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what *work* makes of each item, in their order, from several processes if the plan has them.

    *work* is a function of a module, items and results can be pickled. The processes are spawned: a fork
    would carry SQLite's locks of open stores along.
    """
    work = partial(_noted, work)
    if plan.jobs <= 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.jobs, mp_context=context) as pool:
        yield from pool.map(work, items)


def _noted(work: Callable[[T], R], item: T) -> R:
    """Do the work; what it raises says of which part of the campaign it comes."""
    try:
        return work(item)
    except Exception as e:
        e.add_note(f"in the part {item!r:.500}")
        raise


def merged(parts: Iterable[Result]) -> Result:
    """Return the sum of *parts*."""
    whole = Result()
    for part in parts:
        whole.runs += part.runs
        whole.counts += part.counts
        whole.failures += part.failures[: FAILURES_KEPT - len(whole.failures)]
        whole.skipped = whole.skipped or part.skipped
    return whole


def scratch() -> Path:
    """Return the folder for short-lived stores: in memory where there is one, for then a sync costs nothing."""
    memory = Path("/dev/shm")  # noqa: S108, only the parent of folders with random names
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def run(number: int, **plan: Any) -> tuple[Campaign, Result, float]:
    """Run a campaign; *plan* is as Plan, its count by default that of CI. Returns the seconds it took too."""
    each = find(number)
    plan.setdefault("count", each.long if plan.get("long") else each.ci)
    plan.setdefault("jobs", default_jobs())
    if plan.get("case"):
        plan["jobs"] = 1
    begun = time.monotonic()
    try:
        result = each.run(Plan(**plan))
    except Exception as e:
        e.add_note(replay(number, plan.get("case", ""), plan.get("seed", SEED)))
        raise
    return each, result, time.monotonic() - begun


def figures(result: Result, *names: str) -> str:
    """Return some of the counts as the table's words."""
    return ", ".join([f"{result.counts[name]:,} {name}" for name in names])


def replay(number: int, case: str, seed: int) -> str:
    """Return the command that runs a case again, or the whole campaign with a seed if no case is known."""
    return f"python -m tests.crash --only {number} " + (f"--case {shlex.quote(case)}" if case else f"--seed {seed}")


def described(number: int, result: Result, seed: int) -> str:
    """Return the failures of a result with their commands, the first of them if there are many."""
    lines = [f"{each.what}\n    {replay(number, each.case, seed)}" for each in result.failures[:FAILURES_SHOWN]]
    more = max(result.counts["failures"], len(result.failures)) - len(lines)
    return "\n".join([*lines, f"… and {more} more"] if more > 0 else lines)


def check(number: int, **plan: Any) -> Result:
    """Run a campaign as a test: skip it where it cannot run, and fail with its failures.

    Raises:
        AssertionError: a run missed the bar.
    """
    import pytest  # noqa: PLC0415, `python -m tests.crash` does without

    _, result, _ = run(number, **plan)
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.runs, "the campaign ran nothing"
    assert not result.failures, described(number, result, plan.get("seed", SEED))
    return result
