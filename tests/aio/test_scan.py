"""Goal: a scan, a snapshot and a watch of a task see what they say, and hold nothing longer than they must. Method:
each is compared with the same of threads while others write; the connections that are lent are counted.
"""

from __future__ import annotations

import gc
import threading
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import sqlstate
from sqlstate import aio
from sqlstate.aio import scan, threads
from sqlstate.sqlite.connection import Connection
from tests.reference import plain
from tests.support.tasks import SOON, Task, lent, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


# ---- Scans ----


BOUNDS: list[dict[str, Any]] = [
    {}, {"reverse": True}, {"start": 5}, {"stop": "k1"}, {"start": 2990, "stop": "k2"}, {"prefix": "k1"},
    {"prefix": b""}, {"limit": 0}, {"limit": 1}, {"limit": 1000}, {"limit": 1001}, {"limit": 2500, "reverse": True},
    {"start": "z", "stop": "a"}, {"limit": 10_000}, {"prefix": "k", "limit": 3, "reverse": True},
]  # fmt: skip


async def test_scans_give_what_scans_of_threads_give(aiostore: aio.AsyncStore) -> None:
    entries = {i: i for i in range(3000)} | {f"k{i}": [i] for i in range(50)} | {b"b": b"x", b"\xff": None}
    await aiostore["c"].update(entries)
    async with aiostore.snapshot() as view, aiostore.transaction() as txn:
        for bounds in BOUNDS:
            expected = await aiostore.call(lambda s, bounds=bounds: list(s["c"].items(**bounds)))  # type: ignore[misc]
            for c in (aiostore["c"], view["c"], txn["c"]):
                assert [pair async for pair in c.items(**bounds)] == expected, bounds
                assert [key async for key in c.keys(**bounds)] == [key for key, _ in expected]
                assert [value async for value in c.values(**bounds)] == [value for _, value in expected]
                if not {"limit", "reverse"} & bounds.keys():
                    assert await c.count(**bounds) == len(expected)
    await until(lambda: not lent(aiostore))


async def test_a_scan_sees_one_state_over_all_its_chunks(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update(dict.fromkeys(range(5000), 0))
    seen = Counter[int]()
    async for key, value in aiostore["c"].items():
        if key in (0, 1500):
            await aiostore["c"].update(dict.fromkeys(range(6000), int(key) + 1))
        seen[value] += 1
    assert seen == {0: 5000}


@pytest.mark.slow
async def test_a_scan_takes_one_hop_for_each_chunk_and_chunks_grow(
    aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await aiostore["c"].update({i: i for i in range(20_000)})
    await aiostore["large"].update({i: bytes(300_000) for i in range(12)})
    sizes: list[int] = []
    real = scan.StoredRows._step

    def step(self: Any, most: int, *, final: bool) -> Any:
        rows, last = real(self, most, final=final)
        sizes.append(len(rows))
        return rows, last

    monkeypatch.setattr(scan.StoredRows, "_step", step)
    assert [key async for key in aiostore["c"].keys()] == list(range(20_000))  # noqa: SIM118, an asynchronous one
    assert sizes == [1000, 2000, 4000, 8000, 5000]
    sizes.clear()
    assert [len(value) async for value in aiostore["large"].values()] == [300_000] * 12
    assert sizes == [4, 4, 4, 0]
    hops: list[Any] = []
    run = threads.Threads.run
    monkeypatch.setattr(threads.Threads, "run", lambda *args, **options: [run(*args, **options), hops.append(1)][0])
    assert len([key async for key in aiostore["c"].keys(limit=10)]) == 10
    assert len(hops) == 1
    assert lent(aiostore) == 0


async def test_a_scan_lets_go_when_it_ends(aiostore: aio.AsyncStore) -> None:
    c = aiostore["c"]
    await c.update({i: i for i in range(5000)})

    async def all_of_it() -> None:
        assert len([key async for key in c]) == 5000

    async def limited() -> None:
        assert len([key async for key in c.keys(limit=2000)]) == 2000

    async def closed() -> None:
        async with aclosing(c.items()) as rows:
            await anext(rows)
            assert lent(aiostore) == 1
        with pytest.raises(StopAsyncIteration):
            await anext(rows)
        await rows.aclose()

    for use in (all_of_it, limited, closed):
        await use()
        assert lent(aiostore) == 0, use


async def test_a_scan_that_is_left_lets_go(aiostore: aio.AsyncStore) -> None:
    c = aiostore["c"]
    await c.update({i: i for i in range(5000)})

    async def left() -> None:
        async for _ in c.items():
            break

    async def raised() -> None:
        with pytest.raises(LookupError):
            async for _ in c.items():
                raise LookupError

    async def dropped() -> None:
        rows = c.items()
        await anext(rows)
        assert lent(aiostore) == 1
        del rows

    async def in_a_snapshot() -> None:
        async with aiostore.snapshot() as view:
            async for _ in view["c"].items():
                break

    async def in_a_transaction() -> None:
        async with aiostore.transaction() as txn:
            async for _ in txn["c"].items():
                break

    kept: list[Any] = []

    async def kept_behind_a_snapshot() -> None:
        async with aiostore.snapshot() as view:
            kept.append(view["c"].items())
            await anext(kept[-1])

    async def kept_behind_a_transaction() -> None:
        async with aiostore.transaction() as txn:
            kept.append(txn["c"].items())
            await anext(kept[-1])
            txn.put("mine", "k", 1)

    uses = (left, raised, dropped, in_a_snapshot, in_a_transaction, kept_behind_a_snapshot, kept_behind_a_transaction)
    for use in uses:
        await use()
        gc.collect()
        await until(lambda: not lent(aiostore))
        # No statement goes on in the connection: else it would show the next reader an old state.
        await aiostore.put("c", 0, use.__name__)
        for _ in range(20):
            assert await aiostore.get("c", 0) == use.__name__


async def test_a_scan_that_is_dropped_is_ended_by_the_thread_of_the_next_reader(
    aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that drops it is the loop's, which must not wait for a file."""
    await aiostore["c"].update({i: i for i in range(5000)})
    ended: list[int] = []
    clean = Connection.clean
    monkeypatch.setattr(Connection, "clean", lambda self: (ended.append(threading.get_ident()), clean(self))[1])
    async for _ in aiostore["c"].items():
        break
    gc.collect()
    assert ended == []
    with anyio.fail_after(SOON):
        while not ended:  # the thread that read the first rows may have them in its hand a moment longer
            assert await aiostore.get("c", 1) == 1
    assert len(ended) == 1
    assert ended != [threading.get_ident()]


async def test_a_cancelled_scan_lets_go(aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await aiostore["c"].update({i: i for i in range(5000)})
    gate, stepping = threading.Event(), threading.Event()
    real = scan.StoredRows._step

    def step(self: Any, most: int, *, final: bool) -> Any:
        if most > scan.ROWS_FIRST:
            with self._lock:
                stepping.set()
                assert gate.wait(SOON)
        return real(self, most, final=final)

    monkeypatch.setattr(scan.StoredRows, "_step", step)

    async def work() -> None:
        async for _ in aiostore["c"].items():
            pass

    async with anyio.create_task_group() as group:
        task = Task(group, work)
        await until(stepping.is_set)
        task.cancel()
        await task.was_cancelled()  # it does not wait for the thread
        gate.set()
    await until(lambda: not lent(aiostore))


async def test_two_tasks_at_one_scan_are_refused(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update({i: i for i in range(5)})
    rows = aiostore["c"].items()
    seen: list[Any] = []

    async def one() -> None:
        try:
            seen.append(await anext(rows))
        except sqlstate.StoreUnusable as e:
            seen.append(str(e)[:12])

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    assert seen == ["another task", (0, 0)]
    assert await anext(rows) == (1, 1)


@pytest.mark.slow
async def test_a_scan_goes_from_thread_to_thread(aiostore: aio.AsyncStore) -> None:
    """A statement is stepped by one thread at a time, each time perhaps by another one: all of them at once."""
    await aiostore["c"].update({i: i for i in range(12_000)})
    used: set[int] = set()

    async def one() -> None:
        keys = [key async for key in aiostore["c"].keys()]  # noqa: SIM118
        assert keys == list(range(12_000))
        used.add(await aiostore.call(lambda _: threading.get_ident()))

    async with anyio.create_task_group() as group:
        for _ in range(16):
            group.start_soon(one)
    assert len(used) > 1
    assert lent(aiostore) == 0


async def test_closing_ends_a_scan(path: Path) -> None:
    async with aio.open(path) as opened:
        await opened["c"].update({i: i for i in range(5000)})
        rows = opened["c"].items()
        await anext(rows)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]
    with pytest.raises(sqlstate.TransactionEnded, match="the store was closed"):
        async for _ in rows:
            pass


# ---- Snapshots ----


async def test_a_snapshot_sees_one_commit(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update(dict.fromkeys(range(100), 0))
    async with aiostore.snapshot() as view:
        await aiostore["c"].update(dict.fromkeys(range(200), 1))
        await aiostore.put("d", "k", 1)
        assert view.head.seq == 1
        assert await view.get("c", 5) == 0
        assert [await view.count("c"), await view["c"].count(start=90), await view.contains("c", 150)] == [
            100,
            10,
            False,
        ]
        assert await view.collections() == ["c"]
        assert {value async for value in view["c"].values()} == {0}
        rows = view["c"].items()
        await anext(rows)
    await until(lambda: not lent(aiostore))
    with pytest.raises(sqlstate.TransactionEnded):
        await view.get("c", 5)
    with pytest.raises(sqlstate.TransactionEnded):
        await anext(view["c"].items())
    assert await aiostore.count("c") == 200


async def test_a_snapshot_that_ends_after_the_store_lets_go(path: Path) -> None:
    opened = await aio.open(path)
    await opened.put("c", "k", 1)
    async with opened.snapshot() as view:
        await opened.close()
        assert lent(opened) == 0
        assert sorted(file.name for file in path.parent.iterdir()) == [path.name]
        with pytest.raises(sqlstate.StoreClosed):
            await view.get("c", "k")
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]
    assert plain.judge(path).count == 1


async def test_many_tasks_share_a_snapshot(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update({i: i for i in range(3000)})
    async with aiostore.snapshot() as view, anyio.create_task_group() as group:

        async def one(i: int) -> None:
            assert await view.get("c", i) == i
            assert len([key async for key in view["c"].keys(start=i)]) == 3000 - i
            assert await view.count("c") == 3000

        for i in range(30):
            group.start_soon(one, i)


# ---- Watching ----


async def test_watch_yields_the_commits_of_this_and_other_handles(path: Path, aiostore: aio.AsyncStore) -> None:
    await aiostore.put("c", "k", 0)
    seen: list[int] = []

    heads = aiostore.watch()

    async def follow() -> None:
        async for head in heads:
            seen.append(head.seq)  # noqa: PERF401, each as it comes

    async with anyio.create_task_group() as group:
        task = Task(group, follow)
        await until(lambda: heads._after == 1)
        await aiostore.put("c", "k", 1)
        await until(lambda: seen == [2])
        with sqlstate.open(path) as other:
            other["c"]["k"] = 2
            await until(lambda: seen == [2, 3])
        task.cancel()
    assert not aiostore._loop.watchers
    assert [head.seq async for head in aiostore.watch(after=0, timeout=0)] == [1, 2, 3]
    assert [head.seq async for head in aiostore.watch(after=3, timeout=0.05)] == []


async def test_own_commits_are_seen_at_once(aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlstate.aio.watch.POLL_SECONDS", SOON)
    seen: list[int] = []

    async def follow() -> None:
        seen.extend([head.seq async for head in aiostore.watch(after=0) if seen.append(head.seq)])

    async with anyio.create_task_group() as group:
        task = Task(group, follow)
        await anyio.sleep(0.05)
        for i in range(5):
            await aiostore.put("c", "k", i)
        with anyio.fail_after(SOON / 2):
            await until(lambda: seen == [1, 2, 3, 4, 5])
        task.cancel()


async def test_watch_catches_up_in_order_and_ends_when_the_store_is_closed(path: Path) -> None:
    with sqlstate.open(path) as sync:
        for i in range(600):
            sync["c"]["k"] = i
    seen: list[int] = []
    opened = await aio.open(path)

    async def follow() -> None:
        async for head in opened.watch(after=10):
            seen.append(head.seq)  # noqa: PERF401, each as it comes

    async with anyio.create_task_group() as group:
        task = Task(group, follow)
        await until(lambda: len(seen) == 590)
        await opened.put("c", "k", "last")
        await until(lambda: seen == list(range(11, 602)))
        await opened.close()
        await until(lambda: task.ended)


async def test_of_many_watches_one_looks_for_all(
    path: Path, aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlstate.aio.watch.POLL_SECONDS", 0.002)
    monkeypatch.setattr("sqlstate.aio.watch.STAND_BY_SECONDS", 3600.0)
    looks: list[int] = []
    watch = aiostore._store.watch

    def look(after: int, timeout: float) -> Any:
        looks.append(after)
        return watch(after, timeout)

    monkeypatch.setattr(aiostore._store, "watch", look)
    seen: list[list[int]] = [[] for _ in range(20)]

    async def follow(mine: list[int], timeout: float | None) -> None:
        async for head in aiostore.watch(after=0, timeout=timeout):
            mine.append(head.seq)
            if head.seq == 2:
                return

    async with anyio.create_task_group() as group:
        group.start_soon(follow, [], 0.02)  # it looks first, and ends: another goes on
        await anyio.sleep(0.01)
        for mine in seen:
            group.start_soon(follow, mine, None)
        while len(aiostore._loop.watchers) < 20:
            await anyio.sleep(0.002)
        await anyio.sleep(0.1)
        assert len(looks) <= 1 + 3 * 20
        with sqlstate.open(path) as other:
            for number in (1, 2):
                other["c"]["k"] = number
    assert seen == [[1, 2]] * 20
    assert not aiostore._loop.watchers
