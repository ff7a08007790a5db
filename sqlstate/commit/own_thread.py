"""The thread that a store does the work of others in: started when there is some, gone when there is none for long."""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

# The thread ends when it had nothing to do for so long; the next call starts it again.
IDLE_SECONDS: Final = 1.0
# A thread that is being started is taken for one that never will after so long.
START_SECONDS: Final = 0.1


class OwnThread:
    """A thread that calls *work* whenever it is woken. It keeps nobody alive: who drops the owner drops it.

    No lock is held while it is started or woken, so nothing stays behind if that is cut short; at worst there are two
    threads for a moment.

    Args:
        name: of the thread.
        work: a method of the owner, called in the thread; tells whether to wait for more.
        more: a method of the owner that tells whether there is something to do.
    """

    __slots__ = ("__weakref__", "_bell", "_more", "_name", "_started", "_thread", "_work", "busy")

    busy: bool
    """Whether it looks once more whether there is something to do before it sleeps."""

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
        """Identity of the thread, None if it was never begun."""
        return None if self._thread is None else self._thread.ident

    def is_here(self) -> bool:
        """Tell whether this is the thread."""
        return self.ident == threading.get_ident()

    def wake(self) -> None:
        """See that it works.

        Raises:
            RuntimeError: no thread can be begun.
        """
        thread = self._thread
        if thread is not None and thread.is_alive():
            self.ring()
            return
        now = time.monotonic()
        if thread is not None and thread.ident is None and now - self._started < START_SECONDS:
            return  # another thread is starting it; if that is cut short, those who wait try again
        self._started = now
        self._thread = thread = threading.Thread(target=_run, args=(self, self._work), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
            raise

    def ring(self) -> None:
        """Wake it, if it sleeps; twice is as good as once."""
        if self._bell.locked():
            with suppress(RuntimeError):  # another was faster
                self._bell.release()

    def sleep(self) -> bool:
        """Wait for the bell, in the thread; False if it has not rung for long, and there is nothing to do."""
        if self._bell.acquire(timeout=IDLE_SECONDS):
            return True
        mine, self._thread = self._thread, None
        more = self._more()
        if more is None or not more():
            return False
        self._thread = mine  # something came at the last moment
        return True


def _run(thread: OwnThread, work: weakref.WeakMethod[Callable[[], bool]]) -> None:
    while True:
        try:
            if not _step(work) or not thread.sleep():
                return
        except BaseException:  # noqa: BLE001, nobody else would do what there is to do
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _step(work: weakref.WeakMethod[Callable[[], bool]]) -> bool:
    bound = work()  # not kept: who drops the store must not wait for us
    return bound is not None and bound()


# ---- The end of the interpreter ----


class Draining(Protocol):
    """An owner of a thread."""

    def drain(self) -> None:
        """Wait until nothing is left to be done."""


_owners: Final[weakref.WeakSet[Draining]] = weakref.WeakSet()
_ended: Final[list[bool]] = []


def drain_at_end(owner: Draining) -> None:
    """Have the end of the interpreter wait for what *owner* has to do, as it does for a pool of threads."""
    _owners.add(owner)


def ending() -> bool:
    """Tell whether the interpreter is ending: threads like these may stand still from now on."""
    return bool(_ended)


def _end() -> None:
    for owner in list(_owners):
        owner.drain()
    _ended.append(True)


atexit.register(_end)
