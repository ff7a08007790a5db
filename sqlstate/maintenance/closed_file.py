"""Files that no process has open: reads one, keeps others from it, fills one, puts one in another's place."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from sqlstate.errors import (
    Busy,
    Damaged,
    InvalidOption,
    NotAStore,
    StoreError,
    StoreForked,
    StoreFull,
    StoreIOError,
    StoreMissing,
)
from sqlstate.files import paths, system
from sqlstate.files import replace as files
from sqlstate.sqlite import copying, main_file, settings
from sqlstate.sqlite.connection import Connection, OutcomeUnknown
from sqlstate.sqlite.main_file import HEADER_BYTES, page_size
from sqlstate.sqlite.overlay import Pages, overlaid
from sqlstate.sqlite.raw_file import exclusive_lock, invalidating_handles, read_at, set_journaling, unlocked_vfs
from sqlstate.tables import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all."""

PAGES_AT_ONCE: Final = 256
_JOURNALS: Final = ("-wal", "-journal")


def open_source(origin: str, vfs: str | None, stack: ExitStack) -> Connection:
    """Return a connection that reads a closed store, and keep others from it, until *stack* ends.

    Raises:
        StoreMissing: there is no such file.
        NotAStore: it is no SQLite file.
        Busy: a process has it open, or it was not closed.
    """
    if not os.path.lexists(origin):
        raise StoreMissing(f"there is no file {origin}; nothing was written")
    if not stat.S_ISREG(os.stat(origin).st_mode):
        raise NotAStore("it is not a regular file")
    free = stack.enter_context(exclusive_lock(origin, vfs, 0.0))
    for sidecar in sidecars_of(origin):
        raise Busy(
            f"it is in use, or was not closed: {sidecar} lies next to it. Open and close it, or make a backup of it "
            "with Store.backup(), and restore that"
        )
    if free is False:
        raise Busy(
            "a process has it open. Close it there, or make a backup of it with Store.backup(), and restore that"
        )
    return stack.enter_context(reading(origin, vfs))


@contextmanager
def renaming(held: ExitStack, path: str, *others: str) -> Iterator[None]:
    """Rename *path* and *others* in the block, on which this process holds the exclusive lock through *held*.

    Where the system lets nobody rename a file that SQLite has open, the locks are given up first: it lets nobody rename
    one either that another process has opened since.

    Raises:
        Busy: another program has one of them open.
    """
    if system.PINS_OPEN_FILES:
        held.close()
    try:
        for each in (path, *others):
            system.check_unheld(each)  # before the first of them has another name
        yield
    except PermissionError as e:
        if not system.PINS_OPEN_FILES:
            raise
        raise Busy(
            f"{path}, or a file beside it, cannot be replaced: another program has it open, or this user may not. What "
            "was there before is as it was. Close it there, and try again"
        ) from e


def take_place(made: files.Temporary, vfs: str | None, held: ExitStack) -> None:
    """Put a file in the place of its target, on which this process holds the exclusive lock through *held*."""
    with renaming(held, made.target), invalidating_handles(made.target, vfs) as outdate:
        last = os.stat(made.target).st_nlink == 1  # with another name, the file goes on
        made.sync()
        for suffix in _JOURNALS:  # empty, or sidecars_of() had refused them; a new file must not get them
            with suppress(OSError):
                system.remove(made.target + suffix)
        made.replace()
        if last:
            outdate()


class Meter:
    """Reports the progress of a copy: one half is copying the pages, the other checking them."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._process = os.getpid()
        self._pages = 0

    def copied(self, pages: int, total: int) -> None:
        """Report the number of pages that are copied.

        Raises:
            StoreForked: *progress* came back in the child of a fork; the work is its parent's.
        """
        self._pages = total
        self._tell(pages)

    def checked(self, rows: int, total: int) -> None:
        """Report the number of rows that are checked. Raises as copied()."""
        self._tell(self._pages + (self._pages * rows // total if total else 0))

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, 2 * self._pages)
            if os.getpid() != self._process:
                raise StoreForked("this backup or restore was begun by a parent process, which goes on with it")


def fill(path: str, shown: str, source: Connection, meter: Meter, vfs: str | None) -> None:
    """Copy the state that *source* sees into the empty file at *path*, which then is in no WAL mode."""
    with unshared(path, shown, vfs) as target, closing(copying.copy_database(source, target, PAGES_AT_ONCE)) as steps:
        for copied, total in steps:
            meter.copied(copied, total)
    set_journaling(path, unlocked_vfs(vfs), "delete")  # as long as it is ours, it must have no sidecars


@contextmanager
def unshared(path: str, shown: str, vfs: str | None) -> Iterator[Connection]:
    """Open a file for writing that no other process knows; messages call it *shown*."""
    with closing(Connection(path, 0.0, vfs=unlocked_vfs(vfs))) as connection:
        connection.path = shown
        settings.apply_to_new_file(connection)
        try:
            yield connection
        except OutcomeUnknown as e:  # no other process knows the file, so its content does not matter
            raise StoreIOError(f"{shown} cannot be written ({e}); nothing was put in its place") from e


@contextmanager
def reading(path: str, vfs: str | None) -> Iterator[Connection]:
    """Open a closed file for reading, without a lock and without any sidecar of SQLite's."""
    header = read_at(path, vfs, 0, HEADER_BYTES)
    if migrations.is_new(path, header, undone=False) or not page_size(header):
        raise NotAStore.about(path, "it is not an SQLite file", "choose another path")
    with overlaid(path, Pages(page_size(header), b"", {}, 0), vfs) as connection:
        settings.apply(connection, "delete", read_only=True, cache=settings.Caches.of(settings.CACHE_BYTES).writer)
        yield connection


def absolute(path: str | os.PathLike[str]) -> str:
    """Return the absolute path without links: SQLite names its sidecars after it."""
    real = os.fsdecode(path)
    try:
        paths.in_utf8(real)
        real = paths.absolute(real, links=False)
    except ValueError:
        raise InvalidOption(f"{real!r} is no path that SQLite takes; choose another") from None
    return real


def sidecars_of(path: str) -> list[str]:
    """Return those of SQLite's sidecars, -wal and -journal, that may hold what the main file lacks."""
    return [path + suffix for suffix in _JOURNALS if not main_file.is_nothing(path + suffix)]


def reason_of(e: StoreError | OSError) -> str:
    """Return what an error says about a file that the sentence around it names."""
    if isinstance(e, OSError):
        return paths.why(e)
    do = "" if isinstance(e, Damaged) else e.do  # of damage, the sentence around says what to do
    return f"{e.what}; {do}" if do else e.what.rstrip(".")


@contextmanager
def on_disk(path: str) -> Iterator[None]:
    """Turn what the system refuses about *path* into errors of ours."""
    try:
        yield
    except StoreFull as e:  # SQLite speaks of a transaction
        raise StoreFull(
            f"{path}: the disk is full; what was there before is as it was. Free space on that file system, and try "
            "again"
        ) from e
    except OSError as e:
        notes = "; ".join(getattr(e, "__notes__", [])) or "what was there before is as it was"
        if e.errno in paths.FULL:
            raise StoreFull(f"{path}: the disk is full; {notes}. Free space on its file system, and try again") from e
        raise StoreIOError(f"{path}: {paths.why(e)}; {notes}") from e
