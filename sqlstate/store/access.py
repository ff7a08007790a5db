"""What collections read and write through: the object behind a store, a transaction, a batch or a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.tables.state import Span

R = TypeVar("R")


class Reads(Protocol):
    """What a collection reads through: a store, a transaction or a snapshot."""

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""

    def scan(self, span: Span, *, values: bool) -> Iterator[tuple[Key, Stored]]:
        """Yield (key, stored value) in order."""

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""


class Writes(Reads, Protocol):
    """An open transaction."""

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry."""

    def delete_stored(self, name: Name) -> None:
        """Delete an entry, if there is one."""


class Writable(Reads, Protocol):
    """What a collection writes through: a store or a transaction."""

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry: a transaction of its own, or part of the one that is open."""

    def run(self, work: Callable[[Writes], R]) -> R:
        """Return what *work* returns of one transaction, made for it, or of the one that is open.

        It may be called in another thread. It changes nothing if it raises.
        """

    def writing(self) -> AbstractContextManager[Writes]:
        """Return a block whose writes are one transaction, or part of the one that is open.

        An exception in the block undoes those of the block alone.
        """
