"""How a pass ends that nothing went wrong in: drained, at its bound, or put off by its upstream."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.runner_kit import JOB, ending_with, last, units
from tickwork.contract.jobs import Job
from tickwork.contract.layout import Layout
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Held, Outcome, Transient
from tickwork.contract.runner import WRAPPED, run_pass
from tickwork.contract.units import Budget

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_an_exhausted_generator_is_drained_and_a_draining_job_is_done(layout: Layout) -> None:
    assert run_pass(JOB, units(3), Budget(), layout, host="h.example") is Outcome.DRAINED
    row = last(layout)
    assert (row.outcome, row.units, row.items, row.host, row.locks) == ("drained", 3, 3, "h.example", "a")
    assert Markers(layout.job("nightly")).done


def test_a_job_that_does_not_drain_is_never_done(layout: Layout) -> None:
    assert run_pass(Job(name="nightly"), units(1), Budget(), layout) is Outcome.DRAINED
    assert not Markers(layout.job("nightly")).done


def test_under_a_wrapper_done_is_the_wrappers_to_write(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WRAPPED, "nightly")
    assert run_pass(JOB, units(1), Budget(), layout) is Outcome.DRAINED
    assert not Markers(layout.job("nightly")).done


def test_a_done_job_is_not_run(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    run_pass(JOB, units(1), Budget(), layout)
    assert run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), layout) is Outcome.DRAINED
    assert "tickwork rearm nightly --done" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(items=3), "bound reached: 3 items"),
        (Budget(seconds=0), "bound reached: 0 seconds"),
        (Budget(items=1), "bound reached: 1 items"),
    ],
)
def test_a_bound_ends_the_pass_with_more(layout: Layout, budget: Budget, reason: str) -> None:
    assert run_pass(JOB, units(50), budget, layout) is Outcome.MORE
    assert last(layout).reason == reason
    assert last(layout).items == (budget.items or 1)
    assert not Markers(layout.job("nightly")).done


@pytest.mark.parametrize(
    "end", [Transient("502 from h"), Held("h.example", dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "answered 429")]
)
def test_a_fault_of_the_upstream_is_more_with_its_reason(layout: Layout, end: Exception) -> None:
    assert run_pass(JOB, ending_with(end), Budget(), layout) is Outcome.MORE
    assert last(layout).reason == str(end)
    assert last(layout).items == 1
