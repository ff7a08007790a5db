"""Makes the pictures of the documentation: `python -m tests.support.pictures [DATASETTE]`.

DATASETTE is the program of that name; without it, its pictures stay as they are. Needs a Chromium.
"""

from __future__ import annotations

import random
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Final
from unittest.mock import patch

import sqlstate
from sqlstate.cli import main
from sqlstate.commit import clock
from tests import ROOT
from tests.support import browser

IMAGES: Final = ROOT / "docs/images"
NAMES: Final = ("Ada", "Alan", "Barbara", "Dennis", "Donald", "Edsger", "Frances", "Grace", "Jean", "Ken", "Radia")
WEEKS: Final = 3


def fill(path: Path) -> None:
    """Make the store that is shown: what some weeks of an application leave."""
    rng = random.Random(4)  # noqa: S311, no secret
    moment = time.time_ns() - WEEKS * 7 * 86_400 * 10**9
    clocks = SimpleNamespace(time_ns=lambda: moment, strftime=time.strftime, gmtime=time.gmtime)
    with patch.object(clock, "time", clocks), sqlstate.open(path) as store:
        store.set_logging("thumbnails", "digests")
        for number in range(WEEKS * 7 * 20):
            moment += rng.choice((10, 60, 300, 14_400)) * 10**9
            with store.transaction(note=rng.choice(("", "", "import", "edit"))) as txn:
                name = rng.choice(NAMES)
                person = {"name": name, "age": rng.randint(20, 80), "langs": rng.sample(["c", "lisp", "cobol"], 2)}
                txn.put("users", name.lower(), person)
                for _ in range(rng.randint(1, 6)):
                    words = rng.randint(1, 900)
                    txn.put("notes", f"note-{rng.randint(0, 900):03}", {"title": f"Note {number}", "words": words})
                txn.put("thumbnails", number % 150, rng.randbytes(900))
            if number % 3 == 0:
                store["settings"]["window"] = {"width": 900 + number, "dark": True}


def report(folder: Path, window: browser.Browser) -> None:
    """Make the picture of a report."""
    page = folder / "report.html"
    main(["report", str(folder / "app.db"), "-o", str(page), "--quiet"], standalone_mode=False)
    window.open(page)
    assert window.text("#verdict") == "Proven"
    window.screenshot(IMAGES / "report.png", 1000, 890)


def datasette(folder: Path, window: browser.Browser, program: str) -> None:
    """Make the pictures of what Datasette shows."""
    main(["backup", str(folder / "app.db"), str(folder / "look.db"), "--quiet"], standalone_mode=False)
    server = subprocess.Popen(
        [program, "look.db", "--port", "0"], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        address = ""
        while "http" not in address:
            assert server.stderr is not None
            assert select.select([server.stderr], [], [], 60)[0], "Datasette does not answer"
            address = server.stderr.readline()
        site = "http" + address.split("http")[1].split()[0]
        for name, height in (
            ("look/entries?collection=users&_facet=collection", 620),
            ("look/commits?_sort_desc=seq", 520),
        ):
            window.open(f"{site}/{name}")
            window.screenshot(IMAGES / f"datasette-{name[5:12].rstrip('?')}.png", 900, height)
    finally:
        server.terminate()
        server.wait()


def make(program: str | None) -> None:
    """Make all pictures."""
    chromium = browser.chromium()
    if chromium is None:
        sys.exit("there is no Chromium on this machine")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "app.db")
        with browser.Browser(chromium, folder / "profile") as window:
            report(folder, window)
            if program is not None:
                datasette(folder, window, program)


if __name__ == "__main__":
    make(sys.argv[1] if len(sys.argv) > 1 else None)
