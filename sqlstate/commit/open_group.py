"""The group of transactions that the next commit is made of, and the outcome that each of its requests gets."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlstate.commit.commit import Commit
from sqlstate.commit.requests import Ended, Group, Overtaken, Single, TooLarge, failed
from sqlstate.commit.single_change import change_one
from sqlstate.errors import Damaged, StoreError, StoreIOError
from sqlstate.tables import wal

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from sqlstate.commit.requests import Answers, Request
    from sqlstate.commit.write_context import WriteContext


class OpenGroup:
    """The group in the making, if there is one. The holder of the writer lock continues it.

    Args:
        context: of the store's commits.
        answers: where requests go once they have an outcome.
        size: the most transactions in one commit.
        wait: seconds after which a commit takes no more transactions.
        repeat: takes the requests of a group that changed nothing and are to be run again.
    """

    __slots__ = ("_answers", "_context", "_engine", "_repeat", "group", "size", "wait")

    group: Group | None
    """The group in the making, or None."""
    size: int
    """The most transactions in one commit."""
    wait: float
    """Seconds after which a commit takes no more transactions."""

    def __init__(
        self,
        context: WriteContext,
        answers: Answers,
        size: int,
        wait: float,
        repeat: weakref.WeakMethod[Callable[[list[Request]], None]],
    ) -> None:
        self._repeat = repeat
        self._context = context
        self._engine = context.engine
        self._answers = answers
        self.group = None
        self.size = size
        self.wait = wait

    def takes_more(self, group: Group) -> bool:
        """Return True if the limits allow more transactions in the group."""
        return len(group.requests) < self.size and time.monotonic() - group.began < self.wait

    def begin(self) -> Group:
        """Begin a group; the caller holds the writer lock.

        Raises:
            Busy: another process held SQLite's write lock for the whole timeout.
        """
        self._engine.tidy_writer()
        self.group = Group(Commit(self._context))
        return self.group

    def begin_again(self, group: Group) -> None:
        """Begin the group's commit again if its first transaction failed and SQLite rolled everything back."""
        if group.commit.is_open:
            return
        try:
            group.commit = Commit(self._context)
        except BaseException as e:
            group.commit.failure = e  # so that the others do not wait for the timeout too, one after the other
            raise

    def resume(self) -> Group | None:
        """Return the group, if there is one, and undo what was cut short in it. The caller holds the writer lock."""
        group = self.group
        if group is None:
            return None
        if group.taken or group.commit.head is not None:  # the committer, or the commit, was cut short
            self.end_interrupted(group, cut_short(self._engine.path))
            return None
        running, group.running = group.running, None
        if running is not None and not running.ended:
            try:
                running.abandon()
            except StoreError as e:
                group.commit.failure = e
        if not group.requests:
            self.group = None
            group.commit.roll_back()
        return self.group

    def leave(self) -> None:
        """Undo the running transaction if it did not end; keep the group if others are in it, else undo all of it."""
        group = self.group
        if group is not None and group.running is not None and not group.running.ended:
            group.running.abandon()
        if group is not None:
            group.running = None
        if group is not None and not group.requests:
            self.group = None
            group.commit.roll_back()
        elif group is None:
            self._engine.tidy_writer()

    def finish(self, group: Group, *, mine: bool = True) -> None:
        """Commit the group, and give each of its requests its outcome.

        Args:
            group: the open one.
            mine: this is the committer's thread; otherwise exceptions that are not StoreErrors are raised, once all
                requests have an outcome.
        """
        commit, requests = group.commit, group.requests
        error: BaseException | None = None
        try:
            if commit.is_open:  # else what was in it failed, all of it
                commit.finish()
        except StoreIOError as e:
            # If the commit is durable, the requests succeeded; the next caller learns that the handle failed.
            error = None if e.durable else e
        except Damaged as e:
            if not all(isinstance(request, Single) for request in requests):
                error = e
            else:
                self._change_one_by_one(group)
                return
        except BaseException as e:
            ours = isinstance(e, StoreError)
            if ours or not self._was_made(commit):
                error = e if ours or (mine and isinstance(e, Exception)) else cut_short(self._engine.path)
            if not (ours or mine):  # such as KeyboardInterrupt, meant for this thread and not for the requests
                self.resolve(group, error)
                raise
        self.resolve(group, error)

    def resolve(self, group: Group, error: BaseException | None) -> None:
        """Give each request of the group its outcome, and have it delivered."""
        for request in group.requests:
            if error is not None:
                failed(request, error)
            elif isinstance(request, Ended) or request.head is not None:
                request.head = group.commit.head
        self._hand_out(group, error)

    def end_interrupted(self, group: Group, error: BaseException) -> None:
        """End a group whose thread was cut short by *error*; the caller holds the writer lock."""
        made = self._was_made(group.commit)
        if not made:
            group.commit.roll_back()
        self.resolve(group, None if made else error)

    def _hand_out(self, group: Group, error: BaseException | None = None) -> None:
        """Have all outcomes delivered: of requests that ended in the group, and of those taken that did not."""
        ended = set(map(id, group.requests))
        others = [request for request in group.taken if id(request) not in ended]
        for request in others:
            if request.error is None:
                failed(request, error or cut_short(self._engine.path))
        answered = [*group.requests, *others]
        repeated = [request for request in answered if self._is_due_again(request, among=len(answered))]
        repeat = self._repeat()
        if repeated and repeat is not None:
            repeat(repeated)
            answered = [request for request in answered if request not in repeated]
        self._answers.add(answered)
        self.group = None

    def _is_due_again(self, request: Request, among: int) -> bool:
        """Return True if a request is to be run again: it was overtaken, or there were too many."""
        if not request.repeatable or not isinstance(request.error, Overtaken | TooLarge):
            return False
        if isinstance(request.error, TooLarge):
            return among > 1
        return time.monotonic() - request.asked < self._engine.timeout

    def _was_made(self, commit: Commit) -> bool:
        """Ask SQLite whether a commit that was cut short was made: nothing else knows."""
        if commit.head is None or not self._engine.usable:
            return False
        with suppress(StoreError), self._engine.reading() as connection:
            made = wal.commit(connection, commit.head.seq)
            return made is not None and made.chain == commit.head.chain
        return False

    def _change_one_by_one(self, group: Group) -> None:
        """Change the group's entries again, each in a commit of its own: damage near one must not fail the others."""
        for request in group.requests:
            assert isinstance(request, Single)  # noqa: S101, the caller made sure
            try:
                request.result, request.head = change_one(self._context, request.name, request.stored)
            except BaseException as e:  # noqa: BLE001, it is delivered to the waiting thread
                failed(request, e)
        self._hand_out(group)


def cut_short(path: str) -> StoreIOError:
    """Return the error of a transaction that shared its commit with one that was cut short."""
    return StoreIOError(f"{path}: another transaction of the same commit was cut short; nothing was changed. Try again")
