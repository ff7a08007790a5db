"""Makes a report and reads its page: elements, scripts, cells of tables; and texts that try to break out of one."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.cli.test_program import run

HOSTILE = [
    "<script>window.hit=1</script>",
    "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "<svg/onload=window.hit=1>",
    '"><iframe src="javascript:window.hit=1">',
    "' onmouseover=window.hit=1 x='",
    "<!--<script>",
    "]]></style><style>*{display:none}",
    "{{ 7*7 }}{% raw %}",
    "</title><base href=//example.invalid/>",
    "\u202egnp.exe",
    "line\nend\x1b[31m\x00",
    "&lt;b&gt; &amp;",
    "\ufdd0\U0010ffff",
]


class Page(HTMLParser):
    """The elements of a page: names and attributes, the scripts' texts, and the cells of each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._table = ""
        self._inside = ""
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")
        elif tag == "table":
            self._table = dict(attrs).get("id") or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = ""
        elif tag in ("td", "th"):
            self._cell = False
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._cell:
            self.tables[self._table][-1][-1] += data


def report(db: str, *options: str, code: int = 0) -> tuple[str, Page]:
    """Make a report and return its text, and it parsed."""
    out = Path(db).with_suffix(".html")
    result = run("report", db, "-o", str(out), *options)
    assert result.exit_code == code, (result.stderr, result.exception)
    assert result.stdout == "" or "--json" in options
    text = out.read_text("utf-8")
    assert str(Path(db).parent) not in text
    return text, Page(text)


def paper(found: Page) -> Any:
    """Return the question and the proof that the page carries."""
    return json.loads(found.scripts[0])
