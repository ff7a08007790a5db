"""Campaign 7: real system calls of a real process that fail, or at which it is killed, by strace.

Method: a clean run counts the calls on the file and on what lies beside it. Each run then lets one of them fail,
once or from then on, or kills the process at it. What the process was told is compared with what the next open
finds: a commit whose outcome was unknown must be resolved right, one that was refused must not be there.

A case is `JOURNAL:CALL:SUFFIX:EFFECT:WHEN`, for example `wal:fdatasync:-wal:EIO:5+`.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from tests import ROOT
from tests.crash.campaign import Plan, Result, campaign, expect, figures, merged, scratch, spread, where
from tests.crash.processes import Workload
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS: Final = {
    "pwrite64": ("EIO", "ENOSPC", "KILL"),
    "fdatasync": ("EIO", "KILL"),
    "ftruncate": ("EIO", "KILL"),
    "openat": ("EIO", "EMFILE", "KILL"),
    "unlink": ("EIO", "EACCES", "KILL"),
}
SUFFIXES: Final = ("", "-wal", "-journal")
COMMITS: Final = 14
RUN_SECONDS: Final = 60


def missing_strace() -> str:
    """Return why strace cannot be used here, `""` if it can."""
    strace = shutil.which("strace")
    if strace is None:
        return "there is no strace"
    tried = subprocess.run(
        [*tracing("fdatasync"), "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    return "" if tried.returncode == 0 else f"strace may not trace: {tried.stderr.strip()[:80]}"


def tracing(call: str) -> list[str]:
    return ["strace", "-f", "-qq", "-e", f"trace={call}", "-e", "signal=none"]


# ---- The process ----


def child(path: str, journal: str) -> None:
    """Make commits and drafts, and say before and after each what is tried and what came of it."""
    Workload(path, journal, pages=8, cache=32).apply()
    try:
        store = sqlstate.open(path, journal=journal, timeout=5)  # type: ignore[arg-type]
    except sqlstate.StoreError as e:
        say_error("open", e)
        return
    say("opened")
    try:
        done = store["n"].get("n", 0)
        rng = random.Random(done)  # noqa: S311, no secret
        for number in range(done + 1, done + COMMITS + 1):
            say("try", number)
            attempt(store, rng, number)
            say("done", number)
    except sqlstate.StoreError as e:
        say_error("commit", e)
    try:
        store.close()
        say("closed")
    except sqlstate.StoreError as e:
        say_error("close", e)


def attempt(store: sqlstate.Store, rng: random.Random, number: int) -> None:
    """Make commit *number*, by one of the ways there are."""
    if number % 4 == 0:
        store["n"]["n"] = number
    elif number % 4 == 1:
        with store.stage(note="draft") as draft:
            draft.put("drafts", number, "d" * rng.randrange(300))
            draft.put("n", "n", number)
    else:
        with store.transaction() as txn:
            txn.put("n", "n", number)
            for _ in range(rng.choice((1, 5, 60))):
                txn.put("data", rng.randrange(500), "x" * rng.randrange(600))


def say(*what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def say_error(where_: str, e: sqlstate.StoreError) -> None:
    chain = getattr(e, "chain", b"")
    facts = getattr(e, "seq", 0), chain.hex() if isinstance(chain, bytes) else "", getattr(e, "durable", None)
    say("error", where_, type(e).__name__, str(e), *facts)


def run(path: Path, journal: str, strace: list[str]) -> tuple[list[Any], int]:
    """Run the process, under strace or not; return what it said, and its exit code."""
    command = [*strace, sys.executable, "-m", "tests.crash.injected", str(path), journal]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=RUN_SECONDS, check=False)
    killed = done.returncode in (-9, 137)
    expect(killed or done.returncode == 0, f"the process ended with {done.returncode}:\n{done.stderr.decode()[-2000:]}")
    lines = done.stdout.split(b"\n")[:-1]
    return [json.loads(line) for line in lines], done.returncode


# ---- What is left ----


def judge(path: Path, journal: str, said: list[Any]) -> str:
    """Compare what the process was told with what is there; return what became of the attempt that failed."""
    tried = max((each[1] for each in said if each[0] == "try"), default=0)
    acknowledged = max((each[1] for each in said if each[0] == "done"), default=0)
    errors = {each[1]: each[2:] for each in said if each[0] == "error"}
    with sqlstate.open(path, journal=journal) as store:  # type: ignore[arg-type]
        report: Any = store.recovery
        expect(not report.damage, f"{report}")
        there = [json.loads(str(each.value)) for each in committed_counts(store)]
        expect(there == list(range(1, len(there) + 1)), f"a hole: {there}")
        count = len(there)
        expect(acknowledged <= count, f"LOST: {acknowledged} acknowledged, {count} there")
        expect(count <= max(tried, acknowledged), f"{tried} tried, {count} there")
        outcome = "killed" if said[-1:] and said[-1][0] != "closed" and not errors else "survived"
        if "commit" in errors and tried > acknowledged:
            outcome = resolve(store, errors["commit"], present=count >= tried, failed=tried)
        expect(store.check_audit() == [], "the audit is not sound")
        expect(not store.wal.uncommitted(), "staged work of the dead is left")
    judgement = plain.judge(path, history=2)
    expect(judgement.sound, f"{judgement.findings}")
    return outcome


def committed_counts(store: sqlstate.Store) -> list[Any]:
    """Return the records of committed transactions that raised the counter, in the order of their commits."""
    found: list[Any] = []
    open_: dict[int, list[Any]] = {}
    for record in store.wal.read():
        if record.kind == "PUT" and record.collection == "n":
            open_.setdefault(record.txn, []).append(record)
        elif record.kind == "COMMIT":
            found += open_.pop(record.txn, [])
    return found


def resolve(store: Any, error: list[Any], *, present: bool, failed: int) -> str:
    """Check that the error of an attempt said the truth about it."""
    kind, message, seq, chain, durable = error
    if kind == "CommitOutcomeUnknown":
        unknown = sqlstate.CommitOutcomeUnknown(seq, "injected", bytes.fromhex(chain))
        expect(store.committed(unknown) == present, f"committed() says {not present} of attempt {failed}: {message}")
        return "unknown, there" if present else "unknown, not there"
    if durable is not None:
        expect(present, f"attempt {failed} is not there, although: {message}")
        expect("nothing was changed" not in message, f"it is there, and the message says both: {message}")
        return "durable, checkpoint failed"
    if kind in ("StoreFull", "CannotOpen") or "nothing was changed" in message:
        expect(not present, f"attempt {failed} is there, although: {kind}: {message}")
        return "refused"
    expect(kind == "StoreIOError", f"{kind}: {message}")
    return "error, there" if present else "error, not there"


# ---- Points ----


@lru_cache(maxsize=4)
def points(journal: str) -> Counter[tuple[str, str]]:
    """Count the calls of a clean run, in a new store and in one opened again, by name and suffix of the file."""
    with tempfile.TemporaryDirectory(prefix="sqlstate-points-", dir=scratch()) as folder:
        path, trace = Path(folder) / "store.db", Path(folder) / "trace"
        run(path, journal, [*tracing(",".join(CALLS)), "-y", "-o", str(trace)])
        name = re.escape(str(path))
        found = re.findall(rf"(\w+)\([^\n]*?{name}(-wal|-journal)?[>\"]", trace.read_text("utf-8"))
    return Counter((call, suffix) for call, suffix in found if suffix in SUFFIXES)


def cases(plan: Plan) -> Iterator[str]:
    """Yield the points of a plan: each journal, call, file and effect in turn, at random moments of the run."""
    if plan.case:
        yield plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    kinds = [
        (journal, call, suffix, effect, total)
        for journal in ("wal", "delete")
        for (call, suffix), total in sorted(points(journal).items())
        for effect in CALLS[call]
    ]
    rng.shuffle(kinds)
    for i in range(plan.count):
        journal, call, suffix, effect, total = kinds[i % len(kinds)]
        ever = "+" if effect != "KILL" and rng.random() < 0.5 else ""
        yield f"{journal}:{call}:{suffix}:{effect}:{rng.randrange(1, total + 1)}{ever}"


def one(case: str) -> Result:
    """Run a case."""
    journal, call, suffix, effect, when = case.split(":")
    result = Result(runs=1)
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-injected-", dir=scratch()))
    path, trace = folder / "store.db", folder / "trace"
    what = "signal=KILL" if effect == "KILL" else f"error={effect}"
    inject = ["-P", f"{path}{suffix}", "-e", f"inject={call}:{what}:when={when}", "-o", str(trace)]
    try:
        said, status = run(path, journal, [*tracing(call), *inject])
        hit = "INJECTED" in trace.read_text("utf-8") or status != 0
        result.counts["injected"] += hit
        result.counts[judge(path, journal, said) if hit else "not reached"] += 1
        again, _ = run(path, journal, [])  # the file is one that work can go on with
        expect(again[-1:] == [["closed"]], f"the next run ended with {again[-1:]}")
        judge(path, journal, again)
    except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
        result.miss(case, f"{type(e).__name__}: {e}{where(e)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


@campaign(7, "EIO, ENOSPC and kills injected with strace", bar="0 lost, each outcome told right", ci=50, long=2_000)
def injected(plan: Plan) -> Result:
    """Let system calls fail."""
    if reason := missing_strace():
        return Result(skipped=reason)
    result = merged(spread(plan, one, cases(plan)))
    names = ("injected", "killed", "unknown, there", "unknown, not there", "refused", "durable, checkpoint failed")
    result.found = f"{result.counts['failures']} bad; {figures(result, *names)}"
    return result


if __name__ == "__main__":
    child(*sys.argv[1:])
