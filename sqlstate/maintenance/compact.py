"""Gives free space back: SQLite writes the whole file again, without free pages, in one transaction.

Entries, log, tree and rowids stay as they are, and so do root and chain. Who reads keeps what it sees. A kill leaves
the file as it was before or as it is after.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import Busy, CannotOpen, Damaged, StoreError, StoreForked, StoreFull, StoreIOError
from sqlstate.maintenance.check import check
from sqlstate.sqlite.checkpoints import PATIENCE_SECONDS
from sqlstate.sqlite.copying import vacuum
from sqlstate.tables import schema

if TYPE_CHECKING:
    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.maintenance.closed_file import Progress


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction gave back.

    Examples:
        >>> store["users"][1] = "ada"
        >>> report = store.compact()
        >>> report.bytes_after <= report.bytes_before, report.shrunk
        (True, True)
    """

    bytes_before: int
    """Size of the file before, with all that SQLite's WAL had for it."""
    bytes_after: int
    """Its size after."""
    shrunk: bool
    """Whether the file has that size already. While somebody reads an older commit it cannot; a later checkpoint, or
    the close, makes it so."""
    entry: int | None = None
    """Number of the audit entry; None if it could not be written."""


STEPS: Final = 4


def compact(group: GroupCommit[Any], progress: Progress | None = None) -> CompactReport:
    """Write the store's file again without free pages. The caller has no transaction open.

    The store is checked before and after, as by check("quick").

    Args:
        group: of the store.
        progress: called with the steps that are done, and how many there are.

    Raises:
        Damaged: the store is not sound; it was not written again. Or it was, and is not sound since.
        Busy: another thread or process wrote for the whole timeout; without SQLite's WAL, or read.
        StoreFull: there is no room to write it again; nothing was changed.
        StoreIOError: the system refused to read or write; the handle refuses further work.
        StoreError: a table of another program needs a function that only that program has; nothing was changed.
    """
    context, process = group.context, os.getpid()

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, STEPS)
            if os.getpid() != process:
                raise StoreForked("this compaction was begun by a parent process, which goes on with it")

    context.engine.life.check_writable()
    _check(context, "nothing was changed")
    tell(1)
    with group.writing():
        before, after = _rewrite(context)
        tell(2)
        shrunk = _fold(context)
    tell(3)
    _check(context, "the file was written again, and its free space was given back")
    tell(4)
    return CompactReport(before, after, shrunk)


def _check(context: WriteContext, meaning: str) -> None:
    """Raise if the store is not sound: a file that is damaged is not to be written again."""
    found = check.check(context.engine, context.meta, "quick")
    if not found.ok:
        raise Damaged.about(
            context.engine.path,
            found.findings[0].what.rstrip("."),
            f"{meaning}. store.check() tells all of it; repair the file, or restore a backup",
        )


def _rewrite(context: WriteContext) -> tuple[int, int]:
    """Write the file again, and return its sizes before and after."""
    engine, connection = context.engine, context.engine.write_connection
    context.dirty_flag.begin()  # as for every commit: opening must know that there is a -wal
    size = connection.value("PRAGMA page_size")
    pages, free = schema.pages(connection)
    context.commit_unnumbered("the beginning of a compaction")
    try:
        cannot = vacuum(connection)
    except StoreFull as e:
        engine.checkpointer.make_room()
        raise StoreFull(
            f"{engine.path}: there is no room to compact it; nothing was changed. What it holds, "
            f"{(pages - free) * size:,} bytes, is written twice meanwhile: to SQLite's folder for temporary files, "
            "which SQLITE_TMPDIR names, and to the -wal or -journal next to the store. Free space on both, and try "
            "again"
        ) from e
    except CannotOpen as e:
        raise StoreIOError(f"{engine.path}: it was not compacted; nothing was changed ({e.what})") from e
    except StoreIOError as e:
        engine.fail("compacting it failed")
        raise StoreIOError(
            f"{engine.path}: compacting it failed ({e.__cause__ or e}). Nothing that was committed is lost, and the "
            "file is as it was, or compacted; this handle refuses further work. Open the store again"
        ) from e
    if cannot:
        raise StoreError(
            f"{engine.path}: a table of another program needs what only that program has ({cannot}), so SQLite cannot "
            "write the file again; nothing was changed. Let that program VACUUM the file, or drop its table"
        )
    engine.checkpointer.count_commit()
    return pages * size, schema.pages(connection)[0] * size


def _fold(context: WriteContext) -> bool:
    """Move SQLite's WAL into the file, which then is as small as its content; return False if readers prevent it."""
    if context.engine.journal != "wal":
        return True
    with suppress(Busy, StoreFull):
        frames, carried = context.engine.checkpointer.run(patience=PATIENCE_SECONDS)
        return frames == carried
    return False
