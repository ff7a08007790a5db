"""The connections that read: a pool, and the leases by which they are lent.

A connection in the pool runs no statement and reads no state. What is lent is owned by a lease: it belongs to a block
or an object, and once that is gone, so is the lease. Nothing is done at that moment, which may be in the midst of
anything: the garbage collector may run it. Whoever asks for a reader next, or closes the store, takes the connection
back; if SQLite says that it still reads, because somebody kept a statement, it is closed and replaced.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sqlstate.errors import StoreClosed, TransactionEnded
from sqlstate.sqlite import settings
from sqlstate.sqlite.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.connection import Connection, Journal
    from sqlstate.sqlite.life import Life
    from sqlstate.sqlite.opener import Opener
    from sqlstate.sqlite.pages import Page

R = TypeVar("R")
T = TypeVar("T")

READERS_KEPT: Final = 8
CLOSING_LOOK_SECONDS: Final = 0.001


class Lent(NamedTuple):
    """A connection that is lent, and what for."""

    connection: Connection
    use: str
    since: float
    thread: int


class Readers:
    """The connections of one open store that read.

    Args:
        opener: opens connections.
        life: of the handle.
    """

    def __init__(self, opener: Opener, life: Life) -> None:
        self._opener = opener
        self._life = life
        self._idle: list[Connection] = []
        self._lent: dict[Over, Lent] = {}
        self._all: weakref.WeakSet[Connection] = weakref.WeakSet()
        self.gone: Final[deque[Over]] = deque()
        """Leases whose owner is gone; what the garbage collector appends to."""
        self.journal: Journal = "delete"

    @property
    def lent(self) -> list[Lent]:
        """What is lent at this moment."""
        return list(self._lent.values())

    # For one statement, which ends before anything else happens.

    def acquire(self) -> Connection:
        """Return a connection that nobody else uses, for one statement; release() it after that.

        If the statement raises, there is no need to: the connection is closed when the last reference is dropped.
        """
        if self.gone:
            self.reclaim()
        if not self._life.usable:
            self._life.check()
        if self._opener.frozen is not None:
            self._opener.check_unchanged()
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._opener.open()
            self._all.add(connection)
            if self._life.closed:  # meanwhile
                connection.close()
                self._life.check()
            settings.apply(connection, self.journal, read_only=True)
            return connection

    def release(self, connection: Connection) -> None:
        """Put back a connection from acquire(), on which nothing runs."""
        if len(self._idle) < READERS_KEPT and not self._life.closed:
            self._idle.append(connection)
        else:
            connection.interrupt_and_close()
        if self._opener.frozen is not None:
            self._opener.check_unchanged()

    # For more than one.

    def begin_lease(self, over: Over, use: str) -> Connection:
        """Return a connection that sees one committed state, until end_lease() is called or *over* is dead."""
        self._lent[over] = Lent(self.acquire(), use, time.monotonic(), threading.get_ident())
        connection = self._lent[over].connection
        connection.begin_read()
        return connection

    def end_lease(self, over: Over) -> None:
        """End what begin_lease() began. Twice does nothing."""
        lent = None
        try:
            lent = self._lent.pop(over, None)  # it is this thread's alone now
            if lent is None or self._life.forked:
                return
            clean = lent.connection.clean()
        except BaseException:
            if lent is not None:
                lent.connection.interrupt_and_close()
            raise
        if clean:
            self.release(lent.connection)
        else:
            lent.connection.interrupt_and_close()

    def reclaim(self) -> None:
        """Take back what was lent to those who are gone."""
        gone = None
        try:
            with suppress(IndexError):  # another thread is at it too
                while True:
                    gone = self.gone.popleft()
            for over in list(self._lent):
                if over() is None:
                    self.end_lease(over)
        except BaseException:
            if gone is not None:
                self.gone.append(gone)  # the next one looks again
            raise

    def reading(self) -> ReadBlock:
        """Return a block with a connection that sees one committed state."""
        return ReadBlock(self)

    def scan(self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R) -> Iterator[T]:
        """Yield rows of one committed state, read in chunks, each by a statement that has ended.

        Args:
            read: returns rows, and what is left to be read behind them, None for nothing.
            rest: what is to be read.
        """
        self._life.check()
        return chain.from_iterable(self._pages(read, rest))

    def _pages(self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R) -> Iterator[Page[T]]:
        life = self._life
        lease: Lease | None = None
        left: R | None = rest
        while left is not None:
            try:
                lease = lease or Lease(self, "a scan")
                rows, left = read(lease.connection, left)
                if left is None:
                    lease.end()
            except BaseException as e:
                if lease is not None:
                    lease.end()
                if life.closed and isinstance(e, StoreClosed):
                    raise ended(life, "the scan") from e
                raise
            page = life.pages.shown(rows)
            if life.closed:  # meanwhile
                raise ended(life, "the scan")
            yield page
            if life.closed:
                raise ended(life, "the scan")
            life.check_forked()

    def close_all(self, timeout: float) -> bool:
        """Close all of them, also those that are lent: what runs on them is interrupted, and refused from then on.

        The handle is closed already, so nobody takes another one. Returns whether all were closed in time.
        """
        self._idle.clear()
        until = time.monotonic() + timeout
        while True:
            left = [connection for connection in list(self._all) if not connection.interrupt_and_close()]
            if not left:
                self._lent.clear()
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(CLOSING_LOOK_SECONDS)


class Lease:
    """The right to a connection that sees one committed state, for as long as somebody has this object, or to end().

    Args:
        readers: where it comes from.
        use: what for, in messages.
    """

    __slots__ = ("__weakref__", "_over", "_readers", "connection")

    def __init__(self, readers: Readers, use: str) -> None:
        self._readers = readers
        self._over = weakref.ref(self, readers.gone.append)
        try:
            self.connection = readers.begin_lease(self._over, use)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Give the connection back. Twice does nothing."""
        self._readers.end_lease(self._over)


class ReadBlock(Block):
    """A block with a connection that sees one committed state."""

    __slots__ = ("_readers",)

    def __init__(self, readers: Readers) -> None:
        super().__init__(readers.gone.append)
        self._readers = readers

    def enter(self) -> Connection:
        """Begin to read."""
        try:
            return self._readers.begin_lease(self.over, "a snapshot")
        except BaseException:
            self._readers.end_lease(self.over)
            raise

    def leave(self, *_: object) -> None:
        """Let go of the state."""
        self._readers.end_lease(self.over)


def ended(life: Life, what: str) -> TransactionEnded:
    """Return what to raise for the next step of an iterator whose store was closed."""
    return TransactionEnded(f"{life.path}: {what} has ended: the store was closed")
