"""The face of sqlstate: open a store, read and write its collections."""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

from sqlstate import audit, backup, migrate, recovery, state, trail, tree, wal
from sqlstate import format as fmt
from sqlstate import meta as metadata
from sqlstate.collection import Collection
from sqlstate.commit import Writer, now
from sqlstate.encoding import Codec, Key, Name, Stored, check_collection, check_number
from sqlstate.engine import Engine
from sqlstate.errors import InvalidOption, ReadOnly
from sqlstate.inspection import inspect, read_header, undoes_making
from sqlstate.staging import StagedTransaction, WriteAheadLog
from sqlstate.transaction import JSON, Snapshot, Transaction, check_note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlstate.audit import AuditEntry
    from sqlstate.backup import BackupReport, Progress
    from sqlstate.connection import Journal
    from sqlstate.errors import CommitOutcomeUnknown
    from sqlstate.inspection import Inspection
    from sqlstate.meta import Meta
    from sqlstate.recovery import Recover, RecoveryReport
    from sqlstate.staging import Uncommitted
    from sqlstate.state import Span
    from sqlstate.wal import Head

T = TypeVar("T")
Mode = Literal["full"]


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


def open(  # noqa: A001, PLR0913, the word every Python programmer looks for
    path: str | os.PathLike[str],
    *,
    mode: Mode = "full",
    journal: Journal = "wal",
    read_only: bool = False,
    create: bool = True,
    timeout: float = 5.0,
    recover: Recover = "rollback",
    vfs: str | None = None,
) -> Store:
    """Open the store at *path*, making it if there is none, and return it. Use it in a `with` block.

    Args:
        path: a file in an existing folder. A new one gets mode 0600, its owner's alone.
        mode: `"full"`: when a write returns, it survives a power cut.
        journal: how SQLite keeps transactions of a new store atomic; a store that is there keeps its own.
            `"wal"` with synchronous=FULL: one sync a commit, readers never wait. `"delete"` with
            synchronous=EXTRA: a rollback journal, for file systems without shared memory; five syncs a
            commit, and readers and writers wait for each other.
        read_only: refuse every write, and change nothing about the file.
        create: make the file if there is none.
        timeout: seconds that a write waits before Busy: for other threads, and then again for other processes.
        recover: what to do if the last close was not clean; `store.recovery` says what was found and done.
            `"rollback"`: recover, and roll back staged transactions that a dead process left. `"resume"`: the
            same, but leave those for store.pending() and store.resume(). `"refuse"`: raise, and touch nothing.
            `"accept"`: go on even if SQLite's journal is damaged, with what can be proven.
        vfs: name of a registered SQLite VFS that does the input and output; None is the system's.

    Raises:
        JournalDamaged: SQLite's -wal or -journal is lost, damaged, or of another file. Nothing was merged.
        RecoveryDue: the last close was not clean, and *recover* is `"refuse"`.
        StoreMissing: no such folder; or no such file, and *create* is False or *read_only* True.
        NotAStore: a folder, or a file of another program.
        FormatTooNew, MigrationMismatch: the file belongs to another version of sqlstate.
        SQLiteTooOld: the SQLite library could lose committed data.
        InvalidOption: an argument is outside what it may be.
        CannotOpen: the system does not let us look at the file, or make it.
        Damaged: the file contradicts itself.
        Busy: others had the file locked for the whole timeout.
    """
    _check_options(mode, journal, timeout, recover)
    migrate.shipped()  # before a file is made that could not be filled
    engine = Engine(path, read_only=read_only, create=create, timeout=timeout, vfs=vfs)
    try:
        read_header(engine)
        new = migrate.is_new(engine.path, engine.header, undone=undoes_making(engine))
        if new and (read_only or not create):
            raise migrate.empty_file(engine.path)
        found = inspect(engine)
        evidence = recovery.admit(engine, found, recover)
        meta = _connect(engine, journal)
        if _is_suspect(engine, found):
            engine.disconnect()
            found = inspect(engine, thoroughly=True)
            evidence = recovery.admit(engine, found, recover)
            meta = _connect(engine, journal)
        writer = Writer(engine, meta)
        report = recovery.recover(writer, found, recover, evidence)
    except BaseException:
        engine.close()
        raise
    return Store(writer, report)


def restore(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    replace: bool = False,
    progress: Progress | None = None,
) -> BackupReport:
    """Make the store *dest* from a backup, whole or not at all; its audit trail says so.

    Args:
        source: a closed store. It is checked whole before, and the copy again before it gets its name.
        dest: a path where no file is yet.
        replace: replace the store that is there.
        progress: called with pages copied and entries checked, and how many there are of both.

    Raises:
        RestoreRejected: *source* is damaged, is not a store, or is in use; *dest* is as it was.
        InvalidOption: *dest* is there, or a -wal or -journal lies beside it; it is as it was.
        Busy: *dest* is in use.
        StoreFull, StoreIOError: *dest* could not be written; it is as it was.
    """
    done = backup.restore(source, dest, replace=replace, progress=progress)
    with open(done.path) as store:
        detail = {"file": os.path.basename(source), "bytes": done.bytes, "seq": done.head.seq}
        store.record("restore", detail | {"root": done.head.root.hex()})
    return done


def _connect(engine: Engine, journal: Journal) -> Meta:
    """Let SQLite open the file, and recover; bring it to this version's format, and return its facts."""
    engine.connect()
    engine.settle()
    if not migrate.check_header(engine.writer) or migrate.pending(engine.writer, migrate.shipped()):
        _migrate(engine, journal)
    migrate.check_schema(engine.writer)
    meta = metadata.read(engine.writer)
    if engine.journal != meta.journal and not engine.read_only:
        engine.writer.set_journal(meta.journal)
        engine.settle()
    return meta


def _is_suspect(engine: Engine, found: Inspection) -> bool:
    """Tell whether the marker is open where there was no -wal to look at: it is lost, or somebody just came."""
    if engine.journal != "wal" or found.shared or found.marker is not None or found.damage:
        return False
    return metadata.read_marker(engine.writer).open


def _check_options(mode: str, journal: str, timeout: float, recover: str) -> None:
    if mode != "full":
        raise InvalidOption(f"mode={mode!r} is not a mode; this version has 'full'")
    if journal not in ("wal", "delete"):
        raise InvalidOption(f"journal={journal!r} is not 'wal' or 'delete'")
    if recover not in recovery.WAYS:
        raise InvalidOption(f"recover={recover!r} is not {', '.join(map(repr, recovery.WAYS[:-1]))} or 'accept'")
    if not isinstance(timeout, int | float) or not 0 <= timeout < threading.TIMEOUT_MAX:
        raise InvalidOption(f"timeout={timeout!r} is not a number of seconds, 0 or more")


def _migrate(engine: Engine, journal: Journal) -> None:
    """Bring the file to this version's format; of several processes that try at once, one does.

    A new file gets its tables through a rollback journal, so that its first page says from the beginning what
    it is. The journal mode that was asked for comes after, and is made good by the next open if not.
    """
    if engine.read_only:
        raise ReadOnly(f"{engine.path} must be migrated before this version can read it; open it for writing once")
    at = now()
    writer = engine.writer
    writer.begin()
    try:
        is_store = migrate.check_header(writer)
        pending = migrate.pending(writer, migrate.shipped()) if is_store else migrate.shipped()
        if pending:
            migrate.apply(writer, pending, at)
        if not is_store:
            metadata.write(writer, metadata.Meta(secrets.token_bytes(fmt.STORE_ID_BYTES), journal, at))
        meta = metadata.read(writer)
        for migration in pending:
            detail = {"number": migration.number, "name": migration.name, "sha256": migration.sha256.hex()}
            audit.append(writer, meta.store_id, wal.last(writer, meta)[1], at, ("migration", detail))
        engine.commit_other("bringing the file to this version's format")
    except BaseException:
        writer.rollback()
        raise


class Store:
    """One open store. Made by `sqlstate.open()`; close it, or use it in a `with` block.

    Collections: `store["settings"]`, collection() for typed values, collections(). Several writes at once:
    transaction(). Reading one commit: snapshot(). What it holds: head(), stats(), `wal`.
    All threads of a process can share one Store.
    """

    def __init__(self, writer: Writer, recovery: RecoveryReport) -> None:
        self._engine = writer.engine
        self._meta = writer.meta
        self._txn: Transaction | None = None
        self._txn_thread = 0
        self._writer = writer
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
    def collection(self, name: str, *, type: type[T]) -> Collection[T]: ...
    def collection(self, name: str, *, type: Any = None) -> Collection[Any]:  # noqa: A002, the word users know
        """Return a collection whose values are of *type*.

        Args:
            name: text of 1 to 255 bytes.
            type: a dataclass, attrs class, msgspec.Struct, TypedDict, or any type that msgspec can encode;
                None for values without a type. It is not recorded in the file.

        Raises:
            InvalidName: the name cannot be one.
            InvalidOption: the type cannot be stored as JSON.
        """
        return Collection(self, check_collection(name), JSON if type is None else Codec(type))

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

    @contextmanager
    def transaction(self, note: str = "") -> Iterator[Transaction]:
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
        check_note(note)
        txn = self._own()
        if txn is not None:
            if note:
                raise InvalidOption("a nested transaction has no note of its own; give it to the outermost")
            with txn.writing(several=True):
                yield txn
            return
        self._engine.lock_writer()
        try:
            txn = Transaction(self._writer, note)
            self._txn, self._txn_thread = txn, threading.get_ident()
            try:
                yield txn
            except BaseException:
                self._txn = None
                txn.abandon()
                raise
            self._txn = None
            txn.finish()
        finally:
            self._txn = None
            self._engine.unlock_writer()

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
        with self._engine.lending() as connection:
            yield from wal.commits(connection, first)

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
        with self._engine.lending() as connection:
            yield from audit.read(connection, after)

    def check_audit(self) -> list[str]:
        """Read the audit trail again: its chain, and each entry's figures against the log and each other.

        Returns what is wrong, a sentence each; an empty list if nothing is.
        """
        with self._engine.reading() as connection:
            return trail.check(connection, self._meta)

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

    def resume(self, id: int) -> StagedTransaction:  # noqa: A002, the word of pending()'s users
        """Go on with a staged transaction that a dead process left; from now on it is this handle's.

        Args:
            id: its number, `txn` in pending().

        Raises:
            InvalidRecord: there is no such transaction, it has ended, or its process lives.
            Busy, StoreFull, ReadOnly: as for a transaction.
        """
        self._wal.adopt(id)
        return StagedTransaction(self._wal, id)

    def backup(self, dest: str | os.PathLike[str], *, keep: int = 0, progress: Progress | None = None) -> BackupReport:
        """Copy the newest commit's state into one file, while others go on writing; verified before it gets its name.

        An audit entry says so, unless the store was opened for reading. In a store without SQLite's WAL, writers
        wait while it is copied.

        Args:
            dest: the copy. A backup of this store that is there is replaced, or rotated.
            keep: how many backups to keep: *dest*, and the older ones as `dest.1`, `dest.2`, …; 0 keeps one.
            progress: called with pages copied and entries checked, and how many there are of both.

        Raises:
            InvalidOption: *dest* is the store itself, another file, or in use; or *keep* is not a number.
            Damaged: the copy does not have the root that it must have; *dest* is as it was.
            StoreFull, StoreIOError: it could not be written; *dest* is as it was.
        """
        done = backup.copy(self._engine, self._meta, dest, keep=keep, progress=progress)
        if not self._engine.read_only:
            detail = {"file": done.path.name, "bytes": done.bytes, "seq": done.head.seq, "root": done.head.root.hex()}
            self.record("backup", detail)
        return done

    def record(self, kind: str, detail: Mapping[str, Any]) -> int:
        """Append an entry to the audit trail, durably, and return its number. For this package's own modules."""
        engine = self._engine
        engine.lock_writer()
        try:
            self._writer.marking.begin()
            try:
                head = wal.last(engine.writer, self._meta)[1]
                number = audit.append(engine.writer, self._meta.store_id, head, now(), (kind, detail))
                self._writer.commit_other(f"audit entry {number}")
            except BaseException:
                if engine.usable:
                    engine.writer.rollback()
                raise
        finally:
            engine.unlock_writer()
        return number

    def stats(self) -> Stats:
        """Return sizes and settings. Counts the records of the log and the nodes of the tree one by one."""
        engine = self._engine
        with engine.reading() as connection:
            head = wal.last(connection, self._meta)[1]
            levels, nodes = tree.size(connection)
            records, staged = wal.size(connection)
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
            staged=staged,
            file_bytes=engine.size(),
            sqlite_wal_bytes=engine.size("-wal"),
            journal=engine.journal,
            synchronous=synchronous,
            sqlite=engine.sqlite_version,
        )

    def close(self) -> None:
        """Close the store. The last process to do so leaves a single file. Closing twice does nothing.

        Staged transactions that have not ended stay, for the next open to roll back or resume.

        Raises:
            StoreUnusable: a transaction of this thread is still open.
            Busy: a transaction of another thread was open for the whole timeout.
            StoreIOError: SQLite's WAL could not be moved into the file. Nothing is lost: the next open recovers.
        """
        self._engine.close(self._writer.marking.rest)
        self._wal.release()

    def __enter__(self) -> Self:
        self._engine.check_usable()
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
        connection = self._engine.take_reader()
        try:
            return state.get(connection, name[0], name[2])
        finally:
            self._engine.give_reader(connection)

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry: a transaction of its own, or part of the one that this thread has open."""
        txn = self._own()
        if txn is not None:
            txn.put_stored(name, stored)
            return
        self._engine.lock_writer()
        try:
            self._writer.put(name, stored)
        finally:
            self._engine.unlock_writer()

    def scan(self, span: Span, *, values: bool) -> Iterator[tuple[Key, Stored]]:
        """Yield (key, stored value) in order."""
        txn = self._own()
        if txn is not None:
            yield from txn.scan(span, values=values)
            return
        with self._engine.lending() as connection:
            yield from state.scan(connection, span, values=values)

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        txn = self._own()
        if txn is not None:
            return txn.count(start, stop)
        with self._engine.reading() as connection:
            return tree.count_before(connection, stop) - tree.count_before(connection, start)

    @contextmanager
    def writing(self, *, several: bool = False) -> Iterator[Transaction]:
        """Return a block whose writes are one transaction, or part of the one that this thread has open."""
        txn = self._own()
        if txn is None:
            with self.transaction() as own:
                yield own
        else:
            with txn.writing(several=several):
                yield txn

    def _own(self) -> Transaction | None:
        """Return the transaction that this thread has open, if any."""
        txn = self._txn
        return txn if txn is not None and self._txn_thread == threading.get_ident() else None
