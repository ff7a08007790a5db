"""Writes backups: a store as one file, which takes its place once check() has called it sound.

Until then what was there before stays as it was: a crash leaves at most a temporary file, known as ours. What could
fail comes before the file gets its name. A copy of a damaged store replaces no file: see salvage().
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlstate.errors import (
    Damaged,
    InvalidOption,
)
from sqlstate.files import replace as files
from sqlstate.maintenance.backup.rotation import Rotation
from sqlstate.maintenance.backup.verify_copy import check_copy, clear_dirty_flag, finish, pack
from sqlstate.maintenance.closed_file import Meter, Progress, absolute, fill, on_disk, unshared
from sqlstate.sqlite.raw_file import digest, set_journaling, unlocked_vfs
from sqlstate.tables import schema, wal

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup or a restore wrote.

    Examples:
        >>> store["users"][1] = "ada"
        >>> report = store.backup("app.backup", keep=2)
        >>> report.path.name, report.head.seq, report.rotated
        ('app.backup', 1, ())
    """

    path: Path
    """The copy, or the restored store."""
    bytes: int
    """Its size."""
    head: Head
    """The commit that the file holds."""
    rotated: tuple[str, ...] = ()
    """Names of the older backups that are kept next to it, the newest first."""
    removed: tuple[str, ...] = ()
    """Names of those that were removed."""
    copied_open: bool = False
    """It was made of a copy of a store that was open, which may lack the commits after *head*."""
    entry: int | None = None
    """Number of the audit entry: of a restore in the file itself, of a backup in the store."""


def copy(
    engine: Engine,
    meta: Meta,
    dest: str | os.PathLike[str],
    *,
    keep: int = 0,
    progress: Progress | None = None,
) -> BackupReport:
    """Write the newest commit's state, as others go on writing, to *dest*: the whole of it durably, or nothing.

    In a store without SQLite's WAL, writers wait while its pages are copied. The copy has no free pages. It is checked
    by itself, as by check(): every row of it.

    Args:
        engine: the store's connections.
        meta: the store's facts.
        dest: the file; a backup of this store that is there is replaced. A new one gets mode 0600.
        keep: how many backups to keep, *dest* and the older ones, which become `dest.1`, `dest.2`, …; with 0, no
            other file than *dest* is touched.
        progress: called with what is done and what there is in all.

    Raises:
        InvalidOption: *dest* is the store itself, or something else than a closed backup of it; or *keep* is no number.
        Busy: a process has a backup open that would be replaced or renamed.
        Damaged: the copy is not sound: nothing was replaced, renamed or removed.
        StoreFull, StoreIOError: it cannot be written; what was there before is as it was.
    """
    if type(keep) is not int or keep < 0:
        raise InvalidOption(f"keep={keep!r} is not a number of backups, 0 or more")
    rotation = Rotation(absolute(dest), engine, meta.store_id, keep)
    with on_disk(rotation.path), ExitStack() as stack:
        rotation.check(stack)
    try:
        return _copy(engine, meta, rotation, Meter(progress))
    except Damaged as e:
        raise Damaged(
            f"{str(e).rstrip('.')}. No backup was made, and {rotation.path} is as it was: keep the older ones. The "
            "store is damaged, or the disk that was written to: store.check() tells all of it, and store.salvage(DEST) "
            "makes a copy of it as it is"
        ) from e


def _copy(engine: Engine, meta: Meta, rotation: Rotation, meter: Meter) -> BackupReport:
    """Make and check a backup, and put it on the rotation."""
    with on_disk(rotation.path), ExitStack() as stack:
        made = stack.enter_context(files.temporary(rotation.path, meta.store_id))
        with engine.reading() as source:
            lsn, head = wal.last(source, meta)  # the first read: what follows is of the same state
            fill(made.path, rotation.path, source, meter, engine.vfs)
            has_free = schema.pages(source)[1] > 0
        if has_free:
            packed = stack.enter_context(files.temporary(rotation.path, meta.store_id))
            made = pack(made, packed, f"the copy of {engine.path}", engine.vfs, meta)
        with unshared(made.path, f"the copy of {engine.path}", engine.vfs) as written:
            clear_dirty_flag(written, lsn)
            check_copy(written, (meta, lsn, head), meter)
        finish(made, f"the copy of {engine.path}", engine.vfs, meta)
        size = os.stat(made.path).st_size
        return BackupReport(Path(rotation.path), size, head, *rotation.put(made))


def salvage(engine: Engine, meta: Meta, dest: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
    """Write a copy of a store that may be damaged, and return its path: `DEST.salvage-…`, named by its content.

    Nothing is checked. It replaces no file, and no backup() ever moves, replaces or removes it.

    Args:
        engine: the store's connections.
        meta: the store's facts.
        dest: how its name begins.
        progress: called with the pages copied, and how many there are.

    Raises:
        InvalidOption: a file of that name is there, and is something else.
        StoreFull, StoreIOError: it cannot be written; nothing was.
    """
    place = absolute(dest)
    with on_disk(place), files.temporary(f"{place}.salvage", meta.store_id) as made:
        with engine.reading() as source:
            fill(made.path, place, source, Meter(progress), engine.vfs)
        with unshared(made.path, f"the copy of {engine.path}", engine.vfs) as written, suppress(Damaged):
            clear_dirty_flag(written, wal.last(written, meta)[0])
        set_journaling(made.path, unlocked_vfs(engine.vfs), meta.journal)
        name = digest(made.path, unlocked_vfs(engine.vfs))
        made.target = f"{place}.salvage-{name[:16]}"
        try:
            made.replace(overwrite=False)
        except FileExistsError:
            if not stat.S_ISREG(os.lstat(made.target).st_mode) or digest(made.target, engine.vfs) != name:
                raise InvalidOption(f"{made.target} is there already, and is something else; move it away") from None
    return Path(made.target)
