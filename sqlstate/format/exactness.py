"""Whether a value that was read is the one that was written: equal, and of equal type all the way down.

Python's own `==` does not tell: 1 == True == 1.0, an IntEnum's member equals its int, and a dataclass says for
itself what it compares. So nothing here calls a value's own code: types are compared by identity, containers
member by member, and objects by all that they hold.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property, lru_cache
from math import copysign
from struct import calcsize
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import msgspec

from sqlstate.format.documents import short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MISSING: Final = object()
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not one of the types that are built in
_POINTER: Final = calcsize("P")


class Differs(Exception):
    """What was read is not what was written.

    Attributes:
        reason: what differs.
        place: the steps from the whole value to what differs, the last one first.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place: list[str] = []

    @property
    def path(self) -> str:
        """The place inside the value, such as `$.tags[3]`."""
        return "$" + "".join(reversed(self.place))

    def under(self, step: str) -> Differs:
        """Return the same, seen from one step further out."""
        self.place.append(step)
        return self


def compare(written: Any, read: Any) -> bool:
    """Compare a value with what was read back for it.

    An int counts as equal to the float that a type made of it, if both are the same number.

    Args:
        written: the value as the program gave it; it may be anything.
        read: what the decoder made of its document.

    Returns:
        Whether *written* has another document than *read*: an int is now a float, or a cached property is gone.

    Raises:
        Differs: they are not equal, or not of equal type all the way down.
        RecursionError: they are nested too deeply.
    """
    if written is read:
        return False
    cls = type(written)
    if cls is not type(read):
        if cls is int and type(read) is float and written == read:
            return True
        raise Differs(f"{_described(written)} would read back as {_described(read)}")
    comparing = _OF_TYPE.get(cls)
    if comparing is not None:
        return comparing(written, read)
    return _objects(written, read, cls)


def _plain(written: Any, read: Any) -> bool:
    if written == read:
        return False
    raise _unequal(written, read)


def _floats(written: float, read: float) -> bool:
    if written == read and copysign(1.0, written) == copysign(1.0, read):
        return False
    raise _unequal(written, read)


def _decimals(written: Decimal, read: Decimal) -> bool:
    if written.is_nan():
        raise Differs(f"{short_repr(written)} equals nothing, not even itself; store None")
    if written.as_tuple() == read.as_tuple():
        return False
    raise _unequal(written, read)


def _times(written: Any, read: Any) -> bool:
    """Compare two datetimes or times; a fixed offset is all that ISO 8601 carries of a time zone."""
    zone = written.tzinfo
    if zone is not None and type(zone) is not timezone:
        raise Differs(
            f"the time zone {short_repr(zone)} would read back as a fixed offset; "
            "store it in UTC (`.astimezone(timezone.utc)`), and the zone's name in a field of its own"
        )
    if written.fold:
        raise Differs("fold=1 would be lost; store it in UTC")
    if type(read.tzinfo) is type(zone) and zone == read.tzinfo and written == read:
        return False
    raise _unequal(written, read)


def _memory(written: memoryview, read: memoryview) -> bool:
    if written.format == read.format and written.shape == read.shape and written == read:
        return False
    raise _unequal(written, read)


def _sequences(written: Any, read: Any) -> bool:
    if len(written) != len(read):
        raise _unequal(written, read)
    converted = False
    for number, member in enumerate(written):
        other = read[number]
        if member is not other:
            try:
                converted |= compare(member, other)
            except Differs as differs:
                raise differs.under(f"[{number}]") from None
    return converted


def _mappings(written: dict[Any, Any], read: dict[Any, Any]) -> bool:
    names = _twins(written, read)
    converted = False
    for name, member in written.items():
        twin = names.get(name, _MISSING)
        if twin is _MISSING:
            raise Differs(f"the key {short_repr(name)} would read back as another one, or not at all")
        try:
            if twin is not name:
                converted |= compare(name, twin)
            other = read[twin]
            if other is not member:
                converted |= compare(member, other)
        except Differs as differs:
            raise differs.under(step(name)) from None
    return converted


def _sets(written: Any, read: Any) -> bool:
    members = _twins(written, read)
    converted = False
    for member in written:
        twin = members.get(member, _MISSING)
        if twin is _MISSING:
            raise Differs(f"the member {short_repr(member)} would read back as another one, or not at all")
        converted |= compare(member, twin)
    return converted


def _twins(written: Any, read: Iterable[Any]) -> dict[Any, Any]:
    """Return each key or member that was read, by itself, so that the one equal to another can be had."""
    twins = dict(zip(read, read, strict=True))
    if len(written) != len(twins):
        raise _unequal(written, read)
    return twins


# ---- Objects ----


class _Layout(NamedTuple):
    """Where the objects of a class keep what they hold."""

    is_open: bool  # all of it is in slots, in `__dict__`, and in the tuple that it is
    is_tuple: bool
    slots: tuple[tuple[str, MemberDescriptorType], ...]
    dict_of: GetSetDescriptorType | None
    cached: frozenset[str]  # names of slots that hold cached properties


@lru_cache(maxsize=512)
def _layout(cls: type) -> _Layout:
    solid = cls
    while solid.__flags__ & _HEAP_TYPE and solid is not msgspec.Struct and solid.__base__ is not None:
        solid = solid.__base__
    slots: list[tuple[str, MemberDescriptorType]] = []
    cached: set[str] = set()
    dict_of = None
    for klass in cls.__mro__:
        if not klass.__flags__ & _HEAP_TYPE:
            continue
        # attrs makes a slot for each field, and others for its own use: cached properties, the hash.
        fields = klass.__dict__.get("__attrs_attrs__")
        names = None if fields is None else {field.name for field in fields}
        for name, descriptor in klass.__dict__.items():
            if type(descriptor) is MemberDescriptorType:
                slots.append((name, descriptor))
                if names is not None and name not in names:
                    cached.add(name)
            elif name == "__dict__" and type(descriptor) is GetSetDescriptorType:
                dict_of = descriptor
            elif issubclass(type(descriptor), cached_property):
                cached.add(name)
    is_open = solid in (tuple, msgspec.Struct) or (solid is object and cls.__basicsize__ <= _size(cls, len(slots)))
    return _Layout(is_open, solid is tuple, tuple(slots), dict_of, frozenset(cached))


def _size(cls: type, slots: int) -> int:
    """Return the size of an object that has nothing but its slots; one with fields in C is larger."""
    return object.__basicsize__ + _POINTER * (slots + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0))


def _objects(written: Any, read: Any, cls: type) -> bool:
    """Compare two objects of the class *cls* by their attributes."""
    layout = _layout(cls)
    if not layout.is_open:
        raise Differs(f"{_described(written)} would read back as another object; what it holds cannot be compared")
    converted = False
    if layout.is_tuple:
        converted |= _sequences(tuple(tuple.__iter__(written)), tuple(tuple.__iter__(read)))
    for name, slot in layout.slots:
        converted |= _attribute(name, _in_slot(slot, written), _in_slot(slot, read), layout)
    if layout.dict_of is not None:
        here: dict[str, Any] = layout.dict_of.__get__(written, cls)
        there: dict[str, Any] = layout.dict_of.__get__(read, cls)
        for name, member in here.items():
            other = there.get(name, _MISSING)
            if other is not member:
                converted |= _attribute(name, member, other, layout)
        if here.keys() != there.keys():
            for name in there.keys() - here.keys():
                converted |= _attribute(name, _MISSING, there[name], layout)
    return converted


def _attribute(name: str, written: Any, read: Any, layout: _Layout) -> bool:
    if written is read:
        return False
    if written is _MISSING or read is _MISSING:
        if name in layout.cached:
            return True  # it is worked out again when it is asked for
        if name == "__orig_class__":
            return False  # Box[int](1) differs from Box(1) by nothing else
        lost = written if read is _MISSING else read
        reason = "is no field of its type, and would be lost" if read is _MISSING else "is not set, and would be"
        raise Differs(f"{reason}: {short_repr(lost)}").under(f".{name}")
    try:
        return compare(written, read)
    except Differs as differs:
        raise differs.under(f".{name}") from None


def members(value: Any) -> list[tuple[str, Any]]:
    """Return what *value* holds, each with the step that leads to it; nothing for what holds nothing."""
    cls: type = type(value)
    if cls in (list, tuple, set, frozenset):
        return [(f"[{number}]" if cls in (list, tuple) else "", member) for number, member in enumerate(tuple(value))]
    if cls is dict:
        return [(step(name), member) for name, member in value.copy().items()]
    if cls in _OF_TYPE:
        return []
    layout = _layout(cls)
    found = list(enumerate(tuple.__iter__(value))) if layout.is_tuple else []
    held = [(f"[{number}]", member) for number, member in found]
    held += [(f".{name}", _in_slot(slot, value)) for name, slot in layout.slots]
    if layout.dict_of is not None:
        held += [(f".{name}", member) for name, member in layout.dict_of.__get__(value, cls).items()]
    return [(step, member) for step, member in held if member is not _MISSING and member is not msgspec.UNSET]


def step(name: object) -> str:
    """Return the step from a mapping to what it holds by this name."""
    return f".{name}" if type(name) is str else f"[{short_repr(name)}]"


def _in_slot(slot: MemberDescriptorType, owner: object) -> Any:
    try:
        return slot.__get__(owner)
    except AttributeError:  # nothing was put into it
        return _MISSING


# ---- Messages ----


def _unequal(written: object, read: object) -> Differs:
    return Differs(f"{short_repr(written)} would read back as {short_repr(read)}")


def _described(value: object) -> str:
    text = short_repr(value)
    name = type(value).__name__
    return text if text.startswith(name) or value is None else f"{name} {text}"


_OF_TYPE: Final[dict[type, Callable[[Any, Any], bool]]] = {
    **dict.fromkeys((str, int, bool, bytes, bytearray, UUID, date, timedelta), _plain),
    float: _floats,
    Decimal: _decimals,
    datetime: _times,
    time: _times,
    memoryview: _memory,
    list: _sequences,
    tuple: _sequences,
    dict: _mappings,
    set: _sets,
    frozenset: _sets,
}
