"""Checks the audit trail: its chain, and each entry's figures against the log and against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlstate import audit, migrate, wal
from sqlstate.wal import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlstate.audit import AuditEntry
    from sqlstate.connection import Connection
    from sqlstate.meta import Meta
    from sqlstate.wal import Head

KINDS: Final = ("migration", "recovery", "check", "backup", "restore", "repair", "prune")
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_MENDED: Final = ("entries", "removed", "nodes", "records")
_LOST_MAX: Final = 100


def check(connection: Connection, meta: Meta) -> list[str]:
    """Return what is wrong with the audit trail, a sentence each; an empty list if nothing is.

    Each entry must follow from the one before (I12), stand at a commit that is in the log, and say nothing that
    the log, the applied migrations or its own figures contradict.
    """
    findings: list[str] = []
    seq = 0
    with connection.one_state():
        head = wal.last(connection, meta)[1]
        for entry, finding in audit.check_chain(connection, meta.store_id):
            if finding:
                findings.append(finding)
                continue
            said = list(_check_entry(connection, meta, entry))
            if entry.seq < seq or entry.seq > head.seq:
                said.append(f"stands at commit {entry.seq}, out of order")
            findings += [f"entry {entry.number} ({entry.kind}) {what}" for what in said]
            seq = max(seq, entry.seq)
    return findings


def _check_entry(connection: Connection, meta: Meta, entry: AuditEntry) -> Iterator[str]:
    commit = _commit(connection, meta, entry.seq)
    if commit is None or commit.chain != entry.chain:
        yield f"stands at a commit {entry.seq} that is not the one in the log"
    if entry.kind not in KINDS:
        yield "is of no kind that there is"
    check = _CHECKS.get(entry.kind)
    if check is not None:
        try:
            yield from check(connection, meta, entry.detail)
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            yield f"lacks a figure, or has one that cannot be: {e!r}"


def _check_migration(connection: Connection, _: Meta, detail: Mapping[str, Any]) -> Iterator[str]:
    if (detail["number"], detail["name"], bytes.fromhex(detail["sha256"])) not in migrate.applied(connection):
        yield f"names a migration {detail['number']} that is not the one applied"


def _check_copy(connection: Connection, meta: Meta, detail: Mapping[str, Any]) -> Iterator[str]:
    commit = _commit(connection, meta, detail["seq"])
    if commit is None or commit.root.hex() != detail["root"]:
        yield f"names a commit {detail['seq']} that is not the one in the log"


def _check_recovery(connection: Connection, meta: Meta, detail: Mapping[str, Any]) -> Iterator[str]:
    if "resumed" in detail:
        for txn in detail["resumed"]:
            if not _has(connection, txn, Kind.BEGIN):
                yield f"resumed a staged transaction {txn} that is not in the log"
        return
    for txn in detail["rolled_back"]:
        if not _has(connection, txn, Kind.ROLLBACK):
            yield f"rolled back a staged transaction {txn} whose ROLLBACK is not in the log"
    for name in ("before", "after"):
        said = detail[name]
        if said is None:
            continue
        commit = _commit(connection, meta, said["seq"])
        if commit is None or (commit.root.hex(), commit.count, commit.chain.hex(), commit.at) != (
            said["root"],
            said["count"],
            said["chain"],
            said["at"],
        ):
            yield f"names a commit {said['seq']} {name} recovery that is not the one in the log"
    yield from _check_journal(detail["journal"])


def _check_journal(journal: Mapping[str, Any]) -> Iterator[str]:
    if journal["kind"] != "wal":
        return
    committed, valid, frames, size = (journal[name] for name in ("committed", "valid", "frames", "bytes"))
    if not (journal["commits"] <= committed <= valid <= frames and committed + journal["uncommitted"] == valid):
        yield "counts more frames committed than valid, or more valid than there are"
    if frames and size < _WAL_HEADER + frames * (_FRAME_HEADER + journal["page_size"]):
        yield f"counts {frames} frames in {size} bytes"
    if journal["agrees"] is not None and journal["agrees"] != (journal["sqlite_frames"] == committed):
        yield f"says that {journal['sqlite_frames']} frames of SQLite's agree with {committed}, or the contrary"


def _check_repair(_: Connection, __: Meta, detail: Mapping[str, Any]) -> Iterator[str]:
    mended, lost, count = (detail[name] for name in ("mended", "lost", "lost_count"))
    for name in _MENDED:
        if not _is_number(mended[name]):
            yield f"counts {mended[name]!r} {name} mended"
    if not _is_number(count) or len(lost) != min(count, _LOST_MAX):
        yield f"lists {len(lost)} entries as lost, and counts {count!r}"
    if not all(isinstance(part, str) for collection, key in lost for part in (collection, key)):
        yield "lists as lost what is no name of an entry"
    if detail["from"] is not None and not _is_file_name(detail["from"]):
        yield f"was drawn from {detail['from']!r}, which is no name of a file"
    if not _is_file_name(detail["evidence"]):
        yield f"put {detail['evidence']!r} aside, which is no name of a file"


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & {"/", "\0"}


def _has(connection: Connection, txn: int, kind: Kind) -> bool:
    return any(record.kind is kind for record in wal.read_staged(connection, txn))


def _commit(connection: Connection, meta: Meta, seq: int) -> Head | None:
    return wal.commit(connection, seq) if seq else wal.head_zero(meta)


_CHECKS: Final[Mapping[str, Callable[[Connection, Meta, Mapping[str, Any]], Iterator[str]]]] = {
    "migration": _check_migration,
    "recovery": _check_recovery,
    "backup": _check_copy,
    "restore": _check_copy,
    "repair": _check_repair,
}
