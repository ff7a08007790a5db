"""Files of other stores that are not of SQLite: dbm and shelve, TinyDB, and directories of files."""

from __future__ import annotations

import dbm
import json
import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import ImportRejected
from sqlstate.files.identity import open_files
from sqlstate.importing.decoding import Choices, Found, Opened, asked, changed, check_regular, read_file, unchanged
from sqlstate.importing.exact_json import is_lost, shown
from sqlstate.importing.foreign_sqlite import is_sqlite
from sqlstate.importing.pickled import Unbuilt
from sqlstate.importing.sqlite_files import open_dbm_sqlite

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
    check = unchanged(path, [name + suffix for suffix in ("", *_DBM_SUFFIXES)])
    file = asked(path, lambda: dbm.open(name, "r"))  # noqa: SIM115, closed below
    with closing(file):
        keys = asked(path, lambda: [*file.keys()])
        entries = _dbm_entries(path, file, keys, choices.collection or Path(name).stem, choices, values)
        yield Opened(entries, len(keys), check)


def _dbm_name(path: str) -> str:
    """Return the name under which dbm knows a file: some kinds add suffixes to it."""
    names = [path, *(path.removesuffix(suffix) for suffix in _DBM_SUFFIXES if path.endswith(suffix))]
    kinds = {name: asked(path, lambda name=name: dbm.whichdb(name)) for name in names}
    for name, kind in kinds.items():
        if kind:
            return name
    if not any(os.path.exists(path + suffix) for suffix in ("", *_DBM_SUFFIXES)):
        os.stat(path)  # raises
    raise ImportRejected(path, "", "it is no dbm file, or not one that can be read")


def _dbm_entries(
    path: str, file: Any, keys: list[bytes], collection: str, choices: Choices, values: Values
) -> Iterator[Found]:
    for key in keys:
        try:
            value = choices.value(file[key], values)
        except (FileNotFoundError, KeyError):
            raise changed(path) from None
        except Exception as e:  # noqa: BLE001, as in asked()
            value = Unbuilt(f"dbm cannot read it: {type(e).__name__}: {e}")
        yield Found(collection, choices.key(key, "str"), value)


# ---- TinyDB ----


@contextmanager
def open_tinydb(path: str, choices: Choices) -> Iterator[Opened]:
    """Open a JSON file of TinyDB: each table is a collection, and the ids of its documents are the keys."""
    check_regular(path)
    check = unchanged(path, [path])
    with open(path, "rb") as file:
        raw = file.read()
    check()
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
    spared = open_files()
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted([*files, *linked]):
            path = os.path.join(folder, name)
            key = os.path.relpath(path, root).replace(os.sep, "/")
            value: Any = read_file(path, spared)
            if type(value) is bytes and key.endswith(".json") and name != ".json":
                key, value = key.removesuffix(".json"), choices.decoded(value.removeprefix(b"\xef\xbb\xbf"), "json")
            yield Found(collection, choices.key(key), value)


def _raise(error: OSError) -> None:
    raise error
