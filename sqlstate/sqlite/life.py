"""The state of an open store: usable, closed, failed, or opened by a parent process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from sqlstate.errors import ReadOnly, StoreClosed, StoreError
from sqlstate.sqlite.events import log
from sqlstate.sqlite.forks import refusal
from sqlstate.sqlite.pages import Pages

if TYPE_CHECKING:
    from sqlstate.format.records import Head


class Life:
    """The state of one handle from open() to close(), shared by all its parts.

    Args:
        path: the file, for messages.
        read_only: writes are refused.
    """

    __slots__ = ("closed", "failure", "forked", "ordinary", "pages", "path", "read_only")

    closed: bool
    """Whether close() was called."""
    failure: str
    """Why the handle refuses further work; "" if it does not."""
    forked: bool
    """Whether the store was opened by a parent process, before a fork."""
    ordinary: bool
    """Whether the store is usable, and its file locked by what reads it: a get has no time to look further."""

    def __init__(self, path: str, *, read_only: bool) -> None:
        self.path: str = path
        self.pages: Final = Pages()
        """What scans of the store have read, and not yet yielded."""
        self.read_only: bool = read_only
        self.closed = False
        self.failure = ""
        self.forked = False
        self.ordinary = True

    @property
    def usable(self) -> bool:
        """Whether check() would pass."""
        return not (self.forked or self.closed or self.failure)

    def close(self) -> None:
        """Refuse all further work: the store is closed."""
        self.closed, self.ordinary = True, False
        self.pages.clear()

    def fork(self) -> None:
        """Refuse all further work: this is the child of a fork."""
        self.forked, self.ordinary = True, False
        self.pages.clear()

    def fail(self, failure: str) -> None:
        """Refuse all further work, because of *failure*, and log that once."""
        first, self.failure, self.ordinary = not self.failure, failure, False
        if first:
            log("error", f"{self.path}: {failure}; this handle refuses further work")

    def check(self) -> None:
        """Raise if the store was closed, opened before a fork, or failed.

        Raises:
            StoreForked, StoreClosed: it was.
        """
        if self.forked or self.closed or self.failure:
            raise self.refusal()

    def check_forked(self) -> None:
        """Raise if this is the child of a fork.

        Raises:
            StoreForked: it is.
        """
        if self.forked:
            raise self.refusal()

    def refusal(self) -> StoreError:
        """Return the error that check() raises."""
        if self.forked:
            return refusal(self.path)
        if self.closed:
            return StoreClosed(f"{self.path}: the store is closed")
        return StoreClosed(f"{self.path}: {self.failure}; this handle refuses further work. Open the store again")

    def check_writable(self) -> None:
        """Raise if the store cannot be used, or was opened for reading.

        Raises:
            StoreForked, StoreClosed, ReadOnly: it cannot.
        """
        self.check()
        if self.read_only:
            raise ReadOnly(f"{self.path} was opened with read_only=True; nothing was changed")


class Bell(Protocol):
    """What wakes one that waits: an event of threading, or of an event loop."""

    def set(self) -> object:
        """Wake it. Called twice is as good as once."""


class Watchers(set[Bell]):
    """The bells of those who wait, each from before its own look until its wait is over.

    A wait can end anywhere, by an exception too. So who looks for all is not kept up to date: it is whose bell is
    still in the set.
    """

    __slots__ = ("_leader", "_newest")

    def __init__(self) -> None:
        super().__init__()
        self._leader: Bell | None = None
        self._newest: Head | None = None

    def ring(self) -> None:
        """Wake all of them."""
        for bell in list(self):  # other threads change the set
            bell.set()

    def leads(self, bell: Bell) -> bool:
        """Return True if the owner of *bell*, which is in the set, is to look for all."""
        if self._leader not in self:
            self._leader = bell
        return self._leader is bell

    def seen(self, newest: Head) -> None:
        """Take note of the newest commit on behalf of all, and wake them if it is another than before."""
        if newest != self._newest:
            self._newest = newest
            self.ring()

    def known(self, after: int) -> list[Head]:
        """Return the one commit after number *after*, if it was seen and is the next, so that not everybody reads."""
        newest = self._newest
        return [newest] if newest is not None and newest.seq == after + 1 else []

    def leave(self, bell: Bell) -> None:
        """End the wait of the owner of *bell*. If it was the one that looks, another is woken to do that."""
        self.discard(bell)
        if self._leader not in self:
            for other in list(self)[:1]:
                other.set()
