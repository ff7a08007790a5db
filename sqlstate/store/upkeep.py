"""The upkeep of an open store: check, audit trail, copies, sizes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlstate.commit.clock import now
from sqlstate.commit.log_limit import LogLimit
from sqlstate.errors import StoreError
from sqlstate.files import paths
from sqlstate.format import constants as fmt
from sqlstate.format.names import check_number
from sqlstate.sqlite import settings
from sqlstate.store.access import refuse_inside
from sqlstate.tables import audit, claims, merkle, schema, staged, state, wal, wal_changes, wal_figures

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.headlog import SignedHead
    from sqlstate.maintenance.backup.backup import BackupReport
    from sqlstate.maintenance.check.check import CheckReport, Level
    from sqlstate.maintenance.closed_file import Progress
    from sqlstate.maintenance.compact import CompactReport
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.counters import Counters
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.audit import AuditEntry
    from sqlstate.tables.meta import Meta
    from sqlstate.tables.schema import Sizes

# Checks and copies are imported when one is asked for: an open store needs neither.


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes and settings of an open store, returned by `Store.stats()`.

    Examples:
        >>> store["users"][1] = "ada"
        >>> stats = store.stats()
        >>> stats.entries, stats.journal, stats.synchronous, stats.counters.commits
        (1, 'wal', 'FULL', 1)
    """

    path: str
    """The absolute path of the file."""
    store_id: str
    """Hexadecimal."""
    format: int
    """Version of the file format."""
    seq: int
    """Number of the newest commit."""
    entries: int
    """Entries in all collections."""
    collections: int
    """Collections that have entries."""
    levels: int
    """Height of the Merkle tree."""
    nodes: int
    """Inner nodes of the Merkle tree."""
    records: int
    """Records in the write-ahead log, and those that a repair removed from it."""
    history_index: bool
    """Whether there is an index for `history()`."""
    record_bytes: int
    """What the records take in the file, about. Those of an earlier version count only once there was a limit."""
    log_limit: int | None
    """The size that the log is kept at; None keeps all of it."""
    oldest: int
    """Number of the oldest commit in the log, or of the next one if there is none."""
    oldest_at: str
    """Since when the log tells of all changes."""
    claims: dict[str, int]
    """Who follows the commits, and the last one that each has: later ones are not cut."""
    staged: int
    """Staged transactions that have not ended."""
    file_bytes: int
    """Size of the file."""
    sqlite_wal_bytes: int
    """Size of the -wal file next to it."""
    journal: str
    """"wal" or "delete"."""
    synchronous: str
    """SQLite's setting: FULL, or EXTRA with a rollback journal."""
    sqlite: str
    """Version of the SQLite library."""
    counters: Counters
    """What this handle did since it was opened."""


class Upkeep:
    """What keeps a Store sound, and reports on its state."""

    _engine: Engine
    _group: GroupCommit[Any]
    _meta: Meta
    _writer: WriteContext

    def audit(self, after: int = 0) -> Iterator[AuditEntry]:
        """Yield the entries of the audit trail with a greater number than *after*, in order.

        Cost: 1 statement for each 256 entries.

        Args:
            after: a number from 0 to 2^63-1.

        Raises:
            InvalidOption: *after* is not such a number.
            Damaged: a row is not an audit entry.
            TransactionEnded: the store was closed meanwhile.

        Examples:
            >>> next(store.audit()).kind
            'migration'
        """
        check_number("after", after)
        return self._engine.readers.scan(audit.read, after)

    def check_audit(self) -> list[str]:
        """Read the audit trail again: its chain, and the figures of each entry against the log and each other.

        Cost: reads the trail, and 1 statement or more for each entry.

        Returns:
            What is wrong, a sentence each; an empty list if nothing is.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> store.check_audit()
            []
        """
        from sqlstate.maintenance.check import audit as audit_check  # noqa: PLC0415, see above

        with self._engine.reading() as connection:
            return audit_check.check(connection, self._meta)

    def check(
        self, level: Level = "full", *, against: SignedHead | bytes | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """Read the newest commit's state again, and compare everything. Nothing is changed, and writers go on.

        Compared are SQLite's own check, entries against the tree, nodes and counts up to the root, the commit chain,
        the audit trail, and each log record against the one before of the same entry. Damage is reported, not raised.

        Cost: "full" reads and hashes every row. It needs some MB of memory, however many there are, and for a log of
        more than 65,536 changes a temporary file of 40 bytes for each; of a damaged store, more. "replay" also holds
        all entries' names, and hashes them once more for each commit. "quick" reads what SQLite's own quick check
        reads.

        Args:
            level: "quick" checks SQLite's structure, the schema, the newest commit and audit entry, and the top of the
                tree. "full" checks every row. "replay" also makes the entries of every commit again from the log.
            against: what the history must agree with: a signed head that `sqlstate.headlog.verify_head()` returned, or
                the 32 bytes of a commit's root.
            progress: called with the number of rows read, and of all rows.

        Raises:
            InvalidOption: *level* or *against* is invalid.
            StoreUnusable: the store was closed.

        Examples:
            >>> store["users"][1] = "ada"
            >>> report = store.check()
            >>> report.ok, report.entries, report.findings
            (True, 1, ())
        """
        from sqlstate.maintenance.check import check  # noqa: PLC0415, see above

        return check.check(self._engine, self._meta, level, against=against, progress=progress)

    def backup(self, dest: str | os.PathLike[str], *, keep: int = 0, progress: Progress | None = None) -> BackupReport:
        """Copy the newest commit's state into one file, and check the copy before it gets its name.

        Others go on writing meanwhile.

        A copy that is not sound replaces nothing. An audit entry records the backup, unless the store is read-only or
        cannot be written. On a store with journal="delete", writers wait.

        Cost: reads the store as a whole, twice, and hashes it; 2 syncs.

        Args:
            dest: the path of the copy. An existing backup of this store is replaced, or rotated; its owner and mode
                are kept.
            keep: how many backups to keep: *dest*, and the older ones as `dest.1`, `dest.2`, …; 0 keeps one.
            progress: called with the work done, and the work in all.

        Raises:
            InvalidOption: *dest* is the store itself or not a closed backup of it; or *keep* is not a number.
            Busy: somebody has a backup open that would be replaced or renamed.
            Damaged: the copy is not sound; *dest* and older backups are unchanged. See salvage().
            StoreFull, StoreIOError: the copy could not be written; *dest* is unchanged.

        Examples:
            >>> store["users"][1] = "ada"
            >>> report = store.backup("app.backup")
            >>> report.path.name, report.head.seq
            ('app.backup', 1)
        """
        from sqlstate.maintenance.backup import backup  # noqa: PLC0415, see above

        return self._recorded(backup.copy(self._engine, self._meta, dest, keep=keep, progress=progress))

    def _recorded(self, done: BackupReport) -> BackupReport:
        """Record a backup in the audit trail, and return its report with the number of the entry."""
        detail = {
            "file": paths.as_text(done.path.name),
            "bytes": done.bytes,
            "seq": done.head.seq,
            "root": done.head.root.hex(),
        }
        return replace(done, entry=self._note("backup", detail))

    def salvage(self, dest: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
        """Copy a damaged store as it is into one file, without a check, and return the path.

        The path is *dest*, ".salvage-" and 16 hexadecimal digits of the content's hash. The copy replaces nothing, and
        no backup() moves or removes it. `sqlstate.repair()` can mend it.

        Cost: reads the store as a whole; 2 syncs.

        Args:
            dest: the beginning of the path: where a backup would be.
            progress: called with the work done, and the work in all.

        Raises:
            InvalidOption: *dest* cannot be the path of a file, or something else has the name.
            StoreFull, StoreIOError: the copy could not be written; nothing was.

        Examples:
            >>> store.salvage("app.backup").name
            'app.backup.salvage-...'
        """
        from sqlstate.maintenance.backup import backup  # noqa: PLC0415, see above

        return backup.salvage(self._engine, self._meta, dest, progress=progress)

    def index_history(self, *, drop: bool = False) -> bool:
        """Make an index by which `history()` of an entry need not read the whole log, and keep it from now on.

        The file keeps it, for all handles, and an audit entry says when it was made or dropped. It is made in one
        SQLite transaction: a crash meanwhile leaves none. Writers wait, those of other processes no longer than their
        timeout.

        Cost: a pass over the log, and a sort, with a temporary file if the log is large: 1 or 2 s for each 1,000,000
        records. From then on, a put writes 1 or 2 pages more; see docs/how-to/entry-history.md. To drop it is quick.

        Args:
            drop: remove the index.

        Returns:
            Whether anything was done: False if the index was there, or was not, as asked.

        Raises:
            StoreUnusable: this thread has a transaction or batch open.
            InvalidOption: something of another program in the file has the index's name. Nothing was changed.
            Busy, StoreFull, StoreIOError, Damaged, ReadOnly: as for transaction().

        Examples:
            >>> store["settings"]["lang"] = "fr"
            >>> store.index_history(), store.index_history(), store.stats().history_index
            (True, False, True)
            >>> store.index_history(drop=True)
            True
        """
        refuse_inside(self._writer, "index_history")

        def change(connection: Connection) -> bool:
            if wal_changes.has_history_index(connection) is not drop:
                return False
            (wal_changes.drop_history_index if drop else wal_changes.make_history_index)(connection)
            return True

        return bool(self._record("setting", {"history_index": not drop}, change))

    def compact(self, progress: Progress | None = None) -> CompactReport:
        """Give free space back: SQLite writes the file again without free pages, and the file shrinks.

        Entries, log, root and commits stay as they are. Readers go on, and writers wait. A crash, a full disk or an
        exception leaves the file as it was or compacted, never half. While a snapshot or another process reads an
        older commit, the file keeps its size until a checkpoint after that; `shrunk` says so. On a store with
        journal="delete", readers wait too. An audit entry records it.

        Cost: reads the store three times, and writes what it holds three times: to a temporary file of SQLite's as far
        as *cache_bytes* does not hold it, to the -wal or -journal, and to the file. So much room is needed meanwhile.
        Tables of other programs in the file are written again too; SQLite may number their rows anew.

        Args:
            progress: called with the steps that are done, and how many there are: 4.

        Raises:
            Damaged: the store is not sound, as far as check("quick") looks; it was not written again.
            StoreUnusable: this thread has a transaction or batch open, or the store was closed.
            Busy: another writer, or a reader of a store with journal="delete", held the lock for the whole timeout.
                Nothing was changed.
            StoreFull: there is no room to write it again. Nothing was changed.
            StoreIOError: the system refused to read or write. The file is as it was, or compacted.
            StoreError: a table of another program needs a function that only that program has. Nothing was changed.
            ReadOnly: the store was opened with read_only=True.

        Examples:
            >>> store["users"][1] = "ada"
            >>> report = store.compact()
            >>> report.bytes_after <= report.bytes_before, report.shrunk
            (True, True)
        """
        from sqlstate.maintenance import compact  # noqa: PLC0415, see above

        refuse_inside(self._writer, "compact")
        done = compact.compact(self._group, progress)
        detail = {"before": done.bytes_before, "after": done.bytes_after}
        return replace(done, entry=self._note("compact", detail))

    def _note(self, kind: str, detail: Mapping[str, Any]) -> int | None:
        """Do as _record(), and return None if that cannot be done.

        What it tells of is done all the same, and the next call says what became of the store.
        """
        if self._engine.read_only:
            return None
        with suppress(StoreError):
            return self._record(kind, detail)
        return None

    def _record(self, kind: str, detail: Mapping[str, Any], change: Callable[[Connection], bool] | None = None) -> int:
        """Append an entry to the audit trail, durably, and return its number.

        With *change*, that is called in the same SQLite transaction before, with the writing connection; if it returns
        False, nothing is written, and 0 is returned.
        """
        engine = self._engine
        with self._group.writing():
            self._writer.dirty_flag.begin()
            if change is not None and not change(engine.write_connection):
                return 0
            head = wal.last(engine.write_connection, self._meta)[1]
            number = audit.append(engine.write_connection, self._meta.store_id, head, now(), (kind, detail))
            self._writer.commit_unnumbered(f"audit entry {number}")
        return number

    def stats(self) -> Stats:
        """Return sizes and settings.

        Cost: some statements; the nodes of the tree are counted, 1 for each 15 entries.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob"})
            >>> stats = store.stats()
            >>> stats.entries, stats.collections, stats.seq
            (2, 1, 1)
        """
        engine = self._engine
        with engine.reading() as connection:
            head = wal.last(connection, self._meta)[1]
            log = LogLimit(self._meta)
            log.load(connection)
            total = wal.end(connection, self._meta)[2]
            start = wal.start(connection, self._meta)[1]
            oldest = next(iter(wal.commits(connection, -1)[0]), start)
            claimed = claims.read(connection)
            levels, nodes = merkle.size(connection)
            records, drafts = wal_figures.numbers(connection), staged.size(connection)
            indexed = wal_changes.has_history_index(connection)
            collections = len(state.collections(connection))
            synchronous = settings.synchronous(connection)
        return Stats(
            path=engine.path,
            store_id=self._meta.store_id.hex(),
            format=fmt.FORMAT_VERSION,
            seq=head.seq,
            entries=head.count,
            collections=collections,
            levels=levels,
            nodes=nodes,
            records=records,
            history_index=indexed,
            record_bytes=max(0, total - log.start.total),
            log_limit=log.bytes,
            oldest=start.seq + 1,
            oldest_at=oldest.at,
            claims=claimed,
            staged=drafts,
            file_bytes=engine.files.size(),
            sqlite_wal_bytes=engine.files.size("-wal"),
            journal=engine.journal,
            synchronous=synchronous,
            sqlite=engine.sqlite_version,
            counters=engine.counters.read(),
        )

    def sizes(self) -> Sizes:
        """Return how many bytes of the file are entries, log, tree and free space.

        Cost: reads every page of the file.

        Raises:
            StoreClosed: the store was closed.
            Damaged: a page of the file is not as it was written.
            StoreError: the SQLite library in use cannot count pages.

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob"})
            >>> sizes = store.sizes()
            >>> sizes.entries, sizes.tree, sizes.free
            (4096, 8192, 0)
        """
        with self._engine.reading() as connection:
            return schema.sizes(connection)
