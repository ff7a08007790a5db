"""The writer lock of one handle, among its threads: first in, first out.

A `with` block holds it, not a thread: once the block is over, the lock is free, even if an exception kept the block
from releasing it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlstate.sqlite.blocks import Over

# How often a waiter checks whether the holding block has ended without releasing the lock.
LOOK_SECONDS: Final = 0.05


class WriterLock:
    """A first-in, first-out lock: its waiters get it in the order in which they came.

    `threading.Lock` is not fair: a thread that releases it and acquires it again at once can starve the others, and
    their timeouts end in Busy.
    """

    __slots__ = ("_claim", "_mutex", "_waiting")

    def __init__(self) -> None:
        self._mutex: Final = threading.Lock()
        self._waiting: Final[deque[_Claim]] = deque()
        self._claim: _Claim | None = None

    @property
    def owner(self) -> int:
        """Identity of the thread whose block holds the lock, 0 if none does."""
        claim = self._claim
        return 0 if claim is None or claim.over() is None else claim.thread

    @property
    def wanted(self) -> bool:
        """Whether a thread waits for the lock."""
        return bool(self._waiting)

    def has(self, over: Over) -> bool:
        """Return True if this block holds the lock."""
        claim = self._claim
        return claim is not None and claim.over is over

    def acquire(self, over: Over, timeout: float = -1) -> bool:
        """Wait for the lock; return True if this block holds it now.

        Args:
            over: of the block; dead once it is over.
            timeout: seconds to wait at most; 0 does not wait, less than 0 waits without limit.
        """
        claim = _Claim(over)
        try:
            return self._under_mutex(self._grant, claim) or (timeout != 0 and self._wait(claim, timeout))
        except BaseException:  # KeyboardInterrupt
            self._under_mutex(self._withdraw, claim)
            raise

    def release(self, over: Over) -> None:
        """Pass the lock to the next in line. Do nothing unless this block holds it."""
        claim = self._claim
        if claim is not None and claim.over is over:
            self._under_mutex(self._withdraw, claim)

    def _wait(self, claim: _Claim, timeout: float) -> bool:
        until = time.monotonic() + timeout
        claim.called = called = threading.Lock()
        called.acquire()
        if self._under_mutex(self._line_up, claim):
            return True
        while True:
            left = until - time.monotonic() if timeout > 0 else LOOK_SECONDS
            called.acquire(timeout=max(0.0, min(left, LOOK_SECONDS)))
            if self._under_mutex(self._grant, claim):
                return True
            if left <= 0:
                self._under_mutex(self._withdraw, claim)
                return False

    def _under_mutex(self, step: Step, claim: _Claim) -> bool:
        # In one line: `with` is ended by steps of its own, and those of a line of its own can be interrupted.
        with self._mutex: return step(claim)  # noqa: E701  # fmt: skip

    # Steps. Each is one change that counts; whatever is raised before or after it, the lock is whole.

    def _grant(self, claim: _Claim) -> bool:
        """Grant the lock to *claim* if no other holds it, or comes before."""
        if self._claim is not claim:
            self._drop_dead_claims()
            if self._claim is None and (not self._waiting or self._waiting[0] is claim):
                self._claim = claim
        if self._claim is not claim:
            return False
        if self._waiting and self._waiting[0] is claim:
            self._waiting.popleft()
        return True

    def _line_up(self, claim: _Claim) -> bool:
        self._waiting.append(claim)
        return self._grant(claim)

    def _withdraw(self, claim: _Claim) -> bool:
        """Withdraw *claim*, whether it waits or was granted."""
        if claim in self._waiting:
            self._waiting.remove(claim)
        if self._claim is claim:
            self._claim = None
        self._drop_dead_claims()
        return False

    def _drop_dead_claims(self) -> None:
        """Drop claims of blocks that are over, and wake the first in line if the lock is free."""
        if self._claim is not None and self._claim.over() is None:
            self._claim = None
        while self._waiting and self._waiting[0].over() is None:
            self._waiting.popleft()
        if self._claim is None and self._waiting:
            self._waiting[0].call()


class _Claim:
    """A block that holds the lock, or waits for it."""

    __slots__ = ("called", "over", "thread")

    def __init__(self, over: Over) -> None:
        self.over = over
        self.thread = threading.get_ident()
        self.called: threading.Lock | None = None  # free once the lock may be

    def call(self) -> None:
        """Wake the waiting thread. Calling it twice is harmless."""
        if self.called is not None and self.called.locked():
            self.called.release()


if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[_Claim], bool]


def thread_name(identity: int) -> str:
    """Return the name of a living thread of this process, for messages."""
    return next((thread.name for thread in threading.enumerate() if thread.ident == identity), "one that ended")
