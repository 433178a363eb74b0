"""Until when a server asked to be left alone."""

from __future__ import annotations

import datetime as dt

import pytest

from tickwork.upstream.http.retry_after import told_to_wait

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
WEEK = 7 * 86_400


def wait(status: int = 429, **headers: str) -> float | None:
    until = told_to_wait({name.replace("_", "-"): value for name, value in headers.items()}, status, NOW)
    return None if until is None else (until - NOW).total_seconds()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("0", 1),
        ("120, 30", 120),
        ("9" * 5000, WEEK),
        ("Sun, 01 Mar 2026 12:05:00 GMT", 300),
        ("Sunday, 01-Mar-26 12:05:00 GMT", 300),
        ("Sun Mar  1 12:05:00 2026", 300),
        ("Sun, 01 Mar 2026 12:05:00 -0000", 300),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 1),
        ("Sun, 01 Mar 2099 12:00:00 GMT", WEEK),
    ],
)
def test_retry_after_in_every_form(value: str, seconds: float) -> None:
    assert wait(Retry_After=value) == seconds


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e3", "١٢٠", "0x10", "Sun, 99 Mar 2026 12:05:00 GMT", "12 30"])
def test_garbage_is_ignored(value: str) -> None:
    assert wait(Retry_After=value) is None
    assert wait(RateLimit_Reset=value) is None


@pytest.mark.parametrize("name", ["RateLimit-Reset", "X-RateLimit-Reset", "x-ratelimit-reset"])
def test_a_reset_may_be_a_delay_or_a_unix_time(name: str) -> None:
    unix = NOW.timestamp() + 90
    for value in ("90", str(int(unix)), str(int(unix * 1000))):
        assert wait(**{name: value}) == 90


@pytest.mark.parametrize(
    "value", ["limit=10, remaining=0, reset=50", '"default";r=0;t=50', '"a";r=7;t=9, "b";r=0;t=50']
)
def test_the_combined_field_of_both_drafts(value: str) -> None:
    assert wait(status=200, RateLimit=value) == 50


def test_a_reset_counts_only_when_the_server_refuses_or_nothing_remains() -> None:
    assert wait(status=200, RateLimit_Reset="50", RateLimit_Remaining="3") is None
    assert wait(status=200, RateLimit_Reset="50") is None
    assert wait(status=200, RateLimit_Reset="50", RateLimit_Remaining="0") == 50
    assert wait(status=503, X_RateLimit_Reset="50") == 50


def test_retry_after_wins_over_a_reset_and_counts_with_every_refusal() -> None:
    assert wait(Retry_After="20", RateLimit_Reset="900") == 20
    assert wait(Retry_After="soon", RateLimit_Reset="900") == 900
    assert wait(status=403, Retry_After="20") == 20
    assert wait(status=200, Retry_After="20") is None


@pytest.mark.parametrize("hours", [-5, 0, 3, 30])
def test_moments_are_by_the_clock_of_the_server_that_names_them(hours: int) -> None:
    theirs = NOW + dt.timedelta(hours=hours)

    def shown(moment: dt.datetime) -> str:
        return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")

    in_five_minutes = theirs + dt.timedelta(minutes=5)
    assert wait(Date=shown(theirs), Retry_After=shown(in_five_minutes)) == 300
    assert wait(Date=shown(theirs), X_RateLimit_Reset=str(int(in_five_minutes.timestamp()))) == 300
    assert wait(Date=shown(theirs), Retry_After="120") == 120


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 99 Mar 2026 12:00:00 GMT"])
def test_without_a_date_that_can_be_read_our_own_clock_is_the_measure(date: str) -> None:
    assert wait(Date=date, Retry_After="Sun, 01 Mar 2026 12:05:00 GMT") == 300
