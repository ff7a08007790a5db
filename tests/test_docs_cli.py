"""docs/reference/cli.md: its verbs are what the program's help says, its table and examples what the program does.

`python -m tests.test_docs_cli` writes the page's lower part anew; the part above the mark is written by hand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pycountry
import pytest

from sqlstate.cli import main
from sqlstate.cli.exits import MEANINGS

PAGE = Path(__file__).parents[1] / "docs/reference/cli.md"
MARK = "<!-- From here on written by the program: python -m tests.test_docs_cli -->\n"
WIDTH = 80


def render() -> str:
    """Return the page's lower part: the help of the program and of each verb, 80 columns wide."""
    settings: dict[str, Any] = {**main.context_settings, "terminal_width": WIDTH}
    top = click.Context(main, info_name="sqlstate", **settings)
    parts = [_section("sqlstate", main.get_help(top))]
    for verb in main.list_commands(top):
        command = main.get_command(top, verb)
        assert command is not None
        context = click.Context(command, info_name=verb, parent=top, **settings)
        parts.append(_section(f"sqlstate {verb}", command.get_help(context)))
    return "\n" + "\n".join(parts)


def _section(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {title}\n\n```text\n{lines}\n```\n"


def parts() -> tuple[str, str]:
    """Return the page above the mark, and below it."""
    head, mark, body = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert mark, "the page has no mark"
    return head, body


def test_the_page_shows_the_help_of_every_verb() -> None:
    assert parts()[1] == render(), "the program's help has changed; run: python -m tests.test_docs_cli"


def test_the_help_fits_its_width() -> None:
    assert [line for line in render().splitlines() if len(line) > WIDTH] == []


def test_the_page_shows_the_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", parts()[0], re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in rows] == [(int(code), said) for code, said in MEANINGS.items()]


def test_the_examples_print_what_the_page_says(tmp_path: Path) -> None:
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("needs a shell")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sqlstate"
    program.write_text(f'#!{shell}\nexec "{sys.executable}" -m sqlstate "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    shutil.copy(Path(pycountry.DATABASE_DIR) / "iso3166-1.json", tmp_path)
    environment = os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    examples = re.findall(r"^```console\n(.*?)^```$", parts()[0], re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    for command, expected in re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", "".join(examples), re.MULTILINE):
        result = subprocess.run(
            [shell, "-c", command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        assert result.stdout == expected, command


if __name__ == "__main__":
    PAGE.write_text(parts()[0] + MARK + render(), encoding="utf-8")
