"""Forms of output: JSON, JSON lines, and tables for people. Data goes to standard output, as UTF-8."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import unicodedata
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from sqlstate.files import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlstate.format.keys import Elements
    from sqlstate.format.names import Key, Stored

T = TypeVar("T")
Form = Literal["table", "json", "jsonl"]

# The first rows lay out a table, so that a long one begins at once.
_MEASURED: Final = 200
_GAP: Final = 2
_LEAST: Final = 12


class Column(NamedTuple):
    """One column of a table."""

    title: str
    right: bool = False
    long: bool = False
    """Its cells can be of any length, and are cut so that the last column has half of the terminal."""


def write(data: bytes) -> None:
    """Write to standard output.

    Raises:
        BrokenPipeError: its reader has gone.
        OSError: it cannot be written.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "is closed", "standard output")
    rest = memoryview(data)
    try:
        while rest:  # an unbuffered stream can take less than it is given
            rest = rest[sys.stdout.buffer.write(rest) :]
    except OSError as e:
        if system.has_no_reader(e):
            raise BrokenPipeError(e.errno, e.strerror) from e
        raise OSError(e.errno, e.strerror, "standard output") from e


def write_line(text: str) -> None:
    """Write a line of text to standard output."""
    write(f"{text}\n".encode("utf-8", "backslashreplace"))


def on_terminal() -> bool:
    """Return True if standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def write_json(text: str) -> None:
    """Write one JSON document and a line end; for a terminal, control characters are escaped."""
    # A file name that is no text can only be written as the escape that stands for its bytes.
    text = decoded(text)
    write((escaped(text) if on_terminal() else text).encode("utf-8", "backslashreplace") + b"\n")


def write_object(facts: Mapping[str, Any], form: Form) -> None:
    """Write names and plain values: one JSON object, or a table of two columns."""
    if form != "table":
        write_json(json.dumps(facts, ensure_ascii=False, separators=(",", ":")))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        write(f"{name:<{width}}  {printable(str(value))}\n".encode())


def write_list(
    items: Iterable[T],
    form: Form,
    line: Callable[[T], str],
    columns: Sequence[Column],
    cells: Callable[[T], Sequence[str]],
) -> int:
    """Write items one after the other, and return how many there were.

    Args:
        items: what to write.
        form: `"jsonl"` a line each, `"json"` one list, `"table"` a row each, with a header if there are any.
        line: gives the JSON of an item.
        columns: of the table.
        cells: gives the row of an item.
    """
    count = 0
    if form == "table":
        for row in _table(columns, map(cells, items)):
            write(row.encode("utf-8", "backslashreplace"))
            count += 1
        return max(0, count - 1)
    opening, between, closing = (b"[\n", b",\n", b"\n]\n") if form == "json" else (b"", b"\n", b"\n")
    shown = escaped if on_terminal() else str
    for item in items:
        write(between if count else opening)
        write(shown(line(item)).encode())
        count += 1
    if count:
        write(closing)
    elif form == "json":
        write(b"[]\n")
    return count


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, the header first, nothing if there are no rows."""
    rows = iter(rows)
    first = [[*row] for row in islice(rows, _MEASURED)]
    if not first:
        return
    titles = [column.title for column in columns]
    widths = [max(_width(row[i]) for row in [titles, *first]) for i in range(len(columns))]
    terminal = shutil.get_terminal_size().columns
    share = max(_LEAST, terminal // 2 // max(1, sum(column.long for column in columns[:-1])))
    widths[:-1] = [
        min(width, share) if column.long else width for width, column in zip(widths, columns[:-1], strict=False)
    ]
    room = terminal - sum(widths[:-1]) - _GAP * (len(columns) - 1)
    widths[-1] = min(widths[-1], max(_LEAST, room))
    for row in chain([titles], first, rows):
        cells = [
            _cell(text, width, right=column.right) for text, width, column in zip(row, widths, columns, strict=True)
        ]
        yield (" " * _GAP).join(cells).rstrip() + "\n"


def _cell(text: str, width: int, *, right: bool) -> str:
    if _width(text) > width:
        text = _shortened(text, width)
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _shortened(text: str, width: int) -> str:
    taken, room = 0, width - 1
    for character in text:
        room -= _width(character)
        if room < 0:
            break
        taken += 1
    return text[:taken] + "…"


def _width(text: str) -> int:
    """Return the cells that *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(character) in "WF" else not unicodedata.combining(character)
        for character in text
    )


def decoded(text: str) -> str:
    """Return *text* with the surrogate escapes that an ASCII locale makes of UTF-8 as characters."""
    try:
        return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return text


def printable(text: str) -> str:
    """Return *text* with characters that a terminal would obey, or not show, as escapes; line ends stay."""
    text = decoded(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def escaped(document: str) -> str:
    """Return the same JSON document with characters that a terminal would obey, or not show, as escapes."""
    if document.isprintable():
        return document
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in document)


def key_cell(key: Key | Elements) -> str:
    """Return a key for a table: text is in quotes where it could be taken for another key."""
    if isinstance(key, bytes):
        return f"x'{key[:64].hex()}" + ("…" if len(key) > 64 else "'")
    if isinstance(key, int):
        return str(key)
    if isinstance(key, tuple):
        return f"[{', '.join(map(key_cell, key))}]"
    head = key[:128]
    plain = head.isprintable() and head[:1] not in "-0123456789x\"'" and head == head.strip()
    return head if plain else escaped(json.dumps(head, ensure_ascii=False))


def value_cell(stored: Stored) -> str:
    """Return a stored value for a table."""
    if isinstance(stored, bytes):
        return f"{len(stored):,} bytes x'{stored[:64].hex()}" + ("…" if len(stored) > 64 else "'")
    return escaped(stored[:500]).replace("\n", " ")
