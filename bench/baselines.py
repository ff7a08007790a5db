"""The stores that are measured, behind one small protocol.

A baseline does what a user of that store would write, with the same promise: what has returned survives a
power cut. Keys are str, values bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import apsw

import sqlstate
from sqlstate.connection import CACHE_KIB
from sqlstate.engine import CHECKPOINT_PAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Entry = tuple[str, bytes]

COLLECTION: Final = "bench"

_SETTINGS: Final = (
    "journal_mode=wal", "synchronous=full", f"cache_size=-{CACHE_KIB}", f"wal_autocheckpoint={CHECKPOINT_PAGES}",
)  # fmt: skip


class Baseline(Protocol):
    """A store at a path of its own: a file with its sidecars, or a folder."""

    name: str
    path: Path

    def open(self) -> None:
        """Open it, making it if there is none."""

    def put(self, key: str, value: bytes) -> None:
        """Put one entry durably."""

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one durable transaction."""

    def close(self) -> None:
        """Close it cleanly."""


class Ordered(Baseline, Protocol):
    """A baseline that also deletes, scans in order and counts."""

    def delete(self, key: str) -> None:
        """Delete an entry that is there, durably."""

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""

    def count(self) -> int:
        """Return the number of entries."""


class Sqlstate:
    """sqlstate, through its public face."""

    name = "sqlstate"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store: sqlstate.Store

    def open(self) -> None:
        """Open it, making it if there is none."""
        self._store = sqlstate.open(self.path)

    def put(self, key: str, value: bytes) -> None:
        """Put one entry durably."""
        self._store[COLLECTION][key] = value

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        value: bytes = self._store[COLLECTION][key]
        return value

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one durable transaction."""
        self._store[COLLECTION].update(entries)

    def delete(self, key: str) -> None:
        """Delete an entry that is there, durably."""
        del self._store[COLLECTION][key]

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""
        number = 0
        for _ in self._store[COLLECTION].items():
            number += 1
        return number

    def count(self) -> int:
        """Return the number of entries."""
        return len(self._store[COLLECTION])

    def close(self) -> None:
        """Close it cleanly."""
        self._store.close()


class RawSQLite:
    """One table in SQLite through apsw, with the settings of sqlstate's connections and no log, tree or check."""

    name = "raw"

    _PUT = (
        "INSERT INTO kv (collection, key, value) VALUES (?, ?, ?) "
        "ON CONFLICT (collection, key) DO UPDATE SET value = excluded.value"
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sqlite: apsw.Connection

    def open(self) -> None:
        """Open it, making it if there is none."""
        self._sqlite = apsw.Connection(str(self.path))
        for setting in _SETTINGS:
            # One at a time, and its rows read: apsw runs what follows a row only when the row has been read.
            self._sqlite.execute(f"PRAGMA {setting}").fetchall()
        self._sqlite.execute(
            "CREATE TABLE IF NOT EXISTS kv (collection, key, value, PRIMARY KEY (collection, key)) WITHOUT ROWID"
        )

    def put(self, key: str, value: bytes) -> None:
        """Put one entry durably."""
        execute = self._sqlite.execute
        execute("BEGIN IMMEDIATE")
        execute(self._PUT, (COLLECTION, key, value))
        execute("COMMIT")

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        sql = "SELECT value FROM kv WHERE collection = ? AND key = ?"
        row: Any = self._sqlite.execute(sql, (COLLECTION, key)).fetchone()
        value: bytes = row[0]
        return value

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one durable transaction."""
        self._sqlite.execute("BEGIN IMMEDIATE")
        self._sqlite.executemany(self._PUT, ((COLLECTION, key, value) for key, value in entries))
        self._sqlite.execute("COMMIT")

    def delete(self, key: str) -> None:
        """Delete an entry that is there, durably."""
        execute = self._sqlite.execute
        execute("BEGIN IMMEDIATE")
        execute("DELETE FROM kv WHERE collection = ? AND key = ?", (COLLECTION, key))
        execute("COMMIT")

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""
        number = 0
        for _ in self._sqlite.execute("SELECT key, value FROM kv WHERE collection = ? ORDER BY key", (COLLECTION,)):
            number += 1
        return number

    def count(self) -> int:
        """Return the number of entries."""
        row: Any = self._sqlite.execute("SELECT count(*) FROM kv WHERE collection = ?", (COLLECTION,)).fetchone()
        number: int = row[0]
        return number

    def close(self) -> None:
        """Close it cleanly."""
        self._sqlite.close()


BASELINES: Final[dict[str, Callable[[Path], Ordered]]] = {"sqlstate": Sqlstate, "raw": RawSQLite}
