"""Work for a store, with a plain model beside it that knows what must be there after each step.

A workload is fixed by its profile, its journal and its seed. Each step is one call that the caller sees
return: `Step.begin` and `Step.end` are positions in the trace, and its state is promised from `end` on.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias
from unittest import mock

import sqlstate
from sqlstate.commit import commit as commit_module
from sqlstate.sqlite import checkpoints, settings
from sqlstate.store import batch as batch_module
from sqlstate.store import open_transaction as transaction_module
from tests.crash.campaign import scratch
from tests.crash.vfs import RecordingVFS, Trace, watching_os

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.crash.images import Files

Name: TypeAlias = tuple[str, "int | str | bytes"]
Entries: TypeAlias = "dict[Name, str | bytes]"

SECONDS_MAX: Final = 20
"""A request that has no outcome by then never gets one."""
STORE: Final = "s.db"
BACKUP: Final = "backup.db"


class Backup(NamedTuple):
    """A backup, by the newest commit in it."""

    seq: int
    root: bytes


class State(NamedTuple):
    """What must be in a store."""

    seq: int
    chain: bytes
    root: bytes
    entries: Entries
    staged: frozenset[tuple[int, int]]
    """The staged transactions that have not ended: number, and how many changes."""
    recoveries: int
    """Entries of kind recovery in the audit trail."""
    backup: Backup | None = None
    """The one that must be there under its name."""
    redacted: frozenset[tuple[Name, int, int]] = frozenset()
    """Entries whose values are no longer in the log: name, last record of then, and how many had values."""


class Step(NamedTuple):
    """One call that returned."""

    begin: int
    end: int
    what: str
    after: State
    clean: bool | None
    """After it: True, the store was closed; False, there are commits since it was opened; None, neither."""


class Recording(NamedTuple):
    """A workload that was run, and what it did to its files."""

    trace: Trace
    steps: list[Step]
    store_id: bytes


class Profile(NamedTuple):
    """How a workload is mixed."""

    steps: int
    weights: dict[str, int]
    checkpoint_pages: int = 40
    cache_kib: int = 32 * 1024
    large: int = 200
    """Most bytes of a value."""
    mode: Literal["full", "group"] = "full"
    log_limit: int | None = None


PROFILES: Final = {
    "puts": Profile(24, {"put": 8, "delete": 2, "reopen": 1}, checkpoint_pages=24),
    "transactions": Profile(16, {"put": 1, "many": 6, "nested": 4, "undone": 1, "reopen": 1}),
    "groups": Profile(13, {"put": 2, "group": 8, "many": 1, "reopen": 1}, checkpoint_pages=30, mode="group"),
    "batches": Profile(11, {"put": 1, "batch": 6, "unflushed": 2, "reopen": 1}, checkpoint_pages=40),
    "staged": Profile(
        20, {"put": 2, "begin": 3, "stage": 7, "commit": 3, "undo": 1, "reopen": 1, "abandon": 1}, checkpoint_pages=30
    ),
    "spill": Profile(7, {"put": 1, "big": 3, "reopen": 1}, cache_kib=48, large=3000),
    "readers": Profile(
        24, {"put": 4, "many": 2, "hold": 2, "release": 1, "checkpoint": 2, "compact": 1}, checkpoint_pages=16
    ),
    "sessions": Profile(18, {"put": 2, "reopen": 3, "peek": 2, "second": 1, "draft": 1}),
    "backup": Profile(10, {"put": 3, "many": 1, "backup": 3, "reopen": 1}),
    "cuts": Profile(
        26,
        {
            "put": 8,
            "many": 3,
            "batch": 1,
            "begin": 1,
            "stage": 2,
            "commit": 1,
            "undo": 1,
            "cut": 3,
            "limit": 1,
            "reopen": 2,
        },
        checkpoint_pages=30,
        log_limit=3000,
    ),
    "redactions": Profile(
        18,
        {"put": 4, "begin": 1, "stage": 2, "overstage": 4, "commit": 3, "undo": 1, "redact": 4, "mute": 1, "reopen": 1},
        checkpoint_pages=30,
        large=3000,
    ),
    "index": Profile(14, {"put": 4, "many": 2, "index": 3, "reopen": 1}),
    "compact": Profile(
        12, {"put": 3, "many": 2, "clear": 2, "compact": 4, "stage": 2, "reopen": 1}, checkpoint_pages=40, large=3000
    ),
}


def stored(value: Any) -> str | bytes:
    """Return a value as the file holds it."""
    if isinstance(value, bytes):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@contextmanager
def deterministic(seed: str, *, frozen: bool = False) -> Iterator[None]:
    """Let clock and random bytes depend on *seed* alone; the clock goes on by itself unless it is *frozen*."""
    source = random.Random(seed)  # noqa: S311, no secret
    ticks = itertools.repeat(0) if frozen else itertools.count(step=1_000_000)
    begin = 1_800_000_000_000_000_000 if frozen else 1_700_000_000_000_000_000
    with (
        mock.patch.object(time, "time_ns", map(begin.__add__, ticks).__next__),
        mock.patch.object(os, "urandom", source.randbytes),
    ):
        yield


@contextmanager
def tuned(profile: Profile) -> Iterator[None]:
    """Make caches and checkpoints so small that little work meets them."""
    with ExitStack() as stack:
        for module, name, value in (
            (checkpoints, "CHECKPOINT_PAGES", profile.checkpoint_pages),
            (settings.Caches, "of", lambda _: settings.Caches(*[profile.cache_kib << 10] * 3)),
            (transaction_module, "BUFFER_ENTRIES", 16),
            (commit_module, "BUFFER_ENTRIES", 16),
            (batch_module, "PUTS_AT_ONCE", 4),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield


@contextmanager
def fresh_folder(prefix: str = "sqlstate-crash-") -> Iterator[Path]:
    """Make an empty folder for a block, in memory if the machine lets us."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=scratch()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_files(folder: Path, files: Files) -> None:
    """Make *files* all that is in *folder*."""
    for entry in list(folder.iterdir()):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def recoveries(store: sqlstate.Store) -> int:
    """Return how many recoveries the audit trail tells of; 0 in a version without one."""
    if not hasattr(store, "audit"):
        return 0
    return sum(entry.kind == "recovery" for entry in store.audit())


class Work:
    """Does steps on a store, and keeps the model of what it must hold.

    Args:
        path: where the store is.
        seed: decides what the steps do.
        position: returns where in the trace the work is.
        found: what the store holds already.
        options: of `sqlstate.open`.
    """

    def __init__(
        self, path: Path, seed: str, position: Callable[[], int], *, found: State | None = None, **options: Any
    ) -> None:
        self.path = path
        self.steps: list[Step] = []
        self.large = 200
        self.held: list[Any] = []
        self.drafts: dict[int, list[tuple[Name, str | bytes]]] = {}
        self.told: list[BaseException] = []
        """Errors of single transactions in a group that others survived."""
        self.unnoted = 0
        """Backups and compactions whose report says that the store's audit trail has no entry of them."""
        self.redacted: frozenset[tuple[Name, int, int]] = frozenset()
        self.intended: Entries = {}
        self._options = options
        self._rng = random.Random(seed)  # noqa: S311, no secret
        self._position = position
        self._entries: Entries = dict(found.entries) if found else {}
        self._backup = found.backup if found else None
        self._backed_up: Entries | None = None
        self._clean: bool | None = None
        self.store = self.open()

    def open(self) -> sqlstate.Store:
        """Open the store: a step of its own."""
        with self.step("open", clean=None):
            self.store = sqlstate.open(self.path, **self._options)
        return self.store

    @contextmanager
    def step(self, what: str, *, clean: bool | None = False) -> Iterator[None]:
        """Note what must be there once the block has returned.

        The block changes the model before it makes its call. If that fails, the model is set back, and
        `intended` is what it would have been.
        """
        begin = self._position()
        seq = self.steps[-1].after.seq if self.steps else 0
        before = dict(self._entries), copy.deepcopy(self.drafts), self._backup
        try:
            yield
        except BaseException:
            self.intended = self._entries
            self._entries, self.drafts, self._backup = before
            raise
        after = self.state() if what != "close" else self.steps[-1].after
        if clean is False and after.seq == seq and self._clean is not False:
            clean = self._clean if what == "nothing" else None
        self._clean = clean
        self.steps.append(Step(begin, self._position(), what, after, clean))

    def state(self) -> State:
        """Return what must be in the store; root, chain and number are those that it reports."""
        head = self.store.head()
        staged = frozenset((txn, len(draft)) for txn, draft in self.drafts.items())
        count = recoveries(self.store)
        return State(head.seq, head.chain, head.root, dict(self._entries), staged, count, self._backup, self.redacted)

    def entries(self) -> Entries:
        """Return what the model holds."""
        return dict(self._entries)

    def adopt(self, seq: int, entries: Entries) -> None:
        """Go on from commit *seq* with *entries*: they are what the store was found to hold."""
        self._entries = dict(entries)
        last = self.steps[-1]
        self.steps.append(last._replace(what="found", after=last.after._replace(seq=seq, entries=dict(entries))))

    def do(self, what: str) -> None:
        """Do one step of the kind *what*."""
        getattr(self, what)()

    # Steps.

    def put(self) -> None:
        name, value = self._name(), self._value()
        with self.step("put"):
            self._entries[name] = stored(value)
            self.store[name[0]][name[1]] = value

    def delete(self) -> None:
        if not self._entries:
            self.put()
            return
        name = self._present()
        with self.step("delete"):
            del self._entries[name]
            del self.store[name[0]][name[1]]

    def many(self) -> None:
        self._many(self._rng.randrange(2, 9))

    def big(self) -> None:
        """A transaction that SQLite's cache cannot hold."""
        self._many(self._rng.randrange(40, 70))

    def nested(self) -> None:
        """A transaction with two inner ones, of which one is undone."""
        with self.step("nested"), self.store.transaction("outer") as txn:
            self._write(txn, 2)
            before = dict(self._entries)
            with suppress(LookupError), self.store.transaction() as inner:
                self._write(inner, 3)
                raise LookupError
            self._entries = before
            with self.store.transaction() as inner:
                self._write(inner, 2)

    def undone(self) -> None:
        """A transaction that is rolled back, after it spilled."""
        before = dict(self._entries)
        with self.step("nothing"):
            with suppress(LookupError), self.store.transaction() as txn:
                self._write(txn, 20)
                raise LookupError
            self._entries = before

    def group(self) -> None:
        """Transactions that share one commit: a block, and functions that are submitted while it is open."""
        asked = [self._asked() for _ in range(self._rng.randrange(2, 7))]
        before, error = dict(self._entries), None
        with self.step("group"):
            try:
                with self.store.transaction("group") as txn:
                    self._write_new(txn, "group")
                    self._write(txn, 2)
                    own = dict(self._entries)
                    in_thread(lambda: [each.submit(self.store) for each in asked])
            except sqlstate.StoreError as e:
                error = e
            asked = [each for each in asked if each.future]
            outcomes = [error, *(each.outcome() for each in asked)]
            wait_until_idle(self.store)
            check_outcomes(outcomes)
            self._entries = dict(before) if error and not is_unknown(error) else own
            for each, outcome in zip(asked, outcomes[1:], strict=True):
                if outcome is None or is_unknown(outcome):
                    each.apply(self._entries)
            self.told += [outcome for outcome in outcomes if isinstance(outcome, sqlstate.StoreError)]
            if error and (is_unknown(error) or self._entries == before):
                raise error

    def batch(self) -> None:
        """A batch: transactions, a flush, and more transactions."""
        with ExitStack() as stack:
            with self.step("flush"):
                batch = stack.enter_context(self.store.batch())
                self._fill(batch)
                batch.flush()
            with self.step("batch"):
                self._fill(batch)
                stack.close()

    def unflushed(self) -> None:
        """A batch that is undone."""
        before = dict(self._entries)
        with self.step("nothing"):
            with suppress(LookupError), self.store.batch() as batch:
                self._fill(batch)
                raise LookupError
            self._entries = before

    def begin(self) -> None:
        with self.step("begin"):
            self.drafts[self.store.wal.append("BEGIN", note="draft").txn] = []

    def stage(self) -> None:
        if not self.drafts:
            self.begin()
        txn = self._rng.choice(sorted(self.drafts))
        taken = {name for other, draft in self.drafts.items() if other != txn for name, _ in draft}
        name, value = self._name(), self._value()
        if name in taken:
            name = ("draft", txn)
        with self.step("stage"):
            self.drafts[txn].append((name, stored(value)))
            self.store.wal.append("PUT", txn=txn, collection=name[0], key=name[1], value=value)

    def overstage(self) -> None:
        """Put again what a staged transaction put last: at its commit, the value before becomes a digest."""
        txn = next((txn for txn, draft in self.drafts.items() if draft), None)
        if txn is None:
            self.stage()
            return
        name, value = self.drafts[txn][-1][0], self._value()
        with self.step("overstage"):
            self.drafts[txn].append((name, stored(value)))
            self.store.wal.append("PUT", txn=txn, collection=name[0], key=name[1], value=value)

    def redact(self) -> None:
        """Take the values of an entry out of the log, unless a staged transaction has it."""
        taken = {name for draft in self.drafts.values() for name, _ in draft}
        names = sorted({*self._entries} - taken, key=repr)
        if not names:
            return
        name = self._rng.choice(names)
        with self.step("redact", clean=None):
            last = [record.lsn for record in self.store.wal.read()][-1]
            report = self.store.redact(*name)
            self.redacted |= {(name, last, report.records)}

    def mute(self) -> None:
        """Have the log keep digests only of a collection, or its values again."""
        collection = self._name()[0]
        with self.step("mute", clean=None):
            self.store.set_logging(collection, "values" if collection in self.store.digest_logs() else "digests")

    def commit(self) -> None:
        """Commit a staged transaction, unless what it found was changed since."""
        if not self.drafts:
            self.stage()
        txn = self._rng.choice(sorted(self.drafts))
        with self.step("commit"):
            entries, draft = dict(self._entries), self.drafts.pop(txn)
            self._entries.update(draft)
            try:
                self.store.wal.mark_committed(txn)
            except sqlstate.Conflict:
                self._entries, self.drafts[txn] = entries, draft

    def undo(self) -> None:
        if not self.drafts:
            self.begin()
        txn = self._rng.choice(sorted(self.drafts))
        with self.step("undo"):
            del self.drafts[txn]
            self.store.wal.append("ROLLBACK", txn=txn)

    def checkpoint(self) -> None:
        with self.step("nothing"):
            self.store._engine.write_connection.checkpoint()

    def hold(self) -> None:
        """Begin to read: what is read now, a checkpoint must leave in SQLite's WAL."""
        with self.step("nothing"):
            snapshot = self.store.snapshot()
            snapshot.__enter__()
            self.held.append(snapshot)

    def release(self) -> None:
        with self.step("nothing"):
            if self.held:
                self.held.pop(0).__exit__(None, None, None)

    def peek(self) -> None:
        """Another handle of the same process reads; when it closes, the file is complete."""
        with self.step("peek", clean=None), sqlstate.open(self.path, **self._options) as other:
            assert other.head().seq == self.steps[-1].after.seq

    def second(self) -> None:
        """Another handle of the same process writes, and closes."""
        name, value = self._name(), self._value()
        with self.step("second", clean=None), sqlstate.open(self.path, **self._options) as other:
            self._entries[name] = stored(value)
            other[name[0]][name[1]] = value

    def draft(self) -> None:
        """Begin a staged transaction, and stage two changes."""
        self.begin()
        self.stage()
        self.stage()

    def staged(self) -> None:
        """A whole staged transaction."""
        self.draft()
        self.commit()

    def clear(self) -> None:
        """Delete all entries of a collection."""
        if not self._entries:
            self.put()
        collection = self._present()[0]
        with self.step("clear"):
            self._entries = {name: value for name, value in self._entries.items() if name[0] != collection}
            self.store[collection].clear()

    def replace(self) -> None:
        """Make a collection equal to something else."""
        wanted = {key: self._rng.randrange(100) for key in self._rng.sample(range(60), 9)}
        with self.step("replace"):
            self._entries = {name: value for name, value in self._entries.items() if name[0] != "b"}
            self._entries |= {("b", key): stored(value) for key, value in wanted.items()}
            self.store["b"].replace(wanted)

    def prove(self) -> None:
        """Prove a commit; in a long history that writes blocks of the log's tree."""
        with self.step("nothing"):
            self.store.prove_commit(self.store.head().seq)

    def restored(self) -> None:
        """Put the backup that this work made in the store's place, or one that it makes now."""
        if self._backed_up is None:
            self.backup()
        self.close()
        with self.step("restored", clean=None):
            assert self._backed_up is not None
            self._entries = dict(self._backed_up)
            sqlstate.restore(self.path.with_name(BACKUP), self.path, replace=True)
            self.open()

    def backup(self) -> None:
        with self.step("nothing"):
            self._backed_up = dict(self._entries)
            head = self.store.head()
            self._backup = Backup(head.seq, head.root)
            report = self.store.backup(self.path.with_name(BACKUP))
            self.unnoted += report.entry is None

    def cut(self) -> None:
        """Cut some commits from the log, unless it is the newest alone."""
        seq = self.store.head().seq
        with self.step("cut"):
            self.store.cut(self._rng.randint(0, seq))

    def limit(self) -> None:
        """Set another limit of the log."""
        with self.step("limit"):
            self.store.set_log_limit(self._rng.choice((0, 2000, 6000, None)))

    def index(self) -> None:
        """Make the index for histories, or drop it."""
        with self.step("index"):
            self.store.index_history(drop=self.store.stats().history_index)

    def compact(self) -> None:
        with self.step("nothing"):
            self.unnoted += self.store.compact().entry is None

    def abandon(self) -> None:
        """Close with staged work, and open: it is rolled back, if this version does that."""
        self.reopen()

    def reopen(self) -> None:
        self.close()
        self.open()

    def close(self) -> None:
        while self.held:
            self.held.pop().__exit__(None, None, None)
        with self.step("close", clean=True):
            self.store.close()
        if RECOVERS:
            self.drafts.clear()

    def finish(self) -> None:
        """Close whatever is open, without a step; errors are not this work's matter any more."""
        while self.held:
            with suppress(sqlstate.StoreError):
                self.held.pop().__exit__(None, None, None)
        with suppress(sqlstate.StoreError):
            self.store.close()

    def _many(self, number: int) -> None:
        with self.step("many"), self.store.transaction("many") as txn:
            self._write(txn, number)

    def _fill(self, batch: Any) -> None:
        """Make transactions of a batch: single entries, several, and one that is undone."""
        self._write_new(batch, "batch")
        for what in self._rng.choices(("put", "many", "undone"), (5, 2, 1), k=self._rng.randrange(4, 9)):
            before = dict(self._entries)
            if what == "put":
                self._write(batch, 1)
                continue
            with suppress(LookupError), batch.transaction(self._rng.choice(("", "note"))) as txn:
                self._write(txn, self._rng.randrange(1, 6))
                if self._rng.random() < 0.5:
                    len(txn["a"])  # so it reaches the tables
                    self._write(txn, 2)
                if what == "undone":
                    self._entries = before
                    raise LookupError

    def _write_new(self, txn: Any, collection: str) -> None:
        """Put an entry that was not there: so there is a commit."""
        number = len(self.steps)
        self._entries[collection, number] = stored(number)
        txn.put(collection, number, number)

    def _asked(self) -> Asked:
        """Return a transaction to be submitted; the model does not have it yet."""
        changes = [(self._name(), None if self._rng.random() < 0.3 else self._value()) for _ in range(4)]
        how = self._rng.choice(("", "", "", "reading", "failing", "failing reading", "nothing"))
        return Asked(how, changes[: self._rng.randrange(1, 5)])

    def _write(self, txn: Any, number: int) -> None:
        for _ in range(number):
            if self._entries and self._rng.random() < 0.2:
                name = self._present()
                del self._entries[name]
                txn.delete(*name)
            else:
                name, value = self._name(), self._value()
                self._entries[name] = stored(value)
                txn.put(*name, value)

    def _present(self) -> Name:
        return self._rng.choice(sorted(self._entries, key=repr))

    def _name(self) -> Name:
        number = self._rng.randrange(60)
        key: int | str | bytes = (number - 30, f"k{number}", b"%d" % number)[number % 3]
        return ("a", "b", "ü")[self._rng.randrange(3)], key

    def _value(self) -> Any:
        size = self._rng.randrange(self.large)
        if self._rng.random() < 0.3:
            return self._rng.randbytes(size)
        return {"number": self._rng.randrange(1000), "text": "x" * size}


class Asked:
    """A transaction that is submitted.

    Args:
        how: `reading`: it reaches the tables before its end; `failing`: it is undone; `nothing`: it only reads.
        changes: names and values, None to delete.
    """

    def __init__(self, how: str, changes: list[tuple[Name, Any]]) -> None:
        self.future: Any = None
        self._how = how
        self._changes = changes

    def submit(self, store: sqlstate.Store) -> None:
        with suppress(sqlstate.StoreError):  # the handle failed
            self.future = store.submit(self._work, note=self._how)

    def outcome(self) -> BaseException | None:
        """Wait for the end; return its exception."""
        error: BaseException | None = self.future.exception(timeout=SECONDS_MAX)
        if isinstance(error, LookupError) and "failing" not in self._how:
            raise AssertionError("it failed though nothing was the matter") from error
        assert error or "failing" not in self._how, "the exception of a transaction was lost"
        return error

    def apply(self, entries: Entries) -> None:
        """Make the changes in a model."""
        if self._how == "nothing":
            return
        for name, value in self._changes:
            if value is None:
                entries.pop(name, None)
            else:
                entries[name] = stored(value)

    def _work(self, txn: sqlstate.Transaction) -> None:
        if self._how == "nothing":
            len(txn["a"])
            return
        for name, value in self._changes:
            if value is None:
                txn.delete(*name)
            else:
                txn.put(*name, value)
            if "reading" in self._how:
                len(txn["a"])
        if "failing" in self._how:
            raise LookupError


def check_outcomes(outcomes: Iterable[BaseException | None]) -> None:
    """Check that what the requests of one group were told agrees."""
    every = list(outcomes)
    unknown = [each for each in every if isinstance(each, sqlstate.CommitOutcomeUnknown)]
    assert not unknown or None not in every, f"one knows what others do not: {every}"
    assert len({each.chain for each in unknown}) <= 1, f"one group, several commits: {unknown}"
    errors = [id(each) for each in every if each is not None]
    assert len(set(errors)) == len(errors), "threads share one exception"


def is_unknown(error: BaseException) -> bool:
    return isinstance(error, sqlstate.CommitOutcomeUnknown)


def in_thread(work: Callable[[], object]) -> None:
    """Do something in another thread, and wait for its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def wait_until_idle(store: sqlstate.Store) -> None:
    """Wait until the store's own thread sleeps, so that what comes next does not depend on how fast it was."""
    until = time.monotonic() + SECONDS_MAX
    while store._group.committer.has_work() or store._group.committer.is_at_work():
        assert time.monotonic() < until, "the store's own thread does not come to rest"
        time.sleep(0)


# Whether this version rolls back what dead sessions staged.
RECOVERS: Final = hasattr(sqlstate, "RecoveryReport")


def record(folder: Path, profile: str, journal: str, seed: str) -> Recording:
    """Run a workload in *folder*, which is empty, and return what it did."""
    trace = Trace(folder, STORE)
    vfs = RecordingVFS(trace)
    mix = PROFILES[profile]
    rng = random.Random(f"{seed}:steps")  # noqa: S311, no secret
    kinds: Iterable[str] = rng.choices(list(mix.weights), list(mix.weights.values()), k=mix.steps)
    with deterministic(seed), tuned(mix), watching_os(trace):
        options: dict[str, Any] = {"journal": journal, "mode": mix.mode, "log_limit": mix.log_limit}
        work = Work(folder / STORE, seed, trace.where, vfs=vfs.name, group_wait=SECONDS_MAX, **options)
        work.large = mix.large
        try:
            for kind in kinds:
                work.do(kind)
            work.close()
            store_id = work.store.store_id
        finally:
            work.finish()
            trace.close()
    return Recording(trace, work.steps, store_id)
