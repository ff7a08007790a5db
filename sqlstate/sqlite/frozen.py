"""Reads a store beside which SQLite can make no file: on read-only media, in a folder of others, on a full disk.

Even to read a file in WAL mode, SQLite makes a -wal and a -shm. Where it cannot, and the main file holds all that was
committed, SQLite is told that the file is immutable; where a -wal holds commits, its pages are laid over the file's.
Both take no locks. If somebody changes the file all the same, that is noticed each time that a reader is taken or
given back.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sqlstate.sqlite.connection import Connection
from sqlstate.sqlite.overlay import Overlay

if TYPE_CHECKING:
    from sqlstate.sqlite.overlay import Pages


CHANGED: Final = (
    "somebody changed the file while it was read without locks, as nothing can be written beside it here; what was "
    "read may be of two states. Nothing was changed by this handle, which refuses further work. Open the store again"
)


class Frozen:
    """A file that is read as it is at this moment.

    Args:
        path: the file, without links.
        vfs: name of the SQLite VFS; None is the system's.
        pages: of its -wal, if that holds commits.
    """

    __slots__ = ("_overlay", "_path", "_vfs", "_was")

    def __init__(self, path: str, vfs: str | None, pages: Pages | None) -> None:
        self._path = path
        self._vfs = vfs
        self._overlay = None if pages is None else Overlay(path, pages, vfs)
        self._was = _seen(path)

    @property
    def has_wal(self) -> bool:
        """Whether a -wal is laid over it."""
        return self._overlay is not None

    def connect(self, timeout: float) -> Connection:
        """Return a connection that reads it."""
        if self._overlay is not None:
            return self._overlay.connect()
        return Connection(self._path, timeout, vfs=self._vfs, immutable=True)

    def changed(self) -> bool:
        """Tell whether somebody has changed the file since, or begun to."""
        return _seen(self._path) != self._was

    def close(self) -> None:
        """Let go of it, once all its connections are closed."""
        if self._overlay is not None:
            self._overlay.close()


def _seen(path: str) -> list[tuple[int, ...] | None]:
    return [_signature(path + suffix) for suffix in ("", "-wal", "-journal")]


def _signature(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file is written or replaced; an empty one beside a store counts as none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else None
