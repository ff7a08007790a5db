"""The root of the tree over the entries that the records of the log make, commit by commit (I8).

It shares no code with the tree that commits write, so that the one tests the other.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from sqlstate.format.merkle import RootBuilder, leaf, rank
from sqlstate.format.names import name_bytes, stored_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head


class LogRoots:
    """The entries as the records so far make them; each root is hashed from all of them."""

    def __init__(self) -> None:
        self._names: list[Name] = []  # in order
        self._entries: dict[Name, tuple[bytes, int]] = {}  # leaf and rank

    def put(self, name: Name, raw: bytes, leaf: bytes | None) -> None:
        """Set the leaf of an entry, whose `name_bytes()` is *raw*; None removes the entry."""
        if leaf is None:
            if self._entries.pop(name, None) is not None:
                del self._names[bisect_left(self._names, name)]
        elif (there := self._entries.get(name)) is not None:
            self._entries[name] = leaf, there[1]
        else:
            insort(self._names, name)
            self._entries[name] = leaf, rank(raw)

    def root(self) -> tuple[bytes, int]:
        """Return the root and the number of entries."""
        builder = RootBuilder()
        for name in self._names:
            builder.add(*self._entries[name])
        return builder.finish()


class LaterRoots:
    """The roots of a log that was cut: made once its records tell how the entries were where it begins.

    It holds the leaves of all changes in the log.
    """

    def __init__(self) -> None:
        self._commits: list[tuple[Head, list[tuple[Name, bytes, bytes | None]]]] = []
        self._changes: list[tuple[Name, bytes, bytes | None]] = []
        self._first: dict[Name, tuple[bytes, bytes | None]] = {}

    def add(self, name: Name, raw: bytes, before: bytes | None, after: bytes | None) -> None:
        """Take the leaves of an entry before and after a change, whose `name_bytes()` is *raw*."""
        self._first.setdefault(name, (raw, before))
        self._changes.append((name, raw, after))

    def close(self, said: Head) -> None:
        """Take the commit that the changes since the last one belong to."""
        self._commits.append((said, self._changes))
        self._changes = []

    def roots(self, entries: Iterable[tuple[str, Key, Stored]], start: Head) -> Iterator[tuple[Head, bytes, int]]:
        """Yield each commit, from *start* on, with the root and the number of entries that the records make.

        *entries* are those of the newest commit.
        """
        roots = LogRoots()
        for collection, key, stored in entries:
            name = stored_name(collection, key)
            if name not in self._first:
                raw = name_bytes(name)
                roots.put(name, raw, leaf(raw, stored))
        for name, (raw, before) in self._first.items():
            roots.put(name, raw, before)
        yield start, *roots.root()
        for said, changes in self._commits:
            for change in changes:
                roots.put(*change)
            yield said, *roots.root()
