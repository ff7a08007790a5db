"""What the program says: in words of the shell, whatever the locale, and with the exit codes of its page.

Method: every sentence that the library can raise is put through what the program does to it; and real processes run
with an ASCII locale, few descriptors, no permissions, and in a folder that was removed.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate import errors
from sqlstate.cli.words import in_shell_words
from sqlstate.files import paths
from tests import ROOT
from tests.cli.test_program import bad, good
from tests.support.mounts import NOBODY, as_user

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(sqlstate.__file__).parent
# Words of Python: an argument with its value, a call. (synchronous= is a word of SQLite.)
PYTHON = re.compile(r"\b(?!synchronous=)[a-z][a-z_]*=(True|False|None|['\"])|\b[A-Za-z_.]+\(\w*\)")
# Modules of which the program raises nothing, or what it never asks for.
ELSEWHERE = (
    "aio",
    "integrations",
    "commit",
    "transaction",
    "open_transaction",
    "moment",
    "batch",
    "blocks",
    "staged",
    "session",
    "snapshot",
    "collection",
    "drill",
    "names",
    "values",
    "log",
)


def sentences() -> Iterator[tuple[str, str, str]]:
    """Yield module, exception and text of each exception that is raised; what is formatted in is a quoted x."""
    for file in sorted(PACKAGE.rglob("*.py")):
        if {file.stem, *file.relative_to(PACKAGE).parts} & {*ELSEWHERE}:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            for argument in node.args:
                text = _text(argument)
                if hasattr(errors, node.func.id) or node.func.id.startswith("_"):
                    yield file.stem, node.func.id, text


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else _formatted(part)
            for part in node.values
        )
    return ""


def _formatted(part: ast.AST) -> str:
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Constant):
        return repr(part.value.value)
    return "'x'"


def test_no_sentence_speaks_of_python_at_the_shell() -> None:
    found = list(sentences())
    assert sum(bool(PYTHON.search(text)) for *_, text in found) > 15
    for module, kind, text in found:
        if module in ("opening", "connection") and re.match(r"(mode|journal|recover|vfs|group_\w+)=", text):
            continue  # the program does not let the user choose it, or only among what there is
        error = errors.InvalidOption(text) if kind == "InvalidOption" else errors.StoreError(text)
        assert not PYTHON.search(in_shell_words(error)), f"{module}: {in_shell_words(error)}"


@pytest.mark.parametrize("key", ["limit='5'", "a=1", "timeout=True"])
def test_what_the_user_wrote_stays_as_it_is(tmp_path: Path, key: str) -> None:
    db = str(tmp_path / "app.db")
    good("put", db, "c", "k", "1")
    assert repr(key) in bad(1, "get", db, "c", key)


def test_messages_of_real_commands_say_what_the_user_of_the_shell_can_do(tmp_path: Path) -> None:
    db, copy = str(tmp_path / "app.db"), str(tmp_path / "copy.db")
    assert "'sqlstate put' and 'sqlstate import' make one" in bad(5, "get", db, "c", "k")
    good("put", db, "c", "k", "1")
    good("backup", db, copy)
    assert "restore with --replace" in bad(2, "restore", copy, db)
    assert "--timeout -1.0" in bad(2, "get", db, "c", "k", "--timeout", "-1")
    assert "--commit 9" in bad(2, "prove", db, "--commit", "9")


# ---- The locale ----


@pytest.mark.slow
def test_with_an_ascii_locale_text_is_utf8_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "Zürich.db"
    key, name = "clé €", "réglages"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sqlstate", *arguments],
            capture_output=True,
            env=environment,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == code, done.stderr
        return (done.stdout or done.stderr).decode()

    run("put", str(file), name, key, '"é"', "--note", "für")
    run("put", str(file), name, "ü", "2")
    assert run("get", str(file), name, key) == '"é"\n'
    assert run("list", str(file), name, "--prefix", "cl").count("\n") == 1
    assert run("list", str(file), name, "--start", "ü", "--keys") == f'{{"collection":"{name}","key":"ü"}}\n'
    assert run("list", str(file), name, "--stop", "ü", "--keys").count("\n") == 1
    assert name in run("collections", str(file))
    assert "für" in run("log", str(file))
    run("check", str(file))
    run("export", str(file), name, "-o", str(tmp_path / "é.jsonl"))
    run("import", str(tmp_path / "ö.db"), str(tmp_path / "é.jsonl"))
    run("backup", str(file), str(tmp_path / "ä.db"))
    run("restore", str(file), str(tmp_path / "à.db"))
    run("prove", str(file), name, key, "--out", str(tmp_path / "ß"))
    run("get", str(file), name, "ß", code=1)
    run("delete", str(file), name, key)
    with sqlstate.open(file) as store:
        assert dict(store[name]) == {"ü": 2}
    assert len(list(tmp_path.iterdir())) == 6


# ---- Descriptors ----


def with_few_descriptors(work: str, *arguments: object) -> str:
    """Run a program that can open only few files more once it says so."""
    code = (
        "import os, resource, sys\nimport sqlstate\nsqlstate.restore\n"
        "sqlstate.open(sys.argv[1]).close()  # all modules are there\n"
        "def few(number):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))\n"
        "    held = []\n"
        "    try:\n"
        "        while True: held.append(os.open(os.devnull, os.O_RDONLY))\n"
        "    except OSError: pass\n"
        "    for each in held[:number]: os.close(each)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + work, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", [pytest.param(i, marks=pytest.mark.slow if i % 2 else ()) for i in range(6)])
@pytest.mark.parametrize("options", ["", ", read_only=True"])
def test_too_few_descriptors_are_said_and_not_blamed_on_permissions(tmp_path: Path, number: int, options: str) -> None:
    path = tmp_path / "app.db"
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
    said = with_few_descriptors(
        f"few({number})\n"
        f"try:\n    store = sqlstate.open(sys.argv[1]{options})\n    print(store['c']['k'])\n"
        f"    store.snapshot().head\n"
        f"except sqlstate.StoreError as e:\n    print(type(e).__name__, e)\n",
        path,
    )
    assert "permission" not in said
    assert said == "1\n" or paths.DESCRIPTORS in said
    if not number:
        assert said.startswith("CannotOpen")
    with sqlstate.open(path) as store:
        assert store["c"]["k"] == 1


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_an_open_store_outlives_too_few_descriptors(tmp_path: Path, journal: str) -> None:
    said = with_few_descriptors(
        f"store = sqlstate.open(sys.argv[2], journal={journal!r})\n"
        "store['c']['k'] = 1\n"
        "store.stage().rollback()\n"
        "few(0)\n"
        "for work in (lambda: [store.snapshot() for _ in range(9)], lambda: store.backup(sys.argv[2] + '.copy'),\n"
        "             lambda: sqlstate.restore(sys.argv[1], sys.argv[2] + '.new')):\n"
        "    try:\n        work()\n    except sqlstate.StoreError as e:\n        print(e)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "store['c']['k'] += 1\nprint(store['c']['k'])\nstore.close()\n",
        tmp_path / "other.db",
        tmp_path / "app.db",
    ).splitlines()
    assert said[3:] == ["2"]
    assert all(paths.DESCRIPTORS in each and "permission" not in each for each in said[:3])


# ---- Paths that lead nowhere ----

CALLS = {
    "open": "sqlstate.open('a.db')",
    "open for reading": "sqlstate.open('a.db', read_only=True)",
    "backup": "store.backup('b.db')",
    "restore from": "sqlstate.restore('b.db', sys.argv[1] + '2')",
    "restore to": "sqlstate.restore(sys.argv[1], 'b.db')",
    "repair": "sqlstate.repair('a.db')",
}


@pytest.mark.parametrize("what", CALLS)
def test_a_relative_path_in_a_folder_that_was_removed_is_refused_plainly(tmp_path: Path, what: str) -> None:
    code = (
        "import os, sys\nimport sqlstate\nstore = sqlstate.open(sys.argv[1])\nos.mkdir(sys.argv[2])\n"
        "os.chdir(sys.argv[2])\nos.rmdir(sys.argv[2])\n"
        f"try:\n    {CALLS[what]}\nexcept sqlstate.CannotOpen as e:\n    print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "app.db", tmp_path / "gone"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "the working directory was removed" in done.stdout
    assert "Give an absolute path" in done.stdout


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (5, ["get", "a.db", "c", "k"]),
        (5, ["put", "a.db", "c", "k", "1"]),
        (5, ["export", "{db}", "-o", "out"]),
        (5, ["backup", "{db}", "out"]),
        (5, ["restore", "{db}", "out"]),
        (6, ["import", "{db}", "in.json"]),
    ],
)
def test_the_program_in_a_folder_that_was_removed(tmp_path: Path, code: int, arguments: list[str]) -> None:
    db = tmp_path / "app.db"
    good("put", str(db), "c", "k", "1")
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$0" && exec "$@"', str(gone), sys.executable, "-P", "-m", "sqlstate"]
        + [part.format(db=db) for part in arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=gone,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, "bug" in done.stderr) == (code, False), done.stderr


# ---- Exit codes ----


def test_what_may_not_be_read_has_the_exit_code_of_the_page() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        secret, closed, own = folder / "secret", folder / "closed", folder / "own.db"
        good("put", str(secret), "c", "k", "1")
        closed.mkdir(0o744)
        good("put", str(closed / "app.db"), "c", "k", "1")

        good("import", "--help")  # loads its modules, which the other user may not read

        def work() -> None:
            for path in (secret, closed / "app.db", closed / "not-there.db"):
                for verb in (["get", str(path), "c", "k"], ["check", str(path)], ["backup", str(path), str(own)]):
                    assert "look" in bad(5, *verb)
                bad(5, "put", str(path), "c", "k", "1")
            good("put", str(own), "c", "k", "1")
            assert "Permission denied" in bad(6, "import", str(own), str(secret), "--format", "jsonl")
            assert "Permission denied" in bad(6, "put", str(own), "c", "k", "--from", str(secret))
            bad(2, "restore", str(secret), str(folder / "other.db"))

        as_user(NOBODY, work)
