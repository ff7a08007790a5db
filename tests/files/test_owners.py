"""Whose the files are: what root replaces or makes beside a user's store stays that user's.

Method: root and a child process of another user work on the same store.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate.files import replace as files
from tests import ROOT
from tests.cli.test_program import good
from tests.support.mounts import NOBODY, as_user

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER = 12345

STAGE = """
import os, sys
import sqlstate
store = sqlstate.open(sys.argv[1])
store.stage().put("drafts", "k", 1)
os.kill(os.getpid(), 9)
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")


def owner(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of another user."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.fixture
def db(folder: Path) -> Path:
    """That user's store."""
    path = folder / "app.db"
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o640)
    return path


def test_what_root_replaces_keeps_its_owner_and_mode(db: Path, folder: Path) -> None:
    out, copy = folder / "out.jsonl", folder / "copy.db"
    good("export", str(db), "-o", str(out))
    good("backup", str(db), str(copy))
    for path in (out, copy):
        assert owner(path) == (0, 0, 0o600)
        os.chown(path, NOBODY, OTHER)
        path.chmod(0o640)
    good("export", str(db), "-o", str(out))
    good("backup", str(db), str(copy))
    good("restore", str(copy), str(db), "--replace")
    assert owner(out) == owner(copy) == (NOBODY, OTHER, 0o640)
    assert owner(db) == (NOBODY, NOBODY, 0o640)
    good("backup", str(db), str(copy), "--keep", "2")
    assert owner(copy) == owner(folder / "copy.db.1") == (NOBODY, OTHER, 0o640)


def test_what_root_makes_beside_a_store_is_its_owners(db: Path, folder: Path) -> None:
    with sqlstate.open(db) as store:
        store.stage().put("c", "k", 2)
        beside = [path for path in folder.iterdir() if path != db]
        assert len(beside) == 4
        assert {owner(path) for path in beside} == {(NOBODY, NOBODY, 0o640)}


def test_the_owner_sees_that_a_session_of_root_is_dead(db: Path, folder: Path) -> None:
    subprocess.run([sys.executable, "-c", STAGE, db], check=False, cwd=ROOT)

    def recover() -> None:
        with sqlstate.open(db) as store:
            assert len(store.recovery.rolled_back) == 1
        assert os.listdir(folder) == ["app.db"]

    as_user(NOBODY, recover)


def test_the_owner_removes_what_root_left_half_written(db: Path, folder: Path) -> None:
    with sqlstate.open(db) as store:
        store_id = store.store_id
    (folder / "out").write_bytes(b"")
    os.chown(folder / "out", NOBODY, NOBODY)
    child = os.fork()
    if not child:
        files.Temporary(folder / "out", store_id)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)

    def recover() -> None:
        with sqlstate.open(db) as store:
            assert len(store.recovery.removed) == 1

    as_user(NOBODY, recover)


def test_the_evidence_is_the_owners(db: Path, folder: Path) -> None:
    subprocess.run([sys.executable, "-c", STAGE, db], check=False, cwd=ROOT)
    wal = folder / "app.db-wal"
    content = bytearray(wal.read_bytes())
    content[200] ^= 1
    wal.write_bytes(content)
    with pytest.raises(sqlstate.JournalDamaged) as caught:
        sqlstate.open(db)
    assert owner(Path(caught.value.evidence[0])) == (NOBODY, NOBODY, 0o640)


def test_who_may_not_give_a_file_away_keeps_what_is_possible_and_gives_nobody_more(folder: Path) -> None:
    out = folder / "out"
    out.write_bytes(b"old")
    os.chown(out, 0, 0)
    out.chmod(0o664)

    def replace() -> None:
        with files.replacing(out, bytes(16)) as file:
            file.write(b"new")
        assert owner(out) == (NOBODY, NOBODY, 0o644)  # their group may not do what that of root's could

    as_user(NOBODY, replace)
