"""A job never overlaps itself; one that continues says nothing of the ticks that come during its pass."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.jobs.oracle import Oracle
from tests.faults.jobs.proofs import shell, taken, visitor
from tests.kits.patience import PATIENCE_SECONDS
from tests.kits.wrapper import DAY, is_free, no_progress_since, set_tally, skips, tally
from tests.kits.wrappers import Wrapper


def test_a_job_without_any_lock_does_not_overlap_itself(tmp_path: Path) -> None:
    with Oracle() as oracle:
        job = Wrapper(tmp_path, visitor(oracle, 300), locks=[], scheduler="systemd")
        tick = job.start()
        oracle.wait_for("job")
        assert job.tick().returncode == 75
        assert len(oracle.seen()) == 1
        assert not is_free(tmp_path / "lock" / "job.job")
        tick.terminate()
        tick.communicate(timeout=PATIENCE_SECONDS)
        assert is_free(tmp_path / "lock" / "job.job")


def test_its_own_lock_keeps_no_other_job_waiting(tmp_path: Path) -> None:
    with Oracle() as oracle:
        first = Wrapper(tmp_path, visitor(oracle, 300), name="first", locks=[], scheduler="systemd")
        second = Wrapper(tmp_path, shell("exit 3"), name="second", locks=[], scheduler="systemd")
        tick = first.start()
        oracle.wait_for("job")
        assert second.tick().returncode == 3
        tick.terminate()
        tick.communicate(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("locks", [["shared"], []], ids=["shared", "own"])
@pytest.mark.parametrize("scheduler", ["cron", "systemd"])
def test_a_tick_during_the_pass_of_a_job_that_continues_leaves_no_trace(
    tmp_path: Path, locks: list[str], scheduler: str
) -> None:
    with Oracle() as oracle:
        job = Wrapper(tmp_path, visitor(oracle, 300), locks=locks, continues=True, scheduler=scheduler)
        tick = job.start()
        oracle.wait_for("job")
        metrics = tmp_path / "metrics" / "job.tick.prom"
        before = (job.log.read_text(), skips(job), tally(job), metrics.exists())
        for _ in range(3):
            answer = job.tick()
            assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
        assert (job.log.read_text(), skips(job), tally(job), metrics.exists()) == before
        assert len(oracle.seen()) == 1
        tick.terminate()
        tick.communicate(timeout=PATIENCE_SECONDS)
        oracle.wait_until_alone()
        job.start().terminate()
        assert job.outcomes()[0] == "more"


def test_by_hand_one_is_told_that_its_pass_is_under_way(tmp_path: Path) -> None:
    with Oracle() as oracle:
        job = Wrapper(tmp_path, visitor(oracle, 300), continues=True, scheduler="hand", environment={})
        tick = job.start()
        oracle.wait_for("job")
        answer = subprocess.run(
            [job.path], env={"TICK_FOREGROUND": "1"}, capture_output=True, text=True, timeout=60, check=False
        )
        assert (answer.returncode, answer.stderr) == (75, "tickwork: job busy: its pass is under way\n")
        tick.terminate()
        tick.communicate(timeout=PATIENCE_SECONDS)


def test_a_job_that_continues_still_counts_the_ticks_that_another_job_takes_from_it(tmp_path: Path) -> None:
    job = Wrapper(tmp_path, shell("exit 3"), continues=True, scheduler="systemd")
    with taken(tmp_path / "lock" / "shared"):
        for count in (1, 2):
            assert job.tick().returncode == 75
            assert skips(job)[:2] == [count, count]
    assert job.outcomes() == ["busy", "busy"]
    assert is_free(tmp_path / "lock" / "job.job"), "to look at its lock is not to keep it"
    assert job.tick().returncode == 3


def test_a_pass_that_makes_progress_is_not_taken_for_a_stall_by_the_ticks_it_skips(tmp_path: Path) -> None:
    job = Wrapper(tmp_path, shell("exit 3"), stalled=7 * DAY, scheduler="systemd")
    job.tick()
    with taken(tmp_path / "lock" / "shared"):
        set_tally(job, 0, 0, 1)  # the last that a pass wrote of its progress is very old
        os.utime(job.dir / ".tally", (1, 1))
        (job.dir / ".progress").touch()
        for _ in range(4):
            assert job.tick().returncode == 75
        assert not job.halted
        no_progress_since(job, 1)
        (job.dir / ".tally").touch()
        assert job.tick().returncode == 4
    assert job.halted
