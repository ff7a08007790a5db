"""The table meta: facts about the file, written when it is made, and the dirty flag (the row `marker`)."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.tables.raw_rows import is_number, is_time, quoted

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection, Journal


class Meta(NamedTuple):
    """The facts of one file."""

    store_id: bytes
    journal: Journal
    created: str


class DirtyFlag(NamedTuple):
    """Whether SQLite's -wal may hold commits that the main file lacks (docs/reference/file-format.md, section 3.1)."""

    dirty: bool = False
    nonce: bytes = b""
    """16 random bytes, chosen when the flag was set; empty if it never was."""
    lsn: int = 0
    """The greatest LSN in the log when the flag was written; as long as the flag is clean, the log ends there."""
    inode: int = 0
    """Inode of the file in which the flag was set; 0 if not known. A copy of that file has another inode."""


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
        Damaged: a fact is missing or malformed, or contradicts the file's header.
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
    return [quoted(name) for name in _facts(connection) if name not in _NAMES]


def read_dirty_flag(connection: Connection) -> DirtyFlag:
    """Return the dirty flag; one that was never set if the file's format has none yet.

    Raises:
        Damaged: the row is missing or malformed.
    """
    stored = connection.value("SELECT value FROM meta WHERE name = 'marker'")
    if stored == b"" or (stored is None and connection.value("PRAGMA user_version") < _MARKED_SINCE):
        return DirtyFlag()
    if not isinstance(stored, bytes) or len(stored) not in _MARKER_SIZES or stored[0] > 1:
        raise Damaged.found(connection.path, "the row marker of the table meta is missing or malformed")
    dirty, nonce, lsn, inode = _MARKER.unpack(stored.ljust(fmt.MARKER_BYTES, b"\0"))
    if not is_number(lsn):
        raise Damaged.found(
            connection.path, f"the row marker of the table meta names record {lsn}, and 2^62 is the last"
        )
    return DirtyFlag(bool(dirty), nonce, lsn, inode)


def write_dirty_flag(connection: Connection, flag: DirtyFlag) -> None:
    """Write the dirty flag, inside the caller's transaction."""
    connection.run("UPDATE meta SET value = ? WHERE name = 'marker'", (_MARKER.pack(*flag),))


def _facts(connection: Connection) -> dict[Any, Any]:
    """Return name and value of each row.

    Raises:
        Damaged: a name is there twice, which the table's primary key forbids.
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
