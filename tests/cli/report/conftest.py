"""Stores to report on, and a browser to open the page in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import sqlstate
from tests.cli.report.reading import HOSTILE
from tests.support import browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


@pytest.fixture(scope="package")
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
