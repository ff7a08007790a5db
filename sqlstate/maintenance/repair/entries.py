"""Finds out what entries and nodes must be, by the root that the newest commit recorded.

Where a proven leaf has no row, the values in the log and in a backup are tried: what has its digest is the entry.
Nodes are made again from the proven tree, and rows that it proves absent are removed. What cannot be proven stays as
it is, and is named.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import FIRST, leaf, node_digest
from sqlstate.format.names import Name, Stored, name_bytes
from sqlstate.format.records import logged
from sqlstate.maintenance.proven_tree import Comparison, Content, between, committed, entry_name
from sqlstate.tables.raw_rows import are_children, is_level, is_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlstate.format.records import Head
    from sqlstate.maintenance.proven_tree import Slot, Stray
    from sqlstate.tables.raw_rows import RawRecord


class Lost(NamedTuple):
    """Something that cannot be proven: it is as it was."""

    collection: Any
    key: Any


class EntryRepair(NamedTuple):
    """What is to be done to the tables state and merkle."""

    puts: tuple[tuple[Name, Stored], ...] = ()
    removes: tuple[tuple[Any, Any], ...] = ()
    """Collection and key of rows to be removed, as they are stored."""
    node_deletes: tuple[int, ...] = ()
    node_inserts: tuple[tuple[int, Name, bytes], ...] = ()
    nodes: int = 0
    """Nodes that are to be changed, inserted or removed."""
    lost: tuple[Lost | str, ...] = ()
    another: bool = False
    """Entries and nodes agree with each other on another root."""
    hopeless: bool = False
    """Nothing that was found has the root."""


def plan(ours: Content, backup: Content | None, head: Head) -> EntryRepair:
    """Return what is to be done so that the entries have the root of *head*.

    Args:
        ours: the damaged store's tables; records already as repaired.
        backup: those of a backup, which are not trusted.
        head: the newest commit.
    """
    found = Comparison(ours, head, backup)
    if found.tree.nothing:
        return EntryRepair(hopeless=True)
    puts = _search(found, ours, backup)
    order, gaps = found.order()
    removes, kept = _sorted_strays(found, puts, order, gaps)
    deletes, inserts, nodes = _node_changes(ours, found, complete=not gaps)
    return EntryRepair(
        tuple(sorted(puts, key=lambda entry: entry[0])),
        tuple(removes),
        tuple(deletes),
        tuple(inserts),
        nodes,
        tuple(_lost(found, ours, order, gaps, kept)),
        another=found.another is not None,
    )


def _search(found: Comparison, ours: Content, backup: Content | None) -> list[tuple[Name, Stored]]:
    """Return the entries that have missing leaves, as the log or the backup tells them."""
    puts: list[tuple[Name, Stored]] = []
    for collection, key, value in _candidates(ours, backup):
        if not found.missing:
            break
        name = entry_name(collection, key)
        if name is None or not is_stored(value):
            continue
        digest = leaf(name_bytes(name), value)
        if digest in found.missing:
            found.found(digest, name)
            puts.append((name, value))
    return puts


def _candidates(ours: Content, backup: Content | None) -> Iterator[tuple[Any, Any, Any]]:
    yield from _recorded(ours.records())
    if backup is not None:
        yield from backup.entries()
        yield from _recorded(backup.records())


def _recorded(records: Iterable[RawRecord]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield what records say of entries: values, and values before. Those that are digests are none."""
    for record in records:
        if record.collection is not None:
            before, value = logged(record.before, record.value, record.digests)
            yield record.collection, record.key, value
            yield record.collection, record.key, before


# ---- What stays lost ----


def _sorted_strays(
    found: Comparison, puts: list[tuple[Name, Stored]], order: list[Name], gaps: dict[int, list[Slot]]
) -> tuple[list[tuple[Any, Any]], list[tuple[Stray, int]]]:
    """Return the rows that the tree proves absent, and those that may be a lost entry's, with their gap."""
    put = {name for name, _ in puts}
    places = {(collection, key) for collection, _, key in put}
    removes: list[tuple[Any, Any]] = []
    kept: list[tuple[Stray, int]] = []
    for row in found.strays:
        if row.name in put:
            continue
        at = -1 if row.name is None else bisect_left(order, row.name)
        # A key 1.0 is no entry's, and SQLite takes it for 1.
        in_the_way = row.name is None and (row.collection, row.key) in places
        if ((row.name is None and gaps) or at in gaps) and not in_the_way:
            kept.append((row, at))
        else:
            removes.append((row.collection, row.key))
    return removes, kept


def _lost(
    found: Comparison, ours: Content, order: list[Name], gaps: dict[int, list[Slot]], kept: list[tuple[Stray, int]]
) -> list[Lost | str]:
    """Name what stays lost."""
    lost: list[Lost | str] = [Lost(row.collection, row.key) for row, _ in kept]
    nameless = {gap: sum(slot.count for slot in slots) for gap, slots in gaps.items()}
    for _, at in kept:
        if at in nameless:
            nameless[at] -= 1
    logged = _logged(found, ours, order, {gap for gap, count in nameless.items() if count > 0})
    for gap, count in nameless.items():
        names = logged.get(gap, [])
        if len(names) == count:
            lost += [Lost(name[0], name[2]) for name in names]
        elif count > 0:
            what = "1 entry" if count == 1 else f"{count:,} entries"
            lost.append(f"{what} {between(order, gap)}")
    return lost


def _logged(found: Comparison, ours: Content, order: list[Name], gaps: set[int]) -> dict[int, list[Name]]:
    """Return the names of entries that the log has in *gaps*, and that no row has."""
    there: dict[Name, bool] = {}
    strays = {row.name for row in found.strays}
    for changes in committed(ours.records()) if gaps else ():
        for collection, key, value in changes:
            name = entry_name(collection, key)
            if name is not None and name not in strays:
                there[name] = value is not None
    spans = sorted(found.clean.values())
    by_gap: dict[int, list[Name]] = {}
    for name in sorted(name for name, is_there in there.items() if is_there):
        at = bisect_left(order, name)
        if at in gaps and not (at < len(order) and order[at] == name) and not _is_within(spans, name):
            by_gap.setdefault(at, []).append(name)
    return by_gap


def _is_within(spans: list[tuple[Name, Name]], name: Name) -> bool:
    at = bisect_left(spans, (name, name))
    return any(first <= name <= last for first, last in spans[max(0, at - 1) : at + 1])


# ---- Nodes ----


def _node_changes(
    ours: Content, found: Comparison, *, complete: bool
) -> tuple[list[int], list[tuple[int, Name, bytes]], int]:
    """Return the rows of nodes to be deleted, the nodes to be inserted, and how many nodes that concerns."""
    names = found.node_names()
    right: set[tuple[int, Name]] = set()
    deletes: list[int] = []
    wrong: set[tuple[Any, Any] | int] = set()
    for id_, level, collection, key, children in ours.nodes():
        name = FIRST if (collection, key) == ("", "") else entry_name(collection, key)
        place = (level, name)
        digest = node_digest(level, children) if is_level(level) and are_children(children) else b""
        known = names.get(place)  # type: ignore[arg-type]
        if known and known == digest and place not in right and id_ >> fmt.NODE_ID_SHIFT == fmt.LEVEL_MAX - level:
            right.add(place)  # type: ignore[arg-type]
        elif complete or known:
            deletes.append(id_)
            wrong.add(place if known else id_)
    inserts = [
        (level, name, found.tree.children(digest))
        for (level, name), digest in names.items()
        if (level, name) not in right
    ]
    return deletes, inserts, len(wrong | {(level, name) for level, name, _ in inserts})
