"""A thread of a store's own, started when there is work, and ended when there was none for a while."""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from sqlstate.files.living import Living

if TYPE_CHECKING:
    from collections.abc import Callable

# The thread ends when it was idle this long; the next wake() starts another.
IDLE_SECONDS: Final = 1.0
# A thread that has not started after this long is given up.
START_SECONDS: Final = 0.1


class OwnThread:
    """A thread that calls *work* whenever it is woken. It does not keep its owner alive.

    No lock is held while it is started or woken, so an interruption leaves nothing locked; at worst there are two
    threads for a short time.

    Args:
        name: of the thread.
        work: a method of the owner, called in the thread; returns True to wait for more.
        more: a method of the owner that returns True if there is work.
    """

    __slots__ = ("__weakref__", "_bell", "_more", "_name", "_started", "_thread", "_work", "busy")

    busy: bool
    """Whether it will look for work once more before it sleeps."""

    def __init__(self, name: str, work: Callable[[], bool], more: Callable[[], bool]) -> None:
        self._name = name
        self._work = weakref.WeakMethod(work)
        self._more = weakref.WeakMethod(more)
        self._bell = threading.Lock()  # free when it has been called
        self._bell.acquire()
        self._thread: threading.Thread | None = None
        self._started = 0.0
        self.busy = False

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def ident(self) -> int | None:
        """Identity of the thread, None if it was never started."""
        return None if self._thread is None else self._thread.ident

    def is_here(self) -> bool:
        """Return True if called in the thread."""
        return self.ident == threading.get_ident()

    def wake(self) -> None:
        """Wake the thread, or start it.

        Raises:
            RuntimeError: no thread can be started.
        """
        thread = self._thread
        if thread is not None and thread.is_alive():
            self.ring()
            return
        now = time.monotonic()
        if thread is not None and thread.ident is None and now - self._started < START_SECONDS:
            return  # another thread is starting it; if that is interrupted, waiting threads try again
        self._started = now
        self._thread = thread = threading.Thread(target=_loop, args=(self, self._work), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
            raise

    def ring(self) -> None:
        """Wake the thread, if it sleeps. Idempotent."""
        if self._bell.locked():
            with suppress(RuntimeError):  # another thread was faster
                self._bell.release()

    def rest(self, seconds: float) -> bool:
        """Wait, in the thread, until it is woken, *seconds* at most; return True if it was."""
        return self._bell.acquire(timeout=seconds)

    def sleep(self) -> bool:
        """Wait, in the thread, until it is woken; return False if it was idle too long and there is no work."""
        if self.rest(IDLE_SECONDS):
            return True
        mine, self._thread = self._thread, None
        more = self._more()
        if more is None or not more():
            return False
        self._thread = mine  # work was queued just now
        return True


def _loop(thread: OwnThread, work: weakref.WeakMethod[Callable[[], bool]]) -> None:
    while True:
        try:
            if not _work_once(work) or not thread.sleep():
                return
        except BaseException:  # noqa: BLE001, the thread must go on: no other does its work
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _work_once(work: weakref.WeakMethod[Callable[[], bool]]) -> bool:
    bound = work()  # not kept while the thread sleeps, so that a dropped store is freed at once
    return bound is not None and bound()


# ---- The end of the interpreter ----


class Draining(Protocol):
    """The owner of a thread."""

    def drain(self) -> None:
        """Wait until nothing is left to do."""


_owners: Final[Living[Draining]] = Living()
_ended: Final[list[bool]] = []


def drain_at_end(owner: Draining) -> None:
    """Have the interpreter wait at its end until *owner* has no work, as it does for a pool of threads."""
    _owners.add(owner)


def ending() -> bool:
    """Return True if the interpreter is ending: daemon threads may stop running at any time."""
    return bool(_ended)


def _end() -> None:
    for owner in _owners.members():
        owner.drain()
    _ended.append(True)


atexit.register(_end)
