"""What commits changed, and how the store was, for tasks."""

from __future__ import annotations

import threading
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from sqlstate.aio.snapshot import AsyncSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlstate.aio.entries import AsyncStoreEntries
    from sqlstate.aio.threads import Threads
    from sqlstate.format.records import Head
    from sqlstate.store.past.change import Change
    from sqlstate.store.store import Store

T = TypeVar("T")

# What an iterator yields is fetched in as many pieces at a time.
AT_ONCE = 256


class AsyncIterated(Generic[T]):
    """What an iterator of the plain store yields, for `async for`, some at a time, one hop to a thread for each.

    Between two hops the iterator holds nothing of the store. A step that is cancelled loses nothing.

    Examples:
        >>> await store.put("users", 1, "ada")
        >>> [(change.key, change.value) async for change in store.changes()]
        [(1, 'ada')]
    """

    __slots__ = ("_begin", "_ended", "_error", "_found", "_source", "_taking", "_threads")

    def __init__(self, threads: Threads, begin: Callable[[], Iterator[T]]) -> None:
        self._threads = threads
        self._begin = begin
        self._source: Iterator[T] | None = None
        self._found: list[T] = []  # in reverse
        self._error: BaseException | None = None  # comes after what was found
        self._ended = False
        self._taking = threading.Lock()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next piece.

        Raises:
            StopAsyncIteration: there are no more.
            StoreError: what the method that made it says.
        """
        while not self._found:
            if self._ended and not self._found:
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            await self._threads.run(self._take)
        return self._found.pop()

    def _take(self) -> None:
        with self._taking:  # a step that was cancelled may still be at it
            if self._found or self._ended:
                return
            found: list[T] = []
            try:
                self._source = self._source or self._begin()
                found += islice(self._source, AT_ONCE)
            except BaseException as e:  # noqa: BLE001, it is raised in the task, when its turn comes
                self._error = e
            # The task may look at any time: what was found comes first.
            self._found = found[::-1]
            self._ended = len(found) < AT_ONCE

    def __repr__(self) -> str:
        return f"<sqlstate.aio.AsyncIterated: {'ended' if self._ended else 'open'}>"


class AsyncPast:
    """What an AsyncStore knows of its past."""

    __slots__ = ()

    _entries: AsyncStoreEntries
    _store: Store
    _threads: Threads

    def changes(
        self,
        after: int = 0,
        *,
        upto: int | None = None,
        collection: str | None = None,
        prefix: str | bytes | None = None,
        type: Any = None,  # noqa: A002, the word users know
    ) -> AsyncIterated[Change]:
        """Return what the commits after number *after* changed, for `async for`, as `Store.changes()` does.

        Cost: 1 hop for each 256 changes.

        Args:
            after: number of a commit, 0 for all there are.
            upto: number of the last commit wanted; None for the newest at the first step.
            collection: name of the only collection wanted; None for all.
            prefix: only the text keys, or bytes keys, that begin with it.
            type: of the values, as for collection(); None for values without a type.

        Raises:
            StoreError: at the first step, what `Store.changes()` raises.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> [(change.key, change.before, change.value) async for change in store.changes()]
            [(1, ABSENT, 'ada')]
        """
        return AsyncIterated(
            self._threads,
            lambda: self._store.changes(after, upto=upto, collection=collection, prefix=prefix, type=type),
        )

    def at(self, when: int | datetime) -> AsyncSnapshot:
        """Return the store as an earlier commit left it, for `async with`, as `Store.at()` does.

        Cost: 1 hop, at the beginning of the block, which reads the records since that commit.

        Args:
            when: number of a commit, or a datetime with a time zone.

        Raises:
            InvalidOption: at the beginning of the block: there is no such commit, or the time has no time zone.
            StoreClosed: at the beginning of the block: the store was closed.

        Examples:
            >>> for lang in "fr", "de":
            ...     await store.put("settings", "lang", lang)
            >>> async with store.at(1) as past:
            ...     print(await past.get("settings", "lang"))
            fr
        """
        return AsyncSnapshot(self._entries.stored, self._threads, when)

    async def undo(self, seq: int, note: str = "") -> Head:
        """Take back what commit *seq* changed, in one new commit, and return that, as `Store.undo()` does.

        Cost: 1 hop and 1 commit. Cancelled, it is waited for.

        Args:
            seq: number of a commit.
            note: text of at most 4,096 bytes for the log; "" for "undo of commit" and its number.

        Raises:
            Conflict: entries are not as the commit left them, because of later ones. Nothing was changed.
            StoreError: what `Store.undo()` raises.

        Examples:
            >>> for lang in "fr", "de":
            ...     await store.put("settings", "lang", lang)
            >>> (await store.undo(2)).seq, await store.get("settings", "lang")
            (3, 'fr')
        """
        return await self._threads.run(lambda: self._store.undo(seq, note), whole=True)

    async def revert(self, to: int | datetime, note: str = "") -> Head:
        """Make the state equal to what commit *to* left, in one new commit, and return that, as `Store.revert()` does.

        Cost: 1 hop and 1 commit. Cancelled, it is waited for.

        Args:
            to: a commit, as for at().
            note: text of at most 4,096 bytes for the log; "" for "revert to commit" and its number.

        Raises:
            StoreError: what `Store.revert()` raises.

        Examples:
            >>> for lang in "fr", "de":
            ...     await store.put("settings", "lang", lang)
            >>> (await store.revert(0)).count
            0
        """
        return await self._threads.run(lambda: self._store.revert(to, note), whole=True)
