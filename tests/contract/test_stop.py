"""The stop request: seen by every wait, made from a signal handler, and never a deadlock."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.kits.patience import PATIENCE_SECONDS
from tickwork.contract.outcomes import Interrupted
from tickwork.contract.stop import Stop


def test_a_wait_lasts_its_time_and_says_that_nobody_asked() -> None:
    began = time.monotonic()
    assert not Stop().wait(0.05)
    assert 0.045 <= time.monotonic() - began < PATIENCE_SECONDS


def test_a_request_is_seen_for_good_and_its_first_reason_is_kept() -> None:
    stop = Stop()
    stop.request("first")
    stop.request("second")
    assert stop.requested
    assert [stop.wait(60), stop.wait(60)] == [True, True]
    with pytest.raises(Interrupted, match="first"):
        stop.sleep(60)
    with pytest.raises(Interrupted, match="first"):
        stop.check()


def test_without_a_request_check_and_sleep_go_on() -> None:
    stop = Stop()
    stop.check()
    stop.sleep(0)
    stop.sleep(-1)
    assert not stop.requested


def test_all_waiting_threads_are_woken() -> None:
    stop, woken = Stop(), []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(300))) for _ in range(8)]
    for thread in threads:
        thread.start()
    stop.request("enough")
    for thread in threads:
        thread.join(timeout=PATIENCE_SECONDS)
    assert woken == [True] * 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_inside_a_wait_ends_it_at_once(number: signal.Signals) -> None:
    stop = Stop()
    with stop.on_signals():
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        began = time.monotonic()
        assert stop.wait(300)
        assert time.monotonic() - began < PATIENCE_SECONDS
    assert stop.reason == f"asked to stop by {number.name}"


def test_another_signal_does_not_shorten_a_wait() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        began = time.monotonic()
        assert not Stop().wait(0.3)
        assert time.monotonic() - began >= 0.29
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_handlers_of_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with contextlib.suppress(ZeroDivisionError), Stop().on_signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before


def test_a_storm_of_signals_while_threads_ask_too_never_deadlocks_nor_loses_a_request() -> None:
    program = """
import sys, threading
from tickwork.contract.stop import Stop
with Stop().on_signals():  # whatever comes between two rounds
    print("ready", flush=True)
    for _ in range(500):
        stop = Stop()
        with stop.on_signals():
            other = threading.Thread(target=stop.request, args=("thread",))
            other.start()
            assert stop.wait(60), "a request was lost"
            stop.request("main")
            other.join()
    print("done", flush=True)
    sys.stdin.read()
"""
    _under_fire(program, 0.0005)


def test_hundreds_of_terms_into_one_stop_never_deadlock() -> None:
    program = """
import sys
from tickwork.contract.stop import Stop
stop = Stop()
with stop.on_signals():
    print("ready", flush=True)
    for _ in range(100000):
        stop.request("main")
        stop.wait(0)
    print("done", flush=True)
    sys.stdin.read()
"""
    _under_fire(program, 0.0002)


def _under_fire(program: str, pause: float) -> None:
    """Run `program` under TERM after TERM from its line "ready" to its line "done"."""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    try:
        assert child.stdout.readline() == b"ready\n"
        sent, deadline = 0, time.monotonic() + PATIENCE_SECONDS
        while not select.select([child.stdout], [], [], pause)[0]:
            assert time.monotonic() < deadline, f"it hangs after {sent} signals"
            child.send_signal(signal.SIGTERM)
            sent += 1
        stdout, _ = child.communicate(b"", timeout=PATIENCE_SECONDS)
        assert (stdout, child.returncode) == (b"done\n", 0)
        assert sent > 20
    finally:
        child.kill()
        child.wait()
