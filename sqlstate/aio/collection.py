"""Collections as tasks use them: reading is awaited, and so is writing, except inside a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload

import anyio.lowlevel

from sqlstate.aio.view import AsyncCollectionView, AsyncReads
from sqlstate.format.names import stored_name
from sqlstate.store.access import as_stored
from sqlstate.store.collection import check_mapping
from sqlstate.store.view import K
from sqlstate.tables.state import Span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from sqlstate.aio.scan import AsyncIterated
    from sqlstate.aio.writes import SingleWrite
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.values import Codec
    from sqlstate.store.entries import StoreEntries
    from sqlstate.store.open_transaction import OpenTransaction
    from sqlstate.store.past.change import Change

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")


_UNSET: Final[Any] = object()
# So many entries are encoded before other tasks have a turn.
ENCODED_AT_ONCE: Final = 1000


class AsyncWrites(AsyncReads, Protocol):
    """What a collection writes through: a store."""

    def change_one(self, name: Name, stored: Stored | None) -> Awaitable[SingleWrite]:
        """Put an entry, or delete it where *stored* is None, in a transaction of its own, durably."""

    async def change(self, work: Callable[[OpenTransaction], R]) -> R:
        """Return what *work* returns of a transaction of its own, once it is durable."""

    def iterated(self, begin: Callable[[StoreEntries], Iterator[R]]) -> AsyncIterated[R]:
        """Return what *begin* yields, read in a thread, some at a time."""


class Buffer(AsyncReads, Protocol):
    """What a collection of a transaction writes to."""

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry when the transaction ends."""

    def delete_stored(self, name: Name) -> None:
        """Delete an entry when the transaction ends."""


class AsyncCollection(AsyncCollectionView[T, K]):
    """A named, ordered mapping of a store.

    Each writing call is one transaction, durable when it returns; those of many tasks share commits. An exception
    undoes the whole call.

    Examples:
        >>> settings = store["settings"]
        >>> await settings.put("lang", "fr")
        >>> await settings.pop("lang"), await settings.count()
        ('fr', 0)
    """

    __slots__ = ()

    _access: AsyncWrites

    def __init__(self, access: AsyncWrites, name: str, codec: Codec[T]) -> None:
        super().__init__(access, name, codec)

    def history(self, key: K) -> AsyncIterated[Change]:
        """Return the changes of one entry that commits made, newest first, for `async for`.

        Cost: 1 hop for each 256 changes; the first reads the log, without its values, unless there is an index:
        see `Store.index_history()`.

        Args:
            key: int, str or bytes.

        Raises:
            StoreError: at the first step, what `Collection.history()` raises.

        Examples:
            >>> for lang in "fr", "de":
            ...     await store["settings"].put("lang", lang)
            >>> [(change.before, change.value) async for change in store["settings"].history("lang")]
            [('fr', 'de'), (ABSENT, 'fr')]
        """
        return self._access.iterated(lambda entries: self._form.on(entries).history(key))

    async def put(self, key: K, value: T) -> None:
        """Put an entry.

        Cost: a share of a commit.

        Args:
            key: int, str or bytes.
            value: as the collection's type, or what `Collection` stores.

        Raises:
            InvalidKey: the key is not an int, str or bytes within the limits.
            InvalidValue: the value would not read back exactly.
            StoreError: what `AsyncStore.run()` raises.

        Examples:
            >>> await store["users"].put(1, "ada")
        """
        await self._access.change_one(*self._form.encode(key, value))

    async def delete(self, key: K) -> bool:
        """Delete an entry, and return True if there was one.

        Cost: a share of a commit.

        Args:
            key: int, str or bytes.

        Raises:
            InvalidKey: the key is not an int, str or bytes within the limits.
            StoreError: what `AsyncStore.run()` raises.

        Examples:
            >>> await store["users"].delete(1)
            False
        """
        deleted: bool = (await self._access.change_one(self._form.name_of(key), None)).result
        return deleted

    @overload
    async def pop(self, key: K) -> T: ...
    @overload
    async def pop(self, key: K, default: T | D) -> T | D: ...
    async def pop(self, key: K, default: Any = _UNSET) -> Any:
        """Delete the entry of *key* and return its value, or *default* if there is no such entry.

        Cost: a share of a commit.

        Args:
            key: int, str or bytes.
            default: returned as it is; without it, a missing entry raises EntryNotFound.

        Raises:
            EntryNotFound: there is no such entry, and no default.
            StoreError: what `AsyncStore.run()` raises.

        Examples:
            >>> await store["users"].pop(1, None)
        """
        given = () if default is _UNSET else (default,)
        return await self._access.change(lambda txn: self._form.on(txn).pop(key, *given))

    async def popitem(self) -> tuple[K, T]:
        """Delete the entry with the greatest key and return (key, value).

        Cost: a share of a commit.

        Raises:
            EntryNotFound: the collection is empty.
            StoreError: what `AsyncStore.run()` raises.

        Examples:
            >>> await store["users"].update({1: "ada", 2: "bob"})
            >>> await store["users"].popitem()
            (2, 'bob')
        """
        return await self._access.change(lambda txn: self._form.on(txn).popitem())

    async def setdefault(self, key: K, default: T) -> T:
        """Return the value of *key*; put *default* first if there is no such entry.

        Cost: a share of a commit.

        Args:
            key: int, str or bytes.
            default: a value that can be stored.

        Raises:
            InvalidKey, InvalidValue: the entry cannot be stored exactly.
            StoreError: what `AsyncStore.run()` raises.

        Examples:
            >>> await store["settings"].setdefault("lang", "fr"), await store["settings"].setdefault("lang", "de")
            ('fr', 'fr')
        """
        name, fresh = self._form.encode(key, default)

        def put_if_absent(txn: OpenTransaction) -> Stored:
            stored = txn.get_stored(name)
            if stored is None:
                txn.put_stored(name, fresh)
            return fresh if stored is None else stored

        return self._form.decode(key, await self._access.change(put_if_absent))

    async def update(self, other: Mapping[Any, T]) -> None:
        """Put all entries of a mapping, in one transaction.

        Cost: a share of a commit.

        Args:
            other: a mapping.

        Raises:
            InvalidOption: *other* is no mapping.
            InvalidKey, InvalidValue: an entry cannot be stored exactly; nothing is kept of the call.
            StoreError: what `AsyncStore.run()` raises.

        Examples:
            >>> await store["users"].update({1: "ada", 2: "bob"})
            >>> await store["users"].count()
            2
        """
        puts = await self._encoded(other)

        def put_all(txn: OpenTransaction) -> None:
            for name, stored in puts.items():
                txn.put_stored(name, stored)

        await self._access.change(put_all)

    async def replace(self, other: Mapping[Any, T]) -> None:
        """Make the collection equal to *other*, in one transaction that writes only what differs.

        Cost: a share of a commit; reads the keys of the collection.

        Args:
            other: a mapping.

        Raises:
            InvalidOption: *other* is no mapping.
            InvalidKey, InvalidValue: an entry cannot be stored exactly; nothing was changed.
            StoreError: what `AsyncStore.run()` raises.

        Examples:
            >>> await store["users"].update({1: "ada", 2: "bob"})
            >>> await store["users"].replace({2: "bob"})
            >>> await store["users"].count()
            1
        """
        puts = await self._encoded(other)

        def replace(txn: OpenTransaction) -> None:
            for key, _ in txn.scan(Span(self.name), as_stored, values=False):
                if stored_name(self.name, key) not in puts:
                    txn.delete_stored(stored_name(self.name, key))
            for name, stored in puts.items():
                txn.put_stored(name, stored)

        await self._access.change(replace)

    async def clear(self) -> None:
        """Delete all entries, in one transaction.

        Cost: a share of a commit that grows with the number of entries.

        Raises:
            StoreError: what `AsyncStore.run()` raises.

        Examples:
            >>> await store["users"].put(1, "ada")
            >>> await store["users"].clear()
            >>> await store["users"].count()
            0
        """
        await self._access.change(lambda txn: self._form.on(txn).clear())

    async def _encoded(self, other: Mapping[Any, T]) -> dict[Name, Stored]:
        check_mapping(other)
        puts = {}
        for i, (key, value) in enumerate(list(other.items()), 1):
            name, stored = self._form.encode(key, value)
            puts[name] = stored
            if i % ENCODED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        return puts


class BufferedCollection(AsyncCollectionView[T, K]):
    """A named, ordered mapping as an asynchronous transaction sees it.

    put(), delete() and update() are not awaited: the transaction keeps them until it ends. A scan sees what was
    written before its first row.

    Examples:
        >>> async with store.transaction() as txn:
        ...     txn["users"].update({1: "ada", 2: "bob"})
        ...     print([key async for key in txn["users"]])
        [1, 2]
    """

    __slots__ = ()

    _access: Buffer

    def __init__(self, access: Buffer, name: str, codec: Codec[T]) -> None:
        super().__init__(access, name, codec)

    def put(self, key: K, value: T) -> None:
        """Put an entry when the transaction ends.

        Cost: none.

        Args:
            key: int, str or bytes.
            value: as the collection's type, or what `Collection` stores.

        Raises:
            InvalidKey, InvalidValue: the entry cannot be stored exactly; the transaction goes on without it.
            TransactionEnded: the block has ended.

        Examples:
            >>> async with store.transaction() as txn:
            ...     txn["users"].put(1, "ada")
        """
        self._access.put_stored(*self._form.encode(key, value))

    def delete(self, key: K) -> None:
        """Delete an entry, if there is one, when the transaction ends.

        Cost: none.

        Args:
            key: int, str or bytes.

        Raises:
            InvalidKey: the key is not an int, str or bytes within the limits.
            TransactionEnded: the block has ended.

        Examples:
            >>> async with store.transaction() as txn:
            ...     txn["users"].delete(1)
        """
        self._access.delete_stored(self._form.name_of(key))

    def update(self, other: Mapping[Any, T]) -> None:
        """Put all entries of a mapping when the transaction ends. If one cannot be stored, none is put.

        Cost: none.

        Args:
            other: a mapping.

        Raises:
            InvalidOption: *other* is no mapping.
            InvalidKey, InvalidValue: an entry cannot be stored exactly.
            TransactionEnded: the block has ended.

        Examples:
            >>> async with store.transaction() as txn:
            ...     txn["users"].update({1: "ada", 2: "bob"})
        """
        check_mapping(other)
        for name, stored in [self._form.encode(key, value) for key, value in other.items()]:
            self._access.put_stored(name, stored)
