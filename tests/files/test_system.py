"""What differs between systems: this one's answers, and what the others' ask of it.

Method: on each system its own answers are asked of the real thing. macOS cannot be had here: what it would be asked is
looked at with its name given to this system, which shows the question, and not what a Mac makes of it.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import unicodedata
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate.errors import Busy, CannotOpen, InvalidOption, RestoreRejected, StoreError
from sqlstate.files import system
from sqlstate.files.identity import belongs_to, name_of
from sqlstate.files.replace import orphans, temporary
from sqlstate.files.sessions import SessionFile, dead_sessions
from tests.support.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = bytes(range(16))
SESSION = b"\xab" * 16
ON_WINDOWS = sys.platform == "win32"
on_windows = pytest.mark.skipif(not ON_WINDOWS, reason="Windows alone has such names")
elsewhere = pytest.mark.skipif(ON_WINDOWS, reason="Windows does it in another way")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    descriptor = system.open_file(str(tmp_path / "file"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    yield descriptor
    os.close(descriptor)


# ---- Open files ----


def test_a_file_is_made_once_and_no_child_gets_it(tmp_path: Path, opened: int) -> None:
    assert not os.get_inheritable(opened)
    with pytest.raises(FileExistsError):
        system.open_file(str(tmp_path / "file"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    with pytest.raises(FileNotFoundError) as raised:
        system.open_file(str(tmp_path / "another"), os.O_RDONLY)
    assert raised.value.filename == str(tmp_path / "another")


def test_an_open_file_is_renamed_and_removed(tmp_path: Path, opened: int) -> None:
    os.write(opened, b"content")
    system.replace(str(tmp_path / "file"), str(tmp_path / "second"))
    assert os.listdir(tmp_path) == ["second"]
    system.remove(str(tmp_path / "second"))
    assert system.read_at(opened, 7, 0) == b"content"


def test_bytes_are_read_and_written_where_they_are_and_as_they_are(opened: int) -> None:
    assert system.write_at(opened, b"one\r\ntwo\n\x1a", 2) == 10
    assert system.read_at(opened, 100, 0) == b"\0\0one\r\ntwo\n\x1a"
    assert system.read_at(opened, 3, 7) == b"two"
    assert system.read_at(opened, 3, 12) == system.read_at(opened, 3, 1 << 40) == b""


def test_a_locked_file_can_be_read_and_written(tmp_path: Path, opened: int) -> None:
    system.lock(opened, exclusive=True)
    (tmp_path / "file").write_bytes(b"content")
    assert (tmp_path / "file").read_bytes() == system.read_at(opened, 100, 0) == b"content"


@pytest.mark.parametrize(("held", "wanted", "granted"), [(0, 0, True), (0, 1, False), (1, 0, False), (1, 1, False)])
def test_a_lock_excludes_others_until_its_file_is_closed(
    tmp_path: Path, opened: int, held: int, wanted: int, *, granted: bool
) -> None:
    first = system.open_file(str(tmp_path / "file"), os.O_RDONLY)
    system.lock(first, exclusive=bool(held))
    if granted:
        system.lock(opened, exclusive=bool(wanted))
    else:
        with pytest.raises(BlockingIOError):
            system.lock(opened, exclusive=bool(wanted))
    os.close(first)
    system.lock(opened, exclusive=bool(wanted))


@elsewhere
def test_a_descriptor_is_moved_above_those_that_a_program_may_have_closed(tmp_path: Path) -> None:
    code = """
import os, sys
from sqlstate.files import system
os.close(0); os.close(2)
first = os.open(sys.argv[1], os.O_RDONLY)
moved = system.above_standard(first)
print(first, moved, os.get_inheritable(moved), os.read(moved, 3).decode())
"""
    (tmp_path / "file").write_bytes(b"one")
    assert run(code, tmp_path / "file").split() == ["0", "3", "False", "one"]


def run(code: str, *arguments: object) -> str:
    import subprocess  # noqa: PLC0415, one test needs it

    from tests import ROOT  # noqa: PLC0415

    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


# ---- Names ----


def test_a_name_that_is_taken_is_not_given_again(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        system.place(str(tmp_path / "source"), str(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == b"old"
    system.place(str(tmp_path / "source"), str(tmp_path / "free"))
    assert sorted(os.listdir(tmp_path)) == ["free", "target"]


@on_windows
@pytest.mark.parametrize("name", ["con", "NUL.db", "aux", "COM1.db", "ab:c", "what?.db", "a|b", "nul/app.db", "*"])
def test_a_name_that_windows_forbids_is_refused_by_each_that_would_make_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(CannotOpen, match=r"can be no file: .* Nothing was changed"):
        sqlstate.open(tmp_path / name)
    with sqlstate.open(tmp_path / "app.db") as store:
        store["c"][1] = "one"
        for refused in (lambda: store.backup(tmp_path / name), lambda: sqlstate.repair(tmp_path / name)):
            with pytest.raises(StoreError, match="can be no file"):
                refused()
    with pytest.raises(StoreError, match="can be no file"):
        sqlstate.restore(tmp_path / "app.db", tmp_path / name)
    assert os.listdir(tmp_path) == ["app.db"]


@on_windows
def test_a_long_path_is_used(tmp_path: Path) -> None:
    """In its form with a prefix, before it is too long for the names beside the store."""
    a_path_is_used(tmp_path, 200)


@on_windows
def test_a_path_that_is_too_long_for_other_programs_is_used(tmp_path: Path) -> None:
    a_path_is_used(tmp_path, 400)


def a_path_is_used(tmp_path: Path, length: int) -> None:
    folder = f"\\\\?\\{tmp_path}"
    while len(folder) < length - 7:
        folder = os.path.join(folder, ("ä long name " * 9)[: max(2, min(100, length - 7 - len(folder)))].strip())
        os.mkdir(folder)
    path = folder.removeprefix("\\\\?\\") + "\\app.db"
    with sqlstate.open(path) as store:
        store["c"][1] = "one"
        draft = store.stage()
        draft.put("c", 2, "two")
        assert any("-session-" in name for name in os.listdir(folder))
        draft.commit()
        store.backup(path + ".backup", keep=2)
        store.backup(path + ".backup", keep=2)
        assert store.check().ok
    sqlstate.restore(path + ".backup", path, replace=True)
    with sqlstate.open(path) as store:
        assert dict(store["c"]) == {1: "one", 2: "two"}
    assert sorted(os.listdir(folder)) == ["app.db", "app.db.backup", "app.db.backup.1"]


@elsewhere
@pytest.mark.parametrize("name", ["con", "NUL.db", "a:b", "what?.db", "a|b", "ends with a dot."])
def test_elsewhere_such_names_are_names(tmp_path: Path, name: str) -> None:
    with sqlstate.open(tmp_path / name) as store:
        store["c"][1] = "one"
    assert os.listdir(tmp_path) == [name]


@on_windows
def test_a_file_that_another_program_holds_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As virus scanners do. The moment ends with the first wait, so the test waits for no time."""
    for step in ("replace", "remove"):
        (tmp_path / "source").write_bytes(b"new")
        (tmp_path / "target").write_bytes(b"old")
        with (tmp_path / "target").open("rb") as scanner:
            monkeypatch.setattr(time, "sleep", lambda _, held=scanner: held.close())
            if step == "replace":
                system.replace(str(tmp_path / "source"), str(tmp_path / "target"))
                assert (tmp_path / "target").read_bytes() == b"new"
            else:
                system.remove(str(tmp_path / "target"))
                assert os.listdir(tmp_path) == ["source"]
            assert scanner.closed


@on_windows
def test_a_file_that_another_program_goes_on_holding_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")
    with (tmp_path / "target").open("rb") as held:
        with pytest.raises(PermissionError):
            system.replace(str(tmp_path / "source"), str(tmp_path / "target"))
        with pytest.raises(PermissionError):
            system.remove(str(tmp_path / "target"))
        assert held.read() == b"old"
    assert (tmp_path / "source").read_bytes() == b"new"


@on_windows
@pytest.mark.parametrize("keep", [0, 3])
def test_a_backup_that_another_program_reads_is_kept_and_nothing_is_left_behind(tmp_path: Path, keep: int) -> None:
    """One that knows nothing of SQLite's locks, such as a copier; the system alone keeps us from replacing it."""
    with sqlstate.open(tmp_path / "app.db") as store:
        store["c"][1] = "one"
        store.backup(tmp_path / "other.db")
        store.backup(tmp_path / "backup.db", keep=keep)
        store.backup(tmp_path / "backup.db", keep=keep)
        there = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path) if name.startswith("backup")}
        with (tmp_path / "backup.db").open("rb"):
            with pytest.raises(Busy, match=r"backup\.db.*another program has it open"):
                store.backup(tmp_path / "backup.db", keep=keep)
            with pytest.raises(Busy, match=r"backup\.db.*another program has it open"):
                sqlstate.restore(tmp_path / "other.db", tmp_path / "backup.db", replace=True)
        found = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path) if "backup" in name}
        assert found == there


@on_windows
def test_names_that_differ_in_case_are_one_file(tmp_path: Path) -> None:
    names_of_one_file(tmp_path, "App.db", "aPP.DB")


def names_of_one_file(folder: Path, first: str, second: str) -> None:
    assert belongs_to(folder / second, folder / first)
    assert belongs_to(folder / f"{second}-wal", folder / first)
    assert not belongs_to(folder / "another.db", folder / first)
    session = SessionFile(str(folder / first), SESSION, OURS)
    session._file.release()  # as the system does when its process dies
    assert dead_sessions(str(folder / second), OURS) == [SESSION]
    with temporary(folder / first, bytes(16)) as made:
        os.close(os.dup(made.descriptor))
        left = os.path.basename(made.path)
        assert orphans(str(folder / second), OURS) == []  # its maker lives
        made.release()
    assert orphans(str(folder / second), OURS) == [left]


# ---- macOS, as far as it can be looked at from here ----


@elsewhere
@pytest.mark.parametrize("second", ["AÜPP.db", unicodedata.normalize("NFD", "aüpp.db"), "Aüpp.DB"])
def test_names_that_a_mac_takes_for_one_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str) -> None:
    """The file system here keeps them apart; so this shows only that our own comparisons do not."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(system, "sync", lambda _: None)
    names_of_one_file(tmp_path, "aüpp.db", second)


@elsewhere
def test_a_mac_is_asked_to_empty_the_cache_of_its_disk(opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl  # noqa: PLC0415, Windows has none

    asked: list[object] = []
    refusal: list[OSError] = []

    def asks(descriptor: int, what: int) -> int:
        asked.append((descriptor, what))
        if refusal:
            raise refusal[0]
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", asks)
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append(descriptor))
    system.sync(opened)
    assert asked == [(opened, 51)]
    refusal.append(OSError(errno.ENOTSUP, "not on this file system"))
    system.sync(opened)
    assert asked == [(opened, 51), (opened, 51), opened]


# ---- Which boot, who holds what ----


def test_the_boot_is_the_same_for_each_process_until_the_next_one() -> None:
    code = "from sqlstate.files import system; print(system.boot_id().hex())"
    assert run(code).strip() == system.boot_id().hex()
    assert len(system.boot_id()) in (0, 16)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system says it")
def test_a_file_that_is_open_is_found_under_its_newest_name(tmp_path: Path, opened: int) -> None:
    status = os.fstat(opened)
    (tmp_path / "file").rename(tmp_path / "renamed")
    assert name_of((status.st_dev, status.st_ino)) == str(tmp_path / "renamed")
    (tmp_path / "renamed").unlink()
    assert name_of((status.st_dev, status.st_ino)) == "without a name"


# ---- Whole stores, on each system ----


@pytest.mark.parametrize("keep", [0, 3])
def test_what_others_have_open_is_not_replaced_and_nothing_is_left_behind(tmp_path: Path, keep: int) -> None:
    path, backup = tmp_path / "app.db", tmp_path / "backup.db"
    with sqlstate.open(path) as store:
        store["c"][1] = "one"
        store.backup(backup)
        with Remote.opened(backup) as other:
            other.ask("hold")
            there = sorted(os.listdir(tmp_path))
            for replaces in (
                lambda: store.backup(backup, keep=keep),
                lambda: sqlstate.restore(path, backup, replace=True),
                lambda: sqlstate.restore(backup, tmp_path / "new.db"),
                lambda: sqlstate.repair(backup),
            ):
                with pytest.raises((Busy, InvalidOption, RestoreRejected), match=r"(?i)open|in use"):
                    replaces()
                assert sorted(os.listdir(tmp_path)) == there
            with sqlstate.open(backup) as ours:
                ours.compact()
                assert ours.check().ok
            other.ask("let_go")
            other.ask("close")
            other.ends()
        store.backup(backup, keep=keep)
    with closing(sqlstate.open(path)):
        found = sorted(name for name in os.listdir(tmp_path) if name.startswith("backup"))
    assert found == (["backup.db", "backup.db.1"] if keep else ["backup.db"])
