"""Pickles without running them: the same values as Python's own unpickler, and nothing else, whatever the bytes say.

Method: Hypothesis makes values, and bytes that are nearly pickles; and pickles that would do harm are made by hand.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict
from contextlib import suppress
from datetime import UTC, date, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlstate.importing.decoding import run_pickle
from sqlstate.importing.encoding import encode_foreign
from sqlstate.importing.exact_json import ContentError
from sqlstate.importing.pickled import Unbuilt, unpickled, weight

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-3))))
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
hashable = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal and of equal types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return same([*a.items()], [*b.items()])
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) and (isinstance(a, set | frozenset) or repr(a) == repr(b))


@given(value=values, protocol=st.sampled_from(PROTOCOLS))
def test_builtin_types_are_built_as_python_builds_them(value: Any, protocol: int) -> None:
    raw = pickle.dumps(value, protocol)
    assert same(unpickled(raw), pickle.loads(raw))  # noqa: S301


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_known_types_are_built_too(protocol: int) -> None:
    shared: list[Any] = [1]
    one = uuid4()
    for value in (
        bytearray(b"abc"),
        1 + 2j,
        Counter("abca"),
        defaultdict(list, a=[1]),
        [one, one, {"again": one}],
        [shared, shared],
        {"é": "\0\n", "": [True, False, None]},
        "x" * 70_000,
        [*range(3000)],
        Decimal("1.10"),
    ):
        read = unpickled(pickle.dumps(value, protocol))
        assert (type(read), read) == (type(value), value)
    twice = unpickled(pickle.dumps([shared, shared], protocol))
    assert twice[0] is twice[1]


class Plain:
    """A class of the program's own."""

    def __init__(self) -> None:
        self.x = 1


class Own(dict):  # type: ignore[type-arg]
    """A dict of the program's own, as TinyDB's documents are."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Plain(), "Plain"),
        (Plain, "Plain"),
        (Own(a=1), "Own"),
        (os.system, f"{os.name}.system"),
        (Fraction(1, 2), "fractions.Fraction"),
        (Path("x"), "Path"),
        (sys.exit, "sys.exit"),
    ],
)
def test_what_needs_another_class_is_named_with_its_place(value: Any, named: str, protocol: int) -> None:
    with pytest.raises(ContentError, match=rf"at \$\.a\[1\]: the pickle needs .*{named}"):
        encode_foreign("c", "k", unpickled(pickle.dumps({"a": [0, value]}, protocol)))


# Pickles as nobody's program writes them.
STRANGE = {
    "calls a call": b"cos\nsystem\n)R(S'x'\ntR.",
    "an INST": b"(S'echo'\nios\nsystem\n.",
    "an OBJ": b"(cos\nsystem\nS'echo'\no.",
    "a name that is made": b"\x8c\x02os\x8c\x06system\x93\x8c\x04echo\x85R.",
    "an extension": b"\x82\x01.",
    "a persistent id": b"Pabc\n.",
    "a persistent id on the stack": b"\x8c\x01xQ.",
    "a buffer": b"\x97\x98.",
    "a UUID without its number": b"cuuid\nUUID\n)\x81.",
    "a day that is none": b"cdatetime\ndate\n(C\x04\x07\xea\x01\x63tR.",
    "a moment that is none": b"cdatetime\ndatetime\n(C\x0a\x07\xea\x01\x01\x63\x01\x01\x00\x00\x00tR.",
    "a huge bytearray": b"cbuiltins\nbytearray\n(L1000000000000L\ntR.",
    "a list of something": b"cbuiltins\nlist\n((lp0\ntR.",
    "attributes of a set": b"\x8f}b.",
}


@pytest.mark.parametrize("raw", STRANGE.values(), ids=STRANGE)
def test_a_strange_pickle_gives_nothing_that_can_be_stored(raw: bytes) -> None:
    with pytest.raises(ContentError):
        encode_foreign("c", "k", unpickled(raw))


BROKEN = [
    b"",
    b".",
    b"abc",
    b"(",
    b"N",
    b"]",
    b"0.",
    b"a.",
    b"(a.",
    b"t.",
    b"h\0.",
    b"}]a.",
    b"}]]s.",
    b"NN\x93.",
    b"NNR.",
    b"\x8c\x01xe.",
]


@pytest.mark.parametrize("raw", [*BROKEN, b"\x8e" + b"\xff" * 8 + b".", b"I" + b"9" * 5000 + b"\n."])
def test_what_is_no_pickle_is_refused(raw: bytes) -> None:
    with pytest.raises(ContentError, match="not a pickle"):
        unpickled(raw)


@given(
    value=values,
    protocol=st.sampled_from(PROTOCOLS),
    edits=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 300),
)
def test_whatever_the_bytes_are_only_a_content_error_comes_out(
    value: Any, protocol: int, edits: list[tuple[int, int]], cut: int
) -> None:
    raw = bytearray(pickle.dumps(value, protocol))[:cut]
    for at, byte in edits:
        if raw:
            raw[at % len(raw)] = byte
    with suppress(ContentError):
        encode_foreign("c", "k", unpickled(bytes(raw)))


@given(raw=st.binary(max_size=60))
def test_whatever_other_bytes_are_only_a_content_error_comes_out(raw: bytes) -> None:
    with suppress(ContentError):
        encode_foreign("c", "k", unpickled(raw + b"."))


# ---- Short pickles of what is endless when it is written out ----


def doubled(levels: int, part: Callable[[Any], Any], first: Any) -> Any:
    for _ in range(levels):
        first = part(first)
    return first


@pytest.mark.parametrize(
    "value",
    [
        doubled(60, lambda x: [x, x], 1),
        doubled(60, lambda x: {"a": x, "b": x}, 1),
        doubled(190, lambda x: [x, x, [x]], "text"),
        [["x" * 1_000_000] * 1000],
        (doubled(60, lambda x: (x, x), ()),),
    ],
    ids=["lists", "dicts", "deep", "text", "tuples"],
)
def test_what_is_endless_when_written_out_is_refused_at_once(value: Any) -> None:
    with pytest.raises(ContentError, match=r"far larger than the limit|nested more than 200"):
        encode_foreign("c", "k", unpickled(pickle.dumps(value)))


def test_a_key_that_takes_for_ever_to_hash_is_refused_at_once() -> None:
    deep = b"N" + b"\x85" * 150 + b"2\x86" * 60  # a tuple of twice the same, sixty times
    for raw in (
        b"}" + deep + b"Ns.",
        b"\x8f(" + deep + b"\x90.",
        b"(" + deep + b"\x91.",
        deep + b"\x85\x85.",
    ):
        with pytest.raises(ContentError):
            encode_foreign("c", "k", unpickled(raw))


def test_what_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring += [ring, ring]
    table: dict[str, Any] = {}
    table["a"] = [table, table]
    for value in (ring, table):
        with pytest.raises(ContentError, match="200 levels"):
            encode_foreign("c", "k", unpickled(pickle.dumps(value)))


def test_weight_counts_what_is_there_twice_twice() -> None:
    inner = ["text"]
    assert weight([inner, inner]) == weight([["text"], ["text"]])
    assert weight([]) > 0


def test_unbuilt_says_why() -> None:
    assert repr(Unbuilt("no reason")) == "<no reason>"
    assert "app.User" in repr(unpickled(b"capp\nUser\n."))
    assert isinstance(unpickled(pickle.dumps(UUID(int=5), 2)), UUID)
    assert same(unpickled(pickle.dumps([date.min, time.max])), [date.min, time.max])
    assert run_pickle(pickle.dumps(Own(a=1))) == {"a": 1}
    with pytest.raises(ContentError, match="cannot be loaded"):
        run_pickle(b"cno_such\nmodule\n.")


@pytest.mark.parametrize("raw", [b"c\\K\nname\n.", b"cmodule\n\\d\n.", b"S'\\K'\n.", b"i\\K\nname\n."])
def test_an_escape_that_python_warns_of_is_a_content_error_where_warnings_are_errors(raw: bytes) -> None:
    with suppress(ContentError):
        encode_foreign("c", "k", unpickled(raw))
