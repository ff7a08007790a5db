"""The table audit: events other than commits, each entry chained to the one before.

The formulas stand in docs/reference/file-format.md, section 3.7.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.tables import raw_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection


class AuditEntry(NamedTuple):
    """One event in the life of a store: a named tuple, given by `store.audit()`.

    There is one for each migration, each recovery that did something, and each resumed transaction, backup, restore,
    repair and setting that the file keeps. Entries are chained by hash and never changed.

    Examples:
        >>> entry = next(store.audit())
        >>> entry.number, entry.kind, entry.seq
        (1, 'migration', 0)
    """

    number: int
    """From 1 without holes."""
    at: str
    """Time of the event: ISO 8601, UTC, microseconds."""
    kind: str
    """`"migration"`, `"recovery"`, `"backup"`, `"restore"`, `"repair"`, `"cut"` or `"setting"`."""
    seq: int
    """Number of the newest commit at that time."""
    chain: bytes
    """That commit's chain digest, 32 bytes."""
    detail: dict[str, Any]
    """What happened; the members depend on the kind."""
    digest: bytes
    """Depends on this entry and on all before it, 32 bytes."""


_COLUMNS = "number, at, kind, seq, chain, detail, digest"
_LAST = "SELECT number, digest FROM audit ORDER BY number DESC LIMIT 1"
ROWS_AT_ONCE = 256
_ENTRIES = f"SELECT {_COLUMNS} FROM audit WHERE number > ? ORDER BY number LIMIT {ROWS_AT_ONCE}"
_RAW = f"SELECT {raw_rows.columns(*AuditEntry._fields)} FROM audit ORDER BY number"


def digest_zero(store_id: bytes) -> bytes:
    """Return the digest before the first entry."""
    return sha256(fmt.TAG_AUDIT + store_id).digest()


def digest_next(digest: bytes, number: int, place: tuple[int, bytes], texts: tuple[str, str, str]) -> bytes:
    """Return the digest of an entry (I12).

    Args:
        digest: of the entry before.
        number: of the entry.
        place: seq and chain of the newest commit.
        texts: time, kind, and detail as stored.
    """
    at, kind, detail = (len(text).to_bytes(4) + text for text in (each.encode() for each in texts))
    seq, chain = place
    link = fmt.TAG_AUDIT + digest + number.to_bytes(8) + at + kind + seq.to_bytes(8) + chain + detail
    return sha256(link).digest()


def append(connection: Connection, store_id: bytes, head: Head, at: str, event: tuple[str, Mapping[str, Any]]) -> int:
    """Append an entry inside the caller's transaction, and return its number.

    Args:
        connection: the writing connection.
        store_id: of the store.
        head: the newest commit.
        at: the time.
        event: kind and detail.
    """
    kind, detail = event
    newest, digest = last(connection)
    number = newest + 1
    text = json.dumps(detail, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    digest = digest_next(digest or digest_zero(store_id), number, (head.seq, head.chain), (at, kind, text))
    connection.run(
        f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, at, kind, head.seq, head.chain, text, digest),
    )
    return number


def last(connection: Connection) -> tuple[int, bytes]:
    """Return number and digest of the newest entry, 0 and b"" if there is no entry.

    Raises:
        Damaged: they are malformed.
    """
    row = connection.row(_LAST)
    if row is None:
        return 0, b""
    raw_rows.AUDIT_END.check(row, connection.path)
    return row[0], row[1]


def ends_well(connection: Connection, store_id: bytes) -> bool:
    """Return True if the newest entry follows from the one before."""
    rows = connection.rows(f"SELECT {_COLUMNS} FROM audit ORDER BY number DESC LIMIT 2")
    if not rows:
        return True
    if not all(map(raw_rows.AUDIT.fits, rows)):
        return False
    number, at, kind, seq, chain, text, said = rows[0]
    before = rows[1][-1] if rows[1:] else digest_zero(store_id)
    return bool(said == digest_next(before, number, (seq, chain), (at, kind, text)))


def digest_of(connection: Connection, number: int) -> bytes | None:
    """Return the digest of an entry, None if there is no such entry."""
    row = connection.row("SELECT number, digest FROM audit WHERE number = ?", (number,))
    if row is None:
        return None
    raw_rows.AUDIT_END.check(row, connection.path)
    digest: bytes = row[1]
    return digest


def read(connection: Connection, after: int = 0) -> tuple[list[AuditEntry], int | None]:
    """Return the entries after number *after*, in order, and the number to continue after; None at the end.

    Raises:
        Damaged: an entry is malformed: a field is invalid, or its detail is not a JSON object.
    """
    found: list[AuditEntry] = []
    for row in connection.rows(_ENTRIES, (after,)):
        number, at, kind, seq, chain, text, digest = row
        detail = _detail(text) if raw_rows.AUDIT.fits(row) else None
        if detail is None:
            if found:
                return found, found[-1].number  # those before it can be read
            raw_rows.AUDIT.check(row, connection.path)
            raise Damaged(f"{connection.path}: audit entry {number} is malformed; run store.check_audit()")
        found.append(AuditEntry(number, at, kind, seq, chain, detail, digest))
    return found, found[-1].number if len(found) == ROWS_AT_ONCE else None


def check_chain(connection: Connection, store_id: bytes) -> Iterator[tuple[AuditEntry, str]]:
    """Yield each entry with what is wrong with its place in the chain, `""` if nothing is (I12)."""
    expected, digest = 1, digest_zero(store_id)
    rows = map(raw_rows.decoded, connection.iterate(_RAW))
    for row in rows:
        number, at, kind, seq, chain, text, said = row
        finding = "" if number == expected else f"entry {number} stands where entry {expected} must be"
        expected = number + 1
        if not raw_rows.AUDIT.fits(row):
            finding = finding or f"entry {number} was changed: {raw_rows.AUDIT.wrong(row).partition(': ')[2]}"
            digest = said if raw_rows.is_digest(said) else bytes(fmt.DIGEST_BYTES)
            yield AuditEntry(number, "", "", 0, b"", {}, digest), finding
            continue
        if digest_next(digest, number, (seq, chain), (at, kind, text)) != said:
            finding = finding or f"entry {number} was changed, or is not the one after entry {number - 1}"
        digest = said
        detail = _detail(text)
        if detail is None:
            finding = finding or f"entry {number} has a detail that is not a JSON object"
        yield AuditEntry(number, at, kind, seq, chain, detail or {}, said), finding


def mentions(connection: Connection, name: str) -> bool:
    """Return True if an entry names the file *name*, which was unique, as removed."""
    pattern = json.dumps(name, ensure_ascii=False)
    return bool(connection.value("SELECT 1 FROM audit WHERE instr(detail, ?) LIMIT 1", (pattern,)))


def _detail(text: str) -> dict[str, Any] | None:
    """Return what an entry's detail says, None if it is not a JSON object."""
    try:
        detail = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return detail if isinstance(detail, dict) else None
