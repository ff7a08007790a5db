"""What a commit in the making holds in memory: changes, pending entries, savepoints, and log records to write."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate.format.merkle import as_leaf
from sqlstate.format.records import Kind, marks_of
from sqlstate.sqlite.connection import KEPT_BYTES
from sqlstate.tables import wal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlstate.format.names import Name, Stored
    from sqlstate.sqlite.connection import Connection

# There is one of these for every entry of a load, so they are plain tuples: an instance takes longer to make, and
# Python's garbage collector looks at it again and again.

# One entry that differs: its name, its value before and after, the leaves of both, its name_bytes(). None stands for
# no entry.
Change = tuple["Name", "Stored | None", "Stored | None", bytes | None, bytes | None, bytes]

# An entry as a transaction of the commit left it, before it is written to the tables: its value, its leaf, its
# name_bytes(), and the leaf that is in the tree.
Pending = tuple["Stored | None", bytes | None, bytes, bytes | None]


def keep(pending: dict[Name, Pending], changes: Iterable[Change]) -> int:
    """Make *changes* pending; return the bytes and characters of their values."""
    size = 0
    for name, _, after, leaf_before, leaf_after, raw in changes:
        known = pending.get(name)
        pending[name] = after, leaf_after, raw, leaf_before if known is None else known[3]
        size += len(after or "")
    return size


def as_logged(changes: list[Change], digest_logs: Collection[str]) -> list[Change]:
    """Return *changes* with leaves for values, where the collection is one of *digest_logs*."""
    if not digest_logs:
        return changes
    return [
        (name, as_leaf(old), as_leaf(new), old, new, raw)
        if name[0] in digest_logs
        else (name, before, after, old, new, raw)
        for name, before, after, old, new, raw in changes
    ]


def row_of(change: Change) -> wal.ChangeRow:
    """Return what the log says of a change, which is as_logged()."""
    (collection, _, key), before, after, *_ = change
    return Kind.DELETE if after is None else Kind.PUT, collection, key, after, before, marks_of(before, after)


def rows_of(changes: Iterable[Change], first: tuple[int, int], *, marked: bool) -> list[tuple[Any, ...]]:
    """Return the rows of *changes*, which are as_logged(): *first* is the LSN of the first, and that of BEGIN.

    Where they are not *marked*, none has a leaf for a value.
    """
    lsn, txn = first
    put, delete = Kind.PUT, Kind.DELETE
    rows: list[tuple[Any, ...]] = [
        (each, txn, delete if after is None else put, collection, key, after, before, None)
        for each, ((collection, _, key), before, after, *_) in enumerate(changes, lsn)
    ]
    return [(*row[:-1], marks_of(row[6], row[5])) for row in rows] if marked else rows


class Savepoint(NamedTuple):
    """A point in a commit to which it can be rolled back."""

    lsn: int
    txn: int
    root: bytes
    entries: int
    records: Any
    transactions: int
    closing: Any
    size: int


class Tail:
    """The newest log records of a commit in the making, in order, that are not in the table yet.

    Only the COMMIT record of the last transaction carries the head, and which one is the last is known at the end. So
    the newest COMMIT record is held back until another follows.

    Args:
        seq: number of the commit.
    """

    __slots__ = ("_closing", "_no_head", "_rows")

    def __init__(self, seq: int) -> None:
        self._no_head = (seq, None, None, None, None, None, None)
        self._rows: list[tuple[str, list[Any]]] = []  # a statement, and what it is run with
        self._closing: tuple[str, tuple[Any, ...]] | None = None  # the record that is held back

    @property
    def closing(self) -> tuple[str, tuple[Any, ...]] | None:
        """The COMMIT record that is held back, for reset()."""
        return self._closing

    def begin(self, lsn: int, note: str) -> None:
        """Add the BEGIN record of a direct transaction."""
        self._add(wal.INSERT_BEGIN, (lsn, note))

    def changes(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add PUT and DELETE records of a direct transaction: LSN, that of BEGIN, and a ChangeRow of each."""
        self._add_held_back()
        self._rows.append((wal.INSERT_CHANGE, [*rows]))

    def commit(self, lsn: int, txn: int, session: bytes | None) -> None:
        """Add the COMMIT record of a transaction."""
        self._add_held_back()
        self._closing = wal.INSERT_COMMIT, (lsn, txn, session)

    def short(self, lsn: int, change: wal.ChangeRow) -> None:
        """Add BEGIN without a note, one change, and COMMIT of a direct transaction whose first LSN is *lsn*."""
        self._add_held_back()
        self._closing = wal.INSERT_SHORT, (lsn, *change)

    def reset(self, closing: tuple[str, tuple[Any, ...]] | None) -> None:
        """Drop all records, and hold back *closing*."""
        self._rows.clear()
        self._closing = closing

    def write(self, connection: Connection, closing: tuple[Any, ...] | None = None) -> None:
        """Append the records to the table, inside the caller's transaction.

        *closing* goes into the last record: seq, root, count, at, chain, records, total.
        """
        if closing is not None and self._closing is not None:
            sql, row = self._closing
            self._closing = None
            self._add(sql, row + closing)
        for sql, rows in self._rows:
            if sql is wal.INSERT_CHANGE and _has_large(rows, 5):
                for row in rows:
                    wal.write_change(connection, row)
            elif sql is wal.INSERT_SHORT and _has_large(rows, 4):
                for row in rows:
                    wal.write_short(connection, row[0], row[1:7], row[7:])
            elif len(rows) == 1:
                connection.run(sql, rows[0])
            else:
                connection.run_many(sql, rows)
        self._rows.clear()

    def _add_held_back(self) -> None:
        if self._closing is not None:
            sql, row = self._closing
            self._closing = None
            self._add(sql, row + self._no_head)

    def _add(self, sql: str, row: Sequence[Any]) -> None:
        self._add_held_back()
        if self._rows and self._rows[-1][0] is sql:
            self._rows[-1][1].append(row)
        else:
            self._rows.append((sql, [row]))


def _has_large(rows: Sequence[Sequence[Any]], value: int) -> bool:
    """Return True if one of *rows* has large bytes or text in the column *value*, or in the next one."""
    return any(
        max(map(len, filter(None, map(itemgetter(column), rows))), default=0) >= KEPT_BYTES // 2
        for column in (value, value + 1)
    )
