"""Verbs that carry entries in and out: import, export."""

from __future__ import annotations

import csv
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from sqlstate.cli.exits import Exit
from sqlstate.cli.options import (
    Settings,
    at_option,
    collection_argument,
    common,
    counted,
    file_argument,
    note_option,
    progress,
)
from sqlstate.cli.output import on_terminal, write, write_json, write_object
from sqlstate.cli.transfer.forms import LINE_BYTES_MAX, Reading, Source
from sqlstate.cli.transfer.import_export import check_sources, export_file, export_lines, import_sources
from sqlstate.errors import InvalidOption
from sqlstate.files.identity import belongs_to

if TYPE_CHECKING:
    from datetime import datetime


@click.command("import", short_help="Import JSON, JSON lines and CSV.")
@file_argument
@click.argument("source", nargs=-1, required=True, type=click.Path(allow_dash=True, readable=False))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "jsonl", "csv"]),
    help="What the sources are; otherwise each name's suffix says it: .json, .jsonl, .ndjson, .csv.",
)
@click.option("--collection", metavar="NAME", help="Where the entries go.")
@click.option(
    "--key",
    multiple=True,
    metavar="FIELD",
    help="The field that holds a record's key. Of several, the first it has.",
)
@click.option("--key-type", type=click.Choice(["str", "int"]), help="Make all keys text, or ints.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="One transaction for every N entries, not one for all.",
)
@click.option("--no-create", is_flag=True, help="Do not make the store if it is not there.")
@note_option
@common
@click.pass_obj
def import_(settings: Settings, /, *, file: str, source: tuple[str, ...], **given: Any) -> int:
    """Import the entries of all SOURCEs, all or nothing. A SOURCE of - is standard input.

    \b
    .json   {"users": {"ada": {...}}}  collections, each an object of entries
            {"users": [{...}, ...]}    or a list of records, with --key
            [{...}, ...]               records, with --collection and --key
            {"ada": {...}}             one collection, with --collection
    .jsonl  what export writes; or records, with --collection and --key
    .csv    a header line and records, with --key; the collection is the
            file's name without suffix, or --collection

    The value of a record is the whole record. Entries that the store has already are left alone, and if it
    has them all, no commit is made. A source that gives a key twice is refused.
    """  # noqa: D301, the backslash is click's mark for text that keeps its lines
    how = Reading(format=given["format_"], collection=given["collection"], key=given["key"], key_type=given["key_type"])
    if source.count("-") > 1:
        raise click.UsageError("Standard input can be read once.")
    sources = [_source(name) for name in source]
    check_sources(sources, how)  # before a store is made for nothing
    csv.field_size_limit(LINE_BYTES_MAX)
    with settings.write(file, create=not given["no_create"]) as store, progress(settings, "import") as shown:
        done = import_sources(store, sources, how, batch=given["batch"], note=given["note"], progress=shown)
    if settings.asked:
        facts = {"sources": done.sources, "entries": done.entries, "changed": done.changed}
        write_object({**facts, "commits": done.commits, "seq": done.head.seq, "root": done.head.root.hex()}, "json")
    news = f"commit {done.head.seq}" if done.commits else "no commit was made"
    settings.say(f"{counted(done.entries)} read, {done.changed:,} changed; {news}")
    return Exit.OK


def _source(name: str) -> Source:
    if name != "-":
        return Source(name)
    if sys.stdin is None:
        raise click.UsageError("Standard input is closed.")
    return Source("standard input", sys.stdin.buffer)


@click.command(short_help="Export entries as JSON lines.")
@file_argument
@collection_argument(nargs=-1)
@click.option(
    "-o", "--output", metavar="OUT", type=click.Path(allow_dash=True, readable=False), help="Write to a file."
)
@at_option
@common
@click.pass_obj
def export(
    settings: Settings, /, *, file: str, collection: tuple[str, ...], output: str | None, at: int | datetime | None
) -> int:
    """Print all entries, or those of COLLECTIONs, as JSON lines in their order; import reads them again.

    \b
    {"collection":"users","key":"ada","value":{"name":"Ada"}}

    Bytes are written {"$base64":true,"encoded":"..."}, and a document that has a member $base64 or $json
    {"$json":document}. The same entries give the same bytes, whatever was done to them before. With -o, OUT
    is complete and durable when the program ends, or as it was before.
    """  # noqa: D301, the backslash is click's mark for text that keeps its lines
    to_file = output is not None and output != "-"
    if settings.as_json and not to_file:
        raise click.UsageError("export writes JSON lines; --json needs -o, and prints what was written.")
    if output is not None and to_file and belongs_to(output, file):
        raise InvalidOption(f"{output} belongs to the store itself; nothing was written")
    with settings.read(file) as store, settings.view(store, at) as view:
        missing = [name for name in collection if not len(view[name])]
        if missing:
            settings.say(f"there is no collection {missing[0]!r}; nothing was written")
            return Exit.NO
        if output is None or not to_file:
            with closing(export_lines(view, collection or None)) as lines:
                for line in lines:
                    write_json(line[:-1].decode()) if on_terminal() else write(line)
            return Exit.OK
        with progress(settings, "export") as shown:
            done = export_file(view, output, collection or None, shown)
    if settings.asked:
        write_object(
            {
                "entries": done.entries,
                "bytes": done.bytes,
                "seq": done.head.seq,
                "root": done.head.root.hex(),
            },
            "json",
        )
    settings.say(f"{counted(done.entries)} of commit {done.head.seq} written, {done.bytes:,} bytes")
    return Exit.OK
