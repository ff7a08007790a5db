"""The drill's course: start writers, kill them, open the store, judge it, and again."""

from __future__ import annotations

import os
import random
import shutil
import time
from typing import TYPE_CHECKING, Final

from sqlstate.cli.drill.ledger import Ledger, Replay
from sqlstate.cli.drill.report import DrillReport
from sqlstate.cli.drill.writer import ACCOUNTS, BALANCE, COLLECTIONS, NAMES, WRITERS, WriterProcess, command_of
from sqlstate.errors import InvalidOption, StoreError
from sqlstate.files import system
from sqlstate.format.records import Kind
from sqlstate.store.opening import open as open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlstate.cli.drill.report import Plan
    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.store import Store

FILE_NAME: Final = "drill.db"

# How long writers run after each of them has made a commit, in seconds.
_RUN: Final = (0.002, 0.05)
# A writer that has made no commit by then is stuck.
_PATIENCE: Final = 120.0
# A folder with the store's files as they were at the newest kill of all writers: the way to look at a failure.
IMAGES: Final = "at-the-kill"


class Drill:
    """One drill.

    Args:
        folder: for the store and its sidecars; there must be no drill.db in it.
        plan: what to do.
        load: puts entries into the new store before it begins, in other collections than the drill's own.
        progress: called after each kill and its check.
        stopped: called again and again; once it returns True, the drill ends as soon as it can.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        load: Callable[[Store], object] | None = None,
        progress: Callable[[DrillReport], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.path: Path = folder / FILE_NAME
        self.report: DrillReport = DrillReport()
        self._images = folder / IMAGES
        self._plan = plan
        self._load = load
        self._progress = progress
        self._stopped = stopped
        self._random = random.Random(plan.seed)  # noqa: S311, a drill that can be repeated is what is wanted
        self._running: dict[int, WriterProcess] = {}
        self._ledgers: dict[int, Ledger] = {}
        self._dead: list[Ledger] = []  # of writers killed since the last check
        self._replay: Replay | None = None
        self._entry = 0  # the newest audit entry that was read
        # Drafts, since the last check at which no writer was running.
        self._undone: set[int] = set()  # a writer said that it rolls it back
        self._rolled_back: set[int] = set()  # the audit says that recovery rolled it back

    def run(self) -> DrillReport:
        """Run the drill, and return what it found; no writer is left running.

        Raises:
            InvalidOption: there is a drill.db in the folder, or the drill's collections are loaded ones.
            StoreError, OSError: the store cannot be made, or a writer not be started.
        """
        report, plan = self.report, self._plan
        try:
            self._prepare()
            while report.kills < plan.kills and not report.findings:
                self._start()
                self._let_run()
                self._kill(everyone=report.kills + 1 == plan.kills or self._random.random() < 0.5)
                report.kills += 1
                self._check()
                if self._progress is not None:
                    self._progress(report)
        except (_Stopped, KeyboardInterrupt):
            report.interrupted = True
        finally:
            self._end()
        return report

    def _prepare(self) -> None:
        for file in self._files():
            if os.path.lexists(file):
                raise InvalidOption(f"{file} is there, and the drill makes a new store")
        try:
            # It is judged by all that the log tells.
            with open_store(self.path, journal=self._plan.journal, log_limit=None) as store:
                if self._load is not None:
                    self._load(store)
                taken = [name for name in store.collections() if name in COLLECTIONS]
                if taken:
                    raise InvalidOption(f"the collection {taken[0]!r} is the drill's own; load others")
                store[ACCOUNTS].update({name: {"balance": BALANCE} for name in NAMES})
                self._check_stopped()
                self._replay = Replay(store.store_id)
                self.report.findings += (said for said in self._replay.follow(store, store.head()) if type(said) is str)
                self._entry = max(entry.number for entry in store.audit())
        except BaseException:
            for file in self._files():
                file.unlink(missing_ok=True)
            raise

    def _files(self) -> list[Path]:
        """Return the store's file and SQLite's sidecars."""
        return [self.path.with_name(FILE_NAME + suffix) for suffix in ("", "-wal", "-shm", "-journal")]

    def _start(self) -> None:
        """Start as many writers as are missing."""
        while len(self._running) < self._plan.writers:
            self._check_stopped()
            self.report.processes += 1
            number = self.report.processes
            command = command_of(self.path, number, self._plan)
            self._running[number] = WriterProcess(command, self.path.parent)
            self._ledgers[number] = Ledger(number)

    def _let_run(self) -> None:
        """Wait until each writer has made a commit, and then for a random time."""
        until = time.monotonic() + _PATIENCE
        while not all(process.committed or not process.running for process in self._running.values()):
            self._pause(0.001)
            if time.monotonic() > until:
                self.report.findings.append(f"a writer made no commit in {_PATIENCE:.0f} seconds")
                return
        self._pause(self._random.uniform(*_RUN))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0:
            self._check_stopped()
            time.sleep(min(rest, 0.02))

    def _check_stopped(self) -> None:
        if self._stopped():
            raise _Stopped

    def _kill(self, *, everyone: bool) -> None:
        numbers = self._random.sample(sorted(self._running), len(self._running) if everyone else 1)
        for number in numbers:
            self._running[number].kill()
        for number in numbers:
            process, ledger = self._running.pop(number), self._ledgers[number]
            code = process.reap()
            ledger.hear(process.said())
            self._dead.append(ledger)
            if process.ended_before or code != system.KILLED:
                self._check_stopped()  # the signal that stopped us may have reached the writer too
                self.report.findings.append(f"writer {number} ended by itself ({code}): {process.complaint()}")
            process.close()

    def _check(self) -> None:
        """Open the store and compare it with what the writers said, while those that are left go on."""
        quiet = not self._running
        for number, process in self._running.items():
            self._ledgers[number].hear(process.said())
        if quiet:
            self._keep_images()
        try:
            with open_store(self.path, create=False, timeout=self._plan.timeout) as store:
                self.report.findings += self._judge(store, quiet=quiet)
        except Exception as e:  # noqa: BLE001, whatever a broken store does to us is a finding
            self.report.findings.append(f"the store could not be checked: {type(e).__name__}: {e}")
        if quiet and not self.report.findings:
            left = [file for file in self.path.parent.glob(f"*{FILE_NAME}*") if file != self.path]
            self.report.findings += (f"{file.name} was left behind" for file in left if not self._is_void(file))

    def _is_void(self, file: Path) -> bool:
        """Return True for a journal without a page yet when its writer was killed; the next writer replaces it."""
        if self._logged or file.name != f"{FILE_NAME}-journal":
            return False
        with file.open("rb") as journal:
            return not any(journal.read(8))

    def _keep_images(self) -> None:
        """Copy the store's files as the kill left them. No process has them open."""
        shutil.rmtree(self._images, ignore_errors=True)
        self._images.mkdir()
        for file in self._files():
            if file.exists():
                shutil.copyfile(file, self._images / file.name)

    def _end(self) -> None:
        """Leave no process behind; and of a store in which all is well, a single file."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.reap()
            process.close()
        if self.report.findings:
            return
        shutil.rmtree(self._images, ignore_errors=True)
        if self._running and self.path.exists():
            self._running.clear()
            try:
                open_store(self.path, create=False).close()
            except StoreError as e:
                self.report.findings.append(f"the store could not be opened: {type(e).__name__}: {e}")

    # ---- Judges: each yields what is wrong ----

    def _judge(self, store: Store, *, quiet: bool) -> Iterator[str]:
        if quiet:
            yield from self._judge_recovery(store)
        with store.snapshot() as view:
            yield from self._judge_state(store, view)
            head = view.head
        self.report.entries, self.report.seq, self.report.root = head.count, head.seq, head.root
        for ledger in [*self._ledgers.values()]:
            dead = ledger.number not in self._running
            yield from ledger.settle(self.report, dead=dead)
            if dead:
                del self._ledgers[ledger.number]
            if quiet and ledger.in_doubt == head.seq and self._logged and store.recovery.in_doubt != head.seq:
                yield f"commit {head.seq} is in doubt, and recovery does not say so"
        yield from self._judge_audit(store)
        yield from self._judge_drafts(store, quiet=quiet)

    def _judge_recovery(self, store: Store) -> Iterator[str]:
        report, journal = store.recovery, store.recovery.journal
        self.report.seconds.append(report.seconds)
        self.report.frames += journal.committed
        if report.shared:
            yield "recovery saw another process at the store, and no other was running"
        if report.damage:
            yield f"recovery found damage that a kill cannot do: {report.damage}"
        if report.clean and self._logged:
            yield "recovery says that the last close was clean, and it was a kill"
        if journal.agrees is False or (self._logged and journal.sqlite_frames != journal.committed):
            yield f"recovery counted {journal.committed} frames, and SQLite {journal.sqlite_frames}"
        if report.after != store.head():
            yield "recovery reports another head than the store has"
        if report.in_doubt not in (None, store.head().seq):
            yield f"recovery names commit {report.in_doubt} as in doubt, and it is not the newest"

    @property
    def _logged(self) -> bool:
        """Whether a kill always leaves a -wal; a rollback journal is there in the middle of a commit only."""
        return self._plan.journal == "wal"

    def _judge_state(self, store: Store, view: Snapshot) -> Iterator[str]:
        assert self._replay is not None  # noqa: S101, for the type checker
        for found in self._replay.follow(store, view.head):
            if isinstance(found, str):
                yield found
                continue
            counters = [(key, value) for collection, key, value in found.puts if collection == WRITERS]
            ledger = self._ledgers.get(int(counters[0][0])) if counters else None
            if ledger is None:
                yield f"commit {found.seq} is of no writer"
            else:
                ledger.found[counters[0][1]["count"]] = found
        yield from self._replay.compare(view)

    def _judge_audit(self, store: Store) -> Iterator[str]:
        report = store.recovery
        details = {}
        for entry in store.audit():
            if entry.number > self._entry and entry.kind == "recovery":
                details[entry.number] = entry.detail
                self._rolled_back.update(entry.detail.get("rolled_back", ()))
                self.report.rolled_back += len(entry.detail.get("rolled_back", ()))
        self._entry = max([self._entry, *details])
        if report.entry is not None and details.get(report.entry, {}).get("journal") != report.as_dict()["journal"]:
            yield f"audit entry {report.entry} has other figures than the report"
        if not self._rolled_back.issuperset(report.rolled_back):
            yield f"recovery rolled back {report.rolled_back}, and the audit does not say so"
        yield from (f"audit: {finding}" for finding in store.check_audit())

    def _judge_drafts(self, store: Store, *, quiet: bool) -> Iterator[str]:
        assert self._replay is not None  # noqa: S101, for the type checker
        ended = self._replay.ended
        for ledger in self._dead:
            self._undone |= ledger.undone
            for txn, puts in ledger.drafts.items():
                kind, there = ended.get(txn, (None, []))
                if kind is None:
                    yield f"draft {txn} of writer {ledger.number}, which is dead, has not ended, or is not there"
                elif [put for put in puts if put not in there]:
                    yield f"draft {txn} of writer {ledger.number} has {there!r}, and {puts!r} was acknowledged"
        self._dead.clear()
        if not quiet:
            return
        yield from (f"staged transaction {txn}, which no writer began, has not ended" for txn in self._replay.open)
        if store.wal.uncommitted():
            yield "a staged transaction has not ended"
        for txn, (kind, _) in ended.items():
            if kind is Kind.ROLLBACK and txn not in self._undone | self._rolled_back:
                yield f"draft {txn} was rolled back by recovery, and the audit does not say so"
        for each in (self._undone, self._rolled_back, ended):
            each.clear()


class _Stopped(Exception):
    """The drill was asked to stop."""
