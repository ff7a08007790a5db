"""Repairs a damaged store from what proves itself: digests of the tree, the log, a backup.

All work is done in a copy, which takes the store's name once it was checked; the damaged file is kept next to it.
Nothing is put into the copy but what has a digest that the newest commit's root or chain leads to.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlstate.commit.clock import now
from sqlstate.errors import (
    Busy,
    Damaged,
    InvalidOption,
    MigrationMismatch,
    NotAStore,
    ReadOnly,
    RestoreRejected,
    StoreError,
    StoreMissing,
)
from sqlstate.files import identity, paths
from sqlstate.files import replace as files
from sqlstate.maintenance import closed_file
from sqlstate.maintenance.check import audit as trail
from sqlstate.maintenance.check import check
from sqlstate.maintenance.check.findings import FindingKind
from sqlstate.maintenance.proven_tree import Content
from sqlstate.maintenance.repair.plan import NAMED, NOTHING, apply, counted, lost, needs_reindex, others
from sqlstate.maintenance.repair.plan import plan as plan_of
from sqlstate.maintenance.repair.report import RepairReport, as_text
from sqlstate.sqlite.raw_file import digest, exclusive_lock, parts, set_journaling, unlocked_vfs
from sqlstate.sqlite.settings import check_sqlite
from sqlstate.tables import audit, migrations, schema
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    from sqlstate.maintenance.check.check import CheckReport
    from sqlstate.maintenance.closed_file import Progress
    from sqlstate.maintenance.repair.plan import Plan
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import DirtyFlag, Meta

_LOST_NOTED: Final = 100


def repair(
    path: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Mend a damaged store that is closed, as far as its right content can be proven, and name what stays lost.

    Entries come back from the log or *source* where the tree has their leaf. Rows that the tree does not have are
    removed. Nodes are made again over entries that give the recorded root, records of the log where the chain holds
    with them, and indexes, triggers and views as they were. All work is done in a copy, which takes the store's name
    once it was checked; the damaged file stays next to it, as `NAME.damaged-…`. With nothing to mend, nothing is
    written.

    Cost: reads and hashes the whole store several times; 2 syncs or more.

    Args:
        path: the store. Nobody may have it open.
        source: a backup of the same store, of any time. It is not trusted: only what can be proven is taken from it.
        dry_run: report what would be done, and write nothing.
        progress: called with the work done, and the work in all.

    Raises:
        StoreMissing: there is no file *path*, or no *source*.
        NotAStore, FormatTooNew, MigrationMismatch: the file is not a store of this version.
        Busy: somebody has it open, or it was not closed.
        ReadOnly: it cannot be written.
        InvalidOption, RestoreRejected: *source* is the store itself, is in use, or is not a backup of this store.
        Damaged: nothing proves what the rest should be. Nothing was changed; restore a backup.
        StoreFull, StoreIOError: the copy could not be written; the file is unchanged.

    Examples:
        >>> store["users"][1] = "ada"
        >>> store.close()
        >>> sqlstate.repair("app.db", dry_run=True).ok
        True
    """
    check_sqlite()
    target = closed_file.absolute(path)
    with closed_file.on_disk(target), ExitStack() as stack:
        connection = _hold(target, stack, dry_run=dry_run)
        meta, flag = _facts(connection)
        if not dry_run:
            files.sweep(target, meta.store_id)
        theirs = None if source is None else _open_backup(source, target, meta, stack)
        reindex = needs_reindex(connection)
        before = check.examine(connection, meta, "full", None, _half(progress, 0))
        report = RepairReport(Path(target), before.outcome)
        if before.ok:
            return report
        plan = plan_of(connection, theirs, meta, flag, reindex=reindex)
        blocks = any(finding.kind is FindingKind.BLOCK for finding in before.findings)
        plan = plan._replace(blocks=blocks, layout=schema.differences(connection))
        if any(finding.kind is FindingKind.SETTING for finding in before.findings):
            plan = plan._replace(digest_logs=frozenset(trail.digest_logs(connection, meta.store_id)))
        report = counted(report, plan, before)
        if dry_run or plan.empty:
            return report
        with files.temporary(target, meta.store_id) as made:
            closed_file.fill(made.path, target, connection, closed_file.Meter(None), None)
            report = replace(report, evidence=Path(f"{target}.damaged-{digest(target, None)[:16]}"))
            with closed_file.unshared(made.path, f"the copy of {target}", None) as copy:
                apply(copy, plan)
                name = None if source is None else os.path.basename(os.fspath(source))
                report = replace(report, entry=_note(copy, meta, plan, report, name))
                after = check.examine(copy, meta, "full", None, _half(progress, 1))
                if _is_no_better(before, after, plan):
                    raise Damaged(f"{target}: it could not be repaired. {NOTHING}; restore a backup")
                report = replace(report, after=after.outcome, lost=lost(plan) + others(after, plan, frozenset()))
            set_journaling(made.path, unlocked_vfs(None), meta.journal)
            _install(made, report, meta, stack)
    return report


def _half(progress: Progress | None, before: int) -> check.Meter:
    """Return the meter of one of two checks, which take most of the time."""
    if progress is None:
        return check.Meter()
    return check.Meter(lambda done, total: progress(before * total + done, 2 * total))


def _is_no_better(before: CheckReport, after: CheckReport, plan: Plan) -> bool:
    """Return True if the copy is not worth its place.

    A check finds in it what it did not find in the file; or entries or nodes are wrong, and the plan leaves none so.
    """
    kinds = {each.kind for each in after.findings}
    return bool(kinds - {each.kind for each in before.findings} or (kinds & NAMED and not plan.entries.lost))


# ---- The files ----


def _hold(target: str, stack: ExitStack, *, dry_run: bool) -> Connection:
    """Return a connection that reads the file, and keep others from it, until *stack* ends."""
    if not os.path.lexists(target):
        raise StoreMissing(f"there is no file {target}; nothing was written")
    if not stat.S_ISREG(os.lstat(target).st_mode):
        raise NotAStore(f"{target} is not a regular file; choose another path")
    free = stack.enter_context(exclusive_lock(target, None, 0.0))
    if free is False:
        raise Busy(f"a process has {target} open; close it there. {NOTHING}")
    for sidecar in closed_file.sidecars_of(target):
        raise Busy(
            f"{target} is in use, or was not closed: {sidecar} lies next to it, and may hold commits. Open and "
            f"close the store first; 'sqlstate recover' does so. {NOTHING}"
        )
    if free is None and not dry_run:
        raise ReadOnly(f"{target} may not be written, so whether it is in use cannot be known. {NOTHING}")
    return stack.enter_context(closed_file.reading(target, None))


def _facts(connection: Connection) -> tuple[Meta, DirtyFlag]:
    path = connection.path
    if not migrations.check_header(connection):
        raise NotAStore(f"{path} is an empty database, and no store. {NOTHING}")
    if migrations.pending(connection, migrations.shipped()):
        raise MigrationMismatch(f"{path} has an older format; open it for writing once, which migrates it. {NOTHING}")
    schema.check_tables(connection)
    meta, flag = metadata.read(connection), metadata.read_dirty_flag(connection)
    if flag.dirty:
        raise Damaged(
            f"{path}: it was not closed, and the -wal that belongs to it is not there; the newest commits may be "
            f'missing. Put the -wal there, or open it with recover="accept" first. {NOTHING}'
        )
    return meta, flag


def _open_backup(source: str | os.PathLike[str], target: str, meta: Meta, stack: ExitStack) -> Content:
    origin = closed_file.absolute(source)
    if identity.belongs_to(origin, target):
        raise InvalidOption(f"{origin} belongs to the store itself; name a backup of it. {NOTHING}")
    try:
        connection = closed_file.open_source(origin, None, stack)
        if not migrations.check_header(connection):
            raise NotAStore("it is an empty database")
        theirs = metadata.read(connection, connection.value("PRAGMA user_version"))
        migrations.read_older(connection)
    except StoreMissing:
        raise
    except (StoreError, OSError) as e:
        raise RestoreRejected(origin, f"{closed_file.reason_of(e)}. {NOTHING}") from e
    if theirs.store_id != meta.store_id:
        raise RestoreRejected(origin, f"it is a backup of another store. {NOTHING}")
    return Content.of(connection)


def _install(made: files.Temporary, report: RepairReport, meta: Meta, held: ExitStack) -> None:
    """Keep the damaged file under the name of its evidence, durably; then give the copy its name."""
    target, evidence = made.target, str(report.evidence)
    if os.path.lexists(evidence):
        if not _has_content_of(evidence, target):
            raise InvalidOption(f"{evidence} is there already, and is something else; move it away. {NOTHING}")
    else:
        # A copy, not a second name: whoever still has the file open would write to it.
        with files.replacing(evidence, meta.store_id, like=target) as kept:
            for part in parts(target, None):
                kept.write(part)
    closed_file.take_place(made, None, held)


def _has_content_of(evidence: str, target: str) -> bool:
    if not stat.S_ISREG(os.lstat(evidence).st_mode) or os.path.samefile(evidence, target):
        return False
    with open(evidence, "rb") as file:
        return all(file.read(len(part)) == part for part in parts(target, None)) and not file.read(1)


def _note(copy: Connection, meta: Meta, plan: Plan, report: RepairReport, source: str | None) -> int:
    """Append the audit entry, and return its number."""
    named = [[as_text(part) for part in each] for each in report.lost if not isinstance(each, str)]
    detail = {
        "mended": report.mended,
        "schema": list(report.schema),
        "lost": named[:_LOST_NOTED],
        "lost_count": len(named),
        "from": None if source is None else paths.as_text(source),
        "evidence": paths.as_text(os.path.basename(str(report.evidence))),
    }
    copy.begin()
    number = audit.append(copy, meta.store_id, plan.head, now(), ("repair", detail))
    copy.commit()
    return number
