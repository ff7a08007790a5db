"""Files beside a store: which one a name leads to, those that are whole or not there, and those of living sessions.

A lock (flock) on such a file says that its maker lives: the system drops it with the maker's last descriptor. A
file is given its lock before anybody has to rely on it, and its name is looked at again once the lock is there;
who removes a file does so only while holding its lock. So a file whose maker lives is never removed, and one
whose maker died is found by its name, which carries the store's id.

Systems without flock (Windows) are untested: temporary files of the dead stay there, and a session lives as long
as its file cannot be removed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import stat
import sys
import weakref
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

from sqlstate.errors import CannotOpen, InvalidOption, StoreIOError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAME_BYTES_MAX: Final = 255
# What a temporary name has beside the target's, and what SQLite may put behind it.
_EXTRA_BYTES: Final = len(f"..sqlstate-{'0' * 32}-{'0' * 16}.tmp") + len("-journal")
_TEMPORARY: Final = re.compile(r"\.([^/]*)\.sqlstate-([0-9a-f]{32})-[0-9a-f]{16}\.tmp")
_SESSION: Final = re.compile(r"[0-9a-f]{32}")
_SESSION_FILE: Final = re.compile(r".*-session-[0-9a-f]{32}")
# What is kept beside an open store, by SQLite and by us, has its name and one of these.
_SIDECARS: Final = ("", "-wal", "-shm", "-journal", "-acknowledged")
_AS_FOUND: Final = "what was there before is as it was"


# ---- What the system refuses ----

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
DESCRIPTORS: Final = (
    "this process, or the system, has as many files open as it may. Close what is not needed, or raise the limit "
    "(ulimit -n)"
)


def out_of_descriptors() -> bool:
    """Tell whether nothing can be opened now, whatever it is; SQLite does not always keep why it could not."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as e:
        return e.errno in NO_DESCRIPTOR
    return False


def size(path: str) -> int:
    """Return the bytes of a file, 0 if there is none.

    Raises:
        StoreIOError: the system does not say.
    """
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
    except OSError as e:
        raise StoreIOError(
            f"{path} cannot be looked at: {why(e)}. What was committed is there. Look at the disk, and at the "
            "permissions of the folder, and open the store again"
        ) from e


def may_not_write(path: str) -> bool:
    """Tell whether this user, or anybody, may not write the file or folder: by its permissions, or its file system."""
    effective = os.access in os.supports_effective_ids
    return not os.access(path, os.W_OK, effective_ids=effective)


def absolute(path: str | os.PathLike[str], *, links: bool) -> str:
    """Return the absolute path.

    Args:
        path: as a caller gave it.
        links: leave links in it as they are; otherwise it is what they lead to.

    Raises:
        CannotOpen: it is relative, and the working directory was removed.
        ValueError: no path can be that.
    """
    try:
        return os.path.abspath(os.fsdecode(path)) if links else os.path.realpath(os.fsdecode(path))
    except FileNotFoundError as e:
        raise CannotOpen(
            f"{os.fsdecode(path)} leads nowhere: it is relative, and the working directory was removed. Nothing was "
            "changed. Give an absolute path, or change to a folder that is there"
        ) from e


def in_utf8(path: str) -> str:
    """Return a path as SQLite takes it: its bytes read as UTF-8, whatever the locale makes of them.

    Raises:
        ValueError: they are none.
    """
    return os.fsencode(path).decode()


def as_text(name: str | os.PathLike[str]) -> str:
    """Return a file's name as text that can be stored: what is not UTF-8 in it as escapes."""
    found = os.fspath(name)
    try:
        return in_utf8(found)
    except UnicodeError:
        return found.encode("utf-8", "backslashreplace").decode()


def why(e: OSError) -> str:
    """Return what the system said, in words that fit behind a colon."""
    return DESCRIPTORS if e.errno in NO_DESCRIPTOR else e.strerror or str(e)


# ---- Which file a name leads to ----


class Named:
    """Tells which file a path leads to, again and again; one thread at a time.

    It asks Linux for nothing else (statx(2)). To tell the times of a file too, as os.stat() does, makes Linux from
    6.13 on (multigrain timestamps) give the next write a time of its own, and the sync after it takes longer.

    Args:
        path: absolute path.
    """

    __slots__ = ("_found", "_path", "_question")

    def __init__(self, path: str) -> None:
        self._path = path
        self._found = _Statx()
        self._question = (_AT_FDCWD, os.fsencode(path), 0, _STATX_INO, ctypes.byref(self._found))

    def inode(self) -> int:
        """Return the number of the file in its file system, 0 if there is none."""
        if _statx is not None and _statx(*self._question) == 0 and self._found.mask & _STATX_INO:
            return self._found.ino
        try:  # another system, an older kernel, a sandbox that does not let it through; or no file
            return os.stat(self._path).st_ino
        except OSError:
            return 0


class _Statx(ctypes.Structure):
    """Of struct statx in linux/stat.h, what is asked for."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("_", ctypes.c_char * 28),
        ("ino", ctypes.c_uint64),
        ("_", ctypes.c_char * 216),
    )
    mask: int
    ino: int


def _linux_statx() -> Callable[..., int] | None:
    """Return statx(2) of the C library, None where there is none. Called without letting go of the GIL: it is short."""
    if sys.platform != "linux":
        return None
    try:
        return ctypes.PyDLL(None).statx
    except (AttributeError, OSError):
        return None


_AT_FDCWD: Final = -100
_STATX_INO: Final = 0x100
_statx: Final = _linux_statx()


# ---- Replacing a file as a whole ----


class Temporary:
    """A new file beside *target*, whose maker holds its lock; see temporary().

    Args:
        target: whose place it may take; a link stays, and what it leads to is replaced.
        store_id: the store that it belongs to.
        like: the file whose owner and mode it gets if nothing is at *target*.

    Raises:
        InvalidOption: what is at *target* is not a regular file.
        OSError: it cannot be made.
    """

    __slots__ = ("__weakref__", "_like", "_mode", "descriptor", "locked", "path", "replaced", "target")

    def __init__(self, target: str | os.PathLike[str], store_id: bytes, like: str | None = None) -> None:
        self.target = absolute(target, links=False)
        self.replaced = False
        self._like = self._model(os.fspath(target), like)
        self._mode = 0o600
        while True:
            self.path = _temporary_path(self.target, store_id)
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)
            _held.add(self)
            try:
                if self._like is not None:  # at once: if its maker dies, those who may write the target can see it
                    self._mode = _give(self.descriptor, self._like)
                self.locked = _lock_own(self.descriptor)
                if _is_named(self.path, self.descriptor):
                    break
            except BaseException:
                self.discard()
                raise
            self.release()  # before it was locked, somebody took it for one of the dead

    def _model(self, shown: str, like: str | None) -> os.stat_result | None:
        """Return whose owner and mode the file gets, if it is to have another's."""
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
        if hasattr(os, "fchmod"):
            os.fchmod(self.descriptor, self._mode)
        _sync(self.descriptor)

    def place(self, *, overwrite: bool = True) -> None:
        """Give the file the target's name.

        Raises:
            FileExistsError: something has it, and *overwrite* is False.
            OSError: it cannot be done.
        """
        self._check_own()
        if fcntl is None:
            self.release()  # Windows renames no file that is open
        if overwrite:
            os.replace(self.path, self.target)
        else:
            self._place_new()
        self.path = self.target
        self.replaced = True
        if fcntl is None:
            self.descriptor = os.open(self.path, os.O_RDWR | _OPEN)

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
        """Remove the file, whatever name it has by now, and let go of it."""
        if self.descriptor < 0:
            return
        with suppress(OSError):
            if _is_named(self.path, self.descriptor):  # not so in the child of a fork
                os.unlink(self.path)
        self.release()

    def release(self) -> None:
        """Let go of the file and its lock."""
        descriptor, self.descriptor = self.descriptor, -1
        _held.discard(self)
        if descriptor >= 0:
            os.close(descriptor)

    def forget(self, null: int) -> None:
        """Let go of what is the parent's, in the child of a fork; what is still written here goes nowhere."""
        os.dup2(null, self.descriptor, inheritable=False)

    def _check_own(self) -> None:
        if not _is_named(self.path, self.descriptor):
            raise FileNotFoundError(errno.ENOENT, "the temporary file was removed, or is that of a parent process")

    def _place_new(self) -> None:
        try:
            os.link(self.path, self.target)
        except OSError:
            if os.path.lexists(self.target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.target) from None
            # A file system without links. Between the line above and this, another could make the target.
            os.rename(self.path, self.target)
        else:
            # It is done; a second name that stays is removed as one that the dead left.
            with suppress(OSError):
                os.unlink(self.path)


@contextmanager
def temporary(path: str | os.PathLike[str], store_id: bytes, like: str | None = None) -> Iterator[Temporary]:
    """Make a file that the block can put in the place of *path* with replace(); otherwise it leaves no trace.

    For others that write it, such as SQLite, it has a `path`. What is there already keeps its mode, and its owner and
    group as far as this user may give them; a new file gets those of *like*, or else 0600, its owner's alone. It is
    never open to others while it is written. What others who are dead left of the same work is removed before.

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
    """Give a file that takes the place of *path* when the block has ended well, and else leaves no trace.

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

    They are those of the store with *store_id*, and those that were to take the place of *path*, whosever they are.
    """
    folder, name = os.path.split(path)
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        found = [entry.name for entry in entries if _belongs(entry.name, store_id, name) and _is_left(entry.path)]
    return sorted(found)


def remove_orphan(path: str, orphan: str, store_id: bytes) -> bool:
    """Remove a file that orphans() named, if it still is one, and tell whether it was removed."""
    folder, name = os.path.split(path)
    return _belongs(orphan, store_id, name) and _is_left(os.path.join(folder, orphan), remove=True)


def sweep(path: str | os.PathLike[str], store_id: bytes) -> None:
    """Remove all that orphans() names."""
    target = absolute(path, links=False)
    for name in orphans(target, store_id):
        remove_orphan(target, name, store_id)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    if os.name == "nt":
        return  # there a folder cannot be opened
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def belongs_to(path: str | os.PathLike[str], store: str | os.PathLike[str]) -> bool:
    """Tell whether *path* is the file of *store*, or one that SQLite keeps beside it.

    Reading it as an ordinary file would drop SQLite's locks when it is closed; replacing it would destroy it.
    """
    real, ours = absolute(path, links=False), absolute(store, links=False)
    if real in [ours + suffix for suffix in _SIDECARS]:
        return True
    try:
        return os.path.samestat(os.stat(real), os.stat(ours))
    except (OSError, ValueError):
        return False


# ---- Sessions ----


class SessionFile:
    """The file by which others know that a session lives. It has its lock and content before it has its name.

    Args:
        path: the store.
        session: id of the session, 16 bytes.
        store_id: of the store.

    Raises:
        StoreIOError: it cannot be made, or not be locked.
    """

    __slots__ = ("_file",)

    def __init__(self, path: str, session: bytes, store_id: bytes) -> None:
        try:
            self._file = Temporary(_session_path(path, session), store_id, like=path)
            try:
                if fcntl is not None and not self._file.locked:
                    raise OSError(errno.ENOLCK, "the file system has no locks")
                with suppress(OSError, AttributeError):  # who may write the store must see whether the session lives
                    os.fchmod(self._file.descriptor, stat.S_IMODE(os.stat(path).st_mode) & 0o666)
                os.write(self._file.descriptor, store_id + session)
                _sync(self._file.descriptor)  # a power cut must not leave the name of a file that says nothing
                self._file.place(overwrite=False)
            except BaseException:
                self._file.discard()
                raise
        except OSError as e:
            raise StoreIOError(
                f"{path}: the file beside it that says that this session lives cannot be made: {why(e)}; "
                "nothing was staged"
            ) from e

    def release(self) -> None:
        """Remove the file: the session is over. In the child of a fork nothing happens to it."""
        self._file.discard()


def session_alive(path: str, session: bytes) -> bool:
    """Tell whether a session lives, in this process or another; if that cannot be known, it does."""
    file = _session_path(path, session)
    if fcntl is None:
        return _in_use(file)
    try:
        os.close(_lock(file, fcntl.LOCK_SH))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def dead_sessions(path: str, store_id: bytes) -> list[bytes]:
    """Return the ids of sessions of this store that left their files behind."""
    folder, start = os.path.split(os.path.realpath(path) + "-session-")
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(start) and _SESSION.fullmatch(entry.name, len(start)):
                session = bytes.fromhex(entry.name[len(start) :])
                if _is_left(entry.path, store_id + session):
                    found.append(session)
    return sorted(found)


def remove_session(path: str, session: bytes, store_id: bytes) -> bool:
    """Remove the file of a session, if it is dead, and tell whether that was done."""
    return _is_left(_session_path(path, session), store_id + session, remove=True)


# ---- Names and locks ----

_OPEN: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_held: weakref.WeakSet[Temporary] = weakref.WeakSet()


def _temporary_path(target: str, store_id: bytes) -> str:
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{_shortened(name)}.sqlstate-{store_id.hex()}-{secrets.token_hex(8)}.tmp")


def _shortened(name: str) -> str:
    """Return as much of a file's name as its temporary file has in its own."""
    while len(os.fsencode(name)) > _NAME_BYTES_MAX - _EXTRA_BYTES:
        name = name[:-1]
    return name


def _session_path(path: str, session: bytes) -> str:
    return f"{os.path.realpath(path)}-session-{session.hex()}"


def _belongs(orphan: str, store_id: bytes, name: str) -> bool:
    """Tell whether a temporary file is of the store, or was to get *name*."""
    match = _TEMPORARY.fullmatch(orphan)
    return match is not None and (match[2] == store_id.hex() or match[1] == _shortened(name))


def _give(descriptor: int, like: os.stat_result) -> int:
    """Give a file the owner and group of another, as far as this user may; return the mode that it can have then."""
    mode = stat.S_IMODE(like.st_mode)
    if not hasattr(os, "fchown"):
        return mode
    for owner in (like.st_uid, -1):
        with suppress(OSError):
            os.fchown(descriptor, owner, like.st_gid)
            break
    if os.fstat(descriptor).st_gid != like.st_gid:  # what was its group's is not another's
        mode &= ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    return mode


def _is_named(path: str, descriptor: int) -> bool:
    """Tell whether *path* still is the file that is open."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock_own(descriptor: int) -> bool:
    """Lock a new file; False on a file system without locks, where nobody can take the file for one of the dead."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # waits for one that is looking whether we live
    except OSError:
        return False
    return True


def _lock(path: str, how: int) -> int:
    """Return a descriptor of the file with a lock.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: its maker lives; or that cannot be known.
    """
    descriptor = os.open(path, os.O_RDONLY | _OPEN | getattr(os, "O_NONBLOCK", 0))
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_left(path: str, content: bytes = b"", *, remove: bool = False) -> bool:
    """Tell whether a file is one that its maker left, and remove it if so and asked to."""
    if fcntl is None:
        return False
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return False
        if content:
            # A power cut can leave the name of a session's file without what was in it.
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
    """Tell whether a file's maker is dead, by its lock; as _is_left()."""
    # Those who only look do not keep each other from seeing.
    descriptor = _lock(path, fcntl.LOCK_EX if remove else fcntl.LOCK_SH)
    try:
        if os.read(descriptor, len(content)) not in (content, b"") or not _is_named(path, descriptor):
            return False
        if remove:
            os.unlink(path)
    finally:
        os.close(descriptor)
    return True


def _was_placed(path: str, status: os.stat_result, *, remove: bool) -> bool:
    """Tell whether a temporary file has its target's name too: its maker died between two steps of place()."""
    folder, own = os.path.split(path)
    match = _TEMPORARY.fullmatch(own)
    if match is None:
        return False
    with os.scandir(folder) as entries:
        others = [each.name for each in entries if each.name != own and each.inode() == status.st_ino]
    target = next((name for name in others if _shortened(name) == match[1]), "")
    if _SESSION_FILE.fullmatch(target):
        return _is_unowned(path, b"", remove=remove)
    # It may be a store: to close it, after a look at its lock, would drop SQLite's. Its maker does not mind.
    if target and remove:
        os.unlink(path)
    return bool(target)


def _in_use(file: str) -> bool:
    """Windows: what a process has open cannot be removed there."""
    try:
        os.remove(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _sync(descriptor: int) -> None:
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone leaves the data in the disk's cache
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


def _forget_all() -> None:
    if len(_held):
        with suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            for each in list(_held):
                each.forget(null)
            os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
