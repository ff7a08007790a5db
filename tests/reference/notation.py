"""Section 2 of docs/reference/file-format.md, and what a column may hold, for the plain reading of that page."""

import hashlib
import json
import re
import struct
from typing import NoReturn

MAX_COLLECTION = 255
MAX_KEY = 1_048_576
MAX_VALUE = 268_435_456
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


def sha256(data: bytes) -> bytes:
    """H(x)."""
    return hashlib.sha256(data).digest()


def u8(number: int) -> bytes:
    """Unsigned, 1 byte."""
    return struct.pack(">B", number)


def u32(number: int) -> bytes:
    """Unsigned, 4 bytes, big-endian."""
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    """Unsigned, 8 bytes, big-endian."""
    return struct.pack(">Q", number)


def f(data: bytes) -> bytes:
    """The length in 4 bytes, then the bytes."""
    return u32(len(data)) + data


# ---- What a column may hold ----


def is_number(value: object) -> bool:
    """An INTEGER, 0 or more."""
    return isinstance(value, int) and value >= 0


def is_blob(value: object, length: int) -> bool:
    """A BLOB of so many bytes."""
    return isinstance(value, bytes) and len(value) == length


def is_time(value: object) -> bool:
    """A TEXT that is a time."""
    return isinstance(value, str) and TIME.fullmatch(value) is not None


def short(value: object) -> str:
    """The value as a finding shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def is_key(value: object) -> bool:
    """INTEGER, TEXT or BLOB."""
    return isinstance(value, int | str | bytes)


def is_value(value: object) -> bool:
    """TEXT or BLOB."""
    return isinstance(value, str | bytes)


def _length(value: object) -> int:
    return len(value.encode("utf-8")) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0


def entry_faults(collection: object, key: object) -> list[str]:
    """What keeps a collection and a key from being those of an entry."""
    faults = []
    if not isinstance(collection, str) or not 1 <= _length(collection) <= MAX_COLLECTION:
        faults.append(f"collection is {short(collection)}, not TEXT of 1 to 255 bytes")
    if not isinstance(key, int) and not (is_key(key) and 1 <= _length(key) <= MAX_KEY):
        faults.append(f"key is {short(key)}, not an INTEGER, nor TEXT or BLOB of 1 to 1,048,576 bytes")
    return faults


def value_faults(value: object) -> list[str]:
    """What keeps a value from being that of an entry."""
    if is_value(value) and _length(value) <= MAX_VALUE:
        return []
    return [f"value is {short(value)}, not TEXT or BLOB within the limit"]


LEVELS_MAX = 200


def json_faults(value: object) -> list[str]:
    """What keeps a TEXT from being a document, as docs/reference/file-format.md, 3.2, defines it."""
    if not isinstance(value, str):
        return []
    try:
        level = [json.loads(value, parse_int=_number, parse_float=_number, parse_constant=_refuse)]
    except (ValueError, RecursionError) as error:
        return [f"value is no document: {error}"]
    for depth in range(LEVELS_MAX + 1):
        if depth == LEVELS_MAX and any(isinstance(each, dict | list) for each in level):
            return [f"value is no document: more than {LEVELS_MAX} levels"]
        objects = [each for each in level if isinstance(each, dict)]
        strings = [each for each in [*level, *(name for each in objects for name in each)] if isinstance(each, str)]
        if not all(map(is_utf8, strings)):
            return ["value is no document: half of a surrogate pair"]
        members = [member for each in objects for member in each.values()]
        level = members + [member for each in level if isinstance(each, list) for member in each]
        if not level:
            break
    return []


def is_utf8(text: str) -> bool:
    """Whether a text has bytes in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(digits: str) -> None:
    if abs(float(digits)) == float("inf"):
        raise ValueError("a number beyond the doubles")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
