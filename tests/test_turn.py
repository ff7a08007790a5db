"""Goal: threads get the writing connection in the order in which they came, and one that stops waiting is not in the
way of the others; nor is a block that is over and could not say so. Method: the test knows by the line itself when a
thread stands in it; nothing is timed."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from sqlstate.sqlite import writer_lock as module
from sqlstate.sqlite.writer_lock import Turn, thread_name
from tests.support.lines import PATIENCE, Claim, Line, Threads

if TYPE_CHECKING:
    from collections.abc import Callable


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
    claim = Claim(turn)
    assert claim.take()
    assert (turn.owner, turn.wanted) == (threading.get_ident(), False)
    claim.give()
    assert turn.owner == 0
    assert claim.take(0)


def test_waiters_get_it_in_the_order_in_which_they_came(turn: Turn, line: Line[Any]) -> None:
    served: list[int] = []

    def wait(number: int) -> None:
        with Claim(turn):
            served.append(number)

    with Threads() as threads, Claim(turn):
        for number in range(8):
            threads.start(lambda number=number: wait(number))  # type: ignore[misc]
            line.came()
        assert turn.wanted
    assert served == list(range(8))
    assert (turn.owner, turn.wanted) == (0, False)


def test_who_gives_it_away_and_wants_it_again_stands_last(turn: Turn, line: Line[Any]) -> None:
    """A thread that writes in a loop must not keep the others from it, as it could with a common lock."""
    served: list[str] = []

    def write(name: str) -> None:
        with Claim(turn):
            served.append(name)

    with Threads() as threads:
        with Claim(turn):
            for name in "ab":
                threads.start(lambda name=name: write(name))  # type: ignore[misc]
                line.came()
        write("me")
    assert served == ["a", "b", "me"]


def test_nobody_overtakes_those_who_wait(turn: Turn, line: Line[Any]) -> None:
    """Between give() and the waiter's waking, nobody else can take it."""
    go = threading.Event()

    def wait() -> None:
        with Claim(turn):
            go.wait(PATIENCE)

    mine = Claim(turn)
    assert mine.take()
    with Threads() as threads:
        threads.start(wait)
        line.came()
        mine.give()
        assert turn.owner != threading.get_ident()
        assert Claim(turn).take(0) is False
        go.set()


def test_giving_what_is_another_s_does_nothing(turn: Turn) -> None:
    mine, other = Claim(turn), Claim(turn)
    other.give()
    assert mine.take()
    other.give()
    assert turn.owner == threading.get_ident()
    assert not other.take(0)
    mine.give()
    mine.give()
    assert other.take(0)


def test_taking_without_waiting_does_not_join_the_line(turn: Turn, line: Line[Any]) -> None:
    with Claim(turn):
        assert Claim(turn).take(0) is False
        assert not turn.wanted
        assert len(line) == 0
    last = Claim(turn)
    assert last.take(0) is True


def test_one_that_times_out_leaves_the_line(turn: Turn, line: Line[Any]) -> None:
    served: list[str] = []
    left = threading.Event()

    def give_up() -> None:
        assert Claim(turn).take(0.001) is False
        left.set()

    def wait() -> None:
        with Claim(turn):
            served.append("second")

    with Threads() as threads, Claim(turn):
        threads.start(give_up)
        line.came()
        threads.start(wait)
        line.came()
        assert left.wait(PATIENCE)
        assert len(line) == 1
    assert served == ["second"]
    assert turn.owner == 0


# ---- Exceptions at any moment ----


class Called:
    """Stands for the lock by which one who waits is called; the first wait for it does *first*."""

    def __init__(self, first: Callable[[], object]) -> None:
        self.first = first
        self.taken = False

    def acquire(self, timeout: float = -1) -> bool:
        if self.taken:
            self.first()
        self.taken = True
        return False

    def locked(self) -> bool:
        return True

    def release(self) -> None:
        """It may be this one's turn."""


def wait_with(turn: Turn, first: Callable[[], object], monkeypatch: pytest.MonkeyPatch, timeout: float = -1) -> Claim:
    """Let a claim wait for the turn, which it cannot have yet; its wait does *first*."""

    class Threading:
        Lock = staticmethod(lambda: Called(first))
        get_ident = staticmethod(threading.get_ident)

    monkeypatch.setattr(module, "threading", Threading)
    claim = Claim(turn)
    assert claim.take(timeout)
    return claim


def interrupt(*first: Callable[[], object]) -> Callable[[], object]:
    def act() -> None:
        for each in first:
            each()
        raise KeyboardInterrupt

    return act


def test_one_that_is_interrupted_leaves_the_line(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    with Claim(turn):
        with pytest.raises(KeyboardInterrupt):
            wait_with(turn, interrupt(), monkeypatch)
        assert not turn.wanted
    assert turn.owner == 0


def test_one_that_is_interrupted_when_it_was_just_called_gives_it_on(
    turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Claim(turn)
    assert mine.take()
    with pytest.raises(KeyboardInterrupt):
        wait_with(turn, interrupt(mine.give), monkeypatch)
    assert (turn.owner, turn.wanted) == (0, False)


def test_one_that_is_called_in_the_moment_when_it_stops_waiting_has_it(
    turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Claim(turn)
    assert mine.take()
    claim = wait_with(turn, mine.give, monkeypatch, timeout=1e-9)
    assert turn.owner == threading.get_ident()
    claim.give()
    assert (turn.owner, turn.wanted) == (0, False)


@pytest.mark.parametrize("step", ["_granted", "_lined_up", "_withdraw", "_forget_the_dead"])
@pytest.mark.parametrize("after", [False, True])
def test_an_exception_before_or_after_a_step_leaves_it_free(
    turn: Turn, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a first taking, of one that lines up, and of giving back is cut short once."""
    real: Any = getattr(Turn, step)
    left = 1

    def cut(self: Turn, *args: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise KeyboardInterrupt
        found = real(self, *args)
        if left == 0:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Turn, step, cut)
    for number in range(1, 6):
        left = number
        with suppress(KeyboardInterrupt), Claim(turn), suppress(KeyboardInterrupt):
            Claim(turn).take(0.001)
        left = 0
        last = Claim(turn)
        assert last.take(PATIENCE), (step, number)
        last.give()
        assert (turn.owner, turn.wanted) == (0, False)


# ---- Blocks that are over ----


class Cut(Claim):
    """A block whose end is cut short at its first step."""

    def leave(self, *_: object) -> None:
        raise KeyboardInterrupt


def test_a_block_that_is_over_has_it_no_more_even_if_its_exception_is_kept(turn: Turn) -> None:
    kept: list[BaseException] = []
    block = Cut(turn)
    try:
        with block:
            assert turn.owner == threading.get_ident()
    except KeyboardInterrupt as e:
        kept.append(e)
    assert turn.owner == 0
    with Claim(turn):
        assert turn.owner == threading.get_ident()
    assert kept


def test_those_who_wait_notice_that_a_block_is_over(turn: Turn, line: Line[Any]) -> None:
    """Nobody calls them: they look."""
    served: list[int] = []

    def wait(number: int) -> None:
        with Claim(turn):
            served.append(number)

    with Threads() as threads, suppress(KeyboardInterrupt), Cut(turn):
        for number in range(3):
            threads.start(lambda number=number: wait(number))  # type: ignore[misc]
            line.came()
    assert served == [0, 1, 2]
    assert (turn.owner, turn.wanted) == (0, False)


def test_one_that_waits_and_is_over_is_passed_over(turn: Turn, line: Line[Any]) -> None:
    """Its thread was cut short on its way out of the line."""
    with Claim(turn):
        dead = Claim(turn)
        assert dead.over is not None
        line.append(module._Claim(dead.over))
        assert turn.wanted
        del dead
    with Claim(turn):
        assert turn.owner == threading.get_ident()
    assert (turn.owner, turn.wanted) == (0, False)


def test_a_claim_without_a_block_is_over_when_nobody_has_it(turn: Turn) -> None:
    claim = Claim(turn)
    assert claim.take()
    assert turn.owner
    del claim
    assert turn.owner == 0


def test_one_at_a_time_has_it(turn: Turn) -> None:
    """Whatever the threads do: a sum that would lose additions without it comes out right."""
    total = 0

    def add() -> None:
        nonlocal total
        for number in range(200):
            claim = Claim(turn)
            if not claim.take(0.0 if number % 7 == 0 else PATIENCE):
                assert number % 7 == 0
                assert claim.take(PATIENCE)
            before = total
            threading.Event().wait(0)
            total = before + 1
            claim.give()

    with Threads() as threads:
        for _ in range(8):
            threads.start(add)
    assert total == 8 * 200
    assert (turn.owner, turn.wanted) == (0, False)


def test_a_thread_has_a_name_for_messages() -> None:
    assert thread_name(threading.get_ident()) == threading.current_thread().name
    assert thread_name(0) == "one that ended"
