"""Backup and restore: a store as one file, which takes its place once check() has called it sound.

Until then what was there before stays as it was: a crash leaves at most a temporary file, known as ours. What could
fail comes before the file gets its name. A copy of a damaged store takes nobody's place: see salvage().
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlstate.commit.clock import now
from sqlstate.errors import (
    Busy,
    Damaged,
    InvalidOption,
    MigrationMismatch,
    NotAStore,
    ReadOnly,
    RestoreRejected,
    StoreError,
    StoreForked,
    StoreFull,
    StoreIOError,
    StoreMissing,
)
from sqlstate.files import replace as files
from sqlstate.files.replace import belongs_to
from sqlstate.maintenance.check import check
from sqlstate.sqlite import forks, main_file
from sqlstate.sqlite.connection import HEADER_BYTES, Connection, OutcomeUnknown, check_sqlite, check_vfs, page_size
from sqlstate.sqlite.overlay import Pages, overlaid
from sqlstate.sqlite.raw_file import alone, digest, free_pages, outdating, read_at, set_journaling, unlocked_vfs
from sqlstate.tables import audit, schema, wal
from sqlstate.tables import meta as metadata
from sqlstate.tables import migrations as migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.format.records import Head
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all."""

PAGES_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was written."""

    path: Path
    bytes: int
    head: Head
    """The commit that the file holds."""
    rotated: tuple[str, ...] = ()
    """Names of the older backups that are kept beside it, the newest first."""
    removed: tuple[str, ...] = ()
    """Names of those that were removed."""
    copied_open: bool = False
    """It was made of a copy of a store that was open, which may lack the commits after *head*."""
    entry: int | None = None
    """Number of the audit entry: of a restore in the file itself, of a backup in the store. None if there is none."""


# ---- Backup ----


def copy(
    engine: Engine,
    meta: Meta,
    dest: str | os.PathLike[str],
    *,
    keep: int = 0,
    progress: Progress | None = None,
) -> BackupReport:
    """Write the newest commit's state, as others go on writing, to *dest*: the whole of it durably, or nothing.

    In a store without SQLite's WAL, writers wait while its pages are copied. The copy is checked by itself, as by
    check(): every row of it.

    Args:
        engine: the store's connections.
        meta: the store's facts.
        dest: the file; a backup of this store that is there is replaced. A new one gets mode 0600.
        keep: how many backups to keep, *dest* and the older ones, which become `dest.1`, `dest.2`, …; with 0, no
            other file than *dest* is touched.
        progress: called with what is done and what there is in all.

    Raises:
        InvalidOption: *dest* is the store itself, or something else than a closed backup of it; or *keep* is no number.
        Busy: somebody has a backup open that would be replaced or renamed.
        Damaged: the copy is not sound: nothing was replaced, renamed or removed.
        StoreFull, StoreIOError: it cannot be written; what was there before is as it was.
    """
    if type(keep) is not int or keep < 0:
        raise InvalidOption(f"keep={keep!r} is not a number of backups, 0 or more")
    shelf = _Shelf(absolute(dest), engine, meta.store_id, keep)
    with on_disk(shelf.path), ExitStack() as stack:
        shelf.check(stack)
    try:
        return _copy(engine, meta, shelf, Meter(progress))
    except Damaged as e:
        raise Damaged(
            f"{str(e).rstrip('.')}. No backup was made, and {shelf.path} is as it was: keep the older ones. The store "
            "is damaged, or the disk that was written to: store.check() tells all of it, and store.salvage(DEST) "
            "makes a copy of it as it is"
        ) from e


def _copy(engine: Engine, meta: Meta, shelf: _Shelf, meter: Meter) -> BackupReport:
    """Make and check a backup, and put it on the shelf."""
    with on_disk(shelf.path), files.temporary(shelf.path, meta.store_id) as made:
        with engine.reading() as source:
            lsn, head = wal.last(source, meta)  # the first read: what follows is of the same state
            fill(made.path, shelf.path, source, meter, engine.vfs)
        with unshared(made.path, f"the copy of {engine.path}", engine.vfs) as written:
            _close_marker(written, lsn)
            _check_copy(written, (meta, lsn, head), meter)
        _finish(made, f"the copy of {engine.path}", engine.vfs, meta)
        size = os.stat(made.path).st_size
        return BackupReport(Path(shelf.path), size, head, *shelf.put(made))


def _close_marker(written: Connection, lsn: int) -> None:
    """Put the marker of a copy at rest: all that it has is in it."""
    marker = metadata.read_marker(written)
    if marker.open:
        metadata.write_marker(written, marker._replace(open=False, lsn=lsn))


class _Shelf:
    """The place of a backup, and those of the older ones: `path`, `path.1`, `path.2` and so on.

    Args:
        path: of the newest.
        engine: the store's connections.
        store_id: of the store.
        keep: how many backups to keep; with 0 there is only the one place.
    """

    def __init__(self, path: str, engine: Engine, store_id: bytes, keep: int) -> None:
        self.path = path
        self._engine = engine
        self._store_id = store_id
        self._keep = keep

    def check(self, stack: ExitStack) -> int:
        """Return how many older backups there are, and keep others from all of them until *stack* ends.

        Raises:
            InvalidOption: what is in one of the places is no closed backup of the store.
            Busy: somebody has it open.
        """
        self._check_one(self.path, stack)
        older = 1 if self._is_double() else 0
        while self._keep and self._stands_behind(older, stack):
            older += 1
        return older

    def put(self, made: files.Temporary) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give the new backup its place, and the others theirs; return the names of the older, and of the removed.

        At every moment there are as many backups as before, and one of them is at the first place. What a crash
        leaves here, the next backup puts in order.
        """
        made.sync()  # from here on, only names change
        with ExitStack() as stack:
            older = self.check(stack)
            moved: list[tuple[str, str]] = []
            try:
                if self._keep > 1 and os.path.lexists(self.path):
                    older = self._shift(older, moved)
                    with suppress(InvalidOption, Busy):  # what stood behind a hole that is filled now
                        while self._stands_behind(older, stack):
                            older += 1
                made.replace()
            except BaseException as e:
                if not made.replaced:
                    self._shift_back(moved, e)
                raise
            removed = []
            for number in range(older, max(self._keep, 1) - 1, -1):
                with suppress(OSError):  # it is named among those that are kept
                    os.unlink(self._older(number))
                    removed.append(number)
            if removed:
                with suppress(OSError):  # a power cut may bring one back, which the next backup removes
                    files.sync_folder(os.path.dirname(self.path))
        kept = [number for number in range(1, older + 1) if number not in removed]
        return self._names(kept), self._names(removed)

    def _shift(self, older: int, moved: list[tuple[str, str]]) -> int:
        """Move each backup one place on; the newest has two names then, until the next takes its first.

        Notes in *moved* each step, from and to, before it is taken.
        """
        folder, first = os.path.dirname(self.path), self._older(1)
        if self._is_double():
            return older
        for number in range(older, 0, -1):
            moved.append((self._older(number), self._older(number + 1)))
            os.rename(*moved[-1])
            files.sync_folder(folder)  # or a power cut could keep this step and lose the one before
        moved.append((self.path, first))
        try:
            os.link(self.path, first)
        except OSError:  # a file system without links
            os.rename(self.path, first)
        files.sync_folder(folder)
        return older + 1

    def _shift_back(self, moved: list[tuple[str, str]], error: BaseException) -> None:
        """Give the backups their places again, as the steps were not all taken; say in *error* if that fails too."""
        try:
            for source, target in reversed(moved):
                if os.path.lexists(source) and os.path.lexists(target):
                    os.unlink(target)  # the newest, which had two names
                elif os.path.lexists(target):
                    os.rename(target, source)
        except OSError:
            error.add_note("all backups that were there are there, some of them one place further on")

    def _is_double(self) -> bool:
        """Tell whether the newest has two names: a crash came between the last step of _shift() and what follows."""
        try:
            return self._keep > 0 and os.path.samefile(self.path, self._older(1))
        except FileNotFoundError:
            return False

    def _stands_behind(self, older: int, stack: ExitStack) -> bool:
        """Tell whether there is a backup behind so many older ones, and keep others from it."""
        path = self._older(older + 1)
        if not os.path.lexists(path):
            return False
        self._check_one(path, stack)
        return True

    def _older(self, number: int) -> str:
        return f"{self.path}.{number}"

    def _names(self, numbers: list[int]) -> tuple[str, ...]:
        return tuple(os.path.basename(self._older(number)) for number in numbers)

    def _check_one(self, path: str, stack: ExitStack) -> None:
        if belongs_to(path, self._engine.real_path):
            raise InvalidOption(f"{path} belongs to the store itself; nothing was written")
        if not os.path.lexists(path):
            return
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise InvalidOption(f"{path} is there and is not a regular file; move it away, or choose another place")
        for sidecar in beside(path):
            raise InvalidOption(
                f"{path} is in use, or was not closed: {sidecar} lies beside it. Open and close it, or choose "
                "another place; nothing was written"
            )
        try:
            if stack.enter_context(alone(path, self._engine.vfs, 0.0)) is False:
                raise Busy(f"somebody has {path} open; close it there. Nothing was written")
            with reading(path, self._engine.vfs) as connection:
                ours = _is_of(connection, self._store_id)
        except (Busy, StoreForked):
            raise
        except StoreError as e:
            raise InvalidOption(f"{path} is there, and is no backup that can be read ({e})") from e
        if not ours:
            raise InvalidOption(f"{path} is a backup of another store; choose another place. Nothing was written")


def _is_of(connection: Connection, store_id: bytes) -> bool:
    """Tell whether a file, also one of an older format, is of the store with *store_id*."""
    return metadata.read(connection, connection.value("PRAGMA user_version")).store_id == store_id


# ---- Salvage ----


def salvage(engine: Engine, meta: Meta, dest: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
    """Write a copy of a store that may be damaged, and return its path: `DEST.salvage-…`, named by its content.

    Nothing is checked. It takes nobody's place, and no backup() ever moves, replaces or removes it.

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
            _close_marker(written, wal.last(written, meta)[0])
        set_journaling(made.path, unlocked_vfs(engine.vfs), meta.journal)
        name = digest(made.path, unlocked_vfs(engine.vfs))
        made.target = f"{place}.salvage-{name[:16]}"
        try:
            made.replace(overwrite=False)
        except FileExistsError:
            if not stat.S_ISREG(os.lstat(made.target).st_mode) or digest(made.target, engine.vfs) != name:
                raise InvalidOption(f"{made.target} is there already, and is something else; move it away") from None
    return Path(made.target)


# ---- Restore ----


def restore(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    replace: bool = False,
    accept_copy: bool = False,
    progress: Progress | None = None,
    vfs: str | None = None,
) -> BackupReport:
    """Make the store *dest* from a backup: the whole of it durably, or nothing. Its audit trail says so.

    The source is not changed, and others cannot open it meanwhile. The copy is checked, as by check(), before it gets
    its name: every row of it.

    Args:
        source: a backup, or any store that is closed.
        dest: the file; a new one gets mode 0600.
        replace: replace a file that is there. Nobody may have it open; one who has it open all the same is refused
            from then on, instead of writing to a file that is gone.
        accept_copy: take a *source* that is a copy of a store that was open, made by a backup tool that knows SQLite
            alone. All of it is checked, and it is taken with the commit that it ends with; later ones are not in it.
        progress: called with what is done and what there is in all.
        vfs: name of the SQLite VFS that the store is used with; None is the system's.

    Raises:
        StoreMissing: there is no file *source*.
        RestoreRejected: *source* is no store, is damaged or in use; *dest* is as it was.
        InvalidOption: *dest* is there and *replace* is False, is no regular file, or has a -wal or -journal beside it.
        Busy: somebody has *dest* open.
        ReadOnly: *dest* may not be written.
        StoreFull, StoreIOError: *dest* could not be written; it is as it was.
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
                name = files.as_text(os.path.basename(os.fspath(source)))
                detail = {"file": name, "bytes": os.stat(made.path).st_size, "seq": head.seq, "root": head.root.hex()}
                with unshared(made.path, f"the copy of {origin}", vfs) as written:
                    _close_marker(written, lsn)
                    written.begin()
                    event = "restore", detail | ({"copied_open": True} if opened else {})
                    entry = audit.append(written, meta.store_id, head, now(), event)
                    written.commit()
                    _check_copy(written, facts, meter)
                _finish(made, f"the copy of {origin}", vfs, meta)
                size = os.stat(made.path).st_size
                _install(made, vfs, replace=replace)
    except Damaged as e:
        raise RestoreRejected(origin, f"{reason_of(e, origin)}. Nothing was written; restore another backup") from e
    return BackupReport(Path(target), size, head, copied_open=opened, entry=entry)


def _look_at_source(
    origin: str, vfs: str | None, stack: ExitStack, *, accept_copy: bool
) -> tuple[Connection, tuple[Meta, int, Head], bool]:
    """Return a connection that reads the source until *stack* ends, what it says of itself, and whether it was open."""
    try:
        connection = open_source(origin, vfs, stack)
        facts = _facts(connection, accept_copy=accept_copy)
        return connection, facts, metadata.read_marker(connection).open
    except (Damaged, StoreMissing, StoreForked):
        raise
    except (StoreError, OSError) as e:
        raise RestoreRejected(origin, f"{reason_of(e, origin)}. Nothing was written") from e


def open_source(origin: str, vfs: str | None, stack: ExitStack) -> Connection:
    """Return a connection that reads a closed store, and keep others from it, until *stack* ends.

    Raises:
        StoreMissing: there is no such file.
        NotAStore: it is no SQLite file.
        Busy: somebody has it open, or it was not closed.
    """
    if not os.path.lexists(origin):
        raise StoreMissing(f"there is no file {origin}; nothing was written")
    if not stat.S_ISREG(os.stat(origin).st_mode):
        raise NotAStore("it is not a regular file")
    free = stack.enter_context(alone(origin, vfs, 0.0))
    for sidecar in beside(origin):
        raise Busy(
            f"it is in use, or was not closed: {sidecar} lies beside it. Open and close it, or make a backup of it "
            "with Store.backup(), and restore that"
        )
    if free is False:
        raise Busy("somebody has it open. Close it there, or make a backup of it with Store.backup(), and restore that")
    return stack.enter_context(reading(origin, vfs))


def _vacate(target: str, vfs: str | None, stack: ExitStack, *, replace: bool) -> bool:
    """Tell whether there is a file that may be replaced, and keep others from it until *stack* ends."""
    forks.check(target)
    for sidecar in beside(target):
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
    free = stack.enter_context(alone(target, vfs, 0.0))
    if free is None:
        raise ReadOnly(f"{target} may not be written, so whether it is in use cannot be known; nothing was written")
    if not free:
        raise Busy(f"somebody has {target} open; close it there. Nothing was written")
    return True


def _install(made: files.Temporary, vfs: str | None, *, replace: bool) -> None:
    """Give the restored file its name."""
    with ExitStack() as stack:
        if not _vacate(made.target, vfs, stack, replace=replace):
            try:
                made.replace(overwrite=False)
            except FileExistsError:
                raise InvalidOption(f"{made.target} came to be there meanwhile; nothing was written") from None
            return
        take_place(made, vfs)


def take_place(made: files.Temporary, vfs: str | None) -> None:
    """Put a file in the place of its target, which this process is alone with."""
    with outdating(made.target, vfs) as outdate:
        last = os.stat(made.target).st_nlink == 1  # with another name, the file goes on
        made.sync()
        for suffix in _JOURNALS:  # what beside() takes for nothing; afterwards it could be somebody's
            with suppress(OSError):
                os.unlink(made.target + suffix)
        made.replace()
        if last:
            outdate()


# ---- Copying and checking ----


class Meter:
    """Tells the caller's *progress* how far a copy has come: half of it is to copy the pages, half to check them."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._process = os.getpid()
        self._pages = 0

    def copied(self, pages: int, total: int) -> None:
        """So many pages are copied.

        Raises:
            StoreForked: *progress* came back in the child of a fork; the work is its parent's.
        """
        self._pages = total
        self._tell(pages)

    def checked(self, rows: int, total: int) -> None:
        """So many rows are checked. Raises as copied()."""
        self._tell(self._pages + (self._pages * rows // total if total else 0))

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, 2 * self._pages)
            if os.getpid() != self._process:
                raise StoreForked("this backup or restore was begun by a parent process, which goes on with it")


def fill(path: str, shown: str, source: Connection, meter: Meter, vfs: str | None) -> None:
    """Copy the state that *source* sees into the empty file at *path*, which then is in no WAL mode."""
    with unshared(path, shown, vfs) as target, closing(source.copy_to(target, PAGES_AT_ONCE)) as steps:
        for copied, total in steps:
            meter.copied(copied, total)
    set_journaling(path, unlocked_vfs(vfs), "delete")  # as long as it is ours, nothing may lie beside it


@contextmanager
def unshared(path: str, shown: str, vfs: str | None) -> Iterator[Connection]:
    """Open a file that nobody else knows for writing; in messages it is called *shown*."""
    with closing(Connection(path, 0.0, vfs=unlocked_vfs(vfs))) as connection:
        connection.path = shown
        connection.settle_alone()
        try:
            yield connection
        except OutcomeUnknown as e:  # whatever is in the file: nobody knows it
            raise StoreIOError(f"{shown} cannot be written ({e}); nothing was put in its place") from e


@contextmanager
def reading(path: str, vfs: str | None) -> Iterator[Connection]:
    """Open a closed file for reading, without a lock and without anything that SQLite would make beside it."""
    header = read_at(path, vfs, 0, HEADER_BYTES)
    if migrate.is_new(path, header, undone=False) or not page_size(header):
        raise NotAStore(f"{path} is not an SQLite file")
    with overlaid(path, Pages(page_size(header), b"", {}, 0), vfs) as connection:
        connection.settle("delete", read_only=True)
        yield connection


def _facts(connection: Connection, *, accept_copy: bool = False) -> tuple[Meta, int, Head]:
    """Return what a file says of itself: its facts, the greatest LSN, and the newest commit.

    Raises:
        MigrationMismatch: it is no store of this version.
        Damaged: something is missing, or contradicts the rest.
    """
    path = connection.path
    if migrate.pending(connection, migrate.shipped()):
        raise MigrationMismatch(
            f"{path} has an older format; open a copy of it for writing once, which brings it to this one, "
            "and restore that"
        )
    schema.check(connection)
    meta = metadata.read(connection)
    lsn, head = wal.last(connection, meta)
    marker = metadata.read_marker(connection)
    if marker.open and not accept_copy:
        raise Damaged(
            f"{path}: the store was open when it was copied, and the -wal that belongs to it is not beside it. It ends "
            f"with commit {head.seq}; later ones may be missing. Put the -wal there, or take it as it is with "
            "accept_copy=True"
        )
    if not marker.open and marker.nonce and marker.lsn != lsn:
        raise Damaged(f"{path}: it was closed when its log ended at {marker.lsn}, and now the log ends at {lsn}")
    return meta, lsn, head


def _check_copy(connection: Connection, facts: tuple[Meta, int, Head], meter: Meter) -> None:
    """Check a file as check() does, and that it is what *facts* say.

    Raises:
        Damaged: it is not.
    """
    if _facts(connection) != facts:
        raise Damaged(f"{connection.path} does not hold the commit that was copied; nothing was kept of it")
    found = check.examine(connection, facts[0], "full", None, check.Meter(meter.checked))
    if not found.ok:
        more = len(found.findings) + found.more - 1
        others = f", and {more:,} more findings" if more else ""
        raise Damaged(f"{connection.path}: {found.findings[0].what.rstrip('.')}{others}")
    meter.checked(1, 1)


def _finish(made: files.Temporary, shown: str, vfs: str | None, meta: Meta) -> None:
    """Look at what SQLite's check passes over, and write how the file is journaled.

    Raises:
        Damaged: the list of free pages is wrong.
    """
    wrong = free_pages(made.path, unlocked_vfs(vfs))
    if wrong:
        raise Damaged(f"{shown}: {wrong}")
    set_journaling(made.path, unlocked_vfs(vfs), meta.journal)


# ---- Paths ----

_JOURNALS: Final = ("-wal", "-journal")


def absolute(path: str | os.PathLike[str]) -> str:
    """Return the absolute path without links: what SQLite names the files beside it after."""
    real = os.fsdecode(path)
    try:
        files.in_utf8(real)
        real = files.absolute(real, links=False)
    except ValueError:
        raise InvalidOption(f"{real!r} is no path that SQLite takes; choose another") from None
    return real


def beside(path: str) -> list[str]:
    """Return the files in which SQLite keeps what is not in the main file yet, as far as they may hold something."""
    return [path + suffix for suffix in _JOURNALS if not main_file.is_nothing(path + suffix)]


def reason_of(e: Exception, path: str) -> str:
    """Return what an error says, without the path in front."""
    text = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
    for start in (f"{path}: ", f"{path} "):
        text = text.removeprefix(start)
    return text.rstrip(" .")


@contextmanager
def on_disk(path: str) -> Iterator[None]:
    """Say in our own errors what the system refuses about *path*."""
    try:
        yield
    except StoreFull as e:  # SQLite speaks of a transaction
        raise StoreFull(
            f"{path}: the disk is full; what was there before is as it was. Free space on that file system, and try "
            "again"
        ) from e
    except OSError as e:
        notes = "; ".join(getattr(e, "__notes__", [])) or "what was there before is as it was"
        if e.errno in files.FULL:
            raise StoreFull(f"{path}: the disk is full; {notes}. Free space on its file system, and try again") from e
        raise StoreIOError(f"{path}: {files.why(e)}; {notes}") from e
