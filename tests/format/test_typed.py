"""Goal: a typed collection gives back what was put, equal and of equal type all the way down, or refuses it with the
place. Method: tables of what JSON would alter and of what it carries, and values whose own code is hostile."""

from __future__ import annotations

import collections
import math
import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import InvalidOption, InvalidValue
from sqlstate.format import constants as fmt
from sqlstate.format.values import JSON, Codec, codec_for
from tests.support.typed_values import Shape, anything, identical, shapes

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = int(os.environ.get("TYPED_EXAMPLES", "250"))
T = TypeVar("T")


class Level(StrEnum):
    LOW = "low"


class Rank(IntEnum):
    FIRST = 1


class Kind(Enum):
    A = 1
    B = 2


class Access(Flag):
    READ = 1
    WRITE = 2


class Mode(IntFlag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Count(int):
    pass


class Names(dict[str, Any]):
    pass


class Rows(list[Any]):
    pass


@dataclass
class Unsigned:
    """Its own code takes the sign of a zero away when it is made, and so when it is read."""

    x: float

    def __post_init__(self) -> None:
        self.x += 0.0


@dataclass
class Point:
    x: float
    y: float = 0.0


@dataclass
class Place(Point):
    name: str = ""


@dataclass(eq=False)
class Held:
    """Holds anything; equal to nothing but itself."""

    it: Any = None


@dataclass
class Computed:
    x: int
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        self.doubled = 2 * self.x

    @cached_property
    def square(self) -> int:
        return self.x**2


@dataclass
class Defaulted:
    x: int = 1
    hidden: int = field(init=False, default=3)


@dataclass
class Locked:
    x: int

    def __post_init__(self) -> None:
        self.lock = threading.Lock()


@dataclass(slots=True)
class Slotted:
    x: int
    y: int = 2


@dataclass(frozen=True)
class Key:
    x: int


@dataclass
class Box(Generic[T]):
    it: T


@attrs.define
class User:
    name: str
    tags: set[str] = attrs.field(factory=set)
    _secret: str = "none"  # noqa: S105

    @cached_property
    def shout(self) -> str:
        return self.name.upper()


@attrs.frozen(cache_hash=True)
class Frozen:
    name: str


@attrs.define(slots=False)
class Open:
    name: str


class Doc(msgspec.Struct, rename="camel", omit_defaults=True):
    the_id: UUID
    pair: tuple[int, str] = (0, "")
    note: Any = None
    late: int | msgspec.UnsetType = msgspec.UNSET


class Attached(msgspec.Struct, dict=True):
    x: int


class Tagged(msgspec.Struct, tag=True):
    x: int


class Row(msgspec.Struct, array_like=True):
    x: int
    y: Any = None


class Pair(NamedTuple):
    x: int
    y: Any = None


class Movie(TypedDict, total=False):
    title: str
    year: int
    more: Any


class Tree(msgspec.Struct):
    it: Any = None
    left: Tree | None = None


class Zone(tzinfo):
    """A zone of the program's own, always at +01:00."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, moment: datetime | None) -> None:
        """There is none."""

    def tzname(self, moment: datetime | None) -> str:
        return "ours"


def beside(value: Any, **attributes: Any) -> Any:
    """Set attributes that are no fields."""
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def without(value: Any, *names: str) -> Any:
    """Delete attributes."""
    for name in names:
        delattr(value, name)
    return value


paris = ZoneInfo("Europe/Paris")
# What equals its form in JSON, or comes back as something else, under a type that says nothing of it.
LOOSE: list[tuple[Any, str]] = [
    ((1, 2), "tuple"),
    ([(1,)], "tuple"),
    ({1, 2}, "set"),
    (frozenset({1}), "frozenset"),
    ({1: "a"}, "1"),
    ({1: "a", "1": "b"}, ""),
    ({1.5: "a"}, "1.5"),
    ({Rank.FIRST: 1}, ""),
    ({Level.LOW: 1}, "low"),
    ({date(2026, 1, 1): 1}, "2026"),
    ({b"x": 1}, ""),
    ({True: 1}, ""),
    ({None: 1}, ""),
    (Rank.FIRST, "Rank"),
    (Level.LOW, "Level"),
    (Kind.A, "Kind"),
    (Access.READ | Access.WRITE, "Access"),
    (Text("x"), "Text"),
    (Count(5), "Count"),
    (Names(a=1), "Names"),
    (Rows([1]), "Rows"),
    (collections.OrderedDict(a=1), "OrderedDict"),
    (collections.defaultdict(int, a=1), "defaultdict"),
    (collections.Counter("a"), "Counter"),
    (collections.deque([1]), "deque"),
    (b"x", "b'x'"),
    (bytearray(b"x"), "bytearray"),
    (memoryview(b"x"), "memory"),
    (datetime(2026, 1, 1, tzinfo=UTC), "datetime"),
    (date(2026, 1, 1), "date"),
    (time(1, 2), "time"),
    (timedelta(1), "timedelta"),
    (Decimal("1.0"), "Decimal"),
    (UUID(int=1), "UUID"),
    (Point(1.0), "Point"),
    (User("a"), "User"),
    (Doc(UUID(int=1)), "Doc"),
    (Row(1), "Row"),
    (Pair(1), "Pair"),
    (math.nan, "nan"),
    (math.inf, "inf"),
    (2**64, "2^64-1"),
    (10**5000, "bits"),
    ("\ud800", "lone surrogate"),
    ({"\ud800": 1}, "lone surrogate"),
    (1j, "complex"),
    (object(), "object"),
    (int, "type"),
    (range(3), "range"),
    (msgspec.Raw(b'{"b":1,"a":2}'), "Raw"),
    (msgspec.UNSET, "Unset"),
    (iter([1]), "list_iterator"),
]


@pytest.mark.parametrize("type_", [Any, object], ids=["Any", "object"])
@pytest.mark.parametrize(("value", "says"), LOOSE, ids=lambda part: str(type(part).__name__))
def test_what_a_type_says_nothing_of_is_refused_if_it_would_come_back_as_another(
    type_: Any, value: Any, says: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        Codec(type_).encode(value)

    assert says in caught.value.reason


HOLDERS: list[tuple[Any, Any, str]] = [
    (list, lambda it: [0, it], "$[1]"),
    (list[Any], lambda it: [0, it], "$[1]"),
    (dict, lambda it: {"a": it}, "$.a"),
    (dict[str, Any], lambda it: {"a": [it]}, "$.a[0]"),
    (dict[int, Any], lambda it: {7: it}, "$[7]"),
    (tuple, lambda it: (0, it), "$[1]"),
    (tuple[int, Any], lambda it: (0, it), "$[1]"),
    (Held, Held, "$.it"),
    (list[Held], lambda it: [Held(1), Held(it)], "$[1].it"),
    (Doc, lambda it: Doc(UUID(int=1), note=it), "$.note"),
    (Row, lambda it: Row(1, it), "$.y"),
    (Pair, lambda it: Pair(1, it), "$[1]"),
    (Movie, lambda it: {"more": {"deep": it}}, "$.more.deep"),
    (Tree, lambda it: Tree(left=Tree(it)), "$.left.it"),
    (Box[Any], Box, "$.it"),
    (dict[str, list[Box[Any]]], lambda it: {"a": [Box(1)], "b": [Box(1), Box(it)]}, "$.b[1].it"),
]


@pytest.mark.parametrize(("type_", "make", "path"), HOLDERS, ids=map(str, range(len(HOLDERS))))
@pytest.mark.parametrize(
    "value", [(1,), {1: "a", "1": "b"}, Rank.FIRST, Decimal(1), Point(1.0), 1j, {1}, b"x"], ids=str
)
def test_the_refusal_names_the_place_inside_the_value(type_: Any, make: Any, path: str, value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        Codec(type_).encode(make(value))

    assert caught.value.path.startswith(path)


@pytest.mark.parametrize(("type_", "make", "path"), HOLDERS, ids=map(str, range(len(HOLDERS))))
def test_the_place_of_what_json_cannot_hold_is_named(type_: Any, make: Any, path: str) -> None:
    for value in (math.nan, 2**64, "\ud800"):
        with pytest.raises(InvalidValue) as caught:
            Codec(type_).encode(make(value))

        # Of these the place is that in the document.
        assert caught.value.path.startswith(path.replace("$[7]", "$.7") if type_ is not Row else "$[1]")


def negative_zero() -> Unsigned:
    found = Unsigned(1.0)
    found.x = -0.0
    return found


ALTERED: list[tuple[Any, Any, str, str]] = [
    (Unsigned, negative_zero(), "$.x", "-0.0 would read back as 0.0"),
    (float, True, "$", ""),
    (int, 1.0, "$", ""),
    (int, True, "$", ""),
    (int, Rank.FIRST, "$", "Rank"),
    (int | float, True, "$", ""),
    (bool, 1, "$", ""),
    (float, 2**53 + 1, "$", "9007199254740993"),
    (str, Level.LOW, "$", "Level"),
    (str, Text("a"), "$", "Text"),
    (Level, "low", "$", "low"),
    (Rank, 1, "$", "Rank"),
    (dict[Level, int], {"low": 1}, "$.low", "Level"),
    (dict[int, int], {"1": 1}, "$", ""),
    (dict[int, int], {True: 1}, "$", ""),
    (dict[float, int], {"1.0": 1}, "$", ""),
    (dict[str, int], {1: 1}, "$", "1"),
    (dict, {1: "a", "1": "b"}, "$", ""),
    (dict[int | str, int], {1: 1, "1": 2}, "$", ""),
    (set[str], {Text("a")}, "$", "Text"),
    (set[int], {True}, "$[0]", ""),
    (set[Any], {1, 1.5, (1,)}, "$", ""),
    (set[int], frozenset({1}), "$", "frozenset"),
    (frozenset[int], {1}, "$", "set"),
    (list[int], (1,), "$", "tuple"),
    (tuple[int, ...], [1], "$", "list"),
    (tuple[int, int], Pair(1, 2), "$", "Pair"),
    (list, Rows([1]), "$", "Rows"),
    (dict, Names(a=1), "$", "Names"),
    (dict[str, int], collections.OrderedDict(a=1), "$", "OrderedDict"),
    (date, "2026-01-01", "$", "date"),
    (Decimal, "1.0", "$", "Decimal"),
    (Decimal, Decimal("NaN"), "$", "NaN"),
    (Decimal, Decimal("sNaN"), "$", "NaN"),
    (UUID, str(UUID(int=1)), "$", "UUID"),
    (bytes | None, bytearray(b"x"), "$", "bytearray"),
    (bytearray, b"x", "$", "bytearray"),
    (list[memoryview], [memoryview(b"abcd").cast("i")], "$[0]", ""),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1, seconds=30))), "$", "read back as"),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(microseconds=1))), "$", "read back as"),
    (datetime, datetime(2026, 7, 1, tzinfo=paris), "$", "fixed offset"),
    (datetime, datetime(2026, 7, 1, tzinfo=ZoneInfo("UTC")), "$", "fixed offset"),
    (datetime, datetime(1880, 7, 1, tzinfo=paris), "$", "fixed offset"),
    (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=paris, fold=1), "$", "fixed offset"),
    (datetime, datetime(2026, 1, 1, tzinfo=Zone()), "$", "fixed offset"),
    (datetime, datetime(2026, 10, 25, 2, 30, fold=1), "$", "fold"),  # noqa: DTZ001, one without a zone
    (time, time(2, 30, fold=1), "$", "fold"),
    (time, time(2, 30, tzinfo=paris), "$", "fixed offset"),
    (list[time], [time(2, tzinfo=timezone(timedelta(seconds=1)))], "$[0]", ""),
    (Point, Place(1.0, name="here"), "$", "Place"),
    (Point, Place(1.0), "$", "Place"),
    (Point, {"x": 1.0}, "$", "Point"),
    (list[Point], [Point(1.0), Place(1.0)], "$[1]", "Place"),
    (Movie, Names(title="M"), "$", "Names"),
    (Movie, {"title": "M", "extra": 1}, "$", "read back"),
    (Pair, (1, 2), "$", "Pair"),
    (Point, beside(Point(1.0), colour="red"), "$.colour", "no field"),
    (Attached, beside(Attached(1), colour="red"), "$.colour", "no field"),
    (Open, beside(Open("a"), colour="red"), "$.colour", "no field"),
    (Computed, beside(Computed(1), x=2), "$.doubled", "2"),
    (Slotted, without(Slotted(1), "y"), "$.y", "not set"),
    (User, User("a", secret="x"), "$._secret", "'x'"),  # noqa: S106, msgspec leaves out what begins with _
    (Locked, Locked(1), "$.lock", "lock"),
    (Tagged, Doc(UUID(int=1)), "$", ""),
]


@pytest.mark.parametrize(("type_", "value", "path", "says"), ALTERED, ids=map(str, range(len(ALTERED))))
def test_what_the_type_would_alter_is_refused_with_its_place(type_: Any, value: Any, path: str, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Codec(type_).encode(value)

    assert caught.value.path == path
    assert says in caught.value.reason


KEPT: list[tuple[Any, Any]] = [
    (Any, {"a": [1, 1.0, True, None, -0.0, "x", {}]}),
    (object, [[], {}]),
    (dict, {"b": 1, "a": {"1": 2}}),
    (list, [1, 2.0]),
    (float, -0.0),
    (int | float, 1.0),
    (int | float, 1),
    (float, 5e-324),
    (dict[int, str], {1: "a", -5: "b", 2**64 - 1: "c"}),
    (dict[float, str], {1.5: "a", -0.5: "b"}),
    (dict[Rank, int], {Rank.FIRST: 1}),
    (dict[Level, int], {Level.LOW: 1}),
    (dict[date, int], {date(2026, 1, 1): 1}),
    (dict[UUID, int], {UUID(int=5): 1}),
    (set[str], {"b", "a"}),
    (frozenset[int], frozenset({3, 1})),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (tuple, ()),
    (Literal[1, "a"], "a"),
    (Kind, Kind.B),
    (Access, Access.READ | Access.WRITE),
    (Mode, Mode.READ | Mode.WRITE),
    (Decimal, Decimal("1.00")),
    (Decimal, Decimal("-0")),
    (Decimal, Decimal("1E+5")),
    (Decimal, Decimal("Infinity")),
    (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
    (datetime, datetime(2026, 1, 1, 12, 30, 15, 999_999)),  # noqa: DTZ001, one without a zone
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET"))),
    (datetime, datetime.max),  # noqa: DTZ901, one without a zone
    (time, time(23, 59, 59, 999_999, tzinfo=UTC)),
    (timedelta, timedelta(days=-999_999_999)),
    (timedelta, timedelta(999_999_999, 86_399, 999_999)),
    (bytearray, bytearray(b"x")),
    (list[bytes], [b"", b"\xff"]),
    (list[memoryview], [memoryview(b"abc")]),
    (Point, Point(1.5, -0.0)),
    (Held, Held([1])),
    (Computed, Computed(4)),
    (Defaulted, Defaulted(7)),
    (Defaulted, beside(Defaulted(), hidden=4)),
    (Slotted, Slotted(1)),
    (list[Key], [Key(1)]),
    (Box[int], Box(1)),
    (Box[int], Box[int](1)),
    (User, User("ada", {"x", "y"})),
    (Open, Open("ada")),
    (Frozen, Frozen("ada")),
    (Doc, Doc(UUID(int=9))),
    (Doc, Doc(UUID(int=9), (1, "a"), {"k": [1]}, 5)),
    (Tagged | None, Tagged(1)),
    (Row, Row(1, [2])),
    (Pair, Pair(1, {"a": 1})),
    (Movie, {"title": "M", "more": [1]}),
    (Tree, Tree(1, Tree(2, Tree([3])))),
    (list[Any] | dict[str, Any] | None, {"a": 1}),
]


@pytest.mark.parametrize(("type_", "value"), KEPT, ids=map(str, range(len(KEPT))))
def test_what_the_type_carries_is_kept(type_: Any, value: Any) -> None:
    codec: Codec[Any] = Codec(type_)
    stored = codec.encode(value)
    read = codec.decode(stored)

    assert identical(value, read, int_as_float=False)
    assert isinstance(stored, str)
    assert JSON.encode(JSON.decode(stored)) == stored, "the document has the one form of its content"


def test_an_int_that_the_type_takes_for_a_float_is_stored_as_one() -> None:
    """Python's type checkers take an int where a float is wanted; so does a type, and only where it says float."""
    for type_, ints, floats in (
        (float, 1, 1.0),
        (list[float], [1, 2.5], [1.0, 2.5]),
        (dict[str, float], {"a": 2**53}, {"a": 2.0**53}),
        (dict[float, int], {1: 1}, {1.0: 1}),
        (set[float], {1, 2}, {1.0, 2.0}),
        (Point, Point(1, -2), Point(1.0, -2.0)),
    ):
        codec: Codec[Any] = Codec(type_)

        assert codec.encode(ints) == codec.encode(floats)
        assert repr(codec.decode(codec.encode(ints))) == repr(floats)


@pytest.mark.parametrize("value", [Computed(3), User("ada")], ids=["dataclass", "attrs"])
def test_a_cached_property_is_neither_stored_nor_a_reason_to_refuse(value: Any) -> None:
    codec: Codec[Any] = Codec(type(value))
    before = codec.encode(value)
    assert value.square == 9 if isinstance(value, Computed) else value.shout == "ADA"

    assert codec.encode(value) == before


def test_equal_values_have_one_document_whatever_their_order() -> None:
    sets: Codec[Any] = Codec(set[str])
    mappings: Codec[Any] = Codec(dict[int, str])

    assert sets.encode({"a", "b", "c"}) == sets.encode({"c", "b", "a"})
    assert mappings.encode({10: "a", 9: "b"}) == mappings.encode({9: "b", 10: "a"}) == '{"10":"a","9":"b"}'


class Rude(RuntimeError):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def refuse(*_: object, **__: object) -> Any:
    raise Rude


def hostile(*names: str, base: type = object, **more: Any) -> Any:
    """Return an object whose methods *names* raise."""
    return type("Hostile", (base,), {**dict.fromkeys(names, refuse), **more})()


@dataclass
class Reading:
    x: Any

    def __post_init__(self) -> None:
        if self.x == "explode":
            raise Rude


HOSTILE: list[Any] = [
    hostile("__eq__", "__hash__", "__repr__", "__str__", "__bool__", "__len__", "__iter__"),
    hostile("__getattr__"),
    hostile("__getattribute__"),
    hostile(__class__=property(refuse)),
    hostile(__dict__=property(refuse)),
    hostile(__class__=dict),
    hostile("__repr__", "keys", "items", "__iter__", "__len__", "__getitem__", base=dict),
    hostile("__repr__", "__iter__", "__len__", "__getitem__", base=list),
    hostile("__repr__", "__iter__", "__len__", base=set),
    hostile("__repr__", "__str__", "__eq__", "__hash__", "encode", base=str),
    hostile("__repr__", "__int__", "__index__", "__eq__", "__lt__", base=int),
    hostile("__repr__", "__float__", "__eq__", base=float),
    hostile("__eq__", "__repr__", base=Point.__mro__[-1], __dataclass_fields__=Point.__dataclass_fields__),
    hostile("utcoffset", base=tzinfo),
    datetime(2026, 1, 1, tzinfo=hostile("utcoffset", "__repr__", base=tzinfo)),
]
PLACES: list[Any] = [
    lambda it: it,
    lambda it: [it],
    lambda it: {"a": it},
    Held,
    lambda it: Tree(left=Tree(it)),
    lambda it: User("a", [it]),  # type: ignore[arg-type]
    lambda it: beside(Point(1.0), extra=it),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_value_gives_one_clear_error_and_nothing_is_stored(tmp_path: Path, number: int) -> None:
    value = HOSTILE[number]
    with sqlstate.open(tmp_path / "s.db") as store:
        head = store.head()
        types: tuple[Any, ...] = (
            None,
            Any,
            object,
            list,
            dict,
            list[Any],
            Held,
            Tree,
            User,
            Point,
            datetime,
            int,
            str,
            bytes,
        )
        for type_ in types:
            there = store.collection("c", type=type_)
            for place in PLACES:
                with pytest.raises(InvalidValue) as caught:
                    there["k"] = place(value)
                assert (caught.value.collection, caught.value.key) == ("c", "k")

        assert store.head() == head
        assert "k" not in store["c"]


def test_a_hostile_key_is_refused(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "s.db") as store:
        for key in HOSTILE:
            with pytest.raises(sqlstate.InvalidKey):
                store["c"][key] = 1
        with pytest.raises(sqlstate.InvalidName):
            store[hostile("__hash__", "__eq__", "__repr__")]


def test_a_type_whose_own_code_fails_on_reading_gives_one_clear_error() -> None:
    codec = Codec(Reading)
    value = Reading(1)
    value.x = "explode"

    with pytest.raises(InvalidValue):
        codec.encode(value)
    with pytest.raises(InvalidValue, match="does not fit"):
        codec.decode('{"x":"explode"}')


def test_an_interrupt_in_a_types_own_code_is_no_refusal() -> None:
    @dataclass
    class Interrupted:
        x: int

        def __post_init__(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Codec(Interrupted).decode('{"x":1}')


def looped(make: Any) -> Any:
    """Return a value that contains itself."""
    inner: list[Any] = []
    value = make(inner)
    inner.append(value)
    return value


@pytest.mark.parametrize("make", PLACES[1:5])
@pytest.mark.parametrize("type_", [Any, list, dict, Held, Tree])
def test_a_value_that_contains_itself_is_refused(type_: Any, make: Any) -> None:
    with pytest.raises(InvalidValue):
        Codec(type_).encode(looped(make))


def test_a_cycle_beside_the_fields_is_refused() -> None:
    value = beside(Point(1.0), parent=None)
    value.parent = value

    with pytest.raises(InvalidValue):
        Codec(Point).encode(value)


@pytest.mark.parametrize("type_", [None, Any, list, Held, Tree])
def test_the_depth_that_is_allowed_is_that_of_the_document(type_: Any) -> None:
    codec: Codec[Any] = Codec(type_)
    value: Any = None
    for depth in range(1, 20_000):
        value = Held(value) if type_ is Held else Tree(value) if type_ is Tree else [value]
        if depth == fmt.JSON_DEPTH_MAX and type_ in (None, Any, list):
            assert codec.decode(codec.encode(value)) == value
        if depth in (fmt.JSON_DEPTH_MAX + 1, 19_999):
            with pytest.raises(InvalidValue):
                codec.encode(value)


@pytest.mark.parametrize("type_", [None, Any, Held])
def test_a_value_that_another_thread_changes_is_stored_as_it_once_was_or_refused(type_: Any) -> None:
    """The other thread goes from one value to others that JSON would alter without a word."""
    codec: Codec[Any] = Codec(type_)
    good: dict[str, Any] = {str(number): number for number in range(50)}
    value = dict(good)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for bad in (math.nan, b"7", (7,), 1j, {7}, Rank.FIRST, Decimal(7)):
                value["7"] = bad
                value["7"] = 7
            value[7] = "seven"  # type: ignore[index]
            del value[7]  # type: ignore[arg-type]

    other = threading.Thread(target=change)
    other.start()
    try:
        for _ in range(300):
            try:
                stored = codec.encode(Held(value) if type_ is Held else value)
            except InvalidValue:
                continue
            read = codec.decode(stored)
            assert (read.it if type_ is Held else read) == good
    finally:
        stop.set()
        other.join()


def test_where_a_stored_document_does_not_fit_is_named_with_each_step() -> None:
    many = {f"k{number}": {"x": 1.0} for number in range(100)}
    for type_, document, path in (
        (list[Point], [{"x": 1.0}, {"x": "a"}], "$[1].x"),
        (dict[str, Point], {**many, "bad one": {"x": "a"}}, "$.bad one.x"),
        (dict[str, dict[str, list[Point]]], {"a": {}, "b": {"c": [], "d": [{"x": 1.0}, {"y": 1.0}]}}, "$.b.d[1]"),
        (dict[str, Movie], {"ok": {"title": "M"}, "m": {"title": "M", "year": "x"}}, "$.m.year"),
        (Doc, {"theId": "x"}, "$.theId"),
    ):
        with pytest.raises(InvalidValue, match="does not fit") as caught:
            Codec(type_).decode(JSON.encode(document))

        assert caught.value.path == path


def test_a_refused_value_leaves_the_entry_as_it_was(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "s.db") as store:
        there = store.collection("c", type=Held)
        there["k"] = Held({"a": 1})
        head = store.head()
        for write in (
            lambda: there.__setitem__("k", Held((1,))),
            lambda: there.update({"j": Held(1), "k": Held({1: "a"})}),
            lambda: there.replace({"j": Held(1), "k": Held(Rank.FIRST)}),
            lambda: there.setdefault("j", Held(Level.LOW)),
        ):
            with pytest.raises(InvalidValue, match=r"'c'\['.'\] at \$\.it"):
                write()

        assert store.head() == head
        assert there["k"].it == {"a": 1}


@attrs.define
class Unannotated:
    name = attrs.field()  # type: ignore[var-annotated]


@pytest.mark.parametrize("type_", [Unannotated, list[Unannotated], "not a type at all(", Enum], ids=str)
def test_a_type_that_msgspec_fails_at_is_refused_at_once(type_: Any) -> None:
    with pytest.raises(InvalidOption, match="cannot be stored as JSON"):
        Codec(type_)


def test_any_value_of_any_type_comes_back_the_same_or_is_refused(store: sqlstate.Store) -> None:
    """By hand with more: `TYPED_EXAMPLES=100000 python -m pytest tests/format/test_typed.py -k any_value`."""
    with store.transaction() as txn:

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(shapes, st.data())
        def one(shape: Shape, data: st.DataObject) -> None:
            try:
                there = txn.collection("c", type=shape.type)
            except InvalidOption:  # a union that JSON cannot tell apart
                reject()
            value = data.draw(anything if data.draw(st.integers(0, 4)) == 4 else shape.values)
            before = txn["c"].get("k")
            try:
                there["k"] = value
            except InvalidValue:
                event("refused")
                assert txn["c"].get("k") == before
                return
            event("kept")
            read = there["k"]
            assert identical(value, read, int_as_float=shape.has_float), (value, read)
            stored = JSON.encode(txn["c"]["k"])
            there["k"] = read
            assert JSON.encode(txn["c"]["k"]) == stored

        one()


def test_a_type_is_looked_at_once_and_types_that_are_alike_are_told_apart() -> None:
    """A transaction asks for the same types each time: to look at a dataclass and a tuple takes 0.2 ms."""
    wanted: Any
    for wanted in (list[Literal[1]], list[Literal[True]], Rank, int):
        assert codec_for(wanted, tuple[str, int]) is codec_for(wanted, tuple[str, int])
    codecs = [codec_for(wanted, None) for wanted in (list[Literal[1]], list[Literal[True]], list[int])]
    assert len({*map(id, codecs)}) == 3
    assert codec_for(int, None) is not codec_for(int, str)
    assert codec_for(int, None) is not codec_for(int, None, forbid_unknown=True)


def test_a_type_without_a_hash_is_a_type(store: sqlstate.Store) -> None:
    for _ in range(2):
        numbers = store.collection("c", type=Annotated[int, []])  # type: ignore[arg-type]
        numbers["k"] = 5
        with pytest.raises(InvalidValue):
            numbers["k"] = "five"
