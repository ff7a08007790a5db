"""Keeps the log of a store at its limit: commits cut the oldest ones, some at a time.

What goes and what stays of a cut commit: docs/reference/file-format.md, section 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.tables import claims, cut_commits, wal, wal_chain, wal_cut
from sqlstate.tables import meta as metadata
from sqlstate.tables.meta import LogStart

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Meta

DEFAULT: Final = 64 << 20  # of a new store

# What one commit does of it at most, so that no caller waits: commits that are cut, and records and bytes that go.
_COMMITS: Final = 1_024
_ROWS: Final = 1_024
_BYTES: Final = 4 << 20


class LogLimit:
    """Where the log begins and how large it may be, as the handle knows them.

    Args:
        meta: the store's facts.
    """

    __slots__ = ("_is_damaged", "_meta", "bytes", "start")

    bytes: int | None
    """The size that the log is kept at; None keeps all of it."""
    start: LogStart
    """Where it begins."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta
        self._is_damaged = False  # the next commit that would be cut: nobody tries again with each commit
        self.bytes = None
        self.start = _beginning(meta, 0)

    def load(self, connection: Connection) -> None:
        """Read limit and beginning again, after others may have changed them."""
        self._is_damaged = False
        self.bytes = metadata.read_log_limit(connection)
        start = metadata.read_log_start(connection)
        self.start = start or _beginning(self._meta, metadata.read_log_unsized(connection))

    def is_due(self, seq: int, total: int) -> bool:
        """Return True if commit *seq*, up to which all records take *total* bytes, has to cut others.

        Once in 256 commits is enough, as long as the log does not outgrow its limit by much.
        """
        if self.start.removed < self.start.lsn:
            return True
        if self.bytes is None or self._is_damaged:
            return False
        excess = total - self.start.total - self._for_records(self.bytes)
        return excess > 0 and (seq % fmt.LOG_BLOCK == 0 or excess > self.bytes // 16)

    def cut(self, connection: Connection, seq: int, total: int) -> LogStart:
        """Cut what one commit may of the oldest ones, inside the transaction of commit *seq*; return the beginning.

        A log that is damaged there is left alone: a check tells what is wrong with it.
        """
        start, limit = self.start, self.bytes
        if start.removed == start.lsn and limit is not None:
            try:
                start = self._cut_commits(connection, seq, total - self._for_records(limit))
            except Damaged:
                self._is_damaged = True
        if start.removed == start.lsn:
            return start  # nothing may be cut
        removed = wal_cut.remove(connection, start.removed, start.lsn, rows=_ROWS, size=_BYTES)
        start = start._replace(removed=removed)
        metadata.write_log_start(connection, start)
        return start

    def _for_records(self, limit: int) -> int:
        """Return how many bytes the records may take beside what stays of cut commits: an eighth at least."""
        return max(limit - self.start.head.seq * fmt.DIGEST_BYTES, limit // 8)

    def _cut_commits(self, connection: Connection, seq: int, upto: int) -> LogStart:
        """Cut the commits up to the one with which all records took *upto* bytes, but no more than one commit may."""
        last = min([seq - 1, *claims.read(connection).values()])
        most = min(last - self.start.head.seq, _COMMITS)
        return advance(connection, self._meta, self.start, most, min(upto, self.start.total + _BYTES))


class _Cut(NamedTuple):
    """A commit that is to be cut."""

    lsn: int
    head: Head
    records: bytes | None
    total: int


def advance(connection: Connection, meta: Meta, start: LogStart, most: int, upto: int | None = None) -> LogStart:
    """Cut commits behind *start*, inside the caller's transaction, and return where the log begins then.

    The caller writes that, and removes the records.

    Args:
        connection: the writing connection.
        meta: the store's facts.
        start: where the log begins.
        most: how many commits are cut at most.
        upto: cut up to the first one that has this total, or more; None for *most* commits.

    Raises:
        Damaged: a commit is not what it must be; nothing was written.
    """
    if most <= 0:
        return start
    lsn, _, total = wal.end(connection, meta)
    found: list[_Cut] = []
    for number, row in enumerate(wal.closing(connection, start.head.seq + 1, most, start.lsn), start.head.seq + 1):
        head = wal.valid_head(connection, row[1:6])
        if head.seq != number:
            raise Damaged.found(connection.path, f"commit {number} is missing from the log", "I4")
        # Commits that an earlier version made do not say how large they are: they are taken to be alike.
        share = (row[0] - start.lsn) * (total - start.total) // (lsn - start.lsn)
        found.append(_Cut(row[0], head, row[6], row[7] if row[7] is not None else start.total + share))
        if upto is not None and found[-1].total >= upto:
            break
    if not found:
        return start
    newest = found[-1]
    records = newest.records or wal_chain.records_digest(connection, newest.head.seq)
    cut_commits.append(connection, start.head.seq + 1, [each.head.chain for each in found])
    return LogStart(newest.lsn, start.removed, newest.total, newest.head, records)


def _beginning(meta: Meta, unsized: int) -> LogStart:
    return LogStart(0, 0, -unsized, wal.head_zero(meta), bytes(fmt.DIGEST_BYTES))
