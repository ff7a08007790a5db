"""Goal: get_many() is many gets of one moment: what a dict comprehension over a dict would give.

Method: every kind of key, value and iterable, in everything that has collections; and commits that come between any
two of its statements, by another handle, which must not be seen.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import InvalidKey, InvalidValue, Store, StoreClosed, TransactionEnded
from sqlstate.sqlite.connection import Connection
from sqlstate.tables.state import LARGE_BYTES, ROWS_AT_ONCE
from tests.support.lines import PATIENCE, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import OpenStore

HELD: dict[Any, Any] = {1: "int", "1": ["str"], b"1": b"bytes", -5: None, "é": {"a": 1}, "big": "x" * LARGE_BYTES}


@pytest.fixture
def held(store: Store) -> Store:
    store["c"].update(HELD)
    return store


WAYS: dict[str, Callable[[Store], AbstractContextManager[Any]]] = {
    "transaction": lambda store: store.transaction(),
    "batch": lambda store: store.batch(),
    "snapshot": lambda store: store.snapshot(),
}


@pytest.fixture(params=["store", *WAYS])
def view(request: pytest.FixtureRequest, held: Store) -> Iterator[Any]:
    """The collection, read through each thing that has collections."""
    if request.param == "store":
        yield held["c"]
    else:
        with WAYS[request.param](held) as of:
            yield of["c"]


def test_it_gives_what_is_there_in_the_order_of_asking(view: Any) -> None:
    found = view.get_many(["big", 1, "none", b"1", "1", 1, -5])
    assert list(found.items()) == [(key, HELD[key]) for key in ("big", 1, b"1", "1", -5)]
    assert [type(key) for key in found] == [str, int, bytes, str, int]
    assert view.get_many([]) == {}


def test_a_default_stands_for_what_is_not_there(view: Any) -> None:
    gone = object()
    assert list(view.get_many((9, -5, "none", 9), gone).items()) == [(9, gone), (-5, None), ("none", gone)]
    assert view.get_many([9], default=None) == {9: None}
    assert view.get_many([9], None) == {9: None}


@pytest.mark.parametrize("make", [list, tuple, set, dict.fromkeys, iter, lambda keys: (key for key in keys)])
def test_any_iterable_gives_the_keys(view: Any, make: Callable[[Iterable[Any]], Iterable[Any]]) -> None:
    assert view.get_many(make([*HELD])) == HELD


def test_a_collection_a_scan_and_a_range_give_the_keys(held: Store) -> None:
    assert held["c"].get_many(held["c"]) == HELD
    assert held["c"].get_many(held["c"].keys(prefix="b")) == {"big": HELD["big"]}
    assert held["c"].get_many(range(3)) == {1: "int"}


@pytest.mark.parametrize(
    "keys",
    [
        "abc",
        b"1",
        bytearray(b"1"),
        1,
        None,
        1.5,
        list,
        [1, 1.5],
        [True],
        [None],
        [1, ""],
        [b""],
        ["\ud800"],
        [2**63],
        [[1]],
    ],
)
def test_what_is_no_key_is_refused_before_anything_is_read(
    view: Any, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "rows_many", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(Connection, "row", lambda *_: pytest.fail("it was read"))
    with pytest.raises(InvalidKey, match="key"):
        view.get_many(keys)


class Old:
    """Can be iterated by its indices alone."""

    def __getitem__(self, at: int) -> int:
        return [1, -5][at]


def test_what_can_only_be_indexed_can_be_iterated(view: Any) -> None:
    assert view.get_many(Old()) == {1: "int", -5: None}


@pytest.mark.parametrize("error", [LookupError, TypeError, KeyboardInterrupt])
def test_an_exception_of_the_iterable_comes_out_and_nothing_is_held(held: Store, error: type[BaseException]) -> None:
    def failing() -> Iterator[Any]:
        yield 1
        raise error("mine")

    with pytest.raises(error, match="mine"):
        held["c"].get_many(failing())
    assert held._engine.readers.lent == []


@dataclass
class User:
    name: str

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise ValueError("no such user")


def test_values_of_a_type_are_decoded_and_a_misfit_is_named(store: Store) -> None:
    store["users"].update({1: {"name": "ada"}, 2: {"name": "bob"}, 3: {"name": 5}, 4: {"name": "refused"}, 5: b"raw"})
    users = store.collection("users", type=User)
    assert users.get_many([2, 1, 9]) == {2: User("bob"), 1: User("ada")}
    kept = []
    for key in (3, 4, 5):
        with pytest.raises(InvalidValue, match=rf"'users'\[{key}\]") as error:
            users.get_many([1, key, 2])
        kept.append(error.value)
    assert store._engine.readers.lent == []
    store["users"][1] = {"name": "eve"}
    assert users.get_many([1]) == {1: User("eve")}


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_code_of_a_type_may_read_and_write_the_store(open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal, timeout=1)

    @dataclass
    class Writes:
        key: int

        def __post_init__(self) -> None:
            store["seen"][self.key] = [*store["c"].get_many([1, 2]).values()]
            store["c"].pop(2, None)

    store["c"].update({1: {"key": 1}, 2: {"key": 2}})
    assert [*store.collection("c", type=Writes).get_many([2, 1])] == [2, 1]
    assert dict(store["seen"]) == {1: [{"key": 1}], 2: [{"key": 1}, {"key": 2}]}


# ---- Statements ----


def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """Return the lists to which reads add how many keys each statement was run with, and the sizes of its rows."""
    keys, sizes = [], []
    real = Connection.rows_many

    def rows_many(self: Connection, sql: str, values: list[Any]) -> list[Any]:
        found = real(self, sql, values)
        keys.append(len(values))
        sizes.append(sum(len(value or "") for (value,) in found if value != 0))
        return found

    monkeypatch.setattr(Connection, "rows_many", rows_many)
    return keys, sizes


def test_many_keys_take_few_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 3 * ROWS_AT_ONCE + 1
    store["c"].update({key: key for key in range(number)})
    with store.snapshot() as snapshot:
        keys, _ = counted(monkeypatch)
        for of in (store["c"], snapshot["c"]):
            assert of.get_many(range(number, -1, -1)) == {key: key for key in range(number)}
            assert keys == [ROWS_AT_ONCE] * 3 + [2]
            keys.clear()


def test_large_values_are_read_one_by_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[Any, Any] = {key: bytes([key]) * (1 << 20) for key in range(20)}
    held |= {"text": "é" * LARGE_BYTES, "just": b"x" * LARGE_BYTES, "more": b"x" * (LARGE_BYTES + 1), "s": "small"}
    store["c"].update(held)
    keys, sizes = counted(monkeypatch)
    assert store["c"].get_many(held) == held
    assert (keys, sizes) == ([len(held)], [LARGE_BYTES + len('"small"')])


# ---- One moment ----


def between(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have *act* done after each statement that reads many keys."""
    real, inside = Connection.rows_many, threading.Lock()

    def rows_many(self: Connection, sql: str, values: list[Any]) -> list[Any]:
        found = real(self, sql, values)
        if "octet_length" in sql and inside.acquire(blocking=False):
            try:
                act()
            finally:
                inside.release()
        return found

    monkeypatch.setattr(Connection, "rows_many", rows_many)


@pytest.mark.parametrize("way", ["store", "snapshot", "batch"])
@pytest.mark.parametrize("size", [1, LARGE_BYTES + 1])
def test_what_another_handle_commits_between_two_statements_is_not_seen(
    path: Path, store: Store, way: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = range(2 * ROWS_AT_ONCE if size == 1 else 8)
    store["c"].update(dict.fromkeys(keys, b"0" * size))
    with sqlstate.open(path) as other:

        def change() -> None:
            new = str(other.head().seq % 10).encode() * size
            other["c"].update(dict.fromkeys(keys, new))

        seen: list[Any] = []
        with monkeypatch.context() as patch:
            between(patch, change)
            if way == "store":
                seen = [store["c"].get_many(keys) for _ in range(3)]
            else:
                for _ in range(3):
                    with WAYS[way](store) as of:
                        seen += [of["c"].get_many(keys)]
        assert [len(set(found.values())) for found in seen] == [1, 1, 1]
        assert len({found[0] for found in seen}) == 3


def test_writers_of_other_threads_are_seen_whole_or_not_at_all(open_store: OpenStore) -> None:
    store = open_store(timeout=PATIENCE)
    keys = [*range(ROWS_AT_ONCE + 100)]
    store["c"].update(dict.fromkeys(keys, 0))
    done = threading.Event()

    def write(thread: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            store["c"].update(dict.fromkeys(keys, f"{thread} {number}"))

    with Threads() as threads:
        try:
            for thread in range(2):
                threads.start(lambda thread=thread: write(thread))  # type: ignore[misc]
            for _ in range(100):
                assert len(set(store["c"].get_many(keys).values())) == 1
        finally:
            done.set()


# ---- Own writes ----


def test_a_transaction_sees_its_own_writes(held: Store) -> None:
    with held.transaction() as txn:
        txn.put("c", 1, "mine")
        txn.delete("c", "1")
        txn.put("c", "new", [1])
        wanted: dict[Any, Any] = {1: "mine", "new": [1], b"1": b"bytes"}
        for of in (txn, held):  # a store is read as the transaction that this thread has open
            assert of["c"].get_many([1, "1", "new", b"1"]) == wanted
        with pytest.raises(LookupError), held.transaction() as inner:
            inner["c"].clear()
            assert inner["c"].get_many(wanted) == {}
            raise LookupError
        assert txn["c"].get_many(wanted) == wanted


def test_a_batch_sees_its_own_writes_before_and_after_they_are_flushed(held: Store) -> None:
    with held.batch() as batch:
        assert batch["c"].get_many([1, "new"]) == {1: "int"}
        batch["c"]["new"] = [1]
        assert batch["c"].get_many([1, "new"]) == {1: "int", "new": [1]}
        batch.delete("c", 1)
        assert batch["c"].get_many([1, "new"]) == {"new": [1]}
        with batch.transaction() as txn:
            txn.put("c", 1, "again")
            assert txn["c"].get_many([1, "new"]) == held["c"].get_many([1, "new"]) == {1: "again", "new": [1]}
        batch.flush()
        batch["c"]["new"] = 2
        assert batch["c"].get_many(["new", 1]) == {"new": 2, 1: "again"}


def test_the_writers_of_a_group_see_their_own_writes(open_store: OpenStore) -> None:
    store = open_store(mode="group")
    futures = [
        store.submit(lambda txn, n=n: (txn.put("c", n, n), txn["c"].get_many(range(100)))[1])  # type: ignore[misc]
        for n in range(50)
    ]
    for n, future in enumerate(futures):
        assert future.result() == {key: key for key in range(n + 1)}


# ---- Ends ----


@pytest.mark.parametrize("way", WAYS)
def test_it_ends_with_what_it_reads(held: Store, way: str) -> None:
    with WAYS[way](held) as of:
        view = of["c"]
    for keys in ([1], []):
        with pytest.raises(TransactionEnded):
            view.get_many(keys)


def test_a_closed_store_is_not_read(path: Path) -> None:
    store = sqlstate.open(path)
    view = store["c"]
    store.close()
    for keys in ([1], []):
        with pytest.raises(StoreClosed):
            view.get_many(keys)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_one_that_was_cut_short_holds_nothing(
    open_store: OpenStore, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(journal=journal, timeout=1)
    store["c"].update(HELD)

    def cut() -> None:
        raise KeyboardInterrupt

    kept = None
    with monkeypatch.context() as patch:
        between(patch, cut)
        try:
            store["c"].get_many([1])
        except KeyboardInterrupt as e:
            kept = e
    assert kept is not None
    store["c"][1] = "written"
    assert store["c"].get_many([1]) == {1: "written"}
    assert store._engine.readers.lent == []


def test_a_store_that_is_opened_for_reading_has_it(path: Path, open_store: OpenStore) -> None:
    with sqlstate.open(path) as store:
        store["c"].update(HELD)
    assert open_store(read_only=True)["c"].get_many(HELD) == HELD
