"""Reads a file with other pages in it than it has: as SQLite's WAL would make it, and without a lock."""

from __future__ import annotations

from contextlib import closing, contextmanager
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import apsw

from sqlstate.sqlite.connection import Connection
from sqlstate.sqlite.main_file import MODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlstate.files.file_bytes import FileBytes


class Pages(NamedTuple):
    """What stands in for pages of a main file: a file as SQLite's WAL would make it."""

    page_size: int
    data: bytes | FileBytes
    """What the images are in."""
    offsets: Mapping[int, int]
    """Page number to the offset of its image in *data*."""
    size: int
    """Pages of the whole file; 0 for as many as the main file has."""


@contextmanager
def overlaid(path: str, pages: Pages, vfs: str | None) -> Iterator[Connection]:
    """Read a file as it would be with *pages*, without locks, and without SQLite looking at its -wal or -journal.

    The caller is alone with the file.
    """
    overlay = Overlay(path, pages, vfs)
    try:
        with closing(overlay.connect()) as connection:
            yield connection
    finally:
        overlay.close()


class Overlay:
    """A file with other pages, for any number of connections that read it, until close()."""

    def __init__(self, path: str, pages: Pages, vfs: str | None) -> None:
        self._path = path
        self._name = f"sqlstate-overlay-{next(_numbers)}"
        self._vfs = _OverlayVFS(self._name, vfs or "", pages)

    def connect(self) -> Connection:
        """Return a connection; it takes no locks, so the caller sees to it that nobody changes the file."""
        return Connection(self._path, 0.0, read_only=True, vfs=self._name)

    def close(self) -> None:
        """Forget the pages, once all connections are closed."""
        self._vfs.unregister()


_numbers = count()


class _OverlayVFS(apsw.VFS):
    """The base's files, with other pages. Its methods have the names that SQLite gave them."""

    def __init__(self, name: str, base: str, pages: Pages) -> None:
        self._base = base
        self._pages = pages
        super().__init__(name, base)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: ARG002, N802
        return False  # there is no -wal and no -journal

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
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
