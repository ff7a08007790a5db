"""Other embedded stores for Python, each at a commit that survives a power cut, and as it comes.

A peer is imported when it is made, so that the benchmark runs without those that are not installed. Values are
bytes, and where a peer would pickle them, it is told not to.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.baselines.protocol import Entry


class SqliteDict:
    """The package sqlitedict: a dict in one table, through a thread that owns the connection.

    Args:
        path: its file.
        durable: with SQLite's WAL and synchronous=FULL; else with what it sets by itself, synchronous=OFF.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self._durable: Final = durable
        self._module: Final[Any] = import_module("sqlitedict")
        self._dict: Any

    def open(self) -> None:
        """Open it, making it if there is none."""
        same = self._module.identity
        settings = {"journal_mode": "WAL"} if self._durable else {}
        self._dict = self._module.SqliteDict(str(self.path), encode=same, decode=same, **settings)
        if self._durable:
            self._dict.conn.execute("PRAGMA synchronous=FULL")
            self._dict.commit()

    def put(self, key: str, value: bytes) -> None:
        """Put one entry, and commit."""
        self._dict[key] = value
        self._dict.commit()

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        value: bytes = self._dict[key]
        return value

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries*, and commit."""
        self._dict.update(entries)
        self._dict.commit()

    def scan(self) -> int:
        """Read every key and value; it has no order, so sort them."""
        return sum(1 for _ in sorted(self._dict.items()))

    def close(self) -> None:
        """Close it cleanly."""
        self._dict.close()


class DiskCache:
    """The package diskcache.

    Args:
        path: its folder.
        durable: with synchronous=FULL, and without eviction, which would delete entries of a full store; else with
            its own settings.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self._durable: Final = durable
        self._module: Final[Any] = import_module("diskcache")
        self._cache: Any

    def open(self) -> None:
        """Open it, making it if there is none."""
        settings = {"sqlite_synchronous": 2, "eviction_policy": "none", "cull_limit": 0} if self._durable else {}
        self._cache = self._module.Cache(str(self.path), **settings)

    def put(self, key: str, value: bytes) -> None:
        """Put one entry."""
        self._cache[key] = value

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        value: bytes = self._cache[key]
        return value

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one transaction."""
        with self._cache.transact():
            for key, value in entries:
                self._cache[key] = value

    def scan(self) -> int:
        """Read every key in order, and its value."""
        return sum(1 for key in self._cache.iterkeys() if self._cache[key] is not None)

    def close(self) -> None:
        """Close it cleanly."""
        self._cache.close()


class Zodb:
    """The package ZODB: a BTree in a FileStorage, which syncs at every commit. No two threads share a connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: Final[Any] = import_module("ZODB")
        self._storage: Final[Any] = import_module("ZODB.FileStorage")
        self._trees: Final[Any] = import_module("BTrees.OOBTree")
        self._transactions: Final[Any] = import_module("transaction")
        self._conflict: Final[Any] = import_module("ZODB.POSException").ConflictError
        self._db: Any
        self._idle: list[tuple[Any, Any]] = []

    def open(self) -> None:
        """Open it, making it if there is none."""
        self.path.mkdir(exist_ok=True)
        storage = self._storage.FileStorage(str(self.path / "data.fs"))
        self._db = self._database.DB(storage, pool_size=100, cache_size=10_000)
        with self._connection() as (manager, root):
            if "bench" not in root:
                root["bench"] = self._trees.OOBTree()
            manager.commit()

    def put(self, key: str, value: bytes) -> None:
        """Put one entry, and commit."""
        self.bulk([(key, value)])

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        with self._connection() as (_, root):
            value: bytes = root["bench"][key]
        return value

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one transaction, again until no other thread's stood against it."""
        done = False
        while not done:
            with self._connection() as (manager, root):
                try:
                    root["bench"].update(entries)
                    manager.commit()
                    done = True
                except self._conflict:
                    manager.abort()

    def scan(self) -> int:
        """Read every key and value in order."""
        with self._connection() as (_, root):
            return sum(1 for _ in root["bench"].items())

    def close(self) -> None:
        """Close it cleanly, all connections with it."""
        self._idle.clear()
        self._db.close()

    @contextmanager
    def _connection(self) -> Iterator[tuple[Any, Any]]:
        """Lend a transaction manager and the root object of its connection, in a new transaction."""
        try:
            manager, root = self._idle.pop()
        except IndexError:
            manager = self._transactions.TransactionManager()
            root = self._db.open(manager).root()
        manager.begin()
        try:
            yield manager, root
        finally:
            manager.abort()
            self._idle.append((manager, root))


class Lmdb:
    """The package lmdb (py-lmdb), with its own settings: it syncs at every commit."""

    _MAP_BYTES = 1 << 34  # addresses, not memory: the most that the file can grow to

    def __init__(self, path: Path) -> None:
        self.path = path
        self._module: Final[Any] = import_module("lmdb")
        self._environment: Any

    def open(self) -> None:
        """Open it, making it if there is none."""
        self._environment = self._module.open(str(self.path), map_size=self._MAP_BYTES)

    def put(self, key: str, value: bytes) -> None:
        """Put one entry in a transaction."""
        with self._environment.begin(write=True) as txn:
            txn.put(key.encode(), value)

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        with self._environment.begin() as txn:
            value: bytes = txn.get(key.encode())
        return value

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one transaction."""
        with self._environment.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti((key.encode(), value) for key, value in entries)

    def scan(self) -> int:
        """Read every key and value in order."""
        with self._environment.begin() as txn, txn.cursor() as cursor:
            return sum(1 for _ in cursor)

    def close(self) -> None:
        """Close it cleanly."""
        self._environment.close()


class RocksDict:
    """The package rocksdict: RocksDB.

    Args:
        path: its folder.
        durable: with `sync` at every write; else with its own settings, where the log is written and not synced.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self._durable: Final = durable
        self._module: Final[Any] = import_module("rocksdict")
        self._write: Any
        self._db: Any

    def open(self) -> None:
        """Open it, making it if there is none."""
        options = self._module.Options(raw_mode=True)  # keys and values are bytes, nothing is pickled
        self._db = self._module.Rdict(str(self.path), options)
        self._write = self._module.WriteOptions()
        self._write.sync = self._durable
        self._db.set_write_options(self._write)

    def put(self, key: str, value: bytes) -> None:
        """Put one entry."""
        self._db[key.encode()] = value

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        value: bytes = self._db[key.encode()]
        return value

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one write."""
        batch = self._module.WriteBatch(raw_mode=True)
        for key, value in entries:
            batch.put(key.encode(), value)
        self._db.write(batch, self._write)

    def scan(self) -> int:
        """Read every key and value in order."""
        return sum(1 for _ in self._db.items())

    def close(self) -> None:
        """Close it cleanly."""
        self._db.close()
