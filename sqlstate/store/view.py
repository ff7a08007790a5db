"""Collections as they are read: a named, ordered mapping, and its scans."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from itertools import islice
from operator import itemgetter
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict, TypeVar, Unpack, cast, overload

from sqlstate.errors import EntryNotFound, InvalidOption, InvalidValue, StoreError, ValueRedacted
from sqlstate.format.documents import short_repr
from sqlstate.format.html import table
from sqlstate.format.names import Key, Name, Stored, first_name, next_collection, stored_name
from sqlstate.sqlite.connection import steadily
from sqlstate.sqlite.pages import Page
from sqlstate.store.past import change
from sqlstate.tables import wal_changes
from sqlstate.tables.state import KEY_OF, VALUE_OF, Span

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    from sqlstate.format.keys import Bound
    from sqlstate.format.values import Codec
    from sqlstate.store.access import Made, Reads, Row
    from sqlstate.store.past.change import Change

    # The type of a collection's values: without type=, whatever JSON holds.
    V = TypeVarWithDefault("V", default=Any)
    K = TypeVarWithDefault("K", default=Key)
else:
    K = TypeVar("K")


R = TypeVar("R")
T = TypeVar("T")


D = TypeVar("D")


UNSET: Final[Any] = object()
ENTRIES_SHOWN: Final = 10  # in a notebook
_KEY_IN: Final = itemgetter(2)  # a name


class Bounds(TypedDict, total=False):
    """Which entries a scan gives, and in which order."""

    start: Bound | None
    """The first key wanted, whether an entry has it or not. "" comes before all strings, b"" before all bytes."""
    stop: Bound | None
    """The first key no longer wanted."""
    prefix: Bound | None
    """Only strings, bytes or tuples that begin with this; not with *start* or *stop*."""
    reverse: bool
    """From the greatest key to the smallest."""
    limit: int | None
    """The most entries, 0 or more."""


class CollectionView(Mapping[K, T], Generic[T, K]):
    """A named, ordered mapping that can be read: a collection of a snapshot, or the reading half of a Collection.

    It has what a `dict` has for reading, in the order of keys: ints first, then strings by code point, then bytes,
    each kind ascending. keys(), values() and items() take bounds. get_many() reads many entries at one moment.

    A key is an int from -2^63 to 2^63-1, or str or bytes of 1 to 1,048,576 bytes. `1`, `"1"` and `b"1"` are three
    keys. Anything else raises InvalidKey, also in `x in view`, where a dict would say no. Strings are not normalised.
    With `key=` of `Store.collection()`, keys of one type alone, or tuples. `CollectionView[T, K]` is its type.

    Each call sees one committed state, or that of its transaction or snapshot. Each read gives a new object: changing
    that changes nothing in the store.

    Examples:
        >>> store["mixed"].update({"b": 1, 7: "int", b"raw": b"bytes", "a": None})
        >>> with store.snapshot() as view:
        ...     list(view["mixed"])
        [7, 'a', 'b', b'raw']
    """

    __slots__ = ("_access", "_codec", "_keys", "name")

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # the type of keys can be left out

    def __init__(self, access: Reads, name: str, codec: Codec[T]) -> None:
        self._access = access
        self._codec = codec
        self._keys = codec.keys
        self.name: str = name

    def __getitem__(self, key: K) -> T:
        """Return the value of *key*.

        Cost: 1 statement.

        Raises:
            EntryNotFound: there is no such entry. It is a KeyError.
            InvalidKey: the key is not an int, str or bytes within the limits.
            InvalidValue: the stored document does not fit the collection's type.
            Damaged: the stored row is not a JSON document.
        """
        stored = self._access.find(self.name, key if self._keys.as_is else self._keys.stored(key))  # type: ignore[arg-type]
        if type(stored) is bytes and self._codec.holds_bytes:
            return cast("T", stored)  # with no call
        if stored is None:
            raise EntryNotFound(self.name, key)
        return self._decode(key, stored)

    @overload
    def get(self, key: K, /) -> T | None: ...
    @overload
    def get(self, key: K, /, default: T | D) -> T | D: ...
    def get(self, key: K, /, default: Any = None) -> Any:
        """Return the value of *key*, or *default* if there is no such entry.

        Cost: 1 statement.

        Args:
            key: int, str or bytes.
            default: returned as it is.

        Raises:
            InvalidKey, InvalidValue, Damaged: as `view[key]`.

        Examples:
            >>> store["settings"]["lang"] = "fr"
            >>> store["settings"].get("lang"), store["settings"].get("zoom", 100)
            ('fr', 100)
        """
        stored = self._access.find(self.name, key if self._keys.as_is else self._keys.stored(key))  # type: ignore[arg-type]
        if type(stored) is bytes and self._codec.holds_bytes:
            return cast("T", stored)  # with no call
        return default if stored is None else self._decode(key, stored)

    @overload
    def get_many(self, keys: Iterable[K]) -> dict[K, T]: ...
    @overload
    def get_many(self, keys: Iterable[K], default: D) -> dict[K, T | D]: ...
    def get_many(self, keys: Iterable[K], default: Any = UNSET) -> dict[K, Any]:
        """Return a dict of the entries that *keys* name, in the order of *keys*, all of one moment.

        A key that is given twice is in the dict once; one without an entry is left out, or gets *default*. The dict
        holds all the values, so for a whole collection items() takes less memory.

        Cost: a read transaction, and 1 statement for each 512 keys and for each value above 16 kB; inside a
        transaction or batch 1 statement for each key.

        Args:
            keys: any iterable of int, str or bytes. It is read to its end before the store is; a single str or bytes
                is refused, since its letters are hardly meant.
            default: the value of keys without an entry, as it is; without it, they are left out.

        Raises:
            InvalidKey: one of the keys is not an int, str or bytes within the limits, or *keys* is not an iterable of
                them. Nothing was read.
            InvalidValue, Damaged: as `view[key]`.

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
            >>> store["users"].get_many([3, 1, 9]), store["users"].get_many((1, 9), default=None)
            ({3: 'cyd', 1: 'ada'}, {1: 'ada', 9: None})
        """
        names = self._keys.names(self.name, keys)
        return self._found(names, self._access.get_many_stored(names), default)

    def __contains__(self, key: object) -> bool:
        """Return True if there is an entry with this key.

        Cost: 1 statement.

        Raises:
            InvalidKey: nothing with this key can be stored.
        """
        try:
            return self._access.find(self.name, self._keys.stored(key)) is not None
        except ValueRedacted:
            return True

    def __len__(self) -> int:
        """Return the number of entries.

        Cost: 4 statements, whatever the number: it is read off the counts in the tree.
        """
        return self._access.count(first_name(self.name), first_name(next_collection(self.name)))

    def __iter__(self) -> Iterator[K]:
        """Iterate over the keys in order; as keys()."""
        return iter(self.keys())

    def __reversed__(self) -> Iterator[K]:
        """Iterate over the keys from the greatest to the smallest."""
        return iter(self.keys(reverse=True))

    def keys(self, **bounds: Unpack[Bounds]) -> KeysView[K]:
        """Return a view of the keys in order.

        Cost: 1 statement for each 512 rows that are read.

        Args:
            bounds: as for items().

        Raises:
            InvalidKey, InvalidOption: as items().

        Examples:
            >>> store["settings"].update({"color.back": 0, "color.fore": 1, "lang": "fr"})
            >>> list(store["settings"].keys(prefix="color.")), len(store["settings"].keys(start="d"))
            (['color.back', 'color.fore'], 1)
        """
        return _Keys(self, *self._bounded(**bounds))

    def values(self, **bounds: Unpack[Bounds]) -> ValuesView[T]:
        """Return a view of the values in the order of their keys.

        Cost: 1 statement for each 512 rows that are read, and 1 for each value above 16 kB.

        Args:
            bounds: as for items().

        Raises:
            InvalidKey, InvalidOption: as items().

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
            >>> list(store["users"].values(start=2, reverse=True))
            ['cyd', 'bob']
        """
        return _Values(self, *self._bounded(**bounds))

    def items(self, **bounds: Unpack[Bounds]) -> ItemsView[K, T]:
        """Return a view of the (key, value) pairs in the order of keys. It can be iterated any number of times.

        Each iteration is one scan: it reads up to 512 rows, or 1 MB of large values, at a time, and sees one committed
        state, the newest at its first step. Inside a transaction or batch it sees each entry as it is when its turn
        comes. It ends with what it reads: the next step then raises TransactionEnded. Half-read, it holds its state,
        beyond which SQLite cannot move its WAL into the file; on a store with journal="delete" no commit can be made.
        `contextlib.closing(iter(view))` releases it for certain.

        Cost: 1 statement for each 512 rows that are read, and 1 for each value above 16 kB.

        Args:
            bounds: *start*, the first key wanted, whether an entry has it or not; *stop*, the first key no longer
                wanted; or *prefix*, for the strings, bytes or tuples that begin with it; *reverse*, from the greatest
                key to the smallest; *limit*, the most entries. "" comes before all strings, b"" before all bytes, and
                a tuple before all that begin with its elements.

        Raises:
            InvalidKey: a bound is not a key.
            InvalidOption: *prefix* is given together with a bound, or *limit* is negative.
            InvalidValue: while iterating: a stored document does not fit the collection's type.
            TransactionEnded: while iterating: what is read has ended.

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
            >>> dict(store["users"].items(start=2)), list(store["users"].items(limit=1))
            ({2: 'bob', 3: 'cyd'}, [(1, 'ada')])
        """
        return _Items(self, *self._bounded(**bounds))

    def history(self, key: K) -> Iterator[Change]:
        """Yield the changes of one entry that commits made, newest first.

        Of an entry that a transaction or batch has changed, only what was committed before.

        Cost: a pass over the log, without its values, and 1 statement for each change. With the index that
        `Store.index_history()` makes, there is no pass: some statements for each change.

        Args:
            key: int, str or bytes.

        Raises:
            InvalidKey: no entry can have this key.
            InvalidValue: while iterating: an earlier document does not fit the collection's type.
            Damaged: a record of the log is not as it was written.

        Examples:
            >>> for lang in "fr", "de":
            ...     store["settings"]["lang"] = lang
            >>> [(change.seq, change.before, change.value) for change in store["settings"].history("lang")]
            [(2, 'fr', 'de'), (1, ABSENT, 'fr')]
        """
        name = self._keys.name(self.name, key)
        with self._access.reading() as connection:
            upto = self._access.upto
            found = steadily(connection, lambda: [*wal_changes.of_entry(connection, self.name, name[2])])
            touches = [(head, name, touch) for head, touch in found if upto is None or head.seq <= upto]
        return change.read(self._access.reading, touches, self._codec)

    def __repr__(self) -> str:
        return f"<sqlstate.{type(self).__name__} {self.name!r}: {self._access.condition}>"

    def _repr_html_(self) -> str:
        try:
            rows: list[tuple[object, object]] = [
                (short_repr(key), short_repr(value)) for key, value in self.items(limit=ENTRIES_SHOWN)
            ]
            count = len(self)
        except StoreError as error:
            return table(repr(self), [("unreadable", error)])
        if count > len(rows):
            rows.append(("…", f"{count:,} entries in all"))
        return table(repr(self), rows)

    def _decode(self, key: object, stored: Stored) -> T:
        try:
            return self._codec.decode(stored)
        except InvalidValue as e:
            raise change.misfit(self._codec, self.name, key, e) from None

    def _found(self, names: Sequence[Name], stored: Sequence[Stored | None], default: Any) -> dict[K, Any]:
        """Return a dict of the values of *names*, without those that are not there, or with *default* for them."""
        return {
            key: default if each is None else self._decode(key, each)
            for key, each in zip(self._keys.all_given(self.name, map(_KEY_IN, names)), stored, strict=True)
            if each is not None or default is not UNSET
        }

    def _keys_of(self, rows: list[Row], kinds: set[type]) -> Page[K]:  # noqa: ARG002, as Made
        """Return the keys of rows, as _values()."""
        if self._keys.as_is:
            return Page(cast("Iterable[K]", map(KEY_OF, rows)))
        made: Page[Any] = Page(rows, lambda rows: iter(self._keys.all_given(self.name, map(KEY_OF, rows))))
        return made

    def _values(self, rows: list[Row], kinds: set[type]) -> Page[Any]:
        """Return the values of rows; one that cannot be decoded raises when its turn comes."""
        values = self._codec.decode_all([*map(VALUE_OF, rows)], kinds)
        return Page(rows, lambda rows: map(VALUE_OF, self._decoded(rows))) if values is None else Page(values)

    def _items(self, rows: list[Row], kinds: set[type]) -> Page[Any]:
        """Return the pairs of rows, as _values()."""
        if not self._keys.as_is:
            return Page(rows, self._decoded_pairs)
        if self._codec.keeps(kinds):
            return Page(rows)
        values = self._codec.decode_all([*map(VALUE_OF, rows)], kinds)
        return Page(rows, self._decoded) if values is None else Page(zip(map(KEY_OF, rows), values, strict=True))

    def _decoded(self, rows: Iterator[Row]) -> Iterator[tuple[Key, T]]:
        decode = self._codec.decode
        for key, stored in rows:
            try:
                value = decode(stored)
            except InvalidValue as e:
                raise change.misfit(self._codec, self.name, key, e) from None
            yield key, value

    def _decoded_pairs(self, rows: Iterator[Row]) -> Iterator[tuple[K, T]]:
        for key, stored in rows:
            given = self._keys.given(self.name, key)
            yield given, self._decode(given, stored)

    def _encode(self, key: object, value: T) -> Stored:
        try:
            return self._codec.encode(value)
        except InvalidValue as e:
            raise e.located(self.name, key) from None

    def _bounded(
        self,
        *,
        start: Bound | None = None,
        stop: Bound | None = None,
        prefix: Bound | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> tuple[Span, int | None]:
        """Return the span and the limit of a scan with these bounds."""
        low, high = self._keys.bounds(start, stop, prefix)
        if limit is not None and (type(limit) is not int or limit < 0):
            raise InvalidOption(f"limit={limit!r} is not a number of entries, 0 or more")
        return Span(self.name, low, high, reverse), limit

    def _scan(self, span: Span, limit: int | None, make: Made[R], *, values: bool = True) -> Iterator[R]:
        if limit is None:
            return self._access.scan(span, make, values=values)
        # A transaction counts what it has not written yet too.
        return (row for row in islice(self._access.scan(span._replace(limit=limit), make, values=values), limit))

    def _count(self, span: Span, limit: int | None) -> int:
        low = first_name(self.name) if span.start is None else stored_name(self.name, span.start)
        high = first_name(next_collection(self.name)) if span.stop is None else stored_name(self.name, span.stop)
        count = max(0, self._access.count(low, high)) if low < high else 0
        return count if limit is None else min(count, limit)


class _Scan(Generic[T, K]):
    """A scan of a collection, to be iterated any number of times."""

    def __init__(self, of: CollectionView[T, K], span: Span, limit: int | None) -> None:
        self._mapping = of  # what the views of collections.abc look entries up in
        self._of = of
        self._span = span
        self._limit = limit

    def __repr__(self) -> str:
        return f"<{type(self).__name__.strip('_').lower()} of {self._of!r}>"

    def __len__(self) -> int:
        """Return the number of entries; like that of the collection, it is not counted one by one."""
        return self._of._count(self._span, self._limit)  # noqa: SLF001, one module

    def _inside(self, key: object) -> bool:
        name = self._of._keys.name(self._of.name, key)  # noqa: SLF001
        start, stop = self._span.start, self._span.stop
        return (start is None or name >= stored_name(name[0], start)) and (
            stop is None or name < stored_name(name[0], stop)
        )


class _Keys(_Scan[T, K], KeysView[K]):
    def __iter__(self) -> Iterator[K]:
        return self._of._scan(self._span, self._limit, self._of._keys_of, values=False)  # noqa: SLF001

    def __contains__(self, key: object) -> bool:
        if not self._inside(key):
            return False
        return key in self._of if self._limit is None else any(type(key) is type(each) and key == each for each in self)


class _Values(_Scan[T, K], ValuesView[T]):
    def __iter__(self) -> Iterator[T]:
        return self._of._scan(self._span, self._limit, self._of._values)  # noqa: SLF001


class _Items(_Scan[T, K], ItemsView[K, T]):
    def __iter__(self) -> Iterator[tuple[K, T]]:
        return self._of._scan(self._span, self._limit, self._of._items)  # noqa: SLF001

    def __contains__(self, item: object) -> bool:
        key, value = cast("tuple[K, T]", item)
        if not self._inside(key):
            return False
        if self._limit is not None:
            return any(type(key) is type(k) and (key, value) == (k, v) for k, v in self)
        found: Any = self._of.get(key, UNSET)
        return found is not UNSET and bool(found == value)
