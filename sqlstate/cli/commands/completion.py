"""The verb for shell completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sqlstate.cli.exits import Exit


@click.command(short_help="Print the shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> int:
    """Print the script that makes SHELL complete this program's verbs and options, collections and keys.

    \b
    bash  eval "$(sqlstate completion bash)"    in ~/.bashrc
    zsh   eval "$(sqlstate completion zsh)"     in ~/.zshrc
    fish  sqlstate completion fish | source     in ~/.config/fish/config.fish
    """  # noqa: D301, the backslash is click's mark for text that keeps its lines
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"The installed click cannot complete for {shell}.")
    click.echo(kind(context.find_root().command, {}, "sqlstate", "_SQLSTATE_COMPLETE").source())
    return Exit.OK
