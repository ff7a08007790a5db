"""Collections: the named, ordered mappings of a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sqlstate.errors import EntryNotFound, InvalidOption, InvalidValue
from sqlstate.format.documents import short_repr
from sqlstate.format.names import Stored, check_collection, make_name, stored_name
from sqlstate.format.values import JSON, codec_for
from sqlstate.store.access import Faces, as_stored
from sqlstate.store.view import UNSET, CollectionView, K
from sqlstate.tables.state import Span

if TYPE_CHECKING:
    from sqlstate.format.names import Key, Name
    from sqlstate.format.values import Codec
    from sqlstate.store.access import Writable, Writes
    from sqlstate.store.view import V


T = TypeVar("T")
D = TypeVar("D")


class Collection(CollectionView[T, K], MutableMapping[K, T]):
    """A named, ordered mapping of a store, transaction or batch: all of a `dict` but copy(), fromkeys() and `|`.

    Each writing call is one transaction, durable when it returns; inside a transaction of the same thread it is part
    of that. A call that changes nothing makes no commit, and an exception undoes the whole call.

    A value is bytes, or what JSON carries exactly: None, bool, int from -2^63 to 2^64-1, finite float, str, list, and
    dict with str keys, nested at most 200 deep; at most 268,435,456 bytes as stored. Anything that would not read back
    equal and of the same types, such as a tuple or a subclass, raises InvalidValue, which names the place inside the
    value. The members of an object come back sorted by name. `Store.collection()` gives values other types,
    and keys one type, or tuples. `Collection[T, K]` is the type of a collection, K of its keys.

    Examples:
        >>> settings = store["settings"]
        >>> settings.update({7: "seven", "lang": "fr"}, zoom=[1, 2.5])
        >>> dict(settings), len(settings), "lang" in settings
        ({7: 'seven', 'lang': 'fr', 'zoom': [1, 2.5]}, 3, True)
        >>> settings["window"] = {"size": (800, 600)}
        Traceback (most recent call last):
        InvalidValue: 'settings'['window'] at $.size: tuple would not read back as itself; ...
    """

    __slots__ = ()

    _access: Writable

    def __init__(self, access: Writable, name: str, codec: Codec[T]) -> None:
        super().__init__(access, name, codec)

    def __setitem__(self, key: K, value: T) -> None:
        """Put an entry.

        Cost: 1 commit, or none if the value is there already.

        Raises:
            InvalidKey: the key is not an int, str or bytes within the limits.
            InvalidValue: the value would not read back exactly.
            StoreError: what `Store.transaction()` raises.
        """
        keys = self._keys
        name = make_name(self.name, key) if keys.as_is else keys.name(self.name, key)  # type: ignore[arg-type]
        self._access.put_stored(name, self._encode(key, value))

    def __delitem__(self, key: K) -> None:
        """Delete an entry.

        Cost: 1 commit.

        Raises:
            EntryNotFound: there is no such entry. It is a KeyError.
            StoreError: what `Store.transaction()` raises.
        """
        if not self._access.remove(self._keys.name(self.name, key)):
            raise EntryNotFound(self.name, key)

    @overload
    def pop(self, key: K, /) -> T: ...
    @overload
    def pop(self, key: K, /, default: T | D) -> T | D: ...
    def pop(self, key: K, /, default: Any = UNSET) -> Any:
        """Delete the entry of *key* and return its value, or *default* if there is no such entry.

        Cost: 1 commit, or none if there is no such entry.

        Args:
            key: int, str or bytes.
            default: returned as it is; without it, a missing entry raises EntryNotFound.

        Raises:
            EntryNotFound: there is no such entry, and no default.
            InvalidValue: the stored document does not fit the collection's type; it stays.
            StoreError: what `Store.transaction()` raises.

        Examples:
            >>> store["users"][1] = "ada"
            >>> store["users"].pop(1), store["users"].pop(1, None)
            ('ada', None)
        """
        name = self._keys.name(self.name, key)

        def pop(txn: Writes) -> Any:
            stored = txn.get_stored(name)
            if stored is None:
                if default is UNSET:
                    raise EntryNotFound(self.name, key)
                return default
            value = self._decode(key, stored)
            txn.delete_stored(name)
            return value

        return self._access.run(pop)

    def popitem(self) -> tuple[K, T]:
        """Delete the entry with the greatest key and return (key, value).

        Cost: 1 commit.

        Raises:
            EntryNotFound: the collection is empty.
            StoreError: what `Store.transaction()` raises.

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob"})
            >>> store["users"].popitem()
            (2, 'bob')
        """

        def popitem(txn: Writes) -> tuple[K, T]:
            for key, stored in txn.scan(Span(self.name, reverse=True, limit=1), as_stored, values=True):
                given: K = self._keys.given(self.name, key)
                value = self._decode(given, stored)
                txn.delete_stored(stored_name(self.name, key))
                return given, value
            raise EntryNotFound(self.name)

        return self._access.run(popitem)

    def setdefault(self, key: K, default: Any = None, /) -> T:
        """Return the value of *key*; put *default* first if there is no such entry.

        Cost: 1 commit, or none if the entry is there.

        Args:
            key: int, str or bytes.
            default: a value that can be stored.

        Raises:
            InvalidKey, InvalidValue: the entry cannot be stored exactly.
            StoreError: what `Store.transaction()` raises.

        Examples:
            >>> store["settings"].setdefault("lang", "fr"), store["settings"].setdefault("lang", "de")
            ('fr', 'fr')
        """
        name, fresh = self._keys.name(self.name, key), self._encode(key, default)

        def put_if_absent(txn: Writes) -> Stored:
            stored = txn.get_stored(name)
            if stored is None:
                txn.put_stored(name, fresh)
            return fresh if stored is None else stored

        return self._decode(key, self._access.run(put_if_absent))

    def update(self, other: Any = (), /, **more: T) -> None:
        """Put all entries of a mapping or of (key, value) pairs, in one transaction.

        Cost: 1 commit.

        Args:
            other: a mapping, or pairs.
            more: further entries, with str keys.

        Raises:
            InvalidKey, InvalidValue: an entry cannot be stored exactly; nothing is kept of the call.
            StoreError: what `Store.transaction()` raises.

        Examples:
            >>> store["users"].update({1: "ada"}, root="eve")
            >>> dict(store["users"])
            {1: 'ada', 'root': 'eve'}
        """
        pairs = other.items() if isinstance(other, Mapping) else _pairs(other)
        with self._access.writing() as txn:
            txn.put_all(self._encoded(pairs))
            txn.put_all(self._encoded(more.items()))

    def replace(self, other: Mapping[Any, T], /) -> None:
        """Make the collection equal to *other*, in one transaction that writes only what differs.

        Cost: reads the keys of the collection; 1 commit, or none if nothing differs.

        Args:
            other: a mapping.

        Raises:
            InvalidKey, InvalidValue: an entry cannot be stored exactly; nothing was changed.
            InvalidOption: *other* is no mapping.
            StoreError: what `Store.transaction()` raises.

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob"})
            >>> store["users"].replace({2: "bob", 3: "cyd"})
            >>> dict(store["users"])
            {2: 'bob', 3: 'cyd'}
        """
        check_mapping(other)
        wanted = dict(self._encoded(other.items()))
        with self._access.writing() as txn:
            for key, _ in txn.scan(Span(self.name), as_stored, values=False):
                name = stored_name(self.name, key)
                if name not in wanted:
                    txn.delete_stored(name)
            txn.put_all(wanted.items())

    def _encoded(self, pairs: Iterable[tuple[Any, T]]) -> Iterator[tuple[Name, Stored]]:
        collection, name_of, encode = self.name, self._keys.name, self._codec.encode
        for key, value in pairs:
            name = name_of(collection, key)
            try:
                stored = encode(value)
            except InvalidValue as e:
                raise e.located(collection, key) from None
            yield name, stored

    def clear(self) -> None:
        """Delete all entries, in one transaction.

        Cost: 1 commit that grows with the number of entries.

        Raises:
            StoreError: what `Store.transaction()` raises.

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob"})
            >>> store["users"].clear()
            >>> len(store["users"])
            0
        """
        with self._access.writing() as txn:
            delete_all(txn, self.name)


def encode(name: Name, value: Any) -> Stored:
    """Return *value* as it is stored.

    Raises:
        InvalidValue: it would not read back exactly; the error names the entry.
    """
    try:
        return JSON.encode(value)
    except InvalidValue as e:
        raise e.located(name[0], name[2]) from None


class Collections(Faces):
    """What has collections that can be read and written: a store, a transaction or a batch."""

    __slots__ = ()

    _entries: Writable

    def put(self, collection: str, key: Key, value: Any) -> None:
        """Put an entry. Of a store or a batch it is a transaction of its own.

        Cost: of a store 1 commit, or none if the value is there already; of a transaction or a batch none before its
        end.

        Args:
            collection: name of the collection, 1 to 255 bytes of text; it exists while it has entries.
            key: int from -2^63 to 2^63-1, or str or bytes of 1 to 1,048,576 bytes.
            value: bytes, or what JSON carries exactly, up to 268,435,456 bytes as stored.

        Raises:
            InvalidName, InvalidKey, InvalidValue: the entry cannot be stored exactly; a transaction or a batch goes on
                without it.
            StoreError: what `Store.transaction()` raises.
            TransactionEnded: the transaction or batch has ended, or belongs to another thread.

        Examples:
            >>> store.put("users", 1, {"name": "ada"})
            >>> with store.transaction() as txn:
            ...     txn.put("users", 2, txn.get("users", 1))
            >>> store["users"][2]
            {'name': 'ada'}
        """
        name = make_name(check_collection(collection), key)
        self._entries.put_stored(name, encode(name, value))

    def delete(self, collection: str, key: Key) -> bool:
        """Delete an entry, and return True if there was one. Of a store or a batch it is a transaction of its own.

        Cost: 1 statement; of a store 1 commit, or none if there is no such entry.

        Args:
            collection: name of the collection.
            key: int, str or bytes.

        Raises:
            InvalidName, InvalidKey: no entry can have this name.
            StoreError: what `Store.transaction()` raises.
            TransactionEnded: the transaction or batch has ended, or belongs to another thread.

        Examples:
            >>> store.put("users", 1, "ada")
            >>> store.delete("users", 1), store.delete("users", 1)
            (True, False)
        """
        return self._entries.remove(make_name(check_collection(collection), key))

    def __getitem__(self, collection: str) -> Collection[Any]:
        """Return the collection of this name. It exists while it has entries.

        Cost: none.

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.
        """
        return Collection(self._entries, check_collection(collection), JSON)

    def __setitem__(self, collection: str, entries: Mapping[Any, Any]) -> None:
        """Make a collection equal to a mapping, in one transaction that writes only what differs.

        Cost: as `Collection.replace()`.

        Args:
            collection: its name.
            entries: a mapping of keys to values; an empty one empties the collection.

        Raises:
            InvalidName, InvalidKey, InvalidValue: an entry cannot be stored exactly; nothing was changed.
            InvalidOption: *entries* is no mapping.
            StoreError: what `Store.transaction()` raises.

        Examples:
            >>> store["users"] = {1: "ada", 2: "bob"}
            >>> store["users"] = {2: "bob", 3: "cyd"}
            >>> dict(store["users"])
            {2: 'bob', 3: 'cyd'}
        """
        self[collection].replace(entries)

    def __delitem__(self, collection: str) -> None:
        """Delete all entries of a collection, in one transaction.

        Cost: as `Collection.clear()`.

        Args:
            collection: its name.

        Raises:
            EntryNotFound: it has no entries. It is a KeyError.
            InvalidName: the name is not text of 1 to 255 bytes.
            StoreError: what `Store.transaction()` raises.

        Examples:
            >>> store["users"] = {1: "ada"}
            >>> del store["users"]
            >>> list(store)
            []
        """
        name = check_collection(collection)
        with self._entries.writing() as txn:
            if not delete_all(txn, name):
                raise EntryNotFound(name)

    def collection(
        self,
        name: str,
        *,
        type: type[V] | None = None,  # noqa: A002, the word users know
        key: type[K] | None = None,
        forbid_unknown: bool = False,
    ) -> Collection[V, K]:
        """Return a collection whose values are of *type*: converted and validated in both directions.

        A value is read back before it is stored: if it is not equal, and of equal type all the way down, InvalidValue
        names the place inside. One value is converted: an int where the type says float is stored as the equal float.
        Values of a type are still plain JSON documents to everybody else.

        With *key*, a key of another type raises InvalidKey, also when it is read. Tuples order element by element, and
        one of fewer elements can be the prefix= of a scan, or bound it. Everybody else sees the bytes of pack_key().

        Cost: none.

        Args:
            name: text of 1 to 255 bytes.
            type: a dataclass, attrs class, msgspec.Struct, TypedDict, or any type that msgspec can encode; None for
                values without a type. It is not recorded in the file.
            key: int, str, bytes, a union of them, or tuple[...] of those, such as tuple[str, int] or tuple[str, ...];
                None for any int, str or bytes. It is not recorded in the file.
            forbid_unknown: reading a document with members that the type lacks raises InvalidValue, at any depth.
                Otherwise such members are left out, and lost when the value is written back.

        Raises:
            InvalidName: the name is not such text.
            InvalidOption: the type cannot be stored as JSON; *key* is no type of keys; or *forbid_unknown* is given
                without a type.

        Examples:
            >>> from dataclasses import dataclass
            >>> @dataclass
            ... class User:
            ...     name: str
            ...     age: int
            >>> users = store.collection("users", type=User)
            >>> users[1] = User("ada", 36)
            >>> users[1], store["users"][1]
            (User(name='ada', age=36), {'age': 36, 'name': 'ada'})
            >>> parts = store.collection("parts", key=tuple[str, int])
            >>> parts.update({("bolt", 10): "M8", ("nut", 7): "M6", ("bolt", 7): "M6"})
            >>> list(parts.keys(prefix=("bolt",)))
            [('bolt', 7), ('bolt', 10)]
        """
        return Collection(self._entries, check_collection(name), codec_for(type, key, forbid_unknown=forbid_unknown))


def delete_all(txn: Writes, collection: str) -> bool:
    """Delete all entries of a collection; return whether there were any."""
    found = False
    for key, _ in txn.scan(Span(collection), as_stored, values=False):
        txn.delete_stored(stored_name(collection, key))
        found = True
    return found


def check_mapping(other: Any) -> None:
    """Raise InvalidOption if *other*, which a collection is to become or get, is no mapping."""
    if not isinstance(other, Mapping):
        raise InvalidOption(f"{short_repr(other)} is {type(other).__name__}, and no mapping of keys to values")


def _pairs(other: Any) -> Iterable[tuple[Any, Any]]:
    return ((key, other[key]) for key in other.keys()) if hasattr(other, "keys") else other  # noqa: SIM118, as dict does
