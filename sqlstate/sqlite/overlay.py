"""Reads a main file with the pages of a -wal or -journal in place of its own, without locks."""

from __future__ import annotations

from contextlib import closing, contextmanager
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import apsw

from sqlstate.files import system
from sqlstate.sqlite.connection import Connection
from sqlstate.sqlite.main_file import MODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlstate.files.file_bytes import FileBytes


class Pages(NamedTuple):
    """Pages that replace those of a main file: the file as its -wal or -journal would make it."""

    page_size: int
    data: bytes | FileBytes
    """The bytes that hold the page images."""
    offsets: Mapping[int, int]
    """Page number to the offset of its image in *data*."""
    size: int
    """Pages of the whole file; 0 for as many as the main file has."""


@contextmanager
def overlaid(path: str, pages: Pages, vfs: str | None) -> Iterator[Connection]:
    """Read a file with *pages* in place of its own, without locks; SQLite sees no -wal and no -journal.

    The caller holds the exclusive lock on the file.
    """
    overlay = Overlay(path, pages, vfs)
    try:
        with closing(overlay.connect()) as connection:
            yield connection
    finally:
        overlay.close()


class Overlay:
    """A file with replaced pages, for any number of connections that read it, until close()."""

    def __init__(self, path: str, pages: Pages, vfs: str | None) -> None:
        self._path = path
        self._name = f"sqlstate-overlay-{next(_numbers)}"
        self._vfs = _OverlayVFS(self._name, vfs or system.long_path_vfs(path) or "", pages)

    def connect(self) -> Connection:
        """Return a connection. It takes no locks: the caller makes sure that the file does not change."""
        return Connection(self._path, 0.0, read_only=True, vfs=self._name)

    def close(self) -> None:
        """Drop the pages, once all connections are closed."""
        self._vfs.unregister()


_numbers = count()


class _OverlayVFS(apsw.VFS):
    """The files of another VFS, with replaced pages. SQLite chose the names of its methods."""

    def __init__(self, name: str, base: str, pages: Pages) -> None:
        self._base = base
        self._pages = pages
        super().__init__(name, base)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: ARG002, N802
        return False  # there is no -wal and no -journal

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if not flags[0] & apsw.SQLITE_OPEN_MAIN_DB:  # SQLite sorts much in temporary files
            return apsw.VFSFile(self._base, name, flags)
        return _OverlayFile(self._base, name, flags, self._pages)


class _OverlayFile(apsw.VFSFile):
    def __init__(self, base: str, name: str | apsw.URIFilename | None, flags: list[int], pages: Pages) -> None:
        super().__init__(base, name, flags)
        self._pages = pages

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        number, within = divmod(offset, self._pages.page_size)
        at = self._pages.offsets.get(number + 1)
        start = 0 if at is None else at + within
        found = super().xRead(amount, offset) if at is None else self._pages.data[start : start + amount]
        if offset <= MODES < offset + len(found) - 1:  # as if the file was not in WAL mode
            at = MODES - offset
            found = found[:at] + b"\1\1" + found[at + 2 :]
        return found

    def xFileSize(self) -> int:  # noqa: N802
        return self._pages.size * self._pages.page_size or super().xFileSize()

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False
