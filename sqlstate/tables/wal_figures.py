"""Figures of the table wal, and whether its indexes are whole, for a check and for whoever asks how large it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlstate.tables.wal import IS_CHANGE

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection


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


_PARTS: Final = {
    "wal_milestones": "seq % 64 = 0 AND root IS NOT NULL",
    "wal_staged": "session IS NOT NULL",
    "wal_history": IS_CHANGE,
}


def size(connection: Connection) -> int:
    """Return the number of records, counted."""
    found: int = connection.value("SELECT count(*) FROM wal")
    return found


def numbers(connection: Connection) -> int:
    """Return how many records there are, of their numbers alone: those that a repair removed count as well."""
    found: int = connection.value("SELECT ifnull((SELECT max(lsn) FROM wal) - (SELECT min(lsn) FROM wal) + 1, 0)")
    return found


def seq_of(connection: Connection, root: bytes) -> int | None:
    """Return the number of the newest commit with this root, None if there is no such commit."""
    sql = "SELECT seq FROM wal WHERE root = ? ORDER BY lsn DESC LIMIT 1"
    seq: int | None = connection.value(sql, (root,))
    return seq
