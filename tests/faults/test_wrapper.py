"""What the wrapper does with a job's end, its markers and its counters: real bash, real flock."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.jobs import proofs
from tests.faults.jobs.oracle import until
from tests.faults.jobs.proofs import lines, shell, taken
from tests.wrappers import Wrapper

DAY = 86400


def tally(wrapper: Wrapper) -> list[int]:
    """Failures in a row, runs in a row without progress, time of the last progress."""
    return [int(word) for word in (wrapper.dir / ".tally").read_text().split()]


def skips(wrapper: Wrapper) -> list[int]:
    """Skips in all, skips in a row, whether the halt was announced."""
    return [int(word) for word in (wrapper.dir / ".skips").read_text().split()]


def set_tally(wrapper: Wrapper, failures: int, idle: int, progress: float) -> None:
    (wrapper.dir / ".tally").write_text(f"{failures:012d} {idle:012d} {int(progress):012d}\n")


def no_progress_since(wrapper: Wrapper, moment: float) -> None:
    """As if the last unit had been committed at `moment`."""
    failures, idle, _ = tally(wrapper)
    set_tally(wrapper, failures, idle, moment)
    marker = wrapper.dir / ".progress"
    marker.touch()
    os.utime(marker, (moment, moment))


# The exit-code contract


@pytest.mark.parametrize(
    ("code", "outcome", "failures"),
    [
        (0, "drained", 0),
        (3, "more", 0),
        (69, "unreachable", 0),
        (75, "busy", 2),
        (1, "crashed", 3),
        (2, "crashed", 3),
        (124, "crashed", 3),
        (127, "crashed", 3),
        (137, "crashed", 3),
        (143, "crashed", 3),
        (255, "crashed", 3),
    ],
)
def test_each_exit_code_has_its_outcome_and_its_place_in_the_failure_count(
    tmp_path: Path, code: int, outcome: str, failures: int
) -> None:
    wrapper = Wrapper(tmp_path, shell(f"(exit {code})"), failures=99, scheduler="systemd")
    Wrapper(tmp_path, shell("true")).tick()
    set_tally(wrapper, 2, 0, time.time())
    wrapper.path.write_text(wrapper.render())
    answer = wrapper.tick()
    assert answer.returncode == code
    assert wrapper.outcomes()[-1] == outcome
    assert tally(wrapper)[0] == failures
    assert not wrapper.halted
    assert not (wrapper.dir / ".done").exists()


def test_exit_4_halts_although_the_job_wrote_no_marker(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 4"))
    answer = wrapper.tick()
    assert answer.returncode == 0
    assert wrapper.halted
    assert len(lines(answer.stdout + answer.stderr)) == 1
    assert "job halted" in answer.stdout
    assert "gave no reason" in answer.stdout
    assert (wrapper.dir / ".halted").stat().st_size == 4096
    assert not (wrapper.dir / ".reserve").exists()


def test_the_reason_the_job_gave_is_kept_and_told(tmp_path: Path) -> None:
    script = "printf 'time=t job=job reason=\"34 of 100 are gone\"\\n' >$STATE/.halted; exit 4"
    wrapper = Wrapper(tmp_path, shell(script), environment={"STATE": str(tmp_path / "state/jobs/job")})
    answer = wrapper.tick()
    assert "34 of 100 are gone" in answer.stdout
    assert "34 of 100" in (wrapper.dir / ".halted").read_text()


def test_a_marker_written_by_the_job_halts_whatever_the_exit_code(tmp_path: Path) -> None:
    script = "touch $STATE/.halted; exit 0"
    environment = {"STATE": str(tmp_path / "state/jobs/job")}
    wrapper = Wrapper(tmp_path, shell(script), drains=True, environment=environment, scheduler="systemd")
    assert wrapper.tick().returncode == 4
    assert not (wrapper.dir / ".done").exists()


@pytest.mark.parametrize("code", [0, 3, 1, 4, 69, 75])
@pytest.mark.parametrize("drains", [True, False])
def test_done_is_written_only_after_exit_0_of_a_job_that_drains(tmp_path: Path, code: int, drains: bool) -> None:
    wrapper = Wrapper(tmp_path, shell(f"exit {code}"), drains=drains)
    wrapper.tick()
    assert (wrapper.dir / ".done").exists() == (drains and code == 0)


def test_a_done_job_is_not_run_again_until_done_is_removed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    wrapper = Wrapper(tmp_path, shell(f"echo x >>{ran}"), drains=True, scheduler="systemd")
    assert [wrapper.tick().returncode for _ in range(3)] == [0, 0, 0]
    assert ran.read_text() == "x\n"
    (wrapper.dir / ".done").unlink()
    wrapper.tick()
    assert ran.read_text() == "x\nx\n"
    assert wrapper.outcomes() == ["drained", "done", "done", "drained"]


# Markers, reserve, order


def test_a_halted_job_does_not_run(tmp_path: Path) -> None:
    proofs.a_halted_job_does_not_run(tmp_path)


def test_nothing_runs_without_a_full_reserve(tmp_path: Path) -> None:
    proofs.nothing_runs_without_a_full_reserve(tmp_path)


def test_a_running_job_has_a_full_reserve(tmp_path: Path) -> None:
    proofs.a_run_leaves_a_full_reserve(tmp_path)


@pytest.mark.parametrize("content", [b"", b" " * 4095, b"\0" * 4096])
def test_a_reserve_that_is_short_or_was_never_written_is_made_anew(tmp_path: Path, content: bytes) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    wrapper.tick()
    (wrapper.dir / ".reserve").write_bytes(content)
    wrapper.tick()
    assert (wrapper.dir / ".reserve").read_bytes() == b" " * 4096


def test_a_pipe_called_halted_halts_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), scheduler="systemd")
    wrapper.tick()
    os.mkfifo(wrapper.dir / ".halted")
    assert wrapper.tick(timeout=20).returncode == 4


def test_halted_is_looked_at_before_done_and_done_before_the_lock(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 0"), scheduler="systemd")
    wrapper.tick()
    (tmp_path / "lock" / "shared").unlink()
    (wrapper.dir / ".done").touch()
    assert wrapper.tick().returncode == 0
    (wrapper.dir / ".halted").touch()
    assert wrapper.tick().returncode == 4
    (wrapper.dir / ".halted").unlink()
    (wrapper.dir / ".done").unlink()
    assert wrapper.tick().returncode == 66
    assert wrapper.outcomes() == ["drained", "done", "halted", "unable"]


def test_the_reserve_is_looked_at_before_the_lock(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 0"), scheduler="systemd")
    wrapper.tick()
    (tmp_path / "lock" / "shared").unlink()
    (wrapper.dir / ".reserve").unlink()
    (wrapper.dir / ".reserve").mkdir()
    answer = wrapper.tick()
    assert answer.returncode == 1
    assert "no room for the reserve" in answer.stderr


# Counters


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
    wrapper.tick()
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


# Announcing


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
    script = "echo $PPID >$STATE/timeout; touch $STATE/.halted; sleep 30; exit 4"
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
    assert tick.communicate(timeout=30)[0] == ""


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


# Where nothing can be done


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


# Stalling


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


# Re-arming by hand


def test_removing_the_marker_by_hand_rearms_with_a_new_reserve_and_fresh_counters(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 1"), failures=2)
    wrapper.tick()
    wrapper.tick()
    assert wrapper.halted
    (wrapper.dir / ".halted").unlink()
    wrapper.tick()
    assert not wrapper.halted
    assert (wrapper.dir / ".reserve").stat().st_size == 4096
    assert tally(wrapper)[0] == 1
    answer = wrapper.tick()
    assert wrapper.halted
    assert len(lines(answer.stdout)) == 1, "the second halt is announced too"


# Metrics


def test_metrics_tell_the_exit_code_the_markers_and_the_skips(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell(f"exit $(cat {tmp_path}/code)"), drains=True)
    (tmp_path / "code").write_text("3")
    wrapper.tick()
    with taken(tmp_path / "lock" / "shared"):
        wrapper.tick()
    wrapper.tick()
    assert metrics(wrapper) == metrics(wrapper) | {"last_exit_code": 3, "halted": 0, "done": 0, "lock_skips_total": 1}
    assert metrics(wrapper)["interval_seconds"] == 1800
    assert abs(metrics(wrapper)["last_run_timestamp_seconds"] - time.time()) < 60
    (tmp_path / "code").write_text("0")
    wrapper.tick()
    assert metrics(wrapper) == metrics(wrapper) | {"last_exit_code": 0, "halted": 0, "done": 1}
    (wrapper.dir / ".done").unlink()
    (tmp_path / "code").write_text("4")
    wrapper.tick()
    assert metrics(wrapper) == metrics(wrapper) | {"last_exit_code": 4, "halted": 1, "done": 0}


def test_a_halt_found_by_a_later_tick_reaches_the_metrics_and_the_last_run_stays(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    wrapper.tick()
    ran = metrics(wrapper)
    (wrapper.dir / ".halted").touch()
    wrapper.tick()
    assert metrics(wrapper) == ran | {"halted": 1}


def test_a_halt_before_the_first_run_reaches_the_metrics(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    (wrapper.dir / ".halted").touch()
    answer = wrapper.tick()
    assert answer.stderr == ""
    assert metrics(wrapper) == {"halted": 1, "done": 0, "lock_skips_total": 0, "interval_seconds": 1800}


def test_metrics_are_replaced_whole(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    wrapper.tick()
    path = tmp_path / "metrics" / "job.tick.prom"
    with path.open() as old:
        wrapper.tick()
        # Whoever opened the file before keeps a whole one: it was replaced, not written into.
        assert len(old.readlines()) == 7
        assert os.fstat(old.fileno()).st_nlink == 0
    assert [entry.name for entry in (tmp_path / "metrics").iterdir()] == ["job.tick.prom"]


def test_metrics_that_cannot_be_written_never_change_the_outcome(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), scheduler="systemd")
    (tmp_path / "metrics").rmdir()
    answer = wrapper.tick()
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "", "")


def metrics(wrapper: Wrapper) -> dict[str, float]:
    """The wrapper's metrics, without their common prefix."""
    text = (wrapper.home / "metrics" / f"{wrapper.name}.tick.prom").read_text()
    found = re.findall(rf'^tickwork_job_(\w+)\{{job="{wrapper.name}"\}} (\d+)$', text, re.MULTILINE)
    assert len(found) == len(text.splitlines()), text
    return {name: float(value) for name, value in found}


def test_a_halt_that_was_cut_short_before_the_rename_is_completed(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell(f"echo x >>{tmp_path}/ran; exit 3"))
    wrapper.tick()
    (wrapper.dir / ".reserve").write_bytes(b'reason="the breaker opened"'.ljust(4095) + b"\n")
    answer = wrapper.tick()
    assert answer.stdout == "tickwork: job halted: the breaker opened. Then: tickwork explain job\n"
    assert wrapper.halted
    assert (tmp_path / "ran").read_text() == "x\n"
