"""Repairs records of the log, as far as the commit chain then holds (docs/reference/file-format.md, section 7).

What a record was may stand in three more places: in a backup; in the record before or after of the same entry, for
each value is the next one's `before`; and, for the newest, in the entry itself. Whatever is put in its place, the
chain digest that the commit recorded must follow from it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from heapq import merge
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import Leaf, as_leaf, leaf_of
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import Head, Kind, logged, marks_of, staged_digest
from sqlstate.tables.raw_rows import (
    HEAD,
    RawRecord,
    canonical,
    chain_or_none,
    is_entry_name,
    is_number,
    is_stored,
    record_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlstate.format.names import Key, Stored

# How many records may be hashed in trying what a commit was made of.
_TRIES_ROWS: Final = 200_000

Log = Callable[[], Iterable[RawRecord]]
"""Gives the records of a log in order."""
Base = tuple[int, bytes]
"""seq and chain of the commit behind which a log begins."""
Changes = dict[int, RawRecord | None]
"""By LSN, what the record is to be; None for no record."""


class Entries(NamedTuple):
    """The entries as they are, right or wrong."""

    value: Callable[[str, Key], Stored | None]
    """Gives the stored value of an entry; None if the store lacks it."""
    head: Callable[[], tuple[bytes, int]]
    """Gives their root and count."""


class Backup(NamedTuple):
    """The log of a backup."""

    log: Log
    since: int
    """The last record that was cut, here or there: both logs begin behind it."""


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


class LogRepair(NamedTuple):
    """What is to be done about the log."""

    changes: Changes
    newest: Link | None
    """The newest commit after that; None before the first."""
    broken: tuple[Link, ...]
    """Commits whose chain does not hold even then."""
    end: int
    """The greatest LSN after that."""
    cut: bool
    """The newest commit is missing: the last records belong to no commit."""


def changed(log: Log, changes: Mapping[int, RawRecord | None]) -> Log:
    """Return *log* with *changes* made."""

    def rows() -> Iterator[RawRecord]:
        kept = (record for record in log() if record.lsn not in changes)
        put = sorted((record for record in changes.values() if record is not None), key=attrgetter("lsn"))
        return merge(kept, put, key=attrgetter("lsn"))

    return rows if changes else log


def plan(log: Log, backup: Backup | None, base: Base, end: int, entries: Entries) -> LogRepair:
    """Return what can be done about a log.

    Args:
        log: the log.
        backup: that of a backup, which need not be sound, or of the same time; None without one.
        base: the commit behind which the log begins.
        end: where the log must end, by what was recorded elsewhere; 0 if that is not known.
        entries: as they are, right or wrong.
    """
    changes: Changes = _surplus(log, base, end) if end else {}
    changes |= _spare(changed(log, changes), base)
    found = _judge(changed(log, changes), base)
    if backup is not None and (found.broken or found.cut or found.end < end):
        changes |= _from_backup(changed(log, changes), backup, base, found, end)
        found = _judge(changed(log, changes), base)
    while found.broken:
        more = _from_neighbours(changed(log, changes), found.broken, entries, whole=not base[0])
        if not more:
            break
        changes |= more  # what holds now tells more about the others
        found = _judge(changed(log, changes), base)
    if found.broken:
        changes |= _chains(changed(log, changes), base)
        changes |= _newest(changed(log, changes), found.newest, entries)
        found = _judge(changed(log, changes), base)
    changes |= _digests(changed(log, changes), base)
    return LogRepair(changes, found.newest, tuple(found.broken), found.end, found.cut)


def follow(rows: Iterable[RawRecord], base: Base) -> Iterator[Link]:
    """Yield the commits of a log, however damaged it is."""
    before: tuple[Any, Any] = base
    open_: dict[Any, bytearray | None] = {}  # canonical bytes by transaction, None if a record has none
    digest, txns, sound, first = sha256(), [], True, fmt.INT_MIN
    for record in rows:
        open_[record.txn] = _joined(open_.get(record.txn, bytearray()), record)
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


def _joined(part: bytearray | None, record: RawRecord) -> bytearray | None:
    own = canonical(record)
    if part is None or own is None:
        return None
    part += own
    return part


def _next(before: tuple[Any, Any], record: RawRecord | Link, digest: bytes) -> bytes:
    if not digest or not is_number(before[0]):
        return b""
    return chain_or_none(before[1], (before[0] + 1, record.root, record.count, record.at), digest) or b""


def _surplus(log: Log, base: Base, end: int) -> Changes:
    """Return that the rows behind the end of the log are to go, unless there is a commit among them that holds."""
    rows = [record.lsn for record in log() if record.lsn > end]
    if rows and any(link.holds and link.lsn > end for link in follow(log(), base)):
        return {}
    return dict.fromkeys(rows)


def _spare(log: Log, base: Base) -> Changes:
    """Return records without what one of their kind cannot have, unless a commit would break by that."""
    found: Changes = {}
    for record in log():
        table = record_table(record.kind, record.digests)
        spared = record if table is None else RawRecord(*table.spared(record))
        if record.session is None and record.kind in _DIGESTED:
            spared = spared._replace(chain=None)
        if spared != record:
            found[record.lsn] = spared
    if not found:
        return {}
    broken = {link.lsn for link in _judge(log, base).broken}
    return found if {link.lsn for link in _judge(changed(log, found), base).broken} <= broken else {}


class _Judgement(NamedTuple):
    broken: list[Link]
    """Commits that do not hold."""
    newest: Link | None
    end: int
    """The greatest LSN."""
    cut: bool
    """What stands behind the newest commit is not all of staged transactions: a commit is missing there."""


def _judge(log: Log, base: Base) -> _Judgement:
    broken, newest, last, odd = [], None, 0, 0

    def rows() -> Iterator[RawRecord]:
        nonlocal last, odd
        for record in log():
            last = record.lsn
            if not isinstance(record.session, bytes) or record.kind not in _STAGED:
                odd = last
            yield record

    for newest in follow(rows(), base):
        if not newest.holds:
            broken.append(newest)
    return _Judgement(broken, newest, last, odd > (newest.lsn if newest else 0))


_CHANGES: Final = (Kind.PUT, Kind.DELETE)
_DIGESTED: Final = (Kind.BEGIN, Kind.PUT, Kind.DELETE)
_STAGED: Final = (*_DIGESTED, Kind.ROLLBACK)
_OTHERS: Final = tuple(field for field in RawRecord._fields if field not in ("before", "value", "digests"))


# ---- From a backup ----


def _from_backup(log: Log, backup: Backup, base: Base, found: _Judgement, end: int) -> Changes:
    """Return the rows of the backup with which commits hold that did not, and no other stops to hold."""
    end = max(found.end, end)
    own, their = ((row for row in each() if not 0 < row.lsn <= backup.since) for each in (log, backup.log))
    differing = {lsn: record for lsn, record in _differences(own, their) if lsn <= end}
    places = sorted(differing)
    txns = {record.txn for record in differing.values() if record is not None} | differing.keys()
    # The log of another history holds by itself too: only what was broken here is taken.
    known = {link.lsn for link in follow(log(), base) if link.holds}
    held = [
        link
        for link in follow(changed(log, differing)(), base)
        if link.holds and link.lsn not in known and (_between(places, link) or not txns.isdisjoint(link.txns))
    ]
    ends = [link.lsn for link in held]
    held_txns = {txn for link in held for txn in link.txns}
    taken: Changes = {}
    for lsn, record in differing.items():
        at = bisect_left(ends, lsn)
        if (at < len(held) and held[at].first <= lsn) or (record is not None and record.txn in held_txns):
            taken[lsn] = record
    after = _judge(changed(log, taken), base).broken
    return taken if {link.lsn for link in after} <= {link.lsn for link in found.broken} else {}


def _between(places: list[int], link: Link) -> bool:
    at = bisect_left(places, link.first)
    return at < len(places) and places[at] <= link.lsn


def _differences(ours: Iterator[RawRecord], theirs: Iterable[RawRecord]) -> Iterator[tuple[int, RawRecord | None]]:
    """Yield where the other log differs, up to its end: the LSN and its record, None if it has none."""
    own = next(ours, None)
    for record in theirs:
        while own is not None and own.lsn < record.lsn:
            yield own.lsn, None
            own = next(ours, None)
        if own is None or own.lsn > record.lsn:
            yield record.lsn, record
            continue
        wanted = record
        if own != record and own.name == record.name and own.kind in _CHANGES:
            others = {each: getattr(record, each) for each in _OTHERS}
            wanted = _with(own._replace(**others), *_logged(record))
        if own != wanted:
            yield record.lsn, wanted
        own = next(ours, None)


# ---- From the log itself ----


def _from_neighbours(log: Log, broken: list[Link], entries: Entries, *, whole: bool) -> Changes:
    """Return records with the values that those around them tell, with which broken commits hold.

    In a log that is *whole*, no entry was there before its first record.
    """
    wanted = {txn for link in broken for txn in link.txns}
    rows: dict[Any, list[RawRecord]] = {}
    history: dict[tuple[Any, Any], list[RawRecord]] = {}  # committed changes of the same entries
    for record in log():
        if record.txn in wanted:
            rows.setdefault(record.txn, []).append(record)
            if record.kind in _CHANGES:
                history[record.name] = []
    committed = {record.txn for record in log() if record.kind == Kind.COMMIT}
    for record in log():
        if record.kind in _CHANGES and record.txn in committed and record.name in history:
            history[record.name].append(record)
    found: Changes = {}
    for link in broken:
        own = [record for txn in link.txns for record in rows.get(txn, [])]
        sure, told = (
            [
                _told(each, history[each.name], doubted, entries, whole=whole) if each.kind in _CHANGES else each
                for each in own
            ]
            for doubted in (wanted, set())
        )
        solved = _solved(link, sure, told) or own
        found |= {record.lsn: record for record, was in zip(solved, own, strict=True) if record != was}
    return found


def _solved(link: Link, sure: list[RawRecord], told: list[RawRecord]) -> list[RawRecord] | None:
    """Return the records with which a commit holds; None if they are not found out.

    Tried are the values that commits tell which hold, those that all tell, and each one of these among the first.
    """
    single = ([*sure[:at], each, *sure[at + 1 :]] for at, each in enumerate(told) if each != sure[at])
    tries = islice(chain((sure, told), single), max(8, _TRIES_ROWS // (len(sure) or 1)))
    return next((records for records in tries if _would_hold(link, records)), None)


def _told(
    record: RawRecord, history: list[RawRecord], doubted: set[Any], entries: Entries, *, whole: bool
) -> RawRecord:
    """Return a record with the values that those before and after it of the same entry tell.

    Without doubted transactions, the entry as it is tells the newest value.
    """
    at = next(number for number, each in enumerate(history) if each.lsn == record.lsn)
    before, after = history[:at][-1:], history[at + 1 : at + 2]
    old, new = _logged(record)
    if not before:
        old = None if whole else old
    elif before[0].txn not in doubted:
        old = _logged(before[0])[1]
    if after and after[0].txn not in doubted:
        new = _logged(after[0])[0]
    elif not after and not doubted:
        new = entries.value(*record.name)
    return _with(record, old, new)._replace(kind=str(Kind.DELETE if new is None else Kind.PUT))


def _logged(record: RawRecord) -> tuple[Any, Any]:
    return logged(record.before, record.value, record.digests)


def _with(record: RawRecord, before: Any, value: Any) -> RawRecord:
    """Return a record with other values. Where it has a digest it gets one: what was taken out stays out."""
    if is_entry_name(*record.name):
        raw, was = name_bytes(stored_name(*record.name)), _logged(record)
        before, value = (_as_before(raw, *pair) for pair in zip(was, (before, value), strict=True))
    old, new = (bytes(each) if type(each) is Leaf else each for each in (before, value))
    return record._replace(before=old, value=new, digests=marks_of(before, value))


def _as_before(raw: bytes, old: Any, new: Any) -> Any:
    """Return a new value in the form of the old one: a digest, or a value."""
    if not is_stored(new) and type(new) is not Leaf:
        return new
    digest = leaf_of(raw, new)
    if type(old) is Leaf:
        return as_leaf(digest)
    return old if is_stored(old) and leaf_of(raw, old) == digest else new


def _digests(log: Log, base: Base) -> Changes:
    """Return rows with their digests, of staged transactions in commits that hold: those say what the rows are."""
    held = {txn for link in follow(log(), base) if link.holds for txn in link.txns}
    found: Changes = {}
    digests: dict[Any, bytes] = {}
    for record in log():
        txn, session = record.txn, record.session
        if record.kind not in _DIGESTED or txn not in held or not isinstance(session, bytes):
            continue
        body = canonical(record)
        if body is None or (txn not in digests and record.chain is None):
            continue
        digests[txn] = digest = staged_digest(digests.get(txn, fmt.STAGED_ZERO), session, body)
        if record.chain != digest:
            found[record.lsn] = record._replace(chain=digest)
    return found


def _would_hold(link: Link, records: list[RawRecord]) -> bool:
    """Return True if the commit holds with *records*."""
    parts = [part for part in map(canonical, records) if part is not None]
    follows = _next(link.before, link, sha256(b"".join(parts)).digest())
    return len(parts) == len(records) and bool(follows == link.chain)


def _chains(log: Log, base: Base) -> Changes:
    """Return rows of commits whose recorded chain alone is wrong: the commit behind holds with the one that follows."""
    wrong: dict[int, bytes] = {}
    last: Link | None = None
    for link in follow(log(), base):
        if last is not None and not last.holds and last.follows and not link.holds and link.digest:
            seq = last.before[0] + 1
            if _next((seq, last.follows), link, link.digest) == link.chain:
                wrong[last.lsn] = last.follows
        last = link
    records = log() if wrong else ()
    return {each.lsn: each._replace(chain=wrong[each.lsn]) for each in records if each.lsn in wrong}


def _newest(log: Log, newest: Link | None, entries: Entries) -> Changes:
    """Return the record that closes the newest commit with root and count of the entries, if the commit holds then."""
    if newest is None or newest.holds or not newest.digest:
        return {}
    root, count = entries.head()
    if _next(newest.before, newest._replace(root=root, count=count), newest.digest) != newest.chain:
        return {}
    return {each.lsn: each._replace(root=root, count=count) for each in log() if each.lsn == newest.lsn}


def head_of(newest: Link | None, start: Head) -> Head | None:
    """Return the newest commit as it is recorded, *start* without one; None if its record is malformed."""
    if newest is None:
        return start
    return newest.head if HEAD.fits(newest.head) else None
