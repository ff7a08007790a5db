"""The marker says in the main file whether SQLite's -wal may hold commits that it lacks; and what is noticed by it.

Method: the main file alone, copied and read by others while the store is open; and a -wal that is taken away, cut,
damaged or exchanged, focused cases of each (tests/crash has the masses).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import sqlstate
from tests.reference import plain
from tests.support.child import Child
from tests.support.failing import FailingVFS
from tests.support.images import folder_image, image
from tests.support.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import OpenStore

WAL_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096
FRAME = FRAME_HEADER + PAGE
COMMITS = 6
BOOT_ID_AT = 40  # in the file that says what was acknowledged


class Alone(NamedTuple):
    """What the main file says by itself."""

    open: bool
    nonce: bytes
    lsn: int
    last_lsn: int
    """The greatest LSN in its log."""
    seq: int


def alone(path: Path) -> Alone:
    """Read the main file without what lies beside it; somebody may have it open."""
    copy = path.with_name("alone.copy")
    with Child("copies", path, copy) as child:
        child.expects("copied")
        child.ends()
    try:
        with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as connection:
            ((marker,),) = connection.execute("SELECT value FROM meta WHERE name = 'marker'")
            ((last, seq),) = connection.execute("SELECT coalesce(max(lsn), 0), coalesce(max(seq), 0) FROM wal")
    finally:
        copy.unlink()
    if not marker:
        return Alone(open=False, nonce=b"", lsn=0, last_lsn=last, seq=seq)
    assert len(marker) == 33
    return Alone(bool(marker[0]), marker[1:17], int.from_bytes(marker[17:25]), last, seq)


def beside(path: Path, suffix: str = "-wal") -> Path:
    return path.with_name(path.name + suffix)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# ---- When it is written ----


def test_a_new_store_has_a_marker_that_was_never_opened(path: Path, open_store: OpenStore) -> None:
    open_store()
    assert alone(path) == Alone(open=False, nonce=b"", lsn=0, last_lsn=0, seq=0)


def test_opening_and_reading_write_nothing_to_the_main_file(path: Path) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
    before = image(path)
    with sqlstate.open(path) as store:
        assert store["c"]["k"] == 1
        assert (store.stats().seq, store.check_audit(), store.pending()) == (1, [], [])
        with store.snapshot() as view:
            assert len(view["c"]) == 1
        with store.transaction() as txn:
            txn.put("c", "k", 1)  # what is there already
        with pytest.raises(RuntimeError), store.transaction() as txn:
            txn.put("c", "k", 2)
            txn.collections()
            raise RuntimeError
        assert not alone(path).open
    assert image(path) == before


FIRST_WRITES: dict[str, Callable[[sqlstate.Store], object]] = {
    "a put": lambda store: store["c"].__setitem__("k", 2),
    "a put that changes the tree": lambda store: store["c"].update({i: i for i in range(100)}),
    "a delete": lambda store: store["c"].pop("k"),
    "a staged transaction": lambda store: store.stage("draft"),
    "an audit entry": lambda store: store._record("check", {}),
    "a resumed transaction": lambda store: store.resume(store.pending()[0].txn),
}


@pytest.mark.parametrize("what", FIRST_WRITES)
def test_the_first_write_opens_it_in_the_main_file_before_it_returns(
    path: Path, open_store: OpenStore, what: str
) -> None:
    with open_store() as store:
        store["c"]["k"] = 1
        store.stage("left")
    rest = alone(path)
    assert (rest.open, rest.lsn) == (False, rest.last_lsn)
    store = open_store(recover="resume")
    assert alone(path) == rest
    FIRST_WRITES[what](store)
    seen = alone(path)
    assert (seen.open, seen.lsn) == (True, rest.last_lsn)
    assert seen.nonce not in (rest.nonce, bytes(16))
    # All that was written by then is in the main file too.
    assert seen.seq == store.head().seq
    assert seen.last_lsn == [record.lsn for record in store.wal.read()][-1]


def test_later_commits_leave_the_main_file_alone(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    first = alone(path)
    store["c"]["k"] = 2
    with store.transaction() as txn:
        txn.put("c", "k", 3)
    assert alone(path) == first


def test_close_puts_it_to_rest_with_the_greatest_lsn(path: Path) -> None:
    nonces = []
    for number in range(3):
        with sqlstate.open(path, recover="resume") as store:
            store["c"]["k"] = number
            txn = store.stage()
            txn.put("c", "k", "staged")
            last = [record.lsn for record in store.wal.read()][-1]
        assert names(path.parent) == ["test.db"]
        seen = alone(path)
        assert (seen.open, seen.lsn, seen.last_lsn, seen.seq) == (False, last, last, number + 1)
        nonces.append(seen.nonce)
    assert len(set(nonces)) == 3, "two sessions had one nonce"


@pytest.mark.slow
def test_a_handle_that_stays_while_another_closes_opens_it_anew(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    with Remote.opened(path) as other:
        store["c"]["k"] = 1
        assert other.ask("put", "c", "k", 2) == 2
        opened = alone(path)
        other.ask("close")
        other.ends()
    rest = alone(path)
    assert (rest.open, rest.lsn, rest.last_lsn, rest.seq) == (False, rest.last_lsn, rest.last_lsn, 2)
    assert store["c"]["k"] == 2
    assert not alone(path).open, "a read opened it"
    store["c"]["k"] = 3
    anew = alone(path)
    assert (anew.open, anew.seq) == (True, 3)
    assert anew.nonce != opened.nonce
    store["c"]["k"] = 4
    assert alone(path) == anew


def test_two_handles_of_one_process_see_each_others_closing(path: Path, open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    one["c"]["k"] = 1
    other["c"]["k"] = 2
    one.close()
    assert not alone(path).open
    other["c"]["k"] = 3
    assert alone(path)[::4] == (True, 3)


def test_a_process_that_was_killed_leaves_it_open_and_the_next_open_renews_it(path: Path) -> None:
    with Remote.opened(path) as other:
        other.ask("put", "c", "k", 1)
        other.kill()
    left = alone(path)
    assert left.open
    with sqlstate.open(path):
        anew = alone(path)
        assert anew.open
        assert anew.nonce != left.nonce
    assert not alone(path).open


def test_a_reader_of_an_older_commit_only_delays_it(path: Path, open_store: OpenStore) -> None:
    with open_store() as store:
        store["c"]["k"] = 0
    store = open_store()
    with store.snapshot() as view:
        store["c"]["k"] = 1
        store["c"]["k"] = 2
        assert not alone(path).open
        assert view["c"]["k"] == 0
    store["c"]["k"] = 3
    seen = alone(path)
    assert (seen.open, seen.seq) == (True, 4)


@pytest.mark.slow
def test_who_finds_it_opened_by_another_whom_a_reader_delayed_carries_it_over(
    path: Path, open_store: OpenStore
) -> None:
    store = open_store()
    store["c"]["k"] = 1
    with Remote.opened(path) as reader, Remote.opened(path) as other:
        with Remote.opened(path) as closes:
            closes.ask("close")
            closes.ends()
        assert not alone(path).open
        reader.ask("hold")
        other.ask("put", "c", "k", 2)
        assert not alone(path).open, "the reader did not delay it"
        reader.ask("let_go")
        other.kill()
        store["c"]["k"] = 3
        seen = alone(path)
        assert (seen.open, seen.seq) == (True, 3)


def test_a_store_that_is_closed_under_a_reader_is_put_to_rest_by_who_closes_last(
    path: Path, open_store: OpenStore
) -> None:
    store = open_store()
    store["c"]["k"] = 1
    with Remote.opened(path) as other:
        other.ask("hold")
        store["c"]["k"] = 2
        store.close()
        assert alone(path).open
        assert other.ask("get", "c", "k") == 2
        other.ask("let_go")
        other.ask("close")
        other.ends()
    seen = alone(path)
    assert (seen.open, seen.seq, names(path.parent)) == (False, 2, ["test.db"])
    assert open_store().recovery.clean


def test_a_rollback_journal_store_has_none(path: Path) -> None:
    with sqlstate.open(path, journal="delete") as store:
        store["c"]["k"] = 1
        store.stage()
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'marker'").fetchall() == [(b"",)]


# ---- Errors on the way ----


@pytest.fixture
def failing() -> Iterator[FailingVFS]:
    vfs = FailingVFS()
    yield vfs
    vfs.unregister()


@pytest.mark.parametrize("how", ["write main", "sync main"])
def test_an_error_while_the_first_commit_is_carried_over_is_told_and_loses_nothing(
    path: Path, open_store: OpenStore, failing: FailingVFS, how: str
) -> None:
    store = sqlstate.open(path, vfs="failing")
    failing.fails = how
    with pytest.raises(sqlstate.StoreIOError, match="commit 1 is durable, but the checkpoint after it failed"):
        store["c"]["k"] = 1
    with pytest.raises(sqlstate.StoreClosed, match="refuses further work"):
        store["c"]["k"] = 2
    store.close()
    again = open_store()
    assert (again["c"]["k"], again.head().seq, again.recovery.clean) == (1, 1, False)


@pytest.mark.parametrize("how", ["write main", "sync main", "write wal", "sync wal"])
def test_close_raises_what_keeps_it_from_making_one_file_and_nothing_is_lost(
    path: Path, open_store: OpenStore, failing: FailingVFS, how: str
) -> None:
    store = sqlstate.open(path, vfs="failing")
    store["c"]["k"] = 1
    store["c"]["k"] = 2
    failing.fails = how
    with pytest.raises(sqlstate.StoreIOError):
        store.close()
    assert failing.fails == ""
    store.close()
    again = open_store()
    assert (again["c"]["k"], again.head().seq) == (2, 2)
    assert again.check_audit() == []


# ---- The -wal is removed while the store is open ----


def test_a_wal_that_is_unlinked_is_noticed_at_the_next_commit_and_nothing_is_lost(
    path: Path, open_store: OpenStore
) -> None:
    store = sqlstate.open(path)
    for number in range(5):
        store["c"][number] = number
    beside(path).unlink()
    with pytest.raises(sqlstate.StoreIOError, match=r"-wal was removed.*commit 6 is in the file itself"):
        store["c"]["after"] = 1
    with pytest.raises(sqlstate.StoreClosed, match="-wal was removed"):
        store["c"]["more"] = 1
    saved = alone(path)
    assert (saved.open, saved.lsn, saved.seq) == (False, saved.last_lsn, 6)
    store.close()
    again = open_store()
    assert dict(again["c"]) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, "after": 1}
    assert (again.head().seq, again.recovery.damage) == (6, "")


def test_a_wal_that_is_unlinked_and_replaced_is_noticed_too(path: Path, open_store: OpenStore) -> None:
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    store["c"]["k"] = 2
    content = beside(path).read_bytes()
    beside(path).unlink()
    beside(path).write_bytes(content)
    with pytest.raises(sqlstate.StoreIOError, match="removed or replaced"):
        store["c"]["k"] = 3
    store.close()
    again = open_store(recover="accept")  # what took its place is older than the file
    assert (again["c"]["k"], again.head().seq) == (3, 3)


def test_a_staged_record_notices_it_as_a_commit_does(path: Path, open_store: OpenStore) -> None:
    store = sqlstate.open(path)
    txn = store.stage()
    beside(path).unlink()
    with pytest.raises(sqlstate.StoreIOError, match=r"-wal was removed.*this write is in the file itself"):
        txn.put("c", "k", 1)
    store.close()
    again = open_store(recover="resume")
    assert [len(each.records) for each in again.pending()] == [2]


def test_a_wal_that_is_unlinked_before_close_costs_nothing(path: Path, open_store: OpenStore) -> None:
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    store["c"]["k"] = 2
    beside(path).unlink()
    store.close()
    assert names(path.parent) == ["test.db"]
    again = open_store()
    assert (again["c"]["k"], again.recovery.clean) == (2, True)


def test_nobody_else_opens_a_store_whose_wal_was_unlinked_under_its_users(path: Path) -> None:
    """He would make a new -wal, and neither would see what the other commits."""
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    beside(path).unlink()
    for read_only in (False, True):
        with Remote(path, read_only=read_only, timeout=0) as other:
            other.tell()
            assert other.outcome() == "JournalDamaged"
            other.ends()
    assert not beside(path).exists()
    store.close()
    with sqlstate.open(path) as again:
        assert (again["c"]["k"], again.recovery.clean) == (1, True)


def test_a_commit_that_cannot_be_saved_from_an_unlinked_wal_is_in_doubt(path: Path) -> None:
    """A reader of an older commit keeps it from the main file, and then it is nowhere else."""
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    store["c"]["k"] = 2
    with store.snapshot():
        store["c"]["k"] = 3
        beside(path).unlink()
        with pytest.raises(sqlstate.CommitOutcomeUnknown, match="-wal was removed") as caught:
            store["c"]["k"] = 4
    assert caught.value.seq == 4
    store.close()
    with sqlstate.open(path) as again:  # what was acknowledged is in the file
        assert again.recovery.journal.kind == "folded"
        assert again.head().seq in (3, 4)
        assert again["c"]["k"] == again.head().seq
        assert again.committed(caught.value) is (again.head().seq == 4)
    assert plain.judge(path).findings == ()


# ---- A -wal that is missing, cut, damaged, or another's ----


def crash(path: Path, commits: int = COMMITS, start: int = 1) -> None:
    """Leave a store whose process was killed: the last commits are in its -wal alone."""
    with Remote.opened(path) as other:
        for number in range(start, start + commits):
            other.ask("put", "c", "k", f"value-{number}")
        other.kill()


def _removed(path: Path) -> None:
    crash(path)
    beside(path).unlink()
    beside(path, "-shm").unlink()


def _emptied(path: Path) -> None:
    crash(path)
    os.truncate(beside(path), 0)


def _copied_without(path: Path) -> None:
    """From a store in use, as a careless backup does."""
    (path.parent / "live").mkdir()
    with Remote.opened(path.parent / "live" / path.name) as other:
        for number in range(COMMITS):
            other.ask("put", "c", "k", f"value-{number}")
        shutil.copy(path.parent / "live" / path.name, path)
        other.kill()
    shutil.rmtree(path.parent / "live")


def _folded_by_another(path: Path) -> None:
    """Nothing is lost here, and nobody can tell: the machine was started again since then."""
    crash(path)
    with beside(path, "-acknowledged").open("r+b") as notes:
        notes.seek(BOOT_ID_AT)
        notes.write(bytes(range(16)))
    with Child("runs", path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode") as child:
        child.says()
        child.says()
        child.ends()
    assert not beside(path).exists()


def _cut(path: Path, size: int) -> None:
    crash(path)
    os.truncate(beside(path), size)


def _foreign(path: Path) -> None:
    """The -wal of another store that had the same name."""
    crash(path)
    (path.parent / "other").mkdir()
    crash(path.parent / "other" / path.name, commits=3)
    shutil.copy(path.parent / "other" / beside(path).name, beside(path))
    shutil.rmtree(path.parent / "other")
    beside(path, "-shm").unlink()


def _foreign_beside_closed(path: Path) -> None:
    _foreign(path)
    wal = beside(path).read_bytes()
    path.unlink()
    beside(path).unlink()
    with sqlstate.open(path) as store:
        store["c"]["k"] = "value-1"
    beside(path).write_bytes(wal)


def _stale_wal(path: Path) -> None:
    """An old -wal beside a newer file."""
    crash(path)
    wal = beside(path).read_bytes()
    with sqlstate.open(path) as store:
        store["c"]["k"] = "value-7"
    beside(path).write_bytes(wal)


def _stale_file(path: Path) -> None:
    """A backup of the file, restored beside the -wal of later commits."""
    with sqlstate.open(path) as store:
        store["c"]["k"] = "value-1"
    copy = path.read_bytes()
    with sqlstate.open(path) as store:
        store["c"].update({f"k{i}": i for i in range(50)})
    crash(path, commits=3, start=3)
    path.write_bytes(copy)
    beside(path, "-shm").unlink()


def _flipped(path: Path, offset: int) -> None:
    crash(path)
    wal = bytearray(beside(path).read_bytes())
    wal[offset] ^= 1
    beside(path).write_bytes(wal)


class Damage(NamedTuple):
    """What was done to a -wal, and what must be said and saved."""

    make: Callable[[Path], None]
    kind: str
    """If the -wal has no page of the table meta, another store's cannot be told from an old one."""
    says: str
    seq: range
    """Which commits may be the newest after recover="accept"."""
    kept: bool = True
    """There is a -wal to put aside."""


FIRST = WAL_HEADER + FRAME_HEADER + 1000
BY_INDEX = WAL_HEADER + 9 * FRAME  # behind the third of the commits in the -wal
DAMAGES = {
    "removed": Damage(_removed, "missing", "there is no -wal", range(1, 2), kept=False),
    "emptied": Damage(_emptied, "missing", "there is no -wal", range(1, 2), kept=False),
    "copied without it": Damage(_copied_without, "copy", "is a copy", range(1, 2), kept=False),
    "folded by another program, before a reboot": Damage(
        _folded_by_another, "missing", "If another program moved it into the file", range(6, 7), kept=False
    ),
    "cut behind a frame": Damage(lambda path: _cut(path, BY_INDEX), "truncated", "frames", range(2, 5)),
    "cut in a frame": Damage(lambda path: _cut(path, BY_INDEX + 2000), "truncated", "frames", range(2, 5)),
    "cut behind the header": Damage(lambda path: _cut(path, WAL_HEADER), "truncated", "", range(1, 2)),
    "cut in the header": Damage(lambda path: _cut(path, 20), "truncated", "", range(1, 2)),
    "another store's": Damage(_foreign, "foreign or stale", "its -wal", range(1, 2)),
    "another store's, the file closed": Damage(_foreign_beside_closed, "foreign or stale", "its -wal", range(1, 2)),
    "older than the file": Damage(_stale_wal, "stale", "older", range(7, 8)),
    "younger than the file": Damage(_stale_file, "stale", "-wal", range(1, 2)),
    "a bit in the first frame": Damage(lambda path: _flipped(path, FIRST), "rot", "damaged", range(1, 2)),
    "a bit in the fifth frame": Damage(lambda path: _flipped(path, FIRST + 4 * FRAME), "rot", "damaged", range(2, 4)),
    "a bit in a frame's salt": Damage(lambda path: _flipped(path, WAL_HEADER + 4 * FRAME + 9), "rot", "", range(2, 4)),
    "a bit in a frame's checksum": Damage(
        lambda path: _flipped(path, WAL_HEADER + 4 * FRAME + 17), "rot", "", range(2, 4)
    ),
    "a bit in the header": Damage(lambda path: _flipped(path, 13), "header", "header", range(1, 2)),
}


def check_refused(path: Path, damage: Damage, before: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(sqlstate.JournalDamaged) as caught:
        sqlstate.open(path, **options)
    error = caught.value
    assert isinstance(error, sqlstate.Damaged)
    assert error.report.damage in damage.kind, str(error)
    assert (error.report.clean, error.report.shared, error.report.entry) == (False, False, None)
    assert damage.says in str(error)
    assert str(path) in str(error)
    assert "othing was changed" in str(error)
    assert ("--accept-copy" if damage.kind == "copy" else 'recover="accept"') in str(error)
    after = folder_image(path.parent)
    assert {name: after[name] for name in before} == before
    assert {str(path.parent / name) for name in after if name not in before} <= set(error.evidence)
    assert error.evidence == error.report.evidence
    for each in error.evidence:
        assert each in str(error)
    return error.evidence


@pytest.mark.parametrize("what", DAMAGES)
def test_a_wal_that_is_not_what_it_must_be_is_neither_merged_nor_skipped(path: Path, what: str) -> None:
    damage = DAMAGES[what]
    damage.make(path)
    before = folder_image(path.parent)
    for options in ({"recover": "refuse"}, {"read_only": True}):
        assert check_refused(path, damage, before, **options) == ()
        assert folder_image(path.parent) == before
    for options in ({}, {"recover": "resume"}, {}):
        evidence = check_refused(path, damage, before, **options)
        assert len(evidence) == damage.kept
        for each in evidence:
            assert Path(each).read_bytes() == before["test.db-wal"].content
    # One copy, however often it was tried.
    assert len(folder_image(path.parent)) == len(before) + damage.kept


@pytest.mark.parametrize("what", DAMAGES)
def test_accept_goes_on_with_what_can_be_proven_and_says_so_in_the_audit_trail(path: Path, what: str) -> None:
    damage = DAMAGES[what]
    damage.make(path)
    before = folder_image(path.parent)
    with sqlstate.open(path, recover="accept") as store:
        report = store.recovery
        assert report.damage
        assert report.damage in damage.kind
        assert (report.clean, report.due) == (False, False)
        assert store.head().seq in damage.seq
        assert store["c"]["k"] == f"value-{store.head().seq}" or what == "copied without it"
        assert report.after == store.head()
        assert report.checked != "nothing to check"
        entry = list(store.audit())[-1]
        assert (entry.number, entry.kind) == (report.entry, "recovery")
        assert (entry.detail["damage"], entry.detail["how"]) == (report.damage, "accept")
        assert entry.detail["evidence"] == [Path(each).name for each in report.evidence]
        assert store.check_audit() == []
        store["c"]["after"] = 1
    evidence = report.evidence
    assert len(evidence) == damage.kept
    for each in evidence:
        assert Path(each).read_bytes() == before["test.db-wal"].content
    assert names(path.parent) == sorted(["test.db", *(Path(each).name for each in evidence)])
    assert plain.judge(path).findings == ()
    with sqlstate.open(path) as store:
        assert (store.recovery.clean, store.recovery.damage, store.recovery.entry) == (True, "", None)
        assert store["c"]["after"] == 1


# ---- Whose -wal it is comes before what became of it ----


def _foreign_and_rotten(path: Path, bit: int, *, closed: bool) -> dict[str, bytes]:
    """Leave a store with the -wal of another, the same pages in it, that has a flipped bit; return what was ours."""
    (path.parent / "other").mkdir()
    with Remote.opened(path.parent / "other" / path.name) as other:
        for number in range(40):  # the first checkpoint is behind it, and the -wal begins anew with later ones
            other.ask("put", "c", "k", f"theirs-{number}")
        other.kill()
    wal = bytearray(beside(path.parent / "other" / path.name).read_bytes())
    shutil.rmtree(path.parent / "other")
    if closed:
        with sqlstate.open(path) as store:
            store["c"].update({"k": "value-1", "j": "ours"})
    else:
        crash(path)
        beside(path, "-shm").unlink()
        beside(path, "-acknowledged").unlink()
    wal[bit if bit >= 0 else len(wal) + bit] ^= 1
    beside(path).write_bytes(wal)
    return {"main": path.read_bytes(), "wal": bytes(wal)}


@pytest.mark.parametrize("closed", [True, False], ids=["at rest", "open"])
@pytest.mark.parametrize(
    "bit",
    [13, FIRST, FIRST + 20 * FRAME, FIRST + 60 * FRAME, -(2 * FRAME)],
    ids=["in the header", "in the first frame", "in the middle", "further on", "near the end"],
)
def test_nothing_of_another_store_s_wal_is_taken_because_it_is_rotten_too(path: Path, bit: int, closed: bool) -> None:
    left = _foreign_and_rotten(path, bit, closed=closed)
    with pytest.raises(sqlstate.JournalDamaged) as caught:
        sqlstate.open(path)
    seen = bit not in (13, FIRST)  # a commit of it can be read
    assert caught.value.report.damage in (("foreign", "stale") if seen else ("rot", "header"))
    assert path.read_bytes() == left["main"]
    with sqlstate.open(path, recover="accept") as store:
        assert store["c"]["k"] == "value-1"
        assert store.head().seq == 1
        assert [Path(each).read_bytes() for each in store.recovery.evidence] == [left["wal"]]
        store["c"]["after"] = 1
    assert plain.judge(path).findings == ()
    with sqlstate.open(path) as store:
        assert store.recovery.clean


def test_of_its_own_rotten_wal_accept_takes_what_comes_before(path: Path) -> None:
    _flipped(path, FIRST + 9 * FRAME)
    with sqlstate.open(path, recover="accept") as store:
        assert (store.recovery.damage, store.recovery.journal.agrees) == ("rot", True)
        assert 1 < store.head().seq < COMMITS
        assert store["c"]["k"] == f"value-{store.head().seq}"


def test_a_rotten_wal_of_a_commit_that_nobody_was_told_of_leaves_a_file_at_rest_whole(path: Path) -> None:
    with sqlstate.open(path) as store:
        store["c"].update({"k": "value-1", "j": 1})
    main = path.read_bytes()
    crash(path, commits=3, start=2)
    wal = bytearray(beside(path).read_bytes())
    path.write_bytes(main)  # as if the first of them had not been carried over yet
    for suffix in ("-shm", "-acknowledged"):
        beside(path, suffix).unlink()
    wal[FIRST] ^= 1
    beside(path).write_bytes(wal)
    with sqlstate.open(path, recover="accept") as store:
        assert (store["c"]["k"], store.head().seq) == ("value-1", 1)
        assert [Path(each).read_bytes() for each in store.recovery.evidence] == [bytes(wal)]


def test_a_wal_that_is_put_back_heals_it(path: Path, open_store: OpenStore) -> None:
    crash(path)
    content = beside(path).read_bytes()
    beside(path).unlink()
    with pytest.raises(sqlstate.JournalDamaged):
        sqlstate.open(path)
    beside(path).write_bytes(content)
    store = open_store()
    assert (store["c"]["k"], store.recovery.damage, store.head().seq) == (f"value-{COMMITS}", "", COMMITS)


def test_a_store_that_was_closed_can_be_copied_as_it_is(path: Path, open_store: OpenStore) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    store = open_store(copy)
    assert (store.recovery.clean, store["c"]["k"]) == (True, 1)


def test_what_cannot_be_proven_is_not_accepted(path: Path) -> None:
    """The -wal is missing, and an entry in the file is not the one that its root is of."""
    _removed(path)
    content = path.read_bytes()
    # In the table of entries; the log has the same text.
    wrong = content.replace(b'"value-1"', b'"value-9"')
    assert wrong != content
    path.write_bytes(wrong)
    before = folder_image(path.parent)
    for _ in range(2):
        with pytest.raises(sqlstate.JournalDamaged, match=r"cannot be proven.*Nothing was changed. Restore a backup"):
            sqlstate.open(path, recover="accept")
        assert folder_image(path.parent) == before


def test_accepting_a_sound_store_is_the_same_as_opening_it(path: Path) -> None:
    crash(path)
    with sqlstate.open(path, recover="accept") as store:
        report = store.recovery
        assert (report.damage, report.evidence, report.after.seq if report.after else 0) == ("", (), COMMITS)
        assert list(store.audit())[-1].detail["how"] == "accept"
    assert names(path.parent) == ["test.db"]


# ---- Rollback journals ----


def hot_journal(path: Path) -> None:
    with Remote.opened(path, journal="delete") as other:
        for key in range(20):
            other.ask("put", "c", key, "y" * 3000)
        other.ask("spill", "c", 20)
        other.kill()
    assert beside(path, "-journal").stat().st_size > 0


def test_a_rollback_journal_with_rot_is_not_played_back(path: Path) -> None:
    hot_journal(path)
    content = bytearray(beside(path, "-journal").read_bytes())
    content[512 + 4 + PAGE - 200] ^= 1  # a byte that the first record's checksum has
    beside(path, "-journal").write_bytes(content)
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.JournalDamaged, match="-journal") as caught:
        sqlstate.open(path)
    assert (caught.value.report.damage, caught.value.report.journal.rot) == ("rot", True)
    (evidence,) = caught.value.evidence
    assert Path(evidence).read_bytes() == bytes(content)
    after = folder_image(path.parent)
    assert {name: after[name] for name in before} == before
    with pytest.raises(sqlstate.JournalDamaged, match="cannot be proven"):
        sqlstate.open(path, recover="accept")


def test_the_rollback_journal_of_another_store_is_not_played_back(path: Path) -> None:
    (path.parent / "other").mkdir()
    hot_journal(path.parent / "other" / path.name)
    journal = (path.parent / "other" / beside(path, "-journal").name).read_bytes()
    shutil.rmtree(path.parent / "other")
    with sqlstate.open(path, journal="delete") as store:
        store["c"].update(dict.fromkeys(range(30), "z" * 3000))
    beside(path, "-journal").write_bytes(journal)
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.JournalDamaged) as caught:
        sqlstate.open(path)
    assert caught.value.report.damage == "foreign"
    after = folder_image(path.parent)
    assert {name: after[name] for name in before} == before
    with sqlstate.open(path, recover="accept") as store:
        assert store["c"][29] == "z" * 3000
        assert not beside(path, "-journal").exists()
    assert plain.judge(path).findings == ()
