"""The engine of one open store: the connection that writes, those that read, the writer lock and checkpoints."""

from __future__ import annotations

import sys
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlstate.errors import (
    BlocksEventLoop,
    Busy,
    CannotOpen,
    CommitOutcomeUnknown,
    InvalidOption,
    ReadOnly,
    StoreError,
    StoreFull,
    StoreIOError,
    StoreUnusable,
)
from sqlstate.files import paths, system
from sqlstate.files.living import Living
from sqlstate.sqlite import main_file, settings
from sqlstate.sqlite.checkpoints import Checkpointer
from sqlstate.sqlite.connection import Journal, OutcomeUnknown
from sqlstate.sqlite.counters import Counting
from sqlstate.sqlite.life import Life, Watchers
from sqlstate.sqlite.main_file import HEADER_BYTES
from sqlstate.sqlite.opener import ImmutableFile, Opener
from sqlstate.sqlite.raw_file import read_at
from sqlstate.sqlite.readers import ReadBlock, Readers
from sqlstate.sqlite.settings import check_sqlite, check_vfs
from sqlstate.sqlite.sidecars import StoreFiles
from sqlstate.sqlite.writer_lock import WriterLock, thread_name

if TYPE_CHECKING:
    import os

    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.overlay import Pages


def _running_loop() -> str:
    """Return whose event loop this thread runs, or "". None is imported: one that was not cannot run."""
    if "ipykernel" in sys.modules:
        return ""  # cells of a notebook run inside a loop that has nothing else to do
    events, trio = sys.modules.get("asyncio.events"), sys.modules.get("trio.lowlevel")
    try:
        if events is not None and events._get_running_loop() is not None:  # noqa: SLF001, documented, and never raises
            return "asyncio"
        return "trio" if trio is not None and trio.in_trio_run() else ""
    except AttributeError:  # it is being imported, or has no such function
        return ""


def _level_outside() -> int:
    """Return which frame, counted from the caller's as 1, is the first outside of this package: the user's line."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001, as warnings itself does
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "sqlstate":
        level, frame = level + 1, frame.f_back
    return level


class Engine:
    """The connections of one open store: one that writes, and a pool of readers.

    Args:
        path: the file.
        read_only: open for reading; nothing is created or changed.
        create: make the file if there is none.
        timeout: seconds to wait for a lock before Busy.
        vfs: name of the SQLite VFS to use.
        cache_bytes: memory for SQLite's page caches.

    Raises:
        CannotOpen: one of its kinds; see errors.
        InvalidOption: there is no such VFS.
    """

    write_connection: Connection
    checkpointer: Checkpointer
    header: bytes

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool,
        create: bool,
        timeout: float,
        vfs: str | None = None,
        cache_bytes: int = settings.CACHE_BYTES,
    ) -> None:
        self.sqlite_version: str = check_sqlite()
        check_vfs(vfs)
        self.path: str = main_file.sqlite_path(path)
        self.read_only = read_only
        self.life: Life = Life(self.path, read_only=read_only)
        self.journal: Journal = "delete"
        self.recovered_frames: int = 0
        self.counters: Counting = Counting()
        self.watchers: Watchers = Watchers()
        """They are woken when this handle makes a commit, and when it is closed."""
        self.timeout = timeout
        self._seen_in_loop = False
        self.vfs = vfs
        self.writer_lock: WriterLock = WriterLock()
        # SQLite names the -wal after the file that a link leads to.
        self.real_path: str = paths.absolute(self.path, links=False)
        self.files: StoreFiles = StoreFiles(self.real_path, vfs, timeout)
        # In one line: `with` is ended by steps of its own, and those of a line of its own can be interrupted.
        with _opening: self._prepare(create=create and not read_only)  # noqa: E701  # fmt: skip
        self._caches = settings.Caches.of(cache_bytes)
        self.readers: Readers = Readers(self.opener, self.life, self._caches)

    def _prepare(self, *, create: bool) -> None:
        """Make sure that the file exists, and read its header."""
        if create:
            self.files.refuse_strangers(self.path)
        main_file.prepare(self.path, create=create)
        self.opener: Opener = Opener(self.life, self.real_path, self.timeout, vfs=self.vfs)
        self.load_header()

    def connect(self) -> None:
        """Open the writing connection. load_header() comes before: SQLite may change a file by reading it."""
        self.write_connection = self.opener.open()
        self.checkpointer = Checkpointer(self.write_connection, self.files, self.readers, self.counters, self.life)
        self.watch_forks()

    def watch_forks(self) -> None:
        """Have the handle refuse all work in the child of a fork."""
        _engines.add(self)

    def apply_settings(self) -> None:
        """Apply the store's settings to the writing connection.

        Raises:
            InvalidOption: another program set a journal mode that is not durable.
            StoreIOError: the operating system refused to make the -wal.
        """
        if self.opener.frozen is not None:
            self.journal = self.readers.journal = self.checkpointer.journal = "wal"
            settings.apply(self.write_connection, "wal", read_only=True, cache=self._caches.writer)
            return
        actual = str(self.write_connection.value("PRAGMA journal_mode"))
        if actual not in settings.SYNCHRONOUS:
            raise InvalidOption(f"{self.path} has journal mode {actual!r}; use SQLite to set it to 'wal' or 'delete'")
        self.journal = "wal" if actual == "wal" else "delete"
        settings.apply(self.write_connection, self.journal, read_only=self.read_only, cache=self._caches.writer)
        if self.journal == "wal" and not self.read_only:
            self.write_connection.on_commit(self.checkpointer.seen_wal)
            self.opener.wal_in_place()
        self.readers.journal = self.checkpointer.journal = self.journal
        self.recovered_frames = 0
        if self.journal == "wal":
            with suppress(ReadOnly):  # SQLite counts only for users who may write; else nothing is compared
                self.recovered_frames = self.write_connection.checkpoint("count")[0]
        if (
            self.journal == "wal"
            and self.write_connection.value("PRAGMA user_version") is not None
            and not self.files.has("-wal")
        ):
            # SQLite hides an error of the change, and continues with a rollback journal.
            raise StoreIOError(f"{self.path}: SQLite could not go over to WAL mode; nothing was changed. Try again")

    def reading(self) -> ReadBlock:
        """Return a block with a connection that sees one committed state."""
        return self.readers.reading()

    def freeze(self, pages: Pages | None) -> None:
        """Read the file as immutable from now on, before connect(): SQLite makes no -wal and no -shm.

        Args:
            pages: of a -wal that holds commits; the caller has the exclusive lock on the file.
        """
        self.life.ordinary = False
        self.opener.frozen = ImmutableFile(self.real_path, self.vfs, pages)

    @property
    def usable(self) -> bool:
        """Whether life.check() would pass."""
        return self.life.usable

    def warn_in_loop(self) -> None:
        """Warn, once, if this thread runs an event loop: what is called now may block it."""
        if self._seen_in_loop or not (loop := _running_loop()):
            return
        self._seen_in_loop = True
        with suppress(BlocksEventLoop):  # even if the user made it an error: the call goes on
            warnings.warn(
                f"{self.path}: a blocking call in the thread of a running {loop} event loop; while it waits for the "
                "disk or for other writers, no task runs. Use sqlstate.aio, or make such calls in a thread",
                BlocksEventLoop,
                stacklevel=_level_outside(),
            )

    def lock_writer(self, over: Over) -> None:
        """Wait for the writer lock of this handle. A transaction that the block before left open is left as it is.

        Args:
            over: of the block that wants it.

        Raises:
            Busy: another thread had it for the whole timeout.
            StoreUnusable: this thread has a transaction open.
            ReadOnly: the store was opened for reading.
        """
        self.life.check_writable()
        self.warn_in_loop()
        if self.readers.gone:  # in a rollback-journal store they would block the commit
            self.readers.reclaim()
        self.wait_for_writer(over)
        try:
            self.life.check()  # it may have been closed, or failed, while this thread waited
        except BaseException:
            self.writer_lock.release(over)
            raise

    def wait_for_writer(self, over: Over) -> None:
        """Wait for the writer lock of this handle, even if it was closed or has failed.

        Raises:
            Busy: another thread had it for the whole timeout.
            StoreUnusable: this thread has a transaction open.
        """
        if self.writer_lock.owner == threading.get_ident():
            raise StoreUnusable(
                f"{self.path}: a transaction of this thread is open; leave its block first. Nothing was changed"
            )
        if not self.writer_lock.acquire(over, self.timeout):
            raise Busy(self.busy_message())

    def busy_message(self) -> str:
        """Return the message for a writer lock that another thread held for the whole timeout."""
        return (
            f"{self.path}: a transaction of another thread ({thread_name(self.writer_lock.owner)}) was open for "
            f"{self.timeout:g} s; nothing was changed. Try again, or open with a longer timeout"
        )

    def tidy_writer(self) -> None:
        """Roll back what a block that was cut short left open."""
        if self.write_connection.in_transaction() and self.usable:
            self.write_connection.rollback()

    def commit(self, seq: int, chain: bytes) -> None:
        """Commit the open transaction as commit *seq* with *chain*, and checkpoint if that is due.

        Raises:
            Busy: nothing was committed.
            StoreFull: nothing was committed; see make_room().
            CommitOutcomeUnknown: the commit may be there or not; the handle refuses further work.
            StoreIOError: the commit is durable, the checkpoint failed; the handle refuses further work.
        """
        try:
            self.write_connection.commit()
        except StoreFull:
            self.checkpointer.make_room()
            raise
        except OutcomeUnknown as e:
            self._fail(f"commit {seq} failed with an error and may or may not be there")
            raise CommitOutcomeUnknown(seq, str(e), chain) from e.__cause__
        self.checkpointer.count_commit()
        if self.watchers:
            self.watchers.ring()
        self.checkpointer.bound_wal(seq)

    def fail(self, failure: str) -> None:
        """Refuse all further work: *failure* says why."""
        self.life.fail(failure)

    def commit_unnumbered(self, what: str) -> None:
        """Commit the open transaction without a numbered commit; *what* says what it makes, for messages.

        Raises:
            Busy, StoreFull: nothing was committed.
            StoreIOError: the outcome is unknown, or it is durable and the checkpoint failed; the handle refuses further
                work.
        """
        try:
            self.write_connection.commit()
        except StoreFull:
            self.checkpointer.make_room()
            raise
        except OutcomeUnknown as e:
            self._fail(f"{what} failed with an error, and may or may not be there")
            raise StoreIOError(
                f"{self.path}: {what} may or may not have reached the disk ({e}); this handle refuses further work. "
                "Open the store again to see"
            ) from e.__cause__
        self.checkpointer.count_commit()
        self.checkpointer.bound_wal()

    def disconnect(self) -> None:
        """Close the writing connection, so that connect() can begin again."""
        if hasattr(self, "write_connection"):
            self.opener.close(self.write_connection)
            del self.write_connection, self.checkpointer
        self.opener.forget_wal()

    def stop(self) -> None:
        """Refuse all further work, and close the connections that read: what runs on them is interrupted.

        The caller holds the writer lock. Calling it again goes on where it was interrupted.
        """
        self.life.close()
        self.watchers.ring()
        self.readers.close_all(max(1.0, self.timeout))

    def close(self, *, fold: bool = False) -> StoreIOError | None:
        """Close the writing connection, after stop(). Idempotent.

        Args:
            fold: let SQLite move its WAL into the file and remove it, if nobody else has the file open.

        Returns an error to raise if the path no longer leads to the file, None if it does.
        """
        if self.life.forked or not self.connected:
            return None
        lost = None
        try:
            if self.life.failure:
                with suppress(StoreError):
                    self.write_connection.rollback()
            elif not self.opener.main_in_place():
                lost = StoreIOError(
                    f"{self.path}: {self.opener.moved()}. What was committed is in that file, and nowhere else; if it "
                    "was removed, it is gone"
                )
            self.opener.foldable = fold
        finally:
            self.opener.close(self.write_connection)
        return lost

    @property
    def connected(self) -> bool:
        """Whether the writing connection is open."""
        return hasattr(self, "write_connection") and not self.write_connection.closed

    def load_header(self) -> None:
        """Read the header of the file."""
        try:
            self.header = read_at(self.real_path, self.vfs, 0, HEADER_BYTES)
        except CannotOpen as e:
            if paths.out_of_descriptors():
                raise
            raise CannotOpen(f"{self.path} cannot be opened; look at the permissions, or choose another path") from e

    def _fail(self, failure: str) -> None:
        self.life.fail(failure)
        with suppress(StoreError):
            self.write_connection.rollback()


_opening = threading.Lock()
_engines: Final[Living[Engine]] = Living()


def _after_fork() -> None:
    global _opening  # noqa: PLW0603, a thread that is not in the child may have had it
    _opening = threading.Lock()
    for engine in _engines.members():
        engine.life.fork()


system.at_fork(in_child=_after_fork)
