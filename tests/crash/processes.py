"""Campaigns 6 and 11: writer processes killed with SIGKILL at any moment, and SQLite's own account of each kill.

Method: a life is a store with one or four writers, killed several times over. A writer says through a pipe what
it was told is durable. After each kill the files are copied as they lie; a fresh process lets SQLite recover the
copy and says what SQLite counted. Then sqlstate opens the files: its report is compared with SQLite's account,
the log with what the writers were told, and tests/reference/plain.py judges the file.

A case is `JOURNAL-WRITERS-SEED`, or `JOURNAL+compact-WRITERS-SEED` of campaign 26. The seed fixes what is written and
when the kill is meant to fall; the very moment is the system's, so a failure may need a few replays.
"""

from __future__ import annotations

import json
import os
import random
import re
import selectors
import shutil
import signal
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import apsw

import sqlstate
from sqlstate.sqlite import checkpoints, settings
from tests.crash.campaign import Miss, Plan, Result, campaign, expect, figures, merged, scratch, spread, where
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KILLS_IN_A_LIFE: Final = 5
ALARM_SECONDS: Final = 120
ACCOUNTS: Final = 16
SIDECARS: Final = ("-wal", "-shm", "-journal")
NOTICE_WAL: Final = 283
NOTICE_ROLLBACK: Final = 539


# ---- Processes ----


class Forked:
    """A fork of this process that does *work*, says lines, and is told lines. Nothing of sqlstate may be open here."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._out, writing = os.pipe()
        reading, self._in = os.pipe()
        self._rest = b""
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._out)
            os.close(self._in)
            _child(Line(reading, writing), work, arguments)
        os.close(writing)
        os.close(reading)

    def fileno(self) -> int:
        return self._out

    def heard(self) -> list[Any]:
        """Wait for what it says next; no lines mean that it ended. A line cut by its death is no line."""
        chunk = os.read(self._out, 1 << 16)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        found = [json.loads(line) for line in lines]
        if chunk and not found:
            return self.heard()
        for each in found:
            if each[0] == "failed":
                raise Miss(f"the process failed:\n{each[1]}")
        return found

    def all_heard(self) -> list[Any]:
        """Return everything that it says until its end."""
        found: list[Any] = []
        while lines := self.heard():
            found += lines
        return found

    def tell(self, line: str = "go on") -> None:
        os.write(self._in, line.encode() + b"\n")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def ends(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._out)
            os.close(self._in)
        return self.status


class Line:
    """The child's side of the pipes."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing

    def say(self, *what: Any) -> None:
        os.write(self._writing, json.dumps(what).encode() + b"\n")

    def waiting(self) -> bool:
        """Tell whether a line is there to be read."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reading, selectors.EVENT_READ)
            return bool(selector.select(0))

    def hear(self) -> str:
        """Return the next line, `""` when the other side is gone."""
        return os.read(self._reading, 4096).decode().strip()


def _child(line: Line, work: Callable[..., None], arguments: tuple[Any, ...]) -> NoReturn:
    status = 1
    try:
        signal.alarm(ALARM_SECONDS)  # an orphan must not write for ever
        work(line, *arguments)
        status = 0
    except BaseException:  # noqa: BLE001, the child must not return to where its parent is
        line.say("failed", traceback.format_exc())
    finally:
        os._exit(status)


def in_fork(work: Callable[..., None], *arguments: Any) -> list[Any]:
    """Do *work* in a process of its own and return what it said."""
    child = Forked(work, *arguments)
    try:
        return child.all_heard()
    finally:
        child.ends()


# ---- A writer ----


@dataclass
class Workload:
    """How writers write."""

    path: str
    journal: str
    pages: int = 4096
    """After so many pages in SQLite's WAL comes a checkpoint."""
    cache: int = 32 * 1024
    """KiB of SQLite's cache; a transaction that outgrows it is written before its COMMIT."""
    most: int = 0
    """Commits until the writer says so and waits; 0 for no end."""
    compacts: bool = False
    """Whether writers also compact the store, again and again."""

    def apply(self) -> None:
        """Set what is set for a whole process."""
        checkpoints.CHECKPOINT_PAGES = self.pages  # type: ignore[misc]
        settings.Caches.of = lambda _: settings.Caches(*[self.cache << 10] * 3)  # type: ignore[assignment, method-assign]


def writes(line: Line, load: Workload, number: int, seed: int) -> None:
    """Write for ever, and say what is durable; told to stop, close the store and say so."""
    load.apply()
    store = sqlstate.open(load.path, journal=load.journal, timeout=30)  # type: ignore[arg-type]
    line.say("open")
    writer = Writer(line, store, number, seed)
    writer.large = 120 if load.journal == "delete" else 0  # hot journals come from these
    writer.compacts = load.compacts
    while not line.waiting():
        writer.step()
    store.close()
    line.say("closed")


class Writer:
    """One writer's random steps. Each commit raises its counter by one, so a lost commit is a hole."""

    def __init__(self, line: Line, store: sqlstate.Store, number: int, seed: int) -> None:
        self._line = line
        self._store = store
        self._number = number
        self._rng = random.Random(seed)  # noqa: S311, no secret
        self._count = store["counter"].get(number, 0)
        self._drafts: list[Any] = []
        self.large = 0
        """If not 0, most transactions have so many entries."""
        self.compacts = False
        """Whether one step in four compacts the store."""

    def step(self) -> None:
        if self.compacts and self._rng.random() < 0.25:
            self._line.say("compacted", self._store.compact().bytes_after)
            return
        choice = self._rng.random()
        if choice < 0.25:
            self._store["counter"][self._number] = self._count + 1
            self._counted()
        elif choice < 0.75:
            with self._store.transaction() as txn:
                self._write(txn)
            self._counted()
        elif choice < 0.9 or not self._drafts:
            self._stage()
        else:
            draft = self._drafts.pop(self._rng.randrange(len(self._drafts)))
            if self._rng.random() < 0.7:
                draft.commit()
                self._line.say("committed", draft.txn)
            else:
                draft.rollback()
                self._line.say("rolled back", draft.txn)

    def _counted(self) -> None:
        self._count += 1
        self._line.say("count", self._count)

    def _write(self, txn: sqlstate.Transaction) -> None:
        rng, count = self._rng, self._count + 1
        txn.put("counter", self._number, count)
        amount = rng.randrange(100)
        for account, by in ((rng.randrange(ACCOUNTS), amount), (rng.randrange(ACCOUNTS), -amount)):
            txn.put("accounts", account, txn.get("accounts", account, 0) + by)
        large = rng.random() < (0.6 if self.large else 0.1)
        for _ in range(self.large or 40 if large else rng.randrange(3)):
            key = f"{self._number}/{rng.randrange(60 + self.large)}"
            if rng.random() < 0.2:
                txn.delete("data", key)
            else:
                txn.put("data", key, {"count": count, "pad": "x" * rng.randrange(600)})

    def _stage(self) -> None:
        draft: Any = self._store.stage(note=f"writer {self._number}")
        self._line.say("staged", draft.txn, 0)
        more = self._rng.randrange(1, 4)
        for i in range(1, more):
            draft.put("drafts", f"{draft.txn}/{i}", {"i": i, "pad": "y" * self._rng.randrange(200)})
            self._line.say("staged", draft.txn, i)
        draft.put("drafts", f"{draft.txn}/0", 0)
        self._line.say("staged", draft.txn, more)
        self._drafts.append(draft)


# ---- What the writers were told, and what is there ----


@dataclass
class Told:
    """What one writer was told is durable."""

    count: int = 0
    staged: dict[int, int] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    opened: int = 0
    heard: int = 0

    def hear(self, lines: list[Any]) -> None:
        for what, *rest in lines:
            self.heard += 1
            if what == "count":
                self.count = rest[0]
            elif what == "staged":
                self.staged[rest[0]] = rest[1]
            elif what in ("committed", "rolled back"):
                self.ended[rest[0]] = what
            elif what == "open":
                self.opened += 1


@dataclass
class Log:
    """What the log of a store holds, as far as the writers are concerned."""

    counts: dict[int, list[int]] = field(default_factory=dict)
    """Sequence numbers of the commits that raised each writer's counter, in order."""
    drafts: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Each staged transaction: how it ended ("" if not) and the seq of its commit."""
    records: dict[int, int] = field(default_factory=dict)
    """How many changes each staged transaction has."""
    sequence: list[tuple[int, bytes]] = field(default_factory=list)
    """(seq, chain) of every commit."""
    visited: int = 0
    """The newest commit that this process itself made."""


def read_log(store: sqlstate.Store) -> Log:
    """Read the log; the counters must rise by one, without a hole."""
    log = Log()
    raised: list[tuple[int, int]] = []
    for record in store.wal.read():
        staged = record.session is not None
        if staged:
            log.drafts.setdefault(record.txn, ("", 0))
            log.records[record.txn] = log.records.get(record.txn, 0) + (record.kind == "PUT")
        elif record.collection == "counter":
            raised.append((cast("int", record.key), json.loads(record.value or b"")))
        elif record.collection == "visitors":
            log.visited = len(log.sequence) + 1
        if record.kind == "ROLLBACK":
            log.drafts[record.txn] = "rolled back", 0
        if record.kind == "COMMIT":
            expect(record.seq == len(log.sequence) + 1, f"commit {record.seq} comes after {len(log.sequence)}")
            log.sequence.append((record.seq or 0, record.chain or b""))
            if staged:
                log.drafts[record.txn] = "committed", record.seq or 0
            for number, count in raised:
                counts = log.counts.setdefault(number, [])
                expect(count == len(counts) + 1, f"a hole: writer {number} counts {count} after {len(counts)}")
                counts.append(record.seq or 0)
            raised = []
    return log


def compare(log: Log, told: dict[int, Told]) -> tuple[int, int]:
    """Compare the log with what the writers were told; return (newest acknowledged seq, commits not told of).

    What is there without its writer having been told counts as told from here on.
    """
    acknowledged, untold = log.visited, 0
    for number, own in told.items():
        counts = log.counts.get(number, [])
        expect(len(counts) >= own.count, f"LOST: writer {number} was told {own.count}, {len(counts)} are there")
        more = commits = len(counts) - own.count
        if own.count:
            acknowledged = max(acknowledged, counts[own.count - 1])
        own.count = len(counts)
        for txn, changes in own.staged.items():
            end, seq = log.drafts.get(txn, ("lost", 0))
            expect(end != "lost", f"LOST: staged transaction {txn} of writer {number}")
            expect(log.records[txn] >= changes, f"LOST: changes of staged transaction {txn}")
            said = own.ended.get(txn, "")
            expect(said in ("", end), f"LOST: staged transaction {txn} was {said}, the log says {end!r}")
            if said == "committed":
                acknowledged = max(acknowledged, seq)
            elif end == "committed":
                more, commits = more + 1, commits + 1
            own.ended[txn] = end
        expect(more <= 1, f"{more} commits of writer {number} are there that it was not told of")
        untold += commits
    return acknowledged, untold


def check_content(store: sqlstate.Store, log: Log) -> None:
    """Check what must hold over all entries."""
    expect(sum(store["accounts"].values()) == 0, "the accounts' sum is not what it was")
    for number, count in store["counter"].items():
        expect(count == len(log.counts.get(cast("int", number), [])), f"counter {number!r} is {count}")
    there = {int(key.split("/")[0]) for key in store["drafts"] if isinstance(key, str)}
    committed = {txn for txn, (end, _) in log.drafts.items() if end == "committed"}
    expect(there == committed, f"drafts {sorted(there ^ committed)} are there or missing")


# ---- SQLite's own account ----


def asks_sqlite(line: Line, path: str) -> None:
    """Let SQLite recover a copy; say what it noticed, counted, and what the tables hold."""
    notices: list[tuple[int, int]] = []

    def seen(code: int, text: str) -> None:
        if code in (NOTICE_WAL, NOTICE_ROLLBACK):
            notices.append((code, int(re.findall(r"recovered (\d+)", text)[0])))

    apsw.config(apsw.SQLITE_CONFIG_LOG, seen)
    con = apsw.Connection(path)
    tables = {name for (name,) in con.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    frames, _ = con.wal_checkpoint(mode=-1)
    staged = [txn for (txn,) in con.execute("SELECT txn FROM staged ORDER BY txn")] if "staged" in tables else []
    newest = next(iter(con.execute("SELECT max(seq) FROM wal")))[0] if "wal" in tables else None
    line.say({"notices": notices, "frames": frames, "staged": staged, "seq": newest or 0, "new": not tables})


def account(path: Path, aside: Path) -> dict[str, Any]:
    """Return SQLite's account of the files as they lie, made from a copy in *aside*."""
    copy_store(path, aside)
    said: dict[str, Any] = in_fork(asks_sqlite, str(aside / path.name))[0][0]
    return said


def copy_store(path: Path, to: Path) -> Path:
    """Copy a store and what is beside it into the folder *to*, anew; return the copy's path."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for suffix in ("", *SIDECARS):
        file = path.with_name(path.name + suffix)
        if file.exists():
            shutil.copy(file, to)
    return to / path.name


def compare_accounts(report: Any, said: dict[str, Any], counts: Any) -> None:
    """Compare a report with SQLite's own account (campaign 11)."""
    journal = report.journal
    notices = dict(said["notices"])
    if journal.kind == "rollback":
        expect(journal.committed == notices.get(NOTICE_ROLLBACK, 0), f"{journal}, SQLite says {said}")
        counts["hot journals"] += bool(notices)
    else:
        expect(journal.committed == notices.get(NOTICE_WAL, 0), f"{journal}, SQLite says {said}")
        if journal.kind == "wal":
            frames = max(said["frames"], 0)
            expect((journal.sqlite_frames or 0) == frames, f"sqlite_frames: {journal}, SQLite says {said}")
            expect(journal.agrees in (True, None), f"agrees is {journal.agrees}: {journal}")
        counts["frames recovered"] += notices.get(NOTICE_WAL, 0)
    expect(
        list(report.rolled_back) == said["staged"], f"rolled back {report.rolled_back}, staged were {said['staged']}"
    )
    expect(report.after.seq == said["seq"], f"head is {report.after.seq}, SQLite says {said['seq']}")


# ---- A life ----


class Life:
    """A store that is killed again and again."""

    def __init__(self, case: str, folder: Path, result: Result) -> None:
        how, writers, seed = case.split("-")
        journal, _, compacts = how.partition("+")
        self.rng = random.Random(f"{case}")  # noqa: S311, no secret
        self.folder = folder
        self.path = folder / "store.db"
        self.writers = int(writers)
        self.counts = result.counts
        self.told = {number: Told() for number in range(self.writers)}
        # Small numbers make checkpoints, restarts of SQLite's WAL, and journals that are hot.
        pages = self.rng.choice((8, 64, 4096)) if journal == "wal" else 4096
        cache = self.rng.choice((32, 32 * 1024)) if journal == "delete" else 32 * 1024
        self.load = Workload(str(self.path), journal, pages, cache, compacts=bool(compacts))
        self.seed = int(seed)

    def kill_all(self) -> None:
        """Let all write, kill all at one moment, and check what is left."""
        children = self._start()
        try:
            self._listen(children, self._goal())
        finally:
            for child in children:
                child.kill()
            self._gather(children)
        self._judge()

    def kill_some(self) -> None:
        """Kill all but one; the store is shared then, and the one's work goes on untouched."""
        children = self._start()
        survivor = self.rng.randrange(len(children))
        closed = self.rng.random() < 0.5
        others = [child for child in children if child is not children[survivor]]
        try:
            self._listen(children, self._goal(), opened=True)
            for child in others:
                child.kill()
            with sqlstate.open(self.path, timeout=30) as store:
                report = store.recovery
                # With a -journal, one who neither reads nor writes at this moment cannot be seen.
                expect(report.shared or self.load.journal == "delete", f"one writer lives: {report}")
                theirs = set(report.rolled_back) & set(self.told[survivor].staged)
                expect(not theirs and not report.damage, f"touched {theirs} of a living writer: {report}")
                store["visitors"][self.rng.randrange(9)] = self.rng.random()
                before = self.told[survivor].heard
                while self.told[survivor].heard < before + 5:
                    lines = children[survivor].heard()
                    expect(lines, "the surviving writer ended")
                    self.told[survivor].hear(lines)
                if closed:
                    children[survivor].tell("stop")
                    self.told[survivor].hear(children[survivor].all_heard())
                    expect(children[survivor].ends() == 0, "the surviving writer failed")
                    self.counts["survivors closed"] += 1
                else:
                    self.counts["survivors killed later"] += 1
        finally:
            for child in children:
                if child.status is None:
                    child.kill()
            self._gather(children)
        self._judge(closed=True)

    def _start(self) -> list[Forked]:
        seeds = [self.rng.randrange(2**32) for _ in range(self.writers)]
        return [Forked(writes, self.load, number, seed) for number, seed in enumerate(seeds)]

    def _goal(self) -> int:
        """How many lines to hear until the kill."""
        return self.rng.choice((0, 1, 2, self.rng.randrange(20), self.rng.randrange(150)))

    def _listen(self, children: list[Forked], goal: int, *, opened: bool = False) -> None:
        """Hear so many lines, and from every writer that it has opened, then wait a random moment."""
        with selectors.DefaultSelector() as selector:
            for number, child in enumerate(children):
                selector.register(child, selectors.EVENT_READ, number)
            heard = 0
            before = {number: told.opened for number, told in self.told.items()}
            while heard < goal or (opened and any(self.told[n].opened == before[n] for n in before)):
                for key, _ in selector.select():
                    lines = children[key.data].heard()
                    expect(lines, f"writer {key.data} ended before it was killed")
                    self.told[key.data].hear(lines)
                    heard += len(lines)
        until = time.perf_counter() + self.rng.random() * self.rng.choice((0.0005, 0.003, 0.02))
        while time.perf_counter() < until:
            pass

    def _gather(self, children: list[Forked]) -> None:
        for number, child in enumerate(children):
            if child.status is None:
                try:
                    self.told[number].hear(child.all_heard())
                finally:
                    child.ends()

    def _judge(self, *, closed: bool = False) -> None:
        """Check what a kill of all writers left; *closed* if somebody closed the store after some of them died."""
        said = account(self.path, self.folder / "aside")
        with sqlstate.open(self.path, journal=self.load.journal) as store:  # type: ignore[arg-type]
            report = store.recovery
            log = read_log(store)
            acknowledged, untold = compare(log, self.told)
            check_content(store, log)
            head = store.head()
            if not said["new"]:
                compare_accounts(report, said, self.counts)
            check_report(store, report, log)
            # One commit of a -journal is over when that is deleted; and who closes has carried everything over.
            if head.seq > acknowledged and self.load.journal == "wal" and not closed:
                expect(report.in_doubt == head.seq, f"{acknowledged} acknowledged, {head.seq} there: {report}")
                self.counts["in doubt, rightly"] += 1
        self.counts["commits"] = max(self.counts["commits"], 0) + head.seq
        self.counts["told after the kill only"] += untold
        self.counts["rolled back"] += len(report.rolled_back)
        self.counts["clean"] += report.clean
        judgement = plain.judge(self.path, history=3)
        expect(judgement.sound, f"the file is not sound: {judgement.findings}")
        expect((judgement.seq, judgement.chain) == (head.seq, head.chain), "the judge sees another head")
        with sqlstate.open(self.path, read_only=True) as store:
            again = store.recovery
            expect(again.clean and again.entry is None, f"after recovery and close: {again}")


def check_report(store: Any, report: Any, log: Log) -> None:
    """Check a report against the store it is of, and against its audit entry."""
    head = store.head()
    expect(not report.shared and not report.damage and not report.due, f"after a kill: {report}")
    expect(report.in_doubt in (None, head.seq), f"in doubt is {report.in_doubt}, the head is {head.seq}")
    expect(report.after == head, f"after is {report.after}, the head is {head}")
    if report.before is not None and report.before.seq:
        expect((report.before.seq, report.before.chain) in log.sequence, f"before is {report.before}")
    expect(not store.wal.uncommitted() and not store.pending(), "staged transactions of the dead are left")
    expect(store.check_audit() == [], f"the audit: {store.check_audit()}")
    entries = list(store.audit())
    did = report.rolled_back or report.removed or not report.clean
    if report.entry is None:
        expect(not did, f"no audit entry for {report}")
        return
    entry = entries[-1]
    expect((entry.number, entry.kind) == (report.entry, "recovery"), f"the newest entry is {entry}")
    expect((entry.seq, entry.chain) == (head.seq, head.chain), f"the entry is of another head: {entry}")
    compare_detail(entry.detail, report.as_dict())


def compare_detail(detail: dict[str, Any], report: dict[str, Any]) -> None:
    """Compare an audit entry's figures with the report's."""
    for name in ("journal", "rolled_back", "in_doubt", "removed"):
        expect(name in detail, f"the entry does not say {name}: {detail}")
        expect(detail[name] == report[name], f"{name} is {detail[name]} in the entry, {report[name]} in the report")


def one_life(case: str) -> Result:
    """Run a case."""
    result = Result()
    on_disk = case[-1] in "13579"  # where a sync takes its time, kills fall into it
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-kills-", dir=None if on_disk else scratch()))
    try:
        life = Life(case, folder, result)
        for _ in range(KILLS_IN_A_LIFE):
            result.runs += 1
            if life.writers > 1 and life.rng.random() < 0.3:
                life.kill_some()
            else:
                life.kill_all()
    except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
        result.miss(case, f"{type(e).__name__}: {e}{where(e)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def cases(plan: Plan, kinds: tuple[str, ...]) -> Iterator[str]:
    """Yield the cases of a plan: the kinds take turns."""
    if plan.case:
        yield plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    for i in range(-(-plan.count // KILLS_IN_A_LIFE)):
        yield f"{kinds[i % len(kinds)]}-{rng.randrange(10**9)}"


@campaign(6, "random kill -9, 1 and 4 writers", bar="0 lost, no holes, in doubt named", ci=100, long=10_000)
def kills(plan: Plan) -> Result:
    """Kill writers of stores in SQLite's WAL mode."""
    result = merged(spread(plan, one_life, cases(plan, ("wal-1", "wal-4"))))
    lost = result.counts["failures"]
    result.found = f"{lost} lost; {figures(result, 'commits', 'in doubt, rightly', 'rolled back')}"
    return result


@campaign(11, "reports against SQLite's own counts", bar="100 % equal", ci=60, long=10_000)
def accounts(plan: Plan) -> Result:
    """Kill writers in both journal modes; the comparison is made at every kill of campaign 6 too."""
    result = merged(spread(plan, one_life, cases(plan, ("delete-1", "delete-4", "wal-1"))))
    result.found = f"{result.counts['failures']} differ; {figures(result, 'frames recovered', 'hot journals')}"
    return result
