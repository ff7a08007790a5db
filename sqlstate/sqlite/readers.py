"""The connections that read: a pool, and the leases under which they are lent.

A connection in the pool runs no statement and has no read transaction. A lent connection belongs to a lease, and the
lease to a block or an object: it ends when that is gone. Nothing is done at that time, since the garbage collector may
run in the middle of anything. The next call that needs a reader, or close(), reclaims the connection. If SQLite says
that the connection still reads, because a statement was kept, the connection is closed and replaced.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from sqlstate.errors import StoreClosed, TransactionEnded
from sqlstate.files.living import Living
from sqlstate.sqlite import settings
from sqlstate.sqlite.blocks import Block
from sqlstate.sqlite.pages import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.connection import Connection, Journal, Row
    from sqlstate.sqlite.life import Life
    from sqlstate.sqlite.opener import Opener
    from sqlstate.sqlite.pages import Page
    from sqlstate.sqlite.settings import Caches

R = TypeVar("R")
T = TypeVar("T")

READERS_KEPT: Final = 8
READERS_LARGE: Final = 2  # a thread reads with one, even while it scans or has a snapshot
CACHE_LEAST: Final = 128 << 10
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
        caches: of the handle's connections.
    """

    def __init__(self, opener: Opener, life: Life, caches: Caches) -> None:
        self._opener = opener
        self._life = life
        self._caches = caches
        self._sharing = threading.Lock()
        self._large: list[Callable[[], Connection | None]] = [lambda: None] * READERS_LARGE
        self._idle: list[Connection] = []  # those with a large cache at the end, where they are taken first
        self._lent: dict[Over, Lent] = {}
        self._all: Final[Living[Connection]] = Living()
        self.gone: Final[deque[Over]] = deque()
        """Leases whose owner is gone. The garbage collector appends to it."""
        self.journal: Journal = "delete"

    @property
    def lent(self) -> list[Lent]:
        """The connections that are lent now."""
        return list(self._lent.values())

    # For one statement.

    def row(self, sql: str, values: Sequence[Any]) -> Row | None:
        """Return the first row of a statement on the newest commit, or None."""
        # In the ordinary case it does itself what acquire() and release() do: a get has no time for more calls.
        idle, ordinary = self._idle, self._life.ordinary
        try:
            connection = idle.pop() if ordinary and not self.gone else self.acquire()
        except IndexError:
            connection = self.acquire()
        row = connection.row(sql, values)
        if idle or not ordinary:
            self.release(connection)
        else:
            idle.append(connection)
        return row

    def acquire(self) -> Connection:
        """Return an unused connection for one statement; release() it after that.

        If the statement raises, release() is not needed: the connection is closed with its last reference.
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
            # In one line: `with` is ended by steps of its own, and those of a line of its own can be interrupted.
            with self._sharing: connection.cache = self._share(connection)  # noqa: E701  # fmt: skip
            settings.apply(connection, self.journal, read_only=True, cache=connection.cache)
            return connection

    def _share(self, connection: Connection) -> int:
        """Return how many bytes of pages *connection*, which was just opened, may cache."""
        for at, large in enumerate(self._large):
            there = large()
            if there is None or not there.cache:
                self._large[at] = weakref.ref(connection)
                return self._caches.reader
        return max(CACHE_LEAST, self._caches.others // max(READERS_KEPT, len(self._all)))

    def release(self, connection: Connection) -> None:
        """Return a connection from acquire() to the pool. No statement runs on it."""
        idle = self._idle
        if idle and connection.cache < self._caches.reader:
            idle.insert(0, connection)
        else:
            idle.append(connection)
        if len(idle) > READERS_KEPT or self._life.closed:
            with suppress(IndexError):  # another thread took it
                idle.pop(0).interrupt_and_close()
        if self._opener.frozen is not None:
            self._opener.check_unchanged()

    # For several statements.

    def begin_lease(self, over: Over, use: str) -> Connection:
        """Return a connection that sees one committed state, until end_lease() is called or *over* is dead."""
        self._lent[over] = Lent(self.acquire(), use, time.monotonic(), threading.get_ident())
        connection = self._lent[over].connection
        connection.run("BEGIN")  # it sees one committed state from its first read on
        return connection

    def end_lease(self, over: Over) -> None:
        """End a lease. Idempotent."""
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
        """End the leases whose owners are gone."""
        gone = None
        try:
            with suppress(IndexError):  # another thread reclaims too
                while True:
                    gone = self.gone.popleft()
            for over in list(self._lent):
                if over() is None:
                    self.end_lease(over)
        except BaseException:
            if gone is not None:
                self.gone.append(gone)  # the next call tries again
            raise

    def reading(self) -> ReadBlock:
        """Return a block with a connection that sees one committed state."""
        return ReadBlock(self)

    def of_log(self, read: Callable[[Connection], R]) -> R:
        """Return what *read* returns of tables that are only appended to, and cut at their beginning."""
        with self.reading() as connection:
            return read(connection)

    def scan(self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R) -> Iterator[T]:
        """Yield rows of one committed state, read in chunks, each by a statement that has ended.

        Args:
            read: returns rows, and the rest that is left to read, None at the end.
            rest: what to read first.
        """
        self._life.check()
        return Rows.of(self._pages(read, rest))

    def _pages(
        self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R
    ) -> Generator[Page[T], None, None]:
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
            page.release = lease.end
            if life.closed:  # meanwhile
                raise ended(life, "the scan")
            try:
                yield page
            finally:
                page.clear()
            if page.failed:
                return
            if life.closed:
                raise ended(life, "the scan")
            life.check_forked()

    def close_all(self, timeout: float) -> bool:
        """Close all connections, also lent ones: running statements are interrupted, later ones refused.

        The handle is closed already, so that no new connections are made. Returns True if all were closed in time.
        """
        self._idle.clear()
        until = time.monotonic() + timeout
        while True:
            left = [connection for connection in self._all.members() if not connection.interrupt_and_close()]
            if not left:
                self._lent.clear()
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(CLOSING_LOOK_SECONDS)


class Lease:
    """The right to a connection that sees one committed state, until end() or until the object is dropped.

    Args:
        readers: the pool.
        use: what for, in messages.
    """

    __slots__ = ("__weakref__", "_over", "_readers", "connection")

    def __init__(self, readers: Readers, use: str) -> None:
        self._readers = readers
        self._over = weakref.ref(self, readers.gone.append)
        try:
            self.connection: Connection = readers.begin_lease(self._over, use)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Give the connection back. Idempotent."""
        self._readers.end_lease(self._over)


class ReadBlock(Block):
    """A block with a connection that sees one committed state."""

    __slots__ = ("_readers",)

    def __init__(self, readers: Readers) -> None:
        super().__init__(readers.gone.append)
        self._readers = readers

    def enter(self) -> Connection:
        """Begin a read transaction."""
        try:
            return self._readers.begin_lease(self.over, "a snapshot")
        except BaseException:
            self._readers.end_lease(self.over)
            raise

    def leave(self, *_: object) -> None:
        """End the read transaction."""
        self._readers.end_lease(self.over)


def ended(life: Life, what: str) -> TransactionEnded:
    """Return the error for the next step of an iterator whose store was closed."""
    return TransactionEnded(f"{life.path}: {what} has ended: the store was closed")
