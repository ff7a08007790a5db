"""Makes commits: applies changes to state and tree, logs them, and records root and chain.

All of it happens in one SQLite transaction on the writing connection.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlstate.commit import tree_update
from sqlstate.commit.clock import now
from sqlstate.commit.node_cache import UNKNOWN
from sqlstate.commit.pending import Savepoint, Tail, as_logged, keep, row_of, rows_of
from sqlstate.errors import StoreError, StoreIOError
from sqlstate.format.merkle import leaf
from sqlstate.format.names import name_bytes
from sqlstate.format.records import (
    Head,
    begin_bytes,
    chain_next,
    change_bytes,
    commit_bytes,
    record_bytes,
    short_bytes,
)
from sqlstate.format.values import same
from sqlstate.tables import staged, state, wal, wal_digests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlstate.commit.pending import Change, Pending
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Record


# Writes are kept in memory up to this and applied together: sorted, each node of the tree once.
BUFFER_ENTRIES: Final = 16_384
BUFFER_BYTES: Final = 32 << 20


class Commit:
    """One commit in the making, from BEGIN IMMEDIATE on: one transaction, or several in turn.

    Each transaction is made of add() or apply(), and end(). Added entries are pending until write_pending() writes them
    to the tables: all at once, sorted, each node of the tree once. Nothing is durable, or seen by others, before
    finish().

    Args:
        context: of the store; the caller holds the engine's writer lock.
        note: the caller's words for the BEGIN record of the first transaction.
        begun: the greatest LSN and the newest head, if BEGIN IMMEDIATE and wal.last() were run already.

    Raises:
        Busy: another process held SQLite's write lock for the whole timeout.
    """

    __slots__ = (
        "_bytes",
        "_connection",
        "_context",
        "_count",
        "_lsn",
        "_note",
        "_pending",
        "_records",
        "_root",
        "_session",
        "_size",
        "_tail",
        "_torn",
        "_txn",
        "_unwritten",
        "_version",
        "base",
        "failure",
        "head",
        "transactions",
    )  # fmt: skip

    base: Head
    """The commit that it follows."""
    failure: BaseException | None
    """The error that left the tables incomplete: the commit can only be rolled back."""
    head: Head | None
    """The new head, set just before COMMIT: from then on the commit may be in the file."""
    transactions: int
    """Transactions that have ended in it; those without effect are not counted."""

    def __init__(self, context: WriteContext, note: str = "", *, begun: tuple[int, Head] | None = None) -> None:
        self._context = context
        self._connection = context.engine.write_connection
        self._lsn, self.base = context.begin() if begun is None else begun
        self.failure = None
        self.head = None
        self._torn = False  # True while the fields change: if it stays True, an exception left them inconsistent
        self._version = self.base.chain  # of the tree, as the node cache names it
        self.transactions = 0
        self._root = self.base.root
        self._count = self.base.count
        self._records = sha256()
        self._tail = Tail(self.base.seq + 1)
        self._pending: dict[Name, Pending] = {}
        self._bytes = 0  # of the values that are pending
        self._size = 0  # of its records in the file, about
        self._session: bytes | None = None
        self._txn = 0
        self.begin(note)

    def spoil(self) -> None:
        """Give up the transaction under way. Its changes cannot be taken out, so the commit is broken."""
        if self._txn:
            self._torn = True

    @property
    def broken(self) -> bool:
        """Whether it cannot be committed any more."""
        return self._torn or self.failure is not None

    @property
    def is_open(self) -> bool:
        """Whether there is something to continue or to finish.

        If its first transaction fails, SQLite can roll back by itself, and nothing is left. Once a transaction has
        ended well, the commit stays open until finish(), which decides the outcome of all of them.
        """
        return self.transactions > 0 or self._connection.in_transaction()

    @property
    def root(self) -> bytes:
        """Root of the tree, once nothing is pending."""
        return self._root

    def begin(self, note: str) -> None:
        """Begin the next transaction, with *note* in its BEGIN record."""
        self._note = note
        self._txn = 0  # LSN of the BEGIN record; 0 until there is a change to log
        self._unwritten: list[Change] = []  # its newest changes: numbered, and not in the log table yet

    def get(self, name: Name) -> Stored | None:
        """Return the stored value of an entry as the newest transaction left it, or None."""
        pending = self._pending.get(name)
        return state.get(self._connection, name[0], name[2]) if pending is None else pending[0]

    def add(self, values: Mapping[Name, Stored | None]) -> None:
        """Put each of *values*, or delete the entry where it is None. Entries that do not change are skipped.

        Raises:
            StoreError: an entry could not be read; nothing was added.
        """
        if self._torn:
            self._check()
        changes = self._change(values)
        if changes:
            self._torn = True
            self._bytes += keep(self._pending, changes)
            self._number(changes)
            self._torn = False

    def apply(self, values: Mapping[Name, Stored | None]) -> int:
        """Put or delete as add() does, and write all that is pending, and this, to the tables.

        Returns how many entries differ.

        Raises:
            Damaged: an entry or a node on its path contradicts the tree. The caller must roll back.
        """
        self.write_pending()
        self._check()
        changes = self._change(values)
        if changes:
            self._check()
            self._torn = True
            self._number(changes)
            self._write(changes)
            self._torn = False
        if len(self._unwritten) > 1:
            self._write_log()
        return len(changes)

    def add_singles(self, values: Mapping[Name, Stored | None]) -> list[Name]:
        """Put each of *values*, or delete the entry where it is None: each a transaction of its own, in this order.

        It is called between two transactions. Returns the names of those that changed.

        Raises:
            StoreError: an entry could not be read; nothing was added.
        """
        if self._torn:
            self._check()
        changes = self._change(values)
        if len(changes) > 1:
            by_name = {change[0]: change for change in changes}
            changes = [by_name[name] for name in values if name in by_name]
        self._torn = True
        self._bytes += keep(self._pending, changes)
        lsn, short, parts = self._lsn + 1, self._tail.short, []
        for change in as_logged(changes, self._context.digest_logs):
            _, before, after, leaf_before, leaf_after, raw = change
            parts.append(short_bytes(lsn, leaf_before, leaf_after))
            self._size += wal.TRANSACTION_BYTES + wal.size_of_change(raw, after, before)
            short(lsn, row_of(change))
            lsn += 3
        self._lsn = lsn - 1
        self._records.update(b"".join(parts))
        self.transactions += len(changes)
        self._torn = False
        self._bound()
        return [change[0] for change in changes]

    def apply_staged(self, records: Sequence[Record], values: Mapping[Name, Stored | None]) -> None:
        """Apply the staged transaction with *records*, whose net effect is *values*."""
        self.write_pending()
        self._check()
        changes = self._change(values)
        if not changes:
            return
        self._check()
        self._torn = True
        self._write(changes)
        self._txn, self._session = records[0].txn, records[0].session
        for record in records:
            self._records.update(record_bytes(record))
        wal_digests.collapse(self._connection, records, self._context.digest_logs)
        self._size += wal.size_of_staged(self._connection, self._txn)
        self._torn = False

    def end(self) -> bool:
        """End the transaction under way; return True if it changed anything. If not, it leaves no trace."""
        if self._torn:
            self._check()
        txn, changes = self._txn, self._unwritten
        if not txn:
            return False
        self._torn = True
        short = len(changes) == 1 and txn + 1 == self._lsn and not self._note and not self._session
        self._lsn += 1
        self._size += wal.TRANSACTION_BYTES
        self._records.update(commit_bytes(self._lsn, txn))
        if short:
            self._tail.short(txn, row_of(changes[0]))
        else:
            self._log_changes(self._lsn - 1)
            self._tail.commit(self._lsn, txn, self._session)
        self.transactions += 1
        self.begin("")
        self._torn = False
        self._bound()
        return True

    def write_pending(self) -> None:
        """Write the pending entries to state and tree.

        Raises:
            Damaged: an entry or a node on its path contradicts the tree. The caller must roll back.
        """
        pending = self._pending
        if not pending:
            return
        self._check()
        self._torn = True
        changes: list[Change] = []
        for name in sorted(pending):
            value, after, raw, before = pending[name]
            if before != after:
                changes.append((name, None, value, before, after, raw))
        if changes:
            self._write(changes)
        pending.clear()
        self._bytes = 0
        self._torn = False

    def _write(self, changes: list[Change]) -> None:
        """Write *changes*, sorted by name, to state and tree; the values before are not looked at."""
        connection, cache = self._connection, self._context.node_cache
        new = [change[3] for change in changes].count(None)
        gone = [change[4] for change in changes].count(None)
        self._count += new - gone
        try:
            if new + gone <= cache.moves and len(changes) <= BUFFER_ENTRIES:
                cache.use(self._version)
                self._version = self.base.chain + b"+"  # a version that only this commit uses: it began at base.chain
                cache.valid_for(self._version)
                self._root, left = cache.rewrite(connection, changes, self._root)
                if left:
                    later = {change[0] for change in left}
                    changes = [change for change in changes if change[0] not in later]
                state.write(connection, [(change[0], change[2]) for change in changes])
                changes = left
            if changes:
                cache.valid_for(UNKNOWN)
                plan = tree_update.plan(connection, tree_update.edits(connection, changes), self._root)
                state.write(connection, [(change[0], change[2]) for change in changes])
                tree_update.write(connection, plan)
                self._root = plan.root
        except BaseException as e:
            self.failure = e
            raise

    def finish(self) -> Head | None:
        """End the transaction under way, commit durably and return the new head.

        Returns None if nothing changed and nothing was written.

        Raises:
            Busy, StoreFull, Damaged: nothing was changed.
            CommitOutcomeUnknown: the commit may or may not be there.
            StoreIOError: as Engine.commit() and FlagKeeper.after_commit().
        """
        base = self.base
        try:
            self._check()
            self.write_pending()
            if not self.transactions and (not self._txn or self._root == base.root):  # I10
                self.roll_back()
                return None
            txn = self._txn
            self.end()
            facts = (base.seq + 1, self._root, self._count, now())  # I4
            records = self._records.digest()
            self.head = Head(*facts, chain_next(base.chain, facts, records))
            total = self._context.total + self._size
            self._tail.write(self._connection, (*self.head, records, total))
            if self._session is not None:
                staged.remove(self._connection, txn)
            self._context.commit(self.head, self._lsn, total, self.transactions)
            if self._context.node_cache.version == self._version:
                self._context.node_cache.valid_for(self.head.chain)
        except BaseException:
            self.roll_back()
            raise
        return self.head

    def _bound(self) -> None:
        """Write pending entries and records once they exceed the buffer."""
        if len(self._pending) >= BUFFER_ENTRIES or self._bytes >= BUFFER_BYTES:
            self.write_pending()
            self._write_log()

    def _check(self) -> None:
        """Raise if the tables hold only part of the commit."""
        if self.failure is not None:
            raise self.failure
        if self._torn or not self._connection.in_transaction():
            # SQLite rolls back by itself after some errors, also of reads; what follows must not become a commit.
            raise StoreIOError(
                f"{self._connection.path}: the transaction was cut short by an error; nothing was changed. Try again"
            )

    def roll_back(self) -> None:
        """Roll back, unless the handle failed or belongs to a parent process: then nothing is touched."""
        if self._context.engine.usable:
            self._connection.rollback()

    def savepoint(self) -> Savepoint:
        """Set a savepoint and return what roll_back_to() needs to go back to it."""
        self._check()
        self.write_pending()
        self._write_log()
        self._connection.run("SAVEPOINT nested")
        records, closing = self._records.copy(), self._tail.closing
        return Savepoint(self._lsn, self._txn, self._root, self._count, records, self.transactions, closing, self._size)

    def roll_back_to(self, mark: Savepoint) -> None:
        """Roll back to the newest savepoint, which *mark* describes, and remove it."""
        if not self._context.engine.usable:
            return
        if self._connection.in_transaction():
            try:
                self._connection.run("ROLLBACK TO nested; RELEASE nested")
            except BaseException as e:
                self.failure = e
                raise
        self._unwritten.clear()
        self._pending.clear()
        self._bytes = 0
        self._context.node_cache.valid_for(UNKNOWN)
        self.failure = None  # its cause is undone
        self._torn = False
        self._lsn, self._txn, self._root, self._count, self._records, self.transactions, closing, self._size = mark
        self._tail.reset(closing)

    def release_savepoint(self) -> None:
        """Keep what was done since the newest savepoint, and remove it."""
        self._connection.run("RELEASE nested")

    def _change(self, values: Mapping[Name, Stored | None]) -> list[Change]:
        """Return those of *values* that differ from what is there, sorted by name."""
        pending = self._pending
        names = sorted(values)
        unread = [name for name in names if name not in pending] if pending else names
        befores = iter(state.get_many(self._connection, unread))
        changes: list[Change] = []
        for name in names:
            after = values[name]
            if pending and name in pending:
                before, leaf_before, raw, _ = pending[name]
                if same(before, after):
                    continue
            else:
                before = next(befores)
                if type(before) is type(after) and before == after:
                    continue
                raw = name_bytes(name)
                leaf_before = None if before is None else leaf(raw, before)
            changes.append((name, before, after, leaf_before, None if after is None else leaf(raw, after), raw))
        return changes

    def _number(self, changes: list[Change]) -> None:
        """Give *changes* of the transaction under way their LSNs, and hash their records."""
        if not self._txn:
            self._lsn += 1  # I5
            self._txn = self._lsn
            self._records.update(begin_bytes(self._lsn, self._note, None))
        txn = self._txn
        records = [
            change_bytes(lsn, txn, before, after) for lsn, (*_, before, after, _) in enumerate(changes, self._lsn + 1)
        ]
        self._records.update(b"".join(records))
        changes = as_logged(changes, self._context.digest_logs)
        self._size += sum(wal.size_of_change(raw, after, before) for _, before, after, _, _, raw in changes)
        self._lsn += len(changes)
        self._unwritten += changes

    def _log_changes(self, last: int) -> None:
        """Pass the unwritten changes, numbered up to *last*, to the log tail; the first bring the BEGIN record."""
        changes = self._unwritten
        if not changes:
            return
        lsn = last - len(changes) + 1
        if lsn == self._txn + 1:
            self._tail.begin(self._txn, self._note)
        self._tail.changes(rows_of(changes, (lsn, self._txn), marked=bool(self._context.digest_logs)))
        changes.clear()

    def _write_log(self) -> None:
        if self._torn:
            self._check()
        self._torn = True
        try:
            self._log_changes(self._lsn)
            self._tail.write(self._connection)
        except StoreError as e:
            self.failure = e
            raise
        self._torn = False
