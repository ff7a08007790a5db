"""What a check finds, and how it names entries and reads rows of any content."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import Damaged
from sqlstate.format.merkle import leaf
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.tables.raw_rows import is_entry_name, is_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.format.names import Key, Name
    from sqlstate.sqlite.connection import Row

FINDINGS_MAX: Final = 10_000
ROWS_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found wrong, or could not read.

    Examples:
        >>> finding = sqlstate.Finding("entry", "I2: the value is not the one that the tree names", "users", 1)
        >>> finding.kind, finding.collection, finding.key
        ('entry', 'users', 1)
    """

    kind: str
    """`"sqlite"`, `"schema"`, `"meta"`, `"entry"`, `"missing"`, `"extra"`, `"node"`, `"root"`, `"commit"`, `"record"`,
    `"staged"`, `"audit"`, `"block"`, `"against"` or `"unreadable"`."""
    what: str
    """One sentence; it begins with the number of the invariant that does not hold, where there is one."""
    collection: str | None = None
    """Of the entry, where one is named."""
    key: Key | None = None
    """Of the entry, where one is named."""
    seq: int | None = None
    """Number of the commit, where one is named."""
    lsn: int | None = None
    """Number of the record of the write-ahead log, where one is named."""
    expected: bytes | None = None
    """Digest that the tree proves should be there: of a leaf, or of a node."""
    level: int | None = None
    """Of a node."""
    place: Name | None = None
    """Of a node: the name in its row."""


class Findings:
    """Findings as they come, of very many only the first."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.more = 0

    def add(self, kind: str, what: str, **where: Any) -> None:
        """Keep one more, or count it; *where* are further fields of Finding."""
        self.keep(Finding(kind, what, **where))

    def keep(self, finding: Finding) -> None:
        """Keep one more, or count it."""
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(finding)
        else:
            self.more += 1


def read_on(plain: Iterator[Row], verbatim: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield the rows of *plain*; from a text on that is no UTF-8 those of *verbatim*, which reads the same slower."""
    done = 0
    try:
        for row in plain:
            done += 1
            yield row
    except Damaged as e:
        if not isinstance(e.__cause__, UnicodeDecodeError):
            raise
    else:
        return
    yield from islice(verbatim(), done, None)


def leaf_of(row: Row) -> bytes:
    """Return the leaf of a row of state; nothing if it is no entry."""
    collection, key, value = row
    if is_entry_name(collection, key) and is_stored(value):
        return leaf(name_bytes(stored_name(collection, key)), value)
    return b""


def shown(collection: Any, key: Any) -> str:
    """Return the name of an entry for a sentence."""
    text = f"{collection!r}[{key!r}]"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_SHOWN: Final = 200


def named(collection: Any, key: Any) -> dict[str, Any]:
    """Return what names an entry in a Finding, as far as it is one."""
    return {
        "collection": collection if type(collection) is str else None,
        "key": key if type(key) in (int, str, bytes) else None,
    }
