"""Campaign 14: other SQLite programs beside a store: looks at what a killed process left, and copies of an open store.

Method: a process writes when told to, so that what it acknowledged is known, and is killed with SIGKILL. Then the
plain shell looks at the file, which moves the -wal into it: the store must open, hold all that was acknowledged, and
say in one audit entry what happened. Where commits were taken away instead, it must be refused as it was before.
Copies of an open store, by .backup, VACUUM INTO, Litestream, and a copy of the main file alone, must be refused and
called copies, stay as they are to the byte, and be taken by accept_copy=True with the commit that they end with.

A case is `KIND-SEED`.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from sqlstate.errors import JournalDamaged, RestoreRejected
from tests.crash.campaign import Plan, Result, campaign, expect, figures, merged, scratch, spread, where
from tests.crash.journals import PAGES_SMALL, Scene
from tests.reference import plain
from tests.support.shell import caught_up, litestream, replicating, shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOKS: Final = (
    ("SELECT count(*) FROM entries",),
    ("PRAGMA wal_checkpoint(TRUNCATE)",),
    ("PRAGMA journal_mode = DELETE",),
    ("CREATE TABLE IF NOT EXISTS theirs (a)", "INSERT INTO theirs VALUES (1)"),
    ("VACUUM",),
)


# ---- Looks ----


def killed(scene: Scene, *, pages: int = 4096) -> tuple[Path, dict[int, str]]:
    """Return a store whose process was killed, and what it had acknowledged."""
    path = scene.place()
    with scene.process(path, pages=pages) as process:
        for _ in range(scene.rng.randrange(1, 4)):
            process.do(scene.some())
            process.do(scene.rng.choice(("small", "stage", "commit 1")))
            if scene.rng.random() < 0.3:
                process.do("close")
                process.do("open")
                process.do("commit 1")
        if scene.rng.random() < 0.3:
            with scene.process(path) as other:
                other.do(scene.some(1, 4))
                process.heads.update(other.heads)
                if scene.rng.random() < 0.5:
                    process.do("commit 1")
                other.kill()
        process.kill()
        return path, dict(process.heads)


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def look(scene: Scene) -> str:
    """The shell looks at it: nothing is missing, and the trail says so once."""
    path, heads = killed(scene, pages=scene.rng.choice((PAGES_SMALL, 4096)))
    if scene.rng.random() < 0.3:
        beside(path, "-shm").unlink(missing_ok=True)
    for _ in range(scene.rng.randrange(1, 3)):
        shell(path, *scene.rng.choice(LOOKS))
    shell(path, "SELECT 1 FROM entries")
    expect(not beside(path, "-wal").exists(), "the shell left the -wal")
    if scene.rng.random() < 0.3:
        sqlstate.open(path, read_only=True).close()
    hold(path, heads, 1)
    return "looked at"


def hold(path: Path, heads: dict[int, str], looks: int) -> None:
    """Open it; all that was acknowledged must be there, and so many entries say that another program was at work."""
    with sqlstate.open(path) as store:
        report: Any = store.recovery
        expect(not report.damage and report.journal.kind == "folded", f"not taken for what it is: {report}")
        chains = {head.seq: head.chain.hex() for head in store.commits()}
        for seq, chain in heads.items():
            expect(not seq or chains.get(seq) == chain, f"LOST: commit {seq} of {max(heads)}")
        entries = [e for e in store.audit() if e.kind == "recovery" and e.detail["journal"]["kind"] == "folded"]
        expect(len(entries) == looks, f"{len(entries)} entries for {looks} looks")
        expect(store.check_audit() == [], "the trail is not sound")
        store["after"]["look"] = 1
    judgement = plain.judge(path, history=2)
    expect(judgement.sound, f"{judgement.findings}")
    expect(not beside(path, "-acknowledged").exists(), "the notes were left beside a closed store")


def look_again(scene: Scene) -> str:
    """It was looked at after each of two deaths, the second right after recovery."""
    path, heads = killed(scene)
    shell(path, "SELECT 1 FROM entries")
    with scene.process(path) as process:
        if scene.rng.random() < 0.5:
            process.do("commit 1")
        process.kill()
        heads.update(process.heads)
    shell(path, "SELECT 1 FROM entries")
    hold(path, heads, 2)
    return "looked at"


def lost(scene: Scene) -> str:
    """The -wal was removed, with or without a look after: refused, unless nothing was missing."""
    path, heads = killed(scene)
    before = shutil.copy(path, path.with_name("alone"))
    seq = int(shell(Path(before), "SELECT coalesce(max(seq), 0) FROM wal"))
    beside(path, "-wal").unlink()
    beside(path, "-shm").unlink(missing_ok=True)
    if scene.rng.random() < 0.5:
        shell(path, "SELECT 1 FROM entries")
    image = path.read_bytes()
    try:
        with sqlstate.open(path) as store:
            expect(store.head().seq >= max(heads), f"SILENT: ends with {store.head().seq}, {max(heads)} acknowledged")
    except JournalDamaged as e:
        expect(e.report.damage == "missing", f"called {e.report.damage!r}: {e}")
        expect(path.read_bytes() == image, "a refused open changed it")
        return "lost, refused"
    expect(seq >= max(heads), f"SILENT: {seq} of {max(heads)}")
    return "nothing lost"


NOTES_SPOILT: Final[tuple[Callable[[Path, random.Random], object], ...]] = (
    lambda file, _: file.unlink(),
    lambda file, rng: os.truncate(file, rng.randrange(0, 128)),
    lambda file, rng: file.write_bytes(rng.randbytes(rng.randrange(200))),
    lambda file, rng: (file.unlink(), file.mkdir()),
    lambda file, rng: (file.rename(file.with_name("elsewhere")), file.symlink_to("elsewhere")),
    lambda file, rng: (file.unlink(), os.mkfifo(file)),
    lambda file, rng: file.write_bytes(file.read_bytes()[:40] + rng.randbytes(16) + file.read_bytes()[56:]),
)


def spoilt(scene: Scene) -> str:
    """The notes cannot be believed: refused as before there were any, and never an error that is not ours."""
    path, heads = killed(scene)
    shell(path, "SELECT 1 FROM entries")
    scene.rng.choice(NOTES_SPOILT)(beside(path, "-acknowledged"), scene.rng)
    try:
        sqlstate.open(path).close()
    except JournalDamaged as e:
        expect(e.report.damage == "missing", f"called {e.report.damage!r}: {e}")
    else:
        expect(False, "notes that cannot be believed were believed")
    with sqlstate.open(path, recover="accept") as store:
        expect(store.head().chain.hex() == heads[max(heads)], "accept lost what was there")
        store["c"]["k"] = 1
    return "notes spoilt, refused"


# ---- Copies ----


def copied(scene: Scene, how: str) -> str:
    """A copy of an open store, made by another program."""
    path = scene.place()
    copy = path.with_name("copy.db")
    with scene.process(path, pages=scene.rng.choice((PAGES_SMALL, 4096))) as process:
        process.do(scene.some())
        if scene.rng.random() < 0.5:
            process.do("stage")
        if how == "litestream":
            with replicating(path, path.with_name("replica")):
                process.do(scene.some())
                made = caught_up(path, path.with_name("replica"), process.newest, path.parent)
                process.kill()
            made.rename(copy)
        elif how == "backup":
            shell(path, f".backup '{copy}'")
        elif how == "vacuum":
            shell(path, f"VACUUM INTO '{copy}'")
        else:
            shutil.copy(path, copy)
        if scene.rng.random() < 0.5 and how != "litestream":
            process.do(scene.some())
            process.kill()
        take(scene, copy, process.heads, whole=how != "cp")
        return f"{how} copies"


def take(scene: Scene, copy: Path, heads: dict[int, str], *, whole: bool) -> None:
    """Refuse a copy as what it is; take it when asked."""
    image = copy.read_bytes()
    for options in ({}, {"read_only": True}, {"recover": "resume"}, {"recover": "refuse"}):
        try:
            sqlstate.open(copy, **options).close()
        except JournalDamaged as e:
            expect(e.report.damage == "copy", f"called {e.report.damage!r}: {e}")
            expect("--accept-copy" in str(e), f"does not say how to take it: {e}")
        else:
            expect(False, f"SILENT: {options} opened a copy")
        expect(copy.read_bytes() == image, f"{options} changed a copy")
    dest = copy.with_name("dest.db")
    try:
        sqlstate.restore(copy, dest)
    except RestoreRejected as e:
        expect("accept_copy" in str(e), f"does not say how to take it: {e}")
    else:
        expect(False, "SILENT: restored a copy that nobody accepted")
    done = sqlstate.restore(copy, dest, accept_copy=True)
    expect(copy.read_bytes() == image, "taking a copy changed it")
    expect(done.copied_open, "the report does not say that it was a copy")
    expect(heads.get(done.head.seq) == done.head.chain.hex(), f"a state that never was: {done.head}")
    with sqlstate.open(dest, recover="resume") as store:
        expect(store.recovery.clean and store.head() == done.head, f"{store.recovery}")
        entry = list(store.audit())[-1]
        expect(entry.kind == "restore" and entry.detail["copied_open"] is True, f"the trail does not say so: {entry}")
    expect(plain.judge(dest, history=2).sound, "what was made of a copy is not sound")
    scene.counts["whole"] += whole


def backup(scene: Scene) -> str:
    return copied(scene, "backup")


def vacuum(scene: Scene) -> str:
    return copied(scene, "vacuum")


def cp(scene: Scene) -> str:
    return copied(scene, "cp")


def replicated(scene: Scene) -> str:
    return copied(scene, "litestream")


# ---- The campaign ----

KINDS: Final[dict[str, Callable[[Scene], str]]] = {
    each.__name__: each for each in (look, look_again, lost, spoilt, backup, vacuum, cp, replicated)
}
# Of ten looks, so many of the others.
SHARES: Final = {"look": 8, "look_again": 2, "lost": 2, "spoilt": 2, "backup": 2.5, "vacuum": 2.5, "cp": 2.5}
LITESTREAM: Final = 4  # it takes seconds: one in so many of the other copies in the short form


def one(case: str) -> Result:
    """Run a case."""
    kind, seed = case.split("-")
    result = Result(runs=1)
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-peeks-", dir=scratch()))
    scene = Scene(folder, int(seed), result)
    try:
        result.counts[KINDS[kind](scene)] += 1
    except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
        result.miss(case, f"{type(e).__name__}: {e}{where(e)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def cases(plan: Plan) -> Iterator[str]:
    """Yield so many looks as the plan counts, and the others in their shares."""
    if plan.case:
        yield plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    for kind, share in SHARES.items():
        for _ in range(round(plan.count * share / 10)):
            yield f"{kind}-{rng.randrange(10**9)}"
    if litestream():
        copies = round(plan.count * SHARES["backup"] / 10)
        for _ in range(copies if plan.long else max(1, copies // LITESTREAM)):
            yield f"replicated-{rng.randrange(10**9)}"


@campaign(14, "other programs: looks and copies", bar="0 lost, 0 false, copies named", ci=20, long=200)
def peeks(plan: Plan) -> Result:
    """Let other SQLite programs look at stores, and copy them."""
    result = merged(spread(plan, one, cases(plan)))
    names = sorted(name for name in result.counts if name not in ("failures", "whole"))
    result.found = f"{result.counts['failures']} bad; {figures(result, *names)}"
    return result
