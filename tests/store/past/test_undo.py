"""undo() and revert() make new commits, all or nothing; nothing in the log is rewritten."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate import ABSENT
from sqlstate.store.past import undo as undoing

if TYPE_CHECKING:
    from tests.conftest import OpenStore


def test_undo_takes_back_and_undoing_that_redoes(store: sqlstate.Store) -> None:
    store["c"].update({"kept": 1, "changed": 1, "deleted": b"x"})
    with store.transaction() as txn:
        txn["c"]["changed"] = 2
        del txn["c"]["deleted"]
        txn["d"]["new"] = 3
    before, after = {"kept": 1, "changed": 1, "deleted": b"x"}, {"kept": 1, "changed": 2}
    records = list(store.wal.read())
    assert store.undo(2) == store.head()
    assert (dict(store["c"]), "d" in store) == (before, False)
    assert store.undo(3).seq == 4
    assert (dict(store["c"]), store["d"]["new"]) == (after, 3)
    assert list(store.wal.read())[: len(records)] == records
    assert [change.note for change in store.changes(after=2)][::3] == ["undo of commit 2", "undo of commit 3"]


def test_entries_that_later_commits_changed_are_all_named(store: sqlstate.Store) -> None:
    store["c"].update({number: number for number in range(5)})
    store["c"].update({1: "later", 3: "later"})
    del store["c"][4]
    store["c"][3] = 3  # it is again what the commit made it
    head = store.head()
    with pytest.raises(sqlstate.Conflict, match="and 1 more entries are not as expected") as caught:
        store.undo(1)
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301, our own exception
    assert error.entries == [("c", 1), ("c", 4)]
    assert (error.key, error.expected, error.actual) == (1, 1, "later")
    assert store.head() == head


@pytest.mark.parametrize("seq", [0, -1, 2, 2**64, "1", None, True])
def test_a_commit_that_is_not_there_is_refused(store: sqlstate.Store, seq: int) -> None:
    store["c"]["k"] = 1
    with pytest.raises(sqlstate.InvalidOption):
        store.undo(seq)
    store["c"]["k"] = 2


def test_nothing_to_take_back_makes_no_commit(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.batch() as batch:
        batch["c"]["k"] = 2
        batch["c"]["k"] = 1
    head = store.head()
    assert store.undo(2) == store.revert(2) == store.revert(1) == store.head() == head


def test_inside_a_transaction_it_is_refused(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.transaction() as txn:
        for call in (store.undo, store.revert):
            with pytest.raises(sqlstate.StoreUnusable, match=r"undo|revert"):
                call(1)
        txn.put("c", "k", 2)
    with store.batch(), pytest.raises(sqlstate.StoreUnusable):
        store.undo(1)
    assert store["c"]["k"] == 2


def test_a_note_of_the_callers_own_is_kept(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    store.undo(1, note="Ctrl-Z")
    store.revert(1, note="back")
    assert [change.note for change in store.changes()] == ["", "Ctrl-Z", "back"]
    with pytest.raises(sqlstate.InvalidOption):
        store.undo(3, note="x" * 5000)
    with pytest.raises(sqlstate.InvalidOption):
        store.revert(0, note="\ud800")
    assert store.head().seq == 3


@pytest.mark.parametrize(("entries", "size"), [(1, 1 << 40), (7, 1 << 40), (100, 40)])
def test_however_little_is_written_at_once_it_is_one_commit(
    store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch, entries: int, size: int
) -> None:
    store["c"].update(dict.fromkeys(range(50), "before"))
    store["c"].update(dict.fromkeys(range(20, 90), "x" * 30))
    monkeypatch.setattr(undoing, "BUFFER_ENTRIES", entries)
    monkeypatch.setattr(undoing, "BUFFER_BYTES", size)
    root = next(store.commits(1)).root
    assert (store.undo(2).seq, store.head().root) == (3, root)
    assert store.revert(2).seq == 4
    assert store.revert(1).root == root
    assert store.check().findings == ()


def test_undo_waits_for_its_turn_among_writers(open_store: OpenStore) -> None:
    store = open_store(mode="group", timeout=60)
    store["c"]["k"] = 0
    store["c"]["k"] = 1

    def put(number: int) -> None:
        store["d"][number] = number

    def toggle(_: int) -> int:
        try:
            return store.undo(store.head().seq).seq
        except sqlstate.Conflict:  # another commit came between
            return 0

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(100)))
        undone = [seq for seq in pool.map(toggle, range(20)) if seq]
    assert len({*undone}) == len(undone)


def test_a_revert_to_a_state_without_entries_and_back(store: sqlstate.Store) -> None:
    store["c"].update({number: number for number in range(300)})
    root = store.head().root
    assert (store.revert(0).count, list(store)) == (0, [])
    assert store.revert(1).root == root
    assert store["c"].get("none", ABSENT) is ABSENT
