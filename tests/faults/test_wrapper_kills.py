"""Whoever is killed, the lock is free once nothing of the pass lives, and the job ticks again."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.jobs import proofs
from tests.faults.jobs.oracle import Oracle
from tests.faults.jobs.proofs import shell, visitor
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.wrapper import is_free, unit_job
from tests.kits.wrappers import Wrapper


def test_what_a_job_leaves_behind_is_dead_before_the_lock_is_free(tmp_path: Path) -> None:
    proofs.what_a_job_leaves_behind_is_dead_before_the_lock_is_free(tmp_path)


def test_a_killed_jobs_worker_is_dead_before_the_lock_is_free(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = unit_job(tmp_path, oracle, units=100_000, grandchild=300)
        tick = wrapper.start()
        oracle.wait_for("grandchild")
        os.kill(oracle.wait_for("job").pid, signal.SIGKILL)
        tick.communicate(timeout=PATIENCE_SECONDS)
        assert wrapper.outcomes() == ["crashed"]
        oracle.wait_until_alone()
        assert is_free(tmp_path / "lock" / "shared")


def test_a_sigkilled_wrapper_leaves_the_lock_with_its_job(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = Wrapper(tmp_path, visitor(oracle, 300), name="first")
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
        wrapper = unit_job(tmp_path, oracle, units=100_000, grandchild=300)
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
