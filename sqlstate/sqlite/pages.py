"""Rows that a scan has read and not yet yielded: taken away once what they were read from has ended."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


class Page(list[T]):
    """Some rows of a scan.

    Args:
        rows: these.
        each: what is to be made of each when its turn comes; None yields it as it is.
    """

    __slots__ = ("__weakref__", "_each")

    def __init__(self, rows: Iterable[T], each: Callable[[T], object] | None = None) -> None:
        super().__init__(rows)
        self._each = each

    def __iter__(self) -> Iterator[T]:
        """Yield what is made of the rows; clear() ends it."""
        rows = super().__iter__()
        return rows if self._each is None else map(self._each, rows)  # type: ignore[arg-type]


class Pages:
    """The pages of scans that read one thing: an open store, or a snapshot."""

    __slots__ = ("_shown",)

    def __init__(self) -> None:
        self._shown: weakref.WeakValueDictionary[int, Page[object]] = weakref.WeakValueDictionary()

    def shown(self, rows: list[T]) -> Page[T]:
        """Return *rows* as a page that a scan yields now."""
        page = rows if type(rows) is Page else Page(rows)
        self._shown[id(page)] = page
        return page

    def clear(self) -> None:
        """Take away the rows that were not yielded yet: the next step of a scan asks for more, and learns why."""
        for page in list(self._shown.values()):
            page.clear()
