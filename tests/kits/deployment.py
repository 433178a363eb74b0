"""A deployment in a folder, and how its commands are run: in this process, or as processes of their own."""

from __future__ import annotations

import contextlib
import io
import json
import ssl
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import typer.main

from tickwork.cli import main
from tickwork.contract.paths import Paths

_parameters = cache(typer.main.get_params_from_function)


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def run(*arguments: str) -> Said:
    """Run `tickwork ARGUMENTS` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        # These take longer than most commands: the list of authorities, which nobody here needs, and the signatures of
        # all commands, which are the same each time.
        patch.object(ssl.SSLContext, "load_verify_locations"),
        patch.object(typer.main, "get_params_from_function", _parameters),
    ):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
    return Said(code, out.getvalue(), err.getvalue())


class Deployment:
    """A deployment below `home`: home/tickwork.toml and home/state."""

    def __init__(self, home: Path) -> None:
        self.home, self.state, self.config = home, home / "state", home / "tickwork.toml"
        self.paths = Paths.under(self.state)
        home.mkdir(parents=True, exist_ok=True)

    def command(self, *arguments: str) -> list[str]:
        """The arguments of the console command."""
        given = ["--config", str(self.config)] if self.config.exists() else []
        return [*given, "--state", str(self.state), *arguments]

    def run(self, *arguments: str) -> Said:
        """Run a command in this process."""
        return run(*self.command(*arguments))

    def good(self, *arguments: str) -> str:
        """Run a command that must succeed; gives its output."""
        said = self.run(*arguments)
        assert said.code == 0, said
        return said.out

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tickwork", *self.command(*arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
