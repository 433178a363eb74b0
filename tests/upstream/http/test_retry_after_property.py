"""Whatever a server sends, the wait it asks for is bounded, and reading it never fails."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime

from hypothesis import example, given
from hypothesis import strategies as st

from tickwork.upstream.http.retry_after import told_to_wait

NAMES = ["Retry-After", "RateLimit-Reset", "X-RateLimit-Reset", "RateLimit", "RateLimit-Remaining"]
moments = st.datetimes(
    min_value=dt.datetime(1990, 1, 1),
    max_value=dt.datetime(2090, 1, 1),
    timezones=st.just(dt.UTC),
)
values = st.one_of(
    st.binary(max_size=60).map(lambda data: data.decode("latin-1")),
    st.integers(-10, 10**25).map(str),
    st.floats().map(str),
    moments.map(lambda moment: format_datetime(moment, usegmt=True)),
    st.from_regex(r'("x")?;?(r|remaining)=[0-9]{1,20}[,;] ?(t|reset)=[0-9]{1,20}', fullmatch=True),
    st.from_regex(
        r"[A-Z][a-z]{2}, [0-9]{1,9} [A-Z][a-z]{2} [0-9]{1,9} [0-9:]{1,12} [+-]?[0-9A-Z]{1,9}", fullmatch=True
    ),
)


@given(
    headers=st.dictionaries(st.sampled_from(NAMES), values),
    status=st.integers(100, 599),
    now=moments,
    max_hold_seconds=st.floats(1, 1e8),
)
@example({"Retry-After": "Mon, 01 Jan 0001 00:00:00 +9999"}, 429, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), 60.0)
@example({"Retry-After": "1" * 4301}, 429, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), 60.0)
def test_the_wait_never_leaves_its_bounds(
    headers: dict[str, str], status: int, now: dt.datetime, max_hold_seconds: float
) -> None:
    until = told_to_wait(headers, status, now, max_hold_seconds)
    if until is not None:
        assert until.tzinfo is dt.UTC
        waited = (until - now).total_seconds()
        assert 1.0 <= waited <= max_hold_seconds + 1e-6


@given(seconds=st.integers(1, 600_000), now=moments)
def test_a_delay_and_the_date_it_ends_at_mean_the_same(seconds: int, now: dt.datetime) -> None:
    now = now.replace(microsecond=0)
    date = format_datetime(now + dt.timedelta(seconds=seconds), usegmt=True)
    by_delay = told_to_wait({"Retry-After": str(seconds)}, 503, now)
    assert by_delay == told_to_wait({"Retry-After": date}, 503, now)
