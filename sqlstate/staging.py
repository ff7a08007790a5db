"""The write-ahead log as its users see it: read it, and write staged transactions record by record."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate import format as fmt
from sqlstate import state, wal
from sqlstate.commit import Commit, now
from sqlstate.encoding import check_collection, check_number, make_name, same, stored_name
from sqlstate.errors import Conflict, InvalidRecord, InvalidValue
from sqlstate.transaction import ABSENT, JSON, check_note
from sqlstate.wal import Kind, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.commit import Writer
    from sqlstate.encoding import Key, Name, Stored
    from sqlstate.wal import Head


_ARGUMENTS: Final = {
    Kind.BEGIN: (),
    Kind.PUT: ("txn", "collection", "key", "value"),
    Kind.DELETE: ("txn", "collection", "key"),
    Kind.ROLLBACK: ("txn",),
}


class Uncommitted(NamedTuple):
    """A staged transaction that has not ended."""

    txn: int
    """Its number: the LSN of its BEGIN record."""
    note: str
    at: str
    """When it began."""
    records: list[Record]
    """All its records, in order."""


class WriteAheadLog:
    """The log of a store, `store.wal`.

    Every transaction is in it. A direct one writes its records when it commits. A staged one writes each
    record durably before append() returns, and changes the state only at mark_committed():

        txn = store.wal.append("BEGIN", note="draft").txn
        store.wal.append("PUT", txn=txn, collection="drafts", key="letter", value={"text": "Dear"})
        store.wal.mark_committed(txn)
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._engine = writer.engine
        self._session = secrets.token_bytes(fmt.SESSION_BYTES)

    def append(
        self,
        kind: str,
        *,
        txn: int | None = None,
        collection: str | None = None,
        key: Key | None = None,
        value: Any = ABSENT,
        note: str | None = None,
    ) -> Record:
        """Append one record of a staged transaction, durably, and return it.

        Args:
            kind: `"BEGIN"` starts a staged transaction, whose number is the record's `txn`; `"PUT"` and
                `"DELETE"` add to it; `"ROLLBACK"` ends it. COMMIT is written by mark_committed().
            txn: number of the transaction; not with BEGIN.
            collection: name of the entry's collection, with PUT and DELETE.
            key: key of the entry, with PUT and DELETE. The record keeps the value before.
            value: the value, with PUT.
            note: text of at most 4,096 bytes, with BEGIN.

        Raises:
            InvalidRecord: the protocol does not allow this record here.
            InvalidName, InvalidKey, InvalidValue: the entry cannot be stored exactly.
            StoreUnusable: this thread has a transaction open.
            Busy, StoreFull: as for a transaction.
            StoreIOError: the record may be there or not; the handle refuses further work.
        """
        try:
            what = Kind(kind)
        except ValueError:
            raise InvalidRecord(f"{kind!r} is not a kind of record; use BEGIN, PUT, DELETE or ROLLBACK") from None
        if what is Kind.COMMIT:
            raise InvalidRecord("COMMIT is written together with the state change: call mark_committed(txn)")
        given = {"txn": txn, "collection": collection, "key": key, "value": None if value is ABSENT else True}
        for argument, content in given.items():
            if (content is not None) != (argument in _ARGUMENTS[what]):
                raise InvalidRecord(f"a {what} record {'needs a' if content is None else 'has no'} {argument}")
        if note is not None and what is not Kind.BEGIN:
            raise InvalidRecord(f"a {what} record has no note; BEGIN has")
        name = None if collection is None or key is None else make_name(check_collection(collection), key)
        stored = None if name is None or value is ABSENT else self._encode(name, value)
        note = check_note(note or "")
        self._engine.lock_writer()
        try:
            return self._append(what, txn, name, stored, note)
        finally:
            self._engine.unlock_writer()

    def read(self, after: int = 0) -> Iterator[Record]:
        """Yield the records with an LSN greater than *after*, in order.

        Values are as they are stored: str for a JSON document, bytes for bytes, None for none.

        Raises:
            InvalidOption: *after* is not a number from 0 to 2^63-1.
        """
        check_number("after", after)
        with self._engine.lending() as connection:
            yield from wal.read(connection, after)

    def uncommitted(self) -> list[Uncommitted]:
        """Return the staged transactions that have not ended, in the order of their beginning."""
        with self._engine.reading() as connection:
            found = []
            for txn in wal.open_staged(connection):
                records = wal.read_staged(connection, txn)
                found.append(Uncommitted(txn, records[0].note or "", records[0].at or "", records))
            return found

    def mark_committed(self, txn: int) -> Head:
        """Apply the staged transaction *txn* to state and tree and write its COMMIT, in one SQLite transaction.

        Returns the new head. If the transaction changes nothing, it is ended with ROLLBACK and the head that
        was there is returned.

        Raises:
            InvalidRecord: there is no such transaction, or it has ended.
            StoreUnusable: this thread has a transaction open.
            Conflict: an entry is not any more what it was when its record was written; nothing was changed.
            Busy, StoreFull, CommitOutcomeUnknown: as for a transaction.
        """
        self._engine.lock_writer()
        try:
            commit = Commit(self._writer)
            try:
                session = self._session_of(txn)
                records = wal.read_staged(self._engine.writer, txn)
                values = self._net(records)
                commit.apply_staged(records, values)
                head = commit.finish(session)
            except BaseException:
                commit.roll_back()
                raise
            if head is None:
                self._append(Kind.ROLLBACK, txn, None, None, "")
            return head or commit.base
        finally:
            self._engine.unlock_writer()

    def _append(self, kind: Kind, txn: int | None, name: Name | None, stored: Stored | None, note: str) -> Record:
        writer = self._engine.writer
        writer.begin()
        try:
            last = wal.last(writer, self._writer.meta)[0]
            record = Record(last + 1, last + 1 if txn is None else txn, kind, self._session)
            if txn is None:
                record = record._replace(at=now(), note=note)
                wal.set_staged(writer, record.txn, self._session)
            else:
                record = record._replace(session=self._session_of(txn))
            if name is not None:
                before = self._before(record.txn, name)
                if kind is Kind.DELETE and before is None:
                    raise InvalidRecord(f"{name[0]!r} has no entry {name[2]!r} to delete")
                record = record._replace(collection=name[0], key=name[2], value=stored, before=before)
            elif kind is Kind.ROLLBACK:
                record = record._replace(at=now())
                wal.clear_staged(writer, record.txn)
            wal.write(writer, record)
            self._engine.commit_other(f"WAL record {record.lsn}")
        except BaseException:
            if self._engine.usable:
                writer.rollback()
            raise
        return record

    def _before(self, txn: int, name: Name) -> Stored | None:
        """Return the entry's value as the staged transaction sees it (I8)."""
        staged = wal.staged_value(self._engine.writer, txn, name[0], name[2])
        return state.get(self._engine.writer, name[0], name[2]) if staged is None else staged[0]

    def _net(self, records: list[Record]) -> dict[Name, Stored | None]:
        """Return what *records* come to, if each entry still is what the first of them found."""
        values: dict[Name, Stored | None] = {}
        for record in records:
            if record.kind not in (Kind.PUT, Kind.DELETE):
                continue
            assert record.collection is not None and record.key is not None  # noqa: S101, PT018
            name = stored_name(record.collection, record.key)
            if name not in values:
                actual = state.get(self._engine.writer, name[0], name[2])
                if not same(actual, record.before):
                    raise Conflict(name[0], name[2], _shown(record.before), _shown(actual))
            values[name] = record.value
        return values

    def _session_of(self, txn: int) -> bytes:
        """Return the session of a staged transaction that has not ended (I7)."""
        session = wal.staged_session(self._engine.writer, txn) if type(txn) is int else None
        if session is None:
            raise InvalidRecord(f"{txn!r} is not a staged transaction, or it has ended; uncommitted() lists them")
        return session

    def _encode(self, name: Name, value: Any) -> Stored:
        try:
            return JSON.encode(value)
        except InvalidValue as e:
            raise e.located(name[0], name[2]) from None


def _shown(stored: Stored | None) -> object:
    return ABSENT if stored is None else JSON.decode(stored)
