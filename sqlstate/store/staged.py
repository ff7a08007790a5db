"""The write-ahead log as callers see it: reading it, and writing staged transactions record by record."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from sqlstate.errors import Conflict, InvalidRecord, StoreError
from sqlstate.format.names import check_collection, check_number, make_name
from sqlstate.format.records import Kind, Record
from sqlstate.format.values import ABSENT
from sqlstate.store.collection import encode
from sqlstate.store.transaction import check_note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.format.names import Key
    from sqlstate.format.records import Head
    from sqlstate.store.session import Session, Uncommitted


_ARGUMENTS: Final = {
    Kind.BEGIN: (),
    Kind.PUT: ("txn", "collection", "key", "value"),
    Kind.DELETE: ("txn", "collection", "key"),
    Kind.ROLLBACK: ("txn",),
}


class WriteAheadLog:
    """The log of a store, `store.wal`: every transaction, with the values before.

    A direct transaction, the kind of `store.transaction()`, writes its records when it commits. A staged one writes
    each record durably before the call returns, and changes the state only at its commit. append() and
    mark_committed() write staged transactions record by record, for programs with a protocol of their own;
    `Store.stage()` is the plain way. Any handle of any process can write to a staged transaction while the session
    that began it lives. Nothing ever leaves the log: the file grows with each write.

    Examples:
        >>> txn = store.wal.append("BEGIN", note="by hand").txn
        >>> record = store.wal.append("PUT", txn=txn, collection="settings", key="zoom", value=2)
        >>> "zoom" in store["settings"], store.wal.mark_committed(txn).seq, store["settings"]["zoom"]
        (False, 1, 2)
    """

    def __init__(self, session: Session) -> None:
        self._session = session

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

        Cost: 1 sync.

        Args:
            kind: "BEGIN" starts a staged transaction, whose number is the record's `txn`. "PUT" and "DELETE" add to
                it. "ROLLBACK" ends it without any effect. mark_committed() writes COMMIT.
            txn: number of the transaction; not with BEGIN.
            collection: name of the entry's collection, with PUT and DELETE.
            key: key of the entry, with PUT and DELETE.
            value: the value, with PUT.
            note: text of at most 4,096 bytes, with BEGIN.

        Raises:
            InvalidRecord: the protocol does not allow this record here, or not with these arguments.
            InvalidName, InvalidKey, InvalidValue: the entry cannot be stored exactly.
            StoreUnusable: this thread has a transaction or batch open.
            Busy, StoreFull: as for `Store.transaction()`.
            StoreIOError: the record may be there or not; the handle refuses further work.

        Examples:
            >>> begin = store.wal.append("BEGIN")
            >>> store.wal.append("PUT", txn=begin.txn, collection="users", key=1, value="ada").before
            >>> store.wal.append("ROLLBACK", txn=begin.txn).lsn
            3
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
        stored = None if name is None or value is ABSENT else encode(name, value)
        note = check_note(note or "")
        return self._session.append(what, txn, name, stored, note)

    def read(self, after: int = 0) -> Iterator[Record]:
        """Yield the records with an LSN greater than *after*, in order. Values are as stored.

        Cost: 1 statement for each 256 records, or 1 MB of values.

        Args:
            after: a number from 0 to 2^63-1.

        Raises:
            InvalidOption: *after* is not such a number.
            Damaged: a row is not a record.
            TransactionEnded: the store was closed meanwhile.

        Examples:
            >>> store["users"][1] = "ada"
            >>> [(record.lsn, str(record.kind), record.value) for record in store.wal.read()]
            [(1, 'BEGIN', None), (2, 'PUT', '"ada"'), (3, 'COMMIT', None)]
        """
        check_number("after", after)
        return self._session.read(after)

    def uncommitted(self) -> list[Uncommitted]:
        """Return the staged transactions that have not ended, oldest first.

        Cost: 1 statement, and 1 for each of them.

        Raises:
            Damaged: a record of one of them is not as it was written.
            StoreClosed: the store was closed.

        Examples:
            >>> draft = store.stage(note="a letter")
            >>> [left.note for left in store.wal.uncommitted()]
            ['a letter']
        """
        return self._session.uncommitted()

    def mark_committed(self, txn: int) -> Head:
        """Apply a staged transaction to the state and write its COMMIT, in one commit. Return the new head.

        If the transaction changes nothing, it ends with ROLLBACK, and the head that was there is returned.

        Cost: 1 commit.

        Args:
            txn: its number.

        Raises:
            InvalidRecord: there is no such transaction, or it has ended.
            StoreUnusable: this thread has a transaction or batch open.
            Conflict: an entry is not as it was when its record was written. Nothing was changed.
            Damaged: a record of it is not as it was written. Nothing was changed, and rollback() can still end it.
            Busy, StoreFull, CommitOutcomeUnknown: as for `Store.transaction()`.

        Examples:
            >>> txn = store.wal.append("BEGIN").txn
            >>> record = store.wal.append("PUT", txn=txn, collection="users", key=1, value="ada")
            >>> store.wal.mark_committed(txn).seq, store["users"][1]
            (1, 'ada')
        """
        return self._session.mark_committed(txn)

    def __repr__(self) -> str:
        return f"<sqlstate.WriteAheadLog of {self._session.path!r}: {self._session.condition}>"


class StagedTransaction:
    """A transaction whose puts and deletes are durable one by one. Made by `store.stage()` or `store.resume()`.

    Nobody else sees its writes until commit() applies them all. The end of a `with` block commits, and an exception
    rolls back. Outside a block it may stay open as long as its handle. It holds no lock. After a crash, the next open
    rolls it back, or leaves it for `Store.resume()`. Its values have no types.

    A handle that stages is a session: its process holds a lock on a small file next to the store, `-session-` and 32
    digits, from the first stage() to close(). Nobody touches what a living session staged. The lock ends with the
    process.

    Examples:
        >>> with store.stage(note="a letter") as draft:
        ...     draft.put("letters", 1, "Dear")
        ...     print(draft.get("letters", 1), 1 in store["letters"])
        Dear False
        >>> store["letters"][1]
        'Dear'
    """

    __slots__ = ("_log", "_session", "txn")

    txn: int
    """Its number, for store.resume()."""

    def __init__(self, session: Session, txn: int) -> None:
        self._session = session
        self._log = WriteAheadLog(session)
        self.txn = txn

    def put(self, collection: str, key: Key, value: Any) -> None:
        """Put an entry, durably, in this transaction.

        Cost: 1 sync.

        Args:
            collection: name of the collection, 1 to 255 bytes of text.
            key: int from -2^63 to 2^63-1, or str or bytes of 1 to 1,048,576 bytes.
            value: bytes, or what JSON carries exactly, up to 268,435,456 bytes as stored.

        Raises:
            InvalidName, InvalidKey, InvalidValue: the entry cannot be stored exactly; the transaction goes on without
                it.
            InvalidRecord: the transaction has ended.
            Busy, StoreFull: as for `Store.transaction()`; this put is not there.
            StoreIOError: it may be there or not; the handle refuses further work.

        Examples:
            >>> draft = store.stage()
            >>> draft.put("letters", 1, "Dear")
            >>> draft.rollback()
            >>> draft.put("letters", 1, "Dear")
            Traceback (most recent call last):
            InvalidRecord: 1 is not a staged transaction, or it has ended; ...
        """
        self._log.append("PUT", txn=self.txn, collection=collection, key=key, value=value)

    def delete(self, collection: str, key: Key) -> bool:
        """Delete an entry, durably, in this transaction, and return True if there was one.

        Cost: 1 sync, or none if there is no such entry.

        Args:
            collection: name of the collection.
            key: int, str or bytes.

        Raises:
            InvalidName, InvalidKey, InvalidRecord, Busy, StoreFull, StoreIOError: as put().

        Examples:
            >>> store["letters"][1] = "Dear"
            >>> with store.stage() as draft:
            ...     print(draft.delete("letters", 1), 1 in store["letters"])
            True True
        """
        if self._session.staged(self.txn, collection, key) is ABSENT:
            return False
        self._log.append("DELETE", txn=self.txn, collection=collection, key=key)
        return True

    def get(self, collection: str, key: Key, default: Any = None) -> Any:
        """Return the value of an entry as this transaction sees it, or *default* if there is no such entry.

        Cost: 2 or 3 statements.

        Args:
            collection: name of the collection.
            key: int, str or bytes.
            default: returned as it is.

        Raises:
            InvalidName, InvalidKey: no entry can have this name.
            InvalidRecord: the transaction has ended.

        Examples:
            >>> with store.stage() as draft:
            ...     draft.put("letters", 1, "Dear")
            ...     print(draft.get("letters", 1), draft.get("letters", 2, "none"))
            Dear none
        """
        value = self._session.staged(self.txn, collection, key)
        return default if value is ABSENT else value

    def commit(self) -> Head:
        """Apply everything to the state, in one commit, and return the new head.

        If it changes nothing, the transaction is rolled back, and the head that was there is returned.

        Cost: 1 commit.

        Raises:
            Conflict: an entry is not as it was when this transaction first touched it. Nothing was changed, and the
                transaction stays open.
            Damaged: a record of it is not as it was written. Nothing was changed, and it stays open.
            InvalidRecord: the transaction has ended.
            Busy, StoreFull, CommitOutcomeUnknown: as for `Store.transaction()`.

        Examples:
            >>> draft = store.stage()
            >>> draft.put("letters", 1, "Dear")
            >>> draft.commit().count
            1
        """
        return self._log.mark_committed(self.txn)

    def rollback(self) -> None:
        """End the transaction without any effect, durably.

        Cost: 1 sync.

        Raises:
            InvalidRecord: the transaction has ended.

        Examples:
            >>> draft = store.stage()
            >>> draft.put("letters", 1, "Dear")
            >>> draft.rollback()
            >>> len(store["letters"])
            0
        """
        self._log.append("ROLLBACK", txn=self.txn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self.commit()
            except Conflict:
                self.rollback()
                raise
        else:
            with suppress(StoreError):  # what happened in the block is what the caller must see
                self.rollback()

    def __repr__(self) -> str:
        return f"<sqlstate.StagedTransaction {self.txn} of {self._session.path!r}: {self._session.condition}>"
