"""The connections of one open store: one that writes, those that read, their locks and checkpoints."""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from contextlib import contextmanager, nullcontext, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import (
    Busy,
    CannotOpen,
    CommitOutcomeUnknown,
    InvalidOption,
    ReadOnly,
    StoreError,
    StoreFull,
    StoreIOError,
    StoreUnusable,
    WalPinned,
)
from sqlstate.files import paths
from sqlstate.files.file_bytes import FileBytes
from sqlstate.sqlite import lock_holders as holders
from sqlstate.sqlite import main_file
from sqlstate.sqlite.blocks import Block
from sqlstate.sqlite.connection import (
    HEADER_BYTES,
    SYNCHRONOUS,
    WAL_BYTES_MAX,
    Journal,
    OutcomeUnknown,
    check_sqlite,
    check_vfs,
)
from sqlstate.sqlite.counters import Counting
from sqlstate.sqlite.frozen import Frozen
from sqlstate.sqlite.life import Life
from sqlstate.sqlite.opener import Opener
from sqlstate.sqlite.raw_file import alone, read_at
from sqlstate.sqlite.readers import Readers, Reading
from sqlstate.sqlite.writer_lock import Turn, thread_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.overlay import Pages

# Smaller ones would meet one commit in a hundred; larger ones take longer, and leave more to recover.
CHECKPOINT_PAGES: Final = 4096
# So long does a commit wait for readers, seldom, where SQLite's WAL would grow and grow: readers that overlap
# keep it from being begun anew for ever, however short each of them is.
PATIENCE_SECONDS: Final = 0.1
SYNCS_WITHOUT_WAL: Final = 5  # the journal twice, its folder twice, the file


class Engine:
    """The connections of one open store: one that writes, and a pool of those that read.

    Args:
        path: the file.
        read_only: open for reading; nothing is created or changed.
        create: make the file if there is none.
        timeout: seconds to wait for a lock before Busy.
        vfs: name of the SQLite VFS to use.

    Raises:
        CannotOpen: one of its kinds; see errors.
        InvalidOption: there is no such VFS.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool,
        create: bool,
        timeout: float,
        vfs: str | None = None,
    ) -> None:
        self.sqlite_version = check_sqlite()
        check_vfs(vfs)
        self.path = main_file.absolute(path)
        self.read_only = read_only
        self.life = Life(self.path, read_only=read_only)
        self.journal: Journal = "delete"
        self.wal_pages = 0
        self.recovered_frames = 0
        self.counters = Counting()
        self.watchers: set[threading.Event] = set()
        """Set when a commit of this handle was made, and when the handle is closed."""
        self._written = 0
        self._first_sync = True
        self._pages_seen = 0
        self._carried = 0  # frames of SQLite's WAL that the newest checkpoint found in the main file
        self._retry_at = 0  # pages of SQLite's WAL at which the next checkpoint is due; 0 before the first
        self._warned = False
        self.timeout = timeout
        self.vfs = vfs
        self.turn = Turn()
        self.before_turn: weakref.WeakMethod[Callable[[], None]] | None = None
        """What commits a transaction that one block left open for the next, before anybody else may write."""
        self.real_path = os.path.realpath(self.path)  # SQLite names the files beside it after what a link leads to
        # In one line: `with` is ended by steps of its own, and those of a line of its own can be interrupted.
        with _opening: self._look(create=create and not read_only)  # noqa: E701  # fmt: skip
        self.readers = Readers(self.opener, self.life)

    def _look(self, *, create: bool) -> None:
        """Make sure that there is a file, and look at its header."""
        if create:
            self._refuse_strangers()
        main_file.prepare(self.path, create=create)
        self.opener = Opener(self.life, self.real_path, self.timeout, vfs=self.vfs)
        self.look()

    def connect(self) -> None:
        """Open the writing connection. `header` was looked at before: SQLite may change a file by reading it."""
        self.writer = self.opener.open()
        _engines.add(self)

    def settle(self) -> None:
        """Apply the store's settings to the writing connection.

        Raises:
            InvalidOption: another program set a journal mode that is not durable.
            StoreIOError: the operating system refused to make the -wal.
        """
        if self.opener.frozen is not None:
            self.journal = "wal"
            self.writer.settle("wal", read_only=True)
            return
        actual = self.writer.journal_mode()
        if actual not in SYNCHRONOUS:
            raise InvalidOption(f"{self.path} has journal mode {actual!r}; use SQLite to set it to 'wal' or 'delete'")
        self.journal = "wal" if actual == "wal" else "delete"
        self.writer.settle(self.journal, read_only=self.read_only)
        if self.journal == "wal" and not self.read_only:
            self.writer.on_commit(self._seen_wal)
            self.opener.wal_in_place()
        self.readers.journal = self.journal
        self.recovered_frames = 0
        if self.journal == "wal":
            with suppress(ReadOnly):  # SQLite does not count for who may not write; nothing is compared then
                self.recovered_frames = self.writer.wal_frames()
        if self.journal == "wal" and self.writer.value("PRAGMA user_version") is not None and not self.has("-wal"):
            # SQLite swallows an error of the change, and goes on with a rollback journal.
            raise StoreIOError(f"{self.path}: SQLite could not go over to WAL mode; nothing was changed. Try again")

    def reading(self) -> Reading:
        """Return a block with a connection that sees one committed state."""
        return self.readers.reading()

    def freeze(self, pages: Pages | None) -> None:
        """Read the file from now on without anything that SQLite would make beside it; not connected yet.

        Args:
            pages: of a -wal that holds commits; the caller is alone with the file.
        """
        self.opener.frozen = Frozen(self.real_path, self.vfs, pages)

    @property
    def usable(self) -> bool:
        """Whether life.check() would pass."""
        return self.life.usable

    def writing(self) -> Writing:
        """Return a block that has the writing connection for itself, among the threads of this process."""
        return Writing(self)

    def lock_writer(self, over: Over, *, joining: bool = False) -> None:
        """Wait until no other block uses the writing connection; what one left behind that was cut short is undone.

        Args:
            over: of the block that wants it.
            joining: leave a transaction open that another block left for this one to go on with.

        Raises:
            Busy: another thread had it for the whole timeout.
            StoreUnusable: this thread has a transaction open.
            ReadOnly: the store was opened for reading.
        """
        self.life.check_writable()
        if self.readers.gone:  # in a store without SQLite's WAL they would keep the commit waiting
            self.readers.reclaim()
        self._wait_for_writer(over)
        try:
            self.life.check()  # it may have been closed, or failed, while this thread waited
            if not joining:
                self._finish_what_is_open()
                self.tidy_writer()
        except BaseException:
            self.turn.give(over)
            raise

    def busy_message(self) -> str:
        """Return what to say of a writer's lock that another thread had for the whole timeout."""
        return (
            f"{self.path}: a transaction of another thread ({thread_name(self.turn.owner)}) was open for "
            f"{self.timeout:g} s; nothing was changed. Try again, or open with a longer timeout"
        )

    def tidy_writer(self) -> None:
        """Undo what a block left in the writing connection that was cut short, and is over."""
        if self.writer.in_transaction() and self.usable:
            self.writer.rollback()

    def commit(self, seq: int, chain: bytes) -> None:
        """Commit the open transaction, which makes commit *seq* with *chain*, and checkpoint when that is due.

        Raises:
            Busy: nothing was committed.
            StoreFull: nothing was committed; see make_room().
            CommitOutcomeUnknown: the commit may be there or not; the handle refuses further work.
            StoreIOError: the commit is durable, the checkpoint failed; the handle refuses further work.
        """
        try:
            self.writer.commit()
        except StoreFull:
            self.make_room()
            raise
        except OutcomeUnknown as e:
            self._fail(f"commit {seq} failed with an error and may or may not be there")
            raise CommitOutcomeUnknown(seq, str(e), chain) from e.__cause__
        self._count_commit()
        if self.watchers:
            self._wake_watchers()
        self._bound_wal(seq)

    def checkpoint(self, seq: int = 0, *, patience: float = 0) -> tuple[int, int]:
        """Move SQLite's WAL into the main file as far as readers allow.

        Args:
            seq: number of the commit that was made just before, if it was a numbered one.
            patience: seconds to wait for readers to end, so that SQLite can begin its WAL anew.

        Returns the frames in SQLite's WAL, and how many of them are in the main file now.

        Raises:
            Busy: another connection is doing it.
            StoreFull: the main file has no room for it; nothing is lost, and what is in SQLite's WAL stays there.
            StoreIOError: the operating system refused; the handle refuses further work.
        """
        if self.readers.gone:
            self.readers.reclaim()
        began = time.perf_counter()
        if self.readers.gone:  # who does nothing but write takes no reader, which would do it
            with suppress(StoreError):
                self.readers.reclaim()
        try:
            if patience:
                self.writer.free_wal(patience)
            frames, carried = self.writer.checkpoint()
        except (Busy, StoreFull):
            raise
        except StoreError as e:
            what = f"commit {seq}" if seq else "what was committed"
            self.life.failure = f"the checkpoint after {what} failed"
            raise StoreIOError(
                f"{self.path}: {what} is durable, but the checkpoint after it failed ({e.__cause__ or e}). This handle "
                "refuses further work; open the store again",
                durable=seq or None,
            ) from e
        self.counters.checkpointed(time.perf_counter() - began)
        if carried > self._carried:
            self.counters.syncs += 2 if carried == frames else 1
        self._carried = carried
        return frames, carried

    def make_room(self) -> None:
        """Try to move all of SQLite's WAL into the main file, on a full disk: the next commit can use its room then."""
        if self.journal == "wal":
            with suppress(Busy, StoreFull):
                self.checkpoint()

    def count_anew(self) -> None:
        """Begin to count: what was before is not this handle's user's."""
        self.counters = Counting()

    def fail(self, failure: str) -> None:
        """Refuse all further work: *failure* says why."""
        self.life.fail(failure)

    def commit_other(self, what: str) -> None:
        """Commit the open transaction, which makes no numbered commit: *what* says what it makes instead.

        Raises:
            Busy, StoreFull: nothing was committed.
            StoreIOError: it may be there or not, or it is durable and the checkpoint failed; the handle refuses further
                work.
        """
        try:
            self.writer.commit()
        except StoreFull:
            self.make_room()
            raise
        except OutcomeUnknown as e:
            self._fail(f"{what} failed with an error, and may or may not be there")
            raise StoreIOError(
                f"{self.path}: {what} may or may not have reached the disk ({e}); this handle refuses further work. "
                "Open the store again and look"
            ) from e.__cause__
        self._count_commit()
        self._bound_wal()

    def disconnect(self) -> None:
        """Close the writing connection, so that connect() can begin again."""
        if hasattr(self, "writer"):
            self.opener.close(self.writer)
            del self.writer
        self.opener.begin_anew()

    def close(self, last: Callable[[], bool] | None = None) -> None:
        """Close all connections. The store is one file afterwards if nobody else has it open.

        What threads read at this moment is cut short, and snapshots and scans end. If it is interrupted, calling it
        again goes on.

        Args:
            last: called before the writing connection is closed, unless the handle failed; tells whether SQLite
                may fold its WAL into the file and remove it. Without it, SQLite may not.

        Raises:
            Busy: a transaction of another thread was open for the whole timeout.
            StoreUnusable: this thread has a transaction open.
            StoreError: what *last* raised; the connections are closed all the same.
        """
        if self.life.forked:
            return
        with _Closing(self):
            self.life.closed = True
            self._wake_watchers()
            self.readers.end(max(1.0, self.timeout))
            self._close_writer(last)

    def size(self, suffix: str = "") -> int:
        """Return the bytes of the file, or of the one beside it whose name has *suffix*; 0 if there is none.

        Raises:
            StoreIOError: the system does not say.
        """
        return paths.size(self.real_path + suffix)

    def blocks(self, suffix: str) -> int:
        """Return the bytes that a file beside the store takes on the disk; 0 if there is none, or nobody knows."""
        try:
            return os.stat(self.real_path + suffix).st_blocks * 512
        except OSError:
            return 0

    @property
    def folder(self) -> str:
        """The folder that SQLite's files beside the store are in."""
        return os.path.dirname(self.real_path)

    @contextmanager
    def alone(self) -> Iterator[bool | None]:
        """Keep others from the file during the block, if nobody has it open; as connection.alone()."""
        with alone(self.real_path, self.vfs, self.timeout) as is_alone:
            yield is_alone

    def drop_empty_journals(self) -> None:
        """Remove the rollback journal of a process that died before it was synced; SQLite ignores it, and lets it be.

        A process that is at work has one like it, and then has a lock of the file.
        """
        found = [self.real_path + suffix for suffix in ("-journal", "-wal") if self.has(suffix)]
        if self.journal != "delete" or not any(map(main_file.is_nothing, found)):
            return
        with suppress(OSError, StoreError), alone(self.real_path, self.vfs, 0.0) as is_alone:
            for journal in found if is_alone else ():
                if main_file.is_nothing(journal):
                    os.unlink(journal)

    def sidecar(self, suffix: str) -> bytes:
        """Return the content of SQLite's -wal or -journal, nothing if there is none.

        Only who is alone with the file knows that it stays so.

        Raises:
            CannotOpen, StoreIOError: it cannot be opened, or not be read.
        """
        with self.sidecar_bytes(suffix) as data:
            return data[:]

    def sidecar_bytes(self, suffix: str) -> FileBytes:
        """Return the same, read where it is asked for; for a `with` block. Raises as sidecar()."""
        return FileBytes(self.real_path + suffix)

    def sidecar_start(self, suffix: str, amount: int) -> bytes:
        """Return the first bytes of a file beside the store; the caller is alone with it."""
        try:
            with open(self.real_path + suffix, "rb") as file:
                return file.read(amount)
        except OSError as e:
            if e.errno in paths.NO_DESCRIPTOR:  # otherwise it is not there, or not for us
                raise CannotOpen(f"{self.real_path}{suffix} cannot be read: {paths.why(e)}") from e
            return b""

    def has(self, suffix: str) -> bool:
        """Tell whether there is a file beside the store whose name has *suffix*."""
        return os.path.exists(self.real_path + suffix)

    def page(self, number: int, page_size: int) -> bytes:
        """Return a page of the main file by itself."""
        return read_at(self.real_path, self.vfs, (number - 1) * page_size, page_size)

    def pages(self, page_size: int) -> int:
        """Return the pages of the main file by itself."""
        return self.size() // page_size

    def _refuse_strangers(self) -> None:
        """Raise if making a store here would make SQLite delete what another file left.

        The strangers are looked for first: a store that is being made has its header before it has a -wal.
        """
        try:
            stranger = (
                "-wal" if self.size("-wal") else "-journal" if main_file.has_foreign_journal(self.real_path) else ""
            )
            empty = not self.size()
        except StoreIOError:
            return  # a path that no file can have; what follows says so
        if stranger and empty:
            raise CannotOpen(
                f"{self.path} is not there or empty, but {self.real_path}{stranger} is, and SQLite would delete it. "
                "It may hold the commits of a file that was removed: move it away, or choose another path. "
                "Nothing was changed"
            )

    def look(self) -> None:
        """Take the header of the file as it is now."""
        try:
            self.header = read_at(self.real_path, self.vfs, 0, HEADER_BYTES)
        except CannotOpen as e:
            if paths.out_of_descriptors():
                raise
            raise CannotOpen(f"{self.path} cannot be opened; look at the permissions, or choose another path") from e

    def _fail(self, failure: str) -> None:
        self.life.failure = failure
        with suppress(StoreError):
            self.writer.rollback()

    def _wait_for_writer(self, over: Over) -> None:
        if self.turn.owner == threading.get_ident():
            raise StoreUnusable(
                f"{self.path}: a transaction of this thread is open; leave its block first. Nothing was changed"
            )
        if not self.turn.take(over, self.timeout):
            raise Busy(self.busy_message())

    def _finish_what_is_open(self) -> None:
        before_turn = None if self.before_turn is None else self.before_turn()
        if before_turn is not None:
            before_turn()

    def _close_writer(self, last: Callable[[], bool] | None) -> None:
        writer = getattr(self, "writer", None)
        if writer is None or writer.closed:
            return
        moved = ""
        try:
            with suppress(StoreError) if self.life.failure else nullcontext():
                writer.rollback()
            if not self.life.failure and not self.opener.main_in_place():
                moved = self.opener.moved()
            if last is not None and not self.life.failure:
                self.opener.foldable = last()
        finally:
            self.opener.close(writer)
        if moved:
            raise StoreIOError(
                f"{self.path}: {moved}. What was committed is in that file, and nowhere else; if it was removed, it "
                "is gone"
            )

    def _seen_wal(self, _connection: object, _schema: str, pages: int) -> int:
        self.wal_pages = pages
        return 0

    def _wake_watchers(self) -> None:
        for watcher in list(self.watchers):  # others come and go meanwhile
            watcher.set()

    def _count_commit(self) -> None:
        written = self.writer.pages_written()
        frames = written - self._written
        self._written = written
        self.counters.frames += frames
        if self.journal != "wal":
            self.counters.syncs += SYNCS_WITHOUT_WAL
            return
        anew = frames >= self.wal_pages  # nothing else is in it
        if anew or self.wal_pages < self._pages_seen:  # by this process, or by another
            self._carried = self._retry_at = 0
            self._warned = False
        self._pages_seen = self.wal_pages
        self.counters.syncs += 1 + anew  # of its header
        if self._first_sync:
            self._first_sync = False
            self.counters.syncs += 1  # of the folder

    def _bound_wal(self, seq: int = 0) -> None:
        """Checkpoint when that is due; not in SQLite's hook, so that an error is seen instead of swallowed."""
        if self.wal_pages >= max(CHECKPOINT_PAGES, self._retry_at):
            with suppress(Busy, StoreFull):  # another process is at it, or the disk is full; a later commit looks again
                self._fold_wal(seq)

    def _fold_wal(self, seq: int) -> None:
        """Checkpoint. If SQLite did not begin its WAL anew after the one before: wait for readers, or tell of them."""
        pages, earlier = self.wal_pages, self._retry_at
        # While a reader keeps it there is little to gain by trying at each commit, and time to lose.
        self._retry_at = pages + max(1, CHECKPOINT_PAGES // 4)
        patience = 0.0
        if earlier:
            with suppress(StoreIOError):  # what was committed is durable, whatever the system says of the -wal
                if self.size("-wal") > WAL_BYTES_MAX:
                    self._tell_pinned()
            if pages >= 2 * CHECKPOINT_PAGES and not self._read_for_long():
                patience = PATIENCE_SECONDS
                self._retry_at = pages * 3 // 2  # another process may be reading for hours
        self.checkpoint(seq, patience=patience)

    def _read_for_long(self) -> bool:
        """Tell whether waiting for this handle's readers is in vain."""
        me, long_ago = threading.get_ident(), time.monotonic() - PATIENCE_SECONDS
        return any(each.thread == me or each.since < long_ago for each in self.readers.lent)

    def _tell_pinned(self) -> None:
        self.counters.pinned += 1
        if self._warned:
            return
        self._warned = True
        with suppress(WalPinned):  # even if the user made it an error: what was committed is durable
            warnings.warn(
                f"{self.real_path}-wal has grown to {self.size('-wal') >> 20} MB, and grows on until a reader ends: "
                f"{self._oldest_readers()}. Nothing is lost; end what reads for long",
                WalPinned,
                stacklevel=2,
            )

    def _oldest_readers(self) -> str:
        """Name the oldest reader of this handle, and other processes that read at this moment."""
        found = []
        own = self.readers.lent
        if own:
            oldest = min(own, key=attrgetter("since"))
            age = time.monotonic() - oldest.since
            found.append(f"{oldest.use} of this handle, begun {age:.1f} s ago by thread {thread_name(oldest.thread)!r}")
        readers = holders.of_reading(self.path)
        found += [str(each) for each in readers if each.pid != os.getpid() or not own]
        return ", ".join(found) or "one of another process, or one that has just ended"


class Writing(Block):
    """A block that has the writing connection for itself. Whatever is raised in it, no transaction stays behind."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def enter(self) -> None:
        """Wait for it. Raises as Engine.lock_writer()."""
        self._engine.lock_writer(self.over)

    def leave(self, *_: Any) -> None:
        """Undo what is open, and let the next have it."""
        try:
            self._engine.tidy_writer()
        finally:
            self._engine.turn.give(self.over)


class _Closing(Block):
    """A block that has the writing connection to close it."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def enter(self) -> None:
        engine = self._engine
        engine._wait_for_writer(self.over)  # noqa: SLF001, one module
        try:
            if engine.usable:
                engine._finish_what_is_open()  # noqa: SLF001
        except BaseException:
            engine.turn.give(self.over)
            raise

    def leave(self, *_: Any) -> None:
        self._engine.turn.give(self.over)


_opening = threading.Lock()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    global _opening  # noqa: PLW0603, a thread that is not in the child may have had it
    _opening = threading.Lock()
    for engine in list(_engines):
        engine.life.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
