"""Campaign 17: real signals at random moments, whose handlers raise, and what the handle does then.

Method: a process does small pieces of work on a store, one after the other. Signals come while it does: SIGINT from
another process, or SIGALRM from a timer that is set to some moment of the work, as a soft time limit does. The
handler raises. Some of the exceptions are kept, with their frames. After each the same handle is looked at as
aftermath.py says: the work was done as a whole or not at all, head() agrees, a note on the exception says the truth,
and if the commit was made although the exception came out of the call, there is such a note.

A signal that comes while no work is done raises nothing and is not counted. An exception in the midst of asyncio's own
code can make the loop forget to go on with a task, whatever the task awaits (plain_asyncio.py): such a loop is ended by
another signal, and counted as forgotten. A task that waits for something which did not come is a freeze of ours.

A case is `KIND-HOW-WHERE-SEED-SIGNALS`, for example `batch-int-memory-7-200`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from sqlstate import aio
from tests.crash import watched
from tests.crash.aftermath import (
    LOCK_SECONDS,
    came_out_of_the_package,
    ended,
    entries,
    is_refusal,
    leftovers,
    look,
    other,
    said,
)
from tests.crash.campaign import Miss, Plan, Result, campaign, expect, figures
from tests.crash.watched import scratch, spread_watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS: Final = ("full", "group", "batch", "staged", "snapshot", "aio")
HOWS: Final = ("alarm", "int")
SECONDS: Final = 20
"""A round that takes longer is a freeze."""
FORGOTTEN_SECONDS: Final = 3
"""After so long, it is asked whether asyncio has forgotten the tasks of a loop."""
CASE_SECONDS: Final = 1200
SIGNALS_OF_A_CASE: Final = 1000
OUTSIDE_EVERY: Final = 20
KEYS: Final = 40
BESIDE: Final = 3
SENDER: Final = """
import os, random, sys, time
pid = int(sys.argv[1])
while os.getppid() == pid:
    time.sleep(random.random() * 0.002)
    os.kill(pid, 2)
"""


class SoftLimit(Exception):
    """What a time limit of an application raises."""


# ---- Signals ----


class Interrupter:
    """Has signals sent to this process, whose handler raises while a piece of work is done, once.

    Args:
        how: `"int"` or `"alarm"`.
        rng: says when.
    """

    def __init__(self, how: str, rng: random.Random) -> None:
        self.delivered = 0
        self.cancel: Callable[[], object] | None = None
        """Called in place of raising."""
        self._how = how
        self._rng = rng
        self._armed = False
        self._fired = False
        self._takes = 0.001

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Have them sent while the block goes on."""
        number = signal.SIGINT if self._how == "int" else signal.SIGALRM
        before = signal.signal(number, self._handle)
        sender = None
        if self._how == "int":
            sender = subprocess.Popen([sys.executable, "-S", "-c", SENDER, str(os.getpid())])
        try:
            yield
        finally:
            if sender is not None:
                sender.kill()
                sender.wait()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(number, before)

    def during(self, work: Callable[[], None]) -> BaseException | None:
        """Do some work; return what came out of it if a signal raised meanwhile."""
        self._fired = False
        begun = time.perf_counter()
        try:
            try:
                if self._how == "alarm":
                    signal.setitimer(signal.ITIMER_REAL, self._rng.random() * self._takes * 1.3 + 1e-6)
                self._armed = True
                work()
            finally:
                self._armed = False
        except BaseException as e:
            if not self._fired:
                raise
            return e
        if not self._fired:
            self._takes += (min(time.perf_counter() - begun, 0.05) - self._takes) / 10
        return None

    def _handle(self, *_: object) -> None:
        if not self._armed:
            return
        self._armed = False
        self._fired = True
        self.delivered += 1
        if self.cancel is not None:
            self.cancel()
            return
        raise KeyboardInterrupt if self._how == "int" else SoftLimit


# ---- Work that is interrupted ----


class Life:
    """A store that is worked with and interrupted.

    Args:
        case: as of the campaign.
        folder: where it lies.
        result: where figures go.
    """

    def __init__(self, case: str, folder: Path, result: Result) -> None:
        self.kind, how, _, _, signals = case.split("-")
        self.path = folder / "store.db"
        self.counts = result.counts
        self.signals = int(signals)
        self.rng = random.Random(case)  # noqa: S311, no secret
        self.interrupter = Interrupter(how, self.rng)
        self.mode = "group" if self.kind == "group" else "full"
        self.there: dict[Any, Any] = {}
        self.tried: dict[Any, Any] = {}
        """The part of the work that is in doubt."""
        self.futures: list[tuple[Any, Any, int]] = []
        self.kept: deque[BaseException] = deque(maxlen=10)
        self.number = 0
        self.draft: Any = None
        self.beside: Beside | None = None
        self.store = self._open()

    def _open(self) -> sqlstate.Store:
        store = sqlstate.open(self.path, mode=self.mode, timeout=LOCK_SECONDS * 2)  # type: ignore[arg-type]
        if self.kind == "group":
            self.beside = Beside(store, self.beside)
        return store

    def run(self) -> None:
        """Work until there were so many signals, and look at the end."""
        self.store["c"].update(dict.fromkeys(range(KEYS), 0))
        self.there = dict.fromkeys(range(KEYS), 0)
        works = {
            "full": self.full, "group": self.group, "batch": self.batch, "staged": self.staged,
            "snapshot": self.snapshot,
        }  # fmt: skip
        with self.interrupter.sending():
            while self.interrupter.delivered < self.signals:
                watched.patience(SECONDS)
                self.number += 1
                seq = self.store.head().seq
                self.tried, self.draft = {}, None
                error = self.interrupter.during(works[self.kind]())
                if error is not None:
                    self._judge(error, seq)
                    if self.rng.random() < 0.3:
                        self.kept.append(error)
                else:
                    self.there |= self.tried
        watched.patience(SECONDS)
        self._answered()
        if self.beside is not None:
            self.beside.stop()
            for name, count in self.beside.told.items():
                found = self.store["beside"].get(name)
                expect(found is not None and found >= count, f"LOST: {name} was told {count}, there is {found}")
        ended(self.store, refused=False)
        self.kept.clear()
        gc.collect()
        expect(not leftovers(self.path), f"close() left {leftovers(self.path)}")
        found = entries(self.path, "c")
        expect(found == self.there, "LOST or MIXED: the closed file holds something else than the handle showed")

    # ---- Pieces of work: each returns what is to be done, and may say on the way what has become certain ----

    def full(self) -> Callable[[], None]:
        store, changes = self.store, self._changes(self.rng.choice((1, 1, 3)))
        choice = self.rng.randrange(4)
        self.tried = changes

        def put() -> None:
            for key, value in self.tried.items():
                store["c"][key] = value

        def update() -> None:
            store["c"].update(changes)

        def transaction() -> None:
            with store.transaction() as txn:
                for key, value in changes.items():
                    txn.put("c", key, value)

        def nested() -> None:
            with store.transaction() as txn:
                for key, value in changes.items():
                    with store.transaction():
                        txn.put("c", key, value)

        if choice == 0:
            self.tried = self._changes(1)
        return (put, update, transaction, nested)[choice]

    def group(self) -> Callable[[], None]:
        store = self.store
        changes = self._changes(2)
        choice = self.rng.randrange(4)

        def ask(txn: sqlstate.Transaction) -> None:
            for key, value in changes.items():
                txn.put("c", key, value)

        def run() -> None:
            store.run(ask)

        def submit() -> None:
            for key, value in mine.items():
                # Known before it is asked: the answer to one that nobody got a future of stays in doubt.
                self.futures.append((None, key, value))
                self.futures[-1] = (store.submit(partial(_put, key, value)), key, value)
            store.barrier()

        mine = {f"f{self.number}.{i}": self.number for i in range(3)}
        if choice == 0:
            return submit
        if choice == 1:
            return self.batch()
        if choice == 2:
            return self.full()
        self.tried = changes
        return run

    def batch(self) -> Callable[[], None]:
        store, first, second = self.store, self._changes(2), self._changes(2, shift=1)

        def batch() -> None:
            with store.batch() as block:
                self.tried = first
                for key, value in first.items():
                    block.put("c", key, value)
                block.flush()
                self.there |= first
                self.tried = second
                with block.transaction() as txn:
                    for key, value in second.items():
                        txn.put("c", key, value)

        return batch

    def staged(self) -> Callable[[], None]:
        store, changes = self.store, self._changes(2)
        self.tried = changes

        def block() -> None:
            with store.stage(note="draft") as draft:
                for key, value in changes.items():
                    draft.put("c", key, value)

        def by_hand() -> None:
            self.draft = store.stage()
            for key, value in changes.items():
                self.draft.put("c", key, value)
            self.draft.commit()

        return self.rng.choice((block, by_hand))

    def snapshot(self) -> Callable[[], None]:
        store, there = self.store, self.there

        def read() -> None:
            with store.snapshot() as view:
                for _ in view["c"].items():
                    break
                expect(dict(view["c"].items()) == there, "STALE: a snapshot shows something else")
            rows = iter(store["c"].keys())
            next(rows)
            expect(len(list(store["c"].values())) == len(there), "STALE: a scan shows something else")
            store.prove("c", 1)
            store.head()
            next(rows)

        return read

    def _changes(self, number: int, shift: int = 0) -> dict[Any, Any]:
        half = KEYS // 2
        keys = self.rng.sample(range(half * shift, half * (shift + 1)), number)
        return {key: f"{self.number}.{key}.{shift}" for key in keys}

    # ---- After an exception ----

    def _judge(self, error: BaseException, seq: int) -> None:
        """Look at the handle after an exception came out of a piece of work."""
        _check_kind(error)
        refused = ""
        try:
            head, found = self.store.head(), dict(self.store["c"].items())
        except sqlstate.StoreError as e:
            if not is_refusal(e):
                raise Miss(f"BROKEN after {_told(error)}: reading raised {type(e).__name__}: {e}") from e
            refused = str(e)
        else:
            made = self._compare(found, error)
            if self.kind in ("full", "staged", "snapshot"):
                expect(head.seq == seq + made, f"head() shows {head.seq}, after {seq + made} and {_told(error)}")
            self._judge_notes(error, made=made, seq=head.seq)
            if self.kind == "group":
                self._nothing_comes_late(error)
        self._end_draft(refused)
        self.number += 1
        looked = look(self.store, self.number, outside=self.number % OUTSIDE_EVERY == 0)
        if refused or looked.refused:
            expect(looked.refused, f"first the handle refused, then it did not: {refused}")
            self._start_anew(error)
        elif self.beside is not None:
            self.beside.goes_on()

    def _compare(self, found: dict[Any, Any], error: BaseException) -> bool:
        """Return whether the part in doubt is there; as a whole, or not at all."""
        mine = {key: value for key, value in found.items() if isinstance(key, int)}
        new = self.there | self.tried
        made = bool(self.tried) and mine == new
        expect(made or mine == self.there, f"MIXED after {_told(error)}: {_differing(mine, self.there, self.tried)}")
        if made:
            self.there = new
        return made

    def _nothing_comes_late(self, error: BaseException) -> None:
        """What was asked for has been done, or is withdrawn: nothing of it is done once the exception is out."""
        before, self.tried = self.tried, {}
        self.store.barrier()
        found = {key: value for key, value in self.store["c"].items() if isinstance(key, int)}
        expect(found == self.there, f"LATE: {before} was written after {_told(error)} had come out")

    def _judge_notes(self, error: BaseException, *, made: bool, seq: int) -> None:
        notes = said(error)
        expect(not (notes.nothing and made), f"a note says that nothing was changed, and it was: {_told(error)}")
        expect(notes.made is None or made or self.kind in ("batch", "group"), f"a note is wrong: {_told(error)}")
        if notes.made is not None:
            self.counts["told of a commit"] += 1
            expect(notes.made <= seq, f"a note names commit {notes.made}, head() shows {seq}")
        if made and notes.made is None:
            expect(
                not came_out_of_the_package(error), f"UNTOLD: commit {seq} was made, no note says so: {_told(error)}"
            )
            self.counts["after the call"] += 1

    def _end_draft(self, refused: str) -> None:
        """A draft that was open can be ended, or has ended."""
        if self.draft is not None and not refused:
            try:
                self.draft.rollback()
            except sqlstate.StoreError as e:
                if not (isinstance(e, sqlstate.InvalidRecord) or is_refusal(e)):
                    raise Miss(f"BROKEN: a draft cannot be ended: {type(e).__name__}: {e}") from e

    def _start_anew(self, error: BaseException) -> None:
        """The handle is of no use: it can be closed, and another one does."""
        self.counts["refused"] += 1
        self._answered()
        if self.beside is not None:
            self.beside.stop(refused=True)
        ended(self.store, refused=True)
        self.store = self._open()
        self._compare(dict(self.store["c"].items()), error)

    def _answered(self) -> None:
        """Every future is answered; what it answers is there."""
        for future, key, value in self.futures:
            if future is None:
                continue
            try:
                future.result(timeout=10)
            except TimeoutError:
                raise Miss("UNANSWERED: a future is not answered") from None
            except BaseException as e:  # noqa: BLE001, an answer
                _never_damaged(e)
                continue
            self.there[key] = value
        self.futures = []
        with suppress(sqlstate.StoreError):
            found = dict(self.store["c"].items())
            missing = [key for key, value in self.there.items() if isinstance(key, str) and found.get(key) != value]
            expect(not missing, f"LOST: {missing} were acknowledged")
            # One whose future nobody got is there or not.
            self.there |= {key: value for key, value in found.items() if isinstance(key, str)}


def _put(key: Any, value: Any, txn: sqlstate.Transaction) -> None:
    txn.put("c", key, value)


class Beside:
    """Threads that write beside the one that is interrupted.

    Args:
        store: the handle.
        before: those that worked with the handle before.
    """

    def __init__(self, store: sqlstate.Store, before: Beside | None) -> None:
        self.told: dict[str, int] = before.told if before is not None else {}
        self._store = store
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(f"t{i}",), daemon=True) for i in range(BESIDE)]
        for thread in self._threads:
            thread.start()

    def goes_on(self) -> None:
        """Each of them must go on."""
        if self._errors:
            raise Miss(f"BROKEN: a thread beside got {type(self._errors[0]).__name__}: {self._errors[0]}")
        before = dict(self.told)
        until = time.monotonic() + 10
        while any(self.told.get(name, 0) <= count for name, count in before.items()):
            expect(time.monotonic() < until, "HANGS: a thread beside does not go on")
            time.sleep(0.0005)

    def stop(self, *, refused: bool = False) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
            expect(not thread.is_alive(), "HANGS: a thread beside does not come to an end")
        for error in self._errors:
            _never_damaged(error)
            expect(refused and is_refusal(error), f"BROKEN: a thread beside got {type(error).__name__}: {error}")

    def _work(self, name: str) -> None:
        count = self.told.get(name, 0)
        try:
            while not self._stop.is_set():
                count += 1
                self._store["beside"][name] = count
                self.told[name] = count
                time.sleep(0.0005)
        except BaseException as e:  # noqa: BLE001, it is looked at by the one that waits
            self._errors.append(e)


# ---- An event loop that is interrupted ----


class _ForgottenError(SoftLimit):
    """Asyncio has forgotten a task."""


def _forgotten(*_: object) -> None:
    raise _ForgottenError


class Loops(Life):
    """Event loops that are interrupted, one after the other, on one file."""

    task: asyncio.Task[Any] | None = None
    """That of the loop that runs now."""

    def run(self) -> None:
        """Run loops until there were so many signals."""
        self.store["c"].update(dict.fromkeys(range(KEYS), 0))
        self.there = dict.fromkeys(range(KEYS), 0)
        self.store.close()
        logging.disable()  # asyncio tells of tasks that an exception in the loop left pending
        warnings.simplefilter("ignore", RuntimeWarning)
        with self.interrupter.sending():
            while self.interrupter.delivered < self.signals:
                watched.patience(SECONDS)
                self.number += 1
                self.tried = {}
                cancelling = self.rng.random() < 0.4
                error = self.interrupter.during(partial(self._loop, cancelling=cancelling))
                self.interrupter.cancel = None
                if error is None and not cancelling:
                    self.there |= self.tried
                    continue
                if error is not None:
                    _check_kind(error)
                    if self.rng.random() < 0.3:
                        self.kept.append(error)
                self._look(error)
        watched.patience(SECONDS)
        self.kept.clear()
        del error  # its frames have the store of the last loop
        gc.collect()
        # A loop that is cut short in its own midst drops its store unclosed, so a -wal may stay; nothing else may.
        other().writes(self.path, "at the end")
        expect(entries(self.path, "c") == self.there, "LOST or MIXED: the closed file holds something else")

    def _loop(self, *, cancelling: bool) -> None:
        before = signal.signal(signal.SIGUSR1, _forgotten)
        self.task = None
        ask = threading.Timer(FORGOTTEN_SECONDS, self._end_forgotten, [threading.get_ident(), self.number])
        ask.daemon = True
        try:
            ask.start()
        except RuntimeError:  # the handler raised in the midst of a lock of the standard library
            raise KeyboardInterrupt from None
        try:
            asyncio.run(self._uses(cancelling=cancelling))
        except _ForgottenError:
            self.counts["forgotten"] += 1
            raise
        finally:
            ask.cancel()
            signal.signal(signal.SIGUSR1, before)

    def _end_forgotten(self, main: int, number: int) -> None:
        """End the loop of a round if it has forgotten its task, which did not begin, or is not gone on with."""
        waits = getattr(self.task, "_fut_waiter", None)
        if number == self.number and (waits is None or waits.done()):
            signal.pthread_kill(main, signal.SIGUSR1)

    async def _uses(self, *, cancelling: bool) -> None:
        self.task = task = asyncio.current_task()
        if cancelling:
            loop = asyncio.get_running_loop()
            assert task is not None
            self.interrupter.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        async with aio.open(self.path, timeout=LOCK_SECONDS * 2) as store:
            for shift in (0, 1):
                changes = self._changes(2, shift)
                self.tried = changes
                if self.rng.random() < 0.5:
                    await store["c"].update(changes)
                else:
                    async with store.transaction() as txn:
                        async for _ in txn["c"].items():
                            break
                        for key, value in changes.items():
                            txn.put("c", key, value)
                self.there |= changes
            async with store.snapshot() as view:
                async for _ in view["c"].items():
                    break

    def _look(self, error: BaseException | None) -> None:
        """Whatever became of the loop: the file is as it was, or as it should become; no lock stayed behind."""
        with sqlstate.open(self.path, timeout=LOCK_SECONDS) as store:
            made = self._compare(dict(store["c"].items()), error or SoftLimit())
            if error is not None:
                expect(not (said(error).nothing and made), f"a note is wrong: {_told(error)}")
            self.number += 1
            refused = look(store, self.number, outside=self.number % OUTSIDE_EVERY == 0).refused
            expect(not refused, f"BROKEN: a handle that was opened after is refused: {refused}")


# ---- Words ----


def _check_kind(error: BaseException) -> None:
    """What comes out is what the handler raised, or an error of ours."""
    _never_damaged(error)
    if isinstance(error, Miss):
        raise error
    known = isinstance(error, KeyboardInterrupt | SoftLimit | sqlstate.StoreError | asyncio.CancelledError)
    expect(known, f"LEAK: {_told(error)}")


def _never_damaged(error: BaseException) -> None:
    seen: BaseException | None = error
    while seen is not None:
        expect(not isinstance(seen, sqlstate.Damaged), f"FALSE DAMAGE: {seen}")
        seen = seen.__cause__ or seen.__context__


def _told(error: BaseException) -> str:
    """Return an exception with its notes, and where it was raised."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{place} {Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} {getattr(error, '__notes__', [])} at{place}"


def _differing(found: dict[Any, Any], old: dict[Any, Any], tried: dict[Any, Any]) -> str:
    return str({key: (found.get(key), old.get(key), tried.get(key)) for key in old if found.get(key) != old[key]})


# ---- The campaign ----


def one(case: str) -> Result:
    """Run a case."""
    watched.patience(SECONDS)
    watched.thrown = (KeyboardInterrupt, SoftLimit)
    result = Result()
    kind, _, where_, _, _ = case.split("-")
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-signals-", dir=scratch() if where_ == "memory" else None))
    life: Life | None = None
    try:
        life = (Loops if kind == "aio" else Life)(case, folder, result)
        life.run()
    except Miss as e:
        result.miss(case, f"{case}: {e}")
    finally:
        if life is not None:
            result.runs = life.interrupter.delivered
        shutil.rmtree(folder, ignore_errors=True)
    return result


def cases(plan: Plan) -> list[str]:
    """Return the cases of a plan: the kinds share the signals; each is sent both kinds, in memory and on disk."""
    if plan.case:
        return [plan.case]
    each = plan.count // len(KINDS)
    found = []
    for kind in KINDS:
        number = max(2, -(-each // SIGNALS_OF_A_CASE))
        for i in range(number):
            place = "disk" if i % 4 >= 2 else "memory"
            found.append(f"{kind}-{HOWS[i % 2]}-{place}-{plan.seed + i}-{each // number}")
    return found


@campaign(17, "signals whose handlers raise", bar="0 broken, hanging, false Damaged", ci=300, long=60_000)
def signals(plan: Plan) -> Result:
    """Interrupt work on stores; the count is of signals that raised while there was work."""
    result = spread_watched(plan, one, cases(plan), CASE_SECONDS)
    result.found = f"{result.counts['failures']} broken; {figures(result, 'refused', 'told of a commit', 'forgotten')}"
    return result
