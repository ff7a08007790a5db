"""Writes files that are whole or not there: each is written under a temporary name, and then replaces its target.

A lock on a temporary file says that its maker lives: the system drops it with the maker's last descriptor. The
maker locks the file before it relies on it, and then looks at its name again; a file is removed only by the holder of
its lock. So a file whose maker lives is never removed. One whose maker died is found by its name, which holds the
store's id.

"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

from sqlstate.errors import InvalidOption
from sqlstate.files import system
from sqlstate.files.identity import is_named
from sqlstate.files.living import Living
from sqlstate.files.paths import absolute, why
from sqlstate.files.system import folded, give, open_file, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME_BYTES_MAX: Final = 255
_JOURNAL: Final = "-journal"  # beside a file that SQLite writes with VACUUM INTO
# The parts of a temporary name that are not the target's, and the suffixes that SQLite may add.
_EXTRA_BYTES: Final = len(f"..sqlstate-{'0' * 32}-{'0' * 16}.tmp") + len(_JOURNAL)
_TEMPORARY: Final = re.compile(r"\.([^/]*)\.sqlstate-([0-9a-f]{32})-[0-9a-f]{16}\.tmp")
_SESSION_FILE: Final = re.compile(r".*-session-[0-9a-f]{32}")
_AS_FOUND: Final = "what was there before is as it was"


# ---- Replacing a file as a whole ----


class Temporary:
    """A new file in the folder of *target*, locked by its maker; see temporary().

    Args:
        target: the file that it may replace; a link stays, and the file that it leads to is replaced.
        store_id: of the store that it belongs to.
        like: the file whose owner and mode it gets if there is no *target*.

    Raises:
        InvalidOption: what is at *target* is not a regular file.
        OSError: it cannot be made.
    """

    __slots__ = ("__weakref__", "_like", "_mode", "descriptor", "locked", "path", "replaced", "target")

    descriptor: int
    path: str
    replaced: bool

    def __init__(self, target: str | os.PathLike[str], store_id: bytes, like: str | None = None) -> None:
        self.target: str = absolute(target, links=False)
        self.replaced = False
        self._like = self._model(os.fspath(target), like)
        self._mode = 0o600
        while True:
            self.path = _temporary_path(self.target, store_id)
            self.descriptor = open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            _held.add(self)
            try:
                if self._like is not None:  # at once: if its maker dies, users who may write the target can see it
                    self._mode = give(self.descriptor, self._like)
                self.locked: bool = _lock_own(self.descriptor)
                if is_named(self.path, self.descriptor):
                    break
            except BaseException:
                self.discard()
                raise
            self.release()  # before it was locked, another process took its maker for dead

    def _model(self, shown: str, like: str | None) -> os.stat_result | None:
        """Return the file whose owner and mode this one gets, if any."""
        with suppress(FileNotFoundError):
            status = os.stat(self.target)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidOption(f"{shown} is not a regular file, and only one can be replaced as a whole")
            return status
        if like is not None:
            with suppress(OSError):
                return os.stat(like)
        return None

    def sync(self) -> None:
        """Make the file's content and mode durable.

        Raises:
            OSError: it cannot be done.
        """
        self._check_own()
        system.set_mode(self.descriptor, self._mode)
        system.sync(self.descriptor)

    def place(self, *, overwrite: bool = True) -> None:
        """Give the file the target's name.

        Raises:
            FileExistsError: something has it, and *overwrite* is False.
            OSError: it cannot be done.
        """
        self._check_own()
        (system.replace if overwrite else system.place)(self.path, self.target)
        self.path = self.target
        self.replaced = True

    def replace(self, *, overwrite: bool = True) -> None:
        """Make the file durable and give it the target's name, durably.

        Raises:
            FileExistsError: something has it, and *overwrite* is False.
            OSError: it cannot be done; only if `replaced`, it is done, but may not survive a power cut.
        """
        self.sync()
        self.place(overwrite=overwrite)
        sync_folder(os.path.dirname(self.target))

    def discard(self) -> None:
        """Remove the file, whatever its name is now, and close it."""
        if self.descriptor < 0:
            return
        with suppress(OSError):
            if is_named(self.path, self.descriptor):  # not so in the child of a fork
                system.remove(self.path)
                if self.path != self.target:
                    system.remove(self.path + _JOURNAL)
        self.release()

    def release(self) -> None:
        """Close the file, which drops its lock."""
        descriptor, self.descriptor = self.descriptor, -1
        _held.discard(self)
        if descriptor >= 0:
            os.close(descriptor)

    def forget(self, null: int) -> None:
        """Close the parent's file in the child of a fork; later writes to it go nowhere."""
        os.dup2(null, self.descriptor, inheritable=False)

    def _check_own(self) -> None:
        if not is_named(self.path, self.descriptor):
            raise FileNotFoundError(errno.ENOENT, "the temporary file was removed, or is that of a parent process")


@contextmanager
def temporary(path: str | os.PathLike[str], store_id: bytes, like: str | None = None) -> Iterator[Temporary]:
    """Make a file with which the block can replace *path* by replace(); otherwise it leaves no trace.

    It has a `path`, for writers such as SQLite. An existing target keeps its mode, and its owner and group as far as
    this user may give them; a new file gets those of *like*, or else 0600, its owner's alone. While it is written, no
    other user can open it. Files that dead processes left of the same work are removed first.

    Raises:
        InvalidOption: what is there is not a regular file.
        OSError: the file cannot be written; a note says what that means.
    """
    made: Temporary | None = None
    try:
        sweep(path, store_id)
        made = Temporary(path, store_id, like)
        yield made
    except OSError as e:
        if e.errno is None:
            raise
        error = OSError(e.errno, why(e), os.fspath(path))  # the caller knows no temporary name
        durable = "it was replaced, and whether that survives a power cut is not certain"
        meaning = durable if made is not None and made.replaced else _AS_FOUND
        for note in getattr(e, "__notes__", [meaning]):
            error.add_note(note)
        raise error from e
    finally:
        if made is not None:
            if made.replaced:
                made.release()
            else:
                made.discard()


@contextmanager
def replacing(path: str | os.PathLike[str], store_id: bytes, like: str | None = None) -> Iterator[IO[bytes]]:
    """Give a file that replaces *path* when the block ends well, and otherwise leaves no trace.

    Raises:
        InvalidOption: what is there is not a regular file.
        OSError: the file cannot be written; a note says what that means.
    """
    with temporary(path, store_id, like) as made:
        with open(made.descriptor, "wb", closefd=False) as file:
            yield file
        made.replace()


def orphans(path: str, store_id: bytes) -> list[str]:
    """Return the names of temporary files whose makers are dead, in the folder of *path*.

    They are those of the store with *store_id*, and those of any store that were to replace *path*.
    """
    folder, name = os.path.split(path)
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        found = [entry.name for entry in entries if _belongs(entry.name, store_id, name) and is_left(entry.path)]
    return sorted(found)


def remove_orphan(path: str, orphan: str, store_id: bytes) -> bool:
    """Remove a file that orphans() named, if it still is an orphan; return True if it was removed."""
    folder, name = os.path.split(path)
    left = os.path.join(folder, orphan)
    if not _belongs(orphan, store_id, name) or not is_left(left):
        return False
    with suppress(OSError):  # it comes first: without its file, nobody would know whose it is
        system.remove(left + _JOURNAL)
    return is_left(left, remove=True)


def sweep(path: str | os.PathLike[str], store_id: bytes) -> None:
    """Remove all that orphans() names."""
    target = absolute(path, links=False)
    for name in orphans(target, store_id):
        remove_orphan(target, name, store_id)


# ---- Names and locks ----

_held: Living[Temporary] = Living()


def _temporary_path(target: str, store_id: bytes) -> str:
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{_shortened(name)}.sqlstate-{store_id.hex()}-{os.urandom(8).hex()}.tmp")


def _shortened(name: str) -> str:
    """Return the part of a file's name that its temporary file has in its own."""
    while len(os.fsencode(name)) > _NAME_BYTES_MAX - _EXTRA_BYTES:
        name = name[:-1]
    return name


def _belongs(orphan: str, store_id: bytes, name: str) -> bool:
    """Return True if a temporary file belongs to the store, or was to get *name*."""
    match = _TEMPORARY.fullmatch(orphan)
    return match is not None and (match[2] == store_id.hex() or folded(match[1]) == folded(_shortened(name)))


def _lock_own(descriptor: int) -> bool:
    """Lock a new file; return False on a file system without locks, where its maker counts as alive."""
    try:
        system.lock(descriptor, exclusive=True, wait=True)  # waits for one that is looking whether we live
    except OSError:
        return False
    return True


def is_left(path: str, content: bytes = b"", *, remove: bool = False) -> bool:
    """Return True if a file's maker is dead; with *remove*, remove the file then."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return False
        if content:
            # A power cut can leave the name of a session's file without its content.
            left = status.st_size in (0, len(content)) and _is_unowned(path, content, remove=remove)
        elif status.st_nlink == 1:
            left = _is_unowned(path, content, remove=remove)
        else:
            left = _was_placed(path, status, remove=remove)
        if left and remove:
            sync_folder(os.path.dirname(path))
    except OSError:
        return False
    return left


def _is_unowned(path: str, content: bytes, *, remove: bool) -> bool:
    """Return True if a file's maker is dead, by its lock; as is_left()."""
    # Processes that only look take a shared lock, and do not block each other.
    descriptor = open_file(path, os.O_RDONLY)
    try:
        system.lock(descriptor, exclusive=remove)
        if os.read(descriptor, len(content)) not in (content, b"") or not is_named(path, descriptor):
            return False
        if remove:
            system.remove(path)
    finally:
        os.close(descriptor)
    return True


def _was_placed(path: str, status: os.stat_result, *, remove: bool) -> bool:
    """Return True if a temporary file has its target's name too: its maker died between two steps of place()."""
    folder, own = os.path.split(path)
    match = _TEMPORARY.fullmatch(own)
    if match is None:
        return False
    with os.scandir(folder) as entries:
        others = [each.name for each in entries if each.name != own and each.inode() == status.st_ino]
    target = next((name for name in others if folded(_shortened(name)) == folded(match[1])), "")
    if _SESSION_FILE.fullmatch(target):
        return _is_unowned(path, b"", remove=remove)
    # It may be a store: to close it, after a look at its lock, would drop SQLite's. Its maker does not mind.
    if target and remove:
        system.remove(path)
    return bool(target)


def _forget_all() -> None:
    if len(_held):
        with suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            for each in _held.members():
                each.forget(null)
            os.close(null)


system.at_fork(in_child=_forget_all)
