"""One SQLite connection, as sqlstate uses it. Beside overlay, the only module that imports apsw.

Settings are per connection, never process-wide. SQLite's result codes become our exceptions here, and nowhere
else.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
import time
import weakref
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import apsw

from sqlstate.errors import (
    Busy,
    StoreError,
    StoreIOError,
)
from sqlstate.files import paths
from sqlstate.sqlite import lock_holders as holders
from sqlstate.sqlite.forks import OpenFile, call, forking, refusal, stand_by, tells_busy
from sqlstate.sqlite.result_codes import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from sqlstate.sqlite.lock_holders import Holder

Journal = Literal["wal", "delete"]
Row = tuple[Any, ...]


CACHE_KIB: Final = 32 * 1024
WAL_BYTES_MAX: Final = 64 << 20
# A waiting writer sleeps a random time up to this, so that none of several is starved.
BUSY_SLEEP_SECONDS: Final = 0.001

SYNCHRONOUS: Final[dict[Journal, int]] = {"wal": 2, "delete": 3}  # FULL and EXTRA


class Connection:
    """One SQLite connection: runs statements, and turns SQLite's errors into ours.

    Args:
        path: absolute path of the file.
        timeout: seconds to wait for a lock before Busy.
        read_only: let SQLite open the file for reading only.
        vfs: name of the SQLite VFS that does the input and output; None is the system's.
        immutable: nobody changes the file: SQLite takes no locks, and looks for nothing beside it.
    """

    __slots__ = (
        "__weakref__",
        "_file",
        "_holder",
        "_patient_until",
        "_sqlite",
        "_timeout",
        "_waiting_since",
        "path",
        "stuck",
        "waiting",
    )

    def __init__(
        self, path: str, timeout: float, *, read_only: bool = False, vfs: str | None = None, immutable: bool = False
    ) -> None:
        self.path = path
        self._timeout = timeout
        self._waiting_since = 0.0
        self._patient_until: float | None = None
        self.waiting = False
        """Whether a thread waits for a lock of the file at this moment."""
        self.stuck: Callable[[str], None] | None = None
        """Called with what happened if a lock in SQLite's shared memory is never given back: each use waits for it."""
        self._holder: Holder | None = None
        self._file: OpenFile | None = OpenFile(path)
        _connections.add(self)
        flags = apsw.SQLITE_OPEN_READONLY if read_only or immutable else apsw.SQLITE_OPEN_READWRITE
        name = paths.in_utf8(path)
        if immutable:
            flags |= apsw.SQLITE_OPEN_URI
            name = f"{Path(path).as_uri()}?immutable=1"
        try:
            self._sqlite = call(partial(apsw.Connection, name, flags=flags, vfs=vfs))
        except apsw.Error as e:
            raise translated(e, path, timeout) from e
        self._sqlite.set_busy_handler(self._wait)
        config = self._sqlite.config
        # What others left in the file must not run: no triggers, no views.
        config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
        config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        # Without this SQLite plans a statement with `column = ?` and ORDER BY anew each time it runs.
        config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)

    def settle(self, journal: Journal, *, read_only: bool) -> None:
        """Apply the settings that every connection of a store has."""
        level = SYNCHRONOUS[journal]
        settings = [
            f"synchronous={level}",
            f"cache_size=-{CACHE_KIB}",
            "mmap_size=0",
            "cell_size_check=1",
            "wal_autocheckpoint=0",
            f"journal_size_limit={WAL_BYTES_MAX}",  # what a -wal has grown to, it would keep
            f"query_only={int(read_only)}",
        ]
        if sys.platform == "darwin":
            settings += ["fullfsync=1", "checkpoint_fullfsync=1"]
        for setting in settings:
            self.rows(f"PRAGMA {setting}")
        if self.value("PRAGMA synchronous") != level:
            raise StoreIOError(f"{self.path}: SQLite did not accept synchronous={level}; commits would not be durable")

    def fold_at_close(self, *, fold: bool) -> None:
        """Say whether closing the last connection moves SQLite's WAL into the main file and removes it."""
        self._sqlite.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, not fold)

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run one or several statements that return no rows; SQLite would stop at the first row."""
        if forking:
            stand_by()
        try:
            self._sqlite.execute(sql, values)
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a statement."""
        if forking:
            stand_by()
        try:
            return self._sqlite.execute(sql, values).fetchall()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Return the first row of a statement, or None."""
        if forking:
            stand_by()
        try:
            return self._sqlite.execute(sql, values).fetchone()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self.row(sql, values)
        return None if row is None else row[0]

    def chunk(
        self, sql: str, values: Sequence[Any], most: int, weight: Callable[[Row], int] | None = None
    ) -> tuple[list[Row], bool]:
        """Return rows of a statement, up to the one that brings their weight to *most*, and whether that cut it short.

        The statement has ended when it returns or raises. Its cursor stands in no variable, so that no traceback
        keeps it.

        Args:
            sql: the statement.
            values: bound to it.
            most: the weight of one chunk.
            weight: tells that of a row; None for the length of its last column.
        """
        rows: list[Row] = []
        if forking:
            stand_by()
        try:
            for row in self._sqlite.execute(sql, values):
                rows.append(row)
                if weight is not None:
                    most -= weight(row)
                elif type(last := row[-1]) is str or type(last) is bytes:  # size_of(), without a call for each row
                    most -= len(last)
                if most <= 0:
                    return rows, True
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e
        return rows, False

    def iterate(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a statement as they are asked for; they are of one committed state.

        For whole passes inside this package. The statement runs on as long as the iterator is not exhausted; whoever
        lent the connection ends it.
        """
        try:
            for row in self._sqlite.execute(sql, values):
                if forking:
                    stand_by()
                yield row
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of *values*."""
        if forking:
            stand_by()
        try:
            self._sqlite.executemany(sql, values)
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def rows_many(self, sql: str, values: Iterable[Sequence[Any]]) -> list[Row]:
        """Return the rows of a statement run once for each of *values*."""
        if forking:
            stand_by()
        try:
            return self._sqlite.executemany(sql, values).fetchall()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self._error(e) from e

    def begin(self) -> None:
        """Begin a transaction that holds the writer's lock from its start.

        Raises:
            Busy: another writer held the lock for the whole timeout.
        """
        self._patient_until = None
        # A deferred transaction that reads first could fail at its first write, without any waiting.
        self.run("BEGIN IMMEDIATE")

    def begin_read(self) -> None:
        """Begin a transaction that sees one committed state from its first read on."""
        self.run("BEGIN")

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """Let the statements of the block see one committed state, also inside an open transaction."""
        if self._sqlite.in_transaction:
            yield
            return
        self.begin_read()
        try:
            yield
        finally:
            self.rollback()

    def commit(self) -> None:
        """Commit the open transaction.

        Raises:
            Busy: readers of a rollback-journal store held the file; the transaction is still open.
            StoreFull: the disk is full, and the transaction was rolled back.
            OutcomeUnknown: any other error; the commit may be there after the file is opened again.
        """
        if forking:
            stand_by()
        try:
            self._sqlite.execute("COMMIT")
        except apsw.BusyError as e:
            raise self._error(e) from e
        except apsw.FullError as e:
            self.rollback()
            raise self._error(e) from e
        except apsw.Error as e:
            raise OutcomeUnknown(str(e)) from e

    def rollback(self) -> None:
        """Roll back the open transaction, if there still is one."""
        # SQLite rolls back by itself after some errors; a second ROLLBACK would mask the cause.
        if self._sqlite.in_transaction:
            self.run("ROLLBACK")

    def checkpoint(self) -> tuple[int, int]:
        """Move SQLite's WAL into the main file as far as readers allow.

        Returns the frames in SQLite's WAL, and how many of them are in the main file now.

        Raises:
            Busy: another connection is doing it.
        """
        if forking:
            stand_by()
        try:
            return self._sqlite.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as e:
            raise self._error(e) from e

    def free_wal(self, patience: float) -> bool:
        """Move SQLite's WAL into the main file, and wait until nobody reads from it: the next write begins it anew.

        Args:
            patience: seconds to keep other writers waiting for those who read now. Nobody waits to begin reading.

        Returns whether it was done.
        """
        self._patient_until = time.monotonic() + patience
        if forking:
            stand_by()
        try:
            self._sqlite.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        except apsw.BusyError:
            return False
        except apsw.Error as e:
            raise self._error(e) from e
        finally:
            self._patient_until = None
        return True

    def empty_wal(self) -> None:
        """Move SQLite's WAL into the main file and empty it.

        Raises:
            Busy: another connection uses it.
        """
        if forking:
            stand_by()
        try:
            self._sqlite.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as e:
            raise self._error(e) from e

    def wal_frames(self) -> int:
        """Return the frames in SQLite's WAL, as SQLite counts them."""
        try:
            return self._sqlite.wal_checkpoint(mode=_CHECKPOINT_NOOP)[0]
        except apsw.Error as e:
            raise self._error(e) from e

    def pages_written(self) -> int:
        """Return how many pages this connection has written so far: to SQLite's WAL, or to a file without it."""
        return self._sqlite.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]

    def data_version(self) -> int:
        """Return a number that changes when any connection has committed; read it inside a transaction."""
        return self._sqlite.data_version()

    def on_commit(self, seen: Callable[[object, str, int], int]) -> None:
        """Call *seen* after each commit with the connection, the schema and the number of pages in SQLite's WAL.

        It runs inside SQLite's COMMIT: it returns 0, and raises nothing.
        """
        self._sqlite.set_wal_hook(seen)

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

    def clean(self) -> bool:
        """Roll back what is open, and tell whether nothing runs on the connection and it reads no state any more.

        SQLite is asked: a statement that somebody still has keeps it reading, and that cannot be ended but by
        closing.
        """
        try:
            self.rollback()
            return self._sqlite.txn_state("main") == apsw.SQLITE_TXN_NONE
        except (StoreError, apsw.Error):
            return False

    def copy_to(self, target: Connection, pages: int) -> Generator[tuple[int, int]]:
        """Copy the whole database into *target*, so many *pages* at a time; yield how many are copied, and of how many.

        Inside a transaction that has read, it is the state that the transaction sees.
        """
        try:
            backup = target._sqlite.backup("main", self._sqlite, "main")
        except apsw.Error as e:
            raise target._error(e) from e
        pid = os.getpid()
        try:
            while not backup.done:
                if forking:
                    stand_by()
                backup.step(pages)
                yield backup.page_count - backup.remaining, backup.page_count
            backup.finish()
        except (apsw.CorruptError, apsw.NotADBError) as e:
            raise self._error(e) from e
        except apsw.Error as e:
            raise target._error(e) from e
        finally:
            if os.getpid() != pid:  # closed in the child of a fork, where both files are the parent's
                _keep_for_ever(backup)
            else:
                backup.close(True)  # noqa: FBT003, apsw takes it by position: what went wrong is known

    def settle_alone(self) -> None:
        """Apply the settings for a new file that nobody else knows, and that its maker syncs as a whole."""
        for setting in ("journal_mode=MEMORY", "synchronous=OFF", "mmap_size=0", "cell_size_check=1"):
            self.rows(f"PRAGMA {setting}")

    def close(self) -> None:
        """Close the connection. The last one of a store folds SQLite's WAL into the main file."""
        if forking:
            stand_by()
        try:
            self._sqlite.close()
        except apsw.Error as e:
            raise self._error(e) from e
        self._file = None

    def end(self) -> bool:
        """Close the connection for another thread that may be using it, and tell whether that was possible now.

        What runs is interrupted; what the other thread asks next is refused.
        """
        try:
            self._sqlite.interrupt()
            self._sqlite.close()
        except apsw.ConnectionClosedError:
            pass
        except (apsw.Error, AttributeError):  # it is in use, or being opened
            return False
        self._file = None
        return True

    @property
    def closed(self) -> bool:
        """Whether it was closed, or never opened."""
        try:
            self._sqlite.in_transaction  # noqa: B018, asked for what it raises
        except (apsw.Error, AttributeError):
            return True
        return False

    def abandon(self) -> None:
        """Give the connection up, in the child of a fork: it is the parent's, and is never closed here."""
        sqlite = getattr(self, "_sqlite", None)
        if sqlite is not None:
            _keep_for_ever(sqlite)
        self._sqlite = _Abandoned(refusal(self.path))  # type: ignore[assignment]  # whatever is asked, it refuses

    def _wait(self, calls: int) -> bool:
        now = time.monotonic()
        if self._patient_until is not None:
            self._sleep()
            return now < self._patient_until
        if calls == 0:
            self._waiting_since = now
        if now - self._waiting_since >= self._timeout:
            self._holder = holders.of_writing(self.path)
            return False
        self._sleep()
        return True

    def _sleep(self) -> None:
        self.waiting = True
        time.sleep(random.uniform(0, BUSY_SLEEP_SECONDS))  # noqa: S311, no secret
        if forking:
            stand_by()
        self.waiting = False

    def _error(self, e: Exception) -> StoreError:
        holder, self._holder = self._holder, None
        if holder is not None and isinstance(e, apsw.BusyError):
            return Busy(
                f"{self.path}: {holder} had the lock, which was not free for {self._timeout:g} s; nothing was changed. "
                "Try again, or open with a longer timeout",
                holder.pid,
            )
        if isinstance(e, apsw.ProtocolError) and self.stuck is not None:
            self.stuck("a lock in SQLite's shared memory was not given back")
        try:
            code = self._sqlite.system_errno
        except apsw.Error:  # it was closed
            code = 0
        return translated(e, self.path, self._timeout, code)


_CHECKPOINT_NOOP: Final = -1


def size_of(value: Any) -> int:
    """Return the length of text or bytes, 0 of anything else: who reads the row says what is wrong with it."""
    return len(value) if type(value) is str or type(value) is bytes else 0


class OutcomeUnknown(Exception):
    """COMMIT failed after it may have reached the disk. Does not leave the package: the engine says of what."""


class _Abandoned:
    """Stands for the SQLite connection of a parent process."""

    def __init__(self, refusal: StoreError) -> None:
        self._refusal = refusal

    def __getattr__(self, name: str) -> Any:
        raise self._refusal


def _keep_for_ever(thing: object) -> None:
    """Keep Python from finalising *thing*: SQLite would close, and could fold or remove, what is the parent's."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_connections: Final[weakref.WeakSet[Connection]] = weakref.WeakSet()


@tells_busy
def _is_busy() -> bool:
    """Tell whether a thread is inside SQLite with one of the connections, and not only waiting for a lock."""
    for connection in list(_connections):
        if connection.waiting:
            continue
        try:
            connection._sqlite.in_transaction  # noqa: B018, SLF001, asked for what it raises
        except apsw.ThreadingViolationError:
            return True
        except (apsw.Error, AttributeError):  # it is closed, or not open yet
            continue
    return False


def _abandon_all() -> None:
    for connection in list(_connections):
        connection.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def memory() -> Connection:
    """Return a connection to an empty database in memory."""
    return Connection(":memory:", 0.0)
