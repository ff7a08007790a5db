"""The asynchronous face: open a store in an event loop, read and write it from tasks."""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

from sqlstate.aio.collection import AsyncCollection, Entries
from sqlstate.aio.event_loop import running_loop
from sqlstate.aio.scan import StoredRows
from sqlstate.aio.snapshot import AsyncSnapshot
from sqlstate.aio.threads import Threads
from sqlstate.aio.transaction import AsyncTransaction, Buffered
from sqlstate.aio.watch import AsyncWatch
from sqlstate.aio.writes import Submitted, Ticket, Write
from sqlstate.errors import Busy, InvalidOption, TransactionEnded
from sqlstate.format.names import check_collection, check_number
from sqlstate.store import opening
from sqlstate.store.access import entries_of
from sqlstate.store.blocks import on_face
from sqlstate.store.collection import codec_for
from sqlstate.store.transaction import check_note
from sqlstate.store.watch import check_timeout

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator
    from pathlib import Path

    from sqlstate.aio.event_loop import Loop
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.recovery.report import Recover, RecoveryReport
    from sqlstate.sqlite.connection import Journal
    from sqlstate.store.collection import V
    from sqlstate.store.opening import Mode
    from sqlstate.store.store import Store, StoreEntries
    from sqlstate.store.transaction import OpenTransaction, Transaction
    from sqlstate.store.upkeep import Stats
    from sqlstate.tables.state import Span

R = TypeVar("R")
T = TypeVar("T")


class Options(TypedDict, total=False):
    """Arguments of open() that are those of sqlstate.open()."""

    group_size: int
    group_wait: float
    journal: Journal
    read_only: bool
    create: bool
    timeout: float
    recover: Recover
    vfs: str | None


def open(  # noqa: A001, the word every Python programmer looks for
    path: str | os.PathLike[str], *, mode: Mode = "group", **options: Unpack[Options]
) -> Opening:
    """Open the store at *path* for tasks: `async with aio.open(path) as store`, or `store = await aio.open(path)`.

    The store belongs to the event loop in which it was opened, of asyncio or of trio.

    Args:
        path: a file in an existing folder.
        mode: `"group"`: writes of many tasks share one commit. `"full"`: each has its own. In both a write is durable
            when it returns.
        options: as for sqlstate.open(), with the same defaults.

    Raises:
        StoreError: what sqlstate.open() raises, when it is awaited.
        StoreUnusable: no event loop runs.
    """
    return Opening(path, mode, options)


class Opening:
    """A store that is about to be opened: await it, or use it in `async with`, once."""

    __slots__ = ("_arguments", "_store")

    def __init__(self, path: str | os.PathLike[str], mode: Mode, options: Options) -> None:
        self._arguments: tuple[str | os.PathLike[str], Mode, Options] | None = (path, mode, options)

    def __await__(self) -> Generator[Any, Any, AsyncStore]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStore:
        self._store = await self._open()
        return self._store

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not GeneratorExit:  # the task is dropped, maybe by the garbage collector: nothing can be awaited
            await self._store.close()

    def __repr__(self) -> str:
        state = "used" if self._arguments is None else f"{str(self._arguments[0])!r}, to be awaited"
        return f"<sqlstate.aio.Opening: {state}>"

    async def _open(self) -> AsyncStore:
        if self._arguments is None:
            raise InvalidOption("the store was opened by this call already; call aio.open() again")
        (path, mode, options), self._arguments = self._arguments, None
        loop = running_loop()
        threads = Threads(loop, str(path))
        opened: list[Store] = []
        try:
            await threads.run(lambda: opened.append(opening.open(path, mode=mode, **options)), whole=True)
        except GeneratorExit:  # as for __aexit__
            raise
        except BaseException:
            try:
                if opened:  # cancelled while it was opened
                    await threads.run(opened[0].close, whole=True)
            finally:
                threads.end()
            raise
        return AsyncStore(opened[0], loop, threads)


class AsyncStore(Entries):
    """One open store, for the tasks of one event loop. Made by `sqlstate.aio.open()`; close it, or use `async with`.

    Reading, one hop to a thread each: get(), contains(), count(), collections(), head(), stats(); `store["users"]`
    and collection() for scans and more; read() for a function that reads one commit. Writing, durable when it
    returns, tasks sharing commits: put(), delete(), run(), transaction(). Without waiting: submit(), barrier().

    Cancelled while it waits, a write that has not begun is withdrawn; one that has begun is waited for. A note on the
    exception says which, and what became of it.
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
        """The file's absolute path."""
        return self._store.path

    @property
    def store_id(self) -> bytes:
        """The 16 random bytes that tell this store from every other."""
        return self._store.store_id

    @property
    def recovery(self) -> RecoveryReport:
        """What was found when this handle was opened, and what was done about it."""
        return self._store.recovery

    # Reading.

    def __getitem__(self, collection: str) -> AsyncCollection[Any]:
        """Return a collection; it exists while it has entries.

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.
        """
        return self.collection(collection)

    def collection(self, name: str, *, type: type[V] | None = None, forbid_unknown: bool = False) -> AsyncCollection[V]:  # noqa: A002, the word users know
        """Return a collection whose values are of *type*; see Store.collection().

        Raises:
            InvalidName: the name cannot be one.
            InvalidOption: the type cannot be stored as JSON; or *forbid_unknown* without a type.
        """
        return AsyncCollection(self._entries, check_collection(name), codec_for(type, forbid_unknown=forbid_unknown))

    async def collections(self) -> list[str]:
        """Return the names of all collections that have entries, in order."""
        return await self._threads.run(self._store.collections)

    async def head(self) -> Head:
        """Return the newest commit: its number, root, count of entries, time, and the chain's digest."""
        return await self._threads.run(self._store.head)

    async def stats(self) -> Stats:
        """Return sizes and settings. Counts the records of the log and the nodes of the tree one by one."""
        return await self._threads.run(self._store.stats)

    def snapshot(self) -> AsyncSnapshot:
        """Return the store as the newest commit leaves it, for `async with`."""
        return AsyncSnapshot(self._entries.stored, self._threads)

    async def call(self, work: Callable[[Store], R]) -> R:
        """Return what *work* returns of the Store, in a thread: for all that has no method here.

        Such as `await store.call(lambda s: s.backup("copy.db"))`. Cancelled, it is waited for.

        Args:
            work: a plain function. What it returns must not read the store later: no iterator, snapshot or scan.
        """
        _check_plain(work)
        return await self._threads.run(lambda: work(self._store), whole=True)

    def watch(self, after: int | None = None, timeout: float | None = None) -> AsyncWatch:
        """Return the commits after number *after*, in order, each once, as they come, for `async for`.

        It ends when the store is closed. Those of this handle are seen at once, others' within 20 ms.

        Args:
            after: a commit's number; None for the newest there is when the loop begins.
            timeout: seconds without a commit when it ends; 0 ends it once it has caught up.

        Raises:
            InvalidOption: *after* is not a number from 0 to 2^63-1, or *timeout* not a number of seconds.
        """
        if after is not None:
            check_number("after", after)
        if timeout is not None:
            check_timeout(timeout)
        return AsyncWatch(self._store, self._loop, self._threads, after, timeout)

    # Writing.

    async def put(self, collection: str, key: Key, value: Any) -> None:
        """Put an entry.

        Raises:
            InvalidName, InvalidKey, InvalidValue: it cannot be stored exactly.
            Busy: another writer held the lock for the whole timeout.
        """
        await self[collection].put(key, value)

    async def delete(self, collection: str, key: Key) -> bool:
        """Delete an entry, and tell whether there was one."""
        return await self[collection].delete(key)

    async def run(self, work: Callable[[Transaction], R], note: str = "") -> R:
        """Return what *work* returns of a transaction of its own, once that is durable. An exception undoes it all.

        Args:
            work: a plain function. It runs once, in the store's thread, in its turn; keep it short, others wait.
            note: text of at most 4,096 bytes for the log.

        Raises:
            Busy, StoreFull, Damaged: nothing was changed.
            CommitOutcomeUnknown: an error at COMMIT; open the store again to see.
            ReadOnly: the store was opened with read_only=True.
            InvalidOption: *work* is a coroutine function, or *note* too long.
            Exception: what *work* raised; nothing was changed.
        """
        _check_plain(work)
        write = await self._entries.write(on_face(work), check_note(note))
        result: R = write.result
        return result

    def submit(self, work: Callable[[Transaction], R], note: str = "") -> Ticket[R]:
        """Have *work* run in its turn, and return at once. Await the ticket for the result, or barrier() for all.

        Raises:
            StoreClosed, ReadOnly: the store takes no writes.
            InvalidOption: *work* is a coroutine function, or *note* too long.
        """
        self._loop.check()
        _check_plain(work)
        write = Submitted(on_face(work), check_note(note), self._loop)
        self._entries.stored.enqueue(write)
        return Ticket(write)

    async def barrier(self) -> Head:
        """Wait until all that was submitted before is done; return the newest durable commit."""
        return await self._threads.run(self._store.barrier)

    def transaction(self, note: str = "") -> AsyncTransaction:
        """Return a transaction, for `async with`: it reads one commit, and keeps its writes until the block ends.

        Args:
            note: text of at most 4,096 bytes for the log.

        Raises:
            Conflict: at the end of the block: something that it read was changed since. Nothing was written.
            StoreError: as run(), at the end of the block.
        """
        return AsyncTransaction(Buffered(self._entries.stored, self._threads, self._entries.carry, note))

    async def close(self) -> None:
        """Close the store, after what was submitted. Twice does nothing; cancelled, it is waited for.

        Raises:
            Busy: what was submitted was not done within the timeout; the store is still open.
            StoreIOError: SQLite's WAL could not be moved into the file. Nothing is lost: the next open recovers.
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
        state = "closed" if self._threads.ended else "open"
        return f"<sqlstate.aio.AsyncStore {str(self.path)!r}: {state}>"


class AsyncStoreEntries:
    """What an AsyncStore is the face of where it comes to entries: the store's own, each in a thread or in a write."""

    __slots__ = ("_loop", "_path", "_threads", "stored")

    stored: StoreEntries
    """Those of the Store."""

    def __init__(self, store: Store, loop: Loop, threads: Threads) -> None:
        self.stored = entries_of(store)
        self._path = store.path
        self._loop = loop
        self._threads = threads

    async def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        return await self._threads.run(partial(self.stored.get_stored, name))

    async def has_stored(self, name: Name) -> bool:
        """Tell whether there is an entry."""
        return await self.get_stored(name) is not None

    async def count_names(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        return await self._threads.run(partial(self.stored.count, start, stop))

    def rows(self, span: Span, *, values: bool) -> StoredRows:
        """Return the rows of a scan."""
        return StoredRows(
            self._threads, lambda: self.stored.scan(span, values=values), self._check_open, self.stored.reclaim
        )

    async def change(self, work: Callable[[OpenTransaction], R]) -> R:
        """Return what *work* returns of a transaction of its own, once it is durable."""
        result: R = (await self.write(work, "")).result
        return result

    def _check_open(self) -> None:
        if self._threads.ended:
            raise TransactionEnded(f"{self._path}: the scan has ended: the store was closed")

    async def carry(self, work: Callable[[OpenTransaction], None], note: str) -> Head | None:
        """Have *work* done in a transaction of its own; return the commit, None if it changed nothing."""
        return (await self.write(work, note)).head

    async def write(self, work: Callable[[OpenTransaction], Any], note: str) -> Write:
        """Have *work* done in a transaction of its own, and return that once it is durable."""
        self._loop.check()
        write = Write(work, note, self._loop)
        try:
            self.stored.enqueue(write)
            await self._loop.wait(write)
        except BaseException:
            if not write.settled:
                write.withdraw()
            raise
        try:
            if write.error is not None:
                raise write.error
            return write
        finally:
            del write  # its error's traceback leads here


def _check_plain(work: Callable[..., object]) -> None:
    if iscoroutinefunction(work):
        raise InvalidOption(
            f"{work!r} is a coroutine function, and the store's thread can await nothing; give a plain function, or "
            "use transaction()"
        )
