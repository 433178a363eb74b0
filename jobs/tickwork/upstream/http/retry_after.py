"""Until when a server asked to be left alone, read from the headers of its answer.

Sources: RFC 9110 section 10.2.3 (Retry-After) and 5.6.7 (its dates), the RateLimit header drafts of the IETF httpapi
group (`RateLimit-Reset`, then one `RateLimit` field), and the older `X-RateLimit-Reset`, which some servers send as
seconds and others as a unix time.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from tickwork.upstream.policy import MAX_HOLD_SECONDS

MIN_HOLD_SECONDS = 1.0
# As a delay this is 31 years, as a unix time it is 2001: no server means the first.
_UNIX_TIME_FROM = 1e9
_UNIX_MILLISECONDS_FROM = 1e11

_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_MANY_DIGITS = re.compile(r"[0-9]{16,}")
# `limit=10, remaining=0, reset=5` of the early drafts, `"default";r=0;t=5` of the later ones.
_RATE_LIMIT_ITEM = re.compile(r"(?:^|[;,\s])(remaining|reset|r|t)=([0-9]{1,15})(?![0-9.])")


def told_to_wait(
    headers: Mapping[str, str],
    status: int,
    now: dt.datetime,
    max_hold_seconds: float = MAX_HOLD_SECONDS,
) -> dt.datetime | None:
    """Time (UTC) before which the server does not want to be called again; None if it did not say.

    `headers` are the answer's, in any case; `now` is aware. Retry-After counts with every status but 2xx, and wins over
    the reset of a rate limit, which counts with 429 and 503 or when nothing remains. What cannot be read is ignored.
    The result lies between `now` + 1 s and `now` + `max_hold_seconds` seconds.
    """
    fields = {name.lower(): value.strip() for name, value in headers.items()}
    # Moments are by the server's clock, which may be hours off ours.
    clock = _date(fields.get("date", "")) or now
    seconds: float | None = None
    if not 200 <= status < 300:
        seconds = _retry_after(fields.get("retry-after", ""), clock)
    if seconds is None and (status in (429, 503) or _exhausted(fields)):
        seconds = _reset(fields, clock)
    if seconds is None:
        return None
    held = min(max(seconds, MIN_HOLD_SECONDS), max_hold_seconds)
    return now.astimezone(dt.UTC) + dt.timedelta(seconds=max(held, MIN_HOLD_SECONDS))


def _retry_after(value: str, now: dt.datetime) -> float | None:
    """Seconds from `now` that a Retry-After value means; a header sent twice counts with its longest."""
    delays = [_seconds(part.strip()) for part in value.split(",")]
    if all(delay is not None for delay in delays):
        return max(delay for delay in delays if delay is not None)
    date = _date(value)
    return date.timestamp() - now.timestamp() if date else None


def _date(value: str) -> dt.datetime | None:
    """The HTTP date in `value`, None if it is none."""
    try:
        date = parsedate_to_datetime(value)
        # "-0000" and asctime dates come without a zone; every HTTP date is UTC.
        date = date if date.tzinfo else date.replace(tzinfo=dt.UTC)
        date.timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return date


def _seconds(value: str) -> float | None:
    if _SECONDS.fullmatch(value):
        return float(value)
    return float("inf") if _MANY_DIGITS.fullmatch(value) else None


def _exhausted(fields: Mapping[str, str]) -> bool:
    """True if a rate limit header says that no request remains in this window."""
    remaining = [fields.get("ratelimit-remaining", ""), fields.get("x-ratelimit-remaining", "")]
    remaining += [value for name, value in _RATE_LIMIT_ITEM.findall(_rate_limit(fields)) if name in ("remaining", "r")]
    return any(re.fullmatch("0+", value) for value in remaining)


def _reset(fields: Mapping[str, str], now: dt.datetime) -> float | None:
    """Seconds from `now` to the latest reset among the rate limit headers."""
    values = [fields.get("ratelimit-reset", ""), fields.get("x-ratelimit-reset", "")]
    values += [value for name, value in _RATE_LIMIT_ITEM.findall(_rate_limit(fields)) if name in ("reset", "t")]
    found = [seconds for seconds in map(_seconds, values) if seconds is not None]
    return max((_delay(seconds, now) for seconds in found), default=None)


def _rate_limit(fields: Mapping[str, str]) -> str:
    return fields.get("ratelimit", "").lower()


def _delay(value: float, now: dt.datetime) -> float:
    """Seconds from `now`, for a figure that is a delay, a unix time or a unix time in milliseconds."""
    if value < _UNIX_TIME_FROM:
        return value
    return (value / 1000 if value >= _UNIX_MILLISECONDS_FROM else value) - now.timestamp()
