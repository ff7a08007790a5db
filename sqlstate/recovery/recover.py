"""Recovery at open: judges what a crash left, lets SQLite recover, ends what the dead left open, and says so.

Everything that is written is one SQLite transaction: staged transactions rolled back, one audit entry, a new
marker. A crash anywhere in here, and opening again, ends in the same state with one entry for each thing done.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlstate.commit.commit import now
from sqlstate.errors import Busy, Damaged, JournalDamaged, RecoveryDue, StoreFull, StoreIOError
from sqlstate.files import replace as files
from sqlstate.proving import commits as history
from sqlstate.recovery.inspect import Inspection, JournalReport, check_commits, prove
from sqlstate.tables import audit, wal
from sqlstate.tables import meta as metadata
from sqlstate.tables.wal import Kind, Record

if TYPE_CHECKING:
    from sqlstate.commit.commit import Writer
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.wal import Head

Recover = Literal["rollback", "resume", "refuse", "accept"]
WAYS: Final = ("rollback", "resume", "refuse", "accept")
# check_sqlite() lets no other pass.
VERDICT: Final = "has the WAL-reset fix"
# Of these, nothing may be merged, however well it goes on: the -wal is moved away before SQLite can see it.
_NOT_OURS: Final = ("foreign", "stale")
_COPIED_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What was found when the store was opened, and what was done about it."""

    clean: bool
    """The last close was clean, or the store is new."""
    shared: bool = False
    """Others had it open: what the journal holds is theirs, and was not judged."""
    due: bool = False
    """There is something to recover, and it was not done: the store was opened for reading, or the disk is full."""
    damage: str = ""
    """`""`, or `"rot"`, `"truncated"`, `"missing"`, `"foreign"`, `"stale"` or `"header"`: of SQLite's journal; or
    `"copy"`: the file is a copy of a store that was open."""
    journal: JournalReport = field(default_factory=JournalReport)
    rolled_back: tuple[int, ...] = ()
    """Staged transactions of dead sessions that were rolled back, by number."""
    pending: tuple[int, ...] = ()
    """Those left for store.resume()."""
    in_doubt: int | None = None
    """After a crash, the newest commit: it is there, and nobody knows whether its caller was told."""
    removed: tuple[str, ...] = ()
    """Names of orphaned temporary files that were removed."""
    before: Head | None = None
    """The newest commit in the main file alone; None if that could not be read by itself."""
    after: Head | None = None
    """The newest commit after recovery; None in the report of an error that came before."""
    checked: str = "nothing to check"
    """How root and chain were checked."""
    sqlite: str = ""
    """Version of the SQLite library."""
    verdict: str = VERDICT
    """What is known of that version."""
    seconds: float = 0.0
    """What all of it took."""
    scan_seconds: float = 0.0
    """What looking at the journal took."""
    entry: int | None = None
    """Number of the audit entry, None if nothing was done."""
    evidence: tuple[str, ...] = ()
    """Paths of copies that were put aside."""

    def as_dict(self) -> dict[str, Any]:
        """Return it in plain JSON types; digests in hexadecimal digits."""
        facts = asdict(self)
        facts["before"], facts["after"] = _head_facts(self.before), _head_facts(self.after)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}


def admit(engine: Engine, found: Inspection, how: Recover) -> tuple[str, ...]:
    """Decide, before SQLite touches anything, whether the store may be opened.

    Returns the paths of what was put aside, when damage is accepted.

    Raises:
        JournalDamaged: SQLite's journal is damaged, and that is not accepted, or nothing can be proven without it.
        RecoveryDue: the last close was not clean, and how is `"refuse"`.
    """
    if found.damage:
        return _admit_damaged(engine, found, how)
    if how == "refuse" and _is_unclean(found) and not found.shared:
        raise _due(engine, _report(engine, found))
    return ()


def admit_connected(engine: Engine, found: Inspection, store_id: bytes, how: Recover) -> None:
    """Decide, once SQLite has the file open and before anything is written, whether it may be.

    Raises:
        RecoveryDue: there is something to recover, and how is `"refuse"`.
    """
    if how != "refuse" or engine.read_only:
        return
    dead = _dead(engine)
    if dead or files.orphans(engine.real_path, store_id):
        raise _due(engine, replace(_report(engine, found), pending=tuple(dead)))


def recover(writer: Writer, found: Inspection, how: Recover, evidence: tuple[str, ...]) -> RecoveryReport:
    """Finish recovery once SQLite has the file open, and return the report.

    Args:
        writer: of the store.
        found: what inspect() found.
        how: what becomes of staged transactions of dead sessions.
        evidence: what admit() returned.

    Raises:
        JournalDamaged: SQLite recovered something else than it should have.
        RecoveryDue: there is something to recover, and how is `"refuse"`.
    """
    start = perf_counter()
    engine = writer.engine
    report = replace(_report(engine, found), evidence=evidence)
    report = _compared(writer, found, report)
    dead = _dead(engine)
    orphans = files.orphans(engine.real_path, writer.meta.store_id)
    due = bool(not report.clean or dead or orphans) and not (report.shared and not dead and not orphans)
    if due and engine.read_only:
        report = replace(report, due=True, pending=tuple(dead))
    elif due and how == "refuse":
        raise _due(engine, report)
    elif due:
        report = _recovered_if_room(writer, found, replace(report, pending=tuple(dead)), how, orphans)
    if not engine.read_only and how != "refuse":
        engine.drop_empty_journals()
    if not engine.read_only:
        for session in files.dead_sessions(engine.real_path, writer.meta.store_id):
            files.remove_session(engine.real_path, session, writer.meta.store_id)
    return replace(report, seconds=found.seconds + perf_counter() - start)


def _recovered_if_room(
    writer: Writer, found: Inspection, report: RecoveryReport, how: Recover, orphans: list[str]
) -> RecoveryReport:
    """Do what is due; on a full disk leave it to the next open: what was committed can be used all the same."""
    for _ in range(2):
        with suppress(StoreFull):
            return _recovered(writer, found, report, how, orphans)
        writer.engine.make_room()
    writer.marking.recovery_due = True
    return replace(report, due=True)


def _recovered(
    writer: Writer, found: Inspection, report: RecoveryReport, how: Recover, orphans: list[str]
) -> RecoveryReport:
    """Do what is due, in one SQLite transaction; then remove *orphans*."""
    engine, connection = writer.engine, writer.engine.writer
    connection.begin()
    try:
        if not report.clean and _is_told(connection, found):
            report = replace(report, shared=True)  # somebody else was faster, and has recovered
        writer.marking.ensure_open()
        if report.damage:  # the main file may hold blocks of commits that are lost
            history.trim(connection, wal.last(connection, writer.meta)[1].seq)
        rolled_back = () if how == "resume" else _roll_back(writer)
        removed = tuple(name for name in map(files.as_text, orphans) if not audit.mentions(connection, name))
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
            writer.marking.renew()
        if report.entry is None:
            connection.rollback()
        else:
            writer.commit_other("recovery")
    except BaseException:
        if engine.usable:
            connection.rollback()
        raise
    if report.damage and report.entry is not None:
        _begin_anew(writer)
    for name in orphans:
        files.remove_orphan(engine.real_path, name, writer.meta.store_id)
    return report


def _begin_anew(writer: Writer) -> None:
    """Empty SQLite's WAL once damage was accepted: what is damaged in it must not be found again after a crash."""
    if writer.engine.journal == "wal" and writer.marking.rest():
        with suppress(Busy, StoreFull):
            writer.engine.writer.empty_wal()


def _is_told(connection: Connection, found: Inspection) -> bool:
    """Return True if another process has recorded this crash since inspect() looked.

    The marker does not say so: a process that opens the store while SQLite recovers for this one sees no crash, rolls
    back the staged transactions of dead sessions, and opens the marker under a nonce of its own.
    """
    if found.audited:
        newer = audit.read(connection, found.audited)[0]
        return any(entry.kind == "recovery" and not entry.detail.get("clean", True) for entry in newer)
    return found.marker is not None and metadata.read_marker(connection) != found.marker


def _compared(writer: Writer, found: Inspection, report: RecoveryReport) -> RecoveryReport:
    """Compare what SQLite recovered with what it should have."""
    engine, connection = writer.engine, writer.engine.writer
    with connection.one_state():
        head = wal.last(connection, writer.meta)[1]
        report = replace(report, after=head)
        if report.shared:
            return report
        if found.journal.kind == "rollback" and found.journal.committed:
            return replace(report, checked=_check_newest(engine, connection, writer, report))
    if found.journal.kind != "wal" or (report.damage and not found.goes_on):
        return report
    if engine.opener.frozen is not None:  # SQLite was not asked
        return report
    frames = engine.recovered_frames
    agrees = frames == found.journal.committed
    if not agrees and (found.after != head or metadata.read_marker(connection) != found.marker):
        return replace(report, shared=True)  # somebody else opened it after the scan, and has committed
    report = replace(report, journal=replace(report.journal, sqlite_frames=frames, agrees=agrees))
    if not agrees:
        raise _damaged(
            engine,
            replace(report, damage="rot"),
            f"SQLite recovered {frames} frames of its -wal, and {found.journal.committed} were to be",
        )
    return report


def _check_newest(engine: Engine, connection: Connection, writer: Writer, report: RecoveryReport) -> str:
    """Check the newest commit, after SQLite has rolled back the one behind it."""
    lsn, head = wal.last(connection, writer.meta)
    base = wal.base_of(connection, wal.commit_lsn(connection, head.seq)) if head.seq else lsn
    try:
        return check_commits(connection, (base, wal.head_at(connection, writer.meta, base)), head)
    except Damaged as e:
        raise _damaged(engine, replace(report, damage="rot"), f"its -journal did not restore the file: {e}") from e


def _dead(engine: Engine) -> list[int]:
    """Return the staged transactions whose session is dead."""
    path = engine.real_path
    alive: dict[bytes, bool] = {}
    found = []
    for txn, session in wal.sessions(engine.writer):
        if session not in alive:
            alive[session] = files.session_alive(path, session)
        if not alive[session]:
            found.append(txn)
    return found


def _roll_back(writer: Writer) -> tuple[int, ...]:
    """Write ROLLBACK for the staged transactions of dead sessions, inside the open transaction."""
    connection = writer.engine.writer
    lsn = wal.last(connection, writer.meta)[0]
    dead = _dead(writer.engine)
    for lsn_, txn in enumerate(dead, lsn + 1):
        session = wal.read_begin(connection, txn).session
        wal.write(connection, Record(lsn_, txn, Kind.ROLLBACK, session, at=now()))
        wal.clear_staged(connection, txn)
    return tuple(dead)


def _note(writer: Writer, report: RecoveryReport, how: Recover) -> int:
    connection = writer.engine.writer
    detail = report.as_dict()
    detail["how"] = how
    detail["evidence"] = [files.as_text(os.path.basename(path)) for path in report.evidence]
    for name in ("entry", "due", "seconds"):
        del detail[name]
    head = wal.last(connection, writer.meta)[1]
    return audit.append(connection, writer.meta.store_id, head, now(), ("recovery", detail))


def _report(engine: Engine, found: Inspection) -> RecoveryReport:
    clean = not _is_unclean(found)
    return RecoveryReport(
        clean=clean,
        shared=found.shared,
        damage=found.damage,
        journal=found.journal,
        in_doubt=found.after.seq or None if found.after is not None and not clean else None,
        before=found.before,
        after=found.after,
        checked=found.checked,
        sqlite=engine.sqlite_version,
        seconds=found.seconds,
        scan_seconds=found.seconds,
    )


def _is_unclean(found: Inspection) -> bool:
    if found.damage:
        return True
    if found.journal.kind == "rollback":
        return True
    return found.marker is not None and found.marker.open


def _head_facts(head: Head | None) -> dict[str, Any] | None:
    if head is None:
        return None
    return {
        "seq": head.seq,
        "root": head.root.hex(),
        "count": head.count,
        "at": head.at,
        "chain": head.chain.hex(),
    }


# ---- Damage ----


def _admit_damaged(engine: Engine, found: Inspection, how: Recover) -> tuple[str, ...]:
    report = _report(engine, found)
    if how == "refuse" or engine.read_only:
        raise _damaged(engine, report, found.reason)
    suffix = "-journal" if found.journal.kind == "rollback" else "-wal"
    if how != "accept" or found.shared:
        evidence = () if found.shared else _put_aside(engine, found, suffix, move=False)
        raise _damaged(engine, replace(report, evidence=evidence), found.reason)
    try:
        _prove(engine, found)
    except Damaged as e:
        evidence = _put_aside(engine, found, suffix, move=False)
        raise JournalDamaged(
            f"{engine.path}: {found.reason}; and what is left cannot be proven: {e} Nothing was changed. "
            "Restore a backup",
            replace(report, evidence=evidence),
            evidence,
        ) from e
    not_ours = found.damage in _NOT_OURS or (found.journal.kind == "wal" and not found.goes_on)
    return _put_aside(engine, found, suffix, move=not_ours)


def _prove(engine: Engine, found: Inspection) -> None:
    """Check everything with what can be taken from SQLite's journal; or without it, if that is all that can be proven.

    Of a -wal nothing is taken unless it goes on where the main file ends.
    """
    ours = found.damage not in _NOT_OURS
    found.goes_on = found.goes_on and ours
    try:
        prove(engine, found, with_journal=found.goes_on or (ours and found.journal.kind == "rollback"))
    except Damaged:
        if not found.goes_on:
            raise
        prove(engine, found, with_journal=False)
        found.goes_on = False


def _damaged(engine: Engine, report: RecoveryReport, reason: str) -> JournalDamaged:
    aside = f" A copy of it is {', '.join(report.evidence)}." if report.evidence else ""
    what_to_do = (
        "Acknowledged commits may be missing, so nothing was merged and nothing was changed."
        f"{aside} Put back the files that belong together, or restore a backup; "
        'or open with recover="accept" to go on with what can be proven'
    )
    if report.damage == "copy":
        what_to_do = (
            f"Nothing was changed. To take it as it is, checked whole: sqlstate restore {engine.path} DEST "
            "--accept-copy, or sqlstate.restore(COPY, DEST, accept_copy=True)"
        )
    return JournalDamaged(f"{engine.path}: {reason}. {what_to_do}", report, report.evidence)


def _due(engine: Engine, report: RecoveryReport) -> RecoveryDue:
    return RecoveryDue(
        f"{engine.path}: there is something to recover, and recover={'refuse'!r} asked to leave it as it is; "
        'nothing was changed. Open with recover="rollback" to recover',
        replace(report, due=True),
    )


def _put_aside(engine: Engine, found: Inspection, suffix: str, *, move: bool) -> tuple[str, ...]:
    """Keep what lies beside the file under a name that its content gives it, and return the path."""
    if not engine.size(suffix):
        return ()
    with engine.sidecar_bytes(suffix) as data:
        parts = range(0, len(data), _COPIED_AT_ONCE)
        digest = sha256()
        for at in parts:
            digest.update(data[at : at + _COPIED_AT_ONCE])
        target = f"{engine.real_path}{suffix}.evidence-{digest.hexdigest()[:16]}"
        if not move and not os.path.exists(target):
            try:
                with files.replacing(target, found.store_id, like=engine.real_path) as copy:
                    for at in parts:
                        copy.write(data[at : at + _COPIED_AT_ONCE])
            except (OSError, StoreIOError):
                return ()  # it stays where it is, at least
    if move:
        os.replace(engine.real_path + suffix, target)
        files.sync_folder(engine.folder)
    return (target,)
