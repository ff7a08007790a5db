"""Rows that a scan has read and not yet yielded: taken away once what they were read from has ended."""

from __future__ import annotations

import weakref
from itertools import chain
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

T = TypeVar("T")


class Page(list[T]):
    """Some rows of a scan.

    Args:
        rows: these.
        make: returns an iterator over what is made of each when its turn comes; None yields them as they are.
    """

    __slots__ = ("__weakref__", "_make", "failed", "release")

    failed: bool
    """Whether *make* raised: that ends the scan, as it ends a generator."""
    release: Callable[[], object] | None
    """Called then, so that nothing is held for who keeps the exception."""

    def __init__(self, rows: Iterable[T], make: Callable[[Iterator[T]], Iterator[Any]] | None = None) -> None:
        super().__init__(rows)
        self._make = make
        self.failed = False
        self.release = None

    def __iter__(self) -> Iterator[T]:
        """Yield what is made of the rows; clear() ends it."""
        rows = super().__iter__()
        return rows if self._make is None else self._made(self._make(rows))

    def _made(self, made: Iterator[T]) -> Iterator[T]:
        try:
            yield from made
        except GeneratorExit:  # it was dropped, and the garbage collector may be at work
            raise
        except BaseException:
            self.failed = True
            self.clear()
            if self.release is not None:
                self.release()
            raise


class Rows(chain[T]):
    """The rows of pages, one after the other."""

    @classmethod
    def of(cls, pages: Generator[Iterable[T], None, None]) -> Self:
        """Yield the rows of what *pages* yields."""
        rows = cast("Self", cls.from_iterable(pages))
        rows._pages = pages  # noqa: SLF001, of its own class
        return rows

    _pages: Generator[Iterable[T], None, None]

    def close(self) -> None:
        """End the scan, and let what it reads go."""
        self._pages.close()


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
        for reference in self._shown.valuerefs():  # a list: other threads go on to show theirs
            page = reference()
            if page is not None:
                page.clear()
