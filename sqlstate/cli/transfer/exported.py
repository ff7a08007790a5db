"""The exported form of entries, as text.

An exported line is one entry, `{"collection":"c","key":K,"value":V}`. K is a number for int, a string for
str, the base64 form for bytes; where tuples were asked for, a list of these for a tuple. V is the stored document
byte for byte, or the base64 form for bytes: `{"$base64":true,"encoded":"…"}`. A document that is an object with a
member `$base64` or `$json` is written `{"$json":document}`, so that it is never taken for a form.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sqlstate.cli.transfer.exact_json import ContentError, shown
from sqlstate.errors import Damaged, InvalidKey
from sqlstate.format.keys import pack_key

if TYPE_CHECKING:
    from sqlstate.format.keys import Elements
    from sqlstate.format.names import Key, Stored

BASE64: Final = "$base64"
ENCODED: Final = "encoded"
DOCUMENT: Final = "$json"


def quoted(text: str) -> str:
    """Return *text* as a JSON string."""
    return msgspec.json.encode(text).decode()


def key_text(key: Key | Elements) -> str:
    """Return JSON for a key, or for a tuple: a list.

    Raises:
        Damaged: it is of no type that a key can have.
    """
    if isinstance(key, str):
        return quoted(key)
    if isinstance(key, bytes):
        return _base64_form(key)
    if isinstance(key, int):
        return str(key)
    if isinstance(key, tuple):
        return f"[{','.join(map(key_text, key))}]"
    raise Damaged(f"I1: a key is a {type(key).__name__}; it was changed from outside. Restore a backup")


def from_base64_form(form: dict[str, Any]) -> bytes:
    """Return the bytes that an object writes.

    Raises:
        ContentError: it writes none.
    """
    encoded = form.get(ENCODED)
    if form.keys() != {BASE64, ENCODED} or form[BASE64] is not True or type(encoded) is not str:
        raise ContentError(
            f'bytes are written {{"{BASE64}":true,"{ENCODED}":"…"}}, '
            f'and a document that has a member {BASE64} is written {{"{DOCUMENT}":document}}'
        )
    with suppress(binascii.Error, ValueError):
        raw = base64.b64decode(encoded)
        # Encoded again: the decoder skips what is not base64, and knows several texts for the same bytes.
        if base64.b64encode(raw).decode() == encoded:
            return raw
    raise ContentError(f"{shown(encoded)} is not base64")


def elements_of(items: list[Any]) -> Elements:
    """Return the tuple that a list of ints, strings and bytes in the base64 form writes.

    Raises:
        ContentError: an item is an object, but no such form.
    """
    return tuple(from_base64_form(each) if type(each) is dict else each for each in items)


def packed_list(items: list[Any]) -> bytes:
    """Return the key that a list of the elements of a tuple writes.

    Raises:
        ContentError: it writes none.
    """
    try:
        return pack_key(elements_of(items))
    except InvalidKey as e:
        raise ContentError(str(e)) from None


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


def entry_text(collection: str, key: Key | Elements, stored: Stored) -> str:
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
