"""Checks the write-ahead log, from its first record on: each commit's chain, and each record against its entry's last.

The chain covers the number, root, count and time of a commit, and both leaves of each of its records (I4 to I7, I10).
Each `before` is compared with the value that the log gave the entry last (I8). A replay also compares each commit's
root with the root of the entries that the records make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import Head, Kind, change_bytes, leaves, staged_digest
from sqlstate.maintenance.check import audit as trail
from sqlstate.maintenance.check.findings import ROWS_AT_ONCE, FindingKind, named
from sqlstate.maintenance.check.replay import LaterRoots, LogRoots
from sqlstate.tables import meta as metadata
from sqlstate.tables import staged, state, wal, wal_raw
from sqlstate.tables.raw_rows import (
    HEAD,
    STAGED,
    RawRecord,
    canonical,
    chain_or_none,
    direct_change,
    has_bytes,
    is_digest,
    is_number,
    is_text,
    quoted,
    record_table,
    shown_name,
)
from sqlstate.tables.wal import head_zero

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.maintenance.check.findings import Findings
    from sqlstate.maintenance.check.links import Links
    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import Meta


class Figures(NamedTuple):
    """What was read."""

    records: int
    commits: int


_NO_DIGEST: Final = bytes(fmt.DIGEST_BYTES)
_UNKNOWN: Final = b""


class _Break(NamedTuple):
    """A record whose `before` is not the value that its entry had: where it stands in its commit, and both leaves."""

    part: int
    lsn: int
    txn: int
    name: tuple[Any, Any]
    had: bytes | None
    after: bytes | None


@dataclass(slots=True)
class _Direct:
    """A transaction that has not ended."""

    txn: int
    changes: int = 0


@dataclass(slots=True, kw_only=True)
class _Staged(_Direct):
    """A staged one."""

    session: Any
    digest: bytes | None
    """Of its newest record; None if it was begun without digests."""
    newest: int
    """LSN of its newest record."""
    digests: bool = False
    """Whether a record has a digest for a value."""
    unlike: list[tuple[int, tuple[Any, Any]]] = field(default_factory=list)
    """Records that are not what was written: nothing depends on them if the transaction is rolled back."""


class LogCheck:
    """Reads the log once, and reports what in it contradicts itself.

    Args:
        connection: inside a transaction that sees one committed state.
        meta: the store's facts.
        findings: where findings go.
        advance: called with numbers of rows as they are read.
        replay: compare each commit's root with that of the entries which the records make; this takes the number of
            commits times that of entries.
        befores: takes each record, to find the names with a wrong `before`; or the hashes of such names: their
            records are compared one by one, and blamed.
    """

    def __init__(
        self,
        connection: Connection,
        meta: Meta,
        findings: Findings,
        advance: Callable[[int], None],
        *,
        replay: bool,
        befores: Links | set[int],
    ) -> None:
        self._connection = connection
        self._start = metadata.read_log_start(connection)
        self._store_id = meta.store_id
        self._findings = findings
        self._advance = advance
        self._roots = LogRoots() if replay and self._start is None else None
        self._replay = LaterRoots() if replay and self._start is not None else None
        self._befores = befores
        self._leaves: dict[bytes, bytes | None] = {}  # the last that the log gave each of them, by name_bytes()
        # What an entry was before; _UNKNOWN in a cut log, and behind a commit that does not follow.
        self._first: bytes | None = None if self._start is None else _UNKNOWN
        self._head = head_zero(meta) if self._start is None else self._start.head
        self._chains = [self._head.chain]  # as it is recorded; and as it follows, if that is not the same
        self._parts: list[bytes] = []
        self._hash = sha256()
        self._relieved = False  # whether some parts of this commit are hashed and gone
        self._breaks: list[_Break] = []
        self._named = 0  # findings about records of this commit
        self._open: _Direct | None = None
        self._staged: dict[int, _Staged] = {}
        self._number = 0  # of the newest commit, as its record says
        self._records = 0
        self._last = 0

    def run(self) -> Figures:
        """Read the whole log."""
        changes = {str(Kind.PUT), str(Kind.DELETE)}
        for row in wal_raw.live(self._connection, self._start):
            self._records += 1
            if not self._records % ROWS_AT_ONCE:
                self._advance(ROWS_AT_ONCE)
            self._last, txn, kind, session, *_ = row
            if session is None and self._start is not None and self._last <= self._start.lsn:
                self._record(self._last, f"I15: record {self._last} was cut from the log, and is there")
                continue
            if session is None and kind in changes:
                name, opened = direct_change(row), self._open
                if name is not None and opened is not None and opened.txn == txn:
                    opened.changes += 1
                    self._change(row, name)
                else:
                    self._direct(RawRecord._make(row))
            else:
                self._other(RawRecord._make(row))
        self._advance(self._records % ROWS_AT_ONCE)
        if self._open is not None:
            self._record(self._open.txn, f"I7: direct transaction {self._open.txn} has no COMMIT record")
        self._check_staged()
        if self._replay is not None and self._start is not None:
            for said, root, count in self._replay.roots(state.scan_all(self._connection), self._start.head):
                self._compare_root(said, root, count)
        return Figures(self._records, self._head.seq - (0 if self._start is None else self._start.head.seq))

    def _record(self, lsn: Any, what: str, name: tuple[Any, Any] | None = None) -> None:
        """Blame one record."""
        self._named += 1
        where = named(*name) if name is not None else {}
        number = lsn if type(lsn) is int else None
        self._findings.add(FindingKind.RECORD, what, lsn=number, seq=self._head.seq + 1, **where)

    def _relieve(self) -> None:
        """Hash the parts so far of a large commit, and drop them."""
        self._hash.update(b"".join(self._parts))
        self._parts.clear()
        self._relieved = True

    def _judge(self, record: RawRecord) -> bool:
        """Blame a record with a field that is not what it must be; return True if every field is sound."""
        is_closing = record.kind == "COMMIT" and record.root is not None  # its head is judged as such
        each = record._replace(root=None, count=None, at=None, chain=None) if is_closing else record
        table = record_table(record.kind, record.digests)
        if table is None:
            return False
        if record.session is None and record.kind != "COMMIT" and record.chain is not None:
            self._record(record.lsn, f"I7: record {record.lsn} has a digest, and is of no staged transaction")
        if table.fits(each):
            return True
        self._record(record.lsn, table.wrong(each), record.name if record.collection is not None else None)
        return False

    def _direct(self, record: RawRecord) -> None:
        """Take a PUT or DELETE record of a direct transaction, with which something may be wrong."""
        lsn, txn, name = record.lsn, record.txn, record.name
        opened = self._open
        if opened is None or txn != opened.txn:
            self._record(lsn, f"I5: record {lsn} is of transaction {txn}, which is not the open one", name)
        else:
            opened.changes += 1
        if self._judge(record) or has_bytes(record):
            self._change(record, name_bytes(stored_name(*name)))

    def _change(self, row: Row, raw: bytes) -> None:
        """Take what a record does to its entry, whose `name_bytes()` is *raw*, into the commit in the making."""
        lsn, txn, _, _, collection, key, value, before, *_, digests = row
        old, new = leaves(raw, before, value, digests)
        if not isinstance(self._befores, set):
            self._befores.add(hash(raw), old, new)
        elif hash(raw) in self._befores:
            had = self._leaves.get(raw, self._first)
            if had not in (old, _UNKNOWN):
                self._breaks.append(_Break(len(self._parts), lsn, txn, (collection, key), had, new))
            self._leaves[raw] = new
        if self._roots is not None:
            self._roots.put(stored_name(collection, key), raw, new)
        if self._replay is not None:
            self._replay.add(stored_name(collection, key), raw, old, new)
        self._parts.append(change_bytes(lsn, txn, old, new))
        if len(self._parts) >= ROWS_AT_ONCE:
            self._relieve()

    def _other(self, record: RawRecord) -> None:
        """Take any other record."""
        lsn, txn, kind = record.lsn, record.txn, record.kind
        self._judge(record)
        if kind == "BEGIN":
            self._begin(record)
        elif kind == "COMMIT":
            self._commit(record)
        elif kind in ("PUT", "DELETE"):
            self._stage(record)
        elif kind == "ROLLBACK":
            if self._staged.pop(txn, None) is None:
                self._record(lsn, f"I7: record {lsn} rolls back transaction {txn}, which is not open")
        else:
            self._record(lsn, f"I7: record {lsn} is of the unknown kind {quoted(kind)}")
            if record.root is not None:
                self._commit(record)  # or all that follows would seem to be wrong

    def _begin(self, record: RawRecord) -> None:
        lsn, txn, session = record.lsn, record.txn, record.session
        if txn != lsn:
            self._record(lsn, f"I5: record {lsn} begins a transaction, and says that it is {txn}")
        if (session is None) != (record.at is None):
            self._record(lsn, f"I7: record {lsn} begins a staged transaction without a time, or a direct one with one")
        if session is not None:
            digest = fmt.STAGED_ZERO if record.chain is not None else None
            self._staged[lsn] = _Staged(lsn, session=session, digest=digest, newest=lsn)
            self._digest(record, (None, None))
            return
        if self._open is not None:
            self._record(self._open.txn, f"I7: direct transaction {self._open.txn} has no COMMIT record")
        self._open = _Direct(lsn)
        self._parts.append(canonical(record) or b"")

    def _stage(self, record: RawRecord) -> None:
        lsn, txn, session = record.lsn, record.txn, record.session
        opened = self._staged.get(txn)
        name = record.name
        if opened is None:
            self._record(lsn, f"I7: record {lsn} is of staged transaction {txn}, which is not open", name)
            return
        opened.changes += 1
        opened.newest = lsn
        opened.digests |= record.digests is not None
        if session != opened.session:
            self._record(lsn, f"I7: record {lsn} has not the session of its BEGIN", name)
        self._digest(record, name)

    def _digest(self, record: RawRecord, name: tuple[Any, Any]) -> None:
        """Compare the digest of a staged record with what follows from it and the one before."""
        lsn, txn, session = record.lsn, record.txn, record.session
        opened, body = self._staged.get(txn), canonical(record)
        if (
            opened is None
            or body is None
            or type(session) is not bytes
            or (record.chain is None and opened.digest is None)
        ):
            return
        if record.chain != staged_digest(opened.digest or fmt.STAGED_ZERO, session, body):
            opened.unlike.append((lsn, name))
        opened.digest = record.chain if type(record.chain) is bytes else fmt.STAGED_ZERO

    def _commit(self, record: RawRecord) -> None:
        """Take a COMMIT record; the last of a commit closes it."""
        lsn, txn, session = record.lsn, record.txn, record.session
        if session is None:
            opened, self._open = self._open, None
            if opened is None or opened.txn != txn:
                self._record(lsn, f"I7: record {lsn} ends direct transaction {txn}, which is not open")
            elif not opened.changes:
                self._record(lsn, f"I10: the transaction that record {lsn} ends has changed nothing")
        else:
            self._commit_staged(record)
        self._parts.append(canonical(record) or b"")
        if record.seq not in (self._head.seq + 1, self._number + 1):
            what = f"I4: record {lsn} is of commit {quoted(record.seq)}, and the next one is {self._head.seq + 1}"
            self._record(lsn, what)
        if record.root is not None:
            self._close(record)
        elif any(each is not None for each in (record.count, record.at, record.chain, record.records, record.total)):
            self._record(lsn, f"I7: record {lsn} has a count, a time, a digest or a total, and closes no commit")

    def _commit_staged(self, record: RawRecord) -> None:
        lsn, txn, session = record.lsn, record.txn, record.session
        opened = self._staged.pop(txn, None)
        if opened is None:
            self._record(lsn, f"I7: record {lsn} commits staged transaction {txn}, which is not open")
        elif not opened.changes:
            self._record(lsn, f"I10: the transaction that record {lsn} ends has changed nothing")
        elif opened.session != session:
            self._record(lsn, f"I7: record {lsn} has not the session of its BEGIN")
        if opened is not None:
            self._unlike_written(txn, opened.unlike)
        for each in wal_raw.staged_raw(self._connection, txn, lsn):
            if each.kind == "BEGIN":
                self._parts.append(canonical(each) or b"")
            elif each.kind in ("PUT", "DELETE") and has_bytes(each):
                self._change(each, name_bytes(stored_name(*each.name)))

    def _close(self, record: RawRecord) -> None:
        """Take the record that closes a commit, and compare the commit with what its records make."""
        seq = record.seq
        self._hash.update(b"".join(self._parts))
        records = self._hash.digest()
        said = self._said(record)
        follows = [_link(each, said, records) for each in self._chains]
        if said.chain in follows:
            if record.records not in (None, records):
                self._record(record.lsn, f"I6: record {record.lsn} has another digest than its commit's records")
            for each in self._breaks:
                what = f"I8: the `before` of record {each.lsn} of commit {said.seq} is not the value that its entry had"
                self._record(each.lsn, what, each.name)
            if self._roots is not None:
                self._compare_root(said, *self._roots.root())
            if self._replay is not None:
                self._replay.close(said)
            known = True
        else:
            known = not self._named and self._blame_commit(said, records)
        self._chains = [said.chain] if known else [said.chain, *follows[:1]]
        if not known:  # what its records were is not known, so neither is what its entries are
            self._leaves, self._first, self._roots, self._replay = {}, _UNKNOWN, None, None
        self._head = said
        self._number = seq if type(seq) is int else self._number + 1
        self._parts, self._hash, self._breaks = [], sha256(), []
        self._named, self._relieved = 0, False

    def _compare_root(self, said: Head, root: bytes, count: int) -> None:
        """Compare the root of a commit with that of the entries which the records up to it make."""
        if (root, count) != (said.root, said.count):
            what = (
                f"I8: the records up to commit {said.seq} make the root {root.hex()} and {count} entries, and the "
                f"commit records {said.root.hex()} and {said.count}"
            )
            self._findings.add(FindingKind.COMMIT, what, seq=said.seq, lsn=self._last, expected=root)

    def _said(self, record: RawRecord) -> Head:
        """Return the commit as it is recorded, with what could be in the place of what cannot."""
        seq, root, count, at, chain = record.seq, record.root, record.count, record.at, record.chain
        number = seq if is_number(seq) and seq == self._number + 1 else self._head.seq + 1
        said = (number, root, count, at, chain)
        if not HEAD.fits(said):
            self._findings.add(FindingKind.COMMIT, HEAD.wrong(said), seq=number, lsn=record.lsn)
            self._named += 1
        return Head(
            number,
            root if is_digest(root) else _NO_DIGEST,
            count if is_number(count) else 0,
            at if is_text(at) else "",
            chain if is_digest(chain) else _NO_DIGEST,
        )

    def _blame_commit(self, said: Head, records: bytes) -> bool:
        """Report a commit whose chain does not follow; return True if it is known what it was made with."""
        if len(self._breaks) == 1 and not self._relieved:
            [wrong] = self._breaks
            parts = list(self._parts)
            parts[wrong.part] = change_bytes(wrong.lsn, wrong.txn, wrong.had, wrong.after)
            if self._follows(said, sha256(b"".join(parts)).digest()):
                what = f"{shown_name(*wrong.name)}, has another `before` than commit {said.seq} was made with"
                self._record(wrong.lsn, f"I6: record {wrong.lsn}, {what}", wrong.name)
                return True
        where = {"seq": said.seq, "lsn": self._last}
        if self._roots is not None:
            root, count = self._roots.root()
            if self._follows(said._replace(root=root, count=count), records):
                what = (
                    f"I3: commit {said.seq} records the root {said.root.hex()} and {said.count} entries; its records "
                    f"and its chain say {root.hex()} and {count}"
                )
                self._findings.add(FindingKind.COMMIT, what, expected=root, **where)
                return True
        what = f"I6: the chain of commit {said.seq} does not follow from its records and the commit before"
        self._findings.add(FindingKind.COMMIT, what, **where)
        return False

    def _follows(self, said: Head, records: bytes) -> bool:
        return any(_link(each, said, records) == said.chain for each in self._chains)

    def _unlike_written(self, txn: int, records: list[tuple[int, tuple[Any, Any]]]) -> None:
        for lsn, name in records:
            what = f"I14: record {lsn} of staged transaction {txn}, or one before it, is not what was written"
            self._record(lsn, what, name)

    def _staged_fault(self, txn: Any, what: str) -> None:
        self._findings.add(FindingKind.STAGED, what, lsn=txn)

    def _check_staged(self) -> None:
        """Compare the table staged with the transactions that have not ended (I9)."""
        rows = staged.rows(self._connection)
        by = trail.resumptions(self._connection, self._store_id) if rows else {}
        there: dict[Any, Any] = dict(rows)
        for row in rows:
            txn, _ = row
            if not STAGED.fits(row):
                self._staged_fault(txn, STAGED.wrong(row))
        for txn, opened in self._staged.items():
            self._unlike_written(txn, opened.unlike)
            missing = 0 if opened.digest is None else wal.missing_behind(self._connection, opened.newest)
            if missing:
                self._staged_fault(txn, f"I14: record {missing} is missing, and may be one of staged transaction {txn}")
            if opened.digests:
                self._staged_fault(txn, f"I7: a record of staged transaction {txn} has a digest for a value")
            if txn not in there:
                self._staged_fault(txn, f"I9: staged transaction {txn} has not ended, and is not listed")
            elif there[txn] != by.get(txn, opened.session):
                self._staged_fault(txn, f"I9: staged transaction {txn} is not of the session listed")
        for txn in there.keys() - self._staged.keys():
            self._staged_fault(txn, f"I9: transaction {txn} is listed as staged, and is not open")


def _link(chain: bytes, said: Head, records: bytes) -> bytes:
    """Return the chain of a commit; nothing if it cannot be one."""
    return chain_or_none(chain, (said.seq, said.root, said.count, said.at), records) or b""
