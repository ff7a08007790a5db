"""Increments a counter from a process of its own: `python -m bench.counting COUNTER PATH NUMBER`.

It says when it has opened the store, waits for a line, and prints when each increment began and ended.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import apsw

import sqlstate
from sqlstate.sqlite.settings import CACHE_BYTES


class Sqlstate:
    """A counter in a store of ours."""

    title = "sqlstate"

    def __init__(self, path: Path) -> None:
        self._store = sqlstate.open(path, timeout=60)

    def increment(self) -> None:
        """Add one, durably."""
        with self._store.transaction() as txn:
            txn.put("bench", "counter", txn.get("bench", "counter", 0) + 1)

    def value(self) -> int:
        """Return what it has come to."""
        value: int = self._store["bench"].get("counter", 0)
        return value

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class RawSQLite:
    """A counter in a table of SQLite's; who waits for the lock is left to SQLite's own busy timeout."""

    title = "raw SQLite, its busy timeout"

    def __init__(self, path: Path) -> None:
        self._sqlite = apsw.Connection(str(path))
        self._sqlite.set_busy_timeout(60_000)
        for setting in ("journal_mode=wal", "synchronous=full", f"cache_size=-{CACHE_BYTES >> 10}"):
            self._sqlite.execute(f"PRAGMA {setting}").fetchall()
        self._sqlite.execute("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, value)").fetchall()
        self._sqlite.execute("INSERT OR IGNORE INTO counter VALUES (1, 0)").fetchall()

    def increment(self) -> None:
        """Add one, durably."""
        self._sqlite.execute("BEGIN IMMEDIATE")
        self._sqlite.execute("UPDATE counter SET value = ? WHERE id = 1", (self.value() + 1,))
        self._sqlite.execute("COMMIT")

    def value(self) -> int:
        """Return what it has come to."""
        row: Any = self._sqlite.execute("SELECT value FROM counter").fetchone()
        value: int = row[0]
        return value

    def close(self) -> None:
        """Close it."""
        self._sqlite.close()


COUNTERS: Final[dict[str, Any]] = {"sqlstate": Sqlstate, "raw": RawSQLite}


def main(counter: str, path: str, number: str) -> None:
    """Increment so many times."""
    store = COUNTERS[counter](Path(path))
    print("ready", flush=True)
    sys.stdin.readline()
    spans = []
    for _ in range(int(number)):
        began = time.monotonic()
        store.increment()
        spans.append((began, time.monotonic()))
    store.close()
    json.dump(spans, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
