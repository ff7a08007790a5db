"""The verb that checks a store whole."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import click

from sqlstate.cli.commands.proving import read_head
from sqlstate.cli.exits import Exit
from sqlstate.cli.options import Settings, common, counted, file_argument, progress
from sqlstate.cli.output import printable, write_line, write_object

if TYPE_CHECKING:
    from sqlstate.headlog import SignedHead
    from sqlstate.maintenance.check.check import CheckReport, Level

_EXITS = {"sound": Exit.OK, "damaged": Exit.DAMAGED, "unknown": Exit.CANNOT_OPEN}
_OUTCOMES = {
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
    return _EXITS[report.outcome]


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
    cells = {"outcome": _OUTCOMES[report.outcome]}
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
