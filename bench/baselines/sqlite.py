"""SQLite through apsw, with the settings of sqlstate's connections and no tree, chain or check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import apsw

from bench.baselines.ours import COLLECTION
from sqlstate.sqlite.checkpoints import CHECKPOINT_PAGES
from sqlstate.sqlite.settings import CACHE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.baselines.protocol import Entry

_SETTINGS: Final = (
    "journal_mode=wal", "synchronous=full", f"cache_size=-{CACHE_BYTES >> 10}",
    f"wal_autocheckpoint={CHECKPOINT_PAGES}",
)  # fmt: skip
_PUT: Final = (
    "INSERT INTO kv (collection, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (collection, key) DO UPDATE SET value = excluded.value"
)


class RawSQLite:
    """One table."""

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
        execute(_PUT, (COLLECTION, key, value))
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
        self._sqlite.executemany(_PUT, ((COLLECTION, key, value) for key, value in entries))
        self._sqlite.execute("COMMIT")

    def delete(self, key: str) -> None:
        """Delete an entry that is there, durably."""
        execute = self._sqlite.execute
        execute("BEGIN IMMEDIATE")
        execute("DELETE FROM kv WHERE collection = ? AND key = ?", (COLLECTION, key))
        execute("COMMIT")

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""
        rows = self._sqlite.execute("SELECT key, value FROM kv WHERE collection = ? ORDER BY key", (COLLECTION,))
        return sum(1 for _ in rows)

    def count(self) -> int:
        """Return the number of entries."""
        row: Any = self._sqlite.execute("SELECT count(*) FROM kv WHERE collection = ?", (COLLECTION,)).fetchone()
        number: int = row[0]
        return number

    def close(self) -> None:
        """Close it cleanly."""
        self._sqlite.close()


class RawWithLog(RawSQLite):
    """One table, and a second one that every put is appended to: what a log costs without a tree."""

    _LOG = "INSERT INTO log (collection, key, value) VALUES (?, ?, ?)"

    def open(self) -> None:
        """Open it, making it if there is none."""
        super().open()
        self._sqlite.execute("CREATE TABLE IF NOT EXISTS log (lsn INTEGER PRIMARY KEY, collection, key, value)")

    def put(self, key: str, value: bytes) -> None:
        """Put one entry durably, and log it in the same transaction."""
        execute = self._sqlite.execute
        execute("BEGIN IMMEDIATE")
        execute(_PUT, (COLLECTION, key, value))
        execute(self._LOG, (COLLECTION, key, value))
        execute("COMMIT")

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put and log all *entries* in one durable transaction."""
        rows = [(COLLECTION, key, value) for key, value in entries]
        self._sqlite.execute("BEGIN IMMEDIATE")
        self._sqlite.executemany(_PUT, rows)
        self._sqlite.executemany(self._LOG, rows)
        self._sqlite.execute("COMMIT")
