"""The part of the tree that a proof opens: reads it, hashes it up to the root, and finds places among its leaves."""

from __future__ import annotations

from bisect import bisect_left
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.errors import ProofInvalid
from sqlstate.format import constants as fmt
from sqlstate.proof.entries import BEYOND, KEY_KINDS, leaf_digest, leaf_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlstate.proof.entries import Content, Place


# Forms of a child in a proof.
OPAQUE, NODE, ASKED, NEIGHBOUR, ENTRY = range(5)
EMPTY_ROOT: Final = sha256(fmt.TAG_NODE + b"\x01").digest()
_COUNT_MAX: Final = 2 ** (8 * fmt.COUNT_BYTES) - 1


class OpenedLeaf(NamedTuple):
    """One leaf that a proof opens."""

    position: int
    """How many entries come before it."""
    place: Place
    asked: bool
    content: Content | None


class Gap(NamedTuple):
    """Where a place falls among the leaves."""

    next: int
    """Index of the first leaf that is not before it."""
    position: int
    """How many entries come before it."""
    neighbours: set[int]
    """Indexes of the leaves that show it."""


class Opened:
    """What a proof opens of a tree whose root the caller trusts: leaves in order, and how many entries there are."""

    def __init__(self, leaves: list[OpenedLeaf], total: int) -> None:
        self.leaves = leaves
        self._total = total
        self._places = [leaf.place for leaf in leaves]
        if any(not before < after for before, after in pairwise(self._places)):
            raise ProofInvalid("the entries under this root are not in order")

    def gap(self, place: Place, *, absent: bool = False) -> Gap:
        """Return where *place* falls between two leaves with no entry between them.

        Raises:
            ProofInvalid: the proof does not show it; or, with *absent*, there is an entry at the place.
        """
        leaves, index = self.leaves, bisect_left(self._places, place)
        position = leaves[index].position if index < len(leaves) else self._total
        if position != (leaves[index - 1].position + 1 if index else 0):
            raise ProofInvalid("the proof does not show what lies on both sides of a key or bound of the question")
        if absent and index < len(leaves) and leaves[index].place == place:
            raise ProofInvalid("there is an entry with the key that is asked for")
        return Gap(index, position, {each for each in (index - 1, index) if 0 <= each < len(leaves)})

    def check_spare(self, needed: set[int]) -> None:
        """Raise ProofInvalid if a leaf was opened that the question does not need."""
        if len(needed) != len(self.leaves):
            raise ProofInvalid("the proof opens what the question does not need")


class Reader:
    """Reads the part of a tree that a proof opens, and hashes it.

    Args:
        data: the body of the proof.
        allowed: forms of leaves that its kind may have.
        asked: place and leaf of the entries that the question holds, in order.
    """

    def __init__(self, data: bytes, allowed: set[int], asked: Iterable[tuple[Place, bytes]]) -> None:
        self._data = data
        self._at = 0
        self._allowed = allowed
        self._asked = iter(asked)
        self._leaves: list[OpenedLeaf] = []
        self._position = 0

    def read(self, root: bytes) -> Opened:
        """Return what the proof opens, if all of it leads to *root*.

        Raises:
            ProofInvalid: it does not, or is not in its one encoding.
        """
        level = self._take(1)[0]
        if level > fmt.LEVEL_MAX:
            raise ProofInvalid(f"the proof has a tree of {level} levels, and there are at most {fmt.LEVEL_MAX}")
        digest = self._node(level, top=True) if level else EMPTY_ROOT
        if self._at != len(self._data):
            raise ProofInvalid("there are bytes behind the proof")
        if digest != root:
            raise ProofInvalid(
                "the proof leads to another root: what it was asked to show does not follow from this one"
            )
        if next(self._asked, None) is not None:
            raise ProofInvalid("the proof does not show every entry that is asked for")
        return Opened(self._leaves, self._position)

    def _node(self, level: int, *, top: bool = False) -> bytes:
        """Read a node, and return its digest."""
        number = self._number(4)
        if number < (2 if top and level > 1 else 1):
            raise ProofInvalid("the proof has a node with fewer children than it must have")
        opened = len(self._leaves)
        hashed = sha256(fmt.TAG_NODE + bytes([level]))
        for _ in range(number):
            before = self._position
            child = self._child(level)
            if self._position > _COUNT_MAX:
                raise ProofInvalid("the proof counts more entries than a store can have")
            hashed.update((self._position - before).to_bytes(fmt.COUNT_BYTES) + child)
        if len(self._leaves) == opened:
            raise ProofInvalid("the proof opens a node of the tree for nothing")
        return hashed.digest()

    def _child(self, level: int) -> bytes:
        """Read a child of a node of *level*, count its entries, and return its digest."""
        form = self._take(1)[0]
        if form == OPAQUE:
            count = self._number(fmt.COUNT_BYTES)
            if not count or (level == 1 and count > 1):
                raise ProofInvalid("the proof counts a part of the tree wrongly")
            self._position += count
            return self._take(fmt.DIGEST_BYTES)
        if form == NODE and level > 1:
            return self._node(level - 1)
        if form not in self._allowed or level > 1:
            raise ProofInvalid("the proof has a part that does not belong there")
        return self._read_leaf(form)

    def _read_leaf(self, form: int) -> bytes:
        content = None
        if form == ASKED:
            place, digest = next(self._asked, (None, b""))
            if place is None:
                raise ProofInvalid("the proof shows more entries than are asked for")
        else:
            place, kind = self._name(), self._take(1)
            if kind not in (fmt.VKIND_JSON, fmt.VKIND_BYTES):
                raise ProofInvalid("the proof has a value of a kind that there is not")
            if form == ENTRY:
                content = kind, self._field(fmt.VALUE_BYTES_MAX)
                digest = leaf_of(place, *content)
            else:
                digest = leaf_digest(place, kind, self._take(fmt.DIGEST_BYTES))
        self._leaves.append(OpenedLeaf(self._position, place, form == ASKED, content))
        self._position += 1
        return digest

    def _name(self) -> Place:
        collection = self._field(fmt.NAME_BYTES_MAX)
        cls = KEY_KINDS.index(kind) if (kind := self._take(1)) in KEY_KINDS else BEYOND
        raw = self._field(fmt.KEY_BYTES_MAX)
        try:
            collection.decode()
            if cls == 1:
                raw.decode()
        except UnicodeDecodeError:
            cls = BEYOND
        if cls == BEYOND or not collection or not raw or (cls == 0 and len(raw) != _INT_BYTES):
            raise ProofInvalid("the proof has a name that no entry can have")
        return collection, cls, raw

    def _field(self, limit: int) -> bytes:
        size = self._number(4)
        if size > limit:
            raise ProofInvalid(f"the proof has a part of {size} bytes, and the limit is {limit}")
        return self._take(size)

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size))

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise ProofInvalid("the proof is cut short")
        self._at += size
        return taken


_INT_BYTES: Final = 8
