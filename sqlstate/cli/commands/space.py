"""Verbs for the size of the log: cut, claims."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from sqlstate.cli.exits import Exit
from sqlstate.cli.options import MOMENT, Settings, common, file_argument
from sqlstate.cli.output import Column, key_cell, write_list, write_object
from sqlstate.cli.transfer.exported import quoted

if TYPE_CHECKING:
    from datetime import datetime

_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30}


class _Size(click.ParamType):  # type: ignore[type-arg]  # it is not generic at run time
    """A number of bytes: digits, with K, M or G for powers of 1,024; or "none"."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number of bytes, -1 for "none"."""
        match = re.fullmatch(r"(\d+)([kmg]?)(?:i?b)?", value, re.ASCII | re.IGNORECASE)
        if value == "none":
            return -1
        if match is None:
            self.fail(f"{value!r} is not a number of bytes, such as 500000 or 64M, or 'none'.", param, ctx)
        return int(match[1]) << _UNITS[match[2].lower()]


@click.command(short_help="Cut the oldest commits from the log, or bound it.")
@file_argument
@click.option("--before", type=MOMENT, metavar="MOMENT", help="Cut the commits before this number or time.")
@click.option("--limit", type=_Size(), metavar="SIZE", help="Keep the log at SIZE from now on, such as 64M, or none.")
@common
@click.pass_obj
def cut(settings: Settings, /, *, file: str, before: int | datetime | None, limit: int | None) -> int:
    """Cut commits from the log: what they changed cannot be looked back at any more, and 32 bytes of each stay.

    With --limit, later commits cut the oldest ones until the log is as small, some at a time; the file keeps the limit.
    The room in the file is used again; compact gives it back.
    """
    if before is None and limit is None:
        raise click.UsageError("Say what to cut: --before, --limit, or both.")
    with settings.write(file, create=False) as store:
        if limit is not None:
            store.set_log_limit(None if limit < 0 else limit)
        commits = 0 if before is None else store.cut(before).commits
        oldest, kept = store.oldest, store.log_limit
    if settings.asked:
        write_object({"commits": commits, "oldest": oldest, "log_limit": kept}, "json")
    if before is not None:
        settings.say(f"{commits:,} commit{'' if commits == 1 else 's'} cut; the oldest in the log is {oldest}")
    if limit is not None:
        settings.say("the log is kept as a whole" if kept is None else f"the log is kept at {kept:,} bytes")
    return Exit.OK


@click.command(short_help="Print who follows the commits, or end a claim.")
@file_argument
@click.option("--end", metavar="NAME", help="End the claim of NAME: its commits can be cut then.")
@common
@click.pass_obj
def claims(settings: Settings, /, *, file: str, end: str | None) -> int:
    """Print who follows the commits, and the last one that each has. Later ones are not cut from the log."""
    if end is not None:
        with settings.write(file, create=False) as store:
            there = store.claims.pop(end, None)
        settings.say(f"no claim of {key_cell(end)}" if there is None else f"the claim of {key_cell(end)} ended")
        return Exit.NO if there is None else Exit.OK
    with settings.read(file) as store:
        found = store.claims.items()
        columns = [Column("NAME", long=True), Column("SEQ", right=True)]
        if not write_list(found, settings.list_form, _claim_line, columns, _claim_cells):
            settings.say("no claims")
    return Exit.OK


def _claim_line(claim: tuple[str, int]) -> str:
    return f'{{"name":{quoted(claim[0])},"seq":{claim[1]}}}'


def _claim_cells(claim: tuple[str, int]) -> tuple[str, ...]:
    return key_cell(claim[0]), str(claim[1])
