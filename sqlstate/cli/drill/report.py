"""What a drill is asked to do, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlstate.errors import InvalidOption

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Journal

WRITERS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What a drill does.

    Raises:
        InvalidOption: a number is outside what it may be.
    """

    kills: int = 20
    writers: int = 2
    seed: int = 0
    """Of all choices; what the processes do meanwhile is the system's choice, and another one each time."""
    journal: Journal = "wal"
    timeout: float = 5.0
    """Seconds that a writer waits for the others."""

    def __post_init__(self) -> None:
        if self.kills < 1:
            raise InvalidOption(f"kills={self.kills!r} is not a number, 1 or more")
        if not 1 <= self.writers <= WRITERS_MAX:
            raise InvalidOption(f"writers={self.writers!r} is not a number from 1 to {WRITERS_MAX}")


@dataclass(slots=True)
class DrillReport:
    """What a drill found in all checks that it came to."""

    kills: int = 0
    processes: int = 0
    """Writers that were started."""
    acknowledged: int = 0
    """Commits that returned, and were looked for."""
    lost: int = 0
    """Those among them that were not there, or not as they were."""
    in_doubt_there: int = 0
    """Commits that had not returned at the kill, and were there as a whole."""
    in_doubt_gone: int = 0
    """Commits that had not returned at the kill, and were not there at all."""
    rolled_back: int = 0
    """Drafts that recovery rolled back."""
    frames: int = 0
    """What recovery kept of SQLite's journal: frames of a -wal, or pages of a rollback journal."""
    seconds: list[float] = field(default_factory=list)
    """How long each recovery took."""
    entries: int = 0
    seq: int = 0
    root: bytes = b""
    findings: list[str] = field(default_factory=list)
    """What was lost or wrong, in words; empty if nothing was."""
    interrupted: bool = False
