"""The face of an open store: its collections, transactions, batches and snapshots."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

from sqlstate import headlog
from sqlstate.commit.clock import now
from sqlstate.commit.group import GroupCommit
from sqlstate.errors import Busy, InvalidOption, StoreError, StoreFull, StoreUnusable
from sqlstate.files import replace as files
from sqlstate.format import constants as fmt
from sqlstate.format.names import Key, Name, Stored, check_collection, check_number
from sqlstate.maintenance.backup import backup
from sqlstate.maintenance.check import audit as trail
from sqlstate.maintenance.check import check
from sqlstate.proving import commits as history
from sqlstate.proving.entries import Provable
from sqlstate.sqlite.blocks import Block
from sqlstate.store import watch as watching
from sqlstate.store.batch import BatchBlock
from sqlstate.store.collection import Collection
from sqlstate.store.staged import StagedTransaction, WriteAheadLog
from sqlstate.store.transaction import JSON, Snapshot, Transaction, check_note, codec_for
from sqlstate.tables import audit, staged, state, wal
from sqlstate.tables import merkle as tree

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from sqlstate.commit.requests import Future, Request
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.errors import CommitOutcomeUnknown
    from sqlstate.format.records import Head
    from sqlstate.headlog import SignedHead, Signer
    from sqlstate.maintenance.backup.backup import BackupReport, Progress
    from sqlstate.maintenance.check.check import CheckReport, Level
    from sqlstate.proof import Proof
    from sqlstate.recovery.recover import RecoveryReport
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.counters import Counters
    from sqlstate.store.batch import Batch
    from sqlstate.store.staged import Uncommitted
    from sqlstate.tables.audit import AuditEntry
    from sqlstate.tables.state import Span

T = TypeVar("T")
Mode = Literal["full", "group"]


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes and settings of an open store."""

    path: str
    store_id: str
    """Hexadecimal."""
    format: int
    seq: int
    entries: int
    collections: int
    levels: int
    """Height of the Merkle tree."""
    nodes: int
    """Inner nodes of the Merkle tree."""
    records: int
    """Records in the write-ahead log."""
    staged: int
    """Staged transactions that have not ended."""
    file_bytes: int
    sqlite_wal_bytes: int
    """Size of the -wal file beside it."""
    journal: str
    synchronous: str
    sqlite: str
    """Version of the SQLite library."""
    counters: Counters
    """What this handle did since it was opened."""


def check_timeout(timeout: float) -> None:
    """Raise InvalidOption if *timeout* is not a number of seconds to wait."""
    if not isinstance(timeout, int | float) or not 0 <= timeout < threading.TIMEOUT_MAX:
        raise InvalidOption(f"timeout={timeout!r} is not a number of seconds, 0 or more")


class Store(Provable):
    """One open store. Made by `sqlstate.open()`; close it, or use it in a `with` block.

    Collections: `store["settings"]`, collection() for typed values, collections(). Several writes at once:
    transaction(). Reading one commit: snapshot(). What it holds: head(), stats(), `wal`.
    All threads of a process can share one Store.
    """

    def __init__(self, writer: WriteContext, recovery: RecoveryReport, limits: tuple[int, float]) -> None:
        self._engine = writer.engine
        self._engine.count_anew()
        self._meta = writer.meta
        self._writer = writer
        self._own: Callable[[], Transaction | Batch | None] = writer.own.get
        """Returns what this thread has open, if anything."""
        self._group = GroupCommit(writer, Transaction, *limits)
        self._wal = WriteAheadLog(writer)
        self._recovery = recovery

    @property
    def path(self) -> Path:
        """The file's absolute path."""
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

    def __getitem__(self, collection: str) -> Collection[Any]:
        """Return a collection; it exists while it has entries.

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.
        """
        return Collection(self, check_collection(collection), JSON)

    @overload
    def collection(self, name: str) -> Collection[Any]: ...
    @overload
    def collection(self, name: str, *, type: type[T], forbid_unknown: bool = False) -> Collection[T]: ...
    def collection(self, name: str, *, type: Any = None, forbid_unknown: bool = False) -> Collection[Any]:  # noqa: A002, the word users know
        """Return a collection whose values are of *type*.

        Args:
            name: text of 1 to 255 bytes.
            type: a dataclass, attrs class, msgspec.Struct, TypedDict, or any type that msgspec can encode;
                None for values without a type. It is not recorded in the file.
            forbid_unknown: reading a document raises InvalidValue if it has members which the type has no field
                for, at any depth. Otherwise they are left out of what is read, and lost when that is written back.

        Raises:
            InvalidName: the name cannot be one.
            InvalidOption: the type cannot be stored as JSON; or *forbid_unknown* without a type.
        """
        return Collection(self, check_collection(name), codec_for(type, forbid_unknown=forbid_unknown))

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, in order."""
        txn = self._own()
        if txn is not None:
            return txn.collections()
        with self._engine.reading() as connection:
            return state.collections(connection)

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
        if self._own() is not None or self._group.is_free():
            with self.transaction(note) as txn:
                return work(txn)
        self._writer.nothing_made()
        try:
            return self._group.run(work, check_note(note))
        except BaseException as e:
            self._writer.tell(e)
            raise

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
        self._refuse_inside("submit")
        return self._group.submit(work, check_note(note))

    def barrier(self) -> Head:
        """Wait until everything that was submitted before is done, and return the newest commit.

        Raises:
            StoreUnusable: a transaction or batch of this thread is open, or the store was closed.
            Busy, CommitOutcomeUnknown: what it waited for met that.
        """
        self._refuse_inside("barrier")
        self._group.barrier()
        return self.head()

    def enqueue(self, request: Request) -> None:
        """Have the store's own thread see to *request*. For this package's own modules.

        Raises:
            StoreUnusable: a transaction or batch of this thread is open, or the store was closed.
            ReadOnly: the store was opened with read_only=True.
        """
        self._refuse_inside("enqueue")
        self._group.enqueue(request)

    @property
    def durable(self) -> int:
        """Number of the newest durable commit. Nobody ever sees a commit before it is durable."""
        return self.head().seq

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
        return BatchBlock(self._writer)

    def snapshot(self) -> Snapshot:
        """Return the store as the newest commit left it, for reading while others write. Use it in a `with` block."""
        return Snapshot(self._engine, self._meta)

    def head(self) -> Head:
        """Return the newest commit: its number, root, count of entries, time, and the chain's digest."""
        with self._engine.reading() as connection:
            return wal.last(connection, self._meta)[1]

    def commits(self, first: int = 1) -> Iterator[Head]:
        """Yield the commits from number *first* on, in order, as they are now.

        Raises:
            InvalidOption: *first* is not a number from 0 to 2^63-1.
        """
        check_number("first", first)
        return self._engine.readers.scan(wal.commits, first)

    def watch(self, after: int | None = None, timeout: float | None = None) -> Iterator[Head]:
        """Yield the commits after number *after*, in order, each once, as they come: of this and other processes.

        It ends when the store is closed. Those of this handle are seen at once, others' within 20 ms. It keeps no
        writer waiting, and nothing from being moved out of SQLite's WAL, however long the caller takes for each.

        Args:
            after: a commit's number; None for the newest there is at the call.
            timeout: seconds after the newest commit that it has seen when it ends; 0 ends it once it has caught up.

        Raises:
            InvalidOption: *after* is not a number from 0 to 2^63-1, or *timeout* not a number of seconds.
        """
        if after is not None:
            check_number("after", after)
        if timeout is not None:
            check_timeout(timeout)
        newest = self.head().seq
        return watching.follow(self._engine, self._meta, newest if after is None else after, timeout)

    def committed(self, error: CommitOutcomeUnknown) -> bool:
        """Tell whether the very commit that *error* could not tell about is there. Ask a handle opened since.

        Args:
            error: as it was raised. Another commit that took its number is not taken for it.
        """
        with self._engine.reading() as connection:
            there = wal.commit(connection, error.seq)
        return there is not None and there.chain == error.chain

    def audit(self, after: int = 0) -> Iterator[AuditEntry]:
        """Yield the entries of the audit trail with a greater number than *after*, in order.

        Raises:
            InvalidOption: *after* is not a number from 0 to 2^63-1.
            Damaged: an entry is not what it can be.
        """
        check_number("after", after)
        return self._engine.readers.scan(audit.read, after)

    def check_audit(self) -> list[str]:
        """Read the audit trail again: its chain, and each entry's figures against the log and each other.

        Returns what is wrong, a sentence each; an empty list if nothing is.
        """
        with self._engine.reading() as connection:
            return trail.check(connection, self._meta)

    def check(
        self, level: Level = "full", *, against: SignedHead | bytes | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """Read the newest commit's state again and compare all of it: nothing is changed, and writers go on.

        A large store is checked by two processes at once.

        Args:
            level: `"quick"` looks at SQLite's own check, the schema, the newest commit and audit entry, and the top of
                the tree; `"full"` reads and hashes every row, follows both chains, and replays the log in memory.
            against: what the history must agree with: a signed head that `sqlstate.headlog.verify_head()` returned,
                or the root of a commit, 32 bytes.
            progress: called with rows read, and how many there are.

        Returns a report; damage is told in it and not raised.

        Raises:
            InvalidOption: the level is none, or *against* is neither of both.
            StoreUnusable: the store was closed.
        """
        return check.check(self._engine, self._meta, level, against=against, progress=progress)

    def signed_head(self, signer: Signer) -> SignedHead:
        """Sign the newest commit, and with it all before: keep the text elsewhere, and check against it later.

        Args:
            signer: a private key. Its name is the origin that the text states.

        Raises:
            InvalidOption: the package `cryptography` is not there (the extra `sign`).
            Damaged: a commit in the log is not what it must be; nothing was signed.
            StoreUnusable: as prove_commit().
        """
        self._refuse_inside("signed_head")
        with self._state() as (connection, head):
            # Computed from the commits alone: a digest that rotted must not get under a signature.
            log = history.History(connection, self._meta, stored=False)
            return headlog.sign_head(signer, head, log.root(head.seq))

    def prove_commit(self, seq: int, size: int | None = None) -> Proof:
        """Return a proof of what commit *seq* is: its root, count and time, for who has a signed head.

        A handle that may write keeps digests of the log in the file first, if that was not done yet; it makes no
        commit.

        Args:
            seq: number of the commit, from 1.
            size: number of the commit of the signed head; None for the newest.

        Raises:
            InvalidOption: there is no such commit.
            Damaged: a commit in the log is not what it must be.
            StoreUnusable: a transaction or batch of this thread is open, or the store was closed.
        """
        self._fill_log_blocks("prove_commit")
        with self._state() as (connection, head):
            return history.prove_commit(connection, self._meta, seq, head.seq if size is None else size)

    def prove_consistency(self, old: int, new: int | None = None) -> Proof:
        """Return a proof that history up to commit *new* begins with history up to commit *old*, unchanged.

        Args:
            old: number of the commit of an earlier signed head, from 0.
            new: number of the commit of a later one; None for the newest.

        Raises:
            InvalidOption, Damaged, StoreUnusable: as prove_commit().
        """
        self._fill_log_blocks("prove_consistency")
        with self._state() as (connection, head):
            return history.prove_consistency(connection, self._meta, old, head.seq if new is None else new)

    def _fill_log_blocks(self, what: str) -> None:
        self._refuse_inside(what)
        if not self._engine.read_only:
            with suppress(Busy, StoreFull):  # nothing was written, and a proof can do without
                history.extend(self._writer)

    def stage(self, note: str = "") -> StagedTransaction:
        """Begin a staged transaction: each put and delete is durable before it returns, and none is seen before commit.

        Args:
            note: text of at most 4,096 bytes for the log.

        Raises:
            StoreUnusable: this thread has a transaction open.
            Busy, StoreFull, ReadOnly: as for a transaction.
        """
        return StagedTransaction(self._wal, self._wal.append("BEGIN", note=note).txn)

    def pending(self) -> list[Uncommitted]:
        """Return the staged transactions that dead processes left, for resume(), in the order of their beginning.

        There are some only if the store was opened with `recover="resume"`, or the other process died since.
        """
        return self._wal.pending()

    def resume(self, txn: int) -> StagedTransaction:
        """Go on with a staged transaction that a dead process left; from now on it is this handle's.

        Args:
            txn: its number, as pending() gives it.

        Raises:
            InvalidRecord: there is no such transaction, it has ended, or its process lives.
            Busy, StoreFull, ReadOnly: as for a transaction.
        """
        self._wal.adopt(txn)
        return StagedTransaction(self._wal, txn)

    def backup(self, dest: str | os.PathLike[str], *, keep: int = 0, progress: Progress | None = None) -> BackupReport:
        """Copy the newest commit's state into one file, while others go on writing; checked before it gets its name.

        The copy is checked as check() does: one that is not sound takes nobody's place. An audit entry says that it
        is there, unless the store was opened for reading, or cannot be written. In a store without SQLite's WAL,
        writers wait while it is copied.

        Args:
            dest: the copy. A backup of this store that is there is replaced, or rotated.
            keep: how many backups to keep: *dest*, and the older ones as `dest.1`, `dest.2`, …; 0 keeps one.
            progress: called with what is done and what there is in all.

        Raises:
            InvalidOption: *dest* is the store itself, another file, or in use; or *keep* is not a number.
            Damaged: the copy is not sound; *dest* and the older ones are as they were. See salvage().
            StoreFull, StoreIOError: it could not be written; *dest* is as it was.
        """
        done = backup.copy(self._engine, self._meta, dest, keep=keep, progress=progress)
        if self._engine.read_only:
            return done
        detail = {
            "file": files.as_text(done.path.name),
            "bytes": done.bytes,
            "seq": done.head.seq,
            "root": done.head.root.hex(),
        }
        with suppress(StoreError):  # the backup is there all the same, and the next call says what became of the store
            return replace(done, entry=self.record("backup", detail))
        return done

    def salvage(self, dest: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
        """Copy a damaged store into one file as it is, and return its path: `DEST.salvage-` and 16 digits.

        Nothing is checked, and nothing is noted in the store. The copy takes nobody's place, and no backup() moves or
        removes it: the digits are of its content's hash. check() tells what is wrong with it, repair() can mend it.

        Args:
            dest: how the name begins: where a backup would be.
            progress: called with what is done and what there is in all.

        Raises:
            InvalidOption: *dest* is no path of a file.
            StoreFull, StoreIOError: it could not be written; nothing was.
        """
        return backup.salvage(self._engine, self._meta, dest, progress=progress)

    def record(self, kind: str, detail: Mapping[str, Any]) -> int:
        """Append an entry to the audit trail, durably, and return its number. For this package's own modules."""
        engine = self._engine
        with engine.writing():
            self._writer.marking.begin()
            head = wal.last(engine.writer, self._meta)[1]
            number = audit.append(engine.writer, self._meta.store_id, head, now(), (kind, detail))
            self._writer.commit_other(f"audit entry {number}")
        return number

    def stats(self) -> Stats:
        """Return sizes and settings. Counts the records of the log and the nodes of the tree one by one."""
        engine = self._engine
        with engine.reading() as connection:
            head = wal.last(connection, self._meta)[1]
            levels, nodes = tree.size(connection)
            records, open_staged = wal.size(connection), staged.size(connection)
            collections = len(state.collections(connection))
            synchronous = connection.synchronous()
        return Stats(
            path=engine.path,
            store_id=self._meta.store_id.hex(),
            format=fmt.FORMAT_VERSION,
            seq=head.seq,
            entries=head.count,
            collections=collections,
            levels=levels,
            nodes=nodes,
            records=records,
            staged=open_staged,
            file_bytes=engine.size(),
            sqlite_wal_bytes=engine.size("-wal"),
            journal=engine.journal,
            synchronous=synchronous,
            sqlite=engine.sqlite_version,
            counters=engine.counters.read(),
        )

    def close(self) -> None:
        """Close the store. The last process to do so leaves a single file. Closing twice does nothing.

        Staged transactions that have not ended stay, for the next open to roll back or resume.

        Raises:
            StoreUnusable: a transaction of this thread is still open.
            Busy: a transaction of another thread was open for the whole timeout.
            StoreFull: there is no room in the file for what is in SQLite's WAL. It is closed, and nothing is lost.
            StoreIOError: SQLite's WAL could not be moved into the file. Nothing is lost: the next open recovers.
        """
        self._refuse_inside("close")
        try:
            self._group.close(self._engine.timeout)
            self._engine.close(self._writer.marking.rest)
        finally:
            if self._engine.life.closed:
                self._wal.release()
            else:
                self._group.reopen()  # it was Busy: the store stays open

    def __enter__(self) -> Self:
        self._engine.life.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<sqlstate.Store {self._engine.path!r}>"

    # What collections ask of it.

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        txn = self._own()
        if txn is not None:
            return txn.get_stored(name)
        readers = self._engine.readers
        connection = readers.take()
        stored = state.get(connection, name[0], name[2])
        readers.put(connection)
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

    def look_after(self) -> None:
        """See that somebody is at work if there is work. For this package's own modules."""
        self._group.look_after()

    def reclaim(self) -> None:
        """Take back what scans and snapshots hold that nobody has any more. For this package's own modules."""
        self._engine.readers.reclaim()

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        txn = self._own()
        if txn is not None:
            return txn.count(start, stop)
        with self._engine.reading() as connection:
            return tree.count(connection, start, stop)

    def writing(self) -> AbstractContextManager[Transaction]:
        """Return a block whose writes are one transaction, or part of the one that this thread has open."""
        return self.transaction()

    @contextmanager
    def _state(self) -> Iterator[tuple[Connection, Head]]:
        with self._engine.reading() as connection:
            yield connection, wal.last(connection, self._meta)[1]

    def _refuse_inside(self, what: str) -> None:
        if self._own() is not None:
            raise StoreUnusable(
                f"{self._engine.path}: {what}() cannot be called inside a transaction or batch of the same thread; "
                "leave its block first. Nothing was changed"
            )


class TransactionBlock(Block):
    """A block that is a transaction: of its own, or part of what this thread has open."""

    __slots__ = ("_group", "_note", "_outer", "_txn")

    def __init__(self, group: GroupCommit[Transaction], note: str) -> None:
        super().__init__()
        self._group = group
        self._note = note

    def enter(self) -> Transaction:
        """Begin it; one of its own waits for the writing connection."""
        self._outer = self._group.own.get()
        self._group.context.nothing_made()
        begin = self._group.begin if self._outer is None else self._outer.begin_inside
        self._txn: Transaction = begin(self._note, self.over)
        return self._txn

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """Make it durable, or undo it."""
        group = self._group
        try:
            if self._outer is None:
                group.end(self.over, self._txn, keep=kind is None)
            else:
                self._outer.end_inside(self.over, self._txn, keep=kind is None)
        except BaseException as e:
            group.context.tell(e)
            raise
