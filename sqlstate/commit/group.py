"""Group commit: transactions of many threads run one after the other, and share one COMMIT.

Threads queue their writes as requests. A thread of the store's own, the *committer*, takes all queued requests, runs
them one after the other, makes one commit of them, and only then answers each. No timer is needed: while SQLite syncs
one group, the next gathers. Handing the connection from thread to thread for each transaction would cost more than the
transaction (flat combining: Hendler, Incze, Shavit, Tzafrir, SPAA 2010).

A block of `with store.transaction()` runs in its own thread. It waits for the writer lock and leaves its transaction in
the open group, which the next block in line or the committer commits.

A thread that finds the store idle writes by itself, without the committer, at the cost of a lone write.

Every request is answered, whatever is raised: requests taken from the queue stay listed in the open group, and those
with an outcome in a queue of their own. Waiting threads check now and then that the committer lives. The next holder of
the writer lock asks SQLite what became of a group that was cut short.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlstate.commit import own_thread
from sqlstate.commit.open_group import cut_short
from sqlstate.commit.requests import (
    LOOK_SECONDS,
    Barrier,
    Ended,
    Group,
    Running,
    WaitedCall,
    WaitedSingle,
)
from sqlstate.commit.single_change import change_one
from sqlstate.errors import Busy, StoreError, StoreUnusable
from sqlstate.sqlite.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.commit.committer import Committer
    from sqlstate.commit.future import Future
    from sqlstate.commit.requests import Request
    from sqlstate.commit.write_context import OpenBlocks, WriteContext
    from sqlstate.format.names import Name, Stored
    from sqlstate.sqlite.blocks import Over

T = TypeVar("T")
X = TypeVar("X", bound=Running)

GROUP_SIZE: Final = 1000
GROUP_WAIT: Final = 0.01


class GroupCommit(Generic[X]):
    """Takes the writes of one store: as requests to the committer, as blocks, or from a thread that writes alone.

    Args:
        committer: of the store.
    """

    def __init__(self, committer: Committer[X]) -> None:
        self.committer = committer
        self.context: WriteContext = committer.context
        self.open_blocks: OpenBlocks = self.context.open_blocks
        self.shares: bool = committer.open.size > 1
        self.enqueue: Callable[[Request], None] = committer.enqueue
        self.look_after: Callable[[], None] = committer.look_after
        self._answers = committer.answers
        self._open = committer.open
        self._engine = self.context.engine

    def lock_writer(self, over: Over) -> None:
        """Wait for the writer lock. A transaction that the block before left open is committed, or undone, first.

        Args:
            over: of the block that wants it.

        Raises:
            Busy, StoreUnusable, ReadOnly: as Engine.lock_writer().
        """
        self._engine.lock_writer(over)
        try:
            self._make_way()
        except BaseException:
            self._engine.writer_lock.release(over)
            raise

    def unlock_writer(self, over: Over) -> None:
        """Roll back what is open, and release the writer lock."""
        try:
            self._engine.tidy_writer()
        finally:
            self._engine.writer_lock.release(over)

    def writing(self) -> Writing:
        """Return a block that holds the writer lock; it begins without a transaction, and raises as lock_writer()."""
        return Writing(self)

    def closing(self) -> Closing:
        """Return a block that holds the writer lock while the store is closed."""
        return Closing(self)

    def change(self, name: Name, stored: Stored | None) -> bool:
        """Put one entry durably, or delete it where *stored* is None, in a transaction of its own.

        Returns whether there was an entry, if it is deleted.
        """
        self.context.nothing_made()
        try:
            if self.is_free():
                with Writing(self):
                    return change_one(self.context, name, stored)[0]
            changed: bool = self._ask(WaitedSingle(name, stored))
        except BaseException as e:
            self.context.note_outcome(e)
            raise
        return changed

    def run(self, work: Callable[[X], T], note: str = "") -> T:
        """Have the committer call *work* with a transaction; return its result once the transaction is durable."""
        result: T = self._ask(WaitedCall(work, note))
        return result

    def submit(self, work: Callable[[X], T], note: str = "") -> Future[T]:
        """Queue *work*, and return a future for its result at once."""
        self.committer.check_open()  # before the import: at its end, the interpreter imports nothing
        from sqlstate.commit.future import Future, FutureCall  # noqa: PLC0415, see there

        future: Future[T] = Future(weakref.WeakMethod(self.committer.look_after))
        self.enqueue(FutureCall(work, note, future))
        return future

    def barrier(self) -> None:
        """Wait until all earlier requests are done."""
        if self.committer.is_here():
            raise StoreUnusable(
                f"{self._engine.path}: barrier() was called in the store's own thread, and would wait for itself"
            )
        self._ask(Barrier())

    def _ask(self, request: WaitedSingle | Barrier | WaitedCall) -> Any:
        """Have the committer run *request*; return its result, or raise its error."""
        self._engine.warn_in_loop()
        try:
            self.enqueue(request)
            self._await(request)
            if request.head is not None:
                self.context.made(request.head)
        except StoreError:
            raise
        except BaseException as e:  # KeyboardInterrupt
            self._explain(e, request)
            raise
        if request.error is not None:
            raise request.error
        return request.result

    def _await(self, request: WaitedSingle | Barrier | WaitedCall) -> None:
        while not request.answered(LOOK_SECONDS):
            self.look_after()

    def _explain(self, error: BaseException, request: WaitedSingle | Barrier | WaitedCall) -> None:
        """Add a note to *error*, which ended the wait for *request*: what became of the request."""
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
        # In a callback of a future, which runs in the committer's thread, no other thread would commit the group.
        alone = not self.shares or self.committer.is_here()
        self._engine.lock_writer(over)
        try:
            if alone:
                self._make_way()
            group = self._open.resume()
            if group is not None and not self._open.takes_more(group):
                self._commit_open(group)
                group = None
            if group is None:
                group = self._open.begin()
            group.running = txn = self.committer.transaction(self.context, note, group.commit, over)
            self.open_blocks.push(txn, over)
        except BaseException:
            self._leave(over)
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
                self._leave(over)
            if waits is not None:
                self._await(waits)
        except StoreError:
            raise
        except BaseException as e:
            if self._engine.writer_lock.has(over):  # raised before the lock was released
                self._leave(over)
            if (waits := waits or self._waiting_for(txn)) is not None:
                self._explain(e, waits)
            raise
        if waits is not None and waits.error is not None:
            raise waits.error

    def _end(self, over: Over, txn: Running, *, keep: bool) -> Barrier | None:
        """End the transaction; return what to wait for if another thread commits it, else None."""
        self.open_blocks.remove(over)
        group = self._open.group
        if not keep:
            txn.abandon()
        elif group is None or group.running is not txn:
            raise cut_short(self._engine.path)
        elif not self.shares or self.committer.is_here() or not (group.requests or self._waited_for()):
            txn.finish()
            self._open.group = None
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
        group = self._open.group
        found = [*(group.requests if group is not None else ()), *self._answers.waiting()]
        return next((each for each in found if isinstance(each, Ended) and each.txn is txn), None)

    def close(self, timeout: float) -> None:
        """Take no more requests, and wait until all that were taken are done.

        A block of another thread is not waited for here: closing() waits for the writer lock.

        Raises:
            Busy: they were not done in time; requests are taken again.
        """
        if not self._engine.usable or self.committer.is_here() or own_thread.ending():
            return
        self.committer.closed = True
        self.committer.ring()
        until = time.monotonic() + timeout
        while self.committer.waiting or self._answers or self.committer.is_at_work():
            if time.monotonic() >= until:
                self.committer.closed = False
                raise Busy(
                    f"{self._engine.path}: what was submitted was not done within {timeout:g} s; the store is still "
                    "open. Try again"
                )
            self.look_after()
            time.sleep(0.001)
        self.committer.ring()

    def reopen(self) -> None:
        """Take requests again: the store could not be closed."""
        self.committer.closed = False

    def is_free(self) -> bool:
        """Return True if this thread may write by itself: no other thread writes or waits, or groups are off."""
        committer = self.committer
        if not self.shares or own_thread.ending() or committer.is_here():
            return True
        return not (committer.waiting or self._open.group or self._engine.writer_lock.owner or committer.is_at_work())

    def _waited_for(self) -> bool:
        return bool(self._engine.writer_lock.wanted or self.committer.waiting)

    def _leave(self, over: Over) -> None:
        """Release the writer lock; leave the group open if it has transactions of other threads."""
        try:
            self._open.leave()
        finally:
            self._engine.writer_lock.release(over)
        if self._open.group is not None:
            self.committer.wake()

    def _make_way(self) -> None:
        """Commit the open group, and roll back what a block left that was cut short."""
        self.finish_open()
        self._engine.tidy_writer()

    def finish_open(self) -> None:
        """Commit the open group, if there is one. The caller holds the writer lock."""
        group = self._open.resume()
        if group is not None:
            self._commit_open(group)

    def _commit_open(self, group: Group) -> None:
        self._open.finish(group, mine=False)
        self._answers.deliver_to_threads()


class Writing(Block):
    """A block that holds the writer lock. Whatever is raised in it, no transaction stays behind."""

    __slots__ = ("_group",)

    def __init__(self, group: GroupCommit[Any]) -> None:
        super().__init__()
        self._group = group

    def enter(self) -> None:
        """Wait for the lock."""
        self._group.lock_writer(self.over)

    def leave(self, *_: Any) -> None:
        """Roll back what is open, and release the lock."""
        self._group.unlock_writer(self.over)


class Closing(Block):
    """A block that holds the writer lock to close the store, also one that was closed or has failed."""

    __slots__ = ("_engine", "_group")

    def __init__(self, group: GroupCommit[Any]) -> None:
        super().__init__()
        self._group = group
        self._engine = group.context.engine

    def enter(self) -> None:
        """Wait for the lock, and commit the open group."""
        self._engine.wait_for_writer(self.over)
        try:
            if self._engine.usable:
                self._group.finish_open()
        except BaseException:
            self._engine.writer_lock.release(self.over)
            raise

    def leave(self, *_: Any) -> None:
        """Release the lock."""
        self._engine.writer_lock.release(self.over)
