"""What Linux alone tells: the inode without the times of a file, and what processes hold. Only system.py imports it."""

from __future__ import annotations

import sys

assert sys.platform == "linux"  # noqa: S101, for the type checker

import ctypes
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


class Inode:
    """Which file a path leads to, asked again and again. One thread at a time may use it.

    It asks for the inode alone (statx(2)). os.stat() also asks for the times of the file, and from Linux 6.13 on
    (multigrain timestamps) the next write then gets a time of its own, and the sync after it takes longer.

    Args:
        path: absolute path.
    """

    __slots__ = ("_found", "_path", "_question")

    def __init__(self, path: str) -> None:
        self._path = path
        self._found = _Statx()
        self._question = (_AT_FDCWD, os.fsencode(path), 0, _STATX_INO, ctypes.byref(self._found))

    def now(self) -> int:
        """Return the inode of the file, 0 if there is no file."""
        if _statx is not None and _statx(*self._question) == 0 and self._found.mask & _STATX_INO:
            return self._found.ino
        try:  # an older kernel, a sandbox that does not let it through; or no file
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


def _of_libc() -> Callable[..., int] | None:
    """Return statx(2) of the C library, None where it has none. A call keeps the GIL: it is short."""
    try:
        return ctypes.PyDLL(None).statx
    except (AttributeError, OSError):
        return None


_AT_FDCWD: Final = -100
_STATX_INO: Final = 0x100
_statx: Final = _of_libc()


def held_locks(path: str) -> list[tuple[int, bool, int, int]] | None:
    """As system.held_locks()."""
    try:
        with open(LOCKS, encoding="ascii") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return []
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = []
    for line in lines:
        match line.split():
            case [_, "POSIX", _, kind, pid, at, first, last] if at == place and int(pid) > 0:
                end = _LAST_BYTE if last == "EOF" else int(last)
                found.append((int(pid), kind == "READ", int(first), end))
    return found


def process_name(pid: int) -> str:
    """As system.process_name()."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


LOCKS: Final = "/proc/locks"
_LAST_BYTE: Final = 1 << 62
