"""The face of an open store: its collections, transactions, batches and snapshots."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar, cast

from sqlstate.commit.committer import Committer
from sqlstate.commit.group import GroupCommit
from sqlstate.store.access import condition, refuse_inside
from sqlstate.store.batch import BatchBlock
from sqlstate.store.blocks import TransactionBlock, WriteBlock, on_face
from sqlstate.store.collection import Collections
from sqlstate.store.commits import Commits
from sqlstate.store.snapshot import OpenSnapshot, Snapshot
from sqlstate.store.staged import Session, StagedTransaction, WriteAheadLog
from sqlstate.store.transaction import OpenTransaction, Transaction, check_note
from sqlstate.store.upkeep import Upkeep
from sqlstate.tables import merkle, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlstate.commit.future import Future
    from sqlstate.commit.requests import Request
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.recovery.report import RecoveryReport
    from sqlstate.store.batch import Batch, OpenBatch
    from sqlstate.store.staged import Uncommitted
    from sqlstate.store.transaction import Transaction
    from sqlstate.tables.state import Span

T = TypeVar("T")


class Store(Collections, Commits, Upkeep):
    """One open store. Made by `sqlstate.open()`; close it, or use it in a `with` block.

    Collections: `store["settings"]`, collection() for typed values, collections(). Several writes at once:
    transaction(). Reading one commit: snapshot(). What it holds: head(), stats(), `wal`.
    All threads of a process can share one Store.
    """

    _entries: StoreEntries

    def __init__(self, writer: WriteContext, recovery: RecoveryReport, limits: tuple[int, float]) -> None:
        self._engine = writer.engine
        self._engine.counters.begin()
        self._meta = writer.meta
        self._writer = writer
        self._group = GroupCommit(Committer(writer, OpenTransaction, *limits))
        self._entries = StoreEntries(self._group, writer)
        self._session = Session(self._group)
        self._wal = WriteAheadLog(self._session)
        self._recovery = recovery

    @property
    def path(self) -> Path:
        """The file's absolute path."""
        from pathlib import Path  # noqa: PLC0415, an open store needs none

        return Path(self._engine.path)

    @property
    def store_id(self) -> bytes:
        """The 16 random bytes that tell this store from every other."""
        return self._meta.store_id

    @property
    def wal(self) -> WriteAheadLog:
        """The write-ahead log."""
        return self._wal

    @property
    def recovery(self) -> RecoveryReport:
        """What was found when this handle was opened, and what was done about it."""
        return self._recovery

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, in order."""
        return self._entries.collections()

    def __iter__(self) -> Iterator[str]:
        return iter(self.collections())

    def __contains__(self, collection: object) -> bool:
        return bool(len(self[cast("str", collection)]))

    def transaction(self, note: str = "") -> AbstractContextManager[Transaction]:
        """Begin a transaction; the end of its block commits it durably, an exception undoes it all.

        A transaction that changed nothing writes nothing and makes no commit. Inside another transaction of the
        same thread it is nested: an exception undoes its own writes, and the outer one decides about the rest.

        Args:
            note: text of at most 4,096 bytes for the log; only the outermost transaction has one.

        Raises:
            Busy: another writer held the lock for the whole timeout.
            Conflict: expect() found something else.
            StoreFull: the disk is full; nothing was changed.
            CommitOutcomeUnknown: an error at COMMIT; open the store again to see.
            ReadOnly: the store was opened with read_only=True.
        """
        return TransactionBlock(self._group, check_note(note))

    def run(self, work: Callable[[Transaction], T], note: str = "") -> T:
        """Call *work* with a transaction of its own, and return its result once that is durable.

        With `mode="group"` it may be called in the store's own thread, as submit() does. Inside a transaction of
        this thread, it is called with that one; inside a batch, with the next of that.

        Args:
            work: a function of the transaction; an exception undoes what it did, and is raised here.
            note: text of at most 4,096 bytes for the log.

        Raises:
            Busy, Conflict, StoreFull, CommitOutcomeUnknown, ReadOnly: as transaction().
        """
        return self._entries.run(on_face(work), check_note(note))

    def submit(self, work: Callable[[Transaction], T], note: str = "") -> Future[T]:
        """Have *work* called in its turn with a transaction of its own, and return at once.

        Args:
            work: a function of the transaction, called once, in a thread of the store's own. An exception undoes what
                it did.
            note: text of at most 4,096 bytes for the log.

        Returns a future with the function's result, once it is durable. Nothing bounds how many wait: call barrier(),
        or wait for a future, now and then. close() waits for all.

        Raises:
            StoreUnusable: a transaction or batch of this thread is open, or the store was closed.
            ReadOnly: the store was opened with read_only=True.
        """
        refuse_inside(self._writer, "submit")
        return self._group.submit(on_face(work), check_note(note))

    def barrier(self) -> Head:
        """Wait until everything that was submitted before is done, and return the newest commit.

        Raises:
            StoreUnusable: a transaction or batch of this thread is open, or the store was closed.
            Busy, CommitOutcomeUnknown: what it waited for met that.
        """
        refuse_inside(self._writer, "barrier")
        self._group.barrier()
        return self.head()

    def batch(self) -> AbstractContextManager[Batch]:
        """Begin a batch: many transactions that become durable together, with one sync.

        The end of the block makes them durable; an exception undoes what was not flushed. A crash loses that, as a
        whole. Nobody else sees it before. Everything that this thread does with the store inside the block is part
        of the batch. From its first write to its end or flush(), writers of other processes wait; those of other
        threads wait for the end.

        Raises:
            StoreUnusable: a transaction or batch of this thread is open.
            Busy, StoreFull, CommitOutcomeUnknown, ReadOnly: as transaction().
        """
        return BatchBlock(self._group)

    def snapshot(self) -> Snapshot:
        """Return the store as the newest commit left it, for reading while others write. Use it in a `with` block."""
        return Snapshot(self._entries.snapshot())

    def stage(self, note: str = "") -> StagedTransaction:
        """Begin a staged transaction: each put and delete is durable before it returns, and none is seen before commit.

        Args:
            note: text of at most 4,096 bytes for the log.

        Raises:
            StoreUnusable: this thread has a transaction open.
            Busy, StoreFull, ReadOnly: as for a transaction.
        """
        return StagedTransaction(self._session, self._wal.append("BEGIN", note=note).txn)

    def pending(self) -> list[Uncommitted]:
        """Return the staged transactions that dead processes left, for resume(), in the order of their beginning.

        There are some only if the store was opened with `recover="resume"`, or the other process died since.
        """
        return self._session.pending()

    def resume(self, txn: int) -> StagedTransaction:
        """Go on with a staged transaction that a dead process left; from now on it is this handle's.

        Args:
            txn: its number, as pending() gives it.

        Raises:
            InvalidRecord: there is no such transaction, it has ended, or its process lives.
            Busy, StoreFull, ReadOnly: as for a transaction.
        """
        self._session.adopt(txn)
        return StagedTransaction(self._session, txn)

    def close(self) -> None:
        """Close the store. The last process to do so leaves a single file. Closing twice does nothing.

        Staged transactions that have not ended stay, for the next open to roll back or resume.

        Raises:
            StoreUnusable: a transaction of this thread is still open.
            Busy: a transaction of another thread was open for the whole timeout.
            StoreFull: there is no room in the file for what is in SQLite's WAL. It is closed, and nothing is lost.
            StoreIOError: SQLite's WAL could not be moved into the file. Nothing is lost: the next open recovers.
        """
        refuse_inside(self._writer, "close")
        try:
            self._group.close(self._engine.timeout)
            if not self._engine.life.forked:
                with self._group.closing():
                    self._close()
        finally:
            if self._engine.life.closed:
                self._session.release()
            else:
                self._group.reopen()  # it was Busy: the store stays open

    def _close(self) -> None:
        """End the readers, clear the dirty flag, close the connections. The caller holds the writer lock."""
        fold, lost = False, None
        self._engine.stop()
        try:
            fold = self._writer.dirty_flag.clear()
        finally:
            lost = self._engine.close(fold=fold)
        if lost is not None:
            raise lost

    def __enter__(self) -> Self:
        self._engine.life.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<sqlstate.Store {self._engine.path!r}: {condition(self._engine.life)}>"


class StoreEntries:
    """What a Store is the face of where it comes to entries: what this thread has open, or else the newest commit."""

    def __init__(self, group: GroupCommit[OpenTransaction], writer: WriteContext) -> None:
        self._group = group
        self._writer = writer
        self._engine = writer.engine
        self._own: Callable[[], OpenTransaction | OpenBatch | None] = writer.open_blocks.innermost

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        txn = self._own()
        if txn is not None:
            return txn.get_stored(name)
        readers = self._engine.readers
        connection = readers.acquire()
        stored = state.get(connection, name[0], name[2])
        readers.release(connection)
        return stored

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry: a transaction of its own, or part of the one that this thread has open."""
        txn = self._own()
        if txn is not None:
            txn.put_stored(name, stored)
        else:
            self._group.put(name, stored)

    def scan(self, span: Span, *, values: bool) -> Iterator[tuple[Key, Stored]]:
        """Yield (key, stored value) in order."""
        txn = self._own()
        if txn is not None:
            yield from txn.scan(span, values=values)
        else:
            yield from self._engine.readers.scan(partial(state.chunk, values=values), span)

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        txn = self._own()
        if txn is not None:
            return txn.count(start, stop)
        with self._engine.reading() as connection:
            return merkle.count(connection, start, stop)

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, in order."""
        txn = self._own()
        if txn is not None:
            return txn.collections()
        with self._engine.reading() as connection:
            return state.collections(connection)

    def snapshot(self) -> OpenSnapshot:
        """Return the newest commit, for reading."""
        return OpenSnapshot(self._engine, self._writer.meta)

    def run(self, work: Callable[[OpenTransaction], T], note: str = "") -> T:
        """Return what *work* returns of a transaction of its own, once that is durable, or of the one that is open."""
        if self._own() is not None or self._group.is_free():
            with WriteBlock(self._group, note) as txn:
                return work(txn)
        self._writer.nothing_made()
        try:
            return self._group.run(work, note)
        except BaseException as e:
            self._writer.note_outcome(e)
            raise

    def writing(self) -> WriteBlock:
        """Return a block whose writes are one transaction, or part of the one that this thread has open."""
        return WriteBlock(self._group)

    def enqueue(self, request: Request) -> None:
        """Have the store's own thread see to *request*.

        Raises:
            StoreUnusable: a transaction or batch of this thread is open, or the store was closed.
            ReadOnly: the store was opened with read_only=True.
        """
        refuse_inside(self._writer, "enqueue")
        self._group.enqueue(request)

    def look_after(self) -> None:
        """See that somebody is at work if there is work."""
        self._group.look_after()

    def reclaim(self) -> None:
        """Take back the connections of scans and snapshots that were dropped."""
        self._engine.readers.reclaim()
