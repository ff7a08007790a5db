"""Goal: what goes in comes out, or is refused by name. Method: Hypothesis for the round trip and the order of
keys, and a table of values that JSON would alter, each with the place that the error must name."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, TypedDict
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlstate import InvalidKey, InvalidName, InvalidOption, InvalidValue
from sqlstate.format import constants as fmt
from sqlstate.format.names import check_collection, first_name, make_name, name_bytes, next_collection, prefix_bounds
from sqlstate.format.values import JSON, Codec
from tests.reference import plain

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = st.one_of(st.integers(fmt.INT_MIN, fmt.INT_MAX), text.filter(len), st.binary(min_size=1, max_size=20))
names = st.tuples(text.filter(lambda t: 1 <= len(t.encode()) <= 255), keys)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(fmt.JSON_INT_MIN, fmt.JSON_INT_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    """Equality that also tells 1 from 1.0 and True, and 0.0 from -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.copysign(1, a) == math.copysign(1, b) and a == b
    return a == b


@given(documents)
def test_a_json_value_reads_back_equal_and_of_the_same_types(value: object) -> None:
    stored = JSON.encode(value)

    assert isinstance(stored, str)
    assert same(JSON.decode(stored), value)
    assert same(json.loads(stored), value), "any JSON reader must see the same"


@given(st.dictionaries(text, st.integers(0, 9), max_size=8), st.randoms())
def test_the_stored_document_does_not_depend_on_the_order_of_members(value: dict[str, int], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)

    assert JSON.encode(dict(items)) == JSON.encode(value)


@pytest.mark.parametrize("value", [b"", b"x", b"\x00\xff" * 50])
def test_bytes_are_stored_as_they_are(value: bytes) -> None:
    assert JSON.encode(value) is value
    assert JSON.decode(value) is value


class Color(IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


deep: list[Any] = []
for _ in range(fmt.JSON_DEPTH_MAX):
    deep = [deep]

REFUSED = [
    (math.nan, "$", "nan"),
    ({"a": [1, math.inf]}, "$.a[1]", "inf"),
    ((1, 2), "$", "tuple"),
    ({"a": (1,)}, "$.a", "tuple"),
    ({1, 2}, "$", "set"),
    ([{"x": frozenset()}], "$[0].x", "frozenset"),
    ({1: 2}, "$", "member's name"),
    ({"a": {None: 1}}, "$.a", "member's name"),
    (2**64, "$", "2^64-1"),
    ([-(2**63) - 1], "$[0]", "2^64-1"),
    (10**5000, "$", "bits"),
    ({"a": b"x"}, "$.a", "bytes"),
    (bytearray(b"x"), "$", "bytearray"),
    (Color.RED, "$", "Color"),
    (Text("x"), "$", "Text"),
    (OrderedDict(a=1), "$", "OrderedDict"),
    (defaultdict(int), "$", "defaultdict"),
    (datetime(2026, 1, 1, tzinfo=UTC), "$", "datetime"),
    (Decimal(1), "$", "Decimal"),
    (object(), "$", "object"),
    ("\ud800", "$", "lone surrogate"),
    ({"\udfff": 1}, "$", "lone surrogate"),
    ({"a": ["ok", "x\udc00"]}, "$.a[1]", "lone surrogate"),
    (deep, "$" + "[0]" * 66 + "[", "levels deep"),
]


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED, ids=lambda part: str(type(part).__name__))
def test_what_json_would_alter_is_refused_with_its_place(value: object, path: str, reason: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        JSON.encode(value)

    assert caught.value.path == path or (path.startswith("$[0][0]") and caught.value.path.startswith(path[:-1]))
    assert reason in caught.value.reason


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(InvalidValue, match="levels deep"):
        JSON.encode(loop)


def test_the_deepest_document_that_is_allowed_reads_back() -> None:
    value = deep[0]

    assert JSON.decode(JSON.encode(value)) == value


@given(names)
def test_name_bytes_are_those_of_the_format_page(name: tuple[str, Any]) -> None:
    collection, key = name

    assert name_bytes(make_name(collection, key)) == plain.name_bytes(collection, key)


@given(names, names)
def test_names_order_as_the_format_page_says(a: tuple[str, Any], b: tuple[str, Any]) -> None:
    ours = make_name(*a) < make_name(*b)

    assert ours == (plain.sort_key(*a) < plain.sort_key(*b))


@given(names)
def test_a_collection_lies_between_its_bounds(name: tuple[str, Any]) -> None:
    collection, key = name

    assert first_name(collection) <= make_name(collection, key) < first_name(next_collection(collection))


@given(st.one_of(text, st.binary(max_size=6)), keys)
def test_prefix_bounds_hold_exactly_the_keys_with_the_prefix(prefix: str | bytes, key: Any) -> None:
    start, stop = prefix_bounds(prefix)
    name = make_name("c", key)
    inside = name >= (("c", 1 if isinstance(start, str) else 2, start)) and (
        stop is None or name < ("c", 1 if isinstance(stop, str) else 2, stop)
    )

    assert inside == (type(key) is type(prefix) and key[: len(prefix)] == prefix)


@pytest.mark.parametrize("prefix", ["a\ud7ff", "\U0010ffff", "x\U0010ffff\U0010ffff", b"\xff\xff", b"a\xff", "", b""])
def test_a_prefix_at_the_end_of_its_alphabet_has_bounds(prefix: str | bytes) -> None:
    start, stop = prefix_bounds(prefix)

    assert start == prefix
    assert not isinstance(stop, str) or stop.encode(), "SQLite must be able to take it"
    assert stop is None or type(stop) is not type(start) or stop > start  # type: ignore[operator]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (True, "bool"),
        (1.5, "float"),
        (None, "NoneType"),
        ((1,), "tuple"),
        (Color.RED, "Color"),
        (Text("a"), "Text"),
        ("", "1 to 1,048,576"),
        (b"", "1 to 1,048,576"),
        ("x" * (fmt.KEY_BYTES_MAX + 1), "1,048,577"),
        ("é" * (fmt.KEY_BYTES_MAX // 2 + 1), "1,048,578"),
        (b"x" * (fmt.KEY_BYTES_MAX + 1), "1,048,577"),
        (2**63, "2^63-1"),
        (-(2**63) - 1, "-2^63"),
        ("a\ud800", "lone surrogate"),
    ],
)
def test_what_cannot_be_a_key_is_refused_by_name(key: Any, says: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        make_name("c", key)

    assert says in str(caught.value)
    assert len(str(caught.value)) < 300, "a long key must not flood the message"


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "\ud800", 1, None, b"x"])
def test_what_cannot_name_a_collection_is_refused(name: Any) -> None:
    with pytest.raises(InvalidName):
        check_collection(name)


@pytest.mark.parametrize("name", ["x", "x" * 255, "a\0b", "🙂", " ", "''; DROP TABLE state"])
def test_any_other_text_names_a_collection(name: str) -> None:
    assert check_collection(name) == name


@dataclass
class Point:
    x: float
    y: float = 0.0
    label: str | None = None


@dataclass
class Wide(Point):
    extra: int = 0


@attrs.define
class User:
    name: str
    tags: set[str]


class Doc(msgspec.Struct):
    id: UUID
    when: datetime
    price: Decimal
    pair: tuple[int, str]


class Movie(TypedDict):
    title: str
    year: int


class Level(StrEnum):
    LOW = "low"


class Kind(Enum):
    A = 1


moment = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
TYPED = [
    (Point, Point(1.5, 2.0)),
    (User, User("ada", {"b", "a"})),
    (Doc, Doc(UUID(int=7), moment, Decimal("1.10"), (1, "a"))),
    (Movie, {"title": "M", "year": 1931}),
    (Level, Level.LOW),
    (Kind, Kind.A),
    (datetime, moment),
    (Decimal, Decimal("0.1")),
    (list[Point], [Point(1.0)]),
    (dict[int, str], {1: "a"}),
    (bytes, b"\x00"),
    (int, 2**64 - 1),
]


@pytest.mark.parametrize(("type_", "value"), TYPED, ids=map(str, range(len(TYPED))))
def test_a_typed_value_reads_back_equal_and_of_its_type(type_: Any, value: Any) -> None:
    codec: Codec[Any] = Codec(type_)
    read = codec.decode(codec.encode(value))

    assert read == value
    assert type(read) is type(value)


def test_an_int_where_the_type_says_float_is_converted() -> None:
    codec = Codec(Point)

    assert codec.encode(Point(1)) == codec.encode(Point(1.0))
    assert type(codec.decode(codec.encode(Point(1))).x) is float


@pytest.mark.parametrize(
    ("type_", "value", "says"),
    [
        (Point, Point("a"), "x"),  # type: ignore[arg-type]
        (Point, {"y": 1.0}, "x"),
        (Point, Point(math.nan), "nan"),
        (Point, Wide(1.0, extra=5), "read back as"),
        (int, "1", "int"),
        (Movie, {"title": "M"}, "year"),
        (bytes, "text", "bytes"),
        (Level, "high", "high"),
        (int, 2**64, "2^64-1"),
        (Point, object(), "object"),
        (complex, 1j, "complex"),
    ],
    ids=lambda part: str(part)[:20],
)
def test_a_value_that_is_not_of_the_type_is_refused(type_: Any, value: Any, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Codec(type_).encode(value)

    assert says in str(caught.value)


@pytest.mark.parametrize("stored", ['{"x":"a"}', "[]", b"bytes", "{"])
def test_a_stored_document_that_is_not_of_the_type_is_refused_on_reading(stored: Any) -> None:
    with pytest.raises(InvalidValue):
        Codec(Point).decode(stored)


@pytest.mark.parametrize("type_", [list[int] | set[int], "Missing"])
def test_a_type_that_json_cannot_hold_is_refused_at_once(type_: Any) -> None:
    with pytest.raises(InvalidOption):
        Codec(type_)
