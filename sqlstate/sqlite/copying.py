"""Copies a whole database from one connection to another, as one committed state, or writes it again in its place."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import apsw

from sqlstate.files import paths
from sqlstate.sqlite.connection import keep_for_ever
from sqlstate.sqlite.forks import forking, stand_by

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlstate.sqlite.connection import Connection


def copy_database(source: Connection, target: Connection, pages: int) -> Generator[tuple[int, int]]:
    """Copy the whole database into *target*, *pages* per step; yield (copied, total).

    Inside a transaction that has read, it is the state that the transaction sees.
    """
    try:
        backup = target._sqlite.backup("main", source._sqlite, "main")  # noqa: SLF001, one folder
    except apsw.Error as e:
        raise target.translated(e) from e
    pid = os.getpid()
    try:
        while not backup.done:
            if forking:
                stand_by()
            backup.step(pages)
            yield backup.page_count - backup.remaining, backup.page_count
        backup.finish()
    except (apsw.CorruptError, apsw.NotADBError) as e:
        raise source.translated(e) from e
    except apsw.Error as e:
        raise target.translated(e) from e
    finally:
        if os.getpid() != pid:  # closed in the child of a fork, where both files are the parent's
            keep_for_ever(backup)
        else:
            backup.close(True)  # noqa: FBT003, apsw takes it by position: what went wrong is known


def vacuum(connection: Connection, into: str | None = None) -> str:
    """Let SQLite write the database again without free pages, in one transaction of its own.

    It writes the rows to a temporary file first, as far as its cache cannot hold them; where none can be made, to
    memory. An exception raised by a signal ends the work, and nothing was changed.

    Args:
        connection: not inside a transaction.
        into: an empty file to write it to instead; then there is no temporary file.

    Returns why SQLite cannot, and nothing was changed, `""` if it did: tables of other programs can need functions that
    only those programs have.
    """
    sqlite = connection._sqlite  # noqa: SLF001, one folder

    def look() -> bool:
        """Let Python handle signals, and threads fork. Never call a user's function here: its fork would be stuck."""
        if forking:
            connection.busy.waiting = True
            stand_by()
            connection.busy.waiting = False
        return False

    connection.busy.patient_until = None
    if forking:
        stand_by()
    try:
        sqlite.set_progress_handler(look, _STEPS)
        _vacuum(sqlite, into)
    except apsw.SQLError as e:
        if str(e).startswith("cannot VACUUM"):  # a bug of ours
            raise connection.translated(e) from e
        return str(e)
    except apsw.Error as e:
        raise connection.translated(e) from e
    finally:
        with suppress(apsw.Error):  # it was closed
            sqlite.set_progress_handler(None)
            sqlite.execute("PRAGMA temp_store = DEFAULT")
    return ""


def _vacuum(sqlite: apsw.Connection, into: str | None) -> None:
    if into is not None:
        sqlite.execute("VACUUM INTO ?", (paths.in_utf8(into),), can_cache=False)
        return
    try:
        sqlite.execute("VACUUM", can_cache=False)
    except apsw.Error as e:
        if getattr(e, "extendedresult", 0) not in _NO_TEMPORARY_FILE:
            raise
        sqlite.execute("PRAGMA temp_store = MEMORY")
        sqlite.execute("VACUUM", can_cache=False)


_NO_TEMPORARY_FILE: Final = (apsw.SQLITE_CANTOPEN, apsw.SQLITE_CANTOPEN_ISDIR, apsw.SQLITE_IOERR_GETTEMPPATH)
_STEPS: Final = 10_000  # of SQLite's virtual machine, some ten for each row
