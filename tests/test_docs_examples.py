"""The programs in docs/examples are printed whole in the how-to pages; tests/examples/ runs them.

`python -m tests.test_docs_examples` copies each into its page again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import ROOT
from tests.support.pages import blocks

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = sorted((ROOT / "docs" / "examples").glob("*.py"))
PAGE_OF = {"note_editor.py": "write-a-desktop-program.md", "web_service.py": "write-a-web-service.md"}
HOW_TO = ROOT / "docs" / "how-to"


def printed(page: str, program: Path) -> str:
    """Return the page with the program as it is."""
    return re.sub(
        r"(\n## The program\n\n```python no-run\n).*?(^```$)",
        lambda found: found[1] + program.read_text(encoding="utf-8") + found[2],
        page,
        flags=re.DOTALL | re.MULTILINE,
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_page_prints_the_program_whole(program: Path) -> None:
    page = (HOW_TO / PAGE_OF[program.name]).read_text(encoding="utf-8")
    assert program.read_text(encoding="utf-8") in [block.text for block in blocks(page)], (
        "run `python -m tests.test_docs_examples`"
    )


def test_the_fixtures_of_the_page_on_pytest_work(tmp_path: Path) -> None:
    page = (HOW_TO / "test-with-pytest.md").read_text(encoding="utf-8")
    for name, block in zip(("conftest.py", "test_app.py"), blocks(page), strict=True):
        (tmp_path / name).write_text(block.text, encoding="utf-8")
    (tmp_path / "pytest.ini").touch()  # nothing of this project's
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(tmp_path / "pytest.ini"),
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


if __name__ == "__main__":
    for each in PROGRAMS:
        target = HOW_TO / PAGE_OF[each.name]
        target.write_text(printed(target.read_text(encoding="utf-8"), each), encoding="utf-8")
