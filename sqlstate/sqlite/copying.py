"""Copies a whole database from one connection to another, as one committed state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

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
