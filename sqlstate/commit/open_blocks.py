"""Which blocks the thread that has the writing connection is in."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlstate.sqlite.blocks import Over


class OpenBlocks:
    """What the thread that has the writing connection has open with it: a transaction, a batch, one in the other.

    Each is open for as long as its block is, whatever becomes of the block's end.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: tuple[int, tuple[tuple[Any, Over], ...]] = (0, ())  # the thread; what it has open, innermost last

    def get(self) -> Any:
        """Return what this thread has open, the innermost; None for nothing."""
        thread, stack = self._open
        if not stack or thread != get_ident():
            return None
        while stack and stack[-1][1]() is None:
            stack = stack[:-1]
        return stack[-1][0] if stack else None

    def enter(self, what: Any, over: Over) -> None:
        """Note that this thread has opened *what*, in a block that is not *over*."""
        thread, stack = self._open
        below = stack if thread == get_ident() else ()
        self._open = get_ident(), (*(each for each in below if each[1]() is not None), (what, over))

    def leave(self, over: Over | None) -> None:
        """Note that a block is over. Twice does nothing."""
        thread, stack = self._open
        self._open = thread, tuple(each for each in stack if each[1] is not over)
