"""The tree that the newest commit's root proves, as far as something stored still leads there.

A node is proven when its digest is the root, or stands in a proven node; an entry, when its leaf stands in a proven
node of level 1. A check names what differs from that, and a repair puts it back. A node counts as known if a row has
it, or if it is made of entries: those in the table, those that the log tells, those of a backup. A name is part of the
leaf, so what has the right digest is the right entry, wherever it was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, FIRST, Leaf, count_of, leaf, leaf_of, node_digest, rank
from sqlstate.format.names import Name, name_bytes, stored_name
from sqlstate.format.records import Kind, logged
from sqlstate.tables import merkle, state, wal_raw
from sqlstate.tables import meta as metadata
from sqlstate.tables.raw_rows import (
    RawRecord,
    are_children,
    is_entry_name,
    is_level,
    is_node_name,
    is_stored,
    shown_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.meta import LogStart

_LEAF_COUNT: Final = (1).to_bytes(fmt.COUNT_BYTES)
_NO_LEAF: Final = bytes(fmt.DIGEST_BYTES)


class Content(NamedTuple):
    """A store's tables, as functions that read their rows, whatever is in them."""

    entries: Callable[[], Iterable[Row]]
    """(collection, key, value) in order."""
    nodes: Callable[[], Iterable[Row]]
    """(id, level, collection, key, children)."""
    records: Callable[[], Iterable[RawRecord]]
    start: LogStart | None
    """Where the log begins."""

    @classmethod
    def of(cls, connection: Connection) -> Content:
        """Return the tables that a connection reads."""
        start = metadata.read_log_start(connection)
        return cls(
            lambda: state.scan_raw(connection),
            lambda: merkle.scan_raw(connection),
            lambda: wal_raw.scan_raw(connection, start),
            start,
        )


class ProvenNode(NamedTuple):
    """A node of the proven tree, in pre-order; a hole if nothing known has its digest."""

    level: int
    digest: bytes
    count: int  # type: ignore[assignment]  # as in Head
    hole: bool


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


class ProvenTree:
    """The tree below a root, as far as it is known.

    Args:
        root: its digest.
        count: of its entries.
    """

    def __init__(self, root: bytes, count: int) -> None:
        self._root = root
        self._count = count
        self._known: dict[bytes, tuple[int, bytes]] = {}  # level and children of each node, proven or not
        self.nodes: list[ProvenNode] = []

    def learn_rows(self, rows: Iterable[Row]) -> None:
        """Take the nodes of a table, in case something proven has their digest."""
        for _, level, _, _, children in rows:
            if is_level(level) and are_children(children):
                self._known.setdefault(node_digest(level, children), (level, children))

    def learn_entries(self, entries: Iterable[tuple[Name, bytes, bytes]]) -> tuple[bytes, int] | None:
        """Take the nodes over entries, given as (name, `name_bytes()`, leaf) in their order.

        Returns root and count of these entries if their topmost node was known before, and is not the root.
        """
        another: tuple[bytes, int] | None = None

        def found(level: int, digest: bytes, children: bytes) -> None:
            nonlocal another
            another = (digest, count_of(children)) if digest in self._known and digest != self._root else None
            self._known.setdefault(digest, (level, children))

        shape = _Shape(found)
        for _, raw, digest in entries:
            shape.add(digest, rank(raw))
        shape.finish()
        return another

    def walk(self) -> bool:
        """Go down from the root; return True if all nodes are known."""
        self.nodes = list(self._below(None, self._root, self._count)) if self._root != EMPTY_ROOT else []
        return not any(node.hole for node in self.nodes)

    def believe(self, rows: Iterable[Row]) -> None:
        """Take the nodes of level 1 for proven: with them, entries can be named where nothing is proven."""
        runs = [
            (FIRST if (collection, key) == ("", "") else stored_name(collection, key), children)
            for _, level, collection, key, children in rows
            if level == 1 and are_children(children) and is_node_name(collection, key)
        ]
        self.nodes = [
            ProvenNode(1, node_digest(1, children), len(children) // fmt.CHILD_BYTES, hole=False)
            for _, children in sorted(runs)
        ]

    def children(self, digest: bytes) -> bytes:
        """Return the children of a known node."""
        return self._known[digest][1]

    @property
    def nothing(self) -> bool:
        """Whether not even the root's node is known."""
        return bool(self.nodes) and self.nodes[0].hole

    def _below(self, level: int | None, digest: bytes, count: int) -> Iterator[ProvenNode]:
        own, children = self._known.get(digest, (0, b""))
        if not own or own != (level or own):
            yield ProvenNode(level or 0, digest, count, hole=True)
            return
        yield ProvenNode(own, digest, count, hole=False)
        if own > 1:
            for below, child in pairs_of(children):
                yield from self._below(own - 1, child, below)


class Stray(NamedTuple):
    """A row of the table state that nothing proves."""

    collection: Any
    key: Any
    name: Name | None
    """None if no entry can have that name."""


class Slot(NamedTuple):
    """A place in the order of the entries: one entry, or *count* of them under a node that is not known."""

    name: Name | None
    """None if no row, and nothing else that was found, has the digest."""
    digest: bytes = b""
    """Leaf of the entry; empty for entries of which none is known, and for those of a run that is right."""
    count: int = 1  # type: ignore[assignment]


class Comparison:
    """Compares the rows of state with the tree that the newest commit's root proves.

    Args:
        ours: the store's tables.
        head: the newest commit.
        backup: the tables of a backup, which are not trusted.
        believe: where nothing leads to the root, take the nodes of level 1 as they are, to name what differs from them.
    """

    def __init__(self, ours: Content, head: Head, backup: Content | None = None, *, believe: bool = False) -> None:
        self.tree: ProvenTree = ProvenTree(head.root, head.count)
        tree = self.tree
        self._ours = ours
        tree.learn_rows(ours.nodes())
        self.another: tuple[bytes, int] | None = tree.learn_entries(leaves_of(ours.entries()))
        """Root and count on which entries and nodes agree, if those are not the commit's."""
        if backup is not None:
            tree.learn_rows(backup.nodes())
        if not tree.walk():
            tree.learn_entries(_replayed(ours.records()))
            if backup is not None and not tree.walk():
                tree.learn_entries(leaves_of(backup.entries()))
            tree.walk()
        self.proven: bool = not tree.nothing
        """Whether something stored has the root's digest."""
        if believe and not self.proven:
            tree.believe(ours.nodes())
        self.clean: dict[bytes, tuple[Name, Name]] = {}
        """First and last name of each run that is right, by the digest of its node."""
        self.names: dict[bytes, Name] = {}
        """By leaf, in the other runs: entries that are right, or were found elsewhere."""
        self.strays: list[Stray] = []
        self.missing: set[bytes] = set()
        """Leaves that are proven, and that no row has."""
        self._sort_rows()

    def _sort_rows(self) -> None:
        runs = {node.digest for node in self.tree.nodes if node.level == 1 and not node.hole}
        run: list[tuple[Stray, bytes]] = []
        rest: list[tuple[Stray, bytes]] = []

        def close(_: int, digest: bytes, __: bytes) -> None:
            names = [row.name for row, _ in run if row.name is not None]
            if digest in runs and len(names) == len(run):
                self.clean[digest] = names[0], names[-1]
            else:
                rest.extend(run)
            run.clear()

        shape = _Shape(close, top=1)
        for collection, key, value in self._ours.entries():
            name = entry_name(collection, key)
            raw = b"" if name is None else name_bytes(name)
            digest = leaf(raw, value) if raw and is_stored(value) else _NO_LEAF
            if raw:
                shape.add(digest, rank(raw))
            run.append((Stray(collection, key, name), digest))
        shape.finish()
        self.missing = {digest for run_ in runs - self.clean.keys() for _, digest in pairs_of(self.tree.children(run_))}
        for row, digest in [*rest, *run]:
            if row.name is not None and digest in self.missing:
                self.found(digest, row.name)
            else:
                self.strays.append(row)

    def found(self, digest: bytes, name: Name) -> None:
        """Note the name of a leaf that was missing."""
        self.missing.discard(digest)
        self.names[digest] = name

    def order(self) -> tuple[list[Name], dict[int, list[Slot]]]:
        """Return the names of the entries that are known, in order, without the middle of runs that are right.

        And the slots without a name, by how many names come before: together they are a gap.
        """
        named: list[Name] = []
        gaps: dict[int, list[Slot]] = {}
        for slot in self._slots():
            if slot.name is None:
                gaps.setdefault(len(named), []).append(slot)
            else:
                named.append(slot.name)
        return named, gaps

    def _slots(self) -> Iterator[Slot]:
        for node in self.tree.nodes:
            if node.hole:
                yield Slot(None, count=node.count)
            elif node.level == 1 and node.digest in self.clean:
                yield from map(Slot, self.clean[node.digest])
            elif node.level == 1:
                for _, digest in pairs_of(self.tree.children(node.digest)):
                    yield Slot(self.names.get(digest), digest)

    def node_names(self) -> dict[tuple[int, Name], bytes]:
        """Return the digests of the proven nodes by level and name, as far as the first entry below is known."""
        first: Name | None = None
        known: dict[tuple[int, Name], bytes] = {}
        begins = {node.level: number for number, node in reversed(list(enumerate(self.tree.nodes)))}
        for number, node in reversed(list(enumerate(self.tree.nodes))):
            if node.hole:
                first = None
                continue
            if node.level == 1:
                first = self._first_of(node.digest)
            if begins[node.level] == number and first is not None and rank(name_bytes(first)) < node.level:
                known[node.level, FIRST] = node.digest
            elif first is not None:
                known[node.level, first] = node.digest
        return dict(reversed(known.items()))

    def _first_of(self, digest: bytes) -> Name | None:
        if digest in self.clean:
            return self.clean[digest][0]
        return self.names.get(self.tree.children(digest)[fmt.COUNT_BYTES : fmt.CHILD_BYTES])


# ---- Rows ----


def committed(records: Iterable[RawRecord]) -> Iterator[list[tuple[Any, Any, Any]]]:
    """Yield what each transaction that was committed changed: (collection, key, value), None for no entry."""
    open_: dict[Any, list[tuple[Any, Any, Any]]] = {}
    for record in records:
        if record.kind in (Kind.PUT, Kind.DELETE):
            value = logged(None, record.value, record.digests)[1] if record.kind == Kind.PUT else None
            open_.setdefault(record.txn, []).append((record.collection, record.key, value))
        elif record.kind == Kind.ROLLBACK:
            open_.pop(record.txn, None)
        elif record.kind == Kind.COMMIT:
            yield open_.pop(record.txn, [])


def _replayed(records: Iterable[RawRecord]) -> Iterator[tuple[Name, bytes, bytes]]:
    """Yield the entries as the log tells them, in order: name, `name_bytes()` and leaf."""
    entries: dict[Name, bytes | None] = {}
    for changes in committed(records):
        for collection, key, value in changes:
            name = entry_name(collection, key)
            if name is not None:
                there = type(value) is Leaf or is_stored(value)
                entries[name] = leaf_of(name_bytes(name), value) if there else None
    for name in sorted(entries):
        digest = entries[name]
        if digest is not None:
            yield name, name_bytes(name), digest


def leaves_of(rows: Iterable[Row]) -> Iterator[tuple[Name, bytes, bytes]]:
    """Yield name, `name_bytes()` and leaf of the rows that have a name; without a value, it is no entry's leaf."""
    for collection, key, value in rows:
        name = entry_name(collection, key)
        if name is not None:
            raw = name_bytes(name)
            yield name, raw, leaf(raw, value) if is_stored(value) else _NO_LEAF


def entry_name(collection: Any, key: Any) -> Name | None:
    """Return the name of a row, None if no entry can have it."""
    return stored_name(collection, key) if is_entry_name(collection, key) else None


def between(order: list[Name], gap: int) -> str:
    """Return where the entries are of which *gap* known ones come before, for a sentence."""
    before = shown_name(order[gap - 1][0], order[gap - 1][2]) if gap else "the beginning"
    after = shown_name(order[gap][0], order[gap][2]) if gap < len(order) else "the end"
    return f"between {before} and {after}"


def pairs_of(children: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield count and digest of each child."""
    for at in range(0, len(children), fmt.CHILD_BYTES):
        middle = at + fmt.COUNT_BYTES
        yield int.from_bytes(children[at:middle]), children[middle : at + fmt.CHILD_BYTES]
