"""A proof as a value: its kind, its one encoding in bytes, and its one form as JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final, Self

from sqlstate.errors import InvalidOption, ProofInvalid

MAGIC: Final = b"SqSp"
VERSION: Final = 1
KINDS: Final = {
    "present": b"P",
    "absent": b"A",
    "range": b"R",
    "count": b"C",
    "many": b"M",
    "commit": b"L",
    "consistency": b"K",
}
_KIND_OF: Final = {code: kind for kind, code in KINDS.items()}
_HEADER_BYTES: Final = len(MAGIC) + 2


@dataclass(frozen=True, slots=True)
class Proof:
    """What a verifier that has only the root needs to check one statement. Made by `store.prove()` and its like.

    Examples:
        >>> store["settings"]["lang"] = "fr"
        >>> paper = store.prove("settings", "lang")
        >>> paper.kind, sqlstate.Proof.from_bytes(paper.to_bytes()) == paper
        ('present', True)
    """

    kind: str
    """"present", "absent", "range", "count", "many", "commit" or "consistency"."""
    body: bytes
    """The bytes of the proof behind its header."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidOption(f"kind={self.kind!r} is none of {', '.join(KINDS)}")

    def __repr__(self) -> str:
        shown = self.body.hex() if len(self.body) <= 32 else f"{self.body[:32].hex()}…"
        return f"Proof(kind={self.kind!r}, body={shown}, {len(self.body):,} bytes)"

    def to_bytes(self) -> bytes:
        """Return the proof's one encoding as bytes.

        Cost: none.

        Examples:
            >>> store.prove("settings", "lang").to_bytes()[:8]
            b'...'
        """
        return MAGIC + bytes([VERSION]) + KINDS[self.kind] + self.body

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the proof that *data* encodes. It does not verify what the proof shows: the verify functions do.

        Cost: none.

        Args:
            data: what to_bytes() returned.

        Raises:
            ProofInvalid: *data* is not a proof of this version.

        Examples:
            >>> sqlstate.Proof.from_bytes(store.prove("settings", "lang").to_bytes()).kind
            'absent'
        """
        if type(data) is not bytes or data[: len(MAGIC)] != MAGIC or len(data) < _HEADER_BYTES:
            raise ProofInvalid("this is no proof of sqlstate")
        if data[len(MAGIC)] != VERSION:
            raise ProofInvalid(f"the proof is of version {data[len(MAGIC)]}, and this program knows version {VERSION}")
        kind = _KIND_OF.get(data[_HEADER_BYTES - 1 : _HEADER_BYTES])
        if kind is None:
            raise ProofInvalid("the proof is of a kind that there is not")
        return cls(kind, data[_HEADER_BYTES:])

    def to_json(self) -> str:
        """Return the proof as one JSON object without white space: its one form as text.

        Cost: none.

        Examples:
            >>> store.prove("settings", "lang").to_json()
            '{"sqlstate":"proof","version":1,"kind":"absent","body":"..."}'
        """
        return f"{_json_head(self.kind)}{base64.b64encode(self.body).decode()}{_JSON_END}"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the proof that to_json() wrote; one line end may follow it.

        Cost: none.

        Args:
            text: what to_json() returned.

        Raises:
            ProofInvalid: *text* is anything else.

        Examples:
            >>> sqlstate.Proof.from_json(store.prove("settings", "lang").to_json()).kind
            'absent'
        """
        # There is one spelling, so nothing is parsed: a parser would build what a stranger wrote before it is refused.
        kind = next((each for each in KINDS if text.startswith(_json_head(each))), None) if type(text) is str else None
        end = len(text.removesuffix("\n")) - len(_JSON_END) if kind else 0
        if kind and text.startswith(_JSON_END, end):
            encoded = text[len(_json_head(kind)) : end]
            try:
                body = base64.b64decode(encoded, validate=True)
            except ValueError:  # binascii.Error is one
                body = b""
            if base64.b64encode(body) == encoded.encode("ascii", "replace"):
                return cls(kind, body)
        raise ProofInvalid("this is no proof of sqlstate as JSON")


_JSON_END: Final = '"}'


def _json_head(kind: str) -> str:
    return f'{{"sqlstate":"proof","version":{VERSION},"kind":"{kind}","body":"'
