"""Fixtures, and the tiers. Every store that a test opens through a fixture is judged when the test ends.

The judge is tests/reference/plain.py, which shares no code with sqlstate: root, tree rows, chain and all
invariants I1 to I15 of the file-format page, read through another SQLite library. tests/README.md tells of the tiers.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, Protocol

import hypothesis
import pytest

import sqlstate
from sqlstate import aio
from tests.reference import plain
from tests.support.lines import be_patient
from tests.support.system import WINDOWS
from tests.windows import skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator
    from pathlib import Path

# An example may take as long as it takes: no test depends on the machine's speed. A failure prints how to replay it.
hypothesis.settings.register_profile("here", deadline=None, print_blob=True)
hypothesis.settings.load_profile("here")

DEFAULT_TIER: Final = "not slow and not crash and not browser and not cluster"
UNDONE: Final = 50_000
"""How many entries the judge hashes to recompute earlier roots: those of 50 commits, or of fewer in a big store."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests of every tier, not the default tier alone")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Run the default tier, unless the command line asks for others: by `-m`, by `--all`, or by naming a file.

    The workers of pytest-xdist are given the controller's choice.
    """
    # Tests start a thousand programs. Where the shell forbids bytecode, each of them would compile the package again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # A shell ignores Ctrl-C in what it starts in the background, and so would the programs that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    named = any(not (config.invocation_params.dir / part).is_dir() for part in config.args)
    if not (config.option.all or config.option.markexpr or named):
        config.option.markexpr = DEFAULT_TIER


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On Windows, skip what is listed as impossible there."""
    if WINDOWS:
        for item in items:
            if why := skipped.reason(item.nodeid):
                item.add_marker(pytest.mark.skip(f"listed: {why}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """On Windows, say how many tests were skipped, since a list can become long."""
    if WINDOWS:
        reasons = [report.longrepr[2] for report in terminalreporter.getreports("skipped")]
        listed = sum("listed: " in each for each in reasons)
        terminalreporter.write_line(
            f"Windows: {listed} tests were skipped as tests/windows/skipped.py lists them,"
            f" {len(reasons) - listed} by their own marks"
        )


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at the tests themselves again, each time that a test calls it."""
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    default = config.option.markexpr == DEFAULT_TIER
    return "tier: the default; `--all` or `-m` runs others" if default else "tier: as the command line says"


def judge(path: Path, item: pytest.Item) -> tuple[str, ...]:
    """Return what the judge finds in the closed file at *path*, after the test *item*.

    Entries, tree, records and chain are judged whole. Of earlier roots it recomputes fewer in big stores, at least the
    newest, unless the test is marked slow.
    """
    with closing(plain.connect(path)) as connection:
        [entries] = connection.execute("SELECT count(*) FROM state").fetchone()
    history = 50 if item.get_closest_marker("slow") else min(50, UNDONE // max(1, entries) + 1)
    return plain.judge(path, history=history).findings


class OpenStore(Protocol):
    """Opens a store that is closed and judged when the test ends."""

    def __call__(self, at: Path | None = None, /, **options: Any) -> sqlstate.Store:
        """Open the store at *at*; the test's own file without one."""


class OpenAsyncStore(Protocol):
    """Opens a store in the test's event loop that is closed and judged when the test ends."""

    def __call__(self, at: Path | None = None, /, **options: Any) -> Awaitable[aio.AsyncStore]:
        """Open the store at *at*; the test's own file without one."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's own store lies, or will."""
    return tmp_path / "test.db"


@pytest.fixture
def open_store(path: Path, request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    stores: list[sqlstate.Store] = []

    def open_(at: Path | None = None, /, **options: Any) -> sqlstate.Store:
        store = sqlstate.open(path if at is None else at, **options)
        stores.append(store)
        return store

    yield open_
    for store in stores:
        be_patient(store)
        store.close()
    for file in {store.path for store in stores}:
        assert judge(file, request.node) == (), f"{file.name} is not sound"


@pytest.fixture
def store(open_store: OpenStore) -> sqlstate.Store:
    """A new, empty store."""
    return open_store()


@pytest.fixture
async def opens(path: Path, request: pytest.FixtureRequest) -> AsyncIterator[OpenAsyncStore]:
    """Opens stores that are closed and judged when the test ends."""
    stores: list[aio.AsyncStore] = []

    async def open_(at: Path | None = None, /, **options: Any) -> aio.AsyncStore:
        opened = await aio.open(path if at is None else at, **options)
        stores.append(opened)
        return opened

    yield open_
    for each in stores:
        be_patient(each._store)
        await each.close()
    for file in {each.path for each in stores}:
        assert judge(file, request.node) == ()


@pytest.fixture
async def aiostore(opens: OpenAsyncStore) -> aio.AsyncStore:
    """A new, empty store."""
    return await opens()
