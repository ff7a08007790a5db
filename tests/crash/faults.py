"""Campaign 21: restore, backup, repair and open, with a fault or a kill at each call of the system on their files.

Method: a process that has everything loaded forks; the child waits until strace has it, does one piece of work, and
says what came of it. A clean run tells which calls, by name and count, are on the files. Then one call fails in each
run, once or from then on, or the child is killed at it; or the file system lets files grow no further than so many
bytes, so that a write is short. What the child was told must be true: what is there is the old or the new, whole, and
the one that the error names. Then the same work is done without a fault: nothing may lie beside the files afterwards.

A case is `WORK:CALL:EFFECT:WHEN`, for example `backup-wal:rename:EIO:2` or `restore-wal:grow:SHORT:20000`.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from sqlstate.errors import StoreError
from sqlstate.files.replace import Temporary
from tests.crash.campaign import Plan, Result, campaign, expect, figures, merged, scratch, spread, where
from tests.crash.injected import missing_strace
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALLS: Final = {
    "openat": ("EIO", "ENOSPC", "EMFILE", "EINTR", "KILL"),
    "newfstatat": ("EIO", "KILL"),
    "fstat": ("EIO", "KILL"),
    "statx": ("EIO",),
    "pread64": ("EIO",),
    "read": ("EIO",),
    "pwrite64": ("EIO", "ENOSPC", "EINTR", "KILL"),
    "write": ("EIO", "ENOSPC", "EINTR", "KILL"),
    "fsync": ("EIO", "ENOSPC", "EINTR", "KILL"),
    "fdatasync": ("EIO", "ENOSPC", "KILL"),
    "ftruncate": ("EIO", "ENOSPC", "KILL"),
    "fchmod": ("EIO", "KILL"),
    "fchown": ("EIO", "KILL"),
    "flock": ("EIO", "EINTR", "KILL"),
    "mmap": ("ENOMEM", "KILL"),
    "getdents64": ("EIO", "KILL"),
    "readlink": ("EIO",),
    "rename": ("EIO", "ENOSPC", "EINTR", "KILL"),
    "link": ("EIO", "ENOSPC", "EINTR", "KILL"),
    "unlink": ("EIO", "EINTR", "KILL"),
}
CHANGING: Final = ("rename", "link", "unlink", "fsync", "fdatasync", "pwrite64", "write", "ftruncate", "openat")
ENTRIES: Final = 60
RUN_SECONDS: Final = 60
AS_IT_WAS: Final = re.compile(r"as it was|othing was (written|changed|put)|not certain", re.IGNORECASE)

# ---- The work ----


def prepare(folder: Path, journal: Any) -> None:
    """Make the files that the work begins with: a store, three backups, an older store in another's place."""
    with sqlstate.open(folder / "store.db", journal=journal) as store:
        for number in range(4):
            store["n"].update(dict.fromkeys(range(ENTRIES), f"{number}" * 100))
            if number < 3:
                store.backup(folder / "b", keep=3)
    shutil.copy(folder / "b", folder / "old.db")


def restore(folder: Path) -> None:
    sqlstate.restore(
        folder / "store.db", folder / "new.db", replace=os.path.exists(folder / "new.db")
    )  # Path raises what is injected


def replace(folder: Path) -> None:
    sqlstate.restore(folder / "store.db", folder / "old.db", replace=True)


def backup(folder: Path) -> None:
    with sqlstate.open(folder / "store.db") as store:
        store.backup(folder / "b", keep=3)


def repair(folder: Path) -> None:
    sqlstate.repair(folder / "old.db")


def open_(folder: Path) -> None:
    with sqlstate.open(folder / "store.db") as store:
        store["more"]["k"] = store["more"].get("k", 0) + 1


def damage(folder: Path) -> None:
    """Change an entry that the log still has."""
    with closing(sqlite3.connect(folder / "old.db")) as db, db:
        db.execute("UPDATE state SET value = '7' WHERE key = 5")


def die(folder: Path) -> None:
    """Leave a store as a kill leaves it: commits in SQLite's journal, a draft, a temporary file, a session's file."""

    def live() -> None:
        store = sqlstate.open(folder / "store.db")
        store["n"]["left"] = 1
        store.stage(note="left").put("drafts", 1, "x")
        with store.transaction() as txn:
            txn["n"].update(dict.fromkeys(range(ENTRIES), "y" * 300))
            Temporary(folder / "store.db", store.store_id)
            os.kill(os.getpid(), signal.SIGKILL)

    in_child(live)


def nothing(_: Path) -> None:
    """Begin with what there is."""


WORK: Final[dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]]] = {
    "restore": (nothing, restore, "new.db"),
    "replace": (nothing, replace, "old.db"),
    "backup": (nothing, backup, "b"),
    "repair": (damage, repair, "old.db"),
    "open": (die, open_, "store.db"),
}


# ---- Processes ----


def in_child(work: Callable[[], object], strace: list[str] | None = None, limit: int = 0) -> str:
    """Do *work* in the child of a fork, traced if asked; return what became of it: an error as `KIND: text`."""
    go, told = os.pipe(), socket.socketpair()  # an answer by write() would meet the fault of write()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            os.read(go[0], 1)
            if limit:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            said = "done"
            try:
                work()
            except StoreError as e:
                said = f"{type(e).__name__}: {e}"
            except BaseException as e:  # noqa: BLE001, it must be one of ours
                said = f"FOREIGN {type(e).__name__}: {e}"
            told[1].sendall(json.dumps(said).encode())
        os._exit(0)
    tracer = None
    try:
        os.close(go[0])
        told[1].close()
        if strace is not None:
            tracer = subprocess.Popen([*strace, "-p", str(pid)], stderr=subprocess.DEVNULL)
            _wait_until_traced(pid)
        os.write(go[1], b"g")
        os.close(go[1])
        answer = b""
        while more := told[0].recv(65536):
            answer += more
        told[0].close()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        if tracer is not None:
            tracer.wait(RUN_SECONDS)
    if status == -signal.SIGKILL:
        return "killed"
    expect(status == 0 and answer, f"the child ended with {status}")
    return str(json.loads(answer))


def _wait_until_traced(pid: int) -> None:
    until = time.monotonic() + RUN_SECONDS
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text("utf-8"):
        expect(time.monotonic() < until, "strace did not come")
        time.sleep(0.002)


def traced(calls: str, out: Path) -> list[str]:
    return ["strace", "-qq", "-y", "-e", "signal=none", "-e", f"trace={calls}", "-o", str(out)]


# ---- What is left ----


def heads(folder: Path) -> dict[str, int]:
    """Return the commits of all stores in a folder, by name; each must be sound."""
    found = {}
    for file in sorted(folder.iterdir()):
        if file.suffix == ".db" or re.fullmatch(r"b(\.\d)?", file.name):
            judgement = plain.judge(file)
            expect(judgement.sound, f"{file.name}: {judgement.findings[:2]}")
            found[file.name] = judgement.seq
    return found


def judge(name: str, folder: Path, said: str, before: dict[str, bytes]) -> str:
    """Compare what the child was told with what is there; return what it is called."""
    expect(not said.startswith("FOREIGN"), said)
    target = WORK[name][2]
    now = {file.name: file.read_bytes() for file in folder.iterdir() if file.name in before or file.name == target}
    names = [each for each in (*before, target) if re.fullmatch(rf"{re.escape(target)}(\.\d)?", each)]
    same = all(now.get(each) == before.get(each) for each in names)
    if name == "open":
        return "killed" if said == "killed" else "done" if said == "done" else "told"
    if said == "done":
        expect(not same, "it is said to be done, and is not")
    if said != "done" and not same and name != "backup":
        expect(plain.judge(folder / target).sound, "what is there is neither old nor whole")
    if said not in ("done", "killed") and not same:
        expect("as it was" not in said and "othing was" not in said, f"changed, and told: {said}")
    if name == "backup":
        copies = [content for each, content in now.items() if each in names]
        kept = [each for each in names if before.get(each) in copies]
        expect(target in now, "there is no newest backup")
        expect(len(kept) >= 2, f"older backups are gone: {kept}")
        expect(said in ("done", "killed") or same or len(kept) == 3, f"{kept}: {said}")
    return "killed" if said == "killed" else "done" if said == "done" else "told"


def finish(name: str, folder: Path) -> None:
    """Do the work again without a fault, and see that all is whole and that nothing lies beside it."""
    said = in_child(lambda: WORK[name][1](folder))
    expect(said == "done", f"the next use: {said}")
    found = heads(folder)
    expected = {"store.db", "old.db", "b", "b.1", "b.2"} | {WORK[name][2]}
    there = {file.name for file in folder.iterdir()}
    if name == "repair":  # it keeps the damaged file
        there = {each for each in there if not re.fullmatch(r"old\.db\.damaged-[0-9a-f]{16}", each)}
    expect(there == expected, f"left: {sorted(there - expected)}, missing: {sorted(expected - there)}")
    if name in ("restore", "replace"):
        expect(found[WORK[name][2]] == found["store.db"], "what was restored is not what was to be")
        with sqlstate.open(folder / WORK[name][2], read_only=True) as store:
            expect([each.kind for each in store.audit()][-1] == "restore", "there is no entry of it")
    if name == "backup":
        expect(found["b"] == found["store.db"], "the newest backup is not the newest commit")
        expect(found["b"] >= found["b.1"] >= found["b.2"], f"the backups are out of order: {found}")


# ---- Points ----


@lru_cache(maxsize=16)
def points(work: str) -> tuple[list[tuple[str, int]], int]:
    """Return the calls of a clean run that are on the files, by name and count, and the size of the largest file."""
    name, journal = work.split("-")
    with tempfile.TemporaryDirectory(prefix="sqlstate-faults-", dir=scratch()) as made:
        folder, trace = Path(made) / "f", Path(made) / "trace"
        begin(folder, name, journal)
        said = in_child(lambda: WORK[name][1](folder), traced(",".join(CALLS), trace))
        expect(said == "done", f"{work} by itself: {said}")
        counts: dict[str, int] = {}
        found = []
        for line in trace.read_text("utf-8", "replace").splitlines():
            call = line.split("(")[0]
            counts[call] = counts.get(call, 0) + 1
            if str(folder) in line:
                found.append((call, counts[call]))
        return found, max(file.stat().st_size for file in folder.iterdir())


def begin(folder: Path, name: str, journal: str) -> None:
    """Lay the files of a piece of work into a new folder."""
    first = folder.with_name(f"first-{name}-{journal}")
    if not first.exists():
        first.mkdir()
        prepare(first, journal)
        WORK[name][0](first)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(first, folder)


def cases(plan: Plan) -> Iterator[str]:
    """Yield the cases of a plan: the calls that change names or bytes first, each kind in turn."""
    if plan.case:
        yield plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    works = [f"{name}-{journal}" for name in WORK for journal in ("wal", "delete")]
    if not plan.long:
        works = [rng.choice(works) for _ in range(2)]
    every = []
    for work in works:
        found, size = points(work)
        every += [f"{work}:{call}:{effect}:{at}" for call, at in found for effect in CALLS[call]]
        every += [f"{work}:{call}:EIO:{at}+" for call, at in found if call in CHANGING]
        every += [f"{work}:grow:SHORT:{at}" for at in range(100, size, max(1, size // 40))]
    rng.shuffle(every)
    yield from every[: plan.count]


def one(folder: Path, case: str) -> str:
    """Run a case; return what it is called."""
    work, call, effect, when = case.split(":")
    name, journal = work.split("-")
    begin(folder, name, journal)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    trace = folder.with_name("trace")
    strace, limit = None, 0
    if effect == "SHORT":
        limit = int(when)
    else:
        what = "signal=KILL" if effect == "KILL" else f"error={effect}"
        strace = [*traced(call, trace), "-e", f"inject={call}:{what}:when={when}"]
    said = in_child(lambda: WORK[name][1](folder), strace, limit)
    called = judge(name, folder, said, before)
    finish(name, folder)
    return called


def part(items: list[str]) -> Result:
    """Run some cases in one folder."""
    result = Result()
    made = Path(tempfile.mkdtemp(prefix="sqlstate-faults-", dir=scratch()))
    try:
        for case in items:
            result.runs += 1
            try:
                result.counts[one(made / "f", case)] += 1
            except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
                result.miss(case, f"{type(e).__name__}: {e}{where(e)}")
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return result


@campaign(21, "faults and kills in restore, backup, repair, open", bar="each error true, 0 left", ci=60, long=4_000)
def faults(plan: Plan) -> Result:
    """Let each call of some pieces of work fail."""
    if reason := missing_strace():
        return Result(skipped=reason)
    todo = list(cases(plan))
    each = max(1, min(50, -(-len(todo) // max(1, plan.jobs))))
    result = merged(spread(plan, part, [todo[at : at + each] for at in range(0, len(todo), each)]))
    result.found = f"{result.counts['failures']} bad; {figures(result, 'done', 'told', 'killed')}"
    return result
