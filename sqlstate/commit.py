"""Makes commits: applies changes to state and tree, logs them, and closes them with root and chain.

All of it happens in one SQLite transaction on the writing connection. What a transaction buffers and
when it is applied is `transaction`'s matter.
"""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate import state, tree, wal
from sqlstate.encoding import name_bytes, same
from sqlstate.marker import Marking
from sqlstate.merkle import leaf, leaf_edit, rank
from sqlstate.wal import Head, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlstate.encoding import Name, Stored
    from sqlstate.engine import Engine
    from sqlstate.meta import Meta
    from sqlstate.wal import Record


def now() -> str:
    """Return the time as the file format writes it: ISO 8601, UTC, microseconds."""
    global _second  # noqa: PLW0603, one assignment of a pair, so threads can share it
    second, rest = divmod(time.time_ns(), 1_000_000_000)
    known, text = _second
    if second != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _second = second, text
    return f"{text}{rest // 1000:06d}Z"


# The newest second and its text: most commits fall into the second of the one before.
_second = (0, "1970-01-01T00:00:00.")


# One entry that differs: its name, its value before and after, the leaves of both; None stands for no entry.
# A plain tuple, as the edits in merkle are.
Change = tuple["Name", "Stored | None", "Stored | None", bytes | None, bytes | None]


class Mark(NamedTuple):
    """A point in a commit that can be gone back to."""

    lsn: int
    txn: int
    root: bytes
    entries: int
    records: Any


class Writer:
    """What the commits of one open store have in common.

    Args:
        engine: the store's connections.
        meta: the store's facts.
    """

    __slots__ = ("engine", "marking", "meta", "spine")

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self.engine = engine
        self.meta = meta
        self.marking = Marking(engine, meta)
        self.spine = tree.Spine()

    def commit(self, head: Head) -> None:
        """Commit the open transaction durably; it makes the commit *head*.

        Raises:
            Busy, StoreFull: nothing was committed.
            CommitOutcomeUnknown, StoreIOError: as Engine.commit() and Marking.committed().
        """
        self.engine.commit(head.seq, head.chain)
        self.marking.committed(head.seq, head.chain)

    def commit_other(self, what: str) -> None:
        """Commit the open transaction durably; it makes no numbered commit: *what* says what it makes instead.

        Raises:
            Busy, StoreFull: nothing was committed.
            StoreIOError: as Engine.commit_other() and Marking.committed().
        """
        self.engine.commit_other(what)
        self.marking.committed()

    def put(self, name: Name, after: Stored) -> Head | None:
        """Put one entry in a transaction and commit of its own; the caller holds the engine's writer lock.

        For the most frequent commits of all, a changed value and a new key that starts no run of the tree, it
        does in one pass what Commit does for any number of entries: 8 or 9 statements and, beside the
        entry's, one digest a level.
        """
        connection = self.engine.writer
        self.marking.begin()
        try:
            lsn, base = wal.last(connection, self.meta)
            before = state.get(connection, name[0], name[2])
            if not same(before, after):
                head = self._put(lsn, base, name, (before, after))
                if head is not None:
                    return head
            commit = Commit(self, begun=(lsn, base))
            commit.apply({name: after})
            return commit.finish()
        except BaseException:
            if self.engine.usable:
                connection.rollback()
            raise

    def _put(self, lsn: int, base: Head, name: Name, values: tuple[Stored | None, Stored]) -> Head | None:
        """Make the commit, or return None, with nothing written, if the shape of the tree changes."""
        connection, raw, (before, after) = self.engine.writer, name_bytes(name), values
        leaf_before, leaf_after = None if before is None else leaf(raw, before), leaf(raw, after)
        if leaf_before is not None:
            root: bytes | None = self.spine.replace(connection, name, (leaf_before, leaf_after), base)
        else:
            root = None if rank(raw) else self.spine.insert(connection, name, leaf_after, base)
        if root is None:
            return None
        state.put(connection, name, after)
        txn = lsn + 1
        facts = (base.seq + 1, root, base.count + (before is None), now())  # I4
        records = sha256(wal.short_bytes(txn, leaf_before, leaf_after)).digest()
        head = Head(*facts, wal.chain_next(base.chain, facts, records))
        wal.write_short(connection, txn, (Kind.PUT, name[0], name[2], after, before), head)
        self.commit(head)
        self.spine.chain = head.chain
        return head


class Commit:
    """One commit in the making, from BEGIN IMMEDIATE on.

    Args:
        writer: of the store; the caller holds the engine's writer lock.
        note: the caller's words for the BEGIN record.
        begun: the greatest LSN and the head, if BEGIN IMMEDIATE and wal.last() were run already.

    Raises:
        Busy: another process held the writer's lock for the whole timeout.
    """

    __slots__ = (
        "_connection", "_count", "_lsn", "_note", "_records", "_root", "_txn", "_unwritten", "_writer", "base",
    )  # fmt: skip

    def __init__(self, writer: Writer, note: str = "", *, begun: tuple[int, Head] | None = None) -> None:
        self._writer = writer
        self._connection = writer.engine.writer
        self._note = note
        if begun is None:
            writer.marking.begin()
            try:
                begun = wal.last(self._connection, writer.meta)
            except BaseException:
                self._connection.rollback()
                raise
        self._lsn, self.base = begun
        self._txn = 0  # LSN of the BEGIN record; 0 until there is a change to log
        self._root = self.base.root
        self._count = self.base.count
        self._records = sha256()
        self._unwritten: list[Change] = []  # the newest changes: their records are numbered, not yet in the table

    def apply(self, values: Mapping[Name, Stored | None]) -> None:
        """Put each of *values*, or delete the entry where it is None; what does not differ is left alone.

        Raises:
            Damaged: an entry or a node on its path contradicts the tree. The caller must roll back.
        """
        changes = self._change(values)
        if not changes:
            return
        if not self._txn:
            self._lsn += 1  # I5
            self._txn = self._lsn
            self._records.update(wal.begin_bytes(self._lsn, self._note, None))
        lsn, txn, change_bytes = self._lsn, self._txn, wal.change_bytes
        self._records.update(
            b"".join(
                [change_bytes(each, txn, before, after) for each, (*_, before, after) in enumerate(changes, lsn + 1)]
            )
        )
        self._lsn += len(changes)
        self._unwritten += changes
        if len(changes) > 1:
            self._write_log()

    def apply_staged(self, records: Sequence[Record], values: Mapping[Name, Stored | None]) -> None:
        """Apply the staged transaction with *records*, whose net effect is *values*."""
        if not self._change(values):
            return
        self._txn = records[0].txn
        for record in records:
            self._records.update(wal.record_bytes(record))

    def finish(self, session: bytes | None = None) -> Head | None:
        """Commit durably and return the new head, or None if nothing changed and nothing was written.

        Args:
            session: of the staged transaction that this commits, None if it is a direct one.

        Raises:
            Busy, StoreFull: nothing was changed.
            CommitOutcomeUnknown: the commit may or may not be there.
        """
        base = self.base
        if not self._txn or self._root == base.root:  # I10
            self.roll_back()
            return None
        lsn = self._lsn + 1
        self._records.update(wal.commit_bytes(lsn, self._txn))
        seq, at = base.seq + 1, now()  # I4
        facts = (seq, self._root, self._count, at)
        head = Head(*facts, wal.chain_next(base.chain, facts, self._records.digest()))
        try:
            self._write_log()
            wal.write_commit(self._connection, lsn, self._txn, session, head)
            if session is not None:
                wal.clear_staged(self._connection, self._txn)
            self._writer.commit(head)
        except BaseException:
            self.roll_back()
            raise
        return head

    def roll_back(self) -> None:
        """Undo everything since the beginning, unless the handle failed or is a parent's: then nothing is touched."""
        if self._writer.engine.usable:
            self._connection.rollback()

    def mark(self) -> Mark:
        """Set a savepoint and return what restore() needs to go back to it."""
        self._write_log()
        self._connection.run("SAVEPOINT nested")
        return Mark(self._lsn, self._txn, self._root, self._count, self._records.copy())

    def restore(self, mark: Mark) -> None:
        """Go back to the newest savepoint, which *mark* describes, and remove it."""
        if not self._writer.engine.usable:
            return
        self._unwritten.clear()
        if self._connection.in_transaction():
            self._connection.run("ROLLBACK TO nested; RELEASE nested")
        self._lsn, self._txn, self._root, self._count, self._records = mark

    def release(self) -> None:
        """Keep what was done since the newest savepoint, and remove it."""
        self._connection.run("RELEASE nested")

    def _change(self, values: Mapping[Name, Stored | None]) -> list[Change]:
        """Change state and tree; return what differs."""
        connection = self._connection
        names = sorted(values)
        changes: list[Change] = []
        edits = []
        for name, before in zip(names, state.get_many(connection, names), strict=True):
            after = values[name]
            if same(before, after):
                continue
            raw = name_bytes(name)
            leaf_before = None if before is None else leaf(raw, before)
            leaf_after = None if after is None else leaf(raw, after)
            changes.append((name, before, after, leaf_before, leaf_after))
            edits.append(leaf_edit(name, raw, leaf_before, leaf_after))
        if changes:
            plan = tree.plan(connection, edits, self._root)
            state.write(connection, [(name, after) for name, _, after, _, _ in changes])
            tree.write(connection, plan)
            self._root = plan.root
            self._count += sum((after is not None) - (before is not None) for _, before, after, _, _ in changes)
        return changes

    def _write_log(self) -> None:
        changes = self._unwritten
        if not changes:
            return
        lsn = self._lsn - len(changes) + 1
        if lsn == self._txn + 1:
            wal.write_begin(self._connection, self._txn, self._note)
        rows = [
            (Kind.DELETE if after is None else Kind.PUT, collection, key, after, before)
            for (collection, _, key), before, after, _, _ in changes
        ]
        wal.write_changes(self._connection, lsn, self._txn, rows)
        changes.clear()
