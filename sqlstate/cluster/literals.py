"""Statements as text, with their values in them, and the rows that come back.

rqlite takes no bytes as parameters, and returns those of an expression as text. So values are written into the
statement, and each row is asked for in a form that says which columns are bytes.
"""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlstate.sqlite.connection import columns, memory
from sqlstate.tables import migrations

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlstate.sqlite.connection import Connection, Row

_PARAMETER: Final = re.compile(r"'[^']*'|\?(\d*)")
_PRAGMA: Final = re.compile(r"PRAGMA (\w+)(?:\((\w+)\))?")
_preparing: Final = threading.Lock()


def literal(value: Any) -> str:
    """Return an int, text, bytes or None as SQL has it."""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(int(value))
    if not isinstance(value, str):
        raise TypeError(f"{value!r} cannot be written into a statement")
    text = str(value)
    if "\0" in text:  # SQL text ends there
        return f"CAST(x'{text.encode().hex()}' AS TEXT)"
    return "'" + text.replace("'", "''") + "'"


def filled(sql: str, values: Sequence[Any]) -> str:
    """Return a statement with *values* in the place of its parameters."""
    if not values:
        return sql
    parts, numbers = _parts(sql)
    made = [parts[0]]
    for number, part in zip(numbers, parts[1:], strict=True):
        made += literal(values[number]), part
    return "".join(made)


@lru_cache(maxsize=1024)
def _parts(sql: str) -> tuple[list[str], list[int]]:
    """Return the text around the parameters of a statement, and which value each is."""
    parts: list[str] = []
    numbers: list[int] = []
    end = newest = 0
    for found in _PARAMETER.finditer(sql):
        if found[1] is None:  # text in quotes
            continue
        newest = int(found[1]) if found[1] else newest + 1
        parts.append(sql[end : found.start()])
        numbers.append(newest - 1)
        end = found.end()
    return [*parts, sql[end:]], numbers


def marked(sql: str, values: Sequence[Any]) -> str:
    """Return a statement that reads, so that its rows are those that rows() takes."""
    pragma = _PRAGMA.fullmatch(sql)
    if pragma is not None:
        sql = f"SELECT * FROM pragma_{pragma[1]}({literal(pragma[2]) if pragma[2] else ''})"
    names = [f"c{number}" for number in range(_columns(sql))]
    shown = ", ".join(
        f"CASE typeof({name}) WHEN 'blob' THEN 'b' || hex({name}) WHEN 'text' THEN 't' || {name} ELSE {name} END"
        for name in names
    )
    return f"WITH q({', '.join(names)}) AS ({filled(sql, values)}) SELECT {shown} FROM q"


def rows(values: Iterable[Sequence[Any]] | None) -> list[Row]:
    """Return the rows of a marked() statement."""
    return [tuple(map(_value, row)) for row in values or ()]


def _value(value: Any) -> Any:
    if type(value) is not str:
        return value
    return bytes.fromhex(value[1:]) if value[0] == "b" else value[1:]


@lru_cache(maxsize=2048)
def _columns(sql: str) -> int:
    """Return how many columns the rows of a statement have."""
    with _preparing:
        return columns(_empty(), sql)


@lru_cache(maxsize=1)
def _empty() -> Connection:
    """Return a database with the tables of a store."""
    connection = memory()
    migrations.apply(connection, migrations.shipped(), "")
    return connection
