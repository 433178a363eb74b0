"""The times of one job: its schedule as cron and systemd write it, the seconds between two ticks, its durations.

    plan.py '{"seed": "host job", "schedule": "H/30 * * * *", "timeout": "20m", ...}'

prints one JSON object: `schedule` (five plain cron fields), `calendar` (systemd's OnCalendar), `interval` (seconds
between the two closest ticks), `seconds` (every duration) and `faults` (sentences; empty when all can be read).
Runs on the control node, with nothing but the standard library.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import re
import sys
from dataclasses import dataclass

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTH_NAMES = ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LEAP_CYCLE_DAYS = 366 + 3 * 365
"""Every date that a schedule can name occurs within these days, except around a year such as 2100."""


@dataclass(frozen=True)
class Field:
    """One of the five fields: what it is called, its bounds, names for its values, whether `H` may stand in it."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    seeded: bool = False


FIELDS = (
    Field("minute", 0, 59, seeded=True),
    Field("hour", 0, 23, seeded=True),
    Field("day of month", 1, 31),
    Field("month", 1, 12, MONTH_NAMES),
    Field("day of week", 0, 7, DAY_NAMES),
)


def seconds(duration: str) -> int:
    """Seconds of a duration such as `90`, `45s`, `20m`, `3h` or `7d`; ValueError for anything else."""
    text = duration.strip()
    unit = UNIT_SECONDS.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not number.isascii() or not number.isdigit():
        raise ValueError(f"{duration!r} is not a duration: write 90, 45s, 20m, 3h or 7d")
    return int(number) * (unit or 1)


@dataclass(frozen=True)
class Schedule:
    """A schedule with every `H` decided: the text of its five fields and the values that each stands for."""

    texts: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]

    @classmethod
    def parse(cls, text: str, seed: str) -> Schedule:
        """The schedule written in `text`; ValueError says what cannot be read."""
        words = text.lower().split()
        if len(words) != len(FIELDS):
            raise ValueError(f"the schedule {text!r} has {len(words)} fields instead of 5")
        texts, values = [], []
        for field, word in zip(FIELDS, words, strict=True):
            resolved = _seed(field, word, seed)
            numbers = sorted({number for part in resolved.split(",") for number in _values(field, part, text)})
            values.append(tuple(numbers))
            # Names may not stand in lists and ranges of a crontab, so they become numbers.
            texts.append(",".join(map(str, numbers)) if re.search("[a-z]", resolved) else resolved)
        if not texts[2].startswith("*") and not texts[4].startswith("*"):
            raise ValueError(
                f"the schedule {text!r} restricts the day of month and the day of week, which cron joins with `or` "
                "and systemd with `and`: use one of them"
            )
        week = tuple(sorted({value % 7 for value in values[4]}))
        return cls(tuple(texts), (*values[:4], week))

    def cron(self) -> str:
        """The five fields for a crontab."""
        return " ".join(self.texts)

    def calendar(self) -> str:
        """The same as systemd's OnCalendar."""
        minutes, hours, days, months, week = self.values
        names = "" if len(week) == 7 else ",".join(DAY_NAMES[day].capitalize() for day in week) + " "
        date = f"*-{_numbers(months, 12)}-{_numbers(days, 31)}"
        return f"{names}{date} {_numbers(hours, 24)}:{_numbers(minutes, 60)}:00"

    def interval(self) -> int:
        """Seconds between the two closest ticks; ValueError if there is no date at which it ticks."""
        minutes, hours, days, months, week = self.values
        times = sorted(hour * 60 + minute for hour in hours for minute in minutes)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        start = dt.date(2024, 1, 1)
        dates = [
            number
            for number in range(2 * LEAP_CYCLE_DAYS)
            if (date := start + dt.timedelta(number)).month in months
            and date.day in days
            and date.isoweekday() % 7 in week
        ]
        if not dates:
            raise ValueError(f"the schedule {self.cron()!r} never ticks: there is no such date")
        between = [later - earlier for earlier, later in itertools.pairwise(dates)]
        if between:
            gaps.append(min(between) * 1440 - (times[-1] - times[0]))
        return min(gaps) * 60


def _seed(field: Field, word: str, seed: str) -> str:
    """The field with `H`, `H/n` or `H(a-b)` replaced by the values which the seed gives it."""
    if not word.startswith("h"):
        return word
    form = re.fullmatch(r"h(?:\((\d+)-(\d+)\))?(?:/(\d+))?", word)
    if not form or not field.seeded:
        raise ValueError(f"{word!r} is not a {field.name}: H, H/n and H(a-b) stand alone, for a minute or an hour")
    low, high, step = (int(form[1] or field.low), int(form[2] or field.high), int(form[3] or 1))
    if not field.low <= low <= high <= field.high or step < 1:
        raise ValueError(f"{word!r} is not a {field.name} of {field.low} to {field.high}")
    number = int.from_bytes(hashlib.sha256(f"{seed} {field.name}".encode()).digest()[:8], "big")
    if not form[3]:
        return str(low + number % (high - low + 1))
    return ",".join(map(str, range(low + number % min(step, high - low + 1), high + 1, step)))


def _values(field: Field, part: str, text: str) -> range:
    """The values which one part of a field's list stands for: `*`, `*/n`, `a`, `a-b` or `a-b/n`."""
    form = re.fullmatch(r"(?:\*|([a-z]+|\d+)(?:-([a-z]+|\d+))?)(?:/(\d+))?", part)
    problem = ValueError(f"{part!r} in the schedule {text!r} is not a {field.name} of {field.low} to {field.high}")
    if not form or (form[3] and form[1] and not form[2]):
        raise problem
    high = 6 if field.names is DAY_NAMES else field.high
    first = _number(field, form[1]) if form[1] else field.low
    last = _number(field, form[2]) if form[2] else (first if form[1] else high)
    step = int(form[3] or 1)
    if first is None or last is None or not field.low <= first <= last <= field.high or step < 1:
        raise problem
    return range(first, last + 1, step)


def _number(field: Field, word: str) -> int | None:
    if word.isdigit():
        return int(word)
    return field.names.index(word) if word and word in field.names else None


def _numbers(values: tuple[int, ...], count: int) -> str:
    return "*" if len(values) == count else ",".join(f"{value:02}" for value in values)


def plan(times: dict[str, str]) -> dict[str, object]:
    """Everything that the role needs of one job's times."""
    faults: list[str] = []
    schedule, calendar, interval = "", "", 0
    text = str(times.pop("schedule", "")).strip()
    seed = str(times.pop("seed", ""))
    try:
        if text:
            parsed = Schedule.parse(text, seed)
            schedule, calendar, interval = parsed.cron(), parsed.calendar(), parsed.interval()
    except ValueError as error:
        faults.append(str(error))
    durations = dict.fromkeys(times, 0)
    for name, duration in times.items():
        try:
            durations[name] = seconds(str(duration))
        except ValueError as error:
            faults.append(f"{name}: {error}")
    return {"schedule": schedule, "calendar": calendar, "interval": interval, "seconds": durations, "faults": faults}


if __name__ == "__main__":
    json.dump(plan(json.loads(sys.argv[1])), sys.stdout)
