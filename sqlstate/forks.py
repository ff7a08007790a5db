"""Keeps the child of a fork from files that its parent had open.

SQLite keeps its table of locks in the memory of each process, and a fork copies it. The child then takes for its own
the locks that the parent has, asks the system for none, and closing a file would drop nothing but the child's: it
reads two commits mixed, waits for a lock that nobody gives back, or removes a -wal that others write to. Nothing that
the child could do makes that right. So what was open at the fork stays closed there.
"""

from __future__ import annotations

import os
import weakref
from typing import Final

from sqlstate.errors import StoreForked

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
        self.identity = identity(path)
        if self.identity in _inherited:
            raise refusal(path)
        _open.add(self)


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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_inherit)
