"""Goal: whoever closes a store or forks finds all that lives, whatever other threads make meanwhile. Method: threads
that add and drop without end, and a great many looks."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest

from sqlstate.files.living import Living

if TYPE_CHECKING:
    from collections.abc import Iterator


class Thing:
    """Something that a set holds weakly."""


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads take turns much more often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty")
def test_members_are_found_while_threads_add_others() -> None:
    things: Living[Thing] = Living()
    kept = [Thing() for _ in range(300)]
    things.update(kept)
    ended = threading.Event()

    def churn() -> None:
        own: list[Thing] = []
        while not ended.is_set():
            own.append(Thing())
            things.add(own[-1])
            if len(own) > 500:
                own.clear()

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            assert set(kept) <= set(things.members())
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_what_is_dropped_is_no_member() -> None:
    things: Living[Thing] = Living()
    kept = Thing()
    things.update([kept, Thing()])
    assert things.members() == [kept]
