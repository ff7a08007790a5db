"""Campaign 25: a power cut while a store is restored, repaired, migrated, backed up, or rewritten.

Method: strace writes down what one process does to the folder, and between it which state the store is in, as the
process itself saw it. Each image of a power cut is opened: it holds the state that was said last, or the one that the
call under way was about to make. A damaged store is still damaged, and can be repaired, or it is repaired. After the
next use of the folder, nothing is left in it but what users know.

A case is `SCENE:JOURNAL:SEED:POSITION:KIND:DRAW`.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlstate
from tests.crash.campaign import Plan, Result, campaign, merged, scratch, spread, where
from tests.crash.images import Point
from tests.crash.injected import missing_strace
from tests.crash.processes import Workload
from tests.crash.traced import images_of, traced
from tests.crash.workloads import BACKUP, STORE, fresh_folder, put_files
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.crash.traced import Traced

IMAGES: Final = 120
"""Of one recording."""
PAGES: Final = 24
KEPT: Final = re.compile(rf"{re.escape(STORE)}(\.damaged-[0-9a-f]+)?|{re.escape(BACKUP)}(\.\d)?|last\.db")
"""What users know of the files that may be in the folder at the end."""


# ---- What there is before ----


def fill(path: Path, journal: str, rng: random.Random, *, commits: int = 6) -> None:
    """Write to the store at *path*."""
    with sqlstate.open(path, journal=journal) as store:  # type: ignore[arg-type]
        write(store, rng, commits)


def write(store: sqlstate.Store, rng: random.Random, commits: int) -> None:
    for _ in range(commits):
        with store.transaction() as txn:
            for _ in range(rng.choice((1, 3, 20))):
                txn.put(rng.choice("ab"), rng.randrange(60), "x" * rng.randrange(300))


def closed(folder: Path, journal: str, rng: random.Random) -> None:
    """Make a store, a backup of it, and later commits."""
    fill(folder / STORE, journal, rng)
    with sqlstate.open(folder / STORE) as store:
        store.backup(folder / BACKUP)
    fill(folder / STORE, journal, rng)


def damaged(folder: Path, journal: str, rng: random.Random) -> None:
    """Make a store of which somebody changed values."""
    fill(folder / STORE, journal, rng)
    with closing(sqlite3.connect(folder / STORE)) as db, db:
        every = db.execute("SELECT collection, key FROM state ORDER BY 1, 2").fetchall()
        for name in rng.sample(every, 3):
            db.execute("UPDATE state SET value = '\"changed\"' WHERE collection = ? AND key = ?", name)


def older(folder: Path, journal: str, rng: random.Random) -> None:
    """Make a store of an older format."""
    from tests.test_format import ENDED, make_older  # noqa: PLC0415, it is all that is needed of it

    make_older(folder / STORE, ENDED, journal, rng.choice((1, 2)))


# ---- What is done; each line that is said is a state, true from then on ----


def restored(folder: Path) -> None:
    """Put the backup in the store's place."""
    say_state(folder)
    sqlstate.restore(folder / BACKUP, folder / STORE, replace=True)
    say_state(folder)


def repaired(folder: Path) -> None:
    """Repair the store."""
    say("damaged")
    sqlstate.repair(folder / STORE)
    say_state(folder)


def migrated(folder: Path) -> None:
    """Open the store of an older format, and write to it."""
    with sqlstate.open(folder / STORE) as store:
        say_head(store)
        store["new"]["a"] = 1
        say_head(store)


def backed_up(folder: Path) -> None:
    """Make backups, of which two older ones are kept, and commits between them."""
    with sqlstate.open(folder / STORE) as store:
        rng = random.Random(len(store["a"]))  # noqa: S311, no secret
        say_head(store)
        for _ in range(4):
            store.backup(folder / BACKUP, keep=3)
            say("backup")
            write(store, rng, 1)
            say_head(store)


def rewritten(folder: Path) -> None:
    """Replace and clear whole collections, import, and prove: a proof writes blocks of the log's tree."""
    with sqlstate.open(folder / STORE) as store:
        rng = random.Random(len(store["a"]))  # noqa: S311, no secret
        say_head(store)
        for number in range(3):
            store["a"].replace({key: "y" * rng.randrange(200) for key in rng.sample(range(60), 30)})
            say_head(store)
            store["b"].clear()
            say_head(store)
            store["b"].update(dict.fromkeys(range(70), number))
            say_head(store)
            for key in range(260 if not number else 4):
                store["many"][key % 7] = key
                say_head(store)
            store.prove_commit(store.head().seq // 2)


SCENES: Final[dict[str, tuple[Callable[[Path, str, random.Random], None], Callable[[Path], None]]]] = {
    "restored": (closed, restored),
    "repaired": (damaged, repaired),
    "migrated": (older, migrated),
    "backed up": (closed, backed_up),
    "rewritten": (closed, rewritten),
}


def say(*what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def say_head(store: sqlstate.Store) -> None:
    head = store.head()
    say("state", head.seq, head.chain.hex(), head.root.hex())


def say_state(folder: Path) -> None:
    with sqlstate.open(folder / STORE) as store:
        say_head(store)


# ---- What a crash leaves ----


def judge(folder: Path, recording: Traced, position: int) -> Iterator[str]:
    """Yield what is wrong with what a crash left in *folder*."""
    said = [(each.position, json.loads(each.line)) for each in recording.said]
    told = [what for at, what in said if at <= position]
    coming = [what for at, what in said if at > position and what[0] != "backup"]
    last = [what for what in told if what[0] != "backup"][-1:]
    allowed = [*last, *coming[:1]]
    states = [what[1:] for what in allowed if what[0] == "state"]
    path = folder / STORE
    if ["damaged"] in allowed:
        try:
            report = sqlstate.repair(path)
        except sqlstate.StoreError as e:
            yield f"LOST: it cannot be repaired any more: {type(e).__name__}: {e}"
            return
        if report.lost:
            yield f"LOST: {report.lost} could be repaired before"
        states = [coming[0][1:] if coming else states[-1]]
    try:
        with sqlstate.open(path) as store:
            if store.recovery.damage:
                yield f"FALSE ALARM: {store.recovery}"
            head = store.head()
            if states and [head.seq, head.chain.hex(), head.root.hex()] not in states:
                yield f"MIXED: commit {head.seq} is there, and must be one of {[seq for seq, *_ in states]}"
            yield from store.check_audit()
            store.backup(folder / "last.db")
    except sqlstate.StoreError as e:
        yield f"REFUSED: {type(e).__name__}: {e}"
        return
    yield from plain.judge(path).findings
    backups = sorted(entry for entry in folder.iterdir() if entry.name.startswith(BACKUP))
    if told.count(["backup"]) > len(backups):
        yield f"BACKUP: {told.count(['backup'])} were made, and {len(backups)} are there"
    for backup in backups:
        yield from (f"BACKUP: {finding}" for finding in plain.judge(backup).findings)
    left = sorted(entry.name for entry in folder.iterdir() if not KEPT.fullmatch(entry.name))
    if left:
        yield f"LEFT: {left}"


class Part(NamedTuple):
    """Images of one recorded scene."""

    scene: str
    journal: str
    seed: int
    size: int
    """How many images."""
    only: Point | None = None


def one(part: Part) -> Result:
    """Record a scene once, and judge images of it."""
    scene, journal, seed, size, only = part
    result = Result()
    name = f"{scene}:{journal}:{seed}"
    make, _ = SCENES[scene]
    with fresh_folder() as folder, fresh_folder() as place, tempfile.TemporaryDirectory(dir=scratch()) as beside:
        try:
            make(folder, journal, random.Random(name))  # noqa: S311, no secret
            there = {entry.name: entry.read_bytes() for entry in sorted(folder.iterdir())}
            log = Path(beside, "trace")
            recording = traced("tests.crash.upkeep", [scene, str(folder), journal], folder, there, log)
            for point, files in images_of(recording, name, size, only, there):
                put_files(place, files)
                result.runs += 1
                case = f"{name}:{point.position}:{point.kind}:{point.draw}"
                for finding in judge(place, recording, point.position):
                    result.miss(case, f"{case}: {finding}")
        except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
            result.miss(f"{name}:0:prefix:0", f"{name}: {type(e).__name__}: {e}{where(e)}")
    return result


def parts(plan: Plan) -> Iterator[Part]:
    if plan.case:
        scene, journal, seed, position, kind, draw = plan.case.split(":")
        yield Part(scene, journal, int(seed), 1, Point(int(position), kind, int(draw)))
        return
    kinds = [(scene, journal) for journal in ("wal", "delete") for scene in SCENES]
    size = min(IMAGES, -(-plan.count // len(kinds)))
    for number in range(-(-plan.count // size)):
        scene, journal = kinds[number % len(kinds)]
        yield Part(scene, journal, plan.seed + number, size)


@campaign(25, "a power cut during upkeep", bar="0 lost, mixed, refused, left", ci=300, long=48_000)
def upkeep(plan: Plan) -> Result:
    """Cut the power while a store is restored, repaired, migrated, backed up, or rewritten."""
    if reason := missing_strace():
        return Result(skipped=reason)
    return merged(spread(plan, one, parts(plan)))


def main(scene: str, folder: str, journal: str) -> None:
    """Be the process that does a scene."""
    Workload(folder, journal, pages=PAGES).apply()
    SCENES[scene][1](Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
