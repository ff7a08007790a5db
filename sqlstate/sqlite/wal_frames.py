"""The frames of a -wal: their headers, and which of them are valid. SQLite computes the checksums, in memory.

A checksum covers everything from the header on, and a loop in Python takes sixty times as long as SQLite. So SQLite is
shown the -wal through a VFS that has no other file, and recovers it as after a crash. The frame at which it stops
reading is the first invalid one. Only frames behind that one are summed here.
"""

from __future__ import annotations

import sys
from array import array
from contextlib import closing
from functools import cached_property
from itertools import count
from struct import unpack
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import apsw

from sqlstate.errors import StoreError
from sqlstate.sqlite.forks import call
from sqlstate.sqlite.main_file import LOCK_BYTE

if TYPE_CHECKING:
    from collections.abc import Iterable

Pair = tuple[int, int]
Order = Literal["<", ">", "="]  # of the bytes in a word, as struct has it

WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_WORD: Final = 0xFFFFFFFF
# Frames read and summed at once: this many 64-bit lanes fit the processor's cache.
_AT_ONCE: Final = 1024
# A sum grows by the golden ratio with each word: 44 words fill the upper half of its lane, 40 do not.
_PAIRS_BETWEEN_MASKS: Final = 20


class Bytes(Protocol):
    """The bytes of a -wal: bytes, a memoryview, or a file's."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | bytearray | memoryview: ...


class Frames:
    """The whole frames of a -wal.

    Args:
        data: the file's bytes.
        page_size: of the frames.
        order: of the bytes in a word that is summed.
        seeds: the checksums that the first frame's may continue from.
    """

    def __init__(self, data: Bytes, page_size: int, order: Order, seeds: list[Pair]) -> None:
        self.page_size = page_size
        self.stride: int = FRAME_HEADER_BYTES + page_size
        self.count: int = max(0, len(data) - WAL_HEADER_BYTES) // self.stride
        self._data = data
        self._order = order
        self._seeds = seeds
        # Page number and size of the database after a commit, or else 0; the salts; the checksum.
        self.numbers: array[int] = array("Q")
        self.salts: array[int] = array("Q")
        self.sums: array[int] = array("Q")
        self._alone: dict[int, Pair] = {}  # sums of frames, from the seed (0, 0)

    def chunk(self, first: int) -> memoryview:
        """Return frames from *first* on, as many as are read at once; keep their headers if called in order."""
        last = min(self.count, first + _AT_ONCE)
        view = memoryview(self._data[self.at(first) : self.at(last)])
        if first == len(self.numbers):
            words, step = view.cast("Q"), self.stride // 8
            for k, column in enumerate((self.numbers, self.salts, self.sums)):
                part = array("Q", words[k::step].tobytes())
                if sys.byteorder == "little":
                    part.byteswap()
                column.extend(part)
        return view

    def read(self) -> None:
        """Read the remaining headers."""
        while len(self.numbers) < self.count:
            self.chunk(len(self.numbers))

    def at(self, i: int) -> int:
        """Return the offset of a frame."""
        return WAL_HEADER_BYTES + i * self.stride

    def image(self, i: int) -> bytes:
        """Return the page in a frame."""
        start = self.at(i) + FRAME_HEADER_BYTES
        return bytes(self._data[start : start + self.page_size])

    def size(self, i: int) -> int:
        """Return the size of the database after a commit frame, in pages; 0 for other frames."""
        return self.numbers[i] & _WORD

    def sum(self, i: int) -> Pair:
        """Return the checksum in the header of a frame."""
        return self.sums[i] >> 32, self.sums[i] & _WORD

    def images(self, start: int, end: int) -> dict[int, int]:
        """Return the newest image of each page that the database has after the commit that ends at *end*.

        It is given as page number to the offset in the file.
        """
        size = self.size(end - 1) if start < end else 0
        pages = (each >> 32 for each in self.numbers[start:end])
        first = self.at(start) + FRAME_HEADER_BYTES
        return {page: at for page, at in zip(pages, count(first, self.stride), strict=False) if 0 < page <= size}

    def is_all(self, start: int, end: int) -> bool:
        """Return True if the frames from *start* to *end*, a transaction, have every page of the database."""
        size = self.size(end - 1)
        if end - start < size - 1:
            return False
        pages = {each >> 32 for each in self.numbers[start:end]}
        return size - len(pages) == (size > LOCK_BYTE // self.page_size)

    def recovered(self) -> int:
        """Return how many frames from the first on are valid, with the salts of the header, without a gap."""
        found = call(_count_recovered, self, bytes(self._data[:WAL_HEADER_BYTES])) if self.count else 0
        self.read()
        if found is None:  # SQLite did something unexpected
            return self.run(int.from_bytes(self._data[16:24]), 0)
        return found

    def run(self, salts: int, start: int) -> int:
        """Return the end of the valid frames with these *salts* from *start* on, without a gap."""
        for i in range(start, self.count):
            if self.salts[i] != salts or not self.holds(i, ahead=_AT_ONCE):
                return i
        return self.count

    def holds(self, i: int, *, ahead: int = 1) -> bool:
        """Return True if the checksum of a frame is right, whatever its salts.

        It continues from the checksum in the frame before; if that checksum alone is wrong, from the right one.

        Args:
            i: number of the frame.
            ahead: frames to sum at once, since the caller will ask for them next.
        """
        if not self.numbers[i] >> 32:
            return False
        if self._on(self._seed(i), i, ahead) == self.sum(i):
            return True
        if not i:
            return any(self._on(seed, i, ahead) == self.sum(i) for seed in self._seeds[1:])
        return self._on(self._on(self._seed(i - 1), i - 1, ahead), i, ahead) == self.sum(i)

    def _seed(self, i: int) -> Pair:
        return self.sum(i - 1) if i else self._seeds[0]

    def _on(self, seed: Pair, i: int, ahead: int) -> Pair:
        """Return the checksum of a frame from *seed* on. It is linear in the seed, with Fibonacci coefficients."""
        if i not in self._alone:
            self._alone = dict(self._sums(i, min(self.count, i + ahead)))
        (a, b), (sum_1, sum_2), (older, newer) = seed, self._alone[i], self._fibonacci
        return (older * a + newer * b + sum_1) & _WORD, (newer * a + (older + newer) * b + sum_2) & _WORD

    @cached_property
    def _fibonacci(self) -> Pair:
        older, newer = 1, 0
        for _ in range(2 + self.page_size // 4):
            older, newer = newer, (older + newer) & _WORD
        return older, newer

    def _sums(self, first: int, last: int) -> Iterable[tuple[int, Pair]]:
        """Return frames, each with its checksum from the seed (0, 0).

        Many frames are summed at once, word by word: word k of each is one 64-bit lane of a large int. Summing one
        frame after the other takes seven times as long.
        """
        lanes, step = last - first, self.stride // 8
        pairs = memoryview(self._data[self.at(first) : self.at(last)]).cast("Q")
        mask = int.from_bytes(_WORD.to_bytes(8, "little") * lanes, "little")
        sum_1 = sum_2 = 0
        # The page number and the size in the frame's header are summed; the salts and the checksum are not.
        for done, k in enumerate((0, *range(FRAME_HEADER_BYTES // 8, step)), 1):
            both = int.from_bytes(pairs[k::step].tobytes(), "big" if self._order == ">" else "little")
            if self._order == ">":
                sum_1 += (both >> 32 & mask) + sum_2
                sum_2 += (both & mask) + sum_1
            else:
                sum_1 += (both & mask) + sum_2
                sum_2 += (both >> 32 & mask) + sum_1
            if done % _PAIRS_BETWEEN_MASKS == 0:
                sum_1 &= mask
                sum_2 &= mask
        found = [unpack(f"<{lanes}Q", (each & mask).to_bytes(8 * lanes, "little")) for each in (sum_1, sum_2)]
        # In a large int that was read as big-endian, the first lane is the last one.
        return enumerate(zip(*(each[::-1] if self._order == ">" else each for each in found), strict=True), first)


# ---- SQLite's own recovery of them ----


def _count_recovered(frames: Frames, header: bytes) -> int | None:
    """Return how many frames SQLite takes for valid, None if its answers contradict each other."""
    vfs = _WalVFS(f"sqlstate-wal-{next(_numbers_of_vfs)}", frames, header)
    try:
        with closing(apsw.Connection("/main", flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs.name)) as connection:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            # Without it, SQLite would want shared memory.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            connection.execute("PRAGMA schema_version").fetchall()
            committed = connection.wal_checkpoint(mode=_CHECKPOINT_NOOP)[0]
    except (apsw.Error, StoreError):
        if vfs.error is not None:
            raise vfs.error from None
        return None
    finally:
        vfs.unregister()
    # SQLite reads up to the first invalid frame. For the last frame in the file, the count alone may tell.
    last = vfs.asked - 1
    whole = vfs.asked == frames.count and frames.salts[last] == int.from_bytes(header[16:24]) and frames.holds(last)
    valid = vfs.asked if whole else last
    newest = next((i + 1 for i in reversed(range(valid)) if frames.size(i)), 0)
    return valid if newest == committed else None


_numbers_of_vfs = count()
_CHECKPOINT_NOOP: Final = -1


class _WalVFS(apsw.VFS):
    """A VFS with a main file of one page, and the -wal. Nothing is written. SQLite chose the names of its methods."""

    def __init__(self, name: str, frames: Frames, header: bytes) -> None:
        self.name = name
        self.frames = frames
        self.header = header
        self.page = _first_page(frames.page_size)
        self.asked = 0
        """Frames that SQLite has read: it stops at the first invalid one."""
        self.error: StoreError | None = None
        super().__init__(name, "")

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: ARG002, N802
        return pathname.endswith("-wal")

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:  # noqa: ARG002, N802
        return _WalFile(self) if flags[0] & apsw.SQLITE_OPEN_WAL else _MainFile(self)


class _MainFile:
    def __init__(self, vfs: _WalVFS) -> None:
        self.vfs = vfs

    def xRead(self, amount: int, offset: int) -> Any:  # noqa: N802
        return self.vfs.page[offset : offset + amount]

    def xFileSize(self) -> int:  # noqa: N802
        return len(self.vfs.page)

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: ARG002, N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return 512

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xClose(self) -> None:  # noqa: N802
        pass


class _WalFile(_MainFile):
    def __init__(self, vfs: _WalVFS) -> None:
        super().__init__(vfs)
        self._first = self._end = 0  # where the frames begin and end that were read last
        self._chunk = memoryview(b"")

    def xFileSize(self) -> int:  # noqa: N802
        return self.vfs.frames.at(self.vfs.frames.count)

    def xRead(self, amount: int, offset: int) -> Any:  # noqa: N802
        if self._first <= offset < self._end and amount == self.vfs.frames.stride:
            self.vfs.asked += 1
            return self._chunk[offset - self._first : offset - self._first + amount]
        frames = self.vfs.frames
        if offset < WAL_HEADER_BYTES:
            return self.vfs.header[offset : offset + amount]
        if amount != frames.stride:  # a page, once the -wal is recovered: any will do
            return self.vfs.page[:amount]
        try:
            self._chunk = frames.chunk((offset - WAL_HEADER_BYTES) // frames.stride)
        except StoreError as e:
            self.vfs.error = e
            raise
        self._first, self._end = offset, offset + len(self._chunk)
        self.vfs.asked += 1
        return self._chunk[:amount]


def _first_page(page_size: int) -> bytes:
    """Return the only page of an empty database in WAL mode (https://sqlite.org/fileformat2.html)."""
    page = bytearray(page_size)
    page[:24] = b"SQLite format 3\0" + (page_size & 0xFFFE | page_size >> 16).to_bytes(2) + b"\2\2\0\x40\x20\x20"
    for at in (24, 28, 44, 56, 92):  # change counter, pages, schema format, encoding, counter that the pages are of
        page[at + 3] = 1 if at != 44 else 4
    page[100] = 13  # a leaf of a table, without cells
    page[105:107] = (page_size & 0xFFFF).to_bytes(2)
    return bytes(page)
