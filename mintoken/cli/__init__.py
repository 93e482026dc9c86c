"""The command line; one group of commands per file."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mintoken import __version__
from mintoken.admin import RefusedError
from mintoken.cli.accounts import accounts
from mintoken.cli.admin_keys import admin_keys
from mintoken.cli.base import ConfigPath
from mintoken.cli.evaluate import evaluate
from mintoken.cli.keys import keys
from mintoken.cli.rules import rules
from mintoken.cli.savings import savings
from mintoken.cli.server import check, demo, serve
from mintoken.cli.storage import backup, purge
from mintoken.cli.tail import tail
from mintoken.cli.usage import usage
from mintoken.cli.users import users
from mintoken.errors import ConfigError, EvaluationError, NameTakenError, StorageError

FAILED, MISCONFIGURED = 1, 78
"""Exit codes (contract §8); 2, for misuse, is typer's own."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(accounts, name="accounts")
app.add_typer(keys, name="keys")
app.add_typer(rules, name="rules")
app.add_typer(users, name="users")
app.add_typer(admin_keys, name="admin-keys")
for command in (serve, demo, usage, savings, tail, check, backup, purge):
    app.command()(command)
app.command("eval")(evaluate)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, by default that of the process's own arguments; its exit code."""
    try:
        app(args=None if argv is None else list(argv), prog_name="mintoken")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except ConfigError as error:
        _complain(*error.problems)
        return MISCONFIGURED
    except OSError as error:
        _complain(": ".join(filter(None, (error.filename, error.strerror or str(error)))))
    except (StorageError, NameTakenError, RefusedError, EvaluationError) as error:
        _complain(str(error))
    return FAILED


def _complain(*problems: str) -> None:
    for problem in problems:
        print(f"mintoken: {problem}", file=sys.stderr)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer's way to call
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    config: ConfigPath = None,
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A drop-in LLM proxy that makes answers shorter."""
