"""Goal: what submit() promises comes true once, in order, and only when it is durable; nothing that a caller does with
a future or in a callback stops the store's own thread; and many threads at once lose nothing. Method: the test holds
the writing connection, or a function that runs, so that it decides what happens before what."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import Busy, Future, Store, StoreClosed, StoreForked, StoreUnusable, Transaction, TransactionEnded
from sqlstate.commit import committer, own_thread
from sqlstate.commit.future import FutureCall
from sqlstate.commit.requests import WaitedCall, WaitedSingle
from sqlstate.store.blocks import on_face
from tests.reference import plain
from tests.support.calls import Asked
from tests.support.lines import PATIENCE, Threads, be_patient, held, line_of_requests, line_of_turns, logged, sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import OpenStore

MODES = ("full", "group")


@pytest.fixture(params=MODES)
def store(request: pytest.FixtureRequest, open_store: OpenStore) -> Store:
    return open_store(mode=request.param, timeout=PATIENCE, group_wait=PATIENCE)


def add(txn: Transaction) -> int:
    value = int(txn.get("c", "n", 0)) + 1
    txn.put("c", "n", value)
    return value


def nothing(txn: Transaction) -> None:
    """Change nothing."""


class Running:
    """A function that is begun, and goes on when told so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, txn: Transaction) -> str:
        txn.put("c", "running", 1)
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return "done"


@contextmanager
def running(store: Store) -> Iterator[Future[str]]:
    """Have a function run in the store's thread during the block."""
    work = Running()
    future = store.submit(work)
    assert work.begun.wait(PATIENCE)
    try:
        yield future
    finally:
        work.go.set()
    assert future.result(PATIENCE) == "done"


# ---- What a future says ----


def test_a_future_gives_the_result_and_the_commit(store: Store) -> None:
    result = object()
    with held(store):
        future = store.submit(lambda txn: (txn.put("c", "k", 1), result)[1], "note")
        assert isinstance(future, Future)
        assert (future.done(), future.running(), future.cancelled(), future.head) == (False, False, False, None)
    assert future.result(PATIENCE) is result
    assert (future.done(), future.head) == (True, store.head())
    assert store.head().seq == store.durable == 1
    assert logged(store)[0].note == "note"


def test_a_future_of_nothing_changed_has_no_commit(store: Store) -> None:
    future = store.submit(lambda txn: txn.get("c", "none", "default"))
    assert (future.result(PATIENCE), future.head, store.durable) == ("default", None, 0)


class Uncopied(Exception):
    """Cannot be made from its arguments again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize(
    "error", [ValueError("x"), Uncopied(1, 2), KeyboardInterrupt(), SystemExit(3), BaseException()]
)
def test_an_exception_is_delivered_and_nothing_changed(store: Store, error: BaseException) -> None:
    def work(txn: Transaction) -> None:
        add(txn)
        raise error

    future = store.submit(work)
    assert future.exception(PATIENCE) is error
    assert (future.head, store.durable) == (None, 0)
    with pytest.raises(type(error)):
        store.run(work)
    assert store.submit(add).result(PATIENCE) == 1


def test_a_future_is_done_only_when_it_is_durable(store: Store) -> None:
    """In the function of the next, the one before has run, and is not promised yet if they share a commit."""
    seen: list[Any] = []
    with held(store):
        first = store.submit(add)
        second = store.submit(lambda txn: seen.append((first.done(), store.durable)))
    second.result(PATIENCE)
    assert seen in ([(False, 0)], [(True, 1)])
    assert seen == [(False, 0)] or store._group.committer.open.size == 1


def test_one_that_is_cancelled_before_it_begins_never_runs(store: Store) -> None:
    ran: list[int] = []
    with held(store):
        futures = [store.submit(lambda txn, i=i: (ran.append(i), txn.put("c", i, i))) for i in range(4)]  # type: ignore[misc]
        assert [futures[i].cancel() for i in (0, 2)] == [True, True]
    assert futures[3].result(PATIENCE)
    store.barrier()
    assert ran == [1, 3]
    assert dict(store["c"]) == {1: 1, 3: 3}
    assert [future.cancelled() for future in futures] == [True, False, True, False]
    with pytest.raises(CancelledError):
        futures[0].result(PATIENCE)


def test_one_that_has_begun_cannot_be_cancelled(store: Store) -> None:
    with running(store) as future:
        assert (future.running(), future.cancel(), future.cancelled()) == (True, False, False)
    assert future.cancel() is False
    assert store["c"]["running"] == 1


def test_waiting_for_one_with_a_timeout_leaves_it_be(store: Store) -> None:
    with running(store) as future, pytest.raises(TimeoutError):
        future.result(0)


def test_a_call_can_be_withdrawn_until_it_begins(store: Store) -> None:
    """What the asynchronous face is built on."""
    ran: list[str] = []
    with held(store):
        calls = [Asked(lambda txn, name=name: ran.append(name)) for name in "ab"]  # type: ignore[misc]
        for call in calls:
            store._entries.enqueue(call)
        assert (calls[0].withdraw(), calls[0].withdraw()) == (True, True)
    store.barrier()
    assert ran == ["b"]
    assert calls[1].withdraw() is False


def test_barrier_waits_for_all_that_was_submitted_before(store: Store) -> None:
    with held(store):
        futures = [store.submit(add) for _ in range(20)]
    head = store.barrier()
    assert all(future.done() for future in futures)
    assert head == store.head()
    assert store["c"]["n"] == 20


def test_a_barrier_does_not_wait_for_what_comes_after(store: Store) -> None:
    line = line_of_requests(store)
    heads: list[Any] = []
    with Threads() as threads:
        with held(store):
            store.submit(add)
            threads.start(lambda: heads.append(store.barrier()))
            line.came(2)
        threads.__exit__()
        with running(store):
            assert heads == [store.head()]


def test_a_barrier_on_an_idle_store_changes_nothing(path: Path) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
    before = path.read_bytes()
    with sqlstate.open(path) as store:
        assert store.barrier().seq == 1
    assert path.read_bytes() == before


def test_durable_is_the_newest_commit_of_all_handles(store: Store, open_store: OpenStore) -> None:
    other = open_store(store.path)
    assert (store.durable, other.durable) == (0, 0)
    store["c"][1] = 1
    other["c"][2] = 2
    assert store.durable == other.durable == store.head().seq == 2


# ---- Order ----


def test_acknowledgement_comes_in_the_order_of_commits(open_store: OpenStore) -> None:
    store = open_store(mode="group", group_size=3, timeout=PATIENCE, group_wait=PATIENCE)
    told: list[int] = []
    with held(store):
        futures = [store.submit(add) for _ in range(10)]
        for future in futures:
            future.add_done_callback(lambda done: told.append(done.head.seq))  # type: ignore[attr-defined]
    store.barrier()
    assert told == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert sizes(store) == [3, 3, 3, 1]
    assert [future.result() for future in futures] == list(range(1, 11))


def test_submitted_functions_run_in_the_order_of_submission(store: Store) -> None:
    futures = [store.submit(add) for _ in range(200)]
    assert [future.result(PATIENCE) for future in futures] == list(range(1, 201))
    heads = [future.head.seq for future in futures if future.head]
    assert (len(heads), heads) == (200, sorted(heads))


# ---- Callbacks ----


def in_callback(store: Store, work: Callable[[], Any]) -> Any:
    """Return what *work* returns when a future calls it, while another request waits for the store's thread."""
    found: list[Any] = []
    told = threading.Event()

    def callback(_: object) -> None:
        try:
            store.submit(add)
            found.append(work())
        except BaseException as e:  # noqa: BLE001, the test raises it
            found.append(e)
        told.set()

    with held(store):
        store.submit(add).add_done_callback(callback)
    assert told.wait(PATIENCE)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def transact(store: Store, key: Any, value: Any) -> int:
    with store.transaction() as txn:
        txn.put("c", key, value)
    return store.durable


WRITES: dict[str, Callable[[Store], Any]] = {
    "a put": lambda store: store["c"].__setitem__("k", 1),
    "a block": lambda store: transact(store, "k", 1),
    "run()": lambda store: store.run(lambda txn: txn.put("c", "k", 1)),
    "update()": lambda store: store["c"].update({"k": 1}),
    "setdefault()": lambda store: store["c"].setdefault("k", 1),
    "a staged transaction": lambda store: staged(store),
    "a batch": lambda store: batched(store),
}


def staged(store: Store) -> None:
    with store.stage() as txn:
        txn.put("c", "k", 1)


def batched(store: Store) -> None:
    with store.batch() as batch:
        batch.put("c", "k", 1)


@pytest.mark.parametrize("write", WRITES)
def test_a_callback_can_write(store: Store, write: str) -> None:
    def work() -> Any:
        WRITES[write](store)
        return store["c"]["k"], store.durable

    value, durable = in_callback(store, work)
    assert (value, durable) == (1, 2)
    assert store.barrier().seq == 3
    assert dict(store["c"]) == {"n": 2, "k": 1}


def test_a_callback_can_write_while_a_block_waits_to_be_committed(open_store: OpenStore) -> None:
    """Another thread left its transaction to the store's thread, which is in the callback."""
    store = open_store(mode="group", timeout=PATIENCE, group_wait=PATIENCE)
    left, wait = threading.Event(), store._group._await

    def note(request: Any) -> None:
        left.set()
        wait(request)

    store._group._await = note  # type: ignore[method-assign]
    with Threads() as threads:

        def work() -> int:
            threads.start(partial(transact, store, "block", 1))
            assert left.wait(PATIENCE)
            return transact(store, "callback", 1)

        assert in_callback(store, work) == 3
    store.barrier()
    assert dict(store["c"]) == {"block": 1, "callback": 1, "n": 2}


def test_a_callback_can_submit_and_read(store: Store) -> None:
    futures: list[Future[int]] = []

    def work() -> Any:
        futures.extend(store.submit(add) for _ in range(3))
        return dict(store["c"]), [future.done() for future in futures]

    assert in_callback(store, work) == ({"n": 1}, [False] * 3)
    assert [future.result(PATIENCE) for future in futures] == [3, 4, 5]


def test_a_barrier_in_a_callback_is_refused_since_it_would_wait_for_itself(store: Store) -> None:
    with pytest.raises(StoreUnusable, match="own thread"):
        in_callback(store, store.barrier)
    assert store.barrier().count == 1


def test_a_callback_can_close_the_store(path: Path) -> None:
    for mode in MODES:
        store = sqlstate.open(path, mode=mode, timeout=PATIENCE)  # type: ignore[arg-type]
        behind: list[Future[int]] = []

        def close(store: Store = store, behind: list[Future[int]] = behind) -> None:
            behind.append(store.submit(add))
            store.close()

        in_callback(store, close)
        assert isinstance(behind[0].exception(PATIENCE), StoreClosed)
        with pytest.raises(StoreClosed):
            store.submit(add)
        store.close()
    assert [file.name for file in path.parent.iterdir()] == ["test.db"]
    assert plain.judge(path).seq == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, BaseException])
def test_an_exception_in_a_callback_harms_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: said.append(args.exc_type))

    def callback(_: object) -> None:
        raise error("in a callback")

    with held(store):
        futures = [store.submit(add) for _ in range(5)]
        futures[1].add_done_callback(callback)
    assert [future.result(PATIENCE) for future in futures] == [1, 2, 3, 4, 5]
    assert store.barrier().count == 1
    assert store.run(add) == 6
    logged_errors = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert said + logged_errors == [error]


def test_a_future_that_the_caller_sets_harms_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    with held(store):
        futures = [store.submit(add) for _ in range(3)]
        futures[0].set_result(4711)
    assert futures[2].result(PATIENCE) in (2, 3)
    assert store.barrier().count == 1


# ---- Inside the function ----


def test_the_store_inside_the_function_is_part_of_its_transaction(store: Store) -> None:
    def work(txn: Transaction) -> Any:
        store["c"]["a"] = 1
        store["c"].update({"b": 2, "d": 4})
        store.run(lambda inner: inner.delete("c", "b"))
        with pytest.raises(ValueError, match="undone"), store.transaction() as nested:
            nested["c"].clear()
            raise ValueError("undone")
        return dict(txn["c"]), len(store["c"]), store.collections(), store.durable

    future = store.submit(work, "one")
    assert future.result(PATIENCE) == ({"a": 1, "d": 4}, 2, ["c"], 0)
    assert sizes(store) == [1]
    assert [each.note for each in logged(store)] == ["one"]


def test_what_would_wait_for_itself_inside_the_function_is_refused(store: Store) -> None:
    def work(txn: Transaction) -> None:
        for act in (
            lambda: store.submit(add), store.barrier, store.close, lambda: store.batch().__enter__(), store.stage,
            lambda: store._record("check", {}),
        ):  # fmt: skip
            with pytest.raises(StoreUnusable):
                act()
        txn.put("c", "k", 1)

    store.submit(work).result(PATIENCE)
    assert dict(store["c"]) == {"k": 1}


def test_the_transaction_ends_with_the_function(store: Store) -> None:
    txn = store.submit(lambda txn: txn).result(PATIENCE)
    with pytest.raises(TransactionEnded):
        txn.put("c", "k", 1)
    scan = store.submit(lambda txn: iter(txn["c"])).result(PATIENCE)
    with pytest.raises(TransactionEnded):
        list(scan)
    assert store.submit(add).result(PATIENCE) == 1


@pytest.mark.parametrize("opened", ["transaction", "batch"])
def test_submitting_and_waiting_inside_a_transaction_or_batch_is_refused(store: Store, opened: str) -> None:
    with getattr(store, opened)() as inside:
        inside.put("c", 1, 1)
        for act in (lambda: store.submit(add), store.barrier, lambda: store._entries.enqueue(Asked(nothing))):
            with pytest.raises(StoreUnusable, match="leave its block"):
                act()
    assert dict(store["c"]) == {1: 1}


def test_run_inside_a_transaction_or_batch_is_part_of_it(store: Store) -> None:
    with store.transaction("outer") as txn:
        assert store.run(add) == 1
        with pytest.raises(sqlstate.InvalidOption, match="outermost"):
            store.run(add, "inner")
        assert txn.get("c", "n") == 1
        assert store.durable == 0
    assert (store["c"]["n"], store.durable) == (1, 1)


# ---- Closing ----


def test_closing_waits_for_what_was_submitted(path: Path) -> None:
    for mode in MODES:
        store = sqlstate.open(path, mode=mode, timeout=PATIENCE)  # type: ignore[arg-type]
        turns = line_of_turns(store)
        closed: list[int] = []
        with Threads() as threads, held(store):
            futures = [store.submit(add) for _ in range(10)]
            turns.came()
            threads.start(lambda: (store.close(), closed.append(1)))  # noqa: B023, they end in this round
            assert closed == []
        assert all(future.exception(0) is None for future in futures)
        with pytest.raises(StoreClosed):
            store.submit(add)
    assert [file.name for file in path.parent.iterdir()] == ["test.db"]
    with sqlstate.open(path) as store:
        assert store["c"]["n"] == 20


@pytest.mark.parametrize("mode", MODES)
def test_closing_while_a_function_runs_for_long_is_busy_and_the_store_stays_open(
    open_store: OpenStore, mode: str
) -> None:
    store = open_store(mode=mode, timeout=0.01)
    with running(store) as future:
        for _ in range(2):
            with pytest.raises(Busy, match="still open"):
                store.close()
        assert not future.done()
        be_patient(store)
    assert store.run(add) == 1
    assert store.submit(add).result(PATIENCE) == 2
    store.close()
    with pytest.raises(StoreClosed):
        store.submit(add)


@pytest.mark.parametrize("mode", MODES)
def test_closing_while_another_thread_has_a_block_is_busy_and_the_store_stays_open(
    open_store: OpenStore, mode: str
) -> None:
    store = open_store(mode=mode, timeout=0.01)
    with held(store), Threads() as threads:

        def refused() -> None:
            with pytest.raises(Busy):
                store.close()

        threads.start(refused)
    be_patient(store)
    assert store.submit(add).result(PATIENCE) == 1
    assert store.run(add) == 2


def test_a_store_that_is_dropped_ends_its_thread_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_thread, "IDLE_SECONDS", 0.001)
    store = sqlstate.open(path, mode="group")
    thread = store.submit(lambda _: threading.current_thread()).result(PATIENCE)
    dropped = weakref.ref(store)
    del store
    thread.join(PATIENCE)
    assert not thread.is_alive()
    gc.collect()
    assert dropped() is None


def test_a_thread_that_ended_for_want_of_work_is_begun_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_thread, "IDLE_SECONDS", 0.0001)
    for number in range(1, 31):
        assert store.submit(add).result(PATIENCE) == number
        if number % 3 == 0:
            for thread in threading.enumerate():
                if thread.name == f"sqlstate {store.path}":
                    thread.join(PATIENCE)
    assert store.durable == 30


def test_where_no_thread_can_be_begun_the_call_says_so_and_the_store_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the interpreter, or at the limit of a user's processes."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for call in (lambda: store.submit(add), store.barrier):
            with pytest.raises(RuntimeError, match="start new thread"):
                call()
        assert store.run(add) == 1
        store["c"]["k"] = 1
    assert store.submit(add).result(PATIENCE) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("at_work", [False, True])
def test_the_child_of_a_fork_is_refused_and_the_parent_goes_on(store: Store, at_work: bool) -> None:
    def use() -> set[str]:
        found = set()
        for act in (
            lambda: store.submit(add), lambda: store.run(add), store.barrier, lambda: store.durable,
            lambda: store.batch().__enter__(), lambda: store["c"].__setitem__("k", 1),
        ):  # fmt: skip
            try:
                act()
            except sqlstate.StoreError as e:
                found.add(type(e).__name__)
            else:
                found.add("nothing")
        store.close()
        return found

    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if use() == {StoreForked.__name__} else 1)
            finally:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert store.submit(add).result(PATIENCE) == 1
    if at_work:
        with running(store):
            behind = store.submit(add)
            assert fork() == 0
        assert behind.result(PATIENCE) == 2
    else:
        assert fork() == 0
        assert store.submit(add).result(PATIENCE) == 2
    assert store.run(add) == 3


# ---- Many threads ----


def test_threads_that_tell_at_once_tell_each_one_and_nobody_twice(store: Store) -> None:
    """Who finishes what another left open tells of it, while the store's own thread may be telling too."""
    answers, called = store._group.committer.answers, []
    for _ in range(30):
        promised: list[Future[Any]] = [Future() for _ in range(50)]
        for number, future in enumerate(promised):
            future.add_done_callback(lambda _, number=number: called.append(number))  # type: ignore[misc]
            request = FutureCall(add, "", future)
            request.begin()
            request.result = number
            answers.add([request])
        with Threads() as threads:
            for _ in range(4):
                threads.start(answers.deliver)
        assert [future.result(PATIENCE) for future in promised] == list(range(50))
        assert sorted(called) == list(range(50))
        called.clear()


def test_a_thread_that_has_the_connection_leaves_callbacks_to_the_store_s_own(store: Store) -> None:
    """A callback may write, which would be refused in a thread that is about to."""
    told: list[str] = []
    future: Future[Any] = Future()
    future.add_done_callback(lambda _: told.append(threading.current_thread().name))
    request = FutureCall(add, "", future)
    request.begin()
    store._group.committer.answers.add([request])
    with store._group.writing():
        store._group.committer.answers.deliver_to_threads()
        assert future.result(PATIENCE) is None
    store.barrier()
    assert told == [f"sqlstate {store.path}"]


def increment(store: Store) -> None:
    with store.transaction() as txn:
        add(txn)


def move(store: Store, key: str) -> None:
    """Take it out, or put it back: the number of both is the number of calls."""
    if store["moved"].pop(key, None) is None:
        store["moved"].setdefault(key, 1)


@pytest.mark.parametrize("size", [1000, 5])
@pytest.mark.parametrize("mode", MODES)
def test_sixteen_threads_lose_nothing(open_store: OpenStore, mode: str, size: int) -> None:
    store = open_store(mode=mode, group_size=size, timeout=PATIENCE)
    ways: list[Callable[[], object]] = [
        lambda: store.run(add),
        lambda: increment(store),
        lambda: store.submit(add).result(PATIENCE),
        lambda: batch_add(store),
    ]
    rounds, seqs, interval = 6, [], sys.getswitchinterval()

    def write(number: int) -> None:
        mine = []
        for each in range(rounds):
            ways[(number + each) % 4]()
            mine.append(store.durable)
            store["puts"][number * 1000 + each] = each
            mine.append(store.durable)
            move(store, f"{number}")
            with pytest.raises(ZeroDivisionError), store.transaction() as txn:
                add(txn)
                txn["puts"].clear()
                raise ZeroDivisionError
        seqs.append(mine)

    sys.setswitchinterval(1e-4)
    try:
        with Threads() as threads:
            for number in range(16):
                threads.start(partial(write, number))
    finally:
        sys.setswitchinterval(interval)
    assert store["c"]["n"] == 16 * rounds
    assert dict(store["puts"]) == {number * 1000 + each: each for number in range(16) for each in range(rounds)}
    assert "moved" not in store
    assert len(seqs) == 16
    for mine in seqs:
        assert mine == sorted(set(mine)), "a commit was acknowledged before one that came before it"
    transactions = 16 * rounds * 3
    assert len(logged(store)) == store.stats().counters.transactions == transactions
    if mode == "full":
        assert sizes(store) == [1] * transactions
    else:
        assert max(sizes(store)) <= size


def batch_add(store: Store) -> None:
    with store.batch() as batch:
        batch._entries.run(on_face(add))


def test_each_thread_reads_what_it_wrote(open_store: OpenStore) -> None:
    """What a call acknowledged is seen by the next reader, of whatever thread and handle."""
    store = open_store(mode="group", timeout=PATIENCE)
    other = open_store(store.path)

    def write(number: int) -> None:
        for each in range(20):
            store["c"][number] = each
            assert store["c"][number] == each
            assert other["c"][number] == each

    with Threads() as threads:
        for number in range(8):
            threads.start(partial(write, number))
    assert dict(store["c"]) == dict.fromkeys(range(8), 19)


# ---- Waking, and waiting for those who were woken ----


def test_threads_wake_each_other_and_one_that_does_not_holds_up_nobody() -> None:
    """One that an exception kept from waking the next is passed by: the next looks for itself."""
    first, second, third = (WaitedCall(nothing, "") for _ in range(3))
    first.waker.wake([first, second, third])
    assert second.answered(0)  # nobody has woken it: it looked
    assert first._done.acquire(timeout=0)
    assert third._done.acquire(timeout=PATIENCE)  # the second has woken it
    for request in (first, second, third):
        assert request.answered(0)
        assert request._following is None  # nothing keeps the requests of others


def test_a_thread_that_is_interrupted_when_it_is_woken_leaves_the_others_their_outcome(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(mode="group", timeout=PATIENCE, group_wait=PATIENCE)
    line = line_of_requests(store)
    monkeypatch.setattr(WaitedSingle, "call", lambda request: None)  # no thread is woken by another
    with Threads() as threads, held(store):
        for number in range(5):
            threads.start(partial(store["c"].__setitem__, number, number))
            line.came()
    assert dict(store["c"]) == {number: number for number in range(5)}
    assert sizes(store) == [5]


def test_the_next_group_waits_for_those_who_were_just_answered(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With endless patience: so a group is as large as the one before, however slow the machine is."""
    monkeypatch.setattr(committer, "PATIENCE", 1e9)
    store = open_store(mode="group", timeout=PATIENCE, group_wait=PATIENCE)
    line = line_of_requests(store)

    def write(number: int) -> None:
        for each in range(6):
            store["c"][number] = each

    with Threads() as threads:
        with held(store):
            for number in range(4):
                threads.start(partial(write, number))
                line.came()
        line.came(4 * 5)
    assert sizes(store) == [4] * 6
    with Threads() as threads:  # who does not come back is not waited for once the store is closed, or has other work
        threads.start(partial(transact, store, "block", 1))
    assert store["c"]["block"] == 1


def test_closing_does_not_wait_for_those_who_do_not_come_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "PATIENCE", 1e9)
    store = sqlstate.open(path, mode="group", timeout=PATIENCE, group_wait=PATIENCE)
    began = time.monotonic()
    line = line_of_requests(store)
    with Threads() as threads, held(store):
        for number in range(3):
            threads.start(partial(store["c"].__setitem__, number, number))
            line.came()
    store.close()
    assert time.monotonic() - began < PATIENCE / 2


def test_nobody_is_waited_for_after_submitted_functions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who submits need not wait, and comes when it likes."""
    monkeypatch.setattr(committer, "PATIENCE", 1e9)
    with sqlstate.open(path, mode="group", timeout=PATIENCE, group_wait=PATIENCE) as store:
        began = time.monotonic()
        with held(store):
            futures = [store.submit(add) for _ in range(3)]
        assert [future.result(PATIENCE) for future in futures] == [1, 2, 3]
        assert store.submit(add).result(PATIENCE) == 4
        assert time.monotonic() - began < PATIENCE / 2
