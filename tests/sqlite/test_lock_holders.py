"""Busy names the process that has the lock, as far as the system tells.

Method: another process takes the lock and stays; and lists of locks as Linux writes them.
"""

from __future__ import annotations

import os
import pickle
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate.sqlite import lock_holders as holders
from tests.support.child import Child
from tests.support.remote import Remote

if sys.platform == "linux":
    from sqlstate.files import linux

if TYPE_CHECKING:
    from tests.conftest import OpenStore

JOURNALS = ("wal", "delete")
LOCKS = Path("/proc/locks")

needs_locks = pytest.mark.skipif(
    sys.platform != "linux" or not LOCKS.exists(), reason="this system does not list its locks"
)


def busy(store: sqlstate.Store) -> sqlstate.Busy:
    with pytest.raises(sqlstate.Busy, match=r"nothing was changed\. Try again") as caught:
        store["c"]["k"] = 1
    return caught.value


@needs_locks
@pytest.mark.parametrize("journal", JOURNALS)
def test_busy_names_the_process_that_writes(path: Path, open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal, timeout=0.05)
    store["left"][0] = store["right"][0] = 1
    with Child("holds", path) as child:
        child.expects("holding")
        found = busy(store)
        name = Path(f"/proc/{child.pid}/comm").read_text(encoding="utf-8").strip()
        assert found.holder == child.pid
        assert f"process {child.pid} ({name}) had the lock" in str(found)
        copy = pickle.loads(pickle.dumps(found))  # noqa: S301, our own bytes
        assert (str(copy), copy.holder) == (str(found), child.pid)
        child.tell()
        child.expects("committed")
        child.tell()
        child.ends()
    store["c"]["k"] = 1


@needs_locks
def test_busy_names_the_process_whose_reading_keeps_a_rollback_journal_store(path: Path, open_store: OpenStore) -> None:
    store = open_store(journal="delete", timeout=0.05)
    store["c"]["k"] = 0
    with Remote.opened(path) as reader:
        reader.ask("hold")
        assert busy(store).holder == reader.pid
        reader.ask("let_go")
        store["c"]["k"] = 2
        reader.ends()


@needs_locks
@pytest.mark.parametrize("journal", JOURNALS)
def test_busy_names_another_handle_of_this_process(open_store: OpenStore, journal: str) -> None:
    first, second = open_store(journal=journal), open_store(timeout=0.05)
    with first.transaction() as txn:
        txn["c"]["k"] = 0
        txn.collections()
        found = busy(second)
    assert found.holder == os.getpid()
    assert "another handle, a snapshot or a scan of this process had the lock" in str(found)


@needs_locks
def test_looking_for_the_holder_drops_none_of_this_process_s_locks(path: Path, open_store: OpenStore) -> None:
    """POSIX drops a process's locks on a file when any descriptor of the file is closed."""

    def own() -> list[list[str]]:
        return sorted(line.split()[1:] for line in LOCKS.read_text("ascii").splitlines() if f" {os.getpid()} " in line)

    store = open_store(timeout=0.05)
    store["left"][0] = store["right"][0] = 1
    with Child("holds", path) as child, store.snapshot():
        child.expects("holding")
        with pytest.raises(sqlstate.Busy):
            store["c"]["k"] = 1
        before = own()
        assert len(before) >= 2
        assert holders.of_writing(str(path)) is not None
        assert holders.of_reading(str(path)) != []
        assert own() == before
        child.tell()
        child.expects("committed")
        child.tell()
        child.ends()


def test_busy_is_raised_without_a_name_where_the_system_tells_none(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "linux":
        monkeypatch.setattr(linux, "LOCKS", str(path.parent / "none"))
    store = open_store(timeout=0.05)
    store["left"][0] = store["right"][0] = 1
    with Child("holds", path) as child:
        child.expects("holding")
        found = busy(store)
        assert found.holder is None
        assert "another writer" in str(found)
        child.tell()
        child.expects("committed")
        child.tell()
        child.ends()


@needs_locks
def test_the_readers_of_a_store_are_the_processes_that_read_it(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    with ExitStack() as stack:
        idle, *reading = (stack.enter_context(Remote.opened(path)) for _ in range(3))
        for each in reading:
            each.ask("hold")
        assert {found.pid for found in holders.of_reading(str(path))} == {each.pid for each in reading}
        for each in (idle, *reading):
            each.ends()


class Listed:
    """A store's path, and a list of locks."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._list = path.with_name("locks")
        monkeypatch.setattr(linux, "LOCKS", str(self._list))
        for file in (path, path.with_name(path.name + "-shm")):
            file.touch()

    def writes(self, *lines: str, shm: bool = True) -> int | None:
        """Write the list, with PLACE for the file, and return who holds the lock for writing."""
        status = os.stat(f"{self.path}-shm" if shm else self.path)
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        self._list.write_text("".join(f"{line.replace('PLACE', place)}\n" for line in lines), "ascii")
        found = holders.of_writing(str(self.path))
        return None if found is None else found.pid


@pytest.fixture
def listed(path: Path, monkeypatch: pytest.MonkeyPatch) -> Listed:
    if sys.platform != "linux":
        pytest.skip("this system does not list its locks")
    return Listed(path, monkeypatch)


def test_a_list_of_locks_is_read_as_linux_writes_it(listed: Listed) -> None:
    held = "1: POSIX  ADVISORY  WRITE 77 PLACE 120 120"
    assert listed.writes(held) == 77
    assert listed.writes("1: FLOCK  ADVISORY  WRITE 5 PLACE 0 EOF", held) == 77
    assert listed.writes("1: POSIX  ADVISORY  WRITE 78 PLACE 119 EOF") == 78
    assert listed.writes("1: POSIX  ADVISORY  WRITE 79 PLACE 0 127") == 79


@pytest.mark.parametrize(
    "line",
    [
        "1: POSIX  ADVISORY  READ 77 PLACE 120 120",
        "1: POSIX  ADVISORY  WRITE 77 PLACE 121 121",
        "1: POSIX  ADVISORY  WRITE 77 PLACE 119 119",
        "1: -> POSIX  ADVISORY  WRITE 77 PLACE 120 120",  # waits for it
        "1: OFDLCK ADVISORY  WRITE -1 PLACE 120 120",
        "1: POSIX  ADVISORY  WRITE 0 PLACE 120 120",  # of another container
        "1: POSIX  ADVISORY  WRITE 77 PLACE1 120 120",
        "a line of a later kernel",
    ],
)
def test_another_lock_names_nobody(listed: Listed, line: str) -> None:
    assert listed.writes(line) is None


def test_in_a_store_without_wal_readers_are_named_after_others_writers(listed: Listed) -> None:
    start = 0x40000000
    shared, reserved = f"PLACE {start + 2} {start + 511}", f"PLACE {start + 1} {start + 1}"
    reader = f"1: POSIX  ADVISORY  READ 77 {shared}"
    assert listed.writes(reader, shm=False) is None, "in WAL mode a reader keeps nobody waiting"
    os.unlink(f"{listed.path}-shm")
    assert listed.writes(reader, shm=False) == 77
    assert listed.writes(reader, f"2: POSIX  ADVISORY  WRITE 78 {reserved}", shm=False) == 78
    own = f"2: POSIX  ADVISORY  WRITE {os.getpid()} {reserved}"
    assert listed.writes(own, reader, shm=False) == 77, "a COMMIT that waits for readers has locks itself"
    assert listed.writes(own, shm=False) == os.getpid()


# ---- How one waits ----


def pauses(monkeypatch: pytest.MonkeyPatch, timeout: float) -> list[tuple[float, float]]:
    """When a connection that never gets the lock looks, and for how long it sleeps then, on a clock of its own."""
    now = 0.0
    found: list[tuple[float, float]] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        found.append((now, seconds))
        now += seconds + 1e-5

    monkeypatch.setattr(holders, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    handler = holders.BusyHandler("none", timeout)
    calls = 0
    while handler.wait(calls):
        calls += 1
    assert timeout <= now < timeout + 2 * holders.LONG_SLEEP_SECONDS
    assert not handler.waiting
    return found


@pytest.mark.parametrize(("timeout", "share"), [(5.0, 0.2), (60.0, 0.12)])
def test_one_who_waits_long_looks_seldom(monkeypatch: pytest.MonkeyPatch, timeout: float, share: float) -> None:
    looks = len(pauses(monkeypatch, timeout))
    assert looks < share * timeout / (holders.SHORT_SLEEP_SECONDS / 2)
    assert looks > timeout / holders.LONG_SLEEP_SECONDS


def test_looks_are_frequent_at_first_and_before_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pauses(monkeypatch, 5.0)
    assert max(slept for at, slept in found if at < 0.01) <= holders.SHORT_SLEEP_SECONDS
    assert max(slept for at, slept in found if at > 4.9) <= holders.SHORT_SLEEP_SECONDS
    assert max(slept for _, slept in found) > 0.9 * holders.LONG_SLEEP_SECONDS
    shortest = sorted(slept for at, slept in found if 1 < at < 3)[:10]
    assert shortest[0] < holders.SHORT_SLEEP_SECONDS, "all are random, so that no two go on in step"


def test_a_wait_for_readers_ends_when_patience_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds + 1e-5

    monkeypatch.setattr(holders, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    handler = holders.BusyHandler("none", 5.0)
    handler.patient_until = 0.1
    calls = 0
    while handler.wait(calls):
        calls += 1
    assert 0.1 <= now < 0.12
    assert handler.holder is None
