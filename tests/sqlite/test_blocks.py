"""Goal: a block is over once `with` is left, however it was left and whoever keeps the exception; not before.
Method: blocks whose end is cut short at its first step, as by Ctrl-C, and weak references that tell."""

from __future__ import annotations

import gc
from collections import deque
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from sqlstate.sqlite.blocks import Block


class Kept(Block):
    """Notes what happens to it."""

    __slots__ = ("calls",)

    def __init__(self, gone: Any = None) -> None:
        super().__init__(gone)
        self.calls: list[Any] = []

    def enter(self) -> str:
        assert self.over is not None
        self.calls.append(("enter", self.over() is not None))
        return "entered"

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        assert self.over is not None
        self.calls.append((kind, error, self.over() is not None))


class Cut(Kept):
    """Its end is cut short."""

    def leave(self, *error: Any) -> None:
        super().leave(*error)
        raise KeyboardInterrupt


def is_over(block: Block) -> bool:
    assert block.over is not None
    return block.over() is None


def test_it_is_not_over_in_its_block_and_over_after_it() -> None:
    block = Kept()
    assert not is_over(block)
    with block as entered:
        assert entered == "entered"
        assert not is_over(block)
        gc.collect()
        assert not is_over(block)
    assert is_over(block)
    assert block.calls == [("enter", True), (None, None, True)]


def test_leave_is_told_of_an_exception_and_does_not_swallow_it() -> None:
    block, error = Kept(), ValueError()
    with pytest.raises(ValueError) as caught, block:  # noqa: PT011
        raise error
    assert caught.value is error
    assert block.calls[1] == (ValueError, error, True)
    assert is_over(block)


@pytest.mark.parametrize("inside", [None, ValueError("inside")])
def test_it_is_over_even_if_its_end_was_cut_short_and_the_exception_is_kept(inside: Exception | None) -> None:
    block, kept = Cut(), None
    try:
        with block:
            if inside is not None:
                raise inside
    except KeyboardInterrupt as e:
        kept = e
    assert kept is not None
    assert kept.__context__ is inside
    assert is_over(block)


def test_it_is_over_if_its_beginning_failed() -> None:
    class Refused(Kept):
        def enter(self) -> str:
            raise LookupError

    block, kept = Refused(), None
    try:
        with block:
            pass
    except LookupError as e:
        kept = e
    assert kept is not None
    assert is_over(block)
    assert block.calls == []


def test_a_stack_of_contexts_ends_it() -> None:
    block = Kept()
    with ExitStack() as stack:
        assert stack.enter_context(block) == "entered"
        assert not is_over(block)
    assert block.calls[1] == (None, None, True)


def test_without_with_it_is_over_when_the_object_is_gone_or_exit_was_called_and_forgotten() -> None:
    gone: deque[Any] = deque()
    block = Kept(gone.append)
    assert block.__enter__() == "entered"
    over = block.over
    assert over is not None
    assert over() is block
    calls = block.calls
    del block
    gc.collect()
    assert over() is None
    assert calls == [("enter", True)], "nothing is done when it is gone"
    assert list(gone) == [over]


def test_exit_can_be_called_by_hand() -> None:
    block = Kept()
    block.__enter__()
    block.__exit__(None, None, None)
    assert [call[0] for call in block.calls] == ["enter", None]


def test_whoever_wants_to_know_is_told_once_that_it_is_over() -> None:
    gone: deque[Any] = deque()
    for kind in (Kept, Cut):
        block = kind(gone.append)
        with suppress(KeyboardInterrupt), block:
            assert not gone
        assert list(gone) == [block.over]
        gone.clear()


def test_each_with_of_one_object_is_a_block_of_its_own() -> None:
    block = Kept()
    with block:
        first = block.over
    with block:
        assert block.over is not first
        assert not is_over(block)
        assert first is not None
        assert first() is None
    assert is_over(block)


def test_a_block_that_does_neither_says_so() -> None:
    block = Block()
    with pytest.raises(NotImplementedError):
        block.enter()
    with pytest.raises(NotImplementedError):
        block.leave(None, None, None)
