"""The table meta: facts about the file, written when it is made, and the marker."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.tables.raw_rows import is_number, is_time, shown

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection, Journal


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
    facts = _facts(connection)
    store_id, journal, created = facts.get("store_id"), facts.get("journal"), facts.get("created")
    if not isinstance(store_id, bytes) or len(store_id) != fmt.STORE_ID_BYTES:
        raise Damaged.found(connection.path, "the table meta does not hold the store's id")
    said = facts.get("format")
    if journal not in ("wal", "delete") or not is_time(created) or type(said) is not int or said != format_version:
        raise Damaged.found(connection.path, "the table meta contradicts the file")
    return Meta(store_id, journal, str(created))


def others(connection: Connection) -> list[str]:
    """Return the names of facts that no version of this format has, for a sentence."""
    return [shown(name) for name in _facts(connection) if name not in _NAMES]


def read_marker(connection: Connection) -> Marker:
    """Return the marker; one that was never opened if the file's format has none yet.

    Raises:
        Damaged: it is not what it must be.
    """
    stored = connection.value("SELECT value FROM meta WHERE name = 'marker'")
    if stored == b"" or (stored is None and connection.value("PRAGMA user_version") < _MARKED_SINCE):
        return Marker()
    if not isinstance(stored, bytes) or len(stored) not in _MARKER_SIZES or stored[0] > 1:
        raise Damaged.found(connection.path, "the marker in the table meta is missing or invalid")
    is_open, nonce, lsn, inode = _MARKER.unpack(stored.ljust(fmt.MARKER_BYTES, b"\0"))
    if not is_number(lsn):
        raise Damaged(f"{connection.path}: the marker in the table meta is of record {lsn}, and 2^62 is the last")
    return Marker(bool(is_open), nonce, lsn, inode)


def write_marker(connection: Connection, marker: Marker) -> None:
    """Set the marker, inside the caller's transaction."""
    connection.run("UPDATE meta SET value = ? WHERE name = 'marker'", (_MARKER.pack(*marker),))


def _facts(connection: Connection) -> dict[Any, Any]:
    """Return name and value of each row.

    Raises:
        Damaged: a name is there twice: its column's key was taken from it.
    """
    rows = connection.rows("SELECT name, value FROM meta")
    facts: dict[Any, Any] = dict(rows)
    if len(facts) < len(rows):
        raise Damaged.found(connection.path, "the table meta has a name twice")
    return facts


_NAMES: Final = ("store_id", "format", "journal", "created", "marker")
_MARKER: Final = Struct(f">B{fmt.NONCE_BYTES}sQQ")
_MARKER_SIZES: Final = (fmt.MARKER_BYTES_WITHOUT_INODE, fmt.MARKER_BYTES)
_MARKED_SINCE: Final = 2  # format version
