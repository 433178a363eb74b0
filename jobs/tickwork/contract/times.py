"""Times: always aware and UTC inside, read and written in one way.

Whatever a stranger sends, these functions give a time between the years 1 and 9999 or raise ValueError, never
OverflowError: what is beyond those years when it is read is no time, and what is reckoned beyond them is their end.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Literal

FIRST = dt.datetime.min.replace(tzinfo=dt.UTC)
LAST = dt.datetime.max.replace(tzinfo=dt.UTC)
DAY = 86_400
"""Seconds."""


def now() -> dt.datetime:
    """The time by this machine's clock."""
    return dt.datetime.now(dt.UTC)


def parse(text: str) -> dt.datetime:
    """An ISO 8601 date or time as UTC; without an offset it is taken for UTC. Raises ValueError for anything else.

    A time whose offset leads out of the years 1 to 9999 is none.
    """
    try:
        parsed = dt.datetime.fromisoformat(text)
        return parsed.replace(tzinfo=dt.UTC) if parsed.tzinfo is None else parsed.astimezone(dt.UTC)
    except OverflowError as error:
        raise ValueError(f"not a time between the years 1 and 9999: {text!r}") from error


def show(moment: dt.datetime, precision: Literal["seconds", "milliseconds", "microseconds"] = "seconds") -> str:
    """`moment`, which must be aware, like `2026-11-22T07:15:00Z`; finer figures are cut off, not rounded."""
    # Not strftime: it writes a year before 1000 with fewer digits.
    return _utc(moment).replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def of_unix(seconds: float) -> dt.datetime:
    """The time so many seconds after 1970 began. Raises ValueError for what is no number."""
    if math.isnan(seconds):
        raise ValueError("not a number of seconds")
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return _end(later=seconds > 0)


def add(moment: dt.datetime, seconds: float) -> dt.datetime:
    """`moment` and so many seconds more, or less; kept within the years 1 to 9999."""
    try:
        return _utc(moment) + dt.timedelta(seconds=seconds)
    except OverflowError:
        return _end(later=seconds > 0)


def _utc(moment: dt.datetime) -> dt.datetime:
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:
        return _end(later=moment.year > dt.MINYEAR)


def _end(*, later: bool) -> dt.datetime:
    return LAST if later else FIRST
