"""The entries of a store on a cluster, as they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sqlstate.cluster.moment import OpenMoment
from sqlstate.commit.requests import until_first
from sqlstate.store.entries import StoreEntries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from sqlstate.cluster.engine import ClusterEngine
    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Name, Stored
    from sqlstate.store.access import Made
    from sqlstate.store.open_transaction import OpenTransaction
    from sqlstate.store.past.at import OpenPast
    from sqlstate.tables.state import Span

T = TypeVar("T")


class ClusterEntries(StoreEntries):
    """The entries behind a ClusterStore: those of what this thread has open, or else of the newest commit."""

    _engine: ClusterEngine

    def __init__(self, group: GroupCommit[OpenTransaction], writer: WriteContext, engine: ClusterEngine) -> None:
        super().__init__(group, writer)
        self._engine = engine

    def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None, all of one moment."""
        return self._steadily(lambda: super(ClusterEntries, self).get_many_stored(names))

    def scan(self, span: Span, make: Made[T], *, values: bool) -> Iterator[T]:
        """Yield what *make* makes of (key, stored value), in order, all of one commit."""
        txn = self._own()
        return (self.snapshot() if txn is None else txn).scan(span, make, values=values)

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        return self._steadily(lambda: super(ClusterEntries, self).count(start, stop))

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, in order."""
        return self._steadily(super().collections)

    def snapshot(self) -> OpenMoment:
        """Return the newest commit, for reading."""
        return OpenMoment(self._engine, self.writer.meta)

    def at(self, when: int | datetime) -> OpenPast:
        """Return an earlier commit, for reading.

        Raises:
            InvalidOption: there is no such commit, or the time has no time zone.
        """
        return OpenMoment(self._engine, self.writer.meta, when)

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry: a transaction of its own, or part of the one that this thread has open."""
        self.until_first(lambda: super(ClusterEntries, self).put_stored(name, stored))

    def remove(self, name: Name) -> bool:
        """Delete an entry, as put_stored(); return whether there was one."""
        return self.until_first(lambda: super(ClusterEntries, self).remove(name))

    def run(self, work: Callable[[OpenTransaction], T], note: str = "") -> T:
        """Return what *work* returns of a transaction of its own, once that is durable, or of the one that is open."""
        return self.until_first(lambda: super(ClusterEntries, self).run(work, note))

    def until_first(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, which is done again, until the timeout, when another machine's commit came first.

        Inside a transaction of this thread it is done once.
        """
        if self._own() is not None:
            return work()
        return until_first(work, self._engine.timeout)

    def _steadily(self, work: Callable[[], T]) -> T:
        return work() if self._own() is not None else self._engine.readers.steadily(work)
