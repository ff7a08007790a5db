"""The root of the tree over the entries that the records of the log make, commit by commit (I8).

It shares no code with the tree that commits write, so that the one tests the other.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from sqlstate.format.merkle import RootBuilder, rank

if TYPE_CHECKING:
    from sqlstate.format.names import Name


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
