"""What a pass tells: its job of the arming, the ledger of warnings, the machine of progress and figures."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator

import pytest

from tests.kits.runner import ITEMS, JOB, Store, ending_with, last, units
from tickwork.contract import runner
from tickwork.contract.jobs import Job
from tickwork.contract.ledger import Ledger
from tickwork.contract.outcomes import OperatorError, Outcome, Transient
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass, Work, run_pass
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


class Beats:
    """A clock of the runner's that moves on by a second a unit, and what others see of the pass at each unit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
        self.now = 0.0
        self.paths = paths
        self.seen: list[tuple[int, int, int | None]] = []
        self.marks: list[float] = []
        monkeypatch.setattr(runner.time, "monotonic", lambda: self.now)

    def work(self, count: int, *, progress: bool = True) -> Work:
        def units_of(one_pass: Pass) -> Iterator[Unit]:
            for number in range(count):
                self.now += 1
                one_pass.backlog = count - number
                yield Unit(items=2, progress=progress)
                self._look()

        return units_of

    def _look(self) -> None:
        with Ledger(self.paths.database("ledger"), read_only=True) as ledger:
            (row,) = ledger.running()
            assert (row.ended, row.outcome) == (None, None)
            assert ledger.last(row.job) is None, "no success, no end"
        self.seen.append((row.units, row.items, row.backlog))
        mark = self.paths.job("nightly") / ".progress"
        self.marks.append(mark.stat().st_mtime_ns if mark.exists() else 0)


def test_every_ten_seconds_the_open_row_tells_how_far_the_pass_is(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Beats(monkeypatch, paths)
    run_pass(Job(name="nightly"), beats.work(25), Budget(clock=lambda: 0.0), paths)
    first, second, third = (0, 0, None), (10, 20, 16), (20, 40, 6)
    assert beats.seen == [first] * 9 + [second] * 10 + [third] * 6
    assert len(set(beats.marks)) == 3, "at the first unit, and with each beat"


def test_a_beat_without_progress_is_no_mark_of_progress(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = Beats(monkeypatch, paths)
    run_pass(Job(name="nightly"), beats.work(12, progress=False), Budget(clock=lambda: 0.0), paths)
    assert beats.seen[-1][0] == 10
    assert set(beats.marks) == {0}


def test_a_beat_brings_the_backlog_into_the_metrics_and_neither_an_end_nor_a_success(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paths.metrics_dir / "nightly.pass.prom"
    beats = Beats(monkeypatch, paths)
    run_pass(Job(name="nightly"), beats.work(1), Budget(clock=lambda: 0.0), paths)
    of_the_end = [line for line in path.read_text().splitlines() if "timestamp" in line or "duration" in line]
    assert len(of_the_end) == 3
    told: list[list[str]] = []

    def work(one_pass: Pass) -> Iterator[Unit]:
        for number in range(11):
            beats.now += 1
            one_pass.backlog = 100 - number
            yield Unit()
        told.append(path.read_text().splitlines())

    run_pass(Job(name="nightly"), work, Budget(clock=lambda: 0.0), paths)
    assert {*of_the_end, 'tickwork_job_backlog{job="nightly"} 91', 'tickwork_job_pass_items{job="nightly"} 10'} == {
        line.removesuffix(".0") if "backlog" in line or "items" in line else line for line in told[0]
    }


def test_news_that_cannot_be_written_costs_the_news_alone(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OperatorError("cannot write the ledger: disk full")

    beats = Beats(monkeypatch, paths)
    monkeypatch.setattr(Ledger, "update_pass", full)
    outcome = run_pass(Job(name="nightly"), beats.work(12), Budget(clock=lambda: 0.0), paths)
    assert outcome is Outcome.DRAINED
    assert last(paths).items == 24
