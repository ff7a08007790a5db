"""Runs a campaign's work in processes of its own, where a freeze is a failure that names the lines it stands at.

Method: the process says which case it begins and what came of it. Each case has so many seconds; then faulthandler
prints where every thread stands and ends the process, whatever locks are held. A process that ended is replaced by
one that goes on with the next case. What Python prints because nobody can catch it is a failure too: an exception
in a finaliser or at the end of a thread, and anything on stderr.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests import ROOT
from tests.crash import campaign
from tests.crash.campaign import Failure, Plan, Result, merged, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

STDERR_SHOWN: Final = 6000
SERVE: Final = "import sys; from tests.crash.watched import serve; serve(*sys.argv[1:])"

# Exceptions that the work itself throws in: those alone may end in a finaliser or end a thread.
thrown: tuple[type[BaseException], ...] = ()
_uncaught: list[str] = []
_memory: list[Path] = []


def watched(work: Callable[[str], Result], cases: Iterable[str], seconds: float) -> Iterator[Result]:
    """Yield what *work* makes of each case, in processes of its own.

    Args:
        work: a function of a module.
        cases: what it is given, one after the other.
        seconds: after which a case is a freeze.
    """
    left = list(cases)
    while left:
        results = list(_process(work, left, seconds))
        yield from results
        left = left[max(1, len(results)) :]


def spread_watched(
    plan: Plan, work: Callable[[str], Result], cases: Iterable[str], seconds: float, at_once: int = 1
) -> Result:
    """Return the sum of what *work* makes of all cases, in as many processes at once as the plan has.

    Args:
        plan: of the campaign.
        work: a function of a module.
        cases: what it is given.
        seconds: after which a case is a freeze.
        at_once: how many cases one process is given, one after the other.
    """
    every = list(cases)
    parts = [every[i : i + at_once] for i in range(0, len(every), at_once)]
    with ThreadPoolExecutor(max(1, plan.jobs)) as pool:
        return merged(pool.map(lambda part: merged(watched(work, part, seconds)), parts))


def _process(work: Callable[[str], Result], cases: list[str], seconds: float) -> Iterator[Result]:
    """Yield the results that one process came to; the last is of the case that ended it, if one did."""
    command = [sys.executable, "-c", SERVE, work.__module__, work.__name__, str(seconds)]
    with (
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryDirectory(
            prefix="sqlstate-watched-", dir=campaign.scratch(), ignore_cleanup_errors=True
        ) as memory,
        tempfile.TemporaryDirectory(prefix="sqlstate-watched-", ignore_cleanup_errors=True) as disk,
    ):
        process = subprocess.Popen(
            [*command, memory],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": disk},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
        )
        done = 0
        held = Result()
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(cases).encode())
                process.stdin.close()
            for result in _heard(process, seconds):
                if done:
                    yield held
                held = result
                done += 1
            ended = _ends(process, seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        err.seek(0)
        printed = err.read().decode(errors="replace").strip()
    if done == len(cases) and ended == 0 and not printed:
        yield held
        return
    if done < len(cases):
        if done:
            yield held
        held = Result(runs=1)
        done += 1
    what = f"the process ended with {ended} and printed:\n{printed[:STDERR_SHOWN]}"
    held.miss(cases[done - 1], f"{cases[done - 1]}: {what}")
    yield held


def _heard(process: subprocess.Popen[bytes], seconds: float) -> Iterator[Result]:
    """Yield each result that a process says. One that neither speaks nor ends itself is killed."""
    assert process.stdout is not None
    while True:
        belt = threading.Timer(seconds + 30, process.kill)
        belt.start()
        try:
            line = process.stdout.readline()
        finally:
            belt.cancel()
        if not line.endswith(b"\n"):
            return
        runs, counts, failures = json.loads(line)
        yield Result(runs, [Failure(*each) for each in failures], Counter(counts))


def _ends(process: subprocess.Popen[bytes], seconds: float) -> int:
    try:
        return process.wait(seconds + 30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


# ---- Inside the process ----


def uncaught() -> list[str]:
    """Return what was raised where nobody can catch it, and forget it."""
    found = _uncaught[:]
    _uncaught.clear()
    return found


def scratch() -> Path:
    """Return the folder in memory for short-lived stores, which goes when the process does, however it ends."""
    return _memory[0] if _memory else campaign.scratch()


def patience(seconds: float) -> None:
    """From now on, end this process after so many seconds, and print where it stands."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)


def attempted(work: Callable[[str], Result], case: str) -> Result:
    """Return what *work* makes of a case; whatever it raises, and whatever nobody could catch, is a failure."""
    try:
        result = work(case)
    except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
        result = Result(runs=1)
        result.miss(case, f"{case}: {type(e).__name__}: {e}{_where(e)}")
    for each in uncaught():
        result.miss(case, f"{case}: raised where nobody can catch it: {each}")
    return result


def _where(error: BaseException) -> str:
    """Return the lines that lead to an error, and to each of those that a group of tasks ended with."""
    found = where(error)
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        found += f"\n{type(each).__name__}: {each}{_where(each)}"
    return found


def serve(module: str, name: str, seconds: str, memory: str) -> None:
    """Be the process: read the cases, and say what came of each."""
    _memory.append(Path(memory))
    from sqlstate import WalPinned  # noqa: PLC0415, the parent does without

    out = os.dup(1)
    os.dup2(2, 1)
    os.set_inheritable(out, False)
    faulthandler.enable()
    sys.unraisablehook = _note_unraisable
    threading.excepthook = _note_end_of_thread
    # A scan that is kept pins SQLite's WAL, and a fork beside threads is what some of this is about.
    warnings.simplefilter("ignore", WalPinned)
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)
    work = getattr(importlib.import_module(module), name)
    for case in json.load(sys.stdin):
        patience(float(seconds))
        result = attempted(work, case)
        faulthandler.cancel_dump_traceback_later()
        os.write(out, json.dumps((result.runs, result.counts, result.failures)).encode() + b"\n")
    patience(float(seconds))  # the end of the process has its time too


def _note_unraisable(args: Any) -> None:
    # Python's own: a loop of asyncio that was interrupted while it was made, a thread while it was started.
    if any(part in repr(args.object) for part in ("BaseEventLoop.__del__", "Thread._bootstrap")):
        return
    if not (args.exc_type and issubclass(args.exc_type, thrown)):
        text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
        _uncaught.append(f"{args.err_msg or 'ignored'} in {args.object!r}:\n{text}")


def _note_end_of_thread(args: Any) -> None:
    if args.exc_type is not SystemExit and not issubclass(args.exc_type, thrown):
        text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
        _uncaught.append(f"the end of {args.thread}:\n{text}")
