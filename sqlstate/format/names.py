"""Keys, values, and the bytes of them that are hashed (docs/reference/file-format.md, sections 3.2 to 5).

A *name* is the triple (collection, key class, key). Python orders such triples as the file does:
int before str before bytes, and str by code points, which is the order of their UTF-8 bytes.
A *stored* value is what SQLite holds: str for a JSON document, bytes for bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Generic, TypeVar, cast

import msgspec

from sqlstate.errors import Damaged, InvalidKey, InvalidName, InvalidOption, InvalidValue
from sqlstate.format import constants as fmt
from sqlstate.format.documents import document, shown
from sqlstate.format.typed import Typed

Key = int | str | bytes
Stored = str | bytes
Name = tuple[str, int, Key]
T = TypeVar("T")

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
        raise InvalidOption(f"{option}={shown(number)} is not a number from 0 to 2^63-1")
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
            raise InvalidKey(f"key {shown(key)} holds a lone surrogate, which is not text in UTF-8") from None
    elif cls == 0:
        if not fmt.INT_MIN <= cast("int", key) <= fmt.INT_MAX:
            raise InvalidKey(f"key {shown(key)} is outside -2^63 to 2^63-1; store it as str or bytes")
        return collection, 0, key
    elif cls == 2:
        size = len(cast("bytes", key))
    else:
        raise InvalidKey(f"a key is an int, str or bytes, not {type(key).__name__}: {shown(key)}")
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


def same(a: Stored | None, b: Stored | None) -> bool:
    """Tell whether two stored values are equal; text and bytes never are, nor is no value to any."""
    return type(a) is type(b) and a == b


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


class Codec(Generic[T]):
    """Turns values into what is stored and back.

    Without a type: bytes as they are, everything else as one JSON document that reads back equal and
    of the same types. With a type, any that msgspec can encode (dataclass, attrs class, Struct,
    TypedDict, datetime, Decimal, UUID, Enum, and containers of them): values are checked against it
    both ways. The type `bytes` stores bytes as they are.

    Args:
        type_: the type of all values, or None.
        forbid_unknown: refuse to read a document that has members which the type has no field for.

    Raises:
        InvalidOption: msgspec cannot decode the type; or *forbid_unknown* without one.
    """

    __slots__ = ("_holds_bytes", "_typed")

    def __init__(self, type_: type[T] | None = None, *, forbid_unknown: bool = False) -> None:
        if forbid_unknown and type_ is None:
            raise InvalidOption("forbid_unknown=True needs a type= that says which fields are known")
        self._holds_bytes = type_ is None or type_ is bytes
        self._typed = None if type_ is None else Typed(type_, forbid_unknown=forbid_unknown)

    @property
    def typed(self) -> bool:
        """Whether values are checked against a type."""
        return self._typed is not None

    def encode(self, value: T) -> Stored:
        """Return *value* as it is stored.

        Raises:
            InvalidValue: it would not read back exactly; the error names the place inside the value.
        """
        if type(value) is bytes and self._holds_bytes:
            stored = cast("Stored", value)
            size = len(stored)
        elif self._typed is None:
            raw = document(value)
            size, stored = len(raw), raw.decode()
        elif self._holds_bytes:
            raise InvalidValue(f"a value of this collection is bytes, not {type(value).__name__}")
        else:
            raw = self._typed.encode(value)
            size, stored = len(raw), raw.decode()
        if size > fmt.VALUE_BYTES_MAX:
            raise InvalidValue(f"{size:,} bytes as stored, and the limit is {fmt.VALUE_BYTES_MAX:,}")
        return stored

    def decode(self, stored: Stored) -> T:
        """Return the value that *stored* stands for.

        Raises:
            InvalidValue: it is not of the collection's type, or not JSON at all.
            Damaged: it is nothing that a value can be stored as.
        """
        if type(stored) is bytes:
            if self._holds_bytes:
                return cast("T", stored)
            raise InvalidValue("bytes are stored, and this collection's type is read from JSON")
        if type(stored) is not str:
            raise Damaged(f"I1: a value is stored as {stored!r}, neither a document nor bytes; restore a backup")
        if self._typed is None:
            try:
                return cast("T", _decode(stored))
            except (msgspec.MsgspecError, RecursionError) as e:
                raise InvalidValue(f"the stored document does not fit: {e}") from None
        if self._holds_bytes:
            raise InvalidValue("a JSON document is stored, and this collection's type is bytes")
        return self._typed.decode(stored)


_decode = msgspec.json.Decoder().decode
