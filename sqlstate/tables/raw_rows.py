"""Validates rows of the file, which anybody can have edited, before other code trusts them.

The column types of SQLite guarantee nothing: an editor of the file can switch them off. So each row is tested once,
field by field, by the module of its table that reads it. Valid fields have the types and bounds of the file format
(docs/reference/file-format.md, section 3). Past this border a TypeError or LookupError is a bug of ours, and looks like
one. Whether a valid row agrees with other rows is for the digests to say.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import leaf
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import Kind, Record, chain_next, change_bytes, record_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlstate.sqlite.connection import Row

_SHOWN: Final = 60
_NAME_SHOWN: Final = 200
_TIME: Final = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}Z", re.ASCII
)


def is_number(value: Any) -> bool:
    """Return True if it can be the number of a record or commit, or a count of entries."""
    return type(value) is int and 0 <= value <= fmt.NUMBER_MAX


def is_collection(value: Any) -> bool:
    """Return True if it can be a collection's name."""
    if type(value) is not str or not 0 < len(value) <= fmt.NAME_BYTES_MAX:
        return False
    return value.isascii() or len(value.encode()) <= fmt.NAME_BYTES_MAX


def is_key(value: Any) -> bool:
    """Return True if it can be a key."""
    kind = type(value)
    if kind is int:
        return bool(fmt.INT_MIN <= value <= fmt.INT_MAX)
    if kind is str:
        return 0 < len(value) <= fmt.KEY_BYTES_MAX and (value.isascii() or len(value.encode()) <= fmt.KEY_BYTES_MAX)
    return kind is bytes and 0 < len(value) <= fmt.KEY_BYTES_MAX


def is_entry_name(collection: Any, key: Any) -> bool:
    """Return True if an entry can have that name."""
    return is_collection(collection) and is_key(key)


def is_node_name(collection: Any, key: Any) -> bool:
    """Return True if a node of the tree can have that name: an entry's, or the empty one."""
    return (collection == "" and key == "") or is_entry_name(collection, key)


def is_stored(value: Any) -> bool:
    """Return True if it can be the value of an entry: a document or bytes."""
    return type(value) is str or type(value) is bytes


def is_level(value: Any) -> bool:
    """Return True if it can be the level of a node."""
    return type(value) is int and 1 <= value <= fmt.LEVEL_MAX


def are_children(value: Any) -> bool:
    """Return True if it can be the children of a node; their counts are not tested."""
    return type(value) is bytes and len(value) > 0 and not len(value) % fmt.CHILD_BYTES


def is_digest(value: Any) -> bool:
    """Return True if it can be a digest."""
    return type(value) is bytes and len(value) == fmt.DIGEST_BYTES


def is_session(value: Any) -> bool:
    """Return True if it can be the id of a session."""
    return type(value) is bytes and len(value) == fmt.SESSION_BYTES


def is_text(value: Any) -> bool:
    """Return True if it is text."""
    return type(value) is str


def is_time(value: Any) -> bool:
    """Return True if it is a time in the file format's form."""
    return type(value) is str and _TIME.fullmatch(value) is not None


def _is_absent(value: Any) -> bool:
    return value is None


class _Must(NamedTuple):
    """The test of a column, and its description in messages."""

    test: Callable[[Any], bool]
    words: str


_NUMBER: Final = _Must(is_number, "a number from 0 to 2^62")
_POSITIVE: Final = _Must(lambda value: is_number(value) and value > 0, "a number from 1 to 2^62")
_COLLECTION: Final = _Must(is_collection, f"text of 1 to {fmt.NAME_BYTES_MAX} bytes")
_KEY: Final = _Must(is_key, f"an integer, or text or bytes of 1 to {fmt.KEY_BYTES_MAX:,} bytes")
_VALUE: Final = _Must(is_stored, "text or bytes")
_LEVEL: Final = _Must(is_level, f"a number from 1 to {fmt.LEVEL_MAX}")
_CHILDREN: Final = _Must(are_children, f"one or more times {fmt.CHILD_BYTES} bytes")
_DIGEST: Final = _Must(is_digest, f"{fmt.DIGEST_BYTES} bytes")
_SESSION: Final = _Must(is_session, f"{fmt.SESSION_BYTES} bytes")
_TEXT: Final = _Must(is_text, "text")
_AT: Final = _Must(is_time, "a time such as 2026-11-23T17:09:46.000000Z")
_ABSENT: Final = _Must(_is_absent, "NULL")


def _or_null(must: _Must) -> _Must:
    return _Must(lambda value: value is None or must.test(value), f"{must.words}, or NULL")


class RawRecord(NamedTuple):
    """A row of the table wal with whatever is in its fields, which are those of format.records.Record.

    What a reader returns of a damaged log: RECORDS says which field of it is wrong.
    """

    lsn: Any
    txn: Any
    kind: Any
    session: Any = None
    collection: Any = None
    key: Any = None
    value: Any = None
    before: Any = None
    seq: Any = None
    root: Any = None
    count: Any = None
    at: Any = None
    chain: Any = None
    note: Any = None
    records: Any = None
    total: Any = None
    digests: Any = None

    @property
    def name(self) -> tuple[Any, Any]:
        """Collection and key of the entry that it changes; (None, None) if it is of none."""
        return self.collection, self.key


class Table:
    """The tests of a table's rows, or of some of its columns.

    Args:
        rule: number of the invariant that an invalid row breaks, `""` for none.
        row: the name of a row in messages; `{0}` stands for its first column, and so on.
        columns: the test of each column, in the order in which they are read.
    """

    __slots__ = ("_columns", "_row", "_rule", "_tests")

    def __init__(self, rule: str, row: str, **columns: _Must) -> None:
        self._rule = rule
        self._row = row
        self._columns = columns
        self._tests = tuple(must.test for must in columns.values())

    def only(self, *columns: str) -> Table:
        """Return the tests of these columns alone."""
        return Table(self._rule, self._row, **{column: self._columns[column] for column in columns})

    def fits(self, row: Sequence[Any]) -> bool:
        """Return True if a row is valid."""
        for test, value in zip(self._tests, row, strict=True):  # noqa: SIM110, all() takes twice the time
            if not test(value):
                return False
        return True

    def wrong(self, row: Sequence[Any]) -> str:
        """Return what is wrong with the first invalid field, `""` if all are valid."""
        fault = self._fault(row)
        return f"{self._rule}: {fault}" if fault and self._rule else fault

    def _fault(self, row: Sequence[Any]) -> str:
        for (column, must), value in zip(self._columns.items(), row, strict=True):
            if not must.test(value):
                which = self._row.format(*map(quoted, row))
                return f"{which} has {quoted(value)} for its {column}, which must be {must.words}"
        return ""

    def spared(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return a row with NULL for each field that must be NULL."""
        return tuple(None if test is _is_absent else value for test, value in zip(self._tests, row, strict=True))

    def check(self, row: Sequence[Any], path: str) -> None:
        """Raise if a row is invalid.

        Raises:
            Damaged: names the first invalid field.
        """
        if not self.fits(row):
            raise Damaged.found(path, self._fault(row), self._rule)


def quoted(value: Any) -> str:
    """Return a value of the file in a form for messages."""
    if value is None:
        return "NULL"
    text = f"{value[:_SHOWN]!r}" if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def shown_name(collection: Any, key: Any) -> str:
    """Return the name of an entry for a sentence."""
    text = f"{collection!r}[{key!r}]"
    return text if len(text) <= _NAME_SHOWN else f"{text[:_NAME_SHOWN]}…"


STATE: Final = Table("I1", "{0}[{1}]", collection=_COLLECTION, key=_KEY, value=_VALUE)
MERKLE: Final = Table("I2", "node {0}", id=_NUMBER, level=_LEVEL, children=_CHILDREN)
"""Without the node's name, which is_node_name() tests."""
STAGED: Final = Table("I9", "staged transaction {0}", txn=_POSITIVE, session=_SESSION)
AUDIT: Final = Table(
    "I12", "audit entry {0}", number=_POSITIVE, at=_AT, kind=_TEXT, seq=_NUMBER, chain=_DIGEST, detail=_TEXT,
    digest=_DIGEST,
)  # fmt: skip
AUDIT_END: Final = AUDIT.only("number", "digest")
MIGRATIONS: Final = Table(
    "", "migration {0} of schema_migrations", number=_POSITIVE, name=_TEXT, sha256=_DIGEST, at=_AT
)
HEAD: Final = Table("I4", "the record of commit {0}", seq=_POSITIVE, root=_DIGEST, count=_NUMBER, at=_AT, chain=_DIGEST)


def _record(**columns: _Must) -> Table:
    every = dict.fromkeys(
        (
            "lsn", "txn", "kind", "session", "collection", "key", "value", "before", "seq", "root", "count", "at",
            "chain", "note", "records", "total", "digests",
        ),
        _ABSENT,
    )  # fmt: skip
    every |= {"lsn": _POSITIVE, "txn": _POSITIVE, "kind": _TEXT, "session": _or_null(_SESSION)}
    return Table("I7", "record {0}", **(every | columns))


_MARKS: Final = _Must(lambda value: type(value) is int, "NULL, 1, 2 or 3")


def _change(**columns: _Must) -> Table:
    every = {"collection": _COLLECTION, "key": _KEY, "chain": _or_null(_DIGEST)}
    return _record(**(every | {"digests": _Must(_is_absent, _MARKS.words)} | columns))


_HEAD_OR_NOT: Final = {
    "root": _or_null(_DIGEST),
    "count": _or_null(_NUMBER),
    "at": _or_null(_AT),
    "chain": _or_null(_DIGEST),
    "records": _or_null(_DIGEST),
    "total": _or_null(_NUMBER),
}
RECORDS: Final[Mapping[Any, Table]] = {
    "BEGIN": _record(at=_or_null(_AT), note=_TEXT, chain=_or_null(_DIGEST)),
    "PUT": _change(value=_VALUE, before=_or_null(_VALUE)),
    "DELETE": _change(before=_VALUE),
    "COMMIT": _record(seq=_POSITIVE, **_HEAD_OR_NOT),
    "ROLLBACK": _record(at=_AT),
    ("PUT", fmt.VALUE_DIGEST): _change(value=_DIGEST, before=_or_null(_VALUE), digests=_MARKS),
    ("PUT", fmt.BEFORE_DIGEST): _change(value=_VALUE, before=_DIGEST, digests=_MARKS),
    ("PUT", fmt.VALUE_DIGEST | fmt.BEFORE_DIGEST): _change(value=_DIGEST, before=_DIGEST, digests=_MARKS),
    ("DELETE", fmt.BEFORE_DIGEST): _change(before=_DIGEST, digests=_MARKS),
}
"""By kind; by kind and `digests`, where some of the values are digests."""


def record_table(kind: Any, digests: Any) -> Table | None:
    """Return the tests of a row of the table wal, None if there is no such kind."""
    return RECORDS.get(kind if digests is None else (kind, digests)) or RECORDS.get(kind)


class InvalidText(NamedTuple):
    """A TEXT that is not UTF-8. It is not a str, so nothing takes it for text."""

    raw: bytes


def columns(*names: str) -> str:
    """Return the part of a SELECT that reads the columns *names*, for decoded()."""
    marks = " | ".join(f"((typeof({name}) = 'text') << {number})" for number, name in enumerate(names))
    values = (f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END" for name in names)
    return f"{marks}, {', '.join(values)}"


def decoded(row: Row) -> Row:
    """Return the values of a row read with columns(): int, float, str, bytes, None or InvalidText."""
    if not row[0]:
        return row[1:]
    values = list(row[1:])
    for number in _texts(row[0]):
        try:
            values[number] = values[number].decode()
        except UnicodeDecodeError:
            values[number] = InvalidText(values[number])
    return tuple(values)


def bound(values: Sequence[Any]) -> list[Any]:
    """Return *values* to be bound to parameters(): InvalidText as its bytes."""
    return [value.raw if isinstance(value, InvalidText) else value for value in values]


def parameters(values: Sequence[Any]) -> list[str]:
    """Return the placeholder of each of *values* in a statement."""
    return ["CAST(? AS TEXT)" if isinstance(value, InvalidText) else "?" for value in values]


@lru_cache(maxsize=1024)
def _texts(marks: int) -> tuple[int, ...]:
    return tuple(number for number in range(marks.bit_length()) if marks >> number & 1)


def name_or_none(collection: Any, key: Any) -> bytes | None:
    """Return `name_bytes()` of the entry with that name; None if no entry can have it."""
    if type(collection) is not str or len(collection) > fmt.NAME_BYTES_MAX:
        return None
    before_int = _before_int(collection)
    if type(key) is int and before_int:  # SQLite has no greater ones than a key may be
        return before_int + (key - fmt.INT_MIN).to_bytes(8)
    return name_bytes(stored_name(collection, key)) if before_int and is_key(key) else None


@lru_cache(maxsize=64)
def _before_int(collection: str) -> bytes:
    """Return what name_bytes() begins with in this collection, if the key is an integer; nothing if it is no name."""
    return name_bytes(stored_name(collection, 0))[:-8] if is_collection(collection) else b""


def direct_change(row: Row) -> bytes | None:
    """Return `name_bytes()` of the entry that a row of the table wal changes, None unless it is as RECORDS says.

    And unless it is a PUT or DELETE of a direct transaction. Nearly all rows are: RECORDS takes four times as long.
    """
    lsn, txn, kind, session, collection, key, value, before = row[:8]
    if (
        session is None
        and (type(value) in _STORED if kind == "PUT" else value is None and kind == "DELETE")
        and (type(before) in _STORED or (before is None and value is not None))
        and type(lsn) is type(txn) is int
        and 0 < lsn <= fmt.NUMBER_MAX
        and 0 < txn <= fmt.NUMBER_MAX
        and row[8:] == _NO_OTHERS
    ):
        return name_or_none(collection, key)
    return None


def direct_change_bytes(row: Row) -> bytes | None:
    """Return the canonical bytes of a row of the table wal, None where direct_change() does."""
    name, (lsn, txn, _, _, _, _, value, before, *_) = direct_change(row), row
    if name is None:
        return None
    old, new = (None if each is None else leaf(name, each) for each in (before, value))
    return change_bytes(lsn, txn, old, new)


_STORED: Final = {str, bytes}
_NO_OTHERS: Final = (None,) * 9


def has_bytes(record: RawRecord) -> bool:
    """Return True if a row of the table, whatever is in it, has canonical bytes: those that it is hashed by."""
    if not (is_number(record.lsn) and is_number(record.txn)):
        return False
    if record.kind == Kind.BEGIN:
        return all(part is None or is_text(part) for part in (record.note, record.at))
    if record.kind in (Kind.PUT, Kind.DELETE):
        marks = 0 if record.digests is None else record.digests
        if not is_entry_name(record.collection, record.key) or type(marks) is not int or not 0 <= marks < 4:
            return False
        return all(
            value is None or (is_digest(value) if marks & bit else is_stored(value))
            for bit, value in ((fmt.BEFORE_DIGEST, record.before), (fmt.VALUE_DIGEST, record.value))
        )
    return bool(record.kind == Kind.COMMIT)


def canonical(record: RawRecord) -> bytes | None:
    """Return the canonical bytes of a row of the table, whatever is in it; None if it has none."""
    return record_bytes(Record(*record)) if has_bytes(record) else None


def chain_or_none(chain: Any, head: tuple[Any, Any, Any, Any], records_digest: bytes) -> bytes | None:
    """Return the chain's digest as chain_next() does, of unvalidated fields; None if they cannot have one."""
    seq, root, count, at = head
    if is_digest(chain) and is_number(seq) and is_digest(root) and is_number(count) and is_text(at):
        return chain_next(chain, head, records_digest)
    return None
