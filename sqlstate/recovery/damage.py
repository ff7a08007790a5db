"""Decides, before SQLite touches a file, whether the store may be opened; keeps a copy of a damaged journal."""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlstate.errors import Damaged, JournalDamaged, RecoveryDue, StoreIOError
from sqlstate.files import replace as files
from sqlstate.files import system
from sqlstate.recovery.report import is_unclean, report_of

if TYPE_CHECKING:
    from sqlstate.recovery.report import Inspection, Recover, RecoveryReport
    from sqlstate.sqlite.engine import Engine

# A -wal with one of these must not be merged, however well it continues: it is moved away before SQLite sees it.
_NOT_OURS: Final = ("foreign", "stale")
_COPIED_AT_ONCE: Final = 1 << 20


def admit(engine: Engine, found: Inspection, how: Recover) -> tuple[str, ...]:
    """Decide, before SQLite touches anything, whether the store may be opened.

    Returns the paths of copies of the damaged journal, if the damage is accepted.

    Raises:
        JournalDamaged: SQLite's journal is damaged, and *how* does not accept that, or the rest cannot be proven.
        RecoveryDue: the last close was not clean, and *how* is `"refuse"`.
    """
    if found.damage:
        return _admit_damaged(engine, found, how)
    if how == "refuse" and is_unclean(found) and not found.shared:
        raise recovery_due(engine, report_of(engine, found))
    return ()


def _admit_damaged(engine: Engine, found: Inspection, how: Recover) -> tuple[str, ...]:
    report = report_of(engine, found)
    if how == "refuse" or engine.read_only:
        raise journal_damaged(engine, report, found.reason)
    suffix = "-journal" if found.journal.kind == "rollback" else "-wal"
    if how != "accept" or found.shared:
        evidence = () if found.shared else _quarantine(engine, found, suffix, move=False)
        raise journal_damaged(engine, replace(report, evidence=evidence), found.reason)
    try:
        _prove_what_is_left(engine, found)
    except Damaged as e:
        evidence = _quarantine(engine, found, suffix, move=False)
        raise JournalDamaged(
            f"{engine.path}: {found.reason}; and what is left cannot be proven: {e} Nothing was changed. "
            "Restore a backup",
            replace(report, evidence=evidence),
            evidence,
        ) from e
    not_ours = found.damage in _NOT_OURS or (found.journal.kind == "wal" and not found.goes_on)
    return _quarantine(engine, found, suffix, move=not_ours)


def _prove_what_is_left(engine: Engine, found: Inspection) -> None:
    """Check all entries with SQLite's journal, or without it if only that can be proven.

    A -wal is used only if it continues where the main file ends.
    """
    from sqlstate.recovery.verify_content import verify_content  # noqa: PLC0415, only damage needs it

    ours = found.damage not in _NOT_OURS
    found.goes_on = found.goes_on and ours
    try:
        verify_content(engine, found, with_journal=found.goes_on or (ours and found.journal.kind == "rollback"))
    except Damaged:
        if not found.goes_on:
            raise
        verify_content(engine, found, with_journal=False)
        found.goes_on = False


def journal_damaged(engine: Engine, report: RecoveryReport, reason: str) -> JournalDamaged:
    """Return the error for a damaged journal; *reason* says what is wrong."""
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


def recovery_due(engine: Engine, report: RecoveryReport) -> RecoveryDue:
    """Return the error for a store that needs recovery, which the caller refused."""
    return RecoveryDue(
        f"{engine.path}: there is something to recover, and recover={'refuse'!r} asked to leave it as it is; "
        'nothing was changed. Open with recover="rollback" to recover',
        replace(report, due=True),
    )


def _quarantine(engine: Engine, found: Inspection, suffix: str, *, move: bool) -> tuple[str, ...]:
    """Copy or move the journal to a name made of its content's hash, and return the path."""
    if not engine.files.size(suffix):
        return ()
    with engine.files.sidecar_bytes(suffix) as data:
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
                return ()  # the journal itself stays where it is
    if move:
        system.replace(engine.real_path + suffix, target)
        system.sync_folder(engine.files.folder)
    return (target,)
