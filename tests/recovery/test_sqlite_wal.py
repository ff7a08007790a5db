"""Goal: no sector of a hot -wal is lost in silence, and none of it is read but a part at a time.

Method: stores of killed processes, whose -wal is damaged at its start; and scans of what counts how it is read. What a
-wal is said to hold is compared with SQLite in test_sqlite_journal; campaign 23 damages sectors anywhere.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import sqlstate
from sqlstate.errors import CannotOpen, JournalDamaged, StoreIOError
from sqlstate.files import system
from sqlstate.files.file_bytes import FileBytes
from sqlstate.recovery.sqlite_wal import WalScan, scan_wal
from sqlstate.sqlite import wal_frames
from tests.crash.campaign import check
from tests.recovery.test_recover import killed
from tests.recovery.test_sqlite_journal import flat, make, transactions
from tests.support.system import WINDOWS

if TYPE_CHECKING:
    from pathlib import Path


def fill(kind: str, size: int) -> bytes:
    return {"zeros": bytes(size), "ones": b"\xff" * size, "garbage": random.Random(size).randbytes(size)}[kind]  # noqa: S311


@pytest.mark.parametrize("kind", ["zeros", "ones", "garbage"])
@pytest.mark.parametrize("witnesses", [(), ("-shm",), ("-acknowledged",), ("-shm", "-acknowledged")])
def test_a_hot_wal_that_lost_its_start_is_kept_and_refused(path: Path, witnesses: tuple[str, ...], kind: str) -> None:
    killed(path, commits=12)
    beside = {each: path.with_name(path.name + each) for each in ("-wal", "-shm", "-acknowledged")}
    main, wal = path.read_bytes(), beside["-wal"].read_bytes()
    others = {each: beside[each].read_bytes() for each in witnesses}
    for size in (4, 32, 56, 512, 4096, 8192, 32768, len(wal)):
        for name, file in beside.items():
            if name in others:
                file.write_bytes(others[name])
            else:
                file.unlink(missing_ok=True)
        damaged = fill(kind, min(size, len(wal))) + wal[size:]
        beside["-wal"].write_bytes(damaged)
        with pytest.raises(JournalDamaged) as caught:
            sqlstate.open(path)
        assert (path.read_bytes(), beside["-wal"].read_bytes()) == (main, damaged)
        (evidence,) = caught.value.evidence
        assert path.with_name(os.path.basename(evidence)).read_bytes() == damaged
        path.with_name(os.path.basename(evidence)).unlink()


def test_a_wal_that_cannot_be_read_is_not_called_damaged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read of the -wal by us fails in turn; campaign 21 has the system fail, where it can be traced."""
    killed(path, commits=12)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    where: Any = system if WINDOWS else os
    name = "read_at" if WINDOWS else "pread"
    real, left = getattr(where, name), 0

    def failing(descriptor: int, amount: int, offset: int) -> bytes:
        nonlocal left
        left -= 1
        if not left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        found: bytes = real(descriptor, amount, offset)
        return found

    monkeypatch.setattr(where, name, failing)
    for number in itertools.count(1):
        left = number
        try:
            sqlstate.open(path, read_only=True).close()
        except sqlstate.StoreIOError as e:
            assert "nothing was changed" in str(e).lower()  # noqa: PT017, each read must end so
        if left > 0:
            break
        assert {name: path.with_name(name).read_bytes() for name in before if "-shm" not in name} == {
            name: data for name, data in before.items() if "-shm" not in name
        }
        assert not [file.name for file in path.parent.iterdir() if "evidence" in file.name]
    assert number > 5


def test_the_wal_of_another_use_under_a_header_that_is_whole_is_refused(path: Path, tmp_path: Path) -> None:
    """The first sector is that of another store: a valid header, over frames that are none of its use."""
    other = tmp_path / "other" / "other.db"
    other.parent.mkdir()
    killed(other, commits=12)
    killed(path, commits=12)
    beside = {each: path.with_name(path.name + each) for each in ("-wal", "-shm", "-acknowledged")}
    for each in ("-shm", "-acknowledged"):
        beside[each].unlink()
    foreign = other.with_name("other.db-wal").read_bytes()
    beside["-wal"].write_bytes(foreign[:512] + beside["-wal"].read_bytes()[512:])
    with pytest.raises(JournalDamaged):
        sqlstate.open(path)


def test_what_was_acknowledged_tells_that_a_lost_header_lost_nothing(path: Path) -> None:
    killed(path, commits=12)
    connection = apsw.Connection(str(path))
    connection.execute("SELECT count(*) FROM state").fetchall()
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    wal = path.with_name(path.name + "-wal").read_bytes()
    notes = path.with_name(path.name + "-acknowledged").read_bytes()
    main = path.read_bytes()
    connection.close()
    path.with_name(path.name + "-wal").write_bytes(bytes(8192) + wal[8192:])
    path.with_name(path.name + "-acknowledged").write_bytes(notes)
    path.write_bytes(main)
    with sqlstate.open(path) as store:
        assert store.head().seq == 12
        assert store.recovery.damage == ""


class Counted:
    """Bytes that note the largest part that was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.most = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: slice) -> bytes:
        found = self.data[part]
        self.most = max(self.most, len(found))
        return found


@pytest.mark.parametrize("lost", [0, 32, 5000])
def test_a_part_of_a_wal_is_read_at_a_time(lost: int) -> None:
    data = make(flat(transactions(*[2] * 3000)))
    counted = Counted(bytes(lost) + data[lost:])
    scan = scan_wal(counted, 512)
    assert scan.committed == (0 if lost else 6000)
    assert counted.most <= 1024 * 536


def test_the_slow_sum_agrees_with_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(flat(transactions(3, 1, 2, 3)))
    variants = [data[:at] + bytes([data[at] ^ 9]) + data[at + 1 :] for at in range(32, len(data), 41)]
    by_sqlite = [scan_wal(each) for each in variants]
    monkeypatch.setattr(wal_frames, "_count_recovered", lambda *_: None)
    assert [scan_wal(each) for each in variants] == by_sqlite


def test_a_file_is_read_as_long_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert not FileBytes(str(file))[:]
    file.write_bytes(b"0123456789")
    with FileBytes(str(file)) as data:
        assert (len(data), data[2:4], data[8:99], data[20:30]) == (10, b"23", b"89", b"")
        file.write_bytes(b"abc")
        assert data[:] == b"abc" + bytes(7)
    with pytest.raises(ValueError, match="closed"):  # a bug of ours looks like one
        data[:]
    with pytest.raises(CannotOpen):
        FileBytes(str(tmp_path))


def test_an_error_of_reading_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(make(flat(transactions(2, 2))))

    def fails(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    with FileBytes(str(file)) as data:
        header = data[:32]
        monkeypatch.setattr(
            FileBytes, "_read", lambda self, start, amount: header if not start else fails(self, amount)
        )
        with pytest.raises(StoreIOError, match="Input/output error"):
            scan_wal(data)


def test_sectors_of_a_hot_wal_are_not_lost_in_silence() -> None:
    result = check(23)
    assert result.counts["refused"] > result.runs // 2


def test_a_transaction_that_wrote_every_page_is_known(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as db:

        def scanned() -> WalScan:
            return scan_wal(path.with_name(path.name + "-wal").read_bytes())

        for sql in (
            "CREATE TABLE t (a)",
            "CREATE TABLE other (a)",
            "PRAGMA journal_mode = wal",
            "PRAGMA wal_autocheckpoint = 0",
        ):
            db.execute(sql).fetchall()
        db.execute("INSERT INTO t VALUES (zeroblob(100000)), (1)")
        db.execute("DELETE FROM t WHERE a != 1")
        before = scanned()
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        db.execute("INSERT INTO t VALUES (2)")
        db.execute("VACUUM")
        db.execute("INSERT INTO t VALUES (3)")
        after = scanned()
        assert not before.rewritten
        assert after.rewritten
        assert after.database_pages == 3 < before.database_pages
        assert len(after.first_pages) < after.first_size


@pytest.mark.parametrize("pages", [262_144, 262_145, 262_146])
def test_the_page_of_the_lock_byte_is_in_no_transaction(pages: int) -> None:
    """It is page 262,145 of pages of 4,096 bytes."""
    every = [page << 32 for page in range(1, pages + 1) if page != 262_145]
    every[-1] |= pages
    frames = SimpleNamespace(numbers=every, page_size=4096, size=lambda i: every[i] & 0xFFFFFFFF)
    assert wal_frames.Frames.is_all(frames, 0, len(every))  # type: ignore[arg-type]
    del every[7]
    assert not wal_frames.Frames.is_all(frames, 0, len(every))  # type: ignore[arg-type]
