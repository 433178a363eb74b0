"""The command-line options that several commands share, each said once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Seconds = Annotated[float, typer.Option(min=0, help="Stop the pass after this many seconds.")]
NoLock = Annotated[bool, typer.Option("--no-lock", hidden=True, help="Run without taking the lock; for tests.")]
AllowPrivate = Annotated[
    list[str] | None,
    typer.Option("--allow-private", metavar="CIDR", help="Also allow calls to this private network. Repeatable."),
]
CorpusName = Annotated[str, typer.Argument(metavar="CORPUS", help="Name of the corpus, such as doab.")]
Threads = Annotated[int | None, typer.Option(min=0, help="Processor threads; 0 uses the idle cores.")]
Gpu = Annotated[bool | None, typer.Option("--gpu/--cpu", help="Where to compute; by default as the settings say.")]


def limit(what: str) -> Any:  # noqa: ANN401 - typer's own type is private
    """The option `--limit` of a pass, counted in `what`."""
    return typer.Option("--limit", min=1, help=f"Stop the pass after this many {what}.")
