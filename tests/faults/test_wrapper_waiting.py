"""A tick that may wait for its locks holds none meanwhile, ends at its deadline, and looks again before it runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.jobs import proofs
from tests.faults.jobs.oracle import Oracle
from tests.faults.jobs.proofs import shell, taken, visitor
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.wrapper import is_free, skips, waits
from tests.kits.wrappers import Wrapper


def test_a_tick_that_may_wait_runs_when_the_lock_becomes_free(tmp_path: Path) -> None:
    with Oracle() as oracle:
        first = Wrapper(tmp_path, visitor(oracle, 0.4), name="first")
        second = Wrapper(tmp_path, visitor(oracle, 0.1), name="second", lock_wait=300)
        ticks = [first.start()]
        oracle.wait_for("job")
        ticks.append(second.start())
        for tick in ticks:
            tick.communicate(timeout=PATIENCE_SECONDS)
        assert second.outcomes() == ["more"]
        assert len(oracle.seen()) == 2
        assert not oracle.overlaps()


def test_waiting_ends_at_the_deadline(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), lock_wait=1, scheduler="systemd")
    began = time.monotonic()
    with taken(tmp_path / "lock" / "shared"):
        assert wrapper.tick().returncode == 75
    assert 0.0 < time.monotonic() - began < PATIENCE_SECONDS
    assert "stayed busy for 1 s" in wrapper.log.read_text()


def test_one_deadline_covers_all_the_locks(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), locks=["a", "b"], lock_wait=2, scheduler="systemd")
    began = time.monotonic()
    with taken(tmp_path / "lock" / "b"):
        with taken(tmp_path / "lock" / "a"):
            tick = wrapper.start()
            time.sleep(1)
        assert tick.wait(timeout=PATIENCE_SECONDS) == 75
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_a_tick_that_waits_for_one_lock_holds_none_of_the_others(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), locks=["a", "b"], lock_wait=300)
    with taken(tmp_path / "lock" / "b"):
        tick = wrapper.start()
        until(lambda: waits(tick.pid), "it does not wait")
        assert is_free(tmp_path / "lock" / "a")
    tick.communicate(timeout=PATIENCE_SECONDS)
    assert wrapper.outcomes() == ["more"]


def test_two_waiters_with_the_locks_in_opposite_order_never_deadlock(tmp_path: Path) -> None:
    with Oracle() as oracle:
        one = Wrapper(tmp_path, visitor(oracle, 0.01), name="one", locks=["a", "b"], lock_wait=300)
        two = Wrapper(tmp_path, visitor(oracle, 0.01), name="two", locks=["b", "a"], lock_wait=300)
        ticks = [wrapper.start() for _ in range(6) for wrapper in (one, two)]
        for tick in ticks:
            tick.communicate(timeout=PATIENCE_SECONDS)
        assert one.outcomes() + two.outcomes() == ["more"] * 12
        oracle.wait_until_alone()
        assert not oracle.overlaps()


def test_a_tick_that_waited_while_its_own_job_halted_does_not_run(tmp_path: Path) -> None:
    proofs.a_tick_that_waited_while_its_own_job_halted_does_not_run(tmp_path)


def test_a_tick_that_waited_while_its_own_job_drained_does_not_run(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = Wrapper(tmp_path, visitor(oracle, 0.5, exit_code=0), lock_wait=300, drains=True)
        ticks = [wrapper.start()]
        oracle.wait_for("job")
        ticks.append(wrapper.start())
        for tick in ticks:
            tick.communicate(timeout=PATIENCE_SECONDS)
        assert sorted(wrapper.outcomes()) == ["done", "drained"]
        assert len(oracle.seen()) == 1


@pytest.mark.slow
def test_a_skip_after_a_long_wait_keeps_the_skips_counted_meanwhile(tmp_path: Path) -> None:
    waiting = Wrapper(tmp_path, shell("exit 3"), lock_wait=3)
    waiting.tick()
    with taken(tmp_path / "lock" / "shared"):
        tick = waiting.start()
        until(lambda: waits(tick.pid), "it does not wait")
        impatient = Wrapper(tmp_path, shell("exit 3"), lock_wait=0)
        impatient.tick()
        impatient.tick()
        tick.communicate(timeout=PATIENCE_SECONDS)
    assert skips(waiting)[:2] == [3, 3]
