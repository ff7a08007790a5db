"""Campaign 24: a power cut under several processes that share one store: threads in groups, tasks, batches, drafts.

Method: strace writes down what real processes do to the folder, and between it what each says that it was told is
durable. Images of power cuts are made of that, as in campaigns 1 to 3, and each is opened. A writer counts its
transactions in two entries, in one transaction: so both are equal, and between what it said that it has and what it
said that it tries.

A case is `JOURNAL:SEED:POSITION:KIND:DRAW`; the seed fixes what is written, and not how the processes take turns, so
a failure may need a few replays.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from sqlstate import aio
from tests import ROOT
from tests.crash.campaign import Plan, Result, campaign, expect, merged, scratch, spread, where
from tests.crash.images import Point
from tests.crash.injected import missing_strace
from tests.crash.processes import Workload
from tests.crash.traced import images_of, told, traced
from tests.crash.workloads import STORE, fresh_folder, put_files
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.crash.traced import Traced

IMAGES: Final = 300
"""Of one recording."""
COMMITS: Final = 8
"""Of each writer in one session."""
SESSIONS: Final = 2
PAGES: Final = 24
"""After so many pages in SQLite's WAL comes a checkpoint."""


# ---- The processes ----


def write(how: str, path: str, journal: str, seed: str) -> None:
    """Be one process: open the store, write, close it, and once more."""
    Workload(path, journal, pages=PAGES).apply()
    for session in range(SESSIONS):
        rng = random.Random(f"{seed}:{how}:{session}")  # noqa: S311, no secret
        if how == "tasks":
            asyncio.run(tasks(path, journal, rng))
            continue
        mode = "group" if how == "threads" else "full"
        with sqlstate.open(path, journal=journal, mode=mode, timeout=60) as store:  # type: ignore[arg-type]
            WRITERS[how](store, rng)


def singly(store: sqlstate.Store, rng: random.Random) -> None:
    """Commit one transaction after the other; sometimes a draft is begun that nobody ends."""
    writer = Writer("singly", store["n"].get("singly", 0))
    for _ in range(COMMITS):
        with writer.trying(), store.transaction() as txn:
            writer.fill(txn.put, rng)
        if rng.random() < 0.2:
            store.stage("left").put("draft", "left", 1)


def threads(store: sqlstate.Store, rng: random.Random) -> None:
    """Commit from three threads, in groups."""

    def run(name: str, rng: random.Random) -> None:
        writer = Writer(name, store["n"].get(name, 0))
        for _ in range(COMMITS):
            with writer.trying(), store.transaction() as txn:
                writer.fill(txn.put, rng)

    every = [
        threading.Thread(target=run, args=(f"thread {number}", random.Random(rng.random())))  # noqa: S311, no secret
        for number in range(3)
    ]
    for each in every:
        each.start()
    for each in every:
        each.join()


def batches(store: sqlstate.Store, rng: random.Random) -> None:
    """Commit batches, with a flush in the middle."""
    writer = Writer("batches", store["n"].get("batches", 0))
    for _ in range(COMMITS // 2):
        with store.batch() as batch:
            with writer.trying():
                writer.fill(batch.put, rng)
                batch.flush()
            writer.try_(2)
            for _ in range(2):
                with batch.transaction() as txn:
                    writer.fill(txn.put, rng)
        writer.has()


def drafts(store: sqlstate.Store, rng: random.Random) -> None:
    """Commit staged transactions."""
    writer = Writer("drafts", store["n"].get("drafts", 0))
    for _ in range(COMMITS):
        with writer.trying(), store.stage("draft") as draft:
            writer.fill(draft.put, rng)


async def tasks(path: str, journal: str, rng: random.Random) -> None:
    """Commit from three tasks."""
    async with aio.open(path, journal=journal, timeout=60) as store:  # type: ignore[arg-type]

        async def run(name: str, rng: random.Random) -> None:
            writer = Writer(name, await store["n"].get(name, 0))
            for _ in range(COMMITS):
                with writer.trying():
                    async with store.transaction() as txn:
                        writer.fill(txn.put, rng)

        await asyncio.gather(
            *(run(f"task {number}", random.Random(rng.random())) for number in range(3))  # noqa: S311, no secret
        )


WRITERS: Final[dict[str, Callable[[sqlstate.Store, random.Random], None]]] = {
    "singly": singly, "threads": threads, "batches": batches, "drafts": drafts,
}  # fmt: skip


class Writer:
    """Counts the transactions of one writer, and says each count before it is tried and once it is durable."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count

    def try_(self, more: int) -> None:
        """Say that *more* transactions begin."""
        self._say("try", self._count + more)

    def has(self) -> None:
        """Say that all of them are durable."""
        self._say("has", self._count)

    def trying(self) -> _Trying:
        """Say both of one transaction, which the block makes."""
        return _Trying(self)

    def fill(self, put: Callable[[str, Any, Any], None], rng: random.Random) -> None:
        """Make the next transaction."""
        self._count += 1
        put("n", self._name, self._count)
        for _ in range(rng.choice((0, 1, 4))):
            put("data", f"{self._name}/{rng.randrange(40)}", "x" * rng.randrange(400))
        put("m", self._name, self._count)

    def _say(self, what: str, count: int) -> None:
        os.write(1, json.dumps((what, self._name, count)).encode() + b"\n")


class _Trying:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        self._writer.try_(1)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._writer.has()


def launch(path: str, journal: str, seed: str) -> None:
    """Start the processes, and wait for their ends."""
    store = sqlstate.open(path, journal=journal)  # type: ignore[arg-type]
    os.write(1, json.dumps(("made", "", 0)).encode() + b"\n")
    store.close()
    kinds = random.Random(seed).sample([*WRITERS, "tasks"], 3)  # noqa: S311, no secret
    every = [
        subprocess.Popen([sys.executable, "-m", "tests.crash.shared", kind, path, journal, seed], cwd=ROOT)
        for kind in kinds
    ]
    failed = [kind for kind, each in zip(kinds, every, strict=True) if each.wait()]
    expect(not failed, f"{failed} ended with an error")


# ---- What a crash leaves ----


def judge(folder: Path, recording: Traced, point: Point) -> Iterator[str]:
    """Yield what is wrong with the store that a crash left in *folder*."""
    said = [json.loads(line) for line in told(recording.said, point.position)]
    path = folder / STORE
    if not any(what == "made" for what, _, _ in said):
        return
    tried: Counter[str] = Counter()
    has: Counter[str] = Counter()
    for what, name, count in said:
        if what != "made":
            counter = tried if what == "try" else has
            counter[name] = count
    try:
        with sqlstate.open(path) as store:
            if store.recovery.damage:
                yield f"FALSE ALARM: {store.recovery}"
            if store.pending():
                yield "STAGED: what dead processes staged was not rolled back"
            counts = {str(name): count for name, count in store["n"].items()}
            if dict(store["m"].items()) != counts:
                yield f"MIXED: {counts} and {dict(store['m'].items())}"
            checked = store.check_audit()
    except sqlstate.StoreError as e:
        yield f"REFUSED: {type(e).__name__}: {e}"
        return
    for name in tried.keys() | counts.keys():
        if not has[name] <= counts.get(name, 0) <= tried[name]:
            told_of = f"it was told of {has[name]}, and tried {tried[name]}"
            yield f"LOST or GHOST: {name} has {counts.get(name, 0)}; {told_of}"
    yield from checked
    yield from plain.judge(path).findings
    left = sorted(entry.name for entry in folder.iterdir() if entry.name != STORE)
    if left:
        yield f"LEFT: {left}"


def one(part: tuple[str, int, int, Point | None]) -> Result:
    """Record processes once, and judge images of it."""
    journal, seed, size, only = part
    result = Result()
    name = f"{journal}:{seed}"
    with fresh_folder() as folder, fresh_folder() as place, tempfile.TemporaryDirectory(dir=scratch()) as beside:
        try:
            recording = traced(
                "tests.crash.shared", ["", str(folder / STORE), journal, name], folder, (), Path(beside, "trace")
            )
            for point, files in images_of(recording, name, size, only):
                put_files(place, files)
                result.runs += 1
                case = f"{name}:{point.position}:{point.kind}:{point.draw}"
                for finding in judge(place, recording, point):
                    result.miss(case, f"{case}: {finding}")
        except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
            result.miss(f"{name}:0:prefix:0", f"{name}: {type(e).__name__}: {e}{where(e)}")
    return result


def parts(plan: Plan) -> Iterator[tuple[str, int, int, Point | None]]:
    if plan.case:
        journal, seed, position, kind, draw = plan.case.split(":")
        yield journal, int(seed), 1, Point(int(position), kind, int(draw))
        return
    for number, begin in enumerate(range(0, plan.count, IMAGES)):
        journal = "delete" if number % 4 == 3 else "wal"
        yield journal, plan.seed + number, min(IMAGES, plan.count - begin), None


@campaign(24, "a power cut under processes, threads and tasks", bar="0 lost, mixed, refused", ci=300, long=60_000)
def shared(plan: Plan) -> Result:
    """Cut the power of several processes."""
    if reason := missing_strace():
        return Result(skipped=reason)
    return merged(spread(plan, one, parts(plan)))


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        (launch if sys.argv[1] == "" else write)(*sys.argv[2 if sys.argv[1] == "" else 1 :])
