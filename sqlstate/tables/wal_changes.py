"""The table wal, read as what each commit changed (docs/reference/file-format.md, section 3.4).

Values are read last: a commit of many entries is gathered by the numbers of its records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.names import stored_name
from sqlstate.format.records import Kind
from sqlstate.sqlite.connection import size_of
from sqlstate.tables import raw_rows, wal

if TYPE_CHECKING:
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection, Row

ROWS_AT_ONCE: Final = 1024
BYTES_AT_ONCE: Final = 1 << 20
_COLUMNS = "lsn, txn, kind, session, collection, key, seq, root, count, at, chain, note"
_ROWS = f"SELECT {_COLUMNS}, before IS NOT NULL FROM wal WHERE"
_SPAN = f"{_ROWS} lsn > ? AND lsn <= ? ORDER BY lsn LIMIT {ROWS_AT_ONCE}"
_STAGED = f"{_ROWS} txn = ? AND session IS NOT NULL ORDER BY lsn"
_RECORD = f"SELECT {wal.COLUMNS} FROM wal WHERE lsn = ?"
_OF_ENTRY = (
    "SELECT lsn, txn, kind = 'PUT', session IS NOT NULL, before IS NOT NULL FROM wal "
    "WHERE collection = ? AND key = ? AND kind IN ('PUT', 'DELETE') ORDER BY lsn"
)
_COMMIT_OF_STAGED = "SELECT lsn FROM wal WHERE txn = ? AND session IS NOT NULL AND kind = 'COMMIT'"
_CLOSED_BY = "SELECT lsn, seq, root, count, at, chain FROM wal WHERE lsn >= ? AND root IS NOT NULL ORDER BY lsn LIMIT 1"
_COMMITS_BACK = (
    "SELECT lsn, seq, root, count, at, chain FROM wal WHERE lsn < ? AND root IS NOT NULL ORDER BY lsn DESC LIMIT 256"
)
_CHECKED: Final = {kind: table.only(*_COLUMNS.split(", ")) for kind, table in raw_rows.RECORDS.items()}
_NOTE: Final = _COLUMNS.split(", ").index("note")


class Touch(NamedTuple):
    """How one or several commits changed an entry: the records that say so."""

    first: int
    """LSN of its first record, which has the value before."""
    last: int
    """LSN of its last record, which has the value after."""
    was_there: bool
    """Whether there was an entry before."""
    is_there: bool
    """Whether there is one after."""
    note: str = ""
    """Of the transaction that changed it last."""

    def then(self, later: Touch) -> Touch:
        """Return this change and a *later* one as one."""
        return Touch(self.first, later.last, self.was_there, later.is_there, later.note)


Touched = dict["Name", Touch]
Values = tuple["Stored | None", "Stored | None"]
"""Stored value of an entry before and after, None for no entry."""


class Reader:
    """Reads what the commits after a record changed, commit by commit, some records at a time.

    Between two steps it holds no state of the store: records never change.

    Args:
        lsn: of the record that closes the commit before the first one wanted, 0 for none.
    """

    __slots__ = ("_note", "_touched", "lsn")

    lsn: int
    """Up to here, records were read."""

    def __init__(self, lsn: int) -> None:
        self.lsn = lsn
        self._touched: Touched = {}
        self._note = ""

    def step(self, connection: Connection, end: int) -> list[tuple[Head, Touched]]:
        """Read on, up to LSN *end* at most; return the commits that are complete now.

        Raises:
            Damaged: a row is not a record, or records are missing.
        """
        found: list[tuple[Head, Touched]] = []
        rows, _ = connection.chunk(_SPAN, (self.lsn, end), BYTES_AT_ONCE, _weight)
        if not rows:
            raise Damaged.found(connection.path, f"record {end} is missing from the log", "I5")
        for row in rows:
            kind = _kind(connection, row)
            self.lsn = row[0]
            if row[3] is None:
                self._add(kind, row)
            elif kind is Kind.COMMIT:
                for each in connection.rows(_STAGED, (row[1],)):
                    self._add(_kind(connection, each), each)
            if kind is Kind.COMMIT and row[7] is not None:
                found.append((wal.valid_head(connection, row[6:11]), self._touched))
                self._touched = {}
        return found

    def _add(self, kind: Kind, row: Row) -> None:
        if kind is Kind.BEGIN:
            self._note = row[_NOTE]
        elif kind is Kind.PUT or kind is Kind.DELETE:
            name = stored_name(row[4], row[5])
            touch = Touch(row[0], row[0], bool(row[-1]), kind is Kind.PUT, self._note)
            before = self._touched.get(name)
            self._touched[name] = touch if before is None else before.then(touch)


def together(connection: Connection, lsn: int, end: int) -> Touched:
    """Return what the commits whose records come after *lsn*, up to *end*, touched, and how all together did.

    Cost: reads the records without their values; keeps the names.
    """
    found: Touched = {}
    reader = Reader(lsn)
    while reader.lsn < end:
        for _, touched in reader.step(connection, end):
            for name, touch in touched.items():
                earlier = found.get(name)
                found[name] = touch if earlier is None else earlier.then(touch)
    return found


def _weight(row: Row) -> int:
    return size_of(row[5]) + size_of(row[_NOTE])


def _kind(connection: Connection, row: Row) -> Kind:
    """Return the kind of a row; Damaged if the row is no record."""
    table = _CHECKED.get(row[2])
    if table is None:
        what = f"record {row[0]} is of the unknown kind {raw_rows.quoted(row[2])}"
        raise Damaged.found(connection.path, what, "I7")
    table.check(row[:-1], connection.path)
    return Kind(row[2])


def values(connection: Connection, touch: Touch) -> Values:
    """Return the values of an entry before and after *touch*."""
    last = wal.valid_record(connection, _row(connection, touch.last))
    if touch.first == touch.last:
        return last.before, last.value
    return before(connection, touch), last.value


def before(connection: Connection, touch: Touch) -> Stored | None:
    """Return the value of an entry before *touch*, None for no entry."""
    return wal.valid_record(connection, _row(connection, touch.first)).before if touch.was_there else None


def _row(connection: Connection, lsn: int) -> Row:
    row = connection.row(_RECORD, (lsn,))
    if row is None:
        raise Damaged.found(connection.path, f"record {lsn} is missing from the log", "I5")
    return row


def of_entry(connection: Connection, collection: str, key: Key) -> list[tuple[Head, Touch]]:
    """Return the commits that changed an entry, newest first.

    Cost: a pass over the log.
    """
    found: dict[int, tuple[Head, Touch]] = {}
    end, head = 0, None
    for lsn, txn, is_there, is_staged, was_there in connection.rows(_OF_ENTRY, (collection, key)):
        at = connection.value(_COMMIT_OF_STAGED, (txn,)) if is_staged else lsn
        if at is None:
            continue  # it was rolled back, or has not ended
        if is_staged or at > end:
            closing = connection.row(_CLOSED_BY, (at,))
            if closing is None:
                continue
            head = wal.valid_head(connection, closing[1:])
            end = lsn if is_staged else closing[0]
        assert head is not None  # noqa: S101, for the type checker
        touch = Touch(lsn, lsn, bool(was_there), bool(is_there), wal.read_begin(connection, txn).note or "")
        earlier = found.get(head.seq)
        found[head.seq] = head, touch if earlier is None else earlier[1].then(touch)
    return [found[seq] for seq in sorted(found, reverse=True)]


def seq_at(connection: Connection, time: str) -> int:
    """Return the number of the newest commit made at *time* or before, 0 without one. Cost: grows with those since."""
    lsn = fmt.INT_MAX
    while True:
        rows = connection.rows(_COMMITS_BACK, (lsn,))
        for row in rows:
            head = wal.valid_head(connection, row[1:])
            if head.at <= time:
                return head.seq
            lsn = row[0]
        if not rows:
            return 0
