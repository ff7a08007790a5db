"""Files that show other processes which sessions live.

A session's file has its lock and content before it gets its name, which holds the session's id. Only the holder of its
lock removes it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from typing import Final

from sqlstate.errors import StoreIOError
from sqlstate.files import system
from sqlstate.files.paths import absolute, why
from sqlstate.files.replace import Temporary, is_left

_ID_DIGITS: Final = 32
_SESSION: Final = re.compile(r"[0-9a-f]{32}")


class SessionFile:
    """The file that shows other processes that a session lives.

    Args:
        path: the store.
        session: id of the session, 16 bytes.
        store_id: of the store.

    Raises:
        StoreIOError: the file cannot be made or locked.
    """

    __slots__ = ("_file",)

    def __init__(self, path: str, session: bytes, store_id: bytes) -> None:
        try:
            self._file = Temporary(_session_path(path, session), store_id, like=path)
            try:
                if not self._file.locked:
                    raise OSError(errno.ENOLCK, "the file system has no locks")
                with suppress(OSError):  # users who may write the store must see whether the session lives
                    system.set_mode(self._file.descriptor, stat.S_IMODE(os.stat(path).st_mode) & 0o666)
                os.write(self._file.descriptor, store_id + session)
                system.sync(self._file.descriptor)  # a power cut must not leave the name of a file that says nothing
                self._file.place(overwrite=False)
            except BaseException:
                self._file.discard()
                raise
        except OSError as e:
            raise StoreIOError(
                f"{path}: the file next to it that shows that this session lives cannot be made: {why(e)}; "
                "nothing was staged"
            ) from e

    def release(self) -> None:
        """Remove the file: the session is over. In the child of a fork nothing happens to it."""
        self._file.discard()


def session_alive(path: str, session: bytes) -> bool:
    """Return True if a session lives, in this process or another, or if that is not known."""
    try:
        descriptor = system.open_file(_session_path(path, session), os.O_RDONLY)
        try:
            system.lock(descriptor, exclusive=False)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def dead_sessions(path: str, store_id: bytes) -> list[bytes]:
    """Return the ids of sessions of this store that left their files behind."""
    folder, start = os.path.split(_session_path(path, b""))
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name, end = entry.name[:-_ID_DIGITS], entry.name[-_ID_DIGITS:]
            if system.folded(name) == system.folded(start) and _SESSION.fullmatch(end):
                session = bytes.fromhex(end)
                if is_left(entry.path, store_id + session):
                    found.append(session)
    return sorted(found)


def remove_session(path: str, session: bytes, store_id: bytes) -> bool:
    """Remove the file of a session, if the session is dead; return True if it was removed."""
    return is_left(_session_path(path, session), store_id + session, remove=True)


def _session_path(path: str, session: bytes) -> str:
    return f"{absolute(path, links=False)}-session-{session.hex()}"
