"""Goal: the child of a fork is kept from what its parent had open, at once and whatever the file's name is, and from
nothing else. Method: real forks; the child says by its exit code what it met."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate import StoreForked
from tests.reference import plain
from tests.support.system import symlink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenStore

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


def in_child(act: Callable[[], object]) -> None:
    """Call *act* in the child of a fork; it fails there by an exception."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001, it is told by the exit code
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def refused(act: Callable[[], object]) -> None:
    with pytest.raises(StoreForked, match="forked"):
        act()


def test_a_file_that_was_open_is_refused_at_once_by_every_way_of_opening(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    link = path.with_name("link.db")
    symlink(link, path)
    hard = path.with_name("hard.db")
    hard.hardlink_to(path)

    def child() -> None:
        for name in (path, link, hard):
            refused(lambda name=name: sqlstate.open(name))  # type: ignore[misc]
            refused(lambda name=name: sqlstate.open(name, read_only=True))  # type: ignore[misc]
        refused(lambda: store["c"]["k"])
        store.close()
        refused(lambda: sqlstate.open(path))

    in_child(child)
    store["c"]["k"] = 2
    assert store["c"]["k"] == 2
    store.close()
    hard.unlink()
    assert plain.judge(path).findings == ()


@pytest.mark.parametrize("kept", ["a snapshot", "a scan", "a transaction"])
def test_what_was_taken_from_it_is_refused_and_ends_without_harm(open_store: OpenStore, kept: str) -> None:
    store = open_store()
    store["c"].update({i: i for i in range(1000)})
    view, scan = store.snapshot(), iter(store["c"].items())
    next(scan)

    if kept == "a transaction":
        with store.transaction() as txn:
            txn.put("c", "k", 1)
            in_child(lambda: refused(lambda: txn.put("c", "k", 2)))
    elif kept == "a snapshot":
        in_child(lambda: (refused(lambda: view["c"][1]), view.close()))
    else:
        in_child(lambda: refused(lambda: next(scan)))
    assert len(list(scan)) == 999
    assert view["c"][1] == 1
    view.close()
    assert store.check().ok


def test_other_files_are_fine_in_the_child(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    other, closed = path.with_name("other.db"), path.with_name("closed.db")
    with sqlstate.open(closed) as before:
        before["c"]["k"] = 1

    def child() -> None:
        for name in (other, closed):
            with sqlstate.open(name) as mine:
                mine["c"]["child"] = 1
                assert mine.submit(lambda txn: txn.get("c", "child")).result(60) == 1
                assert dict(mine["c"].items(prefix="child")) == {"child": 1}

    in_child(child)
    store["c"]["k"] = 2
    for name in (other, closed):
        with sqlstate.open(name) as again:
            assert again["c"]["child"] == 1


def test_a_store_that_was_closed_before_the_fork_can_be_opened(path: Path) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1

    def child() -> None:
        with sqlstate.open(path) as mine:
            mine["c"]["k"] = 2

    in_child(child)
    with sqlstate.open(path) as store:
        assert store["c"]["k"] == 2


def test_a_child_of_the_child_is_refused_too(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    in_child(lambda: in_child(lambda: refused(lambda: sqlstate.open(path))))


def test_a_fork_while_other_threads_open_stores_leaves_the_child_able_to(path: Path) -> None:
    """What another thread held in the moment of the fork is nobody's in the child."""
    from sqlstate.sqlite import engine  # noqa: PLC0415

    def child() -> None:
        with sqlstate.open(path) as mine:
            mine["c"]["k"] = 1

    with engine._opening:
        in_child(child)
