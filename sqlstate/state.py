"""The table state: the entries themselves."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from sqlstate import verbatim
from sqlstate.encoding import stored_name
from sqlstate.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.connection import Connection, Row
    from sqlstate.encoding import Key, Name, Stored

KEYS_AT_ONCE = 256
# A scan reads so many rows by one statement, and a row beyond so many characters or bytes of values.
ROWS_AT_ONCE = 256
BYTES_AT_ONCE = 1 << 20
KINDS = (int, str, bytes)
# Asking first whether a span is empty pays for itself from this many names on.
_SPAN_NAMES = 8
# Up to so many names are placed by counting; for more it is cheaper to read what is there.
_COUNTED_NAMES = 3

_GET = "SELECT value FROM state WHERE collection = ? AND key = ?"
VALUE = "(SELECT value FROM state WHERE collection = ?1 AND key = ?2)"
"""The value of entry (?1, ?2), NULL if there is none, as a part of a statement."""
_GET_OR_NULL = f"SELECT {VALUE}"
_PUT = (
    "INSERT INTO state (collection, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (collection, key) DO UPDATE SET value = excluded.value"
)
_REPLACE = "UPDATE state SET value = ? WHERE collection = ? AND key = ?"
_DELETE = "DELETE FROM state WHERE collection = ? AND key = ?"
_SPAN = "SELECT 1 FROM state WHERE (collection, key) >= (?, ?) AND (collection, key) <= (?, ?) LIMIT 1"
_NAMES = (
    "SELECT collection, CASE typeof(key) WHEN 'integer' THEN 0 WHEN 'text' THEN 1 ELSE 2 END, key FROM state "
    "WHERE (collection, key) >= (?, ?) AND (collection, key) <= (?, ?) ORDER BY collection, key"
)
_COUNT = "SELECT count(*) FROM state WHERE (collection, key) >= (?, ?) AND (collection, key) < (?, ?)"
_ROW = "SELECT collection, key, value FROM state WHERE"
_LAST_BEFORE = f"{_ROW} (collection, key) < (?, ?) ORDER BY collection DESC, key DESC LIMIT 1"
_FIRST_FROM = f"{_ROW} (collection, key) >= (?, ?) ORDER BY collection, key LIMIT 1"
_COLLECTIONS = """
WITH RECURSIVE found (name) AS (
  SELECT min(collection) FROM state
  UNION ALL
  SELECT (SELECT min(collection) FROM state WHERE collection > found.name) FROM found WHERE found.name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL
"""


class Span(NamedTuple):
    """The keys of a collection in [start, stop); None is no bound."""

    collection: str
    start: Key | None = None
    stop: Key | None = None
    reverse: bool = False
    passed: Key | None = None
    """Only keys beyond this one, in the direction of the scan."""
    limit: int | None = None
    """At most so many; chunk() sees to it."""

    def after(self, key: Key) -> Span:
        """Return what is left of the span behind *key*."""
        return self._replace(passed=key)


def get(connection: Connection, collection: str, key: Key) -> Stored | None:
    """Return the stored value of an entry, or None if there is none."""
    row = connection.row(_GET, (collection, key))
    return None if row is None else row[0]


def get_many(connection: Connection, names: Sequence[Name]) -> list[Stored | None]:
    """Return the stored values of *names*, which are sorted; None where there is no entry."""
    if len(names) > _SPAN_NAMES:
        (first_collection, _, first_key), (last_collection, _, last_key) = names[0], names[-1]
        if connection.row(_SPAN, (first_collection, first_key, last_collection, last_key)) is None:
            return [None] * len(names)
    return [value for (value,) in connection.rows_many(_GET_OR_NULL, [(name[0], name[2]) for name in names])]


def places(connection: Connection, start: Name, names: Sequence[Name]) -> list[int]:
    """Return, for each of *names*, which are sorted, how many entries there are from *start* up to it."""
    if len(names) <= _COUNTED_NAMES:
        return [count(connection, start, name) for name in names]
    last = names[-1]
    there = connection.rows(_NAMES, (start[0], start[2], last[0], last[2]))
    return [bisect_left(there, name) for name in names]


def put(connection: Connection, name: Name, value: Stored) -> None:
    """Put one entry."""
    connection.run(_PUT, (name[0], name[2], value))


def replace(connection: Connection, name: Name, value: Stored) -> None:
    """Put a new value for an entry that is there."""
    connection.run(_REPLACE, (value, name[0], name[2]))


def write(connection: Connection, changes: Sequence[tuple[Name, Stored | None]]) -> None:
    """Put each value, or delete the entry where it is None."""
    puts = [(name[0], name[2], value) for name, value in changes if value is not None]
    if puts:
        connection.run_many(_PUT, puts)
    if len(puts) < len(changes):
        connection.run_many(_DELETE, [(name[0], name[2]) for name, value in changes if value is None])


def count(connection: Connection, start: Name, stop: Name) -> int:
    """Return the number of entries from *start* up to but not including *stop*, by counting them."""
    return int(connection.value(_COUNT, (start[0], start[2], stop[0], stop[2])))


def neighbours(connection: Connection, name: Name) -> list[tuple[str, Key, Stored] | None]:
    """Return the last row before *name* and the first that is not, each (collection, key, value) or None."""
    return [connection.row(sql, (name[0], name[2])) for sql in (_LAST_BEFORE, _FIRST_FROM)]


def size(connection: Connection) -> int:
    """Return the number of rows, counted."""
    return int(connection.value("SELECT count(*) FROM state"))


def collections(connection: Connection) -> list[str]:
    """Return the names of all collections that have entries, in order."""
    return [name for (name,) in connection.rows(_COLLECTIONS)]


def chunk(connection: Connection, span: Span, *, values: bool) -> tuple[list[tuple[Key, Stored]], Span | None]:
    """Return (key, stored value) of the first entries in *span*, in order, and what is left of it, None for nothing.

    Without *values*, the second part of each pair is `''`.

    Raises:
        Damaged: the rows are not in order.
    """
    sql, bound = _scan_sql(span, "value" if values else "''")
    most = ROWS_AT_ONCE if span.limit is None else min(ROWS_AT_ONCE, span.limit)
    rows, cut = connection.chunk(f"{sql} LIMIT ?", [*bound, most], BYTES_AT_ONCE)
    left = None if span.limit is None else span.limit - len(rows)
    if (not cut and len(rows) < ROWS_AT_ONCE) or left == 0:
        return rows, None
    last: Key = rows[-1][0]
    passed = None if span.passed is None else (span.collection, span.passed)
    _check_order(connection, passed, (span.collection, last), reverse=span.reverse)
    return rows, span._replace(passed=last, limit=left)


def scan(connection: Connection, span: Span, *, values: bool) -> Iterator[tuple[Key, Stored]]:
    """Yield what chunk() returns, up to the end of the span, for a caller in one transaction."""
    rest: Span | None = span
    while rest is not None:
        rows, rest = chunk(connection, rest, values=values)
        yield from rows


def _check_order(
    connection: Connection, passed: tuple[str, Key] | None, reached: tuple[str, Key], *, reverse: bool = False
) -> None:
    """Raise unless *reached* can be gone on from, and lies beyond *passed*: a scan of a damaged table would never end.

    What does not fit here is only what would mislead the scan itself: a full check finds the rest.
    """
    if type(reached[1]) in KINDS:
        if passed is None:
            return
        first, second = (reached, passed) if reverse else (passed, reached)
        if stored_name(*first) < stored_name(*second):
            return
    raise Damaged(f"I1: {connection.path}: the entries are not in order near {reached[0]!r}; restore a backup")


def next_keys(connection: Connection, span: Span) -> list[Key]:
    """Return the first KEYS_AT_ONCE keys in *span*, in order."""
    sql, bound = _scan_sql(span, "NULL")
    return [key for key, _ in connection.rows(f"{sql} LIMIT {KEYS_AT_ONCE}", bound)]


def scan_all(connection: Connection) -> Iterator[tuple[str, Key, Stored]]:
    """Yield (collection, key, stored value) of every entry, in order, as one statement sees them."""
    return connection.iterate("SELECT collection, key, value FROM state ORDER BY collection, key")


def chunk_of_all(
    connection: Connection, passed: tuple[str, Key]
) -> tuple[list[tuple[str, Key, Stored]], tuple[str, Key] | None]:
    """Return (collection, key, stored value) of the first entries behind *passed*, in order.

    Also returns the last of them, None if there are no more behind it. `("", "")` comes before all.

    Raises:
        Damaged: the rows are not in order.
    """
    rows, cut = connection.chunk(_ALL, passed, BYTES_AT_ONCE)
    if not cut and len(rows) < ROWS_AT_ONCE:
        return rows, None
    last = rows[-1][0], rows[-1][1]
    _check_order(connection, passed if passed[0] else None, last)
    return rows, last


_ALL = f"{_ROW} (collection, key) > (?, ?) ORDER BY collection, key LIMIT {ROWS_AT_ONCE}"


def _scan_sql(span: Span, column: str) -> tuple[str, list[Key]]:
    where: list[str] = ["collection = ?"]
    bound: list[Key] = [span.collection]
    # Where the scan has passed is a narrower bound than where it began, and SQLite uses one of them only.
    start = None if span.passed is not None and not span.reverse else span.start
    stop = None if span.passed is not None and span.reverse else span.stop
    for condition, key in ((">=", start), ("<", stop), ("<" if span.reverse else ">", span.passed)):
        if key is not None:
            where.append(f"key {condition} ?")
            bound.append(key)
    order = "DESC" if span.reverse else "ASC"
    return f"SELECT key, {column} FROM state WHERE {' AND '.join(where)} ORDER BY key {order}", bound


_VERBATIM = f"SELECT {verbatim.columns('collection', 'key', 'value')} FROM state ORDER BY collection, key"


def scan_verbatim(connection: Connection) -> Iterator[Row]:
    """Yield (collection, key, value) of every row in order, whatever is in it, as verbatim.decoded() does."""
    return map(verbatim.decoded, connection.iterate(_VERBATIM))


def delete_verbatim(connection: Connection, collection: object, key: object) -> None:
    """Delete the row with this collection and key, whatever they are, inside the caller's transaction."""
    left, right = verbatim.parameters((collection, key))
    connection.run(f"DELETE FROM state WHERE collection = {left} AND key = {right}", verbatim.bound((collection, key)))


def rebuild(connection: Connection) -> None:
    """Put every row where its collection and key belong, whatever order the rows are in."""
    connection.run("CREATE TEMP TABLE sorted AS SELECT * FROM state; DELETE FROM state")
    connection.run("INSERT INTO state SELECT * FROM sorted ORDER BY collection, key; DROP TABLE sorted")
