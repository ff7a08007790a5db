"""Goal: a transaction is all or nothing, sees itself, and nobody else sees it before it commits. Method: real
stores; each test compares what is there with what was there before."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import ABSENT, Conflict, InvalidOption, InvalidValue, Kind, ReadOnly, Store, TransactionEnded
from sqlstate.commit import commit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import OpenStore

BUFFER_ENTRIES = 300


def content(store: Store) -> dict[str, dict[Any, Any]]:
    with store.snapshot() as view:
        return {name: dict(view[name]) for name in view.collections()}


def test_a_transaction_changes_several_collections_in_one_commit(store: Store) -> None:
    store["a"]["old"] = 1
    with store.transaction(note="move") as txn:
        txn.put("a", "k", 1)
        txn.put("b", "k", 2)
        assert txn.delete("a", "old") is True
        assert txn.delete("a", "none") is False
        txn["c"].update({1: 1, 2: 2})

    assert content(store) == {"a": {"k": 1}, "b": {"k": 2}, "c": {1: 1, 2: 2}}
    assert store.head().seq == 2
    assert [record.note for record in store.wal.read() if record.kind == "BEGIN"] == ["", "move"]


def test_a_transaction_sees_its_own_writes_and_nobody_else_does(store: Store) -> None:
    store["c"].update({"a": 1, "b": 2})
    with store.transaction() as txn:
        txn.put("c", "new", 3)
        txn.delete("c", "a")
        with store.snapshot() as view:
            outside = dict(view["c"])

        assert txn.get("c", "new") == 3
        assert txn.get("c", "a", "gone") == "gone"
        assert dict(txn["c"]) == {"b": 2, "new": 3}
        assert len(txn["c"]) == 2
        assert txn.collections() == ["c"]
        assert outside == {"a": 1, "b": 2}


def test_the_store_in_the_same_thread_is_part_of_the_transaction(store: Store) -> None:
    with store.transaction() as txn:
        store["c"]["k"] = 1
        store["c"].update({"l": 2})

        assert txn.get("c", "k") == 1
        assert dict(store["c"]) == {"k": 1, "l": 2}
        assert store.collections() == ["c"]
        assert store.head().seq == 0
    assert store.head().seq == 1


def test_an_exception_undoes_everything(store: Store) -> None:
    store["c"]["k"] = "before"
    before = store.head()
    with pytest.raises(RuntimeError, match="stop"), store.transaction() as txn:
        txn.put("c", "k", "after")
        txn["d"].update({i: i for i in range(100)})
        len(txn["d"])
        raise RuntimeError("stop")

    assert store.head() == before
    assert content(store) == {"c": {"k": "before"}}


def test_even_a_keyboard_interrupt_undoes_everything(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.transaction() as txn:
        txn.put("c", "k", 1)
        raise KeyboardInterrupt

    assert store.head().seq == 0


def test_a_transaction_that_changes_nothing_makes_no_commit(store: Store) -> None:
    store["c"].update({"a": 1, "b": 2})
    before, records = store.head(), list(store.wal.read())
    with store.transaction("nothing"):
        pass
    with store.transaction() as txn:
        txn.put("c", "a", 1)
        txn.delete("c", "none")
        txn.put("c", "new", 1)
        txn.delete("c", "new")
        txn.put("c", "b", 5)
        txn.put("c", "b", 2)

    assert store.head() == before
    assert list(store.wal.read()) == records


def test_writes_that_were_applied_and_undone_make_no_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the buffer holds: the first half is in the tables before the second undoes it."""
    monkeypatch.setattr(commit, "BUFFER_ENTRIES", BUFFER_ENTRIES)
    store["c"].update(dict.fromkeys(range(BUFFER_ENTRIES + 10), 0))
    before = store.head()
    with store.transaction() as txn:
        for value in (1, 0):
            for i in range(BUFFER_ENTRIES + 10):
                txn.put("c", i, value)

    assert store.head() == before


def test_1_and_true_and_1_0_are_different_values(store: Store) -> None:
    store["c"]["k"] = 1
    store["c"]["k"] = True
    store["c"]["k"] = 1.0
    store["c"]["k"] = "1"
    store["c"]["k"] = b"1"

    assert store.head().seq == 5


def test_a_nested_transaction_undoes_its_own_writes_alone(store: Store) -> None:
    with store.transaction() as txn:
        txn.put("c", "outer", 1)
        with pytest.raises(ValueError, match="inner"), store.transaction() as inner:
            inner.put("c", "outer", 2)
            inner.put("c", "inner", 2)
            len(inner["c"])
            with store.transaction() as innermost:
                innermost.put("c", "innermost", 3)
            raise ValueError("inner")
        with store.transaction() as kept:
            kept.put("c", "kept", 4)

        assert dict(txn["c"]) == {"outer": 1, "kept": 4}
    assert dict(store["c"]) == {"outer": 1, "kept": 4}
    assert store.head().seq == 1


def test_a_failing_outer_transaction_undoes_the_nested_ones(store: Store) -> None:
    with pytest.raises(ValueError, match="outer"), store.transaction():
        with store.transaction() as inner:
            inner.put("c", "k", 1)
        raise ValueError("outer")

    assert store.collections() == []


def test_what_makes_the_entries_of_an_update_may_use_its_transaction(store: Store) -> None:
    """It reads what was put before, has it written to the tables, and writes too; nothing of that is lost."""

    def made(txn: sqlstate.Transaction) -> Iterator[tuple[int, int]]:
        for i in range(1, 60):
            if i % 7 == 0:
                assert len(txn["c"]) == i - 1 + len(txn["c"].keys(start=100))
            if i % 11 == 0:
                txn.put("c", 100 + i, i)
            yield i, txn["c"].get(i - 1, 0) + 1

    with store.transaction() as txn:
        txn["c"].update(made(txn))
    assert dict(store["c"]) == {i: i for i in range(1, 60)} | {100 + i: i for i in (11, 22, 33, 44, 55)}


def test_a_failing_update_inside_a_transaction_undoes_itself_alone(store: Store) -> None:
    with store.transaction() as txn:
        txn.put("c", "kept", 1)
        with pytest.raises(InvalidValue):
            txn["c"].update([("a", 1), ("b", {1, 2})])
        with pytest.raises(InvalidValue):
            store["c"].update([("a", 1), ("b", {1, 2})])

    assert dict(store["c"]) == {"kept": 1}


def test_a_nested_transaction_has_no_note(store: Store) -> None:
    with store.transaction("outer"), pytest.raises(InvalidOption, match="outermost"), store.transaction("inner"):
        pass


@pytest.mark.parametrize("note", ["é" * 2049, 5, "\ud800"])
def test_a_note_that_cannot_be_kept_is_refused(store: Store, note: Any) -> None:
    with pytest.raises(InvalidOption, match="note"), store.transaction(note):
        pass


def test_expect_goes_on_when_the_entry_is_as_expected(store: Store) -> None:
    store["c"].update({"k": {"v": 1}, "raw": b"x"})
    with store.transaction() as txn:
        txn.expect("c", "k", {"v": 1})
        txn.expect("c", "raw", b"x")
        txn.expect("c", "none", ABSENT)
        txn.put("c", "k", {"v": 2})
        txn.expect("c", "k", {"v": 2})
        txn.delete("c", "raw")
        txn.expect("c", "raw", ABSENT)

    assert dict(store["c"]) == {"k": {"v": 2}}


@pytest.mark.parametrize(
    ("key", "expected", "actual"),
    [
        ("k", 2, 1),
        ("k", ABSENT, 1),
        ("k", 1.0, 1),
        ("k", True, 1),
        ("k", b"1", 1),
        ("none", None, ABSENT),
        ("null", ABSENT, None),
    ],
)
def test_expect_raises_a_conflict_that_says_what_is_there(store: Store, key: str, expected: Any, actual: Any) -> None:
    store["c"].update({"k": 1, "null": None})
    before = store.head()
    with pytest.raises(Conflict) as caught, store.transaction() as txn:
        txn.put("c", "other", 1)
        txn.expect("c", key, expected)

    assert store.head() == before
    found = caught.value
    assert (found.collection, found.key) == ("c", key)
    assert (found.expected, type(found.expected)) == (expected, type(expected))
    assert (found.actual, type(found.actual)) == (actual, type(actual))
    copy = pickle.loads(pickle.dumps(found))  # noqa: S301, our own bytes: exceptions cross process pools
    assert (str(copy), copy.actual) == (str(found), actual)


def test_a_transaction_that_failed_inside_can_only_be_left(path: Any) -> None:
    """The program swallows the error of a half-applied write; the block must not commit the other half."""
    with sqlstate.open(path) as store:
        store["c"].update({i: i for i in range(100)})
        before = store.head()
        with pytest.raises(TransactionEnded, match="nothing is changed"), store.transaction() as txn:
            txn.put("c", 1, "new")
            txn._entries._connection.run("UPDATE merkle SET children = zeroblob(40)")
            with pytest.raises(sqlstate.Damaged):
                len(txn["c"])
            with pytest.raises(TransactionEnded):
                txn.put("c", 2, "new")
        assert store.head() == before
        store["c"][1] = "after"
        assert store["c"][1] == "after"


def test_a_transaction_that_sqlite_rolled_back_takes_nothing_more(store: Store) -> None:
    """SQLite does so by itself after some I/O errors; here a ROLLBACK stands for them."""
    store["c"]["k"] = 1
    before = store.head()
    with pytest.raises(TransactionEnded, match="nothing is changed"), store.transaction() as txn:
        txn.put("c", "k", 2)
        txn.collections()
        txn._entries._connection.run("ROLLBACK")
        txn.put("c", "l", 3)

    assert store.head() == before
    assert content(store) == {"c": {"k": 1}}


def test_a_transaction_ends_with_its_block(store: Store) -> None:
    with store.transaction() as txn:
        txn.put("c", "k", 1)
        collection = txn["c"]
    for act in (
        lambda: txn.put("c", "k", 2),
        lambda: txn.get("c", "k"),
        lambda: txn.delete("c", "k"),
        lambda: txn.expect("c", "k", 1),
        lambda: txn.collections(),
        lambda: collection["k"],
        lambda: list(collection),
        lambda: len(collection),
        lambda: collection.clear(),
    ):
        with pytest.raises(TransactionEnded):
            act()


def test_a_transaction_belongs_to_its_thread(store: Store) -> None:
    caught: list[BaseException] = []

    def other(txn: sqlstate.Transaction) -> None:
        try:
            txn.put("c", "k", 1)
        except TransactionEnded as e:
            caught.append(e)

    with store.transaction() as txn:
        thread = threading.Thread(target=other, args=(txn,))
        thread.start()
        thread.join()

    assert len(caught) == 1
    assert store.head().seq == 0


def test_other_threads_do_not_join_the_transaction(open_store: OpenStore) -> None:
    store = open_store(timeout=30)
    inside, done = threading.Event(), threading.Event()
    seen: list[Any] = []

    def other() -> None:
        inside.wait()
        seen.append(store["c"].get("k"))
        done.set()
        store["c"]["other"] = 2  # waits for the transaction to end

    thread = threading.Thread(target=other)
    thread.start()
    with store.transaction() as txn:
        txn.put("c", "k", 1)
        inside.set()
        done.wait()
    thread.join()

    assert seen == [None]
    assert dict(store["c"]) == {"k": 1, "other": 2}
    assert store.head().seq == 2


def test_iterating_while_changing_sees_each_entry_as_it_is_when_its_turn_comes(store: Store) -> None:
    store["c"].update({i: i for i in range(1000)})
    seen = []
    with store.transaction() as txn:
        for key, value in txn["c"].items():
            seen.append((key, value))
            txn.delete("c", int(key) + 1)
            txn.put("c", 999, "changed")

    assert seen == [*((i, i) for i in range(0, 1000, 2)), (999, "changed")]


@pytest.mark.slow
def test_a_large_transaction_is_one_commit_and_keeps_the_tree_exact(store: Store) -> None:
    entries = {f"key{i:06d}": i for i in range(100_000)}
    with store.transaction() as txn:
        for key, value in entries.items():
            txn.put("big", key, value)
        for key in list(entries)[::3]:
            txn.delete("big", key)
            del entries[key]

    assert store.head().seq == 1
    assert len(store["big"]) == len(entries)
    assert dict(store["big"]) == entries


def test_a_snapshot_keeps_its_commit_while_others_write(store: Store) -> None:
    store["c"].update({i: i for i in range(10)})
    with store.snapshot() as view:
        head = view.head
        store["c"].clear()
        store["d"]["k"] = 1

        assert view.head == head
        assert dict(view["c"]) == {i: i for i in range(10)}
        assert len(view["c"]) == 10
        assert view.collections() == ["c"]
        assert view["c"].get(3) == 3
    assert store.head().seq == 3


def test_a_snapshot_cannot_be_written_and_ends_with_its_block(store: Store) -> None:
    store["c"]["k"] = 1
    with store.snapshot() as view:
        collection = view["c"]
        assert not hasattr(collection, "__setitem__")
        assert not hasattr(collection, "update")
    for act in (lambda: collection["k"], lambda: list(collection), lambda: len(collection), view.collections):
        with pytest.raises(TransactionEnded):
            act()


def test_a_dropped_snapshot_lets_go_of_its_commit(store: Store) -> None:
    store["c"]["k"] = 1
    store.snapshot()  # dropped at once
    store["c"].update({i: i for i in range(1000)})
    store.close()

    assert not store.path.with_name("test.db-wal").exists()


def test_commits_lists_every_head(store: Store) -> None:
    heads = []
    for i in range(200):
        store["c"]["k"] = i
        heads.append(store.head())

    assert list(store.commits()) == heads
    assert list(store.commits(130)) == heads[129:]
    assert list(store.commits(201)) == []


def test_reading_in_a_read_only_store_joins_no_transaction(open_store: OpenStore) -> None:
    open_store()["c"]["k"] = 1
    reader = open_store(read_only=True)

    assert reader["c"]["k"] == 1
    with pytest.raises(ReadOnly), reader.transaction():
        pass


def test_the_log_says_what_each_transaction_did(store: Store) -> None:
    store["c"]["k"] = 1
    with store.transaction("second") as txn:
        txn.put("c", "k", 2)
        txn.put("c", b"b", b"raw")
        txn.put("a", 5, None)
    del store["c"]["k"]

    said = [(r.kind, r.collection, r.key, r.value, r.before) for r in store.wal.read() if r.collection]
    assert said == [
        (Kind.PUT, "c", "k", "1", None),
        (Kind.PUT, "a", 5, "null", None),
        (Kind.PUT, "c", "k", "2", "1"),
        (Kind.PUT, "c", b"b", b"raw", None),
        (Kind.DELETE, "c", "k", None, "2"),
    ]
