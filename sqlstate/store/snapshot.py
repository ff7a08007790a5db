"""Snapshots: one commit, read while others write."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlstate.errors import StoreClosed, TransactionEnded
from sqlstate.format.names import check_collection
from sqlstate.format.values import JSON, codec_for
from sqlstate.proving.entries import Provable
from sqlstate.sqlite.pages import Pages, Rows
from sqlstate.sqlite.readers import Lease, ended
from sqlstate.store.access import Faces, chunks, condition, find_by_name
from sqlstate.store.view import CollectionView
from sqlstate.tables import merkle, state, wal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.store.access import Made
    from sqlstate.store.view import K, V
    from sqlstate.tables.meta import Meta
    from sqlstate.tables.state import Span
    from sqlstate.tables.wal_changes import Logged

T = TypeVar("T")
R = TypeVar("R")


class View(Faces):
    """One state of a store that can be read: what a Snapshot and a PastView have in common."""

    __slots__ = ("__weakref__", "_entries", "head", "store_id")

    head: Head
    """The commit that is seen."""
    store_id: bytes
    """The store that it is of, 16 bytes."""

    def __init__(self, entries: OpenSnapshot) -> None:
        self._entries = entries
        self.head = entries.head
        self.store_id = entries.store_id

    def __getitem__(self, collection: str) -> CollectionView[Any]:
        """Return a collection as it was.

        Cost: none.

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.
        """
        return CollectionView(self._entries, check_collection(collection), JSON)

    def collection(
        self,
        name: str,
        *,
        type: type[V] | None = None,  # noqa: A002, the word users know
        key: type[K] | None = None,
        forbid_unknown: bool = False,
    ) -> CollectionView[V, K]:
        """Return a collection as it was, whose values are of *type*.

        Cost: none.

        Args:
            name: text of 1 to 255 bytes.
            type: as for `Store.collection()`.
            key: as for `Store.collection()`.
            forbid_unknown: as for `Store.collection()`.

        Raises:
            InvalidName: the name is not such text.
            InvalidOption: as for `Store.collection()`.

        Examples:
            >>> store["ages"]["ada"] = 36
            >>> with store.snapshot() as view:
            ...     print(view.collection("ages", type=int)["ada"])
            36
        """
        codec = codec_for(type, key, forbid_unknown=forbid_unknown)
        return CollectionView(self._entries, check_collection(name), codec)

    def collections(self) -> list[str]:
        """Return the names of all collections that had entries, in order.

        Cost: 1 statement.

        Raises:
            TransactionEnded: the snapshot has ended.

        Examples:
            >>> with store.snapshot() as view:
            ...     print(view.collections())
            []
        """
        return self._entries.collections()

    def close(self) -> None:
        """Release the commit. The end of the `with` block does it too. Iterators of the snapshot end with it.

        Cost: 1 statement.

        Raises:
            StoreForked: never for the snapshot itself; in the child of a fork, close() does nothing.

        Examples:
            >>> view = store.snapshot()
            >>> view.close()
            >>> view
            <sqlstate.Snapshot of '...app.db': commit 0, ended>
        """
        self._entries.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        path, condition = self._entries.path, self._entries.condition
        return f"<sqlstate.{type(self).__name__} of {path!r}: commit {self.head.seq}, {condition}>"


class Snapshot(View, Provable):
    """The store as one commit left it, for reading while others write. Made by `store.snapshot()`.

    `view["users"]` is a mapping that can be read, and `view.head` is the commit. One thread at a time reads it. While
    it is open, SQLite cannot move its WAL into the file beyond it, and on a store with journal="delete" writers wait:
    keep it short.

    Examples:
        >>> store["settings"]["lang"] = "fr"
        >>> with store.snapshot() as view:
        ...     store["settings"]["lang"] = "de"
        ...     print(view["settings"]["lang"], view.collections(), view.head.seq)
        fr ['settings'] 1
        >>> view["settings"]["lang"]
        Traceback (most recent call last):
        TransactionEnded: the snapshot has ended; take one with store.snapshot()
    """

    __slots__ = ()

    @contextmanager
    def _state(self) -> Iterator[tuple[Connection, Head]]:
        yield self._entries.reader(), self.head


class OpenSnapshot:
    """The private side of a Snapshot: one commit, and the lease on the connection that reads it."""

    __slots__ = ("_ended", "_lease", "_life", "_pages", "head", "newest", "store_id")

    upto: int | None = None

    head: Head
    newest: Head
    """The commit that the connection reads."""
    store_id: bytes

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self._life = engine.life
        self._ended = False
        self._pages = Pages()
        self.store_id = meta.store_id
        self._lease = Lease(engine.readers, "a snapshot")
        try:
            self.head = self.newest = wal.last(self._lease.connection, meta)[1]
        except BaseException:
            self._lease.end()
            raise

    def collections(self) -> list[str]:
        """Return the names of all collections that had entries."""
        return state.collections(self.reader())

    find = find_by_name

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        return state.get(self.reader(), name[0], name[2])

    def get_logged(self, name: Name) -> Logged:
        """Return the stored value of an entry, or None; of a view of the past, its leaf if the log has that alone."""
        return self.get_stored(name)

    def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None."""
        return state.get_each(self.reader(), names)

    def scan(self, span: Span, make: Made[T], *, values: bool) -> Iterator[T]:
        """Yield (key, stored value) in order."""
        return self._rows(chunks(make, values=values), span)

    def scan_all(self) -> Iterator[tuple[str, Key, Stored]]:
        """Yield (collection, key, stored value) of every entry, in order."""
        first: tuple[str, Key] = ("", "")
        return self._rows(state.chunk_of_all, first)

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        connection = self.reader()
        return merkle.count(connection, start, stop)

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a block with the connection that reads the commit."""
        return nullcontext(self.reader())

    def close(self) -> None:
        """Release the commit, and end its iterators."""
        self._ended = True
        self._pages.clear()
        self._lease.end()

    @property
    def path(self) -> str:
        """The store's path."""
        return self._life.path

    @property
    def condition(self) -> str:
        """Whether it can be read, for a repr."""
        return condition(self._life, ended=self._ended)

    def _rows(self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R) -> Iterator[T]:
        """Yield rows, read in chunks, each by a statement that has ended."""
        return Rows.of(self._read_pages(read, rest))

    def _read_pages(
        self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R
    ) -> Generator[list[T], None, None]:
        self._life.check()  # of a store that is closed already, it says so
        left: R | None = rest
        while left is not None:
            try:
                rows, left = read(self.reader(), left)
            except StoreClosed as e:
                if self._life.closed:
                    raise ended(self._life, "the snapshot") from e
                raise
            page = self._life.pages.shown(self._pages.shown(rows))
            self._check_open()
            try:
                yield page
            finally:
                page.clear()
            if page.failed:
                return
            self._check_open()

    def _check_open(self) -> None:
        """Raise if what an iterator reads has ended."""
        if self._life.closed and not self._ended:
            raise ended(self._life, "the snapshot")
        if self._ended or self._life.forked:
            self.reader()

    def reader(self) -> Connection:
        """Return the connection that reads the commit."""
        if self._ended:
            self._life.check_forked()
            raise TransactionEnded("the snapshot has ended; take one with store.snapshot()")
        self._life.check()
        return self._lease.connection
