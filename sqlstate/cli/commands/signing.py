"""Verbs for signed heads: keygen and sign."""

from __future__ import annotations

import os
from typing import Any

import click

from sqlstate import headlog
from sqlstate.cli.exits import Exit
from sqlstate.cli.options import Settings, common, file_argument
from sqlstate.cli.output import write
from sqlstate.files import system
from sqlstate.files.paths import absolute


@click.command(short_help="Make a key that signs heads.")
@click.argument("origin")
@click.option(
    "--out", required=True, type=click.Path(readable=False), metavar="PATH", help="New file for the private key."
)
@common
@click.pass_obj
def keygen(settings: Settings, /, *, origin: str, out: str) -> int:
    """Make a key pair: the private key in a new file of mode 0600, the public key in PATH.pub.

    ORIGIN names what will be signed, such as example.com/orders; it stands in each signed head. The public key is
    printed too. Keep the private key away from the store: whoever has both can sign what was changed.
    """
    signer = headlog.Signer.generate(origin)
    _write_new(out, signer.text, 0o600)
    _write_new(f"{out}.pub", signer.public, 0o644)
    system.sync_folder(os.path.dirname(absolute(out, links=True)))
    write(f"{signer.public}\n".encode())
    settings.say(f"the private key is in {out}; give away {out}.pub only")
    return Exit.OK


def _write_new(path: str, text: str, mode: int) -> None:
    """Write a new file durably; one that is there is left as it is."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
        file.write(f"{text}\n")
        file.flush()
        system.sync(number)


@click.command(short_help="Sign the newest commit.")
@file_argument
@click.option(
    "--key", required=True, type=click.Path(readable=False), metavar="PATH", help="File with the private key."
)
@click.option("--out", type=click.Path(readable=False), metavar="PATH", help="Write the signed head to a new file.")
@common
@click.pass_obj
def sign(settings: Settings, /, *, file: str, **given: Any) -> int:
    """Sign the newest commit, and with it all history before; keep what is printed where the store is not.

    `sqlstate check FILE --against` compares the store with it later, and `sqlstate verify --head` checks proofs by it.
    """
    with open(given["key"], encoding="utf-8", errors="replace") as key:
        if system.is_for_others(key.fileno()):
            settings.say(f"warning: others can read {given['key']}; chmod 600 it")
        signer = headlog.Signer(key.read(headlog.NOTE_BYTES_MAX))
    with settings.read(file) as store:
        head = store.signed_head(signer)
    if given["out"] is None:
        write(head.text.encode())
    else:
        _write_new(given["out"], head.text.removesuffix("\n"), 0o644)
    settings.say(f"signed commit {head.seq} for {head.origin}")
    return Exit.OK
