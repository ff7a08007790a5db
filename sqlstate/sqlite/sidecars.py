"""The files of one store, by their path: the main file by itself, and what SQLite keeps beside it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress

from sqlstate.errors import CannotOpen, StoreError, StoreIOError
from sqlstate.files import paths
from sqlstate.files.file_bytes import FileBytes
from sqlstate.sqlite import main_file
from sqlstate.sqlite.raw_file import exclusive_lock, read_at


class StoreFiles:
    """The main file of a store and its sidecars (-wal, -shm, -journal), looked at without a connection.

    Args:
        real_path: of the main file, without links; SQLite names the sidecars after that.
        vfs: name of the SQLite VFS that does the input and output; None is the system's.
        timeout: seconds to wait for others who ask whether they are alone with the file.
    """

    __slots__ = ("_timeout", "_vfs", "real_path")

    def __init__(self, real_path: str, vfs: str | None, timeout: float) -> None:
        self.real_path = real_path
        self._vfs = vfs
        self._timeout = timeout

    def size(self, suffix: str = "") -> int:
        """Return the bytes of the file, or of the one beside it whose name has *suffix*; 0 if there is none.

        Raises:
            StoreIOError: the system does not say.
        """
        return paths.size(self.real_path + suffix)

    def blocks(self, suffix: str) -> int:
        """Return the bytes that a file beside the store takes on the disk; 0 if there is none, or nobody knows."""
        try:
            return os.stat(self.real_path + suffix).st_blocks * 512
        except OSError:
            return 0

    @property
    def folder(self) -> str:
        """The folder that SQLite's files beside the store are in."""
        return os.path.dirname(self.real_path)

    def exclusive_lock(self) -> AbstractContextManager[bool | None]:
        """Keep others from the file during the block, if nobody has it open; as raw_file.exclusive_lock()."""
        return exclusive_lock(self.real_path, self._vfs, self._timeout)

    def has(self, suffix: str) -> bool:
        """Tell whether there is a file beside the store whose name has *suffix*."""
        return os.path.exists(self.real_path + suffix)

    def sidecar(self, suffix: str) -> bytes:
        """Return the content of SQLite's -wal or -journal, nothing if there is none.

        Only who is alone with the file knows that it stays so.

        Raises:
            CannotOpen, StoreIOError: it cannot be opened, or not be read.
        """
        with self.sidecar_bytes(suffix) as data:
            return data[:]

    def sidecar_bytes(self, suffix: str) -> FileBytes:
        """Return the same, read where it is asked for; for a `with` block. Raises as sidecar()."""
        return FileBytes(self.real_path + suffix)

    def sidecar_start(self, suffix: str, amount: int) -> bytes:
        """Return the first bytes of a file beside the store; the caller is alone with it."""
        try:
            with open(self.real_path + suffix, "rb") as file:
                return file.read(amount)
        except OSError as e:
            if e.errno in paths.NO_DESCRIPTOR:  # otherwise it is not there, or not for us
                raise CannotOpen(f"{self.real_path}{suffix} cannot be read: {paths.why(e)}") from e
            return b""

    def page(self, number: int, page_size: int) -> bytes:
        """Return a page of the main file by itself."""
        return read_at(self.real_path, self._vfs, (number - 1) * page_size, page_size)

    def pages(self, page_size: int) -> int:
        """Return the pages of the main file by itself."""
        return self.size() // page_size

    def drop_empty_journals(self) -> None:
        """Remove the rollback journal of a process that died before it was synced; SQLite ignores it, and lets it be.

        A process that is at work has one like it, and then has a lock of the file.
        """
        found = [self.real_path + suffix for suffix in ("-journal", "-wal") if self.has(suffix)]
        if not any(map(main_file.is_nothing, found)):
            return
        with suppress(OSError, StoreError), exclusive_lock(self.real_path, self._vfs, 0.0) as is_alone:
            for journal in found if is_alone else ():
                if main_file.is_nothing(journal):
                    os.unlink(journal)

    def refuse_strangers(self, path: str) -> None:
        """Raise if making a store here would make SQLite delete what another file left.

        The strangers are looked for first: a store that is being made has its header before it has a -wal.
        """
        try:
            stranger = (
                "-wal" if self.size("-wal") else "-journal" if main_file.has_foreign_journal(self.real_path) else ""
            )
            empty = not self.size()
        except StoreIOError:
            return  # a path that no file can have; what follows says so
        if stranger and empty:
            raise CannotOpen(
                f"{path} is not there or empty, but {self.real_path}{stranger} is, and SQLite would delete it. "
                "It may hold the commits of a file that was removed: move it away, or choose another path. "
                "Nothing was changed"
            )
