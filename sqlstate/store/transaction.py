"""Transactions: what happens between `with` and the end of its block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlstate.errors import Conflict, InvalidOption
from sqlstate.format import constants as fmt
from sqlstate.format.names import check_collection, make_name
from sqlstate.format.values import ABSENT, JSON, same
from sqlstate.store.collection import Collections, encode

if TYPE_CHECKING:
    from sqlstate.format.names import Key
    from sqlstate.store.open_transaction import OpenTransaction


def check_note(note: str) -> str:
    """Return *note* if a BEGIN record can hold it.

    Raises:
        InvalidOption: it is not text of at most 4,096 bytes.
    """
    try:
        size = len(note.encode())
    except (AttributeError, UnicodeEncodeError):
        raise InvalidOption(f"note={note!r} is not text") from None
    if size > fmt.NOTE_BYTES_MAX:
        raise InvalidOption(f"a note has at most {fmt.NOTE_BYTES_MAX} bytes, this one {size}")
    return note


class Transaction(Collections):
    """Puts and deletes that take effect together or not at all. Made by `store.transaction()`.

    It sees its own writes, and nobody else does before it ends. `txn["users"]` is a mapping with all methods of a
    Collection. A transaction belongs to the thread that began it, and ends with its block.

    Writes are kept in memory, and carried into the tables together: at the end, before a scan or a `len()`, or when
    they come to 16,384 entries or 32 MiB. The log gets one record for each entry that then differs.

    Examples:
        >>> with store.transaction(note="pay") as txn:
        ...     txn.put("accounts", "ann", txn.get("accounts", "ann", 100) - 5)
        ...     txn["accounts"]["bob"] = txn["accounts"].get("bob", 0) + 5
        >>> dict(store["accounts"])
        {'ann': 95, 'bob': 5}
    """

    __slots__ = ("_entries",)

    _entries: OpenTransaction

    def __init__(self, entries: OpenTransaction) -> None:
        self._entries = entries

    def expect(self, collection: str, key: Key, value: Any) -> None:
        """Go on only if the entry has this value, as this transaction sees it.

        Values are compared as they are stored, so 1 and 1.0 differ.

        Cost: 1 statement.

        Args:
            collection: name of the collection.
            key: int, str or bytes.
            value: the value expected; `sqlstate.ABSENT` for no entry.

        Raises:
            Conflict: the entry has another value. Leaving the block with this exception undoes the transaction.
            InvalidName, InvalidKey, InvalidValue: no entry can be like this.
            TransactionEnded: the block has ended, or belongs to another thread.

        Examples:
            >>> with store.transaction() as txn:
            ...     txn.expect("users", 1, sqlstate.ABSENT)
            ...     txn.put("users", 1, "ada")
        """
        name = make_name(check_collection(collection), key)
        expected = None if value is ABSENT else encode(name, value)
        actual = self._entries.get_stored(name)
        if not same(actual, expected):
            raise Conflict(collection, key, value, ABSENT if actual is None else JSON.decode(actual))

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, as this transaction sees them.

        Cost: 1 statement, and what was written so far is carried into the tables.

        Raises:
            TransactionEnded: the block has ended, or belongs to another thread.

        Examples:
            >>> with store.transaction() as txn:
            ...     txn.put("users", 1, "ada")
            ...     print(txn.collections(), store.head().seq)
            ['users'] 0
        """
        return self._entries.collections()

    def __repr__(self) -> str:
        return repr(self._entries)
