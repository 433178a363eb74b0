"""A pass runs under its job's locks, and whoever holds them is named."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.runner_kit import JOB, last, units
from tickwork.contract import locks
from tickwork.contract.jobs import Job
from tickwork.contract.layout import Layout
from tickwork.contract.ledger import Ledger, PassRow
from tickwork.contract.outcomes import Busy, Outcome
from tickwork.contract.runner import Pass, run_pass
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget, Unit

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_another_run_is_named_with_pid_and_since(layout: Layout) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        with pytest.raises(
            Busy, match=rf"another run is active: nightly \(pid {os.getpid()}, since 20[-\d]+T[\d:]+Z\)"
        ):
            run_pass(Job(name="other", locks=("a",)), units(1), Budget(), layout)
        yield Unit()

    assert run_pass(JOB, work, Budget(), layout) is Outcome.DRAINED
    assert last(layout).reason == ""


def test_a_lock_held_by_a_stranger_is_named(layout: Layout) -> None:
    with (
        locks.holding(["a"], layout, wait=0, stop=Stop()),
        pytest.raises(Busy, match="the lock a is busy"),
    ):
        run_pass(JOB, units(1), Budget(), layout)


def test_no_lock_is_taken_when_a_test_says_so(layout: Layout) -> None:
    with locks.holding(["a"], layout, wait=0, stop=Stop()):
        assert run_pass(JOB, units(1), Budget(), layout, take_locks=False) is Outcome.DRAINED


def test_a_job_is_handed_its_locks(layout: Layout) -> None:
    seen: list[tuple[int, ...]] = []

    def work(one_pass: Pass) -> Iterator[Unit]:
        seen.append(one_pass.locks)
        yield Unit()

    run_pass(Job(name="nightly", locks=("a", "b")), work, Budget(), layout)
    assert len(seen[0]) == 2


def test_term_while_waiting_for_a_lock_is_more_and_opens_no_row(layout: Layout) -> None:
    with locks.holding(["a"], layout, wait=0, stop=Stop()):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert run_pass(JOB, units(1), Budget(), layout, lock_wait=60) is Outcome.MORE
    assert not layout.database("ledger").exists() or not _rows(layout)


def _rows(layout: Layout) -> list[PassRow]:
    with Ledger(layout.database("ledger"), read_only=True) as ledger:
        return ledger.recent("nightly", 9)
