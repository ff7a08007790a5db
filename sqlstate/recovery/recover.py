"""Finishes recovery once SQLite has recovered: rolls back staged transactions of dead processes, and records it.

All writes are one SQLite transaction: the ROLLBACK records, one audit entry, the dirty flag with a new nonce. After a
crash anywhere in here, the next open ends in the same state, with one audit entry for each thing done.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from sqlstate.commit.clock import now
from sqlstate.errors import Busy, Damaged, StoreFull
from sqlstate.files import paths, sessions
from sqlstate.files import replace as files
from sqlstate.format.records import Kind, Record
from sqlstate.recovery.damage import journal_damaged, recovery_due
from sqlstate.recovery.report import Inspection, Recover, RecoveryReport, report_of, summary
from sqlstate.sqlite.events import log
from sqlstate.tables import audit, log_blocks, staged, wal
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine


def admit_connected(engine: Engine, found: Inspection, store_id: bytes, how: Recover) -> None:
    """Decide, once SQLite has the file open and before anything is written, whether the store may be opened.

    Raises:
        RecoveryDue: there is something to recover, and *how* is `"refuse"`.
    """
    if how != "refuse" or engine.read_only:
        return
    dead = _dead(engine)
    if dead or files.orphans(engine.real_path, store_id):
        raise recovery_due(engine, replace(report_of(engine, found), pending=tuple(dead)))


def recover(writer: WriteContext, found: Inspection, how: Recover, evidence: tuple[str, ...]) -> RecoveryReport:
    """Finish recovery once SQLite has the file open, and return the report.

    Args:
        writer: of the store.
        found: the result of inspect().
        how: what to do with staged transactions of dead sessions.
        evidence: the result of admit().

    Raises:
        JournalDamaged: SQLite did not recover what it should have.
        RecoveryDue: there is something to recover, and *how* is `"refuse"`.
    """
    start = perf_counter()
    engine = writer.engine
    report = replace(report_of(engine, found), evidence=evidence)
    report = _compared(writer, found, report)
    dead = _dead(engine)
    orphans = files.orphans(engine.real_path, writer.meta.store_id)
    due = bool(not report.clean or dead or orphans) and not (report.shared and not dead and not orphans)
    if due and engine.read_only:
        report = replace(report, due=True, pending=tuple(dead))
    elif due and how == "refuse":
        raise recovery_due(engine, report)
    elif due:
        report = _recovered_if_room(writer, found, replace(report, pending=tuple(dead)), how, orphans)
    if not engine.read_only and how != "refuse" and engine.journal == "delete":
        engine.files.drop_empty_journals()
    if not engine.read_only:
        for session in sessions.dead_sessions(engine.real_path, writer.meta.store_id):
            sessions.remove_session(engine.real_path, session, writer.meta.store_id)
    report = replace(report, seconds=found.seconds + perf_counter() - start)
    if due:
        noteworthy = report.damage or report.rolled_back or report.due
        log("warning" if noteworthy else "info", f"{engine.path}: {summary(report)}")
    return report


def _recovered_if_room(
    writer: WriteContext, found: Inspection, report: RecoveryReport, how: Recover, orphans: list[str]
) -> RecoveryReport:
    """Do the recovery; on a full disk leave it to the next open, since committed data can be used without it."""
    for _ in range(2):
        with suppress(StoreFull):
            return _recovered(writer, found, report, how, orphans)
        writer.engine.checkpointer.make_room()
    writer.dirty_flag.recovery_due = True
    return replace(report, due=True)


def _recovered(
    writer: WriteContext, found: Inspection, report: RecoveryReport, how: Recover, orphans: list[str]
) -> RecoveryReport:
    """Do the recovery in one SQLite transaction; then remove *orphans*."""
    engine, connection = writer.engine, writer.engine.write_connection
    connection.begin()
    try:
        if not report.clean and _is_recorded(connection, found):
            report = replace(report, shared=True)  # another process was faster, and has recovered
        writer.dirty_flag.ensure_dirty()
        if report.damage:  # the main file may hold blocks of commits that are lost
            log_blocks.trim(connection, wal.last(connection, writer.meta)[1].seq)
        rolled_back = () if how == "resume" else _roll_back(writer)
        removed = tuple(name for name in map(paths.as_text, orphans) if not audit.mentions(connection, name))
        report = replace(
            report,
            rolled_back=rolled_back,
            pending=tuple(_dead(engine)),
            removed=removed,
            after=wal.last(connection, writer.meta)[1],
        )
        crashed = not report.clean and not report.shared
        if crashed or rolled_back or removed:
            report = replace(report, entry=_note(writer, report, how))
        if crashed:
            writer.dirty_flag.renew()
        if report.entry is None:
            connection.rollback()
        else:
            writer.commit_unnumbered("recovery")
    except BaseException:
        if engine.usable:
            connection.rollback()
        raise
    if report.damage and report.entry is not None:
        _truncate_wal(writer)
    for name in orphans:
        files.remove_orphan(engine.real_path, name, writer.meta.store_id)
    return report


def _truncate_wal(writer: WriteContext) -> None:
    """Empty SQLite's WAL once damage was accepted, so that the damage is not found again after the next crash."""
    if writer.engine.journal == "wal" and writer.dirty_flag.clear():
        with suppress(Busy, StoreFull):
            writer.engine.write_connection.checkpoint("truncate")


def _is_recorded(connection: Connection, found: Inspection) -> bool:
    """Return True if another process has recorded this crash since inspect() looked.

    The dirty flag does not show it: a process that opens the store while SQLite recovers for this one sees no crash,
    rolls back the staged transactions of dead sessions, and sets the flag with a nonce of its own.
    """
    if found.audited:
        newer = audit.read(connection, found.audited)[0]
        return any(entry.kind == "recovery" and not entry.detail.get("clean", True) for entry in newer)
    return found.flag is not None and metadata.read_dirty_flag(connection) != found.flag


def _compared(writer: WriteContext, found: Inspection, report: RecoveryReport) -> RecoveryReport:
    """Compare what SQLite recovered with what it should have."""
    engine, connection = writer.engine, writer.engine.write_connection
    with connection.one_state():
        head = wal.last(connection, writer.meta)[1]
        report = replace(report, after=head)
        if report.shared:
            return report
        if found.journal.kind == "rollback" and found.journal.committed:
            return replace(report, checked=_check_newest(engine, connection, writer, report))
    if found.journal.kind != "wal" or (report.damage and not found.goes_on):
        return report
    if engine.opener.frozen is not None:  # SQLite recovered nothing
        return report
    frames = engine.recovered_frames
    agrees = frames == found.journal.committed
    if not agrees and (found.after != head or metadata.read_dirty_flag(connection) != found.flag):
        return replace(report, shared=True)  # another process opened it after the scan, and has committed
    report = replace(report, journal=replace(report.journal, sqlite_frames=frames, agrees=agrees))
    if not agrees:
        raise journal_damaged(
            engine,
            replace(report, damage="rot"),
            f"SQLite recovered {frames} frames of its -wal instead of {found.journal.committed}",
        )
    return report


def _check_newest(engine: Engine, connection: Connection, writer: WriteContext, report: RecoveryReport) -> str:
    """Check the newest commit, after SQLite has rolled back the unfinished one."""
    from sqlstate.recovery.verify_content import check_commits  # noqa: PLC0415, only a crash needs it

    lsn, head = wal.last(connection, writer.meta)
    base = wal.base_of(connection, wal.commit_lsn(connection, head.seq)) if head.seq else lsn
    try:
        return check_commits(connection, (base, wal.head_at(connection, writer.meta, base)), head)
    except Damaged as e:
        raise journal_damaged(
            engine, replace(report, damage="rot"), f"its -journal did not restore the file: {e}"
        ) from e


def _dead(engine: Engine) -> list[int]:
    """Return the staged transactions whose session is dead."""
    path = engine.real_path
    alive: dict[bytes, bool] = {}
    found = []
    for txn, session in staged.sessions(engine.write_connection):
        if session not in alive:
            alive[session] = sessions.session_alive(path, session)
        if not alive[session]:
            found.append(txn)
    return found


def _roll_back(writer: WriteContext) -> tuple[int, ...]:
    """Write ROLLBACK for the staged transactions of dead sessions, inside the open transaction."""
    connection = writer.engine.write_connection
    lsn = wal.last(connection, writer.meta)[0]
    dead = _dead(writer.engine)
    for lsn_, txn in enumerate(dead, lsn + 1):
        session = wal.read_begin(connection, txn).session
        wal.write(connection, Record(lsn_, txn, Kind.ROLLBACK, session, at=now()))
        staged.remove(connection, txn)
        writer.total += wal.size_of_staged(connection, txn)
    return tuple(dead)


def _note(writer: WriteContext, report: RecoveryReport, how: Recover) -> int:
    connection = writer.engine.write_connection
    detail = report.as_dict()
    detail["how"] = how
    detail["evidence"] = [paths.as_text(os.path.basename(path)) for path in report.evidence]
    for name in ("entry", "due", "seconds"):
        del detail[name]
    head = wal.last(connection, writer.meta)[1]
    return audit.append(connection, writer.meta.store_id, head, now(), ("recovery", detail))
