"""Collections: the named, ordered mappings that a store is made of."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict, TypeVar, Unpack, cast, overload

from sqlstate.errors import Damaged, EntryNotFound, InvalidOption, InvalidValue
from sqlstate.format.names import (
    Key,
    Stored,
    check_bound,
    check_collection,
    first_name,
    make_name,
    next_collection,
    prefix_bounds,
    stored_name,
)
from sqlstate.format.values import Codec
from sqlstate.tables.state import Span

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    from sqlstate.store.access import Reads, Writable, Writes

    # The type of a collection's values: without type=, whatever JSON holds.
    V = TypeVarWithDefault("V", default=Any)

T = TypeVar("T")
D = TypeVar("D")

_UNSET: Final[Any] = object()

JSON: Final[Codec[Any]] = Codec()
"""Values without a type: bytes, or a JSON document."""


def codec_for(type_: Any, *, forbid_unknown: bool) -> Codec[Any]:
    """Return the codec of a collection whose values are of *type_*; None stands for values without a type.

    Raises:
        InvalidOption: the type cannot be stored as JSON; or *forbid_unknown* without a type.
    """
    return JSON if type_ is None and not forbid_unknown else Codec(type_, forbid_unknown=forbid_unknown)


class Bounds(TypedDict, total=False):
    """Which entries a scan gives, and in which order."""

    start: Key | None
    """The first key wanted, whether an entry has it or not; None for the smallest."""
    stop: Key | None
    """The first key no longer wanted; None for no end."""
    prefix: str | bytes | None
    """Only the str keys, or only the bytes keys, that begin with this. Not with start or stop."""
    reverse: bool
    """From the greatest key to the smallest."""
    limit: int | None
    """The most entries, 0 or more; None for all."""


class CollectionView(Mapping[Key, T], Generic[T]):
    """A named, ordered mapping that can be read.

    Keys are int, str or bytes, in that order, each kind ascending. Reading: `view[key]`, get(), `in`,
    len(). Scanning in order: iteration, keys(), values(), items(), each with bounds. Each of them sees
    one committed state, or that of the transaction or snapshot it came from.
    """

    __slots__ = ("_access", "_codec", "name")

    def __init__(self, access: Reads, name: str, codec: Codec[T]) -> None:
        self._access = access
        self._codec = codec
        self.name = name

    def __getitem__(self, key: Key) -> T:
        """Return the value of *key*. Cost: one statement.

        Raises:
            EntryNotFound: there is no such entry; it is a KeyError.
            InvalidKey: the key is not an int, str or bytes within the limits.
            InvalidValue: the stored document does not fit the collection's type.
        """
        stored = self._access.get_stored(make_name(self.name, key))
        if stored is None:
            raise EntryNotFound(self.name, key)
        return self._decode(key, stored)

    @overload
    def get(self, key: Key, /) -> T | None: ...
    @overload
    def get(self, key: Key, /, default: T | D) -> T | D: ...
    def get(self, key: Key, /, default: Any = None) -> Any:
        """Return the value of *key*, or *default* if there is none."""
        stored = self._access.get_stored(make_name(self.name, key))
        return default if stored is None else self._decode(key, stored)

    def __contains__(self, key: object) -> bool:
        return self._access.get_stored(make_name(self.name, cast("Key", key))) is not None

    def __len__(self) -> int:
        """Return the number of entries. Read off the tree: the cost grows with its height only."""
        return self._access.count(first_name(self.name), first_name(next_collection(self.name)))

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys())

    def __reversed__(self) -> Iterator[Key]:
        return iter(self.keys(reverse=True))

    def keys(self, **bounds: Unpack[Bounds]) -> KeysView[Key]:
        """Return the keys in order; the arguments are those of items()."""
        return _Keys(self, *self._bounded(**bounds))

    def values(self, **bounds: Unpack[Bounds]) -> ValuesView[T]:
        """Return the values in the order of their keys; the arguments are those of items()."""
        return _Values(self, *self._bounded(**bounds))

    def items(self, **bounds: Unpack[Bounds]) -> ItemsView[Key, T]:
        """Return the (key, value) pairs in the order of keys, as a view that can be iterated and counted.

        Args:
            start: first key wanted, if it is there; None for the smallest.
            stop: first key no longer wanted; None for all from *start* on.
            prefix: only str keys, or only bytes keys, that begin with it. Not with *start* or *stop*.
            reverse: from the greatest key to the smallest.
            limit: at most so many.

        Each iteration is one scan that reads as it goes, and sees one committed state. In a transaction
        it sees each entry as it is when its turn comes. On a store with journal="delete", a scan that is
        not finished keeps writers waiting.

        Raises:
            InvalidKey: a bound is not a key.
            InvalidOption: *prefix* together with a bound, or a negative *limit*.
        """
        return _Items(self, *self._bounded(**bounds))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _decode(self, key: Key, stored: Stored) -> T:
        try:
            return self._codec.decode(stored)
        except InvalidValue as e:
            if self._codec.typed:
                raise e.located(self.name, key) from None
            raise Damaged(
                f"I1: {self.name!r}[{key!r}] is not a JSON document; it was changed from outside. Restore a backup"
            ) from None

    def _encode(self, key: Key, value: T) -> Stored:
        try:
            return self._codec.encode(value)
        except InvalidValue as e:
            raise e.located(self.name, key) from None

    def _bounded(
        self,
        *,
        start: Key | None = None,
        stop: Key | None = None,
        prefix: str | bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> tuple[Span, int | None]:
        """Return the span and the limit of a scan with these bounds."""
        if prefix is not None:
            if start is not None or stop is not None:
                raise InvalidOption("prefix= already says where to start and stop; leave out start= and stop=")
            start, stop = prefix_bounds(prefix)
        else:
            start = None if start is None else check_bound(start)
            stop = None if stop is None else check_bound(stop)
        if limit is not None and (type(limit) is not int or limit < 0):
            raise InvalidOption(f"limit={limit!r} is not a number of entries, 0 or more")
        return Span(self.name, start, stop, reverse), limit

    def _scan(self, span: Span, limit: int | None, *, values: bool = True) -> Iterator[tuple[Key, Stored]]:
        if limit is None:
            yield from self._access.scan(span, values=values)
            return
        left = limit
        for row in self._access.scan(span._replace(limit=limit), values=values):
            if not left:  # a transaction counts what it has not written yet too
                return
            left -= 1
            yield row

    def _count(self, span: Span, limit: int | None) -> int:
        low = first_name(self.name) if span.start is None else stored_name(self.name, span.start)
        high = first_name(next_collection(self.name)) if span.stop is None else stored_name(self.name, span.stop)
        count = max(0, self._access.count(low, high)) if low < high else 0
        return count if limit is None else min(count, limit)


class Collection(CollectionView[T], MutableMapping[Key, T]):
    """A named, ordered mapping of a store or of a transaction.

    Each writing method is one transaction, all or nothing, durable when it returns; inside a transaction
    of the same thread it is part of that one. Writing: `c[key] = value`, `del c[key]`, setdefault(),
    pop(), popitem(). Many at once: update(), replace(), clear().
    """

    __slots__ = ()

    _access: Writable

    def __init__(self, access: Writable, name: str, codec: Codec[T]) -> None:
        super().__init__(access, name, codec)

    def __setitem__(self, key: Key, value: T) -> None:
        """Put an entry.

        Raises:
            InvalidKey: the key is not an int, str or bytes within the limits.
            InvalidValue: the value would not read back exactly.
            Busy: another writer held the lock for the whole timeout.
        """
        self._access.put_stored(make_name(self.name, key), self._encode(key, value))

    def __delitem__(self, key: Key) -> None:
        name = make_name(self.name, key)

        def delete(txn: Writes) -> None:
            if txn.get_stored(name) is None:
                raise EntryNotFound(self.name, key)
            txn.delete_stored(name)

        self._access.run(delete)

    @overload
    def pop(self, key: Key, /) -> T: ...
    @overload
    def pop(self, key: Key, /, default: T | D) -> T | D: ...
    def pop(self, key: Key, /, default: Any = _UNSET) -> Any:
        """Delete the entry of *key* and return its value, or *default* if there is none.

        Raises:
            EntryNotFound: there is no such entry, and no default was given.
        """
        name = make_name(self.name, key)

        def pop(txn: Writes) -> Any:
            stored = txn.get_stored(name)
            if stored is None:
                if default is _UNSET:
                    raise EntryNotFound(self.name, key)
                return default
            value = self._decode(key, stored)
            txn.delete_stored(name)
            return value

        return self._access.run(pop)

    def popitem(self) -> tuple[Key, T]:
        """Delete the entry with the greatest key and return (key, value).

        Raises:
            EntryNotFound: the collection is empty.
        """

        def popitem(txn: Writes) -> tuple[Key, T]:
            for key, stored in txn.scan(Span(self.name, reverse=True), values=True):
                value = self._decode(key, stored)
                txn.delete_stored(stored_name(self.name, key))
                return key, value
            raise EntryNotFound(self.name, "(any)")

        return self._access.run(popitem)

    def setdefault(self, key: Key, default: Any = None, /) -> T:
        """Return the value of *key*; put *default* first if there is none."""
        name, fresh = make_name(self.name, key), self._encode(key, default)

        def put_if_absent(txn: Writes) -> Stored:
            stored = txn.get_stored(name)
            if stored is None:
                txn.put_stored(name, fresh)
            return fresh if stored is None else stored

        return self._decode(key, self._access.run(put_if_absent))

    def update(self, other: Any = (), /, **more: T) -> None:
        """Put all entries of a mapping or of (key, value) pairs, in one transaction.

        An exception on the way, from the pairs or from a key or value that cannot be stored, undoes all.
        """
        pairs = other.items() if isinstance(other, Mapping) else _pairs(other)
        with self._access.writing() as txn:
            for key, value in pairs:
                txn.put_stored(make_name(self.name, key), self._encode(key, value))
            for key, value in more.items():
                txn.put_stored(make_name(self.name, key), self._encode(key, value))

    def replace(self, other: Mapping[Any, T], /) -> None:
        """Make the collection equal to *other*, in one transaction that writes only what differs."""
        wanted = {make_name(self.name, key): self._encode(key, value) for key, value in other.items()}
        with self._access.writing() as txn:
            for key, _ in txn.scan(Span(self.name), values=False):
                name = stored_name(self.name, key)
                if name not in wanted:
                    txn.delete_stored(name)
            for name, stored in wanted.items():
                txn.put_stored(name, stored)

    def clear(self) -> None:
        """Delete all entries, in one transaction."""
        with self._access.writing() as txn:
            for key, _ in txn.scan(Span(self.name), values=False):
                txn.delete_stored(stored_name(self.name, key))


class Collections:
    """What has collections that can be read and written: a store, a transaction or a batch."""

    __slots__ = ()

    _entries: Writable

    def __getitem__(self, collection: str) -> Collection[Any]:
        """Return a collection; it exists while it has entries.

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.
        """
        return Collection(self._entries, check_collection(collection), JSON)

    def collection(self, name: str, *, type: type[V] | None = None, forbid_unknown: bool = False) -> Collection[V]:  # noqa: A002, the word users know
        """Return a collection whose values are of *type*.

        Args:
            name: text of 1 to 255 bytes.
            type: a dataclass, attrs class, msgspec.Struct, TypedDict, or any type that msgspec can encode;
                None for values without a type. It is not recorded in the file.
            forbid_unknown: reading a document raises InvalidValue if it has members which the type has no field
                for, at any depth. Otherwise they are left out of what is read, and lost when that is written back.

        Raises:
            InvalidName: the name cannot be one.
            InvalidOption: the type cannot be stored as JSON; or *forbid_unknown* without a type.
        """
        return Collection(self._entries, check_collection(name), codec_for(type, forbid_unknown=forbid_unknown))


def _pairs(other: Any) -> Iterable[tuple[Any, Any]]:
    return ((key, other[key]) for key in other.keys()) if hasattr(other, "keys") else other  # noqa: SIM118, as dict does


class _Scan(Generic[T]):
    """A scan of a collection, to be iterated any number of times."""

    def __init__(self, of: CollectionView[T], span: Span, limit: int | None) -> None:
        self._mapping = of  # what the views of collections.abc look entries up in
        self._of = of
        self._span = span
        self._limit = limit

    def __len__(self) -> int:
        """Return the number of entries; like that of the collection, it is not counted one by one."""
        return self._of._count(self._span, self._limit)  # noqa: SLF001, one module

    def _inside(self, key: object) -> bool:
        name = make_name(self._of.name, cast("Key", key))
        start, stop = self._span.start, self._span.stop
        return (start is None or name >= stored_name(name[0], start)) and (
            stop is None or name < stored_name(name[0], stop)
        )


class _Keys(_Scan[T], KeysView[Key]):
    def __iter__(self) -> Iterator[Key]:
        for key, _ in self._of._scan(self._span, self._limit, values=False):  # noqa: SLF001
            yield key

    def __contains__(self, key: object) -> bool:
        if self._limit is not None:
            return any(type(key) is type(each) and key == each for each in self)
        return self._inside(key) and key in self._of


class _Values(_Scan[T], ValuesView[T]):
    def __iter__(self) -> Iterator[T]:
        for key, stored in self._of._scan(self._span, self._limit):  # noqa: SLF001
            yield self._of._decode(key, stored)  # noqa: SLF001


class _Items(_Scan[T], ItemsView[Key, T]):
    def __iter__(self) -> Iterator[tuple[Key, T]]:
        for key, stored in self._of._scan(self._span, self._limit):  # noqa: SLF001
            yield key, self._of._decode(key, stored)  # noqa: SLF001

    def __contains__(self, item: object) -> bool:
        key, value = cast("tuple[Key, T]", item)
        if self._limit is not None:
            return any(type(key) is type(k) and (key, value) == (k, v) for k, v in self)
        if not self._inside(key):
            return False
        found: Any = self._of.get(key, _UNSET)
        return found is not _UNSET and bool(found == value)
