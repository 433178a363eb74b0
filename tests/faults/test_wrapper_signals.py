"""A signal is handed on and answered at once; a pass that overruns is asked to end, then killed."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.jobs.oracle import Oracle
from tests.faults.jobs.proofs import shell, taken
from tests.kits.patience import PATIENCE_SECONDS, until
from tests.kits.wrapper import is_free, tally, unit_job, waits
from tests.kits.wrappers import Wrapper


def test_term_is_answered_at_once_while_waiting_for_a_lock(tmp_path: Path) -> None:
    wrapper = Wrapper(tmp_path, shell("exit 3"), lock_wait=300, scheduler="systemd")
    answered = []
    with taken(tmp_path / "lock" / "shared"):
        for _ in range(3):
            tick = wrapper.start()
            until(lambda tick=tick: waits(tick.pid), "it does not wait")
            began = time.monotonic()
            tick.terminate()
            assert tick.wait(timeout=PATIENCE_SECONDS) == 3
            answered.append(time.monotonic() - began)
            assert not waits(tick.pid)
    assert max(answered) < PATIENCE_SECONDS, answered
    assert wrapper.outcomes() == ["more"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("waits", [True, False])
def test_term_at_any_moment_is_answered_within_seconds(tmp_path: Path, waits: bool) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    wrapper = Wrapper(tmp_path, shell("sleep 300"), lock_wait=300, scheduler="systemd", failures=10**6)
    (tmp_path / "lock" / "another").touch()
    with taken(tmp_path / "lock" / ("shared" if waits else "another")):
        for _ in range(60 if waits else 12):
            tick = wrapper.start()
            time.sleep(chance.uniform(0, 0.08))
            tick.terminate()
            # Killed before it has its trap (-15), before the job has its own (143), or in good order.
            assert tick.wait(timeout=PATIENCE_SECONDS) in (-signal.SIGTERM, 3, 143)
    assert is_free(tmp_path / "lock" / "shared")
    assert set(wrapper.outcomes()) <= {"more", "crashed"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_handed_on_and_the_jobs_exit_3_is_kept(tmp_path: Path, number: signal.Signals) -> None:
    script = f"trap ': >{tmp_path}/finished; exit 3' TERM; touch {tmp_path}/ready; while :; do sleep 0.02; done"
    wrapper = Wrapper(tmp_path, shell(script), scheduler="systemd")
    tick = wrapper.start()
    until((tmp_path / "ready").exists, "the job did not start")
    tick.send_signal(number)
    assert tick.wait(timeout=PATIENCE_SECONDS) == 3
    assert (tmp_path / "finished").exists()
    assert wrapper.outcomes() == ["more"]
    assert tally(wrapper)[0] == 0


def test_a_job_of_the_contract_answers_term_with_more_and_a_closed_row(tmp_path: Path) -> None:
    with Oracle() as oracle:
        wrapper = unit_job(tmp_path, oracle, units=100_000)
        tick = wrapper.start()
        oracle.wait_for("job")
        began = time.monotonic()
        tick.terminate()
        assert tick.wait(timeout=PATIENCE_SECONDS) == 3
        assert time.monotonic() - began < PATIENCE_SECONDS
        assert wrapper.outcomes() == ["more"]
        assert "pass=more" in wrapper.log.read_text()
        assert "asked to stop by SIGTERM" in wrapper.log.read_text()


@pytest.mark.slow
def test_a_pass_that_overruns_is_asked_first_and_killed_then(tmp_path: Path) -> None:
    script = f"trap 'touch {tmp_path}/asked' TERM; while :; do sleep 0.05; done"
    wrapper = Wrapper(tmp_path, shell(script), timeout=1, kill_after=1, scheduler="systemd")
    began = time.monotonic()
    assert wrapper.tick().returncode == 137
    assert 1.9 < time.monotonic() - began < PATIENCE_SECONDS
    assert (tmp_path / "asked").exists()
    assert wrapper.outcomes() == ["crashed"]
    assert tally(wrapper)[0] == 1
    assert is_free(tmp_path / "lock" / "shared")


def test_a_pass_that_ends_in_good_order_at_its_timeout_is_no_failure(tmp_path: Path) -> None:
    script = "trap 'exit 3' TERM; while :; do sleep 0.02; done"
    wrapper = Wrapper(tmp_path, shell(script), timeout=3, scheduler="systemd")
    assert wrapper.tick().returncode == 3
    assert tally(wrapper)[0] == 0
