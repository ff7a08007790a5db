"""Waiting for a lock of the file: SQLite asks the handler here whether to try once more."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

from sqlstate.sqlite import lock_holders
from sqlstate.sqlite.forks import forking, stand_by

if TYPE_CHECKING:
    from sqlstate.sqlite.lock_holders import Holder

# A waiting writer sleeps a random time up to this, so that none of several is starved.
BUSY_SLEEP_SECONDS: Final = 0.001


class BusyHandler:
    """The busy handler of one connection.

    Args:
        path: the file.
        timeout: seconds to wait for a lock.
    """

    __slots__ = ("_path", "_waiting_since", "holder", "patient_until", "timeout", "waiting")

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self.timeout = timeout
        self._waiting_since = 0.0
        self.patient_until: float | None = None
        """Wait until this moment instead, and for readers only; None for the timeout."""
        self.waiting = False
        """Whether a thread waits for a lock of the file at this moment."""
        self.holder: Holder | None = None
        """Who had the lock when the timeout was over, where the system says so."""

    def wait(self, calls: int) -> bool:
        """Sleep a little, and return whether SQLite is to try again; *calls* counts for how often it asked before."""
        now = time.monotonic()
        if self.patient_until is not None:
            self._sleep()
            return now < self.patient_until
        if calls == 0:
            self._waiting_since = now
        if now - self._waiting_since >= self.timeout:
            self.holder = lock_holders.of_writing(self._path)
            return False
        self._sleep()
        return True

    def _sleep(self) -> None:
        self.waiting = True
        time.sleep(random.uniform(0, BUSY_SLEEP_SECONDS))  # noqa: S311, no secret
        if forking:
            stand_by()
        self.waiting = False
