"""Those who wait for the next commit of a store. One of them looks for all, whatever their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlstate.format.records import Head


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
