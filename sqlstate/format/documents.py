"""Encodes values without a type: only those that JSON carries back exactly, each as one canonical document.

A value belongs to the program that gives it, and another thread may change it at any time. So it is copied, container
by container, and the copy is checked and encoded.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Any, Final, cast

import msgspec

from sqlstate.errors import InvalidValue
from sqlstate.format import constants as fmt

_SHOWN_MAX: Final = 80


class _Altered(Exception):
    """JSON would not carry the value exactly; refusal() says where and why."""


_encode = msgspec.json.Encoder(order="sorted").encode


def document(value: object, *, tuples: bool = False) -> bytes:
    """Return the one JSON document of *value*, which reads back equal and of the same types.

    Args:
        value: what JSON holds, and nothing else.
        tuples: take a tuple as a list; a type says that it is one.

    Raises:
        InvalidValue: it would not read back exactly; the error names the place.
    """
    try:
        return _encode(_copied(value, fmt.JSON_DEPTH_MAX, tuples))
    except (_Altered, UnicodeEncodeError):
        raise _refusal(value, "$", fmt.JSON_DEPTH_MAX, tuples) or _changed() from None


def parsed_document(value: object) -> bytes | None:
    """Return the document of what a JSON parser made, as document() does, without a copy: nobody else has it.

    Returns None if document() has to look at it: it may hold what a document cannot.
    """
    try:
        raw = _encode(value)
    except (UnicodeEncodeError, RecursionError):
        return None
    # Each level has a bracket, and an int out of bounds at least 19 digits.
    if raw.count(b"[") + raw.count(b"{") > fmt.JSON_DEPTH_MAX:
        return None
    digits = raw.translate(_AS_ZEROS)
    return None if _ZEROS in digits and _long_int.search(digits) else raw


_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_ZEROS: Final = b"0" * 19
_long_int: Final = re.compile(rb"(?<![.0])0{19}")


def _changed() -> InvalidValue:
    return InvalidValue("was changed by another thread while it was encoded; put it again")


def _copied(value: object, depth: int, tuples: bool) -> object:  # noqa: FBT001, by position it is faster
    """Return *value* with its containers copied; lone surrogates in strings are left to the encoder.

    Raises:
        _Altered: it holds what JSON does not carry exactly.
    """
    cls = type(value)
    if cls is str or cls is bool or value is None:
        return value
    if cls is int:
        if fmt.JSON_INT_MIN <= cast("int", value) <= fmt.JSON_INT_MAX:
            return value
        raise _Altered
    if cls is float:
        if isfinite(cast("float", value)):
            return value
        raise _Altered
    if not depth:
        raise _Altered
    if cls is dict:
        members = cast("dict[Any, object]", value).copy()
        for name, member in members.items():
            if type(name) is not str:
                raise _Altered
            if type(member) is not str:
                members[name] = _copied(member, depth - 1, tuples)
        return members
    if cls is list or (tuples and cls is tuple):
        items = cast("list[object]", value)[:]
        return [item if type(item) is str else _copied(item, depth - 1, tuples) for item in items]
    raise _Altered


def _refusal(value: object, path: str, depth: int, tuples: bool) -> InvalidValue | None:  # noqa: FBT001
    """Return why JSON does not carry *value* exactly, with the place, or None if it does."""
    cls = type(value)
    members: list[tuple[str, object]]
    if cls is dict:
        members = []
        for name, member in cast("dict[object, object]", value).copy().items():
            if type(name) is not str:
                return InvalidValue(f"a member's name is a str in JSON, not {short_repr(name)}", path)
            if not _is_text(name):
                return InvalidValue(f"the member's name {name!r} holds a lone surrogate", path)
            members.append((f"{path}.{name}", member))
    elif cls is list or (tuples and cls is tuple):
        members = [(f"{path}[{i}]", member) for i, member in enumerate(cast("list[object]", value)[:])]
    else:
        reason = _reason(value)
        return InvalidValue(reason, path) if reason else None
    if not depth:
        return InvalidValue(f"nested more than {fmt.JSON_DEPTH_MAX} levels deep", path[:200])
    found = (_refusal(member, place, depth - 1, tuples) for place, member in members)
    return next((refusal for refusal in found if refusal), None)


def _reason(value: object) -> str | None:
    """Return why JSON does not carry *value*, which is not a container, exactly; None if it does."""
    cls = type(value)
    if cls is str:
        return None if _is_text(cast("str", value)) else "holds a lone surrogate, which is not text in UTF-8"
    if cls is int:
        fits = fmt.JSON_INT_MIN <= cast("int", value) <= fmt.JSON_INT_MAX
        return None if fits else f"{short_repr(value)} is outside -2^63 to 2^64-1; store it as a string"
    if cls is float:
        fits = isfinite(cast("float", value))
        return None if fits else f"{value!r} is not a number in JSON; store None or a string"
    if cls is bool or value is None:
        return None
    if cls is bytes:
        return "bytes can be a whole value but not part of one; encode them, or store them as an entry"
    return f"{cls.__name__} would not read back as itself; convert it, or give the collection a type"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short_repr(value: object) -> str:
    """Return the repr of *value*, shortened for a message; a repr that raises is not an error here."""
    if type(value) is int and value.bit_length() > 14_000:  # Python prints 4,300 digits
        return f"an int of {value.bit_length():,} bits"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001, repr() is the program's own code
        return f"a value of the type {type(value).__name__}"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."
