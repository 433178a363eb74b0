"""How a pass ends that nothing went wrong in: drained, at its bound, or put off by its upstream."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.kits.runner import JOB, ending_with, last, units
from tickwork.contract.jobs import Job
from tickwork.contract.markers import Markers
from tickwork.contract.outcomes import Held, Outcome, Transient
from tickwork.contract.paths import Paths
from tickwork.contract.runner import WRAPPED, run_pass
from tickwork.contract.units import Budget

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_an_exhausted_generator_is_drained_and_a_draining_job_is_done(paths: Paths) -> None:
    assert run_pass(JOB, units(3), Budget(), paths, host="h.example") is Outcome.DRAINED
    row = last(paths)
    assert (row.outcome, row.units, row.items, row.host, row.locks) == ("drained", 3, 3, "h.example", "a")
    assert Markers(paths.job("nightly")).done


def test_a_job_that_does_not_drain_is_never_done(paths: Paths) -> None:
    assert run_pass(Job(name="nightly"), units(1), Budget(), paths) is Outcome.DRAINED
    assert not Markers(paths.job("nightly")).done


def test_under_a_wrapper_done_is_the_wrappers_to_write(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WRAPPED, "nightly")
    assert run_pass(JOB, units(1), Budget(), paths) is Outcome.DRAINED
    assert not Markers(paths.job("nightly")).done


def test_a_done_job_is_not_run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    run_pass(JOB, units(1), Budget(), paths)
    assert run_pass(JOB, ending_with(AssertionError("it ran")), Budget(), paths) is Outcome.DRAINED
    assert "tickwork rearm nightly --done" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(items=3), "bound reached: 3 items"),
        (Budget(seconds=0), "bound reached: 0 seconds"),
        (Budget(items=1), "bound reached: 1 item"),
    ],
)
def test_a_bound_ends_the_pass_with_more(paths: Paths, budget: Budget, reason: str) -> None:
    assert run_pass(JOB, units(50), budget, paths) is Outcome.MORE
    assert last(paths).reason == reason
    assert last(paths).items == (budget.items or 1)
    assert not Markers(paths.job("nightly")).done


@pytest.mark.parametrize(
    "end", [Transient("502 from h"), Held("h.example", dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "answered 429")]
)
def test_a_fault_of_the_upstream_is_more_with_its_reason(paths: Paths, end: Exception) -> None:
    assert run_pass(JOB, ending_with(end), Budget(), paths) is Outcome.MORE
    assert last(paths).reason == str(end)
    assert last(paths).items == 1
