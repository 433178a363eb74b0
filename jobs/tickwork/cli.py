"""The console command `tickwork`: global options, the operator's commands, and one group of commands a source.

A command's module is imported only when it runs: `tickwork status` must not pay for what a harvest needs.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tickwork import __version__
from tickwork.contract.outcomes import OperatorError, missing_package
from tickwork.operate.commands import register
from tickwork.source import Source, load

SOURCES = ("doab", "atproto")
"""The sources, in the order of `--help`. Adding one is its folder, its role and its name here."""

COMMANDS = {
    "embed": ("tickwork.vectors.commands:app", "Compute vectors for the texts of a corpus, in one bounded pass."),
    "publish": ("tickwork.publish.commands:app", "Publish a corpus as a new generation that can be searched."),
    "generations": (
        "tickwork.publish.commands:generations",
        "List, verify, roll back or prune the published generations.",
    ),
    "search": ("tickwork.search.commands:app", "Search what is published, by words, by meaning or both."),
    "similar": ("tickwork.search.commands:app", "Show the items most similar to a given one."),
    "serve": ("tickwork.serve.commands:app", "Serve what is published: web pages, a JSON API and Datasette."),
}
"""What works on any corpus: where each command is declared, and its summary."""

TABLES = ("vectors",)
"""Tables of the settings file besides those of the sources."""


def source(name: str) -> Source:
    """The source called `name`, which is cheap to import."""
    found: Source = import_module(f"tickwork.sources.{name}").SOURCE
    return found


class Group(TyperGroup):
    """The top-level group: the operator's commands, and the sources by name."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer's context type is private
        """The operator's commands first, then those of any corpus, then the sources."""
        return [*super().list_commands(ctx), *COMMANDS, *SOURCES]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """A command's name and summary for the help, without importing it."""
        if cmd_name in COMMANDS:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1])
        if cmd_name in SOURCES:
            return TyperCommand(cmd_name, help=source(cmd_name).title)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """The command to run, importing its module now."""
        name = args[0] if args else ""
        # A group also where there is only one command, and without typer's options to install a completion, which would
        # be written for `tickwork SOURCE` and not work.
        if name in COMMANDS:
            group = typer.main.get_group(load(COMMANDS[name][0]))
            return name, group.commands.get(name, group), args[1:]
        if name in SOURCES:
            chosen = source(name)
            return name, typer.main.get_group(load(chosen.commands, chosen.extras)), args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tickwork {__version__}")
        raise typer.Exit


@app.callback()
def main_callback(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="TICKWORK_CONFIG", help="Settings file; by default /etc/tickwork/tickwork.toml, if it exists."
        ),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(envvar="TICKWORK_STATE", help="Keep all state under this folder instead.")
    ] = None,
    allow_private: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Also allow calls to this private network. Repeatable.")
    ] = None,
    job: Annotated[str, typer.Option(hidden=True, help="The job this command runs for; set by `tickwork run`.")] = "",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Keep a search service's data fresh from remote sources, politely, one bounded pass a tick."""
    from tickwork.contract import settings
    from tickwork.deployment import Deployment

    loaded = settings.load(config, (*SOURCES, *TABLES))
    options = [*(["--config", str(config)] if config else []), *(["--state", str(state)] if state else [])]
    for network in allow_private or []:
        options += ["--allow-private", network]
    sources = {name: source(name) for name in SOURCES}
    context.obj = Deployment(
        loaded, loaded.paths(state), sources, tuple(options), (*loaded.allow_private, *(allow_private or [])), job
    )


register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command; an expected fault is one line, never a traceback."""
    try:
        app(args=arguments)
    except OperatorError as error:
        print(f"tickwork: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if not (missing := missing_package(error)):
            raise
        print(f"tickwork: {missing}", file=sys.stderr)
        sys.exit(OperatorError.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone (`tickwork logs JOB | head`); closing it again would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, sqlite3.DatabaseError) as error:
        print(f"tickwork: {error}", file=sys.stderr)
        sys.exit(1)
