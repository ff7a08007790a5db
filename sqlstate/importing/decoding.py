"""What another store's file holds, decoded: keys and values of any kind, or an Unbuilt that says why not."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Container, Iterator, Sequence  # noqa: TC003, parts of a type that is made here
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlstate.errors import ImportRejected, InvalidKey
from sqlstate.files import system
from sqlstate.files.identity import open_files
from sqlstate.files.paths import why
from sqlstate.files.system import Identity  # noqa: TC001, as above
from sqlstate.format import constants as fmt
from sqlstate.importing.exact_json import ContentError, int_key, parse
from sqlstate.importing.pickled import Unbuilt, unpickled
from sqlstate.sqlite.forks import open_here

KeyType = Literal["str", "int", "bytes"]
Values = Literal["bytes", "text", "json", "pickle"]


class Found(NamedTuple):
    """One entry of another store: its collection, and key and value as that store gives them."""

    collection: str
    key: Any
    value: Any


class Opened(NamedTuple):
    """Another store that is open."""

    entries: Iterator[Found]
    total: int | None
    """How many there are, None if that is not known."""
    check_unchanged: Callable[[], None] = lambda: None
    """Raises ImportRejected if what was read so far may mix two states, because another program changed the source."""


Opening = AbstractContextManager[Opened]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How another store is read."""

    collection: str | None = None
    """Where all entries go; None: what the source says."""
    key_type: KeyType | None = None
    """Make keys of this type; None leaves them as the kind of source has them."""
    values: Values | None = None
    """What values that are bytes or text are; None: what the kind of source says."""
    allow_pickle: bool = False
    """Run pickles, with whatever code is in them."""

    def key(self, key: Any, key_type: KeyType | None = None) -> Any:
        """Return *key* as the type that is asked for, else as *key_type*; a key of another kind stays as it is."""
        wanted = self.key_type or key_type
        if wanted is None or type(key) not in (str, int, bytes):
            return key
        if wanted == "bytes":
            return key.encode() if type(key) is str else key
        if type(key) is bytes:
            try:
                key = key.decode()
            except UnicodeDecodeError:
                return Unbuilt(f"{key[:40]!r} is not text in UTF-8; ask for keys of the type bytes")
        if wanted == "str":
            return str(key)
        try:
            return int_key(key) if type(key) is str else key
        except InvalidKey as e:
            return Unbuilt(str(e))

    def value(self, raw: bytes, values: Values) -> Any:
        """Return the value that *raw* holds, read as what is asked for, else as *values*."""
        return self.decoded(raw, self.values or values)

    def decoded(self, raw: bytes, values: Values) -> Any:
        """Return the value that *raw* holds, read as *values*."""
        try:
            if values == "pickle":
                return run_pickle(raw) if self.allow_pickle else unpickled(raw)
            if values == "json":
                return parse(raw)
            return raw.decode() if values == "text" else raw
        except ContentError as e:
            return Unbuilt(str(e))
        except UnicodeDecodeError as e:
            return Unbuilt(f"byte {e.start + 1} of it is not UTF-8")


def run_pickle(raw: bytes) -> Any:
    """Return the value of a pickle as Python makes it: WHATEVER CODE IS IN IT RUNS.

    Raises:
        ContentError: it raised something.
    """
    import pickle  # noqa: PLC0415, for one's own files only, and when it was asked for by name

    try:
        return pickle.loads(raw)  # noqa: S301
    except Exception as e:  # noqa: BLE001, its code can raise anything
        raise ContentError(f"the pickle cannot be loaded: {type(e).__name__}: {e}") from None


def inflated(raw: bytes) -> bytes | Unbuilt:
    """Return what zlib compressed."""
    machine = zlib.decompressobj()
    try:
        whole = machine.decompress(raw, fmt.VALUE_BYTES_MAX + 1)
    except zlib.error as e:
        return Unbuilt(f"it is not compressed by zlib ({e})")
    if len(whole) > fmt.VALUE_BYTES_MAX or not machine.eof:
        return Unbuilt("compressed by zlib, it is too large or cut short")
    return whole


def check_regular(path: str) -> None:
    """Raise unless *path* is a regular file, and this process has it not open: closing it could drop SQLite's locks.

    Raises:
        OSError: there is no such file.
        ImportRejected: it is something else, or is open here.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ImportRejected(path, "", "it is not a regular file")
    if open_here(path) or (found.st_dev, found.st_ino) in open_files():
        raise ImportRejected(path, "", f"{_OPEN_HERE}; close it first")


_OPEN_HERE: Final = "it is open in this process"


def changed(path: str) -> ImportRejected:
    """Return the error for a source that another program changed while it was read."""
    return ImportRejected(path, "", "it changed while it was read; end the program that writes to it, and try again")


def unchanged(path: str, files: Sequence[str]) -> Callable[[], None]:
    """Return a function that raises changed(path) once one of *files* is another than now, or has another content."""
    was = [*map(_signature, files)]

    def check() -> None:
        if [*map(_signature, files)] != was:
            raise changed(path)

    return check


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def asked(path: str, ask: Any) -> Any:
    """Return what a library's reader returns for a file that anybody may have made, whatever it raises for that."""
    try:
        return ask()
    except Exception as e:
        if isinstance(e, FileNotFoundError):
            raise
        raise ImportRejected(path, "", f"it cannot be read: {e or type(e).__name__}") from None


def read_file(path: str, spared: Container[Identity] = ()) -> bytes | Unbuilt:
    """Return the content of a regular file that is a value, unless it is *spared*; links are not followed."""
    if open_here(path):
        return Unbuilt(f"{_OPEN_HERE}, as a store or beside one")
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            return Unbuilt("it is a link, or no regular file")
        if (found.st_dev, found.st_ino) in spared:
            return Unbuilt(_OPEN_HERE)
        with open(system.open_file(path, os.O_RDONLY), "rb") as file:
            was = os.fstat(file.fileno())
            raw = file.read(min(was.st_size, fmt.VALUE_BYTES_MAX) + 1)  # it makes room for all that it may read
            now = os.fstat(file.fileno())
        if (was.st_size, was.st_mtime_ns) != (now.st_size, now.st_mtime_ns):
            return Unbuilt("its file changed while it was read")
    except OSError as e:
        return Unbuilt(f"its file cannot be read: {why(e)}")
    return raw if len(raw) <= fmt.VALUE_BYTES_MAX else Unbuilt(f"it is larger than {fmt.VALUE_BYTES_MAX:,} bytes")
