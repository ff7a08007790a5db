"""The rows of the table wal with whatever is in them, for a repair and a check of a damaged log."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sqlstate.errors import Damaged
from sqlstate.format.records import Record
from sqlstate.tables import raw_rows, wal_cut
from sqlstate.tables.raw_rows import RawRecord
from sqlstate.tables.wal import COLUMNS, OF_STAGED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import LogStart

_RAW = f"SELECT {raw_rows.columns(*Record._fields)} FROM wal ORDER BY lsn"


def scan_raw(connection: Connection, start: LogStart | None) -> Iterator[RawRecord]:
    """Yield the rows of the log in order, whatever is in them: the fields as raw_rows.decoded() gives them.

    Without records that were cut and are still there; *start* is where the log begins.
    """
    rows = (RawRecord._make(raw_rows.decoded(row)) for row in connection.iterate(_RAW))
    return wal_cut.without_cut(connection, rows, start)


def live(connection: Connection, start: LogStart | None) -> Iterator[Row]:
    """Yield every row, whatever is in it; from a text on that is no UTF-8, in the slower way that reads it."""
    done = 0
    try:
        for row in wal_cut.live(connection, start):
            done += 1
            yield row
    except Damaged as e:
        if not isinstance(e.__cause__, UnicodeDecodeError):
            raise
        yield from islice(scan_raw(connection, start), done, None)


def write_raw(connection: Connection, rows: Iterable[tuple[int, RawRecord | None]]) -> None:
    """Replace the row of each LSN, or delete it where the new row is None, inside the caller's transaction."""
    for lsn, row in rows:
        connection.run("DELETE FROM wal WHERE lsn = ?", (lsn,))
        if row is not None:
            values = ", ".join(raw_rows.parameters(row))
            connection.run(f"INSERT INTO wal ({COLUMNS}) VALUES ({values})", raw_rows.bound(row))


def staged_raw(connection: Connection, txn: int, before: int) -> Iterator[RawRecord]:
    """Yield the rows of the staged transaction *txn* up to the LSN *before*, as scan_raw() gives them."""
    fields = raw_rows.columns(*Record._fields)
    sql = f"SELECT {fields} FROM wal WHERE lsn IN ({OF_STAGED} AND lsn < ?) ORDER BY lsn"
    return (RawRecord._make(raw_rows.decoded(row)) for row in connection.iterate(sql, (txn, before)))
