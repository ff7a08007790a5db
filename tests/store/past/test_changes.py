"""changes(), history() and watch(changes=True) give each commit's net effect, once, in order, and hold nothing.

Method: whatever writers did, the changes put together must give the state, and each must begin where the last ended.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import apsw
import pytest

import sqlstate
from sqlstate import ABSENT, aio
from sqlstate.tables import wal_changes
from tests.support.child import Child

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sqlstate import Change
    from tests.conftest import OpenAsyncStore, OpenStore

JOURNALS = ("wal", "delete")


def folded(changes: Iterable[Change]) -> dict[tuple[str, Any], Any]:
    """What *changes* come to; each must begin with what the ones before it left."""
    state: dict[tuple[str, Any], Any] = {}
    seq = 0
    for change in changes:
        assert change.seq >= seq
        seq, name = change.seq, (change.collection, change.key)
        assert state.get(name, ABSENT) == change.before != change.value
        if change.value is ABSENT:
            del state[name]
        else:
            state[name] = change.value
    return state


def content(store: sqlstate.Store) -> dict[tuple[str, Any], Any]:
    return {(name, key): value for name in store for key, value in store[name].items()}


def brief(changes: Iterable[Change]) -> list[tuple[int, Any, Any, Any]]:
    return [(change.seq, change.key, change.before, change.value) for change in changes]


def test_a_commit_that_ends_as_it_began_has_no_change(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.batch() as batch:
        batch["c"]["k"] = 2
        batch["c"]["k"] = 1
        batch["c"]["new"] = 1
        del batch["c"]["new"]
    assert store.head().seq == 2
    assert brief(store.changes()) == [(1, "k", ABSENT, 1)]
    assert brief(store["c"].history("new")) == []


def test_each_change_has_the_note_of_the_transaction_that_made_it_last(store: sqlstate.Store) -> None:
    with store.batch() as batch:
        with batch.transaction("first") as txn:
            txn.put("c", "a", 1)
            txn.put("c", "b", 1)
        with batch.transaction("second") as txn:
            txn.put("c", "b", 2)
        batch["c"]["c"] = 3
    assert [(each.key, each.note, each.value) for each in store.changes()] == [
        ("a", "first", 1), ("b", "second", 2), ("c", "", 3),
    ]  # fmt: skip
    assert [each.note for key in "abc" for each in store["c"].history(key)] == ["first", "second", ""]


def test_a_staged_transaction_shows_when_it_commits(store: sqlstate.Store) -> None:
    store["c"]["k"] = 0
    draft, other = store.stage(note="draft"), store.stage()
    draft.put("c", "k", 1)
    other.put("c", "lost", 1)
    store["c"]["direct"] = 1
    draft.put("c", "k", 2)
    draft.put("d", "k", b"x")
    store["c"]["direct"] = 2
    assert [change.seq for change in store.changes()] == [1, 2, 3]
    draft.commit()
    other.rollback()
    store["c"]["direct"] = 3
    assert brief(store.changes(after=3)) == [
        (4, "k", 0, 2), (4, "k", ABSENT, b"x"), (5, "direct", 2, 3),
    ]  # fmt: skip
    assert {change.note for change in store.changes(after=3, upto=4)} == {"draft"}
    assert brief(store["c"].history("k")) == [(4, "k", 0, 2), (1, "k", ABSENT, 0)]
    assert brief(store["c"].history("lost")) == []
    with store.at(3) as past:
        assert (past["c"]["k"], "k" in past["d"]) == (0, False)


def test_a_staged_change_that_committed_later_comes_first_in_the_history(store: sqlstate.Store) -> None:
    draft = store.stage()
    draft.put("c", "k", "staged")
    store["c"]["k"] = "direct"
    del store["c"]["k"]
    draft.commit()
    assert brief(store["c"].history("k")) == [
        (3, "k", ABSENT, "staged"), (2, "k", "direct", ABSENT), (1, "k", ABSENT, "direct"),
    ]  # fmt: skip
    assert folded(store.changes()) == {("c", "k"): "staged"}


def test_changes_of_threads_in_groups_come_to_the_state(open_store: OpenStore) -> None:
    store = open_store(mode="group")

    def write(thread: int) -> None:
        for number in range(40):
            store["c"][number % 7] = [thread, number]
            store["c"].pop((number + thread) % 7, None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert folded(store.changes()) == content(store)


@pytest.mark.parametrize("rows", [1, 2, 3, 1000])
def test_a_commit_is_gathered_whole_however_few_records_are_read_at_once(
    store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    for first in range(0, 60, 20):
        with store.transaction("load") as txn:
            txn["c"].update({first + number: number for number in range(20)})
            txn["c"].update({number: -number for number in range(5)})
    monkeypatch.setattr(wal_changes, "_SPAN", wal_changes._SPAN.replace("LIMIT 1024", f"LIMIT {rows}"))
    changes = list(store.changes())
    assert folded(changes) == content(store)
    assert [key for seq, key, *_ in brief(changes) if seq == 1] == list(range(20))


def test_large_values_are_read_a_few_at_a_time(store: sqlstate.Store) -> None:
    store["c"].update({number: bytes(600_000) for number in range(6)})
    store["c"].update({number: bytes([1]) * 600_000 for number in range(6)})
    assert [(each.key, each.value[:1]) for each in store.changes(after=1)] == [(number, b"\1") for number in range(6)]


def test_only_what_is_wanted_comes(store: sqlstate.Store) -> None:
    store["a"].update({"x1": 1, "x2": 2, "y": 3, b"x1": 4, 5: 5})
    store["b"].update({"x1": 6})
    store["a"]["x1"] = 7
    assert brief(store.changes(collection="b")) == [(2, "x1", ABSENT, 6)]
    assert brief(store.changes(prefix=b"x")) == [(1, b"x1", ABSENT, 4)]
    assert brief(store.changes(1, prefix="x")) == [(2, "x1", ABSENT, 6), (3, "x1", 1, 7)]
    assert brief(store.changes(0, upto=1, collection="a", prefix="x2")) == [(1, "x2", ABSENT, 2)]
    assert brief(store.changes(after=3)) == brief(store.changes(after=99)) == []
    assert brief(store.changes(upto=0)) == []


def test_values_have_the_type_that_is_asked_for(store: sqlstate.Store) -> None:
    @dataclass
    class User:
        name: str

    users = store.collection("users", type=User)
    users[1] = User("ada")
    users[1] = User("eve")
    assert [change.value for change in store.changes(collection="users", type=User)] == [User("ada"), User("eve")]
    assert [(change.before, change.value) for change in users.history(1)] == [
        (User("ada"), User("eve")), (ABSENT, User("ada")),
    ]  # fmt: skip
    store["users"][2] = {"other": 1}
    found = store.changes(collection="users", type=User)
    assert [next(found).value, next(found).value] == [User("ada"), User("eve")]
    with pytest.raises(sqlstate.InvalidValue, match=r"'users'\[2\]"):
        next(found)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"after": -1}, sqlstate.InvalidOption),
        ({"after": "1"}, sqlstate.InvalidOption),
        ({"upto": True}, sqlstate.InvalidOption),
        ({"collection": ""}, sqlstate.InvalidName),
        ({"collection": 1}, sqlstate.InvalidName),
        ({"prefix": 1}, sqlstate.InvalidKey),
        ({"prefix": "\ud800"}, sqlstate.InvalidKey),
        ({"type": "not a type("}, sqlstate.InvalidOption),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(
    store: sqlstate.Store, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        store.changes(**arguments)


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_half_read_feed_holds_nobody_up_and_goes_on(open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal, timeout=0)
    for number in range(3):
        store["c"]["last"] = number
    store["c"].update({number: number for number in range(1500)})
    before = content(store)
    feed, history = store.changes(), store["c"].history("last")
    first, newest = next(feed), next(history)
    store["c"]["later"] = 1
    assert store._engine.readers.lent == []
    assert folded([first, *feed]) == before
    assert [newest.value, *(each.value for each in history)] == [2, 1, 0]


def test_a_feed_of_a_closed_store_says_so(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"].update({number: number for number in range(2000)})
    feed = store.changes()
    next(feed)
    store.close()
    with pytest.raises(sqlstate.StoreClosed):
        list(feed)
    with pytest.raises(sqlstate.StoreClosed):
        store.changes()


def test_inside_a_transaction_and_a_batch_only_what_was_committed_shows(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.transaction() as txn:
        txn["c"]["k"] = 2
        txn["c"].keys()
        assert brief(store.changes()) == [(1, "k", ABSENT, 1)]
        assert brief(txn["c"].history("k")) == brief(store["c"].history("k")) == [(1, "k", ABSENT, 1)]
        list(txn["c"])  # carries the write into the tables
        assert brief(txn["c"].history("k")) == [(1, "k", ABSENT, 1)]
        kept = txn["c"].history("k")
    with pytest.raises(sqlstate.TransactionEnded):
        next(kept)
    with store.batch() as batch:
        batch["c"]["k"] = 3
        assert len(list(batch["c"].history("k"))) == 2
        batch.flush()
        assert len(list(batch["c"].history("k"))) == 3
    with store.snapshot() as view:
        store["c"]["k"] = 4
        assert brief(view["c"].history("k"))[0] == (3, "k", 2, 3)
    with store.at(1) as past:
        assert brief(past["c"].history("k")) == [(1, "k", ABSENT, 1)]


def test_changes_of_other_processes_come_too(path: Path, open_store: OpenStore) -> None:
    store = open_store(read_only=False)
    with Child("increments", path, 20) as child:
        child.expects("ready")
        child.tell()
        child.expects("done")
        child.ends()
    assert folded(store.changes()) == content(store)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("UPDATE wal SET kind = 'MOVE' WHERE lsn = 2", "MOVE"),
        ("UPDATE wal SET key = NULL WHERE lsn = 2", "key"),
        ("UPDATE wal SET key = 1.5 WHERE lsn = 2", "key"),
        ("UPDATE wal SET collection = '' WHERE lsn = 2", "collection"),
        ("UPDATE wal SET value = 1.5 WHERE lsn = 2", "value"),
        ("UPDATE wal SET at = 'now' WHERE lsn = 3", "at"),
        ("UPDATE wal SET value = '{' WHERE lsn = 2", "JSON"),
    ],
)
def test_a_damaged_record_is_named(path: Path, sql: str, what: str) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
        store["c"]["k"] = 2
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()
    with sqlstate.open(path, read_only=True) as store, pytest.raises(sqlstate.Damaged, match=what):
        list(store.changes())


def test_a_watcher_gets_each_commit_with_its_changes(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.batch() as batch:
        batch["c"]["k"] = 2
        batch["c"]["k"] = 1
    store["d"]["k"] = 2
    found = [(head.seq, brief(changes)) for head, changes in store.watch(after=0, timeout=0, changes=True)]
    assert found == [(1, [(1, "k", ABSENT, 1)]), (2, []), (3, [(3, "k", ABSENT, 2)])]
    some = [head.seq for head, _ in store.watch(after=0, timeout=0, changes=True, collection="d")]
    assert some == [3]
    with pytest.raises(sqlstate.InvalidOption, match="ask for changes"):
        store.watch(collection="d")  # type: ignore[call-overload]
    watched = store.watch(timeout=30, changes=True, prefix="x")
    writer = threading.Thread(target=lambda: store["c"].update({"x1": 1, "y": 1}))
    writer.start()
    head, changes = next(watched)
    writer.join()
    assert (head, brief(changes)) == (store.head(), [(4, "x1", ABSENT, 1)])


# For tasks.


@pytest.mark.anyio
async def test_tasks_follow_changes_and_look_back(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update({number: number for number in range(600)})
    await aiostore.put("c", 0, "new")
    found = [change async for change in aiostore.changes()]
    assert folded(found) == {("c", number): number or "new" for number in range(600)}
    assert [each.key async for each in aiostore.changes(collection="c", prefix="x")] == []
    head = await aiostore.head()
    async with aiostore.at(head.seq - 1) as past:
        assert (await past.get("c", 0), past.head.seq) == (0, head.seq - 1)
    pairs = [pair async for pair in aiostore.watch(after=head.seq - 1, timeout=0, changes=True)]
    assert [(of.seq, brief(changes)) for of, changes in pairs] == [(head.seq, [(head.seq, 0, 0, "new")])]
    assert (await aiostore.undo(head.seq)).seq == head.seq + 1
    assert await aiostore.get("c", 0) == 0
    assert (await aiostore.revert(0)).count == 0


@pytest.mark.anyio
async def test_a_step_that_is_cancelled_loses_no_change(opens: OpenAsyncStore) -> None:
    store = await opens()
    for number in range(5):
        await store.put("c", number, number)
    feed = store.changes()
    taken = []
    for _ in range(3):
        with anyio.CancelScope() as scope:
            scope.cancel()
            taken.append(await anext(feed))
    taken += [change async for change in feed]
    assert folded(taken) == {("c", number): number for number in range(5)}


@pytest.mark.anyio
async def test_a_task_gets_what_comes_before_a_value_that_cannot_be_read(aiostore: aio.AsyncStore) -> None:
    await aiostore.put("c", 1, 1)
    await aiostore.put("c", 2, "text")
    feed = aiostore.changes(collection="c", type=int)
    assert (await anext(feed)).value == 1
    with pytest.raises(sqlstate.InvalidValue):
        await anext(feed)
    assert [change async for change in feed] == []
