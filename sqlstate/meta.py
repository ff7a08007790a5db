"""The table meta: facts about the file, written when it is made, and the marker."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate import format as fmt
from sqlstate.errors import Damaged

if TYPE_CHECKING:
    from sqlstate.connection import Connection, Journal


class Meta(NamedTuple):
    """The facts of one file."""

    store_id: bytes
    journal: Journal
    created: str


class Marker(NamedTuple):
    """Whether SQLite's -wal may hold commits that the main file lacks (docs/reference/file-format.md, section 3.1)."""

    open: bool = False
    nonce: bytes = b""
    """16 random bytes, chosen when it was opened; empty if it never was."""
    lsn: int = 0
    """The greatest LSN in the log when it was written: at rest, still."""
    inode: int = 0
    """Of the file that it was opened in; 0 if it is not known. In a copy made since then it is another's."""


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


def read(connection: Connection, format_version: int = fmt.FORMAT_VERSION) -> Meta:
    """Return the facts of the file.

    Raises:
        Damaged: one is missing or not what it must be.
    """
    facts: dict[str, object] = dict(connection.rows("SELECT name, value FROM meta"))
    store_id, journal, created = facts.get("store_id"), facts.get("journal"), facts.get("created")
    if not isinstance(store_id, bytes) or len(store_id) != fmt.STORE_ID_BYTES:
        raise Damaged(f"{connection.path}: the table meta does not hold the store's id; restore a backup")
    if journal not in ("wal", "delete") or not isinstance(created, str) or facts.get("format") != format_version:
        raise Damaged(f"{connection.path}: the table meta contradicts the file; restore a backup")
    return Meta(store_id, journal, created)


def read_marker(connection: Connection) -> Marker:
    """Return the marker; one that was never opened if the file has none yet.

    Raises:
        Damaged: it is not what it must be.
    """
    stored = connection.value("SELECT value FROM meta WHERE name = 'marker'")
    if stored is None or stored == b"":
        return Marker()
    if not isinstance(stored, bytes) or len(stored) not in _MARKER_SIZES or stored[0] > 1:
        raise Damaged(f"{connection.path}: the marker in the table meta is not one; restore a backup")
    is_open, nonce, lsn, inode = _MARKER.unpack(stored.ljust(fmt.MARKER_BYTES, b"\0"))
    return Marker(bool(is_open), nonce, lsn, inode)


def write_marker(connection: Connection, marker: Marker) -> None:
    """Set the marker, inside the caller's transaction."""
    connection.run("UPDATE meta SET value = ? WHERE name = 'marker'", (_MARKER.pack(*marker),))


_MARKER: Final = Struct(f">B{fmt.NONCE_BYTES}sQQ")
_MARKER_SIZES: Final = (fmt.MARKER_BYTES_WITHOUT_INODE, fmt.MARKER_BYTES)
