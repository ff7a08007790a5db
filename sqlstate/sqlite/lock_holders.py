"""Waits for SQLite's locks, and names the process that holds one, where the system says so.

The files are never opened for that: closing a descriptor of a locked file drops this process's own locks on it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.files import system
from sqlstate.sqlite.forks import forking, stand_by

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes that SQLite locks: of the -shm, see walformat.html in SQLite's documentation; of the main file, os.h.
WAL_WRITE: Final = 120
WAL_READ: Final = range(123, 128)
MAIN: Final = range(0x40000000, 0x40000000 + 512)


class Holder(NamedTuple):
    """A process that holds a lock."""

    pid: int
    name: str
    """As the system shows it; empty if the process has ended."""

    def __str__(self) -> str:
        if self.pid == os.getpid():
            return "another handle, a snapshot or a scan of this process"
        return f"process {self.pid}{f' ({self.name})' if self.name else ''}"


def of_writing(path: str) -> Holder | None:
    """Return the holder of the lock that a write to a store waits for, or None if it is not known.

    Args:
        path: the main file.
    """
    path = os.path.realpath(path)
    in_wal = next(_locks(path + "-shm", range(WAL_WRITE, WAL_WRITE + 1), shared=False), None)
    if in_wal is not None:
        return _named(in_wal)
    # In WAL mode every process that has the file open holds its shared lock, and blocks no writer.
    shared = not os.path.exists(path + "-shm")
    found = [*_locks(path, MAIN, shared=False), *(_locks(path, MAIN, shared=True) if shared else ())]
    # A COMMIT that waits for readers holds locks itself.
    return next((_named(pid) for pid in found if pid != os.getpid()), _named(found[0]) if found else None)


def of_reading(path: str) -> list[Holder]:
    """Return the processes that read a store in WAL mode now; none if they are not known.

    Args:
        path: the main file.
    """
    return [_named(pid) for pid in sorted(set(_locks(os.path.realpath(path) + "-shm", WAL_READ, shared=True)))]


def is_locked(path: str) -> bool | None:
    """Return True if a process holds a lock on some byte of a file, None where the system does not say."""
    return system.is_held(path)


def _locks(path: str, wanted: range, *, shared: bool) -> Iterator[int]:
    """Yield the processes that hold a lock, exclusive or *shared*, on one of the bytes *wanted* of a file."""
    for pid, is_shared, first, last in system.held_locks(path) or ():
        if is_shared is shared and first <= wanted[-1] and last >= wanted[0]:
            yield pid


def _named(pid: int) -> Holder:
    return Holder(pid, system.process_name(pid))


# Who waits for a lock sleeps a random time, at most between these, and then looks again.
SHORT_SLEEP_SECONDS: Final = 0.001
LONG_SLEEP_SECONDS: Final = 0.01
_OF_WAITED: Final = 1 / 10
_OF_LEFT: Final = 1 / 100


def chance() -> float:
    """Return a number from 0 to 1, by chance. The module `random` takes 2 ms to import, and a fork copies its state."""
    return int.from_bytes(os.urandom(4)) / 2**32


def pause(since: float, until: float) -> float:
    """Return for how long to sleep before the next look at a lock that another connection holds.

    Looks are frequent at first, so that a short wait stays short. They become rare, since they cost the processor that
    the holder needs. They are frequent again towards the end: otherwise those who came last would starve those who
    have waited longest.

    Args:
        since: when the waiting began, of time.monotonic().
        until: when it will be given up.
    """
    now = time.monotonic()
    most = min((now - since) * _OF_WAITED, (until - now) * _OF_LEFT, LONG_SLEEP_SECONDS)
    return max(most, SHORT_SLEEP_SECONDS) * chance()


class BusyHandler:
    """The busy handler of one connection.

    Args:
        path: the file.
        timeout: seconds to wait for a lock.
    """

    __slots__ = ("_path", "_waiting_since", "holder", "patient_until", "timeout", "waiting")

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self.timeout: float = timeout
        self._waiting_since = 0.0
        self.patient_until: float | None = None
        """Until when to wait for readers alone; None to wait for the timeout."""
        self.waiting: bool = False
        """Whether a thread is waiting for a lock on the file."""
        self.holder: Holder | None = None
        """The holder of the lock when the timeout was over, if it is known."""

    def wait(self, calls: int) -> bool:
        """Sleep a little, and return True if SQLite shall try again; *calls* is the number of tries so far."""
        now = time.monotonic()
        if calls == 0:
            self._waiting_since = now
        until = self._waiting_since + self.timeout if self.patient_until is None else self.patient_until
        if now >= until:
            if self.patient_until is None:
                self.holder = of_writing(self._path)
            return False
        self.waiting = True
        time.sleep(pause(self._waiting_since, until))
        if forking:
            stand_by()
        self.waiting = False
        return True
