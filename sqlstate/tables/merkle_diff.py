"""The tables merkle of two stores, compared: which entries differ, found in the subtrees whose digests differ.

A walk from both roots downwards. Nodes with equal digests have equal entries under them, so it leaves them out; of the
rest it reads one node for each that differs, and the names of its children out of the index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import FIRST, node_digest
from sqlstate.format.names import stored_name
from sqlstate.tables import merkle, state
from sqlstate.tables.raw_rows import are_children, is_node_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.format.names import Name
    from sqlstate.sqlite.connection import Connection

_TOP = "SELECT id, collection, key, children FROM merkle WHERE level = ?"
_CHILDREN = "SELECT children FROM merkle WHERE id = ?"
_NODES = "SELECT id, collection, key FROM merkle WHERE level = ? AND (collection, key) >= (?, ?)"
_BEFORE = " AND (collection, key) < (?, ?)"
_IN_ORDER = " ORDER BY collection, key"


class Node(NamedTuple):
    """A node of a tree, or an entry at level 0."""

    id: int | None
    """Row of the node, None for an entry."""
    start: Name
    """Name of the first entry."""
    stop: Name | None
    """Name of the first entry behind it, None at the end."""
    digest: bytes
    """Its digest, as the node above has it."""


class Tree:
    """The tree of one state of a store, read node by node.

    Args:
        connection: reads that state.
        root: of the tree.
    """

    def __init__(self, connection: Connection, root: bytes) -> None:
        self._connection = connection
        self._root = root
        self.nodes_read = 0

    def top(self) -> tuple[int, list[Node]]:
        """Return the level of the root, and the root; level 0 and nothing for an empty tree."""
        level = merkle.top(self._connection)
        if not level:
            return 0, []
        rows = self._connection.rows(_TOP, (level,))
        if len(rows) != 1:
            raise merkle.other_root(self._connection)
        return level, [Node(rows[0][0], FIRST, None, self._root)]

    def below(self, level: int, nodes: Sequence[Node]) -> list[Node]:
        """Return the children of *nodes* of a level, in order.

        Raises:
            Damaged: a node does not have the digest that the one above has, or not the children.
        """
        return [child for node in nodes for child in self._children(level, node)]

    def _children(self, level: int, node: Node) -> Iterator[Node]:
        self.nodes_read += 1
        connection = self._connection
        children = connection.value(_CHILDREN, (node.id,))
        if not are_children(children) or node_digest(level, children) != node.digest:
            raise Damaged.found(connection.path, f"node {node.id} is not what the node above it says", "I2")
        ids, starts = self._below(level - 1, node)
        if len(starts) != len(children) // fmt.CHILD_BYTES:
            raise Damaged.found(connection.path, f"node {node.id} has other children than there are", "I2")
        for at, (id_, start) in enumerate(zip(ids, starts, strict=True)):
            stop = starts[at + 1] if at + 1 < len(starts) else node.stop
            place = at * fmt.CHILD_BYTES + fmt.COUNT_BYTES
            yield Node(id_, start, stop, children[place : place + fmt.DIGEST_BYTES])

    def _below(self, level: int, node: Node) -> tuple[list[int | None], list[Name]]:
        """Return the ids and the names of what is under *node* in a level."""
        if not level:
            names = state.names(self._connection, node.start, node.stop)
            return [None] * len(names), names
        bound: list[object] = [level, node.start[0], node.start[2]]
        sql = _NODES
        if node.stop is not None:
            sql += _BEFORE
            bound += [node.stop[0], node.stop[2]]
        rows = self._connection.rows(sql + _IN_ORDER, bound)
        if not all(is_node_name(collection, key) for _, collection, key in rows):
            raise merkle.other_root(self._connection)
        return [id_ for id_, *_ in rows], [stored_name(collection, key) for _, collection, key in rows]


def differing(a: Tree, b: Tree) -> Iterator[Name]:
    """Yield the names of the entries that differ between two trees, or are in one of them alone, in order.

    Cost: for each entry that differs, a node a level of both trees. It keeps the names of some subtrees in memory.

    Raises:
        Damaged: a node does not have the digest that the one above has, or not the children.
    """
    (level_a, nodes_a), (level_b, nodes_b) = a.top(), b.top()
    while level_a > level_b:
        nodes_a, level_a = a.below(level_a, nodes_a), level_a - 1
    while level_b > level_a:
        nodes_b, level_b = b.below(level_b, nodes_b), level_b - 1
    return _differing(a, b, level_a, (nodes_a, nodes_b))


def _differing(a: Tree, b: Tree, level: int, nodes: tuple[list[Node], list[Node]]) -> Iterator[Name]:
    for of_a, of_b in _gaps(*nodes):
        if level:
            yield from _differing(a, b, level - 1, (a.below(level, of_a), b.below(level, of_b)))
        else:
            yield from sorted({node.start for node in (*of_a, *of_b)})


def _gaps(a: list[Node], b: list[Node]) -> Iterator[tuple[list[Node], list[Node]]]:
    """Yield the nodes of both between those that they have in common."""
    common = {node.digest for node in a} & {node.digest for node in b}
    at_a = at_b = 0
    while at_a < len(a) or at_b < len(b):
        end_a, end_b = _next(a, at_a, common), _next(b, at_b, common)
        if end_a > at_a or end_b > at_b:
            yield a[at_a:end_a], b[at_b:end_b]
        at_a, at_b = end_a + 1, end_b + 1


def _next(nodes: list[Node], at: int, common: set[bytes]) -> int:
    while at < len(nodes) and nodes[at].digest not in common:
        at += 1
    return at
