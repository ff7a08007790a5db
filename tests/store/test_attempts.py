"""Goal: with retries=, what Busy and Conflict undid is done again, as often as asked and no more; all else is not.

Method: conflicts and locked writers are made to happen on chosen attempts; other processes and tasks race for real.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from textwrap import dedent
from typing import TYPE_CHECKING, Any, assert_type

import anyio
import pytest

import sqlstate
from sqlstate import aio
from sqlstate.commit import requests

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenStore

pytestmark = pytest.mark.anyio


def conflict() -> sqlstate.Conflict:
    return sqlstate.Conflict("c", "k", 1, 2)


def failing(times: int, error: Callable[[], BaseException], calls: list[int]) -> Callable[[Any], int]:
    """Return a function of a transaction that puts, and raises on its first calls."""

    def work(txn: Any) -> int:
        calls.append(len(calls))
        txn.put("c", "k", len(calls))
        txn.put("c", f"only {len(calls)}", 1)
        if len(calls) <= times:
            raise error()
        return len(calls)

    return work


def looped(store: sqlstate.Store, work: Callable[[Any], int], retries: int) -> int:
    for attempt in store.transaction("a note", retries=retries):
        with attempt as txn:
            found = work(txn)
    return found


def called(store: sqlstate.Store, work: Callable[[Any], int], retries: int) -> int:
    return store.run(work, "a note", retries=retries)


WAYS = [looped, called]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["full", "group"])
@pytest.mark.parametrize("error", [conflict, lambda: sqlstate.Busy("busy")])
def test_what_failed_is_done_again_with_nothing_left_of_it(
    open_store: OpenStore, way: Any, mode: str, error: Callable[[], Exception]
) -> None:
    store = open_store(mode=mode)
    calls: list[int] = []
    assert way(store, failing(2, error, calls), 2) == 3
    assert dict(store["c"]) == {"k": 3, "only 3": 1}
    assert [change.note for change in store["c"].history("k")] == ["a note"]
    assert store.head().seq == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("retries", [0, 1, 4])
def test_the_last_exception_gets_through(store: sqlstate.Store, way: Any, retries: int) -> None:
    calls: list[int] = []
    with pytest.raises(sqlstate.Conflict):
        way(store, failing(99, conflict, calls), retries)
    assert len(calls) == retries + 1
    assert store.head().seq == 0
    store["c"]["after"] = 1


@pytest.mark.parametrize("way", WAYS)
def test_nothing_else_is_tried_again(store: sqlstate.Store, way: Any) -> None:
    errors: list[Callable[[], BaseException]] = [
        LookupError,
        KeyboardInterrupt,
        lambda: sqlstate.StoreFull("full"),
        lambda: sqlstate.InvalidKey("no"),
    ]
    for error in errors:
        calls: list[int] = []
        with pytest.raises((LookupError, KeyboardInterrupt, sqlstate.StoreError)):
            way(store, failing(1, error, calls), 5)
        assert len(calls) == 1
    assert store.head().seq == 0


@pytest.mark.parametrize("way", WAYS)
def test_inside_a_transaction_there_is_one_attempt(store: sqlstate.Store, way: Any) -> None:
    calls: list[int] = []
    with store.transaction() as txn:
        txn.put("c", "outer", 1)
        with pytest.raises((sqlstate.Conflict, sqlstate.InvalidOption)):
            looped_or_called(way, store, failing(1, conflict, calls))
    assert len(calls) == 1
    assert dict(store["c"]) == {"outer": 1}


def looped_or_called(way: Any, store: sqlstate.Store, work: Callable[[Any], int]) -> None:
    if way is called:
        store.run(work, retries=5)
        return
    for attempt in store.transaction(retries=5):
        with attempt as txn:
            work(txn)


@pytest.mark.parametrize("retries", [-1, 1.0, "3", True, None])
async def test_what_is_no_number_of_attempts_is_named(store: sqlstate.Store, path: Path, retries: Any) -> None:
    with pytest.raises(sqlstate.InvalidOption, match="retries="):
        store.run(lambda txn: None, retries=retries)
    with store.transaction(), pytest.raises(sqlstate.InvalidOption, match="retries="):
        store.run(lambda txn: None, retries=retries)
    if retries is not None:
        with pytest.raises(sqlstate.InvalidOption, match="retries="):
            store.transaction(retries=retries)
    async with aio.open(path) as tasks:
        with pytest.raises(sqlstate.InvalidOption, match="retries="):
            await tasks.run(lambda txn: None, retries=retries)
        if retries is not None:
            with pytest.raises(sqlstate.InvalidOption, match="retries="):
                tasks.transaction(retries=retries)


async def test_attempts_are_no_block(store: sqlstate.Store, path: Path) -> None:
    with pytest.raises(sqlstate.InvalidOption, match="loop: `for attempt in"), store.transaction(retries=3):
        pass
    async with aio.open(path) as tasks:
        with pytest.raises(sqlstate.InvalidOption, match="loop: `async for attempt in"):
            async with tasks.transaction(retries=3):
                pass


def test_an_attempt_that_is_taken_for_a_transaction_says_how_it_begins(store: sqlstate.Store) -> None:
    uses: list[Callable[[Any], object]] = [
        lambda attempt: attempt.put("c", 1, 1), lambda attempt: attempt["c"], lambda attempt: attempt.collection("c"),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(sqlstate.TransactionEnded, match=r"not begun.*`with attempt as txn:`"):
            for attempt in store.transaction(retries=3):
                use(attempt)


async def test_a_type_checker_knows_what_an_attempt_gives(store: sqlstate.Store, aiostore: aio.AsyncStore) -> None:
    def typed() -> int:
        for attempt in store.transaction(retries=1):
            with attempt as txn:
                assert_type(txn, sqlstate.Transaction)
                return 1
        return 0  # mypy knows that the block may swallow an exception

    assert typed() == 1
    async for each in aiostore.transaction(retries=1):
        async with each as writes:
            assert isinstance(writes, aio.AsyncTransaction)
            writes.put("c", 1, 1)
    assert_type(store.run(lambda txn: 5, retries=1), int)
    assert_type(await aiostore.run(lambda txn: "a", retries=1), str)
    with store.transaction() as plain:
        assert_type(plain, sqlstate.Transaction)


def test_a_loop_can_be_left_in_the_middle(store: sqlstate.Store) -> None:
    for attempt in store.transaction(retries=3):
        with attempt as txn:
            txn.put("c", "k", 1)
            break
    assert store["c"]["k"] == 1, "break leaves the block as its end does"
    for _ in store.transaction(retries=3):
        pass  # one that is not entered is not tried again
    with store.transaction() as txn:
        txn.put("c", "k", 2)

    def returned() -> int:
        for attempt in store.transaction(retries=3):
            with attempt as txn:
                txn.put("c", "k", 3)
                return 7
        raise AssertionError

    assert returned() == 7
    assert store["c"]["k"] == 3


def test_a_writer_that_is_locked_out_waits_again(open_store: OpenStore, path: Path) -> None:
    store = open_store(timeout=0.05)
    other = sqlstate.open(path)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with other.transaction() as txn:
            txn.put("c", "other", 1)
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    waits: list[int] = []
    try:
        for way in (looped, called):
            with pytest.raises(sqlstate.Busy):
                way(store, lambda txn: txn.put("c", "k", 1), 2)

        def busy_once(txn: Any) -> int:
            waits.append(1)
            return 1

        threading.Timer(0.3, release.set).start()
        assert looped(store, busy_once, 1000) == 1
    finally:
        release.set()
        thread.join()
        other.close()
    assert waits == [1], "the block itself ran once"


def test_processes_lose_no_update(store: sqlstate.Store, path: Path) -> None:
    code = """
        import sys, sqlstate
        with sqlstate.open(sys.argv[1]) as store:
            for _ in range(20):
                for attempt in store.transaction(retries=100_000):
                    n = store.get("c", "n", 0)  # before the lock is held
                    with attempt as txn:
                        txn.expect("c", "n", n or sqlstate.ABSENT)
                        txn.put("c", "n", n + 1)
    """
    others = [subprocess.Popen([sys.executable, "-c", dedent(code), str(path)]) for _ in range(3)]
    for other in others:
        assert other.wait() == 0
    assert store["c"]["n"] == 60


def test_no_other_exception_is_lost_where_its_undoing_meets_a_writer(
    store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise sqlstate.Busy("at the end")

    tried = []
    with pytest.raises(sqlstate.Busy) as caught:
        for attempt in store.transaction(retries=3):
            with attempt:
                tried.append(1)
                monkeypatch.setattr(store._group, "end", end)
                raise KeyboardInterrupt
    assert isinstance(caught.value.__context__, KeyboardInterrupt)
    assert tried == [1]
    monkeypatch.undo()


# ---- Tasks ----


async def test_tasks_lose_no_update(aiostore: aio.AsyncStore) -> None:
    attempts = 0

    async def visit() -> None:
        nonlocal attempts
        for _ in range(5):
            async for attempt in aiostore.transaction(retries=10_000):
                async with attempt as txn:
                    attempts += 1
                    n = await txn.get("c", "n", 0)
                    await anyio.sleep(0)
                    txn.put("c", "n", n + 1)

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(visit)
    assert await aiostore.get("c", "n") == 30
    assert attempts > 30, "some met a conflict"


@pytest.mark.parametrize("retries", [0, 3])
async def test_tasks_try_as_often_as_asked(aiostore: aio.AsyncStore, retries: int) -> None:
    tried = 0
    with pytest.raises(sqlstate.Conflict):
        async for attempt in aiostore.transaction(retries=retries):
            async with attempt as txn:
                tried += 1
                await txn.get("c", "k")
                await aiostore.put("c", "k", tried)
                txn.put("c", "mine", tried)
    assert tried == retries + 1
    assert await aiostore.get("c", "mine") is None
    calls: list[int] = []
    with pytest.raises(sqlstate.Conflict):
        await aiostore.run(failing(99, conflict, calls), retries=retries)
    assert len(calls) == retries + 1
    calls.clear()
    assert await aiostore.run(failing(2, conflict, calls), retries=2) == 3
    for error in (LookupError, sqlstate.InvalidKey):
        tried = 0
        with pytest.raises((LookupError, sqlstate.InvalidKey)):
            async for attempt in aiostore.transaction(retries=5):
                async with attempt:
                    tried += 1
                    raise error("x")
        assert tried == 1


async def test_each_loop_over_the_same_attempts_has_all_of_them(store: sqlstate.Store, path: Path) -> None:
    async with aio.open(path) as tasks:
        attempts, of_tasks = store.transaction(retries=1), tasks.transaction(retries=1)
        for number in (1, 3):
            tried = iter((number, number + 1, number, number + 1))
            for attempt in attempts:
                with attempt as txn:
                    txn.put("c", "k", next(tried))
                    txn.expect("c", "k", number + 1)
            async for each in of_tasks:
                async with each as writes:
                    writes.put("c", "k", next(tried))
                    writes.expect("c", "k", number + 1)
            assert list(tried) == []
            assert store["c"]["k"] == number + 1


async def test_a_conflict_that_a_task_raises_in_the_block_is_tried_again(aiostore: aio.AsyncStore) -> None:
    tried = 0
    async for attempt in aiostore.transaction(retries=2):
        async with attempt as txn:
            tried += 1
            txn.put("c", "k", tried)
            txn.expect("c", "k", 3)
    assert (tried, await aiostore.get("c", "k")) == (3, 3)


def test_pauses_are_short_and_by_chance() -> None:
    for failures in (1, 3, 6, 1000):
        found = [requests.pause(failures) for _ in range(200)]
        assert all(0 <= each <= 0.001 * 2 ** min(failures, 6) for each in found)
        assert len(set(found)) > 100
