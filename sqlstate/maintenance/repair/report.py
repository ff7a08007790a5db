"""What a repair did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sqlstate.maintenance.check.check import Outcome


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair mended, or with *dry_run* would mend, and what stays lost.

    Examples:
        >>> store["users"][1] = "ada"
        >>> store.close()
        >>> report = sqlstate.repair("app.db", dry_run=True)
        >>> print(report.before, report.ok, report.mended)
        sound True {'entries': 0, 'removed': 0, 'nodes': 0, 'records': 0}
    """

    path: Path
    """The store."""
    before: Outcome
    """What a check said first."""
    after: Outcome | None = None
    """What a check of the repaired file said; None if none was written."""
    entries: int = 0
    """Entries that have their value again."""
    removed: int = 0
    """Rows of the table state that were no entries."""
    nodes: int = 0
    """Nodes of the tree that were changed, inserted or removed."""
    records: int = 0
    """Records of the write-ahead log that were changed, inserted or removed."""
    schema: tuple[str, ...] = ()
    """Indexes, triggers and views that were created again or removed, a sentence each."""
    lost: tuple[tuple[Any, Any] | str, ...] = ()
    """What cannot be proven, and was left as it was: (collection, key) of an entry, or a sentence.

    A missing entry is named after the log. Where commits of the log are lost too, the name can be another's."""
    evidence: Path | None = None
    """The damaged file; None if none was replaced."""
    entry: int | None = None
    """Number of the audit entry; None if none was written."""

    @property
    def ok(self) -> bool:
        """True if nothing stays lost."""
        return not self.lost

    @property
    def mended(self) -> dict[str, int]:
        """How much was mended, by kind."""
        return {"entries": self.entries, "removed": self.removed, "nodes": self.nodes, "records": self.records}

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain JSON types; keys of entries as text.

        Cost: none.

        Examples:
            >>> store.close()
            >>> sqlstate.repair("app.db", dry_run=True).as_dict()["lost"]
            []
        """
        return {
            "path": str(self.path),
            "before": str(self.before),
            "after": None if self.after is None else str(self.after),
            "mended": self.mended,
            "schema": list(self.schema),
            "lost": [each if isinstance(each, str) else [as_text(part) for part in each] for each in self.lost],
            "evidence": None if self.evidence is None else str(self.evidence),
            "entry": self.entry,
        }


def as_text(part: Any) -> str:
    """Return a collection's name or a key as text."""
    if isinstance(part, bytes):
        return f"x'{part.hex()}'"
    return str(part).encode("utf-8", "backslashreplace").decode()
