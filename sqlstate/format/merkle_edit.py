"""Rewrites the Merkle tree level by level, in memory.

At each level some *runs* are touched: a run is the children of one node, held as the node's preimage. An `Edit` says
which child digest of which run is replaced by which nodes; rewriting a level cuts the new sequence into runs and gives
the edits for the level above. Only touched runs are read, so the cost is touched entries times levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import (
    FIRST,
    LEAF_COUNT,
    child_at,
    count_bytes,
    count_of,
    node_digest,
    rank,
)
from sqlstate.format.names import Name, name_bytes

# Plain tuples, not classes: there is one of each for every entry of a batch, and Python's garbage
# collector forgets tuples of atoms, but looks at instances again and again (a third of a bulk load).

# One child of the level being rewritten: name of its first entry, that entry's rank, u64(count) ‖ digest.
# The rank is None for a node that was there before and keeps its name.
Node = tuple[Name, int | None, bytes]

# One child replaced by none, one or several: its name, its digest (None for an insertion), the new ones.
# An insertion has the name of the new child; at level 2 and above it is FIRST, and comes before all others.
Edit = tuple[Name, bytes | None, Sequence[Node]]


@dataclass(slots=True)
class Run:
    """The children of one node as they are stored; `id` is None for a node that does not exist yet."""

    id: int | None
    name: Name
    children: bytes
    stop: Name | None = None
    """Name of the next node of the level, None if this is the last."""


class Piece:
    """A run of the new sequence, as the chunks of bytes it is put together from."""

    __slots__ = ("chunks", "name")

    def __init__(self, name: Name, chunks: list[bytes] | None = None) -> None:
        self.name: tuple[str, int, int | str | bytes] = name
        self.chunks: list[bytes] = [] if chunks is None else chunks


# Reads the run that a name falls into, or the run before the one of that name. Before the first run
# of the level both give a run FIRST without id and children, whose stop is the first run's name.
Load = Callable[[Name], Run]
# The place of each new name among the children of a run of leaves.
Place = Callable[[Run, Sequence[Name]], Sequence[int]]


@dataclass(slots=True)
class LevelRewrite:
    """What rewriting one level asks of the table, and of the level above."""

    updates: list[tuple[int, bytes]] = field(default_factory=list)
    inserts: list[tuple[Name, bytes]] = field(default_factory=list)
    deletes: list[int] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        """The new nodes of the level, in order, of the runs that were touched."""
        return [node for _, _, new in self.edits for node in new]


class LevelRewriter:
    """Rewrites the runs of one level.

    Args:
        level: the level whose nodes are rewritten, 1 to 16.
        load: gives the run that a name falls into.
        load_before: gives the run before the one of that name.
        place: gives positions for insertions; only asked at level 1.
    """

    def __init__(self, level: int, load: Load, load_before: Load, place: Place) -> None:
        self._level = level
        self._load = load
        self._load_before = load_before
        self._place = place
        self._touched: dict[Name, tuple[Run, list[Piece]]] = {}
        # The last piece with children, and where the run that it came from ends.
        self._tail: tuple[Piece, Name | None] | None = None
        # From here to there stood runs that this rewriting left without a child of their own.
        self._void: tuple[Name, Name | None] | None = None

    def rewrite(self, edits: Sequence[Edit]) -> LevelRewrite:
        """Return the rewriting that *edits*, sorted by name, ask for.

        Raises:
            Damaged: a child that is to be replaced is not there.
        """
        start = 0
        while start < len(edits):
            run = self._load(edits[start][0])
            end = len(edits)
            if run.stop is not None:
                end = start + 1
                while end < len(edits) and edits[end][0] < run.stop:
                    end += 1
            self._rewrite_run(run, edits[start:end])
            start = end
        return self._result()

    def _rewrite_run(self, run: Run, edits: Sequence[Edit]) -> None:
        children, run_name, level = run.children, run.name, self._level
        places = self._places(run, edits)
        pieces: list[Piece] = []
        self._touched[run_name] = run, pieces
        current: Piece | None = None  # until a boundary comes, children belong to the run before
        if run_name == FIRST or (children and (places[0] or edits[0][1] is None)):
            current = Piece(run_name)
            pieces.append(current)
        cursor = 0
        for (_, old, new), place in zip(edits, places, strict=True):
            if place > cursor:
                current = current or self._piece_before(run)
                current.chunks.append(children[cursor:place])
            for name, rank_, child in new:
                if name == run_name if rank_ is None else rank_ >= level:
                    current = Piece(name)
                    pieces.append(current)
                elif current is None:
                    current = self._piece_before(run)
                current.chunks.append(child)
            cursor = place if old is None else place + fmt.CHILD_BYTES
        if cursor < len(children):
            current = current or self._piece_before(run)
            current.chunks.append(children[cursor:])
        self._close(run, pieces)

    def _places(self, run: Run, edits: Sequence[Edit]) -> Sequence[int]:
        new = [name for name, old, _ in edits if old is None]
        at = iter(self._place(run, new) if new and run.children and self._level == 1 else [0] * len(new))
        places = []
        cursor = 0
        for _, old, _ in edits:
            cursor = next(at) * fmt.CHILD_BYTES if old is None else child_at(run.children, old, cursor)
            places.append(cursor)
        return places

    def _piece_before(self, run: Run) -> Piece:
        """Return the last piece before *run*: what a run without its first child is joined to."""
        edge = self._void[0] if self._void and self._void[1] == run.name else run.name
        if self._tail is None or self._tail[1] != edge:
            before = self._load_before(edge)
            piece = Piece(before.name, [before.children] if before.children else [])
            self._touched.setdefault(before.name, (before, []))[1].append(piece)
            self._tail = piece, edge
        return self._tail[0]

    def _close(self, run: Run, pieces: list[Piece]) -> None:
        last = next((piece for piece in reversed(pieces) if piece.chunks), None)
        if last is not None:
            self._void = None
            self._tail = last, run.stop
        elif self._void and self._void[1] == run.name:
            self._void = self._void[0], run.stop
        else:
            self._void = run.name, run.stop

    def _result(self) -> LevelRewrite:
        result = LevelRewrite()
        for name in sorted(self._touched):
            run, pieces = self._touched[name]
            nodes = []
            missing = run.id is not None
            for piece in pieces:
                if not piece.chunks:
                    continue
                children = b"".join(piece.chunks)
                nodes.append(self._node(piece.name, children, kept=piece.name == name))
                if run.id is None or piece.name != name:
                    result.inserts.append((piece.name, children))
                    continue
                missing = False
                if children != run.children:
                    result.updates.append((run.id, children))
            if missing and run.id is not None:
                result.deletes.append(run.id)
            old = None if run.id is None else node_digest(self._level, run.children)
            if old is not None or nodes:
                result.edits.append((name, old, nodes))
        return result

    def _node(self, name: Name, children: bytes, *, kept: bool) -> Node:
        count = len(children) // fmt.CHILD_BYTES if self._level == 1 else count_of(children)
        child = count_bytes(count) + node_digest(self._level, children)
        return name, None if kept else rank(name_bytes(name)), child


def splice_child(children: bytes, old: bytes, new: bytes, added: int = 0) -> bytes:
    """Return the children of a node with the digest of one replaced, and *added* entries more counted in it.

    Raises:
        Damaged: there is no such child.
    """
    at = children.find(old)
    if at % fmt.CHILD_BYTES != fmt.COUNT_BYTES:  # not found, or found across two fields
        at = child_at(children, old) + fmt.COUNT_BYTES
    before, after = children[:at], children[at + fmt.DIGEST_BYTES :]
    if added:
        start = at - fmt.COUNT_BYTES
        before = children[:start] + count_bytes(int.from_bytes(children[start:at]) + added)
    return before + new + after


def delete_leaf(children: bytes, digest: bytes) -> bytes:
    """Return the children of a node of level 1 without the leaf *digest*.

    Raises:
        Damaged: there is no such leaf.
    """
    at = child_at(children, digest)
    return children[:at] + children[at + fmt.CHILD_BYTES :]


def insert_leaf(children: bytes, place: int, digest: bytes) -> bytes:
    """Return the children of a node of level 1 with a leaf, which starts no run of its own, before number *place*."""
    at = place * fmt.CHILD_BYTES
    return children[:at] + LEAF_COUNT + digest + children[at:]


def leaf_edit(name: Name, raw: bytes, before: bytes | None, after: bytes | None) -> Edit:
    """Return the edit of level 1 for one changed entry, from its leaves before and after; None for no entry.

    *raw* is `name_bytes(name)`.
    """
    if after is None:
        return name, before, ()
    # A changed value needs no rank: it starts a run if it did before.
    return name, before, ((name, rank(raw) if before is None else None, LEAF_COUNT + after),)


def new_leaves_edit(names: Sequence[Name], raws: Sequence[bytes], leaves: Sequence[bytes]) -> Edit:
    """Return the edit of level 1 that puts in new entries side by side: nodes that hold many leaves at once."""
    starts = ranked(raws)
    if not starts or starts[0][0]:
        starts.insert(0, (0, 0))
    stops = [*(at for at, _ in starts[1:]), len(leaves)]
    nodes = [
        (names[at], rank_, LEAF_COUNT + LEAF_COUNT.join(leaves[at:stop]))
        for (at, rank_), stop in zip(starts, stops, strict=True)
    ]
    return names[0], None, nodes


def ranked(raws: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return place and rank of those of *raws*, the `name_bytes()` of entries, that have a rank above 0."""
    return [(at, rank(raw)) for at, raw in enumerate(raws) if not sha256(fmt.TAG_RANK + raw).digest()[-1] & 15]
