"""Failures in a row, and days without progress, halt a job; nothing else that is counted does."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.faults.jobs.proofs import lines, shell, taken
from tests.kits.wrapper import DAY, no_progress_since, set_tally, tally
from tests.kits.wrappers import Wrapper


@pytest.mark.parametrize("good", [0, 3])
def test_only_failures_in_a_row_are_counted(tmp_path: Path, good: int) -> None:
    wrapper = Wrapper(tmp_path, shell(f"exit $(cat {tmp_path}/code)"), failures=3)
    for code in (1, 1, good, 137, 124):
        (tmp_path / "code").write_text(str(code))
        assert lines(wrapper.tick().stdout) == []
    assert tally(wrapper)[0] == 2
    assert not wrapper.halted
    (tmp_path / "code").write_text("1")
    answer = wrapper.tick()
    assert wrapper.halted
    assert len(lines(answer.stdout + answer.stderr)) == 1
    assert "3 failures in a row, the last with exit 1" in answer.stdout


@pytest.mark.parametrize("limit", [0, 1])
def test_a_limit_of_none_or_one_halts_at_the_first_failure_and_not_before(tmp_path: Path, limit: int) -> None:
    wrapper = Wrapper(tmp_path, shell(f"exit $(cat {tmp_path}/code)"), failures=limit)
    (tmp_path / "code").write_text("3")
    wrapper.tick()
    assert not wrapper.halted
    (tmp_path / "code").write_text("1")
    assert "failed once, with exit 1" in wrapper.tick().stdout
    assert wrapper.halted


def test_a_garbled_counter_counts_as_nothing_and_is_mended(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 1"), stalled=DAY)
    wrapper.tick()
    for garbage in (b"", b"\xff\xfe garbage; $(touch x)", b"1 2", b"-5 x y"):
        (wrapper.dir / ".tally").write_bytes(garbage)
        (wrapper.dir / ".skips").write_bytes(garbage)
        answer = wrapper.tick()
        assert "syntax" not in answer.stderr
        assert not wrapper.halted
    assert re.fullmatch(r"\d{12} \d{12} \d{12}", (wrapper.dir / ".tally").read_text().splitlines()[0])


def test_three_runs_without_progress_halt_once_the_days_are_over(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), stalled=7 * DAY)
    wrapper.tick()
    for run in (2, 3):  # in a row, the first tick included
        assert not wrapper.halted, f"halted before run {run}"
        no_progress_since(wrapper, time.time() - 8 * DAY)
        answer = wrapper.tick()
    assert wrapper.halted
    assert "no unit done and no success for 8 days" in answer.stdout


def test_many_runs_without_progress_do_not_halt_before_the_days_are_over(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), stalled=7 * DAY)
    wrapper.tick()
    no_progress_since(wrapper, time.time() - 6 * DAY)
    for _ in range(6):
        wrapper.tick()
    assert tally(wrapper)[1] >= 6
    assert not wrapper.halted


@pytest.mark.parametrize("sign", ["unit", "success"])
def test_a_unit_or_a_success_starts_the_days_afresh(tmp_path: Path, sign: str) -> None:
    progress = tmp_path / "state/jobs/job/.progress"
    wrapper = Wrapper(tmp_path, shell(f"touch {progress}; exit 3" if sign == "unit" else "exit 0"), stalled=7 * DAY)
    wrapper.tick()
    for _ in range(5):
        no_progress_since(wrapper, time.time() - 8 * DAY)
        wrapper.tick()
        assert tally(wrapper)[1] == 0
        assert tally(wrapper)[2] >= time.time() - 60
    assert not wrapper.halted


def test_a_host_that_was_off_for_days_does_not_halt_at_its_first_ticks(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), stalled=7 * DAY)
    wrapper.tick()
    set_tally(wrapper, 0, 0, time.time() - 30 * DAY)
    wrapper.tick()
    wrapper.tick()
    assert not wrapper.halted


def test_a_lock_that_stays_busy_for_days_halts_the_job_that_waits_for_it(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    wrapper = Wrapper(tmp_path, shell(f"touch {ran}"), stalled=7 * DAY, scheduler="systemd")
    Wrapper(tmp_path, shell("exit 3")).tick()
    wrapper.path.write_text(wrapper.render())
    no_progress_since(wrapper, time.time() - 8 * DAY)
    with taken(tmp_path / "lock" / "shared"):
        assert [wrapper.tick().returncode for _ in range(4)] == [75, 75, 4, 4]
    assert "skipped 3 times in a row" in (wrapper.dir / ".halted").read_text()
    assert not ran.exists()
