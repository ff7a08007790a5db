"""Images of files: what they hold, to show that nothing about them was changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
