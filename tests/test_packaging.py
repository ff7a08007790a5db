"""What is shipped: the wheel holds the package, its types marker and the migrations, and works from anywhere.

Method: build sdist and wheel from a copy of the sources, without network, install the wheel into a folder of
its own, and open a store from there in a Python that sees neither these sources nor an installed sqlstate.
"""

from __future__ import annotations

import configparser
import email
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import sqlstate
from tests import ROOT
from tests.reference import plain

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SHIPPED = ("sqlstate", "migrations", "docs", "pyproject.toml", "README.md", "LICENSE")

needs_hatchling = pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling, the build backend, is missing")


def run(*command: object, cwd: Path) -> str:
    """Run a command to a good end and return what it printed."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def build(sources: Path, *targets: str) -> Path:
    """Build *targets* of the project in *sources*, and return the folder with the results."""
    flags = [part for target in targets for part in ("-t", target)]
    run(sys.executable, "-m", "hatchling", "build", *flags, cwd=sources)
    return sources / "dist"


def build_all(sources: Path) -> Path:
    """Build sdist and wheel from a copy of the sources, made in the empty folder *sources*; return their folder."""
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name)
        else:
            shutil.copy(ROOT / name, sources)
    return build(sources, "sdist", "wheel")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sdist and wheel."""
    return build_all(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [wheel] = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was installed into; nobody changes it."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    run(*pip, "--no-compile", "--target", target, wheel, cwd=wheel.parent)
    return target


def contents(wheel: Path) -> dict[str, bytes]:
    """What a wheel holds, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> dict[str, bytes]:
    """What a wheel says of itself, by the name of the file without its folder."""
    return {name.split("/", 1)[1]: held for name, held in contents(wheel).items() if ".dist-info/" in name}


def python_from(installed: Path, program: str, *, cwd: Path) -> Any:
    """Run *program*, which prints JSON, where sqlstate is the one in *installed*.

    -I and -S keep out the environment, the working folder and .pth files: an editable installation is one.
    """
    paths = [str(installed), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}]
    head = f"import sys, json; sys.path += {paths!r}; import sqlstate\n"
    return json.loads(run(sys.executable, "-I", "-S", "-W", "error", "-c", head + program, cwd=cwd))


# ---- The wheel ----


@needs_hatchling
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    held = contents(wheel)
    info = f"sqlstate_store-{sqlstate.__version__}.dist-info"
    assert {name.split("/")[0] for name in held} == {"sqlstate", info}
    sources = {
        file.relative_to(ROOT).as_posix(): file.read_bytes()
        for file in (ROOT / "sqlstate").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    migrations = {f"sqlstate/_migrations/{file.name}": file.read_bytes() for file in (ROOT / "migrations").iterdir()}
    verifier = {"sqlstate/_verify/verify.js": (ROOT / "docs/verify/verify.js").read_bytes()}
    assert sources.keys().isdisjoint(migrations | verifier)
    shipped = sources | migrations | verifier
    assert {name: content for name, content in held.items() if name.startswith("sqlstate/")} == shipped


@needs_hatchling
def test_the_wheel_holds_the_types_marker_and_the_first_migration(wheel: Path) -> None:
    held = contents(wheel)
    assert held["sqlstate/py.typed"] == b""
    assert b"CREATE TABLE state" in held["sqlstate/_migrations/0001_initial.sql"]


@needs_hatchling
def test_the_wheel_says_what_the_project_says(wheel: Path) -> None:
    said = email.message_from_bytes(metadata(wheel)["METADATA"])
    project = PROJECT["project"]
    assert (said["Name"], said["Version"]) == (project["name"], sqlstate.__version__)
    assert (said["Requires-Python"], said["License-Expression"]) == (project["requires-python"], project["license"])
    required = {re.sub(r"\s", "", line) for line in said.get_all("Requires-Dist", ()) if "extra ==" not in line}
    assert {frozenset(re.split(r"(?=[<>=])|,", line, maxsplit=1)) for line in required} == {
        frozenset(re.split(r"(?=[<>=])|,", line, maxsplit=1)) for line in project["dependencies"]
    }
    assert "licenses/LICENSE" in metadata(wheel)


@needs_hatchling
def test_the_command_of_the_wheel_exists(wheel: Path, installed: Path, tmp_path: Path) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(metadata(wheel)["entry_points.txt"].decode())
    assert dict(scripts["console_scripts"]) == PROJECT["project"]["scripts"]
    module, function = scripts["console_scripts"]["sqlstate"].split(":")
    program = f"from {module} import {function}; print(json.dumps(callable({function})))"
    assert python_from(installed, program, cwd=tmp_path) is True


@needs_hatchling
def test_the_sdist_gives_the_same_wheel(dist: Path, wheel: Path, tmp_path: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [sources] = tmp_path.iterdir()
    [again] = build(sources, "wheel").glob("*.whl")
    assert contents(again) == contents(wheel)


# ---- Installed ----


OPEN = """
import sqlstate.tables.migrations
with sqlstate.open("test.db") as store:
    store["c"]["k"] = {"from": "the wheel"}
    said = store.head().seq
print(json.dumps([sqlstate.__file__, sqlstate.__version__, str(sqlstate.tables.migrations._folder()), said]))
"""


@needs_hatchling
def test_an_installed_wheel_makes_a_store_with_its_own_migrations(installed: Path, tmp_path: Path) -> None:
    file, version, folder, seq = python_from(installed, OPEN, cwd=tmp_path)
    assert Path(file) == installed / "sqlstate" / "__init__.py"
    assert Path(folder) == installed / "sqlstate" / "_migrations"
    assert (version, seq) == (sqlstate.__version__, 1)
    assert plain.judge(tmp_path / "test.db").findings == ()
    # The sources here know the file as their own: its migrations have the same digests.
    with sqlstate.open(tmp_path / "test.db") as store:
        assert store["c"]["k"] == {"from": "the wheel"}


@needs_hatchling
def test_an_installation_without_migrations_says_so_and_makes_no_store(installed: Path, tmp_path: Path) -> None:
    """So the test above did use those of the wheel: there are no others to be found."""
    target = tmp_path / "target"
    shutil.copytree(installed, target)
    shutil.rmtree(target / "sqlstate" / "_migrations")
    program = """
try:
    sqlstate.open("test.db")
except sqlstate.MigrationMismatch as e:
    print(json.dumps(str(e)))
"""
    assert "install sqlstate-store again" in python_from(target, program, cwd=tmp_path)
    assert not (tmp_path / "test.db").exists()


# ---- The project file ----


def test_the_version_stands_in_one_place_and_heads_the_changelog() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "sqlstate/__init__.py"
    newest = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert re.fullmatch(re.escape(sqlstate.__version__) + r" - (\d{4}-\d\d-\d\d|unreleased)", newest)


def test_the_dev_extra_includes_all_others_but_those_for_documents_and_comparisons() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    own = re.escape(PROJECT["project"]["name"])
    [named] = [found[1] for each in extras["dev"] if (found := re.fullmatch(rf"{own}\[(.*)\]", each))]
    assert {*named.split(",")} == {*extras} - {"dev", "docs", "peers"}
    assert extras["bench"]


def test_every_python_that_is_promised_is_named() -> None:
    project = PROJECT["project"]
    named = [entry.rsplit(" ", 1)[1] for entry in project["classifiers"] if re.search(r":: 3\.\d+$", entry)]
    least = project["requires-python"].removeprefix(">=")
    assert named[0] == least
    assert PROJECT["tool"]["mypy"]["python_version"] == least
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + least.replace(".", "")
