"""Printing tables and times for people, plain enough for a narrow terminal and for a mail."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their content; on a terminal the last one is cut to fit, so that rows stay lines."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        lines = [line if len(line) <= columns else line[: columns - 1] + "…" for line in lines]
    return "\n".join(lines)


def moment(when: dt.datetime | None) -> str:
    """A time as `11-22 04:30Z`, or a dash."""
    return when.astimezone(dt.UTC).strftime("%m-%d %H:%MZ") if when else "-"
