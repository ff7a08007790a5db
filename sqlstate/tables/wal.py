"""The tables wal and staged: the write-ahead log (docs/reference/file-format.md, sections 3.4 to 3.5, 7 and 8).

This module knows the records and their SQL. What a commit is made of is `commit`'s matter.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, leaf
from sqlstate.format.names import Key, Stored, name_bytes, stored_name
from sqlstate.sqlite.connection import size_of
from sqlstate.tables import raw_rows, verbatim
from sqlstate.tables.raw_rows import is_digest, is_entry_name, is_number, is_stored, is_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import Meta


class Kind(StrEnum):
    """What a record says."""

    BEGIN = "BEGIN"
    PUT = "PUT"
    DELETE = "DELETE"
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"


class Head(NamedTuple):
    """One commit, or the state before the first."""

    seq: int
    """Number of the commit, from 1 without holes; 0 before the first."""
    root: bytes
    """Root of the Merkle tree, 32 bytes."""
    count: int  # type: ignore[assignment]  # hides tuple.count, which no commit needs
    """Number of entries in the store."""
    at: str
    """When it was committed: ISO 8601, UTC, microseconds."""
    chain: bytes
    """Digest of the commit chain, 32 bytes: it depends on every commit before this one."""

    def __repr__(self) -> str:
        digests = f"root={self.root.hex()}, count={self.count}, at={self.at!r}, chain={self.chain.hex()}"
        return f"Head(seq={self.seq}, {digests})"


class Record(NamedTuple):
    """One record of the log; the fields are those of section 3.4, values as they are stored."""

    lsn: int
    txn: int
    kind: Kind
    session: bytes | None = None
    collection: str | None = None
    key: Key | None = None
    value: Stored | None = None
    before: Stored | None = None
    seq: int | None = None
    root: bytes | None = None
    count: int | None = None  # type: ignore[assignment]  # as in Head
    at: str | None = None
    chain: bytes | None = None
    note: str | None = None


_KINDS = frozenset(Kind)
ROWS_AT_ONCE = 256
_LOOKED_AT = 10_000
BYTES_AT_ONCE = 1 << 20
_VALUE, _BEFORE = Record._fields.index("value"), Record._fields.index("before")

# kind, collection, key, value, before
ChangeRow = tuple[Kind, str, Key, Stored | None, Stored | None]

_COLUMNS = ", ".join(Record._fields)
_INSERT = f"INSERT INTO wal ({_COLUMNS}) VALUES ({', '.join('?' * len(Record._fields))})"
_INSERT_CHANGE = "INSERT INTO wal (lsn, txn, kind, collection, key, value, before) VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_COMMIT = (
    "INSERT INTO wal (lsn, txn, kind, session, seq, root, count, at, chain) VALUES (?, ?, 'COMMIT', ?, ?, ?, ?, ?, ?)"
)
# BEGIN, one change and COMMIT in one statement: 5 µs instead of 8 for the most frequent commit of all.
_INSERT_SHORT = """
INSERT INTO wal (lsn, txn, kind, collection, key, value, before, seq, root, count, at, chain, note) VALUES
(?1, ?1, 'BEGIN', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ''),
(?1 + 1, ?1, ?2, ?3, ?4, ?5, ?6, NULL, NULL, NULL, NULL, NULL, NULL),
(?1 + 2, ?1, 'COMMIT', NULL, NULL, NULL, NULL, ?7, ?8, ?9, ?10, ?11, NULL)
"""
_INSERT_BEGIN = "INSERT INTO wal (lsn, txn, kind, note) VALUES (?1, ?1, 'BEGIN', ?2)"
_HEAD = "seq, root, count, at, chain"
_LAST = f"SELECT lsn, {_HEAD} FROM wal ORDER BY lsn DESC LIMIT 1"
_NEWEST = f"SELECT {_HEAD} FROM wal WHERE root IS NOT NULL ORDER BY lsn DESC LIMIT 1"
_COMMIT = f"SELECT {_HEAD} FROM wal WHERE lsn >= ? AND seq = ? AND root IS NOT NULL ORDER BY lsn LIMIT 1"
_COMMITS = f"SELECT {_HEAD} FROM wal WHERE lsn >= ? AND seq >= ? AND root IS NOT NULL ORDER BY lsn LIMIT ?"
_CHAINS = "SELECT seq, chain FROM wal WHERE lsn >= ? AND seq >= ? AND root IS NOT NULL ORDER BY lsn LIMIT ?"
_NEWEST_UP_TO = "SELECT lsn, txn, kind, session, seq FROM wal WHERE lsn <= ? ORDER BY lsn DESC LIMIT 1"
_MILESTONE = f"SELECT lsn FROM wal WHERE seq = ? AND seq % {fmt.MILESTONE} = 0 AND root IS NOT NULL"


def chain_zero(store_id: bytes) -> bytes:
    """Return the chain's digest before the first commit."""
    return sha256(fmt.TAG_CHAIN + store_id).digest()


def chain_next(chain: bytes, head: tuple[int, bytes, int, str], records_digest: bytes) -> bytes:
    """Return the chain's digest after a commit with (seq, root, count, at) of *head* (I6)."""
    seq, root, count, at = head
    time = at.encode()
    link = _LINK.pack(fmt.TAG_CHAIN, chain, seq, root, count, len(time)) + time + records_digest
    return sha256(link).digest()


_LINK = Struct(">c32sQ32sQI")
_BEGIN = Struct(">QQcI")
_SHORT = Struct(">QQcII QQcI32s32s QQc")
_CHANGE = Struct(">QQc")


def begin_bytes(lsn: int, note: str, at: str | None) -> bytes:
    """Return the canonical bytes of a BEGIN record."""
    text, time = note.encode(), (at or "").encode()
    return _BEGIN.pack(lsn, lsn, fmt.RECORD_BEGIN, len(text)) + text + len(time).to_bytes(4) + time


def change_bytes(lsn: int, txn: int, before: bytes | None, after: bytes | None) -> bytes:
    """Return the canonical bytes of a PUT or DELETE record, from the leaves before and after."""
    if after is None:
        return _CHANGE.pack(lsn, txn, fmt.RECORD_DELETE) + (before or b"")
    if before is None:
        return _CHANGE.pack(lsn, txn, fmt.RECORD_PUT) + b"\0\0\0\0" + after
    return _CHANGE.pack(lsn, txn, fmt.RECORD_PUT) + b"\0\0\0\x20" + before + after


def commit_bytes(lsn: int, txn: int) -> bytes:
    """Return the canonical bytes of a COMMIT record."""
    return _CHANGE.pack(lsn, txn, fmt.RECORD_COMMIT)


def short_bytes(lsn: int, before: bytes | None, after: bytes) -> bytes:
    """Return the canonical bytes of write_short()'s records for a PUT, from the leaves before and after."""
    if before is None:
        return begin_bytes(lsn, "", None) + change_bytes(lsn + 1, lsn, None, after) + commit_bytes(lsn + 2, lsn)
    return _SHORT.pack(
        lsn, lsn, fmt.RECORD_BEGIN, 0, 0,
        lsn + 1, lsn, fmt.RECORD_PUT, fmt.DIGEST_BYTES, before, after,
        lsn + 2, lsn, fmt.RECORD_COMMIT,
    )  # fmt: skip


def record_bytes(record: Record) -> bytes:
    """Return the canonical bytes of any record that belongs to a commit."""
    if record.kind == Kind.BEGIN:
        return begin_bytes(record.lsn, record.note or "", record.at)
    if record.kind == Kind.COMMIT:
        return commit_bytes(record.lsn, record.txn)
    assert record.collection is not None and record.key is not None  # noqa: S101, PT018, for the type checker
    name = name_bytes(stored_name(record.collection, record.key))
    before = None if record.before is None else leaf(name, record.before)
    after = None if record.value is None else leaf(name, record.value)
    return change_bytes(record.lsn, record.txn, before, after)


def has_bytes(row: Row) -> bool:
    """Tell whether a row of the table, whatever is in it, has canonical bytes: those that it is hashed by."""
    record = Record(*row)
    if not (is_number(record.lsn) and is_number(record.txn)):
        return False
    if record.kind == Kind.BEGIN:
        return all(part is None or is_text(part) for part in (record.note, record.at))
    if record.kind in (Kind.PUT, Kind.DELETE):
        values = record.value, record.before
        return is_entry_name(record.collection, record.key) and all(v is None or is_stored(v) for v in values)
    return record.kind == Kind.COMMIT


def canonical(row: Row) -> bytes | None:
    """Return the canonical bytes of a row of the table, whatever is in it; None if it has none."""
    return record_bytes(Record(*row)) if has_bytes(row) else None


def chain_or_none(chain: Any, head: tuple[Any, Any, Any, Any], records_digest: bytes) -> bytes | None:
    """Return the chain's digest as chain_next() does, of what may be no chain and no head; None if it is none."""
    seq, root, count, at = head
    if is_digest(chain) and is_number(seq) and is_digest(root) and is_number(count) and is_text(at):
        return chain_next(chain, head, records_digest)
    return None


def staged_digest(before: bytes, session: bytes | None, body: bytes) -> bytes:
    """Return the digest of a staged BEGIN, PUT or DELETE record, from that of the one before and its bytes (I14)."""
    return sha256(fmt.TAG_STAGED + before + (session or b"") + body).digest()


def sealed(connection: Connection, record: Record) -> Record:
    """Return a record that is about to be appended to its staged transaction, with its digest (I14).

    Where the transaction was begun without digests, by an older version, it goes on without.
    """
    before: bytes | None = fmt.STAGED_ZERO
    if record.kind is not Kind.BEGIN:
        # From the end on: by the index, all its records would be looked at.
        before = connection.value(
            "SELECT chain FROM wal WHERE +txn = ? AND lsn >= ? AND session IS NOT NULL ORDER BY lsn DESC LIMIT 1",
            (record.txn, record.txn),
        )
    return (
        record if before is None else record._replace(chain=staged_digest(before, record.session, record_bytes(record)))
    )


def check_staged(connection: Connection, records: list[Record]) -> None:
    """Check that the *records* of a staged transaction that has not ended are what was written (I14).

    Raises:
        Damaged: one is not, or is missing.
    """
    digest = fmt.STAGED_ZERO
    for record in records:
        if record.chain is None and records[0].chain is None:
            continue
        digest = staged_digest(digest, record.session, record_bytes(record))
        if record.chain != digest:
            raise _unlike_written(connection, records[0].txn, f"record {record.lsn}, or one before it,")
    missing = missing_behind(connection, records[-1].lsn) if digest != fmt.STAGED_ZERO else 0
    if missing:
        raise _unlike_written(connection, records[0].txn, f"record {missing} is missing. If it is one of it, the end")


def missing_behind(connection: Connection, lsn: int) -> int:
    """Return the LSN of the first record that is missing behind the one with this LSN, 0 if none is.

    All are numbered one after the other (I5). Of records at the end of a staged transaction, nothing else tells that
    they were there. Of very many, the first ones are looked at.
    """
    rows = connection.rows("SELECT lsn FROM wal WHERE lsn > ? ORDER BY lsn LIMIT ?", (lsn, _LOOKED_AT))
    return next((expected for expected, (each,) in enumerate(rows, lsn + 1) if each != expected), 0)


def _unlike_written(connection: Connection, txn: int, what: str) -> Damaged:
    return Damaged(
        f"I14: {connection.path}: {what} of staged transaction {txn} is not what was written. Nothing of it was "
        "committed. Look at it with store.wal.uncommitted(), and end it with rollback()"
    )


def write(connection: Connection, record: Record) -> None:
    """Append a record, inside the caller's transaction."""
    connection.run(_INSERT, record)


class Tail:
    """The newest records of a commit in the making, in order, that are not in the table yet.

    Of several transactions, only the last one's COMMIT record carries the head. Which one that is comes out at the
    end, so the newest COMMIT record is kept back until another follows it.

    Args:
        seq: number of the commit.
    """

    __slots__ = ("_closing", "_no_head", "_rows")

    def __init__(self, seq: int) -> None:
        self._no_head = (seq, None, None, None, None)
        self._rows: list[tuple[str, list[Sequence[Any]]]] = []  # a statement, and what it is run with
        self._closing: tuple[str, tuple[Any, ...]] | None = None  # the newest COMMIT record, without its head

    @property
    def closing(self) -> tuple[str, tuple[Any, ...]] | None:
        """The COMMIT record that is kept back, to be given to reset()."""
        return self._closing

    def begin(self, lsn: int, note: str) -> None:
        """Add the BEGIN record of a direct transaction."""
        self._add(_INSERT_BEGIN, (lsn, note))

    def changes(self, lsn: int, txn: int, changes: Iterable[ChangeRow]) -> None:
        """Add PUT and DELETE records of a direct transaction, numbered from *lsn* on."""
        self._let_go()
        rows: list[Sequence[Any]] = [(each, txn, *change) for each, change in enumerate(changes, lsn)]
        self._rows.append((_INSERT_CHANGE, rows))

    def commit(self, lsn: int, txn: int, session: bytes | None) -> None:
        """Add the COMMIT record of a transaction."""
        self._let_go()
        self._closing = _INSERT_COMMIT, (lsn, txn, session)

    def short(self, lsn: int, change: ChangeRow) -> None:
        """Add BEGIN without a note, one change, and COMMIT of a direct transaction whose first LSN is *lsn*."""
        self._let_go()
        self._closing = _INSERT_SHORT, (lsn, *change)

    def reset(self, closing: tuple[str, tuple[Any, ...]] | None) -> None:
        """Forget all, and keep *closing* back as before."""
        self._rows.clear()
        self._closing = closing

    def write(self, connection: Connection, head: Head | None = None) -> None:
        """Append them to the table, inside the caller's transaction; with *head*, the last record too, closing it."""
        if head is not None and self._closing is not None:
            sql, row = self._closing
            self._closing = None
            self._add(sql, row + head)
        for sql, rows in self._rows:
            if len(rows) == 1:
                connection.run(sql, rows[0])
            else:
                connection.run_many(sql, rows)
        self._rows.clear()

    def _let_go(self) -> None:
        if self._closing is not None:
            sql, row = self._closing
            self._closing = None
            self._add(sql, row + self._no_head)

    def _add(self, sql: str, row: Sequence[Any]) -> None:
        self._let_go()
        if self._rows and self._rows[-1][0] is sql:
            self._rows[-1][1].append(row)
        else:
            self._rows.append((sql, [row]))


def write_short(connection: Connection, lsn: int, change: ChangeRow, head: Head) -> None:
    """Append BEGIN without a note, one change, and COMMIT of a direct transaction whose first LSN is *lsn*."""
    connection.run(_INSERT_SHORT, (lsn, *change, *head))


def last(connection: Connection, meta: Meta) -> tuple[int, Head]:
    """Return the greatest LSN in the log, 0 if it is empty, and the newest commit.

    Raises:
        Damaged: they are none.
    """
    row = connection.row(_LAST)
    if row is None:
        return 0, head_zero(meta)
    if not is_number(row[0]):
        raise Damaged(
            f"I5: {connection.path}: a record has the number {row[0]}, and 2^62 is the last; restore a backup"
        )
    if row[2] is not None:
        return row[0], _head(connection, row[1:])
    # Only staged records come after the newest commit.
    newest = connection.row(_NEWEST)
    return row[0], head_zero(meta) if newest is None else _head(connection, newest)


def head_zero(meta: Meta) -> Head:
    """Return the head of a store without commits."""
    return Head(0, EMPTY_ROOT, 0, meta.created, chain_zero(meta.store_id))


def commit(connection: Connection, seq: int) -> Head | None:
    """Return commit *seq*, or None if there is none."""
    row = connection.row(_COMMIT, (_milestone(connection, seq), seq))
    return None if row is None else _head(connection, row)


def commits(connection: Connection, first: int) -> tuple[list[Head], int | None]:
    """Return the commits from number *first* on, in order, and the number to go on with; None if there are no more."""
    rows = connection.rows(_COMMITS, (_milestone(connection, first), first, ROWS_AT_ONCE))
    found = [_head(connection, row) for row in rows]
    return found, found[-1].seq + 1 if len(found) == ROWS_AT_ONCE and found[-1].seq >= first else None


def read(connection: Connection, after: int) -> tuple[list[Record], int | None]:
    """Return the records behind LSN *after*, in order, and the LSN to go on behind; None if there are no more."""
    sql = f"SELECT {_COLUMNS} FROM wal WHERE lsn > ? ORDER BY lsn LIMIT {ROWS_AT_ONCE}"
    rows, cut = connection.chunk(sql, (after,), BYTES_AT_ONCE, _weight)
    found = [_record(connection, row) for row in rows]
    return found, found[-1].lsn if cut or len(found) == ROWS_AT_ONCE else None


def _weight(row: Row) -> int:
    return size_of(row[_VALUE]) + size_of(row[_BEFORE])


def _records(connection: Connection, after: int) -> Iterator[Record]:
    for row in connection.iterate(f"SELECT {_COLUMNS} FROM wal WHERE lsn > ? ORDER BY lsn", (after,)):
        yield _record(connection, row)


def read_staged(connection: Connection, txn: int) -> list[Record]:
    """Return the records of the staged transaction *txn*, in order."""
    sql = f"SELECT {_COLUMNS} FROM wal WHERE txn = ? AND session IS NOT NULL ORDER BY lsn"
    return [_record(connection, row) for row in connection.rows(sql, (txn,))]


def read_begin(connection: Connection, txn: int) -> Record:
    """Return the BEGIN record of the transaction *txn*."""
    rows = connection.rows(f"SELECT {_COLUMNS} FROM wal WHERE lsn = ? AND kind = 'BEGIN'", (txn,))
    if not rows:
        raise Damaged(f"I7: {connection.path}: transaction {txn} has no BEGIN record; restore a backup")
    return _record(connection, rows[0])


def open_staged(connection: Connection) -> list[int]:
    """Return the numbers of the staged transactions that have not ended, in order."""
    return [txn for txn, _ in sessions(connection)]


def staged_session(connection: Connection, txn: int) -> bytes | None:
    """Return the session of the staged transaction *txn*, or None if there is none that has not ended."""
    row = connection.row("SELECT txn, session FROM staged WHERE txn = ?", (txn,))
    if row is None:
        return None
    raw_rows.STAGED.check(row, connection.path)
    session: bytes = row[1]
    return session


def staged_value(connection: Connection, txn: int, collection: str, key: Key) -> Row | None:
    """Return (value,) of the newest record of the staged transaction for an entry, None if it has none."""
    sql = (
        f"SELECT {_COLUMNS} FROM wal WHERE txn = ? AND session IS NOT NULL AND collection = ? AND key = ? "
        "ORDER BY lsn DESC LIMIT 1"
    )
    row = connection.row(sql, (txn, collection, key))
    return None if row is None else (_record(connection, row).value,)


def set_staged(connection: Connection, txn: int, session: bytes) -> None:
    """Note that *txn* is staged and has not ended (I9)."""
    connection.run("INSERT INTO staged (txn, session) VALUES (?, ?)", (txn, session))


def clear_staged(connection: Connection, txn: int) -> None:
    """Note that the staged transaction *txn* has ended (I9)."""
    connection.run("DELETE FROM staged WHERE txn = ?", (txn,))


def set_session(connection: Connection, txn: int, session: bytes) -> None:
    """Note that *session* goes on with the staged transaction *txn*."""
    connection.run("UPDATE staged SET session = ? WHERE txn = ?", (session, txn))


def sessions(connection: Connection) -> list[tuple[int, bytes]]:
    """Return (txn, session) of the staged transactions that have not ended, in order."""
    rows = connection.rows("SELECT txn, session FROM staged ORDER BY txn")
    for row in rows:
        raw_rows.STAGED.check(row, connection.path)
    return [(txn, session) for txn, session in rows]


def has(connection: Connection, lsn: int) -> bool:
    """Tell whether there is a record with this LSN."""
    return connection.value("SELECT 1 FROM wal WHERE lsn = ?", (lsn,)) is not None


def commit_lsn(connection: Connection, seq: int) -> int:
    """Return the LSN of the record that closes commit *seq*, 0 if there is none."""
    lsn = connection.value(
        "SELECT lsn FROM wal WHERE lsn >= ? AND seq = ? AND root IS NOT NULL ORDER BY lsn LIMIT 1",
        (_milestone(connection, seq), seq),
    )
    return lsn or 0


def base_of(connection: Connection, lsn: int = fmt.INT_MAX) -> int:
    """Return the LSN that was the greatest before the record *lsn*, or the newest, was written with its like.

    Those of a commit, with all its direct transactions, are written together; each of a staged one alone.
    """
    row = connection.row(_NEWEST_UP_TO, (lsn,))
    if row is None:
        return 0
    lsn, txn, kind, session, seq = row
    while True:
        if not is_number(txn) or not 0 < txn <= lsn:
            what = f"record {lsn} is of transaction {raw_rows.shown(txn)}, which is none"
            raise Damaged(f"I5: {connection.path}: {what}; restore a backup")
        base: int = (txn if kind == Kind.COMMIT and session is None else lsn) - 1
        row = connection.row(_NEWEST_UP_TO, (base,))
        # Of one commit, or of one recovery, which rolls back all that the dead staged.
        if kind not in (Kind.COMMIT, Kind.ROLLBACK) or row is None or (row[2], row[4]) != (kind, seq):
            return base
        lsn, txn, kind, session, _ = row


def ends_well(connection: Connection, records: int) -> bool:
    """Tell whether the newest *records* have growing numbers, and kinds that there are."""
    rows = connection.rows("SELECT lsn, txn, kind FROM wal ORDER BY lsn DESC LIMIT ?", (records,))
    growing = all(later > earlier for (later, *_), (earlier, *_) in pairwise(rows))
    return growing and all(is_number(txn) and 0 < txn <= lsn and kind in _KINDS for lsn, txn, kind in rows)


def head_at(connection: Connection, meta: Meta, lsn: int) -> Head:
    """Return the newest commit whose records end at *lsn* or before."""
    row = connection.row(
        f"SELECT {_HEAD} FROM wal WHERE root IS NOT NULL AND lsn <= ? ORDER BY lsn DESC LIMIT 1", (lsn,)
    )
    return head_zero(meta) if row is None else _head(connection, row)


def relink(connection: Connection, base: int, head: Head) -> Iterator[tuple[Head, Head, list[Record]]]:
    """Follow the chain over the commits whose records come after *base*, from *head*, the newest before.

    Yields each commit as it is recorded, as it follows from its records and the one before (I4, I6), and its
    PUT and DELETE records.
    """
    for said, digest, changes in _closed(connection, base):
        facts = (head.seq + 1, said.root, said.count, said.at)
        yield said, Head(*facts, chain_next(head.chain, facts, digest)), changes
        head = said


def records_digest(connection: Connection, seq: int) -> bytes:
    """Return H(records) of commit *seq*, of which its chain is made; nothing if there is no such commit."""
    base = base_of(connection, commit_lsn(connection, seq))
    return next((digest for said, digest, _ in _closed(connection, base) if said.seq == seq), b"")


def chains(connection: Connection, first: int, stop: int) -> Iterator[bytes]:
    """Yield the chains of the commits [first, stop), which must all be there.

    Raises:
        Damaged: one of them is not, or has no chain.
    """
    expected = first
    if first < stop:
        for seq, chain in connection.iterate(_CHAINS, (_milestone(connection, first), first, stop - first)):
            if seq != expected or not is_digest(chain):
                break
            yield chain
            expected += 1
    if expected < stop:
        raise Damaged(f"I4: {connection.path}: commit {expected} is not in the log as it must be; restore a backup")


def _closed(connection: Connection, base: int) -> Iterator[tuple[Head, bytes, list[Record]]]:
    """Yield the commits whose records come after *base*: as recorded, H(records), and PUT and DELETE records."""
    parts: list[bytes] = []
    changes: list[Record] = []
    direct: list[Record] = []
    for record in _records(connection, base):
        if record.session is not None and record.kind is not Kind.COMMIT:
            continue
        direct.append(record)
        if record.kind is not Kind.COMMIT:
            continue
        if record.session is not None:
            direct = read_staged(connection, record.txn)
        for each in direct:
            if each.kind is Kind.ROLLBACK:
                what = f"record {each.lsn} rolls transaction {each.txn} back, and record {record.lsn} commits it"
                raise Damaged(f"I7: {connection.path}: {what}; restore a backup")
        parts += map(record_bytes, direct)
        changes += [each for each in direct if each.kind in (Kind.PUT, Kind.DELETE)]
        direct = []
        if record.root is None:
            continue
        said = _head(connection, (record.seq, record.root, record.count, record.at, record.chain))
        yield said, sha256(b"".join(parts)).digest(), changes
        parts, changes = [], []


def wrong_index(connection: Connection) -> str:
    """Return the name of an index that does not hold as many records as it must, "" if there is none.

    SQLite's own check (3.54) does not count those of an index that is over a part of a table.
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


def size(connection: Connection) -> tuple[int, int]:
    """Return the number of records, and of staged transactions that have not ended, counted."""
    return connection.value("SELECT count(*) FROM wal"), connection.value("SELECT count(*) FROM staged")


def rows(connection: Connection) -> Iterator[Row]:
    """Yield every row, with the columns of Record, in order; Damaged for text that is no UTF-8."""
    return connection.iterate(f"SELECT {_COLUMNS} FROM wal ORDER BY lsn")


def staged_rows(connection: Connection) -> list[Row]:
    """Return (txn, session) of the rows of the table staged, as SQLite holds them."""
    return connection.rows("SELECT txn, session FROM staged ORDER BY txn")


def _milestone(connection: Connection, seq: int) -> int:
    lsn = connection.value(_MILESTONE, (seq - seq % fmt.MILESTONE,))
    return 0 if lsn is None else int(lsn)


def _head(connection: Connection, row: Row) -> Head:
    raw_rows.HEAD.check(row, connection.path)
    return Head(*row)


def _record(connection: Connection, row: Row) -> Record:
    table = raw_rows.RECORDS.get(row[2])
    if table is None:
        what = f"record {row[0]} is of kind {raw_rows.shown(row[2])}, which there is not"
        raise Damaged(f"I7: {connection.path}: {what}; restore a backup")
    table.check(row, connection.path)
    record = Record(row[0], row[1], Kind(row[2]), *row[3:])
    if record.root is not None:
        _head(connection, (record.seq, record.root, record.count, record.at, record.chain))
    return record


_VERBATIM = f"SELECT {verbatim.columns(*Record._fields)} FROM wal ORDER BY lsn"


def scan_verbatim(connection: Connection, *, newest_first: bool = False) -> Iterator[Row]:
    """Yield the rows in order, whatever is in them: the fields of Record, as verbatim.decoded() gives them."""
    return map(verbatim.decoded, connection.iterate(_VERBATIM + (" DESC" if newest_first else "")))


def write_verbatim(connection: Connection, rows: Iterable[tuple[int, Row | None]]) -> None:
    """Put each row in the place of what has its LSN, None for no row, inside the caller's transaction."""
    for lsn, row in rows:
        connection.run("DELETE FROM wal WHERE lsn = ?", (lsn,))
        if row is not None:
            values = ", ".join(verbatim.parameters(row))
            connection.run(f"INSERT INTO wal ({_COLUMNS}) VALUES ({values})", verbatim.bound(row))


def staged_verbatim(connection: Connection, txn: int, before: int) -> list[Row]:
    """Return the rows of the staged transaction *txn* up to the LSN *before*, as scan_verbatim() gives them."""
    sql = (
        f"SELECT {verbatim.columns(*Record._fields)} FROM wal "
        "WHERE txn = ? AND session IS NOT NULL AND lsn < ? ORDER BY lsn"
    )
    return [verbatim.decoded(row) for row in connection.rows(sql, (txn, before))]


def seq_of(connection: Connection, root: bytes) -> int | None:
    """Return the number of the newest commit with this root, None if there is none."""
    sql = "SELECT seq FROM wal WHERE root = ? ORDER BY lsn DESC LIMIT 1"
    seq: int | None = connection.value(sql, (root,))
    return seq
