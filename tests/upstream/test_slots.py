"""Who may send to which host, when: claims, leases, holds, strikes, the audit."""

from __future__ import annotations

import datetime as dt
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tickwork.contract.outcomes import Held, OperatorError
from tickwork.upstream.policy import Policy
from tickwork.upstream.slots import Flight, Slots

HOST = "repo.example"
T0 = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC).timestamp()


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slots(tmp_path: Path, clock: Clock) -> Iterator[Slots]:
    with Slots(tmp_path / "db" / "slots.db", clock=clock) as opened:
        yield opened


def at(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(T0 + seconds, dt.UTC)


def take(slots: Slots, policy: Policy | None = None, host: str = HOST) -> Flight:
    flight = slots.claim(host, policy or Policy(), 60)
    assert isinstance(flight, Flight), f"told to wait {flight} s"
    return flight


def rows(slots: Slots, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(slots.path) as other:
        return other.execute(query).fetchall()


def test_the_interval_begins_when_the_request_ends(slots: Slots, clock: Clock) -> None:
    flight = take(slots, Policy(interval_seconds=2))
    clock.now += 5
    slots.settle(flight, bytes=10, status=200)
    assert slots.claim(HOST, Policy(interval_seconds=2), 60) == 2
    clock.now += 2
    take(slots, Policy(interval_seconds=2))


def test_with_concurrency_the_interval_is_between_starts(slots: Slots, clock: Clock) -> None:
    policy = Policy(interval_seconds=2, concurrency=2)
    flight = take(slots, policy)
    assert slots.claim(HOST, policy, 60) == 2
    clock.now += 2
    take(slots, policy)
    clock.now += 2
    wait = slots.claim(HOST, policy, 60)
    assert isinstance(wait, float), "a third lease was given"
    slots.settle(flight, bytes=0, status=200)
    take(slots, policy)


def test_jitter_only_ever_slows(slots: Slots, clock: Clock) -> None:
    policy = Policy(interval_seconds=1, jitter_seconds=3)
    waits = set()
    for _ in range(30):
        slots.settle(take(slots, policy), bytes=0, status=200)
        wait = slots.claim(HOST, policy, 60)
        assert isinstance(wait, float)
        assert 1 <= wait <= 4
        waits.add(wait)
        clock.now += wait
    assert max(waits) - min(waits) > 1


def test_the_slower_of_two_policies_is_kept(slots: Slots, clock: Clock) -> None:
    slots.settle(take(slots, Policy(interval_seconds=1)), bytes=0, status=200)
    assert slots.claim(HOST, Policy(interval_seconds=10), 60) == 10
    clock.now += 10
    slots.settle(take(slots, Policy(interval_seconds=10)), bytes=0, status=200)
    assert slots.claim(HOST, Policy(interval_seconds=1), 60) == 10


def test_hosts_do_not_wait_for_each_other(slots: Slots) -> None:
    take(slots, host="a.example")
    take(slots, host="b.example")


def test_the_lease_of_a_dead_process_is_free_at_once(slots: Slots, clock: Clock) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tickwork.upstream.slots import *;"
        f"Slots(Path(sys.argv[1])).claim({HOST!r}, Policy(interval_seconds=0), 1e10);"
        "print('claimed', flush=True); time.sleep(60)"
    )
    clock.now = dt.datetime.now(dt.UTC).timestamp() + 1
    process = subprocess.Popen([sys.executable, "-c", script, slots.path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        assert isinstance(slots.claim(HOST, Policy(interval_seconds=0), 60), float), (
            "the lease of a living process was ignored"
        )
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        take(slots, Policy(interval_seconds=0))  # it is still a zombie here
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("change", ["pid_started = pid_started - 1", "boot = 'another'", "pid = 4194305"])
def test_a_pid_that_was_used_again_does_not_keep_a_lease(slots: Slots, change: str) -> None:
    policy = Policy(interval_seconds=0)
    take(slots, policy)
    assert isinstance(slots.claim(HOST, policy, 60), float)
    with sqlite3.connect(slots.path) as other:
        other.execute(f"UPDATE flights SET {change}")
    take(slots, policy)


def test_a_lease_ends_at_its_deadline_and_a_late_settle_ends_no_other(slots: Slots, clock: Clock) -> None:
    policy = Policy(interval_seconds=0)
    late = take(slots, policy)
    clock.now += 60
    take(slots, policy)
    slots.settle(late, bytes=5, status=200)
    assert isinstance(slots.claim(HOST, policy, 60), float), "the second lease was ended by the first one's settle"
    assert slots.report(1)[0].bytes == 5


def test_a_hold_is_refused_by_name_time_and_reason(slots: Slots, clock: Clock) -> None:
    held = slots.settle(take(slots), bytes=0, status=503, hold_until=at(120), why="answered 503")
    assert held is not None
    clock.now += 119
    with pytest.raises(Held, match=r"repo\.example is on hold until 2026-03-01T12:02:00Z: answered 503"):
        slots.claim(HOST, Policy(), 60)
    clock.now += 1
    take(slots)
    assert slots.holds() == []


def test_a_hold_is_never_shortened(slots: Slots) -> None:
    slots.hold(HOST, at(500), "long")
    assert slots.hold(HOST, at(100), "short").why == "long"
    first = take(slots, host="other.example")
    slots.settle(first, bytes=0, status=429, hold_until=at(3))
    assert [(hold.host, hold.until, hold.why) for hold in slots.holds()] == [
        ("other.example", at(3), "answered 429"),
        (HOST, at(500), "long"),
    ]
    slots.hold(HOST, at(600), "longer")
    assert slots.holds()[1].until == at(600)
    assert slots.holds()[1].since == at(0)


def test_a_hold_is_never_longer_than_the_maximum(slots: Slots) -> None:
    assert slots.hold(HOST, at(1e9), "for ever", max_hold_seconds=60).until == at(60)
    flight = take(slots, Policy(max_hold_seconds=30), host="other.example")
    held = slots.settle(flight, bytes=0, status=429, hold_until=at(1e9))
    assert held is not None
    assert held.until == at(30)


@pytest.mark.parametrize(("status", "base", "cap"), [(429, 900, 86_400), (503, 60, 3600)])
def test_strikes_double_the_hold_up_to_a_cap_and_a_success_forgets_them(
    slots: Slots, clock: Clock, status: int, base: float, cap: float
) -> None:
    def hold_after(status: int) -> float | None:
        held = slots.settle(take(slots), bytes=0, status=status)
        seconds = held.until.timestamp() - clock.now if held else None
        clock.now += (seconds or 0) + 10
        return seconds

    assert [hold_after(status) for _ in range(12)] == pytest.approx([min(base * 2**n, cap) for n in range(12)])
    assert hold_after(500) is None
    assert hold_after(status) == pytest.approx(cap), "a 500 is no success"
    assert hold_after(200) is None
    assert hold_after(status) == pytest.approx(base)


def test_a_told_time_is_no_strike(slots: Slots, clock: Clock) -> None:
    slots.settle(take(slots), bytes=0, status=429, hold_until=at(5))
    assert slots.holds()[0].strikes == 0


def test_a_clock_set_back_costs_one_interval(slots: Slots, clock: Clock) -> None:
    policy = Policy(interval_seconds=10)
    slots.settle(take(slots, policy), bytes=0, status=200)
    clock.now -= 86_400
    assert slots.claim(HOST, policy, 60) == 10
    clock.now += 4
    assert slots.claim(HOST, policy, 60) == 6, "the wait must run down"
    clock.now += 6
    take(slots, policy)


def test_a_clock_set_back_leaves_a_hold_no_longer_than_the_maximum(slots: Slots, clock: Clock) -> None:
    policy = Policy(max_hold_seconds=100)
    slots.hold(HOST, at(90), "asked", max_hold_seconds=100)
    clock.now -= 86_400
    with pytest.raises(Held) as held:
        slots.claim(HOST, policy, 60)
    assert held.value.until.timestamp() == clock.now + 100
    clock.now += 100
    take(slots, policy)


def test_clearing_a_hold_needs_a_reason_and_is_audited(slots: Slots, clock: Clock) -> None:
    slots.settle(take(slots), bytes=0, status=429)
    with pytest.raises(OperatorError, match="--why"):
        slots.clear(HOST, "ada", "  ")
    assert slots.holds()
    slots.clear(HOST.upper(), "ada", "their operator said so")
    assert slots.holds() == []
    assert rows(slots, "SELECT * FROM audit") == [(T0, HOST, "clear", "ada", "their operator said so")]
    assert rows(slots, "SELECT strikes FROM hosts") == [(0,)]
    with pytest.raises(OperatorError, match="there is no hold on repo"):
        slots.clear(HOST, "ada", "again")


def test_the_report_counts_by_host_and_utc_day(slots: Slots, clock: Clock) -> None:
    slots.settle(take(slots), bytes=10, status=200)
    clock.now += 86_400
    slots.settle(take(slots), bytes=20, status=0, fault=True)
    clock.now += 10
    slots.settle(take(slots), bytes=0, status=429)
    slots.settle(take(slots, host="a.example"), bytes=1, status=503)
    today = dt.date(2026, 3, 2)
    assert [(row.host, row.day) for row in slots.report(2)] == [
        ("a.example", today),
        (HOST, today),
        (HOST, dt.date(2026, 3, 1)),
    ]
    assert slots.report(10**9)[:2] == slots.report(2)[:2]
    row = slots.report(1)[1]
    assert (row.requests, row.bytes, row.answers_429, row.answers_503, row.faults, row.holds) == (2, 20, 1, 0, 1, 1)


def test_old_traffic_is_forgotten(slots: Slots, clock: Clock) -> None:
    take(slots)
    clock.now += 91 * 86_400
    Slots(slots.path, clock=clock).close()
    assert slots.report(365) == []


@contextmanager
def no_room_to_write(path: Path) -> Iterator[None]:
    """As if the disk were full, for files of this process larger than the database is now."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in path.parent.iterdir() if not file.name.endswith("-shm"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_gives_no_slot(slots: Slots) -> None:
    take(slots, host="first.example")

    def claim_until_full() -> None:
        for number in range(1000):
            slots.claim(f"host{number}.example", Policy(), 60)

    with no_room_to_write(slots.path), pytest.raises(OperatorError, match=r"slots\.db.*no request was sent"):
        claim_until_full()
    # What was given before the disk was full stands, and afterwards all goes on.
    assert rows(slots, "SELECT count(*) FROM flights") == rows(slots, "SELECT sum(requests) FROM traffic")
    take(slots)


def test_a_hold_that_could_not_be_written_is_named(slots: Slots) -> None:
    flight = take(slots)
    slots._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(OperatorError, match=r"repo\.example answered 429: asked was not recorded"):
        slots.settle(flight, bytes=0, status=429, hold_until=at(60), why="asked")


def test_read_only_reads_and_changes_nothing(slots: Slots, clock: Clock, tmp_path: Path) -> None:
    slots.hold(HOST, at(60), "asked")
    with Slots(slots.path, read_only=True, clock=clock) as reader:
        assert [hold.host for hold in reader.holds()] == [HOST]
        with pytest.raises(OperatorError, match="no request was sent"):
            reader.claim("b.example", Policy(), 60)
    with pytest.raises(OperatorError, match=r"none\.db"):
        Slots(tmp_path / "none.db", read_only=True)
    assert not (tmp_path / "none.db").exists()


def test_a_newer_schema_is_left_alone(slots: Slots) -> None:
    with sqlite3.connect(slots.path) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(OperatorError, match="schema 99"):
        Slots(slots.path)


def test_the_status_path_loads_no_http_library() -> None:
    script = "import sys, tickwork.upstream.slots; print({'requests', 'urllib3', 'sqlite_utils'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_many_processes_may_open_it_for_the_first_time_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tickwork.upstream.slots import *; sys.stdin.read();"
        "Slots(Path(sys.argv[1])).claim('h', Policy(), 60)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "slots.db"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    faults = []
    for process in processes:
        assert process.stderr is not None
        with process.stderr:
            faults.append(process.stderr.read().decode())
        process.wait()
    assert faults == [""] * 8
