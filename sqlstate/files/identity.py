"""Which file a path leads to, asked again and again: a name can come to mean another file at any time."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Final

from sqlstate.files.paths import absolute

if TYPE_CHECKING:
    from collections.abc import Callable

# What is kept beside an open store, by SQLite and by us, has its name and one of these.
_SIDECARS: Final = ("", "-wal", "-shm", "-journal", "-acknowledged")


class Named:
    """Tells which file a path leads to, again and again; one thread at a time.

    It asks Linux for nothing else (statx(2)). To tell the times of a file too, as os.stat() does, makes Linux from
    6.13 on (multigrain timestamps) give the next write a time of its own, and the sync after it takes longer.

    Args:
        path: absolute path.
    """

    __slots__ = ("_found", "_path", "_question")

    def __init__(self, path: str) -> None:
        self._path = path
        self._found = _Statx()
        self._question = (_AT_FDCWD, os.fsencode(path), 0, _STATX_INO, ctypes.byref(self._found))

    def inode(self) -> int:
        """Return the number of the file in its file system, 0 if there is none."""
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
    """Return statx(2) of the C library, None where there is none. Called without letting go of the GIL: it is short."""
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
    """Return True if *path* is the file of *store*, or one that SQLite keeps beside it.

    Reading it as an ordinary file would drop SQLite's locks when it is closed; replacing it would destroy it.
    """
    real, ours = absolute(path, links=False), absolute(store, links=False)
    if real in [ours + suffix for suffix in _SIDECARS]:
        return True
    try:
        return os.path.samestat(os.stat(real), os.stat(ours))
    except (OSError, ValueError):
        return False


def is_named(path: str, descriptor: int) -> bool:
    """Return True if *path* still is the file that is open."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
