"""The table meta: facts about the file, the dirty flag (the row `marker`), and where the log begins and may end."""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.records import Head
from sqlstate.tables.raw_rows import HEAD, is_number, is_time, quoted

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


class LogStart(NamedTuple):
    """Behind which record the log begins (docs/reference/file-format.md, section 3.1)."""

    lsn: int
    """The last record of the newest commit that was cut; records up to it are none of the log any more."""
    removed: int
    """Up to this one, those records are gone; they go some at a time."""
    total: int
    """What the commit's record says of its size, or would say; can be less than 0."""
    head: Head
    """The commit."""
    records: bytes
    """Digest of its records."""


MARKER: Final = "(SELECT value FROM meta WHERE name = 'marker')"
"""The row of the dirty flag, as a part of a statement."""
REFUSED: Final = "INSERT INTO meta (name, value) VALUES ('marker', NULL)"
"""A statement that fails."""


def guard(condition: str) -> str:
    """Return a statement that fails, as REFUSED does, unless *condition* holds, and the row of the dirty flag is there.

    It may overwrite that row: renew_marker() comes after it.
    """
    return (
        f"INSERT INTO meta (name, value) VALUES ('marker', iif({condition}, x'', NULL)) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    )


def renew_marker(nonce: bytes, last: str) -> str:
    """Return a statement that writes a clean dirty flag with *nonce*; *last* is SQL for the greatest LSN in the table.

    The log may end behind that, with what was cut.
    """
    return (
        f"UPDATE meta SET value = unhex('00{nonce.hex()}' || max(printf('%016x', {last}), ifnull((SELECT "
        "lower(hex(substr(value, 1, 8))) FROM meta WHERE name = 'log_start'), '')) || '0000000000000000') "
        "WHERE name = 'marker'"
    )


def marker_bytes(flag: DirtyFlag) -> bytes:
    """Return a dirty flag as its row has it."""
    return _MARKER.pack(*flag)


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
    connection.run("UPDATE meta SET value = ? WHERE name = 'marker'", (marker_bytes(flag),))


def read_log_start(connection: Connection) -> LogStart | None:
    """Return where the log begins, None if nothing was cut.

    Raises:
        Damaged: the row is malformed.
    """
    stored = connection.value("SELECT value FROM meta WHERE name = 'log_start'")
    if stored is None:
        return None
    if type(stored) is bytes and len(stored) == _START.size + fmt.DIGEST_BYTES:
        body = stored[: _START.size]
        lsn, removed, total, seq, root, count, chain, records, at = _START.unpack(body)
        head = (seq, root, count, at.decode(errors="replace"), chain)
        if stored[_START.size :] == start_digest(body) and HEAD.fits(head) and removed <= lsn <= fmt.NUMBER_MAX:
            return LogStart(lsn, removed, total, Head(*head), records)
    raise Damaged.found(connection.path, "the row log_start of the table meta is malformed", "I15")


def write_log_start(connection: Connection, start: LogStart) -> None:
    """Write where the log begins, inside the caller's transaction."""
    head = start.head
    facts = (head.seq, head.root, head.count, head.chain, start.records, head.at.encode())
    body = _START.pack(start.lsn, start.removed, start.total, *facts)
    _put(connection, "log_start", body + start_digest(body))


def start_digest(body: bytes) -> bytes:
    """Return the digest at the end of the row log_start."""
    return sha256(fmt.TAG_START + body).digest()


def read_log_limit(connection: Connection) -> int | None:
    """Return the size in bytes that the log is kept at, None for no limit.

    Raises:
        Damaged: the row is malformed.
    """
    return _number(connection, "log_limit")


def write_log_limit(connection: Connection, limit: int | None) -> None:
    """Write the size in bytes that the log is kept at, None for no limit, inside the caller's transaction."""
    if limit is None:
        connection.run("DELETE FROM meta WHERE name = 'log_limit'")
    else:
        _put(connection, "log_limit", limit)


def read_log_unsized(connection: Connection) -> int:
    """Return the bytes of the records of commits that do not say how large they are; 0 if there are none.

    Raises:
        Damaged: the row is malformed.
    """
    return _number(connection, "log_unsized") or 0


def write_log_unsized(connection: Connection, size: int) -> None:
    """Write the bytes of the records of commits that an earlier version made, inside the caller's transaction."""
    _put(connection, "log_unsized", size)


def drop_malformed(connection: Connection) -> None:
    """Remove settings of the log that are malformed, inside the caller's transaction: without them it is kept whole."""
    for name in ("log_limit", "log_unsized"):
        if not is_number(connection.value("SELECT value FROM meta WHERE name = ?", (name,))):
            connection.run("DELETE FROM meta WHERE name = ?", (name,))


def _number(connection: Connection, name: str) -> int | None:
    value = connection.value("SELECT value FROM meta WHERE name = ?", (name,))
    if value is not None and not is_number(value):
        what = f"the row {name} of the table meta is {quoted(value)}, no number"
        raise Damaged.about(connection.path, what, "sqlstate.repair() removes it")
    return value  # type: ignore[no-any-return]


def _put(connection: Connection, name: str, value: Any) -> None:
    connection.run("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))


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


_NAMES: Final = ("store_id", "format", "journal", "created", "marker", "log_limit", "log_start", "log_unsized")
_START: Final = Struct(">QQqQ32sQ32s32s27s")
_MARKER: Final = Struct(f">B{fmt.NONCE_BYTES}sQQ")
_MARKER_SIZES: Final = (fmt.MARKER_BYTES_WITHOUT_INODE, fmt.MARKER_BYTES)
_MARKED_SINCE: Final = 2  # format version
