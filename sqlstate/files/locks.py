"""Locks (flock) on files next to a store: a locked file's maker lives.

The system drops a lock with the maker's last descriptor. On systems without flock (Windows, untested) every maker
counts as alive.
"""

from __future__ import annotations

import os
from typing import Final

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

OPEN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def supported() -> bool:
    """Return True if the system has locks on whole files."""
    return fcntl is not None


def lock_own(descriptor: int) -> bool:
    """Lock a new file; return False on a file system without locks, where its maker counts as alive."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # waits for one that is looking whether we live
    except OSError:
        return False
    return True


def lock(path: str, *, exclusive: bool) -> int:
    """Return a descriptor of the file with a lock, without waiting for it.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: its maker lives, or that is not known.
    """
    descriptor = os.open(path, os.O_RDONLY | OPEN | getattr(os, "O_NONBLOCK", 0))
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sync(descriptor: int) -> None:
    """Make the content of an open file durable."""
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone leaves the data in the disk's cache
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)
