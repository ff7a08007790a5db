"""The verb drill: kill writers at random, and see that nothing is lost."""

from __future__ import annotations

import csv
import secrets
import shutil
import signal
import statistics
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sqlstate.cli.drill.report import WRITERS_MAX, DrillReport, Plan
from sqlstate.cli.drill.run import IMAGES, Drill
from sqlstate.cli.exits import Exit
from sqlstate.cli.options import Settings, common, progress
from sqlstate.cli.output import printable, write_object
from sqlstate.cli.transfer.forms import LINE_BYTES_MAX, Source
from sqlstate.cli.transfer.import_export import check_sources, import_sources
from sqlstate.cli.transfer.reading import Reading
from sqlstate.files import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.store.store import Store

# With many writers, one can wait long for its turn.
_TIMEOUT: Final = 60.0
# Seconds between lines where no terminal shows a bar.
_LINE_EVERY: Final = 2.0
_FINDINGS_SHOWN: Final = 10


@click.command(short_help="Kill writers at random, and see that nothing is lost.")
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How often.")
@click.option(
    "--writers",
    type=click.IntRange(1, WRITERS_MAX),
    default=2,
    show_default=True,
    metavar="N",
    help="How many write at once.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, writable=True),
    metavar="D",
    help="Make the store drill.db in D, and leave it there. Otherwise it is made in a temporary folder on this "
    "disk, and removed.",
)
@click.option(
    "--from",
    "source",
    multiple=True,
    type=click.Path(readable=False),
    metavar="FILE",
    help="Import FILE first: .json, .jsonl or .csv. Can be given several times.",
)
@click.option("--key", multiple=True, metavar="FIELD", help="As for import.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Make the choices of an earlier drill again.")
@click.option(
    "--journal",
    type=click.Choice(["wal", "delete"]),
    default="wal",
    show_default=True,
    help="How SQLite keeps transactions atomic.",
)
@common
@click.pass_obj
def drill(settings: Settings, /, *, folder: str | None, source: tuple[str, ...], **given: Any) -> int:
    """Start real writers, kill them with SIGKILL at random moments, and look for what they were promised.

    The writers move amounts between accounts, edit documents and keep drafts, and say when a commit of theirs
    returned. After each kill, of one writer or of all, the store is opened again, and compared with what they
    said: every commit, the sum of the accounts, the root of all entries, the chain, the drafts and the audit
    trail. A commit that had not returned is in doubt: it may be there, whole, or not at all.

    Exit code 1 if anything was lost or wrong; then the store is kept.
    """
    seed = secrets.randbelow(1 << 32) if given["seed"] is None else given["seed"]
    plan = Plan(given["kills"], given["writers"], seed, given["journal"], max(settings.timeout, _TIMEOUT))
    how = Reading(key=given["key"])
    sources = [Source(name) for name in source]
    check_sources(sources, how)  # before a store is made for nothing
    csv.field_size_limit(LINE_BYTES_MAX)
    place = Path(folder or tempfile.mkdtemp(prefix="sqlstate-drill-", dir=".")).absolute()
    kept = folder is not None
    try:
        with _stopping() as stopped, _shown(settings, plan) as shown:

            def load(store: Store) -> None:
                def going_on(*_: object) -> None:
                    if stopped():
                        raise KeyboardInterrupt

                if sources:
                    import_sources(store, sources, how, progress=going_on)

            report = Drill(place, plan, load=load, progress=shown, stopped=stopped).run()
        kept = kept or bool(report.findings)
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)
    _print_report(settings, plan, report)
    if report.findings:
        _tell(report, place, _again(plan, source, given["key"]))
        return Exit.NO
    return Exit.INTERRUPTED if report.interrupted else Exit.OK


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Give a function that returns True once the drill is to stop: after Ctrl-C, or a signal that ends programs.

    A signal alone would raise an exception anywhere, also between the start of a writer and our noting it.
    """
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        asked.append(number)
        if len(asked) > 2:
            raise KeyboardInterrupt  # the third time: the drill is stuck, or the user is in a hurry

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in system.ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _shown(settings: Settings, plan: Plan) -> Iterator[Callable[[DrillReport], None]]:
    """Give what shows how far the drill is: a bar on a terminal, a line now and then elsewhere."""
    said = time.monotonic()

    def show(report: DrillReport) -> None:
        nonlocal said
        if bar is not None:
            bar(report.kills, plan.kills)
        elif time.monotonic() - said >= _LINE_EVERY:
            said = time.monotonic()
            settings.say(f"{report.kills:,} of {plan.kills:,} kills; {_news(report)}")

    with progress(settings, "drill") as bar:
        yield show


def _news(report: DrillReport) -> str:
    return f"{report.acknowledged:,} commits acknowledged, {report.lost:,} lost"


def _print_report(settings: Settings, plan: Plan, report: DrillReport) -> None:
    form = settings.object_form
    median = statistics.median(report.seconds) if report.seconds else None
    longest = max(report.seconds, default=None)
    if form == "table":
        write_object(_cells(plan, report, median, longest), form)
        return
    facts: dict[str, Any] = {
        "kills": report.kills,
        "processes": report.processes,
        "acknowledged": report.acknowledged,
        "lost": report.lost,
        "in_doubt": {"there": report.in_doubt_there, "not_there": report.in_doubt_gone},
        "drafts_rolled_back": report.rolled_back,
        "frames_recovered": report.frames,
        "recovery_seconds": {"median": median, "max": longest},
        "entries": report.entries,
        "seq": report.seq,
        "root": report.root.hex(),
        "writers": plan.writers,
        "journal": plan.journal,
        "seed": plan.seed,
        "interrupted": report.interrupted,
        "findings": report.findings,
    }
    write_object(facts, form)


def _cells(plan: Plan, report: DrillReport, median: float | None, longest: float | None) -> dict[str, str]:
    """Return the closing table."""
    unit = "frames recovered" if plan.journal == "wal" else "pages restored"
    times = "-" if median is None or longest is None else f"{median * 1000:.1f} ms median, {longest * 1000:.1f} ms max"
    interrupted = f" of {plan.kills:,}, interrupted" if report.interrupted else ""
    return {
        "kills": f"{report.kills:,}{interrupted}",
        "processes started": f"{report.processes:,}",
        "commits acknowledged": f"{report.acknowledged:,}",
        "lost": f"{report.lost:,}",
        "in doubt": f"{report.in_doubt_there:,} there, {report.in_doubt_gone:,} not there",
        "drafts rolled back": f"{report.rolled_back:,}",
        unit: f"{report.frames:,}",
        "recovery time": times,
        "entries": f"{report.entries:,}",
        "head": f"commit {report.seq}, root {report.root.hex() or '-'}",
        "seed": str(plan.seed),
    }


def _again(plan: Plan, sources: tuple[str, ...], keys: tuple[str, ...]) -> str:
    """Return the command that makes the same choices."""
    words = ["sqlstate", "drill", "--kills", str(plan.kills), "--writers", str(plan.writers)]
    words += ["--journal", plan.journal, "--seed", str(plan.seed)]
    words += [word for name in sources for word in ("--from", name)]
    words += [word for name in keys for word in ("--key", name)]
    return system.command_line(words)


def _tell(report: DrillReport, place: Path, command: str) -> None:
    """Say what was lost or wrong: also with --quiet."""
    for finding in report.findings[:_FINDINGS_SHOWN]:
        click.echo(f"kill {report.kills}: {printable(finding)}", err=True)
    if len(report.findings) > _FINDINGS_SHOWN:
        click.echo(f"and {len(report.findings) - _FINDINGS_SHOWN:,} findings more", err=True)
    images = f"; {IMAGES} holds its files as the newest kill of all writers left them"
    click.echo(
        f"the store is kept in {place}{images if (place / IMAGES).exists() else ''}\n"
        f"the same choices again, if not the same moments: {command}",
        err=True,
    )
