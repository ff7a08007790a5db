"""The program: its verbs, and what becomes of an error."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import click

import sqlstate
from sqlstate.cli.exits import MEANINGS, Exit, exit_code, settle, silence, tell
from sqlstate.files import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Verb, module and function. A module is imported when its verb is used, or help is asked for.
_VERBS: Final[dict[str, tuple[str, str]]] = {
    "put": ("entries", "put"),
    "get": ("entries", "get"),
    "delete": ("entries", "delete"),
    "list": ("entries", "list_"),
    "query": ("entries", "query"),
    "collections": ("entries", "collections"),
    "import": ("transfer", "import_"),
    "export": ("transfer", "export"),
    "head": ("history", "head"),
    "log": ("history", "log"),
    "stats": ("history", "stats"),
    "report": ("report", "report"),
    "changes": ("past", "changes"),
    "history": ("past", "history"),
    "index": ("past", "index"),
    "undo": ("past", "undo"),
    "revert": ("past", "revert"),
    "diff": ("past", "diff"),
    "merge": ("past", "merge"),
    "cut": ("space", "cut"),
    "claims": ("space", "claims"),
    "redact": ("space", "redact"),
    "logging": ("space", "logging"),
    "recover": ("recovery_and_backup", "recover"),
    "audit": ("recovery_and_backup", "audit"),
    "check": ("check_and_repair", "check"),
    "backup": ("recovery_and_backup", "backup"),
    "restore": ("recovery_and_backup", "restore"),
    "cluster": ("transfer", "cluster"),
    "compact": ("recovery_and_backup", "compact"),
    "repair": ("check_and_repair", "repair"),
    "prove": ("proving", "prove"),
    "verify": ("proving", "verify"),
    "keygen": ("signing", "keygen"),
    "sign": ("signing", "sign"),
    "drill": ("drill", "drill"),
    "completion": ("completion", "completion"),
}

_EPILOG: Final = (
    "\b\nExit codes:\n"
    + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
    + "\n\n\b\nCompletion, in the shell's startup file:\n"
    '  bash  eval "$(sqlstate completion bash)"\n'
    '  zsh   eval "$(sqlstate completion zsh)"\n'
    "  fish  sqlstate completion fish | source"
)


class Program(click.Group):
    """The group of verbs, which ends with our exit codes and never with a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, click's signature
        """Return the verbs, in the order of help."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the verb of that name, or None."""
        if cmd_name not in _VERBS:
            return None
        module, function = _VERBS[cmd_name]
        command = cast("click.Command", getattr(import_module(f"sqlstate.cli.commands.{module}"), function))
        for parameter in command.params:
            if isinstance(parameter.type, click.types.StringParamType):
                parameter.type = TEXT
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        with _past_click():
            return super().invoke(ctx)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments; help is printed here."""
        with _past_click():
            return super().make_context(*args, **extra)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002, click's signature
        **extra: Any,
    ) -> Any:
        """Run the program, and exit with its exit code."""
        arguments = list(sys.argv[1:] if args is None else args)
        run: Callable[[], Any] = partial(
            super().main, arguments, prog_name, complete_var, standalone_mode=False, **extra
        )
        if not standalone_mode:
            return run()
        system.write_utf8()
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        as_json = "--json" in options or "--jsonl" in options
        try:
            code: int = run() or Exit.OK
        except _Ended as e:
            code = _failed(e.cause, as_json=as_json)
        except click.Abort:
            code = _failed(KeyboardInterrupt(), as_json=as_json)
        except Exception as e:  # noqa: BLE001, the user gets a sentence and an exit code, whatever happened
            code = _failed(e, as_json=as_json)
        sys.exit(settle(code, as_json=as_json))


class _Text(click.types.StringParamType):
    """Text of an argument: its bytes are UTF-8, whatever the locale makes of them. Not for paths."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text; what is not UTF-8 stays as it is, to be refused where it matters."""
        text = super().convert(value, param, ctx)
        with suppress(UnicodeError):
            return os.fsencode(text).decode()
        return text


TEXT: Final = _Text()


class _Ended(Exception):
    """What ended the program, on its way past click."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


@contextmanager
def _past_click() -> Iterator[None]:
    """Carry past click what it would answer itself, with an exit code of its own and without our notes."""
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError) as e:
        raise _Ended(e) from e


def _failed(error: BaseException, *, as_json: bool) -> Exit:
    if isinstance(error, OSError) and error.filename is None and system.has_no_reader(error):
        silence()
        return Exit.CLOSED_PIPE
    if os.environ.get("SQLSTATE_DEBUG"):
        traceback.print_exception(error)
    with suppress(OSError):  # standard error is gone too
        tell(error, as_json=as_json)
    return exit_code(error)


@click.group(
    cls=Program,
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(sqlstate.__version__, message="sqlstate %(version)s")
@click.pass_context
def main(context: click.Context) -> int:
    """An application's state in one SQLite file: put and get entries, import and export, recover, check, repair, prove.

    Results go to standard output: a table on a terminal, JSON elsewhere or on request. Messages, progress and
    errors go to standard error. A FILE is a store; put and import make one that is not there.
    """
    if context.invoked_subcommand is not None:
        return Exit.OK
    click.echo(context.get_help(), err=True)
    return Exit.USAGE
