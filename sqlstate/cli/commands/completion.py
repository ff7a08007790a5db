"""The verb for shell completion."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, get_completion_class

from sqlstate.cli.exits import Exit

# bash takes the characters of COMP_WORDBREAKS for the ends of words, a colon among them: it splits "user:7" into three,
# and replaces the last of them alone, together with an @ before it. So the program gets the line, up to the cursor and
# with an empty word where a new one begins, and what bash keeps is taken off what the program offers.
_BASH: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' line=${COMP_LINE:0:COMP_POINT} word kept='' breaks='' response completion type value
    word=${line##*[[:space:]]}
    [[ -z $word ]] && line+="''"
    for value in : = @; do
        [[ $COMP_WORDBREAKS == *$value* ]] && breaks+=$value
    done
    [[ -n $breaks && $word == *[$breaks]* ]] && kept=${word%%"${word##*[$breaks]}"} kept=${kept%%@}
    response=$(env COMP_WORDS="$line" COMP_CWORD=-1 %(complete_var)s=bash_complete "$1")
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("${value#"$kept"}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _BASH


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
    kind = _Bash if shell == "bash" else get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"The installed click cannot complete for {shell}.")
    click.echo(kind(context.find_root().command, {}, "sqlstate", "_SQLSTATE_COMPLETE").source())
    return Exit.OK
