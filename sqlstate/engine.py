"""The connections of one open store: one that writes, a pool of those that read, their locks and checkpoints."""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from contextlib import contextmanager, nullcontext, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate import files, holders, main_file
from sqlstate.connection import (
    HEADER_BYTES,
    SYNCHRONOUS,
    WAL_BYTES_MAX,
    Connection,
    Journal,
    OutcomeUnknown,
    alone,
    check_sqlite,
    check_vfs,
    read_at,
)
from sqlstate.counters import Counting
from sqlstate.errors import (
    Busy,
    CannotOpen,
    CommitOutcomeUnknown,
    InvalidOption,
    ReadOnly,
    StoreClosed,
    StoreError,
    StoreForked,
    StoreFull,
    StoreIOError,
    StoreUnusable,
    WalPinned,
)
from sqlstate.frozen import CHANGED, Frozen
from sqlstate.turn import Turn, thread_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.overlay import Pages

# Smaller ones would meet one commit in a hundred; larger ones take longer, and leave more to recover.
CHECKPOINT_PAGES: Final = 4096
# So long does a commit wait for readers, seldom, where SQLite's WAL would grow and grow: readers that overlap
# keep it from being begun anew for ever, however short each of them is.
PATIENCE_SECONDS: Final = 0.1
READERS_KEPT: Final = 8
SYNCS_WITHOUT_WAL: Final = 5  # the journal twice, its folder twice, the file


class Lent(NamedTuple):
    """What a connection was lent for."""

    use: str
    since: float
    thread: int


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
        self.journal: Journal = "delete"
        self.wal_pages = 0
        self.recovered_frames = 0
        self.counters = Counting()
        self.watchers: set[threading.Event] = set()
        """Set when a commit of this handle was made, and when the handle is closed."""
        self.looking = threading.Lock()
        """Held by a watcher while it reads, so that close() finds none in the midst of it and leaves one file."""
        self._written = 0
        self._first_sync = True
        self._pages_seen = 0
        self._carried = 0  # frames of SQLite's WAL that the newest checkpoint found in the main file
        self._retry_at = 0  # pages of SQLite's WAL at which the next checkpoint is due; 0 before the first
        self._warned = False
        self.timeout = timeout
        self.vfs = vfs
        self._foldable = False
        self.frozen: Frozen | None = None
        """How the file is read where SQLite can make nothing beside it."""
        self._last: Callable[[], bool] | None = None
        self._closed = False
        self._forked = False
        self._failure = ""
        self.turn = Turn()
        self.before_turn: Callable[[], None] | None = None
        self._closing = threading.Lock()
        self._connecting = threading.Lock()
        self._readers: list[Connection] = []
        self._lent: dict[Connection, Lent | None] = {}  # None: for a moment
        self.real_path = os.path.realpath(self.path)  # SQLite names the files beside after what a link leads to
        self._wal = files.Named(self.real_path + "-wal")
        self._wal_inode = 0
        with _opening:
            if create and not read_only:
                self._refuse_strangers()
            main_file.prepare(self.path, create=create and not read_only)
            self.header = self._read_header()

    def connect(self) -> None:
        """Open the writing connection. `header` was looked at before: SQLite may change a file by reading it."""
        self.writer = self._connect()
        _engines.add(self)

    def settle(self) -> None:
        """Apply the store's settings to the writing connection.

        Raises:
            InvalidOption: another program set a journal mode that is not durable.
            StoreIOError: the operating system refused to make the -wal.
        """
        if self.frozen is not None:
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
            self.wal_in_place()
        self.recovered_frames = 0
        if self.journal == "wal":
            with suppress(ReadOnly):  # SQLite does not count for who may not write; nothing is compared then
                self.recovered_frames = self.writer.wal_frames()
        if self.journal == "wal" and self.writer.value("PRAGMA user_version") is not None and not self.has("-wal"):
            # SQLite swallows an error of the change, and goes on with a rollback journal.
            raise StoreIOError(f"{self.path}: SQLite could not go over to WAL mode; nothing was changed. Try again")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection inside a transaction that sees one committed state."""
        connection = self.begin_read()
        try:
            yield connection
        finally:
            self.end_read(connection)

    def begin_read(self) -> Connection:
        """Return a connection inside a transaction that sees one committed state; end it with end_read()."""
        connection = self.take_reader()
        try:
            connection.begin_read()
        except BaseException:
            self.give_reader(connection)
            raise
        self._lent[connection] = Lent("a snapshot", time.monotonic(), threading.get_ident())
        return connection

    def end_read(self, connection: Connection) -> None:
        """End the read transaction of a connection and take it back."""
        if self._forked:
            return
        try:
            connection.rollback()
        finally:
            self.give_reader(connection)

    @contextmanager
    def lending(self) -> Iterator[Connection]:
        """Lend a connection for one statement, which sees one committed state by itself."""
        connection = self.take_reader()
        self._lent[connection] = Lent("a scan", time.monotonic(), threading.get_ident())
        try:
            yield connection
        finally:
            self.give_reader(connection)

    def take_reader(self) -> Connection:
        """Return a connection for reading that nobody else uses; give it back with give_reader()."""
        self.check_usable()
        if self.frozen is not None:
            self.check_unchanged()
        try:
            connection = self._readers.pop()
        except IndexError:
            with self._connecting:  # what close() does not know of could keep the -wal from going
                self.check_usable()
                connection = self._connect()
                connection.settle(self.journal, read_only=True)
                self._lent[connection] = None
            return connection
        self._lent[connection] = None
        if self._closed:  # meanwhile
            self.give_reader(connection)
            self.check_usable()
        return connection

    def give_reader(self, connection: Connection) -> None:
        """Take back a connection from take_reader()."""
        self._lent.pop(connection, None)
        if self._forked:
            return
        if self._closed:
            self._close(connection)
            if not self._lent:
                self._close_writer()
        elif len(self._readers) >= READERS_KEPT:
            self._close(connection)
        else:
            self._readers.append(connection)
        if self.frozen is not None:
            self.check_unchanged()

    def freeze(self, pages: Pages | None) -> None:
        """Read the file from now on without anything that SQLite would make beside it; not connected yet.

        Args:
            pages: of a -wal that holds commits; the caller is alone with the file.
        """
        self.frozen = Frozen(self.real_path, self.vfs, pages)

    def check_unchanged(self) -> None:
        """Raise if the file is read without locks, and somebody has changed it: what was read may be mixed.

        Raises:
            StoreIOError: that is so; the handle refuses further work.
        """
        if self.frozen is not None and not self._failure and self.frozen.changed():
            self._failure = "the file was changed while it was read without locks"
            raise StoreIOError(f"{self.path}: {CHANGED}")

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    @property
    def usable(self) -> bool:
        """Whether check_usable() would pass."""
        return not (self._forked or self._closed or self._failure)

    def check_usable(self) -> None:
        """Raise if the store was closed, opened before a fork, or failed."""
        if self._forked:
            raise self._forked_error()
        if self._closed:
            raise self._closed_error()
        if self._failure:
            raise StoreClosed(f"{self.path}: {self._failure}; this handle refuses further work. Open the store again")

    def check_writable(self) -> None:
        """Raise if the store cannot be used, or was opened for reading."""
        self.check_usable()
        if self.read_only:
            raise ReadOnly(f"{self.path} was opened with read_only=True; nothing was changed")

    def lock_writer(self, *, joining: bool = False) -> None:
        """Wait until no other thread of this process uses the writing connection.

        Args:
            joining: leave a transaction open that other threads left for the next to go on with.

        Raises:
            Busy: another thread had it for the whole timeout.
            StoreUnusable: this thread has a transaction open.
            ReadOnly: the store was opened for reading.
        """
        self.check_writable()
        self._wait_for_writer()
        try:
            self.check_usable()  # it may have been closed, or failed, while this thread waited
            if self.before_turn is not None and not joining:
                self.before_turn()
        except BaseException:
            self.unlock_writer()
            raise

    def busy_message(self) -> str:
        """Return what to say of a writer's lock that another thread had for the whole timeout."""
        return (
            f"{self.path}: a transaction of another thread ({thread_name(self.turn.owner)}) was open for "
            f"{self.timeout:g} s; nothing was changed. Try again, or open with a longer timeout"
        )

    def unlock_writer(self) -> None:
        """Let the next thread use the writing connection."""
        self.turn.give()

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
        # Done here, not in SQLite's hook, so that an error is seen instead of swallowed.
        if self.wal_pages >= max(CHECKPOINT_PAGES, self._retry_at):
            with suppress(Busy, StoreFull):  # another process is at it, or the disk is full; a later commit looks again
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
        began = time.perf_counter()
        try:
            if patience:
                self.writer.free_wal(patience)
            frames, carried = self.writer.checkpoint()
        except (Busy, StoreFull):
            raise
        except StoreError as e:
            what = f"commit {seq}" if seq else "what was committed"
            self._failure = f"the checkpoint after {what} failed"
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

    def wal_in_place(self) -> bool:
        """Tell whether SQLite's -wal still is where it was; what is written to an unlinked one dies with us."""
        inode = self._wal.inode()
        if not self._wal_inode:
            self._wal_inode = inode
        return inode != 0 and inode == self._wal_inode

    def fail(self, failure: str) -> None:
        """Refuse all further work: *failure* says why."""
        self._failure = failure

    def commit_other(self, what: str) -> None:
        """Commit the open transaction, which makes no numbered commit: *what* says what it makes instead.

        Raises:
            Busy, StoreFull: nothing was committed.
            StoreIOError: it may be there or not; the handle refuses further work.
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

    def disconnect(self) -> None:
        """Close the writing connection, so that connect() can begin again."""
        if hasattr(self, "writer"):
            self._close(self.writer)
            del self.writer
        self._wal_inode = 0

    def close(self, last: Callable[[], bool] | None = None) -> None:
        """Close all connections. The store is one file afterwards if nobody else has it open.

        Connections that are lent, to snapshots and scans, are closed when they come back; the writing one then too.

        Args:
            last: called before the writing connection is closed, unless the handle failed; tells whether SQLite
                may fold its WAL into the file and remove it. Without it, SQLite may not.

        Raises:
            Busy: a transaction of another thread was open for the whole timeout.
            StoreUnusable: this thread has a transaction open.
            StoreError: what *last* raised; the connections are closed all the same.
        """
        if self._forked or self._closed:
            return
        self._wait_for_writer()
        try:
            if self._closed:  # by another thread, meanwhile
                return
            with self.looking, self._connecting:
                self._closed = True
            self._wake_watchers()
            for connection in list(self._lent):
                connection.refuse(self._closed_error())
            while self._readers:
                self._close(self._readers.pop())
            self._last = last
            if not self._lent:
                self._close_writer()
        finally:
            self.unlock_writer()

    def size(self, suffix: str = "") -> int:
        """Return the bytes of the file, or of the one beside it whose name has *suffix*; 0 if there is none."""
        try:
            return os.stat(self.real_path + suffix).st_size
        except FileNotFoundError:
            return 0

    def blocks(self, suffix: str) -> int:
        """Return the bytes that a file beside the store takes on the disk; 0 if there is none."""
        try:
            return os.stat(self.real_path + suffix).st_blocks * 512
        except FileNotFoundError:
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

    def sidecar(self, suffix: str) -> bytes:
        """Return the content of SQLite's -wal or -journal, nothing if there is none.

        Only who is alone with the file knows that it stays so.

        Raises:
            CannotOpen: it cannot be read.
        """
        try:
            # Neither of the two carries locks, so a descriptor of our own does no harm.
            with open(self.real_path + suffix, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as e:
            advice = "" if e.errno in files.NO_DESCRIPTOR else "; look at the permissions"
            raise CannotOpen(f"{self.real_path}{suffix} cannot be read: {files.why(e)}{advice}") from e

    def sidecar_start(self, suffix: str, amount: int) -> bytes:
        """Return the first bytes of a file beside the store; the caller is alone with it."""
        try:
            with open(self.real_path + suffix, "rb") as file:
                return file.read(amount)
        except OSError as e:
            if e.errno in files.NO_DESCRIPTOR:  # otherwise it is not there, or not for us
                raise CannotOpen(f"{self.real_path}{suffix} cannot be read: {files.why(e)}") from e
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

    def forked(self) -> None:
        """Give up the connections in the child of a fork, without closing them."""
        self._forked = True
        self._closing = threading.Lock()
        self._connecting = threading.Lock()
        self.looking = threading.Lock()
        writers = [self.writer] if hasattr(self, "writer") else []
        for connection in (*writers, *self._readers, *self._lent):
            connection.abandon(self._forked_error())

    def _refuse_strangers(self) -> None:
        """Raise if making a store here would make SQLite delete what another file left.

        The strangers are looked for first: a store that is being made has its header before it has a -wal.
        """
        try:
            stranger = (
                "-wal" if self.size("-wal") else "-journal" if main_file.has_foreign_journal(self.real_path) else ""
            )
            empty = not self.size()
        except OSError:
            return  # a path that no file can have; what follows says so
        if stranger and empty:
            raise CannotOpen(
                f"{self.path} is not there or empty, but {self.real_path}{stranger} is, and SQLite would delete it. "
                "It may hold the commits of a file that was removed: move it away, or choose another path. "
                "Nothing was changed"
            )

    def _read_header(self) -> bytes:
        try:
            return read_at(self.real_path, self.vfs, 0, HEADER_BYTES)
        except CannotOpen as e:
            if files.out_of_descriptors():
                raise
            raise CannotOpen(f"{self.path} cannot be opened; look at the permissions, or choose another path") from e

    def _connect(self) -> Connection:
        if self.frozen is not None:
            return self.frozen.connect(self.timeout)
        # SQLite can remove its -wal and -shm only through a connection that may write. A journal that waits to
        # be rolled back must wait longer if this store is opened for reading.
        waits = self.read_only and self.size("-journal") > 0
        connection = Connection(self.path, self.timeout, read_only=waits, vfs=self.vfs)
        # Who forgets close() leaves its connections to the garbage collector, or to the end of the process.
        connection.fold_at_close(fold=False)
        return connection

    def _close(self, connection: Connection) -> None:
        # A -wal that the marker speaks of is never removed, whatever closes last; an empty one is in any case.
        connection.fold_at_close(fold=self._foldable or not self.size("-wal"))
        connection.close()

    def _close_writer(self) -> None:
        with self._closing:
            if not hasattr(self, "writer"):
                return
            writer = self.writer
            try:
                with suppress(StoreError) if self._failure else nullcontext():
                    writer.rollback()
                if self._last is not None and not self._failure:
                    self._foldable = self._last()
            finally:
                self._close(writer)
                del self.writer
                if self.frozen is not None:
                    self.frozen.close()

    def _fail(self, failure: str) -> None:
        self._failure = failure
        with suppress(StoreError):
            self.writer.rollback()

    def _wait_for_writer(self) -> None:
        if self.turn.owner == threading.get_ident():
            raise StoreUnusable(
                f"{self.path}: a transaction of this thread is open; leave its block first. Nothing was changed"
            )
        if not self.turn.take(self.timeout):
            raise Busy(self.busy_message())

    def _closed_error(self) -> StoreClosed:
        return StoreClosed(f"{self.path}: the store is closed")

    def _forked_error(self) -> StoreForked:
        return StoreForked(
            f"{self.path} was opened by a parent process; SQLite's connections do not survive a fork. "
            "Open the store in the child"
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

    def _bound_wal(self, seq: int) -> None:
        """Checkpoint. If SQLite did not begin its WAL anew after the one before: wait for readers, or tell of them."""
        pages, earlier = self.wal_pages, self._retry_at
        # While a reader keeps it there is little to gain by trying at each commit, and time to lose.
        self._retry_at = pages + max(1, CHECKPOINT_PAGES // 4)
        patience = 0.0
        if earlier:
            if self.size("-wal") > WAL_BYTES_MAX:
                self._tell_pinned()
            if pages >= 2 * CHECKPOINT_PAGES and not self._read_for_long():
                patience = PATIENCE_SECONDS
                self._retry_at = pages * 3 // 2  # another process may be reading for hours
        self.checkpoint(seq, patience=patience)

    def _read_for_long(self) -> bool:
        """Tell whether waiting for this handle's readers is in vain."""
        me, long_ago = threading.get_ident(), time.monotonic() - PATIENCE_SECONDS
        lent = list(self._lent.values())
        return any(each is not None and (each.thread == me or each.since < long_ago) for each in lent)

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
        own = [lent for lent in list(self._lent.values()) if lent is not None]
        if own:
            use, since, thread = min(own, key=attrgetter("since"))
            age = time.monotonic() - since
            found.append(f"{use} of this handle, begun {age:.1f} s ago by thread {thread_name(thread)!r}")
        readers = holders.of_reading(self.path)
        found += [str(each) for each in readers if each.pid != os.getpid() or not own]
        return ", ".join(found) or "one of another process, or one that has just ended"


_opening = threading.Lock()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in _engines:
        engine.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
