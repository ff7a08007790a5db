"""Keeps the child of a fork from files that its parent had open.

SQLite keeps its table of locks in the memory of each process, and a fork copies it. The child then takes for its own
the locks that the parent has, asks the system for none, and closing a file would drop nothing but the child's: it
reads two commits mixed, waits for a lock that nobody gives back, or removes a -wal that others write to. Nothing that
the child could do makes that right. So what was open at the fork stays closed there.

SQLite has locks in memory too, for all files together: those that another thread has at the moment of the fork are
never given back in the child, which would wait for them whatever file it opens. So a fork waits until no thread is
inside SQLite, and lets none in meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlstate.errors import StoreForked

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")

# So long does a fork wait at most for a thread that is inside SQLite, and such a thread for a fork.
PAUSE_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.0002

Identity = tuple[int, int]
"""Device and inode: which file it is, whatever its names are."""


def identity(path: str) -> Identity | None:
    """Return which file *path* leads to, None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class OpenFile:
    """Stands for a file that this process opens through SQLite, from before that until nobody has the object.

    Args:
        path: of the file.

    Raises:
        StoreForked: the file was open in a parent process when this one was forked.
    """

    __slots__ = ("__weakref__", "identity")

    def __init__(self, path: str) -> None:
        check_not_inherited(path)
        self.identity = identity(path)
        _open.add(self)


def check_not_inherited(path: str) -> None:
    """Raise if a file was open in a parent process when this one was forked.

    Raises:
        StoreForked: it was.
    """
    if identity(path) in _inherited:
        raise refusal(path)


def refusal(path: str) -> StoreForked:
    """Return what to raise in a child that opens or uses what its parent had open."""
    return StoreForked(
        f"{path} was open in the parent process when this process was forked, and SQLite's locks do not survive a "
        "fork; nothing was read or changed. Close the store before the fork, start the process with the method "
        "'spawn' or 'forkserver', or open the store in the child alone"
    )


_inherited: Final[set[Identity | None]] = set()
_open: Final[weakref.WeakSet[OpenFile]] = weakref.WeakSet()


def _inherit() -> None:
    _inherited.update(each.identity for each in list(_open))
    _inherited.discard(None)


# ---- Threads inside SQLite ----

forking: Final[list[int]] = []
"""The threads that fork at this moment. Before a call into SQLite: `if forking: stand_by()`."""
_inside: Final[dict[int, bool]] = {}
_busy: Final[list[Callable[[], bool]]] = []


def tells_busy(busy: Callable[[], bool]) -> Callable[[], bool]:
    """Register a function that tells whether a thread is inside SQLite."""
    _busy.append(busy)
    return busy


def stand_by() -> None:
    """Wait until nobody forks; but for the thread that does."""
    until = time.monotonic() + PAUSE_SECONDS
    while forking and threading.get_ident() not in forking and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)


def call(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function of SQLite while no connection tells that a thread is inside: to open or close a file."""
    if forking:
        stand_by()
    me = threading.get_ident()
    _inside[me] = True
    try:
        return function(*arguments)
    finally:
        _inside.pop(me, None)


def _pause() -> None:
    me = threading.get_ident()
    forking.append(me)
    until = time.monotonic() + PAUSE_SECONDS
    while any(thread != me for thread in list(_inside)) or any(busy() for busy in _busy):
        if time.monotonic() >= until:
            return
        time.sleep(LOOK_SECONDS)


def _go_on() -> None:
    me = threading.get_ident()
    while me in forking:
        forking.remove(me)


def _begin_child() -> None:
    forking.clear()
    _inside.clear()
    _inherit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause, after_in_parent=_go_on, after_in_child=_begin_child)
