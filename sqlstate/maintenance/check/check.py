"""Checks a store: every row is read again, hashed, and compared with what it must agree with."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlstate.errors import Damaged, InvalidOption, StoreError, StoreIOError
from sqlstate.format import constants as fmt
from sqlstate.format.html import table
from sqlstate.format.merkle import EMPTY_ROOT, count_of, node_digest
from sqlstate.format.records import Kind
from sqlstate.maintenance.check import audit as audit_trail
from sqlstate.maintenance.check.against import compare_with
from sqlstate.maintenance.check.cut import wrong_cut
from sqlstate.maintenance.check.entries import compare
from sqlstate.maintenance.check.findings import Finding, FindingKind, Findings
from sqlstate.maintenance.check.links import Links
from sqlstate.maintenance.check.log import Figures, LogCheck
from sqlstate.proving.commits import History
from sqlstate.tables import audit, claims, merkle, migrations, schema, staged, state, wal, wal_digests, wal_figures
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.format.records import Head
    from sqlstate.headlog import SignedHead
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta

__all__ = ["CheckReport", "Finding", "FindingKind", "Level", "Meter", "Outcome", "check", "examine"]

Level = Literal["quick", "full", "replay"]
_LEVELS: Final = ("quick", "full", "replay")


class Outcome(StrEnum):
    """What a check comes to. Each equals its string."""

    SOUND = "sound"
    DAMAGED = "damaged"
    UNKNOWN = "unknown"
    """Something could not be read, and nothing that was read is wrong."""


FINDINGS_SHOWN: Final = 10  # in a notebook


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found, returned by `Store.check()`.

    Examples:
        >>> store["users"][1] = "ada"
        >>> report = store.check()
        >>> print(report.outcome, report.entries, report.commits, report.findings)
        sound 1 1 ()
    """

    path: Path
    """The store that was checked."""
    level: Level
    """How it was checked."""
    head: Head | None
    """The newest commit as it is recorded; None if that cannot be read."""
    outcome: Outcome
    """`"sound"`, `"damaged"` or `"unknown"`; a string that is also a member of an enum."""
    findings: tuple[Finding, ...] = ()
    """What is wrong, and what could not be read; at most 10,000."""
    more: int = 0
    """Number of further findings, which are not listed."""
    foreign: tuple[str, ...] = ()
    """Names of tables, indexes, triggers and views of other programs. A check leaves them alone."""
    entries: int = 0
    """Number of entries that were read and hashed. This and the next four are 0 after a quick check."""
    nodes: int = 0
    """Nodes of the tree."""
    records: int = 0
    """Records of the log."""
    commits: int = 0
    """Commits in the log."""
    events: int = 0
    """Entries of the audit trail."""
    seconds: float = 0.0
    """Time that the check took."""

    @property
    def ok(self) -> bool:
        """True if the store is sound, as far as the level looks."""
        return self.outcome is Outcome.SOUND

    def _repr_html_(self) -> str:
        rows: list[tuple[object, object]] = [("outcome", self.outcome), ("level", self.level)]
        rows.append(("newest commit", "unreadable" if self.head is None else self.head.seq))
        rows += [(name, f"{getattr(self, name):,}") for name in ("entries", "nodes", "records", "commits", "events")]
        rows += [(each.kind, each.what) for each in self.findings[:FINDINGS_SHOWN]]
        unshown = len(self.findings[FINDINGS_SHOWN:]) + self.more
        return table(f"check of {self.path}", [*rows, ("further findings", f"{unshown:,}")] if unshown else rows)

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain JSON types: digests in hexadecimal, a key of bytes as `{"hex": ...}`.

        Cost: none.

        Examples:
            >>> store.check().as_dict()["outcome"]
            'sound'
        """
        facts = asdict(self)
        facts["path"], facts["outcome"] = str(self.path), str(self.outcome)
        facts["head"] = None if self.head is None else _plain(self.head._asdict())
        facts["findings"] = [_plain(asdict(each)) for each in self.findings]
        facts["foreign"] = list(self.foreign)
        return facts


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that are not None, with bytes as hexadecimal digits."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if value is None:
            continue
        if name == "kind":
            found[name] = str(value)
        elif name == "place":
            found[name] = {"collection": value[0], "key": _plain_key(value[2])}
        elif name == "key":
            found[name] = _plain_key(value)
        else:
            found[name] = value.hex() if isinstance(value, bytes) else value
    return found


def _plain_key(key: Any) -> Any:
    return {"hex": key.hex()} if isinstance(key, bytes) else key


class Meter:
    """Adds up the rows that were read, and reports them to the caller's *progress*.

    Args:
        progress: called with what is done and what there is in all.
    """

    def __init__(self, progress: Callable[[int, int], None] | None = None) -> None:
        self._progress = progress
        self._done = 0
        self.total = 0

    def advance(self, rows: int) -> None:
        """Add rows that were read."""
        self._done += rows
        if self._progress is not None:
            self._progress(self._done, max(self._done, self.total))


def check(
    engine: Engine,
    meta: Meta,
    level: Level = "full",
    *,
    against: SignedHead | bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check a store, and change nothing.

    The newest commit at the beginning is checked. Other processes go on writing meanwhile; in a store without
    SQLite's WAL they wait.

    Args:
        engine: the store's connections.
        meta: the store's facts.
        level: `"full"` reads every row; `"replay"` also compares each commit's root with that of the entries which
            the log makes, in a time of commits times entries; `"quick"` looks at the file's structure, the newest
            commit and the root.
        against: a signed head that was verified, or a root: it must be of this store's newest or an earlier commit.
        progress: called with the rows read, and how many there are.

    Raises:
        InvalidOption: *level* or *against* is invalid.
        Busy: a writer held the lock of a rollback-journal store for the whole timeout.
        StoreClosed: the store was closed.
    """
    _check_options(level, against)
    with engine.reading() as connection:
        return _Examination(connection, meta, level, Meter(progress)).run(against)


def examine(
    connection: Connection,
    meta: Meta,
    level: Level = "full",
    against: SignedHead | bytes | None = None,
    meter: Meter | None = None,
) -> CheckReport:
    """Check a store through one connection; as check()."""
    _check_options(level, against)
    with connection.one_state():
        return _Examination(connection, meta, level, meter or Meter()).run(against)


def _check_options(level: Level, against: object) -> None:
    if level not in _LEVELS:
        raise InvalidOption(f"level={level!r} is not a level of checking; use 'quick', 'full' or 'replay'")
    if against is None or hasattr(against, "log_root"):
        return
    if type(against) is not bytes or len(against) != fmt.DIGEST_BYTES:
        raise InvalidOption("against= takes a signed head, or a root of 32 bytes")


class _Examination:
    """One check. A step that cannot be done is a finding, and the next step is taken all the same."""

    def __init__(self, connection: Connection, meta: Meta, level: Level, meter: Meter) -> None:
        self._connection = connection
        self._meta = meta
        self._level: Level = level
        self._meter = meter
        self._findings = Findings()
        self._lsn = 0
        self._head: Head | None = None
        self._foreign: list[str] = []
        self._rows = (0, 0)
        self._read = Figures(0, 0)
        self._events = 0
        self._wrong_events: set[int] = set()

    def run(self, against: SignedHead | bytes | None) -> CheckReport:
        """Take all steps, and return the report."""
        began = time.monotonic()
        full = self._level != "quick"
        self._step(FindingKind.SCHEMA, self._schema)
        self._step(FindingKind.COMMIT, self._newest)
        self._step(FindingKind.META, self._facts)
        self._step(FindingKind.SQLITE, self._sqlite)
        if full:
            self._step(FindingKind.NODE, self._count)
            self._step(FindingKind.NODE, self._tree)
            self._step(FindingKind.RECORD, self._log)
            self._step(FindingKind.CUT, self._cut)
            self._step(FindingKind.AUDIT, self._trail)
            self._step(FindingKind.BLOCK, self._blocks)
        else:
            self._step(FindingKind.ROOT, self._top)
            self._step(FindingKind.COMMIT, self._link)
            self._step(FindingKind.STAGED, self._staged)
            self._step(FindingKind.AUDIT, self._trail_end)
        if against is not None:
            self._step(
                FindingKind.AGAINST,
                lambda: compare_with(self._connection, self._meta, against, self._head, self._findings),
            )
        findings = self._findings
        if full:
            self._judge_id()
        wrong = findings.more or any(each.kind is not FindingKind.UNREADABLE for each in findings.kept)
        return CheckReport(
            Path(self._connection.path),
            self._level,
            self._head,
            Outcome.DAMAGED if wrong else Outcome.UNKNOWN if findings.kept else Outcome.SOUND,
            tuple(findings.kept),
            findings.more,
            tuple(self._foreign),
            *self._rows,
            *self._read,
            self._events,
            time.monotonic() - began,
        )

    def _step(self, kind: FindingKind, step: Callable[[], None]) -> None:
        """Take one step; an error that stops it is a finding."""
        try:
            step()
        except Damaged as e:
            # With a cause, SQLite or the bytes of a text stopped it; without, it is one of our own sentences.
            stopped = e.__cause__ is not None and not isinstance(e.__cause__, UnicodeDecodeError)
            self._findings.add(FindingKind.UNREADABLE if stopped else kind, e.what)
        except StoreIOError as e:
            self._findings.add(FindingKind.UNREADABLE, e.what)

    # ---- At every level ----

    def _schema(self) -> None:
        found = schema.differences(self._connection)
        self._foreign = list(found.foreign)
        for each in found.sentences:
            self._findings.add(FindingKind.SCHEMA, each)
        if self._connection.value("PRAGMA application_id") != fmt.APPLICATION_ID:
            self._findings.add(
                FindingKind.SCHEMA, "the file does not say that it is a store: application_id is another"
            )
        if self._connection.value("PRAGMA user_version") != fmt.FORMAT_VERSION:
            self._findings.add(FindingKind.SCHEMA, "the file says that it has another format: user_version is another")
        if migrations.pending(self._connection, migrations.shipped()):
            self._findings.add(
                FindingKind.SCHEMA, "a migration that this format has is not recorded in schema_migrations"
            )

    def _newest(self) -> None:
        self._lsn, self._head = wal.last(self._connection, self._meta)

    def _facts(self) -> None:
        for name in metadata.others(self._connection):
            self._findings.add(FindingKind.META, f"the table meta has a row {name}, which no store has")
        applied = migrations.applied(self._connection)
        if applied and applied[0][-1] != self._meta.created:
            what = f"the table meta says that the store was made at {self._meta.created}, and its first migration was "
            self._findings.add(FindingKind.META, f"{what}applied at {applied[0][-1]}")
        if metadata.read(self._connection) != self._meta:
            self._findings.add(FindingKind.META, "the table meta says something else than when the store was opened")
        flag = metadata.read_dirty_flag(self._connection)
        if self._head is not None and not flag.dirty and flag.nonce and flag.lsn != self._lsn:
            what = f"I11: the dirty flag was cleared at record {flag.lsn}, and the log ends with {self._lsn}"
            self._findings.add(FindingKind.META, what)

    def _sqlite(self) -> None:
        name = "quick_check" if self._level == "quick" else "integrity_check"
        for (said,) in self._connection.iterate(f"PRAGMA {name}"):
            if said != "ok":
                self._findings.add(FindingKind.SQLITE, f"SQLite's {name} says: {said}")
        if self._level != "quick" and (index := wal_figures.wrong_index(self._connection)):
            self._findings.add(FindingKind.SQLITE, f"the index {index} does not fit its table")

    # ---- In a full check ----

    def _count(self) -> None:
        records = wal_figures.size(self._connection)
        self._meter.total = state.size(self._connection) + merkle.size(self._connection)[1] + records

    def _tree(self) -> None:
        if self._head is None:
            return
        self._rows = compare(self._connection, self._head, self._findings, self._meter.advance)

    def _log(self) -> None:
        """Read the log once; and again if a record has a wrong `before`, to say which."""
        mark, failure = self._findings.mark(), None
        with closing(Links(whole=metadata.read_log_start(self._connection) is None)) as links:
            try:
                self._read_log(links, self._meter.advance)
            except StoreError as e:
                failure = e
            doubtful = links.broken()
        if doubtful:
            self._findings.back_to(mark)
            self._read_log(doubtful, lambda _: None)
        elif failure is not None:
            raise failure

    def _read_log(self, befores: Links | set[int], advance: Callable[[int], None]) -> None:
        replay = self._level == "replay"
        log = LogCheck(self._connection, self._meta, self._findings, advance, replay=replay, befores=befores)
        self._read = log.run()

    def _cut(self) -> None:
        for what in wrong_cut(self._connection, self._meta):
            self._findings.add(FindingKind.CUT, f"I15: {what}")

    def _trail(self) -> None:
        wrong = audit_trail.wrong_entries(self._connection, self._meta)
        self._events = audit.last(self._connection)[0]
        self._wrong_events = {number for number, _ in wrong}
        for _, what in wrong:
            self._findings.add(FindingKind.AUDIT, f"I12: {what}")
        for read in (metadata.read_log_limit, metadata.read_log_unsized, claims.read):
            try:
                read(self._connection)
            except Damaged as e:
                self._findings.add(FindingKind.SETTING, e.what)
        if wal_digests.listed(self._connection) != audit_trail.digest_logs(self._connection, self._meta.store_id):
            what = "the table digest_logs lists other collections than the audit trail says"
            self._findings.add(FindingKind.SETTING, what)

    def _blocks(self) -> None:
        history = History(self._connection, self._meta)
        for block in range(history.newest // fmt.LOG_BLOCK - history.missing(history.newest)):
            try:
                history.check_block(block * fmt.LOG_BLOCK + 1)
            except Damaged as e:
                self._findings.add(FindingKind.BLOCK, e.what, seq=block * fmt.LOG_BLOCK + 1)

    def _judge_id(self) -> None:
        """Blame the store's id if neither the first commit nor the first audit entry follows from it."""
        if 1 in self._wrong_events and any(
            each.kind is FindingKind.COMMIT and each.seq == 1 for each in self._findings.kept
        ):
            what = "neither commit 1 nor audit entry 1 follows from the store's id: the table meta may hold another"
            self._findings.add(FindingKind.META, what)

    # ---- In a quick check ----

    def _top(self) -> None:
        if self._head is None:
            return
        rows = merkle.top_rows(self._connection)
        said = (self._head.root, self._head.count)
        made = (EMPTY_ROOT, 0)
        if len(rows) == 1:
            [(level, children)] = rows
            made = node_digest(level, children), count_of(children)
        if len(rows) > 1 or made != said:
            what = f"I3: the topmost node is not the root of commit {self._head.seq}"
            self._findings.add(FindingKind.ROOT, what, seq=self._head.seq, expected=self._head.root)

    def _link(self) -> None:
        head = self._head
        if head is None or head == wal.start(self._connection, self._meta)[1]:
            return
        try:
            History(self._connection, self._meta, stored=False).commit_body(head.seq)
        except Damaged:
            what = f"I6: the chain of commit {head.seq} does not follow from its records and the commit before"
            self._findings.add(FindingKind.COMMIT, what, seq=head.seq)

    def _staged(self) -> None:
        for txn, _ in staged.sessions(self._connection):
            records = wal.read_staged(self._connection, txn)
            kinds = [record.kind for record in records]
            if not kinds or kinds[0] is not Kind.BEGIN or {Kind.COMMIT, Kind.ROLLBACK} & {*kinds}:
                what = f"I9: transaction {txn} is listed as staged, and is not open"
                self._findings.add(FindingKind.STAGED, what, lsn=txn)
                continue
            try:
                staged.check_records(self._connection, records)
            except Damaged as e:
                self._findings.add(FindingKind.STAGED, f"{e}", lsn=txn)

    def _trail_end(self) -> None:
        if not audit.ends_well(self._connection, self._meta.store_id):
            self._findings.add(
                FindingKind.AUDIT, "I12: the newest audit entry was changed, or does not follow from the one before"
            )
