"""Campaign 5: every N-th call of SQLite to the system fails, and what is left is judged, killed and closed."""

from __future__ import annotations

import itertools
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from unittest import mock
from zlib import crc32

import sqlstate
from tests.crash.campaign import Plan, Result, campaign, merged, spread
from tests.crash.images import digest
from tests.crash.judge import Expectation, Judge
from tests.crash.vfs import FailingVFS, Fault
from tests.crash.workloads import (
    SECONDS_MAX,
    STORE,
    Backup,
    Profile,
    State,
    Work,
    deterministic,
    fresh_folder,
    put_files,
    tuned,
)
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.images import Files
    from tests.crash.workloads import Entries

CALLS: Final = ("write", "sync", "truncate", "delete", "open", "read")
# What fails there is needed for what was promised.
LOUD: Final = ("write", "sync")
SMALL: Final = Profile(0, {}, checkpoint_pages=12, large=1000)
# SQLite's cache holds a few pages: a transaction reaches the files before its end.
TINY: Final = SMALL._replace(cache_kib=40, large=400)
SHARED: Final = SMALL._replace(mode="group")
PROFILES: Final = {"spill": TINY, "groups": SHARED, "spilling groups": SHARED._replace(cache_kib=8, large=2000)}
SCRIPTS: Final = {
    "puts": ("put", "put", "delete", "put", "reopen", "put", "close"),
    "transactions": ("many", "nested", "checkpoint", "delete", "reopen", "many", "close"),
    "batches": ("put", "batch", "unflushed", "batch", "put", "close"),
    "groups": ("put", "group", "group", "put", "close"),
    "spilling groups": ("group", "group", "put", "close"),
    "spill": ("put", "big", "close"),
    "staged": ("begin", "stage", "put", "commit", "stage", "undo", "stage", "reopen", "put"),
    "backup": ("put", "backup", "put", "backup", "close"),
    "compact": ("many", "clear", "compact", "put", "compact", "close"),
}


class Part(NamedTuple):
    """All faults of one kind of call in one script."""

    script: str
    journal: str
    call: str
    full: bool
    lasting: bool
    seed: int

    def case(self, number: int) -> str:
        full, lasting = "ENOSPC" if self.full else "EIO", "ever" if self.lasting else "once"
        return f"{self.script}:{self.journal}:{self.call}:{full}:{lasting}:{self.seed}:{number}"


class Blind(Work):
    """Work that does not look at the store after a step: that could meet the fault in place of the step."""

    def state(self) -> State:
        last = self.steps[-1].after if self.steps else _state(0, {})
        entries = self.entries()
        return last._replace(seq=last.seq + (entries != last.entries), entries=entries, backup=self._backup)


class Sweep:
    """One run with one fault: does the script, and knows after each error what may be there.

    Args:
        part: which script.
        folder: empty.
        fault: what fails; None: nothing does, and calls are counted.
    """

    def __init__(self, part: Part, folder: Path, fault: Fault | None) -> None:
        self.part = part
        self.folder = folder
        self.vfs = FailingVFS(fault)
        self.findings: list[str] = []
        self._profile = PROFILES.get(part.script, SMALL)
        self.kills: list[tuple[str, Files, Expectation]] = []
        self.work: Blind | None = None
        self.unknown: list[sqlstate.CommitOutcomeUnknown] = []
        self._raised = False
        self._seq = 0
        self._allowed: list[Entries] = [{}]
        self._backups: set[Backup | None] = {None}

    def run(self) -> None:
        """Do the script; whenever a step fails, keep a copy of what a kill then leaves."""
        # What SQLite swallows, apsw would print.
        silent = mock.patch.multiple(sys, unraisablehook=_ignore, excepthook=_ignore)
        with deterministic(str(self.part.seed)), tuned(self._profile), silent:
            if self._do("open"):
                for what in SCRIPTS[self.part.script]:
                    if not self._do(what):
                        break
            self._keep("at the end")
            if self.work is not None:
                try:
                    self.work.store.close()
                except sqlstate.StoreError:
                    self._raised = True
            self._keep("closed")
        told = self._raised or (self.work is not None and (self.work.told or self.work.unnoted))
        # A checkpoint that meets a full disk is tried again later: what it would move is durable where it is.
        loud = self.part.call in LOUD and not (self.part.call == "write" and self.part.full)
        if self.vfs.fired and loud and not told:
            self.findings.append(f"SILENT: a {self.part.call} failed, and nobody was told")

    def _do(self, what: str) -> bool:
        """Do one step, and after an error that ended the handle, open again; return whether there is one."""
        try:
            self._step(what)
        except sqlstate.StoreError as e:
            self._raised = True
            self._judge_error(what, e)
            self._keep(f"after {type(e).__name__} in {what}")
            return self._go_on()
        except Exception as e:  # noqa: BLE001, any other exception is the finding
            self.findings.append(f"LEAK: {what} raised {type(e).__name__}: {e}")
            return False
        return True

    def _step(self, what: str) -> None:
        if self.work is None:
            path, mode = self.folder / STORE, self._profile.mode
            options: dict[str, Any] = {
                "vfs": self.vfs.name,
                "journal": self.part.journal,
                "mode": mode,
                "group_wait": SECONDS_MAX,
            }
            self.work = Blind(path, str(self.part.seed), lambda: 0, **options)
            self.work.large = self._profile.large
        else:
            self.work.do(what)
        after = self.work.steps[-1].after
        self._allowed, self._seq = [after.entries], after.seq
        if what == "backup":
            self._backups = {after.backup}
        if what in ("open", "reopen") and self.part.call in LOUD:
            self._look_at_settings()

    def _look_at_settings(self) -> None:
        """See that SQLite journals as the store believes: each of its modes needs another level of syncing."""
        assert self.work is not None
        engine = self.work.store._engine
        actual = str(engine.write_connection.value("PRAGMA journal_mode"))
        if actual != engine.journal:
            self.findings.append(f"SILENT: the store takes its journal for {engine.journal}, SQLite's is {actual}")

    def _judge_error(self, what: str, e: sqlstate.StoreError) -> None:
        """Narrow what may be there now to what the error promises."""
        if self.work is None:
            return
        newest = self.work.steps[-1].after  # of several steps of one call, the first may have been made
        self._allowed, self._seq = [newest.entries], newest.seq
        before, intended = newest.entries, self.work.intended
        if isinstance(e, sqlstate.CommitOutcomeUnknown):
            self._allowed = [before, intended]
            self.unknown.append(e)
            if e.seq != self._seq + 1:
                self.findings.append(f"REPORT: {what}: commit {e.seq} is said to be unknown, it is {self._seq + 1}")
        elif isinstance(e, sqlstate.StoreIOError) and e.durable is not None:
            if e.durable != self._seq + 1:
                self.findings.append(f"REPORT: {what}: {e.durable} is said to be durable, it is {self._seq + 1}")
            self._allowed, self._seq = [intended], self._seq + 1
        if what == "backup":  # it was in the way of the error, or came before it
            self._backups.add(Backup(self._seq, plain.root(_triples(before))))

    def _go_on(self) -> bool:
        """See that a handle that goes on shows what may be there; open again if it refuses."""
        if self.work is None:
            return False
        try:
            try:
                self._look(self.work.store)
            except sqlstate.StoreClosed:
                with suppress(sqlstate.StoreError):
                    self.work.store.close()
                self.work.drafts.clear()  # a record of them may be there or not
                self.work.store = sqlstate.open(
                    self.work.path, vfs=self.vfs.name, mode=self._profile.mode, group_wait=SECONDS_MAX
                )
                self._look(self.work.store)
        except sqlstate.StoreError:
            return False
        return True

    def _look(self, store: sqlstate.Store) -> None:
        """Compare what the store shows with what may be there, and go on from that."""
        assert self.work is not None
        with store.snapshot() as snapshot:
            seq, root = snapshot.head.seq, snapshot.head.root
        match = [entries for entries in self._allowed if plain.root(_triples(entries)) == root]
        if not match:
            self.findings.append(f"MIXED: after the error the store shows commit {seq}, which is none of those allowed")
            raise sqlstate.StoreError
        if hasattr(store, "committed"):
            for e in self.unknown:
                there = seq >= e.seq
                if store.committed(e) is not there:
                    self.findings.append(f"REPORT: committed() is {not there} of commit {e.seq}")
        self.unknown.clear()
        self.work.adopt(seq, match[0])
        self._allowed, self._seq = [match[0]], seq

    def _keep(self, when: str) -> None:
        files = {file.name: file.read_bytes() for file in self.folder.iterdir() if file.is_file()}
        created = self.work is not None
        states = [_state(self._seq + number, entries) for number, entries in enumerate(self._allowed)]
        if len(states) > 1 and states[0].root == states[1].root:
            states.pop()
        expectation = Expectation(states, created=created, reported=False, exact=False, backups=set(self._backups))
        self.kills.append((when, files, expectation))


def _ignore(*_: object) -> None: ...


def _triples(entries: Entries) -> list[plain.Entry]:
    return [(*name, value) for name, value in entries.items()]


def _state(seq: int, entries: Entries) -> State:
    return State(seq, b"", plain.root(_triples(entries)), entries, frozenset(), -1)


class Group(NamedTuple):
    """All faults of one script: many of them leave the same files, which are judged once."""

    parts: tuple[Part, ...]
    only: int = 0
    """Fail this call alone."""
    step: int = 1
    """Fail one call of so many."""


def run_group(group: Group) -> Result:
    """Let the calls of each part's kind fail in turn, until a run ends without a fault."""
    result = Result()
    judge = Judge(again=False)
    judged: dict[object, list[str]] = {}
    with fresh_folder() as folder, fresh_folder() as place:
        for part in group.parts:
            first = 1 + crc32(repr(part).encode()) % group.step
            for number in itertools.count(first, group.step) if not group.only else (group.only,):
                put_files(folder, {})
                sweep = Sweep(part, folder, Fault(part.call, number, part.full, part.lasting))
                sweep.run()
                if not sweep.vfs.fired:
                    break
                result.runs += 1
                findings = list(sweep.findings)
                for when, files, expectation in sweep.kills:
                    found = tuple((state.seq, state.root) for state in expectation.states)
                    key = digest(files), found, frozenset(expectation.backups)
                    if key not in judged:
                        put_files(place, files)
                        judged[key] = judge.judge(place, expectation).findings
                    findings += [f"{when}: {each}" for each in judged[key]]
                for finding in findings:
                    result.miss(part.case(number), f"{part.case(number)}: {finding}")
    return result


def groups(plan: Plan) -> Iterator[Group]:
    """Yield all kinds of faults, by script; the long run has more seeds."""
    if plan.case:
        script, journal, call, how, span, seed, only = plan.case.split(":")
        yield Group((Part(script, journal, call, how == "ENOSPC", span == "ever", int(seed)),), int(only))
        return
    faults = [
        (call, full, lasting)
        for call in CALLS
        for full in ((False, True) if call in ("write", "truncate") else (False,))
        for lasting in (False, True)
    ]
    for number, name, mode in itertools.product(range(plan.seed, plan.seed + plan.count), SCRIPTS, ("wal", "delete")):
        yield Group(tuple(Part(name, mode, *fault, number) for fault in faults), step=1 if plan.long else 10)


@campaign(5, "every N-th call fails", bar="0 lost, mixed, corrupt, misreported", ci=1, long=20)
def io_errors(plan: Plan) -> Result:
    """Errors of the device and full disks at each call of a few scripts, at the short count at every tenth.

    The count is that of seeds.
    """
    return merged(spread(plan, run_group, groups(plan)))
