"""What the tests ask of the system that they run on: what it has, and how a process ends on it.

What Windows has not is no reason to fail there. A helper that needs it skips the test, and says what is missing.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

WINDOWS: Final = sys.platform == "win32"

KILL: Final = 9
"""What os.kill() ends a process with, at once: SIGKILL. On Windows any such number means TerminateProcess."""
KILLED: Final = KILL if WINDOWS else -KILL
"""The exit code of a process that was ended by os.kill(pid, KILL)."""

FORBIDDEN: Final = frozenset('<>:"|?*') if WINDOWS else frozenset()
"""What no file can have in its name."""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_proc = pytest.mark.skipif(WINDOWS or not os.path.exists("/proc/self/fd"), reason="this system has no /proc")


def uid() -> int:
    """Return the number of the user whose rights this process has; skip the test where users have no numbers."""
    if WINDOWS:
        pytest.skip("this system has no root, and no users with numbers")
    return os.geteuid()


def symlink(path: Path, target: Path | str) -> None:
    """Make a symbolic link. Windows wants a right for it that few have, and wine makes none."""
    if WINDOWS:
        pytest.skip("this system gives its users no symbolic links")
    path.symlink_to(target)


def mkfifo(path: Path) -> None:
    """Make a named pipe."""
    if WINDOWS:
        pytest.skip("this system has no named pipes in its folders")
    os.mkfifo(path)


def has_mode(path: Path | str, mode: int) -> bool:
    """Tell whether a file has these permissions. On Windows its folder decides who may use it; modes say nothing."""
    return WINDOWS or stat.S_IMODE(os.stat(path).st_mode) == mode


def says_it_is_missing() -> str:
    """Return what the system says of a file that is not there. Windows says it in its user's language."""
    try:
        os.stat("there is no file of this name")
    except FileNotFoundError as e:
        return str(e.strerror)
    raise AssertionError
