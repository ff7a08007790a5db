"""Reads SQLite's rollback journal, and SQLite's index of a -wal in the -shm.

SQLite stops at the first wrong byte, and reports nothing of what lies behind. This module reads everything: what SQLite
will recover, what a crash can have left, and what rotted. It changes nothing.

The formats are those of https://sqlite.org/fileformat2.html, section 3, and https://sqlite.org/walformat.html. Rot
differs from what a crash leaves: SQLite syncs a record before the header that counts it (synchronous=EXTRA), and no
crash can tear synced bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct, unpack
from typing import TYPE_CHECKING, Final, Literal

from sqlstate.sqlite.main_file import JOURNAL_MAGIC, LOCK_BYTE

if TYPE_CHECKING:
    from sqlstate.sqlite.wal_frames import Order, Pair

Data = bytes | bytearray | memoryview  # and whatever memoryview() takes, such as an mmap
HeaderState = Literal["valid", "zeroed", "damaged", "short", "empty"]

_WORD: Final = 0xFFFFFFFF
_SECTOR: Final = 512  # the least that a disk writes whole or not at all
_PAIR: Final = Struct(">2I")
WAL_VERSION: Final = 3_007_000

# Version, -, change counter, initialised, byte order of the -wal's checksums, page size, frames, size of the database,
# checksum of the last frame, the salts as the -wal has them, checksum of these 40 bytes.
_INDEX: Final = Struct("=3I2BH2I2I8s2I")
_BACKFILLED: Final = Struct("=I")

# Magic number, records, nonce, size of the database, sector size, page size.
_JOURNAL_HEADER: Final = Struct(">8s5I")
_NUMBER: Final = Struct(">I")
_UNCOUNTED: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class WalIndex:
    """SQLite's index of a -wal. The -shm is never synced: after a power cut it may be an old one."""

    page_size: int
    frames: int
    """Frames up to and including the last commit frame."""
    database_pages: int
    salts: Pair
    checksum: Pair
    """Checksum of the last of these frames."""
    backfilled: int
    """Frames that a checkpoint has moved into the main file."""


@dataclass(frozen=True, slots=True)
class JournalScan:
    """What a rollback journal holds."""

    bytes: int
    """Size of the file."""
    header: HeaderState
    """SQLite rolls back only with a valid header."""
    page_size: int = 0
    sector_size: int = 0
    nonce: int = 0
    """Nonce of the first header; each header has its own."""
    initial_pages: int = 0
    """Size of the database before the transaction."""
    segments: int = 0
    """Number of headers."""
    records: int = 0
    """Records that the headers count."""
    valid: int = 0
    """Records that SQLite plays back: those up to the first bad one."""
    torn_bytes: int = 0
    """Bytes after the records that are played back: uncounted, invalid, or the super-journal's name."""
    rot: bool = False
    """Whether synced bytes are invalid: SQLite will leave part of the transaction in the main file."""
    pages: dict[int, int] = field(default_factory=dict)
    """Page number to the offset of the image that is played back."""
    super_journal: str = ""
    """Name of the super-journal; if that file is missing, SQLite takes the transaction for committed."""


def wal_index(data: Data) -> WalIndex | None:
    """Return the index in a -shm, or None if it is not valid.

    Args:
        data: the file's bytes, which may be anything; 100 of them are enough.
    """
    with memoryview(data) as whole, whole.cast("B") as view:
        # There are two copies; a reader that sees them differ knows that a writer is at work.
        if len(view) < 2 * _INDEX.size + _BACKFILLED.size or view[: _INDEX.size] != view[_INDEX.size : 2 * _INDEX.size]:
            return None
        version, _, _, initialised, _, page_size, frames, pages, *sums = _INDEX.unpack_from(view)
        salts: Pair = _PAIR.unpack(sums[2])
        if (version, initialised) != (WAL_VERSION, 1):
            return None
        if checksum(view[: _INDEX.size - 8], "=") != (sums[3], sums[4]):
            return None
        (backfilled,) = _BACKFILLED.unpack_from(view, 2 * _INDEX.size)
        # 65536 does not fit into 16 bits, and is stored as 1.
        return WalIndex(page_size if page_size != 1 else 65536, frames, pages, salts, (sums[0], sums[1]), backfilled)


def scan_journal(data: Data) -> JournalScan:
    """Return what a rollback journal holds.

    Args:
        data: the file's bytes, which may be anything.
    """
    with memoryview(data) as whole, whole.cast("B") as view:
        total = len(view)
        if not total or not view[0]:
            return JournalScan(total, "zeroed" if total else "empty", torn_bytes=total)
        if total < _JOURNAL_HEADER.size:
            return JournalScan(total, "short", torn_bytes=total)
        magic, count, nonce, initial_pages, sector_size, page_size = _JOURNAL_HEADER.unpack_from(view)
        sized = is_page_size(page_size) and 32 <= sector_size <= 65536 and not sector_size & sector_size - 1
        least = max(_SECTOR, sector_size if sized else 0)
        if magic != JOURNAL_MAGIC or not sized or total < least:
            # The count is written when the records are synced, with the magic before it: a crash can tear the two.
            rot = count not in (0, _UNCOUNTED) and (magic == JOURNAL_MAGIC or (sized and _resembles_magic(magic)))
            return JournalScan(total, "short" if total < least else "damaged", torn_bytes=total, rot=rot)
        return _scan_records(view, nonce, initial_pages, (sector_size, page_size))


def _scan_records(view: memoryview, nonce: int, initial_pages: int, sizes: Pair) -> JournalScan:
    sector_size, page_size = sizes
    stride = page_size + 2 * _NUMBER.size
    at = end = segments = records = valid = 0
    pages: dict[int, int] = {}
    good, rot = True, False
    while good and at + sector_size <= len(view):
        magic, count, own_nonce, _, *own_sizes = _JOURNAL_HEADER.unpack_from(view, at)
        if magic != JOURNAL_MAGIC:
            # SQLite crosses out a header that a longer journal left there, with a first byte of 0.
            was_one = view[at] != 0 and own_sizes == [sector_size, page_size] and _resembles_magic(magic)
            rot = rot or (was_one and count not in (0, _UNCOUNTED))
            break
        segments += 1
        synced = count != _UNCOUNTED
        if not synced:
            count = (len(view) - sector_size) // stride
        records += count
        at += sector_size
        for _ in range(count):
            page = _played_back(view[at : at + stride], page_size, own_nonce, initial_pages)
            good = page != 0
            if not good:
                rot = rot or synced
                break
            # The page number is not summed. But each page is there once, and none that the database did not have.
            rot = rot or (synced and (page > initial_pages or page in pages))
            if page <= initial_pages:
                pages[page] = at + _NUMBER.size
            valid += 1
            at += stride
        end = at
        at += -at % sector_size
    return JournalScan(
        bytes=len(view),
        header="valid",
        page_size=page_size,
        sector_size=sector_size,
        nonce=nonce,
        initial_pages=initial_pages,
        segments=segments,
        records=records,
        valid=valid,
        torn_bytes=len(view) - end,
        rot=rot,
        pages=pages,
        super_journal=_super_journal(view),
    )


def _resembles_magic(found: bytes) -> bool:
    """Return True if *found* is the magic with a few rotten bytes, and not something else."""
    return sum(map(int.__eq__, found, JOURNAL_MAGIC)) >= len(JOURNAL_MAGIC) // 2


def _played_back(record: memoryview, page_size: int, nonce: int, initial_pages: int) -> int:
    """Return the page number of a record, 0 if SQLite ends the playback there."""
    if len(record) < page_size + 2 * _NUMBER.size:
        return 0
    page: int = _NUMBER.unpack_from(record)[0]
    if page in (0, LOCK_BYTE // page_size + 1):
        return 0
    (checksum,) = _NUMBER.unpack_from(record, _NUMBER.size + page_size)
    # Of the page, every 200th byte is summed, counted from its end.
    image = record[_NUMBER.size : _NUMBER.size + page_size]
    if page <= initial_pages and nonce + sum(image[page_size % 200 :: 200]) & _WORD != checksum:
        return 0
    return page


def _super_journal(view: memoryview) -> str:
    """Return the super-journal's name at the end of a journal, "" without one."""
    end = len(view) - _PAIR.size - len(JOURNAL_MAGIC)
    if end < 0 or bytes(view[-len(JOURNAL_MAGIC) :]) != JOURNAL_MAGIC:
        return ""
    length, checksum = _PAIR.unpack_from(view, end)
    if length > end:
        return ""
    name = bytes(view[end - length : end])
    # A sum of C's chars, which may have a sign or not.
    if checksum not in (sum(name) & _WORD, sum(each - (each > 127) * 256 for each in name) & _WORD):
        return ""
    return name.decode(errors="surrogateescape")


def is_page_size(number: int) -> bool:
    """Return True if *number* is a valid page size."""
    return 512 <= number <= 65536 and not number & number - 1


def checksum(data: memoryview, order: Order) -> Pair:
    """Return the checksum in the -wal's form of *data*, whose words have the byte order *order*."""
    sum_1 = sum_2 = 0
    words = iter(unpack(f"{order}{len(data) // 4}I", data))
    for word_1, word_2 in zip(words, words, strict=True):
        sum_1 = sum_1 + word_1 + sum_2 & _WORD
        sum_2 = sum_2 + word_2 + sum_1 & _WORD
    return sum_1, sum_2
