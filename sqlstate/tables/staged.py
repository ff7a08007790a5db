"""The table staged: the staged transactions that have not ended (docs/reference/file-format.md, section 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.records import Kind, Record, record_bytes, staged_digest
from sqlstate.tables import raw_rows, wal

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection, Row


def sealed(connection: Connection, record: Record) -> Record:
    """Return a record that is about to be appended to its staged transaction, with its digest (I14).

    A transaction that an older version began without digests continues without.
    """
    before: bytes | None = fmt.STAGED_ZERO
    if record.kind is not Kind.BEGIN:
        before = wal.staged_digest_before(connection, record.txn)
    return (
        record if before is None else record._replace(chain=staged_digest(before, record.session, record_bytes(record)))
    )


def check_records(connection: Connection, records: list[Record]) -> None:
    """Check that the *records* of a staged transaction that has not ended are what was written (I14).

    Raises:
        Damaged: a record was changed, or is missing.
    """
    digest = fmt.STAGED_ZERO
    for record in records:
        if record.chain is None and records[0].chain is None:
            continue
        digest = staged_digest(digest, record.session, record_bytes(record))
        if record.chain != digest or record.digests is not None:  # digests only when it has ended
            raise _unlike_written(connection, records[0].txn, f"record {record.lsn}, or one before it,")
    missing = wal.missing_behind(connection, records[-1].lsn) if digest != fmt.STAGED_ZERO else 0
    if missing:
        raise _unlike_written(connection, records[0].txn, f"record {missing} is missing. If it is one of it, the end")


def _unlike_written(connection: Connection, txn: int, what: str) -> Damaged:
    return Damaged(
        f"I14: {connection.path}: {what} of staged transaction {txn} is not what was written. Nothing of it was "
        "committed. Look at it with store.wal.uncommitted(), and end it with rollback()"
    )


def transactions(connection: Connection) -> list[int]:
    """Return the numbers of the staged transactions that have not ended, in order."""
    return [txn for txn, _ in sessions(connection)]


def session_of(connection: Connection, txn: int) -> bytes | None:
    """Return the session of the staged transaction *txn*, or None if there is no such transaction or it has ended."""
    row = connection.row("SELECT txn, session FROM staged WHERE txn = ?", (txn,))
    if row is None:
        return None
    raw_rows.STAGED.check(row, connection.path)
    session: bytes = row[1]
    return session


def add(connection: Connection, txn: int, session: bytes) -> None:
    """Note that *txn* is staged and has not ended (I9)."""
    connection.run("INSERT INTO staged (txn, session) VALUES (?, ?)", (txn, session))


def remove(connection: Connection, txn: int) -> None:
    """Note that the staged transaction *txn* has ended (I9)."""
    connection.run("DELETE FROM staged WHERE txn = ?", (txn,))


def set_session(connection: Connection, txn: int, session: bytes) -> None:
    """Note that *session* has taken over the staged transaction *txn*."""
    connection.run("UPDATE staged SET session = ? WHERE txn = ?", (session, txn))


def sessions(connection: Connection) -> list[tuple[int, bytes]]:
    """Return (txn, session) of the staged transactions that have not ended, in order."""
    rows = connection.rows("SELECT txn, session FROM staged ORDER BY txn")
    for row in rows:
        raw_rows.STAGED.check(row, connection.path)
    return [(txn, session) for txn, session in rows]


def rows(connection: Connection) -> list[Row]:
    """Return (txn, session) of the rows of the table staged, as SQLite holds them."""
    return connection.rows("SELECT txn, session FROM staged ORDER BY txn")


def size(connection: Connection) -> int:
    """Return the number of staged transactions that have not ended, counted."""
    found: int = connection.value("SELECT count(*) FROM staged")
    return found
