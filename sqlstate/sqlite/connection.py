"""One SQLite connection, as sqlstate uses it: statements, transactions, checkpoints, and how it is closed.

Settings are per connection, never process-wide; see settings. Whatever SQLite raises leaves this module as an
exception of ours; see result_codes.
"""

from __future__ import annotations

import ctypes
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import apsw

from sqlstate.errors import Busy, StoreError
from sqlstate.files import paths, system
from sqlstate.files.living import Living
from sqlstate.sqlite.forks import OpenFile, call, forking, refusal, stand_by, tells_busy
from sqlstate.sqlite.lock_holders import BusyHandler
from sqlstate.sqlite.result_codes import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Journal = Literal["wal", "delete"]
Row = tuple[Any, ...]
T = TypeVar("T")

KEPT_BYTES: Final = 1 << 20
"""A statement that is run with larger values is not to be kept."""

Checkpoint = Literal["count", "passive", "restart", "truncate"]
"""Move nothing, only count; move what readers allow; wait until no reader uses SQLite's WAL, so that the next commit
restarts it; and truncate it then."""
_CHECKPOINTS: Final[dict[Checkpoint, int]] = {
    "count": -1,  # SQLITE_CHECKPOINT_NOOP
    "passive": apsw.SQLITE_CHECKPOINT_PASSIVE,
    "restart": apsw.SQLITE_CHECKPOINT_RESTART,
    "truncate": apsw.SQLITE_CHECKPOINT_TRUNCATE,
}


class Connection:
    """One SQLite connection: runs statements, and turns SQLite's errors into ours.

    Args:
        path: absolute path of the file.
        timeout: seconds to wait for a lock before Busy.
        read_only: let SQLite open the file for reading only.
        vfs: name of the SQLite VFS that does the input and output; None is the system's.
        immutable: the file does not change: SQLite takes no locks, and looks for no -wal or -journal.
    """

    __slots__ = (
        "__weakref__",
        "_file",
        "_sqlite",
        "busy",
        "cache",
        "path",
        "steady",
        "stuck",
    )

    def __init__(
        self, path: str, timeout: float, *, read_only: bool = False, vfs: str | None = None, immutable: bool = False
    ) -> None:
        self.path: str = path
        self.busy: Final = BusyHandler(path, timeout)
        """Waits for locks on the file."""
        self.stuck: Callable[[str], None] | None = None
        """Called with a description if a lock in SQLite's shared memory is never released; each use waits for it."""
        self.steady: Callable[[Callable[[], Any]], Any] | None = None
        """Calls what reads, and again if others wrote in between; None where a transaction sees one state."""
        self.cache = 0
        """Bytes of pages that it may cache; 0 before it is set, and once the connection is closed."""
        self._file: OpenFile | None = OpenFile(path)
        _connections.add(self)
        flags = apsw.SQLITE_OPEN_READONLY if read_only or immutable else apsw.SQLITE_OPEN_READWRITE
        name = paths.in_utf8(path)
        if immutable:
            from pathlib import Path  # noqa: PLC0415, takes long to import, and is seldom needed

            flags |= apsw.SQLITE_OPEN_URI
            name = f"{Path(path).as_uri()}?immutable=1"
        try:
            self._sqlite = call(partial(apsw.Connection, name, flags=flags, vfs=vfs or system.long_path_vfs(path)))
        except apsw.Error as e:
            raise translated(e, path, timeout) from e
        self._sqlite.set_busy_handler(self.busy.wait)
        config = self._sqlite.config
        # Triggers and views that another program left in the file must not run.
        config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
        config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        # Without this SQLite plans a statement with `column = ?` and ORDER BY each time it runs.
        config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)

    def fold_at_close(self, *, fold: bool) -> None:
        """Set whether closing the last connection moves SQLite's WAL into the main file and removes it."""
        self._sqlite.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, not fold)

    def run(self, sql: str, values: Sequence[Any] = (), *, keep: bool = True) -> None:
        """Run one or several statements that return no rows; SQLite would stop at the first row.

        A statement is kept for the next time, and with it SQLite's copies of *values*; not so without *keep*.
        """
        if forking:
            stand_by()
        try:
            self._sqlite.execute(sql, values, can_cache=keep)
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self.translated(e) from e

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a statement."""
        if forking:
            stand_by()
        try:
            return self._sqlite.execute(sql, values).fetchall()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self.translated(e) from e

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Return the first row of a statement, or None."""
        if forking:
            stand_by()
        try:
            return self._sqlite.execute(sql, values).fetchone()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self.translated(e) from e

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self.row(sql, values)
        return None if row is None else row[0]

    def chunk(
        self, sql: str, values: Sequence[Any], most: int, weight: Callable[[Row], int] | None = None
    ) -> tuple[list[Row], bool]:
        """Return rows of a statement until their weight reaches *most*, and whether that cut the result short.

        The statement has ended when this returns or raises. Its cursor is in no variable, so that no traceback keeps
        it.

        Args:
            sql: the statement.
            values: bound to it.
            most: the weight of one chunk.
            weight: returns the weight of a row; None for the length of its last column.
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
            raise self.translated(e) from e
        return rows, False

    def iterate(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a statement as they are read; all are of one committed state.

        For whole passes inside this package. The statement runs until the iterator is exhausted or the connection's
        lease ends.
        """
        try:
            for row in self._sqlite.execute(sql, values):
                if forking:
                    stand_by()
                yield row
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self.translated(e) from e

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of *values*."""
        if forking:
            stand_by()
        try:
            self._sqlite.executemany(sql, values)
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self.translated(e) from e

    def write_blob(self, table: str, column: str, rowid: int, content: bytes) -> None:
        """Overwrite a blob of the same length in place; SQLite makes no copy of it."""
        if forking:
            stand_by()
        try:
            with self._sqlite.blob_open("main", table, column, rowid, True) as blob:  # noqa: FBT003, its signature
                blob.write(content)
        except apsw.Error as e:
            raise self.translated(e) from e

    def rows_many(self, sql: str, values: Iterable[Sequence[Any]]) -> list[Row]:
        """Return the rows of a statement run once for each of *values*."""
        if forking:
            stand_by()
        try:
            return self._sqlite.executemany(sql, values).fetchall()
        except (apsw.Error, UnicodeDecodeError) as e:
            raise self.translated(e) from e

    def begin(self) -> None:
        """Begin a transaction that holds SQLite's write lock from its start.

        Raises:
            Busy: another writer held the lock for the whole timeout.
        """
        self.busy.patient_until = None
        # A deferred transaction that reads first could fail at its first write at once, without waiting.
        self.run("BEGIN IMMEDIATE")

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """Make the statements of the block see one committed state; an open transaction is used as it is."""
        if self._sqlite.in_transaction:
            yield
            return
        self.run("BEGIN")
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
            raise self.translated(e) from e
        except apsw.FullError as e:
            self.rollback()
            raise self.translated(e) from e
        except apsw.Error as e:
            raise OutcomeUnknown(str(e)) from e

    def rollback(self) -> None:
        """Roll back the open transaction, if there is one."""
        # SQLite rolls back by itself after some errors; another ROLLBACK would raise, and hide the cause.
        if self._sqlite.in_transaction:
            self.run("ROLLBACK")

    def checkpoint(self, mode: Checkpoint = "passive", *, patience: float | None = None) -> tuple[int, int]:
        """Move SQLite's WAL into the main file as far as *mode* says.

        Args:
            mode: see Checkpoint.
            patience: seconds to wait for readers, while other writers wait too; None for the timeout.

        Returns the frames in SQLite's WAL, and how many of them are in the main file now.

        Raises:
            Busy: another connection is doing it, or uses SQLite's WAL.
        """
        if forking:
            stand_by()
        if patience is not None:
            self.busy.patient_until = time.monotonic() + patience
        try:
            return self._sqlite.wal_checkpoint(mode=_CHECKPOINTS[mode])
        except apsw.Error as e:
            raise self.translated(e) from e
        finally:
            self.busy.patient_until = None

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

    def in_transaction(self) -> bool:
        """Return True if a transaction is open."""
        return self._sqlite.in_transaction

    def clean(self) -> bool:
        """Roll back what is open; return True if no statement runs and no read transaction is left.

        SQLite is asked. A statement that is still referenced keeps the read transaction, and only closing ends that.
        """
        try:
            self.rollback()
            return self._sqlite.txn_state("main") == apsw.SQLITE_TXN_NONE
        except (StoreError, apsw.Error):
            return False

    def close(self) -> None:
        """Close the connection. The last one of a store folds SQLite's WAL into the main file."""
        if forking:
            stand_by()
        try:
            self._sqlite.close()
        except apsw.Error as e:
            raise self.translated(e) from e
        self._file = None

    def interrupt_and_close(self) -> bool:
        """Close the connection, which another thread may be using; return False if that is not possible now.

        The running statement is interrupted; the next one is refused.
        """
        try:
            self._sqlite.interrupt()
            self._sqlite.close()
        except apsw.ConnectionClosedError:
            pass
        except (apsw.Error, AttributeError):  # it is in use, or being opened
            return False
        self._file = None
        self.cache = 0
        return True

    @property
    def closed(self) -> bool:
        """Whether it was closed, or never opened."""
        try:
            self._sqlite.in_transaction  # noqa: B018, asked for what it raises
        except (apsw.Error, AttributeError):
            return True
        return False

    def translated(self, e: Exception) -> StoreError:
        """Return our exception for SQLite's."""
        holder, self.busy.holder = self.busy.holder, None
        if holder is not None and isinstance(e, apsw.BusyError):
            return Busy(
                f"{self.path}: {holder} had the lock, which was not free for {self.busy.timeout:g} s; nothing was "
                "changed. Try again, or open with a longer timeout",
                holder.pid,
            )
        if isinstance(e, apsw.ProtocolError) and self.stuck is not None:
            self.stuck("a lock in SQLite's shared memory was not released")
        try:
            code = self._sqlite.system_errno
        except apsw.Error:  # it was closed
            code = 0
        return translated(e, self.path, self.busy.timeout, code)


def steadily(connection: Connection, work: Callable[[], T]) -> T:
    """Return what *work* returns, which reads through *connection*; it may be called several times."""
    return work() if connection.steady is None else cast("T", connection.steady(work))


def columns(connection: Connection, sql: str) -> int:
    """Return how many columns the rows of a statement have, without running it."""
    from apsw.ext import query_info  # noqa: PLC0415, takes long to import, and is seldom needed

    return len(query_info(connection._sqlite, sql).description)  # noqa: SLF001, of this module


def size_of(value: Any) -> int:
    """Return the length of text or bytes, 0 of anything else, which the reader of the row will refuse."""
    return len(value) if type(value) is str or type(value) is bytes else 0


class OutcomeUnknown(Exception):
    """COMMIT failed after it may have reached the disk. The engine turns it into an error that names the commit."""


class _Abandoned:
    """Stands for the SQLite connection of a parent process."""

    def __init__(self, refusal: StoreError) -> None:
        self._refusal = refusal

    def __getattr__(self, name: str) -> Any:
        raise self._refusal


def keep_for_ever(thing: object) -> None:
    """Keep Python from finalising *thing*: closing would let SQLite checkpoint or remove the parent's -wal."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_connections: Final[Living[Connection]] = Living()


@tells_busy
def _is_busy() -> bool:
    """Return True if a thread is inside SQLite with one of the connections, and does not just wait for a lock."""
    for connection in _connections.members():
        if connection.busy.waiting:
            continue
        try:
            connection._sqlite.in_transaction  # noqa: B018, SLF001, asked for what it raises
        except apsw.ThreadingViolationError:
            return True
        except (apsw.Error, AttributeError):  # it is closed, or not open yet
            continue
    return False


def _abandon_all() -> None:
    for connection in _connections.members():
        sqlite = getattr(connection, "_sqlite", None)
        if sqlite is not None:
            keep_for_ever(sqlite)  # it belongs to the parent, and is never closed here
        connection._sqlite = _Abandoned(refusal(connection.path))  # type: ignore[assignment]  # noqa: SLF001, it refuses


system.at_fork(in_child=_abandon_all)


def memory() -> Connection:
    """Return a connection to an empty database in memory."""
    return Connection(":memory:", 0.0)
