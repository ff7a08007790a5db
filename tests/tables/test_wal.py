"""Goal: the log's protocol: what append() returned is there after any end of the process, and the state changes at
mark_committed() alone. Method: staged transactions by hand, on real files, also after closing and opening again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sqlstate import (
    Conflict,
    InvalidKey,
    InvalidName,
    InvalidOption,
    InvalidRecord,
    InvalidValue,
    Kind,
    Store,
    StoreUnusable,
)

if TYPE_CHECKING:
    from tests.conftest import OpenStore


def begin(store: Store, note: str = "") -> int:
    return store.wal.append("BEGIN", note=note).txn


def put(store: Store, txn: int, key: Any, value: Any) -> int:
    return store.wal.append("PUT", txn=txn, collection="c", key=key, value=value).lsn


def test_a_staged_transaction_changes_the_state_at_its_commit(store: Store) -> None:
    store["c"].update({"k": 1, "gone": 1})
    txn = begin(store, "draft")
    put(store, txn, "k", 2)
    put(store, txn, "k", 3)
    store.wal.append(Kind.DELETE, txn=txn, collection="c", key="gone")
    put(store, txn, "gone", 4)
    put(store, txn, "new", b"raw")
    before = store.head()
    assert dict(store["c"]) == {"k": 1, "gone": 1}

    head = store.wal.mark_committed(txn)

    assert dict(store["c"]) == {"k": 3, "gone": 4, "new": b"raw"}
    assert head == store.head()
    assert head.seq == before.seq + 1
    assert store.wal.uncommitted() == []


def test_staged_records_are_there_after_opening_again_to_resume(open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    txn = begin(store, "draft")
    lsn = put(store, txn, "k", 2)
    store.close()
    again = open_store(recover="resume")

    (found,) = again.wal.uncommitted()
    assert (found.txn, found.note, [record.lsn for record in found.records]) == (txn, "draft", [txn, lsn])
    assert found.records[1].before == "1"
    assert again["c"]["k"] == 1
    again._session.adopt(txn)
    again.wal.mark_committed(txn)
    assert again["c"]["k"] == 2


def test_staged_records_are_rolled_back_when_opening_again(open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    txn = begin(store, "draft")
    put(store, txn, "k", 2)
    store.close()
    again = open_store()

    assert again.wal.uncommitted() == []
    assert again["c"]["k"] == 1
    (ended,) = [record for record in again.wal.read() if record.kind is Kind.ROLLBACK]
    assert (ended.txn, ended.session) == (txn, next(r.session for r in again.wal.read() if r.lsn == txn))
    with pytest.raises(InvalidRecord, match="has ended"):
        again.wal.mark_committed(txn)


def test_records_come_in_the_order_of_their_lsn(store: Store) -> None:
    a, b = begin(store), begin(store)
    lsns = [put(store, a, 1, 1), put(store, b, 2, 2), put(store, a, 3, 3)]
    store["c"]["direct"] = 1
    store.wal.mark_committed(b)
    store.wal.append("ROLLBACK", txn=a)
    records = list(store.wal.read())

    assert [record.lsn for record in records] == list(range(1, len(records) + 1))
    assert [record.kind for record in records if record.txn == a] == ["BEGIN", "PUT", "PUT", "ROLLBACK"]
    assert [record.kind for record in records if record.txn == b] == ["BEGIN", "PUT", "COMMIT"]
    assert list(store.wal.read(after=lsns[1])) == records[lsns[1] :]
    assert dict(store["c"]) == {2: 2, "direct": 1}


def test_a_rolled_back_transaction_changes_nothing(store: Store) -> None:
    txn = begin(store)
    put(store, txn, "k", 1)
    record = store.wal.append("ROLLBACK", txn=txn)

    assert record.at is not None
    assert store.wal.uncommitted() == []
    assert store.head().seq == 0
    assert store.collections() == []


def test_a_staged_transaction_without_effect_makes_no_commit(store: Store) -> None:
    store["c"]["k"] = 1
    before = store.head()
    empty, same, undone = begin(store), begin(store), begin(store)
    put(store, same, "k", 1)
    put(store, undone, "k", 2)
    put(store, undone, "k", 1)

    for txn in (empty, same, undone):
        assert store.wal.mark_committed(txn) == before
    assert store.wal.uncommitted() == []
    assert [record.kind for record in store.wal.read()][-1] == "ROLLBACK"


def test_the_second_of_two_that_touch_one_entry_gets_a_conflict(store: Store) -> None:
    store["c"]["k"] = 1
    a, b = begin(store), begin(store)
    put(store, a, "k", "a")
    put(store, b, "other", "b")
    put(store, b, "k", "b")
    store.wal.mark_committed(a)
    before = store.head()

    with pytest.raises(Conflict) as caught:
        store.wal.mark_committed(b)

    assert (caught.value.key, caught.value.expected, caught.value.actual) == ("k", 1, "a")
    assert store.head() == before
    assert [left.txn for left in store.wal.uncommitted()] == [b], "it can still be rolled back"


def test_a_direct_write_to_a_staged_entry_is_a_conflict_too(store: Store) -> None:
    txn = begin(store)
    put(store, txn, "k", 1)
    store["c"]["k"] = 2

    with pytest.raises(Conflict):
        store.wal.mark_committed(txn)
    assert store["c"]["k"] == 2


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [
        ("COMMIT", {"txn": 1}, "mark_committed"),
        ("WRITE", {}, "not a kind"),
        ("BEGIN", {"txn": 1}, "has no txn"),
        ("BEGIN", {"collection": "c"}, "has no collection"),
        ("BEGIN", {"value": None}, "has no value"),
        ("PUT", {"collection": "c", "key": "k", "value": 1}, "needs a txn"),
        ("PUT", {"txn": 1, "collection": "c", "key": "k"}, "needs a value"),
        ("PUT", {"txn": 1, "collection": "c", "key": "k", "value": 1, "note": ""}, "has no note"),
        ("DELETE", {"txn": 1, "collection": "c", "key": "k", "value": 1}, "has no value"),
        ("ROLLBACK", {}, "needs a txn"),
        ("PUT", {"txn": 1, "value": 1}, "needs a collection"),
        ("PUT", {"txn": 1, "collection": "c", "value": 1}, "needs a key"),
        ("ROLLBACK", {"txn": 1, "collection": "c", "key": "k"}, "has no collection"),
        ("DELETE", {"txn": 1, "collection": "c", "key": "none"}, "no entry"),
        ("PUT", {"txn": 99, "collection": "c", "key": "k", "value": 1}, "99 is not a staged"),
        ("PUT", {"txn": "1", "collection": "c", "key": "k", "value": 1}, "'1' is not a staged"),
        ("ROLLBACK", {"txn": 99}, "99 is not a staged"),
    ],
)
def test_a_record_against_the_protocol_is_refused(
    store: Store, kind: str, arguments: dict[str, Any], says: str
) -> None:
    begin(store)
    records = list(store.wal.read())
    with pytest.raises(InvalidRecord, match=says):
        store.wal.append(kind, **arguments)

    assert list(store.wal.read()) == records


@pytest.mark.parametrize(
    ("collection", "key", "value", "error"),
    [("", "k", 1, InvalidName), ("c", 1.5, 1, InvalidKey), ("c", "k", {1, 2}, InvalidValue)],
)
def test_an_entry_that_cannot_be_stored_is_refused(
    store: Store, collection: Any, key: Any, value: Any, error: type[Exception]
) -> None:
    txn = begin(store)
    with pytest.raises(error):
        store.wal.append("PUT", txn=txn, collection=collection, key=key, value=value)

    assert len(store.wal.uncommitted()[0].records) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_ended_transaction_takes_no_more_records(store: Store, end: str) -> None:
    txn = begin(store)
    put(store, txn, "k", 1)
    store.wal.mark_committed(txn) if end == "commit" else store.wal.append("ROLLBACK", txn=txn)

    for act in (
        lambda: put(store, txn, "k", 2),
        lambda: store.wal.append("ROLLBACK", txn=txn),
        lambda: store.wal.mark_committed(txn),
    ):
        with pytest.raises(InvalidRecord, match="has ended"):
            act()


def test_the_log_takes_no_record_inside_a_transaction_of_the_same_thread(store: Store) -> None:
    txn = begin(store)
    with store.transaction() as direct:
        direct.put("c", "k", 1)
        for act in (lambda: begin(store), lambda: put(store, txn, "k", 2), lambda: store.wal.mark_committed(txn)):
            with pytest.raises(StoreUnusable, match="leave its block"):
                act()
    assert dict(store["c"]) == {"k": 1}


@pytest.mark.parametrize("number", [-1, "1", 1.0, 2**63, None, True])
def test_a_place_in_the_log_is_a_number(store: Store, number: Any) -> None:
    with pytest.raises(InvalidOption, match="after"):
        list(store.wal.read(after=number))
    if number is not None:  # the oldest commit in the log
        with pytest.raises(InvalidOption, match="first"):
            list(store.commits(number))


def test_a_direct_transaction_cannot_be_joined_by_its_number(store: Store) -> None:
    store["c"]["k"] = 1
    with pytest.raises(InvalidRecord):
        put(store, 1, "k", 2)


def test_many_staged_records_among_many_commits_find_the_head(store: Store) -> None:
    txn = begin(store)
    for i in range(50):
        put(store, txn, i, i)
        store["d"][i] = i
    for i in range(50, 80):
        put(store, txn, i, i)

    assert store.head().seq == 50
    assert store.wal.mark_committed(txn).seq == 51
    assert len(store["c"]) == 80
