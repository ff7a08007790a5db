"""The transactions of an import: entries that are there already are left alone, and an error says what was kept."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sqlstate.errors import ImportRejected, InvalidOption, StoreError
from sqlstate.store.access import entries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlstate.format.names import Name, Stored
    from sqlstate.store.open_transaction import OpenTransaction
    from sqlstate.store.store import Store


def check_batch(batch: int | None) -> None:
    """Raise unless *batch* is a number of entries, or None.

    Raises:
        InvalidOption: it is not.
    """
    if batch is not None and (type(batch) is not int or batch < 1):
        raise InvalidOption(f"batch={batch!r} is not a number of entries, 1 or more")


class Transactions:
    """Puts the entries of one import, and knows what it has done so far.

    Args:
        store: where to.
        note: for the BEGIN record of each transaction.
        check: called before each commit; raises if the source gave an entry twice.
    """

    def __init__(self, store: Store, note: str, check: Callable[[], None]) -> None:
        self.entries = 0
        self.changed = 0
        self.commits = 0
        self._store = store
        self._note = note
        self._check = check
        self._kept = 0
        self._base: int | None = None  # number of the commit that the open transaction began from

    def put_all(self, entries: Iterator[tuple[Name, Stored]], batch: int | None) -> None:
        """Put *entries*, in one transaction, or in one for each *batch* of them, which are read before it begins."""
        try:
            if batch is None:
                self._put(entries)
            else:
                while part := list(islice(entries, batch)):
                    self._put(part)
        except (StoreError, OSError, KeyboardInterrupt) as e:
            self._explain(e)
            raise

    def _put(self, entries: Iterable[tuple[Name, Stored]]) -> None:
        with self._store.transaction(self._note) as txn:
            self._base = self._store.head().seq
            within = entries_of(txn)
            within.put_all(self._counted(entries, within))
            self._check()
            within.apply()
            changed = within.changed
        self._kept = self.entries
        self.changed += changed
        self.commits += changed > 0 and self._store.head().seq > self._base
        self._base = None

    def _counted(
        self, entries: Iterable[tuple[Name, Stored]], within: OpenTransaction
    ) -> Iterator[tuple[Name, Stored]]:
        for entry in entries:
            self.entries += 1
            if within.holds(entry[0]):  # another source gave it: both changes count
                within.apply()
            yield entry

    def _explain(self, e: BaseException) -> None:
        """Add to *e* what it means for the data."""
        if self._kept:
            number = f"{self._kept:,} {'entry' if self._kept == 1 else 'entries'}"
            e.add_note(f"{number} of the transactions before stay imported")
        if isinstance(e, KeyboardInterrupt) and self._doubtful():
            e.add_note("whether the last transaction was committed is not certain; the store's head tells")
        elif isinstance(e, ImportRejected | OSError | KeyboardInterrupt):  # others say it themselves
            e.add_note("nothing of this transaction was kept" if self._kept else "nothing was imported")

    def _doubtful(self) -> bool:
        """Return True if the transaction may have been committed although its block did not end."""
        try:
            return self._base is not None and self._store.head().seq != self._base
        except StoreError:
            return True
