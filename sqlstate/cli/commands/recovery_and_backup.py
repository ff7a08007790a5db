"""Verbs that keep a store sound and small: recover, audit, backup, restore, compact."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import click

import sqlstate
from sqlstate.cli.exits import Exit
from sqlstate.cli.options import Settings, common, counted, file_argument, limit_option, progress
from sqlstate.cli.output import Column, printable, write_line, write_object
from sqlstate.cli.transfer.exported import quoted
from sqlstate.errors import JournalDamaged, RecoveryDue

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from sqlstate.maintenance.backup.backup import BackupReport
    from sqlstate.recovery.report import RecoveryReport
    from sqlstate.tables.audit import AuditEntry


@click.command(short_help="Recover, and say what was found.")
@file_argument
@click.option(
    "--how",
    type=click.Choice(["rollback", "resume", "refuse", "accept"]),
    default="rollback",
    show_default=True,
    help="What to do; see above.",
)
@common
@click.pass_obj
def recover(settings: Settings, /, *, file: str, how: str) -> int:
    """Open a store, recover if the last close was not clean, and print the report.

    \b
    rollback  recover, and roll back staged transactions that the dead left
    resume    recover, and leave those to a program that goes on with them
    refuse    only look, and touch nothing: exit code 5 if recovery is due
    accept    recover even if SQLite's journal is damaged, with what can be
              proven; in each other case damage is told with exit code 3

    The report is printed in each of these cases. Every verb that writes recovers as rollback does.
    """  # noqa: D301, the backslash is click's mark for text that keeps its lines
    try:
        opened = sqlstate.open(file, create=False, timeout=settings.timeout, recover=cast("Any", how))
        with settings.closing(opened) as store:
            report = store.recovery
    except (JournalDamaged, RecoveryDue) as e:
        _print_report(settings, e.report)
        raise
    _print_report(settings, report)
    return Exit.OK


def _print_report(settings: Settings, report: RecoveryReport) -> None:
    form = settings.object_form
    write_object(report_cells(report) if form == "table" else report.as_dict(), form)


def report_cells(report: RecoveryReport) -> dict[str, str]:
    """Return the report for people: what there is nothing to say about is left out."""
    close = "others have the store open" if report.shared else "clean" if report.clean else "not clean"
    cells = {
        "last close": close + (", recovery is due" if report.due else ""),
        "damage": report.damage,
        "journal": _journal_text(asdict(report.journal)),
        "rolled back": _staged(report.rolled_back),
        "left to resume": _staged(report.pending),
        "in doubt": "" if report.in_doubt is None else f"commit {report.in_doubt}: there, its caller may not know",
        "files removed": ", ".join(report.removed),
        "put aside": ", ".join(report.evidence),
    }
    for name, head in (("file alone", report.before), ("head", report.after)):
        cells[name] = "" if head is None else f"commit {head.seq}, {counted(head.count)}, root {head.root.hex()}"
    cells["checked"] = report.checked
    cells["audit entry"] = "" if report.entry is None else str(report.entry)
    cells["time"] = f"{report.seconds * 1000:.1f} ms, {report.scan_seconds * 1000:.1f} ms of it to look at the journal"
    cells["SQLite"] = f"{report.sqlite}, {report.verdict}"
    return {name: text for name, text in cells.items() if text}


def _journal_text(journal: Mapping[str, Any]) -> str:
    """Return what was in SQLite's journal, in a few words."""
    if journal["kind"] == "none":
        return "none"
    if journal["kind"] == "folded":
        return "-wal, which another program moved into the file; nothing acknowledged is missing"
    if journal["kind"] == "rollback":
        return f"-journal, {journal['frames']} pages, {journal['committed']} restored"
    parts = [f"-wal, {journal['committed']} of {journal['frames']} frames, {journal['commits']} SQLite commits"]
    parts += [f"{journal[name]} {text}" for name, text in _JOURNAL_EXTRA.items() if journal[name]]
    if journal["sqlite_frames"] is not None:
        parts.append(f"SQLite counts {journal['sqlite_frames']}")
    return ", ".join(parts)


_JOURNAL_EXTRA = {
    "uncommitted": "not committed",
    "torn_bytes": "bytes torn",
    "stale": "of an earlier round",
    "proved": "sound behind damage",
}


def _staged(numbers: Sequence[int]) -> str:
    """Return staged transactions in words."""
    plural = "s" if len(numbers) > 1 else ""
    return f"staged transaction{plural} {', '.join(map(str, numbers))}" if numbers else ""


@click.command(short_help="Print the audit trail, or check it.")
@file_argument
@click.option("--check", is_flag=True, help="Check the trail instead of printing it; exit code 3 if it is not sound.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="N", help="Only entries with a greater number.")
@limit_option
@common
@click.pass_obj
def audit(settings: Settings, /, *, file: str, check: bool, after: int, limit: int | None) -> int:
    """Print the audit trail: what happened to the store besides commits.

    With --check, read its chain of digests again, and compare what each entry says with the log and with
    the entries before it.
    """
    if check and (after or limit is not None):
        raise click.UsageError("--check reads the whole trail; leave out --after and --limit.")
    with settings.read(file) as store:
        if check:
            return _check_audit(settings, store)
        with closing(cast("Generator[AuditEntry]", store.audit(after))) as entries:
            settings.show(entries, _audit_line, _AUDIT_COLUMNS, _audit_cells, limit=limit, none="no entries")
    return Exit.OK


def _check_audit(settings: Settings, store: sqlstate.Store) -> int:
    findings = store.check_audit()
    if settings.object_form == "json":
        write_object({"sound": not findings, "findings": findings}, "json")
    else:
        for finding in findings or ["sound"]:
            write_line(printable(finding))
    return Exit.DAMAGED if findings else Exit.OK


_AUDIT_COLUMNS = [
    Column("NUMBER", right=True),
    Column("AT"),
    Column("KIND"),
    Column("SEQ", right=True),
    Column("WHAT"),
]


def _audit_line(entry: AuditEntry) -> str:
    detail = json.dumps(entry.detail, ensure_ascii=False, separators=(",", ":"))
    return (
        f'{{"number":{entry.number},"at":{quoted(entry.at)},"kind":{quoted(entry.kind)},"seq":{entry.seq},'
        f'"chain":"{entry.chain.hex()}","detail":{detail},"digest":"{entry.digest.hex()}"}}'
    )


def _audit_cells(entry: AuditEntry) -> tuple[str, ...]:
    return str(entry.number), entry.at, entry.kind, str(entry.seq), printable(event_text(entry)).replace("\n", " ")


def event_text(entry: AuditEntry) -> str:
    """Return an entry's detail in one line."""
    detail = entry.detail
    try:
        if entry.kind == "recovery":
            return _recovery_text(detail)
        if entry.kind == "migration":
            return str(detail["name"])
        if entry.kind == "setting":
            return f"index for histories {'made' if detail['history_index'] else 'removed'}"
        if entry.kind in ("backup", "restore"):
            opened = ", copied while it was open" if detail.get("copied_open") else ""
            return f"{detail['file']}, commit {detail['seq']}, {detail['bytes']:,} bytes{opened}"
        if entry.kind == "compact":
            return f"{detail['before']:,} bytes before, {detail['after']:,} bytes after"
    except (KeyError, TypeError, ValueError):
        pass  # of another version
    return ", ".join(f"{name} {value}" for name, value in detail.items())


def _recovery_text(detail: Mapping[str, Any]) -> str:
    if "resumed" in detail:
        return f"{_staged(detail['resumed'])} resumed"
    parts = [f"damage accepted: {detail['damage']}"] if detail["damage"] else []
    named = {"rolled back": detail["rolled_back"], "left": detail["pending"]}
    parts += [f"{_staged(numbers)} {text}" for text, numbers in named.items() if numbers]
    if detail["in_doubt"] is not None:
        parts.append(f"commit {detail['in_doubt']} in doubt")
    parts += [f"{name} removed" for name in detail["removed"]]
    parts += [f"{name} put aside" for name in detail["evidence"]]
    if not detail["clean"] and not detail["shared"]:
        parts.append(_journal_text(detail["journal"]))
    return "; ".join(parts)


@click.command(short_help="Copy a store into one file, while others write.")
@file_argument
@click.argument("dest", type=click.Path(readable=False))
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Keep N backups: DEST, and the older ones as DEST.1, DEST.2, ...",
)
@click.option("--salvage", is_flag=True, help="Copy a damaged store as it is, to DEST.salvage-...")
@common
@click.pass_obj
def backup(settings: Settings, /, *, file: str, dest: str, keep: int, salvage: bool) -> int:
    """Copy the newest commit's state into the file DEST, while others go on writing.

    The copy is checked before it gets its name, as by 'sqlstate check': DEST is complete, durable and sound when
    the program ends, or as it was before. It is one file, and a store like any other.

    A damaged store is refused, with exit code 3, and the older backups stay. With --salvage it is copied as it is,
    unchecked, to a file of its own next to DEST, which replaces no file and which no backup removes.
    """
    if salvage:
        if keep:
            raise click.UsageError("--salvage replaces no backup; leave out --keep.")
        return _salvage(settings, file, dest)
    with settings.write_or_read(file) as store, progress(settings, "backup") as shown:
        done = store.backup(dest, keep=keep, progress=shown)
    _print_copy(settings, done, {"rotated": done.rotated, "removed": done.removed})
    return Exit.OK


def _salvage(settings: Settings, file: str, dest: str) -> int:
    with settings.read(file) as store, progress(settings, "salvage") as shown:
        path = store.salvage(dest, progress=shown)
    size = path.stat().st_size
    if settings.asked:
        write_object({"path": str(path), "bytes": size}, "json")
    settings.say(f"copied as it is, {size:,} bytes; 'sqlstate check {path}' says what is wrong with it")
    return Exit.OK


@click.command(short_help="Put a backup in a store's place.")
@click.argument("source", type=click.Path(readable=False))
@click.argument("dest", type=click.Path(readable=False))
@click.option("--replace", is_flag=True, help="Replace the store that is there.")
@click.option("--accept-copy", is_flag=True, help="Take a copy of a store that was open, with what it holds.")
@common
@click.pass_obj
def restore(settings: Settings, /, *, source: str, dest: str, replace: bool, accept_copy: bool) -> int:
    """Put a copy of the backup SOURCE at DEST.

    A SOURCE that is damaged, or that others have open, is refused. DEST is complete, durable and sound when
    the program ends, or as it was before.

    A SOURCE that a backup tool copied while the store was open, Litestream say, is taken with --accept-copy:
    all of it is checked, and the commit that it ends with is printed. Commits after that are not in it.
    """
    with progress(settings, "restore") as shown:
        done = sqlstate.restore(source, dest, replace=replace, accept_copy=accept_copy, progress=shown)
    _print_copy(settings, done, {"copied_open": done.copied_open})
    if done.copied_open:
        settings.say(f"the store was open when it was copied: what it committed after {done.head.seq} is not in it")
    return Exit.OK


def _print_copy(settings: Settings, done: BackupReport, more: Mapping[str, Any]) -> None:
    if settings.asked:
        head = done.head
        facts = {"path": str(done.path), "entries": head.count, "bytes": done.bytes}
        write_object({**facts, "seq": head.seq, "root": head.root.hex(), **more}, "json")
    settings.say(f"{counted(done.head.count)} of commit {done.head.seq} written, {done.bytes:,} bytes")


@click.command(short_help="Give free space back, while others read.")
@file_argument
@common
@click.pass_obj
def compact(settings: Settings, /, *, file: str) -> int:
    """Write the file again without free space, so that it shrinks. Entries, log and root stay as they are.

    Others go on reading, and writers wait. A crash, or a full disk, leaves the file as it was or compacted. Meanwhile
    room is needed twice for what the file holds: in a temporary file of SQLite's, in the folder that SQLITE_TMPDIR
    names or /var/tmp, and next to FILE.
    """
    with settings.write(file, create=False) as store, progress(settings, "compact") as shown:
        done = store.compact(shown)
    if settings.asked:
        write_object(asdict(done), "json")
    settings.say(f"{done.bytes_before:,} bytes before, {done.bytes_after:,} bytes after")
    if not done.shrunk:
        settings.say("somebody reads an older commit: the file shrinks at a checkpoint after that, or when closed")
    return Exit.OK
