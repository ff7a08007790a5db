"""The table meta: facts about the file, written when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlstate import format as fmt
from sqlstate.errors import Damaged

if TYPE_CHECKING:
    from sqlstate.connection import Connection, Journal


class Meta(NamedTuple):
    """The facts of one file."""

    store_id: bytes
    journal: Journal
    created: str


def write(connection: Connection, meta: Meta) -> None:
    """Record the facts of a new file, inside the caller's transaction."""
    connection.run_many(
        "INSERT INTO meta (name, value) VALUES (?, ?)",
        [
            ("store_id", meta.store_id),
            ("format", fmt.FORMAT_VERSION),
            ("journal", meta.journal),
            ("created", meta.created),
        ],
    )


def read(connection: Connection) -> Meta:
    """Return the facts of the file.

    Raises:
        Damaged: one is missing or not what it must be.
    """
    facts: dict[str, object] = dict(connection.rows("SELECT name, value FROM meta"))
    store_id, journal, created = facts.get("store_id"), facts.get("journal"), facts.get("created")
    if not isinstance(store_id, bytes) or len(store_id) != fmt.STORE_ID_BYTES:
        raise Damaged(f"{connection.path}: the table meta does not hold the store's id; restore a backup")
    if journal not in ("wal", "delete") or not isinstance(created, str) or facts.get("format") != fmt.FORMAT_VERSION:
        raise Damaged(f"{connection.path}: the table meta contradicts the file; restore a backup")
    return Meta(store_id, journal, created)
