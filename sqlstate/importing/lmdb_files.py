"""Environments of LMDB, whose library ends the process when it meets a damaged page: a child looks first."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import ImportRejected, InvalidOption
from sqlstate.files.paths import module_places
from sqlstate.importing.decoding import Choices, Found, Opened, asked, check_regular, unchanged
from sqlstate.sqlite.lock_holders import is_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DATABASES_MAX: Final = 4096
_EXIT_CODE_MAX: Final = 255
_DATABASE_BYTES: Final = 48  # what LMDB keeps of a named database, in the place of a value


@contextmanager
def open_lmdb(path: str, choices: Choices) -> Iterator[Opened]:
    """Open an environment of LMDB: each database in it is a collection. The main one has the name of the file."""
    _package()
    where = Path(path)
    check_regular(str(where / "data.mdb" if where.is_dir() else where))
    _probe(path)
    with _opened(path, choices) as opened:
        yield opened


def _probe(path: str) -> None:
    """Let a child process read the whole environment; raise if that ends it.

    Raises:
        ImportRejected: it does.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        return  # there is no Python that could be started
    here = {**os.environ, "PYTHONPATH": module_places()}
    child = subprocess.run(  # noqa: S603, this Python
        [sys.executable, "-P", "-c", _CHILD, path], env=here, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if not 0 <= child.returncode <= _EXIT_CODE_MAX:  # a signal's number, or the code of a fault on Windows
        raise ImportRejected(path, "", "it is damaged or cut short: LMDB cannot read it, and ends the process")


# An error that LMDB reports is met again, and told, here.
_CHILD: Final = """
import sys
from sqlstate.errors import StoreError
from sqlstate.importing.lmdb_files import read_all
try:
    read_all(sys.argv[1])
except (StoreError, OSError):
    pass
"""


def read_all(path: str) -> None:
    """Read an environment, and do nothing with it."""
    with _opened(path, Choices()) as opened:
        for _ in opened.entries:
            pass


def _package() -> Any:
    try:
        import lmdb  # noqa: PLC0415, an extra
    except ImportError:
        raise InvalidOption("the kind 'lmdb' needs the package lmdb: pip install 'sqlstate-store[lmdb]'") from None
    return lmdb


@contextmanager
def _opened(path: str, choices: Choices) -> Iterator[Opened]:
    lmdb = _package()
    with ExitStack() as held:
        environment, check_unchanged = _environment(lmdb, path)
        held.enter_context(environment)
        txn = held.enter_context(environment.begin())
        main = asked(path, lambda: environment.open_db(txn=txn, create=False))
        named = asked(path, lambda: _databases(lmdb, environment, txn))
        total = txn.stat(main)["entries"] - len(named) + sum(txn.stat(each)["entries"] for each in named.values())
        name = Path(path).resolve().stem
        parts = [_lmdb_entries(path, txn, main, name, choices, {*named})]
        parts += [
            _lmdb_entries(path, txn, each, key.decode("utf-8", "backslashreplace"), choices, set())
            for key, each in named.items()
        ]
        for part in parts:
            held.callback(part.close)
        yield Opened(chain.from_iterable(parts), total, check_unchanged)


def _environment(lmdb: Any, path: str) -> tuple[Any, Callable[[], None]]:
    """Open an environment; return it, and what raises if it changed while it was read without its lock file.

    LMDB makes a lock file, or writes to it. It is left alone unless another process has the environment open.
    """
    where = Path(path)
    in_folder = where.is_dir()
    data, lock = (where / "data.mdb", where / "lock.mdb") if in_folder else (where, Path(f"{where}-lock"))
    shared = lock.exists() and is_locked(str(lock)) is not False
    check = (lambda: None) if shared else unchanged(path, [str(data)])
    options = {"readonly": True, "create": False, "max_dbs": _DATABASES_MAX}
    return asked(path, lambda: lmdb.open(path, subdir=in_folder, lock=shared, **options)), check


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
        rows, read = iter(cursor), 0
        while (row := asked(path, lambda: next(rows, None))) is not None:
            read += 1
            key, value = row
            if key not in left_out:
                yield Found(choices.collection or collection, choices.key(key, "bytes"), choices.value(value, "bytes"))
        there = txn.stat(database)["entries"]
        if read != there:  # where a file that was cut short reads as zeros, LMDB passes over them
            raise ImportRejected(path, "", f"it says that it holds {there:,} entries, and {read:,} can be read")
