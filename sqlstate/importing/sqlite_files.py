"""SQLite files of other stores: sqlitedict, diskcache, dbm.sqlite3. None of their packages is needed, or runs."""

from __future__ import annotations

import os
import time
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import ImportRejected
from sqlstate.importing.decoding import Choices, Found, Opened, inflated, read_file
from sqlstate.importing.foreign_sqlite import ForeignTables
from sqlstate.importing.pickled import Unbuilt

if TYPE_CHECKING:
    from collections.abc import Iterator


def _exact(column: str) -> str:
    """Return SQL for a column's type and its value, text as bytes: it may be no UTF-8."""
    return f"typeof({column}), CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) ELSE {column} END"


def _text(kind: str, value: Any) -> Any:
    """Return a value that _exact() asked for."""
    if kind != "text":
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Unbuilt(f"{value[:40]!r} is not text in UTF-8")


@contextmanager
def open_sqlitedict(path: str, choices: Choices) -> Iterator[Opened]:
    """Open a file of sqlitedict: each of its tables is a collection."""
    with closing(ForeignTables(path)) as file:
        tables = [name for name in file.names() if file.columns(name) == ["key", "value"]]
        if not tables:
            raise ImportRejected(path, "", "it has no table with the columns key and value, as sqlitedict makes them")
        total = sum(map(file.count, tables))
        entries = chain.from_iterable(_key_values(file, name, choices) for name in tables)
        yield Opened(entries, total, file.check_unchanged)


def _key_values(file: ForeignTables, table: str, choices: Choices) -> Iterator[Found]:
    quoted = table.replace('"', '""')
    for kind, key, value_kind, value in file.rows(f'SELECT {_exact("key")}, {_exact("value")} FROM "{quoted}"'):
        if type(value) is bytes:
            value = choices.value(value, "json" if value_kind == "text" else "pickle")  # noqa: PLW2901
        yield Found(choices.collection or table, choices.key(_text(kind, key)), value)


@contextmanager
def open_dbm_sqlite(path: str, choices: Choices, values: Any) -> Iterator[Opened]:
    """Open a file of dbm.sqlite3, with *values* as dbm has them, or shelve."""
    with closing(ForeignTables(path)) as file:
        if "Dict" not in file.names() or file.columns("Dict") != ["key", "value"]:
            raise ImportRejected(path, "", "it has no table Dict of key and value, as dbm.sqlite3 makes it")
        collection = choices.collection or Path(path).stem
        rows = file.rows("SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM Dict")
        decoded = (
            Found(collection, choices.key(key, "str"), choices.value(value or b"", values)) for key, value in rows
        )
        yield Opened(decoded, file.count("Dict"), file.check_unchanged)


# ---- diskcache ----

_CACHE: Final = ("key", "raw", "expire_time", "mode", "filename", "value")


@contextmanager
def open_diskcache(path: str, choices: Choices) -> Iterator[Opened]:
    """Open a directory of diskcache: a Cache, an Index, a Deque, or a FanoutCache with its shards."""
    folder = Path(path)
    if not folder.is_dir():
        os.stat(path)
        raise ImportRejected(path, "", "it is not a directory, as diskcache makes them")
    files = [each for each in (folder / "cache.db", *sorted(folder.glob("*/cache.db"))) if each.is_file()]
    if not files:
        raise ImportRejected(path, "", "it has no file cache.db, as diskcache makes it")
    opened: list[ForeignTables] = []
    try:
        for each in files:
            opened.append(ForeignTables(str(each)))
            if not {*_CACHE} <= {*opened[-1].columns("Cache")} or "Cache" not in opened[-1].names():
                raise ImportRejected(str(each), "", "it has no table Cache, as diskcache makes it")
        total = sum(file.count("Cache") for file in opened)
        name = choices.collection or folder.resolve().name
        entries = chain.from_iterable(_cached(file, name, choices) for file in opened)

        def check_unchanged() -> None:
            for file in opened:
                file.check_unchanged()

        yield Opened(entries, total, check_unchanged)
    finally:
        for file in opened:
            file.close()


def _cached(file: ForeignTables, collection: str, choices: Choices) -> Iterator[Found]:
    now = time.time()
    folder = os.path.dirname(file.path)
    sql = f"SELECT {_exact('key')}, raw, expire_time, mode, filename, {_exact('value')} FROM Cache ORDER BY rowid"
    for kind, key, raw, expires, mode, filename, value_kind, stored in file.rows(sql):
        name = _text(kind, key)
        if not raw and type(key) is bytes:
            name = choices.decoded(key, "pickle")
        if type(expires) is float and expires < now:
            value: Any = Unbuilt("it has expired; diskcache no longer gives it either")
        elif filename is None:
            value = _text(value_kind, stored)
        else:
            value = _beside(folder, filename)
        if type(value) is bytes and mode == _PICKLE:
            value = choices.decoded(value, "pickle")
        elif type(value) is bytes and mode == _TEXT:
            value = choices.decoded(value, "text")
        if choices.values == "json":  # JSONDisk compresses both
            name, value = (_inflated_json(each, choices) for each in (name, value))
        yield Found(collection, choices.key(name), value)


_TEXT, _PICKLE = 3, 4


def _inflated_json(value: Any, choices: Choices) -> Any:
    raw = inflated(value) if type(value) is bytes else value
    return choices.decoded(raw, "json") if type(raw) is bytes else raw


def _beside(folder: str, filename: Any) -> Any:
    """Return the content of a file that diskcache keeps beside its table: nothing outside its folder is read."""
    if type(filename) is not str or "\0" in filename:
        return Unbuilt("the name of its file is not text")
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, filename))
    if not path.startswith(root + os.sep):
        return Unbuilt("its file is not in the directory of the cache, and was not read")
    return read_file(path)
