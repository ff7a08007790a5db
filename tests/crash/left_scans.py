"""Campaigns 15 and 16: scans that are left early, kept, dropped or cancelled, and what the store shows after each.

Method: a round leaves a few scans in one of many ways: kept by a traceback or by a name, half read, dropped here, in
another thread or inside a reference cycle; of the store, of snapshots, transactions, nested ones and batches; of the
entries, the commits, the log and the audit trail. The collector runs often, in whatever thread and under whatever
lock it likes. Then the round writes, and each way to read must show that write. A scan whose snapshot, transaction
or store has ended must say so at its next step. At the end close() must leave one file, with scans still kept.

A case is `KIND-SEED-SCANS-SECONDS`: at least so many scans are left, and for at least so long.
"""

from __future__ import annotations

import gc
import random
import shutil
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio

import sqlstate
from sqlstate import aio, proof
from tests.crash import watched
from tests.crash.campaign import Plan, Result, campaign, expect, figures
from tests.crash.watched import scratch, spread_watched
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS: Final = 1000
"""Some chunks of any scan that reads ahead."""
KEPT: Final = 40
LIVE: Final = 4
"""Scans of the store itself that are kept: each holds a connection, and what SQLite's WAL has."""
THREADS: Final = 6
PATIENCE_SECONDS: Final = 20
LONG_SECONDS: Final = 600
BACKUP_EVERY: Final = 60
JUDGED_COMMITS: Final = 3_000
JUDGE_SECONDS: Final = 300
ENDED: Final = (sqlstate.TransactionEnded,)
# sqlstate.aio says of a store that was closed that it was.
ENDED_OR_CLOSED: Final = (sqlstate.TransactionEnded, sqlstate.StoreClosed)


class Kept(NamedTuple):
    """A scan that is kept."""

    rows: Any
    exhausted: bool = False
    """Whether it may have come to its end by itself."""


class Cycle:
    """Keeps something until the collector finds it."""

    def __init__(self, what: object) -> None:
        self.what = what
        self.itself = self


class Leaver:
    """Leaves scans in one thread, and looks after each time.

    Args:
        store: the store.
        name: of this one among others.
        seed: of what it does.
        handed: what the threads hand each other to drop.
    """

    def __init__(self, store: sqlstate.Store, name: str, seed: str, handed: deque[Any]) -> None:
        self.store = store
        self.left = 0
        self._name = name
        self._rng = random.Random(seed)  # noqa: S311, no secret
        self._handed = handed
        self._kept: list[Kept] = []
        self._live: list[Kept] = []
        self._errors: list[BaseException] = []
        self._count = 0
        self._commits = 0
        self._rounds = 0
        self.waits = False
        """With a rollback journal a scan that goes on keeps writers waiting: only ended ones are left."""

    # ---- Ways to leave a scan ----

    def ways(self) -> list[Callable[[], None]]:
        ended = [self.traceback, self.of_snapshot, self.of_transaction, self.of_nested, self.of_batch, self.in_cycle]
        if self.waits:
            return ended
        return [*ended, self.of_store, self.of_records, self.generator, self.live_in_cycle, self.open_snapshot]

    def traceback(self) -> None:
        """A traceback keeps a generator that reads; the way that looks most innocent."""
        try:
            with self.store.snapshot() as view:
                sum(int(value) for value in view["in"].values())
        except ValueError as e:
            self._errors.append(e)
        self._drop_some(self._errors)
        self.left += 1

    def of_snapshot(self) -> None:
        with self.store.snapshot() as view:
            kept = [self._half(view["in"]) for _ in range(self._rng.randrange(1, 4))]
        self._keep(kept)

    def of_transaction(self) -> None:
        with self.store.transaction() as txn:
            kept = [self._half(txn["in"]), self._half(self.store["in"])]
            self._write(txn)
            kept.append(self._half(txn["in"]))
        self._keep(kept)

    def of_nested(self) -> None:
        with self.store.transaction() as txn:
            with suppress(LookupError), self.store.transaction() as nested:
                nested.put("gone", self._name, self._rng.random())
                kept = [self._half(nested["in"])]
                raise LookupError
            kept.append(self._half(txn["in"]))
            self._write(txn)
        self._keep(kept)

    def of_batch(self) -> None:
        with self.store.batch() as batch:
            self._write(batch)
            kept = [self._half(batch["in"])]
            with batch.transaction() as txn:
                kept.append(self._half(txn["in"]))
        self._keep(kept)

    def in_cycle(self) -> None:
        with self.store.snapshot() as view:
            Cycle([self._half(view["in"]), view])
        with self.store.transaction() as txn:
            Cycle(self._half(txn["in"]))
        self.left += 2

    def of_store(self) -> None:
        kept = self._half(self.store["in"])
        self.left += 1
        if self._rng.random() < 0.3:
            self._live.append(kept)
        elif self._rng.random() < 0.5:
            self._handed.append(kept.rows)
        del self._live[:-LIVE]

    def of_records(self) -> None:
        store = self.store
        rows: Iterator[Any] = self._rng.choice(
            (
                lambda: store.commits(),
                lambda: store.audit(),
                lambda: store.wal.read(),
                lambda: store.watch(after=0, timeout=0),
            )
        )()
        for _ in range(self._rng.randrange(3)):
            next(rows, None)
        self.left += 1
        if self._rng.random() < 0.5:
            self._live.append(Kept(rows, exhausted=True))
        del self._live[:-LIVE]

    def generator(self) -> None:
        """A generator of the user's, left inside its own snapshot."""

        def rows() -> Iterator[Any]:
            with self.store.snapshot() as view:
                yield from view["in"].items()

        found = rows()
        next(found)
        self.left += 1
        if self._rng.random() < 0.3:
            self._handed.append(found)

    def live_in_cycle(self) -> None:
        Cycle(self._half(self.store["in"]))
        Cycle(self.store.wal.read())
        self.left += 2

    def open_snapshot(self) -> None:
        """A snapshot that nobody closes, dropped before or after what reads it."""
        view = self.store.snapshot()
        view.__enter__()
        rows = self._half(view["in"]).rows
        self.left += 1
        choice = self._rng.randrange(4)
        if choice == 0:
            del view, rows
        elif choice == 1:
            del rows, view
        elif choice == 2:
            self._handed.append((view, rows))
        else:
            Cycle((view, rows))

    # ---- After each ----

    def round(self) -> None:
        """Leave scans in some way, and look."""
        self._rng.choice(self.ways())()
        if self._handed and self._rng.random() < 0.3:
            with suppress(IndexError):
                self._handed.popleft()
        if self._rng.random() < 0.05:
            gc.collect()
        self._look()
        for i, kept in enumerate(self._kept[: self._rng.randrange(3)]):
            step(kept, ENDED)
            self._kept[i] = kept._replace(exhausted=True)  # a generator that has raised has ended
        self._drop_some(self._kept)
        self._rounds += 1

    def _look(self) -> None:
        """Write, and read that in each way."""
        store, name = self.store, self._name
        before = store["n"].get(name, 0)
        expect(before == self._count, f"get() shows {before}, {self._count} was written")
        self._count += 1
        store["n"][name] = self._count
        self._commits += 1
        head = store.head()
        expect(head.seq >= self._commits, f"head() shows commit {head.seq}, {self._commits} were made")
        expect(store["n"][name] == self._count, "a collection shows an old value")
        expect(dict(store["n"].items(prefix=name)).get(name) == self._count, "a scan shows an old value")
        expect([each.seq for each in store.commits(first=head.seq)][:1] == [head.seq], "commits() ends before head()")
        expect(store.durable >= head.seq, f"durable is {store.durable}, head() shows {head.seq}")
        with store.snapshot() as view:
            expect(view.head.seq >= head.seq, f"a snapshot shows commit {view.head.seq} after {head.seq}")
            expect(view["n"][name] == self._count, "a snapshot shows an old value")
            proof.verify_present(view.prove("n", name), view.head.root, "n", name, self._count)
        with store.transaction() as txn:
            expect(txn.get("n", name) == self._count, "a transaction shows an old value")
        # The judge reads the whole history, in Python alone: of a long one that takes longer than our patience.
        if self._rounds % BACKUP_EVERY == 0 and head.seq < JUDGED_COMMITS:
            copy = store.path.with_name(f"backup-{name}")
            report = store.backup(copy)
            judgement = plain.judge(copy, history=1)
            expect(judgement.sound, f"the backup is not sound: {judgement.findings}")
            expect(report.head.seq == judgement.seq >= head.seq, f"backup() made a copy of commit {judgement.seq}")
            copy.unlink()

    def look_alone(self) -> None:
        """As nobody else writes: the newest commit is the last of ours, and it can be proven."""
        self._look()
        head = self.store.head()
        made = self.store.prove("n", self._name)
        proof.verify_present(made, head.root, "n", self._name, self._count)

    def after_close(self) -> None:
        """Each scan that is kept says that it has ended."""
        for kept in (*self._kept, *self._live):
            step(kept, ENDED)

    # ---- Parts ----

    def _half(self, entries: Any) -> Kept:
        """Begin a scan and leave it somewhere."""
        how = self._rng.randrange(6)
        rows = (
            iter(entries.items()),
            iter(entries.keys()),
            iter(entries.values()),
            iter(entries),
            reversed(entries),
            iter(entries.items(start=5, reverse=True, limit=ROWS - 50)),
        )[how]
        for _ in range(self._rng.choice((1, 1, 2, self._rng.randrange(1, ROWS - 100)))):
            next(rows)
        return Kept(rows)

    def _write(self, where_: Any) -> None:
        where_.put("mine", self._name, self._rng.random())
        self._commits += 1

    def _keep(self, kept: list[Kept]) -> None:
        self.left += len(kept)
        if self._rng.random() < 0.3:
            step(kept[0], ENDED)
            kept = [kept[0]._replace(exhausted=True), *kept[1:]]
        if self._rng.random() < 0.3:
            self._handed.append(kept)
        else:
            self._kept += kept

    def _drop_some(self, kept: list[Any]) -> None:
        if len(kept) > KEPT:
            self._rng.shuffle(kept)
            del kept[KEPT // 2 :]


def step(kept: Kept, allowed: tuple[type[Exception], ...]) -> None:
    """Step a scan whose ground is gone: it must say so."""
    try:
        found = next(kept.rows)
    except allowed:
        return
    except StopIteration:
        expect(kept.exhausted, "a scan ended in silence although what it reads of has ended")
        return
    expect(False, f"a scan gave {found!r} although what it reads of has ended")


def fill(store: sqlstate.Store) -> None:
    store["in"].update({i: str(i) for i in range(ROWS)})
    store["in"][3] = "x"


def files_beside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def sync_case(case: str) -> Result:
    """Leave scans in one thread or in many."""
    kind, seed, scans, seconds = case.split("-")
    gc.set_threshold(*((7, 3, 3) if kind in ("threads", "group") else (50, 5, 5)))
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-left-", dir=scratch()))
    result = Result()
    try:
        options: dict[str, Any] = {"mode": "group"} if kind == "group" else {}
        options |= {"journal": "delete"} if kind == "delete" else {}
        store = sqlstate.open(folder / "store.db", **options)
        fill(store)
        handed: deque[Any] = deque()
        number = THREADS if kind in ("threads", "group") else 1
        leavers = [Leaver(store, f"w{i}", f"{seed}-{i}", handed) for i in range(number)]
        until = time.monotonic() + float(seconds)
        stop = threading.Event()

        def work(leaver: Leaver) -> None:
            leaver.waits = kind == "delete"
            try:
                while not stop.is_set() and (leaver.left < int(scans) / number or time.monotonic() < until):
                    watched.patience(PATIENCE_SECONDS)
                    leaver.round()
            finally:
                if leaver.left < int(scans) / number:
                    stop.set()

        with ThreadPoolExecutor(number) as pool:
            for done in [pool.submit(work, leaver) for leaver in leavers]:
                done.result()
        watched.patience(PATIENCE_SECONDS)
        for leaver in leavers:
            leaver.look_alone()
        store.close()
        expect(files_beside(store.path) == ["store.db"], f"close() left {files_beside(store.path)}")
        for leaver in leavers:
            leaver.after_close()
        handed.clear()
        result.runs = result.counts["scans left"] = sum(leaver.left for leaver in leavers)
        watched.patience(JUDGE_SECONDS)
        judgement = plain.judge(folder / "store.db", history=1)
        expect(judgement.sound, f"the file is not sound: {judgement.findings}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


# ---- Tasks ----


class AsyncLeaver:
    """Leaves scans in tasks.

    Args:
        store: the store.
        seed: of what it does.
    """

    def __init__(self, store: aio.AsyncStore, seed: str) -> None:
        self.store = store
        self.left = 0
        self._rng = random.Random(seed)  # noqa: S311, no secret
        self._kept: list[Any] = []
        self._live: list[Any] = []
        self._errors: list[BaseException] = []
        self._count = 0
        self._kept_in_threads: list[Any] = []

    def ways(self) -> list[Callable[[], Any]]:
        return [
            self.transaction, self.snapshot, self.entries, self.kept, self.traceback, self.cancelled, self.in_cycle,
            self.at_once, self.threads,
        ]  # fmt: skip

    async def transaction(self) -> None:
        async with self.store.transaction() as txn:
            async for _ in txn["in"].items():
                break
            if self._rng.random() < 0.3:
                txn.put("mine", "k", self._rng.random())
        self.left += 1

    async def snapshot(self) -> None:
        async with self.store.snapshot() as view:
            async for _ in view["in"].values():
                break
        self.left += 1

    async def entries(self) -> None:
        async for _ in self.store["in"].keys():
            break
        rows = self.store["in"].items()
        await anext(rows)
        self.left += 2
        if self._rng.random() < 0.2:
            self._live.append(rows)
            del self._live[:-LIVE]

    async def kept(self) -> None:
        async with self.store.snapshot() as view:
            kept: list[Any] = [view["in"].items(), view["in"].keys()]
            for rows in kept:
                await anext(rows)
        async with self.store.transaction() as txn:
            kept.append(txn["in"].values())
            await anext(kept[-1])
        self.left += len(kept)
        if self._rng.random() < 0.5:
            await async_step(kept.pop())
        self._kept += kept
        del self._kept[:-KEPT]

    async def traceback(self) -> None:
        try:
            async with self.store.snapshot() as view, self.store.transaction() as txn:
                which = view if self._rng.random() < 0.5 else txn
                [int(value) async for value in which["in"].values()]
        except ValueError as e:
            self._errors.append(e)
            del self._errors[:-KEPT]
        self.left += 1

    async def cancelled(self) -> None:
        """Tasks that are cancelled while they scan, some before their first row came."""

        async def one(where_: Any) -> None:
            async for _ in where_["in"].items():
                await anyio.lowlevel.checkpoint()

        async def in_snapshot() -> None:
            async with self.store.snapshot() as view:
                await one(view)

        async def in_transaction() -> None:
            async with self.store.transaction() as txn:
                await one(txn)

        with anyio.move_on_after(self._rng.random() * 0.01):
            async with anyio.create_task_group() as group:
                group.start_soon(one, self.store)
                group.start_soon(in_snapshot)
                group.start_soon(in_transaction)
        self.left += 3

    async def in_cycle(self) -> None:
        rows: Any = self.store["in"].items()
        await anext(rows)
        Cycle(rows)
        async with self.store.snapshot() as view:
            rows = view["in"].items()
            await anext(rows)
            Cycle((view, rows))
        self.left += 2

    async def at_once(self) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(self._rng.choice([self.transaction, self.snapshot, self.entries, self.kept]))

    async def threads(self) -> None:
        """Scans of the store that a thread of sqlstate.aio leaves."""

        def leave(store: sqlstate.Store) -> None:
            with store.snapshot() as view:
                self._kept_in_threads.append(iter(view["in"].items()))
                next(self._kept_in_threads[-1])
            next(iter(store["in"].items()))
            gc.collect()

        await self.store.call(leave)
        del self._kept_in_threads[:-3]
        self.left += 2

    async def round(self) -> None:
        await self._rng.choice(self.ways())()
        await self.look()

    async def look(self) -> None:
        """Write, and read that in each way."""
        store = self.store
        before = await store.get("n", "n", 0)
        expect(before == self._count, f"get() shows {before}, {self._count} was written")
        self._count += 1
        await store.put("n", "n", self._count)
        expect(await store.get("n", "n") == self._count, "get() shows an old value")
        head = await store.head()
        expect(head.seq >= self._count, f"head() shows commit {head.seq}, {self._count} were made")
        async with store.snapshot() as view:
            expect(view.head == head, f"a snapshot shows commit {view.head.seq}, head() {head.seq}")
            expect(await view.get("n", "n") == self._count, "a snapshot shows an old value")
        async with store.transaction() as txn:
            expect(await txn.get("n", "n") == self._count, "a transaction shows an old value")
        expect([value async for value in store["n"].values()] == [self._count], "a scan shows an old value")
        made = await store.call(lambda sync: sync.prove("n", "n"))
        proof.verify_present(made, head.root, "n", "n", self._count)

    async def after_close(self) -> None:
        for rows in (*self._kept, *self._live):
            await async_step(rows)


async def async_step(rows: Any) -> None:
    """Step a scan whose ground is gone: it must say so."""
    try:
        found = await anext(rows)
    except ENDED_OR_CLOSED:
        return
    except StopAsyncIteration:
        expect(False, "a scan ended in silence although what it reads of has ended")
    expect(False, f"a scan gave {found!r} although what it reads of has ended")


async def leaves(path: Path, case: str, result: Result) -> None:
    """Leave scans in an event loop."""
    _, seed, scans, seconds = case.split("-")
    store = await aio.open(path)
    await store.call(fill)
    leaver = AsyncLeaver(store, seed)
    until = time.monotonic() + float(seconds)
    while leaver.left < int(scans) or time.monotonic() < until:
        watched.patience(PATIENCE_SECONDS)
        with anyio.fail_after(PATIENCE_SECONDS / 2):
            await leaver.round()
    watched.patience(PATIENCE_SECONDS)
    await store.close()
    expect(files_beside(path) == ["store.db"], f"close() left {files_beside(path)}")
    await leaver.after_close()
    result.runs = result.counts["scans left"] = leaver.left


def async_case(case: str) -> Result:
    """Leave scans in tasks of asyncio or trio."""
    gc.set_threshold(50, 5, 5)
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-left-", dir=scratch()))
    result = Result()
    try:
        anyio.run(leaves, folder / "store.db", case, result, backend=case.split("-", maxsplit=1)[0])
        gc.collect()
        judgement = plain.judge(folder / "store.db", history=1)
        expect(judgement.sound, f"the file is not sound: {judgement.findings}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


# ---- Campaigns ----


def cases(plan: Plan, kinds: tuple[str, ...]) -> list[str]:
    if plan.case:
        return [plan.case]
    seconds = LONG_SECONDS if plan.long else 0
    return [f"{kind}-{plan.seed}-{plan.count}-{seconds}" for kind in kinds]


def told(result: Result) -> Result:
    result.found = f"{result.counts['failures']} faults; {figures(result, 'scans left')}"
    return result


def limit(plan: Plan) -> float:
    """Seconds after which a case is a freeze whatever it says; each of its rounds has its own."""
    return PATIENCE_SECONDS + (LONG_SECONDS * 4 if plan.long else 0)


@campaign(15, "scans left early, kept, dropped: threads", bar="0 stale, 0 frozen, 0 uncaught", ci=150, long=20_000)
def left_by_threads(plan: Plan) -> Result:
    """Leave scans in threads; the count is of scans, for each of four kinds of store."""
    return told(spread_watched(plan, sync_case, cases(plan, ("one", "delete", "threads", "group")), limit(plan)))


@campaign(16, "scans left early, cancelled: asyncio, trio", bar="0 stale, 0 frozen, 0 uncaught", ci=300, long=20_000)
def left_by_tasks(plan: Plan) -> Result:
    """Leave scans in tasks; the count is of scans, for each of both."""
    return told(spread_watched(plan, async_case, cases(plan, ("asyncio", "trio")), limit(plan)))
