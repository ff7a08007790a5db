"""What one transaction on a cluster reads: request by request, and all of one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.cluster.literals import marked, rows
from sqlstate.commit.requests import Overtaken
from sqlstate.errors import Damaged, NotAStore, StoreError, StoreFull, StoreIOError
from sqlstate.tables import meta as metadata
from sqlstate.tables import wal_chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlstate.cluster.nodes import Nodes, Result
    from sqlstate.sqlite.connection import Row

_STATE: Final = f"SELECT {wal_chain.NEWEST}, {metadata.MARKER}"
_GUARD_FAILED: Final = "NOT NULL constraint failed: meta.value"


class Moment(NamedTuple):
    """Which state of a cluster was read. No two have the same."""

    chain: bytes | None
    """Of the newest commit in the log; None without one."""
    marker: bytes


class Reads:
    """The reads of one transaction.

    Args:
        nodes: of the cluster.
        expected: what is asked together with the first statement.
        pinned: what was read must stay the newest; otherwise a later moment is as good, if it gives the same answers.
        loose: any moments are good.
    """

    __slots__ = ("_expected", "_loose", "_nodes", "known", "moment", "pinned")

    def __init__(
        self, nodes: Nodes, expected: Iterable[str] = (), *, pinned: bool = False, loose: bool = False
    ) -> None:
        self._loose = loose
        self._nodes = nodes
        self._expected = [*expected]
        self.pinned = pinned
        self.moment: Moment | None = None
        self.known: dict[str, list[Row]] = {}

    def ask(self, statements: Sequence[str]) -> list[list[Row]]:
        """Return the rows of each statement.

        Raises:
            Overtaken: another commit came between, and changed something.
        """
        missing = [each for each in dict.fromkeys([*statements, *self._expected]) if each not in self.known]
        self._expected = []
        if missing or self.moment is None:
            found = self._at_one_moment(missing)
            self.known.update(zip(missing, found, strict=True))
        return [self.known[each] for each in statements]

    def after(self, writes: Sequence[str], statements: Sequence[str]) -> list[list[Row]]:
        """Return the rows of each statement as it would find them after *writes*, in a request that is undone.

        Raises:
            Overtaken: another commit came between.
        """
        asked = [marked(_STATE, ()), "; ".join(writes), *statements, metadata.REFUSED]
        results = self._nodes.try_out(asked)
        if len(results) == len(asked):
            results.pop()
        state, _, *found = answers(self._nodes.name, results)
        if Moment(*state[0]) != self.moment:
            raise Overtaken(self._nodes.name)
        return found

    def _at_one_moment(self, missing: list[str]) -> list[list[Row]]:
        moment, found = self._read(missing, newest=self.moment is None or self._loose)
        if self.moment not in (None, moment) and not self._loose:
            if self.pinned:
                raise Overtaken(self._nodes.name)
            moment, again = self._read([*self.known, *missing], newest=True)
            earlier, found = again[: len(self.known)], again[len(self.known) :]
            if earlier != [*self.known.values()]:
                self.known.update({each: [] for each in missing})  # so that the next attempt asks for them at once
                raise Overtaken(self._nodes.name)
        self.moment = moment
        return found

    def _read(self, statements: list[str], *, newest: bool) -> tuple[Moment, list[list[Row]]]:
        """Read at the newest moment, or at any: where it is known, an equal one is the same state."""
        asked = [marked(_STATE, ()), *statements]
        state, *found = answers(self._nodes.name, self._nodes.query(asked, newest=newest))
        return Moment(*state[0]), found


def answers(path: str, results: Sequence[Result]) -> list[list[Row]]:
    """Return the rows of marked() statements.

    Raises:
        StoreError: as undone(), if one of them failed.
    """
    error = next((str(each["error"]) for each in results if "error" in each), "")
    if error:
        raise undone(path, error)
    return [rows(each.get("values")) for each in results]


def undone(path: str, error: str) -> StoreError:
    """Return our exception for an error of SQLite's on a node, which undid the request."""
    if _GUARD_FAILED in error or "already exists" in error:
        return Overtaken(path)
    if "no such table" in error or "no such column" in error:
        return NotAStore(f"{path}: the cluster does not hold a store any more ({error}); nothing was changed")
    if "disk is full" in error:
        return StoreFull(f"{path}: the disk of a node is full; nothing was changed. Free space there")
    if "malformed" in error:
        return Damaged(f"{path}: SQLite on a node found damage ({error}); nothing was changed")
    return StoreIOError(f"{path}: a node refused a statement ({error}); nothing was changed")
