"""Signed heads: C2SP signed notes that are C2SP tlog-checkpoints (docs/reference/proofs.md).

Origin and key always come from the caller, never from what is verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self

from sqlstate.errors import Damaged, ProofInvalid
from sqlstate.format import constants as fmt
from sqlstate.headlog.keys import KEY_ID_BYTES, ORIGIN, SIGNED, decoded, ed25519, encoded, is_origin, public_key, utf8
from sqlstate.headlog.log import EMPTY
from sqlstate.proof import EMPTY_ROOT

if TYPE_CHECKING:
    from sqlstate.headlog.keys import Signer


NOTE_BYTES_MAX: Final = 1 << 17  # C2SP: 16 signatures must fit, and those of some kinds have nearly 5 kB
SIGNATURES_MAX: Final = 16

# Listed, so that no version of Unicode changes them: C2SP keeps these out of the name of any key.
_NAME: Final = r"[^\x00-\x20+\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_TEXT: Final = re.compile(
    rf"(?P<origin>{ORIGIN})\n(?P<seq>0|[1-9][0-9]{{0,18}})\n(?P<log_root>[A-Za-z0-9+/]{{43}}=)\n"
    rf"root (?P<root>[0-9a-f]{{64}})\ncount (?P<count>0|[1-9][0-9]{{0,18}})\nat (?P<at>{TIME})\n"
)
_SIGNATURE: Final = re.compile(rf"{SIGNED}(?P<name>{_NAME}) (?P<signature>[A-Za-z0-9+/]+={{0,2}})")


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
        log_root = None if found is None else decoded(found["log_root"])
        if found is None or log_root is None or not is_origin(found["origin"]):
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
        Damaged: the commit has a count or time that no commit has, so that no verifier would accept the signed head.
    """
    text = (
        f"{signer.origin}\n{head.seq}\n{encoded(log_root)}\nroot {head.root.hex()}\ncount {head.count}\nat {head.at}\n"
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
    origin, key_id, public = public_key(key)
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
    key = ed25519().Ed25519PublicKey.from_public_bytes(public)
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
    if len(note) > NOTE_BYTES_MAX or len(utf8(note) or b"") > NOTE_BYTES_MAX:
        raise ProofInvalid(f"this is no signed head: it has more than {NOTE_BYTES_MAX} bytes")
    if utf8(note) is None:
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
        raw = None if found is None else decoded(found["signature"])
        if found is None or raw is None or len(raw) <= KEY_ID_BYTES:
            raise ProofInvalid("this is no signed head: a line below the empty one is no signature")
        signatures.append((found["name"], raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:]))
    return body + "\n", signatures
