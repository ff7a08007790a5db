"""The table state: the entries themselves."""

from __future__ import annotations

from itertools import accumulate, pairwise
from operator import countOf, itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format.names import stored_name
from sqlstate.sqlite.connection import KEPT_BYTES
from sqlstate.tables import raw_rows
from sqlstate.tables.raw_rows import is_collection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.sqlite.connection import Connection, Row

# The most rows that one statement of a scan reads, and the bytes of a value that is read by itself.
ROWS_AT_ONCE = 512
LARGE_BYTES = 1 << 14
# A scan of all collections stops after so many characters or bytes of values.
BYTES_AT_ONCE = 1 << 20
_STORED = {str, bytes}
_KEYS = {int, str, bytes}
KEY_OF: Final[Callable[[Row], Any]] = itemgetter(0)
VALUE_OF: Final[Callable[[Row], Any]] = itemgetter(1)
# With more names than this, asking first whether the span is empty pays off.
_SPAN_NAMES = 8

_SMALL = f"iif(octet_length(value) > {LARGE_BYTES}, NULL, value)"
GET = "SELECT value FROM state WHERE collection = ? AND key = ?"
VALUE = "(SELECT ifnull(value, 0) FROM state WHERE collection = ?1 AND key = ?2)"
"""The value of entry (?1, ?2), NULL if there is no such entry, 0 if it has none, as a part of a statement."""
_GET_IF_SMALL = f"""
SELECT (
  SELECT iif(octet_length(value) <= {LARGE_BYTES}, value, 0) FROM state WHERE collection = ? AND key = ?
)
"""
_PUT = (
    "INSERT INTO state (collection, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (collection, key) DO UPDATE SET value = excluded.value"
)
_REPLACE = "UPDATE state SET value = ? WHERE collection = ? AND key = ?"
_DELETE = "DELETE FROM state WHERE collection = ? AND key = ?"
_SPAN = "SELECT 1 FROM state WHERE (collection, key) >= (?, ?) AND (collection, key) <= (?, ?) LIMIT 1"
_COUNT = "SELECT count(*) FROM state WHERE (collection, key) >= (?, ?) AND (collection, key) < (?, ?)"
_ROW = "SELECT collection, key, value FROM state WHERE"
_LAST_BEFORE = f"{_ROW} (collection, key) < (?, ?) ORDER BY collection DESC, key DESC LIMIT 1"
_FIRST_FROM = f"{_ROW} (collection, key) >= (?, ?) ORDER BY collection, key LIMIT 1"
_NAMES = "SELECT collection, key FROM state WHERE (collection, key)"
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
    """The most entries to return, kept by chunk()."""

    def after(self, key: Key) -> Span:
        """Return the rest of the span after *key*."""
        return self._replace(passed=key)


def get(connection: Connection, collection: str, key: Key) -> Stored | None:
    """Return the stored value of an entry, or None if there is none.

    Raises:
        Damaged: the stored value is malformed.
    """
    row = connection.row(GET, (collection, key))
    if row is None:
        return None
    value: Stored = row[0]
    if type(value) not in _STORED:
        raw_rows.STATE.check((collection, key, value), connection.path)
    return value


def get_each(connection: Connection, names: Sequence[Name]) -> list[Stored | None]:
    """Return the stored values of *names*, None where there is no entry.

    The values are of one committed state if the caller is in a transaction.

    Raises:
        Damaged: the stored value is malformed.
    """
    values: list[Any] = []
    for start in range(0, len(names), ROWS_AT_ONCE):
        part = names[start : start + ROWS_AT_ONCE]
        rows = connection.rows_many(_GET_IF_SMALL, [(name[0], name[2]) for name in part])
        values += [value for (value,) in rows]
    if not {*map(type, values)} <= _STORED_OR_NONE:
        for at, (collection, _, key) in enumerate(names):
            if type(values[at]) not in _STORED_OR_NONE:  # it is large, or malformed
                values[at] = get(connection, collection, key)
    return values


def get_many(connection: Connection, names: Sequence[Name]) -> list[Stored | None]:
    """Return what get_each() does, of *names* that are sorted: often there is none of them."""
    if len(names) > _SPAN_NAMES and not any_between(connection, names[0], names[-1]):
        return [None] * len(names)
    return get_each(connection, names)


def any_between(connection: Connection, first: Name, last: Name) -> bool:
    """Return True if there is an entry from *first* to *last*, or one of them."""
    return connection.row(_SPAN, (first[0], first[2], last[0], last[2])) is not None


def places(connection: Connection, start: Name, names: Sequence[Name]) -> list[int]:
    """Return, for each of *names*, sorted and of no entries, how many entries there are from *start* up to it."""
    return places_in(connection, {start: names})


def places_in(connection: Connection, runs: Mapping[Name, Sequence[Name]]) -> list[int]:
    """Return what places() does of each start and its names, one after the other, with one call."""
    bounds = [pair for start, names in runs.items() for pair in pairwise([start, *names])]
    rows = connection.rows_many(_COUNT, [(low[0], low[2], high[0], high[2]) for low, high in bounds])
    between = iter(rows)
    return [place for names in runs.values() for place in accumulate(next(between)[0] for _ in names)]


def write_one(connection: Connection, name: Name, after: Stored | None, *, there: bool) -> None:
    """Put one entry, or delete it where *after* is None; *there* says whether there is one now."""
    collection, _, key = name
    if after is None:
        connection.run(_DELETE, (collection, key))
        return
    if len(after) >= KEPT_BYTES:
        if there:
            connection.run(_DELETE, (collection, key))  # an UPDATE would hold one copy more
        connection.run(_PUT, (collection, key, after), keep=False)
    elif there:
        connection.run(_REPLACE, (after, collection, key))
    else:
        connection.run(_PUT, (collection, key, after))


def write(connection: Connection, changes: Sequence[tuple[Name, Stored | None]]) -> None:
    """Put each value, or delete the entry where it is None."""
    puts = [(name[0], name[2], value) for name, value in changes if value is not None and len(value) < KEPT_BYTES]
    if puts:
        connection.run_many(_PUT, puts)
    if len(puts) < len(changes):
        for name, value in changes:
            if value is not None and len(value) >= KEPT_BYTES:
                write_one(connection, name, value, there=True)
        connection.run_many(_DELETE, [(name[0], name[2]) for name, value in changes if value is None])


def count(connection: Connection, start: Name, stop: Name) -> int:
    """Return the number of entries from *start* up to but not including *stop*, by counting them."""
    return int(connection.value(_COUNT, (start[0], start[2], stop[0], stop[2])))


def neighbours(connection: Connection, name: Name) -> list[tuple[str, Key, Stored] | None]:
    """Return the last row before *name* and the first one at or after it: (collection, key, value) or None."""
    rows = [connection.row(sql, (name[0], name[2])) for sql in (_LAST_BEFORE, _FIRST_FROM)]
    _check_rows(connection, [row for row in rows if row is not None])
    return rows


def names(connection: Connection, start: Name, stop: Name | None) -> list[Name]:
    """Return the names of the entries in [start, stop), None for no end, in order.

    Raises:
        Damaged: a name is invalid.
    """
    sql, bound = f"{_NAMES} >= (?, ?)", [start[0], start[2]]
    if stop is not None:
        sql += " AND (collection, key) < (?, ?)"
        bound += [stop[0], stop[2]]
    rows = connection.rows(f"{sql} ORDER BY collection, key", bound)
    _check_rows(connection, [(*row, "") for row in rows])
    return [stored_name(collection, key) for collection, key in rows]


def size(connection: Connection) -> int:
    """Return the number of rows, counted."""
    return int(connection.value("SELECT count(*) FROM state"))


def collections(connection: Connection) -> list[str]:
    """Return the names of all collections that have entries, in order.

    Raises:
        Damaged: a name is invalid.
    """
    names = [name for (name,) in connection.rows(_COLLECTIONS)]
    for name in names:
        if not is_collection(name):
            raise Damaged.found(connection.path, f"{raw_rows.quoted(name)} cannot name a collection", "I1")
    return names


class Chunk(NamedTuple):
    """The first entries in a span."""

    rows: list[tuple[Key, Stored]]
    """(key, stored value), in order."""
    kinds: set[type]
    """The types of the values."""
    rest: Span | None
    """What is left of the span, None at its end."""


def chunk(connection: Connection, span: Span, *, values: bool) -> Chunk:
    """Return the first entries in *span*. Without *values*, `''` stands for each value.

    Raises:
        Damaged: a row is invalid, or the rows are not in order.
    """
    sql, bound = _scan_sql(span, _SMALL if values else "''")
    most = ROWS_AT_ONCE if span.limit is None else min(ROWS_AT_ONCE, span.limit)
    rows: list[Any] = connection.rows(f"{sql} LIMIT {most}", bound)
    found = len(rows)
    kinds: set[type] = _kinds(rows, VALUE_OF) if values else {str}
    if not (kinds <= _STORED and _are_keys(rows, KEY_OF)):
        _put_in_large(connection, span.collection, rows)
        kinds = _kinds(rows, VALUE_OF)
    left = None if span.limit is None else span.limit - len(rows)
    if len(rows) == found < ROWS_AT_ONCE or left == 0:
        return Chunk(rows, kinds, None)
    last: Key = rows[-1][0]
    passed = None if span.passed is None else (span.collection, span.passed)
    _check_order(connection, passed, (span.collection, last), reverse=span.reverse)
    return Chunk(rows, kinds, span._replace(passed=last, limit=left))


def _put_in_large(connection: Connection, collection: str, rows: list[Any]) -> None:
    """Read each large value, for which *rows* have None, into its row; cut the rows off after BYTES_AT_ONCE of them.

    Raises:
        Damaged: a row is invalid.
    """
    left = BYTES_AT_ONCE
    for at, (key, small) in enumerate(rows):
        value = get(connection, collection, key) if small is None and type(key) in _KEYS else small
        raw_rows.STATE.check((collection, key, value), connection.path)
        rows[at] = key, value
        if small is None:
            left -= len(value or "")
            if left <= 0:
                del rows[at + 1 :]


def scan(connection: Connection, span: Span, *, values: bool) -> Iterator[tuple[Key, Stored]]:
    """Yield (key, stored value) of all entries in *span*, in order, for a caller in one transaction."""
    rest: Span | None = span
    while rest is not None:
        rows, _, rest = chunk(connection, rest, values=values)
        yield from rows


def _check_order(
    connection: Connection, passed: tuple[str, Key] | None, reached: tuple[str, Key], *, reverse: bool = False
) -> None:
    """Raise unless *reached* lies beyond *passed*: a scan of a damaged table might never end.

    Only what would mislead the scan is tested: a full check finds the rest.
    """
    if passed is None:
        return
    first, second = (reached, passed) if reverse else (passed, reached)
    if stored_name(*first) < stored_name(*second):
        return
    raise Damaged.found(connection.path, f"the entries are not in order near {reached[0]!r}", "I1")


def scan_all(connection: Connection) -> Iterator[Row]:
    """Yield (collection, key, value) of every row, in order, by one statement, without validating the rows.

    Raises:
        Damaged: a text is not UTF-8.
    """
    return connection.iterate("SELECT collection, key, value FROM state ORDER BY collection, key")


def chunk_of_all(
    connection: Connection, passed: tuple[str, Key]
) -> tuple[list[tuple[str, Key, Stored]], tuple[str, Key] | None]:
    """Return (collection, key, stored value) of the first entries after *passed*, in order.

    Also returns the name of the last of them, None at the end. `("", "")` comes before all.

    Raises:
        Damaged: a row is invalid, or the rows are not in order.
    """
    rows, cut = connection.chunk(_ALL, passed, BYTES_AT_ONCE)
    _check_rows(connection, rows)
    if not cut and len(rows) < ROWS_AT_ONCE:
        return rows, None
    last = rows[-1][0], rows[-1][1]
    _check_order(connection, passed if passed[0] else None, last)
    return rows, last


def _check_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """Raise unless each of *rows*, (collection, key, value), is an entry."""
    right = all(map(is_collection, {row[0] for row in rows})) and {type(row[2]) for row in rows} <= _STORED
    if not (right and _are_keys(rows, VALUE_OF)):
        for row in rows:
            raw_rows.STATE.check(row, connection.path)


def _kinds(rows: Sequence[Row], part: Callable[[Row], Any]) -> set[type]:
    """Return the types of a part of all rows: nearly always one, and to count that is faster than a set."""
    if not rows:
        return set()
    kind = type(part(rows[0]))
    same = countOf(map(type, map(part, rows)), kind) == len(rows)
    return {kind} if same else {*map(type, map(part, rows))}


def _are_keys(rows: Sequence[Row], key_of: Callable[[Row], Any]) -> bool:
    """Return True if all rows have a key. Asked of many at once: a scan has no time for a call for each."""
    kinds = _kinds(rows, key_of)
    if not kinds <= _KEYS:
        return False
    # "" and b"" come before all others of their kind.
    keys = [*map(key_of, rows if len(kinds) > 1 else (rows[0], rows[-1]) if rows else ())]
    return all(keys) or ("" not in keys and b"" not in keys)  # 0 is a key


_STORED_OR_NONE = {*_STORED, type(None)}
_ALL = f"{_ROW} (collection, key) > (?, ?) ORDER BY collection, key LIMIT {ROWS_AT_ONCE}"


def _scan_sql(span: Span, column: str) -> tuple[str, list[Key]]:
    where: list[str] = ["collection = ?"]
    bound: list[Key] = [span.collection]
    # The key that the scan has passed is a narrower bound than its start, and SQLite uses only one of them.
    start = None if span.passed is not None and not span.reverse else span.start
    stop = None if span.passed is not None and span.reverse else span.stop
    for condition, key in ((">=", start), ("<", stop), ("<" if span.reverse else ">", span.passed)):
        if key is not None:
            where.append(f"key {condition} ?")
            bound.append(key)
    order = "DESC" if span.reverse else "ASC"
    return f"SELECT key, {column} FROM state WHERE {' AND '.join(where)} ORDER BY key {order}", bound


_RAW = f"SELECT {raw_rows.columns('collection', 'key', 'value')} FROM state ORDER BY collection, key"


def scan_raw(connection: Connection) -> Iterator[Row]:
    """Yield (collection, key, value) of every row in order, of any kind, as raw_rows.decoded() gives them."""
    return map(raw_rows.decoded, connection.iterate(_RAW))


def delete_raw(connection: Connection, collection: object, key: object) -> None:
    """Delete the row with this collection and key, of any kind, inside the caller's transaction."""
    left, right = raw_rows.parameters((collection, key))
    connection.run(f"DELETE FROM state WHERE collection = {left} AND key = {right}", raw_rows.bound((collection, key)))


def rebuild(connection: Connection) -> None:
    """Rewrite the table, so that every row stands where its collection and key belong."""
    connection.run("CREATE TEMP TABLE sorted AS SELECT * FROM state; DELETE FROM state")
    connection.run("INSERT INTO state SELECT * FROM sorted ORDER BY collection, key; DROP TABLE sorted")
