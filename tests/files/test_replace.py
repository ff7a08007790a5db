"""A file beside a store is whole or not there, and nothing but what a dead process of ours left is ever removed.

Method: real processes that are killed or forked while they hold such a file, and every moment at which another
process could come between, made to happen by doing its work from inside the call.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import pytest

from sqlstate import StoreIOError
from sqlstate.errors import InvalidOption
from sqlstate.files import replace as files
from sqlstate.files import system
from sqlstate.files.replace import orphans, remove_orphan, replacing, temporary
from sqlstate.files.sessions import SessionFile, dead_sessions, remove_session, session_alive
from tests import ROOT
from tests.support.images import folder_image
from tests.support.system import KILLED, WINDOWS, has_mode, mkfifo, needs_fork, symlink, uid

if sys.platform == "linux":
    from sqlstate.files import linux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = bytes(range(16))
OTHER = bytes(16)
SESSION = b"\xab" * 16
NAME = re.compile(rf"\.out\.sqlstate-{OURS.hex()}-[0-9a-f]{{16}}\.tmp")
NOBODY = 65534


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


class Process:
    """A Python process that runs *code*, says one line and waits. Use it in a `with` block, which kills it."""

    def __init__(self, code: str, *arguments: object) -> None:
        before = (
            f"import os, sys\nfrom sqlstate.files import replace, sessions\nOURS, SESSION = {OURS!r}, {SESSION!r}\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", before + code, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()


HOLDS_TEMPORARY = """
with replace.replacing(sys.argv[1], OURS) as file:
    file.write(b"half")
    file.flush()
    print("holding", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def left(tmp_path: Path) -> str:
    """The name of a temporary file that a killed process left."""
    with Process(HOLDS_TEMPORARY, tmp_path / "out") as child:
        assert child.says() == "holding"
        child.kill()
    (name,) = names(tmp_path)
    return name


# ---- Replacing ----


def test_a_file_is_replaced_as_a_whole_and_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    symlink(tmp_path / "link", "real")
    with replacing(tmp_path / "link", OURS) as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "real").read_bytes() == b"old"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert has_mode(tmp_path / "real", 0o640)
    assert names(tmp_path) == ["link", "real"]


def test_while_it_is_written_it_is_private_carries_the_stores_id_and_is_no_orphan(tmp_path: Path) -> None:
    with replacing(tmp_path / "out", OURS) as file:
        file.write(b"x")
        (name,) = names(tmp_path)
        assert NAME.fullmatch(name)
        assert has_mode(tmp_path / name, 0o600)
        assert orphans(str(tmp_path / "out"), OURS) == []
        assert not remove_orphan(str(tmp_path / "out"), name, OURS)
    assert names(tmp_path) == ["out"]
    assert has_mode(tmp_path / "out", 0o600)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, GeneratorExit])
def test_whatever_ends_the_block_leaves_no_trace(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(error), replacing(tmp_path / "out", OURS) as file:
        file.write(b"new")
        raise error
    with pytest.raises(error), temporary(tmp_path / "out", OURS) as made:
        Path(made.path).write_bytes(b"new")
        raise error
    assert (tmp_path / "out").read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


IN_SYSTEM = {"fsync": "sync", "replace": "replace", "link": "place", "unlink": "remove", "fchmod": "set_mode"}
"""Calls of os, and the functions of files/system.py that make them; on Windows they make others."""


def caller(name: str) -> tuple[Any, str]:
    """Return what makes a call of the system, and its name there: os, or on Windows what the package has for it."""
    return (system, IN_SYSTEM[name]) if WINDOWS and name in IN_SYSTEM else (os, name)


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, on: Callable[[Any], bool] = lambda _: True, where: Any = None
) -> None:
    """Let a call of the system fail once its argument is as *on* says; *where* it is, if not as caller() says."""
    where, name = (where, name) if where else caller(name)
    real = getattr(where, name)

    def call(first: Any, *rest: Any, **options: Any) -> Any:
        if on(first):
            raise OSError(errno.EIO, "refused", "a name that nobody knows")
        return real(first, *rest, **options)

    monkeypatch.setattr(where, name, call)


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_what_the_system_refuses_is_said_of_the_callers_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "out").write_bytes(b"old")
    failing(monkeypatch, call)
    with pytest.raises(OSError, match="refused") as caught, replacing(tmp_path / "out", OURS) as file:
        file.write(b"new")
    assert (caught.value.filename, caught.value.errno) == (str(tmp_path / "out"), errno.EIO)
    assert caught.value.__notes__ == ["what was there before is as it was"]
    assert (tmp_path / "out").read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_synced_is_said_with_what_it_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "fsync", is_folder)
    with pytest.raises(OSError, match="refused") as caught, replacing(tmp_path / "out", OURS) as file:
        file.write(b"new")
    assert caught.value.__notes__ == ["it was replaced, and whether that survives a power cut is not certain"]
    assert (tmp_path / "out").read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_the_content_is_durable_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    where, synced = caller("fsync")
    fsync, replace = getattr(where, synced), where.replace

    def sync(descriptor: int) -> None:
        folder = is_folder(descriptor)
        done.append("folder" if folder else system.read_at(descriptor, 9, 0).decode())
        fsync(descriptor)

    def rename(source: str, target: str) -> None:
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(where, synced, sync)
    monkeypatch.setattr(where, "replace", rename)
    with replacing(tmp_path / "out", OURS) as file:
        file.write(b"content")
    assert done == ["content", "name", *([] if WINDOWS else ["folder"])]  # there, the name is durable at once


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "n" + "🔑" * 63])
def test_a_name_of_the_greatest_length_is_no_reason_to_fail(tmp_path: Path, name: str) -> None:
    try:
        (tmp_path / name).write_bytes(b"old")
    except OSError as e:
        pytest.skip(f"this file system has no such names: {e}")
    with temporary(tmp_path / name, OURS) as made:
        assert len(os.fsencode(os.path.basename(made.path) + "-journal")) <= 255
        Path(made.path + "-journal").touch()
        os.unlink(made.path + "-journal")
        assert orphans(str(tmp_path / "out"), OURS) == []
        made.replace()
    assert names(tmp_path) == [name]


def test_two_makers_never_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", bytes)
    with replacing(tmp_path / "out", OURS) as file:
        with pytest.raises(FileExistsError), replacing(tmp_path / "out", OURS):
            pytest.fail("the block was entered")
        file.write(b"first")
    assert (tmp_path / "out").read_bytes() == b"first"


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(InvalidOption, match="not a regular file"), replacing(tmp_path / name, OURS):
            pytest.fail("the block was entered")
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "none" / "out", OURS):
        pytest.fail("the block was entered")
    assert caught.value.filename == str(tmp_path / "none" / "out")
    assert names(tmp_path) == ["fifo", "folder"]


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_came_to_be_there_is_not_overwritten_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        if WINDOWS:
            pytest.skip("this system gives a file another name without links")
        failing(monkeypatch, "link")
    (tmp_path / "there").write_bytes(b"old")
    with pytest.raises(FileExistsError) as caught, temporary(tmp_path / "there", OURS) as made:
        made.replace(overwrite=False)
    assert caught.value.filename == str(tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"old"
    with temporary(tmp_path / "new", OURS) as made:
        Path(made.path).write_bytes(b"new")
        made.replace(overwrite=False)
    assert (tmp_path / "new").read_bytes() == b"new"
    assert names(tmp_path) == ["new", "there"]


def test_a_temporary_file_that_somebody_removed_takes_nobodys_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(FileNotFoundError, match="was removed") as caught, replacing(tmp_path / "out", OURS) as file:
        file.write(b"new")
        (name,) = set(names(tmp_path)) - {"out"}
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(b"another's")
    assert caught.value.__notes__ == ["what was there before is as it was"]
    assert (tmp_path / "out").read_bytes() == b"old"
    assert (tmp_path / name).read_bytes() == b"another's"


# ---- What the dead left ----


def test_what_a_killed_process_left_is_found_and_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with Process(HOLDS_TEMPORARY, tmp_path / "out") as child:
        assert child.says() == "holding"
        (name,) = set(names(tmp_path)) - {"out"}
        assert orphans(str(tmp_path / "out"), OURS) == []
        assert not remove_orphan(str(tmp_path / "out"), name, OURS)
        child.kill()
    assert orphans(str(tmp_path / "x"), OTHER) == []
    assert not remove_orphan(str(tmp_path / "x"), name, OTHER)
    assert orphans(str(tmp_path / "out"), OURS) == [name]
    assert orphans(str(tmp_path / "out"), OURS) == [name]  # looking changes nothing
    assert remove_orphan(str(tmp_path / "out"), name, OURS)
    assert not remove_orphan(str(tmp_path / "out"), name, OURS)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


def test_nothing_else_is_ever_taken_for_one(tmp_path: Path, left: str) -> None:
    nonce = "0" * 16
    like = f"sqlstate-{OURS.hex()}-{nonce}.tmp"
    (tmp_path / "precious").write_bytes(b"precious")
    symlink(tmp_path / f".link.{like}", "precious")
    symlink(tmp_path / f".dangling.{like}", "none")
    (tmp_path / f".hard.{like}").hardlink_to(tmp_path / "precious")
    (tmp_path / f".folder.{like}").mkdir()
    mkfifo(tmp_path / f".fifo.{like}")
    for name in (
        *(f"{left}{suffix}" for suffix in ("-wal", "-shm", "-journal", "~", "\n")),
        left[1:],
        left.replace(OURS.hex(), OTHER.hex()),
        left.replace(OURS.hex(), OURS.hex().upper()),
        left.replace(OURS.hex(), OURS.hex()[:-1]),
        left.replace(".tmp", ".TMP"),
        left.replace(".tmp", "0.tmp"),
        f".{like}",
        like,
        f"app.db-session-{SESSION.hex()}",
        "app.db-wal",
    ):
        (tmp_path / name).write_bytes(b"")
    before = folder_image(tmp_path)
    assert orphans(str(tmp_path / "x"), OURS) == [left]
    for name in set(names(tmp_path)) - {left}:
        assert not remove_orphan(str(tmp_path / "x"), name, OURS), name
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / left).touch()
    assert not remove_orphan(str(tmp_path / "x"), f"sub/{left}", OURS)
    assert not remove_orphan(str(tmp_path / "sub" / "x"), f"../{left}", OURS)
    assert folder_image(tmp_path) == before
    assert orphans(str(tmp_path / "none" / "x"), OURS) == []


def test_it_is_only_removed_if_it_still_is_the_file_that_was_locked(
    tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes it, and a third makes one of the same name, between the lock and the removal."""
    real = system.lock

    def lock(descriptor: int, **how: bool) -> None:
        real(descriptor, **how)
        (tmp_path / left).rename(tmp_path / "away")
        (tmp_path / left).write_bytes(b"another's")

    monkeypatch.setattr(system, "lock", lock)
    assert not remove_orphan(str(tmp_path / "x"), left, OURS)
    assert (tmp_path / left).read_bytes() == b"another's"


def test_who_only_looks_does_not_hide_it_from_others_who_look(tmp_path: Path, left: str) -> None:
    descriptor = system.open_file(str(tmp_path / left), os.O_RDONLY)
    system.lock(descriptor, exclusive=False)
    assert orphans(str(tmp_path / "out"), OURS) == [left]
    assert not remove_orphan(str(tmp_path / "x"), left, OURS)  # but keeps it from being removed meanwhile
    os.close(descriptor)
    assert remove_orphan(str(tmp_path / "x"), left, OURS)


def test_a_maker_whose_file_was_taken_for_an_orphan_before_it_was_locked_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    lock_own = files._lock_own

    def late(descriptor: int) -> bool:
        if len(taken) < 3:
            (name,) = orphans(str(tmp_path / "out"), OURS)
            assert remove_orphan(str(tmp_path / "out"), name, OURS)
            taken.append(name)
        return lock_own(descriptor)

    monkeypatch.setattr(files, "_lock_own", late)
    with replacing(tmp_path / "out", OURS) as file:
        file.write(b"new")
        assert len(taken) == 3
        assert orphans(str(tmp_path / "out"), OURS) == []
    assert (tmp_path / "out").read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_a_name_that_an_orphan_shares_with_another_file_is_left_alone(tmp_path: Path, left: str) -> None:
    (tmp_path / "store.db").hardlink_to(tmp_path / left)
    assert orphans(str(tmp_path / "out"), OURS) == []
    (tmp_path / "store.db").unlink()
    assert orphans(str(tmp_path / "out"), OURS) == [left]


def test_a_name_that_an_orphan_shares_with_its_target_is_removed_and_the_file_stays(tmp_path: Path, left: str) -> None:
    """As a crash leaves it between the two steps that give a file its name without overwriting another."""
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "out").hardlink_to(tmp_path / left)
    descriptor = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.lockf(descriptor, fcntl.LOCK_SH)  # as SQLite's, which dies with any descriptor that is closed
    before = Path("/proc/locks").read_text("ascii")
    assert orphans(str(tmp_path / "x"), OURS) == [left]
    assert remove_orphan(str(tmp_path / "x"), left, OURS)
    assert not remove_orphan(str(tmp_path / "x"), left, OURS)
    assert f":{os.fstat(descriptor).st_ino} " in before
    assert f":{os.fstat(descriptor).st_ino} " in Path("/proc/locks").read_text("ascii")
    os.close(descriptor)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"half"


def test_a_long_name_that_is_shortened_in_an_orphan_is_known_as_its_target(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 240)
    with Process(HOLDS_TEMPORARY, target) as child:
        assert child.says() == "holding"
        child.kill()
    (left,) = names(tmp_path)
    target.hardlink_to(tmp_path / left)
    assert orphans(str(target), OTHER) == [left]
    assert remove_orphan(str(target), left, OTHER)
    assert names(tmp_path) == [target.name]


def test_who_writes_a_file_removes_what_the_dead_left_of_it_whoever_they_were(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for store, target in ((OURS, "out"), (OURS, "other"), (OTHER, "out"), (OTHER, "else")):
            child = stack.enter_context(Process(f"OURS = {store!r}" + HOLDS_TEMPORARY, tmp_path / target))
            assert child.says() == "holding"
    assert len(names(tmp_path)) == 4
    with replacing(tmp_path / "out", OURS) as file:
        file.write(b"new")
    (kept,) = set(names(tmp_path)) - {"out"}
    assert kept.startswith(".else.")


# ---- Forks ----


def in_fork(work: Callable[[], object]) -> int:
    """Do *work* in the child of a fork; return its exit code, 0 if it raised nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
def test_the_child_of_a_fork_neither_removes_nor_places_nor_writes_it(tmp_path: Path) -> None:
    def leave(file: IO[bytes], made: files.Temporary) -> None:
        file.write(b"from the child")
        file.flush()
        made.discard()

    with temporary(tmp_path / "out", OURS) as made:
        with open(made.descriptor, "wb", closefd=False) as file:
            file.write(b"in the buffer of both")
            assert in_fork(lambda: leave(file, made)) == 0
            assert in_fork(made.replace) == 1
            assert in_fork(made.place) == 1
            assert len(names(tmp_path)) == 1
            assert not remove_orphan(str(tmp_path / "out"), names(tmp_path)[0], OURS)
        made.replace()
    assert (tmp_path / "out").read_bytes() == b"in the buffer of both"


OUTLIVED = """
with replace.replacing(sys.argv[1], OURS) as file:
    session = sessions.SessionFile(sys.argv[1], SESSION, OURS)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        print("forked", flush=True)
        os.read(0, 1)
        os._exit(0)
    os.kill(os.getpid(), 9)
"""


@needs_fork
def test_the_child_of_a_fork_that_outlives_its_parent_does_not_hide_that_it_died(tmp_path: Path) -> None:
    with Process(OUTLIVED, tmp_path / "out") as child:
        assert child.says() == "forked"
        assert child.process.wait() == KILLED
        assert len(orphans(str(tmp_path / "out"), OURS)) == 1
        assert dead_sessions(str(tmp_path / "out"), OURS) == [SESSION]
        assert child.process.stdin is not None
        child.process.stdin.close()  # and now the grandchild ends


# ---- File systems without locks ----


def test_on_a_file_system_that_refuses_locks_files_are_replaced_and_sessions_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, **how: bool) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(system, "lock", refuse)
    with replacing(tmp_path / "out", OURS) as file:
        file.write(b"new")
    with temporary(tmp_path / "out", OURS):
        assert orphans(str(tmp_path / "out"), OURS) == []
    with pytest.raises(StoreIOError, match=r"no locks.*nothing was staged"):
        SessionFile(str(tmp_path / "app.db"), SESSION, OURS)
    assert names(tmp_path) == ["out"]
    (tmp_path / f"app.db-session-{SESSION.hex()}").write_bytes(OURS + SESSION)
    assert session_alive(str(tmp_path / "app.db"), SESSION)  # it cannot be known
    assert dead_sessions(str(tmp_path / "app.db"), OURS) == []


# ---- Sessions ----

HOLDS_SESSION = """
session = sessions.SessionFile(sys.argv[1], SESSION, OURS)
print("holding", flush=True)
sys.stdin.readline()
"""


def test_a_session_lives_from_its_making_to_its_release(tmp_path: Path) -> None:
    store = tmp_path / "app.db"
    store.write_bytes(b"")
    store.chmod(0o660)
    symlink(tmp_path / "link", "app.db")
    assert not session_alive(str(store), SESSION)
    file = SessionFile(str(store), SESSION, OURS)
    (path,) = tmp_path.glob("app.db-session-*")
    assert path.name == f"app.db-session-{SESSION.hex()}"
    assert path.read_bytes() == OURS + SESSION
    assert has_mode(path, 0o660)  # whoever may write the store may look whether it lives
    for name in ("app.db", "link"):
        assert session_alive(str(tmp_path / name), SESSION)
    assert not session_alive(str(store), OTHER)
    assert dead_sessions(str(store), OURS) == []
    assert not remove_session(str(store), SESSION, OURS)
    file.release()
    file.release()
    assert not session_alive(str(store), SESSION)
    assert names(tmp_path) == ["app.db", "link"]


def test_a_session_lives_in_another_process_until_that_is_killed(tmp_path: Path) -> None:
    store = str(tmp_path / "app.db")
    with Process(HOLDS_SESSION, store) as child:
        assert child.says() == "holding"
        assert session_alive(store, SESSION)
        assert dead_sessions(store, OURS) == []
        child.kill()
    assert not session_alive(store, SESSION)
    assert dead_sessions(store, OURS) == [SESSION]
    assert dead_sessions(store, OTHER) == []
    assert not remove_session(store, SESSION, OTHER)
    assert not remove_session(store, OTHER, OURS)
    assert remove_session(store, SESSION, OURS)
    assert dead_sessions(store, OURS) == []
    assert names(tmp_path) == []


def test_nothing_else_is_taken_for_the_file_of_a_dead_session(tmp_path: Path) -> None:
    store = str(tmp_path / "app.db")
    right = OURS + SESSION
    for name, content in {
        f"app.db-session-{SESSION.hex()}": right[:-1],
        f"app.db-session-{'01' * 16}": right,
        f"app.db-session-{'02' * 16}": OTHER + b"\2" * 16,
        f"app.db-session-{'03' * 16}": OURS + b"\3" * 16 + b"more",
        f"app.db-session-{'04' * 15}": OURS + b"\4" * 15,
        f"app.db-session-{'AB' * 16}": right,
        f"app.db-session-{SESSION.hex()}-wal": right,
        f"b.db-session-{SESSION.hex()}": right,
        "app.db-wal": right,
    }.items():
        (tmp_path / name).write_bytes(content)
    symlink(tmp_path / f"app.db-session-{'05' * 16}", "app.db-wal")
    (tmp_path / f"app.db-session-{'06' * 16}").mkdir()
    before = folder_image(tmp_path)
    assert dead_sessions(store, OURS) == []
    for number in (0xAB, *range(1, 7)):
        assert not remove_session(store, bytes([number]) * 16, OURS)
    assert folder_image(tmp_path) == before


def test_a_session_file_that_a_power_cut_left_empty_is_that_of_a_dead_session(tmp_path: Path) -> None:
    store = str(tmp_path / "app.db")
    (tmp_path / f"app.db-session-{SESSION.hex()}").touch()
    assert not session_alive(store, SESSION)
    assert dead_sessions(store, OURS) == [SESSION]
    assert remove_session(store, SESSION, OURS)
    assert names(tmp_path) == []


def test_the_content_of_a_session_file_is_durable_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("write", "fsync", "link"):
        where, called = caller(name)
        real = getattr(where, called)
        monkeypatch.setattr(where, called, lambda *args, _name=name, _real=real: (done.append(_name), _real(*args))[1])
    SessionFile(str(tmp_path / "app.db"), SESSION, OURS).release()
    assert done == ["write", "fsync", "link"]


def test_nobody_ever_sees_the_file_of_a_session_that_is_being_made_as_that_of_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the system that its making makes is preceded and followed by another's look at it."""
    store = str(tmp_path / "app.db")
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        seen = (tmp_path / f"app.db-session-{SESSION.hex()}").exists()
        assert session_alive(store, SESSION) == seen
        assert dead_sessions(store, OURS) == []
        assert not remove_session(store, SESSION, OURS)

    def watched(module: Any, name: str) -> None:
        real = getattr(module, name)
        depth = 0

        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal depth
            if depth:
                return real(*arguments, **options)
            depth += 1
            try:
                look()
                result = real(*arguments, **options)
                look()
            finally:
                depth -= 1
            return result

        monkeypatch.setattr(module, name, call)

    for name in ("write", "link", "unlink", "fchmod", "lstat"):
        watched(os, name)
    watched(files, "_lock_own")
    file = SessionFile(store, SESSION, OURS)
    assert looks >= 10
    assert session_alive(store, SESSION)
    file.release()


@needs_fork
@pytest.mark.parametrize("call", ["fchmod", "write", "link", "unlink"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_one_that_is_killed_while_it_is_made_leaves_nothing_that_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, moment: str
) -> None:
    store = tmp_path / "app.db"
    store.touch()
    real = getattr(os, call)

    def cut(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options) if moment == "after" else None
        os.kill(os.getpid(), 9)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(os, call, cut)
        assert in_fork(lambda: SessionFile(str(store), SESSION, OURS)) == KILLED
    assert not session_alive(str(store), SESSION)
    made = (call, moment) in (("link", "after"), ("unlink", "before"), ("unlink", "after"))
    assert (dead_sessions(str(store), OURS) == [SESSION]) == made
    assert remove_session(str(store), SESSION, OURS) == made
    for name in orphans(str(tmp_path / "out"), OURS):
        assert remove_orphan(str(tmp_path / "out"), name, OURS)
    assert names(tmp_path) == ["app.db"]


REMOVES = """
store = sys.argv[1]
print("ready", flush=True)
while True:
    for session in sessions.dead_sessions(store, OURS):
        sessions.remove_session(store, session, OURS)
    for name in files.orphans(store, OURS):
        files.remove_orphan(store, name, OURS)
"""


def test_sessions_that_are_made_while_others_remove_the_dead_ones_live(tmp_path: Path) -> None:
    store = str(tmp_path / "app.db")
    with Process(REMOVES, store) as one, Process(REMOVES, store) as two:
        assert (one.says(), two.says()) == ("ready", "ready")
        for number in range(1, 400):
            session = number.to_bytes(16)
            file = SessionFile(store, session, OURS)
            assert session_alive(store, session)
            assert os.path.exists(f"{store}-session-{session.hex()}")
            file.release()
            assert not session_alive(store, session)
    assert names(tmp_path) == []


@needs_fork
def test_the_child_of_a_fork_does_not_end_its_parents_session(tmp_path: Path) -> None:
    store = str(tmp_path / "app.db")
    file = SessionFile(store, SESSION, OURS)
    assert in_fork(file.release) == 0
    assert session_alive(store, SESSION)
    assert names(tmp_path) == [f"app.db-session-{SESSION.hex()}"]
    file.release()
    assert names(tmp_path) == []


def test_a_session_whose_file_cannot_be_made_is_refused(tmp_path: Path) -> None:
    for store in (tmp_path / "none" / "app.db", tmp_path / ("n" * 240)):
        with pytest.raises(StoreIOError, match="nothing was staged") as caught:
            SessionFile(str(store), SESSION, OURS)
        assert str(store) in str(caught.value)
    (tmp_path / f"app.db-session-{SESSION.hex()}").touch()
    with pytest.raises(StoreIOError):
        SessionFile(str(tmp_path / "app.db"), SESSION, OURS)
    assert names(tmp_path) == [f"app.db-session-{SESSION.hex()}"]


@contextmanager
def without_privileges() -> Iterator[Path]:
    """A folder, and a process that is not root: files without permission are then refused."""
    with tempfile.TemporaryDirectory() as name:
        if uid():
            yield Path(name)
            return
        os.chown(name, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def test_what_may_not_be_opened_is_left_alone_and_lives() -> None:
    with without_privileges() as folder:
        session = folder / f"app.db-session-{SESSION.hex()}"
        session.write_bytes(OURS + SESSION)
        orphan = folder / f".out.sqlstate-{OURS.hex()}-{'0' * 16}.tmp"
        orphan.write_bytes(b"")
        for file in (session, orphan):
            file.chmod(0)
        assert session_alive(str(folder / "app.db"), SESSION)
        assert dead_sessions(str(folder / "app.db"), OURS) == []
        assert orphans(str(folder / "x"), OURS) == []
        for file in (session, orphan):
            file.chmod(0o600)
        folder.chmod(0o500)
        assert not session_alive(str(folder / "app.db"), SESSION)
        assert orphans(str(folder / "x"), OURS) == [orphan.name]
        assert not remove_orphan(str(folder / "x"), orphan.name, OURS)
        assert not remove_session(str(folder / "app.db"), SESSION, OURS)
        folder.chmod(0o300)
        assert orphans(str(folder / "x"), OURS) == []
        assert dead_sessions(str(folder / "app.db"), OURS) == []
        folder.chmod(0o700)
        assert len(names(folder)) == 2


# ---- Which file a name leads to ----


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no statx")
@pytest.mark.parametrize("asked", ["statx", "refused", "missing"])
def test_a_name_tells_which_file_it_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    real, answers = linux._statx, []

    def statx(*question: Any) -> int:
        assert real is not None
        assert question[3] & 0xE0 == 0, "it asks for the times, which makes the next sync slow"
        answers.append(-1 if asked == "refused" else real(*question))
        return answers[-1]

    # None as on another system, refused as by a sandbox
    monkeypatch.setattr(linux, "_statx", None if real is None or asked == "missing" else statx)
    path, other = tmp_path / "a name of ümlauts", tmp_path / "other"
    named = system.Inode(str(path))
    assert named.now() == 0
    path.write_bytes(b"1")
    other.write_bytes(b"2")
    first = named.now()
    assert first == path.stat().st_ino
    other.replace(path)
    assert named.now() == path.stat().st_ino != first
    path.unlink()
    assert named.now() == 0
    if real is not None:  # what os.stat() says is the same, so it would not be noticed
        assert answers == {"statx": [-1, 0, 0, -1], "refused": [-1] * 4, "missing": []}[asked]
