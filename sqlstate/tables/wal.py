"""The table wal: the write-ahead log (docs/reference/file-format.md, section 3.4).

Records, and the bytes by which they are hashed, are defined in `format.records`.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT
from sqlstate.format.records import Head, Kind, Record, chain_next, chain_zero, record_bytes
from sqlstate.sqlite.connection import KEPT_BYTES, size_of
from sqlstate.tables import raw_rows
from sqlstate.tables.raw_rows import is_digest, is_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.format.names import Key, Stored
    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import Meta


_KINDS = {str(kind): kind for kind in Kind}
ROWS_AT_ONCE = 256
TRANSACTION_BYTES: Final = 200  # of the file, about, that its BEGIN and COMMIT take
CHANGE_BYTES: Final = 24  # that a PUT or DELETE takes besides name and values
_LOOKED_AT = 10_000
_NEAR = 512  # records that are read sooner than searched
BYTES_AT_ONCE = 1 << 20
_VALUE, _BEFORE, _DIGESTS = map(Record._fields.index, ("value", "before", "digests"))
_LARGE: Final = {bytes, type(None)}  # of what SQLite's rows can be written piece by piece

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
_AFTER = f"SELECT {COLUMNS} FROM wal WHERE lsn > ? ORDER BY lsn"
_HEAD = "seq, root, count, at, chain"
_LAST = f"SELECT lsn, {_HEAD}, total FROM wal ORDER BY lsn DESC LIMIT 1"
_NEWEST = f"SELECT {_HEAD}, total FROM wal WHERE root IS NOT NULL ORDER BY lsn DESC LIMIT 1"
_COMMIT = f"SELECT lsn, {_HEAD} FROM wal WHERE seq = ? AND root IS NOT NULL ORDER BY lsn LIMIT 1"
_CLOSING = f"""
SELECT lsn, {_HEAD} FROM wal WHERE lsn BETWEEN ? AND ? AND seq >= ? AND root IS NOT NULL ORDER BY lsn LIMIT ?
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

    Records are numbered without holes (I5). Nothing else shows that the last records of a staged transaction were
    removed. Of very many records, the first ones are examined.
    """
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
    if row is None:
        return 0, head_zero(meta), 0
    lsn = row[0]
    if not is_number(lsn):
        raise Damaged.found(connection.path, f"a record has the number {lsn}, and 2^62 is the last", "I5")
    if row[2] is None:  # Only staged records come after the newest commit.
        newest = connection.row(_NEWEST)
        if newest is None:
            return lsn, head_zero(meta), 0
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


def commit(connection: Connection, seq: int) -> Head | None:
    """Return commit *seq*, or None if there is no such commit. Cost: as a search in a sorted list."""
    row = _closing_record(connection, seq)
    return None if row is None else valid_head(connection, row[1:])


def commits(connection: Connection, first: int) -> tuple[list[Head], int | None]:
    """Return the commits from number *first* on, in order, and the number to continue with; None at the end."""
    found = [valid_head(connection, row[1:]) for row in _closing(connection, first, ROWS_AT_ONCE)]
    return found, found[-1].seq + 1 if len(found) == ROWS_AT_ONCE and found[-1].seq >= first else None


def read(connection: Connection, after: int) -> tuple[list[Record], int | None]:
    """Return the records after LSN *after*, in order, and the LSN to continue after; None at the end."""
    rows, cut = connection.chunk(f"{_AFTER} LIMIT {ROWS_AT_ONCE}", (after,), BYTES_AT_ONCE, _weight)
    found = [valid_record(connection, row) for row in rows]
    return found, found[-1].lsn if cut or len(found) == ROWS_AT_ONCE else None


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
    """Return True if there is a record with this LSN."""
    return connection.value("SELECT 1 FROM wal WHERE lsn = ?", (lsn,)) is not None


def commit_lsn(connection: Connection, seq: int) -> int:
    """Return the LSN of the record that closes commit *seq*, 0 if there is no such commit."""
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
    """Return the newest commit whose records end at *lsn* or before."""
    row = connection.row(
        f"SELECT {_HEAD} FROM wal WHERE root IS NOT NULL AND lsn <= ? ORDER BY lsn DESC LIMIT 1", (lsn,)
    )
    return head_zero(meta) if row is None else valid_head(connection, row)


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
            said = valid_head(connection, row[8:13])
            facts = (head.seq + 1, said.root, said.count, said.at)
            digest = sha256(b"".join(parts)).digest()
            yield said, Head(*facts, chain_next(head.chain, facts, digest)), changes
            parts, changes, head = [], [], said


def records_digest(connection: Connection, seq: int) -> bytes:
    """Return H(records) of commit *seq*, which its chain digest covers; b"" if there is none.

    Cost: a pass over the commit's records, if a program made it that did not know format 4.
    """
    last = commit_lsn(connection, seq)
    kept = connection.value("SELECT records FROM wal WHERE lsn = ?", (last,))
    if is_digest(kept):
        return bytes(kept)
    digest, parts = sha256(), []
    rows = _committed(connection, base_of(connection, last)) if last else ()
    for number, (row, body) in enumerate(rows, 1):
        parts.append(body)
        if row[0] == last or not number % ROWS_AT_ONCE:
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
    for row in _closing(connection, first, stop - first):
        if row[1] != expected or not is_digest(row[-1]):
            break
        yield row[-1]
        expected += 1
    if expected < stop:
        raise Damaged.found(connection.path, f"commit {expected} is missing from the log or malformed", "I4")


def _committed(connection: Connection, base: int) -> Iterator[tuple[Row, bytes]]:
    """Yield the records after *base*, and their canonical bytes, in the order in which commits hash them.

    Staged ones come where they are committed.
    """
    rolled_back: list[Record] = []
    for row in connection.iterate(_AFTER, (base,)):
        body = raw_rows.direct_change_bytes(row)
        if body is not None:
            yield row, body
            continue
        record = valid_record(connection, row)
        if record.kind is Kind.COMMIT:
            staged = [] if record.session is None else read_staged(connection, record.txn)
            for each in (*rolled_back, *(each for each in staged if each.kind is Kind.ROLLBACK)):
                what = f"record {each.lsn} rolls transaction {each.txn} back, and record {record.lsn} commits it"
                raise Damaged.found(connection.path, what, "I7")
            yield from ((each, record_bytes(each)) for each in staged or [record])
        elif record.session is None and record.kind is Kind.ROLLBACK:
            rolled_back = [record]
        elif record.session is None:
            yield record, record_bytes(record)


def wrong_index(connection: Connection) -> str:
    """Return the name of an index with a wrong number of records, "" if all are right.

    SQLite's own check (3.54) does not count the entries of a partial index.
    """
    there = {name for _, name, *_ in connection.rows("PRAGMA index_list(wal)")}
    for index, part in _PARTS.items():
        if index not in there:  # the schema's comparison tells
            continue
        through, without = (
            connection.value(f"SELECT count(*) FROM wal {how} WHERE {part}")
            for how in (f"INDEXED BY {index}", "NOT INDEXED")
        )
        if through != without:
            return index
    return ""


_PARTS: Final = {"wal_milestones": "seq % 64 = 0 AND root IS NOT NULL", "wal_staged": "session IS NOT NULL"}


def size(connection: Connection) -> int:
    """Return the number of records, counted."""
    found: int = connection.value("SELECT count(*) FROM wal")
    return found


def numbers(connection: Connection) -> int:
    """Return how many records there are, of their numbers alone: those that a repair removed count as well."""
    found: int = connection.value("SELECT ifnull((SELECT max(lsn) FROM wal) - (SELECT min(lsn) FROM wal) + 1, 0)")
    return found


def rows(connection: Connection) -> Iterator[Row]:
    """Yield every row in order, whatever is in it; Damaged for text that is not UTF-8."""
    return connection.iterate(f"SELECT {COLUMNS} FROM wal ORDER BY lsn")


def _closing_record(connection: Connection, seq: int) -> Row | None:
    """Return the LSN and the head of the record that closes commit *seq*, None if there is none."""
    row = next(_closing(connection, seq, 1), None)
    if row is None or row[1] == seq:
        return row
    return connection.row(_COMMIT, (seq,))  # in a damaged log it may stand where nobody searches


def _closing(connection: Connection, first: int, most: int) -> Iterator[Row]:
    """Yield the LSN and the head of the records that close commit *first* and those after it, *most* at most.

    Cost: one statement for many commits that have few records; some for each that has many, however many these are.
    """
    end = connection.value(_END) or 0
    lsn, near, expected = _find(connection, first, end), _NEAR, first
    while lsn <= end and most > 0:
        up_to = min(lsn + near, end)
        at_once = min(most, ROWS_AT_ONCE)
        rows = connection.rows(_CLOSING, (lsn, up_to, first, at_once))
        yield from rows
        most -= len(rows)
        expected += len(rows)
        lsn = rows[-1][0] + 1 if len(rows) == at_once else up_to + 1
        if not rows:
            found = _find(connection, expected, end)
            # Behind the newest commit there are staged records alone.
            lsn, near = (found, _NEAR) if found >= lsn else (lsn, end)


def _find(connection: Connection, seq: int, end: int) -> int:
    """Return the LSN of the last COMMIT record up to *end* that is of commit *seq* or one before, 0 without one.

    If the log is as it must be, that record closes commit *seq*, if that is there.
    """
    milestone = seq - seq % fmt.MILESTONE
    found = low = connection.value(_MILESTONE, (milestone,)) or 0
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


def seq_of(connection: Connection, root: bytes) -> int | None:
    """Return the number of the newest commit with this root, None if there is no such commit."""
    sql = "SELECT seq FROM wal WHERE root = ? ORDER BY lsn DESC LIMIT 1"
    seq: int | None = connection.value(sql, (root,))
    return seq
