"""docs/reference/cli.md: its verbs are what the program's help says, its table what the program does. Its
examples are run by tests/test_docs.py.

`python -m tests.test_docs_cli` writes the page's lower part anew; the part above the mark is written by hand.
"""

from __future__ import annotations

import re
from typing import Any

import click

from sqlstate.cli import main
from sqlstate.cli.exits import MEANINGS
from tests import ROOT

PAGE = ROOT / "docs/reference/cli.md"
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


if __name__ == "__main__":
    PAGE.write_text(parts()[0] + MARK + render(), encoding="utf-8")
