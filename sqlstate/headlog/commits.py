"""Proofs about commits under a signed head, and their verifiers."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final, NamedTuple

from sqlstate.errors import InvalidOption, ProofInvalid
from sqlstate.format import constants as fmt
from sqlstate.headlog.heads import TIME, SignedHead
from sqlstate.headlog.log import check_consistency, leaf_hash, root_from_inclusion
from sqlstate.proof import Proof

# Where count and time stand in the proof of a commit, and what comes before its path.
_COUNT_AT: Final = 2 * fmt.DIGEST_BYTES
_TIME_AT: Final = _COUNT_AT + fmt.COUNT_BYTES + 4
_TIME_BYTES: Final = 27
_COMMIT_BYTES: Final = _TIME_AT + _TIME_BYTES + fmt.DIGEST_BYTES
_DEPTH_MAX: Final = 63


class CommitFacts(NamedTuple):
    """What a proof says of a commit."""

    seq: int
    root: bytes
    """Root of the Merkle tree after it, 32 bytes."""
    count: int  # type: ignore[assignment]  # hides tuple.count
    """Number of entries after it."""
    at: str
    """When it was made."""
    chain: bytes
    """Digest of the commit chain, 32 bytes."""


def verify_commit(proof: Proof | bytes, head: SignedHead, seq: int) -> CommitFacts:
    """Return what commit *seq* was, in the history under a signed head.

    Cost: a hash for each doubling of the number of commits.

    Args:
        proof: from `store.prove_commit(seq, head.seq)`.
        head: what verify_head() returned. Only its `log_root` is trusted.
        seq: number of the commit.

    Returns:
        A named tuple of seq, root, count, at and chain.

    Raises:
        ProofInvalid: the proof does not show it; or *seq* is the head's own commit, and differs from what the head
            says.
        InvalidOption: the history under that head has no such commit, or *head* is not a SignedHead.

    Examples:
        >>> signer = sqlstate.Signer.generate("example.com/app")
        >>> for lang in "fr", "de":
        ...     store["settings"]["lang"] = lang
        >>> head = sqlstate.headlog.verify_head(store.signed_head(signer).text, signer.public)
        >>> sqlstate.headlog.verify_commit(store.prove_commit(1, head.seq), head, 1).count
        1
    """
    _check_head(head)
    if type(seq) is not int or not 1 <= seq <= head.seq:
        raise InvalidOption("there is no commit of that number under that head")
    body = _body(proof, "commit")
    if len(body) < _COMMIT_BYTES:
        raise ProofInvalid("the proof is cut short")
    at = body[_TIME_AT : _TIME_AT + _TIME_BYTES]
    if body[_TIME_AT - 4 : _TIME_AT] != _TIME_BYTES.to_bytes(4) or not re.fullmatch(TIME.encode(), at):
        raise ProofInvalid("the proof has a time that no commit has")
    count = int.from_bytes(body[_COUNT_AT : _TIME_AT - 4])
    if count > fmt.INT_MAX:
        raise ProofInvalid("the proof has a number that no store can have")
    before, rest = body[: fmt.DIGEST_BYTES], body[fmt.DIGEST_BYTES : _COMMIT_BYTES]
    chain = sha256(fmt.TAG_CHAIN + before + seq.to_bytes(fmt.COUNT_BYTES) + rest).digest()
    path = _path(body[_COMMIT_BYTES:])
    if root_from_inclusion(leaf_hash(chain), seq - 1, head.seq, path) != head.log_root:
        raise ProofInvalid("the proof leads to another history than the one that was signed")
    facts = CommitFacts(seq, body[fmt.DIGEST_BYTES : _COUNT_AT], count, at.decode(), chain)
    if seq == head.seq and facts[1:4] != _facts(head):
        raise ProofInvalid(f"commit {seq} of the signed history has another root, count or time than the head says")
    return facts


def verify_consistency(proof: Proof | bytes, old: SignedHead, new: SignedHead) -> None:
    """Check that the history under *new* begins with the whole history under *old*. Return None.

    Two heads of one commit must also agree on its root, count and time.

    Cost: a hash or two for each doubling of the number of commits.

    Args:
        proof: from `store.prove_consistency(old.seq, new.seq)`.
        old: what verify_head() returned for the earlier head.
        new: what verify_head() returned for the later one.

    Raises:
        ProofInvalid: the proof does not show it, the heads contradict each other, or the later history is shorter.
        InvalidOption: *old* or *new* is not a SignedHead.

    Examples:
        >>> signer = sqlstate.Signer.generate("example.com/app")
        >>> old = store.signed_head(signer)
        >>> store["settings"]["lang"] = "fr"
        >>> new = store.signed_head(signer)
        >>> sqlstate.headlog.verify_consistency(store.prove_consistency(0, 1), old, new)
    """
    _check_head(old)
    _check_head(new)
    if old.origin != new.origin:
        raise ProofInvalid(f"the heads are of two origins, '{old.origin}' and '{new.origin}'")
    path = _path(_body(proof, "consistency"))
    check_consistency((old.seq, old.log_root), (new.seq, new.log_root), path)
    if old.seq == new.seq and _facts(old) != _facts(new):
        raise ProofInvalid(f"the two heads say of commit {old.seq} another root, count or time: one of them is false")


def _check_head(head: SignedHead) -> None:
    if not isinstance(head, SignedHead):
        raise InvalidOption(f"a signed head to compare with is a SignedHead, not {type(head).__name__}")


def _facts(head: SignedHead) -> tuple[bytes, int, str]:
    return head.root, head.count, head.at


def _body(proof: Proof | bytes, kind: str) -> bytes:
    if not isinstance(proof, Proof):
        proof = Proof.from_bytes(proof)
    if proof.kind != kind:
        raise ProofInvalid(f"the proof is of kind {proof.kind!r}, and the question needs one of kind {kind!r}")
    return proof.body


def _path(data: bytes) -> list[bytes]:
    size = fmt.DIGEST_BYTES
    if len(data) % size or len(data) > size * 2 * _DEPTH_MAX:
        raise ProofInvalid("the path of the proof is not made of digests, or is longer than any log is deep")
    return [data[at : at + size] for at in range(0, len(data), size)]
