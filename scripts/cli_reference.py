"""Write docs/commands.md, the reference of the command line, from the commands themselves.

scripts/cli_reference.py           writes it
scripts/cli_reference.py --check   fails if it is not what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tickwork.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
BEGIN = """\
# Commands

Every command takes `--help` (`-h`). A pass ends with 0 when it is drained, 3 when there is more to do, 4 when it has
halted: [operating.md](operating.md#the-contract) explains the contract. A command that was called wrongly ends with 2.

"""
END = "Written by scripts/cli_reference.py from the commands themselves."
METAVARS = {"int": "N", "int range": "N", "float": "NUMBER", "float range": "NUMBER", "path": "PATH"}


def walk(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """A command with its context, then all below it, in the order of the help; hidden ones are left out."""
    yield command, context
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        _, below, _ = command.resolve_command(context, [name])
        if not below.hidden:
            yield from walk(below, below.make_context(name, [], parent=context, resilient_parsing=True))


def commands() -> list[tuple[Any, Any]]:
    """All commands, each with its context; the first is `tickwork` itself."""
    root: Any = typer.main.get_command(app)
    return list(walk(root, root.make_context("tickwork", [], resilient_parsing=True)))


def page() -> str:
    """The whole reference."""
    found = commands()
    index = [
        f"| [`{context.command_path}`](#{anchor(context)}) | {summary(command)} |" for command, context in found[1:]
    ]
    head = ["| command | what it does |", "|---|---|", *index, ""]
    return BEGIN + "\n".join([*head, *(section(command, context) for command, context in found), END, ""])


def section(command: Any, context: Any) -> str:
    """One command: what is typed, what it does, its arguments and options."""
    arguments = [each for each in command.params if each.param_type_name == "argument" and not each.hidden]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    typed = [context.command_path, *(["[OPTIONS]"] if options else []), *map(argument, arguments)]
    if hasattr(command, "list_commands"):
        typed.append("[COMMAND]..." if command.invoke_without_command else "COMMAND...")
    lines = [f"## {context.command_path}", "", "```text", " ".join(typed), "```", "", command.help or "", ""]
    lines += table("argument", [(f"`{argument(each)}`", cell(each), default(each)) for each in arguments if each.help])
    lines += table("option", [(option(each), cell(each), default(each)) for each in options])
    return "\n".join(lines)


def table(what: str, rows: list[tuple[str, str, str]]) -> list[str]:
    """A table of arguments or options; without the column of defaults where none has one, nothing without rows."""
    if not rows:
        return []
    columns = 3 if any(row[2] for row in rows) else 2
    head = (what, "what it is", "default")[:columns]
    return [f"| {' | '.join(row[:columns])} |" for row in (head, ("---",) * columns, *rows)] + [""]


def anchor(context: Any) -> str:
    """The anchor of a command's heading."""
    return str(context.command_path).replace(" ", "-")


def summary(command: Any) -> str:
    """The first paragraph of a command's help, on one line."""
    return escaped(" ".join((command.help or "").split("\n\n")[0].split()))


def argument(parameter: Any) -> str:
    """An argument as it is typed."""
    name = parameter.metavar or parameter.name.upper()
    many = "..." if parameter.nargs == -1 else ""
    return f"{name}{many}" if parameter.required else f"[{name}]{many}"


def option(parameter: Any) -> str:
    """An option as it is typed: its spellings, and what follows them."""
    both = [*parameter.opts, *parameter.secondary_opts]
    value = "" if parameter.is_flag else f" {escaped(metavar(parameter))}"
    return ", ".join(f"`{spelling}{value}`" for spelling in both)


def metavar(parameter: Any) -> str:
    """What stands for the value of an option."""
    choices = getattr(parameter.type, "choices", ())
    return parameter.metavar or "|".join(map(str, choices)) or METAVARS.get(parameter.type.name, "TEXT")


def cell(parameter: Any) -> str:
    """What an option or argument does, with its bounds and the variable that gives it too."""
    said = [escaped(" ".join((parameter.help or "").split()))]
    low, high = getattr(parameter.type, "min", None), getattr(parameter.type, "max", None)
    if high is not None:
        said.append(f"From {low} to {high}.")
    elif low:
        said.append(f"At least {low}.")
    if parameter.envvar:
        said.append(f"Also `{parameter.envvar}`.")
    return " ".join(said)


def default(parameter: Any) -> str:
    """The default of an option or argument; nothing where it has none or is merely off."""
    if parameter.required:
        return "required"
    if parameter.default in (None, "", False) or parameter.default == ():
        return ""
    return f"`{escaped(str(parameter.default))}`"


def escaped(text: str) -> str:
    """Text for a table's cell."""
    return text.replace("|", "\\|")


def main() -> int:
    """Write or check; gives the exit code."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        print("docs/commands.md is out of date; run scripts/cli_reference.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
