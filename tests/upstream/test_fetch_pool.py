"""Threads that fetch while the job commits: how many, in which order, and how they end."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.kits.patience import PATIENCE_SECONDS
from tickwork.contract.jobs import Job
from tickwork.contract.outcomes import Interrupted
from tickwork.contract.runner import Pass
from tickwork.contract.stop import Stop
from tickwork.contract.units import Budget
from tickwork.upstream.fetch_pool import FetchPool


@pytest.fixture
def one_pass() -> Pass:
    return Pass(Job(name="toy"), Budget(), Stop(), dt.datetime.now(dt.UTC))


@pytest.fixture
def stop() -> Stop:
    """What the calls of the pool watch."""
    return Stop()


def fetchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert fetchers() == []


def hang(stop: Stop) -> str:
    """A call that lasts until it is told to stop."""
    stop.sleep(5 * PATIENCE_SECONDS)
    raise AssertionError("nobody stopped it")


def test_whatever_ends_first_is_taken_first(one_pass: Pass, stop: Stop) -> None:
    may_end = threading.Event()

    def slow() -> str:
        assert may_end.wait(PATIENCE_SECONDS)
        return "slow"

    with FetchPool[str](2, one_pass, stop) as pool:
        pool.start(slow)
        pool.start(lambda: "quick")
        assert (pool.next(), pool.busy) == ("quick", 1)
        may_end.set()
        assert (pool.next(), pool.busy) == ("slow", 0)


def test_so_many_calls_are_made_at_once_and_no_more(one_pass: Pass, stop: Stop) -> None:
    together = threading.Barrier(3)  # broken unless three calls meet
    lock = threading.Lock()
    at_once = most = 0

    def call() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        together.wait(PATIENCE_SECONDS)
        with lock:
            at_once -= 1

    with FetchPool[None](3, one_pass, stop) as pool:
        for _ in range(9):
            pool.start(call)
        assert pool.busy == 9
        for _ in range(9):
            pool.next()
    assert most == 3


def test_what_a_call_raises_is_raised_where_its_result_is_taken(one_pass: Pass, stop: Stop) -> None:
    def fail() -> str:
        raise LookupError("no such thing")

    with FetchPool[str](1, one_pass, stop) as pool:
        pool.start(fail)
        pool.start(lambda: "the next")
        with pytest.raises(LookupError, match="no such thing"):
            pool.next()
        assert (pool.next(), pool.busy) == ("the next", 0)


def start_hanging(pool: FetchPool[str], stop: Stop, count: int) -> None:
    for _ in range(count):
        pool.start(lambda: hang(stop))


def test_a_stop_of_the_pass_ends_the_wait_and_the_calls(one_pass: Pass, stop: Stop) -> None:
    began = time.monotonic()
    with FetchPool[str](2, one_pass, stop) as pool:
        start_hanging(pool, stop, 2)
        threading.Timer(0.1, one_pass.stop.request, ["TERM"]).start()
        with pytest.raises(Interrupted, match="TERM"):
            pool.next()
    assert stop.requested
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_the_wait_ends_when_the_pass_has_no_time_left(stop: Stop) -> None:
    short = Pass(Job(name="toy"), Budget(seconds=0.3), Stop(), dt.datetime.now(dt.UTC))
    with FetchPool[str](1, short, stop) as pool:
        start_hanging(pool, stop, 1)
        with pytest.raises(Interrupted, match=r"bound reached: 0\.3 seconds"):
            pool.next()


def test_what_has_ended_is_taken_although_the_time_is_up(stop: Stop) -> None:
    over = Pass(Job(name="toy"), Budget(seconds=0), Stop(), dt.datetime.now(dt.UTC))
    first_has_ended = threading.Event()
    with FetchPool[str](1, over, stop) as pool:
        pool.start(lambda: "first")
        pool.start(lambda: first_has_ended.set() or hang(stop))
        assert first_has_ended.wait(PATIENCE_SECONDS)
        assert pool.next() == "first"
        with pytest.raises(Interrupted):
            pool.next()


def test_leaving_ends_the_calls_and_those_not_begun_are_never_made(one_pass: Pass, stop: Stop) -> None:
    began: list[int] = []
    first_began = threading.Event()

    def call(number: int) -> str:
        began.append(number)
        first_began.set()
        return hang(stop)

    def fail() -> None:
        with FetchPool[str](1, one_pass, stop) as pool:
            for number in range(5):
                pool.start(partial(call, number))
            assert first_began.wait(PATIENCE_SECONDS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert began == [0]
