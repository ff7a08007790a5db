"""Rewrites the tree for the changes of a commit: plan() computes the rows, write() writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, FIRST, count_bytes, count_of, node_digest, rank
from sqlstate.format.merkle_edit import Edit, LevelRewrite, LevelRewriter, Node, Run, leaf_edit, new_leaves_edit
from sqlstate.format.names import Name, name_bytes
from sqlstate.tables import merkle, state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlstate.commit.pending import Change
    from sqlstate.sqlite.connection import Connection

# From so many new entries on, it pays off to ask whether others are between them.
SIDE_BY_SIDE_MIN: Final = 8


class TreeUpdate(NamedTuple):
    """The rows that a commit changes in the table merkle."""

    root: bytes
    updates: list[tuple[bytes, int]]
    inserts: list[tuple[int, Name, bytes]]
    deletes: list[int]


def edits(connection: Connection, changes: Sequence[Change]) -> list[Edit]:
    """Return the edits of the leaves for *changes*, sorted by name; one for all if they are new and side by side."""
    if len(changes) > SIDE_BY_SIDE_MIN:
        names, _, _, befores, leaves, raws = zip(*changes, strict=True)
        if not any(befores) and not state.any_between(connection, names[0], names[-1]):
            return [new_leaves_edit(names, raws, leaves)]
    return [leaf_edit(name, raw, before, after) for name, _, _, before, after, raw in changes]


def plan(connection: Connection, edits: Sequence[Edit], root: bytes) -> TreeUpdate:
    """Return how *edits* of the leaves, sorted by name, change the tree whose root is *root*.

    The table state must still be as it was before the edits: it gives new entries their places in their runs.

    Raises:
        Damaged: an entry or a node that the edits touch contradicts the tree.
    """
    path = merkle.path(connection, edits[0][0]) if len(edits) == 1 else {}
    top = merkle.top(connection)
    if not top and root != EMPTY_ROOT:
        raise merkle.other_root(connection)
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


def write(connection: Connection, plan: TreeUpdate) -> None:
    """Write *plan*, inside the caller's transaction."""
    if plan.updates:
        merkle.update(connection, plan.updates)
    if plan.deletes:
        merkle.delete(connection, plan.deletes)
    if plan.inserts:
        merkle.insert(connection, plan.inserts)


def _rewrite_level(
    connection: Connection, level: int, edits: Sequence[Edit], known: Run | None, *, exists: bool
) -> LevelRewrite:
    runs = merkle.runs_at(connection, level, [edit[0] for edit in edits]) if exists and len(edits) > 1 else {}
    places = _places(connection, edits, runs) if level == 1 else {}

    def load(name: Name) -> Run:
        if name in runs:
            return runs[name]
        if known is not None:
            return known
        if not exists:
            return Run(None, FIRST, b"")
        return merkle.run_at(connection, level, name)

    def load_before(name: Name) -> Run:
        return merkle.run_before(connection, level, name)

    def place(run: Run, names: Sequence[Name]) -> Sequence[int]:
        if places:
            return [places[name] for name in names]
        return state.places(connection, run.name, names)

    return LevelRewriter(level, load, load_before, place).rewrite(edits)


def _places(connection: Connection, edits: Sequence[Edit], runs: Mapping[Name, Run]) -> dict[Name, int]:
    """Return the places of new entries in their runs of leaves, for all at once; none if their runs are not known."""
    new: dict[Name, list[Name]] = {}
    for name, old, _ in edits:
        if old is None and name in runs and runs[name].children:
            new.setdefault(runs[name].name, []).append(name)
    names = [name for each in new.values() for name in each]
    return dict(zip(names, state.places_in(connection, new), strict=True)) if new else {}


def _checked_top(connection: Connection, level: int, done: LevelRewrite, root: bytes) -> list[Node]:
    """Compare the old root's node with *root*; return that node if the rewriting put all new nodes before it."""
    old = next((old for _, old, _ in done.edits if old is not None), None)
    if old is not None:
        if old != root:
            raise merkle.other_root(connection)
        return []
    run = merkle.only_run(connection, level)
    if run is None or node_digest(level, run.children) != root:
        raise merkle.other_root(connection)
    return [(run.name, None, count_bytes(count_of(run.children)) + root)]


def _ranked(nodes: Sequence[Node]) -> list[Node]:
    """Return *nodes* with the missing ranks filled in: a new level is cut among nodes that were there before."""
    ranked: list[Node] = []
    for name, rank_, child in nodes:
        if rank_ is None:
            rank_ = 0 if name == FIRST else rank(name_bytes(name))  # noqa: PLW2901
        ranked.append((name, rank_, child))
    return ranked


def _finish(connection: Connection, levels: dict[int, LevelRewrite]) -> TreeUpdate:
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
            first = merkle.next_id(connection, level)
            inserts += [(id_, name, children) for id_, (name, children) in enumerate(rewrite.inserts, first)]
    return TreeUpdate(root, updates, inserts, deletes)


def _single(connection: Connection, level: int, rewrite: LevelRewrite) -> tuple[int | None, bytes]:
    """Return id and children of the one node that the rewriting leaves in the level."""
    if rewrite.updates:
        return rewrite.updates[0]
    if rewrite.inserts:
        return None, rewrite.inserts[0][1]
    found = merkle.first_node(connection, level, set(rewrite.deletes))
    if found is None:
        raise merkle.other_root(connection)
    return found
