"""What docs/reference/file-format.md says of the log over the commits (7.1) and of table `log_blocks` (3.8, I13).

Plainly: each digest is computed from all the leaves below it. A log is the list of its leaves, those of the chains.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.reference.notation import is_blob, sha256, short

BLOCK = 256


def leaf(chain: bytes) -> bytes:
    """Leaf n-1 of the log, from the chain of commit n."""
    return sha256(b"\x00" + chain)


def tree(leaves: Sequence[bytes]) -> bytes:
    """The tree hash of leaves, of all of them or of a part."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    left = half(len(leaves))
    return sha256(b"\x01" + tree(leaves[:left]) + tree(leaves[left:]))


def half(size: int) -> int:
    """The greatest power of two that is less than *size*."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def inclusion(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """What leaf *index* needs beside itself to give the root, from below."""
    if len(leaves) == 1:
        return []
    left = half(len(leaves))
    if index < left:
        return [*inclusion(index, leaves[:left]), tree(leaves[left:])]
    return [*inclusion(index - left, leaves[left:]), tree(leaves[:left])]


def consistency(old: int, leaves: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """What shows that the log begins with its first *old* leaves, of which there is at least one."""
    if old == len(leaves):
        return [] if whole else [tree(leaves)]
    left = half(len(leaves))
    if old <= left:
        return [*consistency(old, leaves[:left], whole=whole), tree(leaves[left:])]
    return [*consistency(old - left, leaves[left:], whole=False), tree(leaves[:left])]


def block_faults(rows: Iterable[tuple[Any, ...]], chains: Sequence[bytes]) -> Iterator[str]:
    """What is wrong with the rows of `log_blocks`, in order, over the chains of all commits (I13)."""
    leaves = [leaf(chain) for chain in chains]
    for expected, (block, digest) in enumerate(rows):
        start = expected * BLOCK
        if block != expected or not isinstance(block, int):
            yield f"block {short(block)} stands where {expected} must"
        elif start + BLOCK > len(leaves):
            yield f"block {block} is there, and its commits are not"
        elif not is_blob(digest, 32) or digest != tree(leaves[start : start + BLOCK]):
            yield f"block {block} has the digest {short(digest)}, not that of its commits"
