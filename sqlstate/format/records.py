"""Records of the log, their canonical bytes, and the chain (docs/reference/file-format.md, sections 3.4, 7 and 8)."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from struct import Struct
from typing import Any, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.html import table
from sqlstate.format.merkle import Leaf, leaf
from sqlstate.format.names import Key, Stored, name_bytes, stored_name


class Kind(StrEnum):
    """What a record of the log says. A StrEnum: `record.kind == "PUT"` holds.

    Examples:
        >>> sqlstate.Kind.PUT == "PUT"
        True
    """

    BEGIN = "BEGIN"
    PUT = "PUT"
    DELETE = "DELETE"
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"


class Head(NamedTuple):
    """One commit, or the store before its first: a named tuple.

    Examples:
        >>> store["settings"]["lang"] = "fr"
        >>> head = store.head()
        >>> head.seq, head.count, head.root.hex()
        (1, 1, '...')
    """

    seq: int
    """Number of the commit, from 1 without holes; 0 before the first."""
    root: bytes
    """Root of the Merkle tree, 32 bytes."""
    count: int  # type: ignore[assignment]  # hides tuple.count, which no commit needs
    """Number of entries in the store."""
    at: str
    """When it was committed: ISO 8601, UTC, microseconds."""
    chain: bytes
    """Digest of the commit chain, 32 bytes: it depends on every commit before this one."""

    def __repr__(self) -> str:
        digests = f"root={self.root.hex()}, count={self.count}, at={self.at!r}, chain={self.chain.hex()}"
        return f"Head(seq={self.seq}, {digests})"

    def _repr_html_(self) -> str:
        return table(f"commit {self.seq}", zip(self._fields[1:], self[1:], strict=True))


class Record(NamedTuple):
    """One record of the log: a named tuple, whose fields are None where its kind does not have them.

    `value` and `before` are as stored: str for a JSON document, bytes for bytes, None for no value. `txn` is the LSN
    of the transaction's BEGIN; `session` is None for a direct transaction.

    Examples:
        >>> store["users"][1] = "ada"
        >>> record = list(store.wal.read())[1]
        >>> record.lsn, record.kind.value, record.collection, record.key, record.value, record.before
        (2, 'PUT', 'users', 1, '"ada"', None)
    """

    lsn: int
    """Log sequence number: it grows with each record."""
    txn: int
    """LSN of the transaction's BEGIN."""
    kind: Kind
    """What the record says."""
    session: bytes | None = None
    """16 bytes of the handle that began a staged transaction."""
    collection: str | None = None
    """Name of the entry's collection."""
    key: Key | None = None
    """Key of the entry."""
    value: Stored | None = None
    """Value of the entry, as stored; or its leaf."""
    before: Stored | None = None
    """Value before, as stored; or its leaf."""
    seq: int | None = None
    """Number of the commit, in each COMMIT."""
    root: bytes | None = None
    """Root of the Merkle tree, in the COMMIT that closes a commit."""
    count: int | None = None  # type: ignore[assignment]  # as in Head
    """Number of entries, likewise."""
    at: str | None = None
    """When: ISO 8601, UTC, microseconds."""
    chain: bytes | None = None
    """Digest of the commit chain, in the COMMIT that closes a commit."""
    note: str | None = None
    """The caller's note, in BEGIN."""
    records: bytes | None = None
    """Digest of the commit's records, in the COMMIT that closes a commit."""
    total: int | None = None
    """Bytes of all records up to this one, about, in the COMMIT that closes a commit."""
    digests: int | None = None
    """Which values are digests, the leaves of what they stand for: 1 for `value`, 2 for `before`, 3 for both."""


def chain_zero(store_id: bytes) -> bytes:
    """Return the chain's digest before the first commit."""
    return sha256(fmt.TAG_CHAIN + store_id).digest()


def chain_next(chain: bytes, head: tuple[int, bytes, int, str], records_digest: bytes) -> bytes:
    """Return the chain's digest after a commit with (seq, root, count, at) of *head* (I6)."""
    seq, root, count, at = head
    time = at.encode()
    link = _LINK.pack(fmt.TAG_CHAIN, chain, seq, root, count, len(time)) + time + records_digest
    return sha256(link).digest()


_LINK = Struct(">c32sQ32sQI")
_BEGIN = Struct(">QQcI")
_SHORT = Struct(">QQcII QQcI32s32s QQc")
_CHANGE = Struct(">QQc")


def begin_bytes(lsn: int, note: str, at: str | None) -> bytes:
    """Return the canonical bytes of a BEGIN record."""
    text, time = note.encode(), (at or "").encode()
    return _BEGIN.pack(lsn, lsn, fmt.RECORD_BEGIN, len(text)) + text + len(time).to_bytes(4) + time


def change_bytes(lsn: int, txn: int, before: bytes | None, after: bytes | None) -> bytes:
    """Return the canonical bytes of a PUT or DELETE record, from the leaves before and after."""
    if after is None:
        return _CHANGE.pack(lsn, txn, fmt.RECORD_DELETE) + (before or b"")
    if before is None:
        return _CHANGE.pack(lsn, txn, fmt.RECORD_PUT) + b"\0\0\0\0" + after
    return _CHANGE.pack(lsn, txn, fmt.RECORD_PUT) + b"\0\0\0\x20" + before + after


def commit_bytes(lsn: int, txn: int) -> bytes:
    """Return the canonical bytes of a COMMIT record."""
    return _CHANGE.pack(lsn, txn, fmt.RECORD_COMMIT)


def short_bytes(lsn: int, before: bytes | None, after: bytes | None) -> bytes:
    """Return the canonical bytes of BEGIN without a note, one change and COMMIT, from the leaves before and after."""
    if after is None:
        return begin_bytes(lsn, "", None) + change_bytes(lsn + 1, lsn, before, None) + commit_bytes(lsn + 2, lsn)
    if before is None:
        return begin_bytes(lsn, "", None) + change_bytes(lsn + 1, lsn, None, after) + commit_bytes(lsn + 2, lsn)
    return _SHORT.pack(
        lsn, lsn, fmt.RECORD_BEGIN, 0, 0,
        lsn + 1, lsn, fmt.RECORD_PUT, fmt.DIGEST_BYTES, before, after,
        lsn + 2, lsn, fmt.RECORD_COMMIT,
    )  # fmt: skip


def record_bytes(record: Record) -> bytes:
    """Return the canonical bytes of any record that belongs to a commit."""
    if record.kind == Kind.BEGIN:
        return begin_bytes(record.lsn, record.note or "", record.at)
    if record.kind == Kind.COMMIT:
        return commit_bytes(record.lsn, record.txn)
    assert record.collection is not None and record.key is not None  # noqa: S101, PT018, for the type checker
    name = name_bytes(stored_name(record.collection, record.key))
    return change_bytes(record.lsn, record.txn, *leaves(name, record.before, record.value, record.digests))


def leaves(
    name: bytes, before: Stored | None, value: Stored | None, digests: int | None
) -> tuple[bytes | None, bytes | None]:
    """Return the leaves of an entry, with *name* (`name_bytes()`), before and after a PUT or DELETE record."""
    marks = digests or 0
    old = before if before is None or marks & fmt.BEFORE_DIGEST else leaf(name, before)
    new = value if value is None or marks & fmt.VALUE_DIGEST else leaf(name, value)
    return old, new  # type: ignore[return-value]  # a digest is bytes


def logged(before: Any, value: Any, digests: Any) -> tuple[Any, Any]:
    """Return `before` and `value` of a record, each as a Leaf if *digests* says that it is a digest."""
    marks = digests if type(digests) is int else 0
    return (
        Leaf(before) if marks & fmt.BEFORE_DIGEST and type(before) is bytes else before,
        Leaf(value) if marks & fmt.VALUE_DIGEST and type(value) is bytes else value,
    )


def marks_of(before: Any, value: Any) -> int | None:
    """Return `digests` of a record with these values: which of them are leaves."""
    marks = fmt.BEFORE_DIGEST * (type(before) is Leaf) | fmt.VALUE_DIGEST * (type(value) is Leaf)
    return marks or None


def staged_digest(before: bytes, session: bytes | None, body: bytes) -> bytes:
    """Return the digest of a staged BEGIN, PUT or DELETE record, from that of the one before and its bytes (I14)."""
    return sha256(fmt.TAG_STAGED + before + (session or b"") + body).digest()
