"""What the shell completes from a store: collections and keys, and nothing that a shell takes for more than a word.

Method: the program is asked as the shells ask it, in a process; what must not be offered is stored beforehand.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import sqlstate
from sqlstate.cli import completing, main
from tests import ROOT
from tests.support.child import Child
from tests.support.system import mkfifo

HOSTILE = [
    "a;reboot", "a b", "a$(id)", "a`id`", "a'b", 'a"b', "a\nplain,b", "a\\b", "a|b", "a&b", "a*", "a?", "a[b]",
    "a{1,2}", "a<b", "a>b", "a!b", "a#b", "a~b", "a,b", "-a", "--quick", "=a", "~a", "a\x1b[31m", "a\u202eb", "a\0b",
    "a\xa0b",
]  # fmt: skip


def completed(*words: str, shell: str = "bash") -> list[str]:
    """Ask as a shell does, in this process, and return the words that it gets."""
    environment = {
        "_SQLSTATE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(("sqlstate", *words)),
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner().invoke(main, [], prog_name="sqlstate", env=environment, complete_var="_SQLSTATE_COMPLETE")
    assert result.stderr == ""
    return [line.removeprefix("plain,") for line in result.stdout.splitlines() if line]


@pytest.fixture
def db(tmp_path: Path) -> str:
    file = (tmp_path / "app.db").as_posix()  # a shell takes a backslash for another thing than a path's
    with sqlstate.open(file) as store:
        store["users"].update(
            {"ada": 1, "adam": 2, "bob": 3, "été": 4, 7: 1, 70: 1, 71: 1, 8: 1, -7: 1, b"\x0a\xff": 1}
        )
        store["users"].update({2**63 - 1: 1, -(2**63): 1, 0: 1})
        store["urls"]["http://x/%41"] = 1
        store["mail"]["eve@x.org"] = 1
        store["misc"].update(dict.fromkeys(HOSTILE, 0))
        for name in HOSTILE:
            if "\0" not in name:
                store[name]["k"] = 1
    return file


def test_collections_are_offered(db: str) -> None:
    assert completed("list", db, "u") == ["urls", "users"]
    assert completed("get", db, "") == ["mail", "misc", "urls", "users"]
    assert completed("export", db, "users", "m") == ["mail", "misc"]
    assert completed("changes", db, "x") == []


def test_keys_are_offered_as_the_key_type_writes_them(db: str) -> None:
    assert completed("get", db, "users", "a") == ["ada", "adam"]
    assert completed("get", db, "users", "") == ["ada", "adam", "bob", "été"]
    assert completed("get", db, "users", "é") == ["été"]
    assert completed("delete", db, "users", "ada", "b") == ["bob"]
    assert completed("get", "--key-type", "int", db, "users", "7") == ["7", "70", "71"]
    assert completed("get", "--key-type", "int", db, "users", "0") == ["0"]
    assert completed("get", "--key-type", "int", db, "users", "")[:3] == ["0", "7", "8"]
    assert completed("get", "--key-type", "int", db, "users", "92") == [str(2**63 - 1)]
    assert completed("get", "--key-type", "int", db, "--", "users", "-7") == ["-7"]
    assert completed("get", "--key-type", "int", db, "--", "users", "-9") == [str(-(2**63))]
    assert completed("get", "--key-type", "hex", db, "users", "") == ["0aff"]
    assert completed("get", "--key-type", "hex", db, "users", "0af") == ["0aff"]
    assert completed("get", "--key-type", "hex", db, "users", "xy") == []
    assert completed("get", db, "urls", "h") == ["http://x/%41"]


def test_what_a_shell_would_obey_is_not_offered(db: str) -> None:
    assert completed("get", db, "misc", "") == []
    assert completed("get", db, "misc", "a") == []
    assert completed("list", db, "a") == []


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_what_is_offered_is_one_plain_word_to_a_shell(db: str) -> None:
    with sqlstate.open(db) as store:
        store["wide"].update({chr(number): 0 for number in range(1, 0x3100) if not 0xD800 <= number < 0xE000})
    words = [word for start in ("", "ა", "一") for word in completed("get", db, "wide", start)]
    assert len(words) > 50
    for word in words:
        code = f"set -f; set -- {word}; printf '%s:%s' $# \"$1\""
        assert subprocess.run(["bash", "-c", code], capture_output=True, check=True).stdout.decode() == f"1:{word}"


def test_many_keys_are_offered_in_part(db: str) -> None:
    with sqlstate.open(db) as store:
        store["many"].update({f"k{number:05}": 0 for number in range(5000)} | dict.fromkeys(range(5000), 0))
    assert len(completed("get", db, "many", "k")) == completing.OFFERED_MAX
    assert completed("get", db, "many", "k04999") == ["k04999"]
    assert "4999" in completed("get", "--key-type", "int", db, "many", "499")


def test_a_store_that_cannot_be_read_completes_nothing_and_is_left_alone(tmp_path: Path, db: str) -> None:
    no_store = tmp_path / "text"
    no_store.write_text("hello", "utf-8", newline="\n")
    for file in (str(tmp_path / "none.db"), str(no_store), str(tmp_path), "''"):
        assert completed("list", file, "") == []
        assert completed("get", file, "users", "") == []
    assert not (tmp_path / "none.db").exists()
    assert no_store.read_text("utf-8") == "hello"
    before = Path(db).read_bytes()
    completed("get", db, "users", "")
    assert Path(db).read_bytes() == before


def files_of(db: str) -> dict[str, bytes]:
    """Return what the store's files hold, but the -shm, an index that readers share, and an empty -wal."""
    held = {each.name: each.read_bytes() for each in Path(db).parent.glob("app.db*") if not each.name.endswith("-shm")}
    return {name: data for name, data in held.items() if data}


def test_a_store_in_use_completes_and_is_left_alone(db: str) -> None:
    with sqlstate.open(db) as store:
        store["left"][0] = store["right"][0] = 0
    with Child("holds", db) as child:
        child.expects("holding")
        before = files_of(db)
        assert completed("get", db, "users", "a") == ["ada", "adam"]
        assert files_of(db) == before


def test_a_store_that_was_not_closed_completes_and_is_left_alone(db: str) -> None:
    with Child("leaves", db) as child:
        child.expects("put")
        child.end()
    before = files_of(db)
    assert "app.db-wal" in before
    assert completed("get", db, "c", "l") == ["left"]
    assert files_of(db) == before


def test_a_locked_store_completes_nothing_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = (tmp_path / "app.db").as_posix()
    with sqlstate.open(db, journal="delete") as store:
        store["users"]["ada"] = 1
    asked: list[float] = []
    opening = sqlstate.open
    monkeypatch.setattr(
        sqlstate, "open", lambda path, timeout, **how: asked.append(timeout) or opening(path, timeout=timeout, **how)
    )
    with Child("locks", db) as child:
        child.says()
        assert completed("get", db, "users", "a") == []
    assert completed("get", db, "users", "a") == ["ada"]
    assert set(asked) == {completing.PATIENCE_SECONDS}


def test_a_damaged_store_completes_what_it_can_and_says_nothing(db: str, tmp_path: Path) -> None:
    sound = Path(db).read_bytes()
    rng = random.Random(7)  # noqa: S311
    changed = tmp_path / "changed.db"
    for _ in range(80):
        data = bytearray(sound)
        for _ in range(rng.choice((1, 50))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        changed.write_bytes(data)
        completed("list", str(changed), "u")
        completed("get", str(changed), "users", "a")
        assert changed.read_bytes() == data
        assert not [*tmp_path.glob("changed.db-*")]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero", "/dev/tty", "-", "x" * 5000, "a\udcffb"):
        assert completed("list", path, "") == []


def test_a_file_is_found_as_the_shell_would_find_it(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):  # the other is what Windows has for ~
        monkeypatch.setenv(name, Path(db).parent.as_posix())
    assert completed("list", "~/app.db", "u") == ["urls", "users"]
    assert completed("list", "$HOME/app.db", "u") == ["urls", "users"]


def test_every_argument_for_a_collection_and_a_key_completes() -> None:
    context = click.Context(main)
    for verb in main.list_commands(context):
        command: Any = main.get_command(context, verb)
        names = {parameter.name for parameter in command.params}
        for parameter in command.params:
            if "file" in names and isinstance(parameter, click.Argument) and parameter.name in ("collection", "key"):
                wanted = completing.collections if parameter.name == "collection" else completing.keys
                assert parameter._custom_shell_complete is wanted, (verb, parameter.name)


# ---- In real shells ----

WITH_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)
SHELLS = {
    "bash": (["bash", "--noprofile", "--norc", "-i"], 'eval "$(sqlstate completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -D -u; eval "$(sqlstate completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "sqlstate completion fish | source"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHELLS)
def test_a_real_shell_completes_a_collection_and_a_key(db: str, tmp_path: Path, name: str) -> None:
    """Type at a terminal, with the Tab key where a word is to be completed, and look at what the command wrote."""
    command, setup = SHELLS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {name}")
    program = tmp_path / "bin" / "sqlstate"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom sqlstate.cli import main\nmain()\n", "utf-8", newline="\n")
    program.chmod(0o755)
    places = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    ours, theirs = pytest.importorskip("pty").openpty()
    shell = subprocess.Popen(
        [sys.executable, "-c", WITH_A_TERMINAL, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        start_new_session=True,
        env=os.environ | places | {"TERM": "dumb"},
    )
    os.close(theirs)
    shown = b""

    def heard(marker: bytes = b"") -> bool:
        """Read on; return True until the marker is there, or the shell has gone."""
        nonlocal shown
        with suppress(OSError):
            data = os.read(ours, 65536)
            shown += data
            return bool(data) and not (marker and marker in shown)
        return False

    os.write(ours, f"{setup}; printf 'rea%s' dy\n".encode())
    while heard(b"ready"):
        pass
    os.write(ours, f"sqlstate get {db} us\tbo\t >out\nsqlstate get {db} misc a\t 2>err\n".encode())
    os.write(
        ours, f"true; A=1 sqlstate get '{db}' ur\thttp:\t >colon\nsqlstate get {db} urls http://x/\t >>colon\n".encode()
    )
    os.write(ours, f"sqlstate get {db} mail e\t >>colon\nsqlstate get {db} mail eve@\t >>colon\nexit\n".encode())
    while heard():
        pass
    shell.wait()
    os.close(ours)
    assert (tmp_path / "out").read_text("utf-8") == "3\n", shown
    assert (tmp_path / "colon").read_text("utf-8") == "1\n1\n1\n1\n", shown
    assert "'a'" in (tmp_path / "err").read_text("utf-8"), shown  # as it was typed
