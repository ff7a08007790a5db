"""The files of one store, without a connection: the main file and its sidecars."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress

from sqlstate.errors import CannotOpen, StoreError, StoreIOError
from sqlstate.files import paths, system
from sqlstate.files.file_bytes import FileBytes
from sqlstate.sqlite import main_file
from sqlstate.sqlite.raw_file import exclusive_lock, read_at


class StoreFiles:
    """The main file of a store and its sidecars (-wal, -shm, -journal), read without a connection.

    Args:
        real_path: of the main file, without links; SQLite names the sidecars after that.
        vfs: name of the SQLite VFS that does the input and output; None is the system's.
        timeout: seconds that exclusive_lock() waits for another process that holds it.
    """

    __slots__ = ("_timeout", "_vfs", "real_path")

    def __init__(self, real_path: str, vfs: str | None, timeout: float) -> None:
        self.real_path: str = real_path
        self._vfs = vfs
        self._timeout = timeout

    def size(self, suffix: str = "") -> int:
        """Return the size of the file, or of the sidecar with *suffix*, in bytes; 0 if there is no such file.

        Raises:
            StoreIOError: the system does not tell the size.
        """
        return paths.size(self.real_path + suffix)

    def blocks(self, suffix: str) -> int:
        """Return the bytes that a sidecar occupies on the disk; 0 if there is none or the size is not known."""
        return system.occupied(self.real_path + suffix)

    @property
    def folder(self) -> str:
        """The folder of the main file and its sidecars."""
        return os.path.dirname(self.real_path)

    def exclusive_lock(self) -> AbstractContextManager[bool | None]:
        """Hold the exclusive lock on the main file during the block; as raw_file.exclusive_lock()."""
        return exclusive_lock(self.real_path, self._vfs, self._timeout)

    def has(self, suffix: str) -> bool:
        """Return True if there is a sidecar with *suffix*."""
        return os.path.exists(self.real_path + suffix)

    def sidecar(self, suffix: str) -> bytes:
        """Return the content of SQLite's -wal or -journal, empty if there is none.

        It stays the same only while the caller holds the exclusive lock.

        Raises:
            CannotOpen, StoreIOError: it cannot be opened or read.
        """
        with self.sidecar_bytes(suffix) as data:
            return data[:]

    def sidecar_bytes(self, suffix: str) -> FileBytes:
        """Return the content of a sidecar for a `with` block, read part by part on demand. Raises as sidecar()."""
        return FileBytes(self.real_path + suffix)

    def sidecar_start(self, suffix: str, amount: int) -> bytes:
        """Return the first bytes of a sidecar; the caller holds the exclusive lock."""
        try:
            with open(self.real_path + suffix, "rb") as file:
                return file.read(amount)
        except OSError as e:
            if e.errno in paths.NO_DESCRIPTOR:  # otherwise there is none, or this user may not read it
                raise CannotOpen(f"{self.real_path}{suffix} cannot be read: {paths.why(e)}") from e
            return b""

    def page(self, number: int, page_size: int) -> bytes:
        """Return a page of the main file."""
        return read_at(self.real_path, self._vfs, (number - 1) * page_size, page_size)

    def pages(self, page_size: int) -> int:
        """Return the number of pages in the main file."""
        return self.size() // page_size

    def drop_empty_journals(self) -> None:
        """Remove the rollback journal of a process that died before it synced it. SQLite ignores it, and keeps it.

        A process at work has such a journal too, but holds a lock on the file then.
        """
        found = [self.real_path + suffix for suffix in ("-journal", "-wal") if self.has(suffix)]
        if not any(map(main_file.is_nothing, found)):
            return
        with suppress(OSError, StoreError), exclusive_lock(self.real_path, self._vfs, 0.0) as is_alone:
            for journal in found if is_alone else ():
                if main_file.is_nothing(journal):
                    system.remove(journal)

    def refuse_strangers(self, path: str) -> None:
        """Raise if making a store here would make SQLite delete the -wal or -journal of another file.

        They are looked for before the file's size: a store that is being made has a header before it has a -wal.
        """
        try:
            stranger = (
                "-wal" if self.size("-wal") else "-journal" if main_file.has_foreign_journal(self.real_path) else ""
            )
            empty = not self.size()
        except StoreIOError:
            return  # no file can have that path; the caller finds out next
        if stranger and empty:
            raise CannotOpen(
                f"{path} is not there or empty, but {self.real_path}{stranger} is, and SQLite would delete it. "
                "It may hold the commits of a file that was removed: move it away, or choose another path. "
                "Nothing was changed"
            )
