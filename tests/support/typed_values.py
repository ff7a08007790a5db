"""Types and values for them, fitting and not, made by Hypothesis; and a judge of what was read back.

The judge shares nothing with the package: it compares by Python's own `==` where that is exact, and otherwise by
type and by each part.
"""

from __future__ import annotations

import collections
import dataclasses
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from typing import Any, Literal, NamedTuple, Optional, TypedDict, Union
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
from hypothesis import strategies as st

# The functional forms, of fields that vary; mypy takes them for classes of a fixed form.
TypedDict_: Any = TypedDict
NamedTuple_: Any = NamedTuple
SCALARS = (str, bytes, bytearray, int, bool, UUID, date, timedelta, type(None))


def identical(a: Any, b: Any, *, int_as_float: bool) -> bool:  # noqa: PLR0911, one return for each kind
    """Tell whether *b* is *a*: equal, and of equal type all the way down.

    Args:
        a: what was written.
        b: what was read.
        int_as_float: whether a float may have been read for an equal int.
    """
    if type(a) is not type(b):
        return int_as_float and type(a) is int and type(b) is float and a == b
    if a is msgspec.UNSET:
        return a is b
    if type(a) in SCALARS:
        return bool(a == b)
    if isinstance(a, float | Decimal):
        return bool(a == b) and repr(a) == repr(b)
    if isinstance(a, datetime | time):
        return (str(a), a.fold, type(a.tzinfo)) == (str(b), b.fold, type(b.tzinfo)) and bool(a == b)
    if isinstance(a, Enum):
        return a is b
    if isinstance(a, memoryview):
        return bool(a.tobytes() == b.tobytes()) and a.format == b.format
    if isinstance(a, list | tuple):
        parts = zip(a, b, strict=False)
        return len(a) == len(b) and all(identical(x, y, int_as_float=int_as_float) for x, y in parts)
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(identical(x, y, int_as_float=int_as_float) for y in b) for x in a)
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            any(identical(pair, other, int_as_float=int_as_float) for other in b.items()) for pair in a.items()
        )
    return _held(a).keys() == _held(b).keys() and all(
        identical(part, _held(b)[name], int_as_float=int_as_float) for name, part in _held(a).items()
    )


def _held(it: Any) -> dict[str, Any]:
    """Return the attributes of an object; anything else fails here."""
    if isinstance(it, msgspec.Struct):
        names = it.__struct_fields__
    elif attrs.has(type(it)):
        names = tuple(each.name for each in attrs.fields(type(it)))
    else:
        names = tuple(each.name for each in dataclasses.fields(it))
    held = {name: getattr(it, name) for name in names if hasattr(it, name)} | getattr(it, "__dict__", {})
    held.pop("__orig_class__", None)  # which typing leaves on Box[int](1), and not on Box(1)
    return held


class Colour(Enum):
    RED = "red"
    BLUE = 2


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Word(StrEnum):
    A = "a"
    RED = "red"


class Bits(Flag):
    X = 1
    Y = 2


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Mapping(dict[Any, Any]):
    pass


class Sequence(list[Any]):
    pass


@dataclasses.dataclass
class Any1:
    it: Any = None


@dataclasses.dataclass
class Any2(Any1):
    more: Any = 1


class AnyStruct(msgspec.Struct):
    it: Any = None


@attrs.define
class AnyAttrs:
    it: Any = None


def _equals_itself(it: Any) -> bool:
    """Tell whether *it* can be a member of a set; not a number is no member of any."""
    return not it.is_nan() if isinstance(it, Decimal) else bool(it == it)  # noqa: PLR0124, a float that is none


def _with_attribute(it: Any) -> Any1:
    owner = Any1()
    owner.extra = it  # type: ignore[attr-defined]
    return owner


text = st.text(max_size=3) | st.sampled_from(["", "a", "red", "1", "1.0", "true", "null", "2026-01-01", "$", "\ud800"])
ints = st.integers(-3, 3) | st.integers(-(2**65), 2**65) | st.sampled_from([2**53 + 1, 2**64 - 1, 2**64, -(2**63)])
floats = st.floats() | st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1e22, 2.0**53, 2.0**64])
decimals = st.decimals() | st.sampled_from(
    [Decimal("1.0"), Decimal("1.00"), Decimal("1E+5"), Decimal("-0"), Decimal("NaN")]
)
zones = st.sampled_from(
    [
        None,
        UTC,
        timezone(timedelta(hours=2)),
        timezone(timedelta(hours=1), "CET"),
        timezone(timedelta(seconds=61)),
        timezone(timedelta(microseconds=-1)),
        ZoneInfo("Europe/Paris"),
        ZoneInfo("UTC"),
    ]
)
datetimes = st.datetimes(timezones=zones)
times = st.times(timezones=zones)
folded = datetimes.map(lambda it: it.replace(fold=1)) | times.map(lambda it: it.replace(fold=1))

FITTING: dict[Any, st.SearchStrategy[Any]] = {
    int: ints,
    float: floats | ints,
    str: text,
    bool: st.booleans(),
    None: st.none(),
    bytes: st.binary(max_size=3),
    bytearray: st.binary(max_size=3).map(bytearray),
    datetime: datetimes,
    date: st.dates(),
    time: times,
    timedelta: st.timedeltas(),
    Decimal: decimals,
    UUID: st.uuids(),
    Colour: st.sampled_from(Colour),
    Size: st.sampled_from(Size),
    Word: st.sampled_from(Word),
    Bits: st.sampled_from([Bits(0), Bits.X, Bits.X | Bits.Y]),
    Literal[1, "a"]: st.sampled_from([1, "a"]),
    Any1: st.deferred(lambda: anything.map(Any1)),
    AnyStruct: st.deferred(lambda: anything.map(AnyStruct)),
    AnyAttrs: st.deferred(lambda: anything.map(AnyAttrs)),
}
hashable = st.one_of(*FITTING.values()).filter(
    lambda it: not isinstance(it, bytearray | Any1 | AnyStruct | AnyAttrs) and _equals_itself(it)
)
atoms = st.one_of(
    *FITTING.values(),
    folded,
    text.map(Text),
    st.integers(0, 3).map(Number),
    st.sampled_from([1j, object(), int, range(2), ..., msgspec.UNSET, msgspec.Raw(b" 1"), memoryview(b"a")]),
)
anything: st.SearchStrategy[Any] = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(Sequence),
        st.lists(inner, max_size=3).map(collections.deque),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.dictionaries(text, inner, max_size=3),
        st.dictionaries(hashable, inner, max_size=3),
        st.dictionaries(text, inner, max_size=2).map(Mapping),
        st.dictionaries(text, inner, max_size=2).map(collections.OrderedDict),
        st.builds(Any1, inner),
        st.builds(Any2, inner, inner),
        st.builds(AnyStruct, inner),
        st.builds(AnyAttrs, inner),
        st.builds(_with_attribute, inner),
    ),
    max_leaves=6,
)


class Shape(NamedTuple):
    """A type, values most of which fit it, and whether it takes an int for a float."""

    type: Any
    values: st.SearchStrategy[Any]
    has_float: bool
    hashable: bool = True


def _one(type_: Any) -> Shape:
    return Shape(type_, FITTING[type_], type_ is float, type_ not in (bytearray, Any1, AnyStruct, AnyAttrs))


loose = st.sampled_from(
    [
        Shape(Any, anything, has_float=False, hashable=False),
        Shape(object, anything, has_float=False, hashable=False),
        Shape(dict, st.dictionaries(text, anything, max_size=3), has_float=False, hashable=False),
        Shape(dict, st.dictionaries(hashable, anything, max_size=3), has_float=False, hashable=False),
        Shape(list, st.lists(anything, max_size=3), has_float=False, hashable=False),
        Shape(tuple, st.lists(anything, max_size=3).map(tuple), has_float=False, hashable=False),
    ]
)


def _strayed(shape: Shape) -> st.SearchStrategy[Any]:
    """Return values for a part of a larger value: one in nine is anything at all."""
    return st.integers(0, 8).flatmap(lambda n: anything if n == 8 else shape.values)


def _fields(parts: list[Shape]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(*map(_strayed, parts)).map(list)


NAMES = ("a", "b_c", "d")


def _made(kind: str, parts: list[Shape]) -> Shape:
    """Return a class of this *kind*, with a field for each of *parts*."""
    names = NAMES[: len(parts)]
    pairs = list(zip(names, (part.type for part in parts), strict=True))
    has_float = any(part.has_float for part in parts)
    values: Any = _fields(parts)
    made: Any
    if kind == "typed":
        made = TypedDict_("Made", dict(pairs), total=False)
        values = values.map(lambda row: dict(zip(names, row, strict=True)))
        return Shape(made, values, has_float, hashable=False)
    if kind == "struct":
        made = msgspec.defstruct("Made", pairs, rename="camel", frozen=True)
    elif kind == "array":
        made = msgspec.defstruct("Made", pairs, array_like=True)
    elif kind == "attrs":
        bare = type("Made", (), {"__annotations__": dict(pairs)})
        made = attrs.define(bare, slots=len(parts) == 1)
    elif kind == "named":
        made = NamedTuple_("Made", pairs)
    else:
        made = dataclasses.make_dataclass("Made", pairs, slots=kind == "slots")
    return Shape(made, values.map(lambda row: made(*row)), has_float, hashable=False)


KINDS = ["list", "tuple", "pair", "set", "frozenset", "dict", "keyed", "optional", "union"]
KINDS += ["typed", "struct", "array", "attrs", "named", "dataclass", "slots"]


@st.composite
def _composed(draw: Any, inner: st.SearchStrategy[Shape]) -> Shape:  # noqa: PLR0911, one return for each kind
    kind = draw(st.sampled_from(KINDS))
    a: Shape = draw(inner)
    inside: Any = a.type
    if kind == "list":
        return Shape(list[inside], st.lists(_strayed(a), max_size=3), a.has_float, hashable=False)
    if kind == "tuple":
        return Shape(tuple[inside, ...], st.lists(_strayed(a), max_size=3).map(tuple), a.has_float, hashable=False)
    if kind == "dict":
        return Shape(dict[str, inside], st.dictionaries(text, _strayed(a), max_size=3), a.has_float, hashable=False)
    if kind == "optional":
        return Shape(Optional[inside], st.none() | a.values, a.has_float, a.hashable)  # noqa: UP045, None | None fails
    if kind in ("set", "frozenset", "keyed"):
        key = a if a.hashable else _one(draw(st.sampled_from([int, float, str, Word, Size, datetime, Decimal])))
        parts = key.values.filter(_equals_itself) if not draw(st.booleans()) else hashable
        of: Any = key.type
        if kind == "set":
            return Shape(set[of], st.sets(parts, max_size=3), key.has_float, hashable=False)
        if kind == "frozenset":
            return Shape(frozenset[of], st.frozensets(parts, max_size=3), key.has_float, hashable=False)
        values = st.dictionaries(parts, _strayed(a), max_size=3)
        return Shape(dict[of, inside], values, a.has_float or key.has_float, hashable=False)
    b: Shape = draw(inner)
    other: Any = b.type
    has_float = a.has_float or b.has_float
    if kind == "pair":
        return Shape(tuple[inside, other], st.tuples(_strayed(a), _strayed(b)), has_float, hashable=False)
    if kind == "union":
        return Shape(Union[inside, other], a.values | b.values, has_float, a.hashable and b.hashable)  # noqa: UP007
    return _made(kind, [a, b] if draw(st.booleans()) else [a])


shapes: st.SearchStrategy[Shape] = st.recursive(
    st.sampled_from(list(FITTING)).map(_one) | loose, _composed, max_leaves=4
)
