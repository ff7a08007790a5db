"""Paths: sizes, permissions, encodings, and the system's reasons for refusing them."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

from sqlstate.errors import CannotOpen, StoreIOError
from sqlstate.files import system

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
DESCRIPTORS: Final = (
    "this process, or the system, has as many files open as it may. Close what is not needed, or raise the limit"
    f"{system.OPEN_FILES_LIMIT}"
)


def out_of_descriptors() -> bool:
    """Return True if no file can be opened for lack of descriptors; SQLite does not always keep the reason."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as e:
        return e.errno in NO_DESCRIPTOR
    return False


def size(path: str) -> int:
    """Return the size of a file in bytes, 0 if there is no file.

    Raises:
        StoreIOError: the system does not tell the size.
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


def shipped(installed: str, tree: str) -> str | None:
    """Return the path of what travels with the package, None if it is missing.

    Args:
        installed: its path inside the package, in an installation.
        tree: its path beside the package, in a source tree.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = os.path.join(package, installed), os.path.join(os.path.dirname(package), tree)
    return next((path for path in found if os.path.exists(path)), None)


def absolute(path: str | os.PathLike[str], *, links: bool) -> str:
    """Return the absolute path.

    Args:
        path: as a caller gave it.
        links: leave links in it as they are; otherwise it is what they lead to.

    Raises:
        CannotOpen: it is relative, and the working directory was removed; or the system lets no file have it.
        ValueError: it cannot be a path.
    """
    given = os.fsdecode(path)
    try:
        found = system.usable(given)
        return os.path.abspath(found) if links else system.usable(os.path.realpath(found))
    except system.Unusable as e:
        raise CannotOpen(f"{given} can be no file: {e}. Nothing was changed. Choose another path") from None
    except FileNotFoundError as e:
        raise CannotOpen(
            f"{given} leads nowhere: it is relative, and the working directory was removed. Nothing was "
            "changed. Give an absolute path, or change to a folder that is there"
        ) from e


def module_places() -> str:
    """Return where this process finds its modules, as PYTHONPATH for another, whose current folder may be any."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)


def in_utf8(path: str) -> str:
    """Return a path in the form for SQLite: its bytes read as UTF-8, whatever the locale.

    Raises:
        ValueError: they are not UTF-8.
    """
    return os.fsencode(path).decode()


def as_text(name: str | os.PathLike[str]) -> str:
    """Return a file's name as text that can be stored; bytes that are not UTF-8 become escapes."""
    found = os.fspath(name)
    try:
        return in_utf8(found)
    except UnicodeError:
        return found.encode("utf-8", "backslashreplace").decode()


def why(e: OSError) -> str:
    """Return the system's error message, for use after a colon."""
    return DESCRIPTORS if e.errno in NO_DESCRIPTOR else e.strerror or str(e)
