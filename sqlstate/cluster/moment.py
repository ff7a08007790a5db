"""A view of one commit of a cluster, over many requests: the newest state, and what the log says was there before."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sqlstate.errors import TransactionEnded
from sqlstate.sqlite.pages import Pages
from sqlstate.store.past.at import Changed, OpenPast, commit_at
from sqlstate.tables import wal, wal_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlstate.cluster.engine import ClusterEngine
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Meta
    from sqlstate.tables.wal_changes import Logged

R = TypeVar("R")
T = TypeVar("T")


class OpenMoment(OpenPast):
    """The private side of a view of a commit of a cluster. Each step reads one moment, and what was changed since.

    Args:
        engine: of the store.
        meta: the store's facts.
        when: number of a commit, or a time; None for the newest.

    Raises:
        InvalidOption: there is no such commit, or the time has no time zone.
    """

    __slots__ = ("_connection", "_engine", "_meta", "_seen")

    def __init__(self, engine: ClusterEngine, meta: Meta, when: int | datetime | None = None) -> None:
        self._engine = engine
        self._meta = meta
        self._life = engine.life
        self._ended = False
        self._pages = Pages()
        self.store_id = meta.store_id
        self._connection: Connection | None = None  # while something is read
        self._changed = Changed({})
        self._seen, self.head = engine.readers.of_log(lambda connection: self._find(connection, when))
        self.newest = self.head

    def _find(self, connection: Connection, when: int | datetime | None) -> tuple[int, Head]:
        """Return the last record of the commit, or a later one that is of none, and the commit."""
        lsn, newest = wal.last(connection, self._meta)
        seq = newest.seq if when is None else commit_at(connection, when, newest.seq)
        if seq == newest.seq:
            return lsn, newest
        head = wal.head_of(connection, self._meta, seq)
        assert head is not None  # noqa: S101, the newest is there, and numbers have no holes (I4)
        return wal.commit_lsn(connection, seq), head

    def _at_once(self, step: Callable[[], T]) -> T:
        """Return what *step* returns, which reads at one moment."""
        if self._connection is not None:
            return step()
        self.check_open()
        self._engine.readers.of_log(self._catch_up)  # so that little is left to do at one moment
        return self._engine.readers.steadily(lambda: self._stepped(step))

    def _catch_up(self, connection: Connection) -> None:
        """Read what was changed since the commit, as far as that was not read before."""
        lsn, newest = wal.last(connection, self._meta)
        if newest == self.newest:
            return
        wal.check_kept(connection, self.newest.seq)
        touched = dict(self._changed.touched)
        for name, touch in wal_changes.together(connection, self._seen, lsn).items():
            touched[name] = touched[name].then(touch) if name in touched else touch
        self._changed, self._seen, self.newest = Changed(touched), lsn, newest

    def _stepped(self, step: Callable[[], T]) -> T:
        with self._engine.reading() as connection:
            self._catch_up(connection)
            self._connection = connection
            try:
                return step()
            finally:
                self._connection = None

    def check_open(self) -> None:
        """Raise if the view or the store has ended."""
        if self._ended:
            self._life.check_forked()
            raise TransactionEnded("the view has ended; take one with store.snapshot() or store.at()")
        self._life.check()

    def reader(self) -> Connection:
        """Return the connection that reads the moment."""
        self.check_open()
        return self._engine.readers.acquire() if self._connection is None else self._connection

    def get_logged(self, name: Name) -> Logged:
        """Return the value that an entry had, as stored, or None; its leaf if the log has that alone."""
        return self._at_once(lambda: super(OpenMoment, self).get_logged(name))

    def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the value that each entry had, as stored, or None."""
        return self._at_once(lambda: super(OpenMoment, self).get_many_stored(names))

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries that there were in [start, stop)."""
        return self._at_once(lambda: super(OpenMoment, self).count(start, stop))

    def collections(self) -> list[str]:
        """Return the names of all collections that had entries."""
        return self._at_once(super().collections)

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a block with a connection that reads the log, up to now."""
        return self._engine.reading()

    def close(self) -> None:
        """End its iterators."""
        self._ended = True
        self._pages.clear()

    def _rows(self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R) -> Iterator[T]:
        def step(_: Connection, left: R) -> tuple[list[T], R | None]:
            return self._at_once(lambda: read(self.reader(), left))

        return super()._rows(step, rest)
