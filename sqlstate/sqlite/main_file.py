"""The main file of a store, by its path: its header, where the path leads, and whether a store can be there."""

from __future__ import annotations

import os
import stat
from typing import Final

from sqlstate.errors import CannotOpen, NotAStore, StoreFull, StoreMissing
from sqlstate.files import paths

SQLITE_MAGIC: Final = b"SQLite format 3\0"
HEADER_BYTES: Final = 100
LOCK_BYTE: Final = 0x40000000  # the page that it is in is never written
MODES: Final = 18  # offset of the two bytes in the header that say how the file is journaled


def page_size(header: bytes) -> int:
    """Return the page size in a file's header, 0 if it is invalid."""
    size = int.from_bytes(header[16:18])
    if size == 1:
        return 65536
    return size if size in (512, 1024, 2048, 4096, 8192, 16384, 32768) else 0


# The first bytes of a rollback journal (https://sqlite.org/fileformat2.html, section 3).
JOURNAL_MAGIC: Final = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"


def has_foreign_journal(path: str) -> bool:
    """Return True if the file in the place of the rollback journal of *path* is not a journal."""
    try:
        with open(path + "-journal", "rb") as journal:
            start = journal.read(len(JOURNAL_MAGIC))
    except OSError as e:
        if e.errno in paths.NO_DESCRIPTOR:
            raise CannotOpen(f"{path}-journal cannot be read: {paths.why(e)}. Nothing was changed") from e
        return False
    return start.rstrip(b"\0") != JOURNAL_MAGIC[: len(start.rstrip(b"\0"))]


def is_nothing(sidecar: str) -> bool:
    """Return True if a -wal or -journal is missing, empty, or a journal that SQLite ignores.

    SQLite writes a journal's first byte last. If it is zero, the process died before it overwrote a page of the file.
    """
    try:
        if not os.stat(sidecar).st_size:
            return True
        if not sidecar.endswith("-journal"):
            return False
        with open(sidecar, "rb") as file:
            return file.read(1) == b"\0"
    except FileNotFoundError:
        return True
    except OSError:
        return False


def sqlite_path(path: str | os.PathLike[str]) -> str:
    """Return *path* in the form for SQLite: absolute, so that it is no URI and no name of a memory database."""
    found = paths.absolute(path, links=True)
    try:
        paths.in_utf8(found)
    except UnicodeError:
        raise CannotOpen(f"{found!r} is not text in UTF-8, and SQLite takes no other; choose another path") from None
    if "\0" in found:
        raise CannotOpen(f"{found!r} holds a NUL, which no path can; choose another path")
    return found


def prepare(path: str, *, create: bool) -> None:
    """Make sure that a regular file is at *path*."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise StoreMissing(f"there is no folder {folder}; make it first") from None
        if not create:
            raise StoreMissing(f"there is no file {path}; open it for writing with create=True to make it") from None
        _create(path)
        return
    except OSError as e:
        raise CannotOpen(f"{path} cannot be looked at: {paths.why(e)}; choose another path") from e
    if stat.S_ISDIR(mode):
        raise NotAStore(f"{path} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise NotAStore(f"{path} is not a regular file; name one that is, or that is not there yet")


def _create(path: str) -> None:
    try:
        # Closing this descriptor is harmless: this process cannot have the file open yet.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass  # another process was faster
    except OSError as e:
        if e.errno in paths.FULL:
            raise StoreFull(f"{path} cannot be made: the disk is full. Free space on its file system") from e
        advice = "" if e.errno in paths.NO_DESCRIPTOR else "; look at the permissions of its folder"
        raise CannotOpen(f"{path} cannot be made: {paths.why(e)}{advice}") from e
