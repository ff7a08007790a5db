"""The face of sqlstate: open a store, read and write its collections."""

from __future__ import annotations

import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

from sqlstate import format as fmt
from sqlstate import meta as metadata
from sqlstate import migrate, state, tree, wal
from sqlstate.collection import Collection
from sqlstate.commit import Writer, now
from sqlstate.encoding import Codec, Key, Name, Stored, check_collection, check_number
from sqlstate.engine import Engine
from sqlstate.errors import InvalidOption, ReadOnly
from sqlstate.staging import WriteAheadLog
from sqlstate.transaction import JSON, Snapshot, Transaction, check_note

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from sqlstate.connection import Journal
    from sqlstate.meta import Meta
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
        vfs: name of a registered SQLite VFS that does the input and output; None is the system's.

    Raises:
        StoreMissing: no such folder; or no such file, and *create* is False or *read_only* True.
        NotAStore: a folder, or a file of another program.
        FormatTooNew, MigrationMismatch: the file belongs to another version of sqlstate.
        SQLiteTooOld: the SQLite library could lose committed data.
        InvalidOption: an argument is outside what it may be.
        CannotOpen: the system does not let us look at the file, or make it.
        Damaged: the file contradicts itself.
        Busy: others had the file locked for the whole timeout.
    """
    _check_options(mode, journal, timeout)
    migrations = migrate.shipped()
    engine = Engine(path, read_only=read_only, create=create, timeout=timeout, vfs=vfs)
    try:
        new = migrate.is_new(engine.path, engine.header, journal=engine.size("-journal") > 0)
        if new and (read_only or not create):
            raise migrate.empty_file(engine.path)
        engine.connect()
        engine.settle()
        if not migrate.check_header(engine.writer) or migrate.pending(engine.writer, migrations):
            _migrate(engine, journal)
        migrate.check_schema(engine.writer)
        meta = metadata.read(engine.writer)
        if engine.journal != meta.journal and not read_only:
            engine.writer.set_journal(meta.journal)
            engine.settle()
        engine.trust()
    except BaseException:
        engine.close()
        raise
    return Store(engine, meta)


def _check_options(mode: str, journal: str, timeout: float) -> None:
    if mode != "full":
        raise InvalidOption(f"mode={mode!r} is not a mode; this version has 'full'")
    if journal not in ("wal", "delete"):
        raise InvalidOption(f"journal={journal!r} is not 'wal' or 'delete'")
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

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self._engine = engine
        self._meta = meta
        self._txn: Transaction | None = None
        self._txn_thread = 0
        self._writer = Writer(engine, meta)
        self._wal = WriteAheadLog(self._writer)

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

        Raises:
            StoreUnusable: a transaction of this thread is still open.
            Busy: a transaction of another thread was open for the whole timeout.
        """
        self._engine.close()

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
