"""Keeps values out of the log, and takes them out of it: what is left of each is its digest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlstate.errors import Busy, InvalidOption, InvalidRecord, StoreFull
from sqlstate.format import constants as fmt
from sqlstate.format.names import check_collection, make_name, name_bytes
from sqlstate.store.access import in_one_write, note, refuse_inside
from sqlstate.tables import wal_digests

if TYPE_CHECKING:
    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Key
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine

Logging = Literal["values", "digests"]

_PATIENCE_SECONDS: Final = 0.1  # to wait for readers to end


@dataclass(frozen=True, slots=True)
class RedactReport:
    """What `Store.redact()` did.

    Examples:
        >>> store["users"][1] = "ada"
        >>> del store["users"][1]
        >>> report = store.redact("users", 1)
        >>> report.records, report.overwritten
        (2, True)
    """

    collection: str
    """Name of the entry's collection."""
    key: Key
    """Key of the entry."""
    records: int
    """Records of the log that had a value of the entry, and have its digest now."""
    entry: int | None
    """Number of the audit entry, None if there was nothing to take out."""
    overwritten: bool
    """Whether SQLite's -wal, which had the values too, is empty. If not, somebody else has the store open: redact again
    when that has ended."""


class Redaction:
    """What a Store does to keep values out of its log."""

    _engine: Engine
    _group: GroupCommit[Any]
    _writer: WriteContext

    def redact(self, collection: str, key: Key) -> RedactReport:
        """Take all values that an entry had out of the log, for good; their digests stay, and so do all proofs.

        The value that the entry has now stays where it is, outside the log: to forget that too, delete the entry
        first. What undo(), at() and changes() would need is gone: they say so, with ValueRedacted or REDACTED. An audit
        entry tells that it was done, with a digest of the entry's name. The name itself stays in the records.

        What is taken out is overwritten with zeros in the file, and so are its free pages. Not touched are backups and
        other copies, files put aside by a recovery or repair, and what file system and disk keep of blocks that were
        written before. Where programs before format 4 deleted or replaced a value, its remains may still be on a page.

        Cost: a pass over the log, 2 commits, and what the free pages take to be written.

        Args:
            collection: name of the entry's collection.
            key: key of the entry, which need not be there any more.

        Raises:
            InvalidName, InvalidKey: no entry can have that name.
            InvalidRecord: a staged transaction that has not ended has records of the entry. Nothing was changed.
            StoreUnusable: this thread has a transaction or batch open.
            Damaged: a record of the entry is not as it was written. Nothing was changed.
            Busy, StoreFull, ReadOnly: as for transaction(). Nothing was changed.
            StoreIOError: it may have been done or not; the handle refuses further work.

        Examples:
            >>> for name in "ada", "eve":
            ...     store["users"][1] = name
            >>> store.redact("users", 1).records
            2
            >>> [(change.before, change.value) for change in store.changes()]
            [(ABSENT, REDACTED), (REDACTED, 'eve')]
        """
        refuse_inside(self._writer, "redact")
        name = make_name(check_collection(collection), key)
        with self._group.writing():
            connection = self._engine.write_connection
            connection.rows("PRAGMA secure_delete=ON")
            try:
                records, entry = self._redact(collection, key, name_bytes(name))
                overwritten = self._emptied()
            finally:
                if self._engine.usable:
                    connection.rows("PRAGMA secure_delete=FAST")
        return RedactReport(collection, key, records, entry, overwritten)

    def _redact(self, collection: str, key: Key, raw: bytes) -> tuple[int, int | None]:
        """Take the values out in one SQLite transaction; return of how many records, and the audit entry's number."""
        connection, writer = self._engine.write_connection, self._writer
        lsn, head = writer.begin()
        staged = wal_digests.staged_with(connection, collection, key)
        if staged:
            raise InvalidRecord(
                f"staged transaction {staged[0]} has not ended, and has records of {collection!r}[{key!r}]; commit "
                "it or roll it back first. Nothing was changed"
            )
        records, entry = wal_digests.redact(connection, collection, key), None
        if records:
            detail = {"entry": sha256(fmt.TAG_REDACTED + raw).hexdigest(), "records": records}
            entry = note(writer, head, ("redact", detail))
        wal_digests.overwrite_free_pages(connection)
        writer.commit_unnumbered("the redaction", (lsn, head))
        return records, entry

    def _emptied(self) -> bool:
        """Empty SQLite's -wal, which has the values too, if nobody else needs it; return whether it is empty."""
        if self._engine.journal != "wal":
            return True
        with suppress(Busy, StoreFull):
            if self._writer.dirty_flag.clear():
                self._engine.write_connection.checkpoint("truncate", patience=_PATIENCE_SECONDS)
        return not self._engine.files.size("-wal")

    def set_logging(self, collection: str, log: Logging) -> None:
        """Set whether the log keeps the values of a collection, or their digests only: for caches and drafts.

        It is kept in the file, and goes for all that is written from now on, by every program. With digests, the log
        grows by some 150 bytes a change, however large the values are; check() and proofs are as before, and
        changes(), at(), undo() and revert() do not know the values that were replaced. Staged transactions have their
        values in the log until they are committed, and when they are rolled back. An audit entry records the setting.

        Cost: 1 commit; none if it is set so.

        Args:
            collection: name of a collection, which need not have entries.
            log: "values", as for all that nothing was set for; or "digests".

        Raises:
            InvalidName: the name is not text of 1 to 255 bytes.
            InvalidOption: *log* is none of the two.
            StoreUnusable: this thread has a transaction or batch open.
            Busy, StoreFull, ReadOnly: as for transaction(). Nothing was changed.
            StoreIOError: it may have been done or not; the handle refuses further work.

        Examples:
            >>> store.set_logging("cache", "digests")
            >>> for page in "old", "new":
            ...     store["cache"]["page"] = page
            >>> [(change.before, change.value) for change in store.changes()]
            [(ABSENT, REDACTED), (REDACTED, 'new')]
        """
        check_collection(collection)
        if log not in ("values", "digests"):
            raise InvalidOption(f"log={log!r} is not what a log keeps; use 'values' or 'digests'")

        def set_one(connection: Connection, head: Head) -> Literal[True] | None:
            if (collection in wal_digests.collections(connection)) == (log == "digests"):
                return None
            wal_digests.set_collection(connection, collection, digests=log == "digests")
            note(self._writer, head, ("setting", {"collection": collection, "log": log}))
            return True

        in_one_write(self._group, "set_logging", set_one)

    def digest_logs(self) -> list[str]:
        """Return the names of the collections of whose values the log keeps the digests only, in order.

        Cost: 1 statement.

        Raises:
            Damaged: a row is no collection's name.
            StoreClosed: the store was closed.

        Examples:
            >>> store.set_logging("cache", "digests")
            >>> store.digest_logs()
            ['cache']
        """
        with self._engine.reading() as connection:
            return sorted(wal_digests.collections(connection), key=str.encode)
