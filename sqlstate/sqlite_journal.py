"""What SQLite's own journals hold: the -wal, its index in the -shm, and the rollback journal.

SQLite stops at the first byte that is wrong, and says nothing of what lies behind it. This module reads all of it:
what SQLite will recover, what a crash can have left, and what rotted. It changes nothing.

The formats are those of https://sqlite.org/fileformat2.html, sections 3 and 4, and https://sqlite.org/walformat.html.
Rot is told from a crash by what the engine sees to: SQLite syncs the journal of a commit before the next one begins,
and a record before the header that counts it (synchronous=FULL, EXTRA). What was synced, no crash can tear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct, unpack
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Data = bytes | bytearray | memoryview  # and whatever memoryview() takes, such as an mmap
Pair = tuple[int, int]
Order = Literal["<", ">", "="]  # of the bytes in a word, as struct has it
HeaderState = Literal["valid", "zeroed", "damaged", "short", "empty"]

_WORD: Final = 0xFFFFFFFF
_SECTOR: Final = 512  # the least that a disk writes whole or not at all
_PAIR: Final = Struct(">2I")

# Magic number, version, page size, checkpoint number, two salts; behind it the checksum of these 24 bytes.
_WAL_HEADER: Final = Struct(">6I")
_WAL_HEADER_BYTES: Final = 32
_WAL_VERSION: Final = 3_007_000
_WAL_ORDER: Final[dict[int, Order]] = {0x377F0682: "<", 0x377F0683: ">"}
# Page number, size of the database after a commit or else 0, the salts, the checksum; behind it the page.
_FRAME: Final = Struct(">2I2I2I")
# Version, -, change counter, initialised, byte order of the -wal's checksums, page size, frames, size of the database,
# checksum of the last frame, the salts as the -wal has them, checksum of these 40 bytes.
_INDEX: Final = Struct("=3I2BH2I2I8s2I")
_BACKFILLED: Final = Struct("=I")

_JOURNAL_MAGIC: Final = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
# Magic number, records, nonce, size of the database, sector size, page size.
_JOURNAL_HEADER: Final = Struct(">8s5I")
_NUMBER: Final = Struct(">I")
_UNCOUNTED: Final = 0xFFFFFFFF
_LOCK_BYTE: Final = 0x40000000

# Frames summed at once: so many 64-bit lanes stay in the processor's cache.
_LANES: Final = 1024
# A sum grows by the golden ratio with each word: 44 words fill the upper half of its lane, 40 do not.
_PAIRS_BETWEEN_MASKS: Final = 20


@dataclass(frozen=True, slots=True)
class WalScan:
    """What a -wal holds. Pages are given as page number to the offset of the page's image in the file."""

    bytes: int
    """Size of the file."""
    header: HeaderState
    """With any but a valid one, SQLite takes the file for one without frames."""
    page_size: int = 0
    checkpoint_seq: int = 0
    salts: Pair = (0, 0)
    """The header's; if that is damaged, those of the first frame."""
    frames: int = 0
    """Whole frames in the file."""
    valid: int = 0
    """Frames whose salts and checksums hold, in a chain from the header on."""
    committed: int = 0
    """Valid frames up to and with the last commit frame: what SQLite recovers."""
    commits: int = 0
    """Commit frames among the committed."""
    stale: int = 0
    """Frames behind the valid ones that the file's former use left, as it does in every -wal that is used again."""
    proved: int = 0
    """Frames behind the first bad one, with the header's salts, that hold from the frame before them on."""
    torn_bytes: int = 0
    """Bytes behind the valid frames that are no stale frames."""
    rot: bool = False
    """Whether bytes are bad that had been synced: SQLite will drop commits that were acknowledged."""
    checksum: Pair = (0, 0)
    """Of the last committed frame."""
    database_pages: int = 0
    """Size of the database after the last commit."""
    pages: dict[int, int] = field(default_factory=dict)
    """The newest committed image of each page that the database then has."""
    first_size: int = 0
    """Size of the database after the first commit."""
    first_pages: dict[int, int] = field(default_factory=dict)
    """The same as `pages`, of the first commit alone."""
    orphans: int = 0
    """Frames of commits that hold without the header, if that is damaged."""
    orphan_pages: dict[int, int] = field(default_factory=dict)
    """The same as `pages`, of the orphans.

    SQLite begins a -wal anew only when the main file has all that it held: if the header was torn by a crash just
    then, the main file has each of these images. If the header rotted, it need not.
    """

    @property
    def uncommitted(self) -> int:
        """Return the number of valid frames behind the last commit frame."""
        return self.valid - self.committed


@dataclass(frozen=True, slots=True)
class WalIndex:
    """What SQLite's index of a -wal says of it. The -shm is never synced: after a power cut it may be an old one."""

    page_size: int
    frames: int
    """Frames up to and with the last commit frame."""
    database_pages: int
    salts: Pair
    checksum: Pair
    """Of the last of these frames."""
    backfilled: int
    """Frames that a checkpoint has carried into the main file."""


@dataclass(frozen=True, slots=True)
class JournalScan:
    """What a rollback journal holds."""

    bytes: int
    """Size of the file."""
    header: HeaderState
    """With any but a valid one, SQLite rolls nothing back."""
    page_size: int = 0
    sector_size: int = 0
    nonce: int = 0
    """Of the first header; each has its own."""
    initial_pages: int = 0
    """Size of the database before the transaction."""
    segments: int = 0
    """Headers."""
    records: int = 0
    """Records that the headers count."""
    valid: int = 0
    """Records that SQLite plays back: those up to the first bad one."""
    torn_bytes: int = 0
    """Bytes behind the records that are played back: uncounted, bad, or the super-journal's name."""
    rot: bool = False
    """Whether bytes are bad that had been synced: SQLite will leave part of the transaction in the main file."""
    pages: dict[int, int] = field(default_factory=dict)
    """Page number to the offset of the image that is played back."""
    super_journal: str = ""
    """Name of the file without which SQLite takes the transaction for a committed one."""


class _Frame(NamedTuple):
    """A frame's header, and where the page's image is."""

    image: int
    page: int
    size: int
    salts: Pair
    checksum: Pair


def scan_wal(data: Data, page_size: int = 0) -> WalScan:
    """Return what a -wal holds.

    Args:
        data: the file's bytes, whatever they are.
        page_size: that of the main file, for a -wal whose own header is damaged.
    """
    with memoryview(data) as whole, whole.cast("B") as view:
        total = len(view)
        if total < _WAL_HEADER_BYTES:
            return WalScan(total, "short" if total else "empty", torn_bytes=total)
        magic, version, own_page_size, checkpoint_seq, salt_1, salt_2 = _WAL_HEADER.unpack_from(view)
        checksum: Pair = _PAIR.unpack_from(view, _WAL_HEADER.size)
        order = _WAL_ORDER.get(magic)
        if (
            order is None
            or version != _WAL_VERSION
            or not _is_page_size(own_page_size)
            or _checksum(view[: _WAL_HEADER.size], order) != checksum
        ):
            return _scan_orphans(view, page_size or own_page_size, checksum)
        return _scan_frames(_Frames(view, own_page_size, order, [checksum]), checkpoint_seq, (salt_1, salt_2))


def _scan_frames(frames: _Frames, checkpoint_seq: int, salts: Pair) -> WalScan:
    heads, total = frames.heads, len(frames.view)
    valid = frames.run(salts, 0)
    commits = [i + 1 for i in range(valid) if heads[i].size]
    first, committed = (commits[0], commits[-1]) if commits else (0, 0)
    stale = frames.stale(salts, valid, checkpoint_seq)
    return WalScan(
        bytes=total,
        header="valid",
        page_size=frames.page_size,
        checkpoint_seq=checkpoint_seq,
        salts=salts,
        frames=len(heads),
        valid=valid,
        committed=committed,
        commits=len(commits),
        stale=stale,
        proved=frames.proved(salts, valid),
        torn_bytes=total - _WAL_HEADER_BYTES - (valid + stale) * (_FRAME.size + frames.page_size),
        rot=frames.is_followed(salts, valid) or frames.is_newer(salts, valid),
        checksum=heads[committed - 1].checksum if commits else (0, 0),
        database_pages=heads[committed - 1].size if commits else 0,
        pages=frames.images(0, committed),
        first_size=heads[first - 1].size if commits else 0,
        first_pages=frames.images(0, first),
    )


def _scan_orphans(view: memoryview, page_size: int, checksum: Pair) -> WalScan:
    total = len(view)
    if not _is_page_size(page_size):
        return WalScan(total, "damaged", torn_bytes=total - _WAL_HEADER_BYTES)
    for order in _WAL_ORDER.values():
        # Bad is either the header's checksum or what it sums: the first frame holds from the other.
        seeds = [checksum, _checksum(view[: _WAL_HEADER.size], order)]
        frames = _Frames(view, page_size, order, seeds)
        if True in frames.holds:
            break
    salts, start, committed, end = (0, 0), 0, 0, 0
    # Behind a gap, frames may be those of a former use: only the first ones, and what follows with the same salts, are
    # known to be the newest.
    if True in frames.holds[:2]:
        salts, start = frames.heads[0].salts, frames.holds.index(True)
        end = frames.run(salts, start)
        committed = max((i + 1 for i in range(start, end) if frames.heads[i].size), default=start)
    return WalScan(
        bytes=total,
        header="damaged",
        page_size=page_size,
        salts=salts,
        frames=len(frames.heads),
        proved=frames.proved(salts, 0),
        torn_bytes=total - _WAL_HEADER_BYTES,
        rot=frames.is_followed(salts, end),
        orphans=committed - start,
        orphan_pages=frames.images(start, committed),
    )


class _Frames:
    """The whole frames of a -wal, and which of them hold."""

    def __init__(self, view: memoryview, page_size: int, order: Order, seeds: list[Pair]) -> None:
        self.view = view
        self.page_size = page_size
        stride = _FRAME.size + page_size
        self.heads = [
            _Frame(at + _FRAME.size, page, size, (salt_1, salt_2), (sum_1, sum_2))
            for at in range(_WAL_HEADER_BYTES, len(view) - stride + 1, stride)
            for page, size, salt_1, salt_2, sum_1, sum_2 in (_FRAME.unpack_from(view, at),)
        ]
        self.holds = list(self._hold(order, seeds))
        """Whether the checksum of each frame holds, whatever its salts."""

    def _hold(self, order: Order, seeds: list[Pair]) -> Iterator[bool]:
        """Sum each frame on from the checksum of the one before it; *seeds* are those before the first.

        That checksum may be all that is bad of the frame before: then the right one serves too.
        """
        # A sum is linear in its seed: Fibonacci numbers say what is left of that behind so many words.
        older, newer = 1, 0
        for _ in range(2 + self.page_size // 4):
            older, newer = newer, (older + newer) & _WORD
        for head, (sum_1, sum_2) in zip(self.heads, self._sums(order), strict=True):
            sums = [
                ((older * a + newer * b + sum_1) & _WORD, (newer * a + (older + newer) * b + sum_2) & _WORD)
                for a, b in seeds
            ]
            yield head.checksum in sums and head.page != 0
            seeds = [head.checksum] if head.checksum in sums else [head.checksum, sums[0]]

    def _sums(self, order: Order) -> Iterator[Pair]:
        """Yield the checksum of each frame alone, from the seed (0, 0).

        Word by word, many frames at once: word k of each is one 64-bit lane of a large int. One frame after the
        other takes seven times as long.
        """
        stride = _FRAME.size + self.page_size
        for first in range(0, len(self.heads), _LANES):
            lanes = min(_LANES, len(self.heads) - first)
            start = _WAL_HEADER_BYTES + first * stride
            pairs = self.view[start : start + lanes * stride].cast("Q")
            mask = int.from_bytes(_WORD.to_bytes(8, "little") * lanes, "little")
            sum_1 = sum_2 = 0
            # Of the frame's header, the page number and the size are summed; the salts and the checksum are not.
            for count, k in enumerate((0, *range(_FRAME.size // 8, stride // 8)), 1):
                both = int.from_bytes(pairs[k :: stride // 8].tobytes(), "big" if order == ">" else "little")
                if order == ">":
                    sum_1 += (both >> 32 & mask) + sum_2
                    sum_2 += (both & mask) + sum_1
                else:
                    sum_1 += (both & mask) + sum_2
                    sum_2 += (both >> 32 & mask) + sum_1
                if count % _PAIRS_BETWEEN_MASKS == 0:
                    sum_1 &= mask
                    sum_2 &= mask
            unpacked = [unpack(f"<{lanes}Q", (each & mask).to_bytes(8 * lanes, "little")) for each in (sum_1, sum_2)]
            # In a large int that was read as big-endian, the first lane is the last one.
            yield from zip(*(each[::-1] if order == ">" else each for each in unpacked), strict=True)

    def run(self, salts: Pair, start: int) -> int:
        """Return the end of the frames that hold, with these *salts*, from *start* on without a gap."""
        for i in range(start, len(self.heads)):
            if not self.holds[i] or self.heads[i].salts != salts:
                return i
        return len(self.heads)

    def proved(self, salts: Pair, start: int) -> int:
        """Return how many frames from *start* on hold, with these *salts*."""
        return sum(self.holds[i] and self.heads[i].salts == salts for i in range(start, len(self.heads)))

    def stale(self, salts: Pair, start: int, checkpoint_seq: int) -> int:
        """Return how many frames from *start* on are left of the file's former uses."""
        found, before = 0, salts
        for i in range(start, len(self.heads)):
            own = self.heads[i].salts
            if own not in (salts, before):
                # The frame that it held from was written over. Salt 1 counts the uses, as the checkpoints' number does.
                found += not self.holds[i] and 0 < (salts[0] - own[0]) & _WORD <= checkpoint_seq
            elif own == before != salts:
                found += self.holds[i]
            before = own
        return found

    def is_followed(self, salts: Pair, start: int) -> bool:
        """Return whether a commit frame from *start* on has a frame behind it that was written after that commit."""
        for i in range(start, len(self.heads) - 1):
            head, after = self.heads[i], self.heads[i + 1]
            if not (head.size and self.holds[i + 1] and after.salts == salts):
                continue
            # Of a frame that does not hold, the header does if one sector has all of it: the salts and the checksum
            # that the next frame holds from. A crash may have kept the size of an older frame from them.
            whole = head.salts == salts and (head.image - _FRAME.size) % _SECTOR != _SECTOR - 8
            if (self.holds[i] or whole) and not self._is_repeated(i):
                return True
        return False

    def _is_repeated(self, i: int) -> bool:
        """Return whether the next frame may be this one again.

        SQLite fills up a sector so, before it syncs, on devices that may spoil the rest of it with the next write.
        """
        one, two = self.heads[i], self.heads[i + 1]
        if (one.page, one.size) != (two.page, two.size):
            return False
        images = [bytes(self.view[each.image : each.image + self.page_size]) for each in (one, two)]
        return not self.holds[i] or images[0] == images[1]

    def is_newer(self, salts: Pair, start: int) -> bool:
        """Return whether there is a commit of the file's next use: its header was synced before, and is not there."""
        for i in range(start, len(self.heads)):
            head = self.heads[i]
            next_use = head.salts[0] == salts[0] + 1 & _WORD and head.salts[1] != salts[1]
            if self.holds[i] and head.size and next_use:
                return True
        return False

    def images(self, start: int, end: int) -> dict[int, int]:
        """Return the newest image of each page that the database has after the commit that ends at *end*."""
        size = self.heads[end - 1].size if start < end else 0
        return {head.page: head.image for head in self.heads[start:end] if head.page <= size}


def wal_index(data: Data) -> WalIndex | None:
    """Return what a -shm says of the -wal beside it, or None if it says nothing that can be relied on.

    Args:
        data: the file's bytes, whatever they are; 100 of them are enough.
    """
    with memoryview(data) as whole, whole.cast("B") as view:
        # There are two copies, so that a reader sees whether a writer is between them.
        if len(view) < 2 * _INDEX.size + _BACKFILLED.size or view[: _INDEX.size] != view[_INDEX.size : 2 * _INDEX.size]:
            return None
        version, _, _, initialised, _, page_size, frames, pages, *sums = _INDEX.unpack_from(view)
        salts: Pair = _PAIR.unpack(sums[2])
        if (version, initialised) != (_WAL_VERSION, 1):
            return None
        if _checksum(view[: _INDEX.size - 8], "=") != (sums[3], sums[4]):
            return None
        (backfilled,) = _BACKFILLED.unpack_from(view, 2 * _INDEX.size)
        # 65536 does not fit into its 16 bits, and stands there as 1.
        return WalIndex(page_size if page_size != 1 else 65536, frames, pages, salts, (sums[0], sums[1]), backfilled)


def scan_journal(data: Data) -> JournalScan:
    """Return what a rollback journal holds.

    Args:
        data: the file's bytes, whatever they are.
    """
    with memoryview(data) as whole, whole.cast("B") as view:
        total = len(view)
        if not total or not view[0]:
            return JournalScan(total, "zeroed" if total else "empty", torn_bytes=total)
        if total < _JOURNAL_HEADER.size:
            return JournalScan(total, "short", torn_bytes=total)
        magic, count, nonce, initial_pages, sector_size, page_size = _JOURNAL_HEADER.unpack_from(view)
        sized = _is_page_size(page_size) and 32 <= sector_size <= 65536 and not sector_size & sector_size - 1
        least = max(_SECTOR, sector_size if sized else 0)
        if magic != _JOURNAL_MAGIC or not sized or total < least:
            # The count is written when the records are synced, with the magic before it: a crash can tear the two.
            rot = count not in (0, _UNCOUNTED) and (magic == _JOURNAL_MAGIC or (sized and _resembles_magic(magic)))
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
        if magic != _JOURNAL_MAGIC:
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
    """Tell whether *found* is the magic with a few bytes changed, as rot does, and not something else written there."""
    return sum(map(int.__eq__, found, _JOURNAL_MAGIC)) >= len(_JOURNAL_MAGIC) // 2


def _played_back(record: memoryview, page_size: int, nonce: int, initial_pages: int) -> int:
    """Return the page number of a record, 0 if SQLite ends the playback there."""
    if len(record) < page_size + 2 * _NUMBER.size:
        return 0
    page: int = _NUMBER.unpack_from(record)[0]
    if page in (0, _LOCK_BYTE // page_size + 1):
        return 0
    (checksum,) = _NUMBER.unpack_from(record, _NUMBER.size + page_size)
    # Of the page, every 200th byte is summed, counted from its end.
    image = record[_NUMBER.size : _NUMBER.size + page_size]
    if page <= initial_pages and nonce + sum(image[page_size % 200 :: 200]) & _WORD != checksum:
        return 0
    return page


def _super_journal(view: memoryview) -> str:
    """Return the name at the end of a journal of a transaction over several files, "" if there is none."""
    end = len(view) - _PAIR.size - len(_JOURNAL_MAGIC)
    if end < 0 or bytes(view[-len(_JOURNAL_MAGIC) :]) != _JOURNAL_MAGIC:
        return ""
    length, checksum = _PAIR.unpack_from(view, end)
    if length > end:
        return ""
    name = bytes(view[end - length : end])
    # A sum of C's chars, which may have a sign or not.
    if checksum not in (sum(name) & _WORD, sum(each - (each > 127) * 256 for each in name) & _WORD):
        return ""
    return name.decode(errors="surrogateescape")


def _is_page_size(number: int) -> bool:
    return 512 <= number <= 65536 and not number & number - 1


def _checksum(data: memoryview, order: Order) -> Pair:
    sum_1 = sum_2 = 0
    words = iter(unpack(f"{order}{len(data) // 4}I", data))
    for word_1, word_2 in zip(words, words, strict=True):
        sum_1 = sum_1 + word_1 + sum_2 & _WORD
        sum_2 = sum_2 + word_2 + sum_1 & _WORD
    return sum_1, sum_2
