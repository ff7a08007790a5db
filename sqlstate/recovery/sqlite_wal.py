"""Reads SQLite's -wal.

SQLite stops at the first wrong byte, and reports nothing of what lies behind. This module reads everything: what SQLite
will recover, what a crash can have left, and what rotted. It changes nothing.

The format is that of https://sqlite.org/fileformat2.html, section 4. Rot differs from what a crash leaves: SQLite syncs
the -wal of a commit before the next one begins, and a new header before the first frame (synchronous=FULL), and no
crash can tear synced bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Final

from sqlstate.recovery.sqlite_journal import WAL_VERSION, HeaderState, checksum, is_page_size
from sqlstate.sqlite.wal_frames import FRAME_HEADER_BYTES, WAL_HEADER_BYTES, Frames, Order, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.sqlite.wal_frames import Bytes

_WORD: Final = 0xFFFFFFFF
_SECTOR: Final = 512  # the least that a disk writes whole or not at all
# Magic number, version, page size, checkpoint number, two salts; behind it the checksum of these 24 bytes.
_HEADER: Final = Struct(">6I")
_PAIR: Final = Struct(">2I")
_ORDER: Final[dict[int, Order]] = {0x377F0682: "<", 0x377F0683: ">"}
SALTS_APART: Final = 2**16  # the first salt grows by one each time that SQLite restarts a -wal
# How many frames after the valid ones are summed to count the stale ones; for more, the salts are trusted.
_SUMMED: Final = 64
# How many frames at the beginning are searched for a valid one, which shows the use that the first ones are of.
_LOOKED_AT: Final = 4096


@dataclass(frozen=True, slots=True)
class WalScan:
    """What a -wal holds. Pages are given as page number to the offset of the page's image in the file."""

    bytes: int
    """Size of the file."""
    header: HeaderState
    """Without a valid header, SQLite takes the file for one without frames."""
    page_size: int = 0
    checkpoint_seq: int = 0
    salts: Pair = (0, 0)
    """The header's salts; if the header is damaged, those of the first frame."""
    frames: int = 0
    """Whole frames in the file."""
    valid: int = 0
    """Frames with valid salts and checksums, from the header on without a gap."""
    committed: int = 0
    """Valid frames up to and including the last commit frame: what SQLite recovers."""
    commits: int = 0
    """Commit frames among the committed."""
    stale: int = 0
    """Frames after the valid ones that an earlier use of the file left, as in every -wal that was restarted."""
    proved: int = 0
    """Frames after the first invalid one, with the header's salts, that are valid after the frame before them."""
    torn_bytes: int = 0
    """Bytes after the valid frames that are not stale frames."""
    rot: bool = False
    """Whether synced bytes are invalid: SQLite will drop acknowledged commits."""
    checksum: Pair = (0, 0)
    """Checksum of the last committed frame."""
    database_pages: int = 0
    """Size of the database after the last commit."""
    pages: dict[int, int] = field(default_factory=dict)
    """The newest committed image of each page that the database then has."""
    rewritten: bool = False
    """Whether one of the commits wrote every page of the database, as VACUUM does: it can have made the database
    smaller, and what the main file holds no longer matters."""
    first_size: int = 0
    """Size of the database after the first commit."""
    first_pages: dict[int, int] = field(default_factory=dict)
    """As `pages`, after the first commit."""
    orphans: int = 0
    """Frames of commits under other salts than the header's, at the start of a -wal without valid frames."""
    others: Pair = (0, 0)
    """Salts of the first valid frames, if those of a valid header differ, and nothing was committed."""
    orphan_pages: dict[int, int] = field(default_factory=dict)
    """As `pages`, of the orphans.

    SQLite restarts a -wal only when the main file has everything in it: if a crash came at that time, the main file has
    each of these images. If the header rotted, or belongs to another -wal, the main file may lack some.
    """

    @property
    def uncommitted(self) -> int:
        """Return the number of valid frames behind the last commit frame."""
        return self.valid - self.committed


def scan_wal(data: Bytes, page_size: int = 0) -> WalScan:
    """Return what a -wal holds.

    Args:
        data: the file's bytes, which may be anything; they are read in parts.
        page_size: of the main file, for a -wal whose header is damaged.
    """
    if isinstance(data, bytearray | memoryview):
        data = memoryview(data).cast("B")
    total = len(data)
    if total < WAL_HEADER_BYTES:
        return WalScan(total, "short" if total else "empty", torn_bytes=total)
    header = memoryview(data[:WAL_HEADER_BYTES])
    magic, version, own_page_size, checkpoint_seq, *salts = _HEADER.unpack_from(header)
    said: Pair = _PAIR.unpack_from(header, _HEADER.size)
    order = _ORDER.get(magic)
    if (
        order is None
        or version != WAL_VERSION
        or not is_page_size(own_page_size)
        or checksum(header[: _HEADER.size], order) != said
    ):
        return _scan_orphans(data, page_size or own_page_size, said)
    frames = Frames(data, own_page_size, order, [said])
    return _scan_frames(_Judged(frames, (salts[0], salts[1]), checkpoint_seq), total)


def _scan_frames(judged: _Judged, total: int) -> WalScan:
    frames, salts = judged.frames, judged.salts
    valid = frames.recovered()
    commits = [i + 1 for i, each in enumerate(frames.numbers[:valid]) if each & _WORD]
    first, committed = (commits[0], commits[-1]) if commits else (0, 0)
    stale = judged.stale(valid)
    behind = 0 if committed else judged.of_others(valid)
    orphans = judged.left_by_others(behind) if behind else (0, 0)
    return WalScan(
        bytes=total,
        header="valid",
        page_size=frames.page_size,
        checkpoint_seq=judged.checkpoint_seq,
        salts=salts,
        frames=frames.count,
        valid=valid,
        committed=committed,
        commits=len(commits),
        stale=stale,
        proved=judged.proved(valid),
        torn_bytes=total - WAL_HEADER_BYTES - (valid + stale) * frames.stride,
        rot=judged.is_followed(valid) or judged.is_newer(valid),
        checksum=frames.sum(committed - 1) if commits else (0, 0),
        database_pages=frames.size(committed - 1) if commits else 0,
        pages=frames.images(0, committed),
        rewritten=any(frames.is_all(start, end) for start, end in pairwise([0, *commits])),
        first_size=frames.size(first - 1) if commits else 0,
        first_pages=frames.images(0, first),
        orphans=orphans[1] - orphans[0],
        others=(frames.salts[behind] >> 32, frames.salts[behind] & _WORD) if behind else (0, 0),
        orphan_pages=frames.images(*orphans),
    )


def _scan_orphans(data: Bytes, page_size: int, said: Pair) -> WalScan:
    total = len(data)
    if not is_page_size(page_size):
        return WalScan(total, "damaged", torn_bytes=total - WAL_HEADER_BYTES)
    for order in _ORDER.values():
        # Bad is either the header's checksum or what it sums: the first frame holds from the other.
        frames = Frames(data, page_size, order, [said, checksum(memoryview(data[: _HEADER.size]), order)])
        frames.read()
        if any(frames.holds(i) for i in range(min(_SUMMED, frames.count))):
            break
    if not frames.count:
        return WalScan(total, "damaged", page_size=page_size, torn_bytes=total - WAL_HEADER_BYTES)
    # Behind a gap, frames may be those of a former use: only the first ones, and what follows with the same salts, are
    # known to be the newest. The first need not hold: without the header, it has nothing to hold from.
    own = frames.salts[0]
    judged = _Judged(frames, (own >> 32, own & _WORD), 0)
    end = frames.run(own, 1)
    committed = judged.last_commit(0, end)
    images = frames.images(0, committed)
    return WalScan(
        bytes=total,
        header="damaged",
        page_size=page_size,
        salts=judged.salts if images else (0, 0),
        frames=frames.count,
        proved=judged.proved(0),
        torn_bytes=total - WAL_HEADER_BYTES,
        rot=judged.is_followed(end),
        orphans=committed if images else 0,
        orphan_pages=images,
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """Frames, and the fields of the header."""

    frames: Frames
    salts: Pair
    checkpoint_seq: int

    @property
    def own(self) -> int:
        """The salts as one number, as the frames have them."""
        return self.salts[0] << 32 | self.salts[1]

    def proved(self, start: int) -> int:
        """Return how many frames from *start* on are valid, with the header's salts."""
        frames, own = self.frames, self.own
        if own not in frames.salts[start:]:
            return 0
        return sum(frames.salts[i] == own and frames.holds(i, ahead=_SUMMED) for i in range(start, frames.count))

    def stale(self, start: int) -> int:
        """Return how many frames from *start* on are left of earlier uses of the file."""
        frames, own, found, before = self.frames, self.own, 0, self.own
        end = min(frames.count, start + _SUMMED)
        for i in range(start, end):
            salts = frames.salts[i]
            if salts not in (own, before):
                # The frame that it held from was written over.
                found += self._is_former(salts) and not frames.holds(i, ahead=end - i)
            elif salts == before != own:
                found += frames.holds(i, ahead=end - i)
            before = salts
        return found + sum(times for salts, times in Counter(frames.salts[end:]).items() if self._is_former(salts))

    def is_followed(self, start: int) -> bool:
        """Return True if a commit frame from *start* on has a frame behind it that was written after that commit."""
        frames, own = self.frames, self.own
        for i in self._commits(start):
            if not (i + 1 < frames.count and frames.salts[i + 1] == own and frames.holds(i + 1)):
                continue
            # Of a frame that does not hold, the header does if one sector has all of it. A crash may have kept the one
            # part or the other from an older frame: an old size before a new checksum, that the next frame holds from,
            # or a new size before the old checksum.
            whole = frames.salts[i] == own and frames.at(i) % _SECTOR <= _SECTOR - FRAME_HEADER_BYTES
            if (frames.holds(i) or whole) and not self._is_repeated(i):
                return True
        return False

    def is_newer(self, start: int) -> bool:
        """Return True if there is a commit of a later use of the file: its header was synced before, and is not there.

        Only a frame behind another of the same use can be told from noise at no cost.
        """
        frames = self.frames
        for i in self._commits(start):
            salts = frames.salts[i]
            later = 0 < ((salts >> 32) - self.salts[0] & _WORD) < SALTS_APART and salts & _WORD != self.salts[1]
            if later and (i == 0 or frames.salts[i - 1] == salts) and frames.holds(i):
                return True
        return False

    def of_others(self, start: int) -> int:
        """Return the first valid frame after another with the same salts, if these are not the header's; or 0."""
        frames = self.frames
        for i in range(start + 1, min(frames.count, start + _LOOKED_AT)):
            if self.own != frames.salts[i] == frames.salts[i - 1] and frames.holds(i):
                return i
        return 0

    def left_by_others(self, i: int) -> tuple[int, int]:
        """Return the start and end of the newest commits of the use that a frame is of. The header's use has none.

        SQLite restarts a -wal when the main file has everything in it. So the main file may lack these commits if the
        header is not the one that ended that use.
        """
        frames, salts = self.frames, self.frames.salts[i]
        apart = self.salts[0] - (salts >> 32) & _WORD
        if 1 < apart < SALTS_APART:
            return 0, 0  # the first frames of this use hid all that the use before had
        # This use may have begun to write over any of them: what is behind the last such place is newest.
        end = max(each for each in range(i, frames.count) if frames.salts[each] == salts) + 1
        whole = [frames.salts[k] == salts and frames.holds(k, ahead=_SUMMED) for k in range(i, end)]
        start = next((k + 1 for k in reversed(range(i, end)) if not whole[k - i]), i)
        end = self.last_commit(start, end)
        commits = sum(1 for each in range(start, end) if frames.size(each))
        # In its first use, a -wal gets other salts over a transaction that was never acknowledged: one at most.
        return (start, end) if apart == 1 or commits > 1 else (0, 0)

    def last_commit(self, start: int, end: int) -> int:
        """Return the end of the last commit among the frames from *start* to *end*; *start* without a commit."""
        return next((i + 1 for i in reversed(range(start, end)) if self.frames.size(i)), start)

    def _commits(self, start: int) -> Iterator[int]:
        return (i for i, each in enumerate(self.frames.numbers[start:], start) if each & _WORD)

    def _is_former(self, salts: int) -> bool:
        """Return True if an earlier use can have had these salts: the first salt counts the uses."""
        return salts != self.own and 0 < self.salts[0] - (salts >> 32) & _WORD <= self.checkpoint_seq

    def _is_repeated(self, i: int) -> bool:
        """Return True if the next frame may be this one again.

        SQLite fills up a sector so, before it syncs, on devices that may spoil the rest of it with the next write.
        """
        frames = self.frames
        if frames.numbers[i] != frames.numbers[i + 1]:
            return False
        return not frames.holds(i) or frames.image(i) == frames.image(i + 1)
