"""The main file without a connection: its bytes, its exclusive lock, its journal mode."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import apsw

from sqlstate.files import paths, system
from sqlstate.sqlite.forks import OpenFile, call
from sqlstate.sqlite.lock_holders import SHORT_SLEEP_SECONDS, pause
from sqlstate.sqlite.main_file import HEADER_BYTES, MODES, page_size
from sqlstate.sqlite.result_codes import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.sqlite.connection import Journal


@contextmanager
def _opened(path: str, vfs: str | None, flag: int) -> Iterator[apsw.VFSFile]:
    """Open a main file through SQLite's VFS, which knows this process's locks.

    Closing a descriptor of our own would drop those locks.
    """
    opened = OpenFile(path)
    try:
        file = call(
            apsw.VFSFile,
            vfs or system.long_path_vfs(path) or "",
            paths.in_utf8(path),
            [flag | apsw.SQLITE_OPEN_MAIN_DB, 0],
        )
        try:
            yield file
        finally:
            # A failure changes nothing: closing unlocks once more.
            with suppress(apsw.Error):
                file.xUnlock(apsw.SQLITE_LOCK_NONE)
            call(file.xClose)
    except apsw.Error as e:
        raise translated(e, path, 0.0) from e
    del opened


def read_at(path: str, vfs: str | None, offset: int, amount: int) -> bytes:
    """Return bytes of a main file from *offset* on, as many as there are."""
    with _opened(path, vfs, apsw.SQLITE_OPEN_READONLY) as file:
        # The system's VFS says that a file of one byte is empty.
        size = file.xFileSize() if vfs else paths.size(path)
        return bytes(file.xRead(max(0, min(amount, size - offset)), offset))


def parts(path: str, vfs: str | None) -> Iterator[bytes]:
    """Yield all bytes of a main file, in parts."""
    offset = 0
    while part := read_at(path, vfs, offset, _BYTES_AT_ONCE):
        yield part
        offset += len(part)


def digest(path: str, vfs: str | None) -> str:
    """Return the hexadecimal digits of the SHA-256 hash of a main file."""
    found = sha256()
    for part in parts(path, vfs):
        found.update(part)
    return found.hexdigest()


_BYTES_AT_ONCE: Final = 1 << 20


def free_pages(path: str, vfs: str | None) -> str:
    """Return what is wrong with the list of free pages of a closed file, "" if nothing is.

    SQLite's own check skips some of it (3.54), and then the first write that needs a page fails.
    """
    header = read_at(path, vfs, 0, HEADER_BYTES)
    size = page_size(header)
    trunk, count, largest, incremental = (int.from_bytes(header[at : at + 4]) for at in (32, 36, 52, 64))
    if incremental and not largest:
        return "its header asks for incremental vacuum, and has no largest root page"
    found: set[int] = set()
    while trunk and len(found) <= count:
        page = read_at(path, vfs, (trunk - 1) * size, size)
        leaves = int.from_bytes(page[4:8])
        if len(page) < size or leaves > size // 4 - 2 or trunk in found:
            return f"page {trunk} is in the list of free pages, and is not a free page"
        found |= {trunk, *(int.from_bytes(page[at : at + 4]) for at in range(8, 8 + 4 * leaves, 4))}
        trunk = int.from_bytes(page[:4])
    return "" if len(found) == count else f"its header counts {count} free pages, and its list has another number"


@contextmanager
def exclusive_lock(path: str, vfs: str | None, timeout: float) -> Iterator[bool | None]:
    """Hold the exclusive lock on a file during the block, if no connection uses it; give whether that is so.

    Gives None if it is not known, because the file cannot be written. A connection in WAL mode uses the file from its
    first read on; one in rollback mode only while it reads or writes. Of several processes that ask at once, one gets
    the lock, and the others wait for up to *timeout* seconds.
    """
    flag = apsw.SQLITE_OPEN_READONLY if system.may_not_write(path) else apsw.SQLITE_OPEN_READWRITE
    with _opened(path, vfs, flag) as file:
        try:
            is_alone = _acquired(file, timeout) if flag == apsw.SQLITE_OPEN_READWRITE else None
        except apsw.Error:  # the file can only be read after all
            is_alone = None
        yield is_alone


def _acquired(file: apsw.VFSFile, timeout: float) -> bool:
    since = time.monotonic()
    until = since + timeout
    while not _try_lock(file, apsw.SQLITE_LOCK_SHARED) or not _try_lock(file, apsw.SQLITE_LOCK_RESERVED):
        # Another process is here too, or writes through a rollback journal. Connections in WAL mode do neither.
        file.xUnlock(apsw.SQLITE_LOCK_NONE)
        if time.monotonic() >= until:
            return False
        time.sleep(pause(since, until))
    # From the first try on no new connection gets in; other processes that ask for the lock give up at once.
    for _ in range(_EXCLUSIVE_TRIES):
        if _try_lock(file, apsw.SQLITE_LOCK_EXCLUSIVE):
            return True
        time.sleep(SHORT_SLEEP_SECONDS)
    return False


def _try_lock(file: apsw.VFSFile, level: int) -> bool:
    try:
        file.xLock(level)
    except apsw.BusyError:
        return False
    return True


_EXCLUSIVE_TRIES: Final = 5


@contextmanager
def invalidating_handles(path: str, vfs: str | None) -> Iterator[Callable[[], None]]:
    """Give a function that makes a replaced file invalid for the handles that have it open.

    Otherwise they would continue to commit to it, and those commits would be lost. Where nobody can replace a file that
    is open, there are none.
    """
    if system.PINS_OPEN_FILES:
        yield lambda: None
        return
    with _opened(path, vfs, apsw.SQLITE_OPEN_READWRITE) as file:

        def outdate() -> None:
            with suppress(apsw.Error):
                file.xWrite(bytes(HEADER_BYTES), 0)

        yield outdate


def unlocked_vfs(vfs: str | None) -> str | None:
    """Return the VFS for a file that no other process knows: without SQLite's locks, which can conflict with flock."""
    return vfs or ("unix-none" if "unix-none" in apsw.vfs_names() else None)


def set_journaling(path: str, vfs: str | None, journal: Journal) -> None:
    """Write the journal mode into the header of a closed file.

    SQLite itself would make a -wal or -journal to do it, which a crash would leave behind.
    """
    with _opened(path, vfs, apsw.SQLITE_OPEN_READWRITE) as file:
        size = page_size(file.xRead(HEADER_BYTES, 0))
        page = bytearray(file.xRead(size, 0))
        page[MODES] = page[MODES + 1] = 2 if journal == "wal" else 1
        file.xWrite(bytes(page), 0)
