"""Goal: what LangGraph's values are written as comes back as what it was, or is refused, and nothing runs code.

Method: values of each kind that LangGraph knows, there and back; those of which its own reader makes something else, by
name; bytes that others wrote.
"""

from __future__ import annotations

import pickle
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

pytest.importorskip("langgraph.checkpoint.base")

import ormsgpack
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send

from sqlstate import InvalidValue
from sqlstate.integrations.langgraph.serializer import Serializer

if TYPE_CHECKING:
    from pathlib import Path


class Plain:
    """What only pickle could store."""


class Colour(Enum):
    """What LangGraph can store, and reads back only if it is allowed."""

    RED = "red"


@dataclass
class Known:
    """What LangGraph can store, and reads back only if it is allowed."""

    x: Any


class Moment(datetime):
    """What LangGraph stores, and never reads back as what it is."""


def local() -> Any:
    @dataclass
    class Hidden:
        x: int

    return Hidden


RING: list[Any] = []
RING.append(RING)
KNOWN_RING = Known(None)
KNOWN_RING.x = KNOWN_RING


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        None, b"raw", bytearray(b"raw"), "text", 2**64 - 1, -(2**63), 1.5, float("inf"), [1, {"a": [None]}],
        {1: 2, "a": 3}, {1, 2}, frozenset({"a"}), deque([1, 2]), UUID(int=7), Decimal("1.10"), date(2026, 1, 2),
        timedelta(days=1, microseconds=1), datetime(2026, 1, 2, 3, 4, 5, 6, UTC), IPv4Address("127.0.0.1"), nested(250),
        HumanMessage("hello", id="1"),
        [AIMessage("", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "2"}]), ToolMessage("done", tool_call_id="2")],
        Send("node", {"x": 1}), Interrupt(value={"question": "?"}, id="3"), b"x" * 10_000_000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_langgraph_knows_comes_back(value: Any) -> None:
    serde = Serializer()
    kind, data = serde.dumps_typed(value)
    assert type(data) is bytes
    assert serde.loads_typed((kind, data)) == value


def test_what_langgraph_writes_otherwise_is_as_it_writes_it() -> None:
    serde = Serializer()
    for value, read in (((1, 2), [1, 2]), ("a\ud800", "a?"), (ValueError("no"), "ValueError('no')")):
        assert serde.loads_typed(serde.dumps_typed(value)) == read
        assert JsonPlusSerializer().loads_typed(JsonPlusSerializer().dumps_typed(value)) == read


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Plain(), "Plain"),
        (lambda: 1, "function"),
        (Known(1), r"tests\.integrations\.langgraph\.test_serializer\.Known.*allowed_types"),
        (Colour.RED, "Colour"),
        (PurePosixPath("a"), "PurePosixPath"),
        ([{"deep": {1: [Known(2)]}}], "Known"),
        (Known(Plain()), "Known"),
        (Moment(2026, 1, 2), "Moment.*plain datetime"),
        (local()(1), "Hidden"),
        (2**70, "64"),
        (RING, "ecursion"),
        (nested(300), "ecursion"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_would_need_pickle_or_come_back_otherwise_is_refused_by_name(value: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        Serializer().dumps_typed(value)


def test_a_class_that_is_allowed_comes_back_as_itself() -> None:
    for allowed in ([Known, Colour], [(Known.__module__, "Known"), (Colour.__module__, "Colour")]):
        serde = Serializer(allowed)
        value = {"a": [Known(1), Colour.RED], "b": Known(Known("deep"))}
        assert serde.loads_typed(serde.dumps_typed(value)) == value


def test_what_allowing_does_not_make_readable_is_refused() -> None:
    hidden = local()
    serde = Serializer([Moment, hidden, Known])
    for value in (Moment(2026, 1, 2), hidden(1), KNOWN_RING):
        with pytest.raises(InvalidValue):
            serde.dumps_typed(value)


def test_arrays_of_numbers_come_back_and_those_of_objects_are_refused() -> None:
    numpy = pytest.importorskip("numpy")
    serde = Serializer()
    array = numpy.arange(6.0).reshape(2, 3)
    assert (serde.loads_typed(serde.dumps_typed({"a": array}))["a"] == array).all()
    for wrong in (numpy.array([{}, Plain()]), numpy.zeros(2, dtype=[("a", "i4")])):
        with pytest.raises(InvalidValue, match=r"array|memoryview"):
            serde.dumps_typed(wrong)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["pickle", "json", "Hostile", ""])
def test_a_pickle_is_not_run(tmp_path: Path, kind: str) -> None:
    made = tmp_path / "made"
    with pytest.raises(InvalidValue, match="never read"):
        Serializer().loads_typed((kind, pickle.dumps(Hostile(made))))
    assert not made.exists()


def test_a_call_in_the_file_that_nobody_allowed_is_not_made(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for code, parts in (
        (0, ("os", "mkdir", str(made))),
        (1, ("os", "mkdir", (str(made),))),
        (3, ("os", "path", "x", "mkdir")),
    ):
        data = ormsgpack.packb({"a": ormsgpack.Ext(code, ormsgpack.packb(parts))})
        assert Serializer([Known]).loads_typed(("msgpack", data)) in ({"a": str(made)}, {"a": [str(made)]}, {"a": "x"})
        assert not made.exists()
    data = ormsgpack.packb(ormsgpack.Ext(0, ormsgpack.packb(("os", "mkdir", str(made)))))
    JsonPlusSerializer(allowed_msgpack_modules=True).loads_typed(("msgpack", data))
    assert made.exists(), "so the call could have been made"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000])
def test_bytes_that_are_not_msgpack_are_named(data: bytes) -> None:
    with pytest.raises(InvalidValue, match="msgpack"):
        Serializer().loads_typed(("msgpack", data))
