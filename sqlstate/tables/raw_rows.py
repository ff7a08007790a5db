"""The border between a file that anybody can have edited and the code that trusts what it is given.

A column's type in SQLite holds nothing: who edits the file can switch it off. So each row is tested once, where its
table's module reads it, field by field. What passes is of the types and within the bounds that the file format gives
it (docs/reference/file-format.md, section 3); past this border an exception of Python's is a bug of ours, and looks
like one. Whether the fields of a sound row agree with other rows is for the digests to say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_SHOWN: Final = 60
_NAME_SHOWN: Final = 200
_TIME: Final = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}Z", re.ASCII
)


def is_number(value: Any) -> bool:
    """Tell whether it can number a record or a commit, or count entries; 0 is before the first."""
    return type(value) is int and 0 <= value <= fmt.NUMBER_MAX


def is_collection(value: Any) -> bool:
    """Tell whether it can be a collection's name."""
    if type(value) is not str or not 0 < len(value) <= fmt.NAME_BYTES_MAX:
        return False
    return value.isascii() or len(value.encode()) <= fmt.NAME_BYTES_MAX


def is_key(value: Any) -> bool:
    """Tell whether it can be a key."""
    kind = type(value)
    if kind is int:
        return bool(fmt.INT_MIN <= value <= fmt.INT_MAX)
    if kind is str:
        return 0 < len(value) <= fmt.KEY_BYTES_MAX and (value.isascii() or len(value.encode()) <= fmt.KEY_BYTES_MAX)
    return kind is bytes and 0 < len(value) <= fmt.KEY_BYTES_MAX


def is_entry_name(collection: Any, key: Any) -> bool:
    """Tell whether an entry can have that name."""
    return is_collection(collection) and is_key(key)


def is_node_name(collection: Any, key: Any) -> bool:
    """Tell whether a node of the tree can have that name: an entry's, or none."""
    return (collection == "" and key == "") or is_entry_name(collection, key)


def is_stored(value: Any) -> bool:
    """Tell whether it can be the value of an entry: a document or bytes."""
    return type(value) is str or type(value) is bytes


def is_level(value: Any) -> bool:
    """Tell whether it can be the level of a node."""
    return type(value) is int and 1 <= value <= fmt.LEVEL_MAX


def are_children(value: Any) -> bool:
    """Tell whether it can be the children of a node; their counts are not looked at."""
    return type(value) is bytes and len(value) > 0 and not len(value) % fmt.CHILD_BYTES


def is_digest(value: Any) -> bool:
    """Tell whether it can be a digest."""
    return type(value) is bytes and len(value) == fmt.DIGEST_BYTES


def is_session(value: Any) -> bool:
    """Tell whether it can be the id of a session."""
    return type(value) is bytes and len(value) == fmt.SESSION_BYTES


def is_text(value: Any) -> bool:
    """Tell whether it is text."""
    return type(value) is str


def is_time(value: Any) -> bool:
    """Tell whether it is a time as the file has it."""
    return type(value) is str and _TIME.fullmatch(value) is not None


def _is_absent(value: Any) -> bool:
    return value is None


class _Must(NamedTuple):
    """What a column must be, and the words for it."""

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

    @property
    def name(self) -> tuple[Any, Any]:
        """Collection and key of the entry that it changes; (None, None) if it is of none."""
        return self.collection, self.key


class Table:
    """What the rows of a table, or the columns of it that are read, must be.

    Args:
        rule: number of the invariant that a wrong row breaks, `""` for none.
        row: the words for one of its rows; `{0}` stands for its first column, and so on.
        columns: what each must be, in the order in which they are read.
    """

    __slots__ = ("_columns", "_row", "_rule", "_tests")

    def __init__(self, rule: str, row: str, **columns: _Must) -> None:
        self._rule = rule
        self._row = row
        self._columns = columns
        self._tests = tuple(must.test for must in columns.values())

    def only(self, *columns: str) -> Table:
        """Return what rows of these columns alone must be."""
        return Table(self._rule, self._row, **{column: self._columns[column] for column in columns})

    def fits(self, row: Sequence[Any]) -> bool:
        """Tell whether a row is what it must be."""
        for test, value in zip(self._tests, row, strict=True):  # noqa: SIM110, all() takes twice the time
            if not test(value):
                return False
        return True

    def wrong(self, row: Sequence[Any]) -> str:
        """Return what is wrong with the first field that is not what it must be, `""` if all are."""
        fault = self._fault(row)
        return f"{self._rule}: {fault}" if fault and self._rule else fault

    def _fault(self, row: Sequence[Any]) -> str:
        for (column, must), value in zip(self._columns.items(), row, strict=True):
            if not must.test(value):
                which = self._row.format(*map(shown, row))
                return f"{which} has {shown(value)} for its {column}, which must be {must.words}"
        return ""

    def spared(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return a row with NULL for each field that must be NULL."""
        return tuple(None if test is _is_absent else value for test, value in zip(self._tests, row, strict=True))

    def check(self, row: Sequence[Any], path: str) -> None:
        """Raise if a row is not what it must be.

        Raises:
            Damaged: a field is not; it says which.
        """
        if not self.fits(row):
            raise Damaged.found(path, self._fault(row), self._rule)


def shown(value: Any) -> str:
    """Return a value out of a file for a sentence."""
    if value is None:
        return "NULL"
    text = f"{value[:_SHOWN]!r}" if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def shown_name(collection: Any, key: Any) -> str:
    """Return the name of an entry for a sentence."""
    text = f"{collection!r}[{key!r}]"
    return text if len(text) <= _NAME_SHOWN else f"{text[:_NAME_SHOWN]}…"


STATE: Final = Table("I1", "{0}[{1}]", collection=_COLLECTION, key=_KEY, value=_VALUE)
ENTRY_NAME: Final = STATE.only("collection", "key")
MERKLE: Final = Table("I2", "node {0}", id=_NUMBER, level=_LEVEL, children=_CHILDREN)
"""Without its name, which is tested by is_node_name()."""
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
            "chain", "note",
        ),
        _ABSENT,
    )  # fmt: skip
    every |= {"lsn": _POSITIVE, "txn": _POSITIVE, "kind": _TEXT, "session": _or_null(_SESSION)}
    return Table("I7", "record {0}", **(every | columns))


_HEAD_OR_NOT: Final = {
    "root": _or_null(_DIGEST),
    "count": _or_null(_NUMBER),
    "at": _or_null(_AT),
    "chain": _or_null(_DIGEST),
}
RECORDS: Final[Mapping[Any, Table]] = {
    "BEGIN": _record(at=_or_null(_AT), note=_TEXT, chain=_or_null(_DIGEST)),
    "PUT": _record(collection=_COLLECTION, key=_KEY, value=_VALUE, before=_or_null(_VALUE), chain=_or_null(_DIGEST)),
    "DELETE": _record(collection=_COLLECTION, key=_KEY, before=_VALUE, chain=_or_null(_DIGEST)),
    "COMMIT": _record(seq=_POSITIVE, **_HEAD_OR_NOT),
    "ROLLBACK": _record(at=_AT),
}
"""By kind."""
