"""Repairs a damaged store from what proves itself: digests of the tree, the log, a backup.

All work is done in a copy, which takes the store's name as a whole once it was checked; the damaged file is kept
beside it. Nothing is put into the copy but what has a digest that the newest commit's root or chain leads to.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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
from sqlstate.format.merkle import RootBuilder, rank
from sqlstate.maintenance import closed_file
from sqlstate.maintenance.check import check
from sqlstate.maintenance.check.findings import FindingKind
from sqlstate.maintenance.proven_tree import Content, leaves_of
from sqlstate.maintenance.repair import entries, log
from sqlstate.maintenance.repair.entries import EntryRepair, Lost
from sqlstate.sqlite.library import check_sqlite
from sqlstate.sqlite.raw_file import alone, digest, parts, set_journaling, unlocked_vfs
from sqlstate.tables import audit, log_blocks, merkle, migrations, schema, state, wal
from sqlstate.tables import meta as metadata
from sqlstate.tables.schema import Differences

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlstate.format.names import Stored
    from sqlstate.format.records import Head
    from sqlstate.maintenance.check.check import CheckReport, Outcome
    from sqlstate.maintenance.closed_file import Progress
    from sqlstate.maintenance.repair.log import Changes
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Marker, Meta

_NOTHING: Final = "Nothing was changed"
_LOST_NOTED: Final = 100
# What SQLite's check says of an index that does not fit its table; both are made anew in the copy.
_INDEX: Final = re.compile(
    r"row \d+ missing from index \w+|wrong # of entries in index \w+|row not in PRIMARY KEY order for state"
)
# What it says of a row that breaks a constraint: it can be read all the same.
_CONSTRAINT: Final = re.compile(r"NULL value in \w+\.\w+|CHECK constraint failed in \w+|non-unique entry in index \w+")
# Findings of a check that what is mended here brings about, and that are named by what is lost.
_NAMED: Final = frozenset(
    (FindingKind.ENTRY, FindingKind.MISSING, FindingKind.EXTRA, FindingKind.NODE, FindingKind.ROOT)
)
# Findings about the log: undoing it from damaged entries finds much that is not wrong with it.
_OF_THE_LOG: Final = frozenset((FindingKind.RECORD, FindingKind.COMMIT))


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was mended, or with *dry_run* would be, and what stays lost."""

    path: Path
    before: Outcome
    """What a check said first."""
    after: Outcome | None = None
    """What a check of the repaired file said; None if none was written."""
    entries: int = 0
    """Entries that have their value again."""
    removed: int = 0
    """Rows of the table state that were no entries."""
    nodes: int = 0
    """Nodes of the tree that were changed, made anew or removed."""
    records: int = 0
    """Records of the write-ahead log likewise."""
    schema: tuple[str, ...] = ()
    """Indexes, triggers and views that were made anew or removed, a sentence each."""
    lost: tuple[tuple[Any, Any] | str, ...] = ()
    """What is as it was, and cannot be proven: (collection, key) of an entry, or a sentence.

    An entry that is gone is named after the log: where commits of that are lost too, the name can be another's."""
    evidence: Path | None = None
    """The damaged file; None if none was replaced."""
    entry: int | None = None
    """Number of the audit entry; None if none was written."""

    @property
    def ok(self) -> bool:
        """Whether nothing stays lost."""
        return not self.lost

    @property
    def mended(self) -> dict[str, int]:
        """How much was mended, by what it is."""
        return {"entries": self.entries, "removed": self.removed, "nodes": self.nodes, "records": self.records}

    def as_dict(self) -> dict[str, Any]:
        """Return it in plain JSON types; keys of entries as text."""
        return {
            "path": str(self.path),
            "before": self.before,
            "after": self.after,
            "mended": self.mended,
            "schema": list(self.schema),
            "lost": [each if isinstance(each, str) else [_text(part) for part in each] for each in self.lost],
            "evidence": None if self.evidence is None else str(self.evidence),
            "entry": self.entry,
        }


class _Plan(NamedTuple):
    """What is to be done to the copy."""

    reindex: bool
    changes: Changes
    entries: EntryRepair
    head: Head
    """The newest commit, once the log is repaired."""
    broken: frozenset[Any]
    """Commits whose chain does not hold even then, by number."""
    layout: Differences = Differences()
    blocks: bool = False
    """Whether stored digests of the log over the commits are wrong; they are made anew when they are asked for."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be done."""
        return not (
            self.reindex
            or self.blocks
            or self.layout.mendable
            or self.changes
            or self.entries.puts
            or self.entries.removes
            or self.entries.node_deletes
            or self.entries.node_inserts
        )


def repair(
    path: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Mend a damaged store that is closed, as far as what it must be can be proven; name what stays lost.

    Entries are mended that the log or *source* still has, rows removed that are no entries, nodes of the tree made
    anew, records of the log mended with which the chain holds again. What takes the file's place is a copy that was
    checked whole; the damaged file is kept beside it, as `NAME.damaged-…`. With nothing to mend nothing is written.

    Args:
        path: the store. Nobody may have it open.
        source: a backup of the same store, of any time. It is not trusted: only what proves itself is taken from it.
        dry_run: say what would be done, and write nothing at all.
        progress: called with what is done and what there is in all.

    Raises:
        StoreMissing: there is no file *path*, or no *source*.
        NotAStore, FormatTooNew, MigrationMismatch: it is no store of this version.
        Busy: somebody has it open, or it was not closed.
        ReadOnly: it may not be written.
        InvalidOption, RestoreRejected: *source* is the store itself, no store, in use, or of another store.
        Damaged: so much is damaged that nothing proves the rest; nothing was changed. Restore a backup.
        StoreFull, StoreIOError: the copy cannot be written; the file is as it was.
    """
    check_sqlite()
    target = closed_file.absolute(path)
    with closed_file.on_disk(target), ExitStack() as stack:
        connection = _hold(target, stack, dry_run=dry_run)
        meta, marker = _facts(connection)
        if not dry_run:
            files.sweep(target, meta.store_id)
        theirs = None if source is None else _open_backup(source, target, meta, stack)
        reindex = _is_walkable(connection)
        before = check.examine(connection, meta, "full", None, _half(progress, 0))
        report = RepairReport(Path(target), before.outcome)
        if before.ok:
            return report
        plan = _plan(connection, theirs, meta, marker, reindex=reindex)
        blocks = any(finding.kind is FindingKind.BLOCK for finding in before.findings)
        plan = plan._replace(blocks=blocks, layout=schema.compare(connection))
        report = _counted(report, plan, before)
        if dry_run or plan.empty:
            return report
        with files.temporary(target, meta.store_id) as made:
            closed_file.fill(made.path, target, connection, closed_file.Meter(None), None)
            report = replace(report, evidence=Path(f"{target}.damaged-{digest(target, None)[:16]}"))
            with closed_file.unshared(made.path, f"the copy of {target}", None) as copy:
                _apply(copy, plan)
                name = None if source is None else os.path.basename(os.fspath(source))
                report = replace(report, entry=_note(copy, meta, plan, report, name))
                after = check.examine(copy, meta, "full", None, _half(progress, 1))
                if _is_no_better(before, after, plan):
                    raise Damaged(f"{target}: it could not be repaired. {_NOTHING}; restore a backup")
                report = replace(report, after=after.outcome, lost=_lost(plan) + _others(after, plan, frozenset()))
            set_journaling(made.path, unlocked_vfs(None), meta.journal)
            _install(made, report, meta)
    return report


def _half(progress: Progress | None, before: int) -> check.Meter:
    """Return the meter of one of two checks, which take most of the time."""
    if progress is None:
        return check.Meter()
    return check.Meter(lambda done, total: progress(before * total + done, 2 * total))


def _is_no_better(before: CheckReport, after: CheckReport, plan: _Plan) -> bool:
    """Return True if the copy is not worth its place.

    A check finds in it what it did not find in the file; or entries or nodes are wrong, and the plan leaves none so.
    """
    kinds = {each.kind for each in after.findings}
    return bool(kinds - {each.kind for each in before.findings} or (kinds & _NAMED and not plan.entries.lost))


# ---- The files ----


def _hold(target: str, stack: ExitStack, *, dry_run: bool) -> Connection:
    """Return a connection that reads the file, and keep others from it, until *stack* ends."""
    if not os.path.lexists(target):
        raise StoreMissing(f"there is no file {target}; nothing was written")
    if not stat.S_ISREG(os.lstat(target).st_mode):
        raise NotAStore(f"{target} is not a regular file; choose another path")
    free = stack.enter_context(alone(target, None, 0.0))
    if free is False:
        raise Busy(f"somebody has {target} open; close it there. {_NOTHING}")
    for sidecar in closed_file.beside(target):
        raise Busy(
            f"{target} is in use, or was not closed: {sidecar} lies beside it, and may hold commits. Open and "
            f"close the store first; 'sqlstate recover' does so. {_NOTHING}"
        )
    if free is None and not dry_run:
        raise ReadOnly(f"{target} may not be written, so whether it is in use cannot be known. {_NOTHING}")
    return stack.enter_context(closed_file.reading(target, None))


def _facts(connection: Connection) -> tuple[Meta, Marker]:
    path = connection.path
    if not migrations.check_header(connection):
        raise NotAStore(f"{path} is an empty database, and no store. {_NOTHING}")
    if migrations.pending(connection, migrations.shipped()):
        raise MigrationMismatch(f"{path} has an older format; open it for writing once, which brings it to this one")
    schema.check_tables(connection)
    meta, marker = metadata.read(connection), metadata.read_marker(connection)
    if marker.open:
        raise Damaged(
            f"{path}: it was not closed, and the -wal that belongs to it is not beside it; the newest commits may be "
            f'missing. Put the -wal there, or open it with recover="accept" first. {_NOTHING}'
        )
    return meta, marker


def _open_backup(source: str | os.PathLike[str], target: str, meta: Meta, stack: ExitStack) -> Content:
    origin = closed_file.absolute(source)
    if identity.belongs_to(origin, target):
        raise InvalidOption(f"{origin} belongs to the store itself; name a backup of it. {_NOTHING}")
    try:
        connection = closed_file.open_source(origin, None, stack)
        if not migrations.check_header(connection):
            raise NotAStore("it is an empty database")
        theirs = metadata.read(connection, connection.value("PRAGMA user_version"))
    except StoreMissing:
        raise
    except (StoreError, OSError) as e:
        raise RestoreRejected(origin, f"{closed_file.reason_of(e)}. {_NOTHING}") from e
    if theirs.store_id != meta.store_id:
        raise RestoreRejected(origin, f"it is a backup of another store. {_NOTHING}")
    return Content.of(connection)


def _install(made: files.Temporary, report: RepairReport, meta: Meta) -> None:
    """Keep the damaged file under the name of its evidence, durably; then give the copy its name."""
    target, evidence = made.target, str(report.evidence)
    if os.path.lexists(evidence):
        if not _has_content_of(evidence, target):
            raise InvalidOption(f"{evidence} is there already, and is something else; move it away. {_NOTHING}")
    else:
        # A copy, not a second name: whoever still has the file open would write to it.
        with files.replacing(evidence, meta.store_id, like=target) as kept:
            for part in parts(target, None):
                kept.write(part)
    closed_file.take_place(made, None)


def _has_content_of(evidence: str, target: str) -> bool:
    if not stat.S_ISREG(os.lstat(evidence).st_mode) or os.path.samefile(evidence, target):
        return False
    with open(evidence, "rb") as file:
        return all(file.read(len(part)) == part for part in parts(target, None)) and not file.read(1)


# ---- What is to be done ----


def _with(content: Content, changes: Changes) -> Content:
    """Return the tables with *changes* made to the log."""
    return content._replace(records=log.changed(content.records, changes))


def _is_walkable(connection: Connection) -> bool:
    """Tell whether indices have to be made anew, once it is known that all the rest of the file can be read.

    Raises:
        Damaged: it cannot.
    """
    problems = [text for (text,) in connection.rows("PRAGMA integrity_check") if text != "ok"]
    for problem in problems:
        if not (_INDEX.fullmatch(problem) or _CONSTRAINT.fullmatch(problem)):
            raise Damaged(
                f"{connection.path}: SQLite cannot read all of it ({problem}), so what is in it cannot be repaired. "
                f"{_NOTHING}; restore a backup"
            )
    return any(map(_INDEX.fullmatch, problems))


def _plan(connection: Connection, theirs: Content | None, meta: Meta, marker: Marker, *, reindex: bool) -> _Plan:
    path = connection.path

    def current(collection: str, key: Any) -> Stored | None:
        try:
            return state.get(connection, collection, key)
        except StoreError:
            return None

    def head() -> tuple[bytes, int]:
        builder = RootBuilder()
        for _, raw, leaf in leaves_of(state.scan_verbatim(connection)):
            builder.add(leaf, rank(raw))
        return builder.finish()

    ours = Content.of(connection)
    end = marker.lsn if marker.nonce else 0
    theirs_log = None if theirs is None else theirs.records
    done = log.plan(ours.records, theirs_log, meta.store_id, end, log.Entries(current, head))
    if end > done.end:
        raise Damaged(
            f"{path}: its log ended at {end} when it was closed, and ends at {done.end} now: commits are missing, and "
            f"with them the root that would prove the entries. {_NOTHING}; restore a backup"
        )
    newest = log.head_of(done.newest, meta.store_id, meta.created)
    if newest is None or done.cut:
        raise Damaged(f"{path}: the newest commit record in the log is malformed. {_NOTHING}; restore a backup")
    found = entries.plan(_with(ours, done.changes), theirs, newest)
    if found.hopeless:
        raise Damaged(
            f"{path}: nothing in it has the root of commit {newest.seq} any more. {_NOTHING}; restore a backup"
        )
    if found.another:
        raise Damaged(
            f"{path}: its entries and its tree have the same root, which is not that of the newest commit in its log: "
            f"the end of the log may be missing. {_NOTHING}; restore a backup"
        )
    return _Plan(reindex, done.changes, found, newest, frozenset(link.seq for link in done.broken))


def _counted(report: RepairReport, plan: _Plan, before: CheckReport) -> RepairReport:
    """Return the report with what the plan mends and loses."""
    done = plan.entries
    mends = {FindingKind.SCHEMA}
    if not plan.empty:
        mends |= {FindingKind.SQLITE, FindingKind.STAGED, FindingKind.BLOCK, *_OF_THE_LOG}
    left = plan.layout.unmendable
    return replace(
        report,
        entries=len(done.puts),
        removed=len(done.removes),
        nodes=done.nodes,
        records=len(plan.changes),
        schema=tuple(plan.layout.mendable),
        lost=_lost(plan) + _others(before, plan, mends) + tuple(left),
    )


def _lost(plan: _Plan) -> tuple[tuple[Any, Any] | str, ...]:
    """Return what the plan cannot mend."""
    commits = [f"records of commit {seq}: its chain does not follow from them" for seq in sorted(plan.broken, key=repr)]
    entries = [(each.collection, each.key) if isinstance(each, Lost) else each for each in plan.entries.lost]
    return (*entries, *commits)


def _others(checked: CheckReport, plan: _Plan, mends: Collection[FindingKind]) -> tuple[str, ...]:
    """Return what a check found that is named neither by what is mended nor by what is lost."""
    left = [
        each.what
        for each in checked.findings
        if each.kind not in {*_NAMED, *mends} and not (each.seq in plan.broken and each.kind in _OF_THE_LOG)
    ]
    return tuple(dict.fromkeys(left))


# ---- Doing it ----


def _apply(copy: Connection, plan: _Plan) -> None:
    done = plan.entries
    schema.drop(copy, plan.layout)
    if plan.reindex:
        try:
            state.rebuild(copy)
            copy.run("REINDEX")
        except StoreError as e:
            raise Damaged(f"{copy.path}: its indices cannot be made anew ({e}). {_NOTHING}; restore a backup") from e
    copy.begin()
    wal.write_verbatim(copy, plan.changes.items())
    for collection, key in done.removes:
        state.delete_verbatim(copy, collection, key)
    state.write(copy, done.puts)
    merkle.replace_nodes(copy, done.node_deletes, done.node_inserts)
    if plan.blocks:
        log_blocks.trim(copy, 0)
    schema.make(copy, plan.layout)
    copy.commit()


def _note(copy: Connection, meta: Meta, plan: _Plan, report: RepairReport, source: str | None) -> int:
    """Append the audit entry, and return its number."""
    lost = [[_text(part) for part in each] for each in report.lost if not isinstance(each, str)]
    detail = {
        "mended": report.mended,
        "schema": list(report.schema),
        "lost": lost[:_LOST_NOTED],
        "lost_count": len(lost),
        "from": None if source is None else paths.as_text(source),
        "evidence": paths.as_text(os.path.basename(str(report.evidence))),
    }
    copy.begin()
    number = audit.append(copy, meta.store_id, plan.head, now(), ("repair", detail))
    copy.commit()
    return number


def _text(part: Any) -> str:
    """Return a collection's name or a key as text."""
    if isinstance(part, bytes):
        return f"x'{part.hex()}'"
    return str(part).encode("utf-8", "backslashreplace").decode()
