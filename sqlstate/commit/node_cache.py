"""Keeps the upper nodes of the tree between commits, so that most commits read one node and hash one path."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import LEAF_COUNT, NODE_TAG, child_at, count_bytes, node_digest, rank
from sqlstate.format.merkle_edit import delete_leaf, insert_leaf, splice_child
from sqlstate.format.names import Name, stored_name
from sqlstate.tables import merkle, state
from sqlstate.tables.raw_rows import are_children, is_node_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlstate.commit.pending import Change
    from sqlstate.format.names import Key
    from sqlstate.sqlite.connection import Connection, Row

# About 1 KB each; enough for all upper nodes of two million entries.
NODES_MAX: Final = 8192
_LEAVES_A_NODE: Final = 16
# More inserts and deletes than this lie close together: plan() then does better, which reads each run once.
MOVES_MAX: Final = 64
# Of this version, nothing is known.
UNKNOWN: Final = b""

# A run of leaves: its row's id and children, collection and key.
Leaves = tuple[int, bytes, str, "Key"]


class Rewritten:
    """A node that is rewritten in one pass: its children change from first to last, and are joined at the end."""

    __slots__ = ("_children", "_cursor", "added", "chunks", "old")

    def __init__(self, old: bytes, children: bytes) -> None:
        self.old = old  # its digest before
        self.added = 0  # entries more than before
        self.chunks: list[bytes] = []
        self._children = children
        self._cursor = 0  # up to here, the children are in the chunks

    def replace(self, old: bytes, new: bytes, added: int) -> None:
        """Replace the digest of one child, and count *added* entries more in it; raises Damaged if it is not there."""
        children, cursor = self._children, self._cursor
        at = children.find(old, cursor)
        if at % fmt.CHILD_BYTES != fmt.COUNT_BYTES:  # not found, or found across two fields
            at = child_at(children, old, cursor) + fmt.COUNT_BYTES
        if added:
            start = at - fmt.COUNT_BYTES
            self.chunks += children[cursor:start], count_bytes(int.from_bytes(children[start:at]) + added), new
            self.added += added
        else:
            self.chunks += children[cursor:at], new
        self._cursor = at + fmt.DIGEST_BYTES

    def insert(self, place: int, leaf: bytes) -> None:
        """Insert a leaf before the child that was number *place*."""
        at = place * fmt.CHILD_BYTES
        self.chunks += self._children[self._cursor : at], LEAF_COUNT, leaf
        self._cursor = at
        self.added += 1

    def delete(self, leaf: bytes) -> bool:
        """Delete a leaf; return False, with nothing done, if it is the last. Raises Damaged if it is not there."""
        if len(self._children) + self.added * fmt.CHILD_BYTES == fmt.CHILD_BYTES:
            return False
        at = child_at(self._children, leaf, self._cursor)
        self.chunks.append(self._children[self._cursor : at])
        self._cursor = at + fmt.CHILD_BYTES
        self.added -= 1
        return True

    def joined(self) -> bytes:
        """Return the children as they are now."""
        return b"".join([*self.chunks, self._children[self._cursor :]])


class NodeCache:
    """Caches the upper nodes of the tree, level 2 and above, that recent commits of this handle went through.

    A commit that puts one entry and moves no boundary of a run then reads one node and hashes one path,
    instead of reading and hashing a whole path twice. Every node in the cache was found by its digest in the one
    above, up to the root. The nodes are valid for one version of the tree, as long as no other handle commits.

    A version is named by the chain of its commit, or, while a commit is being made, by what that commit says.
    """

    __slots__ = ("_above", "_leaves", "_nodes", "moves", "version")

    moves: int
    """The most inserts and deletes that are worth trying; 0 where it is dear to read what was just written."""

    version: bytes
    """The version that the nodes are of, UNKNOWN for none. valid_for() alone sets it."""

    def __init__(self) -> None:
        self.moves = MOVES_MAX
        self.valid_for(UNKNOWN)
        self._above: dict[int, int] = {}  # id of a node to the id of the one above, 0 for the root's
        self._nodes: dict[int, tuple[bytes, bytes]] = {}  # id to children and digest
        self._leaves: dict[int, tuple[bytes, bytes]] = {}  # the same of level 1, whose rows are read all the same

    def valid_for(self, version: bytes) -> None:
        """Take the nodes as those of *version*: the caller knows that they are, or that none are, with UNKNOWN."""
        self.version = version

    def use(self, version: bytes) -> None:
        """Prepare the cache for *version*: drop the nodes if they are of another version, or too many."""
        if self.version != version or len(self._nodes) > NODES_MAX or len(self._above) > _LEAVES_A_NODE * NODES_MAX:
            self._above.clear()
            self._nodes.clear()
            self.valid_for(version)
        if len(self._leaves) > NODES_MAX:
            self._leaves.clear()

    def change(
        self,
        connection: Connection,
        name: Name,
        run: Leaves,
        leaves: tuple[bytes | None, bytes | None],
        root: bytes,
    ) -> bytes | None:
        """Write one changed entry to the tree with *root*; return the new root.

        Does in one pass what plan() and write() would. The caller called use(), and calls valid_for() once the
        commit is made.

        Args:
            connection: the writing connection; the table state is as it was before the change.
            name: of the entry, which starts no run of the tree if it comes or goes.
            run: the run of leaves that it falls into.
            leaves: the digests of the entry before and after, None for no entry.
            root: of the tree.

        Returns None, with nothing written, if the change would leave the run empty.

        Raises:
            Damaged: the entry or a node on its path is not what the tree says; nothing was written.
        """
        id_, children, collection, key = run
        before, after = leaves
        known = self._leaves.get(id_)
        old = known[1] if known is not None and known[0] == children else node_digest(1, children)
        added = 0
        if before is None:
            added, place = 1, state.count(connection, stored_name(collection, key), name)
            children = insert_leaf(children, place, after or b"")
        elif after is None:
            added, children = -1, delete_leaf(children, before)
            if not children:
                return None
        else:
            children = splice_child(children, before, after)
        self.valid_for(UNKNOWN)  # until the commit is made: what follows may stop half-way
        nodes, aboves = self._nodes, self._above
        above = aboves.get(id_)
        if above is None or (above and above not in nodes):
            above = self._above_leaves(connection, name, id_, root)
        new = sha256(NODE_TAG[1] + children).digest()
        self._leaves[id_] = children, new
        updates = [(children, id_)]
        level = 1
        while above:
            level += 1
            children, digest = nodes[above]
            # splice_child(), without a call for each level of each put
            at = children.find(old)
            if added or at % fmt.CHILD_BYTES != fmt.COUNT_BYTES:
                children = splice_child(children, old, new, added)
            else:
                children = children[:at] + new + children[at + fmt.DIGEST_BYTES :]
            new = sha256(NODE_TAG[level] + children).digest()
            nodes[above] = children, new
            updates.append((children, above))
            old = digest
            above = aboves[above]
        if old != root:
            raise merkle.other_root(connection)
        merkle.update(connection, updates)
        return new

    def rewrite(self, connection: Connection, changes: Sequence[Change], root: bytes) -> tuple[bytes, list[Change]]:
        """Write those of *changes*, sorted by name, that leave the shape of the tree with *root* as it is.

        The table state must still be as it was before them. Each node is written once.

        Returns the new root, and the changes that are left for plan() and write(): entries of a rank, and such
        that empty a node or come before all nodes.

        Raises:
            Damaged: an entry or a node on its path is not what the tree says; nothing was written.
        """
        ids, runs = merkle.leaf_runs(connection, [name for name, *_ in changes])
        nodes: dict[int, Rewritten] = {}
        left: list[Change] = []
        for change, id_ in zip(changes, ids, strict=True):
            if id_ is None:
                left.append(change)
                continue
            node = nodes.get(id_)
            if node is None:
                _, children, collection, key = runs[id_]
                if not are_children(children) or not is_node_name(collection, key):
                    merkle.check_node(connection, (id_, 1, collection, key, children))
                self._above_leaves(connection, change[0], id_, root)
                known = self._leaves.get(id_)
                old = known[1] if known is not None and known[0] == children else node_digest(1, children)
                node = nodes[id_] = Rewritten(old, children)
            if not self._change(connection, change, runs[id_], node):
                left.append(change)
        return self._climb_all(connection, nodes, root), left

    @staticmethod
    def _change(connection: Connection, change: Change, run: Row, node: Rewritten) -> bool:
        """Make one change in the run of leaves that it falls into, in memory; False if it changes the shape."""
        name, _, _, before, after, raw = change
        if before is not None and after is not None:
            node.replace(before, after, 0)
            return True
        if rank(raw):
            return False
        if before is None:
            place = state.count(connection, stored_name(run[2], run[3]), name)
            node.insert(place, after or b"")
            return True
        return node.delete(before)

    def _climb_all(self, connection: Connection, nodes: dict[int, Rewritten], root: bytes) -> bytes:
        """Write *nodes* of level 1, as `_change()` made them, and those above; return the root."""
        updates: list[tuple[bytes, int]] = []
        known, level, new = self._leaves, 1, root
        while nodes:
            above: dict[int, Rewritten] = {}
            for id_, node in nodes.items():
                if not node.chunks:
                    continue  # all its changes are left
                children = node.joined()
                new = node_digest(level, children)
                known[id_] = children, new
                updates.append((children, id_))
                parent = self._above[id_]
                if not parent:
                    if node.old != root:
                        raise merkle.other_root(connection)
                    continue
                into = above.get(parent)
                if into is None:
                    children, digest = self._nodes[parent]
                    into = above[parent] = Rewritten(digest, children)
                into.replace(node.old, new, node.added)
            nodes, known = above, self._nodes
            level += 1
        merkle.update(connection, updates)
        return new

    def _above_leaves(self, connection: Connection, name: Name, id_: int, root: bytes) -> int:
        """Return the node above the run of leaves *id_*, 0 if that is the root's, and see that the nodes are known."""
        above = self._above.get(id_)
        if above is None:
            above = self._above[id_] = merkle.above_leaves(connection, name)
        if above and above not in self._nodes:
            self._learn(connection, name, root)
        return above

    def _learn(self, connection: Connection, name: Name, root: bytes) -> None:
        """Read the path of *name* from level 2 up to the first node that is known, and check it up to there."""
        below, digest, level = 0, b"", 2
        while (row := merkle.node_at(connection, level, name)) is not None:
            id_, collection, key, children = row
            known = self._nodes.get(id_)
            if known is None or known[0] != children:
                known = None
                merkle.check_node(connection, (id_, level, collection, key, children))
            if below:
                child_at(children, digest)
                self._above[below] = id_
            if known is not None:
                return
            digest = node_digest(level, children)
            self._nodes[id_] = children, digest
            below = id_
            level += 1
        self._above[below] = 0
        if digest != root:
            raise merkle.other_root(connection)
