"""The scheduler hears of a halt once, of a tick that cannot work every time, of a good one never."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.jobs.proofs import lines, shell, taken
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.wrappers import Wrapper


def test_a_halt_is_one_cron_line_at_the_transition_and_none_after(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 4"))
    said = [wrapper.tick() for _ in range(4)]
    assert [len(lines(tick.stdout + tick.stderr)) for tick in said] == [1, 0, 0, 0]
    assert {tick.returncode for tick in said} == {0}


def test_a_good_tick_says_nothing_to_cron(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("echo noise; echo more noise >&2; exit 3"))
    answer = wrapper.tick()
    assert answer.stdout + answer.stderr == ""
    assert "more noise" in wrapper.log.read_text()


def test_a_halt_made_by_hand_is_announced_once(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    wrapper.tick()
    (wrapper.dir / ".halted").write_text("maintenance until Monday\n")
    said = [wrapper.tick() for _ in range(3)]
    assert ["maintenance until Monday" in tick.stdout for tick in said] == [True, False, False]


def test_each_of_two_halts_is_announced_also_when_the_reserve_stayed(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    wrapper.tick()
    for _ in range(2):
        (wrapper.dir / ".halted").touch()
        assert [len(lines(wrapper.tick().stdout)) for _ in range(2)] == [1, 0]
        (wrapper.dir / ".halted").unlink()
        with taken(tmp_path / "lock" / "shared"):  # so that no run resets anything
            wrapper.tick()
        assert wrapper.outcomes()[-1] == "busy"


def test_a_halt_that_the_killed_wrapper_could_not_tell_is_announced_by_the_next_tick(tmp_path: Path) -> None:
    environment = {"STATE": str(tmp_path / "state/jobs/job")}
    script = "echo $PPID >$STATE/timeout; touch $STATE/.halted; sleep 300; exit 4"
    wrapper = Wrapper(tmp_path, shell(script), environment=environment)
    tick = wrapper.start()
    until(lambda: wrapper.halted, "the job did not halt")
    tick.kill()
    assert tick.communicate()[0] == ""
    said = [wrapper.tick() for _ in range(3)]
    assert [len(lines(answer.stdout)) for answer in said] == [1, 0, 0]
    os.kill(int((wrapper.dir / "timeout").read_text()), 9)


def test_a_tick_that_meets_the_halt_first_leaves_the_wrapper_nothing_to_announce(tmp_path: Path) -> None:
    environment = {"STATE": str(tmp_path / "state/jobs/job")}
    script = "touch $STATE/.halted; while ! [ -e $STATE/go-on ]; do sleep 0.01; done; exit 4"
    wrapper = Wrapper(tmp_path, shell(script), environment=environment)
    tick = wrapper.start()
    until(lambda: wrapper.halted, "the job did not halt")
    assert len(lines(wrapper.tick().stdout)) == 1
    (wrapper.dir / "go-on").touch()
    assert tick.communicate(timeout=PATIENCE_SECONDS)[0] == ""


@pytest.mark.parametrize(("scheduler", "code"), [("cron", 0), ("systemd", 4), ("hand", 4)])
def test_only_cron_is_told_that_all_is_well(tmp_path: Path, scheduler: str, code: int) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 4"), scheduler=scheduler)
    assert [wrapper.tick().returncode for _ in range(2)] == [code, code]


def test_the_environment_chooses_the_scheduler_for_a_run_by_hand(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("echo seen; exit 3"))
    environment = {**os.environ, "TICK_SCHEDULER": "hand", "TICK_FOREGROUND": "1"}
    answer = subprocess.run([wrapper.path], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 3
    assert answer.stdout == "seen\n"
    assert "job more: exit 3" in answer.stderr


@pytest.mark.parametrize("spoil", ["missing state", "missing lock", "unwritable log"])
def test_a_tick_that_cannot_work_says_so_every_time_and_starts_nothing(tmp_path: Path, spoil: str) -> None:
    ran = tmp_path / "ran"
    wrapper = Wrapper(tmp_path, shell(f"touch {ran}"))
    if spoil == "missing state":
        wrapper.dir.rmdir()
    elif spoil == "missing lock":
        (tmp_path / "lock" / "shared").unlink()
    else:
        wrapper.log.mkdir()
    for _ in range(2):
        answer = wrapper.tick()
        assert answer.returncode == 0
        assert len(lines(answer.stdout + answer.stderr)) == 1
        assert "job cannot run" in answer.stderr
    assert not ran.exists()
    assert not (tmp_path / "lock" / "shared").exists() or spoil != "missing lock"


@pytest.mark.parametrize(("spoil", "code"), [("state", 1), ("lock", 66)])
def test_systemd_sees_a_failure_when_a_tick_cannot_work(tmp_path: Path, spoil: str, code: int) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), scheduler="systemd")
    if spoil == "state":
        wrapper.dir.rmdir()
    else:
        (tmp_path / "lock" / "shared").unlink()
    assert wrapper.tick().returncode == code
