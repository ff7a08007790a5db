"""A look by another SQLite program at what a killed process left: what was promised is noted beside the store.

Method: processes killed with SIGKILL, the shell of SQLite, and the notes taken away, cut, exchanged, or those of
another boot. The masses are campaign 14.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate.commit import acknowledged
from sqlstate.files import system
from tests import MIGRATIONS
from tests.crash.campaign import check
from tests.reference import plain
from tests.support.images import folder_image
from tests.support.remote import Remote
from tests.support.shell import shell
from tests.support.system import WINDOWS, has_mode, mkfifo, needs_proc, symlink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenStore

NOTES = "-acknowledged"
needs_boot_id = pytest.mark.skipif(not system.boot_id(), reason="no boot id: nothing is noted here")
pytestmark = needs_boot_id


def beside(path: Path, suffix: str = NOTES) -> Path:
    return path.with_name(path.name + suffix)


def crash(path: Path, commits: int = 5) -> None:
    """Leave a store whose process was killed: all but the first commit are in its -wal alone."""
    with Remote.opened(path) as other:
        for number in range(1, commits + 1):
            other.ask("put", "c", "k", number)
        other.kill()


def looked_at(path: Path, commits: int = 5) -> None:
    crash(path, commits)
    shell(path, "SELECT count(*) FROM entries")
    assert not beside(path, "-wal").exists()


def recoveries(store: sqlstate.Store) -> list[sqlstate.AuditEntry]:
    return [entry for entry in store.audit() if entry.kind == "recovery"]


def check_refused(path: Path, damage: str = "missing") -> sqlstate.JournalDamaged:
    main = path.read_bytes()
    with pytest.raises(sqlstate.JournalDamaged) as caught:
        sqlstate.open(path)
    assert caught.value.report.damage == damage
    assert path.read_bytes() == main
    return caught.value


# ---- Looks ----


@pytest.mark.slow
def test_other_programs_beside_a_store() -> None:
    result = check(14)
    assert result.counts["looked at"] >= 20


def test_a_look_at_what_a_killed_process_left_costs_nothing_and_is_in_the_audit_trail(
    path: Path, open_store: OpenStore
) -> None:
    looked_at(path)
    with sqlstate.open(path, read_only=True) as store:
        assert (store.recovery.damage, store.recovery.journal.kind, store.recovery.due) == ("", "folded", True)
    with pytest.raises(sqlstate.RecoveryDue):
        sqlstate.open(path, recover="refuse")
    with open_store() as store:
        report = store.recovery
        assert (report.clean, report.damage, report.journal.kind, report.in_doubt) == (False, "", "folded", 5)
        assert store["c"]["k"] == 5
        [entry] = recoveries(store)
        assert entry.number == report.entry
        assert entry.detail["journal"]["kind"] == "folded"
        assert "another program moved" in entry.detail["checked"]
        assert "commit 5, the newest that was acknowledged" in entry.detail["checked"]
    assert os.listdir(path.parent) == ["test.db"]
    again = open_store()
    assert (again.recovery.clean, len(recoveries(again))) == (True, 1)


@pytest.mark.parametrize(
    "commands",
    [
        ["PRAGMA journal_mode = DELETE"],
        ["VACUUM"],
        ["CREATE TABLE theirs (a)", "INSERT INTO theirs VALUES (1)"],
        ["PRAGMA wal_checkpoint(TRUNCATE)"],
    ],
    ids=["another journal", "vacuum", "a table of theirs", "checkpoint"],
)
def test_a_look_may_do_more_as_long_as_nothing_is_missing(
    path: Path, open_store: OpenStore, commands: list[str]
) -> None:
    crash(path)
    shell(path, *commands)
    store = open_store()
    assert (store.recovery.journal.kind, store["c"]["k"], store.stats().journal) == ("folded", 5, "wal")


def test_a_look_that_takes_something_away_is_refused(path: Path) -> None:
    looked_at(path)
    shell(path, "DELETE FROM wal WHERE seq = 5")
    assert "the newest acknowledged commit is not in the file" in str(check_refused(path))


def test_what_a_look_changes_about_entries_is_noticed(path: Path) -> None:
    looked_at(path)
    shell(path, "UPDATE state SET value = '7'")
    assert "does not lead to the root" in str(check_refused(path))


def test_a_wal_that_was_removed_is_still_missed(path: Path) -> None:
    crash(path)
    beside(path, "-wal").unlink()
    beside(path, "-shm").unlink()
    shell(path, "SELECT count(*) FROM entries")
    assert "the newest acknowledged commit is not in the file" in str(check_refused(path))


def test_staged_records_and_audit_entries_count_as_acknowledged(path: Path, open_store: OpenStore) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
    with Remote.opened(path) as other:
        other.ask("put", "c", "k", 2)
        other.ask("stage_put", other.ask("stage"), "c", "k", "draft")
        copy = path.with_name("copy")
        shell(path, f".backup {copy}")  # all of it
        other.kill()
    shell(path, "SELECT 1 FROM entries")
    whole = path.read_bytes()
    for cut in ("DELETE FROM wal WHERE kind = 'PUT' AND session IS NOT NULL",):
        shell(path, cut)
        check_refused(path)
        path.write_bytes(whole)  # the same file, with what it had
    store = open_store(recover="resume")
    assert store.recovery.journal.kind == "folded"
    assert [len(each.records) for each in store.pending()] == [2]


def test_recovery_that_died_is_done_again_after_another_look(path: Path, open_store: OpenStore) -> None:
    looked_at(path)
    with Remote.opened(path) as other:  # recovers, and dies
        other.kill()
    shell(path, "SELECT 1 FROM entries")
    with Remote.opened(path) as other:
        other.ask("put", "c", "k", 6)
        other.kill()
    shell(path, "SELECT 1 FROM entries")
    store = open_store()
    assert (store["c"]["k"], store.recovery.journal.kind, len(recoveries(store))) == (6, "folded", 3)


def test_several_processes_note_what_each_acknowledged(path: Path, open_store: OpenStore) -> None:
    with Remote.opened(path) as one, Remote.opened(path) as two:
        for number in range(70):  # more than either has places
            one.ask("put", "c", "one", number)
            two.ask("put", "c", "two", number)
        one.kill()
        two.ask("put", "c", "two", "last")
        alone = path.with_name("alone")
        shutil.copy(path, alone)
        two.kill()
    assert "last" not in (shell(alone, "SELECT value FROM state"))
    shell(path, "SELECT 1 FROM entries")
    whole = path.read_bytes()
    path.write_bytes(alone.read_bytes())
    check_refused(path)
    path.write_bytes(whole)
    store = open_store()
    assert (store["c"]["two"], store.head().seq) == ("last", 141)


def test_a_process_that_stays_while_another_closes_goes_on_noting(path: Path, open_store: OpenStore) -> None:
    with Remote.opened(path) as other:
        other.ask("put", "c", "k", 1)
        with sqlstate.open(path) as store:
            store["c"]["k"] = 2
        other.ask("put", "c", "k", 3)
        other.kill()
    shell(path, "SELECT 1 FROM entries")
    store = open_store()
    assert (store["c"]["k"], store.recovery.journal.kind) == (3, "folded")


def test_a_store_that_is_opened_by_a_link_has_its_notes_beside_the_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link.db"
    symlink(link, path)
    sqlstate.open(path).close()
    crash(link)
    assert beside(path).exists()
    assert os.listdir(tmp_path / "links") == ["link.db"]
    shell(path, "SELECT 1 FROM entries")
    with sqlstate.open(link) as store:
        assert store.recovery.journal.kind == "folded"
    assert not beside(path).exists()


# ---- Notes that cannot be believed ----


def other_boot(notes: Path) -> None:
    content = bytearray(notes.read_bytes())
    content[40:56] = bytes(range(16))
    notes.write_bytes(content)


def other_inode(notes: Path) -> None:
    content = bytearray(notes.read_bytes())
    content[63] ^= 1
    notes.write_bytes(content)


def linked(notes: Path) -> None:
    notes.rename(notes.with_name("elsewhere"))
    symlink(notes, "elsewhere")


def folder(notes: Path) -> None:
    notes.unlink()
    notes.mkdir()


def earlier(notes: Path) -> None:
    """A bit of what was noted last was flipped, and what stands before it is older than the file."""
    content = bytearray(notes.read_bytes())
    for at in range(64, len(content), 64):
        content[at + 20] ^= 1
    notes.write_bytes(content)


SPOILT: dict[str, Callable[[Path], object]] = {
    "removed": lambda notes: notes.unlink(),
    "emptied": lambda notes: os.truncate(notes, 0),
    "cut": lambda notes: os.truncate(notes, 100),
    "garbage": lambda notes: notes.write_bytes(os.urandom(300)),
    "huge": lambda notes: os.truncate(notes, 1 << 30),
    "a folder": folder,
    "a link": linked,
    "a pipe": lambda notes: (notes.unlink(), mkfifo(notes)),
    "a second name": lambda notes: os.link(notes, notes.with_name("second")),
    "of another boot": other_boot,
    "of another file": other_inode,
    "a flipped bit in each": earlier,
}


@pytest.mark.parametrize("how", SPOILT)
def test_notes_that_cannot_be_believed_are_not(path: Path, how: str) -> None:
    looked_at(path)
    SPOILT[how](beside(path))
    assert "nothing here can tell" in str(check_refused(path))
    with sqlstate.open(path, recover="accept") as store:
        assert store["c"]["k"] == 5
        store["c"]["k"] = 6
    assert plain.judge(path).findings == ()


@pytest.mark.parametrize("how", ["a folder", "a link", "a pipe", "garbage"])
def test_what_stands_in_the_place_of_the_notes_fails_no_commit_and_stays(path: Path, how: str) -> None:
    sqlstate.open(path).close()
    notes = beside(path)
    notes.write_bytes(b"somebody's")
    if how != "garbage":
        SPOILT[how](notes)
    before = folder_image(path.parent) if how != "a pipe" else None
    with sqlstate.open(path) as store, sqlstate.open(path) as other:
        for number in range(3):
            store["c"]["k"] = other["c"]["j"] = number
        with Remote.opened(path) as third:
            third.ask("put", "c", "l", 1)
            third.ends()
    assert stat.S_ISFIFO(notes.lstat().st_mode) or folder_image(path.parent).keys() == (before or {}).keys()
    if how == "garbage":
        assert notes.read_bytes() == b"somebody's"
    assert plain.judge(path).findings == ()


def test_notes_that_cannot_be_written_any_more_fail_no_commit_and_are_not_believed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    store = sqlstate.open(path)
    store["c"]["k"] = 1
    with monkeypatch.context() as patched:
        patched.setattr(*((acknowledged, "write_at") if WINDOWS else (os, "pwrite")), full)
        store["c"]["k"] = 2
        assert not beside(path).exists()
        store["c"]["k"] = 3
    with Remote.opened(path) as other:  # makes them anew, with another nonce
        other.ask("put", "c", "k", 4)
        store["c"]["k"] = 5
        assert beside(path).exists()
        other.kill()
    store.close()
    assert os.listdir(path.parent) == ["test.db"]


def test_a_process_that_died_between_commit_and_note_leaves_what_can_be_opened(
    path: Path, open_store: OpenStore, tmp_path: Path
) -> None:
    """Nobody was told of that commit, and it is there."""
    crash(path)
    notes = beside(path).read_bytes()
    shell(path, "SELECT 1 FROM entries")
    newest = acknowledged.newest(str(path), plain_id(path), plain_nonce(path))
    assert newest is not None
    # The newest note is gone: the one before it is of the commit before.
    for at in range(64, len(notes), 64):
        if int.from_bytes(notes[at : at + 8]) == newest.lsn:
            notes = notes[:at] + bytes(64) + notes[at + 64 :]
    beside(path).write_bytes(notes)
    store = open_store()
    assert (store.recovery.journal.kind, store["c"]["k"], store.recovery.in_doubt) == ("folded", 5, 5)


def plain_id(path: Path) -> bytes:
    return bytes.fromhex(shell(path, "SELECT hex(value) FROM meta WHERE name = 'store_id'").strip())


def plain_nonce(path: Path) -> bytes:
    return bytes.fromhex(shell(path, "SELECT hex(substr(value, 2, 16)) FROM meta WHERE name = 'marker'").strip())


def test_notes_of_an_earlier_boot_are_replaced(path: Path, open_store: OpenStore) -> None:
    looked_at(path)
    other_boot(beside(path))
    with sqlstate.open(path, recover="accept"):
        pass
    crash(path)
    shell(path, "SELECT 1 FROM entries")
    assert open_store().recovery.journal.kind == "folded"


@pytest.mark.slow
def test_many_handles_that_die_do_not_let_them_grow_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledged, "_BYTES_MAX", 64 + 3 * 128)
    with sqlstate.open(path) as store:
        for number in range(10):
            with Remote.opened(path) as other:
                store["c"]["k"] = number
                other.ask("put", "c", "k", -number)
                other.kill()
        assert beside(path).stat().st_size < 64 + 30 * 128


# ---- The file ----


def test_the_notes_have_the_mode_of_the_store_and_are_gone_when_it_is_closed(path: Path) -> None:
    sqlstate.open(path).close()
    path.chmod(0o664)
    with sqlstate.open(path) as store:
        assert not beside(path).exists()
        store["c"]["k"] = 1
        assert has_mode(beside(path), 0o664)
    assert os.listdir(path.parent) == ["test.db"]


def test_they_are_kept_as_long_as_anybody_has_the_store_open(path: Path) -> None:
    one, two = sqlstate.open(path), sqlstate.open(path)
    one["c"]["k"] = 1
    two["c"]["k"] = 2
    one.close()
    two["c"]["k"] = 3
    assert beside(path).exists()
    two.close()
    assert os.listdir(path.parent) == ["test.db"]


def test_a_store_without_sqlites_wal_has_none(path: Path) -> None:
    with sqlstate.open(path, journal="delete") as store:
        store["c"]["k"] = 1
        assert os.listdir(path.parent) == ["test.db"]


def test_where_there_is_no_boot_id_nothing_is_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if WINDOWS:
        monkeypatch.setattr(system, "boot_id", bytes)
    monkeypatch.setattr(system, "_BOOT_ID", "/nowhere")
    with sqlstate.open(path) as store, sqlstate.open(path) as other:
        store["c"]["k"] = 1
        other["c"]["k"] = 2
        store["c"]["k"] = 3
        assert not beside(path).exists()
    looked_at(path)
    check_refused(path)


@needs_proc
def test_the_descriptor_is_not_inherited_and_never_one_of_the_first_three(path: Path) -> None:
    code = (
        "import os, sys, sqlstate\n"
        "os.close(0)\n"
        f"store = sqlstate.open({str(path)!r}); store['c']['k'] = 1\n"
        "found = [f for f in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + f)"
        " and os.readlink('/proc/self/fd/' + f).endswith('-acknowledged')]\n"
        "assert found and all(int(f) > 2 and not os.get_inheritable(int(f)) for f in found), found\n"
        "store.close()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_note_is_what_the_page_says(path: Path) -> None:
    """docs/reference/file-format.md, section 1.1, read plainly."""
    from hashlib import sha256  # noqa: PLC0415

    crash(path)
    content = beside(path).read_bytes()
    shell(path, "SELECT 1 FROM entries")
    header = content[:64]
    if WINDOWS:
        boot = system.boot_id()
    else:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = bytes.fromhex(file.read().strip().replace("-", ""))
    assert header == (b"SqStAcknowledged" + (1).to_bytes(8) + plain_id(path) + boot + path.stat().st_ino.to_bytes(8))
    notes = [content[at : at + 64] for at in range(64, len(content), 64)]
    sealed: list[Any] = [
        (int.from_bytes(note[:8]), int.from_bytes(note[8:16]), note[16:48])
        for note in notes
        if sha256(header + plain_nonce(path) + note[:48]).digest()[:16] == note[48:]
    ]
    last = shell(path, "SELECT lsn, hex(chain) FROM wal ORDER BY lsn DESC LIMIT 1").strip().split("|")
    assert max(sealed) == (int(last[0]), len(MIGRATIONS), bytes.fromhex(last[1]))
