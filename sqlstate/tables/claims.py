"""The table claims: who follows the commits, and how far each came (docs/reference/file-format.md, section 3.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlstate.errors import Damaged
from sqlstate.tables.raw_rows import is_number, is_text, quoted

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection


def read(connection: Connection) -> dict[str, int]:
    """Return the number of the last commit that each follower has, by the follower's name.

    Raises:
        Damaged: a row is malformed.
    """
    rows = connection.rows("SELECT name, seq FROM claims ORDER BY name")
    for name, seq in rows:
        if not (is_text(name) and is_number(seq)):
            what = f"claim {quoted(name)} is of commit {quoted(seq)}, which is none"
            raise Damaged.about(connection.path, what, "sqlstate.repair() removes it")
    return dict(rows)


def write(connection: Connection, name: str, seq: int) -> None:
    """Note that *name* has the commits up to *seq*, inside the caller's transaction.

    The row goes to the end of the table: recovery looks there for what a transaction wrote last.
    """
    remove(connection, name)
    connection.run("INSERT INTO claims (name, seq) VALUES (?, ?)", (name, seq))


def drop_malformed(connection: Connection) -> None:
    """Remove rows that are no claims, inside the caller's transaction."""
    for number, name, seq in connection.rows("SELECT number, name, seq FROM claims"):
        if not (is_text(name) and is_number(seq)):
            connection.run("DELETE FROM claims WHERE number = ?", (number,))


def remove(connection: Connection, name: str) -> None:
    """Forget the claim *name*, inside the caller's transaction."""
    connection.run("DELETE FROM claims WHERE name = ?", (name,))
