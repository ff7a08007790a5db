"""The asynchronous store: open it in an event loop, read and write it from tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from sqlstate.aio.collection import AsyncCollection
from sqlstate.aio.entries import AsyncStoreEntries
from sqlstate.aio.past import AsyncPast
from sqlstate.aio.snapshot import AsyncSnapshot
from sqlstate.aio.transaction import Transactions, check_plain
from sqlstate.aio.upkeep import AsyncUpkeep
from sqlstate.aio.view import Entries
from sqlstate.aio.watch import AsyncWatch, AsyncWatchedChanges
from sqlstate.aio.writes import Submitted, Ticket
from sqlstate.errors import Busy
from sqlstate.format.names import check_collection
from sqlstate.format.values import codec_for
from sqlstate.store.blocks import on_face
from sqlstate.store.past.changes import Wanted, check_watch
from sqlstate.store.transaction import check_note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlstate.aio.event_loop import Loop
    from sqlstate.aio.threads import Threads
    from sqlstate.format.keys import Bound
    from sqlstate.format.names import Key
    from sqlstate.format.records import Head
    from sqlstate.recovery.report import RecoveryReport
    from sqlstate.store.past.change import Change
    from sqlstate.store.store import Store
    from sqlstate.store.transaction import Transaction
    from sqlstate.store.view import K, V

T = TypeVar("T")


R = TypeVar("R")


class AsyncStore(Entries, Transactions, AsyncPast, AsyncUpkeep):
    """One open store, for the tasks of one event loop. Made by `sqlstate.aio.open()`; close it, or use `async with`.

    Reading is one hop to one of at most 8 threads for each call. The store's own thread writes, and writes of all
    tasks share commits.

    A write that is cancelled before it began is withdrawn, and changes nothing. One that has begun is waited for. A
    note on the exception says which, with the number of the commit. A read that is cancelled is given up at once;
    call() and close() are waited for.

    Examples:
        >>> await store["users"].put(1, "ada")
        >>> await store.get("users", 1), await store.count("users")
        ('ada', 1)
    """

    __slots__ = ("_entries", "_loop", "_store", "_threads")

    _entries: AsyncStoreEntries

    def __init__(self, store: Store, loop: Loop, threads: Threads) -> None:
        self._store = store
        self._loop = loop
        self._threads = threads
        self._entries = AsyncStoreEntries(store, loop, threads)
        loop.look_after = self._entries.stored.look_after

    @property
    def path(self) -> Path:
        """The absolute path of the file."""
        return self._store.path

    @property
    def store_id(self) -> bytes:
        """16 random bytes that identify this store."""
        return self._store.store_id

    @property
    def recovery(self) -> RecoveryReport:
        """What opening this handle found, and what it did about that."""
        return self._store.recovery

    # Reading.

    def __getitem__(self, collection: str) -> AsyncCollection[Any]:
        """Return the collection of this name. It exists while it has entries.

        Cost: none.

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.
        """
        return self.collection(collection)

    def collection(
        self,
        name: str,
        *,
        type: type[V] | None = None,  # noqa: A002, the word users know
        key: type[K] | None = None,
        forbid_unknown: bool = False,
    ) -> AsyncCollection[V, K]:
        """Return a collection whose values are of *type*, as `Store.collection()` does.

        Cost: none.

        Args:
            name: text of 1 to 255 bytes.
            type: a dataclass, attrs class, msgspec.Struct, TypedDict, or any type that msgspec can encode; None for
                values without a type.
            key: int, str, bytes, a union of them, or tuple[...] of those; None for any int, str or bytes.
            forbid_unknown: reading a document with members that the type lacks raises InvalidValue.

        Raises:
            InvalidName: the name is not such text.
            InvalidOption: as for `Store.collection()`.

        Examples:
            >>> ages = store.collection("ages", type=int)
            >>> await ages.put("ada", 36)
            >>> await ages.get("ada")
            36
        """
        codec = codec_for(type, key, forbid_unknown=forbid_unknown)
        return AsyncCollection(self._entries, check_collection(name), codec)

    async def collections(self) -> list[str]:
        """Return the names of all collections that have entries, in order.

        Cost: 1 hop.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> await store.collections()
            ['users']
        """
        return await self._threads.run(self._store.collections)

    async def head(self) -> Head:
        """Return the newest commit. A store without commits has seq 0, and the time when it was made.

        Cost: 1 hop.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> (await store.head()).seq
            0
        """
        return await self._threads.run(self._store.head)

    def snapshot(self) -> AsyncSnapshot:
        """Return the store as the newest commit leaves it, for `async with`.

        Cost: 1 hop, at the beginning of the block.

        Raises:
            StoreClosed: at the beginning of the block: the store was closed.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> async with store.snapshot() as view:
            ...     await store.put("users", 1, "eve")
            ...     print(await view.get("users", 1))
            ada
        """
        return AsyncSnapshot(self._entries.stored, self._threads)

    async def call(self, work: Callable[[Store], R]) -> R:
        """Return what *work* returns of the plain `Store`, in a thread: for everything that has no method here.

        Cancelled, it is waited for.

        Cost: 1 hop, and what *work* costs.

        Args:
            work: a plain function of the Store. It must not return what reads the store later: no iterator and no
                snapshot.

        Raises:
            InvalidOption: *work* is a coroutine function.
            Exception: what *work* raised.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> report = await store.call(lambda store: store.backup("app.backup"))
            >>> report.head.seq
            1
        """
        check_plain(work)
        return await self._threads.run(lambda: work(self._store), whole=True)

    @overload
    def watch(self, after: int | None = None, timeout: float | None = None) -> AsyncWatch: ...
    @overload
    def watch(
        self,
        after: int | None = None,
        timeout: float | None = None,
        *,
        changes: Literal[True],
        collection: str | None = None,
        prefix: Bound | None = None,
        key: Any = None,
    ) -> AsyncWatchedChanges: ...
    def watch(
        self,
        after: int | None = None,
        timeout: float | None = None,
        *,
        changes: bool = False,
        collection: str | None = None,
        prefix: Bound | None = None,
        key: Any = None,
    ) -> AsyncWatch | AsyncWatchedChanges:
        """Return the commits after number *after*, each once and in order, as they come, for `async for`.

        It ends when the store is closed. Commits of this handle arrive at once, those of others within 20 ms.

        Cost: 1 hop for each look, every 20 ms, for all watchers of a store together; 1 for each commit with *changes*.

        Args:
            after: number of a commit; None for the newest when the loop begins.
            timeout: seconds without a commit after which it ends; 0 ends it once it has caught up, None never does.
            changes: give pairs of a commit and the list of its changes.
            collection: with *changes*: name of the only collection wanted. Commits without such changes are left out.
            prefix: with *changes*: only the keys that begin with it, likewise.
            key: with *changes*: type of the keys, as for collection().

        Raises:
            InvalidOption: *after* is not a number from 0 to 2^63-1, *timeout* not a number of seconds; or *collection*
                or *prefix* is given without *changes*; or *key* is no type of keys.
            InvalidName, InvalidKey: no entry can be in the collection, or have a key with the prefix.

        Examples:
            >>> for lang in "fr", "de":
            ...     await store.put("settings", "lang", lang)
            >>> [head.seq async for head in store.watch(after=0, timeout=0)]
            [1, 2]
        """
        wanted = check_watch(after, timeout, Wanted(collection, prefix, key=key), changes=changes)
        heads = AsyncWatch(self._store, self._loop, self._threads, after, timeout)
        if wanted is None:
            return heads

        def of(head: Head) -> Iterator[Change]:
            return self._store.changes(head.seq - 1, upto=head.seq, collection=collection, prefix=prefix, key=key)

        return AsyncWatchedChanges(heads, self._threads, of, wanted)

    # Writing.

    async def put(self, collection: str, key: Key, value: Any) -> None:
        """Put an entry, durably.

        Cost: a share of a commit.

        Args:
            collection: name of the collection, 1 to 255 bytes of text.
            key: int from -2^63 to 2^63-1, or str or bytes of 1 to 1,048,576 bytes.
            value: bytes, or what JSON carries exactly, up to 268,435,456 bytes as stored.

        Raises:
            InvalidName, InvalidKey, InvalidValue: the entry cannot be stored exactly.
            StoreError: what run() raises.

        Examples:
            >>> await store.put("users", 1, {"name": "ada"})
            >>> await store.get("users", 1)
            {'name': 'ada'}
        """
        await self[collection].put(key, value)

    async def delete(self, collection: str, key: Key) -> bool:
        """Delete an entry, durably, and return True if there was one.

        Cost: a share of a commit.

        Args:
            collection: name of the collection.
            key: int, str or bytes.

        Raises:
            InvalidName, InvalidKey: no entry can have this name.
            StoreError: what run() raises.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> await store.delete("users", 1), await store.delete("users", 1)
            (True, False)
        """
        return await self[collection].delete(key)

    def submit(self, work: Callable[[Transaction], R], note: str = "") -> Ticket[R]:
        """Queue *work*, and return a ticket at once.

        The call is not awaited. Await the ticket for the result, or barrier() for all.

        Cost: a share of a commit.

        Args:
            work: a plain function of a `Transaction`, called once in the store's own thread.
            note: text of at most 4,096 bytes for the log.

        Raises:
            StoreClosed, ReadOnly: the store takes no writes.
            InvalidOption: *work* is a coroutine function, or *note* is too long.

        Examples:
            >>> ticket = store.submit(lambda txn: txn.put("users", 1, "ada"))
            >>> await ticket
            >>> ticket.head.seq
            1
        """
        self._loop.check()
        check_plain(work)
        write = Submitted(on_face(work), check_note(note), self._loop)
        self._entries.stored.enqueue(write)
        return Ticket(write)

    async def barrier(self) -> Head:
        """Wait until everything that was submitted before is done, and return the newest commit.

        Cost: 1 hop.

        Raises:
            StoreClosed: the store was closed.
            Busy, CommitOutcomeUnknown: what it waited for failed like this.

        Examples:
            >>> tickets = [store.submit(lambda txn, n=n: txn.put("numbers", n, n)) for n in range(10)]
            >>> (await store.barrier()).count
            10
        """
        return await self._threads.run(self._store.barrier)

    async def close(self) -> None:
        """Wait for what was submitted, and close the store. Closing twice does nothing; cancelled, it is waited for.

        Cost: as `Store.close()`.

        Raises:
            Busy: what was submitted was not done within the timeout. The store stays open.
            StoreFull, StoreIOError: as `Store.close()`: the store is closed.

        Examples:
            >>> await store.close()
            >>> store
            <sqlstate.aio.AsyncStore '...app.db': closed>
        """
        self._loop.check()
        if self._threads.ended:
            return
        busy: list[Busy] = []

        def close() -> None:
            try:
                self._store.close()
            except Busy as e:
                busy.append(e)
                raise

        self._threads.ending = True
        try:
            await self._threads.run(close, whole=True)
        finally:
            if busy:
                self._threads.ending = False
            else:
                self._threads.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not GeneratorExit:  # as for Opening
            await self.close()

    def __repr__(self) -> str:
        return f"<sqlstate.aio.AsyncStore {self._entries.stored.path!r}: {self._entries.condition}>"
