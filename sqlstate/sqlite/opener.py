"""Opens SQLite connections to one file, and notices when the path no longer leads to it.

Even to read a file in WAL mode, SQLite makes a -wal and a -shm. Where it cannot (read-only media, a folder of another
user, a full disk), and the main file holds all commits, SQLite is told that the file is immutable; where a -wal holds
commits, its pages are laid over the file's. Both take no locks. If another program changes the file all the same, that
is noticed each time that a reader is acquired or released.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlstate.errors import StoreIOError
from sqlstate.files import paths
from sqlstate.files.identity import identity, name_of
from sqlstate.files.system import Inode
from sqlstate.sqlite.connection import Connection
from sqlstate.sqlite.overlay import Overlay

if TYPE_CHECKING:
    from sqlstate.sqlite.life import Life
    from sqlstate.sqlite.overlay import Pages

CHANGED: Final = (
    "another program changed the file while it was read without locks, because SQLite can make no files next to it; "
    "what was read may mix two states. This handle changed nothing, and refuses further work. Open the store again"
)


class ImmutableFile:
    """A file that is read without locks, because SQLite can make no files next to it.

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
        """Whether the pages of a -wal are laid over the file's."""
        return self._overlay is not None

    def connect(self, timeout: float) -> Connection:
        """Return a connection that reads the file."""
        if self._overlay is not None:
            return self._overlay.connect()
        return Connection(self._path, timeout, vfs=self._vfs, immutable=True)

    def changed(self) -> bool:
        """Return True if the file, its -wal or its -journal changed since the object was made."""
        return _seen(self._path) != self._was

    def close(self) -> None:
        """Drop the pages of the -wal, once all connections are closed."""
        if self._overlay is not None:
            self._overlay.close()


def _seen(path: str) -> list[tuple[int, ...] | None]:
    return [_signature(path + suffix) for suffix in ("", "-wal", "-journal")]


def _signature(path: str) -> tuple[int, ...] | None:
    """Return facts that change when a file is written or replaced; None for a missing or empty file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else None


class Opener:
    """Opens connections to the file that *path* leads to now, and to no other that gets its name later.

    Args:
        life: of the handle.
        real_path: of the file, without links; SQLite names the -wal and -journal after it.
        timeout: seconds that a connection waits for a lock.
        vfs: name of the SQLite VFS that does the input and output; None is the system's.

    Raises:
        StoreIOError: the file cannot be looked at.
    """

    def __init__(self, life: Life, real_path: str, timeout: float, *, vfs: str | None) -> None:
        self._life = life
        self._path = life.path
        self._real_path = real_path
        self._timeout = timeout
        self._vfs = vfs
        paths.size(real_path)  # raises if it cannot be looked at
        self._identity = identity(real_path)
        self._main = Inode(real_path)
        self._wal = Inode(real_path + "-wal")
        self._wal_inode = 0
        self.frozen: ImmutableFile | None = None
        """The file as it is read where SQLite can make no -wal, else None."""
        self.foldable = False
        """Whether the last connection that closes may move SQLite's WAL into the main file and remove it."""

    def open(self) -> Connection:
        """Open a connection.

        Raises:
            StoreIOError: the file was moved, or another has its name.
        """
        if not self.main_in_place():
            raise StoreIOError(f"{self._path}: {self.moved()}. Close the store, and open it where it is now")
        if self.frozen is not None:
            return self.frozen.connect(self._timeout)
        # SQLite can remove its -wal and -shm only through a connection that may write. But a store opened for reading
        # must not roll back a journal.
        waits = self._life.read_only and paths.size(self._real_path + "-journal") > 0
        connection = Connection(self._path, self._timeout, read_only=waits, vfs=self._vfs)
        # A store that is not closed leaves its connections to the garbage collector, which must not checkpoint.
        connection.fold_at_close(fold=False)
        connection.stuck = self._life.fail
        return connection

    def close(self, connection: Connection) -> None:
        """Close a connection. A -wal that may be needed is never removed, whichever connection closes last."""
        if self.frozen is not None:
            connection.close()
            self.frozen.close()
            return
        ours = self.foldable and self.wal_in_place()
        connection.fold_at_close(fold=ours or (self.main_in_place() and self._has_no_wal()))
        connection.close()

    def check_unchanged(self) -> None:
        """Raise if the file is read without locks and has changed: what was read may mix two states.

        Raises:
            StoreIOError: it has changed; the handle refuses further work.
        """
        if self.frozen is None or self._life.failure or not self.frozen.changed():
            return
        self._life.fail("the file was changed while it was read without locks")
        raise StoreIOError(f"{self._path}: {CHANGED}")

    @property
    def inode(self) -> int:
        """Inode of the file."""
        return 0 if self._identity is None else self._identity[1]

    def main_in_place(self) -> bool:
        """Return True if the path still leads to the file."""
        return self._identity is not None and self._main.now() == self._identity[1]

    def wal_in_place(self) -> bool:
        """Return True if the -wal has the inode that it had first. Commits to an unlinked -wal die with the process."""
        inode = self._wal.now()
        if not self._wal_inode:
            self._wal_inode = inode
        return inode != 0 and inode == self._wal_inode

    def _has_no_wal(self) -> bool:
        with suppress(StoreIOError):  # unknown: there may be one
            return not paths.size(self._real_path + "-wal")
        return False

    def forget_wal(self) -> None:
        """Forget the inode of the -wal, once the writing connection is closed."""
        self._wal_inode = 0

    def moved(self) -> str:
        """Return a sentence that says that the file lost its path, and its new path if the system knows."""
        where = name_of(self._identity)
        found = f"; it is {where} now" if where else ""
        return f"the file was renamed, removed or replaced while the store was open{found}"
