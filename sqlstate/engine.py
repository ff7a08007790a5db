"""The connections of one open store: one that writes, a pool of those that read, their locks and checkpoints."""

from __future__ import annotations

import os
import stat
import threading
import weakref
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Final

from sqlstate.connection import (
    SYNCHRONOUS,
    Connection,
    Journal,
    OutcomeUnknown,
    check_sqlite,
    check_vfs,
    read_header,
)
from sqlstate.errors import (
    Busy,
    CannotOpen,
    CommitOutcomeUnknown,
    InvalidOption,
    NotAStore,
    ReadOnly,
    StoreClosed,
    StoreError,
    StoreForked,
    StoreIOError,
    StoreMissing,
    StoreUnusable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKPOINT_PAGES: Final = 4096
READERS_KEPT: Final = 8


class Engine:
    """The connections of one open store: one that writes, and a pool of those that read.

    Args:
        path: the file.
        read_only: open for reading; nothing is created or changed.
        create: make the file if there is none.
        timeout: seconds to wait for a lock before Busy.
        vfs: name of the SQLite VFS to use.

    Raises:
        CannotOpen: one of its kinds; see errors.
        InvalidOption: there is no such VFS.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool,
        create: bool,
        timeout: float,
        vfs: str | None = None,
    ) -> None:
        self.sqlite_version = check_sqlite()
        check_vfs(vfs)
        self.path = _absolute(path)
        self.read_only = read_only
        self.journal: Journal = "delete"
        self.wal_pages = 0
        self._timeout = timeout
        self._vfs = vfs
        self._trusted = False
        self._closed = False
        self._forked = False
        self._failure = ""
        self._write_lock = threading.Lock()
        self._owner = 0
        self._readers: list[Connection] = []
        self._lent: set[Connection] = set()
        self._real_path = os.path.realpath(self.path)  # SQLite names the files beside after what a link leads to
        with _opening:
            if create and not read_only:
                self._refuse_strangers()
            _prepare_path(self.path, create=create and not read_only)
            self.header = self._read_header()

    def connect(self) -> None:
        """Open the writing connection. `header` was looked at before: SQLite may change a file by reading it."""
        self.writer = self._connect()
        _engines.add(self)

    def settle(self) -> None:
        """Apply the store's settings to the writing connection.

        Raises:
            InvalidOption: another program set a journal mode that is not durable.
        """
        actual = self.writer.journal_mode()
        if actual not in SYNCHRONOUS:
            raise InvalidOption(f"{self.path} has journal mode {actual!r}; use SQLite to set it to 'wal' or 'delete'")
        self.journal = "wal" if actual == "wal" else "delete"
        self.writer.settle(self.journal, read_only=self.read_only)
        if self.journal == "wal" and not self.read_only:
            self.writer.on_commit(self._seen_wal)

    def trust(self) -> None:
        """From now on, the last connection to close folds SQLite's WAL into the file: it is a sound store."""
        self._trusted = not self.read_only

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection inside a transaction that sees one committed state."""
        connection = self.begin_read()
        try:
            yield connection
        finally:
            self.end_read(connection)

    def begin_read(self) -> Connection:
        """Return a connection inside a transaction that sees one committed state; end it with end_read()."""
        connection = self.take_reader()
        try:
            connection.begin_read()
        except BaseException:
            self.give_reader(connection)
            raise
        return connection

    def end_read(self, connection: Connection) -> None:
        """End the read transaction of a connection and take it back."""
        if self._forked:
            return
        try:
            connection.rollback()
        finally:
            self.give_reader(connection)

    @contextmanager
    def lending(self) -> Iterator[Connection]:
        """Lend a connection for one statement, which sees one committed state by itself."""
        connection = self.take_reader()
        try:
            yield connection
        finally:
            self.give_reader(connection)

    def take_reader(self) -> Connection:
        """Return a connection for reading that nobody else uses; give it back with give_reader()."""
        self.check_usable()
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._connect()
            connection.settle(self.journal, read_only=True)
        self._lent.add(connection)
        return connection

    def give_reader(self, connection: Connection) -> None:
        """Take back a connection from take_reader()."""
        self._lent.discard(connection)
        if self._forked:
            return
        if self._closed or len(self._readers) >= READERS_KEPT:
            self._close(connection)
        else:
            self._readers.append(connection)

    @property
    def usable(self) -> bool:
        """Whether check_usable() would pass."""
        return not (self._forked or self._closed or self._failure)

    def check_usable(self) -> None:
        """Raise if the store was closed, opened before a fork, or failed."""
        if self._forked:
            raise self._forked_error()
        if self._closed:
            raise self._closed_error()
        if self._failure:
            raise StoreClosed(f"{self.path}: {self._failure}; this handle refuses further work. Open the store again")

    def lock_writer(self) -> None:
        """Wait until no other thread of this process uses the writing connection.

        Raises:
            Busy: another thread had it for the whole timeout.
            StoreUnusable: this thread has a transaction open.
            ReadOnly: the store was opened for reading.
        """
        self.check_usable()
        if self.read_only:
            raise ReadOnly(f"{self.path} was opened with read_only=True; nothing was changed")
        self._wait_for_writer()
        if not self.usable:  # it was closed, or failed, while this thread waited
            self.unlock_writer()
            self.check_usable()

    def unlock_writer(self) -> None:
        """Let the next thread use the writing connection."""
        self._owner = 0
        self._write_lock.release()

    def commit(self, seq: int) -> None:
        """Commit the open transaction, which makes commit *seq*, and checkpoint when that is due.

        Raises:
            Busy, StoreFull: nothing was committed.
            CommitOutcomeUnknown: the commit may be there or not; the handle refuses further work.
            StoreIOError: the commit is durable, the checkpoint failed; the handle refuses further work.
        """
        try:
            self.writer.commit()
        except OutcomeUnknown as e:
            self._fail(f"commit {seq} failed with an error and may or may not be there")
            raise CommitOutcomeUnknown(seq, str(e)) from e.__cause__
        # Done here, not in SQLite's hook, so that an error is seen instead of swallowed.
        if self.wal_pages >= CHECKPOINT_PAGES:
            self.wal_pages = 0
            try:
                self.writer.checkpoint()
            except Busy:
                pass  # another process is at it; the next commit looks again
            except StoreError as e:
                self._failure = f"the checkpoint after commit {seq} failed"
                raise StoreIOError(f"commit {seq} is durable, but the checkpoint after it failed: {e}") from e

    def commit_other(self, what: str) -> None:
        """Commit the open transaction, which makes no numbered commit: *what* says what it makes instead.

        Raises:
            Busy, StoreFull: nothing was committed.
            StoreIOError: it may be there or not; the handle refuses further work.
        """
        try:
            self.writer.commit()
        except OutcomeUnknown as e:
            self._fail(f"{what} failed with an error, and may or may not be there")
            raise StoreIOError(
                f"{self.path}: {what} may or may not have reached the disk ({e}); this handle refuses further work. "
                "Open the store again and look"
            ) from e.__cause__

    def close(self) -> None:
        """Close all connections. The store is one file afterwards if nobody else has it open.

        Raises:
            Busy: a transaction of another thread was open for the whole timeout.
            StoreUnusable: this thread has a transaction open.
        """
        if self._forked or self._closed:
            return
        self._wait_for_writer()
        try:
            if self._closed:  # by another thread, meanwhile
                return
            self._closed = True
            for connection in list(self._lent):
                connection.refuse(self._closed_error())
            while self._readers:
                self._close(self._readers.pop())
            if hasattr(self, "writer"):
                with suppress(StoreError) if self._failure else nullcontext():
                    self.writer.rollback()
                self._close(self.writer)
        finally:
            self.unlock_writer()

    def size(self, suffix: str = "") -> int:
        """Return the bytes of the file, or of the one beside it whose name has *suffix*; 0 if there is none."""
        try:
            return os.stat(self._real_path + suffix).st_size
        except FileNotFoundError:
            return 0

    def forked(self) -> None:
        """Give up the connections in the child of a fork, without closing them."""
        self._forked = True
        for connection in (self.writer, *self._readers, *self._lent):
            connection.abandon(self._forked_error())

    def _refuse_strangers(self) -> None:
        """Raise if making a store here would make SQLite delete what another file left.

        The strangers are looked for first: a store that is being made has its header before it has a -wal.
        """
        try:
            stranger = "-wal" if self.size("-wal") else "-journal" if _foreign_journal(self._real_path) else ""
            empty = not self.size()
        except OSError:
            return  # a path that no file can have; what follows says so
        if stranger and empty:
            raise CannotOpen(
                f"{self.path} is not there or empty, but {self._real_path}{stranger} is, and SQLite would delete it. "
                "It may hold the commits of a file that was removed: move it away, or choose another path. "
                "Nothing was changed"
            )

    def _read_header(self) -> bytes:
        try:
            return read_header(self._real_path, self._vfs)
        except CannotOpen as e:
            raise CannotOpen(f"{self.path} cannot be opened; look at the permissions, or choose another path") from e

    def _connect(self) -> Connection:
        # SQLite can remove its -wal and -shm only through a connection that may write. A journal that waits to
        # be rolled back must wait longer if this store is opened for reading.
        waits = self.read_only and self.size("-journal") > 0
        return Connection(self.path, self._timeout, read_only=waits, vfs=self._vfs)

    def _close(self, connection: Connection) -> None:
        # What is not ours, or was opened for reading, keeps its -wal; an empty one is removed in any case.
        connection.fold_at_close(fold=self._trusted or not self.size("-wal"))
        connection.close()

    def _fail(self, failure: str) -> None:
        self._failure = failure
        with suppress(StoreError):
            self.writer.rollback()

    def _wait_for_writer(self) -> None:
        me = threading.get_ident()
        if self._owner == me:
            raise StoreUnusable(
                f"{self.path}: a transaction of this thread is open; leave its block first. Nothing was changed"
            )
        if not self._write_lock.acquire(timeout=self._timeout):
            raise Busy(
                f"{self.path}: a transaction of another thread was open for {self._timeout:g} s; nothing was changed. "
                "Try again, or open with a longer timeout"
            )
        self._owner = me

    def _closed_error(self) -> StoreClosed:
        return StoreClosed(f"{self.path}: the store is closed")

    def _forked_error(self) -> StoreForked:
        return StoreForked(
            f"{self.path} was opened by a parent process; SQLite's connections do not survive a fork. "
            "Open the store in the child"
        )

    def _seen_wal(self, _connection: object, _schema: str, pages: int) -> int:
        self.wal_pages = pages
        return 0


_opening = threading.Lock()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in _engines:
        engine.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _foreign_journal(path: str) -> bool:
    """Tell whether there is a file named like the rollback journal of *path* that is none."""
    try:
        with open(path + "-journal", "rb") as journal:
            start = journal.read(len(_JOURNAL_MAGIC))
    except OSError:
        return False
    return start != bytes(len(start)) and start != _JOURNAL_MAGIC[: len(start)]


_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")


def _absolute(path: str | os.PathLike[str]) -> str:
    """Return *path* as SQLite takes it: absolute, so that it is never a URI or the name of a memory database."""
    absolute = os.path.abspath(os.fsdecode(path))
    try:
        absolute.encode()
    except UnicodeEncodeError:
        raise CannotOpen(f"{absolute!r} is not text in UTF-8, and SQLite takes no other; choose another path") from None
    if "\0" in absolute:
        raise CannotOpen(f"{absolute!r} holds a NUL, which no path can; choose another path")
    return absolute


def _prepare_path(path: str, *, create: bool) -> None:
    """Make sure that a regular file is at *path*."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise StoreMissing(f"there is no folder {folder}; make it first") from None
        if not create:
            raise StoreMissing(f"there is no file {path}; open it for writing with create=True to make it") from None
        _create(path)
        return
    except OSError as e:
        raise CannotOpen(f"{path} cannot be looked at: {e}; choose another path") from e
    if stat.S_ISDIR(mode):
        raise NotAStore(f"{path} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise NotAStore(f"{path} is not a regular file; name one that is, or that is not there yet")


def _create(path: str) -> None:
    try:
        # Closing this descriptor is harmless: nobody in this process can have the file open yet.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass  # another process was faster
    except OSError as e:
        raise CannotOpen(f"{path} cannot be made: {e}; look at the permissions of its folder") from e
