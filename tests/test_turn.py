"""Goal: threads get the writing connection in the order in which they came, and one that stops waiting is not in the
way of the others. Method: the test knows by the line itself when a thread stands in it; nothing is timed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sqlstate import turn as module
from sqlstate.turn import Turn, thread_name
from tests.support.lines import PATIENCE, Line, Threads


@pytest.fixture
def turn() -> Turn:
    return Turn()


@pytest.fixture
def line(turn: Turn) -> Line[Any]:
    """The line of those who wait for it."""
    line: Line[Any] = Line()
    turn._waiting = line  # type: ignore[misc]
    return line


def test_who_comes_first_has_it_at_once(turn: Turn) -> None:
    assert (turn.owner, turn.wanted) == (0, False)
    assert turn.take()
    assert (turn.owner, turn.wanted) == (threading.get_ident(), False)
    turn.give()
    assert turn.owner == 0
    assert turn.take(0)


def test_waiters_get_it_in_the_order_in_which_they_came(turn: Turn, line: Line[Any]) -> None:
    served: list[int] = []

    def wait(number: int) -> None:
        assert turn.take(PATIENCE)
        served.append(number)
        turn.give()

    with Threads() as threads:
        assert turn.take()
        for number in range(8):
            threads.start(lambda number=number: wait(number))  # type: ignore[misc]
            line.came()
        assert turn.wanted
        turn.give()
    assert served == list(range(8))
    assert (turn.owner, turn.wanted) == (0, False)


def test_who_gives_it_away_and_wants_it_again_stands_last(turn: Turn, line: Line[Any]) -> None:
    """A thread that writes in a loop must not keep the others from it, as it could with a common lock."""
    served: list[str] = []

    def write(name: str, times: int) -> None:
        for _ in range(times):
            assert turn.take(PATIENCE)
            served.append(name)
            turn.give()

    with Threads() as threads:
        assert turn.take()
        for name in "ab":
            threads.start(lambda name=name: write(name, 1))  # type: ignore[misc]
            line.came()
        turn.give()
        assert turn.take(PATIENCE)
        served.append("me")
        turn.give()
    assert served == ["a", "b", "me"]


def test_nobody_overtakes_those_who_wait(turn: Turn, line: Line[Any]) -> None:
    """It is handed over: between give() and the waiter's waking, nobody else can take it."""
    gone = threading.Event()
    assert turn.take()
    with Threads() as threads:
        threads.start(lambda: (turn.take(PATIENCE), gone.wait(PATIENCE), turn.give()))
        line.came()
        turn.give()
        assert turn.owner not in (0, threading.get_ident())
        assert turn.take(0) is False
        gone.set()


def test_taking_without_waiting_does_not_join_the_line(turn: Turn, line: Line[Any]) -> None:
    assert turn.take()
    assert turn.take(0) is False
    assert not turn.wanted
    assert len(line) == 0
    turn.give()
    assert turn.take(0) is True


def test_one_that_times_out_leaves_the_line(turn: Turn, line: Line[Any]) -> None:
    served: list[str] = []
    left = threading.Event()

    def give_up() -> None:
        assert turn.take(0.001) is False
        left.set()

    def wait() -> None:
        assert turn.take(PATIENCE)
        served.append("second")
        turn.give()

    with Threads() as threads:
        assert turn.take()
        threads.start(give_up)
        line.came()
        threads.start(wait)
        line.came()
        assert left.wait(PATIENCE)
        assert len(line) == 1
        turn.give()
    assert served == ["second"]
    assert turn.owner == 0


class Interrupted:
    """Stands for one who waits, and whom Ctrl-C interrupts; *first* happens just before."""

    def __init__(self, first: Any) -> None:
        self.thread = threading.get_ident()
        self.called = self
        self.first = first

    def acquire(self, timeout: float) -> bool:
        self.first()
        raise KeyboardInterrupt

    def release(self) -> None:
        """It is this one's turn."""


def test_one_that_is_interrupted_leaves_the_line(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_Waiter", lambda: Interrupted(lambda: None))
    assert turn.take()
    with pytest.raises(KeyboardInterrupt):
        turn.take()
    assert not turn.wanted
    turn.give()
    assert turn.owner == 0


def test_one_that_is_interrupted_when_it_has_just_got_it_gives_it_on(
    turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_Waiter", lambda: Interrupted(turn.give))
    assert turn.take()
    with pytest.raises(KeyboardInterrupt):
        turn.take()
    assert (turn.owner, turn.wanted) == (0, False)


def test_one_that_got_it_in_the_moment_when_it_stopped_waiting_has_it(
    turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Interrupted):
        def acquire(self, timeout: float) -> bool:
            self.first()
            return False

    monkeypatch.setattr(module, "_Waiter", lambda: Late(turn.give))
    assert turn.take()
    assert turn.take(1) is True
    assert turn.owner == threading.get_ident()


def test_one_at_a_time_has_it(turn: Turn) -> None:
    """Whatever the threads do: a sum that would lose additions without it comes out right."""
    total = 0

    def add() -> None:
        nonlocal total
        for number in range(200):
            if turn.take(0.0 if number % 7 == 0 else PATIENCE):
                before = total
                threading.Event().wait(0)
                total = before + 1
                turn.give()
            else:
                assert number % 7 == 0
                assert turn.take(PATIENCE)
                total += 1
                turn.give()

    with Threads() as threads:
        for _ in range(8):
            threads.start(add)
    assert total == 8 * 200
    assert (turn.owner, turn.wanted) == (0, False)


def test_a_thread_has_a_name_for_messages() -> None:
    assert thread_name(threading.get_ident()) == threading.current_thread().name
    assert thread_name(0) == "one that ended"
