"""How the adapters use an open store in asyncio. A store outlives event loops, so it belongs to none of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from sqlstate.errors import InvalidOption
from sqlstate.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.store.transaction import Transaction

R = TypeVar("R")

# After so many seconds without an outcome the store is asked to look after its own thread.
LOOK_SECONDS: Final = 1.0


def check_store(store: object) -> Store:
    """Return *store* if it is one that an adapter can use.

    Raises:
        InvalidOption: it is something else, such as a path.
    """
    if not isinstance(store, Store):
        raise InvalidOption(f"store= is what sqlstate.open() returns, not {type(store).__name__}")
    return store


async def read(work: Callable[[], R]) -> R:
    """Return what *work* returns in a thread."""
    return await asyncio.to_thread(work)


async def write(store: Store, work: Callable[[Transaction], R], note: str = "") -> R:
    """Return what *work* returns of a transaction of its own, once that is durable.

    Writes of many tasks share commits. Cancelled before it began, the write is withdrawn; one that has begun is
    waited for.
    """
    future = store.submit(work, note)
    outcome = asyncio.wrap_future(future)
    cancelled: asyncio.CancelledError | None = None
    while not outcome.done():
        try:
            await asyncio.wait((outcome,), timeout=LOOK_SECONDS)
            if not outcome.done():
                with suppress(TimeoutError):
                    future.exception(0.001)
        except asyncio.CancelledError as e:
            cancelled = e
            if future.cancel():
                e.add_note("the write was withdrawn before it began; nothing was changed")
                raise
    if cancelled is None:
        return outcome.result()
    error = outcome.exception()
    cancelled.add_note(
        "the write was durable before the task ended" if error is None else f"the write failed: {error!r}"
    )
    raise cancelled
