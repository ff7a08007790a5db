"""Which file a path leads to. A path can lead to another file at any time, so it is asked again and again."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlstate.files.paths import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIDECARS: Final = ("-wal", "-shm", "-journal", "-acknowledged")
"""Suffixes of the files that SQLite and sqlstate keep next to an open store."""
Identity = tuple[int, int]
"""Device and inode: which file it is, whatever its names are."""


def identity(path: str) -> Identity | None:
    """Return the identity of the file that *path* leads to, None if there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class Named:
    """A path, and the inode of the file that it leads to now. One thread at a time may use it.

    It asks Linux for the inode alone (statx(2)). os.stat() also asks for the times of the file, and from Linux 6.13 on
    (multigrain timestamps) the next write then gets a time of its own, and the sync after it takes longer.

    Args:
        path: absolute path.
    """

    __slots__ = ("_found", "_path", "_question")

    def __init__(self, path: str) -> None:
        self._path = path
        self._found = _Statx()
        self._question = (_AT_FDCWD, os.fsencode(path), 0, _STATX_INO, ctypes.byref(self._found))

    def inode(self) -> int:
        """Return the inode of the file, 0 if there is no file."""
        if _statx is not None and _statx(*self._question) == 0 and self._found.mask & _STATX_INO:
            return self._found.ino
        try:  # another system, an older kernel, a sandbox that does not let it through; or no file
            return os.stat(self._path).st_ino
        except OSError:
            return 0


class _Statx(ctypes.Structure):
    """Of struct statx in linux/stat.h, what is asked for."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("_", ctypes.c_char * 28),
        ("ino", ctypes.c_uint64),
        ("_", ctypes.c_char * 216),
    )
    mask: int
    ino: int


def _linux_statx() -> Callable[..., int] | None:
    """Return statx(2) of the C library, None where there is none. A call keeps the GIL: it is short."""
    if sys.platform != "linux":
        return None
    try:
        return ctypes.PyDLL(None).statx
    except (AttributeError, OSError):
        return None


_AT_FDCWD: Final = -100
_STATX_INO: Final = 0x100
_statx: Final = _linux_statx()


def belongs_to(path: str | os.PathLike[str], store: str | os.PathLike[str]) -> bool:
    """Return True if *path* is the file of *store*, or one of its sidecars.

    Closing it after reading it as an ordinary file would drop SQLite's locks; replacing it would destroy the store.
    """
    real, ours = absolute(path, links=False), absolute(store, links=False)
    if real in [ours + suffix for suffix in ("", *SIDECARS)]:
        return True
    try:
        return os.path.samestat(os.stat(real), os.stat(ours))
    except (OSError, ValueError):
        return False


def is_named(path: str, descriptor: int) -> bool:
    """Return True if *path* still leads to the open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def open_files() -> frozenset[Identity]:
    """Return what this process has open, by whichever library; nothing where the system does not say.

    Closing another descriptor of a file drops the locks that this process has on it.
    """
    return frozenset(file for file, *_ in _descriptors())


def name_of(file: Identity | None) -> str:
    """Return the current name of a file that this process has open; "" if it is not known."""
    for own, links, entry in _descriptors():
        if own == file:
            with suppress(OSError):
                return os.readlink(entry) if links else "without a name"
    return ""


def _descriptors() -> Iterator[tuple[Identity, int, str]]:
    """Yield each open file, how many names it has, and the entry that leads to it."""
    try:
        numbers = os.listdir(_DESCRIPTORS)
    except OSError:
        return
    for number in numbers:
        entry = f"{_DESCRIPTORS}/{number}"
        with suppress(OSError):  # it was closed since
            found = os.stat(entry)
            yield (found.st_dev, found.st_ino), found.st_nlink, entry


_DESCRIPTORS: Final = "/proc/self/fd"
