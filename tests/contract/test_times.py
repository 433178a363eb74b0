"""Times as strangers write them, and as they are written here."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.contract import times

NOON = dt.datetime(2026, 11, 22, 12, 0, 0, 123_456, dt.UTC)
AWARE = st.datetimes(timezones=st.just(dt.UTC))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-22T12:00:00Z", "2026-11-22T12:00:00.000000Z"),
        ("2026-11-22T12:00:00", "2026-11-22T12:00:00.000000Z"),
        ("2026-11-22", "2026-11-22T00:00:00.000000Z"),
        ("2026-11-22T12:00:00.5+02:00", "2026-11-22T10:00:00.500000Z"),
        ("2026-11-22T12:00:00.123456-00:30", "2026-11-22T12:30:00.123456Z"),
        ("0044-03-15T12:00:00Z", "0044-03-15T12:00:00.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_a_time_is_read_as_utc(text: str, shown: str) -> None:
    assert times.show(times.parse(text), "microseconds") == shown


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2026-13-01", "2026-02-30T00:00:00Z", "2026-11-22T25:00:00Z", "10000-01-01", "0000-01-01"),
        *(
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-14:00",
            "2026-11-22T12:00:00+99:00",
            "\ud800",
            "²026-01-01",
        ),
    ],
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        times.parse(text)


@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", fullmatch=True))
def test_nothing_that_a_stranger_writes_raises_anything_else(text: str) -> None:
    try:
        parsed = times.parse(text)
    except ValueError:
        return
    assert parsed.utcoffset() == dt.timedelta()


@given(AWARE)
def test_what_is_written_is_read_again(moment: dt.datetime) -> None:
    assert times.parse(times.show(moment, "microseconds")) == moment
    assert times.parse(times.show(moment)) == moment.replace(microsecond=0)


@given(AWARE, AWARE)
def test_times_as_text_have_the_order_of_the_times(one: dt.datetime, other: dt.datetime) -> None:
    assert (times.show(one, "microseconds") < times.show(other, "microseconds")) == (one < other)


@pytest.mark.parametrize(
    ("precision", "shown"),
    [
        ("seconds", "2026-11-22T12:00:00Z"),
        ("milliseconds", "2026-11-22T12:00:00.123Z"),
        ("microseconds", "2026-11-22T12:00:00.123456Z"),
    ],
)
def test_a_time_is_written_to_the_precision_that_is_wanted(precision: str, shown: str) -> None:
    assert times.show(NOON, precision) == shown  # type: ignore[arg-type]
    elsewhere = NOON.astimezone(dt.timezone(dt.timedelta(hours=-5)))
    assert times.show(elsewhere, precision) == shown  # type: ignore[arg-type]


@given(AWARE, st.floats(allow_nan=False) | st.integers())
def test_no_sum_leaves_the_years_there_are(moment: dt.datetime, seconds: float) -> None:
    total = times.add(moment, seconds)
    assert total == (times.LAST if seconds > 0 else times.FIRST) or abs(
        (total - moment).total_seconds() - seconds
    ) <= max(1e-6, abs(seconds) * 1e-9)


@pytest.mark.parametrize("hours", [14, -12])
def test_a_time_at_either_end_of_the_years_can_be_shown_from_any_zone(hours: int) -> None:
    zone = dt.timezone(dt.timedelta(hours=hours))
    assert times.show(dt.datetime.min.replace(tzinfo=zone)).startswith("0001-01-01T")
    assert times.show(dt.datetime.max.replace(tzinfo=zone)).startswith("9999-12-31T")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (1_795_348_800, "2026-11-22T12:00:00Z"),
        (1e300, "9999-12-31T23:59:59Z"),
        (math.inf, "9999-12-31T23:59:59Z"),
        (-1e12, "0001-01-01T00:00:00Z"),
    ],
)
def test_a_unix_time_beyond_all_years_is_the_end_of_them(seconds: float, shown: str) -> None:
    assert times.show(times.of_unix(seconds)) == shown


def test_no_number_is_no_time() -> None:
    with pytest.raises(ValueError, match="not a number"):
        times.of_unix(math.nan)


def test_now_is_by_this_machines_clock_and_aware() -> None:
    before = dt.datetime.now(dt.UTC)
    assert before <= times.now() <= dt.datetime.now(dt.UTC)
