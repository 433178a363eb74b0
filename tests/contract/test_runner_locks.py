"""A pass runs under its job's locks, and whoever holds them is named."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.kits.runner import JOB, last, units
from tickwork.contract import locks
from tickwork.contract.jobs import Job
from tickwork.contract.ledger import Ledger, PassRow
from tickwork.contract.outcomes import Busy, Outcome
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass, run_pass
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget, Unit

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_another_run_is_named_with_pid_and_since(paths: Paths) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        with pytest.raises(
            Busy, match=rf"another run is active: nightly \(pid {os.getpid()}, since 20[-\d]+T[\d:]+Z\)"
        ):
            run_pass(Job(name="other", locks=("a",)), units(1), Budget(), paths)
        yield Unit()

    assert run_pass(JOB, work, Budget(), paths) is Outcome.DRAINED
    assert last(paths).reason == ""


def test_a_lock_held_by_a_stranger_is_named(paths: Paths) -> None:
    with (
        locks.holding(["a"], paths, wait=0, stop=Stop()),
        pytest.raises(Busy, match="the lock a is busy"),
    ):
        run_pass(JOB, units(1), Budget(), paths)


def test_no_lock_is_taken_when_a_test_says_so(paths: Paths) -> None:
    with locks.holding(["a"], paths, wait=0, stop=Stop()):
        assert run_pass(JOB, units(1), Budget(), paths, take_locks=False) is Outcome.DRAINED


def test_a_job_is_handed_its_locks(paths: Paths) -> None:
    seen: list[tuple[int, ...]] = []

    def work(one_pass: Pass) -> Iterator[Unit]:
        seen.append(one_pass.locks)
        yield Unit()

    run_pass(Job(name="nightly", locks=("a", "b")), work, Budget(), paths)
    assert len(seen[0]) == 3, "those that it shares, and its own"


def test_term_while_waiting_for_a_lock_is_more_and_opens_no_row(paths: Paths) -> None:
    with locks.holding(["a"], paths, wait=0, stop=Stop()):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert run_pass(JOB, units(1), Budget(), paths, lock_wait=60) is Outcome.MORE
    assert not paths.database("ledger").exists() or not _rows(paths)


def _rows(paths: Paths) -> list[PassRow]:
    with Ledger(paths.database("ledger"), read_only=True) as ledger:
        return ledger.recent("nightly", 9)
