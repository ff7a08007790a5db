"""Values made plain: what JSON cannot hold, as what it can, by the rules of docs/reference/plain.md."""

from __future__ import annotations

import base64
from collections import UserString
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite, isinf
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from sqlstate.errors import InvalidValue
from sqlstate.format import constants as fmt
from sqlstate.format.documents import short_repr
from sqlstate.format.exactness import Differs, step

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_RULE: Final = object()
_RAW: Final = (bytes, bytearray, memoryview)


def plain(value: Any, *, default: Callable[[Any], object] | None = None) -> Any:
    """Return *value* with all that JSON cannot hold made into what it can, as the page of rules says.

    A datetime, Decimal or UUID becomes text, a tuple or set a list, a dataclass or a mapping of any kind a dict: as a
    collection with `type=` would store them. Bytes stay bytes, and inside of others become base64 text. What it
    returns can be stored, holds nothing of *value* that could change, and is made plain already.

    Cost: none.

    Args:
        value: anything. What no rule covers is refused.
        default: called with what no rule covers; what it returns is made plain in its place.

    Raises:
        InvalidValue: no rule covers a part of it, two keys of a mapping would be one, a text holds a lone surrogate, or
            it is nested more than 200 levels deep. The error names the place inside the value.
        Exception: what *default*, or a method of a mapping, set or sequence in the value, raised.

    Examples:
        >>> from datetime import date
        >>> from decimal import Decimal
        >>> store["orders"][1] = sqlstate.plain({"on": date(2026, 3, 1), "sum": Decimal("9.90"), "size": (3, 4)})
        >>> store["orders"][1]
        {'on': '2026-03-01', 'size': [3, 4], 'sum': '9.90'}
    """
    if issubclass(type(value), _RAW):
        return bytes(value)
    try:
        return _plain(value, fmt.JSON_DEPTH_MAX, default)
    except Differs as e:
        raise InvalidValue(e.reason, e.path) from None
    except RecursionError:
        raise InvalidValue("nested too deeply, or contains itself") from None


def _plain(value: Any, depth: int, default: Callable[[Any], object] | None) -> Any:  # noqa: PLR0911, a rule each
    leaf, cls = _leaf(value), type(value)
    if leaf is not _NO_RULE:
        return leaf
    if depth <= 0:
        raise Differs(f"nested more than {fmt.JSON_DEPTH_MAX} levels deep, or contains itself")
    if issubclass(cls, Enum):
        return _plain(value.value, depth - 1, default)
    if issubclass(cls, Mapping):
        return _members(list(value.items()), depth, default)
    if issubclass(cls, AbstractSet):
        return _in_order([_plain(member, depth - 1, default) for member in value])
    if issubclass(cls, Sequence):
        return _items(list(value), depth, default)
    held = _fields(value)
    if held is not None:
        return _items(held, depth, default) if isinstance(held, list) else _members([*held.items()], depth, default)
    if default is None:
        raise Differs(
            f"{type(value).__name__} {short_repr(value)} is nothing that has a plain form; give default= a function"
        )
    return _plain(default(value), depth - 1, default)


def _leaf(value: Any) -> Any:  # noqa: PLR0911, a rule each
    """Return the plain form of what holds no others."""
    if value is None or value is True or value is False:
        return value
    cls = type(value)  # a proxy says that it is what it stands for, and then cannot be read as that
    if issubclass(cls, Enum):
        return _NO_RULE  # also a StrEnum: its value is told, by the rules
    if issubclass(cls, str):
        return _text(str.__str__(value))
    if issubclass(cls, UserString):
        return _text(value.data)
    if issubclass(cls, int):
        number = int.__index__(value)
        return number if fmt.JSON_INT_MIN <= number <= fmt.JSON_INT_MAX else _digits(number)
    if issubclass(cls, float):
        return _float(float.__float__(value))
    if issubclass(cls, _RAW):
        return base64.b64encode(value).decode()
    if issubclass(cls, datetime):
        # One that is not even itself is no time, such as NaT of pandas, whose fields are those of the year 1.
        return _zulu(datetime.isoformat(value)) if value == value else _NO_RULE  # noqa: PLR0124
    if issubclass(cls, date):
        return date.isoformat(value)
    if issubclass(cls, time):
        return _zulu(time.isoformat(value))
    if issubclass(cls, timedelta):
        return msgspec.to_builtins(timedelta(value.days, value.seconds, value.microseconds))
    if issubclass(cls, Decimal | UUID) or hasattr(cls, "__fspath__"):
        return _text(str(value))
    return _NO_RULE


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Differs(f"{short_repr(text)} holds a lone surrogate, which is not text in UTF-8") from None
    return text


def _digits(number: int) -> str:
    return str(Decimal(number))  # str() of an int stops at 4,300 digits


def _float(number: float) -> float | str:
    if isfinite(number):
        return number
    return ("Infinity" if number > 0 else "-Infinity") if isinf(number) else "NaN"


def _zulu(text: str) -> str:
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _members(pairs: list[tuple[Any, Any]], depth: int, default: Callable[[Any], object] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, member in pairs:
        name = _name(key)
        if name in found:
            raise Differs(f"two keys would both be {short_repr(name)}, one of them {short_repr(key)}")
        try:
            found[name] = _plain(member, depth - 1, default)
        except Differs as e:
            raise e.under(step(name)) from None
    return found


def _name(key: Any) -> str:
    """Return the name that a key of a mapping is in an object."""
    if type(key) is str:
        return _text(key)
    form = _leaf(key.value if issubclass(type(key), Enum) else key)
    if type(form) is str:
        return form
    if form is _NO_RULE:
        raise Differs(f"a member's name is a str in JSON, and the key {short_repr(key)} has no form as text")
    return msgspec.json.encode(form).decode()  # null, true, false, and numbers


def _items(items: list[Any], depth: int, default: Callable[[Any], object] | None) -> list[Any]:
    found = []
    for number, item in enumerate(items):
        try:
            found.append(_plain(item, depth - 1, default))
        except Differs as e:
            raise e.under(f"[{number}]") from None
    return found


def _in_order(members: list[Any]) -> list[Any]:
    """Return the members of a set in an order that does not depend on hashes."""
    kinds = {*map(type, members)}
    if kinds <= {int, float} or kinds == {str}:
        return sorted(members)
    return sorted(members, key=msgspec.json.Encoder(order="sorted").encode)


def _fields(value: Any) -> dict[str, Any] | list[Any] | None:
    """Return the fields of a dataclass, attrs class or Struct, by name, or in order; None for all else."""
    cls = type(value)
    if issubclass(cls, msgspec.Struct):
        config = value.__struct_config__
        tag = {} if config.tag is None else {config.tag_field or "type": config.tag}
        held = {
            name: getattr(value, field)
            for field, name in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        }
        every = {**tag, **held}
        if config.array_like:
            return list(every.values())
        return {name: member for name, member in every.items() if member is not msgspec.UNSET}
    if is_dataclass(cls):
        names = [field.name for field in fields(cls)]
    elif hasattr(cls, "__attrs_attrs__"):
        names = [field.name for field in cls.__attrs_attrs__]
    else:
        return None
    held = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return {name: member for name, member in held.items() if member is not msgspec.UNSET}
