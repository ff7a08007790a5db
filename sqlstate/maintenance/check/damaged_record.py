"""Finds the one damaged record of a commit whose chain does not follow.

A record proves itself damaged when the chain follows with what its neighbours say in its place: the value that the
entry had before, or the value that the next record of the entry, or the state, says it was left with.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format.merkle import leaf
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import Head, begin_bytes, change_bytes, commit_bytes
from sqlstate.maintenance.check.entries import leaf_of, read_on, shown
from sqlstate.maintenance.check.log_tree import Change, LogTree, order
from sqlstate.tables import state, wal
from sqlstate.tables.raw_rows import is_entry_name
from sqlstate.tables.wal import has_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.sqlite.connection import Connection, Row

# A commit of more records is not looked at record by record.
_RECORDS_MAX: Final = 20_000
_TRIALS_MAX: Final = 256
_NAMES_MAX: Final = 64


class Link(NamedTuple):
    """A commit that does not follow: the chains before it that are possible, the commit, and its first and last LSN."""

    chains: tuple[bytes, ...]
    said: Head
    after: int
    last: int


class Found(NamedTuple):
    """The damaged record, and what the commit does to the entries with the right one."""

    lsn: int
    what: str
    name: tuple[Any, Any]
    changes: dict[bytes, Change]


class _Part(NamedTuple):
    """One record: its number and transaction, and of a PUT or DELETE name, values and leaves."""

    lsn: int
    txn: int
    raw: bytes
    name: tuple[Any, Any] | None = None
    values: tuple[Any, Any] = (None, None)
    before: bytes | None = None
    after: bytes | None = None

    def joined(self) -> bytes:
        """Return its canonical bytes."""
        return self.raw if self.name is None else change_bytes(self.lsn, self.txn, self.before, self.after)

    def renamed(self, name: tuple[Any, Any]) -> _Part:
        """Return the record as it would be of another entry."""
        raw = name_bytes(stored_name(*name))
        before, after = (None if value is None else leaf(raw, value) for value in self.values)
        return self._replace(name=name, before=before, after=after)


class Suspects:
    """The records of one commit.

    Args:
        connection: inside a transaction that sees one committed state.
        tree: what the records before the commit make.
        link: the commit.
    """

    def __init__(self, connection: Connection, tree: LogTree, link: Link) -> None:
        self._connection = connection
        self._tree = tree
        self._link = link
        self._parts: list[_Part] = []
        self._trials = 0
        self._odd: set[int] = set()  # of the records, those that do not fit their neighbours

    def find(self) -> Found | None:
        """Return the damaged record, if exactly one is, and its neighbours tell."""
        try:
            rows = list(islice(self._read(), _RECORDS_MAX + 1))
            if len(rows) > _RECORDS_MAX or not all(map(has_bytes, rows)):
                return None
            self._parts = [_part(row) for row in rows]
            return self._by_before() or self._by_after() or self._by_name()
        except Damaged:
            return None

    def _read(self) -> Iterator[Row]:
        """Yield the records in the order of the chain."""
        _, _, after, last = self._link
        for row in self._rows():
            if row[0] > last:
                return
            if row[0] <= after or (row[3] is not None and row[2] != "COMMIT"):
                continue
            if row[2] == "COMMIT" and row[3] is not None:
                yield from wal.staged_verbatim(self._connection, row[1], row[0])
            yield row

    def _rows(self) -> Iterator[Row]:
        return read_on(wal.rows(self._connection), partial(wal.scan_verbatim, self._connection))

    def _by_before(self) -> Found | None:
        """Try for each `before` the value that the entry had."""
        now: dict[tuple[Any, Any], bytes | None] = {}
        for number, part in enumerate(self._parts):
            if part.name is None:
                continue
            there = now[part.name] if part.name in now else self._tree.leaf(order(*part.name))
            if there != part.before:
                self._odd.add(number)
                if found := self._try(number, part._replace(before=there), "`before`"):
                    return found
            now[part.name] = part.after
        return None

    def _by_after(self) -> Found | None:
        """Try for each value what the next record of the entry, or the state, says."""
        right = self._left_with()
        for number, part in reversed(list(enumerate(self._parts))):
            if part.name is None:
                continue
            said = right.get(part.name, part.after)
            if said != part.after:
                self._odd.add(number)
                if found := self._try(number, part._replace(after=said), "value"):
                    return found
            right[part.name] = part.before
        return None

    def _left_with(self) -> dict[tuple[Any, Any], bytes | None]:
        """Return the leaves with which the commit left its entries."""
        names = {part.name for part in self._parts if part.name is not None}
        right: dict[tuple[Any, Any], bytes | None] = {}
        for row in self._rows():
            name = (row[4], row[5])
            if row[0] > self._link.last and name in names and name not in right:
                right[name] = None if row[7] is None else leaf_of((*name, row[7]))
        for name in names - right.keys():
            value = state.get(self._connection, *name)
            right[name] = None if value is None else leaf_of((*name, value))
        return right

    def _by_name(self) -> Found | None:
        """Try for each record that does not fit the entries that have had its value."""
        parts = [(number, self._parts[number]) for number in sorted(self._odd)[:_NAMES_MAX]]
        by_value: dict[Any, set[tuple[Any, Any]]] = {
            part.values[part.values[1] is not None]: set() for _, part in parts
        }

        def note(name: tuple[Any, Any], value: Any) -> None:
            if value is not None and value in by_value and len(by_value[value]) < _NAMES_MAX and is_entry_name(*name):
                by_value[value].add(name)

        for collection, key, value in state.scan_verbatim(self._connection):
            note((collection, key), value)
        for row in self._rows():
            for value in row[6:8]:
                note((row[4], row[5]), value)
        for number, part in parts:
            for name in by_value[part.values[part.values[1] is not None]]:
                if name != part.name and (found := self._try(number, part.renamed(name), "entry")):
                    return found
        return None

    def _try(self, number: int, part: _Part, which: str) -> Found | None:
        """Tell whether the chain follows with another record in the place of one."""
        self._trials += 1
        if self._trials > _TRIALS_MAX:
            return None
        parts = [*self._parts[:number], part, *self._parts[number + 1 :]]
        digest = sha256(b"".join([each.joined() for each in parts])).digest()
        said = self._link.said
        facts = (said.seq, said.root, said.count, said.at)
        if not any(wal.chain_or_none(chain, facts, digest) == said.chain for chain in self._link.chains):
            return None
        wrong = self._parts[number]
        assert wrong.name is not None and part.name is not None  # noqa: S101, PT018, for the type checker
        what = f"I6: record {wrong.lsn}, {shown(*wrong.name)}, has another {which} than commit {said.seq} was made with"
        if which == "entry":
            what += f": {shown(*part.name)}"
        return Found(wrong.lsn, what, part.name, _changes(parts))


def _changes(parts: list[_Part]) -> dict[bytes, Change]:
    changes: dict[bytes, Change] = {}
    for part in parts:
        if part.name is None:
            continue
        place = order(*part.name)
        earlier = changes.get(place)
        before = part.before if earlier is None else earlier[0]
        changes[place] = before, part.after, name_bytes(stored_name(*part.name))
    return changes


def _part(row: Row) -> _Part:
    lsn, txn, kind, _, collection, key, value, before = row[:8]
    if kind == "BEGIN":
        return _Part(lsn, txn, begin_bytes(lsn, row[13] or "", row[11]))
    if kind == "COMMIT":
        return _Part(lsn, txn, commit_bytes(lsn, txn))
    return _Part(lsn, txn, b"", (collection, key), (before, value)).renamed((collection, key))
