"""Campaign 23: sectors of a hot -wal that were lost, zeroed, swapped, or that are of another -wal.

Method: a process commits, is killed, and leaves a -wal; nothing is in flight, so every commit in it was acknowledged.
Each run takes 1 to 64 sectors of it, at its start more often than not, and puts others in their place; the -shm and
the notes of what was acknowledged are there or not. The open must refuse, and keep all as it was, with a copy of the
-wal; or nothing may be missing. Where there is neither -shm nor notes, and no two commits behind the damage, nothing
can tell it from a commit cut short by a power cut: then all before it must be there. Nor can anything if the start of
another -wal stands before no more than two commits: it may have been begun anew over what was never acknowledged.

Beside them, honest crashes must open without a word of damage: what the killed process left; and a -wal that SQLite
began anew when the crash tore its header, over frames that the main file has.

A case is `STORE-NUMBER`: the seed of the store, and which of its runs.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import apsw

import sqlstate
from sqlstate.errors import JournalDamaged
from sqlstate.recovery.sqlite_wal import scan_wal
from tests.crash.campaign import Plan, Result, campaign, expect, figures, merged, scratch, spread, where
from tests.crash.rot import PARTS, WAL_FRAME, WAL_HEADER, Files, Obedient, accepted, live, unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR: Final = 512
SECTORS_MAX: Final = 64
RUNS_OF_A_STORE: Final = 100
HONEST_EACH: Final = 5
ACCEPTED_EACH: Final = 10
NOTES: Final = "-acknowledged"


class Hot(NamedTuple):
    """What a killed process left, and other -wals to take sectors from."""

    files: Files
    path: Path
    others: tuple[bytes, ...]
    """Of another store, and of this one at an earlier moment."""
    folded: bytes
    """The main file with all that the -wal holds."""


class Damage(NamedTuple):
    """What was put in the place of what."""

    wal: bytes
    start: int
    end: int
    kind: str


def hot_store(rng: random.Random, folder: Path) -> Hot:
    """Make one: a -wal in its first use or a later one, long or short, with older frames behind the newest or not."""
    other = folder / "other" / "store.db"
    other.parent.mkdir()
    with Obedient(other, rng.randrange(2**32)) as process:
        process.do("commit 20")
        process.kill()
        foreign = other.with_name("store.db-wal").read_bytes()
    path = folder / "hot" / "store.db"
    path.parent.mkdir()
    with Obedient(path, rng.randrange(2**32), pages=rng.choice((16, 64, 4096))) as process:
        if rng.random() < 0.3:
            process.do("commit 10")
            process.do("close")
            process.do("open")
        process.do(f"commit {rng.randrange(1, 30)}")
        earlier = path.with_name("store.db-wal").read_bytes()
        for _ in range(rng.randrange(3)):
            process.do(f"commit {rng.randrange(1, 12)}")
            process.do(rng.choice(("small", "stage")))
        process.do(f"commit {rng.randrange(1, 4)}")
        process.kill()
        files = Files.read(path, process.heads)
        files.parts[NOTES] = path.with_name(path.name + NOTES).read_bytes()
    aside = folder / "aside.db"
    shutil.copy(path, aside)
    shutil.copy(f"{path}-wal", f"{aside}-wal")
    connection = apsw.Connection(str(aside), vfs="unix-none", flags=apsw.SQLITE_OPEN_READWRITE)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    connection.execute("PRAGMA schema_version").fetchall()
    frames, carried = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
    expect(frames == carried > 0, "the -wal was not moved into the file")
    folded = aside.read_bytes()
    connection.close()
    return Hot(files, path, (foreign, earlier), folded)


def damaged(rng: random.Random, hot: Hot) -> Damage:
    """Put other sectors in the place of some of the live ones."""
    wal = bytearray(hot.files.parts["-wal"])
    end = live(bytes(wal))
    size = rng.choice((1, 1, 2, 8, rng.randrange(1, SECTORS_MAX + 1))) * SECTOR
    start = 0 if rng.random() < 0.6 else rng.randrange(end) // SECTOR * SECTOR
    if rng.random() < 0.1:  # not by the sector: a header alone, a frame's header
        size = rng.choice((1, 4, 32, 56, 500))
    kind = rng.choice(("zeros", "garbage", "ones", "swapped", "foreign", "earlier"))
    place = slice(start, min(start + size, len(wal)))
    amount = place.stop - start
    if kind == "swapped":
        with_ = rng.randrange(max(1, (len(wal) - amount) // SECTOR)) * SECTOR
        one, two = bytes(wal[place]), bytes(wal[with_ : with_ + amount])
        if with_ + amount > start and with_ < place.stop:  # they overlap
            two = two[::-1]
        else:
            wal[with_ : with_ + amount] = one
            start, stop = min(start, with_), max(place.stop, with_ + amount)
            wal[place] = two
            return Damage(bytes(wal), start, stop, kind)
        wal[place] = two
    elif kind in ("foreign", "earlier"):
        source = hot.others[kind == "earlier"]
        wal[place] = source[place].ljust(amount, b"\0")
    else:
        wal[place] = {"zeros": bytes(amount), "ones": b"\xff" * amount, "garbage": rng.randbytes(amount)}[kind]
    return Damage(bytes(wal), place.start, place.stop, kind)


def lay(path: Path, parts: dict[str, bytes]) -> None:
    """Write *parts* in the place of what is there; the main file stays the same one, which the notes are of."""
    for entry in os.scandir(path.parent):
        if entry.name.removeprefix(path.name) not in parts:
            os.unlink(entry)
    for suffix, part in parts.items():
        path.with_name(path.name + suffix).write_bytes(part)


def with_and_without(rng: random.Random, files: Files) -> Files:
    """Return *files* with the -shm and the notes, or without one or both."""
    left_out = [suffix for suffix in ("-shm", NOTES) if rng.random() < 0.5]
    return Files({suffix: part for suffix, part in files.parts.items() if suffix not in left_out}, files.heads)


def one_damage(rng: random.Random, hot: Hot, number: int) -> str:
    """Damage the -wal and open; return what became of it."""
    damage = damaged(rng, hot)
    files = with_and_without(rng, hot.files)
    files.parts["-wal"] = damage.wal
    lay(hot.path, files.parts)
    words = f"{damage.kind} from {damage.start} to {damage.end}, with {' '.join(files.parts)}"
    try:
        store = sqlstate.open(hot.path)
    except JournalDamaged as e:
        expect(damage.wal != hot.files.parts["-wal"], f"a false alarm: {e} ({words})")
        expect(e.evidence, f"no copy of the evidence was kept: {words}")
        notes = hot.path.with_name(hot.path.name + NOTES)
        notes.unlink(missing_ok=True)
        unchanged(hot.path, Files({k: v for k, v in files.parts.items() if k in PARTS}), e.evidence)
        if number % ACCEPTED_EACH == 0:
            lay(hot.path, files.parts)
            accepted(hot.path, files)
        return "refused"
    with store:
        head = store.head()
        report: Any = store.recovery
    expect(files.heads.get(head.seq) == head.chain.hex(), f"a state that never was: {head} ({words})")
    if head.seq >= files.newest:
        return "nothing missing"
    expect(not set(files.parts) & {"-shm", NOTES}, f"LOST {files.newest - head.seq} in silence: {words}")
    whole = hot.files.parts["-wal"]
    behind = range(-(-(damage.end - WAL_HEADER) // WAL_FRAME), (live(whole) - WAL_HEADER) // WAL_FRAME)
    commits = sum(any(whole[WAL_HEADER + i * WAL_FRAME + 4 :][:4]) for i in behind)
    exchanged = damage.kind in ("foreign", "earlier") and (commits <= 2 or damage.end >= live(whole))
    expect(
        (damage.start >= WAL_HEADER and commits < 2) or exchanged, f"LOST in silence, {commits} commits behind: {words}"
    )
    before = scan_wal(whole[: max(damage.start, WAL_HEADER)]).committed
    expect(report.journal.committed >= before, f"LOST what stands before the damage: {words}")
    expect(not report.clean, f"passed as clean: {words}")
    return "cannot be told"


def honest(rng: random.Random, hot: Hot) -> None:
    """Open what a crash leaves: nothing may be missing, and nothing may be called damage."""
    files = with_and_without(rng, hot.files)
    if rng.random() < 0.5:
        files = files.but(main=hot.folded, shm=None)
        wal = bytearray(files.parts["-wal"])
        old = scan_wal(bytes(wal))
        begun = bytearray(wal[:12] + (old.checkpoint_seq + 1).to_bytes(4) + (old.salts[0] + 1 & 0xFFFFFFFF).to_bytes(4))
        begun += rng.randbytes(12)
        kept = rng.choice((0, 12, 16, 24, 31, 32, rng.randrange(33)))
        wal[:kept] = begun[:kept] if rng.random() < 0.5 else rng.randbytes(kept)
        files.parts["-wal"] = bytes(wal)
    lay(hot.path, files.parts)
    with sqlstate.open(hot.path) as store:
        expect(store.head().seq == files.newest, f"LOST: {store.head()}, and {files.newest} was acknowledged")
        expect(not store.recovery.damage, f"a false alarm: {store.recovery}")


def runs_of(item: tuple[int, int, str]) -> Result:
    """Damage the -wal of the store with *seed* so many times; of a case, that time alone."""
    seed, count, case = item
    result = Result()
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-sectors-", dir=scratch()))
    try:
        hot = hot_store(random.Random(seed), folder)  # noqa: S311, no secret
        numbers = range(count) if not case else [int(case.split("-")[1])]
        for number in numbers:
            rng = random.Random(f"{seed}-{number}")  # noqa: S311, no secret
            result.runs += 1
            try:
                result.counts[one_damage(rng, hot, number)] += 1
                if number % HONEST_EACH == 0:
                    honest(rng, hot)
                    result.counts["honest"] += 1
            except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
                result.miss(f"{seed}-{number}", f"{type(e).__name__}: {e}{where(e)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def stores(plan: Plan) -> Iterator[tuple[int, int, str]]:
    """Yield the stores of a plan: seed, how many runs, and the case to replay."""
    if plan.case:
        yield int(plan.case.split("-")[0]), 1, plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    each = RUNS_OF_A_STORE if plan.long else RUNS_OF_A_STORE // 4
    for done in range(0, plan.count, each):
        yield rng.randrange(10**9), min(each, plan.count - done), ""


@campaign(23, "sectors of a hot -wal lost or replaced", bar="0 lost in silence, 0 false alarms", ci=100, long=2_000)
def lost_sectors(plan: Plan) -> Result:
    """Damage sectors of the -wal that a killed process left."""
    result = merged(spread(plan, runs_of, stores(plan)))
    result.found = figures(result, "refused", "nothing missing", "cannot be told", "honest")
    return result
