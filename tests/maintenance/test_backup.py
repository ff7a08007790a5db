"""A backup is exactly the commit that it says, and what was there before a backup or a restore is there until
a whole one takes its place.

Method: every copy is judged by tests/reference/plain.py. Writers commit between any two steps of a copy, and a
process is killed at each step and before each call that changes a name, with what is then there looked at.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate.errors import (
    Busy,
    CannotOpen,
    Damaged,
    InvalidOption,
    ReadOnly,
    RestoreRejected,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreIOError,
    StoreMissing,
)
from sqlstate.files import replace as files
from sqlstate.format import merkle
from sqlstate.format.names import name_bytes
from sqlstate.maintenance import closed_file
from sqlstate.maintenance.backup import backup, verify_copy
from sqlstate.maintenance.backup.restore import restore
from sqlstate.sqlite import copying
from sqlstate.sqlite.connection import Connection, OutcomeUnknown
from sqlstate.sqlite.raw_file import set_journaling
from sqlstate.tables import migrations
from tests.files.test_replace import caller, failing, is_folder, names, without_privileges
from tests.reference import plain
from tests.support.child import Child
from tests.support.failing import FailingVFS
from tests.support.images import folder_image, image, leaf_of_state
from tests.support.system import KILLED, WINDOWS, has_mode, mkfifo, needs_fork, symlink
from tests.test_format import entries_of, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate import Store
    from sqlstate.maintenance.backup.backup import BackupReport
    from tests.conftest import OpenStore

Journal = Literal["wal", "delete"]
JOURNALS: tuple[Journal, ...] = ("wal", "delete")


def copy(store: Store, dest: Path | str, **options: Any) -> BackupReport:
    return backup.copy(store._engine, store._meta, dest, **options)


def fill(store: Store, entries: int = 500) -> None:
    store["c"].update(dict.fromkeys(range(entries), "x" * 100))
    store["d"].update({"text": [1], b"bytes": b"\0"})


def made(path: Path, journal: Journal = "wal", entries: int = 500) -> Path:
    """A closed store."""
    with sqlstate.open(path, journal=journal) as store:
        fill(store, entries)
    return path


def judged(path: Path) -> plain.Judgement:
    judgement = plain.judge(path)
    assert judgement.findings == ()
    return judgement


def agrees(path: Path, report: BackupReport) -> None:
    """The file is sound, alone, complete by itself, and exactly what the report says."""
    assert [name for name in names(path.parent) if name.startswith(path.name + "-")] == []
    judgement = judged(path)
    assert (judgement.seq, judgement.root, judgement.count, judgement.chain) == (
        report.head.seq,
        report.head.root,
        report.head.count,
        report.head.chain,
    )
    assert (report.path, report.bytes) == (path.resolve(), path.stat().st_size)


FREE_PAGES = 300


def leave_free_pages(store: Store) -> None:
    """Let another program's table come and go."""
    connection = store._engine.write_connection
    connection.run("CREATE TABLE theirs (content)")
    connection.run_many("INSERT INTO theirs VALUES (?)", [(bytes(4000),)] * FREE_PAGES)
    connection.run("DROP TABLE theirs")
    store["c"]["freed"] = FREE_PAGES
    if store._engine.journal == "wal":
        store._engine.checkpointer.run()


def never(done: int, total: int) -> None:
    """A progress that must not be made: what is refused is refused before the work."""
    pytest.fail(f"{done} of {total}")


def seqs(folder: Path, name: str = "b") -> dict[str, int]:
    """The backups in a folder, and the commit that each holds."""
    return {found: judged(folder / found).seq for found in names(folder) if found.startswith(name)}


def edit(path: Path, sql: str) -> None:
    """Change a closed store's file from outside, in its own journal mode."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(sql)


# ---- The root, entry by entry ----


def built(levels: list[list[plain.Node]]) -> tuple[bytes, int]:
    builder = merkle.RootBuilder()
    for node in levels[0]:
        builder.add(node.digest, node.rank)
    return builder.finish()


@pytest.mark.parametrize("case", load("tree")["cases"], ids=lambda case: case["name"])
def test_the_root_built_in_order_is_that_of_the_vectors(case: dict[str, Any]) -> None:
    builder = merkle.RootBuilder()
    for name, value in sorted(entries_of(case).items()):
        raw = name_bytes(name)
        builder.add(merkle.leaf(raw, value), merkle.rank(raw))
    assert builder.finish() == (bytes.fromhex(case["root"]), case["count"])


ranks = st.one_of(st.integers(0, 15), st.just(0), st.sampled_from([0, 0, 1]), st.just(15))


@given(st.lists(ranks, max_size=60))
@settings(max_examples=400, deadline=None)
def test_the_root_built_in_order_is_that_of_the_definition_whatever_the_ranks(drawn: list[int]) -> None:
    leaves = [
        plain.Node(0, ("c", number), rank, 1, sha256(bytes([number, rank])).digest())
        for number, rank in enumerate(drawn)
    ]
    levels = plain.levels_over(leaves)
    assert built(levels) == (plain.root_of(levels), len(drawn))


def test_building_keeps_one_run_a_level() -> None:
    builder = merkle.RootBuilder()
    for number in range(20_000):
        name = plain.name_bytes("c", number)
        builder.add(sha256(name).digest(), merkle.rank(name))
    assert len(builder._runs) == 16
    assert all(digest is None or digest.block_size == 64 for digest, _, _ in builder._runs)


# ---- A copy ----


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_backup_is_the_newest_commit_as_one_file(open_store: OpenStore, tmp_path: Path, journal: str) -> None:
    store = open_store(journal=journal)
    fill(store)
    (tmp_path / "b").mkdir()
    dest = tmp_path / "b" / "b"
    report = copy(store, dest)
    assert report.head == store.head()
    assert (report.rotated, report.removed) == ((), ())
    assert names(dest.parent) == ["b"]
    assert has_mode(dest, 0o600)
    assert dest.read_bytes()[18:20] == (b"\2\2" if journal == "wal" else b"\1\1")
    agrees(dest, report)
    before = folder_image(dest.parent)
    with sqlstate.open(dest) as again:
        assert again.head() == report.head
        assert again.store_id == store.store_id
        assert again.stats().journal == journal
        assert again["d"] == {"text": [1], b"bytes": b"\0"}
        assert again.recovery.clean
        assert again.recovery.damage == ""
    assert folder_image(dest.parent) == before  # it was closed cleanly, as far as the file is concerned
    with sqlstate.open(dest) as again:
        again["c"]["more"] = 1
    assert judged(dest).seq == report.head.seq + 1


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("keep", [0, 2])
def test_a_backup_carries_no_free_pages(open_store: OpenStore, tmp_path: Path, journal: str, keep: int) -> None:
    store = open_store(journal=journal)
    fill(store)
    store["gone"].update(dict.fromkeys(range(500), "y" * 1000))
    plain_copy = copy(store, tmp_path / "before")
    leave_free_pages(store)
    used, size = store.sizes(), store.path.stat().st_size
    told: list[tuple[int, int]] = []
    report = store.backup(tmp_path / "b", keep=keep, progress=lambda *step: told.append(step))
    agrees(tmp_path / "b", report)
    assert report.bytes <= sum(used) - used.free
    assert plain_copy.bytes <= size - FREE_PAGES * 4096
    assert told[-1][0] == told[-1][1]
    assert sorted(told) == told
    assert store.sizes().free == used.free
    with sqlstate.open(tmp_path / "b", read_only=True) as found:
        assert found.sizes().free == 0
        assert found.stats().journal == journal
        assert found.head() == store.head()
        assert dict(found["c"]) == dict(store["c"])
        assert found.check().findings == ()
    assert [name for name in names(tmp_path) if not name.startswith("test.db")] == ["b", "before"]


def test_free_pages_stay_in_a_backup_that_there_is_no_room_to_write_twice(store: Store, tmp_path: Path) -> None:
    fill(store, 3000)
    leave_free_pages(store)
    content = sum(store.sizes()) - store.sizes().free
    room = sum(store.sizes()) + content // 2
    with small_disk(tmp_path / "disk", f"{room >> 10}k") as disk:
        report = store.backup(disk / "b")
        agrees(disk / "b", report)
        assert names(disk) == ["b"]
    assert report.bytes > content + FREE_PAGES * 4096 - 100_000
    packed = store.backup(tmp_path / "b")
    assert packed.bytes <= content


@pytest.mark.parametrize("journal", JOURNALS)
def test_an_empty_store_has_a_backup_too(open_store: OpenStore, tmp_path: Path, journal: str) -> None:
    store = open_store(journal=journal)
    report = copy(store, tmp_path / "b")
    assert report.head == store.head()
    agrees(tmp_path / "b", report)
    agrees(tmp_path / "r", restore(tmp_path / "b", tmp_path / "r"))


def test_a_backup_can_be_taken_through_another_vfs_and_from_a_store_opened_for_reading(tmp_path: Path) -> None:
    made(tmp_path / "test.db")
    with sqlstate.open(tmp_path / "test.db", read_only=True) as store:
        agrees(tmp_path / "one", copy(store, tmp_path / "one"))
    with sqlstate.open(tmp_path / "test.db", vfs="win32-none" if WINDOWS else "unix-excl") as store:
        agrees(tmp_path / "two", copy(store, tmp_path / "two"))
    agrees(
        tmp_path / "three",
        restore(tmp_path / "two", tmp_path / "three", vfs="win32-longpath" if WINDOWS else "unix-dotfile"),
    )
    with pytest.raises(InvalidOption, match="none such"):
        restore(tmp_path / "two", tmp_path / "four", vfs="none such")


def test_a_staged_transaction_is_in_the_backup_as_far_as_it_was_recorded(store: Store, tmp_path: Path) -> None:
    fill(store, 10)
    with store.transaction() as txn:
        txn["e"]["k"] = 1
    begun = store.wal.append("BEGIN")
    store.wal.append("PUT", txn=begun.txn, collection="s", key=1, value=2)
    agrees(tmp_path / "b", copy(store, tmp_path / "b"))
    store.wal.mark_committed(begun.txn)
    agrees(tmp_path / "b", copy(store, tmp_path / "b"))
    agrees(tmp_path / "r", restore(tmp_path / "b", tmp_path / "r"))


def test_commits_between_any_two_steps_of_a_copy_are_not_in_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_file, "PAGES_AT_ONCE", 3)
    fill(store, 3000)
    before = store.head()
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        with store.transaction() as txn:
            txn["c"][len(seen)] = "changed"
            txn["new"][len(seen)] = "y" * 500
            del txn["c"][2000 + len(seen)]

    report = copy(store, tmp_path / "b", progress=progress)
    assert report.head == before
    agrees(tmp_path / "b", report)
    assert len(seen) > 50
    assert seen == sorted(seen)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1] > 300
    assert store.head().seq == before.seq + len(seen)


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.slow
def test_backups_beside_writers_in_other_processes_are_commits(tmp_path: Path, journal: Journal) -> None:
    with sqlstate.open(tmp_path / "test.db", journal=journal, timeout=60) as store:
        with store.transaction() as txn:
            txn["left"].update(dict.fromkeys(range(10), 100))
            txn["right"].update(dict.fromkeys(range(7), 0))
        reports = []
        with Child("moves", store.path) as one, Child("moves", store.path) as two:
            while store.head().seq < 20:
                pass
            for number in range(6):
                report = copy(store, tmp_path / f"b{number}")
                reports.append(report)
                while store.head().seq == report.head.seq:  # until somebody has committed again
                    pass
            for child in (one, two):
                child.tell("stop")
                child.says()
                child.ends()
        commits = {head.seq: head for head in store.commits()}
    for number, report in enumerate(reports):
        agrees(tmp_path / f"b{number}", report)
        assert commits[report.head.seq] == report.head
        with sqlstate.open(tmp_path / f"b{number}", read_only=True) as view:
            assert sum([*view["left"].values(), *view["right"].values()]) == 1000
    assert len({report.head.seq for report in reports}) == 6
    judged(tmp_path / "test.db")


def test_an_interrupted_copy_leaves_what_was_there(store: Store, tmp_path: Path) -> None:
    fill(store)
    first = copy(store, tmp_path / "b")
    store["c"][0] = 1

    def interrupt(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(store, tmp_path / "b", keep=3, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        copy(store, tmp_path / "new", progress=interrupt)
    assert [name for name in names(tmp_path) if not name.startswith("test.db")] == ["b"]
    agrees(tmp_path / "b", first)
    store["c"][0] = 2  # and nothing of the store is locked


def test_a_store_that_is_closed_meanwhile_ends_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_file, "PAGES_AT_ONCE", 3)
    store = sqlstate.open(tmp_path / "test.db")
    fill(store)
    with pytest.raises(StoreClosed):
        copy(store, tmp_path / "b", progress=lambda *_: store.close())
    assert names(tmp_path) == ["test.db"]
    judged(tmp_path / "test.db")


@needs_fork
@pytest.mark.parametrize("what", ["a backup", "a restore"])
@pytest.mark.parametrize("then", ["goes on", "raises"])
@pytest.mark.slow
def test_the_child_of_a_fork_is_refused_and_its_parents_file_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, then: str
) -> None:
    monkeypatch.setattr(closed_file, "PAGES_AT_ONCE", 20)
    made(tmp_path / "test.db", entries=12_000)  # more than SQLite keeps in memory before it writes
    parent = os.getpid()
    forked: list[int] = []
    steps: list[int] = []

    def progress(done: int, total: int) -> None:
        steps.append(done)
        if os.getpid() == parent and (len(steps) % 10 == 1 or done > total - 1500):
            pid = os.fork()
            if pid:
                forked.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            elif then == "raises":
                raise KeyboardInterrupt
            # and the child goes on, as if nothing had happened

    try:
        if what == "a backup":
            with sqlstate.open(tmp_path / "test.db") as store:
                copy(store, tmp_path / "b", keep=2)
                store["c"]["more"] = 1
                report = copy(store, tmp_path / "b", keep=2, progress=progress)
        else:
            report = restore(tmp_path / "test.db", tmp_path / "b", progress=progress)
    except BaseException as e:  # whatever it is, the child ends here
        if os.getpid() != parent:
            os._exit(17 if isinstance(e, StoreError | KeyboardInterrupt) else 18)
        raise
    if os.getpid() != parent:
        os._exit(19)
    assert set(forked) == {17}
    assert len(forked) > 5
    agrees(tmp_path / "b", report)
    assert names(tmp_path) == (["b", "b.1", "test.db"] if what == "a backup" else ["b", "test.db"])
    if what == "a backup":
        assert seqs(tmp_path) == {"b": 3, "b.1": 2}


def damage(path: Path, table: str) -> None:
    """Turn a bit in a page of a closed store where SQLite's own structure does not see it."""
    with closing(sqlite3.connect(path)) as db:
        page_size = db.execute("PRAGMA page_size").fetchone()[0]
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    raw = bytearray(path.read_bytes())
    raw[root * page_size - 1] ^= 1
    path.write_bytes(raw)


WRONG = {
    "a value": "UPDATE state SET value = '\"y\"' WHERE key = 7",
    "a kind of value": "UPDATE state SET value = CAST(value AS BLOB) WHERE key = 7",
    "a value that is none": "UPDATE state SET value = 7 WHERE key = 7",
    "a key that is none": "UPDATE state SET key = 7.5 WHERE key = 7",
    "a collection that is none": "UPDATE state SET collection = x'63' WHERE key = 7",
    "an entry too few": "DELETE FROM state WHERE key = 7",
    "an entry too many": "INSERT INTO state VALUES ('c', 'k', '1')",
    "a note": "UPDATE wal SET note = 'other' WHERE lsn = (SELECT max(lsn) FROM wal WHERE kind = 'BEGIN')",
    "a value in the log": "UPDATE wal SET value = '2' WHERE lsn = (SELECT max(lsn) FROM wal WHERE kind = 'PUT')",
    "a value in the log that is none": "UPDATE wal SET value = NULL WHERE kind = 'PUT'",
    "a kind of record": "UPDATE wal SET kind = 'PUSH' WHERE lsn = (SELECT max(lsn) FROM wal) - 1",
    "the chain": "UPDATE wal SET chain = zeroblob(32) WHERE lsn = (SELECT max(lsn) FROM wal)",
    "the root": "UPDATE wal SET root = 'root' WHERE lsn = (SELECT max(lsn) FROM wal)",
    "the number": "UPDATE wal SET seq = seq + 1 WHERE lsn = (SELECT max(lsn) FROM wal)",
    "a count that is none": "UPDATE wal SET count = NULL WHERE lsn = (SELECT max(lsn) FROM wal)",
    "the count": "UPDATE wal SET count = -1 WHERE lsn = (SELECT max(lsn) FROM wal)",
    "the time": "UPDATE wal SET at = 7 WHERE lsn = (SELECT max(lsn) FROM wal)",
    "the newest commit": "DELETE FROM wal WHERE seq = 2",
    "all commits": "DELETE FROM wal",
    "the store id": "UPDATE meta SET value = zeroblob(16) WHERE name = 'store_id'",
    "a table": "DROP TABLE staged",
    "an index": "DROP INDEX merkle_name",
    # What a look at the newest commit and the root of the entries does not find.
    "an older value in the log": "UPDATE wal SET value = '\"z\"' WHERE lsn = 3",
    "a node": "UPDATE merkle SET children = zeroblob(length(children)) WHERE level = 1",
    "nodes": "DELETE FROM merkle WHERE level = 1",
    "the beginning of a draft": "DELETE FROM wal WHERE kind = 'BEGIN' AND txn IN (SELECT txn FROM staged)",
    "a draft": "DELETE FROM staged",
    "an audit entry": "DROP TRIGGER audit_no_delete; DELETE FROM audit WHERE number = 1",
    "a view": "DROP VIEW entries",
}


@pytest.mark.parametrize("sql", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("journal", ["wal", pytest.param("delete", marks=pytest.mark.slow)])
def test_a_store_that_is_damaged_is_neither_backed_up_nor_restored(tmp_path: Path, journal: Journal, sql: str) -> None:
    path = made(tmp_path / "test.db", journal)
    with sqlstate.open(path) as store:
        if "staged" in sql:
            begun = store.wal.append("BEGIN")
            store.wal.append("PUT", txn=begun.txn, collection="s", key=1, value=2)
        good = copy(store, tmp_path / "b")
    edit(path, sql)
    before = image(path)
    with pytest.raises(RestoreRejected) as caught:
        restore(path, tmp_path / "b", replace=True)
    assert str(path) in str(caught.value)
    assert "Nothing was written; restore another backup" in caught.value.reason
    assert caught.value.source == str(path)
    assert image(path) == before
    with pytest.raises(RestoreRejected):
        restore(path, tmp_path / "r")
    with suppress(StoreError), sqlstate.open(path, recover="resume") as store:
        with pytest.raises(Damaged, match=r"No backup was made.*store\.salvage"):
            copy(store, tmp_path / "b", keep=2)
        salvaged = store.salvage(tmp_path / "b")
        assert store.salvage(tmp_path / "b") == salvaged
        assert re.fullmatch(r"b\.salvage-[0-9a-f]{16}", salvaged.name)
        with pytest.raises(RestoreRejected):
            restore(salvaged, tmp_path / "b", replace=True)
        salvaged.unlink()
    agrees(tmp_path / "b", good)
    assert names(tmp_path) == ["b", "test.db"]


@pytest.mark.parametrize("sql", WRONG.values(), ids=WRONG)
@pytest.mark.slow
def test_damage_is_not_left_behind_with_the_free_pages(tmp_path: Path, sql: str) -> None:
    """A copy without them is written row by row; it must not look sound because of that."""
    path = made(tmp_path / "test.db")
    with sqlstate.open(path) as store:
        if "staged" in sql:
            begun = store.wal.append("BEGIN")
            store.wal.append("PUT", txn=begun.txn, collection="s", key=1, value=2)
        leave_free_pages(store)
        good = copy(store, tmp_path / "b")
    edit(path, sql)
    with suppress(StoreError), sqlstate.open(path, recover="resume") as store, pytest.raises(Damaged):
        copy(store, tmp_path / "b", keep=2)
    agrees(tmp_path / "b", good)
    assert names(tmp_path) == ["b", "test.db"]


def test_damage_that_is_in_no_copy_without_free_pages_is_said(tmp_path: Path) -> None:
    """Whatever SQLite writes again is well formed, and a check of that alone would call it sound."""
    path = made(tmp_path / "test.db")
    with sqlstate.open(path) as store:
        leave_free_pages(store)
        good = copy(store, tmp_path / "b")
    page = leaf_of_state(path)
    raw = bytearray(path.read_bytes())
    raw[(page - 1) * 4096 + 7] ^= 5  # how many bytes between its cells are too few to be used
    path.write_bytes(raw)
    with sqlstate.open(path, read_only=True) as store, pytest.raises(Damaged, match="Fragmentation"):
        copy(store, tmp_path / "b", keep=3)
    agrees(tmp_path / "b", good)
    assert names(tmp_path) == ["b", "test.db"]


@pytest.mark.slow
def test_a_damaged_page_beside_free_ones_is_in_no_backup(tmp_path: Path) -> None:
    path = made(tmp_path / "test.db", entries=200)
    with sqlstate.open(path) as store:
        leave_free_pages(store)
        good = copy(store, tmp_path / "b")
    raw = path.read_bytes()
    page, refused = 4096, 0
    used = good.bytes // page
    for number in range(1, used):
        found = bytearray(raw)
        found[number * page + 8 : number * page + 40] = bytes(32)
        path.write_bytes(found)
        try:
            with sqlstate.open(path, read_only=True) as store:
                copy(store, tmp_path / "b")
        except StoreError:
            refused += 1
        judged(tmp_path / "b")
    assert refused > used * 0.6, "the others are of empty tables"
    assert names(tmp_path) == ["b", "test.db"]


@pytest.mark.slow
def test_a_damaged_page_takes_no_place(tmp_path: Path) -> None:
    path = made(tmp_path / "test.db")
    with sqlstate.open(path) as store:
        copy(store, tmp_path / "b")
    raw = (tmp_path / "b").read_bytes()
    page = 4096
    (tmp_path / "r").write_bytes(b"precious")
    refused = 0
    for number in range(1, len(raw) // page):
        found = bytearray(raw)
        found[number * page + 8 : number * page + 40] = bytes(32)
        (tmp_path / "b").write_bytes(found)
        try:
            restore(tmp_path / "b", tmp_path / "r", replace=True)
        except RestoreRejected:
            refused += 1
            assert (tmp_path / "r").read_bytes() == b"precious"
        else:  # nothing was on that place of the page
            judged(tmp_path / "r")
            (tmp_path / "r").write_bytes(b"precious")
    assert refused > (len(raw) // page) * 0.8, "the others are of empty tables"
    (tmp_path / "b").write_bytes(raw)
    restore(tmp_path / "b", tmp_path / "r", replace=True)
    judged(tmp_path / "r")


def add_views(path: Path, *, until_seen: bool) -> None:
    """Add views to a file until SQLite's own check sees a wrong list of free pages in it, or passes over it.

    SQLite (3.54) passes over it if a view happens to be the first in its hash table of the schema's names.
    """
    probe = path.with_name("probe")
    for number in range(100):
        raw = bytearray(path.read_bytes())
        raw[36:40] = b"\0\xff\0\0"
        probe.write_bytes(raw)
        with closing(apsw.Connection(str(probe))) as db:
            seen = db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
        probe.unlink()
        if seen == until_seen:
            return
        edit(path, f"CREATE VIEW v{number} AS SELECT 1")
    pytest.fail("no view changed what SQLite's check sees")


@pytest.mark.parametrize("seen", [False, True], ids=["SQLite passes over it", "SQLite sees it"])
@pytest.mark.parametrize(("at", "said"), [(36, "counts 16711680 free pages"), (64, "incremental vacuum")])
def test_a_header_that_sqlites_own_check_can_pass_over_takes_no_place(
    tmp_path: Path, at: int, said: str, seen: bool
) -> None:
    path = made(tmp_path / "test.db")
    add_views(path, until_seen=seen)
    said = "SQLite's integrity_check says" if seen else said
    with sqlstate.open(path) as store:
        good = copy(store, tmp_path / "b")
    raw = bytearray(path.read_bytes())
    raw[at : at + 4] = b"\0\xff\0\0"
    path.write_bytes(raw)
    with pytest.raises(RestoreRejected, match=said):
        restore(path, tmp_path / "b", replace=True)
    either = f"{said}|counts 16711680 free pages"  # a backup counts them before it leaves them out
    with sqlstate.open(path, read_only=True) as store, pytest.raises(Damaged, match=either):
        copy(store, tmp_path / "b", keep=3)
    agrees(tmp_path / "b", good)
    assert names(tmp_path) == ["b", "test.db"]


@pytest.mark.parametrize("index", ["wal_milestones", "wal_staged", "wal_history"])
@pytest.mark.parametrize("free", [False, True])
def test_an_index_with_records_that_are_not_its_own_takes_no_place(tmp_path: Path, index: str, free: bool) -> None:
    path = made(tmp_path / "test.db")
    with sqlstate.open(path) as store:
        store.index_history()
        if free:
            leave_free_pages(store)
    with closing(sqlite3.connect(path)) as db, db:
        (sql,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (index,)).fetchone()
        db.executescript(f"DROP INDEX {index}; {sql.split(' WHERE ')[0]}; PRAGMA writable_schema = 1")
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, index))
    with sqlstate.open(path) as store:
        assert not store.check().ok
        with pytest.raises(Damaged, match=f"the index {index} does not fit its table"):
            copy(store, tmp_path / "b")
    (tmp_path / "r").write_bytes(b"precious")
    with pytest.raises(RestoreRejected, match=f"the index {index} does not fit its table"):
        restore(path, tmp_path / "r", replace=True)
    assert (tmp_path / "r").read_bytes() == b"precious"
    assert names(tmp_path) == ["r", "test.db"]


def test_a_list_of_free_pages_of_any_length_is_followed(tmp_path: Path) -> None:
    path = made(tmp_path / "test.db", entries=10)
    edit(path, "CREATE TABLE t (a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
         "INSERT INTO t SELECT zeroblob(4000) FROM n; DROP TABLE t")  # fmt: skip
    report = restore(path, tmp_path / "r")
    assert report.bytes > 3000 * 4096
    add_views(path, until_seen=False)
    raw = bytearray(path.read_bytes())
    trunk = int.from_bytes(raw[32:36])
    raw[(trunk - 1) * 4096 : (trunk - 1) * 4096 + 4] = trunk.to_bytes(4)
    path.write_bytes(raw)
    with pytest.raises(RestoreRejected, match="free page"):
        restore(path, tmp_path / "r", replace=True)


def spoiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk change a value in the copy, once its pages are written."""
    real = set_journaling

    def spoil(path: str, *rest: Any) -> None:
        real(path, *rest)
        file = Path(path)
        file.write_bytes(file.read_bytes().replace(b"x" * 100, b"x" * 99 + b"y"))

    monkeypatch.setattr("sqlstate.maintenance.closed_file.set_journaling", spoil)


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_copy_that_is_not_what_was_written_takes_nobodys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    made(tmp_path / "test.db", journal)
    with sqlstate.open(tmp_path / "test.db") as store:
        first = copy(store, tmp_path / "b")
        spoiling(monkeypatch)
        with pytest.raises(Damaged, match=r"the copy of .*test\.db: .* is not what the tree says.* and 500 more"):
            copy(store, tmp_path / "b", keep=2)
    with pytest.raises(RestoreRejected, match=r"the copy of .*test\.db: .* is not what the tree says.* and 500 more"):
        restore(tmp_path / "test.db", tmp_path / "r")
    agrees(tmp_path / "b", first)
    assert names(tmp_path) == ["b", "test.db"]


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_copy_that_is_another_commit_takes_nobodys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """It is sound by itself, so only the comparison can tell."""
    made(tmp_path / "test.db", journal)
    with sqlstate.open(tmp_path / "test.db") as store:
        copy(store, tmp_path / "older")
        older = (tmp_path / "older").read_bytes()
        store["c"]["more"] = 1

        def spoil(path: str, vfs: str | None, to: Journal) -> None:
            Path(path).write_bytes(older)
            set_journaling(path, vfs, to)

        monkeypatch.setattr("sqlstate.maintenance.closed_file.set_journaling", spoil)
        with pytest.raises(Damaged, match=r"the copy of .*test\.db does not hold the commit"):
            copy(store, tmp_path / "b")
    with pytest.raises(RestoreRejected, match=r"the copy of .*test\.db does not hold the commit"):
        restore(tmp_path / "test.db", tmp_path / "r")
    assert names(tmp_path) == ["older", "test.db"]


# ---- Where a backup may go ----


def test_what_is_no_backup_of_this_store_is_never_replaced(store: Store, open_store: OpenStore, tmp_path: Path) -> None:
    fill(store, 10)
    folder = tmp_path / "there"
    folder.mkdir()
    made(folder / "other.db")
    (folder / "text").write_text("precious", encoding="utf-8")
    (folder / "empty").touch()
    (folder / "sub").mkdir()
    mkfifo(folder / "fifo")
    symlink(folder / "link", "text")
    with closing(sqlite3.connect(folder / "sqlite")) as db, db:
        db.execute("CREATE TABLE t (a)")
    with sqlstate.open(folder / "new") as new:
        new["c"]["k"] = 1
    edit(folder / "new", "PRAGMA user_version = 99")
    before = folder_image(folder)
    for name in names(folder):
        with pytest.raises(InvalidOption) as caught:
            copy(store, folder / name, progress=never)
        assert str(folder / name.replace("link", "text")) in str(caught.value)
    for name in names(folder):
        (tmp_path / "b.1").unlink(missing_ok=True)
        os.rename(folder / name, tmp_path / "b.1")
        with pytest.raises(InvalidOption, match=r"b\.1"):
            copy(store, tmp_path / "b", keep=2, progress=never)
        assert not (tmp_path / "b").exists()
        os.rename(tmp_path / "b.1", folder / name)
    assert folder_image(folder) == before
    assert [name for name in names(tmp_path) if not name.startswith("test.db")] == ["there"]


def test_the_store_itself_is_no_place_for_its_backup(store: Store, tmp_path: Path) -> None:
    fill(store, 10)
    symlink(tmp_path / "link", store.path)
    (tmp_path / "hard").hardlink_to(store.path)
    for name in ("test.db", "link", "hard", "test.db-wal", "test.db-shm", "test.db-journal"):
        with pytest.raises(InvalidOption, match="belongs to the store itself"):
            copy(store, tmp_path / name)
    symlink(tmp_path / "b.1", store.path)
    with pytest.raises(InvalidOption, match="belongs to the store itself"):
        copy(store, tmp_path / "b", keep=2)
    assert store["c"][1] == "x" * 100


@pytest.mark.parametrize("strange", ["a\0b", "a\udc80b"], ids=["NUL", "surrogate"])
def test_a_path_that_sqlite_does_not_take_is_refused(store: Store, tmp_path: Path, strange: str) -> None:
    # Windows itself forbids the one; the package asks it first.
    forbidden = WINDOWS and "\0" in strange
    error, says = (CannotOpen, "can be no file") if forbidden else (InvalidOption, "no path that SQLite takes")
    with pytest.raises(error, match=says):
        copy(store, str(tmp_path / strange))
    with pytest.raises(error, match=says):
        restore(str(tmp_path / strange), tmp_path / "r")
    with pytest.raises(error, match=says):
        restore(tmp_path / "b", str(tmp_path / strange))


def test_a_folder_that_is_missing_or_cannot_be_written_is_said(tmp_path: Path) -> None:
    with without_privileges() as folder:
        with sqlstate.open(folder / "test.db") as store:
            with pytest.raises(StoreIOError, match=r"none/b.*what was there before is as it was"):
                copy(store, folder / "none" / "b")
            copy(store, folder / "b")
            folder.chmod(0o500)
            with pytest.raises(StoreIOError, match="Permission denied"):
                copy(store, folder / "b2")
            with pytest.raises(StoreIOError, match="Permission denied"):
                restore(folder / "b", folder / "r")
            folder.chmod(0o700)
        assert names(folder) == ["b", "test.db"]


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_backup_that_was_not_closed_is_neither_replaced_nor_renamed(
    store: Store, tmp_path: Path, suffix: str
) -> None:
    copy(store, tmp_path / "b")
    for name in ("b", "b.1"):
        if name == "b.1":
            os.rename(tmp_path / "b", tmp_path / "b.1")
        (tmp_path / f"{name}{suffix}").write_bytes(b"commits")
        with pytest.raises(InvalidOption, match=f"{name}{suffix} lies next to it"):
            copy(store, tmp_path / "b", keep=3)
        (tmp_path / f"{name}{suffix}").write_bytes(b"")  # as SQLite may leave it, with nothing in it
    copy(store, tmp_path / "b", keep=3)


@pytest.mark.parametrize("moment", ["before", "while it is made"])
def test_a_backup_that_somebody_has_open_is_neither_replaced_nor_renamed(
    store: Store, tmp_path: Path, moment: str
) -> None:
    fill(store)
    copy(store, tmp_path / "b")
    for name in ("b", "b.1"):
        if name == "b.1":
            os.rename(tmp_path / "b", tmp_path / "b.1")
        opened: list[Store] = []

        def open_it(*_: object, name: str = name, opened: list[Store] = opened) -> None:
            if not opened:
                opened.append(sqlstate.open(tmp_path / name))
                assert opened[0].head().seq >= 2

        if moment == "before":
            open_it()
        with pytest.raises(Busy, match=f"{name} open"):
            copy(store, tmp_path / "b", keep=3, progress=open_it)
        opened[0]["c"][name] = 1
        opened[0].close()
        assert judged(tmp_path / name).seq == (3 if name == "b" else 4)
        assert not files.orphans(str(tmp_path / "b"), store.store_id)
    assert [name for name in names(tmp_path) if ".tmp" in name] == []


# ---- Keeping several ----


@pytest.mark.parametrize("keep", [-1, True, 1.0, "3", None])
def test_keep_is_a_number(store: Store, tmp_path: Path, keep: Any) -> None:
    with pytest.raises(InvalidOption, match="keep="):
        copy(store, tmp_path / "b", keep=keep)
    assert [name for name in names(tmp_path) if not name.startswith("test.db")] == []


def rounds(store: Store, dest: Path, keep: int, number: int) -> BackupReport:
    """Commit and back up, so many times."""
    for _ in range(number):
        store["c"]["n"] = store.head().seq
        report = copy(store, dest, keep=keep)
    return report


def test_so_many_are_kept_and_the_oldest_goes(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "b.2024").write_text("precious", encoding="utf-8")
    report = rounds(store, folder / "b", 3, 1)
    assert (report.rotated, report.removed) == ((), ())
    report = rounds(store, folder / "b", 3, 2)
    assert (report.rotated, report.removed) == (("b.1", "b.2"), ())
    report = rounds(store, folder / "b", 3, 2)
    assert (report.rotated, report.removed) == (("b.1", "b.2"), ("b.3",))
    (folder / "b.2024").unlink()
    assert seqs(folder) == {"b": 5, "b.1": 4, "b.2": 3}
    agrees(folder / "b", report)
    assert rounds(store, folder / "b", 5, 1).rotated == ("b.1", "b.2", "b.3")
    assert seqs(folder) == {"b": 6, "b.1": 5, "b.2": 4, "b.3": 3}
    report = rounds(store, folder / "b", 0, 1)  # no other file is touched
    assert (report.rotated, report.removed) == ((), ())
    assert seqs(folder) == {"b": 7, "b.1": 5, "b.2": 4, "b.3": 3}
    report = rounds(store, folder / "b", 2, 1)
    assert (report.rotated, report.removed) == (("b.1",), ("b.4", "b.3", "b.2"))
    assert seqs(folder) == {"b": 8, "b.1": 7}
    report = rounds(store, folder / "b", 1, 1)
    assert (report.rotated, report.removed) == ((), ("b.1",))
    assert seqs(folder) == {"b": 9}


def test_a_hole_is_filled_and_what_is_behind_it_stays(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    rounds(store, folder / "b", 5, 4)
    (folder / "b.2").unlink()
    assert rounds(store, folder / "b", 5, 1).rotated == ("b.1", "b.2", "b.3")
    assert seqs(folder) == {"b": 5, "b.1": 4, "b.2": 3, "b.3": 1}
    (folder / "b").unlink()
    rounds(store, folder / "b", 5, 1)
    assert seqs(folder) == {"b": 6, "b.1": 4, "b.2": 3, "b.3": 1}
    (folder / "b.1").unlink()
    (folder / "b.3").write_text("precious", encoding="utf-8")
    assert rounds(store, folder / "b", 2, 1).removed == ("b.2",)
    assert (folder / "b.3").read_text(encoding="utf-8") == "precious"


def test_each_step_is_durable_before_the_next(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(store, tmp_path / "b", 3, 3)
    done: list[str] = []

    def watch(name: str) -> None:
        # On Windows, too, a second name is made by os.link.
        where, called = (os, name) if name == "link" else caller(name)
        real = getattr(where, called)

        def call(first: Any, *rest: Any, **options: Any) -> Any:
            if name == "fsync":
                done.append("sync folder" if is_folder(first) else "sync file")
            else:
                done.append(f"{name} to {Path(rest[0] if rest else first).name}")
            return real(first, *rest, **options)

        monkeypatch.setattr(where, called, call)

    for name in ("fsync", "rename", "link", "replace", "unlink"):
        watch(name)
    copy(store, tmp_path / "b", keep=3)
    assert [step for step in done if step != "sync folder"] == [
        "sync file", "replace to b.3", "replace to b.2", "link to b.1", "sync file", "replace to b", "unlink to b.3",
    ]  # fmt: skip
    for step, then in pairwise([] if WINDOWS else [*done, "the end"]):  # there, a name is durable at once
        assert step.startswith("sync") or then == "sync folder", f"{then} comes right after {step}"


@pytest.mark.parametrize("call", ["link", "unlink"])
def test_a_file_system_that_refuses_a_step_still_gets_its_backup(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    rounds(store, folder / "b", 2, 2)
    failing(monkeypatch, call, where=os if call == "link" else None)  # a second name is made so on Windows, too
    report = rounds(store, folder / "b", 2, 1)
    monkeypatch.undo()
    expected = {"b": 3, "b.1": 2}
    if call == "unlink":  # the oldest stays, and is said to
        assert report.rotated == ("b.1", "b.2")
        expected["b.2"] = 1
    assert seqs(folder) == expected


@pytest.mark.parametrize("call", ["rename", "fsync", "replace"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_step_that_fails_leaves_each_backup_where_it_was(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    rounds(store, folder / "b", 3, 3)
    store["c"]["newest"] = 1
    before = {name: image(folder / name) for name in names(folder)}
    where, called = caller(call)
    real, calls = getattr(where, called), 0

    def fail(first: Any, *rest: Any) -> Any:
        nonlocal calls
        if call != "fsync" or is_folder(first):
            calls += 1
            if calls == number:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(first, *rest)

    monkeypatch.setattr(where, called, fail)
    told = ""
    try:
        copy(store, folder / "b", keep=3)
    except StoreIOError as e:
        told = str(e)
    monkeypatch.undo()
    if told and "not certain" not in told:
        assert "what was there before is as it was" in told
        assert {name: image(folder / name) for name in names(folder)} == before
    else:
        assert calls < number or told
    copy(store, folder / "b", keep=3)
    assert list(seqs(folder)) == ["b", "b.1", "b.2"]


def test_where_the_backups_cannot_be_moved_back_it_is_said(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds(store, tmp_path / "b", 3, 3)
    before = seqs(tmp_path)
    where, called = caller("replace")
    real, calls = getattr(where, called), 0

    def fail(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments)

    monkeypatch.setattr(where, called, fail)
    with pytest.raises(StoreIOError, match="all backups that were there are there, some of them one place further on"):
        copy(store, tmp_path / "b", keep=3)
    monkeypatch.undo()
    assert sorted(seqs(tmp_path).values()) == sorted(before.values())


@pytest.mark.parametrize("fault", ["sync wal", "write wal"])
def test_a_backup_whose_audit_entry_fails_is_there_and_is_not_said_to_have_failed(tmp_path: Path, fault: str) -> None:
    vfs = FailingVFS()
    store = sqlstate.open(tmp_path / "test.db", vfs="failing")
    fill(store)

    def progress(done: int, total: int) -> None:
        if done == total:
            vfs.fails = fault

    report = store.backup(tmp_path / "b", progress=progress)
    assert (report.entry, vfs.fails) == (None, "")
    agrees(tmp_path / "b", report)
    with suppress(StoreError):
        store.close()
    with sqlstate.open(tmp_path / "test.db") as again:
        assert again.backup(tmp_path / "b").entry == list(again.audit())[-1].number
    vfs.unregister()


def test_a_restore_notes_itself_before_the_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "b")
    made(tmp_path / "r")
    before = image(tmp_path / "r")
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "commit", _unknown)
        with pytest.raises(StoreIOError, match="nothing was put in its place"):
            restore(tmp_path / "b", tmp_path / "r", replace=True)
    assert image(tmp_path / "r") == before
    assert names(tmp_path) == ["b", "r"]
    report = restore(tmp_path / "b", tmp_path / "r", replace=True)
    with sqlstate.open(tmp_path / "r", read_only=True) as store:
        entry = list(store.audit())[-1]
    assert (entry.kind, entry.number, entry.seq) == ("restore", report.entry, report.head.seq)
    assert entry.detail == {
        "file": "b", "bytes": (tmp_path / "b").stat().st_size, "seq": report.head.seq, "root": report.head.root.hex(),
    }  # fmt: skip


def _unknown(_: Connection) -> None:
    raise OutcomeUnknown("disk I/O error")


def test_the_journal_of_one_who_is_at_work_is_let_be(tmp_path: Path) -> None:
    path = made(tmp_path / "test.db", "delete")
    with sqlstate.open(path) as store:
        with store.transaction() as txn:
            txn["c"].update(dict.fromkeys(range(400), "y" * 300))
            assert (tmp_path / "test.db-journal").read_bytes()[:1] == b"\0"
            sqlstate.open(path).close()
            assert names(tmp_path) == ["test.db", "test.db-journal"]
        assert store["c"][7] == "y" * 300
    judged(path)


# ---- Killed at any moment ----


class Killed:
    """Does *work* in the child of a fork that kills itself at its step number *at*; 0 is never.

    A step is a call of progress, and each call of the system that changes or syncs a name or a file.
    """

    def __init__(self, work: Callable[[Callable[[int, int], None]], object], at: int) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException):
                os.close(reading)
                self._steps = 0
                self._at = at
                self._watch()
                work(lambda *_: self._step())
                os.write(writing, self._steps.to_bytes(4))
                code = 0
            os._exit(code)
        os.close(writing)
        said = os.read(reading, 4)
        os.close(reading)
        self.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.steps = int.from_bytes(said)

    def _watch(self) -> None:
        closed_file.PAGES_AT_ONCE = 10  # type: ignore[misc]
        for name in ("replace", "rename", "link", "unlink", "fsync"):
            self._wrap(os, name)
        for module in (closed_file, verify_copy, backup):
            self._wrap(module, "set_journaling")

    def _wrap(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._step()
            return real(*arguments, **options)

        setattr(module, name, call)

    def _step(self) -> None:
        self._steps += 1
        if self._steps == self._at:
            os.kill(os.getpid(), 9)


def each_kill(
    folder: Path, work: Callable[[Callable[[int, int], None]], object], least: int
) -> Iterator[tuple[int, bool]]:
    """Begin with *folder* as it is, and kill *work* at each of its steps; yields the step, and whether it was cut."""
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    at = 0
    while True:
        at += 1
        killed = Killed(work, at)
        assert killed.code == (KILLED if killed.steps == 0 else 0)
        yield at, killed.steps == 0
        if killed.steps:
            break
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
    assert at > least


def cleared(folder: Path, store_id: bytes) -> None:
    """Do what the next open does with files that a dead process left."""
    for name in files.orphans(str(folder / "r"), store_id):
        assert files.remove_orphan(str(folder / "r"), name, store_id)


@needs_fork
@pytest.mark.parametrize(("journal", "free"), [("wal", False), ("delete", False), ("wal", True)])
@pytest.mark.slow
def test_a_backup_that_is_killed_at_any_step_leaves_no_fewer_backups_and_the_newest_in_its_place(
    tmp_path: Path, journal: Journal, free: bool
) -> None:
    path = tmp_path / "test.db"
    folder = tmp_path / "b"
    folder.mkdir()
    with sqlstate.open(path, journal=journal) as store:
        fill(store, 800)
        rounds(store, folder / "b", 3, 3)
        store_id = store.store_id
        if free:
            leave_free_pages(store)
        store["c"]["n"] = "newest"
        newest = store.head().seq
    before = seqs(folder)

    def work(progress: Callable[[int, int], None]) -> None:
        copy(sqlstate.open(path), folder / "b", keep=3, progress=progress)

    cut = 0
    for _, was_cut in each_kill(folder, work, 20):
        cut += was_cut
        cleared(folder, store_id)
        found = seqs(folder)
        assert names(folder) == sorted(found)
        assert len(set(found.values())) >= len(before), found
        assert found["b"] in (newest, before["b"])
        assert {"b"} <= set(found) <= {"b", "b.1", "b.2", "b.3"}
        with sqlstate.open(path) as store:
            newest = rounds(store, folder / "b", 3, 1).head.seq
        after = seqs(folder)
        assert set(after) == {"b", "b.1", "b.2"}
        assert after["b"] == newest
        assert sorted(set(after.values()), reverse=True) == list(after.values())
        assert (folder / "b").stat().st_nlink == 1
    assert cut > 20


@needs_fork
def test_a_backup_that_is_killed_while_sqlite_leaves_out_free_pages_leaves_nothing_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "test.db", tmp_path / "b"
    folder.mkdir()
    with sqlstate.open(path) as store:
        fill(store, 3000)
        leave_free_pages(store)
        store_id = store.store_id
    pid = os.fork()
    if pid == 0:

        def kill() -> None:
            if any(name.endswith("-journal") for name in os.listdir(folder)):
                os.kill(os.getpid(), 9)

        monkeypatch.setattr(copying, "_STEPS", 20)
        monkeypatch.setattr(copying, "forking", [0])
        monkeypatch.setattr(copying, "stand_by", kill)
        with suppress(BaseException):
            copy(sqlstate.open(path), folder / "b")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == KILLED
    assert sorted(name.rpartition(".")[2] for name in names(folder)) == ["tmp", "tmp", "tmp-journal"]
    cleared(folder, store_id)
    assert names(folder) == []
    with sqlstate.open(path) as store:
        agrees(folder / "b", copy(store, folder / "b"))
    assert names(folder) == ["b"]


@needs_fork
@pytest.mark.parametrize("there", ["nothing", "another state", "a damaged file"])
def test_a_restore_that_is_killed_at_any_step_leaves_what_was_there_or_the_whole(tmp_path: Path, there: str) -> None:
    with sqlstate.open(tmp_path / "test.db") as store:
        fill(store, 800)
        store_id = store.store_id
        report = copy(store, tmp_path / "b")
        store["c"]["n"] = "newest"
    source = image(tmp_path / "b")
    folder = tmp_path / "r"
    folder.mkdir()
    if there == "another state":
        shutil.copy(tmp_path / "test.db", folder / "r")
    if there == "a damaged file":
        (folder / "r").write_bytes(b"SQLite format 3\0" + bytes(5000))
    before = folder_image(folder)

    def work(progress: Callable[[int, int], None]) -> None:
        restore(tmp_path / "b", folder / "r", replace=there != "nothing", progress=progress)

    whole = 0
    for _, was_cut in each_kill(folder, work, 12):
        cleared(folder, store_id)
        if folder_image(folder) != before or not was_cut:
            assert judged(folder / "r").chain == report.head.chain
            assert names(folder) == ["r"]
            with sqlstate.open(folder / "r", read_only=True) as restored:
                assert [entry.kind for entry in restored.audit()][-1] == "restore"
            whole += 1
    assert whole >= 2
    assert image(tmp_path / "b") == source


# ---- Restoring ----


@pytest.mark.parametrize("journal", JOURNALS)
def test_what_is_restored_is_what_was_backed_up(tmp_path: Path, journal: Journal) -> None:
    with sqlstate.open(tmp_path / "test.db", journal=journal) as store:
        fill(store)
        copied = copy(store, tmp_path / "b")
    seen: list[tuple[int, int]] = []
    before = folder_image(tmp_path)
    report = restore(tmp_path / "b", tmp_path / "r", progress=lambda *step: seen.append(step))
    assert report.head == copied.head
    assert (report.rotated, report.removed) == ((), ())
    agrees(tmp_path / "r", report)
    assert has_mode(tmp_path / "r", 0o600)
    assert (tmp_path / "r").read_bytes()[18:20] == (b"\2\2" if journal == "wal" else b"\1\1")
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    (tmp_path / "r").rename(tmp_path / "moved")
    assert {name: kept for name, kept in folder_image(tmp_path).items() if name != "moved"} == before
    with sqlstate.open(tmp_path / "moved") as again:
        assert again.recovery.clean
        assert again.stats().journal == journal
        again["c"]["more"] = 1
    judged(tmp_path / "moved")


def test_a_store_that_is_closed_can_be_restored_as_it_lies(tmp_path: Path) -> None:
    for journal in JOURNALS:
        made(tmp_path / journal, journal)
        agrees(tmp_path / "r", restore(tmp_path / journal, tmp_path / "r"))
        (tmp_path / "r").unlink()


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_source_on_a_medium_for_reading_only_is_restored(journal: Journal) -> None:
    with without_privileges() as folder:
        (folder / "from").mkdir()
        made(folder / "from" / "b", journal)
        (folder / "from" / "b").chmod(0o400)
        (folder / "from").chmod(0o500)
        before = folder_image(folder / "from")
        agrees(folder / "r", restore(folder / "from" / "b", folder / "r"))
        assert has_mode(folder / "r", 0o600)
        assert folder_image(folder / "from") == before
        (folder / "from").chmod(0o700)


def make_sources(folder: Path) -> dict[str, tuple[Path, str]]:
    """What cannot be restored: path, and a part of what is said."""
    made(folder / "good")
    good = (folder / "good").read_bytes()
    found: dict[str, tuple[Path, str]] = {"folder": (folder, "not a regular file")}

    def put(name: str, content: bytes, said: str) -> None:
        (folder / name).write_bytes(content)
        found[name] = folder / name, said

    put("empty", b"", "not an SQLite file")
    put("text", b"text" * 100, "not an SQLite file")
    put("cut", good[:50], "not an SQLite file")
    put("page size", good[:16] + b"\1\1" + good[18:], "not an SQLite file")
    put("half", good[: len(good) // 8192 * 4096], "")
    for sidecar in ("-wal", "-journal"):
        put(f"open{sidecar}", good, f"open{sidecar}{sidecar} lies next to it")
        (folder / f"open{sidecar}{sidecar}").write_bytes(b"commits")
    with closing(sqlite3.connect(folder / "sqlite")) as db, db:
        db.execute("CREATE TABLE t (a)")
    found["sqlite"] = folder / "sqlite", "another program"
    with closing(sqlite3.connect(folder / "database")) as db, db:
        db.execute("CREATE TABLE t (a)")
        db.execute("DROP TABLE t")
    found["database"] = folder / "database", "another program"
    put("newer", good, "install a newer one")
    edit(folder / "newer", "PRAGMA user_version = 99")
    (folder / "older").touch()
    with closing(Connection(str(folder / "older"), 1.0)) as connection:
        migrations.apply(connection, migrations.shipped()[:1], "2026-01-01T00:00:00.000000Z")
        connection.run("PRAGMA user_version = 1")
        connection.run("INSERT INTO meta VALUES ('store_id', ?), ('format', 1)", (bytes(16),))
    found["older"] = folder / "older", "older format"
    put("rest", good, "log ended at")
    edit(folder / "rest", "DELETE FROM wal WHERE seq = 2")
    return found


def test_what_is_no_sound_and_closed_store_is_rejected_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    sources = make_sources(tmp_path / "from")
    before = folder_image(tmp_path / "from")
    (tmp_path / "r").write_bytes(b"precious")
    for name, (path, said) in sources.items():
        with pytest.raises(RestoreRejected) as caught:
            restore(path, tmp_path / "new")
        assert said in caught.value.reason, name
        assert caught.value.source == str(path)
        assert "Nothing was written" in str(caught.value)
        assert ".." not in str(caught.value)
        with pytest.raises(RestoreRejected):
            restore(path, tmp_path / "r", replace=True)
    with pytest.raises(StoreMissing, match=r"there is no file .*none; nothing was written"):
        restore(tmp_path / "none", tmp_path / "r", replace=True)
    assert (tmp_path / "r").read_bytes() == b"precious"
    assert names(tmp_path) == ["from", "r"]
    assert folder_image(tmp_path / "from") == before


def test_a_file_that_was_copied_without_its_wal_is_rejected(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "test.db") as store:
        fill(store)
        # By a process of its own: closing a descriptor here would drop SQLite's locks.
        subprocess.run([sys.executable, "-c", COPIES, tmp_path / "test.db", tmp_path / "b"], check=True)
    with pytest.raises(RestoreRejected, match=r"open when it was copied.*ends with commit 1; .*accept_copy=True"):
        restore(tmp_path / "b", tmp_path / "r")
    assert names(tmp_path) == ["b", "test.db"]


COPIES = "import shutil, sys; shutil.copy(*sys.argv[1:])"


def test_a_source_that_somebody_has_open_is_rejected(store: Store, tmp_path: Path) -> None:
    fill(store, 10)
    with pytest.raises(RestoreRejected, match=r"test\.db-wal lies next to it.*Store\.backup\(\)"):
        restore(store.path, tmp_path / "r")
    copy(store, tmp_path / "b")
    with sqlstate.open(tmp_path / "b", read_only=True) as view:
        assert view.head().seq == 2
        with pytest.raises(RestoreRejected, match=r"a process has it open.*Store\.backup\(\)"):
            restore(tmp_path / "b", tmp_path / "r")
    with Child("locks", tmp_path / "b") as child:
        child.expects("locked")
        with pytest.raises(RestoreRejected, match=r"lies next to it|a process has it open"):
            restore(tmp_path / "b", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_nobody_can_change_the_source_while_it_is_read(tmp_path: Path) -> None:
    made(tmp_path / "b")
    refused = 0

    def progress(done: int, total: int) -> None:
        nonlocal refused
        with pytest.raises(StoreError), sqlstate.open(tmp_path / "b", timeout=0) as other:
            other["c"]["k"] = 1
        refused += 1

    agrees(tmp_path / "r", restore(tmp_path / "b", tmp_path / "r", progress=progress))
    assert refused > 2
    with sqlstate.open(tmp_path / "b") as other:
        other["c"]["k"] = 1


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_restored_beside_what_may_hold_commits(tmp_path: Path, suffix: str, there: bool) -> None:
    made(tmp_path / "b")
    if there:
        made(tmp_path / "r")
    (tmp_path / f"r{suffix}").write_bytes(b"7")
    before = folder_image(tmp_path)
    with pytest.raises(InvalidOption, match=f"r{suffix} lies where"):
        restore(tmp_path / "b", tmp_path / "r", replace=True)
    assert folder_image(tmp_path) == before


@pytest.mark.parametrize("name", ["r", "b"])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("suffix", "content"), [("-wal", b""), ("-journal", b""), ("-journal", bytes(12) + b"the rest of a header")]
)
def test_a_journal_that_holds_nothing_is_no_obstacle_and_does_not_stay(
    tmp_path: Path, suffix: str, content: bytes, there: bool, name: str
) -> None:
    made(tmp_path / "b", "delete")
    if there:
        made(tmp_path / "r", "delete")
    (tmp_path / f"{name}{suffix}").write_bytes(content)
    agreed = restore(tmp_path / "b", tmp_path / "r", replace=there)
    assert agreed.head.chain == judged(tmp_path / "r").chain
    with sqlstate.open(tmp_path / name) as store:
        assert store.recovery.clean
    assert names(tmp_path) == ["b", "r"]


def test_what_is_there_is_replaced_only_if_asked_and_only_if_it_is_a_file_of_its_own(tmp_path: Path) -> None:
    made(tmp_path / "b")
    (tmp_path / "r").write_bytes(b"precious")
    (tmp_path / "r").chmod(0o640)
    symlink(tmp_path / "link", "r")
    (tmp_path / "hard").hardlink_to(tmp_path / "b")
    (tmp_path / "sub").mkdir()
    mkfifo(tmp_path / "fifo")
    for name, replace, said in [
        ("r", False, "replace=True"),
        ("link", False, "replace=True"),
        ("sub", True, "not a regular file"),
        ("fifo", True, "not a regular file"),
        ("b", True, "belongs to the source itself"),
        ("hard", True, "belongs to the source itself"),
        ("b-wal", True, "belongs to the source itself"),
    ]:
        with pytest.raises(InvalidOption, match=said):
            restore(tmp_path / "b", tmp_path / name, replace=replace, progress=never)
    assert (tmp_path / "r").read_bytes() == b"precious"
    agrees(tmp_path / "r", restore(tmp_path / "b", tmp_path / "link", replace=True))
    assert (tmp_path / "link").is_symlink()
    assert has_mode(tmp_path / "r", 0o640)


def test_a_file_that_came_to_be_there_meanwhile_stays(tmp_path: Path) -> None:
    made(tmp_path / "b")

    def progress(done: int, total: int) -> None:
        (tmp_path / "r").write_bytes(b"precious")

    with pytest.raises(InvalidOption, match="there already"):
        restore(tmp_path / "b", tmp_path / "r", progress=progress)
    assert (tmp_path / "r").read_bytes() == b"precious"
    (tmp_path / "r").unlink()

    def journal(done: int, total: int) -> None:
        (tmp_path / "r-wal").write_bytes(b"7")

    with pytest.raises(InvalidOption, match="r-wal lies where"):
        restore(tmp_path / "b", tmp_path / "r", progress=journal)
    assert names(tmp_path) == ["b", "r-wal"]


def test_a_file_that_comes_to_be_there_at_the_last_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "b")
    where, called = caller("link")
    link = getattr(where, called)

    def late(source: str, target: str) -> None:
        (tmp_path / "r").write_bytes(b"precious")
        link(source, target)

    monkeypatch.setattr(where, called, late)
    with pytest.raises(InvalidOption, match="was created meanwhile"):
        restore(tmp_path / "b", tmp_path / "r")
    assert (tmp_path / "r").read_bytes() == b"precious"
    assert names(tmp_path) == ["b", "r"]


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_store_that_somebody_has_open_is_not_replaced(tmp_path: Path, moment: str) -> None:
    made(tmp_path / "b")
    made(tmp_path / "r")
    opened: list[Store] = []

    def open_it(*_: object) -> None:
        if not opened:
            opened.append(sqlstate.open(tmp_path / "r", read_only=True))
            assert opened[0].head().seq == 2

    if moment == "before":
        open_it()
    before = image(tmp_path / "r") if not opened else None
    with pytest.raises((Busy, InvalidOption), match=r"r open|r-wal lies where"):
        restore(tmp_path / "b", tmp_path / "r", replace=True, progress=open_it)
    opened[0].close()
    assert before is None or image(tmp_path / "r") == before
    judged(tmp_path / "r")
    agrees(tmp_path / "r", restore(tmp_path / "b", tmp_path / "r", replace=True))


def test_a_store_that_somebody_reads_is_not_replaced(tmp_path: Path) -> None:
    made(tmp_path / "b")
    made(tmp_path / "r", "delete")
    with sqlstate.open(tmp_path / "r") as store, store.snapshot() as view:
        with pytest.raises(Busy, match=r"a process has .* open"):
            restore(tmp_path / "b", tmp_path / "r", replace=True)
        assert view["c"][1] == "x" * 100
    restore(tmp_path / "b", tmp_path / "r", replace=True)


def test_a_store_that_may_not_be_written_is_not_replaced() -> None:
    with without_privileges() as folder:
        made(folder / "b")
        made(folder / "r")
        (folder / "r").chmod(0o400)
        with pytest.raises(ReadOnly, match="nothing was written"):
            restore(folder / "b", folder / "r", replace=True)
        assert names(folder) == ["b", "r"]


def test_one_who_goes_on_with_the_file_that_was_replaced_is_refused_instead_of_committing_to_nowhere(
    tmp_path: Path,
) -> None:
    """A handle in rollback-journal mode holds no lock between two transactions: it cannot be noticed before."""
    made(tmp_path / "b", "delete")
    with sqlstate.open(tmp_path / "b") as store:
        store_id = store.store_id
    old = sqlstate.open(tmp_path / "r", journal="delete")
    old["c"]["k"] = 1
    assert old["c"]["k"] == 1  # and so there is a connection that reads, too
    report = restore(tmp_path / "b", tmp_path / "r", replace=True)
    with pytest.raises(StoreError):
        old["c"].get("k")
    with pytest.raises(StoreError):
        old["c"]["k"] = 2
    with suppress(StoreError):
        old.close()
    agrees(tmp_path / "r", report)
    assert judged(tmp_path / "r").store_id == store_id


def test_a_replaced_file_that_has_another_name_goes_on_under_it(tmp_path: Path) -> None:
    made(tmp_path / "b")
    made(tmp_path / "r")
    (tmp_path / "kept").hardlink_to(tmp_path / "r")
    before = image(tmp_path / "kept")
    restore(tmp_path / "b", tmp_path / "r", replace=True)
    assert image(tmp_path / "kept") == before
    judged(tmp_path / "kept")
    judged(tmp_path / "r")


@pytest.mark.parametrize("there", [True, False])
def test_a_restore_whose_name_is_not_durable_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    made(tmp_path / "b")
    if there:
        made(tmp_path / "r")
    old = (tmp_path / "r").open("rb") if there else None
    failing(monkeypatch, "fsync", is_folder)
    with pytest.raises(StoreIOError, match="whether that survives a power cut is not certain"):
        restore(tmp_path / "b", tmp_path / "r", replace=there)
    judged(tmp_path / "r")
    if old is not None:
        with old:
            assert old.read(16) == b"SQLite format 3\0"  # a power cut could bring it back


# ---- A full disk ----


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"no small file system can be had here: {e}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_what_was_there_stays(store: Store, tmp_path: Path) -> None:
    fill(store, 100)
    with small_disk(tmp_path / "disk", "400k") as disk:
        first = copy(store, disk / "b")
        fill(store, 3000)
        copy(store, tmp_path / "large")
        for keep in (0, 3):
            with pytest.raises(StoreFull, match=str(disk / "b")):
                copy(store, disk / "b", keep=keep)
        with pytest.raises(StoreFull):
            restore(tmp_path / "large", disk / "b", replace=True)
        with pytest.raises(StoreFull):
            restore(tmp_path / "large", disk / "new")
        assert names(disk) == ["b"]
        agrees(disk / "b", first)


def test_a_disk_that_is_full_at_the_last_moment_is_said(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 10)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull, match="b: the disk is full; what was there before is as it was"):
        copy(store, tmp_path / "b")
    monkeypatch.undo()
    assert [name for name in names(tmp_path) if not name.startswith("test.db")] == []
