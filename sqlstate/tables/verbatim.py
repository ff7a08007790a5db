"""Reads rows whatever is in them, also what no program of ours would have written: text that is no UTF-8 above all."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlstate.sqlite.connection import Row


class Torn(NamedTuple):
    """A TEXT that is not UTF-8. It is no str, so nothing takes it for text."""

    raw: bytes


def columns(*names: str) -> str:
    """Return the part of a SELECT that reads the columns *names*, for decoded()."""
    marks = " | ".join(f"((typeof({name}) = 'text') << {number})" for number, name in enumerate(names))
    values = (f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END" for name in names)
    return f"{marks}, {', '.join(values)}"


def decoded(row: Row) -> Row:
    """Return the values of a row that was read with columns(): int, float, str, bytes, None or Torn."""
    if not row[0]:
        return row[1:]
    values = list(row[1:])
    for number in _texts(row[0]):
        try:
            values[number] = values[number].decode()
        except UnicodeDecodeError:
            values[number] = Torn(values[number])
    return tuple(values)


def bound(values: Sequence[Any]) -> list[Any]:
    """Return *values* as they are bound to parameters(): text as its bytes."""
    return [value.raw if isinstance(value, Torn) else value for value in values]


def parameters(values: Sequence[Any]) -> list[str]:
    """Return for each of *values* the part of a statement that stands for it."""
    return ["CAST(? AS TEXT)" if isinstance(value, Torn) else "?" for value in values]


@lru_cache(maxsize=1024)
def _texts(marks: int) -> tuple[int, ...]:
    return tuple(number for number in range(marks.bit_length()) if marks >> number & 1)
