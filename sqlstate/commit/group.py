"""Group commit: transactions of many threads run one after the other, and share one COMMIT.

What is to be written comes as a request. A thread of the store's own, the *writer*, takes all requests that
wait, runs them one after the other, makes one commit of them, and only then answers each. No timer is needed:
while SQLite syncs one group, the next gathers. Handing the connection from thread to thread for each
transaction would cost more than the transaction (flat combining: Hendler, Incze, Shavit, Tzafrir, SPAA 2010).

A block of `with store.transaction()` keeps its own thread. It waits for its turn, and leaves its transaction
in a group that is still open to the next block in line or to the writer, who commits it.

Whoever finds nobody at work or waiting does without all that: then a write costs what it costs alone.

Every request is answered, whatever is raised wherever: what was taken from the queue stands in the open group, and what
has an outcome in a queue of its own. Who waits sees now and then that the writer lives; and whoever gets the writing
connection next asks SQLite what became of a group that was cut short.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlstate.commit import own_thread
from sqlstate.commit.commit import Commit
from sqlstate.commit.own_thread import OwnThread
from sqlstate.commit.requests import (
    LOOK_SECONDS,
    Barrier,
    Call,
    Ended,
    Future,
    FutureCall,
    Group,
    Put,
    Request,
    Running,
    Waited,
    WaitedCall,
    failed,
)
from sqlstate.commit.single_put import put_one
from sqlstate.errors import Busy, Damaged, StoreClosed, StoreError, StoreIOError, StoreUnusable
from sqlstate.sqlite.blocks import Block
from sqlstate.tables import wal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Name, Stored
    from sqlstate.sqlite.blocks import Over

T = TypeVar("T")
X = TypeVar("X", bound=Running)

GROUP_SIZE: Final = 1000
GROUP_WAIT: Final = 0.01
# How often the writer lets other threads run before it takes it that nothing more comes.
YIELDS: Final = 4


class GroupCommit(Generic[X]):
    """Runs the requests of one store.

    Args:
        writer: of the store.
        transaction: makes a transaction of the store, of what is to commit it.
        size: the most transactions in one commit; 1 shares none.
        wait: seconds after which a commit takes no more transactions.
    """

    def __init__(
        self, writer: WriteContext, transaction: Callable[[WriteContext, str, Commit, Over], X], size: int, wait: float
    ) -> None:
        self.writer = writer
        self.transaction = transaction
        self.own = writer.own
        self._engine = writer.engine
        self._engine.before_turn = weakref.WeakMethod(self._settle)
        self._size = size
        self._wait = wait
        self._queue: deque[Request] = deque()
        self._open: Group | None = None  # a group in the making: whoever has the writing connection goes on with it
        self._done: deque[Request] = deque()  # what has its outcome, and was not told yet
        self._thread = OwnThread(f"sqlstate {self._engine.path}", self.work, self._has_work)
        self._closed = False
        self._expected = 0  # requests in the newest group: most of those who made them come back at once
        own_thread.drain_at_end(self)

    @property
    def shares(self) -> bool:
        """Whether a commit can carry several transactions."""
        return self._size > 1

    # How writes come in.

    def put(self, name: Name, stored: Stored) -> None:
        """Put one entry durably, in a transaction of its own."""
        self.writer.nothing_made()
        try:
            if not self.is_free():
                self._ask(Put(name, stored))
                return
            with self._engine.writing():
                put_one(self.writer, name, stored)
        except BaseException as e:
            self.writer.tell(e)
            raise

    def run(self, work: Callable[[X], T], note: str = "") -> T:
        """Return what *work* returns of a transaction of its own, once it is durable. The writer calls it."""
        result: T = self._ask(WaitedCall(work, note))
        return result

    def submit(self, work: Callable[[X], T], note: str = "") -> Future[T]:
        """Have *work* called in its turn, and return at once."""
        future: Future[T] = Future(weakref.WeakMethod(self.look_after))
        self.enqueue(FutureCall(work, note, future))
        return future

    def barrier(self) -> None:
        """Wait until all that was asked for before is done."""
        if self._is_writer():
            raise StoreUnusable(
                f"{self._engine.path}: barrier() was called in the store's own thread, which it would wait for"
            )
        self._ask(Barrier())

    def enqueue(self, request: Request) -> None:
        """Have the writer see to *request*.

        Raises:
            StoreUnusable, ReadOnly: the store takes no writes.
        """
        self._engine.life.check_writable()
        if self._closed:
            raise StoreClosed(f"{self._engine.path}: the store is closed")
        if own_thread.ending():
            raise StoreUnusable(
                f"{self._engine.path}: the interpreter is ending, and the store's own thread with it; nothing was "
                "changed. Write in a `with store.transaction()` block, or earlier"
            )
        request.asked = time.monotonic()
        try:
            self._queue.append(request)
            self._thread.wake()
        except BaseException:  # such as RuntimeError: no thread can be begun, of what a user may have
            if request.withdraw():
                with suppress(ValueError):  # the writer took it out
                    self._queue.remove(request)
            raise

    def _ask(self, request: Put | Barrier | WaitedCall) -> Any:
        """Have the writer see to *request*, wait for its outcome: return the result, or raise the error."""
        try:
            self.enqueue(request)
            self._await(request)
            if request.head is not None:
                self.writer.made(request.head)
        except StoreError:
            raise
        except BaseException as e:  # KeyboardInterrupt
            self._explain(e, request)
            raise
        if request.error is not None:
            raise request.error
        return request.result

    def _await(self, request: Put | Barrier | WaitedCall) -> None:
        while not request.answered(LOOK_SECONDS):
            self.look_after()

    def _explain(self, error: BaseException, request: Put | Barrier | WaitedCall) -> None:
        """Say in a note of *error*, which ended the wait for *request*, what became of that."""
        if request.withdraw():
            error.add_note("sqlstate: the write was withdrawn before it began; nothing was changed")
            return
        self._await(request)
        if request.error is not None:
            error.add_note(f"sqlstate: the write failed: {request.error}")
        elif request.head is not None:
            error.add_note(f"sqlstate: commit {request.head.seq} was made before this exception, and is durable")

    def begin(self, note: str, over: Over) -> X:
        """Begin a transaction in this thread, for a block; part of the open group, if there is one.

        Raises:
            Busy, StoreUnusable, ReadOnly: as Engine.lock_writer().
        """
        alone = not self.shares or self._is_writer()  # in a callback of a future: nobody else would commit it
        self._engine.lock_writer(over, joining=not alone)
        try:
            group = self._take_open()
            if group is not None and not self._takes_more(group):
                self._finish(group, mine=False)
                self._have_told()
                group = None
            if group is None:
                self._engine.tidy_writer()
                group = self._open = Group(Commit(self.writer))
            group.running = txn = self.transaction(self.writer, note, group.commit, over)
            self.own.enter(txn, over)
        except BaseException:
            self._put_down(over)
            raise
        return txn

    def end(self, over: Over, txn: Running, *, keep: bool) -> None:
        """End the transaction of a block: make it durable, or undo it.

        Raises:
            Busy, StoreFull, Damaged, Conflict: nothing was changed.
            CommitOutcomeUnknown: the commit may or may not be there.
        """
        waits: Barrier | None = None
        try:
            try:
                waits = self._end(over, txn, keep=keep)
            finally:
                self._put_down(over)
            if waits is not None:
                self._await(waits)
        except StoreError:
            raise
        except BaseException as e:
            if self._engine.turn.has(over):  # it came before that was given on, and others would wait for us
                self._put_down(over)
            if (waits := waits or self._waiting_for(txn)) is not None:
                self._explain(e, waits)
            raise
        if waits is not None and waits.error is not None:
            raise waits.error

    def _end(self, over: Over, txn: Running, *, keep: bool) -> Barrier | None:
        """End the transaction; return what to wait for if others commit it, None if it has its outcome."""
        self.own.leave(over)
        group = self._open
        if not keep:
            txn.abandon()
        elif group is None or group.running is not txn:
            raise _cut_short(self._engine.path)
        elif not self.shares or self._is_writer() or not (group.requests or self._waited_for()):
            txn.finish()
            self._open = None
        else:
            before = group.commit.transactions
            waits = Ended(txn)
            group.requests.append(waits)
            try:
                if txn.end():
                    return waits
            finally:
                if group.commit.transactions == before:
                    group.requests.remove(waits)
        return None

    def _waiting_for(self, txn: Running) -> Barrier | None:
        """Return the request that stands for a transaction which ended in a group, if there is one."""
        group = self._open
        found = [*(group.requests if group is not None else ()), *self._done]
        return next((each for each in found if isinstance(each, Ended) and each.txn is txn), None)

    def close(self, timeout: float) -> None:
        """Take no more requests, and wait until all that came are done.

        A block of another thread is not waited for: the engine does so, in the line of those who want its turn.

        Raises:
            Busy: they were not in time; it takes requests again.
        """
        if not self._engine.usable or self._is_writer() or own_thread.ending():
            return
        self._closed = True
        until = time.monotonic() + timeout
        while self._queue or self._done or self._is_at_work():
            if time.monotonic() >= until:
                self._closed = False
                raise Busy(
                    f"{self._engine.path}: what was submitted was not done within {timeout:g} s; the store is still "
                    "open. Try again"
                )
            self.look_after()
            time.sleep(0.001)
        self._thread.ring()

    def reopen(self) -> None:
        """Take requests again: the store could not be closed."""
        self._closed = False

    def drain(self) -> None:
        """Wait until nothing is left to be done; at the end of the interpreter.

        A block that is still open then may never end. What shares its commit is waited for no longer than others wait.
        """
        until = time.monotonic() + self._engine.timeout
        while self._engine.usable and (self._has_work() or self._is_at_work()):
            if not self._queue and time.monotonic() >= until and self._is_another_s():
                return
            if not self._thread.alive:
                self.work()  # at this time, some versions of Python start no thread any more
            self.look_after()
            time.sleep(0.001)

    # What the calling thread does.

    def _is_writer(self) -> bool:
        """Tell whether this is the writer's thread, which must not wait for itself."""
        return self._thread.is_here()

    def is_free(self) -> bool:
        """Tell whether this thread need not let the writer do its work: nobody is at work, or there is no sharing."""
        if not self.shares or own_thread.ending() or self._is_writer():
            return True
        return not (self._queue or self._open is not None or self._engine.turn.owner or self._is_at_work())

    def _waited_for(self) -> bool:
        return bool(self._engine.turn.wanted or self._queue)

    def _is_another_s(self) -> bool:
        """Tell whether a block of another thread than the writer's has the turn."""
        return self._engine.turn.owner not in (0, self._thread.ident)

    def _has_work(self) -> bool:
        """Tell whether there is something that the writer must see to; a block that is alone in its group is not."""
        group = self._open
        return bool(self._queue or self._done or (group is not None and (group.requests or group.taken)))

    def _is_at_work(self) -> bool:
        return self._thread.busy and self._thread.alive

    def _takes_more(self, group: Group) -> bool:
        return len(group.requests) < self._size and time.monotonic() - group.began < self._wait

    def _put_down(self, over: Over) -> None:
        """Let the next have the writing connection: with the open group, if others are in it, or with nothing."""
        try:
            group = self._open
            if group is not None and group.running is not None and not group.running.ended:
                group.running.abandon()
            if group is not None:
                group.running = None
            if group is not None and not group.requests:
                self._open = None
                group.commit.roll_back()
            elif group is None:
                self._engine.tidy_writer()
        finally:
            self._engine.turn.give(over)
        if self._open is not None:
            with suppress(RuntimeError):  # no thread can be begun: those who wait try again
                self._thread.wake()

    def _settle(self) -> None:
        """Commit the group that was left open: who has the connection now wants it for something else."""
        group = self._take_open()
        if group is not None:
            self._finish(group, mine=False)
            self._have_told()

    def _take_open(self) -> Group | None:
        """Return the open group, if there is one, without what was cut short in it. The caller has the connection."""
        group = self._open
        if group is None:
            return None
        if group.taken or group.commit.head is not None:  # whoever was at it was cut short
            self._give_back(group, _cut_short(self._engine.path))
            return None
        running, group.running = group.running, None
        if running is not None and not running.ended:
            try:
                running.abandon()
            except StoreError as e:
                group.commit.failure = e
        if not group.requests:
            self._open = None
            group.commit.roll_back()
        return self._open

    # What the writer does.

    def look_after(self) -> None:
        """See that somebody is at work if there is work; for those who wait."""
        if self._queue or self._done or (self._open is not None and not self._engine.turn.owner):
            with suppress(RuntimeError):
                self._thread.wake()

    def work(self) -> bool:
        """Do all that there is to do, in the writer's thread; tell whether to wait for more."""
        self._thread.busy = True
        has_turn = True
        while self._has_work() and (has_turn or self._queue):  # whoever puts the open group down calls again
            self._tell()
            try:
                has_turn = self._serve()
            except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
                self._take_over(e)
            self._tell()
            if not self._queue and self._expected > 1:
                self._gather()
        self._thread.busy = False
        return not self._closed

    def _serve(self) -> bool:
        """Make one commit of what waits, as far as the limits allow; tell whether its turn came."""
        queue = self._queue
        patience = self._engine.timeout
        if queue:
            patience = max(0.001, patience - (time.monotonic() - queue[0].asked))
        with _Serving(self, patience) as has_turn:
            if not has_turn:
                self._give_up()
                return False
            if not self._engine.usable:
                self._refuse_all()
                return True
            waiting = len(queue)
            if self._take_open() is None and not waiting:
                return True
            if self._open is None:
                try:
                    self._engine.tidy_writer()
                    self._open = Group(Commit(self.writer))
                except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
                    self._answer([queue.popleft() for _ in range(waiting)], e)
                    return True
            group = self._open
            assert group is not None  # noqa: S101, for the type checker
            try:
                self._fill(group)
            except BaseException as e:  # noqa: BLE001, as above
                group.commit.failure = e
            self._expected = len(group.requests)
            self._finish(group)
        return True

    def _fill(self, group: Group) -> None:
        """Run what waits, and what comes meanwhile, until the group takes no more."""
        queue, now = self._queue, time.monotonic()
        waited = self._engine.counters.waited
        puts: dict[Name, Put] = {}
        while True:
            while queue and not group.commit.broken and len(group.requests) + len(puts) < self._size:
                group.taken.append(queue.popleft())
                request = group.taken[-1]
                if not request.begin():  # it was withdrawn
                    group.taken.pop()
                    continue
                waited(max(0.0, now - request.asked))
                if type(request) is Put:
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
            if group.commit.broken or not self._takes_more(group):
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

    def _add_puts(self, group: Group, puts: dict[Name, Put]) -> None:
        """Add *puts*, and forget them."""
        if not puts:
            return
        try:
            self._begin_again(group)
            group.commit.add_puts({name: request.stored for name, request in puts.items()})
            group.requests += puts.values()
        except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
            if group.commit.broken and group.commit.transactions:
                group.requests += puts.values()  # carried together with those before them: _finish() tells them apart
            else:
                for request in puts.values():
                    failed(request, e)
        puts.clear()

    def _begin_again(self, group: Group) -> None:
        """Begin the group's commit anew if its first transaction failed, and took the beginning with it."""
        if group.commit.is_open:
            return
        try:
            group.commit = Commit(self.writer)
        except BaseException as e:
            group.commit.failure = e  # the others shall not wait as long one after the other
            raise

    def _call(self, group: Group, request: Call) -> None:
        """Call a function with a transaction in the group."""
        try:
            with _Called(self, group, request) as txn:
                request.result = request.work(txn)
        except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
            request.error = e

    def _finish(self, group: Group, *, mine: bool = True) -> None:
        """Commit the group, and give each of its requests its outcome.

        Args:
            group: the open one.
            mine: this is the writer's thread; otherwise what is not ours is raised, once all have an outcome.
        """
        commit, requests = group.commit, group.requests
        error: BaseException | None = None
        try:
            if commit.is_open:  # else what was in it failed, all of it
                commit.finish()
        except StoreIOError as e:
            # What is durable is durable: that the handle refuses further work is the next caller's news.
            error = None if e.durable else e
        except Damaged as e:
            if any(type(request) is not Put for request in requests):
                error = e
            else:
                self._put_one_by_one(group)
                return
        except BaseException as e:
            ours = isinstance(e, StoreError)
            if ours or not self._was_made(commit):
                error = e if ours or (mine and isinstance(e, Exception)) else _cut_short(self._engine.path)
            if not (ours or mine):  # it was meant for this thread, which commits what is others'
                self._close_group(group, error)
                raise
        self._close_group(group, error)

    def _close_group(self, group: Group, error: BaseException | None) -> None:
        """Give each request of the group its outcome, and have it told."""
        for request in group.requests:
            if error is not None:
                failed(request, error)
            elif type(request) in (Put, Ended) or request.head is not None:
                request.head = group.commit.head
        self._hand_out(group, error)

    def _hand_out(self, group: Group, error: BaseException | None = None) -> None:
        """Have all who are in the group told: those that ended in it, and those that were taken and did not."""
        ended = set(map(id, group.requests))
        others = [request for request in group.taken if id(request) not in ended]
        for request in others:
            if request.error is None:
                failed(request, error or _cut_short(self._engine.path))
        self._done.extend(group.requests)
        self._done.extend(others)
        self._open = None

    def _was_made(self, commit: Commit) -> bool:
        """Tell whether a commit that was cut short is there. SQLite is asked: nothing else knows."""
        if commit.head is None or not self._engine.usable:
            return False
        with suppress(StoreError), self._engine.reading() as connection:
            made = wal.commit(connection, commit.head.seq)
            return made is not None and made.chain == commit.head.chain
        return False

    def _give_back(self, group: Group, error: BaseException) -> None:
        """End a group in which whoever was at it was cut short by *error*; the caller has the connection."""
        made = self._was_made(group.commit)
        if not made:
            group.commit.roll_back()
        self._close_group(group, None if made else error)

    def _take_over(self, error: BaseException) -> None:
        """Go on after *error* was raised where nothing should be: who waits in the group is told."""
        with _Serving(self, self._engine.timeout) as has_turn:
            group = self._open
            if has_turn and group is not None:
                self._give_back(group, error)
            else:
                threading.excepthook(
                    threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
                )

    def _put_one_by_one(self, group: Group) -> None:
        """Put the group's entries again, each in a commit of its own: a damaged one must not fail the others."""
        for request in group.requests:
            assert isinstance(request, Put)  # noqa: S101, the caller made sure
            try:
                request.head = put_one(self.writer, request.name, request.stored)
            except BaseException as e:  # noqa: BLE001, it is delivered to who waits
                failed(request, e)
        self._hand_out(group)

    def _have_told(self) -> None:
        """Have those told whose requests have an outcome; for a thread that has the writing connection.

        It lets threads go on by itself. A callback might write, which this thread cannot do now: that is the writer's.
        """
        if not self._tell(only=Waited):
            try:
                self._thread.wake()
            except RuntimeError:  # no thread can be begun
                self._tell()

    def _tell(self, *, only: type = Request) -> bool:
        """Tell those whose requests have an outcome, up to the first that is not of *only*; tell whether that is all.

        Several threads can be at it.
        """
        done = self._done
        while True:
            try:
                request = done[0]
            except IndexError:
                return True
            if not isinstance(request, only):
                return False
            try:
                request.resolve()
            except BaseException:  # noqa: BLE001, a callback's: the others must be told all the same
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
                with suppress(BaseException):  # if it came before the outcome was told
                    request.resolve()
            with suppress(ValueError):
                done.remove(request)

    def _give_up(self) -> None:
        """Tell those who waited for the whole timeout that another thread's transaction was in the way."""
        until = time.monotonic() - self._engine.timeout
        late = []
        while self._queue and self._queue[0].asked <= until:
            late.append(self._queue.popleft())
        self._answer(late, Busy(self._engine.busy_message()))

    def _refuse_all(self) -> None:
        """Tell all that wait the reason why the store takes no more."""
        group = self._open
        waiting = [*self._queue]
        self._queue.clear()
        error = self._engine.life.refusal()
        if group is not None:
            group.running = None
            self._close_group(group, error)
        self._answer(waiting, error)

    def _answer(self, requests: list[Request], error: BaseException) -> None:
        """Have *requests*, none of which had begun, that were not withdrawn, told that they failed."""
        self._done.extend([failed(request, error) for request in requests if request.begin()])


class _Serving(Block):
    """A block in which the writer has the writing connection, or could not get it in time."""

    __slots__ = ("_group", "_patience")

    def __init__(self, group: GroupCommit[Any], patience: float) -> None:
        super().__init__()
        self._group = group
        self._patience = patience

    def enter(self) -> bool:
        return self._group._engine.turn.take(self.over, self._patience)  # noqa: SLF001, one module

    def leave(self, *_: object) -> None:
        self._group._engine.turn.give(self.over)  # noqa: SLF001


class _Called(Block):
    """A block in which the writer calls a function with a transaction. What it raises undoes the transaction."""

    __slots__ = ("_group", "_open", "_request", "_txn")

    def __init__(self, group: GroupCommit[Any], open_: Group, request: Call) -> None:
        super().__init__()
        self._group = group
        self._open = open_
        self._request = request

    def enter(self) -> Any:
        group = self._group
        group._begin_again(self._open)  # noqa: SLF001, one module
        self._txn = group.transaction(group.writer, self._request.note, self._open.commit, self.over)
        group.own.enter(self._txn, self.over)
        return self._txn

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        self._group.own.leave(self.over)
        if kind is not None:
            with suppress(StoreError):  # then nothing of the group can be committed: the others are told
                self._txn.abandon()
            return
        self._request.head = self._open.commit.base if self._txn.end() else None
        self._open.requests.append(self._request)


def _cut_short(path: str) -> StoreIOError:
    return StoreIOError(
        f"{path}: another transaction of the same commit was cut short in its midst; nothing was changed. Try again"
    )
