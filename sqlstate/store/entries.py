"""The entries of an open store, as they are stored: what a Store holds and its collections read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sqlstate.format.constants import KEY_BYTES_MAX
from sqlstate.format.names import make_name
from sqlstate.store.access import chunks, condition, refuse_inside
from sqlstate.store.blocks import WriteBlock
from sqlstate.store.past.at import OpenPast
from sqlstate.store.snapshot import OpenSnapshot
from sqlstate.tables import merkle, raw_rows, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.requests import Request
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.sqlite.connection import Connection
    from sqlstate.store.access import Made
    from sqlstate.store.batch import OpenBatch
    from sqlstate.store.open_transaction import OpenTransaction
    from sqlstate.tables.state import Span


T = TypeVar("T")


class StoreEntries:
    """The entries behind a Store: those of what this thread has open, or else of the newest commit."""

    upto = None

    def __init__(self, group: GroupCommit[OpenTransaction], writer: WriteContext) -> None:
        self.group = group
        self.writer = writer
        self._engine = writer.engine
        self._blocks = writer.open_blocks
        self._readers = writer.engine.readers
        self._own: Callable[[], OpenTransaction | OpenBatch | None] = writer.open_blocks.innermost

    @property
    def path(self) -> str:
        """What messages call the store."""
        return self._engine.path

    @property
    def condition(self) -> str:
        """Whether the store can be used, in a word, for a repr."""
        return condition(self._engine.life)

    def find(self, collection: str, key: Key) -> Stored | None:
        """Return the stored value of an entry, or None.

        Raises:
            InvalidKey: no entry can have the key.
        """
        if self._blocks.opened[1] and (txn := self._own()) is not None:
            return txn.find(collection, key)
        # A get has no time for many calls: most keys are seen to be keys here, and what make_name() says is not needed.
        if not ((type(key) is bytes or (type(key) is str and key.isascii())) and 0 < len(key) <= KEY_BYTES_MAX):
            make_name(collection, key)
        row = self._readers.row(state.GET, (collection, key))
        if row is None:
            return None
        stored: Stored = row[0]
        if type(stored) is not bytes and type(stored) is not str:
            raw_rows.STATE.check((collection, key, stored), self._engine.path)
        return stored

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        return self.find(name[0], name[2])

    def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None, all of one moment."""
        txn = self._own()
        if txn is not None:
            return txn.get_many_stored(names)
        with self._engine.reading() as connection:
            return state.get_each(connection, names)

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry: a transaction of its own, or part of the one that this thread has open."""
        txn = self._own()
        if txn is not None:
            txn.put_stored(name, stored)
        else:
            self.group.change(name, stored)

    def remove(self, name: Name) -> bool:
        """Delete an entry, as put_stored(); return whether there was one."""
        txn = self._own()
        return self.group.change(name, None) if txn is None else txn.remove(name)

    def scan(self, span: Span, make: Made[T], *, values: bool) -> Iterator[T]:
        """Yield what *make* makes of (key, stored value), in order."""
        txn = self._own()
        if txn is not None:
            return txn.scan(span, make, values=values)
        return self._engine.readers.scan(chunks(make, values=values), span)

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        txn = self._own()
        if txn is not None:
            return txn.count(start, stop)
        with self._engine.reading() as connection:
            return merkle.count(connection, start, stop)

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a block with a connection that reads the newest commit, whatever this thread has open."""
        return self._engine.reading()

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, in order."""
        txn = self._own()
        if txn is not None:
            return txn.collections()
        with self._engine.reading() as connection:
            return state.collections(connection)

    def snapshot(self) -> OpenSnapshot:
        """Return the newest commit, for reading."""
        return OpenSnapshot(self._engine, self.writer.meta)

    def at(self, when: int | datetime) -> OpenPast:
        """Return an earlier commit, for reading.

        Raises:
            InvalidOption: there is no such commit, or the time has no time zone.
        """
        return OpenPast(self._engine, self.writer.meta, when)

    def run(self, work: Callable[[OpenTransaction], T], note: str = "") -> T:
        """Return what *work* returns of a transaction of its own, once that is durable, or of the one that is open."""
        if self._own() is not None or self.group.is_free():
            with WriteBlock(self.group, note) as txn:
                return work(txn)
        self.writer.nothing_made()
        try:
            return self.group.run(work, note)
        except BaseException as e:
            self.writer.note_outcome(e)
            raise

    def writing(self) -> WriteBlock:
        """Return a block whose writes are one transaction, or part of the one that this thread has open."""
        return WriteBlock(self.group)

    def enqueue(self, request: Request) -> None:
        """Have the store's own thread see to *request*.

        Raises:
            StoreUnusable: a transaction or batch of this thread is open, or the store was closed.
            ReadOnly: the store was opened with read_only=True.
        """
        refuse_inside(self.writer, "enqueue")
        self.group.enqueue(request)

    def look_after(self) -> None:
        """See that somebody is at work if there is work."""
        self.group.look_after()

    def reclaim(self) -> None:
        """Take back the connections of scans and snapshots that were dropped."""
        self._engine.readers.reclaim()
