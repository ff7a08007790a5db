"""What a commit in the making holds in memory: changes, entries that are pending, points to go back to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sqlstate.format.names import Name, Stored

# One entry that differs: its name, its value before and after, the leaves of both; None stands for no entry.
# A plain tuple, as the edits in merkle are.
Change = tuple["Name", "Stored | None", "Stored | None", bytes | None, bytes | None]


class Mark(NamedTuple):
    """A point in a commit that can be gone back to."""

    lsn: int
    txn: int
    root: bytes
    entries: int
    records: Any
    transactions: int
    closing: Any


class Pending(NamedTuple):
    """An entry as transactions of a commit left it, and the tables do not have it yet."""

    value: Stored | None
    leaf: bytes | None
    raw: bytes
    before: bytes | None
    """The leaf that is in the tree."""
