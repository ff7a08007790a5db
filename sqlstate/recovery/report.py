"""The reports of opening a store: what SQLite's journal held, what was concluded, and what recovery did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlstate.format import constants as fmt
from sqlstate.format.html import table

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import DirtyFlag


@dataclass(frozen=True, slots=True)
class JournalReport:
    """What SQLite's journal held when the store was opened, before SQLite read it.

    Frames are those of a -wal file, or the pages of a -journal file.

    Examples:
        >>> store.recovery.journal.kind, store.recovery.journal.frames
        ('none', 0)
    """

    kind: str = "none"
    """`"wal"`, `"rollback"` or `"none"`; `"folded"`: another program moved a -wal into the file, all that matters."""
    bytes: int = 0
    """Size of the file."""
    page_size: int = 0
    """Size of a page."""
    frames: int = 0
    """Whole frames of a -wal; records of a -journal that its headers count."""
    valid: int = 0
    """Those with valid checksums, from the first on without a gap."""
    committed: int = 0
    """Those up to the last commit: what SQLite recovers. Of a -journal, the pages that it restores."""
    commits: int = 0
    """SQLite transactions among them."""
    uncommitted: int = 0
    """Valid frames behind the last commit: a transaction that was cut short."""
    torn_bytes: int = 0
    """Bytes behind the valid frames that are not frames: torn by a crash, or damaged."""
    stale: int = 0
    """Frames that were moved into the main file earlier, and will be overwritten."""
    proved: int = 0
    """Frames behind damage that are valid by themselves."""
    rot: bool = False
    """Damage before frames that were written later: no crash does that."""
    sqlite_frames: int | None = None
    """Frames that SQLite itself recovered; None if it is not known."""
    agrees: bool | None = None
    """Whether that agrees with the scan."""


@dataclass(slots=True)
class Inspection:
    """What inspect() found, and what follows from it."""

    journal: JournalReport = field(default_factory=JournalReport)
    shared: bool = False
    """Other processes have the file open, or that is not known: nothing was judged."""
    damage: str = ""
    reason: str = ""
    before: Head | None = None
    after: Head | None = None
    flag: DirtyFlag | None = None
    """The dirty flag as SQLite will recover it; None if it was not read."""
    store_id: bytes = bytes(fmt.STORE_ID_BYTES)
    """Zeros if not known."""
    audited: int = 0
    """Number of the newest audit entry."""
    goes_on: bool = False
    """The commits in the -wal were proven to continue where the main file ends."""
    checked: str = "nothing to check"
    seconds: float = 0.0


Recover = Literal["rollback", "resume", "refuse", "accept"]
WAYS: Final = ("rollback", "resume", "refuse", "accept")
# check_sqlite() lets no other pass.
VERDICT: Final = "has the WAL-reset fix"


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening found, and what it did about that: `store.recovery`.

    Examples:
        >>> store.recovery.clean, store.recovery.rolled_back, store.recovery.entry
        (True, (), None)
    """

    clean: bool
    """The last close was clean, or the store is new."""
    shared: bool = False
    """Other processes had it open: the journal is in use, and was not judged."""
    due: bool = False
    """Recovery is due, and was not done: the store was opened for reading, or the disk is full."""
    damage: str = ""
    """`""`, or `"rot"`, `"truncated"`, `"missing"`, `"foreign"`, `"stale"` or `"header"`: of SQLite's journal; or
    `"copy"`: the file is a copy of a store that was open."""
    journal: JournalReport = field(default_factory=JournalReport)
    """What SQLite's journal held."""
    rolled_back: tuple[int, ...] = ()
    """Staged transactions of dead sessions that were rolled back, by number."""
    pending: tuple[int, ...] = ()
    """Staged transactions of dead sessions that are left for store.resume()."""
    in_doubt: int | None = None
    """After a crash, the newest commit: it is there, but its caller may not have been told."""
    removed: tuple[str, ...] = ()
    """Names of orphaned temporary files that were removed."""
    before: Head | None = None
    """The newest commit in the main file alone; None if that could not be read alone."""
    after: Head | None = None
    """The newest commit after recovery; None if an error came before."""
    checked: str = "nothing to check"
    """How root and chain were checked."""
    sqlite: str = ""
    """Version of the SQLite library."""
    verdict: str = VERDICT
    """What is known about that version."""
    seconds: float = 0.0
    """Time that inspection and recovery took."""
    scan_seconds: float = 0.0
    """Time that the inspection took."""
    entry: int | None = None
    """Number of the audit entry, None if nothing was done."""
    evidence: tuple[str, ...] = ()
    """Paths of copies of a damaged journal."""

    def _repr_html_(self) -> str:
        shown = {
            "clean": self.clean,
            "shared": self.shared,
            "due": self.due,
            "damage": self.damage or "none",
            "journal": f"{self.journal.kind}, {self.journal.committed:,} of {self.journal.frames:,} frames committed",
            "rolled back": ", ".join(map(str, self.rolled_back)) or "none",
            "pending": ", ".join(map(str, self.pending)) or "none",
            "in doubt": "none" if self.in_doubt is None else f"commit {self.in_doubt}",
            "newest commit": "unknown" if self.after is None else self.after.seq,
            "checked": self.checked,
        }
        return table("recovery", shown.items())

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain JSON types: digests in hexadecimal.

        Cost: none.

        Examples:
            >>> store.recovery.as_dict()["clean"]
            True
        """
        facts = asdict(self)
        facts["before"], facts["after"] = _head_facts(self.before), _head_facts(self.after)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}


def report_of(engine: Engine, found: Inspection) -> RecoveryReport:
    """Return the report of what was found, before anything is done."""
    clean = not is_unclean(found)
    return RecoveryReport(
        clean=clean,
        shared=found.shared,
        damage=found.damage,
        journal=found.journal,
        in_doubt=found.after.seq or None if found.after is not None and not clean else None,
        before=found.before,
        after=found.after,
        checked=found.checked,
        sqlite=engine.sqlite_version,
        seconds=found.seconds,
        scan_seconds=found.seconds,
    )


def summary(report: RecoveryReport) -> str:
    """Return the report in one line, for a log."""
    parts = [
        "there is something to recover, and it was not done" if report.due else "recovered after a crash",
        f"the newest commit is {report.after.seq}" if report.after is not None else "",
        f"SQLite's journal was damaged ({report.damage})" if report.damage else "",
        f"rolled back staged transactions {_numbers(report.rolled_back)}" if report.rolled_back else "",
        f"staged transactions {_numbers(report.pending)} wait to be resumed" if report.pending else "",
        f"removed {', '.join(report.removed)}" if report.removed else "",
        f"audit entry {report.entry}" if report.entry is not None else "",
    ]
    return "; ".join(filter(None, parts))


def _numbers(transactions: tuple[int, ...]) -> str:
    return ", ".join(map(str, transactions))


def is_unclean(found: Inspection) -> bool:
    """Return True if the last close was not clean."""
    if found.damage:
        return True
    if found.journal.kind == "rollback":
        return True
    return found.flag is not None and found.flag.dirty


def _head_facts(head: Head | None) -> dict[str, Any] | None:
    if head is None:
        return None
    return {
        "seq": head.seq,
        "root": head.root.hex(),
        "count": head.count,
        "at": head.at,
        "chain": head.chain.hex(),
    }
