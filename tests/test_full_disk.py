"""A disk that is full: what was committed is there and can be read, checked and carried elsewhere; nothing is lost.

Method: a small file system, of which another file takes all that is free while a program writes, and then ends.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

import sqlstate
from tests import ROOT
from tests.cli.test_program import bad, good
from tests.reference import plain
from tests.support.mounts import fill, small, small_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITER = """
import os, sys
from pathlib import Path
import sqlstate
from tests.support.mounts import fill
path, end, journal = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
store = sqlstate.open(path, journal=journal)
for number in range(100):
    store["c"][number] = "v" * 300
if end == "kill in time":
    os.kill(os.getpid(), 9)
fill(path.parent)
try:
    for number in range(100, 5000):
        store["c"][number] = "v" * 300
except sqlstate.StoreFull as e:
    assert "nothing was changed" in str(e) and "Free space on its file system" in str(e)
else:
    raise AssertionError("it never got full")
print(len(store["c"]), store.head().root.hex(), flush=True)
if end == "kill":
    os.kill(os.getpid(), 9)
if end == "close":
    try:
        store.close()
    except sqlstate.StoreFull as e:
        assert "Nothing is lost" in str(e) and "Free space" in str(e), e
    else:
        assert journal == "delete"
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    with small(tmp_path / "disk", 6) as folder:
        yield folder


def written(path: Path, end: str, journal: str = "wal") -> tuple[int, str]:
    """Let a program write until the disk is full, and end; return how many entries there are, and their root."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, path, end, journal],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == (0 if end in ("close", "exit") else -9)
    entries, root = done.stdout.split() or ("100", "")
    return int(entries), root


def check_that_it_is_readable(path: Path, entries: int, elsewhere: Path) -> None:
    file = str(path)
    assert good("get", file, "c", "7", "--key-type", "int") == f'"{"v" * 300}"\n'
    assert len(good("list", file, "c").splitlines()) == entries
    for verb in ("head", "stats", "log", "audit", "check"):
        good(verb, file)
    good("export", file, "-o", str(elsewhere / "out.jsonl"))
    good("backup", file, str(elsewhere / "copy.db"))
    with sqlstate.open(elsewhere / "copy.db") as copy:
        assert len(copy["c"]) == entries


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("end", ["close", "exit", "kill"])
def test_however_the_program_ends_the_store_is_read_checked_and_saved(
    disk: Path, tmp_path: Path, end: str, journal: str
) -> None:
    path = disk / "app.db"
    entries, root = written(path, end, journal)
    check_that_it_is_readable(path, entries, tmp_path)
    with suppress(sqlstate.StoreFull), sqlstate.open(path) as store:  # also for writing
        assert (len(store["c"]), store.head().root.hex()) == (entries, root)
        assert store.recovery.due == (journal == "wal" or not store.recovery.clean)
        with pytest.raises(sqlstate.StoreFull, match=r"nothing was changed.* Free space on its file system"):
            store["c"]["big"] = os.urandom(1 << 20)
        assert len(store["c"]) == entries
    assert plain.judge(path).findings == ()
    (disk / "filler").unlink()
    with sqlstate.open(path) as store:
        assert (len(store["c"]), store.head().root.hex()) == (entries, root)
        assert (store.recovery.due, store.recovery.clean) == (False, journal == "delete")
        store["c"]["k"] = 1
        if journal == "wal":
            assert [entry.kind for entry in store.audit()].count("recovery") == 1
    assert os.listdir(disk) == ["app.db"]
    assert plain.judge(path).findings == ()


def test_where_not_even_shared_memory_fits_the_store_is_read_and_writing_says_what_helps(
    disk: Path, tmp_path: Path
) -> None:
    path = disk / "app.db"
    entries, _ = written(path, "kill in time")
    (disk / "app.db-shm").unlink()
    fill(disk)
    check_that_it_is_readable(path, entries, tmp_path)
    with sqlstate.open(path, read_only=True) as store, store.snapshot() as view:
        assert store.recovery.due
        assert len(list(view["c"].items())) == entries
    with pytest.raises(sqlstate.StoreFull, match=r"nothing is lost.* Free space .* read_only=True"):
        sqlstate.open(path)
    assert "Free space" in bad(6, "delete", str(path), "c", "7", "--key-type", "int")
    assert "Free space" in bad(6, "recover", str(path))
    (disk / "filler").unlink()
    with sqlstate.open(path) as store:
        assert len(store["c"]) == entries
        assert not store.recovery.due
    assert plain.judge(path).findings == ()


@pytest.mark.parametrize("shared_memory", ["there", "missing", "in part"])
def test_where_blocks_are_small_no_signal_ends_the_process(tmp_path: Path, shared_memory: str) -> None:
    with small_blocks(tmp_path / "disk", 8) as disk:
        path = disk / "app.db"
        entries, _ = written(path, "kill in time")
        if shared_memory == "missing":
            (disk / "app.db-shm").unlink()
        elif shared_memory == "in part":
            os.truncate(disk / "app.db-shm", 3)
            os.truncate(disk / "app.db-shm", 32768)
        fill(disk)
        check_that_it_is_readable(path, entries, tmp_path)
        error = bad(6, "put", str(path), "c", "k", "1")
        assert "Free space" in error
        (disk / "filler").unlink()
        with sqlstate.open(path) as store:
            assert len(store["c"]) == entries
        assert plain.judge(path).findings == ()


def test_a_store_that_was_closed_is_read_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    path = disk / "app.db"
    with sqlstate.open(path) as store:
        store["c"].update(dict.fromkeys(range(200), "v" * 300))
    fill(disk)
    check_that_it_is_readable(path, 200, tmp_path)
    with pytest.raises(sqlstate.StoreFull, match=r"nothing is lost.* Free space .* read_only=True"):
        sqlstate.open(path)
    assert plain.judge(path).findings == ()


def test_a_copy_that_has_no_room_leaves_nothing_and_says_so(disk: Path, tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "app.db") as store:
        store["c"].update(dict.fromkeys(range(200), "v" * 300))
        fill(disk)
        with pytest.raises(sqlstate.StoreFull, match=r"copy\.db: the disk is full; what was there before is as it was"):
            store.backup(disk / "copy.db")
    with pytest.raises(sqlstate.StoreFull, match=r"copy\.db: the disk is full; what was there before is as it was"):
        sqlstate.restore(tmp_path / "app.db", disk / "copy.db")
    assert "No space left" in bad(6, "export", str(tmp_path / "app.db"), "-o", str(disk / "out"))
    assert os.listdir(disk) == ["filler"]


SORTER = """
import sys
import sqlstate
with sqlstate.open(sys.argv[1], cache_bytes=1 << 20) as store:
    store["c"].update({f"{n}" * 10: n for n in range(60000)})
    try:
        store.index_history()
    except sqlstate.StoreFull as e:
        print(e)
    store["c"]["later"] = 1
    assert not store.stats().history_index and store.check("quick").ok
"""


def test_an_index_that_has_no_room_is_not_made_and_the_store_goes_on(disk: Path, tmp_path: Path) -> None:
    path = disk / "app.db"
    with sqlstate.open(path) as store:
        store["c"].update({f"{n}" * 10: n for n in range(6000)})
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
        fill(disk)
        with pytest.raises(sqlstate.StoreFull, match=r"disk is full.*nothing was changed.*[Ff]ree space"):
            store.index_history()
        assert not store.stats().history_index
        (disk / "filler").unlink()
        assert store.index_history()
        assert store.check().ok
    with small(tmp_path / "temporary", 1) as folder:
        fill(folder)
        done = subprocess.run(
            [sys.executable, "-c", SORTER, tmp_path / "large.db"],
            env={**os.environ, "SQLITE_TMPDIR": str(folder)}, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "where SQLite keeps temporary files" in done.stdout
    assert plain.judge(path).findings == ()


def test_where_the_file_has_room_inside_the_wal_is_begun_anew_and_deletes_work(disk: Path) -> None:
    path = disk / "app.db"
    with sqlstate.open(path) as store:
        store["c"].update(dict.fromkeys(range(100), "v" * 300))
    with closing(sqlite3.connect(path)) as other:  # another program's table leaves free pages
        other.execute("CREATE TABLE junk AS SELECT zeroblob(1500000)")
        other.execute("DROP TABLE junk")
        other.commit()
    with sqlstate.open(path) as store:
        for number in range(30):
            store["c"][number] = "w" * 300
        fill(disk)
        with pytest.raises(sqlstate.StoreFull):
            for number in range(5000):
                store["c"][number] = "x" * 300 + str(number)
        for number in range(5):
            del store["c"][number]
        good("delete", str(path), "c", "7", "--key-type", "int")
    good("delete", str(path), "c", "8", "--key-type", "int")
    assert plain.judge(path).findings == ()
