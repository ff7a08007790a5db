"""The tables, indexes, triggers and views of a store, compared with what the migrations make.

One index may be there or not: that for histories, which `Store.index_history()` makes and drops.

Tables and views of other programs in the same file are ignored, with the indexes and triggers on them. On our tables
only our own indexes and triggers are allowed: every write maintains a foreign index, and can fail because of it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.sqlite.connection import memory
from sqlstate.tables import migrations, wal_changes

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.migrations import Migration


class SchemaItem(NamedTuple):
    """One row of sqlite_schema."""

    kind: str
    """`"table"`, `"index"`, `"trigger"` or `"view"`."""
    name: str
    table: str
    """The table that it belongs to; for a table or view, its own name."""
    sql: str | None

    def __str__(self) -> str:
        on = f" on {self.table}" if self.kind in ("index", "trigger") else ""
        return f"{self.kind} {self.name}{on}"


class Differences(NamedTuple):
    """How a file's schema differs from a store's."""

    tables: tuple[SchemaItem, ...] = ()
    """Our tables that are missing or were changed: the file cannot be trusted."""
    lost: tuple[SchemaItem, ...] = ()
    """Our indexes, triggers and views that are missing, as the migrations make them."""
    changed: tuple[SchemaItem, ...] = ()
    """Our indexes, triggers and views that were changed, as the migrations make them."""
    added: tuple[SchemaItem, ...] = ()
    """Foreign indexes and triggers on our tables and views, and foreign objects with a name of ours."""
    foreign: tuple[str, ...] = ()
    """Names of foreign objects in the file, which are ignored."""

    @property
    def sentences(self) -> list[str]:
        """What is wrong, in one sentence each."""
        return [
            *(f"{part} is missing or was changed from outside" for part in self.tables),
            *(f"{part} is missing" for part in self.lost),
            *(f"{part} was changed from outside" for part in self.changed),
            *(f"{part} is not the store's, and stands on what is" for part in self.added if part.kind != "table"),
            *self.unmendable,
        ]

    @property
    def mendable(self) -> list[str]:
        """What drop() and make() do about it, in one sentence each."""
        return [
            *(f"{part} was removed" for part in self.added if part.kind != "table"),
            *(f"{part} was made again" for part in (*self.lost, *self.changed) if part.name.lower() not in self.taken),
        ]

    @property
    def unmendable(self) -> list[str]:
        """What drop() and make() cannot mend, in one sentence each."""
        return [f"{part} has a name that the store needs: rename it" for part in self.added if part.kind == "table"]

    @property
    def taken(self) -> set[str]:
        """Names of ours, in lower case, that foreign tables have."""
        return {part.name.lower() for part in self.added if part.kind == "table"}


def differences(connection: Connection) -> Differences:
    """Return how the file's schema differs from what the migrations make."""
    found = _parts(connection)
    expected = _expected(migrations.shipped())
    if found - {_OPTIONAL} == expected:
        return _NONE
    if _place(_OPTIONAL) in map(_place, found):
        expected |= {_OPTIONAL}
    missing = {_place(part): part for part in sorted(expected - found)}
    names = {part.name for part in expected}
    own = {part.name for part in expected if part.kind in ("table", "view")}
    changed: list[SchemaItem] = []
    added: list[SchemaItem] = []
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


def _place(part: SchemaItem) -> tuple[str, str, str]:
    """Return what identifies an object: SQLite ignores case in names."""
    return part.kind, part.name.lower(), part.table.lower()


def check_tables(connection: Connection) -> None:
    """Raise unless our tables are there as the migrations make them.

    Raises:
        Damaged: a table is missing, or was changed: a column was added, or a constraint.
    """
    found = differences(connection)
    if found.tables:
        what = "; ".join(found.sentences[: len(found.tables)])
        raise Damaged.about(connection.path, what, "nothing was written. Undo that, or restore a backup")


def check(connection: Connection) -> None:
    """Raise unless our schema is as the migrations make it, without foreign indexes and triggers on it.

    Raises:
        Damaged: names what differs.
    """
    said = differences(connection).sentences
    if said:
        raise Damaged(
            f"{connection.path}: {'; '.join(said)}; nothing was written. The store can still be read; "
            "sqlstate.repair() restores its schema"
        )


def drop(connection: Connection, found: Differences) -> None:
    """Drop foreign indexes and triggers on our tables, and what of ours was changed. Foreign tables stay."""
    for part in (*found.added, *found.changed):
        if part.kind != "table":
            name = part.name.replace('"', '""')
            connection.run(f'DROP {part.kind} IF EXISTS "{name}"')


def make(connection: Connection, found: Differences) -> None:
    """Create what is missing of ours, after drop(), unless a foreign table has its name.

    Raises:
        Damaged: rows contradict one of our indexes.
    """
    for part in (*found.lost, *found.changed):
        if part.name.lower() not in found.taken:
            connection.run(str(part.sql))


def tables() -> frozenset[str]:
    """Return the names of our tables."""
    return frozenset(part.name for part in _expected(migrations.shipped()) if part.kind == "table")


_NONE: Final = Differences()
_OPTIONAL: Final = SchemaItem("index", wal_changes.HISTORY_INDEX, "wal", wal_changes.MAKE_HISTORY_INDEX)


def _parts(connection: Connection) -> frozenset[SchemaItem]:
    return frozenset(SchemaItem(*row) for row in connection.rows("SELECT type, name, tbl_name, sql FROM sqlite_schema"))


@lru_cache(maxsize=4)
def _expected(shipped: tuple[Migration, ...]) -> frozenset[SchemaItem]:
    connection = memory()
    migrations.apply(connection, shipped, "")
    return _parts(connection)
