"""The tables, indexes, triggers and views of a store, compared with what the migrations make.

Tables and views of others in the same file are let be, with indexes and triggers on them. What stands on a table of
ours is ours alone: an index of somebody else is kept up by every write, and can make it fail.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.sqlite.connection import memory
from sqlstate.tables import migrations as migrate

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.migrations import Migration


class Part(NamedTuple):
    """One row of sqlite_schema."""

    kind: str
    """`"table"`, `"index"`, `"trigger"` or `"view"`."""
    name: str
    table: str
    """What it is on; of a table or view its own name."""
    sql: str | None

    def __str__(self) -> str:
        on = f" on {self.table}" if self.kind in ("index", "trigger") else ""
        return f"{self.kind} {self.name}{on}"


class Differences(NamedTuple):
    """How a file's schema differs from a store's."""

    tables: tuple[Part, ...] = ()
    """Tables of ours that are missing or were changed: nothing of the file can be relied on."""
    lost: tuple[Part, ...] = ()
    """Indexes, triggers and views of ours that are missing, as they must be."""
    changed: tuple[Part, ...] = ()
    """The same of those that were changed."""
    added: tuple[Part, ...] = ()
    """Indexes and triggers of others on tables and views of ours, and whatever has the name of one of ours."""
    foreign: tuple[str, ...] = ()
    """Names of what others have in the file. They are let be."""

    @property
    def sentences(self) -> list[str]:
        """What is wrong, a sentence each."""
        return [
            *(f"{part} is missing or was changed from outside" for part in self.tables),
            *(f"{part} is missing" for part in self.lost),
            *(f"{part} was changed from outside" for part in self.changed),
            *(f"{part} is not the store's, and stands on what is" for part in self.added if part.kind != "table"),
            *self.unmendable,
        ]

    @property
    def mendable(self) -> list[str]:
        """What drop() and make() do about it, a sentence each."""
        return [
            *(f"{part} was removed" for part in self.added if part.kind != "table"),
            *(f"{part} was made anew" for part in (*self.lost, *self.changed) if part.name.lower() not in self.taken),
        ]

    @property
    def unmendable(self) -> list[str]:
        """What they can do nothing about, a sentence each."""
        return [f"{part} has a name that the store needs: rename it" for part in self.added if part.kind == "table"]

    @property
    def taken(self) -> set[str]:
        """Names of ours, in small letters, that a table of others has."""
        return {part.name.lower() for part in self.added if part.kind == "table"}


def compare(connection: Connection) -> Differences:
    """Return how the file's schema differs from what the migrations make."""
    found = _parts(connection)
    expected = _expected(migrate.shipped())
    if found == expected:
        return _NONE
    missing = {_place(part): part for part in sorted(expected - found)}
    names = {part.name for part in expected}
    own = {part.name for part in expected if part.kind in ("table", "view")}
    changed: list[Part] = []
    added: list[Part] = []
    foreign: list[str] = []
    for part in sorted(found - expected, key=repr):
        kind, name, on = place = _place(part)
        if place in missing:
            changed.append(missing.pop(place))
        elif name in names or (on in own and kind in ("index", "trigger")):
            added.append(part)
        elif not name.startswith("sqlite_"):
            foreign.append(part.name)
    return Differences(
        tuple(part for part in (*missing.values(), *changed) if part.kind == "table"),
        tuple(part for part in missing.values() if part.kind != "table"),
        tuple(part for part in changed if part.kind != "table"),
        tuple(added),
        tuple(foreign),
    )


def _place(part: Part) -> tuple[str, str, str]:
    """Return what makes it the same thing: SQLite's names have no capitals."""
    return part.kind, part.name.lower(), part.table.lower()


def check_tables(connection: Connection) -> None:
    """Raise unless our tables are there as the migrations make them.

    Raises:
        Damaged: one is missing, or was changed from outside: a column was added, or a constraint.
    """
    found = compare(connection)
    if found.tables:
        what = "; ".join(found.sentences[: len(found.tables)])
        raise Damaged.about(connection.path, what, "nothing was written. Undo that, or restore a backup")


def check(connection: Connection) -> None:
    """Raise unless all of our schema is there as the migrations make it, and nothing of others stands on it.

    Raises:
        Damaged: it is not.
    """
    said = compare(connection).sentences
    if said:
        raise Damaged(
            f"{connection.path}: {'; '.join(said)}; nothing was written. The store can still be read; "
            "sqlstate.repair() restores its schema"
        )


def drop(connection: Connection, found: Differences) -> None:
    """Remove what is not ours and stands on what is, and what of ours was changed; tables of others stay."""
    for part in (*found.added, *found.changed):
        if part.kind != "table":
            name = part.name.replace('"', '""')
            connection.run(f'DROP {part.kind} IF EXISTS "{name}"')


def make(connection: Connection, found: Differences) -> None:
    """Make what is missing of ours anew, once drop() was called, but for what a table of others has the name of.

    Raises:
        Damaged: rows contradict an index of ours.
    """
    for part in (*found.lost, *found.changed):
        if part.name.lower() not in found.taken:
            connection.run(str(part.sql))


def tables() -> frozenset[str]:
    """Return the names of our tables."""
    return frozenset(part.name for part in _expected(migrate.shipped()) if part.kind == "table")


_NONE = Differences()


def _parts(connection: Connection) -> frozenset[Part]:
    return frozenset(Part(*row) for row in connection.rows("SELECT type, name, tbl_name, sql FROM sqlite_schema"))


@lru_cache(maxsize=4)
def _expected(migrations: tuple[Migration, ...]) -> frozenset[Part]:
    connection = memory()
    migrate.apply(connection, migrations, "")
    return _parts(connection)
