"""Mends records of the log, as far as the commit chain then holds (docs/reference/file-format.md, section 7).

What a record was can stand in three more places: in a backup; in the record before or after of the same entry, for
each value is the next one's `before`; and, for the newest, in the entry itself. Whatever is put in its place, the
chain digest that the commit recorded must follow from it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from heapq import merge
from itertools import islice, product
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT
from sqlstate.format.records import Head, Kind, Record, chain_zero, staged_digest
from sqlstate.tables.raw_rows import HEAD, is_entry_name, is_number
from sqlstate.tables.wal import canonical, chain_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlstate.format.names import Key, Stored
    from sqlstate.sqlite.connection import Row

# So many rows may be hashed in trying what a commit was made of.
_TRIES_ROWS: Final = 200_000

# Gives the rows of a log, the fields of Record, in order.
Log = Callable[[], Iterable["Row"]]
# Row number to what it is to be, None for no row.
Changes = dict[int, "Row | None"]
# The stored value of an entry, None if there is none.
Current = Callable[[str, "Key"], "Stored | None"]


class Entries(NamedTuple):
    """The entries as they are, right or wrong."""

    value: Current
    heads: Callable[[], list[tuple[bytes, int]]]
    """Gives what root and count may have been."""


class Link(NamedTuple):
    """One commit, as it is recorded and as it follows from its records."""

    seq: Any
    root: Any
    count: Any
    at: Any
    chain: Any
    first: int
    """Number of the first record after the commit before."""
    lsn: int
    """Number of the record that closes it."""
    txns: tuple[int, ...]
    follows: bytes
    """The chain that follows from the records and the commit before; empty if none does."""
    holds: bool
    digest: bytes
    """H(records), empty if a record has no canonical bytes."""
    before: tuple[Any, Any]
    """seq and chain of the commit before."""

    @property
    def head(self) -> Head:
        """The commit, if it holds."""
        return Head(self.seq, self.root, self.count, self.at, self.chain)


class Mended(NamedTuple):
    """What can be done about the log."""

    changes: Changes
    newest: Link | None
    """The newest commit after that; None if there is none."""
    broken: tuple[Link, ...]
    """Commits whose chain does not hold even then."""
    end: int
    """The greatest LSN after that."""
    cut: bool
    """The newest commit is not there: what stands at the end belongs to none."""


def changed(log: Log, changes: Mapping[int, Row | None]) -> Log:
    """Return *log* with *changes* made."""

    def rows() -> Iterator[Row]:
        kept = (row for row in log() if row[0] not in changes)
        put = sorted((row for row in changes.values() if row is not None), key=itemgetter(0))
        return merge(kept, put, key=itemgetter(0))

    return rows if changes else log


def mend(log: Log, backup: Log | None, store_id: bytes, end: int, entries: Entries) -> Mended:
    """Return what can be done about a log.

    Args:
        log: the log.
        backup: that of a backup, which need not be sound, or of the same time; None without one.
        store_id: of the store.
        end: where the log must end, by what was recorded elsewhere; 0 if that is not known.
        entries: as they are, right or wrong.
    """
    changes: Changes = _surplus(log, store_id, end) if end else {}
    changes |= _spare(changed(log, changes), store_id)
    found = _judge(changed(log, changes), store_id)
    if backup is not None and (found.broken or found.cut or found.end < end):
        changes |= _from_backup(changed(log, changes), backup, store_id, found, end)
        found = _judge(changed(log, changes), store_id)
    while found.broken:
        more = _from_neighbours(changed(log, changes), found.broken, entries.value)
        if not more:
            break
        changes |= more  # what holds now tells more about the others
        found = _judge(changed(log, changes), store_id)
    if found.broken:
        changes |= _chains(changed(log, changes), store_id)
        changes |= _newest(changed(log, changes), found.newest, entries)
        found = _judge(changed(log, changes), store_id)
    changes |= _digests(changed(log, changes), store_id)
    return Mended(changes, found.newest, tuple(found.broken), found.end, found.cut)


def follow(rows: Iterable[Row], store_id: bytes) -> Iterator[Link]:
    """Yield the commits of a log, however damaged it is."""
    before: tuple[Any, Any] = (0, chain_zero(store_id))
    open_: dict[Any, bytearray | None] = {}  # canonical bytes by transaction, None if a record has none
    digest, txns, sound, first = sha256(), [], True, fmt.INT_MIN
    for row in rows:
        record = Record(*row)
        open_[record.txn] = _joined(open_.get(record.txn, bytearray()), row)
        if record.kind == Kind.ROLLBACK:
            open_.pop(record.txn, None)
        if record.kind == Kind.COMMIT:
            part = open_.pop(record.txn)
            sound = sound and part is not None
            digest.update(part or b"")
            txns.append(record.txn)
        if record.root is None or record.kind != Kind.COMMIT:
            continue
        hashed = digest.digest() if sound else b""
        follows = _next(before, record, hashed)
        holds = bool(follows) and (record.chain, record.seq) == (follows, before[0] + 1)
        yield Link(
            record.seq, record.root, record.count, record.at, record.chain, first, record.lsn, tuple(txns), follows,
            holds, hashed, before,
        )  # fmt: skip
        before = record.seq, record.chain
        digest, txns, sound, first = sha256(), [], True, record.lsn + 1


def _joined(part: bytearray | None, row: Row) -> bytearray | None:
    own = canonical(row)
    if part is None or own is None:
        return None
    part += own
    return part


def _next(before: tuple[Any, Any], record: Record | Link, digest: bytes) -> bytes:
    if not digest or not is_number(before[0]):
        return b""
    return chain_or_none(before[1], (before[0] + 1, record.root, record.count, record.at), digest) or b""


def _surplus(log: Log, store_id: bytes, end: int) -> Changes:
    """Return that the rows behind the end of the log are none, unless there is a commit among them that holds."""
    rows = [row[0] for row in log() if row[0] > end]
    if rows and any(link.holds and link.lsn > end for link in follow(log(), store_id)):
        return {}
    return dict.fromkeys(rows)


def _spare(log: Log, store_id: bytes) -> Changes:
    """Return rows without what a record of their kind does not have, unless a commit would break by that."""
    found: Changes = {}
    for row in log():
        columns = _EMPTY.get(row[2], ())
        if isinstance(row[3], bytes) and isinstance(row[_CHAIN], bytes) and row[2] in _DIGESTED:
            columns = tuple(column for column in columns if column != _CHAIN)
        if any(row[column] is not None for column in columns):
            found[row[0]] = tuple(None if number in columns else part for number, part in enumerate(row))
    if not found:
        return {}
    broken = {link.lsn for link in _judge(log, store_id).broken}
    return found if {link.lsn for link in _judge(changed(log, found), store_id).broken} <= broken else {}


# By kind, the columns that are NULL (section 3.4). A time stands in the BEGIN of a staged transaction.
_EMPTY: Final[dict[Any, tuple[int, ...]]] = {
    Kind.BEGIN: (4, 5, 6, 7, 8, 9, 10, 12),
    Kind.PUT: (8, 9, 10, 11, 12, 13),
    Kind.DELETE: (6, 8, 9, 10, 11, 12, 13),
    Kind.COMMIT: (4, 5, 6, 7, 13),
    Kind.ROLLBACK: (4, 5, 6, 7, 8, 9, 10, 12, 13),
}


class _Judgement(NamedTuple):
    broken: list[Link]
    """Commits that do not hold."""
    newest: Link | None
    end: int
    """The greatest LSN."""
    cut: bool
    """What stands behind the newest commit is not all of staged transactions: a commit is missing there."""


def _judge(log: Log, store_id: bytes) -> _Judgement:
    broken, newest, last, odd = [], None, 0, 0

    def rows() -> Iterator[Row]:
        nonlocal last, odd
        for row in log():
            last = row[0]
            if not isinstance(row[3], bytes) or row[2] not in _STAGED:
                odd = last
            yield row

    for newest in follow(rows(), store_id):
        if not newest.holds:
            broken.append(newest)
    return _Judgement(broken, newest, last, odd > (newest.lsn if newest else 0))


_DIGESTED: Final = (Kind.BEGIN, Kind.PUT, Kind.DELETE)
_STAGED: Final = (*_DIGESTED, Kind.ROLLBACK)


# ---- From a backup ----


def _from_backup(log: Log, backup: Log, store_id: bytes, found: _Judgement, end: int) -> Changes:
    """Return the rows of the backup with which commits hold that did not, and no other stops to hold."""
    end = max(found.end, end)
    differing = {lsn: row for lsn, row in _differences(iter(log()), backup()) if lsn <= end}
    places = sorted(differing)
    txns = {row[1] for row in differing.values() if row is not None} | differing.keys()
    # The log of another history holds by itself too: only what was broken here is taken.
    known = {link.lsn for link in follow(log(), store_id) if link.holds}
    held = [
        link
        for link in follow(changed(log, differing)(), store_id)
        if link.holds and link.lsn not in known and (_between(places, link) or not txns.isdisjoint(link.txns))
    ]
    ends = [link.lsn for link in held]
    held_txns = {txn for link in held for txn in link.txns}
    taken: Changes = {}
    for lsn, row in differing.items():
        at = bisect_left(ends, lsn)
        if (at < len(held) and held[at].first <= lsn) or (row is not None and row[1] in held_txns):
            taken[lsn] = row
    after = _judge(changed(log, taken), store_id).broken
    return taken if {link.lsn for link in after} <= {link.lsn for link in found.broken} else {}


def _between(places: list[int], link: Link) -> bool:
    at = bisect_left(places, link.first)
    return at < len(places) and places[at] <= link.lsn


def _differences(ours: Iterator[Row], theirs: Iterable[Row]) -> Iterator[tuple[int, Row | None]]:
    """Yield where the other log differs, up to its end: the number and its row, None if it has none."""
    own = next(ours, None)
    for row in theirs:
        while own is not None and own[0] < row[0]:
            yield own[0], None
            own = next(ours, None)
        if own is None or own[0] > row[0]:
            yield row[0], row
            continue
        if own != row:
            yield row[0], row
        own = next(ours, None)


# ---- From the log itself ----


class _History:
    """What committed transactions did to some entries, in order.

    Args:
        log: the log.
        names: collection and key of the entries.
        doubted: transactions of commits that do not hold.
        current: gives the values of entries as they are.
    """

    def __init__(self, log: Log, names: set[tuple[Any, Any]], doubted: set[Any], current: Current) -> None:
        self._rows: dict[tuple[Any, Any], list[Row]] = {}
        self._doubted = doubted
        self._current = current
        committed_ = {row[1] for row in log() if row[2] == Kind.COMMIT}
        for row in log():
            name = row[4], row[5]
            if row[2] in (Kind.PUT, Kind.DELETE) and row[1] in committed_ and is_entry_name(*name) and name in names:
                self._rows.setdefault(name, []).append(row)

    def others(self, row: Row) -> tuple[list[tuple[Any, bool]], list[tuple[Any, bool]]]:
        """Return what else *value* and *before* of a row can have been, and whether commits that hold say so."""
        name = row[4], row[5]
        rows = self._rows.get(name, [])
        at = next((number for number, each in enumerate(rows) if each[0] == row[0]), None)
        if at is None:
            return [], []
        before = (rows[at - 1][6], rows[at - 1][1] not in self._doubted) if at else (None, True)
        if at + 1 < len(rows):
            value = rows[at + 1][7], rows[at + 1][1] not in self._doubted
        else:
            value = self._current(*name), False
        return [value] * (value[0] != row[6]), [before] * (before[0] != row[7])


def _digests(log: Log, store_id: bytes) -> Changes:
    """Return rows with their digests, of staged transactions in commits that hold: those say what the rows are."""
    held = {txn for link in follow(log(), store_id) if link.holds for txn in link.txns}
    found: Changes = {}
    digests: dict[Any, bytes] = {}
    for row in log():
        if row[2] not in _DIGESTED or row[1] not in held or not isinstance(row[3], bytes):
            continue
        body = canonical(row)
        if body is None or (row[1] not in digests and row[_CHAIN] is None):
            continue
        digests[row[1]] = digest = staged_digest(digests.get(row[1], fmt.STAGED_ZERO), row[3], body)
        if row[_CHAIN] != digest:
            found[row[0]] = (*row[:_CHAIN], digest, *row[_CHAIN + 1 :])
    return found


def _from_neighbours(log: Log, broken: list[Link], current: Current) -> Changes:
    """Return rows with values that the records around them tell, with which broken commits hold."""
    wanted = {txn for link in broken for txn in link.txns}
    rows: dict[Any, list[Row]] = {}
    for row in log():
        if isinstance(row[1], int) and row[1] in wanted:
            rows.setdefault(row[1], []).append(row)
    names = {(row[4], row[5]) for each in rows.values() for row in each if is_entry_name(row[4], row[5])}
    history = _History(log, names, wanted, current)
    found: Changes = {}
    for link in broken:
        for row in _solved(link, [row for txn in link.txns for row in rows.get(txn, [])], history):
            found[row[0]] = row
    return found


def _solved(link: Link, rows: list[Row], history: _History) -> list[Row]:
    """Return the rows to be changed so that the commit holds; none if it cannot be found out.

    Taken are the values that commits which hold say, those that all neighbours say, and each change of one row more.
    """
    sure, told = list(rows), list(rows)
    single: list[tuple[int, Row]] = []
    for number, row in enumerate(rows):
        if row[2] not in (Kind.PUT, Kind.DELETE):
            continue
        values, befores = history.others(row)
        pairs = product([row[6], *(each for each, _ in values)], [row[7], *(each for each, _ in befores)])
        forms = [(*row[:6], value, before, *row[8:]) for value, before in pairs]
        single += [(number, form) for form in forms[1:]]
        told[number] = forms[-1]
        held = [
            ([value for value, holds in pairs if holds] or [row[at]])[0] for at, pairs in ((6, values), (7, befores))
        ]
        sure[number] = (*row[:6], *held, *row[8:])
    most = max(8, _TRIES_ROWS // (len(rows) or 1))
    for base in (sure, told, rows):
        for found in islice(_each_changed(base, single), most):
            if _would_hold(link, found):
                return [row for row, was in zip(found, rows, strict=True) if row != was]
    return []


def _each_changed(base: list[Row], single: list[tuple[int, Row]]) -> Iterator[list[Row]]:
    """Yield *base*, and *base* with each one of its rows in another form."""
    yield base
    for number, form in single:
        yield [*base[:number], form, *base[number + 1 :]]


def _would_hold(link: Link, rows: list[Row]) -> bool:
    """Return True if the commit holds with *rows*."""
    parts = [part for part in map(canonical, rows) if part is not None]
    follows = _next(link.before, link, sha256(b"".join(parts)).digest())
    return len(parts) == len(rows) and bool(follows == link.chain)


def _chains(log: Log, store_id: bytes) -> Changes:
    """Return rows of commits whose recorded chain alone is wrong: the commit behind holds with the one that follows."""
    found: Changes = {}
    wrong: dict[int, bytes] = {}
    last: Link | None = None
    for link in follow(log(), store_id):
        if last is not None and not last.holds and last.follows and not link.holds and link.digest:
            seq = last.before[0] + 1
            if _next((seq, last.follows), link, link.digest) == link.chain:
                wrong[last.lsn] = last.follows
        last = link
    for row in log() if wrong else ():
        if row[0] in wrong:
            found[row[0]] = (*row[:_CHAIN], wrong[row[0]], *row[_CHAIN + 1 :])
    return found


def _newest(log: Log, newest: Link | None, entries: Entries) -> Changes:
    """Return the row that closes the newest commit with root and count of the entries, if the commit holds then."""
    if newest is None or newest.holds or not newest.digest:
        return {}
    heads = [(root, count) for root, count in [(newest.root, newest.count), *entries.heads()] if is_number(count)]
    for root, count in heads:
        for each in (newest.count, count):
            mended = newest._replace(root=root, count=each)
            if _next(newest.before, mended, newest.digest) == newest.chain:
                row = next(row for row in log() if row[0] == newest.lsn)
                return {newest.lsn: (*row[:_ROOT], root, each, *row[_ROOT + 2 :])}
    return {}


_ROOT: Final = Record._fields.index("root")
_CHAIN: Final = Record._fields.index("chain")


def head_of(newest: Link | None, store_id: bytes, created: str) -> Head | None:
    """Return the newest commit as it is recorded, that before the first without one; None if it is none at all."""
    if newest is None:
        return Head(0, EMPTY_ROOT, 0, created, chain_zero(store_id))
    return newest.head if HEAD.fits(newest.head) else None


# ---- Values ----


def committed(rows: Iterable[Row]) -> Iterator[list[tuple[Any, Any, Any]]]:
    """Yield what each transaction that was committed changed: (collection, key, value), None for no entry."""
    open_: dict[Any, list[tuple[Any, Any, Any]]] = {}
    for row in rows:
        _, txn, kind, _, collection, key, value, *_ = row
        if kind in (Kind.PUT, Kind.DELETE):
            open_.setdefault(txn, []).append((collection, key, value if kind == Kind.PUT else None))
        elif kind == Kind.ROLLBACK:
            open_.pop(txn, None)
        elif kind == Kind.COMMIT:
            yield open_.pop(txn, [])
