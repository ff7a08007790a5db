"""Goal: however many tasks write at once, few writes are under way, each gets its turn, and the loop is told of a whole
group at once. Method: a small bound, and a gate in the store's own thread, so that what waits is no matter of luck.
"""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from sqlstate import StoreClosed
from sqlstate.aio import event_loop
from tests.support.tasks import Gate, Task, asyncio_only, content, until

if TYPE_CHECKING:
    from sqlstate import aio

pytestmark = pytest.mark.anyio


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(event_loop, "UNDER_WAY_MAX", 3)
    return 3


def waiting(opened: aio.AsyncStore) -> int:
    """How many tasks wait for their turn."""
    return len(opened._loop._turns)


def queued(opened: aio.AsyncStore) -> int:
    return len(opened._store._group.committer._queue)


async def held(opened: aio.AsyncStore) -> Gate:
    """Keep the store's own thread until the gate is opened."""
    gate = Gate()
    opened.submit(gate)
    await gate.reached()
    return gate


def at_rest(opened: aio.AsyncStore) -> bool:
    return not opened._loop._under_way and not opened._loop._turns


async def test_few_writes_are_under_way_and_each_gets_its_turn_in_order(aiostore: aio.AsyncStore, bound: int) -> None:
    gate, done = await held(aiostore), list[int]()

    async def put(i: int) -> None:
        await aiostore.put("c", i, i)
        done.append(i)

    async with anyio.create_task_group() as group:
        for i in range(20):
            group.start_soon(put, i)
            await until(lambda: queued(aiostore) + waiting(aiostore) == i + 1)  # noqa: B023, they end in this round
        assert (queued(aiostore), waiting(aiostore)) == (bound, 20 - bound)
        gate.open.set()
    assert all(abs(at - i) < 2 * bound for at, i in enumerate(done))  # trio runs what is ready in any order
    assert sorted(done) == list(range(20))
    assert await content(aiostore) == {i: i for i in range(20)}
    assert at_rest(aiostore)


async def test_one_that_is_cancelled_while_it_waits_for_its_turn_is_withdrawn(
    aiostore: aio.AsyncStore, bound: int
) -> None:
    gate = await held(aiostore)
    async with anyio.create_task_group() as group:
        tasks = [Task(group, partial(aiostore.put, "c", i, i)) for i in range(10)]
        await until(lambda: queued(aiostore) + waiting(aiostore) == 10)
        gone = [task for i, task in enumerate(tasks) if i % 2]
        for task in gone:
            task.cancel()
        for task in gone:
            assert (
                await task.was_cancelled() == "sqlstate: the write was withdrawn before it began; nothing was changed"
            )
        assert waiting(aiostore) > 0
        gate.open.set()
    assert len(await content(aiostore)) == 5
    assert at_rest(aiostore)


async def test_the_turn_of_one_that_is_cancelled_goes_to_the_next(aiostore: aio.AsyncStore, bound: int) -> None:
    """Even if all that had theirs are withdrawn, and nothing will be delivered."""
    gate = await held(aiostore)
    async with anyio.create_task_group() as group:
        first = [Task(group, partial(aiostore.put, "c", i, i)) for i in range(bound)]
        await until(lambda: queued(aiostore) == bound)
        group.start_soon(aiostore.put, "c", "last", 1)
        await until(lambda: waiting(aiostore) == 1)
        for task in first:
            task.cancel()
            await task.was_cancelled()
        await until(lambda: not waiting(aiostore))
        gate.open.set()
    assert await content(aiostore) == {"last": 1}
    assert at_rest(aiostore)


async def test_what_fails_gives_its_turn_away_too(aiostore: aio.AsyncStore, bound: int) -> None:
    failed: list[Any] = []

    async def fail(i: int) -> None:
        try:
            await aiostore.run(lambda _: 1 // 0)
        except ZeroDivisionError:
            failed.append(i)

    async with anyio.create_task_group() as group:
        for i in range(10):
            group.start_soon(fail, i)
            group.start_soon(aiostore.put, "c", i, i)
    assert len(failed) == len(await content(aiostore)) == 10
    assert at_rest(aiostore)


async def test_those_that_wait_when_the_store_is_closed_are_refused(aiostore: aio.AsyncStore, bound: int) -> None:
    gate, refused = await held(aiostore), list[int]()

    async def put(i: int) -> None:
        try:
            await aiostore.put("c", i, i)
        except StoreClosed:
            refused.append(i)

    async with anyio.create_task_group() as group:
        for i in range(10):
            group.start_soon(put, i)
        await until(lambda: queued(aiostore) + waiting(aiostore) == 10)
        group.start_soon(aiostore.close)
        await until(lambda: aiostore._store._group.committer.closed)
        gate.open.set()
    assert len(refused) == 10 - bound
    assert at_rest(aiostore)


@asyncio_only
async def test_the_turns_of_tasks_that_are_dropped_are_given_away(aiostore: aio.AsyncStore, bound: int) -> None:
    """Nothing is done in the loop then: the garbage collector may run anywhere."""
    gate = await held(aiostore)
    dropped = [aiostore.put("c", i, i) for i in range(bound)]
    for each in dropped:
        each.send(None)
    async with anyio.create_task_group() as group:
        group.start_soon(aiostore.put, "c", "last", 1)
        await until(lambda: waiting(aiostore) == 1)
        del each, dropped
        gc.collect()
        assert waiting(aiostore) == 1
        gate.open.set()
    assert (await content(aiostore))["last"] == 1
    assert at_rest(aiostore)


async def test_the_loop_is_told_once_of_each_group(aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, told = await held(aiostore), list[int]()
    real = aiostore._loop.wake

    def wake(jobs: Any) -> None:
        told.append(len(jobs))
        real(jobs)

    monkeypatch.setattr(aiostore._loop, "wake", wake)
    async with anyio.create_task_group() as group:
        for i in range(64):
            group.start_soon(aiostore.put, "c", i, i)
        await until(lambda: queued(aiostore) == 64)
        gate.open.set()
    assert told in ([65], [1, 64])


def cut_short_once(loop: event_loop.Loop, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Raise where the next result is delivered to *loop*; return a list that is empty until then."""
    wake, cut = loop.wake, list[int]()

    def wake_or_raise(jobs: Any) -> None:
        if not cut:
            cut.append(1)
            raise error
        wake(jobs)

    monkeypatch.setattr(loop, "wake", wake_or_raise)
    return cut


async def delivered(opened: aio.AsyncStore) -> str:
    """Return what a thread gives, which is done only once its task waits for it."""
    gate = threading.Event()

    def give() -> str:
        gate.wait()
        return "given"

    async def open_gate() -> None:
        gate.set()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(open_gate)
            given = await opened._threads.run(give)
    return given


async def test_an_exception_that_cuts_a_delivery_short_leaves_no_task_waiting(
    aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = cut_short_once(aiostore._loop, MemoryError, monkeypatch)
    assert await delivered(aiostore) == "given"
    assert cut


@asyncio_only
async def test_the_loop_finds_a_result_whose_thread_was_ended_before_it_told(
    aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("concurrent.futures"), "disabled", True)  # it tells of what ended its thread
    cut = cut_short_once(aiostore._loop, SystemExit, monkeypatch)
    assert await delivered(aiostore) == "given"
    assert cut


async def test_the_outcome_of_a_read_is_dropped_with_its_task_without_the_garbage_collector(
    aiostore: aio.AsyncStore,
) -> None:
    class Large:
        pass

    gc.disable()
    try:
        large = await aiostore._threads.run(Large)
        gone = weakref.ref(large)
        del large
        await until(lambda: gone() is None)  # its thread may still be on its way out
    finally:
        gc.enable()
