"""Goal: a connection that reads comes back whatever becomes of who had it, is never lent to two at once, and is closed
with its store at once. Method: leases that end, are dropped, or are cut short; SQLite itself says what is closed."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import sqlstate
from sqlstate.sqlite import readers as module
from sqlstate.sqlite import settings
from sqlstate.sqlite.readers import READERS_KEPT, Lease
from tests.support.lines import PATIENCE, Threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlstate.sqlite.connection import Connection
    from tests.conftest import OpenStore

ROWS = 1000


@pytest.fixture
def store(open_store: OpenStore) -> sqlstate.Store:
    store = open_store(timeout=PATIENCE)
    store["c"].update({i: i for i in range(ROWS)})
    return store


@pytest.fixture
def readers(store: sqlstate.Store) -> module.Readers:
    return store._engine.readers


def count(connection: Connection) -> int:
    return int(connection.value("SELECT count(*) FROM state"))


def test_a_connection_is_used_again_once_it_is_back(readers: module.Readers) -> None:
    first = readers.acquire()
    second = readers.acquire()
    assert first is not second
    readers.release(first)
    assert readers.acquire() is first
    readers.release(first)
    readers.release(second)


def test_a_row_takes_a_connection_of_the_pool_and_gives_it_back(store: sqlstate.Store, readers: module.Readers) -> None:
    sql = "SELECT count(*) FROM state"
    first, second = readers.acquire(), readers.acquire()
    for held in ([], [first], [first, second]):
        readers._idle.clear()
        for connection in held:
            readers.release(connection)
        assert readers.row(sql, ()) == (ROWS,)
        assert len(readers._idle) == max(1, len(held))
    lease = Lease(readers, "a test")
    connection = lease.connection
    del lease
    assert readers.row(sql, ()) == (ROWS,)
    assert (readers.lent, list(readers.gone), connection.in_transaction()) == ([], [], False)
    store._engine.fail("a test")
    with pytest.raises(sqlstate.StoreClosed, match="a test"):
        readers.row(sql, ())


def test_rows_of_many_threads_come_from_as_many_connections_as_read_at_once(readers: module.Readers) -> None:
    def read() -> None:
        for _ in range(300):
            assert readers.row("SELECT count(*) FROM state", ()) == (ROWS,)

    with Threads() as threads:
        for _ in range(8):
            threads.start(read)
    assert 1 <= len(readers._idle) <= READERS_KEPT
    assert len({id(connection) for connection in readers._idle}) == len(readers._idle)


def test_the_pool_keeps_few_and_closes_the_others(readers: module.Readers) -> None:
    taken = [readers.acquire() for _ in range(READERS_KEPT + 3)]
    for connection in taken:
        readers.release(connection)
    assert [connection.closed for connection in taken] == [False] * READERS_KEPT + [True] * 3


def test_what_is_lent_sees_one_state_and_is_clean_when_it_is_back(
    store: sqlstate.Store, readers: module.Readers
) -> None:
    with store._engine.reading() as connection:
        assert count(connection) == ROWS
        store["c"]["new"] = 1
        assert count(connection) == ROWS
        assert [lent.use for lent in readers.lent] == ["a snapshot"]
        assert readers.lent[0].thread == threading.get_ident()
    assert readers.lent == []
    again = readers.acquire()
    assert again is connection
    assert not again.in_transaction()
    assert count(again) == ROWS + 1
    readers.release(again)


@pytest.mark.parametrize("end", ["ended", "twice", "dropped", "in a cycle"])
def test_a_lease_that_is_gone_gives_its_connection_back(readers: module.Readers, end: str) -> None:
    lease = Lease(readers, "a test")
    connection = lease.connection
    assert [lent.use for lent in readers.lent] == ["a test"]
    if end in ("ended", "twice"):
        lease.end()
    if end == "twice":
        lease.end()
    if end == "in a cycle":
        cycle: list[Any] = [lease]
        cycle.append(cycle)
        del cycle
    del lease
    gc.collect()
    readers.reclaim()
    assert (readers.lent, list(readers.gone)) == ([], [])
    assert readers.acquire() is connection
    assert not connection.in_transaction()
    readers.release(connection)


def test_a_connection_with_a_statement_that_somebody_kept_is_closed_and_replaced(readers: module.Readers) -> None:
    lease = Lease(readers, "a test")
    connection = lease.connection
    rows: Iterator[Any] = connection.iterate("SELECT key FROM state")
    next(rows)
    lease.end()
    other = readers.acquire()
    assert other is not connection or not other.in_transaction()
    assert count(other) == ROWS
    readers.release(other)
    with suppress(sqlstate.StoreError):
        assert len(list(rows)) < ROWS
    assert readers.lent == []


@pytest.mark.parametrize("moment", ["acquire", "run"])
def test_an_exception_while_it_is_lent_keeps_nothing(
    readers: module.Readers, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers.release(readers.acquire())
    idle = readers._idle[0]

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*((readers, "acquire", cut) if moment == "acquire" else (type(idle), "run", cut)))
    kept: list[BaseException] = []
    for make in (lambda: Lease(readers, "a test"), lambda: readers.reading().__enter__()):
        try:
            make()
        except KeyboardInterrupt as e:
            kept.append(e)
    assert len(kept) == 2
    monkeypatch.undo()
    readers.reclaim()
    assert readers.lent == []
    with readers.reading() as connection:
        assert count(connection) == ROWS


def test_a_reading_block_whose_end_was_cut_short_is_taken_back_by_the_next(
    readers: module.Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    kept = None
    with monkeypatch.context() as patch:
        patch.setattr(module.ReadBlock, "leave", cut)
        try:
            with readers.reading() as connection:
                assert count(connection) == ROWS
        except KeyboardInterrupt as e:
            kept = e
    assert kept is not None
    assert len(readers.lent) == 1
    assert readers.acquire() is connection, "it was taken back first"
    assert not connection.in_transaction()
    assert readers.lent == []


def test_scans_and_snapshots_that_are_dropped_in_the_middle_pin_nothing(store: sqlstate.Store) -> None:
    for _ in range(3 * READERS_KEPT):
        scan, view = iter(store["c"]), store.snapshot()
        inner = iter(view["c"].items())
        next(scan)
        next(inner)
        del scan, view, inner
    gc.collect()
    store["c"]["new"] = 1
    with store._group.writing():
        frames, carried = store._engine.checkpointer.run()
    assert frames == carried
    assert store._engine.readers.lent == []


def test_threads_that_take_back_at_once_do_not_disturb_each_other(readers: module.Readers) -> None:
    def use() -> None:
        for _ in range(100):
            lease = Lease(readers, "a test")
            assert count(lease.connection) == ROWS
            del lease
            readers.reclaim()

    with Threads() as threads:
        for _ in range(6):
            threads.start(use)
    readers.reclaim()
    assert (readers.lent, list(readers.gone)) == ([], [])


def test_what_was_cut_short_while_it_took_back_is_done_by_the_next(
    readers: module.Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    lease = Lease(readers, "a test")
    connection = lease.connection
    del lease
    with monkeypatch.context() as patch:
        patch.setattr(readers, "end_lease", cut)
        with pytest.raises(KeyboardInterrupt):
            readers.reclaim()
    assert len(readers.lent) == 1
    with readers.reading() as other:
        assert other is connection
    assert readers.lent == []


# ---- Closing ----


def test_closing_closes_what_is_lent_and_in_the_pool_at_once(store: sqlstate.Store, path: Path) -> None:
    readers = store._engine.readers
    readers.release(readers.acquire())
    lease = Lease(readers, "a test")
    view, scan = store.snapshot(), iter(store["c"].items())
    next(scan)
    connections = list(readers._all)
    assert len(connections) >= 3
    store.close()
    assert all(connection.closed for connection in connections)
    assert [file.name for file in path.parent.iterdir()] == ["test.db"]
    lease.end()
    view.close()
    with pytest.raises(sqlstate.TransactionEnded):
        next(scan)
    with pytest.raises(sqlstate.StoreClosed):
        readers.acquire()
    with pytest.raises(sqlstate.StoreClosed):
        Lease(readers, "a test")


def test_closing_does_not_wait_for_what_another_thread_reads(store: sqlstate.Store, path: Path) -> None:
    """It is cut short, even in the midst of a statement that would take for ever."""
    began, raised = threading.Event(), []

    def read() -> None:
        with store._engine.reading() as connection:
            began.set()
            try:
                for _ in connection.rows(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
                ):
                    pass
            except sqlstate.StoreError as e:
                raised.append(type(e))

    with Threads() as threads:
        threads.start(read)
        assert began.wait(PATIENCE)
        store.close()
    assert raised == [sqlstate.StoreClosed]
    assert [file.name for file in path.parent.iterdir()] == ["test.db"]


def test_scans_of_other_threads_end_when_the_store_is_closed(store: sqlstate.Store, path: Path) -> None:
    came, raised = threading.Semaphore(0), []

    def read(of: Any) -> None:
        try:
            while True:
                for number, _ in enumerate(of.items()):
                    if number == 10:
                        came.release()
        except sqlstate.StoreUnusable as e:
            raised.append(type(e))

    with Threads() as threads, store.snapshot() as view:
        for of in (store["c"], view["c"], store["c"]):
            threads.start(lambda of=of: read(of))  # type: ignore[misc]
        for _ in range(12):
            assert came.acquire(timeout=PATIENCE)
        store.close()
        assert [file.name for file in path.parent.iterdir()] == ["test.db"]
    assert len(raised) == 3
    assert set(raised) <= {sqlstate.TransactionEnded, sqlstate.StoreClosed}


# ---- Memory ----


def cached(connection: Connection) -> int:
    """Return how many KiB of pages SQLite lets *connection* cache."""
    return -int(connection.value("PRAGMA cache_size"))


def test_the_connections_of_a_handle_share_one_budget(open_store: OpenStore) -> None:
    store = open_store(cache_bytes=20 << 20)
    readers = store._engine.readers
    taken = [readers.acquire() for _ in range(READERS_KEPT)]
    sizes = [cached(store._engine.write_connection), *map(cached, taken)]
    assert sizes == [6 << 10, 6 << 10, 6 << 10, *[256] * (READERS_KEPT - 2)]
    assert sum(sizes) <= 20 << 10
    for connection in taken:
        readers.release(connection)


def test_many_snapshots_take_little_each(store: sqlstate.Store, readers: module.Readers) -> None:
    snapshots = [store.snapshot() for _ in range(100)]
    sizes = sorted(cached(lent.connection) for lent in readers.lent)
    assert sizes[0] == module.CACHE_LEAST >> 10
    assert sum(sizes) <= (settings.CACHE_BYTES >> 10) + 100 * sizes[0]
    for snapshot in snapshots:
        snapshot.close()


def test_readers_with_a_large_cache_are_used_first_and_kept(readers: module.Readers) -> None:
    taken = [readers.acquire() for _ in range(3 * READERS_KEPT)]
    large = [connection for connection in taken if cached(connection) > 1 << 10]
    assert large == taken[:2]
    for connection in reversed(taken):
        readers.release(connection)
    assert not any(connection.closed for connection in large)
    for _ in range(3):
        one = readers.acquire()
        two, three = readers.acquire(), readers.acquire()
        assert {one, two} == set(large)
        for connection in (one, two, three):
            readers.release(connection)


@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_another_reader_gets_the_large_cache_of_one_that_is_gone(readers: module.Readers, end: str) -> None:
    taken = [readers.acquire() for _ in range(3)]
    size = cached(taken[0])
    if end == "closed":
        taken[0].interrupt_and_close()
    else:
        del taken[0]
        gc.collect()
    taken.append(readers.acquire())
    assert sorted(cached(connection) for connection in taken if not connection.closed)[-2:] == [size, size]
    for connection in taken:
        if not connection.closed:
            readers.release(connection)


def test_a_get_sets_no_cache_and_gives_none_back(store: sqlstate.Store, readers: module.Readers) -> None:
    for i in range(ROWS):
        assert store["c"][i] == i
    [connection] = readers._idle
    assert connection.value("SELECT 1") == 1
    used = connection._sqlite.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0]
    store["c"].get(1)
    assert connection._sqlite.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0] == used > 0
