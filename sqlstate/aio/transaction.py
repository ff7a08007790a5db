"""Transactions of tasks.

A transaction of a task must not hold SQLite's writer over an `await`. So it keeps what it writes, reads one commit,
and remembers what it read. At its end the store's writer compares all that with what is there by then, and only if
nothing of it has changed it writes, all in one function: the transaction is as if it had run at that moment, alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlstate.aio.collection import BufferedCollection
from sqlstate.aio.view import Entries
from sqlstate.format.names import check_collection
from sqlstate.format.values import codec_for

if TYPE_CHECKING:
    from types import TracebackType

    from sqlstate.aio.buffered import Buffered
    from sqlstate.format.names import Key
    from sqlstate.format.records import Head
    from sqlstate.store.view import K, V

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
