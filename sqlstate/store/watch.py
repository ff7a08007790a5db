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
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta

# The longest delay until a commit of another process is seen: one watcher of a handle looks so often, for some 20 µs.
POLL_SECONDS: Final = 0.02
# How often the others make sure that there is one who looks.
STAND_BY_SECONDS: Final = 5.0


def check_timeout(timeout: float) -> None:
    """Raise InvalidOption if *timeout* is not a number of seconds to wait."""
    if not isinstance(timeout, int | float) or not 0 <= timeout < threading.TIMEOUT_MAX:
        raise InvalidOption(f"timeout={timeout!r} is not a number of seconds, 0 or more")


def follow(engine: Engine, meta: Meta, after: int, timeout: float | None) -> Iterator[Head]:
    """Yield the commits after number *after*, in order, as they come.

    It ends when the store is closed, or *timeout* seconds after the newest commit that it saw. Nothing is read while
    it waits, or while the caller works: a read transaction would pin SQLite's WAL.
    """
    since = time.monotonic()
    while True:
        try:
            heads = _wait(engine, meta, after, None if timeout is None else since + timeout)
        except StoreClosed:
            if engine.life.closed:
                return
            raise
        if not heads:
            return
        since = time.monotonic()
        for head in heads:
            if engine.life.closed:
                return
            yield head
        after = heads[-1].seq


def _wait(engine: Engine, meta: Meta, after: int, until: float | None) -> list[Head]:
    """Return commits after number *after* as soon as there are any, none once it is *until*, of time.monotonic()."""
    watchers, committed = engine.watchers, threading.Event()
    watchers.add(committed)
    try:
        heads = _newer(engine, meta, after)
        while not heads:
            left = STAND_BY_SECONDS if until is None else until - time.monotonic()
            if left <= 0:
                return []
            leads = watchers.leads(committed)
            if committed.wait(min(left, POLL_SECONDS if leads else STAND_BY_SECONDS)):
                engine.life.check()
                committed.clear()
                heads = watchers.known(after) or _newer(engine, meta, after)
            elif leads:
                with engine.reading() as connection:
                    watchers.seen(wal.last(connection, meta)[1])
        return heads
    finally:
        watchers.leave(committed)


def _newer(engine: Engine, meta: Meta, after: int) -> list[Head]:
    def newer(connection: Connection) -> list[Head]:
        newest = wal.last(connection, meta)[1]
        if newest.seq > after + 1:
            return wal.commits(connection, after + 1)[0]
        return [newest] if newest.seq > after else []

    return engine.readers.of_log(newer)
