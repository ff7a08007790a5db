"""The table wal, read as what each commit changed (docs/reference/file-format.md, section 3.4).

Values are read last: a commit of many entries is gathered by the numbers of its records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.errors import Damaged, InvalidOption, LogCut, StoreFull
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import Leaf, leaf_of
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import Kind, logged
from sqlstate.format.values import same as values_same
from sqlstate.sqlite.connection import size_of
from sqlstate.tables import meta as metadata
from sqlstate.tables import raw_rows, state, wal
from sqlstate.tables.raw_rows import is_entry_name, is_text

if TYPE_CHECKING:
    from sqlstate.format.names import Key, Name
    from sqlstate.format.records import Head, Record
    from sqlstate.sqlite.connection import Connection, Row

ROWS_AT_ONCE: Final = 1024
BYTES_AT_ONCE: Final = 1 << 20
_COLUMNS = "lsn, txn, kind, session, collection, key, seq, root, count, at, chain, note"
_ROWS = f"SELECT {_COLUMNS}, before IS NOT NULL FROM wal WHERE"
# Without what says nothing: each BEGIN that has no note, and each COMMIT that neither closes a commit nor is staged.
_SPAN = f"""
{_ROWS} lsn > ? AND lsn <= ? AND (kind <> 'BEGIN' OR note <> '')
AND (kind <> 'COMMIT' OR root IS NOT NULL OR session IS NOT NULL) ORDER BY lsn LIMIT {ROWS_AT_ONCE}
"""
_STAGED = f"{_ROWS} lsn IN ({wal.OF_STAGED}) ORDER BY lsn"
_RECORD = f"SELECT {wal.COLUMNS} FROM wal WHERE lsn = ?"
_OF_ENTRY = (
    "SELECT lsn, txn, kind = 'PUT', session IS NOT NULL, before IS NOT NULL FROM wal "
    f"WHERE collection = ? AND key = ? AND {wal.IS_CHANGE} ORDER BY lsn"
)
HISTORY_INDEX: Final = "wal_history"
MAKE_HISTORY_INDEX: Final = f"CREATE INDEX wal_history ON wal (collection, key) WHERE {wal.IS_CHANGE}"
_COMMIT_OF_STAGED = "SELECT lsn FROM wal WHERE txn = ? AND session IS NOT NULL AND kind = 'COMMIT'"
_CLOSED_BY = "SELECT lsn, seq, root, count, at, chain FROM wal WHERE lsn >= ? AND root IS NOT NULL ORDER BY lsn LIMIT 1"
_COMMITS_BACK = (
    "SELECT lsn, seq, root, count, at, chain FROM wal WHERE lsn > ? AND lsn < ? AND root IS NOT NULL "
    "ORDER BY lsn DESC LIMIT 256"
)
_KINDS: Final = frozenset(Kind)
_CHANGES: Final = {Kind.PUT, Kind.DELETE}
_SEQ, _ROOT, _NOTE = (_COLUMNS.split(", ").index(column) for column in ("seq", "root", "note"))


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
Logged = str | bytes | Leaf | None
"""Stored value of an entry, None for no entry; its leaf if the log has that alone."""
Values = tuple[Logged, Logged]
"""Of an entry before and after."""


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
        self._note: tuple[int, str] = 0, ""  # of which transaction, and what

    def step(self, connection: Connection, end: int) -> list[tuple[Head, Touched]]:
        """Read on, up to LSN *end* at most; return the commits that are complete now.

        Raises:
            LogCut: records that are wanted were cut meanwhile.
            Damaged: a row is not a record, or records are missing.
        """
        found: list[tuple[Head, Touched]] = []
        start = metadata.read_log_start(connection)
        if start is not None and self.lsn < start.lsn:
            raise LogCut(connection.path, start.head.seq, start.head.seq + 1)
        rows, _ = connection.chunk(_SPAN, (self.lsn, end), BYTES_AT_ONCE, _weight)
        if not rows:
            raise Damaged.found(connection.path, f"record {end} is missing from the log", "I5")
        for row in rows:
            self.lsn, txn, kind, session = row[:4]
            if session is None:
                self._add(connection, row)
            elif kind == Kind.COMMIT:
                for each in connection.rows(_STAGED, (txn,)):
                    self._add(connection, each)
            if kind == Kind.COMMIT and row[_ROOT] is not None:
                found.append((wal.valid_head(connection, row[_SEQ:_NOTE]), self._touched))
                self._touched = {}
        return found

    def _add(self, connection: Connection, row: Row) -> None:
        lsn, txn, kind, _, collection, key, *_ = row
        if kind in _CHANGES:
            if not is_entry_name(collection, key):
                raw_rows.RECORDS[kind].only("lsn", "collection", "key").check((lsn, collection, key), connection.path)
            name = stored_name(collection, key)
            touch = Touch(lsn, lsn, bool(row[-1]), kind == Kind.PUT, self._note[1] if self._note[0] == txn else "")
            before = self._touched.get(name)
            self._touched[name] = touch if before is None else before.then(touch)
        elif kind == Kind.BEGIN:
            if not is_text(row[_NOTE]):
                raw_rows.RECORDS[kind].only("lsn", "note").check((lsn, row[_NOTE]), connection.path)
            self._note = txn, row[_NOTE]
        elif kind not in _KINDS:
            what = f"record {lsn} is of the unknown kind {raw_rows.quoted(kind)}"
            raise Damaged.found(connection.path, what, "I7")


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


def values(connection: Connection, name: Name, touch: Touch) -> Values:
    """Return the values of an entry before and after *touch*."""
    old, new = _logged(connection, touch.last)
    if touch.first != touch.last:
        old = _logged(connection, touch.first)[0]
    return known(connection, name, old), known(connection, name, new)


def before(connection: Connection, name: Name, touch: Touch) -> Logged:
    """Return the value of an entry before *touch*, None for no entry."""
    return known(connection, name, _logged(connection, touch.first)[0]) if touch.was_there else None


def known(connection: Connection, name: Name, said: Logged) -> Logged:
    """Return the value that a leaf stands for, if the entry has it now; else what is given."""
    if type(said) is not Leaf:
        return said
    stored = state.get(connection, name[0], name[2])
    return stored if leaf_of(name_bytes(name), stored) == said else said


def same(name: Name, a: Logged, b: Logged) -> bool:
    """Return True if two values of an entry are equal, by their leaves where one is known by its leaf alone."""
    if Leaf in (type(a), type(b)):
        raw = name_bytes(name)
        return leaf_of(raw, a) == leaf_of(raw, b)
    return values_same(a, b)


def record(connection: Connection, lsn: int) -> Record:
    """Return the record with this LSN.

    Raises:
        Damaged: there is none, or a field of it is invalid.
    """
    row = connection.row(_RECORD, (lsn,))
    if row is None:
        start = metadata.read_log_start(connection)
        if start is not None and lsn <= start.lsn:
            raise LogCut(connection.path, start.head.seq, start.head.seq + 1)
        raise Damaged.found(connection.path, f"record {lsn} is missing from the log", "I5")
    return wal.valid_record(connection, row)


def _logged(connection: Connection, lsn: int) -> Values:
    found = record(connection, lsn)
    return logged(found.before, found.value, found.digests)


def of_entry(connection: Connection, collection: str, key: Key) -> list[tuple[Head, Touch]]:
    """Return the commits that changed an entry, newest first.

    Cost: some statements for each of them, by the index for histories; without it, a pass over the log.
    """
    found: dict[int, tuple[Head, Touch]] = {}
    start = metadata.read_log_start(connection)
    cut = 0 if start is None else start.lsn
    end, head = cut, None
    for lsn, txn, is_there, is_staged, was_there in connection.rows(_OF_ENTRY, (collection, key)):
        at = connection.value(_COMMIT_OF_STAGED, (txn,)) if is_staged else lsn
        if at is None or at <= cut:
            continue  # it was rolled back, has not ended, or was cut
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


def has_history_index(connection: Connection) -> bool:
    """Return True if the file has the index for histories."""
    return any(name == HISTORY_INDEX for _, name, *_ in connection.rows("PRAGMA index_list(wal)"))


def make_history_index(connection: Connection) -> None:
    """Make the index for histories, inside the caller's transaction. Cost: a pass over the log, and a sort.

    Raises:
        InvalidOption: something of another program has its name.
        StoreFull: there is no room for it, or for the sort.
    """
    taken = "SELECT type FROM sqlite_schema WHERE name = ? COLLATE NOCASE AND type <> 'trigger'"
    there = connection.value(taken, (HISTORY_INDEX,))
    if there is not None:
        raise InvalidOption(
            f"{connection.path}: there is a {there} {HISTORY_INDEX} of another program; rename it. Nothing was changed"
        )
    try:
        connection.run(MAKE_HISTORY_INDEX)
    except StoreFull as e:
        raise StoreFull.about(
            connection.path,
            "the disk is full, here or where SQLite keeps temporary files (SQLITE_TMPDIR, TMPDIR); no index was made, "
            "and nothing was changed",
            "free space there, and try again",
        ) from e


def drop_history_index(connection: Connection) -> None:
    """Remove the index for histories, inside the caller's transaction."""
    connection.run(f"DROP INDEX {HISTORY_INDEX}")


def seq_at(connection: Connection, time: str) -> int:
    """Return the number of the newest commit made at *time* or before, 0 without one. Cost: grows with those since.

    Raises:
        LogCut: it was cut from the log.
    """
    start = metadata.read_log_start(connection)
    lsn, cut = fmt.INT_MAX, 0 if start is None else start.lsn
    while True:
        rows = connection.rows(_COMMITS_BACK, (cut, lsn))
        for row in rows:
            head = wal.valid_head(connection, row[1:])
            if head.at <= time:
                return head.seq
            lsn = row[0]
        if not rows and start is not None and start.head.at > time:
            raise LogCut(connection.path, start.head.seq, start.head.seq + 1)
        if not rows:
            return 0 if start is None else start.head.seq
