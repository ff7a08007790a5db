"""The bytes of a file, read on demand: a -wal can be larger than the memory."""

from __future__ import annotations

import os
from io import FileIO
from typing import Self

from sqlstate.errors import CannotOpen, StoreIOError
from sqlstate.files import paths, system


class FileBytes:
    """The content of a sidecar, with the length that it has when it is opened. Use it in a `with` block.

    It has a length and gives slices, as bytes do. Bytes that were cut off since read as zeros. SQLite holds no locks on
    the file, so a descriptor of our own is harmless.

    Args:
        path: of the file; a missing one is empty.

    Raises:
        CannotOpen: the file cannot be opened.
        StoreIOError: by a slice: the file cannot be read.
    """

    __slots__ = ("_file", "_path", "_size")

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._size = 0
        try:
            self._file = FileIO(path)
            self._size = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError:
            pass
        except OSError as e:
            advice = "" if e.errno in paths.NO_DESCRIPTOR else "; look at the permissions"
            raise CannotOpen(f"{path} cannot be read: {paths.why(e)}{advice}") from e

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        amount = max(0, stop - start)
        if self._file is None or not amount:
            return b""
        try:
            found = self._read(start, amount)
            while len(found) < amount and (more := self._read(start + len(found), amount - len(found))):
                found += more
        except OSError as e:
            raise StoreIOError(f"{self._path} cannot be read: {paths.why(e)}. Nothing was changed") from e
        return found if len(found) == amount else found.ljust(amount, b"\0")

    def _read(self, start: int, amount: int) -> bytes:
        assert self._file is not None  # noqa: S101, for the type checker
        return system.read_at(self._file.fileno(), amount, start)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
