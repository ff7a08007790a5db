"""Small tables for notebooks: what `_repr_html_()` returns. Everything that comes from a store is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

CELL_CHARACTERS_MAX: Final = 200


def table(title: str, rows: Iterable[tuple[object, object]]) -> str:
    """Return a table of two columns; bytes are shown in hexadecimal, and long texts are cut."""
    lines = [f"<tr><th style='text-align:left'>{_cell(name)}</th><td>{_cell(value)}</td></tr>" for name, value in rows]
    return f"<table><caption>{_cell(title)}</caption>{''.join(lines)}</table>"


def _cell(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    if len(text) > CELL_CHARACTERS_MAX:
        text = f"{text[:CELL_CHARACTERS_MAX]}…"
    from html import escape  # noqa: PLC0415, it takes 2 ms, and who opens a store is not in a notebook

    return escape(text)
