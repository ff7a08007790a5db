"""Decides when to checkpoint, and watches for readers that keep SQLite from restarting its WAL."""

from __future__ import annotations

import os
import threading
import time
import warnings
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from sqlstate.errors import Busy, StoreError, StoreFull, StoreIOError, WalPinned
from sqlstate.sqlite import lock_holders
from sqlstate.sqlite.events import log
from sqlstate.sqlite.settings import WAL_BYTES_MAX
from sqlstate.sqlite.writer_lock import thread_name

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection, Journal
    from sqlstate.sqlite.counters import Counting
    from sqlstate.sqlite.life import Life
    from sqlstate.sqlite.readers import Readers
    from sqlstate.sqlite.sidecars import StoreFiles

# With fewer, one commit in a hundred would checkpoint; with more, each takes longer and leaves more to recover.
CHECKPOINT_PAGES: Final = 4096
# How long a commit waits, seldom, for readers to end: readers that overlap, however short each is, would keep SQLite
# from ever restarting its WAL.
PATIENCE_SECONDS: Final = 0.1
SYNCS_WITHOUT_WAL: Final = 5  # the journal twice, its folder twice, the file


class Checkpointer:
    """Checkpoints of one writing connection: when they are due, and how far SQLite's WAL grows between them.

    Call it while holding the writer lock.

    Args:
        connection: the writing connection.
        files: of the store.
        readers: of the same handle; one that reads for long keeps SQLite from restarting its WAL.
        counters: of the handle.
        life: of the handle; a checkpoint that fails ends it.
    """

    def __init__(
        self, connection: Connection, files: StoreFiles, readers: Readers, counters: Counting, life: Life
    ) -> None:
        self._connection = connection
        self._files = files
        self._readers = readers
        self._counters = counters
        self._life = life
        self.journal: Journal = "delete"
        self.wal_pages: int = 0
        """Pages in SQLite's WAL after the newest commit of this connection."""
        self._written = 0
        self._first_sync = True
        self._pages_seen = 0
        self._carried = 0  # frames of SQLite's WAL that the newest checkpoint found in the main file
        self._retry_at = 0  # pages of SQLite's WAL at which the next checkpoint is due; 0 before the first
        self._late = False  # the log says that a checkpoint is late
        self._warned = False  # the user was warned that SQLite's WAL is pinned

    def run(self, seq: int = 0, *, patience: float = 0) -> tuple[int, int]:
        """Move SQLite's WAL into the main file as far as readers allow.

        Args:
            seq: number of the commit that was made just before, if it was a numbered one.
            patience: seconds to wait for readers to end, so that SQLite can restart its WAL.

        Returns the frames in SQLite's WAL, and how many of them are in the main file now.

        Raises:
            Busy: another connection is doing it.
            StoreFull: the main file has no room for it; nothing is lost, and what is in SQLite's WAL stays there.
            StoreIOError: the operating system refused; the handle refuses further work.
        """
        began = time.perf_counter()
        if self._readers.gone:  # a thread that only writes takes no reader, which would reclaim them
            with suppress(StoreError):
                self._readers.reclaim()
        try:
            if patience:
                with suppress(Busy):
                    self._connection.checkpoint("restart", patience=patience)
            frames, carried = self._connection.checkpoint()
        except (Busy, StoreFull):
            raise
        except StoreError as e:
            what = f"commit {seq}" if seq else "what was committed"
            self._life.fail(f"the checkpoint after {what} failed")
            raise StoreIOError(
                f"{self._life.path}: {what} is durable, but the checkpoint after it failed ({e.__cause__ or e}). "
                "This handle refuses further work; open the store again",
                durable=seq or None,
            ) from e
        self._counters.checkpointed(time.perf_counter() - began)
        if carried > self._carried:
            self._counters.syncs += 2 if carried == frames else 1
        self._carried = carried
        return frames, carried

    def make_room(self) -> None:
        """Checkpoint on a full disk, if possible: the next commit can reuse the room in SQLite's WAL."""
        if self.journal == "wal":
            with suppress(Busy, StoreFull):
                self.run()

    def seen_wal(self, _connection: object, _schema: str, pages: int) -> int:
        """Note the number of pages in SQLite's WAL after a commit; for Connection.on_commit()."""
        self.wal_pages = pages
        return 0

    def count_commit(self) -> None:
        """Count the frames and syncs of the commit that was just made."""
        written = self._connection.pages_written()
        frames = written - self._written
        self._written = written
        self._counters.frames += frames
        if self.journal != "wal":
            self._counters.syncs += SYNCS_WITHOUT_WAL
            return
        restarted = frames >= self.wal_pages  # SQLite's WAL holds this commit alone
        if restarted or self.wal_pages < self._pages_seen:  # by this process, or by another
            self._carried = self._retry_at = 0
            if self._late:
                self._late = self._warned = False
                log("info", f"{self._life.path}: SQLite's WAL was restarted; checkpoints are in time again")
        self._pages_seen = self.wal_pages
        self._counters.syncs += 1 + restarted  # of its header
        if self._first_sync:
            self._first_sync = False
            self._counters.syncs += 1  # of the folder

    def bound_wal(self, seq: int = 0) -> None:
        """Checkpoint when that is due; not in SQLite's hook, so that an error is seen instead of swallowed."""
        if self.wal_pages >= max(CHECKPOINT_PAGES, self._retry_at):
            with suppress(
                Busy, StoreFull
            ):  # another process checkpoints, or the disk is full; a later commit tries again
                self._fold_wal(seq)

    def _fold_wal(self, seq: int) -> None:
        """Checkpoint. If SQLite did not restart its WAL after the last one, wait for readers, or warn of them."""
        pages, earlier = self.wal_pages, self._retry_at
        # While a reader prevents a restart, trying at each commit gains little and costs time.
        self._retry_at = pages + max(1, CHECKPOINT_PAGES // 4)
        patience = 0.0
        if earlier:
            self._log_late(pages)
            with suppress(StoreIOError):  # the commit is durable, whatever the system says of the -wal
                if self._files.size("-wal") > WAL_BYTES_MAX:
                    self._warn_pinned()
            if pages >= 2 * CHECKPOINT_PAGES and not self._read_for_long():
                patience = PATIENCE_SECONDS
                self._retry_at = pages * 3 // 2  # another process may be reading for hours
        self.run(seq, patience=patience)

    def _read_for_long(self) -> bool:
        """Return True if it is useless to wait for this handle's readers."""
        me, long_ago = threading.get_ident(), time.monotonic() - PATIENCE_SECONDS
        return any(each.thread == me or each.since < long_ago for each in self._readers.lent)

    def _log_late(self, pages: int) -> None:
        if not self._late:
            self._late = True
            log(
                "warning",
                f"{self._life.path}: the checkpoint is late: SQLite's WAL has {pages} pages, and a reader keeps SQLite "
                f"from restarting it: {self._oldest_readers()}",
            )

    def _warn_pinned(self) -> None:
        self._counters.pinned += 1
        if self._warned:
            return
        self._warned = True
        message = (
            f"{self._files.real_path}-wal has grown to {self._files.size('-wal') >> 20} MB, and grows on until a "
            f"reader ends: {self._oldest_readers()}. Nothing is lost; end what reads for long"
        )
        log("warning", message)
        with suppress(WalPinned):  # even if the user made it an error: what was committed is durable
            warnings.warn(message, WalPinned, stacklevel=2)

    def _oldest_readers(self) -> str:
        """Name the oldest reader of this handle, and the other processes that read now."""
        found = []
        own = self._readers.lent
        if own:
            oldest = min(own, key=attrgetter("since"))
            age = time.monotonic() - oldest.since
            found.append(f"{oldest.use} of this handle, begun {age:.1f} s ago by thread {thread_name(oldest.thread)!r}")
        readers = lock_holders.of_reading(self._life.path)
        found += [str(each) for each in readers if each.pid != os.getpid() or not own]
        return ", ".join(found) or "one of another process, or one that has just ended"
