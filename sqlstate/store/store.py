"""The open store: its collections, transactions, batches and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from sqlstate.commit.committer import Committer
from sqlstate.commit.group import GroupCommit
from sqlstate.store.access import condition, refuse_inside
from sqlstate.store.batch import BatchBlock
from sqlstate.store.blocks import Attempts, TransactionBlock, check_retries, in_attempts, on_face
from sqlstate.store.collection import Collection, Collections
from sqlstate.store.commits import Commits
from sqlstate.store.entries import StoreEntries
from sqlstate.store.open_transaction import OpenTransaction
from sqlstate.store.past.changes import Past
from sqlstate.store.past.log import Log
from sqlstate.store.past.redaction import Redaction
from sqlstate.store.session import Session
from sqlstate.store.snapshot import Snapshot
from sqlstate.store.staged import StagedTransaction, WriteAheadLog
from sqlstate.store.transaction import Transaction, check_note
from sqlstate.store.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlstate.commit.future import Future
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.records import Head
    from sqlstate.recovery.report import RecoveryReport
    from sqlstate.store.batch import Batch
    from sqlstate.store.session import Uncommitted
    from sqlstate.store.transaction import Transaction


T = TypeVar("T")

COLLECTIONS_KEPT: Final = 256


class Store(Collections, Commits, Past, Log, Redaction, Upkeep):
    """One open store, made by `sqlstate.open()`. Close it, or use it in a `with` block.

    All threads of a process can share one Store. `store["settings"]` is a collection, a mutable mapping that exists
    while it has entries; collection() gives one with typed values. transaction() groups several writes, snapshot()
    reads one commit while others write.

    A store that is dropped, or whose process ends, without close() loses no commit.

    Examples:
        >>> store["settings"]["lang"] = "fr"
        >>> store["numbers"] = {1: "one", 2: "two"}
        >>> list(store), len(store), "settings" in store, store.head().seq
        (['numbers', 'settings'], 2, True, 2)
        >>> store
        <sqlstate.Store '...app.db': open>
    """

    _entries: StoreEntries

    def __init__(self, writer: WriteContext, recovery: RecoveryReport, limits: tuple[int, float]) -> None:
        self._engine = writer.engine
        self._engine.counters.begin()
        self._meta = writer.meta
        self._writer = writer
        self._group = GroupCommit(Committer(writer, OpenTransaction, *limits))
        self._entries = StoreEntries(self._group, writer)
        self._known: dict[str, Collection[Any]] = {}  # a get takes a tenth longer with a new one each time
        self._session = Session(self._group)
        self._wal = WriteAheadLog(self._session)
        self._recovery = recovery

    @property
    def path(self) -> Path:
        """The absolute path of the file."""
        from pathlib import Path  # noqa: PLC0415, an open store needs none

        return Path(self._engine.path)

    @property
    def store_id(self) -> bytes:
        """16 random bytes that identify this store."""
        return self._meta.store_id

    @property
    def wal(self) -> WriteAheadLog:
        """The write-ahead log of the store."""
        return self._wal

    @property
    def recovery(self) -> RecoveryReport:
        """What opening this handle found, and what it did about that."""
        return self._recovery

    def __getitem__(self, collection: str) -> Collection[Any]:
        """Return the collection of this name. It exists while it has entries.

        Cost: none.

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.
        """
        known = self._known.get(collection) if type(collection) is str else None
        if known is None:
            if len(self._known) >= COLLECTIONS_KEPT:
                self._known.clear()
            known = self._known[collection] = super().__getitem__(collection)
        return known

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, in order. `iter(store)` gives the same.

        Cost: 1 statement.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> store["users"][1] = "ada"
            >>> store["settings"]["lang"] = "fr"
            >>> store.collections()
            ['settings', 'users']
        """
        return self._entries.collections()

    @overload
    def transaction(self, note: str = "") -> AbstractContextManager[Transaction]: ...
    @overload
    def transaction(self, note: str = "", *, retries: int) -> Attempts: ...
    def transaction(
        self, note: str = "", *, retries: int | None = None
    ) -> AbstractContextManager[Transaction] | Attempts:
        """Begin a transaction, for a `with` block: its end commits durably, an exception undoes everything.

        A transaction holds the writer's lock from its beginning, so what it reads stays true until it ends. If nothing
        differs at its end, no commit is made. Inside a transaction of the same thread it is nested: an exception
        undoes its own writes alone, and the outermost decides about the rest.

        With *retries* it gives attempts, for a loop with the block inside: after Busy or Conflict the block runs again,
        after a pause of some milliseconds, with nothing left of what it did. Inside a transaction there is one attempt.

        Cost: 1 commit, or none if nothing changed.

        Args:
            note: text of at most 4,096 bytes for the log. Only the outermost transaction has one.
            retries: how many more attempts there are after the first.

        Raises:
            Busy: another writer held the lock for the whole timeout. Nothing was changed.
            Conflict: expect() found another value. Nothing was changed.
            StoreFull: the disk is full. Nothing was changed.
            StoreIOError: the system refused to read or write. Nothing was changed.
            Damaged: a row on the way of the write is not as it was written. Nothing was changed.
            CommitOutcomeUnknown: an error at COMMIT. Open the store again, and ask committed().
            ReadOnly: the store was opened with read_only=True.
            InvalidOption: the note is too long, or is given to a nested transaction; or *retries* is no number.

        Examples:
            >>> with store.transaction(note="first user") as txn:
            ...     txn.put("users", 1, "ada")
            ...     txn.put("counters", "users", 1)
            >>> for attempt in store.transaction(retries=3):
            ...     with attempt as txn:
            ...         txn.expect("counters", "users", 1)
            ...         txn.put("counters", "users", 2)
            >>> store.head().seq
            2
        """
        check_note(note)
        return TransactionBlock(self._group, note) if retries is None else Attempts(self._group, note, retries)

    def run(self, work: Callable[[Transaction], T], note: str = "", *, retries: int = 0) -> T:
        """Call *work* with a transaction of its own, and return its result once that is durable.

        With mode="group" the call may run in the store's own thread. Inside a transaction of this thread *work*
        becomes part of that one, inside a batch it is the next transaction of it.

        Cost: 1 commit, or a share of one.

        Args:
            work: a function of the transaction. An exception undoes what it did, and is raised here.
            note: text of at most 4,096 bytes for the log.
            retries: how many times it is called again after Busy or Conflict, each time in a new transaction and after
                a pause of some milliseconds. Inside a transaction or batch of this thread it is called once.

        Raises:
            InvalidOption: the note is too long, or *retries* is no number.
            StoreError: what transaction() raises.

        Examples:
            >>> def visit(txn):
            ...     txn.put("counters", "visits", txn.get("counters", "visits", 0) + 1)
            ...     return txn.get("counters", "visits")
            >>> store.run(visit), store.run(visit)
            (1, 2)
        """
        check_note(note)
        most = check_retries(retries)
        inside = self._writer.open_blocks.innermost() is not None
        return in_attempts(lambda: self._entries.run(on_face(work), note), 0 if inside else most)

    def submit(self, work: Callable[[Transaction], T], note: str = "") -> Future[T]:
        """Queue *work* for the store's own thread, and return at once.

        The end of the program, and close(), wait for all that was submitted. Nothing bounds the queue: wait for a
        future, or call barrier(), now and then.

        Cost: 1 commit, or a share of one.

        Args:
            work: a function of a transaction of its own, called once. An exception undoes what it did.
            note: text of at most 4,096 bytes for the log.

        Returns:
            A future with the result of *work* once it is durable.

        Raises:
            StoreUnusable: this thread has a transaction or batch open, the store was closed, or the interpreter is
                ending.
            ReadOnly: the store was opened with read_only=True.
            InvalidOption: the note is too long.

        Examples:
            >>> future = store.submit(lambda txn: txn.put("users", 1, "ada"))
            >>> future.result()
            >>> store["users"][1]
            'ada'
        """
        refuse_inside(self._writer, "submit")
        return self._group.submit(on_face(work), check_note(note))

    def barrier(self) -> Head:
        """Wait until everything that was submitted before is done, and return the newest commit.

        Cost: 1 statement.

        Raises:
            StoreUnusable: this thread has a transaction or batch open, or the store was closed.
            Busy, CommitOutcomeUnknown: what it waited for failed like this.

        Examples:
            >>> for number in range(100):
            ...     _ = store.submit(lambda txn, number=number: txn.put("numbers", number, number))
            >>> store.barrier().count
            100
        """
        refuse_inside(self._writer, "barrier")
        self._group.barrier()
        return self.head()

    def batch(self) -> AbstractContextManager[Batch]:
        """Begin a batch, for a `with` block: many transactions that one sync makes durable.

        The end of the block makes them durable, and an exception undoes what was not flushed. A crash loses that as a
        whole, and nobody else sees it before. Everything that this thread does with the store inside the block is part
        of the batch. Writers of other threads wait for its end, those of other processes from its first write to its
        end or flush().

        Cost: 1 commit for each flush.

        Raises:
            StoreUnusable: this thread has a transaction or batch open.
            StoreError: what transaction() raises.

        Examples:
            >>> with store.batch() as batch:
            ...     for number in range(1000):
            ...         batch["numbers"][number] = number
            >>> store.head().seq, store.head().count
            (1, 1000)
        """
        return BatchBlock(self._group)

    def snapshot(self) -> Snapshot:
        """Return the store as the newest commit left it, for reading while others write. Use it in a `with` block.

        Cost: 1 statement.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> store["settings"]["lang"] = "fr"
            >>> with store.snapshot() as view:
            ...     store["settings"]["lang"] = "de"
            ...     print(view["settings"]["lang"], view.head.seq)
            fr 1
        """
        return Snapshot(self._entries.snapshot())

    def stage(self, note: str = "") -> StagedTransaction:
        """Begin a staged transaction: each put and delete is durable before it returns, and invisible before commit().

        Cost: 1 sync, and one more for the first of this handle.

        Args:
            note: text of at most 4,096 bytes for the log.

        Raises:
            StoreUnusable: this thread has a transaction or batch open.
            InvalidOption: the note is too long.
            Busy, StoreFull, ReadOnly: as for transaction().

        Examples:
            >>> draft = store.stage(note="a letter")
            >>> draft.put("letters", 1, "Dear")
            >>> 1 in store["letters"]
            False
            >>> draft.commit().seq
            1
        """
        return StagedTransaction(self._session, self._wal.append("BEGIN", note=note).txn)

    def pending(self) -> list[Uncommitted]:
        """Return the staged transactions that dead processes left, oldest first, for resume().

        There are some only if the store was opened with recover="resume", or their process died since.

        Cost: 1 statement, and 1 for each of them.

        Raises:
            StoreClosed: the store was closed.
            Damaged: a record of one of them is not as it was written.

        Examples:
            >>> store.pending()
            []
        """
        return self._session.pending()

    def resume(self, txn: int) -> StagedTransaction:
        """Take over a staged transaction of a dead process, durably. From now on it is this handle's.

        Cost: 1 sync.

        Args:
            txn: its number, as pending() gives it.

        Raises:
            InvalidRecord: there is no such transaction, it has ended, or its process lives.
            Damaged: a record of it is not as it was written; nothing was changed.
            Busy, StoreFull, ReadOnly: as for transaction().

        Examples:
            >>> draft = store.stage(note="a letter")
            >>> draft.put("letters", 1, "Dear")
            >>> store.close()  # or a crash
            >>> with sqlstate.open("app.db", recover="resume") as store:
            ...     [left] = store.pending()
            ...     head = store.resume(left.txn).commit()
            ...     print(left.note, store["letters"][1])
            a letter Dear
        """
        self._session.adopt(txn)
        return StagedTransaction(self._session, txn)

    def close(self) -> None:
        """Wait for what was submitted, and close the store. Closing twice does nothing.

        Snapshots and iterators of all threads end. Staged transactions stay, for the next open to roll back or resume.
        The last handle to close leaves a single file.

        Cost: SQLite's checkpoint, and 1 commit if there were others.

        Raises:
            StoreUnusable: this thread has a transaction or batch open.
            Busy: another thread's transaction, or what was submitted, did not end within the timeout. The store stays
                open.
            StoreFull: the file has no room for what is in SQLite's WAL. The store is closed, and nothing is lost.
            StoreIOError: SQLite's WAL could not be moved into the file, or the file was moved or replaced. The store
                is closed.

        Examples:
            >>> store.close()
            >>> store
            <sqlstate.Store '...app.db': closed>
            >>> store["settings"]["lang"]
            Traceback (most recent call last):
            StoreClosed: ...
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
