"""The names that a source of an import has given: a name given twice is found, however far apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlstate.importing.exact_json import SourceError
from sqlstate.sqlite.connection import Connection

if TYPE_CHECKING:
    from sqlstate.format.names import Name

# Names of one source that are kept in memory; the others go to a temporary file.
NAMES_KEPT: Final = 65_536


class Seen:
    """The names that a source has given. The memory it takes does not grow with the source."""

    def __init__(self) -> None:
        self._recent: dict[Name, str] = {}
        self._unchecked: list[Name] = []
        self._others: Connection | None = None

    def add(self, name: Name, place: str) -> None:
        """Note that *name* was given at *place*; raise if it is among the names in memory."""
        if name in self._recent:
            raise _twice(name, place, self._recent[name])
        self._recent[name] = place
        self._unchecked.append(name)
        if len(self._recent) >= NAMES_KEPT:
            self._set_aside()

    def check(self) -> None:
        """Raise if a name in memory is also in the temporary file."""
        if self._others is not None:
            for name in self._unchecked:
                row = self._others.row(_PLACE, (name[0], name[2]))
                if row is not None:
                    raise _twice(name, self._recent[name], row[0])
        self._unchecked.clear()

    def close(self) -> None:
        """Remove the temporary file."""
        if self._others is not None:
            self._others.close()

    def _set_aside(self) -> None:
        self.check()
        if self._others is None:
            self._others = Connection("", 0.0)  # SQLite's name for a database in a temporary file
            self._others.path = "the temporary file of the import"
            self._others.run(_SET_UP)
        rows = [(name[0], name[2], self._recent[name]) for name in sorted(self._recent)]
        self._others.run_many("INSERT INTO seen VALUES (?, ?, ?)", rows)
        self._recent.clear()


_SET_UP: Final = "CREATE TABLE seen (collection, key, place, PRIMARY KEY (collection, key)) WITHOUT ROWID; BEGIN"
_PLACE: Final = "SELECT place FROM seen WHERE collection = ? AND key = ?"


def _twice(name: Name, place: str, first: str) -> SourceError:
    reason = f"{name[0]!r} gets the key {name[2]!r} a second time; it was first given at {first}"
    return SourceError(place, reason)
