"""The table merkle: the tree's inner nodes (docs/reference/file-format.md, section 6).

A node row holds the node's preimage, so a commit reads one row a level and replaces 40 bytes in each.
The path is hashed before it is changed, up to the root that the last commit recorded: a commit never
builds on a damaged node (I2, I3).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, FIRST, child_at, count_of, node_digest
from sqlstate.format.merkle_edit import Run
from sqlstate.format.names import Name, stored_name
from sqlstate.tables import raw_rows, state
from sqlstate.tables.raw_rows import are_children, is_level, is_node_name, is_number, is_stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.format.names import Stored
    from sqlstate.sqlite.connection import Connection, Row

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
_RUN = (
    "SELECT (SELECT id FROM merkle WHERE level = ? AND (collection, key) <= (?, ?) "
    "ORDER BY collection DESC, key DESC LIMIT 1)"
)
_NODE = "SELECT id, children, collection, key FROM merkle WHERE id = ?"
_NODE_AND_NEXT = """
SELECT node.id, node.collection, node.key, node.children, next.collection, next.key
FROM merkle AS node LEFT JOIN merkle AS next ON next.id = (
  SELECT id FROM merkle WHERE level = node.level AND (collection, key) > (node.collection, node.key)
  ORDER BY collection, key LIMIT 1
) WHERE node.id = ?
"""


def top(connection: Connection) -> int:
    """Return the level of the root's node, 0 if there are no nodes."""
    found = connection.value(_TOP)
    if found is None:
        return 0
    if not is_level(found):
        raise Damaged.found(connection.path, f"the tree has a level {raw_rows.quoted(found)}", "I2")
    return int(found)


def value_and_run(connection: Connection, name: Name) -> tuple[Stored | None, Row | None]:
    """Return the stored value of an entry, and the run of leaves that it falls into; None where there is none.

    A run is the id of its node, its children, and the collection and key of its first entry.

    Raises:
        Damaged: the value or the node is malformed.
    """
    row = connection.row(_LEAVES, (name[0], name[2]))
    if row is None:  # it comes before all that there is
        return state.get(connection, name[0], name[2]), None
    value, id_, children, collection, key = row
    if not are_children(children) or not is_node_name(collection, key):
        check_node(connection, (id_, 1, collection, key, children))
    if value is not None and not is_stored(value):
        state.get(connection, name[0], name[2])  # says what is wrong
    return value, row[1:]


def leaf_runs(connection: Connection, names: Sequence[Name]) -> tuple[list[int | None], dict[int, Row]]:
    """Return the id of the run of leaves that each of *names* falls into, None if it has none; and the runs, by id.

    A run is id, children, collection and key, read once however many names fall into it. Nothing in it is validated.
    """
    ids = _runs(connection, 1, names)
    rows = connection.rows_many(_NODE, [(id_,) for id_ in dict.fromkeys(ids) if id_ is not None])
    return ids, {row[0]: row for row in rows}


def _runs(connection: Connection, level: int, names: Sequence[Name]) -> list[int | None]:
    return [id_ for (id_,) in connection.rows_many(_RUN, [(level, name[0], name[2]) for name in names])]


def above_leaves(connection: Connection, name: Name) -> int:
    """Return the id of the node of level 2 that *name* falls into, 0 if there is no such node."""
    return connection.value(_ABOVE_LEAVES, (name[0], name[2])) or 0


def node_at(connection: Connection, level: int, name: Name) -> Row | None:
    """Return (id, collection, key, children) of the node of *level* that *name* falls into, None if there is none.

    Nothing in it is validated.
    """
    return connection.row(_AT, (level, name[0], name[2]))


def path_rows(connection: Connection, name: Name) -> list[Row]:
    """Return (level, id, collection, key, children) of the node of each level that *name* falls into.

    Nothing in the rows is validated.
    """
    return connection.rows(_PATH, (name[0], name[2]))


def count(connection: Connection, start: Name, stop: Name) -> int:
    """Return the number of entries in [start, stop), read off the counts in the tree.

    Raises:
        Damaged: a node on a path does not hold the digest of its child, or the counts contradict each other.
    """
    between = _count_before(connection, stop) - _count_before(connection, start)
    if not is_number(between):
        raise Damaged.found(connection.path, "the counts in the tree contradict each other", "I2")
    return between


def _count_before(connection: Connection, name: Name) -> int:
    total = 0
    below: bytes | None = None
    for level, run in path(connection, name).items():
        if level == 1:
            total += state.count(connection, run.name, name)
        elif below is not None:
            at = child_at(run.children, below)
            total += count_of(run.children[:at])
        below = node_digest(level, run.children)
    return total


def holds(connection: Connection, name: Name, leaf: bytes | None, root: bytes, known: dict[int, bytes]) -> bool:
    """Return True if the path of an entry leads from its *leaf*, None if there is no such entry, to *root*.

    Args:
        connection: any.
        name: of the entry.
        leaf: its digest.
        root: of the newest commit.
        known: digests of nodes that lead to *root*, by row; new ones are added.
    """
    path: dict[int, bytes] = {}
    digest = leaf
    rows = path_rows(connection, name)
    if not rows and leaf is None:  # it would be before the first entry; the root's node must be there all the same
        rows = connection.rows("SELECT level, id, collection, key, children FROM merkle ORDER BY id LIMIT 1")
    for level, id_, collection, key, children in rows:
        check_node(connection, (id_, level, collection, key, children))
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
        for level, id_, collection, key, children in path_rows(connection, name):
            check_node(connection, (id_, level, collection, key, children))
            found[id_] = level, children
    levels = top(connection)
    if span:
        (first, _, low), (last, _, high) = names[0], names[-1]
        for level in range(1, levels + 1):
            for id_, children in connection.rows(_BETWEEN, (level, first, low, last, high)):
                raw_rows.MERKLE.check((id_, level, children), connection.path)
                found[id_] = level, children
    return levels, [*found.values()]


def is_over(connection: Connection, leaves: bytes, root: bytes) -> bool:
    """Return True if the nodes are, level by level, those over leaves whose digests, joined, have the hash *leaves*."""
    below, digest = leaves, EMPTY_ROOT
    for level in range(1, top(connection) + 1):
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
    return top(connection), connection.value("SELECT count(*) FROM merkle")


def rows(connection: Connection, level: int) -> Iterator[Row]:
    """Yield (id, collection, key, children) of every row of a level, in order, whatever is in it.

    Raises:
        Damaged: a text is no UTF-8.
    """
    sql = "SELECT id, collection, key, children FROM merkle WHERE level = ? ORDER BY collection, key"
    return connection.iterate(sql, (level,))


def top_rows(connection: Connection) -> list[Row]:
    """Return (level, children) of the nodes of the topmost level, two at most."""
    rows = connection.rows(f"SELECT id, level, children FROM merkle WHERE level = ({_TOP}) LIMIT 2")
    for row in rows:
        raw_rows.MERKLE.check(row, connection.path)
    return [row[1:] for row in rows]


def check_node(connection: Connection, row: Row) -> None:
    """Raise unless *row*, (id, level, collection, key, children), can be a node.

    Raises:
        Damaged: a field is invalid.
    """
    id_, level, collection, key, children = row
    if not is_level(level) or not are_children(children):
        raw_rows.MERKLE.check((id_, level, children), connection.path)
    if not is_node_name(collection, key):
        what = f"node {id_} has the name {raw_rows.quoted(collection)}[{raw_rows.quoted(key)}], which no entry can have"
        raise Damaged.found(connection.path, what, "I2")


def _parsed_run(connection: Connection, row: Row, stop: Name | None = None) -> Run:
    """Return the run of a row (id, level, collection, key, children)."""
    check_node(connection, row)
    id_, _, collection, key, children = row
    return Run(id_, stored_name(collection, key), children, stop)


def path(connection: Connection, name: Name) -> dict[int, Run]:
    """Return the run that *name* falls into, for each level that has one at or before it."""
    return {
        level: _parsed_run(connection, (id_, level, collection, key, children))
        for level, id_, collection, key, children in path_rows(connection, name)
    }


def run_at(connection: Connection, level: int, name: Name) -> Run:
    """Return the run of a level that *name* falls into, with the name of the next one."""
    run = Run(None, FIRST, b"")
    for id_, collection, key, children in connection.rows(_AT_AND_NEXT, (level, name[0], name[2])):
        if id_ is not None:
            run = _parsed_run(connection, (id_, level, collection, key, children))
        elif is_node_name(collection, key):
            run.stop = stored_name(collection, key)
        else:
            raise other_root(connection)
    return run


def runs_at(connection: Connection, level: int, names: Sequence[Name]) -> dict[Name, Run]:
    """Return the run of a level that each of *names* falls into, as run_at() does, with few statements."""
    ids = _runs(connection, level, names)
    runs: dict[int | None, Run] = {}
    there = [(id_,) for id_ in dict.fromkeys(ids) if id_ is not None]
    for id_, collection, key, children, *stop in connection.rows_many(_NODE_AND_NEXT, there):
        run = runs[id_] = _parsed_run(connection, (id_, level, collection, key, children))
        if stop[0] is not None:
            if not is_node_name(*stop):
                raise other_root(connection)
            run.stop = stored_name(*stop)
    if None in ids:
        runs[None] = run_at(connection, level, names[ids.index(None)])
    return {name: runs[id_] for name, id_ in zip(names, ids, strict=True)}


def run_before(connection: Connection, level: int, name: Name) -> Run:
    """Return the run of a level before the one of *name*."""
    row = connection.row(_BEFORE, (level, name[0], name[2]))
    return Run(None, FIRST, b"", name) if row is None else _parsed_run(connection, (row[0], level, *row[1:]), name)


def only_run(connection: Connection, level: int) -> Run | None:
    """Return the run of the only node of a level; None if the level has no node, or several."""
    rows = connection.rows("SELECT id, level, collection, key, children FROM merkle WHERE level = ?", (level,))
    return _parsed_run(connection, rows[0]) if len(rows) == 1 else None


def first_node(connection: Connection, level: int, without: set[int]) -> tuple[int, bytes] | None:
    """Return id and children of the first node of a level whose id is not in *without*; None if all are."""
    found: Iterator[tuple[int, bytes]] = connection.iterate(_LEVEL, (level,))
    node = next((row for row in found if row[0] not in without), None)
    if node is not None:
        raw_rows.MERKLE.check((node[0], level, node[1]), connection.path)
    return node


def next_id(connection: Connection, level: int) -> int:
    """Return the id of the next row of a level."""
    base = (fmt.LEVEL_MAX - level) << fmt.NODE_ID_SHIFT
    last: int | None = connection.value(_LAST_ID, (base, base + (1 << fmt.NODE_ID_SHIFT)))
    return base if last is None else last + 1


def update(connection: Connection, updates: Sequence[tuple[bytes, int]]) -> None:
    """Replace the children of nodes, (children, id) of each, inside the caller's transaction."""
    connection.run_many(_UPDATE, updates)


def insert(connection: Connection, nodes: Sequence[tuple[int, Name, bytes]]) -> None:
    """Insert nodes, (id, name, children) of each, inside the caller's transaction. An id says the level."""
    rows = [(id_, fmt.LEVEL_MAX - (id_ >> fmt.NODE_ID_SHIFT), name[0], name[2], run) for id_, name, run in nodes]
    connection.run_many(_INSERT, rows)


def delete(connection: Connection, ids: Sequence[int]) -> None:
    """Delete nodes by id, inside the caller's transaction."""
    connection.run_many(_DELETE, [(id_,) for id_ in ids])


def other_root(connection: Connection) -> Damaged:
    """Return the error that says that the tree has another root than the last commit recorded."""
    return Damaged(
        f"I3: {connection.path}: the tree's root is not the one that the last commit recorded; "
        "nothing was written. Keep the file and restore a backup"
    )


_RAW = f"SELECT {raw_rows.columns('id', 'level', 'collection', 'key', 'children')} FROM merkle ORDER BY id"


def scan_raw(connection: Connection) -> Iterator[Row]:
    """Yield (id, level, collection, key, children) of every row, of any kind, as raw_rows.decoded() gives them."""
    return map(raw_rows.decoded, connection.iterate(_RAW))


def replace_nodes(connection: Connection, deletes: Sequence[int], inserts: Sequence[tuple[int, Name, bytes]]) -> None:
    """Delete rows by id, and insert nodes as (level, name, children), inside the caller's transaction."""
    delete(connection, deletes)
    for level, name, children in inserts:
        insert(connection, [(next_id(connection, level), name, children)])
