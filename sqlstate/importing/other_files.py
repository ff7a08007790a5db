"""Files of other stores that are not of SQLite: dbm and shelve, LMDB, TinyDB, and directories of files."""

from __future__ import annotations

import dbm
import json
import os
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import ImportRejected, InvalidOption
from sqlstate.importing.decoding import Choices, Found, Opened, check_regular, read_file
from sqlstate.importing.exact_json import is_lost, shown
from sqlstate.importing.pickled import Unbuilt
from sqlstate.importing.sqlite_files import is_sqlite, open_dbm_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.importing.decoding import Values

_DBM_SUFFIXES: Final = (".dat", ".dir", ".bak", ".db", ".pag")


# ---- dbm and shelve ----


@contextmanager
def open_shelve(path: str, choices: Choices) -> Iterator[Opened]:
    """Open a file of shelve: a dbm file with pickles in it."""
    with _open_dbm(path, choices, "pickle") as opened:
        yield opened


@contextmanager
def open_dbm(path: str, choices: Choices) -> Iterator[Opened]:
    """Open a dbm file of any kind that this Python has; its values are bytes."""
    with _open_dbm(path, choices, "bytes") as opened:
        yield opened


@contextmanager
def _open_dbm(path: str, choices: Choices, values: Values) -> Iterator[Opened]:
    if os.path.exists(path):
        check_regular(path)
        if is_sqlite(path):
            with open_dbm_sqlite(path, choices, values) as opened:
                yield opened
            return
    name = _dbm_name(path)
    file = _asked(path, lambda: dbm.open(name, "r"))  # noqa: SIM115, closed below
    with closing(file):
        keys = _asked(path, lambda: [*file.keys()])
        yield Opened(_dbm_entries(file, keys, choices.collection or Path(name).stem, choices, values), len(keys))


def _dbm_name(path: str) -> str:
    """Return the name under which dbm knows a file: some kinds add suffixes to it."""
    names = [path, *(path.removesuffix(suffix) for suffix in _DBM_SUFFIXES if path.endswith(suffix))]
    kinds = {name: _asked(path, lambda name=name: dbm.whichdb(name)) for name in names}
    for name, kind in kinds.items():
        if kind:
            return name
    if not any(os.path.exists(path + suffix) for suffix in ("", *_DBM_SUFFIXES)):
        os.stat(path)  # raises
    raise ImportRejected(path, "", "it is no dbm file, or not one that can be read")


def _dbm_entries(file: Any, keys: list[bytes], collection: str, choices: Choices, values: Values) -> Iterator[Found]:
    for key in keys:
        try:
            value = choices.value(file[key], values)
        except Exception as e:  # noqa: BLE001, as in _asked()
            value = Unbuilt(f"dbm cannot read it: {type(e).__name__}: {e}")
        yield Found(collection, choices.key(key, "str"), value)


def _asked(path: str, ask: Any) -> Any:
    """Return what a library's reader returns for a file that anybody may have made, whatever it raises for that."""
    try:
        return ask()
    except Exception as e:
        if isinstance(e, FileNotFoundError):
            raise
        raise ImportRejected(path, "", f"it cannot be read: {e or type(e).__name__}") from None


# ---- LMDB ----

_DATABASES_MAX: Final = 4096
_DATABASE_BYTES: Final = 48  # what LMDB keeps of a named database, in the place of a value


@contextmanager
def open_lmdb(path: str, choices: Choices) -> Iterator[Opened]:
    """Open an environment of LMDB: each database in it is a collection. The main one has the name of the file."""
    try:
        import lmdb  # noqa: PLC0415, an extra
    except ImportError:
        raise InvalidOption("the kind 'lmdb' needs the package lmdb: pip install 'sqlstate-store[lmdb]'") from None
    where = Path(path)
    check_regular(str(where / "data.mdb" if where.is_dir() else where))
    environment = _asked(
        path, lambda: lmdb.open(path, readonly=True, subdir=where.is_dir(), create=False, max_dbs=_DATABASES_MAX)
    )
    with environment, environment.begin() as txn:
        main = _asked(path, lambda: environment.open_db(txn=txn, create=False))
        named = _asked(path, lambda: _databases(lmdb, environment, txn))
        total = txn.stat(main)["entries"] - len(named) + sum(txn.stat(each)["entries"] for each in named.values())
        name = where.resolve().stem
        parts = [_lmdb_entries(path, txn, main, name, choices, {*named})]
        parts += [
            _lmdb_entries(path, txn, each, key.decode("utf-8", "backslashreplace"), choices, set())
            for key, each in named.items()
        ]
        try:
            yield Opened(chain.from_iterable(parts), total)
        finally:
            for part in parts:
                part.close()


def _databases(lmdb: Any, environment: Any, txn: Any) -> dict[bytes, Any]:
    """Return the named databases. They stand among the entries of the main one, and look like those."""
    found = {}
    for key, value in txn.cursor():
        if len(value) == _DATABASE_BYTES:
            try:
                found[key] = environment.open_db(key, txn=txn, create=False)
            except (lmdb.IncompatibleError, lmdb.NotFoundError, lmdb.BadValsizeError):
                continue
    return found


def _lmdb_entries(path: str, txn: Any, database: Any, collection: str, choices: Choices, left_out: set[bytes]) -> Any:
    cursor = txn.cursor(db=database)
    with closing(cursor):
        rows = iter(cursor)
        while (row := _asked(path, lambda: next(rows, None))) is not None:
            key, value = row
            if key not in left_out:
                yield Found(choices.collection or collection, choices.key(key, "bytes"), choices.value(value, "bytes"))


# ---- TinyDB ----


@contextmanager
def open_tinydb(path: str, choices: Choices) -> Iterator[Opened]:
    """Open a JSON file of TinyDB: each table is a collection, and the ids of its documents are the keys."""
    check_regular(path)
    with open(path, "rb") as file:
        raw = file.read()
    try:
        tables = _lenient.decode(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise ImportRejected(path, "", f"byte {e.start + 1} of the file is not UTF-8") from None
    except json.JSONDecodeError as e:
        raise ImportRejected(path, f"line {e.lineno}, column {e.colno}", f"this is not JSON: {e.msg}") from None
    except RecursionError:
        raise ImportRejected(path, "", "it is nested too deeply") from None
    if type(tables) is not dict or not all(type(table) is dict for table in tables.values()):
        raise ImportRejected(path, "", "it is not an object of tables, each an object of documents, as TinyDB makes it")
    entries = (
        Found(choices.collection or name, choices.key(key, "int"), document)
        for name, table in tables.items()
        for key, document in table.items()
    )
    yield Opened(entries, sum(map(len, tables.values())))


def _members(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Unbuilt("an object gives a member twice")


def _number(text: str) -> Any:
    number = float(text)
    return Unbuilt(f"the number {shown(text[:40])} has no double near to it") if is_lost(text, number) else number


def _whole(text: str) -> Any:
    return int(text) if len(text) <= 1000 else Unbuilt(f"an int of {len(text):,} digits is outside -2^63 to 2^64-1")


# What one document cannot be is refused with that document, and not with the file.
_lenient: Final = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_float=_number,
    parse_int=_whole,
    parse_constant=lambda name: Unbuilt(f"{name} is not a number in JSON"),
)


# ---- Directories ----


@contextmanager
def open_dir(path: str, choices: Choices) -> Iterator[Opened]:
    """Open a directory: each file below it is an entry.

    `users/ada.json` is the document `users/ada`; any other file is bytes, under its path.
    """
    root = Path(path)
    if not root.is_dir():
        os.stat(path)
        raise ImportRejected(path, "", "it is not a directory")
    yield Opened(_dir_entries(path, choices.collection or root.resolve().name, choices), None)


def _dir_entries(root: str, collection: str, choices: Choices) -> Iterator[Found]:
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted([*files, *linked]):
            path = os.path.join(folder, name)
            key = os.path.relpath(path, root).replace(os.sep, "/")
            value: Any = read_file(path)
            if type(value) is bytes and key.endswith(".json") and name != ".json":
                key, value = key.removesuffix(".json"), choices.decoded(value.removeprefix(b"\xef\xbb\xbf"), "json")
            yield Found(collection, choices.key(key), value)


def _raise(error: OSError) -> None:
    raise error
