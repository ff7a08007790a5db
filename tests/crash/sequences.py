"""Campaign 12: all short sequences of operations, with a crash after each and in the middle of each."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlstate
from tests.crash.campaign import Plan, Result, campaign, merged, spread
from tests.crash.images import Disk, Point, digest, images
from tests.crash.judge import Judge, expected
from tests.crash.vfs import Memory, RecordingVFS, Trace, watching_os
from tests.crash.workloads import STORE, Profile, Work, deterministic, fresh_folder, put_files, tuned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.images import Files
    from tests.crash.workloads import State, Step

OPERATIONS: Final = ("put", "delete", "many", "staged", "draft", "checkpoint", "backup")
RARE: Final = ("clear", "replace", "restored", "prove", "compact")
"""At the short count, each of these comes by itself, before and after a put."""
SMALL: Final = Profile(0, {}, checkpoint_pages=1000)


class Part(NamedTuple):
    """One sequence."""

    operations: tuple[str, ...]
    journal: str
    seed: int

    @property
    def case(self) -> str:
        return f"{'+'.join(self.operations)}:{self.journal}:{self.seed}"


def parts(plan: Plan) -> Iterator[Part]:
    """Yield every sequence up to the plan's length."""
    if plan.case:
        case, journal, seed = plan.case.split(":")
        yield Part(tuple(case.split("+")), journal, int(seed))
        return
    for length in range(plan.count, 0, -1):
        for operations in itertools.product(OPERATIONS + RARE, repeat=length):
            if plan.long or not set(operations) & set(RARE) or set(operations) - set(RARE) <= {"put"}:
                yield from (Part(operations, journal, plan.seed) for journal in ("wal", "delete"))


def run_part(part: Part) -> Result:
    """Judge one sequence in both ways."""
    result = Result()
    judge = Judge()
    with fresh_folder() as folder, fresh_folder() as place, tuned(SMALL):
        for way in (_straight, _one_by_one):
            for finding in way(part, folder, place, judge, result):
                result.miss(part.case, f"{part.case}: {finding}")
    return result


def _straight(part: Part, folder: Path, place: Path, judge: Judge, result: Result) -> Iterator[str]:
    """Do all operations in one go; kill, and cut the power, at each point since the last began."""
    trace = Trace(folder, STORE)
    vfs = RecordingVFS(trace)
    with deterministic(part.case), watching_os(trace):
        work = Work(folder / STORE, part.case, trace.where, vfs=vfs.name, journal=part.journal)
        work.do("many")
        for operation in part.operations:
            begin = trace.where()
            work.do(operation)
        end = trace.where()
        store_id = work.store.store_id
        work.finish()
        trace.close()
    every = [
        Point(position, kind, 0)
        for position in range(begin, end + 1)
        for kind in ("prefix", "drop")
        if position == end or not isinstance(trace.ops[position], Memory)
    ]
    seen = set()
    for point, files in zip(every, images(trace.ops, every, part.case), strict=True):
        key = digest(files), point.position
        if key in seen:
            continue
        seen.add(key)
        put_files(place, files)
        expectation = expected(work.steps, point.position, point.kind, part.journal)
        expectation.store_id = store_id
        result.runs += 1
        for finding in judge.judge(place, expectation).findings:
            yield f"{point.kind} at {point.position}: {finding}"


def _one_by_one(part: Part, folder: Path, place: Path, judge: Judge, result: Result) -> Iterator[str]:
    """Crash after each operation, and go on with what the recovery left."""
    files: Files = {}
    state: State | None = None
    for number, operation in enumerate(("many", *part.operations)):
        seed = f"{part.case}:{number}"
        put_files(folder, files)
        try:
            trace, steps = _one(part.journal, operation, seed, folder, (files, state))
        except sqlstate.StoreError as e:
            yield f"crash {number}: {type(e).__name__}: {e}"
            return
        disk = Disk(files)
        end = steps[-1].end
        for op in trace.ops[:end]:
            disk.do(op)
        rng = random.Random(seed)  # noqa: S311, no secret
        kind = rng.choice(("prefix", "drop"))
        files, state = disk.image(kind, rng), steps[-1].after
        put_files(place, files)
        result.runs += 1
        for finding in judge.judge(place, expected(steps, end, kind, part.journal)).findings:
            yield f"crash {number + 1}, {kind} after {operation}: {finding}"


def _one(
    journal: str, operation: str, seed: str, folder: Path, before: tuple[Files, State | None]
) -> tuple[Trace, list[Step]]:
    """Open what a crash left, and do one operation."""
    files, state = before
    trace = Trace(folder, STORE, files)
    vfs = RecordingVFS(trace)
    with deterministic(seed), watching_os(trace):
        work = Work(folder / STORE, seed, trace.where, found=state, vfs=vfs.name, journal=journal)
        work.do(operation)
        work.finish()
        trace.close()
    return trace, work.steps


@campaign(12, "all sequences of operations", bar="0 lost, mixed, corrupt, wrong", ci=2, long=3)
def sequences(plan: Plan) -> Result:
    """Every sequence of operations; the count is their greatest length."""
    return merged(spread(plan, run_part, parts(plan)))
