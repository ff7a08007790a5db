"""Verbs for what a store is and was: head, log, stats."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import click

from sqlstate.cli.exits import Exit
from sqlstate.cli.options import Settings, common, file_argument, limit_option
from sqlstate.cli.output import Column, key_cell, printable, value_cell, write_object
from sqlstate.cli.transfer.exported import key_text, value_text
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import Leaf
from sqlstate.format.records import Head, Kind, Record, logged

if TYPE_CHECKING:
    from collections.abc import Generator


@click.command(short_help="Print the newest commit.")
@file_argument
@common
@click.pass_obj
def head(settings: Settings, /, *, file: str) -> int:
    """Print the newest commit: number, root, the chain's digest, count of entries, time."""
    with settings.read(file) as store:
        write_object(_head_facts(store.head()), settings.object_form)
    return Exit.OK


def _head_facts(head: Head) -> dict[str, Any]:
    return {
        "seq": head.seq,
        "root": head.root.hex(),
        "chain": head.chain.hex(),
        "count": head.count,
        "at": head.at,
    }


@click.command(short_help="Print the write-ahead log, or the commits.")
@file_argument
@click.option("--commits", is_flag=True, help="Print commits instead of records.")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Only records with a greater LSN; with --commits, commits with a greater number.",
)
@limit_option
@common
@click.pass_obj
def log(settings: Settings, /, *, file: str, commits: bool, after: int, limit: int | None) -> int:
    """Print the records of the write-ahead log in their order.

    A field that a record does not have is left out; what each means stands in the file format's section 3.4.
    Values have the form of export.
    """
    with settings.read(file) as store:
        if commits:
            with closing(cast("Generator[Head]", store.commits(after + 1 if after else None))) as heads:
                settings.show(heads, _commit_line, _COMMIT_COLUMNS, _commit_cells, limit=limit, none="no commits")
        else:
            with closing(cast("Generator[Record]", store.wal.read(after))) as records:
                settings.show(records, _record_line, _RECORD_COLUMNS, _record_cells, limit=limit, none="no records")
    return Exit.OK


_COMMIT_COLUMNS = [Column("SEQ", right=True), Column("AT"), Column("ENTRIES", right=True), Column("ROOT")]
_RECORD_COLUMNS = [
    Column("LSN", right=True),
    Column("TXN", right=True),
    Column("KIND"),
    Column("COLLECTION", long=True),
    Column("KEY", long=True),
    Column("WHAT"),
]


def _commit_line(head: Head) -> str:
    return json.dumps(_head_facts(head), separators=(",", ":"))


def _commit_cells(head: Head) -> tuple[str, ...]:
    return str(head.seq), head.at, str(head.count), head.root.hex()


def _record_line(record: Record) -> str:
    before, stored = logged(record.before, record.value, record.digests)
    record = record._replace(before=before, value=stored)
    parts = [f'"lsn":{record.lsn}', f'"txn":{record.txn}', f'"kind":"{record.kind}"']
    for name in Record._fields[3:]:
        value = getattr(record, name)
        if value is None:
            continue
        if name in ("value", "before"):
            text = f'{{"digest":"{value.hex()}"}}' if type(value) is Leaf else value_text(value)
        elif name in ("session", "root", "chain", "records"):
            text = f'"{value.hex()}"'
        else:
            text = key_text(value)
        parts.append(f'"{name}":{text}')
    return f"{{{','.join(parts)}}}"


def _record_cells(record: Record) -> tuple[str, ...]:
    place = (
        str(record.lsn),
        str(record.txn),
        str(record.kind),
        "" if record.collection is None else key_cell(record.collection),
        "" if record.key is None else key_cell(record.key),
    )
    if record.kind is Kind.PUT and record.value is not None:
        is_digest = (record.digests or 0) & fmt.VALUE_DIGEST
        return *place, "(redacted)" if is_digest else value_cell(record.value)
    if record.kind is Kind.COMMIT:
        return *place, f"seq {record.seq}" + (f", {record.count} entries, {record.at}" if record.at else "")
    return *place, printable(" ".join(filter(None, (record.at, record.note))))


@click.command(short_help="Print sizes and settings.")
@file_argument
@common
@click.pass_obj
def stats(settings: Settings, /, *, file: str) -> int:
    """Print sizes and settings, and how many bytes of the file are what. Reads every page of it."""
    with settings.read(file) as store:
        found = asdict(store.stats())
        found |= {f"{name}_bytes": size for name, size in store.sizes()._asdict().items()}
    del found["counters"]  # of a handle that has just been opened
    write_object(found, settings.object_form)
    return Exit.OK
