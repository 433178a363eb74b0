"""A pass can stop, crash, be killed or be asked to end anywhere, and the next one takes it further."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.patience import PATIENCE_SECONDS
from tests.kits.runner import ITEMS, JOB, Store, last
from tickwork.contract.ledger import Ledger
from tickwork.contract.outcomes import Outcome
from tickwork.contract.paths import Paths
from tickwork.contract.runner import Pass, run_pass
from tickwork.contract.units import Budget, Unit

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.mark.parametrize("k", range(1, 9))
def test_a_pass_can_stop_after_any_k_units_and_the_end_state_is_the_same(paths: Paths, k: int, tmp_path: Path) -> None:
    truth = Store(Paths.under(tmp_path / "truth"))
    assert run_pass(JOB, truth.work, Budget(), Paths.under(tmp_path / "truth")) is Outcome.DRAINED
    store, passes = Store(paths), 0
    while run_pass(JOB, store.work, Budget(items=k), paths) is Outcome.MORE:
        passes += 1
    assert store.canonical() == truth.canonical()
    assert len(truth.canonical()) == ITEMS
    assert passes == ITEMS // k
    assert last(paths).backlog in (None, 0)


@pytest.mark.parametrize("k", [1, 2, 7, ITEMS])
def test_a_pass_can_crash_after_any_k_units_and_the_end_state_is_the_same(paths: Paths, k: int) -> None:
    store = Store(paths)

    def work(one_pass: Pass) -> Iterator[Unit]:
        for count, unit in enumerate(store.work(one_pass), 1):
            yield unit
            if count == k:
                raise RuntimeError("pulled the plug")

    for _ in range(ITEMS):
        if run_pass(JOB, work, Budget(), paths) is Outcome.DRAINED:
            break
    assert [item for item, _ in store.canonical()] == list(range(ITEMS))


def test_a_killed_pass_is_taken_further_by_the_next_one(paths: Paths) -> None:
    program = f"""
        import os, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.kits.runner import JOB, Store
        from tickwork.contract.paths import Paths
        from tickwork.contract.runner import run_pass
        from tickwork.contract.units import Budget
        paths = Paths.under(Path({str(paths.state)!r}))
        store = Store(paths)
        def work(one_pass):
            for count, unit in enumerate(store.work(one_pass), 1):
                yield unit
                if count == 7:
                    os.kill(os.getpid(), 9)
        run_pass(JOB, work, Budget(), paths)
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = Store(paths)
    assert len(store.canonical()) == 7
    assert run_pass(JOB, store.work, Budget(), paths) is Outcome.DRAINED
    assert [item for item, _ in store.canonical()] == list(range(ITEMS))
    with Ledger(paths.database("ledger"), read_only=True) as ledger:
        assert [row.outcome for row in ledger.recent("nightly", 9)] == ["drained", "killed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_pass_after_the_unit_in_hand(paths: Paths, number: signal.Signals) -> None:
    store = Store(paths)

    def work(one_pass: Pass) -> Iterator[Unit]:
        for count, unit in enumerate(store.work(one_pass), 1):
            if count == 5:
                os.kill(os.getpid(), number)
            yield unit

    assert run_pass(JOB, work, Budget(), paths) is Outcome.MORE
    assert last(paths).reason == f"asked to stop by {number.name}"
    assert last(paths).units == 5 == len(store.canonical())


def test_a_signal_inside_a_wait_ends_the_pass_within_a_moment(paths: Paths) -> None:
    def work(one_pass: Pass) -> Iterator[Unit]:
        yield Unit()
        one_pass.stop.sleep(300)

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    assert run_pass(JOB, work, Budget(), paths) is Outcome.MORE
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert last(paths).reason == "asked to stop by SIGTERM"
