"""File systems for a test: one that can only be read, one that is small and gets full, and users without privileges."""

from __future__ import annotations

import os
import shutil
import subprocess
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.system import uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOBODY = 65534


def _mount(*arguments: str) -> None:
    if uid():
        pytest.skip("only root can mount a file system")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Mount *folder* a second time, beside it, as read-only media."""
    at = folder.with_name(f"{folder.name}-read-only")
    at.mkdir()
    _mount("--bind", str(folder), str(at))
    try:
        _mount("-o", "remount,bind,ro", str(at))
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@contextmanager
def small(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of so many megabytes at *folder*."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def small_blocks(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of so many megabytes at *folder*, in a file, with blocks of 1,024 bytes."""
    image = folder.with_name(f"{folder.name}.img")
    image.touch()
    os.truncate(image, megabytes << 20)
    maker = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if maker is None:
        pytest.skip("there is no mkfs.ext4")
    subprocess.run([maker, "-q", "-b", "1024", "-m", "0", str(image)], check=True)
    folder.mkdir()
    _mount("-o", "loop", str(image), str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all free space of the file system of *folder*, with a file of its own."""
    number = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    os.write(number, bytes(size))
            except OSError:
                pass
    finally:
        os.close(number)


def as_user(user: int, work: Callable[[], object]) -> None:
    """Run *work* in a child process of another user, and see that it ends well."""
    if uid():
        pytest.skip("only root can be another user")
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            work()
            code = 0
        except BaseException:  # noqa: BLE001, the parent sees the exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
