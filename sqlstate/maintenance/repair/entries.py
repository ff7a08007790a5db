"""Finds out what entries and nodes must be, by the root that the newest commit recorded.

A node is proven when its digest is the root, or stands in a node that is proven; an entry, when its leaf stands in
such a node of level 1. Where a digest is known and nothing stored has it, what could have it is looked for: nodes
over the entries as they are, over those that the log tells, over those of a backup; values in the log and in the
backup. A name is part of the leaf, so what has the right digest is the right entry, wherever it was found.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import FIRST, leaf, node_digest, rank
from sqlstate.format.names import Name, Stored, name_bytes
from sqlstate.maintenance.repair.log import committed
from sqlstate.maintenance.repair.proven_tree import (
    NO_LEAF,
    Content,
    ProvenNode,
    ProvenTree,
    TreeShape,
    entry_name,
    is_node,
    leaves_of,
    pairs_of,
)
from sqlstate.tables.raw_rows import is_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Row


class Lost(NamedTuple):
    """Something that cannot be proven: it is as it was."""

    collection: Any
    key: Any


class Mending(NamedTuple):
    """What is to be done."""

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


class _Slot(NamedTuple):
    """A place in the order of the entries: one entry, or *count* that nobody can name."""

    name: Name | None
    count: int = 1  # type: ignore[assignment]


def mend(ours: Content, backup: Content | None, head: Head) -> Mending:
    """Return what is to be done so that the entries have the root of *head*.

    Args:
        ours: the damaged store's tables; records already as mended.
        backup: those of a backup, which are not trusted.
        head: the newest commit.
    """
    tree = ProvenTree(head.root, head.count)
    tree.learn_rows(ours.nodes())
    another = tree.learn_entries(leaves_of(ours.entries()))
    if backup is not None:
        tree.learn_rows(backup.nodes())
    if not tree.walk():
        tree.learn_entries(_replayed(ours.records()))
        if backup is not None and not tree.walk():
            tree.learn_entries(leaves_of(backup.entries()))
        tree.walk()
    if tree.nothing:
        return Mending(hopeless=True)
    finding = _Finding(tree, ours, backup)
    return finding.mending()._replace(another=another)


class _Finding:
    """Compares the entries with the proven leaves, and looks for those that are missing."""

    def __init__(self, tree: ProvenTree, ours: Content, backup: Content | None) -> None:
        self._tree = tree
        self._ours = ours
        self._backup = backup
        self._clean: dict[bytes, tuple[Name, Name]] = {}  # runs that are right, by digest: first and last name
        self._names: dict[bytes, Name] = {}  # by leaf, in the other runs: entries that are right, or were found
        self._found: dict[bytes, tuple[Name, Stored]] = {}
        self._strays: list[tuple[Any, Any, Name | None]] = []  # rows that nothing proves
        self._spans: list[tuple[Name, Name]] | None = None
        self._sort_rows()
        self._missing = {digest for part in self._dirty() for _, digest in pairs_of(tree.children(part.digest))}
        self._match()
        self._search()

    def _dirty(self) -> Iterator[ProvenNode]:
        return (p for p in self._tree.parts if p.level == 1 and not p.hole and p.digest not in self._clean)

    def _sort_rows(self) -> None:
        """Set the runs aside that are right as they are."""
        proven = {part.digest for part in self._tree.parts if part.level == 1 and not part.hole}
        run: list[tuple[Any, Any, Name | None, bytes]] = []
        self._rows: list[tuple[Any, Any, Name | None, bytes]] = []

        def close(_: int, digest: bytes, __: bytes) -> None:
            named = [row[2] for row in run if row[2] is not None]
            if digest in proven and len(named) == len(run):
                self._clean[digest] = named[0], named[-1]
            else:
                self._rows.extend(run)
            run.clear()

        shape = TreeShape(close, top=1)
        for collection, key, value in self._ours.entries():
            name = entry_name(collection, key)
            raw = b"" if name is None else name_bytes(name)
            digest = NO_LEAF if name is None or not is_stored(value) else leaf(raw, value)
            if name is not None:
                shape.add(digest, rank(raw))
            run.append((collection, key, name, digest))
        shape.finish()
        self._rows.extend(run)

    def _match(self) -> None:
        for collection, key, name, digest in self._rows:
            if name is not None and digest in self._missing:
                self._missing.discard(digest)
                self._names[digest] = name
            else:
                self._strays.append((collection, key, name))
        self._rows.clear()

    # ---- Looking for what is missing ----

    def _search(self) -> None:
        for name, value in self._candidates():
            if not self._missing:
                return
            self._try(name, value)

    def _try(self, name: Name | None, value: Any) -> None:
        if name is None or not is_stored(value):
            return
        digest = leaf(name_bytes(name), value)
        if digest in self._missing:
            self._missing.discard(digest)
            self._names[digest] = name
            self._found[digest] = name, value

    def _candidates(self) -> Iterator[tuple[Name | None, Any]]:
        """Yield entries as they may have been, likely ones first."""
        if not self._missing:
            return
        yield from _recorded(self._ours.newest())
        if self._backup is not None:
            yield from ((entry_name(collection, key), value) for collection, key, value in self._backup.entries())
            yield from _recorded(self._backup.newest())

    def _in_clean(self, name: Name) -> bool:
        if self._spans is None:
            self._spans = sorted(self._clean.values())
        at = bisect_left(self._spans, (name, name))
        return any(first <= name <= last for first, last in self._spans[max(0, at - 1) : at + 1])

    # ---- What it means ----

    def mending(self) -> Mending:
        """Return what is to be done."""
        slots = list(self._slots())
        removes, kept = self._sorted_strays(slots)
        lost = self._lost(slots, kept)
        deletes, inserts, nodes = self._node_changes(complete=not any(slot.name is None for slot in slots))
        return Mending(
            tuple(sorted(self._found.values(), key=lambda entry: entry[0])),
            tuple(removes),
            tuple(deletes),
            tuple(inserts),
            nodes,
            tuple(lost),
        )

    def _slots(self) -> Iterator[_Slot]:
        """Yield the places of all entries that are not in the middle of a run that is right, in order."""
        for part in self._tree.parts:
            if part.hole:
                yield _Slot(None, part.count)
            elif part.level == 1 and part.digest in self._clean:
                first, last = self._clean[part.digest]
                yield _Slot(first)
                yield _Slot(last)
            elif part.level == 1:
                for _, digest in pairs_of(self._tree.children(part.digest)):
                    yield _Slot(self._names.get(digest))

    def _sorted_strays(self, slots: list[_Slot]) -> tuple[list[tuple[Any, Any]], list[tuple[Any, Any, int]]]:
        """Return the rows that the tree proves absent, and those that may be a lost entry's, with their gap.

        A gap is what is between two entries that are proven; it is numbered by how many come before.
        """
        named = [slot.name for slot in slots if slot.name is not None]
        unknown = _gaps(slots)
        put = {name for name, _ in self._found.values()}
        places = {(collection, key) for collection, _, key in put}
        removes: list[tuple[Any, Any]] = []
        kept: list[tuple[Any, Any, int]] = []
        for collection, key, name in self._strays:
            if name in put:
                continue
            at = -1 if name is None else bisect_left(named, name)
            # A key 1.0 is no entry's, and SQLite takes it for 1.
            in_the_way = name is None and (collection, key) in places
            if ((name is None and unknown) or at in unknown) and not in_the_way:
                kept.append((collection, key, at))
            else:
                removes.append((collection, key))
        return removes, kept

    def _lost(self, slots: list[_Slot], kept: list[tuple[Any, Any, int]]) -> list[Lost | str]:
        """Name what stays lost."""
        named = [slot.name for slot in slots if slot.name is not None]
        lost: list[Lost | str] = [Lost(collection, key) for collection, key, _ in kept]
        nameless = dict(_gaps(slots))
        for *_, at in kept:
            if at in nameless:
                nameless[at] -= 1
        logged = self._logged(named, {gap for gap, count in nameless.items() if count > 0})
        for gap, count in nameless.items():
            names = logged.get(gap, [])
            if len(names) == count:
                lost += [Lost(name[0], name[2]) for name in names]
            elif count > 0:
                before = _shown(named[gap - 1]) if gap else "the beginning"
                after = _shown(named[gap]) if gap < len(named) else "the end"
                what = "1 entry" if count == 1 else f"{count:,} entries"
                lost.append(f"{what} between {before} and {after}")
        return lost

    def _logged(self, named: list[Name], gaps: set[int]) -> dict[int, list[Name]]:
        """Return the names of entries that the log has in *gaps*, and that no row has."""
        there: dict[Name, bool] = {}
        if gaps:
            strays = {name for *_, name in self._strays}
            for changes in committed(self._ours.records()):
                for collection, key, value in changes:
                    name = entry_name(collection, key)
                    if name is not None and name not in strays:
                        there[name] = value is not None
        found: dict[int, list[Name]] = {}
        for name in sorted(name for name, is_there in there.items() if is_there):
            at = bisect_left(named, name)
            if at in gaps and not (at < len(named) and named[at] == name) and not self._in_clean(name):
                found.setdefault(at, []).append(name)
        return found

    # ---- Nodes ----

    def _node_changes(self, *, complete: bool) -> tuple[list[int], list[tuple[int, Name, bytes]], int]:
        """Return the rows of nodes to be deleted, the nodes to be inserted, and how many nodes that concerns."""
        names = self._node_names()
        right: set[tuple[int, Name]] = set()
        deletes: list[int] = []
        wrong: set[tuple[Any, Any] | int] = set()
        for id_, level, collection, key, children in self._ours.nodes():
            name = FIRST if (collection, key) == ("", "") else entry_name(collection, key)
            place = (level, name)
            digest = node_digest(level, children) if is_node(level, children) else b""
            known = names.get(place)  # type: ignore[arg-type]
            if known and known == digest and place not in right and id_ >> fmt.NODE_ID_SHIFT == fmt.LEVEL_MAX - level:
                right.add(place)  # type: ignore[arg-type]
            elif complete or known:
                deletes.append(id_)
                wrong.add(place if known else id_)
        inserts = [
            (level, name, self._tree.children(digest))
            for (level, name), digest in names.items()
            if (level, name) not in right
        ]
        return deletes, inserts, len(wrong | {(level, name) for level, name, _ in inserts})

    def _node_names(self) -> dict[tuple[int, Name], bytes]:
        """Return the digests of the proven nodes by level and name, as far as the first entry below is known."""
        first: Name | None = None
        known: dict[tuple[int, Name], bytes] = {}
        begins = {part.level: number for number, part in reversed(list(enumerate(self._tree.parts)))}
        for number, part in reversed(list(enumerate(self._tree.parts))):
            if part.hole:
                first = None
                continue
            if part.level == 1:
                first = self._first_of(part.digest)
            if begins[part.level] == number and first is not None and rank(name_bytes(first)) < part.level:
                known[part.level, FIRST] = part.digest
            elif first is not None:
                known[part.level, first] = part.digest
        return dict(reversed(known.items()))

    def _first_of(self, digest: bytes) -> Name | None:
        if digest in self._clean:
            return self._clean[digest][0]
        return self._names.get(self._tree.children(digest)[fmt.COUNT_BYTES : fmt.CHILD_BYTES])


def _gaps(slots: Iterable[_Slot]) -> dict[int, int]:
    """Return how many entries nobody can name, by how many that are named come before."""
    found: dict[int, int] = {}
    before = 0
    for slot in slots:
        if slot.name is None:
            found[before] = found.get(before, 0) + slot.count
        else:
            before += 1
    return found


# ---- Rows ----


def _replayed(records: Iterable[Row]) -> Iterator[tuple[Name, bytes, bytes]]:
    """Yield the entries as the log tells them, in order."""
    entries: dict[Name, bytes | None] = {}
    for changes in committed(records):
        for collection, key, value in changes:
            name = entry_name(collection, key)
            if name is not None:
                entries[name] = leaf(name_bytes(name), value) if is_stored(value) else None
    for name in sorted(entries):
        digest = entries[name]
        if digest is not None:
            yield name, name_bytes(name), digest


def _recorded(records: Iterable[Row]) -> Iterator[tuple[Name | None, Any]]:
    """Yield what records say of entries: values, and values before."""
    for row in records:
        if row[4] is not None:
            name = entry_name(row[4], row[5])
            yield name, row[6]
            yield name, row[7]


def _shown(name: Name) -> str:
    text = f"{name[0]!r}[{name[2]!r}]"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_SHOWN: Final = 200
