"""Goal: a handle whose file was renamed, removed or replaced acknowledges nothing more, and says what happened.

Method: each way to lose the file, under each way to write and each journal. The next write must raise an error that
says so; so must close(), if nobody was told before. What was acknowledged is in the file, wherever it was moved.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import aio
from tests.reference import plain
from tests.support.system import symlink
from tests.support.tasks import SOON

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JOURNALS = ("wal", "delete")


# ---- Ways to lose a file ----


def renamed(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    """As a sync client does: a copy takes the file's place. The file itself is kept, to be looked at."""
    path.with_name("moved.db").hardlink_to(path)
    shutil.copy(path, path.with_name("new.db"))
    path.with_name("new.db").replace(path)


def folder_renamed(path: Path) -> None:
    """The folder is renamed, and another one with a copy takes its place."""
    away = path.parent.with_name("away")
    path.parent.rename(away)
    path.parent.mkdir()
    shutil.copy(away / path.name, path)


WAYS = (renamed, removed, replaced)


# ---- Ways to write ----


def put(store: sqlstate.Store) -> None:
    store["c"]["k"] = "late"


def delete(store: sqlstate.Store) -> None:
    del store["c"]["there"]


def transaction(store: sqlstate.Store) -> None:
    with store.transaction() as txn:
        txn.put("c", "k", "late")


def run(store: sqlstate.Store) -> None:
    store.run(lambda txn: txn.put("c", "k", "late"))


def submit(store: sqlstate.Store) -> None:
    store.submit(lambda txn: txn.put("c", "k", "late")).result(timeout=SOON)


def batch(store: sqlstate.Store) -> None:
    with store.batch() as block:
        block.put("c", "k", "late")
        block.flush()


def stage(store: sqlstate.Store) -> None:
    store.stage(note="late")


def stage_and_commit(store: sqlstate.Store) -> None:
    with store.stage(note="late") as draft:
        draft.put("c", "k", "late")


WRITES: tuple[Callable[[sqlstate.Store], None], ...] = (
    put, delete, transaction, run, submit, batch, stage, stage_and_commit,
)  # fmt: skip


# ---- What is said ----


def says_so(error: BaseException) -> bool:
    """Tell whether an error says that the file is not under its name any more, and nothing else."""
    text = str(error).lower()
    moved = any(word in text for word in ("renamed", "removed", "replaced", "moved"))
    false = "is damaged" in text or isinstance(error, sqlstate.ReadOnly | sqlstate.Damaged | sqlstate.Busy)
    return isinstance(error, sqlstate.StoreError) and moved and not false


def lost(path: Path, how: Callable[[Path], None], **options: Any) -> sqlstate.Store:
    """Open a store, commit, and let its file be lost."""
    store = sqlstate.open(path, timeout=1, **options)
    store["c"].update({"there": 1, "k": "early"})
    how(path)
    return store


def closes(store: sqlstate.Store) -> sqlstate.StoreError | None:
    """Close a store; return what it says."""
    try:
        store.close()
    except sqlstate.StoreError as e:
        return e
    return None


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("mode", ["full", "group"])
def test_the_next_write_says_that_the_file_is_gone(
    path: Path, journal: str, mode: str, how: Callable[[Path], None], write: Callable[[sqlstate.Store], None]
) -> None:
    store = lost(path, how, journal=journal, mode=mode)
    with pytest.raises(sqlstate.StoreError) as told:
        write(store)
    assert says_so(told.value), repr(told.value)
    # The handle is of no use from here on, and says why.
    for again in (put, transaction):
        with pytest.raises(sqlstate.StoreUnusable):
            again(store)
    closes(store)


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("how", [renamed, replaced, folder_renamed])
def test_what_was_acknowledged_is_in_the_file_wherever_it_is(
    path: Path, tmp_path: Path, journal: str, how: Callable[[Path], None]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = home / "test.db"
    with sqlstate.open(path, journal=journal) as store:  # type: ignore[arg-type]
        store["c"]["closed"] = 1
    store = lost(path, how)
    with pytest.raises(sqlstate.StoreError) as told:
        put(store)
    assert says_so(told.value), repr(told.value)
    closes(store)
    moved = tmp_path / "away" / path.name if how is folder_renamed else path.with_name("moved.db")
    # Where its -wal still lies under the old name, it is a part of it.
    wal = path.with_name(f"{path.name}-wal")
    if how is not folder_renamed and wal.exists() and wal.stat().st_size:
        shutil.copy(wal, f"{moved}-wal")
    with sqlstate.open(moved, create=False, recover="accept") as found:
        there = dict(found["c"])
        # The write that was not acknowledged may be there: its outcome is unknown.
        late = isinstance(told.value, sqlstate.CommitOutcomeUnknown) and found.committed(told.value)
        assert there == {"closed": 1, "there": 1, "k": "late" if late else "early"}
    assert plain.judge(moved).findings == ()


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("how", WAYS)
def test_close_says_so_if_nobody_was_told(path: Path, journal: str, how: Callable[[Path], None]) -> None:
    store = lost(path, how, journal=journal)
    told = closes(store)
    assert told is not None, "close() is silent"
    assert says_so(told), repr(told)
    store.close()  # told once


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_transaction_under_way_is_not_acknowledged(path: Path, journal: str) -> None:
    store = sqlstate.open(path, journal=journal)  # type: ignore[arg-type]
    store["c"]["k"] = "early"
    with pytest.raises(sqlstate.StoreError) as told, store.transaction() as txn:
        txn.put("c", "k", "late")
        renamed(path)
    assert says_so(told.value), repr(told.value)
    closes(store)


def test_a_draft_of_before_is_not_committed(path: Path) -> None:
    store = sqlstate.open(path)
    draft = store.stage()
    draft.put("c", "k", 1)
    replaced(path)
    with pytest.raises(sqlstate.StoreError) as told:
        draft.commit()
    assert says_so(told.value), repr(told.value)
    closes(store)


@pytest.mark.parametrize("journal", JOURNALS)
def test_the_new_file_is_left_alone(path: Path, journal: str) -> None:
    """Neither the refused writes nor close() touch the file that took the name."""
    store = lost(path, replaced, journal=journal)
    before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
    with pytest.raises(sqlstate.StoreError):
        put(store)
    closes(store)
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_a_file_that_comes_back_is_the_same_file(path: Path) -> None:
    """Renamed away and back before anybody wrote: nothing has happened."""
    store = lost(path, renamed)
    path.with_name("moved.db").rename(path)
    put(store)
    store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]
    with sqlstate.open(path) as again:
        assert again["c"]["k"] == "late"


def test_a_link_to_the_file_is_no_reason_to_refuse(path: Path) -> None:
    """A symbolic link to it, and another name for it, may come and go; so may times, mode and owner."""
    link, name = path.with_name("symbolic.db"), path.with_name("hard.db")
    path.touch()
    symlink(link, path)
    with sqlstate.open(link) as store:
        store["c"]["k"] = 1
        name.hardlink_to(path)
        store["c"]["k"] = 2
        name.unlink()
        os.utime(path, (1, 1))
        path.chmod(0o640)
        store["c"]["k"] = 3
    with sqlstate.open(path) as store:
        assert store["c"]["k"] == 3


@pytest.mark.anyio
@pytest.mark.parametrize("how", WAYS)
async def test_tasks_are_told(path: Path, how: Callable[[Path], None]) -> None:
    store = await aio.open(path)
    await store.put("c", "k", "early")
    how(path)
    with pytest.raises(sqlstate.StoreError) as told:
        await store.put("c", "k", "late")
    assert says_so(told.value), repr(told.value)
    ticket: Any = None
    with pytest.raises(sqlstate.StoreError):
        ticket = store.submit(lambda txn: txn.put("c", "k", "later"))
        await ticket
    try:
        await store.close()
    except sqlstate.StoreError as e:
        assert says_so(e), repr(e)  # noqa: PT017, it may be silent, for it was told before


@pytest.mark.anyio
async def test_closing_a_store_of_tasks_says_so_if_nobody_was_told(path: Path) -> None:
    store = await aio.open(path)
    await store.put("c", "k", "early")
    renamed(path)
    with pytest.raises(sqlstate.StoreError) as told:
        await store.close()
    assert says_so(told.value), repr(told.value)
