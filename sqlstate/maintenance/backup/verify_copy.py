"""Packs a finished copy, and checks it before it gets its name: it must be sound, and hold the commit copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlstate.errors import Damaged, MigrationMismatch, StoreFull
from sqlstate.maintenance.check import check
from sqlstate.maintenance.closed_file import unshared
from sqlstate.sqlite.copying import vacuum
from sqlstate.sqlite.raw_file import free_pages, set_journaling, unlocked_vfs
from sqlstate.tables import meta as metadata
from sqlstate.tables import migrations, schema, wal

if TYPE_CHECKING:
    from sqlstate.files.replace import Temporary
    from sqlstate.format.records import Head
    from sqlstate.maintenance.check.check import CheckReport
    from sqlstate.maintenance.closed_file import Meter
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Meta


def clear_dirty_flag(written: Connection, lsn: int) -> None:
    """Clear the dirty flag of a copy: the file itself has all of it."""
    flag = metadata.read_dirty_flag(written)
    if flag.dirty:
        metadata.write_dirty_flag(written, flag._replace(dirty=False, lsn=lsn))


def facts_of(connection: Connection, *, accept_copy: bool = False) -> tuple[Meta, int, Head]:
    """Return what a file says of itself: its facts, the greatest LSN, and the newest commit.

    Raises:
        MigrationMismatch: it is no store of this version.
        Damaged: something is missing, or contradicts the rest.
    """
    path = connection.path
    if migrations.pending(connection, migrations.shipped()):
        raise MigrationMismatch.about(
            path,
            "it has an older format",
            "open a copy of it for writing once, which brings it to this one, and restore that",
        )
    schema.check(connection)
    meta = metadata.read(connection)
    lsn, head = wal.last(connection, meta)
    flag = metadata.read_dirty_flag(connection)
    if flag.dirty and not accept_copy:
        raise Damaged.about(
            path,
            "the store was open when it was copied, and the -wal that belongs to it is not there. The copy ends with "
            f"commit {head.seq}; later ones may be missing. Put the -wal next to it, or take it as it is with "
            "accept_copy=True",
            "nothing was written",
        )
    if not flag.dirty and flag.nonce and flag.lsn != lsn:
        raise Damaged(f"{path}: it was closed when its log ended at {flag.lsn}, and now the log ends at {lsn}")
    return meta, lsn, head


def check_copy(connection: Connection, facts: tuple[Meta, int, Head], meter: Meter) -> None:
    """Check a file as check() does, and that it is what *facts* say.

    Raises:
        Damaged: it is not.
    """
    if facts_of(connection) != facts:
        raise Damaged(f"{connection.path} does not hold the commit that was copied; nothing was kept of it")
    _raise_findings(check.examine(connection, facts[0], "full", None, check.Meter(meter.checked)), connection)
    meter.checked(1, 1)


def _raise_findings(found: CheckReport, connection: Connection) -> None:
    if not found.ok:
        more = len(found.findings) + found.more - 1
        others = f", and {more:,} more findings" if more else ""
        raise Damaged(f"{connection.path}: {found.findings[0].what.rstrip('.')}{others}")


def pack(whole: Temporary, made: Temporary, shown: str, vfs: str | None, meta: Meta) -> Temporary:
    """Write a finished copy, *whole*, without its free pages to the empty file *made*; return that, the other is gone.

    Where there is no room for both, or a table of another program keeps SQLite from it, *whole* is returned.

    Raises:
        Damaged: it has damage that would not be in *made*, so that no check of that could find it.
    """
    _check_free_pages(whole, shown, vfs)
    with unshared(whole.path, shown, vfs) as connection:
        _raise_findings(check.examine(connection, meta, "quick"), connection)
        try:
            packed = not vacuum(connection, made.path)
        except StoreFull:
            packed = False
    (whole if packed else made).discard()
    return made if packed else whole


def finish(made: Temporary, shown: str, vfs: str | None, meta: Meta) -> None:
    """Look at what SQLite's check passes over, and write how the file is journaled.

    Raises:
        Damaged: the list of free pages is wrong.
    """
    _check_free_pages(made, shown, vfs)
    set_journaling(made.path, unlocked_vfs(vfs), meta.journal)


def _check_free_pages(made: Temporary, shown: str, vfs: str | None) -> None:
    wrong = free_pages(made.path, unlocked_vfs(vfs))
    if wrong:
        raise Damaged(f"{shown}: {wrong}")
