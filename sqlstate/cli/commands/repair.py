"""The verb that repairs a damaged store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sqlstate.cli.exits import Exit
from sqlstate.cli.options import Settings, common, file_argument, progress
from sqlstate.cli.output import key_cell, printable, write_object
from sqlstate.maintenance.repair.repair import repair as repair_store

if TYPE_CHECKING:
    from sqlstate.maintenance.repair.report import RepairReport

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
