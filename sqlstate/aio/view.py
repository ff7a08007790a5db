"""Collections as tasks read them."""

from __future__ import annotations

from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, Unpack, cast, overload

import anyio.lowlevel

from sqlstate.aio.scan import AsyncScan
from sqlstate.format.names import check_collection, first_name, next_collection, stored_name
from sqlstate.format.values import JSON
from sqlstate.store.collection import Collection
from sqlstate.store.view import UNSET, K

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlstate.aio.scan import Rows
    from sqlstate.format.keys import Bound
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.values import Codec
    from sqlstate.store.access import Writable
    from sqlstate.store.view import Bounds
    from sqlstate.tables.state import Span


T = TypeVar("T")


D = TypeVar("D")


R = TypeVar("R")


# So many values are decoded before other tasks have a turn.
DECODED_AT_ONCE: Final = 1000


class AsyncReads(Protocol):
    """What a collection reads through: a store, a snapshot or a transaction."""

    @property
    def condition(self) -> str:
        """Whether it can be used, in a word, for a repr."""

    async def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""

    async def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None, all of one moment."""

    async def has_stored(self, name: Name) -> bool:
        """Return True if there is an entry."""

    async def count_names(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""

    def rows(self, span: Span, *, values: bool) -> Rows:
        """Return the rows of a scan; nothing is read before the first is wanted."""


class _Form(Collection[T, K]):
    """What a collection knows without a store: its name, its type, what it refuses."""

    __slots__ = ()

    def __init__(self, name: str, codec: Codec[T]) -> None:
        super().__init__(cast("Any", None), name, codec)

    def name_of(self, key: K) -> Name:
        return self._keys.name(self.name, key)

    def given(self, stored: Key) -> K:
        key: K = self._keys.given(self.name, stored)
        return key

    def decode(self, key: object, stored: Stored) -> T:
        return self._decode(key, stored)

    def encode(self, key: K, value: T) -> tuple[Name, Stored]:
        return self.name_of(key), self._encode(key, value)

    def names(self, keys: Iterable[K]) -> list[Name]:
        return self._keys.names(self.name, keys)

    def found(self, names: Sequence[Name], stored: Sequence[Stored | None], default: Any) -> dict[K, Any]:
        return self._found(names, stored, default)

    def bounded(self, **bounds: Unpack[Bounds]) -> tuple[Span, int | None]:
        return self._bounded(**bounds)

    def on(self, entries: Writable) -> Collection[T, K]:
        return Collection(entries, self.name, self._codec)


class AsyncCollectionView(Generic[T, K]):
    """A named, ordered mapping that tasks can read: a collection of a snapshot, or the reading half of the others.

    Keys are int, str or bytes, in that order, each kind ascending. get(), get_many(), contains() and count() are
    awaited; keys(), values() and items() are for `async for`, as is the view itself, which gives the keys.

    Examples:
        >>> await store["users"].update({1: "ada", 2: "bob"})
        >>> async with store.snapshot() as view:
        ...     print([key async for key in view["users"]])
        [1, 2]
    """

    __slots__ = ("_access", "_form", "name")

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # the type of keys can be left out

    _access: AsyncReads

    def __init__(self, access: AsyncReads, name: str, codec: Codec[T]) -> None:
        self._access = access
        self._form: _Form[T, K] = _Form(name, codec)
        self.name: str = name

    @overload
    async def get(self, key: K) -> T | None: ...
    @overload
    async def get(self, key: K, default: T | D) -> T | D: ...
    async def get(self, key: K, default: Any = None) -> Any:
        """Return the value of *key*, or *default* if there is no such entry.

        Cost: 1 hop.

        Args:
            key: int, str or bytes.
            default: returned as it is.

        Raises:
            InvalidKey: the key is not an int, str or bytes within the limits.
            InvalidValue: the stored document does not fit the collection's type.

        Examples:
            >>> await store["users"].put(1, "ada")
            >>> await store["users"].get(1), await store["users"].get(2, "nobody")
            ('ada', 'nobody')
        """
        stored = await self._access.get_stored(self._form.name_of(key))
        return default if stored is None else self._form.decode(key, stored)

    @overload
    async def get_many(self, keys: Iterable[K]) -> dict[K, T]: ...
    @overload
    async def get_many(self, keys: Iterable[K], default: D) -> dict[K, T | D]: ...
    async def get_many(self, keys: Iterable[K], default: Any = UNSET) -> dict[K, Any]:
        """Return a dict of the entries that *keys* name, in the order of *keys*, all of one moment.

        A key that is given twice is in the dict once; one without an entry is left out, or gets *default*.

        Cost: 1 hop.

        Args:
            keys: any iterable of int, str or bytes. It is read to its end before the store is; a single str or bytes
                is refused, since its letters are hardly meant.
            default: the value of keys without an entry, as it is; without it, they are left out.

        Raises:
            InvalidKey: one of the keys is not an int, str or bytes within the limits, or *keys* is not an iterable of
                them. Nothing was read.
            InvalidValue: a stored document does not fit the collection's type.

        Examples:
            >>> await store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
            >>> await store["users"].get_many([3, 1, 9]), await store["users"].get_many((1, 9), default=None)
            ({3: 'cyd', 1: 'ada'}, {1: 'ada', 9: None})
        """
        names = self._form.names(keys)
        stored = await self._access.get_many_stored(names)
        found: dict[K, Any] = {}
        for start in range(0, len(names), DECODED_AT_ONCE):
            if start:
                await anyio.lowlevel.checkpoint()
            part = slice(start, start + DECODED_AT_ONCE)
            found |= self._form.found(names[part], stored[part], default)
        return found

    async def contains(self, key: K) -> bool:
        """Return True if there is an entry with this key.

        Cost: 1 hop.

        Args:
            key: int, str or bytes.

        Raises:
            InvalidKey: the key is not an int, str or bytes within the limits.

        Examples:
            >>> await store["users"].contains(1)
            False
        """
        return await self._access.has_stored(self._form.name_of(key))

    async def count(self, *, start: Bound | None = None, stop: Bound | None = None, prefix: Bound | None = None) -> int:
        """Return the number of entries, or of those within bounds. It is read off the tree.

        Cost: 1 hop.

        Args:
            start: the first key wanted, whether an entry has it or not.
            stop: the first key no longer wanted.
            prefix: only strings, bytes or tuples that begin with this; not with *start* or *stop*.

        Raises:
            InvalidKey: a bound is not a key.
            InvalidOption: *prefix* is given together with a bound.

        Examples:
            >>> await store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
            >>> await store["users"].count(), await store["users"].count(start=2)
            (3, 2)
        """
        span, _ = self._form.bounded(start=start, stop=stop, prefix=prefix)
        low = first_name(self.name) if span.start is None else stored_name(self.name, span.start)
        high = first_name(next_collection(self.name)) if span.stop is None else stored_name(self.name, span.stop)
        return await self._access.count_names(low, high) if low < high else 0

    def keys(self, **bounds: Unpack[Bounds]) -> AsyncScan[K]:
        """Return the keys in order, for `async for`.

        Cost: 1 hop for each chunk of 1,000 to 8,000 rows.

        Args:
            bounds: as for items().

        Raises:
            InvalidKey, InvalidOption: as items().

        Examples:
            >>> await store["users"].update({1: "ada", 2: "bob"})
            >>> [key async for key in store["users"].keys(reverse=True)]
            [2, 1]
        """
        given = self._form.given
        return self._scan(bounds, lambda key, _: given(key), values=False)

    def values(self, **bounds: Unpack[Bounds]) -> AsyncScan[T]:
        """Return the values in the order of their keys, for `async for`.

        Cost: 1 hop for each chunk of 1,000 to 8,000 rows, or 1 MiB.

        Args:
            bounds: as for items().

        Raises:
            InvalidKey, InvalidOption: as items().

        Examples:
            >>> await store["users"].update({1: "ada", 2: "bob"})
            >>> [value async for value in store["users"].values(limit=1)]
            ['ada']
        """
        return self._scan(bounds, self._form.decode)

    def items(self, **bounds: Unpack[Bounds]) -> AsyncScan[tuple[K, T]]:
        """Return the (key, value) pairs in the order of keys, for one `async for`.

        Cost: 1 hop for each chunk of 1,000 to 8,000 rows, or 1 MiB.

        Args:
            bounds: *start*, the first key wanted, whether an entry has it or not; *stop*, the first key no longer
                wanted; or *prefix*, for the strings, bytes or tuples that begin with it; *reverse*, from the greatest
                key to the smallest; *limit*, the most entries. "" comes before all strings, b"" before all bytes, and
                a tuple before all that begin with its elements.

        Raises:
            InvalidKey: a bound is not a key.
            InvalidOption: *prefix* is given together with a bound, or *limit* is negative.

        Examples:
            >>> await store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
            >>> [pair async for pair in store["users"].items(start=2)]
            [(2, 'bob'), (3, 'cyd')]
        """
        form = self._form

        def pair(key: Key, stored: Stored) -> tuple[K, T]:
            given = form.given(key)
            return given, form.decode(given, stored)

        return self._scan(bounds, pair)

    def _scan(self, bounds: Bounds, make: Callable[[Key, Stored], R], *, values: bool = True) -> AsyncScan[R]:
        span, limit = self._form.bounded(**bounds)
        return AsyncScan(self._access.rows(span, values=values), make, limit)

    def __aiter__(self) -> AsyncScan[K]:
        """Scan the keys, as keys() does."""
        return self.keys()

    def __repr__(self) -> str:
        return f"<sqlstate.aio.{type(self).__name__} {self.name!r}: {self._access.condition}>"


class Entries:
    """What a store, a snapshot and a transaction have in common: reading entries by collection and key.

    Each of them holds a private object that knows entries as they are stored.
    """

    __slots__ = ()

    _entries: AsyncReads

    async def get(self, collection: str, key: Key, default: Any = None) -> Any:
        """Return the value of an entry, or *default* if there is no such entry.

        Cost: 1 hop.

        Args:
            collection: name of the collection.
            key: int, str or bytes.
            default: returned as it is.

        Raises:
            InvalidName, InvalidKey: no entry can have this name.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> await store.get("users", 1), await store.get("users", 2, "nobody")
            ('ada', 'nobody')
        """
        return await self._of(collection).get(key, default)

    async def contains(self, collection: str, key: Key) -> bool:
        """Return True if there is such an entry.

        Cost: 1 hop.

        Args:
            collection: name of the collection.
            key: int, str or bytes.

        Raises:
            InvalidName, InvalidKey: no entry can have this name.

        Examples:
            >>> await store.contains("users", 1)
            False
        """
        return await self._of(collection).contains(key)

    async def count(self, collection: str) -> int:
        """Return the number of entries in a collection. It is read off the tree.

        Cost: 1 hop.

        Args:
            collection: name of the collection.

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> await store.count("users")
            1
        """
        return await self._of(collection).count()

    def _of(self, collection: str) -> AsyncCollectionView[Any]:
        return AsyncCollectionView(self._entries, check_collection(collection), JSON)
