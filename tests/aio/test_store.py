"""Goal: tasks get what threads get: durable writes that share commits, and reads. Method: real stores and files under
asyncio and trio, judged when a test ends; a process with 64 tasks is killed; the page of the API is compared.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import sqlstate
from sqlstate import Conflict, aio
from sqlstate.aio import event_loop as loops
from sqlstate.aio import opening, threads
from sqlstate.store import opening as store_opening
from tests import ROOT
from tests.reference import plain
from tests.support.failing import FailingVFS
from tests.support.lines import be_patient
from tests.support.tasks import BACKENDS, SOON, Gate, asyncio_only, content, lent, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenAsyncStore

pytestmark = pytest.mark.anyio


# ---- Opening and closing ----


async def test_a_store_is_opened_by_await_and_by_async_with(path: Path) -> None:
    async with aio.open(path) as opened:
        await opened.put("c", "k", 1)
    again = await aio.open(path)
    async with again:
        assert await again.get("c", "k") == 1
    async with await aio.open(path, mode="full", journal="wal", timeout=1) as full:
        await full.put("c", "k", 2)
        assert (await full.stats()).counters.commits == 1
        assert (full.path, full.store_id) == (path, again.store_id)
        assert full.recovery.clean
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


async def test_one_call_of_open_opens_once(path: Path) -> None:
    opening = aio.open(path)
    async with opening:
        with pytest.raises(sqlstate.InvalidOption, match="already"):
            await opening


async def test_opening_raises_what_the_other_open_raises(path: Path) -> None:
    with pytest.raises(sqlstate.StoreMissing):
        await aio.open(path, create=False)
    with pytest.raises(sqlstate.InvalidOption, match="mode"):
        await aio.open(path, mode="none")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unknown"):
        await aio.open(path, unknown=1)  # type: ignore[call-arg]
    assert not path.exists()


def test_the_options_are_those_of_the_other_open() -> None:
    theirs = inspect.signature(sqlstate.open).parameters
    own = set(opening.Options.__annotations__)
    assert own == set(theirs) - {"path", "mode"}
    types = {name: each.annotation for name, each in theirs.items()}
    assert {name: each.__forward_arg__ for name, each in opening.Options.__annotations__.items()} == {
        name: types[name] for name in own
    }


async def test_what_was_cancelled_while_it_was_opened_is_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, real, opened = threading.Event(), store_opening.open, []

    def open_(*args: Any, **options: Any) -> sqlstate.Store:
        opened.append(real(*args, **options))
        assert slow.wait(SOON)
        return opened[0]

    monkeypatch.setattr(store_opening, "open", open_)
    async with anyio.create_task_group() as group:
        group.start_soon(aio.open(path)._open)
        await until(lambda: opened)
        group.cancel_scope.cancel()
        slow.set()
    with pytest.raises(sqlstate.StoreClosed):
        opened[0].head()


async def test_closing_waits_for_what_was_submitted(path: Path) -> None:
    opened = await aio.open(path)
    tickets = [opened.submit(lambda txn, i=i: txn.put("c", i, i)) for i in range(500)]  # type: ignore[misc]
    await opened.close()
    await opened.close()
    assert [ticket.outcome for ticket in tickets] == ["durable"] * 500
    assert plain.judge(path).count == 500


async def test_closing_is_not_cut_short_by_a_cancellation(path: Path) -> None:
    gate = Gate()
    with anyio.CancelScope() as scope:
        async with aio.open(path) as opened:
            ticket = opened.submit(gate)
            await gate.reached()
            scope.cancel()
            threading.Timer(0.05, gate.open.set).start()
            await anyio.sleep(SOON)
    assert scope.cancelled_caught
    assert ticket.outcome == "durable"
    with pytest.raises(sqlstate.StoreClosed):
        opened._store.head()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


async def test_closing_in_vain_leaves_it_open(opens: OpenAsyncStore) -> None:
    opened = await opens(timeout=0.05)
    gate = Gate()
    ticket = opened.submit(gate)
    await gate.reached()
    with pytest.raises(sqlstate.Busy):
        await opened.close()
    with anyio.move_on_after(0) as scope:
        await opened.close()
    assert scope.cancelled_caught
    gate.open.set()
    assert await ticket == "through"
    await opened.put("c", "k", 1)
    assert await opened.get("c", "k") == 1


async def test_after_close_everything_raises_store_closed(path: Path) -> None:
    async with aio.open(path) as opened:
        await opened.put("c", "k", 1)
        began = opened["c"].items()
        await anext(began)
        late = opened.transaction()
    calls: list[Callable[[], Any]] = [
        lambda: opened.get("c", "k"),
        lambda: opened["c"].count(),
        lambda: anext(opened["c"].items()),
        lambda: opened.put("c", "k", 1),
        lambda: opened["c"].pop("k"),
        lambda: opened.run(lambda _: None),
        opened.collections,
        opened.head,
        opened.stats,
        opened.sizes,
        opened.compact,
        opened.barrier,
        lambda: opened.call(lambda _: None),
    ]
    for call in calls:
        with pytest.raises(sqlstate.StoreClosed):
            await call()
    for _ in range(2):
        with pytest.raises(sqlstate.TransactionEnded, match="the store was closed"):
            await anext(began)
    with pytest.raises(sqlstate.StoreClosed):
        opened.submit(lambda _: None)
    with pytest.raises(sqlstate.StoreClosed):
        async with late as txn:
            txn.put("c", "k", 2)
    with pytest.raises(sqlstate.StoreClosed):
        async with opened.snapshot():
            pass
    assert plain.judge(path).count == 1


async def test_a_store_opened_for_reading_reads(path: Path) -> None:
    sqlstate.open(path).close()
    async with aio.open(path, read_only=True) as opened:
        assert await opened.get("c", "k", "none") == "none"
        writes: list[Callable[[], Any]] = [lambda: opened.put("c", "k", 1), lambda: opened.run(lambda _: None)]
        for write in writes:
            with pytest.raises(sqlstate.ReadOnly):
                await write()
        async with opened.transaction() as txn:
            assert await txn["c"].count() == 0
        with pytest.raises(sqlstate.ReadOnly):
            opened.submit(lambda _: None)


def test_without_anyio_one_sentence_says_what_is_missing() -> None:
    program = "import sys; sys.modules['anyio'] = None\ntry: import sqlstate.aio\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "sqlstate.aio needs anyio: pip install 'sqlstate-store[aio]'\n"


def test_the_package_itself_needs_no_anyio() -> None:
    program = "import sys, sqlstate, sqlstate.cli; print([m for m in ('anyio', 'asyncio', 'trio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- Where it may be used ----


def test_no_event_loop_or_another_one_is_refused(path: Path) -> None:
    kept: list[aio.AsyncStore] = []

    async def first() -> None:
        kept.append(await aio.open(path))
        await kept[0].put("c", "k", 1)

    async def other() -> None:
        opened = kept[0]
        for call in (lambda: opened.get("c", "k"), lambda: opened.put("c", "k", 2), opened.close):
            with pytest.raises(sqlstate.StoreUnusable, match="event loop"):
                await call()
        with pytest.raises(sqlstate.StoreUnusable, match="event loop"):
            opened.submit(lambda _: None)

    anyio.run(first, backend="asyncio")
    for backend in BACKENDS:
        anyio.run(other, backend=backend)
    with pytest.raises(sqlstate.StoreUnusable, match="event loop"):
        kept[0].submit(lambda _: None)
    with pytest.raises(sqlstate.StoreUnusable, match="no event loop"):
        aio.open(path).__await__().send(None)
    kept[0]._store.close()
    assert plain.judge(path).count == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_the_child_of_a_fork_is_refused(aiostore: aio.AsyncStore) -> None:
    await aiostore.put("c", "k", 1)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            calls: list[Callable[[], Any]] = [lambda: aiostore.get("c", "k"), lambda: aiostore.put("c", "k", 2)]
            for call in (*calls, aiostore.close):
                with pytest.raises(sqlstate.StoreForked):
                    call().send(None)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert await aiostore.get("c", "k") == 1


async def test_a_loop_that_ended_does_not_disturb_the_store(path: Path) -> None:
    sync = sqlstate.open(path, mode="group")

    def elsewhere(backend: str) -> None:
        async def leave() -> None:
            loop = loops.running_loop()
            opened = aio.AsyncStore(sync, loop, threads.Threads(loop, "here"))
            opened.submit(lambda _: time.sleep(0.05))
            opened.submit(lambda txn: txn.put("c", backend, 1))

        anyio.run(leave, backend=backend)

    for backend in BACKENDS:
        thread = threading.Thread(target=elsewhere, args=(backend,))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
    sync["c"]["after"] = 1
    assert list(sync["c"]) == ["after", "asyncio", "trio"]
    sync.close()
    assert plain.judge(path).findings == ()


# ---- Reading and writing ----


async def test_reads_and_writes_of_the_store(aiostore: aio.AsyncStore) -> None:
    await aiostore.put("c", "k", {"a": [1]})
    await aiostore.put("d", 1, b"x")
    assert await aiostore.get("c", "k") == {"a": [1]}
    assert await aiostore.get("c", "none") is None
    assert await aiostore.get("c", "none", 5) == 5
    assert [await aiostore.contains("d", key) for key in (1, "1")] == [True, False]
    assert [await aiostore.count(name) for name in ("c", "none")] == [1, 0]
    assert await aiostore.collections() == ["c", "d"]
    assert [await aiostore.delete("c", "k"), await aiostore.delete("c", "k")] == [True, False]
    head = await aiostore.head()
    assert (head.seq, head.count) == (3, 1)
    assert await aiostore.barrier() == head
    assert (await aiostore.stats()).entries == 1
    assert await aiostore.call(lambda s: [each.seq for each in s.commits()]) == [1, 2, 3]
    assert repr(aiostore) == f"<sqlstate.aio.AsyncStore {str(aiostore.path)!r}: open>"


async def test_every_method_of_a_collection(aiostore: aio.AsyncStore) -> None:
    c = aiostore["c"]
    await c.put("a", 1)
    await c.update({"b": 2, "c": 3, 7: 4})
    assert await content(aiostore) == {7: 4, "a": 1, "b": 2, "c": 3}
    assert [key async for key in c] == [7, "a", "b", "c"]
    assert [await c.get("a"), await c.get("x"), await c.get("x", 0)] == [1, None, 0]
    assert [await c.contains("a"), await c.contains("x")] == [True, False]
    assert [await c.count(), await c.count(start="b"), await c.count(prefix="a"), await c.count(start=9, stop=3)] == [
        4, 2, 1, 0,
    ]  # fmt: skip
    assert [await c.pop("a"), await c.pop("a", 9)] == [1, 9]
    with pytest.raises(sqlstate.EntryNotFound):
        await c.pop("a")
    assert await c.popitem() == ("c", 3)
    assert [await c.setdefault("b", 8), await c.setdefault("z", 8)] == [2, 8]
    assert [await c.delete("z"), await c.delete("z")] == [True, False]
    before = await aiostore.head()
    await c.replace({"b": 2, "n": 1})
    assert await content(aiostore) == {"b": 2, "n": 1}
    await c.replace({"b": 2, "n": 1})
    assert (await aiostore.head()).seq == before.seq + 1
    await c.clear()
    assert await content(aiostore) == {}
    with pytest.raises(sqlstate.EntryNotFound):
        await c.popitem()
    assert repr(c) == "<sqlstate.aio.AsyncCollection 'c': open>"


@dataclass
class User:
    name: str
    age: int = 0


async def test_typed_collections(aiostore: aio.AsyncStore) -> None:
    users = aiostore.collection("users", type=User)
    await users.put("ada", User("Ada", 36))
    assert await users.get("ada") == User("Ada", 36)
    assert [user async for user in users.values()] == [User("Ada", 36)]
    assert await users.setdefault("bob", User("Bob")) == User("Bob")
    await aiostore.put("users", "bob", 5)
    with pytest.raises(sqlstate.InvalidValue, match="bob"):
        await users.get("bob")
    seen = []
    with pytest.raises(sqlstate.InvalidValue, match="bob"):
        async for key, _ in users.items():  # noqa: PERF102, it is the values that are wrong
            seen.append(key)
    assert seen == ["ada"]
    await until(lambda: not lent(aiostore))
    async with aiostore.transaction() as txn:
        own = txn.collection("users", type=User)
        own.put("cy", User("Cy"))
        assert await own.get("cy") == User("Cy")
        with pytest.raises(sqlstate.InvalidValue):
            own.put("cy", 5)  # type: ignore[arg-type]
    async with aiostore.snapshot() as view:
        assert await view.collection("users", type=User).get("cy") == User("Cy")


async def test_what_cannot_be_stored_is_refused_at_the_call(aiostore: aio.AsyncStore) -> None:
    writes: list[tuple[type[Exception], Callable[[], Any]]] = [
        (sqlstate.InvalidKey, lambda: aiostore.put("c", 1.5, 1)),  # type: ignore[arg-type]
        (sqlstate.InvalidKey, lambda: aiostore.delete("c", "")),
        (sqlstate.InvalidKey, lambda: aiostore.get("c", None)),  # type: ignore[arg-type]
        (sqlstate.InvalidValue, lambda: aiostore.put("c", "k", {1})),
        (sqlstate.InvalidValue, lambda: aiostore["c"].update({"a": 1, "b": (1,)})),
        (sqlstate.InvalidName, lambda: aiostore.put("", "k", 1)),
        (sqlstate.InvalidOption, lambda: aiostore.run(lambda _: None, note="x" * 5000)),
        (sqlstate.InvalidOption, lambda: aiostore.run(content)),  # type: ignore[arg-type]
        (sqlstate.InvalidOption, lambda: aiostore.call(content)),  # type: ignore[arg-type]
    ]
    for error, write in writes:
        with pytest.raises(error):
            await write()
    refused: list[tuple[type[Exception], Callable[[], Any]]] = [
        (sqlstate.InvalidOption, lambda: aiostore["c"].items(limit=-1)),
        (sqlstate.InvalidOption, lambda: aiostore["c"].keys(prefix="a", start="b")),
        (sqlstate.InvalidKey, lambda: aiostore["c"].values(start=1.5)),  # type: ignore[arg-type]
        (sqlstate.InvalidOption, lambda: aiostore.watch(after=-1)),
        (sqlstate.InvalidOption, lambda: aiostore.watch(timeout=-1)),
        (sqlstate.InvalidOption, lambda: aiostore.transaction(note="x" * 5000)),
        (sqlstate.InvalidOption, lambda: aiostore.submit(content)),  # type: ignore[arg-type]
    ]
    for error, call in refused:
        with pytest.raises(error):
            call()
    assert (await aiostore.head()).seq == 0


async def test_run_returns_the_result_and_undoes_what_failed(aiostore: aio.AsyncStore) -> None:
    def move(txn: sqlstate.Transaction) -> int:
        txn.put("c", "k", 1)
        return threading.get_ident()

    assert await aiostore.run(move, note="moved") != threading.get_ident()
    [begin] = await aiostore.call(lambda s: [each for each in s.wal.read() if each.kind == "BEGIN"])
    assert begin.note == "moved"

    def fail(txn: sqlstate.Transaction) -> None:
        txn.put("c", "k", 2)
        raise LookupError("not this time")

    with pytest.raises(LookupError, match="not this time"):
        await aiostore.run(fail)
    assert await content(aiostore) == {"k": 1}


@pytest.mark.parametrize("journal", [pytest.param("wal", marks=pytest.mark.slow), "delete"])
@pytest.mark.parametrize("mode", ["group", "full"])
async def test_increments_of_many_tasks_add_up(opens: OpenAsyncStore, mode: str, journal: str) -> None:
    opened = await opens(mode=mode, journal=journal, timeout=30)
    tasks, times = (20, 20) if journal == "wal" else (8, 5)

    def increment(txn: sqlstate.Transaction) -> None:
        txn.put("c", "run", txn.get("c", "run", 0) + 1)

    conflicts = 0

    async def work() -> None:
        nonlocal conflicts
        for _ in range(times):
            await opened.run(increment)
            while True:
                try:
                    async with opened.transaction() as txn:
                        txn.put("c", "txn", await txn.get("c", "txn", 0) + 1)
                    break
                except Conflict:
                    conflicts += 1

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(work)
    assert await content(opened) == {"run": tasks * times, "txn": tasks * times}
    assert conflicts > 0


async def test_tasks_share_commits(aiostore: aio.AsyncStore) -> None:
    await aiostore.put("c", "first", 1)
    before = (await aiostore.stats()).counters

    async def work(i: int) -> None:
        for j in range(20):
            await aiostore.put("c", (i << 8) + j, j)

    async with anyio.create_task_group() as group:
        for i in range(64):
            group.start_soon(work, i)
    after = (await aiostore.stats()).counters
    assert after.transactions - before.transactions == 1280
    assert after.commits - before.commits <= 1280 / 8


async def test_the_loop_is_woken_once_for_all_that_is_done(
    aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, wakes = aiostore._loop, Counter[str]()
    real = loop._wake

    def wake() -> None:
        wakes["times"] += 1
        real()

    monkeypatch.setattr(loop, "_wake", wake)
    tickets = [aiostore.submit(partial(_put, key=i)) for i in range(100)]
    aiostore._store.barrier()  # blocks the loop while everything is delivered
    assert wakes["times"] == 1
    for ticket in tickets:
        await ticket


async def test_a_failing_transaction_of_a_group_fails_alone(aiostore: aio.AsyncStore) -> None:
    gate, outcomes = Gate(), Counter[str]()
    aiostore.submit(gate)
    await gate.reached()

    def work(txn: sqlstate.Transaction, i: int) -> None:
        txn.put("c", i, i)
        if i % 3 == 0:
            raise LookupError

    async def one(i: int) -> None:
        try:
            await aiostore.run(partial(work, i=i))
            outcomes["held"] += 1
        except LookupError:
            outcomes["failed"] += 1

    async with anyio.create_task_group() as group:
        for i in range(30):
            group.start_soon(one, i)
        await anyio.sleep(0.01)
        gate.open.set()
    assert outcomes == {"held": 20, "failed": 10}
    assert list(await content(aiostore)) == [i for i in range(30) if i % 3]


@asyncio_only  # trio lets tasks that can go on in a random order
async def test_acknowledgements_come_in_the_order_of_commits(aiostore: aio.AsyncStore) -> None:
    order: list[int] = []

    async def one(i: int) -> None:
        seen = await aiostore.run(lambda txn: txn.put("c", i, i) or len(txn["c"]))
        order.append(seen)

    async with anyio.create_task_group() as group:
        for i in range(200):
            group.start_soon(one, i)
    assert order == list(range(1, 201))


async def test_busy_comes_through(path: Path, opens: OpenAsyncStore) -> None:
    opened = await opens(timeout=0.05)
    await opened.put("c", "k", 1)
    with sqlstate.open(path) as other, other.transaction() as txn:
        txn.put("c", "k", 2)
        other.collections()
        with pytest.raises(sqlstate.Busy):
            await opened.put("c", "k", 3)
        be_patient(opened._store)
    assert await opened.get("c", "k") == 2


async def test_no_acknowledged_put_is_lost_by_a_kill(path: Path, anyio_backend: str) -> None:
    program = """
import os, sys, anyio
from sqlstate import aio
async def main():
    async with aio.open(sys.argv[1]) as store, anyio.create_task_group() as group:
        async def work(task):
            for i in range(1_000_000):
                await store.put("c", task << 32 | i, i)
                os.write(1, b"%d\\n" % (task << 32 | i))
        for task in range(64):
            group.start_soon(work, task)
anyio.run(main, backend=sys.argv[2])
"""
    command = [sys.executable, "-c", program, str(path), anyio_backend]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(2000)]
        child.kill()
        said += child.stdout.readlines()
    acknowledged = {int(line) for line in said if line.endswith(b"\n")}
    assert len(acknowledged) >= 2000
    async with aio.open(path) as opened:
        there = await content(opened)
        assert acknowledged - there.keys() == set()
        assert len(there) <= len(acknowledged) + 64
        assert opened.recovery.in_doubt is not None
    assert plain.judge(path).findings == ()


# ---- Tickets ----


async def test_a_ticket_tells_its_outcome(aiostore: aio.AsyncStore) -> None:
    gate = Gate()
    first = aiostore.submit(gate)
    ticket = aiostore.submit(lambda txn: txn.put("c", "k", 1) or "done", note="n")
    await gate.reached()
    assert (ticket.outcome, ticket.head) == ("waiting", None)
    gate.open.set()
    assert [await ticket, await ticket, await first] == ["done", "done", "through"]
    assert ticket.outcome == "durable"
    assert ticket.head == await aiostore.head()
    assert first.head is None  # it changed nothing


async def test_a_ticket_of_what_failed_raises_each_time(aiostore: aio.AsyncStore) -> None:
    ticket = aiostore.submit(lambda _: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await ticket
    assert (ticket.outcome, ticket.head, ticket.withdraw()) == ("failed", None, False)


async def test_a_ticket_can_be_withdrawn_until_it_begins(aiostore: aio.AsyncStore) -> None:
    gate = Gate()
    first = aiostore.submit(gate)
    second = aiostore.submit(lambda txn: txn.put("c", "k", 1))
    await gate.reached()
    raised = []

    async def wait() -> None:
        with pytest.raises(CancelledError):
            await second
        raised.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        group.start_soon(wait)
        await anyio.sleep(0.01)
        assert [first.withdraw(), second.withdraw(), second.withdraw()] == [False, True, True]
    assert (second.outcome, raised) == ("withdrawn", [1, 1])
    gate.open.set()
    assert await first == "through"
    with pytest.raises(CancelledError):
        await second
    assert await content(aiostore) == {}


async def test_who_stops_waiting_for_a_ticket_does_not_withdraw_it(aiostore: aio.AsyncStore) -> None:
    gate = Gate()
    aiostore.submit(gate)
    ticket = aiostore.submit(lambda txn: txn.put("c", "k", 1))
    with anyio.move_on_after(0.01) as scope:
        await ticket
    assert scope.cancelled_caught
    gate.open.set()
    await ticket
    assert await content(aiostore) == {"k": 1}


async def test_barrier_waits_for_all_that_was_submitted(aiostore: aio.AsyncStore) -> None:
    tickets = [aiostore.submit(partial(_put, key=i)) for i in range(300)]
    head = await aiostore.barrier()
    assert {ticket.outcome for ticket in tickets} == {"durable"}
    assert head.count == 300


def _put(txn: sqlstate.Transaction, key: int) -> None:
    txn.put("c", key, key)


async def test_an_error_at_commit_is_an_unknown_outcome(path: Path) -> None:
    vfs = FailingVFS()
    opened = await aio.open(path, vfs="failing")
    await opened.put("c", "k", 0)
    vfs.fails = "sync wal"
    gate = Gate()
    opened.submit(gate)
    tickets = [opened.submit(partial(_put, key=i)) for i in range(3)]
    await gate.reached()
    gate.open.set()
    for ticket in tickets:
        with pytest.raises(sqlstate.CommitOutcomeUnknown):
            await ticket
        assert (ticket.outcome, ticket.head) == ("unknown", None)
    with pytest.raises(sqlstate.StoreClosed):
        await opened.put("c", "k", 0)
    await opened.close()
    assert plain.judge(path).findings == ()
    del vfs


# ---- Upkeep ----


async def test_tasks_go_on_reading_while_the_store_is_compacted(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update(dict.fromkeys(range(500), "x" * 200))
    head = await aiostore.head()
    told: list[tuple[int, int]] = []
    report = None

    async def compact() -> None:
        nonlocal report
        report = await aiostore.compact(lambda done, total: told.append((done, total)))

    async with anyio.create_task_group() as group:
        group.start_soon(compact)
        for number in range(50):
            assert await aiostore.get("c", number) == "x" * 200
        group.start_soon(aiostore.put, "c", "later", 1)
    assert report is not None
    assert report.bytes_after <= report.bytes_before
    assert [done for done, _ in told] == [1, 2, 3, 4]
    assert (await aiostore.sizes()).free == 0
    assert (await aiostore.head()).seq == head.seq + 1


async def test_a_cancelled_compaction_is_waited_for(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update(dict.fromkeys(range(500), "x" * 200))
    begun = threading.Event()

    async with anyio.create_task_group() as group:
        group.start_soon(aiostore.compact, lambda done, total: begun.set())
        await anyio.to_thread.run_sync(begun.wait)
        group.cancel_scope.cancel()
    await aiostore.put("c", "after", 1)
    assert (await aiostore.call(lambda store: store.check("quick"))).ok
