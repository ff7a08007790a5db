"""Exit codes, and how errors are written."""

from __future__ import annotations

import json
import os
import re
import sys
from enum import IntEnum
from typing import Final

import click

from sqlstate.cli.output import decoded, printable
from sqlstate.cli.words import in_shell_words
from sqlstate.errors import (
    Busy,
    CannotOpen,
    Conflict,
    Damaged,
    EntryNotFound,
    ImportRejected,
    InvalidInput,
    LogCut,
    ProofInvalid,
    ReadOnly,
    RestoreRejected,
    StoreError,
    ValueRedacted,
)
from sqlstate.files import system
from sqlstate.files.paths import why


class Exit(IntEnum):
    """The exit codes of the program."""

    OK = 0
    NO = 1
    USAGE = 2
    DAMAGED = 3
    BUSY = 4
    CANNOT_OPEN = 5
    IO = 6
    BUG = 70
    INTERRUPTED = 130
    CLOSED_PIPE = 141


MEANINGS: Final[dict[Exit, str]] = {
    Exit.OK: "done",
    Exit.NO: "no: not there, cut, refused, no proof, stores differ, lost in a drill",
    Exit.USAGE: "wrong usage, or input that cannot be stored, imported or restored",
    Exit.DAMAGED: "the store, its journal or its audit trail is damaged",
    Exit.BUSY: "another writer held the lock for the whole timeout",
    Exit.CANNOT_OPEN: "no such file, no store, not for us to open or write, or recovery is due",
    Exit.IO: "reading or writing failed, or the disk is full",
    Exit.BUG: "a bug in sqlstate",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
    Exit.CLOSED_PIPE: "the reader of the output went away",
}

# The first that fits.
_CODES: Final[tuple[tuple[type[BaseException], Exit], ...]] = (
    (click.ClickException, Exit.USAGE),
    (EntryNotFound, Exit.NO),
    (Conflict, Exit.NO),
    (LogCut, Exit.NO),
    (ProofInvalid, Exit.NO),
    (ValueRedacted, Exit.NO),
    (InvalidInput, Exit.USAGE),
    (ImportRejected, Exit.USAGE),
    (RestoreRejected, Exit.USAGE),
    (Damaged, Exit.DAMAGED),
    (Busy, Exit.BUSY),
    (CannotOpen, Exit.CANNOT_OPEN),
    (ReadOnly, Exit.CANNOT_OPEN),
    (BrokenPipeError, Exit.CLOSED_PIPE),
    (StoreError, Exit.IO),
    (OSError, Exit.IO),
    (KeyboardInterrupt, Exit.INTERRUPTED),
)


def exit_code(error: BaseException) -> Exit:
    """Return the exit code of a program that ended with *error*."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.BUG)


def tell(error: BaseException, *, as_json: bool) -> None:
    """Write *error* to standard error: for people, and with *as_json* on a line of its own for programs."""
    message = decoded("; ".join([_message(error), *getattr(error, "__notes__", [])]))
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        message += f" '{error.ctx.command_path} --help' shows what there is."
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    prefix = click.style("error:", fg="red", bold=True) if colour else "error:"
    click.echo(f"{prefix} {printable(message)}", err=True)
    if as_json:
        code = "Interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
        click.echo(json.dumps({"error": {"code": code, "message": message}}, separators=(",", ":")), err=True)


def settle(code: int, *, as_json: bool) -> int:
    """Flush standard output, and return the exit code: that of the error if it cannot be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as e:
        silence()
        if code != Exit.OK:
            return code
        if system.has_no_reader(e):
            return Exit.CLOSED_PIPE
        tell(OSError(e.errno, e.strerror, "standard output"), as_json=as_json)
        return exit_code(e)
    return code


def silence() -> None:
    """Discard output that could not be written; the interpreter would complain about it at its end."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _message(error: BaseException) -> str:
    if isinstance(error, click.NoSuchOption) and re.match(r"-\d", error.option_name):
        return f"{error.format_message()} Put -- before an argument that begins with a minus sign."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was committed stays, a transaction that was open is undone"
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return f"{where}{why(error)}"
    if isinstance(error, StoreError):
        return in_shell_words(error)
    return (
        f"{type(error).__name__}: {error}. This is a bug in sqlstate, please report it; "
        "SQLSTATE_DEBUG=1 in the environment shows where it happened"
    )
