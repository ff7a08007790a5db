"""The lock of a store's writing connection: threads get it in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final


class Turn:
    """A lock whose waiters get it in the order in which they came. Nobody who comes later overtakes them.

    `threading.Lock` gives no such promise: a thread that releases and takes it again at once can keep others from
    it for as long as it likes, and a wait with a timeout then ends in Busy.
    """

    __slots__ = ("_mutex", "_waiting", "owner")

    owner: int
    """Identity of the thread that has it, 0 if none."""

    def __init__(self) -> None:
        self._mutex: Final = threading.Lock()
        self._waiting: Final[deque[_Waiter]] = deque()
        self.owner = 0

    @property
    def wanted(self) -> bool:
        """Whether a thread waits for it."""
        return bool(self._waiting)

    def take(self, timeout: float = -1) -> bool:
        """Wait until it is this thread's turn, and tell whether it is.

        Args:
            timeout: seconds to wait at most; 0 does not wait, less than 0 waits for ever.
        """
        with self._mutex:
            if not self.owner:
                self.owner = threading.get_ident()
                return True
            if timeout == 0:
                return False
            mine = _Waiter()
            self._waiting.append(mine)
        try:
            taken = mine.called.acquire(timeout=timeout)
        except BaseException:  # KeyboardInterrupt
            if self._leave(mine):
                self.give()
            raise
        return taken or self._leave(mine)

    def give(self) -> None:
        """Let the next in line have it."""
        with self._mutex:
            if self._waiting:
                following = self._waiting.popleft()
                self.owner = following.thread
                following.called.release()
            else:
                self.owner = 0

    def _leave(self, mine: _Waiter) -> bool:
        """Stop waiting; tell whether it was given to this thread all the same, at the last moment."""
        with self._mutex:
            try:
                self._waiting.remove(mine)
            except ValueError:
                return True
            return False


class _Waiter:
    __slots__ = ("called", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.called = threading.Lock()
        self.called.acquire()


def thread_name(identity: int) -> str:
    """Return the name of a living thread of this process, for messages."""
    return next((thread.name for thread in threading.enumerate() if thread.ident == identity), "one that ended")
