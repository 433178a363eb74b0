"""Locks, waiting, signals and process groups of the wrapper: real bash, real flock."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.jobs import proofs
from tests.faults.jobs.oracle import Oracle, until
from tests.faults.jobs.proofs import JOBS, shell, taken, visitor
from tests.wrappers import ROOT, Wrapper


def numbers(wrapper: Wrapper, name: str) -> list[int]:
    return [int(word) for word in (wrapper.dir / name).read_text().split()]


def is_free(lock: Path) -> bool:
    return subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode == 0


# A busy lock


def test_second_tick_is_skipped_while_the_first_holds_the_lock(tmp_path: Path) -> None:
    with Oracle() as oracle:
        first = Wrapper(tmp_path, visitor(oracle, 30), name="first")
        second = Wrapper(tmp_path, visitor(oracle, 0), name="second", scheduler="systemd")
        tick = first.start()
        oracle.wait_for("job")
        for count in (1, 2):
            answer = second.tick()
            assert (answer.returncode, answer.stdout, answer.stderr) == (75, "", "")
            assert numbers(second, ".skips")[:2] == [count, count]
        assert second.outcomes() == ["busy", "busy"]
        assert len(oracle.seen()) == 1, "a skipped tick started its job"
        tick.terminate()
        tick.communicate(timeout=30)
        second.tick()
        assert numbers(second, ".skips") == [2, 0, 0]


def test_a_skipped_tick_starts_no_python(tmp_path: Path) -> None:
    started = tmp_path / "started"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"open({str(started)!r}, 'w').close()\n")
    job = Wrapper(
        tmp_path, [sys.executable, "-c", "raise SystemExit(3)"], environment={"PYTHONPATH": str(tmp_path / "site")}
    )
    with taken(tmp_path / "lock" / "shared"):
        job.tick()
    assert job.outcomes() == ["busy"]
    assert not started.exists()
    job.tick()
    assert started.exists(), "the probe itself does not work"


def test_a_lock_file_is_never_created_changed_or_deleted(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"))
    lock = tmp_path / "lock" / "shared"
    lock.write_text("who owns this\n")
    before = lock.stat()
    wrapper.tick()
    with taken(lock):
        wrapper.tick()
    after = lock.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


# Waiting


def test_a_tick_that_may_wait_runs_when_the_lock_becomes_free(tmp_path: Path) -> None:
    with Oracle() as oracle:
        first = Wrapper(tmp_path, visitor(oracle, 0.4), name="first")
        second = Wrapper(tmp_path, visitor(oracle, 0.1), name="second", lock_wait=30)
        ticks = [first.start()]
        oracle.wait_for("job")
        ticks.append(second.start())
        for tick in ticks:
            tick.communicate(timeout=40)
        assert second.outcomes() == ["more"]
        assert len(oracle.seen()) == 2
        assert not oracle.overlaps()


def test_waiting_ends_at_the_deadline(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), lock_wait=1, scheduler="systemd")
    began = time.monotonic()
    with taken(tmp_path / "lock" / "shared"):
        assert wrapper.tick().returncode == 75
    assert 0.0 < time.monotonic() - began < 8
    assert "stayed busy for 1 s" in wrapper.log.read_text()


def test_one_deadline_covers_all_the_locks(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), locks=["a", "b"], lock_wait=2, scheduler="systemd")
    began = time.monotonic()
    with taken(tmp_path / "lock" / "b"):
        with taken(tmp_path / "lock" / "a"):
            tick = wrapper.start()
            time.sleep(1)
        assert tick.wait(timeout=30) == 75
    assert time.monotonic() - began < 10


def test_a_tick_that_waits_for_one_lock_holds_none_of_the_others(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), locks=["a", "b"], lock_wait=30)
    with taken(tmp_path / "lock" / "b"):
        tick = wrapper.start()
        until(lambda: _waits(tick.pid), "it does not wait")
        assert is_free(tmp_path / "lock" / "a")
    tick.communicate(timeout=30)
    assert wrapper.outcomes() == ["more"]


def test_all_the_locks_are_held_while_the_job_runs(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = Wrapper(tmp_path, visitor(oracle, 30), locks=["a", "b", "c"])
        tick = wrapper.start()
        oracle.wait_for("job")
        assert [is_free(tmp_path / "lock" / name) for name in "abc"] == [False, False, False]
        tick.terminate()
        tick.communicate(timeout=30)
        assert [is_free(tmp_path / "lock" / name) for name in "abc"] == [True, True, True]


def test_term_is_answered_at_once_while_waiting_for_a_lock(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), lock_wait=60, scheduler="systemd")
    answered = []
    with taken(tmp_path / "lock" / "shared"):
        for _ in range(3):
            tick = wrapper.start()
            until(lambda tick=tick: _waits(tick.pid), "it does not wait")
            began = time.monotonic()
            tick.terminate()
            assert tick.wait(timeout=30) == 3
            answered.append(time.monotonic() - began)
            assert not _waits(tick.pid)
    assert min(answered) < 0.5, answered
    assert wrapper.outcomes() == ["more"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("waits", [True, False])
def test_term_at_any_moment_is_answered_within_seconds(tmp_path: Path, waits: bool) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    wrapper = Wrapper(tmp_path, shell("sleep 120"), lock_wait=120, scheduler="systemd", failures=10**6)
    (tmp_path / "lock" / "another").touch()
    with taken(tmp_path / "lock" / ("shared" if waits else "another")):
        for _ in range(60 if waits else 12):
            tick = wrapper.start()
            time.sleep(chance.uniform(0, 0.08))
            tick.terminate()
            # Killed before it has its trap (-15), before the job has its own (143), or in good order.
            assert tick.wait(timeout=15) in (-signal.SIGTERM, 3, 143)
    assert is_free(tmp_path / "lock" / "shared")
    assert set(wrapper.outcomes()) <= {"more", "crashed"}


def test_two_waiters_with_the_locks_in_opposite_order_never_deadlock(tmp_path: Path) -> None:
    with Oracle() as oracle:
        one = Wrapper(tmp_path, visitor(oracle, 0.01), name="one", locks=["a", "b"], lock_wait=40)
        two = Wrapper(tmp_path, visitor(oracle, 0.01), name="two", locks=["b", "a"], lock_wait=40)
        began = time.monotonic()
        ticks = [wrapper.start() for _ in range(6) for wrapper in (one, two)]
        for tick in ticks:
            tick.communicate(timeout=60)
        assert time.monotonic() - began < 30
        assert one.outcomes() + two.outcomes() == ["more"] * 12
        oracle.wait_until_alone()
        assert not oracle.overlaps()


def test_a_tick_that_waited_while_its_own_job_halted_does_not_run(tmp_path: Path) -> None:
    proofs.a_tick_that_waited_while_its_own_job_halted_does_not_run(tmp_path)


def test_a_tick_that_waited_while_its_own_job_drained_does_not_run(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = Wrapper(tmp_path, visitor(oracle, 0.5, exit_code=0), lock_wait=30, drains=True)
        ticks = [wrapper.start()]
        oracle.wait_for("job")
        ticks.append(wrapper.start())
        for tick in ticks:
            tick.communicate(timeout=40)
        assert sorted(wrapper.outcomes()) == ["done", "drained"]
        assert len(oracle.seen()) == 1


@pytest.mark.slow
def test_a_skip_after_a_long_wait_keeps_the_skips_counted_meanwhile(tmp_path: Path) -> None:
    waiting = Wrapper(tmp_path, shell("exit 3"), lock_wait=3)
    waiting.tick()
    with taken(tmp_path / "lock" / "shared"):
        tick = waiting.start()
        until(lambda: _waits(tick.pid), "it does not wait")
        impatient = Wrapper(tmp_path, shell("exit 3"), lock_wait=0)
        impatient.tick()
        impatient.tick()
        tick.communicate(timeout=30)
    assert numbers(waiting, ".skips")[:2] == [3, 3]


# Signals and bounds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_handed_on_and_the_jobs_exit_3_is_kept(tmp_path: Path, number: signal.Signals) -> None:
    script = f"trap 'touch {tmp_path}/finished; exit 3' TERM; touch {tmp_path}/ready; while :; do sleep 0.02; done"
    wrapper = Wrapper(tmp_path, shell(script), scheduler="systemd")
    tick = wrapper.start()
    until((tmp_path / "ready").exists, "the job did not start")
    tick.send_signal(number)
    assert tick.wait(timeout=30) == 3
    assert (tmp_path / "finished").exists()
    assert wrapper.outcomes() == ["more"]
    assert numbers(wrapper, ".tally")[0] == 0


def test_a_job_of_the_contract_answers_term_with_more_and_a_closed_row(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = _unit_job(tmp_path, oracle, units=1000)
        tick = wrapper.start()
        oracle.wait_for("job")
        began = time.monotonic()
        tick.terminate()
        assert tick.wait(timeout=30) == 3
        assert time.monotonic() - began < 5
        assert wrapper.outcomes() == ["more"]
        assert "pass=more" in wrapper.log.read_text()
        assert "asked to stop by SIGTERM" in wrapper.log.read_text()


@pytest.mark.slow
def test_a_pass_that_overruns_is_asked_first_and_killed_then(tmp_path: Path) -> None:
    script = f"trap 'touch {tmp_path}/asked' TERM; while :; do sleep 0.05; done"
    wrapper = Wrapper(tmp_path, shell(script), timeout=1, kill_after=1, scheduler="systemd")
    began = time.monotonic()
    assert wrapper.tick().returncode == 137
    assert 1.9 < time.monotonic() - began < 15
    assert (tmp_path / "asked").exists()
    assert wrapper.outcomes() == ["crashed"]
    assert numbers(wrapper, ".tally")[0] == 1
    assert is_free(tmp_path / "lock" / "shared")


def test_a_pass_that_ends_in_good_order_at_its_timeout_is_no_failure(tmp_path: Path) -> None:
    script = "trap 'exit 3' TERM; while :; do sleep 0.02; done"
    wrapper = Wrapper(tmp_path, shell(script), timeout=1, scheduler="systemd")
    assert wrapper.tick().returncode == 3
    assert numbers(wrapper, ".tally")[0] == 0


# Process groups, and killed wrappers


def test_what_a_job_leaves_behind_is_dead_before_the_lock_is_free(tmp_path: Path) -> None:
    proofs.what_a_job_leaves_behind_is_dead_before_the_lock_is_free(tmp_path)


def test_a_killed_jobs_worker_is_dead_before_the_lock_is_free(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = _unit_job(tmp_path, oracle, units=1000, grandchild=30)
        tick = wrapper.start()
        oracle.wait_for("grandchild")
        os.kill(oracle.wait_for("job").pid, signal.SIGKILL)
        tick.communicate(timeout=30)
        assert wrapper.outcomes() == ["crashed"]
        oracle.wait_until_alone(timeout=3)
        assert is_free(tmp_path / "lock" / "shared")


def test_a_sigkilled_wrapper_leaves_the_lock_with_its_job(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = Wrapper(tmp_path, visitor(oracle, 30), name="first")
        other = Wrapper(tmp_path, visitor(oracle, 0), name="second")
        tick = wrapper.start()
        job = oracle.wait_for("job")
        tick.kill()
        tick.wait()
        other.tick()
        assert other.outcomes() == ["busy"]
        assert not is_free(tmp_path / "lock" / "shared")
        os.killpg(os.getpgid(job.pid), signal.SIGKILL)
        until(lambda: is_free(tmp_path / "lock" / "shared"), "the lock outlived the job")
        other.tick()
        assert other.outcomes() == ["busy", "more"]


def test_a_worker_that_was_handed_the_lock_keeps_it_when_wrapper_and_job_are_killed(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = _unit_job(tmp_path, oracle, units=1000, grandchild=30)
        tick = wrapper.start()
        worker, job = oracle.wait_for("grandchild"), oracle.wait_for("job")
        parent = int(Path(f"/proc/{job.pid}/stat").read_text().rpartition(")")[2].split()[1])
        tick.kill()
        tick.wait()
        for pid in (parent, job.pid):  # `timeout`, then the job
            os.kill(pid, signal.SIGKILL)
        until(lambda: not oracle.alive("job"), "the job survived")
        assert oracle.alive("grandchild")
        assert not is_free(tmp_path / "lock" / "shared")
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: is_free(tmp_path / "lock" / "shared"), "the lock outlived the worker")


# By hand, beside the wrapper


def test_a_job_run_by_hand_takes_the_same_lock_and_says_who_has_it(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = _unit_job(tmp_path, oracle, units=1000)
        tick = wrapper.start()
        job = oracle.wait_for("job")
        by_hand = _by_hand(wrapper)
        assert by_hand.returncode == 75
        assert f"another run is active: job (pid {job.pid}, since 20" in by_hand.stderr
        assert len(oracle.seen()) == 1
        tick.terminate()
        tick.communicate(timeout=30)


def test_a_tick_is_skipped_while_the_job_runs_by_hand(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = _unit_job(tmp_path, oracle, units=1000)
        with subprocess.Popen(wrapper.command, env=_environment(), stderr=subprocess.DEVNULL) as by_hand:
            oracle.wait_for("job")
            wrapper.tick()
            assert wrapper.outcomes() == ["busy"]
            by_hand.terminate()
            assert by_hand.wait(timeout=30) == 3


def test_a_job_run_by_hand_honours_the_markers_of_its_wrapper(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = _unit_job(tmp_path, oracle, units=1)
        (wrapper.dir / ".halted").write_text('time=t job=job reason="a human must look"\n')
        by_hand = _by_hand(wrapper)
        assert by_hand.returncode == 4
        assert "a human must look" in by_hand.stderr
        assert "tickwork rearm job" in by_hand.stderr
        # Also when a variable says that a wrapper has looked already: it may have outlived that wrapper.
        assert _by_hand(wrapper, TICKWORK_WRAPPED="job").returncode == 4
        (wrapper.dir / ".halted").unlink()
        (wrapper.dir / ".done").touch()
        assert _by_hand(wrapper).returncode == 0
        assert not oracle.seen()


def test_a_job_run_by_hand_and_its_wrapper_agree_on_the_reserve(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = _unit_job(tmp_path, oracle, units=1)
        assert _by_hand(wrapper).returncode == 0
        made = (wrapper.dir / ".reserve").stat()
        wrapper.tick()
        assert wrapper.outcomes() == ["drained"]
        assert _by_hand(wrapper).returncode == 0
        kept = (wrapper.dir / ".reserve").stat()
        assert (kept.st_ino, kept.st_mtime_ns, kept.st_size) == (made.st_ino, made.st_mtime_ns, 4096)


# Root


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
@pytest.mark.parametrize("user", ["nobody", "daemon"])
def test_root_runs_a_tick_as_the_service_user(user: str) -> None:
    account = pwd.getpwnam(user)
    home = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        wrapper = Wrapper(home, shell(f"id -un >{home}/log/who; id -G >>{home}/log/who; exit 3"))
        # `.library` lies where that user may not be able to look.
        for name in ("tick.sh", "tick-pass.sh"):
            shutil.copy(wrapper.library.with_name(name), home)
        text = wrapper.render().replace("TICK_USER=''", f"TICK_USER={user}")
        wrapper.path.write_text(text.replace(str(wrapper.library), str(home / "tick.sh")))
        home.chmod(0o755)
        for folder in (wrapper.dir, wrapper.log.parent, home / "metrics"):
            os.chown(folder, account.pw_uid, account.pw_gid)
        answer = wrapper.tick()
        assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
        who, groups = (home / "log" / "who").read_text().splitlines()
        assert who == user
        assert "0" not in groups.split()
        assert {path.stat().st_uid for path in wrapper.dir.iterdir()} == {account.pw_uid}
    finally:
        shutil.rmtree(home)


# Kills at any moment


@pytest.mark.slow
def test_a_wrapper_killed_at_any_moment_leaves_a_job_that_ticks_again(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    wrapper = Wrapper(tmp_path, shell("sleep 0.02; exit 3"), failures=1)
    for _ in range(40):
        tick = wrapper.start()
        time.sleep(chance.uniform(0, 0.12))
        tick.kill()
        tick.communicate()
        until(lambda: is_free(tmp_path / "lock" / "shared"), "the lock was never free")
    before = len(wrapper.outcomes())
    assert wrapper.tick().stdout == ""
    assert wrapper.outcomes()[before:] == ["more"]
    assert not wrapper.halted
    assert (wrapper.dir / ".reserve").stat().st_size == 4096


def _unit_job(home: Path, oracle: Oracle, *, units: int, grandchild: float = 0) -> Wrapper:
    """A wrapper around a job of the contract that takes 0.02 s a unit."""
    command = [sys.executable, str(JOBS / "unit_job.py"), "job", str(home / "state"), str(home / "lock")]
    command += [str(oracle.port), str(units), "0.02", str(grandchild)]
    return Wrapper(home, command, environment={"PYTHONPATH": str(ROOT / "jobs")}, scheduler="systemd")


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "jobs"), **more}


def _by_hand(wrapper: Wrapper, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        wrapper.command, env=_environment(**more), capture_output=True, text=True, timeout=60, check=False
    )


def _waits(pid: int) -> bool:
    """Whether the wrapper `pid` has a child that waits for a lock (rather than trying it)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return any(Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"flock\0-w\0") for child in children)
    except OSError:
        return False
