"""docs/examples/note_editor.py on a virtual screen: typed into, killed, started again, and asked what its window shows.

Method: the program runs as it is printed. Keys are events of Tk, and what is shown is read from the widgets, never from
pixels. Where there is no virtual screen, or no tkinter, the tests are skipped.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

import sqlstate
from tests import ROOT
from tests.conftest import judge
from tests.support import tk_window
from tests.support.mounts import fill, small
from tests.support.tk_window import Window, WindowGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAM = ROOT / "docs" / "examples" / "note_editor.py"
MISSING = tk_window.missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with tk_window.screen() as name:
        yield name


@pytest.fixture
def start(display: str, path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Window]]:
    """Starts the editor, and waits until a note is shown. The file is judged when the test ends."""
    with ExitStack() as stack:

        def start(at: Path = path, *, ready: bool = True) -> Window:
            window = stack.enter_context(Window(display, PROGRAM, at, cwd=at.parent))
            if ready:
                window.until(".text cget -state", "normal")
            return window

        yield start
    if path.exists():
        sqlstate.open(path, recover="resume").close()
        assert judge(path, request.node) == ()


def text(window: Window) -> str:
    return window.tcl(".text get 1.0 end-1c")


def saved(path: Path) -> list[str]:
    """Return the texts that are saved."""
    with sqlstate.open(path, read_only=True, timeout=60) as store:
        return [*store["notes"].values()]


def drafts(path: Path) -> list[str]:
    """Return the texts of the drafts that are on the disk."""
    with sqlstate.open(path, read_only=True, timeout=60) as store:
        return [json.loads(str(left.records[-1].value)) for left in store.wal.uncommitted() if left.records[1:]]


def wait_for_draft(path: Path, wanted: str) -> None:
    deadline = time.monotonic() + tk_window.PATIENCE_SECONDS
    while wanted not in drafts(path):
        assert time.monotonic() < deadline, f"the drafts stay {drafts(path)!r:.500}"
        time.sleep(0.02)


def save(window: Window) -> None:
    window.press(".text", "Control-s")
    window.until(".status cget -text", "saved")


def choose(window: Window, button: str) -> str:
    """Wait for a message box, press one of its buttons, and return what it said."""
    window.until("grab current", ".__tk__messagebox")  # from then on it listens
    said = window.shown(".__tk__messagebox")
    with suppress(WindowGone):
        window.tcl(f".__tk__messagebox.{button} invoke")
        window.until("winfo exists .__tk__messagebox", "0")
    return said


def close(window: Window) -> None:
    window.later(".notes invoke Close")
    assert window.wait() == ""


@pytest.mark.slow
def test_what_was_typed_before_a_kill_is_offered_in_a_dialog(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.type(".text", "Dear Ada\nall is well")
    save(window)
    assert saved(path) == ["Dear Ada\nall is well"]
    window.type(".text", " and more")
    wait_for_draft(path, "Dear Ada\nall is well and more")
    window.kill()

    window = start()
    window.until("winfo exists .recovery", "1")
    shown = window.shown(".recovery")
    assert "The program ended before it could close its file." in shown
    assert "up to commit 1. Checked: 1 commits follow from each other by chain" in shown
    assert "Not saved: Dear Ada, 29 characters" in shown
    window.tcl(".recovery.keep invoke")
    assert text(window) == "Dear Ada\nall is well and more"
    assert saved(path) == ["Dear Ada\nall is well"]
    save(window)
    close(window)
    assert saved(path) == ["Dear Ada\nall is well and more"]
    window = start()
    assert window.tcl("winfo exists .recovery") == "0"


def test_drafts_of_a_crash_can_be_discarded(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.type(".text", "kept")
    save(window)
    window.type(".text", " not")
    wait_for_draft(path, "kept not")
    window.kill()
    window = start()
    window.until("winfo exists .recovery.discard", "1")
    window.tcl(".recovery.discard invoke")
    window.until(".text get 1.0 end-1c", "kept")
    assert drafts(path) == []


@pytest.mark.slow
def test_a_kill_while_the_dialog_is_shown_leaves_the_draft(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.type(".text", "twice")
    wait_for_draft(path, "twice")
    for _ in range(2):
        window.kill()
        window = start()
        window.until("winfo exists .recovery", "1")
        assert "Not saved: twice, 5 characters" in window.shown(".recovery")
        assert text(window) == "twice"


@pytest.mark.slow
def test_keys_that_come_faster_than_the_disk_share_a_draft(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.type(".text", "all of it " * 30)
    wait_for_draft(path, "all of it " * 30)
    with sqlstate.open(path, read_only=True, timeout=60) as store:
        [draft] = store.wal.uncommitted()
        assert len(draft.records) < 20  # of 300 keys


@pytest.mark.slow
def test_a_window_that_is_closed_while_a_write_waits_ends_when_it_is_done(
    start: Callable[..., Window], path: Path
) -> None:
    window = start()
    with sqlstate.open(path) as store, store.transaction() as txn:
        txn.put("other", 1, "keeps the others waiting")
        window.type(".text", "last words")
        window.later(".notes invoke Close")
        assert window.tcl(".text cget -state") == "disabled"
        assert window.process.poll() is None
    assert window.wait() == ""
    assert drafts(path) == ["last words"]
    window = start()
    assert text(window) == "last words"
    assert window.tcl("winfo exists .recovery") == "0"


@pytest.mark.slow
def test_a_full_disk_is_told_and_typing_goes_on(start: Callable[..., Window], tmp_path: Path) -> None:
    with small(tmp_path / "disk", 8) as disk:
        path = disk / "notes.db"
        window = start(path)
        window.type(".text", "before")
        save(window)
        fill(disk)
        window.tcl(".text insert end [string repeat x 100000]")
        window.until(".status cget -text", lambda said: said.startswith("NOT ON THE DISK: "))
        window.press(".text", "Control-s")
        assert "disk is full" in choose(window, "ok")
        window.later(".notes invoke Close")
        assert "Close, and lose what was typed last?" in choose(window, "cancel")
        window.type(".text", " after")
        (disk / "filler").unlink()
        wait_for_draft(path, f"before{'x' * 100000} after")
        close(window)
        assert saved(path) == ["before"]


@pytest.mark.slow
def test_two_windows_on_one_file_see_each_other_and_lose_nothing(start: Callable[..., Window], path: Path) -> None:
    first, second = start(), None
    first.type(".text", "plan")
    save(first)
    second = start()
    assert second.tcl("winfo exists .recovery") == "0"
    first.type(".text", " a")
    second.type(".text", " b")
    wait_for_draft(path, "plan a")
    wait_for_draft(path, "plan b")
    save(first)
    second.press(".text", "Control-s")
    assert "Another window had saved this note" in choose(second, "ok")
    merged = "plan b\n\n======== the other text ========\n\nplan a"
    assert saved(path) == [merged]
    first.until(".text get 1.0 end-1c", merged)
    first.kill()
    second.type(".text", "x")
    wait_for_draft(path, merged.replace("plan b", "plan bx"))


@pytest.mark.slow
def test_a_file_that_was_removed_is_told_and_the_text_stays(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.type(".text", "here")
    save(window)
    path.unlink()
    window.type(".text", " still")
    window.until(".status cget -text", lambda said: said.startswith("NOT ON THE DISK: "))
    window.press(".text", "Control-s")
    choose(window, "ok")
    assert text(window) == "here still"
    window.later(".notes invoke Close")
    choose(window, "ok")
    assert window.wait() == ""
    assert not path.exists()


@pytest.mark.slow
def test_a_note_of_5_mb(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.tcl(".text insert end [string repeat {0123456789abcde\n} 312500]")
    wait_for_draft(path, "0123456789abcde\n" * 312500)
    window.type(".text", "x")
    save(window)
    window.kill()
    window = start()
    window.until("winfo exists .recovery", "1")
    assert text(window) == "0123456789abcde\n" * 312500 + "x"


@pytest.mark.slow
def test_undo_takes_back_typing_and_the_menu_what_was_done(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.type(".text", "one")
    save(window)
    window.type(".text", " two")
    window.press(".text", "Control-z")
    window.until(".text get 1.0 end-1c", lambda shown: " two" not in shown)
    window.tcl(".text replace 1.0 end-1c {one two}")
    save(window)
    window.tcl(".notes invoke Delete")
    window.until(".text get 1.0 end-1c", "")

    for take, shown in (("Take back", "one two"), ("Take back", "one"), ("Do again", "one two")):
        window.tcl("[.notes cget -postcommand]")
        window.tcl(f".notes invoke [.notes index {{{take}*}}]")
        window.until(".list get 0", shown)
    window.tcl(".list selection clear 0 end; .list selection set 0; event generate .list <<ListboxSelect>>")
    window.until(".text get 1.0 end-1c", "one two")
    assert saved(path) == ["one two"]
    window.tcl("[.notes cget -postcommand]")
    assert window.tcl(".notes entrycget 4 -label") == "Take back: saving of 'one two'"


@pytest.mark.slow
def test_five_backups_are_kept_and_are_sound(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.type(".text", "again")
    save(window)
    name = f"{path.name}.backup"
    for _ in range(6):
        window.tcl(".status configure -text {}; .notes invoke {Back up}")
        window.until(".status cget -text", f"backed up as {name}")
    close(window)
    found = sorted(path.parent.glob(f"{name}*"))
    assert len(found) == 5
    for each in found:
        assert saved(each) == ["again"]


@pytest.mark.slow
def test_a_conflicted_copy_is_merged(start: Callable[..., Window], path: Path) -> None:
    with sqlstate.open(path) as ours:
        ours["notes"].update({"1": "both", "2": "theirs"})
        copy = ours.backup(path.with_name("copy.db")).path
        ours["notes"]["1"] = "both: ours"
    with sqlstate.open(copy) as theirs:
        theirs["notes"].update({"1": "both: theirs", "2": "theirs, changed", "3": "new"})
    window = start()
    window.later(".notes invoke {Merge a copy…}")
    window.until("winfo exists .__tk_filedialog.contents.f2.ent", "1")
    window.tcl(f".__tk_filedialog.contents.f2.ent insert 0 {copy}; .__tk_filedialog.contents.f2.ok invoke")
    assert "3 notes were taken over; 1 were changed in both copies." in choose(window, "ok")
    merged = "both: ours\n\n======== the other text ========\n\nboth: theirs"
    assert saved(path) == [merged, "theirs, changed", "new"]
    window.until(".list get 2", "new")


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"some other file\n" * 300, b"SQLite format 3\x00" + bytes(4080)])
def test_a_file_that_is_no_store_is_named_in_a_dialog(
    content: bytes, start: Callable[..., Window], tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(content)
    window = start(other, ready=False)
    assert "other.txt" in choose(window, "ok")
    assert window.wait() == ""
    assert other.read_bytes() == content


@pytest.mark.slow
def test_a_click_on_nothing_and_many_quick_clicks(start: Callable[..., Window], path: Path) -> None:
    with sqlstate.open(path) as store:
        store["notes"].update({str(number): f"note {number}" for number in range(5)})
    window = start()
    window.tcl(".list selection clear 0 end; event generate .list <<ListboxSelect>>")
    for row in (0, 3, 1, 4, 2):
        window.tcl(f".list selection clear 0 end; .list selection set {row}; event generate .list <<ListboxSelect>>")
        window.type(".text", "x")
    window.until(".text get 1.0 end-1c", lambda shown: shown.startswith("note 2"))
    close(window)
    assert saved(path) == [f"note {number}" for number in range(5)]
    assert sum(each.count("x") for each in drafts(path)) == 5


@pytest.mark.slow
def test_a_note_that_is_begun_right_after_a_save_is_shown(start: Callable[..., Window], path: Path) -> None:
    window = start()
    window.type(".text", "first")
    window.press(".text", "Control-s", "Control-n")
    window.until(".text get 1.0 end-1c", "")
    window.type(".text", "second")
    window.press(".text", "Control-s", "Control-n")
    window.until(".list size", "3")
    close(window)
    assert saved(path) == ["first", "second"]


@pytest.mark.slow
def test_what_is_typed_while_another_note_is_fetched_stays_in_its_own(start: Callable[..., Window], path: Path) -> None:
    with sqlstate.open(path) as store:
        store["notes"].update({"1": "first", "2": "second"})
    window = start()
    with sqlstate.open(path) as store, store.transaction() as txn:
        txn.put("other", 1, "keeps the others waiting")
        window.type(".text", "a")
        window.tcl(".list selection clear 0 end; .list selection set 0; event generate .list <<ListboxSelect>>")
        window.type(".text", "b")
    window.until(".text get 1.0 end-1c", "first")
    assert drafts(path) == ["secondab"]


@pytest.mark.slow
def test_drafts_that_two_windows_left_of_one_note_are_both_there(start: Callable[..., Window], path: Path) -> None:
    first = start()
    first.type(".text", "plan")
    save(first)
    second = start()
    first.type(".text", " a")
    second.type(".text", " b")
    wait_for_draft(path, "plan a")
    wait_for_draft(path, "plan b")
    first.kill()
    second.kill()
    window = start()
    window.until("winfo exists .recovery", "1")
    wait_for_draft(path, both := "plan a\n\n======== the other text ========\n\nplan b")
    assert drafts(path) == [both]
    assert text(window) == both
