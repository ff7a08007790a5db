"""Goal: the documents say what is so: examples print what they show, links lead somewhere, and the pages of names,
errors and words are complete. Method: tests/support/pages.py runs the examples of each page, and says how to write
them; the lists are compared with the package. A check returns what is wrong with a page, so that wrong pages test it.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import aio, cluster, errors, headlog, proof
from sqlstate.cli.exits import exit_code
from sqlstate.commit.commit import BUFFER_BYTES, BUFFER_ENTRIES
from sqlstate.format import constants as fmt
from sqlstate.sqlite.checkpoints import CHECKPOINT_PAGES
from tests import ROOT
from tests.support.pages import blocks, commands, example_problems, link_problems, prose

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PUBLIC_OF = {
    "sqlstate": sqlstate.__all__,
    "sqlstate.aio": aio.__all__,
    "sqlstate.cluster": cluster.__all__,
    "sqlstate.proof": [*(name for name in vars(proof) if name.startswith("verify_")), "Document"],
    "sqlstate.headlog": [name for name in vars(headlog) if name.startswith("verify_")],
}
# The adapters by the packages that they need: their pages and examples are run where those are installed.
ADAPTERS = {
    "sqlstate.integrations.agents": "openai-agents",
    "sqlstate.integrations.keyvalue": "py-key-value-aio",
    "sqlstate.integrations.langgraph": "langgraph",
}


def is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


MISSING = [adapter for adapter, package in ADAPTERS.items() if not is_installed(package)]
PUBLIC_OF |= {adapter: import_module(adapter).__all__ for adapter in ADAPTERS if adapter not in MISSING}
REFERENCE = ROOT / "docs" / "reference"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [page for page in PAGES if page.name != "file-format.md"]  # its program is run by test_format.py


def example_pages() -> list[Any]:
    """Return the pages to run; one that starts many programs is slow."""
    found = []
    for page in RUN:
        text = page.read_text("utf-8")
        programs = sum(len(list(commands(each.text))) for each in blocks(text) if each.info == "console")
        marks = [pytest.mark.slow] if programs > 4 else []
        marks += [pytest.mark.skip(f"what {adapter} needs is missing") for adapter in MISSING if adapter in text]
        if "from fastmcp" in text and not is_installed("fastmcp"):
            marks.append(pytest.mark.skip("fastmcp is missing"))
        found.append(pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks))
    return found


def api_problems(pages: str) -> list[str]:
    """Compare what the API pages are made from with the public names: each is shown once, and nothing else is."""
    shown = [name for name in re.findall(r"^::: (\S+)$", pages, re.MULTILINE) if name.rpartition(".")[0] not in MISSING]
    wanted = {
        f"{module}.{name}"
        for module, names in PUBLIC_OF.items()
        for name in names
        if not (inspect.isclass(kind := getattr(import_module(module), name)) and issubclass(kind, Exception))
    } - {"sqlstate.ABSENT", "sqlstate.REDACTED"}
    found = [f"{name} is not on the pages" for name in sorted(wanted - set(shown))]
    return found + [
        f"{name} is shown twice, or is not public" for name in shown if shown.count(name) > 1 or name not in wanted
    ]


ENTRY = re.compile(
    r"Parents? (?P<parents>.+); exit code (?P<code>\d+)\.(?: Attributes: (?P<attributes>.+)\.)?\n\n"
    r"\* \*\*What happened\*\*: \S.*\n\* \*\*The data\*\*: \S.*\n\* \*\*What to do\*\*: \S.*\n+"
)


def error_problems(page: str) -> list[str]:
    """Compare the page with the module of errors: each class with its parents, exit code and attributes."""
    kinds: dict[str, Any] = {
        name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
    }
    warnings = [name for name, kind in kinds.items() if issubclass(kind, Warning)]
    unsaid = [f"{name} is not on the page" for name in warnings if f"\n## {name}\n" not in page]
    for name in warnings:
        del kinds[name]
    entries = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^#|\Z)", prose(page), re.MULTILINE | re.DOTALL))
    found = unsaid + [f"{name} is not on the page" for name in kinds if name not in entries]
    found += [f"there is no {name}" for name in entries if name not in kinds]
    for name in sorted(kinds.keys() & entries.keys()):
        kind, entry = kinds[name], ENTRY.fullmatch(entries[name])
        if not entry:
            found.append(f"{name} is not described as the others are")
            continue
        said = [re.findall(r"`(\w+)`", entry[part] or "") for part in ("parents", "attributes")] + [entry["code"]]
        parameters = [*inspect.signature(kind).parameters] if "__init__" in vars(kind) else []
        facts = [[base.__name__ for base in kind.__bases__], parameters, str(int(exit_code(kind.__new__(kind))))]
        if said != facts:
            found.append(f"{name}: the page says {said}, the package {facts}")
    return found


def glossary_problems(page: str, others: Mapping[str, str]) -> list[str]:
    """Look for each word of the glossary in the other pages."""
    words = [
        word.strip("` ") for row in re.findall(r"^\| ([^|\n]*) \|", page, re.MULTILINE)[1:] for word in row.split(",")
    ]
    text = "\n".join(others.values())
    return [f"{word!r} is used on no other page" for word in words if not re.search(rf"\b{word}", text, re.IGNORECASE)]


def read(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", example_pages())
def test_the_examples_of_a_page_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    problems = example_problems(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)), tmp_path)
    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert link_problems(page) == []


def test_the_page_of_errors_lists_each_class_with_its_facts() -> None:
    assert error_problems(read("errors.md")) == []


def api_pages() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in sorted((REFERENCE / "api").glob("*.md")))


def test_the_api_pages_show_every_public_name_once() -> None:
    assert api_problems(api_pages()) == []


def promises_problems(page: str) -> list[str]:
    """Look for the tests that the table of promises names."""
    named = set(re.findall(r"`([\w/]+\.py)`", page))
    found = [f"there is no tests/{name}" for name in sorted(named) if not (ROOT / "tests" / name).is_file()]
    rows = [row for row in re.findall(r"^\| (.*) \|$", page, re.MULTILINE)[1:] if "`" not in row.split(" | ")[-1]]
    return found + [f"{row} names no test" for row in rows if "](" not in row.split(" | ")[-1]]


def test_each_promise_names_tests_that_are_there() -> None:
    assert promises_problems(read("promises.md")) == []


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("`commit/test_tree_update.py`", "`test_trees.py`", "there is no tests/test_trees.py"),
        ("| `format/test_values.py` |", "| none |", "What you read is what you wrote"),
    ],
)
def test_a_promise_without_its_test_is_found_out(right: str, wrong: str, problem: str) -> None:
    page = read("promises.md")
    assert right in page
    assert any(each.startswith(problem) for each in promises_problems(page.replace(right, wrong)))


def test_the_readme_has_no_links_that_need_a_clone() -> None:
    """It is shown by package indexes too, where there is no folder beside it: there a picture is its text."""
    text = prose((ROOT / "README.md").read_text(encoding="utf-8"))
    pictures = re.findall(r"!\[([^]]{20,})\]\((docs/images/[^)]+)\)", text)
    assert all((ROOT / path).is_file() for _, path in pictures)
    assert len(re.findall(r"\]\((?!https://)", text)) == len(pictures)


def test_the_site_has_each_page_once() -> None:
    shown = re.findall(
        r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(shown) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:])


def test_the_api_states_the_limits_of_the_code() -> None:
    limits = (fmt.NAME_BYTES_MAX, fmt.KEY_BYTES_MAX, fmt.VALUE_BYTES_MAX, fmt.NOTE_BYTES_MAX, fmt.JSON_DEPTH_MAX)
    for number in (*limits, CHECKPOINT_PAGES):
        assert re.search(rf"\b{number:,}\b", api_pages())
    said = inspect.getdoc(sqlstate.Transaction) or ""
    assert f"{BUFFER_ENTRIES:,} entries or {BUFFER_BYTES >> 20} MiB" in said


def test_the_glossary_has_words_in_use_alone() -> None:
    others = {page.name: page.read_text(encoding="utf-8") for page in PAGES if page.name != "glossary.md"}
    assert glossary_problems(read("glossary.md"), others) == []


# ---- The checks find what is wrong ----

GOOD = """
```python
x = {"b": 1}
print(x, __name__)
```

```text
{'b': 1} __main__
```

```console
$ Y=3
$ echo $Y; pwd; echo oops >&2; echo a \\
    b
3
…/page
oops
a b
```

```python no-run
1 / 0
```

```python
import subprocess
print(x["b"])
subprocess.run("echo two; echo three", shell=True)
```
```text
1
…
three
```

```console no-run
$ exit 1
```

```console
$ echo $Y
3
$ printf 'no line end'
no line end
$ true
```
"""

WRONG = [
    ("{'b': 1} __main__", "{'b': 2} __main__", "the page shows\n{'b': 2}"),
    ("{'b': 1} __main__\n", "", "the page shows\nand this was printed\n{'b': 1}"),
    ("print(x,", "raise ValueError(x,", 'File "page.md", line 4, in <module>'),
    ("$ Y=3", "$ Y=4", "page.md:11: echo $Y"),
    ("\noops\n", "\n", "oops"),
    ("\nthree\n", "\nfour\n", "three"),
    ("…\nthree", "…", ""),
    ("```console\n$ Y", "```bash\n$ Y", "'bash' is not a kind of block"),
    ("$ true", "$ exit 0", "ended the shell"),
    ("$ true", "$ true\nmore", "the page shows\nmore"),
]


def test_a_right_page_passes_with_its_variables_kept_from_block_to_block(tmp_path: Path) -> None:
    (folder := tmp_path / "page").mkdir()
    assert example_problems(GOOD, "page.md", folder) == []


@pytest.mark.parametrize(("right", "wrong", "says"), WRONG, ids=[wrong for _, wrong, _ in WRONG])
def test_a_wrong_page_is_found_out(right: str, wrong: str, says: str, tmp_path: Path) -> None:
    (folder := tmp_path / "page").mkdir()
    assert GOOD.count(right) == 1
    problems = "\n".join(example_problems(GOOD.replace(right, wrong), "page.md", folder))
    assert bool(problems) == bool(says)
    assert says in problems


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("```python no-run\n1 +\n```\n", SyntaxError),
        ("```python\n1\n", AssertionError),
        ("```console\nls\n```\n", AssertionError),
    ],
)
def test_a_page_that_cannot_be_read_is_found_out(page: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        example_problems(page, "page.md", tmp_path)


def test_a_broken_link_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text(
        "# A `b` of c\n\n## Same\n\n## Same\n\n```text\n# no heading\n[x](none.md)\n```\n", "utf-8", newline="\n"
    )
    page = tmp_path / "a.md"
    page.write_text(
        "# Here\n[1](b.md) [2](b.md#a-b-of-c) [3](#here) [4](https://example.org/x) [5](b.md#same-1) `[6](code.md)`\n"
        "[7](c.md) [8](b.md#no-heading) [9](#there) [10](b.md#same-2)\n\n[11]: d.md\n",
        "utf-8",
        newline="\n",
    )
    assert [problem.split(": ")[1].split(" ")[0] for problem in link_problems(page)] == [
        "c.md", "b.md#no-heading", "#there", "b.md#same-2", "d.md",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("### Busy\n", "### Bussy\n", ["Busy is not on the page", "there is no Bussy"]),
        ("Parent `StoreUnusable`; exit code 6.", "Parent `StoreError`; exit code 6.", ["StoreClosed: the page says"]),
        ("exit code 4", "exit code 3", ["Busy: the page says"]),
        ("`seq`, `cause`", "`seq`", ["CommitOutcomeUnknown: the page says"]),
        ("* **The data**: ", "* ", ["StoreError is not described"]),
        ("## WalPinned\n", "## Walled\n", ["WalPinned is not on the page"]),
    ],
)
def test_a_wrong_page_of_errors_is_found_out(right: str, wrong: str, problem: list[str]) -> None:
    found = error_problems(read("errors.md").replace(right, wrong, 1))
    assert [each.startswith(start) for each, start in zip(found, problem, strict=True)] == [True] * len(problem)


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("::: sqlstate.Batch", "", "sqlstate.Batch is not on the pages"),
        ("::: sqlstate.Batch", "::: sqlstate.Store", "sqlstate.Store is shown twice"),
        ("::: sqlstate.Batch", "::: sqlstate.Bunch", "sqlstate.Bunch is shown twice, or is not public"),
    ],
)
def test_wrong_api_pages_are_found_out(right: str, wrong: str, problem: str) -> None:
    assert any(each.startswith(problem) for each in api_problems(api_pages().replace(right, wrong)))


def test_an_unused_word_of_the_glossary_is_found_out() -> None:
    page = "| word | means only |\n|---|---|\n| seq, `LSN` | a |\n| in doubt | b |\n"
    assert glossary_problems(page, {"x": "The lsn"}) == [
        "'seq' is used on no other page",
        "'in doubt' is used on no other page",
    ]
