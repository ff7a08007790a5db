"""Campaigns 1 to 3: every way in which a crash can leave the files, judged one by one."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlstate
from tests.crash.campaign import Plan, Result, campaign, merged, spread
from tests.crash.images import KINDS, Point, digest, images, points
from tests.crash.judge import Expectation, Judge, backup_in, expected
from tests.crash.vfs import RecordingVFS, Trace, watching_os
from tests.crash.workloads import (
    PROFILES,
    STORE,
    State,
    deterministic,
    fresh_folder,
    put_files,
    record,
    recoveries,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.crash.images import Files
    from tests.crash.vfs import Op

AT_ONCE: Final = 200
NESTED: Final = 40
"""Crashes during the recovery from one crash."""


class Part(NamedTuple):
    """Images of one recorded workload."""

    profile: str
    journal: str
    seed: int
    size: int
    """How many images."""
    only: Point | None = None
    nested: Point | None = None
    """The crash during recovery, if only that of one is wanted."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Of these kinds alone."""

    def case(self, point: Point) -> str:
        return f"{self.profile}:{self.journal}:{self.seed}:{point.position}:{point.kind}:{point.draw}"


def parts(plan: Plan, journal: str) -> Iterator[Part]:
    """Yield the plan's work in pieces, the profiles in turn."""
    if plan.case:
        case, _, nested = plan.case.partition("/")
        profile, journal, seed, *point = case.split(":")
        yield Part(profile, journal, int(seed), 1, _point(point), _point(nested.split(":")) if nested else None)
        return
    # Without SQLite's WAL, a reader that is held makes writers wait for ever.
    profiles = [profile for profile in PROFILES if journal == "wal" or profile != "readers"]
    for number, begin in enumerate(range(0, plan.count, AT_ONCE)):
        profile = profiles[number % len(profiles)]
        yield Part(profile, journal, plan.seed + number, min(AT_ONCE, plan.count - begin))


def _point(texts: Sequence[str]) -> Point:
    position, kind, draw = texts
    return Point(int(position), kind, int(draw))


def run_part(part: Part) -> Result:
    """Record a workload and judge some of the images that crashes in it leave."""
    result = Result()
    name = f"{part.profile}:{part.journal}:{part.seed}"
    judge = Judge()
    with fresh_folder() as folder, fresh_folder() as place:
        recording = record(folder, part.profile, part.journal, name)
        ops = recording.trace.ops
        for point, files in _distinct(part, list(points(ops)), ops, name):
            put_files(place, files)
            expectation = expected(recording.steps, point.position, point.kind, part.journal)
            expectation.store_id = recording.store_id
            findings = judge.judge(place, expectation).findings
            result.runs += 1
            result.counts[f"kind {point.kind}"] += 1
            # A reader who is held delays the marker: crash-safety.md, "What is not promised".
            marked = part.journal == "wal" and part.profile != "readers"
            if marked and point.kind == "prefix" and expectation.created and files.get(f"{STORE}-wal"):
                put_files(place, {STORE: files[STORE]})
                findings += judge.judge_alone(place, expectation)
            for finding in findings:
                result.miss(part.case(point), f"{part.case(point)}: {finding}")
    result.counts["judged whole"] = judge.deep
    return result


def _distinct(
    part: Part, every: list[Point], ops: list[Op], seed: str, start: Files | None = None
) -> Iterator[tuple[Point, Files]]:
    """Yield as many images as the part wants, drawn from all and different from one another.

    What the shared memory holds makes no image another: SQLite does not read it after a crash.
    """
    if part.only is not None:
        yield part.only, next(images(ops, [part.only], seed, start))
        return
    every = [point for point in every if point.kind in part.kinds]
    random.Random(seed).shuffle(every)  # noqa: S311, no secret
    seen: set[tuple[bytes, int]] = set()
    for begin in range(0, len(every), part.size):
        chosen = sorted(every[begin : begin + part.size])
        for point, files in zip(chosen, images(ops, chosen, seed, start), strict=True):
            key = digest({name: data for name, data in files.items() if not name.endswith("-shm")}), point.position
            if key not in seen:
                seen.add(key)
                yield point, files
            if len(seen) == part.size:
                return


def run_nested(part: Part) -> Result:
    """Crash, and crash again while the first crash is recovered from; end as without the second one."""
    result = Result()
    name = f"{part.profile}:{part.journal}:{part.seed}"
    judge = Judge()
    with fresh_folder() as folder, fresh_folder() as place:
        recording = record(folder, part.profile, part.journal, name)
        ops = recording.trace.ops
        first = part._replace(size=max(1, part.size // NESTED))
        for point, files in _distinct(first, list(points(ops)), ops, name):
            expectation = expected(recording.steps, point.position, point.kind, part.journal)
            if not expectation.created:
                continue
            trace, reference = _recovery(place, files, name)
            if reference is None or not trace.ops:
                continue
            done = _done(place)
            put_files(place, files)
            expectation = Expectation([reference], reported=False)
            seed = f"{name}:{point}"
            inner = part._replace(size=NESTED, only=part.nested)
            for second, left in _distinct(inner, list(points(trace.ops, files)), trace.ops, seed, files):
                put_files(place, left)
                found = judge.judge(place, expectation)
                result.runs += 1
                if any(each.startswith(_REFUSED) and "header of its -wal" in each for each in found.findings):
                    result.counts["refused"] += 1
                    put_files(place, left)
                    found = judge.judge(place, replace(expectation, damage="header"), recover="accept")
                case = f"{part.case(point)}/{second.position}:{second.kind}:{second.draw}"
                for finding in found.findings or _differs(done, place):
                    result.miss(case, f"{case}: {finding}")
    result.counts["judged whole"] = judge.deep
    return result


# A header of the -wal that one crash tore, and a power cut in the recovery from it, can leave nothing that tells
# whether the -wal held commits that the file lacks. It is refused then; told to accept it, nothing may be lost.
_REFUSED: Final = "REFUSED: JournalDamaged: "
_REFUSED_MAX: Final = 0.01  # of the runs


def _recovery(place: Path, files: Files, seed: str) -> tuple[Trace, State | None]:
    """Recover from *files*; return what that did, and the state that it led to, None if it failed."""
    put_files(place, files)
    backup = backup_in(place)
    trace = Trace(place, STORE, files)
    vfs = RecordingVFS(trace)
    with deterministic(f"{seed}:recovery"), watching_os(trace):
        try:
            with sqlstate.open(place / STORE, vfs=vfs.name) as store:
                head = store.head()
                entries = {(name, key): stored(value) for name in store for key, value in store[name].items()}
                state = State(head.seq, head.chain, head.root, entries, frozenset(), recoveries(store), backup)
        except sqlstate.StoreError:  # campaigns 1 and 2 find that
            return trace, None
        finally:
            trace.close()
    return trace, state


def _done(place: Path) -> Counter[tuple[str, object]]:
    """Return what recoveries say that they did, and how often it was said."""
    with sqlstate.open(place / STORE) as store:
        return Counter(
            (what, each)
            for entry in store.audit()
            for what in ("rolled_back", "removed")
            for each in (entry.detail.get(what, ()) if entry.kind == "recovery" else ())
        )


def _differs(done: Counter[tuple[str, object]], place: Path) -> Iterator[str]:
    """Find what the recoveries say otherwise than the one that nothing interrupted: each thing is done once."""
    now = _done(place)
    for (what, each), times in sorted((now - done).items(), key=repr):
        yield f"AUDIT: {each} is said to be {what} {times} times more than it was"
    for (what, each), _ in sorted((done - now).items(), key=repr):
        yield f"AUDIT: {each} was {what}, and no entry says so"


@campaign(1, "crash images, WAL", bar="0 lost, mixed, corrupt, wrong", ci=3_600, long=1_000_000)
def wal_images(plan: Plan) -> Result:
    """Crash images of stores in WAL mode, synchronous=FULL."""
    return merged(spread(plan, run_part, parts(plan, "wal")))


@campaign(2, "crash images, rollback journal", bar="0 lost, mixed, corrupt, wrong", ci=1_600, long=300_000)
def journal_images(plan: Plan) -> Result:
    """Crash images of stores with a rollback journal, synchronous=EXTRA."""
    return merged(spread(plan, run_part, parts(plan, "delete")))


@campaign(3, "a crash during recovery", bar="0, same final root; refused <= 1 %", ci=1_500, long=100_000)
def nested_images(plan: Plan) -> Result:
    """Crash images of the recovery from a crash image, in both journal modes."""
    # Some crashes need no recovery, and many crashes of a short recovery leave the same files.
    halves = (replace(plan, count=plan.count * 5 // 4), "wal"), (replace(plan, count=plan.count // 2), "delete")
    every = [part for half, journal in halves for part in parts(half, journal)]
    result = merged(spread(plan, run_nested, every[:1] if plan.case else every))
    refused = result.counts["refused"]
    result.found = f"{result.counts['failures']} bad; {refused} refused for a header lost twice"
    if refused > max(3, result.runs * _REFUSED_MAX):
        result.miss("refused", f"refused {refused} times, and nothing was missing")
    return result
