"""Tells those who wait for a request what became of it."""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlstate.commit.requests import Request, Waited, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Answers:
    """The requests that have an outcome, in order, until it is told.

    Args:
        wake: wakes the store's own thread, which tells what is left here; raises RuntimeError if no thread can begin.
    """

    __slots__ = ("_done", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._done: deque[Request] = deque()

    def __bool__(self) -> bool:
        """Return True if somebody has not been told yet."""
        return bool(self._done)

    def waiting(self) -> list[Request]:
        """Return those who have not been told yet."""
        return [*self._done]

    def add(self, requests: Iterable[Request]) -> None:
        """Have *requests*, each of which has its outcome, told."""
        self._done.extend(requests)

    def refuse(self, requests: Iterable[Request], error: BaseException) -> None:
        """Have those of *requests*, none of which had begun, that were not withdrawn told that they failed."""
        self._done.extend([failed(request, error) for request in requests if request.begin()])

    def tell(self, *, only: type = Request) -> bool:
        """Tell all, up to the first that is not of *only*; return False if that one is left.

        Several threads can be at it.
        """
        done = self._done
        while True:
            try:
                request = done[0]
            except IndexError:
                return True
            if not isinstance(request, only):
                return False
            try:
                request.resolve()
            except BaseException:  # noqa: BLE001, a callback's: the others must be told all the same
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
                with suppress(BaseException):  # if it came before the outcome was told
                    request.resolve()
            with suppress(ValueError):
                done.remove(request)

    def have_told(self) -> None:
        """Have all told; for a thread that has the writing connection.

        It lets threads go on by itself. A callback might write, which this thread cannot do now: that is left to the
        store's own.
        """
        if not self.tell(only=Waited):
            try:
                self._wake()
            except RuntimeError:  # no thread can be begun
                self.tell()
