"""The table wal: the write-ahead log (docs/reference/file-format.md, section 3.4).

Records, and the bytes by which they are hashed, are defined in `format.records`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import Damaged, LogCut
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT
from sqlstate.format.records import Head, Kind, Record, chain_zero
from sqlstate.sqlite.connection import KEPT_BYTES, size_of
from sqlstate.tables import meta as metadata
from sqlstate.tables import raw_rows
from sqlstate.tables.raw_rows import is_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.format.names import Key, Stored
    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import LogStart, Meta


_KINDS = {str(kind): kind for kind in Kind}
ROWS_AT_ONCE = 256
TRANSACTION_BYTES: Final = 200  # of the file, about, that its BEGIN and COMMIT take
CHANGE_BYTES: Final = 24  # that a PUT or DELETE takes besides name and values
_LOOKED_AT = 10_000
_NEAR = 512  # records that are read sooner than searched
BYTES_AT_ONCE = 1 << 20
_VALUE, _BEFORE, _DIGESTS = map(Record._fields.index, ("value", "before", "digests"))
_LARGE: Final = {bytes, type(None)}  # of what SQLite's rows can be written piece by piece

IS_CHANGE: Final = "kind IN ('PUT', 'DELETE')"
"""A condition as the index wal_history has it, word for word: otherwise SQLite would not use that."""

# kind, collection, key, value, before, digests
ChangeRow = tuple[Kind, str, "Key", "Stored | None", "Stored | None", int | None]

COLUMNS = ", ".join(Record._fields)
_INSERT = f"INSERT INTO wal ({COLUMNS}) VALUES ({', '.join('?' * len(Record._fields))})"
INSERT_CHANGE = (
    "INSERT INTO wal (lsn, txn, kind, collection, key, value, before, digests) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_COMMIT = """
INSERT INTO wal (lsn, txn, kind, session, seq, root, count, at, chain, records, total)
VALUES (?, ?, 'COMMIT', ?, ?, ?, ?, ?, ?, ?, ?)
"""
# BEGIN, one change and COMMIT in one statement: 5 µs instead of 8 for the most frequent commit.
INSERT_SHORT = """
INSERT INTO wal
(lsn, txn, kind, collection, key, value, before, digests, seq, root, count, at, chain, note, records, total)
VALUES
(?1, ?1, 'BEGIN', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL),
(?1 + 1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
(?1 + 2, ?1, 'COMMIT', NULL, NULL, NULL, NULL, NULL, ?8, ?9, ?10, ?11, ?12, NULL, ?13, ?14)
"""
# For large bytes that are written into the row then.
_INSERT_EMPTY = """
INSERT INTO wal (lsn, txn, kind, collection, key, value, before)
VALUES (?1, ?2, ?3, ?4, ?5, iif(?6 IS NULL, NULL, zeroblob(?6)), iif(?7 IS NULL, NULL, zeroblob(?7)))
"""
INSERT_BEGIN = "INSERT INTO wal (lsn, txn, kind, note) VALUES (?1, ?1, 'BEGIN', ?2)"
ENDED: Final = (
    "SELECT txn FROM wal WHERE lsn > ? AND lsn <= ? AND session IS NOT NULL AND kind IN ('COMMIT', 'ROLLBACK')"
)
"""The staged transactions that were cut and are still there: those whose end is behind LogStart.removed, up to lsn."""
_STAGED_BEFORE = f"""
SELECT {COLUMNS} FROM wal WHERE lsn > ? AND lsn <= ? AND session IS NOT NULL AND txn NOT IN ({ENDED})
ORDER BY lsn LIMIT {ROWS_AT_ONCE}
"""
AFTER = f"SELECT {COLUMNS} FROM wal WHERE lsn > ? ORDER BY lsn"
_HEAD = "seq, root, count, at, chain"
_LAST = f"SELECT lsn, {_HEAD}, total FROM wal ORDER BY lsn DESC LIMIT 1"
_NEWEST = f"SELECT {_HEAD}, total FROM wal WHERE root IS NOT NULL ORDER BY lsn DESC LIMIT 1"
_COMMIT = f"""
SELECT lsn, {_HEAD}, records, total FROM wal WHERE seq = ? AND lsn > ? AND root IS NOT NULL ORDER BY lsn LIMIT 1
"""
_CLOSING = f"""
SELECT lsn, {_HEAD}, records, total FROM wal
WHERE lsn BETWEEN ? AND ? AND seq >= ? AND root IS NOT NULL ORDER BY lsn LIMIT ?
"""
# Records of a direct transaction are adjacent, and each names its BEGIN: one step skips them, however many they are.
_COMMIT_UP_TO = """
SELECT lsn, seq FROM wal WHERE typeof(seq) = 'integer' AND lsn > ?2 AND lsn <= min(?1, (
  SELECT iif(kind = 'COMMIT' OR session IS NOT NULL, lsn, txn - 1) FROM wal WHERE lsn <= ?1 ORDER BY lsn DESC LIMIT 1
)) ORDER BY lsn DESC LIMIT 1
"""
# SQLite sorts these numbers, and not the records, which could be larger than its memory.
OF_STAGED = "SELECT lsn FROM wal WHERE txn = ? AND session IS NOT NULL"
_END = "SELECT lsn FROM wal ORDER BY lsn DESC LIMIT 1"
_NEWEST_UP_TO = "SELECT lsn, txn, kind, session, seq FROM wal WHERE lsn <= ? ORDER BY lsn DESC LIMIT 1"
_MILESTONE = f"SELECT lsn FROM wal WHERE seq = ? AND seq % {fmt.MILESTONE} = 0 AND root IS NOT NULL"


def staged_digest_before(connection: Connection, txn: int) -> bytes | None:
    """Return the digest in the newest record of the staged transaction *txn*, None if the record has none."""
    # From the end backwards: by the index, SQLite would read all its records.
    digest: bytes | None = connection.value(
        "SELECT chain FROM wal WHERE +txn = ? AND lsn >= ? AND session IS NOT NULL ORDER BY lsn DESC LIMIT 1",
        (txn, txn),
    )
    return digest


def missing_behind(connection: Connection, lsn: int) -> int:
    """Return the LSN of the first missing record after the one with this LSN, 0 if none is missing.

    Records are numbered without holes (I5), behind those that were cut. Nothing else shows that the last records of a
    staged transaction were removed. Of very many records, the first ones are examined.
    """
    start = metadata.read_log_start(connection)
    lsn = lsn if start is None else max(lsn, start.lsn)
    rows = connection.rows("SELECT lsn FROM wal WHERE lsn > ? ORDER BY lsn LIMIT ?", (lsn, _LOOKED_AT))
    return next((expected for expected, (each,) in enumerate(rows, lsn + 1) if each != expected), 0)


def write(connection: Connection, record: Record) -> None:
    """Append a record, inside the caller's transaction."""
    connection.run(_INSERT, record)


def write_short(connection: Connection, lsn: int, change: ChangeRow, closing: Sequence[Any]) -> None:
    """Append BEGIN without a note, one change, and COMMIT of a direct transaction whose first LSN is *lsn*.

    *closing* is what a COMMIT record says of its commit: seq, root, count, at, chain, records, total.
    """
    *_, value, before, _ = change
    if len(value or "") + len(before or "") < KEPT_BYTES:
        connection.run(INSERT_SHORT, (lsn, *change, *closing))
        return
    connection.run(INSERT_BEGIN, (lsn, ""))
    write_change(connection, (lsn + 1, lsn, *change))
    connection.run(INSERT_COMMIT, (lsn + 2, lsn, None, *closing))


def write_change(connection: Connection, row: Sequence[Any]) -> None:
    """Append a PUT or DELETE record: LSN, that of BEGIN, and a ChangeRow. SQLite copies and keeps no large bytes."""
    *_, value, before, _ = row
    is_small = len(value or "") + len(before or "") < KEPT_BYTES
    if is_small or not {type(value), type(before)} <= _LARGE:
        connection.run(INSERT_CHANGE, row, keep=is_small)
        return
    sizes = [None if each is None else len(each) for each in (value, before)]
    connection.run(_INSERT_EMPTY, (*row[:5], *sizes))
    for column, content in (("value", value), ("before", before)):
        if type(content) is bytes and content:
            connection.write_blob("wal", column, row[0], content)


def last(connection: Connection, meta: Meta) -> tuple[int, Head]:
    """Return the greatest LSN in the log, 0 if it is empty, and the newest commit.

    Raises:
        Damaged: they are malformed.
    """
    return end(connection, meta)[:2]


def end(connection: Connection, meta: Meta) -> tuple[int, Head, int]:
    """Return what last() does, and the bytes of all records up to the newest commit, cut ones included.

    Raises:
        Damaged: as last().
    """
    row = connection.row(_LAST)
    lsn = 0 if row is None else row[0]
    if not is_number(lsn):
        raise Damaged.found(connection.path, f"a record has the number {lsn}, and 2^62 is the last", "I5")
    if row is None or row[2] is None:  # Only staged records come after the newest commit.
        newest = None if row is None else connection.row(_NEWEST)
        if newest is None:
            start = metadata.read_log_start(connection)
            if start is None:
                return lsn, head_zero(meta), 0
            return max(lsn, start.lsn), start.head, max(0, start.total)  # all commits were cut
        row = (lsn, *newest)
    total = row[6]
    if total is not None and not is_number(total):
        raw_rows.RECORDS["COMMIT"].only("lsn", "total").check((lsn, total), connection.path)
    return lsn, valid_head(connection, row[1:6]), total or 0


def size_of_change(raw: bytes, value: Stored | None, before: Stored | None) -> int:
    """Return about how many bytes of the file the record of a change takes; *raw* is name_bytes() of the entry."""
    size = CHANGE_BYTES + len(raw)
    for each in (value, before):
        if each is not None:
            size += len(each) if type(each) is not str or each.isascii() else len(each.encode())
    return size


def head_zero(meta: Meta) -> Head:
    """Return the head of a store without commits."""
    return Head(0, EMPTY_ROOT, 0, meta.created, chain_zero(meta.store_id))


def start(connection: Connection, meta: Meta) -> tuple[int, Head]:
    """Return the last record that was cut, 0 if none was, and its commit: behind them the log begins.

    Raises:
        Damaged: they are malformed.
    """
    found = metadata.read_log_start(connection)
    return (0, head_zero(meta)) if found is None else (found.lsn, found.head)


def check_kept(connection: Connection, after: int) -> None:
    """Raise unless all commits after number *after* are in the log.

    Raises:
        LogCut: the first of them was cut.
    """
    found = metadata.read_log_start(connection)
    if found is not None and after < found.head.seq:
        raise LogCut(connection.path, after + 1, found.head.seq + 1)


def head_of(connection: Connection, meta: Meta, seq: int) -> Head | None:
    """Return the newest commit that was cut, or a later one, by number: 0 if none was cut; None without that commit.

    Raises:
        LogCut: it was cut, and is not the newest of these.
    """
    head = start(connection, meta)[1]
    if seq < head.seq:
        raise LogCut(connection.path, seq, head.seq + 1)
    return head if seq == head.seq else commit(connection, seq)


def commit(connection: Connection, seq: int) -> Head | None:
    """Return commit *seq*, or None if it is not in the log. Cost: as a search in a sorted list."""
    row = _closing_record(connection, seq)
    return None if row is None else valid_head(connection, row[1:6])


def commits(connection: Connection, first: int) -> tuple[list[Head], int | None]:
    """Return the commits from number *first* on, in order, and the number to continue with; None at the end.

    Args:
        connection: inside a transaction, or not.
        first: -1 for the oldest that there is.

    Raises:
        LogCut: the first one was cut.
    """
    if first < 0:
        found = metadata.read_log_start(connection)
        first = 1 if found is None else found.head.seq + 1
    check_kept(connection, max(first, 1) - 1)
    heads = [valid_head(connection, row[1:6]) for row in closing(connection, first, ROWS_AT_ONCE)]
    return heads, heads[-1].seq + 1 if len(heads) == ROWS_AT_ONCE and heads[-1].seq >= first else None


def read(connection: Connection, after: int) -> tuple[list[Record], int | None]:
    """Return the records after LSN *after*, in order, and the LSN to continue after; None at the end."""
    start = metadata.read_log_start(connection)
    if start is not None and after < start.lsn:
        return _read_staged_before(connection, after, start)
    rows, cut = connection.chunk(f"{AFTER} LIMIT {ROWS_AT_ONCE}", (after,), BYTES_AT_ONCE, _weight)
    found = [valid_record(connection, row) for row in rows]
    return found, found[-1].lsn if cut or len(found) == ROWS_AT_ONCE else None


def _read_staged_before(connection: Connection, after: int, start: LogStart) -> tuple[list[Record], int]:
    """Return records of staged transactions that end behind the beginning of the log, as read() does."""
    values = after, start.lsn, start.removed, start.lsn
    rows, cut = connection.chunk(_STAGED_BEFORE, values, BYTES_AT_ONCE, _weight)
    found = [valid_record(connection, row) for row in rows]
    return found, found[-1].lsn if cut or len(found) == ROWS_AT_ONCE else start.lsn


def _weight(row: Row) -> int:
    return size_of(row[_VALUE]) + size_of(row[_BEFORE])


def read_staged(connection: Connection, txn: int) -> list[Record]:
    """Return the records of the staged transaction *txn*, in order."""
    sql = f"SELECT {COLUMNS} FROM wal WHERE lsn IN ({OF_STAGED}) ORDER BY lsn"
    return [valid_record(connection, row) for row in connection.rows(sql, (txn,))]


def read_begin(connection: Connection, txn: int) -> Record:
    """Return the BEGIN record of the transaction *txn*."""
    rows = connection.rows(f"SELECT {COLUMNS} FROM wal WHERE lsn = ? AND kind = 'BEGIN'", (txn,))
    if not rows:
        raise Damaged.found(connection.path, f"transaction {txn} has no BEGIN record", "I7")
    return valid_record(connection, rows[0])


def size_of_staged(connection: Connection, txn: int) -> int:
    """Return about how many bytes of the file the records of the staged transaction *txn* take."""
    sql = f"SELECT count(*) * {CHANGE_BYTES} + total(octet_length(value)) + total(octet_length(before)) FROM wal "
    return int(connection.value(f"{sql} WHERE txn = ? AND session IS NOT NULL", (txn,)))


def staged_value(connection: Connection, txn: int, collection: str, key: Key) -> Row | None:
    """Return (value,) of the newest record for an entry in the staged transaction, None without such a record."""
    sql = (
        f"SELECT {COLUMNS} FROM wal WHERE txn = ? AND session IS NOT NULL AND collection = ? AND key = ? "
        "ORDER BY lsn DESC LIMIT 1"
    )
    row = connection.row(sql, (txn, collection, key))
    return None if row is None else (_whole(connection, valid_record(connection, row)).value,)


def _whole(connection: Connection, record: Record) -> Record:
    """Return a record of a staged transaction that has not ended; Damaged if its values are digests (I7)."""
    if record.digests is not None:
        what = f"record {record.lsn} has a digest for a value, and its staged transaction has not ended"
        raise Damaged.found(connection.path, what, "I7")
    return record


def has(connection: Connection, lsn: int) -> bool:
    """Return True if there is a record with this LSN, or was one in a part of the log that was cut."""
    start = metadata.read_log_start(connection)
    there = start is not None and lsn <= start.lsn
    return there or connection.value("SELECT 1 FROM wal WHERE lsn = ?", (lsn,)) is not None


def commit_lsn(connection: Connection, seq: int) -> int:
    """Return the LSN of the record that closes commit *seq*, the newest that was cut included; 0 without one."""
    found = metadata.read_log_start(connection)
    if found is not None and found.head.seq == seq:
        return found.lsn
    row = _closing_record(connection, seq)
    return 0 if row is None else row[0]


def base_of(connection: Connection, lsn: int = fmt.INT_MAX) -> int:
    """Return the greatest LSN before the records that were written together with record *lsn*, or with the newest.

    The records of a commit and all its direct transactions are written together; each staged record alone.
    """
    row = connection.row(_NEWEST_UP_TO, (lsn,))
    if row is None:
        return 0
    lsn, txn, kind, session, seq = row
    while True:
        if not is_number(txn) or not 0 < txn <= lsn:
            what = f"record {lsn} is of transaction {raw_rows.quoted(txn)}, which cannot be one"
            raise Damaged.found(connection.path, what, "I5")
        base: int = (txn if kind == Kind.COMMIT and session is None else lsn) - 1
        row = connection.row(_NEWEST_UP_TO, (base,))
        # Records of one commit, or of one recovery, which rolls back all staged transactions of dead sessions.
        if kind not in (Kind.COMMIT, Kind.ROLLBACK) or row is None or (row[2], row[4]) != (kind, seq):
            return base
        lsn, txn, kind, session, _ = row


def ends_well(connection: Connection, records: int) -> bool:
    """Return True if the newest *records* have ascending LSNs and valid kinds."""
    rows = connection.rows("SELECT lsn, txn, kind FROM wal ORDER BY lsn DESC LIMIT ?", (records,))
    growing = all(later > earlier for (later, *_), (earlier, *_) in pairwise(rows))
    return growing and all(is_number(txn) and 0 < txn <= lsn and kind in _KINDS for lsn, txn, kind in rows)


def head_at(connection: Connection, meta: Meta, lsn: int) -> Head:
    """Return the newest commit whose records end at *lsn* or before, and at least the newest that was cut."""
    base, head = start(connection, meta)
    row = connection.row(
        f"SELECT {_HEAD} FROM wal WHERE root IS NOT NULL AND lsn <= ? AND lsn > ? ORDER BY lsn DESC LIMIT 1",
        (lsn, base),
    )
    return head if row is None else valid_head(connection, row)


def _closing_record(connection: Connection, seq: int) -> Row | None:
    """Return the LSN and the head of the record that closes commit *seq*, None if there is none."""
    found = metadata.read_log_start(connection)
    cut, lsn = (0, 0) if found is None else (found.head.seq, found.lsn)
    row = next(closing(connection, seq, 1, lsn), None) if seq > cut else None
    if row is None or row[1] == seq:
        return row
    return connection.row(_COMMIT, (seq, lsn))  # in a damaged log it may stand where nobody searches


def closing(connection: Connection, first: int, most: int, start: int | None = None) -> Iterator[Row]:
    """Yield the records that close commit *first* and those after it, *most* at most: LSN, head, records, total.

    Args:
        connection: inside a transaction, or not.
        first: number of a commit that was not cut.
        most: how many.
        start: the last record that was cut, if the caller knows it.

    Cost: one statement for many commits that have few records; some for each that has many, however many these are.
    """
    end = connection.value(_END) or 0
    if start is None:
        found = metadata.read_log_start(connection)
        start = 0 if found is None else found.lsn
    lsn, near, expected = max(_find(connection, first, end, start), start + 1), _NEAR, first
    while lsn <= end and most > 0:
        up_to = min(lsn + near, end)
        at_once = min(most, ROWS_AT_ONCE)
        rows = connection.rows(_CLOSING, (lsn, up_to, first, at_once))
        yield from rows
        most -= len(rows)
        expected += len(rows)
        lsn = rows[-1][0] + 1 if len(rows) == at_once else up_to + 1
        if not rows:
            next_one = _find(connection, expected, end, start)
            # Behind the newest commit there are staged records alone.
            lsn, near = (next_one, _NEAR) if next_one >= lsn else (lsn, end)


def _find(connection: Connection, seq: int, end: int, start: int) -> int:
    """Return the LSN of the last COMMIT record up to *end* that is of commit *seq* or one before.

    If the log is as it must be, that record closes commit *seq*, if that is there. *start* is returned without one.
    """
    milestone = seq - seq % fmt.MILESTONE
    found = low = max(connection.value(_MILESTONE, (milestone,)) or 0, start)
    high = connection.value(_MILESTONE, (min(milestone + fmt.MILESTONE, fmt.INT_MAX),)) or end
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.row(_COMMIT_UP_TO, (middle, low))
        if row is None or row[1] <= seq:
            low = middle
            found = row[0] if row else found
        else:
            high = row[0] - 1
    return found


def valid_head(connection: Connection, row: Row) -> Head:
    """Return the head of a row (seq, root, count, at, chain); Damaged if a field is invalid."""
    raw_rows.HEAD.check(row, connection.path)
    return Head(*row)


def valid_record(connection: Connection, row: Row) -> Record:
    """Return the record of a row with COLUMNS; Damaged if a field is invalid."""
    table = raw_rows.record_table(row[2], row[_DIGESTS])
    if table is None:
        what = f"record {row[0]} is of the unknown kind {raw_rows.quoted(row[2])}"
        raise Damaged.found(connection.path, what, "I7")
    table.check(row, connection.path)
    record = Record._make((*row[:2], _KINDS[row[2]], *row[3:]))
    if record.root is not None:
        valid_head(connection, (record.seq, record.root, record.count, record.at, record.chain))
    return record
