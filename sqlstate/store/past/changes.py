"""The feed of changes, and how the store was: what a Store knows of its past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlstate.errors import InvalidOption
from sqlstate.format.names import check_collection, check_number, stored_name
from sqlstate.format.values import codec_for
from sqlstate.store.access import refuse_inside
from sqlstate.store.past import change, undo
from sqlstate.store.past.at import PastView
from sqlstate.store.watch import check_timeout
from sqlstate.tables import wal, wal_changes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.keys import Bound
    from sqlstate.format.names import Name
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.store.entries import StoreEntries
    from sqlstate.store.past.change import Change
    from sqlstate.tables.wal_changes import Touched


class Wanted:
    """Which changes are wanted, and of which types their values and keys are.

    Args:
        collection: name of the only collection wanted; None for all.
        prefix: only keys that begin with it; None for all.
        type_: of the values; None for values without a type.
        key: of the keys; None for keys without a type.

    Raises:
        InvalidName, InvalidKey: no entry can be like this.
        InvalidOption: the type cannot be stored as JSON, or no keys are of such a type.
    """

    __slots__ = ("_collection", "_start", "_stop", "codec", "everything")

    everything: bool
    """Whether changes of all entries are wanted."""

    def __init__(
        self, collection: str | None = None, prefix: Bound | None = None, type_: Any = None, key: Any = None
    ) -> None:
        self._collection = None if collection is None else check_collection(collection)
        self.everything = collection is None and prefix is None
        self.codec = codec_for(type_, key)
        low, high = self.codec.keys.bounds(prefix=prefix)
        self._start, self._stop = (None if each is None else stored_name("", each) for each in (low, high))

    def takes(self, name: Name) -> bool:
        """Return True if changes of this entry are wanted."""
        if self._collection is not None and name[0] != self._collection:
            return False
        if self._start is None:
            return True
        key = stored_name("", name[2])
        return key >= self._start and (self._stop is None or key < self._stop)


class Past:
    """What a Store knows of its past."""

    _engine: Engine
    _entries: StoreEntries
    _group: GroupCommit[Any]
    _writer: WriteContext

    if TYPE_CHECKING:  # of Commits

        def head(self) -> Head:
            """Return the newest commit."""

    def changes(
        self,
        after: int = 0,
        *,
        upto: int | None = None,
        collection: str | None = None,
        prefix: Bound | None = None,
        type: Any = None,  # noqa: A002, the word users know
        key: Any = None,
    ) -> Iterator[Change]:
        """Yield what the commits after number *after* changed, commit by commit, and in each in the order of keys.

        A commit that changes an entry several times makes one change of it, and none if the entry ends as it began.
        Nothing is held between two steps, however long the caller takes: to go on another day, keep the `seq` of the
        last commit that was dealt with.

        Cost: 2 statements for each 1,024 records, and 1 for each change. It keeps the names of the entries of one
        commit in memory, and 1 MB of values.

        Args:
            after: number of a commit, 0 for all there are.
            upto: number of the last commit wanted; None for the newest at the call.
            collection: name of the only collection wanted; None for all.
            prefix: only the keys that begin with it: text, bytes or, with *key*, tuples.
            type: of the values, as for collection(); None for values without a type.
            key: of the keys, as for collection(); None for keys without a type.

        Raises:
            InvalidOption: *after* or *upto* is not a number from 0 to 2^63-1, or *type* or *key* is none.
            InvalidName: no entry can be in the collection.
            InvalidKey: no entry can have a key with the prefix; or, while iterating, a key is not of the type *key*.
            InvalidValue: while iterating: a document does not fit the type.
            Damaged: while iterating: a record of the log is not as it was written.
            StoreClosed: while iterating: the store was closed.

        Examples:
            >>> for lang in "fr", "de":
            ...     store["settings"]["lang"] = lang
            >>> for change in store.changes():
            ...     print(change.seq, change.collection, change.key, change.before, change.value)
            1 settings lang ABSENT fr
            2 settings lang fr de
        """
        check_number("after", after)
        newest = self.head().seq
        last = newest if upto is None else min(check_number("upto", upto), newest)
        if after < last:
            with self._engine.reading() as connection:
                wal.check_kept(connection, after)
        return changed(self._engine, after, last, Wanted(collection, prefix, type, key))

    def at(self, when: int | datetime) -> PastView:
        """Return the store as an earlier commit left it, for reading. Use it in a `with` block.

        It is the state of now, with what the log says of the entries that were changed since.

        Cost: reads the records since that commit, without their values, and keeps the names of the entries.

        Args:
            when: number of a commit, 0 for the empty store before the first; or a datetime with a time zone, for the
                newest commit made up to then.

        Raises:
            InvalidOption: there is no such commit, or the time has no time zone.
            Damaged: a record of the log is not as it was written.
            StoreClosed: the store was closed.

        Examples:
            >>> for lang in "fr", "de":
            ...     store["settings"]["lang"] = lang
            >>> with store.at(1) as past:
            ...     print(dict(past["settings"]), past.head.seq)
            {'lang': 'fr'} 1
        """
        return PastView(self._entries.at(when))

    def undo(self, seq: int, note: str = "") -> Head:
        """Take back what commit *seq* changed, in one new commit, and return that. Undoing that one redoes it.

        If there is nothing to take back, no commit is made, and the newest is returned.

        Cost: 1 commit, and 3 statements for each entry.

        Args:
            seq: number of a commit.
            note: text of at most 4,096 bytes for the log; "" for "undo of commit" and its number.

        Raises:
            Conflict: entries are not as the commit left them, because of later ones; `entries` names them all.
                Nothing was changed.
            InvalidOption: there is no such commit, or the note is too long.
            StoreUnusable: this thread has a transaction or batch open.
            StoreError: what transaction() raises.

        Examples:
            >>> for lang in "fr", "de":
            ...     store["settings"]["lang"] = lang
            >>> store.undo(2).seq, store["settings"]["lang"]
            (3, 'fr')
            >>> store.undo(3).seq, store["settings"]["lang"]
            (4, 'de')
        """
        refuse_inside(self._writer, "undo")
        return undo.undo(self._group, seq, note)

    def revert(self, to: int | datetime, note: str = "") -> Head:
        """Make the state equal to what commit *to* left, in one new commit, and return that.

        If there is no difference, no commit is made, and the newest is returned.

        Cost: 1 commit, and what at() costs.

        Args:
            to: a commit, as for at().
            note: text of at most 4,096 bytes for the log; "" for "revert to commit" and its number.

        Raises:
            InvalidOption: there is no such commit, the time has no time zone, or the note is too long.
            StoreUnusable: this thread has a transaction or batch open.
            StoreError: what transaction() raises.

        Examples:
            >>> for lang in "fr", "de", "it":
            ...     store["settings"]["lang"] = lang
            >>> store.revert(1).seq, store["settings"]["lang"]
            (4, 'fr')
        """
        refuse_inside(self._writer, "revert")
        return undo.revert(self._group, to, note)


def changed(engine: Engine, after: int, upto: int, wanted: Wanted) -> Iterator[Change]:
    """Yield what the commits after number *after* changed, up to number *upto*, in order; nothing is held meanwhile."""
    for step in _steps(engine, after, upto):
        touches = [(head, *each) for head, touched in step for each in sorted(touched.items())]
        yield from change.read(engine.reading, [each for each in touches if wanted.takes(each[1])], wanted.codec)


def check_watch(after: int | None, timeout: float | None, wanted: Wanted, *, changes: bool) -> Wanted | None:
    """Return *wanted* if commits are to be watched with their changes, None if without.

    Raises:
        InvalidOption: an argument of watch() is invalid, or says which changes are wanted where none are.
    """
    if after is not None:
        check_number("after", after)
    if timeout is not None:
        check_timeout(timeout)
    if not changes and not (wanted.everything and wanted.codec.keys.as_is):
        raise InvalidOption("collection, prefix and key say which changes are wanted; ask for changes with them")
    return wanted if changes else None


def with_changes(engine: Engine, heads: Iterator[Head], wanted: Wanted) -> Iterator[tuple[Head, list[Change]]]:
    """Yield each commit with its changes; where not all are wanted, only commits that have some."""
    for head in heads:
        found = list(changed(engine, head.seq - 1, head.seq, wanted))
        if found or wanted.everything:
            yield head, found


def _steps(engine: Engine, after: int, upto: int) -> Iterator[list[tuple[Head, Touched]]]:
    if after >= upto:
        return

    def span(connection: Connection) -> list[int]:
        wal.check_kept(connection, after)
        return [wal.commit_lsn(connection, each) for each in (after, upto)]

    lsn, end = engine.readers.of_log(span)
    reader = wal_changes.Reader(lsn)
    while reader.lsn < end:
        with engine.reading() as connection:
            found = reader.step(connection, end)
        yield found
