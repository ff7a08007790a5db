"""A note editor: what was typed survives a kill at any moment, and the window never waits for the disk.

    python note_editor.py notes.db

The first line of a note is its title. What is typed is kept as a draft until Ctrl+S saves it. Ctrl+Z takes back typing;
the menu takes back what was saved, deleted or merged.
"""

import contextlib
import logging
import secrets
import sys
import time
import tkinter as tk
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tkinter import filedialog, messagebox, ttk
from typing import Any

import sqlstate
from sqlstate import ABSENT

Steps = list[tuple[int, str]]  # numbers of commits, and what they did
Then = Callable[[Any], object]
BROKEN = (sqlstate.StoreUnusable, sqlstate.StoreIOError, sqlstate.CommitOutcomeUnknown)  # a new handle may do
DAY = 24 * 3600


def title(text: str) -> str:
    return text.strip().partition("\n")[0][:60] or "(empty)"


def both(ours: Any, theirs: Any) -> Any:
    """Return one text for two that were written at once: both, so that nothing is lost."""
    if ours is ABSENT or theirs is ABSENT or ours == theirs:
        return theirs if ours is ABSENT else ours
    return f"{ours}\n\n======== the other text ========\n\n{theirs}"


class Notes:
    """The file. A call may wait for the disk, so the window makes them in a thread, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.typed: dict[str, str] = {}  # texts that are not on the disk yet
        self.drafts: dict[str, sqlstate.StagedTransaction] = {}  # texts that are, and were not saved
        self.done: Steps = []
        self.undone: Steps = []
        self.open(create=True)

    def open(self, *, create: bool) -> None:
        """Open the file, and take over the drafts of windows that are gone."""
        self.store = sqlstate.open(self.path, create=create, recover="resume", timeout=30)
        self.drafts.clear()
        for left in self.store.pending():
            with contextlib.suppress(sqlstate.InvalidRecord):  # another window was faster
                self.adopt(self.store.resume(left.txn), [str(record.key) for record in left.records[1:]])

    def adopt(self, draft: sqlstate.StagedTransaction, keys: list[str]) -> None:
        """Go on with a draft. If two windows left one of the same note, one draft gets both texts."""
        if keys and keys[0] not in self.drafts:
            self.drafts[keys[0]] = draft
            return
        if keys:
            self.drafts[keys[0]].put("notes", keys[0], both(self.read(keys[0]), draft.get("notes", keys[0])))
        draft.rollback()

    def run(self, typed: tuple[str, str] | None, work: Callable[[], Any]) -> Any:
        """Put what was typed on the disk, and then do *work*."""
        if typed:
            self.typed[typed[0]] = typed[1]
        try:
            for key, text in [*self.typed.items()]:
                if key not in self.drafts:
                    self.drafts[key] = self.store.stage(note=f"draft of {title(text)!r}")
                self.drafts[key].put("notes", key, text)
                del self.typed[key]
            return work()
        except BROKEN:
            with contextlib.suppress(sqlstate.StoreError):
                self.store.close()
            self.open(create=False)  # if that fails, its error tells more
            raise

    def titles(self) -> tuple[int, dict[str, str]]:
        """Return the number of the newest commit, and the titles of all notes."""
        with self.store.snapshot() as view:
            found = {str(key): title(text) for key, text in view["notes"].items()}
            found |= {key: f"• {title(self.read(key))}" for key in self.drafts}
            return view.head.seq, dict(sorted(found.items()))

    def read(self, key: str) -> str:
        """Return the text of a note as it was typed last."""
        return str(self.drafts[key].get("notes", key) if key in self.drafts else self.store["notes"].get(key, ""))

    def save(self, key: str) -> bool:
        """Make the draft of a note its text. Return True if another window had changed it: then it gets both texts."""
        if key not in self.drafts:
            return False
        draft, text, before = self.drafts[key], self.read(key), self.store["notes"].get(key, ABSENT)
        step = f"saving of {title(text)!r}"
        try:
            head, collided = draft.commit(), False
            if text != before:  # else there was nothing to commit
                self._did(head.seq, step)
        except sqlstate.Conflict:
            collided = True
            self._commit(step, lambda txn: txn.put("notes", key, both(text, txn.get("notes", key, ABSENT))))
            draft.rollback()
        del self.drafts[key]
        return collided

    def discard(self, key: str) -> None:
        """Forget what was typed into a note since it was saved."""
        if key in self.drafts:
            self.drafts[key].rollback()
            del self.drafts[key]

    def delete(self, key: str) -> None:
        step = f"deletion of {title(self.read(key))!r}"
        self.discard(key)
        if key in self.store["notes"]:
            self._commit(step, lambda txn: txn.delete("notes", key))

    def merge(self, path: str) -> str:
        """Take over what a copy of the file was given elsewhere. A note that was changed in both gets both texts."""
        with sqlstate.open(path, read_only=True) as copy:
            report = sqlstate.merge(self.store, copy, prefer=lambda each: both(each.ours, each.theirs))
        if report.applied:
            self._did(report.head.seq, f"merging of {Path(path).name}")
        return f"{report.applied} notes were taken over; {len(report.collisions)} were changed in both copies."

    def take_back(self, done: Steps, undone: Steps) -> None:
        """Take back the last of *done*, in a new commit. With the lists exchanged, do it again."""
        if done:
            head = self.store.undo(done[-1][0], note=f"undo: {done[-1][1]}")
            undone.append((head.seq, done.pop()[1]))

    def newest(self) -> int:
        return self.store.head().seq

    def close(self) -> None:
        self.store.close()

    def backup(self) -> str:
        """Back up the file, and keep the four backups before."""
        return f"backed up as {self.store.backup(f'{self.path}.backup', keep=5).path.name}"

    def crash_report(self) -> str:
        """Return in words what opening found after a crash; nothing if there was none."""
        report = self.store.recovery
        if report.clean:
            return ""
        drafts = [f"Not saved: {title(text)}, {len(text):,} characters" for text in map(self.read, self.drafts)]
        head = report.after.seq if report.after else 0
        return "\n\n".join([
            "The program ended before it could close its file.",
            f"All that was saved is there, up to commit {head}. Checked: {report.checked}.",
            *drafts,
        ])  # fmt: skip

    def _commit(self, step: str, work: Callable[[sqlstate.Transaction], object]) -> None:
        future = self.store.submit(work, note=step)
        future.result()
        if future.head:  # something was changed
            self._did(future.head.seq, step)

    def _did(self, seq: int, step: str) -> None:
        self.done.append((seq, step))
        self.undone.clear()


class Editor:
    """The window. This class alone knows Tk, and all of it runs in the main thread."""

    def __init__(self, root: tk.Tk, path: Path) -> None:
        self.root, self.path = root, path
        self.worker, self.aside = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.key = self.wanted = ""  # of the note that is shown, and of the one that shall be
        self.keys: list[str] = []  # of the notes in the list
        self.seq = -1  # of the commit that the list shows
        self.edits = self.shows = self.lists = 0  # what comes of an earlier one is not shown any more
        self.dirty = self.drafting = False  # the worker was not given what was typed; it was given some
        root.title(path.name)
        root.protocol("WM_DELETE_WINDOW", root.quit)
        root.report_callback_exception = lambda _kind, error, _trace: self.failed(error)
        self.menu = tk.Menu(root, name="notes", tearoff=False, postcommand=self.name_steps)
        self.status = ttk.Label(root, name="status", padding=4)
        self.list = tk.Listbox(root, name="list", width=24, exportselection=False, activestyle="none")
        self.text = tk.Text(root, name="text", width=64, height=20, wrap="word", undo=True, state="disabled")
        self.status.pack(side="bottom", fill="x")
        self.list.pack(side="left", fill="y")
        self.text.pack(side="left", fill="both", expand=True)
        self.wait(self.worker.submit(Notes, path), self.opened, lambda error: (self.failed(error), root.quit()))

    def opened(self, notes: Notes) -> None:
        """Connect the widgets with the notes."""
        self.notes = notes
        for label, key, command in (
            ("New", "n", self.new),
            ("Save", "s", self.save),
            ("Back to what was saved", "", lambda: self.change(notes.discard, self.key)),
            ("Delete", "", lambda: self.change(notes.delete, self.key)),
            ("Take back", "", lambda: self.change(notes.take_back, notes.done, notes.undone)),
            ("Do again", "", lambda: self.change(notes.take_back, notes.undone, notes.done)),
            ("Merge a copy…", "", self.merge),
            ("Back up", "b", self.backup),
            ("Save as text…", "", self.export),
            ("Close", "q", self.close),
        ):
            self.menu.add_command(label=label, command=command, accelerator=key and f"Ctrl+{key.upper()}")
            if key:
                self.text.bind(f"<Control-{key}>", partial(self.pressed, command))
        bar = tk.Menu(self.root, tearoff=False)
        bar.add_cascade(label="Notes", menu=self.menu)
        self.root.config(menu=bar)
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        self.text.bind("<<Modified>>", lambda _: self.modified())
        self.list.bind("<<ListboxSelect>>", lambda _: self.selected())
        self.text.focus_set()
        self.do(notes.crash_report, lambda found: found and self.show_recovery(found))
        self.refresh()
        self.follow()
        newest = Path(f"{self.path}.backup")
        if not newest.exists() or newest.stat().st_mtime < time.time() - DAY:
            self.wait(self.aside.submit(notes.backup), lambda _: None)

    def show_recovery(self, found: str) -> None:
        """Tell of the crash, and ask what is to become of the drafts."""
        dialog = tk.Toplevel(self.root, name="recovery", padx=16, pady=16)
        dialog.title("After a crash")
        dialog.transient(self.root)
        ttk.Label(dialog, name="found", text=found, wraplength=480).pack(anchor="w", pady=(0, 16))

        def discard() -> None:
            dialog.destroy()
            self.change(lambda: [self.notes.discard(key) for key in [*self.notes.drafts]])

        ttk.Button(dialog, name="keep", text="Go on", command=dialog.destroy).pack(side="right")
        if self.notes.drafts:
            ttk.Button(dialog, name="discard", text="Discard drafts", command=discard).pack(side="right", padx=8)

    # What may wait for the disk is done by the worker, which is given first what was typed before.

    def do(self, work: Callable[[], Any], then: Then, otherwise: Then | None = None) -> None:
        self.modified()
        typed = (self.key, self.text.get("1.0", "end-1c")) if self.dirty else None
        self.dirty = False
        self.wait(self.worker.submit(self.notes.run, typed, work), then, otherwise)

    def wait(self, future: Future[Any], then: Then, otherwise: Then | None = None) -> None:
        """Look after a future again and again: nothing but the main thread may call Tk."""
        if not future.done():
            self.root.after(10, self.wait, future, then, otherwise)
        elif error := future.exception():
            (otherwise or self.failed)(error)
        else:
            then(future.result())

    def failed(self, error: BaseException) -> None:
        """Show an error. One that is none of the store or the system is a fault of this program: log it."""
        known = isinstance(error, sqlstate.StoreError | OSError)
        if not known:
            logging.getLogger(__name__).error("a fault of the editor", exc_info=error)
        messagebox.showerror(self.path.name, f"{error}" if known else f"{type(error).__name__}: {error}")

    # Typing: one draft after the other, so that each has all that was typed while the one before was written.

    def modified(self) -> None:
        if self.text.edit_modified():
            self.text.edit_modified(False)
            self.edits += 1
            self.dirty = True
            self.draft()

    def draft(self, *, again: bool = False) -> None:
        if (self.dirty or again) and not self.drafting:
            self.drafting = True
            pause = len(self.text.get("1.0", "end-1c")) // 1000  # a million characters a second, to spare the log
            key = self.key
            self.do(lambda: None, lambda _: self.drafted(key, pause), self.not_drafted)

    def drafted(self, key: str, pause: int) -> None:
        self.status.config(text="not saved; the draft is on the disk")
        label = f"• {title(self.text.get('1.0', '9.0'))}"
        if key == self.key and key in self.keys and self.list.get(row := self.keys.index(key)) != label:
            self.list.delete(row)
            self.list.insert(row, label)
            self.list.selection_set(row)
        self.root.after(pause, self.next_draft)

    def not_drafted(self, error: BaseException) -> None:
        self.status.config(text=f"NOT ON THE DISK: {error}")  # a dialog would come at each key
        self.root.after(2000, lambda: self.next_draft(again=True))

    def next_draft(self, *, again: bool = False) -> None:
        self.drafting = False
        self.draft(again=again)

    # The list, and the note that is shown.

    def refresh(self) -> None:
        self.lists = latest = self.lists + 1
        self.do(self.notes.titles, lambda found: latest == self.lists and self.list_notes(*found))

    def list_notes(self, seq: int, titles: dict[str, str]) -> None:
        self.seq, self.keys = seq, [*titles]
        self.list.delete(0, "end")
        self.list.insert("end", *titles.values())
        if titles:
            self.show(self.wanted if self.wanted in titles else self.keys[-1])
        else:
            self.new()

    def selected(self) -> None:
        for row in self.list.curselection():
            self.show(self.keys[row])

    def show(self, key: str) -> None:
        self.modified()
        self.wanted, self.shows, edits = key, self.shows + 1, self.edits
        latest = self.shows
        self.do(lambda: self.notes.read(key), lambda text: latest == self.shows and self.put(key, text, edits))

    def put(self, key: str, text: str, edits: int) -> None:
        self.modified()
        if edits != self.edits or key not in self.keys:  # something was typed, or deleted, meanwhile
            self.refresh()
            return
        self.text.config(state="normal")
        if (key, text) != (self.key, self.text.get("1.0", "end-1c")):
            cursor = self.text.index("insert") if key == self.key else "end"
            self.key = key
            self.text.replace("1.0", "end", text)
            self.text.mark_set("insert", cursor)
            self.text.edit_reset()
            self.text.edit_modified(False)
        self.list.selection_clear(0, "end")
        self.list.selection_set(self.keys.index(key))

    def follow(self) -> None:
        """Look once a second whether another window committed something."""
        if not self.dirty and not self.drafting:
            self.do(self.notes.newest, lambda seq: seq == self.seq or self.refresh(), lambda _: None)
        self.root.after(1000, self.follow)

    # The menu.

    def name_steps(self) -> None:
        for row, name, steps in ((4, "Take back", self.notes.done), (5, "Do again", self.notes.undone)):
            label = f"{name}: {steps[-1][1]}" if steps else name
            self.menu.entryconfig(row, label=label, state="normal" if steps else "disabled")

    def pressed(self, command: Callable[[], object], _event: object) -> str:
        command()
        return "break"  # Tk has meanings of its own for some of these keys

    def change(self, work: Callable[..., object], *arguments: Any) -> None:
        self.do(lambda: work(*arguments), lambda _: self.refresh())

    def new(self) -> None:
        """Begin a note. Its key gives the order, and no other copy of the file will use it."""
        key = f"{time.time_ns():020}-{secrets.token_hex(4)}"

        def show_it(_: object) -> None:
            self.wanted = key
            self.refresh()

        self.do(lambda: self.notes.run((key, ""), lambda: None), show_it)

    def save(self) -> None:
        def saved(collided: bool) -> None:
            self.refresh()
            self.status.config(text="saved")
            if collided:
                messagebox.showinfo(self.path.name, "Another window had saved this note. It has both texts now.")

        self.do(lambda: self.notes.save(self.key), saved)

    def backup(self) -> None:
        self.wait(self.aside.submit(self.notes.backup), lambda done: self.status.config(text=done))

    def merge(self) -> None:
        if path := filedialog.askopenfilename(title="The other copy"):
            self.do(lambda: self.notes.merge(path), lambda done: (self.refresh(), messagebox.showinfo("Merged", done)))

    def export(self) -> None:
        """Write the text elsewhere, for when the store cannot be written."""
        if path := filedialog.asksaveasfilename(title="Save the text", defaultextension=".txt"):
            Path(path).write_text(self.text.get("1.0", "end-1c"), encoding="utf-8")

    def close(self) -> None:
        """End when all that was typed is on the disk. Drafts come back at the next start."""
        self.text.config(state="disabled")
        self.do(self.notes.close, lambda _: self.root.quit(), self.cannot_close)

    def cannot_close(self, error: BaseException) -> None:
        self.text.config(state="normal")
        if messagebox.askokcancel(self.path.name, f"{error}\n\nClose, and lose what was typed last?"):
            self.root.quit()
        else:
            self.not_drafted(error)


def main() -> None:
    root = tk.Tk()
    Editor(root, Path(sys.argv[1] if len(sys.argv) > 1 else "notes.db").absolute())
    root.mainloop()


if __name__ == "__main__":
    main()
