"""What the shell completes from a store: collections and keys, and nothing that a shell takes for more than a word.

Method: the program is asked as the shells ask it, in a process; what must not be offered is stored beforehand.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import sqlstate
from sqlstate.cli import completing, main

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
    file = str(tmp_path / "app.db")
    with sqlstate.open(file) as store:
        store["users"].update(
            {"ada": 1, "adam": 2, "bob": 3, "été": 4, 7: 1, 70: 1, 71: 1, 8: 1, -7: 1, b"\x0a\xff": 1}
        )
        store["users"].update({2**63 - 1: 1, -(2**63): 1, 0: 1})
        store["urls"]["http://x/%41"] = 1
        store["misc"].update(dict.fromkeys(HOSTILE, 0))
        for name in HOSTILE:
            if "\0" not in name:
                store[name]["k"] = 1
    return file


def test_collections_are_offered(db: str) -> None:
    assert completed("list", db, "u") == ["urls", "users"]
    assert completed("get", db, "") == ["misc", "urls", "users"]
    assert completed("export", db, "users", "m") == ["misc"]
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
    no_store.write_text("hello")
    for file in (str(tmp_path / "none.db"), str(no_store), str(tmp_path), "''"):
        assert completed("list", file, "") == []
        assert completed("get", file, "users", "") == []
    assert not (tmp_path / "none.db").exists()
    assert no_store.read_text() == "hello"
    before = Path(db).read_bytes()
    completed("get", db, "users", "")
    assert Path(db).read_bytes() == before


def test_a_file_is_found_as_the_shell_would_find_it(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(db).parent))
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
