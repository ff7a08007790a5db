"""Stores that lie where nothing can be written: on read-only media, or in folders and files of other users.

Method: a folder is mounted a second time, to be read only; or a child process becomes a user without rights.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sqlstate
from tests import ROOT
from tests.cli.test_program import bad, good
from tests.support.mounts import NOBODY, as_user, read_only
from tests.support.system import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterator

CRASH = """
import os, sys
import sqlstate
store = sqlstate.open(sys.argv[1])
store["c"]["k"] = 2
os.kill(os.getpid(), 9)
"""


def make(path: Path, journal: sqlstate.Journal = "wal") -> None:
    with sqlstate.open(path, journal=journal) as store:
        store["c"]["k"] = 1
        store["c"].update(dict.fromkeys(range(500), "v" * 50))


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder that can be mounted as read-only media, with a store that was closed."""
    folder = tmp_path / ("media %41#" if WINDOWS else "media %41?#")
    folder.mkdir()
    make(folder / "app.db")
    return folder


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # noqa: S103, that is the point
        yield Path(name)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_on_read_only_media_everything_that_reads_works(media: Path, tmp_path: Path, journal: sqlstate.Journal) -> None:
    (media / "app.db").unlink()
    make(media / "app.db", journal)
    with read_only(media) as folder, sqlstate.open(folder / "app.db", read_only=True) as store:
        assert store.recovery.clean
        assert store["c"]["k"] == 1
        assert len(store["c"]) == len(list(store["c"].items())) == 501
        with store.snapshot() as view:
            assert view["c"][7] == "v" * 50
        assert (store.stats().journal, store.stats().sqlite_wal_bytes) == (journal, 0)
        assert store.check().ok
        assert store.check_audit() == []
        assert sqlstate.proof.verify_present(store.prove("c", "k"), store.head().root, "c", "k", 1) is None
        assert store.backup(tmp_path / "copy.db").head == store.head()
        with pytest.raises(sqlstate.ReadOnly):
            store["c"]["k"] = 2
        assert os.listdir(folder) == ["app.db"]
    with sqlstate.open(tmp_path / "copy.db") as copy:
        assert copy["c"]["k"] == 1


def test_on_read_only_media_every_verb_that_reads_works(media: Path, tmp_path: Path) -> None:
    with read_only(media) as folder:
        file = str(folder / "app.db")
        assert good("get", file, "c", "k") == "1\n"
        assert len(good("list", file, "c").splitlines()) == 501
        for verb in ("collections", "head", "log", "stats", "audit", "check"):
            good(verb, file)
        good("audit", file, "--check")
        good("export", file, "-o", str(tmp_path / "out.jsonl"))
        good("prove", file, "c", "k", "--out", str(tmp_path / "proof"))
        good("backup", file, str(tmp_path / "copy.db"))
        good("restore", file, str(tmp_path / "restored.db"))
        error = bad(5, "put", file, "c", "k", "2")
        assert "cannot be written" in error
        assert "read_only=" not in error


def test_opening_for_writing_where_nothing_can_be_written_says_how_to_read(media: Path) -> None:
    with read_only(media) as folder:
        with pytest.raises(sqlstate.ReadOnly, match=r"cannot be written.* Nothing was changed\. .*read_only=True"):
            sqlstate.open(folder / "app.db")
        assert os.listdir(folder) == ["app.db"]


def test_a_store_that_was_not_closed_is_refused_plainly_on_read_only_media(media: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, media / "app.db"], check=False, cwd=ROOT)
    (media / "app.db-shm").unlink()
    with (
        read_only(media) as folder,
        pytest.raises(sqlstate.CannotOpen, match=r"it was not closed, .* Copy it, with the -wal"),
    ):
        sqlstate.open(folder / "app.db", read_only=True)


def test_a_lost_wal_is_noticed_on_read_only_media(media: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, media / "app.db"], check=False, cwd=ROOT)
    (media / "app.db-shm").unlink()
    (media / "app.db-wal").rename(media / "kept")
    with read_only(media) as folder, pytest.raises(sqlstate.JournalDamaged, match="there is no -wal") as caught:
        sqlstate.open(folder / "app.db", read_only=True)
    assert caught.value.report.damage == "missing"


def test_what_somebody_else_changes_meanwhile_is_noticed_and_never_mixed(media: Path) -> None:
    with read_only(media) as folder:
        store = sqlstate.open(folder / "app.db", read_only=True)
        assert store["c"]["k"] == 1
        with sqlstate.open(media / "app.db") as other:  # opened and closed, and nothing changed
            pass
        assert store["c"]["k"] == 1
        view = store.snapshot()
        with sqlstate.open(media / "app.db") as other:
            other["c"]["k"] = 2
            with pytest.raises(
                sqlstate.StoreIOError, match=r"another program changed the file .* Open the store again"
            ):
                view.close()
        with pytest.raises(sqlstate.StoreClosed, match="changed while it was read"):
            store["c"].get("k")
        store.close()
        with sqlstate.open(folder / "app.db", read_only=True) as store:
            assert store["c"]["k"] == 2


@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_a_user_who_may_not_write_the_folder_reads_the_store(mode: int) -> None:
    with open_folder() as folder:
        make(folder / "app.db")
        (folder / "app.db").chmod(mode)

        def work() -> None:
            with sqlstate.open(folder / "app.db", read_only=True) as store:
                assert store["c"]["k"] == 1
            with pytest.raises(sqlstate.ReadOnly, match="read_only=True"):
                sqlstate.open(folder / "app.db")

        as_user(NOBODY, work)
        assert os.listdir(folder) == ["app.db"]


def test_who_may_not_write_the_file_leaves_nothing_beside_it_that_its_owner_could_not_write() -> None:
    with open_folder() as folder:
        make(folder / "app.db")
        (folder / "app.db").chmod(0o644)
        folder.chmod(0o777)

        def read() -> None:
            with sqlstate.open(folder / "app.db", read_only=True) as store:
                assert store["c"]["k"] == 1
                assert os.listdir(folder) == ["app.db"]

        as_user(NOBODY, read)
        assert os.listdir(folder) == ["app.db"]


def test_a_store_that_is_open_is_read_by_a_user_who_may_not_write_it() -> None:
    """The owner is a process of its own: a child of this one could not open what is open here."""
    work = "import sqlstate, sys; s = sqlstate.open(sys.argv[1]); s['c']['k'] = 1; print('open', flush=True); input()"
    with (
        open_folder() as folder,
        subprocess.Popen(
            [sys.executable, "-c", work, str(folder / "app.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as owner,
    ):
        assert owner.stdout is not None
        assert owner.stdout.readline().rstrip() == b"open"
        for name in os.listdir(folder):
            (folder / name).chmod(0o644)

        def read() -> None:
            with sqlstate.open(folder / "app.db", read_only=True) as reader:
                assert reader["c"]["k"] == 1

        as_user(NOBODY, read)
        owner.communicate(b"\n")


def test_a_journal_that_cannot_be_made_is_no_question_of_reading() -> None:
    with open_folder() as folder:
        make(folder / "app.db", "delete")
        (folder / "app.db").chmod(0o666)

        def write() -> None:
            with sqlstate.open(folder / "app.db") as store:
                with pytest.raises(sqlstate.ReadOnly, match="the file or its folder cannot be written"):
                    store["c"]["k"] = 2
                assert store["c"]["k"] == 1

        as_user(NOBODY, write)


def test_a_store_that_was_not_closed_is_never_written_on_read_only_media(media: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, media / "app.db"], check=False, cwd=ROOT)
    with read_only(media) as folder:
        with pytest.raises(sqlstate.ReadOnly, match="cannot be written"):
            sqlstate.open(folder / "app.db")
        with sqlstate.open(folder / "app.db", read_only=True) as store:  # SQLite reads the -wal where the -shm is too
            assert store["c"]["k"] == 2
