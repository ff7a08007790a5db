"""The tables wal and digest_logs: records that have digests for values (docs/reference/file-format.md, 3.4 and 3.10).

A digest here is the leaf of the entry with that value. The chains of commits are made of leaves, so they stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import as_leaf, leaf_of
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import Kind, logged, marks_of
from sqlstate.tables import raw_rows, staged, wal_changes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlstate.format.names import Key
    from sqlstate.format.records import Record
    from sqlstate.sqlite.connection import Connection

_SET = "UPDATE wal SET value = ?, before = ?, digests = ? WHERE lsn = ?"
_OF_ENTRY = """
SELECT lsn FROM wal WHERE collection = ? AND key = ? AND kind IN ('PUT', 'DELETE')
AND ifnull(digests, 0) <> (value IS NOT NULL) + 2 * (before IS NOT NULL) ORDER BY lsn
"""
_STAGED_OF_ENTRY = """
SELECT DISTINCT txn FROM wal WHERE session IS NOT NULL AND collection = ? AND key = ?
"""
# SQLite fills a row of zeros with free pages, and zeros are what is left of it when it is deleted again.
_FILL = "INSERT INTO wal (lsn, txn, kind, value) VALUES (?1, ?1, 'PUT', zeroblob(?2))"
_FILLED_AT_ONCE: Final = 64 << 20
_BOTH: Final = fmt.BEFORE_DIGEST | fmt.VALUE_DIGEST


def collections(connection: Connection) -> frozenset[str]:
    """Return the names of the collections of whose values the log keeps the digests only.

    Raises:
        Damaged: one of them can be no collection's.
    """
    names = [name for (name,) in connection.rows("SELECT collection FROM digest_logs ORDER BY collection")]
    for name in names:
        if not raw_rows.is_collection(name):
            raise Damaged.found(
                connection.path, f"digest_logs has {raw_rows.quoted(name)}, which is no collection's name"
            )
    return frozenset(names)


def listed(connection: Connection) -> set[Any]:
    """Return what the rows of digest_logs list, whatever it is."""
    rows = connection.rows(f"SELECT {raw_rows.columns('collection')} FROM digest_logs")
    return {name for row in rows for name in raw_rows.decoded(row)}


def set_all(connection: Connection, names: Iterable[str]) -> None:
    """Have the log keep the digests only of the values of these collections."""
    connection.run("DELETE FROM digest_logs")
    for name in names:
        set_collection(connection, name, digests=True)


def set_collection(connection: Connection, collection: str, *, digests: bool) -> None:
    """Have the log keep the digests only of the values of a collection, or the values."""
    statement = (
        "INSERT OR IGNORE INTO digest_logs VALUES (?)" if digests else "DELETE FROM digest_logs WHERE collection = ?"
    )
    connection.run(statement, (collection,))


def collapse(connection: Connection, records: Iterable[Record], digest_logs: Collection[str]) -> None:
    """Put digests in the place of values that a staged transaction superseded itself, inside the commit.

    Of each entry, the first `before` and the last value stay; nothing of the collections in *digest_logs*.
    """
    first: dict[tuple[Any, Any], int] = {}
    last: dict[tuple[Any, Any], int] = {}
    changes = [record for record in records if record.kind in (Kind.PUT, Kind.DELETE)]
    for record in changes:
        first.setdefault((record.collection, record.key), record.lsn)
        last[record.collection, record.key] = record.lsn
    for record in changes:
        name = record.collection, record.key
        marks = _BOTH
        if name[0] not in digest_logs:
            marks = fmt.BEFORE_DIGEST * (first[name] != record.lsn) | fmt.VALUE_DIGEST * (last[name] != record.lsn)
        _digest(connection, record, marks)


def staged_with(connection: Connection, collection: str, key: Key) -> list[int]:
    """Return the staged transactions that have not ended and have records of an entry."""
    there = {txn for (txn,) in connection.rows(_STAGED_OF_ENTRY, (collection, key))}
    return [txn for txn in staged.transactions(connection) if txn in there]


def redact(connection: Connection, collection: str, key: Key) -> int:
    """Put digests in the place of all values of an entry, inside the caller's transaction; return in how many records.

    Cost: a pass over the log.

    Raises:
        Damaged: one of them is not a record.
    """
    numbers = [lsn for (lsn,) in connection.rows(_OF_ENTRY, (collection, key))]
    for lsn in numbers:
        _digest(connection, wal_changes.record(connection, lsn), _BOTH)
    return len(numbers)


def overwrite_free_pages(connection: Connection) -> None:
    """Overwrite the file's free pages with zeros, inside the caller's transaction, while SQLite deletes securely.

    Cost: writes each of them twice.
    """
    page = connection.value("PRAGMA page_size") - 4
    left = connection.value("PRAGMA freelist_count") * page
    first = lsn = (connection.value("SELECT max(lsn) FROM wal") or 0) + 1
    while left > 0:
        connection.run(_FILL, (lsn, min(left, _FILLED_AT_ONCE)))
        left -= _FILLED_AT_ONCE
        lsn += 1
    connection.run("DELETE FROM wal WHERE lsn >= ?", (first,))


def _digest(connection: Connection, record: Record, marks: int) -> None:
    """Put digests in the place of the values of a record that *marks* says."""
    assert record.collection is not None and record.key is not None  # noqa: S101, PT018, for the type checker
    raw = name_bytes(stored_name(record.collection, record.key))
    was = before, value = logged(record.before, record.value, record.digests)
    if marks & fmt.BEFORE_DIGEST:
        before = as_leaf(leaf_of(raw, before))
    if marks & fmt.VALUE_DIGEST:
        value = as_leaf(leaf_of(raw, value))
    if marks_of(before, value) != marks_of(*was):
        connection.run(_SET, (value, before, marks_of(before, value), record.lsn))
