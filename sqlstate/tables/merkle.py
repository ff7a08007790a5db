"""The table merkle: the tree's inner nodes, and how a commit rewrites them.

A node row holds the node's preimage, so a commit reads one row a level and replaces 40 bytes in each.
The path is hashed before it is changed, up to the root that the last commit recorded: a commit never
builds on a damaged node (I2, I3).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import (
    EMPTY_ROOT,
    FIRST,
    Edit,
    LevelRewrite,
    LevelRewriter,
    Node,
    Run,
    child_at,
    count_bytes,
    count_of,
    delete_leaf,
    insert_leaf,
    node_digest,
    rank,
    replace_child,
    splice_child,
)
from sqlstate.format.names import Name, name_bytes, stored_name
from sqlstate.tables import raw_rows, state, verbatim
from sqlstate.tables.raw_rows import are_children, is_level, is_node_name, is_number, is_stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.format.names import Key, Stored
    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.wal import Head

_TOP = "SELECT max(level) FROM merkle"
_AT = (
    "SELECT id, collection, key, children FROM merkle WHERE level = ?1 AND (collection, key) <= (?2, ?3) "
    "ORDER BY collection DESC, key DESC LIMIT 1"
)
_AT_AND_NEXT = f"""
SELECT * FROM ({_AT})
UNION ALL
SELECT NULL, collection, key, NULL FROM (
  SELECT collection, key FROM merkle WHERE level = ?1 AND (collection, key) > (?2, ?3) ORDER BY collection, key LIMIT 1
)
"""
_BETWEEN = (
    "SELECT id, children FROM merkle WHERE level = ? AND (collection, key) > (?, ?) AND (collection, key) <= (?, ?)"
)
_BEFORE = _AT.replace("<=", "<")
_PATH = f"""
WITH RECURSIVE levels (level) AS (
  VALUES (1)
  UNION ALL
  SELECT level + 1 FROM levels WHERE level < min({fmt.LEVEL_MAX}, (SELECT max(level) FROM merkle))
)
SELECT levels.level, node.id, node.collection, node.key, node.children
FROM levels CROSS JOIN merkle AS node
WHERE node.id = (
  SELECT id FROM merkle WHERE level = levels.level AND (collection, key) <= (?1, ?2)
  ORDER BY collection DESC, key DESC LIMIT 1
)
"""
_LEAVES = (
    f"SELECT {state.VALUE}, id, children, collection, key "
    "FROM merkle WHERE level = 1 AND (collection, key) <= (?1, ?2) "
    "ORDER BY collection DESC, key DESC LIMIT 1"
)
_ABOVE_LEAVES = (
    "SELECT id FROM merkle WHERE level = 2 AND (collection, key) <= (?, ?) ORDER BY collection DESC, key DESC LIMIT 1"
)
_UPDATE = "UPDATE merkle SET children = ? WHERE id = ?"
_INSERT = "INSERT INTO merkle (id, level, collection, key, children) VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM merkle WHERE id = ?"
_LEVEL = "SELECT id, children FROM merkle WHERE level = ?"
_LAST_ID = "SELECT max(id) FROM merkle WHERE id >= ? AND id < ?"

# About 1 KB each; enough for all upper nodes of two million entries.
SPINE_NODES: Final = 8192
_LEAVES_A_NODE: Final = 16
# More inserts and deletes than this lie close together: plan() then does better, which reads each run once.
SPINE_MOVES: Final = 64


_RUNS = (
    "SELECT id, children, collection, key FROM (SELECT (SELECT id FROM merkle WHERE level = 1 AND (collection, key) "
    "<= (?1, ?2) ORDER BY collection DESC, key DESC LIMIT 1) AS run) LEFT JOIN merkle ON id = run"
)

# One changed entry: its name, its leaf before and after, None for no entry, and `name_bytes()`.
Change = tuple[Name, bytes | None, bytes | None, bytes]

# A run of leaves: its row's id and children, collection and key.
Leaves = tuple[int, bytes, str, "Key"]


class Plan(NamedTuple):
    """What a commit writes to the table."""

    root: bytes
    updates: list[tuple[bytes, int]]
    inserts: list[tuple[int, Name, bytes]]
    deletes: list[int]


def plan(connection: Connection, edits: Sequence[Edit], root: bytes) -> Plan:
    """Return what *edits* of the leaves, sorted by name, make of the tree whose root is *root*.

    The table state must still be as it was before the edits: it places new entries in their runs.

    Raises:
        Damaged: an entry or a node that the edits touch is not what the tree says.
    """
    path = _path(connection, edits[0][0]) if len(edits) == 1 else {}
    top = _top(connection)
    if not top and root != EMPTY_ROOT:
        raise _damaged(connection)
    levels: dict[int, LevelRewrite] = {}
    level = 0
    while edits:
        level += 1
        known = path.get(level) if len(edits) == 1 else None
        levels[level] = done = _rewrite_level(connection, level, edits, known, exists=level <= top)
        if level < top:
            edits = done.edits
            continue
        nodes = done.nodes
        if level == top:
            nodes += _checked_top(connection, level, done, root)
        edits = [(FIRST, None, _ranked(nodes))] if len(nodes) > 1 else ()
    return _finish(connection, levels)


class Spine:
    """The upper nodes of the tree, level 2 and above, that recent commits of this handle went through.

    A commit that puts one entry and moves no boundary of a run then reads one node and hashes one path,
    instead of reading and hashing a whole path twice. It is true as long as no other handle commits:
    `of` says of which moment it is: the chain of a commit, or the commit that is being made. Every node in it was
    found by its digest in the one above, up to the root.
    """

    __slots__ = ("_above", "_leaves", "_nodes", "of")

    def __init__(self) -> None:
        self.of: object = None
        self._above: dict[int, int] = {}  # id of a node to the id of the one above, 0 for the root's
        self._nodes: dict[int, tuple[bytes, bytes]] = {}  # id to children and digest
        self._leaves: dict[int, tuple[bytes, bytes]] = {}  # the same of level 1, whose rows are read all the same

    def be_at(self, moment: object) -> None:
        """Forget all, unless what is known is of *moment*: the chain of a commit, or a commit in the making."""
        if self.of != moment or len(self._nodes) > SPINE_NODES or len(self._above) > _LEAVES_A_NODE * SPINE_NODES:
            self._above.clear()
            self._nodes.clear()
            self.of = moment
        if len(self._leaves) > SPINE_NODES:
            self._leaves.clear()

    def find(self, connection: Connection, name: Name, head: Head) -> tuple[Stored | None, Leaves | None]:
        """Return the stored value of an entry and the run of leaves that it falls into, None where there is none.

        What replace() and insert() need next; *head* is the newest commit.
        """
        self.be_at(head.chain)
        row = connection.row(_LEAVES, (name[0], name[2]))
        if row is None:  # it comes before all that there is
            return state.get(connection, name[0], name[2]), None
        value, id_, children, collection, key = row
        if not are_children(children) or not is_node_name(collection, key):
            _check_node(connection, (id_, 1, collection, key, children))
        if value is not None and not is_stored(value):
            state.get(connection, name[0], name[2])  # says what is wrong
        return value, row[1:]

    def replace(
        self, connection: Connection, name: Name, leaf: tuple[bytes, bytes], found: Leaves | None, head: Head
    ) -> bytes:
        """Replace the digest of one entry, (before, after) in *leaf*, in the tree of *head*; return the new root.

        Does what plan() and write() would. The caller sets `of` once the commit is made.

        Raises:
            Damaged: the entry or a node on its path is not what the tree says; nothing was written.
        """
        if found is None:
            raise _damaged(connection)
        return self._climb(connection, name, found, replace_child(1, found[1], *leaf), head)

    def insert(self, connection: Connection, name: Name, leaf: bytes, found: Leaves | None, head: Head) -> bytes | None:
        """Insert an entry of rank 0 with the digest *leaf* into the tree of *head*; return the new root.

        As replace(). The tree keeps its shape, unless there is no node yet before the entry: then nothing is
        written, and None is returned.
        """
        if found is None:
            return None
        _, children, collection, key = found
        place = state.count(connection, stored_name(collection, key), name)
        changed = insert_leaf(children, place, leaf)
        return self._climb(connection, name, found, (changed, node_digest(1, changed)), head, added=1)

    def rewrite(self, connection: Connection, changes: Sequence[Change], root: bytes) -> tuple[bytes, list[Change]]:
        """Write those of *changes*, sorted by name, that leave the shape of the tree with *root* as it is.

        The table state must still be as it was before them. Each node is written once.

        Returns the new root, and the changes that are left for plan() and write(): entries of a rank, and such
        that empty a node or come before all nodes.

        Raises:
            Damaged: an entry or a node on its path is not what the tree says; nothing was written.
        """
        runs = connection.rows_many(_RUNS, [(name[0], name[2]) for name, *_ in changes])
        for (name, *_), (id_, children, collection, key) in zip(changes, runs, strict=True):
            if id_ is not None:
                if not are_children(children) or not is_node_name(collection, key):
                    _check_node(connection, (id_, 1, collection, key, children))
                self._above_leaves(connection, name, id_, root)
        nodes: dict[int, list[Any]] = {}  # id to digest before, children, entries added
        left = []
        for change, run in zip(changes, runs, strict=True):
            if not self._change(connection, change, run, nodes):
                left.append(change)
        return (self._climb_all(connection, nodes, root) if nodes else root), left

    def _change(self, connection: Connection, change: Change, run: Row, nodes: dict[int, list[Any]]) -> bool:
        """Make one change in the run of leaves that it falls into, in memory; False if it changes the shape."""
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
                        raise _damaged(connection)
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
        connection.run_many(_UPDATE, updates)
        return new

    def _above_leaves(self, connection: Connection, name: Name, id_: int, root: bytes) -> int:
        """Return the node above the run of leaves *id_*, 0 if that is the root's, and see that the nodes are known."""
        above = self._above.get(id_)
        if above is None:
            above = self._above[id_] = connection.value(_ABOVE_LEAVES, (name[0], name[2])) or 0
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
        self.of = None
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
            raise _damaged(connection)
        connection.run_many(_UPDATE, updates)
        return new

    def _learn(self, connection: Connection, name: Name, root: bytes) -> None:
        """Read the path of *name* from level 2 up, and check it up to the root."""
        below = 0
        digest = b""
        for level, id_, collection, key, children in connection.rows(_PATH, (name[0], name[2])):
            if level == 1:
                continue
            _check_node(connection, (id_, level, collection, key, children))
            if below:
                child_at(children, digest)
                self._above[below] = id_
            digest = node_digest(level, children)
            self._nodes[id_] = children, digest
            below = id_
        self._above[below] = 0
        if digest != root:
            raise _damaged(connection)


def write(connection: Connection, plan: Plan) -> None:
    """Write *plan*, inside the caller's transaction."""
    if plan.updates:
        connection.run_many(_UPDATE, plan.updates)
    if plan.deletes:
        connection.run_many(_DELETE, [(id_,) for id_ in plan.deletes])
    if plan.inserts:
        connection.run_many(
            _INSERT,
            [(id_, fmt.LEVEL_MAX - (id_ >> fmt.NODE_ID_SHIFT), n[0], n[2], rows) for id_, n, rows in plan.inserts],
        )


def count(connection: Connection, start: Name, stop: Name) -> int:
    """Return the number of entries in [start, stop), read off the counts in the tree.

    Raises:
        Damaged: a node on a path does not hold the digest of its child, or the counts contradict each other.
    """
    between = _count_before(connection, stop) - _count_before(connection, start)
    if not is_number(between):
        raise Damaged(f"I2: {connection.path}: the counts in the tree contradict each other; restore a backup")
    return between


def _count_before(connection: Connection, name: Name) -> int:
    total = 0
    below: bytes | None = None
    for level, run in _path(connection, name).items():
        if level == 1:
            total += state.count(connection, run.name, name)
        elif below is not None:
            at = child_at(run.children, below)
            total += count_of(run.children[:at])
        below = node_digest(level, run.children)
    return total


def holds(connection: Connection, name: Name, leaf: bytes | None, root: bytes, known: dict[int, bytes]) -> bool:
    """Tell whether the path of an entry leads from its *leaf*, None if there is no such entry, to *root*.

    Args:
        connection: any.
        name: of the entry.
        leaf: its digest.
        root: of the newest commit.
        known: digests of nodes that were found to lead to *root*, by row; is added to.
    """
    path: dict[int, bytes] = {}
    digest = leaf
    rows = connection.rows(_PATH, (name[0], name[2]))
    if not rows and leaf is None:  # it would be before the first entry; the root's node must be there all the same
        rows = connection.rows("SELECT level, id, collection, key, children FROM merkle ORDER BY id LIMIT 1")
    for level, id_, collection, key, children in rows:
        _check_node(connection, (id_, level, collection, key, children))
        try:
            if digest is not None:
                child_at(children, digest)
        except Damaged:
            return False
        digest = node_digest(level, children)
        if known.get(id_) == digest:
            break
        path[id_] = digest
    else:
        if (digest or EMPTY_ROOT) != root:
            return False
    known.update(path)
    return True


def opened(connection: Connection, names: Sequence[Name], *, span: bool) -> tuple[int, list[tuple[int, bytes]]]:
    """Return the level of the root's node, and (level, children) of the nodes on the paths to *names*, sorted.

    With *span*, of all nodes that have an entry between the first and the last of them.
    """
    found: dict[int, tuple[int, bytes]] = {}
    for name in (names[0], names[-1]) if span else names:
        for level, id_, collection, key, children in connection.rows(_PATH, (name[0], name[2])):
            _check_node(connection, (id_, level, collection, key, children))
            found[id_] = level, children
    top = _top(connection)
    if span:
        (first, _, low), (last, _, high) = names[0], names[-1]
        for level in range(1, top + 1):
            for id_, children in connection.rows(_BETWEEN, (level, first, low, last, high)):
                raw_rows.MERKLE.check((id_, level, children), connection.path)
                found[id_] = level, children
    return top, [*found.values()]


def is_over(connection: Connection, leaves: bytes, root: bytes) -> bool:
    """Tell whether the nodes are, level by level, those over leaves whose digests, joined, have the hash *leaves*."""
    below, digest = leaves, EMPTY_ROOT
    for level in range(1, _top(connection) + 1):
        children, nodes = sha256(), sha256()
        for (run,) in connection.iterate(
            "SELECT children FROM merkle WHERE level = ? ORDER BY collection, key", (level,)
        ):
            if not are_children(run):
                return False
            for at in range(fmt.COUNT_BYTES, len(run), fmt.CHILD_BYTES):
                children.update(run[at : at + fmt.DIGEST_BYTES])
            digest = node_digest(level, run)
            nodes.update(digest)
        if children.digest() != below:
            return False
        below = nodes.digest()
    return digest == root


def size(connection: Connection) -> tuple[int, int]:
    """Return the number of levels and of nodes, counted."""
    return _top(connection), connection.value("SELECT count(*) FROM merkle")


def rows(connection: Connection, *, verbatim_: bool = False) -> Iterator[Row]:
    """Yield (id, level, collection, key, children) of every row, level by level, in order.

    With *verbatim_*, whatever is in it, as verbatim.decoded() does; else Damaged for text that is no UTF-8.
    """
    names = "id", "level", "collection", "key", "children"
    order = "FROM merkle ORDER BY level, collection, key"
    if verbatim_:
        return map(verbatim.decoded, connection.iterate(f"SELECT {verbatim.columns(*names)} {order}"))
    return connection.iterate(f"SELECT {', '.join(names)} {order}")


def top_rows(connection: Connection) -> list[Row]:
    """Return (level, children) of the nodes of the topmost level, of many only two."""
    rows = connection.rows(f"SELECT id, level, children FROM merkle WHERE level = ({_TOP}) LIMIT 2")
    for row in rows:
        raw_rows.MERKLE.check(row, connection.path)
    return [row[1:] for row in rows]


def _top(connection: Connection) -> int:
    """Return the level of the root's node, 0 if there are no nodes."""
    top = connection.value(_TOP)
    if top is None:
        return 0
    if not is_level(top):
        raise Damaged(f"I2: {connection.path}: the tree has a level {raw_rows.shown(top)}; restore a backup")
    return int(top)


def _check_node(connection: Connection, row: Row) -> None:
    """Raise unless (id, level, collection, key, children) are a node's.

    Raises:
        Damaged: they are not.
    """
    id_, level, collection, key, children = row
    if not is_level(level) or not are_children(children):
        raw_rows.MERKLE.check((id_, level, children), connection.path)
    if not is_node_name(collection, key):
        what = f"node {id_} has the name {raw_rows.shown(collection)}[{raw_rows.shown(key)}], which no entry can have"
        raise Damaged(f"I2: {connection.path}: {what}; restore a backup")


def _run(connection: Connection, row: Row, stop: Name | None = None) -> Run:
    """Return the run of a row (id, level, collection, key, children)."""
    _check_node(connection, row)
    id_, _, collection, key, children = row
    return Run(id_, stored_name(collection, key), children, stop)


def _path(connection: Connection, name: Name) -> dict[int, Run]:
    """Return the run that *name* falls into, for each level that has one at or before it."""
    return {
        level: _run(connection, (id_, level, collection, key, children))
        for level, id_, collection, key, children in connection.rows(_PATH, (name[0], name[2]))
    }


def _rewrite_level(
    connection: Connection, level: int, edits: Sequence[Edit], known: Run | None, *, exists: bool
) -> LevelRewrite:
    def load(name: Name) -> Run:
        if known is not None:
            return known
        if not exists:
            return Run(None, FIRST, b"")
        run = Run(None, FIRST, b"")
        for id_, collection, key, children in connection.rows(_AT_AND_NEXT, (level, name[0], name[2])):
            if id_ is not None:
                run = _run(connection, (id_, level, collection, key, children))
            elif is_node_name(collection, key):
                run.stop = stored_name(collection, key)
            else:
                raise _damaged(connection)
        return run

    def load_before(name: Name) -> Run:
        row = connection.row(_BEFORE, (level, name[0], name[2]))
        return Run(None, FIRST, b"", name) if row is None else _run(connection, (row[0], level, *row[1:]), name)

    def place(run: Run, names: Sequence[Name]) -> Sequence[int]:
        return state.places(connection, run.name, names)

    return LevelRewriter(level, load, load_before, place).rewrite(edits)


def _checked_top(connection: Connection, level: int, done: LevelRewrite, root: bytes) -> list[Node]:
    """Compare the root's node, as it was, with *root*; return it if the rewriting put all its nodes before it."""
    old = next((old for _, old, _ in done.edits if old is not None), None)
    if old is not None:
        if old != root:
            raise _damaged(connection)
        return []
    rows = connection.rows("SELECT id, level, collection, key, children FROM merkle WHERE level = ?", (level,))
    if len(rows) != 1:
        raise _damaged(connection)
    run = _run(connection, rows[0])
    if node_digest(level, run.children) != root:
        raise _damaged(connection)
    return [(run.name, None, count_bytes(count_of(run.children)) + root)]


def _damaged(connection: Connection) -> Damaged:
    return Damaged(
        f"I3: {connection.path}: the tree's root is not the one that the last commit recorded; "
        "nothing was written. Keep the file and restore a backup"
    )


def _ranked(nodes: Sequence[Node]) -> list[Node]:
    """Return *nodes* with their ranks known: a new level is cut among nodes that were there before."""
    ranked: list[Node] = []
    for name, rank_, child in nodes:
        if rank_ is None:
            rank_ = 0 if name == FIRST else rank(name_bytes(name))  # noqa: PLW2901
        ranked.append((name, rank_, child))
    return ranked


def _finish(connection: Connection, levels: dict[int, LevelRewrite]) -> Plan:
    """Drop the levels above the first that has a single node, and number the new rows."""
    top = max(levels)
    nodes = levels[top].nodes
    root = nodes[0][2][fmt.COUNT_BYTES :] if nodes else EMPTY_ROOT
    while top > 1 and nodes:
        id_, children = _single(connection, top, levels[top])
        if len(children) > fmt.CHILD_BYTES:
            break
        root = children[fmt.COUNT_BYTES :]
        levels[top].updates.clear()
        levels[top].inserts.clear()
        if id_ is not None:
            levels[top].deletes.append(id_)
        top -= 1
    updates: list[tuple[bytes, int]] = []
    inserts: list[tuple[int, Name, bytes]] = []
    deletes: list[int] = []
    for level, rewrite in levels.items():
        updates += [(children, id_) for id_, children in rewrite.updates]
        deletes += rewrite.deletes
        if rewrite.inserts:
            base = (fmt.LEVEL_MAX - level) << fmt.NODE_ID_SHIFT
            last: Any = connection.value(_LAST_ID, (base, base + (1 << fmt.NODE_ID_SHIFT)))
            first = base if last is None else last + 1
            inserts += [(id_, name, children) for id_, (name, children) in enumerate(rewrite.inserts, first)]
    return Plan(root, updates, inserts, deletes)


def _single(connection: Connection, level: int, rewrite: LevelRewrite) -> tuple[int | None, bytes]:
    """Return id and children of the one node that the rewriting leaves in the level."""
    if rewrite.updates:
        return rewrite.updates[0]
    if rewrite.inserts:
        return None, rewrite.inserts[0][1]
    gone = set(rewrite.deletes)
    rows: Iterator[tuple[int, bytes]] = connection.iterate(_LEVEL, (level,))
    found = next((row for row in rows if row[0] not in gone), None)
    if found is None:
        raise _damaged(connection)
    raw_rows.MERKLE.check((found[0], level, found[1]), connection.path)
    return found


_VERBATIM = f"SELECT {verbatim.columns('id', 'level', 'collection', 'key', 'children')} FROM merkle ORDER BY id"


def scan_verbatim(connection: Connection) -> Iterator[Row]:
    """Yield (id, level, collection, key, children) of every row, whatever is in it, as verbatim.decoded() does."""
    return map(verbatim.decoded, connection.iterate(_VERBATIM))


def replace_nodes(connection: Connection, deletes: Sequence[int], inserts: Sequence[tuple[int, Name, bytes]]) -> None:
    """Delete rows by id, and insert nodes as (level, name, children), inside the caller's transaction."""
    connection.run_many(_DELETE, [(id_,) for id_ in deletes])
    for level, name, children in inserts:
        base = (fmt.LEVEL_MAX - level) << fmt.NODE_ID_SHIFT
        last: Any = connection.value(_LAST_ID, (base, base + (1 << fmt.NODE_ID_SHIFT)))
        connection.run(_INSERT, (base if last is None else last + 1, level, name[0], name[2], children))
