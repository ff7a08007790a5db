"""The store as an earlier commit left it: what it is now, and what the log says was there instead."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final, TypeVar

from sqlstate.errors import InvalidOption, ValueRedacted
from sqlstate.format.merkle import Leaf
from sqlstate.format.names import Name, check_number, first_name, next_collection, stored_name
from sqlstate.store.access import as_stored
from sqlstate.store.snapshot import OpenSnapshot, View
from sqlstate.tables import state, wal, wal_changes
from sqlstate.tables.state import Chunk, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.format.names import Key, Stored
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.sqlite.pages import Page
    from sqlstate.store.access import Made
    from sqlstate.tables.meta import Meta
    from sqlstate.tables.wal_changes import Logged, Touched

T = TypeVar("T")

# A chunk of a scan takes as many entries from the log, unless their values come to so many bytes.
ENTRIES_AT_ONCE: Final = 512
BYTES_AT_ONCE: Final = 1 << 20


class PastView(View):
    """The store as an earlier commit left it, for reading. Made by `store.at()`.

    It is read as a Snapshot is, and like one it holds a state of the store while it is open. It makes no proofs.

    Examples:
        >>> for lang in "fr", "de":
        ...     store["settings"]["lang"] = lang
        >>> with store.at(1) as past:
        ...     print(past["settings"]["lang"], past.head.seq, len(past["settings"]))
        fr 1 1
    """

    __slots__ = ()

    _entries: OpenPast


class OpenPast(OpenSnapshot):
    """The private side of a PastView: a state of the store, and which entries were different.

    Args:
        engine: the store's connections.
        meta: the store's facts.
        when: number of a commit, or a time.

    Raises:
        InvalidOption: there is no such commit, or the time has no time zone.
    """

    __slots__ = ("_changed",)

    def __init__(self, engine: Engine, meta: Meta, when: int | datetime) -> None:
        super().__init__(engine, meta)
        try:
            connection, newest = self._lease.connection, self.newest.seq
            seq = commit_at(connection, when, newest)
            head = wal.head_of(connection, meta, seq)
            assert head is not None  # noqa: S101, the newest is there, and numbers have no holes (I4)
            self.head = head
            span = wal.commit_lsn(connection, seq), wal.commit_lsn(connection, newest)
            self._changed = Changed(wal_changes.together(connection, *span))
        except BaseException:
            self._lease.end()
            raise

    @property
    def upto(self) -> int:  # type: ignore[override]  # of a Snapshot it is None
        """Number of the commit."""
        return self.head.seq

    @property
    def changed(self) -> Touched:
        """The entries that were changed since."""
        return self._changed.touched

    def get_stored(self, name: Name) -> Stored | None:
        """Return the value that an entry had, as stored, or None.

        Raises:
            ValueRedacted: the log has its digest alone.
        """
        found = self.get_logged(name)
        if type(found) is Leaf:
            raise ValueRedacted(name[0], name[2])
        return found

    def get_logged(self, name: Name) -> Logged:
        """Return the value that an entry had, as stored, or None; its leaf if the log has that alone."""
        touch = self._changed.touched.get(name)
        return super().get_stored(name) if touch is None else wal_changes.before(self.reader(), name, touch)

    def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the value that each entry had, as stored, or None."""
        return [self.get_stored(name) for name in names]

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries that there were in [start, stop)."""
        return super().count(start, stop) + self._changed.fewer_now(start, stop)

    def collections(self) -> list[str]:
        """Return the names of all collections that had entries."""
        names = {*super().collections(), *self._changed.collections}
        there = (name for name in names if name not in self._changed.collections or self._size(name))
        return sorted(there)

    def scan_all(self) -> Iterator[tuple[str, Key, Stored]]:
        """Yield (collection, key, stored value) of every entry, in order."""
        for collection in self.collections():
            for key, stored in self.scan(Span(collection), as_stored, values=True):
                yield collection, key, stored

    def scan(self, span: Span, make: Made[T], *, values: bool) -> Iterator[T]:
        """Yield (key, stored value) in order."""

        def read(connection: Connection, rest: Span) -> tuple[Page[T], Span | None]:
            rows, kinds, left = self._chunk(connection, rest, values=values)
            return make(rows, kinds), left

        rows = self._rows(read, span._replace(limit=None))
        return rows if span.limit is None else islice(rows, span.limit)

    def _size(self, collection: str) -> int:
        return self.count(first_name(collection), first_name(next_collection(collection)))

    def _chunk(self, connection: Connection, span: Span, *, values: bool) -> Chunk:
        """Return what state.chunk() would have returned then."""
        now = rows, _, rest = state.chunk(connection, span, values=values)
        changed = self._changed.within(span, None if rest is None else rest.passed)
        if not changed:
            return now
        touched = self._changed.touched
        found: dict[Name, str | bytes] = {}
        left = BYTES_AT_ONCE
        for place, name in enumerate(changed, 1):
            value = wal_changes.before(connection, name, touched[name]) if values else ""
            if value is not None and touched[name].was_there:
                found[name] = value
                left -= len(value)
            if (left <= 0 or place >= ENTRIES_AT_ONCE) and place < len(changed):
                rest = span.after(name[2])
                rows = rows[: _up_to(rows, name, reverse=span.reverse)]
                break
        for key, value in rows:
            name = stored_name(span.collection, key)
            if name not in touched:
                found[name] = value
        merged = [(name[2], found[name]) for name in sorted(found, reverse=span.reverse)]
        kinds = {*map(type, found.values())}
        if Leaf in kinds:
            unknown = next(place for place, (_, value) in enumerate(merged) if type(value) is Leaf)
            if not unknown:
                raise ValueRedacted(span.collection, merged[0][0])
            merged = merged[:unknown]
            return Chunk(merged, {type(value) for _, value in merged}, span.after(merged[-1][0]))
        return Chunk(merged, kinds, rest)


def _up_to(rows: Sequence[tuple[Key, Stored]], last: Name, *, reverse: bool) -> int:
    """Return how many of *rows*, in the order of a scan, do not come after *last*."""
    for place, (key, _) in enumerate(rows):
        name = stored_name(last[0], key)
        if (name < last) if reverse else (name > last):
            return place
    return len(rows)


class Changed:
    """The entries that were changed since a commit.

    Args:
        touched: they, and how all commits since changed each.
    """

    __slots__ = ("_fewer", "_names", "collections", "touched")

    def __init__(self, touched: Touched) -> None:
        self.touched = touched
        self._names = sorted(touched)
        fewer = (touched[name].was_there - touched[name].is_there for name in self._names)
        self._fewer = [0, *accumulate(fewer)]
        self.collections: set[str] = {name[0] for name in self._names}

    def fewer_now(self, start: Name, stop: Name) -> int:
        """Return how many fewer entries there are now in [start, stop) than there were."""
        low, high = (bisect_left(self._names, name) for name in (start, stop))
        return self._fewer[high] - self._fewer[low]

    def within(self, span: Span, last: Key | None) -> list[Name]:
        """Return the changed entries of a span, in its order, up to and with the key *last*, None for its end."""
        low, high = bisect_left(self._names, _bound(span, span.start)), self._end(span)
        if span.passed is not None:
            passed = stored_name(span.collection, span.passed)
            if span.reverse:
                high = min(high, bisect_left(self._names, passed))
            else:
                low = max(low, bisect_right(self._names, passed))
        if last is not None:
            reached = stored_name(span.collection, last)
            if span.reverse:
                low = max(low, bisect_left(self._names, reached))
            else:
                high = min(high, bisect_right(self._names, reached))
        found = self._names[low:high]
        return found[::-1] if span.reverse else found

    def _end(self, span: Span) -> int:
        stop = first_name(next_collection(span.collection)) if span.stop is None else _bound(span, span.stop)
        return bisect_left(self._names, stop)


def _bound(span: Span, key: Key | None) -> Name:
    return first_name(span.collection) if key is None else stored_name(span.collection, key)


def commit_at(connection: Connection, when: int | datetime, newest: int) -> int:
    """Return the number of a commit, or of the newest one that was made at a time or before; 0 before the first.

    Raises:
        InvalidOption: there is no commit with that number, or the time has no time zone.
    """
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise InvalidOption(f"{when!r} has no time zone, so it names no moment; give a datetime with one")
        try:
            at = when.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:
            raise InvalidOption(f"{when!r} is outside the years 1 to 9999 in UTC") from None
        return wal_changes.seq_at(connection, f"{at.isoformat(timespec='microseconds')}Z")
    if check_number("seq", when) > newest:
        raise InvalidOption(f"there is no commit {when}: the newest is {newest}")
    return when
