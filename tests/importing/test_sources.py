"""Sources are only read: not a byte of them changes, no file is made beside them, and what moves meanwhile is noticed.

Method: files as programs leave them, among them programs that were really killed, and programs that still run.
"""

from __future__ import annotations

import dbm.dumb
import os
import shelve
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import Busy, ImportRejected
from sqlstate.importing import foreign_sqlite
from sqlstate.sqlite.lock_holders import is_locked
from tests.support.mounts import as_user
from tests.support.system import says_it_is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate import ImportReport, Store

NOBODY = 65534
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says who has a file open")


@contextmanager
def program(source: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until it has printed a line; it waits then, and is killed at the end of the block."""
    command = [sys.executable, "-c", f"{source}\nprint('ready', flush=True)\nimport time\ntime.sleep(600)"]
    with subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().rstrip() == b"ready"
            yield process
        finally:
            process.kill()


def killed(source: str, *arguments: object) -> None:
    """Run a program, and kill it when it has printed a line."""
    with program(source, *arguments):
        pass


def kept(folder: Path) -> dict[str, bytes]:
    """The bytes of each file in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- Files as programs leave them ----

FILL = """
import pickle, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = " + sys.argv[2])
db.execute("CREATE TABLE old (key TEXT PRIMARY KEY, value BLOB)")
for number in range(200):
    db.execute("INSERT INTO old VALUES (?, ?)", (f"k{number}", pickle.dumps([number])))
"""
UNDER_WAY = """
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE old SET value = ?", (pickle.dumps("never committed"),))
db.execute("INSERT INTO old VALUES ('more', ?)", (pickle.dumps("x" * 100_000),))
"""


def make_sqlite(path: Path, mode: str, *, closed: bool = True) -> None:
    if closed:
        subprocess.run([sys.executable, "-c", FILL + "db.close()", path, mode], check=True)
    else:
        killed(FILL + UNDER_WAY, path, mode)


def make_dumb(path: Path, count: int = 3) -> None:
    with closing(dbm.dumb.open(str(path), "c")) as file:
        for number in range(count):
            file[f"k{number}"] = b"%d" % number


def make_diskcache(path: Path) -> None:
    diskcache = pytest.importorskip("diskcache", reason="diskcache is not installed")
    with diskcache.Cache(str(path)) as cache:
        cache["a"], cache["b"] = [1], "x" * 100_000


def make_lmdb(path: Path, *, lock: bool = True) -> None:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as txn:
        for number in range(500):
            txn.put(b"%d" % number, b"x" * 100)
    if not lock:
        (path / "lock.mdb").unlink()


def make_shelve(path: Path) -> None:
    with shelve.open(str(path)) as file:  # noqa: S301
        file["a"], file["b"] = [1], 1j


def make_tinydb(path: Path) -> None:
    path.write_text('{"t":{"1":{"a":1}}}', encoding="utf-8")


def make_dir(path: Path) -> None:
    path.mkdir()
    (path / "a.json").write_text("[1]", encoding="utf-8")


LEFT: dict[str, tuple[str, Callable[[Path], None], int]] = {
    "shelve": ("shelve", make_shelve, 1),
    "dbm": ("dbm", make_dumb, 3),
    "sqlitedict": ("sqlitedict", lambda path: make_sqlite(path, "DELETE"), 200),
    "sqlitedict in WAL mode": ("sqlitedict", lambda path: make_sqlite(path, "WAL"), 200),
    "sqlitedict, killed": ("sqlitedict", lambda path: make_sqlite(path, "DELETE", closed=False), 200),
    "sqlitedict in WAL mode, killed": ("sqlitedict", lambda path: make_sqlite(path, "WAL", closed=False), 200),
    "diskcache": ("diskcache", make_diskcache, 2),
    "lmdb": ("lmdb", make_lmdb, 500),
    "lmdb without a lock file": ("lmdb", lambda path: make_lmdb(path, lock=False), 500),
    "tinydb": ("tinydb", make_tinydb, 1),
    "dir": ("dir", make_dir, 1),
}


@pytest.mark.parametrize("left", LEFT)
def test_not_a_byte_of_a_source_changes_and_no_file_is_made(left: str, store: Store, tmp_path: Path) -> None:
    kind, make, count = LEFT[left]
    folder = tmp_path / "there"
    folder.mkdir()
    make(folder / "old")
    before = kept(folder)
    if "killed" in left:
        assert any(name.endswith(("-wal", "-journal")) and len(raw) > 1000 for name, raw in before.items())
    sqlstate.import_from(store, kind, folder / "old", dry_run=True)  # type: ignore[arg-type]
    assert kept(folder) == before
    if kind == "shelve":
        with pytest.raises(ImportRejected):
            sqlstate.import_from(store, kind, folder / "old")  # type: ignore[arg-type]
        assert kept(folder) == before
    done = sqlstate.import_from(store, kind, folder / "old", skip_refused=True, collection="c")  # type: ignore[arg-type]
    assert done.entries == count
    assert kept(folder) == before
    if kind == "sqlitedict":
        assert dict(store["c"]) == {f"k{number}": [number] for number in range(count)}, "what was not committed"


def test_a_source_in_a_folder_that_may_not_be_written_is_read() -> None:
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = folder / "own"
        make_sqlite(folder / "closed", "WAL")
        make_sqlite(folder / "killed", "WAL", closed=False)
        with sqlstate.open(folder / "first.db") as first:  # loads what the other user may not read
            sqlstate.import_from(first, "sqlitedict", folder / "killed", dry_run=True)
        own.mkdir()
        own.chmod(0o777)
        folder.chmod(0o755)
        before = kept(folder)

        def work() -> None:
            with sqlstate.open(own / "app.db") as store:
                for left in ("closed", "killed"):
                    done = sqlstate.import_from(store, "sqlitedict", folder / left, collection=left)
                    assert done.changed == 200

        as_user(NOBODY, work)
        assert {key: raw for key, raw in kept(folder).items() if not key.startswith("own")} == before


# ---- Files that other programs have open ----


def test_a_file_that_another_program_writes_to_is_read_at_one_commit(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "old"
    for mode in ("WAL", "DELETE"):
        with program(FILL + 'db.execute("BEGIN IMMEDIATE")\ndb.execute("DELETE FROM old")', path, mode):
            names = {each.name: each.read_bytes() for each in tmp_path.glob("old*") if not each.name.endswith("-shm")}
            assert sqlstate.import_from(store, "sqlitedict", path, collection=mode).read == 200
            assert {name: (tmp_path / name).read_bytes() for name in names} == names
        for each in tmp_path.glob("old*"):
            each.unlink()
    assert dict(store["WAL"]) == dict(store["DELETE"])


def test_an_environment_of_lmdb_that_another_program_writes_to_is_read(store: Store, tmp_path: Path) -> None:
    make_lmdb(tmp_path / "old")
    opens = "import lmdb, sys\nenvironment = lmdb.open(sys.argv[1])\n"
    with program(opens + "txn = environment.begin(write=True)\ntxn.put(b'new', b'1')", tmp_path / "old"):
        data = (tmp_path / "old/data.mdb").read_bytes()
        assert sqlstate.import_from(store, "lmdb", tmp_path / "old").changed == 500
        assert (tmp_path / "old/data.mdb").read_bytes() == data


def test_a_file_that_another_program_has_locked_is_busy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_sqlite, "_TIMEOUT", 0.01)
    for mode in ("WAL", "DELETE"):
        path = tmp_path / f"old {mode}"
        locks = "db.execute('PRAGMA locking_mode = EXCLUSIVE')\ndb.execute('BEGIN EXCLUSIVE')"
        with program(FILL + locks, path, mode), pytest.raises(Busy, match="has it locked; end that program"):
            sqlstate.import_from(store, "sqlitedict", path)
    assert store.head().seq == 0


@needs_linux
def test_a_file_that_is_open_in_this_process_is_refused_and_keeps_its_locks(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "old"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE old (key TEXT PRIMARY KEY, value BLOB)")
        db.execute("BEGIN IMMEDIATE")
        assert is_locked(str(path))
        for kind in ("sqlitedict", "dbm", "shelve", "tinydb"):
            with pytest.raises(ImportRejected, match="open in this process; close it first"):
                sqlstate.import_from(store, kind, path)
        done = sqlstate.import_from(store, "dir", tmp_path, dry_run=True)
        assert ("'old'", "it is open in this process") in [(each.key, each.reason) for each in done.refused]
        assert is_locked(str(path))
        db.execute("COMMIT")
    assert sqlstate.import_from(store, "sqlitedict", path).read == 0


# ---- Files that change, vanish or are damaged meanwhile ----


def meddling(store: Store, kind: str, path: Path, meddle: Callable[[], object], **options: Any) -> ImportReport:
    """Import, and meddle with the source after 512 entries."""

    def shown(done: int, _total: int | None) -> None:
        if done == 512:
            meddle()

    return sqlstate.import_from(store, kind, path, progress=shown, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [None, 100])
@pytest.mark.parametrize("meddle", ["change", "replace", "remove"])
def test_a_dbm_file_that_changes_meanwhile_is_noticed(
    meddle: str, batch: int | None, store: Store, tmp_path: Path
) -> None:
    make_dumb(tmp_path / "old", 1000)

    def change() -> None:
        if meddle == "remove":
            (tmp_path / "old.dat").unlink()
            return
        make_dumb(tmp_path / ("old" if meddle == "change" else "other"), 1001)
        if meddle == "replace":
            (tmp_path / "other.dat").replace(tmp_path / "old.dat")

    with pytest.raises(ImportRejected, match="it changed while it was read") as caught:
        meddling(store, "dbm", tmp_path / "old", change, batch=batch)
    assert store.head().count == (500 if batch else 0)
    assert caught.value.__notes__[-1] == ("nothing of this transaction was kept" if batch else "nothing was imported")


def test_files_of_a_directory_that_vanish_meanwhile_are_listed(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for number in range(600):
        (folder / f"{number:03}.json").write_text(str(number), encoding="utf-8")
    done = meddling(store, "dir", folder, lambda: (folder / "590.json").unlink(), skip_refused=True)
    assert [(each.key, each.reason) for each in done.refused] == [
        ("'590.json'", f"its file cannot be read: {says_it_is_missing()}")
    ]
    assert len(store["d"]) == 599


def test_an_sqlite_file_that_vanishes_or_is_asked_for_meanwhile_is_read_to_its_end(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "old"
    subprocess.run([sys.executable, "-c", FILL.replace("200", "600"), path, "WAL"], check=True)
    asked: list[int] = []
    asks = "import sqlite3, sys\nsqlite3.connect(sys.argv[1], timeout=0).execute('DELETE FROM old')"

    def meddle() -> None:
        asked.append(subprocess.run([sys.executable, "-c", asks, path], check=False, capture_output=True).returncode)
        path.unlink()

    with pytest.raises(ImportRejected, match="it changed while it was read"):
        meddling(store, "sqlitedict", path, meddle)
    assert asked == [1], "another program could write to the file, which was read without SQLite's own files"
    assert store.head().count == 0


def test_an_lmdb_file_that_changes_while_it_is_read_without_its_lock_file_is_noticed(
    store: Store, tmp_path: Path
) -> None:
    make_lmdb(tmp_path / "old")
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    with lmdb.open(str(tmp_path / "old")) as environment, environment.begin(write=True) as txn:
        for number in range(500, 600):
            txn.put(b"%d" % number, b"x")
    writes = "import lmdb, sys\nwith lmdb.open(sys.argv[1]).begin(write=True) as txn: txn.put(b'new', b'1')"

    def meddle() -> None:
        subprocess.run([sys.executable, "-c", writes, tmp_path / "old"], check=True)

    with pytest.raises(ImportRejected, match="it changed while it was read"):
        meddling(store, "lmdb", tmp_path / "old", meddle)
    assert store.head().count == 0


def used_bytes(folder: Path) -> int:
    """How much of an LMDB file is in use. On Windows LMDB makes it as long as it may become."""
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    with lmdb.open(str(folder), readonly=True, lock=False) as environment:
        return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


@pytest.mark.parametrize("part", [1.0, 0.9, 0.5, 0.2])
def test_an_lmdb_file_that_is_cut_short_is_rejected_and_does_not_end_the_process(
    part: float, store: Store, tmp_path: Path
) -> None:
    make_lmdb(tmp_path / "old")
    data = tmp_path / "old/data.mdb"
    os.truncate(data, int(used_bytes(tmp_path / "old") * part))
    before = kept(tmp_path / "old")
    if part == 1:
        assert sqlstate.import_from(store, "lmdb", tmp_path / "old").changed == 500
    else:
        with pytest.raises(ImportRejected, match=r"LMDB cannot read it|cannot be read"):
            sqlstate.import_from(store, "lmdb", tmp_path / "old")
    assert kept(tmp_path / "old") == before


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_damaged_wal_or_journal_is_rejected_and_not_read_past(mode: str, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "old"
    make_sqlite(path, mode, closed=False)
    beside = path.with_name("old-wal" if mode == "WAL" else "old-journal")
    raw = bytearray(beside.read_bytes())
    raw[600 if mode == "WAL" else 512 + 4 + 3896] ^= 1  # of a page, a journal sums every 200th byte
    beside.write_bytes(raw)
    with pytest.raises(ImportRejected, match="is damaged"):
        sqlstate.import_from(store, "sqlitedict", path)
    assert beside.read_bytes() == raw


DAMAGED = [name for name in LEFT if not name.startswith(("lmdb", "dir"))]


@pytest.mark.parametrize("left", DAMAGED)
def test_a_damaged_source_is_rejected_or_its_entries_are(left: str, tmp_path: Path, store: Store) -> None:
    kind, make, count = LEFT[left]
    folder = tmp_path / "there"
    folder.mkdir()
    make(folder / "old")
    whole = kept(folder)
    random = Random(left)  # noqa: S311
    for round_ in range(60):
        path = folder / random.choice([name for name, raw in whole.items() if raw])
        raw = bytearray(path.read_bytes())
        if round_ % 3:
            for _ in range(random.choice([1, 1, 8])):
                raw[random.randrange(len(raw))] = random.randrange(256)
        else:
            del raw[random.randrange(len(raw)) :]
        path.write_bytes(raw)
        with suppress(ImportRejected, FileNotFoundError):
            done = sqlstate.import_from(store, kind, folder / "old", dry_run=True)  # type: ignore[arg-type]
            assert done.entries + len(done.refused) == done.read
        path.write_bytes(whole[str(path.relative_to(folder))])
    assert sqlstate.import_from(store, kind, folder / "old", dry_run=True).entries == count  # type: ignore[arg-type]


# ---- An import that was killed ----

IMPORTS = """
import sys, sqlstate
def shown(done, total):
    if done == 1024:
        print("ready", flush=True)
        sys.stdin.read()
batch = int(sys.argv[3]) or None
store = sqlstate.open(sys.argv[1])
sqlstate.import_from(store, "dbm", sys.argv[2], batch=batch, progress=shown)
"""


@pytest.mark.parametrize("batch", [0, 100])
def test_an_import_that_was_killed_keeps_whole_transactions_and_goes_on(
    batch: int, store: Store, tmp_path: Path
) -> None:
    make_dumb(tmp_path / "old", 1600)
    command = [sys.executable, "-c", IMPORTS, *map(str, (tmp_path / "app.db", tmp_path / "old", batch))]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=here) as process:
        assert process.stdout is not None
        assert process.stdout.readline().rstrip() == b"ready"
        process.kill()
    sqlstate.import_from(store, "dbm", tmp_path / "old")
    with sqlstate.open(tmp_path / "app.db") as again:
        there = again.head().count
        assert there == (1000 if batch else 0)
        done = sqlstate.import_from(again, "dbm", tmp_path / "old", batch=batch or None)
        assert (done.entries, done.changed) == (1600, 1600 - there)
        assert again.head().root == store.head().root
