"""Caches the upper nodes of the tree between commits, so that most commits read one node and hash one path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlstate.format.merkle import child_at, node_digest, rank
from sqlstate.format.merkle_edit import delete_leaf, insert_leaf, replace_child, splice_child
from sqlstate.format.names import Name, stored_name
from sqlstate.tables import merkle, state
from sqlstate.tables.raw_rows import are_children, is_node_name, is_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlstate.format.names import Key, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection, Row

# About 1 KB each; enough for all upper nodes of two million entries.
NODES_MAX: Final = 8192
_LEAVES_A_NODE: Final = 16
# With more inserts and deletes than this, plan() is faster: it reads each run once.
MOVES_MAX: Final = 64
# The version of an empty cache.
UNKNOWN: Final = b""

# One changed entry: its name, its leaf before and after, None for no entry, and `name_bytes()`.
EntryChange = tuple[Name, bytes | None, bytes | None, bytes]

# A run of leaves: its row's id and children, collection and key.
Leaves = tuple[int, bytes, str, "Key"]


class NodeCache:
    """Caches the upper nodes of the tree, level 2 and above, that recent commits of this handle went through.

    A commit that puts one entry and moves no boundary of a run then reads one node and hashes one path,
    instead of reading and hashing a whole path twice. Every node in the cache was found by its digest in the one
    above, up to the root. The nodes are valid for one version of the tree, as long as no other handle commits.

    A version is named by the chain of its commit, or, while a commit is being made, by a name that the commit chooses.
    """

    __slots__ = ("_above", "_leaves", "_nodes", "version")

    version: bytes
    """The version that the nodes belong to, UNKNOWN if none. Only valid_for() sets it."""

    def __init__(self) -> None:
        self.valid_for(UNKNOWN)
        self._above: dict[int, int] = {}  # id of a node to the id of the one above, 0 for the root's
        self._nodes: dict[int, tuple[bytes, bytes]] = {}  # id to children and digest
        self._leaves: dict[int, tuple[bytes, bytes]] = {}  # the same of level 1, whose rows are read all the same

    def valid_for(self, version: bytes) -> None:
        """Declare that the nodes are those of *version*, which the caller knows; UNKNOWN invalidates them."""
        self.version = version

    def use(self, version: bytes) -> None:
        """Prepare the cache for *version*: drop the nodes if they belong to another version, or are too many."""
        if self.version != version or len(self._nodes) > NODES_MAX or len(self._above) > _LEAVES_A_NODE * NODES_MAX:
            self._above.clear()
            self._nodes.clear()
            self.valid_for(version)
        if len(self._leaves) > NODES_MAX:
            self._leaves.clear()

    def find(self, connection: Connection, name: Name, head: Head) -> tuple[Stored | None, Leaves | None]:
        """Return the stored value of an entry, and the run of leaves that it falls into; each may be None.

        replace() and insert() take the run. *head* is the newest commit.
        """
        self.use(head.chain)
        row = merkle.leaf_run(connection, name)
        if row is None:  # it comes before all that there is
            return state.get(connection, name[0], name[2]), None
        value, id_, children, collection, key = row
        if not are_children(children) or not is_node_name(collection, key):
            merkle.check_node(connection, (id_, 1, collection, key, children))
        if value is not None and not is_stored(value):
            state.get(connection, name[0], name[2])  # says what is wrong
        return value, row[1:]

    def replace(
        self, connection: Connection, name: Name, leaf: tuple[bytes, bytes], found: Leaves | None, head: Head
    ) -> bytes:
        """Replace the digest of one entry, (before, after) in *leaf*, in the tree of *head*; return the new root.

        The result is that of plan() and write(). The caller calls valid_for() once the commit is made.

        Raises:
            Damaged: the entry or a node on its path contradicts the tree; nothing was written.
        """
        if found is None:
            raise merkle.other_root(connection)
        return self._climb(connection, name, found, replace_child(1, found[1], *leaf), head)

    def insert(self, connection: Connection, name: Name, leaf: bytes, found: Leaves | None, head: Head) -> bytes | None:
        """Insert an entry of rank 0 with the digest *leaf* into the tree of *head*; return the new root.

        Returns None, with nothing written, if the entry comes before all nodes: then the tree changes its shape.
        Raises as replace().
        """
        if found is None:
            return None
        _, children, collection, key = found
        place = state.count(connection, stored_name(collection, key), name)
        changed = insert_leaf(children, place, leaf)
        return self._climb(connection, name, found, (changed, node_digest(1, changed)), head, added=1)

    def rewrite(
        self, connection: Connection, changes: Sequence[EntryChange], root: bytes
    ) -> tuple[bytes, list[EntryChange]]:
        """Write those of *changes*, sorted by name, that leave the shape of the tree with *root* as it is.

        The table state must still be as it was before them. Each node is written once.

        Returns the new root, and the changes that are left for plan() and write(): entries with a rank, those that
        empty a node, and those that come before all nodes.

        Raises:
            Damaged: an entry or a node on its path contradicts the tree; nothing was written.
        """
        runs = merkle.leaf_runs(connection, [name for name, *_ in changes])
        for (name, *_), (id_, children, collection, key) in zip(changes, runs, strict=True):
            if id_ is not None:
                if not are_children(children) or not is_node_name(collection, key):
                    merkle.check_node(connection, (id_, 1, collection, key, children))
                self._above_leaves(connection, name, id_, root)
        nodes: dict[int, list[Any]] = {}  # id to digest before, children, entries added
        left = []
        for change, run in zip(changes, runs, strict=True):
            if not self._change(connection, change, run, nodes):
                left.append(change)
        return (self._climb_all(connection, nodes, root) if nodes else root), left

    def _change(self, connection: Connection, change: EntryChange, run: Row, nodes: dict[int, list[Any]]) -> bool:
        """Make one change in its run of leaves, in memory; return False if it would change the tree's shape."""
        name, before, after, raw = change
        id_, children, collection, key = run
        if id_ is None or ((before is None or after is None) and rank(raw)):
            return False
        node = nodes.get(id_)
        if node is None:
            known = self._leaves.get(id_)
            old = known[1] if known is not None and known[0] == children else node_digest(1, children)
            node = [old, children, 0]
        children = node[1]
        if before is None:
            place = state.count(connection, stored_name(collection, key), name) + node[2]
            node[1] = insert_leaf(children, place, after or b"")
            node[2] += 1
        elif after is None:
            shorter = delete_leaf(children, before)
            if not shorter:
                return False
            node[1] = shorter
            node[2] -= 1
        else:
            node[1] = splice_child(children, before, after)
        nodes[id_] = node
        return True

    def _climb_all(self, connection: Connection, nodes: dict[int, list[Any]], root: bytes) -> bytes:
        """Write *nodes* of level 1, as `_change()` made them, and those above; return the root."""
        updates: list[tuple[bytes, int]] = []
        known, level, new = self._leaves, 1, root
        while True:
            above: dict[int, list[Any]] = {}
            for id_, (old, children, added) in nodes.items():
                new = node_digest(level, children)
                known[id_] = children, new
                updates.append((children, id_))
                parent = self._above[id_]
                if not parent:
                    if old != root:
                        raise merkle.other_root(connection)
                    continue
                node = above.get(parent)
                if node is None:
                    children_above, digest = self._nodes[parent]
                    node = above[parent] = [digest, children_above, 0]
                node[1] = splice_child(node[1], old, new, added)
                node[2] += added
            if not above:
                break
            nodes, known = above, self._nodes
            level += 1
        merkle.update(connection, updates)
        return new

    def _above_leaves(self, connection: Connection, name: Name, id_: int, root: bytes) -> int:
        """Return the node above the run of leaves *id_*, 0 if that is the root's; cache the nodes on the path."""
        above = self._above.get(id_)
        if above is None:
            above = self._above[id_] = merkle.above_leaves(connection, name)
        if above and above not in self._nodes:
            self._learn(connection, name, root)
        return above

    def _climb(
        self,
        connection: Connection,
        name: Name,
        found: Leaves,
        changed: tuple[bytes, bytes],
        head: Head,
        *,
        added: int = 0,
    ) -> bytes:
        """Write the node *found*, which has *changed* to (children, digest), and those above; return the root."""
        self.valid_for(UNKNOWN)
        id_, children, _, _ = found
        above = self._above_leaves(connection, name, id_, head.root)
        known = self._leaves.get(id_)
        old = known[1] if known is not None and known[0] == children else node_digest(1, children)
        self._leaves[id_] = changed
        children, new = changed
        updates = [(children, id_)]
        level = 1
        while above:
            level += 1
            before, digest = self._nodes[above]
            self._nodes[above] = children, new = replace_child(level, before, old, new, added)
            updates.append((children, above))
            old = digest
            above = self._above[above]
        if old != head.root:
            raise merkle.other_root(connection)
        merkle.update(connection, updates)
        return new

    def _learn(self, connection: Connection, name: Name, root: bytes) -> None:
        """Read the path of *name* from level 2 up into the cache, and verify it up to the root."""
        below = 0
        digest = b""
        for level, id_, collection, key, children in merkle.path_rows(connection, name):
            if level == 1:
                continue
            merkle.check_node(connection, (id_, level, collection, key, children))
            if below:
                child_at(children, digest)
                self._above[below] = id_
            digest = node_digest(level, children)
            self._nodes[id_] = children, digest
            below = id_
        self._above[below] = 0
        if digest != root:
            raise merkle.other_root(connection)
