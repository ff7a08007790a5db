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
from sqlstate.maintenance import closed_file
from sqlstate.maintenance.check import check
from sqlstate.maintenance.repair import entries as mending
from sqlstate.maintenance.repair import log as relinking
from sqlstate.maintenance.repair import proven_tree
from sqlstate.maintenance.repair.entries import Lost, Mending
from sqlstate.maintenance.repair.proven_tree import Content
from sqlstate.sqlite.library import check_sqlite
from sqlstate.sqlite.raw_file import alone, digest, parts, set_journaling, unlocked_vfs
from sqlstate.tables import audit, log_blocks, schema, state, wal
from sqlstate.tables import merkle as tree
from sqlstate.tables import meta as metadata
from sqlstate.tables import migrations as migrate
from sqlstate.tables.schema import Differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlstate.format.names import Stored
    from sqlstate.format.records import Head
    from sqlstate.maintenance.check.check import CheckReport
    from sqlstate.maintenance.closed_file import Progress
    from sqlstate.maintenance.repair.log import Changes
    from sqlstate.sqlite.connection import Connection, Row
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
_NAMED: Final = ("entry", "missing", "extra", "node", "root")


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair mended, or with *dry_run* would mend, and what stays lost.

    Examples:
        >>> store["users"][1] = "ada"
        >>> store.close()
        >>> report = sqlstate.repair("app.db", dry_run=True)
        >>> report.before, report.ok, report.mended
        ('sound', True, {'entries': 0, 'removed': 0, 'nodes': 0, 'records': 0})
    """

    path: Path
    """The store."""
    before: str
    """What a check said first: `"sound"`, `"damaged"` or `"unknown"`."""
    after: str | None = None
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
        """True if nothing stays lost."""
        return not self.lost

    @property
    def mended(self) -> dict[str, int]:
        """How much was mended, by kind."""
        return {"entries": self.entries, "removed": self.removed, "nodes": self.nodes, "records": self.records}

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain JSON types; keys of entries as text.

        Cost: none.

        Examples:
            >>> store.close()
            >>> sqlstate.repair("app.db", dry_run=True).as_dict()["lost"]
            []
        """
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
    mending: Mending
    head: Head
    """The newest commit, once the log is mended."""
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
            or self.mending.puts
            or self.mending.removes
            or self.mending.node_deletes
            or self.mending.node_inserts
        )


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
        blocks = any(finding.kind == "block" for finding in before.findings)
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
                whole = plan.mending.lost or proven_tree.is_whole(_content(copy), plan.head)
                if not whole or _has_new_kinds(before, after):
                    raise Damaged(f"{target}: it could not be repaired. {_NOTHING}; restore a backup")
                report = replace(report, after=after.outcome, lost=_lost(plan) + _others(after, plan, ()))
            set_journaling(made.path, unlocked_vfs(None), meta.journal)
            _install(made, report, meta)
    return report


def _half(progress: Progress | None, before: int) -> check.Meter:
    """Return the meter of one of two checks, which take most of the time."""
    if progress is None:
        return check.Meter()
    return check.Meter(lambda done, total: progress(before * total + done, 2 * total))


def _has_new_kinds(before: CheckReport, after: CheckReport) -> bool:
    """Tell whether a check finds in the copy what it did not find in the file: then it is not worth its place."""
    return bool({each.kind for each in after.findings} - {each.kind for each in before.findings})


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
    if not migrate.check_header(connection):
        raise NotAStore(f"{path} is an empty database, and no store. {_NOTHING}")
    if migrate.pending(connection, migrate.shipped()):
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
        if not migrate.check_header(connection):
            raise NotAStore("it is an empty database")
        theirs = metadata.read(connection, connection.value("PRAGMA user_version"))
    except StoreMissing:
        raise
    except (StoreError, OSError) as e:
        raise RestoreRejected(origin, f"{closed_file.reason_of(e, origin)}. {_NOTHING}") from e
    if theirs.store_id != meta.store_id:
        raise RestoreRejected(origin, f"it is a backup of another store. {_NOTHING}")
    return _content(connection)


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


def _content(connection: Connection, changes: Changes | None = None) -> Content:
    changes = changes or {}

    def records() -> Iterable[Row]:
        return relinking.changed(lambda: wal.scan_verbatim(connection), changes)()

    def newest() -> Iterator[Row]:
        yield from (row for row in changes.values() if row is not None)
        yield from (row for row in wal.scan_verbatim(connection, newest_first=True) if row[0] not in changes)

    return Content(lambda: state.scan_verbatim(connection), lambda: tree.scan_verbatim(connection), records, newest)


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

    end = marker.lsn if marker.nonce else 0
    theirs_log = None if theirs is None else theirs.records
    entries = relinking.Entries(current, lambda: proven_tree.heads_of(_content(connection)))
    log = relinking.mend(lambda: wal.scan_verbatim(connection), theirs_log, meta.store_id, end, entries)
    if end > log.end:
        raise Damaged(
            f"{path}: its log ended at {end} when it was closed, and ends at {log.end} now: commits are missing, and "
            f"with them the root that would prove the entries. {_NOTHING}; restore a backup"
        )
    head = relinking.head_of(log.newest, meta.store_id, meta.created)
    if head is None or log.cut:
        raise Damaged(f"{path}: the newest commit in the log is none. {_NOTHING}; restore a backup")
    found = mending.mend(_content(connection, log.changes), theirs, head)
    if found.hopeless:
        raise Damaged(f"{path}: nothing in it has the root of commit {head.seq} any more. {_NOTHING}; restore a backup")
    if found.another:
        raise Damaged(
            f"{path}: its entries and its tree have the same root, which is not that of the newest commit in its log: "
            f"the end of the log may be missing. {_NOTHING}; restore a backup"
        )
    return _Plan(reindex, log.changes, found, head, frozenset(link.seq for link in log.broken))


def _counted(report: RepairReport, plan: _Plan, before: CheckReport) -> RepairReport:
    """Return the report with what the plan mends and loses."""
    done = plan.mending
    # Undoing the log from damaged entries finds much that is not wrong with the log.
    mends = ("sqlite", "record", "commit", "staged", "block") if not plan.empty else ()
    left = plan.layout.unmendable
    return replace(
        report,
        entries=len(done.puts),
        removed=len(done.removes),
        nodes=done.nodes,
        records=len(plan.changes),
        schema=tuple(plan.layout.mendable),
        lost=_lost(plan) + _others(before, plan, (*mends, "schema")) + tuple(left),
    )


def _lost(plan: _Plan) -> tuple[tuple[Any, Any] | str, ...]:
    """Return what the plan cannot mend."""
    commits = [f"records of commit {seq}: its chain does not follow from them" for seq in sorted(plan.broken, key=repr)]
    entries = [(each.collection, each.key) if isinstance(each, Lost) else each for each in plan.mending.lost]
    return (*entries, *commits)


def _others(checked: CheckReport, plan: _Plan, mends: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a check found that is named neither by what is mended nor by what is lost."""
    left = [
        each.what
        for each in checked.findings
        if each.kind not in (*_NAMED, *mends) and not (each.seq in plan.broken and each.kind in ("record", "commit"))
    ]
    return tuple(dict.fromkeys(left))


# ---- Doing it ----


def _apply(copy: Connection, plan: _Plan) -> None:
    done = plan.mending
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
    tree.replace_nodes(copy, done.node_deletes, done.node_inserts)
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
