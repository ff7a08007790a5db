"""Paths, and what the system says of them: how many bytes are there, may they be written, why it refuses."""

from __future__ import annotations

import errno
import os
from typing import Final

from sqlstate.errors import CannotOpen, StoreIOError

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
DESCRIPTORS: Final = (
    "this process, or the system, has as many files open as it may. Close what is not needed, or raise the limit "
    "(ulimit -n)"
)


def out_of_descriptors() -> bool:
    """Return True if nothing can be opened now, whatever it is; SQLite does not always keep why it could not."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as e:
        return e.errno in NO_DESCRIPTOR
    return False


def size(path: str) -> int:
    """Return the bytes of a file, 0 if there is none.

    Raises:
        StoreIOError: the system does not say.
    """
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
    except OSError as e:
        raise StoreIOError(
            f"{path} cannot be looked at: {why(e)}. What was committed is there. Look at the disk, and at the "
            "permissions of the folder, and open the store again"
        ) from e


def may_not_write(path: str) -> bool:
    """Return True if this user may not write the file or folder, by its permissions or its file system."""
    effective = os.access in os.supports_effective_ids
    return not os.access(path, os.W_OK, effective_ids=effective)


def absolute(path: str | os.PathLike[str], *, links: bool) -> str:
    """Return the absolute path.

    Args:
        path: as a caller gave it.
        links: leave links in it as they are; otherwise it is what they lead to.

    Raises:
        CannotOpen: it is relative, and the working directory was removed.
        ValueError: no path can be that.
    """
    try:
        return os.path.abspath(os.fsdecode(path)) if links else os.path.realpath(os.fsdecode(path))
    except FileNotFoundError as e:
        raise CannotOpen(
            f"{os.fsdecode(path)} leads nowhere: it is relative, and the working directory was removed. Nothing was "
            "changed. Give an absolute path, or change to a folder that is there"
        ) from e


def in_utf8(path: str) -> str:
    """Return a path as SQLite takes it: its bytes read as UTF-8, whatever the locale makes of them.

    Raises:
        ValueError: they are none.
    """
    return os.fsencode(path).decode()


def as_text(name: str | os.PathLike[str]) -> str:
    """Return a file's name as text that can be stored: what is not UTF-8 in it as escapes."""
    found = os.fspath(name)
    try:
        return in_utf8(found)
    except UnicodeError:
        return found.encode("utf-8", "backslashreplace").decode()


def why(e: OSError) -> str:
    """Return what the system said, in words that fit behind a colon."""
    return DESCRIPTORS if e.errno in NO_DESCRIPTOR else e.strerror or str(e)
