"""Datestamps of OAI-PMH: UTC, to the day or to the second, both ends of a window included."""

from __future__ import annotations

import datetime as dt
import re

from tickwork.contract import times
from tickwork.contract.outcomes import OperatorError

_FORM = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:Z|\+00:00))?", re.ASCII)


def parse(text: str, what: str = "date") -> dt.datetime:
    """`2022-01-31` or `2022-01-31T12:00:00Z` as UTC; OperatorError names `what` for anything else."""
    try:
        if not _FORM.fullmatch(text):
            raise ValueError(text)
        return times.parse(text)
    except ValueError as error:
        raise OperatorError(f"{what} {text!r} is neither YYYY-MM-DD nor YYYY-MM-DDThh:mm:ssZ") from error


def shown(moment: dt.datetime, *, day: bool) -> str:
    """`moment` as the server wants it, to the day or to the second."""
    return moment.date().isoformat() if day else times.show(moment)


def end_of(text: str, *, day: bool) -> str:
    """A bound as given by an operator; a bare date as an upper bound means all of that day."""
    moment = parse(text, "--until")
    if len(text) == len("2022-01-31") and not day:
        moment = times.add(moment, times.DAY - 1)
    return shown(moment, day=day)


def halves(first: str, last: str) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """The window [first, last] as two that together cover the same, or None if it cannot be divided."""
    day = len(first) == len("2022-01-31")
    step = dt.timedelta(days=1) if day else dt.timedelta(seconds=1)
    begin, end = parse(first), parse(last)
    steps = (end - begin) // step
    if steps < 1:
        return None
    middle = begin + step * (steps // 2)
    return (first, shown(middle, day=day)), (shown(middle + step, day=day), last)
