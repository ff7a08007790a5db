"""Goal: with mode="group", transactions of many threads share commits, and each still is a transaction of its own: it
sees those before it, fails alone, and is logged by itself. Method: the test holds the writing connection while others
line up, so that what shares a commit is no matter of luck; the log tells what did; files are judged at the end."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import ABSENT, Busy, Conflict, Damaged, Future, InvalidOption, Store, StoreIOError, Transaction
from sqlstate.commit import commit as commit_module
from sqlstate.commit import committer, open_group
from sqlstate.commit.commit import BUFFER_ENTRIES
from tests.reference import plain
from tests.support.child import Child
from tests.support.lines import PATIENCE, Threads, be_patient, held, line_of_requests, line_of_turns, logged, sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.conftest import OpenStore

Work = "Callable[[Transaction], Any]"


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """A new store whose groups are bounded by nothing but what waits."""
    return open_store(mode="group", timeout=PATIENCE, group_wait=PATIENCE)


def submit(store: Store, *works: Callable[[Transaction], Any]) -> list[Future[Any]]:
    """Submit *works* so that they come to one group, in this order; return their futures once all are done."""
    with held(store):
        futures = [store.submit(work) for work in works]
    for future in futures:
        future.exception(PATIENCE)
    return futures


def results(futures: Iterable[Future[Any]]) -> list[Any]:
    return [future.result(PATIENCE) for future in futures]


def put(key: Any, value: Any, collection: str = "c") -> Callable[[Transaction], Any]:
    return lambda txn: txn.put(collection, key, value)


def delete(key: Any, collection: str = "c") -> Callable[[Transaction], Any]:
    return lambda txn: txn.delete(collection, key)


def add(key: str) -> Callable[[Transaction], int]:
    def increment(txn: Transaction) -> int:
        value = int(txn.get("c", key, 0)) + 1
        txn.put("c", key, value)
        return value

    return increment


def fail(error: BaseException, *first: Callable[[Transaction], Any]) -> Callable[[Transaction], Any]:
    def work(txn: Transaction) -> None:
        for each in first:
            each(txn)
        raise error

    return work


# ---- What shares a commit ----


def test_transactions_that_wait_together_share_one_commit(store: Store) -> None:
    futures = submit(store, *(partial(lambda i, txn: txn.put("c", i, i), i) for i in range(100)))
    assert results(futures) == [None] * 100
    assert dict(store["c"]) == {i: i for i in range(100)}
    assert sizes(store) == [100]
    assert [each.changes for each in logged(store)] == [[("PUT", "c", i, None, str(i))] for i in range(100)]
    assert {future.head for future in futures} == {store.head()}
    counters = store.stats().counters
    assert (counters.commits, counters.transactions, counters.largest_group) == (1, 100, 100)
    assert counters.group_sizes == {128: 1}


def test_puts_blocks_and_functions_of_threads_share_one_commit(store: Store) -> None:
    line, turns = line_of_requests(store), line_of_turns(store)
    with Threads() as threads, held(store):
        threads.start(lambda: store["c"].__setitem__("put", 1))
        line.came()
        threads.start(lambda: store.run(put("run", 2)))
        line.came()
        threads.start(lambda: store["c"].setdefault("default", 3))
        line.came()
        turns.came()  # the store's own thread
        for key in ("block", "other block"):
            threads.start(partial(block, store, key))
            turns.came()
    assert dict(store["c"]) == {"put": 1, "run": 2, "default": 3, "block": 4, "other block": 4}
    # The blocks come after the group of those that were there before them, and share one of their own.
    assert sizes(store) in ([3, 2], [5])


def block(store: Store, key: str) -> None:
    with store.transaction() as txn:
        txn.put("c", key, 4)


def test_blocks_of_several_threads_share_one_commit(store: Store) -> None:
    turns = line_of_turns(store)
    with Threads() as threads, held(store):
        for number in range(5):
            threads.start(partial(block, store, f"block {number}"))
            turns.came()
    assert sizes(store) == [5]
    assert [each.changes[0][2] for each in logged(store)] == [f"block {number}" for number in range(5)]


def test_what_waits_for_a_block_comes_into_its_commit(store: Store) -> None:
    line = line_of_requests(store)
    with Threads() as threads:
        with store.transaction("block") as txn:
            txn.put("c", "block", 1)
            threads.start(lambda: store["c"].__setitem__("other", 2))
            line.came()
        assert store["c"]["block"] == 1
    assert sizes(store) == [2]
    assert [each.note for each in logged(store)] == ["block", ""]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_group_has_at_most_group_size_transactions(open_store: OpenStore, size: int) -> None:
    store = open_store(mode="group", group_size=size, group_wait=PATIENCE, timeout=PATIENCE)
    futures = submit(store, *(put(i, i) for i in range(7)))
    expected = [size] * (7 // size) + [7 % size] * (7 % size > 0)
    assert sizes(store) == expected
    assert [future.head.seq for future in futures if future.head] == [1 + i // size for i in range(7)]
    assert store.stats().counters.largest_group == max(expected)


def test_a_group_takes_no_more_after_group_wait(open_store: OpenStore) -> None:
    store = open_store(mode="group", group_wait=0, timeout=PATIENCE)
    submit(store, *(put(i, i) for i in range(5)))
    assert sizes(store) == [1] * 5


def test_puts_of_threads_are_bounded_by_group_size_too(open_store: OpenStore) -> None:
    store = open_store(mode="group", group_size=4, group_wait=PATIENCE, timeout=PATIENCE)
    line = line_of_requests(store)
    with Threads() as threads, held(store):
        for i in range(10):
            threads.start(partial(store["c"].__setitem__, i, i))
            line.came()
    assert sizes(store) == [4, 4, 2]


def test_full_mode_shares_no_commit_and_submits_all_the_same(open_store: OpenStore) -> None:
    store = open_store(timeout=PATIENCE)
    futures = submit(store, *[add("n")] * 5)
    assert results(futures) == [1, 2, 3, 4, 5]
    assert sizes(store) == [1] * 5
    assert [future.head for future in futures] == list(store.commits())


def test_one_thread_alone_makes_a_commit_for_each_write_and_needs_no_thread(store: Store) -> None:
    before = threading.active_count()
    for i in range(5):
        store["c"][i] = i
    assert store.run(add("n")) == 1
    with store.transaction("block") as txn:
        txn.put("c", "k", 1)
    assert sizes(store) == [1] * 7
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "options",
    [
        {"group_size": 0}, {"group_size": -1}, {"group_size": 1.5}, {"group_size": True}, {"group_size": "9"},
        {"group_size": None}, {"group_wait": -0.1}, {"group_wait": float("nan")}, {"group_wait": float("inf")},
        {"group_wait": "1"}, {"group_wait": None},
    ],
    ids=str,
)  # fmt: skip
def test_limits_that_are_none_are_refused_before_anything_is_made(path: Path, options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(InvalidOption, match=name):
        sqlstate.open(path, mode="group", **options)
    assert not path.exists()


def test_a_store_takes_commits_of_both_modes(path: Path) -> None:
    """The mode is the handle's, not the file's."""
    for mode in ("full", "group", "full"):
        with sqlstate.open(path, mode=mode, timeout=PATIENCE, group_wait=PATIENCE) as store:
            submit(store, add("n"), add("n"))
    assert plain.judge(path).findings == ()
    with sqlstate.open(path) as store:
        assert store["c"]["n"] == 6
        assert sizes(store) == [1, 1, 2, 1, 1]


# ---- Each is a transaction of its own ----


def test_each_sees_those_before_it(store: Store) -> None:
    assert results(submit(store, *[add("n")] * 10)) == list(range(1, 11))
    assert sizes(store) == [10]
    changes = [each.changes for each in logged(store)]
    assert changes == [[("PUT", "c", "n", None if i == 1 else str(i - 1), str(i))] for i in range(1, 11)]


def test_all_ways_of_reading_see_those_before_it(store: Store) -> None:
    store["c"].update({"a": 1, "b": 2})

    def look(txn: Transaction) -> Any:
        return (
            dict(txn["c"]), len(txn["c"]), txn.collections(), list(txn["c"].keys(start="b", reverse=True)),
            txn.get("c", "a"), "b" in txn["c"], len(txn["c"].keys(prefix="c")), dict(store["c"]), store.collections(),
        )  # fmt: skip

    *_, first, _, second = results(
        submit(store, put("c1", 3), delete("b"), put("x", 1, "d"), look, delete("x", "d"), look)
    )
    rest = ({"a": 1, "c1": 3}, 2)
    assert first[:3] == (*rest, ["c", "d"])
    assert first[3:] == (["c1"], 1, False, 1, rest[0], ["c", "d"])
    assert second[:3] == (*rest, ["c"])
    assert sizes(store) == [1, 4]


def test_nobody_else_sees_any_of_it_before_the_commit(store: Store, open_store: OpenStore) -> None:
    other = open_store(create=False)

    def look(txn: Transaction) -> Any:
        with store.snapshot() as view:
            return dict(view["c"]), view.head.seq, store.durable, dict(other["c"]), other.head().seq

    _, seen, _ = results(submit(store, put("k", 1), look, put("l", 1)))
    assert seen == ({}, 0, 0, {}, 0)
    assert dict(other["c"]) == {"k": 1, "l": 1}


def test_a_failing_one_is_undone_alone_and_raises_the_very_object(store: Store) -> None:
    store["c"]["kept"] = 0
    errors = [ValueError("first"), RuntimeError("second"), KeyboardInterrupt("third"), Conflict("c", 1, 2, 3)]

    def scan(txn: Transaction) -> Any:
        txn.put("c", "scan", 1)
        return dict(txn["c"])

    futures = submit(
        store,
        fail(errors[0], put("a", 1)),
        put("b", 2),
        fail(errors[1], put("b", 3), put("c", 3), scan),
        fail(errors[2], delete("kept"), delete("b")),
        add("n"),
        fail(errors[3]),
        scan,
    )
    raised = [future.exception() for future in futures]
    assert [raised[0], raised[2], raised[3], raised[5]] == errors
    assert all(one is other for one, other in zip((raised[0], *raised[2:4], raised[5]), errors, strict=True))
    assert [raised[1], raised[4], raised[6]] == [None] * 3
    assert futures[6].result() == {"kept": 0, "b": 2, "n": 1, "scan": 1}
    assert [future.head is None for future in futures] == [True, False, True, True, False, True, False]
    assert dict(store["c"]) == {"kept": 0, "b": 2, "n": 1, "scan": 1}
    assert sizes(store) == [1, 3]
    assert [each.changes[0][2] for each in logged(store)] == ["kept", "b", "n", "scan"]


FAILURES: list[Callable[[Transaction], Any]] = [
    fail(ValueError()),
    fail(ValueError(), put("x", 1)),
    fail(ValueError(), put("x", 1), lambda txn: len(txn["c"])),
    fail(ValueError(), lambda txn: txn["c"].update({i: i for i in range(BUFFER_ENTRIES + 1)})),
]
NOTHINGS: list[Callable[[Transaction], Any]] = [
    lambda txn: None,
    lambda txn: (txn.put("c", "x", 1), txn.delete("c", "x")),
    lambda txn: (txn.put("c", "x", 1), len(txn["c"]), txn.delete("c", "x")),
    put("there", 0),
]


@pytest.mark.parametrize(
    "failure",
    [*FAILURES[:3], pytest.param(FAILURES[3], marks=pytest.mark.slow)],
    ids=["at once", "buffered", "applied", "large"],
)
def test_what_comes_after_a_failing_first_is_done(store: Store, failure: Callable[[Transaction], Any]) -> None:
    """The first of a group takes the beginning of SQLite's transaction with it when it fails."""
    line = line_of_requests(store)
    store["c"]["there"] = 0
    for follow in ("a put", "a function", "a barrier", "nothing", "a block"):
        line, turns = line_of_requests(store), line_of_turns(store)
        with Threads() as threads, held(store):
            future = store.submit(failure)
            if follow == "a put":
                threads.start(lambda: store["c"].__setitem__("put", 1))
            elif follow == "a function":
                threads.start(lambda: store.run(put("run", 1)))
            elif follow == "a barrier":
                threads.start(store.barrier)
            elif follow == "nothing":
                threads.start(lambda: store.run(put("there", 0)))
            else:
                turns.came()
                threads.start(partial(block, store, "block"))
                turns.came()
            if follow != "a block":
                line.came(2)
        assert isinstance(future.exception(PATIENCE), ValueError), follow
    assert dict(store["c"]) == {"there": 0, "put": 1, "run": 1, "block": 4}
    assert sizes(store) == [1, 1, 1, 1]


@pytest.mark.parametrize("nothing", NOTHINGS, ids=["at once", "buffered", "applied", "the same value"])
def test_one_that_changes_nothing_leaves_no_trace(store: Store, nothing: Callable[[Transaction], Any]) -> None:
    store["c"]["there"] = 0
    before = store.head()
    futures = submit(store, nothing)
    assert (futures[0].head, store.head()) == (None, before)
    futures = submit(store, nothing, nothing, fail(ValueError()), nothing)
    assert [type(future.exception()) for future in futures] == [type(None), type(None), ValueError, type(None)]
    assert store.head() == before

    futures = submit(store, nothing, put("a", 1), nothing, put("b", 2), nothing)
    results(futures)
    assert [future.head and future.head.seq for future in futures] == [None, 2, None, 2, None]
    assert sizes(store) == [1, 2]
    assert [each.changes[0][2] for each in logged(store)] == ["there", "a", "b"]


def test_puts_that_change_nothing_leave_no_trace(store: Store) -> None:
    store["c"]["k"] = 1
    before = store.head()
    line = line_of_requests(store)
    with Threads() as threads, held(store):
        for _ in range(3):
            threads.start(lambda: store["c"].__setitem__("k", 1))
            line.came()
    assert store.head() == before
    assert len(logged(store)) == 1


def test_a_group_that_undoes_itself_is_a_commit_all_the_same(store: Store) -> None:
    """Each of its transactions changed something, and both are durable: the log says so."""
    store["c"]["k"] = 1
    before = store.head()
    futures = submit(store, put("k", 2), put("k", 1))
    head = store.head()
    assert [future.head for future in futures] == [head, head]
    assert (head.seq, head.root, head.count) == (2, before.root, 1)
    assert [each.changes for each in logged(store)[1:]] == [
        [("PUT", "c", "k", "1", "2")],
        [("PUT", "c", "k", "2", "1")],
    ]


def test_the_log_has_every_change_of_a_key_with_the_value_before(store: Store) -> None:
    works = [put("k", 1), put("k", 2), delete("k"), put("k", 3), delete("k"), put("k", "x" * 1000), put("k", b"y")]
    results(submit(store, *works))
    long = f'"{"x" * 1000}"'
    assert [each.changes for each in logged(store)] == [
        [("PUT", "c", "k", None, "1")],
        [("PUT", "c", "k", "1", "2")],
        [("DELETE", "c", "k", "2", None)],
        [("PUT", "c", "k", None, "3")],
        [("DELETE", "c", "k", "3", None)],
        [("PUT", "c", "k", None, long)],
        [("PUT", "c", "k", long, b"y")],
    ]
    assert sizes(store) == [7]
    assert dict(store["c"]) == {"k": b"y"}


def test_puts_of_one_key_by_many_threads_are_all_in_the_log(store: Store) -> None:
    line = line_of_requests(store)
    with Threads() as threads, held(store):
        for i in range(6):
            threads.start(partial(store["c"].__setitem__, "k" if i != 3 else "other", i))
            line.came()
    assert dict(store["c"]) == {"k": 5, "other": 3}
    assert sizes(store) == [6]
    befores = [change[3:] for each in logged(store) for change in each.changes]
    assert befores == [(None, "0"), ("0", "1"), ("1", "2"), (None, "3"), ("2", "4"), ("4", "5")]


def test_deletes_of_threads_share_a_commit_and_know_what_was_there(store: Store) -> None:
    store["c"].update({"a": 1, "b": b"2"})
    found: dict[str, Any] = {}

    def delete_in_turn(key: str) -> None:
        found[key] = key in found, store._entries.remove(("c", 1, key))

    def pop(key: str) -> None:
        with pytest.raises(sqlstate.EntryNotFound):
            del store["c"][key]

    line = line_of_requests(store)
    with Threads() as threads, held(store):
        for work in (
            partial(delete_in_turn, "a"),
            partial(delete_in_turn, "none"),
            partial(store["c"].__setitem__, "new", 3),
            partial(delete_in_turn, "b"),
            partial(pop, "a"),  # the first has deleted it
            partial(store["c"].__setitem__, "a", 4),
        ):
            threads.start(work)
            line.came()
    assert found == {"a": (False, True), "none": (False, False), "b": (False, True)}
    assert dict(store["c"]) == {"a": 4, "new": 3}
    assert sizes(store) == [1, 4]
    assert [each.changes for each in logged(store)[1:]] == [
        [("DELETE", "c", "a", "1", None)],
        [("PUT", "c", "new", None, "3")],
        [("DELETE", "c", "b", b"2", None)],
        [("PUT", "c", "a", None, "4")],
    ]


def test_each_has_its_own_note(store: Store) -> None:
    with held(store):
        futures = [
            store.submit(put(1, 1), "first"),
            store.submit(fail(ValueError(), put(2, 2)), "failed"),
            store.submit(put(2, 2)),
            store.submit(lambda txn: None, "nothing"),
            store.submit(lambda txn: txn["c"].update({3: 3, 4: 4}), note="é" * 2048),
            store.submit(put(5, 5), "applied"),
        ]
    for future in futures:
        future.exception(PATIENCE)
    assert [each.note for each in logged(store)] == ["first", "", "é" * 2048, "applied"]
    assert sizes(store) == [4]


def test_transactions_with_many_entries_scans_and_nested_ones_share_a_commit(store: Store) -> None:
    store["c"].update(dict.fromkeys(range(100), "old"))

    def replace(txn: Transaction) -> None:
        txn["c"].replace(dict.fromkeys(range(50, 150), "new"))

    def nested(txn: Transaction) -> int:
        with pytest.raises(ValueError, match="undone"), store.transaction() as inner:
            inner["c"].clear()
            assert len(inner["c"]) == 0
            raise ValueError("undone")
        with store.transaction() as inner:
            inner.put("c", "nested", 1)
            with store.transaction() as innermost:
                innermost.put("c", "innermost", 1)
        return len(txn["c"])

    def failing(txn: Transaction) -> None:
        nested(txn)
        txn["c"].clear()
        with store.transaction() as inner:
            inner.put("d", 1, 1)
            raise ValueError("all")

    futures = submit(store, replace, nested, failing, lambda txn: txn["c"].popitem(), nested)
    assert [future.exception() is None for future in futures] == [True, True, False, True, True]
    assert (futures[1].result(), futures[3].result()[0], futures[4].result()) == (102, "nested", 102)
    assert dict(store["c"]) == dict.fromkeys(range(50, 150), "new") | {"nested": 1, "innermost": 1}
    assert sizes(store) == [1, 4]


def test_expect_looks_at_what_those_before_it_left(store: Store) -> None:
    def swap(old: Any, new: Any) -> Callable[[Transaction], Any]:
        return lambda txn: (txn.expect("c", "k", old), txn.put("c", "k", new))

    futures = submit(store, swap(ABSENT, 1), swap(ABSENT, 2), swap(1, 3), swap(1, 4))
    raised = [future.exception() for future in futures]
    assert [type(error) for error in raised] == [type(None), Conflict, type(None), Conflict]
    assert isinstance(raised[3], Conflict)
    assert (raised[3].expected, raised[3].actual) == (1, 3)
    assert store["c"]["k"] == 3


# ---- Large ones ----


@pytest.mark.slow
def test_a_transaction_beyond_the_buffers_shares_a_commit(store: Store) -> None:
    many = {i: i for i in range(BUFFER_ENTRIES + 100)}
    futures = submit(
        store,
        add("n"),
        lambda txn: txn["many"].update(many),
        fail(ValueError(), lambda txn: txn["many"].clear()),
        add("n"),
        lambda txn: [txn.delete("many", key) for key in range(0, BUFFER_ENTRIES, 2)][:0],
    )
    assert [future.exception() is None for future in futures] == [True, True, False, True, True]
    assert len(store["many"]) == len(many) - BUFFER_ENTRIES // 2
    assert sizes(store) == [4]
    assert [len(each.changes) for each in logged(store)] == [1, len(many), 1, BUFFER_ENTRIES // 2]


def test_more_than_the_buffers_hold_in_one_group(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller buffers stand for the real ones: with them a group of 500 overruns them many times."""
    monkeypatch.setattr(commit_module, "BUFFER_ENTRIES", 16)
    store = open_store(mode="group", timeout=PATIENCE, group_wait=PATIENCE)
    works = [put(i % 97, i) if i % 5 else delete(i % 89) for i in range(500)]
    works[333] = fail(ValueError(), put(5, 5))
    model: dict[Any, Any] = {}
    for i in range(500):
        if i != 333:
            if i % 5:
                model[i % 97] = i
            else:
                model.pop(i % 89, None)
    submit(store, *works)
    assert dict(store["c"]) == model
    assert len(sizes(store)) == 1


def test_large_values_in_one_group(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_module, "BUFFER_BYTES", 1 << 20)
    store = open_store(mode="group", timeout=PATIENCE, group_wait=PATIENCE)
    line = line_of_requests(store)
    large = {i: bytes([i]) * 400_000 for i in range(8)}
    with Threads() as threads, held(store):
        for key, value in large.items():
            threads.start(partial(store["c"].__setitem__, key, value))
            line.came()
        future = store.submit(add("n"))
    assert future.result(PATIENCE) == 1
    assert dict(store["c"]) == large | {"n": 1}
    assert sizes(store) == [9]


# ---- What goes wrong ----


def tamper(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


CLOSE_TO_12 = "SELECT max(key) FROM merkle WHERE collection = 'c' AND level = 1 AND key <= 12"


@pytest.fixture
def damaged(path: Path) -> Path:
    """A store with a node of the tree that is not what it must be; those who do not come by do not notice."""
    with sqlstate.open(path) as store:
        store["a"].update({i: i for i in range(500)})
    tamper(path, "UPDATE state SET value = '4711' WHERE collection = 'a' AND key = 250")
    return path


def test_a_put_to_a_damaged_entry_fails_alone(damaged: Path) -> None:
    with sqlstate.open(damaged, mode="group", timeout=PATIENCE, group_wait=PATIENCE) as store:
        line = line_of_requests(store)
        caught: list[Any] = []

        def write(key: int) -> None:
            try:
                store["a"][key] = "new"
            except Damaged as e:
                caught.append((key, e))

        with Threads() as threads, held(store):
            for key in (10, 250, 490, 499):
                threads.start(partial(write, key))
                line.came()
        assert [key for key, _ in caught] == [250]
        assert {key: store["a"][key] for key in (10, 490, 499)} == {10: "new", 490: "new", 499: "new"}
        assert store["a"][250] == 4711
        assert store.head().seq == 4
        store["a"][11] = "after"
        assert store["a"][11] == "after"


def test_a_delete_of_a_damaged_entry_fails_alone(damaged: Path) -> None:
    with sqlstate.open(damaged, mode="group", timeout=PATIENCE, group_wait=PATIENCE) as store:
        line = line_of_requests(store)
        found: dict[int, Any] = {}

        def delete(key: int) -> None:
            try:
                found[key] = store._entries.remove(("a", 0, key))
            except Damaged:
                found[key] = "damaged"

        with Threads() as threads, held(store):
            for key in (10, 250, 1000, 490):
                threads.start(partial(delete, key))
                line.came()
        assert found == {10: True, 250: "damaged", 1000: False, 490: True}
        assert len(store["a"]) == 498


def test_damage_met_by_a_function_fails_it_and_leaves_the_store_usable(damaged: Path) -> None:
    with sqlstate.open(damaged, mode="group", timeout=PATIENCE, group_wait=PATIENCE) as store:
        before = store.head()
        [one] = submit(store, put(250, "new", "a"))
        assert isinstance(one.exception(), Damaged)
        assert store.head() == before
        # It shows only when they are carried into the tree together: which it was is known, but none was durable.
        futures = submit(store, put(10, "new", "a"), put(250, "new", "a"), put(490, "new", "a"))
        assert [type(future.exception()) for future in futures] == [Damaged] * 3
        assert store.head() == before
        # One that met it by itself fails alone.
        futures = submit(
            store,
            put(10, "new", "a"),
            lambda txn: (txn.put("a", 250, "new"), len(txn["a"])),
            put(490, "new", "a"),
        )
        assert [type(future.exception()) for future in futures] == [type(None), Damaged, type(None)]
        assert sizes(store)[1:] == [2]


def test_an_own_rollback_of_sqlite_fails_the_whole_group_and_nothing_else(store: Store) -> None:
    """SQLite does so by itself after some errors; here a ROLLBACK stands for them. Nobody is told a lie."""
    store["c"]["before"] = 1

    def lose(txn: Transaction) -> None:
        txn.put("c", "lost", 1)
        txn.collections()
        txn._entries._connection.run("ROLLBACK")
        raise ValueError

    futures = submit(store, put("first", 1), lose, put("second", 1))
    raised = [future.exception() for future in futures]
    assert isinstance(raised[1], ValueError)
    there = dict(store["c"])
    for error, key in ((raised[0], "first"), (raised[2], "second")):
        assert (key in there) == (error is None), f"{key} was told {error!r}"
    assert isinstance(raised[0], StoreIOError)
    assert store.run(add("n")) == 1


def test_a_beginning_that_fails_is_told_to_all_who_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a group failed; its successor begins anew, and finds another process at work."""
    real: Any = vars(open_group)["Commit"]
    begun: list[Any] = []

    def begin(writer: Any, *args: Any) -> Any:
        begun.append(writer)
        if len(begun) == 2:
            raise Busy("another process")
        return real(writer, *args)

    monkeypatch.setattr(open_group, "Commit", begin)
    futures = submit(store, fail(ValueError()), put("a", 1), put("b", 1))
    raised = [future.exception(0) for future in futures]
    assert [type(error) for error in raised[:2]] == [ValueError, Busy]
    monkeypatch.undo()
    assert store.run(add("n")) == 1
    assert ("b" in store["c"]) == (raised[2] is None)


def test_busy_when_another_process_has_the_lock_is_told_to_all_and_changes_nothing(
    path: Path, open_store: OpenStore
) -> None:
    with open_store() as first:
        first["left"][0], first["right"][0] = 1, 0
    store = open_store(mode="group", timeout=0.05, group_wait=PATIENCE)
    line = line_of_requests(store)
    caught: list[str] = []

    def write(work: Callable[[], object]) -> None:
        with pytest.raises(Busy, match="nothing was changed"):
            work()
        caught.append("Busy")

    with Child("holds", path) as child:
        child.expects("holding")
        with Threads() as threads, held(store):
            for work in (lambda: store["c"].__setitem__("k", 1), lambda: store.run(add("n"))):
                threads.start(partial(write, work))
                line.came()
            futures = [store.submit(add("n")) for _ in range(3)]
        assert [type(future.exception(PATIENCE)) for future in futures] == [Busy] * 3
        assert caught == ["Busy"] * 2
        assert (dict(store["c"]), store.durable) == ({}, 2)
        child.tell()
        child.expects("committed")
        be_patient(store)
        assert store.run(add("n")) == 1
        child.tell()
        child.ends()
    assert dict(store["c"]) == {"n": 1}


def test_requests_that_wait_longer_than_the_timeout_for_a_block_get_busy(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of the test's: each gives up at its own time, not at that of the first."""
    store = open_store(mode="group", timeout=10)
    now = 100.0

    class Clock:
        sleep = staticmethod(lambda seconds: None)

        @staticmethod
        def monotonic() -> float:
            return now

    for module in (committer, open_group):
        monkeypatch.setattr(module, "time", Clock)
    waits: list[float] = []
    came, go = threading.Semaphore(0), threading.Semaphore(0)
    lock = store._engine.writer_lock

    class Slow:
        """A lock that is never free, and says how long it was waited for."""

        owner, wanted = 1, True

        def acquire(self, over: object, timeout: float) -> bool:
            waits.append(timeout)
            came.release()
            assert go.acquire(timeout=PATIENCE)
            return False

        release = staticmethod(lock.release)

    store._engine.writer_lock = Slow()  # type: ignore[assignment]
    first = store.submit(add("n"))
    assert came.acquire(timeout=PATIENCE)
    now = 104.0
    second = store.submit(add("n"))
    now = 110.0
    go.release()
    assert came.acquire(timeout=PATIENCE)
    assert waits[1] == pytest.approx(4)
    assert isinstance(first.exception(PATIENCE), Busy)
    assert not second.done()
    now = 114.0
    go.release()
    assert isinstance(second.exception(PATIENCE), Busy)
    assert "another thread" in str(second.exception())
    store._engine.writer_lock = lock
    monkeypatch.undo()
    assert store.run(add("n")) == 1


def test_a_block_waits_for_its_turn_no_longer_than_the_timeout(open_store: OpenStore) -> None:
    store = open_store(mode="group", timeout=0)
    with held(store), Threads() as threads:

        def refused() -> None:
            with pytest.raises(Busy, match="another thread"), store.transaction():
                pass

        threads.start(refused)
    assert store.durable == 0


def test_a_store_for_reading_refuses_all_of_it(path: Path, open_store: OpenStore) -> None:
    open_store(mode="group").close()
    store = open_store(mode="group", read_only=True)
    for act in (
        lambda: store.run(add("n")),
        lambda: store.submit(add("n")),
        store.barrier,
        lambda: store.batch().__enter__(),
        lambda: store["c"].__setitem__("k", 1),
    ):
        with pytest.raises(sqlstate.ReadOnly):
            act()
    assert store.durable == 0


@pytest.mark.parametrize("note", ["é" * 2049, 5, "\ud800"])
def test_a_note_that_cannot_be_kept_is_refused_at_the_call(store: Store, note: Any) -> None:
    for call in (store.run, store.submit):
        with pytest.raises(InvalidOption, match="note"):
            call(add("n"), note)
    assert store.durable == 0
