"""Campaign 18: an exception at every line of the package that a small piece of work runs, one at a time.

Method: sys.settrace counts the lines of sqlstate that the work executes, in all its threads. Each run then raises at
one of them, once: KeyboardInterrupt, MemoryError, or an exception that nobody knows. The exception object is kept,
so its traceback keeps every frame alive. What the handle does then is looked at as aftermath.py says; every future
must be answered, close() must end, and the file must be sound and hold what was acknowledged.

A line is finer than what a signal can hit, and coarser than an opcode: cases of the kind `op` raise at opcodes.

A case is `WORK:ERROR:KIND:N`, for example `put:KeyboardInterrupt:line:120`.
"""

from __future__ import annotations

import gc
import itertools
import logging
import random
import shutil
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

import sqlstate
from sqlstate import aio
from tests.crash import watched
from tests.crash.aftermath import ended, entries, leftovers, look, other, said
from tests.crash.campaign import Miss, Plan, Result, campaign, expect, figures
from tests.crash.watched import scratch, spread_watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

PACKAGE: Final = str(Path(sqlstate.__file__).parent)
SECONDS: Final = 20
AT_ONCE: Final = 40
OPCODE_SHARE: Final = 50
"""In the long run, of how many events one is an opcode's."""
OPTIONS: Final[dict[str, Any]] = {"timeout": 2.0}


class Unheard(BaseException):
    """An exception that nobody knows."""


ERRORS: Final[dict[str, type[BaseException]]] = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "MemoryError": MemoryError,
    "Unheard": Unheard,
}


# ---- Raising ----


class Tracer:
    """Counts what the package executes, and raises at one place.

    Args:
        error: what to raise.
        at: the number of the event at which it is raised, from 1 on; 0 only counts.
        opcodes: count opcodes instead of lines.
    """

    def __init__(self, error: type[BaseException], at: int, *, opcodes: bool = False) -> None:
        self.active = False
        self.place = ""
        self.thread: threading.Thread | None = None
        self.count = 0
        self._numbers = itertools.count(1)
        self._error = error
        self._at = at
        self._event = "opcode" if opcodes else "line"

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace this thread, and all that it begins."""
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.active = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is executed from here on; a thread whose tracing ended with an exception is traced again."""
        self.active = True
        try:
            yield
        finally:
            self.active = False

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if self._event == "opcode":
            frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == self._event and self.active:
            number = next(self._numbers)
            self.count = number
            if number == self._at:
                self.active = False
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
                self.thread = threading.current_thread()
                raise self._error("raised by the campaign")
        return self._step


# ---- Work ----


class Work:
    """A store, what is done with it, and what may be there after.

    Args:
        path: of the store, which is not there yet.
        tracer: says when to raise.
        options: of `sqlstate.open`.
    """

    def __init__(self, path: Path, tracer: Tracer, options: dict[str, Any]) -> None:
        self.path = path
        self.tracer = tracer
        self.options = OPTIONS | options
        self.store: sqlstate.Store | None = None
        self.there: dict[Any, Any] = {}
        """What was acknowledged; None for an entry that was deleted."""
        self.tried: list[dict[Any, Any]] = []
        """What is in doubt: each is there as a whole, or not at all."""
        self.futures: list[tuple[Any, dict[Any, Any]]] = []
        self.closing = False
        self.raised: BaseException | None = None

    def open(self) -> sqlstate.Store:
        self.store = sqlstate.open(self.path, **self.options)
        return self.store

    def fill(self) -> sqlstate.Store:
        """Open it, with a few entries."""
        store = self.open()
        with self.trying({i: i for i in range(20)}):
            store["c"].update({i: i for i in range(20)})
        return store

    @contextmanager
    def trying(self, changes: dict[Any, Any]) -> Iterator[None]:
        """The block tries these changes, and acknowledges them by its end."""
        self.tried.append(changes)
        yield
        self.tried.remove(changes)
        self.there |= changes

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.tracer.counting():
            yield


def nothing(work: Work) -> Callable[[], None]:
    """Open a store that is there."""
    work.fill().close()
    work.store = None

    def opens() -> None:
        with work.counted():
            work.open()

    return opens


def create(work: Work) -> Callable[[], None]:
    def opens() -> None:
        with work.counted():
            work.open()

    return opens


def put(work: Work) -> Callable[[], None]:
    store = work.fill()

    def puts() -> None:
        for value in ("first", "second"):
            with work.trying({1: value}), work.counted():
                store["c"][1] = value

    return puts


def same(work: Work) -> Callable[[], None]:
    store = work.fill()

    def puts() -> None:
        with work.trying({1: 1}), work.counted():
            store["c"][1] = 1

    return puts


def delete(work: Work) -> Callable[[], None]:
    store = work.fill()

    def deletes() -> None:
        with work.trying({1: None}), work.counted():
            del store["c"][1]

    return deletes


def several(work: Work) -> Callable[[], None]:
    store = work.fill()

    def writes() -> None:
        with work.trying({1: "a", 2: None, 30: [1]}), work.counted(), store.transaction(note="three") as txn:
            txn.put("c", 1, "a")
            txn.delete("c", 2)
            txn["c"][30] = [1]
            len(txn["c"])

    return writes


def nested(work: Work) -> Callable[[], None]:
    store = work.fill()

    def writes() -> None:
        with work.trying({1: "outer", 2: "inner"}), work.counted(), store.transaction() as txn:
            txn.put("c", 1, "outer")
            with store.transaction() as inner:
                inner.put("c", 2, "inner")
            with suppress(LookupError), store.transaction() as inner:
                inner.put("c", 3, "undone")
                raise LookupError

    return writes


def failing(work: Work) -> Callable[[], None]:
    """A transaction that undoes itself."""
    store = work.fill()

    def writes() -> None:
        with work.counted(), suppress(LookupError), store.transaction() as txn:
            txn.put("c", 1, "undone")
            next(iter(txn["c"]))
            raise LookupError

    return writes


def batch(work: Work) -> Callable[[], None]:
    store = work.fill()

    def writes() -> None:
        with work.counted(), store.batch() as block:
            with work.trying({1: "a", 2: "b"}):
                block.put("c", 1, "a")
                block["c"][2] = "b"
                block.flush()
            work.tried.append({3: "c"})
            with block.transaction() as txn:
                txn.put("c", 3, "c")
        work.there |= work.tried.pop()

    return writes


def staged(work: Work) -> Callable[[], None]:
    store = work.fill()

    def writes() -> None:
        with work.trying({1: "draft", 2: None}), work.counted():
            draft = store.stage(note="draft")
            draft.put("c", 1, "draft")
            draft.delete("c", 2)
            draft.commit()

    return writes


def rolled_back(work: Work) -> Callable[[], None]:
    store = work.fill()

    def writes() -> None:
        with work.counted(), suppress(LookupError), store.stage() as draft:
            draft.put("c", 1, "undone")
            raise LookupError

    return writes


def scans(work: Work) -> Callable[[], None]:
    store = work.fill()

    def reads() -> None:
        with work.counted():
            with store.snapshot() as view:
                expect(len(dict(view["c"].items())) == 20, "a scan lacks entries")
            list(store["c"].values(limit=5))
            list(store.commits())

    return reads


def left(work: Work) -> Callable[[], None]:
    """Scans that are left early."""
    store = work.fill()

    def reads() -> None:
        with work.counted():
            for _ in store["c"].items():
                break
            with store.snapshot() as view:
                rows = iter(view["c"])
                next(rows)
            with store.transaction() as txn:
                kept = iter(txn["c"])
                next(kept)
            del rows, kept
            gc.collect()
            store["c"].get(1)

    return reads


def group(work: Work) -> Callable[[], None]:
    store = work.fill()

    def ask(changes: dict[Any, Any], txn: sqlstate.Transaction) -> int:
        for key, value in changes.items():
            txn.put("c", key, value)
        return 7

    def writes() -> None:
        with work.counted():
            for i in range(3):
                changes = {100 + i: "submitted", 200 + i: "submitted"}
                work.tried.append(changes)
                work.futures.append((store.submit(partial(ask, changes)), changes))
            with work.trying({1: "run"}):
                expect(store.run(partial(ask, {1: "run"})) == 7, "run() gave something else")
            with work.trying({2: "put"}):
                store["c"][2] = "put"
            store.barrier()

    return writes


def history(work: Work) -> Callable[[], None]:
    store = work.fill()
    store["c"][1] = "newer"
    work.there[1] = "newer"

    def reads() -> None:
        with work.counted():
            store.prove("c", 1)
            store.prove_range("c", limit=3)
            store.prove_commit(1)
            store.prove_consistency(1)
            list(store.audit())
            list(store.wal.read())
            store.stats()

    return reads


def undone(work: Work) -> Callable[[], None]:
    store = work.fill()
    store["c"].update({1: "newer", 2: "newer"})
    seq = store.head().seq

    def writes() -> None:
        with work.counted():
            with work.trying({1: 1, 2: 2}):
                undo = store.undo(seq)
            with work.trying({1: "newer", 2: "newer"}):
                store.undo(undo.seq)
            with work.trying({1: 1, 2: 2}):
                store.revert(seq - 1)

    work.there |= {1: "newer", 2: "newer"}
    return writes


def merged(work: Work) -> Callable[[], None]:
    """A merge of a copy, whose collision a function decides."""
    store = work.fill()
    store.backup(work.path.with_name("copy.db"))
    with sqlstate.open(work.path.with_name("copy.db")) as copy:
        copy["c"].update({1: "theirs", 2: "theirs"})
    store["c"][1] = "ours"
    work.there[1] = "ours"

    def writes() -> None:
        with (
            sqlstate.open(work.path.with_name("copy.db"), read_only=True) as copy,
            work.trying({1: ["ours", "theirs"], 2: "theirs"}),
            work.counted(),
        ):
            sqlstate.merge(store, copy, prefer=lambda each: [each.ours, each.theirs])

    return writes


def looks_back(work: Work) -> Callable[[], None]:
    """Changes, views of the past and differences, some of them left early."""
    store = work.fill()
    store["c"][1] = "newer"
    work.there[1] = "newer"

    def reads() -> None:
        with work.counted():
            next(store.changes())
            expect(len(list(store.changes())) == 21, "changes are missing")
            expect(len(list(store["c"].history(1))) == 2, "the history of an entry lacks a change")
            with store.at(1) as past:
                expect(dict(past["c"]) == {i: i for i in range(20)}, "STALE: the past shows something else")
                next(iter(past["c"].items()))
                expect([each.b for each in sqlstate.diff(past, store)] == ["newer"], "a difference is missing")
                next(sqlstate.diff(past, store))
            dropped = store.at(0)
            del dropped
            store["c"].get(1)

    return reads


def backup(work: Work) -> Callable[[], None]:
    store = work.fill()

    def copies() -> None:
        with work.counted():
            store.backup(work.path.with_name("copy.db"))

    return copies


def indexed(work: Work) -> Callable[[], None]:
    """The index for histories is made and dropped."""
    store = work.fill()

    def makes() -> None:
        with work.counted():
            store.index_history()
            store.index_history(drop=True)

    return makes


def compact(work: Work) -> Callable[[], None]:
    store = work.fill()

    def compacts() -> None:
        with work.counted():
            store.compact()

    return compacts


def check(work: Work) -> Callable[[], None]:
    store = work.fill()

    def checks() -> None:
        with work.counted():
            expect(store.check().outcome != "damaged", "FALSE DAMAGE: check() calls the store damaged")

    return checks


def close(work: Work) -> Callable[[], None]:
    store = work.fill()

    def closes() -> None:
        work.closing = True
        with work.counted():
            store.close()

    return closes


def tasks(work: Work) -> Callable[[], None]:
    """A store of an event loop, opened, used and closed."""
    work.fill().close()
    work.store = None

    async def uses() -> None:
        async with aio.open(work.path, timeout=2.0) as store:
            with work.trying({1: "put"}):
                await store.put("c", 1, "put")
            changes = {2: "submitted"}
            work.tried.append(changes)
            ticket = store.submit(lambda txn: txn.put("c", 2, "submitted"))
            with work.trying({3: "transaction", 4: None}):
                async with store.transaction() as txn:
                    async for _ in txn["c"].items():
                        break
                    txn.put("c", 3, "transaction")
                    txn.delete("c", 4)
            async with store.snapshot() as view:
                async for _ in view["c"].items():
                    break
            await store.barrier()
            await ticket
            work.tried.remove(changes)
            work.there |= changes

    def runs() -> None:
        with work.counted():
            anyio.run(uses)

    return runs


GROUP: Final[dict[str, Any]] = {"mode": "group"}
DELETE: Final[dict[str, Any]] = {"journal": "delete"}
WORK: Final[dict[str, tuple[Callable[[Work], Callable[[], None]], dict[str, Any]]]] = {
    "open": (nothing, {}),
    "create": (create, {}),
    "put": (put, {}),
    "put-delete": (put, DELETE),
    "put-group": (put, GROUP),
    "same": (same, {}),
    "delete": (delete, {}),
    "several": (several, {}),
    "several-group": (several, GROUP),
    "nested": (nested, {}),
    "failing": (failing, {}),
    "batch": (batch, {}),
    "batch-group": (batch, GROUP),
    "staged": (staged, {}),
    "rolled-back": (rolled_back, {}),
    "scans": (scans, {}),
    "left": (left, {}),
    "submit": (group, {}),
    "group": (group, GROUP),
    "history": (history, {}),
    "undone": (undone, {}),
    "undone-group": (undone, GROUP),
    "merged": (merged, {}),
    "looks-back": (looks_back, {}),
    "backup": (backup, {}),
    "indexed": (indexed, {}),
    "indexed-delete": (indexed, DELETE),
    "compact": (compact, {}),
    "compact-group": (compact, GROUP),
    "check": (check, {}),
    "tasks": (tasks, {}),
    "close": (close, {}),
    "close-group": (close, GROUP),
}


# ---- One run ----


def run(name: str, tracer: Tracer, folder: Path) -> Work:
    """Do a piece of work; what the tracer raises is kept."""
    make, options = WORK[name]
    work = Work(folder / "store.db", tracer, options)
    with tracer.tracing():
        does = make(work)
        try:
            does()
        except Miss:
            raise
        except BaseException as e:  # noqa: BLE001, it is what this is about
            work.raised = e
    return work


def events(name: str, kind: str) -> int:
    """Return how many events a piece of work has."""
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-lines-", dir=scratch()))
    tracer = Tracer(Unheard, 0, opcodes=kind == "op")
    try:
        work = run(name, tracer, folder)
        if work.raised is not None:
            raise work.raised
        if work.store is not None:
            work.store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return tracer.count


def counts_of(case: str) -> Result:
    """Return how many events each kind of event has in a piece of work, as counts."""
    name, _, kind, _ = case.split(":")
    result = Result(runs=1)
    result.counts[case] = events(name, kind)
    return result


def one(case: str) -> Result:
    """Run a case."""
    watched.thrown = tuple(ERRORS.values())
    logging.disable()  # what was raised in a callback of an event loop is told by asyncio too
    name, error, kind, at = case.split(":")
    result = Result(runs=1)
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-lines-", dir=scratch()))
    tracer = Tracer(ERRORS[error], int(at), opcodes=kind == "op")
    try:
        work = run(name, tracer, folder)
        result.counts["raised" if tracer.place else "not reached"] += 1
        judge(work, result)
    except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
        text = str(e) if isinstance(e, Miss) else f"{type(e).__name__}: {e}"
        result.miss(case, f"{case} ({tracer.place}): {text}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def judge(work: Work, result: Result) -> None:
    """Look at a store after the work."""
    error = work.raised
    _judge_error(work)
    store = work.store
    if store is not None:
        refused = _use(work, store, result)
        ended(store, refused=bool(refused))
        store.close()  # a second time does nothing
    else:
        other().writes(work.path, "after an open that failed")
        with sqlstate.open(work.path, **work.options) as again:
            look(again, 1)
    made = said(error) if error is not None else None
    work.raised = error = None
    work.store = store = None
    gc.collect()
    other().writes(work.path, "at the end")
    expect(not leftovers(work.path), f"beside the store are left: {leftovers(work.path)}")
    there = entries(work.path, "c")
    if made is not None and made.nothing:
        expect(not any(_holds(there, each) for each in work.tried), "a note says that nothing was changed, and it is")
    if made is not None and made.made is not None:
        expect(any(_holds(there, each) for each in work.tried), f"a note says that commit {made.made} was made")
    _compare(there, work)


def _use(work: Work, store: sqlstate.Store, result: Result) -> str:
    """Use the handle and another one; return how it says that it is of no use."""
    refused = look(store, 1).refused
    result.counts["refused"] += bool(refused) and not work.closing
    with sqlstate.open(work.path, **work.options) as again:
        expect(not look(again, 2, outside=False).refused, "BROKEN: another handle of this process is refused")
    for future, changes in work.futures:
        try:
            future.result(timeout=5)
        except TimeoutError:
            if not future.done():
                raise Miss("UNANSWERED: a future is not answered") from None
        except BaseException as e:  # noqa: BLE001, an answer
            expect(not isinstance(e, sqlstate.Damaged), f"FALSE DAMAGE: a future says {e}")
        else:
            work.tried.remove(changes)
            work.there |= changes
    return refused


def _judge_error(work: Work) -> None:
    """What came out is what was raised, or an error of ours that tells of it, and never damage."""
    e, tracer = work.raised, work.tracer
    if e is None:
        return
    expect(tracer.place, f"nothing was raised, and out came {type(e).__name__}: {e}")
    seen: BaseException | None = e
    while seen is not None:
        expect(not isinstance(seen, sqlstate.Damaged), f"FALSE DAMAGE: {seen}")
        seen = seen.__cause__ or seen.__context__
    known = isinstance(e, (tracer._error, sqlstate.StoreError))
    expect(known, f"LEAK: {type(e).__name__}: {e}")


def _holds(there: dict[Any, Any], changes: dict[Any, Any]) -> bool:
    return all(there.get(key) == value for key, value in changes.items())


def _compare(there: dict[Any, Any], work: Work) -> None:
    """What is there is what was acknowledged, and of what was tried each whole or not at all."""
    wanted = dict(work.there)
    for changes in work.tried:
        if _holds(there, changes):
            wanted |= changes
    wanted = {key: value for key, value in wanted.items() if value is not None}
    expect(there == wanted, f"LOST or MIXED: there is {_short(there, wanted)}, must be {_short(wanted, there)}")


def _short(one_: dict[Any, Any], other_: dict[Any, Any]) -> str:
    return str({key: value for key, value in one_.items() if other_.get(key, other_) != value})


# ---- The campaign ----


def cases(plan: Plan) -> list[str]:
    """Return the cases of a plan: of each piece of work so many events, or all, if there are no more.

    Which they are, the seed fixes.
    """
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    found = []
    kinds = ("line", "op") if plan.long else ("line",)
    asked = [f"{name}::{kind}:" for name in WORK for kind in kinds]
    counted = spread_watched(plan, counts_of, asked, SECONDS, AT_ONCE)
    if counted.failures:
        raise Miss(f"the work does not run: {counted.failures[0].what}")
    for each in asked:
        name, _, kind, _ = each.split(":")
        total = counted.counts[each]
        most = plan.count if kind == "line" else plan.count // OPCODE_SHARE
        numbers = range(1, total + 1)
        chosen = numbers if total <= most else sorted(rng.sample(numbers, most))
        found += [f"{name}:{rng.choice(list(ERRORS))}:{kind}:{number}" for number in chosen]
    return found


@campaign(18, "an exception at any line", bar="0 broken, hanging, false Damaged", ci=8, long=100_000)
def lines(plan: Plan) -> Result:
    """Raise at lines, in the long run at every one, and at opcodes; the count is of lines of each piece of work."""
    result = spread_watched(plan, one, [plan.case] if plan.case else cases(plan), SECONDS, AT_ONCE)
    result.found = f"{result.counts['failures']} broken; {figures(result, 'raised', 'refused')}"
    return result
