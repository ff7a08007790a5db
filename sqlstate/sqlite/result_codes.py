"""Maps SQLite's result codes to our exceptions. Each message says what it means for the data, and what to do."""

from __future__ import annotations

from typing import Final

import apsw

from sqlstate.errors import (
    Busy,
    CannotOpen,
    Damaged,
    NotAStore,
    ReadOnly,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreIOError,
)
from sqlstate.files import paths


def translated(e: Exception, path: str, timeout: float, code: int = 0) -> StoreError:  # noqa: PLR0911, PLR0912, a table
    """Return our exception for SQLite's.

    Args:
        e: SQLite's exception.
        path: the file.
        timeout: seconds for which a lock was waited for.
        code: the system's error number, if SQLite kept one.
    """
    extended = getattr(e, "extendedresult", 0)
    if isinstance(e, _ENDED):
        return StoreClosed(f"{path}: the store was closed while it was in use")
    if isinstance(e, apsw.BusyError | apsw.LockedError):
        return Busy(
            f"{path}: another writer, or a reader of a store without SQLite's WAL, held the lock for {timeout:g} s; "
            "nothing was changed. Try again, or open with a longer timeout"
        )
    if isinstance(e, apsw.FullError):
        return StoreFull(
            f"{path}: the disk is full; the transaction was rolled back and nothing was changed. What was committed is "
            "there, and can be read. Free space on its file system, and try again"
        )
    if extended == apsw.SQLITE_IOERR_SHMSIZE or (isinstance(e, apsw.CantOpenError) and code in paths.FULL):
        return StoreFull(
            f"{path}: the disk is full: SQLite cannot make the files that it needs next to it, even for reading. "
            "Nothing was changed, and nothing is lost. Free space on its file system, and open it again"
        )
    if isinstance(e, apsw.CantOpenError) and (code in paths.NO_DESCRIPTOR or paths.out_of_descriptors()):
        return CannotOpen(f"{path}: it cannot be opened: {paths.DESCRIPTORS}. Nothing was changed")
    if extended == apsw.SQLITE_READONLY_DBMOVED:
        return StoreIOError(
            f"{path}: the file was renamed, removed or replaced while it was open, and what is written to it would be "
            "lost; nothing was changed. Find out what does so, close this handle, and open the store again where it is"
        )
    if extended in _CANNOT_READ:
        return CannotOpen(
            f"{path}: even to read it, SQLite has to make files next to it, and may not: it was not closed, or is in "
            "WAL mode in a folder that cannot be written. Look at the permissions, or open it for writing once"
        )
    if isinstance(e, apsw.ReadOnlyError | apsw.PermissionsError):
        return ReadOnly(f"{path}: the file or its folder cannot be written; nothing was changed ({e})")
    if isinstance(e, apsw.CantOpenError):
        return CannotOpen(f"{path}: the file or its -wal cannot be opened; look at the permissions ({e})")
    if isinstance(e, apsw.NotADBError):
        return NotAStore(f"{path} is not an SQLite file, or is encrypted; nothing was changed. Choose another path")
    # Our statements are constants: a table or column that SQLite does not find was removed from the file.
    ours = str(e).startswith(_OURS)  # a bug of ours is not damage
    if isinstance(e, apsw.CorruptError | apsw.FormatError | apsw.SQLError | UnicodeDecodeError) and not ours:
        return Damaged(f"{path}: the file is damaged ({e}); nothing was changed. Keep it and restore a backup")
    if isinstance(e, apsw.ConstraintError):  # our statements keep all our constraints
        return Damaged(
            f"{path}: the file has rows, or an index of another program, that contradict the write ({e}); nothing "
            "was changed. store.check() tells which; repair the file, or restore a backup"
        )
    if isinstance(e, apsw.ProtocolError):
        return StoreIOError(
            f"{path}: a lock in SQLite's shared memory was not released: the system refused to unlock it, or another "
            "process is stopped while holding it. Nothing was changed. Close this handle, and open the store again"
        )
    if isinstance(e, apsw.TooBigError):
        return StoreIOError(f"{path}: a row is larger than SQLite allows; nothing was changed ({e})")
    return StoreIOError(f"{path}: SQLite reported {type(e).__name__}: {e}")


_ENDED: Final = (apsw.ThreadingViolationError, apsw.ConnectionClosedError, apsw.CursorClosedError, apsw.InterruptError)
_OURS: Final = ("cannot start a transaction", "cannot commit", "cannot rollback", "cannot VACUUM", "no such savepoint")
_CANNOT_READ: Final = (
    apsw.SQLITE_READONLY_CANTINIT,
    apsw.SQLITE_READONLY_CANTLOCK,
    apsw.SQLITE_READONLY_RECOVERY,
    apsw.SQLITE_READONLY_ROLLBACK,
)
