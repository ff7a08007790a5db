"""Keeps the child of a fork away from files that its parent had open.

SQLite keeps its table of locks in the memory of each process, and a fork copies it. The child then takes the parent's
locks for its own and asks the system for none: it reads two commits mixed, waits for a lock that is never released, or
removes a -wal that others write to. The child cannot correct that. So a file that was open at the fork is not opened in
the child.

SQLite also has mutexes in memory, for all files together. One that another thread holds at the fork is never released
in the child, which would wait for it whatever file it opens. So a fork waits until no thread is inside SQLite, and lets
none in meanwhile.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlstate.errors import StoreForked
from sqlstate.files import system
from sqlstate.files.identity import SIDECARS, identity
from sqlstate.files.living import Living

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.files.system import Identity

R = TypeVar("R")

# How long a fork waits at most for threads inside SQLite, and threads for a fork.
PAUSE_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.0002


class OpenFile:
    """Registers a file that this process opens through SQLite, for as long as the object lives.

    Args:
        path: of the file.

    Raises:
        StoreForked: the file was open in a parent process when this one was forked.
    """

    __slots__ = ("__weakref__", "identity")

    def __init__(self, path: str) -> None:
        check_not_inherited(path)
        self.identity: tuple[int, int] | None = identity(path)
        _open.add(self)


def check_not_inherited(path: str) -> None:
    """Raise if a file was open in a parent process when this one was forked.

    Raises:
        StoreForked: it was.
    """
    if identity(path) in _inherited:
        raise refusal(path)


def refusal(path: str) -> StoreForked:
    """Return the error for a child that opens or uses a file that its parent had open."""
    return StoreForked(
        f"{path} was open in the parent process when this process was forked, and SQLite's locks do not survive a "
        "fork; nothing was read or changed. Close the store before the fork, start the process with the method "
        "'spawn' or 'forkserver', or open the store in the child alone"
    )


def open_here(path: str) -> bool:
    """Return True if this process has the file open through SQLite, or the file that it is a sidecar of.

    Opened and closed as an ordinary file, it would lose the locks of this process.
    """
    names = [path, *(path.removesuffix(suffix) for suffix in SIDECARS if path.endswith(suffix))]
    found = {identity(name) for name in names} - {None}
    return any(each.identity in found for each in _open.members())


_inherited: Final[set[Identity | None]] = set()
_open: Final[Living[OpenFile]] = Living()


def _inherit() -> None:
    _inherited.update(each.identity for each in _open.members())
    _inherited.discard(None)


# ---- Threads inside SQLite ----

forking: Final[list[int]] = []
"""The threads that are forking. Before a call into SQLite: `if forking: stand_by()`."""
_inside: Final[dict[int, bool]] = {}
_busy: Final[list[Callable[[], bool]]] = []


def tells_busy(busy: Callable[[], bool]) -> Callable[[], bool]:
    """Register a function that returns True while a thread is inside SQLite."""
    _busy.append(busy)
    return busy


def stand_by() -> None:
    """Wait until no other thread forks."""
    until = time.monotonic() + PAUSE_SECONDS
    while forking and threading.get_ident() not in forking and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)


def call(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function of SQLite that no connection reports as busy: one that opens or closes a file."""
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


system.at_fork(before=_pause, in_parent=_go_on, in_child=_begin_child)
