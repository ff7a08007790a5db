"""Goal: a batch is many transactions with one durability point: inside it all is seen, outside nothing before it is
durable, and what fails is undone alone or as a whole as the page says. Method: real stores, a second handle that looks
on, and the log, which has each transaction of the batch by itself; every file is judged at the end."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import Busy, Conflict, Damaged, InvalidValue, Store, StoreUnusable, TransactionEnded
from sqlstate.commit import commit as commit_module
from sqlstate.store import batch as batch_module
from tests.support import calls
from tests.support.child import Child
from tests.support.lines import PATIENCE, Threads, line_of_turns, logged, sizes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenStore

MODES = ("full", "group")


@pytest.fixture(params=MODES)
def store(request: pytest.FixtureRequest, open_store: OpenStore) -> Store:
    return open_store(mode=request.param, timeout=PATIENCE)


@pytest.fixture
def other(store: Store, open_store: OpenStore) -> Store:
    """Another handle on the same file."""
    return open_store(store.path)


def content(store: Store) -> dict[str, dict[Any, Any]]:
    with store.snapshot() as view:
        return {name: dict(view[name]) for name in view.collections()}


# ---- What it does ----


def test_a_batch_is_one_commit_of_many_transactions(store: Store) -> None:
    with store.batch() as batch:
        batch.put("a", 1, "one")
        batch["a"][2] = "two"
        batch["b"].update({"x": 1, "y": 2})
        assert batch.delete("a", 1) is True
        assert batch.delete("a", 1) is False
        with batch.transaction("noted") as txn:
            txn.put("c", "k", 1)
            txn.put("c", "l", 2)
    assert content(store) == {"a": {2: "two"}, "b": {"x": 1, "y": 2}, "c": {"k": 1, "l": 2}}
    assert sizes(store) == [5]
    assert [(each.note, [change[:3] for change in each.changes]) for each in logged(store)] == [
        ("", [("PUT", "a", 1)]),
        ("", [("PUT", "a", 2)]),
        ("", [("PUT", "b", "x"), ("PUT", "b", "y")]),
        ("", [("DELETE", "a", 1)]),
        ("noted", [("PUT", "c", "k"), ("PUT", "c", "l")]),
    ]
    counters = store.stats().counters
    assert (counters.commits, counters.transactions) == (1, 5)


def test_all_ways_of_reading_inside_see_the_batch_and_nobody_else_does(store: Store, other: Store) -> None:
    store["c"].update({"a": 0, "b": 0})
    with store.batch() as batch:
        batch.put("c", "a", 1)
        batch.put("c", "new", 2)
        del batch["c"]["b"]
        batch["d"][1] = b"raw"
        for mapping in (batch["c"], store["c"], batch.collection("c"), store.collection("c", type=int)):
            assert dict(mapping) == {"a": 1, "new": 2}
            assert (len(mapping), list(reversed(mapping)), "b" in mapping) == (2, ["new", "a"], False)
            assert (mapping["a"], mapping.get("b", "gone")) == (1, "gone")
            assert list(mapping.items(start="b")) == [("new", 2)]
            assert len(mapping.keys(prefix="n")) == 1
        assert (batch.get("d", 1), batch.get("d", 2), batch.get("d", 2, "none")) == (b"raw", None, "none")
        assert batch.collections() == store.collections() == list(store) == ["c", "d"]
        assert "d" in store
        for outside in (content(store), content(other)):
            assert outside == {"c": {"a": 0, "b": 0}}
        assert dict(other["c"]) == {"a": 0, "b": 0}
        assert (store.durable, store.head().seq, other.durable) == (1, 1, 1)
    assert content(other) == {"c": {"a": 1, "new": 2}, "d": {1: b"raw"}}
    assert store.durable == 2


def test_the_store_inside_the_batch_writes_into_it(store: Store) -> None:
    with store.batch():
        store["c"]["k"] = 1
        assert store["c"].pop("k") == 1
        assert store["c"].setdefault("l", 2) == 2
        store["c"].update({"m": 3, "n": 4})
        assert store["c"].popitem() == ("n", 4)
        assert store.run(lambda txn: txn.get("c", "m"), "run") == 3
        assert store.run(lambda txn: txn.put("c", "m", 5), "run") is None
        with store.transaction("block") as txn:
            txn.put("d", 1, 1)
            with store.transaction() as nested:
                nested.put("d", 2, 2)
        assert store.durable == 0
    assert content(store) == {"c": {"l": 2, "m": 5}, "d": {1: 1, 2: 2}}
    assert [each.note for each in logged(store)] == ["", "", "", "", "", "run", "block"]
    assert sizes(store) == [7]


def test_flush_makes_durable_what_was_done_so_far(store: Store, other: Store) -> None:
    with store.batch() as batch:
        assert batch.flush() is None
        batch["c"][1] = 1
        first = batch.flush()
        assert first == store.head() == other.head()
        assert (batch.flush(), dict(other["c"])) == (None, {1: 1})
        batch["c"][2] = 2
        with batch.transaction("second") as txn:
            txn.put("c", 3, 3)
        second = batch.flush()
        batch["c"][4] = 4
        assert dict(other["c"]) == {1: 1, 2: 2, 3: 3}
    assert first is not None
    assert second is not None
    assert (first.seq, second.seq, second.count, store.durable) == (1, 2, 3, 3)
    assert sizes(store) == [1, 2, 1]
    assert list(store.commits())[:2] == [first, second]


def test_an_exception_undoes_what_was_not_flushed_as_a_whole(store: Store, other: Store) -> None:
    error = RuntimeError("in the batch")
    with pytest.raises(RuntimeError) as caught, store.batch() as batch:
        batch["c"][1] = 1
        batch.flush()
        batch["c"][2] = 2
        len(batch["c"])
        batch["c"].update({3: 3, 4: 4})
        raise error
    assert caught.value is error
    assert content(other) == {"c": {1: 1}}
    assert sizes(store) == [1]
    store["c"][5] = 5
    assert dict(store["c"]) == {1: 1, 5: 5}


def test_even_a_keyboard_interrupt_undoes_it(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.batch() as batch:
        batch["c"][1] = 1
        raise KeyboardInterrupt
    assert store.durable == 0


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_failing_transaction_is_undone_alone(store: Store, applied: bool, first: bool) -> None:
    with store.batch() as batch:
        if not first:
            batch["c"]["before"] = 1
        with pytest.raises(ValueError, match="alone"), batch.transaction("failed") as txn:
            txn.put("c", "failed", 1)
            txn.delete("c", "before")
            if applied:
                assert len(txn["c"]) == 1
            raise ValueError("alone")
        assert dict(batch["c"]) == ({} if first else {"before": 1})
        assert batch.get("c", "failed") is None
        with pytest.raises(Conflict), store.transaction() as txn:
            txn.expect("c", "before", 2)
        batch["c"]["after"] = 2
    expected = {"after": 2} | ({} if first else {"before": 1})
    assert dict(store["c"]) == expected
    assert sizes(store) == [len(expected)]


@pytest.mark.parametrize("applied", [False, True])
def test_a_batch_of_failing_transactions_alone_makes_no_commit(store: Store, applied: bool) -> None:
    with store.batch() as batch:
        for _ in range(2):
            with pytest.raises(ValueError, match="alone"), batch.transaction() as txn:
                txn.put("c", "k", 1)
                if applied:
                    len(txn["c"])
                raise ValueError("alone")
        assert batch.flush() is None
    assert (store.durable, list(store.wal.read())) == (0, [])


def test_a_batch_that_changes_nothing_leaves_no_trace(store: Store) -> None:
    store["c"]["k"] = 1
    before = store.head()
    with store.batch():
        pass
    with store.batch() as batch:
        batch["c"]["k"] = 1
        with batch.transaction("nothing") as txn:
            txn.put("c", "new", 1)
            assert len(txn["c"]) == 2
            txn.delete("c", "new")
        batch.delete("c", "none")
        with batch.transaction():
            pass
        assert batch.flush() is None
        batch["c"].update({"k": 1})
    assert store.head() == before
    assert len(logged(store)) == 1


def test_a_value_that_cannot_be_stored_is_refused_and_the_batch_goes_on(store: Store) -> None:
    with store.batch() as batch:
        batch["c"]["a"] = 1
        with pytest.raises(InvalidValue):
            batch.put("c", "b", {1, 2})
        with pytest.raises(InvalidValue):
            batch["c"].update([("b", 1), ("d", {1})])
        with pytest.raises(sqlstate.EntryNotFound):
            batch["c"].pop("none")
        batch["c"]["z"] = 26
    assert dict(store["c"]) == {"a": 1, "z": 26}


def test_typed_collections_work_in_a_batch(store: Store) -> None:
    with store.batch() as batch:
        numbers = batch.collection("n", type=int)
        numbers["a"] = 1
        with pytest.raises(InvalidValue):
            numbers["b"] = "no"  # type: ignore[assignment]
        assert dict(numbers) == {"a": 1}
    assert dict(store["n"]) == {"a": 1}


def test_changes_of_one_key_are_logged_one_by_one(store: Store) -> None:
    with store.batch() as batch:
        for i in range(3):
            batch["c"]["k"] = i
        batch["c"]["k"] = 2
        del batch["c"]["k"]
        batch["c"]["k"] = "again"
    assert [each.changes[0][3:] for each in logged(store)] == [
        (None, "0"), ("0", "1"), ("1", "2"), ("2", None), (None, '"again"')
    ]  # fmt: skip


def test_scanning_while_writing_sees_each_entry_as_it_is_when_its_turn_comes(store: Store) -> None:
    store["c"].update({i: i for i in range(1000)})
    seen = []
    with store.batch() as batch:
        for key, value in batch["c"].items():
            seen.append((key, value))
            batch.delete("c", int(key) + 1)
            batch.put("c", 999, "changed")
            if key == 500:
                batch.flush()
    assert seen == [*((i, i) for i in range(0, 1000, 2)), (999, "changed")]


# ---- Large ones ----


@pytest.mark.slow
def test_more_than_the_buffers_hold(store: Store) -> None:
    model = {}
    with store.batch() as batch:
        for i in range(20_000):
            batch["c"][i % 17_000] = model[i % 17_000] = i
        with batch.transaction() as txn:
            for i in range(0, 17_000, 2):
                txn.delete("c", i)
                del model[i]
        assert len(batch["c"]) == len(model)
    assert dict(store["c"]) == model
    assert sizes(store) == [20_001]


def test_more_than_the_buffers_hold_again_and_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "PUTS_AT_ONCE", 7)
    monkeypatch.setattr(commit_module, "BUFFER_ENTRIES", 20)
    model: dict[Any, Any] = {}
    with store.batch() as batch:
        for i in range(1000):
            batch["c"][i * 37 % 101] = model[i * 37 % 101] = i
            if i % 90 == 0:
                assert batch["c"].pop(i * 37 % 101) == model.pop(i * 37 % 101)
            if i % 333 == 0:
                with pytest.raises(ValueError, match="undone"), batch.transaction() as txn:
                    txn["c"].clear()
                    raise ValueError("undone")
        assert dict(batch["c"]) == model
    assert dict(store["c"]) == model
    assert sizes(store) == [1000 + 12]


def test_large_values(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batch_module, commit_module):
        monkeypatch.setattr(module, "BUFFER_BYTES", 1 << 20)
    large = {i: bytes([i]) * 400_000 for i in range(8)}
    with store.batch() as batch:
        for key, value in large.items():
            batch["c"][key] = value
    assert dict(store["c"]) == large
    assert sizes(store) == [8]


# ---- Whose it is ----


def test_while_a_transaction_of_it_is_open_the_batch_itself_is_not_used(store: Store) -> None:
    """It would write beside the transaction, or make durable half of it."""
    with store.batch() as batch:
        batch["c"][1] = 1
        with batch.transaction("one") as txn:
            txn.put("c", 2, 2)
            for act in (
                batch.flush,
                lambda: batch.put("c", 3, 3),
                lambda: batch["c"].update({3: 3}),
                lambda: batch["c"].get(1),
                lambda: len(batch["c"]),
                lambda: batch.delete("c", 1),
                lambda: batch.transaction().__enter__(),
                batch.collections,
            ):
                with pytest.raises(StoreUnusable, match="transaction of the batch"):
                    act()
            txn.put("c", 4, 4)
            assert len(txn["c"]) == 3
        batch["c"][5] = 5
    assert dict(store["c"]) == {1: 1, 2: 2, 4: 4, 5: 5}
    assert [len(each.changes) for each in logged(store)] == [1, 2, 1]


def test_what_cannot_be_done_inside_a_batch_is_refused_and_harms_nothing(store: Store) -> None:
    with store.batch() as batch:
        batch["c"][1] = 1
        for act in (
            lambda: store.batch().__enter__(),
            lambda: store.submit(lambda txn: None),
            store.barrier,
            store.close,
            store.stage,
            lambda: store.wal.append("BEGIN"),
        ):
            with pytest.raises(StoreUnusable):
                act()
        batch["c"][2] = 2
    assert dict(store["c"]) == {1: 1, 2: 2}
    assert sizes(store) == [2]


def test_a_batch_inside_a_transaction_is_refused(store: Store) -> None:
    with store.transaction() as txn:
        txn.put("c", 1, 1)
        with pytest.raises(StoreUnusable), store.batch():
            pass
    assert dict(store["c"]) == {1: 1}


def test_a_batch_ends_with_its_block(store: Store) -> None:
    with store.batch() as batch:
        collection = batch["c"]
        collection[1] = 1
    for name in calls.used_methods(sqlstate.Batch):
        with pytest.raises(TransactionEnded):
            calls.exhaust(calls.BATCH[name](batch))
    with pytest.raises(TransactionEnded):
        collection[1] = 2
    assert dict(store["c"]) == {1: 1}


def test_a_batch_belongs_to_its_thread(store: Store) -> None:
    caught: list[str] = []

    def use(batch: sqlstate.Batch) -> None:
        for name in calls.used_methods(sqlstate.Batch):
            try:
                calls.exhaust(calls.BATCH[name](batch))
            except TransactionEnded:
                caught.append(name)
        caught.append(dict(store["c"]))  # type: ignore[arg-type]  # of what is durable

    with store.batch() as batch:
        batch["c"][1] = 1
        with Threads() as threads:
            threads.start(lambda: use(batch))
    assert caught == [*calls.used_methods(sqlstate.Batch), {}]
    assert dict(store["c"]) == {1: 1}


def test_other_threads_wait_for_the_end_and_are_not_part_of_it(store: Store) -> None:
    turns = line_of_turns(store)
    with Threads() as threads, pytest.raises(ValueError, match="undone"), store.batch() as batch:
        batch["c"]["batch"] = 1
        for key in range(3):
            threads.start(lambda key=key: transact(store, key))  # type: ignore[misc]
            turns.came()
        raise ValueError("undone")
    assert dict(store["c"]) == {0: 0, 1: 1, 2: 2}


def transact(store: Store, key: int) -> None:
    with store.transaction() as txn:
        txn.put("c", key, key)


def test_what_blocks_left_open_is_durable_before_a_batch_begins(open_store: OpenStore) -> None:
    """The batch waits in line behind a block, whose group would take it for one more transaction."""
    store = open_store(mode="group", timeout=PATIENCE, group_wait=PATIENCE)
    turns = line_of_turns(store)
    durable: list[int] = []

    def batch() -> None:
        with pytest.raises(ValueError, match="undone"), store.batch() as batch:
            durable.append(store.durable)
            batch["c"]["batch"] = 2
            raise ValueError("undone")

    with Threads() as threads, store.transaction() as txn:
        txn.put("c", "block", 1)
        threads.start(batch)
        turns.came()
    assert durable == [1]
    assert dict(store["c"]) == {"block": 1}


# ---- What goes wrong ----


def test_another_process_at_work_is_busy_and_loses_nothing_of_the_batch(path: Path, open_store: OpenStore) -> None:
    with open_store() as first:
        first["left"][0], first["right"][0] = 1, 0
    store = open_store(timeout=0.01)
    with Child("holds", path) as child:
        child.expects("holding")
        with store.batch() as batch:
            batch["c"][1] = 1
            acts: list[Callable[[], object]] = [lambda: len(batch["c"]), batch.flush, lambda: transact(store, 9)]
            for key, act in enumerate(acts, 2):
                with pytest.raises(Busy, match="nothing was changed"):
                    act()
                batch["c"][key] = key
            child.tell()
            child.expects("committed")
            assert dict(batch["right"]) == {0: 1}
        child.tell()
        child.ends()
    # flush() that failed forgot what was before it, and said so; the rest is there.
    assert dict(store["c"]) == {3: 3, 4: 4}


def test_busy_at_the_end_of_the_block_undoes_it_all(path: Path, open_store: OpenStore) -> None:
    with open_store() as first:
        first["left"][0], first["right"][0] = 1, 0
    store = open_store(timeout=0.01)
    with Child("holds", path) as child:
        child.expects("holding")
        with pytest.raises(Busy), store.batch() as batch:
            batch["c"][1] = 1
        child.tell()
        child.expects("committed")
        child.tell()
        child.ends()
    assert "c" not in store
    transact(store, 1)
    assert dict(store["c"]) == {1: 1}


@pytest.fixture
def damaged(path: Path) -> Path:
    """A store with an entry that is not what the tree says it is."""
    with sqlstate.open(path) as store:
        store["a"].update({i: i for i in range(500)})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE state SET value = '4711' WHERE collection = 'a' AND key = 250")
    return path


def test_a_put_to_a_damaged_entry_fails_the_whole_batch(damaged: Path) -> None:
    with sqlstate.open(damaged) as store:
        before = store.head()
        with pytest.raises(Damaged), store.batch() as batch:
            batch["a"][1] = "new"
            batch["a"][250] = "new"
        assert (store.head(), store["a"][1]) == (before, 1)
        with pytest.raises(Damaged), store.batch() as batch:
            batch["a"][1] = "new"
            batch["a"][250] = "new"
            with pytest.raises(Damaged):
                len(batch["a"])
            batch["a"][2] = "new"  # the error was swallowed: the batch must not end well
        assert (store.head(), store["a"][2]) == (before, 2)
        store["a"][3] = "new"
        assert store["a"][3] == "new"


@pytest.mark.parametrize("first", [False, True])
def test_a_transaction_that_meets_damage_fails_alone(damaged: Path, first: bool) -> None:
    with sqlstate.open(damaged) as store:
        with store.batch() as batch:
            if not first:
                batch["a"][1] = "new"
            with pytest.raises(Damaged), batch.transaction() as txn:
                txn.put("a", 250, "new")
                len(txn["a"])
            assert batch["a"][250] == 4711
            batch["a"][2] = "new"
        assert (store["a"][1], store["a"][2]) == (1 if first else "new", "new")


def test_an_own_rollback_of_sqlite_fails_the_whole_batch(store: Store) -> None:
    """SQLite does so by itself after some errors; here a ROLLBACK stands for them."""
    lose: Callable[[], object] = lambda: store._engine.write_connection.run("ROLLBACK")  # noqa: E731
    with pytest.raises(sqlstate.StoreIOError, match="nothing was changed"), store.batch() as batch:
        batch["c"][1] = 1
        len(batch["c"])
        lose()
        batch["c"][2] = 2
    assert content(store) == {}
    with pytest.raises(sqlstate.StoreError), store.batch() as batch:
        batch["c"][1] = 1
        len(batch["c"])
        lose()
        batch["c"][2] = 2
        len(batch["c"])
    assert content(store) == {}
    store["c"][3] = 3
    assert content(store) == {"c": {3: 3}}


def test_a_batch_without_writes_takes_no_lock_from_other_processes(store: Store, other: Store) -> None:
    other["c"][1] = 1
    with store.batch() as batch:
        assert dict(batch["c"]) == {1: 1}
        other["c"][2] = 2
        assert dict(batch["c"]) == {1: 1, 2: 2}
        batch.flush()
        other["c"][3] = 3
    assert other.durable == 3


def test_a_store_that_is_closed_gives_no_batch(path: Path) -> None:
    store = sqlstate.open(path)
    store.close()
    with pytest.raises(sqlstate.StoreClosed), store.batch():
        pass


def test_a_batch_in_one_thread_leaves_readers_of_others_alone(store: Store) -> None:
    seen: list[Any] = []
    with store.batch() as batch:
        batch["c"][1] = 1
        assert len(batch["c"]) == 1
        thread = threading.Thread(target=lambda: seen.append((content(store), store.durable)))
        thread.start()
        thread.join(PATIENCE)
    assert seen == [({}, 0)]
