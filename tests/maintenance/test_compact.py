"""Goal: compacting gives free space back and changes nothing else; whatever comes between, the file is as it was or
compacted.

Method: free pages are made by a table of another program that is filled and dropped. Every store is judged by
tests/reference/plain.py when its test ends. Readers, writers and drafts of this process and of others are open
meanwhile; system calls fail, disks are full, and a process forks.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import sqlstate
from sqlstate.errors import (
    Busy,
    Damaged,
    JournalDamaged,
    ReadOnly,
    StoreClosed,
    StoreError,
    StoreForked,
    StoreFull,
    StoreIOError,
    StoreUnusable,
)
from sqlstate.maintenance import compact
from sqlstate.sqlite import copying
from tests.files.test_replace import names
from tests.reference import plain
from tests.support.child import Child
from tests.support.failing import FailingVFS
from tests.support.images import image, leaf_of_state
from tests.support.mounts import fill as fill_disk
from tests.support.mounts import small
from tests.support.system import needs_fork

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlstate import Store
    from tests.conftest import OpenStore

PAGE = 4096
JOURNALS = ("wal", "delete")
both = pytest.mark.parametrize("journal", JOURNALS)


def fill(store: Store, entries: int = 500) -> None:
    store["c"].update({number: "x" * (number % 300) for number in range(entries)})
    store["d"].update({"text": [1], b"bytes": b"\0"})
    store["c"].update({number: number for number in range(0, entries, 3)})
    for number in range(5):
        store["c"][number] = "x" * number


def checkpoint(store: Store) -> None:
    """Move SQLite's WAL into the file; another process may be doing it."""
    while True:
        try:
            store._engine.checkpointer.run()
        except Busy:
            time.sleep(0.001)
        else:
            return


def free(store: Store, pages: int = 400, *, alone: bool = True) -> None:
    """Let another program's table come and go, and leave so many free pages in the file; other writers take some."""
    connection = store._engine.write_connection
    connection.run("CREATE TABLE foreign_cache (content)")
    connection.run("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                   "INSERT INTO foreign_cache SELECT zeroblob(4000) FROM n", (pages,))  # fmt: skip
    connection.run("DROP TABLE foreign_cache")
    store["c"]["freed"] = pages
    if store._engine.journal == "wal":
        checkpoint(store)
    assert store.path.stat().st_size >= pages * PAGE
    if alone:
        assert store.sizes().free >= (pages - 4) * PAGE, "the put has taken some"


def content(store: Store) -> dict[str, Any]:
    """All that compacting must not change, down to the rows and their ids."""
    tables = "state merkle wal staged log_blocks cut_commits claims digest_logs schema_migrations"
    read = store._engine.write_connection.rows
    rows = {table: sorted(read(f"SELECT * FROM {table}"), key=repr) for table in tables.split()}
    return {"head": store.head(), "commits": list(store.commits()), "recovery": store.recovery, **rows}


@contextmanager
def unchanged(store: Store) -> Iterator[None]:
    """The block changes nothing of the store."""
    before = content(store)
    yield
    assert content(store) == before
    assert store.check().findings == ()
    assert store.check_audit() == []


def copied(path: Path, to: Path) -> None:
    """Copy the files of an open store as a kill would leave them; in another process, for the sake of our locks."""
    with Child("copies", path, to, "-wal", "-acknowledged") as child:
        child.expects("copied")


def never(done: int, total: int) -> None:
    pytest.fail(f"{done} of {total}: what is refused is refused before the work")


# ---- What it gives back ----


@both
def test_free_space_is_given_back_and_nothing_else_changes(open_store: OpenStore, path: Path, journal: str) -> None:
    store = open_store(journal=journal)
    fill(store)
    store["gone"].update(dict.fromkeys(range(300), "y" * 500))
    store["gone"].clear()
    free(store)
    used = store.sizes()
    told: list[tuple[int, int]] = []
    with unchanged(store):
        report = store.compact(lambda done, total: told.append((done, total)))
    assert report.shrunk
    assert report.bytes_before == sum(used)
    assert report.bytes_after == path.stat().st_size <= report.bytes_before - used.free
    assert store.sizes().free == 0
    [entry] = [entry for entry in store.audit() if entry.kind == "compact"]
    assert entry.number == report.entry
    assert entry.detail == {"before": report.bytes_before, "after": report.bytes_after}
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    store["c"]["more"] = 1
    assert path.with_name("test.db-wal").exists() == (journal == "wal")
    store.close()
    assert path.stat().st_size <= report.bytes_after + 4 * PAGE
    assert names(path.parent) == ["test.db"]


@both
def test_pages_that_are_half_empty_are_packed_too(open_store: OpenStore, path: Path, journal: str) -> None:
    store = open_store(journal=journal)
    keys = list(range(4000))
    random.Random(1).shuffle(keys)  # noqa: S311, no secret
    with store.batch() as batch:
        for key in keys:
            batch["c"][key] = "x" * 50
    before = store.sizes()
    with unchanged(store):
        report = store.compact()
    assert store.sizes().entries < before.entries * 0.9
    assert report.bytes_after < report.bytes_before


def test_compacting_twice_is_compacting_once(store: Store) -> None:
    fill(store)
    free(store)
    first = store.compact()
    with unchanged(store):
        second = store.compact()
    assert second.bytes_after <= first.bytes_after + PAGE


@both
def test_an_empty_store_is_compacted(open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal)
    with unchanged(store):
        assert store.compact().shrunk
    store["c"]["k"] = 1


def test_tables_of_other_programs_stay(store: Store) -> None:
    fill(store)
    connection = store._engine.write_connection
    connection.run("CREATE TABLE theirs (id INTEGER PRIMARY KEY, v UNIQUE); CREATE VIEW seen AS SELECT v FROM theirs")
    connection.run("CREATE TRIGGER they AFTER INSERT ON theirs BEGIN DELETE FROM theirs WHERE v = 7; END")
    connection.run_many("INSERT INTO theirs VALUES (?, ?)", [(number * 3, number) for number in range(50)])
    rows = connection.rows("SELECT * FROM theirs")
    free(store)
    with unchanged(store):
        store.compact()
    assert connection.rows("SELECT * FROM theirs") == rows
    assert set(store.check().foreign) == {"theirs", "seen", "they"}


def test_a_table_that_only_its_own_program_can_write_is_named(path: Path) -> None:
    sqlstate.open(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.create_function("theirs", 1, lambda value: value, deterministic=True)
        db.executescript("CREATE TABLE t (a, b AS (theirs(a)) STORED); INSERT INTO t (a) VALUES (1)")
    with sqlstate.open(path) as store:
        fill(store)
        free(store)
        before = content(store)
        with pytest.raises(StoreError, match=r"no such function: theirs.*nothing was changed") as caught:
            store.compact()
        assert type(caught.value) is StoreError  # and no damage
        assert content(store) == before
        store["c"]["k"] = 1
        store._engine.write_connection.run("DROP TABLE t")
        assert store.compact().shrunk


# ---- Beside others ----


def test_a_snapshot_and_a_scan_go_on_and_the_file_shrinks_after_them(open_store: OpenStore, path: Path) -> None:
    store = open_store()
    fill(store)
    free(store)
    entries = dict(store["c"].items())
    before = path.stat().st_size
    scan = iter(store["c"].items())
    seen = [next(scan)]
    with store.snapshot() as view:
        store["c"]["later"] = 1
        report = store.compact()
        assert not report.shrunk
        assert path.stat().st_size >= before
        assert dict(view["c"].items()) == entries
        assert len(view["d"]) == 2
        seen += scan
        assert store["c"]["later"] == 1
        store["c"]["after"] = 2
        assert "after" not in view["c"]
    assert dict(seen) == entries
    assert report.bytes_after < report.bytes_before - 400 * PAGE
    store.close()
    assert path.stat().st_size <= report.bytes_after + 8 * PAGE


def test_a_reader_of_another_process_keeps_what_it_sees(open_store: OpenStore, path: Path) -> None:
    store = open_store()
    fill(store)
    free(store)
    with Child("serves", path, '{"timeout": 30}') as child:
        child.expects("ready")
        child.tell()
        child.says()
        child.tell('["hold"]')
        child.says()
        with unchanged(store):
            report = store.compact()
        assert not report.shrunk
        child.tell('["get", "c", 4]')
        child.expects({"answer": "x" * 4})
        child.tell('["let_go"]')
        child.says()
        child.tell('["put", "c", "theirs", 1]')
        child.says()
        assert store.compact().shrunk
        assert path.stat().st_size < 400 * PAGE
        child.tell('["close"]')
        child.says()
    assert store["c"]["theirs"] == 1


@both
@pytest.mark.slow
def test_writers_of_other_processes_and_threads_write_before_and_after(path: Path, journal: str) -> None:
    with sqlstate.open(path, journal=journal, timeout=30) as store:  # type: ignore[arg-type]
        store["left"].update(dict.fromkeys(range(10), 100))
        store["right"].update(dict.fromkeys(range(7), 0))
        with Child("moves", path) as one, Child("moves", path) as other:
            for number in range(6):
                free(store, 50, alone=False)
                with store.snapshot() as view:
                    assert sum(view["left"].values()) + sum(view["right"].values()) == 1000
                    if journal == "wal":
                        store.compact()
                        assert sum(view["left"].values()) + sum(view["right"].values()) == 1000
                store.compact()
                store["c"][number] = number
            one.tell()
            other.tell()
            assert one.says() > 0
            assert other.says() > 0
        assert store.sizes().free == 0
    assert plain.judge(path, history=5).findings == ()


@both
@pytest.mark.parametrize("mode", ["full", "group"])
def test_writes_of_other_threads_wait_and_are_made(open_store: OpenStore, journal: str, mode: str) -> None:
    store = open_store(journal=journal, mode=mode, timeout=30)
    fill(store, 100)
    free(store)
    started = threading.Event()
    threads: list[threading.Thread] = []

    def write(number: int) -> None:
        started.wait()
        store["t"][number] = number

    def progress(done: int, total: int) -> None:
        started.set()

    def submitted(txn: sqlstate.Transaction) -> None:
        txn.put("f", len(txn["f"]), 1)

    futures = [store.submit(submitted) for _ in range(5)]
    for number in range(4):
        threads.append(threading.Thread(target=write, args=(number,)))
        threads[-1].start()
    store.compact(progress)
    for thread in threads:
        thread.join()
    for future in futures:
        future.result()
    assert len(store["t"]) == 4
    assert len(store["f"]) == 5
    assert store.check().ok


@both
def test_drafts_stay_drafts(open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal)
    fill(store)
    free(store)
    drafts = [store.stage("kept"), store.stage("undone")]
    for draft in drafts:
        draft.put("letters", 1, "Dear")
        draft.delete("c", 1)
    with unchanged(store):
        store.compact()
    assert drafts[0].get("letters", 1) == "Dear"
    drafts[1].rollback()
    drafts[0].put("letters", 2, "Yours")
    drafts[0].commit()
    assert dict(store["letters"]) == {1: "Dear", 2: "Yours"}


@both
def test_another_handle_of_the_process_goes_on(open_store: OpenStore, journal: str) -> None:
    store, other = open_store(journal=journal), open_store(journal=journal)
    fill(store)
    free(store)
    other["o"][1] = 1
    with unchanged(store):
        other.compact()
    store["o"][2] = 2
    with store.transaction() as txn:
        txn["o"][3] = txn["o"][1] + 2
    assert dict(other["o"]) == {1: 1, 2: 2, 3: 3}
    assert store.sizes().free == 0


# ---- What is refused ----


def test_inside_a_transaction_or_batch_it_is_refused(store: Store) -> None:
    fill(store)
    for block in (store.transaction, store.batch):
        with pytest.raises(StoreUnusable, match=r"compact\(\) cannot be called inside"), block() as txn:
            txn.put("c", "k", 1)
            store.compact(never)
        assert "k" not in store["c"]
    with store.transaction() as txn:
        txn.put("c", "k", 1)
        with pytest.raises(StoreUnusable):
            store.compact(never)
        txn.put("c", "k", 2)
    assert store["c"]["k"] == 2
    assert store.compact().shrunk


def test_a_handle_that_may_not_write_does_not_compact(open_store: OpenStore, path: Path) -> None:
    store = open_store()
    fill(store)
    with sqlstate.open(path, read_only=True) as reader, pytest.raises(ReadOnly, match="nothing was changed"):
        reader.compact(never)
    store.close()
    before = image(path)
    with sqlstate.open(path, read_only=True) as reader, pytest.raises(ReadOnly):
        reader.compact(never)
    with pytest.raises(StoreClosed):
        store.compact(never)
    assert image(path) == before


@both
def test_while_others_write_it_is_busy_and_changes_nothing(open_store: OpenStore, path: Path, journal: str) -> None:
    store = open_store(journal=journal, timeout=0.2)
    store["left"].update(dict.fromkeys(range(10), 100))
    store["right"].update(dict.fromkeys(range(10), 0))
    free(store)
    with Child("holds", path) as child:
        child.expects("holding")
        with pytest.raises(Busy, match="nothing was changed"):
            store.compact()
        child.tell()
        child.expects("committed")
        child.tell()
        child.ends()
    with unchanged(store):
        assert store.compact().shrunk


def test_without_sqlites_wal_a_reader_makes_it_busy(open_store: OpenStore) -> None:
    store = open_store(journal="delete", timeout=0.2)
    fill(store)
    free(store)
    with unchanged(store), store.snapshot() as view, pytest.raises(Busy, match="nothing was changed"):
        store.compact()
    assert len(view.head.root) == 32
    assert store.compact().shrunk


@pytest.mark.parametrize("what", ["structure", "schema", "newest commit", "root"])
def test_a_damaged_store_is_not_written_again(path: Path, what: str) -> None:
    with sqlstate.open(path) as store:
        fill(store)
        free(store)
    if what == "structure":
        page = leaf_of_state(path)
        raw = bytearray(path.read_bytes())
        raw[(page - 1) * PAGE + 5 : (page - 1) * PAGE + 7] = (3000).to_bytes(2)  # where its cells begin
        path.write_bytes(raw)
    else:
        sql = {
            "schema": "CREATE INDEX theirs ON state (value)",
            "newest commit": "UPDATE wal SET chain = zeroblob(32) WHERE lsn = (SELECT max(lsn) FROM wal)",
            "root": "DELETE FROM merkle WHERE level = (SELECT max(level) FROM merkle)",
        }[what]
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(sql)
    before = plain_bytes(path)
    with sqlstate.open(path) as store, pytest.raises(Damaged, match="nothing was changed"):
        store.compact(never)
    assert plain_bytes(path) == before
    assert names(path.parent) == ["test.db"]


def plain_bytes(path: Path) -> bytes:
    """The bytes of a closed file, without SQLite's counters of changes in its header."""
    raw = path.read_bytes()
    return raw[:24] + raw[28:92] + raw[96:]


def test_what_is_wrong_afterwards_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that changes what is written to it, for one."""
    fill(store)
    real = copying.vacuum

    def spoil(connection: Any) -> None:
        real(connection)
        connection.run("CREATE INDEX theirs ON state (value)")

    monkeypatch.setattr(compact, "vacuum", spoil)
    with pytest.raises(Damaged, match=r"theirs.*was written again.*store\.check"):
        store.compact()
    store._engine.write_connection.run("DROP INDEX theirs")


@needs_fork
@both
def test_the_child_of_a_fork_is_refused_and_its_parent_goes_on(path: Path, journal: str) -> None:
    with sqlstate.open(path, journal=journal) as store:  # type: ignore[arg-type]
        fill(store)
        free(store)
        parent = os.getpid()
        codes: list[int] = []

        def progress(done: int, total: int) -> None:
            if os.getpid() == parent and (pid := os.fork()):
                codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        try:
            with unchanged(store):
                store.compact(progress)
        except BaseException as e:  # whatever it is, the child ends here
            if os.getpid() != parent:
                os._exit(17 if isinstance(e, StoreForked) else 18)
            raise
        if os.getpid() != parent:
            os._exit(19)
        assert codes == [17] * 4
        pid = os.fork()
        if pid == 0:
            try:
                store.compact()
            except StoreForked:
                os._exit(17)
            finally:
                os._exit(18)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
        store["c"]["k"] = 1
        assert store.sizes().free == 0
    assert plain.judge(path).findings == ()


# ---- What comes between ----


class Left(BaseException):
    """What a program raises."""


@both
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_what_progress_raises_ends_it_with_the_file_as_it_was_or_compacted(
    open_store: OpenStore, path: Path, journal: str, at: int
) -> None:
    store = open_store(journal=journal)
    fill(store, 300)
    free(store)
    size = path.stat().st_size

    def progress(done: int, total: int) -> None:
        if done == at:
            raise Left

    with unchanged(store), pytest.raises(Left) as caught:
        store.compact(progress)
    assert (store.sizes().free > 300 * PAGE) == (at == 1)
    store["c"]["after"] = 1
    with unchanged(store):
        assert store.compact().shrunk
    assert path.stat().st_size < size - 300 * PAGE
    assert caught.value.__traceback__ is not None  # it was kept, with all its frames


def test_progress_can_read_the_store_and_not_close_it_while_it_is_locked(store: Store) -> None:
    fill(store)
    free(store)
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(store["c"][4])
        if done == 2:
            with pytest.raises(StoreUnusable):
                store["c"][4] = 1
            with pytest.raises(StoreUnusable):
                store.close()
            with pytest.raises(StoreUnusable):
                store.compact()

    with unchanged(store):
        store.compact(progress)
    assert seen == ["x" * 4] * 4


def test_a_store_that_is_closed_meanwhile_says_so(path: Path) -> None:
    store = sqlstate.open(path)
    fill(store)
    with pytest.raises(StoreClosed):
        store.compact(lambda *_: store.close())
    assert plain.judge(path).findings == ()
    assert names(path.parent) == ["test.db"]


def test_ctrl_c_ends_it_while_sqlite_is_at_work(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 3000)
    free(store)
    monkeypatch.setattr(copying, "_STEPS", 100)
    watch = store._engine.write_connection._sqlite
    busy = threading.Event()

    def interrupt() -> None:
        busy.wait()
        while True:
            try:
                watch.in_transaction  # noqa: B018, asked for what it raises
            except apsw.ThreadingViolationError:
                break
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with unchanged(store), pytest.raises(KeyboardInterrupt):
        store.compact(lambda *_: busy.set())
    thread.join()
    with unchanged(store):
        assert store.compact().shrunk


@pytest.mark.parametrize("fails", ["sync wal", "write wal", "sync main", "write main"])
def test_after_a_call_that_failed_the_file_is_as_it_was_or_compacted(tmp_path: Path, fails: str) -> None:
    vfs = FailingVFS()
    path = tmp_path / "test.db"
    store = sqlstate.open(path, vfs="failing", cache_bytes=1 << 20)
    fill(store, 4000)
    free(store)
    before = content(store)
    vfs.fails = fails
    with pytest.raises(StoreIOError, match=r"durable|Nothing that was committed is lost") as caught:
        store.compact()
    assert "Open the store again" in str(caught.value) or "open the store again" in str(caught.value)
    with pytest.raises(StoreError):
        store["c"][1] = 1
    store.close()
    with sqlstate.open(path) as again:
        assert content(again) | {"recovery": None} == before | {"recovery": None}
        assert again.check().ok
        assert again.compact().shrunk
        assert again.sizes().free == 0
    del vfs
    assert plain.judge(path).findings == ()


NO_TEMPORARY = "no temporary files"


class WithoutTemporaryFiles(apsw.VFS):
    """The system's files, and no temporary ones."""

    refused = 0

    def __init__(self, error: int) -> None:
        self.error = error
        super().__init__(NO_TEMPORARY, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802, as SQLite's
        if name is None:
            self.refused += 1
            raise apsw.exception_for(self.error)
        return apsw.VFSFile("", name, flags)


@both
@pytest.mark.parametrize("error", [apsw.SQLITE_CANTOPEN, apsw.SQLITE_IOERR_GETTEMPPATH])
def test_where_no_temporary_file_can_be_made_memory_does(path: Path, journal: str, error: int) -> None:
    vfs = WithoutTemporaryFiles(error)
    with sqlstate.open(path, journal=journal, vfs=NO_TEMPORARY, cache_bytes=1 << 20) as store:  # type: ignore[arg-type]
        fill(store, 4000)
        free(store)
        with unchanged(store):
            assert store.compact().shrunk
        assert vfs.refused == 1
        assert store.sizes().free == 0
        assert store._engine.write_connection.value("PRAGMA temp_store") == 0
    assert plain.judge(path).findings == ()


@both
def test_on_a_full_disk_nothing_is_changed_and_the_room_is_named(tmp_path: Path, journal: str) -> None:
    with small(tmp_path / "disk", 12) as disk:
        path = disk / "test.db"
        with sqlstate.open(path, journal=journal) as store:  # type: ignore[arg-type]
            fill(store, 3000)
            free(store, 20)
        with sqlstate.open(path) as store:  # with a new -wal
            store["c"]["k"] = 0
            fill_disk(disk)
            with unchanged(store), pytest.raises(StoreFull, match=r"no room .* nothing was changed.* SQLITE_TMPDIR"):
                store.compact()
            (disk / "filler").unlink()
            with unchanged(store):
                assert store.compact().shrunk
            store["c"]["k"] = 1
        assert names(disk) == ["test.db"]
        assert plain.judge(path).findings == ()


def test_the_file_says_before_that_there_is_more_in_its_wal(path: Path, tmp_path: Path) -> None:
    """Also if nothing else was written since it was opened: a missing -wal is then noticed."""
    with sqlstate.open(path) as store:
        fill(store)
        free(store)

    def progress(done: int, total: int) -> None:
        if done == 2:
            copied(path, tmp_path / "copy.db")

    with sqlstate.open(path) as store:
        store.compact(progress)
    (tmp_path / "copy.db-wal").unlink()
    with pytest.raises(JournalDamaged):
        sqlstate.open(tmp_path / "copy.db")


def test_a_crash_behind_it_is_recovered(open_store: OpenStore, path: Path, tmp_path: Path) -> None:
    """What a kill leaves while SQLite's WAL has the compacted file, and the main file is as large as before."""
    store = open_store()
    fill(store)
    free(store)
    with store.snapshot():
        report = store.compact()
        store["c"]["acknowledged"] = 1
        copied(path, tmp_path / "copy.db")
    assert not report.shrunk
    copy = tmp_path / "copy.db"
    assert copy.stat().st_size > 400 * PAGE
    with sqlstate.open(copy) as found:
        assert found.recovery.journal.committed > report.bytes_after // PAGE // 2
        assert found["c"]["acknowledged"] == 1
        assert found.check().findings == ()
    assert copy.stat().st_size <= report.bytes_after + 8 * PAGE
    assert plain.judge(copy).findings == ()


@pytest.mark.parametrize("later", [1, 30])
def test_the_wal_of_a_compaction_beside_a_newer_file_is_refused(path: Path, tmp_path: Path, later: int) -> None:
    """That the file is larger than its -wal says may be so after a compaction, and not before one."""
    with sqlstate.open(path) as store:
        fill(store)
        free(store)
        with store.snapshot():
            store.compact()
            older = path.with_name("test.db-wal").read_bytes()
        for number in range(later):
            store["later"][number] = "x" * 2000
        free(store)
    path.with_name("test.db-wal").write_bytes(older)
    before = path.read_bytes()
    with pytest.raises(JournalDamaged, match="nothing was merged"):
        sqlstate.open(path)
    assert path.read_bytes() == before
    path.with_name("test.db-wal").unlink()
    with sqlstate.open(path) as store:
        assert len(store["later"]) == later


def test_a_store_that_is_compacted_and_then_grows_again_is_recovered(path: Path, tmp_path: Path) -> None:
    """Pages that a later transaction took and gave back may be nowhere: neither in the -wal nor of use."""
    store = sqlstate.open(path)
    fill(store)
    free(store)
    with store.snapshot():
        store.compact()
        store["big"].update(dict.fromkeys(range(40), "y" * 9000))
        store["big"].clear()
        with store.transaction() as txn:
            for number in range(40):
                txn.put("big", number, "z" * 20_000)
                txn.collections()  # carries the write into the tables
                txn.delete("big", number)
            txn.put("c", "last", 1)
        copied(path, tmp_path / "copy.db")
    store.close()
    with sqlstate.open(tmp_path / "copy.db") as found:
        assert found["c"]["last"] == 1
        assert found.check().findings == ()
    assert plain.judge(tmp_path / "copy.db").findings == ()


def test_a_cache_that_was_cleared_and_cut_is_small(open_store: OpenStore, path: Path, tmp_path: Path) -> None:
    store = open_store(log_limit=None)
    for number in range(1024):
        store["cache"][number] = os.urandom(1 << 16)
    store["cache"].clear()
    store.cut(before=store.head().seq + 1)
    assert store.backup(tmp_path / "backup.db").bytes <= 1 << 20
    with unchanged(store):
        assert store.compact().bytes_after <= 1 << 20
    store.close()
    assert path.stat().st_size <= 1 << 20


def test_a_store_of_which_most_was_deleted_and_cut_is_as_large_as_its_content(
    open_store: OpenStore, path: Path
) -> None:
    store, alone = open_store(), open_store(path.with_name("alone.db"))
    store["c"].update(dict.fromkeys(range(30000), "x" * 50))
    with store.transaction() as txn:
        for number in range(1000, 30_000):
            txn.delete("c", number)
    store.cut(before=store.head().seq + 1)
    alone["c"].update(dict.fromkeys(range(1000), "x" * 50))
    alone.cut(before=2)
    assert store.compact().bytes_after <= alone.compact().bytes_after * 1.1
