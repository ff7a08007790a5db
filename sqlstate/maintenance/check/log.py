"""Reads the write-ahead log from its first record on: each commit's chain, and what its records make of the tree.

Each recorded root is compared with the root that the records make, and each `before` with the value that the entry
had just before it (I3 to I8, I10).
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import leaf
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import Head, Kind, change_bytes, staged_digest
from sqlstate.maintenance.check import audit as trail
from sqlstate.maintenance.check.damaged_record import Link, Suspects
from sqlstate.maintenance.check.entries import ROWS_AT_ONCE, Findings, named, read_on
from sqlstate.maintenance.check.log_tree import Change, LogTree, order
from sqlstate.tables import staged, wal
from sqlstate.tables.raw_rows import HEAD, RECORDS, STAGED, is_collection, is_digest, is_number, is_text, shown
from sqlstate.tables.wal import canonical, chain_or_none, has_bytes, head_zero

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import Meta

# Changes of a commit are put into the tree so many at once.
_PENDING: Final = 1 << 16


class Figures(NamedTuple):
    """What was read."""

    records: int
    commits: int


_NOTHING: Final = (None,) * 6
_LEAF: Final = fmt.TAG_LEAF
_NO_DIGEST: Final = bytes(fmt.DIGEST_BYTES)


class Replay:
    """Reads the log once and says what in it contradicts itself.

    Args:
        connection: inside a transaction that sees one committed state.
        meta: the store's facts.
        findings: where findings go.
        advance: called with numbers of rows as they are read.
    """

    def __init__(self, connection: Connection, meta: Meta, findings: Findings, advance: Callable[[int], None]) -> None:
        self._connection = connection
        self._store_id = meta.store_id
        self._findings = findings
        self._advance = advance
        self.tree = LogTree()
        self._head = head_zero(meta)
        self._chains = [self._head.chain]  # as it is recorded; and as it follows, if that is not the same
        self._closed = 0  # LSN of the record that closed the newest commit
        self._parts: list[bytes] = []
        self._hash = sha256()
        self._pending: dict[bytes, Change] = {}
        self._wrong: list[tuple[bytes, bytes | None]] = []
        self._parted = False  # whether some changes of this commit are in the tree already
        self._adrift = False  # whether the tree is not what the newest commit says
        self._named = 0  # findings about records of this commit
        self._open: list[int] | None = None  # the direct transaction that has not ended: txn, changes
        self._staged: dict[int, list[Any]] = {}  # see _begin
        self._number = 0  # of the newest commit, as its record says
        self._collection: tuple[str, bytes, bytes] = ("", b"", b"")  # the newest: starts of name_bytes() and of order()
        self._explained = False  # whether the damaged record of this commit is known
        self._records = 0
        self._last = 0

    def run(self) -> Figures:
        """Read the whole log."""
        rows = read_on(wal.rows(self._connection), partial(wal.scan_verbatim, self._connection))
        direct, put = self._direct, self._put
        changes = {str(Kind.PUT), str(Kind.DELETE)}
        for row in rows:
            self._records += 1
            if not self._records % ROWS_AT_ONCE:
                self._advance(ROWS_AT_ONCE)
            kind = row[2]
            if row[3] is None and kind in changes:
                if kind == "DELETE" or not put(row):
                    direct(row)
            else:
                self._other(row)
        self._advance(self._records % ROWS_AT_ONCE)
        if self._open is not None:
            self._record(self._open[0], "I7: direct transaction {lsn} has no COMMIT record")
        self._check_staged()
        return Figures(self._records, self._head.seq)

    @property
    def head(self) -> Head:
        """The newest commit, once run() has ended."""
        return self._head

    def _record(self, lsn: Any, what: str, name: tuple[Any, Any] | None = None) -> None:
        """Blame one record."""
        self._named += 1
        where = named(*name) if name is not None else {}
        number = lsn if type(lsn) is int else None
        self._findings.add("record", what.replace("{lsn}", str(lsn)), lsn=number, seq=self._head.seq + 1, **where)

    def _put(self, row: Row) -> bool:
        """Take a PUT record of a new entry, text for text, in a direct transaction: most of a large log.

        Does what _direct() would, in a third of its time; False, with nothing done, if the record is any other.
        """
        lsn, txn, _, _, collection, key, value, before = row[:8]
        opened = self._open
        if (
            before is not None
            or opened is None
            or txn != opened[0]
            or type(key) is not str
            or not key
            or type(value) is not str
            or row[8:] != _NOTHING
            or txn < 1
        ):
            return False
        if collection != self._collection[0]:
            if not is_collection(collection):
                return False
            self._collection = collection, name_bytes((collection, 1, ""))[:-4], order(collection, "")
        _, start, place = self._collection
        text = key.encode()
        place += text
        pending = self._pending
        if place in pending:
            return False
        raw = start + len(text).to_bytes(4) + text
        new = sha256(_LEAF + raw + fmt.VKIND_JSON + sha256(value.encode()).digest()).digest()
        opened[1] += 1
        self._last = lsn
        parts = self._parts
        parts.append(change_bytes(lsn, txn, None, new))
        pending[place] = None, new, raw
        if len(parts) >= ROWS_AT_ONCE:
            self._relieve()
        return True

    def _relieve(self) -> None:
        """Put a part of a large commit away."""
        self._hash.update(b"".join(self._parts))
        self._parts.clear()
        if len(self._pending) >= _PENDING:
            self._wrong += self.tree.put(self._pending)
            self._parted = True
            self._pending = {}

    def _judge(self, row: Row) -> None:
        """Blame a record with a field that is not what it must be."""
        is_closing = row[2] == "COMMIT" and row[9] is not None  # its head is judged as such
        each = (*row[:9], None, None, None, None, *row[13:]) if is_closing else row
        table = RECORDS[row[2]]
        if row[3] is None and row[2] != "COMMIT" and row[12] is not None:
            self._record(row[0], "I7: record {lsn} has a digest, and is of no staged transaction")
        if not table.fits(each):
            self._record(row[0], table.wrong(each), (row[4], row[5]) if row[4] is not None else None)

    def _direct(self, row: Row) -> None:
        """Take a PUT or DELETE record of a direct transaction."""
        lsn, txn, _, _, collection, key = row[:6]
        opened = self._open
        self._last = lsn
        if opened is None or txn != opened[0]:
            self._record(
                lsn, f"I5: record {{lsn}} is of transaction {txn}, which is not the open one", (collection, key)
            )
        else:
            opened[1] += 1
        self._judge(row)
        self._change(row)

    def _change(self, row: Row) -> None:
        """Take what a record does to an entry into the commit in the making; nothing of one that has no bytes."""
        if not has_bytes(row):
            return
        lsn, txn, _, _, collection, key, value, before = row[:8]
        raw = name_bytes(stored_name(collection, key))
        old = None if before is None else leaf(raw, before)
        new = None if value is None else leaf(raw, value)
        place = order(collection, key)
        parts = self._parts
        parts.append(change_bytes(lsn, txn, old, new))
        pending = self._pending
        earlier = pending.get(place)
        if earlier is None:
            pending[place] = old, new, raw
        else:
            if earlier[1] != old:
                self._wrong.append((place, earlier[1]))
            pending[place] = earlier[0], new, raw
        if len(parts) >= ROWS_AT_ONCE:
            self._relieve()

    def _other(self, row: Row) -> None:
        """Take any other record."""
        lsn, txn, kind = row[:3]
        self._last = lsn
        if kind in RECORDS:
            self._judge(row)
        if kind == "BEGIN":
            self._begin(row)
        elif kind == "COMMIT":
            self._commit(row)
        elif kind in ("PUT", "DELETE"):
            self._stage(row)
        elif kind == "ROLLBACK":
            if self._staged.pop(txn, None) is None:
                self._record(lsn, f"I7: record {{lsn}} rolls back transaction {txn}, which is not open")
        else:
            self._record(lsn, f"I7: record {{lsn}} is of kind {shown(kind)}, which there is not")
            if row[9] is not None:
                self._commit(row)  # or all that follows would seem to be wrong

    def _begin(self, row: Row) -> None:
        lsn, txn, _, session = row[:4]
        if txn != lsn:
            self._record(lsn, f"I5: record {{lsn}} begins a transaction, and says that it is {txn}")
        if (session is None) != (row[11] is None):
            self._record(lsn, "I7: record {lsn} begins a staged transaction without a time, or a direct one with one")
        if session is not None:
            # Session, changes, digest, newest record, and those that are not what was written: if it is rolled back,
            # nothing depends on them.
            self._staged[lsn] = [session, 0, fmt.STAGED_ZERO if row[12] is not None else None, lsn, []]
            self._digest(row, (None, None))
            return
        if self._open is not None:
            self._record(self._open[0], "I7: direct transaction {lsn} has no COMMIT record")
        self._open = [lsn, 0]
        self._parts.append(canonical(row) or b"")

    def _stage(self, row: Row) -> None:
        lsn, txn, _, session = row[:4]
        opened = self._staged.get(txn)
        name = row[4], row[5]
        if opened is None:
            self._record(lsn, f"I7: record {{lsn}} is of staged transaction {txn}, which is not open", name)
            return
        opened[1] += 1
        opened[3] = lsn
        if session != opened[0]:
            self._record(lsn, "I7: record {lsn} has not the session of its BEGIN", name)
        self._digest(row, name)

    def _digest(self, row: Row, name: tuple[Any, Any]) -> None:
        """Compare the digest of a staged record with what follows from it and the one before."""
        lsn, txn, _, session = row[:4]
        opened, body = self._staged.get(txn), canonical(row)
        if opened is None or body is None or type(session) is not bytes or (row[12] is None and opened[2] is None):
            return
        if row[12] != staged_digest(opened[2] or fmt.STAGED_ZERO, session, body):
            opened[4].append((lsn, name))
        opened[2] = row[12] if type(row[12]) is bytes else fmt.STAGED_ZERO

    def _commit(self, row: Row) -> None:
        """Take a COMMIT record; the last of a commit closes it."""
        lsn, txn, _, session = row[:4]
        if session is None:
            opened, self._open = self._open, None
            if opened is None or opened[0] != txn:
                self._record(lsn, f"I7: record {{lsn}} ends direct transaction {txn}, which is not open")
            elif not opened[1]:
                self._record(lsn, "I10: the transaction that record {lsn} ends has changed nothing")
        else:
            self._commit_staged(row)
        self._parts.append(canonical(row) or b"")
        if row[8] not in (self._head.seq + 1, self._number + 1):
            what = f"I4: record {{lsn}} is of commit {shown(row[8])}, and the next one is {self._head.seq + 1}"
            self._record(lsn, what)
        if row[9] is not None:
            self._close(row)
        elif row[10:13] != (None,) * 3:
            self._record(lsn, "I7: record {lsn} has a count, a time or a chain, and closes no commit")

    def _commit_staged(self, row: Row) -> None:
        lsn, txn, _, session = row[:4]
        opened = self._staged.pop(txn, None)
        if opened is None:
            self._record(lsn, f"I7: record {{lsn}} commits staged transaction {txn}, which is not open")
        elif not opened[1]:
            self._record(lsn, "I10: the transaction that record {lsn} ends has changed nothing")
        elif opened[0] != session:
            self._record(lsn, "I7: record {lsn} has not the session of its BEGIN")
        if opened is not None:
            self._unlike_written(txn, opened[4])
        for each in wal.staged_verbatim(self._connection, txn, lsn):
            if each[2] == "BEGIN":
                self._parts.append(canonical(each) or b"")
            elif each[2] in ("PUT", "DELETE"):
                self._change(each)

    def _close(self, row: Row) -> None:
        """Take the record that closes a commit, and compare the commit with what its records make."""
        lsn, seq = row[0], row[8]
        self._hash.update(b"".join(self._parts))
        records = self._hash.digest()
        said = self._said(row)
        follows = [_link(each, said, records) for each in self._chains]
        holds = said.chain in follows
        changes = self._pending
        if not holds and not self._parted and not self._named:
            link = Link(tuple(self._chains), said, self._closed, lsn)
            found = Suspects(self._connection, self.tree, link).find()
            if found is not None:
                changes, self._explained = found.changes, True
                self._record(found.lsn, found.what, found.name)
        self._wrong += self.tree.put(changes)
        made = self.tree.settle()
        if not holds:
            self._blame_commit(said, records, made)
        elif made != (said.root, said.count) and not self._adrift:
            what = (
                f"I8: the records up to commit {said.seq} make the root {made[0].hex()} and {made[1]} entries, and the "
                f"commit records {said.root.hex()} and {said.count}"
            )
            self._findings.add("commit", what, seq=said.seq, lsn=lsn, expected=made[0])
        elif self._wrong and not self._adrift:
            what = f"I8: the `before` of a record of commit {said.seq} is not the value that its entry had"
            self._findings.add("commit", what, seq=said.seq, lsn=lsn)
        self._adrift = made != (said.root, said.count) and not (self._explained or _same_root(said, made))
        self._head = said
        self._number = seq if type(seq) is int else self._number + 1
        self._chains = [said.chain] if holds or self._explained else [said.chain, *follows[:1]]
        self._closed = lsn
        self._parts, self._hash, self._pending, self._wrong = [], sha256(), {}, []
        self._named, self._parted, self._explained = 0, False, False

    def _said(self, row: Row) -> Head:
        """Return the commit as it is recorded, with what could be in the place of what cannot."""
        seq, root, count, at, chain = row[8:13]
        number = seq if is_number(seq) and seq == self._number + 1 else self._head.seq + 1
        said = (number, root, count, at, chain)
        if not HEAD.fits(said):
            self._findings.add("commit", HEAD.wrong(said), seq=number, lsn=row[0])
            self._named += 1
        return Head(
            number,
            root if is_digest(root) else _NO_DIGEST,
            count if is_number(count) else 0,
            at if is_text(at) else "",
            chain if is_digest(chain) else _NO_DIGEST,
        )

    def _blame_commit(self, said: Head, records: bytes, made: tuple[bytes, int]) -> None:
        """Say what is wrong with a commit whose chain does not follow."""
        if self._named:
            return
        recorded = said._replace(root=made[0], count=made[1])
        where = {"seq": said.seq, "lsn": self._last}
        if any(_link(each, recorded, records) == said.chain for each in self._chains):
            what = (
                f"I3: commit {said.seq} records the root {said.root.hex()} and {said.count} entries; its records and "
                f"its chain say {made[0].hex()} and {made[1]}"
            )
            self._findings.add("commit", what, expected=made[0], **where)
            self._explained = True
            return
        what = f"I6: the chain of commit {said.seq} does not follow from its records and the commit before"
        self._findings.add("commit", what, **where)

    def _unlike_written(self, txn: int, records: list[tuple[int, tuple[Any, Any]]]) -> None:
        for lsn, name in records:
            what = f"I14: record {{lsn}} of staged transaction {txn}, or one before it, is not what was written"
            self._record(lsn, what, name)

    def _check_staged(self) -> None:
        """Compare the table staged with the transactions that have not ended (I9)."""
        rows = staged.rows(self._connection)
        by = trail.resumptions(self._connection, self._store_id) if rows else {}
        there: dict[Any, Any] = dict(rows)
        for row in rows:
            if not STAGED.fits(row):
                self._findings.add("staged", STAGED.wrong(row), lsn=row[0])
        for txn, (session, _, digest, newest, unlike) in self._staged.items():
            self._unlike_written(txn, unlike)
            missing = 0 if digest is None else wal.missing_behind(self._connection, newest)
            if missing:
                what = f"I14: record {missing} is missing, and may be one of staged transaction {txn}"
                self._findings.add("staged", what, lsn=txn)
            if txn not in there:
                self._findings.add("staged", f"I9: staged transaction {txn} has not ended, and is not listed", lsn=txn)
            elif there[txn] != by.get(txn, session):
                self._findings.add("staged", f"I9: staged transaction {txn} is not of the session listed", lsn=txn)
        for txn in there.keys() - self._staged.keys():
            self._findings.add("staged", f"I9: transaction {txn} is listed as staged, and is not open", lsn=txn)


def _same_root(said: Head, made: tuple[bytes, int]) -> bool:
    return (said.root, said.count) == made


def _link(chain: bytes, said: Head, records: bytes) -> bytes:
    """Return the chain of a commit; nothing if it cannot be one."""
    return chain_or_none(chain, (said.seq, said.root, said.count, said.at), records) or b""
