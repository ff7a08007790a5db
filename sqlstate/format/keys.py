"""Types of keys, and tuples as keys (docs/reference/tuple-keys.md).

A *stored* key is what SQLite holds: int, str or bytes. A tuple is stored as bytes that order as the tuples do.
"""

from __future__ import annotations

from contextlib import suppress
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, NewType, Union, get_args, get_origin

from sqlstate.errors import InvalidKey, InvalidOption
from sqlstate.format import constants as fmt
from sqlstate.format.documents import short_repr
from sqlstate.format.names import Key, check_bound, make_name, prefix_bounds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlstate.format.names import Name

Elements = tuple[Key, ...]
Bound = Key | Elements
"""What bounds a scan: a key, or the first elements of a tuple."""

_INT: Final = 1
_TEXT: Final = 2
_BYTES: Final = 3
_AFTER_ALL: Final = b"\xff"
_CLASSES: Final = frozenset((int, str, bytes))


def pack_key(key: Elements) -> bytes:
    """Return the bytes that a tuple is stored as where it is a key: `store.collection(name, key=tuple)[key]`.

    They order as the tuples do. Where a call takes no tuple, such as `store.prove()` or `store.redact()`, give these.

    Cost: none.

    Args:
        key: a tuple of one element or more, each an int from -2^63 to 2^63-1, str or bytes.

    Raises:
        InvalidKey: it is no such tuple, or more than 1,048,576 bytes come of it.

    Examples:
        >>> store.collection("parts", key=tuple[str, int])["bolt", 7] = "M6"
        >>> store["parts"][sqlstate.pack_key(("bolt", 7))]
        'M6'
    """
    if type(key) is not tuple:
        raise InvalidKey(f"a tuple is expected, not {type(key).__name__}: {short_repr(key)}")
    return _checked(_packed(key))


def unpack_key(raw: Key) -> Elements:
    """Return the tuple that is stored as *raw*: the reverse of pack_key().

    Cost: none.

    Args:
        raw: a key as the file holds it.

    Raises:
        InvalidKey: no tuple is stored like this: it is an int, text, or other bytes.

    Examples:
        >>> sqlstate.unpack_key(sqlstate.pack_key(("bolt", 7)))
        ('bolt', 7)
    """
    if type(raw) is not bytes or not raw:
        raise InvalidKey(f"{short_repr(raw)} is not what a tuple is stored as: bytes, and some of them")
    return _unpacked(raw)


class Keys:
    """The keys of a collection: as the program gives them, and as they are stored.

    Args:
        classes: which of int, str and bytes they are.
        said: these in words.
    """

    __slots__ = ("_classes", "_said", "as_is")

    as_is: bool
    """Whether any key is taken and given as it is stored."""

    def __init__(self, classes: frozenset[type] = _CLASSES, said: str = "") -> None:
        self._classes = classes
        self._said = said
        self.as_is = not said

    def stored(self, key: Any) -> Key:
        """Return a key as it is stored.

        Raises:
            InvalidKey: it is not of the type; whether an untyped one is a key at all is not looked at.
        """
        if self.as_is or type(key) in self._classes:
            return key  # type: ignore[no-any-return]
        raise self._other(key)

    def given(self, collection: str, stored: Key) -> Any:
        """Return a key as the program gives it.

        Raises:
            InvalidKey: the collection holds a key of another type.
        """
        if self.as_is or type(stored) in self._classes:
            return stored
        raise self._held(collection, stored)

    def all_given(self, collection: str, stored: Iterable[Key]) -> Iterable[Any]:
        """Return keys as the program gives them, each when its turn comes, as given() does."""
        return stored if self.as_is else (self.given(collection, key) for key in stored)

    def name(self, collection: str, key: Any) -> Name:
        """Return the name of the entry with *key*.

        Raises:
            InvalidKey: it is not of the type, or outside the limits.
        """
        return make_name(collection, key if self.as_is else self.stored(key))

    def names(self, collection: str, keys: Iterable[Any]) -> list[Name]:
        """Return the name of each of *keys* once, in their order.

        Raises:
            InvalidKey: one cannot be a key, or *keys* is no iterable of keys.
        """
        several = None
        if not isinstance(keys, str | bytes | bytearray | memoryview):
            with suppress(TypeError):
                several = iter(keys)
        if several is None:
            raise InvalidKey(f"keys= is an iterable of keys, such as a list, not one {type(keys).__name__}")
        return list(dict.fromkeys(self.name(collection, key) for key in several))

    def bounds(
        self, start: Bound | None = None, stop: Bound | None = None, prefix: Bound | None = None
    ) -> tuple[Key | None, Key | None]:
        """Return the first stored key wanted, and the first no longer wanted; None where there is no bound.

        Raises:
            InvalidKey: a bound is not of the type.
            InvalidOption: *prefix* is given together with another.
        """
        if prefix is None:
            return None if start is None else self._bound(start), None if stop is None else self._bound(stop)
        if start is not None or stop is not None:
            raise InvalidOption("prefix= already says where to start and stop; leave out start= and stop=")
        return self._prefix(prefix)

    def _bound(self, key: Any) -> Key:
        return check_bound(self.stored(key))

    def _prefix(self, prefix: Any) -> tuple[Key, Key | None]:
        return prefix_bounds(self.stored(prefix))  # type: ignore[arg-type]  # it says what it is not

    def _held(self, collection: str, stored: Key) -> InvalidKey:
        return InvalidKey(
            f"{collection!r} holds the key {short_repr(stored)}, which is no {self._said}; ask for the type that all "
            "of its keys have, or for none"
        )

    def _other(self, key: object) -> InvalidKey:
        return InvalidKey(f"a key of this collection is {self._said}, not {type(key).__name__}: {short_repr(key)}")


class TupleKeys(Keys):
    """Keys that are tuples.

    Args:
        elements: what each element may be; of tuples of any length, one for all.
        any_length: whether they are of any length.
        said: the type in words.
    """

    __slots__ = ("_any_length", "_elements")

    def __init__(self, elements: tuple[frozenset[type], ...], said: str, *, any_length: bool) -> None:
        super().__init__(said=said)
        self._elements = elements
        self._any_length = any_length

    def stored(self, key: Any) -> bytes:
        """Return a key as it is stored."""
        if type(key) is not tuple or not (self._any_length or len(key) == len(self._elements)):
            raise self._other(key)
        self._check(key)
        return _packed(key)

    def given(self, collection: str, stored: Key) -> Elements:
        """Return a key as the program gives it."""
        if type(stored) is bytes:
            with suppress(InvalidKey):
                key = _unpacked(stored)
                if self._any_length or len(key) == len(self._elements):
                    self._check(key)
                    return key
        raise self._held(collection, stored)

    def _bound(self, key: Any) -> bytes:
        if type(key) is not tuple or not (self._any_length or len(key) <= len(self._elements)):
            raise self._other(key)
        self._check(key)
        packed = _packed(key)
        return _checked(packed) if packed else packed

    def _prefix(self, prefix: Any) -> tuple[bytes, bytes]:
        first = self._bound(prefix)
        return first, first + _AFTER_ALL

    def _check(self, key: Elements) -> None:
        for number, element in enumerate(key):
            if type(element) not in self._elements[0 if self._any_length else number]:
                raise InvalidKey(
                    f"element {number} of the key {short_repr(key)} is {type(element).__name__}; "
                    f"a key of this collection is {self._said}, of int, str and bytes"
                )


ANY_KEYS: Final = Keys()
"""Keys without a type: any int, str or bytes."""


def keys_for(type_: Any) -> Keys:
    """Return the keys of a collection whose keys are of *type_*; None stands for keys without a type.

    Raises:
        InvalidOption: no keys are of this type.
    """
    if type_ is None:
        return ANY_KEYS
    said = type_.__name__ if isinstance(type_, type | NewType) else short_repr(type_)
    type_ = _behind(type_)
    if type_ is tuple:
        return TupleKeys((_CLASSES,), said, any_length=True)
    args = get_args(type_)
    if get_origin(type_) is tuple and args:
        any_length = len(args) == 2 and args[1] is ...
        elements = tuple(map(_classes, args[:1] if any_length else args))
        if all(elements):
            return TupleKeys(elements, said, any_length=any_length)
    elif found := _classes(type_):
        return Keys(found, said)
    raise InvalidOption(
        f"{said} is no type of keys; that is int, str or bytes, a union of them, tuple, or a tuple of these, such as "
        "tuple[str, int]"
    )


def _behind(type_: Any) -> Any:
    """Return the type that a NewType is at run time; other types as they are."""
    while isinstance(type_, NewType):
        type_ = type_.__supertype__
    return type_


def _classes(type_: Any) -> frozenset[type]:
    """Return which of int, str and bytes are of a type; none if others are too."""
    type_ = _behind(type_)
    parts = [*map(_behind, get_args(type_))] if get_origin(type_) in (Union, UnionType) else [type_]
    return frozenset(parts) if all(any(part is each for each in _CLASSES) for part in parts) else frozenset()


def _checked(packed: bytes) -> bytes:
    make_name("", packed)
    return packed


def _packed(key: Elements) -> bytes:
    parts: list[bytes] = []
    for number, element in enumerate(key):
        if type(element) is str:
            try:
                parts.append(b"\x02%b\x00" % element.encode().replace(b"\x00", b"\x00\xff"))
            except UnicodeEncodeError:
                raise InvalidKey(
                    f"element {number} of the key {short_repr(key)} holds a lone surrogate, which is not text in UTF-8"
                ) from None
        elif type(element) is int:
            if not fmt.INT_MIN <= element <= fmt.INT_MAX:
                raise InvalidKey(
                    f"element {number} of the key {short_repr(key)} is outside -2^63 to 2^63-1; make it str or bytes"
                )
            parts.append(b"\x01" + (element - fmt.INT_MIN).to_bytes(8))
        elif type(element) is bytes:
            parts.append(b"\x03%b\x00" % element.replace(b"\x00", b"\x00\xff"))
        else:
            raise InvalidKey(
                f"element {number} of the key {short_repr(key)} is {type(element).__name__}; "
                "an element is an int, str or bytes"
            )
    return b"".join(parts)


def _unpacked(raw: bytes) -> Elements:
    found: list[Key] = []
    at = 0
    while at < len(raw):
        tag, start = raw[at], at + 1
        if tag == _INT and len(raw) >= start + 8:
            at = start + 8
            found.append(int.from_bytes(raw[start:at]) + fmt.INT_MIN)
            continue
        stop = raw.find(b"\x00", start) if tag in (_TEXT, _BYTES) else -1
        while stop >= 0 and raw[stop + 1 : stop + 2] == b"\xff":
            stop = raw.find(b"\x00", stop + 2)
        if stop < 0:
            what = "cut short" if tag in (_INT, _TEXT, _BYTES) else f"of no kind, {tag}"
            raise InvalidKey(f"{short_repr(raw)} is not what a tuple is stored as: element {len(found)} is {what}")
        content = raw[start:stop].replace(b"\x00\xff", b"\x00")
        at = stop + 1
        try:
            found.append(content.decode() if tag == _TEXT else content)
        except UnicodeDecodeError:
            raise InvalidKey(
                f"{short_repr(raw)} is not what a tuple is stored as: element {len(found)} is not UTF-8"
            ) from None
    return tuple(found)
