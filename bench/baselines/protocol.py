"""What a store must do to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Entry = tuple[str, bytes]


class Baseline(Protocol):
    """A store at a path of its own: a file with its sidecars, or a folder."""

    path: Path

    def open(self) -> None:
        """Open it, making it if there is none; after a kill, repair it."""

    def put(self, key: str, value: bytes) -> None:
        """Put one entry, as durably as this store is said to be."""

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* in one transaction."""

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""

    def close(self) -> None:
        """Close it cleanly."""


class Ordered(Baseline, Protocol):
    """A baseline that also deletes and counts."""

    def delete(self, key: str) -> None:
        """Delete an entry that is there, durably."""

    def count(self) -> int:
        """Return the number of entries."""
