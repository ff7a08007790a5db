"""sqlstate, through its public face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import sqlstate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.baselines.protocol import Entry

COLLECTION: Final = "bench"


class Sqlstate:
    """One collection of a store.

    Args:
        path: its file.
        mode: how its commits are made.
    """

    def __init__(self, path: Path, mode: Literal["full", "group"] = "full") -> None:
        self.path = path
        self.store: sqlstate.Store
        self._mode: Final = mode

    def open(self) -> None:
        """Open it, making it if there is none; after a kill, repair it."""
        self.store = sqlstate.open(self.path, mode=self._mode)

    def put(self, key: str, value: bytes) -> None:
        """Put one entry durably."""
        self.store[COLLECTION][key] = value

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        value: bytes = self.store[COLLECTION][key]
        return value

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one durable transaction."""
        self.store[COLLECTION].update(entries)

    def batch(self, entries: Sequence[Entry]) -> None:
        """Put each entry in a transaction of its own, with one durability point at the end."""
        with self.store.batch() as batch:
            for key, value in entries:
                batch.put(COLLECTION, key, value)

    def delete(self, key: str) -> None:
        """Delete an entry that is there, durably."""
        del self.store[COLLECTION][key]

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""
        return sum(1 for _ in self.store[COLLECTION].items())

    def count(self) -> int:
        """Return the number of entries."""
        return len(self.store[COLLECTION])

    def close(self) -> None:
        """Close it cleanly."""
        self.store.close()
