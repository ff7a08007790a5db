"""Group commit: transactions of many threads run one after the other, and share one COMMIT.

What is to be written comes as a request. A thread of the store's own, the *writer*, takes all requests that
wait, runs them one after the other, makes one commit of them, and only then answers each. No timer is needed:
while SQLite syncs one group, the next gathers. Handing the connection from thread to thread for each
transaction would cost more than the transaction (flat combining: Hendler, Incze, Shavit, Tzafrir, SPAA 2010).

A block of `with store.transaction()` keeps its own thread. It waits for its turn, and leaves its transaction
in a group that is still open to the next block in line or to the writer, who commits it.

Whoever finds nobody at work or waiting does without all that: then a write costs what it costs alone.
"""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections import deque
from concurrent import futures
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlstate.commit import Commit
from sqlstate.errors import Busy, Damaged, StoreClosed, StoreError, StoreIOError, StoreUnusable
from sqlstate.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.commit import Writer
    from sqlstate.encoding import Name, Stored
    from sqlstate.wal import Head

T = TypeVar("T")

GROUP_SIZE: Final = 1000
GROUP_WAIT: Final = 0.01
# The writer's thread ends when it had nothing to do for so long; the next request starts it again.
IDLE_SECONDS: Final = 1.0
# How often the writer lets other threads run before it takes it that nothing more comes.
YIELDS: Final = 4


class Request:
    """Something to be written. The writer sets its outcome, and then calls resolve() once."""

    __slots__ = ("asked", "error", "head", "result")

    asked: float
    """When it came, by time.monotonic()."""
    error: BaseException | None
    """Why it has no effect, or why that is not known; None if it is durable."""
    head: Head | None
    """The commit that carries it, None if it changed nothing."""
    result: Any

    def __init__(self) -> None:
        self.asked = 0.0
        self.error = None
        self.head = None
        self.result = None

    def resolve(self) -> None:
        """Tell whoever waits; runs in the writer's thread, in the order of commits."""
        raise NotImplementedError


class _Waited:
    """A request whose thread waits for it."""

    __slots__ = ()

    _done: threading.Lock
    error: BaseException | None
    result: Any

    def resolve(self) -> None:
        """Let the thread go on."""
        self._done.release()

    def wait(self) -> Any:
        """Wait for the outcome: return the result, or raise the error."""
        self._done.acquire()
        if self.error is not None:
            raise self.error
        return self.result


class _Put(_Waited, Request):
    """One entry to be put, in a transaction of its own."""

    __slots__ = ("_done", "name", "stored")

    def __init__(self, name: Name, stored: Stored) -> None:
        super().__init__()
        self._done = _locked()
        self.name = name
        self.stored = stored


class _Barrier(_Waited, Request):
    """Nothing to be written: it waits for what came before."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        super().__init__()
        self._done = _locked()


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


class Call(Request):
    """A function to be called with a transaction of its own.

    Args:
        work: what is called, once, with the transaction; its result is the request's.
        note: text for the log, checked by the caller.
    """

    __slots__ = ("_right", "note", "work")

    def __init__(self, work: Callable[[Transaction], Any], note: str = "") -> None:
        super().__init__()
        self.work = work
        self.note = note
        self._right = deque((True,))  # to begin or to withdraw it: whoever pops it has it

    def begin(self) -> bool:
        """Tell whether it is to be called; it cannot be withdrawn from now on."""
        return self._claim()

    def withdraw(self) -> bool:
        """Tell whether it had not begun, and now never will; resolve() is not called then."""
        return self._claim()

    def _claim(self) -> bool:
        try:
            return self._right.pop()
        except IndexError:
            return False


class _WaitedCall(_Waited, Call):
    """A call whose thread waits for it."""

    __slots__ = ("_done",)

    def __init__(self, work: Callable[[Transaction], Any], note: str) -> None:
        super().__init__(work, note)
        self._done = _locked()


class Future(futures.Future[T], Generic[T]):
    """What `store.submit()` promises: the function's result, once it is durable.

    A `concurrent.futures.Future`: result(), exception(), cancel(), add_done_callback(). It can be cancelled until
    the function begins. Its outcomes are three: a result, which is durable; an exception, and nothing was changed;
    CommitOutcomeUnknown, and `store.committed(error)` of a handle opened since can tell.
    """

    head: Head | None = None
    """The commit that carries it, once it is done; None if it changed nothing."""


class _FutureCall(Call):
    __slots__ = ("future",)

    def __init__(self, work: Callable[[Transaction], Any], note: str, future: Future[Any]) -> None:
        super().__init__(work, note)
        self.future = future

    def begin(self) -> bool:
        return self.future.set_running_or_notify_cancel()

    def resolve(self) -> None:
        self.future.head = self.head
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class _Group:
    """The transactions of one commit in the making."""

    __slots__ = ("began", "commit", "done", "requests")

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self.began = time.monotonic()
        self.requests: list[Request] = []
        """Those that have ended in it, in order."""
        self.done: list[Request] = []
        """Those whose outcome is known, to be resolved once the connection is free."""


class GroupCommit:
    """Runs the requests of one store.

    Args:
        writer: of the store.
        enter: called with a transaction while its function runs in the writer's thread, and with None after it.
        size: the most transactions in one commit; 1 shares none.
        wait: seconds after which a commit takes no more transactions.
    """

    def __init__(self, writer: Writer, enter: Callable[[Transaction | None], None], size: int, wait: float) -> None:
        self._writer = writer
        self._engine = writer.engine
        self._engine.before_turn = self._settle
        self._enter = enter
        self._size = size
        self._wait = wait
        self._queue: deque[Request] = deque()
        self._open: _Group | None = None  # a group that waits for more blocks, or the writer
        self._mutex = threading.Lock()
        self._bell = _locked()
        self._thread = 0  # of the writer; 0 if it is not running
        self._working = False  # it will look at the queue again before it sleeps
        self._idle: threading.Event | None = None  # set when the writer finds nothing to do
        self._closed = False
        self._expected = 0  # requests in the newest group: most of those who made them come back at once

    @property
    def shares(self) -> bool:
        """Whether a commit can carry several transactions."""
        return self._size > 1

    # How writes come in.

    def put(self, name: Name, stored: Stored) -> None:
        """Put one entry durably, in a transaction of its own."""
        if self._alone():
            try:
                self._writer.put(name, stored)
            finally:
                self._engine.unlock_writer()
            return
        request = _Put(name, stored)
        self.enqueue(request)
        request.wait()

    def run(self, work: Callable[[Transaction], T], note: str = "") -> T:
        """Return what *work* returns of a transaction of its own, once it is durable."""
        if self._is_free():
            with self.block(note) as txn:
                return work(txn)
        request = _WaitedCall(work, note)
        self.enqueue(request)
        result: T = request.wait()
        return result

    def submit(self, work: Callable[[Transaction], T], note: str = "") -> Future[T]:
        """Have *work* called in its turn, and return at once."""
        future: Future[T] = Future()
        self.enqueue(_FutureCall(work, note, future))
        return future

    def barrier(self) -> None:
        """Wait until all that was asked for before is done."""
        if self._is_writer():
            raise StoreUnusable(
                f"{self._engine.path}: barrier() was called in the store's own thread, which it would wait for"
            )
        request = _Barrier()
        self.enqueue(request)
        request.wait()

    def enqueue(self, request: Request) -> None:
        """Have the writer see to *request*.

        Raises:
            StoreUnusable, ReadOnly: the store takes no writes.
        """
        self._engine.check_writable()
        request.asked = time.monotonic()
        with self._mutex:
            if self._closed:
                raise StoreClosed(f"{self._engine.path}: the store is closed")
            self._queue.append(request)
            try:
                self._wake()
            except RuntimeError:  # no thread can be begun: at the end of the interpreter, or of what a user may have
                self._queue.remove(request)
                raise

    @contextmanager
    def block(self, note: str) -> Iterator[Transaction]:
        """Return a block in this thread that is a transaction: part of the open group, if there is one."""
        engine = self._engine
        alone = not self.shares or self._is_writer()  # in a callback of a future: nobody else would commit it
        engine.lock_writer(joining=not alone)
        group, request = None, None
        try:
            group = self._join()
            txn = Transaction(self._writer, note, group.commit)
            self._enter(txn)
            try:
                yield txn
            except BaseException:
                self._enter(None)
                txn.abandon()
                raise
            self._enter(None)
            if alone or not (group.requests or engine.turn.wanted or self._queue):
                group = None
                txn.finish()
            elif txn.end():
                request = _Barrier()
                group.requests.append(request)
        finally:
            self._enter(None)
            if group is not None and group.requests:
                self._leave_open(group)
            elif group is not None:
                group.commit.roll_back()
            engine.unlock_writer()
        if request is not None:
            request.wait()

    def close(self, timeout: float) -> None:
        """Take no more requests, and wait until all that came are done.

        Raises:
            Busy: they were not in time; it takes requests again.
        """
        if not self._engine.usable or self._is_writer():
            return
        with self._mutex:
            self._closed = True
            idle = self._idle = self._idle or threading.Event()
            if not self._thread:
                return
            if not self._working:
                self._working = True
                self._bell.release()
        if not idle.wait(timeout):
            with self._mutex:
                self._closed = False
            raise Busy(
                f"{self._engine.path}: what was submitted was not done within {timeout:g} s; the store is still open. "
                "Try again"
            )

    def reopen(self) -> None:
        """Take requests again: the store could not be closed."""
        with self._mutex:
            self._closed = False

    # What the calling thread does.

    def _is_writer(self) -> bool:
        """Tell whether this is the writer's thread, which must not wait for itself."""
        return threading.get_ident() == self._thread

    def _is_free(self) -> bool:
        """Tell whether this thread need not let the writer do its work: nobody is at work, or there is no sharing."""
        if not self.shares or self._is_writer():
            return True
        return not (self._working or self._queue or self._engine.turn.owner)

    def _alone(self) -> bool:
        """Take the connection, if this thread need not let the writer do its work."""
        if not self._is_free():
            return False
        self._engine.lock_writer()
        return True

    def _join(self) -> _Group:
        """Return the group to go on with; the caller holds the writer's lock."""
        group, self._open = self._open, None
        if group is not None and not self._takes_more(group):
            self._finish(group)
            self._resolve(group.done)
            group = None
        return group or self._begin()

    def _begin(self) -> _Group:
        return _Group(Commit(self._writer))

    def _takes_more(self, group: _Group) -> bool:
        return len(group.requests) < self._size and time.monotonic() - group.began < self._wait

    def _leave_open(self, group: _Group) -> None:
        """Leave the group to the next block in line, or to the writer."""
        self._open = group
        try:
            with self._mutex:
                self._wake()
        except RuntimeError:  # no thread can be begun, and nobody else may come
            self._settle()

    def _settle(self) -> None:
        """Commit the group that was left open: who has the lock now wants the connection for something else."""
        group, self._open = self._open, None
        if group is not None:
            self._finish(group)
            self._resolve(group.done)

    # What the writer does.

    def _wake(self) -> None:
        """See that the writer works; the caller holds the mutex."""
        if self._working:
            return
        self._working = True
        if self._thread:
            self._bell.release()
            return
        thread = threading.Thread(target=self._work, name=f"sqlstate {self._engine.path}", daemon=True)
        self._thread = -1
        try:
            thread.start()
        except RuntimeError:
            self._thread, self._working = 0, False
            raise

    def _work(self) -> None:
        self._thread = threading.get_ident()
        while self._rest():
            self._serve()
            if not self._queue and self._expected > 1:
                self._gather()

    def _rest(self) -> bool:
        """Sleep until there is something to do; False if there was nothing for long, or the store is being closed."""
        while True:
            with self._mutex:
                if self._queue or self._open is not None:
                    return True
                self._working = False
                if self._idle is not None:
                    self._idle.set()
                    self._idle = None
                if self._closed:
                    self._thread = 0
                    return False
            if not self._bell.acquire(timeout=IDLE_SECONDS):
                with self._mutex:
                    if not self._working:
                        self._thread = 0
                        return False
                self._bell.acquire()  # it rang at the last moment

    def _serve(self) -> None:
        """Make one commit of what waits, as far as the limits allow, and answer."""
        turn, queue = self._engine.turn, self._queue
        patience = self._engine.timeout
        if queue:
            patience = max(0.001, patience - (time.monotonic() - queue[0].asked))
        if not turn.take(patience):
            self._give_up()
            return
        group = None
        done: list[Request] = []
        try:
            group, self._open = self._open, None
            if not self._engine.usable:
                done, group = self._refused(group), None
                return
            waiting = len(queue)
            try:
                group = group or self._begin()
            except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
                done = _refuse([queue.popleft() for _ in range(waiting)], e)
                return
            try:
                self._fill(group)
            except BaseException as e:  # noqa: BLE001, as above
                group.commit.failure = e
            self._expected = len(group.requests)
            self._finish(group)
        finally:
            turn.give()
            self._resolve(done if group is None else group.done)

    def _fill(self, group: _Group) -> None:
        """Run what waits, and what comes meanwhile, until the group takes no more."""
        queue, now = self._queue, time.monotonic()
        waited = self._engine.counters.waited
        puts: dict[Name, _Put] = {}
        while True:
            while queue and group.commit.failure is None and len(group.requests) + len(puts) < self._size:
                request = queue.popleft()
                waited(max(0.0, now - request.asked))
                if type(request) is _Put:
                    if request.name in puts:
                        self._add_puts(group, puts)
                    puts[request.name] = request
                    continue
                self._add_puts(group, puts)
                if isinstance(request, Call):
                    self._call(group, request)
                    if not self._takes_more(group):
                        break
                else:
                    group.requests.append(request)
            self._add_puts(group, puts)
            now = time.monotonic()
            if group.commit.failure is not None or not self._takes_more(group):
                return
            if not queue and (len(group.requests) >= self._expected or not self._gather()):
                return

    def _gather(self) -> bool:
        """Let the threads that were answered a moment ago run; tell whether one of them came back."""
        for _ in range(YIELDS):
            time.sleep(0)
            if self._queue:
                return True
        return False

    def _add_puts(self, group: _Group, puts: dict[Name, _Put]) -> None:
        """Add *puts*, and forget them."""
        if not puts:
            return
        try:
            self._begin_again(group)
            group.commit.add_puts({name: request.stored for name, request in puts.items()})
            group.requests += puts.values()
        except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
            if group.commit.failure is not None and group.commit.transactions:
                group.requests += puts.values()  # carried together with those before them: _finish() tells them apart
            else:
                group.done += [_failed(request, e) for request in puts.values()]
        puts.clear()

    def _begin_again(self, group: _Group) -> None:
        """Begin the group's commit anew if its first transaction failed, and took the beginning with it."""
        if group.commit.transactions or self._writer.engine.writer.in_transaction():
            return
        try:
            group.commit = Commit(self._writer)
        except BaseException as e:
            group.commit.failure = e  # the others shall not wait as long one after the other
            raise

    def _call(self, group: _Group, request: Call) -> None:
        """Call a function with a transaction in the group."""
        if not request.begin():
            return
        txn = None
        try:
            self._begin_again(group)
            txn = Transaction(self._writer, request.note, group.commit)
            self._enter(txn)
            request.result = request.work(txn)
            self._enter(None)
            request.head = group.commit.base if txn.end() else None
            group.requests.append(request)
        except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
            self._enter(None)
            request.error = e
            group.done.append(request)
            if txn is not None:
                with suppress(StoreError):  # then nothing of the group can be committed: the others are told
                    txn.abandon()

    def _finish(self, group: _Group) -> None:
        """Commit the group, and give each of its requests its outcome."""
        commit, requests = group.commit, group.requests
        error: BaseException | None = None
        try:
            if commit.transactions or self._engine.writer.in_transaction():  # else what was in it failed, all of it
                commit.finish()
        except StoreIOError as e:
            # What is durable is durable: that the handle refuses further work is the next caller's news.
            error = None if e.durable else e
        except Damaged as e:
            if any(type(request) is not _Put for request in requests):
                error = e
            else:
                self._put_one_by_one(group)
                return
        except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
            error = e
        for request in requests:
            if error is not None:
                _failed(request, error)
            elif type(request) is _Put or request.head is not None:
                request.head = commit.head
        group.done += requests

    def _put_one_by_one(self, group: _Group) -> None:
        """Put the group's entries again, each in a commit of its own: a damaged one must not fail the others."""
        for request in group.requests:
            assert isinstance(request, _Put)  # noqa: S101, the caller made sure
            try:
                request.head = self._writer.put(request.name, request.stored)
            except BaseException as e:  # noqa: BLE001, it is delivered to who waits
                _failed(request, e)
            group.done.append(request)

    def _resolve(self, requests: list[Request]) -> None:
        for request in requests:
            try:
                request.resolve()
            except BaseException:  # noqa: BLE001, a callback's: the others must be told all the same
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _give_up(self) -> None:
        """Tell those who waited for the whole timeout that another thread's transaction was in the way."""
        until = time.monotonic() - self._engine.timeout
        late = []
        while self._queue and self._queue[0].asked <= until:
            late.append(self._queue.popleft())
        self._resolve(_refuse(late, Busy(self._engine.busy_message())))

    def _refused(self, group: _Group | None) -> list[Request]:
        """Return all that waits, with the reason why the store takes no more."""
        waiting = list(self._queue)
        self._queue.clear()
        try:
            self._engine.check_usable()
        except StoreError as e:
            return [_failed(request, e) for request in (group.requests if group else [])] + _refuse(waiting, e)
        return waiting


def _refuse(requests: list[Request], error: BaseException) -> list[Request]:
    """Return those of *requests*, none of which had begun, that were not withdrawn, with *error*."""
    return [_failed(request, error) for request in requests if not isinstance(request, Call) or request.begin()]


def _failed(request: Request, error: BaseException) -> Request:
    """Return *request*, with an error of its own: threads that raise one and the same would mix their tracebacks."""
    request.head = None
    try:
        request.error = copy.copy(error)
    except Exception:  # noqa: BLE001, somebody's exception that cannot be copied
        request.error = error
    else:
        request.error.__cause__ = error.__cause__
    return request
