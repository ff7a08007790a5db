"""`with` blocks that can tell that they are over, whatever happened at their end.

Python calls `__exit__` once. An exception that comes between two bytecodes, of Ctrl-C, a time limit or the lack of
memory, can come at its very first step: then nothing was ended, and nobody calls it again. So what a block holds is
never freed by its end alone. `with` itself has the one reference to the bound `__exit__`, and drops it when the block
is left, however it is left, even if somebody keeps the exception with all its frames. A weak reference to it, `over`,
is dead from then on. Who wants what the block held looks there, and takes over.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Over = weakref.ref[Any]
    """Dead once a block is over."""


class _Exit:
    """`__exit__` of a Block: a new object for each `with` that asks for it."""

    def __get__(self, block: Block | None, kind: type[Block]) -> Callable[..., None]:
        if block is None:
            return kind.leave  # contextlib.ExitStack asks the class
        bound = partial(kind.leave, block)
        block.over = weakref.ref(bound, block.gone)
        return bound


class Block:
    """Base of what is used in a `with` block: enter() begins it, leave() ends it.

    `gone` is called with `over` when that dies, maybe by the garbage collector: only an `append` of a deque will do.
    """

    __slots__ = ("__weakref__", "gone", "over")

    over: Over
    """Dead once the block is over; without a `with`, once the object is gone."""
    gone: Callable[[Over], object] | None

    def __init__(self, gone: Callable[[Over], object] | None = None) -> None:
        self.gone = gone
        self.over = weakref.ref(self, gone)

    def __enter__(self) -> Any:
        return self.enter()

    if TYPE_CHECKING:

        def __exit__(self, *error: Any) -> None: ...
    else:
        __exit__ = _Exit()

    def enter(self) -> Any:
        """Begin the block, and return what `as` names."""
        raise NotImplementedError

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        """End the block. It may be interrupted, and may not come at all: see above."""
        raise NotImplementedError
