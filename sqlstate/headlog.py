"""The log over the commits, and signed heads: proofs about commits, and their verifier. Runs without SQLite.

The log is that of RFC 6962 over the digests of the commit chain (docs/reference/file-format.md, section 7.1). Its
head is signed as a C2SP signed note that is a C2SP tlog-checkpoint (docs/reference/proofs.md): Ed25519, by the
package `cryptography`. Origin and key always come from the caller, never from what is verified.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

from sqlstate.errors import Damaged, InvalidOption, ProofInvalid
from sqlstate.format import constants as fmt
from sqlstate.proof import EMPTY_ROOT, Proof

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

EMPTY: Final = sha256(b"").digest()
"""Root of the log of no commits."""

NOTE_BYTES_MAX: Final = 1 << 17  # C2SP: 16 signatures must fit, and those of some kinds have nearly 5 kB
SIGNATURES_MAX: Final = 16
ORIGIN_BYTES_MAX: Final = 255

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_PRIVATE: Final = "PRIVATE+KEY+"
_SIGNED: Final = "\u2014 "  # begins each line of a signature
# Listed, so that no version of Unicode changes them. C2SP keeps spaces, plus signs and ASCII controls out of the name
# of any key; an origin of ours has no other controls and no invisible marks either.
_NAME: Final = r"[^\x00-\x20+\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
_ORIGIN: Final = r"[^\x00-\x20+\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]+"
_TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_TEXT: Final = re.compile(
    rf"(?P<origin>{_ORIGIN})\n(?P<seq>0|[1-9][0-9]{{0,18}})\n(?P<log_root>[A-Za-z0-9+/]{{43}}=)\n"
    rf"root (?P<root>[0-9a-f]{{64}})\ncount (?P<count>0|[1-9][0-9]{{0,18}})\nat (?P<at>{_TIME})\n"
)
_SIGNATURE: Final = re.compile(rf"{_SIGNED}(?P<name>{_NAME}) (?P<signature>[A-Za-z0-9+/]+={{0,2}})")
_KEY: Final = re.compile(
    rf"[ \t\r\n]*(?P<private>PRIVATE\+KEY\+)?(?P<origin>{_ORIGIN})\+(?P<id>[0-9a-f]{{8}})\+(?P<key>[A-Za-z0-9+/]{{44}})"
    r"[ \t\r\n]*"
)

Subtree = Callable[[int, int], bytes]
"""Gives the tree hash of the leaves [start, stop)."""


# ---- The log ----


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


# ---- Keys ----


class Signer:
    """A private key and the origin that it signs for: the name of a store, chosen by its keeper.

    It needs the package `cryptography`, which the extra `sign` brings.

    Args:
        text: the private key, as `text` has it and `sqlstate keygen` writes it. Spaces and line ends around it are
            ignored.

    Raises:
        InvalidOption: it is not a private key, or the package `cryptography` is missing.

    Examples:
        >>> signer = sqlstate.Signer.generate("example.com/app")
        >>> sqlstate.Signer(signer.text).public == signer.public
        True
    """

    __slots__ = ("_key", "_seed", "origin")

    def __init__(self, text: str) -> None:
        parts = _key_parts(text, private=True)
        if parts is None:
            raise InvalidOption("this is no private key: it begins with PRIVATE+KEY+ and is one line")
        self.origin, digits, self._seed = parts
        self._key: Ed25519PrivateKey = _ed25519().Ed25519PrivateKey.from_private_bytes(self._seed)
        if digits != self._id.hex():
            raise InvalidOption("this is no private key: its parts do not belong together")

    @classmethod
    def generate(cls, origin: str) -> Self:
        """Return a new key.

        Cost: none.

        Args:
            origin: what it signs for, such as "example.com/orders": text of 1 to 255 bytes without spaces, plus signs,
                control characters and invisible marks.

        Raises:
            InvalidOption: *origin* is not such text, or the package `cryptography` is missing.

        Examples:
            >>> sqlstate.Signer.generate("example.com/app").origin
            'example.com/app'
        """
        key = _ed25519().Ed25519PrivateKey.generate()
        head = f"{_PRIVATE}{check_origin(origin)}+{_key_id(origin, key.public_key().public_bytes_raw()).hex()}+"
        return cls(head + _encoded(_ED25519 + key.private_bytes_raw()))

    @property
    def text(self) -> str:
        """The private key as one line. Whoever has it can sign in the name of the origin."""
        return f"{_PRIVATE}{self.origin}+{self._id.hex()}+{_encoded(_ED25519 + self._seed)}"

    @property
    def public(self) -> str:
        """The public key as one line: what a verifier needs."""
        return f"{self.origin}+{self._id.hex()}+{_encoded(_ED25519 + self._public)}"

    def sign(self, text: str) -> str:
        """Return the C2SP signed note of *text*. `Store.signed_head()` calls it.

        Cost: one Ed25519 signature.

        Args:
            text: what to sign; it ends with a line end.

        Raises:
            UnicodeEncodeError: *text* holds a lone surrogate.

        Examples:
            >>> sqlstate.Signer.generate("example.com/app").sign(f"hello{chr(10)}").splitlines()[0]
            'hello'
        """
        return f"{text}\n{_SIGNED}{self.origin} {_encoded(self._id + self._key.sign(text.encode()))}\n"

    def __repr__(self) -> str:
        return f"<sqlstate.Signer {self.public!r}>"

    @property
    def _public(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    @property
    def _id(self) -> bytes:
        return _key_id(self.origin, self._public)


def check_origin(origin: str) -> str:
    """Return *origin* if a key can sign for it.

    Raises:
        InvalidOption: it is not text of 1 to 255 bytes, or has a space, plus sign, control or invisible mark.
    """
    if not isinstance(origin, str) or not _is_origin(origin):
        raise InvalidOption(
            f"origin={origin!r} is not text of 1 to {ORIGIN_BYTES_MAX} bytes without spaces, plus signs, controls and "
            "invisible marks"
        )
    return origin


def _is_origin(text: str) -> bool:
    return re.fullmatch(_ORIGIN, text) is not None and 1 <= len(_utf8(text) or b"") <= ORIGIN_BYTES_MAX


def _public_key(text: str) -> tuple[str, bytes, bytes]:
    """Return origin, key id and public key that *text* writes."""
    parts = _key_parts(text, private=False)
    if parts is None:
        raise InvalidOption("this is no public key: it is one line, ORIGIN+HEX+BASE64, as `sqlstate keygen` writes it")
    origin, digits, public = parts
    if digits != _key_id(origin, public).hex():
        raise InvalidOption("this is no public key: its parts do not belong together")
    return origin, bytes.fromhex(digits), public


def _key_parts(text: str, *, private: bool) -> tuple[str, str, bytes] | None:
    """Return origin, digits of the key id and the 32 bytes of a key, None if *text* is no such key."""
    found = _KEY.fullmatch(text) if isinstance(text, str) else None
    raw = None if found is None else _decoded(found["key"])
    if found is None or raw is None or raw[:1] != _ED25519 or bool(found["private"]) != private:
        return None
    return (found["origin"], found["id"], raw[1:]) if _is_origin(found["origin"]) else None


def _key_id(origin: str, public: bytes) -> bytes:
    return sha256(origin.encode() + b"\n" + _ED25519 + public).digest()[:_KEY_ID_BYTES]


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes | None:
    """Return what *text* is the base64 of, None if it is not in its one form."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _encoded(data) == text else None


def _utf8(text: str) -> bytes | None:
    """Return the bytes of *text*, None if it holds a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415, an extra
    except ImportError:
        raise InvalidOption("signing needs the package cryptography: pip install 'sqlstate-store[sign]'") from None
    return ed25519


# ---- Signed heads ----


class HeadFacts(Protocol):
    """What a head is signed of; a `sqlstate.Head` is one."""

    @property
    def seq(self) -> int:
        """Number of the commit."""

    @property
    def root(self) -> bytes:
        """Root of the Merkle tree."""

    @property
    def count(self) -> int:
        """Number of entries."""

    @property
    def at(self) -> str:
        """When it was made."""


@dataclass(frozen=True, slots=True)
class SignedHead:
    """One commit, and with it all before, as somebody signed it. Made by `store.signed_head()` and verify_head().

    `log_root` fixes the history. `root`, `count` and `at` are the signer's word, until verify_commit() compares them
    with the history by a proof of that commit.

    Examples:
        >>> signer = sqlstate.Signer.generate("example.com/app")
        >>> store["settings"]["lang"] = "fr"
        >>> head = store.signed_head(signer)
        >>> head.origin, head.seq, head.root == store.head().root
        ('example.com/app', 1, True)
    """

    origin: str
    """What the key signs for."""
    seq: int
    """Number of the commit: how many leaves the log has."""
    log_root: bytes
    """Root of the log, 32 bytes."""
    root: bytes
    """Root of the Merkle tree, 32 bytes."""
    count: int
    """Number of entries."""
    at: str
    """When it was committed."""
    text: str = field(repr=False)
    """The whole text, with its signatures: what is kept elsewhere."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what the text of a signed head says. It does not verify the signature: verify_head() does.

        Cost: none.

        Args:
            text: the whole text, with its signatures.

        Raises:
            ProofInvalid: it is not a signed head.

        Examples:
            >>> text = store.signed_head(sqlstate.Signer.generate("example.com/app")).text
            >>> sqlstate.SignedHead.parse(text).seq
            0
        """
        body, _ = _split(text)
        found = _TEXT.fullmatch(body)
        log_root = None if found is None else _decoded(found["log_root"])
        if found is None or log_root is None or not _is_origin(found["origin"]):
            raise ProofInvalid("this is signed, and is no head of a store of sqlstate")
        seq, count, root = int(found["seq"]), int(found["count"]), bytes.fromhex(found["root"])
        if max(seq, count) > fmt.INT_MAX:
            raise ProofInvalid("the signed head has a number that no store can have")
        if not seq and (log_root, root, count) != (EMPTY, EMPTY_ROOT, 0):
            raise ProofInvalid("the signed head is of no commit, and says that there is something")
        return cls(found["origin"], seq, log_root, root, count, found["at"], text)


def sign_head(signer: Signer, head: HeadFacts, log_root: bytes) -> SignedHead:
    """Return the signed head of a commit.

    Args:
        signer: the key.
        head: the commit.
        log_root: root of the log of as many commits.

    Raises:
        Damaged: the commit has a count or time that no commit has, so that nobody could verify what is signed.
    """
    text = (
        f"{signer.origin}\n{head.seq}\n{_encoded(log_root)}\nroot {head.root.hex()}\ncount {head.count}\nat {head.at}\n"
    )
    try:
        return SignedHead.parse(signer.sign(text))
    except ProofInvalid:
        raise Damaged(
            f"commit {head.seq} has a root, count or time that no commit has, so it was not signed; store.check() "
            "tells what is damaged"
        ) from None


def verify_head(note: str, key: str) -> SignedHead:
    """Return what a signed head says, if the holder of *key* signed it.

    Cost: one Ed25519 verification for each signature by *key*.

    Args:
        note: the whole text. Signatures of others are ignored.
        key: the public key that the caller trusts, as `Signer.public` has it; it names the origin too.

    Raises:
        ProofInvalid: the text is not a signed head, is of another origin, or has no valid signature by that key.
        InvalidOption: *key* is not a public key, or the package `cryptography` is missing.

    Examples:
        >>> signer = sqlstate.Signer.generate("example.com/app")
        >>> text = store.signed_head(signer).text  # kept elsewhere
        >>> sqlstate.headlog.verify_head(text, signer.public).seq
        0
        >>> sqlstate.headlog.verify_head(text.replace("count 0", "count 1"), signer.public)
        Traceback (most recent call last):
        ProofInvalid: ...
    """
    origin, key_id, public = _public_key(key)
    head = SignedHead.parse(note)
    if head.origin != origin:
        raise ProofInvalid(f"the signed head is of origin '{head.origin}', and the key is for '{origin}'")
    body, signatures = _split(note)
    ours = [signature for name, id_, signature in signatures if (name, id_) == (origin, key_id)]
    if not ours:
        raise ProofInvalid("the head is not signed by this key")
    if not all(_ed25519_holds(public, signature, body.encode()) for signature in ours):
        raise ProofInvalid("the head was not signed by this key, or was changed since")
    return head


def _ed25519_holds(public: bytes, signature: bytes, data: bytes) -> bool:
    key = _ed25519().Ed25519PublicKey.from_public_bytes(public)
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415, an extra

    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _split(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Return the text that a C2SP signed note signs, and its signatures as (name, key id, signature)."""
    if not isinstance(note, str):
        raise ProofInvalid("this is no signed head: it is no text")
    if len(note) > NOTE_BYTES_MAX or len(_utf8(note) or b"") > NOTE_BYTES_MAX:
        raise ProofInvalid(f"this is no signed head: it has more than {NOTE_BYTES_MAX} bytes")
    if _utf8(note) is None:
        raise ProofInvalid("this is no signed head: it holds a lone surrogate")
    body, gap, rest = note.rpartition("\n\n")
    if not gap or not rest.endswith("\n"):
        raise ProofInvalid("this is no signed head: it is text, an empty line, and lines with signatures")
    lines = rest[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise ProofInvalid(f"the signed head has more than {SIGNATURES_MAX} signatures")
    signatures = []
    for line in lines:
        found = _SIGNATURE.fullmatch(line)
        raw = None if found is None else _decoded(found["signature"])
        if found is None or raw is None or len(raw) <= _KEY_ID_BYTES:
            raise ProofInvalid("this is no signed head: a line below the empty one is no signature")
        signatures.append((found["name"], raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:]))
    return body + "\n", signatures


# ---- Proofs about commits ----


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
    if body[_TIME_AT - 4 : _TIME_AT] != _TIME_BYTES.to_bytes(4) or not re.fullmatch(_TIME.encode(), at):
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


# Where count and time stand in the proof of a commit, and what comes before its path.
_COUNT_AT: Final = 2 * fmt.DIGEST_BYTES
_TIME_AT: Final = _COUNT_AT + fmt.COUNT_BYTES + 4
_TIME_BYTES: Final = 27
_COMMIT_BYTES: Final = _TIME_AT + _TIME_BYTES + fmt.DIGEST_BYTES


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


_DEPTH_MAX: Final = 63
