"""Goal: a caller may give the verifier the value that the store gave, and never has to know its text. Method: the
verifier's own JSON, made of the standard library, against the store's encoder on any value that a store can hold."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import proof
from sqlstate.errors import Damaged, InvalidValue, ProofInvalid
from sqlstate.format.values import Codec
from tests.reference import notation, proving
from tests.reference.proving import Question

if TYPE_CHECKING:
    from pathlib import Path

CODEC: Codec[Any] = Codec()
texts = st.text() | st.text(
    st.sampled_from('\x00\x01\x08\t\n\x0b\x0c\r\x1f "\\/\x7f\x80\x9f\u2028\u2029\ufeff\uffff\U0001f511')
)
# Every pattern of bits is as likely, so that exponents are.
doubles = (
    st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]).filter(math.isfinite)
)
decimals = st.builds(
    lambda digits, exponent: float(f"{digits}e{exponent}"), st.integers(-(10**17), 10**17), st.integers(-40, 40)
)
floats = st.floats(allow_nan=False, allow_infinity=False) | doubles | decimals
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | floats | texts
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5))


def accepts(stored: Any, value: Any) -> bool:
    """Whether *value* is accepted for an entry whose value is stored so."""
    of = proving.tree([("c", 1, stored)])
    made = proving.honest(of, Question("present", "c", 1, stored))
    assert made is not None
    try:
        proof.verify_present(made, of.root, "c", 1, value)
    except ProofInvalid:
        return False
    return True


@given(value=documents)
@settings(max_examples=300, deadline=None)
@example(value=-0.0)
@example(value=[1e-4, 1e-5, 1.5e-5, -1.25e-5, 9.999e-5, 1e-6, 1e-7, 1.5e-7])
@example(value=[1e15, 1e16, 1.5e16, 123456789012345680.0, 1e17, 1e20, 1e21, 1e22, 1e23, 1e100, 1.5e300, 5e-324])
@example(value=[2.0**53, 2.0**63, 2.0**64, 1.7976931348623157e308, 0.1, 100000.0, 1e5, -1e16])
@example(value={"\U0001f511": 1, "\uffff": 2, "\u00e9": 3, "": 4, "a\0": 5, "a": 6})
@pytest.mark.slow
def test_a_value_is_written_as_the_store_writes_it(value: Any) -> None:
    assert accepts(CODEC.encode(value), value)


@given(number=floats)
@settings(max_examples=600, deadline=None)
def test_a_number_is_written_as_the_store_writes_it(number: float) -> None:
    assert accepts(CODEC.encode(number), number)


@pytest.mark.parametrize("digits", ["1", "-1", "1.5", "9.999999999999999", "1.2345678901234567", "-7.25"])
def test_a_number_of_each_exponent_is_written_as_the_store_writes_it(digits: str) -> None:
    for exponent in range(-330, 308):
        number = float(f"{digits}e{exponent}")
        assert accepts(CODEC.encode(number), number), number


@given(value=documents)
@settings(max_examples=150, deadline=None)
@pytest.mark.slow
def test_what_a_range_returns_is_what_the_store_reads(value: Any) -> None:
    stored: Any = CODEC.encode(value)
    of = proving.tree([("c", 1, stored)])
    made = proving.honest(of, Question("range", "c"))
    assert made is not None
    ((key, found),) = proof.verify_range(made, of.root, "c")
    assert (key, repr(found)) == (1, repr(CODEC.decode(stored)))


@pytest.mark.parametrize(
    "text", ["[1", "1e999", '"\\ud800"', "9" * 400, "[" * 201 + "]" * 201], ids=lambda text: text[:9]
)
def test_an_entry_that_no_range_can_show_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Another program wrote it, with every digest right."""
    assert notation.json_faults(text) != []
    with sqlstate.open(path) as store:
        store["c"]["a"] = 1
        with monkeypatch.context() as patched:
            patched.setattr(Codec, "encode", lambda *_: text)
            store["c"]["k"] = 2
        with pytest.raises(Damaged, match=r"I1: .*'c'\['k'\] is not a JSON document"):
            store.prove_range("c")
        assert store.prove_range("c", stop="k").kind == "range"
        proof.verify_present(store.prove("c", "k"), store.head().root, "c", "k", proof.Document(text))
        del store["c"]["k"]
    path.unlink()  # its history is what no judge accepts


@pytest.mark.parametrize(
    ("stored", "value", "truth"),
    [
        ("1", 1, True),
        ("1", 1.0, False),
        ("1", True, False),
        ("1.0", 1.0, True),
        ("1.0", 1, False),
        ("0.0", -0.0, False),
        ("-0.0", -0.0, True),
        ("true", True, True),
        ('"1"', "1", True),
        ('"1"', 1, False),
        (b"1", b"1", True),
        ("1", b"1", False),
        (b"1", 1, False),
        (b"1", proof.Document("1"), False),
        ("null", None, True),
        ("[]", [], True),
        ("{}", [], False),
        ('{"b":1, "a":2}', proof.Document('{"b":1, "a":2}'), True),
        ('{"b":1, "a":2}', {"b": 1, "a": 2}, False),
        ('{"a":2,"b":1}', {"b": 1, "a": 2}, True),
        ('"1"', proof.Document('"1"'), True),
        ('"1"', proof.Document("1"), False),
    ],
)
def test_equal_values_of_other_types_are_other_values(stored: Any, value: Any, truth: bool) -> None:
    assert accepts(stored, value) is truth


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        *(math.nan, math.inf, 2**64, -(2**63) - 1, 10**5000, "\ud800", ["\ud800"], {"\ud800": 1}),
        *(
            (1, 2),
            {1, 2},
            {1: 2},
            {"a": b"b"},
            [b"b"],
            object(),
            bytearray(b"1"),
            1j,
            nested(201),
            nested(100_000),
            LOOP,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_store_can_hold_is_never_accepted(value: Any) -> None:
    with pytest.raises(InvalidValue):
        CODEC.encode(value)
    with pytest.raises((InvalidValue, ProofInvalid)):
        proof.verify_present(proof.Proof("present", b"\0"), bytes(32), "c", 1, value)


def test_a_value_nested_to_the_limit_is_written_as_the_store_writes_it() -> None:
    assert accepts(CODEC.encode(nested(200)), nested(200))
