"""Finds out what entries and nodes must be, by the root that the newest commit recorded.

A node is proven when its digest is the root, or stands in a node that is proven; an entry, when its leaf stands in
such a node of level 1. Where a digest is known and nothing stored has it, what could have it is looked for: nodes
over the entries as they are, over those that the log tells, over those of a backup; values in the log and in the
backup. A name is part of the leaf, so what has the right digest is the right entry, wherever it was found.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import InvalidInput
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, FIRST, RootBuilder, count_of, leaf, node_digest, rank
from sqlstate.format.names import Name, Stored, make_name, name_bytes
from sqlstate.format.records import Kind
from sqlstate.maintenance.repair.log import committed
from sqlstate.tables.verbatim import Torn

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Row

Rows = Callable[[], Iterable["Row"]]
Tell = Callable[[], None]

# Names times values that are tried together at the end, when a name has lost its value and the log has lost both.
_PAIRS: Final = 1_000_000
_LEAF_COUNT: Final = (1).to_bytes(fmt.COUNT_BYTES)
_NO_LEAF: Final = bytes(fmt.DIGEST_BYTES)


class Content(NamedTuple):
    """A store's tables, as functions that read them: rows as verbatim.decoded() gives them."""

    entries: Rows
    nodes: Rows
    records: Rows
    newest: Rows
    """The records as well, about the newest first."""


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


class _Node(NamedTuple):
    level: int
    children: bytes


class _Part(NamedTuple):
    """A node of the proven tree, in pre-order; a hole if nothing known has its digest."""

    level: int
    digest: bytes
    count: int  # type: ignore[assignment]  # as in wal.Head
    hole: bool


class _Slot(NamedTuple):
    """A place in the order of the entries: one entry, or *count* that nobody can name."""

    name: Name | None
    count: int = 1  # type: ignore[assignment]


class _Shape:
    """Cuts entries, given in their order, into the nodes of the tree over them, and calls *found* with each.

    Args:
        found: called with level, digest and children of each node, as it is complete.
        top: the highest level that is cut.
    """

    def __init__(self, found: Callable[[int, bytes, bytes], None], top: int = fmt.LEVEL_MAX) -> None:
        self._found = found
        self._top = top
        self._open: list[bytearray] = [bytearray() for _ in range(top + 1)]
        self._complete = [0] * (top + 1)

    def add(self, digest: bytes, rank_: int) -> None:
        """Add the next entry, by its leaf and rank."""
        for level in range(1, min(rank_, self._top) + 1):
            self._close(level)
        self._open[1] += _LEAF_COUNT + digest

    def finish(self) -> None:
        """Complete what is open."""
        for level in range(1, self._top + 1):
            self._close(level)
            if self._complete[level] <= 1:
                return

    def _close(self, level: int) -> None:
        children = bytes(self._open[level])
        if not children:
            return
        self._open[level].clear()
        self._complete[level] += 1
        digest = node_digest(level, children)
        self._found(level, digest, children)
        if level < self._top:
            self._open[level + 1] += count_of(children).to_bytes(fmt.COUNT_BYTES) + digest


class _Proven:
    """The tree below a root, as far as it is known.

    Args:
        root: its digest.
        count: of its entries.
    """

    def __init__(self, root: bytes, count: int) -> None:
        self._root = root
        self._count = count
        self._known: dict[bytes, _Node] = {}
        self.parts: list[_Part] = []

    def learn(self, level: int, digest: bytes, children: bytes) -> None:
        """Take a node for later, in case that something proven has its digest."""
        self._known.setdefault(digest, _Node(level, children))

    def learn_rows(self, rows: Iterable[Row]) -> None:
        """Take the nodes of a table."""
        for _, level, _, _, children in rows:
            if _is_node(level, children):
                self.learn(level, node_digest(level, children), children)

    def learn_entries(self, entries: Iterable[tuple[Name, bytes, bytes]]) -> bool:
        """Take the nodes over entries, given as (name, `name_bytes()`, leaf) in their order.

        Returns whether all of these nodes were known before, and have another root.
        """
        another = False

        def found(level: int, digest: bytes, children: bytes) -> None:
            nonlocal another
            another = digest in self._known and digest != self._root
            self.learn(level, digest, children)

        shape = _Shape(found)
        for _, raw, digest in entries:
            shape.add(digest, rank(raw))
        shape.finish()
        return another

    def walk(self) -> bool:
        """Go down from the root; tell whether all nodes are known."""
        self.parts = list(self._below(None, self._root, self._count)) if self._root != EMPTY_ROOT else []
        return not any(part.hole for part in self.parts)

    def children(self, digest: bytes) -> bytes:
        """Return the children of a known node."""
        return self._known[digest].children

    @property
    def nothing(self) -> bool:
        """Whether not even the root's node is known."""
        return bool(self.parts) and self.parts[0].hole

    def _below(self, level: int | None, digest: bytes, count: int) -> Iterator[_Part]:
        node = self._known.get(digest)
        if node is None or node.level != (level or node.level):
            yield _Part(level or 0, digest, count, hole=True)
            return
        yield _Part(node.level, digest, count, hole=False)
        if node.level > 1:
            for below, child in _pairs(node.children):
                yield from self._below(node.level - 1, child, below)


def mend(ours: Content, backup: Content | None, head: Head, tell: Tell) -> Mending:
    """Return what is to be done so that the entries have the root of *head*.

    Args:
        ours: the damaged store's tables; records already as mended.
        backup: those of a backup, which are not trusted.
        head: the newest commit.
        tell: called now and then, so that progress can be shown.
    """
    tree = _Proven(head.root, head.count)
    tree.learn_rows(ours.nodes())
    another = tree.learn_entries(_leaves(ours.entries()))
    if backup is not None:
        tree.learn_rows(backup.nodes())
    tell()
    if not tree.walk():
        tree.learn_entries(_replayed(ours.records()))
        if backup is not None and not tree.walk():
            tree.learn_entries(_leaves(backup.entries()))
        tree.walk()
    tell()
    if tree.nothing:
        return Mending(hopeless=True)
    finding = _Finding(tree, ours, backup)
    tell()
    return finding.mending()._replace(another=another)


class _Finding:
    """Compares the entries with the proven leaves, and looks for those that are missing."""

    def __init__(self, tree: _Proven, ours: Content, backup: Content | None) -> None:
        self._tree = tree
        self._ours = ours
        self._backup = backup
        self._clean: dict[bytes, tuple[Name, Name]] = {}  # runs that are right, by digest: first and last name
        self._names: dict[bytes, Name] = {}  # by leaf, in the other runs: entries that are right, or were found
        self._found: dict[bytes, tuple[Name, Stored]] = {}
        self._strays: list[tuple[Any, Any, Name | None]] = []  # rows that nothing proves
        self._spans: list[tuple[Name, Name]] | None = None
        self._sort_rows()
        self._missing = {digest for part in self._dirty() for _, digest in _pairs(tree.children(part.digest))}
        self._match()
        self._search()

    def _dirty(self) -> Iterator[_Part]:
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

        shape = _Shape(close, top=1)
        for collection, key, value in self._ours.entries():
            name = _name(collection, key)
            raw = b"" if name is None else name_bytes(name)
            digest = _NO_LEAF if name is None or not _is_stored(value) else leaf(raw, value)
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
        if name is None or not _is_stored(value):
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
            yield from ((_name(collection, key), value) for collection, key, value in self._backup.entries())
            yield from _recorded(self._backup.newest())
        yield from self._mixed()

    def _mixed(self) -> Iterator[tuple[Name | None, Any]]:
        """Yield names and values that no row has together: one column of a row was damaged, or changed its type."""
        strays = {(collection, key) for collection, key, _ in self._strays}
        names: dict[Name, None] = {}
        values: dict[Any, None] = {}
        for collection, key, value in self._ours.entries():
            if (collection, key) in strays:
                for form in _forms(key):
                    name = _name(collection, form)
                    if name is not None:
                        names[name] = None
                for form in _forms(value):
                    values[form] = None
        settled = set(self._names.values())
        for row in self._ours.newest():
            if row[2] in (Kind.PUT, Kind.DELETE):
                name = _name(row[4], row[5])
                if name is not None and name not in settled and not self._in_clean(name):
                    names[name] = None
                    values |= dict.fromkeys(each for each in row[6:8] if _is_stored(each))
        pairs = ((name, value) for value in values for name in names)
        yield from islice(pairs, _PAIRS)

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
                for _, digest in _pairs(self._tree.children(part.digest)):
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
                    name = _name(collection, key)
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
            name = FIRST if (collection, key) == ("", "") else _name(collection, key)
            place = (level, name)
            digest = node_digest(level, children) if _is_node(level, children) else b""
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


def heads_of(ours: Content) -> list[tuple[bytes, int]]:
    """Return root and count of the entries, and of the node at the top of the table, right or wrong."""
    builder = RootBuilder()
    for _, raw, digest in _leaves(ours.entries()):
        builder.add(digest, rank(raw))
    nodes = ((level, children) for _, level, _, _, children in ours.nodes() if _is_node(level, children))
    top = max(nodes, default=None)
    return [builder.finish()] + ([] if top is None else [(node_digest(*top), count_of(top[1]))])


def is_whole(ours: Content, head: Head) -> bool:
    """Tell whether entries and nodes are those of the tree of *head*, and there are no others."""
    tree = _Proven(head.root, head.count)
    nodes = 0
    for _, level, _, _, children in ours.nodes():
        tree.learn(level, node_digest(level, children), children)
        nodes += 1
    return tree.walk() and len(tree.parts) == nodes and heads_of(ours)[0][0] == head.root


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


def _leaves(rows: Iterable[Row]) -> Iterator[tuple[Name, bytes, bytes]]:
    """Yield name, `name_bytes()` and leaf of the rows that have a name; without a value, it is no entry's leaf."""
    for collection, key, value in rows:
        name = _name(collection, key)
        if name is not None:
            raw = name_bytes(name)
            yield name, raw, leaf(raw, value) if _is_stored(value) else _NO_LEAF


def _replayed(records: Iterable[Row]) -> Iterator[tuple[Name, bytes, bytes]]:
    """Yield the entries as the log tells them, in order."""
    entries: dict[Name, bytes | None] = {}
    for changes in committed(records):
        for collection, key, value in changes:
            name = _name(collection, key)
            if name is not None:
                entries[name] = leaf(name_bytes(name), value) if _is_stored(value) else None
    for name in sorted(entries):
        digest = entries[name]
        if digest is not None:
            yield name, name_bytes(name), digest


def _recorded(records: Iterable[Row]) -> Iterator[tuple[Name | None, Any]]:
    """Yield what records say of entries: values, and values before."""
    for row in records:
        if row[4] is not None:
            name = _name(row[4], row[5])
            yield name, row[6]
            yield name, row[7]


def _forms(value: Any) -> Iterator[Any]:
    """Yield a value as it is, and the same bytes as text or as bytes."""
    if isinstance(value, Torn):
        yield value.raw
    elif isinstance(value, str):
        yield value
        yield value.encode()
        if value.isascii() and value.lstrip("-").isdigit() and len(value) <= _DIGITS:
            yield int(value)
    elif isinstance(value, bytes):
        yield value
        try:
            yield value.decode()
        except UnicodeDecodeError:
            return
    elif isinstance(value, int | float):
        yield value
        yield str(value)
        if isinstance(value, float) and value.is_integer():
            yield int(value)
            yield str(int(value))


_DIGITS: Final = 20


def _name(collection: Any, key: Any) -> Name | None:
    """Return the name of a row, None if no entry can have it."""
    if not isinstance(collection, str) or not collection or isinstance(key, Torn):
        return None
    try:
        return make_name(collection, key)
    except InvalidInput:
        return None


def _is_stored(value: Any) -> bool:
    return isinstance(value, str | bytes)


def _is_node(level: Any, children: Any) -> bool:
    return (
        isinstance(level, int)
        and 1 <= level <= fmt.LEVEL_MAX
        and isinstance(children, bytes)
        and bool(children)
        and not len(children) % fmt.CHILD_BYTES
    )


def _pairs(children: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield count and digest of each child."""
    for at in range(0, len(children), fmt.CHILD_BYTES):
        middle = at + fmt.COUNT_BYTES
        yield int.from_bytes(children[at:middle]), children[middle : at + fmt.CHILD_BYTES]


def _shown(name: Name) -> str:
    text = f"{name[0]!r}[{name[2]!r}]"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_SHOWN: Final = 200
