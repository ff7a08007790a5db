"""What is to be done about a damaged store, from log, entries, nodes and schema; and how it is done to a copy."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged, StoreError
from sqlstate.format.merkle import RootBuilder, rank
from sqlstate.maintenance.check.findings import FindingKind
from sqlstate.maintenance.proven_tree import Content, leaves_of
from sqlstate.maintenance.repair import entries, log
from sqlstate.maintenance.repair.entries import Lost
from sqlstate.tables import claims, log_blocks, merkle, schema, state, wal, wal_digests, wal_raw
from sqlstate.tables import meta as metadata
from sqlstate.tables.raw_rows import is_entry_name
from sqlstate.tables.schema import Differences

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlstate.format.names import Stored
    from sqlstate.format.records import Head
    from sqlstate.maintenance.check.check import CheckReport
    from sqlstate.maintenance.repair.entries import EntryRepair
    from sqlstate.maintenance.repair.log import Changes
    from sqlstate.maintenance.repair.report import RepairReport
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import DirtyFlag, Meta

NOTHING: Final = "Nothing was changed"


class Plan(NamedTuple):
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
    digest_logs: frozenset[str] | None = None
    """Collections that are to be listed in digest_logs, None if those are that must be."""
    """Whether stored digests of the log over the commits are wrong; they are computed again when they are asked for."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be done."""
        return not (
            self.reindex
            or self.blocks
            or self.digest_logs is not None
            or self.layout.mendable
            or self.changes
            or self.entries.puts
            or self.entries.removes
            or self.entries.node_deletes
            or self.entries.node_inserts
        )


# What SQLite's check says of an index that does not fit its table; both are created again in the copy.
_INDEX: Final = re.compile(
    r"row \d+ missing from index \w+|wrong # of entries in index \w+|row not in PRIMARY KEY order for state"
)
# What it says of a row that breaks a constraint: it can be read all the same.
_CONSTRAINT: Final = re.compile(r"NULL value in \w+\.\w+|CHECK constraint failed in \w+|non-unique entry in index \w+")
# Findings about entries and nodes: what stays of them is named by what is lost.
NAMED: Final = frozenset(
    (FindingKind.ENTRY, FindingKind.MISSING, FindingKind.EXTRA, FindingKind.NODE, FindingKind.ROOT)
)
# Findings about the log: undoing it from damaged entries finds much that is not wrong with it.
_OF_THE_LOG: Final = frozenset((FindingKind.RECORD, FindingKind.COMMIT))


def _changed(content: Content, changes: Changes) -> Content:
    """Return the tables with *changes* made to the log."""
    return content._replace(records=log.changed(content.records, changes))


def needs_reindex(connection: Connection) -> bool:
    """Return True if indices must be created again; all else in the file can be read.

    Raises:
        Damaged: SQLite cannot read it.
    """
    problems = [text for (text,) in connection.rows("PRAGMA integrity_check") if text != "ok"]
    for problem in problems:
        if not (_INDEX.fullmatch(problem) or _CONSTRAINT.fullmatch(problem)):
            raise Damaged(
                f"{connection.path}: SQLite cannot read all of it ({problem}), so what is in it cannot be repaired. "
                f"{NOTHING}; restore a backup"
            )
    return any(map(_INDEX.fullmatch, problems))


def plan(connection: Connection, theirs: Content | None, meta: Meta, marker: DirtyFlag, *, reindex: bool) -> Plan:
    """Return what is to be done so that the store is what the newest commit recorded.

    Raises:
        Damaged: nothing proves what it must be; the message says what is missing.
    """
    path = connection.path

    def current(collection: Any, key: Any) -> Stored | None:
        if not is_entry_name(collection, key):  # a damaged record can name what no entry can have
            return None
        try:
            return state.get(connection, collection, key)
        except StoreError:
            return None

    def head() -> tuple[bytes, int]:
        builder = RootBuilder()
        for _, raw, leaf in leaves_of(state.scan_raw(connection)):
            builder.add(leaf, rank(raw))
        return builder.finish()

    ours = Content.of(connection)
    end = marker.lsn if marker.nonce else 0
    start = wal.start(connection, meta)[1]
    backup = None if theirs is None else log.Backup(theirs.records, max(_since(ours), _since(theirs)))
    done = log.plan(ours.records, backup, (start.seq, start.chain), end, log.Entries(current, head))
    if end > max(done.end, _since(ours)):
        raise Damaged(
            f"{path}: its log ended at {end} when it was closed, and ends at {done.end} now: commits are missing, and "
            f"with them the root that would prove the entries. {NOTHING}; restore a backup"
        )
    newest = log.head_of(done.newest, start)
    if newest is None or done.cut:
        raise Damaged(f"{path}: the newest commit record in the log is malformed. {NOTHING}; restore a backup")
    found = entries.plan(_changed(ours, done.changes), theirs, newest)
    if found.hopeless:
        raise Damaged(
            f"{path}: nothing in it has the root of commit {newest.seq} any more. {NOTHING}; restore a backup"
        )
    if found.another:
        raise Damaged(
            f"{path}: its entries and its tree have the same root, which is not that of the newest commit in its log: "
            f"the end of the log may be missing. {NOTHING}; restore a backup"
        )
    return Plan(reindex, done.changes, found, newest, frozenset(link.seq for link in done.broken))


def _since(content: Content) -> int:
    return 0 if content.start is None else content.start.lsn


def counted(report: RepairReport, plan: Plan, before: CheckReport) -> RepairReport:
    """Return the report with what the plan repairs and loses."""
    done = plan.entries
    repaired = {FindingKind.SCHEMA}
    if not plan.empty:
        repaired |= {FindingKind.SQLITE, FindingKind.STAGED, FindingKind.BLOCK, FindingKind.SETTING, *_OF_THE_LOG}
    left = plan.layout.unmendable
    return replace(
        report,
        entries=len(done.puts),
        removed=len(done.removes),
        nodes=done.nodes,
        records=len(plan.changes),
        schema=tuple(plan.layout.mendable),
        lost=lost(plan) + others(before, plan, repaired) + tuple(left),
    )


def lost(plan: Plan) -> tuple[tuple[Any, Any] | str, ...]:
    """Return what the plan cannot repair."""
    commits = [f"records of commit {seq}: its chain does not follow from them" for seq in sorted(plan.broken, key=repr)]
    names = [(each.collection, each.key) if isinstance(each, Lost) else each for each in plan.entries.lost]
    return (*names, *commits)


def others(checked: CheckReport, plan: Plan, repaired: Collection[FindingKind]) -> tuple[str, ...]:
    """Return what a check found that is named neither by what is repaired nor by what is lost."""
    left = [
        each.what
        for each in checked.findings
        if each.kind not in {*NAMED, *repaired} and not (each.seq in plan.broken and each.kind in _OF_THE_LOG)
    ]
    return tuple(dict.fromkeys(left))


# ---- Doing it ----


def apply(copy: Connection, plan: Plan) -> None:
    """Do to *copy* what is to be done.

    Raises:
        Damaged: SQLite cannot create an index again.
    """
    done = plan.entries
    schema.drop(copy, plan.layout)
    if plan.reindex:
        try:
            state.rebuild(copy)
            copy.run("REINDEX")
        except StoreError as e:
            raise Damaged(f"{copy.path}: its indices cannot be created again ({e}). {NOTHING}; restore a backup") from e
    copy.begin()
    wal_raw.write_raw(copy, plan.changes.items())
    for collection, key in done.removes:
        state.delete_raw(copy, collection, key)
    state.write(copy, done.puts)
    merkle.replace_nodes(copy, done.node_deletes, done.node_inserts)
    if plan.digest_logs is not None:
        wal_digests.set_all(copy, sorted(plan.digest_logs))
        metadata.drop_malformed(copy)
        claims.drop_malformed(copy)
    if plan.blocks:
        log_blocks.trim(copy, 0)
    schema.make(copy, plan.layout)
    copy.commit()
