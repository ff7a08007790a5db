"""Restores a store from a backup: the copy takes its place once check() has called it sound."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sqlstate.commit.clock import now
from sqlstate.errors import (
    Busy,
    Damaged,
    InvalidOption,
    ReadOnly,
    RestoreRejected,
    StoreError,
    StoreForked,
    StoreMissing,
)
from sqlstate.files import paths
from sqlstate.files import replace as files
from sqlstate.files.identity import belongs_to
from sqlstate.maintenance.backup.backup import BackupReport
from sqlstate.maintenance.backup.verify_copy import check_copy, clear_dirty_flag, facts_of, finish
from sqlstate.maintenance.closed_file import (
    Meter,
    absolute,
    fill,
    on_disk,
    open_source,
    reason_of,
    sidecars_of,
    take_place,
    unshared,
)
from sqlstate.sqlite import forks
from sqlstate.sqlite.raw_file import exclusive_lock
from sqlstate.sqlite.settings import check_sqlite, check_vfs
from sqlstate.tables import audit
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.maintenance.closed_file import Progress
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Meta


def restore(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    replace: bool = False,
    accept_copy: bool = False,
    progress: Progress | None = None,
    vfs: str | None = None,
) -> BackupReport:
    """Make the store *dest* from a backup: as a whole and durably, or not at all.

    The copy is checked as `Store.check()` does before it gets its name, and its audit trail records the restore. The
    source is not changed, and others cannot open it meanwhile. A store that is replaced leaves its owner and mode.

    Cost: reads the backup as a whole, twice, and hashes it; 2 syncs or more.

    Args:
        source: a backup, or any store that is closed.
        dest: the path of the store; a new file gets mode 0600.
        replace: replace an existing file. A handle that has it open all the same is refused from then on.
        accept_copy: accept a *source* that is a copy of an open store, made by a tool that knows SQLite alone. All of
            it is checked, and it is taken with the commit that it ends with.
        progress: called with the work done, and the work in all.
        vfs: name of the SQLite VFS that the store is used with; None is the system's.

    Raises:
        StoreMissing: there is no file *source*.
        RestoreRejected: *source* is damaged, is not a store, or is in use; *dest* is unchanged.
        InvalidOption: *dest* exists and *replace* is False, is not a regular file, or has a -wal or -journal.
        Busy: somebody has *dest* open.
        ReadOnly: *dest* cannot be written.
        StoreFull, StoreIOError: *dest* could not be written; it is unchanged.

    Examples:
        >>> store["users"][1] = "ada"
        >>> report = store.backup("app.backup")
        >>> sqlstate.restore("app.backup", "again.db").head == store.head()
        True
    """
    check_sqlite()
    check_vfs(vfs)
    origin, target = absolute(source), absolute(dest)
    if belongs_to(target, origin) or belongs_to(origin, target):
        raise InvalidOption(f"{target} belongs to the source itself; nothing was written")
    with on_disk(target), ExitStack() as stack:
        _vacate(target, vfs, stack, replace=replace)
    meter = Meter(progress)
    try:
        with ExitStack() as stack:
            connection, facts, opened = _look_at_source(origin, vfs, stack, accept_copy=accept_copy)
            meta, lsn, head = facts
            with on_disk(target), files.temporary(target, meta.store_id) as made:
                fill(made.path, target, connection, meter, vfs)
                name = paths.as_text(os.path.basename(os.fspath(source)))
                detail = {"file": name, "bytes": os.stat(made.path).st_size, "seq": head.seq, "root": head.root.hex()}
                with unshared(made.path, f"the copy of {origin}", vfs) as written:
                    clear_dirty_flag(written, lsn)
                    written.begin()
                    event = "restore", detail | ({"copied_open": True} if opened else {})
                    entry = audit.append(written, meta.store_id, head, now(), event)
                    written.commit()
                    check_copy(written, facts, meter)
                finish(made, f"the copy of {origin}", vfs, meta)
                size = os.stat(made.path).st_size
                _install(made, vfs, replace=replace)
    except Damaged as e:
        raise RestoreRejected(origin, f"{reason_of(e)}. Nothing was written; restore another backup") from e
    return BackupReport(Path(target), size, head, copied_open=opened, entry=entry)


def _look_at_source(
    origin: str, vfs: str | None, stack: ExitStack, *, accept_copy: bool
) -> tuple[Connection, tuple[Meta, int, Head], bool]:
    """Return a connection that reads the source until *stack* ends, what it says of itself, and whether it was open."""
    try:
        connection = open_source(origin, vfs, stack)
        facts = facts_of(connection, accept_copy=accept_copy)
        return connection, facts, metadata.read_dirty_flag(connection).dirty
    except (Damaged, StoreMissing, StoreForked):
        raise
    except (StoreError, OSError) as e:
        raise RestoreRejected(origin, f"{reason_of(e)}. Nothing was written") from e


def _vacate(target: str, vfs: str | None, stack: ExitStack, *, replace: bool) -> bool:
    """Return True if there is a file, which may be replaced; keep others from it until *stack* ends."""
    forks.check_not_inherited(target)
    for sidecar in sidecars_of(target):
        raise InvalidOption(
            f"{sidecar} lies where a store would be restored to. It may hold commits of the store there: "
            "open and close that store, or move both away. Nothing was written"
        )
    if not os.path.lexists(target):
        return False
    if not replace:
        raise InvalidOption(f"{target} is there already; choose another place, or restore with replace=True")
    if not stat.S_ISREG(os.lstat(target).st_mode):
        raise InvalidOption(f"{target} is not a regular file; choose another place")
    free = stack.enter_context(exclusive_lock(target, vfs, 0.0))
    if free is None:
        raise ReadOnly(f"{target} may not be written, so whether it is in use cannot be known; nothing was written")
    if not free:
        raise Busy(f"a process has {target} open; close it there. Nothing was written")
    return True


def _install(made: files.Temporary, vfs: str | None, *, replace: bool) -> None:
    """Give the restored file its name."""
    with ExitStack() as stack:
        if not _vacate(made.target, vfs, stack, replace=replace):
            try:
                made.replace(overwrite=False)
            except FileExistsError:
                raise InvalidOption(f"{made.target} was created meanwhile; nothing was written") from None
            return
        take_place(made, vfs, stack)
