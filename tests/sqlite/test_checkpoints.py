"""SQLite's WAL stays bounded, is not emptied at the cost of each commit, and who keeps it from that is named.

Method: small bounds, so that little work meets them; readers in this thread, other threads and processes.
"""

from __future__ import annotations

import threading
import time
import warnings
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate.commit import dirty_flag
from sqlstate.sqlite import checkpoints, settings
from tests.sqlite.test_lock_holders import needs_locks
from tests.support.failing import FailingVFS
from tests.support.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import OpenStore

PAGES, BOUND = 20, 400_000
PAGE = 4096


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", PAGES)
    monkeypatch.setattr(checkpoints, "WAL_BYTES_MAX", BOUND)
    monkeypatch.setattr(settings, "WAL_BYTES_MAX", BOUND)


@pytest.fixture
def failing() -> Iterator[FailingVFS]:
    vfs = FailingVFS()
    yield vfs
    vfs.unregister()


def wal_bytes(store: sqlstate.Store) -> int:
    return store.stats().sqlite_wal_bytes


def pinned(store: sqlstate.Store) -> int:
    return store.stats().counters.pinned


def outgrow(store: sqlstate.Store, times: int = 2) -> None:
    """Commit until the -wal is *times* its bound, or would be if readers kept it."""
    for i in range(times * BOUND // PAGE):
        store["c"][i % 50] = f"{time.monotonic_ns()} {i}"


def test_the_wal_stays_small_without_readers(store: sqlstate.Store) -> None:
    outgrow(store)
    assert wal_bytes(store) < (PAGES + 20) * (PAGE + 24)
    assert pinned(store) == 0


def test_a_reader_that_pins_the_wal_is_warned_of_once_and_counted(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.snapshot() as view:
        assert view["c"]["k"] == 1
        with pytest.warns(sqlstate.WalPinned) as caught:
            outgrow(store)
        assert wal_bytes(store) > BOUND
    (warning,) = caught
    said = str(warning.message)
    assert f"{store.path}-wal has grown to 0 MB" in said
    assert "a snapshot of this handle, begun 0." in said
    assert f"by thread {threading.current_thread().name!r}. Nothing is lost; end" in said
    assert pinned(store) > 1


def test_after_the_reader_s_end_the_wal_is_small_again_and_the_next_pin_is_warned_of_anew(
    store: sqlstate.Store,
) -> None:
    store["c"].update(dict.fromkeys(range(1000), 0))  # more than a scan reads at once
    for _ in range(2):
        scan = iter(store["c"].items())
        next(scan)
        with pytest.warns(sqlstate.WalPinned, match="a scan of this handle") as caught:
            outgrow(store)
        assert len(caught) == 1
        assert wal_bytes(store) > BOUND
        assert len(list(scan)) == 999
        outgrow(store)
        before = pinned(store)
        outgrow(store)
        assert wal_bytes(store) <= BOUND
        assert pinned(store) == before


def test_the_oldest_of_several_readers_is_the_one_that_is_named(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    opened, done = threading.Event(), threading.Event()

    def read() -> None:
        with store.snapshot() as view:
            assert view["c"]["k"] == 1
            opened.set()
            done.wait(30)

    reader = threading.Thread(target=read, name="the oldest")
    reader.start()
    try:
        assert opened.wait(30)
        with store.snapshot() as view:
            assert view["c"]["k"] == 1
            with pytest.warns(sqlstate.WalPinned, match="by thread 'the oldest'"):
                outgrow(store)
    finally:
        done.set()
        reader.join()


@needs_locks
def test_a_reader_in_another_process_is_named(path: Path, store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with Remote.opened(path) as reader:
        reader.ask("hold")
        with pytest.warns(sqlstate.WalPinned, match=rf"process {reader.pid} \("):
            outgrow(store)
        reader.ends()


@needs_locks
def test_a_reader_of_another_handle_of_this_process_is_named(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    store["c"]["k"] = 1
    with other.snapshot() as view:
        assert view["c"]["k"] == 1
        with pytest.warns(sqlstate.WalPinned, match="ends: another handle, a snapshot or a scan of this process. Noth"):
            outgrow(store)


def test_a_pin_never_fails_a_commit_even_where_warnings_are_errors(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.snapshot() as view, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert view["c"]["k"] == 1
        outgrow(store)
        store["c"]["k"] = 2
    assert store["c"]["k"] == 2
    assert pinned(store) > 0


def test_transactions_larger_than_the_bound_pin_nothing(store: sqlstate.Store) -> None:
    for number in range(4):
        store["c"].update(dict.fromkeys(range(2 * BOUND // 2000), f"{number} {'x' * 2000}"))
        assert wal_bytes(store) > BOUND
    assert pinned(store) == 0
    store["c"]["k"] = 1
    assert wal_bytes(store) <= BOUND


def test_while_a_reader_pins_the_wal_only_some_commits_pay_for_a_checkpoint(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.snapshot() as view:
        assert view["c"]["k"] == 1
        for i in range(PAGES):
            store["c"]["k"] = f"before {i}"
        before = store.stats().counters
        for i in range(100):
            store["c"]["k"] = i
        after = store.stats().counters
    frames, checkpoints = after.frames - before.frames, after.checkpoints - before.checkpoints
    assert 0 < checkpoints <= frames / (PAGES // 4)
    # What it could carry it had carried: nothing more was synced.
    assert after.syncs - before.syncs == 100


def overlap(store: sqlstate.Store, stop: threading.Event) -> None:
    """Read without a pause: each snapshot is closed when the next is open."""
    with ExitStack() as last:
        while not stop.is_set():
            view = last.enter_context(store.snapshot())
            view["c"].get("k")
            time.sleep(0.002)
            before = last.pop_all()
            view = last.enter_context(store.snapshot())
            view["c"].get("k")
            before.close()


@pytest.mark.slow
def test_short_readers_that_overlap_do_not_let_the_wal_grow(path: Path, open_store: OpenStore) -> None:
    store, read = open_store(), open_store(read_only=True)
    store["c"]["k"] = 1
    stop = threading.Event()
    readers = [threading.Thread(target=overlap, args=(read, stop)) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        outgrow(store, 20)
        assert store.stats().counters.frames * PAGE > 20 * BOUND
        assert wal_bytes(store) < 2 * BOUND
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_a_thread_does_not_wait_for_its_own_reading(store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(checkpoints, "WAL_BYTES_MAX", BOUND * 100)
    store["c"].update(dict.fromkeys(range(100), 0))
    began = time.monotonic()
    for key in store["c"]:
        store["c"][key] += 1
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("how", ["sync wal", "write main", "sync main"])
def test_an_error_while_it_waits_for_readers_stops_the_handle_and_loses_nothing(
    path: Path, open_store: OpenStore, failing: FailingVFS, how: str
) -> None:
    store = sqlstate.open(path, vfs="failing")
    store["c"]["k"] = 1
    store["c"]["k"] = 2
    failing.fails = how
    with pytest.raises(
        sqlstate.StoreIOError, match="commit 2 is durable, but the checkpoint after it failed"
    ) as caught:
        store._engine.checkpointer.run(2, patience=0.1)
    assert caught.value.durable == 2
    with pytest.raises(sqlstate.StoreClosed, match="the checkpoint after commit 2 failed"):
        store["c"]["k"] = 3
    store.close()
    again = open_store()
    assert (again["c"]["k"], again.head().seq) == (2, 2)


def test_a_reader_that_keeps_the_first_checkpoint_costs_few_checkpoints(
    store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker cannot reach the main file under it, and to try that at each commit is in vain."""
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 10**6)
    seconds = 0.0
    monkeypatch.setattr(dirty_flag, "time", SimpleNamespace(monotonic=lambda: seconds))
    with store.snapshot() as view:
        assert len(view["c"]) == 0
        for i in range(1000):
            store["c"][i % 50] = i
        assert store.stats().counters.checkpoints < 50
    before = store.stats().counters.checkpoints
    seconds = 3600.0
    for i in range(10):
        store["c"][i] = -i
    assert store.stats().counters.checkpoints == before + 1  # once it is there, that is all


def test_a_reader_of_a_later_commit_does_not_keep_the_marker_from_the_main_file(store: sqlstate.Store) -> None:
    """It need not be all of SQLite's WAL that is carried over, but what holds the marker."""
    with store.snapshot():
        store["c"]["k"] = 1
        with store.snapshot() as view:
            assert view["c"]["k"] == 1
            store["c"]["k"] = 2
            later = store.snapshot()
            later.__enter__()
            assert later["c"]["k"] == 2
    try:
        store["c"].update(dict.fromkeys(range(30), "x" * 3000))
        before = store.stats().counters.checkpoints
        for i in range(10):
            store["c"]["k"] = i
        assert store.stats().counters.checkpoints - before < 10
    finally:
        later.__exit__(None, None, None)
