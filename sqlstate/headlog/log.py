"""The log over the commits: that of RFC 6962 over the digests of the commit chain (file-format.md, section 7.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from sqlstate.errors import ProofInvalid

EMPTY: Final = sha256(b"").digest()
"""Root of the log of no commits."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"

Subtree = Callable[[int, int], bytes]
"""Gives the tree hash of the leaves [start, stop)."""


def leaf_hash(chain: bytes) -> bytes:
    """Return the log's leaf for a commit with this digest of the chain."""
    return sha256(_LEAF + chain).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the digest over two subtrees."""
    return sha256(_NODE + left + right).digest()


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the log with these leaves, each as leaf_hash() gives it."""
    # Pairs are joined level by level; an odd one goes up as it is, which is where RFC 6962 cuts.
    level = list(leaves)
    while len(level) > 1:
        joined = [node_hash(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
        level = [*joined, level[-1]] if len(level) % 2 else joined
    return level[0] if level else EMPTY


def inclusion_path(subtree: Subtree, index: int, size: int) -> list[bytes]:
    """Return the path that leads from leaf *index* to the root of the log of *size* leaves (RFC 6962, 2.1.1).

    Args:
        subtree: gives the tree hash of any span of leaves that the path needs.
        index: from 0 to *size* - 1.
        size: 1 or more.
    """
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _cut(stop - start)
        if index < middle:
            path.append(subtree(middle, stop))
            stop = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    return path[::-1]


def consistency_path(subtree: Subtree, old: int, new: int) -> list[bytes]:
    """Return what shows that the log of *new* leaves begins with that of *old* leaves (RFC 6962, 2.1.2).

    Args:
        subtree: gives the tree hash of any span of leaves that the path needs.
        old: from 1 to *new*.
        new: 1 or more.
    """
    path: list[bytes] = []
    start, stop = 0, new
    while stop != old:
        middle = start + _cut(stop - start)
        if old <= middle:
            path.append(subtree(middle, stop))
            stop = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    if start:  # else it is the old root, which the verifier has
        path.append(subtree(start, stop))
    return path[::-1]


def _cut(leaves: int) -> int:
    """Return the greatest power of two below a number of leaves: where RFC 6962 cuts them."""
    return 1 << (leaves - 1).bit_length() - 1


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that *path* leads to from a leaf (RFC 9162, 2.1.3.2).

    Raises:
        ProofInvalid: the path is longer or shorter than it must be.
    """
    digest, left, right = leaf, index, size - 1
    for step in path:
        if not right:
            raise ProofInvalid("the path of the proof is longer than the log is deep")
        if left & 1 or left == right:
            digest = node_hash(step, digest)
            while left and not left & 1:
                left, right = left >> 1, right >> 1
        else:
            digest = node_hash(digest, step)
        left, right = left >> 1, right >> 1
    if right:
        raise ProofInvalid("the path of the proof does not reach the root of the log")
    return digest


def check_consistency(old: tuple[int, bytes], new: tuple[int, bytes], path: Sequence[bytes]) -> None:
    """Check that the log *new* begins with the log *old*, each given as size and root (RFC 9162, 2.1.4.2).

    Raises:
        ProofInvalid: the path does not show it.
    """
    (first, old_root), (second, new_root) = old, new
    if first > second:
        raise ProofInvalid(f"the later head has {second} commits and the earlier one {first}: history was cut off")
    if first in (0, second):
        if path or (not first and old_root != EMPTY) or (first == second and old_root != new_root):
            raise ProofInvalid("the two heads do not belong to one history, or the proof is for other heads")
        return
    left, right = first - 1, second - 1
    while left & 1:
        left, right = left >> 1, right >> 1
    steps = iter(path)
    before = after = old_root if not first & (first - 1) else next(steps, b"")
    for step in steps:
        if not right:
            raise ProofInvalid("the path of the proof is longer than the log is deep")
        if left & 1 or left == right:
            before, after = node_hash(step, before), node_hash(step, after)
            while left and not left & 1:
                left, right = left >> 1, right >> 1
        else:
            after = node_hash(after, step)
        left, right = left >> 1, right >> 1
    if right:
        raise ProofInvalid("the path of the proof does not reach the root of the log")
    if before != old_root or after != new_root:
        raise ProofInvalid(
            "the proof does not show that the later history begins with the earlier one: it was changed, or the proof "
            "is for other heads"
        )
