"""What a user gets: wheel and sdist that an index would take, and documents that can be followed with the wheel alone.

Method: the wheel is installed in an empty environment, of each Python that is found here, together with what the page
says to install and nothing else. Then the page is followed as it is printed, in an empty folder. Where pip cannot have
the dependencies, the tests are skipped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.pages import example_problems
from tests.test_docs import RUN
from tests.test_packaging import PROJECT, build_all, needs_hatchling, run

pytestmark = [pytest.mark.slow, needs_hatchling]

LEAST = tuple(map(int, PROJECT["project"]["requires-python"].removeprefix(">=").split(".")))
NAME = PROJECT["project"]["name"]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-store.md"
# All but the page that tells how to measure, which needs the sources and says so; the tutorial has a test of its own.
TRIED = [page for page in RUN if page.name not in ("performance.md", TUTORIAL.name)]


def pythons() -> dict[str, str]:
    """Return the Pythons of this machine that are new enough, one of each version, by version."""
    found = {".".join(map(str, sys.version_info[:2])): sys.executable}
    places = [*Path.home().glob(".pyenv/versions/*/bin/python3"), *Path("/usr/local/bin").glob("python3.[0-9][0-9]")]
    on_path = [Path(each) for minor in range(LEAST[1], 30) if (each := shutil.which(f"python3.{minor}"))]
    for place in sorted({*places, *on_path}):
        asked = [str(place), "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and tuple(map(int, version.split("."))) >= LEAST:
            found.setdefault(version, str(place))
    return dict(sorted(found.items()))


PYTHONS = pythons()


def installs(page: str) -> set[str]:
    """Return what a page says to install."""
    lines = re.findall(r"pip install ((?!.*-e ).+?)(?:`|$)", page, re.MULTILINE)
    return {each for line in lines for each in line.replace("'", "").split() if not each.startswith("-")}


def by_what_they_install() -> dict[tuple[str, ...], list[Path]]:
    """Return the pages that are tried, those together that say to install the same."""
    found: dict[tuple[str, ...], list[Path]] = {}
    for page in TRIED:
        wanted = installs(page.read_text(encoding="utf-8")) | {NAME}
        found.setdefault(tuple(sorted(wanted)), []).append(page)
    return found


GROUPS = by_what_they_install()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sdist and wheel."""
    return build_all(tmp_path_factory.mktemp("sources"))


def environment(python: str, dist: Path, wanted: set[str], folder: Path) -> str:
    """Make an environment with the wheel and what is *wanted* besides; return its Python."""
    run(python, "-m", "venv", "--without-pip", folder, cwd=dist)  # the pip of this one is quicker than a new one
    made = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(made), "--disable-pip-version-check"]
    pip += ["install", "-q", "--no-compile"]
    [wheel] = dist.glob("*.whl")
    extras = {name for each in wanted if each.startswith(NAME) for name in re.findall(r"\w+", each[len(NAME) :])}
    others = {each for each in wanted if not each.startswith(NAME)}
    project = PROJECT["project"]
    needed = [
        *project["dependencies"],
        *(each for extra in sorted(extras) for each in project["optional-dependencies"][extra]),
        *sorted(others),
    ]
    done = subprocess.run([*pip, *needed], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot have what is needed: {done.stderr.strip().splitlines()[-1]}")
    # So all that the wheel itself requires is there, or this fails.
    run(*pip, "--no-index", f"{wheel}[{','.join(sorted(extras))}]" if extras else wheel, cwd=folder)
    return str(made)


def test_an_index_would_take_both(dist: Path) -> None:
    if find_spec("twine") is None:
        pytest.skip("twine is missing")
    said = run(sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.glob("sqlstate*")), cwd=dist)
    assert said.count("PASSED") == 2


@pytest.mark.parametrize("version", PYTHONS)
def test_the_tutorial_can_be_followed_with_each_python(version: str, dist: Path, tmp_path: Path) -> None:
    page = TUTORIAL.read_text(encoding="utf-8")
    python = environment(PYTHONS[version], dist, installs(page), tmp_path / "venv")
    (folder := tmp_path / "tutorial").mkdir()
    where = run(python, "-I", "-c", "import sqlstate; print(sqlstate.__file__)", cwd=folder)
    assert where.startswith(str(tmp_path / "venv"))
    assert example_problems(page, TUTORIAL.name, folder, python) == []


@pytest.mark.parametrize("wanted", GROUPS, ids=" ".join)
def test_pages_can_be_followed_with_the_wheel_and_what_they_say_to_install(
    wanted: tuple[str, ...], dist: Path, tmp_path: Path
) -> None:
    python = environment(sys.executable, dist, {*wanted}, tmp_path / "venv")
    found = []
    for page in GROUPS[wanted]:
        (folder := tmp_path / "pages" / page.relative_to(ROOT)).mkdir(parents=True)
        found += example_problems(page.read_text(encoding="utf-8"), page.name, folder, python)
    assert not found, "\n\n".join(found)
