"""Begins and ends SQLite transactions on the writing connection, and knows the newest commit."""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any

from sqlstate.commit.dirty_flag import FlagKeeper
from sqlstate.commit.log_limit import LogLimit
from sqlstate.commit.node_cache import UNKNOWN, NodeCache
from sqlstate.errors import StoreError, StoreFull
from sqlstate.tables import wal, wal_digests

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta


class WriteContext:
    """What the commits of one open store have in common.

    Args:
        engine: the store's connections.
        meta: the store's facts.
        flag: keeps its dirty flag; None for that of a file.
    """

    __slots__ = (
        "_made", "_newest", "digest_logs", "dirty_flag", "engine", "log", "meta", "node_cache", "open_blocks", "total",
    )  # fmt: skip

    digest_logs: frozenset[str]
    """Collections of whose values the log keeps the digests only, since begin()."""

    total: int
    """Bytes of all records up to the newest commit, about, since begin(); and what counts to the next one."""

    def __init__(self, engine: Engine, meta: Meta, flag: FlagKeeper | None = None) -> None:
        self.engine: Engine = engine
        self.meta: Meta = meta
        self.dirty_flag: FlagKeeper = flag or FlagKeeper(engine, meta)
        self.node_cache: NodeCache = NodeCache()
        self.open_blocks: OpenBlocks = OpenBlocks()
        self.log: LogLimit = LogLimit(meta)
        self.total = 0
        self.digest_logs = frozenset()
        self._newest: tuple[int, Head] | None = None  # what begin() returns if nobody committed since
        self._made: dict[int, Head] = {}  # by thread: the head of its last COMMIT, until the call returns

    def begin(self) -> tuple[int, Head]:
        """Begin a transaction on the writing connection; return the greatest LSN and the newest commit.

        Raises:
            Busy: another process held SQLite's write lock for the whole timeout.
        """
        if self.dirty_flag.begin() and self._newest is not None:
            return self._newest
        try:
            lsn, head, self.total = wal.end(self.engine.write_connection, self.meta)
            self.digest_logs = wal_digests.collections(self.engine.write_connection)
            self.log.load(self.engine.write_connection)
        except BaseException:
            self.engine.write_connection.rollback()
            raise
        return lsn, head

    def commit(self, head: Head, lsn: int, total: int, transactions: int = 1) -> None:
        """Commit the open transaction durably as the commit *head*.

        Args:
            head: of the commit.
            lsn: number of its last record.
            total: bytes of all records up to that one, about.
            transactions: how many it carries.

        Raises:
            Busy, StoreFull: nothing was committed.
            CommitOutcomeUnknown, StoreIOError: as Engine.commit() and FlagKeeper.after_commit().
        """
        self._newest = None
        start = self.log.start
        if self.log.is_due(head.seq, total):
            start = self.log.cut(self.engine.write_connection, head.seq, total)
        self._made[get_ident()] = head
        try:
            self.engine.commit(head.seq, head.chain)
        except StoreFull:
            # In a rollback-journal store SQLite truncates the file after the commit, and that can fail.
            if self.engine.journal == "wal" or wal.last(self.engine.write_connection, self.meta)[1] != head:
                raise
        self._newest = lsn, head
        self.total, self.log.start = total, start
        self.engine.counters.committed(transactions)
        self.dirty_flag.after_commit(head.seq, head.chain, lsn)

    def commit_unnumbered(self, what: str, newest: tuple[int, Head] | None = None) -> None:
        """Commit the open transaction durably, without a numbered commit.

        Args:
            what: what it makes instead, for messages.
            newest: what begin() returns from then on, if the caller knows it: looking it up takes longer with each
                staged record behind the newest commit.

        Raises:
            Busy, StoreFull: nothing was committed.
            StoreIOError: as Engine.commit_unnumbered() and FlagKeeper.after_commit().
        """
        self._newest = None
        try:
            self.engine.commit_unnumbered(what)
            lsn, head = newest or (0, None)
            self.dirty_flag.after_commit(chain=b"" if head is None else head.chain, lsn=lsn)
            self._newest = newest
        except StoreError:
            raise
        except BaseException as e:
            # The transaction was open before. If it is closed now, COMMIT was done.
            if self.engine.usable and not self.engine.write_connection.in_transaction():
                e.add_note(f"sqlstate: {what} was done before this exception, and is durable")
            raise

    def nothing_made(self) -> None:
        """Forget this thread's last commit, at the beginning of a call: note_outcome() names only later ones."""
        self._made.pop(get_ident(), None)

    def made(self, head: Head) -> None:
        """Note that another thread made a commit for this one."""
        self._made[get_ident()] = head

    def note_outcome(self, error: BaseException) -> None:
        """Add a note to *error*, which interrupted a commit, if the commit was made all the same.

        Errors of sqlstate are left as they are. The caller holds the writer lock, or has just released it. SQLite is
        asked whether the commit is there: nothing else knows.
        """
        head = self._made.pop(get_ident(), None)
        if isinstance(error, StoreError):
            return
        self.node_cache.valid_for(UNKNOWN)
        if head is None or not self.engine.usable:
            return
        made = None
        with suppress(StoreError), self.engine.reading() as connection:
            made = wal.commit(connection, head.seq)
        if made is not None and made.chain == head.chain:
            self._newest = None
            error.add_note(f"sqlstate: commit {head.seq} was made before this exception, and is durable")


class OpenBlocks:
    """The transactions and batches that the holder of the writer lock has open, nested in each other.

    Each is open as long as its block, even if an exception cut the block's end short.
    """

    __slots__ = ("opened",)

    opened: tuple[int, tuple[tuple[Any, Over], ...]]
    """A thread, and its stack: nothing is open while that is empty."""

    def __init__(self) -> None:
        self.opened = (0, ())

    def innermost(self) -> Any:
        """Return what this thread opened last and still has open, or None."""
        thread, stack = self.opened
        if not stack or thread != get_ident():
            return None
        while stack and stack[-1][1]() is None:
            stack = stack[:-1]
        return stack[-1][0] if stack else None

    def push(self, what: Any, over: Over) -> None:
        """Note that this thread has opened *what*, until *over* is dead."""
        thread, stack = self.opened
        below = stack if thread == get_ident() else ()
        self.opened = get_ident(), (*(each for each in below if each[1]() is not None), (what, over))

    def remove(self, over: Over | None) -> None:
        """Note that a block is over. Idempotent."""
        thread, stack = self.opened
        self.opened = thread, tuple(each for each in stack if each[1] is not over)
