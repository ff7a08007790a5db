"""Backup and restore: a store as one file, checked whole before it takes its place.

Until then what was there before stays as it was: a crash leaves at most a temporary file, known as ours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlstate import audit, files, forks, migrate, raw_rows, schema, state, wal
from sqlstate import meta as metadata
from sqlstate.connection import HEADER_BYTES, Connection, check_sqlite, check_vfs, page_size
from sqlstate.encoding import name_bytes, stored_name
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
from sqlstate.files import belongs_to
from sqlstate.merkle import RootBuilder, leaf, rank
from sqlstate.overlay import Pages, overlaid
from sqlstate.raw_file import alone, outdating, read_at, set_journaling, unlocked_vfs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.engine import Engine
    from sqlstate.meta import Meta
    from sqlstate.wal import Head

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all."""

PAGES_AT_ONCE: Final = 256
_ENTRIES_AT_ONCE: Final = 1024


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

    In a store without SQLite's WAL, writers wait while its pages are copied. The copy is checked by itself: SQLite's
    own check, the commit, its link to the one before, the audit trail's chain, and the root from all entries.

    Args:
        engine: the store's connections.
        meta: the store's facts.
        dest: the file; a backup of this store that is there is replaced. A new one gets mode 0600.
        keep: how many backups to keep, *dest* and the older ones, which become `dest.1`, `dest.2`, …; with 0, no
            other file than *dest* is touched.
        progress: called with the pages copied and entries checked, and how many there are of both.

    Raises:
        InvalidOption: *dest* is the store itself, or something else than a closed backup of it; or *keep* is no number.
        Busy: somebody has a backup open that would be replaced or renamed.
        Damaged: the copy is not sound; what was there before is as it was.
        StoreFull, StoreIOError: it cannot be written; what was there before is as it was.
    """
    if type(keep) is not int or keep < 0:
        raise InvalidOption(f"keep={keep!r} is not a number of backups, 0 or more")
    shelf = _Shelf(absolute(dest), engine, meta.store_id, keep)
    with on_disk(shelf.path), ExitStack() as stack:
        shelf.check(stack)
    try:
        head, kept, removed = _copy(engine, meta, shelf, Meter(progress))
    except Damaged as e:
        raise Damaged(
            f"{e}. No backup was made, and {shelf.path} is as it was: keep the older ones. The store is damaged, or "
            "the disk that was written to"
        ) from e
    return BackupReport(Path(shelf.path), os.stat(shelf.path).st_size, head, kept, removed)


def _copy(engine: Engine, meta: Meta, shelf: _Shelf, meter: Meter) -> tuple[Head, tuple[str, ...], tuple[str, ...]]:
    """Make and check a backup and put it on the shelf; return its commit, and the names of those kept and removed."""
    with on_disk(shelf.path), files.temporary(shelf.path, meta.store_id) as made:
        with engine.reading() as source:
            lsn, head = wal.last(source, meta)  # the first read: what follows is of the same state
            meter.total = source.value("PRAGMA page_count") + head.count
            fill(made.path, shelf.path, source, meter, engine.vfs)
        with unshared(made.path, f"the copy of {engine.path}", engine.vfs) as written:
            marker = metadata.read_marker(written)
            if marker.open:
                metadata.write_marker(written, marker._replace(open=False, lsn=lsn))
            _check_copy(written, (meta, lsn, head), meter)
        set_journaling(made.path, unlocked_vfs(engine.vfs), meta.journal)
        return head, *shelf.put(made)


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
            if self._keep > 1 and os.path.lexists(self.path):
                older = self._shift(older)
                with suppress(InvalidOption, Busy):  # what stood behind a hole that is filled now
                    while self._stands_behind(older, stack):
                        older += 1
            made.replace()
            removed = []
            for number in range(older, max(self._keep, 1) - 1, -1):
                with suppress(OSError):  # it is named among those that are kept
                    os.unlink(self._older(number))
                    removed.append(number)
            if removed:
                files.sync_folder(os.path.dirname(self.path))
        kept = [number for number in range(1, older + 1) if number not in removed]
        return self._names(kept), self._names(removed)

    def _shift(self, older: int) -> int:
        """Move each backup one place on; the newest has two names then, until the next takes its first."""
        folder, first = os.path.dirname(self.path), self._older(1)
        if self._is_double():
            return older
        for number in range(older, 0, -1):
            os.rename(self._older(number), self._older(number + 1))
            files.sync_folder(folder)  # or a power cut could keep this step and lose the one before
        try:
            os.link(self.path, first)
        except OSError:  # a file system without links
            os.rename(self.path, first)
        files.sync_folder(folder)
        return older + 1

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
            if os.path.getsize(sidecar):
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
    """Write the store in the file *source* to *dest*: the whole of it durably, or nothing.

    The source is checked whole before and again as it was written, as copy() does. It is not changed, and others
    cannot open it meanwhile.

    Args:
        source: a backup, or any store that is closed.
        dest: the file; a new one gets mode 0600.
        replace: replace a file that is there. Nobody may have it open; one who has it open all the same is refused
            from then on, instead of writing to a file that is gone.
        accept_copy: take a copy of a store that was open, though commits after the newest in it may be missing.
        progress: called with the entries checked and pages copied, and how many there are of both.
        vfs: name of the SQLite VFS that the store is used with; None is the system's.

    Raises:
        StoreMissing: there is no file *source*.
        RestoreRejected: the source is not a sound store that is closed; nothing was written.
        InvalidOption: *dest* is there and *replace* is False, is no regular file, or has a -wal or -journal beside it.
        Busy: somebody has *dest* open.
        ReadOnly: *dest* may not be written.
        StoreFull, StoreIOError: it cannot be written; what was there before is as it was.
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
            facts = _judge_source(origin, vfs, stack, meter, accept_copy=accept_copy)
            connection, meta, lsn, head = facts
            marker = metadata.read_marker(connection)
            with on_disk(target), files.temporary(target, meta.store_id) as made:
                fill(made.path, target, connection, meter, vfs)
                with unshared(made.path, f"the copy of {origin}", vfs) as written:
                    if marker.open:
                        metadata.write_marker(written, marker._replace(open=False, lsn=lsn))
                    _check_copy(written, facts[1:], meter)
                set_journaling(made.path, unlocked_vfs(vfs), meta.journal)
                _install(made, vfs, replace=replace)
    except Damaged as e:
        raise RestoreRejected(origin, f"{reason_of(e, origin)}. {_NOTHING}") from e
    return BackupReport(Path(target), os.stat(target).st_size, head, copied_open=marker.open)


_NOTHING: Final = "Nothing was written; restore another backup"


def _judge_source(
    origin: str, vfs: str | None, stack: ExitStack, meter: Meter, *, accept_copy: bool
) -> tuple[Connection, Meta, int, Head]:
    """Return a connection that reads the source until *stack* ends, and its facts, once all of it was checked."""
    try:
        connection = open_source(origin, vfs, stack)
        meta, lsn, head = _facts(connection, accept_copy=accept_copy)
        meter.total = connection.value("PRAGMA page_count") + 2 * head.count
        _check_content(connection, meta, head, meter)
    except (Damaged, StoreMissing, StoreForked):
        raise
    except (StoreError, OSError) as e:
        raise RestoreRejected(origin, f"{reason_of(e, origin)}. Nothing was written") from e
    return connection, meta, lsn, head


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
        if os.path.getsize(sidecar):
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
        outdate = stack.enter_context(outdating(made.target, vfs))
        lost = os.stat(made.target).st_nlink == 1  # with another name, the file goes on
        made.replace()
        if lost:
            outdate()


# ---- Copying and checking ----


class Meter:
    """Adds up what is done, for the caller's *progress*."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._process = os.getpid()
        self._done = 0
        self.total = 0

    def advance(self, steps: int) -> None:
        """So much more was done.

        Raises:
            StoreForked: *progress* came back in the child of a fork; the work is its parent's.
        """
        self._done += steps
        if self._progress is not None:
            self._progress(self._done, self.total)
            if os.getpid() != self._process:
                raise StoreForked("this backup or restore was begun by a parent process, which goes on with it")


def fill(path: str, shown: str, source: Connection, meter: Meter, vfs: str | None) -> None:
    """Copy the state that *source* sees into the empty file at *path*, which then is in no WAL mode."""
    before = 0
    with unshared(path, shown, vfs) as target, closing(source.copy_to(target, PAGES_AT_ONCE)) as steps:
        for copied, _ in steps:
            meter.advance(copied - before)
            before = copied
    set_journaling(path, unlocked_vfs(vfs), "delete")  # as long as it is ours, nothing may lie beside it


@contextmanager
def unshared(path: str, shown: str, vfs: str | None) -> Iterator[Connection]:
    """Open a file that nobody else knows for writing; in messages it is called *shown*."""
    with closing(Connection(path, 0.0, vfs=unlocked_vfs(vfs))) as connection:
        connection.path = shown
        connection.settle_alone()
        yield connection


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
    """Check a file by itself, and that it is what *facts* say.

    Raises:
        Damaged: it is not.
    """
    meta, lsn, head = facts
    if _facts(connection) != (meta, lsn, head):
        raise Damaged(f"{connection.path} does not hold the commit that was copied; nothing was kept of it")
    _check_content(connection, meta, head, meter)


def _check_content(connection: Connection, meta: Meta, head: Head, meter: Meter) -> None:
    """Check all of a file: SQLite's own check, the newest commit's link to the one before, audit trail, and root.

    Raises:
        Damaged: something contradicts something else.
    """
    path = connection.path
    found = connection.value("PRAGMA quick_check")
    if found != "ok":
        raise Damaged(f"{path}: SQLite's check says: {found}")
    if not _is_linked(connection, meta, head):
        raise Damaged(f"I6: {path}: the chain of commit {head.seq} does not follow from its records")
    for _, finding in audit.check_chain(connection, meta.store_id):
        if finding:
            raise Damaged(f"I12: {path}: the audit trail is not what was written: {finding}")
    builder = RootBuilder()
    waiting = 0
    for digest, levels in _leaves(connection):
        builder.add(digest, levels)
        waiting += 1
        if waiting == _ENTRIES_AT_ONCE:
            meter.advance(waiting)
            waiting = 0
    if waiting:
        meter.advance(waiting)
    if builder.finish() != (head.root, head.count):
        raise Damaged(f"I3: {path}: its entries do not have the root and count of commit {head.seq}")


def _is_linked(connection: Connection, meta: Meta, head: Head) -> bool:
    if not head.seq:
        return head == wal.head_zero(meta)
    base = wal.base_of(connection, wal.commit_lsn(connection, head.seq))
    for said, follows, _ in wal.relink(connection, base, wal.head_at(connection, meta, base)):
        return said == follows == head
    return False


def _leaves(connection: Connection) -> Iterator[tuple[bytes, int]]:
    """Yield leaf and rank of each entry, in order."""
    for row in state.scan_all(connection):
        raw_rows.STATE.check(row, connection.path)
        collection, key, stored = row
        name = name_bytes(stored_name(collection, key))
        yield leaf(name, stored), rank(name)


# ---- Paths ----


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
    """Return the files in which SQLite keeps what is not in the main file yet, as far as they are there."""
    return [path + suffix for suffix in ("-wal", "-journal") if os.path.lexists(path + suffix)]


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
