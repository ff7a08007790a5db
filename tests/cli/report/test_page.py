"""The page of a report: nothing from the store can act in it, and it proves an entry.

Method: the page is parsed, and opened in a real Chromium, which tells every request and complaint. Names, keys, values
and notes of the hostile store hold what breaks out of HTML, of scripts, of SVG and of text direction.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from sqlstate.cli.report import facts, page
from tests import ROOT
from tests.cli.report.reading import HOSTILE, paper, report
from tests.support import browser

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
@pytest.mark.parametrize("changed", ["value", "key", "proof"])
def test_a_page_that_was_changed_proves_nothing(opened: browser.Browser, db: str, changed: str) -> None:
    text, found = report(db, "--entry", "users", "ada")
    [was] = re.findall(r'id="paper">(.*?)</script>', text)
    carried = paper(found)
    if changed == "value":
        carried["question"]["value"]["json"] = '{"age":37}'
    elif changed == "key":
        carried["question"]["key"]["text"] = "adb"
    else:
        proof = json.loads(carried["proof"])
        body = bytearray(base64.b64decode(proof["body"]))
        body[len(body) // 2] ^= 1
        carried["proof"] = json.dumps(proof | {"body": base64.b64encode(body).decode()}, separators=(",", ":"))
    Path(db).with_suffix(".html").write_text(text.replace(was, json.dumps(carried)), "utf-8")
    shown(opened, db)
    assert opened.text("#verdict") == "Not proven"
    assert opened.text("#reason").startswith("Why: ")


@pytest.mark.browser
def test_each_byte_of_the_proof_counts(opened: browser.Browser, db: str) -> None:
    report(db, "--entry", "users", "ada")
    shown(opened, db)
    assert opened.text("#verdict") == "Proven"
    still = opened.evaluate("""(() => {
      const paper = JSON.parse(document.getElementById("paper").textContent);
      const root = document.getElementById("root").value, still = [];
      for (let at = 0; at < paper.proof.length; at++) {
        const other = paper.proof[at] === "A" ? "B" : "A";
        try {
          sqlstate.verify(paper.proof.slice(0, at) + other + paper.proof.slice(at + 1), root, paper.question);
          still.push(at);
        } catch (error) {
          if (!(error instanceof sqlstate.ProofInvalid)) throw error;
        }
      }
      return [paper.proof.length, still];
    })()""")
    assert still[0] > 100
    assert still[1] == []


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


CONTRASTS = """(() => {
  const probe = document.createElement("p");
  document.body.append(probe);
  const rgb = (colour) => {
    probe.style.color = colour;
    return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
  };
  const light = (colour) => rgb(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = light("Canvas"), found = [];
  for (const each of document.querySelectorAll("h1, h2, p, li, td, th, b, caption, figcaption, label, span")) {
    const ink = light(getComputedStyle(each).color);
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (!each.className.startsWith("part")) found.push(ratio);
  }
  probe.remove();
  return [paper, Math.min(...found)];
})()"""


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_can_be_read_in_light_and_in_dark(db: str, tmp_path: Path, dark: bool) -> None:
    program = browser.chromium()
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    report(db)
    with browser.Browser(program, tmp_path / "profile", dark=dark) as window:
        shown(window, db)
        paper_light, least = window.evaluate(CONTRASTS)
    assert (paper_light < 0.1) is dark
    assert least >= 4.5  # what WCAG 2 asks of text


@pytest.mark.browser
def test_the_page_is_printed_in_light_and_with_nothing_cut_off(db: str, tmp_path: Path) -> None:
    program = browser.chromium()
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    report(db)
    with browser.Browser(program, tmp_path / "profile", dark=True) as window:
        shown(window, db)
        window.screenshot(tmp_path / "page.png", 700)  # the width of a sheet, less its margins
        window.print_preview()
        paper_light, least = window.evaluate(CONTRASTS)
        width = window.evaluate("document.documentElement.scrollWidth")
    assert paper_light > 0.9
    assert least >= 4.5
    assert width <= 700
