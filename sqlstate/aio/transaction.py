"""Transactions of tasks.

A transaction of a task must not hold SQLite's writer over an `await`. So it keeps what it writes, reads one commit,
and remembers what it read. At its end the store's writer compares all that with what is there by then, and only if
nothing of it has changed it writes, all in one function: the transaction is as if it had run at that moment, alone.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, cast, overload

import anyio

from sqlstate.aio.buffered import Buffered
from sqlstate.aio.collection import BufferedCollection
from sqlstate.aio.view import Entries
from sqlstate.commit.requests import pause
from sqlstate.errors import InvalidOption
from sqlstate.format.names import check_collection
from sqlstate.format.values import codec_for
from sqlstate.store.blocks import RETRIED, attempts_of, check_retries, on_face
from sqlstate.store.transaction import check_note

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sqlstate.aio.entries import AsyncStoreEntries
    from sqlstate.aio.threads import Threads
    from sqlstate.format.names import Key
    from sqlstate.format.records import Head
    from sqlstate.store.transaction import Transaction
    from sqlstate.store.view import K, V

R = TypeVar("R")
T = TypeVar("T")


class AsyncTransaction(Entries):
    """Puts and deletes that take effect together or not at all, for `async with`. Made by `store.transaction()`.

    It holds no lock. put(), delete() and expect() are not awaited: their writes are kept until the block ends. Reading
    is awaited, and sees one commit, the newest when the block first reads, and the transaction's own writes.

    The end of the block compares everything that was read with what is there by then, and writes: in one function of
    the store's own thread, so transactions are serializable. If something has changed, it raises Conflict, and nothing
    was written. Compared are values, presence, counts, and the rows taken from scans, but nothing that the transaction
    wrote itself. A block that only reads ends without a comparison. An exception in the block drops everything.

    Examples:
        >>> async with store.transaction(note="pay") as txn:
        ...     cents = await txn.get("accounts", "ann", 100)
        ...     txn.put("accounts", "ann", cents - 5)
        >>> txn.head.seq, await store.get("accounts", "ann")
        (1, 95)
    """

    __slots__ = ("_entries",)

    _entries: Buffered

    def __init__(self, entries: Buffered) -> None:
        self._entries = entries

    @property
    def head(self) -> Head | None:
        """The commit that carries it, after the block; None before, and if it changed nothing."""
        return self._entries.head

    # Writing.

    def put(self, collection: str, key: Key, value: Any) -> None:
        """Put an entry when the block ends. It is not awaited.

        Cost: none.

        Args:
            collection: name of the collection, 1 to 255 bytes of text.
            key: int from -2^63 to 2^63-1, or str or bytes of 1 to 1,048,576 bytes.
            value: bytes, or what JSON carries exactly, up to 268,435,456 bytes as stored.

        Raises:
            InvalidName, InvalidKey, InvalidValue: the entry cannot be stored exactly; the transaction goes on without
                it.
            TransactionEnded: the block has ended, or has not begun.

        Examples:
            >>> async with store.transaction() as txn:
            ...     txn.put("users", 1, "ada")
        """
        self[collection].put(key, value)

    def delete(self, collection: str, key: Key) -> None:
        """Delete an entry, if there is one, when the block ends. It is not awaited.

        Cost: none.

        Args:
            collection: name of the collection.
            key: int, str or bytes.

        Raises:
            InvalidName, InvalidKey: no entry can have this name.
            TransactionEnded: the block has ended, or has not begun.

        Examples:
            >>> async with store.transaction() as txn:
            ...     txn.delete("users", 1)
        """
        self[collection].delete(key)

    def expect(self, collection: str, key: Key, value: Any) -> None:
        """Let the transaction take effect only if the entry has this value. It is not awaited.

        What the transaction wrote or read is compared at once, everything else when the block ends. Values are
        compared as they are stored, so 1 and 1.0 differ.

        Cost: none.

        Args:
            collection: name of the collection.
            key: int, str or bytes.
            value: the value expected; `sqlstate.ABSENT` for no entry.

        Raises:
            Conflict: the entry has another value; here, or at the end of the block.
            InvalidName, InvalidKey, InvalidValue: no entry can be like this.
            TransactionEnded: the block has ended, or has not begun.

        Examples:
            >>> async with store.transaction() as txn:
            ...     txn.expect("users", 1, sqlstate.ABSENT)
            ...     txn.put("users", 1, "ada")
        """
        self._entries.expect(collection, key, value)

    # Reading.

    def __getitem__(self, collection: str) -> BufferedCollection[Any]:
        """Return a collection as this transaction sees it."""
        return self.collection(collection)

    def collection(
        self,
        name: str,
        *,
        type: type[V] | None = None,  # noqa: A002, the word users know
        key: type[K] | None = None,
        forbid_unknown: bool = False,
    ) -> BufferedCollection[V, K]:
        """Return a collection as this transaction sees it, whose values are of *type*.

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
            >>> async with store.transaction() as txn:
            ...     txn.collection("ages", type=int).put("ada", 36)
        """
        codec = codec_for(type, key, forbid_unknown=forbid_unknown)
        return BufferedCollection(self._entries, check_collection(name), codec)

    async def collections(self) -> list[str]:
        """Return the names of all collections that have entries, as this transaction sees them.

        Cost: 1 hop.

        Raises:
            TransactionEnded: the block has ended, or has not begun.

        Examples:
            >>> async with store.transaction() as txn:
            ...     txn.put("users", 1, "ada")
            ...     print(await txn.collections())
            ['users']
        """
        return await self._entries.collections()

    # The block.

    async def __aenter__(self) -> Self:
        self._entries.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._entries.end(kind)

    def __repr__(self) -> str:
        return repr(self._entries)


class AsyncAttempts:
    """Attempts at a transaction, for `async for`. Made by `store.transaction(retries=)`.

    Each turn of the loop gives one, for `async with`. If Busy or Conflict ends the block and attempts are left, the
    exception goes no further and the loop goes on. A block that ends in any other way ends the loop.

    Examples:
        >>> async for attempt in store.transaction(retries=3):
        ...     async with attempt as txn:
        ...         txn.put("counters", "visits", await txn.get("counters", "visits", 0) + 1)
        >>> await store.get("counters", "visits")
        1
    """

    __slots__ = ("_attempt", "_begun", "_failures", "_retries")

    def __init__(self, begun: Callable[[], Buffered], retries: int) -> None:
        self._begun = begun
        self._retries = check_retries(retries)
        self._failures = 0
        self._attempt: _Attempt | None = None

    def __aiter__(self) -> AsyncAttempts:
        """Begin anew: each loop has all its attempts."""
        return AsyncAttempts(self._begun, self._retries)

    async def __anext__(self) -> _Attempt:
        """Return the next attempt.

        Raises:
            StopAsyncIteration: the one before ended well.
        """
        if self._attempt is not None:
            if not self._attempt.failed:
                raise StopAsyncIteration
            self._failures += 1
            await anyio.sleep(pause(self._failures))
        self._attempt = _Attempt(self._begun(), last=self._failures == self._retries)
        return self._attempt

    async def __aenter__(self) -> NoReturn:
        raise attempts_of(self._retries, "async ")

    async def __aexit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return f"<sqlstate.aio.AsyncAttempts at a transaction: {self._retries + 1:,}>"


class _Attempt(AsyncTransaction):
    """One attempt at a transaction."""

    __slots__ = ("_last", "failed")

    def __init__(self, entries: Buffered, *, last: bool) -> None:
        super().__init__(entries)
        self._last = last
        self.failed = False

    async def __aexit__(  # type: ignore[override]  # a plain one lets each exception go on
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            await super().__aexit__(kind, error, traceback)
        except RETRIED:
            self.failed = not self._last
            if not self.failed:
                raise
        else:
            self.failed = not self._last and kind is not None and issubclass(kind, RETRIED)
        return self.failed


class Transactions:
    """The transactions of an AsyncStore."""

    __slots__ = ()

    _entries: AsyncStoreEntries
    _threads: Threads

    async def run(self, work: Callable[[Transaction], R], note: str = "", *, retries: int = 0) -> R:
        """Return what *work* returns of a transaction of its own, once that is durable. An exception undoes everything.

        Cost: a share of a commit.

        Args:
            work: a plain function of a `Transaction`, called once in the store's own thread. Keep it short: others
                wait.
            note: text of at most 4,096 bytes for the log.
            retries: how many times it is called again after Busy or Conflict, each time in a new transaction and after
                a pause of some milliseconds.

        Raises:
            Busy, StoreFull, StoreIOError, Damaged: nothing was changed.
            CommitOutcomeUnknown: an error at COMMIT. Open the store again, and ask `Store.committed()`.
            ReadOnly: the store was opened with read_only=True.
            InvalidOption: *work* is a coroutine function, *note* is too long, or *retries* is no number.
            Exception: what *work* raised; nothing was changed.

        Examples:
            >>> def visit(txn):
            ...     txn.put("counters", "visits", txn.get("counters", "visits", 0) + 1)
            ...     return txn.get("counters", "visits")
            >>> await store.run(visit), await store.run(visit)
            (1, 2)
        """
        check_plain(work)
        check_note(note)
        for failures in range(1, check_retries(retries) + 1):
            try:
                return cast("R", (await self._entries.write(on_face(work), note)).result)
            except RETRIED:
                await anyio.sleep(pause(failures))
        return cast("R", (await self._entries.write(on_face(work), note)).result)

    @overload
    def transaction(self, note: str = "") -> AsyncTransaction: ...
    @overload
    def transaction(self, note: str = "", *, retries: int) -> AsyncAttempts: ...
    def transaction(self, note: str = "", *, retries: int | None = None) -> AsyncTransaction | AsyncAttempts:
        """Return a transaction, for `async with`: it reads one commit, and keeps its writes until the block ends.

        With *retries* it gives attempts, for `async for` with the block inside: after Busy or Conflict the block runs
        again, after a pause of some milliseconds, and sees what there is by then.

        Cost: a share of a commit; none if it only reads.

        Args:
            note: text of at most 4,096 bytes for the log.
            retries: how many more attempts there are after the first.

        Raises:
            InvalidOption: the note is too long, or *retries* is no number.
            Conflict: at the end of the block: something that it read was changed since. Nothing was written.
            StoreError: at the end of the block: what run() raises.

        Examples:
            >>> async with store.transaction() as txn:
            ...     txn.put("counters", "visits", await txn.get("counters", "visits", 0) + 1)
            >>> async for attempt in store.transaction(retries=5):
            ...     async with attempt as txn:
            ...         txn.put("counters", "visits", await txn.get("counters", "visits") + 1)
            >>> await store.get("counters", "visits")
            2
        """

        def begun() -> Buffered:
            return Buffered(self._entries.stored, self._threads, self._entries.carry, note)

        check_note(note)
        return AsyncTransaction(begun()) if retries is None else AsyncAttempts(begun, retries)


def check_plain(work: Callable[..., object]) -> None:
    """Raise InvalidOption if *work* is a coroutine function."""
    if iscoroutinefunction(work):
        raise InvalidOption(
            f"{work!r} is a coroutine function, and the store's thread can await nothing; give a plain function, or "
            "use transaction()"
        )
