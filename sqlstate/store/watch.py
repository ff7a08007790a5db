"""Follows the commits of this process and of others, without keeping anybody waiting."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from sqlstate.errors import InvalidOption, StoreClosed
from sqlstate.tables import wal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.format.records import Head
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta

# The longest delay until a commit of another process is seen; one look costs some 20 µs.
POLL_SECONDS: Final = 0.02


def check_timeout(timeout: float) -> None:
    """Raise InvalidOption if *timeout* is not a number of seconds to wait."""
    if not isinstance(timeout, int | float) or not 0 <= timeout < threading.TIMEOUT_MAX:
        raise InvalidOption(f"timeout={timeout!r} is not a number of seconds, 0 or more")


def follow(engine: Engine, meta: Meta, after: int, timeout: float | None) -> Iterator[Head]:
    """Yield the commits after number *after*, in order, as they come.

    It ends when the store is closed, or *timeout* seconds after the newest commit that it saw. Nothing is read while
    it waits, or while the caller works: a read transaction would pin SQLite's WAL.
    """
    committed = threading.Event()
    engine.watchers.add(committed)
    try:
        since = time.monotonic()
        while True:
            committed.clear()
            try:
                heads = _newer(engine, meta, after)
            except StoreClosed:
                if engine.life.closed:
                    return
                raise
            if heads:
                for head in heads:
                    if engine.life.closed:
                        return
                    yield head
                after, since = heads[-1].seq, time.monotonic()
                continue
            left = POLL_SECONDS if timeout is None else since + timeout - time.monotonic()
            if left <= 0:
                return
            committed.wait(min(left, POLL_SECONDS))
    finally:
        engine.watchers.discard(committed)


def _newer(engine: Engine, meta: Meta, after: int) -> list[Head]:
    with engine.reading() as connection:
        if wal.last(connection, meta)[1].seq <= after:
            return []
        return wal.commits(connection, after + 1)[0]
