"""The tree below the root that the newest commit recorded, as far as nodes are known whose digests lead there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import InvalidInput
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, RootBuilder, count_of, leaf, node_digest, rank
from sqlstate.format.names import Name, make_name, name_bytes
from sqlstate.tables.raw_rows import InvalidText, are_children, is_level, is_stored

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Row

Rows = Callable[[], Iterable["Row"]]

_LEAF_COUNT: Final = (1).to_bytes(fmt.COUNT_BYTES)
NO_LEAF: Final = bytes(fmt.DIGEST_BYTES)


class Content(NamedTuple):
    """A store's tables, as functions that read them: rows as raw_rows.decoded() gives them."""

    entries: Rows
    nodes: Rows
    records: Rows
    newest: Rows
    """The records as well, about the newest first."""


class KnownNode(NamedTuple):
    """A node that something stored has, proven or not."""

    level: int
    children: bytes


class ProvenNode(NamedTuple):
    """A node of the proven tree, in pre-order; a hole if nothing known has its digest."""

    level: int
    digest: bytes
    count: int  # type: ignore[assignment]  # as in wal.Head
    hole: bool


class TreeShape:
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
        self._known: dict[bytes, KnownNode] = {}
        self.parts: list[ProvenNode] = []

    def learn(self, level: int, digest: bytes, children: bytes) -> None:
        """Take a node for later, in case that something proven has its digest."""
        self._known.setdefault(digest, KnownNode(level, children))

    def learn_rows(self, rows: Iterable[Row]) -> None:
        """Take the nodes of a table."""
        for _, level, _, _, children in rows:
            if is_node(level, children):
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

        shape = TreeShape(found)
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

    def _below(self, level: int | None, digest: bytes, count: int) -> Iterator[ProvenNode]:
        node = self._known.get(digest)
        if node is None or node.level != (level or node.level):
            yield ProvenNode(level or 0, digest, count, hole=True)
            return
        yield ProvenNode(node.level, digest, count, hole=False)
        if node.level > 1:
            for below, child in pairs_of(node.children):
                yield from self._below(node.level - 1, child, below)


def heads_of(ours: Content) -> list[tuple[bytes, int]]:
    """Return root and count of the entries, and of the node at the top of the table, right or wrong."""
    builder = RootBuilder()
    for _, raw, digest in leaves_of(ours.entries()):
        builder.add(digest, rank(raw))
    nodes = ((level, children) for _, level, _, _, children in ours.nodes() if is_node(level, children))
    top = max(nodes, default=None)
    return [builder.finish()] + ([] if top is None else [(node_digest(*top), count_of(top[1]))])


def is_whole(ours: Content, head: Head) -> bool:
    """Tell whether entries and nodes are those of the tree of *head*, and there are no others."""
    tree = ProvenTree(head.root, head.count)
    nodes = 0
    for _, level, _, _, children in ours.nodes():
        tree.learn(level, node_digest(level, children), children)
        nodes += 1
    return tree.walk() and len(tree.parts) == nodes and heads_of(ours)[0][0] == head.root


def leaves_of(rows: Iterable[Row]) -> Iterator[tuple[Name, bytes, bytes]]:
    """Yield name, `name_bytes()` and leaf of the rows that have a name; without a value, it is no entry's leaf."""
    for collection, key, value in rows:
        name = entry_name(collection, key)
        if name is not None:
            raw = name_bytes(name)
            yield name, raw, leaf(raw, value) if is_stored(value) else NO_LEAF


def entry_name(collection: Any, key: Any) -> Name | None:
    """Return the name of a row, None if no entry can have it."""
    if not isinstance(collection, str) or not collection or isinstance(key, InvalidText):
        return None
    try:
        return make_name(collection, key)
    except InvalidInput:
        return None


def is_node(level: Any, children: Any) -> bool:
    """Return True if a row of the table merkle can be a node."""
    return is_level(level) and are_children(children)


def pairs_of(children: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield count and digest of each child."""
    for at in range(0, len(children), fmt.CHILD_BYTES):
        middle = at + fmt.COUNT_BYTES
        yield int.from_bytes(children[at:middle]), children[middle : at + fmt.CHILD_BYTES]
