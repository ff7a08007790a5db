"""The engine of a store on a cluster: who reads and who writes, and what became of a commit whose reply was lost."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlstate.cluster.connection import ClusterConnection
from sqlstate.cluster.nodes import Lost
from sqlstate.cluster.reads import Moment
from sqlstate.commit.dirty_flag import FlagKeeper
from sqlstate.commit.requests import Overtaken, until_first
from sqlstate.errors import Busy, CommitOutcomeUnknown, StoreError, StoreIOError
from sqlstate.format import constants as fmt
from sqlstate.sqlite.connection import OutcomeUnknown
from sqlstate.sqlite.counters import Counting
from sqlstate.sqlite.engine import Engine
from sqlstate.sqlite.life import Life, Watchers
from sqlstate.sqlite.readers import Lent, Readers
from sqlstate.sqlite.writer_lock import WriterLock
from sqlstate.tables import cut_commits, wal, wal_chain
from sqlstate.tables import meta as metadata
from sqlstate.tables.meta import DirtyFlag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlstate.cluster.nodes import Nodes
    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import Meta

R = TypeVar("R")
T = TypeVar("T")

_NONCE: Final = slice(1, 1 + fmt.NONCE_BYTES)  # in a marker


class ClusterEngine(Engine):
    """The connections of one store on a cluster.

    Args:
        nodes: of the cluster.
        read_only: writes are refused.
    """

    write_connection: ClusterConnection
    readers: ClusterReaders

    def __init__(self, nodes: Nodes, *, read_only: bool) -> None:
        self.nodes: Nodes = nodes
        self.path = self.real_path = nodes.name
        self.sqlite_version = "the nodes'"
        self.vfs = None
        self.read_only = read_only
        self.journal = "wal"
        self.timeout = nodes.timeout
        self.life = Life(self.path, read_only=read_only)
        self.counters = Counting()
        self.watchers = Watchers()
        self._seen_in_loop = False
        self.writer_lock = WriterLock()
        self.write_connection = ClusterConnection(nodes)
        self.readers = ClusterReaders(nodes, self.life)
        self.files = _Files(self)  # type: ignore[assignment]  # what stats() asks of them
        self.watch_forks()

    def commit(self, seq: int, chain: bytes) -> None:
        """Commit the open transaction as commit *seq* with *chain*.

        Raises:
            Overtaken, TooLarge, StoreFull, StoreIOError: nothing was changed.
            CommitOutcomeUnknown: the cluster could not be asked in time; the handle refuses further work.
        """
        try:
            self.write_connection.commit()
        except Overtaken:  # maybe by itself: on its way, rqlite may send a request twice
            if not self._found(seq, chain, "the cluster refused it"):
                raise
        except OutcomeUnknown as e:
            if not self._found(seq, chain, str(e), fenced=False):
                raise self._lost() from e
        except StoreError:
            raise
        except BaseException:  # Ctrl-C while the reply was waited for: the next look at the log must be final
            self._fence_within_timeout()
            raise
        self.watchers.ring()

    def commit_unnumbered(self, what: str) -> None:
        """Commit the open transaction without a numbered commit; *what* says what it makes, for messages.

        Raises:
            Overtaken, TooLarge, StoreFull: nothing was changed.
            StoreIOError: the outcome is not known, and the handle refuses further work; or nothing was changed.
        """
        connection = self.write_connection
        before = connection.moment
        try:
            connection.commit()
        except Overtaken:  # maybe by itself, as in commit()
            connection.rollback()
            if connection.value(f"SELECT {metadata.MARKER}")[_NONCE] != connection.nonce:
                raise
        except OutcomeUnknown as e:
            marker = self._fence_within_timeout()
            if marker is not None and marker[_NONCE] == connection.nonce:
                return
            if before is None or marker != before.marker:
                self.life.fail(f"{what} may or may not have been done")
                raise StoreIOError(
                    f"{self.path}: {what} may or may not have been done ({e}); this handle refuses further work. Open "
                    "the store again to see"
                ) from e
            raise self._lost() from e

    def fence(self) -> bytes:
        """Renew the marker, so that no write that was sent before can be done from now on; return the one before.

        Raises:
            Lost: it may have been done or not.
            Busy: no node could be reached.
        """
        renew = metadata.renew_marker(os.urandom(fmt.NONCE_BYTES), wal_chain.LAST_LSN)
        return self.nodes.exchange_marker(renew)

    def _fence_within_timeout(self) -> bytes | None:
        """Do as fence() does, again and again until the timeout; return None if it could not be done."""
        until = time.monotonic() + self.timeout
        while True:
            with suppress(Lost, Busy):
                return self.fence()
            if time.monotonic() >= until:
                return None

    def _found(self, seq: int, chain: bytes, cause: str, *, fenced: bool = True) -> bool:
        """Return True if the commit was made; False if it was not, and never will be.

        *fenced* says that it cannot be made any more.

        Raises:
            CommitOutcomeUnknown: the cluster could not be asked in time.
        """
        self.write_connection.rollback()
        if fenced or self._fence_within_timeout() is not None:
            until = time.monotonic() + self.timeout
            while time.monotonic() < until:
                with suppress(StoreError):
                    return self.readers.steadily(lambda: self.holds(seq, chain))
        self.life.fail(f"what became of commit {seq} is not known")
        raise CommitOutcomeUnknown(seq, cause, chain)

    def holds(self, seq: int, chain: bytes) -> bool:
        """Return True if commit *seq* with *chain* is in the log, or was cut from it."""
        with self.reading() as connection:
            there = wal.commit(connection, seq)
            return cut_commits.holds(connection, chain) if there is None else there.chain == chain

    def _lost(self) -> Overtaken:
        return Overtaken(self.path)

    def stop(self) -> None:
        """Refuse all further work."""
        self.life.close()
        self.watchers.ring()
        self.nodes.close()

    def close(self, *, fold: bool = False) -> None:
        """Do nothing: stop() closed all there is."""

    @property
    def connected(self) -> bool:
        """Whether it is open."""
        return not self.life.closed


class _Files:
    """Stands for the files next to a store: there are none."""

    def __init__(self, engine: ClusterEngine) -> None:
        self._engine = engine

    def size(self, suffix: str = "") -> int:
        """Return the size of a node's file, as it is without free space behind its end; 0 of others."""
        if suffix:
            return 0
        with self._engine.reading() as connection:
            return int(connection.value("PRAGMA page_count") * connection.value("PRAGMA page_size"))


class ClusterReaders(Readers):
    """Reads of one store on a cluster.

    Args:
        nodes: of the cluster.
        life: of the handle.
    """

    def __init__(self, nodes: Nodes, life: Life) -> None:
        self._nodes = nodes
        self._life = life
        self._lent: dict[Over, Lent] = {}
        self._steady = threading.local()
        self.gone = deque()  # type: ignore[misc]
        self.journal = "wal"

    def row(self, sql: str, values: Sequence[Any]) -> Row | None:
        """Return the first row of a statement on the newest commit, or None."""
        return self.acquire().row(sql, values)

    def acquire(self) -> ClusterConnection:
        """Return a connection."""
        if self.gone:
            self.reclaim()
        self._life.check()
        return ClusterConnection(self._nodes)

    def release(self, connection: Connection) -> None:
        """Do nothing: a connection holds nothing."""

    def begin_lease(self, over: Over, use: str) -> ClusterConnection:
        """Return a connection that reads one moment, until end_lease() is called or *over* is dead."""
        connection = self.acquire()
        connection.begin_reading(getattr(self._steady, "expected", ()))
        self._lent[over] = Lent(connection, use, time.monotonic(), threading.get_ident())
        return connection

    def end_lease(self, over: Over) -> None:
        """End a lease. Idempotent."""
        lent = self._lent.pop(over, None)
        if lent is None:
            return
        assert isinstance(lent.connection, ClusterConnection)  # noqa: S101, begin_lease() made it
        if hasattr(self._steady, "expected"):
            self._steady.expected = lent.connection.asked
        lent.connection.rollback()

    def steadily(self, work: Callable[[], T]) -> T:
        """Return what *work* returns once all that it reads in a block is of one moment.

        If another commit comes between its reads, it is called again, and what it asked before is asked at once: that
        is of one moment.

        Raises:
            Busy: commits came between for the whole timeout.
        """
        if hasattr(self._steady, "expected"):  # inside another one, which is done again as a whole
            return work()
        self._steady.expected = []
        try:
            return until_first(work, self._nodes.timeout)
        except Overtaken:
            raise Busy(
                f"{self._life.path}: other commits came between what was read for {self._nodes.timeout:g} s; nothing "
                "was changed. Try again"
            ) from None
        finally:
            del self._steady.expected

    def of_log(self, read: Callable[[Connection], R]) -> R:
        """Return what *read* returns of tables that are only appended to, and cut at their beginning.

        Rows are never changed, so it makes no difference of which moments they were read, unless the log was cut
        meanwhile: then it is called again.
        """
        until = time.monotonic() + self._nodes.timeout
        while True:
            connection = self.acquire()
            start = metadata.read_log_start(connection)
            connection.begin_reading(loose=True)
            found = read(connection)
            connection.rollback()
            if metadata.read_log_start(connection) == start:
                return found
            if time.monotonic() >= until:
                raise Busy(f"{self._life.path}: the log was cut again and again while it was read; try again")

    def scan(self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R) -> Iterator[T]:
        """Yield rows, read in chunks, each of one moment: of tables that are only appended to."""
        self._life.check()
        return self._chunks(read, rest)

    def _chunks(self, read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R | None) -> Iterator[T]:
        while rest is not None:
            rows, rest = self.of_log(partial(_read_rest, read, rest))
            yield from rows

    def close_all(self, timeout: float) -> bool:  # noqa: ARG002
        """Forget all leases."""
        self._lent.clear()
        return True


def _read_rest(
    read: Callable[[Connection, R], tuple[list[T], R | None]], rest: R, connection: Connection
) -> tuple[list[T], R | None]:
    return read(connection, rest)


class ClusterFlag(FlagKeeper):
    """Stands for the dirty flag's keeper: on a cluster the flag is clean, and its nonce names the newest write.

    Args:
        engine: of the store.
        meta: the store's facts.
    """

    __slots__ = ("_moment",)

    _engine: ClusterEngine

    def __init__(self, engine: ClusterEngine, meta: Meta) -> None:
        self._engine = engine
        self._meta = meta
        self._schema = None
        self._moment: Moment | None = None  # after this handle's newest write
        self.recovery_due = False

    def begin(self) -> bool:
        """Begin a transaction; return True if this handle made the newest write."""
        connection = self._engine.write_connection
        connection.begin()
        if connection.moment == self._moment:
            return True
        try:
            self._check_schema()
        except BaseException:
            connection.rollback()
            raise
        return False

    def ensure_dirty(self) -> None:
        """Do nothing: the flag stays clean."""

    def renew(self) -> None:
        """Do nothing: each write renews it."""

    def after_commit(self, seq: int = 0, chain: bytes = b"", lsn: int = 0) -> None:  # noqa: ARG002
        """Note what the newest write was."""
        nonce = self._engine.write_connection.nonce
        self._moment = Moment(chain, metadata.marker_bytes(DirtyFlag(nonce=nonce, lsn=lsn))) if chain and lsn else None

    def clear(self) -> bool:
        """Do nothing: the flag is clean."""
        return True
