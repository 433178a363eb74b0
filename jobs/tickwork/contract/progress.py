"""Showing a pass to whoever watches: a progress bar on a terminal, nothing otherwise (the log has one line a pass)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tickwork.contract.units import Budget, Unit

Show = Callable[[Unit, int | None], None]


@contextmanager
def progress(job: str, budget: Budget) -> Iterator[Show]:
    """Give a function to call with each committed unit and the backlog, if known."""
    if not sys.stderr.isatty():
        yield lambda unit, backlog: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(job, total=budget.items, note="")

        def show(unit: Unit, backlog: int | None) -> None:
            todo = None if backlog is None else budget.spent_items + backlog
            bounds = [bound for bound in (budget.items, todo) if bound is not None]
            bar.update(task, advance=unit.items, total=min(bounds, default=None), note=unit.note)

        yield show
