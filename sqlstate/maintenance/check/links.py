"""Compares the `before` of each record of a log with what the record before it left, in constant memory.

A table of all names would need more memory than the rest of a check. So the records are put aside in parts, by the
hash of the name, and each part is looked through by itself. That finds the names with a wrong record, and no more: a
caller who has to know which record it is reads the log again, and remembers those names.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from itertools import accumulate
from struct import Struct
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final

from sqlstate.errors import StoreIOError
from sqlstate.files import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARTS: Final = 256
_IN_MEMORY: Final = 1 << 16  # records, of all parts
# The hash of a name, and the first halves of the leaves before and after: as good as the whole.
_LINK: Final = Struct("<q16s16s")
_NO_LEAF: Final = bytes(16)


class Links:
    """The records of a log as they come, by the leaves of their entries.

    *whole*: the log begins with the first commit, so that no entry was there before its first record.

    Of a long log, a temporary file without a name holds 40 bytes for each record; where none can be made or it cannot
    grow, memory does.
    """

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._parts: list[list[bytes]] = [[] for _ in range(_PARTS)]
        self._count = 0
        self._sizes = array("Q")  # of the pieces that were put aside: one of each part, and again
        self._file: IO[bytes] | None = None
        self._kept: list[bytes] = []  # those behind the file's

    def add(self, name: int, before: bytes | None, after: bytes | None) -> None:
        """Take a record: the hash of its entry's name, and the leaves before and after; None is no entry."""
        self._parts[name % _PARTS].append(_LINK.pack(name, before or _NO_LEAF, after or _NO_LEAF))
        self._count += 1
        if not self._count % _IN_MEMORY:
            self._put_aside()

    def broken(self) -> set[int]:
        """Return the hashes of the names of which a record has another `before` than the one before it has left.

        Raises:
            StoreIOError: the temporary file cannot be read.
        """
        found: set[int] = set()
        starts = array("Q", accumulate(self._sizes, initial=0))
        for number, part in enumerate(self._parts):
            last: dict[int, bytes] = {}
            for piece in self._pieces(number, starts, part):
                for name, before, after in _LINK.iter_unpack(piece):
                    if last.get(name, _NO_LEAF if self._whole else before) != before:
                        found.add(name)
                    last[name] = after
        return found

    def close(self) -> None:
        """Let the temporary file go."""
        if self._file is not None:
            self._file.close()

    def _pieces(self, number: int, starts: array[int], newest: list[bytes]) -> Iterator[bytes]:
        in_file = len(self._sizes) - len(self._kept)
        try:
            for piece in range(number, in_file, _PARTS):
                assert self._file is not None  # noqa: S101, for the type checker
                self._file.seek(starts[piece])
                yield self._file.read(self._sizes[piece])
        except OSError as e:
            raise StoreIOError(f"the temporary file of the check cannot be read: {paths.why(e)}") from e
        yield from self._kept[number::_PARTS]
        yield b"".join(newest)

    def _put_aside(self) -> None:
        pieces = [b"".join(part) for part in self._parts]
        self._sizes.extend(map(len, pieces))
        for part in self._parts:
            part.clear()
        if not self._kept:
            with suppress(OSError):  # there is no folder that can be written, or the disk is full
                self._file = self._file or TemporaryFile(buffering=0)  # noqa: SIM115, close() closes it
                content = b"".join(pieces)
                if self._file.write(content) == len(content):
                    return
        self._kept += pieces
