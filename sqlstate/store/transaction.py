"""Transactions and snapshots: what happens between `with` and the end of its block."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from sqlstate.commit.commit import BUFFER_BYTES, BUFFER_ENTRIES, Commit
from sqlstate.errors import Conflict, InvalidOption, InvalidValue, StoreClosed, TransactionEnded
from sqlstate.format import constants as fmt
from sqlstate.format.names import Key, Name, Stored, check_collection, make_name, stored_name
from sqlstate.format.values import Codec, same
from sqlstate.proving.entries import Provable
from sqlstate.sqlite.blocks import Block
from sqlstate.sqlite.readers import Lease, ended
from sqlstate.store.collection import Collection, CollectionView
from sqlstate.tables import merkle as tree
from sqlstate.tables import state, wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.commit.changes import Mark
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.records import Head
    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta
    from sqlstate.tables.state import Span

T = TypeVar("T")
R = TypeVar("R")


class Absent:
    """The type of ABSENT: no entry, where None would be the JSON value null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()

JSON: Final[Codec[Any]] = Codec()
"""Values without a type: bytes, or a JSON document."""


def codec_for(type_: Any, *, forbid_unknown: bool) -> Codec[Any]:
    """Return the codec of a collection whose values are of *type_*; None stands for values without a type.

    Raises:
        InvalidOption: the type cannot be stored as JSON; or *forbid_unknown* without a type.
    """
    return JSON if type_ is None and not forbid_unknown else Codec(type_, forbid_unknown=forbid_unknown)


def encode(name: Name, value: Any) -> Stored:
    """Return *value* as it is stored.

    Raises:
        InvalidValue: it would not read back exactly; the error names the entry.
    """
    try:
        return JSON.encode(value)
    except InvalidValue as e:
        raise e.located(name[0], name[2]) from None


def check_note(note: str) -> str:
    """Return *note* if a BEGIN record can hold it.

    Raises:
        InvalidOption: it is not text of at most 4,096 bytes.
    """
    try:
        size = len(note.encode())
    except (AttributeError, UnicodeEncodeError):
        raise InvalidOption(f"note={note!r} is not text") from None
    if size > fmt.NOTE_BYTES_MAX:
        raise InvalidOption(f"a note has at most {fmt.NOTE_BYTES_MAX} bytes, this one {size}")
    return note


class Transaction:
    """Puts and deletes that take effect together or not at all. Made by `store.transaction()`.

    It sees its own writes; nobody else does before it ends. Entries: put(), get(), delete(), expect();
    collections: `txn["users"]` is a mapping with all the methods of a Collection. It belongs to the thread
    that began it, and ends with its block.
    """

    __slots__ = (
        "_applied", "_broken", "_buffer", "_bytes", "_commit", "_connection", "_ended", "_life", "_nested", "_outer",
        "_over", "_shared", "_thread",
    )  # fmt: skip

    def __init__(self, writer: WriteContext, note: str, commit: Commit, over: Over) -> None:
        commit.begin(note)
        self._commit = commit
        self._over = over  # dead once the block is over, which then need not have ended it
        self._applied = False
        self._shared = commit.transactions > 0  # with others, who must not be undone with this one
        self._outer: Mark | None = None  # before the first write of a shared one that reached the tables
        self._life = writer.engine.life
        self._connection = writer.engine.writer
        self._buffer: dict[Name, Stored | None] = {}
        self._bytes = 0
        self._nested: list[tuple[Mark, Over]] = []
        self._thread = threading.get_ident()
        self._broken = False
        self._ended = False

    def put(self, collection: str, key: Key, value: Any) -> None:
        """Put an entry.

        Args:
            collection: name of the collection, 1 to 255 bytes of text; it exists while it has entries.
            key: int from -2^63 to 2^63-1, or str or bytes of 1 to 1,048,576 bytes.
            value: bytes, or what JSON carries exactly, up to 268,435,456 bytes as stored.

        Raises:
            InvalidName, InvalidKey, InvalidValue: it cannot be stored exactly; the transaction goes on without it.
        """
        name = make_name(check_collection(collection), key)
        self.put_stored(name, encode(name, value))

    @overload
    def get(self, collection: str, key: Key) -> Any: ...
    @overload
    def get(self, collection: str, key: Key, default: Any) -> Any: ...
    def get(self, collection: str, key: Key, default: Any = None) -> Any:
        """Return the value of an entry as this transaction sees it, or *default* if there is none."""
        return self[collection].get(key, default)

    def delete(self, collection: str, key: Key) -> bool:
        """Delete an entry, and tell whether there was one."""
        name = make_name(check_collection(collection), key)
        there = self.get_stored(name) is not None
        if there:
            self.delete_stored(name)
        return there

    def expect(self, collection: str, key: Key, value: Any) -> None:
        """Go on only if the entry is *value* as this transaction sees it; ABSENT stands for no entry.

        Values are compared as they are stored, so 1 and 1.0 differ.

        Raises:
            Conflict: it is not; leaving the block with it undoes the transaction.
        """
        name = make_name(check_collection(collection), key)
        expected = None if value is ABSENT else encode(name, value)
        actual = self.get_stored(name)
        if not same(actual, expected):
            raise Conflict(collection, key, value, ABSENT if actual is None else JSON.decode(actual))

    def __getitem__(self, collection: str) -> Collection[Any]:
        """Return a collection as this transaction sees it."""
        return Collection(self, check_collection(collection), JSON)

    @overload
    def collection(self, name: str) -> Collection[Any]: ...
    @overload
    def collection(self, name: str, *, type: type[T], forbid_unknown: bool = False) -> Collection[T]: ...
    def collection(self, name: str, *, type: Any = None, forbid_unknown: bool = False) -> Collection[Any]:  # noqa: A002, the word users know
        """Return a collection whose values are of *type*, as this transaction sees it."""
        return Collection(self, check_collection(name), codec_for(type, forbid_unknown=forbid_unknown))

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, as this transaction sees them."""
        self.apply()
        return state.collections(self._connection)

    # What collections ask of it.

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        self._check()
        try:
            return self._buffer[name]
        except KeyError:
            return self._commit.get(name)

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry."""
        self._check()
        self._buffer[name] = stored
        self._bytes += len(stored)
        if self._bytes > BUFFER_BYTES or len(self._buffer) >= BUFFER_ENTRIES:
            self.apply()

    def delete_stored(self, name: Name) -> None:
        """Delete an entry, if there is one."""
        self._check()
        self._buffer[name] = None
        if len(self._buffer) >= BUFFER_ENTRIES:
            self.apply()

    def scan(self, span: Span, *, values: bool) -> Iterator[tuple[Key, Stored]]:
        """Yield (key, stored value) in order, each as it is when its turn comes.

        An entry put ahead of the scan while it runs may be seen or not.
        """
        while True:
            self.apply()
            keys = state.next_keys(self._connection, span)
            buffer = self._buffer
            for key in keys:
                name = stored_name(span.collection, key)
                # Without values and without writes since, what was read a moment ago still holds.
                if not values and self._buffer is buffer and name not in buffer:
                    self._check()
                    yield key, ""
                elif (stored := self.get_stored(name)) is not None:
                    yield key, stored
            if len(keys) < state.KEYS_AT_ONCE:
                self._check()
                return
            span = span.after(keys[-1])

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        self.apply()
        return tree.count(self._connection, start, stop)

    def run(self, work: Callable[[Transaction], R]) -> R:
        """Return what *work* returns of this transaction."""
        return work(self)

    def writing(self) -> Nested:
        """Return a block that is part of this transaction, all or nothing by itself."""
        return Nested(self)

    # What the store asks of it.

    def apply(self) -> None:
        """Carry the buffered writes into the tables, inside the open SQLite transaction."""
        self._check()
        if not self._connection.in_transaction():
            # After some errors, of a read too, SQLite rolls back by itself; what follows must not stand alone.
            self._broken = True
            self._check()
        if self._shared and self._outer is None:
            self._broken = self._applied = True
            self._outer = self._commit.mark()
            self._broken = False
        if not self._buffer:
            return
        self._applied = True
        values, self._buffer, self._bytes = self._buffer, {}, 0
        self._broken = True  # until it is done: half-applied writes must never be committed
        self._commit.apply(values)
        self._broken = False

    def begin_inside(self, note: str, over: Over) -> Transaction:
        """Begin a nested transaction: a savepoint.

        Raises:
            InvalidOption: a nested transaction has no note.
        """
        if note:
            raise InvalidOption("a nested transaction has no note of its own; give it to the outermost")
        self.apply()
        self._nested.append((self._commit.mark(), over))
        return self

    def end_inside(self, over: Over, _txn: Transaction, *, keep: bool) -> None:
        """End the newest nested transaction, whose block is *over* soon: keep its writes, or undo them."""
        self._check()  # which undoes those whose blocks were cut short
        if not self._nested or self._nested[-1][1] is not over:
            return
        if keep:
            self.apply()
            self._commit.release()
            self._nested.pop()
        else:
            self._undo_nested()

    def _undo_nested(self) -> None:
        self._buffer, self._bytes = {}, 0
        self._commit.restore(self._nested[-1][0])
        self._nested.pop()
        self._broken = False

    @property
    def ended(self) -> bool:
        """Whether finish(), end() or abandon() has ended it."""
        return self._ended

    def finish(self) -> Head | None:
        """Commit; return the new head, or None if nothing changed. The transaction has ended."""
        try:
            self.apply()
            return self._commit.finish()
        except BaseException:
            self._commit.roll_back()
            raise
        finally:
            self._ended = True

    def end(self) -> bool:
        """End it without a commit of its own, and tell whether it changed anything. If it fails, it is undone."""
        try:
            self._check()
            commit = self._commit
            if not self._applied:  # no need to reach the tables by itself, or for a savepoint
                commit.add(self._buffer)
            else:
                self.apply()
                if commit.root == (commit.base.root if self._outer is None else self._outer.root):  # I10
                    self.abandon()
                    return False
                if self._outer is not None:
                    commit.release()
            changed = commit.end()
            self._ended = True
        except BaseException:
            self.abandon()
            raise
        return changed

    def abandon(self) -> None:
        """Undo everything that it did, and nothing that others did before it. The transaction has ended."""
        if self._ended:
            return
        if not self._shared:
            self._commit.roll_back()
        elif self._outer is not None:
            self._commit.restore(self._outer)
        else:
            self._commit.spoil()
        self._ended = True

    def _check(self) -> None:
        if self._ended or self._over() is None or self._thread != threading.get_ident():
            self._life.check_forked()
            raise TransactionEnded(
                "the transaction has ended, or belongs to another thread; begin one with store.transaction()"
            )
        if not self._life.usable:
            self._life.check()
        while self._nested and self._nested[-1][1]() is None:
            self._undo_nested()  # an exception kept its block from doing so
        if self._broken:
            raise TransactionEnded(
                "the transaction failed while it was applied; leave its block, and nothing is changed"
            )


class Nested(Block):
    """A block that is part of a transaction, all or nothing by itself."""

    __slots__ = ("_txn",)

    def __init__(self, txn: Transaction) -> None:
        super().__init__()
        self._txn = txn

    def enter(self) -> Transaction:
        """Set a savepoint."""
        return self._txn.begin_inside("", self.over)

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """Keep what was written, or undo it."""
        self._txn.end_inside(self.over, self._txn, keep=kind is None)


class Snapshot(Provable):
    """The store as one commit left it, for reading while others write. Made by `store.snapshot()`.

    `view["users"]` is a mapping that can be read; `view.head` is the commit. One thread at a time.
    While it is open, SQLite's WAL cannot be folded beyond it: keep it short.
    """

    __slots__ = ("__weakref__", "_ended", "_lease", "_life", "head", "store_id")

    head: Head
    """The commit that is seen."""
    store_id: bytes
    """The store that it is of, 16 bytes."""

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self._life = engine.life
        self._ended = False
        self.store_id = meta.store_id
        self._lease = Lease(engine.readers, "a snapshot")
        try:
            self.head = wal.last(self._lease.connection, meta)[1]
        except BaseException:
            self._lease.end()
            raise

    def __getitem__(self, collection: str) -> CollectionView[Any]:
        """Return a collection as it was."""
        return CollectionView(self, check_collection(collection), JSON)

    @overload
    def collection(self, name: str) -> CollectionView[Any]: ...
    @overload
    def collection(self, name: str, *, type: type[T], forbid_unknown: bool = False) -> CollectionView[T]: ...
    def collection(self, name: str, *, type: Any = None, forbid_unknown: bool = False) -> CollectionView[Any]:  # noqa: A002, the word users know
        """Return a collection whose values are of *type*, as it was."""
        return CollectionView(self, check_collection(name), codec_for(type, forbid_unknown=forbid_unknown))

    def collections(self) -> list[str]:
        """Return the names of all collections that had entries."""
        return state.collections(self._reader())

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        return state.get(self._reader(), name[0], name[2])

    def scan(self, span: Span, *, values: bool) -> Iterator[tuple[Key, Stored]]:
        """Yield (key, stored value) in order."""
        return self._rows(lambda connection, rest: state.chunk(connection, rest, values=values), span)

    def scan_all(self) -> Iterator[tuple[str, Key, Stored]]:
        """Yield (collection, key, stored value) of every entry, in order."""
        first: tuple[str, Key] = ("", "")
        return self._rows(state.chunk_of_all, first)

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        connection = self._reader()
        return tree.count(connection, start, stop)

    @contextmanager
    def _state(self) -> Iterator[tuple[Connection, Head]]:
        yield self._reader(), self.head

    def close(self) -> None:
        """Let go of the commit. Called by the end of the block. Iterators of it end: their next step says so."""
        self._ended = True
        self._lease.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R) -> Iterator[T]:
        """Yield rows in chunks, each read by a statement that has ended."""
        self._life.check()  # of a store that is closed already, it says so
        left: R | None = rest
        while left is not None:
            try:
                rows, left = read(self._reader(), left)
            except StoreClosed as e:
                if self._life.closed:
                    raise ended(self._life, "the snapshot") from e
                raise
            for row in rows:
                self._check_open()
                yield row
        self._check_open()

    def _check_open(self) -> None:
        """Raise if what an iterator reads has ended."""
        if self._life.closed and not self._ended:
            raise ended(self._life, "the snapshot")
        if self._ended or self._life.forked:
            self._reader()

    def _reader(self) -> Connection:
        if self._ended:
            self._life.check_forked()
            raise TransactionEnded("the snapshot has ended; take one with store.snapshot()")
        self._life.check()
        return self._lease.connection
