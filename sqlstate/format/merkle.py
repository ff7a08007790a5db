"""Shape and digests of the Merkle tree, from entries alone (docs/reference/file-format.md, section 6)."""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Final

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt

if TYPE_CHECKING:
    from hashlib import _Hash

    from sqlstate.format.names import Name, Stored

# Names the first node of a level if its first entry has not the rank to start a run by itself.
FIRST: Final[Name] = ("", 1, "")

EMPTY_ROOT: Final = sha256(fmt.TAG_NODE + b"\x01").digest()

NODE_TAG: Final = tuple(fmt.TAG_NODE + bytes([level]) for level in range(fmt.LEVEL_MAX + 1))
_CHILD: Final = Struct(f">Q{fmt.DIGEST_BYTES}x")
LEAF_COUNT: Final = (1).to_bytes(fmt.COUNT_BYTES)


def leaf(name: bytes, stored: Stored) -> bytes:
    """Return the digest of the entry with *name* (`name_bytes()`) and the value *stored*."""
    if type(stored) is str:
        if len(stored) <= _HASHED_AT_ONCE:
            content = fmt.VKIND_JSON + sha256(stored.encode()).digest()
        else:
            content = fmt.VKIND_JSON + _text_digest(stored)
    else:
        content = fmt.VKIND_BYTES + sha256(stored).digest()  # type: ignore[arg-type]
    return sha256(fmt.TAG_LEAF + name + content).digest()


class Leaf(bytes):
    """The leaf of an entry, in the place of a value that the log does not have."""

    __slots__ = ()


def as_leaf(digest: bytes | None) -> Leaf | None:
    """Return a digest as a Leaf; None for no entry."""
    return None if digest is None else Leaf(digest)


def leaf_of(name: bytes, stored: Stored | Leaf | None) -> bytes | None:
    """Return the digest of an entry whose value may be known by its digest alone; None for no entry."""
    return stored if stored is None or type(stored) is Leaf else leaf(name, stored)


def _text_digest(text: str) -> bytes:
    """Return the digest of a large text, without a copy of it."""
    digest = sha256()
    for at in range(0, len(text), _HASHED_AT_ONCE):
        digest.update(text[at : at + _HASHED_AT_ONCE].encode())
    return digest.digest()


_HASHED_AT_ONCE: Final = 1 << 20


def rank(name: bytes) -> int:
    """Return how many levels up the entry with *name* (`name_bytes()`) starts a run: 0 for 15 of 16 entries."""
    digest = sha256(fmt.TAG_RANK + name).digest()
    if digest[-1] & 15:
        return 0
    groups = digest.hex()
    return min(len(groups) - len(groups.rstrip("0")), fmt.RANK_MAX)


def node_digest(level: int, children: bytes) -> bytes:
    """Return the digest of the node of *level* whose children are *children*, as stored."""
    return sha256(NODE_TAG[level] + children).digest()


def count_of(children: bytes) -> int:
    """Return the number of entries below the node with *children*."""
    return sum(count for (count,) in _CHILD.iter_unpack(children))


def count_bytes(count: int) -> bytes:
    """Return the number of entries below a node as it stands in the node above.

    Raises:
        Damaged: it exceeds the limit: the counts were changed from outside.
    """
    if count > fmt.NUMBER_MAX:
        raise Damaged(f"I2: a node of the tree counts {count} entries, and 2^62 are the most; restore a backup")
    return count.to_bytes(fmt.COUNT_BYTES)


def child_at(children: bytes, digest: bytes, start: int = 0) -> int:
    """Return the offset of the child with *digest* in *children*, searching from *start*.

    Raises:
        Damaged: there is no such child.
    """
    at = children.find(digest, start + fmt.COUNT_BYTES)
    while at >= 0:
        if at % fmt.CHILD_BYTES == fmt.COUNT_BYTES:
            return at - fmt.COUNT_BYTES
        at = children.find(digest, at + 1)
    raise Damaged(
        "I2: a node of the tree does not hold the digest of its child: an entry or a node was changed from outside. "
        "Nothing was written; keep the file and restore a backup"
    )


class RootBuilder:
    """Hashes the whole tree over entries that are given in their order; keeps one digest in the making a level."""

    __slots__ = ("_last", "_runs")

    def __init__(self) -> None:
        # The run that is open at level 1, 2, …: its digest in the making, None without one, and its count;
        # and how many nodes of the level are complete.
        self._runs: list[tuple[_Hash | None, int, int]] = [(None, 0, 0)] * fmt.LEVEL_MAX
        self._last = EMPTY_ROOT

    def add(self, leaf: bytes, rank: int) -> None:
        """Add the next entry, by its leaf() and rank()."""
        for level in range(1, rank + 1):
            self._close(level)
        self._append(1, LEAF_COUNT + leaf, 1)

    def finish(self) -> tuple[bytes, int]:
        """Return the root, and the number of entries. Nothing is added after it."""
        total = sum(count for _, count, _ in self._runs)
        for level in range(1, fmt.LEVEL_MAX + 1):
            self._close(level)
            if self._runs[level - 1][2] <= 1:
                break
        return self._last, total

    def _append(self, level: int, child: bytes, count: int) -> None:
        digest, below, complete = self._runs[level - 1]
        if digest is None:
            digest = sha256(NODE_TAG[level])
        digest.update(child)
        self._runs[level - 1] = digest, below + count, complete

    def _close(self, level: int) -> None:
        """Complete the open run of a level, if there is one: it is a child of the open run above."""
        digest, count, complete = self._runs[level - 1]
        if digest is None:
            return
        self._runs[level - 1] = None, 0, complete + 1
        self._last = digest.digest()
        if level < fmt.LEVEL_MAX:
            self._append(level + 1, count.to_bytes(fmt.COUNT_BYTES) + self._last, count)
