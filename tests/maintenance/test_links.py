"""Goal: a check holds no more in memory for a longer log, and finds the same wrong `before` as one that holds all.

Method: Hypothesis makes logs of few names, whose records are compared with a table of all names; the temporary file
is used from some records on, fails to be made, or stops growing at any of them. The memory of a whole check is that
of Python's allocator, which does not depend on the machine.
"""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
import tempfile
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqlstate
from sqlstate.errors import StoreIOError
from sqlstate.maintenance.check import links
from sqlstate.maintenance.check.links import Links

if TYPE_CHECKING:
    from pathlib import Path

leaves = st.sampled_from([None, b"a" * 32, b"b" * 32])
records = st.lists(st.tuples(st.sampled_from([0, 1, 256, -1, 2**63 - 1]), leaves, leaves))


class Disk(io.BytesIO):
    """A file on a disk with room for so many bytes."""

    room = 0

    def write(self, content: Any) -> int:
        free = self.room - self.tell()
        if free <= 0:
            raise OSError(28, "No space left on device")
        return super().write(content[:free])


@pytest.fixture
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_IN_MEMORY", 3)


@given(log=records, room=st.none() | st.integers(-1, 2000))
def test_names_with_a_wrong_before_are_found_wherever_the_records_are_kept(
    log: list[tuple[int, bytes | None, bytes | None]], room: int | None
) -> None:
    """With -1, no file can be made; with None, it is a real one."""

    def make(**_: Any) -> io.BytesIO:
        if room == -1:
            raise FileNotFoundError(2, "No usable temporary directory found")
        disk = Disk()
        disk.room = room or 0
        return disk

    with pytest.MonkeyPatch.context() as patched, closing(Links(whole=True)) as taken:
        patched.setattr(links, "_IN_MEMORY", 3)
        if room is not None:
            patched.setattr(links, "TemporaryFile", make)
        last: dict[int, bytes | None] = {}
        wrong = set()
        for name, before, after in log:
            if last.get(name) != before:
                wrong.add(name)
            last[name] = after
            taken.add(name, before, after)
        assert taken.broken() == wrong


def test_a_temporary_file_that_cannot_be_read_is_no_damage_of_the_store(
    path: Path, short_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def read(self, _: Any = None) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(links, "TemporaryFile", lambda **_: Broken())
    with sqlstate.open(path) as store:
        store["c"].update(dict.fromkeys(range(10), 1))
        report = store.check()
    assert report.outcome == "unknown"
    assert [(each.kind, each.what) for each in report.findings] == [
        ("unreadable", "the temporary file of the check cannot be read: Input/output error")
    ]
    with closing(Links(whole=True)) as taken:
        for _ in range(4):
            taken.add(1, None, None)
        with pytest.raises(StoreIOError):
            taken.broken()


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("level", ["full", "replay"])
def test_a_check_that_puts_records_aside_names_the_same(
    path: Path, level: Any, short_memory: None, monkeypatch: pytest.MonkeyPatch, *, made: bool
) -> None:
    files = []

    def make(**options: Any) -> Any:
        if not made:
            raise PermissionError(13, "Permission denied")
        files.append(tempfile.TemporaryFile(**options))  # noqa: SIM115, closed is what is asked
        return files[-1]

    monkeypatch.setattr(links, "TemporaryFile", make)
    with sqlstate.open(path) as store:
        for i in range(10):
            store["c"][i % 4] = i
        assert store.check(level).ok
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE wal SET before = '7' WHERE lsn = 23")
        db.commit()
    with sqlstate.open(path) as store:
        [finding] = store.check(level).findings
    assert (finding.kind, finding.collection, finding.key, finding.seq, finding.lsn) == ("record", "c", 3, 8, 23)
    assert "has another `before` than commit 8 was made with" in finding.what
    assert [file.closed for file in files] == [True] * (2 if made else 0)


def peak(path: Path) -> int:
    """Return what a check holds in memory at most."""
    with sqlstate.open(path, read_only=True) as store:
        store.check()  # what is imported, and cached for good, is there
        tracemalloc.start()
        try:
            assert store.check().ok
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_a_check_holds_a_byte_or_two_for_each_entry_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_IN_MEMORY", 512)
    monkeypatch.setattr(links, "_PARTS", 16)
    held = []
    with sqlstate.open(path) as store:
        for entries in (5000, 11_000):  # a commit of more than 4,096 is hashed in parts
            store["c"].update({i: i for i in range(entries)})
            held.append(peak(path))
    assert held[1] - held[0] < 6000 * 5


STAGES = """
import os, sys, sqlstate
path, how, puts = sys.argv[1:]
store = sqlstate.open(path)
staged = store.stage()
for key in range(int(puts)):
    staged.put("c", key, "x" * 8000)
if how == "committed":
    staged.commit()
os._exit(0)
"""


@pytest.mark.parametrize("how", ["committed", "rolled back"])
def test_a_check_holds_one_record_of_a_staged_transaction(path: Path, how: str) -> None:
    """What was rolled back, a recovery noted in the audit trail, which is compared with the log."""
    held = []
    for puts in (30, 330):
        subprocess.run([sys.executable, "-c", STAGES, str(path), how, str(puts)], check=True)
        with sqlstate.open(path) as store:
            assert len(store["c"]) == (puts if how == "committed" else 0)
        held.append(peak(path))
    assert held[1] - held[0] < 1_000_000
