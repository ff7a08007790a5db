"""Reads the write-ahead log from its first record on: each commit's chain, and what its records make of the tree.

Each recorded root is compared with the root that the records make, and each `before` with the value that the entry
had just before it (I3 to I8, I10).
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate import audit, wal
from sqlstate import format as fmt
from sqlstate.comparison import NONSENSE, ROWS_AT_ONCE, Findings, leaf_of, named, read_on
from sqlstate.encoding import name_bytes, stored_name
from sqlstate.merkle import leaf
from sqlstate.replay.logtree import Change, LogTree, order
from sqlstate.replay.suspects import Link, Suspects
from sqlstate.wal import Kind, begin_bytes, chain_next, change_bytes, commit_bytes, head_zero

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.connection import Connection, Row
    from sqlstate.meta import Meta
    from sqlstate.wal import Head

# Changes of a commit are put into the tree so many at once.
_PENDING: Final = 1 << 16


class Figures(NamedTuple):
    """What was read."""

    records: int
    commits: int


_NOTHING: Final = (None,) * 6
_LEAF: Final = fmt.TAG_LEAF


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
        self._staged: dict[int, list[Any]] = {}  # those staged: session, changes
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

    @property
    def adrift(self) -> bool:
        """Whether the records do not make the newest commit's root, as was said of an earlier one."""
        return self._adrift

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
            or type(value) is not str
            or row[8:] != _NOTHING
        ):
            return False
        if collection != self._collection[0]:
            if type(collection) is not str:
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

    def _direct(self, row: Row) -> None:
        """Take a PUT or DELETE record of a direct transaction."""
        lsn, txn, kind, _, collection, key, value, before = row[:8]
        opened = self._open
        self._last = lsn
        if opened is None or txn != opened[0]:
            self._record(
                lsn, f"I5: record {{lsn}} is of transaction {txn}, which is not the open one", (collection, key)
            )
        else:
            opened[1] += 1
        if row[8:] != _NOTHING or (kind == "PUT") == (value is None) or (value is None and before is None):
            self._record(lsn, "I7: record {lsn} has a column too many or too few", (collection, key))
        self._change(lsn, txn, (collection, key), value, before)

    def _change(self, lsn: int, txn: int, name: tuple[Any, Any], value: Any, before: Any) -> None:
        """Take what a record does to an entry into the commit in the making."""
        try:
            raw = name_bytes(stored_name(*name))
            old = None if before is None else leaf(raw, before)
            new = None if value is None else leaf(raw, value)
            part = change_bytes(lsn, txn, old, new)
            place = order(*name)
        except NONSENSE:
            self._record(lsn, "I1: record {lsn} does not name an entry with a value", name)
            return
        parts = self._parts
        parts.append(part)
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
        lsn, txn, kind, session = row[:4]
        self._last = lsn
        if session is not None and (type(session) is not bytes or len(session) != fmt.SESSION_BYTES):
            self._record(lsn, "I7: record {lsn} has a session that is none")
        if kind == "BEGIN":
            self._begin(row)
        elif kind == "COMMIT":
            self._commit(row)
        elif kind in ("PUT", "DELETE"):
            self._stage(row)
        elif kind == "ROLLBACK":
            if row[4:10] != _NOTHING or row[10] is not None or row[12:] != (None, None) or type(row[11]) is not str:
                self._record(lsn, "I7: record {lsn} has a column too many or too few")
            if self._staged.pop(txn, None) is None:
                self._record(lsn, f"I7: record {{lsn}} rolls back transaction {txn}, which is not open")
        else:
            self._record(lsn, f"I7: record {{lsn}} is of kind {kind!r}, which there is not")
            if row[9] is not None:
                self._commit(row)  # or all that follows would seem to be wrong

    def _begin(self, row: Row) -> None:
        lsn, txn, _, session = row[:4]
        at, note = row[11], row[13]
        if txn != lsn:
            self._record(lsn, f"I5: record {{lsn}} begins a transaction, and says that it is {txn}")
        if row[4:11] != (None,) * 7 or row[12] is not None or type(note) is not str:
            self._record(lsn, "I7: record {lsn} has a column too many or too few")
        if session is not None:
            if type(at) is not str:
                self._record(lsn, "I7: record {lsn} begins a staged transaction, and has no time")
            self._staged[lsn] = [session, 0]
            return
        if self._open is not None:
            self._record(self._open[0], "I7: direct transaction {lsn} has no COMMIT record")
        if at is not None:
            self._record(lsn, "I7: record {lsn} has a column too many or too few")
        self._open = [lsn, 0]
        self._parts.append(_begin_bytes(row))

    def _stage(self, row: Row) -> None:
        lsn, txn, kind, session, collection, key, value = row[:7]
        opened = self._staged.get(txn)
        name = (collection, key)
        if opened is None:
            self._record(lsn, f"I7: record {{lsn}} is of staged transaction {txn}, which is not open", name)
            return
        opened[1] += 1
        if session != opened[0]:
            self._record(lsn, "I7: record {lsn} has not the session of its BEGIN", name)
        wrong = row[8:] != _NOTHING or (kind == "PUT") == (value is None)
        if wrong or not leaf_of((collection, key, value if kind == "PUT" else "")):
            self._record(lsn, "I1: record {lsn} does not name an entry with a value", name)

    def _commit(self, row: Row) -> None:
        """Take a COMMIT record; the last of a commit closes it."""
        lsn, txn, _, session = row[:4]
        if row[4:8] != (None,) * 4 or row[13] is not None:
            self._record(lsn, "I7: record {lsn} has a column too many or too few")
        if session is None:
            opened, self._open = self._open, None
            if opened is None or opened[0] != txn:
                self._record(lsn, f"I7: record {{lsn}} ends direct transaction {txn}, which is not open")
            elif not opened[1]:
                self._record(lsn, "I10: the transaction that record {lsn} ends has changed nothing")
        else:
            self._commit_staged(row)
        self._parts.append(_commit_bytes(lsn, txn))
        if row[8] not in (self._head.seq + 1, self._number + 1):
            self._record(lsn, f"I4: record {{lsn}} is of commit {row[8]!r}, and the next one is {self._head.seq + 1}")
        if row[9] is not None:
            self._close(row)
        elif row[10:13] != (None,) * 3:
            self._record(lsn, "I7: record {lsn} has a column too many or too few")

    def _commit_staged(self, row: Row) -> None:
        lsn, txn, _, session = row[:4]
        opened = self._staged.pop(txn, None)
        if opened is None:
            self._record(lsn, f"I7: record {{lsn}} commits staged transaction {txn}, which is not open")
        elif not opened[1]:
            self._record(lsn, "I10: the transaction that record {lsn} ends has changed nothing")
        elif opened[0] != session:
            self._record(lsn, "I7: record {lsn} has not the session of its BEGIN")
        for each in wal.staged_verbatim(self._connection, txn, lsn):
            if each[2] == "BEGIN":
                self._parts.append(_begin_bytes(each))
            else:
                self._change(each[0], each[1], (each[4], each[5]), each[6], each[7])

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
        good = (
            type(root) is bytes and len(root) == fmt.DIGEST_BYTES,
            type(count) is int and count >= 0,
            type(at) is str,
            type(chain) is bytes and len(chain) == fmt.DIGEST_BYTES,
        )
        number = seq if type(seq) is int and seq == self._number + 1 else self._head.seq + 1
        if not all(good):
            what = f"I6: commit {number} has a root, count, time or chain that is none"
            self._findings.add("commit", what, seq=number, lsn=row[0])
            self._named += 1
        return wal.Head(
            number,
            root if good[0] else bytes(32),
            count if good[1] else 0,
            at if good[2] else "",
            chain if good[3] else b"",
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

    def _check_staged(self) -> None:
        """Compare the table staged with the transactions that have not ended (I9)."""
        rows = wal.staged_rows(self._connection)
        by = _resumed(self._connection, self._store_id) if rows else {}
        there: dict[Any, Any] = dict(rows)
        for txn, (session, _) in self._staged.items():
            if txn not in there:
                self._findings.add("staged", f"I9: staged transaction {txn} has not ended, and is not listed", lsn=txn)
            elif there[txn] != by.get(txn, session):
                self._findings.add("staged", f"I9: staged transaction {txn} is not of the session listed", lsn=txn)
        for txn in there.keys() - self._staged.keys():
            self._findings.add("staged", f"I9: transaction {txn} is listed as staged, and is not open", lsn=txn)


def _resumed(connection: Connection, store_id: bytes) -> dict[int, bytes]:
    """Return the session that resumed a staged transaction last, as the audit trail says."""
    found: dict[int, bytes] = {}
    for entry, _ in audit.check_chain(connection, store_id):
        try:
            found |= {txn: bytes.fromhex(entry.detail["by"]) for txn in entry.detail["resumed"]}
        except NONSENSE:
            continue
    return found


def _same_root(said: Head, made: tuple[bytes, int]) -> bool:
    return (said.root, said.count) == made


def _link(chain: bytes, said: Head, records: bytes) -> bytes:
    """Return the chain of a commit; nothing if it cannot be one."""
    try:
        return chain_next(chain, (said.seq, said.root, said.count, said.at), records)
    except NONSENSE:
        return b""


def _begin_bytes(row: Row) -> bytes:
    try:
        return begin_bytes(row[0], row[13] or "", row[11])
    except NONSENSE:
        return b""


def _commit_bytes(lsn: Any, txn: Any) -> bytes:
    try:
        return commit_bytes(lsn, txn)
    except NONSENSE:
        return b""
