"""The exported form of entries, as text.

An exported line is one entry, `{"collection":"c","key":K,"value":V}`. K is a number for int, a string for
str, the base64 form for bytes. V is the stored document byte for byte, or the base64 form for bytes:
`{"$base64":true,"encoded":"…"}`. A document that is an object with a member `$base64` or `$json` is written
`{"$json":document}`, so that it is never taken for a form.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import msgspec

from sqlstate.errors import Damaged

if TYPE_CHECKING:
    from sqlstate.format.names import Key, Stored

BASE64: Final = "$base64"
ENCODED: Final = "encoded"
DOCUMENT: Final = "$json"


def quoted(text: str) -> str:
    """Return *text* as a JSON string."""
    return msgspec.json.encode(text).decode()


def key_text(key: Key) -> str:
    """Return JSON for a key.

    Raises:
        Damaged: it is of no type that a key can have.
    """
    if isinstance(key, str):
        return quoted(key)
    if isinstance(key, bytes):
        return _base64_form(key)
    if isinstance(key, int):
        return str(key)
    raise Damaged(f"I1: a key is a {type(key).__name__}; it was changed from outside. Restore a backup")


def value_text(stored: Stored) -> str:
    """Return JSON for a stored value, on one line.

    Raises:
        Damaged: it is not a JSON document and not bytes.
    """
    if isinstance(stored, bytes):
        return _base64_form(stored)
    try:
        _any_document.decode(stored)
        looks_like_form = ('"$' in stored or "\\u" in stored) and _has_form_member(stored)
    except (TypeError, msgspec.MsgspecError, RecursionError):
        raise Damaged("I1: a value is not a JSON document; it was changed from outside. Restore a backup") from None
    if "\n" in stored or "\r" in stored:
        # Only another program writes line ends into a document, and they can only stand between its parts.
        stored = stored.replace("\n", " ").replace("\r", " ")
    return f'{{"{DOCUMENT}":{stored}}}' if looks_like_form else stored


def entry_text(collection: str, key: Key, stored: Stored) -> str:
    """Return the exported form of an entry, without a line end.

    Raises:
        Damaged: the key or the value is not what an entry can have.
    """
    try:
        return f'{{"collection":{quoted(collection)},"key":{key_text(key)},"value":{value_text(stored)}}}'
    except Damaged as e:
        raise Damaged(f"{collection!r}[{key!r}]: {e}") from None


_any_document = msgspec.json.Decoder(msgspec.Raw)
_any_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _base64_form(raw: bytes) -> str:
    return f'{{"{BASE64}":true,"{ENCODED}":"{base64.b64encode(raw).decode()}"}}'


def _has_form_member(document: str) -> bool:
    if not document.lstrip().startswith("{"):
        return False
    members = _any_members.decode(document)
    return BASE64 in members or DOCUMENT in members
