"""How long a wait after a fault is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.upstream.backoff import backoff, jittered

SECONDS = st.floats(0, 1e9, allow_subnormal=False)


@pytest.mark.parametrize(
    ("faults_before", "seconds"), [(0, 60), (1, 120), (2, 240), (5, 1920), (6, 3600), (7, 3600), (10**9, 3600)]
)
def test_a_wait_is_the_first_doubled_with_each_fault_up_to_the_cap(faults_before: int, seconds: float) -> None:
    assert backoff(faults_before, 60, 3600) == seconds


@given(st.integers(0, 10**30), SECONDS, SECONDS)
def test_a_wait_is_never_above_the_cap_and_never_below_the_one_before(n: int, first: float, cap: float) -> None:
    wait = backoff(n, first, cap)
    assert min(first, cap) <= wait <= cap
    assert wait <= backoff(n + 1, first, cap) <= max(2 * wait, wait)


@given(st.integers(1100, 10**30), st.floats(1e-9, 1e9), SECONDS)
def test_many_faults_wait_for_the_cap_however_short_the_first_wait_is(n: int, first: float, cap: float) -> None:
    assert backoff(n, first, cap) == cap


@given(SECONDS, st.floats(0, 1))
def test_jitter_is_a_share_more_or_less(seconds: float, share: float) -> None:
    assert seconds * (1 - share) <= jittered(seconds, share) <= seconds * (1 + share) * (1 + 1e-9)


def test_waits_at_the_cap_do_not_march_in_step() -> None:
    waited = {jittered(backoff(n, 60, 3600)) for n in (6, 7, 50) for _ in range(50)}
    assert len(waited) == 150
    assert 3240 <= min(waited) < 3400
    assert 3800 < max(waited) <= 3960
