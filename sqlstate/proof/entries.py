"""Names and values of entries as the tree hashes them (docs/reference/file-format.md, sections 3.2 and 5)."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from math import isfinite
from typing import Any, Final

from sqlstate.errors import InvalidKey, InvalidName, InvalidOption, InvalidValue, ProofInvalid
from sqlstate.format import constants as fmt

Key = int | str | bytes


class Document(str):
    """A JSON document exactly as it is stored, in place of a value whose text is known.

    Examples:
        >>> store["settings"]["size"] = [1, 2]
        >>> paper, root = store.prove("settings", "size"), store.head().root
        >>> sqlstate.proof.verify_present(paper, root, "settings", "size", sqlstate.proof.Document("[1,2]"))
    """

    __slots__ = ()


# Collection, class and bytes of a key: Python orders such triples as the tree orders entries.
Place = tuple[bytes, int, bytes]
# Kind of a value, and its bytes.
Content = tuple[bytes, bytes]

KEY_KINDS: Final = (fmt.KIND_INT, fmt.KIND_STR, fmt.KIND_BYTES)
BEYOND: Final = len(KEY_KINDS)


def named(name: tuple[str, Key]) -> Place:
    """Return the place of the entry with a name given as (collection, key)."""
    if not isinstance(name, tuple | list) or len(name) != 2:
        raise InvalidOption(f"an entry is asked for as (collection, key), not {name!r}")
    return place_of(*name)


def place_of(collection: str, key: Key) -> Place:
    """Return the place of an entry."""
    cls, raw = _bound(key)
    if not raw:
        raise InvalidKey("a key has 1 byte or more")
    return _collection(collection), cls, raw


def _collection(collection: str) -> bytes:
    if type(collection) is not str:
        raise InvalidName(f"a collection's name is a str, not {type(collection).__name__}")
    try:
        raw = collection.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"{collection!r} holds a lone surrogate, which is not text in UTF-8") from None
    if not 1 <= len(raw) <= fmt.NAME_BYTES_MAX:
        raise InvalidName(f"a collection's name has 1 to {fmt.NAME_BYTES_MAX} bytes in UTF-8, this one {len(raw)}")
    return raw


def _bound(key: Key) -> tuple[int, bytes]:
    """Return class and bytes of a key, or of a bound of keys, which may be empty."""
    if type(key) is int:
        if not fmt.INT_MIN <= key <= fmt.INT_MAX:
            raise InvalidKey("an int key is from -2^63 to 2^63-1")
        return 0, (key - fmt.INT_MIN).to_bytes(8)
    try:
        cls, raw = (1, key.encode()) if type(key) is str else (2, key)
    except UnicodeEncodeError:
        raise InvalidKey("a key holds a lone surrogate, which is not text in UTF-8") from None
    if type(raw) is not bytes:
        raise InvalidKey(f"a key is an int, str or bytes, not {type(key).__name__}")
    if len(raw) > fmt.KEY_BYTES_MAX:
        raise InvalidKey(f"a key has at most {fmt.KEY_BYTES_MAX:,} bytes, this one {len(raw):,}")
    return cls, raw


def span_of(collection: str, start: Key | None, stop: Key | None) -> tuple[Place, Place]:
    """Return the places between which a span lies."""
    name = _collection(collection)
    low = (name, *(_bound(fmt.INT_MIN if start is None else start)))
    high = (name, *((BEYOND, b"") if stop is None else _bound(stop)))
    if low >= high:
        raise InvalidOption("the span is empty, whatever the store holds: its start is not before its stop")
    return low, high


def leaf_of(place: Place, kind: bytes, value: bytes) -> bytes:
    """Return the leaf of an entry with this value."""
    return leaf_digest(place, kind, sha256(value).digest())


def leaf_digest(place: Place, kind: bytes, digest: bytes) -> bytes:
    """Return the leaf of an entry whose value has this digest."""
    collection, cls, raw = place
    name = len(collection).to_bytes(4) + collection + KEY_KINDS[cls] + len(raw).to_bytes(4) + raw
    return sha256(fmt.TAG_LEAF + name + kind + digest).digest()


def key_of(place: Place) -> Key:
    """Return the key of the entry at a place."""
    _, cls, raw = place
    if cls == 0:
        return int.from_bytes(raw) + fmt.INT_MIN
    return raw.decode() if cls == 1 else raw


def read_value(kind: bytes, stored: bytes) -> Any:
    """Return the value that a store keeps as these bytes.

    Raises:
        ProofInvalid: *stored* is no document (docs/reference/file-format.md, section 3.2).
    """
    if kind == fmt.VKIND_BYTES:
        return stored
    try:
        text = stored.decode()
        value = json.loads(text, parse_int=_int, parse_float=_finite, parse_constant=_refuse)
    except RecursionError:
        if _depth(text) <= fmt.JSON_DEPTH_MAX:
            raise  # the caller's stack is used up
    except ValueError:
        pass
    else:
        if _depth(text) <= fmt.JSON_DEPTH_MAX and not _has_surrogates(text):
            return value
    raise ProofInvalid("a value under this root is no JSON document that a store holds")


_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"')


def _depth(text: str) -> int:
    """Return how deep the arrays and objects of a JSON document are nested."""
    if text.count("[") + text.count("{") <= fmt.JSON_DEPTH_MAX:
        return 0  # no more than that
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _has_surrogates(text: str) -> bool:
    """Return True if a string of a JSON document escapes a surrogate without its other half."""
    if not re.search(r"\\u[dD]", text):
        return False
    return any(re.search("[\ud800-\udfff]", json.loads(string)) for string in _STRING.findall(text))


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(digits)
    return number


def _int(digits: str) -> int:
    _finite(digits)  # before Python's own limit on digits, which a program can change
    return int(digits)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def stored_form(value: Any) -> Content:
    """Return kind and bytes of a value as the store keeps it."""
    if type(value) is bytes:
        return fmt.VKIND_BYTES, value
    try:
        return fmt.VKIND_JSON, (value if type(value) is Document else _json(value)).encode()
    except UnicodeEncodeError:
        raise InvalidValue("holds a lone surrogate, which is not text in UTF-8") from None
    except RecursionError:
        raise InvalidValue(f"nested more than {fmt.JSON_DEPTH_MAX} levels deep") from None


def _json(value: Any) -> str:
    """Return the one JSON document that the store keeps for *value*: members sorted, no white space."""
    if type(value) is float and isfinite(value):
        return _float(value)
    if type(value) is list:
        return f"[{','.join(map(_json, value))}]"
    if type(value) is dict and all(type(name) is str for name in value):
        return f"{{{','.join(f'{_text(name)}:{_json(value[name])}' for name in sorted(value))}}}"
    if type(value) is str:
        return _text(value)
    if type(value) is int and not fmt.JSON_INT_MIN <= value <= fmt.JSON_INT_MAX:
        raise InvalidValue("an int in JSON is from -2^63 to 2^64-1")
    if value is None or type(value) is bool or type(value) is int:
        return json.dumps(value)
    raise InvalidValue(f"{type(value).__name__} is nothing that the store keeps as JSON")


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _float(number: float) -> str:
    """Return the shortest digits that read back as *number*, in the form of the store's encoder."""
    mantissa, _, exponent = repr(number).partition("e")
    if not exponent:
        return mantissa
    if int(exponent) == _PLAIN_EXPONENT:
        sign = "-" if number < 0 else ""
        return f"{sign}0.0000{mantissa.removeprefix('-').replace('.', '')}"
    return f"{mantissa}e{int(exponent)}"


# Python writes numbers below 10^-4 with an exponent, the store's encoder those below 10^-5.
_PLAIN_EXPONENT: Final = -5
