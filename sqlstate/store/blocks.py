"""The blocks of `store.transaction()` and `batch.transaction()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlstate.errors import TransactionEnded
from sqlstate.sqlite.blocks import Block
from sqlstate.store.open_transaction import OpenTransaction, Part
from sqlstate.store.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.commit.group import GroupCommit

R = TypeVar("R")


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

    def enter(self) -> Transaction:
        """Begin it, and return its face."""
        return Transaction(super().enter())

    def __getattr__(self, name: str) -> Any:
        raise unbegun(name, Transaction, "transaction")

    def __getitem__(self, collection: str) -> Any:
        raise unbegun("__getitem__", Transaction, "transaction")


class PartBlock(Part):
    """What `batch.transaction()` returns."""

    __slots__ = ()

    def enter(self) -> Transaction:
        """Begin it, and return its face."""
        return Transaction(super().enter())

    def __getattr__(self, name: str) -> Any:
        raise unbegun(name, Transaction, "transaction")

    def __getitem__(self, collection: str) -> Any:
        raise unbegun("__getitem__", Transaction, "transaction")


def unbegun(name: str, kind: type, word: str) -> Exception:
    """Return what to raise where *name* is looked up in a block that was not entered, and *kind* may have it."""
    if name == "__getitem__" or (not name.startswith("_") and hasattr(kind, name)):
        return TransactionEnded(
            f"the {word} has not begun, and nothing was changed; use it in a block: `with store.{word}() as {word}:`"
        )
    return AttributeError(f"the block of a {word} has no attribute {name!r}")


def on_face(work: Callable[[Transaction], R]) -> Callable[[OpenTransaction], R]:
    """Return a function of an open transaction that calls *work* with its face."""
    return lambda txn: work(Transaction(txn))
