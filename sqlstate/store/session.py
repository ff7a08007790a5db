"""A handle's right to the staged transactions that it began or resumed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate.commit.clock import now
from sqlstate.commit.commit import Commit
from sqlstate.errors import Conflict, Damaged, InvalidRecord
from sqlstate.files.sessions import SessionFile, session_alive
from sqlstate.format import constants as fmt
from sqlstate.format.names import check_collection, make_name, stored_name
from sqlstate.format.records import Kind, Record
from sqlstate.format.values import ABSENT, JSON, same
from sqlstate.store.access import condition
from sqlstate.tables import audit, staged, state, wal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.commit.group import GroupCommit
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection


class Uncommitted(NamedTuple):
    """A staged transaction that has not ended, as `Store.pending()` lists it.

    Examples:
        >>> draft = store.stage(note="a letter")
        >>> draft.put("letters", 1, "Dear")
        >>> [left] = store.wal.uncommitted()
        >>> left.note, [str(record.kind) for record in left.records]
        ('a letter', ['BEGIN', 'PUT'])
    """

    txn: int
    """Its number: the LSN of its BEGIN record."""
    note: str
    """The caller's note, of its BEGIN."""
    at: str
    """When it began."""
    records: list[Record]
    """All its records, in order."""


class Session:
    """The private side of a WriteAheadLog: a handle's right to the staged transactions that it began or resumed."""

    def __init__(self, group: GroupCommit[Any]) -> None:
        self._group = group
        self._writer = group.context
        self._engine = group.context.engine
        self._id = os.urandom(fmt.SESSION_BYTES)
        self._file: SessionFile | None = None

    @property
    def path(self) -> str:
        """The store's path."""
        return self._engine.path

    @property
    def condition(self) -> str:
        """Whether the store can be used, in a word, for a repr."""
        return condition(self._engine.life)

    def append(self, kind: Kind, txn: int | None, name: Name | None, stored: Stored | None, note: str) -> Record:
        """Append one record whose parts fit its kind, durably; *txn* is None for a BEGIN."""
        with self._group.writing():
            if txn is None:
                self._live()
            return self._append(kind, txn, name, stored, note)

    def read(self, after: int) -> Iterator[Record]:
        """Yield the records with an LSN greater than *after*, in order."""
        return self._engine.readers.scan(wal.read, after)

    def uncommitted(self) -> list[Uncommitted]:
        """Return the staged transactions that have not ended, in the order of their beginning."""
        with self._engine.reading() as connection:
            return [_uncommitted(connection, txn) for txn in staged.transactions(connection)]

    def pending(self) -> list[Uncommitted]:
        """Return those among uncommitted() whose session is dead."""
        with self._engine.reading() as connection:
            return [
                _uncommitted(connection, txn)
                for txn, session in staged.sessions(connection)
                if not self._is_alive(session)
            ]

    def adopt(self, txn: int) -> None:
        """Make the staged transaction *txn* of a dead session this handle's, durably; an audit entry says so.

        Raises:
            InvalidRecord: there is no such transaction, it has ended, or its session lives.
            Damaged: a record of it is not what was written; nothing was changed.
            Busy, StoreFull, ReadOnly: as for a transaction.
            StoreIOError: it may have been done or not; the handle refuses further work.
        """
        with self._group.writing():
            self._live()
            connection, writer = self._engine.write_connection, self._writer
            writer.dirty_flag.begin()
            session = self._session_of(txn)
            if self._is_alive(session):
                raise InvalidRecord(f"staged transaction {txn} belongs to a handle that is open; nothing was changed")
            staged.check_records(connection, _uncommitted(connection, txn).records)
            staged.set_session(connection, txn, self._id)
            detail = {"resumed": [txn], "session": session.hex(), "by": self._id.hex()}
            head = wal.last(connection, writer.meta)[1]
            audit.append(connection, writer.meta.store_id, head, now(), ("recovery", detail))
            writer.commit_unnumbered(f"resuming staged transaction {txn}")

    def staged(self, txn: int, collection: str, key: Key) -> Any:
        """Return the value of an entry as the staged transaction *txn* sees it, or ABSENT.

        Raises:
            InvalidRecord: there is no such transaction, or it has ended.
            InvalidName, InvalidKey: no entry can have that name.
        """
        name = make_name(check_collection(collection), key)
        with self._engine.reading() as connection:
            self._session_of(txn, connection)
            return _shown(self._before(txn, name, connection))

    def release(self) -> None:
        """End the session: what it staged and did not end is a dead session's from now on."""
        if self._file is not None:
            self._file.release()
            self._file = None

    def mark_committed(self, txn: int) -> Head:
        """Apply the staged transaction *txn* to state and tree and write its COMMIT, in one SQLite transaction."""
        writer = self._writer
        writer.nothing_made()
        try:
            with self._group.writing():
                commit = Commit(writer)
                self._session_of(txn)
                records = _uncommitted(self._engine.write_connection, txn).records
                staged.check_records(self._engine.write_connection, records)
                values = self._net(records)
                commit.apply_staged(records, values)
                head = commit.finish()
                if head is None:
                    self._append(Kind.ROLLBACK, txn, None, None, "")
                return head or commit.base
        except BaseException as e:
            writer.note_outcome(e)
            raise

    def _append(self, kind: Kind, txn: int | None, name: Name | None, stored: Stored | None, note: str) -> Record:
        writer = self._engine.write_connection
        last, head = self._writer.begin()
        record = Record(last + 1, last + 1 if txn is None else txn, kind, self._id)
        if txn is None:
            record = record._replace(at=now(), note=note)
            staged.add(writer, record.txn, self._id)
        else:
            self._session_of(txn)
            record = record._replace(session=wal.read_begin(writer, txn).session)
        if name is not None:
            before = self._before(record.txn, name)
            if kind is Kind.DELETE and before is None:
                raise InvalidRecord(f"{name[0]!r} has no entry {name[2]!r} to delete")
            record = record._replace(collection=name[0], key=name[2], value=stored, before=before)
        elif kind is Kind.ROLLBACK:
            record = record._replace(at=now())
            staged.remove(writer, record.txn)
        if kind is not Kind.ROLLBACK:
            record = staged.sealed(writer, record)
        wal.write(writer, record)
        size = wal.size_of_staged(writer, record.txn) if kind is Kind.ROLLBACK else 0
        self._writer.commit_unnumbered(f"WAL record {record.lsn}", (record.lsn, head))
        self._writer.total += size
        return record

    def _before(self, txn: int, name: Name, connection: Connection | None = None) -> Stored | None:
        """Return the entry's value as the staged transaction sees it (I8)."""
        connection = connection or self._engine.write_connection
        staged = wal.staged_value(connection, txn, name[0], name[2])
        return state.get(connection, name[0], name[2]) if staged is None else staged[0]

    def _net(self, records: list[Record]) -> dict[Name, Stored | None]:
        """Return what *records* come to, if each entry still is what the first of them found."""
        values: dict[Name, Stored | None] = {}
        for record in records:
            if record.kind not in (Kind.PUT, Kind.DELETE):
                continue
            assert record.collection is not None and record.key is not None  # noqa: S101, PT018
            name = stored_name(record.collection, record.key)
            if name not in values:
                actual = state.get(self._engine.write_connection, name[0], name[2])
                if not same(actual, record.before):
                    raise Conflict(name[0], name[2], _shown(record.before), _shown(actual))
            values[name] = record.value
        return values

    def _live(self) -> None:
        """Hold the lock that says that this session lives, from its first staged transaction on."""
        if self._file is None:
            self._id = os.urandom(fmt.SESSION_BYTES)  # a file of the last one, if it was cut short, stays
            self._file = SessionFile(self._engine.real_path, self._id, self._writer.meta.store_id)
            self._engine.counters.syncs += 1

    def _is_alive(self, session: bytes) -> bool:
        return session == self._id or session_alive(self._engine.real_path, session)

    def _session_of(self, txn: int, connection: Connection | None = None) -> bytes:
        """Return the session that has a staged transaction that has not ended (I7)."""
        session = staged.session_of(connection or self._engine.write_connection, txn) if type(txn) is int else None
        if session is None:
            raise InvalidRecord(f"{txn!r} is not a staged transaction, or it has ended; uncommitted() lists them")
        return session


def _uncommitted(connection: Connection, txn: int) -> Uncommitted:
    records = wal.read_staged(connection, txn)
    if not records:
        raise Damaged(f"I9: {connection.path}: staged transaction {txn} has no records; restore a backup")
    return Uncommitted(txn, records[0].note or "", records[0].at or "", records)


def _shown(stored: Stored | None) -> object:
    return ABSENT if stored is None else JSON.decode(stored)
