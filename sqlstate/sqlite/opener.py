"""Opens SQLite connections to one file, and tells whether its name still leads to it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlstate.errors import StoreIOError
from sqlstate.files import paths
from sqlstate.files.identity import Named
from sqlstate.sqlite.connection import Connection
from sqlstate.sqlite.forks import identity
from sqlstate.sqlite.overlay import Overlay

if TYPE_CHECKING:
    from sqlstate.sqlite.life import Life
    from sqlstate.sqlite.overlay import Pages

CHANGED: Final = (
    "somebody changed the file while it was read without locks, as nothing can be written beside it here; what was "
    "read may be of two states. Nothing was changed by this handle, which refuses further work. Open the store again"
)


class ImmutableFile:
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


class Opener:
    """Opens connections to the file that *path* leads to now, and to no other that gets its name later.

    Args:
        life: of the handle.
        real_path: of the file, without links; SQLite names the files beside it after that.
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
        self._main = Named(real_path)
        self._wal = Named(real_path + "-wal")
        self._wal_inode = 0
        self.frozen: ImmutableFile | None = None
        """How the file is read where SQLite can make nothing beside it."""
        self.foldable = False
        """Whether all that is in SQLite's WAL may be moved into the main file by the last connection that closes."""

    def open(self) -> Connection:
        """Open a connection.

        Raises:
            StoreIOError: the file was moved, or another has its name.
        """
        if not self.main_in_place():
            raise StoreIOError(f"{self._path}: {self.moved()}. Close the store, and open it where it is now")
        if self.frozen is not None:
            return self.frozen.connect(self._timeout)
        # SQLite can remove its -wal and -shm only through a connection that may write. A journal that waits to
        # be rolled back must wait longer if this store is opened for reading.
        waits = self._life.read_only and paths.size(self._real_path + "-journal") > 0
        connection = Connection(self._path, self._timeout, read_only=waits, vfs=self._vfs)
        # Who forgets close() leaves its connections to the garbage collector, or to the end of the process.
        connection.fold_at_close(fold=False)
        connection.stuck = self._life.fail
        return connection

    def close(self, connection: Connection) -> None:
        """Close a connection. A -wal that may be needed is never removed, whatever closes last."""
        if self.frozen is not None:
            connection.close()
            self.frozen.close()
            return
        ours = self.foldable and self.wal_in_place()
        connection.fold_at_close(fold=ours or (self.main_in_place() and self._has_no_wal()))
        connection.close()

    def check_unchanged(self) -> None:
        """Raise if the file is read without locks, and somebody has changed it: what was read may be mixed.

        Raises:
            StoreIOError: that is so; the handle refuses further work.
        """
        if self.frozen is None or self._life.failure or not self.frozen.changed():
            return
        self._life.fail("the file was changed while it was read without locks")
        raise StoreIOError(f"{self._path}: {CHANGED}")

    @property
    def inode(self) -> int:
        """Number of the file in its file system."""
        return 0 if self._identity is None else self._identity[1]

    def main_in_place(self) -> bool:
        """Tell whether the path still leads to the file."""
        return self._identity is not None and self._main.inode() == self._identity[1]

    def wal_in_place(self) -> bool:
        """Tell whether SQLite's -wal still is where it was; what is written to an unlinked one dies with us."""
        inode = self._wal.inode()
        if not self._wal_inode:
            self._wal_inode = inode
        return inode != 0 and inode == self._wal_inode

    def _has_no_wal(self) -> bool:
        with suppress(StoreIOError):  # then there may be one
            return not paths.size(self._real_path + "-wal")
        return False

    def forget_wal(self) -> None:
        """Forget which -wal there was: SQLite closed the file."""
        self._wal_inode = 0

    def moved(self) -> str:
        """Return in words that the file is not where it was, and where it is, as far as the system tells."""
        where = _name_of(self._identity)
        found = f"; it is {where} now" if where else ""
        return f"the file was renamed, removed or replaced while the store was open{found}"


def _name_of(file: tuple[int, int] | None) -> str:
    """Return the name that a file which this process has open has now; "" if it has none, or that cannot be known."""
    folder = "/proc/self/fd"
    try:
        for number in os.listdir(folder):
            try:
                status = os.stat(f"{folder}/{number}")
                if (status.st_dev, status.st_ino) == file:
                    return os.readlink(f"{folder}/{number}") if status.st_nlink else "without a name"
            except OSError:
                continue
    except OSError:
        pass
    return ""
