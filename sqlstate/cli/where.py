"""Conditions on the fields of JSON values: `$.age > 30`."""

from __future__ import annotations

import json
import operator
import re
from typing import TYPE_CHECKING, Any, Final

import click

from sqlstate.errors import InvalidValue
from sqlstate.importing.exact_json import parse_document

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP: Final = re.compile(
    r"""\.(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<name>[^\s.\[\]"=!<>]+))|\[(?P<place>[0-9]{1,9})\]"""
)
_REST: Final = re.compile(r"\s*(?:(?P<sign>==|=|!=|<=|>=|<|>)\s*(?P<value>.+))?", re.DOTALL)
_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MISSING: Final = object()


class Condition:
    """A condition on one field.

    Args:
        text: `PATH`, for a field that is there, or `PATH SIGN VALUE`. A path is `$` and then names, `.age` or
            `."any name"`, and places in lists, `[0]`. A sign is `=`, `==`, `!=`, `<`, `<=`, `>` or `>=`. A value is
            JSON.

    Raises:
        ValueError: it is no such text.
    """

    def __init__(self, text: str) -> None:
        text = text.strip()
        if not text.startswith("$"):
            raise ValueError(f"{text!r} does not begin with a path, such as $.age")
        self._path: list[str | int] = []
        at = 1
        while step := _STEP.match(text, at):
            at = step.end()
            self._path.append(_named(step))
        rest = _REST.fullmatch(text, at)
        if rest is None:
            raise ValueError(f"{text[at:].strip()!r} is neither a part of a path nor = != < <= > >= with a value")
        self._sign = rest["sign"]
        if self._sign is None:
            return
        try:
            self._value = parse_document(rest["value"])
        except InvalidValue as e:
            raise ValueError(f"{rest['value']!r} is not JSON: {e}; text stands in double quotes") from None
        if self._sign in _ORDERS and not (_is_number(self._value) or isinstance(self._value, str)):
            raise ValueError(f"{rest['value']!r} has no order; {self._sign} compares numbers, or text")

    def fits(self, value: Any) -> bool:
        """Return True if *value* has the field, and the field is what the condition says.

        Numbers are compared with numbers alone, and text with text. Bytes have no fields.
        """
        found = self._field(value)
        if found is _MISSING or isinstance(found, bytes):
            return False
        if self._sign is None:
            return True
        if self._sign in _ORDERS:
            alike = _is_number(found) if _is_number(self._value) else isinstance(found, str)
            return alike and _ORDERS[self._sign](found, self._value)
        return _same(found, self._value) is not (self._sign == "!=")

    def _field(self, value: Any) -> Any:
        for step in self._path:
            if isinstance(step, str):
                if not isinstance(value, dict) or step not in value:
                    return _MISSING
            elif not isinstance(value, list) or step >= len(value):
                return _MISSING
            value = value[step]
        return value


def _named(step: re.Match[str]) -> str | int:
    if step["place"] is not None:
        return int(step["place"])
    if step["name"] is not None:
        return step["name"]
    try:
        return str(json.loads(step["quoted"]))
    except ValueError:
        raise ValueError(f"{step['quoted']} is not text in JSON quotes") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(a: Any, b: Any) -> bool:
    """Return True if two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    if _is_number(a) and _is_number(b):
        return bool(a == b)
    return type(a) is type(b) and bool(a == b)


class _Condition(click.ParamType):  # type: ignore[type-arg]  # in older versions of click it has none
    """A condition on a field."""

    name = "condition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Condition:
        """Return the condition that the text is."""
        if isinstance(value, Condition):
            return value
        try:
            return Condition(value)
        except ValueError as e:
            self.fail(f"{e}.", param, ctx)


CONDITION: Final = _Condition()
