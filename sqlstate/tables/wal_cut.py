"""The table wal, as a cut leaves it: what goes, what is still there of it, and how large it is.

The records of a commit that was cut go some at a time, from the oldest on. Of a staged transaction, they go when the
record that ends it does; until then they stay wherever the log begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlstate.tables.wal import COLUMNS, ENDED, OF_STAGED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import LogStart

R = TypeVar("R", bound="tuple[Any, ...]")

_SIZE = "ifnull(octet_length(value), 0) + ifnull(octet_length(before), 0)"
_ENDS = "session IS NOT NULL AND kind IN ('COMMIT', 'ROLLBACK')"
_OLDEST = f"SELECT lsn, {_SIZE}, iif({_ENDS}, txn, NULL) FROM wal WHERE lsn > ? AND lsn <= ? ORDER BY lsn LIMIT ?"
_REMOVE_DIRECT = "DELETE FROM wal WHERE lsn > ? AND lsn <= ? AND session IS NULL"
_REMOVE_STAGED = f"DELETE FROM wal WHERE lsn IN ({OF_STAGED})"
_ALL: Final = f"SELECT {COLUMNS} FROM wal ORDER BY lsn"
_RECORD_BYTES: Final = 60  # on an average, without values


def remove(connection: Connection, after: int, upto: int, *, rows: int, size: int) -> int:
    """Remove records that were cut, those after one LSN and up to another; return up to which they are gone.

    Args:
        connection: inside the caller's transaction.
        after: up to this one they are gone already.
        upto: where the log begins.
        rows: about how many go at most.
        size: bytes of values after which no more go.
    """
    oldest = connection.rows(_OLDEST, (after, upto, rows))
    end = upto if len(oldest) < rows else oldest[-1][0]
    for lsn, taken, _ in oldest:
        size -= taken
        if size <= 0:
            end = lsn
            break
    connection.run(_REMOVE_DIRECT, (after, end))
    for lsn, _, staged in oldest:
        if staged is not None and lsn <= end:
            connection.run(_REMOVE_STAGED, (staged,))
    return end


def live(connection: Connection, start: LogStart | None) -> Iterator[Row]:
    """Yield the rows of the log in order, whatever is in them, without records that were cut and are still there.

    Raises:
        Damaged: in a row there is text that is not UTF-8.
    """
    return without_cut(connection, connection.iterate(_ALL), start)


def without_cut(connection: Connection, rows: Iterator[R], start: LogStart | None) -> Iterator[R]:
    """Return *rows* without records that were cut; each begins with LSN, transaction, kind and session."""
    if start is None or start.removed == start.lsn:
        return rows
    removed, last = start.removed, start.lsn
    ended = {txn for (txn,) in connection.rows(ENDED, (removed, last))}
    return (row for row in rows if not removed < row[0] <= last or not (row[3] is None or row[1] in ended))


def size(connection: Connection) -> int:
    """Return about how many bytes of the file the records take. Cost: a pass over the log."""
    sql = f"SELECT count(*) * {_RECORD_BYTES} + total({_SIZE}) FROM wal"
    return int(connection.value(sql))
