"""The blocks of `store.transaction()` and `batch.transaction()`, and attempts at them."""

from __future__ import annotations

from time import sleep
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, TypeVar

from sqlstate.commit.requests import pause
from sqlstate.errors import Busy, Conflict, InvalidOption, TransactionEnded
from sqlstate.format.documents import short_repr
from sqlstate.sqlite.blocks import Block
from sqlstate.store.open_transaction import OpenTransaction, Part
from sqlstate.store.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.commit.group import GroupCommit

R = TypeVar("R")

RETRIED: Final = (Busy, Conflict)
"""After these nothing was changed, and another attempt may go well."""


class WriteBlock(Block):
    """A block that is a transaction: of its own, or part of what this thread has open."""

    __slots__ = ("_group", "_note", "_outer", "_txn")

    def __init__(self, group: GroupCommit[OpenTransaction], note: str = "") -> None:
        super().__init__()
        self._group = group
        self._note = note

    def enter(self) -> Any:
        """Begin it; one of its own waits for the writing connection."""
        self._outer = self._group.open_blocks.innermost()
        self._group.context.nothing_made()
        begin = self._group.begin if self._outer is None else self._outer.begin_inside
        self._txn: OpenTransaction = begin(self._note, self.over)
        return self._txn

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """Make it durable, or undo it."""
        group = self._group
        try:
            if self._outer is None:
                group.end(self.over, self._txn, keep=kind is None)
            else:
                self._outer.end_inside(self.over, self._txn, keep=kind is None)
        except BaseException as e:
            group.context.note_outcome(e)
            raise


class TransactionBlock(WriteBlock):
    """What `store.transaction()` returns."""

    __slots__ = ()

    use: ClassVar[str] = "with store.transaction() as transaction:"
    """How it begins."""

    def enter(self) -> Transaction:
        """Begin it, and return its face."""
        return Transaction(super().enter())

    def __getattr__(self, name: str) -> Any:
        raise unbegun(name, Transaction, "transaction", self.use)

    def __getitem__(self, collection: str) -> Any:
        raise unbegun("__getitem__", Transaction, "transaction", self.use)


class PartBlock(Part):
    """What `batch.transaction()` returns."""

    __slots__ = ()

    def enter(self) -> Transaction:
        """Begin it, and return its face."""
        return Transaction(super().enter())

    def __getattr__(self, name: str) -> Any:
        raise unbegun(name, Transaction, "transaction", "with batch.transaction() as transaction:")

    def __getitem__(self, collection: str) -> Any:
        raise unbegun("__getitem__", Transaction, "transaction", "with batch.transaction() as transaction:")


def unbegun(name: str, kind: type, word: str, use: str) -> Exception:
    """Return what to raise where *name* is looked up in a block that was not entered, and *kind* may have it."""
    if name == "__getitem__" or (not name.startswith("_") and hasattr(kind, name)):
        return TransactionEnded(f"the {word} has not begun, and nothing was changed; use it in a block: `{use}`")
    return AttributeError(f"the block of a {word} has no attribute {name!r}")


def on_face(work: Callable[[Transaction], R]) -> Callable[[OpenTransaction], R]:
    """Return a function of an open transaction that calls *work* with its face."""
    return lambda txn: work(Transaction(txn))


def check_retries(retries: int) -> int:
    """Return *retries* if it is a number of further attempts.

    Raises:
        InvalidOption: it is not an int, 0 or more.
    """
    if type(retries) is not int or retries < 0:
        raise InvalidOption(f"retries={short_repr(retries)} is not a number of further attempts, 0 or more")
    return retries


def attempts_of(retries: int, word: str = "") -> InvalidOption:
    """Return what to raise where attempts are used as a block."""
    return InvalidOption(
        f"transaction(retries={retries}) gives attempts, for a loop: `{word}for attempt in "
        f"store.transaction(retries={retries}):`, and in it `{word}with attempt as txn:`"
    )


class Attempts:
    """Attempts at a transaction, for a loop. Made by `store.transaction(retries=)`.

    Each turn of the loop gives one, for a `with` block. If Busy or Conflict ends the block and attempts are left, the
    exception goes no further and the loop goes on. A block that ends in any other way ends the loop.

    Inside a transaction or batch of the same thread there is one attempt: that one's end decides, and another attempt
    would see the same.

    Examples:
        >>> for attempt in store.transaction(retries=3):
        ...     with attempt as txn:
        ...         visits = txn.get("counters", "visits", 0)
        ...         txn.put("counters", "visits", visits + 1)
        >>> store["counters"]["visits"]
        1
    """

    __slots__ = ("_group", "_note", "_retries")

    def __init__(self, group: GroupCommit[OpenTransaction], note: str, retries: int) -> None:
        self._group = group
        self._note = note
        self._retries = check_retries(retries)

    def __iter__(self) -> Iterator[Attempt]:
        """Yield attempts, until the block of one ends well."""
        left = self._retries if self._group.open_blocks.innermost() is None else 0
        while True:
            attempt = Attempt(self._group, self._note, left)
            yield attempt
            if not attempt.failed:
                return
            left = attempt.left
            sleep(pause(self._retries - left))

    def __enter__(self) -> NoReturn:
        raise attempts_of(self._retries)

    def __exit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return f"<sqlstate.Attempts at a transaction: {self._retries + 1:,}>"


class Attempt(TransactionBlock):
    """One attempt at a transaction, for a `with` block."""

    __slots__ = ("failed", "left")

    use = "with attempt as txn:"
    failed: bool
    """Whether it ended so that another one is to be made."""
    left: int
    """How many others can be made."""

    def __init__(self, group: GroupCommit[OpenTransaction], note: str, left: int) -> None:
        super().__init__(group, note)
        self.left = left
        self.failed = False

    if TYPE_CHECKING:

        def __enter__(self) -> Transaction: ...
        def __exit__(self, *error: Any) -> bool: ...  # type: ignore[override]

    def enter(self) -> Transaction:
        """Begin it; a block cannot be left before it has begun, so the Busy of others is waited for here."""
        while True:
            try:
                return super().enter()
            except Busy:
                if not self.left:
                    raise
                self.left -= 1

    def leave(self, kind: type[BaseException] | None, *error: object) -> bool:  # type: ignore[override]
        """End it; return True if its exception goes no further."""
        try:
            super().leave(kind, *error)
        except RETRIED:
            if not self.left or not (kind is None or issubclass(kind, RETRIED)):
                raise
            self.failed = True
        else:
            self.failed = self.left > 0 and kind is not None and issubclass(kind, RETRIED)
        self.left -= self.failed
        return self.failed

    def __repr__(self) -> str:
        return f"<an attempt at a transaction: {self.left:,} more can be made>"


def in_attempts(work: Callable[[], R], retries: int) -> R:
    """Return what *work* returns, which is done again after each Busy and Conflict, *retries* times at most."""
    for failures in range(1, retries + 1):
        try:
            return work()
        except RETRIED:
            sleep(pause(failures))
    return work()
