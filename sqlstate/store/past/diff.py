"""The differences between two states, found in the subtrees whose digests differ."""

from __future__ import annotations

from heapq import merge
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate.errors import InvalidOption
from sqlstate.store.access import entries_of
from sqlstate.store.entries import StoreEntries
from sqlstate.store.past import change
from sqlstate.store.past.at import OpenPast
from sqlstate.store.snapshot import OpenSnapshot
from sqlstate.tables import merkle_diff, wal_changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.format.names import Key, Name
    from sqlstate.store.past.at import PastView
    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.store import Store


class Difference(NamedTuple):
    """An entry that differs between two states: a named tuple.

    Examples:
        >>> store["settings"]["lang"] = "fr"
        >>> [difference] = sqlstate.diff(store.at(0), store)
        >>> difference.collection, difference.key, difference.a, difference.b
        ('settings', 'lang', ABSENT, 'fr')
    """

    collection: str
    """Name of the entry's collection."""
    key: Key
    """Key of the entry."""
    a: Any
    """Value in the first state, ABSENT for none; or REDACTED, in a view of the past whose log has its digest alone."""
    b: Any
    """Value in the second state, likewise."""


def diff(a: Store | Snapshot | PastView, b: Store | Snapshot | PastView) -> Iterator[Difference]:
    """Yield the entries that differ between two states, in order: of one store, or of two.

    Values are compared as they are stored, so 1 and 1.0 differ. Of a store, the newest commit at the first step is
    taken, and held until the end as by a snapshot.

    Cost: for each entry that differs, a node a level of both trees. It keeps the names of some subtrees in memory.

    Args:
        a: a store, snapshot or view of the past.
        b: another one.

    Raises:
        InvalidOption: one of the two is none of these.
        Damaged: while iterating: a node or an entry is not what the tree says.
        TransactionEnded, StoreClosed: while iterating: one of the two has ended.

    Examples:
        >>> store["users"].update({1: "ada", 2: "bob"})
        >>> with store.snapshot() as before:
        ...     store["users"][2] = "bea"
        ...     for difference in sqlstate.diff(before, store):
        ...         print(difference.collection, difference.key, difference.a, difference.b)
        users 2 bob bea
    """
    return _diff(_source(a), _source(b))


def _source(state: Store | Snapshot | PastView) -> StoreEntries | OpenSnapshot:
    entries = entries_of(state) if hasattr(state, "_entries") else None
    if not isinstance(entries, StoreEntries | OpenSnapshot):
        raise InvalidOption(f"{state!r} is not a store, a snapshot or a view of the past")
    return entries


def _diff(a: StoreEntries | OpenSnapshot, b: StoreEntries | OpenSnapshot) -> Iterator[Difference]:
    taken: list[OpenSnapshot] = []
    try:
        taken.extend(each.snapshot() if isinstance(each, StoreEntries) else each for each in (a, b))
        for name in _names(*taken):
            before, after = (each.get_logged(name) for each in taken)
            if not wal_changes.same(name, before, after):
                yield Difference(name[0], name[2], *(change.shown_as(name, each) for each in (before, after)))
    except GeneratorExit:  # it may be the garbage collector's, which closes nothing: the next reader takes all back
        raise
    except BaseException:
        _end(a, b, taken)
        raise
    _end(a, b, taken)


def _end(a: StoreEntries | OpenSnapshot, b: StoreEntries | OpenSnapshot, taken: list[OpenSnapshot]) -> None:
    for given, snapshot in zip((a, b), taken, strict=False):  # the second may not have been taken
        if snapshot is not given:
            snapshot.close()


def _names(a: OpenSnapshot, b: OpenSnapshot) -> Iterator[Name]:
    """Yield the names of all entries that may differ, in order."""
    in_trees = merkle_diff.differing(*(merkle_diff.Tree(each.reader(), each.newest.root) for each in (a, b)))
    changed = {name for each in (a, b) if isinstance(each, OpenPast) for name in each.changed}
    return (name for name, _ in groupby(merge(in_trees, sorted(changed))))
