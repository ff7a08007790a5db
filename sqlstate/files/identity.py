"""Which file a path leads to. A path can lead to another file at any time, so it is asked again and again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sqlstate.files import system
from sqlstate.files.paths import absolute

if TYPE_CHECKING:
    from sqlstate.files.system import Identity

SIDECARS: Final = ("-wal", "-shm", "-journal", "-acknowledged")
"""Suffixes of the files that SQLite and sqlstate keep next to an open store."""


def identity(path: str) -> Identity | None:
    """Return the identity of the file that *path* leads to, None if there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def belongs_to(path: str | os.PathLike[str], store: str | os.PathLike[str]) -> bool:
    """Return True if *path* is the file of *store*, or one of its sidecars.

    Closing it after reading it as an ordinary file would drop SQLite's locks; replacing it would destroy the store.
    """
    real, ours = absolute(path, links=False), absolute(store, links=False)
    files = [ours + suffix for suffix in ("", *SIDECARS)]
    if system.folded(real) in map(system.folded, files):
        return True
    found = identity(real)
    return found is not None and found in map(identity, files)


def is_named(path: str, descriptor: int) -> bool:
    """Return True if *path* still leads to the open file."""
    try:
        named, opened = os.lstat(path), os.fstat(descriptor)
    except (FileNotFoundError, PermissionError):  # Windows: the name goes once all have closed the file
        return False
    return named.st_ino == opened.st_ino and opened.st_dev in (named.st_dev, 0)  # wine forgets it at a rename


def open_files() -> frozenset[Identity]:
    """Return what this process has open and would lose its locks on if another descriptor of it was closed."""
    return frozenset(file for file, _ in system.open_files())


def name_of(file: Identity | None) -> str:
    """Return the current name of a file that this process has open; "" if it is not known."""
    return next((name for each, name in system.open_files() if each == file and name), "")
