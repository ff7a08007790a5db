"""Verbs that read a whole store again: check, and repair, which mends what a check finds."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import click

from sqlstate.cli.commands.proving import read_head
from sqlstate.cli.exits import Exit
from sqlstate.cli.options import Settings, common, counted, file_argument, progress
from sqlstate.cli.output import key_cell, printable, write_line, write_object
from sqlstate.maintenance.repair.repair import repair as repair_store

if TYPE_CHECKING:
    from sqlstate.headlog import SignedHead
    from sqlstate.maintenance.check.check import CheckReport, Level
    from sqlstate.maintenance.repair.report import RepairReport

EXITS = {"sound": Exit.OK, "damaged": Exit.DAMAGED, "unknown": Exit.CANNOT_OPEN}
OUTCOMES = {
    "sound": "sound",
    "damaged": "DAMAGED",
    "unknown": "cannot tell: something could not be read, and nothing that was read is wrong",
}


@click.command(short_help="Read a store again, and compare all of it.")
@file_argument
@click.option("--quick", is_flag=True, help="Only the file's structure, the newest commit and the root.")
@click.option(
    "--replay",
    is_flag=True,
    help="Also make each commit's entries again from the log, and compare the roots. Takes commits times entries.",
)
@click.option(
    "--against",
    type=click.Path(readable=False),
    metavar="HEAD|ROOT",
    help="A signed head, as a file, that the store must go on from; or the root of a commit, 64 hexadecimal digits.",
)
@click.option(
    "--key",
    type=click.Path(readable=False),
    metavar="KEY",
    help="The public key of the signed head, as text or as a file.",
)
@common
@click.pass_obj
def check(settings: Settings, /, *, file: str, quick: bool, replay: bool, against: str | None, key: str | None) -> int:
    """Read every row of a store again, hash it, and compare it with what it must agree with.

    Nothing is changed, and others can go on writing. What is damaged is named, one finding a line: entries, nodes
    of the tree, commits, records, audit entries. Exit code 0: sound; 3: damaged; 5: cannot tell. If the last close
    was not clean, the state is checked that 'sqlstate recover' will find.

    Without --against, a store that was written again as a whole, digests included, counts as sound.
    """
    if quick and replay:
        raise click.UsageError("--quick reads less than all, and --replay more; give one of them.")
    level: Level = "quick" if quick else "replay" if replay else "full"
    trusted = None if against is None else _trusted(against, key)
    if against is None and key is not None:
        raise click.UsageError("--key is the public key of a signed head; give that with --against.")
    with settings.read(file) as store, progress(settings, "check") as shown:
        if store.recovery.due:
            settings.say("the last close was not clean; 'sqlstate recover' recovers")
        report = store.check(level, against=trusted, progress=shown)
    if settings.object_form == "json":
        write_object(report.as_dict(), "json")
    else:
        _print(report)
    return EXITS[report.outcome]


def _trusted(against: str, key: str | None) -> SignedHead | bytes:
    """Return the root, or the signed head once its signature is verified."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", against) and not os.path.lexists(against):
        if key is not None:
            raise click.UsageError("--key is the public key of a signed head; a root has none.")
        return bytes.fromhex(against)
    if key is None:
        raise click.UsageError("A signed head is believed by its public key; give that with --key.")
    return read_head(against, key)


def _print(report: CheckReport) -> None:
    for finding in report.findings:
        write_line(printable(f"{finding.kind}: {finding.what}").replace("\n", " "))
    if report.more:
        write_line(f"and {report.more:,} more")
    cells = {"outcome": OUTCOMES[report.outcome]}
    if report.head is not None:
        cells["head"] = f"commit {report.head.seq}, {counted(report.head.count)}, root {report.head.root.hex()}"
    if report.level != "quick":
        cells["read"] = (
            f"{counted(report.entries)}, {report.nodes:,} nodes, {report.records:,} records of {report.commits:,} "
            f"commits, {report.events:,} audit entries, in {report.seconds:.1f} s"
        )
    if report.foreign:
        cells["not ours"] = ", ".join(report.foreign)
    write_object(cells, "table")


_SHOWN = 20


@click.command(short_help="Repair a damaged store.")
@file_argument
@click.option(
    "--from",
    "source",
    type=click.Path(readable=False),
    metavar="BACKUP",
    help="Take what proves itself from BACKUP too.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@common
@click.pass_obj
def repair(settings: Settings, /, *, file: str, source: str | None, dry_run: bool) -> int:
    """Repair a damaged store that no process has open, and name what stays lost: then the exit code is 3.

    Only what proves itself is put in the place of what is damaged: an entry by the root that the newest commit
    recorded, a record of the log by its commit's chain. It comes from the store's log, and from BACKUP, a backup of
    the same store of any time.

    The damaged file is kept next to the store, as FILE.damaged-...; 'sqlstate check' tells beforehand what is wrong.
    """
    with progress(settings, "repair") as shown:
        done = repair_store(file, source=source, dry_run=dry_run, progress=shown)
    if settings.object_form == "json":
        write_object(done.as_dict() | {"dry_run": dry_run}, "json")
    else:
        write_object(_cells(done, dry_run=dry_run), "table")
    return Exit.OK if done.ok else Exit.DAMAGED


def _cells(done: RepairReport, *, dry_run: bool) -> dict[str, str]:
    """Return the report for people: what there is nothing to say about is left out."""
    repaired = ", ".join(f"{number:,} {_WORDS[name]}" for name, number in done.mended.items() if number)
    lost = [_lost(each) for each in done.lost[:_SHOWN]]
    if len(done.lost) > _SHOWN:
        lost.append(f"and {len(done.lost) - _SHOWN:,} more")
    cells = {
        "before": done.before,
        "would repair" if dry_run else "repaired": repaired or ("" if done.schema else "nothing"),
        "schema": "; ".join(printable(each) for each in done.schema),
        "lost": "; ".join(lost),
        "after": done.after or "",
        "evidence": "" if done.evidence is None else str(done.evidence),
        "audit entry": "" if done.entry is None else str(done.entry),
    }
    return {name: text for name, text in cells.items() if text}


_WORDS = {
    "entries": "entries",
    "removed": "rows removed",
    "nodes": "nodes of the tree",
    "records": "records of the log",
}


def _lost(each: tuple[Any, Any] | str) -> str:
    if isinstance(each, str):
        return printable(each)
    collection, key = each
    shown = key_cell(key) if isinstance(key, int | bytes) or (isinstance(key, str) and key) else repr(key)
    return f"{printable(str(collection))} {printable(shown)}"
