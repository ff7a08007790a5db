"""Batches: many transactions with one durability point."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlstate.commit.commit import BUFFER_BYTES, Commit
from sqlstate.errors import StoreUnusable, TransactionEnded
from sqlstate.format.names import stored_name
from sqlstate.sqlite.blocks import Block
from sqlstate.store.access import condition, find_by_name
from sqlstate.store.blocks import PartBlock, unbegun
from sqlstate.store.collection import Collections
from sqlstate.store.open_transaction import OpenTransaction, Part
from sqlstate.store.transaction import check_note
from sqlstate.tables import merkle, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.connection import Connection
    from sqlstate.store.access import Made
    from sqlstate.store.transaction import Transaction
    from sqlstate.tables.state import Span

R = TypeVar("R")

_USE: Final = "with store.batch() as batch:"

# Puts are kept in memory up to this and made transactions together.
PUTS_AT_ONCE: Final = 4096


class Batch(Collections):
    """Many transactions that become durable together, at the end of the block or at flush(). Made by `store.batch()`.

    Each writing call is a transaction of its own, and transaction() begins one of several calls. They see what came
    before them. Nobody else sees any of it before it is durable, and a crash loses what was not, as a whole. A batch
    belongs to the thread that began it.

    Examples:
        >>> with store.batch() as batch:
        ...     for number in range(1000):
        ...         batch["squares"][number] = number * number
        >>> store.head().seq, store["squares"][999]
        (1, 998001)
    """

    __slots__ = ("_entries",)

    _entries: OpenBatch

    def __init__(self, entries: OpenBatch) -> None:
        self._entries = entries

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, as the batch left them.

        Cost: 1 statement.

        Raises:
            TransactionEnded: the batch has ended, or belongs to another thread.

        Examples:
            >>> with store.batch() as batch:
            ...     batch.put("users", 1, "ada")
            ...     print(batch.collections())
            ['users']
        """
        return self._entries.collections()

    def transaction(self, note: str = "") -> AbstractContextManager[Transaction]:
        """Begin a transaction of the batch, for a `with` block: an exception undoes it alone.

        It is durable when the batch is.

        Inside its block the batch itself cannot be used; `store.transaction()` gives a nested transaction.

        Cost: none before the flush.

        Args:
            note: text of at most 4,096 bytes for the log.

        Raises:
            StoreUnusable: another transaction of the batch is open.
            Busy: another process held the writer's lock for the whole timeout.
            Conflict: expect() found another value.
            StoreFull: the disk is full.
            InvalidOption: the note is too long.

        Examples:
            >>> with store.batch() as batch:
            ...     with batch.transaction(note="first") as txn:
            ...         txn.put("users", 1, "ada")
            ...     try:
            ...         with batch.transaction() as txn:
            ...             txn.put("users", 2, "bob")
            ...             raise LookupError
            ...     except LookupError:
            ...         pass
            >>> list(store["users"])
            [1]
        """
        return PartBlock(self._entries, check_note(note))

    def flush(self) -> Head | None:
        """Make what was done so far durable, in one commit, and return that; None if nothing was changed.

        Cost: 1 commit.

        Raises:
            Damaged, StoreFull, Busy: nothing of it was changed, and the batch has forgotten it.
            CommitOutcomeUnknown: it is there as a whole or not at all; the handle refuses further work.
            TransactionEnded: the batch has ended, or belongs to another thread.

        Examples:
            >>> with store.batch() as batch:
            ...     batch.put("users", 1, "ada")
            ...     print(batch.flush().seq, batch.flush())
            1 None
        """
        return self._entries.flush()

    def __repr__(self) -> str:
        return repr(self._entries)


class OpenBatch:
    """The private side of a Batch: its puts in memory, and the commit in the making."""

    __slots__ = (
        "_bytes",
        "_commit",
        "_ended",
        "_engine",
        "_inner",
        "_open_blocks",
        "_over",
        "_puts",
        "_thread",
        "_writer",
    )

    def __init__(self, writer: WriteContext, over: Over) -> None:
        self._writer = writer
        self._engine = writer.engine
        self._open_blocks = writer.open_blocks
        self._over = over  # dead once the block is over, which then need not have ended it
        self._commit: Commit | None = None
        self._puts: dict[Name, Stored] = {}  # transactions of one put each, in order
        self._bytes = 0
        self._thread = threading.get_ident()
        self._inner: tuple[OpenTransaction, Over] | None = None  # a transaction whose block is open
        self._ended = False

    def flush(self) -> Head | None:
        """Make what was done so far durable, in one commit; return it, or None if nothing was changed."""
        self._check()
        self._writer.nothing_made()
        try:
            try:
                self._drain()
                commit = self._current()
                return None if commit is None else commit.finish()
            finally:
                self._forget()
        except BaseException as e:
            self._writer.note_outcome(e)
            raise

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, as the batch left them."""
        self._carry()
        return state.collections(self._engine.write_connection)

    upto = None
    find = find_by_name

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a block with the connection that the batch writes with."""
        self._check()
        connection = self._engine.write_connection
        return nullcontext(connection) if connection.in_transaction() else self._engine.reading()

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        self._check()
        if name in self._puts:
            return self._puts[name]
        commit = self._current()
        if commit is None:
            return state.get(self._engine.write_connection, name[0], name[2])
        return commit.get(name)

    def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None, all of one moment."""
        self._check()
        if self._current() is not None:
            return [self.get_stored(name) for name in names]
        with self._engine.reading() as connection:
            stored = state.get_each(connection, names)
        return [self._puts.get(name, each) for name, each in zip(names, stored, strict=True)]

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry, in a transaction of its own."""
        self._check()
        if name in self._puts or len(self._puts) >= PUTS_AT_ONCE or self._bytes > BUFFER_BYTES:
            self._drain()
        self._puts[name] = stored
        self._bytes += len(stored)

    def remove(self, name: Name) -> bool:
        """Delete an entry, in a transaction of its own; return whether there was one."""
        return self.run(lambda txn: txn.remove(name))

    def scan(self, span: Span, make: Made[R], *, values: bool) -> Iterator[R]:
        """Yield what *make* makes of (key, stored value), in order, each as it is when its turn comes."""
        rest: Span | None = span
        while rest is not None:
            self._carry()
            rows, _, rest = state.chunk(self._engine.write_connection, rest, values=False)
            for key, _ in rows:
                stored = self.get_stored(stored_name(span.collection, key))
                if stored is not None:
                    yield from make([(key, stored if values else "")], {type(stored)})
        self._check()

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        self._carry()
        connection = self._engine.write_connection
        return merkle.count(connection, start, stop)

    def run(self, work: Callable[[OpenTransaction], R]) -> R:
        """Return what *work* returns of a transaction of its own."""
        with Part(self) as txn:
            return work(txn)

    def writing(self) -> Part:
        """Return a block that is a transaction."""
        return Part(self)

    @property
    def condition(self) -> str:
        """Whether it can be used, in a word, for a repr."""
        return condition(self._engine.life, ended=self._ended or self._over() is None)

    def __repr__(self) -> str:
        return f"<sqlstate.Batch of {self._engine.path!r}: {self.condition}>"

    def begin_inside(self, note: str, over: Over) -> OpenTransaction:
        """Begin a transaction, for a block."""
        self._drain()
        txn = OpenTransaction(self._writer, note, self._begun(), over)
        self._inner = txn, over
        self._open_blocks.push(txn, over)
        return txn

    def end_inside(self, over: Over, txn: OpenTransaction, *, keep: bool) -> None:
        """End a transaction: keep what it wrote for the batch, or undo it."""
        self._open_blocks.remove(over)
        if keep:
            txn.end()
        else:
            txn.abandon()
        self._inner = None

    def end(self, *, keep: bool) -> None:
        """End it: make durable what is not yet, or undo that."""
        try:
            if keep:
                self.flush()
        finally:
            self._ended = True
            self._forget()

    def _drain(self) -> None:
        """Make transactions of the puts that were kept."""
        self._check()
        if self._puts:
            # If it fails they stay: what is durable in the end must not lack them.
            self._begun().add_singles(self._puts)
            self._puts, self._bytes = {}, 0

    def _carry(self) -> None:
        """Write all to the tables, inside the open SQLite transaction."""
        self._drain()
        commit = self._current()
        if commit is not None:
            commit.write_pending()

    def _begun(self) -> Commit:
        """Return the commit in the making; it is begun with the first write, and again if that failed."""
        commit = self._current()
        if commit is None:
            commit = self._commit = Commit(self._writer)
        return commit

    def _current(self) -> Commit | None:
        """Return the commit in the making, if something was begun, and did not fail as a whole."""
        commit = self._commit
        return commit if commit is not None and commit.is_open else None

    def _forget(self) -> None:
        """Undo what is not durable."""
        commit, self._commit = self._commit, None
        self._puts.clear()
        self._bytes = 0
        if commit is not None:
            commit.roll_back()

    def _check(self) -> None:
        if self._ended or self._over() is None or self._thread != threading.get_ident():
            self._engine.life.check_forked()
            raise TransactionEnded("the batch has ended, or belongs to another thread; begin one with store.batch()")
        self._engine.life.check()
        if self._inner is not None:
            txn, over = self._inner
            if over() is not None and not txn.ended:
                raise StoreUnusable(
                    f"{self._engine.path}: a transaction of the batch is open; use that, or leave its block first"
                )
            txn.abandon()  # unless it has ended: an exception kept its block from doing so
            self._inner = None


class BatchBlock(Block):
    """A block that is a batch."""

    __slots__ = ("_batch", "_group", "_writer")

    def __init__(self, group: GroupCommit[Any]) -> None:
        super().__init__()
        self._group = group
        self._writer = group.context

    def enter(self) -> Batch:
        """Wait for the writing connection."""
        writer = self._writer
        writer.nothing_made()
        self._group.lock_writer(self.over)
        try:
            self._batch = OpenBatch(writer, self.over)
            writer.open_blocks.push(self._batch, self.over)
        except BaseException:
            writer.engine.writer_lock.release(self.over)
            raise
        return Batch(self._batch)

    def __getattr__(self, name: str) -> Any:
        raise unbegun(name, Batch, "batch", _USE)

    def __getitem__(self, collection: str) -> Any:
        raise unbegun("__getitem__", Batch, "batch", _USE)

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """Make durable what is not yet, or undo that."""
        writer = self._writer
        try:
            try:
                writer.nothing_made()  # what flush() made, its caller knows
                writer.open_blocks.remove(self.over)
                self._batch.end(keep=kind is None)
            finally:
                self._group.unlock_writer(self.over)
        except BaseException as e:
            writer.note_outcome(e)
            raise
