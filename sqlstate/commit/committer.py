"""The store's own thread, the committer: it runs the queued requests, and makes one commit of them."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlstate.commit import own_thread
from sqlstate.commit.open_group import OpenGroup
from sqlstate.commit.own_thread import OwnThread
from sqlstate.commit.requests import (
    EACH,
    Answers,
    Call,
    Group,
    Request,
    Running,
    Single,
    TooLarge,
    failed,
    pause,
)
from sqlstate.errors import Busy, StoreClosed, StoreError, StoreUnusable
from sqlstate.sqlite.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.commit.commit import Commit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Name
    from sqlstate.sqlite.blocks import Over

X = TypeVar("X", bound=Running)

# The committer waits for those whom it just answered no longer than this share of the time that their commit took.
PATIENCE: Final = 0.5


class Committer(Generic[X]):
    """The queue of one store's requests, and the thread that runs them.

    Args:
        context: of the store's commits.
        transaction: makes a transaction of the store.
        size: the most transactions in one commit; 1 shares none.
        wait: seconds after which a commit takes no more transactions.
    """

    def __init__(
        self, context: WriteContext, transaction: Callable[[WriteContext, str, Commit, Over], X], size: int, wait: float
    ) -> None:
        self.context = context
        self.transaction = transaction
        self._engine = context.engine
        self._queue: deque[Request] = deque()
        self._thread = OwnThread(f"sqlstate {self._engine.path}", self.work, self.has_work)
        self.answers: Answers = Answers(self._thread.wake)
        self.open: OpenGroup = OpenGroup(context, self.answers, size, wait, weakref.WeakMethod(self._repeat))
        self._size = size
        self._overtaken = 0  # times in a row
        self.closed = False
        self._expected = 0  # requests of the newest group for which a thread or task waits: most ask again at once
        self._wanted = 0  # requests that must be queued before they wake the thread
        own_thread.drain_at_end(self)  # not the store's, which may be dropped while there is work

    # What other threads ask.

    @property
    def waiting(self) -> bool:
        """Whether a request is queued."""
        return bool(self._queue)

    def enqueue(self, request: Request) -> None:
        """Queue *request* for the committer.

        Raises:
            StoreUnusable, ReadOnly: the store takes no writes.
        """
        self.check_open()
        request.asked = time.monotonic()
        try:
            self._queue.append(request)
            if len(self._queue) >= self._wanted:
                self._thread.wake()
        except BaseException:  # such as RuntimeError: the user may start no more threads
            if request.withdraw():
                with suppress(ValueError):  # the committer took it out
                    self._queue.remove(request)
            raise

    def check_open(self) -> None:
        """Raise if the store takes no requests.

        Raises:
            StoreUnusable, ReadOnly: it does not.
        """
        self._engine.life.check_writable()
        if self.closed:
            raise StoreClosed(f"{self._engine.path}: the store is closed")
        if own_thread.ending():
            raise StoreUnusable(
                f"{self._engine.path}: the interpreter is ending, and the store's own thread with it; nothing was "
                "changed. Write in a `with store.transaction()` block, or earlier"
            )

    def is_here(self) -> bool:
        """Return True in the committer's thread."""
        return self._thread.is_here()

    def is_at_work(self) -> bool:
        """Return True while the thread works or looks for work."""
        return self._thread.busy and self._thread.alive

    def has_work(self) -> bool:
        """Return True if the committer has something to do. A group with nothing but a running block is not."""
        group = self.open.group
        return bool(self._queue or self.answers or (group is not None and (group.requests or group.taken)))

    def is_kept_waiting(self) -> bool:
        """Return True if a block of another thread than the committer's has the writer lock."""
        return self._engine.writer_lock.owner not in (0, self._thread.ident)

    def look_after(self) -> None:
        """Wake the committer if there is work; called now and then by threads that wait."""
        if self._queue or self.answers or (self.open.group is not None and not self._engine.writer_lock.owner):
            self.wake()

    def wake(self) -> None:
        """Wake the thread, or start it. If that fails, waiting threads try again."""
        with suppress(RuntimeError):
            self._thread.wake()

    def ring(self) -> None:
        """Wake the thread if it sleeps."""
        self._thread.ring()

    def work_here(self) -> None:
        """Do the work in this thread if the committer's has ended: at its end, Python starts no threads."""
        if not self._thread.alive:
            self.work()

    def drain(self) -> None:
        """Wait, at the end of the interpreter, until nothing is left to do.

        A block that is still open then may never end: what shares its commit is waited for no longer than the timeout.
        """
        until = time.monotonic() + self._engine.timeout
        while self._engine.usable and (self.has_work() or self.is_at_work()):
            if not self.waiting and time.monotonic() >= until and self.is_kept_waiting():
                return
            self.work_here()
            self.look_after()
            time.sleep(0.001)

    # What the committer does.

    def work(self) -> bool:
        """Do all the work there is; return False if the store was closed and no more will come."""
        self._thread.busy = True
        has_lock = True
        while self.has_work() and (has_lock or self._queue):  # the holder of an open group wakes this thread again
            self.answers.deliver()
            began = time.monotonic()
            try:
                has_lock = self._serve()
            except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
                self._take_over(e)
            took = time.monotonic() - began
            self.answers.deliver()
            self._gather(min(PATIENCE * took, self.open.wait))
        self._thread.busy = False
        return not self.closed

    def _serve(self) -> bool:
        """Make one commit of the queue, as far as the limits allow; return False if the writer lock was not free."""
        queue = self._queue
        patience = self._engine.timeout
        if queue:
            patience = max(0.001, patience - (time.monotonic() - queue[0].asked))
        if self._overtaken:
            time.sleep(pause(self._overtaken))
        overtaken, self._overtaken = self._overtaken, 0
        with _Serving(self, patience) as has_lock:
            if not has_lock:
                self._give_up()
                return False
            if not self._engine.usable:
                self._refuse_all()
                return True
            waiting = len(queue)
            group = self.open.resume()
            if group is None and not waiting:
                return True
            if group is None:
                try:
                    group = self.open.begin()
                except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
                    self.answers.refuse([queue.popleft() for _ in range(waiting)], e)
                    return True
            try:
                self._fill(group)
            except BaseException as e:  # noqa: BLE001, as above
                group.commit.failure = e
            self._expected = sum(request.waker is not EACH for request in group.taken)
            size = self.open.size
            self.open.finish(group)
            if self._overtaken:
                self._overtaken += overtaken
            if self.open.size == size:
                self.open.size = min(self._size, 2 * size)
        return True

    def _fill(self, group: Group) -> None:
        """Run queued requests, also those that arrive meanwhile, until the group takes no more."""
        queue, now = self._queue, time.monotonic()
        waited, size = self._engine.counters.waited, self.open.size
        singles: dict[Name, Single] = {}
        while True:
            while queue and not group.commit.broken and len(group.requests) + len(singles) < size:
                group.taken.append(queue.popleft())
                request = group.taken[-1]
                if not request.begin():  # it was withdrawn
                    group.taken.pop()
                    continue
                waited(max(0.0, now - request.asked))
                if isinstance(request, Single):
                    if request.name in singles:
                        self._add_singles(group, singles)
                    singles[request.name] = request
                    continue
                self._add_singles(group, singles)
                if isinstance(request, Call):
                    self._call(group, request)
                    if not self.open.takes_more(group):
                        break
                else:
                    group.requests.append(request)
            self._add_singles(group, singles)
            now = time.monotonic()
            if group.commit.broken or not self.open.takes_more(group):
                return
            if not queue:
                return

    def _gather(self, seconds: float) -> None:
        """Wait until as many requests are queued as were just taken, *seconds* at most; not if there is other work."""
        until = time.monotonic() + seconds
        self._wanted, self._expected = self._expected, 0
        while 1 < self._wanted > len(self._queue) and not (self.closed or self.answers or self.open.group):
            left = until - time.monotonic()
            if left <= 0:
                break
            self._thread.rest(left)
        self._wanted = 0

    def _add_singles(self, group: Group, singles: dict[Name, Single]) -> None:
        """Add *singles* to the group, and empty *singles*."""
        if not singles:
            return
        requests = singles.values()
        changed: list[Name] = []
        try:
            self.open.begin_again(group)
            changed = group.commit.add_singles({name: request.stored for name, request in singles.items()})
            for name in changed:
                singles[name].head = group.commit.base  # until there is the new one
                singles[name].result = True
            group.requests += requests
        except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
            if changed:
                group.commit.failure = e  # they are in it, and not all of them know
            if group.commit.broken and group.commit.transactions:
                group.requests += requests  # in the same commit as those before them: finish() gives each its outcome
            else:
                for request in requests:
                    failed(request, e)
        singles.clear()

    def _call(self, group: Group, request: Call) -> None:
        """Call a function with a transaction in the group."""
        try:
            with _Called(self, group, request) as txn:
                request.result = request.work(txn)
        except BaseException as e:  # noqa: BLE001, it is delivered to those who wait
            request.error = e

    def _take_over(self, error: BaseException) -> None:
        """Recover from *error*, raised where nothing should be: the requests in the group get it as their outcome."""
        with _Serving(self, self._engine.timeout) as has_lock:
            group = self.open.group
            if has_lock and group is not None:
                self.open.end_interrupted(group, error)
            else:
                threading.excepthook(
                    threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
                )

    def _repeat(self, requests: list[Request]) -> None:
        """Queue *requests*, whose errors kept them from changing anything, once more, before all others."""
        if isinstance(requests[0].error, TooLarge):
            self.open.size = len(requests) // 2
        else:
            self._overtaken += 1
        for request in reversed(requests):
            request.again()
            self._queue.appendleft(request)
        self.wake()

    def _give_up(self) -> None:
        """Answer requests that waited for the whole timeout with Busy."""
        until = time.monotonic() - self._engine.timeout
        late = []
        while self._queue and self._queue[0].asked <= until:
            late.append(self._queue.popleft())
        self.answers.refuse(late, Busy(self._engine.busy_message()))

    def _refuse_all(self) -> None:
        """Answer all requests with the reason why the store refuses work."""
        group = self.open.group
        waiting = [*self._queue]
        self._queue.clear()
        error = self._engine.life.refusal()
        if group is not None:
            group.running = None
            self.open.resolve(group, error)
        self.answers.refuse(waiting, error)


class _Serving(Block):
    """A block in which the committer holds the writer lock, unless it was not free in time."""

    __slots__ = ("_lock", "_patience")

    def __init__(self, committer: Committer[Any], patience: float) -> None:
        super().__init__()
        self._lock = committer.context.engine.writer_lock
        self._patience = patience

    def enter(self) -> bool:
        return self._lock.acquire(self.over, self._patience)

    def leave(self, *_: object) -> None:
        self._lock.release(self.over)


class _Called(Block):
    """A block in which the committer calls a function with a transaction. An exception undoes the transaction."""

    __slots__ = ("_committer", "_group", "_request", "_txn")

    def __init__(self, committer: Committer[Any], group: Group, request: Call) -> None:
        super().__init__()
        self._committer = committer
        self._group = group
        self._request = request

    def enter(self) -> Any:
        committer = self._committer
        committer.open.begin_again(self._group)
        self._txn = committer.transaction(committer.context, self._request.note, self._group.commit, self.over)
        committer.context.open_blocks.push(self._txn, self.over)
        return self._txn

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        self._committer.context.open_blocks.remove(self.over)
        if kind is not None:
            with suppress(StoreError):  # then nothing of the group can be committed, and the others get that outcome
                self._txn.abandon()
            return
        self._request.head = self._group.commit.base if self._txn.end() else None
        self._group.requests.append(self._request)
