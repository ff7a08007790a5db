"""Goal: a tuple that is a key orders, compares and comes back as Python's own, for any elements.

Method: Hypothesis, beside the plain reading of docs/reference/tuple-keys.md, which shares no code with sqlstate, and
tests/vectors/tuple_keys.json, which is made from that.
"""

from __future__ import annotations

import json
import typing
from typing import Any, Optional, Union

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sqlstate
from sqlstate.format.keys import keys_for
from tests import ROOT
from tests.reference import tuple_keys
from tests.vectors import make_tuple_keys
from tests.vectors.make import untyped

FILE = ROOT / "tests" / "vectors" / "tuple_keys.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text("ascii"))

# Bytes that the encoding itself uses come often.
texts = st.text(
    st.one_of(st.sampled_from("\x00\x01\x02\x03a\x7f\x80\xff\uffff\U0001f511"), st.characters(codec="utf-8"))
)
blobs = st.binary() | st.lists(st.sampled_from([0, 1, 2, 3, 255])).map(bytes)
ints = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2)
elements = ints | texts | blobs
tuples = st.lists(elements, min_size=1, max_size=4).map(tuple)

UserId = typing.NewType("UserId", int)
Place = typing.NewType("Place", tuple[UserId, int])


@st.composite
def alike(draw: st.DrawFn) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Two tuples that Python compares: those at the same place are of the same kind; often they begin the same."""
    kinds = draw(st.lists(st.sampled_from([ints, texts, blobs]), min_size=1, max_size=4))
    first = tuple(draw(kind) for kind in kinds)
    same = draw(st.integers(0, len(kinds)))
    second = first[:same] + tuple(draw(kind) for kind in kinds[same:])
    most = st.integers(1, len(kinds))
    return first[: draw(most)], second[: draw(most)]


def vector(form: list[Any]) -> tuple[Any, ...]:
    return tuple(untyped(each) for each in form)


@given(tuples)
def test_a_tuple_comes_back_equal_and_of_equal_types(key: tuple[Any, ...]) -> None:
    raw = sqlstate.pack_key(key)
    back = sqlstate.unpack_key(raw)
    assert back == key
    assert [*map(type, back)] == [*map(type, key)]
    assert raw == tuple_keys.packed(key)


@given(alike())
@example((("a",), ("a\x00",)))
@example((("a", "b"), ("a\x00",)))
@example(((b"", b""), (b"\x00",)))
@example(((-(2**63), ""), (2**63 - 1, "")))
@example(((-1,), (0,)))
@example((("a",), ("a", -(2**63))))
@example((("\uffff",), ("\U00010000",)))
def test_tuples_that_python_compares_order_as_python_says(pair: tuple[tuple[Any, ...], tuple[Any, ...]]) -> None:
    a, b = pair
    assert (sqlstate.pack_key(a) < sqlstate.pack_key(b)) == (a < b)
    assert (sqlstate.pack_key(a) == sqlstate.pack_key(b)) == (a == b)


@given(tuples, tuples)
def test_others_order_by_the_kind_of_the_first_element_that_differs(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    assert (sqlstate.pack_key(a) < sqlstate.pack_key(b)) == (tuple_keys.order(a) < tuple_keys.order(b))
    assert (sqlstate.pack_key(a) == sqlstate.pack_key(b)) == (a == b)


@given(st.lists(tuples, max_size=30), st.lists(elements, max_size=2).map(tuple))
@example([("a",), ("a\x00",), ("a\x00b",), ("a", 1), ("a", b"\xff"), ("b",)], ("a",))
def test_a_prefix_finds_those_that_begin_with_its_elements(
    keys: list[tuple[Any, ...]], prefix: tuple[Any, ...]
) -> None:
    start, stop = keys_for(tuple).bounds(prefix=prefix)
    assert isinstance(start, bytes)
    assert isinstance(stop, bytes)
    for key in [*keys, (*prefix, 0), (*prefix, "\x00"), (*prefix, b"\xff")]:
        assert (start <= sqlstate.pack_key(key) < stop) == (key[: len(prefix)] == prefix)


@given(blobs)
def test_bytes_are_a_tuple_exactly_where_the_page_says_so(raw: bytes) -> None:
    try:
        expected = tuple_keys.unpacked(raw)
    except ValueError:
        expected = ()
    if expected:
        assert sqlstate.unpack_key(raw) == expected
        assert sqlstate.pack_key(expected) == raw, "one spelling each"
    else:
        with pytest.raises(sqlstate.InvalidKey):
            sqlstate.unpack_key(raw)


def test_the_vectors_are_what_is_made_from_the_page() -> None:
    assert FILE.read_text("ascii") == make_tuple_keys.document()


def test_the_vectors_hold() -> None:
    keys = [vector(each["key"]) for each in VECTORS["keys"]]
    packed = [sqlstate.pack_key(key) for key in keys]
    assert [raw.hex() for raw in packed] == [each["bytes"] for each in VECTORS["keys"]]
    assert packed == sorted(packed)
    assert [sqlstate.unpack_key(raw) for raw in packed] == keys
    for each in VECTORS["prefixes"]:
        start, stop = keys_for(tuple).bounds(prefix=vector(each["prefix"]))
        assert [number for number, raw in enumerate(packed) if start <= raw < stop] == each["keys"]  # type: ignore[operator]


@pytest.mark.parametrize("each", VECTORS["refused"], ids=lambda each: each["bytes"])
def test_bytes_that_are_no_tuple_are_refused(each: dict[str, str]) -> None:
    raw = bytes.fromhex(each["bytes"])
    with pytest.raises(sqlstate.InvalidKey, match="not what a tuple is stored as"):
        sqlstate.unpack_key(raw)
    with pytest.raises(ValueError):  # noqa: PT011, the plain reading has one error
        tuple_keys.unpacked(raw)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ((True,), "element 0 .* is bool"),
        ((1.0,), "element 0 .* is float"),
        (("a", None), "element 1 .* is NoneType"),
        (("a", ("b",)), "element 1 .* is tuple"),
        ((2**63,), "outside -2.63"),
        (("\ud800",), "lone surrogate"),
        (["a"], "not list"),
        ("a", "not str"),
        ((), "1 to 1,048,576 bytes, this one 0"),
        (("a" * 2**20,), "1 to 1,048,576 bytes, this one 1,048,578"),
    ],
)
def test_what_is_no_tuple_key_is_refused_by_name(key: Any, said: str) -> None:
    with pytest.raises(sqlstate.InvalidKey, match=said):
        sqlstate.pack_key(key)


@pytest.mark.parametrize("raw", [b"", "a", 1, None, (1,), bytearray(b"\x02a\x00")])
def test_what_is_no_bytes_key_is_no_tuple(raw: Any) -> None:
    with pytest.raises(sqlstate.InvalidKey, match="not what a tuple is stored as"):
        sqlstate.unpack_key(raw)


@pytest.mark.parametrize(
    "type_",
    [float, bool, object, Any, list, dict, tuple[float], tuple[()], tuple[str, None], Optional[str], "str", 1, [],  # noqa: UP045
     tuple[tuple[int], str], tuple[list[int], ...], int | float,
     typing.NewType("Ratio", float), typing.NamedTuple("Pair", [("a", int)])],
)  # fmt: skip
def test_what_is_no_type_of_keys_is_refused_by_name(store: sqlstate.Store, type_: Any) -> None:
    with pytest.raises(sqlstate.InvalidOption, match="is no type of keys"):
        store.collection("c", key=type_)


@pytest.mark.parametrize(
    ("type_", "fits", "others"),
    [
        (int, [1], ["a", b"a", (1,), True]),
        (str, ["a"], [1, b"a", ("a",), None]),
        (bytes, [b"a"], [1, "a", (b"a",), bytearray(b"a")]),
        (int | str, [1, "a"], [b"a", (1,)]),
        (Union[int, bytes], [1, b"a"], ["a"]),  # noqa: UP007, also as it was written once
        (tuple[str, int], [("a", 1)], [("a",), ("a", 1, 1), ("a", "b"), (1, "a"), ["a", 1], "a", ("a", True)]),
        (typing.Tuple[str, int], [("a", 1)], [("a",)]),  # noqa: UP006
        (tuple[int | str, bytes], [(1, b""), ("", b"")], [(b"", b"")]),
        (tuple[str, ...], [("a",), ("a", "b", "c")], [("a", 1), "a", ()]),
        (tuple, [("a", 1, b""), (1,)], ["a", (), (None,)]),
        (UserId, [1], ["a", (1,)]),
        (tuple[UserId, str], [(UserId(1), "a")], [("a", 1), (1,)]),
        (Place, [(1, 2)], [(1,), 1]),
        (UserId | str, [1, "a"], [b"a"]),
    ],
)
def test_a_type_of_keys_takes_its_own_and_refuses_others(
    store: sqlstate.Store, type_: Any, fits: list[Any], others: list[Any]
) -> None:
    view = store.collection("c", key=type_)
    for number, key in enumerate(fits):
        view[key] = number
    assert dict(view) == {key: number for number, key in enumerate(fits)}
    for key in others:
        with pytest.raises(sqlstate.InvalidKey):
            view[key] = 1
        with pytest.raises(sqlstate.InvalidKey):
            view.get(key)
        with pytest.raises(sqlstate.InvalidKey):
            assert key in view
    assert len(view) == len(fits)


def test_who_gives_a_tuple_without_a_type_is_told_of_it(store: sqlstate.Store) -> None:
    for call in (
        lambda: store["c"]["ann", 9],  # type: ignore[index]
        lambda: store.put("c", ("ann", 9), 1),  # type: ignore[arg-type]
        lambda: store["c"].keys(start=("ann",)),
    ):
        with pytest.raises(
            sqlstate.InvalidKey, match=r"not tuple: .*store\.collection\(name, key=tuple\) takes tuples"
        ):
            call()
