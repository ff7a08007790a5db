"""Objects that something must be done with as long as they live, whichever thread makes and drops them."""

from __future__ import annotations

import weakref
from typing import TypeVar

T = TypeVar("T")


class Living(weakref.WeakSet[T]):
    """A WeakSet that other threads may add to while it is read: its own iterator raises RuntimeError then."""

    data: set[weakref.ref[T]]

    def members(self) -> list[T]:
        """Return those that live. One that is added meanwhile may be missing."""
        # A copy is made in one step; each is asked for what it refers to afterwards.
        return [each for reference in self.data.copy() if (each := reference()) is not None]
