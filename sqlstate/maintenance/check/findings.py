"""What a check finds, and how it names entries and reads rows of any content."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlstate.format.merkle import leaf
from sqlstate.tables.raw_rows import is_stored, name_or_none

if TYPE_CHECKING:
    from sqlstate.format.names import Key, Name
    from sqlstate.sqlite.connection import Row

FINDINGS_MAX: Final = 10_000
ROWS_AT_ONCE: Final = 4096


class FindingKind(StrEnum):
    """What a finding is about. Each equals its string, such as `"entry"`."""

    SQLITE = "sqlite"
    """The structure of the file."""
    SCHEMA = "schema"
    """A table, index, trigger or view."""
    META = "meta"
    """The facts about the file."""
    ENTRY = "entry"
    """An entry with another value than the tree says."""
    MISSING = "missing"
    """An entry that the tree has and the table lacks."""
    EXTRA = "extra"
    """A row that the tree lacks."""
    NODE = "node"
    """A node of the tree."""
    ROOT = "root"
    """The root that the newest commit recorded."""
    COMMIT = "commit"
    """A commit whose chain, root, count or number does not follow."""
    RECORD = "record"
    """A record of the write-ahead log."""
    STAGED = "staged"
    """The list of staged transactions."""
    AUDIT = "audit"
    """An audit entry."""
    SETTING = "setting"
    """What the file keeps."""
    CUT = "cut"
    """What stays of the commits that were cut from the log."""
    BLOCK = "block"
    """A stored digest of the log over the commits."""
    AGAINST = "against"
    """The store is not the one that the caller trusts."""
    UNREADABLE = "unreadable"
    """What could not be read, or cannot be proven."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found wrong, or could not read.

    Examples:
        >>> finding = sqlstate.Finding("entry", "I2: the value is not the one that the tree names", "users", 1)
        >>> print(finding.kind, finding.collection, finding.key)
        entry users 1
    """

    kind: FindingKind
    """What it is about; a string that is also a member of an enum."""
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
        self.more: int = 0

    def mark(self) -> tuple[int, int]:
        """Return what back_to() takes."""
        return len(self.kept), self.more

    def back_to(self, mark: tuple[int, int]) -> None:
        """Drop what was added since mark() returned *mark*."""
        kept, self.more = mark
        del self.kept[kept:]

    def add(self, kind: FindingKind, what: str, **where: Any) -> None:
        """Keep one more, or count it; *where* are further fields of Finding."""
        self.keep(Finding(kind, what, **where))

    def keep(self, finding: Finding) -> None:
        """Keep one more, or count it."""
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(finding)
        else:
            self.more += 1


def leaf_of(row: Row) -> bytes:
    """Return the leaf of a row of state; nothing if it is no entry."""
    collection, key, value = row
    raw = name_or_none(collection, key)
    return b"" if raw is None or not is_stored(value) else leaf(raw, value)


def named(collection: Any, key: Any) -> dict[str, Any]:
    """Return what names an entry in a Finding, as far as it is one."""
    return {
        "collection": collection if type(collection) is str else None,
        "key": key if type(key) in (int, str, bytes) else None,
    }
