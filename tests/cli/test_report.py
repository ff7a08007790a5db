"""The report of a store: what the page says, that nothing from the store can act in it, and that it proves an entry.

Method: the page is parsed, and opened in a real Chromium, which tells every request and complaint. Names, keys, values
and notes of the hostile store hold what breaks out of HTML, of scripts, of SVG and of text direction.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate.cli.exits import Exit
from sqlstate.cli.report import charts, facts, page
from tests import ROOT
from tests.cli.test_program import bad, good, run
from tests.support import browser

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    return text, Page(text)


@pytest.fixture
def db(tmp_path: Path) -> str:
    file = str(tmp_path / "app.db")
    with sqlstate.open(file) as store:
        store["settings"]["lang"] = "fr"
        with store.transaction(note="move in") as txn:
            txn.put("users", "ada", {"age": 36})
            txn.put("users", 7, b"\x00\xff")
        del store["settings"]["lang"]
        store.claims["mirror"] = 2
    return file


@pytest.fixture
def hostile(tmp_path: Path) -> str:
    file = str(tmp_path / "hostile.db")
    with sqlstate.open(file) as store:
        for text in HOSTILE:
            with store.transaction(note=text.replace("\0", "")) as txn:
                txn.put(text.replace("\0", ""), text, {text: [text, {"x": text}]})
                txn.put("c", text, text)
                txn.put("bytes", text.encode(), text.encode())
            store.claims[re.sub(r"[^ -~]", "", text) or "x"] = store.head().seq
    return file


# ---- What it says ----


def test_the_page_says_what_the_store_is(db: str) -> None:
    text, found = report(db)
    assert text.startswith("<!doctype html>")
    with sqlstate.open(db, read_only=True) as store:
        head, sizes = store.head(), store.sizes()
    assert [row[0] for row in found.tables["heads"][1:]] == ["3", "2", "1"]
    assert found.tables["heads"][1][3] == head.root.hex()
    assert [row[0].split()[-1] for row in found.tables["sizes"]] == [*sizes._fields]
    assert [row[:2] for row in found.tables["collections"][1:]] == [["users", "2"]]
    changes = [(row[0], row[2], row[3], row[4], row[5], row[6]) for row in found.tables["changes"][1:]]
    assert changes == [
        ("3", "settings", "lang", '"fr"', "", ""),
        ("2", "users", "7", "", "2 bytes x'00ff'", "move in"),
        ("2", "users", "ada", "", '{"age":36}', "move in"),
        ("1", "settings", "lang", "", '"fr"', ""),
    ]
    assert ["last close", "clean"] in found.tables["recovery"]
    assert "mirror has commit 2" in text
    assert ">Sound<" in text
    assert "2 entries, 1 nodes of the tree" in text


def test_an_empty_store_and_one_whose_log_was_cut_are_shown(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    sqlstate.open(db).close()
    text, found = report(db)
    assert "There is no commit in the log" in text
    assert "no entry that could be proven" in text
    with sqlstate.open(db) as store:
        for number in range(5):
            store["c"][number] = number
        store.cut(5)
        store.cut(store.head().seq)
    text, found = report(db)
    assert [row[0] for row in found.tables["heads"][1:]] == ["5"]
    assert found.tables["proven"][1] == ["Key", "4"]
    assert "from commit 5 on" in text


def test_what_the_log_does_not_have_is_said(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store:
        store.set_logging("cache", "digests")
        store["cache"]["k"] = "secret"
        store["cache"]["k"] = "other"
    _, found = report(db)
    assert [row[4:6] for row in found.tables["changes"][1:]] == [["(redacted)", '"other"'], ["", "(redacted)"]]
    assert found.tables["collections"][1][3] == "digests only in the log"
    assert found.tables["proven"][2] == ["Value", '"other"']  # it is there, and a proof shows it


def test_a_large_log_is_drawn_from_some_of_its_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store, store.batch() as batch:
        for number in range(40):
            batch["c"][number] = number
            batch.flush()
    whole, _ = report(db)
    monkeypatch.setattr(facts, "COMMITS_READ_MAX", 10)
    monkeypatch.setattr(facts, "POINTS_MAX", 7)
    some, found = report(db)
    assert "40 commits, from number 1 on" in whole
    assert "40 commits, from number 1 on" in some
    assert found.tables["heads"][1][0] == "40"
    assert len(re.findall("V", re.findall(r'class="line" d="([^"]+)"', some)[0])) < len(
        re.findall("V", re.findall(r'class="line" d="([^"]+)"', whole)[0])
    )


def test_a_damaged_store_is_shown_as_far_as_it_can_be_read(db: str) -> None:
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE state SET value = '99' WHERE key = 'ada'")
    connection.close()
    text, found = report(db, code=Exit.DAMAGED)
    assert ">DAMAGED<" in text
    assert "&#39;ada&#39;" in text
    assert found.tables["heads"][1][0] == "3"


def test_a_part_that_cannot_be_read_says_so(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise sqlstate.Damaged("page <7> is not as it was written")

    for part in ("_heads", "_sizes", "_collections", "_changes", "_recovery", "_audit", "_proof", "_check"):
        monkeypatch.setattr(facts, part, broken)
    text, _ = report(db, code=Exit.CANNOT_OPEN)
    assert text.count("This part could not be read: page &lt;7&gt; is not") >= 8


def test_a_bug_of_ours_is_no_damage_of_the_file(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise TypeError("ours")

    monkeypatch.setattr(facts, "_sizes", broken)
    assert "a bug in sqlstate" in bad(Exit.BUG, "report", db, "-o", str(Path(db).with_suffix(".html")))
    assert not Path(db).with_suffix(".html").exists()


# ---- Where it goes ----


def test_the_page_replaces_what_was_there_and_never_the_store(db: str, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    out.write_text("before")
    said = json.loads(good("report", db, "-o", str(out), "--json"))
    assert said == {"outcome": "sound", "seq": 3, "bytes": out.stat().st_size}
    before = Path(db).read_bytes()
    for target in (db, db + "-wal"):
        assert "belongs to the store itself" in bad(2, "report", db, "-o", target)
    assert Path(db).read_bytes() == before
    assert "Missing option '-o'" in bad(2, "report", db)
    bad(Exit.CANNOT_OPEN, "report", str(tmp_path / "none.db"), "-o", str(tmp_path / "none.html"))
    assert not (tmp_path / "none.html").exists()
    assert good("report", db, "-o", "-", "--quiet").startswith("<!doctype html>")


def test_without_jinja2_it_says_what_to_install(db: str, tmp_path: Path) -> None:
    code = "import sys; sys.modules['jinja2'] = None; from sqlstate.cli import main; main()"
    out = tmp_path / "r.html"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", db, "-o", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.USAGE
    assert "pip install 'sqlstate-store[report]'" in done.stderr
    assert not out.exists()


# ---- What it proves ----


def paper(found: Page) -> Any:
    return json.loads(found.scripts[0])


def test_the_page_carries_a_proof_of_the_entry_that_was_asked_for(db: str) -> None:
    with sqlstate.open(db, read_only=True) as store:
        root = store.head().root
    _, found = report(db, "--entry", "users", "7", "--key-type", "int")
    carried = paper(found)
    assert carried["question"] == {
        "kind": "present",
        "collection": "users",
        "key": {"int": "7"},
        "value": {"bytes": "00ff"},
    }
    sqlstate.proof.verify_present(sqlstate.proof.Proof.from_json(carried["proof"]), root, "users", 7, b"\x00\xff")
    _, found = report(db, "--entry", "users", "nobody")
    carried = paper(found)
    assert carried["question"]["kind"] == "absent"
    sqlstate.proof.verify_absent(sqlstate.proof.Proof.from_json(carried["proof"]), root, "users", "nobody")


def test_a_value_too_large_for_a_page_is_refused_if_asked_for_and_passed_over_if_not(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store:
        store["c"]["small"] = 1
        store["c"]["large"] = "x" * facts.PROVEN_BYTES_MAX
    assert "key" in bad(2, "report", db, "-o", str(tmp_path / "r.html"), "--entry", "c", "")
    assert "65,538 bytes" in bad(2, "report", db, "-o", str(tmp_path / "r.html"), "--entry", "c", "large")
    _, found = report(db)
    assert found.tables["proven"][1] == ["Key", "small"]


# ---- What it cannot do ----


def test_nothing_of_a_hostile_store_becomes_an_element_or_an_attribute(hostile: str, db: str) -> None:
    options = ("--entry", "c", HOSTILE[1])
    text, found = report(hostile, *options)
    _, plain = report(db)
    assert {name for name, _ in found.elements} <= {name for name, _ in plain.elements} | {"ul"}
    assert not [each for _, held in found.elements for each in held if each.startswith("on") or each in ("src", "href")]
    assert len(found.scripts) == 3
    assert found.scripts[1:] == plain.scripts[1:]
    assert found.scripts[1] == page._verifier()
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "</script><script>window" not in text
    assert paper(found)["question"]["value"] == {"json": json.dumps(HOSTILE[1], ensure_ascii=False)}
    assert "49" not in [cell for row in found.tables["changes"] for cell in row]


def test_the_page_allows_its_own_scripts_and_no_others(db: str) -> None:
    text, found = report(db)
    [policy] = [held["content"] for name, held in found.elements if held.get("http-equiv")]
    assert policy is not None
    assert re.findall(r"'(sha256-[^']+)'", policy) == [
        *map(page._digest, found.scripts[1:]),
        page._digest(re.findall(r"<style>(.*?)</style>", text, re.DOTALL)[0]),
    ]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_the_verifier_is_the_one_that_is_published() -> None:
    published = (ROOT / "docs/verify/verify.js").read_text("utf-8")
    assert page._verifier().replace("<\\/script", "</script") == published


# ---- In a browser ----


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    program = browser.chromium()
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with browser.Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(window: browser.Browser) -> Iterator[browser.Browser]:
    """A browser that is told of nothing but the pages of this test."""
    window.requests.clear()
    window.complaints.clear()
    yield window
    assert {each.rpartition(".")[2] for each in window.requests} == {"html"}, window.requests
    assert window.complaints == []


def shown(opened: browser.Browser, db: str) -> None:
    opened.open(Path(db).with_suffix(".html"))


@pytest.mark.browser
def test_the_page_proves_an_entry_and_refuses_another_root(opened: browser.Browser, db: str) -> None:
    report(db, "--entry", "users", "ada")
    shown(opened, db)
    assert opened.text("#verdict") == "Proven"
    assert "number 2 of 2 in the store" in opened.text("#reason")
    opened.paste("root", "0" * 64)
    assert opened.text("#verdict") == "Not proven"
    assert "another root" in opened.text("#reason")
    opened.paste("root", "x")
    assert "64 hexadecimal digits" in opened.text("#reason")
    report(db, "--entry", "users", "nobody")
    shown(opened, db)
    assert opened.text("#verdict") == "Proven"
    assert "no entry with this key among the 2" in opened.text("#reason")


@pytest.mark.browser
def test_a_page_that_was_changed_proves_nothing(opened: browser.Browser, db: str) -> None:
    text, _ = report(db, "--entry", "users", "ada")
    out = Path(db).with_suffix(".html")
    assert text.count('36}"') == 1
    out.write_text(text.replace('36}"', '37}"'), "utf-8")
    shown(opened, db)
    assert opened.text("#verdict") == "Not proven"


@pytest.mark.browser
def test_a_hostile_store_runs_nothing_and_hides_nothing(opened: browser.Browser, hostile: str) -> None:
    report(hostile, "--entry", "c", HOSTILE[0])
    shown(opened, hostile)
    assert opened.evaluate("typeof window.hit") == "undefined"
    assert opened.text("#verdict") == "Proven"
    assert HOSTILE[0] in opened.text("#proven")
    assert opened.evaluate("document.querySelectorAll('iframe, img, base, script:not([type])').length") == 2
    assert opened.evaluate("document.querySelectorAll('#changes tbody tr').length") == facts.CHANGES_SHOWN


@pytest.mark.browser
def test_a_script_that_got_into_the_page_would_not_run(window: browser.Browser, db: str) -> None:
    text, _ = report(db)
    out = Path(db).with_suffix(".html")
    broken = text.replace("<main>", "<main><script>window.hit=1</script><img src=x onerror=window.hit=2>")
    out.write_text(broken, "utf-8")
    window.complaints.clear()
    shown(window, db)
    assert window.evaluate("typeof window.hit") == "undefined"
    assert any("Content Security Policy" in each for each in window.complaints)
    window.complaints.clear()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_fits_a_phone(opened: browser.Browser, hostile: str, width: int, tmp_path: Path) -> None:
    report(hostile)
    shown(opened, hostile)
    opened.screenshot(tmp_path / "page.png", width)  # it sets the width
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


# ---- Shapes ----


def test_shapes_stay_in_their_frame_whatever_the_numbers() -> None:
    for points in ([(0.0, 0)], [(5.0, 3)], [(1.0, 1), (1.0, 2)], [(0.0, 1), (9.0, 2**63)], [(0.0, 7), (1.0, 0)]):
        numbers = [float(each) for each in re.findall(r"[\d.]+(?=[HV,]|$)", charts.line([(t, n) for t, n in points]))]
        assert all(0 <= each <= charts.WIDTH for each in numbers)
        drawn, _ = charts.bars(points, min(0, points[0][1]))
        assert all(0 <= bar.x < charts.WIDTH and 0 < bar.height <= charts.HEIGHT for bar in drawn)
    assert charts.bars([(0.0, 10), (60.0, 40)], 0)[1] == 30
    assert [bar.width for bar in charts.row([1, 1, 2])] == [250, 250, 500]
    assert sum(bar.width for bar in charts.row([0, 0])) == 0
