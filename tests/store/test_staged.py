"""Staged transactions: each put and delete is durable before it returns, unseen before commit, and outlives crashes.

Method: sessions in other processes that are killed with SIGKILL where the test wants it, and two that meet.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import sqlstate
from sqlstate.files import system
from sqlstate.recovery.report import WAYS
from tests.reference import plain
from tests.support.images import folder_image
from tests.support.remote import Remote
from tests.support.system import WINDOWS, mkfifo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import OpenStore

JOURNALS = ("wal", "delete")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def session_files(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if file.name.startswith(f"{path.name}-session-"))


def kinds(store: sqlstate.Store, txn: int) -> list[str]:
    return [record.kind.value for record in store.wal.read() if record.txn == txn]


def recoveries(store: sqlstate.Store) -> list[dict[str, Any]]:
    return [entry.detail for entry in store.audit() if entry.kind == "recovery"]


# ---- One handle ----


class NoTemporary(apsw.VFS):
    """The files of the system, without those that SQLite makes when something is larger than its memory."""

    def __init__(self) -> None:
        super().__init__("no-temporary", "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if name is None:
            raise apsw.CantOpenError("no temporary files")
        return apsw.VFSFile("", name, flags)


def test_a_large_staged_transaction_needs_no_temporary_file(path: Path) -> None:
    """Not even to be read in its order: its records stand among others, and are larger than SQLite's memory."""
    vfs = NoTemporary()
    try:
        with sqlstate.open(path, vfs="no-temporary", cache_bytes=1 << 20) as store:
            staged = store.stage()
            for key in range(100):
                staged.put("c", -key, "x" * 40_000)
            staged.commit()
            assert list(store["c"]) == list(range(-99, 1))
            assert store.check().ok
    finally:
        vfs.unregister()


def test_a_staged_transaction_is_seen_by_nobody_but_itself_before_its_commit(store: sqlstate.Store) -> None:
    store["c"].update({"k": 1, "gone": 1})
    before = store.head()
    txn = store.stage(note="draft")
    txn.put("c", "k", 2)
    txn.put("d", b"new", b"raw")
    assert txn.delete("c", "gone") is True
    assert txn.delete("c", "gone") is False
    assert txn.delete("c", "never") is False
    assert (txn.get("c", "k"), txn.get("d", b"new")) == (2, b"raw")
    assert (txn.get("c", "gone"), txn.get("c", "gone", "nothing")) == (None, "nothing")
    assert txn.get("c", "never", sqlstate.ABSENT) is sqlstate.ABSENT
    assert (dict(store["c"]), store.collections(), store.head()) == ({"k": 1, "gone": 1}, ["c"], before)
    head = txn.commit()
    assert head == store.head()
    assert (head.seq, head.count) == (before.seq + 1, 2)
    assert {name: dict(store[name]) for name in store} == {"c": {"k": 2}, "d": {b"new": b"raw"}}
    assert kinds(store, txn.txn) == ["BEGIN", "PUT", "PUT", "DELETE", "COMMIT"]


def test_it_sees_what_others_committed_where_it_has_not_written(store: sqlstate.Store) -> None:
    txn = store.stage()
    txn.put("c", "own", 1)
    store["c"]["k"] = "direct"
    store["c"]["own"] = "direct"
    assert (txn.get("c", "k"), txn.get("c", "own")) == ("direct", 1)


def test_a_staged_rollback_leaves_the_state_as_it_is(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    txn = store.stage()
    txn.put("c", "k", 2)
    txn.rollback()
    assert (dict(store["c"]), store.head().seq) == ({"k": 1}, 1)
    assert kinds(store, txn.txn) == ["BEGIN", "PUT", "ROLLBACK"]
    assert (store.wal.uncommitted(), store.pending()) == ([], [])


def test_a_commit_of_nothing_is_a_rollback(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    head = store.head()
    empty, same = store.stage(), store.stage()
    same.put("c", "k", 1)
    assert (empty.commit(), same.commit(), store.head()) == (head, head, head)
    assert kinds(store, same.txn) == ["BEGIN", "PUT", "ROLLBACK"]


def test_the_end_of_a_block_commits_and_an_exception_rolls_back(store: sqlstate.Store) -> None:
    with store.stage() as txn:
        txn.put("c", "k", 1)
    assert store["c"]["k"] == 1
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), store.stage() as txn:
            txn.put("c", "k", 2)
            raise error
        assert kinds(store, txn.txn) == ["BEGIN", "PUT", "ROLLBACK"]
    assert (store["c"]["k"], store.wal.uncommitted()) == (1, [])


def test_a_block_that_meets_a_conflict_raises_it_and_leaves_nothing_open(store: sqlstate.Store) -> None:
    with pytest.raises(sqlstate.Conflict), store.stage() as txn:
        txn.put("c", "k", 1)
        store["c"]["k"] = 2
    assert kinds(store, txn.txn) == ["BEGIN", "PUT", "ROLLBACK"]
    assert store["c"]["k"] == 2


def test_a_block_whose_transaction_was_ended_inside_says_so(store: sqlstate.Store) -> None:
    with pytest.raises(sqlstate.InvalidRecord, match="has ended"), store.stage() as txn:
        txn.put("c", "k", 1)
        txn.commit()
    assert store["c"]["k"] == 1


def test_the_second_of_two_that_touch_the_same_entry_gets_a_conflict(store: sqlstate.Store) -> None:
    store["c"]["k"] = 0
    one, two, three = store.stage(), store.stage(), store.stage()
    for number, txn in enumerate((one, two), 1):
        txn.put("c", "k", number)
        txn.put("own", number, number)
    three.delete("c", "k")
    one.commit()
    head = store.head()
    for txn in (two, three):
        with pytest.raises(sqlstate.Conflict) as caught:
            txn.commit()
        assert (caught.value.collection, caught.value.key) == ("c", "k")
        assert (caught.value.expected, caught.value.actual) == (0, 1)
    assert (store.head(), dict(store["own"])) == (head, {1: 1})
    # It stays open: rolled back, or committed once the entry is what it was.
    assert [left.txn for left in store.wal.uncommitted()] == [two.txn, three.txn]
    store["c"]["k"] = 0
    two.commit()
    assert (store["c"]["k"], dict(store["own"])) == (2, {1: 1, 2: 2})
    three.rollback()
    assert store.wal.uncommitted() == []


def test_two_that_touch_different_entries_both_commit(store: sqlstate.Store) -> None:
    one, two = store.stage(), store.stage()
    one.put("c", 1, 1)
    two.put("c", 2, 2)
    assert (two.commit().seq, one.commit().seq) == (1, 2)
    assert dict(store["c"]) == {1: 1, 2: 2}


def test_the_note_and_the_number_are_those_of_the_log(store: sqlstate.Store) -> None:
    txn = store.stage(note="brouillon é")
    txn.put("c", "k", 1)
    [found] = store.wal.uncommitted()
    assert (found.txn, found.note, len(found.records)) == (txn.txn, "brouillon é", 2)
    assert repr(txn) == f"<sqlstate.StagedTransaction {txn.txn} of {str(store.path)!r}: open>"
    for note in ("x" * 4097, 5):
        with pytest.raises(sqlstate.InvalidOption, match="note"):
            store.stage(note)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", "k", 1), sqlstate.InvalidName),
        (("c", 1.5, 1), sqlstate.InvalidKey),
        (("c", "k", {1, 2}), sqlstate.InvalidValue),
    ],
)
def test_what_cannot_be_stored_is_refused_and_the_transaction_goes_on(
    store: sqlstate.Store, arguments: Any, error: type[Exception]
) -> None:
    txn = store.stage()
    txn.put("c", "before", 1)
    with pytest.raises(error):
        txn.put(*arguments)
    if error is not sqlstate.InvalidValue:
        with pytest.raises(error):
            txn.get(*arguments[:2])
        with pytest.raises(error):
            txn.delete(*arguments[:2])
    txn.put("c", "after", 1)
    txn.commit()
    assert dict(store["c"]) == {"before": 1, "after": 1}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_ended_one_refuses_everything(store: sqlstate.Store, end: str) -> None:
    txn = store.stage()
    txn.put("c", "k", 1)
    getattr(txn, end)()
    head = store.head()
    for act in (
        lambda: txn.put("c", "k", 2),
        lambda: txn.delete("c", "k"),
        lambda: txn.get("c", "k"),
        txn.commit,
        txn.rollback,
    ):
        with pytest.raises(sqlstate.InvalidRecord, match="has ended"):
            act()
    assert store.head() == head


def test_nothing_is_staged_inside_a_transaction_of_the_same_thread(store: sqlstate.Store) -> None:
    staged = store.stage()
    with store.transaction() as txn:
        txn.put("c", "k", 1)
        for act in (store.stage, staged.commit, staged.rollback, lambda: staged.put("c", "k", 2)):
            with pytest.raises(sqlstate.StoreUnusable, match="leave its block"):
                act()
        assert staged.get("c", "k") is None
    assert dict(store["c"]) == {"k": 1}
    staged.rollback()


# ---- Killed and closed ----


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("steps", range(6))
def test_each_step_is_durable_when_it_returns(path: Path, open_store: OpenStore, journal: str, steps: int) -> None:
    """Begin, put, put over it, delete, then commit or roll back: kill the process after each."""
    with open_store(journal=journal) as store:
        store["c"]["old"] = 0
    work = (("stage_put", "c", "k", 1), ("stage_put", "c", "k", 2), ("stage_delete", "c", "old"), ("commit",))
    with Remote.opened(path) as other:
        txn = other.ask("stage", "draft")
        for what, *arguments in work[:steps]:
            other.ask(what, txn, *arguments)
        if steps == 5:
            ended = other.ask("stage", "second")
            other.ask("stage_put", ended, "c", "k", 3)
            other.ask("rollback", ended)
        other.kill()
    written = ["BEGIN", "PUT", "PUT", "DELETE", "COMMIT"][: steps + 1]
    store = open_store(recover="resume")
    assert kinds(store, txn) == written
    assert [each.txn for each in store.pending()] == ([] if steps >= 4 else [txn])
    if steps >= 4:
        assert dict(store["c"]) == {"k": 2}
        if steps == 5:
            assert kinds(store, ended) == ["BEGIN", "PUT", "ROLLBACK"]
        return
    assert dict(store["c"]) == {"old": 0}
    again = store.resume(txn)
    assert again.get("c", "k") == (None, 1, 2, 2)[steps]
    assert again.get("c", "old") == (0, 0, 0, None)[steps]
    again.put("c", "more", 1)
    again.commit()
    assert dict(store["c"]) == ({"old": 0} if steps < 3 else {}) | ({"k": min(steps, 2)} if steps else {}) | {"more": 1}


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("recover", ["rollback", "accept"])
def test_what_a_dead_process_staged_is_rolled_back_and_listed_in_the_audit_trail(
    path: Path, open_store: OpenStore, journal: str, recover: str
) -> None:
    with Remote.opened(path, journal=journal) as other:
        txns = [other.ask("stage"), other.ask("stage"), other.ask("stage")]
        other.ask("stage_put", txns[0], "c", "k", 1)
        other.ask("stage_put", txns[1], "c", "k", 2)
        other.ask("rollback", txns[1])
        other.kill()
    dead = [txns[0], txns[2]]
    with open_store(recover=recover) as store:
        assert store.recovery.rolled_back == tuple(dead)
        assert (store.pending(), store.wal.uncommitted(), store.collections()) == ([], [], [])
        assert [kinds(store, txn)[-1] for txn in txns] == ["ROLLBACK"] * 3
        assert [detail["rolled_back"] for detail in recoveries(store)] == [dead]
        with pytest.raises(sqlstate.InvalidRecord, match="has ended"):
            store.resume(txns[0])
        records = list(store.wal.read())
    store = open_store()
    assert (store.recovery.rolled_back, len(recoveries(store))) == ((), 1)
    assert list(store.wal.read()) == records
    assert store.check_audit() == []


def test_staged_work_survives_a_clean_close_if_the_next_open_resumes(path: Path, open_store: OpenStore) -> None:
    with open_store() as store:
        txn = store.stage("draft")
        txn.put("c", "k", 1)
    before = folder_image(path.parent)
    for _ in range(2):  # looking writes nothing
        with open_store(recover="resume") as store:
            assert (store.recovery.clean, store.recovery.pending, store.recovery.entry) == (True, (txn.txn,), None)
            [found] = store.pending()
            assert (found.txn, found.note, [record.kind for record in found.records]) == (
                txn.txn, "draft", ["BEGIN", "PUT"],
            )  # fmt: skip
        assert folder_image(path.parent) == before
    with open_store(recover="resume") as store:
        again = store.resume(txn.txn)
        assert store.pending() == []
        assert again.commit().seq == 1
        assert [detail.get("resumed") for detail in recoveries(store)] == [[txn.txn]]
        assert store.check_audit() == []
    with open_store() as store:
        assert (store.recovery.rolled_back, dict(store["c"])) == ((), {"k": 1})


def test_staged_work_that_is_not_resumed_is_rolled_back_by_the_next_ordinary_open(
    path: Path, open_store: OpenStore
) -> None:
    with open_store() as store:
        txn = store.stage()
        txn.put("c", "k", 1)
    with open_store(recover="resume"):
        pass
    with open_store() as store:
        assert store.recovery.rolled_back == (txn.txn,)
        assert (store.recovery.clean, len(recoveries(store))) == (True, 1)


def test_a_resumed_transaction_belongs_to_its_new_session(path: Path, open_store: OpenStore) -> None:
    with open_store() as store:
        txn = store.stage()
        txn.put("c", "k", 1)
    with Remote.opened(path, recover="resume") as other:
        other.ask("resume", txn.txn)
        other.ask("stage_put", txn.txn, "c", "l", 2)
        with open_store(recover="resume") as store:
            assert (store.recovery.pending, store.pending()) == ((), [])
            with pytest.raises(sqlstate.InvalidRecord, match="a handle that is open; nothing was changed"):
                store.resume(txn.txn)
        other.kill()
    store = open_store(recover="resume")
    assert [each.txn for each in store.pending()] == [txn.txn]
    store.resume(txn=txn.txn).commit()
    assert dict(store["c"]) == {"k": 1, "l": 2}
    assert [detail["resumed"] for detail in recoveries(store) if "resumed" in detail] == [[txn.txn]] * 2


@pytest.mark.parametrize("number", [0, 99, -1, "1", 1.0, None, True])
def test_what_was_never_staged_cannot_be_resumed(store: sqlstate.Store, number: Any) -> None:
    store["c"]["k"] = 1
    before = list(store.wal.read())
    with pytest.raises(sqlstate.InvalidRecord, match="is not a staged transaction"):
        store.resume(number)
    with pytest.raises(sqlstate.InvalidRecord, match="is not a staged transaction"):
        store.resume(1)  # a direct one
    assert list(store.wal.read()) == before
    assert recoveries(store) == []


# ---- Sessions that live ----


@pytest.mark.parametrize("journal", JOURNALS)
def test_the_staged_work_of_a_live_session_is_not_touched_by_others_who_open_the_file(
    path: Path, open_store: OpenStore, journal: str
) -> None:
    with Remote.opened(path, journal=journal) as other:
        txn = other.ask("stage", "lives")
        other.ask("stage_put", txn, "c", "k", 1)
        for recover in WAYS:
            with sqlstate.open(path, recover=recover) as store:
                assert (store.recovery.rolled_back, store.recovery.pending, store.recovery.entry) == ((), (), None)
                assert store.pending() == []
                assert [each.txn for each in store.wal.uncommitted()] == [txn]
                with pytest.raises(sqlstate.InvalidRecord, match="a handle that is open"):
                    store.resume(txn)
                assert recoveries(store) == []
        other.ask("stage_put", txn, "c", "l", 2)
        assert other.ask("commit", txn) == 1
        other.ask("close")
        other.ends()
    assert dict(open_store()["c"]) == {"k": 1, "l": 2}


def test_another_handle_of_this_process_is_a_session_of_its_own(path: Path, open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    txn = one.stage()
    txn.put("c", "k", 1)
    assert other.pending() == one.pending() == []
    for handle in (one, other):
        with pytest.raises(sqlstate.InvalidRecord, match="a handle that is open"):
            handle.resume(txn.txn)
    third = open_store()
    assert (third.recovery.rolled_back, third.recovery.entry) == ((), None)
    one.close()
    assert [each.txn for each in other.pending()] == [txn.txn]
    assert other.resume(txn.txn).commit().seq == 1


def test_work_of_a_process_that_died_since_is_pending_for_who_lives(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    with Remote.opened(path) as other:
        txn = other.ask("stage", "draft")
        other.ask("stage_put", txn, "c", "k", 1)
        assert store.pending() == []
        other.kill()
    assert [each.txn for each in store.pending()] == [txn]
    assert store.resume(txn).get("c", "k") == 1
    assert store.pending() == []


@pytest.mark.slow
def test_of_two_processes_that_resume_one_transaction_one_wins(path: Path, tmp_path: Path) -> None:
    with sqlstate.open(path) as store:
        txn = store.stage()
        txn.put("c", "k", 1)
    for attempt in range(5):
        place = tmp_path / f"race-{attempt}.db"
        shutil.copy(path, place)
        with ExitStack() as stack:
            racers = [stack.enter_context(Remote.opened(place, recover="resume", timeout=30)) for _ in range(2)]
            for racer in racers:
                racer.tell(f'["resume", {txn.txn}]')
            said = [racer.says() for racer in racers]
            errors = [each["error"] for each in said if "error" in each]
            assert errors == ["InvalidRecord"]
            winner = racers[1 if "error" in said[0] else 0]
            assert winner.ask("commit", txn.txn) == 1
            for racer in racers:
                racer.ask("close")
                racer.ends()
        with sqlstate.open(place) as store:
            assert [detail["resumed"] for detail in recoveries(store)] == [[txn.txn]]
            assert dict(store["c"]) == {"k": 1}
        assert plain.judge(place).findings == ()


@needs_fork
@pytest.mark.parametrize("close", [False, True], ids=["ends", "closes"])
@pytest.mark.parametrize("journal", JOURNALS)
def test_the_end_of_a_forked_child_does_not_end_the_session_of_its_parent(
    path: Path, open_store: OpenStore, journal: str, close: bool
) -> None:
    with Remote.opened(path, journal=journal) as other:
        txn = other.ask("stage")
        other.ask("stage_put", txn, "c", "k", 1)
        files = session_files(path)
        assert other.ask("fork", close) == 0
        assert session_files(path) == files
        with sqlstate.open(path) as store:
            assert (store.recovery.rolled_back, [each.txn for each in store.wal.uncommitted()]) == ((), [txn])
        assert other.ask("commit", txn) == 1
        other.kill()
    assert dict(open_store()["c"]) == {"k": 1}


@needs_fork
def test_a_forked_child_that_outlives_its_parent_does_not_keep_the_session_alive(
    path: Path, tmp_path: Path, open_store: OpenStore
) -> None:
    fifo = tmp_path / "fifo"
    mkfifo(fifo)
    with Remote.opened(path) as other:
        txn = other.ask("stage")
        other.ask("fork_stays", str(fifo))
        other.kill()
    try:
        assert open_store().recovery.rolled_back == (txn,)
    finally:
        os.close(os.open(fifo, os.O_WRONLY))  # and it ends


# ---- The files by which sessions are known ----


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_session_file_is_there_from_the_first_stage_to_the_close(
    path: Path, open_store: OpenStore, journal: str
) -> None:
    store = open_store(journal=journal)
    store["c"]["k"] = 1
    assert session_files(path) == []
    store.stage()
    [name] = session_files(path)
    session = path.with_name(name)
    assert len(name) == len("test.db-session-") + 32
    assert session.read_bytes() == store.store_id + bytes.fromhex(name[-32:])
    assert session.stat().st_mode & 0o777 == path.stat().st_mode & 0o777
    store.stage().rollback()
    assert session_files(path) == [name]
    with open_store() as other:
        other.stage().rollback()
        assert len(session_files(path)) == 2
    assert session_files(path) == [name]
    store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["test.db"]


def test_a_handle_that_resumes_has_a_session_file_too(path: Path, open_store: OpenStore) -> None:
    with open_store() as store:
        txn = store.stage()
    store = open_store(recover="resume")
    assert session_files(path) == []
    store.resume(txn.txn)
    assert len(session_files(path)) == 1


def test_the_session_file_of_the_dead_is_removed_at_recovery_and_no_other(path: Path, open_store: OpenStore) -> None:
    with Remote.opened(path) as live, Remote.opened(path) as dead:
        live.ask("stage")
        lives = session_files(path)
        dead.ask("stage")
        dead.kill()
        assert len(session_files(path)) == 2
        foreign = path.with_name(f"test.db-session-{'0' * 32}")
        foreign.write_bytes(bytes(32))  # of another store that had the name
        other = path.with_name(f"other.db-session-{'1' * 32}")
        other.write_bytes(bytes(32))
        with sqlstate.open(path, read_only=True):
            assert len(session_files(path)) == 3
        with open_store() as store:
            assert len(store.recovery.rolled_back) == 1
        assert session_files(path) == sorted([*lives, foreign.name])
        assert other.exists()
        live.kill()
    with open_store():
        pass
    assert session_files(path) == [foreign.name]


def test_a_dead_session_is_recognised_without_its_file(path: Path, open_store: OpenStore) -> None:
    """A lock says that it lives, never a name or a process id."""
    with Remote.opened(path) as other:
        txn = other.ask("stage")
        other.kill()
    [name] = session_files(path)
    path.with_name(name).unlink()
    assert open_store().recovery.rolled_back == (txn,)


def test_a_session_file_that_cannot_be_made_stages_nothing(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    before = list(store.wal.read())

    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuses)
        patch.setattr(os, "rename", refuses)
        if WINDOWS:
            patch.setattr(system, "place", refuses)
        with pytest.raises(sqlstate.StoreIOError, match="nothing was staged"):
            store.stage()
    assert list(store.wal.read()) == before
    assert session_files(path) == []
    store.stage().rollback()  # the handle goes on


def test_a_store_for_reading_has_no_session(path: Path, open_store: OpenStore) -> None:
    with open_store() as store:
        txn = store.stage()
    with sqlstate.open(path, read_only=True) as store:
        assert [each.txn for each in store.pending()] == [txn.txn]
        with pytest.raises(sqlstate.ReadOnly, match="nothing was changed"):
            store.stage()
        with pytest.raises(sqlstate.ReadOnly, match="nothing was changed"):
            store.resume(txn.txn)
        assert session_files(path) == []


# ---- What was written is what is committed (I14) ----


def edit(path: Path, sql: str) -> None:
    """Change a closed store in another program; its marker stays right."""
    connection = apsw.Connection(str(path))
    connection.execute(sql).fetchall()
    connection.close()


def pending_store(path: Path) -> int:
    """Leave a draft of four records, and direct commits around them; return its number."""
    with sqlstate.open(path, journal="delete") as store:
        store["c"]["before"] = 1
        draft = store.stage(note="draft")
        draft.put("d", "a", 100)
        draft.put("d", "b", {"text": "Dear"})
        store["c"]["between"] = 2
        draft.put("d", "a", 300)
        store["c"]["after"] = 3
        return draft.txn


EDITS = {
    "value": "UPDATE wal SET value = '9000' WHERE lsn = {txn} + 1",
    "before": "UPDATE wal SET before = '9000' WHERE lsn = {txn} + 1",
    "key": "UPDATE wal SET key = 'z' WHERE lsn = {txn} + 2",
    "collection": "UPDATE wal SET collection = 'e' WHERE lsn = {txn} + 2",
    "kind of value": "UPDATE wal SET value = CAST(value AS BLOB) WHERE lsn = {txn} + 1",
    "note": "UPDATE wal SET note = 'Draft' WHERE lsn = {txn}",
    "time": "UPDATE wal SET at = '2026-01-01T00:00:00.000000Z' WHERE lsn = {txn}",
    "session": "UPDATE wal SET session = zeroblob(16) WHERE txn = {txn}",
    "deleted in the middle": "DELETE FROM wal WHERE lsn = {txn} + 2",
    "deleted at the end": "DELETE FROM wal WHERE lsn = {txn} + 6",
    "swapped": "UPDATE wal SET lsn = CASE lsn WHEN {txn} + 1 THEN -2 ELSE -1 END WHERE lsn IN ({txn} + 1, {txn} + 2);"
    "UPDATE wal SET lsn = {txn} - lsn WHERE lsn < 0",
    "doubled": "DELETE FROM wal WHERE lsn = {txn} + 6; "
    "INSERT INTO wal (lsn, txn, kind, session, collection, key, value, before, chain) "
    "SELECT {txn} + 6, txn, kind, session, collection, key, value, before, chain FROM wal WHERE lsn = {txn} + 1",
    "digest": "UPDATE wal SET chain = zeroblob(32) WHERE lsn = {txn} + 1",
    "no digest": "UPDATE wal SET chain = NULL WHERE lsn = {txn} + 1",
    "no digest at first": "UPDATE wal SET chain = NULL WHERE lsn = {txn}",
}


@pytest.mark.parametrize("how", EDITS)
def test_a_draft_that_is_not_what_was_written_is_refused_and_named(path: Path, how: str) -> None:
    txn = pending_store(path)
    edit(path, EDITS[how].format(txn=txn))
    with sqlstate.open(path, recover="resume") as store:
        before = store.head()
        for level in ("quick", "full"):
            findings = [each.what for each in store.check(level=level).findings]
            assert any(what.startswith("I14: ") and f"staged transaction {txn}" in what for what in findings), findings
        with pytest.raises(sqlstate.Damaged, match=rf"I14: .*record \d+.* staged transaction {txn}"):
            store.resume(txn)
        with pytest.raises(sqlstate.Damaged, match=f"I14: .*staged transaction {txn}"):
            store.wal.mark_committed(txn)
        assert (store.head(), dict(store["d"])) == (before, {})
        store.wal.append("ROLLBACK", txn=txn)
        assert store.wal.uncommitted() == []


def test_a_draft_that_is_not_what_was_written_is_no_damage_once_it_is_rolled_back(path: Path) -> None:
    txn = pending_store(path)
    edit(path, EDITS["value"].format(txn=txn))
    with sqlstate.open(path) as store:
        assert store.recovery.rolled_back == (txn,)
        assert store.check().outcome == "sound"
    assert plain.judge(path).sound


def test_a_draft_that_was_changed_after_its_commit_is_found_and_its_digests_are_mended(path: Path) -> None:
    txn = pending_store(path)
    with sqlstate.open(path, recover="resume") as store:
        store.resume(txn).commit()
    edit(path, f"UPDATE wal SET chain = zeroblob(32) WHERE lsn = {txn} + 1")
    with sqlstate.open(path) as store:
        assert {each.lsn for each in store.check().findings} == {txn + 1, txn + 2}
    assert sqlstate.repair(path).ok
    with sqlstate.open(path) as store:
        assert store.check().outcome == "sound"


def test_a_draft_that_an_older_version_began_is_resumed_goes_on_and_is_committed(path: Path) -> None:
    txn = pending_store(path)
    edit(path, f"UPDATE wal SET chain = NULL WHERE txn = {txn}")
    with sqlstate.open(path, recover="resume") as store:
        draft = store.resume(txn)
        draft.put("d", "c", 4)
        assert store.check().outcome == "sound"
        assert [record.chain for record in store.wal.uncommitted()[0].records] == [None] * 5
        draft.commit()
        assert dict(store["d"]) == {"a": 300, "b": {"text": "Dear"}, "c": 4}
        assert store.check().outcome == "sound"
    assert plain.judge(path).sound


def test_a_resumed_draft_goes_on_with_its_digests(path: Path) -> None:
    txn = pending_store(path)
    with sqlstate.open(path, recover="resume") as store:
        draft = store.resume(txn)
        store["c"]["later"] = 4
        draft.put("d", "c", 4)
        assert len({record.chain for record in store.wal.uncommitted()[0].records}) == 5
        assert store.check().outcome == "sound"
    with sqlstate.open(path, recover="resume") as store:
        store.resume(txn).commit()
        assert store.check().outcome == "sound"
    assert plain.judge(path).sound


def test_staged_puts_keep_the_wal_short_and_cost_the_same(path: Path) -> None:
    """Its cost is counted in steps of SQLite's virtual machine, not in time."""
    with sqlstate.open(path) as store:
        draft = store.stage()
        steps: list[int] = []
        most = 0
        for i in range(3000):
            draft.put("d", i, "x" * 4000)
            most = max(most, os.stat(f"{path}-wal").st_size)
        assert most <= 32 << 20
        connection = store._writer.engine.write_connection
        for _ in range(2):
            count = [0]

            def step(count: list[int] = count) -> bool:
                count[0] += 1
                return False

            connection._sqlite.set_progress_handler(step, 1)
            draft.put("d", "one", len(steps))
            connection._sqlite.set_progress_handler(None)
            steps.append(count[0])
        assert max(steps) < 1000, steps
        draft.rollback()
