"""The table wal, read as the chain of its commits (docs/reference/file-format.md, section 7)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlstate.errors import Damaged
from sqlstate.format.records import Head, Kind, Record, chain_next, record_bytes
from sqlstate.tables import raw_rows, wal
from sqlstate.tables.raw_rows import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.sqlite.connection import Connection, Row

NEWEST: Final = "(SELECT chain FROM wal WHERE root IS NOT NULL ORDER BY lsn DESC LIMIT 1)"
"""The chain of the newest commit in the log, as a part of a statement."""
LAST_LSN: Final = "(SELECT ifnull(max(lsn), 0) FROM wal)"
"""The greatest LSN in the table, as a part of a statement."""


def relink(connection: Connection, base: int, head: Head) -> Iterator[tuple[Head, Head, list[Record]]]:
    """Follow the chain over the commits whose records come after *base*, from *head*, the newest before.

    Yields each commit as it is recorded, as it follows from its records and the one before (I4, I6), and its
    PUT and DELETE records.
    """
    parts, changes = [], []
    for row, body in _committed(connection, base):
        parts.append(body)
        if row[2] in (Kind.PUT, Kind.DELETE):
            changes.append(Record._make((*row[:2], Kind(row[2]), *row[3:])))
        elif row[9] is not None:
            said = wal.valid_head(connection, row[8:13])
            facts = (head.seq + 1, said.root, said.count, said.at)
            digest = sha256(b"".join(parts)).digest()
            yield said, Head(*facts, chain_next(head.chain, facts, digest)), changes
            parts, changes, head = [], [], said


def records_digest(connection: Connection, seq: int) -> bytes:
    """Return H(records) of commit *seq*, which its chain digest covers; b"" if there is none.

    Cost: a pass over the commit's records, if a program made it that did not know format 4.
    """
    last = wal.commit_lsn(connection, seq)
    kept = connection.value("SELECT records FROM wal WHERE lsn = ?", (last,))
    if is_digest(kept):
        return bytes(kept)
    digest, parts = sha256(), []
    rows = _committed(connection, wal.base_of(connection, last)) if last else ()
    for number, (row, body) in enumerate(rows, 1):
        parts.append(body)
        if row[0] == last or not number % wal.ROWS_AT_ONCE:
            digest.update(b"".join(parts))
            parts.clear()
        if row[0] == last:
            return digest.digest()
    return b""


def chains(connection: Connection, first: int, stop: int) -> Iterator[bytes]:
    """Yield the chain digests of the commits [first, stop), all of which must exist.

    Raises:
        Damaged: a commit is missing, or has no valid chain digest.
    """
    expected = first
    for row in wal.closing(connection, first, stop - first):
        if row[1] != expected or not is_digest(row[5]):
            break
        yield row[5]
        expected += 1
    if expected < stop:
        raise Damaged.found(connection.path, f"commit {expected} is missing from the log or malformed", "I4")


def _committed(connection: Connection, base: int) -> Iterator[tuple[Row, bytes]]:
    """Yield the records after *base*, and their canonical bytes, in the order in which commits hash them.

    Staged ones come where they are committed.
    """
    rolled_back: list[Record] = []
    for row in connection.iterate(wal.AFTER, (base,)):
        body = raw_rows.direct_change_bytes(row)
        if body is not None:
            yield row, body
            continue
        record = wal.valid_record(connection, row)
        if record.kind is Kind.COMMIT:
            staged = [] if record.session is None else wal.read_staged(connection, record.txn)
            for each in (*rolled_back, *(each for each in staged if each.kind is Kind.ROLLBACK)):
                what = f"record {each.lsn} rolls transaction {each.txn} back, and record {record.lsn} commits it"
                raise Damaged.found(connection.path, what, "I7")
            yield from ((each, record_bytes(each)) for each in staged or [record])
        elif record.session is None and record.kind is Kind.ROLLBACK:
            rolled_back = [record]
        elif record.session is None:
            yield record, record_bytes(record)
