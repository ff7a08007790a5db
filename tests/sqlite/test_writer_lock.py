"""Goal: threads get the writing connection in the order in which they came, and one that stops waiting is not in the
way of the others; nor is a block that is over and could not say so. Method: the test knows by the line itself when a
thread stands in it; nothing is timed."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from sqlstate.sqlite import writer_lock as module
from sqlstate.sqlite.writer_lock import WriterLock, thread_name
from tests.support.lines import PATIENCE, Claim, Line, Threads

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def lock() -> WriterLock:
    return WriterLock()


@pytest.fixture
def line(lock: WriterLock) -> Line[Any]:
    """The line of those who wait for it."""
    line: Line[Any] = Line()
    lock._waiting = line  # type: ignore[misc]
    return line


def test_who_comes_first_has_it_at_once(lock: WriterLock) -> None:
    assert (lock.owner, lock.wanted) == (0, False)
    claim = Claim(lock)
    assert claim.take()
    assert (lock.owner, lock.wanted) == (threading.get_ident(), False)
    claim.give()
    assert lock.owner == 0
    assert claim.take(0)


def test_waiters_get_it_in_the_order_in_which_they_came(lock: WriterLock, line: Line[Any]) -> None:
    served: list[int] = []

    def wait(number: int) -> None:
        with Claim(lock):
            served.append(number)

    with Threads() as threads, Claim(lock):
        for number in range(8):
            threads.start(lambda number=number: wait(number))  # type: ignore[misc]
            line.came()
        assert lock.wanted
    assert served == list(range(8))
    assert (lock.owner, lock.wanted) == (0, False)


def test_who_gives_it_away_and_wants_it_again_stands_last(lock: WriterLock, line: Line[Any]) -> None:
    """A thread that writes in a loop must not keep the others from it, as it could with a common lock."""
    served: list[str] = []

    def write(name: str) -> None:
        with Claim(lock):
            served.append(name)

    with Threads() as threads:
        with Claim(lock):
            for name in "ab":
                threads.start(lambda name=name: write(name))  # type: ignore[misc]
                line.came()
        write("me")
    assert served == ["a", "b", "me"]


def test_nobody_overtakes_those_who_wait(lock: WriterLock, line: Line[Any]) -> None:
    """Between release() and the waiter's waking, nobody else can take it."""
    go = threading.Event()

    def wait() -> None:
        with Claim(lock):
            go.wait(PATIENCE)

    mine = Claim(lock)
    assert mine.take()
    with Threads() as threads:
        threads.start(wait)
        line.came()
        mine.give()
        assert lock.owner != threading.get_ident()
        assert Claim(lock).take(0) is False
        go.set()


def test_giving_what_is_another_s_does_nothing(lock: WriterLock) -> None:
    mine, other = Claim(lock), Claim(lock)
    other.give()
    assert mine.take()
    other.give()
    assert lock.owner == threading.get_ident()
    assert not other.take(0)
    mine.give()
    mine.give()
    assert other.take(0)


def test_taking_without_waiting_does_not_join_the_line(lock: WriterLock, line: Line[Any]) -> None:
    with Claim(lock):
        assert Claim(lock).take(0) is False
        assert not lock.wanted
        assert len(line) == 0
    last = Claim(lock)
    assert last.take(0) is True


def test_one_that_times_out_leaves_the_line(lock: WriterLock, line: Line[Any]) -> None:
    served: list[str] = []
    left = threading.Event()

    def give_up() -> None:
        assert Claim(lock).take(0.001) is False
        left.set()

    def wait() -> None:
        with Claim(lock):
            served.append("second")

    with Threads() as threads, Claim(lock):
        threads.start(give_up)
        line.came()
        threads.start(wait)
        line.came()
        assert left.wait(PATIENCE)
        assert len(line) == 1
    assert served == ["second"]
    assert lock.owner == 0


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


def wait_with(
    lock: WriterLock, first: Callable[[], object], monkeypatch: pytest.MonkeyPatch, timeout: float = -1
) -> Claim:
    """Let a claim wait for the lock, which it cannot have yet; its wait does *first*."""

    class Threading:
        Lock = staticmethod(lambda: Called(first))
        get_ident = staticmethod(threading.get_ident)

    monkeypatch.setattr(module, "threading", Threading)
    claim = Claim(lock)
    assert claim.take(timeout)
    return claim


def interrupt(*first: Callable[[], object]) -> Callable[[], object]:
    def act() -> None:
        for each in first:
            each()
        raise KeyboardInterrupt

    return act


def test_one_that_is_interrupted_leaves_the_line(lock: WriterLock, monkeypatch: pytest.MonkeyPatch) -> None:
    with Claim(lock):
        with pytest.raises(KeyboardInterrupt):
            wait_with(lock, interrupt(), monkeypatch)
        assert not lock.wanted
    assert lock.owner == 0


def test_one_that_is_interrupted_when_it_was_just_called_gives_it_on(
    lock: WriterLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Claim(lock)
    assert mine.take()
    with pytest.raises(KeyboardInterrupt):
        wait_with(lock, interrupt(mine.give), monkeypatch)
    assert (lock.owner, lock.wanted) == (0, False)


def test_one_that_is_called_in_the_moment_when_it_stops_waiting_has_it(
    lock: WriterLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Claim(lock)
    assert mine.take()
    claim = wait_with(lock, mine.give, monkeypatch, timeout=1e-9)
    assert lock.owner == threading.get_ident()
    claim.give()
    assert (lock.owner, lock.wanted) == (0, False)


@pytest.mark.parametrize("step", ["_grant", "_line_up", "_withdraw", "_drop_dead_claims"])
@pytest.mark.parametrize("after", [False, True])
def test_an_exception_before_or_after_a_step_leaves_it_free(
    lock: WriterLock, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a first taking, of one that lines up, and of giving back is cut short once."""
    real: Any = getattr(WriterLock, step)
    left = 1

    def cut(self: WriterLock, *args: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise KeyboardInterrupt
        found = real(self, *args)
        if left == 0:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(WriterLock, step, cut)
    for number in range(1, 6):
        left = number
        with suppress(KeyboardInterrupt), Claim(lock), suppress(KeyboardInterrupt):
            Claim(lock).take(0.001)
        left = 0
        last = Claim(lock)
        assert last.take(PATIENCE), (step, number)
        last.give()
        assert (lock.owner, lock.wanted) == (0, False)


# ---- Blocks that are over ----


class Cut(Claim):
    """A block whose end is cut short at its first step."""

    def leave(self, *_: object) -> None:
        raise KeyboardInterrupt


def test_a_block_that_is_over_has_it_no_more_even_if_its_exception_is_kept(lock: WriterLock) -> None:
    kept: list[BaseException] = []
    block = Cut(lock)
    try:
        with block:
            assert lock.owner == threading.get_ident()
    except KeyboardInterrupt as e:
        kept.append(e)
    assert lock.owner == 0
    with Claim(lock):
        assert lock.owner == threading.get_ident()
    assert kept


def test_those_who_wait_notice_that_a_block_is_over(lock: WriterLock, line: Line[Any]) -> None:
    """Nobody calls them: they look."""
    served: list[int] = []

    def wait(number: int) -> None:
        with Claim(lock):
            served.append(number)

    with Threads() as threads, suppress(KeyboardInterrupt), Cut(lock):
        for number in range(3):
            threads.start(lambda number=number: wait(number))  # type: ignore[misc]
            line.came()
    assert served == [0, 1, 2]
    assert (lock.owner, lock.wanted) == (0, False)


def test_one_that_waits_and_is_over_is_passed_over(lock: WriterLock, line: Line[Any]) -> None:
    """Its thread was cut short on its way out of the line."""
    with Claim(lock):
        dead = Claim(lock)
        assert dead.over is not None
        line.append(module._Claim(dead.over))
        assert lock.wanted
        del dead
    with Claim(lock):
        assert lock.owner == threading.get_ident()
    assert (lock.owner, lock.wanted) == (0, False)


def test_a_claim_without_a_block_is_over_when_nobody_has_it(lock: WriterLock) -> None:
    claim = Claim(lock)
    assert claim.take()
    assert lock.owner
    del claim
    assert lock.owner == 0


def test_one_at_a_time_has_it(lock: WriterLock) -> None:
    """Whatever the threads do: a sum that would lose additions without it comes out right."""
    total = 0

    def add() -> None:
        nonlocal total
        for number in range(200):
            claim = Claim(lock)
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
    assert (lock.owner, lock.wanted) == (0, False)


def test_a_thread_has_a_name_for_messages() -> None:
    assert thread_name(threading.get_ident()) == threading.current_thread().name
    assert thread_name(0) == "one that ended"
