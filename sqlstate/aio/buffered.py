"""What an asynchronous transaction wrote and read, and how that is compared when its block ends."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.aio.snapshot import Frozen
from sqlstate.errors import Conflict, InvalidValue, TransactionEnded
from sqlstate.format.names import check_collection, first_name, make_name, next_collection, stored_name
from sqlstate.format.values import ABSENT, JSON, same
from sqlstate.store.access import as_stored
from sqlstate.store.transaction import check_note

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from sqlstate.aio.scan import Progress, Row, StoredRows
    from sqlstate.aio.threads import Threads
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.store.entries import StoreEntries
    from sqlstate.store.open_transaction import OpenTransaction
    from sqlstate.store.snapshot import OpenSnapshot
    from sqlstate.tables.state import Span


SOME: Final = "some value"
"""Stands in a Conflict for a value that the transaction did not look at."""


class _Counted(NamedTuple):
    """A count that was read: entries in [start, stop), without those that the transaction had written itself."""

    start: Name
    stop: Name
    own: tuple[Name, ...]
    found: int


class Buffered:
    """The private side of an AsyncTransaction: what it wrote, what it read, and the commit that it reads."""

    __slots__ = (
        "_collections", "_commit", "_counts", "_expected", "_note", "_open", "_present", "_reads", "_scans", "_submit",
        "_writes", "head",
    )  # fmt: skip

    head: Head | None
    """The commit that carries it."""

    def __init__(
        self,
        store: StoreEntries,
        threads: Threads,
        submit: Callable[[Callable[[OpenTransaction], None], str], Awaitable[Head | None]],
        note: str,
    ) -> None:
        self._note = check_note(note)
        self._submit = submit
        self._commit = Frozen(store, threads)
        self._open: bool | None = None
        self._writes: dict[Name, Stored | None] = {}
        self._expected: dict[Name, Stored | None] = {}
        self._reads: dict[Name, Stored | None] = {}
        self._present: dict[Name, bool] = {}
        self._counts: list[_Counted] = []
        self._collections: list[tuple[frozenset[str], dict[str, list[Name]], frozenset[str]]] = []
        self._scans: list[_OverlaidRows] = []
        self.head = None

    def expect(self, collection: str, key: Key, value: Any) -> None:
        """Compare an entry with *value*: at once if it is known what the transaction sees, else at the end."""
        self._check()
        name = make_name(check_collection(collection), key)
        try:
            expected = None if value is ABSENT else JSON.encode(value)
        except InvalidValue as e:
            raise e.located(collection, key) from None
        for known in (self._writes, self._reads, self._expected):
            if name in known:
                if not same(known[name], expected):
                    raise _conflict(name, expected, known[name])
                break
        if name not in self._writes:
            self._expected[name] = expected

    async def collections(self) -> list[str]:
        """Return the names of all collections that have entries, as this transaction sees them."""
        self._check()
        put = frozenset(name[0] for name, stored in self._writes.items() if stored is not None)
        deleted: dict[str, list[Name]] = {}
        for name in self._writes:
            if name[0] not in put:
                deleted.setdefault(name[0], []).append(name)
        others = await self._commit.ask(lambda view: _other_collections(view, put, deleted))
        self._check()
        self._collections.append((put, deleted, others))
        return sorted(others | put)

    async def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        [stored] = await self.get_many_stored((name,))
        return stored

    async def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None."""
        self._check()
        known = {name: each[name] for name in names for each in (self._reads, self._writes) if name in each}
        unread = [name for name in names if name not in known]
        if unread:
            found = dict(zip(unread, await self._commit.get_many_stored(unread), strict=True))
            self._check()  # another task may have left the block: what it read is being compared
            self._reads |= found
            known |= found
        return [known[name] for name in names]

    async def has_stored(self, name: Name) -> bool:
        """Return True if there is an entry; its value may change without a conflict."""
        self._check()
        for known in (self._writes, self._reads):
            if name in known:
                return known[name] is not None
        there = await self._commit.ask(lambda view: view.get_stored(name) is not None)
        self._check()
        self._present[name] = there
        return there

    async def count_names(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        self._check()
        own = tuple(name for name in self._writes if start <= name < stop)
        puts = sum(self._writes[name] is not None for name in own)
        found = await self._commit.ask(lambda view: _count_others(view, start, stop, own))
        self._check()
        self._counts.append(_Counted(start, stop, own, found))
        return found + puts

    def rows(self, span: Span, *, values: bool) -> _OverlaidRows:
        """Return the rows of a scan; it sees the writes made before its first row."""
        self._check()
        rows = _OverlaidRows(self._commit.rows(span, values=values), self._writes, span, values=values)
        self._scans.append(rows)
        return rows

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry when the block ends."""
        self._check()
        self._writes[name] = stored

    def delete_stored(self, name: Name) -> None:
        """Delete an entry when the block ends."""
        self._check()
        self._writes[name] = None

    @property
    def condition(self) -> str:
        """Whether it can be used, in a word, for a repr."""
        return {None: "not begun", True: "open", False: "ended"}[self._open]

    def __repr__(self) -> str:
        writes = len(self._writes)
        return f"<sqlstate.aio.AsyncTransaction: {self.condition}, {writes:,} write{'' if writes == 1 else 's'}>"

    def begin(self) -> None:
        """Begin the block.

        Raises:
            TransactionEnded: it had one.
        """
        if self._open is not None:
            raise TransactionEnded("a transaction is for one block; begin another one with store.transaction()")
        self._open = True

    async def end(self, kind: type[BaseException] | None) -> None:
        """End the block; write, unless an exception ended it.

        Raises:
            Conflict: something that was read was changed since.
        """
        self._open = False
        self._commit.drop(kind)
        if kind is None and (self._writes or self._expected):
            self.head = await self._submit(self._write, self._note)

    def _write(self, txn: OpenTransaction) -> None:
        """Check what was read, and write; runs in the store's own thread."""
        for name, expected in self._expected.items():
            _compare(txn, name, expected)
        head = self._commit.head
        if head is not None and not txn.follows(head):
            self._compare(txn)
        for name, stored in self._writes.items():
            if stored is None:
                txn.delete_stored(name)
            else:
                txn.put_stored(name, stored)

    def _compare(self, txn: OpenTransaction) -> None:
        """Compare what was read of the commit with what is there now, after other commits.

        Raises:
            Conflict: something has changed.
        """
        for name, expected in self._reads.items():
            _compare(txn, name, expected)
        for name, there in self._present.items():
            actual = txn.get_stored(name)
            if there and actual is None:
                raise Conflict(name[0], name[2], SOME, ABSENT)
            if not there and actual is not None:
                raise _conflict(name, None, actual)
        for start, stop, own, found in self._counts:
            count = _count_others(txn, start, stop, own)
            if count != found:
                whole = start == first_name(start[0])
                where = "" if whole else f" from {start[2]!r} on"
                raise Conflict(start[0], f"number of entries{where}", found, count)
        for put, deleted, others in self._collections:
            names = _other_collections(txn, put, deleted)
            if names != others:
                raise Conflict("(all)", "names of collections", sorted(others), sorted(names))
        for scan in self._scans:
            scan.check(txn)

    def _check(self) -> None:
        if not self._open:
            raise TransactionEnded(
                "the transaction has ended, or has not begun: use it inside `async with store.transaction() as txn`"
            )


class _OverlaidRows:
    """The rows of a scan inside a transaction: those of its commit, with its own writes over them.

    Args:
        stored: the commit's rows.
        writes: what the transaction writes; a scan sees what was written before its first row.
        span: of the scan.
        values: whether values are looked at, or only keys.
    """

    __slots__ = ("_own", "_progress", "_queue", "_rows", "_span", "_stored", "_values", "_writes")

    _progress: Callable[[], Progress]

    def __init__(self, stored: StoredRows, writes: dict[Name, Stored | None], span: Span, *, values: bool) -> None:
        self._stored = stored
        self._writes = writes
        self._span = span
        self._values = values
        self._own: frozenset[Name] | None = None
        self._queue: deque[tuple[Name, Stored | None]] = deque()
        self._rows: list[Row] = []

    def begun(self, progress: Callable[[], Progress]) -> None:
        """Keep what says how many rows were taken."""
        self._progress = progress

    async def chunk(self, most: int, *, final: bool) -> tuple[list[Row], bool]:
        """Return the next rows, and whether there are no more behind them."""
        if self._own is None:
            self._begin()
        while True:
            rows, last = await self._stored.chunk(most, final=final and not self._own)
            if self._queue:
                rows = self._overlay(rows, last=last)
            if rows or last:
                self._rows += rows
                return rows, last

    def check_open(self) -> None:
        """Raise TransactionEnded if the transaction has ended."""
        self._stored.check_open()

    def drop(self) -> None:
        """Release the commit's rows, soon."""
        self._stored.drop()

    async def aclose(self) -> None:
        """Release the commit's rows."""
        await self._stored.aclose()

    def check(self, txn: OpenTransaction) -> None:
        """Read again what was taken.

        Raises:
            Conflict: a row has changed, has come or is gone.
        """
        passed, ended = self._progress()
        taken = self._rows[:passed]
        if not (taken or ended):
            return
        own = self._own or frozenset()
        end = None if ended else self._name(taken[-1])
        wanted = {name: stored for name, stored in self._named(taken) if name not in own}
        found: dict[Name, Stored] = {}
        for name, stored in self._named(txn.scan(self._span, as_stored, values=self._values)):
            if end is not None and name != end and self._in_order(end, name):
                break
            if name not in own:
                found[name] = stored
        for name in sorted(wanted.keys() | found.keys(), reverse=self._span.reverse):
            expected = wanted.get(name)
            if name in found and name in wanted and (not self._values or same(expected, found[name])):
                continue
            if name in wanted and not self._values:
                raise Conflict(name[0], name[2], SOME, ABSENT)
            raise _conflict(name, expected, txn.get_stored(name))

    def _begin(self) -> None:
        collection, start, stop, reverse = self._span[:4]
        low = None if start is None else stored_name(collection, start)
        high = None if stop is None else stored_name(collection, stop)
        own = sorted(
            name
            for name in self._writes
            if name[0] == collection and (low is None or low <= name) and (high is None or name < high)
        )
        self._own = frozenset(own)
        self._queue.extend((name, self._writes[name]) for name in (reversed(own) if reverse else own))

    def _overlay(self, rows: list[Row], *, last: bool) -> list[Row]:
        """Return *rows* with the transaction's own writes up to the last of them, or with all that are left."""
        merged: dict[Name, Stored | None] = dict(self._named(rows))
        end = None if last else self._name(rows[-1])
        while self._queue and (end is None or self._in_order(self._queue[0][0], end)):
            name, stored = self._queue.popleft()
            merged[name] = stored
        names = sorted(merged, reverse=self._span.reverse)
        return [(name[2], stored) for name in names if (stored := merged[name]) is not None]

    def _named(self, rows: Iterable[Row]) -> Iterator[tuple[Name, Stored]]:
        return ((self._name(row), row[1]) for row in rows)

    def _name(self, row: Row) -> Name:
        return stored_name(self._span.collection, row[0])

    def _in_order(self, first: Name, second: Name) -> bool:
        return first >= second if self._span.reverse else first <= second


def _count_others(view: OpenSnapshot | OpenTransaction, start: Name, stop: Name, own: Sequence[Name]) -> int:
    """Return the number of entries in [start, stop) that are not among *own*, which are."""
    return view.count(start, stop) - sum(view.get_stored(name) is not None for name in own)


def _other_collections(
    view: OpenSnapshot | OpenTransaction, put: frozenset[str], deleted: dict[str, list[Name]]
) -> frozenset[str]:
    """Return the names of collections, but those in *put*, that have other entries than those in *deleted*."""
    return frozenset(
        name
        for name in view.collections()
        if name not in put
        and (
            name not in deleted
            or _count_others(view, first_name(name), first_name(next_collection(name)), deleted[name])
        )
    )


def _compare(txn: OpenTransaction, name: Name, expected: Stored | None) -> None:
    actual = txn.get_stored(name)
    if not same(actual, expected):
        raise _conflict(name, expected, actual)


def _conflict(name: Name, expected: Stored | None, actual: Stored | None) -> Conflict:
    wanted, found = (ABSENT if stored is None else JSON.decode(stored) for stored in (expected, actual))
    return Conflict(name[0], name[2], wanted, found)
