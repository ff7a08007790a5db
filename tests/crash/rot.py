"""Campaign 8: single bits flipped in the hot -wal that a killed process left.

Method: a process commits, is killed, and leaves a -wal of some hundred frames; nothing is in flight, so every
commit in it was acknowledged. Each run lays the files out anew with one bit of the -wal flipped, with or
without the -shm. No flip may pass: the open raises JournalDamaged, or, where nothing tells the flip from a
commit cut short, reports a torn tail and lacks the last transaction alone.

A case is `STORE-BIT-SHM`: the seed of the store, the number of the bit, 1 if the -shm is there.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import sqlstate
from sqlstate.errors import JournalDamaged
from tests.crash.campaign import Plan, Result, campaign, expect, figures, merged, scratch, spread, where
from tests.crash.processes import Forked, Line, Workload, copy_store
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

FLIPS_OF_A_STORE: Final = 125
CALLED_ROT: Final = ("rot", "header", "truncated")
WAL_HEADER: Final = 32
WAL_FRAME: Final = 24 + 4096
PARTS: Final = ("", "-wal", "-shm", "-journal")

# ---- A process that commits when told to ----


def obeys(line: Line, load: Workload, seed: int) -> None:
    """Open the store, and do what is told: `commit N`, `small`, `stage`, `close`, `open`; say each new head."""
    load.apply()
    rng = random.Random(seed)  # noqa: S311, no secret
    store = sqlstate.open(load.path, journal=load.journal, timeout=30)  # type: ignore[arg-type]
    line.say(*_head(store))
    while command := line.hear():
        what, *rest = command.split()
        try:
            if what == "commit":
                for _ in range(int(rest[0])):
                    _commit(store, rng)
                    line.say(*_head(store))
            elif what == "small":
                store["small"][rng.randrange(50)] = rng.random()
            elif what == "stage":
                draft: Any = store.stage(note="left")
                draft.put("drafts", f"{draft.txn}", "x" * 200)
            elif what == "close":
                store.close()
            elif what == "open":
                store = sqlstate.open(load.path, journal=load.journal, timeout=30)  # type: ignore[arg-type]
            line.say("did", *(_head(store) if what != "close" else ()))
        except sqlstate.StoreError as e:
            line.say("refused", type(e).__name__, str(e))


def _head(store: sqlstate.Store) -> tuple[int, str]:
    head = store.head()
    return head.seq, head.chain.hex()


def _commit(store: sqlstate.Store, rng: random.Random) -> None:
    with store.transaction() as txn:
        txn.put("n", "n", txn.get("n", "n", 0) + 1)
        for _ in range(rng.choice((0, 1, 2, 3, 20))):
            key = rng.randrange(300)
            if rng.random() < 0.2:
                txn.delete("data", key)
            else:
                txn.put("data", key, "z" * rng.randrange(500))


class Obedient:
    """The process that obeys, and the heads it has acknowledged."""

    def __init__(self, path: Path, seed: int, *, journal: str = "wal", pages: int = 4096) -> None:
        self.heads: dict[int, str] = {}
        self.refusal: tuple[str, str] | None = None
        self._lines: list[Any] = []
        self._child = Forked(obeys, Workload(str(path), journal, pages), seed)
        self._note(self._next())

    def do(self, command: str) -> None:
        """Give a command, and wait until it is done or refused."""
        self._child.tell(command)
        while True:
            said = self._next()
            if said[0] == "refused":
                self.refusal = said[1], said[2]
                return
            if said[0] == "did":
                if len(said) > 1:
                    self._note(said[1:])
                return
            self._note(said)

    def kill(self) -> None:
        """Kill it; nothing is in flight."""
        self._child.kill()
        self._child.ends()

    @property
    def newest(self) -> int:
        """The newest acknowledged commit."""
        return max(self.heads, default=0)

    def _next(self) -> Any:
        while not self._lines:
            self._lines = self._child.heard()
            expect(self._lines, "the writing process ended by itself")
        return self._lines.pop(0)

    def _note(self, head: Any) -> None:
        self.heads[head[0]] = head[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.status is None:
            self.kill()


# ---- Files in memory ----


@dataclass
class Files:
    """A store and what lies beside it, by suffix, and the states that were once committed."""

    parts: dict[str, bytes]
    heads: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, heads: dict[int, str]) -> Files:
        """Read what lies there; nobody has it open in this process."""
        names = {suffix: path.with_name(path.name + suffix) for suffix in PARTS}
        return cls({suffix: file.read_bytes() for suffix, file in names.items() if file.exists()}, dict(heads))

    def but(self, **parts: bytes | None) -> Files:
        """Return these files with others in place of some, or without them: `wal=None`, `main=...`."""
        changed = {("" if name == "main" else f"-{name}"): part for name, part in parts.items()}
        merged_parts = {**self.parts, **changed}
        return Files({suffix: part for suffix, part in merged_parts.items() if part is not None}, self.heads)

    def lay(self, folder: Path) -> Path:
        """Write them into *folder*, which is emptied first."""
        for entry in os.scandir(folder):
            os.unlink(entry)
        for suffix, part in self.parts.items():
            (folder / f"store.db{suffix}").write_bytes(part)
        return folder / "store.db"

    @property
    def newest(self) -> int:
        """The newest acknowledged commit."""
        return max(self.heads, default=0)


def live(wal: bytes) -> int:
    """Return how many bytes of a -wal are of its newest generation; what comes after waits to be written over."""
    at = WAL_HEADER
    while wal[at + 8 : at + 16] == wal[16:24] and at + WAL_FRAME <= len(wal):
        at += WAL_FRAME
    return at


def unchanged(path: Path, files: Files, evidence: tuple[str, ...]) -> None:
    """Check that only copies of the evidence were added to the folder, and that they are what they say."""
    for suffix in ("", "-wal", "-journal"):
        file = path.with_name(path.name + suffix)
        there = file.read_bytes() if file.exists() else None
        expect(there == files.parts.get(suffix), f"a refused open changed {file.name}")
    kept = {Path(each).name for each in evidence}
    known = {f"{path.name}{suffix}" for suffix in PARTS}
    others = {entry.name for entry in os.scandir(path.parent)} - known
    expect(others == kept, f"the evidence is {sorted(kept)}, and there are {sorted(others)}")
    for name in kept:
        same = (path.parent / name).read_bytes() == files.parts.get("-wal")
        expect(same, f"the evidence {name} is not the -wal")


def accepted(path: Path, files: Files) -> Any:
    """Open with recover="accept"; the store must be sound, and a state that was once committed. Return the report."""
    with sqlstate.open(path, recover="accept") as store:
        report: Any = store.recovery
        head = store.head()
        expect(files.heads.get(head.seq) == head.chain.hex(), f"accept made a state that never was: {head}, {report}")
        entries = list(store.audit())
        expect(
            entries[-1].number == report.entry and entries[-1].kind == "recovery",
            f"accept is not in the audit: {report}",
        )
        expect(entries[-1].detail.get("damage") == report.damage != "", f"the entry does not say what: {entries[-1]}")
        expect(store.check_audit() == [], "the audit is not sound after accept")
        store["after"]["accept"] = 1
    judgement = plain.judge(path, history=2)
    expect(judgement.sound and judgement.seq == head.seq + 1, f"after accept: {judgement.findings}")
    return report


# ---- Flips ----


def hot_store(seed: int, folder: Path) -> Files:
    """Return the files that a killed process left, with a -wal that no checkpoint has emptied."""
    rng = random.Random(seed)  # noqa: S311, no secret
    path = folder / "store.db"
    with Obedient(path, seed) as process:
        if rng.random() < 0.5:  # a main file that already holds something
            process.do(f"commit {rng.randrange(5, 30)}")
            process.do("close")
            process.do("open")
        for _ in range(4):
            process.do(f"commit {rng.randrange(10, 30)}")
            process.do("stage")
        process.do("small")
        process.kill()
        return Files.read(copy_store(path, folder / "aside"), process.heads)


def one_flip(files: Files, bit: int, folder: Path) -> str:
    """Flip a bit of the -wal and open; return what the flip was called."""
    wal = bytearray(files.parts["-wal"])
    wal[bit // 8] ^= 1 << bit % 8
    flipped = files.but(wal=bytes(wal))
    path = flipped.lay(folder)
    try:
        store = sqlstate.open(path)
    except JournalDamaged as e:
        unchanged(path, flipped, e.evidence)
        damage = str(e.report.damage)
        expect(damage in CALLED_ROT, f"called {damage!r}")
        if bit % 4 == 0:
            expect(accepted(path, files).damage == damage, "accept calls it something else")
        return damage
    with store:
        report: Any = store.recovery
        head = store.head()
        expect(not report.clean, f"passed as clean: {report}")
        journal = report.journal
        expect(journal.torn_bytes or journal.frames > journal.valid, f"no torn tail in {report}")
        expect(not journal.rot, f"went on although it saw rot: {report}")
        expect(files.heads.get(head.seq) == head.chain.hex(), f"a state that never was: {head}")
        expect(head.seq >= files.newest - 1, f"LOST in silence: head is {head.seq}, {files.newest} acknowledged")
    return "torn tail"


def flips(item: tuple[int, int, str]) -> Result:
    """Flip *count* bits of the store with *seed*; of a case, that bit alone."""
    seed, count, case = item
    result = Result()
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-rot-", dir=scratch()))
    try:
        (folder / "made").mkdir()
        (folder / "laid").mkdir()
        files = hot_store(seed, folder / "made")
        without = files.but(shm=None)
        rng = random.Random(seed)  # noqa: S311, no secret
        size = live(files.parts["-wal"]) * 8
        todo = [(rng.randrange(size), rng.random() < 0.5) for _ in range(count)]
        if case:
            todo = [(int(case.split("-")[1]), case.endswith("1"))]
        for bit, shm in todo:
            result.runs += 1
            try:
                called = one_flip(files if shm else without, bit, folder / "laid")
            except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
                result.miss(f"{seed}-{bit}-{int(shm)}", f"{type(e).__name__}: {e}{where(e)}")
            else:
                result.counts[called] += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def stores(plan: Plan) -> Iterator[tuple[int, int, str]]:
    """Yield the stores of a plan: seed, how many flips, and the case to replay."""
    if plan.case:
        yield int(plan.case.split("-")[0]), 1, plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    for done in range(0, plan.count, FLIPS_OF_A_STORE):
        yield rng.randrange(10**9), min(FLIPS_OF_A_STORE, plan.count - done), ""


@campaign(8, "bit flips in a hot -wal", bar="none clean, >= 98 % called rot", ci=500, long=20_000)
def rot(plan: Plan) -> Result:
    """Flip bits in the -wal that a killed process left."""
    result = merged(spread(plan, flips, stores(plan)))
    called = sum(result.counts[name] for name in CALLED_ROT)
    share = called / max(result.runs, 1)
    result.found = f"{share:.1%} rot; {figures(result, *CALLED_ROT, 'torn tail')}"
    if share < 0.98 and not plan.case:
        result.miss("", f"only {share:.1%} were called rot")
    return result
