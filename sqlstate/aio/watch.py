"""Follows the commits of a store, and reads what they changed, for `async for`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Self

import anyio

from sqlstate.errors import StoreClosed
from sqlstate.store.access import entries_of
from sqlstate.store.watch import POLL_SECONDS, STAND_BY_SECONDS
from sqlstate.tables.wal import ROWS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.aio.event_loop import Loop
    from sqlstate.aio.threads import Threads
    from sqlstate.format.records import Head
    from sqlstate.store.past.change import Change
    from sqlstate.store.past.changes import Wanted
    from sqlstate.store.store import Store


class AsyncWatch:
    """The commits of a store, as they come. Made by `store.watch()`.

    While it waits, it holds neither a thread nor a commit.

    Examples:
        >>> await store.put("users", 1, "ada")
        >>> [head.count async for head in store.watch(after=0, timeout=0)]
        [1]
    """

    __slots__ = ("_after", "_heads", "_loop", "_store", "_threads", "_timeout")

    def __init__(self, store: Store, loop: Loop, threads: Threads, after: int | None, timeout: float | None) -> None:
        self._store = store
        self._loop = loop
        self._threads = threads
        self._after = after
        self._timeout = timeout
        self._heads: list[Head] = []

    def __repr__(self) -> str:
        state = "ended" if self._threads.ended else "open"
        return f"<sqlstate.aio.AsyncWatch of {entries_of(self._store).path!r}: {state}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Head:
        """Return the next commit.

        Raises:
            StopAsyncIteration: the store was closed, or the timeout has passed.
        """
        if not self._heads:
            self._heads = await self._wait()
            self._heads.reverse()
        if not self._heads:
            raise StopAsyncIteration
        return self._heads.pop()

    async def _wait(self) -> list[Head]:
        since, watchers = anyio.current_time(), self._loop.watchers
        committed = anyio.Event()
        watchers.add(committed)
        try:
            heads = await self._newer()
            while not heads:
                left = STAND_BY_SECONDS if self._timeout is None else since + self._timeout - anyio.current_time()
                if left <= 0:
                    break
                leads = watchers.leads(committed)
                with anyio.move_on_after(min(left, POLL_SECONDS if leads else STAND_BY_SECONDS)):
                    await committed.wait()
                if committed.is_set():
                    watchers.discard(committed)
                    committed = anyio.Event()  # an event of a loop is set once
                    watchers.add(committed)
                    heads = await self._newer()
                elif leads:
                    watchers.seen(await self._threads.run(self._store.head))
        except StoreClosed:
            if self._threads.ending:
                return []
            raise
        else:
            return heads
        finally:
            watchers.leave(committed)

    async def _newer(self) -> list[Head]:
        if self._after is None:
            self._after = (await self._threads.run(self._store.head)).seq
        after = self._after
        heads = self._loop.watchers.known(after) or await self._threads.run(
            lambda: list(islice(self._store.watch(after, timeout=0), ROWS_AT_ONCE))
        )
        if heads:
            self._after = heads[-1].seq
        return heads


class AsyncWatchedChanges:
    """The commits of a store with their changes, as they come. Made by `store.watch(changes=True)`.

    Examples:
        >>> await store.put("users", 1, "ada")
        >>> async for head, changes in store.watch(after=0, timeout=0, changes=True):
        ...     print(head.seq, [(change.key, change.value) for change in changes])
        1 [(1, 'ada')]
    """

    __slots__ = ("_head", "_heads", "_of", "_threads", "_wanted")

    def __init__(
        self, heads: AsyncWatch, threads: Threads, of: Callable[[Head], Iterator[Change]], wanted: Wanted
    ) -> None:
        self._heads = heads
        self._threads = threads
        self._of = of
        self._wanted = wanted
        self._head: Head | None = None  # whose changes are not read yet: a step that is cancelled loses nothing

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Head, list[Change]]:
        """Return the next commit and its changes.

        Raises:
            StopAsyncIteration: the store was closed, or the timeout has passed.
            Damaged: a record of the log is not as it was written.
        """
        while True:
            if self._head is None:
                self._head = await anext(self._heads)
            head = self._head
            changes = await self._threads.run(lambda: list(self._of(head)))  # noqa: B023, it is called in this step
            self._head = None
            if changes or self._wanted.everything:
                return head, changes

    def __repr__(self) -> str:
        return repr(self._heads).replace("AsyncWatch", "AsyncWatchedChanges")
