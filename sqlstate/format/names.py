"""Collections, keys, and the bytes of them that are hashed (docs/reference/file-format.md, sections 3.2 and 6).

A *name* is the triple (collection, key class, key). Python orders such triples as the file does:
int before str before bytes, and str by code points, which is the order of their UTF-8 bytes.
A *stored* value is what SQLite holds: str for a JSON document, bytes for bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, cast

from sqlstate.errors import InvalidKey, InvalidName, InvalidOption
from sqlstate.format import constants as fmt
from sqlstate.format.documents import short_repr

Key = int | str | bytes
Stored = str | bytes
Name = tuple[str, int, Key]

_CLASS: Final[dict[type, int]] = {int: 0, str: 1, bytes: 2}
_KIND: Final = (fmt.KIND_INT, fmt.KIND_STR, fmt.KIND_BYTES)


def check_collection(collection: str) -> str:
    """Return *collection* if it can name a collection.

    Raises:
        InvalidName: it is not a str, is empty, longer than 255 bytes in UTF-8, or holds a lone surrogate.
    """
    if type(collection) is not str:
        raise InvalidName(f"a collection's name is a str, not {type(collection).__name__}")
    return _checked_collection(collection)


@lru_cache(maxsize=1024)
def _checked_collection(collection: str) -> str:
    try:
        size = len(collection.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{collection!r} holds a lone surrogate, which is not text in UTF-8") from None
    if not 1 <= size <= fmt.NAME_BYTES_MAX:
        raise InvalidName(f"a collection's name has 1 to {fmt.NAME_BYTES_MAX} bytes in UTF-8, this one {size}")
    return collection


def check_number(option: str, number: int) -> int:
    """Return *number* if it can be the number of a record or a commit.

    Raises:
        InvalidOption: it is not an int from 0 to 2^63-1.
    """
    if type(number) is not int or not 0 <= number <= fmt.INT_MAX:
        raise InvalidOption(f"{option}={short_repr(number)} is not a number from 0 to 2^63-1")
    return number


def make_name(collection: str, key: Key) -> Name:
    """Return the name of the entry with *key* in *collection*, which is taken as checked (I1).

    Raises:
        InvalidKey: the key is not exactly int, str or bytes, or outside the limits of section 3.2.
    """
    cls = _CLASS.get(type(key))
    if cls == 1 and key.isascii():  # type: ignore[union-attr]
        size = len(key)  # type: ignore[arg-type]
    elif cls == 1:
        try:
            size = len(cast("str", key).encode())
        except UnicodeEncodeError:
            raise InvalidKey(f"key {short_repr(key)} holds a lone surrogate, which is not text in UTF-8") from None
    elif cls == 0:
        if not fmt.INT_MIN <= cast("int", key) <= fmt.INT_MAX:
            raise InvalidKey(f"key {short_repr(key)} is outside -2^63 to 2^63-1; store it as str or bytes")
        return collection, 0, key
    elif cls == 2:
        size = len(cast("bytes", key))
    else:
        how = "; store.collection(name, key=tuple) takes tuples" if issubclass(type(key), tuple) else ""
        raise InvalidKey(f"a key is an int, str or bytes, not {type(key).__name__}: {short_repr(key)}{how}")
    if not 1 <= size <= fmt.KEY_BYTES_MAX:
        raise InvalidKey(f"a key has 1 to {fmt.KEY_BYTES_MAX:,} bytes, this one {size:,}")
    return collection, cls, key


def stored_name(collection: str, key: Key) -> Name:
    """Return the name of a row that SQLite returned; section 3.2 holds for it already."""
    return collection, _CLASS[type(key)], key


@lru_cache(maxsize=1024)
def _collection_bytes(collection: str) -> bytes:
    raw = collection.encode()
    return len(raw).to_bytes(4) + raw


def name_bytes(name: Name) -> bytes:
    """Return `name(e)` = f(collection) ‖ kind(key) ‖ f(key bytes) of section 6."""
    collection, cls, key = name
    if cls == 1:
        raw = key.encode()  # type: ignore[union-attr]
    elif cls == 0:
        raw = (key - fmt.INT_MIN).to_bytes(8)  # type: ignore[operator]
    else:
        raw = cast("bytes", key)
    return _collection_bytes(collection) + _KIND[cls] + len(raw).to_bytes(4) + raw


def first_name(collection: str) -> Name:
    """Return the smallest name that an entry of *collection* can have."""
    return collection, 0, fmt.INT_MIN


def next_collection(collection: str) -> str:
    """Return the smallest text greater than *collection*: where its entries end."""
    return collection + "\0"


def prefix_bounds(prefix: str | bytes) -> tuple[Key, Key | None]:
    """Return the half-open span of keys that start with *prefix*: str keys, or bytes keys.

    The second part is None where no key of any kind is greater.

    Raises:
        InvalidKey: *prefix* is neither str nor bytes, or holds a lone surrogate.
    """
    if type(prefix) is bytes:
        head = prefix.rstrip(b"\xff")
        return prefix, head[:-1] + bytes([head[-1] + 1]) if head else None
    if type(prefix) is not str:
        raise InvalidKey(f"a prefix is str or bytes, not {type(prefix).__name__}")
    check_bound(prefix)
    text = prefix.rstrip("\U0010ffff")
    if not text:
        return prefix, b""  # every str key comes before the first bytes key
    after = ord(text[-1]) + 1
    return prefix, text[:-1] + chr(0xE000 if after == 0xD800 else after)


def check_bound(key: Key) -> Key:
    """Return *key* if it can bound a span of keys; unlike a key, a bound may be empty.

    Raises:
        InvalidKey: as make_name().
    """
    if key in ("", b"") and type(key) in (str, bytes):
        return key
    return make_name("", key)[2]
