"""Judges what a crash left: opens it with the package, compares it with the model, and reads it with another SQLite.

Everything that is judged for every image is cheap. What plain.py recomputes from scratch is done once for
each content that was found.
"""

from __future__ import annotations

import hashlib
import sqlite3
import traceback
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from tests.crash.workloads import BACKUP, RECOVERS, STORE, Backup, State, deterministic, recoveries
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.crash.workloads import Entries, Step

# Everything but what depends on the crash alone: the session marker, and the audit trail.
DUMP: Final = (
    "SELECT name, value FROM meta WHERE name <> 'marker' ORDER BY name",
    "SELECT collection, key, value FROM state ORDER BY collection, key",
    "SELECT level, collection, key, children FROM merkle ORDER BY level, collection, key",
    f"SELECT {plain.RECORD_COLUMNS} FROM wal ORDER BY lsn",
    "SELECT txn, session FROM staged ORDER BY txn",
)

JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")


@dataclass
class Expectation:
    """What may be there after a crash."""

    states: Sequence[State]
    """The promised one, and behind it the one of the call that was under way."""
    created: bool = True
    """Whether the making of the store was promised; if not, there may be none, or an empty one."""
    store_id: bytes = b""
    clean: bool | None = None
    """What the report must say of the last close; None: either."""
    reported: bool = True
    """Whether the states tell of staged transactions and of recoveries."""
    damage: str = ""
    """What the report may call the damage, although nothing is missing."""
    exact: bool = True
    """Whether commits are known by their chain; else by what they hold alone."""
    backups: set[Backup | None] = field(default_factory=set)
    """Of which one must be there, None standing for none; without any, those of the states."""

    def __post_init__(self) -> None:
        self.backups = self.backups or {state.backup for state in self.states}


@dataclass
class Found:
    """What an image turned out to be."""

    findings: list[str] = field(default_factory=list)
    state: int = -1
    """Which of the expected states, -1: none."""
    clean: bool | None = None
    root: bytes = b""
    seq: int = -1

    def add(self, finding: str) -> None:
        self.findings.append(finding)


class Judge:
    """Judges images, and remembers the contents that it has judged as a whole.

    Args:
        again: open each image a second time, not those alone whose content is new.
    """

    def __init__(self, *, again: bool = True) -> None:
        self._always_again = again
        self._sound: dict[bytes, tuple[str, ...]] = {}
        self._backups: dict[bytes, tuple[Backup, tuple[str, ...]]] = {}
        self.deep = 0

    def judge(self, folder: Path, expectation: Expectation, **options: Any) -> Found:
        """Open the store in *folder*, close it, and judge it and all that it says.

        Args:
            folder: holds what the crash left.
            expectation: what may be there.
            options: of `sqlstate.open`.
        """
        found = Found()
        path = folder / STORE
        if not expectation.created and not path.exists():
            return found
        with deterministic("judge", frozen=True):
            try:
                self._open(path, expectation, found, options)
            except sqlstate.StoreError as e:
                if not (type(e) is sqlstate.CannotOpen and _is_unborn(path, expectation)):
                    found.add(f"REFUSED: {type(e).__name__}: {e}")
                return found
            except Exception as e:  # noqa: BLE001, any other exception is the finding
                found.add(f"LEAK: {type(e).__name__}: {e} in {traceback.extract_tb(e.__traceback__)[-1].name}")
                return found
            known = self.deep
            if not found.findings:
                try:
                    self._content(path, expectation, found)
                except sqlite3.DatabaseError as e:
                    found.add(f"CORRUPT: {e}")
            if not found.findings and (self._always_again or self.deep > known):
                self._again(path, found, options)
        self._backup(folder, expectation, found)
        return found

    def judge_alone(self, folder: Path, expectation: Expectation) -> Iterator[str]:
        """Open a main file whose -wal was taken away: if commits are missing then, that must be noticed.

        Args:
            folder: holds the main file alone.
            expectation: what may be there with its -wal.
        """
        with deterministic("judge", frozen=True):
            try:
                with sqlstate.open(folder / STORE) as store:
                    head = store.head()
            except (sqlstate.CannotOpen, sqlstate.Damaged):
                return
        if _which(head, expectation) < 0:
            yield f"UNNOTICED: without its -wal, {_miss(head, expectation)}"

    def _open(self, path: Path, expectation: Expectation, found: Found, options: dict[str, Any]) -> None:
        with sqlstate.open(path, **options) as store:
            head = store.head()
            found.root, found.seq = head.root, head.seq
            found.state = _which(head, expectation)
            if expectation.created and expectation.store_id not in (b"", store.store_id):
                found.add("MIXED: another store id")
            if found.state < 0:
                found.add(_miss(head, expectation))
                return
            if hasattr(store, "recovery"):
                _judge_report(store, expectation, found)

    def _content(self, path: Path, expectation: Expectation, found: Found) -> None:
        with closing(plain.connect(path)) as connection:
            rows = [connection.execute(sql).fetchall() for sql in DUMP]
            entries: Entries = {
                (name, key): value
                for name, key, value in connection.execute("SELECT collection, key, value FROM state")
            }
            integrity = connection.execute("PRAGMA integrity_check").fetchall()
        if entries != expectation.states[found.state].entries:
            found.add("MIXED: the entries are not those of the commit that the log ends with")
        if integrity != [("ok",)]:
            found.add(f"CORRUPT: {integrity[:3]}")
        if RECOVERS and rows[4]:
            found.add(f"STAGED: {rows[4]} were not rolled back")
        found.findings += _remembered(rows[3], expectation)
        key = hashlib.blake2b(repr(rows).encode(), digest_size=16).digest()
        if key not in self._sound:
            self.deep += 1
            self._sound[key] = plain.judge(path).findings
        found.findings += self._sound[key]

    def _again(self, path: Path, found: Found, options: dict[str, Any]) -> None:
        """Open once more: nothing is left to do, and nothing is written."""
        before = _files(path.parent)
        with sqlstate.open(path, **options) as store:
            if store.head().seq != found.seq or store.head().root != found.root:
                found.add("UNSTABLE: the second open found something else")
            if hasattr(store, "recovery") and not store.recovery.clean:
                found.add(f"UNSTABLE: the second open was not clean: {store.recovery}")
        if _files(path.parent) != before:
            found.add("UNSTABLE: the second open wrote something")

    def _backup(self, folder: Path, expectation: Expectation, found: Found) -> None:
        """A backup is there under its name once it was promised, and is whole."""
        path = folder / BACKUP
        if not path.exists():
            if None not in expectation.backups:
                found.add(f"BACKUP: it was promised, and is not there: {expectation.backups}")
            return
        key = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
        if key not in self._backups:
            judgement = plain.judge(path)
            self._backups[key] = Backup(judgement.seq, judgement.root), judgement.findings
        there, findings = self._backups[key]
        found.findings += [f"BACKUP: {finding}" for finding in findings]
        if expectation.backups != {None} and there not in expectation.backups:
            found.add(f"BACKUP: commit {there.seq} is in it, and promised was one of {expectation.backups}")


def _remembered(records: Sequence[tuple[Any, ...]], expectation: Expectation) -> Iterator[str]:
    """Yield what the log still has of values that were taken out of it, or has of some and not of others."""
    for redaction in expectation.states[-1].redacted:
        name, last, had = redaction
        left = 0
        for lsn, _, _, _, collection, key, value, before, *_, digests in records:
            if lsn <= last and (collection, key) == name and type(key) is type(name[1]):
                left += (digests or 0) != (value is not None) + 2 * (before is not None)
        if left and redaction in expectation.states[0].redacted:
            yield f"REMEMBERED: {left} records still have values of {name!r}, which was redacted"
        elif left not in (0, had):
            yield f"HALF: {left} of {had} records of {name!r} still have values"


def expected(steps: Sequence[Step], position: int, kind: str, journal: str) -> Expectation:
    """Return what a crash of *kind*, after *position* operations, may leave of recorded steps."""
    done = [step for step in steps if step.end <= position]
    under_way = [step for step in steps if step.begin < position < step.end]
    states = [step.after for step in (*done[-1:], *under_way)]
    clean = done[-1].clean if done and not under_way else None
    # A clean close may be among what a power cut loses; a rollback journal is there only during a commit.
    if (clean and kind not in ("prefix", "torn")) or journal != "wal":
        clean = None
    return Expectation(states, created=bool(done), clean=clean)


def _is_unborn(path: Path, expectation: Expectation) -> bool:
    """Tell whether a store was being made, and its journal's first bytes, which were not synced yet, are garbage.

    Nothing was promised, and nobody can know that the journal was not that of a file that is gone.
    """
    journal = path.with_name(f"{path.name}-journal")
    if expectation.created or path.stat().st_size or not journal.exists():
        return False
    start = journal.read_bytes()[: len(JOURNAL_MAGIC)].rstrip(b"\0")
    return not JOURNAL_MAGIC.startswith(start)


def backup_in(folder: Path) -> Backup | None:
    """Return what the backup in a folder holds, None if there is none."""
    path = folder / BACKUP
    if not path.exists():
        return None
    judgement = plain.judge(path)
    return Backup(judgement.seq, judgement.root)


def _which(head: sqlstate.Head, expectation: Expectation) -> int:
    for number, state in enumerate(expectation.states):
        same = not expectation.exact or head.chain == state.chain
        if same and (head.seq, head.root) == (state.seq, state.root):
            return number
    if not expectation.created and head.seq == 0:
        return 0
    return -1


def _miss(head: sqlstate.Head, expectation: Expectation) -> str:
    promised = expectation.states[0]
    if head.seq < promised.seq:
        return f"LOST: commit {promised.seq} was promised, the store ends with {head.seq}"
    if head.seq > expectation.states[-1].seq:
        return f"GHOST: the store ends with commit {head.seq}, and {expectation.states[-1].seq} was the last begun"
    return f"MIXED: commit {head.seq} is there with another root or chain"


def _judge_report(store: sqlstate.Store, expectation: Expectation, found: Found) -> None:
    """What the open says about itself, and the audit trail."""
    report: Any = store.recovery
    found.clean = report.clean
    if report.damage and report.damage != expectation.damage:
        found.add(f"FALSE ALARM: damage {report.damage!r}")
    if expectation.clean is not None and report.clean is not expectation.clean:
        found.add(f"REPORT: clean is {report.clean}, and the last close says {expectation.clean}")
    if (report.after.seq, report.after.root) != (found.seq, found.root):
        found.add(f"REPORT: after is {report.after}, and the store ends with {found.seq}")
    for finding in store.check_audit():
        found.add(f"AUDIT: {finding}")
    if not expectation.reported or not expectation.created:
        return
    entries = recoveries(store) - (report.entry is not None)
    changes = Counter(record.txn for record in store.wal.read() if record.kind == "PUT") if report.rolled_back else {}
    staged = {(txn, changes.get(txn, 0)) for txn in report.rolled_back}
    # Calls that make no commit leave states that no head tells apart.
    may = [(set(state.staged), state.recoveries) for state in expectation.states if state.root == found.root]
    if (staged, entries) not in may:
        found.add(f"REPORT: rolled back {staged}, number and changes, after {entries} recoveries; there were {may}")
    # The journal of a commit that is not over rolls it back; SQLite's WAL may have all of it.
    told = not found.state or expectation.states[0].seq == found.seq
    if not (told or report.clean or report.journal.kind == "rollback") and report.in_doubt != found.seq:
        found.add(f"REPORT: nobody was told of commit {found.seq}, and in doubt is {report.in_doubt}")
    if (report.entry is None) is not (report.clean and not report.rolled_back and not report.removed):
        found.add(f"AUDIT: entry {report.entry} of a report with clean={report.clean}, {report.rolled_back}")


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for file in folder.iterdir():
        if not file.name.endswith("-shm"):
            data = file.read_bytes()
            found[file.name] = (len(data), hashlib.blake2b(data, digest_size=16).digest())
    return found
