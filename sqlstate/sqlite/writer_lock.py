"""The lock of a store's writing connection: threads get it in the order in which they came.

It belongs to a `with` block, not to a thread: once the block is over, the lock is free, even if an exception kept
the block from giving it back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlstate.sqlite.blocks import Over

# Who waits looks so often whether the block that has the lock is over, and could not say so.
LOOK_SECONDS: Final = 0.05


class Turn:
    """A lock whose waiters get it in the order in which they came. Nobody who comes later overtakes them.

    `threading.Lock` gives no such promise: a thread that releases and takes it again at once can keep others from
    it for as long as it likes, and a wait with a timeout then ends in Busy.
    """

    __slots__ = ("_claim", "_mutex", "_waiting")

    def __init__(self) -> None:
        self._mutex: Final = threading.Lock()
        self._waiting: Final[deque[_Claim]] = deque()
        self._claim: _Claim | None = None

    @property
    def owner(self) -> int:
        """Identity of the thread whose block has it, 0 if none."""
        claim = self._claim
        return 0 if claim is None or claim.over() is None else claim.thread

    @property
    def wanted(self) -> bool:
        """Whether a thread waits for it."""
        return bool(self._waiting)

    def has(self, over: Over) -> bool:
        """Tell whether it is this block's."""
        claim = self._claim
        return claim is not None and claim.over is over

    def take(self, over: Over, timeout: float = -1) -> bool:
        """Wait until it is this block's turn, and tell whether it is.

        Args:
            over: of the block; dead once it is over.
            timeout: seconds to wait at most; 0 does not wait, less than 0 waits for ever.
        """
        claim = _Claim(over)
        try:
            return self._alone(self._granted, claim) or (timeout != 0 and self._wait(claim, timeout))
        except BaseException:  # KeyboardInterrupt
            self._alone(self._withdraw, claim)
            raise

    def give(self, over: Over) -> None:
        """Let the next in line have it. Nothing happens unless it is this block's."""
        claim = self._claim
        if claim is not None and claim.over is over:
            self._alone(self._withdraw, claim)

    def _wait(self, claim: _Claim, timeout: float) -> bool:
        until = time.monotonic() + timeout
        claim.called = called = threading.Lock()
        called.acquire()
        if self._alone(self._lined_up, claim):
            return True
        while True:
            left = until - time.monotonic() if timeout > 0 else LOOK_SECONDS
            called.acquire(timeout=max(0.0, min(left, LOOK_SECONDS)))
            if self._alone(self._granted, claim):
                return True
            if left <= 0:
                self._alone(self._withdraw, claim)
                return False

    def _alone(self, step: Step, claim: _Claim) -> bool:
        # In one line: `with` is ended by steps of its own, and those of a line of its own can be interrupted.
        with self._mutex: return step(claim)  # noqa: E701  # fmt: skip

    # Steps. Each is one change that counts; whatever is raised before or after it, the lock is whole.

    def _granted(self, claim: _Claim) -> bool:
        """Give it to *claim* if nobody else has it, or comes before."""
        if self._claim is not claim:
            self._forget_the_dead()
            if self._claim is None and (not self._waiting or self._waiting[0] is claim):
                self._claim = claim
        if self._claim is not claim:
            return False
        if self._waiting and self._waiting[0] is claim:
            self._waiting.popleft()
        return True

    def _lined_up(self, claim: _Claim) -> bool:
        self._waiting.append(claim)
        return self._granted(claim)

    def _withdraw(self, claim: _Claim) -> bool:
        """Take *claim* back, whether it waits or was granted."""
        if claim in self._waiting:
            self._waiting.remove(claim)
        if self._claim is claim:
            self._claim = None
        self._forget_the_dead()
        return False

    def _forget_the_dead(self) -> None:
        """Let go of claims of blocks that are over, and call the first in line if it is their turn."""
        if self._claim is not None and self._claim.over() is None:
            self._claim = None
        while self._waiting and self._waiting[0].over() is None:
            self._waiting.popleft()
        if self._claim is None and self._waiting:
            self._waiting[0].call()


class _Claim:
    """A block that has the lock, or waits for it."""

    __slots__ = ("called", "over", "thread")

    def __init__(self, over: Over) -> None:
        self.over = over
        self.thread = threading.get_ident()
        self.called: threading.Lock | None = None  # free once it may be its turn

    def call(self) -> None:
        """Wake the thread that waits; twice is as good as once."""
        if self.called is not None and self.called.locked():
            self.called.release()


if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[_Claim], bool]


def thread_name(identity: int) -> str:
    """Return the name of a living thread of this process, for messages."""
    return next((thread.name for thread in threading.enumerate() if thread.ident == identity), "one that ended")
