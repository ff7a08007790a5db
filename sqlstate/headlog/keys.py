"""Keys that sign heads: one line of text each, Ed25519, by the package `cryptography`."""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Self

from sqlstate.errors import InvalidOption

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


ORIGIN_BYTES_MAX: Final = 255

_ED25519: Final = b"\x01"
KEY_ID_BYTES: Final = 4
_PRIVATE: Final = "PRIVATE+KEY+"
SIGNED: Final = "\u2014 "  # begins each line of a signature
# Listed, so that no version of Unicode changes them. C2SP keeps spaces, plus signs and ASCII controls out of the name
# of any key; an origin of ours has no other controls and no invisible marks either.
ORIGIN: Final = r"[^\x00-\x20+\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]+"
_KEY: Final = re.compile(
    rf"[ \t\r\n]*(?P<private>PRIVATE\+KEY\+)?(?P<origin>{ORIGIN})\+(?P<id>[0-9a-f]{{8}})\+(?P<key>[A-Za-z0-9+/]{{44}})"
    r"[ \t\r\n]*"
)


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

    origin: str
    """The name of the signer, which its heads state."""

    def __init__(self, text: str) -> None:
        parts = _key_parts(text, private=True)
        if parts is None:
            raise InvalidOption("this is no private key: it begins with PRIVATE+KEY+ and is one line")
        self.origin, digits, self._seed = parts
        self._key: Ed25519PrivateKey = ed25519().Ed25519PrivateKey.from_private_bytes(self._seed)
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
        key = ed25519().Ed25519PrivateKey.generate()
        head = f"{_PRIVATE}{check_origin(origin)}+{_key_id(origin, key.public_key().public_bytes_raw()).hex()}+"
        return cls(head + encoded(_ED25519 + key.private_bytes_raw()))

    @property
    def text(self) -> str:
        """The private key as one line. Whoever has it can sign in the name of the origin."""
        return f"{_PRIVATE}{self.origin}+{self._id.hex()}+{encoded(_ED25519 + self._seed)}"

    @property
    def public(self) -> str:
        """The public key as one line: what a verifier needs."""
        return f"{self.origin}+{self._id.hex()}+{encoded(_ED25519 + self._public)}"

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
        return f"{text}\n{SIGNED}{self.origin} {encoded(self._id + self._key.sign(text.encode()))}\n"

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
    if not isinstance(origin, str) or not is_origin(origin):
        raise InvalidOption(
            f"origin={origin!r} is not text of 1 to {ORIGIN_BYTES_MAX} bytes without spaces, plus signs, controls and "
            "invisible marks"
        )
    return origin


def is_origin(text: str) -> bool:
    """Return True if a key can sign for *text*."""
    return re.fullmatch(ORIGIN, text) is not None and 1 <= len(utf8(text) or b"") <= ORIGIN_BYTES_MAX


def public_key(text: str) -> tuple[str, bytes, bytes]:
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
    raw = None if found is None else decoded(found["key"])
    if found is None or raw is None or raw[:1] != _ED25519 or bool(found["private"]) != private:
        return None
    return (found["origin"], found["id"], raw[1:]) if is_origin(found["origin"]) else None


def _key_id(origin: str, public: bytes) -> bytes:
    return sha256(origin.encode() + b"\n" + _ED25519 + public).digest()[:KEY_ID_BYTES]


def encoded(data: bytes) -> str:
    """Return *data* in base64."""
    return base64.b64encode(data).decode()


def decoded(text: str) -> bytes | None:
    """Return what *text* is the base64 of, None if it is not in its one form."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if encoded(data) == text else None


def utf8(text: str) -> bytes | None:
    """Return the bytes of *text*, None if it holds a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def ed25519() -> Any:
    """Return the module of `cryptography` that signs and verifies.

    Raises:
        InvalidOption: the package is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415, an extra
    except ImportError:
        raise InvalidOption("signing needs the package cryptography: pip install 'sqlstate-store[sign]'") from None
    return ed25519
