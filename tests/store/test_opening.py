"""What sqlstate.open() promises: what it makes, what it keeps, what it refuses, and that a refusal changes nothing.

Method: each case compares the bytes, times and names of all files in the folder before and after. Another
program is the standard library's sqlite3, in another process or on files that are closed in this one.
"""

from __future__ import annotations

import gc
import os
import re
import socket
import sqlite3
import sys
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import sqlstate
from sqlstate.files import system
from sqlstate.recovery.inspect import undoes_making
from sqlstate.sqlite import settings
from sqlstate.sqlite.writer_lock import WriterLock
from sqlstate.store import opening
from sqlstate.tables import migrations as migrate
from tests import MIGRATIONS
from tests.reference import plain
from tests.support import calls
from tests.support.child import Child
from tests.support.images import folder_image, image
from tests.support.lines import be_patient, line_of_turns
from tests.support.older import make_older
from tests.support.system import FORBIDDEN, WINDOWS, has_mode, mkfifo, symlink, uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.sqlite.engine import Engine
    from tests.conftest import OpenStore

JOURNALS = ("wal", "delete")
NOBODY = 65534
EVERY_KIND: dict[int | str | bytes, object] = {
    -(2**63): None,
    1: {"a": [1, 2.5, "x"]},
    "1": b"\x00\xff",
    "é": "é",
    b"1": True,
}


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def by_another_program(path: Path, *statements: str) -> None:
    """Run statements on a file that is closed in this process, and close it again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def make_store(path: Path, **options: Any) -> None:
    with sqlstate.open(path, **options) as store:
        store["c"].update(EVERY_KIND)
        store["c"]["k"] = 1


# ---- What it makes ----


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@pytest.mark.parametrize("journal", JOURNALS)
def test_a_new_store_and_what_lies_beside_it_are_the_owners_alone(
    path: Path, open_store: OpenStore, umask: int, journal: str
) -> None:
    before = os.umask(umask)
    try:
        store = open_store(journal=journal)
        store["c"]["k"] = 1
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == dict.fromkeys(
        names(path.parent), "0o600"
    )
    assert len(names(path.parent)) == (4 if journal == "wal" else 1)


def test_an_empty_file_becomes_a_store_and_keeps_its_mode(path: Path, open_store: OpenStore) -> None:
    path.touch()
    path.chmod(0o640)
    open_store()["c"]["k"] = 1
    assert has_mode(path, 0o640)


@pytest.mark.parametrize(("journal", "versions"), [("wal", b"\x02\x02"), ("delete", b"\x01\x01")])
def test_the_file_says_what_it_is(path: Path, journal: str, versions: bytes) -> None:
    make_store(path, journal=journal)
    header = path.read_bytes()[:100]
    assert header[:16] == b"SQLite format 3\x00"
    assert header[18:20] == versions  # SQLite's journal mode
    assert header[56:60] == (1).to_bytes(4)  # UTF-8
    assert header[60:64] == plain.FORMAT.to_bytes(4)  # user_version: the format version
    assert header[68:72] == b"SqSt"  # application_id
    assert names(path.parent) == ["test.db"]


@pytest.mark.parametrize(("journal", "synchronous"), [("wal", "FULL"), ("delete", "EXTRA")])
def test_every_connection_of_a_store_has_its_settings(open_store: OpenStore, journal: str, synchronous: str) -> None:
    store = open_store(journal=journal)
    stats = store.stats()
    assert (stats.journal, stats.synchronous) == (journal, synchronous)
    engine = store._engine
    with engine.reading() as reader, engine.reading() as another:
        for connection in (engine.write_connection, reader, another):
            assert connection.value("PRAGMA journal_mode") == journal
            assert settings.synchronous(connection) == synchronous
            found = {name: connection.value(f"PRAGMA {name}") for name in ("mmap_size", "cell_size_check")}
            assert found == {"mmap_size": 0, "cell_size_check": 1}
            assert connection.value("PRAGMA wal_autocheckpoint") == 0
            assert connection.value("PRAGMA trusted_schema") == 0


def test_on_macos_every_sync_reaches_the_disk(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "SYNCS_IN_FULL", True)
    store = open_store()
    with store._engine.reading() as reader:
        for connection in (store._engine.write_connection, reader):
            assert connection.value("PRAGMA fullfsync") == 1
            assert connection.value("PRAGMA checkpoint_fullfsync") == 1


def test_two_new_stores_have_different_ids(tmp_path: Path, open_store: OpenStore) -> None:
    ids = {open_store(tmp_path / f"{i}.db").store_id for i in range(3)}
    assert len(ids) == 3
    assert {len(store_id) for store_id in ids} == {16}


def test_an_open_store_says_what_it_is(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    assert store.path == path
    assert repr(store) == f"<sqlstate.Store {str(path)!r}: open>"
    assert (store.head().seq, store.collections(), store.stats().entries) == (0, [], 0)


# ---- What it keeps ----


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("read_only", [False, True])
def test_reopening_keeps_everything(open_store: OpenStore, journal: str, read_only: bool) -> None:
    with open_store(journal=journal) as store:
        store["c"].update(EVERY_KIND)
        store["d"]["k"] = 1
        del store["d"]["k"]
        txn = store.wal.append("BEGIN", note="draft").txn
        store.wal.append("PUT", txn=txn, collection="drafts", key="k", value=1)
        said = (
            store.store_id, store.head(), list(store.commits()), list(store.wal.read()), store.wal.uncommitted(),
            store.collections(), dict(store["c"]), [(type(key), key) for key in store["c"]],
        )  # fmt: skip
    store = open_store(create=False, read_only=read_only, recover="resume")
    assert dict(store["c"]) == EVERY_KIND
    assert said == (
        store.store_id, store.head(), list(store.commits()), list(store.wal.read()), store.wal.uncommitted(),
        store.collections(), dict(store["c"]), [(type(key), key) for key in store["c"]],
    )  # fmt: skip


@pytest.mark.parametrize(("own", "asked", "synchronous"), [("wal", "delete", "FULL"), ("delete", "wal", "EXTRA")])
def test_a_store_keeps_the_journal_it_was_made_with(
    open_store: OpenStore, own: str, asked: str, synchronous: str
) -> None:
    open_store(journal=own).close()
    stats = open_store(journal=asked).stats()
    assert (stats.journal, stats.synchronous) == (own, synchronous)


@pytest.mark.parametrize(("own", "other"), [("wal", "delete"), ("delete", "wal")])
def test_a_store_whose_journal_was_changed_gets_its_own_back_when_it_is_opened_for_writing(
    path: Path, own: str, other: str
) -> None:
    """By another program; or by nobody, when the making of the store was cut short."""
    make_store(path, journal=own)
    by_another_program(path, f"PRAGMA journal_mode={other}")
    before = folder_image(path.parent)
    with sqlstate.open(path, read_only=True) as store:
        assert store.stats().journal == other
        assert store["c"]["k"] == 1
    assert folder_image(path.parent) == before
    for _ in range(2):
        with sqlstate.open(path) as store:
            assert store.stats().journal == own
            assert dict(store["c"]) == EVERY_KIND | {"k": 1}
    assert names(path.parent) == ["test.db"]


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("read_only", [False, True])
def test_opening_reading_and_closing_a_closed_store_writes_nothing(path: Path, journal: str, read_only: bool) -> None:
    make_store(path, journal=journal)
    before = folder_image(path.parent)
    with sqlstate.open(path, read_only=read_only) as store:
        assert dict(store["c"]) == EVERY_KIND | {"k": 1}
        assert store.collections() == ["c"]
        assert [head.seq for head in store.commits()] == [1, 2]
        assert store.stats().entries == len(EVERY_KIND) + 1
        assert store.wal.uncommitted() == []
        with store.snapshot() as view:
            assert view["c"]["k"] == 1
        if not read_only:
            with store.transaction() as txn:
                txn.put("c", "k", 1)  # what is there already
    assert folder_image(path.parent) == before
    assert names(path.parent) == ["test.db"]


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_store_of_format_1_gets_its_audit_trail_when_it_is_opened_for_writing(path: Path, journal: str) -> None:
    make_store(path, journal=journal)
    make_older(path, 1)
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.ReadOnly, match="open it for writing once"):
        sqlstate.open(path, read_only=True)
    assert folder_image(path.parent) == before
    for _ in range(2):
        with sqlstate.open(path) as store:
            assert store.recovery.clean
            assert dict(store["c"]) == EVERY_KIND | {"k": 1}
            assert [(entry.kind, entry.seq, entry.detail["number"]) for entry in store.audit()] == [
                ("migration", 2, number) for number in range(2, len(MIGRATIONS) + 1)
            ]
            assert store.check_audit() == []
    assert plain.judge(path).findings == ()
    with sqlstate.open(path) as store:
        store["c"]["k"] = 2
    assert plain.judge(path).findings == ()


@pytest.mark.parametrize("journal", JOURNALS)
def test_refuse_changes_nothing_of_a_store_of_format_1_with_a_draft(path: Path, journal: str) -> None:
    with sqlstate.open(path, journal=journal) as store:  # type: ignore[arg-type]
        store["c"]["k"] = 1
        store.stage().put("c", "k", 2)
    make_older(path, 1)
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.RecoveryDue, match="nothing was changed"):
        sqlstate.open(path, recover="refuse")
    assert folder_image(path.parent) == before
    with sqlstate.open(path) as store:
        assert store.stats().format == plain.FORMAT


def test_a_closed_store_that_lost_bytes_of_its_end_is_not_opened(path: Path) -> None:
    refused = 0
    for _ in range(12):  # of some of them, the log ends on the last page of the file
        with sqlstate.open(path) as store:
            store["a"].update({len(store["a"]): "x" * 200})
            head = store.head()
        data = path.read_bytes()
        for cut in (1, 100, 2000, 4000):
            path.write_bytes(data[:-cut])
            try:
                with sqlstate.open(path, read_only=True) as store:
                    assert store.head().seq == head.seq
            except sqlstate.Damaged as e:
                refused += "I11" in str(e)
        path.write_bytes(data)
    assert refused > 3


def extra_migration(sql: str) -> migrate.Migration:
    number = len(MIGRATIONS) + 1
    return migrate.Migration(number, f"{number:04d}_extra.sql", sql, sha256(sql.encode()).digest())


def test_a_store_of_an_older_version_is_migrated_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(path)
    sql = "CREATE TABLE extra (a);"
    more = (*migrate.shipped(), extra_migration(sql))
    monkeypatch.setattr(migrate, "shipped", lambda: more)
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.ReadOnly, match="open it for writing once") as caught:
        sqlstate.open(path, read_only=True)
    assert str(path) in str(caught.value)
    assert folder_image(path.parent) == before
    for _ in range(2):
        with sqlstate.open(path) as store:
            assert dict(store["c"]) == EVERY_KIND | {"k": 1}
    with closing(plain.connect(path)) as connection:
        assert connection.execute("SELECT number, name, sha256 FROM schema_migrations").fetchall() == [
            (migration.number, migration.name, migration.sha256) for migration in more
        ]
        assert connection.execute("SELECT * FROM extra").fetchall() == []
        assert connection.execute("SELECT detail ->> 'number' FROM audit").fetchall() == [
            (migration.number,) for migration in more
        ]
    assert plain.judge(path).findings == ()


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(path)
    sql = "CREATE TABLE extra (a); INSERT INTO nowhere VALUES (1);"
    more = (*migrate.shipped(), extra_migration(sql))
    before = folder_image(path.parent)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "shipped", lambda: more)
        with pytest.raises(sqlstate.StoreError):
            sqlstate.open(path)
    assert folder_image(path.parent)["test.db"].content == before["test.db"].content
    assert names(path.parent) == ["test.db"]
    with sqlstate.open(path) as store:
        assert dict(store["c"]) == EVERY_KIND | {"k": 1}


# ---- For reading only ----


WRITES = [(cls, name) for cls, writes in calls.WRITES.items() for name in writes]


@pytest.mark.parametrize(("cls", "name"), WRITES, ids=[f"{cls.__name__}.{name}" for cls, name in WRITES])
def test_a_store_for_reading_refuses_each_kind_of_write(path: Path, cls: type, name: str) -> None:
    make_store(path)
    before = folder_image(path.parent)
    with sqlstate.open(path, read_only=True) as store:
        handles = calls.Handles(store, store["c"], None, None, store.wal)
        with pytest.raises(sqlstate.ReadOnly, match="nothing was changed") as caught:
            calls.exhaust(calls.WRITES[cls][name](calls.handle_of(cls, handles)))
        assert str(path) in str(caught.value)
        assert dict(store["c"]) == EVERY_KIND | {"k": 1}
    assert folder_image(path.parent) == before
    assert names(path.parent) == ["test.db"]


def test_the_list_of_writes_is_complete() -> None:
    """A method that writes and is not in the list would be a write that reading stores were never tested with."""
    for cls, reads in (
        (sqlstate.WriteAheadLog, {"read", "uncommitted"}),
        (sqlstate.Collection, set(calls.VIEW)),
        (sqlstate.Store, set(calls.STORE) - set(calls.STORE_WRITES)),
    ):
        assert set(calls.used_methods(cls)) == reads | set(calls.WRITES[cls])


def test_sqlite_itself_refuses_a_write_through_a_store_for_reading(path: Path) -> None:
    make_store(path)
    with sqlstate.open(path, read_only=True) as store:
        for sql in ("DELETE FROM state", "CREATE TABLE t (a)", "PRAGMA user_version=7", "DROP TABLE wal"):
            with pytest.raises(sqlstate.ReadOnly):
                store._engine.write_connection.run(sql)


def test_reading_a_store_that_was_not_closed_leaves_it_as_it_is(path: Path) -> None:
    with Child("leaves", path) as child:
        child.expects("put")
        child.ends()
    before = folder_image(path.parent)
    assert before["test.db-wal"].content
    with sqlstate.open(path, read_only=True) as store:
        assert store["c"]["left"] == 1
    assert folder_image(path.parent) == before


def test_a_rollback_journal_that_waits_is_played_back_for_writing_and_left_for_reading(
    path: Path, open_store: OpenStore
) -> None:
    make_store(path, journal="delete")
    original = path.read_bytes()
    many = "WITH RECURSIVE c (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < 200)"
    spilled = f"{many} INSERT INTO state SELECT 'x', n, zeroblob(3000) FROM c"
    with Child("tampers", path, "", "BEGIN", "DELETE FROM meta", "DELETE FROM state", spilled) as child:
        child.expects("done")
        child.ends()
    before = folder_image(path.parent)
    assert before["test.db-journal"].content
    assert before["test.db"].content != original
    with pytest.raises(sqlstate.CannotOpen, match="open it for writing once") as caught:
        sqlstate.open(path, read_only=True)
    assert str(path) in str(caught.value)
    assert folder_image(path.parent) == before
    store = open_store()
    assert dict(store["c"]) == EVERY_KIND | {"k": 1}
    report = store.recovery
    assert (report.clean, report.journal.kind, report.journal.committed > 0) == (False, "rollback", True)
    assert [entry.kind for entry in store.audit()] == [*["migration"] * len(MIGRATIONS), "recovery"]
    store.close()
    assert names(path.parent) == ["test.db"]


def test_a_store_for_reading_follows_a_writer_and_takes_nothing_from_it(path: Path, open_store: OpenStore) -> None:
    writer = open_store()
    writer["c"]["k"] = 1
    with sqlstate.open(path, read_only=True) as reader:
        assert reader["c"]["k"] == 1
        writer["c"]["k"] = 2
        assert reader["c"]["k"] == 2
    assert names(path.parent) == ["test.db", "test.db-acknowledged", "test.db-shm", "test.db-wal"]
    writer["c"]["k"] = 3
    assert (writer["c"]["k"], writer.head().seq) == (3, 3)


def test_a_store_for_reading_that_closes_last_leaves_what_the_writer_left(path: Path) -> None:
    make_store(path)
    reader = sqlstate.open(path, read_only=True)
    with sqlstate.open(path) as writer:
        writer["c"]["k"] = 2
    assert reader["c"]["k"] == 2
    reader.close()
    with sqlstate.open(path) as store:
        assert store["c"]["k"] == 2
    assert plain.judge(path).findings == ()
    assert names(path.parent) == ["test.db"]


# ---- What it refuses ----


@dataclass(frozen=True)
class Refusal:
    """Something that cannot be opened, and how opening it must fail."""

    make: Callable[[Path], None]
    error: type[sqlstate.StoreError]
    says: str
    """Part of the message."""


def _foreign(*statements: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        by_another_program(path, *statements)

    return make


def _changed(*statements: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        make_store(path)
        by_another_program(path, "PRAGMA writable_schema=1", *statements)

    return make


def _written(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def _cut(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        make_store(path)
        path.write_bytes(path.read_bytes()[:size])

    return make


def _socket(path: Path) -> None:
    if WINDOWS:
        pytest.skip("this system has no sockets in its folders")
    with closing(socket.socket(socket.AF_UNIX)) as each:
        here = Path.cwd()
        os.chdir(path.parent)  # the address of a socket has at most 107 bytes
        try:
            each.bind(path.name)
        finally:
            os.chdir(here)


def _damaged_page(path: Path) -> None:
    make_store(path)
    content = bytearray(path.read_bytes())
    content[100] = 0xEE  # the kind of the page that holds the schema
    path.write_bytes(content)


NEWER = plain.FORMAT + 1
REFUSALS = {
    "a folder": Refusal(Path.mkdir, sqlstate.NotAStore, "is a folder"),
    "a socket": Refusal(_socket, sqlstate.NotAStore, "is not a regular file"),
    "a link to itself": Refusal(lambda path: symlink(path, path), sqlstate.CannotOpen, "cannot be"),
    "a text file": Refusal(_written(b"Dear diary,\n" * 500), sqlstate.NotAStore, "is not an SQLite file"),
    "a short text file": Refusal(_written(b"hello"), sqlstate.NotAStore, "is not an SQLite file"),
    "one byte": Refusal(_written(b"S"), sqlstate.NotAStore, "is not an SQLite file"),  # SQLite calls it empty
    "99 bytes of a store": Refusal(_cut(99), sqlstate.NotAStore, "is not an SQLite file"),
    **{
        f"{size} bytes of a store": Refusal(_cut(size), sqlstate.Damaged, "damaged") for size in (100, 512, 4096, -4096)
    },
    "zeros": Refusal(_written(bytes(8192)), sqlstate.NotAStore, "is not an SQLite file"),
    "another program's file": Refusal(_foreign("CREATE TABLE t (a)"), sqlstate.NotAStore, "of another program"),
    "another program's file in WAL mode": Refusal(
        _foreign("PRAGMA journal_mode=wal", "CREATE TABLE t (a)"), sqlstate.NotAStore, "of another program"
    ),
    "another program's file without tables": Refusal(
        _foreign("PRAGMA application_id=7", "VACUUM"), sqlstate.NotAStore, "of another program"
    ),
    "another program's file with a version only": Refusal(
        _foreign("PRAGMA user_version=1", "VACUUM"), sqlstate.NotAStore, "of another program"
    ),
    "a newer format": Refusal(_changed(f"PRAGMA user_version={NEWER}"), sqlstate.FormatTooNew, f"has format {NEWER}"),
    "a format that never was": Refusal(_changed("PRAGMA user_version=0"), sqlstate.Damaged, ""),
    "a changed migration": Refusal(
        _changed("UPDATE schema_migrations SET sha256 = zeroblob(32)"), sqlstate.MigrationMismatch, "0001_initial.sql"
    ),
    "a migration of another number": Refusal(
        _changed("UPDATE schema_migrations SET number = 7 WHERE number = 1"), sqlstate.Damaged, "no row of migration 1"
    ),
    "an unknown newer migration": Refusal(
        _changed(
            "INSERT INTO schema_migrations "
            "SELECT max(number) + 1, 'more.sql', zeroblob(32), '2026-11-23T17:09:46.000000Z' FROM schema_migrations"
        ),
        sqlstate.MigrationMismatch,
        "more.sql",
    ),
    "no migrations": Refusal(_changed("DELETE FROM schema_migrations"), sqlstate.Damaged, ""),
    "no table of migrations": Refusal(_changed("DROP TABLE schema_migrations"), sqlstate.Damaged, ""),
    "a missing table": Refusal(_changed("DROP TABLE staged"), sqlstate.Damaged, "table staged"),
    "a changed table": Refusal(_changed("ALTER TABLE state ADD COLUMN more"), sqlstate.Damaged, "table state"),
    "no store id": Refusal(_changed("DELETE FROM meta WHERE name = 'store_id'"), sqlstate.Damaged, "meta"),
    "a short store id": Refusal(
        _changed("UPDATE meta SET value = x'00' WHERE name = 'store_id'"), sqlstate.Damaged, "meta"
    ),
    "a store id in TEXT": Refusal(
        _changed("UPDATE meta SET value = '0123456789abcdef' WHERE name = 'store_id'"), sqlstate.Damaged, "meta"
    ),
    "no marker": Refusal(
        _changed("DELETE FROM meta WHERE name = 'marker'"), sqlstate.Damaged, "row marker of the table meta is missing"
    ),
    "no time of making": Refusal(_changed("DELETE FROM meta WHERE name = 'created'"), sqlstate.Damaged, "meta"),
    "a time of making that is a number": Refusal(
        _changed("UPDATE meta SET value = 5 WHERE name = 'created'"), sqlstate.Damaged, "meta"
    ),
    "a journal that never was": Refusal(
        _changed("UPDATE meta SET value = 'memory' WHERE name = 'journal'"), sqlstate.Damaged, "meta"
    ),
    "two versions of the format": Refusal(
        _changed("UPDATE meta SET value = 2 WHERE name = 'format'"), sqlstate.Damaged, "meta"
    ),
    "text that is not UTF-8": Refusal(
        _changed("UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE name = 'created'"), sqlstate.Damaged, "damaged"
    ),
    "a damaged first page": Refusal(_damaged_page, sqlstate.Damaged, "damaged"),
}

# What the reader of a message can do now.
ADVICE = re.compile(
    r"\b(name|make|open|install|reinstall|restore|look at|remove|use|create=True|choose)\b", re.IGNORECASE
)


def check_refusal(path: Path, refusal: Refusal, **options: Any) -> None:
    before, there = folder_image(path.parent), names(path.parent)
    with pytest.raises(refusal.error) as caught:
        sqlstate.open(path, **options)
    assert type(caught.value) is refusal.error
    message = str(caught.value)
    assert refusal.says in message
    assert str(path) in message
    assert ADVICE.search(message.replace(str(path), "")), f"does not say what to do: {message}"
    assert folder_image(path.parent) == before
    assert names(path.parent) == there


@pytest.mark.parametrize("read_only", [False, True], ids=["for writing", "for reading"])
@pytest.mark.parametrize("what", REFUSALS)
def test_what_is_not_a_store_is_refused_by_name_and_left_as_it_is(path: Path, what: str, read_only: bool) -> None:
    REFUSALS[what].make(path)
    check_refusal(path, REFUSALS[what], read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True], ids=["for writing", "for reading"])
def test_a_fifo_is_refused(path: Path, read_only: bool) -> None:
    mkfifo(path)
    held = os.open(path, os.O_RDWR)  # with no other end, opening it would never come back
    try:
        check_refusal(path, Refusal(lambda _: None, sqlstate.NotAStore, "not a regular file"), read_only=read_only)
    finally:
        os.close(held)


def test_a_link_to_nothing_is_refused(path: Path) -> None:
    symlink(path, "nowhere")
    check_refusal(path, Refusal(lambda _: None, sqlstate.CannotOpen, "cannot be opened"))
    check_refusal(path, Refusal(lambda _: None, sqlstate.StoreMissing, "there is no file"), read_only=True)
    assert not path.with_name("nowhere").exists()


@pytest.mark.parametrize("options", [{}, {"create": False}, {"read_only": True}], ids=str)
def test_a_missing_folder_is_refused(path: Path, options: dict[str, Any]) -> None:
    refusal = Refusal(lambda _: None, sqlstate.StoreMissing, f"there is no folder {path.parent / 'no'}")
    with pytest.raises(refusal.error, match="make it first") as caught:
        sqlstate.open(path.parent / "no" / "test.db", **options)
    assert refusal.says in str(caught.value)
    assert names(path.parent) == []


@pytest.mark.parametrize("options", [{"create": False}, {"read_only": True}], ids=str)
def test_a_missing_file_is_refused_where_it_must_be_there(path: Path, options: dict[str, Any]) -> None:
    check_refusal(path, Refusal(lambda _: None, sqlstate.StoreMissing, "there is no file"), **options)


@pytest.mark.parametrize("options", [{"create": False}, {"read_only": True}], ids=str)
def test_an_empty_file_is_refused_where_a_store_must_be(path: Path, options: dict[str, Any]) -> None:
    path.touch()
    check_refusal(path, Refusal(lambda _: None, sqlstate.NotAStore, "is an empty file"), **options)


@pytest.mark.parametrize("read_only", [False, True], ids=["for writing", "for reading"])
@pytest.mark.parametrize("journal", JOURNALS)
def test_another_programs_file_that_was_not_closed_is_left_for_that_program(
    path: Path, journal: str, read_only: bool
) -> None:
    """Its -wal is not folded into it, and its -journal is not rolled back."""
    spilled = ("BEGIN", "UPDATE t SET a = zeroblob(5000)", "INSERT INTO t SELECT a FROM t")
    rows = ("CREATE TABLE t (a)", "INSERT INTO t VALUES (zeroblob(4000))", *["INSERT INTO t SELECT a FROM t"] * 6)
    with Child("tampers", path, journal, *rows, *(spilled if journal == "delete" else ())) as child:
        child.expects("done")
        child.ends()
    suffix = "-wal" if journal == "wal" else "-journal"
    assert folder_image(path.parent)[path.name + suffix].content, "there is nothing that could be folded"
    check_refusal(path, Refusal(lambda _: None, sqlstate.NotAStore, "of another program"), read_only=read_only)


def test_a_text_file_keeps_the_file_that_is_named_like_its_journal(path: Path) -> None:
    path.write_text("Dear diary,\n", "utf-8", newline="\n")
    path.with_name("test.db-journal").write_text("What I did today\n" * 50, "utf-8", newline="\n")
    path.with_name("test.db-wal").write_text("What else I did today\n" * 50, "utf-8", newline="\n")
    check_refusal(path, Refusal(lambda _: None, sqlstate.NotAStore, "is not an SQLite file"))


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_store_that_another_process_is_making_is_waited_for(
    path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first page may come after later ones: until then the file looks like no store, and like nothing new."""
    looks = []
    with Child("makes", path, journal) as child:

        def looked(engine: Engine) -> bool:
            looks.append(engine.header)
            if len(looks) == 1:  # the other finishes between the looks at the file and at its journal
                child.tell()
                child.expects("made")
                child.ends()
            return undoes_making(engine)

        monkeypatch.setattr(opening, "undoes_making", looked)
        child.expects("makes")
        with sqlstate.open(path) as store:
            assert store.check().ok
    assert not any(looks[0])


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_store_whose_making_takes_too_long_is_busy(path: Path, journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Child("makes", path, journal) as child:
        child.expects("makes")
        monkeypatch.setattr(opening, "undoes_making", lambda _: False)
        with pytest.raises(sqlstate.Busy, match=r"another process was making it for 0\.1 s"):
            sqlstate.open(path, timeout=0.1)
        child.tell()
        child.expects("made")
        child.ends()


@pytest.mark.parametrize("empty", [False, True], ids=["no file", "an empty file"])
@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_what_lies_beside_a_new_path_is_not_deleted(path: Path, suffix: str, empty: bool) -> None:
    path.with_name(path.name + suffix).write_text("My notes of today\n" * 50, "utf-8", newline="\n")
    if empty:
        path.touch()
    check_refusal(path, Refusal(lambda _: None, sqlstate.CannotOpen, f"{path.name}{suffix}"))


def test_the_wal_of_a_store_whose_file_was_removed_is_not_deleted(path: Path) -> None:
    with Child("leaves", path) as child:
        child.expects("put")
        child.ends()
    path.rename(path.with_name("moved"))
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.CannotOpen, match="may hold the commits"):
        sqlstate.open(path)
    assert folder_image(path.parent) == before
    path.with_name("moved").rename(path)
    with sqlstate.open(path) as store:
        assert store["c"]["left"] == 1


UNCLOSED: dict[str, tuple[tuple[str, ...], type[sqlstate.StoreError]]] = {
    "a newer format": (
        # As its migration leaves it, with an entry in the audit trail.
        (
            "BEGIN",
            f"PRAGMA user_version={NEWER}",
            f"UPDATE meta SET value = {NEWER} WHERE name = 'format'",
            "INSERT INTO audit SELECT max(number) + 1, at, kind, seq, chain, detail, digest FROM audit",
            "COMMIT",
        ),
        sqlstate.FormatTooNew,
    ),
    # What only changes our other tables is no transaction of ours.
    "a changed migration": (("UPDATE schema_migrations SET sha256 = zeroblob(32)",), sqlstate.JournalDamaged),
    "a missing index": (("DROP INDEX wal_milestones",), sqlstate.JournalDamaged),
    "a changed table and another table": (
        ("ALTER TABLE staged ADD COLUMN more", "CREATE TABLE theirs (a)", "INSERT INTO theirs VALUES (1)"),
        sqlstate.Damaged,
    ),
    "a changed migration and another table": (
        (
            "UPDATE schema_migrations SET sha256 = zeroblob(32)",
            "CREATE TABLE theirs (a)",
            "INSERT INTO theirs VALUES (1)",
        ),
        sqlstate.MigrationMismatch,
    ),
    "no store id": (("DELETE FROM meta WHERE name = 'store_id'",), sqlstate.JournalDamaged),
}


@pytest.mark.parametrize("what", UNCLOSED)
def test_a_refused_store_that_was_not_closed_keeps_its_wal(path: Path, what: str) -> None:
    statements, error = UNCLOSED[what]
    make_store(path)
    with Child("tampers", path, "", *statements) as child:
        child.expects("done")
        child.ends()
    before = folder_image(path.parent)
    assert before["test.db-wal"].content
    with pytest.raises(error) as caught:
        sqlstate.open(path)
    assert type(caught.value) is error
    evidence = [Path(name).name for name in getattr(caught.value, "evidence", ())]
    after = folder_image(path.parent)
    assert {after.pop(name).content for name in evidence} <= {before["test.db-wal"].content}
    assert after == before


def test_a_file_that_another_program_keeps_locked_is_busy(path: Path) -> None:
    make_store(path, journal="delete")
    before = folder_image(path.parent)
    with Child("locks", path) as child:
        child.expects("locked")
        with pytest.raises(sqlstate.Busy, match="nothing was changed") as caught:
            sqlstate.open(path, timeout=0.01)
        assert str(path) in str(caught.value)
        child.tell()
        child.ends()
    assert folder_image(path.parent) == before
    with sqlstate.open(path) as store:
        assert store["c"]["k"] == 1


@contextmanager
def without_privileges() -> Iterator[Path]:
    """Be a user whom permissions bind, in a folder of its own: the root user may do everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_store(folder / "test.db", journal="delete")  # imports what that user may not read
        if uid():
            yield folder
            return
        os.chown(folder, NOBODY, NOBODY)
        os.chown(folder / "test.db", NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("read_only", [False, True], ids=["for writing", "for reading"])
def test_a_file_that_may_not_be_read_is_refused(read_only: bool) -> None:
    with without_privileges() as folder:
        path = folder / "test.db"
        path.chmod(0)
        with pytest.raises(sqlstate.CannotOpen, match="look at the permissions") as caught:
            sqlstate.open(path, read_only=read_only)
        assert str(path) in str(caught.value)
        assert names(folder) == ["test.db"]


def test_a_folder_that_may_not_be_written_gets_no_new_store() -> None:
    with without_privileges() as folder:
        folder.chmod(0o500)
        with pytest.raises(sqlstate.CannotOpen, match="cannot be made") as caught:
            sqlstate.open(folder / "new.db")
        assert str(folder / "new.db") in str(caught.value)
        assert names(folder) == ["test.db"]


def test_a_file_that_may_not_be_written_can_be_read() -> None:
    with without_privileges() as folder:
        path = folder / "test.db"
        path.chmod(0o400)
        before = folder_image(folder)
        with sqlstate.open(path) as store:
            assert store["c"]["k"] == 1
            with pytest.raises(sqlstate.ReadOnly, match="nothing was changed") as caught:
                store["c"]["k"] = 2
            assert str(path) in str(caught.value)
            assert store["c"]["k"] == 1
        assert folder_image(folder) == before


# ---- Options ----


OPTIONS = [
    {"mode": "FULL"}, {"mode": "fast"}, {"mode": None}, {"mode": 1}, {"mode": ["full"]},
    {"journal": "memory"}, {"journal": "off"}, {"journal": "WAL"}, {"journal": None}, {"journal": "wal; DROP TABLE t"},
    {"timeout": -1}, {"timeout": -0.001}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"timeout": "5"},
    {"timeout": None}, {"timeout": 1e300}, {"vfs": "none such"},
    {"cache_bytes": 0}, {"cache_bytes": (1 << 20) - 1}, {"cache_bytes": (1 << 40) + 1}, {"cache_bytes": -1},
    {"cache_bytes": None}, {"cache_bytes": 2e6}, {"cache_bytes": True}, {"cache_bytes": "64 MB"},
    {"recover": "Rollback"}, {"recover": ""}, {"recover": None}, {"recover": True}, {"recover": ["accept"]},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_option_outside_what_it_may_be_is_refused_before_anything_is_made(
    path: Path, options: dict[str, Any]
) -> None:
    [(option, value)] = options.items()
    with pytest.raises(sqlstate.InvalidOption, match=option) as caught:
        sqlstate.open(path, **options)
    assert isinstance(caught.value, ValueError)
    assert str(value).strip("[]'") in str(caught.value)
    assert names(path.parent) == []
    make_store(path)
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.InvalidOption):
        sqlstate.open(path, **options)
    assert folder_image(path.parent) == before


@pytest.mark.parametrize("cache_bytes", [1 << 20, 1 << 40])
def test_the_bounds_of_the_caches_are_what_sqlite_takes(open_store: OpenStore, cache_bytes: int) -> None:
    store = open_store(cache_bytes=cache_bytes)
    assert store._engine.write_connection.value("PRAGMA cache_size") == -(settings.Caches.of(cache_bytes).writer >> 10)
    store["c"].update({i: i for i in range(1000)})
    assert sum(store["c"].values()) == 499_500


@pytest.mark.parametrize("timeout", [0, 0.5, 60, True])
def test_a_timeout_is_any_number_of_seconds(open_store: OpenStore, timeout: float) -> None:
    open_store(timeout=timeout)["c"]["k"] = 1


OLD = ("3.7.0", "3.37.2", "3.44.5", "3.45.0", "3.50.6", "3.51.0", "3.51.2", "3.52.0", "3.52.1")
GOOD = ("3.44.6", "3.50.7", "3.51.3", "3.53.0", "3.60.1", "4.0.0")


@pytest.mark.parametrize("version", OLD)
def test_an_sqlite_that_can_lose_commits_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    # Only what SQLite says of itself is replaced here; the library is the good one of this machine.
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    with pytest.raises(sqlstate.SQLiteTooOld, match=rf"SQLite {re.escape(version)}.*install apsw"):
        sqlstate.open(path)
    assert names(path.parent) == []


@pytest.mark.parametrize("version", GOOD)
def test_an_sqlite_with_the_fix_is_accepted(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    assert open_store().stats().sqlite == version


# ---- Paths ----


NAMES = [
    "with space.db", "ünï-ж-漢.db", "e\u0301.db", "what?.db", "a#b.db", "100%.db", "%41%00.db", "x?mode=memory",
    "a&b=c", "file:test.db", "file::memory:", "file:test.db?vfs=none", ":memory:", "-dash", "~tilde", "quote'\".db",
    "semi;colon", "new\nline", "back\\slash", ".hidden", "dot.", "[ab]*.db", "n" * 200,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_a_name_and_nothing_else(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if WINDOWS and (FORBIDDEN.intersection(name) or not name.isprintable() or "\\" in name or name.endswith(".")):
        pytest.skip("this system lets no file have this name")
    if WINDOWS and len(str(tmp_path / name)) > 240:
        pytest.skip("wine itself fails to resolve a path of more than 260 characters (error 234)")
    path = tmp_path / name
    with open_store(path) as store:
        store["c"]["k"] = 1
        assert store.path == path
    assert names(tmp_path) == [name]
    monkeypatch.chdir(tmp_path)
    for form in (name, str(path), path):
        with sqlstate.open(form, create=False) as store:
            assert store["c"]["k"] == 1
            assert store.path == path
    assert names(tmp_path) == [name]


def test_a_relative_path_stays_where_it_was_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(here)
    with sqlstate.open("test.db") as store:
        monkeypatch.chdir(elsewhere)
        store["c"]["k"] = 1
        with store.snapshot() as view, store.snapshot() as another:  # connections that are made now
            assert (view["c"]["k"], another["c"]["k"]) == (1, 1)
        assert store.path == here / "test.db"
        assert store.stats().sqlite_wal_bytes > 0
    assert (names(here), names(elsewhere)) == (["test.db"], [])
    assert plain.judge(here / "test.db").findings == ()


def test_a_link_leads_to_the_one_store(path: Path, open_store: OpenStore) -> None:
    link = path.with_name("link.db")
    symlink(link, path.name)
    store = open_store(path)
    store["c"]["k"] = 1
    with sqlstate.open(link) as other:
        other["c"]["k"] = 2
        assert other.store_id == store.store_id
        assert other.stats().sqlite_wal_bytes == store.stats().sqlite_wal_bytes > 0
        assert other.stats().file_bytes == store.stats().file_bytes
    assert store["c"]["k"] == 2
    assert names(path.parent) == ["link.db", "test.db", "test.db-acknowledged", "test.db-shm", "test.db-wal"]


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "x" * 5000], ids=["nul", "long", "longer"])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sqlstate.CannotOpen):
        sqlstate.open(path)
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_path_that_is_not_text_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(sqlstate.CannotOpen):
        sqlstate.open(tmp_path / os.fsdecode(b"\xff.db"))
    assert names(tmp_path) == []


# ---- What others left in the file ----


def test_a_planted_trigger_does_not_run(path: Path, open_store: OpenStore) -> None:
    make_store(path)
    events = [(table, event) for table in ("state", "wal", "merkle") for event in ("INSERT", "UPDATE", "DELETE")]
    by_another_program(
        path,
        "CREATE TABLE stolen (what)",
        *(
            f"CREATE TRIGGER {table}_{event} BEFORE {event} ON {table} BEGIN INSERT INTO stolen VALUES ('{event}'); END"
            for table, event in events
        ),
        "CREATE TRIGGER owned AFTER INSERT ON state BEGIN UPDATE state SET value = '\"owned\"'; END",
    )
    store = open_store()
    for write in (
        lambda: store["c"].__setitem__("k", 2),
        lambda: store["c"].update({i: i for i in range(100)}),
        lambda: store["c"].pop("1"),
    ):
        with pytest.raises(sqlstate.Damaged, match="trigger owned on state is not the store's"):
            write()
    assert dict(store["c"]) == EVERY_KIND | {"k": 1}
    store.close()
    with closing(plain.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM stolen").fetchall() == [(0,)]


def test_tables_and_views_of_others_are_let_be(path: Path, open_store: OpenStore) -> None:
    make_store(path)
    theirs = ("CREATE TABLE notes (a)", "INSERT INTO notes VALUES (1)", "CREATE VIEW mine AS SELECT key FROM state")
    by_another_program(path, *theirs)
    store = open_store()
    store["c"]["k"] = 2
    store.close()
    with closing(plain.connect(path)) as connection:
        assert connection.execute("SELECT * FROM notes").fetchall() == [(1,)]
        assert len(connection.execute("SELECT * FROM mine").fetchall()) == len(EVERY_KIND) + 1


# ---- Closing ----


METHODS = [
    (cls, name)
    for cls in (
        sqlstate.Store, sqlstate.WriteAheadLog, sqlstate.Collection, sqlstate.CollectionView, sqlstate.Snapshot,
        sqlstate.PastView, sqlstate.StagedTransaction,
    )
    for name in calls.used_methods(cls)
]  # fmt: skip


@pytest.mark.parametrize(("cls", "name"), METHODS, ids=[f"{cls.__name__}.{name}" for cls, name in METHODS])
def test_every_method_of_a_closed_store_says_that_it_is_closed(path: Path, cls: type, name: str) -> None:
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    staged, snapshot, past = store.stage(), store.snapshot(), store.at(1)
    handles = calls.Handles(store, store["c"], snapshot["c"], snapshot, store.wal, staged=staged, past=past)
    store.close()
    with pytest.raises(sqlstate.StoreClosed, match="closed") as caught:
        calls.call(cls, name, handles)
    assert str(path) in str(caught.value)
    snapshot.close()
    past.close()
    with closing(plain.connect(path)) as connection:
        assert connection.execute("SELECT count(*), max(seq) FROM wal").fetchall() == [(4, 1)]
    assert names(path.parent) == ["test.db"]


def test_every_class_that_can_be_used_is_in_the_calls() -> None:
    """Otherwise its methods would be nowhere in the tests above."""
    usable = {getattr(sqlstate, name) for name in sqlstate.__all__ if isinstance(getattr(sqlstate, name), type)}
    facts = (
        sqlstate.Attempts, sqlstate.AuditEntry, sqlstate.BackupReport, sqlstate.Change, sqlstate.CheckReport,
        sqlstate.Collision, sqlstate.CompactReport, sqlstate.RedactReport, sqlstate.Sizes,
        sqlstate.Counters, sqlstate.CutReport, sqlstate.Difference, sqlstate.Finding, sqlstate.ImportReport,
        sqlstate.MergeReport,
        sqlstate.Future, sqlstate.Head, sqlstate.JournalReport, sqlstate.Kind, sqlstate.Proof, sqlstate.Record,
        sqlstate.RecoveryReport, sqlstate.Refused, sqlstate.RepairReport, sqlstate.SignedHead, sqlstate.Signer,
        sqlstate.Stats, sqlstate.Uncommitted,
    )  # fmt: skip
    assert {cls for cls in usable if not issubclass(cls, Exception)} - set(facts) == set(calls.CALLS)
    for cls, reasons in calls.EXEMPT.items():
        assert set(reasons) <= set(calls.public_methods(cls))
        assert set(calls.CALLS[cls]) == set(calls.used_methods(cls))


def test_views_made_before_closing_refuse_too(path: Path) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
        collection = store["c"]
        views: list[Any] = [collection.keys(), collection.values(), collection.items(), collection.keys(limit=1)]
    for view in views:
        with pytest.raises(sqlstate.StoreClosed):
            len(view)
        with pytest.raises(sqlstate.StoreClosed):
            list(view)


def test_a_closed_store_is_one_file_and_closing_twice_does_nothing(path: Path) -> None:
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    assert len(names(path.parent)) == 4
    store.close()
    assert names(path.parent) == ["test.db"]
    before = image(path)
    store.close()
    with pytest.raises(sqlstate.StoreClosed):
        store.__enter__()
    store.__exit__(None, None, None)
    assert image(path) == before


def test_the_last_of_two_handles_leaves_one_file(path: Path) -> None:
    one, other = sqlstate.open(path), sqlstate.open(path)
    one["c"]["k"] = 1
    one.close()
    assert other["c"]["k"] == 1
    other["c"]["k"] = 2
    other.close()
    assert names(path.parent) == ["test.db"]
    assert plain.judge(path).seq == 2


def test_the_end_of_a_block_closes_the_store_also_by_an_exception(path: Path) -> None:
    with pytest.raises(RuntimeError, match="in the block"), sqlstate.open(path) as store:
        store["c"]["k"] = 1
        raise RuntimeError("in the block")
    with pytest.raises(sqlstate.StoreClosed):
        store.head()
    assert names(path.parent) == ["test.db"]


def test_closing_inside_a_transaction_of_the_same_thread_is_refused_and_harms_nothing(open_store: OpenStore) -> None:
    store = open_store()
    with store.transaction() as txn:
        txn.put("c", "k", 1)
        with pytest.raises(sqlstate.StoreUnusable, match="leave its block") as caught:
            store.close()
        assert type(caught.value) is sqlstate.StoreUnusable
        txn.put("c", "l", 2)
    assert (dict(store["c"]), store.head().seq) == ({"k": 1, "l": 2}, 1)


def test_closing_while_another_thread_has_a_transaction_waits_and_then_says_busy(open_store: OpenStore) -> None:
    store = open_store(timeout=0.01)
    with ThreadPoolExecutor(1) as pool:
        with store.transaction() as txn:
            txn.put("c", "k", 1)
            with pytest.raises(sqlstate.Busy):
                pool.submit(store.close).result()
            txn.put("c", "l", 2)
        be_patient(store)
        assert store.head().seq == 1
        pool.submit(store.close).result()
    with pytest.raises(sqlstate.StoreClosed):
        store.head()


def test_threads_that_close_at_once_close_it_once(path: Path) -> None:
    store = sqlstate.open(path, timeout=30)
    waiting = line_of_turns(store)
    with ThreadPoolExecutor(4) as pool:
        with store.transaction() as txn:
            txn.put("c", "k", 1)
            closings = [pool.submit(store.close) for _ in range(4)]
            waiting.came(len(closings))
        for each in closings:
            each.result()
    assert names(path.parent) == ["test.db"]
    assert plain.judge(path).seq == 1


def test_a_write_that_waited_while_the_store_was_closed_says_so(path: Path) -> None:
    store = sqlstate.open(path, timeout=30)
    come, go = threading.Event(), threading.Event()

    class Late(WriterLock):
        """A lock that a writer gets only after the store was closed."""

        def acquire(self, over: Any, timeout: float = -1) -> bool:
            if threading.current_thread() is not threading.main_thread():
                come.set()
                assert go.wait(30)
            return super().acquire(over, timeout)

    store._engine.writer_lock = Late()
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(store["c"].__setitem__, "k", 1)
        assert come.wait(30)
        store.close()
        go.set()
        with pytest.raises(sqlstate.StoreClosed, match="closed"):
            put.result()
    assert names(path.parent) == ["test.db"]
    assert plain.judge(path).seq == 0


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_store_closed_under_a_scan_and_a_snapshot_is_one_file_at_once_and_ends_them(path: Path, journal: str) -> None:
    store = sqlstate.open(path, journal=journal)  # type: ignore[arg-type]
    store["c"].update({i: i for i in range(1000)})
    scan = iter(store["c"])
    next(scan)
    snapshot = store.snapshot()
    scans = [scan, iter(snapshot["c"]), iter(snapshot["c"].items()), iter(store["c"].items(reverse=True))]
    for each in scans:
        next(each)
    store.close()
    assert names(path.parent) == ["test.db"]
    with pytest.raises(sqlstate.StoreClosed):
        snapshot.collections()
    for each in scans:
        with pytest.raises(sqlstate.TransactionEnded, match="the store was closed"):
            next(each)
        assert list(each) == []
    snapshot.close()
    assert names(path.parent) == ["test.db"]
    assert plain.judge(path).findings == ()


# ---- What it leaves in the process ----


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open descriptors")
@pytest.mark.parametrize("what", ["a store", "a text file", "a changed migration", "no store id"])
def test_opening_leaves_no_descriptor_and_no_warning(path: Path, what: str) -> None:
    (REFUSALS[what].make if what in REFUSALS else make_store)(path)

    def once() -> None:
        try:
            with sqlstate.open(path) as store:
                dict(store["c"])
                list(store.commits())
        except sqlstate.StoreError:
            assert what != "a store"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        once()
        gc.collect()
        before = descriptors()
        for _ in range(5):
            once()
        gc.collect()
        assert descriptors() == before
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize("what", ["renamed", "removed", "replaced"])
def test_a_file_that_lost_its_name_under_a_rollback_journal_is_said_to_have(tmp_path: Path, what: str) -> None:
    path = tmp_path / "app.db"
    store = sqlstate.open(path, journal="delete")
    store["c"]["k"] = 1
    make_store(tmp_path / "other.db", journal="delete")
    if what == "renamed":
        path.rename(tmp_path / "new.db")
    elif what == "removed":
        path.unlink()
    else:
        (tmp_path / "other.db").replace(path)
    with pytest.raises(
        sqlstate.StoreIOError, match=r"renamed, removed or replaced .*(?i:nothing was changed).*(?i:open the)"
    ):
        store["c"]["k"] = 2
    store.close()
