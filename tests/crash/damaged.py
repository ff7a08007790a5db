"""Campaign 10: damaged database files, opened, read and written.

Method: stores at rest, with a hot -wal and with a hot -journal are damaged in the ways that disks, copies and
hostile hands damage files: flipped bytes, swapped and zeroed pages, cuts, garbage in headers and sidecars. A
process of its own opens each, for reading and for writing, reads all of it and puts an entry. It may succeed, or
raise an error of ours; nothing else, no crash, and nothing that takes a second.

A case is `STORE-SEED`: the kind of the store and the seed of the damage.
"""

from __future__ import annotations

import mmap
import random
import shutil
import signal
import struct
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from tests.crash.campaign import Plan, Result, campaign, figures, merged, scratch, spread
from tests.crash.processes import Forked, Line, Workload, in_fork
from tests.crash.rot import Files, Obedient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILES_OF_A_WORKER: Final = 250
PAGE: Final = 4096
SECONDS_ALLOWED: Final = 1.0
SECONDS_HUNG: Final = 60
# A machine under load is slow too, so the tests turn the clock off.
TIMED = True
STORES: Final = ("rest", "large", "hot", "journal", "new")

# ---- Stores ----


def make(kind: str, folder: Path) -> Files:
    """Return a store of a kind."""
    path = folder / "store.db"
    if kind == "journal":
        in_fork(half_done, str(path))
        return Files.read(path, {})
    with Obedient(path, len(kind)) as process:
        if kind != "new":
            process.do(f"commit {120 if kind == 'large' else 12}")
            process.do("stage")
        if kind == "hot":
            process.kill()
        else:
            process.do("close")
        return Files.read(path, {})


def half_done(_line: Line, path: str) -> None:
    """Die in the middle of a transaction that is larger than SQLite's cache."""
    Workload(path, "delete", cache=16).apply()
    store = sqlstate.open(path, journal="delete")
    store["data"].update(dict.fromkeys(range(100), "x" * 300))
    with store.transaction() as txn:
        txn["data"].update(dict.fromkeys(range(100), "y" * 300))
        list(txn["data"])  # carries the writes into the tables
        signal.raise_signal(signal.SIGKILL)


# ---- Damage ----


def damage(files: Files, rng: random.Random) -> Files:
    """Return the files, damaged in one to three ways."""
    parts = dict(files.parts)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        suffix = rng.choice(("", "", "", *parts))
        data = bytearray(parts[suffix])
        if data:
            rng.choice(WAYS)(data, rng)
        parts[suffix] = bytes(data)
    if rng.random() < 0.15:
        suffix = rng.choice(("-wal", "-journal", "-shm"))
        size = rng.choice((0, 1, 31, 32, 512, 600, PAGE + 56, 40_000))
        start = struct.pack(">II", 0x377F0682, 3_007_000) if suffix == "-wal" else bytes.fromhex("d9d505f920a163d7")
        parts[suffix] = (rng.choice((b"", start)) + rng.randbytes(size))[:size]
    elif rng.random() < 0.1:
        for suffix in [each for each in parts if each and rng.random() < 0.5]:
            del parts[suffix]
    return Files(parts)


def flip(data: bytearray, rng: random.Random) -> None:
    """Flip bits anywhere."""
    for _ in range(rng.choice((1, 2, 20))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    """Write garbage over a stretch."""
    at = rng.randrange(len(data))
    data[at : at + rng.choice((1, 4, 100))] = rng.randbytes(min(rng.choice((1, 4, 100)), len(data) - at))


def swap(data: bytearray, rng: random.Random) -> None:
    """Swap two pages, or put one in the place of another."""
    one, other = (rng.randrange(max(1, len(data) // PAGE)) * PAGE for _ in range(2))
    first, second = bytes(data[one : one + PAGE]), bytes(data[other : other + PAGE])
    data[other : other + PAGE] = first
    if rng.random() < 0.5:
        data[one : one + PAGE] = second


def zero(data: bytearray, rng: random.Random) -> None:
    """Zero a page."""
    at = rng.randrange(max(1, len(data) // PAGE)) * PAGE
    data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))


def shorten(data: bytearray, rng: random.Random) -> None:
    """Cut the file off."""
    del data[rng.choice((rng.randrange(len(data)), rng.randrange(len(data)) // PAGE * PAGE, rng.randrange(101))) :]


def lengthen(data: bytearray, rng: random.Random) -> None:
    """Add what was not there."""
    data += rng.choice((rng.randbytes(100), bytes(PAGE), rng.randbytes(PAGE), bytes(data[-PAGE:])))


def header(data: bytearray, rng: random.Random) -> None:
    """Write garbage, or an extreme number, into a field of the header."""
    at = rng.randrange(100)
    size = rng.choice((1, 2, 4))
    field = rng.choice((bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), rng.randbytes(size)))
    data[at : at + size] = field


def tree(data: bytearray, rng: random.Random) -> None:
    """Write garbage into the header of a page of a b-tree: its kind, cells and pointers."""
    at = rng.randrange(max(1, len(data) // PAGE)) * PAGE
    at += 100 if not at else 0
    at += rng.randrange(40)
    data[at : at + 2] = rng.randbytes(2)


def text(data: bytearray, rng: random.Random) -> None:
    """Change a byte of text: a statement of the schema, a name, JSON, a time."""
    words = (b"CREATE", b"TABLE", b"wal", b"meta", b"store_id", b"marker", b"COMMIT", b"PUT", b"data", b'"', b"20")
    word = rng.choice(words)
    at = data.find(word, rng.randrange(len(data)))
    if at >= 0:
        data[at + rng.randrange(len(word))] = rng.randrange(256)


WAYS: Final[tuple[Callable[[bytearray, random.Random], None], ...]] = (
    flip, overwrite, swap, zero, shorten, lengthen, header, header, tree, tree, text,
)  # fmt: skip


# ---- What is tried ----


def attempt(path: Path, options: dict[str, Any]) -> str:
    """Open, read everything, put one entry; return the name of our error, or `"success"`."""
    try:
        with sqlstate.open(path, timeout=0.1, **options) as store:
            return use(store, write=not options.get("read_only"))
    except sqlstate.StoreError as e:
        return type(e).__name__


def use(store: Any, *, write: bool) -> str:
    """Read all there is, each part whatever became of the one before, then put."""
    error = "success"
    for part in (
        lambda: [list(store[name].items()) for name in store.collections()],
        lambda: list(store.commits()),
        lambda: list(store.wal.read()),
        lambda: (store.head(), store.stats(), store.pending()),
        lambda: list(store.audit()),
        store.check_audit,
    ):
        try:
            part()
        except sqlstate.StoreError as e:
            error = type(e).__name__
    if write:
        store["data"]["put"] = 1
        store["data"].pop("put")
    return error


def works(line: Line, files: Files, folder: str, seeds: list[int], shared: mmap.mmap) -> None:
    """Damage and try, one seed after the other; note in *shared* which one is being tried."""
    for place, seed in enumerate(seeds):
        shared[:8] = place.to_bytes(8)
        rng = random.Random(seed)  # noqa: S311, no secret
        damaged = damage(files, rng)
        found = []
        for options in ({"read_only": True}, {}, {"recover": "accept"}):
            path = damaged.lay(Path(folder))
            begun = time.perf_counter()
            try:
                outcome = attempt(path, options)
            except Exception:  # noqa: BLE001, whatever it is, it is a finding
                outcome = "WRONG " + traceback.format_exc(limit=-4)
            found.append((outcome, time.perf_counter() - begun))
        line.say(seed, found)


# ---- The campaign ----


def one(item: tuple[str, list[int]]) -> Result:
    """Try *seeds* on a store of a kind, in processes of their own; start another where one crashed."""
    kind, seeds = item
    result = Result()
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-damaged-", dir=scratch()))
    try:
        (folder / "made").mkdir()
        (folder / "laid").mkdir()
        files = make(kind, folder / "made")
        with mmap.mmap(-1, 8) as shared:
            while seeds:
                seeds = seeds[_some(kind, (files, folder / "laid", seeds, shared), result) :]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _some(kind: str, work: tuple[Files, Path, list[int], mmap.mmap], result: Result) -> int:
    """Let a process try the seeds; return how many it came through, with the one that it crashed at."""
    files, folder, seeds, shared = work
    shared[:8] = bytes(8)
    child = Forked(works, files, str(folder), seeds, shared)
    slow: Counter[str] = Counter()
    while lines := _heard(child):
        for seed, found in lines:
            result.runs += 1
            for outcome, seconds in found:
                result.counts[outcome.split()[0]] += 1
                slow[f"{kind}-{seed}"] += seconds > SECONDS_ALLOWED
                result.counts["worst ms"] = max(result.counts["worst ms"], round(seconds * 1000))
                if outcome.startswith("WRONG"):
                    result.miss(f"{kind}-{seed}", outcome)
    for case in +slow:
        result.counts["slow"] += 1
        result.counts[f"slow {case}"] += 1
    status = child.ends()
    done = int.from_bytes(shared[:8]) + 1
    if status:
        result.runs += 1
        result.miss(f"{kind}-{seeds[done - 1]}", f"CRASH or hang: the process ended with {status}")
    return done


def _heard(child: Forked) -> list[Any]:
    """Return what the child says; kill it if it says nothing for long."""
    previous = signal.signal(signal.SIGALRM, lambda *_: child.kill())
    signal.alarm(SECONDS_HUNG)
    try:
        return child.heard()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def chunks(plan: Plan) -> Iterator[tuple[str, list[int]]]:
    """Yield the files of a plan, by worker: the kind of store, and the seeds of the damage."""
    if plan.case:
        kind, seed = plan.case.split("-")
        yield kind, [int(seed)]
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    for number, done in enumerate(range(0, plan.count, FILES_OF_A_WORKER)):
        count = min(FILES_OF_A_WORKER, plan.count - done)
        yield STORES[number % len(STORES)], [rng.randrange(10**12) for _ in range(count)]


def tried(plan: Plan) -> Result:
    """Run the plan; slow cases are in the counts alone."""
    parts = []
    worst = 0
    for part in spread(plan, one, chunks(plan)):
        worst = max(worst, part.counts.pop("worst ms", 0))
        parts.append(part)
    result = merged(parts)
    result.counts["worst ms"] = worst
    return result


@campaign(10, "damaged database files", bar="our errors only, < 1 s, no crash", ci=750, long=1_000_000)
def damaged(plan: Plan) -> Result:
    """Damage stores, and use them."""
    result = tried(plan)
    counts = result.counts
    if TIMED:
        for name in [each for each in counts if each.startswith("slow ")]:
            result.miss(name.removeprefix("slow "), "took more than a second")
    names = ("success", "Damaged", "JournalDamaged", "NotAStore")
    result.found = f"{counts['failures']} bad; worst {counts['worst ms']} ms; {figures(result, *names)}"
    return result
