"""Checks the audit trail: its chain, and each entry's figures against the log and against each other."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from sqlstate.format import constants as fmt
from sqlstate.format.records import Head, Kind
from sqlstate.sqlite.wal_frames import FRAME_HEADER_BYTES, WAL_HEADER_BYTES
from sqlstate.tables import audit, cut_commits, migrations, wal, wal_raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.audit import AuditEntry
    from sqlstate.tables.meta import Meta

KINDS: Final = ("migration", "recovery", "check", "backup", "restore", "repair", "cut", "compact", "redact", "setting")
_LOST_MAX: Final = 100


def check(connection: Connection, meta: Meta) -> list[str]:
    """Return what is wrong with the audit trail, a sentence each; an empty list if nothing is."""
    return [what for _, what in wrong_entries(connection, meta)]


def wrong_entries(connection: Connection, meta: Meta) -> list[tuple[int, str]]:
    """Return number and fault of each audit entry that is wrong.

    Each entry must follow from the one before (I12), stand at a commit that is in the log, and say nothing that
    the log, the applied migrations or its own figures contradict.
    """
    found: list[tuple[int, str]] = []
    seq = 0
    with connection.one_state():
        head = wal.last(connection, meta)[1]
        for entry, fault in audit.check_chain(connection, meta.store_id):
            if fault:
                found.append((entry.number, fault))
                continue
            said = list(_check_entry(connection, meta, entry))
            if entry.seq < seq or entry.seq > head.seq:
                said.append(f"stands at commit {entry.seq}, out of order")
            found += [(entry.number, f"entry {entry.number} ({entry.kind}) {what}") for what in said]
            seq = max(seq, entry.seq)
    return found


# ---- What an entry says, by its kind ----

_Number = Annotated[int, msgspec.Meta(ge=0, le=fmt.NUMBER_MAX)]
_Digits = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{2})*\Z")]


class _Migration(msgspec.Struct):
    number: _Number
    name: str
    sha256: _Digits


class _Redacted(msgspec.Struct):
    entry: _Digits
    records: _Number


class _Copy(msgspec.Struct):
    seq: _Number
    root: _Digits


class _Compaction(msgspec.Struct):
    before: _Number
    after: _Number


class _Commit(msgspec.Struct):
    seq: _Number
    root: _Digits
    count: _Number
    chain: _Digits
    at: str


class _OtherJournal(msgspec.Struct):
    kind: str


class _WalJournal(_OtherJournal):
    bytes: _Number
    page_size: _Number
    frames: _Number
    valid: _Number
    committed: _Number
    commits: _Number
    uncommitted: _Number
    sqlite_frames: _Number | None
    agrees: bool | None


class _Recovery(msgspec.Struct):
    rolled_back: list[_Number]
    before: _Commit | None
    after: _Commit | None
    journal: dict[str, Any]


class _Resumption(msgspec.Struct):
    resumed: list[_Number]
    session: _Digits
    by: _Digits


class _Setting(msgspec.Struct):
    history_index: bool | None = None
    log_limit: _Number | None = None
    claim: str | None = None
    seq: _Number | None = None
    collection: str = ""
    log: Literal["values", "digests"] = "values"


class _Cut(msgspec.Struct):
    commits: _Number
    oldest: _Number


class _Repaired(msgspec.Struct):
    entries: _Number
    removed: _Number
    nodes: _Number
    records: _Number


class _Repair(msgspec.Struct):
    mended: _Repaired
    lost: list[tuple[str, str]]
    lost_count: _Number
    evidence: str
    from_: str | None = msgspec.field(name="from")


def digest_logs(connection: Connection, store_id: bytes) -> set[str]:
    """Return the collections of whose values the log keeps the digests only, as the audit trail says."""
    found: set[str] = set()
    for entry, _ in audit.check_chain(connection, store_id):
        if entry.kind == "setting" and "collection" in entry.detail:
            with suppress(msgspec.ValidationError):
                said = msgspec.convert(entry.detail, _Setting)
                (found.add if said.log == "digests" else found.discard)(said.collection)
    return found


def resumptions(connection: Connection, store_id: bytes) -> dict[int, bytes]:
    """Return the session that resumed a staged transaction last, by transaction, as the audit trail says."""
    found: dict[int, bytes] = {}
    for entry, _ in audit.check_chain(connection, store_id):
        if entry.kind == "recovery" and "resumed" in entry.detail:
            with suppress(msgspec.ValidationError):
                said = msgspec.convert(entry.detail, _Resumption)
                found |= dict.fromkeys(said.resumed, bytes.fromhex(said.by))
    return found


def _check_entry(connection: Connection, meta: Meta, entry: AuditEntry) -> Iterator[str]:
    if cut_commits.chain(connection, meta, entry.seq) != entry.chain:
        yield f"stands at a commit {entry.seq} that is not the one in the log"
    if entry.kind not in KINDS:
        yield "is of an unknown kind"
    try:
        if entry.kind == "migration":
            yield from _check_migration(connection, entry, msgspec.convert(entry.detail, _Migration))
        elif entry.kind in ("backup", "restore"):
            yield from _check_copy(connection, meta, msgspec.convert(entry.detail, _Copy))
        elif entry.kind == "recovery" and "resumed" in entry.detail:
            for txn in msgspec.convert(entry.detail, _Resumption).resumed:
                if not _has(connection, meta, txn, Kind.BEGIN):
                    yield f"resumed a staged transaction {txn} that is not in the log"
        elif entry.kind == "recovery":
            yield from _check_recovery(connection, meta, msgspec.convert(entry.detail, _Recovery))
        elif entry.kind == "redact":
            msgspec.convert(entry.detail, _Redacted)
        elif entry.kind == "repair":
            yield from _check_repair(msgspec.convert(entry.detail, _Repair))
        else:
            yield from _check_other(entry)
    except msgspec.ValidationError as e:
        yield f"lacks a figure, or has one that cannot be: {e}"


def _check_other(entry: AuditEntry) -> Iterator[str]:
    if entry.kind == "redact":
        msgspec.convert(entry.detail, _Redacted)
    elif entry.kind == "cut":
        msgspec.convert(entry.detail, _Cut)
    elif entry.kind == "compact":
        msgspec.convert(entry.detail, _Compaction)
    elif entry.kind == "setting":
        msgspec.convert(entry.detail, _Setting)
        if not entry.detail.keys() & {"history_index", "log_limit", "claim", "collection"}:
            yield "sets nothing that can be set"


def _check_migration(connection: Connection, entry: AuditEntry, said: _Migration) -> Iterator[str]:
    applied = [(number, name, digest.hex(), at) for number, name, digest, at in migrations.applied(connection)]
    if (said.number, said.name, said.sha256, entry.at) not in applied:
        yield f"names a migration {said.number} that is not the one applied"


def _check_copy(connection: Connection, meta: Meta, said: _Copy) -> Iterator[str]:
    commit = _commit(connection, meta, said.seq)
    if commit is not _CUT and (commit is None or commit.root.hex() != said.root):
        yield f"names a commit {said.seq} that is not the one in the log"


def _check_recovery(connection: Connection, meta: Meta, said: _Recovery) -> Iterator[str]:
    for txn in said.rolled_back:
        if not _has(connection, meta, txn, Kind.ROLLBACK):
            yield f"rolled back a staged transaction {txn} whose ROLLBACK is not in the log"
    for name, head in (("before", said.before), ("after", said.after)):
        if head is None:
            continue
        commit = _commit(connection, meta, head.seq)
        if commit is _CUT:
            continue
        if commit is None or (commit.root.hex(), commit.count, commit.chain.hex(), commit.at) != (
            head.root,
            head.count,
            head.chain,
            head.at,
        ):
            yield f"names a commit {head.seq} {name} recovery that is not the one in the log"
    if msgspec.convert(said.journal, _OtherJournal).kind == "wal":
        yield from _check_journal(msgspec.convert(said.journal, _WalJournal))


def _check_journal(said: _WalJournal) -> Iterator[str]:
    committed, valid, frames, size = said.committed, said.valid, said.frames, said.bytes
    if not (said.commits <= committed <= valid <= frames and committed + said.uncommitted == valid):
        yield "counts more frames committed than valid, or more valid than there are"
    if frames and size < WAL_HEADER_BYTES + frames * (FRAME_HEADER_BYTES + said.page_size):
        yield f"counts {frames} frames in {size} bytes"
    if said.agrees is not None and said.agrees != (said.sqlite_frames == committed):
        yield f"says that {said.sqlite_frames} frames of SQLite's agree with {committed}, or the contrary"


def _check_repair(said: _Repair) -> Iterator[str]:
    if len(said.lost) != min(said.lost_count, _LOST_MAX):
        yield f"lists {len(said.lost)} entries as lost, and counts {said.lost_count!r}"
    if said.from_ is not None and not _is_file_name(said.from_):
        yield f"was drawn from {said.from_!r}, which is not the name of a file"
    if not _is_file_name(said.evidence):
        yield f"put {said.evidence!r} aside, which is not the name of a file"


def _is_file_name(value: str) -> bool:
    return value not in ("", ".", "..") and not set(value) & {"/", "\0"}


def _has(connection: Connection, meta: Meta, txn: int, kind: Kind) -> bool:
    """Return True if a staged transaction has a record of a kind, as far as the log reaches back."""
    records = wal_raw.staged_raw(connection, txn, fmt.INT_MAX)
    return txn <= wal.start(connection, meta)[0] or any(record.kind == kind for record in records)


def _commit(connection: Connection, meta: Meta, seq: int) -> Head | None:
    """Return a commit, None if there is none, and _CUT for one of which the chain alone is there."""
    return _CUT if seq < wal.start(connection, meta)[1].seq else wal.head_of(connection, meta, seq)


_CUT: Final = Head(0, b"", 0, "", b"")
