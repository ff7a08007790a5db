"""The upkeep of an open store: checking it, its audit trail, copies of it, and its sizes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlstate.commit.clock import now
from sqlstate.errors import StoreError
from sqlstate.files import paths
from sqlstate.format import constants as fmt
from sqlstate.format.names import check_number
from sqlstate.sqlite import settings
from sqlstate.tables import audit, merkle, staged, state, wal

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.headlog import SignedHead
    from sqlstate.maintenance.backup.backup import BackupReport
    from sqlstate.maintenance.check.check import CheckReport, Level
    from sqlstate.maintenance.closed_file import Progress
    from sqlstate.sqlite.counters import Counters
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.audit import AuditEntry
    from sqlstate.tables.meta import Meta

# Checks and copies are imported when one is asked for: an open store needs neither.


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes and settings of an open store."""

    path: str
    store_id: str
    """Hexadecimal."""
    format: int
    seq: int
    entries: int
    collections: int
    levels: int
    """Height of the Merkle tree."""
    nodes: int
    """Inner nodes of the Merkle tree."""
    records: int
    """Records in the write-ahead log."""
    staged: int
    """Staged transactions that have not ended."""
    file_bytes: int
    sqlite_wal_bytes: int
    """Size of the -wal file beside it."""
    journal: str
    synchronous: str
    sqlite: str
    """Version of the SQLite library."""
    counters: Counters
    """What this handle did since it was opened."""


class Upkeep:
    """What keeps a Store sound, and tells of its state."""

    _engine: Engine
    _group: GroupCommit[Any]
    _meta: Meta
    _writer: WriteContext

    def audit(self, after: int = 0) -> Iterator[AuditEntry]:
        """Yield the entries of the audit trail with a greater number than *after*, in order.

        Raises:
            InvalidOption: *after* is not a number from 0 to 2^63-1.
            Damaged: an entry is not what it can be.
        """
        check_number("after", after)
        return self._engine.readers.scan(audit.read, after)

    def check_audit(self) -> list[str]:
        """Read the audit trail again: its chain, and each entry's figures against the log and each other.

        Returns what is wrong, a sentence each; an empty list if nothing is.
        """
        from sqlstate.maintenance.check import audit as audit_check  # noqa: PLC0415, see above

        with self._engine.reading() as connection:
            return audit_check.check(connection, self._meta)

    def check(
        self, level: Level = "full", *, against: SignedHead | bytes | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """Read the newest commit's state again and compare all of it: nothing is changed, and writers go on.

        A large store is checked by two processes at once.

        Args:
            level: `"quick"` looks at SQLite's own check, the schema, the newest commit and audit entry, and the top of
                the tree; `"full"` reads and hashes every row, follows both chains, and replays the log in memory.
            against: what the history must agree with: a signed head that `sqlstate.headlog.verify_head()` returned,
                or the root of a commit, 32 bytes.
            progress: called with rows read, and how many there are.

        Returns a report; damage is told in it and not raised.

        Raises:
            InvalidOption: the level is none, or *against* is neither of both.
            StoreUnusable: the store was closed.
        """
        from sqlstate.maintenance.check import check  # noqa: PLC0415, see above

        return check.check(self._engine, self._meta, level, against=against, progress=progress)

    def backup(self, dest: str | os.PathLike[str], *, keep: int = 0, progress: Progress | None = None) -> BackupReport:
        """Copy the newest commit's state into one file, while others go on writing; checked before it gets its name.

        The copy is checked as check() does: one that is not sound takes nobody's place. An audit entry says that it
        is there, unless the store was opened for reading, or cannot be written. In a store without SQLite's WAL,
        writers wait while it is copied.

        Args:
            dest: the copy. A backup of this store that is there is replaced, or rotated.
            keep: how many backups to keep: *dest*, and the older ones as `dest.1`, `dest.2`, …; 0 keeps one.
            progress: called with what is done and what there is in all.

        Raises:
            InvalidOption: *dest* is the store itself, another file, or in use; or *keep* is not a number.
            Damaged: the copy is not sound; *dest* and the older ones are as they were. See salvage().
            StoreFull, StoreIOError: it could not be written; *dest* is as it was.
        """
        from sqlstate.maintenance.backup import backup  # noqa: PLC0415, see above

        done = backup.copy(self._engine, self._meta, dest, keep=keep, progress=progress)
        if self._engine.read_only:
            return done
        detail = {
            "file": paths.as_text(done.path.name),
            "bytes": done.bytes,
            "seq": done.head.seq,
            "root": done.head.root.hex(),
        }
        with suppress(StoreError):  # the backup is there all the same, and the next call says what became of the store
            return replace(done, entry=self._record("backup", detail))
        return done

    def salvage(self, dest: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
        """Copy a damaged store into one file as it is, and return its path: `DEST.salvage-` and 16 digits.

        Nothing is checked, and nothing is noted in the store. The copy takes nobody's place, and no backup() moves or
        removes it: the digits are of its content's hash. check() tells what is wrong with it, repair() can mend it.

        Args:
            dest: how the name begins: where a backup would be.
            progress: called with what is done and what there is in all.

        Raises:
            InvalidOption: *dest* is no path of a file.
            StoreFull, StoreIOError: it could not be written; nothing was.
        """
        from sqlstate.maintenance.backup import backup  # noqa: PLC0415, see above

        return backup.salvage(self._engine, self._meta, dest, progress=progress)

    def _record(self, kind: str, detail: Mapping[str, Any]) -> int:
        """Append an entry to the audit trail, durably, and return its number."""
        engine = self._engine
        with self._group.writing():
            self._writer.dirty_flag.begin()
            head = wal.last(engine.write_connection, self._meta)[1]
            number = audit.append(engine.write_connection, self._meta.store_id, head, now(), (kind, detail))
            self._writer.commit_unnumbered(f"audit entry {number}")
        return number

    def stats(self) -> Stats:
        """Return sizes and settings. Counts the records of the log and the nodes of the tree one by one."""
        engine = self._engine
        with engine.reading() as connection:
            head = wal.last(connection, self._meta)[1]
            levels, nodes = merkle.size(connection)
            records, drafts = wal.size(connection), staged.size(connection)
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
            staged=drafts,
            file_bytes=engine.files.size(),
            sqlite_wal_bytes=engine.files.size("-wal"),
            journal=engine.journal,
            synchronous=synchronous,
            sqlite=engine.sqlite_version,
            counters=engine.counters.read(),
        )
