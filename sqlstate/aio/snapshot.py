"""Snapshots for tasks: one commit, read from threads, one at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlstate.aio.scan import StoredRows
from sqlstate.aio.view import AsyncCollectionView, Entries
from sqlstate.errors import TransactionEnded
from sqlstate.format.names import check_collection
from sqlstate.format.values import codec_for
from sqlstate.store.access import as_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlstate.aio.threads import Threads
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.store.entries import StoreEntries
    from sqlstate.store.snapshot import OpenSnapshot
    from sqlstate.store.view import K, V
    from sqlstate.tables.state import Span

R = TypeVar("R")
T = TypeVar("T")


class Frozen:
    """One commit: an earlier one, or the newest when it is first read. One thread reads it at a time."""

    __slots__ = ("_ended", "_lock", "_snapshot", "_store", "_threads", "_used", "_when")

    def __init__(self, store: StoreEntries, threads: Threads, when: int | datetime | None = None) -> None:
        self._store = store
        self._when = when
        self._threads = threads
        self._lock = threading.RLock()
        self._snapshot: OpenSnapshot | None = None
        self._used = False
        self._ended = False

    async def ask(self, fn: Callable[[OpenSnapshot], R]) -> R:
        """Return what *fn* returns of it, in a thread."""
        self._used = True
        return await self._threads.run(lambda: self._asked(fn))

    async def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        return await self.ask(lambda view: view.get_stored(name))

    async def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None."""
        return await self.ask(lambda view: view.get_many_stored(names))

    async def has_stored(self, name: Name) -> bool:
        """Return True if there is an entry."""
        return await self.ask(lambda view: view.get_logged(name)) is not None

    async def count_names(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        return await self.ask(lambda view: view.count(start, stop))

    def rows(self, span: Span, *, values: bool) -> StoredRows:
        """Return the rows of a scan."""
        self._used = True
        return StoredRows(
            self._threads,
            lambda: self._taken().scan(span, as_stored, values=values),
            self.check_open,
            self._store.reclaim,
            self._lock,
        )

    @property
    def condition(self) -> str:
        """Whether it can be read, in a word, for a repr."""
        return "ended" if self._ended else "open"

    @property
    def head(self) -> Head | None:
        """The commit, None before it is first read."""
        return None if self._snapshot is None else self._snapshot.head

    @property
    def ended(self) -> bool:
        """Whether it can no longer be read."""
        return self._ended

    def check_open(self) -> None:
        """Raise TransactionEnded if it has ended."""
        if self._ended:
            raise TransactionEnded("the transaction or snapshot has ended; begin another one")

    def drop(self, kind: type[BaseException] | None) -> None:
        """Release the commit, soon, without waiting. Its scans end.

        Args:
            kind: of the exception that ends the block. With GeneratorExit the garbage collector may be at work, and
                nothing is done here: the next reader of the store takes back what is held.
        """
        self._ended = True
        if self._used and kind is not GeneratorExit:
            self._threads.send(self._close)
        else:
            self._snapshot = None

    def _asked(self, fn: Callable[[OpenSnapshot], R]) -> R:
        with self._lock:
            return fn(self._taken())

    def _taken(self) -> OpenSnapshot:
        self.check_open()
        if self._snapshot is None:
            self._snapshot = self._store.snapshot() if self._when is None else self._store.at(self._when)
        return self._snapshot

    def _close(self) -> None:
        with self._lock:
            if self._snapshot is not None:
                self._snapshot.close()


class AsyncSnapshot(Entries):
    """The store as one commit left it, for `async with`. Made by `store.snapshot()` and `store.at()`.

    Tasks can share it; it is read one call at a time. While it is open, SQLite cannot move its WAL into the file
    beyond it: keep it short.

    Examples:
        >>> await store.put("users", 1, "ada")
        >>> async with store.snapshot() as view:
        ...     print(await view.get("users", 1), view.head.seq)
        ada 1
    """

    __slots__ = ("_entries", "head")

    _entries: Frozen
    head: Head
    """The commit that is seen; set at the beginning of the block."""

    def __init__(self, store: StoreEntries, threads: Threads, when: int | datetime | None = None) -> None:
        self._entries = Frozen(store, threads, when)

    def __getitem__(self, collection: str) -> AsyncCollectionView[Any]:
        """Return a collection as it was."""
        return self.collection(collection)

    def collection(
        self,
        name: str,
        *,
        type: type[V] | None = None,  # noqa: A002, the word users know
        key: type[K] | None = None,
        forbid_unknown: bool = False,
    ) -> AsyncCollectionView[V, K]:
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
            >>> await store.put("ages", "ada", 36)
            >>> async with store.snapshot() as view:
            ...     print(await view.collection("ages", type=int).get("ada"))
            36
        """
        codec = codec_for(type, key, forbid_unknown=forbid_unknown)
        return AsyncCollectionView(self._entries, check_collection(name), codec)

    async def collections(self) -> list[str]:
        """Return the names of all collections that had entries, in order.

        Cost: 1 hop.

        Raises:
            TransactionEnded: the snapshot has ended.

        Examples:
            >>> async with store.snapshot() as view:
            ...     print(await view.collections())
            []
        """
        return await self._entries.ask(lambda view: view.collections())

    def __repr__(self) -> str:
        seq = f"commit {self.head.seq}, " if hasattr(self, "head") else ""
        state = "ended" if self._entries.ended else "open" if seq else "not begun"
        return f"<sqlstate.aio.AsyncSnapshot: {seq}{state}>"

    async def __aenter__(self) -> Self:
        self.head = await self._entries.ask(lambda view: view.head)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._entries.drop(kind)
