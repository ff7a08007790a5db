"""`with` blocks whose end can be observed, even if an exception cut their `__exit__` short.

Python calls `__exit__` once. An exception between two bytecodes (Ctrl-C, a time limit, lack of memory) can come at its
first step: then nothing is released, and `__exit__` is not called again. So a block never relies on its end alone. The
`with` statement holds the only reference to the bound `__exit__`, and drops it when the block is left in any way, even
if the exception is kept with all its frames. A weak reference to it, `over`, is dead from then on. The next thread that
wants what the block held tests `over`, and takes over.
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
    """Base class of context managers: enter() begins the block, leave() ends it.

    `gone` is called with `over` when that dies, maybe by the garbage collector: it must only append to a deque.
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
        """End the block. It may be interrupted, or never be called: see the module."""
        raise NotImplementedError
