"""What a pass tells: its job of the arming, the ledger of warnings, the machine of progress and figures."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator

import pytest

from tests.kits.runner import ITEMS, JOB, Store, ending_with, last, units
from tickwork.contract.jobs import Job
from tickwork.contract.outcomes import Outcome, Transient
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass, run_pass
from tickwork.contract.units import Budget, Unit

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_a_job_knows_since_when_it_is_armed(paths: Paths) -> None:
    seen: list[dt.datetime] = []

    def work(one_pass: Pass) -> Iterator[Unit]:
        seen.append(one_pass.armed)
        yield Unit()

    run_pass(Job(name="nightly"), work, Budget(), paths)
    run_pass(Job(name="nightly"), work, Budget(), paths)
    assert seen[0] == seen[1]
    assert abs((dt.datetime.now(dt.UTC) - seen[0]).total_seconds()) < 60


def test_what_a_job_warns_of_is_in_the_ledger_of_a_drained_pass(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        one_pass.warn("the server miscounts")
        yield Unit()

    run_pass(JOB, work, Budget(), paths)
    assert last(paths).reason == "the server miscounts"
    assert "nightly: warning: the server miscounts" in capsys.readouterr().err


def test_progress_is_noted_for_units_that_are_progress(paths: Paths) -> None:
    def put_off(one_pass: Pass) -> Iterator[Unit]:
        yield Unit(items=0, progress=False)

    run_pass(Job(name="nightly"), put_off, Budget(), paths)
    assert not (paths.job("nightly") / ".progress").exists()
    run_pass(Job(name="nightly"), units(1), Budget(), paths)
    assert (paths.job("nightly") / ".progress").exists()


def test_the_metrics_of_a_pass_keep_the_last_success(paths: Paths) -> None:
    path = paths.metrics_dir / "nightly.pass.prom"

    def metric(name: str) -> float:
        (line,) = [line for line in path.read_text().splitlines() if line.startswith(f"tickwork_job_{name}{{")]
        assert 'job="nightly"' in line
        return float(line.split()[-1])

    store = Store(paths)
    run_pass(JOB, store.work, Budget(items=3), paths)
    success = metric("last_success_timestamp_seconds")
    assert abs(success - time.time()) < 60
    assert (metric("pass_items"), metric("backlog")) == (3, ITEMS - 3)
    run_pass(JOB, ending_with(RuntimeError()), Budget(), paths)
    assert metric("last_success_timestamp_seconds") == success
    assert metric("pass_end_timestamp_seconds") > success
    assert [entry.name for entry in paths.metrics_dir.iterdir()] == ["nightly.pass.prom"]


def test_a_metrics_folder_that_cannot_be_used_never_changes_an_outcome(paths: Paths) -> None:
    paths.state.mkdir(exist_ok=True)
    paths.metrics_dir.write_text("in the way")
    assert run_pass(JOB, units(1), Budget(), paths) is Outcome.DRAINED


def test_the_log_has_one_line_a_pass(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    run_pass(JOB, ending_with(Transient('it said "no"\nand hung up'), after=2), Budget(), paths)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("time=20")
    assert "job=nightly pass=more items=2 bytes=0 seconds=" in line
    assert line.endswith("""reason="it said 'no' and hung up\"""")
