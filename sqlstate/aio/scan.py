"""Scans: `async for` over entries and changes, read in chunks, one hop to a thread for each."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, NoReturn, Protocol, Self, TypeVar

from sqlstate.errors import StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.aio.threads import Threads
    from sqlstate.format.names import Key, Stored

R = TypeVar("R")
T = TypeVar("T")
Row = tuple["Key", "Stored"]
Lock = AbstractContextManager[object]

# Rows of the first chunk and of the largest; a chunk is also full at BYTES_MAX.
ROWS_FIRST: Final = 1000
ROWS_MAX: Final = 8000
BYTES_MAX: Final = 1 << 20


class Progress(NamedTuple):
    """How far a scan got."""

    passed: int
    """Rows that were taken from it."""
    ended: bool
    """Whether it came to its end, and not only to its limit."""


class Rows(Protocol):
    """Where a scan gets its rows."""

    async def chunk(self, most: int, *, final: bool) -> tuple[list[Row], bool]:
        """Return the next rows, and whether there are no more behind them.

        Args:
            most: how many to read, roughly.
            final: with this many, no more are wanted: nothing need be held for the next.
        """

    def begun(self, progress: Callable[[], Progress]) -> None:
        """Keep *progress*, which returns how far the scan that takes the rows got."""

    def check_open(self) -> None:
        """Raise TransactionEnded if the transaction, snapshot or store that is read has ended."""

    def drop(self) -> None:
        """Release what is held, soon, without waiting. Twice does nothing."""

    async def aclose(self) -> None:
        """Release what is held."""


class StoredRows:
    """Rows of one committed state, chunk by chunk.

    One thread reads them at a time. Dropping them drops an iterator and its lease, which the next reader of the store
    takes back: the garbage collector runs nothing here.

    Args:
        threads: of the store.
        begin: returns the iterator; called in a thread, when the first row is wanted.
        check_open: raises if what is read has ended.
        reclaim: takes back at once what was dropped; called in a thread.
        lock: held while it is read, by all that share its connection.
    """

    __slots__ = ("_begin", "_begun", "_check_open", "_ended", "_lock", "_reclaim", "_rows", "_threads")

    def __init__(
        self,
        threads: Threads,
        begin: Callable[[], Iterator[Row]],
        check_open: Callable[[], None],
        reclaim: Callable[[], None],
        lock: Lock | None = None,
    ) -> None:
        self._threads = threads
        self._begin = begin
        self._check_open = check_open
        self._reclaim = reclaim
        self._lock = lock or threading.RLock()
        self._rows: Iterator[Row] | None = None
        self._begun = False
        self._ended = False

    async def chunk(self, most: int, *, final: bool) -> tuple[list[Row], bool]:
        """Return the next rows, at most *most*, and whether there are no more behind them."""
        return await self._threads.run(lambda: self._step(most, final=final))

    def begun(self, progress: Callable[[], Progress]) -> None:
        """Nothing depends on how far it gets."""

    def check_open(self) -> None:
        """Raise if what is read has ended. A scan that has not begun raises by itself at its first row."""
        if self._begun:
            self._check_open()

    def drop(self) -> None:
        """Release the rows."""
        self._ended = True
        self._rows = None

    async def aclose(self) -> None:
        """Release the rows, and the state that they are read from."""
        held = self._rows is not None
        self.drop()
        if held:
            await self._threads.run(self._reclaim, whole=True)

    def _step(self, most: int, *, final: bool) -> tuple[list[Row], bool]:
        with self._lock:
            if self._ended:
                return [], True
            if self._rows is None:
                self._rows = self._begin()
                self._begun = True
            rows, last = _some(self._rows, most)
            if last or (final and len(rows) >= most):
                self.drop()
                self._reclaim()
        return rows, last


def _some(source: Iterator[Row], most: int) -> tuple[list[Row], bool]:
    """Return the next rows, at most *most* or BYTES_MAX bytes, and whether the source has ended."""
    rows: list[Row] = []
    size = 0
    for row in source:
        rows.append(row)
        size += len(row[1])
        if len(rows) >= most or size >= BYTES_MAX:
            return rows, False
    return rows, True


class AsyncScan(Generic[R]):
    """A scan of a collection, for one `async for`. Made by keys(), values() and items().

    All of it sees one committed state, which it holds from its first row until it ends, fails, is closed or cancelled;
    SQLite cannot move its WAL into the file beyond that. Dropped early, it releases the state when the store is used
    next; `contextlib.aclosing(scan)` releases it at once. It ends with its snapshot, transaction or store: the next
    step raises TransactionEnded. Two tasks cannot take rows from one scan at a time.

    Examples:
        >>> await store["users"].update({1: "ada", 2: "bob"})
        >>> async for key, value in store["users"].items():
        ...     print(key, value)
        1 ada
        2 bob
    """

    __slots__ = ("_at", "_busy", "_chunk", "_ended", "_fetched", "_last", "_left", "_make", "_rows", "_source")

    def __init__(self, source: Rows, make: Callable[[Key, Stored], R], limit: int | None) -> None:
        self._source: Rows | None = source
        self._make = make
        self._left = limit
        self._chunk = ROWS_FIRST
        self._rows: list[Row] = []
        self._at = 0
        self._last = False
        self._busy = False
        self._fetched = 0
        self._ended = False
        source.begun(self._progress)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        """Return the next row.

        Raises:
            StopAsyncIteration: there are no more.
            StoreUnusable: another task waits for a row of this scan.
            InvalidValue: the stored document does not fit the collection's type.
        """
        if self._source is not None:
            self._source.check_open()
        if self._at >= len(self._rows):
            await self._fetch()
        key, stored = self._rows[self._at]
        self._at += 1
        try:
            return self._make(key, stored)
        except BaseException:
            self._drop()
            raise

    async def aclose(self) -> None:
        """End the scan, and release the state that it sees.

        Cost: 1 hop if it holds one.

        Raises:
            StoreUnusable: called outside of the store's event loop.

        Examples:
            >>> scan = store["users"].items()
            >>> await scan.aclose()
            >>> scan
            <sqlstate.aio.AsyncScan: ended, 0 rows taken>
        """
        source = self._let_go()
        if source is not None:
            await source.aclose()

    async def _fetch(self) -> None:
        if self._busy:
            raise StoreUnusable("another task waits for the next row of this scan; give each task a scan of its own")
        if self._source is None:
            raise StopAsyncIteration
        if self._last or self._left == 0:
            await self._finish()
        most = self._chunk if self._left is None else min(self._chunk, self._left)
        self._busy = True
        try:
            self._rows, self._last = await self._source.chunk(most, final=most == self._left)
        except BaseException:
            self._drop()
            raise
        finally:
            self._busy = False
        self._at = 0
        self._chunk = min(2 * self._chunk, ROWS_MAX)
        if self._left is not None:
            if len(self._rows) > self._left:
                del self._rows[self._left :]
                self._last = False
            self._left -= len(self._rows)
        self._fetched += len(self._rows)
        if not self._rows:
            await self._finish()

    async def _finish(self) -> NoReturn:
        self._ended = self._last
        await self.aclose()
        raise StopAsyncIteration

    def __repr__(self) -> str:
        rows = self._progress().passed
        state = "ended" if self._source is None else "open"
        return f"<sqlstate.aio.AsyncScan: {state}, {rows:,} row{'' if rows == 1 else 's'} taken>"

    def _progress(self) -> Progress:
        return Progress(self._fetched - len(self._rows) + self._at, self._ended)

    def _drop(self) -> None:
        source = self._let_go()
        if source is not None:
            source.drop()

    def _let_go(self) -> Rows | None:
        source, self._source = self._source, None
        self._fetched = self._progress().passed
        self._rows, self._at = [], 0
        return source


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
