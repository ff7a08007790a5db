"""The entries of an asynchronous store: those of the store, each read in a thread or written in its turn."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlstate.aio.scan import AsyncIterated, StoredRows
from sqlstate.aio.writes import SingleWrite, Write
from sqlstate.errors import TransactionEnded
from sqlstate.store.access import as_stored, entries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from sqlstate.aio.event_loop import Loop
    from sqlstate.aio.threads import Threads
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.store.entries import StoreEntries
    from sqlstate.store.open_transaction import OpenTransaction
    from sqlstate.store.store import Store
    from sqlstate.tables.state import Span


R = TypeVar("R")
W = TypeVar("W", SingleWrite, Write)


class AsyncStoreEntries:
    """The entries behind an AsyncStore: those of the store, each read in a thread or changed by a write."""

    __slots__ = ("_loop", "_path", "_threads", "stored")

    stored: StoreEntries
    """Those of the Store."""

    def __init__(self, store: Store, loop: Loop, threads: Threads) -> None:
        self.stored = entries_of(store)
        self._path = self.stored.path
        self._loop = loop
        self._threads = threads

    @property
    def condition(self) -> str:
        """Whether the store can be used, in a word, for a repr."""
        return "closed" if self._threads.ended else "open"

    def iterated(self, begin: Callable[[StoreEntries], Iterator[R]]) -> AsyncIterated[R]:
        """Return what *begin* yields, read in a thread, some at a time."""
        return AsyncIterated(self._threads, lambda: begin(self.stored))

    async def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        return await self._threads.run(partial(self.stored.get_stored, name))

    async def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None, all of one moment."""
        return await self._threads.run(partial(self.stored.get_many_stored, names))

    async def has_stored(self, name: Name) -> bool:
        """Return True if there is an entry."""
        return await self.get_stored(name) is not None

    async def count_names(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        return await self._threads.run(partial(self.stored.count, start, stop))

    def rows(self, span: Span, *, values: bool) -> StoredRows:
        """Return the rows of a scan."""
        return StoredRows(
            self._threads,
            lambda: self.stored.scan(span, as_stored, values=values),
            self._check_open,
            self.stored.reclaim,
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

    def change_one(self, name: Name, stored: Stored | None) -> Coroutine[Any, Any, SingleWrite]:
        """Put an entry, or delete it where *stored* is None, in a transaction of its own, durably."""
        return self._done(SingleWrite, name, stored)

    def write(self, work: Callable[[OpenTransaction], Any], note: str) -> Coroutine[Any, Any, Write]:
        """Have *work* done in a transaction of its own, and return that once it is durable."""
        return self._done(Write, work, note)

    async def _done(self, kind: Callable[..., W], *what: Any) -> W:
        """Return the write that *kind* makes, once it is durable, or raise its error."""
        loop = self._loop
        loop.check()
        turn = loop.turn()
        write = None
        here = True
        try:
            if not turn.settled:
                await loop.wait(turn)
            write = kind(*what, loop)
            self.stored.enqueue(write)
            await loop.wait(write)
        except BaseException as e:
            if write is not None and not write.settled:
                write.withdraw()
            here = not isinstance(e, GeneratorExit)  # then the task is dropped, maybe by the garbage collector
            raise
        finally:
            loop.leave(turn, here=here)
        try:
            if write.error is not None:
                raise write.error
            return write
        finally:
            del write  # its error's traceback leads here
