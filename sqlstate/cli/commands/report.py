"""The verb that shows a store as one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sqlstate.cli.commands.check_and_repair import EXITS
from sqlstate.cli.options import Settings, common, file_argument, key_type_option, parse_key, progress
from sqlstate.cli.output import write, write_object
from sqlstate.cli.report import facts, page
from sqlstate.errors import InvalidOption
from sqlstate.files.identity import belongs_to
from sqlstate.files.replace import replacing

if TYPE_CHECKING:
    import sqlstate
    from sqlstate.cli.exits import Exit


@click.command(short_help="Show a store as one page for a browser.")
@file_argument
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    required=True,
    type=click.Path(allow_dash=True, readable=False),
    help="The page to write; - is standard output.",
)
@click.option("--quick", is_flag=True, help="Do not read every entry and record again to check them.")
@click.option(
    "--no-content", is_flag=True, help="Leave out keys, values and notes, and prove no entry but that of --entry."
)
@click.option(
    "--entry", nargs=2, metavar="COLLECTION KEY", help="The entry to prove in the page; without it, one just changed."
)
@key_type_option
@common
@click.pass_obj
def report(
    settings: Settings, /, *, file: str, output: str, entry: tuple[str, str] | None, key_type: str, **given: bool
) -> Exit:
    """Write one page of HTML that shows what a store is: commits over time, sizes, collections, newest changes,
    recovery, audit trail, a full check, and an entry whose proof the page itself verifies.

    The page loads nothing and can be sent as it is. It shows keys, values and notes of the newest changes: who gets it
    reads them. Values that were taken out of the log, and those of a collection of which the log has digests only, are
    not shown. With --no-content it tells of sizes, times and names of collections alone. OUT is complete when the
    program ends, or as it was before.

    It is written for a damaged store too, with what could be read; the exit code is that of check.
    """  # noqa: D205, help prints the first paragraph whole
    page.check_installed()  # before a large store is read
    if output != "-" and belongs_to(output, file):
        raise InvalidOption(f"{output} belongs to the store itself; nothing was written")
    wanted = facts.Wanted("quick" if given["quick"] else "full", content=not given["no_content"])
    if entry is not None:
        wanted.entry = entry[0], parse_key(entry[1], key_type)
    with settings.read(file) as store:
        if output == "-":
            found, data = _page(settings, store, wanted)
            write(data)
        else:
            with replacing(output, store.store_id) as out:  # refuses before the work what cannot be written
                found, data = _page(settings, store, wanted)
                out.write(data)
    if settings.asked and output != "-":
        write_object({"outcome": wanted.outcome, "seq": found["head"]["seq"], "bytes": len(data)}, "json")
    settings.say(f"report of commit {found['head']['seq']} written, {len(data):,} bytes; {wanted.outcome}")
    return EXITS[wanted.outcome]


def _page(settings: Settings, store: sqlstate.Store, wanted: facts.Wanted) -> tuple[facts.Part, bytes]:
    with progress(settings, "check") as shown:
        wanted.progress = shown
        found = facts.gather(store, wanted)
    return found, page.html(found).encode("utf-8", "backslashreplace")
