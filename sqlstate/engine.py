"""SQLite, as sqlstate uses it: connections, settings, locks, checkpoints. The only module that imports apsw.

Each store has one connection that writes and a few that read. Settings are per connection, never
process-wide. Result codes become our exceptions here, and nowhere else.
"""

from __future__ import annotations

import ctypes
import os
import random
import stat
import sys
import threading
import time
import weakref
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, Literal

import apsw

from sqlstate.errors import (
    Busy,
    CannotOpen,
    CommitOutcomeUnknown,
    Damaged,
    InvalidOption,
    NotAStore,
    ReadOnly,
    SQLiteTooOld,
    StoreClosed,
    StoreError,
    StoreForked,
    StoreFull,
    StoreIOError,
    StoreMissing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Journal = Literal["wal", "delete"]
Row = tuple[Any, ...]

# 3.7.0 to 3.51.2 can lose committed data when two connections write and checkpoint at one moment.
# The fix was brought back to two older lines; 3.52.0 was withdrawn.
SQLITE_MIN: Final = (3, 51, 3)

CACHE_KIB: Final = 32 * 1024
CHECKPOINT_PAGES: Final = 4096
READERS_KEPT: Final = 8
# A waiting writer sleeps a random time up to this, so that none of several is starved.
BUSY_SLEEP_SECONDS: Final = 0.001

_SYNCHRONOUS: Final[dict[Journal, int]] = {"wal": 2, "delete": 3}  # FULL and EXTRA


class Connection:
    """One SQLite connection: runs statements, and turns SQLite's errors into ours.

    Args:
        path: absolute path of the file.
        timeout: seconds to wait for a lock before Busy.
        read_only: refuse every write.
        vfs: name of the SQLite VFS that does the input and output; None is the system's.
    """

    __slots__ = ("_sqlite", "_timeout", "_waiting_since", "path")

    def __init__(self, path: str, timeout: float, *, read_only: bool = False, vfs: str | None = None) -> None:
        self.path = path
        self._timeout = timeout
        self._waiting_since = 0.0
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
        try:
            self._sqlite = apsw.Connection(path, flags=flags, vfs=vfs)
        except apsw.Error as e:
            raise self._error(e) from e
        self._sqlite.set_busy_handler(self._wait)
        config = self._sqlite.config
        # A foreign file must not run its triggers or views on us, nor have its -wal folded by our closing it.
        config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
        config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        # Without this SQLite plans a statement anew for other values: it doubles the cost of a range seek.
        config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)

    def settle(self, journal: Journal) -> None:
        """Apply the settings that every connection of a store has, once the file is known to be one."""
        level = _SYNCHRONOUS[journal]
        self.run(
            f"PRAGMA synchronous={level}; PRAGMA cache_size=-{CACHE_KIB}; PRAGMA mmap_size=0;"
            "PRAGMA cell_size_check=1; PRAGMA wal_autocheckpoint=0"
        )
        if sys.platform == "darwin":
            self.run("PRAGMA fullfsync=1; PRAGMA checkpoint_fullfsync=1")
        if self.value("PRAGMA synchronous") != level:
            raise StoreIOError(f"{self.path}: SQLite did not accept synchronous={level}; commits would not be durable")
        self._sqlite.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run one or several statements that return no rows."""
        try:
            self._sqlite.execute(sql, values)
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a statement."""
        try:
            return self._sqlite.execute(sql, values).fetchall()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Return the first row of a statement, or None."""
        try:
            return self._sqlite.execute(sql, values).fetchone()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self.row(sql, values)
        return None if row is None else row[0]

    def iterate(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a statement as they are asked for; they are of one committed state."""
        cursor = self._sqlite.cursor()
        try:
            yield from cursor.execute(sql, values)
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e
        finally:
            cursor.close(True)  # noqa: FBT003, apsw takes it by position: forget what was not read

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of *values*."""
        try:
            self._sqlite.executemany(sql, values)
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def rows_many(self, sql: str, values: Iterable[Sequence[Any]]) -> list[Row]:
        """Return the rows of a statement run once for each of *values*."""
        try:
            return self._sqlite.executemany(sql, values).fetchall()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def begin(self) -> None:
        """Begin a transaction that holds the writer's lock from its start.

        Raises:
            Busy: another writer held the lock for the whole timeout.
        """
        # A deferred transaction that reads first could fail at its first write, without any waiting.
        self.run("BEGIN IMMEDIATE")

    def begin_read(self) -> None:
        """Begin a transaction that sees one committed state from its first read on."""
        self.run("BEGIN")

    def commit(self, seq: int) -> None:
        """Commit the open transaction, which makes commit *seq*.

        Raises:
            Busy: readers of a rollback-journal store held the file; the transaction is still open.
            StoreFull: the disk is full, and the transaction was rolled back.
            CommitOutcomeUnknown: any other error; the commit may be there after the file is opened again.
        """
        try:
            self._sqlite.execute("COMMIT")
        except apsw.BusyError as e:
            raise self._error(e) from e
        except apsw.FullError as e:
            self.rollback()
            raise self._error(e) from e
        except apsw.Error as e:
            raise CommitOutcomeUnknown(seq, str(e)) from e

    def rollback(self) -> None:
        """Roll back the open transaction, if there still is one."""
        # SQLite rolls back by itself after some errors; a second ROLLBACK would mask the cause.
        if self._sqlite.in_transaction:
            self.run("ROLLBACK")

    def checkpoint(self) -> None:
        """Move SQLite's WAL into the main file as far as readers allow."""
        try:
            self._sqlite.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as e:
            raise self._error(e) from e

    def on_commit(self, seen: Any) -> None:
        """Call *seen* with the number of pages in SQLite's WAL after each commit."""

        def hook(_connection: object, _schema: str, pages: int) -> int:
            seen(pages)
            return apsw.SQLITE_OK

        self._sqlite.set_wal_hook(hook)

    def journal_mode(self) -> str:
        """Return the journal mode of the file."""
        return str(self.value("PRAGMA journal_mode"))

    def set_journal(self, journal: Journal) -> None:
        """Make the file use *journal*; waits while others have it open.

        Raises:
            Busy: another connection was in the way for the whole timeout.
        """
        until = time.monotonic() + self._timeout
        while True:
            try:
                if self.value(f"PRAGMA journal_mode={journal}") == journal:
                    return
            except Busy:  # SQLite does not call the busy handler here
                if time.monotonic() >= until:
                    raise
            if time.monotonic() >= until:
                raise Busy(f"{self.path}: the journal mode could not be set while others use the file; try again")
            time.sleep(random.uniform(0, BUSY_SLEEP_SECONDS))  # noqa: S311, no secret

    def synchronous(self) -> str:
        """Return how SQLite syncs: FULL or EXTRA."""
        return ("OFF", "NORMAL", "FULL", "EXTRA")[self.value("PRAGMA synchronous")]

    def in_transaction(self) -> bool:
        """Tell whether a transaction is open."""
        return self._sqlite.in_transaction

    def close(self) -> None:
        """Close the connection. The last one of a store folds SQLite's WAL into the main file."""
        try:
            self._sqlite.close()
        except apsw.Error as e:
            raise self._error(e) from e

    def abandon(self) -> None:
        """Make sure that this connection is never closed: it belongs to the parent of a fork."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._sqlite))

    def _wait(self, calls: int) -> bool:
        now = time.monotonic()
        if calls == 0:
            self._waiting_since = now
        if now - self._waiting_since >= self._timeout:
            return False
        time.sleep(random.uniform(0, BUSY_SLEEP_SECONDS))  # noqa: S311, no secret
        return True

    def _error(self, e: Exception) -> StoreError:
        return _translated(e, self.path, self._timeout)


def _translated(e: Exception, path: str, timeout: float) -> StoreError:  # noqa: PLR0911, a table
    if isinstance(e, apsw.ThreadingViolationError | apsw.ConnectionClosedError):
        return StoreClosed(f"{path}: the store was closed while it was in use")
    if isinstance(e, apsw.BusyError | apsw.LockedError):
        return Busy(
            f"{path}: another writer, or a reader of a store without SQLite's WAL, held the lock for {timeout:g} s; "
            "nothing was changed. Try again, or open with a longer timeout"
        )
    if isinstance(e, apsw.FullError):
        return StoreFull(f"{path}: the disk is full; the transaction was rolled back and nothing was changed")
    if isinstance(e, apsw.ReadOnlyError | apsw.PermissionsError):
        return ReadOnly(f"{path}: the file or its folder cannot be written; nothing was changed ({e})")
    if isinstance(e, apsw.CantOpenError):
        return CannotOpen(f"{path}: the file or its -wal cannot be opened; look at the permissions ({e})")
    if isinstance(e, apsw.NotADBError):
        return NotAStore(f"{path} is not an SQLite file, or is encrypted; nothing was changed")
    if isinstance(e, apsw.CorruptError | apsw.FormatError | UnicodeDecodeError):
        return Damaged(f"{path}: the file is damaged ({e}); nothing was changed. Keep it and restore a backup")
    if isinstance(e, apsw.TooBigError):
        return StoreIOError(f"{path}: a row is larger than SQLite allows; nothing was changed ({e})")
    return StoreIOError(f"{path}: SQLite reported {type(e).__name__}: {e}")


def check_sqlite() -> str:
    """Return the version of the SQLite library in use.

    Raises:
        SQLiteTooOld: it has the WAL-reset bug.
    """
    version = apsw.sqlite_lib_version()
    number = tuple(int(part) for part in version.split("."))
    backported = number[:2] in ((3, 44), (3, 50)) and number >= {44: (3, 44, 6), 50: (3, 50, 7)}[number[1]]
    if (number < SQLITE_MIN and not backported) or number[:2] == (3, 52):
        raise SQLiteTooOld(
            f"SQLite {version} can lose committed data in WAL mode; install apsw 3.51.3.0 or newer, "
            "built with its own SQLite"
        )
    return version


def memory() -> Connection:
    """Return a connection to an empty database in memory."""
    return Connection(":memory:", 0.0)


class Engine:
    """The connections of one open store.

    Args:
        path: the file.
        read_only: open for reading; nothing is created or changed.
        create: make the file if there is none.
        timeout: seconds to wait for a lock before Busy.
        vfs: name of the SQLite VFS to use.

    Raises:
        CannotOpen: one of its kinds; see errors.
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
        self.path = os.path.abspath(os.fsdecode(path))
        self.read_only = read_only
        self.journal: Journal = "wal"
        self.wal_pages = 0
        self._timeout = timeout
        self._vfs = vfs
        self._closed = False
        self._forked = False
        self._failure = ""
        self._write_lock = threading.Lock()
        self._readers: list[Connection] = []
        with _opening:
            self.created = _prepare_path(self.path, create=create and not read_only)
            self.writer = self._connect()
        _engines.add(self)

    def settle(self) -> None:
        """Apply the store's settings once the file is known to be a store.

        Raises:
            InvalidOption: another program set a journal mode that is not durable.
        """
        actual = self.writer.journal_mode()
        if actual not in _SYNCHRONOUS:
            raise InvalidOption(f"{self.path} has journal mode {actual!r}; set it to 'wal' or 'delete' with SQLite")
        self.journal = "wal" if actual == "wal" else "delete"
        self.writer.settle(self.journal)
        if self.journal == "wal" and not self.read_only:
            self.writer.on_commit(self._seen_wal)

    def take_reader(self) -> Connection:
        """Return a connection for reading that nobody else uses; give it back with give_reader()."""
        self.check_usable()
        try:
            return self._readers.pop()
        except IndexError:
            connection = self._connect()
            connection.settle(self.journal)
            return connection

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

    def give_reader(self, connection: Connection) -> None:
        """Take back a connection from take_reader()."""
        if self._closed or self._forked or len(self._readers) >= READERS_KEPT:
            if not self._forked:
                connection.close()
        else:
            self._readers.append(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection inside a transaction that sees one committed state."""
        connection = self.begin_read()
        try:
            yield connection
        finally:
            self.end_read(connection)

    @property
    def usable(self) -> bool:
        """Whether check_usable() would pass."""
        return not (self._forked or self._closed or self._failure)

    def check_usable(self) -> None:
        """Raise if the store was closed, or opened before a fork."""
        if self._forked:
            raise StoreForked(
                f"{self.path} was opened by a parent process; SQLite's connections do not survive a fork. "
                "Open the store in the child"
            )
        if self._closed:
            raise StoreClosed(f"{self.path}: the store is closed")
        if self._failure:
            raise StoreClosed(f"{self.path}: {self._failure}; this handle refuses further work. Open the store again")

    def lock_writer(self) -> None:
        """Wait until no other thread of this process uses the writing connection.

        Raises:
            Busy: another thread had it for the whole timeout.
            ReadOnly: the store was opened for reading.
        """
        self.check_usable()
        if self.read_only:
            raise ReadOnly(f"{self.path} was opened with read_only=True; nothing was changed")
        self._wait_for_writer()
        if not self.usable:  # it was closed, or failed, while this thread waited
            self._write_lock.release()
            self.check_usable()

    def _wait_for_writer(self) -> None:
        if not self._write_lock.acquire(timeout=self._timeout):
            raise Busy(
                f"{self.path}: a transaction of another thread was open for {self._timeout:g} s; nothing was changed. "
                "Try again, or open with a longer timeout"
            )

    def unlock_writer(self) -> None:
        """Let the next thread use the writing connection."""
        self._write_lock.release()

    def commit(self, seq: int) -> None:
        """Commit the open transaction, and checkpoint when that is due.

        Raises:
            Busy, StoreFull: nothing was committed.
            CommitOutcomeUnknown: see Connection.commit(); the handle refuses further work.
            StoreIOError: the commit is durable, the checkpoint failed; the handle refuses further work.
        """
        try:
            self.writer.commit(seq)
        except CommitOutcomeUnknown:
            self._failure = f"commit {seq} failed with an error and may or may not be there"
            with suppress(StoreError):
                self.writer.rollback()
            raise
        # Done here, not in SQLite's hook, so that an error is seen instead of swallowed.
        if self.wal_pages >= CHECKPOINT_PAGES:
            self.wal_pages = 0
            try:
                self.writer.checkpoint()
            except StoreError as e:
                self._failure = f"the checkpoint after commit {seq} failed"
                raise StoreIOError(f"commit {seq} is durable, but the checkpoint after it failed: {e}") from e

    def close(self) -> None:
        """Close all connections. The store is one file afterwards if nobody else has it open.

        Raises:
            Busy: a transaction of another thread was open for the whole timeout.
        """
        if self._forked or self._closed:
            return
        self._wait_for_writer()
        self._closed = True
        try:
            while self._readers:
                self._readers.pop().close()
            with suppress(StoreError) if self._failure else nullcontext():
                self.writer.rollback()
            self.writer.close()
        finally:
            self._write_lock.release()

    def size(self, suffix: str = "") -> int:
        """Return the bytes of the file, or of the one beside it whose name has *suffix*; 0 if there is none."""
        try:
            return os.stat(self.path + suffix).st_size
        except FileNotFoundError:
            return 0

    def forked(self) -> None:
        """Give up the connections in the child of a fork, without closing them."""
        self._forked = True
        self.writer.abandon()
        for reader in self._readers:
            reader.abandon()

    def _connect(self) -> Connection:
        return Connection(self.path, self._timeout, read_only=self.read_only, vfs=self._vfs)

    def _seen_wal(self, pages: int) -> None:
        self.wal_pages = pages


_opening = threading.Lock()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in _engines:
        engine.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _prepare_path(path: str, *, create: bool) -> bool:
    """Make sure that a file is at *path*, and tell whether it was made here."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise StoreMissing(f"there is no folder {folder}; make it first") from None
        if not create:
            raise StoreMissing(f"there is no file {path}") from None
        return _create(path)
    except (OSError, ValueError) as e:
        raise CannotOpen(f"{path} cannot be looked at: {e}") from e
    if stat.S_ISDIR(mode):
        raise NotAStore(f"{path} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise NotAStore(f"{path} is not a regular file")
    return False


def _create(path: str) -> bool:
    try:
        # Closing this descriptor is harmless: nobody in this process can have the file open yet.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return False  # another process was faster
    except OSError as e:
        raise CannotOpen(f"{path} cannot be made: {e}") from e
    return True
