"""store.watch() yields every commit once, in order, of this and other processes, and holds nobody up.

Method: writers in threads and processes, while another thread watches; the log says what must have been seen.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, islice
from queue import SimpleQueue
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate.store import watch as watching
from sqlstate.tables import wal
from tests.support.child import Child
from tests.support.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import OpenStore

JOURNALS = ("wal", "delete")
HOUR = 3600.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a watcher wake by an event alone."""
    monkeypatch.setattr(watching, "POLL_SECONDS", HOUR)


def until_watched(store: sqlstate.Store) -> None:
    deadline = time.monotonic() + 30
    while not store._engine.watchers:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def seqs(heads: Iterator[sqlstate.Head], count: int) -> list[int]:
    return [head.seq for head in islice(heads, count)]


def test_every_commit_of_threads_and_processes_is_seen_once_and_in_order(
    path: Path, open_store: OpenStore, pool: ThreadPoolExecutor
) -> None:
    store = open_store(timeout=30)
    watched = pool.submit(lambda: list(islice(store.watch(after=0), 200)))

    def write(thread: int) -> None:
        for i in range(50):
            store["threads"][thread * 100 + i] = i

    with ExitStack() as stack:
        children = [stack.enter_context(Child("increments", path, 50)) for _ in range(2)]
        for child in children:
            child.expects("ready")
            child.tell()
        threads = [pool.submit(write, thread) for thread in range(2)]
        for child in children:
            child.expects("done")
            child.ends()
        for thread in threads:
            thread.result()
    assert watched.result(30) == list(store.commits())


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_commit_of_another_process_is_seen(path: Path, open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal)
    with Remote.opened(path) as other:
        heads = store.watch(timeout=30)
        for number in range(1, 4):
            other.ask("put", "c", "k", number)
            assert next(heads) == store.head()
        other.ends()


def test_a_handle_for_reading_watches_too(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    reader = open_store(read_only=True)
    heads = reader.watch(timeout=30)
    store["c"]["k"] = 2
    assert next(heads) == store.head()


@pytest.mark.usefixtures("no_polling")
def test_a_commit_of_another_thread_wakes_a_watcher_at_once(store: sqlstate.Store, pool: ThreadPoolExecutor) -> None:
    store["c"]["k"] = 0
    heads = store.watch(timeout=30)
    for number in range(2, 20):
        woken = pool.submit(next, heads)
        until_watched(store)
        store["c"]["k"] = number
        assert woken.result(30).seq == number


def test_it_begins_after_the_commit_that_is_asked_for(store: sqlstate.Store) -> None:
    for i in range(5):
        store["c"][i] = i
    heads = store.watch(timeout=0)
    store["c"][5] = 5
    assert [head.seq for head in heads] == [6], "by default it is the newest at the call"
    assert [head.seq for head in store.watch(after=0, timeout=0)] == [1, 2, 3, 4, 5, 6]
    assert [head.seq for head in store.watch(after=4, timeout=0)] == [5, 6]
    assert list(store.watch(after=6, timeout=0)) == []
    assert list(store.watch(after=100, timeout=0)) == []


def test_more_commits_than_are_read_at_once_are_all_seen(
    store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "ROWS_AT_ONCE", 3)
    for i in range(10):
        store["c"][i] = i
    assert list(store.watch(after=0, timeout=0)) == list(store.commits())


def test_it_ends_when_there_was_no_commit_for_so_long(store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()  # a clock on which a second passes whenever somebody looks
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    assert list(store.watch(timeout=10)) == []
    assert next(seconds) > 10
    heads = store.watch(after=0, timeout=10)
    began = next(seconds)
    for i in range(1, 21):  # together longer than the timeout
        store["c"]["k"] = i
        assert next(heads).seq == i
    assert next(seconds) - began > 20
    assert list(heads) == []


@pytest.mark.usefixtures("no_polling")
def test_it_ends_when_the_store_is_closed_which_leaves_one_file(path: Path, pool: ThreadPoolExecutor) -> None:
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    seen: SimpleQueue[int] = SimpleQueue()

    def follow() -> None:
        for head in store.watch(after=0):
            seen.put(head.seq)

    watched = pool.submit(follow)
    assert seen.get(timeout=30) == 1
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    watched.result(30)
    assert seen.empty()


def test_closing_in_the_midst_of_a_look_leaves_one_file(
    path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, last = threading.Event(), wal.last

    def look_long(connection: Any, meta: Any) -> Any:
        found = last(connection, meta)
        looking.set()
        time.sleep(0.2)
        return found

    store = sqlstate.open(path)
    store["c"]["k"] = 1
    heads = store.watch()
    monkeypatch.setattr(wal, "last", look_long)
    watched = pool.submit(list, heads)
    assert looking.wait(30)
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert watched.result(30) == []


def test_it_raises_where_the_handle_failed(store: sqlstate.Store, pool: ThreadPoolExecutor) -> None:
    watched = pool.submit(lambda: list(store.watch()))
    until_watched(store)
    store._engine.fail("a commit failed")
    with pytest.raises(sqlstate.StoreClosed, match="a commit failed; this handle refuses further work"):
        watched.result(30)


def test_it_keeps_nothing_in_sqlite_s_wal_while_its_caller_works(store: sqlstate.Store) -> None:
    for i in range(3):
        store["c"][i] = i
    heads = store.watch(after=0, timeout=30)
    assert next(heads).seq == 1
    for i in range(50):
        store["c"][i] = -i - 1
    frames, carried = store._engine.checkpointer.run()
    assert frames == carried > 0
    assert seqs(heads, 52) == list(range(2, 54))


@pytest.mark.parametrize("journal", JOURNALS)
def test_it_keeps_no_writer_waiting(open_store: OpenStore, pool: ThreadPoolExecutor, journal: str) -> None:
    store, other = open_store(journal=journal), open_store(timeout=5)
    watched = pool.submit(lambda: list(islice(store.watch(), 50)))
    until_watched(store)
    for i in range(50):
        other["c"][i] = i
    assert [head.seq for head in watched.result(30)] == list(range(1, 51))


def test_a_watch_that_is_given_up_leaves_nothing_behind(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    heads: Any = store.watch(after=0)
    next(heads)
    assert store._engine.watchers == set(), "one that does not wait keeps nothing"
    heads.close()
    assert list(heads) == []
    assert store._engine.watchers == set()


@pytest.mark.parametrize(
    "arguments",
    [
        {"after": -1},
        {"after": 1.0},
        {"after": True},
        {"after": "1"},
        {"after": 1 << 63},
        {"timeout": -1},
        {"timeout": "1"},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": threading.TIMEOUT_MAX},
    ],
)
def test_a_wrong_argument_is_refused_at_the_call(store: sqlstate.Store, arguments: dict[str, Any]) -> None:
    with pytest.raises(sqlstate.InvalidOption):
        store.watch(**arguments)


# ---- One looks for all ----


@pytest.fixture
def lookers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that looked for the newest commit, in order."""
    looked: list[int] = []
    last = wal.last

    def look(connection: Any, meta: Any) -> Any:
        looked.append(threading.get_ident())
        return last(connection, meta)

    monkeypatch.setattr(wal, "last", look)
    return looked


def until_so_many_watch(store: sqlstate.Store, number: int) -> None:
    deadline = time.monotonic() + 30
    while len(store._engine.watchers) < number:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_of_many_watchers_one_looks_for_all(
    path: Path, store: sqlstate.Store, lookers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(watching, "STAND_BY_SECONDS", HOUR)
    store["c"]["k"] = 1
    with ThreadPoolExecutor(20) as many, Remote.opened(path) as other:
        watched = [many.submit(lambda: list(islice(store.watch(timeout=60), 3))) for _ in range(20)]
        until_so_many_watch(store, 20)
        for number in range(2, 5):
            deadline = time.monotonic() + 30
            while len(set(lookers[-30:])) > 1:
                assert time.monotonic() < deadline, "they look in turns"
                time.sleep(0.001)
            other.ask("put", "c", "k", number)
        assert [[head.seq for head in each.result(30)] for each in watched] == [[2, 3, 4]] * 20
        other.ends()


@pytest.mark.parametrize("end", ["timeout", "error", "given up"])
def test_when_the_one_who_looks_ends_another_goes_on(
    path: Path, store: sqlstate.Store, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(watching, "STAND_BY_SECONDS", HOUR)
    store["c"]["k"] = 1
    last, failing, leaving = wal.last, threading.Event(), threading.Event()
    first: list[int] = []

    def look(connection: Any, meta: Any) -> Any:
        if failing.is_set() and threading.get_ident() in first:
            raise ZeroDivisionError
        return last(connection, meta)

    def follow() -> list[sqlstate.Head]:
        first.append(threading.get_ident())
        heads: Any = store.watch(timeout=0.3 if end == "timeout" else None)
        if end != "given up":
            return list(heads)
        found = [next(heads)]
        leaving.wait(30)
        return found

    monkeypatch.setattr(wal, "last", look)
    with Remote.opened(path) as other:
        leads = pool.submit(follow)
        until_so_many_watch(store, 1)
        follows = [pool.submit(lambda: list(islice(store.watch(), 2))) for _ in range(3)]
        if end == "error":
            until_so_many_watch(store, 4)
            failing.set()
            with pytest.raises(ZeroDivisionError):
                leads.result(30)
        elif end == "timeout":
            assert leads.result(30) == []
        until_so_many_watch(store, 4 if end == "given up" else 3)
        other.ask("put", "c", "k", 2)
        if end == "given up":
            until_so_many_watch(store, 3)
        other.ask("put", "c", "k", 3)
        assert [[head.seq for head in each.result(30)] for each in follows] == [[2, 3]] * 3
        leaving.set()
        leads.exception(30)
        other.ends()
    assert store._engine.watchers == set()
