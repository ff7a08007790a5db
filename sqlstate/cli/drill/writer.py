"""A writer of the drill: what it does, and its process as the drill sees it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sqlstate.files import system
from sqlstate.files.paths import module_places
from sqlstate.store.opening import open as open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlstate.cli.drill.report import Plan
    from sqlstate.format.names import Key
    from sqlstate.store.staged import StagedTransaction
    from sqlstate.store.store import Store
    from sqlstate.store.transaction import Transaction

ACCOUNTS: Final = "accounts"
DOCUMENTS: Final = "documents"
DRAFTS: Final = "drafts"
WRITERS: Final = "writers"
COLLECTIONS: Final = (ACCOUNTS, DOCUMENTS, DRAFTS, WRITERS)

NAMES: Final = [f"account {number:02}" for number in range(16)]
BALANCE: Final = 1000
"""What each account holds at the beginning."""

_DOCUMENTS: Final = 40
_EDITS: Final = 20
_DRAFTS_OPEN: Final = 3
_DRAFTS_KEPT: Final = 8

Put = tuple[str, "Key", Any]
"""Collection, key and value; None stands for no entry, since no writer puts null."""


class Worker:
    """What a writer does until it is killed.

    Args:
        store: open for writing.
        number: of this writer; no other has it.
        seed: of its choices.
        say: writes a line that the drill reads.
    """

    def __init__(self, store: Store, number: int, seed: str, say: Callable[..., None]) -> None:
        self.store = store
        self.say = say
        self._number = number
        self._random = random.Random(seed)  # noqa: S311, a drill that can be repeated is what is wanted
        self._count = 0
        self._serial = 0
        self._drafts: list[tuple[StagedTransaction, list[Put]]] = []
        self._old: list[Key] = []  # entries of drafts that were committed

    def run(self) -> None:
        """Write for ever."""
        acts = [self._move, self._move, self._edit, self._draft]
        while True:
            self._random.choice(acts)()

    def commit(self, change: Callable[[Transaction], list[Put]]) -> None:
        """Put what *change* returns, and this writer's counter, in one transaction."""
        with self.store.transaction() as txn:
            puts = [*change(txn), self._counter()]
            for put in puts:
                _write(txn, put)
            seq = self.store.head().seq + 1  # ours: no other writer can commit before this block ends
            self.say("told", self._count, puts)
        self.say("done", self._count, seq)

    def _move(self) -> None:
        """Move an amount between two accounts; what all of them hold stays the same."""
        source, target = self._random.sample(NAMES, 2)
        amount = self._random.randint(1, 100)

        def change(txn: Transaction) -> list[Put]:
            held = [txn.get(ACCOUNTS, name) for name in (source, target)]
            return [
                (ACCOUNTS, source, {"balance": held[0]["balance"] - amount}),
                (ACCOUNTS, target, {"balance": held[1]["balance"] + amount}),
            ]

        self.commit(change)

    def _edit(self) -> None:
        """Count up in a document, and write other text into it; delete it when it has come to an end."""
        key = self._random.randrange(_DOCUMENTS)
        text = self._text()

        def change(txn: Transaction) -> list[Put]:
            before = txn.get(DOCUMENTS, key, {"edits": 0})
            if before["edits"] >= _EDITS:
                return [(DOCUMENTS, key, None)]
            return [(DOCUMENTS, key, {"edits": before["edits"] + 1, "by": self._number, "text": text})]

        self.commit(change)

    def _draft(self) -> None:
        """Begin a draft, or end one of those that are open."""
        if len(self._drafts) < self._random.randint(1, _DRAFTS_OPEN):
            self._begin_draft()
            return
        draft, puts = self._drafts.pop(self._random.randrange(len(self._drafts)))
        if self._random.random() < 0.3:
            self.say("undo", draft.txn)
            draft.rollback()
            return
        self._stage(draft, puts, self._counter())
        self.say("told", self._count, puts)
        self.say("done", self._count, draft.commit().seq)
        self._old += [key for collection, key, value in puts if collection == DRAFTS and value is not None]

    def _begin_draft(self) -> None:
        self._serial += 1
        draft = self.store.stage(note=f"draft {self._serial} of writer {self._number}")
        self.say("draft", draft.txn)
        puts: list[Put] = []
        self._drafts.append((draft, puts))
        for part in range(self._random.randint(1, 3)):
            self._stage(draft, puts, (DRAFTS, f"{self._number}-{self._serial}-{part}", {"text": self._text()}))
        if len(self._old) > _DRAFTS_KEPT:
            self._stage(draft, puts, (DRAFTS, self._old.pop(0), None))

    def _stage(self, draft: StagedTransaction, puts: list[Put], put: Put) -> None:
        _write(draft, put)
        self.say("drafted", draft.txn, put)
        puts.append(put)

    def _counter(self) -> Put:
        self._count += 1
        return WRITERS, self._number, {"count": self._count}

    def _text(self) -> str:
        # Less than a page: a line of the pipe goes out as one.
        return "lorem ipsum " * self._random.randrange(120)


def _write(to: Transaction | StagedTransaction, put: Put) -> None:
    collection, key, value = put
    if value is None:
        to.delete(collection, key)
    else:
        to.put(collection, key, value)


def work(arguments: Sequence[str], kind: type[Worker] = Worker) -> None:
    """Be a writer; *arguments* are those of command_of().

    Ends once its pipe has no reader, so that no writer outlives its drill.
    """
    # What stops the drill may reach each of its processes; ending the writers is the drill's matter.
    for number in system.ENDING:
        signal.signal(number, signal.SIG_IGN)
    path, name, seed, timeout = arguments

    def say(*words: Any) -> None:
        os.write(1, json.dumps(words, separators=(",", ":")).encode() + b"\n")

    try:
        with open_store(path, create=False, timeout=float(timeout)) as store:
            kind(store, int(name), seed, say).run()
    except OSError as e:
        if not system.has_no_reader(e):
            raise
        os._exit(0)  # as after a kill: nothing is put in order


def command_of(path: Path, number: int, plan: Plan) -> list[str]:
    """Return the command that starts a writer of the store at *path*."""
    module = [sys.executable, "-P", "-m", "sqlstate.cli.drill"]
    return [*module, str(path), str(number), f"{plan.seed}-{number}", str(plan.timeout)]


class WriterProcess:
    """A writer, seen from the drill: its process, and the lines that it has said.

    Args:
        command: starts it.
        folder: for what it writes to standard error.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, it has no name, and lives as long as we
        self._process = subprocess.Popen(  # noqa: S603, this Python, with arguments of our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": module_places()},
        )
        self._lines: deque[bytes] = deque()
        self.committed: bool = False
        """Whether it has said that a commit of it returned."""
        self.ended_before: bool = False
        """Whether it had ended by itself when it was killed: on Windows its exit code does not tell."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, without waiting."""
        self.ended_before = not self.running
        self._process.kill()

    def reap(self) -> int:
        """Wait for its end and for its last line; return how it ended."""
        code = self._process.wait()
        self._reader.join()
        return code

    def said(self) -> list[Any]:
        """Return what it has said since the last call."""
        return [json.loads(self._lines.popleft()) for _ in range(len(self._lines))]

    def complaint(self) -> str:
        """Return the last line of its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """Remove the temporary file of its standard error."""
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101, for the type checker
        with self._process.stdout as pipe:
            for line in pipe:
                if not line.endswith(b"\n"):
                    return  # cut by the kill: it had not been said
                self._lines.append(line)
                self.committed = self.committed or line.startswith(b'["done"')
