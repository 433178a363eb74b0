"""`tickwork check`: a set of jobs that would stall is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tickwork.contract.jobs import Job
from tickwork.contract.paths import Paths
from tickwork.operate.schedule_rules import faults

HARVEST = {"name": "harvest", "locks": ("oai",), "lock_wait": "30m", "schedule": "30 4 * * *"}
BACKFILL = {"name": "backfill", "locks": ("oai",), "schedule": "*/30 * * * *", "drains": True}


def told(tmp_path: Path, *jobs: dict[str, object]) -> list[str]:
    return faults({str(job["name"]): Job(**job) for job in jobs}, Paths.under(tmp_path))


def test_a_harvest_that_waits_longer_than_the_backfill_runs_is_fine(tmp_path: Path) -> None:
    assert told(tmp_path, HARVEST, BACKFILL) == []


def test_a_harvest_that_never_waits_starves_when_the_backfill_ticks_with_it(tmp_path: Path) -> None:
    (fault,) = told(tmp_path, {**HARVEST, "lock_wait": "0"}, BACKFILL)
    assert fault.startswith("harvest does not wait for its locks, and at each of its ticks backfill may hold them")


def test_a_harvest_that_never_waits_is_fine_where_nobody_else_can_run(tmp_path: Path) -> None:
    assert told(tmp_path, {**HARVEST, "lock_wait": "0", "schedule": "55 4 * * *"}, BACKFILL) == []


def test_a_wait_shorter_than_the_others_may_run_is_refused(tmp_path: Path) -> None:
    (fault,) = told(tmp_path, {**HARVEST, "lock_wait": "22m"}, BACKFILL)
    assert "harvest waits 1320 s for its locks, but backfill may hold them for 1320 s in turn" in fault


def test_a_timeout_as_long_as_the_interval_is_refused(tmp_path: Path) -> None:
    (fault,) = told(tmp_path, {**BACKFILL, "timeout": "28m"})
    assert "backfill may run 1680 s and 120 s more until it is killed, but ticks every 1800 s" in fault


def test_a_drain_must_not_wait(tmp_path: Path) -> None:
    (fault,) = told(tmp_path, {**BACKFILL, "lock_wait": "5m"})
    assert fault.startswith("backfill drains")


@pytest.mark.parametrize("schedule", ["every day", "61 * * * *", "* * * *"])
def test_a_schedule_that_cannot_be_read_is_refused(tmp_path: Path, schedule: str) -> None:
    (fault,) = told(tmp_path, {**BACKFILL, "schedule": schedule})
    assert fault.startswith(f"backfill: the schedule {schedule!r} cannot be read")


CONSUME = {
    "name": "consume",
    "command": ["pulse", "consume", "--seconds", "3300"],
    "locks": ["queue"],
    "schedule": "* * * * *",
    "timeout": "1h",
    "continues": True,
}


def test_a_job_that_continues_may_outlast_its_interval(tmp_path: Path) -> None:
    assert told(tmp_path, CONSUME) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"drains": True}, "consume continues, so it never drains"),
        ({"lock_wait": "5m"}, "consume continues, so it comes back at the next tick and must not wait 5m"),
        ({"command": ["pulse", "consume"]}, "consume continues, so its command needs --seconds"),
        ({"command": ["pulse", "consume", "--seconds", "3600"]}, "consume continues, so its command needs --seconds"),
        ({"command": ["pulse", "consume", "--seconds"]}, "consume continues, so its command needs --seconds"),
    ],
)
def test_a_job_that_continues_ends_its_passes_by_itself_and_waits_for_nobody(
    tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    assert told(tmp_path, {**CONSUME, **change})[0].startswith(fault)


@pytest.mark.parametrize(("lock_wait", "starves"), [("0", True), ("1h", True), ("62m", True), ("63m", False)])
def test_who_shares_a_lock_with_one_that_continues_waits_longer_than_its_longest_pass(
    tmp_path: Path, lock_wait: str, starves: bool
) -> None:
    other = {**BACKFILL, "locks": ["queue"], "drains": False, "schedule": "0 4 * * *", "lock_wait": lock_wait}
    assert bool(told(tmp_path, CONSUME, other)) is starves


def test_what_a_deployed_job_needs_must_be_there(tmp_path: Path) -> None:
    found = told(tmp_path, {**BACKFILL, "wrapper": str(tmp_path / "wrapper")})
    assert [fault.split("its ")[1].split(" ")[0] for fault in found] == ["wrapper", "state", "lock", "lock"]


def test_the_command_names_the_faults_and_exits_with_2(tmp_path: Path) -> None:
    settings = tmp_path / "tickwork.toml"
    settings.write_text('[jobs.drain]\ncommand = ["x"]\nschedule = "* * * * *"\n')
    command = [sys.executable, "-m", "tickwork", "--config", str(settings), "--state", str(tmp_path), "check"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "drain may run 1200 s" in json.loads(done.stdout)[0]
    settings.write_text('[jobs.drain]\ncommand = ["x"]\nschedule = "0 * * * *"\n')
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "no problems found; jobs checked: 1\n")


def test_a_wrong_key_of_any_source_is_found_before_a_pass_meets_it(tmp_path: Path) -> None:
    settings = tmp_path / "tickwork.toml"
    settings.write_text("[atproto]\nhost_rate = 0.1\n")
    command = [sys.executable, "-m", "tickwork", "--config", str(settings), "--state", str(tmp_path), "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "`host_rate` is now called `host_interval_seconds`" in done.stderr
