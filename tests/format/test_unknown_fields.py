"""Goal: with forbid_unknown, no field of a newer program's document is dropped. Method: documents with a field too many
at every depth and in every kind of type, and every door through which a collection is had."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

import attrs
import msgspec
import pytest
from hypothesis import assume, given

import sqlstate
from sqlstate import InvalidOption, InvalidValue, aio
from sqlstate.format.values import JSON, Codec
from tests.support.typed_values import Shape, shapes

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Old:
    name: str = ""


@dataclass
class New(Old):
    mail: str = ""
    phone: str = ""


@attrs.define
class User:
    name: str = ""
    friend: User | None = None


class Node(msgspec.Struct, rename="camel", omit_defaults=True):
    its_name: str = ""
    next_one: Node | None = None
    rest: list[Node] = []


class Movie(TypedDict, total=False):
    title: str
    cast: list[Old]


class Cat(msgspec.Struct, tag=True):
    name: str = ""


class Dog(msgspec.Struct, tag="hound", tag_field="kind"):
    name: str = ""
    owner: Old | None = None


class Fox(msgspec.Struct, tag="fox", tag_field="kind"):
    den: str = ""


class Row(msgspec.Struct, array_like=True):
    x: int
    of: Old | None = None


class Tagged(msgspec.Struct, array_like=True, tag="t"):
    x: int = 0


class Pair(NamedTuple):
    x: int
    of: Old


@dataclass
class Holder:
    by_name: dict[str, Old] = field(default_factory=dict)
    by_number: dict[int, User] = field(default_factory=dict)
    many: list[Node] = field(default_factory=list)
    pair: tuple[int, Old] | None = None
    free: Any = None
    loose: dict[str, Any] = field(default_factory=dict)


more = {"name": "a", "mail": "x", "phone": "y"}
UNKNOWN: list[tuple[Any, Any, str, str]] = [
    (Old, more, "$", "'mail', 'phone'"),
    (User, {"name": "a", "friend": {"name": "b", "friend": {"age": 1}}}, "$.friend.friend", "'age'"),
    (Node, {"itsName": "a", "its_name": "b"}, "$", "'its_name'"),
    (Node, {"nextOne": {"rest": [{}, {"nextOne": {"x": 1}}]}}, "$.nextOne.rest[1].nextOne", "'x'"),
    (Movie, {"title": "M", "year": 1}, "$", "'year'"),
    (Movie, {"cast": [{"name": "a"}, more]}, "$.cast[1]", "'mail', 'phone'"),
    (list[Old], [{}, more], "$[1]", "'mail'"),
    (dict[str, Old], {"a": {}, "b": more}, "$.b", "'mail'"),
    (dict[str, list[Movie]], {"a": [], "b": [{"x": 1}]}, "$.b[0]", "'x'"),
    (tuple[Old, ...], [{}, more], "$[1]", "'mail'"),
    (tuple[int, Old], [1, more], "$[1]", "'mail'"),
    (Old | None, more, "$", "'mail'"),
    (list[int] | Old | str, more, "$", "'mail'"),
    (dict[str, Old] | list[Old] | None, [more], "$[0]", "'mail'"),
    (Annotated[Old, msgspec.Meta(title="old")], more, "$", "'mail'"),
    (Annotated[Old, msgspec.Meta(title="old")] | None, more, "$", "'mail'"),
    (Cat, {"type": "Cat", "name": "a", "age": 1}, "$", "'age'"),
    (Dog | Fox, {"kind": "hound", "name": "a", "den": "b"}, "$", "'den'"),
    (Dog | Fox | None, {"kind": "fox", "den": "a", "name": "b"}, "$", "'name'"),
    (list[Dog | Fox], [{"kind": "fox"}, {"kind": "hound", "owner": more}], "$[1].owner", "'mail'"),
    (Row, [1, {"name": "a"}, 5, 6], "$", "[2], [3]"),
    (Row, [1, more], "$[1]", "'mail'"),
    (Tagged, ["t", 1, 2], "$", "[2]"),
    (Pair, [1, more], "$[1]", "'mail'"),
    (Holder, {"by_name": {"k": more}}, "$.by_name.k", "'mail'"),
    (Holder, {"by_number": {"7": {"friend": {"x": 1}}}}, "$.by_number.7.friend", "'x'"),
    (Holder, {"many": [{}, {"nextOne": {"y": 1}}]}, "$.many[1].nextOne", "'y'"),
    (Holder, {"pair": [1, more]}, "$.pair[1]", "'mail'"),
]


@pytest.mark.parametrize(("type_", "document", "path", "names"), UNKNOWN, ids=map(str, range(len(UNKNOWN))))
def test_a_field_that_the_type_would_drop_is_named_with_its_place(
    type_: Any, document: Any, path: str, names: str
) -> None:
    stored = JSON.encode(document)
    Codec(type_).decode(stored)

    with pytest.raises(InvalidValue) as caught:
        Codec(type_, forbid_unknown=True).decode(stored)

    assert caught.value.path == path
    assert names in caught.value.reason
    assert "forbid_unknown" in caught.value.reason, "it says what to do"


KNOWN: list[tuple[Any, Any]] = [
    (Old, {}),
    (Node, {"itsName": "", "rest": []}),
    (Cat, {"type": "Cat", "name": "a"}),
    (Dog | Fox, {"kind": "fox", "den": "a"}),
    (Row, [1]),
    (Tagged, ["t", 1]),
    (Holder, {"free": {"any": [{"thing": 1}]}, "loose": {"any": {"thing": 1}}}),
    (dict, {"a": {"b": 1}}),
    (Any, {"a": [{"b": 1}]}),
    (dict[str, Any], {"a": {"b": 1}}),
    (set[int], [1, 2]),
    (int, 5),
]


@pytest.mark.parametrize(("type_", "document"), KNOWN, ids=map(str, range(len(KNOWN))))
def test_what_the_type_knows_is_read(type_: Any, document: Any) -> None:
    stored = JSON.encode(document)

    assert Codec(type_, forbid_unknown=True).decode(stored) == Codec(type_).decode(stored)


@given(shapes.flatmap(lambda shape: shape.values.map(lambda value: (shape, value))))
def test_what_a_type_wrote_it_also_reads_with_forbid_unknown(pair: tuple[Shape, Any]) -> None:
    shape, value = pair
    assume(shape.type is not None)
    try:
        stored = Codec(shape.type).encode(value)
    except (InvalidOption, InvalidValue):
        return

    Codec(shape.type, forbid_unknown=True).decode(stored)


def test_without_a_type_nothing_says_what_is_known() -> None:
    with pytest.raises(InvalidOption, match="type="):
        Codec(None, forbid_unknown=True)


def test_an_older_program_cannot_drop_what_a_newer_one_wrote(store: sqlstate.Store) -> None:
    store.collection("people", type=New)["ada"] = New("Ada", "a@b.c", "1")
    head = store.head()
    people = store.collection("people", type=Old, forbid_unknown=True)

    def change() -> None:
        people["ada"] = Old(people["ada"].name.upper())

    with store.snapshot() as snapshot:
        readings: list[Callable[[], object]] = [
            change,
            lambda: people["ada"],
            lambda: people.get("ada"),
            lambda: people.pop("ada"),
            people.popitem,
            lambda: people.setdefault("ada", Old()),
            lambda: list(people.items()),
            lambda: list(people.values()),
            lambda: snapshot.collection("people", type=Old, forbid_unknown=True)["ada"],
        ]
        for read in readings:
            with pytest.raises(InvalidValue, match=r"'people'\['ada'\] at \$: .*'mail', 'phone'"):
                read()
    with store.batch() as batch, pytest.raises(InvalidValue, match="'mail', 'phone'"):
        batch.collection("people", type=Old, forbid_unknown=True)["ada"]
    with store.transaction() as txn, pytest.raises(InvalidValue, match="'mail', 'phone'"):
        txn.collection("people", type=Old, forbid_unknown=True)["ada"]

    assert store.head() == head
    assert list(people) == ["ada"], "keys are read without their values"
    change_as_before = store.collection("people", type=Old)
    change_as_before["ada"] = change_as_before["ada"]
    assert store["people"]["ada"] == {"name": "Ada"}, "without it, the fields are dropped"


@pytest.mark.anyio
async def test_the_asynchronous_doors_take_it_too(aiostore: aio.AsyncStore) -> None:
    await aiostore.put("people", "ada", more)
    async with aiostore.snapshot() as snapshot, aiostore.transaction() as txn:
        for door in (aiostore, snapshot, txn):
            people = door.collection("people", type=Old, forbid_unknown=True)
            with pytest.raises(InvalidValue, match="'mail', 'phone'"):
                await people.get("ada")
            with pytest.raises(InvalidValue, match="'mail', 'phone'"):
                async for _ in people.items():
                    pass
