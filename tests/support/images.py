"""Images of files: what they hold, to show that nothing about them was changed."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import apsw

if TYPE_CHECKING:
    from pathlib import Path


class Image(NamedTuple):
    """A file as it is: nobody may have it open through sqlstate in this process."""

    content: bytes
    mtime_ns: int
    mode: int


def image(file: Path) -> Image:
    """Return what *file* holds and says about itself."""
    status = file.stat()
    return Image(file.read_bytes(), status.st_mtime_ns, status.st_mode)


def folder_image(folder: Path) -> dict[str, Image]:
    """Return the image of every file in *folder*, by name.

    A -shm is left out: it is SQLite's scratch memory, which every reader of the file writes anew.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return {file.name: image(file) for file in files if not file.name.endswith("-shm")}


def leaf_of_state(store: Path) -> int:
    """Return the number of the first page that holds entries of a closed store."""
    # The standard library's SQLite has no dbstat on every system.
    with closing(apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READWRITE)) as db:
        sql = "SELECT pageno FROM dbstat WHERE name = 'state' AND pagetype = 'leaf'"
        return int(next(db.execute(sql))[0])
