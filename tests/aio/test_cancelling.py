"""Goal: a cancellation leaves nothing half done, and says what it left. Method: gates in the store's own thread decide
what has begun when a task is cancelled, by anyio's scopes, trio and asyncio itself; and many random moments.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import sqlstate
from sqlstate import aio
from tests.reference import plain
from tests.support.failing import FailingVFS
from tests.support.tasks import SOON, Gate, Task, asyncio_only, content, lent, notes, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


def put_behind(gate: Gate) -> Callable[[sqlstate.Transaction], None]:
    def work(txn: sqlstate.Transaction) -> None:
        txn.put("c", "k", 1)
        gate(txn)

    return work


def put_twice(txn: sqlstate.Transaction, i: int) -> None:
    txn.put("c", i, i)
    txn.put("d", i, i)


WITHDRAWN = "sqlstate: the write was withdrawn before it began; nothing was changed"


async def buffered(opened: aio.AsyncStore) -> None:
    async with opened.transaction() as txn:
        txn.put("c", "k", await txn.get("c", "k", 0) + 1)


WRITES: list[Callable[[aio.AsyncStore], Awaitable[Any]]] = [
    lambda opened: opened.put("c", "k", 1),
    lambda opened: opened["c"].update({"k": 1}),
    lambda opened: opened.run(lambda txn: txn.put("c", "k", 1)),
    buffered,
]


@pytest.mark.parametrize("write", WRITES, ids=["put", "update", "run", "transaction"])
async def test_a_write_cancelled_before_it_begins_is_withdrawn_at_once(
    aiostore: aio.AsyncStore, write: Callable[[aio.AsyncStore], Awaitable[Any]]
) -> None:
    gate = Gate()
    first = aiostore.submit(gate)
    await gate.reached()
    async with anyio.create_task_group() as group:
        task = Task(group, lambda: write(aiostore))
        await until(lambda: aiostore._store._group.committer._queue)
        task.cancel()
        assert await task.was_cancelled() == WITHDRAWN
        assert first.outcome == "waiting"
        gate.open.set()
    await aiostore.barrier()
    assert (await aiostore.head()).seq == 0


@pytest.mark.parametrize("times", [1, 3])
async def test_a_write_cancelled_while_it_runs_is_waited_for(aiostore: aio.AsyncStore, times: int) -> None:
    gate = Gate()

    def work(txn: sqlstate.Transaction) -> None:
        txn.put("c", "k", 1)
        gate(txn)
        txn.put("c", "l", 2)

    async with anyio.create_task_group() as group:
        task = Task(group, lambda: aiostore.run(work))
        await gate.reached()
        for _ in range(times):
            task.cancel()
            await anyio.sleep(0.01)
        assert not task.ended
        gate.open.set()
        assert await task.was_cancelled() == "sqlstate: the write was committed as commit 1"
    assert await content(aiostore) == {"k": 1, "l": 2}


async def test_a_write_cancelled_while_it_runs_may_fail_or_change_nothing(aiostore: aio.AsyncStore) -> None:
    for ends, said in ((lambda: 1 / 0, "failed, and nothing was changed: ZeroDivisionError"), (int, "changed nothing")):
        gate = Gate()

        def work(txn: sqlstate.Transaction, gate: Gate = gate, ends: Callable[[], Any] = ends) -> None:
            gate(txn)
            ends()

        async with anyio.create_task_group() as group:
            task = Task(group, partial(aiostore.run, work))
            await gate.reached()
            task.cancel()
            gate.open.set()
            assert said in await task.was_cancelled()
    assert (await aiostore.head()).seq == 0


async def test_a_put_or_delete_cancelled_while_it_is_committed_says_if_it_changed_anything(
    aiostore: aio.AsyncStore,
) -> None:
    """What was put is there already, and what was deleted was not there: they share a commit, and are not in it."""
    await aiostore.put("c", "k", 1)
    gate = Gate()
    aiostore.submit(lambda txn: (txn.put("c", "gate", 1), gate(txn))[0])
    await gate.reached()
    writes: dict[str, Callable[[], Awaitable[Any]]] = {
        "changed nothing": lambda: aiostore.put("c", "k", 1),
        "changed nothing ": lambda: aiostore.delete("c", "none"),
        "was committed as commit": lambda: aiostore.put("c", "l", 2),
        "was committed as commit ": lambda: aiostore.delete("c", "gate"),
    }
    async with anyio.create_task_group() as group:
        tasks = {said: Task(group, write) for said, write in writes.items()}
        await until(lambda: len(aiostore._store._group.committer._queue) == len(tasks))
        for request in aiostore._store._group.committer._queue:
            assert request.begin()  # as when the committer has taken it
        for task in tasks.values():
            task.cancel()
        gate.open.set()
        for said, task in tasks.items():
            assert said.strip() in await task.was_cancelled()


async def test_a_write_cancelled_while_commit_fails_is_told_unknown(path: Path) -> None:
    vfs, gate = FailingVFS(), Gate()
    opened = await aio.open(path, vfs="failing")
    await opened.put("c", "k", 0)

    def work(txn: sqlstate.Transaction) -> None:
        txn.put("c", "k", 1)
        gate(txn)
        vfs.fails = "sync wal"

    async with anyio.create_task_group() as group:
        task = Task(group, lambda: opened.run(work))
        await gate.reached()
        task.cancel()
        gate.open.set()
        assert "whether the write is there is not known: CommitOutcomeUnknown" in await task.was_cancelled()
    await opened.close()
    assert plain.judge(path).findings == ()


async def test_a_transaction_cancelled_inside_its_block_changes_nothing(aiostore: aio.AsyncStore) -> None:
    async def work() -> None:
        async with aiostore.transaction() as txn:
            txn.put("c", "k", await txn.get("c", "k", 1))
            await anyio.sleep(SOON)

    async with anyio.create_task_group() as group:
        task = Task(group, work)
        await until(lambda: lent(aiostore))
        task.cancel()
        assert await task.was_cancelled() == ""
    await until(lambda: not lent(aiostore))
    assert (await aiostore.head()).seq == 0


@asyncio_only
@pytest.mark.parametrize("times", [1, 3])
async def test_cancellations_of_asyncio_itself(aiostore: aio.AsyncStore, times: int) -> None:
    gate = Gate()
    running = asyncio.ensure_future(aiostore.run(put_behind(gate)))
    await gate.reached()
    waiting = asyncio.ensure_future(aiostore.put("c", "l", 1))
    timed = asyncio.ensure_future(asyncio.wait_for(aiostore.put("c", "m", 1), 0.01))
    await until(timed.done)
    for _ in range(times):
        running.cancel()
        waiting.cancel()
        await asyncio.sleep(0.01)
    await until(waiting.done)
    assert not running.done()
    assert waiting.cancelled()
    with pytest.raises(TimeoutError):
        await timed
    gate.open.set()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await running
    assert notes(cancelled.value) == "sqlstate: the write was committed as commit 1"
    assert await content(aiostore) == {"k": 1}


@asyncio_only
async def test_a_shielded_wait_does_not_keep_the_loop_busy(
    aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, made = Gate(), []
    loop = asyncio.get_running_loop()
    real = loop.create_future
    async with anyio.create_task_group() as group:
        task = Task(group, lambda: aiostore.run(put_behind(gate)))
        await gate.reached()
        monkeypatch.setattr(loop, "create_future", lambda: [real(), made.append(1)][0])
        task.cancel()  # anyio cancels again and again, until the task is out of its scope
        await asyncio.sleep(0.05)
        monkeypatch.undo()
        gate.open.set()
    assert len(made) < 10


@asyncio_only
async def test_asyncio_cancels_a_task_whose_write_is_done_already(aiostore: aio.AsyncStore) -> None:
    loop = aiostore._loop
    real = loop._settle
    task = asyncio.ensure_future(aiostore.put("c", "k", 1))
    loop._settle = lambda: (real(), task.cancel())[0]  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    assert notes(cancelled.value) == "sqlstate: the write was committed as commit 1"
    assert await content(aiostore) == {"k": 1}


async def test_cancelling_at_any_moment_says_what_is_there(aiostore: aio.AsyncStore) -> None:
    """200 writes or more, cancelled after a random time: what a note says is what the store holds."""
    chance = random.Random(1)  # noqa: S311, no secret
    said: dict[int, str] = {}

    async def one(i: int) -> None:
        for _ in range(chance.randrange(6)):
            await anyio.sleep(0)
        try:
            await aiostore.run(partial(put_twice, i=i))
        except anyio.get_cancelled_exc_class() as e:
            said[i] = notes(e)
            raise
        said[i] = "returned"

    async def some(numbers: range) -> None:
        async with anyio.create_task_group() as group:
            for i in numbers:
                task = Task(group, partial(one, i))
                if chance.random() < 0.7:
                    group.start_soon(cancel_later, task, chance.random() * 0.004)

    async def cancel_later(task: Task, seconds: float) -> None:
        await anyio.sleep(seconds)
        task.cancel()

    first = 0
    while first < 200 or (len({text[:30] for text in said.values()}) < 3 and first < 20_000):  # the moments are mixed
        await some(range(first, first + 20))
        first += 20
    there, also = await content(aiostore), await content(aiostore, "d")
    assert there == also
    carried = await aiostore.call(
        lambda s: {each.key: each.txn for each in s.wal.read() if each.kind == "PUT" and each.collection == "c"}
    )
    assert carried.keys() == there.keys()
    for i, text in said.items():
        assert (i in there) == (text == "returned" or "was committed as commit" in text), (i, text)
        assert i in there or text in ("", WITHDRAWN)


async def test_a_cancelled_read_does_not_wait(aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    real = sqlstate.Store.head
    monkeypatch.setattr(sqlstate.Store, "head", lambda self: (gate.wait(SOON), real(self))[1])
    began = time.monotonic()
    with anyio.move_on_after(0.02) as scope:
        await aiostore.head()
    assert scope.cancelled_caught
    assert time.monotonic() - began < SOON / 2
    gate.set()
    assert (await aiostore.head()).seq == 0


async def test_a_cancelled_call_is_waited_for(aiostore: aio.AsyncStore) -> None:
    begun, gate = threading.Event(), threading.Event()

    def write(s: sqlstate.Store) -> None:
        begun.set()
        assert gate.wait(SOON)
        s["c"]["k"] = 1

    async with anyio.create_task_group() as group:
        task = Task(group, lambda: aiostore.call(write))
        await until(begun.is_set)
        task.cancel()
        await anyio.sleep(0.01)
        assert not task.ended
        gate.set()
    assert await content(aiostore) == {"k": 1}
