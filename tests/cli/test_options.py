"""What verbs share: how much of a list a terminal gets, and `list` without a collection."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate.cli import options
from sqlstate.cli.exits import Exit
from tests.cli.test_program import PROGRAM, bad, good, on_terminal, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def db(tmp_path: Path) -> str:
    file = str(tmp_path / "app.db")
    with sqlstate.open(file) as store, store.batch() as batch:
        for number in range(150):
            batch["c"][number] = number
            batch[f"n{number:03}"]["k"] = 1
            batch.flush()
    return file


LISTS = [
    ["list", "{}", "c"],
    ["list", "{}", "c", "--keys"],
    ["list", "{}"],
    ["collections", "{}"],
    ["query", "{}", "c", "--where", "$ >= 0"],
    ["log", "{}"],
    ["log", "{}", "--commits"],
    ["changes", "{}"],
]


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_a_terminal_gets_the_first_rows_and_is_told(
    db: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word.format(db) for word in command]
    whole = good(*words).splitlines()
    assert len(whole) >= 150  # elsewhere nothing is left out
    monkeypatch.setattr(options, "on_terminal", lambda: True)
    cut = run(*words)
    assert len(cut.stdout.splitlines()) == 1 + options.TERMINAL_ROWS_MAX
    assert "the first 100; there are more, and --limit says how many" in cut.stderr
    every = run(*words, "--limit", "all")
    assert len(every.stdout.splitlines()) == 1 + len(whole)
    assert "there are more" not in every.stderr
    assert len(run(*words, "--limit", "120").stdout.splitlines()) == 121
    assert len(run(*words, "--jsonl").stdout.splitlines()) == len(whole)


def test_a_list_that_is_as_long_as_a_terminal_gets_says_nothing(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "on_terminal", lambda: True)
    result = run("list", db, "c", "--start", "50", "--key-type", "int")
    assert len(result.stdout.splitlines()) == 101
    assert result.stderr == ""


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "ALL", "9" * 30, ""])
def test_a_limit_that_is_none_is_refused(db: str, limit: str) -> None:
    assert "neither a number, 0 or more, nor all" in bad(Exit.USAGE, "list", db, "c", "--limit", limit)


def test_list_without_a_collection_prints_the_collections(db: str) -> None:
    assert good("list", db) == good("collections", db)
    assert good("list", db, "--at", "1") == '{"collection":"c","entries":1}\n{"collection":"n000","entries":1}\n'
    for option in (["--start", "a"], ["--stop", "a"], ["--prefix", "a"], ["--reverse"], ["--keys"]):
        assert "for the entries of a COLLECTION" in bad(Exit.USAGE, "list", db, *option)


@pytest.mark.slow
def test_a_real_terminal_gets_the_first_rows_and_a_pipe_all(db: str) -> None:
    code, shown = on_terminal("list", db, "c")
    assert code == 0
    assert shown.splitlines()[-2:] == [
        "99   99",
        "the first 100; there are more, and --limit says how many to print: a number, or all",
    ]
    assert len(on_terminal("list", db, "c", "--limit", "all").shown.splitlines()) == 151
    quiet = on_terminal("list", db, "c", "--quiet")
    assert len(quiet.shown.splitlines()) == 101
    piped = subprocess.run([*PROGRAM, "list", db, "c"], capture_output=True, text=True, check=True)
    assert len(piped.stdout.splitlines()) == 150
    assert piped.stderr == ""
