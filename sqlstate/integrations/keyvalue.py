"""A store for py-key-value-aio, which FastMCP keeps its state in: `pip install 'sqlstate-store[keyvalue]'`.

`FastMCP("notes", session_state_store=SqlstateStore("app.db"))` keeps the state of its sessions in a store file.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from key_value.aio.errors import DeserializationError, InvalidKeyError, SerializationError
from key_value.aio.stores.base import (
    BaseContextManagerStore,
    BaseCullStore,
    BaseDestroyCollectionStore,
    BaseDestroyStore,
    BaseEnumerateCollectionsStore,
    BaseEnumerateKeysStore,
    ManagedEntry,
)

from sqlstate.errors import InvalidKey, InvalidName, InvalidOption, InvalidValue, StoreClosed
from sqlstate.format.constants import NAME_BYTES_MAX
from sqlstate.integrations import awaited
from sqlstate.store.opening import open as open_store

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlstate.store.store import Store
    from sqlstate.store.transaction import Transaction

__all__ = ["SqlstateStore"]

R = TypeVar("R")

PREFIX: Final = "keyvalue/"
# A name that does not fit is kept as this and its digest; the entries carry it in full.
HASHED: Final = "sha256:"
PREFIX_BYTES_MAX: Final = NAME_BYTES_MAX - len(HASHED) - 64
CULLED_AT_ONCE: Final = 1000


class SqlstateStore(
    BaseContextManagerStore,
    BaseEnumerateKeysStore,
    BaseEnumerateCollectionsStore,
    BaseDestroyCollectionStore,
    BaseDestroyStore,
    BaseCullStore,
):
    """A key-value store of py-key-value-aio in a store file. A write is durable when its call returns.

    put_many(), get_many() and delete_many() are one transaction each, or read one moment. Writes of many tasks, threads
    and processes share commits or take turns. An expired entry is not read, and stays in the file until cull().

    A collection is one of the store file, with *prefix* before its name, so that the file can hold other state too. An
    entry is a JSON document of this library: `value`, `created_at`, `expires_at`.

    Beside the exceptions of py-key-value-aio it raises those of sqlstate, such as Busy and StoreFull.

    Args:
        path: a file in an existing folder; it is opened at the first use and closed by close().
        store: an open store instead, which is left open.
        prefix: text before the names of collections; at most 184 bytes.
        default_collection: the collection of calls that name none.
        seed: entries to put when it is opened: {collection: {key: value}}.

    Raises:
        InvalidOption: neither or both of *path* and *store*; *store* is no open store; or the prefix is too long.

    Examples:
        >>> async with SqlstateStore("app.db") as tokens:
        ...     await tokens.put_many(["ada", "bob"], [{"token": "x"}, {"token": "y"}], collection="oauth")
        ...     await tokens.get("ada", collection="oauth"), await tokens.keys("oauth")
        ({'token': 'x'}, ['ada', 'bob'])
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        store: Store | None = None,
        prefix: str = PREFIX,
        default_collection: str | None = None,
        seed: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    ) -> None:
        if (path is None) == (store is None):
            raise InvalidOption("give either path= or store=, a store that is open")
        if store is not None:
            awaited.check_store(store)
        if len(_bytes(prefix)) > PREFIX_BYTES_MAX:
            raise InvalidOption(f"prefix={prefix!r} has more than {PREFIX_BYTES_MAX} bytes")
        super().__init__(
            client_provided_by_user=store is not None,
            default_collection=default_collection,
            seed=seed,
            stable_api=True,
        )
        self._path = path
        self._store = store
        self._prefix = prefix

    # Opening and closing.

    async def _setup(self) -> None:
        if self._path is not None:
            self._store = await awaited.read(partial(open_store, self._path, mode="group"))
            self._exit_stack.push_async_callback(awaited.read, self._store.close)

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise StoreClosed(f"{self._path}: the store is not open")
        return self._store

    # Reading.

    async def _read(self, work: Callable[[Store], R]) -> R:
        with _their_errors():
            return await awaited.read(lambda: work(self._opened))

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        return (await self._get_managed_entries(collection=collection, keys=(key,)))[0]

    async def _get_managed_entries(self, *, collection: str, keys: Sequence[str]) -> list[ManagedEntry | None]:
        name = self._name(collection)
        found = await self._read(lambda store: store[name].get_many(keys))
        return [self._entry(name, key, found[key]) if key in found else None for key in keys]

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        name = self._name(collection)

        def keys(store: Store) -> list[str]:
            entries = ((key, self._entry(name, key, document)) for key, document in store[name].items())
            return list(islice((str(key) for key, entry in entries if not entry.is_expired), _limit(limit)))

        return await self._read(keys)

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        return await self._read(lambda store: list(islice(self._collections(store), _limit(limit))))

    # Writing.

    async def _write(self, work: Callable[[Transaction], R]) -> R:
        with _their_errors():
            return await awaited.write(self._opened, work)

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: ManagedEntry) -> None:
        await self._put(collection, {key: managed_entry})

    async def _put_managed_entries(
        self, *, collection: str, keys: Sequence[str], managed_entries: Sequence[ManagedEntry], **_: object
    ) -> None:
        await self._put(collection, dict(zip(keys, managed_entries, strict=True)))

    async def _put(self, collection: str, entries: Mapping[str, ManagedEntry]) -> None:
        name = self._name(collection)
        documents = {key: self._document(entry, key, collection) for key, entry in entries.items()}
        await self._write(lambda txn: txn[name].update(documents))

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        return await self._delete_managed_entries(keys=(key,), collection=collection) == 1

    async def _delete_managed_entries(self, *, keys: Sequence[str], collection: str) -> int:
        name = self._name(collection)
        return await self._write(lambda txn: sum([txn.delete(name, key) for key in keys]))

    async def _delete_collection(self, *, collection: str) -> bool:
        name = self._name(collection)

        def clear(txn: Transaction) -> bool:
            found = len(txn[name]) > 0
            txn[name].clear()
            return found

        return await self._write(clear)

    async def _delete_store(self) -> bool:
        def clear(txn: Transaction) -> None:
            for name in txn.collections():
                if name.startswith(self._prefix):
                    txn[name].clear()

        await self._write(clear)
        return True

    async def _cull(self) -> None:
        for name in await self._read(lambda store: [*self._names(store)]):
            expired = await self._read(partial(self._expired, name=name))
            for start in range(0, len(expired), CULLED_AT_ONCE):
                await self._write(partial(self._drop, name=name, keys=expired[start : start + CULLED_AT_ONCE]))

    def _expired(self, store: Store, name: str) -> list[Any]:
        return [key for key, document in store[name].items() if self._entry(name, key, document).is_expired]

    def _drop(self, txn: Transaction, name: str, keys: list[Any]) -> None:
        """Delete what is still expired: an entry may have been put again since it was read."""
        for key, document in txn[name].get_many(keys).items():
            if self._entry(name, key, document).is_expired:
                txn.delete(name, key)

    # Names and documents.

    def _name(self, collection: str) -> str:
        name = f"{self._prefix}{collection}"
        if len(_bytes(name)) <= NAME_BYTES_MAX and not collection.startswith(HASHED):
            return name
        return f"{self._prefix}{HASHED}{sha256(_bytes(collection)).hexdigest()}"

    def _names(self, store: Store) -> Iterator[str]:
        return (name for name in store.collections() if name.startswith(self._prefix))

    def _collections(self, store: Store) -> Iterator[str]:
        for name in self._names(store):
            collection = name.removeprefix(self._prefix)
            if collection.startswith(HASHED):
                for document in store[name].values(limit=1):
                    yield str(document["collection"])
            else:
                yield collection

    def _document(self, entry: ManagedEntry, key: str, collection: str) -> Any:
        try:
            return json.loads(self._serialization_adapter.dump_json(entry=entry, key=key, collection=collection))
        except (ValueError, RecursionError) as e:
            raise SerializationError(f"{collection!r}[{key!r}]: {e}") from e

    def _entry(self, name: str, key: object, document: Any) -> ManagedEntry:
        what = f"{name!r}[{key!r}] was not written by this library"
        if not isinstance(document, dict):
            raise DeserializationError(what)
        try:
            entry = self._serialization_adapter.load_dict(data=document)
        except TypeError as e:  # a date that is no text
            raise DeserializationError(f"{what}: {e}") from e
        if entry.expires_at is not None and entry.expires_at.tzinfo is None:
            raise DeserializationError(f"{what}: expires_at has no time zone")
        return entry


@contextmanager
def _their_errors() -> Iterator[None]:
    try:
        yield
    except InvalidValue as e:
        raise SerializationError(str(e)) from e
    except (InvalidKey, InvalidName) as e:
        raise InvalidKeyError(str(e)) from e


def _limit(limit: int | None) -> int | None:
    if limit is not None and limit < 0:
        raise InvalidOption(f"limit={limit!r} is not a number of entries, 0 or more")
    return limit


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
